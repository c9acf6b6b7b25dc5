//! `egret status`: how a running program stands.

use std::io::Write;

use comfy_table::{Table, presets};
use serde_json::Value as Json;

use crate::cli::client::{Program, moment, text};
use crate::cli::exit::Exit;
use crate::cli::{metrics, terminal};
use crate::runtime::socket::Request;

/// What `egret status` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    program: Program,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

/// How a status can be printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Metrics in Prometheus' text form.
    Prometheus,
}

/// Asks the running program. An output that fails is a finding.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let status = arguments.program.ask(&Request::Status)?;
    let mut out = anstream::stdout().lock();
    let outputs = status["outputs"].as_object().cloned().unwrap_or_default();
    let failing = outputs.values().any(|output| output["health"] != "working");
    let exit = if failing { Exit::Findings } else { Exit::Fine };
    match arguments.output {
        Form::Json => {
            writeln!(out, "{status}")?;
            return Ok(exit);
        }
        Form::Prometheus => {
            write!(out, "{}", metrics::encode(&status))?;
            return Ok(exit);
        }
        Form::Text => {}
    }
    for line in watching(&status["watching"]) {
        writeln!(out, "{line}")?;
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
    for (name, count) in status["stranded"].as_object().into_iter().flatten() {
        let name = terminal::escape(name);
        writeln!(out, "{count} deliveries wait for `{name}`, which is not configured: see `egret outbox list`")?;
    }
    Ok(exit)
}

/// How the watching goes, in sentences.
fn watching(watching: &Json) -> Vec<String> {
    let Some(source) = watching["source"].as_str().filter(|source| !source.is_empty()) else { return Vec::new() };
    let losses = &watching["engine"]["losses"];
    let lost: u64 = losses.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let coverage = match watching["coverage"].as_f64() {
        Some(share) => format!("{:.1} % of the bytes on the interfaces have an owner", share * 100.0),
        None => "too little passes to say how much has an owner".to_owned(),
    };
    let tap = match watching["tap"].as_str() {
        Some(width) => format!(", tap {width}"),
        None => String::new(),
    };
    let flows = text(&watching["engine"]["flows"], "flows");
    let mut lines = vec![format!("watching with {source}{tap}: {flows} flows, {coverage}, {lost} losses")];
    let mut more = |field: &str, sentence: &str| {
        lines.extend(watching[field].as_str().map(|reason| format!("{sentence}: {}", terminal::escape(reason))));
    };
    more("fallback", "the kernel source cannot be used");
    more("limitation", "the kernel source works with a limitation");
    more("tap_failure", "what no socket explains cannot be looked at");
    if watching["blind"] == true {
        lines.push("the source sees nothing: every interface that it captures on is gone".to_owned());
    }
    let learning: Vec<&str> = watching["learning"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    if !learning.is_empty() {
        lines.push(format!("still learning, so that they do not fire: {}", learning.join(", ")));
    }
    lines
}
