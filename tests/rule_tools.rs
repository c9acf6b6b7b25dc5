//! The tools of rule authors: what a rule makes of a flow and why an alert
//! fired, windows and exceptions of a running program, the Navigator layer,
//! and what `egret test` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use egret::alert::DocumentKind;
use egret::attribution::FlowUpdate;
use egret::config::{rule_files, shipped};
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin};
use egret::engine::{Checkpoint, Engine, Output, RemoteFacts, Settings};
use egret::flow::LocalAddresses;
use egret::rule::compile::{Compiled, Options, Parts, compile};
use egret::rule::diagnose::Source;
use egret::rule::explain::explain;
use egret::rule::sheet::FlowSheet;
use egret::rule::{Field, Host, Life, Rule, RuleSet, Trigger};
use egret::runtime::control::Control;
use egret::runtime::socket::{ControlSocket, Desk};
use egret::time::Timestamp;
use egret::units::Bytes;
use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::support::data;

const START: Timestamp = Timestamp::from_secs(1_777_888_800);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The tree that is shown, the compiled condition, and the engine agree on any flow.
    #[test]
    fn an_explanation_says_what_the_engine_does(entries in flow()) {
        let pack = pack();
        let sheet = FlowSheet::read(&entries).unwrap();
        let host = Arc::new(Host::default());
        let seen = sheet.observation(&host, START);
        // Every rule of the pack fires at once, in an engine that is told of this flow alone.
        let each = |rule: &Arc<Rule>| {
            let (trigger, life) = (Trigger::Each, Life::default());
            Arc::new(Rule { trigger, life, group_by: Vec::new(), ..(**rule).clone() })
        };
        let rules = Arc::new(RuleSet::new(pack.rules.rules.iter().map(each)));
        let fired = fired(&sheet, rules, &host);
        for rule in &pack.rules.rules {
            let id = &*rule.metadata.id;
            let explanation = explain(&pack, id, &seen).unwrap();
            prop_assert_eq!(explanation.condition.holds, rule.condition.matches(&seen), "{}: {:?}", id, &entries);
            let counts = explanation.counts && explanation.in_force;
            prop_assert_eq!(fired.contains(id), counts, "{}: {:?} {:?}", id, &entries, &explanation);
        }
    }
}

/// Random flows made of the values that the pack asks for, and of some that it does not.
fn flow() -> impl Strategy<Value = BTreeMap<String, Vec<String>>> {
    let values: &[(&str, &[&str])] = &[
        (
            "exe",
            &[
                "/usr/bin/python3.11",
                "/usr/bin/curl",
                "/tmp/x",
                "/usr/bin/restic",
                "/usr/bin/dig",
                "/usr/bin/nc",
                "/usr/bin/git",
                "/usr/lib/firefox/firefox",
            ],
        ),
        ("exe.kind", &["file", "memfd", "deleted"]),
        ("user", &["alice", "root", "backup", "www-data", "nagios"]),
        ("uid", &["0", "1000", "33"]),
        ("proto", &["tcp", "udp", "icmp"]),
        ("direction", &["outbound", "inbound", "local"]),
        (
            "dst",
            &[
                "203.0.113.7:443",
                "10.0.0.1:53",
                "169.254.169.254:80",
                "8.8.8.8:53",
                "93.184.216.34:4444",
                "93.184.216.34:80",
                "93.184.216.34:3333",
            ],
        ),
        (
            "dst.sni",
            &[
                "drive.google.com",
                "paste.rs",
                "discord.com",
                "github.com",
                "x.ngrok.io",
                "example.org",
                "pool.minexmr.com",
            ],
        ),
        ("l7", &["tls", "http", "ssh", "dns", "unknown"]),
        ("iface", &["eth0", "wwan0", "ppp0"]),
        ("parent.exe", &["/usr/bin/bash", "/usr/bin/ssh"]),
        ("cmdline", &["curl -T x https://example.org", "python3 /usr/bin/aws s3"]),
        ("attribution", &["exact", "unknown"]),
        ("unit", &["a.service", "apt-mirror.service"]),
        ("bytes_out", &["100", "200000", "60000000"]),
    ];
    let one = |(key, values): &(&'static str, &'static [&'static str])| {
        let key = (*key).to_owned();
        prop::option::of(prop::sample::select(*values))
            .prop_map(move |value| value.map(|value| (key.clone(), vec![value.to_owned()])))
    };
    values.iter().map(one).collect::<Vec<_>>().prop_map(|entries| entries.into_iter().flatten().collect())
}

fn pack() -> Arc<Compiled> {
    static PACK: std::sync::OnceLock<Arc<Compiled>> = std::sync::OnceLock::new();
    let compiled = || Arc::new(compile(shipped::sources(), &Options { parts: Parts::Kept, ..Options::default() }));
    Arc::clone(PACK.get_or_init(compiled))
}

/// The ids of the rules that fire when a flow passes.
fn fired(sheet: &FlowSheet, rules: Arc<RuleSet>, host: &Arc<Host>) -> BTreeSet<String> {
    let local: IpNet = sheet.key.local.address.ip().into();
    let settings = Settings { local: LocalAddresses::new([local]), host: Arc::clone(host), ..Settings::default() };
    let mut engine = Engine::new(settings, rules);
    if let Some(name) = &sheet.interface {
        engine.handle_interface(0, Arc::clone(name));
    }
    engine.handle_timeout(START);
    let update = FlowUpdate {
        key: sheet.key,
        direction: Some(sheet.direction),
        counters: sheet.counters,
        attribution: sheet.attribution.clone(),
        timestamp: START.after(Duration::from_millis(1)),
        state: sheet.state,
        end_reason: None,
    };
    engine.handle_update(&update);
    let facts =
        RemoteFacts { name: sheet.name.clone(), place: sheet.place.clone(), application: Some(sheet.application) };
    engine.handle_remote(&sheet.key, &facts);
    engine.handle_timeout(START.after(Duration::from_secs(3)));
    std::iter::from_fn(|| engine.poll_output())
        .filter_map(|output| match output {
            Output::Notification(told) if told.kind == DocumentKind::Firing => told.alert.clone(),
            _ => None,
        })
        .map(|alert| alert.rule.metadata.id.to_string())
        .collect()
}

#[test]
fn why_shows_the_buckets_of_an_alert() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("alerts.jsonl");
    let (_, printed, _) = egret(&["replay", "examples/upload.pcapng", "--output", "json"]);
    fs::write(&journal, &printed).unwrap();
    let journal = journal.display().to_string();
    let fired: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut shown = 0;
    for alert in fired.iter().filter(|line| line["type"] == "alert.firing") {
        let uid = alert["data"]["alert"]["uid"].as_str().unwrap();
        let (code, answer, errors) = egret(&["why", uid, "--journal", &journal, "--output", "json"]);
        assert_eq!(code, 0, "{errors}");
        let answer: Json = serde_json::from_str(&answer).unwrap();
        let buckets = answer["buckets"].as_array().unwrap();
        let sum: u64 = buckets.iter().filter_map(|bucket| bucket["value"].as_u64()).sum();
        let metric = answer["metric"].as_str().unwrap();
        let condition = alert["data"]["conditions"].as_array().unwrap().iter().find(|one| one["metric"] == metric);
        let condition = condition.expect("the rules of the example ask for sums");
        assert_eq!(Some(sum), condition["value"].as_u64(), "the buckets are the sum that fired");
        let crossed = &answer["crossed_in"];
        assert!(crossed["sum"].as_u64() >= condition["limit"].as_u64(), "{answer}");
        assert_eq!(crossed["to"], answer["fired_at"], "it fired in the tick in which the limit was reached");
        let (_, text, _) = egret(&["why", uid, "--journal", &journal]);
        assert!(text.contains("<- the limit is reached"), "{text}");
        shown += 1;
    }
    assert!(shown >= 3);
    let (code, _, errors) = egret(&["why", "01", "--journal", &journal]);
    assert!(code == 2 && errors.contains("several alerts"), "{errors}");
    let (code, _, errors) = egret(&["why", "nothing", "--journal", &journal]);
    assert!(code == 2 && errors.contains("no alert"), "{errors}");
}

#[test]
fn explain_match_shows_each_line() {
    let explain = |rule: &str, flow: &str| egret(&["explain-match", "--rule", rule, "--flow", flow]);
    let flow = r#"{"exe":"/usr/bin/python3.11","user":"alice","dst":"203.0.113.7:443","payload_out":"12MB"}"#;
    let (code, text, _) = explain("exfil-interpreter", flow);
    assert_eq!(code, 0);
    assert!(text.contains("PASS   exe: $interpreters   (it is /usr/bin/python3.11)"), "{text}");
    assert!(text.contains("payload_out >= 50MB in 10m   (this flow: 12MB)"), "{text}");
    let (code, text, _) = explain("exfil-interpreter", &flow.replace("203.0.113.7", "10.0.0.7"));
    assert_eq!(code, 1);
    assert!(text.contains("FAIL     dst.scope: public   (it is private)"), "{text}");
    // A line that `egret flows` prints is a flow as well.
    let (_, flows, _) = egret(&["flows", "examples/upload.pcapng", "--output", "json"]);
    let line = flows.lines().find(|line| line.contains("python3")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flow.json");
    fs::write(&file, line).unwrap();
    let (code, text, errors) = explain("exfil-interpreter", &format!("@{}", file.display()));
    assert_eq!(code, 0, "{text}{errors}");
    let hostile = explain("exfil-interpreter", "{\"exe\":\"/tmp/\\u001b[2J\"}").1;
    assert!(!hostile.contains('\u{1b}') && hostile.contains("\\x1b[2J"), "{hostile}");
    let (code, _, errors) = explain("exfil-interpeter", flow);
    assert!(code == 2 && errors.contains("did you mean `exfil-interpreter`?"), "{errors}");
    let (code, _, errors) = explain("exfil-interpreter", r#"{"exee":"/bin/a"}"#);
    assert!(code == 2 && errors.contains("did you mean `exe`?"), "{errors}");
}

#[test]
fn a_running_program_tells_its_windows_and_exceptions() {
    let directory = tempfile::tempdir().unwrap();
    let text = "rules:
  - id: much
    match: {}
    group_by: [exe]
    window: 1m
    when: {bytes_out: {gte: 1MB}}
    exceptions: [{name: own, fields: [exe], values: [[/bin/own]]}, {name: never, fields: [exe], values: [[/bin/never]]}]
";
    let mut engine = Engine::new(Settings::default(), rules(text));
    pass(&mut engine, 0, &[("/bin/small", 250_000), ("/bin/large", 900_000), ("/bin/own", 5_000_000)]);
    // A restart keeps what exceptions hid, even if the rule has changed.
    let saved = serde_json::to_string(&engine.checkpoint()).unwrap();
    let mut engine = Engine::new(Settings::default(), rules(&text.replace("window: 1m", "window: 2m")));
    engine.restore(serde_json::from_str::<Checkpoint>(&saved).unwrap());
    pass(&mut engine, 10, &[("/bin/small", 250_000), ("/bin/large", 900_000), ("/bin/own", 1_000_000)]);
    let dispatcher = {
        let settings = DispatchSettings::default();
        let context =
            Context { origin: Origin { host: Host::default(), pid: 1 }, clock: Clock::single(|| START), ledger: None };
        Dispatcher::start(&settings, context).unwrap()
    };
    let (sender, receiver) = crossbeam_channel::unbounded();
    let thread = std::thread::spawn(move || {
        for control in receiver {
            match control {
                Control::Ask(ask) => ask(&mut engine),
                _ => return,
            }
        }
    });
    let desk = Desk { dispatch: dispatcher.control(), engine: Some(sender.clone()), watching: Default::default() };
    let socket = ControlSocket::start(directory.path(), desk).unwrap();
    let ask = |arguments: &[&str]| {
        let state = directory.path().display().to_string();
        egret(&[arguments, &["--state-dir", &state]].concat())
    };
    let (code, printed, errors) = ask(&["windows", "--output", "json"]);
    assert_eq!(code, 0, "{errors}");
    let windows: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> =
        windows.iter().map(|one| (one["group"]["exe"].as_str().unwrap(), one["share"].as_f64().unwrap())).collect();
    assert_eq!(shown, [("/bin/large", 0.9), ("/bin/small", 0.25), ("/bin/own", 0.0)]);
    let (_, text, _) = ask(&["windows", "--rule", "much", "--limit", "1"]);
    assert!(text.contains("90.0 %") && text.contains("bytes_out 900 kB of 1 MB") && !text.contains("small"), "{text}");
    let (_, text, _) = ask(&["windows", "--rule", "nothing"]);
    assert!(text.contains("no traffic"), "{text}");

    let (code, printed, _) = ask(&["exceptions", "--output", "json"]);
    assert_eq!(code, 0);
    let exceptions: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&exceptions[0]["exception"], &exceptions[0]["hits"], &exceptions[0]["bytes"]),
        (&"own".into(), &2.into(), &6_000_000.into())
    );
    assert_eq!((&exceptions[1]["hits"], exceptions[1]["last"].is_null()), (&0.into(), true));
    // The story is set in the past: it was hit so long ago, and the other never was.
    let (code, text, _) = ask(&["exceptions", "--unused", "90d"]);
    let age = SystemAge::of(START);
    assert_eq!((code, text.contains("never")), if age.days() >= 90 { (1, true) } else { (0, false) }, "{text}");
    let (code, text, _) = ask(&["exceptions", "--unused", "1000w"]);
    assert!(code == 0 && text.contains("every exception was used"), "{text}");
    drop(socket);
    sender.send(Control::Stop).unwrap();
    thread.join().unwrap();
    dispatcher.shutdown(Duration::from_secs(1));
}

/// How long ago a moment was.
struct SystemAge(Duration);

impl SystemAge {
    fn of(at: Timestamp) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Self(Timestamp::from_secs(i64::try_from(now.as_secs()).unwrap()).since(at))
    }

    fn days(&self) -> u64 {
        self.0.as_secs() / 86_400
    }
}

fn rules(text: &str) -> Arc<RuleSet> {
    let compiled = compile(vec![Source::new("rules.yaml", text)], &Options::default());
    Arc::new(compiled.into_result().unwrap())
}

fn pass(engine: &mut Engine, second: u64, sent: &[(&str, u64)]) {
    for (port, (exe, bytes)) in (50_000..).zip(sent) {
        let entries: BTreeMap<String, Vec<String>> = [
            ("exe".to_owned(), vec![(*exe).to_owned()]),
            ("src".to_owned(), vec![format!("10.0.0.5:{port}")]),
            ("dst".to_owned(), vec!["203.0.113.7:443".to_owned()]),
        ]
        .into();
        let sheet = FlowSheet::read(&entries).unwrap();
        let mut counters = sheet.counters;
        counters.bytes_out = Bytes(*bytes);
        engine.handle_update(&FlowUpdate {
            key: sheet.key,
            direction: Some(sheet.direction),
            counters,
            attribution: sheet.attribution.clone(),
            timestamp: START.after(Duration::from_secs(second)),
            state: sheet.state,
            end_reason: None,
        });
    }
    engine.handle_timeout(START.after(Duration::from_secs(second + 2)));
}

#[test]
fn the_layer_is_one_that_the_navigator_opens() {
    let (code, printed, _) = egret(&["export", "navigator", "--name", "base"]);
    assert_eq!(code, 0);
    let layer: Json = serde_json::from_str(&printed).unwrap();
    assert_eq!((&layer["name"], &layer["domain"]), (&"base".into(), &"enterprise-attack".into()));
    assert_eq!(layer["versions"]["layer"], "4.5");
    let known: Option<Json> = data::path("attack/attack-techniques.json")
        .map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap());
    let mut seen = BTreeSet::new();
    for technique in layer["techniques"].as_array().unwrap() {
        let (id, tactic) = (technique["techniqueID"].as_str().unwrap(), technique["tactic"].as_str().unwrap());
        assert!(seen.insert((id.to_owned(), tactic.to_owned())), "{id} {tactic} twice");
        assert!((1..=100).contains(&technique["score"].as_u64().unwrap()));
        assert!(technique["enabled"] == true && !technique["comment"].as_str().unwrap().is_empty());
        for list in ["metadata", "links"] {
            assert!(technique[list].is_array(), "{technique}");
        }
        if let Some(known) = &known {
            let all = known["techniques"].as_array().unwrap();
            let found = all.iter().find(|one| one["id"] == id).unwrap_or_else(|| panic!("{id} is no technique"));
            assert!(
                found["tactics"].as_array().unwrap().iter().any(|one| one == tactic),
                "{id} has no tactic {tactic}"
            );
            assert!(found["revoked"] == false && found["deprecated"] == false, "{id} is gone");
        }
    }
    let tagged: BTreeSet<String> =
        pack().rules.rules.iter().flat_map(|rule| rule.metadata.attack.iter().cloned()).collect();
    let shown: BTreeSet<String> = seen.into_iter().map(|(id, _)| id).collect();
    assert_eq!(shown, tagged, "each technique of a rule is in the layer, and no other");
}

#[test]
fn tests_of_rules_see_gaps_and_pending_alerts_and_what_decides() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yaml");
    let run = |text: &str, arguments: &[&str]| {
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        egret(&[&["test", &file], arguments].concat())
    };
    let text = "rules:
  - id: much
    match: {}
    group_by: [exe]
    window: 10s
    when: [{bytes_out: {gte: 1MB}}, {connections: {lte: 3}}]
    for: 5s
    outputs: [soc]
tests:
  - name: a silence ends nothing
    rules: [much]
    base: {exe: /bin/a, dst: '203.0.113.7:443'}
    flows: [{at: 0s, every: 1s, times: 12, bytes_out: 500kB}, {at: 60s, bytes_out: 1kB}]
    gaps: [{from: 12s, to: 50s}]
    expect:
      - {at: 4s, state: pending, group: {exe: /bin/a}}
      - {at: 10s, state: firing, summary: {contains: /bin/a}, values: {bytes_out: {gte: 1MB}}}
      - {at: 45s, state: firing}
      - {at: 59s, state: resolved}
      - {notifications: {to: soc, count: 2, kinds: [firing, resolved]}}
";
    let (code, printed, errors) = run(text, &["--coverage", "--min-coverage", "100"]);
    assert_eq!(code, 1, "{printed}{errors}");
    assert!(printed.contains("1 tests passed, 0 failed"), "{printed}");
    assert!(printed.contains("no test shows `much` keeping silent"), "{printed}");
    assert!(printed.contains("in no test `connections lte 3` alone keeps `much` silent"), "{printed}");
    assert!(!printed.contains("`bytes_out gte"), "the bytes decide before it fires: {printed}");
    // The same without the gap: it resolves at once.
    let (code, printed, _) = run(&text.replace("    gaps: [{from: 12s, to: 50s}]\n", ""), &[]);
    assert!(code == 1 && printed.contains("at 45s"), "{printed}");
    let (code, printed, _) = run(&text.replace("{at: 4s, state: pending", "{at: 1s, state: pending"), &[]);
    assert!(code == 1 && printed.contains("no alert of this group is pending"), "{printed}");
    // Each test is a case of JUnit, coverage one more.
    let (code, printed, _) = run(&text.replace("count: 2", "count: 3"), &["--output", "junit", "--min-coverage", "10"]);
    assert_eq!(code, 1);
    assert!(printed.contains("tests=\"2\" failures=\"1\""), "{printed}");
    assert!(printed.contains("name=\"a silence ends nothing\"") && printed.contains("<failure message="), "{printed}");
    let (_, printed, _) = run(&text.replace("count: 2", "count: 3"), &["--output", "github"]);
    assert!(printed.starts_with("::error file="), "{printed}");
}

#[test]
fn the_pack_is_tested_whole() {
    let (code, printed, errors) = egret(&["test", "rules", "--coverage", "--min-coverage", "100"]);
    assert_eq!(code, 0, "{printed}{errors}");
    let sources = rule_files::read(&["rules".into()]).unwrap();
    let compiled = compile(sources, &Options::default());
    for rule in &compiled.rules.rules {
        let id = &rule.metadata.id;
        let tests: Vec<&str> =
            compiled.cases.iter().filter(|case| case.rules.contains(id)).map(|case| case.name.as_str()).collect();
        assert!(tests.len() >= 3, "{id} has only {tests:?}");
    }
}

#[test]
fn the_pack_names_techniques_and_fields_that_exist() {
    let Some(path) = data::path("attack/attack-techniques.json") else { return };
    let known: Json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let known = known["techniques"].as_array().unwrap();
    for rule in &pack().rules.rules {
        for id in &rule.metadata.attack {
            let technique = known.iter().find(|one| one["id"] == id.as_str());
            let technique = technique.unwrap_or_else(|| panic!("{}: {id} is no technique", rule.metadata.id));
            assert!(technique["revoked"] == false && technique["deprecated"] == false, "{id} is gone");
        }
        for field in &rule.group_by {
            assert!(Field::from_name(field.name()).is_some());
        }
    }
}

/// Every row of the design's table of rules; sequences are not in the language.
#[test]
fn the_pack_has_every_rule_that_was_planned() {
    const PLANNED: [&str; 29] = [
        "exfil-cloud-storage",
        "exfil-code-host",
        "exfil-paste-site",
        "exfil-webhook-host",
        "exfil-unencrypted",
        "exfil-dns-tunnel",
        "exfil-odd-port-tls",
        "exfil-icmp",
        "exfil-temp-exe",
        "exfil-chunked",
        "exfil-beacon-drip",
        "exfil-night",
        "exfil-habit",
        "exfil-interpreter",
        "exfil-new-domain",
        "exfil-other-medium",
        "exfil-cloud-account",
        "tunnel-service",
        "imds-interpreter",
        "mining-pool",
        "rev-shell-ports",
        "fan-out",
        "root-public",
        "unknown-process",
        "app-quota",
        "user-rate",
        "webhook-by-hand",
        "transfer-upload",
        "exfil-raw-socket",
    ];
    let pack = pack();
    let missing: Vec<&str> =
        PLANNED.into_iter().filter(|id| !pack.written.get(*id).is_some_and(|rule| rule.runs)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains("T1052") && readme.contains("T1560"), "what no rule can see is said");
}

/// Exit code, standard output and standard error of a command.
fn egret(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_egret"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
