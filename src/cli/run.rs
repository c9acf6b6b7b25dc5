//! `egret run`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::Sender;
use tracing::{error, info, warn};

use crate::alert::{Ledger, Notification};
use crate::cli::exit::Exit;
use crate::cli::input::{self, LiveArguments, LoadedRules};
use crate::cli::reload::Reloader;
use crate::cli::terminal;
use crate::config::{RuleSource, Settings};
use crate::dispatch::{self, Context, Dispatcher, Origin};
use crate::engine::{Engine, Output};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::control::Control;
use crate::runtime::load;
use crate::runtime::packets::{PacketSettings, Packets};
use crate::runtime::resume::Keeper;
use crate::runtime::socket::{ControlSocket, Desk};
use crate::runtime::{control, privilege, resume};
use crate::store::{Checkpoints, Store, StoreLimits};
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
    /// Let alerts be followed by their flows, on every output whose format is ecs or ocsf
    #[arg(long)]
    emit_flows: bool,
    #[command(flatten)]
    source: LiveArguments,
}

/// How long receivers have to take what is left when the daemon ends.
const LAST_DELIVERIES: Duration = Duration::from_secs(6);

/// Runs until SIGTERM or SIGINT.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let settings = settings(arguments)?;
    let outputs = settings.dispatch.outputs.keys().cloned().collect();
    let LoadedRules { rules, list_files } = input::rules_with_lists(&settings.rules, Some(outputs))?;
    if let Err(error) = privilege::restrict() {
        warn!(%error, "keeping all privileges");
    }
    let clock = SystemClock::start();
    let (sender, receiver) = control::from_signals().context("cannot handle signals")?;
    let mut engine = Engine::new(input::live_engine(&settings)?, Arc::clone(&rules));
    engine.replace_places(Arc::new(load::places(&settings.databases)?));
    let checkpoints = checkpoints(&settings, clock.wall());
    if let Some(checkpoints) = &checkpoints {
        resume::restore(&mut engine, checkpoints);
    }
    let alive = engine.firing_keys();
    let damaged = checkpoints.as_ref().and_then(|kept| kept.set_aside().map(|path| path.display().to_string()));
    let mut live = input::open_live(&settings, engine, clock)?;
    live = match Packets::start(packet_settings(&settings)?) {
        Ok(packets) => live.with_packets(packets),
        Err(error) => {
            warn!(%error, "alerts come without their packets");
            live
        }
    };
    let origin = Origin { host: settings.host.clone(), pid: std::process::id() };
    let ledger = ledger(&settings, clock.wall());
    let context = Context {
        origin,
        clock: dispatch::Clock { steady: Arc::new(move || clock.now()), wall: Arc::new(move || clock.wall()) },
        ledger,
    };
    let dispatcher = Dispatcher::start(&settings.dispatch, context)?;
    if let Err(error) = dispatcher.control().confirm(alive) {
        warn!(%error, "alerts of the last run that nobody watches any more are not withdrawn");
    }
    if let Some(path) = damaged {
        dispatcher.submit(Notification::of_problem(clock.now(), resume::windows_set_aside(path)));
    }
    let desk = Desk { dispatch: dispatcher.control(), engine: Some(sender.clone()), watching: live.watching() };
    let _socket = socket(&settings, desk);
    let keeper = checkpoints.and_then(|checkpoints| keeper(checkpoints, sender.clone(), clock));
    let mut reloader = Reloader::new(arguments, settings.clone(), &list_files, sender);
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
        |engine, what| reloader.reload(engine, &dispatcher, what),
        |output| match output {
            Output::Notification(notification) => {
                dispatcher.submit(notification);
                keeper.iter().for_each(Keeper::note_change);
            }
            Output::HeldBack(notification, by) => dispatcher.submit_held_back(notification, by),
            // The rest is for others: look-ups, records of flows.
            _ => {}
        },
    );
    info!("stopping");
    // Whoever still asks the engine hears at once that it has ended.
    drop(receiver);
    if let Some(keeper) = keeper {
        keeper.finish(live.engine());
    }
    let status = dispatcher.shutdown(LAST_DELIVERIES);
    for (output, status) in status.outputs.iter().filter(|(_, status)| status.given_up() + status.waiting as u64 > 0) {
        error!(output, given_up = status.given_up(), waiting = status.waiting, "not everything was delivered");
    }
    Ok(Exit::Fine)
}

/// Where operators ask. Without it everything works but `egret status` and the like.
fn socket(settings: &Settings, desk: Desk) -> Option<ControlSocket> {
    match ControlSocket::start(&settings.state_dir, desk) {
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

/// Where the packets of alerts go.
fn packet_settings(settings: &Settings) -> anyhow::Result<PacketSettings> {
    Ok(PacketSettings {
        directory: settings.state_dir.join("evidence"),
        max_bytes: settings.max_evidence_bytes,
        max_files: settings.max_evidence_files,
        redactor: settings.dispatch.redactor()?,
    })
}

/// What the configuration and the arguments say together.
pub(super) fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    let mut settings = Settings::load(arguments.config.as_deref()).map_err(input::say_config_error)?;
    arguments.source.apply(&mut settings);
    if !arguments.rules.is_empty() {
        settings.rules = RuleSource::Paths(arguments.rules.clone());
    }
    if let Some(folder) = &arguments.state_dir {
        settings.state_dir.clone_from(folder);
    }
    if arguments.emit_flows && !settings.dispatch.emit_flows() {
        anyhow::bail!("--emit-flows needs an output with `format: ecs` or `format: ocsf`");
    }
    Ok(settings)
}

/// What the last run left. Without it windows and memories begin anew at every start.
fn checkpoints(settings: &Settings, now: Timestamp) -> Option<Checkpoints> {
    match Checkpoints::open(&settings.state_dir, now) {
        Ok(checkpoints) => Some(checkpoints),
        Err(error) => {
            let error = anyhow::Error::from(error);
            warn!(error = format!("{error:#}"), "windows and memories are not kept on disk: a restart would lose them");
            None
        }
    }
}

fn keeper(checkpoints: Checkpoints, control: Sender<Control>, clock: SystemClock) -> Option<Keeper> {
    match Keeper::start(checkpoints, control, clock) {
        Ok(keeper) => Some(keeper),
        Err(error) => {
            warn!(%error, "windows and memories are not kept on disk: a restart would lose them");
            None
        }
    }
}
