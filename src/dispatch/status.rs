//! How deliveries stand: the numbers that `egret status` shows.
//!
//! Pure.

use std::collections::BTreeMap;

use crate::dispatch::queue::Health;
use crate::time::Timestamp;

/// All outputs together.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Status {
    /// Notifications that came in.
    pub submitted: u64,
    /// Notifications that found no room on their way in.
    pub lost: u64,
    /// Notifications that something held back.
    pub suppressed: u64,
    /// The same by what it was: `silence`, `inhibition`, `cooldown`, `cap`, `schedule`.
    pub suppressed_by: BTreeMap<String, u64>,
    /// Alerts that fire.
    pub firing: usize,
    /// Notifications that are on disk, where there is a store.
    pub committed: u64,
    /// Deliveries in the store for outputs that are not configured, by output.
    pub stranded: BTreeMap<String, u64>,
    /// Each output by name.
    pub outputs: BTreeMap<String, OutputStatus>,
}

/// One output.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct OutputStatus {
    /// How it is doing.
    pub health: Health,
    /// Since when it fails.
    pub failing_since: Option<Timestamp>,
    /// Why the last attempt failed, where it did.
    pub last_error: Option<String>,
    /// Deliveries that wait.
    pub waiting: usize,
    /// Bytes of those among them that are in memory.
    pub waiting_bytes: u64,
    /// When the oldest of them was made.
    pub oldest: Option<Timestamp>,
    /// Deliveries that were made for it.
    pub queued: u64,
    /// Deliveries that it took.
    pub delivered: u64,
    /// Attempts that failed and were put off.
    pub retried: u64,
    /// Deliveries given up because the receiver refused them.
    pub refused: u64,
    /// Deliveries given up because they were too old.
    pub expired: u64,
    /// Deliveries given up because the queue was full.
    pub queue_full: u64,
}

impl OutputStatus {
    /// Deliveries given up, for whatever reason.
    pub fn given_up(&self) -> u64 {
        self.refused + self.expired + self.queue_full
    }
}
