//! Packets and owners over time, rules, and the alerts expected: each scenario
//! runs whole, in odd batches and with extra wake-ups, with the same result.
//!
//! A line of traffic: `AT [every STEP xCOUNT] PROGRAM -> ADDRESS:PORT BYTES`,
//! `<-` for bytes that come in, `!` before the program for a new connection.
//! A line of expectation: `AT KIND RULE VALUE,VALUE`, the group's values.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bstr::BString;
use egret::alert::Notification;
use egret::attribution::{Attribution, Evidence, Executable, Process, ProcessKey, User};
use egret::engine::{Engine, Output, Settings};
use egret::packet::{Address, Endpoint, FiveTuple, Fragment, FrameDirection, Packet, Protocol, TcpFlags};
use egret::rule::RuleSet;
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::time::Timestamp;
use egret::units::Bytes;

#[test]
fn every_scenario_tells_its_alerts_however_it_is_cut() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let scenario: Scenario = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let rules = scenario.rules(&file);
        let traffic = scenario.traffic();
        let (whole, documents) = run(&rules, &traffic, scenario.until, &Pieces::Whole);
        assert_eq!(whole, scenario.expect, "{file:?}");
        for pieces in [Pieces::Odd, Pieces::Wakeful] {
            let (told, other) = run(&rules, &traffic, scenario.until, &pieces);
            assert_eq!(told, scenario.expect, "{file:?}, {pieces:?}");
            assert_eq!(other, documents, "{file:?}, {pieces:?}: the same bytes");
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// A rule file.
    rules: serde_yaml::Value,
    /// Programs by the name they have in the traffic.
    #[serde(default)]
    programs: BTreeMap<String, Program>,
    traffic: Vec<String>,
    /// The second at which the story ends.
    until: i64,
    expect: Vec<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    exe: String,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    cmdline: Vec<String>,
}

/// One packet and who sent or received it.
#[derive(Clone)]
struct Sent {
    packet: Packet<'static>,
    owner: Attribution,
}

#[derive(Debug)]
enum Pieces {
    /// One packet after the other, and no wake-up but at the end.
    Whole,
    /// A wake-up at the time of every third packet; outputs are fetched now and then.
    Odd,
    /// A wake-up every 137 milliseconds.
    Wakeful,
}

fn run(rules: &Arc<RuleSet>, traffic: &[Sent], until: i64, pieces: &Pieces) -> (Vec<String>, Vec<String>) {
    let mut engine = Engine::new(Settings::default(), Arc::clone(rules));
    let (mut lines, mut documents) = (Vec::new(), Vec::new());
    let mut drain = |engine: &mut Engine| {
        while let Some(output) = engine.poll_output() {
            if let Output::Notification(told) = output {
                lines.push(line_of(&told));
                documents.push(serde_json::to_string(&told).unwrap());
            }
        }
    };
    let end = Timestamp::from_secs(START + until);
    let mut woken = Timestamp::from_secs(START);
    for (number, Sent { packet, owner }) in traffic.iter().enumerate() {
        match pieces {
            Pieces::Whole => {}
            Pieces::Odd if number % 3 == 0 => engine.handle_timeout(packet.timestamp),
            Pieces::Odd => {}
            Pieces::Wakeful => {
                while woken < packet.timestamp {
                    engine.handle_timeout(woken);
                    drain(&mut engine);
                    woken = woken.after(Duration::from_millis(137));
                }
            }
        }
        engine.handle_owned_packet(packet, owner);
        if !matches!(pieces, Pieces::Odd) || number % 5 == 0 {
            drain(&mut engine);
        }
    }
    engine.handle_timeout(end);
    drain(&mut engine);
    (lines, documents)
}

fn line_of(told: &Notification) -> String {
    let second = told.timestamp.as_secs() - START;
    let Some(alert) = &told.alert else { return format!("{second}s {} {}", told.kind.name(), told.key()) };
    let group: Vec<String> = alert.group.iter().map(|(_, value)| value.to_string()).collect();
    let line = format!("{second}s {} {} {}", told.kind.name(), alert.rule.metadata.id, group.join(","));
    line.trim_end().to_owned()
}

/// When every story begins: a Monday at two in the morning.
const START: i64 = 1_777_860_000;

impl Scenario {
    fn rules(&self, file: &Path) -> Arc<RuleSet> {
        let text = serde_yaml::to_string(&self.rules).unwrap();
        let compiled = compile(vec![Source::new("rules.yaml", text)], &Options::default());
        Arc::new(compiled.into_result().unwrap_or_else(|report| panic!("{file:?}: {report:?}")))
    }

    fn traffic(&self) -> Vec<Sent> {
        let mut sent: Vec<Sent> = self.traffic.iter().flat_map(|line| self.packets(line)).collect();
        sent.sort_by_key(|sent| sent.packet.timestamp);
        sent
    }

    fn packets(&self, line: &str) -> Vec<Sent> {
        let mut words = line.split_whitespace().peekable();
        let at = seconds(words.next().unwrap());
        let (mut step, mut count) = (0.0, 1);
        if words.next_if_eq(&"every").is_some() {
            step = seconds(words.next().unwrap());
            count = words.next().unwrap().trim_start_matches('x').parse().unwrap();
        }
        let program = words.next().unwrap();
        let opens = program.starts_with('!');
        let program = program.trim_start_matches('!');
        let way = if words.next() == Some("<-") { FrameDirection::In } else { FrameDirection::Out };
        let remote = words.next().unwrap();
        let bytes: u64 = words.next().unwrap().parse().unwrap();
        let packet = |number: u16| {
            let at = START as f64 + at + step * f64::from(number);
            // Each new connection has a port of its own.
            let port = 40_000 + line.len() as u16 + if opens { number } else { 0 };
            let local = Endpoint::new(Address::from_v4([10, 0, 0, 5]), port);
            let remote: std::net::SocketAddr = remote.replace("{n}", &number.to_string()).parse().unwrap();
            let remote = Endpoint::from(remote);
            let (source, destination) = if way == FrameDirection::Out { (local, remote) } else { (remote, local) };
            Packet {
                timestamp: Timestamp::from_nanos((at * 1_000.0).round() as i64 * 1_000_000),
                five_tuple: FiveTuple { protocol: Protocol::TCP, source, destination },
                bytes: Bytes(bytes),
                payload_bytes: Bytes(bytes),
                tcp_flags: Some(TcpFlags(if opens { TcpFlags::SYN } else { TcpFlags::ACK })),
                tcp_sequence: 0,
                fragment: Fragment::None,
                direction: Some(way),
                interface: 0,
                payload: &[],
            }
        };
        let owner = self.owner(program);
        (0..count).map(|number| Sent { packet: packet(number), owner: owner.clone() }).collect()
    }

    fn owner(&self, name: &str) -> Attribution {
        let Some(program) = self.programs.get(name) else { panic!("who is {name}?") };
        let pid = 100 + self.programs.keys().position(|known| known == name).unwrap_or(0) as u32;
        let executable = Executable { path: program.exe.as_str().into(), ..Executable::default() };
        let user = program.user.as_ref().map(|name| User { uid: Some(1_000), name: Some(name.as_str().into()) });
        let process = Process {
            key: ProcessKey { pid, start: 1 },
            executable: Some(executable),
            command_line: program.cmdline.iter().map(|word| BString::from(word.as_str())).collect(),
            user,
            ..Process::default()
        };
        Attribution::Known { process: Arc::new(process), evidence: Evidence::Exact }
    }
}

fn seconds(text: &str) -> f64 {
    text.trim_end_matches('s').parse().unwrap()
}
