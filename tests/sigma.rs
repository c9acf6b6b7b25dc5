//! Real Sigma rules: each becomes a rule that compiles, or is refused with a reason.

use std::collections::BTreeMap;

use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::{Report, Source};
use egret::rule::sigma::{Imported, import};
use egret::rule::yaml;

use crate::support::data;

#[test]
fn every_rule_compiles_or_says_why_not() {
    let Some(folder) = data::path("sigma") else { return };
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut known = BTreeMap::new();
    let (mut made, mut refused) = (0, 0);
    for path in &paths {
        let mut report = Report::new(vec![Source::new(path.display().to_string(), std::fs::read(path).unwrap())]);
        let root = yaml::read(0, &mut report).unwrap();
        assert!(!report.has_errors(), "{report}");
        match import(&root, &mut known) {
            Imported::Rule { yaml, .. } => {
                let compiled = compile(vec![Source::new("sigma.yaml", format!("rules:\n{yaml}"))], &Options::default());
                assert!(!compiled.report.has_errors(), "{}: {}\n{yaml}", path.display(), compiled.report);
                assert_eq!(compiled.rules.rules.len(), 1, "{}", path.display());
                made += 1;
            }
            Imported::Refused { reasons, .. } => {
                assert!(reasons.iter().all(|reason| reason.len() > 10) && !reasons.is_empty(), "{}", path.display());
                refused += 1;
            }
        }
    }
    assert_eq!(made + refused, 97);
    if let Some(expected) = data::path("expected/sigma.json") {
        let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
        let listed: Vec<String> = expected["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
            .collect();
        let read: Vec<String> =
            paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        let (mut listed, mut read) = (listed, read);
        listed.sort();
        read.sort();
        assert_eq!(listed, read, "every rule that is listed was tried");
    }
    assert!(made >= 60, "{made} made, {refused} refused");
}

#[test]
fn correlations_become_windows_or_say_why_not() {
    let base = "title: Upload\nname: upload\nlogsource: {category: network_connection, product: linux}\ndetection:\n  selection: {DestinationPort: 443}\n  condition: selection\n";
    let correlation =
        |body: &str| format!("title: Much\ncorrelation:\n  rules: [upload]\n  group-by: [Image, User]\n{body}");
    let lines = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let made = |body: &str| {
        let (documents, refused) = documents(&[base, &correlation(&lines(body))]);
        assert!(refused.is_empty(), "{refused:?}");
        let compiled = compile(vec![Source::new("sigma.yaml", format!("rules:\n{documents}"))], &Options::default());
        assert!(!compiled.report.has_errors(), "{}\n{documents}", compiled.report);
        compiled
    };
    let when = |compiled: &egret::rule::compile::Compiled| {
        let rule = compiled.rules.rules.iter().find(|rule| *rule.metadata.id == *"sigma-much").unwrap();
        let egret::rule::Trigger::When(when) = &rule.trigger else { panic!("a window") };
        (when.window.as_secs(), format!("{:?}", when.all), rule.group_by.len())
    };
    let sum = made("type: value_sum\ntimespan: 10m\ncondition: {field: bytes_out, gte: 500000000}");
    let (window, all, groups) = when(&sum);
    assert!(
        window == 600 && groups == 2 && all.contains("BytesOut") && all.contains("GreaterOrEqual(Count(500000000))"),
        "{all}"
    );
    let (window, all, _) = when(&made("type: event_count\ntimespan: 1h\ncondition: {gt: 10, lte: 100}"));
    assert!(window == 3_600 && all.contains("Greater(Count(10))") && all.contains("LessOrEqual(Count(100))"), "{all}");
    let (window, all, _) = when(&made("type: value_count\ntimespan: 30s\ncondition: {field: DestinationIp, gte: 50}"));
    assert!(window == 30 && all.contains("Distinct(DstIp)"), "{all}");

    for (body, reason) in [
        ("type: value_sum\ntimespan: 10m\ncondition: {field: Price, gte: 5}", "the sum of `Price` is not known here"),
        (
            "type: value_count\ntimespan: 10m\ncondition: {field: LogonId, gte: 5}",
            "different values of `LogonId` are not counted here",
        ),
        ("type: temporal\ntimespan: 10m", "correlations of type `temporal` have no counterpart"),
        ("type: event_count\ntimespan: 10x\ncondition: {gte: 5}", "the time span `10x` cannot be read"),
        ("type: event_count\ncondition: {gte: 5}", "the correlation has no `timespan`"),
        ("type: event_count\ntimespan: 10m", "the correlation has no limit"),
        ("type: event_count\ntimespan: 10m\ncondition: {gte: many}", "the limit `many` is not a whole number"),
        (
            "type: event_count\ntimespan: 10m\naliases: {a: {upload: Image}}\ncondition: {gte: 5}",
            "`aliases` of a correlation has no counterpart",
        ),
    ] {
        let (_, refused) = documents(&[base, &correlation(&lines(body))]);
        assert_eq!(refused.len(), 1, "{body}");
        assert!(refused[0].iter().any(|found| found == reason), "{body}: {refused:?}");
    }
    let of_correlation = correlation(&lines("type: event_count\ntimespan: 1h\ncondition: {gt: 10}"))
        .replace("title: Much", "title: Much\nname: much");
    let second = of_correlation.replace("[upload]", "[much]").replace("name: much", "name: more");
    let (_, refused) = documents(&[base, &of_correlation, &second]);
    assert_eq!(refused, [["it correlates `much`, which is a correlation itself"]]);
}

#[test]
fn what_cannot_be_said_is_named_and_nothing_is_dropped() {
    let rule = |selection: &str| {
        format!(
            "title: x\nlogsource: {{category: network_connection, product: linux}}\ndetection:\n  selection: {selection}\n  condition: selection\n"
        )
    };
    for (selection, reason) in [
        ("{DestinationIp: '10.*'}", "`DestinationIp` as `dst.ip`"),
        ("{DestinationIp|startswith: '10.'}", "`DestinationIp` as `dst.ip`"),
        ("{DestinationPort: '44*'}", "`DestinationPort` as `dst.port`"),
        ("{Protocol: tpc}", "`tpc` is no protocol"),
        ("{Initiated: maybe}", "`Initiated` is neither true nor false"),
        ("{Image: {a: b}}", "`Image` has no value, or one that is no text"),
        ("{Image: []}", "`Image` has no value, or one that is no text"),
        ("{CommandLine|re: '(?=a)b'}", "takes more than linear time, or is wrong"),
        ("{Image|base64offset: x}", "cannot be asked `|base64offset`"),
    ] {
        let (text, refused) = documents(&[&rule(selection)]);
        assert!(text.is_empty() && refused.len() == 1, "{selection}: {text}");
        assert!(refused[0].iter().any(|found| found.contains(reason)), "{selection}: {refused:?}");
    }
}

#[test]
fn a_correlation_and_its_rules_may_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("both.yml");
    std::fs::write(
        &file,
        "title: Much\ncorrelation:\n  type: value_sum\n  rules: [upload]\n  group-by: [Image]\n  timespan: 10m\n  condition: {field: bytes_out, gte: 1000}\n---\ntitle: Upload\nname: upload\nlogsource: {category: network_connection, product: linux}\ndetection:\n  selection: {DestinationPort: 443}\n  condition: selection\n---\ntitle: Much\nlogsource: {category: network_connection, product: linux}\ndetection:\n  selection: {DestinationPort: 80}\n  condition: selection\n",
    )
    .unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_egret"))
        .args(["import", "sigma", &file.display().to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let compiled = compile(vec![Source::new("sigma.yaml", text.clone())], &Options::default());
    assert!(!compiled.report.has_errors(), "{}\n{text}", compiled.report);
    let ids: Vec<&str> = compiled.rules.rules.iter().map(|rule| &*rule.metadata.id).collect();
    assert_eq!(ids, ["sigma-much", "sigma-much-2"], "the part fires only as a part, the namesake beside it: {text}");
}

/// The rules that were made, and the reasons of those that were refused.
fn documents(texts: &[&str]) -> (String, Vec<Vec<String>>) {
    let mut known = BTreeMap::new();
    let (mut made, mut refused) = (String::new(), Vec::new());
    for text in texts {
        let mut report = Report::new(vec![Source::new("sigma.yml", *text)]);
        let root = yaml::read(0, &mut report).unwrap_or_else(|| panic!("{report}\n{text}"));
        match import(&root, &mut known) {
            Imported::Rule { yaml, .. } => made.push_str(&yaml),
            Imported::Refused { reasons, .. } => refused.push(reasons),
        }
    }
    (made, refused)
}
