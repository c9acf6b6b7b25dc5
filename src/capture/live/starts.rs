//! Which payloads are worth a copy: those at the start of a flow, and DNS.
//!
//! Names are told by the first payloads of a flow ([`crate::names`] looks at no
//! more than sixteen). What follows is counted, and nobody reads it: on a busy
//! link, copying it costs more than all the rest of a capture.

use crate::flow::EndsHasher;
use crate::packet::{Frame, Packet, TcpFlags, decode_common};

/// Counts each flow's payloads, as far as it has room. A flow that lost its seat to another begins anew.
#[derive(Debug)]
pub(super) struct Starts {
    hasher: EndsHasher,
    seats: Vec<Seat>,
}

/// The flow that came last of those that share the seat.
#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    /// The upper half of its hash.
    flow: u32,
    /// When it was last seen, in [`TICK`]s; the counter may wrap.
    seen: u16,
    /// Payloads that were kept.
    kept: u16,
}

impl Default for Starts {
    fn default() -> Self {
        Self { hasher: EndsHasher::default(), seats: vec![Seat::default(); SEATS] }
    }
}

impl Starts {
    /// How many of the frame's bytes are kept: all, or its headers.
    #[inline]
    pub(super) fn kept(&mut self, frame: &Frame<'_>) -> usize {
        let all = frame.bytes.len();
        if all <= SHORT {
            return all;
        }
        // What has an uncommon shape is seldom, and more than its headers may be looked at.
        let Some(packet) = decode_common(frame) else { return all };
        // DNS is read to the end of its flow.
        match packet.payload.is_empty() || packet.five_tuple.is_dns() || self.is_start(&packet) {
            true => all,
            false => header_length(frame, &packet).min(all),
        }
    }

    #[inline]
    fn is_start(&mut self, packet: &Packet<'_>) -> bool {
        let hash = self.hasher.hash_tuple(&packet.five_tuple);
        let Some(seat) = self.seats.get_mut(hash as usize % SEATS) else { return true };
        let (flow, now) = ((hash >> 32) as u32, (packet.timestamp.as_nanos() / TICK) as u16);
        let opens = packet.tcp_flags.is_some_and(TcpFlags::opens);
        if seat.flow != flow || opens || now.wrapping_sub(seat.seen) >= REST {
            *seat = Seat { flow, seen: now, kept: 0 };
        }
        seat.seen = now;
        seat.kept = seat.kept.saturating_add(1);
        seat.kept <= STARTS
    }
}

/// Up to where the payload begins.
#[inline]
fn header_length(frame: &Frame<'_>, packet: &Packet<'_>) -> usize {
    packet.payload.as_ptr().addr().saturating_sub(frame.bytes.as_ptr().addr())
}

/// Shorter frames are copied as they are.
const SHORT: usize = 160;

/// Payloads kept of each flow: as many as names are looked for in, four times over, since a packet may be
/// captured on several interfaces, and sent again.
const STARTS: u16 = 64;

const SEATS: usize = 16_384;

/// A quarter of a second, about: the shortest unit whose counter does not wrap within hours.
const TICK: i64 = 1 << 28;

/// Twenty seconds without a packet: the engine may have forgotten a flow that rested longer, and begins anew.
const REST: u16 = 75;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Fragments, LinkType, decode};
    use crate::time::Timestamp;

    #[test]
    fn the_payloads_of_a_start_are_kept_and_then_only_headers() {
        let mut starts = Starts::default();
        let bytes = tcp(40_000, TcpFlags::ACK, 1_000);
        let kept: Vec<usize> = (0..100).map(|at| starts.kept(&frame(&bytes, at))).collect();
        let (first, rest) = kept.split_at(usize::from(STARTS));
        assert!(first.iter().all(|&kept| kept == bytes.len()), "{first:?}");
        assert!(rest.iter().all(|&kept| kept == bytes.len() - 1_000), "{rest:?}");
        // Either way, and of another flow.
        let back = tcp_from(443, 40_000, TcpFlags::ACK, 1_000);
        assert_eq!(starts.kept(&frame(&back, 100)), back.len() - 1_000);
        let other = tcp(40_001, TcpFlags::ACK, 1_000);
        assert_eq!(starts.kept(&frame(&other, 100)), other.len());
    }

    #[test]
    fn a_flow_that_opens_anew_or_rested_is_read_again() {
        let mut starts = Starts::default();
        let (data, opening) = (tcp(40_000, TcpFlags::ACK, 1_000), tcp(40_000, TcpFlags::SYN, 200));
        let use_up = |starts: &mut Starts, from: i64| {
            (0..200).for_each(|at| _ = starts.kept(&frame(&data, from + at)));
            assert!(starts.kept(&frame(&data, from + 200)) < data.len());
        };
        use_up(&mut starts, 0);
        assert_eq!(starts.kept(&frame(&opening, 201)), opening.len());
        use_up(&mut starts, 300);
        assert_eq!(starts.kept(&frame(&data, 30_000)), data.len());
    }

    #[test]
    fn what_is_cut_says_the_same_but_for_its_payload() {
        let mut starts = Starts::default();
        let bytes = tcp(40_000, TcpFlags::ACK, 1_000);
        for at in 0..100 {
            let whole = frame(&bytes, at);
            let cut = Frame { bytes: &bytes[..starts.kept(&whole)], ..whole };
            let [whole, cut] = [whole, cut].map(|frame| decode(&frame, &mut Fragments::default()).unwrap());
            assert_eq!(Packet { payload: whole.payload, ..cut }, whole);
        }
    }

    #[test]
    fn dns_and_what_is_not_understood_are_kept() {
        let mut starts = Starts::default();
        let question = tcp_from(53, 40_000, TcpFlags::ACK, 1_000);
        let odd = [0xee; 900];
        for at in 0..300 {
            assert_eq!(starts.kept(&frame(&question, at)), question.len());
            assert_eq!(starts.kept(&frame(&odd, at)), odd.len());
        }
    }

    fn frame(bytes: &[u8], millisecond: i64) -> Frame<'_> {
        Frame {
            timestamp: Timestamp::from_nanos(1_000_000_000_000 + millisecond * 1_000_000),
            link_type: LinkType::ETHERNET,
            wire_length: bytes.len() as u32,
            interface: 1,
            direction: None,
            bytes,
        }
    }

    fn tcp(port: u16, flags: u8, payload: usize) -> Vec<u8> {
        tcp_from(port, 443, flags, payload)
    }

    fn tcp_from(source: u16, destination: u16, flags: u8, payload: usize) -> Vec<u8> {
        let [mut here, mut there] = [[192, 0, 2, 1], [198, 51, 100, 7]];
        if source < 1024 {
            std::mem::swap(&mut here, &mut there);
        }
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(here, there, 64);
        let builder = builder.tcp(source, destination, 7, 1000);
        let builder = if flags == TcpFlags::SYN { builder.syn() } else { builder.ack(9) };
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &vec![0x16; payload]).unwrap();
        bytes
    }
}
