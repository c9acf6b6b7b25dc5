//! What outlives a crash: the journal of alerts, deliveries on their way,
//! silences, and checkpoints, in embedded databases.
//!
//! SQLite with a write-ahead log and `synchronous=FULL`: what a commit returned
//! from is on disk. A damaged database is set aside under a new name and a
//! fresh one begun with what could still be read; it never stops the program.

mod checkpoints;
mod database;
mod dead;
mod inspection;
pub mod journal;
mod keep;
mod salvage;

pub use checkpoints::Checkpoints;
pub use database::{Store, StoreError, StoreLimits};
