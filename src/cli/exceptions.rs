//! `egret exceptions`: what each exception of a running program hid, and which hide nothing.

use std::io::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value as Json;

use crate::cli::args::OutputFormat;
use crate::cli::client::{Program, moment, text};
use crate::cli::exit::Exit;
use crate::rule::literal;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::socket::Request;
use crate::time::Timestamp;
use crate::units::Bytes;

/// What `egret exceptions` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    program: Program,
    /// Only exceptions that hid nothing for so long, such as `90d`, and were there all that time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    unused: Option<Duration>,
    /// Only the exceptions of this rule
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Asks the running program. With `--unused`, exceptions to be removed are findings.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let answer = arguments.program.ask(&Request::Exceptions)?;
    let now = SystemClock::start().wall();
    let wanted = |exception: &&Json| {
        let of_rule = arguments.rule.as_deref().is_none_or(|id| exception["rule"] == *id);
        of_rule && arguments.unused.is_none_or(|age| is_unused(exception, now, age))
    };
    let exceptions: Vec<Json> = answer.as_array().into_iter().flatten().filter(wanted).cloned().collect();
    let mut out = anstream::stdout().lock();
    let exit = if arguments.unused.is_some() && !exceptions.is_empty() { Exit::Findings } else { Exit::Fine };
    if arguments.output == OutputFormat::Json {
        for exception in &exceptions {
            writeln!(out, "{exception}")?;
        }
        return Ok(exit);
    }
    if exceptions.is_empty() {
        let what = if arguments.unused.is_some() {
            "every exception was used, or is younger than that"
        } else {
            "there are no exceptions"
        };
        writeln!(out, "{what}")?;
        return Ok(exit);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["RULE", "EXCEPTION", "HITS", "HID", "LAST", "COUNTED SINCE"]);
    for exception in &exceptions {
        let last = moment(exception, "last");
        table.add_row([
            text(exception, "rule"),
            text(exception, "exception"),
            text(exception, "hits"),
            Bytes(exception["bytes"].as_u64().unwrap_or(0)).to_string(),
            if last.is_empty() { "never".to_owned() } else { last },
            moment(exception, "since"),
        ]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{}", table.trim_fmt())?;
    Ok(exit)
}

/// Whether it hid nothing for so long. One that is counted for a shorter time may still be needed.
fn is_unused(exception: &Json, now: Timestamp, age: Duration) -> bool {
    let at = |field: &str| exception[field].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let quiet_since = at("last").or_else(|| at("since"));
    quiet_since.is_some_and(|since| now.since(since) >= age) && at("since").is_some_and(|since| now.since(since) >= age)
}

fn duration(text: &str) -> Result<Duration, String> {
    literal::duration(text).map_err(|bad| bad.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_too_young_to_tell_is_not_unused() {
        let now = Timestamp::from_secs(100 * 86_400);
        let age = Duration::from_secs(90 * 86_400);
        let at = |day: i64| Timestamp::from_secs(day * 86_400);
        let exception = |last: Option<i64>, since: i64| json!({ "last": last.map(at), "since": at(since) });
        assert!(is_unused(&exception(None, 5), now, age));
        assert!(is_unused(&exception(Some(9), 5), now, age));
        assert!(!is_unused(&exception(Some(11), 5), now, age));
        assert!(!is_unused(&exception(None, 11), now, age));
    }
}
