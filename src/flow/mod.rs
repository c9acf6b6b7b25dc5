//! From packets to flows: one entry for both directions.
//!
//! Pure. Bounded: what does not fit is counted.

mod community_id;
mod counters;
mod duplicates;
mod end_reason;
mod key;
mod losses;
mod state;
mod table;

pub use community_id::community_id;
pub use counters::Counters;
pub use duplicates::Duplicates;
pub use end_reason::FlowEndReason;
pub use key::{Direction, EndsHasher, FlowKey, LocalAddresses, Namespace, Passage, Scope};
pub use losses::CaptureLosses;
pub use state::FlowState;
pub use table::{
    BATCH, Ended, Flow, FlowEnds, FlowId, FlowLimits, FlowStatistics, FlowTable, MAX_FLOWS, OwnerSlot, SeenPayload,
    SourceCount, Tag, ToldFlow,
};
