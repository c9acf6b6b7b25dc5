//! `egret import sigma`: Sigma rules as rules of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use crate::cli::exit::Exit;
use crate::cli::input::say_report;
use crate::cli::terminal;
use crate::config::rule_files;
use crate::rule::diagnose::{Report, Source};
use crate::rule::sigma::{Imported, import};
use crate::rule::yaml;

/// What `egret import` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// From which language.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Translate Sigma rules: connections, processes that talk, correlations
    ///
    /// The rules go to standard output as a rule file; what cannot be said is named on standard error.
    Sigma(SigmaArguments),
}

#[derive(Debug, clap::Args)]
struct SigmaArguments {
    /// Sigma files and folders
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print what became of each file as JSON instead
    #[arg(long)]
    report: bool,
}

/// Translates. Exit 1 if a rule could not be said.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let Command::Sigma(arguments) = &arguments.command;
    let mut known = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut out = anstream::stdout().lock();
    let mut exit = Exit::Fine;
    if !arguments.report {
        writeln!(
            out,
            "# From Sigma rules (https://github.com/SigmaHQ/sigma), Detection Rule License 1.1.\nversion: 1\nrules:"
        )?;
    }
    let mut roots = Vec::new();
    for source in rule_files::read(&arguments.files)?.iter().flat_map(documents) {
        let path = source.path.clone();
        let mut report = Report::new(vec![source]);
        match yaml::read(0, &mut report).filter(|_| !report.has_errors()) {
            Some(root) => roots.push((path, root)),
            None => {
                say_report(&report);
                exit = Exit::Findings;
            }
        }
    }
    // A correlation may stand before the rules that it is made of.
    roots.sort_by_key(|(_, root)| root.child("correlation").is_some());
    let outcomes: Vec<_> = roots.iter().map(|(path, root)| (path, root, import(root, &mut known))).collect();
    let parts: BTreeSet<&str> = outcomes
        .iter()
        .filter_map(|(_, _, outcome)| match outcome {
            Imported::Rule { parts, .. } => Some(parts.iter().map(String::as_str)),
            Imported::Refused { .. } => None,
        })
        .flatten()
        .collect();
    for (path, root, outcome) in &outcomes {
        let is_part =
            ["id", "name"].into_iter().filter_map(|key| root.child(key)?.text()).any(|name| parts.contains(name));
        match outcome {
            Imported::Refused { title, reasons } => {
                exit = Exit::Findings;
                if arguments.report {
                    writeln!(out, "{}", json!({ "file": &***path, "title": title, "refused": reasons }))?;
                } else {
                    terminal::warning(&format!("{path}: `{title}` cannot be said: {}", reasons.join("; ")));
                }
            }
            Imported::Rule { id, .. } if is_part => {
                if arguments.report {
                    writeln!(out, "{}", json!({ "file": &***path, "part": id }))?;
                } else {
                    writeln!(out, "  # {path}: only part of a correlation below, as Sigma means it")?;
                }
            }
            Imported::Rule { id, yaml, remarks, .. } => {
                let unique = unique(id, &mut ids);
                if arguments.report {
                    writeln!(out, "{}", json!({ "file": &***path, "rule": unique, "remarks": remarks }))?;
                    continue;
                }
                writeln!(out, "  # {path}")?;
                for remark in remarks {
                    writeln!(out, "  # {remark}")?;
                }
                write!(out, "{}", yaml.replacen(&format!("- id: {id}\n"), &format!("- id: {unique}\n"), 1))?;
            }
        }
    }
    Ok(exit)
}

/// The documents of a file, each at its own line: Sigma keeps a correlation and its rules together.
fn documents(source: &Source) -> Vec<Source> {
    if source.damage.is_some() {
        return vec![source.clone()];
    }
    let mut documents = Vec::new();
    let mut text = String::new();
    for (number, line) in source.text.lines().enumerate() {
        if line.trim_end() == "---" {
            documents.push(std::mem::replace(&mut text, "\n".repeat(number + 1)));
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    documents.push(text);
    documents.retain(|document| !document.trim().is_empty());
    documents.into_iter().map(|document| Source::new(Arc::clone(&source.path), document)).collect()
}

/// The id, or the id with a number where another rule has it.
fn unique(id: &str, ids: &mut BTreeSet<String>) -> String {
    let unique = (1..).map(|number| if number == 1 { id.to_owned() } else { format!("{id}-{number}") });
    let unique = unique.into_iter().find(|candidate| !ids.contains(candidate)).unwrap_or_else(|| id.to_owned());
    ids.insert(unique.clone());
    unique
}
