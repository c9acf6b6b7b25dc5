//! What names and lists cost: look-ups in small and large lists, memory of a
//! million names, nanoseconds of each reader.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret::engine::{Engine, Settings};
use egret::names::{Binding, List, NameTable, dns, quic, tls};
use egret::packet::{Address, Endpoint, FiveTuple, Fragment, Packet, Protocol, TcpFlags};
use egret::rule::RuleSet;
use egret::time::Timestamp;
use egret::units::Bytes;

fn main() {
    lists();
    names();
    readers();
    replay();
}

/// Every second probe is in the list, wherever the list has room for it.
fn lists() {
    let mut small = 0.0;
    for (family, count) in [("IPv4", 10u32), ("IPv4", 1_000_000), ("IPv6", 10), ("IPv6", 1_000_000)] {
        let mut text = String::new();
        let mut probes = Vec::new();
        let mut random = fastrand::Rng::with_seed(1);
        for index in 0..count {
            let bits = random.u32(..);
            let network = match family {
                "IPv4" => Address::from_v4((bits & !0xff).to_be_bytes()),
                _ => Address::from_v6((0x2001 << 112 | u128::from(bits) << 80).to_be_bytes()),
            };
            let length = if family == "IPv4" { 24 } else { 48 };
            writeln!(text, "{network}/{length}").expect("a string takes everything");
            if index % (count / 1000 + 1) == 0 {
                probes.push(network);
                probes.push(Address::from_v4(random.u32(..).to_be_bytes()));
            }
        }
        let begin = Instant::now();
        let list = List::parse(text.as_bytes(), 2_000_000).expect("a list");
        let parsed = begin.elapsed();
        let each = per_call(|round| list.networks.contains(probes[round % probes.len()]));
        if count == 10 {
            small = each;
        }
        println!(
            "list  {family} {count:>9} CIDRs  {each:6.1} ns a look-up  {:4.2} of 10  parsed in {parsed:.0?}",
            each / small
        );
    }
}

fn names() {
    let before = resident();
    let mut table = NameTable::new(1_000_000);
    let now = Timestamp::from_secs(1_000_000);
    for index in 0..1_000_000u32 {
        table.learn(&Binding {
            address: Address::from_v4(index.to_be_bytes()),
            name: format!("host-{index:07}.cdn.example.net").as_str().into(),
            owner: None,
            expires: now.after(Duration::from_secs(60)),
            asked: true,
        });
    }
    let held = table.counts().held;
    println!("names {held} held in {} MB (goal: 128)", resident().saturating_sub(before) / 1_000_000);
    let mut random = fastrand::Rng::with_seed(2);
    let hit = per_call(|_| table.name(Address::from_v4(random.u32(..1_000_000).to_be_bytes()), None, now));
    let miss = per_call(|round| table.name(Address::from_v6((round as u128).to_be_bytes()), None, now));
    println!("names {hit:6.1} ns a name found  {miss:6.1} ns a name not found");
}

fn readers() {
    let mut answer = b"\0\x07\x81\x80\0\x01\0\x03\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01".to_vec();
    answer.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03cdn\xc0\x10");
    answer.extend(b"\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\0\x71\x07");
    answer.extend(b"\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\0\x71\x08");
    assert_eq!(dns::Message::read(&answer).map(|message| message.bound_addresses().len()), Some(2));
    println!("dns   {:6.1} ns an answer", per_call(|_| dns::Message::read(black_box(&answer))));
    let hello = include_bytes!("client_hello.bin");
    assert!(tls::read_records(hello).is_some_and(|hello| hello.complete && hello.server_name.is_some()));
    println!("tls   {:6.1} ns a ClientHello", per_call(|_| tls::read_records(black_box(hello))));
    let mut initial = b"\xc3\0\0\0\x01\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\0\0\x44\x9e".to_vec();
    initial.resize(1200, 7);
    println!("quic  {:6.1} ns an Initial packet", per_call(|_| quic::Opener::default().read(black_box(&initial))));
}

/// The engine over the same packets twice: with their payloads, and with payloads that hold nothing to read.
fn replay() {
    let hello = include_bytes!("client_hello.bin");
    let data = [0x5a; 1000];
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let [blind, reading] = [false, true].map(|reads| {
            let mut engine = Engine::new(Settings::default(), Arc::new(RuleSet::default()));
            let begin = Instant::now();
            let mut batch = Vec::with_capacity(256);
            for number in 0..PACKETS {
                // A thousand flows at a time, a hundred packets each: SYN, ClientHello, then data both ways.
                let (group, step) = (number / 100_000, number % 100_000);
                let (flow, turn) = (group * 1000 + step % 1000, step / 1000);
                let payload: &[u8] = match turn {
                    0 => &[],
                    1 => hello,
                    _ => &data,
                };
                batch.push(packet(flow, turn, number, if reads { payload } else { &[] }));
                if batch.len() == 256 {
                    engine.handle_packets(&batch);
                    batch.clear();
                    while engine.poll_output().is_some() {}
                }
            }
            begin.elapsed().as_nanos() as f64 / f64::from(PACKETS)
        });
        rounds.push((reading / blind, blind, reading));
    }
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, blind, reading) = rounds[rounds.len() / 2];
    let more = (ratio - 1.0) * 100.0;
    println!("engine {blind:5.1} ns a packet without names, {reading:5.1} with: {more:+.1} % (goal: 10)");
}

fn packet(flow: u32, turn: u32, number: u32, payload: &[u8]) -> Packet<'_> {
    let local = Endpoint::new(Address::from_v4([10, 0, 0, 5]), 1024 + (flow % 60_000) as u16);
    let remote = Endpoint::new(Address::from_v4((0xcb00_0000 | flow >> 4).to_be_bytes()), 443);
    let out = turn < 2 || turn.is_multiple_of(2);
    let (source, destination) = if out { (local, remote) } else { (remote, local) };
    Packet {
        timestamp: Timestamp::from_nanos(1_700_000_000_000_000_000 + i64::from(number) * 1000),
        five_tuple: FiveTuple { protocol: Protocol::TCP, source, destination },
        bytes: Bytes(1052),
        payload_bytes: Bytes(1000),
        tcp_flags: Some(TcpFlags(if turn == 0 { TcpFlags::SYN } else { TcpFlags::ACK })),
        tcp_sequence: turn,
        fragment: Fragment::None,
        direction: None,
        interface: 0,
        payload,
    }
}

const PACKETS: u32 = 10_000_000;

/// The median of several rounds.
fn per_call<T>(mut call: impl FnMut(usize) -> T) -> f64 {
    const CALLS: usize = 200_000;
    let mut rounds: Vec<f64> = (0..7)
        .map(|_| {
            let begin = Instant::now();
            for round in 0..CALLS {
                black_box(call(round));
            }
            begin.elapsed().as_nanos() as f64 / CALLS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
