//! The flow table: one entry a flow and owner, drained once a tick.
//!
//! A packet touches one line of the cache of its entry, the [`Hot`] part, and
//! notes its time; all else is in the [`Cold`] part. Several packets are looked
//! for before the first is counted, so that their cache misses overlap. What
//! passes on flows that have a tag is summed by tag as well, and a tick takes
//! those sums; it takes from the others one by one.
//!
//! Invariant: a flow's bytes leave this table exactly once, in a sum or by themselves.

mod expiry;
mod hot;
mod index;
mod slab;
mod tallies;

use std::mem::take;
use std::time::Duration;

use hashbrown::HashMap;

use self::expiry::Expiry;
use self::hot::{ANSWERED, DIRTY, ENDED, FAILED, Hot, INDEXED, LOCAL_OPENED, NAMED, NAMESPACED, READ, SYN_SEEN};
use self::index::Index;
use self::slab::Slab;
use self::tallies::Tallies;
use crate::flow::{
    Counters, Direction, EndsHasher, FlowEndReason, FlowKey, FlowState, LocalAddresses, Namespace, Scope,
};
use crate::memory::prefetch;
use crate::packet::{Endpoint, FrameDirection, Packet, TcpFlags};
use crate::time::Timestamp;
use crate::units::Packets;

/// Flows held at once unless the settings say otherwise. What further ones
/// cost is in [`FlowStatistics::evicted`] and [`FlowStatistics::refused`].
pub const MAX_FLOWS: usize = 262_144;

/// How long an ended flow still takes late packets.
const LINGER: Duration = Duration::from_secs(5);

/// Packets that are looked for before the first of them is counted.
const AHEAD: usize = 16;

/// Keys that are looked at together.
pub const BATCH: usize = 32;

/// No entry has this number.
const NONE: u32 = u32::MAX;

/// The table. `X` is what the engine keeps with a flow between ticks.
#[derive(Debug)]
pub struct FlowTable<X> {
    limits: FlowLimits,
    index: Index,
    /// Hashes of the packets that are being counted.
    hashes: Vec<u64>,
    hasher: EndsHasher,
    hot: Slab<Hot>,
    /// When each entry's last packet passed.
    last: Slab<Timestamp>,
    /// The latest of them.
    latest: Timestamp,
    cold: Slab<Cold<X>>,
    tallies: Tallies,
    /// What outgrew the bits of the hot part within one tick.
    spilled: HashMap<u32, Counters>,
    free: Vec<u32>,
    /// Entries with bytes that no tick has taken yet and no tag's sum has. One that left and came back stands here twice.
    dirty: Vec<u32>,
    /// Flows whose first packet came since [`FlowTable::take_opened`].
    opened: Vec<FlowId>,
    /// Payloads of flows that are read.
    payloads: Vec<SeenPayload>,
    /// The same of the packets that are being counted.
    unread: Vec<Unread>,
    /// Flows that left the index and wait for the tick to take their bytes.
    superseded: Vec<FlowId>,
    /// Flows that were evicted clean, for the engine to report.
    evicted: Vec<(Flow, X)>,
    expiry: Expiry,
    statistics: FlowStatistics,
}

/// How much the table holds, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct FlowLimits {
    /// Flows held at once.
    pub max_flows: usize,
    /// A flow without a packet for this long has ended.
    pub idle_timeout: Duration,
    /// An open flow is reported this often.
    pub active_timeout: Option<Duration>,
}

/// One generation of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    index: u32,
    serial: u32,
}

/// Whose bytes an entry holds, as a number that the engine gives out. Entries
/// of one key and different owners are different flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct OwnerSlot(pub u32);

/// What the engine concluded about a flow, as a number that it gives out: what passes on all flows of a tag is summed.
/// 0 for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tag(pub u32);

/// A flow, copied out of the table.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Which flow.
    pub key: FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// What became of it.
    pub state: FlowState,
    /// What passed so far, without what waits for a tick to take it.
    pub totals: Counters,
    /// When its first packet was seen.
    pub first: Timestamp,
    /// When its last packet was seen.
    pub last: Timestamp,
    /// Whose flow it is.
    pub owner: OwnerSlot,
    /// The number of the interface it was first seen on.
    pub interface: u32,
}

/// Between whom a flow is, who opened it and whose it is.
#[derive(Debug, Clone, Copy)]
pub struct FlowEnds {
    /// Which flow.
    pub key: FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// Whose flow it is.
    pub owner: OwnerSlot,
}

/// A flow that leaves the table or is reported while open.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Which entry.
    pub id: FlowId,
    /// Why.
    pub reason: FlowEndReason,
}

/// What the table did, as running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct FlowStatistics {
    /// Flows held at this moment.
    pub live: usize,
    /// Flows seen.
    pub total: u64,
    /// Flows that left early because the table was full.
    pub evicted: u64,
    /// Packets of flows that did not fit, and their bytes.
    pub refused: u64,
    /// Bytes of those packets.
    pub refused_bytes: u64,
}

/// A packet with a payload on a flow that is read.
#[derive(Debug, Clone, Copy)]
pub struct SeenPayload {
    /// Which entry.
    pub id: FlowId,
    /// The packet's place among those that were given to [`FlowTable::observe`].
    pub packet: usize,
    /// The way it went.
    pub way: FrameDirection,
    /// Whether its connection was seen to open.
    pub from_start: bool,
}

/// What a source counted on a flow since it last said so.
#[derive(Debug, Clone, Copy)]
pub struct SourceCount<'a> {
    /// What passed.
    pub counters: &'a Counters,
    /// Who opened the flow, where the source knows.
    pub direction: Option<Direction>,
    /// What became of the connection, where the source knows.
    pub state: FlowState,
    /// Whether this is the last that the source has to say of the flow.
    pub ended: bool,
    /// When the source read its counters.
    pub timestamp: Timestamp,
}

/// What a recording tells of a flow.
#[derive(Debug, Clone, Copy)]
pub struct ToldFlow {
    /// Which flow.
    pub key: FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// What became of it.
    pub state: FlowState,
    /// When its first packet was seen.
    pub first: Timestamp,
    /// The number of its interface.
    pub interface: u32,
    /// What passed since it was last told of.
    pub counters: Counters,
}

/// A packet with a payload on an entry that is read. Which flow it is stands in the cold part, and has to be waited for.
#[derive(Debug, Clone, Copy)]
struct Unread {
    index: u32,
    packet: usize,
    out: bool,
}

/// An entry to be.
struct Opened {
    key: FlowKey,
    slot: OwnerSlot,
    direction: Direction,
    local_opened: bool,
    at: Timestamp,
    interface: u32,
}

/// The part of an entry that is touched when something becomes of it.
#[derive(Debug, Default)]
struct Cold<X> {
    /// What passed, without what the hot part counts.
    totals: Counters,
    first: Timestamp,
    namespace: Namespace,
    serial: u32,
    owner: OwnerSlot,
    /// The second in which an open flow was last reported.
    reported: u32,
    interface: u16,
    direction: Direction,
    extension: X,
}

impl<X: Default> FlowTable<X> {
    /// An empty table.
    pub fn new(limits: FlowLimits) -> Self {
        Self {
            limits,
            index: Index::default(),
            hashes: Vec::new(),
            hasher: EndsHasher::default(),
            hot: Slab::default(),
            last: Slab::default(),
            latest: Timestamp::EPOCH,
            cold: Slab::default(),
            tallies: Tallies::default(),
            spilled: HashMap::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            opened: Vec::new(),
            payloads: Vec::new(),
            unread: Vec::new(),
            superseded: Vec::new(),
            evicted: Vec::new(),
            expiry: Expiry::default(),
            statistics: FlowStatistics::default(),
        }
    }

    /// Counts packets of the flows of one owner slot.
    ///
    /// `allow` says how much may be added to the sum of a tag: it is asked with a weight, as [`Counters::weight`] has
    /// it, and gives at least that, or 0 where the flow is to be told by itself.
    ///
    /// Each packet is looked for a while before it is counted, so that its lines of memory are on their way.
    pub fn observe(
        &mut self,
        packets: &[Packet<'_>],
        slot: OwnerSlot,
        local: &LocalAddresses,
        allow: &mut impl FnMut(Tag, u64) -> u64,
    ) {
        let mut hashes = take(&mut self.hashes);
        hashes.clear();
        hashes.extend(packets.iter().map(|packet| {
            let hash = self.hasher.hash_tuple(&packet.five_tuple);
            self.index.fetch(hash);
            hash
        }));
        let mut likely = [NONE; AHEAD];
        for (likely, hash) in likely.iter_mut().zip(&hashes) {
            *likely = self.look_for(*hash);
        }
        for (place, (packet, &hash)) in packets.iter().zip(&hashes).enumerate() {
            let ahead = hashes.get(place + AHEAD).map_or(NONE, |hash| self.look_for(*hash));
            let likely = std::mem::replace(&mut likely[place % AHEAD], ahead);
            let way = self.hot.get(likely).and_then(|hot| hot.way_of(packet, slot).filter(|_| !hot.reopens(packet)));
            let entry = match way {
                Some(out) => Some((likely, out)),
                None => self.find_or_open(hash, packet, slot, local),
            };
            let Some((index, out)) = entry else { continue };
            if self.count(index, out, packet, allow) {
                let cold = &self.cold[index];
                prefetch(&raw const cold.serial);
                prefetch(&raw const cold.extension);
                self.unread.push(Unread { index, packet: place, out });
            }
        }
        let mut unread = take(&mut self.unread);
        for Unread { index, packet, out } in unread.drain(..) {
            let way = if out { FrameDirection::Out } else { FrameDirection::In };
            let (id, from_start) = (self.id_of(index), self.hot[index].has(SYN_SEEN));
            self.payloads.push(SeenPayload { id, packet, way, from_start });
        }
        self.unread = unread;
        self.hashes = hashes;
    }

    /// The entry that a hash probably means, which is fetched.
    #[inline(always)]
    fn look_for(&self, hash: u64) -> u32 {
        let likely = self.index.likely(hash).unwrap_or(NONE);
        if let (Some(hot), Some(last)) = (self.hot.get(likely), self.last.get(likely)) {
            prefetch(hot);
            prefetch(last);
        }
        likely
    }

    /// Has the entries of these keys fetched, to be called before [`FlowTable::observe_counters`] is with the first of
    /// them: their cache misses overlap here and would not there.
    pub fn look_at<'k>(&mut self, keys: impl Iterator<Item = &'k FlowKey>) {
        let mut hashes = take(&mut self.hashes);
        hashes.clear();
        hashes.extend(keys.map(|key| {
            let hash = self.hasher.hash_key(key);
            self.index.fetch(hash);
            hash
        }));
        hashes.iter().for_each(|hash| _ = self.look_for(*hash));
        self.hashes = hashes;
    }

    /// Counts what a source counted by itself; `None` where there is no room. `allow` is as in [`FlowTable::observe`].
    pub fn observe_counters(
        &mut self,
        key: &FlowKey,
        slot: OwnerSlot,
        seen: &SourceCount<'_>,
        local: &LocalAddresses,
        allow: &mut impl FnMut(Tag, u64) -> u64,
    ) -> Option<FlowId> {
        let hash = self.hasher.hash_key(key);
        let index = match self.find_entry(hash, key, slot) {
            Some(index) => index,
            None => {
                let local_opened = seen.direction != Some(Direction::Inbound);
                let direction = seen.direction.unwrap_or_else(|| direction_of(key, local_opened, local));
                let opened = Opened { key: *key, slot, direction, local_opened, at: seen.timestamp, interface: 0 };
                self.insert(hash, opened)?
            }
        };
        self.note_last(index, seen.timestamp);
        let hot = &mut self.hot[index];
        hot.set_state(seen.state);
        if seen.ended {
            hot.flags |= ENDED;
        }
        let is_summed = hot.is_settled() && self.tallies.add_counters(hot.tag, seen.counters, allow);
        if !is_summed {
            self.mark(index);
        }
        if !self.hot[index].add_counters(seen.counters) {
            self.outgrown(index).add(seen.counters);
        }
        let id = self.id_of(index);
        if self.hot[index].has(ENDED) {
            self.expiry.schedule(id, seen.timestamp.after(LINGER));
        }
        Some(id)
    }

    /// Enters a flow of a recording; `None` where there is no room. Several may have one key.
    /// It stays until it is removed, and ticks find nothing to take from it.
    pub fn tell(&mut self, told: &ToldFlow) -> Option<FlowId> {
        let ToldFlow { key, direction, first, interface, .. } = *told;
        let hash = self.hasher.hash_key(&key);
        let local_opened = direction != Direction::Inbound;
        let opened = Opened { key, slot: OwnerSlot::default(), direction, local_opened, at: first, interface };
        let index = self.insert(hash, opened)?;
        let id = self.id_of(index);
        self.tell_again(id, told);
        Some(id)
    }

    /// Brings a flow of a recording up to date.
    pub fn tell_again(&mut self, id: FlowId, told: &ToldFlow) {
        if !self.holds(id) {
            return;
        }
        self.cold[id.index].totals.add(&told.counters);
        self.cold[id.index].interface = u16::try_from(told.interface).unwrap_or(u16::MAX);
        let hot = &mut self.hot[id.index];
        hot.flags &= !(SYN_SEEN | ANSWERED | ENDED | FAILED | READ);
        hot.set_state(told.state);
    }

    /// The flows whose first packet came since the last call.
    pub fn take_opened(&mut self) -> Vec<FlowId> {
        take(&mut self.opened)
    }

    /// The payloads of flows that are read, of the last [`FlowTable::observe`].
    pub fn take_payloads(&mut self) -> Vec<SeenPayload> {
        take(&mut self.payloads)
    }

    /// Lets the payloads of a flow pass unread from here on.
    pub fn stop_reading(&mut self, id: FlowId) {
        if self.holds(id) {
            self.hot[id.index].flags &= !READ;
        }
    }

    /// Whether a flow was opened since [`FlowTable::take_opened`].
    pub fn has_opened(&self) -> bool {
        !self.opened.is_empty()
    }

    /// Gives the sum of each tag since it was last given.
    pub fn settle(&mut self, each: impl FnMut(Tag, &Counters)) {
        self.tallies.take(each);
    }

    /// The flows with bytes that are in no sum, in the order in which they got them: to be taken one by one, or kept
    /// with [`FlowTable::keep_dirty`].
    pub fn drain(&mut self) -> Vec<FlowId> {
        let mut left = Vec::new();
        let dirty = take(&mut self.dirty);
        for (place, &index) in dirty.iter().enumerate() {
            if let Some((hot, cold)) =
                dirty.get(place + BATCH).and_then(|&next| self.hot.get(next).zip(self.cold.get(next)))
            {
                prefetch(hot);
                prefetch(cold);
            }
            let hot = &mut self.hot[index];
            if hot.flags & (DIRTY | NAMED) == DIRTY {
                hot.flags |= NAMED;
                left.push(self.id_of(index));
            }
        }
        left
    }

    /// Gives flows back whose bytes the tick leaves where they are.
    pub fn keep_dirty(&mut self, held: &[FlowId]) {
        for id in held {
            if self.holds(*id) {
                self.hot[id.index].flags &= !NAMED;
                self.dirty.push(id.index);
            }
        }
    }

    /// Whether a tick has something to take.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.tallies.is_empty()
    }

    /// Takes what passed on a flow since it was last taken and is in no sum; it is in the totals from here on.
    pub fn take_counters(&mut self, id: FlowId) -> Counters {
        if !self.holds(id) || !self.hot[id.index].has(DIRTY) {
            return Counters::default();
        }
        let hot = &mut self.hot[id.index];
        hot.flags &= !(DIRTY | NAMED);
        let mut taken = hot.take();
        if !self.spilled.is_empty()
            && let Some(spilled) = self.spilled.remove(&id.index)
        {
            taken.add(&spilled);
        }
        self.cold[id.index].totals.add(&taken);
        taken
    }

    /// A flow's facts, or `None` where it has left the table.
    pub fn flow(&self, id: FlowId) -> Option<Flow> {
        self.holds(id).then(|| self.copy_out(id.index))
    }

    /// Those of a flow's facts that its payloads are read by.
    pub fn ends(&self, id: FlowId) -> Option<FlowEnds> {
        let Cold { namespace, direction, owner, .. } =
            self.cold.get(id.index).filter(|cold| cold.serial == id.serial)?;
        let key = self.hot[id.index].key(*namespace);
        Some(FlowEnds { key, direction: *direction, owner: *owner })
    }

    /// What the engine keeps with a flow.
    pub fn extension_mut(&mut self, id: FlowId) -> Option<&mut X> {
        self.holds(id).then(|| &mut self.cold[id.index].extension)
    }

    /// What the engine keeps with a flow.
    pub fn extension(&self, id: FlowId) -> Option<&X> {
        self.holds(id).then(|| &self.cold[id.index].extension)
    }

    /// Says whose flow it is.
    pub fn set_owner(&mut self, id: FlowId, owner: OwnerSlot) {
        if self.holds(id) {
            self.cold[id.index].owner = owner;
        }
    }

    /// Notes what was concluded about a flow.
    pub fn set_tag(&mut self, id: FlowId, tag: Tag) {
        if self.holds(id) {
            self.hot[id.index].tag = tag;
        }
    }

    /// Forgets what was concluded about every flow.
    pub fn clear_tags(&mut self) {
        for index in 0..self.hot.len() {
            self.hot[index].tag = Tag::default();
        }
    }

    /// The flow of a key whose packets came without an owner.
    pub fn find_key(&self, key: &FlowKey, slot: OwnerSlot) -> Option<FlowId> {
        let index = self.find_entry(self.hasher.hash_key(key), key, slot)?;
        Some(self.id_of(index))
    }

    /// The flows of a key, whatever their owner.
    pub fn find_all(&self, key: &FlowKey) -> Vec<FlowId> {
        let found = self.index.candidates(self.hasher.hash_key(key)).filter(|index| self.key_of(*index) == *key);
        found.map(|index| self.id_of(index)).collect()
    }

    /// The flows that end or are due to be reported at `now`.
    ///
    /// The caller takes their last bytes, then calls [`FlowTable::remove`] for
    /// every reason but [`FlowEndReason::ActiveTimeout`].
    pub fn expire(&mut self, now: Timestamp) -> Vec<Ended> {
        let mut ended: Vec<Ended> = take(&mut self.superseded)
            .into_iter()
            .filter(|id| self.holds(*id))
            .map(|id| Ended { id, reason: FlowEndReason::EndOfFlow })
            .collect();
        while let Some(id) = self.expiry.pop_due(now) {
            if !self.holds(id) || !self.hot[id.index].has(INDEXED) {
                continue;
            }
            let (wait, reason) = match self.hot[id.index].has(ENDED) {
                false => (self.limits.idle_timeout, FlowEndReason::IdleTimeout),
                true => (LINGER, FlowEndReason::EndOfFlow),
            };
            let due = self.last[id.index].after(wait);
            if due <= now && !self.hot[id.index].has(DIRTY) {
                // It may stand in the queue a second time.
                self.unlink(id.index);
                ended.push(Ended { id, reason });
                continue;
            }
            self.expiry.schedule(id, due.max(now.after(Duration::from_secs(1))));
            let cold = &mut self.cold[id.index];
            let since = now.since(Timestamp::from_secs(cold.reported.into()));
            if self.limits.active_timeout.is_some_and(|every| since >= every) {
                cold.reported = second_of(now);
                ended.push(Ended { id, reason: FlowEndReason::ActiveTimeout });
            }
        }
        ended
    }

    /// Whether a flow that ends now opened a connection and never got an answer.
    pub fn was_unanswered(&self, id: FlowId) -> bool {
        self.holds(id) && {
            let flags = self.hot[id.index].flags;
            flags & FAILED != 0 || flags & (SYN_SEEN | ANSWERED | ENDED) == SYN_SEEN
        }
    }

    /// The flows that were evicted to make room, already gone.
    pub fn take_evicted(&mut self) -> Vec<(Flow, X)> {
        take(&mut self.evicted)
    }

    /// Every flow in the table, in the order of their entries.
    pub fn ids(&self) -> impl Iterator<Item = FlowId> {
        (0..self.hot.len()).filter(|&index| self.hot[index].has(INDEXED)).map(|index| self.id_of(index))
    }

    /// When [`FlowTable::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        if self.superseded.is_empty() { self.expiry.next() } else { Some(Timestamp::EPOCH) }
    }

    /// Removes a flow whose bytes were taken, and gives what the engine kept with it.
    pub fn remove(&mut self, id: FlowId) -> Option<X> {
        if !self.holds(id) {
            return None;
        }
        self.unlink(id.index);
        self.hot[id.index] = Hot::default();
        self.unread.retain(|unread| unread.index != id.index);
        let cold = &mut self.cold[id.index];
        cold.serial = cold.serial.wrapping_add(1);
        self.free.push(id.index);
        self.statistics.live -= 1;
        Some(take(&mut cold.extension))
    }

    /// What the table did so far.
    pub fn statistics(&self) -> FlowStatistics {
        self.statistics
    }

    fn holds(&self, id: FlowId) -> bool {
        self.cold.get(id.index).is_some_and(|cold| cold.serial == id.serial)
    }

    fn id_of(&self, index: u32) -> FlowId {
        FlowId { index, serial: self.cold[index].serial }
    }

    fn key_of(&self, index: u32) -> FlowKey {
        key_of(&self.hot, &self.cold, index)
    }

    /// Notes when something passed on a flow. Packets come nearly always in order, and then nothing is read that would
    /// have to be waited for.
    #[inline]
    fn note_last(&mut self, index: u32, at: Timestamp) {
        if at >= self.latest {
            self.latest = at;
            self.last[index] = at;
        } else {
            self.last[index] = self.last[index].max(at);
        }
    }

    /// The entry that a packet belongs to, and whether it went out.
    #[inline]
    fn find(&self, hash: u64, packet: &Packet<'_>, slot: OwnerSlot) -> Option<(u32, bool)> {
        self.index.candidates(hash).find_map(|index| Some((index, self.hot[index].way_of(packet, slot)?)))
    }

    fn find_entry(&self, hash: u64, key: &FlowKey, slot: OwnerSlot) -> Option<u32> {
        self.index.candidates(hash).find(|&index| self.hot[index].slot == slot && self.key_of(index) == *key)
    }

    /// The entry that a packet belongs to or opens, and whether it went out; `None` where there is no room for it.
    #[inline(never)]
    fn find_or_open(
        &mut self,
        hash: u64,
        packet: &Packet<'_>,
        slot: OwnerSlot,
        local: &LocalAddresses,
    ) -> Option<(u32, bool)> {
        let found = self.find(hash, packet, slot);
        if let Some((index, out)) = found {
            if !self.hot[index].reopens(packet) {
                return Some((index, out));
            }
            self.supersede(index);
        }
        let opened = self.open(hash, packet, slot, local);
        if opened.is_none() {
            self.statistics.refused += 1;
            self.statistics.refused_bytes += packet.bytes.0;
        }
        opened
    }

    /// Counts a packet; says whether its payload is to be read.
    #[inline]
    fn count(&mut self, index: u32, out: bool, packet: &Packet<'_>, allow: &mut impl FnMut(Tag, u64) -> u64) -> bool {
        let hot = &mut self.hot[index];
        let (ends, is_read) = (hot.follow(out, packet.tcp_flags), hot.has(READ));
        let is_summed = hot.is_settled() && self.tallies.add(hot.tag, out, packet, allow);
        // What is in no sum is marked as such first, if it is not yet.
        let is_counted = (is_summed || hot.has(DIRTY)) && hot.add(out, packet);
        if !is_counted {
            self.count_apart(index, is_summed, out, packet);
        }
        if ends {
            self.expiry.schedule(self.id_of(index), packet.timestamp.after(LINGER));
        }
        self.note_last(index, packet.timestamp);
        is_read && !packet.payload.is_empty()
    }

    /// Counts a packet that its entry could not just add.
    #[inline(never)]
    fn count_apart(&mut self, index: u32, is_summed: bool, out: bool, packet: &Packet<'_>) {
        if !is_summed {
            self.mark(index);
        }
        if !self.hot[index].add(out, packet) {
            self.outgrown(index).add(&counters_of(out, packet));
        }
    }

    /// Notes that what passes on a flow is in no sum from here to the tick.
    #[inline]
    fn mark(&mut self, index: u32) {
        if self.hot[index].has(DIRTY) {
            return;
        }
        if !self.hot[index].is_empty() {
            // What is in a sum does not wait for the tick.
            let settled = self.hot[index].take();
            self.cold[index].totals.add(&settled);
        }
        self.hot[index].flags |= DIRTY;
        self.dirty.push(index);
    }

    /// Moves what an entry counted to where there is room, so that it can count on; gives that place.
    #[cold]
    fn outgrown(&mut self, index: u32) -> &mut Counters {
        let hot = &mut self.hot[index];
        let counted = hot.take();
        let room = match hot.has(DIRTY) {
            true => self.spilled.entry(index).or_default(),
            false => &mut self.cold[index].totals,
        };
        room.add(&counted);
        room
    }

    fn supersede(&mut self, index: u32) {
        self.unlink(index);
        self.superseded.push(self.id_of(index));
    }

    /// A new entry for a packet, and whether the packet went out.
    fn open(&mut self, hash: u64, packet: &Packet<'_>, slot: OwnerSlot, local: &LocalAddresses) -> Option<(u32, bool)> {
        let (key, way) = local
            .orient(&packet.five_tuple, packet.direction)
            .unwrap_or_else(|| (FlowKey::of(&packet.five_tuple, FrameDirection::Out), FrameDirection::Out));
        // A SYN-ACK is an answer: its receiver opened the connection.
        let answers = packet.tcp_flags.is_some_and(|flags| flags.has(TcpFlags::SYN | TcpFlags::ACK));
        let local_opened = (way == FrameDirection::Out) != answers;
        let direction = direction_of(&key, local_opened, local);
        let (at, interface) = (packet.timestamp, packet.interface);
        let index = self.insert(hash, Opened { key, slot, direction, local_opened, at, interface })?;
        Some((index, key.local == packet.five_tuple.source))
    }

    fn insert(&mut self, hash: u64, opened: Opened) -> Option<u32> {
        if self.statistics.live >= self.limits.max_flows && !self.evict() {
            return None;
        }
        if self.index.is_full() {
            let Self { index, hot, cold, hasher, .. } = self;
            let found = (0..hot.len()).filter(|&other| hot[other].has(INDEXED));
            index.grow(found.map(|other| (hasher.hash_key(&key_of(hot, cold, other)), other)));
        }
        let Opened { key, slot, direction, local_opened, at, interface } = opened;
        let flags = INDEXED | READ | if local_opened { LOCAL_OPENED } else { 0 };
        let hot = Hot::new(&key, slot, flags);
        let interface = u16::try_from(interface).unwrap_or(u16::MAX);
        let (namespace, reported) = (key.namespace, second_of(at));
        let cold = Cold { first: at, owner: slot, namespace, reported, interface, direction, ..Cold::default() };
        let index = match self.free.pop() {
            Some(index) => {
                let serial = self.cold[index].serial;
                (self.hot[index], self.last[index]) = (hot, at);
                self.cold[index] = Cold { serial, ..cold };
                index
            }
            None => {
                self.cold.push(cold);
                self.last.push(at);
                self.hot.push(hot)
            }
        };
        self.index.insert(hash, index);
        let id = self.id_of(index);
        self.expiry.schedule(id, at.after(self.limits.idle_timeout));
        self.opened.push(id);
        self.statistics.live += 1;
        self.statistics.total += 1;
        Some(index)
    }

    /// Makes room: the flow that is nearest to its idle timeout leaves, if a
    /// tick has taken its bytes.
    fn evict(&mut self) -> bool {
        for _ in 0..EVICTION_TRIES {
            let Some(id) = self.expiry.pop_first() else { return false };
            if !self.holds(id) || !self.hot[id.index].has(INDEXED) {
                continue;
            }
            if self.hot[id.index].has(DIRTY) {
                let due = self.last[id.index].after(self.limits.idle_timeout);
                self.expiry.schedule(id, due);
                continue;
            }
            let flow = self.copy_out(id.index);
            if let Some(extension) = self.remove(id) {
                self.evicted.push((flow, extension));
            }
            self.statistics.evicted += 1;
            return true;
        }
        false
    }

    fn unlink(&mut self, index: u32) {
        if !self.hot[index].has(INDEXED) {
            return;
        }
        self.hot[index].flags &= !INDEXED;
        let key = self.key_of(index);
        self.index.remove(self.hasher.hash_key(&key), index);
    }

    fn copy_out(&self, index: u32) -> Flow {
        let (hot, cold) = (&self.hot[index], &self.cold[index]);
        let mut totals = cold.totals;
        if !hot.has(DIRTY) {
            totals.add(&hot.counters());
        }
        Flow {
            key: hot.key(cold.namespace),
            direction: cold.direction,
            state: hot.state(),
            totals,
            first: cold.first,
            last: self.last[index],
            owner: cold.owner,
            interface: cold.interface.into(),
        }
    }
}

/// The key of an entry; most have none of the cold part in it.
fn key_of<X>(hot: &Slab<Hot>, cold: &Slab<Cold<X>>, index: u32) -> FlowKey {
    let hot = &hot[index];
    hot.key(if hot.has(NAMESPACED) { cold[index].namespace } else { Namespace::default() })
}

fn direction_of(key: &FlowKey, local_opened: bool, local: &LocalAddresses) -> Direction {
    let is_local = |end: &Endpoint| Scope::of(end.address) == Scope::Loopback || local.contains(end.address);
    if is_local(&key.remote) && is_local(&key.local) {
        Direction::Local
    } else if local_opened {
        Direction::Outbound
    } else {
        Direction::Inbound
    }
}

fn counters_of(out: bool, packet: &Packet<'_>) -> Counters {
    let mut counters = Counters::default();
    if out {
        (counters.bytes_out, counters.payload_out) = (packet.bytes, packet.payload_bytes);
        counters.packets_out = Packets(1);
    } else {
        (counters.bytes_in, counters.payload_in) = (packet.bytes, packet.payload_bytes);
        counters.packets_in = Packets(1);
    }
    counters
}

fn second_of(at: Timestamp) -> u32 {
    u32::try_from(at.as_secs()).unwrap_or(0)
}

/// Entries looked at before a full table refuses a flow.
const EVICTION_TRIES: usize = 64;
