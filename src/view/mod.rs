//! What people and programs look at: values made from the state, never the state itself.
//!
//! Pure.

mod delta;
mod flow;
mod owner;

pub use delta::{DeltaError, DeltaLine};
pub use flow::{FLOW_COLUMNS, FlowView};
pub use owner::OwnerView;
