//! What the configuration says of outputs and of routing, as it is meant.
//!
//! Strict: an unknown key is an error. Keys that every kind of output takes
//! are read apart from those of its kind, so that both are checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use crate::alert::{Inhibition, Matcher, PatternError, Redactor, Silence, Waits};
use crate::rule::Severity;
use crate::time::Timestamp;

/// Everything that says where alerts go.
#[derive(Debug, Clone, Default)]
pub struct DispatchSettings {
    /// The outputs by name.
    pub outputs: BTreeMap<String, OutputSettings>,
    /// Who gets what.
    pub routing: RoutingSettings,
    /// Alerts that keep others quiet.
    pub inhibit: Vec<InhibitSettings>,
    /// What nobody needs to hear of for a while.
    pub silences: Vec<SilenceSettings>,
    /// How much waits on disk.
    pub outbox: OutboxSettings,
    /// What is covered in command lines.
    pub redact: RedactSettings,
    /// The programs that outputs of type `command` may run.
    pub commands: Vec<PathBuf>,
}

/// How much waits on disk.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxSettings {
    /// Bytes of deliveries; the oldest of the mildest make room for new ones.
    #[serde(with = "size")]
    pub max_bytes: u64,
    /// For how long a delivery is tried, where its output says nothing else.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// The longest silence that may be made.
    #[serde(with = "duration")]
    pub longest_silence: Duration,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_age: Duration::from_secs(3 * 86_400),
            longest_silence: Duration::from_secs(30 * 86_400),
        }
    }
}

/// One alert keeps others quiet while it fires.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InhibitSettings {
    /// The alert that explains the others.
    pub source: BTreeMap<String, OneOrMany>,
    /// The others.
    pub target: BTreeMap<String, OneOrMany>,
    /// Labels that both must share.
    pub equal: Vec<String>,
}

/// A silence that stands in the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilenceSettings {
    /// Patterns by label; all labels must match one of their patterns.
    pub when: BTreeMap<String, OneOrMany>,
    /// From when on it holds.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Who wanted it.
    pub author: String,
    /// Why.
    pub reason: String,
}

impl SilenceSettings {
    /// The silence; what is written the same has the same id.
    pub fn silence(&self) -> Silence {
        let list = |patterns: &OneOrMany| patterns.as_list().into_iter().map(str::to_owned).collect();
        let content = format!("{:?} {} {} {} {}", self.when, self.from, self.until, self.author, self.reason);
        Silence {
            id: format!("{CONFIGURED}{}", &blake3::hash(content.as_bytes()).to_hex()[..12]),
            matchers: self.when.iter().map(|(label, patterns)| (label.clone(), list(patterns))).collect(),
            starts_at: self.from,
            ends_at: Some(self.until),
            author: self.author.clone(),
            reason: self.reason.clone(),
        }
    }
}

/// How the ids of silences begin that stand in the configuration.
pub const CONFIGURED: &str = "file-";

/// One output: a kind with its own keys, and the keys that all kinds share.
#[derive(Debug, Clone)]
pub struct OutputSettings {
    /// Where it goes.
    pub transport: Transport,
    /// What every output takes.
    pub common: Common,
    /// The same as it is written, to be compared.
    pub written: serde_json::Map<String, serde_json::Value>,
}

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

/// What is covered in command lines before anything is sent or kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedactSettings {
    /// Whether secrets are covered at all.
    pub enabled: bool,
    /// Regular expressions for further ones; the group named `secret`, or else the whole match, is covered.
    pub patterns: Vec<String>,
}

impl Default for RedactSettings {
    fn default() -> Self {
        Self { enabled: true, patterns: Vec::new() }
    }
}

impl DispatchSettings {
    /// What covers secrets, where they are to be covered.
    pub fn redactor(&self) -> Result<Option<Redactor>, regex::Error> {
        self.redact.enabled.then(|| Redactor::new(&self.redact.patterns)).transpose()
    }

    /// The inhibitions as they are meant.
    pub fn inhibitions(&self) -> Result<Vec<Inhibition>, PatternError> {
        let matcher = |written: &BTreeMap<String, OneOrMany>| {
            Matcher::new(written.iter().map(|(label, patterns)| (label.as_str(), patterns.as_list())))
        };
        let compile = |inhibit: &InhibitSettings| {
            Ok(Inhibition {
                source: matcher(&inhibit.source)?,
                target: matcher(&inhibit.target)?,
                equal: inhibit.equal.clone(),
            })
        };
        self.inhibit.iter().map(compile).collect()
    }
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

/// The keys that every kind of output takes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Common {
    /// What is written; each kind has its own default.
    pub format: Option<Format>,
    /// Deliveries that wait in memory at once.
    pub queue: usize,
    /// For how long a delivery is tried before it is given up; what `outbox` says where it is not given.
    #[serde(with = "duration_option")]
    pub max_age: Option<Duration>,
    /// Deliveries a second, and how many may go at once.
    pub rate: Option<RateSettings>,
    /// Whether several alerts may become one delivery.
    pub group: Option<bool>,
    /// What becomes of a firing and a resolution that wait together; each kind has its own default.
    pub coalesce: Option<Coalesce>,
    /// Whether resolutions are sent.
    pub send_resolved: bool,
    /// Nothing milder is sent.
    pub min_severity: Severity,
    /// Whether what a silence or an inhibition holds back is sent all the same, marked as suppressed.
    pub audit: bool,
    /// How often a sign of life is sent.
    #[serde(with = "duration_option")]
    pub heartbeat: Option<Duration>,
    /// Which output stands in when this one has failed for ten minutes.
    pub fallback: Option<String>,
    /// Whether an alert is followed by its flows, one record each, in a format that has a form for flows.
    pub emit_flows: bool,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            format: None,
            queue: 10_000,
            max_age: None,
            coalesce: None,
            rate: None,
            group: None,
            send_resolved: true,
            min_severity: Severity::Info,
            audit: false,
            heartbeat: None,
            fallback: None,
            emit_flows: false,
        }
    }
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

/// What an output writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One line and indented evidence, for people.
    Text,
    /// Our own JSON.
    Json,
    /// An Elastic Common Schema document.
    Ecs,
    /// A syslog message with structured data.
    #[serde(alias = "rfc5424-sd")]
    Rfc5424,
    /// A syslog message of the older form.
    Rfc3164,
    /// A Detection Finding of the Open Cybersecurity Schema Framework.
    Ocsf,
    /// ArcSight's Common Event Format.
    Cef,
    /// IBM's Log Event Extended Format 2.0.
    Leef,
    /// The body of Alertmanager's webhook.
    #[serde(alias = "alertmanager-v4")]
    Alertmanager,
}

/// How fast an output may be fed.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSettings {
    /// Deliveries a second in the long run.
    pub per_second: f64,
    /// Deliveries at once.
    #[serde(default = "default_burst")]
    pub burst: u32,
}

/// Who gets what.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingSettings {
    /// What holds where a route says nothing else.
    pub defaults: RouteDefaults,
    /// Tried from first to last; the first that matches and does not `continue` ends the search.
    pub routes: Vec<RouteSettings>,
    /// Gets what nothing else took.
    pub fallback: Vec<String>,
    /// Times of the week by name, for `active` of routes.
    pub schedules: BTreeMap<String, ScheduleSettings>,
}

/// A time of the week.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSettings {
    /// The time zone; this host's where it is not given.
    pub tz: Option<String>,
    /// Days such as `mon-fri`; every day where none is given.
    pub weekdays: Option<OneOrMany>,
    /// Times such as `07:00-19:00`; all day where none is given.
    pub times: Option<OneOrMany>,
    /// Days of the month such as `1-7`, or `-1` for the last; all where none is given.
    pub days_of_month: Option<OneOrMany>,
    /// Months such as `jan-mar`; all where none is given.
    pub months: Option<OneOrMany>,
    /// Years such as `2026`; all where none is given.
    pub years: Option<OneOrMany>,
    /// Days such as `2026-12-31` that do not count.
    pub holidays: Option<OneOrMany>,
}

/// When a route is tried; outside that time the search goes on as if the route were not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActiveSettings {
    /// Only during one of these schedules.
    pub during: Option<OneOrMany>,
    /// Never during one of these.
    pub except: Option<OneOrMany>,
}

/// What holds where a route says nothing else.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteDefaults {
    /// Get whatever reaches the end of the routes.
    pub outputs: Vec<String>,
    /// Labels that must be the same in one group.
    pub group_by: Option<Vec<String>>,
    /// How long the first alert of a group waits for others.
    #[serde(with = "duration_option")]
    pub group_wait: Option<Duration>,
    /// How long a group that was sent waits before it is sent with changes.
    #[serde(with = "duration_option")]
    pub group_interval: Option<Duration>,
    /// After which time an unchanged group is sent again.
    #[serde(with = "duration_option")]
    pub repeat: Option<Duration>,
}

/// One route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteSettings {
    /// Patterns by label; all labels must match one of their patterns.
    pub when: BTreeMap<String, OneOrMany>,
    /// When it is tried.
    pub active: ActiveSettings,
    /// Who gets it.
    pub outputs: Vec<String>,
    /// Whether later routes are tried as well.
    #[serde(rename = "continue")]
    pub goes_on: bool,
    /// Labels that must be the same in one group.
    pub group_by: Option<Vec<String>>,
    /// How long the first alert of a group waits for others.
    #[serde(with = "duration_option")]
    pub group_wait: Option<Duration>,
    /// How long a group that was sent waits before it is sent with changes.
    #[serde(with = "duration_option")]
    pub group_interval: Option<Duration>,
    /// After which time an unchanged group is sent again.
    #[serde(with = "duration_option")]
    pub repeat: Option<Duration>,
    /// Routes below this one, which inherit its wishes.
    pub routes: Vec<RouteSettings>,
}

/// How alerts are put together for outputs that group; `None` where nothing was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupSettings {
    /// Labels that must be the same in one group.
    pub by: Option<Vec<String>>,
    /// How long the first alert of a group waits for others.
    pub wait: Option<Duration>,
    /// How long a group that was sent waits before it is sent with changes.
    pub interval: Option<Duration>,
    /// After which time an unchanged group is sent again.
    pub repeat: Option<Duration>,
}

impl RouteDefaults {
    /// How alerts are put together.
    pub fn group(&self) -> GroupSettings {
        let Self { group_by: by, group_wait: wait, group_interval: interval, repeat, .. } = self.clone();
        GroupSettings { by, wait, interval, repeat }
    }
}

impl RouteSettings {
    /// How alerts are put together.
    pub fn group(&self) -> GroupSettings {
        let Self { group_by: by, group_wait: wait, group_interval: interval, repeat, .. } = self.clone();
        GroupSettings { by, wait, interval, repeat }
    }
}

impl GroupSettings {
    /// These wishes, and `outer` where there are none.
    pub fn or(&self, outer: &Self) -> Self {
        Self {
            by: self.by.clone().or_else(|| outer.by.clone()),
            wait: self.wait.or(outer.wait),
            interval: self.interval.or(outer.interval),
            repeat: self.repeat.or(outer.repeat),
        }
    }
}

/// A pattern or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several, of which one must match.
    Many(Vec<String>),
}

impl OneOrMany {
    /// As a list.
    pub fn as_list(&self) -> Vec<&str> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many.iter().map(String::as_str).collect(),
        }
    }
}

impl DispatchSettings {
    /// Lets alerts be followed by their flows wherever the format has a form for them; whether it is anywhere.
    pub fn emit_flows(&mut self) -> bool {
        let able = self.outputs.values_mut().filter(|output| output.has_flows());
        let emit = |output: &mut OutputSettings| {
            output.common.emit_flows = true;
            output.written.insert("emit_flows".to_owned(), true.into());
        };
        able.map(emit).count() > 0
    }

    /// Whether an output wants the flows of alerts.
    pub fn wants_flows(&self) -> bool {
        self.outputs.values().any(|output| output.common.emit_flows)
    }

    /// Everything on standard output: what holds where no output is configured.
    pub fn standard_output() -> BTreeMap<String, OutputSettings> {
        let transport = Transport::Stdout(StdoutSettings::default());
        BTreeMap::from([(
            "stdout".to_owned(),
            OutputSettings { transport, common: Common::default(), written: serde_json::Map::new() },
        )])
    }
}

impl OutputSettings {
    /// What is written.
    pub fn format(&self) -> Format {
        self.common.format.unwrap_or(self.transport.default_format())
    }

    /// Whether what is written has a form for flows.
    pub fn has_flows(&self) -> bool {
        match &self.transport {
            Transport::Elasticsearch(_) | Transport::Loki(_) => true,
            Transport::Email(_) | Transport::Journald(_) => false,
            other => other.service().is_none() && matches!(self.format(), Format::Ecs | Format::Ocsf),
        }
    }
}

impl<'de> Deserialize<'de> for OutputSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = serde_json::Map::deserialize(deserializer)?;
        let (common, own): (serde_json::Map<_, _>, serde_json::Map<_, _>) =
            written.clone().into_iter().partition(|(key, _)| COMMON_KEYS.contains(&key.as_str()));
        let transport = part(own).map_err(D::Error::custom)?;
        Ok(Self { transport, common: part(common).map_err(D::Error::custom)?, written })
    }
}

fn part<T: DeserializeOwned>(keys: serde_json::Map<String, serde_json::Value>) -> Result<T, serde_json::Error> {
    serde_json::from_value(serde_json::Value::Object(keys))
}

/// Reads `10s`, `2m`, `4h`, `3d`, `1h30m`, `250ms`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().ok()?;
        let millis = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = after;
    }
    Some(total)
}

/// Reads `10MB`, `256MiB`, `4096`.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

mod duration {
    use super::*;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is no duration such as `10s` or `4h`")))
    }
}

pub(crate) mod duration_option {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(deserializer).map(Some)
    }
}

mod size {
    use super::*;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Ok(size_option::deserialize(deserializer)?.unwrap_or_default())
    }
}

mod size_option {
    use super::*;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Some(number)),
            Written::Text(text) => parse_size(&text)
                .map(Some)
                .ok_or_else(|| D::Error::custom(format!("`{text}` is no size such as `100MB` or `64MiB`"))),
        }
    }
}

fn default_rotate_keep() -> u32 {
    5
}

fn default_smtp_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_burst() -> u32 {
    1
}

/// The fields of [`Common`].
const COMMON_KEYS: &[&str] = &[
    "format",
    "queue",
    "max_age",
    "rate",
    "group",
    "coalesce",
    "send_resolved",
    "min_severity",
    "audit",
    "heartbeat",
    "fallback",
    "emit_flows",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_output_has_keys_of_its_kind_and_common_ones() {
        let output: OutputSettings =
            read("{type: file, path: /var/log/egret.ndjson, rotate_bytes: 100MB, format: ecs, max_age: 1d}").unwrap();
        let Transport::File(file) = output.transport else { panic!("not a file") };
        assert_eq!((file.rotate_bytes, file.rotate_keep), (Some(100_000_000), 5));
        assert_eq!(output.common.format, Some(Format::Ecs));
        assert_eq!(output.common.max_age, Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn unknown_keys_are_errors() {
        let wrong = read::<OutputSettings>("{type: file, path: /x, pth: /y}").unwrap_err();
        assert!(wrong.contains("unknown field `pth`"), "{wrong}");
        let wrong = read::<OutputSettings>("{type: fax}").unwrap_err();
        assert!(wrong.contains("unknown variant `fax`"), "{wrong}");
        let wrong = read::<RoutingSettings>("routes: [{when: {severity: high}, outptus: [x]}]").unwrap_err();
        assert!(wrong.contains("unknown field `outptus`"), "{wrong}");
        let wrong = read::<RoutingSettings>("defaults: {group_wiat: 10s}").unwrap_err();
        assert!(wrong.contains("unknown field `group_wiat`"), "{wrong}");
    }

    #[test]
    fn routing_reads_as_documented() {
        let routing: RoutingSettings = read(
            "defaults: {outputs: [soc], group_by: [rule], group_wait: 10s, group_interval: 2m, repeat: 4h}
routes:
  - {when: {severity: [critical], tags: bandwidth}, outputs: [pager], group_wait: 0s, continue: true}
fallback: [local]",
        )
        .unwrap();
        assert_eq!(routing.defaults.repeat, Some(Duration::from_secs(4 * 3600)));
        assert_eq!(routing.routes[0].group_wait, Some(Duration::ZERO));
        assert_eq!(routing.routes[0].when["tags"].as_list(), ["bandwidth"]);
        assert!(routing.routes[0].goes_on);
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("10"), None);
        assert_eq!(parse_duration(""), None);
        assert_eq!(parse_duration("5 y"), None);
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("12 parsecs"), None);
    }
}
