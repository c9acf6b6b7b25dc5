//! Chooses how an output writes: a format, and what stands around it.

use jiff::tz::TimeZone;

use crate::alert::Notification;
use crate::alert::{Message, Origin};
use crate::dispatch::encode::rfc5424::{self, Body, Form, Header};
use crate::dispatch::encode::text::{self, Palette};
use crate::dispatch::encode::{ecs_json, email, json};
use crate::dispatch::settings::{Format, SyslogHeader, SyslogSettings, SyslogTransport};

/// Writes messages for one output.
#[derive(Debug, Clone)]
pub enum Encoder {
    /// A format and nothing around it.
    Plain(Format, Palette),
    /// A syslog message.
    Syslog(Format, Box<Header>),
    /// A mail.
    Email(Box<email::Envelope>),
}

impl Encoder {
    /// For a syslog output: the form that the transport, the header and the format ask for.
    pub fn syslog(format: Format, settings: &SyslogSettings, transport: SyslogTransport) -> Self {
        let local = transport == SyslogTransport::Unix;
        let form = match (settings.header, format) {
            (Some(SyslogHeader::Rfc5424), _) => Form::Rfc5424,
            (Some(SyslogHeader::Rfc3164), _) | (None, Format::Rfc3164) if local => Form::Local,
            (Some(SyslogHeader::Rfc3164), _) | (None, Format::Rfc3164) => Form::Rfc3164,
            (None, _) => Form::Rfc5424,
        };
        let default_size = if transport == SyslogTransport::Udp { 1024 } else { 8192 };
        let header = Header {
            form,
            facility: settings.facility as u8,
            app_name: settings.app_name.clone().unwrap_or_else(|| "egret".to_owned()),
            sd_id: settings.sd_id.clone().unwrap_or_else(|| "egress@32473".to_owned()),
            max_size: settings.max_size.map_or(default_size, |size| usize::try_from(size).unwrap_or(usize::MAX)),
            zone: TimeZone::system(),
        };
        Self::Syslog(format, Box::new(header))
    }

    /// The bytes of a message. Formats that say one thing a record give one line for each notification.
    pub fn encode(&self, message: &Message, origin: &Origin) -> Vec<u8> {
        match self {
            Self::Plain(format, palette) => plain(*format, *palette, message, origin),
            Self::Syslog(Format::Rfc5424 | Format::Rfc3164, header) => {
                rfc5424::encode(message.headline(), origin, header, Body::Structured)
            }
            Self::Syslog(format, header) => {
                let record = plain(*format, Palette::Plain, message, origin);
                rfc5424::encode(message.headline(), origin, header, Body::Record(&record))
            }
            Self::Email(envelope) => email::encode(message, origin, envelope),
        }
    }
}

fn plain(format: Format, palette: Palette, message: &Message, origin: &Origin) -> Vec<u8> {
    match format {
        Format::Json => json::encode(message, origin),
        Format::Text => text::encode(message, palette).into_bytes(),
        Format::Ecs => lines(message, |notification| ecs_json::encode(notification, origin)),
        Format::Rfc5424 | Format::Rfc3164 => {
            let form = if format == Format::Rfc5424 { Form::Rfc5424 } else { Form::Rfc3164 };
            let header = Header {
                form,
                facility: crate::dispatch::settings::Facility::default() as u8,
                app_name: "egret".to_owned(),
                sd_id: "egress@32473".to_owned(),
                max_size: 65_507,
                zone: TimeZone::system(),
            };
            lines(message, |notification| rfc5424::encode(notification, origin, &header, Body::Structured))
        }
    }
}

fn lines(message: &Message, encode: impl Fn(&Notification) -> Vec<u8>) -> Vec<u8> {
    let records: Vec<Vec<u8>> = message.notifications.iter().map(|notification| encode(notification)).collect();
    records.join(&b'\n')
}
