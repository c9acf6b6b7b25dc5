//! What was on the wire and no socket counted.
//!
//! The kernel source counts what sockets send and receive; a tap sees frames.
//! What it saw beyond that was forwarded, or made past the sockets by whoever
//! holds a packet socket. Frames and counts of one packet arrive at different
//! times, so frames wait for a few readings before they are held against them.
//!
//! Bounded: pairs of ends beyond [`MAX_PAIRS`] are not followed, and counted.

use std::collections::HashMap;
use std::sync::Arc;

use crate::attribution::{Attribution, FlowUpdate, Process, ProcessKey, Suspects, UnknownReason};
use crate::flow::{Counters, Direction, FlowKey, FlowState, LocalAddresses, Namespace, Scope};
use crate::packet::{FrameDirection, Packet, Protocol};
use crate::time::Timestamp;
use crate::units::{Bytes, Packets};

/// Holds frames against counts.
#[derive(Debug)]
pub struct Unexplained {
    local: LocalAddresses,
    /// The namespace in which the tap sees frames.
    namespace: Namespace,
    pairs: HashMap<FlowKey, Pair>,
    /// What sockets counted between ends of which no frame was seen, lately and before.
    ahead: [HashMap<FlowKey, Counters>; 2],
    /// What processes sent through packet sockets, until its frames are found.
    injected: HashMap<ProcessKey, Injected>,
    unfollowed: u64,
}

/// What passed between two ends; `out` is from the lower one to the higher.
#[derive(Debug)]
struct Pair {
    waiting: [Counters; HOLD],
    settled: Counters,
    counted: Counters,
    told: Counters,
    /// Whether the first frame came from the lower end.
    from_lower: bool,
    origin: Origin,
    last: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The first frame came from an address of this host.
    Here,
    /// It was for an address of this host.
    There,
    /// Neither, and it came in before it went out.
    Forwarded,
    /// Neither, and it was only seen to go out.
    Elsewhere,
}

#[derive(Debug)]
struct Injected {
    update: FlowUpdate,
    age: usize,
}

impl Unexplained {
    /// Nothing was seen yet. Frames are those of `namespace`.
    pub fn new(local: LocalAddresses, namespace: Namespace) -> Self {
        Self {
            local,
            namespace,
            pairs: HashMap::new(),
            ahead: [HashMap::new(), HashMap::new()],
            injected: HashMap::new(),
            unfollowed: 0,
        }
    }

    /// Takes a frame of the tap.
    pub fn take_packet(&mut self, packet: &Packet<'_>) {
        let (from, to) = (packet.five_tuple.source, packet.five_tuple.destination);
        let (ours, theirs) = (self.local.contains(from.address), self.local.contains(to.address));
        let leaves = packet.direction == Some(FrameDirection::Out);
        let scopes = [Scope::of(from.address), Scope::of(to.address)];
        // What loops back passes no wire, and a group is nobody's.
        if (ours && theirs) || scopes.iter().any(|scope| matches!(scope, Scope::Loopback | Scope::Multicast)) {
            return;
        }
        let (key, from_lower) = canonical(FlowKey::of(&packet.five_tuple, FrameDirection::Out));
        if !self.pairs.contains_key(&key) && self.pairs.len() >= MAX_PAIRS {
            self.unfollowed += 1;
            return;
        }
        let Self { pairs, ahead, .. } = self;
        let pair = pairs.entry(key).or_insert_with(|| {
            let mut counted = Counters::default();
            ahead.iter_mut().filter_map(|known| known.remove(&key)).for_each(|known| counted.add(&known));
            let origin = match (ours, theirs) {
                (true, _) => Origin::Here,
                (_, true) => Origin::There,
                _ if leaves => Origin::Elsewhere,
                _ => Origin::Forwarded,
            };
            Pair::new(counted, from_lower, origin)
        });
        pair.last = pair.last.max(packet.timestamp);
        // What passes this host is counted as it leaves; a broadcast of others never does.
        if !leaves && !theirs {
            return;
        }
        let counters = Counters {
            bytes_out: packet.bytes,
            payload_out: packet.payload_bytes,
            packets_out: Packets(1),
            ..Counters::default()
        };
        if let Some(newest) = pair.waiting.first_mut() {
            newest.add(&if from_lower { counters } else { swapped(&counters) });
        }
    }

    /// Takes what sockets counted. `true` where it is held back until its frames are found.
    pub fn take_update(&mut self, update: &FlowUpdate) -> bool {
        if Self::is_injection(&update.key) && update.key.namespace == self.namespace {
            let Some(process) = update.attribution.process() else { return false };
            let injected = self.injected.entry(process.key).or_insert_with(|| Injected {
                update: FlowUpdate { counters: Counters::default(), ..update.clone() },
                age: 0,
            });
            injected.update.counters.add(&update.counters);
            injected.update.timestamp = update.timestamp;
            injected.age = 0;
            return true;
        }
        let (key, from_lower) = canonical(FlowKey { namespace: Namespace::default(), ..update.key });
        let counters = if from_lower { update.counters } else { swapped(&update.counters) };
        match self.pairs.get_mut(&key) {
            Some(pair) => pair.counted.add(&counters),
            None => self.ahead[0].entry(key).or_default().add(&counters),
        }
        false
    }

    /// Whether these are frames that a process sent through a packet socket,
    /// of whose ends the kernel source knows nothing.
    pub fn is_injection(key: &FlowKey) -> bool {
        key.protocol == Protocol(INJECTED) && key.remote.address.is_unspecified()
    }

    /// Frames of pairs that were not followed for want of room.
    pub fn unfollowed(&self) -> u64 {
        self.unfollowed
    }

    /// Once a second: what sockets did not count, and whose it is as far as
    /// that can be told. `suspects` hold packet sockets.
    pub fn settle(&mut self, now: Timestamp, suspects: &[Arc<Process>]) -> Vec<FlowUpdate> {
        let mut told = Vec::new();
        let mut known = std::mem::take(&mut self.injected);
        let mut several: Counters = Counters::default();
        for injected in known.values() {
            several.add(&injected.update.counters);
        }
        let mut keys: Vec<FlowKey> = self.pairs.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            let Some(pair) = self.pairs.get_mut(&key) else { continue };
            let Some(fresh) = pair.settle() else { continue };
            let update = self.update(&key, fresh, now, suspects);
            let Some(mut update) = update else { continue };
            let made_here = update.attribution.suspects().is_some_and(|one| one.reason == UnknownReason::NoSocket);
            if made_here && known.len() == 1 {
                // Whoever sent through a packet socket sent this.
                for injected in known.values_mut() {
                    injected.update.counters = less(&injected.update.counters, &update.counters);
                    update.attribution = injected.update.attribution.clone();
                }
            } else if made_here && update.counters.bytes_out <= several.bytes_out {
                // One of several did, each of which is told for its own bytes.
                several.bytes_out = several.bytes_out.saturating_sub(update.counters.bytes_out);
                continue;
            }
            told.push(update);
        }
        for (key, mut injected) in known {
            injected.age += 1;
            if injected.age <= HOLD + 1 {
                self.injected.insert(key, injected);
            } else if !injected.update.counters.is_empty() {
                told.push(FlowUpdate { timestamp: now, ..injected.update });
            }
        }
        self.pairs.retain(|_, pair| now.since(pair.last) < FORGET_AFTER);
        let [lately, before] = &mut self.ahead;
        *before = std::mem::take(lately);
        told
    }

    /// Tells what is left when no more frames come.
    pub fn finish(&mut self, now: Timestamp, suspects: &[Arc<Process>]) -> Vec<FlowUpdate> {
        (0..HOLD + 3).flat_map(|_| self.settle(now, suspects)).collect()
    }

    fn update(&self, key: &FlowKey, fresh: Counters, now: Timestamp, suspects: &[Arc<Process>]) -> Option<FlowUpdate> {
        let pair = self.pairs.get(key)?;
        let (reason, inbound) = match pair.origin {
            Origin::Forwarded => (UnknownReason::Forwarded, false),
            Origin::Here | Origin::Elsewhere => (UnknownReason::NoSocket, false),
            Origin::There => (UnknownReason::NoSocket, true),
        };
        // The flow's own end is the one that it began at, or this host's.
        let from_lower = pair.from_lower != inbound;
        let key = FlowKey { namespace: self.namespace, ..if from_lower { *key } else { key.reversed() } };
        let attribution = match reason {
            UnknownReason::NoSocket if !inbound => {
                Attribution::Suspected(Arc::new(Suspects::new(reason, suspects.to_vec())))
            }
            reason => Attribution::Unknown(reason),
        };
        Some(FlowUpdate {
            key,
            direction: Some(if inbound { Direction::Inbound } else { Direction::Outbound }),
            counters: if from_lower { fresh } else { swapped(&fresh) },
            attribution,
            timestamp: now,
            state: FlowState::Established,
            end_reason: None,
        })
    }
}

impl Pair {
    fn new(counted: Counters, from_lower: bool, origin: Origin) -> Self {
        Self {
            waiting: [Counters::default(); HOLD],
            settled: Counters::default(),
            counted,
            told: Counters::default(),
            from_lower,
            origin,
            last: Timestamp::EPOCH,
        }
    }

    /// Lets a second pass. What is left of the frames that waited long enough, if it is worth telling.
    fn settle(&mut self) -> Option<Counters> {
        if let Some(oldest) = self.waiting.last() {
            self.settled.add(oldest);
        }
        self.waiting.rotate_right(1);
        if let Some(newest) = self.waiting.first_mut() {
            *newest = Counters::default();
        }
        let left = self.settled.since(&self.counted);
        let payload = |counters: &Counters| counters.payload_out.0 + counters.payload_in.0;
        let enough = match (self.counted.is_empty(), self.origin) {
            (false, _) => payload(&left) > payload(&self.counted) / TOLERANCE + SLACK,
            // Refusals of this host pass beside its sockets: they carry nothing.
            (true, Origin::Here | Origin::There) => payload(&left) > 0,
            (true, Origin::Forwarded | Origin::Elsewhere) => true,
        };
        if !enough {
            return None;
        }
        let fresh = left.since(&self.told);
        if fresh.is_empty() {
            return None;
        }
        self.told = left;
        Some(fresh)
    }
}

/// The key with the lower end first, and whether it was so.
fn canonical(key: FlowKey) -> (FlowKey, bool) {
    if key.local <= key.remote { (key, true) } else { (key.reversed(), false) }
}

fn swapped(counters: &Counters) -> Counters {
    Counters {
        bytes_out: counters.bytes_in,
        bytes_in: counters.bytes_out,
        payload_out: counters.payload_in,
        payload_in: counters.payload_out,
        packets_out: counters.packets_in,
        packets_in: counters.packets_out,
    }
}

/// What was injected, less the frames that were found. All of a frame is payload to its sender.
fn less(injected: &Counters, found: &Counters) -> Counters {
    let left = Bytes(injected.bytes_out.0.saturating_sub(found.bytes_out.0));
    if left == Bytes(0) {
        return Counters::default();
    }
    let packets_out = Packets(injected.packets_out.0.saturating_sub(found.packets_out.0));
    Counters { bytes_out: left, payload_out: left, packets_out, ..Counters::default() }
}

/// Seconds that frames wait for the counts of their sockets.
const HOLD: usize = 3;

/// Pairs of ends that are followed at once.
const MAX_PAIRS: usize = 65_536;

/// Where sockets counted as well, a difference of one in so many and of a little more is none:
/// handshakes belong to listeners, and frames are cut apart in other places.
const TOLERANCE: u64 = 20;
const SLACK: u64 = 65_536;

/// A pair without frames for so long is forgotten.
const FORGET_AFTER: std::time::Duration = std::time::Duration::from_secs(30);

/// The protocol number under which the kernel source counts frames of packet sockets.
const INJECTED: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::{Evidence, Executable};
    use crate::packet::{Address, Endpoint, FiveTuple, Fragment};

    const HERE: [u8; 4] = [198, 51, 100, 2];
    const THERE: [u8; 4] = [203, 0, 113, 7];
    const GUEST: [u8; 4] = [10, 88, 0, 5];

    #[test]
    fn what_sockets_counted_is_explained_whichever_came_first() {
        let mut unexplained = unexplained();
        for second in 0..20 {
            if second % 2 == 0 {
                unexplained.take_update(&counted(HERE, THERE, 10_000));
            }
            for _ in 0..10 {
                unexplained.take_packet(&packet(HERE, THERE, 1_000, FrameDirection::Out, second));
            }
            if second % 2 == 1 {
                unexplained.take_update(&counted(HERE, THERE, 10_000));
            }
            assert!(told(&mut unexplained, second).is_empty(), "{second}");
        }
        assert!(unexplained.finish(at(20), &[]).is_empty());
    }

    #[test]
    fn frames_without_a_socket_have_suspects() {
        let mut unexplained = unexplained();
        for _ in 0..100 {
            unexplained.take_packet(&packet(HERE, THERE, 1_000, FrameDirection::Out, 1));
        }
        // The same host talks to the same peer in an honest way as well.
        unexplained.take_update(&FlowUpdate {
            key: FlowKey { local: end(HERE, 2), ..counted(HERE, THERE, 1).key },
            ..counted(HERE, THERE, 500)
        });
        let suspect = process(9, "/tmp/injector");
        let told = unexplained.finish(at(2), std::slice::from_ref(&suspect));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].counters.payload_out, told[0].counters.packets_out), (Bytes(100_000), Packets(100)));
        assert_eq!(told[0].key.remote, end(THERE, 443));
        let suspects = told[0].attribution.suspects().unwrap();
        assert_eq!(suspects.executables(), ["/tmp/injector"]);
        assert_eq!(told[0].attribution.unknown_reason(), Some(UnknownReason::NoSocket));
        assert!(told[0].attribution.process().is_none(), "a suspect is no owner");
    }

    #[test]
    fn frames_of_a_known_injector_are_its_own_and_counted_once() {
        let mut unexplained = unexplained();
        for _ in 0..100 {
            unexplained.take_packet(&packet(HERE, THERE, 1_000, FrameDirection::Out, 1));
        }
        assert!(unexplained.take_update(&injected(9, 103_800)), "it waits for its frames");
        let told = unexplained.finish(at(2), &[process(9, "/tmp/injector"), process(10, "/usr/sbin/dhclient")]);
        let sum: u64 = told.iter().map(|update| update.counters.bytes_out.0).sum();
        assert_eq!(sum, 103_800, "{told:?}");
        assert!(told.iter().all(|update| update.attribution.process().is_some_and(|process| process.key.pid == 9)));
        assert!(told.iter().any(|update| update.key.remote == end(THERE, 443)), "and it is known where to");
        assert!(unexplained.finish(at(3), &[]).is_empty());
    }

    #[test]
    fn with_two_injectors_each_has_its_own_bytes() {
        let mut unexplained = unexplained();
        for _ in 0..100 {
            unexplained.take_packet(&packet(HERE, THERE, 1_000, FrameDirection::Out, 1));
        }
        unexplained.take_update(&injected(9, 60_000));
        unexplained.take_update(&injected(10, 60_000));
        let told = unexplained.finish(at(2), &[]);
        let of = |pid| -> u64 {
            let own = told.iter().filter(|update| update.attribution.process().is_some_and(|one| one.key.pid == pid));
            own.map(|update| update.counters.bytes_out.0).sum()
        };
        assert_eq!((of(9), of(10), told.len()), (60_000, 60_000, 2), "{told:?}");
    }

    #[test]
    fn forwarded_packets_count_once_and_those_of_containers_not_at_all() {
        let mut unexplained = unexplained();
        for way in [FrameDirection::In, FrameDirection::Out] {
            unexplained.take_packet(&packet(GUEST, THERE, 1_000, way, 1));
            unexplained.take_packet(&packet(THERE, GUEST, 500, way, 1));
        }
        let told = unexplained.finish(at(2), &[]);
        assert_eq!(told.len(), 1, "{told:?}");
        let counters = told[0].counters;
        assert_eq!((counters.payload_out, counters.payload_in), (Bytes(1_000), Bytes(500)));
        assert_eq!(told[0].key.local, end(GUEST, 1));
        assert_eq!(told[0].attribution.unknown_reason(), Some(UnknownReason::Forwarded));

        // The same, from a socket in another namespace of this host.
        for way in [FrameDirection::In, FrameDirection::Out] {
            unexplained.take_packet(&packet(GUEST, THERE, 1_000, way, 40));
        }
        let mut update = counted(GUEST, THERE, 2_000);
        update.key.namespace = Namespace(77);
        unexplained.take_update(&update);
        assert!(unexplained.finish(at(41), &[]).is_empty());
    }

    #[test]
    fn broadcasts_of_others_and_refusals_are_nothing() {
        let mut unexplained = unexplained();
        unexplained.take_packet(&packet([198, 51, 100, 9], [198, 51, 100, 255], 300, FrameDirection::In, 1));
        unexplained.take_packet(&packet(HERE, [224, 0, 0, 251], 300, FrameDirection::Out, 1));
        // A reset, from no socket.
        unexplained.take_packet(&packet(HERE, THERE, 0, FrameDirection::Out, 1));
        assert!(unexplained.finish(at(2), &[]).is_empty());
    }

    #[test]
    fn more_pairs_than_there_is_room_for_are_counted() {
        let mut unexplained = unexplained();
        for number in 0..u32::try_from(MAX_PAIRS).unwrap() + 10 {
            let [_, a, b, c] = number.to_be_bytes();
            unexplained.take_packet(&packet(HERE, [93, a, b, c], 1, FrameDirection::Out, 1));
        }
        assert_eq!(unexplained.unfollowed(), 10);
    }

    fn unexplained() -> Unexplained {
        Unexplained::new(LocalAddresses::new(["198.51.100.2/32".parse().unwrap()]), Namespace(1))
    }

    fn told(unexplained: &mut Unexplained, second: i64) -> Vec<FlowUpdate> {
        unexplained.settle(at(second), &[])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_secs(second)
    }

    fn end(address: [u8; 4], port: u16) -> Endpoint {
        Endpoint::new(Address::from_v4(address), port)
    }

    fn packet(from: [u8; 4], to: [u8; 4], payload: u64, way: FrameDirection, second: i64) -> Packet<'static> {
        let port = |address| if address == THERE { 443 } else { 1 };
        Packet {
            timestamp: at(second),
            five_tuple: FiveTuple {
                protocol: Protocol::UDP,
                source: end(from, port(from)),
                destination: end(to, port(to)),
            },
            bytes: Bytes(payload + 28),
            payload_bytes: Bytes(payload),
            tcp_flags: None,
            tcp_sequence: 0,
            fragment: Fragment::None,
            direction: Some(way),
            interface: 2,
            payload: &[],
        }
    }

    fn counted(from: [u8; 4], to: [u8; 4], payload: u64) -> FlowUpdate {
        FlowUpdate {
            key: FlowKey {
                protocol: Protocol::UDP,
                local: end(from, 1),
                remote: end(to, 443),
                namespace: Namespace(1),
            },
            direction: Some(Direction::Outbound),
            counters: Counters {
                bytes_out: Bytes(payload + 28),
                payload_out: Bytes(payload),
                packets_out: Packets(1),
                ..Counters::default()
            },
            attribution: Attribution::Unknown(UnknownReason::Kernel),
            timestamp: at(1),
            state: FlowState::Established,
            end_reason: None,
        }
    }

    fn injected(pid: u32, bytes: u64) -> FlowUpdate {
        FlowUpdate {
            key: FlowKey { protocol: Protocol(INJECTED), namespace: Namespace(1), ..FlowKey::default() },
            counters: Counters {
                bytes_out: Bytes(bytes),
                payload_out: Bytes(bytes),
                packets_out: Packets(100),
                ..Counters::default()
            },
            attribution: Attribution::Known { process: process(pid, "/tmp/injector"), evidence: Evidence::Kernel },
            ..counted(HERE, THERE, 0)
        }
    }

    fn process(pid: u32, path: &str) -> Arc<Process> {
        let executable = Executable { path: path.into(), ..Executable::default() };
        Arc::new(Process { key: ProcessKey { pid, start: 1 }, executable: Some(executable), ..Process::default() })
    }
}
