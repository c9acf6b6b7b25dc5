//! `egret lists`: look into lists from the command line.

use std::io::{BufRead, BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;

use crate::cli::args::OutputFormat;
use crate::cli::exit::Exit;
use crate::cli::{input, terminal};
use crate::config::Settings;
use crate::names::{List, normalize};
use crate::rule::compile::{BuiltinList, builtin_lists};
use crate::rule::diagnose::nearest;
use crate::runtime::fetch::{self, Fetched};
use crate::runtime::load;

/// What `egret lists` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to do with lists; without it, the built-in ones are listed.
    #[command(subcommand)]
    command: Option<Command>,
    /// How to print
    #[arg(long, value_enum, default_value_t, global = true)]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the items of a built-in list
    Show(ShowArguments),
    /// Say for each address on standard input whether a list holds it
    ///
    /// Domains and AS numbers are looked up, too. A line out is the line in and `true` or `false`.
    Match(MatchArguments),
    /// Fetch the lists that the configuration names, those that changed
    ///
    /// A copy of each is kept in the state folder, where rules find it as `file: /var/lib/egret/lists/NAME.list`.
    /// What comes is checked first: the last good copy stays where it is no list.
    Update(UpdateArguments),
}

#[derive(Debug, clap::Args)]
struct ShowArguments {
    /// Its name, with or without `$`
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, clap::Args)]
struct UpdateArguments {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "EGRET_CONFIG")]
    config: Option<PathBuf>,
    /// Fetch these alone
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct MatchArguments {
    /// The list, in any of the usual forms
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the entry that matched, too
    #[arg(long)]
    entry: bool,
    /// Refuse a list of more entries
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    max_items: usize,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.command {
        None => list(arguments.output),
        Some(Command::Show(show)) => self::show(show, arguments.output),
        Some(Command::Match(arguments)) => match_lines(arguments),
        Some(Command::Update(arguments)) => update(arguments),
    }
}

/// The built-in lists.
fn list(output: OutputFormat) -> anyhow::Result<Exit> {
    let lists = builtin_lists();
    let width = lists.iter().map(|list| list.name.len()).max().unwrap_or(0) + 1;
    let mut out = anstream::stdout().lock();
    for BuiltinList { name, kind, description, items } in &lists {
        let count = items.len();
        match output {
            OutputFormat::Json => {
                let object = json!({ "name": name, "type": kind, "items": count, "description": description });
                writeln!(out, "{object}")?;
            }
            OutputFormat::Text => {
                writeln!(out, "{:width$}  {kind:6}  {count:>5}  {description}", format!("${name}"))?;
            }
        }
    }
    Ok(Exit::Fine)
}

fn show(arguments: &ShowArguments, output: OutputFormat) -> anyhow::Result<Exit> {
    let wanted = arguments.name.trim_start_matches('$');
    let lists = builtin_lists();
    let Some(list) = lists.iter().find(|list| list.name == wanted) else {
        let meant = nearest(wanted, lists.iter().map(|list| list.name.as_str()));
        let meant = meant.map(|name| format!("; did you mean `${name}`?")).unwrap_or_default();
        anyhow::bail!("there is no built-in list `${wanted}`{meant}");
    };
    let mut out = anstream::stdout().lock();
    for item in &list.items {
        match output {
            OutputFormat::Json => writeln!(out, "{}", json!({ "list": list.name, "item": item }))?,
            OutputFormat::Text => writeln!(out, "{item}")?,
        }
    }
    Ok(Exit::Fine)
}

fn update(arguments: &UpdateArguments) -> anyhow::Result<Exit> {
    let settings = Settings::load(arguments.config.as_deref()).map_err(input::say_config_error)?;
    if let Some(unknown) = arguments.names.iter().find(|name| !settings.lists.contains_key(*name)) {
        anyhow::bail!("the configuration has no list `{unknown}`");
    }
    if settings.lists.is_empty() {
        terminal::note("the configuration names no lists");
    }
    let folder = settings.state_dir.join("lists");
    let mut out = anstream::stdout().lock();
    let mut exit = Exit::Fine;
    for (name, list) in &settings.lists {
        if !arguments.names.is_empty() && !arguments.names.contains(name) {
            continue;
        }
        match fetch::fetch(name, list, &folder) {
            Ok(Fetched::New(counts)) => {
                writeln!(out, "{name}: {} entries in {}", counts.entries(), fetch::copy_of(&folder, name).display())?;
                if counts.rejected > 0 {
                    terminal::warning(&format!("{name}: {} lines could not be read", counts.rejected));
                }
            }
            Ok(Fetched::Unchanged) => writeln!(out, "{name}: unchanged")?,
            Err(error) => {
                terminal::error(&format!("{name}: {:#}", anyhow::Error::from(error)));
                exit = Exit::Findings;
            }
        }
    }
    Ok(exit)
}

fn match_lines(arguments: &MatchArguments) -> anyhow::Result<Exit> {
    let list = load::list(&arguments.file, arguments.max_items)?;
    for rejected in &list.rejected {
        terminal::warning(&format!("{}: {rejected}", arguments.file.display()));
    }
    let unsaid = list.counts.rejected - list.rejected.len();
    if unsaid > 0 {
        terminal::warning(&format!("{}: {unsaid} more such lines", arguments.file.display()));
    }
    let mut out = BufWriter::new(anstream::stdout().lock());
    let mut exit = Exit::Fine;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        let probe = line.trim();
        if probe.is_empty() {
            continue;
        }
        let Some(found) = find(&list, probe) else {
            terminal::error(&format!("`{probe}` is no address, domain or AS number"));
            exit = Exit::Findings;
            continue;
        };
        match found {
            Some(entry) if arguments.entry => writeln!(out, "{probe} true {entry}")?,
            found => writeln!(out, "{probe} {}", found.is_some())?,
        }
    }
    out.flush()?;
    Ok(exit)
}

/// The entry that holds the probe, or `None` for what cannot be looked up.
fn find(list: &List, probe: &str) -> Option<Option<String>> {
    if let Ok(address) = probe.parse::<IpAddr>() {
        return Some(list.networks.find(address.into()).map(|entry| entry.to_string()));
    }
    if let Ok(system) = probe.strip_prefix("AS").unwrap_or(probe).parse::<u32>() {
        return Some(list.systems.contains(&system).then(|| format!("AS{system}")));
    }
    normalize(probe).map(|name| list.domains.find(&name))
}
