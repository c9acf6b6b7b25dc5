//! Counts of a source that counts by itself, owner attached.

use crate::attribution::Attribution;
use crate::flow::{Counters, Direction, FlowEndReason, FlowKey, FlowState};
use crate::time::Timestamp;

/// What passed on one flow for one owner since the source last said so.
///
/// The kernel source counts in the kernel and reports these; the packet path
/// makes one for each packet or batch.
#[derive(Debug, Clone)]
pub struct FlowUpdate {
    /// Which flow.
    pub key: FlowKey,
    /// Who opened it, where the source knows.
    pub direction: Option<Direction>,
    /// What passed since the last update of this flow and owner.
    pub counters: Counters,
    /// Whose bytes these are, where the source knows.
    pub attribution: Attribution,
    /// When the source read its counters.
    pub timestamp: Timestamp,
    /// What became of the connection, where the source knows.
    pub state: FlowState,
    /// Set on the last update of a flow.
    pub end_reason: Option<FlowEndReason>,
}
