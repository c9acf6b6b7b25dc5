//! `egret schema`: the JSON Schema of rule files, for editors.

use std::io::Write;

use crate::cli::exit::Exit;
use crate::rule::schema;

/// What `egret schema` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Prints the schema.
pub fn run(_: &Arguments) -> anyhow::Result<Exit> {
    writeln!(anstream::stdout().lock(), "{:#}", schema::json_schema())?;
    Ok(Exit::Fine)
}
