//! The live run: a source, the engine and the owner look-ups, wired together.
//!
//! One thread runs the engine and waits for whatever comes first: frames,
//! the kernel's counts, owners, a control message, or the engine's own
//! deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select_biased};
use tracing::{debug, warn};

use crate::alert::Notification;
use crate::capture::live::Batch;
use crate::capture::{CountBatch, FirstPayload};
use crate::engine::{Engine, Output, Silence};
use crate::flow::{Duplicates, Passage};
use crate::memory;
use crate::names::Payload;
use crate::packet::{Fragments, FrameDirection, Packet, decode};
use crate::resolve::{Described, Describer, Hashing, Service};
use crate::rule::Field;
use crate::runtime::clock::{Clock, StepWatch, SystemClock};
use crate::runtime::control::{Control, Reload};
use crate::runtime::counts::FrameCounts;
use crate::runtime::coverage::{self, Coverage, Within};
use crate::runtime::packets::Packets;
use crate::runtime::source::Source;
use crate::runtime::tap::{Gap, Tap, Wanted};
use crate::runtime::watching::{self, Watching};
use crate::time::Timestamp;

/// A running engine with its source.
#[derive(Debug)]
pub struct Live {
    engine: Engine,
    source: Source,
    resolver: Option<Service>,
    describer: Describer,
    clock: SystemClock,
    fragments: Fragments,
    /// Needed where several interfaces are captured.
    duplicates: Option<Duplicates>,
    counts: FrameCounts,
    /// Descriptions of owners that are still to come.
    undescribed: u64,
    /// Owner look-ups and descriptions that found no room.
    unasked: u64,
    /// What looks at the wire beside a source that counts.
    tap: Option<Tap>,
    /// Whether every executable is hashed, not only where a rule looks at the hash.
    hashes_all: bool,
    /// What writes the packets of alerts.
    packets: Option<Packets>,
    coverage: Coverage,
    /// Bytes that passed no interface towards other hosts.
    within: u64,
    inside: Within,
    /// When the source last counted, where it counts by itself.
    counted: Timestamp,
    watching: watching::Shared,
    looked_at: Instant,
    steps: StepWatch,
}

/// Packets that are handed to the engine together.
const TOGETHER: usize = 256;

/// How often the source's losses, the interfaces and the tap are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A share of owned bytes that is worth a look at the wire.
const GAP: f64 = 0.9;

/// How long the source may take for its last reading.
const LAST_READING: Duration = Duration::from_secs(5);

/// So that a clock which has not quite come to the next tick does not make the thread spin.
const SHORTEST_REST: Duration = Duration::from_millis(1);

impl Live {
    /// Wires the parts together.
    pub fn new(
        engine: Engine,
        source: Source,
        resolver: Option<Service>,
        describer: Describer,
        clock: SystemClock,
    ) -> Self {
        let duplicates = source.sees_interfaces_together().then(Duplicates::default);
        Self {
            engine,
            source,
            resolver,
            describer,
            clock,
            fragments: Fragments::default(),
            duplicates,
            counts: FrameCounts::default(),
            undescribed: 0,
            unasked: 0,
            tap: None,
            hashes_all: false,
            packets: None,
            coverage: Coverage::new(0.0),
            within: 0,
            inside: Within::new(coverage::own_namespace()),
            counted: Timestamp::EPOCH,
            watching: watching::Shared::default(),
            looked_at: Instant::now(),
            steps: StepWatch::new(clock.skew()),
        }
    }

    /// Looks at the wire as well.
    #[must_use]
    pub fn with_tap(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// Hashes every executable, not only where a rule looks at the hash.
    #[must_use]
    pub fn with_hashes(mut self, hashes_all: bool) -> Self {
        self.hashes_all = hashes_all;
        self
    }

    /// Writes the packets of alerts whose rules ask for it.
    #[must_use]
    pub fn with_packets(mut self, packets: Packets) -> Self {
        self.packets = Some(packets);
        self
    }

    /// Less than this share of owned bytes is a problem.
    #[must_use]
    pub fn with_least_coverage(mut self, share: f64) -> Self {
        self.coverage = Coverage::new(share);
        self
    }

    /// How the watching goes, renewed once a second while it runs.
    pub fn watching(&self) -> watching::Shared {
        watching::Shared::clone(&self.watching)
    }

    /// The engine, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What was captured; nothing, where the source counts by itself.
    pub fn counts(&self) -> &FrameCounts {
        &self.counts
    }

    /// The source, to look at.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Runs until [`Control::Stop`] or `deadline`. `perform` gets every output but look-ups;
    /// `reload` is called for [`Control::Reload`].
    pub fn run(
        &mut self,
        control: &Receiver<Control>,
        deadline: Option<Instant>,
        mut reload: impl FnMut(&mut Engine, Reload),
        mut perform: impl FnMut(Output),
    ) {
        let frames = self.source.batches();
        let counts = self.source.counts();
        if let Some(problem) = self.source.problem() {
            perform(Output::Notification(Notification::of_problem(self.clock.now(), problem)));
        }
        let answers = self.resolver.as_ref().map_or_else(never, |resolver| resolver.answers().clone());
        let descriptions = self.describer.answers().clone();
        self.look_at_rules();
        if let Some(tap) = &mut self.tap {
            // Nothing can be told yet; a rule may want packets from the first on.
            let _ = tap.tick(self.clock.now(), Gap::None);
        }
        self.renew_watching();
        // Rules and lists were read, and what that took is not needed again.
        memory::give_back();
        let written = self.packets.as_ref().map_or_else(never, Packets::written);
        while deadline.is_none_or(|deadline| Instant::now() < deadline) {
            let tapped = self.tap.as_ref().map_or_else(never, Tap::frames);
            let rest = self.rest(deadline);
            select_biased! {
                recv(control) -> message => match message {
                    Ok(Control::Stop) | Err(_) => break,
                    Ok(Control::Reload(what)) => reload(&mut self.engine, what),
                    Ok(Control::Rules(rules)) => self.engine.replace_rules(rules),
                    Ok(Control::Ask(ask)) => ask(&mut self.engine),
                },
                recv(answers) -> answer => if let Ok(answer) = answer {
                    self.engine.handle_attribution(&answer.key, &answer.attribution);
                },
                recv(descriptions) -> found => if let Ok(found) = found {
                    self.handle_description(&found);
                },
                recv(frames) -> batch => match batch {
                    Ok(batch) => self.handle_batch(&batch),
                    Err(_) => {
                        warn!("the capture has ended");
                        break;
                    }
                },
                recv(counts) -> batch => match batch {
                    Ok(batch) => self.handle_counts(batch),
                    Err(_) => {
                        warn!("the kernel source has ended");
                        break;
                    }
                },
                recv(tapped) -> batch => if let (Ok(batch), Some(tap)) = (batch, &mut self.tap) {
                    tap.take_batch(&batch, &self.clock, self.packets.as_mut().map(Packets::ring));
                },
                recv(written) -> notification => if let (Ok(notification), Some(packets)) = (notification, &mut self.packets) {
                    packets.came_back(&notification);
                    perform(Output::Notification(notification));
                },
                default(rest) => self.engine.handle_timeout(self.clock.now()),
            }
            self.keep_time();
            self.look_around(&mut perform);
            self.drain(&mut perform);
        }
        self.take_rest(&frames, &counts);
        self.engine.handle_timeout(self.clock.now());
        self.drain(&mut perform);
        let until = Instant::now() + LAST_READING;
        while self.undescribed > 0
            && let Ok(found) = descriptions.recv_deadline(until)
        {
            self.handle_description(&found);
        }
        self.engine.finish();
        self.drain(&mut perform);
        for notification in self.packets.as_mut().map(Packets::finish).unwrap_or_default() {
            perform(Output::Notification(notification));
        }
    }

    /// How long nothing has to be done, if nothing comes.
    fn rest(&self, deadline: Option<Instant>) -> Duration {
        let look = LOOK_EVERY.saturating_sub(self.looked_at.elapsed());
        let due = self.engine.poll_timeout().map_or(look, |due| due.since(self.clock.now()));
        let end = deadline.map_or(look, |deadline| deadline.saturating_duration_since(Instant::now()));
        due.min(look).min(end).max(SHORTEST_REST)
    }

    /// Makes the ticks that are due, though what comes leaves no rest.
    fn keep_time(&mut self) {
        let now = self.clock.now();
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
    }

    fn handle_batch(&mut self, batch: &Batch) {
        let skew = self.clock.skew();
        let mut packets: Vec<Packet<'_>> = Vec::with_capacity(TOGETHER + 1);
        for frame in batch.frames() {
            self.counts.frames += 1;
            let packet = match decode(&frame, &mut self.fragments) {
                Ok(packet) => packet,
                Err(error) => {
                    self.counts.errors.record(error);
                    debug!(%error, "a frame holds no IP packet");
                    continue;
                }
            };
            if self.duplicates.as_mut().is_some_and(|duplicates| !duplicates.admits(&packet)) {
                self.counts.repeated += 1;
                continue;
            }
            if let Some(kept) = &mut self.packets {
                kept.ring().take(&frame, &packet);
            }
            self.counts.add(&packet);
            self.hand_over(Packet { timestamp: self.clock.event_time(packet.timestamp, skew), ..packet }, &mut packets);
        }
        self.engine.handle_packets(&packets);
    }

    /// The packet as each socket of this host sees it. What one local socket
    /// sends to another is captured once, and went out of the one and into the other.
    fn hand_over<'a>(&mut self, packet: Packet<'a>, packets: &mut Vec<Packet<'a>>) {
        match self.engine.settings().local.passage(&packet.five_tuple, packet.direction) {
            Passage::Within => {
                self.within += 2 * packet.bytes.0;
                packets.push(Packet { direction: Some(FrameDirection::Out), ..packet });
                packets.push(Packet { direction: Some(FrameDirection::In), ..packet });
            }
            passage => packets.push(Packet { direction: passage.way(), ..packet }),
        }
        if packets.len() >= TOGETHER {
            self.engine.handle_packets(packets);
            packets.clear();
        }
    }

    fn handle_counts(&mut self, mut batch: CountBatch) {
        self.counted = batch.timestamp;
        self.within += self.inside.bytes(&batch.updates, &self.engine.settings().local);
        if let Some(tap) = &mut self.tap {
            tap.take_counts(&mut batch.updates);
        }
        let payloads: Vec<Payload<'_>> = batch.payloads.iter().map(FirstPayload::as_payload).collect();
        self.engine.handle_updates(&batch.updates, &payloads);
        self.engine.handle_losses(&batch.losses);
    }

    fn handle_description(&mut self, found: &Described) {
        self.undescribed = self.undescribed.saturating_sub(1);
        self.engine.handle_description(&found.process, &found.described);
    }

    /// What the source has taken in before the end belongs to the run.
    fn take_rest(&mut self, frames: &Receiver<Batch>, counts: &Receiver<CountBatch>) {
        self.source.finish();
        let until = Instant::now() + LAST_READING;
        if self.source.needs_lookups() {
            while let Ok(batch) = frames.recv_deadline(until) {
                self.handle_batch(&batch);
            }
        } else {
            while let Ok(batch) = counts.recv_deadline(until) {
                self.handle_counts(batch);
            }
        }
        if let Some(tap) = &mut self.tap {
            let left = tap.finish(self.clock.now(), &self.clock);
            self.engine.handle_updates(&left, &[]);
        }
    }

    fn drain(&mut self, perform: &mut impl FnMut(Output)) {
        while let Some(output) = self.engine.poll_output() {
            match (output, &self.resolver) {
                (Output::Lookup(lookup), Some(resolver)) => self.unasked += u64::from(!resolver.ask(lookup)),
                (Output::Describe(process), _) => match self.describer.ask(process) {
                    true => self.undescribed += 1,
                    false => self.unasked += 1,
                },
                (Output::Notification(notification), _) => {
                    let notification = match &mut self.packets {
                        Some(packets) => packets.take(notification, self.clock.wall()),
                        None => Some(notification),
                    };
                    notification.into_iter().for_each(|one| perform(Output::Notification(one)));
                }
                (other, _) => perform(other),
            }
        }
    }

    /// Once a second: what the source lost, what the interfaces counted, what the tap saw.
    fn look_around(&mut self, perform: &mut impl FnMut(Output)) {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked_at = Instant::now();
        if let Some(problem) = self.steps.observe(self.clock.skew()) {
            perform(Output::Notification(Notification::of_problem(self.clock.now(), problem)));
        }
        if let Some(losses) = self.source.losses() {
            self.engine.handle_losses(&losses);
        }
        self.engine.handle_silence(if self.source.is_blind() { Silence::Began } else { Silence::Ended });
        let statistics = self.engine.statistics();
        let owned = statistics.bytes.saturating_sub(statistics.unattributed_bytes).saturating_sub(self.within);
        let now = self.clock.now();
        let counted = if self.source.needs_lookups() { now } else { self.counted };
        if let Some(problem) = self.coverage.take(now, owned, counted) {
            perform(Output::Notification(Notification::of_problem(self.clock.now(), problem)));
        }
        if let Some(tap) = &mut self.tap {
            let gap = if self.coverage.is_below(GAP) { Gap::There } else { Gap::None };
            let told = tap.tick(self.clock.now(), gap);
            self.engine.handle_updates(&told, &[]);
        }
        self.look_at_rules();
        self.renew_watching();
    }

    /// Packets are held and executables hashed while a rule asks for it.
    fn look_at_rules(&mut self) {
        let hashes = self.hashes_all || self.engine.rules().look_at(Field::ExeSha256);
        let hashing = if hashes { Hashing::On } else { Hashing::Off };
        if self.describer.set_hashing(hashing) == Hashing::Off && hashing == Hashing::On {
            self.engine.describe_again();
        }
        let Some(packets) = &mut self.packets else { return };
        let span = self.engine.rules().rules.iter().filter_map(|rule| rule.keep_packets).max();
        packets.ring().hold(span);
        if let Some(tap) = &mut self.tap {
            tap.keep_packets(if span.is_some() { Wanted::Yes } else { Wanted::No });
        }
    }

    fn renew_watching(&self) {
        self.watching.store(Arc::new(Watching {
            source: self.source.name(),
            fallback: self.source.fallback().map(str::to_owned),
            limitation: self.source.limitation().map(str::to_owned),
            tap: self.tap.as_ref().map(|tap| tap.width().name()),
            tap_failure: self.tap.as_ref().and_then(Tap::failure).map(str::to_owned),
            coverage: self.coverage.share(),
            uncovered_bytes: self.coverage.missing(),
            blind: self.source.is_blind(),
            learning: self.engine.learning(),
            engine: self.engine.statistics(),
        }));
    }
}
