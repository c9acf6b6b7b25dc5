//! What a capture lost: blindness that the engine must be able to tell.

/// What a source lost, as running totals since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
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

impl std::ops::Add for CaptureLosses {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            kernel_dropped: self.kernel_dropped.saturating_add(other.kernel_dropped),
            interface_dropped: self.interface_dropped.saturating_add(other.interface_dropped),
            queue_dropped: self.queue_dropped.saturating_add(other.queue_dropped),
            table_full: self.table_full.saturating_add(other.table_full),
        }
    }
}
