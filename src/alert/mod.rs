//! From verdicts to alerts: their life, and what is said of them.
//!
//! Pure.

mod compose;
mod document;
mod evidence;
mod label;
mod lifecycle;
mod sentence;

pub use compose::{Facts, compose};
pub use document::{
    Alert, AlertState, Condition, Destination, DocumentKind, ExecutableFacts, Network, Notification, Parent, Problem,
    ProcessFacts, Reason, RuleFacts, Source, Window,
};
pub use evidence::{Evidence, Seen, Sighting};
pub use label::{LABELS, Matcher, PatternError, label_values};
pub use lifecycle::{Findings, Lifecycle, Stage, Step, alert_key, episode_uid};
