//! One flow as rules see it: all facts in one place, borrowed.

use std::sync::Arc;

use crate::attribution::Attribution;
use crate::flow::{Counters, Direction, FlowKey, FlowState};
use crate::names::{Application, DestinationName, DnsQuery, Place};
use crate::time::Timestamp;

/// What a rule can look at: a flow, its owner and its remote end.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The flow.
    pub key: &'a FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// Whose it is.
    pub attribution: &'a Attribution,
    /// What the remote end is called.
    pub name: Option<&'a DestinationName>,
    /// Whose network the remote end is in.
    pub place: Option<&'a Place>,
    /// What is spoken.
    pub application: Application,
    /// The interface's name.
    pub interface: Option<&'a str>,
    /// The flow's totals so far.
    pub totals: &'a Counters,
    /// Whether it is open.
    pub state: FlowState,
    /// When the flow's first packet was seen.
    pub first: Timestamp,
    /// The time of this observation.
    pub now: Timestamp,
    /// The DNS question that this observation is about, where it is one.
    pub dns: Option<&'a DnsQuery>,
    /// This host.
    pub host: &'a Host,
}

/// This host, as alerts name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Host {
    /// The host name.
    pub name: Arc<str>,
    /// The machine id.
    pub id: Option<Arc<str>>,
    /// Tags from the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
}
