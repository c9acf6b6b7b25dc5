//! `egret run`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tracing::{error, info, warn};

use crate::alert::Ledger;
use crate::cli::exit::Exit;
use crate::cli::input::{self, LiveArguments};
use crate::cli::terminal;
use crate::config::{RuleSource, Settings};
use crate::dispatch::{Context, Dispatcher, Origin};
use crate::engine::{Engine, Output};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::load;
use crate::runtime::socket::ControlSocket;
use crate::runtime::watch::Watch;
use crate::runtime::{control, privilege, watching};
use crate::store::{Store, StoreLimits};
use crate::time::Timestamp;

/// What `egret run` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "EGRET_CONFIG")]
    config: Option<PathBuf>,
    /// Rule file or folder, in place of the configured ones
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Folder for state, in place of the configured one
    #[arg(long, value_name = "DIR", env = "EGRET_STATE_DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    source: LiveArguments,
}

/// How long receivers have to take what is left when the daemon ends.
const LAST_DELIVERIES: Duration = Duration::from_secs(6);

/// Runs until SIGTERM or SIGINT.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let settings = settings(arguments)?;
    let outputs = settings.dispatch.outputs.keys().cloned().collect();
    let rules = input::rules(&settings.rules, Some(outputs))?;
    if let Err(error) = privilege::restrict() {
        warn!(%error, "keeping all privileges");
    }
    let clock = SystemClock::start();
    let (sender, receiver) = control::from_signals().context("cannot handle signals")?;
    let mut engine = Engine::new(input::live_engine(&settings)?, Arc::clone(&rules));
    engine.replace_places(Arc::new(load::places(&settings.databases)?));
    let mut live = input::open_live(&settings, engine, clock)?;
    let origin = Origin { host: settings.host.clone(), pid: std::process::id() };
    let ledger = ledger(&settings, clock.wall());
    let context = Context { origin, clock: Arc::new(move || clock.wall()), ledger };
    let dispatcher = Dispatcher::start(&settings.dispatch, context)?;
    let _socket = socket(&settings, &dispatcher, live.watching());
    let _watch = watch(&settings, sender);
    terminal::note(&format!(
        "watching {} with {}, {} rules, alerts to {}",
        settings.capture.interfaces.join(", "),
        live.source().name(),
        rules.rules.len(),
        settings.dispatch.outputs.keys().cloned().collect::<Vec<_>>().join(", "),
    ));
    live.run(
        &receiver,
        None,
        |engine| reload(engine, &settings),
        |output| {
            if let Output::Notification(notification) = output {
                dispatcher.submit(notification);
            }
        },
    );
    info!("stopping");
    let status = dispatcher.shutdown(LAST_DELIVERIES);
    for (output, status) in status.outputs.iter().filter(|(_, status)| status.given_up() + status.waiting as u64 > 0) {
        error!(output, given_up = status.given_up(), waiting = status.waiting, "not everything was delivered");
    }
    Ok(Exit::Fine)
}

/// Where operators ask. Without it everything works but `egret status` and the like.
fn socket(settings: &Settings, dispatcher: &Dispatcher, watching: watching::Shared) -> Option<ControlSocket> {
    match ControlSocket::start(&settings.state_dir, dispatcher.control(), watching) {
        Ok(socket) => Some(socket),
        Err(error) => {
            warn!(%error, "no control socket: `egret status` and the like do not work");
            None
        }
    }
}

/// The store of the state directory. Without one alerts are delivered all the same; only a crash loses them.
fn ledger(settings: &Settings, now: Timestamp) -> Option<Box<dyn Ledger>> {
    let limits = StoreLimits { max_bytes: settings.dispatch.outbox.max_bytes };
    match Store::open(&settings.state_dir, limits, now) {
        Ok(store) => Some(Box::new(store)),
        Err(error) => {
            let error = anyhow::Error::from(error);
            warn!(error = format!("{error:#}"), "nothing is kept on disk: a crash would lose alerts on their way");
            None
        }
    }
}

fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    let mut settings = Settings::load(arguments.config.as_deref()).map_err(input::say_config_error)?;
    arguments.source.apply(&mut settings);
    if !arguments.rules.is_empty() {
        settings.rules = RuleSource::Paths(arguments.rules.clone());
    }
    if let Some(folder) = &arguments.state_dir {
        settings.state_dir.clone_from(folder);
    }
    Ok(settings)
}

fn watch(settings: &Settings, control: crossbeam_channel::Sender<control::Control>) -> Option<Watch> {
    let mut paths = settings.databases.clone();
    if let RuleSource::Paths(rules) = &settings.rules {
        paths.extend(rules.iter().cloned());
    }
    if paths.is_empty() {
        return None;
    }
    match Watch::start(&paths, control) {
        Ok(watch) => Some(watch),
        Err(error) => {
            warn!(%error, "rule files and databases are not watched; SIGHUP still reads them again");
            None
        }
    }
}

/// Takes the new rules if all of them can be used, else the old ones stay; and so the databases.
fn reload(engine: &mut Engine, settings: &Settings) {
    let outputs = settings.dispatch.outputs.keys().cloned().collect();
    match input::rules(&settings.rules, Some(outputs)) {
        Ok(rules) => {
            info!(rules = rules.rules.len(), "rules read again");
            engine.replace_rules(rules);
        }
        Err(error) => error!(%error, "the old rules stay in force"),
    }
    match load::places(&settings.databases) {
        Ok(places) => engine.replace_places(Arc::new(places)),
        Err(error) => error!(error = &error as &dyn std::error::Error, "the old databases stay in use"),
    }
}
