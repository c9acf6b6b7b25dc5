//! The flows of alerts as records of their own: `--emit-flows`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use crate::support::egret::{Egret, Source};
use crate::support::namespace::{self, Network};
use crate::support::sinks::Sink;
use crate::support::{schemas, wait};

/// While it fires it is said again each second.
const GROWING: &str = "
version: 1
rules:
  - id: upload
    title: An upload
    severity: high
    match: {direction: outbound}
    group_by: [dst.ip]
    window: 10m
    when: {bytes_out: {gte: 100kB}}
    realert: {every: 1s}
";

#[test]
fn a_replay_tells_the_flows_of_each_alert_after_it() {
    for (format, class) in [("ocsf", "class_uid"), ("ecs", "ecs")] {
        let output = Command::new(env!("CARGO_BIN_EXE_egret"))
            .args(["replay", "examples/upload.pcapng", "--output", "json", "--emit-flows", format])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("the program is built");
        let text = String::from_utf8(output.stdout).expect("JSON is text");
        let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let (flows, alerts): (Vec<Json>, Vec<Json>) = lines.into_iter().partition(|line| !line[class].is_null());
        assert_eq!((flows.len(), alerts.len()), (3, 4), "{text}");
        let uid = |flow: &Json| match format {
            "ocsf" => flow["metadata"]["correlation_uid"].clone(),
            _ => flow["egress"]["alert"]["uid"].clone(),
        };
        for (flow, alert) in flows.iter().zip(&alerts) {
            assert_eq!(uid(flow), alert["data"]["alert"]["uid"]);
        }
        if format == "ocsf" {
            assert_eq!(flows[0]["traffic"]["bytes_out"], 50_204_198);
            let events: Vec<(&str, Json)> = flows.into_iter().map(|flow| ("ocsf", flow)).collect();
            assert_eq!(schemas::findings(&events).unwrap_or_default(), Vec::<String>::new());
        }
    }
}

#[test]
fn flows_need_an_output_that_can_tell_them() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("egret.yaml");
    fs::write(&config, "outputs: {console: {type: stdout}}\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_egret"))
        .args(["run", "--emit-flows", "--config"])
        .arg(&config)
        .output()
        .expect("the program is built");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--emit-flows needs an output with `format: ecs` or `format: ocsf`"), "{said}");
}

#[test]
fn a_daemon_tells_what_passed_on_each_flow_while_its_alert_fires() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    let told = directory.path().join("flows.ndjson");
    let output = format!("  siem: {{type: file, path: {}, format: ocsf, emit_flows: true}}", told.display());
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, GROWING, &output);
    for _ in 0..2 {
        upload(&network, directory.path());
    }
    let events = || -> Vec<Json> {
        let text = fs::read_to_string(&told).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let flows = || -> Vec<Json> { events().into_iter().filter(|event| event["class_uid"] == 4001).collect() };
    let passed =
        |flows: &[Json]| -> u64 { flows.iter().filter_map(|flow| flow["traffic"]["bytes_out"].as_u64()).sum() };
    let flows = wait::until("all that was sent, told flow by flow", || {
        let flows = flows();
        (passed(&flows) >= 2_000_000).then_some(flows)
    });
    egret.stop();
    let alert = events().into_iter().find(|event| event["class_uid"] == 2004).expect("an alert comes first");
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for flow in &flows {
        assert_eq!(flow["metadata"]["correlation_uid"], alert["metadata"]["correlation_uid"]);
        let id = flow["connection_info"]["community_uid"].as_str().expect("TCP has one").to_owned();
        let name = flow["actor"]["process"]["name"].as_str().unwrap_or_default().to_owned();
        assert_eq!(name, "curl");
        *sums.entry(id.clone()).or_default() += flow["traffic"]["bytes_out"].as_u64().unwrap();
        totals.insert(id, flow["unmapped"]["cumulative_traffic"]["bytes_out"].as_u64().unwrap());
    }
    assert_eq!(totals.len(), 2, "two connections: {flows:?}");
    // The first packets of the first flow passed before the group came near its limit.
    assert!(sums.iter().all(|(id, sum)| *sum <= totals[id] && sum + 100_000 >= totals[id]), "{sums:?} {totals:?}");
}

fn upload(network: &Network, directory: &Path) {
    let file = directory.join("upload");
    fs::write(&file, vec![b'x'; 1_100_000]).expect("the test's directory is writable");
    let mut command = network.client.command("curl");
    command.args(["-sS", "--max-time", "30", "--limit-rate", "600k", "-T"]).arg(&file);
    command.arg(format!("http://{}/", Network::SERVER));
    assert!(command.output().expect("curl is installed").status.success());
}
