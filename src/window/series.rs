//! The groups of one slice of traffic, each with its gauges; bounded.
//!
//! When the series is full the lightest group leaves, and a newcomer inherits
//! the largest sums that left within the window as a possible error
//! (Space-Saving, Metwally et al. 2005, made to slide).
//! A group with more than one part in `max_groups` of the bytes is certain to
//! be held, whatever keys an attacker invents. Pinned groups (those that fire)
//! never leave.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use hashbrown::HashTable;

use crate::window::{Addition, Gauges, Layout, Span, Tick, WindowRef};

/// Groups by key. `X` is what the rules keep with a group.
#[derive(Debug)]
pub struct Series<K, X> {
    layout: Layout,
    max_groups: usize,
    groups: Vec<Slot<K, X>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// The lightest groups first; kept only once the series is full. A weight
    /// in it may be out of date, and is looked at again when it comes up.
    lightest: BinaryHeap<Reverse<(u64, GroupId)>>,
    /// When to look whether a group is empty.
    expiry: BTreeMap<Tick, Vec<GroupId>>,
    evicted: Evicted,
    weighed_at: Tick,
    heap_bytes: usize,
    statistics: SeriesStatistics,
}

/// One generation of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    slot: u32,
    serial: u32,
}

/// A group.
#[derive(Debug)]
pub struct Group<K, X> {
    /// What names it.
    pub key: K,
    /// What is measured.
    pub gauges: Gauges,
    /// What the rules keep with it.
    pub extension: X,
    error: Option<Box<Inherited>>,
    pins: u32,
}

/// What the series did, as running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct SeriesStatistics {
    /// Groups held at this moment.
    pub groups: usize,
    /// Groups that left early because the series was full.
    pub evicted: u64,
    /// Groups that did not fit because every other was pinned.
    pub refused: u64,
}

#[derive(Debug)]
struct Slot<K, X> {
    serial: u32,
    group: Option<Group<K, X>>,
}

/// The most by which a group's own sums may be too low: it may have been here
/// before and have been evicted.
#[derive(Debug)]
struct Inherited {
    at: Tick,
    /// The sums of all windows; see [`Layout::place`].
    sums: Box<[u64]>,
}

/// The largest sums that were evicted within the last window: in two turns, so
/// that it covers at least one window and at most two.
#[derive(Debug, Default)]
struct Evicted {
    turn: Tick,
    current: Option<Box<[u64]>>,
    previous: Option<Box<[u64]>>,
}

impl<K, X> Group<K, X> {
    /// Whether it took another group's place, so that its sums may be too low.
    pub fn is_newcomer(&self) -> bool {
        self.error.is_some()
    }

    /// Bytes that the group holds here; what its key and its extension hold elsewhere is not among them.
    fn heap_bytes(&self) -> usize {
        let inherited = self.error.as_ref().map_or(0, |error| size_of::<Inherited>() + size_of_val(&*error.sums));
        size_of::<Slot<K, X>>() + self.gauges.heap_bytes() + inherited
    }
}

impl<K: Hash + Eq, X: Default> Series<K, X> {
    /// An empty series.
    pub fn new(layout: Layout, max_groups: usize) -> Self {
        Self {
            layout,
            max_groups: max_groups.max(1),
            groups: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            lightest: BinaryHeap::new(),
            expiry: BTreeMap::new(),
            evicted: Evicted::default(),
            weighed_at: 0,
            heap_bytes: 0,
            statistics: SeriesStatistics::default(),
        }
    }

    /// What is kept for each group.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes a layout that differs only in how many values it keeps; `false`,
    /// and nothing changed, where it differs in more.
    pub fn adopt_layout(&mut self, layout: &Layout) -> bool {
        let fits = self.layout.same_shape(layout);
        if fits {
            self.layout = layout.clone();
        }
        fits
    }

    /// The group of a key, made if it is new; `None` where it is refused.
    ///
    /// `room` says whether there is memory for one more.
    pub fn enter(&mut self, key: K, now: Tick, room: Room) -> Option<GroupId> {
        let hash = self.hasher.hash_one(&key);
        let same = |&slot: &u32| self.groups[slot as usize].group.as_ref().is_some_and(|group| group.key == key);
        if let Some(&slot) = self.index.find(hash, same) {
            return Some(GroupId { slot, serial: self.groups[slot as usize].serial });
        }
        let full = self.statistics.groups >= self.max_groups || room == Room::None;
        if full {
            self.evict(now)?;
        }
        let sums = self.evicted.sums(now, self.layout.longest());
        let error = sums.map(|sums| Box::new(Inherited { at: now, sums }));
        let group = Group { key, gauges: Gauges::new(&self.layout), extension: X::default(), error, pins: 0 };
        self.heap_bytes += group.heap_bytes();
        let slot = match self.free.pop() {
            Some(slot) => {
                self.groups[slot as usize].group = Some(group);
                slot
            }
            None => {
                self.groups.push(Slot { serial: 0, group: Some(group) });
                u32::try_from(self.groups.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let Self { index, groups, hasher, .. } = self;
        index.insert_unique(hash, slot, |&other| match &groups[other as usize].group {
            Some(group) => hasher.hash_one(&group.key),
            None => 0,
        });
        self.statistics.groups += 1;
        let id = GroupId { slot, serial: self.groups[slot as usize].serial };
        self.expiry.entry(now + self.layout.longest() + 1).or_default().push(id);
        if full {
            let weight = self.weight(id, now);
            self.lightest.push(Reverse((weight, id)));
        }
        Some(id)
    }

    /// The group of a key.
    pub fn find(&self, key: &K) -> Option<GroupId> {
        let hash = self.hasher.hash_one(key);
        let same = |&slot: &u32| self.groups[slot as usize].group.as_ref().is_some_and(|group| group.key == *key);
        self.index.find(hash, same).map(|&slot| GroupId { slot, serial: self.groups[slot as usize].serial })
    }

    /// Books an addition; `None` where the group is gone.
    #[inline]
    pub fn add(&mut self, id: GroupId, now: Tick, addition: &Addition) -> Option<&mut Group<K, X>> {
        let slot = self.groups.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)?;
        let group = slot.group.as_mut()?;
        let before = group.gauges.heap_bytes();
        group.gauges.add(&self.layout, now, addition);
        self.heap_bytes += group.gauges.heap_bytes().saturating_sub(before);
        Some(group)
    }

    /// A group, with its windows brought up to now.
    #[inline]
    pub fn advance(&mut self, id: GroupId, now: Tick, tick: Duration) -> Option<&mut Group<K, X>> {
        let slot = self.groups.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)?;
        let group = slot.group.as_mut()?;
        group.gauges.advance(&self.layout, now, tick);
        Some(group)
    }

    /// A group.
    #[inline]
    pub fn group(&self, id: GroupId) -> Option<&Group<K, X>> {
        self.groups.get(id.slot as usize).filter(|slot| slot.serial == id.serial)?.group.as_ref()
    }

    /// A group.
    #[inline]
    pub fn group_mut(&mut self, id: GroupId) -> Option<&mut Group<K, X>> {
        self.groups.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)?.group.as_mut()
    }

    /// Keeps a group whatever happens, until it is unpinned as often.
    pub fn pin(&mut self, id: GroupId) {
        if let Some(group) = self.group_mut(id) {
            group.pins += 1;
        }
    }

    /// Undoes one [`Series::pin`].
    pub fn unpin(&mut self, id: GroupId, now: Tick) {
        if let Some(group) = self.group_mut(id) {
            group.pins = group.pins.saturating_sub(1);
            self.expiry.entry(now + 1).or_default().push(id);
            let weight = self.weight(id, now);
            self.lightest.push(Reverse((weight, id)));
        }
    }

    /// By how much a window's sum may be too low, because the group took another's place.
    pub fn error(&self, id: GroupId, now: Tick, window: WindowRef, column: usize) -> u64 {
        let Some(inherited) = self.group(id).and_then(|group| group.error.as_ref()) else { return 0 };
        let Span { length, width } = self.layout.span(window);
        if inherited.at + length + width <= now {
            return 0;
        }
        inherited.sums.get(self.layout.place(window, column)).copied().unwrap_or(0)
    }

    /// Lets empty groups leave.
    pub fn expire(&mut self, now: Tick, tick: Duration) {
        while let Some(due) = self.expiry.first_entry().filter(|due| *due.key() <= now) {
            for id in due.remove() {
                let Some(group) = self.advance(id, now, tick) else { continue };
                if group.pins > 0 {
                    // Unpinning asks again.
                    continue;
                }
                if group.gauges.is_empty() {
                    self.remove(id);
                    continue;
                }
                // A group is looked at again when everything it holds now has left.
                self.expiry.entry(now + self.layout.longest() + 1).or_default().push(id);
            }
        }
    }

    /// When [`Series::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Tick> {
        self.expiry.keys().next().copied()
    }

    /// Every group, in the order of their slots.
    pub fn ids(&self) -> impl Iterator<Item = GroupId> {
        let slots = self.groups.iter().zip(0..).filter(|(slot, _)| slot.group.is_some());
        slots.map(|(slot, at)| GroupId { slot: at, serial: slot.serial })
    }

    /// Bytes that the groups hold, about.
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes + self.index.capacity() * 5
    }

    /// What the series did so far.
    pub fn statistics(&self) -> SeriesStatistics {
        self.statistics
    }

    fn remove(&mut self, id: GroupId) -> Option<Group<K, X>> {
        let slot = self.groups.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)?;
        let group = slot.group.take()?;
        slot.serial = slot.serial.wrapping_add(1);
        let hash = self.hasher.hash_one(&group.key);
        if let Ok(entry) = self.index.find_entry(hash, |&slot| slot == id.slot) {
            entry.remove();
        }
        self.free.push(id.slot);
        self.statistics.groups -= 1;
        self.heap_bytes = self.heap_bytes.saturating_sub(group.heap_bytes());
        Some(group)
    }

    /// Removes the lightest group that is not pinned, and notes what it had.
    fn evict(&mut self, now: Tick) -> Option<()> {
        if self.weighed_at + self.layout.longest() / REWEIGHINGS <= now {
            // Weights have fallen since, as buckets left.
            self.weighed_at = now;
            self.lightest = self.ids().map(|id| Reverse((self.weight(id, now), id))).collect();
        }
        while let Some(Reverse((known, id))) = self.lightest.pop() {
            let Some(group) = self.advance(id, now, Duration::ZERO) else { continue };
            if group.pins > 0 {
                // Unpinning puts it back.
                continue;
            }
            let weight = self.weight(id, now);
            if weight > known {
                self.lightest.push(Reverse((weight, id)));
                continue;
            }
            let sums = self.possible_sums(id, now);
            self.evicted.note(now, self.layout.longest(), sums);
            self.remove(id);
            self.statistics.evicted += 1;
            return Some(());
        }
        self.statistics.refused += 1;
        None
    }

    /// How heavy a group is: the first column over the longest window, with its possible error.
    fn weight(&self, id: GroupId, now: Tick) -> u64 {
        let Some(group) = self.group(id) else { return 0 };
        let window = WindowRef { track: self.layout.tracks.len().saturating_sub(1), window: 0 };
        group.gauges.sum(&self.layout, window, 0).saturating_add(self.error(id, now, window, 0))
    }

    /// Every sum of a group, with its possible error.
    fn possible_sums(&self, id: GroupId, now: Tick) -> Box<[u64]> {
        let Some(group) = self.group(id) else { return Box::default() };
        let mut sums = vec![0; self.layout.places()].into_boxed_slice();
        for (track, spans) in self.layout.tracks.iter().enumerate() {
            for window in (0..spans.len()).map(|window| WindowRef { track, window }) {
                for column in 0..self.layout.columns.len() {
                    let own = group.gauges.sum(&self.layout, window, column);
                    let sum = own.saturating_add(self.error(id, now, window, column));
                    sums[self.layout.place(window, column)] = sum;
                }
            }
        }
        sums
    }
}

impl Evicted {
    fn note(&mut self, now: Tick, length: Tick, sums: Box<[u64]>) {
        self.turn(now, length);
        match &mut self.current {
            Some(largest) => largest.iter_mut().zip(sums).for_each(|(largest, sum)| *largest = (*largest).max(sum)),
            None => self.current = Some(sums),
        }
    }

    /// The largest of the last window; `None` where nothing was evicted.
    fn sums(&mut self, now: Tick, length: Tick) -> Option<Box<[u64]>> {
        self.turn(now, length);
        match (&self.current, &self.previous) {
            (Some(one), Some(other)) => Some(one.iter().zip(other).map(|(one, other)| *one.max(other)).collect()),
            (one, other) => one.clone().or_else(|| other.clone()),
        }
    }

    fn turn(&mut self, now: Tick, length: Tick) {
        let turn = now / length.max(1);
        if turn != self.turn {
            let ended = self.current.take();
            self.previous = ended.filter(|_| turn == self.turn + 1);
            self.turn = turn;
        }
    }
}

/// How often, within the longest window, the order of eviction is made anew.
const REWEIGHINGS: Tick = 60;

/// Whether there is memory for one more group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Some,
    /// There is none: another group must leave.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Column;

    fn series(max_groups: usize) -> Series<u64, ()> {
        let mut layout = Layout::default();
        layout.column(Column::BytesOut);
        Series::new(layout.with_windows([60]), max_groups)
    }

    fn add(series: &mut Series<u64, ()>, key: u64, now: Tick, bytes: u64) {
        let id = series.enter(key, now, Room::Some).unwrap();
        let mut addition = Addition::default();
        addition.set(Column::BytesOut, bytes);
        series.add(id, now, &addition);
    }

    const MINUTE: WindowRef = WindowRef { track: 0, window: 0 };

    #[test]
    fn memory_is_accounted_as_it_comes_and_goes() {
        let mut series = series(100);
        for key in 0..10_000 {
            add(&mut series, key, 1_000 + key / 100, key);
            let groups = series.groups.iter().filter_map(|slot| slot.group.as_ref());
            let held: usize = groups.map(Group::heap_bytes).sum();
            assert_eq!(series.heap_bytes, held, "after {key}");
        }
    }

    #[test]
    fn a_heavy_group_survives_a_flood_of_keys() {
        let mut series = series(100);
        for key in 1..100_000 {
            add(&mut series, 0, 10, 50);
            add(&mut series, key, 10, 40);
        }
        let heavy = series.find(&0).unwrap();
        let own = series.group(heavy).unwrap().gauges.sum(series.layout(), MINUTE, 0);
        assert_eq!(own, 50 * 99_999, "it never left, so nothing of it is lost");
        assert_eq!(series.statistics().groups, 100);
        assert!(series.heap_bytes() < 100_000);
    }

    #[test]
    fn a_newcomer_inherits_the_possible_error() {
        let mut series = series(2);
        add(&mut series, 1, 10, 500);
        add(&mut series, 2, 10, 30);
        add(&mut series, 3, 11, 5);
        let id = series.find(&3).unwrap();
        assert_eq!(series.find(&2), None, "the lightest left");
        assert_eq!(series.error(id, 11, MINUTE, 0), 30);
        assert_eq!(series.error(id, 72, MINUTE, 0), 0, "what it inherited has left the window");
    }

    #[test]
    fn pinned_groups_stay_and_empty_ones_leave() {
        let mut series = series(2);
        add(&mut series, 1, 10, 1);
        add(&mut series, 2, 10, 1);
        let (one, two) = (series.find(&1).unwrap(), series.find(&2).unwrap());
        series.pin(one);
        series.pin(two);
        assert_eq!(series.enter(3, 11, Room::Some), None);
        assert_eq!(series.statistics().refused, 1);
        series.unpin(two, 11);
        series.expire(200, Duration::from_secs(1));
        assert!(series.find(&2).is_none() && series.find(&1).is_some());
    }
}
