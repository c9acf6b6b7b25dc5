//! A rule as it is meant: nothing in it can be wrong any more.

use std::sync::Arc;
use std::time::Duration;

use crate::rule::{Active, Comparison, Condition, Field, Metric, Quantity, Schedule, Summary, Threshold};
use crate::time::Timestamp;

/// One rule of the set.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What people read.
    pub metadata: Arc<Metadata>,
    /// Which flows count at all.
    pub condition: Condition,
    /// Flows that do not count although the condition holds.
    pub exceptions: Vec<Arc<Exception>>,
    /// When the rule is in force.
    pub active: Active,
    /// What decides whether windows survive a reload: condition, groups, windows and metrics.
    pub fingerprint: u64,
    /// What makes a group; empty means one group for the whole host.
    pub group_by: Vec<Field>,
    /// When it is too much.
    pub trigger: Trigger,
    /// How an alert of this rule lives.
    pub life: Life,
    /// How much the rule may hold and say.
    pub limits: Limits,
    /// How an alert of this rule reads.
    pub presentation: Presentation,
    /// How far back the packets reach that an alert comes with.
    pub keep_packets: Option<Duration>,
    /// How long its notifications are gathered before they leave; `None` leaves it to the routing.
    pub group_wait: Option<Duration>,
    /// Receivers named by the rule itself.
    pub outputs: Vec<Arc<str>>,
    /// Whether those replace the routing tree instead of adding to it.
    pub outputs_only: bool,
}

/// How an alert reads.
#[derive(Debug, Clone, Default)]
pub struct Presentation {
    /// Its one line; `None` for the usual one.
    pub summary: Option<Arc<Summary>>,
    /// What it shows beside the usual.
    pub details: Vec<Detail>,
}

/// Something that an alert shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The value of a field.
    Field(Field),
    /// The values of a field that have the most `bytes_out`.
    Top {
        /// Of which field.
        field: Field,
        /// How many of them.
        count: usize,
    },
}

/// Flows that a rule lets pass. Their bytes are not lost: alerts show them as excluded.
#[derive(Debug, Clone)]
pub struct Exception {
    /// Its name, unique within the rule.
    pub name: Arc<str>,
    /// Which flows.
    pub condition: Condition,
    /// Only during this schedule.
    pub during: Option<Arc<Schedule>>,
    /// Above this the exception stops applying.
    pub budget: Option<ExceptionBudget>,
    /// From this moment on it no longer applies.
    pub expires: Option<Timestamp>,
    /// Who asked for it.
    pub owner: Option<String>,
    /// Why it was given.
    pub reason: Option<String>,
}

/// How much an exception lets pass within a sliding time.
#[derive(Debug, Clone, PartialEq)]
pub struct ExceptionBudget {
    /// What is measured; a sum or a count.
    pub metric: Metric,
    /// How much.
    pub limit: Quantity,
    /// Within which sliding time.
    pub per: Duration,
}

/// What people read of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Metadata {
    /// The slug that names the rule.
    pub id: Arc<str>,
    /// One line.
    pub title: String,
    /// A paragraph.
    pub description: String,
    /// How far the rule has come.
    pub status: RuleStatus,
    /// How bad a match is.
    pub severity: Severity,
    /// How sure a match is.
    pub confidence: Confidence,
    /// Free words.
    pub tags: Vec<String>,
    /// ATT&CK technique ids.
    pub attack: Vec<String>,
    /// Links, runbooks first.
    pub references: Vec<String>,
    /// Who looks after the rule.
    pub owner: Option<String>,
    /// What to do when it fires.
    pub note: Option<String>,
    /// The pack's name.
    pub pack: Option<String>,
    /// The pack's revision.
    pub revision: Option<u64>,
}

/// How bad a match is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Severity {
    Info,
    Low,
    #[default]
    Medium,
    High,
    Critical,
}

/// How sure a match is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Confidence {
    Low,
    #[default]
    Medium,
    High,
}

/// How far a rule has come. A `draft` is checked and not evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum RuleStatus {
    Draft,
    Test,
    #[default]
    Stable,
    Deprecated,
}

/// What makes a rule fire.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Sums over sliding windows.
    When(When),
    /// Every new matching flow.
    Each,
    /// A value that was not seen before.
    FirstSeen(FirstSeen),
    /// A metric far from the group's own habit.
    Baseline(Baseline),
    /// A quota of the calendar.
    Budget(Budget),
}

/// Fires when a tuple of values shows up that was not seen for `lookback`.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstSeen {
    /// The tuple.
    pub of: Vec<Field>,
    /// Apart for each of these; empty means once for this host.
    pub per: Vec<Field>,
    /// What was not seen for this long counts as new.
    pub lookback: Duration,
    /// For this long after the rule was first loaded it only learns.
    pub learn: Duration,
    /// It fires only once the new tuple matters: this much within this time after it was first seen.
    pub min: Option<Threshold>,
}

/// Fires when a metric is far from the group's own habit.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// What is measured, over one bucket.
    pub metric: Metric,
    /// The length of a bucket.
    pub bucket: Duration,
    /// How far back the habit reaches.
    pub history: Duration,
    /// Which buckets are compared with each other.
    pub season: Season,
    /// How habit and deviation are estimated.
    pub method: Method,
    /// How many deviations above the habit are too many; for [`Method::Quantile`] the quantile.
    pub above: f64,
    /// Never fires below this.
    pub floor: Quantity,
    /// Always fires above this, whatever the habit.
    pub ceiling: Option<Quantity>,
    /// A group shorter known than this does not fire, `ceiling` aside.
    pub min_history: Duration,
    /// Whether buckets during which it fires become part of the habit.
    pub learn_while_firing: bool,
}

/// Which buckets of a baseline are compared with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Season {
    /// All of them.
    #[default]
    None,
    /// Those of the same hour of the day.
    HourOfDay,
    /// Those of the same hour of the week.
    HourOfWeek,
}

/// How habit and deviation are estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// Median and median absolute deviation (scaled by 1.4826).
    #[default]
    Mad,
    /// Exponentially weighted mean and deviation.
    Ewma,
    /// A quantile of the history.
    Quantile,
}

/// A quota of the calendar.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// What is measured.
    pub metric: Metric,
    /// Within which period.
    pub per: Period,
    /// The time zone of the calendar.
    pub zone: jiff::tz::TimeZone,
    /// How much.
    pub limit: Quantity,
    /// At which shares of the limit it speaks, in order: 0.5, 0.8, 1.0. An alert fires at each.
    pub notify_at: Vec<f64>,
}

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Period {
    Hour,
    Day,
    /// From Monday.
    Week,
    Month,
}

/// Conditions on sums over sliding windows; all must hold for one group at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    /// The window of thresholds that name none of their own.
    pub window: Duration,
    /// All of these must hold.
    pub all: Vec<Clause>,
    /// How the oldest bucket of a window counts.
    pub edge: Edge,
}

/// How the oldest bucket of a window counts, of which a part lies before the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Edge {
    /// As a whole: nothing of the window is missing, and up to a bucket is too much.
    #[default]
    Cover,
    /// By the part that lies inside, as if its bytes were spread evenly: nearer to the truth, and no bound.
    Interpolate,
}

/// One condition of a `when`.
#[derive(Debug, Clone, PartialEq)]
pub enum Clause {
    /// A metric against a limit.
    Threshold(Threshold),
    /// At least one of these.
    Any(Vec<Clause>),
    /// All of these.
    All(Vec<Clause>),
    /// A metric against another time of the same group.
    Spike(Spike),
}

/// A metric compared with `times` another one over an earlier window:
/// five times the day before.
#[derive(Debug, Clone, PartialEq)]
pub struct Spike {
    /// What is measured.
    pub metric: Metric,
    /// Over which window.
    pub window: Duration,
    /// How it is compared; the limit inside is `times` (a [`Quantity::Ratio`]) and not a value.
    pub comparison: Comparison,
    /// What it is compared with.
    pub past: Metric,
    /// Over which window.
    pub past_window: Duration,
    /// That window ends this long ago.
    pub offset: Duration,
    /// It never holds while the metric is below this.
    pub floor: Quantity,
}

/// How an alert lives (delivery.md calls it the state machine).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Life {
    /// How long the condition must hold before the alert fires.
    pub pending_for: Duration,
    /// How long an alert stays firing after the condition last held.
    pub keep_firing_for: Duration,
    /// Conditions that must hold for it to resolve, beside the trigger no longer holding.
    pub resolve: Vec<Threshold>,
    /// How long after it resolved the same group stays quiet.
    pub cooldown: Duration,
    /// What to do when the data stops.
    pub no_data: NoData,
    /// When to say it again.
    pub realert: Option<Realert>,
    /// When to say it louder.
    pub escalate: Vec<Escalation>,
}

/// What an alert does when its data stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoData {
    /// It stays as it is.
    #[default]
    Keep,
    /// It resolves.
    Resolve,
    /// That is an alert of its own.
    Alert,
}

/// When a firing alert is said again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Realert {
    /// After this time.
    pub every: Option<Duration>,
    /// When its first value has grown by this factor.
    pub on_growth: Option<f64>,
    /// `every` doubles up to this.
    pub max_every: Option<Duration>,
}

/// A firing alert becomes more severe.
#[derive(Debug, Clone, PartialEq)]
pub struct Escalation {
    /// All of these must hold.
    pub when: Vec<Clause>,
    /// The new severity.
    pub severity: Severity,
    /// Further receivers.
    pub outputs: Vec<Arc<str>>,
}

/// How much a rule may hold and say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Groups held at once; the lightest leave first.
    pub max_groups: usize,
    /// Alerts said within a time; further ones are counted.
    pub max_alerts: Option<AlertCap>,
}

/// At most `count` alerts within `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertCap {
    /// How many.
    pub count: u32,
    /// Within which time.
    pub per: Duration,
}

impl Rule {
    /// Whether the rule looks at a field, in its condition, its groups, its trigger or what its alerts show.
    pub fn looks_at(&self, field: Field) -> bool {
        let tested = |condition: &Condition| {
            let mut found = false;
            condition.for_each_test(&mut |test| found |= test.field == field);
            found
        };
        let by_trigger = match &self.trigger {
            Trigger::FirstSeen(first) => first.of.contains(&field) || first.per.contains(&field),
            Trigger::When(_) | Trigger::Each | Trigger::Baseline(_) | Trigger::Budget(_) => false,
        };
        let shown = self.presentation.details.iter().any(|detail| match detail {
            Detail::Field(shown) | Detail::Top { field: shown, .. } => *shown == field,
        });
        by_trigger
            || shown
            || self.group_by.contains(&field)
            || tested(&self.condition)
            || self.exceptions.iter().any(|exception| tested(&exception.condition))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_groups: 20_000, max_alerts: None }
    }
}

impl Severity {
    /// All of them, the mildest first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}
