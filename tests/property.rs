//! Windows, counts and the flow table against slow, obvious references.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use egret::engine::{Deltas, Engine, Output, Settings};
use egret::flow::{Counters, Flow, FlowKey, FlowLimits, FlowTable, LocalAddresses, OwnerSlot, Tag};
use egret::packet::{Address, Endpoint, FiveTuple, Fragment, FrameDirection, Packet, Protocol, TcpFlags};
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::time::Timestamp;
use egret::units::Bytes;
use egret::window::{Addition, Column, Layout, Recent, Room, Series, Span, Starts, Tick, Track, WindowRef};
use proptest::prelude::*;

/// Deltas: how many ticks after the one before, and how much.
fn deltas() -> impl Strategy<Value = Vec<(Tick, u64)>> {
    let step = prop_oneof![4 => 0..3u64, 2 => 0..40u64, 1 => 0..900u64];
    prop::collection::vec((step, 0..1_000_000u64), 1..200)
}

/// The sum of what was booked in `(now - length, now]`, one by one.
fn slow_sum(booked: &[(Tick, u64)], now: Tick, length: Tick) -> u64 {
    booked.iter().filter(|(tick, _)| tick + length > now && *tick <= now).map(|(_, value)| value).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// S(W) <= value < S(W + bucket): nothing of the window is missing, and
    /// less than one bucket is too much.
    #[test]
    fn a_window_covers_its_length_and_less_than_one_bucket_more(
        deltas in deltas(),
        lengths in prop::collection::vec(prop_oneof![1..90u64, Just(600), Just(3_600), Just(86_400)], 1..4),
    ) {
        let mut layout = Layout::default();
        layout.column(Column::BytesOut);
        let layout = layout.with_windows(lengths.iter().copied());
        let mut tracks: Vec<Track> = layout.tracks.iter().map(|spans| Track::new(spans, 1)).collect();
        let mut now = 1_000_000;
        let mut booked = Vec::new();
        for (step, value) in deltas {
            now += step;
            booked.push((now, value));
            for (track, spans) in tracks.iter_mut().zip(&layout.tracks) {
                track.add(spans, now, &[value]);
            }
            for length in &lengths {
                let window = layout.window(*length).unwrap();
                let Span { width, .. } = layout.span(window);
                let sum = tracks[window.track].sum(window.window, 0, 1);
                prop_assert!(slow_sum(&booked, now, *length) <= sum);
                prop_assert!(sum <= slow_sum(&booked, now, length + width - 1));
                let by_bucket = tracks[window.track].buckets(window.window, 0, 1).map(|(_, value)| value).sum::<u64>();
                prop_assert_eq!(by_bucket, sum, "the running sum is the sum of the buckets");
            }
        }
        for (track, spans) in tracks.iter_mut().zip(&layout.tracks) {
            track.advance(spans, now + 200_000, 1);
            prop_assert!(track.is_empty());
        }
    }

    /// Whether more than `n` different values were seen is exact for every limit up to the one kept for.
    #[test]
    fn distinct_decisions_are_exact(
        deltas in prop::collection::vec((0..4u64, 0..30u64), 1..300),
        length in 1..50u64,
        limit in 0..20u32,
    ) {
        let mut recent = Recent::default();
        let mut seen = Vec::new();
        let mut now = 100;
        for (step, value) in deltas {
            now += step;
            seen.push((now, value));
            recent.add(now, value, limit + 1);
            recent.advance(now, length);
            let slow: HashSet<u64> =
                seen.iter().filter(|(tick, _)| tick + length > now).map(|(_, value)| *value).collect();
            prop_assert_eq!(u64::from(recent.len()), (slow.len() as u64).min(u64::from(limit) + 1));
        }
    }

    /// The same for starts of connections.
    #[test]
    fn connection_counts_are_exact(
        deltas in prop::collection::vec((0..4u64, 1..5u32), 1..300),
        length in 1..50u64,
        limit in 0..20u32,
    ) {
        let mut starts = Starts::default();
        let mut seen = Vec::new();
        let mut now = 100;
        for (step, count) in deltas {
            now += step;
            seen.push((now, u64::from(count)));
            starts.add(now, count, limit + 1);
            let slow = slow_sum(&seen, now, length);
            prop_assert_eq!(u64::from(starts.count(now, length)), slow.min(u64::from(limit) + 1));
        }
    }

    /// A group that is held has `own <= true <= own + error`, and one with
    /// more than its part of the total is held.
    #[test]
    fn eviction_never_loses_the_heavy(
        deltas in prop::collection::vec((0..2u64, 0..60u64, prop_oneof![9 => 0..100u64, 1 => 0..10_000u64]), 1..400),
    ) {
        const GROUPS: usize = 10;
        let mut layout = Layout::default();
        layout.column(Column::BytesOut);
        let mut series: Series<u64, ()> = Series::new(layout.with_windows([30]), GROUPS);
        let window = WindowRef { track: 0, window: 0 };
        let mut booked: HashMap<u64, Vec<(Tick, u64)>> = HashMap::new();
        let mut now = 1_000;
        for (step, key, bytes) in deltas {
            now += step;
            let id = series.enter(key, now, Room::Some).unwrap();
            let mut addition = Addition::default();
            addition.set(Column::BytesOut, bytes);
            series.add(id, now, &addition);
            booked.entry(key).or_default().push((now, bytes));
            for id in series.ids().collect::<Vec<_>>() {
                let group = series.advance(id, now, Duration::from_secs(1)).unwrap();
                let (key, gauges) = (group.key, group.gauges.clone());
                let own = gauges.sum(series.layout(), window, 0);
                let truth = booked.get(&key).map_or(0, |booked| slow_sum(booked, now, 30));
                prop_assert!(own <= truth, "{own} of {truth}");
                prop_assert!(truth <= own + series.error(id, now, window, 0));
            }
        }
        let total: u64 = booked.values().map(|booked| slow_sum(booked, now, Tick::MAX / 8)).sum();
        for (key, booked) in &booked {
            if slow_sum(booked, now, 30) > total / GROUPS as u64 {
                prop_assert!(series.find(key).is_some(), "the heavy key {key} is not held");
            }
        }
    }

    /// What packets bring leaves the table exactly once, on the right flow and the right way: in the sum of the flow's
    /// tag as far as that is allowed, and by itself where it is not. A flow that ends tells all of it. Payloads are read
    /// on the flow that they passed on.
    #[test]
    fn the_flow_table_counts_every_byte_once(
        packets in prop::collection::vec(any_packet(), 1..300),
        pieces in prop::collection::vec(1..20usize, 1..30),
        allowances in prop::collection::vec(prop_oneof![Just(0u64), Just(1), Just(5_000), Just(u64::MAX)], 1..20),
        changes in prop::collection::vec(0..4u32, 1..20),
        max_flows in prop_oneof![Just(4usize), Just(1_000)],
    ) {
        let limits = FlowLimits { max_flows, idle_timeout: Duration::from_secs(3), active_timeout: None };
        let mut table: FlowTable<()> = FlowTable::new(limits);
        let local = LocalAddresses::new(["10.0.0.0/8".parse().unwrap()]);
        let mut told: BTreeMap<(Endpoint, Endpoint), (u64, u64)> = BTreeMap::new();
        let mut counted = told.clone();
        let book = |booked: &mut BTreeMap<_, _>, key: &FlowKey, counters: &Counters| {
            let Counters { bytes_out, packets_out, bytes_in, packets_in, .. } = counters;
            for (ends, bytes, packets) in
                [((key.local, key.remote), bytes_out, packets_out), ((key.remote, key.local), bytes_in, packets_in)]
            {
                let sum: &mut (u64, u64) = booked.entry(ends).or_default();
                *sum = (sum.0 + bytes.0, sum.1 + packets.0);
            }
        };
        // Every flow has a tag of its own, so that a sum says whose it is.
        let mut tags: Vec<FlowKey> = vec![FlowKey::default()];
        let (mut allowances, mut changes) = (allowances.iter().cycle(), changes.iter().cycle());
        let mut allow = |_, weight| Some(*allowances.next().unwrap()).filter(|&most| most >= weight).unwrap_or(0);
        let mut rest = packets.as_slice();
        let mut piece = pieces.iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*piece.next().unwrap()).min(rest.len()));
            table.observe(now, OwnerSlot(1), &local, &mut allow);
            let at = now.iter().map(|packet| packet.timestamp).max().unwrap();
            for seen in table.take_payloads() {
                let ends = table.ends(seen.id).map(|ends| (ends.key.local, ends.key.remote));
                let FiveTuple { source, destination, .. } = now[seen.packet].five_tuple;
                let sent = if seen.way == FrameDirection::Out { (source, destination) } else { (destination, source) };
                prop_assert!(ends.is_none_or(|ends| ends == sent), "a payload is read on its own flow, or not at all");
            }
            table.take_evicted().iter().for_each(|(flow, ())| book(&mut told, &flow.key, &flow.totals));
            let mut held = Vec::new();
            match changes.next().unwrap() {
                // The tick takes everything, takes what it needs not hold, or does not come.
                0 | 1 => {
                    table.settle(|tag, counters| book(&mut counted, &tags[tag.0 as usize], counters));
                    for (place, id) in table.drain().into_iter().enumerate() {
                        if place % 3 == 2 {
                            held.push(id);
                            continue;
                        }
                        let key = table.flow(id).unwrap().key;
                        book(&mut counted, &key, &table.take_counters(id));
                        table.set_tag(id, Tag(tags.len() as u32));
                        tags.push(key);
                    }
                }
                2 => table.clear_tags(),
                _ => {}
            }
            table.keep_dirty(&held);
            end_flows(&mut table, at, |flow, counters| {
                book(&mut counted, &flow.key, counters);
                book(&mut told, &flow.key, &flow.totals);
            });
            rest = later;
        }
        for hours in 1..4 {
            table.settle(|tag, counters| book(&mut counted, &tags[tag.0 as usize], counters));
            for id in table.drain() {
                let key = table.flow(id).unwrap().key;
                book(&mut counted, &key, &table.take_counters(id));
            }
            let late = Timestamp::from_secs(hours * 3_600 + 10_000_000_000 / 2);
            end_flows(&mut table, late, |flow, counters| {
                book(&mut counted, &flow.key, counters);
                book(&mut told, &flow.key, &flow.totals);
            });
        }
        let mut expected: BTreeMap<(Endpoint, Endpoint), (u64, u64)> = BTreeMap::new();
        for packet in &packets {
            let tuple = packet.five_tuple;
            let sum = expected.entry((tuple.source, tuple.destination)).or_default();
            *sum = (sum.0 + packet.bytes.0, sum.1 + 1);
        }
        let statistics = table.statistics();
        prop_assert_eq!(statistics.live, 0);
        for sums in [&mut counted, &mut told] {
            sums.retain(|_, sum| *sum != (0, 0));
        }
        prop_assert_eq!(&counted, &told);
        if statistics.refused == 0 {
            prop_assert_eq!(counted, expected);
        } else {
            let packets = |sums: &BTreeMap<_, (u64, u64)>| sums.values().map(|sum| sum.1).sum::<u64>();
            prop_assert_eq!(packets(&counted) + statistics.refused, packets(&expected));
        }
    }

    /// Flows about which nothing new can be concluded are booked together. That tells the same alerts with the same
    /// values as looking at each by itself, which an engine does whose deltas are wanted.
    #[test]
    fn flows_that_are_booked_together_tell_what_each_alone_tells(
        steps in prop::collection::vec((0..900u64, 0..4u8, 0..6u16, prop_oneof![9 => 40..1_500u64, 1 => 20_000..90_000u64], any::<bool>()), 200..900),
        reloads in prop::collection::btree_set(0..900usize, 0..6),
    ) {
        let rules = compile(vec![Source::new("rules.yaml", TOGETHER)], &Options::default()).into_result().unwrap();
        let rules = std::sync::Arc::new(rules);
        let local = LocalAddresses::new(["10.0.0.0/8".parse().unwrap()]);
        let engine = |deltas| Engine::new(Settings { local: local.clone(), deltas, ..Settings::default() }, rules.clone());
        let (mut together, mut alone) = (engine(Deltas::Off), engine(Deltas::On));
        let mut at = 0;
        for (place, (step, host, port, bytes, out)) in steps.into_iter().enumerate() {
            at += step;
            if reloads.contains(&place) {
                for engine in [&mut together, &mut alone] {
                    engine.replace_rules(rules.clone());
                }
            }
            let (here, there) = (end(0, 40_000 + port), Endpoint::new(Address::from_v4([203, 0, 113, host]), 443));
            let (source, destination) = if out { (here, there) } else { (there, here) };
            let packet = Packet {
                timestamp: Timestamp::from_nanos(1_777_860_000_000_000_000 + i64::try_from(at).unwrap() * 1_000_000),
                five_tuple: FiveTuple { protocol: Protocol::UDP, source, destination },
                bytes: Bytes(bytes),
                payload_bytes: Bytes(bytes - 28),
                tcp_flags: None,
                tcp_sequence: 0,
                fragment: Fragment::None,
                direction: None,
                interface: 0,
                payload: &[],
            };
            together.handle_packet(&packet);
            alone.handle_packet(&packet);
        }
        let (together, alone) = (told(together), told(alone));
        let is_shown = !alone.is_empty();
        prop_assert_eq!(together.len(), alone.len());
        for (mut together, mut alone) in together.into_iter().zip(alone) {
            let seen = [&mut together, &mut alone].map(take_evidence);
            prop_assert_eq!(&together, &alone);
            // Evidence begins where a group comes near to its limit, and within one tick that may be another flow.
            let conditions = alone["data"]["conditions"].as_array().unwrap();
            if let [condition] = &conditions[..] {
                let is_rate = condition["metric"] == "bytes_out.rate";
                let seconds = if is_rate { alone["data"]["window"]["length_s"].as_u64().unwrap() } else { 1 };
                let near = condition["limit"].as_u64().unwrap() * seconds / 64;
                prop_assert!(seen[0].abs_diff(seen[1]) <= near, "{:?} of {}", seen, alone);
            }
        }
        prop_assert!(is_shown, "rules that never fire show nothing");
    }
}

/// Removes the flows that end, each with what it had left.
fn end_flows(table: &mut FlowTable<()>, at: Timestamp, mut each: impl FnMut(&Flow, &Counters)) {
    for ended in table.expire(at) {
        let counters = table.take_counters(ended.id);
        each(&table.flow(ended.id).unwrap(), &counters);
        table.remove(ended.id);
    }
}

/// Rules near to their limits and far from them, over several metrics.
const TOGETHER: &str = "
version: 1
rules:
  - {id: out, title: Out, severity: low, match: {direction: outbound}, group_by: [dst.ip], window: 10s, when: {bytes_out: {gt: 60KB}}}
  - {id: total, title: Total, severity: low, match: {dst.port: 443}, group_by: [direction], window: 30s, when: {bytes_total: {gte: 300KB}}}
  - {id: packets, title: Packets, severity: low, match: {dst.ip: 203.0.113.0/31}, group_by: [src.ip], window: 5s, when: {packets_out: {gte: 8}}}
  - {id: rate, title: Rate, severity: low, match: {dst.ip: 203.0.113.2}, group_by: [dst.ip], window: 20s, when: {bytes_out.rate: {gt: 1kB/s}}}
  - id: both
    title: Both
    severity: low
    match: {proto: udp}
    group_by: [dst.ip]
    window: 15s
    when: {all: [{bytes_in: {gt: 20KB}}, {payload_out: {gt: 10KB}}]}
  - {id: far, title: Far, severity: low, match: {proto: udp}, group_by: [dst.ip], window: 60s, when: {bytes_out: {gt: 90MB}}}
";

/// Removes what an alert shows of single flows; the bytes out of those that it knew.
fn take_evidence(told: &mut serde_json::Value) -> u64 {
    let data = told["data"].as_object_mut().unwrap();
    for shown in ["source", "destination", "network", "summary"] {
        data.remove(shown);
    }
    let top = data.remove("top").unwrap();
    top["dst.ip"].as_array().map_or(0, |top| top.iter().map(|pair| pair[1].as_u64().unwrap()).sum())
}

fn told(mut engine: Engine) -> Vec<serde_json::Value> {
    engine.finish();
    let outputs = std::iter::from_fn(|| engine.poll_output());
    let notifications = outputs.filter_map(|output| match output {
        Output::Notification(notification) => Some(serde_json::to_value(&notification).unwrap()),
        _ => None,
    });
    notifications.collect()
}

/// A million deltas: the running sums of long-lived windows do not drift.
#[test]
fn a_million_deltas_leave_exact_sums() {
    let layout = Layout::default().with_windows([60, 600]);
    let mut tracks: Vec<Track> = layout.tracks.iter().map(|spans| Track::new(spans, 1)).collect();
    let mut booked: std::collections::VecDeque<(Tick, u64)> = std::collections::VecDeque::new();
    let mut random = Random(7);
    let mut now = 5_000;
    for round in 0..1_000_000u32 {
        now += random.below(10) / 9;
        let value = random.below(1 << 40);
        booked.push_back((now, value));
        for (track, spans) in tracks.iter_mut().zip(&layout.tracks) {
            track.add(spans, now, &[value]);
        }
        while booked.front().is_some_and(|(tick, _)| tick + 700 < now) {
            booked.pop_front();
        }
        if round % 5_000 == 0 {
            for length in [60, 600] {
                let window = layout.window(length).unwrap();
                let width = layout.span(window).width;
                let sum = tracks[window.track].sum(window.window, 0, 1);
                let booked = booked.make_contiguous();
                assert!(slow_sum(booked, now, length) <= sum, "round {round}");
                assert!(sum <= slow_sum(booked, now, length + width - 1), "round {round}");
            }
        }
    }
}

/// Packets between few ends, so that flows meet, end and begin again.
fn any_packet() -> impl Strategy<Value = Packet<'static>> {
    let flags = prop_oneof![
        4 => Just(None),
        1 => Just(Some(TcpFlags(TcpFlags::SYN))),
        1 => Just(Some(TcpFlags(TcpFlags::SYN | TcpFlags::ACK))),
        1 => Just(Some(TcpFlags(TcpFlags::FIN | TcpFlags::ACK))),
        1 => Just(Some(TcpFlags(TcpFlags::RST))),
        2 => Just(Some(TcpFlags(TcpFlags::ACK))),
    ];
    let direction =
        prop_oneof![3 => Just(None), 1 => Just(Some(FrameDirection::Out)), 1 => Just(Some(FrameDirection::In))];
    let bytes = prop_oneof![6 => 40..1_500u64, 1 => 3_000_000_000..6_000_000_000u64];
    let parts = (0..40u64, 0..4u8, 0..4u8, 0..3u16, 0..3u16, bytes, flags, direction);
    parts.prop_map(|(at, from, to, source, destination, bytes, tcp_flags, direction)| Packet {
        timestamp: Timestamp::from_nanos(i64::try_from(at).unwrap() * 500_000_000),
        five_tuple: FiveTuple {
            protocol: if tcp_flags.is_some() { Protocol::TCP } else { Protocol::UDP },
            source: end(from, source),
            destination: end(to, destination),
        },
        bytes: Bytes(bytes),
        payload_bytes: Bytes(bytes - 40),
        tcp_flags,
        tcp_sequence: 0,
        fragment: Fragment::None,
        direction,
        interface: 0,
        payload: b"?",
    })
}

/// Ends 0 and 1 are this host's, 2 and 3 are others'.
fn end(host: u8, port: u16) -> Endpoint {
    let address = if host < 2 { [10, 0, 0, host] } else { [203, 0, 113, host] };
    Endpoint::new(Address::from_v4(address), port)
}

/// A small generator of the same numbers each time (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
