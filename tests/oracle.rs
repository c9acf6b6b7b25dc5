//! A million random deltas through the engine, against slow and obvious sums
//! over everything that was ever sent: at every tick the same alerts fire.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use egret::alert::DocumentKind;
use egret::attribution::{Attribution, Evidence, Executable, FlowUpdate, Process, ProcessKey};
use egret::engine::{Engine, Output, Settings};
use egret::flow::{Counters, Direction, FlowKey, FlowState};
use egret::packet::{Address, Endpoint, Protocol};
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::time::Timestamp;
use egret::units::{Bytes, Packets};

const RULES: &str = "
rules:
  - {id: sum, match: {}, group_by: [exe], window: 60s, when: {bytes_out: {gte: 8MB}}}
  - {id: wide, match: {}, group_by: [exe], window: 10m, when: {bytes_out: {gte: 66MB}}}
  - {id: connections, match: {}, group_by: [exe], window: 60s, when: {connections: {gt: 150}}}
  - {id: distinct, match: {}, group_by: [exe], window: 60s, when: {distinct(dst.ip): {gt: 60}}}
  - {id: ratio, match: {}, group_by: [exe], window: 30s, when: {upload_ratio: {gte: 0.6}}}
  - {id: peak, match: {}, group_by: [exe], window: 20s, when: {peak(bytes_out): {gt: 1200kbit/s}}}
  - id: spike
    match: {}
    group_by: [exe]
    window: 60s
    when: {bytes_out: {gt: {metric: bytes_out, window: 60s, offset: 60s, times: 2, floor: 1MB}}}
  - id: habit
    match: {}
    group_by: [exe]
    baseline: {metric: bytes_out, bucket: 1m, history: 30m, season: none, method: mad, above: 1, floor: 1MB, ceiling: 12MB, min_history: 5m}
";

/// Without optimisation a million take a minute.
const SECONDS: u64 = if cfg!(debug_assertions) { 1_500 } else { 5_000 };
const DELTAS: u64 = 200;
const PROGRAMS: u64 = 8;
const START: u64 = 1_777_860_000;

/// All that one program did, second by second.
#[derive(Default)]
struct Program {
    seconds: Vec<Second>,
    seen: HashMap<u64, u64>,
    habit: SlowHabit,
}

#[derive(Default, Clone, Copy)]
struct Second {
    bytes_out: u64,
    payload_out: u64,
    payload_in: u64,
    connections: u64,
}

#[test]
fn a_million_deltas_fire_what_a_slow_sum_fires() {
    let rules = compile(vec![Source::new("rules.yaml", RULES)], &Options::default()).into_result().unwrap();
    let settings = Settings { idle_timeout: Duration::from_secs(1_000_000), max_flows: 200_000, ..Settings::default() };
    let mut engine = Engine::new(settings, Arc::new(rules));
    let owners: Vec<Attribution> = (0..PROGRAMS).map(owner).collect();
    let mut programs: Vec<Program> = (0..PROGRAMS).map(|_| Program::default()).collect();
    let mut random = fastrand::Rng::with_seed(20_260_504);
    let mut firing: BTreeSet<(String, u64)> = BTreeSet::new();
    let mut changes: BTreeMap<String, u32> = BTreeMap::new();
    let mut connections = 0;
    for second in 0..SECONDS {
        programs.iter_mut().for_each(|program| program.seconds.push(Second::default()));
        // How much, and to how many, changes with the minutes and with the program.
        let mood =
            |program: u64, salt: u64| fastrand::Rng::with_seed(second / 45 * 100 + program * 7 + salt).u64(0..10);
        for delta in 0..DELTAS {
            let number = random.u64(0..PROGRAMS);
            let (Some(program), Some(owner)) = (programs.get_mut(number as usize), owners.get(number as usize)) else {
                continue;
            };
            let is_new = random.u64(0..40) < mood(number, 1);
            let remote = random.u64(0..5 + mood(number, 2) * 12);
            let bytes_out = random.u64(0..2 + mood(number, 3) * 2_000);
            let bytes_in = random.u64(0..2 + mood(number, 4) * 1_000);
            connections += u64::from(is_new);
            // A new connection has a port of its own; the others share one for each remote end.
            let local_port = if is_new { 1_024 + connections % 60_000 } else { 80 + number };
            let network = if is_new { 16 + connections / 60_000 } else { 0 };
            let key = FlowKey {
                protocol: Protocol::TCP,
                local: Endpoint::new(Address::from_v4([10, 0, network as u8, 5]), local_port as u16),
                remote: Endpoint::new(Address::from_v4([203, 0, 113, remote as u8]), 443),
                ..FlowKey::default()
            };
            let at = Timestamp::from_nanos(((START + second) * 1_000_000_000 + delta * 4_000_000) as i64);
            engine.handle_update(&update(key, owner, at, bytes_out, bytes_in));
            // The first delta of a flow opens it.
            let opens = is_new || !program.seen.contains_key(&(remote + 1_000));
            if !is_new {
                program.seen.insert(remote + 1_000, u64::MAX);
            }
            let Some(now) = program.seconds.last_mut() else { continue };
            now.bytes_out += bytes_out + 40;
            now.payload_out += bytes_out;
            now.payload_in += bytes_in;
            now.connections += u64::from(opens);
            program.seen.insert(remote, second);
        }
        let tick = START + second + 1;
        engine.handle_timeout(Timestamp::from_secs(tick as i64));
        while let Some(output) = engine.poll_output() {
            let Output::Notification(told) = output else { continue };
            let Some(alert) = &told.alert else { panic!("a problem: {told:?}") };
            let program = alert.group[0].1.to_string().trim_start_matches("/bin/program").parse().unwrap();
            let rule = alert.rule.metadata.id.to_string();
            *changes.entry(rule.clone()).or_default() += 1;
            match told.kind {
                DocumentKind::Firing => assert!(firing.insert((rule, program))),
                DocumentKind::Resolved => assert!(firing.remove(&(rule, program))),
                _ => {}
            }
        }
        for (number, program) in programs.iter_mut().enumerate() {
            let number = number as u64;
            for (rule, least, most) in program.expected(second, tick) {
                let fires = firing.contains(&(rule.to_owned(), number));
                assert!(fires || !least, "second {second}: `{rule}` must fire for program {number}");
                assert!(most || !fires, "second {second}: `{rule}` must not fire for program {number}");
            }
        }
    }
    for rule in ["sum", "wide", "connections", "distinct", "ratio", "peak", "spike", "habit"] {
        let changed = changes.get(rule).copied().unwrap_or(0);
        assert!(
            changed >= if cfg!(debug_assertions) { 6 } else { 20 },
            "`{rule}` changed {changed} times: {changes:?}"
        );
    }
}

impl Program {
    /// For each rule whether it must fire at this second, and whether it may.
    fn expected(&mut self, second: u64, tick: u64) -> Vec<(&'static str, bool, bool)> {
        let last = |length: u64| {
            let from = (second + 1).saturating_sub(length) as usize;
            self.seconds.iter().skip(from)
        };
        let sent = |length: u64| last(length).map(|second| second.bytes_out).sum::<u64>();
        let exact = |rule: &'static str, fires: bool| (rule, fires, fires);
        let connections: u64 = last(60).map(|second| second.connections).sum();
        let different = self.seen.iter().filter(|(value, seen)| **value < 1_000 && **seen + 60 > second).count();
        let out: u64 = last(30).map(|second| second.payload_out).sum();
        let total: u64 = out + last(30).map(|second| second.payload_in).sum::<u64>();
        let highest = last(20).map(|second| second.bytes_out).max().unwrap_or(0);
        let before = sent(120) - sent(60);
        let mut expected = vec![
            exact("sum", sent(60) >= 8_000_000),
            // A bucket of ten seconds may reach further back.
            ("wide", sent(600) >= 66_000_000, sent(609) >= 66_000_000),
            exact("connections", connections > 150),
            exact("distinct", different > 60),
            exact("ratio", total >= 64 * 1024 && out as f64 / total as f64 >= 0.6),
            exact("peak", highest * 8 > 1_200_000),
            exact("spike", sent(60) >= 1_000_000 && sent(60) as f64 > 2.0 * before as f64),
        ];
        let now = self.seconds.last().map_or(0, |second| second.bytes_out);
        expected.push(exact("habit", self.habit.exceeds(tick, now)));
        expected
    }
}

/// The habit of a program by the letter: every bucket, sorted anew for each question.
#[derive(Default)]
struct SlowHabit {
    bucket: u64,
    value: u64,
    fired: bool,
    first: Option<u64>,
    /// What each ended bucket taught; nothing where the program fired in it.
    learnt: BTreeMap<u64, Option<u64>>,
}

impl SlowHabit {
    fn exceeds(&mut self, tick: u64, bytes: u64) -> bool {
        let bucket = (tick - 1) / 60;
        if bucket > self.bucket {
            if self.first.is_some() {
                let most = self.limit().unwrap_or(f64::INFINITY) as u64;
                self.learnt.insert(self.bucket, (!self.fired).then_some(self.value.min(most)));
            }
            (self.bucket, self.value, self.fired) = (bucket, 0, false);
            self.learnt.retain(|old, _| *old + 30 >= bucket);
            self.first = self.first.map(|first| first.max(bucket - 30));
        }
        if bytes > 0 {
            self.first.get_or_insert(bucket);
        }
        self.value += bytes;
        let unusual = self.value >= 1_000_000 && self.limit().is_some_and(|limit| self.value as f64 > limit);
        let exceeds = self.value > 12_000_000 || unusual;
        self.fired |= exceeds;
        exceeds
    }

    fn limit(&self) -> Option<f64> {
        let first = self.first?;
        if self.bucket == first || (self.bucket - first) * 60 < 300 {
            return None;
        }
        let values: Vec<f64> = (first..self.bucket)
            .filter_map(|bucket| self.learnt.get(&bucket).copied().unwrap_or(Some(0)))
            .map(|value| value as f64)
            .collect();
        if values.is_empty() {
            return None;
        }
        let usual = median(values.clone());
        let distances = values.iter().map(|value| (value - usual).abs()).collect();
        let deviation = (1.4826 * median(distances)).max(usual * 0.05).max(1.0);
        Some(usual + deviation)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn owner(number: u64) -> Attribution {
    let executable = Executable { path: format!("/bin/program{number}").into(), ..Executable::default() };
    let key = ProcessKey { pid: 100 + number as u32, start: 1 };
    let process = Process { key, executable: Some(executable), ..Process::default() };
    Attribution::Known { process: Arc::new(process), evidence: Evidence::Kernel }
}

fn update(key: FlowKey, owner: &Attribution, timestamp: Timestamp, bytes_out: u64, bytes_in: u64) -> FlowUpdate {
    FlowUpdate {
        key,
        direction: Some(Direction::Outbound),
        counters: Counters {
            bytes_out: Bytes(bytes_out + 40),
            bytes_in: Bytes(bytes_in + 40),
            payload_out: Bytes(bytes_out),
            payload_in: Bytes(bytes_in),
            packets_out: Packets(1),
            packets_in: Packets(1),
        },
        attribution: owner.clone(),
        timestamp,
        state: FlowState::Established,
        end_reason: None,
    }
}
