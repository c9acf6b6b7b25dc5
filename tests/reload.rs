//! Another configuration while the program runs: what is the same goes on as if nothing had happened, what
//! waits for the rest is kept, and a wrong one changes nothing.

use std::fs;
use std::path::Path;

use egret::alert::DocumentKind::Firing;
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin};
use egret::store::{Store, StoreLimits};
use rustix::process::Signal;
use serde_json::Value as Json;

use crate::support::alerts::{self, alert};
use crate::support::egret::{Egret, Source};
use crate::support::namespace::{self, Network};
use crate::support::scripted::{Answer, ScriptedReceiver};
use crate::support::sinks::Sink;
use crate::support::wait;

#[test]
fn outputs_that_are_the_same_keep_their_connection_and_the_others_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let same = ScriptedReceiver::start(|_| Answer::Status(204, ""));
    let old = ScriptedReceiver::start(|_| Answer::Status(401, ""));
    let new = ScriptedReceiver::start(|_| Answer::Status(204, ""));
    let hook = |url: &str| format!("{{type: webhook, url: '{url}', allow_insecure: true}}");
    let file = format!("{{type: file, path: '{}'}}", log.display());
    let before = settings(&format!(
        "{{same: {}, moves: {}, leaves: {}, log: {file}}}",
        hook(&same.url()),
        hook(&old.url()),
        hook(&old.url())
    ));
    let dispatcher = start(directory.path(), &before);
    for number in 0..5 {
        dispatcher.submit(alert(Firing, &format!("k{number}"), b"x"));
    }
    let status = wait::until("the first deliveries", || {
        let status = dispatcher.status()?;
        let failing = |name: &str| status.outputs[name].last_error.is_some();
        // Each of the two that fail says so to all others.
        (status.outputs["same"].delivered >= 7 && failing("moves") && failing("leaves")).then_some(status)
    });
    assert!(status.outputs["moves"].waiting >= 5, "{status:?}");

    // A mistake in one output, and everything stays as it was.
    let wrong = settings(&format!("{{log: {file}, moves: {{type: webhook, url: 'http://x.example/'}}}}"));
    let refused = dispatcher.reload(&wrong).unwrap_err();
    assert!(refused.to_string().contains("output `moves`"), "{refused}");
    assert_eq!(dispatcher.status().unwrap().outputs.len(), 4);

    let after = settings(&format!("{{same: {}, moves: {}, log: {file}}}", hook(&same.url()), hook(&new.url())));
    dispatcher.reload(&after).unwrap();
    let status = wait::until("what waited to arrive at its new place", || {
        let status = dispatcher.status()?;
        (status.outputs["moves"].waiting == 0).then_some(status)
    });
    assert!(!status.outputs.contains_key("leaves") && status.stranded["leaves"] >= 5, "{status:?}");
    let keys: Vec<String> = new
        .exchanges()
        .iter()
        .filter_map(|one| one.request.json()["data"]["alert"]["key"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(keys[..5], ["k0", "k1", "k2", "k3", "k4"], "in their order");
    dispatcher.submit(alert(Firing, "later", b"x"));
    wait::until("the next alert", || {
        let exchanges = same.exchanges();
        exchanges.iter().any(|one| one.request.json()["data"]["alert"]["key"] == "later").then_some(())
    });
    assert_eq!(same.connections(), 1, "the connection went on");
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("deliveries wait in the store for `leaves`, which is not configured"), "{said}");

    // What was removed comes back, and so does what waited for it.
    let back = settings(&format!("{{leaves: {}, log: {file}}}", hook(&new.url())));
    dispatcher.reload(&back).unwrap();
    let status = wait::until("what waited for the output that was gone", || {
        let status = dispatcher.status()?;
        let there = status.outputs.get("leaves").is_some_and(|output| output.delivered >= 5 && output.waiting == 0);
        there.then_some(status)
    });
    assert!(status.stranded.is_empty(), "{status:?}");
    dispatcher.shutdown(wait::PATIENCE);
}

/// 100 kB within ten seconds.
const UPLOADS: &str = "
version: 1
rules:
  - id: upload
    title: An upload
    severity: high
    match: {direction: outbound}
    group_by: [dst.ip]
    window: 10s
    when: {bytes_out: {gte: 100kB}}
";

#[test]
fn sighup_takes_outputs_and_routing_or_says_why_not() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    // A folder takes no lines.
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let siem = format!("  siem: {{type: file, path: {}, format: json}}", folder.display());
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, UPLOADS, &siem);
    upload(&network, directory.path());
    let first = egret.wait_for("the alert", |alert| alert["rule"]["id"] == "upload");
    let configuration = directory.path().join("egret.yaml");
    let text = fs::read_to_string(&configuration).unwrap();
    let problem = |egret: &Egret, resolved: bool| {
        let all = egret.notifications();
        all.into_iter()
            .find(|told| told["data"]["id"] == "configuration-invalid" && told["data"]["resolved"] == resolved)
    };

    fs::write(&configuration, text.replace("siem: {type: file", "siem: {type: fax")).unwrap();
    egret.signal(Signal::HUP);
    let told = wait::until("the refusal", || problem(&egret, false));
    assert!(told["data"]["summary"].as_str().unwrap().contains("old outputs and routing stay in force"), "{told}");

    let records = directory.path().join("siem.ndjson");
    let moved = text.replace(&folder.display().to_string(), &records.display().to_string());
    fs::write(&configuration, moved).unwrap();
    egret.signal(Signal::HUP);
    wait::until("the end of the problem", || problem(&egret, true));
    let read = || -> Vec<Json> {
        let text = fs::read_to_string(&records).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let kept = wait::until("what waited", || read().into_iter().find(|told| told["type"] == "alert.firing"));
    assert_eq!(kept["data"]["alert"]["uid"], first["alert"]["uid"]);

    // Routing alone: from here on the file `alerts` gets nothing more.
    let routed = fs::read_to_string(&configuration).unwrap().replace("outputs: [alerts, siem]", "outputs: [siem]");
    fs::write(&configuration, routed).unwrap();
    egret.signal(Signal::HUP);
    wait::until("the resolution, at one output", || read().into_iter().find(|told| told["type"] == "alert.resolved"));
    assert!(egret.notifications().iter().all(|told| told["type"] != "alert.resolved"));
    egret.stop();
}

fn upload(network: &Network, directory: &Path) {
    let file = directory.join("upload");
    fs::write(&file, vec![b'x'; 500_000]).expect("the test's directory is writable");
    let mut command = network.client.command("curl");
    command.args(["-sS", "--max-time", "30", "-T"]).arg(&file).arg(format!("http://{}/", Network::SERVER));
    assert!(command.output().expect("curl is installed").status.success());
}

fn settings(outputs: &str) -> DispatchSettings {
    DispatchSettings { outputs: serde_yaml::from_str(outputs).unwrap(), ..Default::default() }
}

fn start(state: &Path, settings: &DispatchSettings) -> Dispatcher {
    let store = Store::open(state, StoreLimits::default(), alerts::now()).unwrap();
    let origin = Origin { host: alerts::host(), pid: 812 };
    let context = Context { origin, clock: Clock::single(alerts::now), ledger: Some(Box::new(store)) };
    Dispatcher::start(settings, context).unwrap()
}
