//! What names and lists cost: look-ups in small and large lists, memory of a
//! million names, nanoseconds of each reader.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use egret::names::{Binding, List, NameTable, dns, quic, tls};
use egret::packet::Address;
use egret::time::Timestamp;

fn main() {
    lists();
    names();
    readers();
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
    println!("names {held} held in {} MB", resident().saturating_sub(before) / 1_000_000);
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
