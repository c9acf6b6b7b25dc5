//! What the engine is told once, and what it tells of itself.

use std::sync::Arc;
use std::time::Duration;

use crate::alert::Notification;
use crate::attribution::{Lookup, Process};
use crate::engine::FlowDelta;
use crate::flow::{CaptureLosses, FlowStatistics, LocalAddresses, MAX_FLOWS};
use crate::names::{FlowRecord, NameStatistics};
use crate::rule::Host;
use crate::time::Timestamp;
use crate::window::MAX_SEEN;

/// What the engine is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This host's addresses.
    pub local: LocalAddresses,
    /// This host, as alerts name it.
    pub host: Arc<Host>,
    /// The step of the windows.
    pub tick: Duration,
    /// How long the bytes of a young flow wait for its owner.
    pub grace: Duration,
    /// A flow without a packet for this long has ended.
    pub idle_timeout: Duration,
    /// An open flow is reported this often.
    pub active_timeout: Option<Duration>,
    /// Flows held at once.
    pub max_flows: usize,
    /// Names of addresses held at once.
    pub max_names: usize,
    /// Bytes that the groups of all rules may hold.
    pub max_group_bytes: usize,
    /// Tuples that the `first_seen` rules remember together.
    pub max_seen: usize,
    /// Where owners come from.
    pub owners: Owners,
    /// Whether more is to be found out about owners.
    pub descriptions: Descriptions,
    /// Whether flows are reported.
    pub records: Records,
    /// Whether what the rules are told of flows is told to the outside, too.
    pub deltas: Deltas,
    /// Whether it is noted what each condition of a rule decided.
    pub decisions: Decisions,
    /// Whether alerts come with their flows one by one.
    pub companions: Companions,
    /// The pid of this very program: its flows, and those of its children, match no rule.
    pub own_pid: Option<u32>,
}

/// Where the owner of a packet's flow comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owners {
    /// From nowhere but the input itself.
    #[default]
    Given,
    /// From a look-up, which is an output of the engine.
    Lookup,
}

/// Whether more is to be found out about owners than their source tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Descriptions {
    /// What the input tells is all.
    #[default]
    Given,
    /// By a question for each owner, which is an output of the engine.
    Ask,
}

/// Whether flows are reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Records {
    /// They are not.
    #[default]
    Off,
    /// When they end, and at the active timeout.
    On,
}

/// Whether what the rules are told of flows is told to the outside, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deltas {
    /// It is not.
    #[default]
    Off,
    /// At every tick.
    On,
}

/// Whether it is noted what each condition of a rule decided, which tests of rules are measured by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Decisions {
    /// It is not: for running.
    #[default]
    Off,
    /// At every look at a group.
    On,
}

/// Whether alerts come with their flows one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Companions {
    /// They do not.
    #[default]
    Off,
    /// They do, for outputs that tell them beside the alert.
    On,
}

/// Whether a source fell silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Nothing can be seen from here on.
    Began,
    /// The source is back.
    Ended,
}

/// What the engine wants to be done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Ask who owns a flow.
    Lookup(Lookup),
    /// Find out more about an owner.
    Describe(Arc<Process>),
    /// Tell receivers.
    Notification(Notification),
    /// Would have told receivers, had not something held it back: `cooldown`, `cap` or `schedule`.
    HeldBack(Notification, &'static str),
    /// Note a flow.
    Record(FlowRecord),
    /// Note what the rules were told of a flow.
    Delta(Box<FlowDelta>),
    /// Note what the source lost so far, which goes with the deltas.
    Losses(Timestamp, CaptureLosses),
}

/// What the engine did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// The flow table.
    pub flows: FlowStatistics,
    /// The names of remote ends.
    pub names: NameStatistics,
    /// Owners held at this moment.
    pub owners: usize,
    /// Groups of all rules held at this moment.
    pub groups: usize,
    /// Groups that left early because a rule held too many.
    pub groups_evicted: u64,
    /// Groups that did not fit at all.
    pub groups_refused: u64,
    /// Bytes that the groups hold, about.
    pub group_bytes: usize,
    /// Tuples that the `first_seen` rules remember at this moment.
    pub seen: usize,
    /// Tuples that left early because there were too many.
    pub seen_pushed_out: u64,
    /// Alerts that began to fire.
    pub alerts: u64,
    /// Alerts that fire at this moment.
    pub firing: usize,
    /// Notifications held back by cooldown and caps.
    pub suppressed: u64,
    /// Bytes of this program's own flows, which match no rule.
    pub own_bytes: u64,
    /// Bytes whose owner is not known.
    pub unattributed_bytes: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// What the sources lost.
    pub losses: CaptureLosses,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            local: LocalAddresses::default(),
            host: Arc::default(),
            tick: Duration::from_secs(1),
            grace: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            active_timeout: None,
            max_flows: MAX_FLOWS,
            max_names: 262_144,
            max_group_bytes: 256 << 20,
            max_seen: MAX_SEEN,
            owners: Owners::Given,
            descriptions: Descriptions::Given,
            records: Records::Off,
            deltas: Deltas::Off,
            decisions: Decisions::Off,
            companions: Companions::Off,
            own_pid: None,
        }
    }
}

impl Settings {
    /// For an engine that is fed with deltas: a flow ends when they say so.
    pub fn for_deltas() -> Self {
        Self { idle_timeout: Duration::MAX, max_flows: usize::MAX, ..Self::default() }
    }
}
