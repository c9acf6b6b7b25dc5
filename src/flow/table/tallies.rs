//! What passed on settled flows since the last tick: a sum for each tag.
//!
//! A settled flow is one about which nothing new can be concluded. Its packets
//! add to the sum of all that have its tag, so a tick has as many sums to take
//! as there are tags, and touches no entry of a settled flow.

use super::Tag;
use crate::flow::Counters;
use crate::packet::Packet;
use crate::units::{Bytes, Packets};

/// Sums by tag.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    of: Vec<Tally>,
    /// The tags that were asked an allowance for since the last tick.
    counted: Vec<Tag>,
}

/// The sum of one tag: one line of the cache.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Tally {
    /// What came in, and what went out.
    ways: [Way; 2],
    /// How much more may be added before somebody has to be asked.
    allowance: u64,
    is_counted: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Way {
    bytes: u64,
    payload: u64,
    packets: u64,
}

const _: () = assert!(size_of::<Tally>() == 64, "a packet of a settled flow touches one line more");

impl Tallies {
    /// Adds a packet, where `allow` grants it: it is asked with a weight of [`Counters::weight`] and gives at least
    /// that, or 0.
    #[inline]
    pub(super) fn add(
        &mut self,
        tag: Tag,
        out: bool,
        packet: &Packet<'_>,
        allow: &mut impl FnMut(Tag, u64) -> u64,
    ) -> bool {
        let Some(tally) = self.allowed(tag, packet.bytes.0.saturating_add(1), allow) else { return false };
        let way = &mut tally.ways[usize::from(out)];
        way.bytes += packet.bytes.0;
        way.payload += packet.payload_bytes.0;
        way.packets += 1;
        true
    }

    /// Adds counts in the same way.
    pub(super) fn add_counters(&mut self, tag: Tag, more: &Counters, allow: &mut impl FnMut(Tag, u64) -> u64) -> bool {
        let Some(tally) = self.allowed(tag, more.weight(), allow) else { return false };
        let mut sum = tally.counters();
        sum.add(more);
        tally.ways = [
            Way { bytes: sum.bytes_in.0, payload: sum.payload_in.0, packets: sum.packets_in.0 },
            Way { bytes: sum.bytes_out.0, payload: sum.payload_out.0, packets: sum.packets_out.0 },
        ];
        true
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    /// Gives the sums, in the order of their first packets, and begins anew.
    pub(super) fn take(&mut self, mut each: impl FnMut(Tag, &Counters)) {
        for tag in self.counted.drain(..) {
            let tally = std::mem::take(&mut self.of[tag.0 as usize]);
            let counters = tally.counters();
            if !counters.is_empty() {
                each(tag, &counters);
            }
        }
    }

    /// The sum of a tag, with so much taken from its allowance.
    #[inline]
    fn allowed(&mut self, tag: Tag, weight: u64, allow: &mut impl FnMut(Tag, u64) -> u64) -> Option<&mut Tally> {
        let place = tag.0 as usize;
        if self.of.get(place).is_none_or(|tally| tally.allowance < weight) {
            self.ask(tag, weight, allow)?;
        }
        let tally = self.of.get_mut(place)?;
        tally.allowance -= weight;
        Some(tally)
    }

    #[cold]
    fn ask(&mut self, tag: Tag, weight: u64, allow: &mut impl FnMut(Tag, u64) -> u64) -> Option<()> {
        let place = tag.0 as usize;
        if place >= self.of.len() {
            self.of.resize((place + 1).next_power_of_two(), Tally::default());
        }
        let granted = allow(tag, weight);
        let tally = self.of.get_mut(place)?;
        if !tally.is_counted {
            tally.is_counted = true;
            self.counted.push(tag);
        }
        tally.allowance = tally.allowance.max(granted);
        (tally.allowance >= weight).then_some(())
    }
}

impl Tally {
    fn counters(&self) -> Counters {
        let [into, out] = self.ways;
        Counters {
            bytes_out: Bytes(out.bytes),
            bytes_in: Bytes(into.bytes),
            payload_out: Bytes(out.payload),
            payload_in: Bytes(into.payload),
            packets_out: Packets(out.packets),
            packets_in: Packets(into.packets),
        }
    }
}
