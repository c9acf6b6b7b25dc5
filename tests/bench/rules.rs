//! What rules cost: flow deltas a second and core, different values against a
//! plain count, checking a thousand rules, and a flood of a million groups.
//!
//! Times are what the kernel says of this process or of its children, medians
//! of several rounds, so that a loaded machine disturbs them little.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use egret::attribution::{Attribution, Evidence, Executable, FlowUpdate, Process, ProcessKey};
use egret::engine::{Engine, Output, Settings};
use egret::flow::{Counters, Direction, FlowKey, FlowState};
use egret::packet::{Address, Endpoint, Protocol};
use egret::rule::RuleSet;
use egret::rule::compile::{Options, compile};
use egret::rule::cost::Cost;
use egret::rule::diagnose::Source;
use egret::time::Timestamp;
use egret::units::{Bytes, Packets};

fn main() {
    deltas();
    distinct();
    check();
    flood();
}

/// A hundred rules, one a program and some for every program, with 20,000 groups that live.
fn deltas() {
    for (general, title) in [(0, "each delta counts for 1 rule"), (4, "each delta counts for 5 rules")] {
        let mut text = String::from("version: 1\nrules:\n");
        for number in 0..RULES - general {
            write_rule(
                &mut text,
                number,
                &format!("{{exe: /opt/bin/program{number}, direction: outbound}}"),
                "[exe, dst.ip]",
            );
        }
        for number in RULES - general..RULES {
            write_rule(&mut text, number, "{direction: outbound}", "[exe]");
        }
        let rules = rules(&text);
        let programs = RULES - general;
        let updates: Vec<FlowUpdate> =
            (0..GROUPS).map(|number| update(number % programs, address(number / programs), 443, 1_000)).collect();
        let mut engine = Engine::new(Settings::default(), rules);
        let rate = rate(&mut engine, &updates);
        let groups = engine.statistics().groups;
        println!("deltas    {:>6.2} million a second and core   {RULES} rules, {groups} groups, {title}", rate / 1e6);
        assert!(groups >= GROUPS, "{groups} groups live");
    }
}

/// One group whose window holds 1,800 different values of the 2,000 that its limit allows, against the same deltas
/// counted plainly, as near to their limit: near it each flow is looked at by itself, for the evidence. And against
/// a count that is far from its limit, which needs no such look.
fn distinct() {
    let updates: Vec<FlowUpdate> = (0..1_800u16).map(|port| update(0, address(0), 1_024 + port, 1_000)).collect();
    let rate_of = |condition: &str| {
        let rules =
            rules(&format!("rules: [{{id: one, match: {{}}, group_by: [exe], window: 60s, when: {{{condition}}}}}]"));
        rate(&mut Engine::new(Settings::default(), rules), &updates)
    };
    let count = rate_of("packets_out: {gte: 120000}");
    let far = rate_of("packets_out: {gte: 1000000000}");
    let distinct = rate_of("distinct(dst.port): {gt: 2000}");
    println!(
        "distinct  {:>6.2} million a second, 1,800 values in the window   {:.2} of a plain count as near to its limit \
         ({:.2} million), at least 0.5; far from it {:.2} million",
        distinct / 1e6,
        distinct / count,
        count / 1e6,
        far / 1e6,
    );
}

/// `egret check` of a thousand rules, from the start of the program to its end.
fn check() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut text = String::from("version: 1\nmacros: {external: {dst.scope: public, direction: outbound}}\nrules:\n");
    for number in 0..1_000 {
        let _ = writeln!(
            text,
            "  - id: rule-{number}\n    title: Rule {number}\n    severity: high\n    attack: [T1567.002]\n    \
             owner: soc@example.org\n    note: Ask the user.\n    \
             match: {{all: [$external, {{exe: [/opt/a{number}, \"/opt/**/b{number}*\"]}}, {{not: {{dst.domain: $cloud_storage}}}}]}}\n    \
             group_by: [exe, user, dst.registered_domain]\n    window: 10m\n    \
             when: [{{bytes_out: {{gte: {number}MB}}}}, {{upload_ratio: {{gte: 0.8}}}}]\n    \
             summary: \"{{{{ exe }}}} sent {{{{ bytes_out | bytes }}}}\"\n    \
             exceptions: [{{name: known, fields: [exe, user], values: [[/opt/c{number}, svc]]}}]"
        );
    }
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, text).expect("room for the rules");
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let before = children_time();
            let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
            let status = command.arg("check").arg(&file).stdout(Stdio::null()).status().expect("egret starts");
            assert!(status.success(), "the rules are right");
            children_time() - before
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "check     {:>6.0} ms for 1,000 rules   (best {:.0}, worst {:.0})",
        times[4] * 1e3,
        times[0] * 1e3,
        times[8] * 1e3
    );
}

/// A million groups offered to a rule that may hold 20,000, one heavy group among them.
fn flood() {
    let text = "rules: [{id: heavy, match: {}, group_by: [exe, dst.ip], window: 60s, when: {bytes_out: {gte: 20MB}}, limits: {max_groups: 20000}}]";
    let rules = rules(text);
    let stated = Cost::of(&rules.rules[0]).max_bytes();
    let settings = Settings { max_flows: 20_000, ..Settings::default() };
    let mut engine = Engine::new(settings, rules);
    let before = resident();
    let (mut most, mut alerts) = (0, 0);
    for batch in 0..1_000u32 {
        // All within fifty seconds.
        let at = Timestamp::from_secs(START).after(Duration::from_millis(u64::from(batch) * 50));
        let hostile = (0..1_000).map(|key| update(1, address(10 + batch * 1_000 + key), 443, 100));
        let heavy = std::iter::once(update(0, address(1), 443, 30_000));
        for mut update in hostile.chain(heavy) {
            update.timestamp = at;
            engine.handle_update(&update);
        }
        most = most.max(engine.statistics().group_bytes);
        while let Some(output) = engine.poll_output() {
            if let Output::Notification(notification) = output
                && let Some(alert) = &notification.alert
            {
                assert_eq!(alert.group[1].1.to_string(), address(1).to_string(), "only the heavy one");
                alerts += 1;
            }
        }
    }
    let grown = resident().saturating_sub(before);
    let statistics = engine.statistics();
    println!(
        "flood     {:>6.1} MB for the groups, {:.1} stated, {:.1} more in the process   {} groups, {} evicted, {} alerts of the heavy one",
        most as f64 / 1e6,
        stated as f64 / 1e6,
        grown as f64 / 1e6,
        statistics.groups,
        statistics.groups_evicted,
        alerts,
    );
    assert!(statistics.groups <= 20_000, "{} groups", statistics.groups);
    assert_eq!(alerts, 1, "the heavy group fired once");
}

fn write_rule(text: &mut String, number: usize, block: &str, groups: &str) {
    let _ = writeln!(
        text,
        "  - {{id: rule-{number}, match: {block}, group_by: {groups}, window: 60s, when: {{bytes_out: {{gte: 10GB}}}}}}"
    );
}

fn rules(text: &str) -> Arc<RuleSet> {
    let compiled = compile(vec![Source::new("rules.yaml", text)], &Options::default());
    Arc::new(compiled.into_result().unwrap_or_else(|report| panic!("{report}")))
}

/// Deltas a second of processor time: every flow reports once a tick.
fn rate(engine: &mut Engine, updates: &[FlowUpdate]) -> f64 {
    let count = updates.len();
    let mut updates = updates.to_vec();
    let mut second = START;
    let mut tick = |engine: &mut Engine| {
        second += 1;
        updates.iter_mut().for_each(|update| update.timestamp = Timestamp::from_secs(second));
        let before = own_time();
        engine.handle_updates(&updates, &[]);
        engine.handle_timeout(Timestamp::from_secs(second).after(Duration::from_millis(999)));
        own_time() - before
    };
    // The windows fill.
    for _ in 0..70 {
        tick(engine);
    }
    let rounds = (4_000_000 / count).max(ROUNDS);
    let mut times: Vec<f64> = (0..rounds).map(|_| tick(engine)).collect();
    times.sort_by(f64::total_cmp);
    count as f64 / times[times.len() / 2]
}

fn update(program: usize, remote: Address, port: u16, bytes: u64) -> FlowUpdate {
    let executable = Executable { path: format!("/opt/bin/program{program}").into(), ..Executable::default() };
    let key = ProcessKey { pid: 1_000 + u32::try_from(program).expect("few programs"), start: 1 };
    let process = Process { key, executable: Some(executable), ..Process::default() };
    let local = Endpoint::new(Address::from_v4([10, 0, 0, 5]), 40_000);
    FlowUpdate {
        key: FlowKey { protocol: Protocol::TCP, local, remote: Endpoint::new(remote, port), ..FlowKey::default() },
        direction: Some(Direction::Outbound),
        counters: Counters {
            bytes_out: Bytes(bytes),
            payload_out: Bytes(bytes),
            packets_out: Packets(1),
            ..Counters::default()
        },
        attribution: attribution(program, process),
        timestamp: Timestamp::from_secs(START),
        state: FlowState::Established,
        end_reason: None,
    }
}

/// A process is one value for all of its flows, as the sources give it.
fn attribution(program: usize, process: Process) -> Attribution {
    use std::cell::RefCell;
    use std::collections::HashMap;
    thread_local!(static KNOWN: RefCell<HashMap<usize, Arc<Process>>> = RefCell::default());
    let process =
        KNOWN.with(|known| Arc::clone(known.borrow_mut().entry(program).or_insert_with(|| Arc::new(process))));
    Attribution::Known { process, evidence: Evidence::Kernel }
}

fn address(number: impl TryInto<u32>) -> Address {
    let number = number.try_into().unwrap_or(0);
    Address::from_v4((0x6000_0000 + number).to_be_bytes())
}

/// Seconds of processor time that this thread has used.
fn own_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds of processor time that ended children have used.
fn children_time() -> f64 {
    // SAFETY: a zeroed rusage is what the call fills in.
    #[allow(unsafe_code)]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let status = procfs::process::Process::myself().and_then(|process| process.status()).expect("/proc/self/status");
    usize::try_from(status.vmrss.unwrap_or(0)).unwrap_or(0) * 1024
}

const RULES: usize = 100;
const GROUPS: usize = 20_000;
const ROUNDS: usize = 15;
/// A Monday, 02:00 UTC.
const START: i64 = 1_777_860_000;
