//! Blindness is an alert too: what the sources lost and what did not fit.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alert::Problem;
use crate::engine::Statistics;
use crate::flow::CaptureLosses;
use crate::rule::Severity;
use crate::time::Timestamp;
use crate::window::{Span, Track};

/// What goes wrong in the engine and before it.
#[derive(Debug)]
pub(super) struct Health {
    losses: CaptureLosses,
    /// Losses and packets of the last ticks, by which coverage is told.
    recent_lost: f64,
    recent_seen: f64,
    lost_since_tick: u64,
    seen_since_tick: u64,
    own: Track,
    own_total: u64,
    /// Own bytes above what is usual, as a running total.
    own_excess: u64,
    faults: [Fault; FAULTS.len()],
}

/// One kind of problem.
#[derive(Debug, Clone, Copy, Default)]
struct Fault {
    /// The running total when it was last looked at.
    total: u64,
    /// When it last grew; set while the problem lasts.
    last: Option<Timestamp>,
    /// The total when the problem began.
    before: u64,
}

/// The problems that the engine itself finds: id, severity, and one sentence.
const FAULTS: [(&str, Severity, &str); 5] = [
    ("data-loss", Severity::High, "the capture loses packets: totals are too low"),
    ("flow-limit", Severity::Medium, "more flows than the flow table holds: some left early or were not counted"),
    ("group-limit", Severity::Medium, "more groups than the rules may hold: light ones left early"),
    ("first-seen-full", Severity::Medium, "more values than can be remembered: what was seen long ago counts as new"),
    (
        "self-traffic",
        Severity::Medium,
        "Egret itself sends more than 100 MB in ten minutes; no other rule looks at that",
    ),
];

/// Egret's own flows match no rule, so that telling of an alert cannot raise another. This is the rule for them.
const OWN_BYTES: u64 = 100_000_000;
const OWN_WINDOW: Span = Span { length: 600, width: 10 };

/// A problem has ended when nothing was lost for this long.
const CALM: Duration = Duration::from_secs(60);

/// How much of the past coverage is told by: it fades by half in about 40 ticks.
const FADING: f64 = 0.983;

impl Default for Health {
    fn default() -> Self {
        Self {
            losses: CaptureLosses::default(),
            recent_lost: 0.0,
            recent_seen: 0.0,
            lost_since_tick: 0,
            seen_since_tick: 0,
            own: Track::new(&[OWN_WINDOW], 1),
            own_total: 0,
            own_excess: 0,
            faults: [Fault::default(); FAULTS.len()],
        }
    }
}

impl Health {
    /// Takes the running totals of the sources.
    pub(super) fn handle_losses(&mut self, losses: &CaptureLosses) {
        let total = |losses: &CaptureLosses| {
            losses.kernel_dropped + losses.interface_dropped + losses.queue_dropped + losses.table_full
        };
        self.lost_since_tick += total(losses).saturating_sub(total(&self.losses));
        self.losses = *losses;
    }

    /// Notes packets that were seen.
    pub(super) fn saw(&mut self, packets: u64) {
        self.seen_since_tick += packets;
    }

    /// The share of the packets of the last minute that was seen.
    pub(super) fn coverage(&self) -> f64 {
        let total = self.recent_seen + self.recent_lost;
        if self.recent_lost <= 0.5 || total <= 0.0 { 1.0 } else { self.recent_seen / total }
    }

    /// When a problem ends if nothing more is lost.
    pub(super) fn next_change(&self) -> Option<Timestamp> {
        self.faults.iter().filter_map(|fault| fault.last).map(|last| last.after(CALM)).min()
    }

    /// Looks for problems that began or ended.
    pub(super) fn tick(&mut self, now: Timestamp, statistics: &Statistics) -> Vec<Problem> {
        self.recent_lost = self.recent_lost * FADING + std::mem::take(&mut self.lost_since_tick) as f64;
        self.recent_seen = self.recent_seen * FADING + std::mem::take(&mut self.seen_since_tick) as f64;
        self.watch_own(now, statistics.own_bytes);
        let losses = &self.losses;
        let totals = [
            losses.kernel_dropped + losses.interface_dropped + losses.queue_dropped + losses.table_full,
            statistics.flows.evicted + statistics.flows.refused,
            statistics.groups_evicted + statistics.groups_refused,
            statistics.seen_pushed_out,
            self.own_excess,
        ];
        let mut problems = Vec::new();
        for ((fault, total), (id, severity, sentence)) in self.faults.iter_mut().zip(totals).zip(FAULTS) {
            let problem = |fault: &Fault, resolved: bool| Problem {
                id,
                severity,
                summary: match resolved {
                    false => sentence.to_owned(),
                    true => format!("ended: {sentence}"),
                },
                details: BTreeMap::from([
                    ("count", (total - fault.before.min(total)).to_string()),
                    ("total", total.to_string()),
                ]),
                resolved,
            };
            if total > fault.total {
                if fault.last.is_none() {
                    fault.before = fault.total;
                    problems.push(problem(fault, false));
                }
                fault.last = Some(now);
            } else if fault.last.is_some_and(|last| now.since(last) >= CALM) {
                problems.push(problem(fault, true));
                fault.last = None;
            }
            fault.total = total;
        }
        problems
    }

    fn watch_own(&mut self, now: Timestamp, total: u64) {
        let grown = total.saturating_sub(self.own_total);
        self.own_total = total;
        if grown == 0 {
            return;
        }
        self.own.add(&[OWN_WINDOW], u64::try_from(now.as_secs()).unwrap_or(0), &[grown]);
        if self.own.sum(0, 0, 1) >= OWN_BYTES {
            self.own_excess += grown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_lower_the_coverage_and_are_told_once() {
        let mut health = Health::default();
        let mut told = Vec::new();
        for second in 0..200 {
            health.saw(90);
            let kernel_dropped = if second < 10 { 10 * (second + 1) } else { 100 };
            health.handle_losses(&CaptureLosses { kernel_dropped, ..CaptureLosses::default() });
            let now = Timestamp::from_secs(i64::try_from(second).unwrap());
            for problem in health.tick(now, &Statistics::default()) {
                told.push((second, problem.id, problem.resolved));
            }
            if second == 9 {
                assert!((health.coverage() - 0.9).abs() < 0.001, "{}", health.coverage());
            }
        }
        assert_eq!(told, [(0, "data-loss", false), (69, "data-loss", true)]);
        assert!(health.coverage() > 0.99);
    }

    #[test]
    fn egret_hears_when_it_is_the_one_that_sends() {
        let mut health = Health::default();
        let mut told = Vec::new();
        for second in 0..900u64 {
            // A megabyte a second for three minutes.
            let own_bytes = second.min(180) * 1_000_000;
            let now = Timestamp::from_secs(i64::try_from(second).unwrap());
            let statistics = Statistics { own_bytes, ..Statistics::default() };
            told.extend(health.tick(now, &statistics).into_iter().map(|one| (second, one.id, one.resolved)));
        }
        assert_eq!(told, [(100, "self-traffic", false), (240, "self-traffic", true)]);
    }
}
