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
#[inline]
pub(super) fn decode<'a>(frame: &Frame<'a>) -> Option<Packet<'a>> {
    match frame.link_type {
        LinkType::ETHERNET => {
            let ([.., high, low], rest) = frame.bytes.split_first_chunk::<14>()?;
            match u16::from_be_bytes([*high, *low]) {
                0x8100 => {
                    let ([_, _, high, low], rest) = rest.split_first_chunk::<4>()?;
                    by_ethertype(frame, u16::from_be_bytes([*high, *low]), rest, None, None)
                }
                ethertype => by_ethertype(frame, ethertype, rest, None, None),
            }
        }
        LinkType::LINUX_SLL2 => {
            let ([high, low, _, _, a, b, c, d, hardware_high, hardware_low, kind, ..], rest) =
                frame.bytes.split_first_chunk::<20>()?;
            if u16::from_be_bytes([*hardware_high, *hardware_low]) > MAX_COMMON_HARDWARE {
                return None;
            }
            let (direction, interface) = (cooked_direction(u16::from(*kind)), u32::from_be_bytes([*a, *b, *c, *d]));
            by_ethertype(frame, u16::from_be_bytes([*high, *low]), rest, direction, Some(interface))
        }
        LinkType::RAW => match frame.bytes.first()? >> 4 {
            4 => ipv4(frame, frame.bytes, None, None),
            6 => ipv6(frame, frame.bytes, None, None),
            _ => None,
        },
        _ => None,
    }
}

#[inline]
fn by_ethertype<'a>(
    frame: &Frame<'a>,
    ethertype: u16,
    ip: &'a [u8],
    direction: Option<FrameDirection>,
    interface: Option<u32>,
) -> Option<Packet<'a>> {
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, ip, direction, interface),
        ETHERTYPE_IPV6 => ipv6(frame, ip, direction, interface),
        _ => None,
    }
}

#[inline]
fn ipv4<'a>(
    frame: &Frame<'a>,
    ip: &'a [u8],
    direction: Option<FrameDirection>,
    interface: Option<u32>,
) -> Option<Packet<'a>> {
    let (header, segment) = ip.split_first_chunk::<20>()?;
    let [version, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let bytes = u16::from_be_bytes([l0, l1]);
    // Everything of the flags and offset but "don't fragment".
    let fragmented = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    if version != 0x45 || fragmented || bytes < 20 {
        return None;
    }
    let addresses = (Address::from_v4([s0, s1, s2, s3]), Address::from_v4([d0, d1, d2, d3]));
    finish(frame, protocol, addresses, (u64::from(bytes), 20), segment, direction, interface)
}

#[inline]
fn ipv6<'a>(
    frame: &Frame<'a>,
    ip: &'a [u8],
    direction: Option<FrameDirection>,
    interface: Option<u32>,
) -> Option<Packet<'a>> {
    let (header, segment) = ip.split_first_chunk::<40>()?;
    let (fixed, addresses) = header.split_first_chunk::<8>()?;
    let [version, _, _, _, l0, l1, protocol, _] = *fixed;
    let length = u16::from_be_bytes([l0, l1]);
    if version >> 4 != 6 || length == 0 {
        return None;
    }
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let addresses = (Address::from_v6(*source), Address::from_v6(*destination.first_chunk::<16>()?));
    finish(frame, protocol, addresses, (u64::from(length) + 40, 40), segment, direction, interface)
}

#[inline]
fn finish<'a>(
    frame: &Frame<'a>,
    protocol: u8,
    (source, destination): (Address, Address),
    (bytes, header_length): (u64, u64),
    segment: &'a [u8],
    direction: Option<FrameDirection>,
    interface: Option<u32>,
) -> Option<Packet<'a>> {
    let protocol = Protocol(protocol);
    if !matches!(protocol, Protocol::TCP | Protocol::UDP) {
        return None;
    }
    let segment_bytes = bytes.saturating_sub(header_length);
    let segment = segment.get(..segment_bytes as usize).unwrap_or(segment);
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

/// Hardware types above this have meanings of their own for the protocol field.
const MAX_COMMON_HARDWARE: u16 = 800;
