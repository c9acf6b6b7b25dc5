//! The five-tuple: the wire's own view of who sent to whom (RFC 6146).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IP address of either family, sixteen octets.
///
/// An IPv4 address is held in its IPv4-mapped form (RFC 4291, section
/// 2.5.5.2), so that IPv4 over an IPv6 socket is the same address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 16]);

impl Address {
    /// From the four octets of an IPv4 address.
    #[inline]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        // As one number: octets that are put together one by one are written and read through memory.
        Self((V4_MAPPED | u32::from_be_bytes(octets) as u128).to_be_bytes())
    }

    /// From the sixteen octets of an IPv6 address.
    #[inline]
    pub const fn from_v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The sixteen octets.
    #[inline]
    pub const fn octets(self) -> [u8; 16] {
        self.0
    }

    /// The address in the standard library's type, IPv4 where it is mapped.
    pub fn ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.0)).to_canonical()
    }

    /// Whether this is an IPv4 address.
    pub fn is_v4(self) -> bool {
        self.v4_bits().is_some()
    }

    /// The address as a number, where it is an IPv4 address.
    #[inline]
    pub const fn v4_bits(self) -> Option<u32> {
        let bits = u128::from_be_bytes(self.0);
        if bits >> 32 == V4_MAPPED >> 32 { Some(bits as u32) } else { None }
    }

    /// Whether this is `0.0.0.0` or `::`.
    pub fn is_unspecified(self) -> bool {
        self.ip().is_unspecified()
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::from_v4(ip.octets()),
            IpAddr::V6(ip) => Self::from_v6(ip.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4(ip.octets())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An address and a port; port 0 where the protocol has none or it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The IP address.
    pub address: Address,
    /// The port, in host byte order.
    pub port: u16,
}

impl Endpoint {
    /// An address with a port.
    #[inline]
    pub const fn new(address: Address, port: u16) -> Self {
        Self { address, port }
    }

    /// 0 where they are the same, found without a branch.
    #[inline]
    pub const fn difference(&self, other: &Self) -> u64 {
        let address = u128::from_ne_bytes(self.address.0) ^ u128::from_ne_bytes(other.address.0);
        (address >> 64) as u64 | address as u64 | (self.port ^ other.port) as u64
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self::new(socket.ip().into(), socket.port())
    }
}

/// `203.0.113.7:443`, `[2001:db8::1]:443`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address.ip(), self.port).fmt(f)
    }
}

/// An IP protocol number, as IANA assigns them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// DCCP.
    pub const DCCP: Self = Self(33);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDP_LITE: Self = Self(136);

    /// The name that people use, where there is one.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name)
    }

    /// The protocol of a name that [`Protocol::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(number, _)| Self(*number))
    }

    /// Whether the first four octets after the IP header are two ports.
    #[inline]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::DCCP | Self::SCTP | Self::UDP_LITE)
    }
}

/// The name, or the number where there is no name.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// Transport, source and destination as on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// The IP protocol; for IPv6 what follows the extension headers.
    pub protocol: Protocol,
    /// Who sent the packet.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
}

/// `::ffff:0.0.0.0`.
const V4_MAPPED: u128 = 0xffff_0000_0000;

/// The port at which questions of DNS are answered (RFC 1035, section 4.2).
pub const DNS_PORT: u16 = 53;

impl FiveTuple {
    /// Whether one end is where questions of DNS are answered.
    #[inline]
    pub const fn is_dns(&self) -> bool {
        self.source.port == DNS_PORT || self.destination.port == DNS_PORT
    }
}

const NAMES: &[(u8, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (89, "ospf"),
    (103, "pim"),
    (112, "vrrp"),
    (132, "sctp"),
    (136, "udplite"),
];
