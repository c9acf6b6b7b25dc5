//! Documents held against the schemas of those who read them, by programs that know nothing of Egret.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

/// What JSON Schema says against documents, each with the name of its schema in `tests/schemas`, or
/// `ocsf`; `None`, said, where the validator or a schema is not installed.
pub fn findings(documents: &[(&str, Json)]) -> Option<Vec<String>> {
    let ocsf = peers("ocsf");
    if documents.iter().any(|(schema, _)| *schema == "ocsf") && !ocsf.exists() {
        eprintln!("skipped: the schemas of OCSF are not unpacked (tests/setup test)");
        return None;
    }
    let available = Command::new(PYTHON).args(["-c", "import jsonschema"]).output();
    if !available.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3-jsonschema is not installed");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas/validate.py");
    let mut python = Command::new(PYTHON)
        .arg(script)
        .arg(ocsf)
        .arg(egret::dispatch::encode::ocsf::OCSF_VERSION)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let lines: String =
        documents.iter().map(|(schema, body)| format!("{}\n", json!({"schema": schema, "body": body}))).collect();
    let mut input = python.stdin.take().expect("it is piped");
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = python.wait_with_output().expect("python3 ends");
    writer.join().expect("the writer does not panic").expect("the script reads its input");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut said: Vec<String> = said.lines().map(str::to_owned).collect();
    assert_eq!(said.pop().as_deref(), Some("done"), "the validator failed: {said:?}");
    Some(said)
}

/// The fields of the Elastic Common Schema with their types; `None`, said, where they are not unpacked.
pub fn ecs_fields() -> Option<BTreeMap<String, String>> {
    let module = peers("ecs").join("build/commonjs/ecs_flat.js");
    let script = format!(
        "const all = require({:?}).EcsFlat; const types = {{}}; \
         for (const name in all) types[name] = all[name].type; console.log(JSON.stringify(types))",
        module.display()
    );
    let output = Command::new("node").args(["-e", &script]).output();
    match output {
        Ok(output) if output.status.success() => {
            Some(serde_json::from_slice(&output.stdout).expect("node prints the fields"))
        }
        _ => {
            eprintln!("skipped: the fields of ECS are not unpacked (tests/setup test)");
            None
        }
    }
}

fn peers(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(name)
}

/// Debian's, which knows the packages that Debian installs.
const PYTHON: &str = "/usr/bin/python3";
