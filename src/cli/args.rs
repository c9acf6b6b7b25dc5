//! The command line as typed.

use clap::{Parser, Subcommand, ValueEnum};

use crate::cli::{completions, flows, geo, lists, man, replay, run};

/// Which program is sending how much to where, is that more than policy allows, and who must know now?
#[derive(Debug, Parser)]
#[command(name = "egret", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant a subcommand; each has its own file beside this one.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say which network and country addresses are in
    Geo(geo::Arguments),
    /// Look into lists of networks, domains and AS numbers
    Lists(lists::Arguments),
    /// Watch this host, evaluate the rules, deliver the alerts
    Run(run::Arguments),
    /// Put captures through the rules and print the alerts
    Replay(replay::Arguments),
    /// Print every flow with its bytes and its owner
    Flows(flows::Arguments),
    /// Print the completions of a shell
    Completions(completions::Arguments),
    /// Write the manual pages
    Man(man::Arguments),
}

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
