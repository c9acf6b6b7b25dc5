//! A test of rules: what happens, and what must come of it.

use std::sync::Arc;
use std::time::Duration;

use crate::rule::diagnose::Span;
use crate::rule::sheet::FlowSheet;
use crate::rule::{Comparison, Severity};
use crate::time::Timestamp;

/// A test as it is meant.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Where it was written.
    pub span: Span,
    /// The rules under test.
    pub rules: Vec<Arc<str>>,
    /// When it starts.
    pub start: Timestamp,
    /// What happens, in order of time.
    pub events: Vec<Event>,
    /// When the source is silent: from and to, after the start.
    pub gaps: Vec<(Duration, Duration)>,
    /// What must come of it.
    pub expect: Vec<Expectation>,
    /// Whether any other alert fails the test.
    pub strict: bool,
}

/// Something passes on a flow.
#[derive(Debug, Clone)]
pub struct Event {
    /// After the start.
    pub at: Duration,
    /// On which flow, and how much.
    pub flow: Arc<FlowSheet>,
}

/// Something that must be.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// Where it was written.
    pub span: Span,
    /// About which rule; `None` means any of those under test.
    pub rule: Option<Arc<str>>,
    /// What.
    pub what: Expected,
}

/// What must be.
#[derive(Debug, Clone)]
pub enum Expected {
    /// How an alert stands at a moment.
    State {
        /// After the start.
        at: Duration,
        /// How it stands.
        state: ExpectedState,
        /// The group, as far as it is named: field and text.
        group: Vec<(String, String)>,
        /// How severe it is.
        severity: Option<Severity>,
        /// What was measured when it last spoke.
        values: Vec<(String, Comparison)>,
        /// What its line must have in it.
        summary: Vec<String>,
    },
    /// No alert ever fires.
    NeverFiring,
    /// Notifications in all.
    Notifications {
        /// For this output; `None` counts all.
        to: Option<String>,
        /// How many.
        count: Option<usize>,
        /// Of which kinds, in order.
        kinds: Vec<String>,
    },
}

/// How an alert must stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedState {
    /// It does not fire.
    Inactive,
    /// Its conditions hold, not yet for long enough.
    Pending,
    /// It fires.
    Firing,
    /// It fired and has ended.
    Resolved,
}
