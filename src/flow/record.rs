//! A flow as it is reported: what IPFIX calls a flow record (RFC 7011).

use crate::attribution::Attribution;
use crate::flow::{Counters, Direction, FlowKey};
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
}

/// Why a flow ended (IPFIX `flowEndReason`, RFC 5102, section 5.11.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEndReason {
    /// No packet for the idle timeout.
    IdleTimeout,
    /// Open for longer than the active timeout.
    ActiveTimeout,
    /// The transport said so: FIN, RST, socket closed.
    EndOfFlow,
    /// The capture ended, or Egret stopped.
    ForcedEnd,
    /// The table was full.
    LackOfResources,
}
