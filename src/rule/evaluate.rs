//! From a rule and the gauges of a group to a verdict.
//!
//! A [`Plan`] is a rule prepared for its windows: which columns and windows
//! the gauges must hold, and for each condition where its value stands.

use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::rule::{Clause, Comparison, Edge, Field, Metric, Quantity, Rule, Spike, Sum, Threshold, Trigger};
use crate::time::Timestamp;
use crate::units::Bytes;
use crate::window::{Column, DistinctLayout, Gauges, Layout, Span, Tick, WindowRef};

/// A rule prepared for evaluation.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the gauges of each group hold.
    pub layout: Layout,
    /// Which values an addition brings, in the order that the layout counts on.
    pub sources: Vec<ValueSource>,
    /// The window that alerts show.
    pub window: WindowRef,
    /// What must hold for the rule to fire.
    pub trigger: Vec<Check>,
    /// What must hold, beside the trigger no longer holding, for an alert to resolve.
    pub resolve: Vec<Check>,
    /// For each escalation what must hold.
    pub escalations: Vec<Vec<Check>>,
    /// Whether a verdict can become true while nothing is booked.
    pub volatile: bool,
    /// How the oldest bucket of a window counts.
    pub edge: Edge,
    tick: Duration,
}

/// What is counted by its different values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueSource {
    /// A field of the flow.
    Field(Field),
    /// The name in a DNS question.
    DnsName,
}

/// A condition whose values have their place.
#[derive(Debug, Clone)]
pub enum Check {
    /// A metric against a limit.
    Threshold {
        /// Where the value stands.
        gauge: Gauge,
        /// What it is called in rules and alerts.
        name: String,
        /// The limit.
        comparison: Comparison,
    },
    /// A metric against an earlier time.
    Spike {
        /// Where the value stands.
        gauge: Gauge,
        /// Where the earlier value stands.
        past: PastSum,
        /// What it is called in rules and alerts.
        name: String,
        /// The limit is a multiple of the earlier value.
        comparison: Comparison,
        /// It never holds while the value is below this.
        floor: Quantity,
    },
    /// At least one of these.
    Any(Vec<Check>),
    /// All of these.
    All(Vec<Check>),
}

/// Where a metric's value stands.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names are those of the metrics")]
pub enum Gauge {
    Sum { columns: Columns, window: WindowRef },
    Rate { columns: Columns, window: WindowRef },
    Peak { columns: Columns, window: WindowRef },
    Starts { length: Tick },
    Distinct { which: usize },
    UploadRatio { out: usize, into: usize, window: WindowRef, min_bytes: u64 },
    ProducerConsumerRatio { out: usize, into: usize, window: WindowRef, min_bytes: u64 },
    BytesPerConnection { columns: Columns, connections: usize, window: WindowRef },
    LargestShare { which: usize, out: usize, window: WindowRef },
    ActiveSeconds { column: usize, window: WindowRef },
    FlowAgeMax,
    IntervalVariation { length: Tick },
}

/// Columns that are added up.
pub type Columns = SmallVec<[usize; 2]>;

/// A sum over a window that ended some time ago.
#[derive(Debug, Clone)]
pub struct PastSum {
    columns: Columns,
    window: WindowRef,
    length: Tick,
    offset: Tick,
    measure: Measure,
}

/// What of an earlier window's buckets counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Their sum.
    Sum,
    /// Their sum over the window's length.
    Rate,
    /// The highest of them, as a rate.
    Peak,
}

/// The gauges of one group at one tick.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// The layout of the gauges.
    pub layout: &'a Layout,
    /// The gauges, brought up to now.
    pub gauges: &'a Gauges,
    /// How the oldest bucket of a window counts.
    pub edge: Edge,
    /// By how much a window's sum may be too low.
    pub error: Option<&'a dyn Fn(WindowRef, usize) -> u64>,
    /// Now.
    pub now: Tick,
}

/// Whether a rule's conditions hold for a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// They hold.
    pub holds: bool,
    /// They hold only if what an evicted group had counts as this one's.
    pub approximate: bool,
}

/// One condition of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// What it asks: `payload_out gte 1000000`.
    pub text: String,
    /// Whether it stands below an `any`, so that another can stand in for it.
    pub is_alternative: bool,
}

/// What one condition of a trigger decided alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decided {
    /// The trigger held, and would not have without it.
    pub fired: bool,
    /// The trigger did not hold, and would have with it.
    pub kept_silent: bool,
}

/// A condition with its value.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What was measured.
    pub name: String,
    /// Against what.
    pub comparison: Comparison,
    /// The value; `None` where it is undefined.
    pub value: Option<Quantity>,
    /// Whether it held.
    pub met: bool,
    /// How exact the value is.
    pub exactness: Exactness,
}

/// How exact a measured value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Exactness {
    /// As its metric says.
    #[default]
    Exact,
    /// Counting ended there: it is this or more.
    Capped,
    /// An estimate: too many values to keep each.
    Estimated,
}

/// More different values or connections than this are not kept one by one.
pub const MAX_EXACT: u64 = 4_096;

impl Plan {
    /// Prepares a rule for ticks of this length.
    pub fn of(rule: &Rule, tick: Duration) -> Self {
        let mut builder = Builder { layout: Layout::default(), sources: Vec::new(), lengths: Vec::new(), tick };
        let (clauses, edge): (&[Clause], Edge) = match &rule.trigger {
            Trigger::When(when) => (&when.all, when.edge),
            _ => (&[], Edge::Cover),
        };
        let main = builder.main_window(&rule.trigger);
        builder.lengths.push(main);
        builder.weigh(&rule.trigger);
        for clause in clauses {
            builder.reserve(clause);
        }
        for threshold in rule.life.resolve.iter().chain(first_seen_minimum(&rule.trigger)) {
            builder.reserve_threshold(threshold);
        }
        for clause in rule.life.escalate.iter().flat_map(|escalation| &escalation.when) {
            builder.reserve(clause);
        }
        if !rule.exceptions.is_empty() {
            builder.layout.column(Column::ExcludedOut);
            builder.layout.column(Column::ExcludedIn);
        }
        let Builder { layout, sources, lengths, .. } = builder;
        let binder = Binder { layout: layout.with_windows(lengths), sources, tick };
        let trigger: Vec<Check> = clauses.iter().map(|clause| binder.check(clause)).collect();
        let minimum = first_seen_minimum(&rule.trigger).map(|threshold| binder.threshold(threshold));
        let resolve: Vec<Check> = rule.life.resolve.iter().map(|threshold| binder.threshold(threshold)).collect();
        let checks = |escalation: &crate::rule::Escalation| {
            escalation.when.iter().map(|clause| binder.check(clause)).collect::<Vec<_>>()
        };
        let escalations = rule.life.escalate.iter().map(checks).collect();
        let window = binder.window(main);
        let trigger: Vec<Check> = trigger.into_iter().chain(minimum).collect();
        let volatile = trigger.iter().any(Check::is_volatile);
        let Binder { layout, sources, .. } = binder;
        Self { layout, sources, window, trigger, resolve, escalations, volatile, edge, tick }
    }

    /// Whether all of some checks hold.
    #[inline]
    pub fn verdict(&self, checks: &[Check], reading: &Reading<'_>) -> Verdict {
        all(checks.iter().map(|check| check.verdict(self.tick, reading)))
    }

    /// Every condition of the trigger with its value.
    pub fn measure(&self, checks: &[Check], reading: &Reading<'_>) -> Vec<Measured> {
        let mut measured = Vec::new();
        for check in checks {
            check.measure(self.tick, reading, &mut measured);
        }
        measured
    }

    /// The conditions of the trigger, one by one, from left to right.
    pub fn leaves(&self) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        self.trigger.iter().for_each(|check| check.leaves(false, &mut leaves));
        leaves
    }

    /// Notes for each condition of the trigger whether the verdict hangs on it alone.
    pub fn note_decisive(&self, reading: &Reading<'_>, decided: &mut Vec<Decided>) {
        let mut verdicts = Vec::new();
        self.trigger.iter().for_each(|check| check.leaf_verdicts(self.tick, reading, &mut verdicts));
        decided.resize(verdicts.len(), Decided::default());
        let total = together(&self.trigger, &verdicts);
        for (place, decided) in decided.iter_mut().enumerate() {
            let mut other = verdicts.clone();
            other[place] = !other[place];
            if together(&self.trigger, &other) != total {
                decided.fired |= total;
                decided.kept_silent |= !total;
            }
        }
    }

    /// The length and bucket width of the window that alerts show.
    pub fn span(&self) -> Span {
        self.layout.span(self.window)
    }

    /// The value of the first condition, which growth is measured by.
    pub fn first_value(&self, reading: &Reading<'_>) -> Option<Quantity> {
        self.trigger.first().and_then(|check| check.value(self.tick, reading))
    }

    /// Whether a group has come so near to a limit that its evidence is worth keeping.
    ///
    /// Conditions without a lower limit are always near.
    pub fn is_near(&self, reading: &Reading<'_>) -> bool {
        self.trigger.iter().all(|check| check.is_near(self.tick, reading))
    }

    /// How many bytes and packets of known flows can be added before [`Plan::is_near`] may hold.
    pub fn headroom(&self, reading: &Reading<'_>) -> u64 {
        self.trigger.iter().map(|check| check.headroom(self.tick, reading)).max().unwrap_or(0)
    }
}

impl Check {
    #[inline]
    fn verdict(&self, tick: Duration, reading: &Reading<'_>) -> Verdict {
        match self {
            Self::Threshold { gauge, comparison, .. } => {
                let own = gauge.value(tick, reading, Count::Own).is_some_and(|value| comparison.holds(value));
                let possible = reading.error.is_some()
                    && gauge.value(tick, reading, Count::Possible).is_some_and(|value| comparison.holds(value));
                Verdict { holds: own || possible, approximate: possible && !own }
            }
            Self::Spike { gauge, past, comparison, floor, .. } => {
                let holds = gauge.value(tick, reading, Count::Own).is_some_and(|value| {
                    let limit = comparison.limit().as_f64() * past.value(tick, reading) as f64;
                    Comparison::GreaterOrEqual(*floor).holds(value)
                        && comparison.with_limit(Quantity::Ratio(limit)).holds(value)
                });
                Verdict { holds, approximate: false }
            }
            Self::Any(checks) => {
                let mut verdicts = checks.iter().map(|check| check.verdict(tick, reading)).filter(|one| one.holds);
                let Some(first) = verdicts.next() else { return Verdict::default() };
                Verdict { holds: true, approximate: first.approximate && verdicts.all(|one| one.approximate) }
            }
            Self::All(checks) => all(checks.iter().map(|check| check.verdict(tick, reading))),
        }
    }

    fn measure(&self, tick: Duration, reading: &Reading<'_>, measured: &mut Vec<Measured>) {
        match self {
            Self::Threshold { gauge, name, comparison } => {
                let met = self.verdict(tick, reading).holds;
                let value = gauge.value(tick, reading, Count::Possible);
                let exactness = gauge.exactness(reading);
                measured.push(Measured { name: name.clone(), comparison: *comparison, value, met, exactness });
            }
            Self::Spike { gauge, past, name, comparison, .. } => {
                let met = self.verdict(tick, reading).holds;
                let limit = Quantity::Count((comparison.limit().as_f64() * past.value(tick, reading) as f64) as u64);
                let value = gauge.value(tick, reading, Count::Own);
                let comparison = comparison.with_limit(limit);
                measured.push(Measured { name: name.clone(), comparison, value, met, exactness: Exactness::Exact });
            }
            Self::Any(checks) | Self::All(checks) => {
                for check in checks {
                    check.measure(tick, reading, measured);
                }
            }
        }
    }

    fn leaves(&self, is_alternative: bool, leaves: &mut Vec<Leaf>) {
        let limit = |comparison: &Comparison| match comparison {
            Comparison::Between(low, high) => format!("between {} and {}", low.as_f64(), high.as_f64()),
            other => format!("{} {}", other.name(), other.limit().as_f64()),
        };
        match self {
            Self::Threshold { name, comparison, .. } => {
                leaves.push(Leaf { text: format!("{name} {}", limit(comparison)), is_alternative });
            }
            Self::Spike { name, comparison, .. } => {
                let text = format!("{name} {} times before", limit(comparison));
                leaves.push(Leaf { text, is_alternative });
            }
            Self::Any(checks) => checks.iter().for_each(|check| check.leaves(checks.len() > 1, leaves)),
            Self::All(checks) => checks.iter().for_each(|check| check.leaves(is_alternative, leaves)),
        }
    }

    fn leaf_verdicts(&self, tick: Duration, reading: &Reading<'_>, verdicts: &mut Vec<bool>) {
        match self {
            Self::Threshold { .. } | Self::Spike { .. } => verdicts.push(self.verdict(tick, reading).holds),
            Self::Any(checks) | Self::All(checks) => {
                checks.iter().for_each(|check| check.leaf_verdicts(tick, reading, verdicts));
            }
        }
    }

    /// The verdict from those of its conditions, which it takes from the front.
    fn put_together(&self, verdicts: &mut impl Iterator<Item = bool>) -> bool {
        match self {
            Self::Threshold { .. } | Self::Spike { .. } => verdicts.next().unwrap_or(false),
            Self::Any(checks) => holding(checks, verdicts) > 0,
            Self::All(checks) => holding(checks, verdicts) == checks.len(),
        }
    }

    fn value(&self, tick: Duration, reading: &Reading<'_>) -> Option<Quantity> {
        match self {
            Self::Threshold { gauge, .. } | Self::Spike { gauge, .. } => gauge.value(tick, reading, Count::Possible),
            Self::Any(checks) | Self::All(checks) => checks.first()?.value(tick, reading),
        }
    }

    /// Whether it can begin to hold as time passes and nothing is booked.
    fn is_volatile(&self) -> bool {
        match self {
            Self::Threshold { gauge, comparison, .. } => {
                let grows_only_with_traffic = matches!(
                    gauge,
                    Gauge::Sum { .. }
                        | Gauge::Rate { .. }
                        | Gauge::Peak { .. }
                        | Gauge::Starts { .. }
                        | Gauge::Distinct { .. }
                        | Gauge::ActiveSeconds { .. }
                );
                let asks_for_more = matches!(comparison, Comparison::Greater(_) | Comparison::GreaterOrEqual(_));
                !(grows_only_with_traffic && asks_for_more)
            }
            Self::Spike { .. } => true,
            Self::Any(checks) | Self::All(checks) => checks.iter().any(Self::is_volatile),
        }
    }

    fn is_near(&self, tick: Duration, reading: &Reading<'_>) -> bool {
        match self {
            Self::Threshold { gauge, comparison, .. } => match comparison {
                Comparison::Greater(limit) | Comparison::GreaterOrEqual(limit) => {
                    let value = gauge.value(tick, reading, Count::Possible).map_or(0.0, Quantity::as_f64);
                    value * NEAR >= limit.as_f64()
                        || matches!(gauge, Gauge::FlowAgeMax | Gauge::IntervalVariation { .. })
                }
                _ => true,
            },
            Self::Spike { .. } => true,
            Self::Any(checks) => checks.iter().any(|check| check.is_near(tick, reading)),
            Self::All(checks) => checks.iter().all(|check| check.is_near(tick, reading)),
        }
    }

    fn headroom(&self, tick: Duration, reading: &Reading<'_>) -> u64 {
        match self {
            Self::Threshold { gauge, comparison, .. } => match comparison {
                Comparison::Greater(limit) | Comparison::GreaterOrEqual(limit) => {
                    let value = gauge.value(tick, reading, Count::Possible).map_or(0.0, Quantity::as_f64);
                    // A rate was rounded down.
                    let left = (limit.as_f64() / NEAR - value - 1.0).max(0.0);
                    match gauge {
                        Gauge::Sum { .. } | Gauge::Peak { .. } => left as u64,
                        Gauge::Rate { window, .. } => {
                            let length = u32::try_from(reading.layout.span(*window).length).unwrap_or(u32::MAX);
                            (left * tick.saturating_mul(length).as_secs_f64()) as u64
                        }
                        // What passes on known flows opens none.
                        Gauge::Starts { .. } if left > 0.0 => u64::MAX,
                        _ => 0,
                    }
                }
                _ => 0,
            },
            Self::Spike { .. } => 0,
            Self::Any(checks) => checks.iter().map(|check| check.headroom(tick, reading)).min().unwrap_or(0),
            Self::All(checks) => checks.iter().map(|check| check.headroom(tick, reading)).max().unwrap_or(0),
        }
    }
}

/// A group within this factor of its limits is near.
const NEAR: f64 = 64.0;

/// Whether what the group may have inherited counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    Own,
    Possible,
}

impl Gauge {
    #[inline]
    fn value(&self, tick: Duration, reading: &Reading<'_>, count: Count) -> Option<Quantity> {
        let Reading { layout, gauges, now, .. } = *reading;
        let sum = |column: usize, window: WindowRef| {
            let own = match reading.edge {
                Edge::Cover => gauges.sum(layout, window, column),
                Edge::Interpolate => gauges.interpolated(layout, window, column, now),
            };
            match reading.error {
                Some(error) if count == Count::Possible => own.saturating_add(error(window, column)),
                _ => own,
            }
        };
        let total = |columns: &Columns, window: WindowRef| {
            columns.iter().fold(0u64, |total, column| total.saturating_add(sum(*column, window)))
        };
        let seconds = |ticks: Tick| tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
        Some(match self {
            Self::Sum { columns, window } => Quantity::Count(total(columns, *window)),
            Self::Rate { columns, window } => {
                Quantity::Count(Bytes(total(columns, *window)).per(seconds(layout.span(*window).length)).0)
            }
            Self::Peak { columns, window } => {
                let highest = peak(gauges, layout, *window, columns);
                Quantity::Count(Bytes(highest).per(seconds(layout.span(*window).width)).0)
            }
            Self::Starts { length } => Quantity::Count(gauges.starts(now, *length).into()),
            Self::Distinct { which } => Quantity::Count(gauges.distinct(*which).into()),
            Self::UploadRatio { out, into, window, min_bytes } => {
                let (out, into) = (sum(*out, *window), sum(*into, *window));
                let total = out.saturating_add(into);
                if total < (*min_bytes).max(1) {
                    return None;
                }
                Quantity::Ratio(out as f64 / total as f64)
            }
            Self::ProducerConsumerRatio { out, into, window, min_bytes } => {
                let (out, into) = (sum(*out, *window), sum(*into, *window));
                let total = out.saturating_add(into);
                if total < (*min_bytes).max(1) {
                    return None;
                }
                Quantity::Ratio((out as f64 - into as f64) / total as f64)
            }
            Self::BytesPerConnection { columns, connections, window } => {
                let connections = sum(*connections, *window);
                Quantity::Count(total(columns, *window).checked_div(connections)?)
            }
            Self::LargestShare { which, out, window } => {
                let total = sum(*out, *window);
                if total == 0 {
                    return None;
                }
                Quantity::Ratio((gauges.largest_share(*which) as f64 / total as f64).min(1.0))
            }
            Self::ActiveSeconds { column, window } => Quantity::Count(seconds(sum(*column, *window)).as_secs()),
            Self::FlowAgeMax => {
                let now = moment(now, tick);
                Quantity::Count(now.since(gauges.oldest_open()?).as_secs())
            }
            Self::IntervalVariation { length } => {
                Quantity::Ratio(gauges.interval_variation(moment(now.saturating_sub(*length), tick))?)
            }
        })
    }

    fn exactness(&self, reading: &Reading<'_>) -> Exactness {
        let Reading { layout, gauges, now, .. } = *reading;
        match self {
            Self::Starts { length } => {
                let capped = layout.starts.is_some_and(|(keep, _)| gauges.starts(now, *length) >= keep);
                if capped { Exactness::Capped } else { Exactness::Exact }
            }
            Self::Distinct { which } => match layout.distinct.get(*which) {
                Some(distinct) if distinct.is_estimated() => Exactness::Estimated,
                Some(distinct) if gauges.distinct(*which) >= distinct.keep => Exactness::Capped,
                _ => Exactness::Exact,
            },
            _ => Exactness::Exact,
        }
    }
}

impl PastSum {
    fn value(&self, tick: Duration, reading: &Reading<'_>) -> u64 {
        let Reading { layout, gauges, now, .. } = *reading;
        let width = layout.span(self.window).width;
        let past = Span { length: self.length, width };
        let end = now.saturating_sub(self.offset);
        let within = |bucket: u64| (bucket + 1) * width <= end.max(width) && past.covers(bucket, end);
        let mut buckets = std::collections::BTreeMap::<u64, u64>::new();
        for column in &self.columns {
            let of_column = gauges.buckets(layout, self.window, *column);
            for (bucket, value) in of_column.into_iter().filter(|(bucket, _)| within(*bucket)) {
                *buckets.entry(bucket).or_default() += value;
            }
        }
        let seconds = |ticks: Tick| tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
        match self.measure {
            Measure::Sum => buckets.into_values().sum(),
            Measure::Rate => Bytes(buckets.into_values().sum()).per(seconds(self.length)).0,
            Measure::Peak => Bytes(buckets.into_values().max().unwrap_or(0)).per(seconds(width)).0,
        }
    }
}

/// The moment of a tick.
pub fn moment(tick_number: Tick, tick: Duration) -> Timestamp {
    let nanos = u128::from(tick_number).saturating_mul(tick.as_nanos());
    Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// How many ticks a duration has, rounded up.
pub fn ticks(duration: Duration, tick: Duration) -> Tick {
    let ticks = duration.as_nanos().div_ceil(tick.as_nanos().max(1));
    Tick::try_from(ticks).unwrap_or(Tick::MAX / 4).min(Tick::MAX / 4)
}

/// First pass: which columns, windows and values are needed.
struct Builder {
    layout: Layout,
    sources: Vec<ValueSource>,
    lengths: Vec<Tick>,
    tick: Duration,
}

impl Builder {
    fn main_window(&self, trigger: &Trigger) -> Tick {
        let window = match trigger {
            Trigger::When(when) => when.window,
            Trigger::Each => EACH_WINDOW,
            Trigger::FirstSeen(first) => first.min.as_ref().map_or(EACH_WINDOW, |min| min.window),
            Trigger::Baseline(baseline) => baseline.bucket,
            Trigger::Budget(_) => EACH_WINDOW,
        };
        ticks(window, self.tick).max(1)
    }

    /// The first column is what groups are weighed by when there are too many of them.
    fn weigh(&mut self, trigger: &Trigger) {
        let metric = match trigger {
            Trigger::When(when) => first_sum(&when.all),
            Trigger::FirstSeen(first) => first.min.as_ref().map(|min| &min.metric),
            Trigger::Baseline(baseline) => Some(&baseline.metric),
            Trigger::Budget(budget) => Some(&budget.metric),
            Trigger::Each => None,
        };
        match metric {
            Some(Metric::Sum(sum) | Metric::Rate(sum) | Metric::Peak(sum)) => {
                self.columns(*sum);
            }
            Some(metric) => self.reserve_metric(metric, 1, Some(Comparison::Greater(Quantity::Count(0)))),
            None => {
                self.layout.column(Column::Connections);
            }
        }
    }

    fn reserve(&mut self, clause: &Clause) {
        match clause {
            Clause::Threshold(threshold) => self.reserve_threshold(threshold),
            Clause::Any(clauses) | Clause::All(clauses) => clauses.iter().for_each(|clause| self.reserve(clause)),
            Clause::Spike(spike) => {
                self.reserve_sum(&spike.metric, ticks(spike.window, self.tick));
                let past = ticks(spike.offset, self.tick) + ticks(spike.past_window, self.tick);
                self.reserve_sum(&spike.past, past);
            }
        }
    }

    fn reserve_threshold(&mut self, threshold: &Threshold) {
        let window = ticks(threshold.window, self.tick);
        self.reserve_metric(&threshold.metric, window, Some(threshold.comparison));
    }

    /// What is compared with another time is counted by buckets.
    fn reserve_sum(&mut self, metric: &Metric, length: Tick) {
        match metric {
            Metric::Connections => {
                self.lengths.push(length.max(1));
                self.layout.column(Column::Connections);
            }
            other => self.reserve_metric(other, length, None),
        }
    }

    fn reserve_metric(&mut self, metric: &Metric, length: Tick, comparison: Option<Comparison>) {
        let length = length.max(1);
        self.lengths.push(length);
        match metric {
            Metric::Sum(sum) | Metric::Rate(sum) | Metric::Peak(sum) => {
                self.columns(*sum);
            }
            Metric::Connections => {
                self.layout.column(Column::Connections);
                if let Some(keep) = keep(comparison) {
                    let (kept, kept_length) = self.layout.starts.unwrap_or_default();
                    self.layout.starts = Some((kept.max(keep), kept_length.max(length)));
                }
            }
            Metric::ConnectionsFailed => {
                self.layout.column(Column::ConnectionsFailed);
            }
            Metric::Distinct(field) => self.distinct(ValueSource::Field(*field), length, comparison),
            Metric::DnsDistinctNames => self.distinct(ValueSource::DnsName, length, comparison),
            Metric::UploadRatio | Metric::ProducerConsumerRatio => {
                self.columns(Sum::PayloadTotal);
            }
            Metric::BytesPerConnection => {
                self.columns(Sum::BytesTotal);
                self.layout.column(Column::Connections);
            }
            Metric::MaxDestinationShare(field) => {
                self.layout.column(Column::BytesOut);
                let source = self.source(ValueSource::Field(*field));
                let share = (source, Span::of(length));
                if !self.layout.shares.contains(&share) {
                    self.layout.shares.push(share);
                }
            }
            Metric::ActiveSeconds => {
                self.layout.column(Column::ActiveTicks);
            }
            Metric::FlowAgeMax => self.layout.ages = true,
            Metric::IntervalVariation => {
                self.layout.start_times = Some(self.layout.start_times.unwrap_or(0).max(length));
            }
            Metric::DnsQueries => {
                self.layout.column(Column::DnsQueries);
            }
            Metric::DnsNameBytes => {
                self.layout.column(Column::DnsNameBytes);
            }
        }
    }

    fn columns(&mut self, sum: Sum) {
        for column in columns_of(sum) {
            self.layout.column(column);
        }
    }

    fn distinct(&mut self, source: ValueSource, length: Tick, comparison: Option<Comparison>) {
        let source = self.source(source);
        let keep = keep(comparison).unwrap_or(DistinctLayout::ESTIMATED);
        let layout = DistinctLayout { source, length, keep };
        match self.layout.distinct.iter_mut().find(|known| counts_the_same(known, &layout)) {
            Some(distinct) => distinct.keep = distinct.keep.max(keep),
            None => self.layout.distinct.push(layout),
        }
    }

    fn source(&mut self, source: ValueSource) -> u32 {
        let at = self.sources.iter().position(|known| *known == source).unwrap_or_else(|| {
            self.sources.push(source);
            self.sources.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}

/// Second pass: where each value stands in the finished layout.
struct Binder {
    layout: Layout,
    sources: Vec<ValueSource>,
    tick: Duration,
}

impl Binder {
    fn check(&self, clause: &Clause) -> Check {
        match clause {
            Clause::Threshold(threshold) => self.threshold(threshold),
            Clause::Any(clauses) => Check::Any(clauses.iter().map(|clause| self.check(clause)).collect()),
            Clause::All(clauses) => Check::All(clauses.iter().map(|clause| self.check(clause)).collect()),
            Clause::Spike(spike) => self.spike(spike),
        }
    }

    fn threshold(&self, threshold: &Threshold) -> Check {
        let length = ticks(threshold.window, self.tick).max(1);
        Check::Threshold {
            gauge: self.gauge(&threshold.metric, length, threshold.min_bytes, Some(threshold.comparison)),
            name: threshold.metric.to_string(),
            comparison: threshold.comparison,
        }
    }

    fn spike(&self, spike: &Spike) -> Check {
        let length = ticks(spike.window, self.tick).max(1);
        let (past_length, offset) = (ticks(spike.past_window, self.tick), ticks(spike.offset, self.tick));
        let (columns, measure) = match self.summed(&spike.past, past_length + offset) {
            Gauge::Rate { columns, .. } => (columns, Measure::Rate),
            Gauge::Peak { columns, .. } => (columns, Measure::Peak),
            Gauge::Sum { columns, .. } => (columns, Measure::Sum),
            // Rules are checked: nothing else is compared with another time.
            _ => (Columns::new(), Measure::Sum),
        };
        let window = self.window(past_length + offset);
        Check::Spike {
            gauge: self.summed(&spike.metric, length),
            past: PastSum { columns, window, length: past_length, offset, measure },
            name: spike.metric.to_string(),
            comparison: spike.comparison,
            floor: spike.floor,
        }
    }

    /// What [`Builder::reserve_sum`] reserved.
    fn summed(&self, metric: &Metric, length: Tick) -> Gauge {
        match metric {
            Metric::Connections => {
                Gauge::Sum { columns: smallvec![self.column(Column::Connections)], window: self.window(length) }
            }
            other => self.gauge(other, length, 0, None),
        }
    }

    fn gauge(&self, metric: &Metric, length: Tick, min_bytes: u64, comparison: Option<Comparison>) -> Gauge {
        let window = self.window(length);
        let columns = |sum: Sum| columns_of(sum).map(|column| self.column(column)).collect::<Columns>();
        let one = |column: Column| Gauge::Sum { columns: smallvec![self.column(column)], window };
        let (out, into) = (self.column(Column::PayloadOut), self.column(Column::PayloadIn));
        match metric {
            Metric::Sum(sum) => Gauge::Sum { columns: columns(*sum), window },
            Metric::Rate(sum) => Gauge::Rate { columns: columns(*sum), window },
            Metric::Peak(sum) => Gauge::Peak { columns: columns(*sum), window },
            Metric::Connections if keep(comparison).is_some() => Gauge::Starts { length },
            Metric::Connections => one(Column::Connections),
            Metric::ConnectionsFailed => one(Column::ConnectionsFailed),
            Metric::Distinct(field) => self.distinct(ValueSource::Field(*field), length, comparison),
            Metric::DnsDistinctNames => self.distinct(ValueSource::DnsName, length, comparison),
            Metric::UploadRatio => Gauge::UploadRatio { out, into, window, min_bytes },
            Metric::ProducerConsumerRatio => Gauge::ProducerConsumerRatio { out, into, window, min_bytes },
            Metric::BytesPerConnection => {
                let connections = self.column(Column::Connections);
                Gauge::BytesPerConnection { columns: columns(Sum::BytesTotal), connections, window }
            }
            Metric::MaxDestinationShare(field) => {
                let source = self.source(ValueSource::Field(*field));
                let share = (source, Span::of(length));
                let which = self.layout.shares.iter().position(|known| *known == share).unwrap_or(0);
                Gauge::LargestShare { which, out: self.column(Column::BytesOut), window }
            }
            Metric::ActiveSeconds => Gauge::ActiveSeconds { column: self.column(Column::ActiveTicks), window },
            Metric::FlowAgeMax => Gauge::FlowAgeMax,
            Metric::IntervalVariation => Gauge::IntervalVariation { length },
            Metric::DnsQueries => one(Column::DnsQueries),
            Metric::DnsNameBytes => one(Column::DnsNameBytes),
        }
    }

    fn distinct(&self, source: ValueSource, length: Tick, comparison: Option<Comparison>) -> Gauge {
        let keep = keep(comparison).unwrap_or(DistinctLayout::ESTIMATED);
        let layout = DistinctLayout { source: self.source(source), length, keep };
        let which = self.layout.distinct.iter().position(|known| counts_the_same(known, &layout));
        Gauge::Distinct { which: which.unwrap_or(0) }
    }

    fn source(&self, source: ValueSource) -> u32 {
        let at = self.sources.iter().position(|known| *known == source).unwrap_or(0);
        u32::try_from(at).unwrap_or(0)
    }

    /// The place of a column that the first pass reserved; any place where the metric does not use it.
    fn column(&self, column: Column) -> usize {
        self.layout.columns.iter().position(|known| *known == column).unwrap_or(0)
    }

    fn window(&self, length: Tick) -> WindowRef {
        self.layout.window(length).unwrap_or(WindowRef { track: 0, window: 0 })
    }
}

/// The window in which an `each` rule and a first sight show their traffic.
const EACH_WINDOW: Duration = Duration::from_secs(60);

fn first_sum(clauses: &[Clause]) -> Option<&Metric> {
    clauses.iter().find_map(|clause| match clause {
        Clause::Threshold(threshold) => match &threshold.metric {
            metric @ (Metric::Sum(_) | Metric::Rate(_) | Metric::Peak(_)) => Some(metric),
            _ => None,
        },
        Clause::Spike(spike) => Some(&spike.metric),
        Clause::Any(clauses) | Clause::All(clauses) => first_sum(clauses),
    })
}

fn first_seen_minimum(trigger: &Trigger) -> Option<&Threshold> {
    match trigger {
        Trigger::FirstSeen(first) => first.min.as_ref(),
        _ => None,
    }
}

fn columns_of(sum: Sum) -> impl Iterator<Item = Column> {
    let (first, second) = match sum {
        Sum::BytesOut => (Column::BytesOut, None),
        Sum::BytesIn => (Column::BytesIn, None),
        Sum::BytesTotal => (Column::BytesOut, Some(Column::BytesIn)),
        Sum::PayloadOut => (Column::PayloadOut, None),
        Sum::PayloadIn => (Column::PayloadIn, None),
        Sum::PayloadTotal => (Column::PayloadOut, Some(Column::PayloadIn)),
        Sum::PacketsOut => (Column::PacketsOut, None),
        Sum::PacketsIn => (Column::PacketsIn, None),
        Sum::PacketsTotal => (Column::PacketsOut, Some(Column::PacketsIn)),
    };
    std::iter::once(first).chain(second)
}

/// How many values decide a comparison: one more than its largest limit; `None` where those are too many to keep.
fn keep(comparison: Option<Comparison>) -> Option<u32> {
    let limit = match comparison? {
        Comparison::Between(_, high) => high,
        other => other.limit(),
    };
    let limit = limit.as_f64().ceil().max(0.0);
    (limit <= MAX_EXACT as f64).then(|| u32::try_from(limit as u64 + 1).unwrap_or(u32::MAX))
}

/// Whether one count serves both: of the same values over the same time, kept or estimated alike.
fn counts_the_same(one: &DistinctLayout, other: &DistinctLayout) -> bool {
    one.source == other.source && one.length == other.length && one.is_estimated() == other.is_estimated()
}

fn peak(gauges: &Gauges, layout: &Layout, window: WindowRef, columns: &Columns) -> u64 {
    match columns.as_slice() {
        [column] => gauges.peak(layout, window, *column),
        several => {
            let mut buckets = std::collections::BTreeMap::<u64, u64>::new();
            for column in several {
                for (bucket, value) in gauges.buckets(layout, window, *column) {
                    *buckets.entry(bucket).or_default() += value;
                }
            }
            buckets.into_values().max().unwrap_or(0)
        }
    }
}

fn together(checks: &[Check], verdicts: &[bool]) -> bool {
    holding(checks, &mut verdicts.iter().copied()) == checks.len()
}

/// How many of these hold. Every verdict is taken, whatever the first ones say.
fn holding(checks: &[Check], verdicts: &mut impl Iterator<Item = bool>) -> usize {
    checks.iter().filter(|check| check.put_together(verdicts)).count()
}

fn all(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut total = Verdict { holds: true, approximate: false };
    for verdict in verdicts {
        if !verdict.holds {
            return Verdict::default();
        }
        total.approximate |= verdict.approximate;
    }
    total
}
