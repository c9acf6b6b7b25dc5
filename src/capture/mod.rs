//! Where traffic enters: interfaces, files and the kernel's own counters.

mod counts;
#[cfg(feature = "ebpf")]
pub mod ebpf;
pub mod live;
pub mod offline;
pub mod writer;

pub use counts::{CountBatch, FirstPayload};

pub use crate::attribution::FlowUpdate;
pub use crate::flow::CaptureLosses;
