//! `egret explain-match`: why a rule looks at a flow, or does not.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, anyhow, bail};
use serde_json::{Value as Json, json};

use crate::cli::args::OutputFormat;
use crate::cli::exit::Exit;
use crate::cli::{input, terminal};
use crate::config::{HostFile, RuleSource, rule_files, shipped, this_host};
use crate::engine::FlowDelta;
use crate::rule::compile::{Compiled, Options, Parts, compile};
use crate::rule::diagnose::nearest;
use crate::rule::explain::{Explanation, Line, explain};
use crate::rule::sheet::FlowSheet;
use crate::rule::{Clause, Host, Metric, Observation, Quantity, Rule, Scale, Sum, Threshold, Trigger, duration};
use crate::runtime::clock::{Clock, SystemClock};
use crate::time::Timestamp;
use crate::view::DeltaLine;

/// What `egret explain-match` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The rule's id
    #[arg(long, value_name = "ID")]
    rule: String,
    /// The flow: a JSON object, or `@FILE` with one (`@-` is standard input). Its keys are those of flows in tests
    /// of rules, or those of a line of `egret flows --output json` or `--record`
    #[arg(long, value_name = "JSON|@FILE")]
    flow: String,
    /// Rule file or folder; without one, the rules that ship
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// The moment, for schedules and dates: by default the flow's own, else now
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// A flow as it was given.
enum Given {
    Sheet(Box<FlowSheet>),
    Delta(Box<FlowDelta>),
}

/// Exit 0 if the flow counts for the rule, 1 if it does not.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let compiled = rules(arguments)?;
    let given = flow(&arguments.flow)?;
    let host = this_host(&HostFile::default());
    let now = match (&given, arguments.at) {
        (_, Some(at)) => at,
        (Given::Delta(delta), None) if delta.at > Timestamp::EPOCH => delta.at,
        _ => SystemClock::start().wall(),
    };
    let seen = given.observation(&host, now);
    let Some(explanation) = explain(&compiled, &arguments.rule, &seen) else {
        let known = compiled.written.get(&arguments.rule);
        if known.is_some() {
            bail!("the rule `{}` does not run: it is a draft, disabled or wrong", arguments.rule);
        }
        let meant = nearest(&arguments.rule, compiled.written.keys().map(String::as_str));
        let meant = meant.map(|id| format!("; did you mean `{id}`?")).unwrap_or_default();
        bail!("there is no rule `{}`{meant}", arguments.rule);
    };
    let rule = compiled.rules.rules.iter().find(|rule| *rule.metadata.id == *arguments.rule);
    let rule = rule.ok_or_else(|| anyhow!("the rule does not run"))?;
    let mut out = anstream::stdout().lock();
    match arguments.output {
        OutputFormat::Json => {
            let group: serde_json::Map<String, Json> =
                explanation.group.iter().map(|(field, value)| ((*field).to_owned(), json!(value))).collect();
            let line = json!({
                "rule": arguments.rule,
                "at": now,
                "counts": explanation.counts,
                "in_force": explanation.in_force,
                "match": explanation.condition,
                "exceptions": explanation.exceptions,
                "group": group,
            });
            writeln!(out, "{line}")?;
        }
        OutputFormat::Text => write(&mut out, rule, &explanation, &seen)?,
    }
    Ok(if explanation.counts { Exit::Fine } else { Exit::Findings })
}

fn rules(arguments: &Arguments) -> anyhow::Result<Compiled> {
    let sources = match input::rule_source(&arguments.rules) {
        RuleSource::Shipped => shipped::sources(),
        RuleSource::Paths(paths) => rule_files::read(&paths)?,
    };
    let options = Options { parts: Parts::Kept, ..rule_files::options(SystemClock::start().wall(), None) };
    let compiled = compile(sources, &options);
    if compiled.report.has_errors() {
        input::say_report(&compiled.report);
    }
    Ok(compiled)
}

fn flow(argument: &str) -> anyhow::Result<Given> {
    let text = match argument.strip_prefix('@') {
        None => argument.to_owned(),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read the flow from standard input")?;
            text
        }
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read the flow from `{path}`"))?,
    };
    let Json::Object(mut object) = serde_json::from_str(&text).context("the flow is no JSON object")? else {
        bail!("the flow is no JSON object");
    };
    if object.contains_key("remote_ip") {
        for key in OF_WHOLE_FLOWS {
            object.remove(*key);
        }
        for key in ["owner", "suspects"] {
            for owner in object.get_mut(key).map(objects).unwrap_or_default() {
                // It follows from the command line.
                owner.remove("script");
            }
        }
        if object.get("evidence").is_some_and(|evidence| evidence == "none") {
            object.remove("evidence");
        }
        let line: DeltaLine = serde_json::from_value(Json::Object(object)).context("the flow cannot be read")?;
        return Ok(Given::Delta(Box::new(line.into_delta().context("the flow cannot be read")?)));
    }
    let mut entries = BTreeMap::new();
    for (key, value) in object {
        entries.insert(key.clone(), words(&key, &value)?);
    }
    let known =
        |key: &String| crate::rule::Field::from_name(key).is_some() || crate::rule::sheet::KEYS.contains(&key.as_str());
    if let Some(unknown) = entries.keys().find(|key| !known(key)) {
        let names =
            crate::rule::Field::ALL.iter().map(|field| field.name()).chain(crate::rule::sheet::KEYS.iter().copied());
        let meant = nearest(unknown, names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        bail!("a flow has no `{unknown}`{meant}");
    }
    let sheet = FlowSheet::read(&entries).map_err(|bad| anyhow!("the flow's `{}`: {}", bad.key, bad.message))?;
    Ok(Given::Sheet(Box::new(sheet)))
}

/// The object that a value is, or those that it lists.
fn objects(value: &mut Json) -> Vec<&mut serde_json::Map<String, Json>> {
    match value {
        Json::Object(object) => vec![object],
        Json::Array(elements) => elements.iter_mut().filter_map(Json::as_object_mut).collect(),
        _ => Vec::new(),
    }
}

fn words(key: &str, value: &Json) -> anyhow::Result<Vec<String>> {
    Ok(match value {
        Json::String(text) => vec![text.clone()],
        Json::Number(number) => vec![number.to_string()],
        Json::Bool(truth) => vec![truth.to_string()],
        Json::Array(elements) => {
            elements.iter().map(|element| words(key, element)).collect::<anyhow::Result<Vec<_>>>()?.concat()
        }
        Json::Null | Json::Object(_) => bail!("the flow's `{key}` is neither a text, a number nor a list of these"),
    })
}

impl Given {
    fn observation<'a>(&'a self, host: &'a Host, now: Timestamp) -> Observation<'a> {
        match self {
            Self::Sheet(sheet) => sheet.observation(host, now),
            Self::Delta(delta) => Observation {
                key: &delta.key,
                direction: delta.direction,
                attribution: &delta.attribution,
                name: delta.name.as_deref(),
                place: delta.place.as_deref(),
                application: delta.application,
                interface: delta.interface.as_deref(),
                totals: &delta.counters,
                state: delta.state,
                first: delta.first,
                now,
                dns: delta.question.as_deref(),
                host,
            },
        }
    }
}

fn write(out: &mut impl Write, rule: &Rule, explanation: &Explanation, seen: &Observation<'_>) -> anyhow::Result<()> {
    write_line(out, &explanation.condition, 0)?;
    for exception in &explanation.exceptions {
        let verdict = exception.holds && exception.idle.is_none();
        let remark = match (exception.holds, exception.idle) {
            (false, _) => "does not apply".to_owned(),
            (true, Some(idle)) => format!("would apply, but {idle}"),
            (true, None) if exception.has_budget => "hides this flow, up to its budget".to_owned(),
            (true, None) => "hides this flow".to_owned(),
        };
        writeln!(out, "{} exception {}: {remark}", sign(!verdict), terminal::escape(&exception.name))?;
    }
    if !explanation.in_force {
        writeln!(out, "{} active: not at this time", sign(false))?;
    }
    let group: Vec<String> = explanation
        .group
        .iter()
        .map(|(field, value)| format!("{field}={}", crate::escape::one_line(value.to_string())))
        .collect();
    let group = if group.is_empty() { "the whole host".to_owned() } else { group.join(" ") };
    let bold = Style::new().bold();
    if !explanation.counts {
        writeln!(out, "\n{bold}the flow does not count for `{}`{bold:#}", rule.metadata.id)?;
        return Ok(());
    }
    writeln!(out, "\n{bold}the flow counts for `{}`{bold:#}, for the group {group}", rule.metadata.id)?;
    if !explanation.in_force {
        writeln!(out, "  its windows take it in, but it cannot fire at this time")?;
    }
    match &rule.trigger {
        Trigger::Each => writeln!(out, "  it fires at every new flow")?,
        Trigger::When(when) => {
            writeln!(out, "  it fires when for this group")?;
            for clause in &when.all {
                write_clause(out, clause, seen, 2)?;
            }
        }
        Trigger::FirstSeen(first) => {
            let of: Vec<&str> = first.of.iter().map(|field| field.name()).collect();
            writeln!(out, "  it fires when {} was not seen for {}", of.join(", "), duration(first.lookback))?;
            if let Some(min) = &first.min {
                write_clause(out, &Clause::Threshold(min.clone()), seen, 2)?;
            }
        }
        Trigger::Baseline(baseline) => writeln!(
            out,
            "  it fires when {} in {} is {} deviations above the group's habit",
            baseline.metric,
            duration(baseline.bucket),
            baseline.above
        )?,
        Trigger::Budget(budget) => writeln!(out, "  it fires when {} reaches its quota", budget.metric)?,
    }
    Ok(())
}

fn write_line(out: &mut impl Write, line: &Line, depth: usize) -> std::io::Result<()> {
    let pad = "  ".repeat(depth);
    let value = match (&line.value, line.is_test) {
        (Some(value), _) => format!("   (it is {})", clip(&crate::escape::one_line(value.to_string()))),
        (None, true) => "   (the flow has none)".to_owned(),
        (None, false) => String::new(),
    };
    writeln!(out, "{} {pad}{}{value}", sign(line.holds), terminal::escape(&line.text))?;
    line.parts.iter().try_for_each(|part| write_line(out, part, depth + 1))
}

/// A condition of the trigger, and how much of it this flow is.
fn write_clause(out: &mut impl Write, clause: &Clause, seen: &Observation<'_>, depth: usize) -> std::io::Result<()> {
    let pad = "  ".repeat(depth);
    match clause {
        Clause::Threshold(threshold) => {
            let Threshold { metric, window, comparison, .. } = threshold;
            let limit = Scale::of_metric(metric).literal(comparison.limit());
            let own = match own(metric, seen) {
                Some(value) => format!("   (this flow: {})", Scale::of_metric(metric).literal(value)),
                None => String::new(),
            };
            writeln!(out, "{pad}{metric} {} {limit} in {}{own}", comparison.sign(), duration(*window))
        }
        Clause::Any(inner) | Clause::All(inner) => {
            let word = if matches!(clause, Clause::Any(_)) { "any of" } else { "all of" };
            writeln!(out, "{pad}{word}")?;
            inner.iter().try_for_each(|clause| write_clause(out, clause, seen, depth + 1))
        }
        Clause::Spike(spike) => writeln!(
            out,
            "{pad}{} in {} {} {} times that of {} before",
            spike.metric,
            duration(spike.window),
            spike.comparison.sign(),
            spike.comparison.limit().as_f64(),
            duration(spike.offset)
        ),
    }
}

/// What this flow alone adds to a sum.
fn own(metric: &Metric, seen: &Observation<'_>) -> Option<Quantity> {
    let Metric::Sum(sum) = metric else { return None };
    let totals = seen.totals;
    let count = match sum {
        Sum::BytesOut => totals.bytes_out.0,
        Sum::BytesIn => totals.bytes_in.0,
        Sum::BytesTotal => totals.bytes_out.0 + totals.bytes_in.0,
        Sum::PayloadOut => totals.payload_out.0,
        Sum::PayloadIn => totals.payload_in.0,
        Sum::PayloadTotal => totals.payload_out.0 + totals.payload_in.0,
        Sum::PacketsOut => totals.packets_out.0,
        Sum::PacketsIn => totals.packets_in.0,
        Sum::PacketsTotal => totals.packets_out.0 + totals.packets_in.0,
    };
    Some(Quantity::Count(count))
}

fn sign(holds: bool) -> String {
    let (word, colour) = if holds { ("PASS", AnsiColor::Green) } else { ("FAIL", AnsiColor::Red) };
    let style = colour.on_default();
    format!("{style}{word}{style:#}")
}

fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(MAX_VALUE).collect();
    if clipped.len() < text.len() {
        clipped.push_str("...");
    }
    clipped
}

/// Keys of `egret flows --output json` that say nothing that a rule looks at.
const OF_WHOLE_FLOWS: &[&str] = &["initiator", "last", "end_reason"];
const MAX_VALUE: usize = 120;
