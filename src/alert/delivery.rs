//! A delivery: one message, rendered for one output, on its way.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

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

impl Delivery {
    /// As operators read it, without its bytes.
    pub fn facts(&self) -> Json {
        json!({
            "id": &*self.id,
            "output": &*self.output,
            "key": &*self.key,
            "type": self.kind,
            "severity": self.severity,
            "created": self.created,
            "attempts": self.attempts,
            "remaining": self.remaining,
            "last_error": self.last_error,
            "bytes": self.payload.len(),
        })
    }

    /// The same with its bytes: as text where they are text.
    pub fn whole(&self) -> Json {
        let mut whole = self.facts();
        match std::str::from_utf8(&self.payload) {
            Ok(text) => whole["payload"] = json!(text),
            Err(_) => whole["payload_bytes_b64"] = json!(STANDARD.encode(&self.payload)),
        }
        whole
    }
}
