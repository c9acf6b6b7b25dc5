//! The question "who owns this flow?", which an edge answers.

use crate::flow::{Direction, FlowKey};
use crate::time::Timestamp;

/// A question from the engine. The answer comes back as
/// an [`Attribution`](crate::attribution::Attribution).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// Which flow.
    pub key: FlowKey,
    /// Who opened it, as far as the packets tell.
    pub direction: Direction,
    /// When its first packet was seen.
    pub first: Timestamp,
    /// When its last packet was seen.
    pub last: Timestamp,
}
