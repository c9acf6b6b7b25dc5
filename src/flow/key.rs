//! The flow key: transport, local end, remote end (RFC 7011, RFC 5103).

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::packet::{Address, DNS_PORT, Endpoint, FiveTuple, FrameDirection, Protocol};

/// What makes two packets belong to one flow, whichever way they went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The IP protocol.
    pub protocol: Protocol,
    /// This host's end.
    pub local: Endpoint,
    /// The other end, where `bytes_out` go.
    pub remote: Endpoint,
    /// The network namespace in which the flow lives.
    pub namespace: Namespace,
}

/// A network namespace by its inode number; 0 where it is not known, as in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Namespace(pub u32);

/// Who opened the flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// This host.
    #[default]
    Outbound,
    /// The other end.
    Inbound,
    /// Both ends are this host.
    Local,
}

/// What kind of place an address is, by the IANA special-purpose registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This host.
    Loopback,
    /// One link.
    LinkLocal,
    /// RFC 1918, RFC 4193, RFC 6598.
    Private,
    /// A group of hosts, or every host of a link.
    Multicast,
    /// Set aside for another purpose.
    Special,
    /// The Internet.
    Public,
}

/// The addresses that belong to this host.
///
/// Where neither end of a flow is known to be local, the sender of the flow's
/// first packet is taken as local.
#[derive(Debug, Clone, Default)]
pub struct LocalAddresses {
    hosts: Vec<Address>,
    /// All of IPv4, single addresses among them.
    v4: Vec<Network<u32>>,
    /// All of IPv6.
    v6: Vec<Network<u128>>,
}

/// A network as numbers, for each packet is held against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network<T> {
    base: T,
    mask: T,
}

impl LocalAddresses {
    /// Addresses and networks that are this host's own.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut local = Self::default();
        for network in networks {
            if network.prefix_len() == network.max_prefix_len() {
                local.hosts.push(network.addr().into());
            }
            match network {
                IpNet::V4(v4) => local.v4.push(Network { base: v4.network().into(), mask: v4.netmask().into() }),
                IpNet::V6(v6) => local.v6.push(Network { base: v6.network().into(), mask: v6.netmask().into() }),
            }
        }
        local
    }

    /// Whether the address is this host's own.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        match address.v4_bits() {
            Some(bits) => self.v4.iter().any(|network| bits & network.mask == network.base),
            None => {
                let bits = u128::from_be_bytes(address.octets());
                self.v6.iter().any(|network| bits & network.mask == network.base)
            }
        }
    }

    /// The single addresses among them.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.hosts.iter().map(|host| host.ip())
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// How a packet passed this host, seen from its sockets.
    ///
    /// The addresses count for more than what the link layer says (`hint`):
    /// that is how the packet passed an interface. On a loopback interface it
    /// only ever comes in, and what a container sends comes in first.
    #[inline]
    pub fn passage(&self, tuple: &FiveTuple, hint: Option<FrameDirection>) -> Passage {
        match (self.contains(tuple.source.address), self.contains(tuple.destination.address)) {
            (true, true) => Passage::Within,
            (true, false) => Passage::Way(FrameDirection::Out),
            (false, true) => Passage::Way(FrameDirection::In),
            (false, false) if !self.is_empty() => Passage::Unknown,
            (false, false) => match hint {
                Some(way) if Scope::of(tuple.source.address) != Scope::Loopback => Passage::Way(way),
                _ => Passage::Unknown,
            },
        }
    }

    /// The key of a packet's flow and the way the packet went, or `None`
    /// where only the flow's first packet can tell. A way that is given holds.
    pub fn orient(&self, tuple: &FiveTuple, way: Option<FrameDirection>) -> Option<(FlowKey, FrameDirection)> {
        let way = way.or(self.passage(tuple, None).way())?;
        Some((FlowKey::of(tuple, way), way))
    }
}

/// How a packet passed this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Out of it or into it.
    Way(FrameDirection),
    /// From one of its sockets to another.
    Within,
    /// Neither end is known to be this host's.
    Unknown,
}

impl Passage {
    /// Out or in, where it was one of the two.
    pub fn way(self) -> Option<FrameDirection> {
        match self {
            Self::Way(way) => Some(way),
            Self::Within | Self::Unknown => None,
        }
    }
}

impl FlowKey {
    /// The key of a five-tuple that went `way`.
    #[inline]
    pub fn of(tuple: &FiveTuple, way: FrameDirection) -> Self {
        let (local, remote) = match way {
            FrameDirection::Out => (tuple.source, tuple.destination),
            FrameDirection::In => (tuple.destination, tuple.source),
        };
        Self { protocol: tuple.protocol, local, remote, namespace: Namespace::default() }
    }

    /// Whether one end is where questions of DNS are answered.
    pub const fn is_dns(&self) -> bool {
        self.local.port == DNS_PORT || self.remote.port == DNS_PORT
    }

    /// The same flow seen from the other end.
    #[inline]
    pub fn reversed(self) -> Self {
        Self { local: self.remote, remote: self.local, ..self }
    }
}

impl Scope {
    /// The scope of an address.
    ///
    /// The documentation networks (RFC 5737, RFC 3849, RFC 9637) count as
    /// public: on a real network they never occur, and in examples and tests
    /// of rules they stand for the Internet.
    pub fn of(address: Address) -> Self {
        match address.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                match (a, b, c) {
                    (127, ..) => Self::Loopback,
                    (169, 254, _) => Self::LinkLocal,
                    (10, ..) | (192, 168, _) => Self::Private,
                    (172, 16..=31, _) | (100, 64..=127, _) => Self::Private,
                    (224..=239, ..) | (255, 255, 255) => Self::Multicast,
                    (0, ..) | (240..=255, ..) | (192, 0, 0) | (198, 18..=19, _) => Self::Special,
                    (192, 88, 99) => Self::Special,
                    _ => Self::Public,
                }
            }
            IpAddr::V6(ip) => match ip.segments() {
                [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
                [0xfe80..=0xfebf, ..] => Self::LinkLocal,
                [0xfc00..=0xfdff, ..] => Self::Private,
                [0xff00..=0xffff, ..] => Self::Multicast,
                [0x2001, 0..=0x1ff, ..] | [0x100, 0, 0, 0, ..] => Self::Special,
                [0x5f00, ..] => Self::Special,
                [0x2000..=0x3fff, ..] | [0x64, 0xff9b, ..] => Self::Public,
                _ => Self::Special,
            },
        }
    }
}

impl Direction {
    /// The word for it in rules, alerts and flows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Local => "local",
        }
    }
}

impl Scope {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Loopback, Self::LinkLocal, Self::Private, Self::Multicast, Self::Special, Self::Public];

    /// The word for it in rules, alerts and flows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Private => "private",
            Self::Multicast => "multicast",
            Self::Special => "special",
            Self::Public => "public",
        }
    }
}

/// Hashes a flow's two ends, the same for both of its directions; otherwise in every program that runs.
#[derive(Debug, Clone, Default)]
pub struct EndsHasher(foldhash::fast::RandomState);

impl EndsHasher {
    /// The hash of two ends.
    #[inline]
    pub fn hash(&self, protocol: Protocol, namespace: Namespace, one: &Endpoint, other: &Endpoint) -> u64 {
        let end = |endpoint: &Endpoint| {
            let mut hasher = self.0.build_hasher();
            hasher.write_u128(u128::from_ne_bytes(endpoint.address.octets()));
            hasher.write_u16(endpoint.port);
            hasher.finish()
        };
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(end(one).wrapping_add(end(other)));
        hasher.write_u64(u64::from(protocol.0) << 32 | u64::from(namespace.0));
        hasher.finish()
    }

    /// The hash of a packet's flow, whose namespace is not known.
    #[inline]
    pub fn hash_tuple(&self, tuple: &FiveTuple) -> u64 {
        self.hash(tuple.protocol, Namespace::default(), &tuple.source, &tuple.destination)
    }

    /// The hash of a key.
    #[inline]
    pub fn hash_key(&self, key: &FlowKey) -> u64 {
        self.hash(key.protocol, key.namespace, &key.local, &key.remote)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn tuple(source: &str, destination: &str) -> FiveTuple {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        FiveTuple { protocol: Protocol::TCP, source: end(source), destination: end(destination) }
    }

    proptest::proptest! {
        #[test]
        fn a_network_contains_what_ipnet_says(
            octets: [u8; 16], prefix in 0..=128_u8, flipped in 0..256_usize, v4: bool, other_v4: bool,
        ) {
            let ip = |v4, octets: [u8; 16]| match v4 {
                true => IpAddr::from([octets[12], octets[13], octets[14], octets[15]]),
                false => IpAddr::from(octets),
            };
            let mut other = octets;
            if flipped < 128 {
                other[flipped / 8] ^= 0x80 >> (flipped % 8);
            }
            let network = IpNet::new_assert(ip(v4, octets), if v4 { prefix % 33 } else { prefix });
            let address = ip(other_v4, other);
            let says = LocalAddresses::new([network]).contains(address.into());
            proptest::prop_assert_eq!(says, network.contains(&Address::from(address).ip()));
        }
    }

    #[test]
    fn addresses_count_for_more_than_the_way_through_an_interface() {
        let host = LocalAddresses::new(["10.0.0.5/32".parse().unwrap(), "127.0.0.0/8".parse().unwrap()]);
        let passage =
            |local: &LocalAddresses, source, destination, hint| local.passage(&tuple(source, destination), Some(hint));
        let (into, out) = (FrameDirection::In, FrameDirection::Out);
        assert_eq!(passage(&host, "10.0.0.5:1", "198.51.100.1:2", into), Passage::Way(out));
        assert_eq!(passage(&host, "198.51.100.1:2", "10.0.0.5:1", out), Passage::Way(into));
        // What a container sends comes in from its link; what loops back is only seen to come in.
        assert_eq!(passage(&host, "172.17.0.2:1", "198.51.100.1:2", into), Passage::Unknown);
        assert_eq!(passage(&host, "127.0.0.1:1", "127.0.0.1:2", into), Passage::Within);
        assert_eq!(host.orient(&tuple("127.0.0.1:1", "127.0.0.1:2"), Some(into)).unwrap().1, into);
        // With nothing known of the host, the link layer's word is taken.
        let none = LocalAddresses::default();
        assert_eq!(passage(&none, "172.17.0.2:1", "198.51.100.1:2", into), Passage::Way(into));
        assert_eq!(passage(&none, "127.0.0.1:1", "127.0.0.1:2", into), Passage::Unknown);
    }
}
