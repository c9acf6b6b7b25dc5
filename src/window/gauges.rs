//! Everything that is measured of one group, as its series' layout asks.

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;

use crate::time::Timestamp;
use crate::window::layout::COLUMNS;
use crate::window::{
    Column, DistinctLayout, Layout, Recent, Shares, Sketch, Span, StartTimes, Starts, Tick, Track, WindowRef,
};

/// The gauges of one group.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Gauges {
    #[serde(with = "tracks")]
    tracks: SmallVec<[Track; 1]>,
    more: Option<Box<More>>,
    last_active: Tick,
}

/// What only some rules ask for.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
struct More {
    starts: Starts,
    start_times: StartTimes,
    distinct: Vec<Distinct>,
    shares: Vec<Shares>,
    /// Flows do not survive a restart.
    #[serde(skip)]
    open_since: BTreeMap<Timestamp, u32>,
}

/// Different values: each of them, or about how many.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Distinct {
    Estimated(Sketch),
    Exact(Recent),
}

/// What is booked on a group at once.
#[derive(Debug, Clone, Default)]
pub struct Addition {
    /// One value for every kind of [`Column`]; [`Column::ActiveTicks`] is counted by the gauges.
    pub columns: [u64; COLUMNS],
    /// The exact start of the connection, where one is among it.
    pub start: Option<Timestamp>,
    /// The hashes of the values that are counted or shared, by their source; `None` where missing.
    pub values: SmallVec<[Option<u64>; 4]>,
}

impl Addition {
    /// Sets a column.
    pub fn set(&mut self, column: Column, value: u64) {
        self.columns[column as usize] = value;
    }

    /// A column's value.
    pub fn get(&self, column: Column) -> u64 {
        self.columns[column as usize]
    }
}

impl Gauges {
    /// Gauges at zero.
    pub fn new(layout: &Layout) -> Self {
        let tracks = layout.tracks.iter().map(|spans| Track::new(spans, layout.columns.len())).collect();
        let wants_more = layout.starts.is_some()
            || layout.start_times.is_some()
            || !layout.distinct.is_empty()
            || !layout.shares.is_empty()
            || layout.ages;
        let more = wants_more.then(|| {
            Box::new(More {
                distinct: layout.distinct.iter().map(Distinct::of).collect(),
                shares: vec![Shares::default(); layout.shares.len()],
                ..More::default()
            })
        });
        Self { tracks, more, last_active: 0 }
    }

    /// Books an addition at a tick, which is not before the last one.
    pub fn add(&mut self, layout: &Layout, now: Tick, addition: &Addition) {
        let mut values: SmallVec<[u64; COLUMNS]> =
            layout.columns.iter().map(|column| addition.columns[*column as usize]).collect();
        let has_traffic = addition.get(Column::BytesOut) > 0 || addition.get(Column::BytesIn) > 0;
        if self.last_active != now && has_traffic {
            self.last_active = now;
            if let Some(at) = layout.columns.iter().position(|column| *column == Column::ActiveTicks) {
                values[at] = 1;
            }
        }
        for (track, spans) in self.tracks.iter_mut().zip(&layout.tracks) {
            track.add(spans, now, &values);
        }
        if let Some(more) = &mut self.more {
            more.add(layout, now, addition);
        }
    }

    /// Reads a little of everything that [`Gauges::add`] touches. Who does so for several groups before the first
    /// is worked on has their cache misses overlap.
    #[inline]
    pub fn glance(&self) -> u64 {
        self.tracks.iter().fold(self.last_active, |seen, track| seen ^ track.glance())
    }

    /// Lets everything leave that the windows no longer cover.
    pub fn advance(&mut self, layout: &Layout, now: Tick, tick: Duration) {
        for (track, spans) in self.tracks.iter_mut().zip(&layout.tracks) {
            track.advance(spans, now, layout.columns.len());
        }
        let Some(more) = &mut self.more else { return };
        if let Some((_, length)) = layout.starts {
            more.starts.advance(now, length);
        }
        if let Some(length) = layout.start_times {
            let start = i128::from(now.saturating_sub(length)) * i128::try_from(tick.as_nanos()).unwrap_or(0);
            more.start_times.forget_before(Timestamp::from_nanos(i64::try_from(start).unwrap_or(i64::MAX)));
        }
        for (layout, distinct) in layout.distinct.iter().zip(&mut more.distinct) {
            distinct.advance(layout, now);
        }
        for ((_, span), shares) in layout.shares.iter().zip(&mut more.shares) {
            shares.advance(*span, now);
        }
    }

    /// A window's sum.
    #[inline]
    pub fn sum(&self, layout: &Layout, window: WindowRef, column: usize) -> u64 {
        self.tracks.get(window.track).map_or(0, |track| track.sum(window.window, column, layout.columns.len()))
    }

    /// A window's sum with the oldest bucket counted by the part of it that lies inside the window.
    pub fn interpolated(&self, layout: &Layout, window: WindowRef, column: usize, now: Tick) -> u64 {
        let (Some(track), Some(spans)) = (self.tracks.get(window.track), layout.tracks.get(window.track)) else {
            return 0;
        };
        track.interpolated(spans, window.window, column, layout.columns.len(), now)
    }

    /// A window's highest bucket.
    pub fn peak(&self, layout: &Layout, window: WindowRef, column: usize) -> u64 {
        self.tracks.get(window.track).map_or(0, |track| track.peak(window.window, column, layout.columns.len()))
    }

    /// A window's buckets that have traffic: number and value, oldest first.
    pub fn buckets(&self, layout: &Layout, window: WindowRef, column: usize) -> Vec<(u64, u64)> {
        let columns = layout.columns.len();
        let track = self.tracks.get(window.track);
        track.map(|track| track.buckets(window.window, column, columns).collect()).unwrap_or_default()
    }

    /// Connections within the last ticks, exact up to what is kept.
    pub fn starts(&self, now: Tick, length: Tick) -> u32 {
        self.more.as_ref().map_or(0, |more| more.starts.count(now, length))
    }

    /// Different values, exact up to what is kept, or estimated where the layout says so.
    pub fn distinct(&self, which: usize) -> u32 {
        self.more.as_ref().and_then(|more| more.distinct.get(which)).map_or(0, Distinct::len)
    }

    /// The largest sum of one value.
    pub fn largest_share(&self, which: usize) -> u64 {
        self.more.as_ref().and_then(|more| more.shares.get(which)).map_or(0, Shares::largest)
    }

    /// How regular the connections since a moment are; see [`StartTimes::interval_variation`].
    pub fn interval_variation(&self, since: Timestamp) -> Option<f64> {
        self.more.as_ref()?.start_times.interval_variation(since)
    }

    /// Notes that a flow is open, or no longer.
    pub fn set_open(&mut self, first: Timestamp, open: Openness) {
        let Some(more) = &mut self.more else { return };
        match open {
            Openness::Open => *more.open_since.entry(first).or_default() += 1,
            Openness::Closed => {
                if let Some(count) = more.open_since.get_mut(&first) {
                    *count -= 1;
                    if *count == 0 {
                        more.open_since.remove(&first);
                    }
                }
            }
        }
    }

    /// The start of the oldest open flow.
    pub fn oldest_open(&self) -> Option<Timestamp> {
        self.more.as_ref()?.open_since.keys().next().copied()
    }

    /// When a value changes although nothing is booked.
    pub fn next_change(&self, layout: &Layout, now: Tick) -> Option<Tick> {
        let columns = layout.columns.len();
        let tracks =
            self.tracks.iter().zip(&layout.tracks).filter_map(|(track, spans)| track.next_change(spans, columns));
        let more = self.more.as_ref().and_then(|more| more.next_change(layout, now));
        tracks.chain(more).min()
    }

    /// Whether the gauges have the parts that a layout asks for.
    pub fn fit(&self, layout: &Layout) -> bool {
        let columns = layout.columns.len();
        let fits = |(track, spans): (&Track, &Vec<Span>)| track.fits(spans.len(), columns);
        self.tracks.len() == layout.tracks.len()
            && self.tracks.iter().zip(&layout.tracks).all(fits)
            && self.more.as_ref().map_or(0, |more| more.distinct.len()) == layout.distinct.len()
            && self
                .more
                .iter()
                .flat_map(|more| &more.distinct)
                .zip(&layout.distinct)
                .all(|(one, layout)| one.fits(layout))
            && self.more.as_ref().map_or(0, |more| more.shares.len()) == layout.shares.len()
    }

    /// Whether nothing is left in any window and no flow is open.
    pub fn is_empty(&self) -> bool {
        self.tracks.iter().all(Track::is_empty) && self.more.as_ref().is_none_or(|more| more.is_empty())
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.tracks.iter().map(Track::heap_bytes).sum::<usize>()
            + self.more.as_ref().map_or(0, |more| more.heap_bytes())
    }
}

/// Rings as a list.
mod tracks {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use smallvec::SmallVec;

    use crate::window::Track;

    pub(super) fn serialize<S: Serializer>(tracks: &SmallVec<[Track; 1]>, serializer: S) -> Result<S::Ok, S::Error> {
        tracks.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SmallVec<[Track; 1]>, D::Error> {
        Vec::deserialize(deserializer).map(SmallVec::from_vec)
    }
}

/// Whether a flow is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Openness {
    /// It began.
    Open,
    /// It ended.
    Closed,
}

impl More {
    fn add(&mut self, layout: &Layout, now: Tick, addition: &Addition) {
        let connections = addition.get(Column::Connections);
        if let Some((keep, _)) = layout.starts.filter(|_| connections > 0) {
            self.starts.add(now, u32::try_from(connections).unwrap_or(u32::MAX), keep);
        }
        if let (Some(_), Some(start)) = (layout.start_times, addition.start) {
            self.start_times.add(start);
        }
        let value = |source: u32| addition.values.get(source as usize).copied().flatten();
        for (layout, distinct) in layout.distinct.iter().zip(&mut self.distinct) {
            if let Some(hash) = value(layout.source) {
                distinct.add(layout, now, hash);
            }
        }
        for ((source, span), shares) in layout.shares.iter().zip(&mut self.shares) {
            if let Some(hash) = value(*source) {
                shares.add(*span, now, hash, addition.get(Column::BytesOut));
            }
        }
    }

    fn next_change(&self, layout: &Layout, now: Tick) -> Option<Tick> {
        let starts = layout.starts.and_then(|(_, length)| self.starts.next_change(now, length));
        let distinct = layout.distinct.iter().zip(&self.distinct);
        let distinct = distinct.filter_map(|(layout, distinct)| distinct.next_change(layout));
        let shares = layout.shares.iter().zip(&self.shares).filter_map(|((_, span), shares)| shares.next_change(*span));
        // Ages and intervals change with every tick.
        let every_tick = (!self.open_since.is_empty() || !self.start_times.is_empty()).then_some(now + 1);
        distinct.chain(shares).chain(starts).chain(every_tick).min()
    }

    fn is_empty(&self) -> bool {
        self.open_since.is_empty() && self.start_times.is_empty() && self.distinct.iter().all(Distinct::is_empty)
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + self.starts.heap_bytes()
            + self.start_times.heap_bytes()
            + self.distinct.iter().map(|distinct| distinct.heap_bytes() + size_of::<Distinct>()).sum::<usize>()
            + self.shares.iter().map(|shares| shares.heap_bytes() + size_of::<Shares>()).sum::<usize>()
            + self.open_since.len() * 24
    }
}

impl Distinct {
    fn of(layout: &DistinctLayout) -> Self {
        if layout.is_estimated() { Self::Estimated(Sketch::default()) } else { Self::Exact(Recent::default()) }
    }

    fn add(&mut self, layout: &DistinctLayout, now: Tick, hash: u64) {
        match self {
            Self::Exact(recent) => {
                recent.advance(now, layout.length);
                recent.add(now, hash, layout.keep);
            }
            Self::Estimated(sketch) => sketch.add(Span::of(layout.length), now, hash),
        }
    }

    fn advance(&mut self, layout: &DistinctLayout, now: Tick) {
        match self {
            Self::Exact(recent) => recent.advance(now, layout.length),
            Self::Estimated(sketch) => sketch.advance(Span::of(layout.length), now),
        }
    }

    fn next_change(&self, layout: &DistinctLayout) -> Option<Tick> {
        match self {
            Self::Exact(recent) => recent.next_change(layout.length),
            Self::Estimated(sketch) => sketch.next_change(Span::of(layout.length)),
        }
    }

    fn fits(&self, layout: &DistinctLayout) -> bool {
        matches!(self, Self::Estimated(_)) == layout.is_estimated()
    }

    fn len(&self) -> u32 {
        match self {
            Self::Exact(recent) => recent.len(),
            Self::Estimated(sketch) => sketch.len(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Exact(recent) => recent.is_empty(),
            Self::Estimated(sketch) => sketch.is_empty(),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Exact(recent) => recent.heap_bytes(),
            Self::Estimated(sketch) => sketch.heap_bytes(),
        }
    }
}
