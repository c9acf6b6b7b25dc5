//! Killing the delivery of alerts at random moments, again and again: whatever
//! was committed arrives, in order, and under one id.
//!
//! `EGRET_TORTURE=1000` sets the number of kills (`make torture`); without it a
//! few show the same in seconds.

#![expect(clippy::print_stdout, reason = "the child tells what it committed, and the test what it counted")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use egret::alert::DocumentKind::Firing;
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin};
use egret::store::{Store, StoreLimits};

use crate::support::alerts::{self, alert};
use crate::support::scripted::{Answer, ScriptedReceiver};

#[test]
fn nothing_committed_is_lost_to_kills() {
    let kills: u64 = std::env::var("EGRET_TORTURE").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let directory = tempfile::tempdir().unwrap();
    let receiver = ScriptedReceiver::start(|number| match number {
        number if number % 29 == 7 => Answer::Status(500, ""),
        number if number % 31 == 11 => Answer::Reset,
        number if number % 97 == 13 => Answer::Status(429, "Retry-After: 0"),
        _ => Answer::Status(204, ""),
    });
    let mut committed: Vec<u64> = Vec::new();
    for kill in 0..kills {
        let first = kill * NUMBERS_A_RUN;
        let mut child = spawn(directory.path(), &receiver.url(), first, "submit");
        let reached = Arc::new(AtomicU64::new(first));
        let reader = follow(&mut child, &reached);
        // Every fourth run dies while it starts, the others while they deliver.
        let begin = Instant::now();
        while kill % 4 != 0 && reached.load(Ordering::SeqCst) == first && begin.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(fastrand::u64(0..150)));
        child.kill().expect("the child runs until it is killed");
        child.wait().expect("a killed child can be waited for");
        reader.join().expect("the reader ends with its pipe");
        committed.extend(first..reached.load(Ordering::SeqCst));
    }
    let drained = spawn(directory.path(), &receiver.url(), 0, "drain").wait().expect("the last run ends");
    let said = std::fs::read_to_string(directory.path().join("drain.err")).unwrap_or_default();
    assert!(drained.success(), "the last run did not deliver everything in time: {said}");

    let mut ids: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut order: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for exchange in receiver.exchanges().iter().filter(|exchange| exchange.taken) {
        let state = &exchange.request.json()["data"]["alert"];
        let (Some(key), Some(number)) = (state["key"].as_str(), state["episode"].as_u64()) else { continue };
        let known = ids.entry(number).or_default();
        if known.insert(exchange.request.headers["webhook-id"].clone()) && known.len() == 1 {
            order.entry(key.to_owned()).or_default().push(number);
        }
    }
    println!("{kills} kills: {} committed, {} received", committed.len(), ids.len());
    assert!(!committed.is_empty(), "no run got as far as a commit");
    let missing: Vec<&u64> = committed.iter().filter(|number| !ids.contains_key(number)).collect();
    assert!(missing.is_empty(), "committed and lost: {missing:?}");
    for (number, ids) in &ids {
        assert_eq!(ids.len(), 1, "notification {number} came under several ids");
    }
    for (key, numbers) in &order {
        assert!(numbers.is_sorted(), "{key} out of order: {numbers:?}");
    }
}

/// What is killed: this very program, run as one test that is not run otherwise.
#[test]
#[ignore = "a child of the torture test"]
fn torture_child() {
    let Ok(directory) = std::env::var("EGRET_TORTURE_DIRECTORY") else { return };
    let variable = |name: &str| std::env::var(name).expect("the torture test sets it");
    let first: u64 = variable("EGRET_TORTURE_FIRST").parse().unwrap();
    let outputs =
        format!("hook: {{type: webhook, url: '{}', allow_insecure: true, queue: 50}}", variable("EGRET_TORTURE_URL"));
    let store = Store::open(Path::new(&directory), StoreLimits::default(), alerts::now()).expect("the store opens");
    let settings = DispatchSettings { outputs: serde_yaml::from_str(&outputs).unwrap(), ..Default::default() };
    let context = Context {
        origin: Origin { host: alerts::host(), pid: 1 },
        clock: Clock::single(alerts::now),
        ledger: Some(Box::new(store)),
    };
    let dispatcher = Dispatcher::start(&settings, context).expect("the outputs are right");
    if variable("EGRET_TORTURE_MODE") == "drain" {
        let status = dispatcher.shutdown(Duration::from_secs(240));
        assert_eq!(status.outputs["hook"].waiting, 0, "{status:?}");
        return;
    }
    for number in first.. {
        // What waits must be delivered by the last run in its time, however many runs there were.
        while dispatcher.status().expect("the thread lives").outputs["hook"].waiting > MOST_WAITING {
            thread::sleep(Duration::from_millis(1));
        }
        let mut notification = alert(Firing, &format!("key {}", number % 5), b"rclone copy");
        Arc::make_mut(notification.alert.as_mut().unwrap()).state.episode = number;
        dispatcher.submit(notification);
        if number % 10 == 9 {
            while dispatcher.status().expect("the thread lives").committed < number - first + 1 {
                thread::sleep(Duration::from_millis(1));
            }
            println!("committed {}", number + 1);
            std::io::stdout().flush().unwrap();
        }
    }
}

fn spawn(directory: &Path, url: &str, first: u64, mode: &str) -> Child {
    Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["torture::torture_child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("EGRET_TORTURE_DIRECTORY", directory)
        .env("EGRET_TORTURE_URL", url)
        .env("EGRET_TORTURE_FIRST", first.to_string())
        .env("EGRET_TORTURE_MODE", mode)
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(directory.join(format!("{mode}.err"))).expect("the directory is writable"))
        .spawn()
        .expect("this program can be run again")
}

/// Keeps up with what the child says is committed.
fn follow(child: &mut Child, reached: &Arc<AtomicU64>) -> thread::JoinHandle<()> {
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let reached = Arc::clone(reached);
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let number = line.split("committed ").nth(1).and_then(|number| number.trim().parse().ok());
            number.into_iter().for_each(|number| reached.store(number, Ordering::SeqCst));
        }
    })
}

/// Deliveries that a run lets wait.
const MOST_WAITING: usize = 300;
/// No run gets this far before it is killed.
const NUMBERS_A_RUN: u64 = 1_000_000;
