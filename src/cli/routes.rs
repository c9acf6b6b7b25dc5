//! `egret routes`: who would get an alert, without sending one.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::Value as Json;

use crate::alert::{Alert, DocumentKind, Notification, RuleFacts};
use crate::cli::args::OutputFormat;
use crate::cli::exit::Exit;
use crate::cli::{input, terminal};
use crate::config::Settings;
use crate::dispatch::route::Router;
use crate::rule::{Field, Metadata, Value};
use crate::runtime::clock::{Clock, SystemClock};
use crate::time::Timestamp;

/// What `egret routes` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say which outputs an alert with these labels would reach
    Test {
        /// Configuration file
        #[arg(long, value_name = "FILE", env = "EGRET_CONFIG")]
        config: Option<PathBuf>,
        /// The alert's labels, such as `{"rule":"x","severity":"critical","tags":["bandwidth"],"user":"alice"}`
        #[arg(long, value_name = "JSON")]
        alert: String,
        /// The outputs that it should reach; anything else is a finding
        #[arg(long, value_name = "OUTPUT,...", value_delimiter = ',')]
        expect: Option<Vec<String>>,
        /// At which time (RFC 3339), for routes with hours; now where it is not given
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
}

/// Walks the routing tree of the configuration.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let What::Test { config, alert, expect, at, output } = &arguments.what;
    let settings = Settings::load(config.as_deref()).map_err(input::say_config_error)?;
    let names: Vec<String> = settings.dispatch.outputs.keys().cloned().collect();
    let router = Router::new(&settings.dispatch.routing, &names)?;
    let at = match at {
        Some(at) => at.parse().with_context(|| format!("`{at}` is no point in time such as `2026-05-04T18:00:00Z`"))?,
        None => SystemClock::start().wall(),
    };
    let reached: BTreeSet<String> = router.receivers(&notification(alert)?, at).into_keys().collect();
    let list: Vec<&str> = reached.iter().map(String::as_str).collect();
    match output {
        OutputFormat::Text => writeln!(anstream::stdout().lock(), "{}", list.join(","))?,
        OutputFormat::Json => writeln!(anstream::stdout().lock(), "{}", serde_json::json!({"outputs": list}))?,
    }
    let Some(expect) = expect else { return Ok(Exit::Fine) };
    let expected: BTreeSet<String> = expect.iter().map(|name| name.trim().to_owned()).collect();
    if expected == reached {
        return Ok(Exit::Fine);
    }
    let wanted: Vec<&str> = expected.iter().map(String::as_str).collect();
    terminal::error(&format!("expected {}", wanted.join(",")));
    Ok(Exit::Findings)
}

fn notification(written: &str) -> anyhow::Result<Notification> {
    let labels: serde_json::Map<String, Json> =
        serde_json::from_str(written).context("the alert is no JSON object of labels")?;
    let mut metadata = Metadata::default();
    let mut alert = Alert::default();
    let mut kind = DocumentKind::Firing;
    for (label, value) in &labels {
        let text = || value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
        let list = || match value {
            Json::Array(list) => list.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
            _ => vec![text()],
        };
        match label.as_str() {
            "rule" => metadata.id = text().into(),
            "severity" => metadata.severity = serde_json::from_value(value.clone()).context("severity")?,
            "tags" => metadata.tags = list(),
            "attack" => metadata.attack = list(),
            "pack" => metadata.pack = Some(text()),
            "owner" => metadata.owner = Some(text()),
            "host" => alert.host.name = text().into(),
            "type" => kind = DocumentKind::from_name(&text()).with_context(|| format!("there is no type {value}"))?,
            "state" if text() == "resolved" => kind = DocumentKind::Resolved,
            "state" => {}
            other => match Field::from_name(other) {
                Some(field) => alert.group.push((field.name(), Value::Text(text().into()))),
                None => bail!("`{other}` is no label"),
            },
        }
    }
    alert.rule = RuleFacts { metadata: Arc::new(metadata), ..RuleFacts::default() };
    Ok(Notification::of_alert(kind, Timestamp::EPOCH, alert))
}
