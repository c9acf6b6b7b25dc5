//! A frame: one record of a capture, before anything is read from it.

use crate::time::Timestamp;

/// One captured frame, borrowed from the reader's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// When it was captured; [`Timestamp::EPOCH`] where the record says nothing.
    pub timestamp: Timestamp,
    /// How the bytes begin.
    pub link_type: LinkType,
    /// The length on the wire, which `bytes` may be shorter than.
    pub wire_length: u32,
    /// The number of the interface in its capture.
    pub interface: u32,
    /// The way the frame went, where the capture says so.
    pub direction: Option<FrameDirection>,
    /// The captured bytes.
    pub bytes: &'a [u8],
}

/// The way a frame went, as the capture itself recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameDirection {
    /// Received by this host.
    In,
    /// Sent by this host.
    Out,
}

/// A `LINKTYPE_` value of the tcpdump group's list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LinkType(pub u32);

impl LinkType {
    /// BSD loopback: a four-octet address family in the writer's byte order.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// Raw IP; the version nibble tells which.
    pub const RAW: Self = Self(101);
    /// Linux cooked capture, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// Linux cooked capture, version 2, which names the interface.
    pub const LINUX_SLL2: Self = Self(276);
}
