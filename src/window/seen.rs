//! What was seen before, exactly: fingerprints with the time when each was last seen.
//!
//! Sixteen bytes an entry. No filter with false positives: one of those would
//! hide a new destination. When the table is full the entries leave that were
//! not seen for longest, many at once, so that a flood of new values costs
//! each of them little.

use hashbrown::HashTable;

use crate::window::Tick;

/// Fingerprints and when each was last seen; bounded.
#[derive(Debug)]
pub struct Seen {
    entries: HashTable<(u64, Tick)>,
    most: usize,
    pushed_out: u64,
}

/// Entries held at once: what a table of 2^20 places takes, 17 MiB.
pub const MAX_SEEN: usize = (1 << 20) / 8 * 7;

/// The part of a full table that leaves at once.
const PART: usize = 16;

impl Default for Seen {
    fn default() -> Self {
        Self::new(MAX_SEEN)
    }
}

impl Seen {
    /// An empty table.
    pub fn new(most: usize) -> Self {
        Self { entries: HashTable::new(), most: most.max(PART), pushed_out: 0 }
    }

    /// Notes a fingerprint at a tick; whether it was not seen within `lookback` ticks before.
    pub fn note(&mut self, fingerprint: u64, now: Tick, lookback: Tick) -> bool {
        let same = |entry: &(u64, Tick)| entry.0 == fingerprint;
        if let Some(entry) = self.entries.find_mut(spread(fingerprint), same) {
            let is_new = entry.1.saturating_add(lookback) <= now;
            entry.1 = entry.1.max(now);
            return is_new;
        }
        self.insert(fingerprint, now);
        true
    }

    /// Takes over an entry of an earlier run.
    pub fn insert(&mut self, fingerprint: u64, seen: Tick) {
        if self.entries.len() >= self.most {
            self.push_out_oldest();
        }
        self.entries.insert_unique(spread(fingerprint), (fingerprint, seen), |entry| spread(entry.0));
    }

    /// Forgets what was last seen before a tick.
    pub fn forget_before(&mut self, tick: Tick) {
        self.keep(|entry| entry.1 >= tick);
    }

    /// Every entry, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Tick)> {
        self.entries.iter().copied()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that left early because the table was full, as a running total.
    pub fn pushed_out(&self) -> u64 {
        self.pushed_out
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * 8 / 7 * (size_of::<(u64, Tick)>() + 1)
    }

    fn push_out_oldest(&mut self) {
        let mut times: Vec<Tick> = self.entries.iter().map(|entry| entry.1).collect();
        let leaving = (times.len() / PART).max(1);
        let (_, youngest_to_leave, _) = times.select_nth_unstable(leaving - 1);
        let youngest_to_leave = *youngest_to_leave;
        // Entries of one tick are alike: as many leave as must.
        let mut left = leaving;
        self.keep(|entry| {
            let leaves = left > 0 && entry.1 <= youngest_to_leave;
            left -= usize::from(leaves);
            !leaves
        });
        self.pushed_out += leaving as u64;
    }

    /// Keeps some entries. The table is filled anew: places that entries leave
    /// one by one count as taken, and would make it grow beyond its bound.
    fn keep(&mut self, stays: impl FnMut(&(u64, Tick)) -> bool) {
        let kept: Vec<(u64, Tick)> = self.entries.drain().filter(stays).collect();
        for entry in kept {
            self.entries.insert_unique(spread(entry.0), entry, |entry| spread(entry.0));
        }
    }
}

/// Fingerprints of ours are fair already; the table wants bits at both ends.
fn spread(fingerprint: u64) -> u64 {
    fingerprint ^ fingerprint.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_new_again_after_the_lookback() {
        let mut seen = Seen::new(100);
        assert!(seen.note(1, 10, 50));
        assert!(!seen.note(1, 59, 50), "seen 49 ticks ago");
        assert!(!seen.note(1, 108, 50), "and again");
        assert!(seen.note(1, 158, 50), "50 ticks ago is outside");
        seen.forget_before(158);
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_stays_small() {
        let mut seen = Seen::new(1_600);
        for value in 0..1_600 {
            seen.note(value, value, 10_000);
        }
        for value in 1_600..100_000u64 {
            assert!(seen.note(value, value, 1_000_000));
            assert!(!seen.note(value - 500, value, 1_000_000), "the younger ones stay");
        }
        assert!(seen.len() <= 1_600);
        assert!(seen.note(0, 100_000, 1_000_000), "the oldest has left");
        assert!(seen.pushed_out() > 90_000);
        assert!(seen.heap_bytes() <= 2_048 * 17, "{}", seen.heap_bytes());
    }

    #[test]
    fn a_million_entries_take_seventeen_mebibytes() {
        let mut seen = Seen::default();
        for value in 0..MAX_SEEN as u64 + 10 {
            seen.note(value.wrapping_mul(0x9e37_79b9_7f4a_7c15), 5, 100);
        }
        assert!(seen.len() <= MAX_SEEN && seen.pushed_out() > 0);
        assert!(seen.heap_bytes() <= 17 << 20, "{}", seen.heap_bytes());
    }
}
