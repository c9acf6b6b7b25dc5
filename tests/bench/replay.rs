//! How much of the processor a replay costs, as a ratio to tcpdump on the same file in the same run.
//!
//! The file: 10 million packets (`EGRET_BENCH_PACKETS`) of 100,000 flows, cut
//! at 128 bytes. Each contender is a process of its own; its user and system
//! time is what the kernel says, the median of several rounds, so a loaded
//! machine disturbs the ratios little.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::collections::HashMap;
use std::fs::File;
use std::hash::BuildHasherDefault;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use egret::capture::offline::Reader;
use egret::packet::{Fragments, decode};
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
    write_capture(&file, packets).expect("room for the capture");
    println!("{packets} packets of {FLOWS} flows, {} MB", file.metadata().expect("its size").len() / 1_000_000);

    let mut times: Vec<(&str, Vec<f64>)> = CONTENDERS.iter().map(|name| (*name, Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (name, times) in &mut times {
            times.push(processor_time(name, &file));
        }
    }
    let mut tcpdump = None;
    for (name, mut times) in times {
        times.sort_by(f64::total_cmp);
        let nanos = times[times.len() / 2] * 1e9 / packets as f64;
        let reference = *tcpdump.get_or_insert(nanos);
        println!("{name:<8} {nanos:>7.1} ns a packet   {:>5.2} of tcpdump", nanos / reference);
    }
}

fn packets() -> u64 {
    std::env::var("EGRET_BENCH_PACKETS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000)
}

/// User and system seconds that a contender takes for the file.
fn processor_time(contender: &str, file: &Path) -> f64 {
    let before = children_time();
    let mut command = match contender {
        "tcpdump" => {
            let mut command = Command::new("tcpdump");
            command.arg("-r").arg(file).args(["-w", "/dev/null"]);
            command
        }
        own => {
            let mut command = Command::new(std::env::current_exe().expect("this program's path"));
            command.arg(own).arg(file);
            command
        }
    };
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the contender starts");
    assert!(status.success(), "{contender} failed");
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

const CONTENDERS: [&str; 4] = ["tcpdump", "floor", "read", "decode"];
const FLOWS: u64 = 100_000;
const SNAPLEN: u32 = 128;
const ROUNDS: usize = 5;
