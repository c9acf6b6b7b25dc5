//! The packets of alerts: headers of the last seconds are held, and those of
//! an alert's group are written to a file that the alert names.
//!
//! Held only while a rule asks for it, in a ring of bounded size: at a high
//! rate it reaches less far back than the rule asks. Files are bounded in size
//! and number; the oldest give way.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::warn;

use crate::alert::{Alert, Notification, PacketFile, PacketsWanted, Redactor};
use crate::attribution::{Process, comments_of};
use crate::capture::writer::Writer;
use crate::flow::FlowKey;
use crate::packet::{FiveTuple, Frame, FrameDirection, LinkType, Packet};
use crate::time::Timestamp;

/// Where files go, and how much.
#[derive(Debug, Clone)]
pub struct PacketSettings {
    /// The folder.
    pub directory: PathBuf,
    /// The most that one file has.
    pub max_bytes: u64,
    /// The most files that are kept.
    pub max_files: usize,
    /// Covers secrets in the command lines beside the packets, as in alerts; `None` where nothing is to be covered.
    pub redactor: Option<Redactor>,
}

/// Holds packets, and writes those of alerts on a thread of its own.
#[derive(Debug)]
pub struct Packets {
    ring: Ring,
    jobs: Option<Sender<Job>>,
    written: Receiver<Notification>,
    thread: Option<JoinHandle<()>>,
    /// Notifications on their way through the thread, by alert: what follows must not overtake them.
    outstanding: HashMap<Arc<str>, usize>,
}

/// The headers of the last packets.
#[derive(Debug, Default)]
pub struct Ring {
    held: VecDeque<Arc<Held>>,
    bytes: usize,
    /// How far back; none while nobody asks.
    span: Option<Duration>,
}

/// One packet.
#[derive(Debug)]
struct Held {
    timestamp: Timestamp,
    link_type: LinkType,
    wire_length: u32,
    interface: u32,
    direction: Option<FrameDirection>,
    tuple: FiveTuple,
    bytes: Box<[u8]>,
}

struct Job {
    notification: Notification,
    packets: Vec<Arc<Held>>,
}

impl Packets {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// Where the system gives none.
    pub fn start(settings: PacketSettings) -> io::Result<Self> {
        let (jobs, waiting) = bounded::<Job>(MAX_WAITING);
        let (sender, written) = bounded(MAX_WAITING);
        let thread = std::thread::Builder::new().name("egret-evidence".into()).spawn(move || {
            for Job { notification, packets } in waiting {
                if sender.send(with_file(notification, &packets, &settings)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { ring: Ring::default(), jobs: Some(jobs), written, thread: Some(thread), outstanding: HashMap::new() })
    }

    /// The ring, to put packets in.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// Where notifications come back.
    pub fn written(&self) -> Receiver<Notification> {
        self.written.clone()
    }

    /// Takes a notification whose alert wants packets, or that must not
    /// overtake one; gives back every other. `now` is the wall clock.
    pub fn take(&mut self, notification: Notification, now: Timestamp) -> Option<Notification> {
        let Some(alert) = &notification.alert else { return Some(notification) };
        let key = Arc::clone(&alert.state.key);
        if alert.packets_wanted.is_none() && !self.outstanding.contains_key(&key) {
            return Some(notification);
        }
        let wanted = alert.packets_wanted.as_deref();
        let packets = wanted.map(|wanted| self.ring.of(wanted, now)).unwrap_or_default();
        let Some(jobs) = &self.jobs else { return Some(notification) };
        match jobs.try_send(Job { notification, packets }) {
            Ok(()) => {
                *self.outstanding.entry(key).or_default() += 1;
                None
            }
            Err(error) => {
                warn!("too many alerts at once: one goes without its packets");
                Some(error.into_inner().notification)
            }
        }
    }

    /// Takes note that a notification came back.
    pub fn came_back(&mut self, notification: &Notification) {
        if let Some(count) = self.outstanding.get_mut(notification.key()) {
            *count -= 1;
            if *count == 0 {
                self.outstanding.remove(notification.key());
            }
        }
    }

    /// The notifications that are still on their way, waited for.
    pub fn finish(&mut self) -> Vec<Notification> {
        self.jobs = None;
        let until = Instant::now() + LAST_FILES;
        std::iter::from_fn(|| self.written.recv_deadline(until).ok()).collect()
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.jobs = None;
        self.written = crossbeam_channel::never();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread that writes packets of alerts panicked");
        }
    }
}

impl Ring {
    /// Holds packets for so long, or none.
    pub fn hold(&mut self, span: Option<Duration>) {
        self.span = span;
        if span.is_none() {
            self.held = VecDeque::new();
            self.bytes = 0;
        }
    }

    /// Puts a packet in.
    pub fn take(&mut self, frame: &Frame<'_>, packet: &Packet<'_>) {
        let Some(span) = self.span else { return };
        let bytes = frame.bytes.get(..HEADERS).unwrap_or(frame.bytes);
        self.bytes += bytes.len() + OVERHEAD;
        self.held.push_back(Arc::new(Held {
            timestamp: frame.timestamp,
            link_type: frame.link_type,
            wire_length: frame.wire_length,
            interface: frame.interface,
            direction: packet.direction,
            tuple: packet.five_tuple,
            bytes: bytes.into(),
        }));
        while self
            .held
            .front()
            .is_some_and(|first| self.bytes > MAX_HELD || frame.timestamp.since(first.timestamp) > span)
        {
            if let Some(first) = self.held.pop_front() {
                self.bytes = self.bytes.saturating_sub(first.bytes.len() + OVERHEAD);
            }
        }
    }

    fn of(&self, wanted: &PacketsWanted, now: Timestamp) -> Vec<Arc<Held>> {
        let since = now.before(wanted.span);
        let flows: HashSet<FlowKey> = wanted.flows.iter().map(|(key, _)| of_pair(*key)).collect();
        let belongs = |held: &&Arc<Held>| {
            held.timestamp >= since && flows.contains(&of_pair(FlowKey::of(&held.tuple, FrameDirection::Out)))
        };
        self.held.iter().filter(belongs).map(Arc::clone).collect()
    }
}

/// The same for both ends of a flow and in every namespace.
fn of_pair(key: FlowKey) -> FlowKey {
    let key = FlowKey { namespace: crate::flow::Namespace::default(), ..key };
    if key.local <= key.remote { key } else { key.reversed() }
}

/// The notification, naming the file in which its packets are.
fn with_file(mut notification: Notification, packets: &[Arc<Held>], settings: &PacketSettings) -> Notification {
    let Some(alert) = &notification.alert else { return notification };
    let Some(wanted) = &alert.packets_wanted else { return notification };
    match write(alert, wanted, packets, settings) {
        Ok(file) => {
            let alert = Alert { packets: Some(Arc::new(file)), packets_wanted: None, ..Alert::clone(alert) };
            notification.alert = Some(Arc::new(alert));
        }
        Err(error) => {
            let directory = settings.directory.display();
            warn!(%error, %directory, "the packets of an alert cannot be written");
        }
    }
    notification
}

fn write(
    alert: &Alert,
    wanted: &PacketsWanted,
    packets: &[Arc<Held>],
    settings: &PacketSettings,
) -> io::Result<PacketFile> {
    let comments = |owner: &Process| match &settings.redactor {
        Some(redactor) => comments_of(&redactor.process(owner)),
        None => comments_of(owner),
    };
    let owners: HashMap<FlowKey, Vec<String>> =
        wanted.flows.iter().filter_map(|(key, owner)| Some((of_pair(*key), comments(owner.as_deref()?)))).collect();
    let chosen = latest(packets, &owners, settings.max_bytes);
    let mut writer = Writer::new(Vec::new(), HEADERS as u32)?;
    for held in chosen {
        let comments = owners.get(&of_pair(FlowKey::of(&held.tuple, FrameDirection::Out)));
        let frame = Frame {
            timestamp: held.timestamp,
            link_type: held.link_type,
            wire_length: held.wire_length,
            interface: held.interface,
            direction: held.direction,
            bytes: &held.bytes,
        };
        writer.write(&frame, comments.map(Vec::as_slice).unwrap_or_default(), interface_name)?;
    }
    let content = writer.finish()?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.directory)?;
    make_room(&settings.directory, settings.max_files)?;
    // Both parts are names of ours; the first grows with time.
    let path = settings.directory.join(format!("{}-{}.pcapng", alert.state.uid, alert.rule.metadata.id));
    let unfinished = path.with_extension("part");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    io::Write::write_all(&mut file, &content)?;
    fs::rename(&unfinished, &path)?;
    Ok(PacketFile {
        path: path.display().to_string(),
        sha256: hash_of(&content),
        bytes: content.len() as u64,
        packets: chosen.len() as u64,
        left_out: (packets.len() - chosen.len()) as u64,
        first: chosen.first().map(|held| held.timestamp),
        last: chosen.last().map(|held| held.timestamp),
    })
}

/// As many of the latest packets as a file may hold.
fn latest<'a>(packets: &'a [Arc<Held>], owners: &HashMap<FlowKey, Vec<String>>, max_bytes: u64) -> &'a [Arc<Held>] {
    // A block has 44 bytes beside the packet, each comment up to 7 beside its text.
    let longest: usize = owners.values().map(|all| all.iter().map(|one| one.len() + 7).sum()).max().unwrap_or(0);
    let mut left = max_bytes.saturating_sub(FILE_HEADERS);
    let room = packets.iter().rev().take_while(|held| {
        let length = (held.bytes.len() + longest + 48) as u64;
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    });
    let kept = room.count();
    packets.get(packets.len() - kept..).unwrap_or_default()
}

fn make_room(directory: &Path, max_files: usize) -> io::Result<()> {
    let entries = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "pcapng")).collect();
    files.sort_unstable();
    let surplus = (files.len() + 1).saturating_sub(max_files.max(1));
    files.iter().take(surplus).try_for_each(fs::remove_file)
}

fn hash_of(content: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, content);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn interface_name(number: u32) -> Option<String> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    rustix::net::netdevice::index_to_name_inlined(&socket, number).ok().map(|name| name.as_str().to_owned())
}

/// Bytes kept of each packet: link, network and transport header with their options.
const HEADERS: usize = 160;

/// What the ring holds at most, and what a packet in it costs beside its bytes.
const MAX_HELD: usize = 64 << 20;
const OVERHEAD: usize = size_of::<Held>() + 32;

/// Section and interface headers of a file.
const FILE_HEADERS: u64 = 1_024;

/// Notifications that may wait for their files.
const MAX_WAITING: usize = 64;

/// How long the last files may take.
const LAST_FILES: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{AlertState, DocumentKind, RuleFacts};
    use crate::attribution::ProcessKey;
    use crate::capture::offline::Reader;
    use crate::packet::{Fragments, decode};
    use crate::rule::Metadata;

    #[test]
    fn an_alert_gets_the_packets_of_its_flows_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut packets = started(directory.path(), 1 << 20, 10);
        fill(&mut packets, 10, 30);
        let notification = packets.take(wanting("01A", 1_000, 20), at(30));
        assert!(notification.is_none(), "it waits for its file");
        let resolved = Notification::of_alert(DocumentKind::Resolved, at(31), alert("01A", None));
        assert!(packets.take(resolved, at(31)).is_none(), "and is not overtaken");
        let other = Notification::of_alert(DocumentKind::Firing, at(31), alert("other", None));
        assert!(packets.take(other, at(31)).is_some());

        let told: Vec<Notification> =
            (0..2).map(|_| packets.written().recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        assert_eq!([told[0].kind, told[1].kind], [DocumentKind::Firing, DocumentKind::Resolved]);
        told.iter().for_each(|told| packets.came_back(told));
        assert!(packets.outstanding.is_empty());
        let file = told[0].alert.as_ref().unwrap().packets.clone().unwrap();
        assert_eq!((file.packets, file.left_out), (20, 0));
        let content = fs::read(&file.path).unwrap();
        assert_eq!((file.bytes, &file.sha256), (content.len() as u64, &hash_of(&content)));
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!bstr::ByteSlice::contains_str(&content[..], "hunter2"), "secrets are covered as in the alert");
        assert!(bstr::ByteSlice::contains_str(&content[..], "Args: nc --password ***"));
        let (ports, owners) = read(&file.path);
        assert_eq!((ports, owners), (vec![1_000; 20], vec![Some(7); 20]));
    }

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let mut packets = started(directory.path(), 2_000, 3);
        for number in 0..6 {
            fill(&mut packets, 10, 30);
            assert!(packets.take(wanting(&format!("01{number}"), 1_000, 20), at(30)).is_none());
            let told = packets.written().recv_timeout(Duration::from_secs(10)).unwrap();
            packets.came_back(&told);
            let file = told.alert.as_ref().unwrap().packets.clone().unwrap();
            assert!(file.bytes <= 2_000 && file.left_out > 0, "{file:?}");
            assert_eq!(file.last, Some(at(30)), "the latest are kept");
        }
        let mut names: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["013-upload.pcapng", "014-upload.pcapng", "015-upload.pcapng"]);
    }

    #[test]
    fn the_ring_holds_no_more_than_it_may() {
        let mut ring = Ring::default();
        let (frame, packet) = (frame(1, 1_000), packet(1_000));
        ring.take(&frame, &packet);
        assert!(ring.held.is_empty(), "nobody asked");
        ring.hold(Some(Duration::from_secs(3_600)));
        for _ in 0..MAX_HELD / (frame.bytes.len() + OVERHEAD) + 100 {
            ring.take(&frame, &packet);
        }
        assert!(ring.bytes <= MAX_HELD);
        ring.hold(None);
        assert!(ring.held.is_empty());
    }

    use std::os::unix::fs::PermissionsExt;

    fn owner(pid: u32) -> Arc<Process> {
        let command_line = ["nc", "--password", "hunter2"].map(Into::into).to_vec();
        Arc::new(Process { key: ProcessKey { pid, start: 1 }, command_line, ..Process::default() })
    }

    fn started(directory: &Path, max_bytes: u64, max_files: usize) -> Packets {
        let redactor = Some(Redactor::new(&[]).unwrap());
        Packets::start(PacketSettings { directory: directory.to_owned(), max_bytes, max_files, redactor }).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + second)
    }

    /// One packet a second on each of two flows.
    fn fill(packets: &mut Packets, from: i64, to: i64) {
        packets.ring().hold(Some(Duration::from_secs(60)));
        for second in from + 1..=to {
            for port in [1_000, 2_000] {
                packets.ring().take(&frame(second, port), &packet(port));
            }
        }
    }

    fn wanting(uid: &str, port: u16, seconds: u64) -> Notification {
        let key = FlowKey::of(&packet(port).five_tuple, FrameDirection::Out);
        let wanted = PacketsWanted { flows: vec![(key, Some(owner(7)))], span: Duration::from_secs(seconds) };
        Notification::of_alert(DocumentKind::Firing, at(30), alert(uid, Some(Arc::new(wanted))))
    }

    fn alert(uid: &str, packets_wanted: Option<Arc<PacketsWanted>>) -> Alert {
        let metadata = Metadata { id: "upload".into(), ..Metadata::default() };
        Alert {
            state: AlertState { uid: uid.into(), key: uid.into(), ..AlertState::default() },
            rule: RuleFacts { metadata: Arc::new(metadata), ..RuleFacts::default() },
            packets_wanted,
            ..Alert::default()
        }
    }

    /// A UDP datagram of no payload.
    fn bytes(port: u16) -> &'static [u8] {
        let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 2, 203, 0, 113, 7];
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(&[0, 53, 0, 8, 0, 0]);
        bytes.leak()
    }

    fn frame(second: i64, port: u16) -> Frame<'static> {
        let bytes = bytes(port);
        Frame { timestamp: at(second), link_type: LinkType::RAW, wire_length: 28, interface: 0, direction: None, bytes }
    }

    fn packet(port: u16) -> Packet<'static> {
        decode(&frame(0, port), &mut Fragments::default()).unwrap()
    }

    fn read(path: &str) -> (Vec<u16>, Vec<Option<u32>>) {
        let mut reader = Reader::open(Path::new(path)).unwrap();
        let (mut ports, mut owners) = (Vec::new(), Vec::new());
        while let Some(batch) = reader.next_batch() {
            for record in batch {
                let packet = decode(&record.frame, &mut Fragments::default()).unwrap();
                ports.push(packet.five_tuple.source.port);
                owners.push(record.owner.map(|owner| owner.key.pid));
            }
        }
        (ports, owners)
    }
}
