//! From the first byte of a frame to the outermost IP header.
//!
//! Every link layer here is a prefix of the frame, so what is handed on is
//! always the frame's tail: its distance from the start says how many bytes
//! came before the IP header. Trailers (padding, checksums) stay; the length
//! in the IP header leaves them out.

use crate::packet::{DecodeError, FrameDirection, LinkType};

/// What a link layer leaves and what it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unwrapped<'a> {
    /// The frame from its IP header on.
    pub(super) ip: &'a [u8],
    /// The way the frame went, where the link layer says so.
    pub(super) direction: Option<FrameDirection>,
    /// The interface's index, where the link layer says so.
    pub(super) interface: Option<u32>,
}

/// Skips everything before the outermost IP header.
pub(super) fn unwrap(link_type: LinkType, bytes: &[u8]) -> Result<Unwrapped<'_>, DecodeError> {
    let plain = |ip| Unwrapped { ip, direction: None, interface: None };
    match link_type {
        LinkType::ETHERNET => ethernet(bytes).map(plain),
        LinkType::LINUX_SLL2 => linux_cooked_v2(bytes),
        LinkType::LINUX_SLL => linux_cooked(bytes),
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => any_ip(bytes).map(plain),
        LinkType::IPV4 => ip_version(bytes, 4).map(plain),
        LinkType::IPV6 => ip_version(bytes, 6).map(plain),
        LinkType::NULL | LinkType::LOOP => loopback(bytes).map(plain),
        LinkType::PPP => ppp(bytes).map(plain),
        LinkType::PPP_HDLC => match bytes {
            [0xff, 0x03, ..] => ppp(bytes).map(plain),
            _ => cisco_hdlc(bytes).map(plain),
        },
        LinkType::PPP_WITH_DIRECTION | LinkType::PPP_PPPD => ppp_with_direction(link_type, bytes),
        LinkType::PPP_ETHER => pppoe(bytes).map(plain),
        LinkType::CISCO_HDLC => cisco_hdlc(bytes).map(plain),
        LinkType::FRAME_RELAY => frame_relay(bytes).map(plain),
        LinkType::IEEE802_11 => ieee80211(bytes, MacPadding::None).map(plain),
        LinkType::IEEE802_11_RADIOTAP => radiotap(bytes).map(plain),
        LinkType::IEEE802_11_PRISM | LinkType::IEEE802_11_AVS => prism_or_avs(bytes).map(plain),
        LinkType::PPI => ppi(bytes),
        LinkType::ATM_RFC1483 => llc(bytes).map(plain),
        LinkType::IP_OVER_FC => llc(split::<16>(bytes)?.1).map(plain),
        LinkType::MPLS => mpls(bytes).map(plain),
        LinkType::NFLOG => nflog(bytes).map(plain),
        LinkType::PFLOG => pflog(bytes).map(plain),
        LinkType::ENC => any_ip(split::<12>(bytes)?.1).map(plain),
        _ => Err(DecodeError::LinkType),
    }
}

fn ethernet(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let ([.., high, low], rest) = split::<14>(bytes)?;
    match u16::from_be_bytes([*high, *low]) {
        0..=MAX_802_3_LENGTH => llc(rest),
        ethertype => by_ethertype(ethertype, rest),
    }
}

/// What follows an EtherType: tags, labels and sessions, however stacked.
fn by_ethertype(mut ethertype: u16, mut rest: &[u8]) -> Result<&[u8], DecodeError> {
    loop {
        match ethertype {
            ETHERTYPE_IPV4 => return ip_version(rest, 4),
            ETHERTYPE_IPV6 => return ip_version(rest, 6),
            // 802.1Q, 802.1ad and the numbers used before it: two octets of tag, then the next type.
            0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => {
                let ([_, _, high, low], inner) = split::<4>(rest)?;
                (ethertype, rest) = (u16::from_be_bytes([*high, *low]), inner);
                if ethertype <= MAX_802_3_LENGTH {
                    return llc(rest);
                }
            }
            // 802.1BR: a longer tag.
            0x893f => {
                let ([.., high, low], inner) = split::<8>(rest)?;
                (ethertype, rest) = (u16::from_be_bytes([*high, *low]), inner);
            }
            0x8847 | 0x8848 => return mpls(rest),
            0x8864 => return pppoe(rest),
            _ => return Err(DecodeError::NotIp),
        }
    }
}

/// Labels up to the one at the bottom of the stack (RFC 3032); the IP version
/// tells what follows, as nothing else does.
fn mpls(mut bytes: &[u8]) -> Result<&[u8], DecodeError> {
    loop {
        let ([_, _, label_end, _], rest) = split::<4>(bytes)?;
        bytes = rest;
        if label_end & 1 == 1 {
            return any_ip(bytes);
        }
    }
}

/// A session packet (RFC 2516): six octets, then PPP without its HDLC framing.
fn pppoe(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let ([_, code, ..], rest) = split::<6>(bytes)?;
    match code {
        0 => ppp_protocol(rest),
        _ => Err(DecodeError::NotIp),
    }
}

fn ppp(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes {
        [0xff, 0x03, rest @ ..] => ppp_protocol(rest),
        _ => ppp_protocol(bytes),
    }
}

fn ppp_with_direction(link_type: LinkType, bytes: &[u8]) -> Result<Unwrapped<'_>, DecodeError> {
    let ([way], rest) = split::<1>(bytes)?;
    let direction = if *way == 0 { FrameDirection::In } else { FrameDirection::Out };
    // pppd writes the direction over the address octet, so the control octet follows.
    let ip = match (link_type, rest) {
        (LinkType::PPP_PPPD, [0x03, rest @ ..]) => ppp_protocol(rest),
        _ => ppp(rest),
    }?;
    Ok(Unwrapped { ip, direction: Some(direction), interface: None })
}

/// A PPP protocol number, which compression may cut to one odd octet (RFC 1661, section 6.5).
fn ppp_protocol(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let ([first], rest) = split::<1>(bytes)?;
    let (number, rest) = if first & 1 == 1 {
        (u16::from(*first), rest)
    } else {
        let ([second], rest) = split::<1>(rest)?;
        (u16::from_be_bytes([*first, *second]), rest)
    };
    match number {
        0x0021 => ip_version(rest, 4),
        0x0057 => ip_version(rest, 6),
        0x0281 | 0x0283 => mpls(rest),
        _ => Err(DecodeError::NotIp),
    }
}

fn cisco_hdlc(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let ([_, _, high, low], rest) = split::<4>(bytes)?;
    by_ethertype(u16::from_be_bytes([*high, *low]), rest)
}

/// An address of two to four octets, then an NLPID (RFC 2427) or, as Cisco does it, an EtherType.
fn frame_relay(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let last = bytes.iter().take(4).position(|octet| octet & 1 == 1).ok_or(DecodeError::LinkTruncated)?;
    let rest = bytes.get(last.saturating_add(1)..).ok_or(DecodeError::LinkTruncated)?;
    match rest {
        [0x03, 0x00, nlpid, rest @ ..] | [0x03, nlpid, rest @ ..] => match nlpid {
            0xcc => ip_version(rest, 4),
            0x8e => ip_version(rest, 6),
            0x80 => snap(rest),
            _ => Err(DecodeError::NotIp),
        },
        [high, low, rest @ ..] => by_ethertype(u16::from_be_bytes([*high, *low]), rest),
        _ => Err(DecodeError::LinkTruncated),
    }
}

/// IEEE 802.2, with SNAP or with IP's own service access point.
fn llc(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes {
        [0xaa, 0xaa, 0x03, rest @ ..] => snap(rest),
        [0x06, 0x06, 0x03, rest @ ..] => ip_version(rest, 4),
        [_, _, _, ..] => Err(DecodeError::NotIp),
        _ => Err(DecodeError::LinkTruncated),
    }
}

fn snap(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let ([a, b, c, high, low], rest) = split::<5>(bytes)?;
    match [*a, *b, *c] {
        // RFC 1042, and IEEE 802.1H for bridges.
        [0, 0, 0] | [0, 0, 0xf8] => by_ethertype(u16::from_be_bytes([*high, *low]), rest),
        // RFC 2427 and RFC 2684: a bridged Ethernet frame, with its checksum or without.
        [0, 0x80, 0xc2] if *high == 0 && matches!(low, 1 | 7) => ethernet(rest),
        _ => Err(DecodeError::NotIp),
    }
}

/// A four-octet address family, in the byte order of the machine that wrote
/// it. The numbers differ between systems, but none of them is IPv4's on one
/// and IPv6's on another.
fn loopback(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if let [0xff, 0x03, ..] = bytes {
        return ppp(bytes);
    }
    let (family, rest) = split::<4>(bytes)?;
    let little = u32::from_le_bytes(*family);
    let family = if little > 0xffff { little.swap_bytes() } else { little };
    match family {
        2 => ip_version(rest, 4),
        // Linux, Windows, NetBSD, FreeBSD, macOS.
        10 | 23 | 24 | 28 | 30 => ip_version(rest, 6),
        _ => Err(DecodeError::NotIp),
    }
}

fn linux_cooked(bytes: &[u8]) -> Result<Unwrapped<'_>, DecodeError> {
    let ([kind_high, kind_low, hardware_high, hardware_low, .., high, low], rest) = split::<16>(bytes)?;
    let hardware = u16::from_be_bytes([*hardware_high, *hardware_low]);
    let ip = cooked_protocol(hardware, u16::from_be_bytes([*high, *low]), rest)?;
    let kind = u16::from_be_bytes([*kind_high, *kind_low]);
    Ok(Unwrapped { ip, direction: cooked_direction(kind), interface: None })
}

fn linux_cooked_v2(bytes: &[u8]) -> Result<Unwrapped<'_>, DecodeError> {
    let ([high, low, _, _, a, b, c, d, hardware_high, hardware_low, kind, ..], rest) = split::<20>(bytes)?;
    let hardware = u16::from_be_bytes([*hardware_high, *hardware_low]);
    let ip = cooked_protocol(hardware, u16::from_be_bytes([*high, *low]), rest)?;
    let interface = u32::from_be_bytes([*a, *b, *c, *d]);
    Ok(Unwrapped { ip, direction: cooked_direction(u16::from(*kind)), interface: Some(interface) })
}

/// The protocol field has EtherTypes and, below 1536, the kernel's own numbers (`ETH_P_802_2` and others).
fn cooked_protocol(hardware: u16, protocol: u16, rest: &[u8]) -> Result<&[u8], DecodeError> {
    const ARPHRD_NETLINK: u16 = 824;
    match protocol {
        _ if hardware == ARPHRD_NETLINK => Err(DecodeError::NotIp),
        0x0004 => llc(rest),
        ethertype => by_ethertype(ethertype, rest),
    }
}

/// `PACKET_OUTGOING` and the kinds that reach this host; `PACKET_OTHERHOST` is neither.
pub(super) fn cooked_direction(kind: u16) -> Option<FrameDirection> {
    match kind {
        0..=2 => Some(FrameDirection::In),
        4 => Some(FrameDirection::Out),
        _ => None,
    }
}

/// Whether the 802.11 header is padded to a multiple of four octets, which radiotap tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MacPadding {
    None,
    ToFour,
}

/// A data frame's header, as long as its flags make it (IEEE 802.11-2020, section 9.3.2.1).
fn ieee80211(bytes: &[u8], padding: MacPadding) -> Result<&[u8], DecodeError> {
    const TYPE_MASK: u8 = 0x0c;
    const TYPE_DATA: u8 = 0x08;
    const NO_DATA: u8 = 0x40;
    const QOS: u8 = 0x80;
    const BOTH_SYSTEMS: u8 = 0x03;
    const PROTECTED: u8 = 0x40;
    const ORDER: u8 = 0x80;
    const AGGREGATE: u8 = 0x80;

    let ([control, flags], _) = split::<2>(bytes)?;
    if control & TYPE_MASK != TYPE_DATA || control & NO_DATA != 0 {
        return Err(DecodeError::NotIp);
    }
    if flags & PROTECTED != 0 {
        return Err(DecodeError::Encrypted);
    }
    let addresses: usize = if flags & BOTH_SYSTEMS == BOTH_SYSTEMS { 30 } else { 24 };
    let mut header = addresses;
    let mut aggregate = false;
    if control & QOS != 0 {
        aggregate = bytes.get(addresses).ok_or(DecodeError::LinkTruncated)? & AGGREGATE != 0;
        header += if flags & ORDER != 0 { 6 } else { 2 };
    }
    if padding == MacPadding::ToFour {
        header = header.next_multiple_of(4);
    }
    if aggregate {
        // The first of the aggregated frames; each has addresses and a length of its own.
        header += 14;
    }
    llc(bytes.get(header..).ok_or(DecodeError::LinkTruncated)?)
}

/// A little-endian length, and flags that may say that the 802.11 header is padded.
fn radiotap(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let ([_, _, low, high, ..], _) = split::<8>(bytes)?;
    let frame = bytes.get(usize::from(u16::from_le_bytes([*low, *high]))..).ok_or(DecodeError::LinkTruncated)?;
    ieee80211(frame, radiotap_padding(bytes).unwrap_or(MacPadding::None))
}

fn radiotap_padding(bytes: &[u8]) -> Option<MacPadding> {
    const TIMESTAMP: u32 = 1;
    const FLAGS: u32 = 1 << 1;
    const MORE_WORDS: u32 = 1 << 31;
    const DATA_PADDING: u8 = 0x20;

    let (_, mut words) = bytes.split_first_chunk::<4>()?;
    let mut first = None;
    loop {
        let (word, rest) = words.split_first_chunk::<4>()?;
        let word = u32::from_le_bytes(*word);
        let present = *first.get_or_insert(word);
        words = rest;
        if word & MORE_WORDS == 0 {
            if present & FLAGS == 0 {
                return Some(MacPadding::None);
            }
            // Fields are aligned to their size, counted from the start of the header.
            let mut offset = bytes.len().checked_sub(words.len())?;
            if present & TIMESTAMP != 0 {
                offset = offset.next_multiple_of(8).checked_add(8)?;
            }
            let padded = bytes.get(offset)? & DATA_PADDING != 0;
            return Some(if padded { MacPadding::ToFour } else { MacPadding::None });
        }
    }
}

/// The Prism header and AVS, which share a link type in practice; both tell their own length.
fn prism_or_avs(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    const PRISM_LENGTH: usize = 144;
    let ([m0, m1, m2, m3, l0, l1, l2, l3], _) = split::<8>(bytes)?;
    let length = match u32::from_be_bytes([*m0, *m1, *m2, *m3]) {
        0x8021_1001 | 0x8021_1002 => u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize,
        _ => PRISM_LENGTH,
    };
    ieee80211(bytes.get(length..).ok_or(DecodeError::LinkTruncated)?, MacPadding::None)
}

/// Per-Packet Information: a header of the length it says, then a frame of the link type it says.
fn ppi(bytes: &[u8]) -> Result<Unwrapped<'_>, DecodeError> {
    let ([_, _, low, high, t0, t1, t2, t3], _) = split::<8>(bytes)?;
    let frame = bytes.get(usize::from(u16::from_le_bytes([*low, *high]))..).ok_or(DecodeError::LinkTruncated)?;
    match LinkType(u32::from_le_bytes([*t0, *t1, *t2, *t3])) {
        LinkType::PPI => Err(DecodeError::LinkType),
        inner => unwrap(inner, frame),
    }
}

/// Netfilter's log: attributes in the writer's byte order; one of them is the packet.
fn nflog(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    const PAYLOAD: u16 = 9;
    let ([_family, _version, _, _], mut attributes) = split::<4>(bytes)?;
    loop {
        let ([l0, l1, t0, t1], value) = split::<4>(attributes)?;
        let length = u16::from_le_bytes([*l0, *l1]);
        let kind = u16::from_le_bytes([*t0, *t1]);
        // A big-endian writer's small numbers are large when read the other way round.
        let (length, kind) = if kind > 0xff { (length.swap_bytes(), kind.swap_bytes()) } else { (length, kind) };
        if kind & 0x7fff == PAYLOAD {
            return any_ip(value);
        }
        let next = usize::from(length).next_multiple_of(4).max(4);
        attributes = attributes.get(next..).ok_or(DecodeError::NotIp)?;
    }
}

/// OpenBSD's packet filter log: a header padded to four octets, the address family in its second.
fn pflog(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let ([length, ..], _) = split::<2>(bytes)?;
    any_ip(bytes.get(usize::from(*length).next_multiple_of(4)..).ok_or(DecodeError::LinkTruncated)?)
}

/// Either version of IP, by the header's own word.
fn any_ip(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes.first().map(|first| first >> 4) {
        Some(4 | 6) => Ok(bytes),
        Some(_) => Err(DecodeError::NotIp),
        None => Err(DecodeError::NetworkTruncated),
    }
}

/// The version that the link layer announced; another one is a damaged header.
fn ip_version(bytes: &[u8], version: u8) -> Result<&[u8], DecodeError> {
    match bytes.first().map(|first| first >> 4) {
        Some(found) if found == version => Ok(bytes),
        Some(_) => Err(DecodeError::NetworkDamaged),
        None => Err(DecodeError::NetworkTruncated),
    }
}

fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), DecodeError> {
    bytes.split_first_chunk::<N>().ok_or(DecodeError::LinkTruncated)
}

/// IPv4 after an EtherType.
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
/// IPv6 after an EtherType.
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// In the place of an EtherType, up to this it is a length and IEEE 802.2 follows.
const MAX_802_3_LENGTH: u16 = 1500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_layer_leads_to_the_ip_header() {
        let ethernet = |ethertype: u16, rest: &[u8]| [&[2; 12], &ethertype.to_be_bytes()[..], rest].concat();
        let cases: &[(&str, LinkType, Vec<u8>)] = &[
            ("ethernet", LinkType::ETHERNET, ethernet(0x0800, IP)),
            ("802.1Q in 802.1ad", LinkType::ETHERNET, ethernet(0x88a8, &prefix(&[0, 1, 0x81, 0, 0, 2, 8, 0]))),
            ("802.1BR", LinkType::ETHERNET, ethernet(0x893f, &prefix(&[0, 0, 0, 0, 0, 0, 8, 0]))),
            ("802.3 with SNAP", LinkType::ETHERNET, ethernet(8, &prefix(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]))),
            ("802.3 with LLC alone", LinkType::ETHERNET, ethernet(3, &prefix(&[6, 6, 3]))),
            ("MPLS, two labels", LinkType::ETHERNET, ethernet(0x8847, &prefix(&[0, 1, 0, 9, 0, 2, 1, 9]))),
            ("PPPoE", LinkType::ETHERNET, ethernet(0x8864, &prefix(&[0x11, 0, 0, 1, 0, 22, 0, 0x21]))),
            ("PPPoE alone", LinkType::PPP_ETHER, prefix(&[0x11, 0, 0, 1, 0, 22, 0, 0x21])),
            ("PPP", LinkType::PPP, prefix(&[0, 0x21])),
            ("PPP, framed and compressed", LinkType::PPP, prefix(&[0xff, 3, 0x21])),
            ("PPP in HDLC", LinkType::PPP_HDLC, prefix(&[0xff, 3, 0, 0x21])),
            ("Cisco HDLC where PPP is meant", LinkType::PPP_HDLC, prefix(&[0x0f, 0, 8, 0])),
            ("Cisco HDLC", LinkType::CISCO_HDLC, prefix(&[0x0f, 0, 8, 0])),
            ("frame relay, NLPID", LinkType::FRAME_RELAY, prefix(&[0x18, 0x41, 3, 0xcc])),
            ("frame relay, padded NLPID", LinkType::FRAME_RELAY, prefix(&[0x18, 0x41, 3, 0, 0xcc])),
            ("frame relay, SNAP", LinkType::FRAME_RELAY, prefix(&[0x18, 0x41, 3, 0, 0x80, 0, 0, 0, 8, 0])),
            ("frame relay, Cisco's way", LinkType::FRAME_RELAY, prefix(&[0x18, 0x41, 8, 0])),
            ("loopback, little-endian", LinkType::NULL, prefix(&[2, 0, 0, 0])),
            ("loopback, big-endian", LinkType::NULL, prefix(&[0, 0, 0, 2])),
            ("OpenBSD loopback", LinkType::LOOP, prefix(&[0, 0, 0, 2])),
            ("ATM", LinkType::ATM_RFC1483, prefix(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0])),
            ("packet filter log", LinkType::PFLOG, [&[61, 2][..], &[0; 62], IP].concat()),
            ("IPsec encapsulation", LinkType::ENC, [&[0; 12], IP].concat()),
            ("MPLS alone", LinkType::MPLS, prefix(&[0, 1, 1, 9])),
            ("netfilter log", LinkType::NFLOG, prefix(&[2, 0, 0, 0, 5, 0, 10, 0, b'x', 0, 0, 0, 24, 0, 9, 0])),
            ("802.11", LinkType::IEEE802_11, [&[8, 1][..], &[0; 22], SNAP, IP].concat()),
            ("802.11 with QoS, four addresses", LinkType::IEEE802_11, [&[0x88, 3][..], &[0; 30], SNAP, IP].concat()),
            ("802.11, aggregated", LinkType::IEEE802_11, {
                [&[0x88, 1][..], &[0; 22], &[0x80, 0], &[0; 14], SNAP, IP].concat()
            }),
            ("radiotap, padded", LinkType::IEEE802_11_RADIOTAP, {
                let radiotap = [0, 0, 9, 0, 2, 0, 0, 0, 0x20];
                [&radiotap[..], &[0x88, 1], &[0; 24], &[0; 2], SNAP, IP].concat()
            }),
            ("PPI", LinkType::PPI, [&[0, 0, 8, 0, 105, 0, 0, 0, 8, 1][..], &[0; 22], SNAP, IP].concat()),
            ("raw", LinkType::RAW, IP.to_vec()),
            ("raw IPv4", LinkType::IPV4, IP.to_vec()),
        ];
        for (name, link_type, bytes) in cases {
            assert_eq!(unwrap(*link_type, bytes).map(|unwrapped| unwrapped.ip), Ok(IP), "{name}");
            for length in 0..bytes.len() {
                // However short it is cut, there is an answer.
                let answer = unwrap(*link_type, bytes.get(..length).unwrap());
                assert!(answer.is_ok_and(|unwrapped| !unwrapped.ip.is_empty()) || answer.is_err(), "{name}");
            }
        }
    }

    #[test]
    fn some_link_layers_tell_the_direction() {
        let cooked = |kind: u8| [&[0, kind, 0, 1][..], &[0; 10], &[8, 0], IP].concat();
        let way = |link_type, bytes: &[u8]| unwrap(link_type, bytes).unwrap().direction;
        assert_eq!(way(LinkType::LINUX_SLL, &cooked(0)), Some(FrameDirection::In));
        assert_eq!(way(LinkType::LINUX_SLL, &cooked(3)), None);
        assert_eq!(way(LinkType::LINUX_SLL, &cooked(4)), Some(FrameDirection::Out));
        assert_eq!(way(LinkType::PPP_WITH_DIRECTION, &prefix(&[1, 0xff, 3, 0, 0x21])), Some(FrameDirection::Out));
        assert_eq!(way(LinkType::PPP_PPPD, &prefix(&[0, 3, 0, 0x21])), Some(FrameDirection::In));
    }

    #[test]
    fn what_is_not_ip_is_told_from_what_is_damaged() {
        let ethernet = |ethertype: u16, rest: &[u8]| [&[2; 12], &ethertype.to_be_bytes()[..], rest].concat();
        let error = |link_type, bytes: &[u8]| unwrap(link_type, bytes).unwrap_err();
        assert_eq!(error(LinkType::ETHERNET, &ethernet(0x0806, &[0; 28])), DecodeError::NotIp);
        assert_eq!(error(LinkType::ETHERNET, &ethernet(0x86dd, IP)), DecodeError::NetworkDamaged);
        assert_eq!(error(LinkType::ETHERNET, &[2; 13]), DecodeError::LinkTruncated);
        assert_eq!(error(LinkType::IEEE802_11, &[8, 0x40, 0, 0]), DecodeError::Encrypted);
        assert_eq!(error(LinkType(147), IP), DecodeError::LinkType);
        assert_eq!(error(LinkType::PPI, &[0, 0, 8, 0, 192, 0, 0, 0]), DecodeError::LinkType);
    }

    fn prefix(before: &[u8]) -> Vec<u8> {
        [before, IP].concat()
    }

    const IP: &[u8] = &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    const SNAP: &[u8] = &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
}
