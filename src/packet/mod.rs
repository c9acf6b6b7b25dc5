//! From bytes to a [`Packet`]: what the outermost IP header says.
//!
//! Pure. Nothing here allocates for a packet, and no input panics.

mod five_tuple;
mod frame;

pub use five_tuple::{Address, Endpoint, FiveTuple, Protocol};
pub use frame::{Frame, FrameDirection, LinkType};

use crate::time::Timestamp;
use crate::units::Bytes;

/// One decoded IP packet, as the outermost IP header describes it.
#[derive(Debug, Clone, Copy)]
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
    /// Whether this is a whole packet or a fragment of one.
    pub fragment: Fragment,
    /// The way the packet went, where the capture says so.
    pub direction: Option<FrameDirection>,
    /// The number of the interface in its capture.
    pub interface: u32,
    /// The captured part of what follows the transport header.
    pub payload: &'a [u8],
}

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
