//! From packets to flows: one entry for both directions.
//!
//! Pure. Bounded: what does not fit is counted.

mod counters;
mod end_reason;
mod key;
mod losses;
mod state;

pub use counters::Counters;
pub use end_reason::FlowEndReason;
pub use key::{Direction, FlowKey, LocalAddresses, Namespace, Scope};
pub use losses::CaptureLosses;
pub use state::FlowState;
