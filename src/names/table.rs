//! Which names DNS answers bound to an address, for whom, and for how long.
//!
//! A process is given what it learnt itself; what others learnt is for those
//! that learnt nothing about the address. Bounded: the names of an address
//! form a chain of limited length, and when the table is full, names that
//! have run out go first, then those that no flow asked for.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::attribution::ProcessKey;
use crate::packet::Address;
use crate::time::Timestamp;

/// Names by address, most recent first.
#[derive(Debug)]
pub struct NameTable {
    /// Numbers of the most recent entry of each address.
    heads: HashTable<u32>,
    entries: Vec<Entry>,
    hasher: RandomState,
    limit: usize,
    hand: usize,
    counts: NameCounts,
}

/// What the table holds and what its bounds cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct NameCounts {
    /// Names that are held.
    pub held: u64,
    /// Names that were learnt.
    pub learnt: u64,
    /// Names that gave way because the table was full.
    pub evicted: u64,
    /// Names that gave way because their address had too many.
    pub crowded_out: u64,
}

/// A name that an answer bound to an address.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The address.
    pub address: Address,
    /// The name, in the one spelling.
    pub name: Arc<str>,
    /// Who asked, where that is known.
    pub owner: Option<ProcessKey>,
    /// Until when it counts.
    pub expires: Timestamp,
    /// Whether the question was seen, too. An answer that nobody asked for names, but confirms nothing.
    pub asked: bool,
}

#[derive(Debug)]
struct Entry {
    address: Address,
    name: Arc<str>,
    owner: u64,
    /// Seconds since the epoch.
    expires: u32,
    /// The next older entry of the same address.
    next: u32,
    asked: bool,
    /// Whether a flow asked for it since the hand passed.
    used: bool,
}

impl NameTable {
    /// An empty table of at most `limit` names.
    pub fn new(limit: usize) -> Self {
        Self {
            heads: HashTable::new(),
            entries: Vec::new(),
            hasher: RandomState::default(),
            limit: limit.clamp(1, NOTHING as usize),
            hand: 0,
            counts: NameCounts::default(),
        }
    }

    /// What it holds, and what its bounds cost so far.
    pub fn counts(&self) -> NameCounts {
        NameCounts { held: self.entries.len() as u64, ..self.counts }
    }

    /// Takes in what an answer says.
    pub fn learn(&mut self, binding: &Binding) {
        self.counts.learnt += 1;
        let owner = self.owner_number(binding.owner);
        let expires = seconds(binding.expires);
        let mut length = 0;
        let (mut previous, mut at) = (NOTHING, self.head(binding.address));
        while let Some(entry) = self.entries.get_mut(at as usize) {
            if entry.owner == owner && entry.name == binding.name {
                entry.expires = entry.expires.max(expires);
                entry.asked |= binding.asked;
                self.move_to_front(at, previous);
                return;
            }
            length += 1;
            if length >= MAX_NAMES_OF_ADDRESS && entry.next == NOTHING {
                self.counts.crowded_out += 1;
                self.remove(at);
                break;
            }
            (previous, at) = (at, entry.next);
        }
        if self.entries.len() >= self.limit {
            self.evict(binding.expires);
        }
        self.insert(binding, owner, expires);
    }

    /// The name of an address for a process, which is its own where it learnt one.
    pub fn name(&mut self, address: Address, owner: Option<ProcessKey>, now: Timestamp) -> Option<Arc<str>> {
        if self.entries.is_empty() {
            return None;
        }
        let at = self.best(address, owner, now, None)?;
        let entry = self.entries.get_mut(at as usize)?;
        entry.used = true;
        Some(Arc::clone(&entry.name))
    }

    /// Whether an answer bound `name` to the address for this process; another process's answer
    /// counts only for one that learnt nothing itself.
    pub fn confirms(&self, address: Address, owner: Option<ProcessKey>, name: &str, now: Timestamp) -> bool {
        self.best(address, owner, now, Some(name)).is_some()
    }

    /// The most recent entry that counts, of that name where one is given.
    fn best(&self, address: Address, owner: Option<ProcessKey>, now: Timestamp, name: Option<&str>) -> Option<u32> {
        let now = seconds(now);
        let own = owner.map(|owner| self.owner_number(Some(owner)));
        let (mut learnt_itself, mut of_others, mut unasked) = (false, None, None);
        let mut at = self.head(address);
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.expires >= now {
                let fits = name.is_none_or(|name| *entry.name == *name);
                match entry.asked {
                    true if own == Some(entry.owner) => {
                        if fits {
                            return Some(at);
                        }
                        learnt_itself = true;
                    }
                    true if fits && of_others.is_none() => of_others = Some(at),
                    false if fits && name.is_none() && unasked.is_none() => unasked = Some(at),
                    _ => {}
                }
            }
            at = entry.next;
        }
        if learnt_itself { None } else { of_others.or(unasked) }
    }

    fn head(&self, address: Address) -> u32 {
        let found = self.heads.find(self.hasher.hash_one(address), |at| self.is_of(*at, address));
        found.copied().unwrap_or(NOTHING)
    }

    fn is_of(&self, at: u32, address: Address) -> bool {
        self.entries.get(at as usize).is_some_and(|entry| entry.address == address)
    }

    fn owner_number(&self, owner: Option<ProcessKey>) -> u64 {
        owner.map_or(0, |owner| self.hasher.hash_one(owner) | 1)
    }

    fn insert(&mut self, binding: &Binding, owner: u64, expires: u32) {
        let Ok(at) = u32::try_from(self.entries.len()) else { return };
        let next = self.head(binding.address);
        self.entries.push(Entry {
            address: binding.address,
            name: Arc::clone(&binding.name),
            owner,
            expires,
            next,
            asked: binding.asked,
            used: false,
        });
        self.set_head(binding.address, at);
    }

    /// Makes `at` the first entry of an address; [`NOTHING`] forgets the address.
    fn set_head(&mut self, address: Address, at: u32) {
        let (entries, hasher) = (&self.entries, &self.hasher);
        let of = |at: &u32| entries.get(*at as usize).map(|entry| entry.address);
        let hash = hasher.hash_one(address);
        match self.heads.find_entry(hash, |head| of(head) == Some(address)) {
            Ok(place) if at == NOTHING => drop(place.remove()),
            Ok(mut place) => *place.get_mut() = at,
            Err(_) if at == NOTHING => {}
            Err(_) => {
                self.heads.insert_unique(hash, at, |head| of(head).map_or(0, |address| hasher.hash_one(address)));
            }
        }
    }

    fn move_to_front(&mut self, at: u32, previous: u32) {
        if previous == NOTHING {
            return;
        }
        let Some((address, next)) = self.entries.get(at as usize).map(|entry| (entry.address, entry.next)) else {
            return;
        };
        if let Some(before) = self.entries.get_mut(previous as usize) {
            before.next = next;
        }
        let head = self.head(address);
        if let Some(entry) = self.entries.get_mut(at as usize) {
            entry.next = head;
        }
        self.set_head(address, at);
    }

    /// Makes room for one: a name that has run out or that no flow asked for, near the hand.
    fn evict(&mut self, now: Timestamp) {
        let now = seconds(now);
        for _ in 0..MAX_EVICTION_STEPS {
            self.hand = (self.hand + 1) % self.entries.len();
            match self.entries.get_mut(self.hand) {
                Some(entry) if entry.used && entry.expires >= now => entry.used = false,
                _ => break,
            }
        }
        self.counts.evicted += 1;
        self.remove(u32::try_from(self.hand).unwrap_or_default());
    }

    /// Removes an entry; the last one takes its number.
    fn remove(&mut self, at: u32) {
        let Some((address, next)) = self.entries.get(at as usize).map(|entry| (entry.address, entry.next)) else {
            return;
        };
        self.replace_link(address, at, next);
        let last = u32::try_from(self.entries.len() - 1).unwrap_or_default();
        if last != at
            && let Some(moved) = self.entries.get(last as usize).map(|entry| entry.address)
        {
            self.replace_link(moved, last, at);
        }
        self.entries.swap_remove(at as usize);
    }

    /// Lets whatever leads to entry `from` of an address lead to `to`.
    fn replace_link(&mut self, address: Address, from: u32, to: u32) {
        let mut at = self.head(address);
        if at == from {
            // The address of `to` is not compared here: it may be about to move into place.
            let hash = self.hasher.hash_one(address);
            if let Ok(mut place) = self.heads.find_entry(hash, |head| *head == from) {
                match to {
                    NOTHING => drop(place.remove()),
                    to => *place.get_mut() = to,
                }
            }
            return;
        }
        while let Some(entry) = self.entries.get_mut(at as usize) {
            if entry.next == from {
                entry.next = to;
                return;
            }
            at = entry.next;
        }
    }
}

fn seconds(moment: Timestamp) -> u32 {
    u32::try_from(moment.as_secs().max(0)).unwrap_or(u32::MAX)
}

/// For how long a binding counts: its time to live within reason, and a grace
/// for connections that are opened from an application's own cache.
pub(super) fn lifetime(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(ttl)).min(MAX_TTL) + GRACE
}

/// No entry.
const NOTHING: u32 = u32::MAX;

/// Names that one address can have at once, over all processes.
const MAX_NAMES_OF_ADDRESS: usize = 64;

/// How far the hand moves for one eviction.
const MAX_EVICTION_STEPS: usize = 32;

const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
const GRACE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const ALICE: Option<ProcessKey> = Some(ProcessKey { pid: 10, start: 1 });
    const BOB: Option<ProcessKey> = Some(ProcessKey { pid: 20, start: 2 });
    const CAROL: Option<ProcessKey> = Some(ProcessKey { pid: 30, start: 3 });

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn address(number: u32) -> Address {
        Address::from_v4(number.to_be_bytes())
    }

    fn binding(number: u32, name: &str, owner: Option<ProcessKey>) -> Binding {
        Binding { address: address(number), name: name.into(), owner, expires: at(100), asked: true }
    }

    #[test]
    fn a_process_gets_its_own_name_and_others_what_is_known() {
        let mut table = NameTable::new(10);
        table.learn(&binding(1, "a.example", ALICE));
        table.learn(&binding(1, "b.example", BOB));
        assert_eq!(table.name(address(1), ALICE, at(1)).as_deref(), Some("a.example"));
        assert_eq!(table.name(address(1), BOB, at(1)).as_deref(), Some("b.example"));
        assert_eq!(table.name(address(1), CAROL, at(1)).as_deref(), Some("b.example"));
        assert_eq!(table.name(address(1), None, at(1)).as_deref(), Some("b.example"));
        assert!(table.confirms(address(1), ALICE, "a.example", at(1)));
        assert!(!table.confirms(address(1), ALICE, "b.example", at(1)));
        assert!(table.confirms(address(1), CAROL, "a.example", at(1)));
        assert!(!table.confirms(address(2), CAROL, "a.example", at(1)));
    }

    #[test]
    fn a_name_runs_out_and_an_answer_renews_it() {
        let mut table = NameTable::new(10);
        table.learn(&binding(1, "a.example", None));
        assert!(table.name(address(1), None, at(100)).is_some());
        assert!(table.name(address(1), None, at(101)).is_none());
        table.learn(&Binding { expires: at(200), ..binding(1, "a.example", None) });
        assert!(table.name(address(1), None, at(200)).is_some());
        assert_eq!(table.counts().held, 1);
    }

    #[test]
    fn an_answer_that_nobody_asked_for_names_but_confirms_nothing() {
        let mut table = NameTable::new(10);
        table.learn(&Binding { asked: false, ..binding(1, "bank.example", None) });
        assert_eq!(table.name(address(1), ALICE, at(1)).as_deref(), Some("bank.example"));
        assert!(!table.confirms(address(1), ALICE, "bank.example", at(1)));
        table.learn(&binding(1, "evil.example", ALICE));
        table.learn(&Binding { asked: false, ..binding(1, "bank.example", None) });
        assert_eq!(table.name(address(1), BOB, at(1)).as_deref(), Some("evil.example"));
    }

    #[test]
    fn bounds_hold_and_are_counted() {
        let mut table = NameTable::new(100);
        for number in 0..70 {
            table.learn(&binding(1, &format!("n{number}.example"), None));
        }
        assert_eq!(table.counts(), NameCounts { held: 64, learnt: 70, evicted: 0, crowded_out: 6 });
        for number in 2..202 {
            // A name that a flow asked for outlives those that none did.
            table.name(address(1), None, at(1));
            table.learn(&binding(number, "x.example", None));
        }
        assert_eq!(table.counts().held, 100);
        assert_eq!(table.counts().evicted, 164);
        assert_eq!(table.name(address(1), None, at(1)).as_deref(), Some("n69.example"));
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(steps in proptest::collection::vec((0u32..6, 0u32..5, 0u32..3), 0..80)) {
            let mut table = NameTable::new(1000);
            let mut plain: HashMap<(u32, u32), Vec<String>> = HashMap::new();
            let mut recent: HashMap<u32, String> = HashMap::new();
            for (number, name, owner) in steps {
                let key = Some(ProcessKey { pid: owner, start: 9 });
                let name = format!("n{name}");
                table.learn(&binding(number, &name, key));
                let names = plain.entry((number, owner)).or_default();
                names.retain(|known| *known != name);
                names.push(name.clone());
                recent.insert(number, name);
                for number in 0..6 {
                    for owner in 0..3 {
                        let key = Some(ProcessKey { pid: owner, start: 9 });
                        let own = plain.get(&(number, owner)).and_then(|names| names.last());
                        let expected = own.or(recent.get(&number)).map(String::as_str);
                        let found = table.name(address(number), key, at(1));
                        prop_assert_eq!(found.as_deref(), expected);
                    }
                }
            }
        }

        #[test]
        fn chains_stay_whole_under_eviction(steps in proptest::collection::vec((0u32..40, 0u32..5), 0..150)) {
            let mut table = NameTable::new(16);
            for (number, name) in steps {
                let name = format!("n{name}");
                table.learn(&binding(number, &name, ALICE));
                let found = table.name(address(number), ALICE, at(1));
                prop_assert_eq!(found.as_deref(), Some(name.as_str()));
                let mut reached = 0;
                for number in 0..40 {
                    let mut at = table.head(address(number));
                    while let Some(entry) = table.entries.get(at as usize) {
                        prop_assert_eq!(entry.address, address(number));
                        reached += 1;
                        at = entry.next;
                    }
                }
                prop_assert_eq!(reached, table.entries.len());
                prop_assert!(reached <= 16);
            }
        }
    }
}
