//! What is said of an alert: the document that every output format is made from.
//!
//! Serialised, an [`Alert`] is the `data` object of the JSON format
//! (`egress-alert/1`). Names and command lines come from attackers; they are
//! kept as they were, and the encoders escape them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bstr::ByteSlice;
use serde::ser::SerializeMap;

use crate::alert::{CompanionFlow, PacketFile, PacketsWanted};
use crate::attribution::Container;
use crate::packet::Address;
use crate::rule::{Host, ListMatch, Metadata, Quantity, Severity, Value};
use crate::time::Timestamp;

/// One thing to tell a receiver.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Notification {
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: DocumentKind,
    /// When it happened, in event time.
    pub timestamp: Timestamp,
    /// The alert, for the kinds that are about one.
    #[serde(rename = "data", skip_serializing_if = "Option::is_none")]
    pub alert: Option<Arc<Alert>>,
    /// The problem, for [`DocumentKind::Problem`].
    #[serde(rename = "data", skip_serializing_if = "Option::is_none")]
    pub problem: Option<Arc<Problem>>,
}

impl Notification {
    /// About an alert.
    pub fn of_alert(kind: DocumentKind, timestamp: Timestamp, alert: Alert) -> Self {
        Self { kind, timestamp, alert: Some(Arc::new(alert)), problem: None }
    }

    /// About a problem of Egret itself.
    pub fn of_problem(timestamp: Timestamp, problem: Problem) -> Self {
        Self { kind: DocumentKind::Problem, timestamp, alert: None, problem: Some(Arc::new(problem)) }
    }

    /// How bad it is; what is about nothing bad is `info`.
    pub fn severity(&self) -> Severity {
        match (&self.alert, &self.problem) {
            (Some(alert), _) => alert.rule.severity(),
            (None, Some(problem)) => problem.severity,
            (None, None) => Severity::Info,
        }
    }

    /// One line for people.
    pub fn summary(&self) -> &str {
        match (&self.alert, &self.problem) {
            (Some(alert), _) => &alert.summary,
            (None, Some(problem)) => &problem.summary,
            (None, None) => "egret is alive",
        }
    }

    /// What the order of delivery is kept for: the alert's key, or what takes its place.
    pub fn key(&self) -> &str {
        match (&self.alert, &self.problem) {
            (Some(alert), _) => &alert.state.key,
            (None, Some(problem)) => problem.id,
            (None, None) => self.kind.name(),
        }
    }
}

/// The `type` of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum DocumentKind {
    /// An alert began to fire.
    #[serde(rename = "alert.firing")]
    Firing,
    /// A firing alert is said again, has grown or is worse.
    #[serde(rename = "alert.updated")]
    Updated,
    /// An alert ended.
    #[serde(rename = "alert.resolved")]
    Resolved,
    /// An alert's rule was removed or changed.
    #[serde(rename = "alert.withdrawn")]
    Withdrawn,
    /// Egret is alive.
    #[serde(rename = "agent.heartbeat")]
    Heartbeat,
    /// Egret itself has a problem.
    #[serde(rename = "agent.problem")]
    Problem,
    /// What passed on one flow of an alert.
    #[serde(rename = "alert.flow")]
    Flow,
    /// Somebody tried an output.
    #[serde(rename = "test")]
    Test,
}

/// Why a notification is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Reason {
    #[default]
    First,
    NewInGroup,
    ResolvedSome,
    AllResolved,
    Repeat,
    Growth,
    Escalation,
}

/// An alert as receivers see it.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Alert {
    /// The name and version of this document: `egress-alert/1`.
    pub schema: &'static str,
    /// Why it is sent.
    pub reason: Reason,
    /// Which alert, and how it stands.
    #[serde(rename = "alert")]
    pub state: AlertState,
    /// The rule that raised it.
    pub rule: RuleFacts,
    /// The group: field and value, in the rule's order.
    #[serde(serialize_with = "serialize_pairs")]
    pub group: Vec<(&'static str, Value)>,
    /// The window that was looked at.
    pub window: Option<Window>,
    /// What was measured, by metric.
    pub values: BTreeMap<String, Quantity>,
    /// What was asked, and whether it held.
    pub conditions: Vec<Condition>,
    /// The process that sent most.
    pub process: Option<ProcessFacts>,
    /// Its parent.
    pub parent: Option<Parent>,
    /// Its user.
    pub user: Option<UserFacts>,
    /// Its container.
    pub container: Option<Container>,
    /// This host's end of the flow that sent most.
    pub source: Option<Source>,
    /// The other end.
    pub destination: Option<Destination>,
    /// What was spoken.
    pub network: Option<Network>,
    /// The entries of lists that the destinations are in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<ListMatch>,
    /// The largest values of some fields, with their bytes out.
    pub top: BTreeMap<&'static str, Vec<(Value, u64)>>,
    /// What the rule asks to be shown beside the usual.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<&'static str, Value>,
    /// Executables beside the largest one, with command lines, largest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<(ProcessFacts, u64)>,
    /// What the first sum of the rule was in each bucket of its window, oldest first; `egret why` names it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<u64>,
    /// The file with the group's last packets, where the rule asks for one.
    #[serde(rename = "evidence", skip_serializing_if = "Option::is_none")]
    pub packets: Option<Arc<PacketFile>>,
    /// Whose packets they are, until they are written.
    #[serde(skip)]
    pub packets_wanted: Option<Arc<PacketsWanted>>,
    /// Its flows one by one, which are told beside it where somebody wants them.
    #[serde(skip)]
    pub flows: Vec<Arc<CompanionFlow>>,
    /// Who could have sent what no socket did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<ProcessFacts>,
    /// What exceptions hid, by metric.
    pub excluded: BTreeMap<String, u64>,
    /// This host.
    pub host: Host,
    /// One line for people.
    pub summary: String,
    /// What was cut to keep the document small.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<&'static str>,
}

/// Which alert, and how it stands.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct AlertState {
    /// This firing episode's own id.
    pub uid: Arc<str>,
    /// The same for every episode of one rule and group.
    pub key: Arc<str>,
    /// The number of this episode.
    pub episode: u64,
    /// `pending`, `firing`, `resolved`, `withdrawn`.
    pub state: &'static str,
    /// When the condition first held.
    pub started_at: Timestamp,
    /// When it fired.
    pub fired_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How many notifications were held back.
    pub suppressed: u64,
    /// The share of traffic that was seen, 1.0 at best.
    pub coverage: f64,
    /// Whether the values may be too high because groups were evicted.
    pub approximate: bool,
}

/// The rule that raised an alert.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RuleFacts {
    /// What people read of the rule.
    #[serde(flatten)]
    pub metadata: Arc<Metadata>,
    /// The severity where an escalation changed it.
    #[serde(skip)]
    pub escalated: Option<Severity>,
    /// Receivers that the rule names itself.
    #[serde(skip)]
    pub outputs: Vec<Arc<str>>,
    /// Whether those replace the routing tree instead of adding to it.
    #[serde(skip)]
    pub outputs_only: bool,
    /// How it finds what it finds.
    #[serde(skip)]
    pub analysis: Analysis,
}

/// How a rule finds what it finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Analysis {
    /// By limits that somebody wrote.
    #[default]
    Limit,
    /// By what was never seen before.
    FirstSight,
    /// By what the group did until now.
    Habit,
}

impl RuleFacts {
    /// The severity that holds.
    pub fn severity(&self) -> Severity {
        self.escalated.unwrap_or(self.metadata.severity)
    }
}

/// The window that was looked at.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Window {
    /// Its length in seconds.
    pub length_s: u64,
    /// Its start.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// By how much the oldest bucket may reach further back, in seconds.
    pub max_extra_s: u64,
}

/// What was asked of a metric, and whether it held.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Condition {
    /// The metric.
    pub metric: String,
    /// The operator.
    pub op: &'static str,
    /// The limit.
    pub limit: Quantity,
    /// The value; `None` where it is undefined.
    pub value: Option<Quantity>,
    /// Whether it held.
    pub met: bool,
    /// Whether counting ended at the value: it is this or more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub capped: bool,
    /// Whether the value is an estimate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// A process in an alert.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct ProcessFacts {
    /// Process id.
    pub pid: u32,
    /// The file that runs.
    #[serde(flatten)]
    pub executable: ExecutableFacts,
    /// The command line, arguments joined by spaces.
    #[serde(flatten, serialize_with = "serialize_cmdline")]
    pub cmdline: Value,
    /// The arguments one by one, for the formats that have them.
    #[serde(skip)]
    pub args: Value,
    /// Its start.
    pub started_at: Option<Timestamp>,
    /// How it is known.
    pub evidence: Option<&'static str>,
    /// The script, where the executable is an interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Value>,
    /// The working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Value>,
    /// The systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Arc<str>>,
}

/// The file that a process runs, in an alert.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct ExecutableFacts {
    /// Its path.
    #[serde(flatten, serialize_with = "serialize_exe")]
    pub exe: Value,
    /// What kind of file it is.
    #[serde(rename = "exe_kind")]
    pub kind: &'static str,
    /// Its SHA-256 in hexadecimal.
    #[serde(rename = "sha256", skip_serializing_if = "Option::is_none")]
    pub hash: Option<Arc<str>>,
    /// The package that installed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Arc<str>>,
}

/// Whom a process works for, in an alert.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct UserFacts {
    /// The number.
    pub uid: Option<u32>,
    /// The name.
    pub name: Option<Arc<str>>,
    /// Who logged in, whoever the process runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_name: Option<Arc<str>>,
}

/// A parent process in an alert.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Parent {
    /// Process id.
    pub pid: u32,
    /// Its executable.
    #[serde(flatten, serialize_with = "serialize_exe")]
    pub exe: Value,
    /// Its command line.
    #[serde(flatten, serialize_with = "serialize_cmdline")]
    pub cmdline: Value,
}

/// This host's end.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Source {
    /// The address.
    pub ip: Address,
    /// The port.
    pub port: u16,
}

/// The remote end.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Destination {
    /// The address.
    pub ip: Address,
    /// The port.
    pub port: u16,
    /// The best known name.
    pub domain: Option<Arc<str>>,
    /// How the name is known.
    pub domain_source: Option<&'static str>,
    /// Whether the names agree.
    pub domain_trust: Option<&'static str>,
    /// The name in the TLS or QUIC handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<Arc<str>>,
    /// The name whose DNS answer held the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Arc<str>>,
    /// The registered domain.
    pub registered_domain: Option<Arc<str>>,
    /// What kind of place it is.
    pub scope: &'static str,
    /// The autonomous system's number.
    pub asn: Option<u32>,
    /// The autonomous system's organisation.
    pub as_org: Option<Arc<str>>,
    /// The country code.
    pub country: Option<Arc<str>>,
}

/// What was spoken, and which way.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Network {
    /// The transport.
    pub transport: String,
    /// The application protocol.
    pub l7: &'static str,
    /// Who opened the flow.
    pub direction: &'static str,
    /// The interface.
    pub iface: Option<String>,
    /// What other tools call the flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community_id: Option<String>,
}

/// A problem of Egret itself, which is an alert too.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Problem {
    /// What kind: `capture-drops`, `source-fallback`, `output-failing`, `rules-invalid` and so on.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence for people.
    pub summary: String,
    /// Numbers and names.
    pub details: BTreeMap<&'static str, String>,
    /// Whether it has ended.
    pub resolved: bool,
}

fn serialize_cmdline<S: serde::Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    serialize_lossless(value, ["cmdline", "cmdline_bytes_b64"], serializer)
}

fn serialize_exe<S: serde::Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    serialize_lossless(value, ["exe", "exe_bytes_b64"], serializer)
}

/// The text under the first name and, where it is no UTF-8 and so not all of it can be read, its bytes under the second.
fn serialize_lossless<S: serde::Serializer>(
    value: &Value,
    [name, bytes_name]: [&'static str; 2],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry(name, value)?;
    if let Value::Text(text) = value
        && text.to_str().is_err()
    {
        map.serialize_entry(bytes_name, &STANDARD.encode(text))?;
    }
    map.end()
}

fn serialize_pairs<S: serde::Serializer>(pairs: &[(&'static str, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(field, value)| (field, value)))
}
