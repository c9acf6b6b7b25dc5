//! From a frame to the IP packet in it.

use crate::packet::fragment::FirstFragment;
use crate::packet::network::Network;
use crate::packet::transport::Transport;
use crate::packet::{Endpoint, FiveTuple, Fragment, Fragments, Frame, FrameDirection, TcpFlags, fast, link};
use crate::time::Timestamp;
use crate::units::Bytes;

/// One decoded IP packet, as the outermost IP header describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When the packet was captured.
    pub timestamp: Timestamp,
    /// Who sent it to whom.
    pub five_tuple: FiveTuple,
    /// IP header and payload as sent, whatever part of it was captured.
    pub bytes: Bytes,
    /// What follows the transport header, as sent.
    pub payload_bytes: Bytes,
    /// The TCP flags, where the packet is TCP and they were captured.
    pub tcp_flags: Option<TcpFlags>,
    /// The number of the payload's first octet in its TCP stream; 0 where there is none.
    pub tcp_sequence: u32,
    /// Whether this is a whole packet or a fragment of one.
    pub fragment: Fragment,
    /// The way the packet went, where the capture or the link layer says so.
    pub direction: Option<FrameDirection>,
    /// The interface: its index where the link layer has it (Linux cooked
    /// v2), else its number in the capture.
    pub interface: u32,
    /// The captured part of what follows the transport header.
    pub payload: &'a [u8],
}

/// Why a frame gives no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DecodeError {
    /// ARP, spanning tree, link control and the like.
    #[error("the frame carries something other than ip")]
    NotIp,
    /// The link type is unknown or carries no IP.
    #[error("the link type is not one that is known to carry ip")]
    LinkType,
    /// The link layer's payload is encrypted.
    #[error("the link layer is encrypted")]
    Encrypted,
    /// Not all of the link layer's header was captured.
    #[error("the link layer's header is cut short")]
    LinkTruncated,
    /// Not all of the IP header was captured.
    #[error("the ip header is cut short")]
    NetworkTruncated,
    /// The IP header contradicts itself.
    #[error("the ip header is damaged")]
    NetworkDamaged,
}

/// How many frames gave no packet, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeErrors {
    counts: [u64; DecodeError::ALL.len()],
}

/// Reads the outermost IP packet of a frame.
///
/// Always inlined: a packet that is returned through memory costs more than its decoding.
#[inline(always)]
pub fn decode<'a>(frame: &Frame<'a>, fragments: &mut Fragments) -> Result<Packet<'a>, DecodeError> {
    match fast::decode(frame) {
        Some(packet) => Ok(packet),
        None => decode_any(frame, fragments),
    }
}

/// Reads a packet of one of the shapes that nearly all have; leaves others alone.
#[inline(always)]
pub fn decode_common<'a>(frame: &Frame<'a>) -> Option<Packet<'a>> {
    fast::decode(frame)
}

/// Reads a packet of any shape.
#[inline(never)]
pub(super) fn decode_any<'a>(frame: &Frame<'a>, fragments: &mut Fragments) -> Result<Packet<'a>, DecodeError> {
    let unwrapped = link::unwrap(frame.link_type, frame.bytes)?;
    let before_ip = frame.bytes.len().saturating_sub(unwrapped.ip.len()) as u64;
    let network = Network::read(unwrapped.ip, u64::from(frame.wire_length).saturating_sub(before_ip))?;
    let (first, transport) = match network.fragment {
        Fragment::None | Fragment::First => {
            let transport = Transport::read(network.protocol, network.segment);
            let first = FirstFragment {
                protocol: network.protocol,
                source_port: transport.source_port,
                destination_port: transport.destination_port,
            };
            if network.fragment == Fragment::First && network.segment.len() >= 4 {
                fragments.remember(network.datagram, first, frame.timestamp);
            }
            (first, transport)
        }
        Fragment::Later => {
            let unknown = FirstFragment { protocol: network.protocol, source_port: 0, destination_port: 0 };
            let first = fragments.recall(&network.datagram, frame.timestamp).unwrap_or(unknown);
            (first, Transport { payload: network.segment, ..Transport::default() })
        }
    };
    Ok(Packet {
        timestamp: frame.timestamp,
        five_tuple: FiveTuple {
            protocol: first.protocol,
            source: Endpoint::new(network.source, first.source_port),
            destination: Endpoint::new(network.destination, first.destination_port),
        },
        bytes: Bytes(network.bytes),
        payload_bytes: Bytes(network.segment_bytes.saturating_sub(transport.header_length)),
        tcp_flags: transport.tcp_flags,
        tcp_sequence: transport.tcp_sequence,
        fragment: network.fragment,
        direction: frame.direction.or(unwrapped.direction),
        interface: unwrapped.interface.unwrap_or(frame.interface),
        payload: transport.payload,
    })
}

impl DecodeError {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::NotIp,
        Self::LinkType,
        Self::Encrypted,
        Self::LinkTruncated,
        Self::NetworkTruncated,
        Self::NetworkDamaged,
    ];

    /// The word for it in summaries and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::LinkType => "unknown_link_type",
            Self::Encrypted => "link_encrypted",
            Self::LinkTruncated => "link_header_cut",
            Self::NetworkTruncated => "ip_header_cut",
            Self::NetworkDamaged => "ip_header_damaged",
        }
    }
}

impl DecodeErrors {
    /// Counts one frame.
    pub fn record(&mut self, error: DecodeError) {
        if let Some(count) = self.counts.get_mut(error as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// The frames that gave no packet for this reason.
    pub fn count(&self, error: DecodeError) -> u64 {
        self.counts.get(error as usize).copied().unwrap_or(0)
    }

    /// The frames that gave no packet at all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Every reason that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (DecodeError, u64)> + '_ {
        DecodeError::ALL.into_iter().map(|error| (error, self.count(error))).filter(|(_, count)| *count > 0)
    }
}

/// An object from the reason's name to the number of frames.
impl serde::Serialize for DecodeErrors {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(error, count)| (error.name(), count)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{LinkType, Protocol};

    #[test]
    fn a_length_of_zero_means_as_long_as_the_frame() {
        let segmented = ipv4(0, 0, 17, &[0; 100]);
        assert_eq!(bytes(&segmented, 90_000), Ok(90_000));
        assert_eq!(bytes(&ipv6(0, 17, &[0; 100]), 90_000), Ok(90_000));
        assert_eq!(bytes(&ipv4(0, 0, 17, &[]), 20), Err(DecodeError::NetworkDamaged));
    }

    #[test]
    fn a_jumbo_payload_option_says_the_length() {
        let options = [6, 0, 0xc2, 4, 0, 1, 0x38, 0x80];
        assert_eq!(bytes(&ipv6(0, 0, &[&options[..], &[0; 40]].concat()), 500), Ok(40 + 80_000));
        let padded = [6, 1, 0, 1, 2, 0, 0, 0, 0xc2, 4, 0, 1, 0x38, 0x80, 1, 0];
        assert_eq!(bytes(&ipv6(0, 0, &[&padded[..], &[0; 40]].concat()), 500), Ok(40 + 80_000));
    }

    #[test]
    fn padding_and_cuts_do_not_change_the_length() {
        let packet = ipv4(40, 0, 6, &[0; 26]);
        assert_eq!(bytes(&packet, 46), Ok(40));
        assert_eq!(bytes(packet.get(..24).unwrap(), 1500), Ok(40));
        let cut_in_its_options = [&[0x4f][..], ipv4(100, 0, 6, &[1; 4]).get(1..).unwrap()].concat();
        assert_eq!(bytes(&cut_in_its_options, 1500), Ok(100));
        assert_eq!(bytes(packet.get(..19).unwrap(), 1500), Err(DecodeError::NetworkTruncated));
    }

    #[test]
    fn all_fragments_of_a_datagram_have_its_ports_and_payload() {
        let mut fragments = Fragments::default();
        let first = ipv4(20 + 8 + 16, 0x2000, 17, &[&[0x10, 0, 0, 53, 0, 48, 0, 0][..], &[1; 16]].concat());
        let last = ipv4(20 + 24, 3, 17, &[2; 24]);
        let packets = [&first, &last].map(|bytes| decode(&frame(bytes, 60), &mut fragments).unwrap());
        let [first, last] = packets;
        assert_eq!(first.five_tuple, last.five_tuple);
        assert_eq!((first.five_tuple.source.port, first.five_tuple.destination.port), (4096, 53));
        assert_eq!((first.fragment, last.fragment), (Fragment::First, Fragment::Later));
        assert_eq!((first.payload_bytes, last.payload_bytes), (Bytes(16), Bytes(24)));
        assert_eq!(first.five_tuple.protocol, Protocol::UDP);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_do_harm(link_type in 0..300_u32, wire_length in any::<u32>(), bytes in vec(any::<u8>(), 0..120)) {
            let frame = Frame { link_type: LinkType(link_type), ..frame(&bytes, wire_length) };
            if let Ok(packet) = decode(&frame, &mut Fragments::default()) {
                prop_assert!(packet.payload.len() <= bytes.len());
                prop_assert!(packet.payload_bytes <= packet.bytes);
            }
        }
    }

    fn bytes(ip: &[u8], wire_length: u32) -> Result<u64, DecodeError> {
        decode(&frame(ip, wire_length), &mut Fragments::default()).map(|packet| packet.bytes.0)
    }

    fn frame(bytes: &[u8], wire_length: u32) -> Frame<'_> {
        let timestamp = Timestamp::from_secs(1);
        Frame { timestamp, link_type: LinkType::RAW, wire_length, interface: 0, direction: None, bytes }
    }

    fn ipv4(length: u16, fragment: u16, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let ([l0, l1], [f0, f1]) = (length.to_be_bytes(), fragment.to_be_bytes());
        [&[0x45, 0, l0, l1, 0, 7, f0, f1, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..], rest].concat()
    }

    fn ipv6(length: u16, next: u8, rest: &[u8]) -> Vec<u8> {
        let [l0, l1] = length.to_be_bytes();
        [&[0x60, 0, 0, 0, l0, l1, next, 64][..], &[1; 16], &[2; 16], rest].concat()
    }
}
