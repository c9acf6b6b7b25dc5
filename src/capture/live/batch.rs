//! Batches: many frames in one flat buffer that is used again and again.

use crossbeam_channel::Sender;
use pcap::{Active, PacketHeader};

use crate::packet::{Frame, FrameDirection, LinkType};
use crate::time::Timestamp;

/// Frames in the order in which they were captured. Dropping it gives its buffers back.
#[derive(Debug)]
pub struct Batch {
    buffers: Buffers,
    home: Sender<Buffers>,
}

impl Batch {
    pub(super) fn new(buffers: Buffers, home: Sender<Buffers>) -> Self {
        Self { buffers, home }
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// The frames.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let Buffers { bytes, records, .. } = &self.buffers;
        records
            .iter()
            .map(|record| record.frame(bytes.get(record.start..record.start + record.captured).unwrap_or_default()))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.clear();
        // The pool has room for all its batches; where the capture has ended, nobody wants them.
        let _ = self.home.try_send(buffers);
    }
}

/// The memory of a batch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    bytes: Vec<u8>,
    records: Vec<Record>,
    captured: u64,
}

impl Buffers {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of the frames as the ring had them.
    pub(super) fn captured(&self) -> u64 {
        self.captured
    }

    #[inline]
    pub(super) fn push(&mut self, mut record: Record, bytes: &[u8], captured: u64) {
        self.captured += captured;
        record.start = self.bytes.len();
        record.captured = bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.records.push(record);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.captured = 0;
    }
}

/// A frame whose bytes stand in the buffer beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    timestamp: Timestamp,
    start: usize,
    captured: usize,
    wire_length: u32,
    interface: u32,
    link_type: LinkType,
    direction: Option<FrameDirection>,
}

impl Record {
    #[inline]
    pub(super) fn new(header: &PacketHeader, stamps: Stamps, link_type: LinkType, interface: u32) -> Self {
        // `tv_usec` holds nanoseconds on a handle with that precision.
        let fraction = match stamps {
            Stamps::Nanoseconds => header.ts.tv_usec,
            Stamps::Microseconds => header.ts.tv_usec.saturating_mul(1_000),
        };
        let nanos = header.ts.tv_sec.saturating_mul(1_000_000_000).saturating_add(fraction);
        Self {
            timestamp: Timestamp::from_nanos(nanos),
            start: 0,
            captured: 0,
            wire_length: header.len,
            interface,
            link_type,
            direction: None,
        }
    }

    /// The frame of these bytes.
    #[inline]
    pub(super) fn frame<'a>(&self, bytes: &'a [u8]) -> Frame<'a> {
        Frame {
            timestamp: self.timestamp,
            link_type: self.link_type,
            wire_length: self.wire_length,
            interface: self.interface,
            direction: self.direction,
            bytes,
        }
    }

    /// Takes interface and direction from a Linux cooked header (version 2).
    ///
    /// On the loopback interface a frame goes both ways and is captured once,
    /// as it comes in: there it has no direction.
    #[inline]
    pub(super) fn read_cooked_header(&mut self, bytes: &[u8], loopback: Option<u32>) {
        if self.link_type != LinkType::LINUX_SLL2 {
            return;
        }
        let Some(&[_, _, _, _, a, b, c, d, _, _, packet_type, _]) = bytes.first_chunk::<12>() else { return };
        self.interface = u32::from_be_bytes([a, b, c, d]);
        self.direction = match packet_type {
            _ if Some(self.interface) == loopback => None,
            PACKET_HOST | PACKET_BROADCAST | PACKET_MULTICAST => Some(FrameDirection::In),
            PACKET_OUTGOING => Some(FrameDirection::Out),
            _ => None,
        };
    }
}

/// What the fraction of a time stamp counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamps {
    Microseconds,
    Nanoseconds,
}

/// What was really set: asking for nanoseconds is not getting them.
pub(super) fn stamps_of(capture: &pcap::Capture<Active>) -> Stamps {
    // SAFETY: the pointer belongs to `capture`, which is open and outlives the
    // call; the function only reads it.
    match unsafe { pcap_get_tstamp_precision(capture.as_ptr().cast()) } {
        PCAP_TSTAMP_PRECISION_NANO => Stamps::Nanoseconds,
        _ => Stamps::Microseconds,
    }
}

#[link(name = "pcap")]
unsafe extern "C" {
    /// libpcap 1.5, 2013; the `pcap` crate has no wrapper for it.
    fn pcap_get_tstamp_precision(handle: *mut std::ffi::c_void) -> std::ffi::c_int;
}

const PCAP_TSTAMP_PRECISION_NANO: std::ffi::c_int = 1;

// packet(7)
const PACKET_HOST: u8 = 0;
const PACKET_BROADCAST: u8 = 1;
const PACKET_MULTICAST: u8 = 2;
const PACKET_OUTGOING: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(fraction: i64) -> PacketHeader {
        PacketHeader { ts: libc::timeval { tv_sec: 7, tv_usec: fraction }, caplen: 4, len: 60 }
    }

    #[test]
    fn stamps_are_read_in_the_precision_that_was_set() {
        for (stamps, nanos) in [(Stamps::Nanoseconds, 7_000_000_250), (Stamps::Microseconds, 7_000_250_000)] {
            let record = Record::new(&header(250), stamps, LinkType::ETHERNET, 3);
            assert_eq!(record.timestamp, Timestamp::from_nanos(nanos));
        }
    }

    #[test]
    fn a_cooked_header_names_interface_and_direction() {
        let mut bytes = [0, 0, 0, 0, 0, 0, 0, 9, 0, 1, PACKET_OUTGOING, 6];
        let read = |bytes: &[u8], loopback| {
            let mut record = Record::new(&header(0), Stamps::Nanoseconds, LinkType::LINUX_SLL2, 0);
            record.read_cooked_header(bytes, loopback);
            (record.interface, record.direction)
        };
        assert_eq!(read(&bytes, Some(1)), (9, Some(FrameDirection::Out)));
        assert_eq!(read(&bytes, Some(9)), (9, None));
        assert_eq!(read(&bytes[..11], None), (0, None));
        bytes[10] = PACKET_HOST;
        assert_eq!(read(&bytes, None), (9, Some(FrameDirection::In)));
    }

    #[test]
    fn a_dropped_batch_gives_its_buffers_back_empty() {
        let (home, free) = crossbeam_channel::bounded(1);
        let mut buffers = Buffers::default();
        buffers.push(Record::new(&header(0), Stamps::Nanoseconds, LinkType::ETHERNET, 3), b"abcd", 60);
        buffers.push(Record::new(&header(1), Stamps::Nanoseconds, LinkType::ETHERNET, 4), b"ef", 60);
        let batch = Batch::new(buffers, home);
        let frames: Vec<_> = batch.frames().map(|frame| (frame.bytes.to_vec(), frame.interface)).collect();
        assert_eq!(frames, [(b"abcd".to_vec(), 3), (b"ef".to_vec(), 4)]);
        drop(batch);
        let buffers = free.try_recv().unwrap();
        assert!(buffers.is_empty() && buffers.bytes.capacity() >= 6);
    }
}
