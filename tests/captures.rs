//! Captures of other programs' test suites, counted as tshark and tcpdump count them.
//!
//! The expected values come with the data; its README says how they were made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret::alert::DocumentKind;
use egret::capture::offline::{OfflineError, Reader, Record};
use egret::engine::{Engine, Output, Settings};
use egret::packet::{Fragments, FrameDirection, Packet, decode};
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::runtime::offline::Offline;
use egret::time::Timestamp;
use indicatif::ProgressBar;
use serde_json::Value;

use crate::support::data;

#[test]
fn totals_are_as_other_tools_count_them() {
    for capture in captures() {
        let counted = Counted::read(&capture.path);
        let totals = capture.expected.get("totals").unwrap();
        let expected: BTreeMap<&str, u64> =
            totals.as_object().unwrap().iter().map(|(name, count)| (name.as_str(), count.as_u64().unwrap())).collect();
        let found = BTreeMap::from([
            ("frames", counted.frames),
            ("frames_without_ip", counted.frames - counted.packets.len() as u64),
            ("ip_packets", counted.packets.len() as u64),
            ("ip_bytes", counted.packets.iter().map(|packet| packet.bytes).sum()),
            ("ipv4_packets", counted.packets.iter().filter(|packet| packet.source.is_ipv4()).count() as u64),
            ("ipv6_packets", counted.packets.iter().filter(|packet| packet.source.is_ipv6()).count() as u64),
        ]);
        assert_eq!(found, expected, "{}", capture.name);
    }
}

#[test]
fn pairs_triples_and_flows_are_as_other_tools_count_them() {
    for capture in captures() {
        let packets = Counted::read(&capture.path).packets;
        let compared = |what: &str| strings(capture.expected.get("compare").unwrap()).contains(what);
        let group = |key: fn(&CountedPacket) -> Vec<String>| {
            let mut groups = BTreeMap::<Vec<String>, (u64, u64)>::new();
            for packet in &packets {
                let sums = groups.entry(key(packet)).or_default();
                *sums = (sums.0 + 1, sums.1 + packet.bytes);
            }
            groups
        };
        assert!(compared("pairs") && compared("triples"), "{}", capture.name);
        assert_eq!(group(CountedPacket::pair), sums(&capture.expected, "pairs"), "{}", capture.name);
        assert_eq!(group(CountedPacket::triple), sums(&capture.expected, "triples"), "{}", capture.name);
        if compared("flows") {
            // Egret tracks fragments; where none are tracked the two lists are one.
            let tracked = match capture.expected.get("flows_with_fragments_tracked") {
                Some(_) => "flows_with_fragments_tracked",
                None => "flows",
            };
            assert_eq!(group(CountedPacket::flow), sums(&capture.expected, tracked), "{}", capture.name);
        }
    }
}

#[test]
fn time_stamps_are_exact() {
    for capture in captures() {
        let counted = Counted::read(&capture.path);
        let expected = |key: &str| nanos(capture.expected.get(key).unwrap().as_str().unwrap());
        assert_eq!(counted.first.unwrap_or_default().as_nanos(), expected("first_ts"), "{}", capture.name);
        assert_eq!(counted.last.unwrap_or_default().as_nanos(), expected("last_ts"), "{}", capture.name);
    }
}

#[test]
fn interfaces_are_told_apart() {
    let mut seen = 0;
    for capture in captures() {
        let Some(expected) = capture.expected.get("interfaces") else { continue };
        // An exception: tshark names the interfaces of a second section after those of the first.
        if capture.name.starts_with("captures/pcapng-sections/") {
            continue;
        }
        let mut reader = Reader::open(&capture.path).unwrap();
        let mut frames = BTreeMap::<u32, u64>::new();
        while let Some(batch) = reader.next_batch() {
            for record in batch {
                *frames.entry(record.frame.interface).or_default() += 1;
            }
        }
        // Sections count their interfaces from 0; the reader gives each a number of its own.
        let mut by_name = BTreeMap::<String, u64>::new();
        for (index, count) in frames {
            let interface = &reader.interfaces()[index as usize];
            *by_name.entry(interface.name.clone().unwrap_or_default()).or_default() += count;
        }
        let expected: BTreeMap<String, u64> = expected
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, count)| (key.split_once(':').unwrap().1.to_owned(), count.as_u64().unwrap()))
            .collect();
        assert_eq!(by_name, expected, "{}", capture.name);
        seen += 1;
    }
    assert!(seen >= 3 || data::path("captures").is_none());
}

#[test]
fn a_rule_can_name_an_interface_of_the_capture() {
    let Some(capture) = data::path("captures/pcapng-interfaces/pcapng-multi-interface.pcapng") else { return };
    let fired = |interface: &str| {
        let rules = format!(
            "version: 1\nrules:\n  - {{id: seen, title: An interface with traffic, severity: low, match: {{iface: {interface}}}, \
             group_by: [src.ip], window: 60s, when: {{bytes_out: {{gt: 0}}}}}}"
        );
        let rules = compile(vec![Source::new("rules.yaml", &*rules)], &Options::default()).into_result().unwrap();
        let mut offline = Offline::new(Engine::new(Settings::default(), Arc::new(rules)), None);
        let mut fired = 0;
        let mut count = |output| -> Result<(), OfflineError> {
            fired += u64::from(matches!(output, Output::Notification(told) if told.kind == DocumentKind::Firing));
            Ok(())
        };
        offline.read(&capture, &ProgressBar::hidden(), &mut count).unwrap();
        offline.finish(&mut count).unwrap();
        fired
    };
    assert!(fired("eth0") > 0);
    assert_eq!(fired("eth1"), 0);
}

#[test]
fn processes_and_directions_are_read_from_comments() {
    let mut seen = 0;
    for capture in captures() {
        let Some(expected) = capture.expected.get("process") else { continue };
        seen += 1;
        let mut found = BTreeMap::<[String; 6], (u64, u64)>::new();
        let text = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
        each_packet(&capture.path, |record, packet| {
            let owner = record.owner.as_deref();
            let key = [
                text(owner.map(|owner| owner.key.pid.to_string())),
                text(owner.and_then(|owner| owner.executable_path()).map(|path| format!("{}", path.escape_ascii()))),
                text(owner.map(|owner| owner.command_line_text().to_string())),
                text(owner.and_then(|owner| owner.user.as_ref()?.uid).map(|uid| uid.to_string())),
                text(owner.and_then(|owner| owner.ancestors.first()).map(|parent| parent.pid.to_string())),
                match packet.direction {
                    Some(FrameDirection::In) => "in".to_owned(),
                    Some(FrameDirection::Out) => "out".to_owned(),
                    None => "null".to_owned(),
                },
            ];
            let sums = found.entry(key).or_default();
            *sums = (sums.0 + 1, sums.1 + packet.bytes.0);
        });
        let expected: BTreeMap<[String; 6], (u64, u64)> = expected
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let text = |key: &str| match entry.get(key) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Number(number)) => number.to_string(),
                    _ => "null".to_owned(),
                };
                let key = ["pid", "cmd", "args", "uid", "ppid", "direction"].map(text);
                (key, (entry["packets"].as_u64().unwrap(), entry["ip_bytes"].as_u64().unwrap()))
            })
            .collect();
        assert_eq!(found, expected, "{}", capture.name);
    }
    assert!(seen >= 2 || data::path("captures").is_none());
}

#[test]
fn damage_is_told_and_only_where_there_is_some() {
    for capture in captures() {
        let mut reader = Reader::open(&capture.path).unwrap();
        while let Some(batch) = reader.next_batch() {
            batch.for_each(drop);
        }
        let warned = reader.damage().is_some();
        let must_warn = capture.expected.get("reader_must_warn").is_some();
        assert_eq!(warned, must_warn, "{}: {:?}", capture.name, reader.damage());
        if let Some(damage) = reader.damage() {
            let frames = capture.expected["totals"]["frames"].as_u64().unwrap();
            assert!(damage.to_string().contains(&format!("the {frames} frames before it count")), "{damage}");
        }
    }
}

#[test]
fn hostile_captures_do_no_harm() {
    let Some(expected) = expected("expected/hostile.json") else { return };
    let mut wrong = Vec::new();
    for (name, expected) in &expected {
        let path = data::path(name).unwrap();
        let started = Instant::now();
        let frames = match Reader::open(&path) {
            Ok(mut reader) => {
                let mut fragments = Fragments::default();
                while let Some(batch) = reader.next_batch() {
                    for record in batch {
                        // Whether it is a packet does not matter here, only that the question has an end.
                        std::hint::black_box(decode(&record.frame, &mut fragments).is_ok());
                    }
                }
                Ok(reader.frames())
            }
            Err(error) => Err(error),
        };
        assert!(started.elapsed() < Duration::from_secs(10), "{name} took {:?}", started.elapsed());
        let may_refuse = expected.get("reader_may_refuse").is_some();
        match (frames, expected.get("frames").and_then(Value::as_u64)) {
            (Ok(found), Some(expected)) if found != expected => {
                wrong.push(format!("{name}: {found} frames, {expected} expected"));
            }
            (Err(error), Some(_)) if !may_refuse => wrong.push(format!("{name}: refused: {error}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_capture_is_the_same_in_pieces_of_any_size() {
    for capture in captures() {
        let whole = Counted::read(&capture.path);
        let mut reader =
            Reader::new(Pieces { bytes: std::fs::read(&capture.path).unwrap(), at: 0 }, &capture.path).unwrap();
        let mut frames = 0;
        while let Some(batch) = reader.next_batch() {
            frames += batch.count() as u64;
        }
        assert_eq!(frames, whole.frames, "{}", capture.name);
    }
}

/// A capture of the data with what is expected of it.
struct Capture {
    name: String,
    path: PathBuf,
    expected: Value,
}

fn captures() -> Vec<Capture> {
    let Some(expected) = expected("expected/captures.json") else { return Vec::new() };
    expected.into_iter().map(|(name, expected)| Capture { path: data::path(&name).unwrap(), name, expected }).collect()
}

fn expected(name: &str) -> Option<BTreeMap<String, Value>> {
    Some(serde_json::from_slice(&std::fs::read(data::path(name)?).unwrap()).unwrap())
}

/// A capture as a list of packets.
#[derive(Default)]
struct Counted {
    frames: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    packets: Vec<CountedPacket>,
}

/// One packet, as far as it is compared.
struct CountedPacket {
    protocol: u8,
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    destination_port: u16,
    bytes: u64,
}

impl Counted {
    fn read(path: &Path) -> Self {
        let mut counted = Self::default();
        let mut reader = Reader::open(path).unwrap();
        let mut fragments = Fragments::default();
        while let Some(batch) = reader.next_batch() {
            for record in batch {
                let moment = record.frame.timestamp;
                if moment != Timestamp::EPOCH {
                    counted.first = counted.first.or(Some(moment));
                    counted.last = Some(moment);
                }
                if let Ok(packet) = decode(&record.frame, &mut fragments) {
                    counted.packets.push(CountedPacket {
                        protocol: packet.five_tuple.protocol.0,
                        source: packet.five_tuple.source.address.ip(),
                        source_port: packet.five_tuple.source.port,
                        destination: packet.five_tuple.destination.address.ip(),
                        destination_port: packet.five_tuple.destination.port,
                        bytes: packet.bytes.0,
                    });
                }
            }
        }
        counted.frames = reader.frames();
        counted
    }
}

impl CountedPacket {
    fn pair(&self) -> Vec<String> {
        vec![self.source.to_string(), self.destination.to_string()]
    }

    fn triple(&self) -> Vec<String> {
        [vec![self.protocol.to_string()], self.pair()].concat()
    }

    fn flow(&self) -> Vec<String> {
        let (source, destination) = (self.source.to_string(), self.destination.to_string());
        let ports = [self.source_port.to_string(), self.destination_port.to_string()];
        let [source_port, destination_port] = ports;
        vec![self.protocol.to_string(), source, source_port, destination, destination_port]
    }
}

fn each_packet(path: &Path, mut visit: impl FnMut(&Record<'_>, &Packet<'_>)) {
    let mut reader = Reader::open(path).unwrap();
    let mut fragments = Fragments::default();
    while let Some(batch) = reader.next_batch() {
        for record in batch {
            if let Ok(packet) = decode(&record.frame, &mut fragments) {
                visit(&record, &packet);
            }
        }
    }
}

/// Rows of `[key..., packets, bytes]`, with addresses in Rust's own spelling.
fn sums(expected: &Value, what: &str) -> BTreeMap<Vec<String>, (u64, u64)> {
    let rows = expected.get(what).unwrap().as_array().unwrap();
    let mut sums = BTreeMap::new();
    for row in rows {
        let (key, [packets, bytes]) = row.as_array().unwrap().split_last_chunk::<2>().unwrap();
        let key = key
            .iter()
            .map(|part| match part {
                Value::String(text) => text.parse::<IpAddr>().unwrap().to_canonical().to_string(),
                number => number.to_string(),
            })
            .collect();
        sums.insert(key, (packets.as_u64().unwrap(), bytes.as_u64().unwrap()));
    }
    sums
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// `1734746437.400239166` as nanoseconds.
fn nanos(text: &str) -> i64 {
    let (seconds, fraction) = text.split_once('.').unwrap();
    seconds.parse::<i64>().unwrap() * 1_000_000_000 + fraction.parse::<i64>().unwrap()
}

/// A reader that gives 1, 2, 3 ... bytes at a time and then begins anew.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
}

impl std::io::Read for Pieces {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let length = (self.at % 97 + 1).min(room.len()).min(self.bytes.len() - self.at);
        room[..length].copy_from_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
