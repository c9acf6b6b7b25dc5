//! What a running program tells of its windows, its exceptions and its alerts.

use std::process::Command;

use serde_json::Value as Json;

use crate::support::egret::{Egret, Source};
use crate::support::namespace::{self, Network};
use crate::support::sinks::Sink;
use crate::support::wait;

const RULES: &str = "
rules:
  - id: uploads
    match: {direction: outbound, dst.port: 80}
    group_by: [exe.name]
    window: 1h
    when: {payload_out: {gte: 1MB}}
    exceptions: [{name: wget, fields: [exe.name], values: [[wget]]}, {name: nobody, fields: [exe.name], values: [[x]]}]
  - id: new-places
    match: {direction: outbound}
    first_seen: {of: [exe, dst.ip], lookback: 14d, learn: 3d}
";

#[test]
fn operators_see_windows_fill_and_the_buckets_of_an_alert() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, RULES, "");
    let state = directory.path().join("state").display().to_string();
    let ask = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_egret"))
            .args(arguments)
            .args(["--state-dir", &state])
            .output()
            .expect("the binary was built");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text + &String::from_utf8_lossy(&output.stderr))
    };
    let upload = |program: &str, bytes: u32| {
        let file = directory.path().join("file");
        std::fs::write(&file, vec![7; bytes as usize]).expect("the directory is writable");
        let file = file.display();
        let command = match program {
            "curl" => format!("curl -sS -T {file} http://{}/ -o /dev/null --limit-rate 200k", Network::SERVER),
            _ => format!("wget -q --limit-rate=200k --post-file={file} -O /dev/null http://{}/", Network::SERVER),
        };
        assert!(network.client.run("bash", &["-c", &command]), "{command}");
    };
    let window_of = |name: &str| {
        let (code, printed) = ask(&["windows", "--rule", "uploads", "--output", "json"]);
        assert_eq!(code, Some(0), "{printed}");
        let windows: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
        windows.into_iter().find(|window| window["group"]["exe.name"] == name)
    };
    wait::until("the status to say who learns", || {
        let (_, printed) = ask(&["status"]);
        printed.contains("still learning, so that they do not fire: new-places").then_some(())
    });
    upload("curl", 600_000);
    let filled = wait::until("the window to fill", || {
        window_of("curl").filter(|window| window["share"].as_f64().is_some_and(|share| share > 0.59))
    });
    assert!(filled["state"] == "quiet" && filled["share"].as_f64().is_some_and(|share| share < 0.7), "{filled}");
    upload("wget", 300_000);
    let usage = wait::until("the exception to be counted", || {
        let (_, printed) = ask(&["exceptions", "--output", "json"]);
        let exceptions: Vec<Json> =
            printed.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
        exceptions.into_iter().find(|one| one["exception"] == "wget" && one["bytes"].as_u64() > Some(300_000))
    });
    assert!(usage["hits"].as_u64() >= Some(1) && usage["last"].is_string(), "{usage}");
    upload("curl", 600_000);
    let alert = egret.wait_for("the alert", |alert| alert["rule"]["id"] == "uploads");
    let uid = alert["alert"]["uid"].as_str().expect("an alert has a uid").to_owned();
    let answer = wait::until("the store to have it", || {
        let (code, printed) = ask(&["why", &uid, "--output", "json"]);
        (code == Some(0)).then(|| serde_json::from_str::<Json>(&printed).expect("one object"))
    });
    let buckets = answer["buckets"].as_array().expect("a list");
    let sum: u64 = buckets.iter().filter_map(|bucket| bucket["value"].as_u64()).sum();
    let value = answer["conditions"][0]["value"].as_u64().expect("a value");
    assert_eq!(sum, value, "the buckets are what fired: {answer}");
    assert!(answer["crossed_in"].is_object());
    egret.stop();
    // The store answers when the program has ended, too.
    let (code, printed) = ask(&["why", &uid]);
    assert!(code == Some(0) && printed.contains("<- the limit is reached"), "{printed}");
    let (code, printed) = ask(&["windows"]);
    assert!(code == Some(2) && printed.contains("no egret runs here"), "{printed}");
}
