//! From sums to verdicts: what a rule looks at, and when it is too much.
//!
//! Pure. A rule has three forms: as written (the YAML), as meant ([`Rule`])
//! and as running (its windows). Only the first can be wrong.

mod definition;
mod field;
mod metric;
mod observation;

pub use crate::flow::FlowState;
pub use definition::{
    AlertCap, Clause, Confidence, Escalation, Life, Limits, Metadata, NoData, Realert, Rule, RuleStatus, Severity,
    Trigger, When,
};
pub use field::{Field, Value};
pub use metric::{Comparison, Metric, Quantity, Sum, Threshold};
pub use observation::{DnsQuery, Host, Observation};
