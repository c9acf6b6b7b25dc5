//! The shapes that nearly every packet has, read in a few instructions:
//! Ethernet with at most one tag, Linux cooked v2 or raw IP; IPv4 without
//! options and fragments or IPv6 without extension headers; TCP or UDP.
//!
//! Whatever it does not know it leaves to the full decoder, and where it
//! answers, the full decoder says the same: a property test holds them together.

use crate::packet::link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, cooked_direction};
use crate::packet::transport::Transport;
use crate::packet::{Address, Endpoint, FiveTuple, Fragment, Frame, FrameDirection, LinkType, Packet, Protocol};
use crate::units::Bytes;

/// The packet, if it has one of the common shapes.
///
/// Always inlined: a packet that is returned through memory costs more than its decoding.
#[inline(always)]
pub(super) fn decode<'a>(frame: &Frame<'a>) -> Option<Packet<'a>> {
    let Link { ethertype, ip, direction, interface } = link(frame)?;
    let Ip { protocol, source, destination, bytes, header_length, segment } = match ethertype {
        ETHERTYPE_IPV4 => ipv4(ip)?,
        ETHERTYPE_IPV6 => ipv6(ip)?,
        _ => return None,
    };
    let protocol = Protocol(protocol);
    if !matches!(protocol, Protocol::TCP | Protocol::UDP) {
        return None;
    }
    let segment_bytes = bytes.saturating_sub(header_length);
    let segment = segment.get(..segment.len().min(segment_bytes as usize)).unwrap_or(segment);
    let transport = Transport::read(protocol, segment);
    Some(Packet {
        timestamp: frame.timestamp,
        five_tuple: FiveTuple {
            protocol,
            source: Endpoint::new(source, transport.source_port),
            destination: Endpoint::new(destination, transport.destination_port),
        },
        bytes: Bytes(bytes),
        payload_bytes: Bytes(segment_bytes.saturating_sub(transport.header_length)),
        tcp_flags: transport.tcp_flags,
        tcp_sequence: transport.tcp_sequence,
        fragment: Fragment::None,
        direction: frame.direction.or(direction),
        interface: interface.unwrap_or(frame.interface),
        payload: transport.payload,
    })
}

/// What the link layer says.
struct Link<'a> {
    ethertype: u16,
    ip: &'a [u8],
    direction: Option<FrameDirection>,
    interface: Option<u32>,
}

/// What the IP header says, and what follows it.
struct Ip<'a> {
    protocol: u8,
    source: Address,
    destination: Address,
    /// Header and payload, as sent.
    bytes: u64,
    header_length: u64,
    segment: &'a [u8],
}

#[inline]
fn link<'a>(frame: &Frame<'a>) -> Option<Link<'a>> {
    let plain = |ethertype, ip| Link { ethertype, ip, direction: None, interface: None };
    match frame.link_type {
        LinkType::ETHERNET => {
            let ([.., high, low], rest) = frame.bytes.split_first_chunk::<14>()?;
            let ethertype = u16::from_be_bytes([*high, *low]);
            if ethertype != ETHERTYPE_VLAN {
                return Some(plain(ethertype, rest));
            }
            let ([_, _, high, low], rest) = rest.split_first_chunk::<4>()?;
            Some(plain(u16::from_be_bytes([*high, *low]), rest))
        }
        LinkType::LINUX_SLL2 => {
            let ([high, low, _, _, a, b, c, d, hardware_high, hardware_low, kind, ..], ip) =
                frame.bytes.split_first_chunk::<20>()?;
            if u16::from_be_bytes([*hardware_high, *hardware_low]) > MAX_COMMON_HARDWARE {
                return None;
            }
            let (direction, interface) = (cooked_direction(u16::from(*kind)), u32::from_be_bytes([*a, *b, *c, *d]));
            Some(Link { ethertype: u16::from_be_bytes([*high, *low]), ip, direction, interface: Some(interface) })
        }
        LinkType::RAW => match frame.bytes.first()? >> 4 {
            4 => Some(plain(ETHERTYPE_IPV4, frame.bytes)),
            6 => Some(plain(ETHERTYPE_IPV6, frame.bytes)),
            _ => None,
        },
        _ => None,
    }
}

#[inline]
fn ipv4(ip: &[u8]) -> Option<Ip<'_>> {
    let (header, segment) = ip.split_first_chunk::<20>()?;
    let (fixed, addresses) = header.split_first_chunk::<12>()?;
    let [version, _, l0, l1, _, _, f0, f1, _, protocol, _, _] = *fixed;
    let bytes = u16::from_be_bytes([l0, l1]);
    // Everything of the flags and offset but "don't fragment".
    let fragmented = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    if version != 0x45 || fragmented || bytes < 20 {
        return None;
    }
    let (source, destination) = addresses.split_first_chunk::<4>()?;
    let (source, destination) = (Address::from_v4(*source), Address::from_v4(*destination.first_chunk::<4>()?));
    Some(Ip { protocol, source, destination, bytes: bytes.into(), header_length: 20, segment })
}

#[inline]
fn ipv6(ip: &[u8]) -> Option<Ip<'_>> {
    let (header, segment) = ip.split_first_chunk::<40>()?;
    let (fixed, addresses) = header.split_first_chunk::<8>()?;
    let [version, _, _, _, l0, l1, protocol, _] = *fixed;
    let length = u16::from_be_bytes([l0, l1]);
    if version >> 4 != 6 || length == 0 {
        return None;
    }
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let (source, destination) = (Address::from_v6(*source), Address::from_v6(*destination.first_chunk::<16>()?));
    Some(Ip { protocol, source, destination, bytes: u64::from(length) + 40, header_length: 40, segment })
}

/// One tag (IEEE 802.1Q).
const ETHERTYPE_VLAN: u16 = 0x8100;

/// Hardware types above this have meanings of their own for the protocol field.
const MAX_COMMON_HARDWARE: u16 = 800;

#[cfg(test)]
mod tests {
    use etherparse::{LaxNetSlice, LaxSlicedPacket, PacketBuilder, TransportSlice};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::packet::decode::decode_any;
    use crate::packet::{Fragments, TcpFlags};
    use crate::time::Timestamp;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_it_says_the_full_decoder_says(shape in shape(), damage in damage()) {
            let bytes = damage.apply(shape.build());
            let frame = shape.frame(&bytes);
            if let Some(packet) = decode(&frame) {
                prop_assert_eq!(decode_any(&frame, &mut Fragments::default()), Ok(packet));
            }
        }

        #[test]
        fn it_knows_every_common_shape(shape in shape()) {
            let bytes = shape.build();
            let common = shape.tags <= 1 && shape.protocol != Kind::Icmp && !shape.ip_options;
            prop_assert_eq!(decode(&shape.frame(&bytes)).is_some(), common);
        }

        #[test]
        fn what_it_says_etherparse_says(shape in shape(), damage in damage()) {
            let shape = Shape { link: LinkType::ETHERNET, ..shape };
            let bytes = damage.apply(shape.build());
            let Some(packet) = decode(&shape.frame(&bytes)) else { return Ok(()) };
            let oracle = LaxSlicedPacket::from_ethernet(&bytes).unwrap();
            let tuple = &packet.five_tuple;
            let (source, destination, protocol, length) = match oracle.net.unwrap() {
                LaxNetSlice::Ipv4(ip) => {
                    let header = ip.header();
                    let length = u64::from(header.total_len());
                    (Address::from(header.source_addr()), Address::from(header.destination_addr()), header.protocol(), length)
                }
                LaxNetSlice::Ipv6(ip) => {
                    let header = ip.header();
                    let length = u64::from(header.payload_length()) + 40;
                    (Address::from_v6(header.source()), Address::from_v6(header.destination()), header.next_header(), length)
                }
                LaxNetSlice::Arp(_) => panic!("arp is no packet"),
            };
            prop_assert_eq!((tuple.source.address, tuple.destination.address), (source, destination));
            prop_assert_eq!((tuple.protocol.0, packet.bytes.0), (protocol.0, length));
            let ports = (tuple.source.port, tuple.destination.port);
            match oracle.transport {
                Some(TransportSlice::Tcp(tcp)) => {
                    prop_assert_eq!(ports, (tcp.source_port(), tcp.destination_port()));
                    prop_assert_eq!(packet.payload, tcp.payload());
                    prop_assert_eq!(packet.tcp_sequence, tcp.sequence_number());
                    let flags = packet.tcp_flags.unwrap();
                    prop_assert_eq!(flags.has(TcpFlags::SYN), tcp.syn());
                    prop_assert_eq!(flags.has(TcpFlags::FIN), tcp.fin());
                }
                Some(TransportSlice::Udp(udp)) => {
                    prop_assert_eq!(ports, (udp.source_port(), udp.destination_port()));
                }
                _ => {}
            }
        }
    }

    /// A frame to be built.
    #[derive(Debug, Clone)]
    struct Shape {
        link: LinkType,
        tags: usize,
        addresses: Addresses,
        ip_options: bool,
        protocol: Kind,
        ports: (u16, u16),
        tcp_options: bool,
        payload: Vec<u8>,
        trailer: usize,
    }

    #[derive(Debug, Clone, Copy)]
    enum Addresses {
        V4([u8; 4], [u8; 4]),
        V6([u8; 16], [u8; 16]),
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Tcp,
        Udp,
        Icmp,
    }

    /// Bytes that are overwritten, and where the frame is cut.
    #[derive(Debug, Clone)]
    struct Damage {
        writes: Vec<(prop::sample::Index, u8)>,
        cut: Option<prop::sample::Index>,
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let link = prop_oneof![Just(LinkType::ETHERNET), Just(LinkType::LINUX_SLL2), Just(LinkType::RAW)];
        let addresses = prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(source, destination)| Addresses::V4(source, destination)),
            any::<([u8; 16], [u8; 16])>().prop_map(|(source, destination)| Addresses::V6(source, destination)),
        ];
        let protocol = prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Icmp)];
        let rest = (any::<(u16, u16)>(), any::<bool>(), vec(any::<u8>(), 0..40), 0..10_usize);
        (link, 0..3_usize, addresses, any::<bool>(), protocol, rest).prop_map(
            |(link, tags, addresses, ip_options, protocol, (ports, tcp_options, payload, trailer))| Shape {
                tags: if link == LinkType::ETHERNET { tags } else { 0 },
                // Options of IPv6 are extension headers, which etherparse builds another way.
                ip_options: ip_options && matches!(addresses, Addresses::V4(..)),
                link,
                addresses,
                protocol,
                ports,
                tcp_options,
                payload,
                trailer,
            },
        )
    }

    fn damage() -> impl Strategy<Value = Damage> {
        let writes = vec(any::<(prop::sample::Index, u8)>(), 0..4);
        (writes, any::<Option<prop::sample::Index>>()).prop_map(|(writes, cut)| Damage { writes, cut })
    }

    impl Shape {
        fn build(&self) -> Vec<u8> {
            let mut bytes = match self.link {
                LinkType::ETHERNET => [2; 12].to_vec(),
                LinkType::LINUX_SLL2 => Vec::new(),
                _ => Vec::new(),
            };
            for _ in 0..self.tags {
                bytes.extend([0x81, 0x00, 0x00, 0x07]);
            }
            let ethertype = match self.addresses {
                Addresses::V4(..) => ETHERTYPE_IPV4,
                Addresses::V6(..) => ETHERTYPE_IPV6,
            };
            match self.link {
                LinkType::ETHERNET => bytes.extend(ethertype.to_be_bytes()),
                LinkType::LINUX_SLL2 => {
                    bytes.extend(ethertype.to_be_bytes());
                    bytes.extend([0, 0, 0, 0, 0, 9, 0, 1, 4, 6, 2, 2, 2, 2, 2, 2, 0, 0]);
                }
                _ => {}
            }
            self.build_ip(&mut bytes);
            bytes.extend(std::iter::repeat_n(0, self.trailer));
            bytes
        }

        fn build_ip(&self, bytes: &mut Vec<u8>) {
            let builder = match self.addresses {
                Addresses::V4(source, destination) => {
                    let mut header =
                        etherparse::Ipv4Header { time_to_live: 64, source, destination, ..Default::default() };
                    if self.ip_options {
                        header.options = [1, 1, 1, 0].into();
                    }
                    PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
                }
                Addresses::V6(source, destination) => PacketBuilder::ipv6(source, destination, 64),
            };
            let (source, destination) = self.ports;
            match self.protocol {
                Kind::Tcp => {
                    let builder = builder.tcp(source, destination, 7, 1000).syn();
                    let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
                    let options = if self.tcp_options { &options[..] } else { &[] };
                    builder.options(options).unwrap().write(bytes, &self.payload).unwrap();
                }
                Kind::Udp => builder.udp(source, destination).write(bytes, &self.payload).unwrap(),
                Kind::Icmp => builder.icmpv4_echo_request(1, 2).write(bytes, &self.payload).unwrap(),
            }
        }

        fn frame<'a>(&self, bytes: &'a [u8]) -> Frame<'a> {
            Frame {
                timestamp: Timestamp::from_secs(1),
                link_type: self.link,
                wire_length: bytes.len() as u32,
                interface: 3,
                direction: None,
                bytes,
            }
        }
    }

    impl Damage {
        fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
            for (index, value) in &self.writes {
                let at = index.index(bytes.len());
                bytes[at] = *value;
            }
            if let Some(cut) = &self.cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            bytes
        }
    }
}
