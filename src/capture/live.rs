//! Live capture with libpcap: one interface, several, or `any`.
//!
//! A thread of its own polls the handles and copies what they hold into
//! batches. Batches come from a fixed pool: while none is free nothing is
//! taken out of the kernel's ring, so a slow consumer costs frames only when
//! that ring is full too, and the kernel counts them.
//!
//! Not immediate mode: a wake-up a packet costs twenty times as much as a
//! wake-up a block. On a busy link, where even blocks come by the hundred a
//! second, the thread rests between rounds, and takes what came meanwhile at
//! once. Non-blocking handles under `poll`: with `TPACKET_V3` the read timeout
//! starts with the first packet, so a read of a quiet link never returns.

mod ahead;
mod batch;
mod interface;
mod pace;
mod starts;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use pcap::{Active, Linktype, Precision};
use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::{info, warn};

use ahead::Ahead;
pub use batch::Batch;
use batch::{Buffers, Record, Stamps};
use pace::Pace;
use starts::Starts;

use crate::flow::CaptureLosses;
use crate::packet::LinkType;
use crate::units::Bytes;

/// What to capture.
#[derive(Debug, Clone)]
pub struct CaptureSettings {
    /// The interfaces' names; [`ANY`] for all of them.
    pub interfaces: Vec<String>,
    /// A filter in libpcap's language (pcap-filter(7)).
    pub filter: Option<String>,
    /// How much of each frame is kept, at least [`MIN_SNAPLEN`].
    pub snaplen: Bytes,
    /// Of which frames more than the headers is kept.
    pub payloads: Payloads,
    /// The kernel's ring for each interface, at least [`MIN_BUFFER`].
    pub buffer: Bytes,
    /// For how long the kernel gathers frames before it hands them over.
    pub latency: Duration,
    /// Whether frames for other hosts are captured too.
    pub promiscuous: bool,
}

/// Which payloads are kept, as far as `snaplen` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payloads {
    /// All.
    All,
    /// Those that tell names: the first ones of each flow, and DNS.
    Starts,
}

/// The pseudo-interface that captures on every interface.
pub const ANY: &str = "any";

/// Less cuts TCP options and IPv6 extension headers.
pub const MIN_SNAPLEN: Bytes = Bytes(96);

/// The least ring that is worth having.
pub const MIN_BUFFER: Bytes = Bytes(64 * 1024);

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            interfaces: vec![ANY.to_owned()],
            filter: None,
            // A QUIC Initial packet is sealed as a whole, and a ClientHello of
            // post-quantum size, before it is segmented, has 1.8 kB: less gives no name.
            snaplen: Bytes(2048),
            payloads: Payloads::Starts,
            buffer: Bytes(16 * 1024 * 1024),
            latency: Duration::from_millis(20),
            promiscuous: false,
        }
    }
}

/// Why a capture cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A name that no interface has.
    #[error("no interface `{name}`{}; there is {}", suggestion(.nearest), .present.join(", "))]
    NoSuchInterface {
        /// What was asked for.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
        /// The interfaces that there are.
        present: Vec<String>,
    },
    /// No interface was named.
    #[error("no interface to capture on is named")]
    NoInterface,
    /// The process may not capture.
    #[error("capturing on `{interface}` needs CAP_NET_RAW: run as root, or `setcap cap_net_raw=ep` the program")]
    Permission {
        /// On which interface.
        interface: String,
    },
    /// libpcap refused.
    #[error("cannot open a capture on interface `{interface}`")]
    Open {
        /// On which interface.
        interface: String,
        /// What libpcap says.
        #[source]
        source: pcap::Error,
    },
    /// The filter is not in libpcap's language.
    #[error("the capture filter `{filter}` is not valid on interface `{interface}`")]
    Filter {
        /// The filter.
        filter: String,
        /// On which interface.
        interface: String,
        /// What libpcap says.
        #[source]
        source: pcap::Error,
    },
    /// A snapshot length that would cut headers.
    #[error("a snaplen of {0} cuts headers: use at least {MIN_SNAPLEN}")]
    Snaplen(Bytes),
    /// A buffer that is too small or too large for libpcap.
    #[error("a capture buffer of {0} cannot work: use {MIN_BUFFER} to 2 GB")]
    Buffer(Bytes),
    /// The operating system gave no thread.
    #[error("cannot start the capture thread")]
    Thread(#[source] std::io::Error),
}

/// A running capture. Dropping it ends the thread.
#[derive(Debug)]
pub struct Capture {
    batches: Receiver<Batch>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Opens every interface and starts the capture thread.
    pub fn open(settings: &CaptureSettings) -> Result<Self, LiveError> {
        if settings.snaplen < MIN_SNAPLEN || i32::try_from(settings.snaplen.0).is_err() {
            return Err(LiveError::Snaplen(settings.snaplen));
        }
        if settings.buffer < MIN_BUFFER || i32::try_from(settings.buffer.0).is_err() {
            return Err(LiveError::Buffer(settings.buffer));
        }
        let mut taps = Vec::new();
        for name in interface::without_doubles(&settings.interfaces) {
            taps.push(Tap { handle: Some(Handle::open(&name, settings)?), name, retry_at: Instant::now() });
        }
        if taps.is_empty() {
            return Err(LiveError::NoInterface);
        }
        let (free_sender, free) = bounded(POOL_BATCHES);
        for _ in 0..POOL_BATCHES {
            // The channel holds as many as the loop makes, and both ends live.
            let _ = free_sender.try_send(Buffers::default());
        }
        let (sender, batches) = bounded(POOL_BATCHES);
        let counters = Arc::new(Counters::default());
        let worker = Worker {
            taps,
            settings: settings.clone(),
            sender,
            free,
            spare: Vec::with_capacity(POOL_BATCHES),
            home: free_sender,
            counters: Arc::clone(&counters),
            pace: Pace::new(settings.latency, settings.buffer),
            round: Vec::with_capacity(ROUND_BATCHES),
        };
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || worker.run())
            .map_err(LiveError::Thread)?;
        Ok(Self { batches, counters, thread: Some(thread) })
    }

    /// Where the batches arrive. The channel closes when the capture has ended.
    pub fn batches(&self) -> &Receiver<Batch> {
        &self.batches
    }

    /// What has been lost since the capture was opened.
    pub fn losses(&self) -> CaptureLosses {
        CaptureLosses {
            kernel_dropped: self.counters.kernel_dropped.load(Ordering::Relaxed),
            interface_dropped: self.counters.interface_dropped.load(Ordering::Relaxed),
            ..Default::default()
        }
    }

    /// Whether no interface can be captured on at this moment: all are gone.
    pub fn is_blind(&self) -> bool {
        self.counters.blind.load(Ordering::Relaxed)
    }

    /// Ends the capture. Batches that were handed over can still be received.
    pub fn stop(&self) {
        self.counters.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the capture thread panicked");
        }
    }
}

/// Running totals that the capture thread writes and anyone may read.
#[derive(Debug, Default)]
struct Counters {
    kernel_dropped: AtomicU64,
    interface_dropped: AtomicU64,
    stop: AtomicBool,
    /// No interface can be captured on at this moment.
    blind: AtomicBool,
}

/// One interface, whether or not it exists at the moment.
struct Tap {
    name: String,
    handle: Option<Handle>,
    retry_at: Instant,
}

/// An open libpcap handle and what its frames have in common.
struct Handle {
    capture: pcap::Capture<Active>,
    stamps: Stamps,
    link_type: LinkType,
    interface: u32,
    loopback: Option<u32>,
    /// Where not all payloads are kept.
    starts: Option<Starts>,
    dropped: u32,
    interface_dropped: u32,
}

impl Handle {
    fn open(name: &str, settings: &CaptureSettings) -> Result<Self, LiveError> {
        let index = interface::index(name)?;
        let failed = |source: pcap::Error| match caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_RAW) {
            Ok(false) => LiveError::Permission { interface: name.to_owned() },
            _ => LiveError::Open { interface: name.to_owned(), source },
        };
        // Both were checked to fit when the capture was opened.
        let [snaplen, buffer] =
            [settings.snaplen, settings.buffer].map(|size| i32::try_from(size.0).unwrap_or(i32::MAX));
        let mut capture = pcap::Capture::from_device(name)
            .map_err(failed)?
            .snaplen(snaplen)
            .buffer_size(buffer)
            .timeout(i32::try_from(settings.latency.as_millis()).unwrap_or(i32::MAX).max(1))
            .promisc(settings.promiscuous)
            .precision(Precision::Nano)
            .open()
            .map_err(failed)?;
        if name == ANY
            && let Err(error) = capture.set_datalink(Linktype::LINUX_SLL2)
        {
            // libpcap before 1.10 has version 1 only, which does not name the interface.
            info!(%error, "frames of `any` will not name their interface");
        }
        if let Some(filter) = &settings.filter {
            capture.filter(filter, true).map_err(|source| LiveError::Filter {
                filter: filter.clone(),
                interface: name.to_owned(),
                source,
            })?;
        }
        let stamps = batch::stamps_of(&capture);
        // A raw link type is DLT_RAW (12 on Linux) to libpcap's handle and LINKTYPE_RAW (101) in files.
        let link_type = match u32::try_from(capture.get_datalink().0).unwrap_or_default() {
            12 => LinkType::RAW,
            number => LinkType(number),
        };
        let capture = capture.setnonblock().map_err(failed)?;
        Ok(Self {
            capture,
            stamps,
            link_type,
            interface: index,
            loopback: interface::index("lo").ok(),
            starts: (settings.payloads == Payloads::Starts).then(Starts::default),
            dropped: 0,
            interface_dropped: 0,
        })
    }

    /// Copies what the ring holds, up to the batch's size.
    fn read(&mut self, buffers: &mut Buffers) -> Result<(), pcap::Error> {
        let Self { capture, stamps, link_type, interface, loopback, starts, .. } = self;
        let mut ahead = Ahead::default();
        let room = BATCH_FRAMES.saturating_sub(buffers.len());
        capture.dispatch(Some(room.max(1)), |packet| {
            ahead.fetch_after(packet.data);
            let mut record = Record::new(packet.header, *stamps, *link_type, *interface);
            record.read_cooked_header(packet.data, *loopback);
            let kept = starts.as_mut().map_or(packet.data.len(), |starts| starts.kept(&record.frame(packet.data)));
            buffers.push(record, packet.data.get(..kept).unwrap_or(packet.data), packet.data.len() as u64);
        })?;
        Ok(())
    }

    /// Drops since the last call; libpcap's totals are 32 bits wide and wrap.
    fn drops(&mut self) -> Result<(u64, u64), pcap::Error> {
        let now = self.capture.stats()?;
        let deltas = (now.dropped.wrapping_sub(self.dropped), now.if_dropped.wrapping_sub(self.interface_dropped));
        (self.dropped, self.interface_dropped) = (now.dropped, now.if_dropped);
        Ok((deltas.0.into(), deltas.1.into()))
    }
}

/// What the capture thread owns.
struct Worker {
    taps: Vec<Tap>,
    settings: CaptureSettings,
    sender: Sender<Batch>,
    free: Receiver<Buffers>,
    /// Free buffers, the one that came back last on top: its memory is still in the caches, and of most of the pool
    /// no memory is ever touched.
    spare: Vec<Buffers>,
    home: Sender<Buffers>,
    counters: Arc<Counters>,
    pace: Pace,
    /// What one round brought. It is handed over together, for each time the consumer falls asleep costs more than
    /// a batch.
    round: Vec<Batch>,
}

impl Worker {
    fn run(mut self) {
        let mut drops_read = Instant::now();
        while !self.counters.stop.load(Ordering::Relaxed) {
            if drops_read.elapsed() >= DROPS_INTERVAL {
                drops_read = Instant::now();
                self.count_drops();
                self.reopen();
                let is_blind = self.taps.iter().all(|tap| tap.handle.is_none());
                self.counters.blind.store(is_blind, Ordering::Relaxed);
            }
            let Ok(mut buffers) = self.take_spare() else { break };
            let Some(buffers) = &mut buffers else { continue };
            self.read(buffers);
            let (frames, bytes) = (buffers.len(), buffers.captured());
            self.pace.took(frames, bytes);
            if frames > 0 {
                self.round.push(Batch::new(std::mem::take(buffers), self.home.clone()));
            } else {
                self.spare.push(std::mem::take(buffers));
            }
            let has_more = frames >= BATCH_FRAMES;
            if (!has_more || self.round.len() >= ROUND_BATCHES) && !self.hand_over() {
                break;
            }
            if !has_more {
                match self.pace.rest() {
                    Some(rest) => std::thread::sleep(rest),
                    None => self.wait(),
                }
            }
        }
        self.finish();
    }

    /// Free buffers; none, where the consumer has not given any back in time.
    ///
    /// # Errors
    /// Where there is no consumer any more.
    fn take_spare(&mut self) -> Result<Option<Buffers>, RecvTimeoutError> {
        self.spare.extend(self.free.try_iter());
        if let Some(spare) = self.spare.pop() {
            return Ok(Some(spare));
        }
        // What waits here is not coming back by itself.
        if !self.hand_over() {
            return Err(RecvTimeoutError::Disconnected);
        }
        match self.free.recv_timeout(POLL_TIMEOUT) {
            Ok(buffers) => Ok(Some(buffers)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until a ring has something or the timeout has passed.
    fn wait(&self) {
        let open: Vec<BorrowedFd<'_>> =
            self.taps.iter().filter_map(|tap| tap.handle.as_ref()).map(|handle| handle.capture.as_fd()).collect();
        let mut fds: Vec<PollFd<'_>> = open.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: POLL_TIMEOUT.subsec_nanos().into() };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                warn!(%error, "cannot wait for frames");
                std::thread::sleep(POLL_TIMEOUT);
            }
        }
    }

    fn read(&mut self, buffers: &mut Buffers) {
        for tap in &mut self.taps {
            let Some(handle) = &mut tap.handle else { continue };
            if buffers.len() >= BATCH_FRAMES {
                break;
            }
            if let Err(error) = handle.read(buffers) {
                warn!(interface = %tap.name, %error, "the capture on this interface has ended; trying again each second");
                tap.handle = None;
                tap.retry_at = Instant::now() + RETRY_INTERVAL;
            }
        }
        // The first tap would starve the others when it fills every batch alone.
        self.taps.rotate_left(1);
    }

    /// Hands the round over. Whether anyone still listens.
    fn hand_over(&mut self) -> bool {
        self.round.drain(..).all(|batch| self.sender.send(batch).is_ok())
    }

    fn count_drops(&mut self) {
        let (mut kernel, mut interface) = (0, 0);
        for tap in &mut self.taps {
            match tap.handle.as_mut().map(Handle::drops) {
                Some(Ok((by_kernel, by_interface))) => {
                    kernel += by_kernel;
                    interface += by_interface;
                    if by_kernel > 0 {
                        warn!(interface = %tap.name, dropped = by_kernel, "capture is dropping packets");
                    }
                }
                Some(Err(error)) => warn!(interface = %tap.name, %error, "cannot read the drop counters"),
                None => {}
            }
        }
        self.counters.kernel_dropped.fetch_add(kernel, Ordering::Relaxed);
        self.counters.interface_dropped.fetch_add(interface, Ordering::Relaxed);
    }

    fn reopen(&mut self) {
        for tap in self.taps.iter_mut().filter(|tap| tap.handle.is_none()) {
            if tap.retry_at > Instant::now() {
                continue;
            }
            tap.retry_at = Instant::now() + RETRY_INTERVAL;
            if let Ok(handle) = Handle::open(&tap.name, &self.settings) {
                info!(interface = %tap.name, "capturing on this interface again");
                tap.handle = Some(handle);
            }
        }
    }

    /// Takes what the rings still hold, so that the end of a capture is complete.
    fn finish(&mut self) {
        for _ in 0..POOL_BATCHES {
            let Some(mut buffers) = self.spare.pop().or_else(|| self.free.try_recv().ok()) else { break };
            self.read(&mut buffers);
            if buffers.is_empty() {
                break;
            }
            self.round.push(Batch::new(buffers, self.home.clone()));
        }
        // Nobody may be there to take it.
        let _ = self.hand_over();
        self.count_drops();
    }
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// Batches in existence; what the consumer may lag behind before the kernel's ring fills.
const POOL_BATCHES: usize = 128;

/// Frames in one batch: so few that their bytes are still in the second-level cache when they are read.
const BATCH_FRAMES: usize = 256;

/// Batches that are handed over together at most.
const ROUND_BATCHES: usize = 16;

/// How long a quiet link keeps the thread asleep, and with it how late a stop is noticed.
const POLL_TIMEOUT: Duration = Duration::from_millis(200);

/// How often the drop counters are read.
const DROPS_INTERVAL: Duration = Duration::from_secs(1);

/// How often an interface that went away is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        let small = CaptureSettings { snaplen: Bytes(64), ..Default::default() };
        assert!(matches!(Capture::open(&small), Err(LiveError::Snaplen(Bytes(64)))));
        let small = CaptureSettings { buffer: Bytes(4_000), ..Default::default() };
        assert!(matches!(Capture::open(&small), Err(LiveError::Buffer(Bytes(4_000)))));
        let none = CaptureSettings { interfaces: Vec::new(), ..Default::default() };
        assert!(matches!(Capture::open(&none), Err(LiveError::NoInterface)));
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_one() {
        let wrong = CaptureSettings { interfaces: vec!["l0".to_owned()], ..Default::default() };
        let error = Capture::open(&wrong).unwrap_err().to_string();
        assert!(error.starts_with("no interface `l0`, did you mean `lo`?; there is "), "{error}");
        assert!(error.contains("any"), "{error}");
    }
}
