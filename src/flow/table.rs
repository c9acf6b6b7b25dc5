//! The flow table: one entry a flow and owner, drained once a tick.
//!
//! A packet touches one entry: its small, hot half. What the tick needs
//! (totals, owner, caches) is in the cold half. Look-ups of a batch are made
//! before its packets are counted, so that their cache misses overlap.
//!
//! Invariant: a flow's bytes leave this table exactly once.

mod expiry;
mod slab;

use std::hash::{BuildHasher, Hasher};
use std::mem::take;
use std::time::Duration;

use hashbrown::{HashMap, HashTable};

use self::expiry::Expiry;
use self::slab::Slab;
use crate::flow::{Counters, Direction, FlowEndReason, FlowKey, FlowState, LocalAddresses, Scope};
use crate::packet::{Endpoint, FrameDirection, Packet, Protocol, TcpFlags};
use crate::time::Timestamp;
use crate::units::{Bytes, Packets};

/// Flows held at once unless the settings say otherwise. What further ones
/// cost is in [`FlowStatistics::evicted`] and [`FlowStatistics::refused`].
pub const MAX_FLOWS: usize = 262_144;

/// How long an ended flow still takes late packets.
const LINGER: Duration = Duration::from_secs(5);

/// Packets whose look-ups overlap.
const BATCH: usize = 32;

/// The table. `X` is what the engine keeps with a flow between ticks.
#[derive(Debug)]
pub struct FlowTable<X> {
    limits: FlowLimits,
    index: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    hot: Slab<Hot>,
    cold: Slab<Cold<X>>,
    /// What did not fit into 32 bits within one tick.
    spilled: HashMap<u32, Counters>,
    free: Vec<u32>,
    /// Flows with bytes that no tick has taken yet.
    dirty: Vec<FlowId>,
    /// Flows whose first packet came since [`FlowTable::take_opened`].
    opened: Vec<FlowId>,
    /// Payloads of flows that are read.
    payloads: Vec<SeenPayload>,
    /// Flows that left the index and wait for the tick to take their bytes.
    superseded: Vec<FlowId>,
    /// Flows that were evicted clean, for the engine to report.
    evicted: Vec<(Flow, X)>,
    expiry: Expiry,
    /// Grows when an entry enters or leaves the index.
    version: u64,
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

/// A flow, copied out of the table.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Which flow.
    pub key: FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// What became of it.
    pub state: FlowState,
    /// What passed so far, as far as ticks have taken it.
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

/// An entry to be.
struct Opened {
    key: FlowKey,
    slot: OwnerSlot,
    direction: Direction,
    local_opened: bool,
    at: Timestamp,
    interface: u32,
}

/// The half of an entry that a packet touches.
#[derive(Debug, Clone, Copy, Default)]
struct Hot {
    key: FlowKey,
    slot: OwnerSlot,
    last: Timestamp,
    /// What passed since the last tick. Sums that outgrow 32 bits spill into the cold half.
    bytes_out: u32,
    bytes_in: u32,
    payload_out: u32,
    payload_in: u32,
    packets_out: u32,
    packets_in: u32,
    flags: u16,
}

/// The half of an entry that ticks touch.
#[derive(Debug, Default)]
struct Cold<X> {
    totals: Counters,
    first: Timestamp,
    /// The second in which an open flow was last reported.
    reported: u32,
    owner: OwnerSlot,
    serial: u32,
    interface: u16,
    direction: Direction,
    extension: X,
}

const DIRTY: u16 = 1;
const INDEXED: u16 = 1 << 1;
const LOCAL_OPENED: u16 = 1 << 2;
const ANSWERED: u16 = 1 << 3;
const SYN_SEEN: u16 = 1 << 4;
const FIN_OUT: u16 = 1 << 5;
const FIN_IN: u16 = 1 << 6;
const ENDED: u16 = 1 << 7;
const FAILED: u16 = 1 << 8;
/// Its payloads are read.
const READ: u16 = 1 << 9;

impl<X: Default> FlowTable<X> {
    /// An empty table.
    pub fn new(limits: FlowLimits) -> Self {
        Self {
            limits,
            index: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            hot: Slab::default(),
            cold: Slab::default(),
            spilled: HashMap::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            opened: Vec::new(),
            payloads: Vec::new(),
            superseded: Vec::new(),
            evicted: Vec::new(),
            expiry: Expiry::default(),
            version: 0,
            statistics: FlowStatistics::default(),
        }
    }

    /// Counts packets of the flows of one owner slot, several at a time.
    pub fn observe(&mut self, packets: &[Packet<'_>], slot: OwnerSlot, local: &LocalAddresses) {
        for (number, batch) in packets.chunks(BATCH).enumerate() {
            let mut hashes = [0; BATCH];
            let mut found = [None; BATCH];
            for (hash, packet) in hashes.iter_mut().zip(batch) {
                let tuple = &packet.five_tuple;
                *hash = hash_ends(&self.hasher, tuple.protocol, 0, &tuple.source, &tuple.destination);
            }
            for ((found, hash), packet) in found.iter_mut().zip(&hashes).zip(batch) {
                *found = self.find(*hash, packet, slot);
            }
            let version = self.version;
            for (place, ((mut found, hash), packet)) in found.into_iter().zip(hashes).zip(batch).enumerate() {
                if self.version != version {
                    found = self.find(hash, packet, slot);
                }
                if let Some((id, way)) = self.count(found, hash, packet, slot, local) {
                    self.payloads.push(SeenPayload { id, packet: number * BATCH + place, way });
                }
            }
        }
    }

    /// Counts what a source counted by itself; `None` where there is no room.
    pub fn observe_counters(
        &mut self,
        key: &FlowKey,
        slot: OwnerSlot,
        seen: &SourceCount<'_>,
        local: &LocalAddresses,
    ) -> Option<FlowId> {
        let hash = hash_key(&self.hasher, key);
        let same = |&index: &u32| self.hot[index].slot == slot && self.hot[index].key == *key;
        let index = match self.index.find(hash, same) {
            Some(index) => *index,
            None => {
                let local_opened = seen.direction != Some(Direction::Inbound);
                let direction = seen.direction.unwrap_or_else(|| direction_of(key, local_opened, local));
                let opened = Opened { key: *key, slot, direction, local_opened, at: seen.timestamp, interface: 0 };
                self.insert(hash, opened)?
            }
        };
        let hot = &mut self.hot[index];
        hot.last = hot.last.max(seen.timestamp);
        hot.flags |= match seen.state {
            FlowState::New => SYN_SEEN,
            FlowState::Established => ANSWERED,
            FlowState::Closed => ANSWERED | ENDED,
            FlowState::Failed => ENDED | FAILED,
        };
        if seen.ended {
            hot.flags |= ENDED;
        }
        if !self.hot[index].add_counters(seen.counters) {
            self.spilled.entry(index).or_default().add(seen.counters);
        }
        let id = FlowId { index, serial: self.cold[index].serial };
        self.mark_dirty(id);
        if self.hot[index].flags & ENDED != 0 {
            self.expiry.schedule(id, seen.timestamp.after(LINGER));
        }
        Some(id)
    }

    /// Enters a flow of a recording; `None` where there is no room. Several may have one key.
    /// It stays until it is removed, and ticks find nothing to take from it.
    pub fn tell(&mut self, told: &ToldFlow) -> Option<FlowId> {
        let ToldFlow { key, direction, first, interface, .. } = *told;
        let hash = hash_key(&self.hasher, &key);
        let local_opened = direction != Direction::Inbound;
        let opened = Opened { key, slot: OwnerSlot::default(), direction, local_opened, at: first, interface };
        let index = self.insert(hash, opened)?;
        let id = FlowId { index, serial: self.cold[index].serial };
        self.tell_again(id, told);
        Some(id)
    }

    /// Brings a flow of a recording up to date.
    pub fn tell_again(&mut self, id: FlowId, told: &ToldFlow) {
        if !self.holds(id) {
            return;
        }
        let (hot, cold) = (&mut self.hot[id.index], &mut self.cold[id.index]);
        cold.totals.add(&told.counters);
        cold.interface = u16::try_from(told.interface).unwrap_or(u16::MAX);
        hot.flags &= !(SYN_SEEN | ANSWERED | ENDED | FAILED | READ);
        hot.flags |= match told.state {
            FlowState::New => SYN_SEEN,
            FlowState::Established => ANSWERED,
            FlowState::Closed => ANSWERED | ENDED,
            FlowState::Failed => ENDED | FAILED,
        };
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

    /// The flows with bytes that no tick has taken yet, in the order of their first such packet.
    pub fn take_dirty(&mut self) -> Vec<FlowId> {
        take(&mut self.dirty)
    }

    /// Reads a little of each of these flows, so that the caches have them when
    /// they are taken one by one: their misses overlap here and would not there.
    pub fn warm(&self, ids: &[FlowId]) {
        let seen = ids.iter().fold(0, |seen, id| {
            let (Some(hot), Some(cold)) = (self.hot.get(id.index), self.cold.get(id.index)) else { return seen };
            seen ^ u64::from(hot.flags) ^ cold.totals.bytes_out.0 ^ u64::from(cold.serial)
        });
        std::hint::black_box(seen);
    }

    /// Gives flows back whose bytes the tick leaves where they are.
    pub fn keep_dirty(&mut self, held: Vec<FlowId>) {
        self.dirty = held;
    }

    /// Whether a tick has something to take.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes what passed on a flow since it was last taken; it is in the totals from here on.
    pub fn take_counters(&mut self, id: FlowId) -> Counters {
        if !self.holds(id) {
            return Counters::default();
        }
        let hot = &mut self.hot[id.index];
        let cold = &mut self.cold[id.index];
        let mut taken = hot.take();
        if !self.spilled.is_empty()
            && let Some(spilled) = self.spilled.remove(&id.index)
        {
            taken.add(&spilled);
        }
        hot.flags &= !DIRTY;
        cold.totals.add(&taken);
        taken
    }

    /// A flow's facts, or `None` where it has left the table.
    pub fn flow(&self, id: FlowId) -> Option<Flow> {
        self.holds(id).then(|| self.copy_out(id.index))
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

    /// The flow of a key whose packets came without an owner.
    pub fn find_key(&self, key: &FlowKey, slot: OwnerSlot) -> Option<FlowId> {
        let same = |&index: &u32| self.hot[index].key == *key && self.hot[index].slot == slot;
        let index = *self.index.find(hash_key(&self.hasher, key), same)?;
        Some(FlowId { index, serial: self.cold[index].serial })
    }

    /// The flows of a key, whatever their owner.
    pub fn find_all(&self, key: &FlowKey) -> Vec<FlowId> {
        let same = |index: &&u32| self.hot[**index].key == *key;
        let found = self.index.iter_hash(hash_key(&self.hasher, key)).filter(same);
        found.map(|&index| FlowId { index, serial: self.cold[index].serial }).collect()
    }

    /// Whether another entry has the key of this one: the same tuple with another owner.
    pub fn has_sibling(&self, id: FlowId) -> bool {
        let key = self.hot[id.index].key;
        self.index
            .find(hash_key(&self.hasher, &key), |&index| index != id.index && self.hot[index].key == key)
            .is_some()
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
            if !self.holds(id) || self.hot[id.index].flags & INDEXED == 0 {
                continue;
            }
            let hot = &self.hot[id.index];
            let (wait, reason) = match hot.flags & ENDED {
                0 => (self.limits.idle_timeout, FlowEndReason::IdleTimeout),
                _ => (LINGER, FlowEndReason::EndOfFlow),
            };
            let due = hot.last.after(wait);
            if due <= now && hot.flags & DIRTY == 0 {
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
        (0..self.hot.len())
            .filter(|&index| self.hot[index].flags & INDEXED != 0)
            .map(|index| FlowId { index, serial: self.cold[index].serial })
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

    #[inline]
    fn find(&self, hash: u64, packet: &Packet<'_>, slot: OwnerSlot) -> Option<u32> {
        let tuple = &packet.five_tuple;
        let same = |index: &u32| {
            let hot = &self.hot[*index];
            let key = &hot.key;
            let out = key.local == tuple.source && key.remote == tuple.destination;
            let back = key.local == tuple.destination && key.remote == tuple.source;
            let oriented = match packet.direction {
                None => out || back,
                Some(FrameDirection::Out) => out,
                Some(FrameDirection::In) => back,
            };
            oriented && key.protocol == tuple.protocol && key.namespace.0 == 0 && hot.slot == slot
        };
        self.index.find(hash, same).copied()
    }

    /// Counts a packet; gives its flow and way where its payload is to be read.
    #[inline]
    fn count(
        &mut self,
        found: Option<u32>,
        hash: u64,
        packet: &Packet<'_>,
        slot: OwnerSlot,
        local: &LocalAddresses,
    ) -> Option<(FlowId, FrameDirection)> {
        let index = match found {
            Some(index) if !self.reopens(index, packet) => index,
            found => {
                if let Some(index) = found {
                    self.supersede(index);
                }
                let Some(index) = self.open(hash, packet, slot, local) else {
                    self.statistics.refused += 1;
                    self.statistics.refused_bytes += packet.bytes.0;
                    return None;
                };
                index
            }
        };
        let hot = &mut self.hot[index];
        let out = hot.key.local == packet.five_tuple.source;
        hot.last = hot.last.max(packet.timestamp);
        if !hot.add(out, packet) {
            self.spilled.entry(index).or_default().add(&counters_of(out, packet));
        }
        let hot = &mut self.hot[index];
        let ended = hot.follow(out, packet.tcp_flags);
        if hot.flags & DIRTY == 0 || ended {
            let id = FlowId { index, serial: self.cold[index].serial };
            self.mark_dirty(id);
            if ended {
                self.expiry.schedule(id, packet.timestamp.after(LINGER));
            }
        }
        if self.hot[index].flags & READ == 0 || packet.payload.is_empty() {
            return None;
        }
        let id = FlowId { index, serial: self.cold[index].serial };
        Some((id, if out { FrameDirection::Out } else { FrameDirection::In }))
    }

    /// Whether the packet opens a connection anew on the tuple of one that ended.
    #[inline]
    fn reopens(&self, index: u32, packet: &Packet<'_>) -> bool {
        self.hot[index].flags & ENDED != 0 && packet.tcp_flags.is_some_and(TcpFlags::opens)
    }

    fn supersede(&mut self, index: u32) {
        let id = FlowId { index, serial: self.cold[index].serial };
        self.unlink(index);
        self.superseded.push(id);
    }

    fn open(&mut self, hash: u64, packet: &Packet<'_>, slot: OwnerSlot, local: &LocalAddresses) -> Option<u32> {
        let (key, way) = local
            .orient(&packet.five_tuple, packet.direction)
            .unwrap_or_else(|| (FlowKey::of(&packet.five_tuple, FrameDirection::Out), FrameDirection::Out));
        // A SYN-ACK is an answer: its receiver opened the connection.
        let answers = packet.tcp_flags.is_some_and(|flags| flags.has(TcpFlags::SYN | TcpFlags::ACK));
        let local_opened = (way == FrameDirection::Out) != answers;
        let direction = direction_of(&key, local_opened, local);
        let (at, interface) = (packet.timestamp, packet.interface);
        self.insert(hash, Opened { key, slot, direction, local_opened, at, interface })
    }

    fn insert(&mut self, hash: u64, opened: Opened) -> Option<u32> {
        if self.statistics.live >= self.limits.max_flows && !self.evict() {
            return None;
        }
        let Opened { key, slot, direction, local_opened, at, interface } = opened;
        let flags = INDEXED | READ | if local_opened { LOCAL_OPENED } else { 0 };
        let hot = Hot { key, slot, last: at, flags, ..Hot::default() };
        let interface = u16::try_from(interface).unwrap_or(u16::MAX);
        let reported = second_of(at);
        let cold = Cold { first: at, reported, owner: slot, interface, direction, ..Cold::default() };
        let index = match self.free.pop() {
            Some(index) => {
                let serial = self.cold[index].serial;
                self.hot[index] = hot;
                self.cold[index] = Cold { serial, ..cold };
                index
            }
            None => {
                self.cold.push(cold);
                self.hot.push(hot)
            }
        };
        let Self { index: table, hot, hasher, .. } = self;
        table.insert_unique(hash, index, |&other| hash_key(hasher, &hot[other].key));
        let id = FlowId { index, serial: self.cold[index].serial };
        self.expiry.schedule(id, at.after(self.limits.idle_timeout));
        self.opened.push(id);
        self.version += 1;
        self.statistics.live += 1;
        self.statistics.total += 1;
        Some(index)
    }

    /// Makes room: the flow that is nearest to its idle timeout leaves, if a
    /// tick has taken its bytes.
    fn evict(&mut self) -> bool {
        for _ in 0..EVICTION_TRIES {
            let Some(id) = self.expiry.pop_first() else { return false };
            if !self.holds(id) || self.hot[id.index].flags & INDEXED == 0 {
                continue;
            }
            if self.hot[id.index].flags & DIRTY != 0 {
                let due = self.hot[id.index].last.after(self.limits.idle_timeout);
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
        if self.hot[index].flags & INDEXED == 0 {
            return;
        }
        self.hot[index].flags &= !INDEXED;
        let key = self.hot[index].key;
        if let Ok(entry) = self.index.find_entry(hash_key(&self.hasher, &key), |&other| other == index) {
            entry.remove();
        }
        self.version += 1;
    }

    fn mark_dirty(&mut self, id: FlowId) {
        let hot = &mut self.hot[id.index];
        if hot.flags & DIRTY == 0 {
            hot.flags |= DIRTY;
            self.dirty.push(id);
        }
    }

    fn copy_out(&self, index: u32) -> Flow {
        let hot = &self.hot[index];
        let cold = &self.cold[index];
        Flow {
            key: hot.key,
            direction: cold.direction,
            state: hot.state(),
            totals: cold.totals,
            first: cold.first,
            last: hot.last,
            owner: cold.owner,
            interface: cold.interface.into(),
        }
    }
}

impl Hot {
    /// Adds a packet; `false`, and nothing added, where a sum would outgrow 32 bits.
    #[inline]
    fn add(&mut self, out: bool, packet: &Packet<'_>) -> bool {
        let (bytes, payload, packets) = if out {
            (&mut self.bytes_out, &mut self.payload_out, &mut self.packets_out)
        } else {
            (&mut self.bytes_in, &mut self.payload_in, &mut self.packets_in)
        };
        let more_bytes = u64::from(*bytes).saturating_add(packet.bytes.0);
        let more_payload = u64::from(*payload).saturating_add(packet.payload_bytes.0);
        let (Ok(more_bytes), Ok(more_payload), Some(more_packets)) =
            (u32::try_from(more_bytes), u32::try_from(more_payload), packets.checked_add(1))
        else {
            return false;
        };
        (*bytes, *payload, *packets) = (more_bytes, more_payload, more_packets);
        true
    }

    /// Adds counts; `false`, and nothing added, where a sum would outgrow 32 bits.
    fn add_counters(&mut self, more: &Counters) -> bool {
        let mut sum = self.counters();
        sum.add(more);
        let small = |value: u64| u32::try_from(value).ok();
        let (Some(bytes_out), Some(bytes_in), Some(payload_out), Some(payload_in), Some(out), Some(into)) = (
            small(sum.bytes_out.0),
            small(sum.bytes_in.0),
            small(sum.payload_out.0),
            small(sum.payload_in.0),
            small(sum.packets_out.0),
            small(sum.packets_in.0),
        ) else {
            return false;
        };
        (self.bytes_out, self.bytes_in) = (bytes_out, bytes_in);
        (self.payload_out, self.payload_in) = (payload_out, payload_in);
        (self.packets_out, self.packets_in) = (out, into);
        true
    }

    /// Notes what the packet says of the connection; whether it has just ended.
    #[inline]
    fn follow(&mut self, out: bool, tcp_flags: Option<TcpFlags>) -> bool {
        let from_responder = out != (self.flags & LOCAL_OPENED != 0);
        let Some(tcp) = tcp_flags else {
            if from_responder {
                self.flags |= ANSWERED;
            }
            return false;
        };
        let was_ended = self.flags & ENDED != 0;
        if tcp.0 & (TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) != 0 {
            self.follow_signal(out, from_responder, tcp);
        } else if from_responder {
            self.flags |= ANSWERED;
        }
        !was_ended && self.flags & ENDED != 0
    }

    fn follow_signal(&mut self, out: bool, from_responder: bool, tcp: TcpFlags) {
        if tcp.has(TcpFlags::RST) {
            if from_responder && self.flags & (ANSWERED | SYN_SEEN) == SYN_SEEN {
                self.flags |= FAILED;
            }
            self.flags |= ENDED;
            return;
        }
        if from_responder {
            self.flags |= ANSWERED;
        }
        if tcp.opens() {
            self.flags |= SYN_SEEN;
        }
        if tcp.has(TcpFlags::FIN) {
            self.flags |= if out { FIN_OUT } else { FIN_IN };
            if self.flags & (FIN_OUT | FIN_IN) == FIN_OUT | FIN_IN {
                self.flags |= ENDED;
            }
        }
    }

    fn take(&mut self) -> Counters {
        let taken = self.counters();
        (self.bytes_out, self.bytes_in, self.payload_out, self.payload_in) = (0, 0, 0, 0);
        (self.packets_out, self.packets_in) = (0, 0);
        taken
    }

    fn counters(&self) -> Counters {
        Counters {
            bytes_out: Bytes(self.bytes_out.into()),
            bytes_in: Bytes(self.bytes_in.into()),
            payload_out: Bytes(self.payload_out.into()),
            payload_in: Bytes(self.payload_in.into()),
            packets_out: Packets(self.packets_out.into()),
            packets_in: Packets(self.packets_in.into()),
        }
    }

    fn state(&self) -> FlowState {
        match self.flags {
            flags if flags & FAILED != 0 => FlowState::Failed,
            flags if flags & ENDED != 0 => FlowState::Closed,
            flags if flags & ANSWERED != 0 => FlowState::Established,
            _ => FlowState::New,
        }
    }
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

fn hash_key(hasher: &foldhash::fast::RandomState, key: &FlowKey) -> u64 {
    hash_ends(hasher, key.protocol, key.namespace.0, &key.local, &key.remote)
}

/// The same for both directions of a flow.
#[inline]
fn hash_ends(
    state: &foldhash::fast::RandomState,
    protocol: Protocol,
    namespace: u32,
    one: &Endpoint,
    other: &Endpoint,
) -> u64 {
    let end = |endpoint: &Endpoint| {
        let mut hasher = state.build_hasher();
        hasher.write_u128(u128::from_ne_bytes(endpoint.address.octets()));
        hasher.write_u16(endpoint.port);
        hasher.finish()
    };
    let mut hasher = state.build_hasher();
    hasher.write_u64(end(one).wrapping_add(end(other)));
    hasher.write_u64(u64::from(protocol.0) << 32 | u64::from(namespace));
    hasher.finish()
}

fn second_of(at: Timestamp) -> u32 {
    u32::try_from(at.as_secs()).unwrap_or(0)
}

/// Entries looked at before a full table refuses a flow.
const EVICTION_TRIES: usize = 64;
