//! `egret output`: tries an output of a running program.

use std::io::Write;

use clap::Subcommand;

use crate::cli::client::Program;
use crate::cli::exit::Exit;
use crate::cli::terminal;
use crate::runtime::socket::Request;

/// What `egret output` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    program: Program,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send a marked test alert and say what came of it
    Test {
        /// The output's name
        name: String,
    },
}

/// Tells the running program.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let What::Test { name } = &arguments.what;
    match arguments.program.ask(&Request::TestOutput { name: name.clone() }) {
        Ok(_) => {
            writeln!(anstream::stdout().lock(), "{name} took the test alert")?;
            Ok(Exit::Fine)
        }
        Err(error) => {
            terminal::error(&format!("{name} did not take the test alert: {error:#}"));
            Ok(Exit::Findings)
        }
    }
}
