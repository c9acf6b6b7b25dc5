//! What a transport header says: ports, flags and where the payload begins.
//!
//! The header may be cut by the snapshot length. Ports need its first four
//! octets; a length that was not captured is taken as the shortest there is.

use crate::packet::Protocol;

/// The flags octet of a TCP header (RFC 9293, section 3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has finished sending.
    pub const FIN: u8 = 0x01;
    /// A connection is being opened.
    pub const SYN: u8 = 0x02;
    /// The connection is refused or torn down.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;

    /// Whether every bit of `mask` is set.
    pub fn has(self, mask: u8) -> bool {
        self.0 & mask == mask
    }

    /// Whether this opens a connection: SYN without ACK.
    pub fn opens(self) -> bool {
        self.has(Self::SYN) && !self.has(Self::ACK)
    }
}

/// A transport header as far as it was captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Transport<'a> {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// The length of the header as sent.
    pub(super) header_length: u64,
    pub(super) tcp_flags: Option<TcpFlags>,
    /// The sequence number, 0 where the protocol has none or it was not captured.
    pub(super) tcp_sequence: u32,
    /// The captured part of what follows the header.
    pub(super) payload: &'a [u8],
}

impl<'a> Transport<'a> {
    /// Reads the header at the start of `segment`, the captured bytes after the IP header.
    #[inline]
    pub(super) fn read(protocol: Protocol, segment: &'a [u8]) -> Self {
        let (source_port, destination_port) = match segment.first_chunk() {
            Some([a, b, c, d]) if protocol.has_ports() => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
            _ => (0, 0),
        };
        let header_length = header_length(protocol, segment);
        Self {
            source_port,
            destination_port,
            header_length: header_length as u64,
            tcp_flags: match segment.get(13) {
                Some(flags) if protocol == Protocol::TCP => Some(TcpFlags(*flags)),
                _ => None,
            },
            tcp_sequence: match segment.get(4..8).and_then(|bytes| bytes.first_chunk()) {
                Some(octets) if protocol == Protocol::TCP => u32::from_be_bytes(*octets),
                _ => 0,
            },
            payload: segment.get(header_length..).unwrap_or_default(),
        }
    }
}

#[inline]
fn header_length(protocol: Protocol, segment: &[u8]) -> usize {
    match protocol {
        // The data offset counts words of four octets (RFC 9293, section 3.1).
        Protocol::TCP => segment.get(12).map_or(20, |offset| usize::from(offset >> 4) * 4).max(20),
        Protocol::UDP | Protocol::UDP_LITE => 8,
        // As an echo has it: type, code, checksum, identifier and sequence number.
        Protocol::ICMP | Protocol::ICMPV6 => 8,
        Protocol::SCTP => 12,
        // Words of four octets (RFC 4340, section 5.1).
        Protocol::DCCP => segment.get(4).map_or(12, |offset| usize::from(*offset) * 4).max(12),
        _ => 0,
    }
}
