//! `egret rules`: what is loaded, what a rule says, and what it costs.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::cli::args::OutputFormat;
use crate::cli::exit::Exit;
use crate::cli::terminal;
use crate::config::{RuleSource, Settings, rule_files, shipped};
use crate::rule::compile::{Compiled, compile};
use crate::rule::cost::Cost;
use crate::rule::diagnose::nearest;
use crate::rule::yaml::{Node, Yaml};
use crate::rule::{Rule, Trigger};
use crate::runtime::clock::{Clock, SystemClock};

/// What `egret rules` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to do with the rules.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the rules
    List(Common),
    /// Show one rule, defaults and overrides applied
    Show(ShowArguments),
    /// Say what each rule can cost in memory and time
    Cost(Common),
    /// Draw which rules use which lists and macros (Graphviz)
    Graph(Common),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Rule files and folders; without any, the rules that the configuration names
    #[arg(long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, clap::Args)]
struct ShowArguments {
    /// The rule's id
    #[arg(value_name = "ID")]
    id: String,
    /// Say for each value the file and line that set it
    #[arg(long)]
    resolved: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.command {
        Command::List(common) => list(common),
        Command::Show(arguments) => show(arguments),
        Command::Cost(common) => cost(common),
        Command::Graph(common) => graph(common),
    }
}

fn load(common: &Common) -> anyhow::Result<Compiled> {
    let source = if common.rules.is_empty() {
        Settings::load(common.config.as_deref())?.rules
    } else {
        RuleSource::Paths(common.rules.clone())
    };
    let sources = match &source {
        RuleSource::Shipped => shipped::sources(),
        RuleSource::Paths(paths) => rule_files::read(paths)?,
    };
    let compiled = compile(sources, &rule_files::options(SystemClock::start().wall(), None));
    if compiled.report.has_errors() {
        terminal::warning(&crate::rule::render::summary(&compiled.report));
    }
    Ok(compiled)
}

fn list(common: &Common) -> anyhow::Result<Exit> {
    let compiled = load(common)?;
    let mut out = anstream::stdout().lock();
    let width = compiled.written.keys().map(String::len).max().unwrap_or(0);
    for (id, written) in &compiled.written {
        let rule = compiled.rules.rules.iter().find(|rule| *rule.metadata.id == **id);
        let place = place(&compiled, written.node.child("id").unwrap_or(&written.node));
        match (common.output, rule) {
            (OutputFormat::Json, Some(rule)) => writeln!(
                out,
                "{}",
                json!({
                    "id": id,
                    "title": rule.metadata.title,
                    "severity": rule.metadata.severity,
                    "trigger": trigger_name(&rule.trigger),
                    "attack": rule.metadata.attack,
                    "tags": rule.metadata.tags,
                    "status": rule.metadata.status,
                    "runs": true,
                    "place": place,
                })
            )?,
            (OutputFormat::Json, None) => writeln!(out, "{}", json!({ "id": id, "runs": false, "place": place }))?,
            (OutputFormat::Text, Some(rule)) => writeln!(
                out,
                "{id:width$}  {:8}  {:10}  {}",
                rule.metadata.severity.name(),
                trigger_name(&rule.trigger),
                rule.metadata.title
            )?,
            (OutputFormat::Text, None) => writeln!(out, "{id:width$}  {:8}  {:10}  {place}", "-", "not run")?,
        }
    }
    Ok(Exit::Fine)
}

fn show(arguments: &ShowArguments) -> anyhow::Result<Exit> {
    let compiled = load(&arguments.common)?;
    let Some(written) = compiled.written.get(&arguments.id) else {
        let meant = nearest(&arguments.id, compiled.written.keys().map(String::as_str));
        let meant = meant.map(|id| format!("; did you mean `{id}`?")).unwrap_or_default();
        anyhow::bail!("there is no rule `{}`{meant}", arguments.id);
    };
    let mut lines = Vec::new();
    let place = |node: &Node| if arguments.resolved { place(&compiled, node) } else { String::new() };
    yaml_lines(&written.node, 0, &place, &mut lines);
    let rule = compiled.rules.rules.iter().find(|rule| *rule.metadata.id == *arguments.id);
    let mut out = anstream::stdout().lock();
    if arguments.common.output == OutputFormat::Json {
        let object = json!({
            "id": arguments.id,
            "runs": written.runs,
            "fingerprint": rule.map(|rule| format!("{:016x}", rule.fingerprint)),
            "rule": lines.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join("\n"),
            "places": lines.iter().map(|(_, place)| place.as_str()).collect::<Vec<_>>(),
        });
        writeln!(out, "{object}")?;
        return Ok(Exit::Fine);
    }
    let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0).min(80);
    for (text, place) in &lines {
        if place.is_empty() { writeln!(out, "{text}")? } else { writeln!(out, "{text:width$}  # {place}")? }
    }
    if let Some(rule) = rule {
        writeln!(out)?;
        for line in Cost::of(rule).explain(rule) {
            writeln!(out, "# {line}")?;
        }
    }
    Ok(Exit::Fine)
}

fn cost(common: &Common) -> anyhow::Result<Exit> {
    let compiled = load(common)?;
    let mut out = anstream::stdout().lock();
    let mut costs: Vec<(&Rule, Cost)> = compiled.rules.rules.iter().map(|rule| (&**rule, Cost::of(rule))).collect();
    costs.sort_by(|(a, x), (b, y)| y.max_bytes().cmp(&x.max_bytes()).then_with(|| a.metadata.id.cmp(&b.metadata.id)));
    if common.output == OutputFormat::Text {
        writeln!(
            out,
            "{:40} {:>10} {:>8} {:>10} {:>7} {:>9} {:>8}",
            "rule", "B/group", "groups", "at most", "buckets", "patterns", "ns/flow"
        )?;
    }
    let mut total = 0;
    for (rule, cost) in &costs {
        total += cost.max_bytes();
        match common.output {
            OutputFormat::Json => writeln!(
                out,
                "{}",
                json!({
                    "id": rule.metadata.id,
                    "bytes_per_group": cost.bytes_per_group,
                    "max_groups": cost.max_groups,
                    "max_bytes": cost.max_bytes(),
                    "buckets": cost.buckets,
                    "regexes": cost.regexes,
                    "tests": cost.tests,
                    "nanoseconds_per_flow": cost.nanoseconds_per_flow,
                })
            )?,
            OutputFormat::Text => writeln!(
                out,
                "{:40} {:>10} {:>8} {:>10} {:>7} {:>9} {:>8}",
                rule.metadata.id,
                cost.bytes_per_group,
                cost.max_groups,
                crate::units::Bytes(cost.max_bytes()).to_string(),
                cost.buckets,
                format!("{}/{}", cost.regexes, cost.tests),
                cost.nanoseconds_per_flow,
            )?,
        }
    }
    if common.output == OutputFormat::Text {
        writeln!(out, "\nall groups of all rules together: at most {}", crate::units::Bytes(total))?;
        writeln!(out, "patterns: regular expressions / tests; a flow is tested once, when its owner is known")?;
    }
    Ok(Exit::Fine)
}

fn graph(common: &Common) -> anyhow::Result<Exit> {
    let compiled = load(common)?;
    let mut out = anstream::stdout().lock();
    match common.output {
        OutputFormat::Json => {
            for (user, used) in &compiled.uses {
                writeln!(out, "{}", json!({ "rule": user, "uses": used }))?;
            }
        }
        OutputFormat::Text => {
            writeln!(out, "digraph rules {{\n  rankdir=LR;\n  node [shape=box];")?;
            for id in compiled.written.keys() {
                writeln!(out, "  {};", quote(id))?;
            }
            for (user, used) in &compiled.uses {
                writeln!(out, "  {} -> {};", quote(user), quote(used))?;
            }
            writeln!(out, "}}")?;
        }
    }
    Ok(Exit::Fine)
}

fn quote(text: &str) -> String {
    crate::rule::yaml::quoted(text)
}

fn place(compiled: &Compiled, node: &Node) -> String {
    format!("{}:{}", compiled.report.path(node.span), node.span.line)
}

fn trigger_name(trigger: &Trigger) -> &'static str {
    match trigger {
        Trigger::When(_) => "when",
        Trigger::Each => "each",
        Trigger::FirstSeen(_) => "first_seen",
        Trigger::Baseline(_) => "baseline",
        Trigger::Budget(_) => "budget",
    }
}

/// The tree as YAML, one value a line, each with its place.
fn yaml_lines(node: &Node, indent: usize, place: &dyn Fn(&Node) -> String, lines: &mut Vec<(String, String)>) {
    let pad = " ".repeat(indent);
    match &node.value {
        Yaml::Scalar { .. } => lines.push((format!("{pad}{}", scalar(node)), place(node))),
        Yaml::Sequence(elements) => {
            for element in elements {
                if let Yaml::Scalar { .. } = element.value {
                    lines.push((format!("{pad}- {}", scalar(element)), place(element)));
                    continue;
                }
                let start = lines.len();
                yaml_lines(element, indent + 2, place, lines);
                if let Some((first, _)) = lines.get_mut(start) {
                    first.replace_range(indent..indent + 2, "- ");
                }
            }
        }
        Yaml::Mapping(entries) => {
            for entry in entries {
                let key = &entry.key.text;
                match &entry.value.value {
                    Yaml::Scalar { .. } => {
                        lines.push((format!("{pad}{key}: {}", scalar(&entry.value)), place(&entry.value)))
                    }
                    Yaml::Sequence(elements) if elements.is_empty() => {
                        lines.push((format!("{pad}{key}: []"), place(&entry.value)))
                    }
                    Yaml::Mapping(entries) if entries.is_empty() => {
                        lines.push((format!("{pad}{key}: {{}}"), place(&entry.value)))
                    }
                    _ => {
                        lines.push((format!("{pad}{key}:"), String::new()));
                        yaml_lines(&entry.value, indent + 2, place, lines);
                    }
                }
            }
        }
    }
}

fn scalar(node: &Node) -> String {
    let Yaml::Scalar { text, plain } = &node.value else { return String::new() };
    let simple = *plain && !text.is_empty() && !text.contains('\n');
    if simple { text.clone() } else { serde_json::Value::from(text.as_str()).to_string() }
}
