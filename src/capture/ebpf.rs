//! The kernel source: bytes per process and five-tuple, counted in the kernel.
//!
//! Programs at the root of the control groups count each packet of each socket
//! in each network namespace, with its owner (`ebpf/egress.bpf.c`). Here they
//! are loaded and read: events through a ring, live sockets by an iterator once
//! a tick, the rest from a hash map. Every byte is reported exactly once.
//!
//! What it does not see: packets that no socket sends or receives, such as
//! forwarded ones.

mod owners;
mod proc;
mod programs;
mod record;
mod sys;
mod thread;

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::time::{ClockId, Timespec};

use crate::attribution::{FlowUpdate, ProcessKey};
use crate::capture::{CountBatch, FirstPayload};
use crate::flow::{CaptureLosses, Counters, Direction, FlowEndReason, FlowKey, FlowState, Namespace, Scope};
use crate::memory;
use crate::packet::{Endpoint, FrameDirection, Protocol};
use crate::time::Timestamp;
use crate::units::{Bytes, Packets};
use owners::Owners;
use programs::Programs;
use record::{Count, Event, Execution, Key, Nowhere, SocketInfo, Value};

pub use programs::EbpfError;
pub use thread::Reader;

/// How the source is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The control group whose processes are seen; the root of all by default.
    pub cgroup: Option<PathBuf>,
    /// Whether DNS messages and the first payloads of each connection are reported.
    pub names: bool,
    /// Whether senders on packet sockets, which pass beside IP, are counted.
    pub packet_sockets: bool,
    /// The time between two readings; see [`Source::interval`].
    pub tick: Duration,
}

/// The programs in the kernel, and the reader of what they count.
pub struct Source {
    programs: Programs,
    owners: Owners,
    tick: Duration,
    last_drain: Duration,
    epoch: u64,
    /// Flows that had been put in the maps when they were last emptied.
    flows_added: u64,
    /// What the ring brought since the last reading.
    closed: Vec<record::Close>,
    payloads: Vec<FirstPayload>,
    exits: Vec<ProcessKey>,
    /// Overflow holds totals: these are the ones already reported.
    overflow: HashMap<Nowhere, Count>,
    overflowed: u64,
    boot: Timestamp,
    own: ProcessKey,
    buffers: Buffers,
}

struct Buffers {
    iterator: Vec<u8>,
    keys: Vec<Key>,
    values: Vec<Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cgroup: None, names: true, packet_sockets: true, tick: Duration::from_millis(250) }
    }
}

impl Source {
    /// Loads the programs and gives the sockets that exist their owners.
    /// `now` is the wall clock, which dates what the kernel dates from boot.
    pub fn open(settings: &Settings, now: Timestamp) -> Result<Self, EbpfError> {
        let programs = Programs::load(settings)?;
        // To read the kernel's types takes four times what is kept of them.
        memory::give_back();
        let boot = now.before(since_boot());
        let mut owners = Owners::new(boot);
        for seed in &programs.seeds {
            owners.process(seed.id);
        }
        let own = own_execution(&programs)?;
        Ok(Self {
            programs,
            owners,
            tick: settings.tick,
            last_drain: Duration::ZERO,
            epoch: 0,
            flows_added: 0,
            closed: Vec::new(),
            payloads: Vec::new(),
            exits: Vec::new(),
            overflow: HashMap::new(),
            overflowed: 0,
            boot,
            own: ProcessKey { pid: own.pid, start: own.start },
            buffers: Buffers {
                iterator: vec![0; ITERATOR_BUFFER],
                keys: vec![Key::default(); MAP_BATCH],
                values: vec![Value::default(); MAP_BATCH],
            },
        })
    }

    /// Egret itself, as the kernel names it, whatever pid namespace it runs in.
    pub fn own_process(&self) -> ProcessKey {
        self.own
    }

    /// How many sockets were older than Egret.
    pub fn seeded(&self) -> usize {
        self.programs.seeds.len()
    }

    /// How many executions the source knows.
    pub fn known_processes(&self) -> usize {
        self.owners.len()
    }

    /// What works less well on this kernel, for the log.
    pub fn limitation(&self) -> Option<String> {
        self.programs.packet_sockets.as_ref().err().map(|why| format!("senders on packet sockets are not seen: {why}"))
    }

    /// How long to wait before the next reading: the tick, or longer where a
    /// hundred thousand sockets make reading dear, so that it stays below one
    /// hundredth of a processor.
    pub fn interval(&self) -> Duration {
        self.tick.max(self.last_drain * READINGS_APART)
    }

    /// Waits for `timeout`, or less when many events are there; takes the
    /// events in. Between readings the ring must not run full.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
        let mut ring = [PollFd::new(&self.programs.ring, PollFlags::IN)];
        match rustix::event::poll(&mut ring, Some(&timeout)) {
            // A signal ends the wait early; the runtime looks for it.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if self.closed.len() < MAX_CLOSED {
            self.take_events();
        } else {
            // The ring runs full, and the programs keep final counters in the map.
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Reads everything that was counted since the last call, each byte
    /// exactly once, and what happened meanwhile.
    pub fn poll(&mut self, now: Timestamp) -> io::Result<CountBatch> {
        let begun = cpu_time();
        self.take_events();
        let closed = std::mem::take(&mut self.closed);
        let mut counted = Vec::new();
        self.read_sockets(&mut counted)?;
        self.read_flows(&mut counted)?;
        self.read_overflow(&mut counted);
        // A process is reported before its first byte is counted: only now are
        // the owners of all these bytes there. Sockets that closed meanwhile
        // wait for the next reading, which may still find bytes of theirs.
        self.take_events();
        let mut updates: Vec<FlowUpdate> = counted.iter().map(|(key, value)| self.update(key, value, now)).collect();
        // Last, so that nothing of a flow comes after its end.
        for close in closed {
            updates.push(self.closing_update(&close, now));
        }
        self.owners.tick(now);
        let batch = CountBatch {
            timestamp: now,
            updates,
            payloads: std::mem::take(&mut self.payloads),
            exits: std::mem::take(&mut self.exits),
            losses: self.losses(),
        };
        self.last_drain = cpu_time().saturating_sub(begun);
        Ok(batch)
    }

    fn take_events(&mut self) {
        let Self { programs, owners, closed, payloads, exits, boot, .. } = self;
        while let Some(item) = programs.ring.next() {
            // A record of another kind or length can only come from another object file.
            let Some(event) = record::event(&item) else { continue };
            match event {
                Event::Process(head) => owners.report(&head),
                Event::Ancestor(head) => owners.report_ancestor(&head),
                Event::Exit(exit) => exits.push(owners.exited(exit.id, boot.after(Duration::from_nanos(exit.time)))),
                Event::Close(close) => closed.push(close),
                Event::Payload(head, bytes) => payloads.push(FirstPayload {
                    key: FlowKey {
                        protocol: head.key.protocol(),
                        local: head.local(),
                        remote: head.key.remote(),
                        namespace: Namespace(head.netns),
                    },
                    direction: if head.outgoing == 1 { FrameDirection::Out } else { FrameDirection::In },
                    attribution: owners.attribution(head.key.owner),
                    timestamp: boot.after(Duration::from_nanos(head.time)),
                    sequence: head.sequence,
                    bytes: bytes.to_vec(),
                }),
            }
        }
    }

    /// Live, connected sockets: the iterator takes what each has counted.
    fn read_sockets(&mut self, counted: &mut Vec<(Key, Value)>) -> io::Result<()> {
        let mut file = sys::open_iterator(self.programs.iterator.as_fd())?;
        let mut buffer = std::mem::take(&mut self.buffers.iterator);
        let mut filled = 0;
        loop {
            let read = match file.read(buffer.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.buffers.iterator = buffer;
                    return Err(error);
                }
            };
            filled += read;
            let mut at = 0;
            while let Some(flow) = buffer.get(at..filled).and_then(record::read::<record::Flow>) {
                counted.push((flow.key, flow.value));
                at += size_of::<record::Flow>();
            }
            buffer.copy_within(at..filled, 0);
            filled -= at;
        }
        self.buffers.iterator = buffer;
        Ok(())
    }

    /// Everything else: turn the programs to the other map, wait for those in
    /// flight, empty the first. Most of the time there is nothing, and looking
    /// for it in a map costs more than all the rest of a reading.
    fn read_flows(&mut self, counted: &mut Vec<(Key, Value)>) -> io::Result<()> {
        let added = self.programs.statistic(record::FLOWS_ADDED);
        if added == self.flows_added {
            return Ok(());
        }
        let idle = (self.epoch & 1) as usize;
        self.epoch += 1;
        sys::update(self.programs.statistics.as_fd(), &record::EPOCH, &self.epoch)?;
        sys::wait_for_programs();
        let Buffers { mut keys, mut values, iterator } = std::mem::replace(
            &mut self.buffers,
            Buffers { iterator: Vec::new(), keys: Vec::new(), values: Vec::new() },
        );
        let mut place = None;
        let result = loop {
            let Some(map) = self.programs.flows.get(idle) else { break Ok(()) };
            match sys::take_batch(map.as_fd(), place, &mut keys, &mut values) {
                Ok((taken, next)) => {
                    counted.extend(keys.iter().copied().zip(values.iter().copied()).take(taken));
                    match next {
                        Some(next) => place = Some(next),
                        None => break Ok(()),
                    }
                }
                Err(error) => break Err(error),
            }
        };
        self.buffers = Buffers { iterator, keys, values };
        if result.is_ok() {
            self.flows_added = added;
        }
        result
    }

    /// Totals by process, without destination: only there when the map was full.
    fn read_overflow(&mut self, counted: &mut Vec<(Key, Value)>) {
        let overflowed = self.programs.statistic(record::FLOWS_FULL);
        if overflowed == self.overflowed {
            return;
        }
        self.overflowed = overflowed;
        let mut previous: Option<Nowhere> = None;
        while let Some(nowhere) = sys::next_key(self.programs.overflow.as_fd(), previous.as_ref()) {
            let mut total = Count::default();
            if sys::lookup(self.programs.overflow.as_fd(), &nowhere, &mut total).is_ok() {
                let before = self.overflow.insert(nowhere, total).unwrap_or_default();
                let value = Value::nowhere(nowhere, total.since(&before));
                if value.count != Count::default() {
                    counted.push((Key::nowhere(nowhere), value));
                }
            }
            previous = Some(nowhere);
        }
    }

    fn update(&mut self, key: &Key, value: &Value, now: Timestamp) -> FlowUpdate {
        let flow = FlowKey {
            protocol: key.protocol(),
            local: key.local(value),
            remote: key.remote(),
            namespace: Namespace(value.netns),
        };
        FlowUpdate {
            key: flow,
            direction: direction(value.opened, flow.local, flow.remote),
            counters: counters(&value.count),
            attribution: self.owners.attribution(key.owner),
            timestamp: now,
            state: state(flow.protocol, value),
            end_reason: None,
        }
    }

    fn closing_update(&mut self, close: &record::Close, now: Timestamp) -> FlowUpdate {
        let mut update = self.update(&close.flow.key, &close.flow.value, now);
        update.end_reason = Some(FlowEndReason::EndOfFlow);
        let refused = update.key.protocol == Protocol::TCP
            && close.flow.value.opened == record::OPENED_HERE
            && close.tcp_acked == 0
            && close.tcp_received == 0;
        update.state = if refused { FlowState::Failed } else { FlowState::Closed };
        update
    }

    fn losses(&self) -> CaptureLosses {
        CaptureLosses {
            kernel_dropped: self.programs.statistic(record::LOST_PACKETS),
            interface_dropped: 0,
            queue_dropped: self.programs.statistic(record::RING_FULL)
                + self.programs.statistic(record::NAMES_SKIPPED)
                + self.owners.evicted(),
            table_full: self.overflowed,
        }
    }
}

impl Count {
    fn since(&self, before: &Self) -> Self {
        Self {
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
            bytes_in: self.bytes_in.saturating_sub(before.bytes_in),
            packets_out: self.packets_out.saturating_sub(before.packets_out),
            packets_in: self.packets_in.saturating_sub(before.packets_in),
            payload_out: self.payload_out.saturating_sub(before.payload_out),
            payload_in: self.payload_in.saturating_sub(before.payload_in),
        }
    }
}

fn counters(count: &Count) -> Counters {
    Counters {
        bytes_out: Bytes(count.bytes_out),
        bytes_in: Bytes(count.bytes_in),
        payload_out: Bytes(count.payload_out),
        payload_in: Bytes(count.payload_in),
        packets_out: Packets(count.packets_out),
        packets_in: Packets(count.packets_in),
    }
}

fn direction(opened: u8, local: Endpoint, remote: Endpoint) -> Option<Direction> {
    if remote.address == local.address || Scope::of(remote.address) == Scope::Loopback {
        return Some(Direction::Local);
    }
    match opened {
        record::OPENED_HERE => Some(Direction::Outbound),
        record::OPENED_THERE => Some(Direction::Inbound),
        _ => None,
    }
}

fn state(protocol: Protocol, value: &Value) -> FlowState {
    let one_way = value.count.packets_in == 0 || value.count.packets_out == 0;
    match protocol {
        Protocol::TCP if matches!(value.state, TCP_SYN_SENT | TCP_SYN_RECV) => FlowState::New,
        Protocol::TCP => FlowState::Established,
        _ if one_way => FlowState::New,
        _ => FlowState::Established,
    }
}

/// Asks the programs who owns a socket of our own: that is our name in the
/// kernel, and the proof that they see sockets being made.
fn own_execution(programs: &Programs) -> Result<Execution, EbpfError> {
    let failed = |source| EbpfError::Call { what: "see a socket of our own by", source };
    let socket = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let mut info = SocketInfo::default();
    sys::lookup(programs.sockets.as_fd(), &socket.as_raw_fd(), &mut info).map_err(failed)?;
    Ok(info.owner)
}

/// What this thread has used. Waiting for the programs in flight is not work.
fn cpu_time() -> Duration {
    let clock = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(clock.tv_sec.cast_unsigned(), u32::try_from(clock.tv_nsec).unwrap_or(0))
}

/// Time since boot, sleep included, which is how the kernel dates a process.
fn since_boot() -> Duration {
    let clock = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::new(clock.tv_sec.cast_unsigned(), u32::try_from(clock.tv_nsec).unwrap_or(0))
}

const TCP_SYN_SENT: u8 = 2;
const TCP_SYN_RECV: u8 = 3;

/// As much as one read of the iterator may return.
const ITERATOR_BUFFER: usize = 128 * 1024;

/// How many times what a reading takes passes until the next: the rest of the
/// hundredth of a processor is for the waiting.
const READINGS_APART: u32 = 125;

/// Final counters held between two readings; after that they stay in the kernel.
const MAX_CLOSED: usize = 262_144;

/// Flows taken out of the map by one call.
const MAP_BATCH: usize = 4096;
