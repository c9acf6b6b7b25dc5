//! How many different values: an exact decision from the most recent ones.
//!
//! More than `n` different values within a window is exactly "the value seen
//! before the last `n` is still inside": `n + 1` values with the time when
//! each was last seen are enough, however many there are.

use hashbrown::HashTable;

use crate::window::Tick;

/// The most recently seen different values, newest first.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<(u64, Tick)>", into = "Vec<(u64, Tick)>")]
pub struct Recent {
    entries: Vec<Entry>,
    index: HashTable<u32>,
    newest: u32,
    oldest: u32,
    free: u32,
    len: u32,
}

/// A value by its seeded hash: two values that share one are counted once,
/// which nobody can arrange without the seed.
#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    seen: Tick,
    newer: u32,
    older: u32,
}

const NONE: u32 = u32::MAX;

impl From<Vec<(u64, Tick)>> for Recent {
    /// From values and when each was last seen, oldest first.
    fn from(entries: Vec<(u64, Tick)>) -> Self {
        let mut recent = Self::default();
        for (hash, seen) in entries {
            recent.add(seen, hash, NONE);
        }
        recent
    }
}

impl From<Recent> for Vec<(u64, Tick)> {
    fn from(recent: Recent) -> Self {
        recent.entries().collect()
    }
}

impl Recent {
    /// Notes a value at a tick, which is not before the last one; whether it is
    /// new. Keeps at most `keep` values.
    pub fn add(&mut self, now: Tick, hash: u64, keep: u32) -> bool {
        if self.entries.is_empty() {
            (self.newest, self.oldest, self.free) = (NONE, NONE, NONE);
        }
        let entries = &self.entries;
        if let Some(&at) = self.index.find(hash, |&at| entries[at as usize].hash == hash) {
            self.entries[at as usize].seen = now;
            if self.newest != at {
                self.unlink(at);
                self.link_newest(at);
            }
            return false;
        }
        if self.len >= keep.max(1) {
            self.remove_oldest();
        }
        let entry = Entry { hash, seen: now, newer: NONE, older: NONE };
        let at = match self.free {
            NONE => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
            }
            free => {
                self.free = self.entries[free as usize].older;
                self.entries[free as usize] = entry;
                free
            }
        };
        let entries = &self.entries;
        self.index.insert_unique(hash, at, |&other| entries[other as usize].hash);
        self.link_newest(at);
        self.len += 1;
        true
    }

    /// Lets values leave that were last seen before the window of this length.
    pub fn advance(&mut self, now: Tick, length: Tick) {
        while self.len > 0 && self.entries[self.oldest as usize].seen + length <= now {
            self.remove_oldest();
        }
    }

    /// The values that are kept and when each was last seen, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Tick)> {
        let first = if self.len == 0 { NONE } else { self.oldest };
        let places = std::iter::successors((first != NONE).then_some(first), |&at| {
            let newer = self.entries[at as usize].newer;
            (newer != NONE).then_some(newer)
        });
        places.map(|at| (self.entries[at as usize].hash, self.entries[at as usize].seen))
    }

    /// How many values are kept.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no value is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When the oldest value leaves a window of this length.
    pub fn next_change(&self, length: Tick) -> Option<Tick> {
        (self.len > 0).then(|| self.entries[self.oldest as usize].seen + length)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.index.capacity() * 5
    }

    fn remove_oldest(&mut self) {
        let at = self.oldest;
        if at == NONE || self.len == 0 {
            return;
        }
        self.unlink(at);
        let hash = self.entries[at as usize].hash;
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == at) {
            entry.remove();
        }
        self.entries[at as usize].older = self.free;
        self.free = at;
        self.len -= 1;
    }

    fn unlink(&mut self, at: u32) {
        let Entry { newer, older, .. } = self.entries[at as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        (entry.newer, entry.older) = (NONE, self.newest);
        match self.newest {
            NONE => self.oldest = at,
            newest => self.entries[newest as usize].newer = at,
        }
        self.newest = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_once_and_as_long_as_it_is_seen() {
        let mut recent = Recent::default();
        for (tick, value) in [(1, 10), (2, 20), (3, 10), (4, 30)] {
            recent.add(tick, value, 100);
        }
        recent.advance(4, 10);
        assert_eq!(recent.len(), 3);
        recent.advance(12, 10);
        assert_eq!(recent.len(), 2, "20 was last seen at 2, 10 at 3");
        recent.advance(14, 10);
        assert!(recent.is_empty());
    }

    #[test]
    fn memory_follows_the_limit() {
        let mut recent = Recent::default();
        for value in 0..100_000 {
            recent.add(value / 1_000, value, 11);
        }
        assert_eq!(recent.len(), 11);
        assert!(recent.heap_bytes() < 1_000);
    }
}
