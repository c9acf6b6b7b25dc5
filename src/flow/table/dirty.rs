//! The entries that have something for the next tick.
//!
//! Most have a tag, and for those the order in which a tick takes them changes
//! nothing: they are bits, taken in the order of the entries, which lie one
//! after the other in memory and come from there twice as fast as in the order
//! of their packets. The others are few, and keep that order.

use super::hot::{DIRTY, Hot, TAGGED};

/// Entries by number.
#[derive(Debug)]
pub(super) struct Dirty {
    /// One bit for each entry that had a tag.
    tagged: Vec<u64>,
    /// The first word that may have a bit; [`usize::MAX`] where none has one.
    first: usize,
    others: Vec<u32>,
    /// Of `others`, how many were taken.
    taken: usize,
}

impl Default for Dirty {
    fn default() -> Self {
        Self { tagged: Vec::new(), first: usize::MAX, others: Vec::new(), taken: 0 }
    }
}

impl Dirty {
    /// Notes that an entry has something, if that is new.
    #[inline]
    pub(super) fn mark(&mut self, index: u32, hot: &mut Hot) {
        if !hot.has(TAGGED) {
            if !hot.has(DIRTY) {
                hot.flags |= DIRTY;
                self.others.push(index);
            }
            return;
        }
        // The same whether it stands here already: which does is not to be foreseen, and a branch would cost more.
        hot.flags |= DIRTY;
        let (word, bit) = (index as usize / BITS, index as usize % BITS);
        if word >= self.tagged.len() {
            self.tagged.resize((word + 1).next_power_of_two(), 0);
        }
        if let Some(word) = self.tagged.get_mut(word) {
            *word |= 1 << bit;
        }
        self.first = self.first.min(word);
    }

    /// Whether nothing has anything.
    pub(super) fn is_empty(&self) -> bool {
        self.first == usize::MAX && self.others.is_empty()
    }

    /// Takes some entries, those with a tag first; gives their number, 0 at the end.
    pub(super) fn take(&mut self, entries: &mut [u32]) -> usize {
        let mut count = 0;
        let mut rooms = entries.iter_mut();
        while let Some(word) = self.tagged.get_mut(self.first) {
            while *word != 0 {
                let Some(room) = rooms.next() else { return count };
                *room = (self.first * BITS) as u32 + word.trailing_zeros();
                *word &= *word - 1;
                count += 1;
            }
            self.first += 1;
        }
        self.first = usize::MAX;
        for room in rooms {
            let Some(&index) = self.others.get(self.taken) else { break };
            (*room, self.taken, count) = (index, self.taken + 1, count + 1);
        }
        if self.taken == self.others.len() {
            self.others.clear();
            self.taken = 0;
        }
        count
    }
}

const BITS: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowKey;
    use crate::flow::table::OwnerSlot;

    #[test]
    fn each_is_taken_once_the_tagged_ones_by_number_and_the_others_in_order() {
        let mut dirty = Dirty::default();
        let entry = |flags| Hot::new(&FlowKey::default(), OwnerSlot::default(), flags);
        for (index, flags) in [(700, TAGGED), (9, 0), (3, TAGGED), (64, TAGGED), (2, 0), (65, TAGGED)] {
            let mut hot = entry(flags);
            dirty.mark(index, &mut hot);
            dirty.mark(index, &mut hot);
            assert!(hot.has(DIRTY));
        }
        let mut taken = Vec::new();
        let mut room = [0; 4];
        loop {
            let count = dirty.take(&mut room);
            if count == 0 {
                break;
            }
            taken.extend_from_slice(&room[..count]);
        }
        assert_eq!(taken, [3, 64, 65, 700, 9, 2]);
        assert!(dirty.is_empty());
        dirty.mark(64, &mut entry(TAGGED));
        assert!(!dirty.is_empty());
        assert_eq!((dirty.take(&mut room), room[0]), (1, 64));
        assert_eq!(dirty.take(&mut room), 0);
        assert!(dirty.is_empty());
    }
}
