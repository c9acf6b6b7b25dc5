//! The thread on which owners are looked up, so that a slow `/proc` never stops a packet.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::attribution::{Attribution, Lookup};
use crate::flow::FlowKey;
use crate::resolve::ProcessResolver;

/// A resolver at work on its own thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Lookups {
    questions: Option<Sender<Lookup>>,
    answers: Receiver<(FlowKey, Attribution)>,
    thread: Option<JoinHandle<()>>,
    refused: u64,
}

/// Questions that wait at once; further ones are counted, and asked again by the engine.
const MAX_QUESTIONS: usize = 16_384;

/// How long the resolver may be left without a call, so that it can read its events.
const IDLE_WAIT: Duration = Duration::from_millis(20);

impl Lookups {
    /// Starts the thread.
    pub fn start(resolver: Box<dyn ProcessResolver>) -> std::io::Result<Self> {
        let (questions, asked) = bounded(MAX_QUESTIONS);
        let (answer, answers) = bounded(MAX_QUESTIONS);
        let thread = std::thread::Builder::new()
            .name("egret-resolver".into())
            .spawn(move || resolve_all(resolver, &asked, &answer))?;
        Ok(Self { questions: Some(questions), answers, thread: Some(thread), refused: 0 })
    }

    /// Asks without waiting. A question that finds no room is counted; the engine asks again.
    pub fn ask(&mut self, lookup: Lookup) {
        let Some(questions) = &self.questions else { return };
        match questions.try_send(lookup) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.refused += 1,
        }
    }

    /// Where the answers arrive.
    pub fn answers(&self) -> &Receiver<(FlowKey, Attribution)> {
        &self.answers
    }

    /// Questions that found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.questions = None;
        while self.answers.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            // A resolver that panicked has nothing left to say; its flows stay without an owner.
            let _ = thread.join();
        }
    }
}

fn resolve_all(
    mut resolver: Box<dyn ProcessResolver>,
    asked: &Receiver<Lookup>,
    answer: &Sender<(FlowKey, Attribution)>,
) {
    let mut last_idle = Instant::now();
    loop {
        match asked.recv_timeout(IDLE_WAIT) {
            Ok(lookup) => {
                let attribution = resolver.resolve(&lookup);
                // The engine has gone: so does this thread.
                if answer.send_timeout((lookup.key, attribution), Duration::from_secs(5)).is_err() {
                    return;
                }
                if last_idle.elapsed() < IDLE_WAIT {
                    continue;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        last_idle = Instant::now();
        resolver.idle();
    }
}
