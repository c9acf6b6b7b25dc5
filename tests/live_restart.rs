//! A daemon that ends and comes back: windows, alerts that fire and what was on its way go on.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::egret::{Egret, Source};
use crate::support::namespace::{self, Namespace, Network};
use crate::support::sinks::Sink;
use crate::support::wait;

/// One megabyte within twenty seconds: long enough to end after a restart.
const UPLOADS: &str = "
version: 1
rules:
  - id: upload
    title: An upload
    severity: high
    match: {direction: outbound}
    group_by: [dst.ip]
    window: 20s
    when: {bytes_out: {gte: 1MB}}
";

#[test]
fn an_alert_that_fires_goes_on_after_a_restart_and_a_crash() {
    if namespace::unavailable().is_some() {
        return;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let network = Network::new();
        let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
        let mut first = Egret::start(&network.client, directory.path(), Source::Pcap, UPLOADS, "");
        upload(&network.client, directory.path());
        let alert = first.wait_for("the alert", |alert| alert["rule"]["id"] == "upload");
        // A checkpoint follows an alert within about a second.
        std::thread::sleep(std::time::Duration::from_secs(3));
        if signal == Signal::TERM {
            first.stop();
        } else {
            first.signal(signal);
        }
        drop(first);
        let mut second = Egret::start(&network.client, directory.path(), Source::Pcap, UPLOADS, "");
        let resolved =
            wait::until("its end", || second.notifications().into_iter().find(|told| told["type"] == "alert.resolved"));
        assert_eq!(resolved["data"]["alert"]["uid"], alert["alert"]["uid"], "{signal:?}: the same episode");
        let fired: Vec<_> = second.firing();
        assert_eq!(fired.len(), 1, "{signal:?}: it was said once: {fired:?}");
        let withdrawn = second.notifications().iter().any(|told| told["type"] == "alert.withdrawn");
        assert!(!withdrawn, "{signal:?}");
        second.stop();
    }
}

#[test]
fn rules_that_are_refused_are_a_problem_that_receivers_hear_of() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, UPLOADS, "");
    let problem = |egret: &Egret, resolved: bool| {
        egret
            .notifications()
            .into_iter()
            .find(|told| told["data"]["id"] == "rules-invalid" && told["data"]["resolved"] == resolved)
    };
    egret.write_rules(&UPLOADS.replace("bytes_out", "bytes_oot"));
    let told = wait::until("the problem", || problem(&egret, false));
    assert!(told["data"]["summary"].as_str().unwrap().contains("bytes_oot"), "{told}");
    egret.write_rules(UPLOADS);
    wait::until("its end", || problem(&egret, true));
    let state = directory.path().join("state");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_egret"))
        .args(["status", "--output", "prometheus", "--state-dir"])
        .arg(&state)
        .output()
        .expect("the program is built");
    let metrics = String::from_utf8(status.stdout).expect("metrics are text");
    for start in [
        "egret_notifications_total ",
        "egret_output_health{output=\"alerts\",state=\"working\"} 1",
        "egret_engine_bytes ",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(start)), "{start} is not in\n{metrics}");
    }
    egret.stop();
}

fn upload(namespace: &Namespace, directory: &Path) {
    let file = directory.join("upload");
    fs::write(&file, vec![b'x'; 2_000_000]).expect("the test's directory is writable");
    let mut command = namespace.command("curl");
    command
        .args(["-sS", "--max-time", "30", "--limit-rate", "1M", "-T"])
        .arg(&file)
        .arg(format!("http://{}/", Network::SERVER));
    assert!(command.output().expect("curl is installed").status.success());
}
