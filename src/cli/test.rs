//! `egret test`: the unit tests of rules, in virtual time.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use crate::cli::exit::Exit;
use crate::cli::terminal;
use crate::config::{rule_files, shipped};
use crate::rule::Plan;
use crate::rule::catalogue;
use crate::rule::compile::{Compiled, compile};
use crate::rule::diagnose::{Diagnostic, Report};
use crate::rule::render::{Colour, Format, full_one, render, xml};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::rehearsal::{self, Outcome, Shown};

/// What `egret test` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rule files and folders; without any, the rules that ship
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Run only tests whose name or rules have this in them
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Say what no test shows: rules that never fired or never kept silent, exceptions never used, conditions that
    /// never decided alone
    #[arg(long)]
    coverage: bool,
    /// Fail below this coverage in percent
    #[arg(long, value_name = "PERCENT")]
    min_coverage: Option<f64>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    output: OutputName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputName {
    /// For people
    Text,
    /// One JSON object a line
    Json,
    /// JUnit XML
    Junit,
    /// GitHub workflow commands
    Github,
}

/// Runs the tests.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let sources = if arguments.paths.is_empty() { shipped::sources() } else { rule_files::read(&arguments.paths)? };
    let compiled = compile(sources, &rule_files::options(SystemClock::start().wall(), None));
    if compiled.report.has_errors() {
        anstream::stderr().write_all(render(&compiled.report, Format::Full, Colour::Styled, 50).as_bytes())?;
        anyhow::bail!("the rules cannot be used");
    }
    let wanted = |case: &crate::rule::case::Case| {
        arguments
            .filter
            .as_deref()
            .is_none_or(|text| case.name.contains(text) || case.rules.iter().any(|rule| rule.contains(text)))
    };
    let mut shown = Shown::default();
    let mut report = Report::new(compiled.report.sources.clone());
    report.totals.files = compiled.report.totals.files;
    let mut outcomes = Vec::new();
    for case in compiled.cases.iter().filter(|case| wanted(case)) {
        let outcome = rehearsal::run(case, &compiled.rules);
        for failure in &outcome.failures {
            let message = format!("test \"{}\" failed: {}", outcome.name, failure.message);
            report.push(Diagnostic::new(&catalogue::TEST_FAILED, failure.span, message));
        }
        shown.fired.extend(outcome.shown.fired.iter().cloned());
        shown.silent.extend(outcome.shown.silent.iter().cloned());
        shown.exceptions.extend(outcome.shown.exceptions.iter().cloned());
        shown.decisive.extend(outcome.shown.decisive.iter().cloned());
        outcomes.push(outcome);
    }
    report.sort();
    let coverage = Coverage::of(&compiled, &shown);
    print(arguments, &outcomes, &report, &coverage)?;
    let failed = outcomes.iter().any(|outcome| !outcome.failures.is_empty());
    let uncovered = arguments.min_coverage.is_some_and(|least| coverage.percent() < least);
    if uncovered {
        terminal::error(&format!("coverage is {:.1} %", coverage.percent()));
    }
    if outcomes.is_empty() {
        terminal::warning("there is no test here");
    }
    Ok(if failed || uncovered { Exit::Findings } else { Exit::Fine })
}

/// Every test is a case; coverage that was asked for and is not reached is one more.
fn junit(outcomes: &[Outcome], report: &Report, coverage: &Coverage, arguments: &Arguments) -> String {
    let lacking = arguments.min_coverage.is_some_and(|least| coverage.percent() < least);
    let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count() + usize::from(lacking);
    let tests = outcomes.len() + usize::from(arguments.min_coverage.is_some());
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text.push_str(&format!(
        "<testsuites>\n  <testsuite name=\"egret test\" tests=\"{tests}\" failures=\"{failed}\">\n"
    ));
    let mut case = |class: &str, name: &str, failures: Vec<(String, String)>| {
        let opened = format!("    <testcase classname=\"{}\" name=\"{}\"", xml(class), xml(name));
        if failures.is_empty() {
            text.push_str(&format!("{opened}/>\n"));
            return;
        }
        text.push_str(&format!("{opened}>\n"));
        for (message, body) in failures {
            text.push_str(&format!("      <failure message=\"{}\">{}</failure>\n", xml(&message), xml(&body)));
        }
        text.push_str("    </testcase>\n");
    };
    for outcome in outcomes {
        let failures = outcome.failures.iter().map(|failure| {
            let place = format!("{}:{}:{}", report.path(failure.span), failure.span.line, failure.span.column);
            (failure.message.clone(), format!("{place}: {}", failure.message))
        });
        case(report.path(outcome.span), &outcome.name, failures.collect());
    }
    if let Some(least) = arguments.min_coverage {
        let message = format!("coverage is {:.1} %", coverage.percent());
        let failures = if lacking { vec![(message, coverage.missing.join("\n"))] } else { Vec::new() };
        case("coverage", &format!("at least {least} %"), failures);
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// What the tests show, of all that they could show.
struct Coverage {
    points: usize,
    missing: Vec<String>,
}

impl Coverage {
    fn of(compiled: &Compiled, shown: &Shown) -> Self {
        let mut coverage = Self { points: 0, missing: Vec::new() };
        for rule in &compiled.rules.rules {
            let id = &rule.metadata.id;
            coverage.point(shown.fired.contains(id), || format!("no test makes `{id}` fire"));
            coverage.point(shown.silent.contains(id), || format!("no test shows `{id}` keeping silent"));
            let names: BTreeSet<&Arc<str>> = rule.exceptions.iter().map(|exception| &exception.name).collect();
            for name in names {
                let used = shown.exceptions.contains(&(Arc::clone(id), Arc::clone(name)));
                coverage.point(used, || format!("no test uses the exception `{name}` of `{id}`"));
            }
            for (place, leaf) in Plan::of(rule, Duration::from_secs(1)).leaves().into_iter().enumerate() {
                let decisive = shown.decisive.contains(&(Arc::clone(id), place));
                let does = if leaf.is_alternative { "makes" } else { "keeps" };
                let what = if leaf.is_alternative { "fire" } else { "silent" };
                coverage.point(decisive, || format!("in no test `{}` alone {does} `{id}` {what}", leaf.text));
            }
        }
        coverage
    }

    fn point(&mut self, shown: bool, missing: impl FnOnce() -> String) {
        self.points += 1;
        if !shown {
            self.missing.push(missing());
        }
    }

    fn percent(&self) -> f64 {
        if self.points == 0 { 100.0 } else { 100.0 * (self.points - self.missing.len()) as f64 / self.points as f64 }
    }
}

fn print(arguments: &Arguments, outcomes: &[Outcome], report: &Report, coverage: &Coverage) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
    match arguments.output {
        OutputName::Text => {
            for found in &report.diagnostics {
                writeln!(out, "{}\n", full_one(report, found, Colour::Styled))?;
            }
            writeln!(out, "{} tests passed, {failed} failed", outcomes.len() - failed)?;
            if arguments.coverage || arguments.min_coverage.is_some() {
                for missing in &coverage.missing {
                    writeln!(out, "not covered: {missing}")?;
                }
                writeln!(out, "coverage: {:.1} % of {} points", coverage.percent(), coverage.points)?;
            }
        }
        OutputName::Json => {
            for outcome in outcomes {
                let failures: Vec<_> = outcome
                    .failures
                    .iter()
                    .map(|failure| json!({ "file": report.path(failure.span), "line": failure.span.line, "message": failure.message }))
                    .collect();
                writeln!(
                    out,
                    "{}",
                    json!({
                        "test": outcome.name,
                        "passed": outcome.failures.is_empty(),
                        "alerts": outcome.fired,
                        "failures": failures,
                    })
                )?;
            }
            writeln!(
                out,
                "{}",
                json!({ "summary": {
                    "tests": outcomes.len(),
                    "failed": failed,
                    "coverage": coverage.percent(),
                    "not_covered": coverage.missing,
                }})
            )?;
        }
        OutputName::Junit => write!(out, "{}", junit(outcomes, report, coverage, arguments))?,
        OutputName::Github => write!(out, "{}", render(report, Format::Github, Colour::Plain, usize::MAX))?,
    }
    Ok(())
}
