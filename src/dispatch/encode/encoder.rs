//! Chooses how an output writes: a format, and what stands around it.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::alert::Notification;
use crate::alert::{Message, Origin};
use crate::dispatch::encode::rfc5424::{self, Body, Form, Header};
use crate::dispatch::encode::text::{self, Palette};
use crate::dispatch::encode::{cef, chat, ecs_json, email, intake, json, leef, ocsf, paging, template};
use crate::dispatch::journald;
use crate::dispatch::settings::{EndpointSettings, Format, Service, SyslogHeader, SyslogSettings, SyslogTransport};

/// Writes messages for one output.
#[derive(Debug, Clone)]
pub enum Encoder {
    /// A format and nothing around it.
    Plain(Format, Palette),
    /// A syslog message.
    Syslog(Format, Box<Header>),
    /// A mail.
    Email(Box<email::Envelope>),
    /// An entry of the systemd journal.
    Journal,
    /// What a service wants.
    Endpoint(Service, Box<EndpointSettings>),
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

    /// The same message in a small form, for a receiver that found it too large.
    pub fn shrink(&self, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::Email(_) => email::shrink(payload),
            Self::Journal => journald::shrink(payload),
            _ => json::shrink(payload),
        }
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
            Self::Journal => journald::encode(message.headline()),
            Self::Endpoint(service, settings) => endpoint(*service, settings, message, origin),
        }
    }
}

fn endpoint(service: Service, settings: &EndpointSettings, message: &Message, origin: &Origin) -> Vec<u8> {
    let text = |setting: &Option<String>| setting.clone().unwrap_or_default();
    match service {
        Service::Slack | Service::Mattermost => chat::slack(message, origin),
        Service::Teams => chat::teams(message, origin),
        Service::Discord => chat::discord(message, origin),
        Service::Telegram => chat::telegram(message, origin, &text(&settings.chat_id)),
        Service::Googlechat => chat::googlechat(message, origin),
        Service::Gotify => chat::gotify(message, origin),
        Service::Ntfy => chat::ntfy(message, origin, &text(&settings.topic)),
        Service::Pagerduty => paging::pagerduty(message, origin),
        Service::Opsgenie => paging::opsgenie(message, origin),
        Service::Alertmanager => intake::alertmanager(message, origin),
        Service::SplunkHec => {
            let source_type = settings.source_type.as_deref().unwrap_or("egret:alert");
            intake::splunk(message, origin, settings.index.as_deref(), source_type)
        }
        Service::Elasticsearch => {
            intake::elasticsearch(message, origin, settings.index.as_deref().unwrap_or("egret-alerts"))
        }
        Service::Loki => intake::loki(message, origin),
        Service::Generic => template::encode(message, origin, &text(&settings.template)),
    }
}

fn plain(format: Format, palette: Palette, message: &Message, origin: &Origin) -> Vec<u8> {
    match format {
        Format::Json => json::encode(message, origin),
        Format::Text => text::encode(message, palette).into_bytes(),
        Format::Ecs => lines(message, |notification| ecs_json::encode(notification, origin)),
        Format::Ocsf => findings(message, origin),
        Format::Cef => lines(message, cef::encode),
        Format::Leef => lines(message, leef::encode),
        Format::Alertmanager => intake::alertmanager_webhook(message, origin),
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

/// Each finding under an id of its own: the message's, and its place where there are several.
fn findings(message: &Message, origin: &Origin) -> Vec<u8> {
    let several = message.notifications.len() > 1;
    let finding = |(place, one): (usize, &Arc<Notification>)| {
        let uid = if several { format!("{}-{place}", message.id) } else { message.id.to_string() };
        ocsf::encode(one, origin, message.suppressed.as_deref(), Some(&uid))
    };
    let records: Vec<Vec<u8>> = message.notifications.iter().enumerate().map(finding).collect();
    records.join(&b'\n')
}

fn lines(message: &Message, encode: impl Fn(&Notification) -> Vec<u8>) -> Vec<u8> {
    let records: Vec<Vec<u8>> = message.notifications.iter().map(|notification| encode(notification)).collect();
    records.join(&b'\n')
}
