//! From verdicts to alerts: their life, and what is said of them.
//!
//! Pure.

mod document;
mod label;

pub use document::{
    Alert, AlertState, Condition, Destination, DocumentKind, ExecutableFacts, Network, Notification, Parent, Problem,
    ProcessFacts, Reason, RuleFacts, Source, Window,
};
pub use label::{LABELS, Matcher, PatternError, label_values};
