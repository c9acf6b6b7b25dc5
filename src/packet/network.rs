//! What an IP header says, whatever its shape: options, extension headers,
//! fragments, lengths that do not fit their field.
//!
//! The headers are read with `etherparse`. Its iterator over IPv6 extension
//! headers is not used: after a header that was cut short it would read
//! beyond the slice, and it walks on into the data of later fragments.

use etherparse::err::ipv4::HeaderSliceError as Ipv4Error;
use etherparse::err::ipv6::HeaderSliceError as Ipv6Error;
use etherparse::ip_number::{IPV6_DEST_OPTIONS, IPV6_FRAG, IPV6_HOP_BY_HOP, IPV6_ROUTE};
use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice};

use crate::packet::fragment::Datagram;
use crate::packet::{Address, DecodeError, Fragment, Protocol};

/// An IP header with everything up to the transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network<'a> {
    pub(super) source: Address,
    pub(super) destination: Address,
    /// For IPv6 what follows the extension headers.
    pub(super) protocol: Protocol,
    /// Header and payload as sent.
    pub(super) bytes: u64,
    /// What follows the header and its extensions, as sent.
    pub(super) segment_bytes: u64,
    pub(super) fragment: Fragment,
    /// Which datagram this is a fragment of; of no use for a whole packet.
    pub(super) datagram: Datagram,
    /// The captured part of what follows the header and its extensions.
    pub(super) segment: &'a [u8],
}

impl<'a> Network<'a> {
    /// Reads the header at the start of `ip`, of which `wire_length` bytes were on the wire.
    pub(super) fn read(ip: &'a [u8], wire_length: u64) -> Result<Self, DecodeError> {
        match ip.first().map(|first| first >> 4) {
            Some(4) => Self::read_v4(ip, wire_length),
            Some(6) => Self::read_v6(ip, wire_length),
            Some(_) => Err(DecodeError::NetworkDamaged),
            None => Err(DecodeError::NetworkTruncated),
        }
    }

    fn read_v4(ip: &'a [u8], wire_length: u64) -> Result<Self, DecodeError> {
        let mut without_options;
        let header = match Ipv4HeaderSlice::from_slice(ip) {
            Ok(header) => header,
            Err(Ipv4Error::Content(_)) => return Err(DecodeError::NetworkDamaged),
            // The snapshot length may cut the options, which nothing here needs.
            Err(Ipv4Error::Len(_)) => {
                let fixed = ip.first_chunk::<20>().ok_or(DecodeError::NetworkTruncated)?;
                without_options = *fixed;
                let [version_and_length, ..] = &mut without_options;
                *version_and_length = 0x45;
                Ipv4HeaderSlice::from_slice(&without_options).map_err(|_| DecodeError::NetworkDamaged)?
            }
        };
        let header_length = ip.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        let bytes = match u64::from(header.total_len()) {
            0 => wire_length,
            total => total,
        };
        let segment_bytes = bytes.checked_sub(header_length as u64).ok_or(DecodeError::NetworkDamaged)?;
        if header.total_len() == 0 && segment_bytes == 0 {
            return Err(DecodeError::NetworkDamaged);
        }
        let protocol = header.protocol().0;
        let (source, destination) = (Address::from_v4(header.source()), Address::from_v4(header.destination()));
        Ok(Self {
            source,
            destination,
            protocol: Protocol(protocol),
            bytes,
            segment_bytes,
            fragment: fragment(header.fragments_offset().value(), header.more_fragments()),
            datagram: Datagram { source, destination, identification: header.identification().into(), protocol },
            segment: up_to(ip.get(header_length..).unwrap_or_default(), segment_bytes),
        })
    }

    fn read_v6(ip: &'a [u8], wire_length: u64) -> Result<Self, DecodeError> {
        let header = match Ipv6HeaderSlice::from_slice(ip) {
            Ok(header) => header,
            Err(Ipv6Error::Content(_)) => return Err(DecodeError::NetworkDamaged),
            Err(Ipv6Error::Len(_)) => return Err(DecodeError::NetworkTruncated),
        };
        let after_header = ip.get(IPV6_HEADER as usize..).unwrap_or_default();
        let bytes = match u64::from(header.payload_length()) {
            0 => match jumbo_payload_length(header.next_header(), after_header) {
                Some(length) => IPV6_HEADER.saturating_add(length),
                None => wire_length.max(IPV6_HEADER),
            },
            length => IPV6_HEADER.saturating_add(length),
        };
        let payload = up_to(after_header, bytes.saturating_sub(IPV6_HEADER));
        let extensions = Extensions::walk(header.next_header(), payload);
        let before_segment = payload.len().saturating_sub(extensions.rest.len()) as u64;
        let (source, destination) = (Address::from_v6(header.source()), Address::from_v6(header.destination()));
        Ok(Self {
            source,
            destination,
            protocol: Protocol(extensions.next.0),
            bytes,
            segment_bytes: bytes.saturating_sub(IPV6_HEADER).saturating_sub(before_segment),
            fragment: extensions.fragment,
            datagram: Datagram { source, destination, identification: extensions.identification, protocol: 0 },
            segment: extensions.rest,
        })
    }
}

/// The IPv6 extension headers between the header and the transport.
struct Extensions<'a> {
    /// What follows them.
    next: IpNumber,
    rest: &'a [u8],
    fragment: Fragment,
    identification: u32,
}

impl<'a> Extensions<'a> {
    /// Walks over every header. One that was cut short, or that claims more
    /// than the packet has, is the last but still tells what follows it. A
    /// later fragment has nothing but data behind its fragment header.
    fn walk(next: IpNumber, rest: &'a [u8]) -> Self {
        let mut walked = Self { next, rest, fragment: Fragment::None, identification: 0 };
        loop {
            let length = match walked.next {
                IPV6_HOP_BY_HOP | IPV6_ROUTE | IPV6_DEST_OPTIONS => {
                    let Ok(header) = Ipv6RawExtHeaderSlice::from_slice(walked.rest) else { return walked.cut() };
                    walked.next = header.next_header();
                    header.slice().len()
                }
                IPV6_FRAG => {
                    let Ok(header) = Ipv6FragmentHeaderSlice::from_slice(walked.rest) else { return walked.cut() };
                    walked.next = header.next_header();
                    walked.fragment = fragment(header.fragment_offset().value(), header.more_fragments());
                    walked.identification = header.identification();
                    header.slice().len()
                }
                _ => return walked,
            };
            walked.rest = walked.rest.get(length..).unwrap_or_default();
            if walked.fragment == Fragment::Later {
                return walked;
            }
        }
    }

    fn cut(self) -> Self {
        let next = self.rest.first().map_or(self.next, |next| IpNumber(*next));
        Self { next, rest: &[], ..self }
    }
}

/// The length in a jumbo payload option (RFC 2675), which stands in a
/// hop-by-hop header right after the IPv6 header.
fn jumbo_payload_length(next: IpNumber, after_header: &[u8]) -> Option<u64> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    if next != IPV6_HOP_BY_HOP {
        return None;
    }
    let header = Ipv6RawExtHeaderSlice::from_slice(after_header).ok()?;
    let mut options = header.payload();
    loop {
        options = match options {
            [PAD1, rest @ ..] => rest,
            [JUMBO, 4, a, b, c, d, ..] => return Some(u64::from(u32::from_be_bytes([*a, *b, *c, *d]))),
            [_, length, rest @ ..] => rest.get(usize::from(*length)..)?,
            _ => return None,
        };
    }
}

fn fragment(offset: u16, more_fragments: bool) -> Fragment {
    match (offset, more_fragments) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// The first `length` bytes, or all if there are fewer.
fn up_to(bytes: &[u8], length: u64) -> &[u8] {
    usize::try_from(length).ok().and_then(|length| bytes.get(..length)).unwrap_or(bytes)
}

const IPV6_HEADER: u64 = 40;
