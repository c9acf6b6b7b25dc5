//! From an alert to its receiver: how long it takes, and how many a second.
//!
//! Against receivers in this very program, with the store on a real disk and
//! its fsync on. Prints percentiles and rates; the goals stand beside them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use egret::alert::{Alert, AlertState, DocumentKind, Notification, RuleFacts};
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin};
use egret::engine::{Engine, Output, Settings};
use egret::packet::{Address, Endpoint, FiveTuple, Fragment, FrameDirection, Packet, Protocol};
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::rule::{Host, Metadata, Severity, Value};
use egret::store::{Store, StoreLimits};
use egret::time::Timestamp;
use egret::units::Bytes;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    latency(&directory.path().join("latency"));
    from_the_packet(&directory.path().join("packet"));
    beside_a_deaf_one(directory.path());
    sustained(&directory.path().join("sustained"), 500);
    sustained(&directory.path().join("alone"), 1);
    burst(&directory.path().join("burst"));
}

/// One alert at a time, from the hand-over to the request at the receiver.
fn latency(state: &Path) {
    let (url, requests) = receiver();
    let dispatcher = start(state, &format!("hook: {{type: webhook, url: '{url}', allow_insecure: true}}"));
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..500 {
        let begin = Instant::now();
        dispatcher.submit(alert(number, "one"));
        let (_, at) = requests.recv_timeout(Duration::from_secs(60)).expect("the receiver is asked");
        times.push(at - begin);
    }
    let (p50, p99) = percentiles(&mut times);
    println!(
        "latency, alert to webhook, stored with fsync:   p50 {p50:>9.2?}  p99 {p99:>9.2?}   (goal: p99 under 100 ms)"
    );
    dispatcher.shutdown(Duration::from_secs(60));
}

/// From the packet that crosses the threshold to the request at the receiver, with the engine's tick of a second.
fn from_the_packet(state: &Path) {
    const RULES: &str = "
version: 1
rules:
  - {id: upload, title: An upload, severity: high, match: {direction: outbound}, group_by: [dst.ip],
     window: 10s, when: {bytes_out: {gte: 1MB}}}
";
    let compiled = compile(vec![Source::new("bench.yaml", RULES)], &Options::default());
    assert!(!compiled.report.has_errors(), "the bench's rule is right");
    let mut engine = Engine::new(Settings::default(), Arc::new(compiled.rules));
    let (url, requests) = receiver();
    let dispatcher = start(state, &format!("hook: {{type: webhook, url: '{url}', allow_insecure: true}}"));
    let crossings: u8 = 100;
    let mut crossed: Vec<Option<Instant>> = vec![None; usize::from(crossings)];
    let mut times: Vec<Duration> = Vec::new();
    let begin = Instant::now();
    let mut next = 0;
    while times.len() < usize::from(crossings) && begin.elapsed() < Duration::from_secs(120) {
        // One crossing about every 137 ms: at every phase of the tick.
        if next < crossings && begin.elapsed() >= Duration::from_millis(137) * u32::from(next) {
            engine.handle_packet(&packet(next));
            crossed[usize::from(next)] = Some(Instant::now());
            next += 1;
        }
        engine.handle_timeout(now());
        while let Some(output) = engine.poll_output() {
            if let Output::Notification(notification) = output {
                dispatcher.submit(notification);
            }
        }
        while let Ok((body, at)) = requests.try_recv() {
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let octets = body["data"]["group"]["dst.ip"].as_str().and_then(|ip| ip.rsplit('.').next()?.parse().ok());
            let number: usize = octets.expect("the group is an address");
            if body["type"] == "alert.firing" {
                times.push(at - crossed[number].expect("it has crossed"));
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let (p50, p99) = percentiles(&mut times);
    println!(
        "threshold crossed to webhook, tick of 1 s:      p50 {p50:>9.2?}  p99 {p99:>9.2?}   (goal: p99 under 1.1 s)"
    );
    dispatcher.shutdown(Duration::from_secs(60));
}

/// What a receiver that hangs costs another one.
fn beside_a_deaf_one(state: &Path) {
    let deaf = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let deaf = deaf.local_addr().expect("a bound socket has an address");
    let mut medians = Vec::new();
    for (folder, neighbour) in [
        ("alone", String::new()),
        (
            "beside",
            format!("deaf: {{type: webhook, url: 'http://{deaf}/', allow_insecure: true, http: {{timeout: 30s}}}}\n"),
        ),
    ] {
        let (url, requests) = receiver();
        let outputs = format!("{neighbour}quick: {{type: webhook, url: '{url}', allow_insecure: true}}");
        let dispatcher = start(&state.join(folder), &outputs);
        let mut times: Vec<Duration> = Vec::new();
        for number in 0..300 {
            let begin = Instant::now();
            dispatcher.submit(alert(number, &format!("key {number}")));
            let (_, at) = requests.recv_timeout(Duration::from_secs(60)).expect("the receiver is asked");
            times.push(at - begin);
        }
        medians.push(percentiles(&mut times));
        dispatcher.shutdown(Duration::ZERO);
    }
    println!(
        "beside a receiver that hangs:                   p50 {:>9.2?}  p99 {:>9.2?}   (alone: {:.2?}, {:.2?}; goal: 50 ms more at most)",
        medians[1].0, medians[1].1, medians[0].0, medians[0].1
    );
}

fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// A megabyte to an address of its own.
fn packet(number: u8) -> Packet<'static> {
    let end = |address: [u8; 4], port| Endpoint::new(Address::from_v4(address), port);
    Packet {
        timestamp: now(),
        five_tuple: FiveTuple {
            protocol: Protocol::TCP,
            source: end([10, 0, 0, 5], 40_000),
            destination: end([203, 0, 113, number], 443),
        },
        bytes: Bytes(1_100_000),
        payload_bytes: Bytes(1_000_000),
        tcp_flags: None,
        tcp_sequence: 0,
        fragment: Fragment::None,
        direction: Some(FrameDirection::Out),
        interface: 0,
        payload: &[],
    }
}

/// As many as go through in ten seconds, each on disk before it is attempted, about so many alerts. Those of one alert
/// keep their order.
fn sustained(state: &Path, alerts: u64) {
    let log = state.join("alerts.ndjson");
    let dispatcher = start(state, &format!("log: {{type: file, path: '{}'}}", log.display()));
    let begin = Instant::now();
    let mut submitted = 0;
    while begin.elapsed() < Duration::from_secs(10) {
        for _ in 0..100 {
            dispatcher.submit(alert(submitted, &format!("key {}", submitted % alerts)));
            submitted += 1;
        }
        while dispatcher.status().is_some_and(|status| status.committed + 2_000 < submitted) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let status = dispatcher.shutdown(Duration::from_secs(120));
    let seconds = begin.elapsed().as_secs_f64();
    assert_eq!((status.outputs["log"].delivered, status.lost), (submitted, 0));
    println!(
        "sustained, journalled, stored and delivered:   {:>9.0} a second of {alerts:>3} alerts (goal: 1,000 a second)",
        submitted as f64 / seconds
    );
}

/// Ten thousand at once, grouped for people: every one of them counted.
fn burst(state: &Path) {
    let (url, requests) = receiver();
    let outputs = format!("chat: {{type: webhook, url: '{url}', allow_insecure: true, group: true}}");
    let dispatcher = start(state, &outputs);
    let begin = Instant::now();
    for number in 0..10_000 {
        dispatcher.submit(alert(number, &format!("key {number}")));
    }
    let status = dispatcher.shutdown(Duration::from_secs(120));
    let mut said = 0;
    let mut messages = 0;
    while let Ok((body, _)) = requests.try_recv() {
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        said += body["data"]["alerts"].as_array().map_or(0, Vec::len) as u64;
        said += body["data"]["truncated"].as_u64().unwrap_or(0);
        messages += 1;
    }
    assert!(said >= 10_000 && status.lost == 0, "{said} of 10000, {status:?}");
    println!("burst of 10,000, grouped:                      {messages} messages in {:.2?}", begin.elapsed());
}

fn start(state: &Path, outputs: &str) -> Dispatcher {
    let store = Store::open(state, StoreLimits::default(), now()).expect("the store opens");
    let outputs = serde_yaml::from_str(outputs).expect("the outputs are right");
    let settings = DispatchSettings { outputs, ..DispatchSettings::default() };
    let origin = Origin { host: Host { name: "bench".into(), ..Host::default() }, pid: 1 };
    let context = Context { origin, clock: Clock::single(now), ledger: Some(Box::new(store)) };
    Dispatcher::start(&settings, context).expect("the threads start")
}

fn alert(number: u64, key: &str) -> Notification {
    let metadata = Metadata { id: "exfil".into(), severity: Severity::High, ..Metadata::default() };
    let alert = Alert {
        schema: "egress-alert/1",
        state: AlertState { key: key.into(), episode: number, state: "firing", ..AlertState::default() },
        rule: RuleFacts { metadata: Arc::new(metadata), ..RuleFacts::default() },
        group: vec![("exe", Value::Text("/usr/bin/rclone".into()))],
        summary: format!("/usr/bin/rclone sent 734 MB to example.net in 10m, alert {number}"),
        ..Alert::default()
    };
    Notification::of_alert(DocumentKind::Firing, now(), alert)
}

fn now() -> Timestamp {
    Timestamp::from_nanos(i64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("this century"))
}

/// A receiver that answers at once and hands on what it got.
fn receiver() -> (String, Receiver<(Vec<u8>, Instant)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}/", listener.local_addr().expect("a bound socket has an address"));
    let (bodies, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bodies = bodies.clone();
            std::thread::spawn(move || serve(stream, &bodies));
        }
    });
    (url, received)
}

fn serve(stream: TcpStream, bodies: &Sender<(Vec<u8>, Instant)>) {
    let Ok(mut answer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        let whole = reader.read_exact(&mut body).is_ok();
        if !whole
            || bodies.send((body, Instant::now())).is_err()
            || answer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err()
        {
            return;
        }
    }
}
