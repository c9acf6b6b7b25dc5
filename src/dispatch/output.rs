//! From the settings of an output to what encodes for it and what sends it.

use crate::dispatch::email::{self, EmailError, EmailOutput};
use crate::dispatch::encode::Encoder;
use crate::dispatch::encode::text::Palette;
use crate::dispatch::file::FileOutput;
use crate::dispatch::notifier::Notifier;
use crate::dispatch::settings::{OutputSettings, Transport};
use crate::dispatch::stdout::Stdout;
use crate::dispatch::syslog::{self, SyslogError, SyslogOutput};
use crate::dispatch::webhook::{WebhookError, WebhookOutput};

/// Why an output cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Syslog.
    #[error(transparent)]
    Syslog(#[from] SyslogError),
    /// Mail.
    #[error(transparent)]
    Email(#[from] EmailError),
    /// Webhooks.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

/// What encodes for an output.
pub fn encoder(settings: &OutputSettings) -> Result<Encoder, OutputError> {
    let format = settings.common.format.unwrap_or(settings.transport.default_format());
    Ok(match &settings.transport {
        Transport::Stdout(_) => Encoder::Plain(format, Palette::Coloured),
        Transport::File(_) | Transport::Webhook(_) => Encoder::Plain(format, Palette::Plain),
        Transport::Syslog(syslog) => Encoder::syslog(format, syslog, syslog::transport(syslog)),
        Transport::Email(email) => Encoder::Email(Box::new(email::envelope(email)?)),
    })
}

/// What sends for an output. Reads secrets and certificates; connects to nothing.
pub fn notifier(settings: &OutputSettings) -> Result<Box<dyn Notifier>, OutputError> {
    Ok(match &settings.transport {
        Transport::Stdout(_) => Box::new(Stdout),
        Transport::File(file) => Box::new(FileOutput::new(file.clone())),
        Transport::Syslog(syslog) => Box::new(SyslogOutput::new(syslog)?),
        Transport::Email(email) => Box::new(EmailOutput::new(email)?),
        Transport::Webhook(webhook) => Box::new(WebhookOutput::new(webhook)?),
    })
}
