//! What the configuration says of outputs and of routing, as it is meant.
//!
//! Strict: an unknown key is an error. Keys that every kind of output takes
//! are read apart from those of its kind, so that both are checked.

mod routing;
mod transport;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

pub use self::routing::{
    ActiveSettings, GroupSettings, OneOrMany, RouteDefaults, RouteSettings, RoutingSettings, ScheduleSettings,
};
pub use self::transport::{
    Coalesce, CommandSettings, EmailSettings, EndpointSettings, Facility, FileSettings, Framing, HttpSettings,
    JournaldSettings, Service, SignatureScheme, SmtpAuth, SmtpSecurity, StdoutSettings, SyslogHeader, SyslogSettings,
    SyslogTransport, TlsSettings, Transport, WebhookSettings,
};
pub(crate) use self::values::duration_option;
use self::values::{duration, size};
pub use self::values::{parse_duration, parse_size};
use crate::alert::{Inhibition, Matcher, PatternError, Redactor, Silence};
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
