//! What an alert brings along, with either source: the packets of its group,
//! the hash of the executable, the script that an interpreter ran.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use egret::capture::offline::Reader;
use egret::packet::{Fragments, decode};

use crate::support::egret::{Egret, Source};
use crate::support::namespace::{self, Network};
use crate::support::sinks::Sink;
use crate::support::traffic;

/// A rule that knows the program by its content alone, and one that knows the script.
fn rules(hash: &str) -> String {
    format!(
        "
version: 1
rules:
  - id: known-by-hash
    title: An upload by a program of this content
    match: {{exe.sha256: {hash}, dst.port: 7000}}
    group_by: [exe]
    window: 20s
    when: {{payload_out: {{gte: 300kB}}}}
    evidence: {{pcap: 30s}}
  - id: known-by-script
    title: An upload by a script
    match: {{script: \"**/exfil.py\", exe.name: {{prefix: python3}}}}
    group_by: [script]
    window: 20s
    when: {{payload_out: {{gte: 300kB}}}}
"
    )
}

#[test]
fn an_alert_brings_packets_hash_and_script() {
    if namespace::unavailable().is_some() {
        return;
    }
    let _alone = namespace::alone();
    let hash = hash_of(traffic::program());
    for source in Source::ALL {
        let directory = tempfile::tempdir().unwrap();
        let network = Network::new();
        let _sinks = [7000, 7001].map(|port| Sink::tcp(&network.server, &format!("{}:{port}", Network::SERVER)));
        let mut egret = Egret::start(&network.client, directory.path(), source, &rules(&hash), "");

        let mut sender = network.client.command(traffic::program().to_str().unwrap());
        let to = format!("to={}", Network::SERVER);
        let mut sender = sender.args(["tcp", &to, "bytes=2000000", "rate=400000"]).spawn().unwrap();
        // On the same link at the same time, and none of the alert's business.
        let mut other = network.client.command(traffic::program().to_str().unwrap());
        let mut other = other.args(["tcp", &to, "port=7001", "bytes=500000", "rate=100000"]).spawn().unwrap();
        let alert = egret.wait_for("an alert with packets", |alert| alert["rule"]["id"] == "known-by-hash");
        assert!(sender.wait().unwrap().success() && other.wait().unwrap().success());

        assert_eq!(alert["process"]["sha256"], hash.as_str(), "{source:?}: {alert}");
        let evidence = &alert["evidence"];
        let path =
            Path::new(evidence["path"].as_str().unwrap_or_else(|| panic!("{source:?}: {alert}\n{}", egret.log())));
        assert!(path.starts_with(directory.path().join("state/evidence")), "{}", path.display());
        assert_eq!(evidence["sha256"], hash_of(path).as_str());
        let owners = owners_by_port(path);
        assert_eq!(owners.keys().collect::<Vec<_>>(), [&7000], "{source:?}: only the group's packets: {owners:?}");
        let (packets, owned) = owners[&7000];
        assert_eq!(Some(packets), evidence["packets"].as_u64());
        // How many frames the kernel makes of so many bytes is its own affair.
        assert!(packets > 5 && owned == packets, "{source:?}: {packets} packets, {owned} with their owner");
        assert!(comments(path).contains(&format!("PID: {}", sender.id())), "{source:?}: Wireshark shows the owner");

        let script = directory.path().join("exfil.py");
        fs::write(&script, SCRIPT).unwrap();
        let mut python = network.client.command("/usr/bin/python3");
        assert!(python.arg("-u").arg("exfil.py").current_dir(directory.path()).status().unwrap().success());
        let alert = egret.wait_for("an alert of the script", |alert| alert["rule"]["id"] == "known-by-script");
        let script = script.canonicalize().unwrap();
        assert_eq!(alert["group"]["script"], script.to_str().unwrap(), "{source:?}");
        assert_eq!(alert["process"]["script"], script.to_str().unwrap(), "{source:?}");
        let exe = alert["process"]["exe"].as_str().unwrap();
        assert!(exe.starts_with("/usr/bin/python3"), "{source:?}: the interpreter is seen as well: {exe}");
        assert!(alert["evidence"].is_null(), "its rule asks for none");
        egret.stop();
    }
}

#[test]
fn a_hash_that_a_new_rule_asks_for_is_found_out_for_programs_that_run() {
    if namespace::unavailable().is_some() {
        return;
    }
    let _alone = namespace::alone();
    let hash = hash_of(traffic::program());
    let by_port =
        "version: 1\nrules: [{id: any, match: {dst.port: 7000}, window: 20s, when: {payload_out: {gte: 300kB}}}]\n";
    for source in Source::ALL {
        let directory = tempfile::tempdir().unwrap();
        let network = Network::new();
        let _sink = Sink::tcp(&network.server, &format!("{}:7000", Network::SERVER));
        let mut egret = Egret::start(&network.client, directory.path(), source, by_port, "");
        let mut sender = network.client.command(traffic::program().to_str().unwrap());
        let to = format!("to={}", Network::SERVER);
        let mut sender = sender.args(["tcp", &to, "bytes=20000000", "rate=300000"]).spawn().unwrap();
        let alert = egret.wait_for("the program to be known", |alert| alert["rule"]["id"] == "any");
        assert!(alert["process"]["sha256"].is_null(), "nobody asked for its hash: {alert}");
        egret.write_rules(&rules(&hash));
        let alert = egret.wait_for("the rule that knows the hash", |alert| alert["rule"]["id"] == "known-by-hash");
        assert_eq!(alert["process"]["sha256"], hash.as_str(), "{source:?}: {alert}");
        sender.kill().unwrap();
        sender.wait().unwrap();
        egret.stop();
    }
}

/// Half a megabyte, over some seconds, so that look-ups find it too.
const SCRIPT: &str = "
import socket, time
s = socket.create_connection(('203.0.113.7', 7001))
for n in range(50):
    s.sendall(b'x' * 10000)
    time.sleep(0.02)
time.sleep(1)
";

/// Packets of each remote port, and how many name their owner.
fn owners_by_port(path: &Path) -> BTreeMap<u16, (u64, u64)> {
    let mut reader = Reader::open(path).unwrap();
    let (mut fragments, mut ports) = (Fragments::default(), BTreeMap::new());
    while let Some(batch) = reader.next_batch() {
        for record in batch {
            let packet = decode(&record.frame, &mut fragments).unwrap();
            let ends = [packet.five_tuple.source, packet.five_tuple.destination];
            let remote = ends.into_iter().find(|end| end.address.ip().to_string() == Network::SERVER).unwrap();
            let (packets, owned) = ports.entry(remote.port).or_insert((0, 0));
            *packets += 1;
            *owned += u64::from(record.owner.is_some());
        }
    }
    assert!(reader.damage().is_none());
    ports
}

/// What Wireshark's own reader shows as comments of the packets.
fn comments(path: &Path) -> String {
    let output = Command::new("tshark").args(["-T", "fields", "-e", "frame.comment", "-r"]).arg(path).output();
    let output = output.expect("tshark is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn hash_of(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}
