//! Bytes and packets of a flow, out and in.

use crate::units::{Bytes, Packets};

/// What went out and came in, as this host sees it, whoever opened the flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// IP header and payload out.
    pub bytes_out: Bytes,
    /// IP header and payload in.
    pub bytes_in: Bytes,
    /// Bytes after the transport header, out.
    pub payload_out: Bytes,
    /// Bytes after the transport header, in.
    pub payload_in: Bytes,
    /// Packets out.
    pub packets_out: Packets,
    /// Packets in.
    pub packets_in: Packets,
}

impl Counters {
    /// Nothing was counted.
    pub const NONE: Self = Self {
        bytes_out: Bytes(0),
        bytes_in: Bytes(0),
        payload_out: Bytes(0),
        payload_in: Bytes(0),
        packets_out: Packets(0),
        packets_in: Packets(0),
    };

    /// Bytes and packets together: no sum of some of them is larger.
    #[inline]
    pub fn weight(&self) -> u64 {
        let bytes = self.bytes_out.0.saturating_add(self.bytes_in.0);
        bytes.saturating_add(self.packets_out.0).saturating_add(self.packets_in.0)
    }

    /// Adds what `other` counted.
    #[inline]
    pub fn add(&mut self, other: &Self) {
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.payload_out += other.payload_out;
        self.payload_in += other.payload_in;
        self.packets_out += other.packets_out;
        self.packets_in += other.packets_in;
    }

    /// What was counted since `earlier`, an older state of the same counters.
    #[inline]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            payload_out: self.payload_out.saturating_sub(earlier.payload_out),
            payload_in: self.payload_in.saturating_sub(earlier.payload_in),
            packets_out: Packets(self.packets_out.0.saturating_sub(earlier.packets_out.0)),
            packets_in: Packets(self.packets_in.0.saturating_sub(earlier.packets_in.0)),
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
