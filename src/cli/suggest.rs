//! `egret suggest`: from recorded flows, the limits that fit them and what each program usually moves.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::alert::DocumentKind;
use crate::cli::args::OutputFormat;
use crate::cli::backtest::feed;
use crate::cli::exit::Exit;
use crate::cli::{input, terminal};
use crate::engine::{FlowDelta, Output};
use crate::rule::{Rule, RuleSet, duration};
use crate::runtime::recording::DeltaReader;
use crate::runtime::tuning::{Round, Search};
use crate::units::Bytes;

/// What `egret suggest` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Recordings of `egret flows --record`
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    flows: Vec<PathBuf>,
    /// Rule file or folder; without one, the rules that ship
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Only this rule; may be given several times
    #[arg(long = "rule", value_name = "ID")]
    only: Vec<String>,
    /// How often a rule is to fire over the whole recording
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// What one program moved.
#[derive(Debug, Default)]
struct Volumes {
    flows: u64,
    out: u64,
    into: u64,
    /// Bytes out by ten minutes, hour and day of the clock.
    spans: [BTreeMap<i64, u64>; 3],
}

/// The lengths of the spans, in seconds, and what they are called.
const SPANS: [(i64, &str); 3] = [(600, "10m"), (3_600, "1h"), (86_400, "1d")];

/// Programs told apart; those that come later are summed as one.
const MAX_PROGRAMS: usize = 10_000;

/// Turns each rule until it fires as often as wanted, and sums what programs moved.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    if arguments.flows.iter().any(|path| path.as_os_str() == "-") {
        anyhow::bail!("a recording is read several times here, which standard input cannot be");
    }
    let rules = input::rules(&input::rule_source(&arguments.rules), None)?;
    let wanted = wanted(arguments, &rules)?;
    let (programs, most) = volumes(&arguments.flows)?;
    let mut searches: Vec<Search> = wanted.iter().filter_map(|rule| Search::new(rule, arguments.times, most)).collect();
    let mut exit = Exit::Fine;
    while let Some(mut round) = Round::next(&searches) {
        let rules = Arc::clone(&round.rules);
        let (damage, _) = feed(&arguments.flows, &rules, "trying limits", &mut |output| {
            if let Output::Notification(notification) = output
                && notification.kind == DocumentKind::Firing
                && let Some(alert) = &notification.alert
            {
                round.fired(&alert.rule.metadata.id);
            }
            Ok(())
        })?;
        exit = input::worse(exit, damage);
        round.finish(&mut searches);
    }
    let fixed: Vec<&Arc<Rule>> = wanted.iter().filter(|rule| rule.knob().is_none()).collect();
    match arguments.output {
        OutputFormat::Json => print_json(arguments.times, &searches, &fixed, &programs)?,
        OutputFormat::Text => print_text(arguments.times, &searches, &fixed, &programs)?,
    }
    Ok(exit)
}

fn wanted(arguments: &Arguments, rules: &RuleSet) -> anyhow::Result<Vec<Arc<Rule>>> {
    for id in &arguments.only {
        if !rules.rules.iter().any(|rule| *rule.metadata.id == **id) {
            let meant = crate::rule::diagnose::nearest(id, rules.rules.iter().map(|rule| &*rule.metadata.id));
            let meant = meant.map(|id| format!("; did you mean `{id}`?")).unwrap_or_default();
            anyhow::bail!("there is no rule `{id}`{meant}");
        }
    }
    let named =
        |rule: &&Arc<Rule>| arguments.only.is_empty() || arguments.only.iter().any(|id| **id == *rule.metadata.id);
    Ok(rules.rules.iter().filter(named).cloned().collect())
}

/// What each program moved, and a number that no value of a rule can reach.
fn volumes(paths: &[PathBuf]) -> anyhow::Result<(BTreeMap<String, Volumes>, u64)> {
    let mut programs: BTreeMap<String, Volumes> = BTreeMap::new();
    let mut total = 0u64;
    for path in paths {
        let progress = terminal::progress(input::length(path), "reading");
        let mut reader = DeltaReader::open(path, &progress)?;
        // That a recording is cut off is said when the rules are tried on it.
        while let Ok(Some(delta)) = reader.next_delta() {
            let counters = &delta.counters;
            total = total.saturating_add(counters.bytes_out.0).saturating_add(counters.bytes_in.0).saturating_add(2);
            let program = program(&delta);
            let known = programs.contains_key(&program) || programs.len() < MAX_PROGRAMS;
            let volumes = programs.entry(if known { program } else { OTHERS.to_owned() }).or_default();
            volumes.add(&delta);
        }
        progress.finish_and_clear();
    }
    // Rates are bits a second, and a window is a second long at least.
    Ok((programs, total.saturating_mul(8)))
}

fn program(delta: &FlowDelta) -> String {
    match delta.attribution.process() {
        None => "(unknown)".to_owned(),
        Some(process) => match process.executable_path() {
            Some(path) => String::from_utf8_lossy(path).into_owned(),
            None => "(no executable)".to_owned(),
        },
    }
}

impl Volumes {
    fn add(&mut self, delta: &FlowDelta) {
        let out = delta.counters.bytes_out.0;
        self.flows += u64::from(delta.end.is_some());
        self.out += out;
        self.into += delta.counters.bytes_in.0;
        if out > 0 {
            for (span, (length, _)) in self.spans.iter_mut().zip(SPANS) {
                *span.entry(delta.at.as_secs().div_euclid(length)).or_default() += out;
            }
        }
    }

    /// Median, 95th percentile and maximum of the spans with traffic.
    fn usual(&self, span: usize) -> [u64; 3] {
        let mut values: Vec<u64> = self.spans[span].values().copied().collect();
        values.sort_unstable();
        let at = |share: f64| {
            let place = (values.len() as f64 * share).ceil() as usize;
            values.get(place.saturating_sub(1)).copied().unwrap_or(0)
        };
        [at(0.5), at(0.95), at(1.0)]
    }
}

fn print_json(
    times: u64,
    searches: &[Search],
    fixed: &[&Arc<Rule>],
    programs: &BTreeMap<String, Volumes>,
) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for search in searches {
        let (knob, found) = (search.knob(), search.found());
        let line = json!({
            "rule": search.rule().metadata.id,
            "metric": knob.metric,
            "window_s": knob.window.map(|window| window.as_secs()),
            "limit": knob.limit,
            "fires": found.fires_now,
            "wanted": times,
            "suggested": found.limit,
            "suggested_text": found.limit.map(|limit| knob.scale.literal(limit)),
            "suggested_fires": found.fires,
        });
        writeln!(out, "{line}")?;
    }
    for rule in fixed {
        writeln!(out, "{}", json!({ "rule": rule.metadata.id, "metric": null, "wanted": times }))?;
    }
    for (program, volumes) in programs {
        let usual = |span: usize| {
            let [median, high, most] = volumes.usual(span);
            json!({ "spans": volumes.spans[span].len(), "median": median, "p95": high, "max": most })
        };
        let line = json!({
            "program": program,
            "flows_ended": volumes.flows,
            "bytes_out": volumes.out,
            "bytes_in": volumes.into,
            "bytes_out_in": { "10m": usual(0), "1h": usual(1), "1d": usual(2) },
        });
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(())
}

fn print_text(
    times: u64,
    searches: &[Search],
    fixed: &[&Arc<Rule>],
    programs: &BTreeMap<String, Volumes>,
) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    let often = |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["RULE", "MEASURES", "LIMIT", "FIRES", &format!("TO FIRE {}", often(times).to_uppercase()), ""]);
    for search in searches {
        let (knob, found) = (search.knob(), search.found());
        let window = knob.window.map(|window| format!(" in {}", duration(window))).unwrap_or_default();
        let (limit, remark) = match found.limit {
            None => ("-".to_owned(), "never fires here".to_owned()),
            Some(limit) if found.fires == times => (knob.scale.literal(limit), String::new()),
            Some(limit) => (knob.scale.literal(limit), format!("fires {}: nearest there is", often(found.fires))),
        };
        table.add_row([
            search.rule().metadata.id.to_string(),
            format!("{}{window}", knob.metric),
            knob.scale.literal(knob.limit),
            found.fires_now.to_string(),
            limit,
            remark,
        ]);
    }
    for column in [2, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{}", table.trim_fmt())?;
    if !fixed.is_empty() {
        let names: Vec<&str> = fixed.iter().map(|rule| &*rule.metadata.id).collect();
        writeln!(out, "\nwithout a limit to choose: {}", names.join(", "))?;
    }
    let mut rows: Vec<(&String, &Volumes)> = programs.iter().collect();
    rows.sort_by_key(|(program, volumes)| (std::cmp::Reverse(volumes.out), *program));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["PROGRAM", "OUT", "IN", "10m: MEDIAN", "95 %", "MAX", "1h: MEDIAN", "95 %", "MAX", "1d: MAX"]);
    for (program, volumes) in rows {
        let ([a, b, c], [d, e, f], [.., g]) = (volumes.usual(0), volumes.usual(1), volumes.usual(2));
        let mut row = vec![terminal::escape(&program.replace('\n', "\\n"))];
        row.extend([volumes.out, volumes.into, a, b, c, d, e, f, g].map(|bytes| Bytes(bytes).to_string()));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "\nbytes out by program, in spans of the clock with traffic:\n{}", table.trim_fmt())?;
    Ok(())
}

const OTHERS: &str = "(others)";
