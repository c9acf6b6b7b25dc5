//! What a rule remembers beside its windows: values seen before, habits, quotas.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::watch::Happened;
use crate::rule::{
    Comparison, FirstSeen, Habit, Measured, Metric, Quantity, Quota, Rule, SavedValue, Sum, Trigger, Value, moment,
    restore_group, save_group, ticks,
};
use crate::window::{Recent, Tick};

/// What the trigger of one rule remembers.
#[derive(Debug)]
pub(super) enum Memory {
    /// Nothing: windows are enough.
    None,
    /// Tuples that were seen.
    Seen {
        tuples: Recent,
        /// When the rule began to learn.
        started: Option<Tick>,
    },
    /// The habit of each group.
    Habits(BTreeMap<Box<[Value]>, Habit>),
    /// What each group used.
    Quotas(BTreeMap<Box<[Value]>, Quota>),
}

/// What it says of a group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recollection {
    /// Whether the trigger holds.
    pub(super) holds: bool,
    /// How many steps of a quota are reached.
    pub(super) steps: usize,
}

/// Tuples remembered for each rule; the ones not seen for longest leave first.
const MAX_TUPLES: u32 = 1_000_000;

impl Memory {
    pub(super) fn of(rule: &Rule) -> Self {
        match rule.trigger {
            Trigger::When(_) | Trigger::Each => Self::None,
            Trigger::FirstSeen(_) => Self::Seen { tuples: Recent::default(), started: None },
            Trigger::Baseline(_) => Self::Habits(BTreeMap::new()),
            Trigger::Budget(_) => Self::Quotas(BTreeMap::new()),
        }
    }

    /// Notes a tuple; whether it is new, and the time of learning over.
    pub(super) fn is_new(&mut self, first: &FirstSeen, tick: Duration, now: Tick, tuple: &[Value]) -> bool {
        let Self::Seen { tuples, started } = self else { return false };
        let learnt_at = *started.get_or_insert(now) + ticks(first.learn, tick);
        // A value that is not known cannot be new.
        if tuple.iter().rev().take(first.of.len()).any(|value| *value == Value::Missing) {
            return false;
        }
        tuples.advance(now, ticks(first.lookback, tick));
        let is_new = tuples.add(now, fingerprint(tuple), MAX_TUPLES);
        is_new && now >= learnt_at
    }

    /// Books what happened.
    pub(super) fn note(&mut self, rule: &Rule, tick: Duration, now: Tick, group: &[Value], happened: &Happened) {
        let most = rule.limits.max_groups;
        match (self, &rule.trigger) {
            (Self::Habits(habits), Trigger::Baseline(baseline)) => {
                let amount = amount(&baseline.metric, happened);
                entry(habits, group, most, Habit::last).add(baseline, tick, now, amount);
            }
            (Self::Quotas(quotas), Trigger::Budget(budget)) => {
                let amount = amount(&budget.metric, happened);
                let last = |quota: &Quota| quota.used();
                entry(quotas, group, most, last).add(budget, moment(now, tick), amount);
            }
            _ => {}
        }
    }

    /// What is remembered of a group.
    pub(super) fn recall(&mut self, rule: &Rule, tick: Duration, now: Tick, group: &[Value]) -> Recollection {
        match (self, &rule.trigger) {
            (Self::Habits(habits), Trigger::Baseline(baseline)) => {
                let Some(habit) = habits.get_mut(group) else { return Recollection::default() };
                habit.advance(baseline, tick, now);
                Recollection { holds: habit.is_exceeded(baseline, tick), steps: 0 }
            }
            (Self::Quotas(quotas), Trigger::Budget(budget)) => {
                let Some(quota) = quotas.get_mut(group) else { return Recollection::default() };
                quota.advance(budget, moment(now, tick));
                let steps = quota.steps(budget);
                Recollection { holds: steps > 0, steps }
            }
            _ => Recollection::default(),
        }
    }

    /// The values that alerts show.
    pub(super) fn measure(&self, rule: &Rule, tick: Duration, group: &[Value]) -> Option<Shown> {
        match (self, &rule.trigger) {
            (Self::Habits(habits), Trigger::Baseline(baseline)) => {
                let habit = habits.get(group)?;
                let usual = habit.expectation(baseline, tick);
                let limit = match (usual, baseline.ceiling) {
                    (Some(usual), _) => Quantity::Count(usual.limit.max(baseline.floor.as_f64()) as u64),
                    (None, Some(ceiling)) => ceiling,
                    (None, None) => baseline.floor,
                };
                let values = usual.into_iter().flat_map(|usual| {
                    [
                        ("baseline.expected", Quantity::Ratio(usual.expected)),
                        ("baseline.deviation", Quantity::Ratio(usual.deviation)),
                        ("baseline.buckets", Quantity::Count(usual.buckets as u64)),
                    ]
                });
                let measured = shown(&baseline.metric, Comparison::Greater(limit), habit.value());
                Some(Shown { measured, values: values.collect() })
            }
            (Self::Quotas(quotas), Trigger::Budget(budget)) => {
                let quota = quotas.get(group)?;
                let measured = shown(&budget.metric, Comparison::GreaterOrEqual(budget.limit), quota.used());
                let share = quota.used() as f64 / budget.limit.as_f64().max(1.0);
                Some(Shown { measured, values: vec![("budget.share", Quantity::Ratio(share))] })
            }
            _ => None,
        }
    }

    /// What a later run is to remember.
    pub(super) fn saved(&self) -> SavedMemory {
        match self {
            Self::None => SavedMemory::default(),
            Self::Seen { tuples, started } => {
                SavedMemory { tuples: tuples.entries().collect(), started: *started, ..SavedMemory::default() }
            }
            Self::Habits(habits) => {
                let habits = habits.iter().map(|(group, habit)| (save_group(group), habit.clone()));
                SavedMemory { habits: habits.collect(), ..SavedMemory::default() }
            }
            Self::Quotas(quotas) => {
                let quotas = quotas.iter().map(|(group, quota)| (save_group(group), quota.clone()));
                SavedMemory { quotas: quotas.collect(), ..SavedMemory::default() }
            }
        }
    }

    /// Takes over what an earlier run remembered.
    pub(super) fn restore(&mut self, saved: SavedMemory) {
        match self {
            Self::None => {}
            Self::Seen { tuples, started } => {
                *started = saved.started;
                for (hash, seen) in saved.tuples {
                    tuples.add(seen, hash, MAX_TUPLES);
                }
            }
            Self::Habits(habits) => {
                habits.extend(saved.habits.into_iter().map(|(group, habit)| (restore_group(group), habit)));
            }
            Self::Quotas(quotas) => {
                quotas.extend(saved.quotas.into_iter().map(|(group, quota)| (restore_group(group), quota)));
            }
        }
    }
}

/// What alerts show of a memory.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) measured: Measured,
    pub(super) values: Vec<(&'static str, Quantity)>,
}

/// A memory as values.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedMemory {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tuples: Vec<(u64, Tick)>,
    #[serde(default)]
    started: Option<Tick>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    habits: Vec<(Vec<SavedValue>, Habit)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    quotas: Vec<(Vec<SavedValue>, Quota)>,
}

/// How much of a metric something that happened is.
pub(super) fn amount(metric: &Metric, happened: &Happened) -> u64 {
    let counters = &happened.counters;
    match metric {
        Metric::Sum(sum) | Metric::Rate(sum) | Metric::Peak(sum) => match sum {
            Sum::BytesOut => counters.bytes_out.0,
            Sum::BytesIn => counters.bytes_in.0,
            Sum::BytesTotal => counters.bytes_out.0.saturating_add(counters.bytes_in.0),
            Sum::PayloadOut => counters.payload_out.0,
            Sum::PayloadIn => counters.payload_in.0,
            Sum::PayloadTotal => counters.payload_out.0.saturating_add(counters.payload_in.0),
            Sum::PacketsOut => counters.packets_out.0,
            Sum::PacketsIn => counters.packets_in.0,
            Sum::PacketsTotal => counters.packets_out.0.saturating_add(counters.packets_in.0),
        },
        Metric::Connections => u64::from(happened.opened.is_some() && happened.by_group),
        Metric::ConnectionsFailed => happened.failed,
        Metric::DnsQueries => happened.questions,
        Metric::DnsNameBytes => happened.question_bytes,
        _ => 0,
    }
}

/// The same in every run, so that it can be kept on disk; nobody can find two tuples that share one in time.
fn fingerprint(tuple: &[Value]) -> u64 {
    let named: Vec<(&'static str, Value)> = tuple.iter().map(|value| ("", value.clone())).collect();
    let digest = crate::alert::group_digest("", &named);
    u64::from_le_bytes(*digest.first_chunk().unwrap_or(&[0; 8]))
}

fn shown(metric: &Metric, comparison: Comparison, value: u64) -> Measured {
    let value = Quantity::Count(value);
    Measured { name: metric.to_string(), comparison, value: Some(value), met: comparison.holds(value) }
}

/// The entry of a group; where there are too many, the one with the least `rank` leaves.
fn entry<'a, T: Default>(
    entries: &'a mut BTreeMap<Box<[Value]>, T>,
    group: &[Value],
    most: usize,
    rank: impl Fn(&T) -> u64,
) -> &'a mut T {
    if entries.len() >= most && !entries.contains_key(group) {
        let least = entries.iter().min_by_key(|(_, entry)| rank(entry)).map(|(key, _)| key.clone());
        if let Some(least) = least {
            entries.remove(&least);
        }
    }
    entries.entry(group.into()).or_default()
}
