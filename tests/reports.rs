//! Reports on rules, read by the programs that they are written for.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Prints the workflow command for each finding on standard input, by GitHub's own writer.
const GITHUB_WRITER: &str = "
import { issueCommand } from '%COMMANDS%';
import { toCommandProperties } from '%UTILS%';
import { readFileSync } from 'node:fs';
for (const found of JSON.parse(readFileSync(0, 'utf8'))) {
    issueCommand(found.command, toCommandProperties(found.place), found.message);
}
";

#[test]
fn other_programs_read_the_reports_of_a_check() {
    let Some(python) = peer("python/bin/python") else { return };
    let Some(schema) = peer("sarif/lib/schemas/sarif-2.1.0-rtm.5.json") else { return };
    let folder = wrong_rules();
    let findings = findings(folder.path());
    assert!(findings.len() >= 8, "{findings:#?}");
    let reports: serde_json::Map<String, Value> = ["sarif", "gitlab", "junit"]
        .map(|format| (format.to_owned(), json!(check(folder.path(), format))))
        .into_iter()
        .collect();
    let read = ask(
        Command::new(&python).arg(root().join("tests/schemas/reports.py")),
        &json!({ "sarif_schema": schema, "reports": reports }),
    );
    let read: Value = serde_json::from_str(&read).unwrap();

    let level = |found: &Value, names: [&'static str; 3]| match found["level"].as_str().unwrap() {
        "error" => names[0],
        "warning" => names[1],
        _ => names[2],
    };
    let told = |names: [&'static str; 3], place: &dyn Fn(&Value) -> Vec<Value>| -> Value {
        let told = |found: &Value| {
            let path = found["file"].as_str().unwrap().trim_start_matches("./");
            let mut told = vec![found["code"].clone(), json!(level(found, names)), json!(path)];
            told.extend(place(found));
            Value::Array(told)
        };
        findings.iter().map(told).collect()
    };
    let line_and_column = |found: &Value| vec![found["line"].clone(), found["column"].clone()];
    assert_eq!(read["sarif"], told(["error", "warning", "note"], &line_and_column));
    assert_eq!(read["gitlab"], told(["major", "minor", "info"], &|found| vec![found["line"].clone()]));

    let cases = read["junit"].as_array().unwrap();
    let failed = cases.iter().filter(|case| case[2] == true).count();
    assert_eq!(failed, findings.iter().filter(|found| found["level"] == "error").count());
    for found in &findings {
        let name = format!("{} {}:{}", found["code"].as_str().unwrap(), found["line"], found["column"]);
        let case = json!([name, found["file"], found["level"] == "error"]);
        assert!(cases.contains(&case), "{case} is not in {cases:#?}");
    }
    let clean = json!(["./rules/clean.yaml", "./rules/clean.yaml", false]);
    assert!(cases.contains(&clean), "a file without findings is a case that passed: {cases:#?}");
}

#[test]
fn workflow_commands_are_those_that_github_writes() {
    let Some(commands) = peer("github/lib/command.js") else { return };
    let utils = peer("github/lib/utils.js").unwrap();
    let folder = wrong_rules();
    let asked: Value = findings(folder.path())
        .iter()
        .map(|found| {
            let help = found["help"].as_array().unwrap().iter().filter_map(Value::as_str);
            let message: Vec<&str> = found["message"].as_str().into_iter().chain(help).collect();
            json!({
                "command": match found["level"].as_str() { Some("info") => "notice", level => level.unwrap() },
                "place": {
                    "title": format!("{} {}", found["code"].as_str().unwrap(), found["name"].as_str().unwrap()),
                    "file": found["file"].as_str().unwrap().trim_start_matches("./"),
                    "startLine": found["line"], "startColumn": found["column"],
                    "endLine": found["end_line"], "endColumn": found["end_column"],
                },
                "message": message.join("\n"),
            })
        })
        .collect();
    let script = folder.path().join("writer.mjs");
    let text =
        GITHUB_WRITER.replace("%COMMANDS%", commands.to_str().unwrap()).replace("%UTILS%", utils.to_str().unwrap());
    std::fs::write(&script, text).unwrap();
    let theirs = ask(Command::new("node").arg(&script), &asked);
    let ours = check(folder.path(), "github");
    let sorted = |text: &str| -> Vec<(Vec<String>, String)> { text.lines().map(properties).collect() };
    assert_eq!(sorted(&ours), sorted(&theirs));
    assert!(ours.contains("%25") && ours.contains("%2C") && ours.contains("%0A"), "{ours}");
}

/// The properties of a workflow command in order, and its message.
fn properties(line: &str) -> (Vec<String>, String) {
    let (head, message) = line.strip_prefix("::").and_then(|rest| rest.split_once("::")).expect("a workflow command");
    let (command, rest) = head.split_once(' ').expect("a command has properties");
    let mut properties: Vec<String> = rest.split(',').map(str::to_owned).collect();
    properties.push(command.to_owned());
    properties.sort();
    (properties, message.to_owned())
}

/// Rules with mistakes of every level, in files whose names are no help.
fn wrong_rules() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let write = |name: &str, text: &str| std::fs::write(rules.join(name), text).unwrap();
    write(
        "clean.yaml",
        "rules: [{id: clean, match: {}, each: {}, owner: me, note: none}]\ntests: [{name: t, rules: [clean], flows: [{at: 0s, dst: \"203.0.113.1:1\"}], expect: [{at: 1s, state: firing}]}]\n",
    );
    write(
        "50%, über & <odd>: \"it's\".yaml",
        "lists:\n  l: {type: exe, items: [/b, /a, /a]}\nrules:\n  - id: a\n    title: größer\n    match: {dst.domian: \"é&<b>]]>\", dst.scope: pubilc}\n    window: 10m\n    when: {bytes_out: {gte: 500M}}\n    severty: \"50%: a, b\"\n  - id: b\n    match: {exe: */rclone}\n    each: {}\n    tags: [\n      exfil,\n      5: 6]\n",
    );
    write("syntax.yaml", "rules: [a\n");
    write(
        "twice.yaml",
        "rules: [{id: x, match: {exe: curl, exe.name: curl*}, each: {}}, {id: x, match: {exe: curl}, each: {}}]\n",
    );
    folder
}

fn findings(folder: &Path) -> Vec<Value> {
    let document: Value = serde_json::from_str(&check(folder, "json")).unwrap();
    document["diagnostics"].as_array().unwrap().clone()
}

fn check(folder: &Path, format: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    let output = command.args(["check", "--info", "--format", format, "./rules"]).current_dir(folder).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ask(command: &mut Command, question: &Value) -> String {
    let mut reader = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    reader.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A file of another program, unless it is not here.
fn peer(name: &str) -> Option<PathBuf> {
    let path = root().join("target/peers").join(name);
    if !path.exists() {
        eprintln!("skipped: `tests/setup test` brings {}", path.display());
        return None;
    }
    Some(path)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
