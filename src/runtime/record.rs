//! Joins captured frames with their owners and writes both.
//!
//! A frame is known at once, its owner a moment later: the kernel source says
//! it at its next reading, a look-up when it has found it. So frames wait, in
//! order and bounded, until their owner can be known.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::attribution::{Attribution, Lookup, Process, comments_of};
use crate::capture::writer::Writer;
use crate::flow::{Direction, FlowKey, LocalAddresses, Namespace};
use crate::packet::{Fragments, Frame, FrameDirection, LinkType, decode};
use crate::time::Timestamp;

/// Frames on their way into a file, and whose flows they belong to.
#[derive(Debug)]
pub struct Recorder<W: Write> {
    writer: Writer<W>,
    local: LocalAddresses,
    namespace: Namespace,
    hold: Duration,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    flows: HashMap<FlowKey, Owners>,
    comments: HashMap<*const Process, (Arc<Process>, Vec<String>)>,
    /// What was found out about owners in containers; the process as its source told it, then with the rest.
    described: HashMap<*const Process, (Arc<Process>, Arc<Process>)>,
    fragments: Fragments,
    counts: RecordCounts,
    swept: Timestamp,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RecordCounts {
    /// Frames.
    pub frames: u64,
    /// Frames whose owner stands beside them.
    pub owned: u64,
    /// Frames that were written before their time because too many waited.
    pub hurried: u64,
}

struct Waiting {
    timestamp: Timestamp,
    link_type: LinkType,
    wire_length: u32,
    interface: u32,
    direction: Option<FrameDirection>,
    bytes: Box<[u8]>,
    key: Option<FlowKey>,
}

/// Who has owned a flow, the time at which the source said so, oldest first.
#[derive(Default)]
struct Owners {
    known: Vec<(Timestamp, Arc<Process>)>,
    last: Timestamp,
}

impl<W: Write> Recorder<W> {
    /// Frames wait for `hold`. `namespace` is the one that is captured in:
    /// the kernel source reports flows of others too.
    pub fn new(writer: Writer<W>, local: LocalAddresses, namespace: Namespace, hold: Duration) -> Self {
        Self {
            writer,
            local,
            namespace,
            hold,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            flows: HashMap::new(),
            comments: HashMap::new(),
            described: HashMap::new(),
            fragments: Fragments::default(),
            counts: RecordCounts::default(),
            swept: Timestamp::EPOCH,
        }
    }

    /// Takes a frame. Returns the question for its owner when its flow is new.
    pub fn take_frame(&mut self, frame: &Frame<'_>) -> Option<Lookup> {
        let oriented = decode(frame, &mut self.fragments).ok().and_then(|packet| {
            let (mut key, way) = self.local.orient(&packet.five_tuple, packet.direction)?;
            key.namespace = self.namespace;
            Some((key, way, packet.tcp_flags))
        });
        let mut lookup = None;
        if let Some((key, way, flags)) = oriented {
            let fresh = !self.flows.contains_key(&key);
            self.flows.entry(key).or_default().last = frame.timestamp;
            if fresh {
                let opener = if flags.is_some_and(|flags| flags.has(0x12)) { reverse(way) } else { way };
                let direction = if opener == FrameDirection::Out { Direction::Outbound } else { Direction::Inbound };
                lookup = Some(Lookup { key, direction, first: frame.timestamp, last: frame.timestamp });
            }
        }
        self.waiting_bytes += frame.bytes.len() + size_of::<Waiting>();
        self.waiting.push_back(Waiting {
            timestamp: frame.timestamp,
            link_type: frame.link_type,
            wire_length: frame.wire_length,
            interface: frame.interface,
            direction: frame.direction.or(oriented.map(|(_, way, _)| way)),
            bytes: frame.bytes.into(),
            key: oriented.map(|(key, ..)| key),
        });
        lookup
    }

    /// Takes an owner that became known at `timestamp`. Returns it the first time if more can be found
    /// out about it: the name and image of its container.
    pub fn take_owner(
        &mut self,
        key: FlowKey,
        attribution: &Attribution,
        timestamp: Timestamp,
    ) -> Option<Arc<Process>> {
        let process = attribution.process()?;
        if key.namespace != self.namespace {
            return None;
        }
        let owners = self.flows.entry(key).or_default();
        owners.last = owners.last.max(timestamp);
        if owners.known.last().is_none_or(|(_, last)| !Arc::ptr_eq(last, process)) {
            owners.known.push((timestamp, Arc::clone(process)));
            if owners.known.len() > MAX_OWNERS {
                owners.known.remove(0);
            }
        } else if let Some((last, _)) = owners.known.last_mut() {
            *last = timestamp;
        }
        if process.container.is_none() || self.described.contains_key(&Arc::as_ptr(process)) {
            return None;
        }
        self.described.insert(Arc::as_ptr(process), (Arc::clone(process), Arc::clone(process)));
        Some(Arc::clone(process))
    }

    /// Takes what was found out about an owner.
    pub fn take_description(&mut self, process: &Arc<Process>, described: &Arc<Process>) {
        if let Some((_, known)) = self.described.get_mut(&Arc::as_ptr(process)) {
            *known = Arc::clone(described);
        }
    }

    /// Writes the frames whose owner is known or will not become known any more.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write_until(&mut self, now: Timestamp, name: impl Fn(u32) -> Option<String>) -> io::Result<()> {
        while let Some(first) = self.waiting.front() {
            let due = first.timestamp.after(self.hold) <= now;
            let crowded = self.waiting_bytes > MAX_WAITING_BYTES;
            if !due && !crowded {
                break;
            }
            self.counts.hurried += u64::from(!due);
            let Some(frame) = self.waiting.pop_front() else { break };
            self.waiting_bytes = self.waiting_bytes.saturating_sub(frame.bytes.len() + size_of::<Waiting>());
            self.write(&frame, &name)?;
        }
        if now.since(self.swept) > FORGET_AFTER {
            self.swept = now;
            self.flows.retain(|_, owners| now.since(owners.last) < FORGET_AFTER);
            self.comments.clear();
            // Owners that no flow has any more are held here alone.
            self.described.retain(|_, (process, _)| Arc::strong_count(process) > 2);
        }
        Ok(())
    }

    /// Writes what waits and ends the file.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self, name: impl Fn(u32) -> Option<String>) -> io::Result<(W, RecordCounts)> {
        while let Some(frame) = self.waiting.pop_front() {
            self.write(&frame, &name)?;
        }
        Ok((self.writer.finish()?, self.counts))
    }

    /// How many bytes the file has.
    pub fn length(&self) -> u64 {
        self.writer.length()
    }

    fn write(&mut self, waiting: &Waiting, name: impl Fn(u32) -> Option<String>) -> io::Result<()> {
        let frame = Frame {
            timestamp: waiting.timestamp,
            link_type: waiting.link_type,
            wire_length: waiting.wire_length,
            interface: waiting.interface,
            direction: waiting.direction,
            bytes: &waiting.bytes,
        };
        let owner = waiting.key.and_then(|key| self.flows.get(&key)).and_then(|owners| owners.at(waiting.timestamp));
        let owner = owner.map(|process| match self.described.get(&Arc::as_ptr(&process)) {
            Some((_, described)) => Arc::clone(described),
            None => process,
        });
        self.counts.frames += 1;
        let comments: &[String] = match owner {
            None => &[],
            Some(process) => {
                self.counts.owned += 1;
                if self.comments.len() > MAX_COMMENTS {
                    self.comments.clear();
                }
                let made = self.comments.entry(Arc::as_ptr(&process));
                &made.or_insert_with(|| (Arc::clone(&process), comments_of(&process))).1
            }
        };
        self.writer.write(&frame, comments, name)
    }
}

impl Owners {
    /// The owner at a moment: the first that was reported after it, else the last.
    fn at(&self, moment: Timestamp) -> Option<Arc<Process>> {
        let after = self.known.iter().find(|(said, _)| *said >= moment);
        after.or(self.known.last()).map(|(_, process)| Arc::clone(process))
    }
}

fn reverse(way: FrameDirection) -> FrameDirection {
    match way {
        FrameDirection::In => FrameDirection::Out,
        FrameDirection::Out => FrameDirection::In,
    }
}

/// Frames that wait hold at most this much; beyond it they are written without their owner.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// Former owners of one flow.
const MAX_OWNERS: usize = 8;

/// Processes whose comments are kept at hand.
const MAX_COMMENTS: usize = 4096;

/// Flows that were quiet for so long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(120);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("timestamp", &self.timestamp).field("key", &self.key).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::attribution::{Evidence, ProcessKey};
    use crate::capture::offline::Reader;

    #[test]
    fn a_frame_waits_for_the_owner_of_its_moment() {
        let mut recorder = recorder();
        let second = Timestamp::from_secs;
        let lookup = recorder.take_frame(&frame(second(10), 1000)).unwrap();
        assert_eq!((lookup.key.local.port, lookup.direction), (1000, Direction::Outbound));
        assert!(recorder.take_frame(&frame(second(12), 1000)).is_none(), "one question a flow");
        recorder.take_frame(&frame(second(12), 2000));
        recorder.write_until(second(11), |_| None).unwrap();
        // The source names the first owner after the first frame, and another after the second.
        recorder.take_owner(lookup.key, &owned(7), second(11));
        recorder.take_owner(lookup.key, &owned(8), second(13));
        // Another namespace has the same addresses.
        recorder.take_owner(FlowKey { namespace: Namespace(2), ..lookup.key }, &owned(9), second(13));
        recorder.write_until(second(20), |_| None).unwrap();
        let (file, counts) = recorder.finish(|_| None).unwrap();
        assert_eq!(counts, RecordCounts { frames: 3, owned: 2, hurried: 0 });
        assert_eq!(owners(file), [Some(7), Some(8), None]);
    }

    #[test]
    fn too_many_frames_do_not_wait() {
        let mut recorder = recorder();
        let large = vec![0_u8; 1 << 20];
        for _ in 0..MAX_WAITING_BYTES / large.len() + 10 {
            recorder.take_frame(&Frame { bytes: &large, ..frame(Timestamp::from_secs(10), 1) });
            recorder.write_until(Timestamp::from_secs(10), |_| None).unwrap();
        }
        assert!(recorder.waiting_bytes <= MAX_WAITING_BYTES);
        assert!(recorder.counts.hurried >= 10);
    }

    fn recorder() -> Recorder<Vec<u8>> {
        let local = LocalAddresses::new(["198.51.100.2/32".parse().unwrap()]);
        Recorder::new(Writer::new(Vec::new(), 65_535).unwrap(), local, Namespace(1), Duration::from_secs(3))
    }

    /// A UDP datagram of no payload from this host.
    fn frame(timestamp: Timestamp, port: u16) -> Frame<'static> {
        let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 2, 203, 0, 113, 7];
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(&[0, 53, 0, 8, 0, 0]);
        let (bytes, wire_length) = (bytes.leak(), 28);
        Frame { timestamp, link_type: LinkType::RAW, wire_length, interface: 0, direction: None, bytes }
    }

    fn owned(pid: u32) -> Attribution {
        let process = Process { key: ProcessKey { pid, start: 1 }, ..Process::default() };
        Attribution::Known { process: Arc::new(process), evidence: Evidence::Kernel }
    }

    fn owners(file: Vec<u8>) -> Vec<Option<u32>> {
        let mut reader = Reader::new(io::Cursor::new(file), Path::new("memory")).unwrap();
        let mut owners = Vec::new();
        while let Some(batch) = reader.next_batch() {
            owners.extend(batch.map(|record| record.owner.map(|owner| owner.key.pid)));
        }
        owners
    }
}
