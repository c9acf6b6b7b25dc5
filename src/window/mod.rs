//! From owned bytes to sums over time.
//!
//! Pure. Time is counted in ticks: what passed between two ticks is booked at
//! the second one, so a window's value depends on the data alone and never on
//! how often the engine was woken.

mod distinct;
mod gauges;
mod layout;
mod seen;
mod series;
mod share;
mod sketch;
mod sliding;
mod starts;

pub use distinct::Recent;
pub use gauges::{Addition, Gauges, Openness};
pub use layout::{Column, DistinctLayout, Layout, Span, WindowRef};
pub use seen::{MAX_SEEN, Seen};
pub use series::{Group, GroupId, Room, Series, SeriesStatistics};
pub use share::Shares;
pub use sketch::Sketch;
pub use sliding::Track;
pub use starts::{StartTimes, Starts};

/// A moment on the tick grid: how many ticks after the Unix epoch.
pub type Tick = u64;
