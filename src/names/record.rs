//! A flow as it is reported: what IPFIX calls a flow record (RFC 7011).

use std::sync::Arc;

use crate::attribution::Attribution;
use crate::flow::{Counters, Direction, FlowEndReason, FlowKey};
use crate::names::{Application, DestinationName, Place};
use crate::time::Timestamp;

/// One flow of one owner with its totals.
#[derive(Debug, Clone)]
pub struct FlowRecord {
    /// Which flow.
    pub key: FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// What passed, over the whole flow.
    pub counters: Counters,
    /// When the first packet was seen.
    pub first: Timestamp,
    /// When the last packet was seen.
    pub last: Timestamp,
    /// Why the flow was reported; `None` while it is open.
    pub end_reason: Option<FlowEndReason>,
    /// Whose flow it is.
    pub attribution: Attribution,
    /// What the remote end is called.
    pub name: Option<Arc<DestinationName>>,
    /// Whose network the remote end is in.
    pub place: Option<Arc<Place>>,
    /// What is spoken.
    pub application: Application,
}
