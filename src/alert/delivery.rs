//! A delivery: one message, rendered for one output, on its way.

use std::sync::Arc;

use crate::alert::{DocumentKind, Message};
use crate::rule::Severity;
use crate::time::Timestamp;

/// One message, rendered for one output. Attempts never change its bytes.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its place in the order in which deliveries were made.
    pub sequence: u64,
    /// Names it for ever: the same in every attempt and after a restart.
    pub id: Arc<str>,
    /// The output's name.
    pub output: Arc<str>,
    /// Deliveries with the same key keep their order.
    pub key: Arc<str>,
    /// What kind of thing it says.
    pub kind: DocumentKind,
    /// How bad it is.
    pub severity: Severity,
    /// When it was rendered.
    pub created: Timestamp,
    /// The rendered bytes.
    pub payload: Arc<[u8]>,
    /// The recipients that still need it, for outputs with several; empty means all.
    pub remaining: Vec<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// What it was rendered from, where that is at hand: not after a restart.
    pub message: Option<Arc<Message>>,
}
