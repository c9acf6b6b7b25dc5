//! What a rule can cost: memory for its groups, time for its tests.
//!
//! Estimates, on the high side; `egret rules cost` prints them.

use std::time::Duration;

use crate::rule::{Clause, Condition, Edge, MAX_EXACT, Metric, Pattern, Plan, Rule, TextPattern, Trigger};
use crate::window::Layout;

/// What one rule can cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of state for one group whose windows are full.
    pub bytes_per_group: u64,
    /// Groups held at once.
    pub max_groups: u64,
    /// Buckets of all windows of one group.
    pub buckets: u64,
    /// Tests in the condition and its exceptions.
    pub tests: u64,
    /// Regular expressions among them.
    pub regexes: u64,
    /// Time to test one flow when its owner becomes known.
    pub nanoseconds_per_flow: u64,
    /// Whether a count of different values is an estimate.
    pub estimated: bool,
}

impl Cost {
    /// The cost of a rule.
    pub fn of(rule: &Rule) -> Self {
        let mut cost = Self { max_groups: rule.limits.max_groups as u64, bytes_per_group: GROUP, ..Self::default() };
        if rule.group_by.is_empty() {
            cost.max_groups = 1;
        }
        match &rule.trigger {
            Trigger::When(when) => {
                cost.add_clauses(&when.all);
                cost.bytes_per_group += ring_bytes(&Plan::of(rule, Duration::from_secs(1)).layout);
            }
            Trigger::Each => {}
            Trigger::FirstSeen(_) => (cost.bytes_per_group, cost.max_groups) = (16, MAX_SEEN),
            Trigger::Baseline(baseline) => {
                let kept = (baseline.history.as_secs() / baseline.bucket.as_secs().max(1)).max(1);
                cost.buckets += kept;
                cost.bytes_per_group += 8 * kept + HABIT;
            }
            Trigger::Budget(_) => cost.bytes_per_group += 16,
        }
        cost.add_condition(&rule.condition);
        for exception in &rule.exceptions {
            cost.add_condition(&exception.condition);
        }
        cost
    }

    /// Memory when every group is there.
    pub fn max_bytes(&self) -> u64 {
        self.bytes_per_group.saturating_mul(self.max_groups)
    }

    /// The cost and the exactness of the rule's windows in words.
    pub fn explain(&self, rule: &Rule) -> Vec<String> {
        let mut lines = vec![format!(
            "at most {} in {} groups ({} B each), {} tests with {} regular expressions, about {} ns a flow",
            crate::units::Bytes(self.max_bytes()),
            self.max_groups,
            self.bytes_per_group,
            self.tests,
            self.regexes,
            self.nanoseconds_per_flow,
        )];
        if let Trigger::When(when) = &rule.trigger {
            let window = crate::rule::summary::duration(when.window);
            let extra = crate::rule::summary::duration(bucket(when.window));
            lines.push(match when.edge {
                Edge::Cover => format!("a sum covers all of the last {window} and at most {extra} more"),
                Edge::Interpolate => {
                    format!(
                        "a sum covers the last {window}; of the oldest {extra} it takes the part inside, as an estimate"
                    )
                }
            });
        }
        if let Trigger::Baseline(baseline) = &rule.trigger {
            let width = crate::rule::summary::duration(baseline.bucket);
            lines.push(format!(
                "each of the last {} buckets of {width} is kept, so what is usual is exact",
                self.buckets
            ));
        }
        if self.estimated {
            lines.push(format!(
                "a limit above {MAX_EXACT} different values is compared with an estimate (error 3.25 %)"
            ));
        }
        lines
    }

    fn add_clauses(&mut self, clauses: &[Clause]) {
        for clause in clauses {
            match clause {
                Clause::Threshold(threshold) => {
                    self.add_window(&threshold.metric, threshold.window, threshold.comparison.limit().as_f64())
                }
                Clause::Spike(spike) => {
                    self.add_window(&spike.metric, spike.window, 0.0);
                    self.add_window(&spike.past, spike.offset + spike.past_window, 0.0);
                }
                Clause::Any(parts) | Clause::All(parts) => self.add_clauses(parts),
            }
        }
    }

    fn add_window(&mut self, metric: &Metric, window: Duration, limit: f64) {
        match metric {
            Metric::Distinct(_) | Metric::DnsDistinctNames => {
                // The limit and one more are kept, each with its time.
                if limit > MAX_EXACT as f64 {
                    let buckets = window.as_secs() / bucket(window).as_secs().max(1) + 1;
                    self.buckets += buckets;
                    self.bytes_per_group += buckets * SKETCH;
                    self.estimated = true;
                } else {
                    self.bytes_per_group += (limit.max(0.0) as u64 + 1) * 30;
                }
            }
            _ => {
                let buckets = window.as_secs() / bucket(window).as_secs().max(1) + 1;
                self.buckets += buckets;
            }
        }
    }

    fn add_condition(&mut self, condition: &Condition) {
        condition.for_each_test(&mut |test| {
            self.tests += 1;
            self.nanoseconds_per_flow += match &test.pattern {
                Pattern::Exists => 5,
                Pattern::Number(_) => 10,
                Pattern::Address(_) => 40,
                Pattern::Domain(_) => 60,
                Pattern::Text(texts) | Pattern::User { names: texts, .. } => {
                    let regexes =
                        texts.patterns().iter().filter(|pattern| matches!(pattern, TextPattern::Regex(_))).count()
                            as u64;
                    self.regexes += regexes;
                    20 + regexes * 150 + (texts.patterns().len() as u64 - regexes) * 10
                }
            };
        });
    }
}

/// The length of a window's buckets at ticks of one second.
pub fn bucket(window: Duration) -> Duration {
    Duration::from_secs(crate::window::Span::of(window.as_secs()).width)
}

/// What the rings of a group hold when every bucket has traffic, and their sums.
fn ring_bytes(layout: &Layout) -> u64 {
    let stride = layout.columns.len() as u64 + 1;
    let of_track = |spans: &Vec<crate::window::Span>| {
        let buckets = spans.first().map_or(0, |span| span.length / span.width + 1);
        // A ring grows by doubling.
        (buckets.next_power_of_two() + spans.len() as u64) * stride * 8
    };
    layout.tracks.iter().map(of_track).sum()
}

/// What a group costs before its windows: its place, its key, and what it may inherit of one that left.
const GROUP: u64 = 640;
/// What a habit costs before its buckets.
const HABIT: u64 = 96;
/// Registers of one bucket of an estimate.
const SKETCH: u64 = 1_040;

/// Tuples that the first-seen table holds.
const MAX_SEEN: u64 = crate::window::MAX_SEEN as u64;
