//! `egret backtest`: rules on what was recorded, as if it happened now.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;

use crate::cli::args::OutputFormat;
use crate::cli::exit::Exit;
use crate::cli::input;
use crate::cli::replay::Printer;
use crate::cli::terminal;
use crate::config::expectations::{self, Expectations};
use crate::config::{HostFile, this_host};
use crate::dispatch::Origin;
use crate::engine::{Engine, Output, Settings};
use crate::rule::RuleSet;
use crate::rule::diagnose::Source;
use crate::runtime::recording::{DeltaCounts, DeltaReader, RecordingError};
use crate::units::Bytes;

/// What `egret backtest` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Recordings of `egret flows --record`; `-` is standard input
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    flows: Vec<PathBuf>,
    /// Rule file or folder; without one, the rules that ship
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// What must come of it: how often each rule fires
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Say only how often each rule fired, not each alert
    #[arg(long)]
    counts: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Puts the recordings through the rules. Expectations that are not met are findings.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let rules = input::rules(&input::rule_source(&arguments.rules), None)?;
    let expected = arguments.expect.as_deref().map(|path| expectations(path, &rules)).transpose()?;
    let host = this_host(&HostFile::default());
    let mut printer = Printer::new(arguments.output, Origin { host, pid: std::process::id() })?;
    let started = Instant::now();
    let mut perform = |output: Output| match (&output, arguments.counts) {
        (Output::Notification(notification), true) => {
            printer.count(notification);
            Ok(())
        }
        _ => printer.perform(output),
    };
    let (exit, counts) = feed(&arguments.flows, &rules, "replaying", &mut perform)?;
    let report = expected.as_ref().map(|expected| expected.check(&printer.fired));
    let failed = report.as_ref().map_or(0, |report| report.diagnostics.len());
    let seconds = started.elapsed().as_secs_f64();
    match arguments.output {
        OutputFormat::Json => {
            let failures: Vec<_> = report
                .iter()
                .flat_map(|report| report.diagnostics.iter().map(move |found| (report, found)))
                .map(|(report, found)| {
                    json!({ "file": report.path(found.span), "line": found.span.line, "message": found.message })
                })
                .collect();
            let summary = json!({ "summary": {
                "deltas": counts.deltas,
                "bytes": counts.bytes,
                "rules": rules.rules.len(),
                "alerts": printer.alerts,
                "resolved": printer.resolved,
                "fired": printer.fired,
                "expectations": expected.as_ref().map(Expectations::len),
                "failures": failures,
                "seconds": (seconds * 1e6).round() / 1e6,
            }});
            writeln!(printer.out, "{summary}")?;
        }
        OutputFormat::Text => {
            write_counts(&mut printer.out, &printer.fired)?;
            let alerts = if printer.alerts == 1 { "alert" } else { "alerts" };
            writeln!(
                printer.out,
                "{} flow deltas, {}: {} {alerts} fired, {} resolved ({seconds:.2} s)",
                counts.deltas,
                Bytes(counts.bytes),
                printer.alerts,
                printer.resolved,
            )?;
            if let Some(expected) = &expected {
                writeln!(printer.out, "{} expectations, {failed} not met", expected.len())?;
            }
        }
    }
    printer.out.flush()?;
    if let (Some(report), OutputFormat::Text) = (&report, arguments.output) {
        input::say_report(report);
    }
    Ok(if failed > 0 { input::worse(exit, Exit::Findings) } else { exit })
}

/// Hands recordings to a fresh engine with these rules. A recording that was cut off counts as far as it goes.
pub(super) fn feed(
    paths: &[PathBuf],
    rules: &Arc<RuleSet>,
    doing: &'static str,
    perform: &mut impl FnMut(Output) -> anyhow::Result<()>,
) -> anyhow::Result<(Exit, DeltaCounts)> {
    let mut exit = Exit::Fine;
    let mut counts = DeltaCounts::default();
    let mut engine: Option<Engine> = None;
    for path in paths {
        let progress = terminal::progress(input::length(path), doing);
        let mut reader = DeltaReader::open(path, &progress)?;
        let engine = engine.get_or_insert_with(|| {
            let host = reader.host().cloned().unwrap_or_else(|| this_host(&HostFile::default()));
            Engine::new(Settings { host: Arc::new(host), ..Settings::for_deltas() }, Arc::clone(rules))
        });
        let fed = reader.feed(engine, &mut counts, perform);
        progress.finish_and_clear();
        match fed {
            Err(error) if matches!(error.downcast_ref(), Some(RecordingError::CutOff { .. })) => {
                terminal::error(&format!("{error:#}"));
                exit = Exit::Findings;
            }
            other => other?,
        }
    }
    if let Some(mut engine) = engine {
        engine.finish();
        while let Some(output) = engine.poll_output() {
            perform(output)?;
        }
    }
    Ok((exit, counts))
}

fn expectations(path: &Path, rules: &RuleSet) -> anyhow::Result<Expectations> {
    let content = std::fs::read(path).with_context(|| format!("cannot read expectations from `{}`", path.display()))?;
    expectations::parse(Source::new(path.display().to_string(), content), rules).map_err(|report| {
        input::say_report(&report);
        anyhow::anyhow!("the expectations cannot be used")
    })
}

fn write_counts(out: &mut impl Write, fired: &BTreeMap<Arc<str>, u64>) -> std::io::Result<()> {
    let mut rows: Vec<(&Arc<str>, &u64)> = fired.iter().collect();
    rows.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    for (rule, count) in rows {
        writeln!(out, "{count:>8}  {rule}")?;
    }
    Ok(())
}
