//! The JSON Schema of rule files, held against the files that ship by a validator of its own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use egret::config::rule_files;
use egret::rule::schema::json_schema;
use serde_json::{Value, json};

/// Says for each document `null`, or what the validator finds wrong with it.
const VALIDATOR: &str = "
import json, sys, jsonschema
question = json.load(sys.stdin)
jsonschema.Draft202012Validator.check_schema(question['schema'])
validator = jsonschema.Draft202012Validator(question['schema'])
def first(document):
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    return error and '/'.join(map(str, error.absolute_path)) + ': ' + error.message
json.dump([first(document) for document in question['documents']], sys.stdout)
";

#[test]
fn the_rules_that_ship_satisfy_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths = ["rules", "tests/language", "examples/first-rule.yaml", "src/rule/compile/complete.yaml"];
    let sources = rule_files::read(&paths.map(|path| root.join(path))).unwrap();
    assert!(sources.len() > 15, "{} files", sources.len());
    let documents: Vec<Value> = sources.iter().map(|source| serde_yaml::from_str(&source.text).unwrap()).collect();
    for (source, wrong) in sources.iter().zip(validate(&documents)) {
        assert_eq!(wrong, None, "{}", source.path);
    }
}

#[test]
fn the_schema_refuses_what_the_checker_refuses() {
    let rule = |more: Value| {
        let mut rule = json!({ "id": "a", "match": {}, "window": "5m", "when": { "bytes_out": { "gte": "1MB" } } });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "version": 1, "rules": [rule] })
    };
    let documents = [
        rule(json!({})),
        rule(json!({ "severty": "high" })),
        rule(json!({ "severity": "hgih" })),
        rule(json!({ "match": { "dst.domian": "example.net" } })),
        rule(json!({ "match": { "exe": { "startswith": "/tmp" } } })),
        rule(json!({ "when": { "byte_out": { "gte": "1MB" } } })),
        rule(json!({ "when": [{ "bytes_out": { "ge": "1MB" } }] })),
        rule(json!({ "for": "10min" })),
        rule(json!({ "limits": { "max_group": 5 } })),
        rule(json!({ "realert": { "evry": "1h" } })),
        rule(json!({ "edge": "round" })),
        json!({ "rules": [{ "title": "no id", "match": {}, "each": {} }] }),
        json!({ "lists": { "l": { "type": "domian", "items": [] } } }),
        json!({ "schedules": { "s": { "weekday": ["mon"] } } }),
    ];
    let found = validate(&documents);
    assert_eq!(found[0], None);
    for (document, wrong) in documents.iter().zip(&found).skip(1) {
        assert!(wrong.is_some(), "the schema takes {document}");
    }
}

fn validate(documents: &[Value]) -> Vec<Option<String>> {
    let mut validator = Command::new("python3")
        .args(["-c", VALIDATOR])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let question = json!({ "schema": json_schema(), "documents": documents });
    validator.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = validator.wait_with_output().unwrap();
    assert!(output.status.success(), "the validator failed; `tests/setup test` installs python3-jsonschema");
    serde_json::from_slice(&output.stdout).unwrap()
}
