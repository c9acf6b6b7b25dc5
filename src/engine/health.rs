//! Blindness is an alert too: what the sources lost and what did not fit.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alert::Problem;
use crate::engine::Statistics;
use crate::flow::CaptureLosses;
use crate::rule::Severity;
use crate::time::Timestamp;

/// What goes wrong in the engine and before it.
#[derive(Debug, Default)]
pub(super) struct Health {
    losses: CaptureLosses,
    /// Losses and packets of the last ticks, by which coverage is told.
    recent_lost: f64,
    recent_seen: f64,
    lost_since_tick: u64,
    seen_since_tick: u64,
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
const FAULTS: [(&str, Severity, &str); 3] = [
    ("data-loss", Severity::High, "the capture loses packets: totals are too low"),
    ("flow-limit", Severity::Medium, "more flows than the flow table holds: some left early or were not counted"),
    ("group-limit", Severity::Medium, "more groups than the rules may hold: light ones left early"),
];

/// A problem has ended when nothing was lost for this long.
const CALM: Duration = Duration::from_secs(60);

/// How much of the past coverage is told by: it fades by half in about 40 ticks.
const FADING: f64 = 0.983;

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
        let losses = &self.losses;
        let totals = [
            losses.kernel_dropped + losses.interface_dropped + losses.queue_dropped + losses.table_full,
            statistics.flows.evicted + statistics.flows.refused,
            statistics.groups_evicted + statistics.groups_refused,
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
}
