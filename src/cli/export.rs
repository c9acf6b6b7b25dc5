//! `egret export`: the rules in the formats of other tools.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::exit::Exit;
use crate::cli::input;
use crate::rule::navigator;

/// What `egret export` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// In which format.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a layer of the ATT&CK Navigator: which techniques the rules look for
    Navigator(NavigatorArguments),
}

#[derive(Debug, clap::Args)]
struct NavigatorArguments {
    /// Rule file or folder; without one, the rules that ship
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// What the layer is called
    #[arg(long, value_name = "TEXT", default_value = "Egret")]
    name: String,
}

/// Prints it as JSON.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let Command::Navigator(arguments) = &arguments.command;
    let rules = input::rules(&input::rule_source(&arguments.rules), None)?;
    let layer = navigator::layer(&arguments.name, &rules.rules);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(&layer)?)?;
    Ok(Exit::Fine)
}
