//! `egret windows`: how near a running program's groups are to their limits.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value as Json;

use crate::cli::args::OutputFormat;
use crate::cli::client::{Program, moment, text};
use crate::cli::exit::Exit;
use crate::runtime::socket::Request;
use crate::units::{Bytes, Rate};

/// What `egret windows` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    program: Program,
    /// Only the groups of this rule
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// Show so many at most, the nearest to their limits first
    #[arg(long, default_value_t = 30, value_name = "N")]
    limit: usize,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Asks the running program.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let request = Request::Windows { rule: arguments.rule.clone(), most: arguments.limit };
    let answer = arguments.program.ask(&request)?;
    let windows = answer["windows"].as_array().cloned().unwrap_or_default();
    let mut out = anstream::stdout().lock();
    if arguments.output == OutputFormat::Json {
        for window in &windows {
            writeln!(out, "{window}")?;
        }
        return Ok(Exit::Fine);
    }
    if windows.is_empty() {
        writeln!(out, "no traffic that a rule looks at")?;
        return Ok(Exit::Fine);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["REACHED", "STATE", "RULE", "GROUP", "VALUES"]);
    for window in &windows {
        table.add_row([
            format!("{:.1} %", window["share"].as_f64().unwrap_or(0.0) * 100.0),
            text(window, "state"),
            text(window, "rule"),
            group(&window["group"]),
            values(window),
        ]);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "{}\n\nas of {}", table.trim_fmt(), moment(&answer, "at"))?;
    Ok(Exit::Fine)
}

/// `exe=/usr/bin/curl user=alice`; the whole host where a rule groups by nothing.
pub(super) fn group(group: &Json) -> String {
    let fields = group.as_object().into_iter().flatten();
    let shown: Vec<String> = fields.map(|(field, _)| format!("{field}={}", text(group, field))).collect();
    if shown.is_empty() { "the whole host".to_owned() } else { shown.join(" ") }
}

/// `payload_out 12 MB of 500 MB in 10m, upload_ratio 0.9 of 0.8`
fn values(window: &Json) -> String {
    let conditions = window["conditions"].as_array().cloned().unwrap_or_default();
    let shown: Vec<String> = conditions
        .iter()
        .map(|condition| {
            let metric = text(condition, "metric");
            let (value, limit) = (quantity(&metric, &condition["value"]), quantity(&metric, &condition["limit"]));
            let of = if condition["op"].as_str().is_some_and(|op| op.starts_with("lt")) { "below" } else { "of" };
            format!("{metric} {value} {of} {limit}")
        })
        .collect();
    shown.join(", ")
}

/// A value of a metric with its unit; `?` where it is undefined.
pub(super) fn quantity(metric: &str, value: &Json) -> String {
    let is_rate = metric.ends_with(".rate") || metric.starts_with("peak(");
    let is_bytes = metric.contains("bytes") || metric.starts_with("payload_");
    match (value.as_u64(), value.as_f64()) {
        (Some(number), _) if is_rate => Rate(number).to_string(),
        (Some(number), _) if is_bytes => Bytes(number).to_string(),
        (Some(number), _) => number.to_string(),
        (None, Some(ratio)) => format!("{:.3}", ratio).trim_end_matches('0').trim_end_matches('.').to_owned(),
        (None, None) => "?".to_owned(),
    }
}
