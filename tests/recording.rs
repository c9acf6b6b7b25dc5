//! Recorded flow deltas: what `egret flows --record` writes, `egret backtest`
//! gives the alerts of a replay, and `egret suggest` names limits that fire so often.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use egret::engine::{Deltas, Engine, Output, Settings};
use egret::flow::CaptureLosses;
use egret::runtime::recording::{DeltaCounts, DeltaReader, Recorded, RecordingError};
use indicatif::ProgressBar;
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::support::data;

/// Rules of every kind, with limits low enough for small captures.
const RULES: &str = "
rules:
  - {id: sum, match: {}, group_by: [exe, dst.ip], window: 10s, when: {bytes_out: {gte: 2kB}}, cooldown: 20s}
  - {id: each, match: {direction: outbound}, group_by: [dst.ip, dst.port], each: {}}
  - {id: many, match: {}, group_by: [src.ip], window: 1m, when: [{connections: {gt: 1}}, {distinct(dst.ip): {gte: 1}}]}
  - {id: failed, match: {proto: tcp}, group_by: [dst.ip], window: 10m, when: {connections_failed: {gte: 1}}}
  - {id: old, match: {}, group_by: [dst.ip], window: 10s, when: {flow_age_max: {gte: 3s}}}
  - {id: progress, match: {flow.bytes_out: {gte: 1500}}, group_by: [exe], each: {}}
  - {id: named, match: {dst.domain: {exists: true}}, group_by: [dst.domain], window: 1m, when: {payload_total: {gte: 1}}}
  - {id: asked, match: {dst.port: 53}, group_by: [dns.registered_domain], window: 1m, when: {dns.queries: {gte: 1}}}
  - {id: ratio, match: {}, group_by: [exe], window: 1m, when: [{pcr: {gte: 0.1}, min_bytes: 1kB}]}
  - {id: quota, match: {}, budget: {metric: bytes_total, per: hour, limit: 20kB, notify_at: [50%, 100%]}}
  - id: new
    match: {}
    first_seen: {of: [dst.ip], lookback: 1d, learn: 0s, min: {bytes_out: {gte: 500}, within: 10s}}
  - id: excepted
    match: {}
    group_by: [dst.port]
    window: 10s
    when: {bytes_out: {gte: 100}}
    exceptions: [{name: web, fields: [dst.port], values: [[80]], budget: {bytes_out: 300, per: 1m}}]
";

#[test]
fn a_backtest_of_a_recording_is_a_replay_of_its_capture() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.yaml");
    fs::write(&rules, RULES).unwrap();
    let (rules, folder) = (rules.display().to_string(), directory.path());
    let mut fired = std::collections::BTreeSet::new();
    let mut captures = vec![example("upload.pcap"), example("upload.pcapng")];
    captures.extend(
        ["exfil-dns", "exfil-http", "process-metadata", "scan", "c2", "exfil-ssh", "linux-sll2", "truncated-file"]
            .iter()
            .filter_map(|category| data::path(&format!("captures/{category}")))
            .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())),
    );
    for capture in &captures {
        let capture = capture.display().to_string();
        let (_, replayed, _) = egret(&["replay", &capture, "--rules", &rules, "--output", "json"]);
        for name in ["flows.jsonl", "flows.jsonl.zst"] {
            let recording = folder.join(name).display().to_string();
            egret(&["flows", &capture, "--record", &recording, "--output", "json"]);
            let (code, tested, errors) =
                egret(&["backtest", "--flows", &recording, "--rules", &rules, "--output", "json"]);
            assert_eq!(code, 0, "{capture}: {errors}");
            let (replayed, tested) = (alerts(&replayed), alerts(&tested));
            for (one, other) in replayed.iter().zip(&tested) {
                assert_eq!(one, other, "{capture}");
            }
            assert_eq!(replayed.len(), tested.len(), "{capture}");
            fired.extend(tested.iter().filter_map(|alert| alert["data"]["rule"]["id"].as_str().map(str::to_owned)));
        }
    }
    assert!(fired.len() >= 9, "the captures must set off most of these rules: {fired:?}");
    let plain = fs::metadata(folder.join("flows.jsonl")).unwrap().len();
    let compressed = fs::metadata(folder.join("flows.jsonl.zst")).unwrap().len();
    assert!(compressed * 2 < plain, "{compressed} of {plain} bytes");
}

#[test]
fn what_a_backtest_must_give_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let recording = record(directory.path());
    let expect = directory.path().join("expect.yaml");
    let check = |text: &str| {
        fs::write(&expect, text).unwrap();
        let expect = expect.display().to_string();
        egret(&["backtest", "--flows", &recording, "--rules", "examples/first-rule.yaml", "--expect", &expect])
    };
    let rule = "script-upload";
    let (code, printed, _) = check(&format!("version: 1\nexpect: [{{rule: {rule}, exactly: 0}}]\n"));
    let fires = printed.contains(rule);
    assert_eq!(code == 0, !fires, "{printed}");
    let (code, _, errors) = check(&format!("expect: [{{rule: {rule}, at_least: 7, at_most: 9}}]\n"));
    assert!(code == 1 && errors.contains("and not at least 7 and at most 9"), "{errors}");
    let (code, _, errors) = check("expect: [{rule: script-uploads, exactly: 0, at_leats: 3}]\n");
    assert!(code == 2 && errors.contains("did you mean `script-upload`?") && errors.contains("at_least"), "{errors}");
}

#[test]
fn a_recording_that_is_cut_off_or_wrong_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let recording = record(directory.path());
    let text = fs::read_to_string(&recording).unwrap();
    let backtest = |content: &str| {
        fs::write(&recording, content).unwrap();
        egret(&["backtest", "--flows", &recording, "--rules", "examples/first-rule.yaml"])
    };
    let (code, _, errors) = backtest(&text[..text.len() * 2 / 3]);
    assert!(code == 1 && errors.contains("is cut off after line"), "{code} {errors}");
    let wrong = text.replacen("\"proto\":\"tcp\"", "\"porto\":\"tcp\"", 1);
    let (code, _, errors) = backtest(&wrong);
    assert!(code == 2 && errors.contains(": column") && errors.contains("porto"), "{code} {errors}");
    let (code, _, errors) = backtest("{\"recording\":{\"version\":99}}\n");
    assert!(code == 2 && errors.contains("version 99"), "{errors}");
    // Two recordings in one file are one after another.
    let (code, printed, errors) = backtest(&format!("{text}{text}"));
    assert_eq!(code, 0, "{printed}{errors}");
}

#[test]
fn a_suggested_limit_fires_as_often_as_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let recording = directory.path().join("flows.jsonl").display().to_string();
    let mut lines = String::new();
    // Five programs on five days, each with a volume of its own, in bursts of ten seconds.
    for (number, megabytes) in [3u64, 7, 11, 40, 41].into_iter().enumerate() {
        for second in 0..10 {
            let at = format!("2026-05-0{}T10:00:{second:02}Z", number + 1);
            let bytes = megabytes * 100_000;
            lines.push_str(&format!(
                "{{\"at\":\"{at}\",\"proto\":\"tcp\",\"local_ip\":\"10.0.0.5\",\"local_port\":{},\"remote_ip\":\"203.0.113.7\",\"remote_port\":443,\"bytes_out\":{bytes},\"payload_out\":{bytes},\"packets_out\":9,\"owner\":{{\"pid\":{},\"exe\":\"/opt/app{number}\"}}}}\n",
                50_000 + number, 100 + number
            ));
        }
    }
    fs::write(&recording, lines).unwrap();
    let rules = directory.path().join("rules.yaml");
    let text = |limit: &str| {
        format!(
            "rules:\n  - {{id: much, match: {{}}, group_by: [exe], window: 1m, when: [{{bytes_out: {{gte: {limit}}}}}, {{upload_ratio: {{gte: 0.5}}}}]}}\n  - {{id: each, match: {{}}, each: {{}}}}\n"
        )
    };
    let rules_path = rules.display().to_string();
    for times in 1..=6u64 {
        fs::write(&rules, text("1GB")).unwrap();
        let wanted = times.to_string();
        let (code, printed, errors) =
            egret(&["suggest", "--flows", &recording, "--rules", &rules_path, "--times", &wanted, "--output", "json"]);
        assert_eq!(code, 0, "{errors}");
        let found: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let much = found.iter().find(|line| line["rule"] == "much").unwrap();
        assert_eq!(much["fires"], 0);
        assert_eq!(much["suggested_fires"], times.min(5), "{much}");
        fs::write(&rules, text(much["suggested_text"].as_str().unwrap())).unwrap();
        let (_, printed, _) =
            egret(&["backtest", "--flows", &recording, "--rules", &rules_path, "--counts", "--output", "json"]);
        let summary: Json = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        assert_eq!(summary["summary"]["fired"]["much"], times.min(5), "{much}: {printed}");
        let app = found.iter().find(|line| line["program"] == "/opt/app3").unwrap();
        assert_eq!(
            (&app["bytes_out"], &app["bytes_out_in"]["10m"]["median"]),
            (&40_000_000.into(), &40_000_000.into())
        );
        assert!(found.iter().any(|line| line["rule"] == "each" && line["metric"].is_null()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever happened to a recording, it is read to its end or told to be wrong.
    #[test]
    fn a_damaged_recording_is_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        compressed in any::<bool>(),
    ) {
        let mut content = fs::read(example("upload.jsonl.zst")).unwrap();
        if !compressed {
            content = zstd::decode_all(content.as_slice()).unwrap();
        }
        for (place, byte) in changes {
            let place = place.index(content.len());
            content[place] = byte;
        }
        content.truncate(cut.index(content.len() * 2));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        if let Ok(mut reader) = DeltaReader::open(file.path(), &ProgressBar::hidden()) {
            let mut engine = Engine::new(Settings::for_deltas(), Arc::default());
            let mut counts = DeltaCounts::default();
            let fed = reader.feed(&mut engine, &mut counts, &mut |_| Ok::<(), RecordingError>(()));
            engine.finish();
            prop_assert!(counts.deltas <= 67 || fed.is_err());
        }
    }
}

/// What the source lost is in the recording, so that alerts say afterwards what they said live.
#[test]
fn losses_are_recorded_and_told_afterwards() {
    let lost = |kernel_dropped: u64| CaptureLosses { kernel_dropped, ..CaptureLosses::default() };
    let settings = Settings { deltas: Deltas::On, ..Settings::default() };
    let mut engine = Engine::new(settings, Arc::default());
    [0, 7, 7, 9].into_iter().for_each(|total| engine.handle_losses(&lost(total)));
    let told: Vec<u64> = std::iter::from_fn(|| engine.poll_output())
        .filter_map(|output| if let Output::Losses(_, losses) = output { Some(losses.kernel_dropped) } else { None })
        .collect();
    assert_eq!(told, [7, 9], "when they change");

    let directory = tempfile::tempdir().unwrap();
    let recording = record(directory.path());
    let rules = example("first-rule.yaml").display().to_string();
    let text = fs::read_to_string(&recording).unwrap();
    let backtest = |recording: &str| {
        let (code, printed, errors) = egret(&["backtest", "--flows", recording, "--rules", &rules, "--output", "json"]);
        assert_eq!(code, 0, "{errors}");
        let alerts = alerts(&printed);
        let coverage = alerts.iter().find_map(|one| one["data"]["alert"]["coverage"].as_f64());
        (coverage, alerts.iter().any(|one| one["data"]["id"] == "data-loss"))
    };
    let (whole, problem) = backtest(&recording);
    assert!(whole.is_none_or(|coverage| coverage == 1.0) && !problem);
    // As a live source that loses half of what there is.
    let path = directory.path().join("lossy.jsonl");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let packets = 20_000;
    lines.insert(2, format!("{{\"at\":\"2026-05-04T02:00:00Z\",\"losses\":{{\"kernel_dropped\":{packets}}}}}"));
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let (coverage, problem) = backtest(path.to_str().unwrap());
    assert!(coverage.is_some_and(|coverage| coverage < 0.9) && problem, "{coverage:?} {problem}");
    // Two recordings in one file lost what both lost: totals begin anew.
    let twice = directory.path().join("twice.jsonl");
    fs::write(&twice, [lines.join("\n"), lines.join("\n")].join("\n") + "\n").unwrap();
    let mut reader = DeltaReader::open(&twice, &ProgressBar::hidden()).unwrap();
    let mut totals = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        if let Recorded::Losses(losses) = record {
            totals.push(losses.kernel_dropped);
        }
    }
    assert_eq!(totals, [packets, 2 * packets]);
}

/// A recording of the example.
fn record(directory: &Path) -> String {
    let recording = directory.join("flows.jsonl").display().to_string();
    let capture = example("upload.pcapng").display().to_string();
    let (code, _, errors) = egret(&["flows", &capture, "--record", &recording]);
    assert!(code == 0 && errors.contains("recorded"), "{errors}");
    recording
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn alerts(printed: &str) -> Vec<Json> {
    let mut lines: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.retain(|line| line["summary"].is_null());
    lines
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
