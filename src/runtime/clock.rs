//! The only clock of the program.
//!
//! Event time is the wall clock at the start plus the time since, by a clock
//! that nobody sets: a step of the wall clock cannot shift a window.

use rustix::time::{ClockId, clock_gettime};

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

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
