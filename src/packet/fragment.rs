//! Fragments: the ports of a datagram stand in its first fragment only.
//!
//! The table remembers them for the later ones, so that all of a datagram's
//! bytes count for its flow. It holds at most [`Fragments::CAPACITY`]
//! datagrams; when it is full the oldest is forgotten and counted.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::packet::{Address, Protocol};
use crate::time::Timestamp;

/// Whether a packet is whole (RFC 791, section 3.2; RFC 8200, section 4.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    #[default]
    None,
    /// The first fragment, which has the transport header.
    First,
    /// A later fragment, which has none.
    Later,
}

/// The datagrams whose first fragment was seen.
#[derive(Debug, Default)]
pub struct Fragments {
    datagrams: HashMap<Datagram, Remembered>,
    /// The same, the oldest first; an entry that was replaced since is stale.
    ages: VecDeque<(Timestamp, Datagram)>,
    losses: FragmentLosses,
}

/// What tracking fragments cost, as running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct FragmentLosses {
    /// Datagrams forgotten early because the table was full.
    pub forgotten: u64,
    /// Later fragments whose first one was not known; they count with port 0.
    pub without_first: u64,
}

/// What all fragments of one datagram have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Datagram {
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) identification: u32,
    /// For IPv4, where it is part of the identity (RFC 791); 0 for IPv6.
    pub(super) protocol: u8,
}

/// What the first fragment said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstFragment {
    /// For IPv6 the first fragment may have further extension headers.
    pub(super) protocol: Protocol,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

#[derive(Debug)]
struct Remembered {
    since: Timestamp,
    first: FirstFragment,
}

impl Fragments {
    /// Datagrams held at once.
    pub const CAPACITY: usize = 4096;
    /// How long a datagram's fragments may be under way (RFC 8200, section
    /// 4.5); after that its identification may be used again.
    pub const LIFETIME: Duration = Duration::from_secs(60);

    /// What tracking fragments has cost so far.
    pub fn losses(&self) -> FragmentLosses {
        self.losses
    }

    /// Remembers what a first fragment said.
    pub(super) fn remember(&mut self, datagram: Datagram, first: FirstFragment, now: Timestamp) {
        self.datagrams.insert(datagram, Remembered { since: now, first });
        self.ages.push_back((now, datagram));
        // A flood of first fragments of one datagram grows the queue but not the table.
        while self.ages.len() > Self::CAPACITY {
            self.forget_oldest(now);
        }
    }

    /// What the first fragment of this datagram said.
    pub(super) fn recall(&mut self, datagram: &Datagram, now: Timestamp) -> Option<FirstFragment> {
        let remembered = self
            .datagrams
            .get(datagram)
            // Time may go backwards in a capture; a fragment from before is as good as one from after.
            .filter(|known| now.since(known.since) <= Self::LIFETIME)
            .map(|known| known.first);
        if remembered.is_none() {
            self.losses.without_first = self.losses.without_first.saturating_add(1);
        }
        remembered
    }

    fn forget_oldest(&mut self, now: Timestamp) {
        let Some((since, datagram)) = self.ages.pop_front() else { return };
        let current = self.datagrams.get(&datagram).is_some_and(|known| known.since == since);
        if current {
            self.datagrams.remove(&datagram);
            if now.since(since) <= Self::LIFETIME {
                self.losses.forgotten = self.losses.forgotten.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_fragment_learns_the_ports_of_the_first() {
        let mut fragments = Fragments::default();
        fragments.remember(datagram(7), FIRST, at(0));
        assert_eq!(fragments.recall(&datagram(7), at(1)), Some(FIRST));
        assert_eq!(fragments.recall(&datagram(8), at(1)), None);
        assert_eq!(fragments.losses().without_first, 1);
    }

    #[test]
    fn an_identification_is_used_again_after_a_minute() {
        let mut fragments = Fragments::default();
        fragments.remember(datagram(7), FIRST, at(0));
        assert_eq!(fragments.recall(&datagram(7), at(61)), None);
    }

    #[test]
    fn a_flood_of_first_fragments_stays_bounded_and_is_counted() {
        let mut fragments = Fragments::default();
        for number in 0..100_000 {
            fragments.remember(datagram(number), FIRST, at(0));
        }
        assert_eq!(fragments.datagrams.len(), Fragments::CAPACITY);
        assert_eq!(fragments.losses().forgotten, 100_000 - Fragments::CAPACITY as u64);
        assert_eq!(fragments.recall(&datagram(99_999), at(0)), Some(FIRST));
    }

    #[test]
    fn a_flood_for_one_datagram_stays_bounded() {
        let mut fragments = Fragments::default();
        for _ in 0..100_000 {
            fragments.remember(datagram(1), FIRST, at(0));
        }
        assert!(fragments.ages.len() <= Fragments::CAPACITY && fragments.datagrams.len() <= 1);
    }

    const FIRST: FirstFragment = FirstFragment { protocol: Protocol::UDP, source_port: 53, destination_port: 4000 };

    fn datagram(identification: u32) -> Datagram {
        let address = Address::from_v4([192, 0, 2, 1]);
        Datagram { source: address, destination: address, identification, protocol: 17 }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }
}
