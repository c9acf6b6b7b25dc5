//! Taking turns: a kernel source hears of every process of the host, so a test
//! that floods it with processes and one that measures each by name would
//! disturb each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other such test runs; another's failure is its own.
pub fn take() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
