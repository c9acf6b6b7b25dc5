//! `egret explain CODE`: the longer word about a finding.

use std::io::Write;

use crate::cli::args::OutputFormat;
use crate::cli::exit::Exit;
use crate::rule::catalogue;
use crate::rule::diagnose::nearest;

/// What `egret explain` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Codes or names of findings, such as R0107 or unknown-field; without any, all are listed
    #[arg(value_name = "CODE")]
    codes: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Explains.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut out = anstream::stdout().lock();
    let mut codes = Vec::new();
    for written in &arguments.codes {
        let Some(code) = catalogue::find(written) else {
            let words = catalogue::ALL.iter().flat_map(|code| [code.id, code.name]);
            let meant = nearest(written, words).map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
            anyhow::bail!("there is no code `{written}`{meant}");
        };
        codes.push(code);
    }
    let listing = codes.is_empty();
    if listing {
        codes.extend(catalogue::ALL);
    }
    for code in codes {
        match arguments.output {
            OutputFormat::Json => {
                let object = serde_json::json!({
                    "code": code.id,
                    "name": code.name,
                    "level": code.level,
                    "explanation": code.explanation,
                });
                writeln!(out, "{object}")?;
            }
            OutputFormat::Text if listing => writeln!(out, "{}  {:7}  {}", code.id, code.level.name(), code.name)?,
            OutputFormat::Text => {
                writeln!(out, "{} {} ({})\n\n{}\n", code.id, code.name, code.level.name(), code.explanation)?;
            }
        }
    }
    Ok(Exit::Fine)
}
