//! From the settings of an output to what encodes for it and what sends it.

use std::path::PathBuf;

use crate::dispatch::command::{CommandError, CommandOutput};
use crate::dispatch::email::{self, EmailError, EmailOutput};
use crate::dispatch::encode::Encoder;
use crate::dispatch::encode::text::Palette;
use crate::dispatch::endpoint::{EndpointError, EndpointOutput};
use crate::dispatch::file::FileOutput;
use crate::dispatch::journald::JournaldOutput;
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
    /// Services.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Programs.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Flows in a format that has none.
    #[error("`emit_flows` needs `format: ecs` or `format: ocsf`: no other has a form for flows")]
    NoFlows,
    /// Webhooks.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

/// What encodes for an output.
pub fn encoder(settings: &OutputSettings) -> Result<Encoder, OutputError> {
    let format = settings.format();
    if settings.common.emit_flows && !settings.has_flows() {
        return Err(OutputError::NoFlows);
    }
    Ok(match &settings.transport {
        Transport::Stdout(_) => Encoder::Plain(format, Palette::Coloured),
        Transport::Journald(_) => Encoder::Journal,
        Transport::Syslog(syslog) => Encoder::syslog(format, syslog, syslog::transport(syslog)),
        Transport::Email(email) => Encoder::Email(Box::new(email::envelope(email)?)),
        other => match other.service() {
            Some((service, endpoint)) => Encoder::Endpoint(service, Box::new(endpoint.clone())),
            None => Encoder::Plain(format, Palette::Plain),
        },
    })
}

/// What sends for an output. Reads secrets and certificates; connects to nothing.
/// `commands` are the programs that may be run.
pub fn notifier(settings: &OutputSettings, commands: &[PathBuf]) -> Result<Box<dyn Notifier>, OutputError> {
    Ok(match &settings.transport {
        Transport::Stdout(_) => Box::new(Stdout),
        Transport::File(file) => Box::new(FileOutput::new(file.clone())),
        Transport::Syslog(syslog) => Box::new(SyslogOutput::new(syslog)?),
        Transport::Email(email) => Box::new(EmailOutput::new(email)?),
        Transport::Webhook(webhook) => Box::new(WebhookOutput::new(webhook)?),
        Transport::Journald(journald) => Box::new(JournaldOutput::new(journald)),
        Transport::Command(command) => Box::new(CommandOutput::new(command, commands)?),
        other => match other.service() {
            Some((service, endpoint)) => Box::new(EndpointOutput::new(service, endpoint)?),
            // Every kind is one of the above or a service.
            None => Box::new(Stdout),
        },
    })
}
