//! What no socket explains: frames that a program made itself, and packets
//! that pass through this host; how much has an owner; and a source that cannot
//! be used.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::egret::{self, Egret, Source};
use crate::support::namespace::{self, Namespace, Network};
use crate::support::process::Running;
use crate::support::{traffic, wait};

/// By bytes of each, so that small ones of another test beside this one are not meant.
const RULES: &str = "
version: 1
rules:
  - id: passes-through
    title: Packets that no program of this host sent
    match: {unknown_reason: forwarded}
    group_by: [dst.ip]
    window: 10s
    when: {bytes_out: {gte: 500kB}}
  - id: made-by-hand
    title: Frames past the sockets, of a program that is known
    match: {exe: \"**/egret-traffic\", attribution: exact, dst.port: 7005}
    group_by: [exe, dst.ip]
    window: 30s
    when: {bytes_out: {gte: 1MB}}
";

#[test]
fn injected_and_forwarded_frames_are_shown_and_rules_match_them() {
    if namespace::unavailable().is_some() || kernel_source_is_missing() {
        return;
    }
    let _alone = namespace::alone();
    let directory = tempfile::tempdir().unwrap();
    let network = Network::new();
    let guest = guest(&network.client);
    let mut egret = Egret::start(&network.client, directory.path(), Source::Kernel, RULES, "");

    // The guest makes frames itself, so that no socket on the whole machine has sent these packets.
    let mac = address_of(&network.client, "veth0");
    let to = format!("to={}", Network::SERVER);
    let inject = |namespace: &Namespace, more: &[&str]| {
        let mut command = namespace.command(traffic::program().to_str().unwrap());
        command.args(["inject", &to]).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        traffic::Said::parse(String::from_utf8_lossy(&output.stdout).lines().next().unwrap())
    };
    inject(&guest, &[&format!("mac={mac}"), "bytes=2000000", "rate=1000000"]);
    let alert = egret.wait_for("forwarded packets", |alert| alert["rule"]["id"] == "passes-through");
    assert_eq!(alert["group"]["dst.ip"], Network::SERVER);
    assert_eq!(alert["process"], Value::Null, "nobody here sent them");

    // In this host's own namespace the program is known, and from the moment the tap is wide also where to.
    inject(&network.client, &["port=7005", "bytes=6000000", "rate=1000000"]);
    let alert = egret.wait_for("injected frames", |alert| alert["rule"]["id"] == "made-by-hand");
    assert_eq!(alert["group"]["exe"], traffic::program().to_str().unwrap());
    assert_eq!(alert["group"]["dst.ip"], Network::SERVER);

    let state = directory.path().join("state");
    let status = || -> Value {
        let arguments = ["status", "--output", "json", "--state-dir", state.to_str().unwrap()];
        serde_json::from_slice(&output(egret::command(&network.client, &arguments))).unwrap()
    };
    let watching = &status()["watching"];
    assert_eq!(watching["source"], "ebpf");
    assert_eq!(watching["tap"], "wide", "{watching}");
    assert_eq!(watching["fallback"], Value::Null);
    // Some seconds pass until it is certain that no owner is still to come.
    wait::until("bytes that nobody owns", || {
        let watching = &status()["watching"];
        let share = watching["coverage"].as_f64().unwrap();
        (share < 0.95 && watching["uncovered_bytes"].as_u64().unwrap() > 1_000_000).then_some(())
    });

    // More of what nobody owns, for as long as it takes to be believed.
    let mut command = guest.command(traffic::program().to_str().unwrap());
    command.args(["inject", &to, &format!("mac={mac}"), "bytes=120000000", "rate=2000000"]);
    let injecting = Running::start("inject", command, directory.path());
    let problem = wait::until("the problem", || {
        let is_meant = |told: &Value| told["type"] == "agent.problem" && told["data"]["id"] == "coverage";
        egret.notifications().into_iter().find(is_meant)
    });
    drop(injecting);
    let share: f64 = problem["data"]["details"]["share"].as_str().unwrap().parse().unwrap();
    assert!(share < 0.8, "{problem}");
    assert!(problem["data"]["summary"].as_str().unwrap().contains("have an owner"), "{problem}");
    egret.stop();
}

#[test]
fn who_holds_a_packet_socket_is_suspected_where_nobody_counts_at_it() {
    if namespace::unavailable().is_some() || kernel_source_is_missing() {
        return;
    }
    let _alone = namespace::alone();
    let directory = tempfile::tempdir().unwrap();
    let network = Network::new();
    let rules = "
version: 1
rules:
  - id: no-socket
    title: Bytes that no socket sent
    match: {unknown_reason: no_socket, dst.port: 7005}
    group_by: [dst.ip]
    window: 30s
    when: {bytes_out: {gte: 1MB}}
";
    let source = Source::KernelWithoutPacketSockets;
    let mut egret = Egret::start(&network.client, directory.path(), source, rules, "");
    // For as long as it takes the interfaces' counters to be believed.
    let mut command = network.client.command(traffic::program().to_str().unwrap());
    let to = format!("to={}", Network::SERVER);
    command.args(["inject", &to, "port=7005", "bytes=120000000", "rate=2000000"]);
    let injecting = Running::start("inject", command, directory.path());
    let alert = egret.wait_for("frames that nobody counted", |alert| alert["rule"]["id"] == "no-socket");
    drop(injecting);
    assert_eq!(alert["group"]["dst.ip"], Network::SERVER);
    assert_eq!(alert["process"], Value::Null, "a suspect is no owner: {alert}");
    let suspects = alert["suspects"].as_array().unwrap();
    let program = traffic::program().to_str().unwrap();
    assert!(suspects.iter().any(|suspect| suspect["exe"] == program), "{suspects:?}");
    egret.stop();
}

#[test]
fn the_tap_stays_closed_while_sockets_explain_everything() {
    if namespace::unavailable().is_some() || kernel_source_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = Network::new();
    let mut peer = network.server.command(traffic::program().to_str().unwrap());
    peer.arg("peer");
    let peer = Running::start("peer", peer, directory.path());
    wait::until("the peer to listen", || peer.output().contains("listening").then_some(()));
    let mut egret = flows(&network.client, directory.path(), &["--source", "ebpf"]);
    if !wait_for_programs(&mut egret) {
        return;
    }
    // A stream that begins at once: its bytes are on the interface before anybody has counted them.
    let mut command = network.client.command(traffic::program().to_str().unwrap());
    command.args(["udp", &format!("to={}", Network::SERVER), "bytes=40000000", "rate=5000000"]);
    let running = Running::start("udp", command, directory.path());
    let (mut running, mut taps) = (running, 0);
    while running.status().is_none() {
        taps = taps.max(packet_sockets(egret.pid()));
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(taps, 0, "looking at each packet costs more than counting it");
    egret.signal(Signal::INT);
    assert!(egret.wait_within(wait::PATIENCE).success(), "{}", egret.errors());
}

#[test]
fn bytes_of_injected_frames_are_neither_lost_nor_doubled() {
    if namespace::unavailable().is_some() {
        return;
    }
    let _alone = namespace::alone();
    let directory = tempfile::tempdir().unwrap();
    let network = Network::new();
    let mut egret = flows(&network.client, directory.path(), &["--source", "ebpf"]);
    if !wait_for_programs(&mut egret) {
        return;
    }
    let arguments = ["inject", &format!("to={}", Network::SERVER), "bytes=5000000", "rate=1000000"];
    let mut command = network.client.command(traffic::program().to_str().unwrap());
    let said = traffic::Said::parse(
        String::from_utf8_lossy(&output({
            command.args(arguments);
            command
        }))
        .lines()
        .next()
        .unwrap(),
    );
    egret.signal(Signal::INT);
    assert!(egret.wait_within(wait::PATIENCE).success(), "{}", egret.errors());
    let flows: Vec<Value> = egret.output().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let own: Vec<&Value> = flows.iter().filter(|flow| flow["owner"]["pid"] == said.pid).collect();
    let bytes: u64 = own.iter().filter_map(|flow| flow["bytes_out"].as_u64()).sum();
    // Each frame carries 1,000 bytes behind 28 of IP and UDP headers.
    assert_eq!(bytes, said.out / 1000 * 1028, "{own:?}");
    let addressed = own.iter().find(|flow| flow["remote_ip"] == Network::SERVER).unwrap_or_else(|| panic!("{own:?}"));
    assert_eq!(addressed["remote_port"], 7000);
    assert_eq!(addressed["evidence"], "kernel");
    let nobodys = flows.iter().filter(|flow| flow["remote_ip"] == Network::SERVER && flow["owner"].is_null());
    assert_eq!(nobodys.count(), 0, "{flows:?}");
}

#[test]
fn a_source_that_cannot_be_used_is_told_everywhere() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = Network::new();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let (alerts, config) = (directory.path().join("alerts.jsonl"), directory.path().join("egret.yaml"));
    let text = format!(
        "state_dir: {}\noutputs: {{alerts: {{type: file, path: {}, format: json}}}}\n\
         routing: {{defaults: {{outputs: [alerts], group_wait: 0s}}}}\n",
        state.display(),
        alerts.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = network.client.command("setpriv");
    command.args(["--inh-caps=-bpf,-sys_admin", "--bounding-set=-bpf,-sys_admin", env!("CARGO_BIN_EXE_egret")]);
    command.args(["run", "--config", config.to_str().unwrap()]);
    let mut egret = Running::start("egret", command, directory.path());
    let told = wait::until("the problem", || {
        egret.assert_alive();
        let text = std::fs::read_to_string(&alerts).unwrap_or_default();
        let told = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        told.into_iter().find(|told| told["data"]["id"] == "source-fallback")
    });
    let reason = "the process lacks CAP_BPF";
    assert_eq!(told["type"], "agent.problem");
    assert!(told["data"]["details"]["reason"].as_str().unwrap().contains(reason), "{told}");
    assert!(egret.errors().contains(reason), "{}", egret.errors());
    let arguments = ["status", "--state-dir", state.to_str().unwrap()];
    let status = String::from_utf8(output(egret::command(&network.client, &arguments))).unwrap();
    assert!(status.contains("watching with pcap") && status.contains(reason), "{status}");
    egret.signal(Signal::TERM);
    assert!(egret.wait_within(wait::PATIENCE).success(), "{}", egret.errors());
}

fn flows(namespace: &Namespace, directory: &std::path::Path, more: &[&str]) -> Running {
    let mut command = egret::command(namespace, &["flows", "--live", "600", "--output", "json"]);
    // So that a failure tells what the tap looked for.
    command.args(more).env("EGRET_LOG", "egret=info");
    Running::start("flows", command, directory)
}

/// Whether its nine programs count, the last of which is the one for what leaves.
fn wait_for_programs(egret: &mut Running) -> bool {
    let ready = wait::until("egret to count", || {
        let links = traffic::descriptors(egret.pid(), "anon_inode:bpf_link").len();
        if links >= 9 { Some(true) } else { egret.status().map(|_| false) }
    });
    if !ready {
        eprintln!("skipped: {}", egret.errors());
    }
    ready
}

/// The packet sockets of a process. Others may look into its namespace as well.
fn packet_sockets(pid: u32) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/packet")).unwrap();
    let inodes = table.lines().skip(1).filter_map(|line| line.split_whitespace().last());
    inodes.map(|inode| traffic::descriptors(pid, &format!("socket:[{inode}]")).len()).sum()
}

fn kernel_source_is_missing() -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    let output = command.args(["flows", "--live", "0", "--source", "ebpf"]).output().unwrap();
    if !output.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
    }
    !output.status.success()
}

fn output(mut command: Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A namespace whose frames `host` passes on.
fn guest(host: &Namespace) -> Namespace {
    let guest = Namespace::new("g");
    let (inside, outside) = (&guest.name, &host.name);
    for line in [
        format!("link add eth0 netns {inside} type veth peer name veth0 netns {outside}"),
        format!("-n {outside} addr add 10.88.0.1/24 dev veth0"),
        format!("-n {outside} link set veth0 up"),
        format!("-n {inside} addr add 10.88.0.2/24 dev eth0"),
        format!("-n {inside} link set eth0 up"),
    ] {
        namespace::ip(&line);
    }
    let settings = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; \
                    echo 0 > /proc/sys/net/ipv4/conf/veth0/rp_filter";
    assert!(host.run("sh", &["-c", settings]));
    guest
}

fn address_of(namespace: &Namespace, interface: &str) -> String {
    let mut command = namespace.command("ip");
    command.args(["-j", "link", "show", interface]);
    let links: Value = serde_json::from_slice(&output(command)).unwrap();
    links[0]["address"].as_str().unwrap().to_owned()
}
