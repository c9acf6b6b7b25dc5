//! Where traffic enters: interfaces, files and the kernel's own counters.

#[cfg(feature = "ebpf")]
pub mod ebpf;
pub mod live;
pub mod offline;
pub mod writer;

pub use crate::attribution::FlowUpdate;
pub use crate::flow::CaptureLosses;
