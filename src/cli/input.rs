//! What several commands read: captures, owners, rules, the configuration.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use ipnet::IpNet;

use crate::attribution::DeclaredOwners;
use crate::capture::offline::Damage;
use crate::cli::exit::Exit;
use crate::cli::terminal;
use crate::config::{ConfigError, RuleSource, Settings, SourceKind, host_addresses, rule_files, shipped};
use crate::engine::{Companions, Descriptions, Engine, Owners, Settings as EngineSettings};
use crate::flow::LocalAddresses;
use crate::resolve::{Describer, ResolverSettings, Service, Translated};
use crate::rule::RuleSet;
use crate::rule::compile::compile;
use crate::rule::diagnose::{Level, Report};
use crate::rule::render::{Colour, Format, render};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::live::Live;
use crate::runtime::load;
use crate::runtime::source::{KernelSettings, Source};
use crate::runtime::tap::Tap;

/// Findings that are shown in full.
const MAX_SHOWN: usize = 50;

/// The length of a file for the progress bar; 0 where it has none, such as standard input.
pub fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Reads an owners file, or says everything that is wrong with it.
pub fn declared_owners(path: &Path) -> anyhow::Result<DeclaredOwners> {
    let content = std::fs::read(path).with_context(|| format!("cannot read owners from `{}`", path.display()))?;
    DeclaredOwners::parse(&content).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| format!("{}: {error}", path.display())).collect();
        anyhow!("owners file is not valid\n{}", lines.join("\n"))
    })
}

/// Says that a capture is damaged; the exit code tells it as well.
pub fn say_damage(path: &Path, damage: Option<&Damage>) -> Exit {
    match damage {
        None => Exit::Fine,
        Some(damage) => {
            terminal::error(&format!("{}: {}", path.display(), chain(damage)));
            Exit::Findings
        }
    }
}

/// The worse of two ends.
pub fn worse(a: Exit, b: Exit) -> Exit {
    if (a as u8) < (b as u8) { b } else { a }
}

/// Rules, and the files of lists whose changes are to be taken at once.
#[derive(Debug)]
pub struct LoadedRules {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// Files of lists with `reload: true`.
    pub list_files: BTreeSet<PathBuf>,
}

/// The rules of a source, with every finding said on standard error.
///
/// # Errors
/// Where files cannot be read, and where a rule cannot be used.
pub fn rules(source: &RuleSource, outputs: Option<BTreeSet<String>>) -> anyhow::Result<Arc<RuleSet>> {
    Ok(rules_with_lists(source, outputs)?.rules)
}

/// The same, for whoever follows the lists.
///
/// # Errors
/// Where files cannot be read, and where a rule cannot be used.
pub fn rules_with_lists(source: &RuleSource, outputs: Option<BTreeSet<String>>) -> anyhow::Result<LoadedRules> {
    let sources = match source {
        RuleSource::Shipped => shipped::sources(),
        RuleSource::Paths(paths) => rule_files::read(paths)?,
    };
    let now = SystemClock::start().wall();
    let compiled = compile(sources, &rule_files::options(now, outputs));
    if !compiled.report.diagnostics.is_empty() {
        say_report(&compiled.report);
    }
    let mistake = compiled.report.diagnostics.iter().find(|finding| finding.level == Level::Error);
    if let Some(first) = mistake {
        return Err(anyhow!(first.message.clone()).context("the rules cannot be used"));
    }
    let list_files = compiled.list_files.iter().map(PathBuf::from).collect();
    Ok(LoadedRules { rules: Arc::new(compiled.rules), list_files })
}

/// The source that `--rules` names, or the shipped rules.
pub fn rule_source(paths: &[PathBuf]) -> RuleSource {
    if paths.is_empty() { RuleSource::Shipped } else { RuleSource::Paths(paths.to_vec()) }
}

/// Turns a configuration error into what a command fails with, its findings said in full.
pub fn say_config_error(error: ConfigError) -> anyhow::Error {
    if let ConfigError::Invalid { report, .. } = &error {
        say_report(report);
    }
    error.into()
}

/// Shows a report on standard error.
pub fn say_report(report: &Report) {
    let colour = if std::io::stderr().is_terminal() { Colour::Styled } else { Colour::Plain };
    // Standard error is the last place to say anything: if it is gone, nobody listens.
    let _ = write!(anstream::stderr(), "{}", render(report, Format::Full, colour, MAX_SHOWN));
}

/// The host's own networks: what was named, else nothing is known.
pub fn named(local: &[IpNet]) -> LocalAddresses {
    LocalAddresses::new(local.iter().copied())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// Where addresses are.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PlaceArguments {
    /// MaxMind database of countries or autonomous systems; several are asked in this order
    #[arg(long = "db", value_name = "FILE")]
    pub databases: Vec<PathBuf>,
}

impl PlaceArguments {
    /// Gives the engine the databases.
    ///
    /// # Errors
    /// Where one cannot be read or is corrupt.
    pub fn apply(&self, engine: &mut Engine) -> anyhow::Result<()> {
        engine.replace_places(Arc::new(load::places(&self.databases)?));
        Ok(())
    }
}

/// Which source to watch this host with.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LiveArguments {
    /// Kernel programs, libpcap, or whichever works
    #[arg(long, value_enum, env = "EGRET_SOURCE")]
    pub source: Option<SourceKind>,
    /// Interface to capture on; may be given several times
    #[arg(long = "interface", short = 'i', value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// Filter in libpcap's language
    #[arg(long, value_name = "EXPRESSION")]
    pub filter: Option<String>,
}

impl LiveArguments {
    /// Lets the arguments win over the configuration.
    pub fn apply(&self, settings: &mut Settings) {
        if let Some(source) = self.source {
            settings.source = source;
        }
        if !self.interfaces.is_empty() {
            settings.capture.interfaces.clone_from(&self.interfaces);
        }
        if self.filter.is_some() {
            settings.capture.filter.clone_from(&self.filter);
        }
    }
}

/// What the engine needs to know of this host.
///
/// # Errors
/// Where the host's addresses cannot be listed.
pub fn live_engine(settings: &Settings) -> anyhow::Result<EngineSettings> {
    let mut local = host_addresses().context("cannot list the addresses of this host")?;
    local.extend(&settings.local);
    Ok(EngineSettings {
        local: LocalAddresses::new(local),
        host: Arc::new(settings.host.clone()),
        owners: Owners::Lookup,
        descriptions: Descriptions::Ask,
        max_flows: settings.max_flows,
        max_names: settings.max_names,
        own_pid: Some(std::process::id()),
        companions: companions(settings),
        ..EngineSettings::default()
    })
}

/// Whether an output wants the flows of alerts.
pub fn companions(settings: &Settings) -> Companions {
    if settings.dispatch.wants_flows() { Companions::On } else { Companions::Off }
}

/// Opens the source and wires it to the engine.
///
/// # Errors
/// Where no source can be opened.
pub fn open_live(settings: &Settings, engine: Engine, clock: SystemClock) -> anyhow::Result<Live> {
    let kernel_settings = KernelSettings { packet_sockets: settings.packet_sockets };
    let source = Source::open(settings.source, &settings.capture, kernel_settings, clock)?;
    if let Some(reason) = source.fallback() {
        terminal::warning(&format!("capturing with libpcap, since the kernel source cannot be used: {reason}"));
    }
    // Where a container's own link is captured as well, its translated packets are the same bytes again.
    let translated = if source.sees_interfaces_together() { Translated::Leave } else { Translated::Join };
    let resolver = match source.needs_lookups() {
        true => Some(Service::start(ResolverSettings { translated }).context("cannot look up owners")?),
        false => None,
    };
    let describer = Describer::start(Path::new("/")).context("cannot look up packages and containers")?;
    let tap = (settings.tap && !source.needs_lookups()).then(|| {
        let local = engine.settings().local.clone();
        Tap::new(local.clone(), local.hosts().collect())
    });
    let live = Live::new(engine, source, resolver, describer, clock)
        .with_least_coverage(settings.least_coverage)
        .with_hashes(settings.hash);
    Ok(match tap {
        Some(tap) => live.with_tap(tap),
        None => live,
    })
}
