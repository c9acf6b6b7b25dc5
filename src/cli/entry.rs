//! Reads the command line and hands over to the subcommand.

use std::process::ExitCode;

use clap::Parser;

use crate::cli::args::{Arguments, Command};
use crate::cli::{completions, exit, flows, geo, lists, man, replay, run};

/// The whole program; its value is the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit::conclude(match &arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Flows(arguments) => flows::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Geo(arguments) => geo::run(arguments),
        Command::Lists(arguments) => lists::run(arguments),
        Command::Man(arguments) => man::run(arguments),
    })
}
