//! Every format read back by a reader that knows nothing of the writer, with
//! command lines that were made to break it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use egret::alert::DocumentKind::{Firing, Resolved};
use egret::alert::{Notification, Problem};
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin};
use serde_json::Value as Json;

use crate::support::alerts::{self, alert};
use crate::support::{schemas, wait};

/// Command lines of somebody who knows the formats.
fn hostile() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![
        b"plain".to_vec(),
        b"two\nlines\r\nand three".to_vec(),
        b"a|b|c CEF:0|x|y|z".to_vec(),
        b"x=1 dst=6.6.6.6 act=none cs1=no".to_vec(),
        b"] [egress@32473 rule=\"none\"] \"quoted\" \\ \\\\ \\]".to_vec(),
        b"tab\tdst=6.6.6.6\tend".to_vec(),
        b"nul\0byte".to_vec(),
        b"invalid \xff\xc3\x28 utf-8 \\xff".to_vec(),
        "caf\u{e9} \u{202e}reversed \u{feff} \u{2028}line".as_bytes().to_vec(),
        b"\x1b[31mred\x07 {{ 7 * 7 }} ${jndi:ldap://x} %s %n".to_vec(),
        b"</script><b>&amp; <!channel> @everyone".to_vec(),
        b"=cmd|' /C calc'!A0".to_vec(),
    ];
    all.push([b"start ".to_vec(), vec![b'"'; 131_072], b" end".to_vec()].concat());
    all.push([b"start ".to_vec(), vec![0xff; 131_072]].concat());
    all
}

#[test]
fn each_record_is_one_line_and_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let formats = ["json", "ecs", "ocsf", "cef", "leef", "rfc5424", "alertmanager"];
    let outputs: String = formats
        .iter()
        .map(|format| {
            let path = directory.path().join(format);
            format!("{format}: {{type: file, path: '{}', format: {format}}}\n", path.display())
        })
        .collect();
    let dispatcher = start(&outputs);
    let lines = hostile();
    for (number, line) in lines.iter().enumerate() {
        dispatcher.submit(alert(Firing, &format!("k{number}"), line));
    }
    let status = dispatcher.shutdown(wait::PATIENCE);
    let read = |format: &str| -> Vec<String> {
        let text = std::fs::read(directory.path().join(format)).unwrap();
        let text = String::from_utf8(text).unwrap_or_else(|_| panic!("{format} is no UTF-8"));
        let records: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
        assert_eq!(records.len(), lines.len(), "{format}: a record left its line; {status:?}");
        records
    };
    let parsed = |format: &str| -> Vec<Json> {
        read(format).iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{format}"))).collect()
    };

    for (line, document) in lines.iter().zip(parsed("json")) {
        let process = &document["data"]["process"];
        let shown = process["cmdline"].as_str().unwrap();
        if document["data"]["truncated"].is_array() {
            assert!(line.len() > 10_000 && shown.len() < 10_000 && document.to_string().len() <= 20_000);
        } else if let Some(encoded) = process["cmdline_bytes_b64"].as_str() {
            assert_eq!(STANDARD.decode(encoded).unwrap(), *line, "the bytes come back");
        } else {
            assert_eq!(shown.as_bytes(), line, "JSON holds any text");
        }
    }
    for (line, document) in lines.iter().zip(parsed("ecs")) {
        assert_eq!(document["process"]["executable"], "/usr/bin/rclone");
        if let Ok(text) = std::str::from_utf8(line) {
            assert_eq!(document["process"]["command_line"], text);
            assert_eq!(document["process"]["args"], serde_json::json!(["rclone", text]));
        }
    }
    for (line, event) in lines.iter().zip(parsed("ocsf")) {
        if let Ok(text) = std::str::from_utf8(line) {
            assert_eq!(event["evidences"][0]["process"]["cmd_line"], text);
        }
    }
    for (number, (line, record)) in lines.iter().zip(read("cef")).enumerate() {
        let (header, fields) = read_cef(&record);
        assert_eq!((header.len(), header[4].as_str()), (7, "exfil-cloud-storage"), "{record:.300}");
        assert_eq!((fields["dst"].as_str(), fields["cs6"].as_str()), ("203.0.113.7", format!("k{number}").as_str()));
        assert_eq!(fields["act"], "alert.firing", "{record:.300}");
        if line.iter().all(|byte| (0x20..0x7f).contains(byte) || *byte == b'\n' || *byte == b'\r') {
            assert_eq!(fields["cs1"].as_bytes(), line);
        }
    }
    for (number, (line, record)) in lines.iter().zip(read("leef")).enumerate() {
        let (id, fields) = read_leef(&record);
        assert_eq!((id.as_str(), fields["alertKey"].as_str()), ("exfil-cloud-storage", format!("k{number}").as_str()));
        assert_eq!((fields["dst"].as_str(), fields["action"].as_str()), ("203.0.113.7", "alert.firing"));
        if line.iter().all(|byte| (0x20..0x7f).contains(byte)) && !line.contains(&b'\\') {
            assert_eq!(fields["cmdline"].as_bytes(), line);
        }
    }
    for (number, record) in read("rfc5424").iter().enumerate() {
        let data = record.splitn(7, ' ').nth(6).unwrap();
        let (fields, rest) = read_structured_data(data);
        assert_eq!((fields["key"].as_str(), fields["dst"].as_str()), (format!("k{number}").as_str(), "203.0.113.7"));
        assert!(rest.starts_with(" \u{feff}exfil-cloud-storage: "), "{rest:.100}");
    }
    let bodies = parsed("alertmanager").into_iter().map(|body| ("alertmanager-webhook", body));
    let events = parsed("ocsf").into_iter().map(|event| ("ocsf", event));
    if let Some(findings) = schemas::findings(&bodies.chain(events).collect::<Vec<_>>()) {
        assert_eq!(findings, Vec::<String>::new());
    }
}

#[test]
fn every_kind_of_finding_is_one_of_the_schema() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ocsf");
    let outputs = format!("ocsf: {{type: file, path: '{}', format: ocsf, audit: true, heartbeat: 1s}}", path.display());
    let dispatcher = start(&outputs);
    dispatcher.submit(alert(Firing, "a", b"x"));
    dispatcher.submit(alert(Resolved, "a", b"x"));
    dispatcher.submit_held_back(alert(Firing, "b", b"x"), "cap");
    dispatcher.submit(Notification::of_problem(alerts::now(), Problem { id: "data-loss", ..Problem::default() }));
    let mut bare = alert(Firing, "c", b"x");
    let of_bare = Arc::make_mut(bare.alert.as_mut().unwrap());
    (of_bare.process, of_bare.user, of_bare.destination, of_bare.network) = (None, None, None, None);
    dispatcher.submit(bare);
    let mut stranger = alert(Firing, "d", b"x");
    let of_stranger = Arc::make_mut(stranger.alert.as_mut().unwrap());
    of_stranger.rule.analysis = egret::alert::Analysis::Habit;
    of_stranger.values.insert("baseline.expected".into(), egret::rule::Quantity::Ratio(1e6));
    of_stranger.conditions = vec![egret::alert::Condition {
        metric: "bytes_out".into(),
        op: "gt",
        limit: egret::rule::Quantity::Count(2_000_000),
        value: Some(egret::rule::Quantity::Count(734_003_200)),
        met: true,
        capped: false,
        estimated: false,
    }];
    of_stranger.user = Some(egret::alert::UserFacts::default());
    of_stranger.destination.as_mut().unwrap().asn = Some(64_500);
    of_stranger.destination.as_mut().unwrap().country = Some("NL".into());
    of_stranger.container = Some(egret::attribution::Container { id: "c0ffee".into(), ..Default::default() });
    dispatcher.submit(stranger);
    let events = wait::until("seven events", || {
        let text = std::fs::read_to_string(&path).ok()?;
        let events: Vec<Json> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (events.len() >= 7).then_some(events)
    });
    dispatcher.shutdown(wait::PATIENCE);
    let of = |key: &str| -> Vec<&Json> {
        events.iter().filter(|event| event["finding_info"]["uid"] == key).map(|event| &event["status_id"]).collect()
    };
    assert_eq!((of("a"), of("b")), (vec![&Json::from(1), &Json::from(4)], vec![&Json::from(3)]));
    let held = events.iter().find(|event| event["finding_info"]["uid"] == "b").unwrap();
    assert_eq!(held["status_detail"], "cap of rule exfil-cloud-storage");
    let documents: Vec<(&str, Json)> = events.into_iter().map(|event| ("ocsf", event)).collect();
    if let Some(findings) = schemas::findings(&documents) {
        assert_eq!(findings, Vec::<String>::new());
    }
}

#[test]
fn every_ecs_field_is_in_the_list_or_ours() {
    let Some(known) = schemas::ecs_fields() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ecs");
    let dispatcher = start(&format!("ecs: {{type: file, path: '{}', format: ecs}}", path.display()));
    let mut full = alert(Firing, "a", b"x");
    let of_full = Arc::make_mut(full.alert.as_mut().unwrap());
    of_full.container = Some(egret::attribution::Container {
        id: "c0ffee".into(),
        runtime: Some("docker".into()),
        name: Some("app".into()),
        image: Some("app:1".into()),
        ..Default::default()
    });
    let end = of_full.destination.as_mut().unwrap();
    (end.asn, end.as_org, end.country) = (Some(64_500), Some("Example".into()), Some("NL".into()));
    end.registered_domain = Some("example.net".into());
    of_full.network.as_mut().unwrap().iface = Some("eth0".into());
    of_full.process.as_mut().unwrap().unit = Some("backup.service".into());
    dispatcher.submit(full);
    dispatcher.submit(alert(Resolved, "a", b"x"));
    dispatcher.submit(Notification::of_problem(alerts::now(), Problem { id: "data-loss", ..Problem::default() }));
    dispatcher.shutdown(wait::PATIENCE);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut seen = 0;
    for document in text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()) {
        seen += hold_against_ecs(&document, &known);
    }
    assert!(seen > 80, "only {seen} fields were looked at");
}

#[test]
fn flows_of_alerts_are_events_of_the_schemas_and_name_their_alert() {
    let directory = tempfile::tempdir().unwrap();
    let path = |format: &str| directory.path().join(format);
    let outputs: String = ["ocsf", "ecs", "json"]
        .iter()
        .map(|format| {
            let flows = if *format == "json" { "" } else { ", emit_flows: true" };
            format!("{format}: {{type: file, path: '{}', format: {format}{flows}}}\n", path(format).display())
        })
        .collect();
    let dispatcher = start(&outputs);
    dispatcher.submit(alerts::with_flows(alert(Firing, "a", b"curl --password hunter2 https://x")));
    dispatcher.submit(alert(Resolved, "a", b"x"));
    dispatcher.shutdown(wait::PATIENCE);
    let read = |format: &str| -> Vec<Json> {
        let text = std::fs::read_to_string(path(format)).unwrap();
        assert!(!text.contains("hunter2"), "{format} shows a secret");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(read("json").len(), 2, "no flows where there is no form for them");
    let ocsf = read("ocsf");
    let classes: Vec<u64> = ocsf.iter().filter_map(|event| event["class_uid"].as_u64()).collect();
    assert_eq!(classes, [2004, 4001, 4001, 2004], "between what was said of the alert");
    for (number, flow) in ocsf[1..3].iter().enumerate() {
        let uid = format!("uid-a-flow-{number}");
        assert_eq!((&flow["metadata"]["uid"], &flow["type_uid"]), (&uid.into(), &400_106.into()));
        assert_eq!(flow["metadata"]["correlation_uid"], ocsf[0]["metadata"]["correlation_uid"]);
        assert_eq!(ocsf[0]["finding_info"]["related_events"][number]["uid"], flow["metadata"]["uid"]);
        assert_eq!((&flow["traffic"]["bytes_out"], &flow["traffic"]["bytes"]), (&10_000.into(), &11_000.into()));
        assert_eq!(flow["unmapped"]["cumulative_traffic"]["bytes_out"], 90_000);
        assert!(flow["connection_info"]["community_uid"].as_str().unwrap().starts_with("1:"));
    }
    assert_eq!(ocsf[1]["actor"]["process"]["container"]["uid"], "c0ffee");
    assert_ne!(ocsf[0]["metadata"]["uid"], ocsf[3]["metadata"]["uid"], "what is said twice is two events");
    let ecs = read("ecs");
    let flow = &ecs[1];
    assert_eq!((ecs.len(), &flow["event"]["dataset"]), (4, &"egress.flow".into()));
    assert_eq!(flow["egress"]["alert"]["uid"], ecs[0]["event"]["id"]);
    assert_eq!(
        (&flow["source"]["bytes"], &flow["egress"]["flow"]["total"]["bytes_out"]),
        (&10_000.into(), &90_000.into())
    );
    if let Some(known) = schemas::ecs_fields() {
        let seen: usize = ecs.iter().map(|document| hold_against_ecs(document, &known)).sum();
        assert!(seen > 100, "only {seen} fields were looked at");
    }
    let documents: Vec<(&str, Json)> = ocsf.into_iter().map(|event| ("ocsf", event)).collect();
    if let Some(findings) = schemas::findings(&documents) {
        assert_eq!(findings, Vec::<String>::new());
    }
}

#[test]
fn the_journals_own_reader_finds_each_fact() {
    let remote = Path::new("/lib/systemd/systemd-journal-remote");
    if !remote.exists() {
        eprintln!("skipped: systemd-journal-remote is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let journal = UnixDatagram::bind(&socket).unwrap();
    let dispatcher = start(&format!("journal: {{type: journald, socket: '{}'}}", socket.display()));
    dispatcher.submit(alert(Firing, "k1", b"a\nb=c \xff \"x\""));
    dispatcher.submit(alert(Resolved, "k1", b"a"));
    // What the journal's socket takes is an entry of its export format, less the stamps that the journal adds.
    let mut export = Vec::new();
    for second in 0..2 {
        let mut entry = vec![0; 262_144];
        let length = journal.recv(&mut entry).unwrap();
        let stamps = format!(
            "__REALTIME_TIMESTAMP=177786066{second}000000\n__MONOTONIC_TIMESTAMP={second}\n_BOOT_ID={}\n",
            "0".repeat(31) + "1"
        );
        export.extend_from_slice(stamps.as_bytes());
        export.extend_from_slice(&entry[..length]);
        export.push(b'\n');
    }
    dispatcher.shutdown(wait::PATIENCE);
    let kept = directory.path().join("kept.journal");
    let mut import = Command::new(remote).arg("-o").arg(&kept).arg("-").stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), &export).unwrap();
    assert!(import.wait().unwrap().success());
    let output = Command::new("journalctl").arg("--file").arg(&kept).args(["--output", "json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let entries: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 2, "{text} {}", String::from_utf8_lossy(&output.stderr));
    for (field, value) in [
        ("PRIORITY", "3"),
        ("SYSLOG_IDENTIFIER", "egret"),
        ("EGRET_TYPE", "alert.firing"),
        ("EGRET_KEY", "k1"),
        ("EGRET_DST", "203.0.113.7"),
        ("EGRET_EXE", "/usr/bin/rclone"),
        ("EGRET_CMDLINE", "a\\nb=c \\xff \"x\""),
    ] {
        assert_eq!(entries[0][field], value, "{field}");
    }
    assert_eq!((&entries[1]["EGRET_TYPE"], &entries[1]["PRIORITY"]), (&"alert.resolved".into(), &"5".into()));
}

/// Every field that is not ours must be one of ECS and of its type; how many there were.
fn hold_against_ecs(document: &Json, known: &BTreeMap<String, String>) -> usize {
    let mut leaves = Vec::new();
    flatten("", document, known, &mut leaves);
    leaves.retain(|(name, _)| !name.starts_with("egress."));
    for (name, value) in &leaves {
        let kind = known.get(name).unwrap_or_else(|| panic!("`{name}` is no field of ECS"));
        let one = value.as_array().and_then(|list| list.first()).unwrap_or(value);
        let fits = match kind.as_str() {
            "long" | "integer" | "unsigned_long" => one.is_u64() || one.is_i64(),
            "float" | "scaled_float" | "double" => one.is_number(),
            "ip" => one.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
            "date" => one.as_str().is_some_and(|text| text.parse::<egret::time::Timestamp>().is_ok()),
            "boolean" => one.is_boolean(),
            "object" | "flattened" | "nested" => one.is_object(),
            _ => one.is_string(),
        };
        assert!(fits, "`{name}` is {one}, which is no {kind}");
    }
    leaves.len()
}

/// The leaves of a document by dotted names; what the list calls an object is a leaf.
fn flatten(prefix: &str, value: &Json, known: &BTreeMap<String, String>, leaves: &mut Vec<(String, Json)>) {
    match value {
        Json::Object(object) if !known.contains_key(prefix) => {
            for (name, below) in object {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, below, known, leaves);
            }
        }
        leaf => leaves.push((prefix.to_owned(), leaf.clone())),
    }
}

/// A reader of CEF after its description.
fn read_cef(record: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let mut header = vec![String::new()];
    let mut letters = record.chars();
    while header.len() < 8 {
        match letters.next().expect("a header has seven fields") {
            '\\' => header.last_mut().unwrap().push(letters.next().unwrap()),
            '|' => header.push(String::new()),
            letter => header.last_mut().unwrap().push(letter),
        }
    }
    header.pop();
    let (mut fields, mut key, mut value) = (BTreeMap::new(), String::new(), String::new());
    let mut letters = letters.as_str().chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next().expect("something follows a backslash") {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                other => value.push(other),
            },
            // The word before an equals sign that is not escaped is the next key.
            '=' => {
                let (before, next) = value.rsplit_once(' ').unwrap_or(("", &value));
                let (before, next) = (before.to_owned(), next.to_owned());
                if !key.is_empty() {
                    assert!(fields.insert(std::mem::take(&mut key), before).is_none(), "a key stands twice");
                }
                key = next;
                value.clear();
            }
            other => value.push(other),
        }
    }
    fields.insert(key, value);
    (header, fields)
}

/// A reader of LEEF 2.0 after its description.
fn read_leef(record: &str) -> (String, BTreeMap<String, String>) {
    let parts: Vec<&str> = record.splitn(7, '|').collect();
    assert_eq!((parts[0], parts[5]), ("LEEF:2.0", "x09"));
    let pairs = parts[6].split('\t').map(|pair| pair.split_once('=').expect("a key and a value"));
    let mut fields = BTreeMap::new();
    for (key, value) in pairs {
        assert!(fields.insert(key.to_owned(), value.to_owned()).is_none(), "{key} stands twice");
    }
    (parts[4].to_owned(), fields)
}

/// A reader of one element of structured data (RFC 5424, section 6.3), and what follows it.
fn read_structured_data(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut letters = text.strip_prefix("[egress@32473").expect("our element").chars();
    let mut fields = BTreeMap::new();
    loop {
        match letters.next() {
            Some(' ') => {}
            Some(']') => return (fields, letters.as_str()),
            other => panic!("{other:?} between parameters"),
        }
        let name: String = letters.by_ref().take_while(|letter| *letter != '=').collect();
        assert_eq!(letters.next(), Some('"'));
        let mut value = String::new();
        loop {
            match letters.next().expect("a value ends") {
                '"' => break,
                '\\' => value.extend(letters.next()),
                letter => {
                    assert_ne!(letter, ']', "an unescaped bracket");
                    value.push(letter);
                }
            }
        }
        assert!(fields.insert(name, value).is_none(), "a name stands twice");
    }
}

fn start(outputs: &str) -> Dispatcher {
    let settings = DispatchSettings { outputs: serde_yaml::from_str(outputs).unwrap(), ..Default::default() };
    let origin = Origin { host: alerts::host(), pid: 812 };
    Dispatcher::start(&settings, Context { origin, clock: Clock::single(alerts::now), ledger: None }).unwrap()
}
