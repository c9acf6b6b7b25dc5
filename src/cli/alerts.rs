//! `egret alerts`: what fires, what ended, and who takes care of it.

use std::io::Write;

use clap::Subcommand;
use comfy_table::{Table, presets};
use serde_json::Value as Json;

use crate::cli::args::OutputFormat;
use crate::cli::client::{Program, moment, text};
use crate::cli::exit::Exit;
use crate::runtime::socket::Request;

/// What `egret alerts` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    program: Program,
    #[command(subcommand)]
    what: Option<What>,
    /// How to print
    #[arg(long, value_enum, default_value_t, global = true)]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List alerts, the latest change first
    List {
        /// Also list what has ended
        #[arg(long)]
        all: bool,
        /// List so many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one alert's whole document
    Show {
        /// The alert's key or uid, or the beginning of one
        alert: String,
    },
    /// Say that you take care of an alert
    Ack {
        /// The alert's key or uid, or the beginning of one
        alert: String,
        /// Who takes care of it
        #[arg(long, env = "USER")]
        by: String,
    },
}

/// Asks the running program.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut out = anstream::stdout().lock();
    match arguments.what.as_ref().unwrap_or(&What::List { all: false, limit: 100 }) {
        What::List { all, limit } => {
            let answer = arguments.program.ask(&Request::Alerts { most: 100_000 })?;
            let alerts = answer.as_array().cloned().unwrap_or_default();
            let wanted = alerts.iter().filter(|alert| *all || alert["state"] == "firing").take(*limit);
            if arguments.output == OutputFormat::Json {
                for alert in wanted {
                    writeln!(out, "{alert}")?;
                }
                return Ok(Exit::Fine);
            }
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["changed", "severity", "state", "alert", "summary"]);
            for alert in wanted {
                let mut state = text(alert, "state");
                for (field, word) in [("suppressed", "suppressed"), ("acknowledged_by", "acknowledged")] {
                    if !alert[field].is_null() {
                        state = format!("{state}, {word}");
                    }
                }
                let row = [
                    moment(alert, "changed_at"),
                    text(alert, "severity"),
                    state,
                    text(alert, "key"),
                    text(alert, "summary"),
                ];
                table.add_row(row);
            }
            writeln!(out, "{}", table.trim_fmt())?;
        }
        What::Show { alert } => {
            let found = find(arguments, alert)?;
            match arguments.output {
                OutputFormat::Json => writeln!(out, "{found}")?,
                OutputFormat::Text => {
                    let pretty = serde_json::to_string_pretty(&found)?;
                    writeln!(out, "{}", crate::cli::terminal::escape(&pretty))?;
                }
            }
        }
        What::Ack { alert, by } => {
            let key = text(&find(arguments, alert)?, "key");
            arguments.program.ask(&Request::Acknowledge { key: key.clone(), by: by.clone() })?;
            writeln!(out, "{key} is taken care of by {by}")?;
        }
    }
    Ok(Exit::Fine)
}

fn find(arguments: &Arguments, wanted: &str) -> anyhow::Result<Json> {
    let answer = arguments.program.ask(&Request::Alerts { most: 100_000 })?;
    let alerts = answer.as_array().cloned().unwrap_or_default();
    let named = |alert: &&Json| text(alert, "key").starts_with(wanted) || text(alert, "uid").starts_with(wanted);
    let found: Vec<&Json> = alerts.iter().filter(named).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => anyhow::bail!("there is no alert `{wanted}`"),
        several => anyhow::bail!("`{wanted}` is the beginning of {} alerts", several.len()),
    }
}
