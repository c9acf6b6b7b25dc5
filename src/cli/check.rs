//! `egret check`: everything that is wrong with rules and configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;

use crate::cli::exit::Exit;
use crate::cli::terminal;
use crate::config::{
    ConfigError, DEFAULT_CONFIG_PATH, RuleSource, Settings, missing_fields, read, rule_files, shipped,
};
use crate::rule::compile::{Lint, Options, compile};
use crate::rule::diagnose::{Fix, Level, Report, Source};
use crate::rule::render::{Colour, Format, render, summary};
use crate::runtime::clock::{Clock, SystemClock};

/// What `egret check` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rule files and folders; without any, the rules that the configuration names
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Check this configuration, too, and know its outputs
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print what was found
    #[arg(long, value_name = "FORMAT", default_value = "full")]
    format: FormatName,
    /// Short for `--format ndjson`
    #[arg(long, value_name = "FORMAT", conflicts_with = "format")]
    output: Option<OutputName>,
    /// Fail if anything of this level was found
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    fail_level: LevelName,
    /// Repair what can be repaired without a person looking
    #[arg(long)]
    fix: bool,
    /// Show findings of level info as well
    #[arg(long)]
    info: bool,
    /// Print at most so many findings in full; 0 prints all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// With the lines of the file and advice
    Full,
    /// One line a finding
    Concise,
    /// One JSON document
    Json,
    /// One JSON object a line
    Ndjson,
    /// GitHub workflow commands
    Github,
    /// GitLab code quality
    Gitlab,
    /// SARIF 2.1.0
    Sarif,
    /// JUnit XML
    Junit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputName {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LevelName {
    /// What cannot be used
    Error,
    /// What is probably not meant
    Warning,
    /// Everything
    Info,
}

/// Checks, repairs if asked to, and prints.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut report = check(arguments)?;
    if arguments.fix {
        for _ in 0..MAX_ROUNDS {
            if repair(&report)? == 0 {
                break;
            }
            report = check(arguments)?;
        }
    }
    let fails = match arguments.fail_level {
        LevelName::Error => Level::Error,
        LevelName::Warning => Level::Warning,
        LevelName::Info => Level::Info,
    };
    let failed = report.diagnostics.iter().any(|found| found.level >= fails);
    if !arguments.info && arguments.fail_level != LevelName::Info {
        report.diagnostics.retain(|found| found.level > Level::Info);
    }
    print(arguments, &report)?;
    Ok(if failed { Exit::Findings } else { Exit::Fine })
}

fn check(arguments: &Arguments) -> anyhow::Result<Report> {
    let default = Path::new(DEFAULT_CONFIG_PATH);
    let path = match &arguments.config {
        Some(path) => Some(path.as_path()),
        None if arguments.paths.is_empty() && default.exists() => Some(default),
        None => None,
    };
    let settings = match path.map(|path| Settings::load(Some(path))) {
        None => None,
        Some(Ok(settings)) => Some(settings),
        Some(Err(ConfigError::Invalid { report, .. })) => return Ok(*report),
        Some(Err(error)) => return Err(error.into()),
    };
    let outputs: Option<BTreeSet<String>> =
        settings.as_ref().map(|settings| settings.dispatch.outputs.keys().map(ToString::to_string).collect());
    let sources = if arguments.paths.is_empty() {
        match settings.as_ref().map_or(&RuleSource::Shipped, |settings| &settings.rules) {
            RuleSource::Shipped => shipped::sources(),
            RuleSource::Paths(paths) => rule_files::read(paths)?,
        }
    } else {
        rule_files::read(&arguments.paths)?
    };
    if sources.is_empty() {
        anyhow::bail!("there is no rule file here (`*.yaml`, `*.yml`)");
    }
    let now = SystemClock::start().wall();
    // Whoever checks files without a configuration may write them for other hosts.
    let missing = settings.as_ref().map(missing_fields).unwrap_or_default();
    let options = Options { lint: Lint::On, missing, ..rule_files::options(now, outputs) };
    let mut report = compile(sources, &options).report;
    if let Some(path) = path {
        let content = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        report.merge(read::lint(Source::new(path.display().to_string(), content)));
    }
    Ok(report)
}

fn print(arguments: &Arguments, report: &Report) -> anyhow::Result<()> {
    let format = match arguments.format {
        _ if arguments.output == Some(OutputName::Json) => Format::Ndjson,
        FormatName::Full => Format::Full,
        FormatName::Concise => Format::Concise,
        FormatName::Json => Format::Json,
        FormatName::Ndjson => Format::Ndjson,
        FormatName::Github => Format::Github,
        FormatName::Gitlab => Format::Gitlab,
        FormatName::Sarif => Format::Sarif,
        FormatName::Junit => Format::Junit,
    };
    let limit = if arguments.limit == 0 { usize::MAX } else { arguments.limit };
    // The stream takes the colours out where there is no terminal.
    let text = render(report, format, Colour::Styled, limit);
    anstream::stdout().write_all(text.as_bytes())?;
    if matches!(format, Format::Github) {
        terminal::note(&summary(report));
    }
    Ok(())
}

/// Applies the safe repairs; says how many.
fn repair(report: &Report) -> anyhow::Result<usize> {
    let mut files: BTreeMap<u32, Vec<&Fix>> = BTreeMap::new();
    for fix in report.diagnostics.iter().filter_map(|found| found.fix.as_ref()).filter(|fix| fix.safe) {
        files.entry(fix.span.source).or_default().push(fix);
    }
    let mut count = 0;
    for (source, mut fixes) in files {
        let Some(file) = report.sources.get(source as usize) else { continue };
        if file.damage.is_some() {
            continue;
        }
        let mut text = file.text.to_string();
        // From the end to the start, so that earlier places stay where they are.
        fixes.sort_by_key(|fix| std::cmp::Reverse((fix.span.start, fix.span.end)));
        let mut before = usize::MAX;
        for fix in fixes {
            let (start, end) = (fix.span.start as usize, fix.span.end as usize);
            if end <= before && text.is_char_boundary(start) && text.is_char_boundary(end) {
                text.replace_range(start..end, &fix.replacement);
                before = start;
                count += 1;
            }
        }
        let path = Path::new(&*file.path);
        if path.exists() {
            std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
    }
    Ok(count)
}

/// A repair can uncover a mistake that can be repaired as well.
const MAX_ROUNDS: usize = 4;
