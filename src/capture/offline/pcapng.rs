//! The block format: sections of either byte order, each with interfaces of
//! its own; packets with options that may name their owner and direction.
//!
//! Blocks that carry no packet and describe no interface are skipped unread.

use pcap_parser::nom::{Err as NomError, IResult};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, OptionCode, PcapError, PcapNGOption, SimplePacketBlock,
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_sectionheaderblock, parse_simplepacketblock_be,
    parse_simplepacketblock_le,
};

use super::owners::Owners;
use super::{Interface, MAX_PACKET, Problem, Record, Step};
use crate::packet::{Frame, FrameDirection, LinkType};
use crate::time::Timestamp;

/// What the blocks so far have said.
#[derive(Default)]
pub(super) struct Pcapng {
    section: Section,
    /// The interfaces of all sections; [`Section::first_interface`] is where this section's begin.
    interfaces: Vec<Interface>,
    clocks: Vec<Clock>,
    /// The time of the packet before, which one without a time stamp takes over.
    latest: Timestamp,
    owners: Owners,
}

#[derive(Default)]
struct Section {
    order: ByteOrder,
    first_interface: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ByteOrder {
    #[default]
    Little,
    Big,
}

/// How an interface's time stamps count, and how long its packets are at most.
struct Clock {
    unit: Unit,
    offset_seconds: i64,
    snaplen: u32,
}

/// One tick of an interface's time stamps.
enum Unit {
    Nanosecond,
    Microsecond,
    /// So many in a second.
    PerSecond(u128),
}

/// A packet as a block has it, whichever kind of block.
struct Raw<'a> {
    interface: u32,
    ticks: Option<u64>,
    wire_length: u32,
    bytes: &'a [u8],
}

impl Pcapng {
    /// Whether this is a section header; `None` if there is too little to tell.
    pub(super) fn recognize(bytes: &[u8]) -> Option<bool> {
        let (_, magic) = bytes.split_first_chunk::<8>()?;
        byte_order(magic.first_chunk::<4>()?).map_or(Some(false), |_| Some(true))
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// How many bytes the first block takes, as far as it can be told; 0 where it makes no sense.
    pub(super) fn block_length(&self, unread: &[u8]) -> usize {
        match self.block(unread) {
            Ok((_, block)) => block.len(),
            Err(Step::Incomplete(wanted)) => wanted,
            Err(_) => 0,
        }
    }

    #[inline]
    pub(super) fn step<'a>(&mut self, unread: &'a [u8]) -> Step<'a> {
        let (kind, block) = match self.block(unread) {
            Ok(found) => found,
            Err(step) => return step,
        };
        let result = match kind {
            ENHANCED_PACKET => self.enhanced_packet(block).map(Some),
            SIMPLE_PACKET => self.simple_packet(block).map(Some),
            OBSOLETE_PACKET => self.obsolete_packet(block).map(Some),
            SECTION_HEADER => self.section_header(block).map(|()| None),
            INTERFACE_DESCRIPTION => self.interface_description(block).map(|()| None),
            _ => Ok(None),
        };
        match result {
            Ok(Some(record)) => Step::Record(record, block.len()),
            Ok(None) => Step::Skip(block.len()),
            Err(problem) => Step::Broken(problem),
        }
    }

    /// The first block, whole, with its kind.
    #[inline]
    fn block<'a>(&self, unread: &'a [u8]) -> Result<(u32, &'a [u8]), Step<'a>> {
        let Some((kind, rest)) = unread.split_first_chunk::<4>() else { return Err(Step::Incomplete(MIN_BLOCK)) };
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Err(Step::Incomplete(MIN_BLOCK)) };
        let mut order = self.section.order;
        let mut kind = order.u32(*kind);
        // A section header reads the same in both byte orders; what follows its length tells which.
        if kind == SECTION_HEADER {
            let Some(magic) = rest.first_chunk::<4>() else { return Err(Step::Incomplete(MIN_BLOCK)) };
            order = byte_order(magic).ok_or(Step::Broken(Problem::Block { block: "section header" }))?;
            kind = SECTION_HEADER;
        }
        let length = order.u32(*length);
        if length > MAX_BLOCK {
            return Err(Step::Broken(Problem::Oversized { length: length.into(), limit: MAX_BLOCK.into() }));
        }
        if (length as usize) < MIN_BLOCK {
            return Err(Step::Broken(Problem::Block { block: block_name(kind) }));
        }
        // The length is a multiple of four; writers that forget still pad.
        let length = (length as usize).next_multiple_of(4);
        match unread.get(..length) {
            Some(block) => Ok((kind, block)),
            None => Err(Step::Incomplete(length)),
        }
    }

    fn section_header(&mut self, block: &[u8]) -> Result<(), Problem> {
        let header = whole(parse_sectionheaderblock(block), "section header")?;
        if header.major_version != 1 {
            let (major, minor) = (header.major_version, header.minor_version);
            return Err(Problem::Version { major, minor });
        }
        let order = if header.big_endian() { ByteOrder::Big } else { ByteOrder::Little };
        self.section = Section { order, first_interface: self.interfaces.len() };
        Ok(())
    }

    fn interface_description(&mut self, block: &[u8]) -> Result<(), Problem> {
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(Problem::TooManyInterfaces { limit: MAX_INTERFACES });
        }
        let name = "interface description";
        let description: InterfaceDescriptionBlock<'_> = match self.section.order {
            ByteOrder::Little => whole(parse_interfacedescriptionblock_le(block), name)?,
            ByteOrder::Big => whole(parse_interfacedescriptionblock_be(block), name)?,
        };
        let find = |code| value_of(&description.options, code);
        self.interfaces.push(Interface {
            name: find(OptionCode::IfName).map(|name| String::from_utf8_lossy(name).into_owned()),
            link_type: LinkType(description.linktype.0.cast_unsigned() & 0xffff),
        });
        self.clocks.push(Clock {
            unit: Unit::of(find(OptionCode::IfTsresol).and_then(|value| value.first().copied())),
            offset_seconds: match find(OptionCode::IfTsoffset).and_then(|value| value.first_chunk()) {
                Some(seconds) => self.section.order.i64(*seconds),
                None => 0,
            },
            snaplen: description.snaplen,
        });
        Ok(())
    }

    fn enhanced_packet<'a>(&mut self, block: &'a [u8]) -> Result<Record<'a>, Problem> {
        let name = "enhanced packet";
        let packet: EnhancedPacketBlock<'a> = match self.section.order {
            ByteOrder::Little => whole(parse_enhancedpacketblock_le(block), name)?,
            ByteOrder::Big => whole(parse_enhancedpacketblock_be(block), name)?,
        };
        let raw = Raw {
            interface: packet.if_id,
            ticks: Some(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
            wire_length: packet.origlen,
            bytes: packet.data.get(..packet.caplen as usize).unwrap_or(packet.data),
        };
        self.record(&raw, &packet.options)
    }

    /// A packet without a time stamp, from the section's first interface.
    fn simple_packet<'a>(&mut self, block: &'a [u8]) -> Result<Record<'a>, Problem> {
        let name = "simple packet";
        let packet: SimplePacketBlock<'a> = match self.section.order {
            ByteOrder::Little => whole(parse_simplepacketblock_le(block), name)?,
            ByteOrder::Big => whole(parse_simplepacketblock_be(block), name)?,
        };
        let snaplen = self.clocks.get(self.section.first_interface).map_or(0, |clock| clock.snaplen);
        let captured = match snaplen {
            0 => packet.origlen,
            limit => packet.origlen.min(limit),
        };
        let raw = Raw {
            interface: 0,
            ticks: None,
            wire_length: packet.orig_len(),
            bytes: packet.data.get(..captured as usize).unwrap_or(packet.data),
        };
        self.record(&raw, &[])
    }

    /// The packet block of the first drafts, which `pcap-parser` does not read.
    fn obsolete_packet<'a>(&mut self, block: &'a [u8]) -> Result<Record<'a>, Problem> {
        let order = self.section.order;
        let malformed = Problem::Block { block: "packet" };
        let Some((header, rest)) = block.split_first_chunk::<28>() else { return Err(malformed) };
        let [_, _, _, _, _, _, _, _, i0, i1, _, _, h0, h1, h2, h3, l0, l1, l2, l3, c0, c1, c2, c3, w0, w1, w2, w3] =
            *header;
        let (high, low) = (order.u32([h0, h1, h2, h3]), order.u32([l0, l1, l2, l3]));
        let Some(bytes) = rest.get(..order.u32([c0, c1, c2, c3]) as usize) else { return Err(malformed) };
        let raw = Raw {
            interface: order.u16([i0, i1]).into(),
            ticks: Some(u64::from(high) << 32 | u64::from(low)),
            wire_length: order.u32([w0, w1, w2, w3]),
            bytes,
        };
        self.record(&raw, &[])
    }

    fn record<'a>(&mut self, raw: &Raw<'a>, options: &[PcapNGOption<'_>]) -> Result<Record<'a>, Problem> {
        if raw.bytes.len() > MAX_PACKET as usize {
            return Err(Problem::Oversized { length: raw.bytes.len() as u64, limit: MAX_PACKET.into() });
        }
        let index = self.section.first_interface.saturating_add(raw.interface as usize);
        let (Some(interface), Some(clock)) = (self.interfaces.get(index), self.clocks.get(index)) else {
            return Err(Problem::Interface { interface: raw.interface });
        };
        self.latest = raw.ticks.map_or(self.latest, |ticks| clock.timestamp(ticks));
        let frame = Frame {
            timestamp: self.latest,
            link_type: interface.link_type,
            wire_length: raw.wire_length,
            interface: u32::try_from(index).unwrap_or(u32::MAX),
            direction: direction(options, self.section.order),
            bytes: raw.bytes,
        };
        let owner = if options.is_empty() { None } else { self.owners.of_comments(options) };
        Ok(Record { frame, owner })
    }
}

impl Clock {
    fn timestamp(&self, ticks: u64) -> Timestamp {
        let nanos = match self.unit {
            Unit::Nanosecond => i128::from(ticks),
            Unit::Microsecond => i128::from(ticks) * 1_000,
            Unit::PerSecond(units) => (u128::from(ticks) * NANOS_PER_SECOND / units).cast_signed(),
        };
        let nanos = nanos.saturating_add(i128::from(self.offset_seconds) * NANOS_PER_SECOND.cast_signed());
        Timestamp::from_nanos(i64::try_from(nanos.clamp(i64::MIN.into(), i64::MAX.into())).unwrap_or(i64::MAX))
    }
}

impl Unit {
    /// From an `if_tsresol` option: a negative power of ten, or of two where the highest bit is set.
    fn of(resolution: Option<u8>) -> Self {
        match resolution {
            None | Some(6) => Self::Microsecond,
            Some(9) => Self::Nanosecond,
            Some(power @ 0x80..) => Self::PerSecond(1_u128 << (power & 0x7f)),
            // 10^38 is the last that fits; time stamps so fine are all zero.
            Some(power) => Self::PerSecond(10_u128.checked_pow(u32::from(power)).unwrap_or(u128::MAX)),
        }
    }
}

impl ByteOrder {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        }
    }
}

fn byte_order(magic: &[u8; 4]) -> Option<ByteOrder> {
    match magic {
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(ByteOrder::Little),
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(ByteOrder::Big),
        _ => None,
    }
}

/// The parsed block. The whole block was given, so one that wants more is as wrong as any other.
fn whole<'a, T>(parsed: IResult<&'a [u8], T, PcapError<&'a [u8]>>, block: &'static str) -> Result<T, Problem> {
    match parsed {
        Ok((_, value)) => Ok(value),
        Err(NomError::Incomplete(_) | NomError::Error(_) | NomError::Failure(_)) => Err(Problem::Block { block }),
    }
}

fn value_of<'a>(options: &'a [PcapNGOption<'_>], code: OptionCode) -> Option<&'a [u8]> {
    // A value that is shorter than it says is as good as absent.
    options.iter().find(|option| option.code == code).and_then(|option| option.as_bytes().ok())
}

/// The lowest two bits of the flags option of a packet.
fn direction(options: &[PcapNGOption<'_>], order: ByteOrder) -> Option<FrameDirection> {
    const FLAGS: OptionCode = OptionCode(2);
    match order.u32(*value_of(options, FLAGS)?.first_chunk()?) & 0b11 {
        1 => Some(FrameDirection::In),
        2 => Some(FrameDirection::Out),
        _ => None,
    }
}

fn block_name(kind: u32) -> &'static str {
    match kind {
        SECTION_HEADER => "section header",
        INTERFACE_DESCRIPTION => "interface description",
        ENHANCED_PACKET => "enhanced packet",
        SIMPLE_PACKET => "simple packet",
        OBSOLETE_PACKET => "packet",
        _ => "pcapng",
    }
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Kind, length, and the length once more.
const MIN_BLOCK: usize = 12;
/// The longest block that is accepted, as other readers have it.
const MAX_BLOCK: u32 = 16 * 1024 * 1024;
/// Interfaces kept of one file; more are damage.
const MAX_INTERFACES: usize = 65_536;
const NANOS_PER_SECOND: u128 = 1_000_000_000;
