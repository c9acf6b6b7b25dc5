//! The edge of delivery: what an output must be able to do, and how it fails.

use std::time::Duration;

use crate::alert::Delivery;
use crate::time::Timestamp;

/// A receiver of deliveries. Each runs on a thread of its own and may block,
/// but must return within its own time-outs.
pub trait Notifier: Send {
    /// Hands one delivery over. `Ok` is a promise that the receiver has it, as far as its protocol can tell.
    fn send(&mut self, delivery: &Delivery, now: Timestamp) -> Result<(), NotifyError>;

    /// Called about once a second while there is nothing to send, to look after connections.
    fn idle(&mut self, _now: Timestamp) -> Result<(), NotifyError> {
        Ok(())
    }
}

/// Why a delivery failed, and so what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// It may well work later.
    #[error("{reason}")]
    Transient {
        /// What happened.
        reason: String,
    },
    /// The receiver asks for patience.
    #[error("{reason}")]
    Throttled {
        /// What happened.
        reason: String,
        /// How long the receiver asked to wait.
        retry_after: Option<Duration>,
    },
    /// The output is set up wrongly: a person must act, and nothing is lost meanwhile.
    #[error("{reason}")]
    Misconfigured {
        /// What happened.
        reason: String,
    },
    /// The receiver points to another place, which is not followed.
    #[error("{reason}")]
    Moved {
        /// What happened.
        reason: String,
    },
    /// This delivery will never be taken.
    #[error("{reason}")]
    Permanent {
        /// What happened.
        reason: String,
    },
    /// The receiver finds it too large.
    #[error("{reason}")]
    TooLarge {
        /// What happened.
        reason: String,
    },
    /// The receiver is gone for good.
    #[error("{reason}")]
    Gone {
        /// What happened.
        reason: String,
    },
    /// Some recipients have it, some refused it for good, and the rest may take it later.
    #[error("{reason}")]
    Partial {
        /// What happened.
        reason: String,
        /// Who may take it later.
        remaining: Vec<String>,
        /// Who refused it for good.
        refused: Vec<String>,
    },
}

impl NotifyError {
    /// It may well work later.
    pub fn transient(reason: impl ToString) -> Self {
        Self::Transient { reason: reason.to_string() }
    }

    /// The output is set up wrongly.
    pub fn misconfigured(reason: impl ToString) -> Self {
        Self::Misconfigured { reason: reason.to_string() }
    }

    /// This delivery will never be taken.
    pub fn permanent(reason: impl ToString) -> Self {
        Self::Permanent { reason: reason.to_string() }
    }
}
