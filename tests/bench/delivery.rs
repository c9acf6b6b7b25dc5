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
use egret::dispatch::{Context, DispatchSettings, Dispatcher, Origin};
use egret::rule::{Host, Metadata, Severity, Value};
use egret::store::{Store, StoreLimits};
use egret::time::Timestamp;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    latency(&directory.path().join("latency"));
    sustained(&directory.path().join("sustained"));
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
        requests.recv_timeout(Duration::from_secs(60)).expect("the receiver is asked");
        times.push(begin.elapsed());
    }
    times.sort();
    println!(
        "latency, alert to webhook, stored with fsync:  p50 {:>9.2?}  p99 {:>9.2?}   (goal: p99 under 100 ms)",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    dispatcher.shutdown(Duration::from_secs(60));
}

/// As many as go through in ten seconds, each on disk before it is attempted.
fn sustained(state: &Path) {
    let log = state.join("alerts.ndjson");
    let dispatcher = start(state, &format!("log: {{type: file, path: '{}'}}", log.display()));
    let begin = Instant::now();
    let mut submitted = 0;
    while begin.elapsed() < Duration::from_secs(10) {
        for _ in 0..100 {
            dispatcher.submit(alert(submitted, "many"));
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
        "sustained, journalled, stored and delivered:   {:>9.0} a second            (goal: 1,000 a second)",
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
    while let Ok(body) = requests.try_recv() {
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
    let context = Context { origin, clock: Arc::new(now), ledger: Some(Box::new(store)) };
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
fn receiver() -> (String, Receiver<Vec<u8>>) {
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

fn serve(stream: TcpStream, bodies: &Sender<Vec<u8>>) {
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
        if !whole || bodies.send(body).is_err() || answer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            return;
        }
    }
}
