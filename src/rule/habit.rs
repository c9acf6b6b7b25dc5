//! A group's own history of a metric, and how far from it the present is.
//!
//! The present is one bucket of the calendar. What it is compared with are the
//! buckets of the same season. Learning stops while the group fires, and a
//! bucket is never learnt as more than the level at which it would have fired:
//! nobody can teach the habit an excess step by step below the ceiling.
//!
//! Every bucket of the history is kept, 8 bytes each, in place of a mean and a
//! spread for each hour of the week: medians and quantiles are exact then.

use std::collections::VecDeque;

use crate::rule::{Baseline, Method, Quantity, Season, ticks};
use crate::window::Tick;

/// What is known of one group.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Habit {
    /// The bucket in which the group was first seen.
    first: Option<u64>,
    /// The bucket that is being filled, and its value.
    bucket: u64,
    value: u64,
    /// Whether the group fired during it.
    fired: bool,
    /// The ended buckets up to the present one, oldest first, [`SKIPPED`] where nothing was learnt.
    /// Those before it are zero.
    history: VecDeque<u64>,
    /// How many of them had traffic.
    busy: usize,
}

/// A bucket that was not learnt.
const SKIPPED: u64 = u64::MAX;

/// What is usual, and what is too much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// What is usual.
    pub expected: f64,
    /// How much it varies.
    pub deviation: f64,
    /// Above this it is too much.
    pub limit: f64,
    /// How many buckets say so.
    pub buckets: usize,
}

/// Buckets that are compared at most.
const MAX_BUCKETS: u64 = 4_096;

/// How fast old buckets fade from a weighted mean.
const FADING: f64 = 0.3;

impl Habit {
    /// Books a value at a tick.
    pub fn add(&mut self, baseline: &Baseline, tick: std::time::Duration, now: Tick, value: u64) {
        self.advance(baseline, tick, now);
        self.first.get_or_insert(self.bucket);
        self.value = self.value.saturating_add(value);
    }

    /// Ends the bucket that is over, and forgets what is too old.
    pub fn advance(&mut self, baseline: &Baseline, tick: std::time::Duration, now: Tick) {
        let width = ticks(baseline.bucket, tick).max(1);
        let bucket = now.saturating_sub(1) / width;
        if bucket <= self.bucket {
            return;
        }
        let kept = (ticks(baseline.history, tick) / width).clamp(1, MAX_BUCKETS) as usize;
        if self.first.is_some() {
            let learnt = if self.fired && !baseline.learn_while_firing {
                SKIPPED
            } else if baseline.learn_while_firing {
                self.value.min(SKIPPED - 1)
            } else {
                // What a coarser season says would cut off a habit before it is one.
                let most = self.usual(baseline, tick, &[baseline.season]).map_or(u64::MAX, |usual| usual.limit as u64);
                self.value.min(most).min(SKIPPED - 1)
            };
            let idle = usize::try_from(bucket - self.bucket - 1).unwrap_or(usize::MAX);
            if idle >= kept {
                self.history.clear();
                self.busy = 0;
            } else {
                self.keep(learnt, kept);
                (0..idle).for_each(|_| self.keep(0, kept));
            }
        }
        (self.bucket, self.value, self.fired) = (bucket, 0, false);
        self.first = self.first.map(|first| first.max(bucket.saturating_sub(kept as u64)));
    }

    /// Adds the bucket that follows, and lets go what is too old or says nothing.
    fn keep(&mut self, value: u64, kept: usize) {
        while self.history.len() >= kept || self.history.front() == Some(&0) {
            let left = self.history.pop_front();
            self.busy -= usize::from(is_busy(left.unwrap_or_default()));
        }
        if self.history.len() == self.history.capacity() {
            // No more than is stated, in few steps.
            let most = kept - self.history.len();
            self.history.reserve_exact((self.history.len() / 2).clamp(4.min(most), most));
        }
        self.history.push_back(value);
        self.busy += usize::from(is_busy(value));
    }

    /// The value of the bucket that is being filled.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// What is usual for the bucket that is being filled; `None` while the history is too short.
    pub fn expectation(&self, baseline: &Baseline, tick: std::time::Duration) -> Option<Expectation> {
        self.usual(baseline, tick, coarser(baseline.season))
    }

    /// What the first of `seasons` that has enough buckets says is usual; if none has, what the last one says.
    fn usual(&self, baseline: &Baseline, tick: std::time::Duration, seasons: &[Season]) -> Option<Expectation> {
        let width = ticks(baseline.bucket, tick).max(1);
        let first = self.first?;
        let known = (self.bucket - first).saturating_mul(width);
        if known < ticks(baseline.min_history, tick) || self.bucket == first {
            return None;
        }
        let mut values = Vec::new();
        for season in seasons {
            values = self.values(first, season_of(*season, width, tick));
            if values.len() >= LEAST_BUCKETS {
                break;
            }
        }
        if values.is_empty() { None } else { Some(expect(baseline, values)) }
    }

    /// The values of the buckets since `first` that are whole seasons before the present one.
    fn values(&self, first: u64, season: Option<u64>) -> Vec<f64> {
        let same_season = |bucket: &u64| season.is_none_or(|season| bucket % season == self.bucket % season);
        let start = self.bucket.saturating_sub(self.history.len() as u64);
        let value = |bucket: u64| {
            let place = bucket.checked_sub(start).and_then(|place| usize::try_from(place).ok());
            place.and_then(|place| self.history.get(place)).copied().unwrap_or(0)
        };
        let learnt = (first..self.bucket).filter(same_season).map(value).filter(|value| *value != SKIPPED);
        learnt.map(|value| value as f64).collect()
    }

    /// Whether the present is too far from the habit. Notes that the group fires.
    pub fn is_exceeded(&mut self, baseline: &Baseline, tick: std::time::Duration) -> bool {
        let value = Quantity::Count(self.value).as_f64();
        let above_ceiling = baseline.ceiling.is_some_and(|ceiling| value > ceiling.as_f64());
        let above_floor = value >= baseline.floor.as_f64();
        let unusual = || self.expectation(baseline, tick).is_some_and(|usual| value > usual.limit);
        let exceeded = above_ceiling || (above_floor && unusual());
        self.fired |= exceeded;
        exceeded
    }

    /// What decides who is remembered where there are too many: the last bucket, then how much history there is.
    pub fn standing(&self) -> (u64, usize, u64) {
        (self.bucket, self.busy, self.value)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.history.capacity() * size_of::<u64>()
    }
}

/// Whether a bucket had traffic that was learnt.
fn is_busy(value: u64) -> bool {
    value != 0 && value != SKIPPED
}

/// The season and those that take its place while it has too few buckets: a
/// week must pass three times before one of its hours says what is usual.
fn coarser(season: Season) -> &'static [Season] {
    match season {
        Season::HourOfWeek => &[Season::HourOfWeek, Season::HourOfDay, Season::None],
        Season::HourOfDay => &[Season::HourOfDay, Season::None],
        Season::None => &[Season::None],
    }
}

fn season_of(season: Season, width: Tick, tick: std::time::Duration) -> Option<u64> {
    let length = match season {
        Season::None => return None,
        Season::HourOfDay => std::time::Duration::from_secs(86_400),
        Season::HourOfWeek => std::time::Duration::from_secs(7 * 86_400),
    };
    Some((ticks(length, tick) / width).max(1))
}

fn expect(baseline: &Baseline, mut values: Vec<f64>) -> Expectation {
    let buckets = values.len();
    match baseline.method {
        Method::Mad => {
            let expected = median(&mut values);
            let mut distances: Vec<f64> = values.iter().map(|value| (value - expected).abs()).collect();
            // 1.4826 makes it the standard deviation where values are normal.
            let deviation = (1.4826 * median(&mut distances)).max(expected * LEAST_DEVIATION).max(1.0);
            Expectation { expected, deviation, limit: expected + baseline.above * deviation, buckets }
        }
        Method::Ewma => {
            let mut values = values.into_iter();
            let mut expected = values.next().unwrap_or(0.0);
            let mut variance = 0.0;
            for value in values {
                let distance = value - expected;
                expected += FADING * distance;
                variance = (1.0 - FADING) * (variance + FADING * distance * distance);
            }
            let deviation = variance.sqrt().max(expected * LEAST_DEVIATION).max(1.0);
            Expectation { expected, deviation, limit: expected + baseline.above * deviation, buckets }
        }
        Method::Quantile => {
            let expected = median(&mut values);
            values.sort_by(f64::total_cmp);
            let rank = (baseline.above.clamp(0.0, 1.0) * (values.len() - 1) as f64).ceil() as usize;
            let limit = values.get(rank).copied().unwrap_or(expected);
            Expectation { expected, deviation: (limit - expected).max(0.0), limit, buckets }
        }
    }
}

/// Buckets of one season below which a coarser one is asked.
const LEAST_BUCKETS: usize = 3;

/// A habit without variation is taken to vary by this part of itself.
const LEAST_DEVIATION: f64 = 0.05;

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rule::{Metric, Sum};

    const TICK: Duration = Duration::from_secs(1);
    const HOUR: u64 = 3_600;

    fn baseline() -> Baseline {
        Baseline {
            metric: Metric::Sum(Sum::BytesOut),
            bucket: Duration::from_secs(HOUR),
            history: Duration::from_secs(14 * 24 * HOUR),
            season: Season::None,
            method: Method::Mad,
            above: 6.0,
            floor: Quantity::Count(50),
            ceiling: Some(Quantity::Count(100_000)),
            min_history: Duration::from_secs(24 * HOUR),
            learn_while_firing: false,
        }
    }

    /// A group that sends about 1,000 in every hour.
    fn steady(baseline: &Baseline, hours: u64) -> Habit {
        let mut habit = Habit::default();
        for hour in 0..hours {
            habit.add(baseline, TICK, 1 + hour * HOUR, 950 + hour % 3 * 50);
        }
        habit
    }

    #[test]
    fn it_learns_before_it_speaks() {
        let baseline = baseline();
        let mut habit = steady(&baseline, 24);
        habit.add(&baseline, TICK, 23 * HOUR + 2, 50_000);
        assert!(!habit.is_exceeded(&baseline, TICK), "23 hours are less than a day");
        habit.add(&baseline, TICK, 23 * HOUR + 3, 50_001);
        assert!(habit.is_exceeded(&baseline, TICK), "above the ceiling it speaks at once");
        let mut habit = steady(&baseline, 30);
        assert!(!habit.is_exceeded(&baseline, TICK));
        habit.add(&baseline, TICK, 29 * HOUR + 2, 1_000);
        assert!(habit.is_exceeded(&baseline, TICK));
        let usual = habit.expectation(&baseline, TICK).unwrap();
        assert_eq!((usual.expected, usual.buckets), (1_000.0, 29));
    }

    #[test]
    fn an_excess_is_not_learnt() {
        let baseline = baseline();
        let mut habit = steady(&baseline, 48);
        for hour in 48..96 {
            habit.add(&baseline, TICK, 1 + hour * HOUR, 20_000);
            assert!(habit.is_exceeded(&baseline, TICK), "hour {hour}");
        }
    }

    #[test]
    fn it_takes_no_more_room_than_its_buckets() {
        let baseline = baseline();
        let kept = 14 * 24;
        for hours in [1, 5, 100, kept, 2 * kept] {
            let habit = steady(&baseline, hours);
            assert!(habit.heap_bytes() <= kept as usize * size_of::<u64>(), "{} B after {hours} h", habit.heap_bytes());
            assert_eq!(habit.busy, (hours - 1).min(kept) as usize);
        }
        // Long silence is zeros, which take no room.
        let mut habit = steady(&baseline, 48);
        habit.add(&baseline, TICK, 1 + 500 * HOUR, 20);
        assert_eq!((habit.history.len(), habit.busy), (0, 0));
        assert_eq!(habit.expectation(&baseline, TICK).unwrap().expected, 0.0);
    }

    #[test]
    fn hours_of_the_day_have_their_own_habit() {
        let baseline = Baseline { season: Season::HourOfDay, ..baseline() };
        let mut habit = Habit::default();
        for hour in 0..24 * 7 {
            let value = if hour % 24 == 2 { 40_000 } else { 100 };
            habit.add(&baseline, TICK, 1 + hour * HOUR, value);
        }
        habit.add(&baseline, TICK, 1 + (24 * 7 + 2) * HOUR, 40_000);
        assert!(!habit.is_exceeded(&baseline, TICK), "every night at two");
        habit.add(&baseline, TICK, 1 + (24 * 7 + 3) * HOUR, 40_000);
        assert!(habit.is_exceeded(&baseline, TICK), "never at three");
    }
}
