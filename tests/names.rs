//! The names in other people's captures: all of them found, none invented.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use assert_cmd::Command;
use egret::capture::offline::Reader;
use egret::flow::{Direction, FlowKey};
use egret::names::{FlowNames, Names, Segment, dns};
use egret::packet::{Fragment, Fragments, FrameDirection, Packet, Protocol, decode};
use serde_json::Value;

use crate::support::data;

#[test]
fn the_names_of_captures_are_found_and_none_is_invented() {
    let Some(expected) = data::path("expected/captures.json") else { return };
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let mut with_names = 0;
    for (file, facts) in expected.as_object().unwrap() {
        // Names were listed for some of the captures only.
        let Some(names) = facts.get("names").filter(|names| names.is_object()) else { continue };
        let seen = NamesOfCapture::read(&data::path(file).unwrap());
        assert_eq!(seen.answers, wanted(&names["dns_answers"]), "{file}");
        assert_eq!(seen.server_names, wanted(&names["tls_sni"]), "{file}");
        assert_eq!(seen.hosts, without_ports(wanted(&names["http_host"])), "{file}");
        with_names += 1;
    }
    assert_eq!(with_names, 15);
}

#[test]
fn flows_and_rules_see_the_names() {
    let Some(capture) = data::path("captures/nanosecond/tls.pcap") else { return };
    let places = data::path("mmdb/GeoLite2-ASN-Test.mmdb").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    let flows = command.args(["flows", "--output", "json", "--db"]).arg(places).arg(&capture).assert().success();
    let lines = String::from_utf8(flows.get_output().stdout.clone()).unwrap();
    let flow: Value = lines.lines().map(|line| serde_json::from_str(line).unwrap()).find(is_to_the_server).unwrap();
    let expected = [
        ("l7", "tls"),
        ("domain", "kernel.org"),
        ("domain_source", "sni"),
        ("domain_trust", "unconfirmed"),
        ("sni", "kernel.org"),
        ("registered_domain", "kernel.org"),
    ];
    for (key, value) in expected {
        assert_eq!(flow[key], value, "{key} in {flow}");
    }
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    let replay = command.args(["replay", "--output", "json", "--rules"]).arg(&rules).arg(&capture).assert().success();
    let lines = String::from_utf8(replay.get_output().stdout.clone()).unwrap();
    let fired = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let fired: BTreeSet<String> =
        fired.filter_map(|line| line.pointer("/data/rule/id").and_then(Value::as_str).map(str::to_owned)).collect();
    assert_eq!(fired, BTreeSet::from(["name-nobody-confirms".into(), "tls-to-kernel-org".into()]), "{lines}");
}

#[test]
fn the_shipped_rule_catches_a_dns_tunnel_and_leaves_other_look_ups_alone() {
    let Some(captures) = data::path("captures") else { return };
    let tunnel = captures.join("exfil-dns/dns-tunnel-iodine.pcap");
    assert_eq!(tunnels_in(&tunnel), ["pirate.sea"]);
    for quiet in ["ethernet/wikipedia.pcap", "pcapng-interfaces/pcapng-multi-interface.pcapng", "exfil-smtp/smtp.pcap"]
    {
        assert_eq!(tunnels_in(&captures.join(quiet)), [""; 0], "{quiet}");
    }
}

#[test]
fn busy_but_honest_look_ups_are_no_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let (honest, tunnel) = (folder.path().join("honest.pcap"), folder.path().join("tunnel.pcap"));
    // A page with many hosts of many content networks, and a log analyser that resolves every address back.
    let pages = (0..400).map(|number| format!("img{number}.cdn{}.example", number % 40));
    let reverse = (0..1000).map(|number| format!("{}.{}.113.203.in-addr.arpa", number % 250, number / 250));
    write_questions(&honest, pages.chain(reverse));
    assert_eq!(tunnels_in(&honest), [""; 0]);
    write_questions(&tunnel, (0..160).map(|number| format!("{number:032x}.t.tunnel.example")));
    assert_eq!(tunnels_in(&tunnel), ["tunnel.example"]);
}

#[test]
fn tunnels_that_wait_and_tunnels_that_send_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("tunnel.pcap");
    let (host, server) = (([10, 0, 0, 5], 40_000), ([198, 51, 100, 53], 53));
    let ask = |millis, name: String| Datagram { millis, from: host, to: server, payload: question(1, &name) };
    // dnscat2 asks once a second while nothing happens: a session, a sequence number, no data.
    let waiting: Vec<Datagram> =
        (0..320).map(|second| ask(second * 1000, format!("dnscat.a31b{second:04x}00ff.c2.example"))).collect();
    write_capture(&capture, &waiting);
    assert_eq!(tunnels_in(&capture), ["c2.example"]);
    // dns2tcp sends a stream in labels of 63 letters, base64, as fast as it is answered.
    let stream = |number: u32| format!("{number:063}.{number:063}.{number:040}.tcp.example");
    let sending: Vec<Datagram> = (0..160).map(|number| ask(number * 30, stream(number))).collect();
    write_capture(&capture, &sending);
    assert_eq!(tunnels_in(&capture), ["tcp.example"]);
    // As many questions, all for the same few names, are a client without a cache.
    let again: Vec<Datagram> =
        (0..2000).map(|number| ask(number * 30, format!("www{}.shop.example", number % 9))).collect();
    write_capture(&capture, &again);
    assert_eq!(tunnels_in(&capture), [""; 0]);
}

#[test]
fn a_resolver_of_this_host_carries_questions_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("stub.pcap");
    let mut packets = Vec::new();
    for number in 0..10u8 {
        let (millis, name) = (u32::from(number) * 100, format!("n{number}.example.net"));
        let (dig, stub) = (([127, 0, 0, 1], 40_000 + u16::from(number)), ([127, 0, 0, 53], 53));
        packets.push(Datagram { millis, from: dig, to: stub, payload: question(number, &name) });
        let (resolver, server) = (([10, 0, 0, 5], 50_000 + u16::from(number)), ([198, 51, 100, 53], 53));
        packets.push(Datagram { millis: millis + 1, from: resolver, to: server, payload: question(99, &name) });
        // The resolver asks something for itself, too.
        let own = question(98, &format!("own{number}.example.org"));
        packets.push(Datagram { millis: millis + 2, from: resolver, to: server, payload: own });
    }
    write_capture(&capture, &packets);
    let owner = |local: String, remote: &str, exe: &str| {
        format!(r#"{{"proto":"udp","local":"{local}","remote":"{remote}","pid":{},"exe":"{exe}"}}"#, exe.len())
    };
    let owners: Vec<String> = (0..10)
        .flat_map(|number| {
            [
                owner(format!("127.0.0.1:{}", 40_000 + number), "127.0.0.53:53", "/usr/bin/dig"),
                owner(format!("10.0.0.5:{}", 50_000 + number), "198.51.100.53:53", "/usr/sbin/resolved"),
            ]
        })
        .collect();
    let alerts = replay(&capture, CARRIED, Some(&owners.join("\n")));
    let told: BTreeSet<(String, String, String, u64)> = alerts
        .iter()
        .map(|alert| {
            let text = |pointer: &str| alert.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let count = alert["values"]["dns.queries"].as_u64().unwrap();
            (text("/rule/id"), text("/group/exe"), text("/process/evidence"), count)
        })
        .collect();
    let expected = [
        // Once, though it goes by twice.
        ("anywhere", "/usr/bin/dig", "declared", 10),
        ("anywhere", "/usr/sbin/resolved", "declared", 10),
        ("on-the-wire", "/usr/bin/dig", "carrier", 10),
        ("on-the-wire", "/usr/sbin/resolved", "declared", 10),
    ];
    let expected = expected.map(|(rule, exe, evidence, count)| (rule.into(), exe.into(), evidence.into(), count));
    assert_eq!(told, BTreeSet::from(expected));
}

const CARRIED: &str = r#"
version: 1
rules:
  - {id: anywhere, match: {dst.port: 53}, group_by: [exe], window: 1m, when: {dns.queries: {gte: 10}}}
  - id: on-the-wire
    match: {dst.port: 53, not: {dst.scope: loopback}}
    group_by: [exe]
    window: 1m
    when: {dns.queries: {gte: 10}}
  - {id: too-many, match: {dst.port: 53}, group_by: [exe], window: 1m, when: {dns.queries: {gte: 11}}}
"#;

#[test]
fn an_alert_names_the_list_and_the_entry() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("listed.pcap");
    let stub = ([10, 0, 0, 5], 40_000);
    let server = ([198, 51, 100, 53], 53);
    let packets = [
        Datagram { millis: 0, from: stub, to: server, payload: question(1, "up.drop.example.net") },
        Datagram { millis: 10, from: server, to: stub, payload: answer(1, "up.drop.example.net", [203, 0, 113, 7]) },
        Datagram { millis: 20, from: ([10, 0, 0, 5], 50_000), to: ([203, 0, 113, 7], 4000), payload: vec![1; 100] },
    ];
    write_capture(&capture, &packets);
    let threats = folder.path().join("threats.txt");
    std::fs::write(&threats, "# seen in May\n203.0.113.0/28\n192.0.2.1\n").unwrap();
    let rules = LISTED.replace("THREATS", threats.to_str().unwrap());
    let alerts = replay(&capture, &rules, None);
    let matches: Vec<(&Value, &Value)> = alerts.iter().map(|alert| (&alert["rule"]["id"], &alert["matches"])).collect();
    let by_network = serde_json::json!([{"field": "dst.ip", "list": "threats", "entry": "203.0.113.0/28"}]);
    let by_name = serde_json::json!([{"field": "dst.domain", "list": "drops", "entry": "*.drop.example.net"}]);
    assert_eq!(
        matches,
        [(&"by-name".into(), &by_name), (&"by-network".into(), &by_network), (&"not-by-a-list".into(), &Value::Null)]
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    let written = folder.path().join("rules.yaml");
    std::fs::write(&written, rules).unwrap();
    let told = command.args(["replay", "--rules"]).arg(&written).arg(&capture).assert().success();
    let text = String::from_utf8(told.get_output().stdout.clone()).unwrap();
    assert!(text.contains("listed    threats has 203.0.113.0/28 (dst.ip)"), "{text}");
}

const LISTED: &str = r#"
version: 1
lists:
  threats: {type: cidr, file: "THREATS"}
  friends: {type: cidr, items: [192.0.2.0/24]}
  drops: {type: domain, items: ["*.drop.example.net"]}
rules:
  - {id: by-name, match: {dst.domain: $drops}, each: {}}
  - {id: by-network, match: {dst.ip: [$threats, 192.0.2.0/24]}, each: {}}
  - {id: not-by-a-list, match: {dst.port: 4000, not: {dst.ip: $friends}}, each: {}}
"#;

/// The registered domains for which the shipped rule fires.
fn tunnels_in(capture: &Path) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    let replay = command.args(["replay", "--output", "json"]).arg(capture).assert().success();
    let lines = String::from_utf8(replay.get_output().stdout.clone()).unwrap();
    let alerts = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let fired = alerts.filter(|alert| {
        alert["type"] == "alert.firing" && alert.pointer("/data/rule/id").is_some_and(|id| id == "exfil-dns-tunnel")
    });
    fired.map(|alert| alert["data"]["group"]["dns.registered_domain"].as_str().unwrap().to_owned()).collect()
}

/// A capture of questions, twenty a second.
fn write_questions(path: &Path, names: impl Iterator<Item = String>) {
    let packets: Vec<Datagram> = (0u32..)
        .zip(names)
        .map(|(number, name)| Datagram {
            millis: number * 50,
            from: ([10, 0, 0, 5], 40_000),
            to: ([198, 51, 100, 53], 53),
            payload: question(number as u8, &name),
        })
        .collect();
    write_capture(path, &packets);
}

/// One packet over UDP.
struct Datagram {
    millis: u32,
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
    payload: Vec<u8>,
}

/// A capture of raw IP packets.
fn write_capture(path: &Path, packets: &[Datagram]) {
    let mut file = Vec::from(0xa1b2_c3d4u32.to_le_bytes());
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 101, 0, 0, 0]);
    for Datagram { millis, from, to, payload } in packets {
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4(from.0, to.0, 64).udp(from.1, to.1);
        builder.write(&mut packet, payload).unwrap();
        let length = u32::try_from(packet.len()).unwrap();
        for field in [1_700_000_000 + millis / 1000, millis % 1000 * 1000, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(packet);
    }
    std::fs::write(path, file).unwrap();
}

fn question(id: u8, name: &str) -> Vec<u8> {
    let mut question = vec![id, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

fn answer(id: u8, name: &str, address: [u8; 4]) -> Vec<u8> {
    let mut answer = question(id, name);
    (answer[2], answer[7]) = (0x81, 1);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(address);
    answer
}

/// What `egret replay` tells for a capture with these rules: each alert's `data`.
fn replay(capture: &Path, rules: &str, owners: Option<&str>) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    command.args(["replay", "--output", "json", "--rules"]).arg(written("rules.yaml", rules));
    if let Some(owners) = owners {
        command.arg("--owners").arg(written("owners.jsonl", owners));
    }
    let replay = command.arg(capture).assert().success();
    let lines = String::from_utf8(replay.get_output().stdout.clone()).unwrap();
    let alerts = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    alerts.filter(|alert| alert["type"] == "alert.firing").map(|mut alert| alert["data"].take()).collect()
}

fn is_to_the_server(flow: &Value) -> bool {
    flow["remote_ip"] == "139.178.84.217"
}

const RULES: &str = r#"
version: 1
rules:
  - id: name-nobody-confirms
    match: {dst.domain: ".kernel.org", dst.domain.trust: unconfirmed}
    each: {}
  - id: tls-to-kernel-org
    match: {l7: tls, dst.sni: kernel.org, dst.registered_domain: kernel.org}
    each: {}
  - id: not-a-cloud-range
    match: {dst.ip: [$aws_nets, $google_nets, $cloudflare_nets]}
    each: {}
  - id: quiet
    match: {dst.domain.trust: agreed}
    each: {}
"#;

/// What was read from a capture, in the words of the expected values.
#[derive(Default)]
struct NamesOfCapture {
    answers: BTreeSet<Vec<String>>,
    server_names: BTreeSet<Vec<String>>,
    hosts: BTreeSet<Vec<String>>,
}

impl NamesOfCapture {
    fn read(path: &Path) -> Self {
        let mut seen = Self::default();
        let mut names = Names::new(10_000);
        let mut flows = HashMap::<FlowKey, (Direction, FlowNames)>::new();
        let mut fragments = Fragments::default();
        let Ok(mut reader) = Reader::open(path) else { return seen };
        while let Some(batch) = reader.next_batch() {
            for record in batch {
                if let Ok(packet) = decode(&record.frame, &mut fragments) {
                    seen.take(&packet, &mut flows, &mut names);
                }
            }
        }
        seen
    }

    fn take(&mut self, packet: &Packet<'_>, flows: &mut HashMap<FlowKey, (Direction, FlowNames)>, names: &mut Names) {
        let out = FlowKey::of(&packet.five_tuple, FrameDirection::Out);
        let back = FlowKey::of(&packet.five_tuple, FrameDirection::In);
        let (key, way) = match flows.contains_key(&back) {
            true => (back, FrameDirection::In),
            false => (out, FrameDirection::Out),
        };
        let (direction, flow) = flows.entry(key).or_insert_with(|| {
            let mut flow = FlowNames::default();
            names.open(&mut flow, &key, None, packet.timestamp);
            (Direction::Outbound, flow)
        });
        let segment = Segment {
            key: &key,
            direction: *direction,
            way,
            from_start: true,
            sequence: packet.tcp_sequence,
            payload: packet.payload,
            owner: None,
            now: packet.timestamp,
        };
        names.observe(flow, &segment);
        if let Some(name) = flow.name() {
            let end = |name: &str| vec![key.remote.address.to_string(), key.remote.port.to_string(), name.to_owned()];
            self.server_names.extend(name.sni.as_deref().map(end));
            self.hosts.extend(name.http_host.as_deref().map(end));
        }
        // The expected values were made without reading fragments, whose first one holds answers, too.
        let whole = packet.fragment == Fragment::None;
        if whole && packet.five_tuple.protocol == Protocol::UDP && packet.five_tuple.source.port == 53 {
            self.answers.extend(answers(packet.payload));
        }
    }
}

/// Every address in a reply to a question for addresses, with the name asked for: so the expected
/// values list them, those of name servers beside the answer included.
fn answers(payload: &[u8]) -> Vec<Vec<String>> {
    let Some(message) = dns::Message::read(payload).filter(|message| message.is_response) else { return Vec::new() };
    let asks_for_addresses = |question: &&dns::Question| matches!(question.record_type, 1 | 28);
    let Some(question) = message.question.as_ref().filter(asks_for_addresses) else { return Vec::new() };
    let addresses = message.records.iter().filter_map(|record| match record.data {
        dns::Data::Address(address) => Some(address.to_string()),
        dns::Data::Alias(_) => None,
    });
    addresses.map(|address| vec![question.name.clone(), address]).collect()
}

fn wanted(list: &Value) -> BTreeSet<Vec<String>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    list.as_array().map(|rows| rows.iter().map(row).collect()).unwrap_or_default()
}

/// The port in a Host field is the flow's own.
fn without_ports(rows: BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
    let strip = |mut row: Vec<String>| {
        let host = row.pop().unwrap();
        row.push(host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host).to_owned());
        row
    };
    rows.into_iter().map(strip).collect()
}
