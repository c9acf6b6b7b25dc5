//! Goes on where the last run ended: windows, alerts and memories of the rules.
//!
//! A thread asks the engine for a checkpoint now and then, packs it and puts
//! it on disk, so that the engine waits for neither. What a crash can lose is
//! the time since the last one.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{info, warn};

use crate::alert::Problem;
use crate::engine::{Checkpoint, Engine};
use crate::rule::Severity;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::control::Control;
use crate::store::Checkpoints;

/// Keeps the engine's state on disk while it runs.
#[derive(Debug)]
pub struct Keeper {
    words: Sender<Word>,
    thread: JoinHandle<()>,
}

/// What the thread is told.
enum Word {
    /// An alert changed.
    Changed,
    /// How the engine ended.
    Last(Box<Checkpoint>),
}

/// A checkpoint follows an alert after this time: alerts come in flocks.
const SETTLE: Duration = Duration::from_secs(1);

/// How often a checkpoint is taken. What is written larger is written more seldom.
const EVERY: Duration = Duration::from_secs(20);

/// Writing may take this part of the time: a hundredth.
const SHARE: u32 = 100;

/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

const NAME: &str = "engine";

/// A fast level: what is written every few seconds is read once.
const LEVEL: i32 = 1;

impl Keeper {
    /// Starts the thread, which asks by `control`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(checkpoints: Checkpoints, control: Sender<Control>, clock: SystemClock) -> std::io::Result<Self> {
        let (words, told) = bounded(1);
        let work = move || keep(checkpoints, &control, &told, clock);
        let thread = std::thread::Builder::new().name("egret-checkpoint".into()).spawn(work)?;
        Ok(Self { words, thread })
    }

    /// Says that an alert changed: a crash after this must not lose it, or say it twice.
    pub fn note_change(&self) {
        // One waiting notice is as good as many.
        let _noted_already = self.words.try_send(Word::Changed);
    }

    /// Keeps how the engine ended, and waits until that is on disk.
    pub fn finish(self, engine: &Engine) {
        // A thread that has ended said why.
        let last = Word::Last(Box::new(engine.checkpoint()));
        if self.words.send(last).is_ok() && self.thread.join().is_err() {
            warn!("the last checkpoint was not written");
        }
    }
}

/// Gives an engine what the last run left, before any input.
pub fn restore(engine: &mut Engine, checkpoints: &Checkpoints) {
    if let Some(path) = checkpoints.set_aside() {
        warn!(path = %path.display(), "the checkpoints were damaged and set aside: windows and memories begin anew");
    }
    let content = match checkpoints.load(NAME) {
        Ok(Some((_, content))) => content,
        Ok(None) => return,
        Err(error) => {
            warn!(%error, "no checkpoint can be read: windows and memories begin anew");
            return;
        }
    };
    match unpack(&content) {
        Ok(checkpoint) => {
            let restored = engine.restore(checkpoint);
            let (rules, groups, alerts) = (restored.rules, restored.groups, restored.alerts);
            info!(rules, groups, alerts, dropped = restored.dropped, "going on where the last run ended");
        }
        Err(error) => warn!(%error, "the checkpoint cannot be read: windows and memories begin anew"),
    }
}

/// Where a damaged database of windows was put: what had added up in it is gone.
pub fn windows_set_aside(path: String) -> Problem {
    Problem {
        id: "store-set-aside",
        severity: Severity::High,
        summary: "the kept windows were damaged; they are set aside and begin empty".to_owned(),
        details: BTreeMap::from([("store", path)]),
        resolved: false,
    }
}

fn keep(mut checkpoints: Checkpoints, control: &Sender<Control>, told: &Receiver<Word>, clock: SystemClock) {
    let mut rest = Duration::ZERO;
    let mut failing = false;
    loop {
        let next = match told.recv_timeout(EVERY.max(rest)) {
            Ok(Word::Changed) => settled(told, SETTLE.max(rest)),
            Ok(Word::Last(last)) => Next::Last(last),
            Err(RecvTimeoutError::Timeout) => Next::Ask,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (checkpoint, is_last) = match next {
            Next::Last(last) => (Some(*last), true),
            Next::Ask => (ask(control), false),
            Next::Nothing => return,
        };
        if let Some(checkpoint) = checkpoint {
            let started = Instant::now();
            let written = pack(&checkpoint)
                .map_err(|error| error.to_string())
                .and_then(|content| checkpoints.save(NAME, &content, clock.wall()).map_err(|error| error.to_string()));
            if let Ok(Some(aside)) = &written {
                let problem = windows_set_aside(aside.display().to_string());
                // An engine that has ended tells nobody.
                let _ended = control.send(Control::Ask(Box::new(|engine: &mut Engine| engine.handle_problem(problem))));
            }
            if let Err(error) = &written
                && !failing
            {
                warn!(error, "windows and memories are not kept on disk: a restart would lose them");
            }
            failing = written.is_err();
            rest = started.elapsed().saturating_mul(SHARE);
        }
        if is_last {
            return;
        }
    }
}

enum Next {
    Ask,
    Last(Box<Checkpoint>),
    Nothing,
}

/// Lets further changes come for a while.
fn settled(told: &Receiver<Word>, pause: Duration) -> Next {
    let until = Instant::now() + pause;
    loop {
        match told.recv_deadline(until) {
            Ok(Word::Changed) => {}
            Ok(Word::Last(last)) => return Next::Last(last),
            Err(RecvTimeoutError::Timeout) => return Next::Ask,
            Err(RecvTimeoutError::Disconnected) => return Next::Nothing,
        }
    }
}

/// A checkpoint of the running engine; `None` where it does not answer, or has ended and takes no more controls.
fn ask(control: &Sender<Control>) -> Option<Checkpoint> {
    let (answer, answers) = bounded(1);
    let question = Control::Ask(Box::new(move |engine: &mut Engine| {
        // Whoever asked may have gone.
        let _gone = answer.try_send(engine.checkpoint());
    }));
    control.send(question).ok()?;
    answers.recv_timeout(PATIENCE).ok()
}

fn pack(checkpoint: &Checkpoint) -> std::io::Result<Vec<u8>> {
    let mut packer = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
    serde_json::to_writer(&mut packer, checkpoint)?;
    packer.finish()
}

fn unpack(content: &[u8]) -> std::io::Result<Checkpoint> {
    let unpacker = zstd::stream::read::Decoder::new(content)?;
    Ok(serde_json::from_reader(std::io::BufReader::new(unpacker))?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::Settings;
    use crate::rule::RuleSet;

    #[test]
    fn a_checkpoint_comes_back_and_noise_is_an_error() {
        let engine = Engine::new(Settings::default(), Arc::new(RuleSet::default()));
        let packed = pack(&engine.checkpoint()).unwrap();
        assert_eq!(unpack(&packed).unwrap().version, engine.checkpoint().version);
        assert!(unpack(b"noise").is_err());
        assert!(unpack(&packed[..packed.len() / 2]).is_err());
    }

    #[test]
    fn a_question_that_the_end_overtakes_delays_it_not() {
        let directory = tempfile::tempdir().unwrap();
        let clock = SystemClock::start();
        let checkpoints = Checkpoints::open(directory.path(), clock.wall()).unwrap();
        let (control, controls) = crossbeam_channel::unbounded();
        let keeper = Keeper::start(checkpoints, control, clock).unwrap();
        keeper.note_change();
        while controls.is_empty() {
            std::thread::yield_now();
        }
        drop(controls);
        let ending = Instant::now();
        keeper.finish(&Engine::new(Settings::default(), Arc::new(RuleSet::default())));
        assert!(ending.elapsed() < PATIENCE / 2, "{:?}", ending.elapsed());
        let kept = Checkpoints::open(directory.path(), clock.wall()).unwrap();
        assert!(kept.load(NAME).unwrap().is_some());
    }
}
