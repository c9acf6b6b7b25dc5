//! Where traffic enters: interfaces, files and the kernel's own counters.

use crate::attribution::Attribution;
use crate::flow::{Counters, FlowEndReason, FlowKey};
use crate::rule::FlowState;
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
    pub direction: Option<crate::flow::Direction>,
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

/// What a source lost, as running totals since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CaptureLosses {
    /// Frames that the kernel dropped for want of buffer space.
    pub kernel_dropped: u64,
    /// Frames that the interface dropped.
    pub interface_dropped: u64,
    /// Frames or updates dropped between the source and the engine.
    pub queue_dropped: u64,
    /// Updates whose flow or owner the kernel programs could not hold.
    pub table_full: u64,
}
