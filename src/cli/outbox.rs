//! `egret outbox`: deliveries that wait, and those that were given up.

use std::io::Write;

use clap::{Subcommand, ValueEnum};
use comfy_table::{Table, presets};

use crate::alert::DeliveryState;
use crate::cli::args::OutputFormat;
use crate::cli::client::{Program, moment, text};
use crate::cli::exit::Exit;
use crate::runtime::socket::Request;

/// What `egret outbox` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    program: Program,
    #[command(subcommand)]
    what: What,
    /// How to print
    #[arg(long, value_enum, default_value_t, global = true)]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List deliveries, the oldest first
    List {
        /// In which state
        #[arg(long, value_enum, default_value_t)]
        state: State,
        /// List so many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one delivery with what it says
    Show {
        /// The delivery's id
        id: String,
    },
    /// Try again at once, also what was given up
    Retry {
        /// The delivery's id
        #[arg(required_unless_present_any = ["to", "all"])]
        id: Option<String>,
        /// Everything that waits for this output
        #[arg(long, value_name = "OUTPUT")]
        to: Option<String>,
        /// Everything that waits
        #[arg(long)]
        all: bool,
    },
    /// Drop a delivery for good
    Drop {
        /// The delivery's id
        id: String,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum State {
    /// It will be tried.
    #[default]
    Waiting,
    /// It waits for its group.
    Held,
    /// It was given up.
    Dead,
    /// The receiver has it.
    Delivered,
}

/// Asks or tells the running program.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut out = anstream::stdout().lock();
    match &arguments.what {
        What::List { state, limit } => {
            let state = match state {
                State::Waiting => DeliveryState::Waiting,
                State::Held => DeliveryState::Held,
                State::Dead => DeliveryState::Dead,
                State::Delivered => DeliveryState::Delivered,
            };
            let answer = arguments.program.ask(&Request::Outbox { state, most: *limit })?;
            let deliveries = answer.as_array().cloned().unwrap_or_default();
            let mut table = Table::new();
            let header = ["id", "output", "created", "severity", "type", "attempts", "last error"];
            table.load_style(presets::NOTHING).set_header(header);
            for delivery in &deliveries {
                if arguments.output == OutputFormat::Json {
                    writeln!(out, "{delivery}")?;
                }
                table.add_row([
                    text(delivery, "id"),
                    text(delivery, "output"),
                    moment(delivery, "created"),
                    text(delivery, "severity"),
                    text(delivery, "type"),
                    text(delivery, "attempts"),
                    text(delivery, "last_error"),
                ]);
            }
            if arguments.output == OutputFormat::Text {
                writeln!(out, "{}", table.trim_fmt())?;
            }
        }
        What::Show { id } => {
            let delivery = arguments.program.ask(&Request::Delivery { id: id.clone() })?;
            match arguments.output {
                OutputFormat::Json => writeln!(out, "{delivery}")?,
                OutputFormat::Text => {
                    let pretty = serde_json::to_string_pretty(&delivery)?;
                    writeln!(out, "{}", crate::cli::terminal::escape(&pretty))?;
                }
            }
        }
        What::Retry { id, to, .. } => {
            arguments.program.ask(&Request::Retry { id: id.clone(), output: to.clone() })?;
        }
        What::Drop { id } => {
            arguments.program.ask(&Request::Drop { id: id.clone() })?;
        }
    }
    Ok(Exit::Fine)
}
