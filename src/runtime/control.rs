//! What the outside tells a running engine.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::engine::Engine;
use crate::rule::RuleSet;

/// A message to the thread that runs the engine.
pub enum Control {
    /// End in order: flush what is held, then stop.
    Stop,
    /// Read again what the outside says.
    Reload(Reload),
    /// Take these rules from the next tick on.
    Rules(Arc<RuleSet>),
    /// Let somebody look at the engine, or change what an operator may change.
    Ask(Box<dyn FnOnce(&mut Engine) + Send>),
}

/// What is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Rules, lists and databases: their files changed.
    Files,
    /// The configuration as well: somebody asked for it.
    Everything,
}

/// A channel for controls, and a thread that turns SIGTERM and SIGINT into
/// [`Control::Stop`] and SIGHUP into [`Control::Reload`].
///
/// # Errors
/// Where the handlers or the thread cannot be set up.
pub fn from_signals() -> std::io::Result<(Sender<Control>, Receiver<Control>)> {
    let (sender, receiver) = unbounded();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let control = sender.clone();
    std::thread::Builder::new().name("egret-signals".into()).spawn(move || {
        for signal in signals.forever() {
            let message = if signal == SIGHUP { Control::Reload(Reload::Everything) } else { Control::Stop };
            if control.send(message).is_err() {
                return;
            }
        }
    })?;
    Ok((sender, receiver))
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stop => "Stop",
            Self::Reload(_) => "Reload",
            Self::Rules(_) => "Rules",
            Self::Ask(_) => "Ask",
        })
    }
}
