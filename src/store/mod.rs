//! What outlives a crash: the journal of alerts, deliveries on their way,
//! silences, and checkpoints, in one embedded database.
//!
//! SQLite with a write-ahead log and `synchronous=FULL`: what a commit returned
//! from is on disk. A damaged database is set aside under a new name and a
//! fresh one begun; it never stops the program.

mod database;
mod keep;

pub use database::{Store, StoreError, StoreLimits};
