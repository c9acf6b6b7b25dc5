//! Reads a configuration file strictly and reports everything that is wrong with it, with its place.
//!
//! serde stops at the first mistake. Each one is therefore reported, taken
//! out of a copy of the values, and the copy read again.

use std::os::unix::fs::MetadataExt;

use serde_path_to_error::{Path, Segment};
use serde_yaml::Value;

use crate::config::file::ConfigFile;
use crate::dispatch::settings::OutputSettings;
use crate::rule::catalogue::{
    BAD_LITERAL, CONFIG_VALUE, MISSING_KEY, PLAIN_HTTP, PRESET_LIMIT, SECRET_READABLE, UNKNOWN_KEY, UNKNOWN_OUTPUT,
    UNKNOWN_VALUE,
};
use crate::rule::diagnose::{Diagnostic, Report, Source, Span};
use crate::rule::yaml::{self, Node};

/// Mistakes that are looked for in one file.
const MAX_MISTAKES: usize = 50;

/// The configuration that a file holds.
///
/// # Errors
/// The report of all that is wrong with it.
pub fn parse(source: Source) -> Result<ConfigFile, Box<Report>> {
    let mut report = Report::new(vec![source]);
    report.totals.files = 1;
    let root = yaml::read(0, &mut report);
    let text = report.sources.first().map(|source| source.text.to_string()).unwrap_or_default();
    let file = match &root {
        _ if report.has_errors() => None,
        None => Some(ConfigFile::default()),
        Some(root) if root.is_null() => Some(ConfigFile::default()),
        Some(root) => lower(&text, root, &mut report),
    };
    if let (Some(file), Some(root)) = (&file, &root) {
        check_receivers(file, root, &mut report);
    }
    report.sort();
    match file {
        Some(file) if !report.has_errors() => Ok(file),
        _ => Err(Box::new(report)),
    }
}

/// What is not wrong with a configuration and still not good.
pub fn lint(source: Source) -> Report {
    let mut report = Report::new(vec![source]);
    report.totals.files = 1;
    let Some(root) = yaml::read(0, &mut report) else { return report };
    let text = report.sources.first().map(|source| source.text.to_string()).unwrap_or_default();
    // Mistakes were told when the configuration was read.
    let mut ignored = Report::default();
    let file = lower(&text, &root, &mut ignored);
    for entry in root.child("outputs").and_then(Node::entries).unwrap_or_default() {
        let output = file.as_ref().and_then(|file| file.outputs.as_ref()?.get(&entry.key.text));
        lint_output(&entry.value, output, &mut report);
    }
    report.sort();
    report.suppress();
    report
}

fn lint_output(node: &Node, output: Option<&OutputSettings>, report: &mut Report) {
    for entry in node.entries().unwrap_or_default() {
        let (key, value) = (entry.key.text.as_str(), &entry.value);
        let Some(text) = value.text() else { continue };
        let is_secret = SECRET_FILES.contains(&key);
        if is_secret && std::fs::metadata(text).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
            let found = Diagnostic::new(&SECRET_READABLE, value.span, format!("everybody can read `{text}`"))
                .help(format!("run `chmod o-r {text}`"));
            report.push(found);
        }
        if key == "url" && text.starts_with("http://") && !is_this_host(text) {
            let found = Diagnostic::new(&PLAIN_HTTP, value.span, "alerts leave over http without TLS");
            report.push(found.help(format!("did you mean `{}`?", text.replacen("http", "https", 1))));
        }
    }
    let Some(output) = output else { return };
    if let (Some(rate), Some(most)) = (output.common.rate, output.transport.default_rate())
        && rate.per_second > most.per_second
    {
        let span = node.at("rate.per_second").map_or(node.span, |rate| rate.span);
        let kind = node.child("type").and_then(Node::text).unwrap_or("the service");
        let message = format!("`{kind}` takes {} messages a second, not {}", most.per_second, rate.per_second);
        report.push(Diagnostic::new(&PRESET_LIMIT, span, message).help("leave `rate` out"));
    }
}

/// Whether a URL leads to this very host, so that nobody can listen.
fn is_this_host(url: &str) -> bool {
    let host = url.trim_start_matches("http://");
    ["localhost", "127.", "[::1]"].iter().any(|own| host.starts_with(own))
}

/// Keys that name the file of a secret.
const SECRET_FILES: &[&str] = &[
    "password_file",
    "secret_file",
    "previous_secret_file",
    "authorization_file",
    "token_file",
    "url_file",
    "key_file",
    "routing_key_file",
];

fn lower(text: &str, root: &Node, report: &mut Report) -> Option<ConfigFile> {
    // Both readers have accepted the text, so this one reads it as well.
    let mut values: Value = serde_yaml::from_str(text).unwrap_or_default();
    for _ in 0..MAX_MISTAKES {
        match serde_path_to_error::deserialize(values.clone()) {
            Ok(file) => return Some(file),
            Err(error) => {
                let mut steps = steps_of(error.path());
                let message = error.inner().to_string();
                report.push(describe(root, &mut steps, &message));
                if !remove(&mut values, &steps) {
                    return None;
                }
            }
        }
    }
    None
}

fn steps_of(path: &Path) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect()
}

/// Turns serde's message into a finding. `steps` becomes the path of what must be taken out.
fn describe(root: &Node, steps: &mut Vec<String>, message: &str) -> Diagnostic {
    let words = quoted_words(message);
    let (first, expected) = words.split_first().map_or(("", words.as_slice()), |(first, rest)| (*first, rest));
    if message.starts_with("unknown field") {
        if steps.last().is_none_or(|last| last != first) {
            steps.push(first.to_owned());
        }
        let place = key_span(root, steps);
        let known = expected.join("`, `");
        let finding = Diagnostic::new(&UNKNOWN_KEY, place, format!("unknown key `{first}`"))
            .label("not a key of this mapping")
            .suggest(first, expected.iter().copied());
        return if known.is_empty() { finding } else { finding.help(format!("known keys: `{known}`")) };
    }
    let place = value_span(root, steps);
    if message.starts_with("unknown variant") {
        return Diagnostic::new(&UNKNOWN_VALUE, place, format!("unknown value `{first}`"))
            .label("not one of the known values")
            .suggest(first, expected.iter().copied())
            .help(format!("known values: `{}`", expected.join("`, `")));
    }
    if message.starts_with("missing field") {
        return Diagnostic::new(&MISSING_KEY, place, format!("the key `{first}` is missing"))
            .label("in this mapping")
            .help(format!("add `{first}:`"));
    }
    let code = if message.starts_with("invalid type") { &CONFIG_VALUE } else { &BAD_LITERAL };
    Diagnostic::new(code, place, message.to_owned())
}

/// Every word that serde has put between backticks.
fn quoted_words(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn key_span(root: &Node, steps: &[String]) -> Span {
    let Some((last, parents)) = steps.split_last() else { return root.span };
    let parent = deepest(root, parents);
    parent.entry(last).map_or(parent.span, |entry| entry.key.span)
}

fn value_span(root: &Node, steps: &[String]) -> Span {
    deepest(root, steps).span
}

fn deepest<'a>(root: &'a Node, steps: &[String]) -> &'a Node {
    let mut node = root;
    for step in steps {
        let Some(child) = node.at(step) else { break };
        node = child;
    }
    node
}

fn remove(values: &mut Value, steps: &[String]) -> bool {
    let Some((last, parents)) = steps.split_last() else { return false };
    let mut value = values;
    for step in parents {
        let child = match value {
            Value::Mapping(mapping) => mapping.get_mut(step.as_str()),
            Value::Sequence(sequence) => step.parse().ok().and_then(|index: usize| sequence.get_mut(index)),
            _ => None,
        };
        let Some(child) = child else { return false };
        value = child;
    }
    match value {
        Value::Mapping(mapping) => mapping.remove(last.as_str()).is_some(),
        Value::Sequence(sequence) => match last.parse::<usize>() {
            Ok(index) if index < sequence.len() => {
                // The others keep their places, so that later findings point at the right one.
                sequence.get_mut(index).is_some_and(|slot| {
                    let was_there = !slot.is_null();
                    *slot = Value::Null;
                    was_there
                })
            }
            _ => false,
        },
        _ => false,
    }
}

fn check_receivers(file: &ConfigFile, root: &Node, report: &mut Report) {
    let Some(outputs) = &file.outputs else { return };
    let names: Vec<&str> = outputs.keys().map(String::as_str).collect();
    let mut check = |list: Option<&Node>| {
        for node in list.and_then(Node::elements).unwrap_or_default() {
            let name = node.text().unwrap_or_default();
            if !names.contains(&name) {
                report.push(
                    Diagnostic::new(&UNKNOWN_OUTPUT, node.span, format!("unknown output `{name}`"))
                        .label("not under `outputs:`")
                        .suggest(name, names.iter().copied()),
                );
            }
        }
    };
    check(root.at("routing.fallback"));
    check(root.at("routing.defaults.outputs"));
    let mut routes: Vec<&Node> =
        root.at("routing.routes").and_then(Node::elements).unwrap_or_default().iter().collect();
    while let Some(route) = routes.pop() {
        check(route.child("outputs"));
        routes.extend(route.child("routes").and_then(Node::elements).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::render::{Colour, Format, render};

    fn problems(text: &str) -> Vec<String> {
        let report = parse(Source::new("egret.yaml", text)).unwrap_err();
        render(&report, Format::Concise, Colour::Plain, 50).lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_mistake_is_found_with_its_place() {
        let text = "capture:\n  sorce: pcap\n  snaplen: many\nstate-dir: /x\ncapture2: 1\n";
        let found = problems(text).join("\n");
        assert!(found.contains("egret.yaml:2:3"), "{found}");
        assert!(found.contains("unknown key `sorce`"), "{found}");
        assert!(found.contains("egret.yaml:3:12"), "{found}");
        assert!(found.contains("egret.yaml:4:1"), "{found}");
        assert!(found.contains("unknown key `state-dir`"), "{found}");
    }

    #[test]
    fn a_receiver_that_is_not_there_is_named() {
        let text = "outputs:\n  screen: {type: stdout}\nrouting:\n  defaults: {outputs: [sceen]}\n";
        let found = problems(text).join("\n");
        assert!(found.contains("egret.yaml:4:24") && found.contains("unknown output `sceen`"), "{found}");
    }

    #[test]
    fn what_is_not_good_is_told_with_its_place() {
        use std::os::unix::fs::PermissionsExt;
        let secret = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "outputs:\n  a: {{type: webhook, url: \"http://hooks.example.org/x\", allow_insecure: true, secret_file: {}}}\n  \
             b: {{type: webhook, url: \"http://127.0.0.1:1/x\", allow_insecure: true}}\n  \
             c: {{type: slack, url: \"https://hooks.example.org/x\", rate: {{per_second: 50}}}}\n",
            secret.path().display()
        );
        let found = |mode| {
            std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let report = lint(Source::new("egret.yaml", &text));
            let found = report.diagnostics.iter();
            found.map(|found| format!("{} {}", found.code.id, found.span.line)).collect::<Vec<_>>()
        };
        assert_eq!(found(0o600), ["R0605 2", "R0610 4"]);
        assert_eq!(found(0o644), ["R0605 2", "R0602 2", "R0610 4"]);
    }

    #[test]
    fn nothing_written_means_the_defaults() {
        for text in ["", "# only a comment\n", "{}"] {
            assert!(parse(Source::new("egret.yaml", text)).is_ok(), "{text:?}");
        }
    }
}
