//! Reads a configuration file strictly and reports everything that is wrong with it, with its place.
//!
//! serde stops at the first mistake. Each one is therefore reported, taken
//! out of a copy of the values, and the copy read again.

use serde_path_to_error::{Path, Segment};
use serde_yaml::Value;

use crate::config::file::ConfigFile;
use crate::rule::catalogue::{BAD_LITERAL, CONFIG_VALUE, MISSING_KEY, UNKNOWN_KEY, UNKNOWN_OUTPUT, UNKNOWN_VALUE};
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
    fn nothing_written_means_the_defaults() {
        for text in ["", "# only a comment\n", "{}"] {
            assert!(parse(Source::new("egret.yaml", text)).is_ok(), "{text:?}");
        }
    }
}
