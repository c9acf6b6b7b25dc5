//! A set of networks that says which one holds an address.
//!
//! Overlapping networks are cut into disjoint stretches once, when the set is
//! built, so that a look-up is a table of the first bits and a short binary
//! search, whatever the size of the set. Where networks nest, the smallest
//! one that holds the address answers.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::packet::Address;

/// Networks of both families.
#[derive(Debug, Clone, Default)]
pub struct NetworkSet {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
    v4_stretches: Stretches<u32>,
    v6_stretches: Stretches<u128>,
}

impl NetworkSet {
    /// How many different networks there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether a network holds the address.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        match address.v4_bits() {
            Some(bits) => self.v4_stretches.find(bits).is_some(),
            None => self.v6_stretches.find(u128::from_be_bytes(address.octets())).is_some(),
        }
    }

    /// The smallest network that holds the address.
    pub fn find(&self, address: Address) -> Option<IpNet> {
        match address.v4_bits() {
            Some(bits) => self.v4_stretches.find(bits).and_then(|entry| self.v4.get(entry)).copied().map(IpNet::V4),
            None => {
                let bits = u128::from_be_bytes(address.octets());
                self.v6_stretches.find(bits).and_then(|entry| self.v6.get(entry)).copied().map(IpNet::V6)
            }
        }
    }

    /// The different networks, IPv4 first, in order.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        let v4 = self.v4.iter().copied().map(IpNet::V4);
        v4.chain(self.v6.iter().copied().map(IpNet::V6))
    }

    /// The fewest networks that hold the same addresses, IPv4 first, in order.
    pub fn merged(&self) -> Vec<IpNet> {
        let v4 = Ipv4Net::aggregate(&self.v4).into_iter().map(IpNet::V4);
        v4.chain(Ipv6Net::aggregate(&self.v6).into_iter().map(IpNet::V6)).collect()
    }

    /// How many IPv4 addresses the set holds.
    pub fn v4_addresses(&self) -> u64 {
        Ipv4Net::aggregate(&self.v4).iter().map(|network| 1u64 << (32 - network.prefix_len())).sum()
    }
}

impl FromIterator<IpNet> for NetworkSet {
    /// Host bits are cleared; an IPv4-mapped IPv6 network is an IPv4 network.
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match canonical(network) {
                IpNet::V4(network) => v4.push(network),
                IpNet::V6(network) => v6.push(network),
            }
        }
        v4.sort_unstable_by_key(|network| (network.network(), network.prefix_len()));
        v6.sort_unstable_by_key(|network| (network.network(), network.prefix_len()));
        v4.dedup();
        v6.dedup();
        let v4_stretches = Stretches::of(v4.iter().map(|network| {
            let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
            (first, last, last.checked_add(1))
        }));
        let v6_stretches = Stretches::of(v6.iter().map(|network| {
            let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
            (first, last, last.checked_add(1))
        }));
        Self { v4, v6, v4_stretches, v6_stretches }
    }
}

/// The network without host bits, in the family of the addresses it holds.
fn canonical(network: IpNet) -> IpNet {
    match network.trunc() {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
            Some(address) => Ipv4Net::new(address, v6.prefix_len() - 96).map_or(IpNet::V6(v6), IpNet::V4),
            None => IpNet::V6(v6),
        },
        other => other,
    }
}

/// Disjoint stretches of the number line: the network that each belongs to.
///
/// Stretch `i` runs from `starts[i]` to the next start; `owners[i]` is the
/// number of its network, or [`NOBODY`] for a gap. `slots` says, for the first
/// bits of a number, which stretches may hold it.
#[derive(Debug, Clone)]
struct Stretches<T> {
    starts: Vec<T>,
    owners: Vec<u32>,
    slots: Vec<u32>,
    shift: u32,
}

impl<T> Default for Stretches<T> {
    fn default() -> Self {
        Self { starts: Vec::new(), owners: Vec::new(), slots: Vec::new(), shift: 0 }
    }
}

impl<T: Number> Stretches<T> {
    /// From the first and last number of each network and the one after it, in order of
    /// the first, larger networks before those they hold.
    fn of(networks: impl Iterator<Item = (T, T, Option<T>)>) -> Self {
        let mut made = Self::default();
        let mut open: Vec<(T, Option<T>, u32)> = Vec::new();
        for (number, (first, last, after)) in (0u32..).zip(networks) {
            made.close(&mut open, Some(first));
            made.push(first, number);
            open.push((last, after, number));
        }
        made.close(&mut open, None);
        made.index();
        made
    }

    /// Ends the open networks that end before `next`; what surrounds them goes on.
    fn close(&mut self, open: &mut Vec<(T, Option<T>, u32)>, next: Option<T>) {
        while let Some(&(last, after, _)) = open.last() {
            if next.is_some_and(|next| next <= last) {
                return;
            }
            open.pop();
            let Some(after) = after else { continue };
            let surrounding = open.last().filter(|(outer, ..)| *outer >= after).map_or(NOBODY, |(.., number)| *number);
            self.push(after, surrounding);
        }
    }

    /// Begins a stretch; one of no length that began here gives way.
    fn push(&mut self, start: T, owner: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.owners.pop();
        }
        self.starts.push(start);
        self.owners.push(owner);
    }

    fn index(&mut self) {
        let bits = (usize::BITS - self.starts.len().leading_zeros()).clamp(1, MAX_SLOT_BITS);
        self.shift = T::BITS - bits;
        let mut position = 0usize;
        self.slots = (0..=1usize << bits)
            .map(|slot| {
                while self.starts.get(position).is_some_and(|start| start.slot(self.shift) < slot) {
                    position += 1;
                }
                u32::try_from(position).unwrap_or(u32::MAX)
            })
            .collect();
        self.starts.shrink_to_fit();
        self.owners.shrink_to_fit();
    }

    #[inline]
    fn find(&self, number: T) -> Option<usize> {
        let slot = number.slot(self.shift);
        let low = *self.slots.get(slot)? as usize;
        let high = *self.slots.get(slot + 1)? as usize;
        let within = self.starts.get(low..high)?.partition_point(|start| *start <= number);
        let owner = *self.owners.get((low + within).checked_sub(1)?)?;
        (owner != NOBODY).then_some(owner as usize)
    }
}

trait Number: Copy + Ord {
    const BITS: u32;
    fn slot(self, shift: u32) -> usize;
}

impl Number for u32 {
    const BITS: u32 = Ipv4Addr::BITS;

    #[inline]
    fn slot(self, shift: u32) -> usize {
        (self >> shift) as usize
    }
}

impl Number for u128 {
    const BITS: u32 = Ipv6Addr::BITS;

    #[inline]
    fn slot(self, shift: u32) -> usize {
        (self >> shift) as usize
    }
}

/// The stretch belongs to no network.
const NOBODY: u32 = u32::MAX;

/// A million slots of four octets at most: the price of a look-up that stays in one or two cache lines.
const MAX_SLOT_BITS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(networks: &[&str]) -> NetworkSet {
        networks.iter().map(|network| network.parse::<IpNet>().unwrap()).collect()
    }

    fn find(set: &NetworkSet, address: &str) -> Option<String> {
        set.find(address.parse::<std::net::IpAddr>().unwrap().into()).map(|network| network.to_string())
    }

    #[test]
    fn the_smallest_network_that_holds_the_address_answers() {
        let set = set(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.0/24", "10.255.255.255/32"]);
        assert_eq!(set.len(), 4);
        assert_eq!(find(&set, "10.1.2.255").as_deref(), Some("10.1.2.0/24"));
        assert_eq!(find(&set, "10.1.3.0").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(find(&set, "10.2.0.0").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(find(&set, "10.255.255.255").as_deref(), Some("10.255.255.255/32"));
        assert_eq!(find(&set, "11.0.0.0"), None);
        assert_eq!(find(&set, "9.255.255.255"), None);
        assert_eq!(find(&set, "::1"), None);
    }

    #[test]
    fn the_ends_of_the_address_space_are_addresses_like_others() {
        let set = set(&["0.0.0.0/32", "255.255.255.255/32", "::/128", "ffff::/16", "::ffff:192.0.2.0/120"]);
        assert_eq!(find(&set, "255.255.255.255").as_deref(), Some("255.255.255.255/32"));
        assert_eq!(find(&set, "0.0.0.0").as_deref(), Some("0.0.0.0/32"));
        assert_eq!(find(&set, "0.0.0.1"), None);
        assert_eq!(find(&set, "255.255.255.254"), None);
        assert_eq!(find(&set, "ffff:ffff::1").as_deref(), Some("ffff::/16"));
        assert_eq!(find(&set, "::ffff:192.0.2.7").as_deref(), Some("192.0.2.0/24"));
        let everything = self::set(&["0.0.0.0/0", "::/0"]);
        assert_eq!(find(&everything, "255.255.255.255").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(everything.v4_addresses(), 1 << 32);
        assert!(!NetworkSet::default().contains(Address::from_v4([1, 2, 3, 4])));
    }

    proptest! {
        #[test]
        fn agrees_with_a_walk_over_all_networks(
            networks in proptest::collection::vec((any::<u32>(), 0u8..=32, any::<bool>()), 0..60),
            probes in proptest::collection::vec(any::<u32>(), 0..60),
        ) {
            // Half of the networks are crowded together, so that they nest and touch.
            let networks: Vec<Ipv4Net> = networks
                .into_iter()
                .map(|(bits, length, near)| if near { (bits & 0xff, length.max(20)) } else { (bits, length) })
                .map(|(bits, length)| Ipv4Net::new(bits.into(), length).unwrap().trunc())
                .collect();
            let set: NetworkSet = networks.iter().copied().map(IpNet::V4).collect();
            let edges = networks.iter().flat_map(|network| {
                let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for probe in probes.iter().copied().chain(edges) {
                let expected = networks.iter().filter(|network| network.contains(&Ipv4Addr::from(probe)));
                let expected = expected.max_by_key(|network| network.prefix_len()).copied().map(IpNet::V4);
                prop_assert_eq!(set.find(Ipv4Addr::from(probe).into()), expected);
            }
        }
    }
}
