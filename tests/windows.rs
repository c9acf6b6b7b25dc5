//! Windows over real captures: what must fire does, and nothing else.
//!
//! Every packet is made to go out, so that `bytes_out` by `src.ip` and `dst.ip`
//! is what one address sent to another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use egret::alert::DocumentKind;
use egret::capture::offline::Reader;
use egret::engine::{Engine, Output, Settings};
use egret::packet::{Address, Fragments, FrameDirection, decode};
use egret::rule::RuleSet;
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use serde_json::Value;

use crate::support::data;

type Pair = (IpAddr, IpAddr);

#[test]
fn a_threshold_fires_for_exactly_the_pairs_above_it() {
    let mut cases_seen = 0;
    for (name, expected) in expected() {
        let Some(cases) = expected.get("threshold_cases") else { continue };
        let mut rules = String::from("version: 1\nrules:\n");
        let mut fires = BTreeMap::new();
        for (number, case) in cases.as_array().unwrap().iter().enumerate() {
            let (window, bytes) = (&case["window_seconds"], &case["bytes_over"]);
            write_rule(&mut rules, &format!("case-{number}"), "{}", window, bytes);
            let pairs: BTreeSet<Pair> = case["fires"].as_array().unwrap().iter().map(pair).collect();
            fires.insert(format!("case-{number}"), pairs);
            cases_seen += 1;
        }
        let mut found = fired(&data::path(&name).unwrap(), &rules);
        for id in fires.keys() {
            found.entry(id.clone()).or_default();
        }
        assert_eq!(found, fires, "{name}");
    }
    assert!(cases_seen > 50 || data::path("captures").is_none());
}

/// Windows move from tick to tick. So the largest sum in any window is never
/// missed by one that is longer by a tick, and none ever shows more than the
/// largest sum in a window longer by a bucket.
#[test]
fn no_window_misses_its_peak_or_invents_one() {
    let mut peaks_seen = 0;
    for (name, expected) in expected() {
        let monotonic = !expected.get("notes").is_some_and(|notes| notes.to_string().contains("not_monotonic"));
        let (Some(peaks), true) = (expected.get("window_peaks"), monotonic) else { continue };
        let path = data::path(&name).unwrap();
        let sent = packets_by_pair(&path);
        let mut rules = String::from("version: 1\nrules:\n");
        let mut must_fire = BTreeMap::new();
        for (number, row) in peaks.as_array().unwrap().iter().enumerate() {
            let (source, destination) = pair(row);
            let condition = format!("{{src.ip: \"{source}\", dst.ip: \"{destination}\"}}");
            for (window, peak) in row[2].as_object().unwrap() {
                let seconds: u64 = window.parse().unwrap();
                let bucket = (seconds / 60).max(1);
                let peak = peak.as_u64().unwrap();
                let above = largest_sum(&sent[&(source, destination)], seconds + bucket);
                write_rule(&mut rules, &format!("reached-{number}-{window}"), &condition, seconds + 1, peak - 1);
                write_rule(&mut rules, &format!("beyond-{number}-{window}"), &condition, seconds, above);
                must_fire.insert(format!("reached-{number}-{window}"), BTreeSet::from([(source, destination)]));
                peaks_seen += 1;
            }
        }
        assert_eq!(fired(&path, &rules), must_fire, "{name}");
    }
    assert!(peaks_seen > 500 || data::path("captures").is_none());
}

/// The packets of a capture tell the same alerts, to the letter, in pieces of any size and with extra wake-ups.
#[test]
fn a_capture_tells_the_same_however_it_is_cut() {
    const RULES: &str = "
version: 1
rules:
  - {id: much, title: Much, severity: low, match: {}, group_by: [src.ip], window: 10s, when: {bytes_out: {gt: 20kB}}}
  - {id: many, title: Many, severity: low, match: {}, group_by: [src.ip], window: 60s, when: {connections: {gt: 3}}}
  - {id: wide, title: Wide, severity: low, match: {}, group_by: [src.ip], window: 60s, when: {distinct(dst.ip): {gt: 2}}}
  - {id: long, title: Long, severity: low, match: {}, group_by: [src.ip, dst.ip], window: 5s, for: 3s, when: {packets_out: {gt: 2}}}
";
    let rules = Arc::new(compiled(RULES));
    let mut fired = 0;
    for (name, expected) in expected() {
        let frames = expected["totals"]["frames"].as_u64().unwrap();
        if !(20..20_000).contains(&frames) {
            continue;
        }
        let path = data::path(&name).unwrap();
        let whole = told_in_pieces(&path, &rules, 1 << 20, false);
        fired += whole.len();
        for (size, wakeful) in [(1, false), (7, true), (97, true)] {
            assert_eq!(told_in_pieces(&path, &rules, size, wakeful), whole, "{name}: {size} at a time");
        }
    }
    assert!(fired > 200 || data::path("captures").is_none(), "{fired} notifications");
}

/// Every notification, with packets handed over `size` at a time; a wakeful engine is woken at the time of each piece.
fn told_in_pieces(capture: &Path, rules: &Arc<RuleSet>, size: usize, wakeful: bool) -> Vec<String> {
    let mut engine = Engine::new(Settings::default(), Arc::clone(rules));
    let mut fragments = Fragments::default();
    let mut reader = Reader::open(capture).unwrap();
    let mut told = Vec::new();
    let mut drain = |engine: &mut Engine| {
        while let Some(output) = engine.poll_output() {
            if let Output::Notification(notification) = output {
                told.push(serde_json::to_string(&notification).unwrap());
            }
        }
    };
    while let Some(batch) = reader.next_batch() {
        let packets: Vec<_> = batch.filter_map(|record| decode(&record.frame, &mut fragments).ok()).collect();
        for piece in packets.chunks(size) {
            if wakeful {
                engine.handle_timeout(piece[0].timestamp);
                drain(&mut engine);
            }
            engine.handle_packets(piece);
        }
    }
    engine.handle_timeout(engine.now().after(std::time::Duration::from_secs(300)));
    engine.finish();
    drain(&mut engine);
    told
}

fn write_rule(
    rules: &mut String,
    id: &str,
    condition: &str,
    seconds: impl std::fmt::Display,
    over: impl std::fmt::Display,
) {
    writeln!(
        rules,
        "  - {{id: {id}, title: A pair over its threshold, severity: low, match: {condition}, \
         group_by: [src.ip, dst.ip], window: {seconds}s, when: {{bytes_out: {{gt: {over}}}}}}}"
    )
    .unwrap();
}

/// Suricata tells of each event past a threshold; here an alert is a state, told once when it begins.
/// So each case is compared as the thresholds above which that state begins, and those above which not.
#[test]
fn counts_reach_the_thresholds_that_suricata_counted() {
    let Some(expected) = data::path("expected/thresholds.json") else { return };
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let capture = data::path(expected["capture"].as_str().unwrap()).unwrap();
    for case in expected["cases"].as_array().unwrap() {
        let (rule, alerts) = (case["rule"].as_str().unwrap(), case["alerts"].as_u64().unwrap());
        let thresholds = match rule {
            // Every event tells: there were as many.
            "no threshold" => vec![(alerts - 1, true), (alerts, false)],
            // Every event after the first `count` tells.
            _ if rule.starts_with("detection_filter") => {
                let count: u64 = rule.rsplit(' ').next().unwrap().parse().unwrap();
                vec![(count, alerts > 0), ((count + alerts).saturating_sub(1), true), (count + alerts, false)]
            }
            // The third event tells, and no other.
            _ if rule.starts_with("both: one alert when the 3rd event") => vec![(2, true)],
            // The first tells and perhaps a second one: here an alert goes on and is not told again.
            _ if rule.starts_with("limit: at most") => vec![(0, true)],
            other => panic!("the data has a case that is not understood: {other}"),
        };
        for (over, fires) in thresholds {
            let rules = format!(
                "version: 1\nrules:\n  - {{id: requests, title: Echo requests, severity: low, \
                 match: {{proto: icmp, src.ip: 192.168.0.89}}, group_by: [src.ip, dst.ip], window: 1h, \
                 when: {{packets_out: {{gt: {over}}}}}}}"
            );
            assert_eq!(told(&capture, &rules).len(), usize::from(fires), "{rule}: more than {over}");
        }
    }
}

/// For each rule that fired the pairs for which it did.
fn fired(capture: &Path, rules: &str) -> BTreeMap<String, BTreeSet<Pair>> {
    let mut fired = BTreeMap::<String, BTreeSet<Pair>>::new();
    for (id, pair) in told(capture, rules) {
        fired.entry(id).or_default().insert(pair);
    }
    fired
}

/// Every alert that fired: its rule and its pair.
fn told(capture: &Path, rules: &str) -> Vec<(String, Pair)> {
    let mut engine = Engine::new(Settings::default(), Arc::new(compiled(rules)));
    let mut fragments = Fragments::default();
    let mut reader = Reader::open(capture).unwrap();
    let mut fired = Vec::new();
    let mut drain = |engine: &mut Engine| {
        while let Some(output) = engine.poll_output() {
            let Output::Notification(notification) = output else { continue };
            let (DocumentKind::Firing, Some(alert)) = (notification.kind, &notification.alert) else { continue };
            let group = serde_json::to_value(alert).unwrap()["group"].clone();
            let address = |field: &str| group[field].as_str().unwrap().parse::<IpAddr>().unwrap();
            fired.push((alert.rule.metadata.id.to_string(), (address("src.ip"), address("dst.ip"))));
        }
    };
    while let Some(batch) = reader.next_batch() {
        for record in batch {
            if let Ok(mut packet) = decode(&record.frame, &mut fragments) {
                packet.direction = Some(FrameDirection::Out);
                engine.handle_packet(&packet);
                drain(&mut engine);
            }
        }
    }
    engine.handle_timeout(engine.now().after(std::time::Duration::from_secs(300)));
    engine.finish();
    drain(&mut engine);
    fired
}

fn compiled(rules: &str) -> RuleSet {
    match compile(vec![Source::new("rules.yaml", rules)], &Options::default()).into_result() {
        Ok(rules) => rules,
        Err(report) => panic!("{report:?}"),
    }
}

/// For each pair the time in nanoseconds and the bytes of its packets.
fn packets_by_pair(capture: &Path) -> BTreeMap<Pair, Vec<(i64, u64)>> {
    let mut sent = BTreeMap::<Pair, Vec<(i64, u64)>>::new();
    let mut fragments = Fragments::default();
    let mut reader = Reader::open(capture).unwrap();
    while let Some(batch) = reader.next_batch() {
        for record in batch {
            let Ok(packet) = decode(&record.frame, &mut fragments) else { continue };
            let ends = [packet.five_tuple.source, packet.five_tuple.destination].map(|end| end.address.ip());
            sent.entry((ends[0], ends[1])).or_default().push((packet.timestamp.as_nanos(), packet.bytes.0));
        }
    }
    sent
}

/// The largest sum of bytes in any window of so many seconds.
fn largest_sum(packets: &[(i64, u64)], seconds: u64) -> u64 {
    let length = seconds as i64 * 1_000_000_000;
    let ending_at = |end: i64| packets.iter().filter(move |(at, _)| end - length < *at && *at <= end);
    packets.iter().map(|(end, _)| ending_at(*end).map(|(_, bytes)| bytes).sum()).max().unwrap_or(0)
}

fn pair(row: &Value) -> Pair {
    let address = |index: usize| Address::from(row[index].as_str().unwrap().parse::<IpAddr>().unwrap()).ip();
    (address(0), address(1))
}

fn expected() -> BTreeMap<String, Value> {
    match data::path("expected/captures.json") {
        Some(path) => serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(),
        None => BTreeMap::new(),
    }
}
