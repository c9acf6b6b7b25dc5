//! How the watching goes, for whoever asks: the source, its tap, what they miss.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::engine::Statistics;

/// The latest [`Watching`], which the engine's thread renews once a second.
pub type Shared = Arc<ArcSwap<Watching>>;

/// How the watching goes.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Watching {
    /// `ebpf` or `pcap`.
    pub source: &'static str,
    /// Why it is not the kernel source, where that was wanted.
    pub fallback: Option<String>,
    /// What works less well on this kernel.
    pub limitation: Option<String>,
    /// What frames beside the kernel source are looked at: `closed`, `narrow`, `wide`; none with libpcap, which sees all.
    pub tap: Option<&'static str>,
    /// Why the tap cannot be opened.
    pub tap_failure: Option<String>,
    /// The share of the bytes on the interfaces that has an owner, from 0 to
    /// 1, over the last minute; none while too little passed to say.
    pub coverage: Option<f64>,
    /// Bytes of the last minute on the interfaces that nobody owns, about.
    pub uncovered_bytes: u64,
    /// Whether the source sees nothing at this moment: every interface that it captures on is gone.
    pub blind: bool,
    /// Rules that only learn so far: nothing makes them fire.
    pub learning: Vec<Arc<str>>,
    /// What the engine did.
    pub engine: Statistics,
}
