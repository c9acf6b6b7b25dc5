//! What the windows hold at this moment, for whoever asks.

use std::sync::Arc;

use super::Engine;
use super::watch::Watch;
use crate::alert::Stage;
use crate::rule::{Comparison, Measured, Quantity, Value};
use crate::time::Timestamp;
use crate::window::GroupId;

/// One group of one rule, and how near it is to its limits.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LiveWindow {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The group: field and value, in the rule's order.
    #[serde(serialize_with = "as_pairs")]
    pub group: Vec<(&'static str, Value)>,
    /// `quiet`, `pending`, `firing`, `recovering` or `cooling`.
    pub state: &'static str,
    /// The length of the window, in seconds.
    pub window_s: u64,
    /// Every condition of the rule with its value.
    pub conditions: Vec<WindowCondition>,
    /// How far the group has come: the share of the limit that the condition farthest from its limit has
    /// reached, at most 1; 1 for a group whose conditions hold.
    pub share: f64,
}

/// A condition of a live window.
#[derive(Debug, Clone, serde::Serialize)]
pub struct WindowCondition {
    /// What is measured.
    pub metric: String,
    /// How it is compared.
    pub op: &'static str,
    /// The limit.
    pub limit: Quantity,
    /// The value; `None` where it is undefined.
    pub value: Option<Quantity>,
    /// Whether it holds.
    pub met: bool,
}

impl Engine {
    /// The groups nearest to their limits, the nearest first: of one rule, or of all.
    pub fn live_windows(&self, rule: Option<&str>, most: usize) -> Vec<LiveWindow> {
        let now = self.next_tick.map_or(0, |next| next.saturating_sub(1));
        let wanted = |watch: &&Watch| rule.is_none_or(|id| *watch.rule.metadata.id == *id);
        let mut windows: Vec<LiveWindow> = Vec::new();
        for watch in self.watches.iter().filter(wanted) {
            windows.extend(watch.group_ids().filter_map(|id| self.live_window(watch, id, now)));
            // What is far from the front is not kept: a rule may hold very many groups.
            if windows.len() > most.saturating_mul(2) {
                nearest_first(&mut windows);
                windows.truncate(most);
            }
        }
        nearest_first(&mut windows);
        windows.truncate(most);
        windows
    }

    /// The latest event time, up to which the windows are.
    pub fn windows_at(&self) -> Timestamp {
        self.now
    }

    fn live_window(&self, watch: &Watch, id: GroupId, now: u64) -> Option<LiveWindow> {
        let measured = watch.measure(id, now, self.settings.tick)?;
        let state = match watch.stage(id) {
            None => "quiet",
            Some(Stage::Pending { .. }) => "pending",
            Some(Stage::Firing) => "firing",
            Some(Stage::Recovering { .. }) => "recovering",
            Some(Stage::Cooling) => "cooling",
        };
        let share = match measured.iter().all(|one| one.met) {
            true => 1.0,
            false => measured.iter().map(reached).fold(1.0, f64::min),
        };
        let condition = |one: Measured| WindowCondition {
            metric: one.name,
            op: one.comparison.name(),
            limit: one.comparison.limit(),
            value: one.value,
            met: one.met,
        };
        Some(LiveWindow {
            rule: Arc::clone(&watch.rule.metadata.id),
            group: watch.group_values(id),
            state,
            window_s: watch.window_seconds(self.settings.tick),
            conditions: measured.into_iter().map(condition).collect(),
            share: (share * 10_000.0).round() / 10_000.0,
        })
    }
}

/// The share of a limit that was reached.
fn reached(one: &Measured) -> f64 {
    let (value, limit) = (one.value.map_or(0.0, Quantity::as_f64), one.comparison.limit().as_f64());
    match one.comparison {
        _ if one.met => 1.0,
        Comparison::Greater(_) | Comparison::GreaterOrEqual(_) | Comparison::Between(..) if limit > 0.0 => {
            (value / limit).clamp(0.0, 1.0)
        }
        _ => 0.0,
    }
}

fn nearest_first(windows: &mut [LiveWindow]) {
    windows.sort_by(|one, other| {
        other
            .share
            .total_cmp(&one.share)
            .then_with(|| one.rule.cmp(&other.rule))
            .then_with(|| one.group.cmp(&other.group))
    });
}

fn as_pairs<S: serde::Serializer>(pairs: &[(&'static str, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(field, value)| (field, value)))
}
