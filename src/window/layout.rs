//! What the windows of a series hold: columns, window lengths and bucket widths.

use crate::window::Tick;

/// What a bucket sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the rule language's own")]
pub enum Column {
    BytesOut,
    BytesIn,
    PayloadOut,
    PayloadIn,
    PacketsOut,
    PacketsIn,
    Connections,
    ConnectionsFailed,
    /// Ticks with traffic.
    ActiveTicks,
    DnsQueries,
    DnsNameBytes,
    /// Bytes out that an exception hid.
    ExcludedOut,
    /// Bytes in that an exception hid.
    ExcludedIn,
}

/// How many kinds of column there are.
pub const COLUMNS: usize = 13;

/// A window's length and the width of its buckets, in ticks.
///
/// A bucket holds the ticks `(n * width, (n + 1) * width]`. The window's value
/// at tick `t` covers every bucket that reaches past `t - length`: all of the
/// window, and less than one bucket more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Span {
    /// The window's length.
    pub length: Tick,
    /// The width of a bucket.
    pub width: Tick,
}

/// Buckets that a window has where its length allows.
const BUCKETS: Tick = 60;

/// Buckets that a window may have so that it can share another's.
const MAX_BUCKETS: Tick = 720;

impl Span {
    /// The span of a window with a ring of its own: sixty buckets where the
    /// length can be divided so, else the nearest finer division.
    pub fn of(length: Tick) -> Self {
        let length = length.max(1);
        let widest = (length / BUCKETS).max(1);
        let finest = length.div_ceil(MAX_BUCKETS).max(1);
        let dividing = (finest..=widest).rev().find(|width| length.is_multiple_of(*width));
        Self { length, width: dividing.unwrap_or(widest) }
    }

    /// The bucket of a tick.
    #[inline]
    pub fn bucket(width: Tick, tick: Tick) -> u64 {
        tick.saturating_sub(1) / width
    }

    /// Whether a bucket still reaches into the window at `now`.
    #[inline]
    pub fn covers(self, bucket: u64, now: Tick) -> bool {
        (bucket + 1).saturating_mul(self.width).saturating_add(self.length) > now
    }

    /// How many ticks of a bucket lie inside the window at `now`.
    pub fn inside(self, bucket: u64, now: Tick) -> Tick {
        self.leaves_at(bucket).saturating_sub(now).min(self.width)
    }

    /// The tick at which a bucket leaves the window.
    pub fn leaves_at(self, bucket: u64) -> Tick {
        (bucket + 1).saturating_mul(self.width).saturating_add(self.length)
    }
}

/// What a series keeps for each of its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// What every bucket holds.
    pub columns: Vec<Column>,
    /// Windows that share a ring, the longest first in each.
    pub tracks: Vec<Vec<Span>>,
    /// For exact counts of connections: how many starts are kept, over which time.
    pub starts: Option<(u32, Tick)>,
    /// For the regularity of connections: over which time start times are kept.
    pub start_times: Option<Tick>,
    /// For counts of different values.
    pub distinct: Vec<DistinctLayout>,
    /// For shares of the largest value: which values, over which window.
    pub shares: Vec<(u32, Span)>,
    /// Whether the ages of open flows are kept.
    pub ages: bool,
}

/// One count of different values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DistinctLayout {
    /// Which value of an addition is counted.
    pub source: u32,
    /// Over which time.
    pub length: Tick,
    /// How many are kept: one more than the largest limit; [`DistinctLayout::ESTIMATED`] where that is too many.
    pub keep: u32,
}

impl DistinctLayout {
    /// The values are not kept, and their number is estimated.
    pub const ESTIMATED: u32 = u32::MAX;

    /// Whether the number of values is estimated.
    pub fn is_estimated(&self) -> bool {
        self.keep == Self::ESTIMATED
    }
}

/// One window of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowRef {
    /// The ring.
    pub track: usize,
    /// The window in it.
    pub window: usize,
}

impl Layout {
    /// The place of a column, added if it is new.
    pub fn column(&mut self, column: Column) -> usize {
        self.columns.iter().position(|known| *known == column).unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        })
    }

    /// Lays windows of these lengths out on as few rings as they can share.
    ///
    /// A window joins the ring of a shorter one if its length is a multiple of
    /// that ring's bucket and it does not need too many of them.
    pub fn with_windows(mut self, lengths: impl IntoIterator<Item = Tick>) -> Self {
        let mut lengths: Vec<Tick> = lengths.into_iter().map(|length| length.max(1)).collect();
        lengths.sort_unstable();
        lengths.dedup();
        for length in lengths {
            let shared = self.tracks.iter_mut().find(|track| {
                let width = track[0].width;
                length % width == 0 && length / width <= MAX_BUCKETS
            });
            match shared {
                Some(track) => track.insert(0, Span { length, width: track[0].width }),
                None => self.tracks.push(vec![Span::of(length)]),
            }
        }
        self
    }

    /// The window of a length that the layout has.
    pub fn window(&self, length: Tick) -> Option<WindowRef> {
        let length = length.max(1);
        self.tracks.iter().enumerate().find_map(|(track, spans)| {
            let window = spans.iter().position(|span| span.length == length)?;
            Some(WindowRef { track, window })
        })
    }

    /// The span of a window.
    pub fn span(&self, window: WindowRef) -> Span {
        self.tracks[window.track][window.window]
    }

    /// How many sums there are: one for each window and column.
    pub fn places(&self) -> usize {
        self.tracks.iter().map(Vec::len).sum::<usize>() * self.columns.len()
    }

    /// The place of a window's sum of a column among all sums.
    pub fn place(&self, window: WindowRef, column: usize) -> usize {
        let before: usize = self.tracks.iter().take(window.track).map(Vec::len).sum();
        (before + window.window) * self.columns.len() + column
    }

    /// Whether another layout differs only in how many values are kept.
    pub fn same_shape(&self, other: &Self) -> bool {
        let shape = |layout: &Self| {
            let mut shape = layout.clone();
            shape.starts = shape.starts.map(|(_, length)| (0, length));
            let kept = |distinct: &mut DistinctLayout| {
                if !distinct.is_estimated() {
                    distinct.keep = 0;
                }
            };
            shape.distinct.iter_mut().for_each(kept);
            shape
        };
        shape(self) == shape(other)
    }

    /// The longest time that anything is kept.
    pub fn longest(&self) -> Tick {
        let windows = self.tracks.iter().filter_map(|track| track.first()).map(|span| span.length + span.width);
        let starts = self.starts.map(|(_, length)| length);
        let distinct = self.distinct.iter().map(|distinct| match distinct.is_estimated() {
            true => distinct.length + Span::of(distinct.length).width,
            false => distinct.length,
        });
        let shares = self.shares.iter().map(|(_, span)| span.length + span.width);
        windows.chain(starts).chain(self.start_times).chain(distinct).chain(shares).max().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_divide_the_window() {
        let width = |length| Span::of(length).width;
        assert_eq!(width(600), 10);
        assert_eq!(width(60), 1);
        assert_eq!(width(5), 1);
        assert_eq!(width(90), 1);
        assert_eq!(width(86_400), 1440);
        for length in 1..2_000 {
            let span = Span::of(length);
            assert!(span.width == 1 || span.width <= length / 60, "{span:?}");
        }
    }

    #[test]
    fn windows_share_the_finest_ring_they_can() {
        let layout = Layout::default().with_windows([600, 60, 3_600, 86_400]);
        let width = |length| layout.span(layout.window(length).unwrap()).width;
        assert_eq!((width(60), width(600)), (1, 1));
        assert_eq!(width(3_600), 60);
        assert_eq!(width(86_400), 1440);
        assert_eq!(layout.tracks.len(), 3);
    }
}
