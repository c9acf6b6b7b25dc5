//! `egret man`: the manual pages, made from the same table as the help.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::args;
use crate::cli::exit::Exit;

/// What `egret man` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder to write the pages to
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// Writes `egret.1` and a page for each subcommand.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let folder = &arguments.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(args::Arguments::command(), folder))
        .with_context(|| format!("cannot write manual pages to `{}`", folder.display()))?;
    Ok(Exit::Fine)
}
