//! From sums to verdicts: what a rule looks at, and when it is too much.
//!
//! Pure. A rule has three forms: as written (the YAML), as meant ([`Rule`])
//! and as running (its windows). Only the first can be wrong.

pub mod case;
pub mod catalogue;
pub mod compile;
pub mod cost;
pub mod diagnose;
pub mod explain;
pub mod kind;
pub mod literal;
pub mod navigator;
pub mod render;
pub mod schema;
pub mod sheet;
pub mod sigma;
pub mod technique;
pub mod yaml;

mod condition;
mod definition;
mod evaluate;
mod fact;
mod field;
mod glob;
mod habit;
mod index;
mod knob;
mod metric;
mod observation;
mod pattern;
mod quota;
mod rule_set;
mod saved;
mod schedule;
mod summary;

pub use crate::flow::FlowState;
pub use crate::names::DnsQuery;
pub use condition::{Condition, ListMatch, Quantifier, Test};
pub use definition::{
    AlertCap, Baseline, Budget, Clause, Confidence, Detail, Edge, Escalation, Exception, ExceptionBudget, FirstSeen,
    Life, Limits, Metadata, Method, NoData, Period, Presentation, Realert, Rule, RuleStatus, Season, Severity, Spike,
    Trigger, When,
};
pub use evaluate::{
    Check, Decided, Exactness, Gauge, Leaf, MAX_EXACT, Measured, Plan, Reading, ValueSource, Verdict, moment, ticks,
};
pub use fact::{Decider, Fact};
pub use field::{Field, Value};
pub use habit::{Expectation, Habit};
pub use knob::{Knob, Scale};
pub use metric::{Comparison, Metric, Quantity, Sum, Threshold};
pub use observation::{Host, Observation};
pub use pattern::{Numbers, Pattern, TextPattern, Texts};
pub use quota::Quota;
pub use rule_set::{OwnerRules, RuleIndex, RuleSet};
pub use saved::{SavedValue, restore_group, save_group};
pub use schedule::{Active, Schedule};
pub use summary::{Summary, duration};
