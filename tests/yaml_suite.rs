//! The YAML test suite and files made to hurt readers: refused or read, never
//! a crash, and soon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::{Report, Source};
use egret::rule::yaml;
use serde_json::Value;

use crate::support::data;

#[test]
fn invalid_documents_are_refused_and_no_document_is_a_rule_file() {
    let (Some(folder), Some(expected)) = (data::path("yaml/suite"), data::path("expected/yaml.json")) else { return };
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let cases = expected["cases"].as_object().unwrap();
    let (mut invalid, mut compared) = (0, 0);
    for (path, case) in cases {
        let content = std::fs::read(folder.join(path.rsplit('/').next().unwrap())).unwrap();
        let source = Source::new(path.as_str(), &content);
        let mut report = Report::new(vec![source.clone()]);
        let root = yaml::read(0, &mut report);
        if case["invalid"] == Value::Bool(true) {
            assert!(report.has_errors(), "{path} is invalid and was read");
            invalid += 1;
        } else if let (Some(root), Some(json), false) = (&root, case.get("json"), report.has_errors()) {
            assert!(same(root, json), "{path}: {root:?} and not {json}");
            compared += 1;
        }
        assert!(compile(vec![source], &Options::default()).report.has_errors(), "{path} is no rule file");
    }
    assert!(invalid >= 40 && compared >= 30, "{invalid} invalid, {compared} compared");
}

#[test]
fn bombs_are_refused_soon() {
    for (name, text) in bombs() {
        let start = processor_time();
        let report = compile(vec![Source::new("bomb.yaml", text)], &Options::default()).report;
        assert!(report.has_errors(), "{name} was read");
        let took = processor_time() - start;
        assert!(took < Duration::from_secs(5), "{name} took {took:?}");
    }
}

/// Every bomb, and the whole suite at once, by the program itself: refused, and within 512 MB.
#[test]
fn no_document_takes_much_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut most = 0;
    for (name, text) in bombs() {
        let file = directory.path().join("bomb.yaml");
        std::fs::write(&file, text).unwrap();
        let (code, kilobytes) = check(&file);
        assert_eq!(code, Some(1), "{name}");
        assert!(kilobytes < 512 * 1024, "{name} took {kilobytes} kB");
        most = most.max(kilobytes);
    }
    if let Some(suite) = data::path("yaml/suite") {
        let (code, kilobytes) = check(&suite);
        assert_eq!(code, Some(1), "the suite");
        assert!(kilobytes < 512 * 1024, "the suite took {kilobytes} kB");
        most = most.max(kilobytes);
    }
    eprintln!("yaml: at most {most} kB");
}

/// How `egret check` ended, and the most memory that it held at once.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells its memory as well")]
fn check(path: &Path) -> (Option<i32>, i64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    let child = command.arg("check").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: both pointers lead to values of this function, and nobody else waits for this child.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
        usage
    };
    (libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)), usage.ru_maxrss)
}

fn bombs() -> Vec<(&'static str, String)> {
    let mut nines = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..9 {
        nines.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(",")));
    }
    let mut merges = String::from("m0: &m0 {k: v}\n");
    for level in 1..30 {
        let before = level - 1;
        merges.push_str(&format!("m{level}: &m{level} {{<<: *m{before}, <<: *m{before}}}\n"));
    }
    vec![
        ("nine levels of nine aliases", nines),
        ("a megabyte of [", "[".repeat(1 << 20)),
        ("a megabyte of {", "{".repeat(1 << 20)),
        ("a megabyte of dashes", "- ".repeat(1 << 19)),
        ("a megabyte of {a:", "{a: ".repeat(1 << 18)),
        ("a megabyte of ?", "? ".repeat(1 << 19)),
        ("a megabyte of quotes", "\"".repeat(1 << 20)),
        ("a megabyte of anchors", "&a ".repeat(1 << 18)),
        ("a megabyte of stars", "*".repeat(1 << 20)),
        ("a megabyte of colons", ": ".repeat(1 << 19)),
        ("a megabyte of tabs", "\t".repeat(1 << 20)),
        ("keys by the thousand", (0..50_000).map(|n| format!("k{n}: v\n")).collect()),
        ("merge keys that multiply", merges),
        ("an anchor that refers to itself", "a: &a [*a]\n".to_owned()),
        ("one key twice", "rules: []\nrules: []\n".to_owned()),
        ("NUL bytes", "rules: [\0]\n".to_owned()),
        ("tags of other languages", "rules: !!python/object/apply:os.system [\"true\"]\n".to_owned()),
        ("a hundred documents", "---\nrules: []\n".repeat(100)),
        ("a pattern that grows", "rules: [{id: a, match: {cmdline: {regex: \"(a{1,1000}){1,1000}\"}}, each: {}}]\n".to_owned()),
        ("a billion times one flow", "rules: [{id: a, match: {}, each: {}}]\ntests: [{name: x, rules: [a], flows: [{at: 0s, times: 1000000000}], expect: []}]\n".to_owned()),
    ]
}

/// What this thread has used of a processor: other work on the machine does not count.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// Whether a tree says what a JSON value says; scalars by their text.
fn same(node: &yaml::Node, json: &Value) -> bool {
    match (json, &node.value) {
        (Value::Array(values), yaml::Yaml::Sequence(elements)) => {
            values.len() == elements.len() && values.iter().zip(elements).all(|(value, element)| same(element, value))
        }
        (Value::Object(values), yaml::Yaml::Mapping(entries)) => {
            let known = |key: &str| entries.iter().find(|entry| entry.key.text == key);
            values.len() == entries.len()
                && values.iter().all(|(key, value)| known(key).is_some_and(|entry| same(&entry.value, value)))
        }
        (Value::Null, _) => node.is_null(),
        (Value::Bool(truth), _) => node.boolean() == Some(*truth),
        (Value::Number(number), _) => {
            node.text().and_then(|text| text.parse::<f64>().ok()) == number.as_f64()
                || node.text().is_some_and(|text| text.starts_with("0x") || text.starts_with("0o"))
        }
        (Value::String(text), _) => node.text() == Some(text),
        _ => false,
    }
}
