//! `egret flows`: every flow with its bytes and its owner, from files or live.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::attribution::ProcessKey;
use crate::cli::exit::Exit;
use crate::cli::input::{self, LiveArguments, PlaceArguments};
use crate::cli::terminal;
use crate::config::{HostFile, Settings, this_host};
use crate::engine::{self, Deltas, Engine, Output, Records};
use crate::flow::FlowKey;
use crate::names::{Application, FlowRecord};
use crate::rule::{Host, RuleSet};
use crate::runtime::clock::SystemClock;
use crate::runtime::control;
use crate::runtime::counts::FrameCounts;
use crate::runtime::offline::Offline;
use crate::runtime::recording::DeltaWriter;
use crate::units::Bytes;
use crate::view::{FLOW_COLUMNS, FlowView};

/// What `egret flows` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Capture files, pcap or pcapng; `-` is standard input
    #[arg(value_name = "CAPTURE", required_unless_present = "live", conflicts_with = "live")]
    captures: Vec<PathBuf>,
    /// Watch this host for so many seconds
    #[arg(long, value_name = "SECONDS")]
    live: Option<u64>,
    #[command(flatten)]
    source: LiveArguments,
    #[command(flatten)]
    places: PlaceArguments,
    /// Owners of flows, one JSON object a line
    #[arg(long, value_name = "FILE")]
    owners: Option<PathBuf>,
    /// Network that is this host's own
    #[arg(long, value_name = "CIDR")]
    local: Vec<ipnet::IpNet>,
    /// Also write what rules are told of the flows, second by second, for `egret backtest` and `egret suggest`;
    /// compressed where the name ends in `.zst`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// How flows are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table, the largest flows first
    #[default]
    Text,
    /// One JSON object a line, a summary last
    Json,
    /// Comma-separated values
    Csv,
}

/// Flows of one file or one live run are one row each, however often a record was made.
type Rows = BTreeMap<(FlowKey, ProcessKey, Option<Vec<u8>>), FlowRecord>;

/// Flows of files that are held at once; further ones are still summed in their rows.
const MAX_FLOWS: usize = 1 << 20;

/// Prints the flows.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    match arguments.live {
        Some(seconds) => live(arguments, Duration::from_secs(seconds)),
        None => offline(arguments),
    }
}

fn offline(arguments: &Arguments) -> anyhow::Result<Exit> {
    let owners = arguments.owners.as_deref().map(input::declared_owners).transpose()?;
    let mut log = Log::new(arguments, this_host(&HostFile::default()))?;
    // One row a flow, however long it was silent. What is recorded ends its flows as a replay does.
    let idle_timeout = match log.recording {
        Some(_) => engine::Settings::default().idle_timeout,
        None => Duration::MAX,
    };
    let settings = engine::Settings {
        local: input::named(&arguments.local),
        idle_timeout,
        max_flows: MAX_FLOWS,
        records: Records::On,
        deltas: log.deltas(),
        ..engine::Settings::default()
    };
    let mut engine = Engine::new(settings, Arc::new(RuleSet::default()));
    arguments.places.apply(&mut engine)?;
    let mut run = Offline::new(engine, owners);
    let mut exit = Exit::Fine;
    for path in &arguments.captures {
        exit = input::worse(exit, read(&mut run, path, &mut log)?);
    }
    run.finish(&mut |output| log.keep(output))?;
    let rows = log.finish()?;
    let summary = summary(run.counts(), rows.len());
    print(arguments.output, &rows, &summary)?;
    Ok(exit)
}

fn read(run: &mut Offline, path: &Path, log: &mut Log) -> anyhow::Result<Exit> {
    let progress = terminal::progress(input::length(path), "reading");
    let damage = run.read(path, &progress, &mut |output| log.keep(output))?;
    progress.finish_and_clear();
    Ok(input::say_damage(path, damage.as_ref()))
}

fn live(arguments: &Arguments, duration: Duration) -> anyhow::Result<Exit> {
    let mut settings = Settings::load(None).map_err(input::say_config_error)?;
    arguments.source.apply(&mut settings);
    settings.local.extend(&arguments.local);
    let mut log = Log::new(arguments, settings.host.clone())?;
    let engine = engine::Settings { records: Records::On, deltas: log.deltas(), ..input::live_engine(&settings)? };
    let mut engine = Engine::new(engine, Arc::new(RuleSet::default()));
    let databases =
        if arguments.places.databases.is_empty() { &settings.databases } else { &arguments.places.databases };
    PlaceArguments { databases: databases.clone() }.apply(&mut engine)?;
    let (_sender, control) = control::from_signals().context("cannot handle signals")?;
    let mut run = input::open_live(&settings, engine, SystemClock::start())?;
    terminal::note(&format!("watching {} with {}", settings.capture.interfaces.join(", "), run.source().name()));
    let progress = terminal::countdown(duration, "watching");
    let mut failed = None;
    run.run(
        &control,
        Some(Instant::now() + duration),
        |_, _| {},
        |output| {
            if failed.is_none()
                && let Err(error) = log.keep(output)
            {
                terminal::error(&format!("{error:#}"));
                failed = Some(error);
            }
        },
    );
    progress.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    let rows = log.finish()?;
    let statistics = run.engine().statistics();
    let mut summary = match run.source().needs_lookups() {
        true => {
            let mut summary = summary(run.counts(), rows.len());
            summary["repeated"] = json!(run.counts().repeated);
            summary
        }
        // The kernel source sees no frames.
        false => json!({ "flows": rows.len() }),
    };
    summary["source"] = json!(run.source().name());
    summary["bytes"] = json!(statistics.bytes);
    summary["unattributed_bytes"] = json!(statistics.unattributed_bytes);
    summary["coverage"] = json!(run.watching().load().coverage);
    summary["losses"] = json!(statistics.losses);
    print(arguments.output, &rows, &summary)?;
    Ok(Exit::Fine)
}

/// What is kept of a run.
struct Log {
    rows: Rows,
    recording: Option<DeltaWriter>,
}

impl Log {
    fn new(arguments: &Arguments, host: Host) -> anyhow::Result<Self> {
        let recording = arguments.record.as_deref().map(|path| DeltaWriter::create(path, &host)).transpose()?;
        Ok(Self { rows: Rows::new(), recording })
    }

    fn deltas(&self) -> Deltas {
        if self.recording.is_some() { Deltas::On } else { Deltas::Off }
    }

    fn keep(&mut self, output: Output) -> anyhow::Result<()> {
        match (output, &mut self.recording) {
            (Output::Record(record), _) => keep(record, &mut self.rows),
            (Output::Delta(delta), Some(recording)) => recording.write(&delta)?,
            (Output::Losses(at, losses), Some(recording)) => recording.write_losses(at, losses)?,
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Rows> {
        if let Some(recording) = self.recording {
            let deltas = recording.finish()?;
            terminal::note(&format!("recorded {deltas} flow deltas"));
        }
        Ok(self.rows)
    }
}

fn keep(record: FlowRecord, rows: &mut Rows) {
    let owner = record.attribution.process();
    let key = (
        record.key,
        owner.map(|process| process.key).unwrap_or_default(),
        owner.and_then(|process| process.executable_path()).map(<[u8]>::to_vec),
    );
    match rows.entry(key) {
        std::collections::btree_map::Entry::Vacant(entry) => {
            entry.insert(record);
        }
        std::collections::btree_map::Entry::Occupied(mut entry) => {
            let row = entry.get_mut();
            row.counters.add(&record.counters);
            row.first = row.first.min(record.first);
            row.last = row.last.max(record.last);
            row.end_reason = record.end_reason;
            row.name = record.name.or_else(|| row.name.take());
            row.place = record.place.or_else(|| row.place.take());
            if record.application != Application::Unknown {
                row.application = record.application;
            }
        }
    }
}

fn summary(counts: &FrameCounts, flows: usize) -> serde_json::Value {
    let mut summary = json!({
        "frames": counts.frames,
        "frames_without_ip": counts.errors.total(),
        "ip_packets": counts.ip_packets,
        "ip_bytes": counts.ip_bytes,
        "flows": flows,
    });
    let reasons = counts.errors.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count)));
    summary["undecoded"] = serde_json::Value::Object(reasons.collect());
    summary
}

fn print(format: Format, rows: &Rows, summary: &serde_json::Value) -> anyhow::Result<()> {
    let mut records: Vec<&FlowRecord> = rows.values().collect();
    match format {
        Format::Json => print_json(&records, summary)?,
        Format::Csv => print_csv(&records)?,
        Format::Text => {
            records.sort_by_key(|record| std::cmp::Reverse(record.counters.bytes_out + record.counters.bytes_in));
            print_table(&records, summary)?;
        }
    }
    Ok(())
}

fn print_json(records: &[&FlowRecord], summary: &serde_json::Value) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for record in records {
        serde_json::to_writer(&mut out, &FlowView::of(record))?;
        out.write_all(b"\n")?;
    }
    writeln!(out, "{}", json!({ "summary": summary }))?;
    out.flush()
}

fn print_csv(records: &[&FlowRecord]) -> anyhow::Result<()> {
    let mut out = csv::Writer::from_writer(io::stdout().lock());
    out.write_record(FLOW_COLUMNS)?;
    for record in records {
        out.write_record(FlowView::of(record).cells())?;
    }
    out.flush().context("cannot write to standard output")
}

fn print_table(records: &[&FlowRecord], summary: &serde_json::Value) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["OUT", "IN", "PROTO", "LOCAL", "", "REMOTE", "OWNER", "EVIDENCE"]);
    for record in records {
        let arrow = if record.direction == crate::flow::Direction::Inbound { "<-" } else { "->" };
        table.add_row([
            Bytes(record.counters.bytes_out.0).to_string(),
            Bytes(record.counters.bytes_in.0).to_string(),
            record.key.protocol.to_string(),
            record.key.local.to_string(),
            arrow.to_owned(),
            record.key.remote.to_string(),
            terminal::escape(&FlowView::owner_text(record)),
            record.attribution.evidence().map_or("none", |evidence| evidence.name()).to_owned(),
        ]);
    }
    for column in table.column_iter_mut().take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    writeln!(out, "{}", table.trim_fmt())?;
    if let serde_json::Value::Object(summary) = summary {
        let losses = summary.get("losses").and_then(serde_json::Value::as_object).into_iter().flatten();
        let lost = losses.filter(|(_, lost)| **lost != 0);
        let facts: Vec<String> = summary
            .iter()
            .filter(|(_, value)| !value.is_object())
            .chain(lost)
            .map(|(key, value)| {
                format!("{} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned), key.replace('_', " "))
            })
            .collect();
        writeln!(out, "\n{}", facts.join(", "))?;
    }
    out.flush()
}
