//! The accuracy grid: 24 ways to send and receive, and who says whose bytes.
//!
//! The scenarios are those of the picosnitch project's public grid; the
//! generators are our own. Each has an executable of its own name and moves a
//! known number of bytes between the host and a peer in a namespace of its
//! own. Two references: the generators' own count of payload, and counters of
//! nftables at the peer for IP bytes. All tools watch the same run.
//!
//! `cargo test accuracy` runs a short form, `make accuracy` the whole.

mod report;
mod scenario;
mod tool;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::support::namespace::{self, Namespace, Network};
use crate::support::process::Running;
use crate::support::traffic::{self, Said};
use crate::support::{turns, wait};
use report::{Cell, Report, Trial};
use scenario::{Place, SCENARIOS, Scenario, Size};
use tool::{Bandwhich, Egret, NetHogs, Tool, Usage};

/// The container's address, behind the client.
const CONTAINER: &str = "198.51.100.130";

#[test]
fn every_scenario_is_told_right_in_short() {
    let Some(report) = run(Size::Short, 1) else { return };
    assert_good(&report);
}

#[test]
#[ignore = "takes a quarter of an hour; run by `make accuracy`"]
fn every_scenario_is_told_right_in_full() {
    let Some(report) = run(Size::Full, 5) else { return };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../accuracy");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("accuracy.md"), report.markdown()).unwrap();
    std::fs::write(directory.join("accuracy.json"), report.json()).unwrap();
    eprintln!("written to {}", directory.canonicalize().unwrap().display());
    assert_good(&report);
}

/// The kernel source is right everywhere; the pcap source never names a wrong owner.
fn assert_good(report: &Report) {
    for (tool, wrong) in &report.wrong {
        for wrong in wrong {
            assert!(!tool.starts_with("egret") || *wrong == Usage::default(), "{tool} gave {wrong:?} to somebody else");
        }
    }
    for (scenario, cells) in report.tools.get("egret ebpf").into_iter().flatten() {
        for cell in cells {
            assert!(cell.detected && cell.bandwidth, "egret ebpf, {scenario}: {cell:?}");
        }
    }
}

fn run(size: Size, trials: usize) -> Option<Report> {
    if namespace::unavailable().is_some() {
        return None;
    }
    let _turn = turns::take();
    let mut report = Report::default();
    for number in 1..=trials {
        eprintln!("trial {number} of {trials}");
        let trial = trial(size)?;
        report.add(trial);
    }
    eprintln!("{}", report.markdown());
    Some(report)
}

/// One run of all scenarios under all tools.
fn trial(size: Size) -> Option<Trial> {
    let lab = Lab::new();
    let mut tools: Vec<Box<dyn Tool>> = Vec::new();
    for source in ["ebpf", "pcap"] {
        match Egret::start(source, [&lab.network.client, &lab.network.server, &lab.container], lab.directory.path()) {
            Ok(egret) => tools.push(Box::new(egret)),
            Err(reason) => eprintln!("not measured: egret with {source}: {reason}"),
        }
    }
    // It looks at the sockets once a second, which is no match for the short form.
    if size == Size::Full {
        match NetHogs::start(&lab.network.client, lab.directory.path()) {
            Ok(nethogs) => tools.push(Box::new(nethogs)),
            Err(reason) => eprintln!("not measured: nethogs: {reason}"),
        }
        match Bandwhich::start(&lab.network.client, lab.directory.path()) {
            Ok(bandwhich) => tools.push(Box::new(bandwhich)),
            Err(reason) => eprintln!("not measured: bandwhich: {reason}"),
        }
    }
    if tools.is_empty() {
        eprintln!("skipped: no tool can run here");
        return None;
    }

    let mut references = BTreeMap::new();
    for scenario in SCENARIOS {
        match lab.play(scenario, size) {
            Ok(reference) => {
                references.insert(scenario.id, reference);
            }
            Err(reason) => eprintln!("not run: {} {}: {reason}", scenario.id, scenario.title),
        }
    }

    let mut trial = Trial::default();
    for tool in tools {
        let name = tool.name();
        let findings = tool.finish();
        trial.wrong.insert(name, findings.wrong);
        let cells = trial.cells.entry(name).or_default();
        for scenario in SCENARIOS {
            if let Some(reference) = references.get(scenario.id) {
                let seen = findings.by_executable.get(&lab.generator(scenario.id)).copied().unwrap_or_default();
                cells.insert(scenario.id, Cell::judge(scenario, reference, seen));
            }
        }
    }
    Some(trial)
}

/// What really passed in a scenario.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference {
    /// What the generators said.
    pub payload: Usage,
    /// What nftables counted: IP bytes.
    pub wire: Usage,
}

/// The client, its container, the peer, and the generators under their names.
struct Lab {
    network: Network,
    container: Namespace,
    directory: tempfile::TempDir,
    _peers: Vec<Running>,
}

impl Lab {
    fn new() -> Self {
        let (network, directory) = (Network::new(), tempfile::tempdir().unwrap());
        let container = Namespace::new("k");
        let (client, inside) = (&network.client.name, &container.name);
        for line in [
            format!("link add veth0 netns {client} type veth peer name eth0 netns {inside}"),
            format!("-n {client} link set veth0 up"),
            format!("-n {client} addr add 198.51.100.129/25 dev veth0"),
            format!("-n {inside} link set eth0 up"),
            format!("-n {inside} addr add {CONTAINER}/25 dev eth0"),
            format!("-n {inside} route add default via 198.51.100.129"),
            format!("-n {} route add {CONTAINER}/32 via {}", network.server.name, Network::CLIENT),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(status.success(), "ip {line}");
        }
        assert!(network.client.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]));
        let rules = directory.path().join("reference.nft");
        std::fs::write(&rules, COUNTERS).unwrap();
        for namespace in [&network.server, &network.client] {
            assert!(namespace.run("nft", &["-f", rules.to_str().unwrap()]), "nft loads the reference");
        }
        let mut lab = Self { network, container, directory, _peers: Vec::new() };
        for scenario in SCENARIOS {
            std::fs::copy(traffic::program(), lab.generator(scenario.id)).unwrap();
        }
        std::fs::copy(traffic::program(), lab.generator("peer")).unwrap();
        for (name, namespace) in [("peer", &lab.network.server), ("local-peer", &lab.network.client)] {
            let mut command = namespace.command(lab.generator("peer").to_str().unwrap());
            command.arg("peer");
            let peer = Running::start(name, command, lab.directory.path());
            wait::until("the peer to listen", || peer.output().contains("listening").then_some(()));
            lab._peers.push(peer);
        }
        lab
    }

    fn generator(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("accuracy-{name}"))
    }

    /// Runs a scenario to its end.
    fn play(&self, scenario: &Scenario, size: Size) -> Result<Reference, String> {
        if scenario.needs_sctp && !Path::new("/proc/net/sctp").exists() {
            return Err("this kernel has no SCTP".into());
        }
        let before = self.counters(scenario.place);
        let mut said = Vec::new();
        for _ in 0..scenario.repetitions {
            let together: Vec<Command> =
                scenario.processes.iter().map(|process| self.process(scenario, process, size)).collect();
            thread::scope(|scope| {
                let running: Vec<_> = together
                    .into_iter()
                    .map(|mut command| scope.spawn(move || command.output().expect("the generator starts")))
                    .collect();
                for process in running {
                    let output = process.join().expect("the thread only waits");
                    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success(), "{}: {errors}", scenario.id);
                    said.extend(String::from_utf8_lossy(&output.stdout).lines().map(Said::parse));
                }
            });
        }
        let after = self.counters(scenario.place);
        let payload = Usage { out: said.iter().map(|s| s.out).sum(), into: said.iter().map(|s| s.received).sum() };
        let wire = Usage { out: after.out - before.out, into: after.into - before.into };
        Ok(Reference { payload, wire })
    }

    fn process(&self, scenario: &Scenario, process: &str, size: Size) -> Command {
        let generator = self.generator(scenario.id);
        let generator = generator.to_str().unwrap();
        let mut command = match scenario.place {
            Place::Client | Place::Loopback => self.network.client.command(generator),
            Place::Container => {
                let mut command = self.container.command("unshare");
                command.args(["--pid", "--fork", "--kill-child", generator]);
                command
            }
        };
        let to = match (scenario.place, scenario.v6) {
            (Place::Loopback, _) => "127.0.0.1",
            (_, true) => Network::SERVER_V6,
            (_, false) => Network::SERVER,
        };
        command.args(size.arguments(process)).arg(format!("to={to}"));
        command
    }

    /// IP bytes from and to the client side, as nftables counted them.
    fn counters(&self, place: Place) -> Usage {
        let (namespace, out, into) = match place {
            Place::Loopback => (&self.network.client, "lo_out", "lo_in"),
            Place::Client | Place::Container => (&self.network.server, "sent", "received"),
        };
        let output = namespace.command("nft").args(["-j", "list", "counters"]).output().unwrap();
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let bytes = |name: &str| {
            let objects = document["nftables"].as_array().unwrap();
            let counter = objects.iter().find(|object| object["counter"]["name"] == name).unwrap();
            counter["counter"]["bytes"].as_u64().unwrap()
        };
        Usage { out: bytes(out), into: bytes(into) }
    }
}

/// Counts what passes the peer (and the client's loopback) before anything can drop it.
const COUNTERS: &str = "
table inet reference {
    counter sent { }
    counter received { }
    counter lo_out { }
    counter lo_in { }
    chain arriving {
        type filter hook prerouting priority -300;
        iifname eth0 ip saddr 198.51.100.0/24 counter name sent
        iifname eth0 ip6 saddr 2001:db8:1::/48 counter name sent
        iifname lo meta l4proto tcp tcp dport 7000 counter name lo_out
        iifname lo meta l4proto tcp tcp sport 7000 counter name lo_in
    }
    chain leaving {
        type filter hook postrouting priority 300;
        oifname eth0 ip daddr 198.51.100.0/24 counter name received
        oifname eth0 ip6 daddr 2001:db8:1::/48 counter name received
    }
}
";
