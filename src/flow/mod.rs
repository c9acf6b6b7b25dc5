//! From packets to flows: one entry for both directions.
//!
//! Pure. Bounded: what does not fit is counted.

mod counters;
mod key;
mod record;

pub use counters::Counters;
pub use key::{Direction, FlowKey, LocalAddresses, Namespace, Scope};
pub use record::{FlowEndReason, FlowRecord};
