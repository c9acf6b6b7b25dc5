//! Operating a running program: what `egret status`, `alerts`, `silence`,
//! `outbox` and `output` say and do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use egret::alert::DocumentKind::Firing;
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin};
use egret::runtime::socket::{ControlSocket, Desk};
use egret::store::{Store, StoreLimits};
use serde_json::Value as Json;

use crate::support::alerts::{self, alert};
use crate::support::scripted::{Answer, ScriptedReceiver};
use crate::support::wait;

#[test]
fn operators_ask_and_tell_over_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let receiver = ScriptedReceiver::start(|number| Answer::Status(if number == 0 { 400 } else { 204 }, ""));
    let outputs = format!(
        "{{hook: {{type: webhook, url: '{}', allow_insecure: true}}, log: {{type: file, path: '{}/alerts'}}}}",
        receiver.url(),
        state.display()
    );
    let dispatcher = start(state, &outputs);
    let desk = Desk { dispatch: dispatcher.control(), engine: None, watching: Default::default() };
    let socket = ControlSocket::start(state, desk).unwrap();
    let mode = std::fs::metadata(state.join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    // The first alert is refused and given up; an operator sends it again.
    dispatcher.submit(alert(Firing, "refused", b"rclone --password=hunter2"));
    let dead = wait::until("a dead delivery", || lines(state, &["outbox", "list", "--state", "dead"]).pop());
    assert!(dead["last_error"].as_str().unwrap().contains("answered 400"), "{dead}");
    let id = dead["id"].as_str().unwrap();
    let shown = one(state, &["outbox", "show", id]);
    let payload = shown["payload"].as_str().unwrap();
    assert!(payload.contains("--password=***") && !payload.contains("hunter2"), "no secret on disk: {payload}");
    assert_eq!(egret(state, &["outbox", "retry", id]).0, 0);
    wait::until("the second attempt", || (receiver.exchanges().len() == 2).then_some(()));
    let ids: Vec<String> =
        receiver.exchanges().iter().map(|exchange| exchange.request.headers["webhook-id"].clone()).collect();
    assert_eq!(ids[0], ids[1]);

    let listed = lines(state, &["alerts", "list"]);
    assert_eq!((listed.len(), listed[0]["key"].as_str()), (1, Some("refused")));
    assert_eq!(egret(state, &["alerts", "ack", "refu", "--by", "alice"]).0, 0);
    wait::until("the acknowledgement", || {
        (one(state, &["alerts", "show", "refused"])["acknowledged_by"] == "alice").then_some(())
    });

    assert_eq!(egret(state, &["output", "test", "hook"]).0, 0);
    assert_eq!(receiver.exchanges()[2].request.json()["type"], "test");
    assert_eq!(egret(state, &["output", "test", "hoo"]).0, 1);
    let delivered = lines(state, &["outbox", "list", "--state", "delivered"]);
    assert!(delivered.iter().any(|one| one["id"] == id && one["output"] == "hook"), "{delivered:?}");
    let (code, metrics) = egret(state, &["status", "--output", "prometheus"]);
    assert!(code == 0 && metrics.contains("egret_deliveries_total{output=\"hook\",result=\"refused\"} 1"), "{metrics}");

    let silence = ["silence", "add", "rule=exfil-*", "user=alice", "--for", "2h", "--reason", "migration", "--author"];
    let made = one(state, &[&silence[..], &["bob"]].concat());
    let before = receiver.exchanges().len();
    dispatcher.submit(alert(Firing, "silenced", b"x"));
    wait::until("the silence to hold", || (one(state, &["status"])["suppressed"] == 1).then_some(()));
    assert_eq!(receiver.exchanges().len(), before);
    assert_eq!(lines(state, &["silence", "list"])[0]["author"], "bob");
    assert_eq!(egret(state, &["silence", "expire", made["id"].as_str().unwrap()]).0, 0);
    wait::until("what was silenced", || (receiver.exchanges().len() == before + 1).then_some(()));
    let refused = egret(state, &["silence", "add", "rul=x", "--for", "2h", "--reason", "x", "--author", "x"]);
    assert!(refused.0 == 2 && refused.1.contains("`rul` is no label"), "{refused:?}");

    drop(socket);
    assert!(!state.join("control.sock").exists());
    let nobody = egret(state, &["status"]);
    assert!(nobody.0 == 2 && nobody.1.contains("no egret runs here"), "{nobody:?}");
}

#[test]
fn a_restart_goes_on_with_what_was_left() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = ScriptedReceiver::start(|number| Answer::Status(if number < 1 { 401 } else { 204 }, ""));
    let outputs = format!("hook: {{type: webhook, url: '{}', allow_insecure: true}}", receiver.url());
    let first = start(directory.path(), &outputs);
    for number in 0..5 {
        first.submit(alert(Firing, &number.to_string(), b"x"));
    }
    wait::until("the refusal", || (!receiver.exchanges().is_empty()).then_some(()));
    let left = first.shutdown(std::time::Duration::ZERO);
    assert_eq!((left.outputs["hook"].waiting, left.outputs["hook"].delivered), (5, 0));
    let second = start(directory.path(), &outputs);
    let status = second.shutdown(wait::PATIENCE);
    assert_eq!((status.outputs["hook"].waiting, status.outputs["hook"].delivered), (0, 5));
    let again: Vec<String> =
        receiver.exchanges().iter().map(|exchange| exchange.request.headers["webhook-id"].clone()).collect();
    assert_eq!((again.len(), &again[0]), (6, &again[1]), "the same delivery under the same id");
    let third = start(directory.path(), &outputs);
    assert_eq!(third.shutdown(wait::PATIENCE).outputs["hook"].delivered, 0, "nothing is sent twice without need");
}

#[test]
fn a_full_disk_stops_nothing_and_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = directory.path().join("small");
    std::fs::create_dir(&mounted).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"]).arg(&mounted).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    }
    let log = directory.path().join("alerts");
    let outputs = format!("log: {{type: file, path: '{}'}}", log.display());
    let dispatcher = start(&mounted, &outputs);
    for number in 0..300 {
        dispatcher.submit(alert(Firing, &number.to_string(), &[b'x'; 1500]));
    }
    let written = || std::fs::read_to_string(&log).unwrap_or_default();
    wait::until("all alerts and the problem", || {
        let text = written();
        (text.matches("alert.firing").count() == 300 && text.contains("store-failing")).then_some(())
    });
    dispatcher.shutdown(wait::PATIENCE);
    assert!(Command::new("umount").arg(&mounted).status().unwrap().success());
}

#[test]
fn a_damaged_store_is_set_aside_whenever_it_breaks_and_nothing_stops() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("alerts");
    let outputs = format!("{{log: {{type: file, path: '{}'}}}}", log.display());
    let written = || std::fs::read_to_string(&log).unwrap_or_default();
    let state = directory.path().join("state");
    let damage = || std::fs::write(state.join("egret.db"), vec![0x5a; 65_536]).unwrap();
    // Before the start.
    std::fs::create_dir(&state).unwrap();
    damage();
    let dispatcher = start(&state, &outputs);
    dispatcher.submit(alert(Firing, "first", b"x"));
    wait::until("the first problem", || (written().matches("store-set-aside").count() == 1).then_some(()));
    // While it runs.
    damage();
    for name in ["egret.db-wal", "egret.db-shm"] {
        std::fs::write(state.join(name), vec![0x5a; 65_536]).unwrap();
    }
    for number in 0..20 {
        dispatcher.submit(alert(Firing, &format!("later {number}"), b"x"));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    wait::until("all alerts", || (written().matches("alert.firing").count() == 21).then_some(()));
    let status = dispatcher.shutdown(wait::PATIENCE);
    assert_eq!((status.outputs["log"].waiting, status.lost), (0, 0), "{status:?}");
    // A third run starts whatever the second left.
    let third = start(&state, &outputs);
    third.submit(alert(Firing, "last", b"x"));
    let status = third.shutdown(wait::PATIENCE);
    assert_eq!((status.outputs["log"].waiting, status.committed > 0), (0, true), "{status:?}");
    // SQLite may write over the damage without a look at it; then the next start finds it.
    let problems = written().matches("store-").count();
    assert!(problems >= 2, "the damage while it ran was said: {}", written());
}

#[test]
fn damage_under_a_running_store_is_noticed_and_nothing_that_waits_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (state, log) = (directory.path().join("state"), directory.path().join("alerts"));
    let receiver = ScriptedReceiver::start(|number| match number {
        0 | 1 => Answer::Status(503, "Retry-After: 3600"),
        _ => Answer::Status(204, ""),
    });
    let outputs = format!(
        "{{hook: {{type: webhook, url: '{}', allow_insecure: true}}, log: {{type: file, path: '{}'}}}}",
        receiver.url(),
        log.display()
    );
    let first = start(&state, &outputs);
    for number in 0..300 {
        first.submit(alert(Firing, &format!("{number:03}"), &[b'x'; 500]));
    }
    wait::until("all on disk", || first.status().filter(|status| status.outputs["log"].delivered >= 300));
    assert_eq!(first.shutdown(std::time::Duration::ZERO).outputs["hook"].waiting, 300);
    // The second run holds them in memory when its file is written over.
    let second = start(&state, &outputs);
    wait::until("the second attempt", || (receiver.exchanges().len() == 2).then_some(()));
    let path = state.join("egret.db");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x5a; length as usize - 4096], 4096).unwrap();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait::until("the problem", || said().contains("\"id\":\"store-set-aside\"").then_some(()));
    assert_eq!(second.shutdown(std::time::Duration::ZERO).outputs["hook"].waiting, 301, "and the problem");
    let aside = std::fs::read_dir(&state).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().starts_with("egret.db.damaged-"));
    assert!(aside.count() >= 1, "the damaged file is kept");
    let third = start(&state, &outputs);
    let status = third.shutdown(wait::PATIENCE);
    assert_eq!((status.outputs["hook"].waiting, status.outputs["hook"].delivered), (0, 301), "{status:?}");
    let taken: std::collections::BTreeSet<String> = receiver
        .exchanges()
        .iter()
        .filter(|exchange| exchange.taken)
        .filter_map(|exchange| exchange.request.json()["data"]["alert"]["key"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(taken.len(), 300);
}

#[test]
fn routes_are_tried_without_sending() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("egret.yaml");
    let text = "
outputs: {soc: {type: stdout}, pager: {type: stdout}}
routing: {defaults: {outputs: [soc]}, routes: [{when: {severity: critical, user: alice}, outputs: [pager]}]}
";
    std::fs::write(&config, text).unwrap();
    let test = |alert: &str, expect: &str| {
        let config = config.to_str().unwrap();
        egret(directory.path(), &["routes", "test", "--config", config, "--alert", alert, "--expect", expect]).0
    };
    assert_eq!(test(r#"{"rule":"x","severity":"critical","user":"alice"}"#, "pager"), 0);
    assert_eq!(test(r#"{"rule":"x","severity":"critical","user":"bob"}"#, "pager"), 1);
    assert_eq!(test(r#"{"rule":"x","colour":"red"}"#, "pager"), 2);
}

#[test]
fn the_printed_receiver_takes_what_is_signed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let port = crate::support::rsyslog::free_port();
    let printed = Command::new(env!("CARGO_BIN_EXE_egret")).args(["webhook", "verify"]).output().unwrap();
    let script = directory.path().join("receiver.py");
    let text = String::from_utf8(printed.stdout).unwrap().replace("8080", &port.to_string());
    std::fs::write(&script, text).unwrap();
    let python =
        Command::new("/usr/bin/python3").arg(&script).arg(&secret).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut python) = python else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    wait::until("the receiver", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let other = directory.path().join("other");
    std::fs::write(&other, "another secret").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    let hook = |secret: &Path| {
        format!(
            "{{type: webhook, url: 'http://127.0.0.1:{port}/', allow_insecure: true, secret_file: '{}'}}",
            secret.display()
        )
    };
    let dispatcher = start(directory.path(), &format!("{{right: {}, wrong: {}}}", hook(&secret), hook(&other)));
    dispatcher.submit(alert(Firing, "k", b"x"));
    let status = wait::until("both answers", || {
        let status = dispatcher.status()?;
        (status.outputs["right"].delivered > 0 && status.outputs["wrong"].last_error.is_some()).then_some(status)
    });
    let _ended_before = python.kill();
    let _status = python.wait();
    assert_eq!(status.outputs["wrong"].delivered, 0);
    assert!(status.outputs["wrong"].last_error.as_deref().unwrap().contains("answered 401"));
}

fn start(state: &Path, outputs: &str) -> Dispatcher {
    let store = Store::open(state, StoreLimits::default(), alerts::now()).unwrap();
    let settings = DispatchSettings { outputs: serde_yaml::from_str(outputs).unwrap(), ..Default::default() };
    let origin = Origin { host: alerts::host(), pid: 812 };
    let context = Context { origin, clock: Clock::single(alerts::now), ledger: Some(Box::new(store)) };
    Dispatcher::start(&settings, context).unwrap()
}

/// The exit code, and what was said on either stream.
fn egret(state: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_egret"))
        .args(arguments)
        .env("EGRET_STATE_DIR", state)
        .output()
        .expect("the program is built");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

fn lines(state: &Path, arguments: &[&str]) -> Vec<Json> {
    let (_, said) = egret(state, &[arguments, &["--output", "json"]].concat());
    said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{arguments:?}: {said}"))).collect()
}

fn one(state: &Path, arguments: &[&str]) -> Json {
    lines(state, arguments).pop().unwrap_or_default()
}
