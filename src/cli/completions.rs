//! `egret completions`: the completions of a shell, made from the same table as the help.

use clap::CommandFactory;

use crate::cli::args;
use crate::cli::exit::Exit;

/// What `egret completions` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Prints them on standard output.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut command = args::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "egret", &mut std::io::stdout());
    Ok(Exit::Fine)
}
