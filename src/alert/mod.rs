//! From verdicts to alerts: their life, and what is said of them.
//!
//! Pure.

mod document;

pub use document::{
    Alert, AlertState, Condition, Destination, DocumentKind, ExecutableFacts, Network, Notification, Parent, Problem,
    ProcessFacts, Reason, RuleFacts, Source, Window,
};
