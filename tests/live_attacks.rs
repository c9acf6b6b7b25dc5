//! The attack commands of the shared data, run for real between two
//! namespaces: each byte belongs to its program, the rules that ship catch
//! each of them, and an ordinary day raises nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::attack::{Scenario, Scenarios, World};
use crate::support::certificates::Certificates;
use crate::support::egret::{self, Egret, Source};
use crate::support::namespace::{self, Network};
use crate::support::process::Running;
use crate::support::sinks::Sink;
use crate::support::wait;

#[test]
fn each_command_is_given_to_its_program() {
    let (None, Some(scenarios)) = (namespace::unavailable(), Scenarios::load()) else { return };
    let _alone = namespace::alone();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let world = World::new(directory.path(), &scenarios);
    for source in Source::ALL {
        for scenario in &scenarios.scenarios {
            wait::until(&format!("the owner of {} with {source:?}", scenario.test), || {
                let flows = flows_during(&world, directory.path(), source, scenario);
                is_given_to_its_program(&flows, source, scenario).then_some(())
            });
        }
    }
}

/// Whether the bytes of a command are counted for its program; panics if any are counted for another.
///
/// The kernel source must name the owner of every flow. Through libpcap some of a burst of
/// processes may be gone before this machine finds the time to look; those that are named must
/// have all of their bytes.
fn is_given_to_its_program(flows: &[Value], source: Source, scenario: &Scenario) -> bool {
    let of_command: Vec<&Value> = flows
        .iter()
        .filter(|flow| flow["remote_port"] == scenario.port && flow["proto"] == scenario.protocol.as_str())
        .collect();
    let is_named =
        |flow: &&&Value| flow["owner"]["exe"].as_str().is_some_and(|exe| is_program(exe, &scenario.process_name));
    let named: Vec<&&Value> = of_command.iter().filter(is_named).collect();
    let others: Vec<&&Value> = of_command.iter().filter(|flow| !is_named(flow)).collect();
    assert!(others.iter().all(|flow| flow["owner"].is_null()), "{}: a wrong owner: {others:#?}", scenario.test);
    let sum = |key: &str| named.iter().filter_map(|flow| flow[key].as_u64()).sum::<u64>();
    let least = match source {
        Source::Kernel | Source::KernelWithoutPacketSockets => scenario.min_payload_bytes_out,
        Source::Pcap | Source::PcapEverywhere => {
            scenario.min_payload_bytes_out * named.len() as u64 / of_command.len().max(1) as u64
        }
    };
    // Acknowledgements differ from run to run; the data does not.
    let most = scenario.measured.ip_bytes_out * 6 / 5 + 20_000;
    !named.is_empty() && sum("payload_out") >= least && sum("bytes_out") <= most
}

#[test]
fn the_shipped_rules_catch_each_attack() {
    let (None, Some(scenarios)) = (namespace::unavailable(), Scenarios::load()) else { return };
    let _alone = namespace::alone();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let world = World::new(directory.path(), &scenarios);
    for scenario in &scenarios.scenarios {
        let folder = directory.path().join(&scenario.test);
        fs::create_dir_all(&folder).expect("the test's directory is writable");
        let mut egret = Egret::with_rules(&world.network.client, &folder, source_for(&scenario.test), &rules());
        match rule_for(&scenario.test) {
            Some(rule) => {
                let alert = wait::until(&format!("{rule} on {}", scenario.test), || {
                    world.run(scenario);
                    egret.wait_briefly(|alert| alert["rule"]["id"] == rule && alert["group"]["exe"].is_string())
                });
                let exe = alert["group"]["exe"].as_str().unwrap_or_default();
                assert!(is_program(exe, &scenario.process_name), "{}: {alert:#}", scenario.test);
                egret.stop();
            }
            None => {
                world.run(scenario);
                // Whatever is to come of it comes by the end of the run.
                egret.stop();
                assert_eq!(of_client(egret.firing()), Vec::<Value>::new(), "{}", scenario.test);
            }
        }
    }
}

#[test]
fn an_ordinary_day_raises_nothing_of_weight() {
    if namespace::unavailable().is_some() {
        return;
    }
    let _alone = namespace::alone();
    for source in Source::ALL {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let network = Network::new();
        let _servers = ordinary_servers(&network, directory.path());
        let certificates = Certificates::new(directory.path(), &["localhost"]);
        let _backup = Sink::https(&network.server, &format!("{}:443", Network::SERVER), &certificates);
        let mut egret = Egret::with_rules(&network.client, directory.path(), source, &rules());
        ordinary_day(&network, directory.path());
        egret.stop();
        let weighty: Vec<Value> = of_client(egret.firing())
            .into_iter()
            .filter(|alert| !["info", "low"].contains(&alert["data"]["rule"]["severity"].as_str().unwrap_or_default()))
            .collect();
        assert_eq!(weighty, Vec::<Value>::new(), "{source:?}");
    }
}

#[test]
fn what_is_recorded_live_gives_the_alerts_afterwards() {
    let (None, Some(scenarios)) = (namespace::unavailable(), Scenarios::load()) else { return };
    let _alone = namespace::alone();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let world = World::new(directory.path(), &scenarios);
    let scenario = scenarios.scenarios.iter().find(|scenario| scenario.test == "nc-upload").expect("the data has it");
    for source in Source::ALL {
        let recording = directory.path().join(format!("{}.jsonl.zst", source.name())).display().to_string();
        wait::until(&format!("the recording with {source:?} to have it"), || {
            let arguments = [&["flows", "--live", "60", "--record", &recording], source.arguments()].concat();
            let name = format!("record-{}", source.name());
            let mut running =
                Running::start(&name, egret::command(&world.network.client, &arguments), directory.path());
            wait::until("egret flows to watch", || {
                running.assert_alive();
                running.errors().contains("watching").then_some(())
            });
            world.run(scenario);
            running.signal(Signal::TERM);
            let status = running.wait_within(Duration::from_secs(10));
            assert!(status.success(), "{status}: {}", running.errors());
            assert!(running.errors().contains("flow deltas"), "{}", running.errors());
            let backtest = ["backtest", "--flows", &recording, "--output", "json"];
            let output = egret::command(&world.network.client, &backtest).output().expect("egret runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON lines"))
                .collect();
            let alert = lines.iter().find(|line| line["data"]["rule"]["id"] == "exfil-raw-socket")?;
            // Through libpcap the owner of so short a process may be missed; then it is tried again.
            is_program(alert["data"]["group"]["exe"].as_str()?, &scenario.process_name).then_some(())
        });
    }
}

/// The rule that must fire; none where the command is harmless to the one who runs it.
fn rule_for(test: &str) -> Option<&'static str> {
    match test {
        // The other end sends, or hardly anything is sent.
        "T1048-1" | "T1071.001-3" => None,
        "T1048-4" => Some("dns-tool-direct"),
        "T1048.002-2" => Some("exfil-paste-site"),
        "T1048.003-3" => Some("dns-tool-burst"),
        "T1105-3" | "T1030-1" => Some("transfer-upload"),
        "T1567.004-2" => Some("webhook-by-hand"),
        "nc-upload" => Some("exfil-raw-socket"),
        other => panic!("the data has a scenario that no rule is named for: {other}"),
    }
}

/// Every flow that `egret flows` saw while the command ran.
fn flows_during(world: &World, directory: &Path, source: Source, scenario: &Scenario) -> Vec<Value> {
    let arguments = [&["flows", "--live", "60", "--output", "json"], source.arguments()].concat();
    let name = format!("flows-{}-{}", source.name(), scenario.test);
    let mut running = Running::start(&name, egret::command(&world.network.client, &arguments), directory);
    wait::until("egret flows to watch", || {
        running.assert_alive();
        running.errors().contains("watching").then_some(())
    });
    world.run(scenario);
    running.signal(Signal::TERM);
    let status = running.wait_within(Duration::from_secs(10));
    assert!(status.success(), "{status}: {}", running.errors());
    let rows = running.output();
    let mut rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    rows.retain(|row| row["local_ip"] == Network::CLIENT);
    rows
}

/// Where the destination's name decides, the frames must be seen that say it.
fn source_for(test: &str) -> Source {
    match test {
        "T1048.002-2" | "T1567.004-2" => Source::Pcap,
        _ => Source::Kernel,
    }
}

/// Whether a path is one of the programs; Debian's `nc` is `nc.openbsd`.
fn is_program(exe: &str, programs: &[String]) -> bool {
    let name = exe.rsplit('/').next().unwrap_or_default();
    programs
        .iter()
        .any(|program| name == program || name.strip_prefix(program.as_str()).is_some_and(|rest| rest.starts_with('.')))
}

/// The alerts of the test's own client: the kernel source sees what other tests do, too.
fn of_client(mut alerts: Vec<Value>) -> Vec<Value> {
    alerts.retain(|alert| alert["data"]["source"]["ip"] == Network::CLIENT);
    alerts
}

fn rules() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")
}

/// A web server with large files, a git server and a time server.
fn ordinary_servers(network: &Network, directory: &Path) -> Vec<Running> {
    let script = format!(
        "set -e; cd {}; mkdir srv; head -c 60000000 /dev/urandom > srv/film; cp srv/film srv/package.deb; \
         git init -q --bare srv/project.git; git init -q project; cd project; cp ../srv/film data; git add data; \
         git -c user.name=a -c user.email=a@example.org commit -qm first; git push -q ../srv/project.git HEAD; \
         cd ..; mkdir -p deb/DEBIAN deb/usr/share srv/repo; head -c 20000000 srv/film > deb/usr/share/film; \
         printf 'Package: egret-example\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@example.org>\\nDescription: a\\n' \
         > deb/DEBIAN/control; dpkg-deb -Znone --build deb srv/repo/egret-example_1_all.deb > /dev/null; cd srv/repo; \
         {{ cat ../../deb/DEBIAN/control; echo Filename: ./egret-example_1_all.deb; \
         echo Size: $(stat -c %s *.deb); echo SHA256: $(sha256sum *.deb | cut -d' ' -f1); }} > Packages; \
         echo 'deb [trusted=yes] http://{server}/repo ./' > ../../sources.list",
        directory.display(),
        server = Network::SERVER,
    );
    let made = std::process::Command::new("bash").args(["-c", &script]).output().expect("bash is essential");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let address = Network::SERVER;
    let mut servers = Vec::new();
    let mut start = |name: &str, program: &str, arguments: &[&str]| {
        let mut command = network.server.command(program);
        command.args(arguments);
        servers.push(Running::start(name, command, directory));
    };
    let folder = directory.join("srv");
    let folder = folder.display().to_string();
    start("web", "/usr/bin/python3", &["-m", "http.server", "80", "--bind", address, "--directory", &folder]);
    let base = format!("--base-path={folder}");
    start("git", "git", &["daemon", "--export-all", &base, &format!("--listen={address}")]);
    start("time", "/usr/bin/python3", &["-c", ANSWER_TIME]);
    for port in [80, 9418] {
        wait::until("a server to listen", || {
            servers.iter().any(|server| crate::support::rsyslog::is_listening(server.pid(), port)).then_some(())
        });
    }
    servers
}

/// Downloads, a clone, look-ups, time, and a backup by a program that the pack knows as one.
fn ordinary_day(network: &Network, directory: &Path) {
    let here = directory.display();
    let run = |script: &str| {
        let output = network.client.command("bash").args(["-c", script]).output().expect("bash is essential");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {errors}");
    };
    run("curl -sS -o /dev/null http://203.0.113.7/package.deb");
    run("python3 -c 'import urllib.request as u; u.urlopen(\"http://203.0.113.7/film\").read()'");
    // A film comes at the pace at which it is watched.
    run("wget -q --limit-rate=20m -O /dev/null http://203.0.113.7/film");
    let apt = format!(
        "apt-get -q -o Dir::Etc::SourceList={here}/sources.list -o Dir::Etc::SourceParts=/dev/null \
         -o Dir::State={here}/apt -o Dir::Cache={here}/apt -o APT::Sandbox::User=root \
         -o Acquire::http::Proxy=false -o Acquire::Languages=none"
    );
    run(&format!("mkdir -p {here}/apt/lists/partial {here}/apt/archives/partial && cd {here}/apt && {apt} update"));
    run(&format!("cd {here}/apt && {apt} download egret-example && test -s egret-example_*.deb"));
    run(&format!("git clone -q git://203.0.113.7/project.git {here}/clone"));
    run("for n in 1 2 3 4 5; do dig +tries=1 +time=1 @203.0.113.7 host$n.example.org > /dev/null || true; done");
    run("python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(2)\n\
         for n in range(4): s.sendto(b\"#\" * 48, (\"203.0.113.7\", 123)); s.recv(99)'");
    run("ping -q -c 5 -i 0.2 203.0.113.7");
    run(&format!("cp /usr/bin/curl {here}/restic; {here}/restic -ksS -T {here}/srv/film https://203.0.113.7/"));
}

const ANSWER_TIME: &str = "
import socket
s = socket.socket(type=socket.SOCK_DGRAM)
s.bind(('203.0.113.7', 123))
while True:
    data, peer = s.recvfrom(99)
    s.sendto(data, peer)
";
