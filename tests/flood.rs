//! An attacker makes keys: memory stays bounded, and who sends much still fires.

use std::sync::Arc;

use egret::engine::{Engine, Output, Settings};
use egret::packet::{Address, Endpoint, FiveTuple, Fragment, FrameDirection, Packet, Protocol};
use egret::rule::compile::{Options, compile};
use egret::rule::cost::Cost;
use egret::rule::diagnose::Source;
use egret::time::Timestamp;
use egret::units::Bytes;

const RULES: &str = "
version: 1
rules:
  - id: heavy
    title: Much to one address
    match: {}
    group_by: [dst.ip]
    window: 60s
    when: {bytes_out: {gte: 20MB}}
    limits: {max_groups: 2000}
";

/// Hostile addresses; a million take a minute without optimisation.
const KEYS: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

#[test]
fn a_heavy_group_fires_among_hostile_keys() {
    let rules = compile(vec![Source::new("rules.yaml", RULES)], &Options::default()).into_result().unwrap();
    let settings = Settings { max_flows: 20_000, ..Settings::default() };
    let stated = usize::try_from(Cost::of(&rules.rules[0]).max_bytes()).unwrap();
    let mut engine = Engine::new(settings, Arc::new(rules));
    let heavy = Address::from_v4([203, 0, 113, 7]);
    let mut most_bytes = 0;
    let mut told = Vec::new();
    for key in 0..KEYS {
        // All within 40 seconds.
        let at = Timestamp::from_nanos(i64::from(key) * (40_000_000_000 / i64::from(KEYS)));
        let hostile = Address::from_v4([100 + (key >> 16) as u8, (key >> 8) as u8, key as u8, 1]);
        engine.handle_packet(&packet(at, hostile, 100));
        if key % (KEYS / 20_000) == 0 {
            engine.handle_packet(&packet(at, heavy, 1_500));
        }
        if key % (KEYS / 100) == 0 {
            most_bytes = most_bytes.max(engine.statistics().group_bytes);
        }
        while let Some(output) = engine.poll_output() {
            if let Output::Notification(notification) = output {
                told.push(notification);
            }
        }
    }
    let statistics = engine.statistics();
    assert!(statistics.groups <= 2_000 && statistics.flows.live <= 20_000, "{statistics:?}");
    assert!(statistics.groups_evicted > u64::from(KEYS) / 2, "{statistics:?}");
    assert!(most_bytes < stated, "{most_bytes} bytes for 2,000 groups, {stated} stated");
    let alerts: Vec<_> = told.iter().filter_map(|told| told.alert.as_ref()).collect();
    assert_eq!(alerts.len(), 1, "the heavy group and no other");
    assert_eq!(alerts[0].group[0].1.to_string(), "203.0.113.7");
    let problems: Vec<_> = told.iter().filter_map(|told| told.problem.as_ref()).map(|problem| problem.id).collect();
    assert!(problems.contains(&"group-limit"), "what the limit cost is told: {problems:?}");
}

/// What `egret rules cost` says that a rule may take is enough for groups with full windows, and not far too much.
#[test]
fn the_stated_memory_is_what_full_groups_take() {
    for (window, when) in
        [("60s", "{bytes_out: {gte: 20MB}}"), ("10m", "[{bytes_total: {gte: 20MB}}, {packets_in: {gte: 9}}]")]
    {
        let text = format!(
            "rules: [{{id: one, match: {{}}, group_by: [dst.ip], window: {window}, when: {when}, limits: {{max_groups: 50}}}}]"
        );
        let rules =
            compile(vec![Source::new("rules.yaml", text.as_bytes())], &Options::default()).into_result().unwrap();
        let stated = Cost::of(&rules.rules[0]).max_bytes();
        let mut engine = Engine::new(Settings::default(), Arc::new(rules));
        for second in 0..700 {
            for host in 0..50 {
                let at = Timestamp::from_nanos(second * 1_000_000_000 + i64::from(host));
                engine.handle_packet(&packet(at, Address::from_v4([203, 0, 113, host]), 100));
            }
        }
        let held = engine.statistics().group_bytes as u64;
        assert_eq!(engine.statistics().groups, 50);
        assert!(held <= stated && stated < 3 * held, "{held} held, {stated} stated: {when}");
    }
}

fn packet(timestamp: Timestamp, to: Address, bytes: u64) -> Packet<'static> {
    let source = Endpoint::new(Address::from_v4([10, 0, 0, 5]), 40_000);
    Packet {
        timestamp,
        five_tuple: FiveTuple { protocol: Protocol::UDP, source, destination: Endpoint::new(to, 443) },
        bytes: Bytes(bytes),
        payload_bytes: Bytes(bytes),
        tcp_flags: None,
        tcp_sequence: 0,
        fragment: Fragment::None,
        direction: Some(FrameDirection::Out),
        interface: 0,
        payload: &[],
    }
}
