//! How much of the processor a replay costs, as ratios in the same run: to
//! tcpdump on the same file, of many rules to few, of large lists to small ones.
//! And what a million flows hold in memory.
//!
//! The file: 10 million packets (`EGRET_BENCH_PACKETS`) of 100,000 flows, cut
//! at 128 bytes. Each contender is a process of its own; its user and system
//! time is what the kernel says, the median of several rounds, so a loaded
//! machine disturbs the ratios little. What reading the rules and lists costs
//! is measured on an empty capture beside each round, and told apart.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::BuildHasherDefault;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use egret::capture::offline::Reader;
use egret::engine::{Engine, Settings};
use egret::packet::{Address, Endpoint, FiveTuple, Fragment, Fragments, FrameDirection, Packet, Protocol, decode};
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::time::Timestamp;
use egret::units::Bytes;
use procfs::process::Process;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [command, file] if command == "generate" => {
            write_capture(Path::new(file), packets()).expect("room for the capture")
        }
        [contender, file] => println!("{}", contend(contender, Path::new(file))),
        _ => compare(),
    }
}

/// Runs every contender in turn, several times, and prints the medians.
fn compare() {
    let packets = packets();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("generated.pcap");
    let empty = directory.path().join("empty.pcap");
    write_capture(&file, packets).expect("room for the capture");
    write_capture(&empty, 0).expect("room for the capture");
    println!("{packets} packets of {FLOWS} flows, {} MB", file.metadata().expect("its size").len() / 1_000_000);

    let mut contenders: Vec<Contender> = [Work::Tcpdump, Work::Own("floor"), Work::Own("read"), Work::Own("decode")]
        .into_iter()
        .chain(
            [10, 100, 10_000].map(|rules| Work::Replay(format!("{rules} rules"), write_rules(directory.path(), rules))),
        )
        .chain([10, 1_000_000].map(|size| Work::Replay(format!("{size} CIDRs"), write_lists(directory.path(), size))))
        .map(|work| Contender { work, loading: Vec::new(), times: Vec::new() })
        .collect();
    for _ in 0..ROUNDS {
        for contender in &mut contenders {
            contender.loading.push(processor_time(&contender.work, &empty));
            contender.times.push(processor_time(&contender.work, &file));
        }
    }
    let nanos: HashMap<String, f64> =
        contenders.iter().map(|contender| (contender.work.name(), contender.nanos(packets))).collect();
    let tcpdump = nanos["tcpdump"];
    for contender in &contenders {
        let (name, own) = (contender.work.name(), nanos[&contender.work.name()]);
        println!(
            "{name:<14} {own:>7.1} ns a packet   {:>5.2} of tcpdump   {:>7.1} ms to load",
            own / tcpdump,
            median(contender.loading.clone()) * 1e3
        );
    }
    for (what, large, small, limit) in [
        ("100 rules of tcpdump", "100 rules", "tcpdump", 1.0),
        ("10,000 rules of 10", "10000 rules", "10 rules", 1.2),
        ("1,000,000 CIDRs of 10", "1000000 CIDRs", "10 CIDRs", 2.0),
    ] {
        println!("{what:<24} {:>5.2}   at most {limit}", nanos[large] / nanos[small]);
    }
    hold_a_million_flows();
}

/// What is measured, and how long it took each time.
struct Contender {
    work: Work,
    /// Seconds before the first packet, of each round.
    loading: Vec<f64>,
    /// Seconds in all.
    times: Vec<f64>,
}

enum Work {
    Tcpdump,
    /// A part of the way, in a process of this program.
    Own(&'static str),
    /// `egret replay` with a name and these rules.
    Replay(String, PathBuf),
}

impl Work {
    fn name(&self) -> String {
        match self {
            Self::Tcpdump => "tcpdump".to_owned(),
            Self::Own(name) => (*name).to_owned(),
            Self::Replay(name, _) => name.clone(),
        }
    }

    fn command(&self, file: &Path) -> Command {
        match self {
            Self::Tcpdump => {
                let mut command = Command::new("tcpdump");
                command.arg("-r").arg(file).args(["-w", "/dev/null"]);
                command
            }
            Self::Own(name) => {
                let mut command = Command::new(std::env::current_exe().expect("this program's path"));
                command.arg(name).arg(file);
                command
            }
            Self::Replay(_, rules) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
                command.arg("replay").arg(file).arg("--rules").arg(rules);
                command
            }
        }
    }
}

impl Contender {
    /// Of one packet, without what came before the first: the median of the rounds. Loading and replay of one round are
    /// taken together, since the machine's speed changes from one to the next.
    fn nanos(&self, packets: u64) -> f64 {
        let replays = self.times.iter().zip(&self.loading).map(|(time, loading)| (time - loading).max(0.0));
        median(replays.collect()) * 1e9 / packets as f64
    }
}

/// A rule that sees all of the traffic, nine that see one server of 250 each, and others that each wait for a program,
/// an address, a port or a name that does not come.
fn write_rules(directory: &Path, count: usize) -> PathBuf {
    let path = directory.join(format!("{count}-rules.yaml"));
    let mut text = String::from("version: 1\nrules:\n");
    for number in 0..count {
        let (condition, group) = match number {
            0 => ("direction: outbound".to_owned(), "exe"),
            1..10 => (format!("dst.ip: 203.0.113.{number}"), "exe"),
            _ => match number % 4 {
                0 => (format!("exe: /opt/program-{number}/bin/run"), "cmdline"),
                1 => (format!("dst.ip: 198.18.{}.{}", number / 250, number % 250), "exe"),
                2 => (format!("dst.port: {}", 1_024 + number), "exe"),
                _ => (format!("dst.domain: host-{number}.example.org"), "exe"),
            },
        };
        writeln!(
            text,
            "  - {{id: rule-{number}, title: A bench rule, severity: low, match: {{{condition}}}, group_by: [{group}], \
             window: 60s, when: {{bytes_out: {{gte: 100TB}}}}}}"
        )
        .expect("a string takes everything");
    }
    std::fs::write(&path, text).expect("room for the rules");
    path
}

/// Ten rules, each with a list; together the lists have so many CIDRs. Every fourth server is in one.
fn write_lists(directory: &Path, size: u32) -> PathBuf {
    let folder = directory.join(format!("{size}-cidrs"));
    std::fs::create_dir_all(&folder).expect("room for the rules");
    let mut text = String::from("version: 1\nlists:\n");
    let mut rules = String::from("rules:\n");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for list in 0..10 {
        let mut networks = format!("203.0.113.{}/32\n", list * 4);
        for _ in 1..(size / 10).max(1) {
            // Not the servers' own networks.
            let address = (random.next() as u32 & 0x3fff_ff00) | 0x4000_0000;
            writeln!(networks, "{}/24", std::net::Ipv4Addr::from(address)).expect("a string takes everything");
        }
        std::fs::write(folder.join(format!("{list}.txt")), networks).expect("room for the lists");
        writeln!(text, "  list_{list}: {{type: cidr, file: {list}.txt, max_items: 1000000}}")
            .expect("a string takes everything");
        writeln!(
            rules,
            "  - {{id: rule-{list}, title: A bench rule, severity: low, match: {{dst.ip: $list_{list}}}, \
             group_by: [src.ip], window: 60s, when: {{bytes_out: {{gte: 100TB}}}}}}"
        )
        .expect("a string takes everything");
    }
    let path = folder.join("rules.yaml");
    std::fs::write(&path, text + &rules).expect("room for the rules");
    path
}

/// The engine's memory for a million flows that all match a rule.
fn hold_a_million_flows() {
    let rules = "version: 1\nrules:\n  - {id: all, title: All, severity: low, match: {direction: outbound}, \
                 group_by: [dst.ip], window: 60s, when: {bytes_out: {gte: 100TB}}}";
    let rules = compile(vec![Source::new("rules.yaml", rules)], &Options::default()).into_result().expect("a rule");
    let before = resident();
    let settings = Settings { max_flows: MANY_FLOWS as usize, ..Settings::default() };
    let mut engine = Engine::new(settings, Arc::new(rules));
    let local = Endpoint::new(Address::from_v4([10, 0, 0, 5]), 40_000);
    for number in 0..MANY_FLOWS {
        let remote =
            Endpoint::new(Address::from_v4((0xc000_0000 | number >> 6).to_be_bytes()), 1024 + (number & 63) as u16);
        let packet = Packet {
            timestamp: Timestamp::from_nanos(1_777_860_000_000_000_000 + i64::from(number) * 20_000),
            five_tuple: FiveTuple { protocol: Protocol::UDP, source: local, destination: remote },
            bytes: Bytes(1_000),
            payload_bytes: Bytes(972),
            tcp_flags: None,
            tcp_sequence: 0,
            fragment: Fragment::None,
            direction: Some(FrameDirection::Out),
            interface: 0,
            payload: &[],
        };
        engine.handle_packet(&packet);
    }
    let statistics = engine.statistics();
    println!(
        "{} flows, {} groups    {:>5} MB   at most 256",
        statistics.flows.live,
        statistics.groups,
        resident().saturating_sub(before) / 1_000_000
    );
}

fn resident() -> u64 {
    let pages = Process::myself().and_then(|process| process.statm()).expect("/proc/self/statm").resident;
    pages * procfs::page_size()
}

fn packets() -> u64 {
    std::env::var("EGRET_BENCH_PACKETS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// User and system seconds that a contender takes for the file.
fn processor_time(work: &Work, file: &Path) -> f64 {
    let before = children_time();
    let status = work.command(file).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the contender starts");
    assert!(status.success(), "{} failed", work.name());
    children_time() - before
}

fn children_time() -> f64 {
    let stat = Process::myself().and_then(|process| process.stat()).expect("/proc/self/stat");
    (stat.cutime + stat.cstime) as f64 / procfs::ticks_per_second() as f64
}

/// What a contender found, so that none can leave its work undone.
fn contend(contender: &str, file: &Path) -> u64 {
    match contender {
        "floor" => floor(file),
        "read" => {
            let mut reader = Reader::open(file).expect("the capture opens");
            let mut sum = 0;
            while let Some(batch) = reader.next_batch() {
                sum += batch.map(|record| u64::from(record.frame.wire_length)).sum::<u64>();
            }
            sum
        }
        "decode" => {
            let mut reader = Reader::open(file).expect("the capture opens");
            let mut fragments = Fragments::default();
            let mut sum = 0;
            while let Some(batch) = reader.next_batch() {
                for record in batch {
                    if let Ok(packet) = decode(&record.frame, &mut fragments) {
                        sum += packet.bytes.0 + packet.payload_bytes.0 + u64::from(packet.five_tuple.source.port);
                    }
                }
            }
            sum
        }
        other => panic!("no such contender: {other}"),
    }
}

/// The least that anything must do: read large blocks, find the five-tuple of
/// an Ethernet frame with IPv4, and add to its entry in a hash table.
fn floor(file: &Path) -> u64 {
    let mut input = File::open(file).expect("the capture opens");
    let mut bytes = vec![0; 1 << 18];
    let mut flows = HashMap::<[u8; 13], (u64, u64), BuildHasherDefault<WordHasher>>::default();
    let (mut start, mut end) = (24, 0);
    loop {
        bytes.copy_within(start.min(end)..end, 0);
        let kept = end - start.min(end);
        start = start.saturating_sub(end);
        let read = input.read(&mut bytes[kept..]).expect("the capture is read");
        end = kept + read;
        if read == 0 {
            return flows.values().map(|(_, bytes)| bytes).sum();
        }
        while let Some(header) = bytes[start..end].first_chunk::<16>() {
            let captured = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            let Some(frame) = bytes[start..end].get(16..16 + captured) else { break };
            start += 16 + captured;
            let ip = &frame[14..];
            let mut key = [0; 13];
            key[0] = ip[9];
            key[1..9].copy_from_slice(&ip[12..20]);
            key[9..13].copy_from_slice(&ip[20..24]);
            let sums = flows.entry(key).or_default();
            *sums = (sums.0 + 1, sums.1 + u64::from(u16::from_be_bytes([ip[2], ip[3]])));
        }
    }
}

/// A hash of a few multiplications, as a hand-made table has it.
#[derive(Default)]
struct WordHasher(u64);

impl std::hash::Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Uploads and downloads of hosts in 10.0.0.0/8 with servers in the public network.
fn write_capture(file: &Path, packets: u64) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    out.write_all(&0xa1b2_3c4d_u32.to_le_bytes())?;
    out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, SNAPLEN as u8, 0, 0, 0, 1, 0, 0, 0])?;
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for number in 0..packets {
        let nanos = 1_777_860_000_000_000_000 + number * 10_000;
        let draw = random.next();
        let frame = frame((draw >> 32) % FLOWS, draw & 1 == 0, draw & 2 == 0);
        let wire = if draw & 2 == 0 { 1514_u32 } else { 66 };
        let captured = wire.min(SNAPLEN);
        let record = [(nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32, captured, wire];
        for word in record {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(&frame[..captured as usize])?;
    }
    out.flush()
}

/// A TCP segment of one flow: outbound or inbound, full or empty.
fn frame(flow: u64, outbound: bool, full: bool) -> [u8; SNAPLEN as usize] {
    let mut frame = [0; SNAPLEN as usize];
    frame[12..14].copy_from_slice(&[8, 0]);
    let length: u16 = if full { 1500 } else { 52 };
    let host = [10, 0, (flow / 250 % 256) as u8, (flow % 250) as u8];
    let server = [203, (flow / 64_000) as u8, 113, (flow % 251) as u8];
    let ports = ((20_000 + flow % 40_000) as u16, 443_u16);
    let (source, destination, source_port, destination_port) = match outbound {
        true => (host, server, ports.0, ports.1),
        false => (server, host, ports.1, ports.0),
    };
    let ip = &mut frame[14..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 6]);
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&destination);
    ip[20..22].copy_from_slice(&source_port.to_be_bytes());
    ip[22..24].copy_from_slice(&destination_port.to_be_bytes());
    ip[32..34].copy_from_slice(&[0x80, 0x10]);
    frame
}

/// Marsaglia's xorshift: the same file in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

const FLOWS: u64 = 100_000;
const MANY_FLOWS: u32 = 1_000_000;
const SNAPLEN: u32 = 128;
const ROUNDS: usize = 9;
