//! The share of the largest value: Space-Saving over sliding sums.
//!
//! A value with more than one part in [`KEPT`] of the total is certain to be
//! kept. A value that takes another's place inherits its sum, so a share is
//! never told too low.

use crate::window::{Span, Tick, Track};

/// Values kept of one group.
pub const KEPT: usize = 64;

/// The heaviest values of one group.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Shares {
    values: Vec<Share>,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Share {
    hash: u64,
    track: Track,
}

impl Shares {
    /// Books bytes of a value at a tick.
    pub fn add(&mut self, span: Span, now: Tick, hash: u64, bytes: u64) {
        let spans = [span];
        if let Some(share) = self.values.iter_mut().find(|share| share.hash == hash) {
            share.track.add(&spans, now, &[bytes]);
            return;
        }
        if self.values.len() < KEPT {
            let mut track = Track::new(&spans, 1);
            track.add(&spans, now, &[bytes]);
            self.values.push(Share { hash, track });
            return;
        }
        self.advance(span, now);
        if let Some(lightest) = self.values.iter_mut().min_by_key(|share| share.track.sum(0, 0, 1)) {
            lightest.hash = hash;
            lightest.track.add(&spans, now, &[bytes]);
        }
    }

    /// Lets buckets leave, and values that have none.
    pub fn advance(&mut self, span: Span, now: Tick) {
        for share in &mut self.values {
            share.track.advance(&[span], now, 1);
        }
        self.values.retain(|share| !share.track.is_empty());
    }

    /// The largest value's sum.
    pub fn largest(&self) -> u64 {
        self.values.iter().map(|share| share.track.sum(0, 0, 1)).max().unwrap_or(0)
    }

    /// When the next bucket leaves.
    pub fn next_change(&self, span: Span) -> Option<Tick> {
        self.values.iter().filter_map(|share| share.track.next_change(&[span], 1)).min()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.values.iter().map(|share| share.track.heap_bytes() + size_of::<Share>()).sum()
    }
}
