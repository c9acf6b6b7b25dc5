//! `egret replay`: captures through the rules, as if they were live.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::alert::{DocumentKind, Notification, Redactor};
use crate::cli::args::OutputFormat;
use crate::cli::exit::Exit;
use crate::cli::input::{self, PlaceArguments};
use crate::cli::terminal;
use crate::config::{HostFile, this_host};
use crate::dispatch::Origin;
use crate::dispatch::encode::{ecs_json, json as encode_json, ocsf, text};
use crate::engine::{Companions, Engine, Output, Owners, Records, Settings};
use crate::runtime::offline::Offline;

/// What `egret replay` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Capture files, pcap or pcapng; `-` is standard input
    #[arg(value_name = "CAPTURE", required = true)]
    captures: Vec<PathBuf>,
    /// Rule file or folder; without one, the rules that ship
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Owners of flows, one JSON object a line
    #[arg(long, value_name = "FILE")]
    owners: Option<PathBuf>,
    /// Network that is this host's own
    #[arg(long, value_name = "CIDR")]
    local: Vec<ipnet::IpNet>,
    #[command(flatten)]
    places: PlaceArguments,
    /// Print the flows of each alert after it, one JSON object a line
    #[arg(long, value_enum, value_name = "FORMAT")]
    emit_flows: Option<FlowFormat>,
    /// How to print the alerts
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// A form for flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FlowFormat {
    /// Documents of the Elastic Common Schema.
    Ecs,
    /// Network Activity events of the Open Cybersecurity Schema Framework.
    Ocsf,
}

/// Replays the captures and prints the alerts.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let rules = input::rules(&input::rule_source(&arguments.rules), None)?;
    let owners = arguments.owners.as_deref().map(input::declared_owners).transpose()?;
    let host = this_host(&HostFile::default());
    let settings = Settings {
        local: input::named(&arguments.local),
        host: Arc::new(host.clone()),
        owners: Owners::Given,
        records: Records::Off,
        companions: arguments.emit_flows.map_or(Companions::Off, |_| Companions::On),
        ..Settings::default()
    };
    let mut printer = Printer::new(arguments.output, Origin { host, pid: std::process::id() })?;
    printer.flows = arguments.emit_flows;
    let started = Instant::now();
    let mut engine = Engine::new(settings, rules);
    arguments.places.apply(&mut engine)?;
    let mut run = Offline::new(engine, owners);
    let mut exit = Exit::Fine;
    for path in &arguments.captures {
        let progress = terminal::progress(input::length(path), "replaying");
        let damage = run.read(path, &progress, &mut |output| printer.perform(output))?;
        progress.finish_and_clear();
        exit = input::worse(exit, input::say_damage(path, damage.as_ref()));
    }
    run.finish(&mut |output| printer.perform(output))?;
    printer.summary(&run, started)?;
    Ok(exit)
}

/// Prints what comes of the rules, and counts it.
pub(super) struct Printer {
    format: OutputFormat,
    origin: Origin,
    palette: text::Palette,
    redactor: Redactor,
    flows: Option<FlowFormat>,
    pub(super) out: BufWriter<io::Stdout>,
    pub(super) alerts: u64,
    pub(super) resolved: u64,
    /// How often each rule fired.
    pub(super) fired: BTreeMap<Arc<str>, u64>,
}

impl Printer {
    pub(super) fn new(format: OutputFormat, origin: Origin) -> anyhow::Result<Self> {
        let palette = match anstream::AutoStream::choice(&io::stdout()) {
            anstream::ColorChoice::Never => text::Palette::Plain,
            _ => text::Palette::Coloured,
        };
        // A replay is shown and kept like any alert: without the secrets of command lines.
        let redactor = Redactor::new(&[])?;
        let out = BufWriter::new(io::stdout());
        Ok(Self { format, origin, palette, redactor, flows: None, out, alerts: 0, resolved: 0, fired: BTreeMap::new() })
    }

    /// Prints a notification and counts it.
    pub(super) fn perform(&mut self, output: Output) -> anyhow::Result<()> {
        let Output::Notification(notification) = output else { return Ok(()) };
        self.count(&notification);
        let notification = self.redactor.redact(Arc::new(notification));
        match self.format {
            OutputFormat::Json => {
                self.out.write_all(&encode_json::encode_one(&notification, &self.origin, None))?;
                self.out.write_all(b"\n")?;
            }
            OutputFormat::Text => {
                writeln!(self.out, "{}", text::encode_one(&notification, self.palette))?;
            }
        }
        self.print_flows(&notification)?;
        if io::stdout().is_terminal() {
            self.out.flush()?;
        }
        Ok(())
    }

    fn print_flows(&mut self, notification: &Notification) -> anyhow::Result<()> {
        let (Some(format), Some(alert)) = (self.flows, &notification.alert) else { return Ok(()) };
        for flow in &alert.flows {
            let flow = Notification::of_flow(alert, flow);
            let document = match format {
                FlowFormat::Ecs => ecs_json::encode(&flow, &self.origin),
                FlowFormat::Ocsf => ocsf::encode(&flow, &self.origin, None, None),
            };
            self.out.write_all(&document)?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Counts a notification.
    pub(super) fn count(&mut self, notification: &Notification) {
        match notification.kind {
            DocumentKind::Firing => {
                self.alerts += 1;
                if let Some(alert) = &notification.alert {
                    *self.fired.entry(Arc::clone(&alert.rule.metadata.id)).or_default() += 1;
                }
            }
            DocumentKind::Resolved => self.resolved += 1,
            _ => {}
        }
    }

    fn summary(&mut self, run: &Offline, started: Instant) -> anyhow::Result<()> {
        let (counts, statistics) = (run.counts(), run.engine().statistics());
        let seconds = started.elapsed().as_secs_f64();
        match self.format {
            OutputFormat::Json => {
                let summary = json!({ "summary": {
                    "frames": counts.frames,
                    "frames_without_ip": counts.errors.total(),
                    "ip_packets": counts.ip_packets,
                    "flows": statistics.flows.total,
                    "bytes": counts.ip_bytes,
                    "alerts": self.alerts,
                    "resolved": self.resolved,
                    "losses": statistics.losses,
                    "first": counts.first,
                    "last": counts.last,
                    "seconds": (seconds * 1e6).round() / 1e6,
                }});
                writeln!(self.out, "{summary}")?;
            }
            OutputFormat::Text => {
                writeln!(
                    self.out,
                    "{} frames, {} flows, {}: {} {} fired, {} resolved ({seconds:.2} s)",
                    counts.frames,
                    statistics.flows.total,
                    crate::units::Bytes(counts.ip_bytes),
                    self.alerts,
                    if self.alerts == 1 { "alert" } else { "alerts" },
                    self.resolved,
                )?;
            }
        }
        self.out.flush()?;
        Ok(())
    }
}
