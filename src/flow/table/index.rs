//! The numbers of entries by the hash of their key.
//!
//! A look-up reads one line of the cache, whose place the hash alone tells, so
//! that it can be fetched long before it is needed. The tables of hashbrown need
//! two, the second of which is not known before the first is read: of a hundred
//! thousand flows in any order, that wait was the dearest part of a packet.

use crate::memory::prefetch;

/// Entries by hash. Several may have one hash.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two, or none.
    lines: Vec<Line>,
    len: usize,
}

/// One line of the cache.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Line {
    /// A few bits of each entry's hash, 0 where there is none.
    tags: [u8; ENTRIES],
    /// Entries that belong here or before, and stand in a later line.
    passed: u32,
    entries: [u32; ENTRIES],
}

const ENTRIES: usize = 12;

const _: () = assert!(size_of::<Line>() == 64, "a look-up touches one line");

impl Index {
    /// Has the line fetched that a hash leads to.
    #[inline]
    pub(super) fn fetch(&self, hash: u64) {
        if let Some(line) = self.lines.get(self.home(hash)) {
            prefetch(line);
        }
    }

    /// An entry that probably has this hash, looked for in one line only.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        let line = self.lines.get(self.home(hash))?;
        line.entries.get(line.tagged(tag_of(hash)).trailing_zeros() as usize / u8::BITS as usize).copied()
    }

    /// The entries that may have this hash.
    #[inline]
    pub(super) fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let tag = tag_of(hash);
        self.lines_of(hash).flat_map(move |line| {
            let mut tagged = line.tagged(tag);
            std::iter::from_fn(move || {
                let place = tagged.trailing_zeros() / u8::BITS;
                tagged &= tagged.wrapping_sub(1);
                line.entries.get(place as usize).copied()
            })
        })
    }

    /// Whether there is no room for a further number until it grows.
    pub(super) fn is_full(&self) -> bool {
        (self.len + 1) * 4 > self.lines.len() * ENTRIES * 3
    }

    /// Makes room; `all` are the numbers that are there, with their hashes.
    ///
    /// They are given in the order in which they lie in memory: looking them up in the order of this index would wait
    /// for each.
    pub(super) fn grow(&mut self, all: impl Iterator<Item = (u64, u32)>) {
        self.lines = vec![Line::default(); (self.lines.len() * 2).max(1)];
        all.for_each(|(hash, number)| self.put(hash, number));
    }

    /// Enters a number that is not there, where there is room.
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        self.put(hash, number);
        self.len += 1;
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        let (tag, home, mask) = (tag_of(hash), self.home(hash), self.lines.len().wrapping_sub(1));
        let holds = |line: &Line| line.place_of(tag, number);
        let Some((distance, place)) =
            self.lines_of(hash).map(holds).enumerate().find_map(|(at, place)| Some((at, place?)))
        else {
            return;
        };
        for passed in 0..distance {
            self.lines[(home + passed) & mask].passed -= 1;
        }
        self.lines[(home + distance) & mask].tags[place] = 0;
        self.len -= 1;
    }

    fn put(&mut self, hash: u64, number: u32) {
        let (mut at, mask) = (self.home(hash), self.lines.len().wrapping_sub(1));
        loop {
            let line = &mut self.lines[at];
            if let Some(place) = line.tags.iter().position(|tag| *tag == 0) {
                line.tags[place] = tag_of(hash);
                line.entries[place] = number;
                return;
            }
            line.passed += 1;
            at = (at + 1) & mask;
        }
    }

    /// The lines in which an entry of this hash may stand.
    #[inline]
    fn lines_of(&self, hash: u64) -> impl Iterator<Item = &Line> {
        let (home, mask) = (self.home(hash), self.lines.len().wrapping_sub(1));
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let distance = next?;
            let line = self.lines.get((home + distance) & mask)?;
            next = (line.passed > 0 && distance < mask).then_some(distance + 1);
            Some(line)
        })
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.lines.len().wrapping_sub(1)
    }
}

impl Line {
    /// The places whose tag this is: the highest bit of the eight that each has.
    #[inline]
    fn tagged(&self, tag: u8) -> u128 {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.tags;
        let tags = u128::from_le_bytes([a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 0]);
        let differing = tags ^ (EACH * u128::from(tag));
        !(((differing & LOW) + LOW) | differing | LOW)
    }

    fn place_of(&self, tag: u8, number: u32) -> Option<usize> {
        self.tags.iter().zip(&self.entries).position(|entry| entry == (&tag, &number))
    }
}

/// Never 0, and of other bits than the line.
#[inline]
fn tag_of(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(1)
}

/// A bit of each octet, and all but the highest of each.
const EACH: u128 = u128::MAX / 0xff;
const LOW: u128 = EACH * 0x7f;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hashes of few values, so that lines fill and tags are alike.
        #[test]
        fn it_holds_what_a_plain_map_holds(steps in prop::collection::vec((any::<bool>(), 0..400_u32), 0..800), spread in 1..64_u64) {
            let hash = |number: u32| (u64::from(number) % spread).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut index = Index::default();
            let mut plain = BTreeMap::new();
            for (enters, number) in steps {
                match (enters, plain.contains_key(&number)) {
                    (true, false) => {
                        if index.is_full() {
                            index.grow(plain.iter().map(|(number, hash)| (*hash, *number)));
                        }
                        index.insert(hash(number), number);
                        plain.insert(number, hash(number));
                    }
                    (false, true) => {
                        index.remove(hash(number), number);
                        plain.remove(&number);
                    }
                    (false, false) => index.remove(hash(number), number),
                    (true, true) => {}
                }
                prop_assert_eq!(index.len, plain.len());
            }
            for number in 0..400 {
                let found = index.candidates(hash(number)).filter(|other| *other == number).count();
                prop_assert_eq!(found, usize::from(plain.contains_key(&number)));
            }
            plain.iter().for_each(|(number, hash)| index.remove(*hash, *number));
            prop_assert!(index.lines.iter().all(|line| line.passed == 0 && line.tags == [0; ENTRIES]));
        }
    }

    #[test]
    fn what_is_likely_is_mostly_right() {
        let hash = |number: u32| foldhash::quality::FixedState::default().hash_one(number);
        let mut index = Index::default();
        assert_eq!(index.likely(hash(1)), None);
        for number in 0..100_000 {
            if index.is_full() {
                index.grow((0..number).map(|number| (hash(number), number)));
            }
            index.insert(hash(number), number);
        }
        let right = (0..100_000).filter(|number| index.likely(hash(*number)) == Some(*number)).count();
        assert!(right > 95_000, "{right}");
    }

    use std::hash::BuildHasher;
}
