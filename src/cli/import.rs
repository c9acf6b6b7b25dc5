//! `egret import sigma`: Sigma rules as rules of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::cli::exit::Exit;
use crate::cli::input::say_report;
use crate::cli::terminal;
use crate::config::rule_files;
use crate::rule::diagnose::Report;
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
    for source in rule_files::read(&arguments.files)? {
        let path = source.path.clone();
        let mut report = Report::new(vec![source]);
        let Some(root) = yaml::read(0, &mut report).filter(|_| !report.has_errors()) else {
            say_report(&report);
            exit = Exit::Findings;
            continue;
        };
        let outcome = import(&root, &mut known);
        if matches!(outcome, Imported::Refused { .. }) {
            exit = Exit::Findings;
        }
        match outcome {
            Imported::Rule { id, remarks, .. } if arguments.report => {
                writeln!(out, "{}", json!({ "file": &*path, "rule": id, "remarks": remarks }))?;
            }
            Imported::Refused { title, reasons } if arguments.report => {
                writeln!(out, "{}", json!({ "file": &*path, "title": title, "refused": reasons }))?;
            }
            Imported::Rule { id, yaml, remarks } => {
                if !ids.insert(id.clone()) {
                    terminal::warning(&format!("{path}: another rule is called `{id}`; this one is left out"));
                    exit = Exit::Findings;
                    continue;
                }
                writeln!(out, "  # {path}")?;
                for remark in remarks {
                    writeln!(out, "  # {remark}")?;
                }
                write!(out, "{yaml}")?;
            }
            Imported::Refused { title, reasons } => {
                terminal::warning(&format!("{path}: `{title}` cannot be said: {}", reasons.join("; ")));
            }
        }
    }
    Ok(exit)
}
