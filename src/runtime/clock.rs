//! The only clock of the program.
//!
//! Event time is the wall clock at the start plus the time since, by a clock
//! that nobody sets: a step of the wall clock cannot shift a window.

use rustix::time::{ClockId, clock_gettime};

use crate::alert::Problem;
use crate::rule::Severity;
use crate::time::Timestamp;

/// Tells the time.
pub trait Clock {
    /// Event time at this moment.
    fn now(&self) -> Timestamp;

    /// Wall-clock time at this moment, which may step.
    fn wall(&self) -> Timestamp;
}

/// The system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    /// Event time minus time since boot, in nanoseconds.
    offset: i64,
}

impl SystemClock {
    /// A clock whose event time is the wall clock at this moment.
    pub fn start() -> Self {
        Self { offset: read(ClockId::Realtime).saturating_sub(read(ClockId::Boottime)) }
    }

    /// A wall-clock stamp, as packets carry it, in event time.
    pub fn event_time(&self, wall: Timestamp, skew: i64) -> Timestamp {
        Timestamp::from_nanos(wall.as_nanos().saturating_sub(skew))
    }

    /// By how many nanoseconds the wall clock is ahead of event time.
    pub fn skew(&self) -> i64 {
        self.wall().as_nanos().saturating_sub(self.now().as_nanos())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(read(ClockId::Boottime).saturating_add(self.offset))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_nanos(read(ClockId::Realtime))
    }
}

/// Notices that somebody set the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct StepWatch {
    skew: i64,
}

impl StepWatch {
    /// From the skew at the start.
    pub fn new(skew: i64) -> Self {
        Self { skew }
    }

    /// Takes the skew at this moment. Small corrections, as a time server makes them, are not steps.
    pub fn observe(&mut self, skew: i64) -> Option<Problem> {
        let step = skew.saturating_sub(self.skew);
        self.skew = skew;
        if step.unsigned_abs() < LEAST_STEP {
            return None;
        }
        let seconds = step as f64 / 1e9;
        Some(Problem {
            id: "clock-step",
            severity: Severity::Medium,
            summary: format!("the wall clock was set by {seconds:+.1} s: times in alerts go on by the old one"),
            details: std::collections::BTreeMap::from([("seconds", format!("{seconds:.3}"))]),
            resolved: false,
        })
    }
}

/// A second, in nanoseconds.
const LEAST_STEP: u64 = 1_000_000_000;

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_told_once_and_a_correction_is_not() {
        let mut watch = StepWatch::new(0);
        let told: Vec<Option<String>> = [500_000, 900_000_000, 3_600_900_000_000, 3_600_900_000_000, 0]
            .map(|skew| watch.observe(skew).map(|problem| problem.details["seconds"].clone()))
            .into();
        assert_eq!(told, [None, None, Some("3600.000".into()), None, Some("-3600.900".into())]);
    }
}
