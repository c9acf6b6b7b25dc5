//! What a rule holds back itself, by cooldown, cap or schedule, is told apart from what it says, and nothing is silent.

use std::sync::Arc;

use egret::engine::{Engine, Output, Settings};
use egret::packet::{Address, Endpoint, FiveTuple, Fragment, FrameDirection, Packet, Protocol};
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::time::Timestamp;
use egret::units::Bytes;

#[test]
fn a_cooldown_says_once_that_it_holds_something_back() {
    let told = run("cooldown: 60s", &[(0, 7), (20, 7), (40, 7)]);
    assert_eq!(
        told,
        ["1 firing 7", "11 resolved 7", "21 suppressed 7 by cooldown", "41 suppressed 7 by cooldown"],
        "each new excess within the cooldown is on record"
    );
}

#[test]
fn beyond_a_cap_alerts_begin_and_end_on_record_alone() {
    let told = run("limits: {max_alerts: {count: 1, per: 1h}}", &[(0, 7), (3, 8)]);
    assert_eq!(told, ["1 firing 7", "4 firing 8 by cap", "11 resolved 7", "14 resolved 8 by cap"]);
}

#[test]
fn outside_its_schedule_a_rule_says_what_it_would_have_said() {
    // The epoch was a Thursday.
    let told = run("active: {during: [weekend]}", &[(0, 7), (5, 7), (40, 7)]);
    assert_eq!(told, ["1 suppressed 7 by schedule", "41 suppressed 7 by schedule"], "once for each excess");
}

/// What is said about packets of a megabyte at these seconds, each to one address.
fn run(life: &str, packets: &[(i64, u8)]) -> Vec<String> {
    let rules = format!(
        "
version: 1
schedules: {{weekend: {{weekdays: [sat, sun], tz: UTC}}}}
rules:
  - {{id: upload, title: An upload, severity: high, match: {{direction: outbound}}, group_by: [dst.ip],
     window: 10s, when: {{bytes_out: {{gte: 1MB}}}}, {life}}}
"
    );
    let rules = compile(vec![Source::new("rules.yaml", rules)], &Options::default()).into_result();
    let mut engine = Engine::new(Settings::default(), Arc::new(rules.unwrap()));
    let mut told = Vec::new();
    let mut drain = |engine: &mut Engine| {
        while let Some(output) = engine.poll_output() {
            let (notification, by) = match output {
                Output::Notification(notification) => (notification, String::new()),
                Output::HeldBack(notification, by) => (notification, format!(" by {by}")),
                _ => continue,
            };
            let alert = notification.alert.expect("the rule's words are about alerts");
            let address = alert.group[0].1.to_string();
            let last = address.rsplit('.').next().unwrap().to_owned();
            assert!(!alert.state.uid.is_empty());
            told.push(format!("{} {} {last}{by}", notification.timestamp.as_secs(), alert.state.state));
        }
    };
    for second in 0..60 {
        for (_, address) in packets.iter().filter(|(at, _)| *at == second) {
            engine.handle_packet(&packet(second, *address));
        }
        engine.handle_timeout(Timestamp::from_secs(second + 1));
        drain(&mut engine);
    }
    told
}

fn packet(second: i64, address: u8) -> Packet<'static> {
    let end = |address: [u8; 4], port| Endpoint::new(Address::from_v4(address), port);
    Packet {
        timestamp: Timestamp::from_nanos(second * 1_000_000_000 + 500_000_000),
        five_tuple: FiveTuple {
            protocol: Protocol::TCP,
            source: end([10, 0, 0, 5], 40_000),
            destination: end([203, 0, 113, address], 443),
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
