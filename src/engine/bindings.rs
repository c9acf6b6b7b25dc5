//! The groups that flows belong to, once for all flows that belong to the same ones.
//!
//! What a rule set makes of a flow seldom changes, and many flows share it: a
//! flow keeps a number. Invariant: a number stands for the same groups for as long as a flow keeps it.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::watch::Bound;

/// Groups by number.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    sets: Vec<Set>,
    index: HashTable<u32>,
    free: Vec<u32>,
    hasher: foldhash::fast::RandomState,
}

/// A number of [`Bindings`]; the default stands for no groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Binding(pub(super) u32);

/// The groups of one flow: one of each rule that looks at it.
pub(super) type Groups = SmallVec<[Bound; 1]>;

#[derive(Debug)]
struct Set {
    groups: Groups,
    /// Flows that keep its number.
    flows: u32,
}

impl Bindings {
    /// The number of these groups, for one more flow to keep.
    pub(super) fn acquire(&mut self, groups: Groups) -> Binding {
        if groups.is_empty() {
            return Binding::default();
        }
        let hash = hash_of(&self.hasher, &groups);
        if let Some(&place) = self.index.find(hash, |&place| self.sets[place as usize].groups == groups) {
            self.sets[place as usize].flows += 1;
            return Binding(place + 1);
        }
        let set = Set { groups, flows: 1 };
        let place = match self.free.pop() {
            Some(place) => {
                self.sets[place as usize] = set;
                place
            }
            None => {
                self.sets.push(set);
                u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let Self { index, sets, hasher, .. } = self;
        index.insert_unique(hash, place, |&other| hash_of(hasher, &sets[other as usize].groups));
        Binding(place + 1)
    }

    /// One flow no longer keeps the number.
    pub(super) fn release(&mut self, binding: Binding) {
        let Some(place) = binding.0.checked_sub(1) else { return };
        let Some(set) = self.sets.get_mut(place as usize) else { return };
        set.flows = set.flows.saturating_sub(1);
        if set.flows > 0 {
            return;
        }
        let hash = hash_of(&self.hasher, &set.groups);
        if let Ok(found) = self.index.find_entry(hash, |&other| other == place) {
            found.remove();
            self.sets[place as usize].groups = Groups::new();
            self.free.push(place);
        }
    }

    /// The groups of a number.
    #[inline]
    pub(super) fn groups(&self, binding: Binding) -> &[Bound] {
        let place = binding.0.wrapping_sub(1) as usize;
        self.sets.get(place).map_or(&[], |set| &set.groups)
    }

    /// Forgets every number: the rules have changed.
    pub(super) fn clear(&mut self) {
        self.sets.clear();
        self.index.clear();
        self.free.clear();
    }
}

fn hash_of(hasher: &foldhash::fast::RandomState, groups: &[Bound]) -> u64 {
    hasher.hash_one(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::watch::Bound;

    #[test]
    fn a_number_is_given_again_only_when_no_flow_keeps_it() {
        let groups = |watch| Groups::from_iter([Bound::of_watch(watch)]);
        let mut bindings = Bindings::default();
        let one = bindings.acquire(groups(1));
        assert_eq!(bindings.acquire(groups(1)), one, "two flows of the same groups");
        let other = bindings.acquire(groups(2));
        assert_ne!(other, one);
        bindings.release(one);
        assert_eq!(bindings.groups(one), &groups(1)[..], "one flow keeps it");
        bindings.release(one);
        assert!(bindings.groups(one).is_empty());
        assert_eq!(bindings.acquire(groups(3)), one);
        assert_eq!(bindings.acquire(Groups::new()), Binding::default());
        assert!(bindings.groups(Binding::default()).is_empty());
    }
}
