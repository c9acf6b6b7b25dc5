//! Where an output goes: every kind with the keys of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::alert::Waits;
use crate::dispatch::settings::values::{duration, duration_option, size_option};
use crate::dispatch::settings::{Format, RateSettings};

/// Where an output goes: the key `type`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Transport {
    /// Standard output.
    Stdout(StdoutSettings),
    /// A file, one record a line.
    File(FileSettings),
    /// A syslog server, or this host's own.
    Syslog(SyslogSettings),
    /// Mail.
    Email(EmailSettings),
    /// An HTTP endpoint that takes our JSON.
    Webhook(WebhookSettings),
    /// The systemd journal.
    Journald(JournaldSettings),
    /// A program of the operator's.
    Command(CommandSettings),
    /// A Slack channel.
    Slack(EndpointSettings),
    /// A Mattermost channel.
    Mattermost(EndpointSettings),
    /// A Teams channel, through a workflow.
    Teams(EndpointSettings),
    /// A Discord channel.
    Discord(EndpointSettings),
    /// A Telegram chat.
    Telegram(EndpointSettings),
    /// A Google Chat space.
    Googlechat(EndpointSettings),
    /// A topic of ntfy.
    Ntfy(EndpointSettings),
    /// An application of Gotify.
    Gotify(EndpointSettings),
    /// PagerDuty.
    Pagerduty(EndpointSettings),
    /// Opsgenie, or Jira Service Management.
    #[serde(alias = "jsm")]
    Opsgenie(EndpointSettings),
    /// Prometheus Alertmanager.
    Alertmanager(EndpointSettings),
    /// Splunk's HTTP Event Collector.
    SplunkHec(EndpointSettings),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(EndpointSettings),
    /// Grafana Loki.
    Loki(EndpointSettings),
    /// Any HTTP endpoint, through a template.
    Generic(EndpointSettings),
}

impl Transport {
    /// What is written where no `format` is given.
    pub fn default_format(&self) -> Format {
        match self {
            Self::Stdout(_) => Format::Text,
            Self::Syslog(_) => Format::Rfc5424,
            Self::Email(_) => Format::Text,
            // The others have a form of their own or take ours.
            _ => Format::Json,
        }
    }
}

impl Transport {
    /// How fast it may be fed where no `rate` is given; `None` for as fast as it takes.
    pub fn default_rate(&self) -> Option<RateSettings> {
        match self {
            Self::Email(_) | Self::Discord(_) => Some(RateSettings { per_second: 0.5, burst: 5 }),
            Self::Slack(_)
            | Self::Mattermost(_)
            | Self::Telegram(_)
            | Self::Googlechat(_)
            | Self::Ntfy(_)
            | Self::Gotify(_) => Some(RateSettings { per_second: 1.0, burst: 5 }),
            Self::Teams(_) | Self::Pagerduty(_) | Self::Opsgenie(_) => {
                Some(RateSettings { per_second: 2.0, burst: 10 })
            }
            _ => None,
        }
    }

    /// What becomes of a firing and a resolution that wait together: people want one message, machines both.
    pub fn default_coalesce(&self) -> Coalesce {
        match self {
            Self::Email(_) => Coalesce::Merge,
            other if other.service().is_some_and(|(service, _)| service.is_chat()) => Coalesce::Merge,
            _ => Coalesce::Both,
        }
    }

    /// How long groups wait, where alerts are grouped: for people, unless `group` says otherwise.
    pub fn default_waits(&self, group: Option<bool>) -> Option<Waits> {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let waits = Waits { wait: Duration::from_secs(10), interval: minutes(2), repeat: Some(minutes(240)) };
        match self {
            Self::Email(EmailSettings { digest: Some(digest), .. }) => {
                Some(Waits { wait: *digest, interval: *digest, repeat: None })
            }
            // One record says one thing, and a pager knows each alert by its key: nothing to put together.
            Self::Stdout(_) | Self::File(_) | Self::Syslog(_) | Self::Journald(_) => None,
            Self::Pagerduty(_) | Self::Opsgenie(_) => None,
            Self::Email(_) => group.unwrap_or(true).then_some(waits),
            Self::Webhook(_) | Self::Command(_) | Self::Generic(_) => group.unwrap_or(false).then_some(waits),
            _ => match self.service() {
                Some((service, _)) => group.unwrap_or(service.is_chat()).then_some(waits),
                None => None,
            },
        }
    }
}

impl Transport {
    /// The service behind an endpoint, with its settings.
    pub fn service(&self) -> Option<(Service, &EndpointSettings)> {
        Some(match self {
            Self::Slack(settings) => (Service::Slack, settings),
            Self::Mattermost(settings) => (Service::Mattermost, settings),
            Self::Teams(settings) => (Service::Teams, settings),
            Self::Discord(settings) => (Service::Discord, settings),
            Self::Telegram(settings) => (Service::Telegram, settings),
            Self::Googlechat(settings) => (Service::Googlechat, settings),
            Self::Ntfy(settings) => (Service::Ntfy, settings),
            Self::Gotify(settings) => (Service::Gotify, settings),
            Self::Pagerduty(settings) => (Service::Pagerduty, settings),
            Self::Opsgenie(settings) => (Service::Opsgenie, settings),
            Self::Alertmanager(settings) => (Service::Alertmanager, settings),
            Self::SplunkHec(settings) => (Service::SplunkHec, settings),
            Self::Elasticsearch(settings) => (Service::Elasticsearch, settings),
            Self::Loki(settings) => (Service::Loki, settings),
            Self::Generic(settings) => (Service::Generic, settings),
            _ => return None,
        })
    }
}

/// A service with an HTTP interface of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants of `Transport` say what they are")]
pub enum Service {
    Slack,
    Mattermost,
    Teams,
    Discord,
    Telegram,
    Googlechat,
    Ntfy,
    Gotify,
    Pagerduty,
    Opsgenie,
    Alertmanager,
    SplunkHec,
    Elasticsearch,
    Loki,
    Generic,
}

impl Service {
    /// The word for it in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Mattermost => "mattermost",
            Self::Teams => "teams",
            Self::Discord => "discord",
            Self::Telegram => "telegram",
            Self::Googlechat => "googlechat",
            Self::Ntfy => "ntfy",
            Self::Gotify => "gotify",
            Self::Pagerduty => "pagerduty",
            Self::Opsgenie => "opsgenie",
            Self::Alertmanager => "alertmanager",
            Self::SplunkHec => "splunk_hec",
            Self::Elasticsearch => "elasticsearch",
            Self::Loki => "loki",
            Self::Generic => "generic",
        }
    }

    /// Where it is found, for services that are in one place.
    pub fn default_url(self) -> Option<&'static str> {
        match self {
            Self::Telegram => Some("https://api.telegram.org"),
            Self::Ntfy => Some("https://ntfy.sh"),
            Self::Pagerduty => Some("https://events.pagerduty.com/v2/enqueue"),
            Self::Opsgenie => Some("https://api.opsgenie.com"),
            _ => None,
        }
    }

    /// Whether it takes nothing without a token.
    pub fn needs_token(self) -> bool {
        matches!(self, Self::Telegram | Self::Gotify | Self::Pagerduty | Self::Opsgenie | Self::SplunkHec)
    }

    /// Whether people read along.
    pub fn is_chat(self) -> bool {
        matches!(
            self,
            Self::Slack
                | Self::Mattermost
                | Self::Teams
                | Self::Discord
                | Self::Telegram
                | Self::Googlechat
                | Self::Ntfy
                | Self::Gotify
        )
    }
}

/// The keys of outputs to services; each service knows some of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointSettings {
    /// Where it is.
    pub url: Option<String>,
    /// Where all members of a cluster are, for `alertmanager`.
    pub urls: Vec<String>,
    /// The file that holds the URL, where that is a secret.
    pub url_file: Option<PathBuf>,
    /// The variable that holds the URL.
    pub url_env: Option<String>,
    /// The systemd credential that holds the URL.
    pub url_credential: Option<String>,
    /// Allows `http://`.
    pub allow_insecure: bool,
    /// The file that holds the token, routing key or API key.
    pub token_file: Option<PathBuf>,
    /// The variable that holds it.
    pub token_env: Option<String>,
    /// The systemd credential that holds it.
    pub token_credential: Option<String>,
    /// The user to log in as.
    pub username: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Headers to add.
    pub headers: BTreeMap<String, String>,
    /// How requests are made.
    pub http: HttpSettings,
    /// The index, for `elasticsearch` and `splunk_hec`.
    pub index: Option<String>,
    /// The source type, for `splunk_hec`.
    pub source_type: Option<String>,
    /// The tenant, for `loki`.
    pub tenant: Option<String>,
    /// The topic, for `ntfy`.
    pub topic: Option<String>,
    /// The chat, for `telegram`.
    pub chat_id: Option<String>,
    /// The body, for `generic`.
    pub template: Option<String>,
    /// What the body is.
    pub content_type: Option<String>,
}

/// `type: journald`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournaldSettings {
    /// The journal's socket, where it is not at its usual place.
    pub socket: Option<PathBuf>,
}

/// `type: command`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSettings {
    /// The program's absolute path, which `commands` must allow.
    pub program: PathBuf,
    /// Its arguments, always the same.
    #[serde(default)]
    pub args: Vec<String>,
    /// How long it may take.
    #[serde(default = "default_smtp_timeout", with = "duration")]
    pub timeout: Duration,
}

/// `type: stdout`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StdoutSettings {}

/// `type: file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The file; it is made where it is missing, readable by its group.
    pub path: PathBuf,
    /// A file that would grow beyond this is renamed to `path.1` first.
    #[serde(default, with = "size_option")]
    pub rotate_bytes: Option<u64>,
    /// How many renamed files are kept.
    #[serde(default = "default_rotate_keep")]
    pub rotate_keep: u32,
}

/// `type: syslog`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyslogSettings {
    /// How messages travel; without it `tls` or `udp` is never guessed: an address means `tcp`, none means `unix`.
    pub transport: Option<SyslogTransport>,
    /// `host:port`, or the path of a socket for `unix`; `/dev/log` where it is not given.
    pub address: Option<String>,
    /// The header around a `format` that is not a syslog format itself.
    pub header: Option<SyslogHeader>,
    /// How messages are told apart on a stream; octet counting on TLS, line ends on TCP where it is not given.
    pub framing: Option<Framing>,
    /// The facility's name.
    pub facility: Facility,
    /// The program's name in the header.
    pub app_name: Option<String>,
    /// The id of the structured data element.
    pub sd_id: Option<String>,
    /// The largest message.
    #[serde(with = "size_option")]
    pub max_size: Option<u64>,
    /// Certificates, for `tls`.
    pub tls: TlsSettings,
}

/// How syslog messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogTransport {
    /// A socket of this host.
    Unix,
    /// One datagram a message.
    Udp,
    /// A stream.
    Tcp,
    /// A stream that is encrypted and checked.
    Tls,
}

/// The header around a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogHeader {
    /// With a version and an exact time.
    Rfc5424,
    /// With local time and a tag.
    Rfc3164,
}

/// How messages are told apart on a stream (RFC 6587).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// The length stands before each message.
    Octet,
    /// A line end stands after each message.
    Lf,
}

/// A syslog facility.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of RFC 5424, section 6.2.1")]
pub enum Facility {
    Kern = 0,
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    #[default]
    Authpriv = 10,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// Whom an output trusts, and who it says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// The only authorities that are trusted; this host's where it is not given.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, with its chain.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The name that the server must prove; the host of the address where it is not given.
    pub server_name: Option<String>,
}

/// `type: email`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// The server as `host:port`.
    pub smtp: String,
    /// The sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// How the connection is encrypted; `tls` on port 465 and `starttls` elsewhere where it is not given.
    pub security: Option<SmtpSecurity>,
    /// Allows `security: none`.
    #[serde(default)]
    pub allow_insecure: bool,
    /// The user to log in as.
    pub username: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The variable that holds the password.
    pub password_env: Option<String>,
    /// The systemd credential that holds the password.
    pub password_credential: Option<String>,
    /// How to log in; the best that the server offers of `plain` and `login` where it is not given.
    pub auth: Option<SmtpAuth>,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsSettings,
    /// How long each step may take.
    #[serde(default = "default_smtp_timeout", with = "duration")]
    pub timeout: Duration,
    /// Alerts are collected for so long and sent in one mail.
    #[serde(default, with = "duration_option")]
    pub digest: Option<Duration>,
}

/// How a connection to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    /// It starts in the clear and must become encrypted.
    Starttls,
    /// It is encrypted from the first byte.
    Tls,
    /// It is not.
    None,
}

/// How to log in to a mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of the mechanisms")]
pub enum SmtpAuth {
    Plain,
    Login,
    Xoauth2,
}

/// `type: webhook`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where to post.
    pub url: Option<String>,
    /// The file that holds the URL, where that is a secret.
    pub url_file: Option<PathBuf>,
    /// The variable that holds the URL.
    pub url_env: Option<String>,
    /// The systemd credential that holds the URL.
    pub url_credential: Option<String>,
    /// How requests are made.
    #[serde(default)]
    pub http: HttpSettings,
    /// Allows `http://`.
    #[serde(default)]
    pub allow_insecure: bool,
    /// How the body is signed.
    #[serde(default)]
    pub scheme: SignatureScheme,
    /// The file that holds the secret.
    pub secret_file: Option<PathBuf>,
    /// The variable that holds the secret.
    pub secret_env: Option<String>,
    /// The systemd credential that holds the secret.
    pub secret_credential: Option<String>,
    /// The file that holds the secret before it was changed; both sign while receivers follow.
    pub previous_secret_file: Option<PathBuf>,
    /// Headers to add.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The file that holds the value of `Authorization`.
    pub authorization_file: Option<PathBuf>,
}

/// How HTTP requests are made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// How long a request may take in all.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The proxy, never taken from the environment.
    pub proxy: Option<String>,
    /// Certificates.
    pub tls: TlsSettings,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), proxy: None, tls: TlsSettings::default() }
    }
}

/// How the body of a request is signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureScheme {
    /// Standard Webhooks, HMAC-SHA256: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    #[default]
    Standard,
    /// `X-Hub-Signature-256` over the body.
    Github,
    /// `X-Grafana-Alerting-Signature` over time and body.
    Grafana,
    /// Standard Webhooks with an Ed25519 key.
    Ed25519,
}

/// What becomes of a firing and a resolution of one alert that wait together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coalesce {
    /// The resolution says both: when it fired and when it ended.
    Merge,
    /// Both are sent, in their order.
    Both,
}

fn default_rotate_keep() -> u32 {
    5
}

fn default_smtp_timeout() -> Duration {
    Duration::from_secs(30)
}
