//! A frame: one record of a capture, before anything is read from it.

use crate::time::Timestamp;

/// One captured frame, borrowed from the reader's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// When it was captured. A record that says nothing has the time of the one
    /// before it, or [`Timestamp::EPOCH`] if there is none.
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
    /// PPP, with HDLC framing or without.
    pub const PPP: Self = Self(9);
    /// Raw IP, as older BSD systems number it.
    pub const RAW_BSD: Self = Self(12);
    /// Raw IP, as OpenBSD numbers it.
    pub const RAW_OPENBSD: Self = Self(14);
    /// PPP with HDLC framing, or Cisco's HDLC.
    pub const PPP_HDLC: Self = Self(50);
    /// A PPPoE session packet without its Ethernet header.
    pub const PPP_ETHER: Self = Self(51);
    /// ATM with LLC encapsulation (RFC 2684).
    pub const ATM_RFC1483: Self = Self(100);
    /// Raw IP; the version nibble tells which.
    pub const RAW: Self = Self(101);
    /// Cisco's HDLC.
    pub const CISCO_HDLC: Self = Self(104);
    /// Wireless LAN frames as they are.
    pub const IEEE802_11: Self = Self(105);
    /// Frame relay.
    pub const FRAME_RELAY: Self = Self(107);
    /// OpenBSD loopback: a four-octet address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// OpenBSD IPsec encapsulation.
    pub const ENC: Self = Self(109);
    /// Linux cooked capture, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// OpenBSD's packet filter log.
    pub const PFLOG: Self = Self(117);
    /// Wireless LAN frames behind a Prism header.
    pub const IEEE802_11_PRISM: Self = Self(119);
    /// IP over Fibre Channel (RFC 2625).
    pub const IP_OVER_FC: Self = Self(122);
    /// Wireless LAN frames behind a radiotap header.
    pub const IEEE802_11_RADIOTAP: Self = Self(127);
    /// Wireless LAN frames behind an AVS header.
    pub const IEEE802_11_AVS: Self = Self(163);
    /// PPP as Linux's pppd logs it, with the direction in its first octet.
    pub const PPP_PPPD: Self = Self(166);
    /// Per-Packet Information before a frame of another link type.
    pub const PPI: Self = Self(192);
    /// PPP with the direction in an octet before it.
    pub const PPP_WITH_DIRECTION: Self = Self(204);
    /// MPLS without a link layer.
    pub const MPLS: Self = Self(219);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Netfilter's log.
    pub const NFLOG: Self = Self(239);
    /// Linux cooked capture, version 2, which names the interface.
    pub const LINUX_SLL2: Self = Self(276);
}
