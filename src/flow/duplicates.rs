//! Packets that pass several interfaces of one host are counted once.
//!
//! A packet of a container passes its veth link, the bridge and the host's own
//! interface; one of a bond passes the bond and a member. A capture on all of
//! them has it several times. The interface on which a five-tuple is seen first
//! is the one whose packets count; when it has been quiet for a while and
//! another has not, the route has changed and the other takes its place.
//!
//! Bounded: a table of fixed size, in which a five-tuple can lose its place to
//! another; then a packet may count twice, and none is lost.

use std::hash::BuildHasher;
use std::time::Duration;

use crate::packet::Packet;
use crate::time::Timestamp;

/// The interface that counts for each five-tuple.
#[derive(Debug)]
pub struct Duplicates {
    hasher: foldhash::fast::RandomState,
    sets: Vec<[Place; WAYS]>,
    left_out: u64,
}

/// A five-tuple's place, by a part of its hash.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    tag: u32,
    interface: u32,
    last: Timestamp,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self { hasher: foldhash::fast::RandomState::default(), sets: vec![[Place::default(); WAYS]; SETS], left_out: 0 }
    }
}

impl Duplicates {
    /// Whether the packet counts: no other interface has shown it.
    pub fn admits(&mut self, packet: &Packet<'_>) -> bool {
        let hash = self.hasher.hash_one(packet.five_tuple);
        // The two halves of the hash choose set and tag; a tag of 0 is an empty place.
        let [tag, at] = [hash >> 32, hash & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        let tag = tag.max(1);
        let Some(set) = usize::try_from(at).ok().and_then(|at| self.sets.get_mut(at % SETS)) else { return true };
        let now = packet.timestamp;
        if let Some(place) = set.iter_mut().find(|place| place.tag == tag) {
            if place.interface != packet.interface && now.since(place.last) < QUIET {
                self.left_out += 1;
                return false;
            }
            place.interface = packet.interface;
            place.last = place.last.max(now);
            return true;
        }
        if let Some(oldest) = set.iter_mut().min_by_key(|place| place.last) {
            *oldest = Place { tag, interface: packet.interface, last: now };
        }
        true
    }

    /// Packets that did not count.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// For how long the counted interface must be quiet before another takes its place.
const QUIET: Duration = Duration::from_secs(1);

/// Places: 1 MB for 65,536 five-tuples.
const SETS: usize = 16_384;
const WAYS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Address, Endpoint, FiveTuple, Fragment, Protocol};
    use crate::units::Bytes;

    fn packet(port: u16, interface: u32, milliseconds: i64) -> Packet<'static> {
        Packet {
            timestamp: Timestamp::from_nanos(milliseconds * 1_000_000),
            five_tuple: FiveTuple {
                protocol: Protocol::UDP,
                source: Endpoint::new(Address::from_v4([10, 0, 0, 5]), port),
                destination: Endpoint::new(Address::from_v4([198, 51, 100, 1]), 443),
            },
            bytes: Bytes(100),
            payload_bytes: Bytes(72),
            tcp_flags: None,
            tcp_sequence: 0,
            fragment: Fragment::None,
            direction: None,
            interface,
            payload: &[],
        }
    }

    #[test]
    fn a_packet_that_passes_three_interfaces_counts_once() {
        let mut duplicates = Duplicates::default();
        for time in 1..100 {
            let counted = [4, 3, 2].map(|interface| duplicates.admits(&packet(1, interface, time * 10)));
            assert_eq!(counted, [true, false, false]);
        }
        assert_eq!(duplicates.left_out(), 198);
    }

    #[test]
    fn another_route_takes_over() {
        let mut duplicates = Duplicates::default();
        assert!(duplicates.admits(&packet(1, 2, 1_000)));
        assert!(!duplicates.admits(&packet(1, 3, 1_500)));
        assert!(duplicates.admits(&packet(1, 3, 2_100)));
        assert!(!duplicates.admits(&packet(1, 2, 2_200)));
    }

    #[test]
    fn a_crowd_loses_no_packet_of_one_interface() {
        let mut duplicates = Duplicates::default();
        for round in 1..4 {
            for port in 0..=u16::MAX {
                assert!(duplicates.admits(&packet(port, 2, round)));
            }
        }
        assert_eq!(duplicates.left_out(), 0);
    }
}
