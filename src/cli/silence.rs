//! `egret silence`: what nobody needs to hear of for a while.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};

use crate::alert::Silence;
use crate::cli::args::OutputFormat;
use crate::cli::client::{Program, moment, text};
use crate::cli::exit::Exit;
use crate::dispatch::settings::parse_duration;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::socket::Request;
use crate::time::Timestamp;

/// What `egret silence` takes.
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
    /// Hold back alerts that match, and keep them on record
    Add {
        /// `LABEL=PATTERN`, such as `rule=exfil-*` or `user=alice`; all labels must match, one pattern of each
        #[arg(required = true, value_name = "LABEL=PATTERN")]
        matchers: Vec<String>,
        /// For how long, such as `2h`
        #[arg(long = "for", value_name = "DURATION", conflicts_with = "until", required_unless_present = "until")]
        length: Option<String>,
        /// Until a point in time (RFC 3339), or `resolved`: until what it matches now is over
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// From a point in time on (RFC 3339)
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Why
        #[arg(long)]
        reason: String,
        /// Who wants it
        #[arg(long, env = "USER")]
        author: String,
    },
    /// List silences
    List {
        /// Also list what has ended
        #[arg(long)]
        all: bool,
    },
    /// End a silence now
    Expire {
        /// The silence's id
        id: String,
    },
}

/// Asks or tells the running program.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let now = SystemClock::start().wall();
    let mut out = anstream::stdout().lock();
    match &arguments.what {
        What::Add { matchers, length, until, from, reason, author } => {
            let starts_at = from.as_deref().map_or(Ok(now), point_in_time)?;
            let silence = Silence {
                id: ulid::Ulid::generate().to_string(),
                matchers: read_matchers(matchers)?,
                starts_at,
                ends_at: read_end(length.as_deref(), until.as_deref(), starts_at)?,
                author: author.clone(),
                reason: reason.clone(),
            };
            let id = silence.id.clone();
            arguments.program.ask(&Request::AddSilence { silence })?;
            match arguments.output {
                OutputFormat::Json => writeln!(out, "{}", serde_json::json!({"id": id}))?,
                OutputFormat::Text => writeln!(out, "{id}")?,
            }
        }
        What::List { all } => {
            let answer = arguments.program.ask(&Request::Silences)?;
            let silences: Vec<Silence> = serde_json::from_value(answer)?;
            let ended = |silence: &Silence| silence.ends_at.is_some_and(|ends| ends <= now);
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["id", "matches", "from", "until", "author", "reason"]);
            for silence in silences.iter().filter(|silence| *all || !ended(silence)) {
                let object = serde_json::to_value(silence)?;
                if arguments.output == OutputFormat::Json {
                    writeln!(out, "{object}")?;
                    continue;
                }
                let matches: Vec<String> = silence
                    .matchers
                    .iter()
                    .map(|(label, patterns)| format!("{label}={}", patterns.join(",")))
                    .collect();
                let until = if silence.ends_at.is_none() { "resolved".to_owned() } else { moment(&object, "ends_at") };
                table.add_row([
                    silence.id.clone(),
                    crate::escape::one_line(matches.join(" ")),
                    moment(&object, "starts_at"),
                    until,
                    text(&object, "author"),
                    text(&object, "reason"),
                ]);
            }
            if arguments.output == OutputFormat::Text {
                writeln!(out, "{}", table.trim_fmt())?;
            }
        }
        What::Expire { id } => {
            arguments.program.ask(&Request::ExpireSilence { id: id.clone() })?;
            writeln!(out, "{id} has ended")?;
        }
    }
    Ok(Exit::Fine)
}

fn read_matchers(written: &[String]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut matchers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in written {
        let Some((label, pattern)) = one.split_once('=') else {
            bail!("`{one}` is no matcher such as `rule=exfil-*`");
        };
        matchers.entry(label.to_owned()).or_default().push(pattern.to_owned());
    }
    Ok(matchers)
}

fn read_end(length: Option<&str>, until: Option<&str>, starts_at: Timestamp) -> anyhow::Result<Option<Timestamp>> {
    match (length, until) {
        (Some(length), _) => {
            let length = parse_duration(length).with_context(|| format!("`{length}` is no duration such as `2h`"))?;
            Ok(Some(starts_at.after(length)))
        }
        (None, Some("resolved")) => Ok(None),
        (None, Some(until)) => point_in_time(until).map(Some),
        (None, None) => bail!("say `--for` or `--until`"),
    }
}

fn point_in_time(text: &str) -> anyhow::Result<Timestamp> {
    text.parse().with_context(|| format!("`{text}` is no point in time such as `2026-05-04T18:00:00Z`"))
}
