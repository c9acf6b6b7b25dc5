//! Starts of connections: an exact count up to a limit, and their regularity.

use std::collections::VecDeque;

use crate::time::Timestamp;
use crate::window::Tick;

/// The most recent starts, as many as the largest limit needs plus one.
///
/// More than `n` connections within a window is exactly "the start before the
/// last `n` is still inside"; older ones cannot matter.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Starts {
    /// Ticks with the starts booked at them, oldest first.
    booked: VecDeque<(Tick, u32)>,
    total: u32,
}

impl Starts {
    /// Books starts at a tick, which is not before the last one.
    pub fn add(&mut self, now: Tick, starts: u32, keep: u32) {
        match self.booked.back_mut() {
            Some((tick, booked)) if *tick == now => *booked = booked.saturating_add(starts),
            _ => self.booked.push_back((now, starts)),
        }
        self.total = self.total.saturating_add(starts);
        while let Some((_, oldest)) = self.booked.front_mut() {
            let excess = self.total.saturating_sub(keep).min(*oldest);
            if excess == 0 {
                break;
            }
            *oldest -= excess;
            self.total -= excess;
            if *oldest == 0 {
                self.booked.pop_front();
            }
        }
    }

    /// Lets starts leave that no window of this length covers.
    pub fn advance(&mut self, now: Tick, length: Tick) {
        while let Some(&(tick, starts)) = self.booked.front() {
            if tick + length > now {
                break;
            }
            self.total -= starts;
            self.booked.pop_front();
        }
    }

    /// Starts within the last `length` ticks, at most as many as are kept.
    pub fn count(&self, now: Tick, length: Tick) -> u32 {
        let recent = self.booked.iter().rev().take_while(|(tick, _)| tick + length > now);
        recent.map(|(_, starts)| *starts).sum()
    }

    /// When the oldest start leaves a window of this length.
    pub fn next_change(&self, now: Tick, length: Tick) -> Option<Tick> {
        self.booked.iter().map(|(tick, _)| tick + length).find(|leaves| *leaves > now)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.booked.capacity() * size_of::<(Tick, u32)>()
    }
}

/// Exact times of the most recent starts: beacons come at regular intervals.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct StartTimes {
    times: VecDeque<Timestamp>,
}

/// Start times kept of one group.
const MAX_TIMES: usize = 256;

/// Fewer starts than this say nothing about regularity.
const MIN_STARTS: usize = 8;

impl StartTimes {
    /// Adds a start; starts of one tick may come in any order.
    pub fn add(&mut self, start: Timestamp) {
        let later = self.times.iter().rev().take_while(|time| **time > start).count();
        self.times.insert(self.times.len() - later, start);
        if self.times.len() > MAX_TIMES {
            self.times.pop_front();
        }
    }

    /// Forgets starts before a moment.
    pub fn forget_before(&mut self, moment: Timestamp) {
        while self.times.front().is_some_and(|time| *time < moment) {
            self.times.pop_front();
        }
    }

    /// Standard deviation over mean of the times between the starts since a moment; `None` below eight starts.
    pub fn interval_variation(&self, since: Timestamp) -> Option<f64> {
        let starts = || self.times.iter().skip_while(|start| **start < since);
        let count = starts().count();
        if count < MIN_STARTS {
            return None;
        }
        let later = starts().skip(1);
        let intervals = || later.clone().zip(starts()).map(|(later, earlier)| later.since(*earlier).as_secs_f64());
        let count = (count - 1) as f64;
        let mean = intervals().sum::<f64>() / count;
        if mean <= 0.0 {
            return None;
        }
        let variance = intervals().map(|interval| (interval - mean).powi(2)).sum::<f64>() / count;
        Some(variance.sqrt() / mean)
    }

    /// Whether no start is kept.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.times.capacity() * size_of::<Timestamp>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_exact_up_to_the_limit() {
        let mut starts = Starts::default();
        starts.add(1, 3, 5);
        starts.add(4, 2, 5);
        assert_eq!(starts.count(4, 4), 5);
        assert_eq!(starts.count(5, 4), 2, "tick 1 is outside (1, 5]");
        starts.add(5, 9, 5);
        assert_eq!(starts.count(5, 100), 5, "no more than what is kept");
    }

    #[test]
    fn a_beacon_varies_little() {
        let mut times = StartTimes::default();
        for beat in 0..7 {
            times.add(Timestamp::from_secs(beat * 60));
        }
        assert_eq!(times.interval_variation(Timestamp::EPOCH), None, "seven starts say nothing");
        times.add(Timestamp::from_secs(7 * 60));
        assert_eq!(times.interval_variation(Timestamp::EPOCH), Some(0.0));
        times.add(Timestamp::from_secs(7 * 60 + 600));
        assert!(times.interval_variation(Timestamp::EPOCH).unwrap() > 1.0);
        assert_eq!(times.interval_variation(Timestamp::from_secs(120)), None, "six of them are younger");
    }
}
