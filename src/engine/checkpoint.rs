//! What a restart must not lose: windows, alerts, and what the rules remember.
//!
//! Ticks are counted from the epoch, so the time in between simply passed:
//! what left the windows meanwhile is gone, and a gap is missing time.

use std::sync::Arc;

use crate::alert::Lifecycle;
use crate::engine::memory::SavedMemory;
use crate::engine::watch::{ExceptionUsage, Past};
use crate::rule::SavedValue;
use crate::time::Timestamp;
use crate::window::{Gauges, Layout, Tick, Track};

/// The state of an engine as values.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// The version of this format.
    pub version: u32,
    /// The event time at which it was taken.
    pub at: Timestamp,
    /// The length of a tick in nanoseconds: ticks of another length say nothing.
    pub tick_nanos: u64,
    pub(super) rules: Vec<SavedRule>,
    /// What the `first_seen` rules saw.
    #[serde(default)]
    pub(super) seen: Vec<(u64, Tick)>,
}

/// What was taken over from a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Rules that had not changed.
    pub rules: usize,
    /// Their groups.
    pub groups: usize,
    /// Their alerts that were pending or firing.
    pub alerts: usize,
    /// Rules in the checkpoint that are gone or have changed.
    pub dropped: usize,
}

/// The format that this program writes and reads.
pub(super) const VERSION: u32 = 1;

/// The state of one rule.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedRule {
    pub(super) id: String,
    pub(super) fingerprint: u64,
    /// What values were hashed with.
    pub(super) seed: u64,
    pub(super) layout: Layout,
    pub(super) memory: SavedMemory,
    pub(super) past: Vec<(Arc<str>, Past)>,
    #[serde(default)]
    pub(super) hidden: Vec<SavedException>,
    pub(super) groups: Vec<SavedGroup>,
}

/// What one exception hid.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedException {
    pub(super) exception: String,
    pub(super) budget: Track,
    pub(super) usage: ExceptionUsage,
    /// What its budget counted.
    pub(super) words: String,
}

/// The state of one group.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedGroup {
    pub(super) key: Vec<SavedValue>,
    pub(super) gauges: Gauges,
    pub(super) life: Option<Lifecycle>,
    pub(super) steps: usize,
}
