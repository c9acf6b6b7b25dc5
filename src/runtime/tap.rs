//! The tap beside the kernel source: frames that no socket explains.
//!
//! Programs in the kernel count at sockets, and cost little. What passes
//! beside them needs a look at the wire, which costs more: so the tap is closed
//! until there is something to look for. It is narrow (packets of neither end's
//! sockets) where this host forwards, and wide for a while when a process sent
//! through a packet socket, when the interfaces counted more than has an owner,
//! or when a rule wants the packets of its alerts kept.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never};
use tracing::{debug, info, warn};

use crate::attribution::{FlowUpdate, Process, Unexplained};
use crate::capture::live::{Batch, Capture, CaptureSettings, Payloads};
use crate::flow::{CaptureLosses, Duplicates, LocalAddresses, Namespace};
use crate::packet::{Fragments, Packet, decode};
use crate::resolve::PacketSockets;
use crate::runtime::clock::SystemClock;
use crate::runtime::coverage::own_namespace;
use crate::runtime::packets::Ring;
use crate::time::Timestamp;
use crate::units::Bytes;

/// How much the tap looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// Nothing: it is closed.
    Closed,
    /// Packets of which neither end is this host.
    Narrow,
    /// All.
    Wide,
}

/// The tap, open or not.
#[derive(Debug)]
pub struct Tap {
    addresses: Vec<std::net::IpAddr>,
    width: Width,
    capture: Option<Capture>,
    unexplained: Unexplained,
    suspects: Option<PacketSockets>,
    fragments: Fragments,
    /// Packets that leave by several interfaces, such as a bridge and its port.
    sent: Duplicates,
    received: Duplicates,
    /// Until when it stays wide.
    wide_until: Option<Instant>,
    /// Whether it is wide for good.
    keeps_packets: bool,
    /// Why it cannot be opened.
    failure: Option<String>,
    retry_at: Instant,
    own_namespace: Namespace,
}

impl Tap {
    /// A tap that is closed. `addresses` are this host's own.
    pub fn new(local: LocalAddresses, addresses: Vec<std::net::IpAddr>) -> Self {
        let own_namespace = own_namespace();
        let suspects = PacketSockets::start();
        if let Err(error) = &suspects {
            warn!(%error, "holders of packet sockets cannot be named");
        }
        Self {
            addresses,
            width: Width::Closed,
            capture: None,
            unexplained: Unexplained::new(local, own_namespace),
            suspects: suspects.ok(),
            fragments: Fragments::default(),
            sent: Duplicates::default(),
            received: Duplicates::default(),
            wide_until: None,
            keeps_packets: false,
            failure: None,
            retry_at: Instant::now(),
            own_namespace,
        }
    }

    /// Keeps it wide, since somebody wants the packets; or no longer.
    pub fn keep_packets(&mut self, wanted: Wanted) {
        self.keeps_packets = wanted == Wanted::Yes;
    }

    /// Where frames arrive; never, while it is closed.
    pub fn frames(&self) -> Receiver<Batch> {
        self.capture.as_ref().map_or_else(never, |capture| capture.batches().clone())
    }

    /// How much it looks at.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Why it cannot be opened, where it should be.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// What it lost.
    pub fn losses(&self) -> CaptureLosses {
        self.capture.as_ref().map(Capture::losses).unwrap_or_default()
    }

    /// Takes frames. Those of alerts are held in `ring`.
    pub fn take_batch(&mut self, batch: &Batch, clock: &SystemClock, ring: Option<&mut Ring>) {
        let mut ring = ring;
        let skew = clock.skew();
        for frame in batch.frames() {
            // A frame without IP is nobody's flow.
            let Ok(packet) = decode(&frame, &mut self.fragments) else { continue };
            // A packet that passes through comes in on one interface and leaves by another.
            let seen = if is_outgoing(&packet) { &mut self.sent } else { &mut self.received };
            if seen.admits(&packet) {
                if let Some(ring) = &mut ring {
                    ring.take(&frame, &packet);
                }
                let timestamp = clock.event_time(packet.timestamp, skew);
                self.unexplained.take_packet(&Packet { timestamp, ..packet });
            }
        }
    }

    /// Takes what the kernel source counted, and leaves what the engine shall count now.
    pub fn take_counts(&mut self, updates: &mut Vec<FlowUpdate>) {
        let injects =
            |update: &FlowUpdate| Unexplained::is_injection(&update.key) && update.key.namespace == self.own_namespace;
        if updates.iter().any(injects) {
            self.wide_until = Some(Instant::now() + STAYS_WIDE);
        }
        if self.width != Width::Closed {
            // A narrow tap sees no frame that this host made.
            let narrow = self.width == Width::Narrow;
            updates.retain(|update| (narrow && injects(update)) || !self.unexplained.take_update(update));
        }
    }

    /// Once a second: opens or closes, and tells what no socket explains.
    /// `gap` says that the interfaces counted more than has an owner.
    pub fn tick(&mut self, now: Timestamp, gap: Gap) -> Vec<FlowUpdate> {
        if gap == Gap::There {
            self.wide_until = Some(Instant::now() + STAYS_WIDE);
        }
        let mut told = Vec::new();
        if self.width != Width::Closed {
            let holders = self.holders();
            told = self.unexplained.settle(now, &holders);
        }
        let wide = self.keeps_packets || self.wide_until.is_some_and(|until| until > Instant::now());
        let wanted = match wide {
            true => Width::Wide,
            false if forwards() => Width::Narrow,
            false => Width::Closed,
        };
        if wanted != self.width && Instant::now() >= self.retry_at {
            told.extend(self.change(wanted, now));
        }
        told
    }

    /// Tells what is left.
    pub fn finish(&mut self, now: Timestamp, clock: &SystemClock) -> Vec<FlowUpdate> {
        if let Some(capture) = &self.capture {
            capture.stop();
            let frames = capture.batches().clone();
            let until = Instant::now() + LAST_FRAMES;
            while let Ok(batch) = frames.recv_deadline(until) {
                self.take_batch(&batch, clock, None);
            }
        }
        self.capture = None;
        self.width = Width::Closed;
        let holders = self.holders();
        self.unexplained.finish(now, &holders)
    }

    fn change(&mut self, wanted: Width, now: Timestamp) -> Vec<FlowUpdate> {
        let mut told = Vec::new();
        if wanted == Width::Closed {
            let holders = self.holders();
            told = self.unexplained.finish(now, &holders);
            self.capture = None;
        } else {
            match Capture::open(&self.settings(wanted)) {
                Ok(capture) => {
                    self.capture = Some(capture);
                    self.failure = None;
                }
                Err(error) => {
                    self.retry_at = Instant::now() + RETRY_AFTER;
                    if self.failure.is_none() {
                        warn!(%error, "what no socket explains cannot be looked at");
                    }
                    self.failure = Some(error.to_string());
                    return told;
                }
            }
        }
        match wanted {
            Width::Closed => debug!("the tap is closed"),
            Width::Narrow => info!("looking at packets that pass through this host"),
            Width::Wide => info!("looking at all packets for those that no socket explains"),
        }
        self.width = wanted;
        told
    }

    fn settings(&self, width: Width) -> CaptureSettings {
        CaptureSettings {
            filter: Some(self.filter(width)),
            snaplen: SNAPLEN,
            payloads: Payloads::All,
            buffer: BUFFER,
            ..CaptureSettings::default()
        }
    }

    fn filter(&self, width: Width) -> String {
        let mut filter = "(ip or ip6) and not net 127.0.0.0/8 and not host ::1".to_owned();
        if width == Width::Narrow && self.addresses.len() <= MAX_ADDRESSES {
            for address in self.addresses.iter().filter(|address| !address.is_loopback()) {
                // Writing to a string does not fail.
                let _ = write!(filter, " and not host {address}");
            }
        }
        filter
    }

    fn holders(&self) -> Vec<Arc<Process>> {
        self.suspects.as_ref().map(|suspects| suspects.holders().to_vec()).unwrap_or_default()
    }
}

/// Whether packets are wanted for their own sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// They are.
    Yes,
    /// They are not.
    No,
}

/// Whether the interfaces counted more than has an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// They did.
    There,
    /// They did not, or it is too early to say.
    None,
}

impl Width {
    /// The word for it in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Narrow => "narrow",
            Self::Wide => "wide",
        }
    }
}

fn is_outgoing(packet: &Packet<'_>) -> bool {
    packet.direction == Some(crate::packet::FrameDirection::Out)
}

/// Whether this host passes on the packets of others.
fn forwards() -> bool {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
        .iter()
        .any(|name| fs::read_to_string(format!("/proc/sys/net/{name}")).is_ok_and(|text| text.trim() == "1"))
}

/// How long the tap stays wide after there was something to look for.
const STAYS_WIDE: Duration = Duration::from_secs(15);

/// How soon opening is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// How long the last frames may take.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// Headers are enough.
const SNAPLEN: Bytes = Bytes(160);

const BUFFER: Bytes = Bytes(8 << 20);

/// More addresses make a filter that costs more than it spares.
const MAX_ADDRESSES: usize = 48;
