//! What a source of frames has brought, by the rules by which captures are counted.

use crate::packet::{DecodeErrors, Packet};
use crate::time::Timestamp;

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct FrameCounts {
    /// Records of the files, or what was captured.
    pub frames: u64,
    /// Packets of the outermost IP header.
    pub ip_packets: u64,
    /// Their bytes, by that header.
    pub ip_bytes: u64,
    /// Packets that another interface had shown already; they count nowhere else.
    pub repeated: u64,
    /// Frames that gave no packet, by reason.
    pub errors: DecodeErrors,
    /// The first packet's time.
    pub first: Option<Timestamp>,
    /// The last packet's time.
    pub last: Option<Timestamp>,
}

impl FrameCounts {
    /// Counts a frame that holds a packet.
    pub(super) fn add(&mut self, packet: &Packet<'_>) {
        self.ip_packets += 1;
        self.ip_bytes = self.ip_bytes.saturating_add(packet.bytes.0);
        self.first.get_or_insert(packet.timestamp);
        self.last = Some(packet.timestamp);
    }
}
