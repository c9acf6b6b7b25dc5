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
#[inline]
pub fn decode<'a>(frame: &Frame<'a>, fragments: &mut Fragments) -> Result<Packet<'a>, DecodeError> {
    match fast::decode(frame) {
        Some(packet) => Ok(packet),
        None => decode_any(frame, fragments),
    }
}

/// Reads a packet of any shape.
#[inline(never)]
fn decode_any<'a>(frame: &Frame<'a>, fragments: &mut Fragments) -> Result<Packet<'a>, DecodeError> {
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
