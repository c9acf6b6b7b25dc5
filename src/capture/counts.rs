//! What a source that counts by itself hands over once a tick.

use crate::attribution::{Attribution, FlowUpdate, ProcessKey};
use crate::flow::{CaptureLosses, FlowKey};
use crate::names::Payload;
use crate::packet::FrameDirection;
use crate::time::Timestamp;

/// What one reading brought.
#[derive(Debug, Default)]
pub struct CountBatch {
    /// When it was read, in event time.
    pub timestamp: Timestamp,
    /// Counts by flow and owner.
    pub updates: Vec<FlowUpdate>,
    /// DNS messages and first payloads, to learn names from.
    pub payloads: Vec<FirstPayload>,
    /// Processes that used the network and ended.
    pub exits: Vec<ProcessKey>,
    /// What was lost, as totals since the start.
    pub losses: CaptureLosses,
}

/// The beginning of a payload that may tell a name.
#[derive(Debug, Clone)]
pub struct FirstPayload {
    /// The flow it passed on.
    pub key: FlowKey,
    /// Which way it went.
    pub direction: FrameDirection,
    /// Whose flow it is.
    pub attribution: Attribution,
    /// When it passed.
    pub timestamp: Timestamp,
    /// The number of its first octet in a TCP stream.
    pub sequence: u32,
    /// What follows the transport header, at most 2,048 bytes.
    pub bytes: Vec<u8>,
}

impl FirstPayload {
    /// The payload as the engine takes it.
    pub fn as_payload(&self) -> Payload<'_> {
        Payload {
            key: &self.key,
            way: self.direction,
            attribution: &self.attribution,
            timestamp: self.timestamp,
            sequence: self.sequence,
            bytes: &self.bytes,
        }
    }
}
