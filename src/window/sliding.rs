//! A ring of buckets and exact running sums: one or several sliding windows.
//!
//! Only buckets with traffic are kept, oldest first. A window's sum is added
//! to when bytes come and subtracted from when a bucket leaves, in whole
//! numbers, so it never drifts.

use std::collections::VecDeque;

use crate::window::{Span, Tick};

/// Windows of several lengths over one ring, the longest first.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Track {
    /// For each bucket its number, then its columns.
    ring: VecDeque<u64>,
    /// For each window how many of the newest buckets it covers, then its sums.
    sums: Box<[u64]>,
}

impl Track {
    /// Empty windows of these spans.
    pub fn new(spans: &[Span], columns: usize) -> Self {
        Self { ring: VecDeque::new(), sums: vec![0; spans.len() * (columns + 1)].into() }
    }

    /// Books values at a tick, which is not before the last one; whether a bucket was begun.
    #[inline]
    pub fn add(&mut self, spans: &[Span], now: Tick, values: &[u64]) -> bool {
        self.advance(spans, now, values.len());
        let stride = values.len() + 1;
        let Some(width) = spans.first().map(|span| span.width) else { return false };
        let bucket = Span::bucket(width, now);
        let len = self.ring.len();
        let begun = len < stride || self.ring[len - stride] != bucket;
        if begun {
            if self.ring.capacity() == len {
                self.ring.reserve_exact(if len == 0 { 2 * stride } else { len });
            }
            self.ring.push_back(bucket);
            self.ring.extend(values);
        } else {
            for (offset, value) in values.iter().enumerate() {
                let held = &mut self.ring[len - stride + 1 + offset];
                *held = held.saturating_add(*value);
            }
        }
        for window in self.sums.chunks_exact_mut(stride) {
            let (covered, sums) = window.split_at_mut(1);
            covered[0] += u64::from(begun);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = sum.saturating_add(*value);
            }
        }
        begun
    }

    /// Lets buckets leave that no longer reach into their windows.
    #[inline]
    pub fn advance(&mut self, spans: &[Span], now: Tick, columns: usize) {
        let stride = columns + 1;
        for (span, window) in spans.iter().zip(self.sums.chunks_exact_mut(stride)) {
            let (covered, sums) = window.split_at_mut(1);
            while covered[0] > 0 {
                let at = self.ring.len() - covered[0] as usize * stride;
                if span.covers(self.ring[at], now) {
                    break;
                }
                for (offset, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.saturating_sub(self.ring[at + 1 + offset]);
                }
                covered[0] -= 1;
            }
        }
        let kept = self.sums.first().map_or(0, |covered| *covered as usize) * stride;
        if self.ring.len() > kept {
            self.ring.drain(..self.ring.len() - kept);
        }
    }

    /// A window's sum of a column, as of the last call of [`Track::advance`] or [`Track::add`].
    #[inline]
    pub fn sum(&self, window: usize, column: usize, columns: usize) -> u64 {
        self.sums.get(window * (columns + 1) + 1 + column).copied().unwrap_or(0)
    }

    /// The same with the oldest bucket counted by the part of it that lies inside the window.
    ///
    /// What it leaves out is an estimate: bytes are taken to be spread evenly over that bucket.
    pub fn interpolated(&self, spans: &[Span], window: usize, column: usize, columns: usize, now: Tick) -> u64 {
        let sum = self.sum(window, column, columns);
        let (Some(span), Some((bucket, value))) = (spans.get(window), self.buckets(window, column, columns).next())
        else {
            return sum;
        };
        let outside = u128::from(span.width - span.inside(bucket, now));
        let left_out = u128::from(value) * outside / u128::from(span.width.max(1));
        sum.saturating_sub(u64::try_from(left_out).unwrap_or(u64::MAX))
    }

    /// The highest bucket of a column in a window.
    pub fn peak(&self, window: usize, column: usize, columns: usize) -> u64 {
        self.buckets(window, column, columns).map(|(_, value)| value).max().unwrap_or(0)
    }

    /// The buckets of a window that have traffic: number and value, oldest first.
    pub fn buckets(&self, window: usize, column: usize, columns: usize) -> impl Iterator<Item = (u64, u64)> {
        let stride = columns + 1;
        let covered = self.sums.get(window * stride).map_or(0, |covered| *covered as usize);
        let first = self.ring.len() / stride - covered.min(self.ring.len() / stride);
        (first..self.ring.len() / stride).map(move |at| (self.ring[at * stride], self.ring[at * stride + 1 + column]))
    }

    /// When the next bucket leaves one of the windows.
    pub fn next_change(&self, spans: &[Span], columns: usize) -> Option<Tick> {
        let stride = columns + 1;
        let windows = spans.iter().zip(self.sums.chunks_exact(stride));
        let leaving = windows.filter(|(_, window)| window[0] > 0).map(|(span, window)| {
            let at = self.ring.len() - window[0] as usize * stride;
            span.leaves_at(self.ring[at])
        });
        leaving.min()
    }

    /// Whether it has the shape for this many windows and columns, and its
    /// buckets are those that its windows cover.
    pub(super) fn fits(&self, windows: usize, columns: usize) -> bool {
        let stride = columns + 1;
        let covered =
            |window: &[u64]| usize::try_from(window[0]).is_ok_and(|covered| covered <= self.ring.len() / stride);
        self.sums.len() == windows * stride
            && self.ring.len().is_multiple_of(stride)
            && self.sums.chunks_exact(stride).all(covered)
    }

    /// Whether it has as many windows and columns as another, and its buckets are those that its windows cover.
    pub fn same_shape(&self, other: &Self) -> bool {
        match (self.sums.len(), other.sums.len()) {
            (0, 0) => true,
            (own, others) => own == others && self.fits(1, own.saturating_sub(1)),
        }
    }

    /// Reads where the next addition will be made: see [`crate::window::Gauges::glance`].
    #[inline]
    pub fn glance(&self) -> u64 {
        let sum = self.sums.first().copied().unwrap_or(0);
        let (oldest, newest) = (self.ring.front().copied(), self.ring.back().copied());
        sum ^ oldest.unwrap_or(0) ^ newest.unwrap_or(0)
    }

    /// Whether no bucket is left.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        (self.ring.capacity() + self.sums.len()) * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_after_the_window_and_less_than_one_bucket() {
        let spans = [Span { length: 600, width: 10 }];
        let mut track = Track::new(&spans, 1);
        track.add(&spans, 1_005, &[700]);
        track.advance(&spans, 1_604, 1);
        assert_eq!(track.sum(0, 0, 1), 700, "the window still covers tick 1005");
        track.advance(&spans, 1_609, 1);
        assert_eq!(track.sum(0, 0, 1), 700, "its bucket ends at 1010");
        track.advance(&spans, 1_610, 1);
        assert_eq!(track.sum(0, 0, 1), 0);
        assert!(track.is_empty());
    }

    #[test]
    fn an_interpolated_sum_falls_with_the_oldest_bucket() {
        let spans = [Span { length: 600, width: 10 }];
        let mut track = Track::new(&spans, 1);
        track.add(&spans, 1_005, &[700]);
        track.add(&spans, 1_015, &[40]);
        for (now, sum) in [(1_600, 740), (1_603, 530), (1_609, 110)] {
            track.advance(&spans, now, 1);
            assert_eq!(track.interpolated(&spans, 0, 0, 1, now), sum, "at {now}");
        }
    }

    #[test]
    fn windows_of_one_ring_forget_at_their_own_time() {
        let spans = [Span { length: 10, width: 1 }, Span { length: 3, width: 1 }];
        let mut track = Track::new(&spans, 2);
        track.add(&spans, 1, &[5, 1]);
        track.add(&spans, 3, &[7, 1]);
        track.advance(&spans, 4, 2);
        assert_eq!((track.sum(0, 0, 2), track.sum(1, 0, 2)), (12, 7));
        assert_eq!(track.next_change(&spans, 2), Some(6));
        assert_eq!(track.peak(0, 0, 2), 7);
        track.advance(&spans, 13, 2);
        assert_eq!((track.sum(0, 1, 2), track.sum(1, 1, 2)), (0, 0));
    }
}
