//! The classic format: a header, then records; all byte orders, microseconds
//! and nanoseconds, and the "modified" variant with longer record headers.

use pcap_parser::{PcapHeader, nom, parse_pcap_header};

use super::{Format, Interface, MAX_PACKET, Problem, Recognized, Record, Step};
use crate::packet::{Frame, LinkType};
use crate::time::Timestamp;

/// What the file header says of every record.
pub(super) struct Pcap {
    order: ByteOrder,
    record_header: usize,
    /// Nanoseconds in one unit of the time stamp's fraction.
    fraction: i64,
    /// Until version 2.3 the two lengths of a record were the other way round.
    swapped_lengths: bool,
    limit: u32,
    interface: [Interface; 1],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

impl Pcap {
    pub(super) fn recognize(bytes: &[u8]) -> Recognized {
        let header = match parse_pcap_header(bytes) {
            Ok((_, header)) => header,
            Err(nom::Err::Incomplete(_)) => return Recognized::Incomplete(FILE_HEADER),
            Err(_) => return Recognized::Foreign(""),
        };
        if header.version_major != 2 {
            let (major, minor) = (header.version_major, header.version_minor);
            return Recognized::Broken(Problem::Version { major, minor });
        }
        Recognized::Format(Format::Pcap(Self::new(&header)), FILE_HEADER)
    }

    fn new(header: &PcapHeader) -> Self {
        // The upper bits say how long the frames' checksums are.
        let link_type = LinkType(header.network.0.cast_unsigned() & 0x03ff_ffff);
        Self {
            order: if header.is_bigendian() { ByteOrder::Big } else { ByteOrder::Little },
            record_header: if header.is_modified_format() { 24 } else { 16 },
            fraction: if header.is_nanosecond_precision() { 1 } else { 1_000 },
            swapped_lengths: header.version_minor < 3,
            limit: header.snaplen.clamp(MAX_PACKET, MAX_SNAPLEN),
            interface: [Interface { name: None, link_type }],
        }
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interface
    }

    #[inline]
    pub(super) fn step<'a>(&self, unread: &'a [u8]) -> Step<'a> {
        if let Some((frame, length)) = self.record(unread) {
            return Step::Record(Record { frame, owner: None }, length);
        }
        let Some(header) = unread.first_chunk::<16>() else { return Step::Incomplete(self.record_header) };
        let [_, _, captured, _] = self.words(header);
        match captured > self.limit {
            true => Step::Broken(Problem::Oversized { length: captured.into(), limit: self.limit.into() }),
            false => Step::Incomplete(self.record_header.saturating_add(captured as usize)),
        }
    }

    /// The record at the start of the unread bytes and its length, if it is whole and sound.
    #[inline]
    pub(super) fn record<'a>(&self, unread: &'a [u8]) -> Option<(Frame<'a>, usize)> {
        let [seconds, fraction, captured, original] = self.words(unread.first_chunk::<16>()?);
        if captured > self.limit {
            return None;
        }
        let length = self.record_header.saturating_add(captured as usize);
        let bytes = unread.get(self.record_header..length)?;
        let [interface] = &self.interface;
        let nanos = i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * self.fraction;
        let frame = Frame {
            timestamp: Timestamp::from_nanos(nanos),
            link_type: interface.link_type,
            wire_length: original,
            interface: 0,
            direction: None,
            bytes,
        };
        Some((frame, length))
    }

    /// Seconds, fraction, captured and original length.
    #[inline]
    fn words(&self, header: &[u8; 16]) -> [u32; 4] {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *header;
        let words = [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]];
        let [seconds, fraction, captured, original] = match self.order {
            ByteOrder::Little => words.map(u32::from_le_bytes),
            ByteOrder::Big => words.map(u32::from_be_bytes),
        };
        match self.swapped_lengths {
            true => [seconds, fraction, original, captured],
            false => [seconds, fraction, captured, original],
        }
    }
}

const FILE_HEADER: usize = 24;

/// A header may ask for a larger limit than [`MAX_PACKET`], up to this.
const MAX_SNAPLEN: u32 = 16 * 1024 * 1024;
