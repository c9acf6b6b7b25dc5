//! What must outlive a crash, and who keeps it.
//!
//! The vocabulary of the store and of delivery, which know nothing of each
//! other. The trait stands at their edge; everything else is values.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::alert::{Delivery, Notification, Silence};
use crate::time::Timestamp;

/// Keeps changes on disk.
pub trait Ledger: Send {
    /// What the last run left behind. Deliveries that were held for a group are free to go now.
    fn load(&mut self) -> Result<Standing, LedgerError>;

    /// Makes changes last: all or none of them, on disk when it returns. Says what
    /// had to be given up for room.
    fn commit(&mut self, changes: &[Change]) -> Result<Vec<GivenUp>, LedgerError>;

    /// Deliveries that wait for an output, from a place in the order on.
    fn waiting(&mut self, output: &str, from: u64, most: usize) -> Result<Vec<Delivery>, LedgerError>;

    /// Deliveries as operators see them.
    fn deliveries(&mut self, state: DeliveryState, most: usize) -> Result<Vec<Delivery>, LedgerError>;

    /// One delivery, whatever its state.
    fn delivery(&mut self, id: &str) -> Result<Option<(DeliveryState, Delivery)>, LedgerError>;

    /// Alerts as they stand, the latest change first.
    fn alerts(&mut self, most: usize) -> Result<Vec<AlertRecord>, LedgerError>;

    /// Looks whether it is still whole, without taking long. Where it is not, it is set aside, a fresh one
    /// takes over what could be read, and the error is [`LedgerError::Damaged`].
    fn check(&mut self, now: Timestamp) -> Result<(), LedgerError>;

    /// Changes how many bytes of deliveries may be kept.
    fn limit(&mut self, max_bytes: u64);

    /// How full it is: 1.0 where deliveries must make room for new ones.
    fn fill(&self) -> f64;
}

/// One thing to remember.
#[derive(Debug, Clone)]
pub enum Change {
    /// A notification came in; `suppressed` says what held it back.
    Journal(Arc<Notification>, Option<Arc<str>>),
    /// A delivery was made.
    Queue(Delivery),
    /// A delivery was made and is held until its group is sent.
    Hold(Delivery),
    /// A delivery arrived.
    Delivered(Arc<str>, Timestamp),
    /// A delivery became part of another one, or is not wanted any more.
    Forget(Arc<str>),
    /// An attempt failed.
    Retry {
        /// Which delivery.
        id: Arc<str>,
        /// How often it was tried.
        attempts: u32,
        /// Who still needs it.
        remaining: Vec<String>,
        /// Why it failed.
        error: String,
    },
    /// Its bytes were replaced by a smaller form.
    Shrink(Arc<str>, Arc<[u8]>),
    /// A delivery was given up; it stays for an operator to look at.
    Bury(Arc<str>, String),
    /// Deliveries made before a moment are given up if they are for an output that is none of these.
    BuryStranded {
        /// The outputs that there are.
        outputs: Vec<String>,
        /// The moment.
        before: Timestamp,
    },
    /// An operator wants a delivery that was given up to be tried again.
    Revive {
        /// Which delivery.
        id: Arc<str>,
        /// Its new place in the order.
        sequence: u64,
        /// From when on it is tried.
        at: Timestamp,
    },
    /// A silence was made or changed.
    Silence(Silence),
    /// Somebody takes care of an alert.
    Acknowledge {
        /// The alert's key.
        key: String,
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// Whatever ended before this moment is no longer needed.
    Prune(Timestamp),
}

/// What the last run left behind.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The next free place in the order of deliveries.
    pub next_sequence: u64,
    /// Deliveries that wait, by output.
    pub waiting: BTreeMap<String, u64>,
    /// Silences, those that have ended among them.
    pub silences: Vec<Silence>,
    /// Alerts that fired when the last run ended.
    pub firing: Vec<AlertRecord>,
    /// Where a damaged store was put, where that happened.
    pub set_aside: Option<String>,
}

/// A delivery that had to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// The output's name.
    pub output: Arc<str>,
    /// Which delivery.
    pub id: Arc<str>,
}

/// How a kept delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It will be tried.
    Waiting,
    /// It waits for its group.
    Held,
    /// It was given up.
    Dead,
    /// The receiver has it; its bytes are not kept.
    Delivered,
}

/// An alert as operators see it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct AlertRecord {
    /// The alert's key.
    pub key: String,
    /// This episode's id.
    pub uid: String,
    /// The rule's id.
    pub rule: String,
    /// The severity's name.
    pub severity: String,
    /// `firing`, `resolved` and so on.
    pub state: String,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// One line for people.
    pub summary: String,
    /// What held its notifications back, where something did.
    pub suppressed: Option<String>,
    /// Whether receivers have heard of it.
    pub told: bool,
    /// Who takes care of it.
    pub acknowledged_by: Option<String>,
    /// The whole document, as JSON.
    pub document: serde_json::Value,
}

/// Why the store cannot do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// No room on the disk.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The database is broken.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}
