//! What a rule remembers beside its windows: values seen before, habits, quotas.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::watch::{Happened, Moment};
use crate::rule::{
    Comparison, Exactness, FirstSeen, Habit, Measured, Metric, Quantity, Quota, Rule, SavedValue, Sum, Trigger, Value,
    moment, restore_group, save_group, ticks,
};
use crate::window::{Seen, Tick};

/// What the trigger of one rule remembers.
#[derive(Debug)]
pub(super) enum Memory {
    /// Nothing: windows are enough.
    None,
    /// Tuples that were seen lie in a table that all rules share.
    Seen {
        /// When the rule began to learn.
        started: Option<Tick>,
    },
    /// The habit of each group.
    Habits(Groups<Habit>),
    /// What each group used.
    Quotas(Groups<Quota>),
}

/// What is remembered of each group; bounded.
#[derive(Debug)]
pub(super) struct Groups<T> {
    entries: BTreeMap<Box<[Value]>, T>,
    /// Groups that left early, as a running total.
    forgotten: u64,
}

/// What it says of a group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recollection {
    /// Whether the trigger holds.
    pub(super) holds: bool,
    /// How many steps of a quota are reached.
    pub(super) steps: usize,
}

/// The part of full memories that leaves at once, so that a flood of new groups costs each of them little.
const PART: usize = 16;

/// Entries by which the size of all is told.
const SAMPLE: usize = 32;

impl Memory {
    pub(super) fn of(rule: &Rule) -> Self {
        match rule.trigger {
            Trigger::When(_) | Trigger::Each => Self::None,
            Trigger::FirstSeen(_) => Self::Seen { started: None },
            Trigger::Baseline(_) => Self::Habits(Groups::new()),
            Trigger::Budget(_) => Self::Quotas(Groups::new()),
        }
    }

    /// Notes a tuple; whether it is new, and the time of learning over. `rule` tells rules apart in the table.
    pub(super) fn is_new(
        &mut self,
        first: &FirstSeen,
        rule: u64,
        now: &Moment<'_>,
        tuple: &[Value],
        seen: &mut Seen,
    ) -> bool {
        let Self::Seen { started } = self else { return false };
        let learnt_at = *started.get_or_insert(now.tick) + ticks(first.learn, now.length);
        // A value that is not known cannot be new.
        if tuple.iter().rev().take(first.of.len()).any(|value| *value == Value::Missing) {
            return false;
        }
        let is_new = seen.note(fingerprint(rule, tuple), now.tick, ticks(first.lookback, now.length));
        is_new && now.tick >= learnt_at
    }

    /// Whether the time of learning has not passed.
    pub(super) fn is_learning(&self, rule: &Rule, now: &Moment<'_>) -> bool {
        match (self, &rule.trigger) {
            (Self::Seen { started }, Trigger::FirstSeen(first)) => {
                started.is_none_or(|started| now.tick < started + ticks(first.learn, now.length))
            }
            _ => false,
        }
    }

    /// Groups that left early because there were too many, as a running total.
    pub(super) fn forgotten(&self) -> u64 {
        match self {
            Self::None | Self::Seen { .. } => 0,
            Self::Habits(habits) => habits.forgotten,
            Self::Quotas(quotas) => quotas.forgotten,
        }
    }

    /// Bytes on the heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::None | Self::Seen { .. } => 0,
            Self::Habits(habits) => habits.heap_bytes(Habit::heap_bytes),
            Self::Quotas(quotas) => quotas.heap_bytes(|_| 0),
        }
    }

    /// Books what happened.
    pub(super) fn note(&mut self, rule: &Rule, tick: Duration, now: Tick, group: &[Value], happened: &Happened) {
        let most = rule.limits.max_groups;
        match (self, &rule.trigger) {
            (Self::Habits(habits), Trigger::Baseline(baseline)) => {
                let amount = amount(&baseline.metric, happened);
                habits.of(group, most, Habit::standing).add(baseline, tick, now, amount);
            }
            (Self::Quotas(quotas), Trigger::Budget(budget)) => {
                let amount = amount(&budget.metric, happened);
                quotas.of(group, most, |quota| quota.used()).add(budget, moment(now, tick), amount);
            }
            _ => {}
        }
    }

    /// What is remembered of a group.
    pub(super) fn recall(&mut self, rule: &Rule, tick: Duration, now: Tick, group: &[Value]) -> Recollection {
        match (self, &rule.trigger) {
            (Self::Habits(habits), Trigger::Baseline(baseline)) => {
                let Some(habit) = habits.entries.get_mut(group) else { return Recollection::default() };
                habit.advance(baseline, tick, now);
                Recollection { holds: habit.is_exceeded(baseline, tick), steps: 0 }
            }
            (Self::Quotas(quotas), Trigger::Budget(budget)) => {
                let Some(quota) = quotas.entries.get_mut(group) else { return Recollection::default() };
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
                let habit = habits.entries.get(group)?;
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
                let quota = quotas.entries.get(group)?;
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
            Self::Seen { started } => SavedMemory { started: *started, ..SavedMemory::default() },
            Self::Habits(habits) => {
                let habits = habits.entries.iter().map(|(group, habit)| (save_group(group), habit.clone()));
                SavedMemory { habits: habits.collect(), ..SavedMemory::default() }
            }
            Self::Quotas(quotas) => {
                let quotas = quotas.entries.iter().map(|(group, quota)| (save_group(group), quota.clone()));
                SavedMemory { quotas: quotas.collect(), ..SavedMemory::default() }
            }
        }
    }

    /// Takes over what an earlier run remembered.
    pub(super) fn restore(&mut self, saved: SavedMemory) {
        match self {
            Self::None => {}
            Self::Seen { started } => *started = saved.started,
            Self::Habits(habits) => {
                habits.entries.extend(saved.habits.into_iter().map(|(group, habit)| (restore_group(group), habit)));
            }
            Self::Quotas(quotas) => {
                quotas.entries.extend(saved.quotas.into_iter().map(|(group, quota)| (restore_group(group), quota)));
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
fn fingerprint(rule: u64, tuple: &[Value]) -> u64 {
    let named: Vec<(&'static str, Value)> = tuple.iter().map(|value| ("", value.clone())).collect();
    let digest = crate::alert::group_digest(&format!("{rule:016x}"), &named);
    u64::from_le_bytes(*digest.first_chunk().unwrap_or(&[0; 8]))
}

fn shown(metric: &Metric, comparison: Comparison, value: u64) -> Measured {
    let value = Quantity::Count(value);
    Measured {
        name: metric.to_string(),
        comparison,
        value: Some(value),
        met: comparison.holds(value),
        exactness: Exactness::Exact,
    }
}

impl<T: Default> Groups<T> {
    fn new() -> Self {
        Self { entries: BTreeMap::new(), forgotten: 0 }
    }

    /// The entry of a group. Where there are too many, those with the least `standing` leave.
    fn of<R: Ord + Copy>(&mut self, group: &[Value], most: usize, standing: impl Fn(&T) -> R) -> &mut T {
        if self.entries.len() >= most.max(1) && !self.entries.contains_key(group) {
            let mut standings: Vec<R> = self.entries.values().map(&standing).collect();
            let leaving = (standings.len() / PART).max(1);
            let (_, best_to_leave, _) = standings.select_nth_unstable(leaving - 1);
            let best_to_leave = *best_to_leave;
            let mut left = leaving;
            self.entries.retain(|_, entry| {
                let leaves = left > 0 && standing(entry) <= best_to_leave;
                left -= usize::from(leaves);
                !leaves
            });
            self.forgotten += leaving as u64;
        }
        self.entries.entry(group.into()).or_default()
    }

    /// By what a few of them hold: this is asked at every tick.
    fn heap_bytes(&self, of_entry: impl Fn(&T) -> usize) -> usize {
        let sample = self.entries.iter().take(SAMPLE);
        let bytes: usize =
            sample.map(|(group, entry)| (size_of_val(&**group) + size_of::<T>() + of_entry(entry)) * 3 / 2).sum();
        bytes * self.entries.len() / self.entries.len().clamp(1, SAMPLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_groups_pushes_out_the_least() {
        let mut groups: Groups<u64> = Groups::new();
        *groups.of(&[Value::Text("steady".into())], 100, |value| *value) = 1_000;
        for number in 0..10_000u64 {
            *groups.of(&[Value::Number(number)], 100, |value| *value) = number % 7;
        }
        assert!(groups.entries.len() <= 100);
        assert_eq!(groups.forgotten, 10_001 - groups.entries.len() as u64);
        assert_eq!(groups.entries.get(&[Value::Text("steady".into())][..]), Some(&1_000));
    }
}
