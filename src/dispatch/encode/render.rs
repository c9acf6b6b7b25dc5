//! Chooses the encoder of a format.

use crate::dispatch::encode::text::Palette;
use crate::dispatch::encode::{ecs_json, json, text};
use crate::dispatch::message::{Message, Origin};
use crate::dispatch::settings::Format;

/// The bytes of a message in one format. Formats that say one thing a record
/// give one line for each notification.
pub fn render(format: Format, palette: Palette, message: &Message, origin: &Origin) -> Vec<u8> {
    match format {
        Format::Json => json::encode(message, origin),
        Format::Text => text::encode(message, palette).into_bytes(),
        Format::Ecs => lines(message, |notification| ecs_json::encode(notification, origin)),
    }
}

fn lines(message: &Message, encode: impl Fn(&crate::alert::Notification) -> Vec<u8>) -> Vec<u8> {
    let records: Vec<Vec<u8>> = message.notifications.iter().map(|notification| encode(notification)).collect();
    records.join(&b'\n')
}
