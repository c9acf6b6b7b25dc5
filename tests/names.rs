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
