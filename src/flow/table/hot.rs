//! The part of an entry that a packet touches: one line of the cache.
//!
//! It counts what passed in few bits: of a settled flow since its counts were
//! last moved to its totals, of another since a tick last took them. What
//! outgrows the bits is refused, and goes elsewhere.

use super::{OwnerSlot, Tag};
use crate::flow::{Counters, FlowKey, FlowState, Namespace};
use crate::packet::{Endpoint, Packet, Protocol, TcpFlags};
use crate::units::{Bytes, Packets};

/// One line of the cache.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Hot {
    local: Endpoint,
    remote: Endpoint,
    protocol: Protocol,
    pub(super) flags: u16,
    pub(super) slot: OwnerSlot,
    pub(super) tag: Tag,
    /// What came in, and what went out.
    ways: [Way; 2],
}

/// What passed in one direction.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    bytes: u32,
    /// Bytes that are not payload.
    headers: u16,
    packets: u16,
}

const _: () = assert!(size_of::<Hot>() == 64, "a packet touches one line");

/// What it counts is in no sum of a tag, and waits for a tick to take it.
pub(super) const DIRTY: u16 = 1;
/// It can be found.
pub(super) const INDEXED: u16 = 1 << 1;
pub(super) const LOCAL_OPENED: u16 = 1 << 2;
pub(super) const ANSWERED: u16 = 1 << 3;
pub(super) const SYN_SEEN: u16 = 1 << 4;
const FIN_OUT: u16 = 1 << 5;
const FIN_IN: u16 = 1 << 6;
pub(super) const ENDED: u16 = 1 << 7;
pub(super) const FAILED: u16 = 1 << 8;
/// Its payloads are read.
pub(super) const READ: u16 = 1 << 9;
/// Its network namespace is known, and stands in the cold part.
pub(super) const NAMESPACED: u16 = 1 << 10;
/// A tick has named it as having something to take.
pub(super) const NAMED: u16 = 1 << 11;

impl Hot {
    pub(super) fn new(key: &FlowKey, slot: OwnerSlot, flags: u16) -> Self {
        let FlowKey { protocol, local, remote, namespace } = *key;
        let flags = if namespace == Namespace::default() { flags } else { flags | NAMESPACED };
        Self { local, remote, protocol, slot, flags, ..Self::default() }
    }

    pub(super) fn key(&self, namespace: Namespace) -> FlowKey {
        FlowKey { protocol: self.protocol, local: self.local, remote: self.remote, namespace }
    }

    #[inline]
    pub(super) fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// The way of a packet, out or not, if it belongs to this entry; where the packet does not tell its way, either is right.
    #[inline]
    pub(super) fn way_of(&self, packet: &Packet<'_>, slot: OwnerSlot) -> Option<bool> {
        use crate::packet::FrameDirection::{In, Out};
        let tuple = &packet.five_tuple;
        if self.protocol != tuple.protocol || self.slot != slot || self.flags & (INDEXED | NAMESPACED) != INDEXED {
            return None;
        }
        // Without a branch between the two ways, even one that a compiler makes of an "or": which comes next is not to be foreseen.
        let out = self.local.difference(&tuple.source)
            | self.remote.difference(&tuple.destination)
            | u64::from(packet.direction == Some(In));
        let back = self.local.difference(&tuple.destination)
            | self.remote.difference(&tuple.source)
            | u64::from(packet.direction == Some(Out));
        (out.min(back) == 0).then_some(out == 0)
    }

    /// Whether the packet opens a connection anew on the tuple of this one, which ended.
    #[inline]
    pub(super) fn reopens(&self, packet: &Packet<'_>) -> bool {
        self.has(ENDED) && packet.tcp_flags.is_some_and(TcpFlags::opens)
    }

    /// Adds a packet; `false`, and nothing added, where a sum would outgrow its bits.
    #[inline]
    pub(super) fn add(&mut self, out: bool, packet: &Packet<'_>) -> bool {
        let way = &mut self.ways[usize::from(out)];
        let headers = packet.bytes.0.checked_sub(packet.payload_bytes.0);
        let headers = headers.and_then(|headers| u16::try_from(headers).ok());
        let (Ok(bytes), Some(headers)) = (u32::try_from(packet.bytes.0), headers) else { return false };
        let (Some(bytes), Some(headers), Some(packets)) =
            (way.bytes.checked_add(bytes), way.headers.checked_add(headers), way.packets.checked_add(1))
        else {
            return false;
        };
        *way = Way { bytes, headers, packets };
        true
    }

    /// Adds counts; `false`, and nothing added, where a sum would outgrow its bits.
    pub(super) fn add_counters(&mut self, more: &Counters) -> bool {
        let [into, out] = &self.ways;
        let out = out.plus(more.bytes_out, more.payload_out, more.packets_out);
        let into = into.plus(more.bytes_in, more.payload_in, more.packets_in);
        let (Some(out), Some(into)) = (out, into) else { return false };
        self.ways = [into, out];
        true
    }

    /// Whether what passes may be added to the sum of its tag.
    #[inline]
    pub(super) fn is_settled(&self) -> bool {
        self.tag != Tag::default() && !self.has(DIRTY | FAILED)
    }

    /// Notes what the packet says of the connection; whether it has just ended.
    #[inline]
    pub(super) fn follow(&mut self, out: bool, tcp_flags: Option<TcpFlags>) -> bool {
        let from_responder = out != self.has(LOCAL_OPENED);
        if let Some(tcp) = tcp_flags.filter(|tcp| tcp.0 & (TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) != 0) {
            let was_ended = self.has(ENDED);
            self.follow_signal(out, from_responder, tcp);
            return !was_ended && self.has(ENDED);
        }
        // Without a branch: which way comes next is not to be foreseen.
        self.flags |= ANSWERED * u16::from(from_responder);
        false
    }

    fn follow_signal(&mut self, out: bool, from_responder: bool, tcp: TcpFlags) {
        if tcp.has(TcpFlags::RST) {
            if from_responder && self.flags & (ANSWERED | SYN_SEEN) == SYN_SEEN {
                self.flags |= FAILED;
            }
            self.flags |= ENDED;
            return;
        }
        if from_responder {
            self.flags |= ANSWERED;
        }
        if tcp.opens() {
            self.flags |= SYN_SEEN;
        }
        if tcp.has(TcpFlags::FIN) {
            self.flags |= if out { FIN_OUT } else { FIN_IN };
            if self.flags & (FIN_OUT | FIN_IN) == FIN_OUT | FIN_IN {
                self.flags |= ENDED;
            }
        }
    }

    /// Takes what it counted.
    pub(super) fn take(&mut self) -> Counters {
        let counters = self.counters();
        self.ways = [Way::default(); 2];
        counters
    }

    /// Whether it counted nothing.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.ways.iter().all(|way| way.packets == 0 && way.bytes == 0)
    }

    #[inline]
    pub(super) fn counters(&self) -> Counters {
        let [into, out] = &self.ways;
        Counters {
            bytes_out: Bytes(out.bytes.into()),
            bytes_in: Bytes(into.bytes.into()),
            payload_out: out.payload(),
            payload_in: into.payload(),
            packets_out: Packets(out.packets.into()),
            packets_in: Packets(into.packets.into()),
        }
    }

    pub(super) fn state(&self) -> FlowState {
        match self.flags {
            flags if flags & FAILED != 0 => FlowState::Failed,
            flags if flags & ENDED != 0 => FlowState::Closed,
            flags if flags & ANSWERED != 0 => FlowState::Established,
            _ => FlowState::New,
        }
    }

    /// Sets what a source says has become of the connection.
    pub(super) fn set_state(&mut self, state: FlowState) {
        self.flags |= match state {
            FlowState::New => SYN_SEEN,
            FlowState::Established => ANSWERED,
            FlowState::Closed => ANSWERED | ENDED,
            FlowState::Failed => ENDED | FAILED,
        };
    }
}

impl Way {
    fn payload(&self) -> Bytes {
        Bytes((self.bytes - u32::from(self.headers)).into())
    }

    fn plus(&self, bytes: Bytes, payload: Bytes, packets: Packets) -> Option<Self> {
        let headers = bytes.0.checked_sub(payload.0)?;
        Some(Self {
            bytes: self.bytes.checked_add(u32::try_from(bytes.0).ok()?)?,
            headers: self.headers.checked_add(u16::try_from(headers).ok()?)?,
            packets: self.packets.checked_add(u16::try_from(packets.0).ok()?)?,
        })
    }
}
