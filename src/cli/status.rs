//! `egret status`: how a running program stands.

use std::io::Write;

use comfy_table::{Table, presets};

use crate::cli::args::OutputFormat;
use crate::cli::client::{Program, moment, text};
use crate::cli::exit::Exit;
use crate::runtime::socket::Request;

/// What `egret status` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    program: Program,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Asks the running program. An output that fails is a finding.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let status = arguments.program.ask(&Request::Status)?;
    let mut out = anstream::stdout().lock();
    let outputs = status["outputs"].as_object().cloned().unwrap_or_default();
    let failing = outputs.values().any(|output| output["health"] != "working");
    let exit = if failing { Exit::Findings } else { Exit::Fine };
    if arguments.output == OutputFormat::Json {
        writeln!(out, "{status}")?;
        return Ok(exit);
    }
    writeln!(
        out,
        "{} alerts fire; {} notifications came in, {} were held back, {} were lost, {} are on disk",
        text(&status, "firing"),
        text(&status, "submitted"),
        text(&status, "suppressed"),
        text(&status, "lost"),
        text(&status, "committed")
    )?;
    let mut table = Table::new();
    let header = ["output", "health", "since", "delivered", "waiting", "retried", "given up", "last error"];
    table.load_style(presets::NOTHING).set_header(header);
    for (name, output) in &outputs {
        let given_up: u64 =
            ["refused", "expired", "queue_full"].iter().filter_map(|field| output[*field].as_u64()).sum();
        table.add_row([
            name.clone(),
            text(output, "health"),
            moment(output, "failing_since"),
            text(output, "delivered"),
            text(output, "waiting"),
            text(output, "retried"),
            given_up.to_string(),
            text(output, "last_error"),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    Ok(exit)
}
