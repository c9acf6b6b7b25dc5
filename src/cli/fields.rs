//! `egret fields`: what rules can match, group by and measure.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use crate::cli::args::OutputFormat;
use crate::cli::exit::Exit;
use crate::cli::input;
use crate::config::{Settings, missing_fields};
use crate::rule::kind::{Kind, OPERATORS};
use crate::rule::{Field, Metric};

/// What `egret fields` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only names that start with this; `metrics` and `operators` list those
    #[arg(value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// The configuration, which decides what this host can tell
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Lists.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let prefix = arguments.prefix.as_str();
    let settings = Settings::load(arguments.config.as_deref()).map_err(input::say_config_error)?;
    let missing = missing_fields(&settings);
    let mut rows = Vec::new();
    match prefix {
        "operators" => rows.extend(OPERATORS.iter().map(|operator| Row {
            name: operator.name.to_owned(),
            kind: "operator",
            description: operator.description.to_owned(),
            ..Row::default()
        })),
        _ => {
            if prefix != "metrics" {
                rows.extend(
                    Field::ALL
                        .iter()
                        .filter(|field| field.name().starts_with(prefix))
                        .map(|field| Row { missing: missing.contains_key(field), ..of_field(*field) }),
                );
            }
            let wanted = |name: &str| prefix == "metrics" || name.starts_with(prefix);
            rows.extend(Metric::all().into_iter().filter(|metric| wanted(&metric.to_string())).map(|metric| Row {
                name: metric.to_string(),
                kind: "metric",
                description: metric.description().to_owned(),
                ..Row::default()
            }));
        }
    }
    let mut out = anstream::stdout().lock();
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in &rows {
        match arguments.output {
            OutputFormat::Json => writeln!(
                out,
                "{}",
                json!({
                    "name": row.name,
                    "type": row.kind,
                    "description": row.description,
                    "operators": row.operators,
                    "values": row.values,
                    "needs": row.needs,
                    "missing_here": row.missing,
                })
            )?,
            OutputFormat::Text => {
                let needs = match (row.needs, row.missing) {
                    (Some(needs), true) => format!(" (missing on this host: needs {needs})"),
                    (Some(needs), false) => format!(" (needs {needs})"),
                    (None, _) => String::new(),
                };
                writeln!(out, "{:width$}  {:14}  {}{needs}", row.name, row.kind, row.description)?;
            }
        }
    }
    if rows.is_empty() {
        anyhow::bail!("no field or metric starts with `{prefix}`");
    }
    Ok(Exit::Fine)
}

#[derive(Default)]
struct Row {
    name: String,
    kind: &'static str,
    description: String,
    operators: Vec<&'static str>,
    values: &'static [&'static str],
    needs: Option<&'static str>,
    missing: bool,
}

fn of_field(field: Field) -> Row {
    let kind = field.kind();
    Row {
        name: field.name().to_owned(),
        kind: kind.name(),
        description: field.description().to_owned(),
        operators: kind.operators().iter().map(|operator| operator.name).collect(),
        values: match kind {
            Kind::Word(words) => words,
            _ => &[],
        },
        needs: field.needs(),
        missing: false,
    }
}
