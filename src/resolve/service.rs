//! The resolver on threads of its own: questions come in, answers go out.
//!
//! One thread hears of processes, the other answers. A question whose answer
//! is not known yet is asked again until it is, or until the flow is too old.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never};
use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::{info, warn};

use crate::attribution::{Attribution, Lookup};
use crate::flow::FlowKey;
use crate::resolve::ProcessResolver;
use crate::resolve::proc_connector::{ProcConnector, ProcessEvent};
use crate::resolve::resolver::{ResolveError, Resolver, ResolverStatistics};

/// The running resolver. Dropping it ends its threads.
#[derive(Debug)]
pub struct Service {
    lookups: Option<Sender<Lookup>>,
    answers: Receiver<Answer>,
    statistics: Receiver<ResolverStatistics>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The answer to a look-up.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Which flow was asked for.
    pub key: FlowKey,
    /// Whose it is.
    pub attribution: Attribution,
}

impl Service {
    /// Reads the processes that run and starts to listen and answer.
    pub fn start() -> Result<Self, ResolveError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(ResolveError::Thread)?;
            threads.push(thread);
            Ok::<(), ResolveError>(())
        };
        // Listening starts before the first reading, so that no process falls between the two.
        let events = match ProcConnector::open() {
            Ok(connector) => {
                let (sender, events) = bounded(EVENT_BATCHES);
                let stop = Arc::clone(&stop);
                spawn("process-events", Box::new(move || listen(connector, &sender, &stop)))?;
                Some(events)
            }
            Err(error) => {
                info!(%error, "the kernel does not tell of processes (CAP_NET_ADMIN is missing, or this is a container): owners of short-lived processes may stay unknown");
                None
            }
        };
        let mut resolver = Resolver::open()?;
        if events.is_some() {
            resolver.expect_events();
        }
        let (lookups, questions) = bounded(MAX_WAITING);
        let (answer_sender, answers) = bounded(MAX_WAITING);
        let (statistics_sender, statistics) = bounded(1);
        let worker = Worker {
            resolver,
            questions,
            events: events.unwrap_or_else(never),
            answers: answer_sender,
            statistics: statistics_sender,
            waiting: VecDeque::new(),
            stop: Arc::clone(&stop),
        };
        spawn("resolver", Box::new(move || worker.run()))?;
        Ok(Self { lookups: Some(lookups), answers, statistics, stop, threads })
    }

    /// Asks for the owner of a flow. `false` when too many questions wait: the flow stays without an owner.
    pub fn ask(&self, lookup: Lookup) -> bool {
        self.lookups.as_ref().is_some_and(|lookups| lookups.try_send(lookup).is_ok())
    }

    /// Where answers arrive.
    pub fn answers(&self) -> &Receiver<Answer> {
        &self.answers
    }

    /// What the resolver did, as it was about a second ago; `None` where nothing is new.
    pub fn statistics(&self) -> Option<ResolverStatistics> {
        self.statistics.try_recv().ok()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.lookups = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                warn!("a thread of the resolver panicked");
            }
        }
    }
}

/// Passes on the news of processes.
fn listen(mut connector: ProcConnector, sender: &Sender<Vec<ProcessEvent>>, stop: &AtomicBool) {
    let mut lost = false;
    while !stop.load(Ordering::Relaxed) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: STOP_INTERVAL.subsec_nanos().into() };
        let polled = rustix::event::poll(&mut [PollFd::new(&connector.as_fd(), PollFlags::IN)], Some(&timeout));
        if polled == Ok(0) {
            continue;
        }
        let mut events = Vec::new();
        if std::mem::take(&mut lost) {
            events.push(ProcessEvent::Lost);
        }
        if let Err(error) = connector.drain(&mut events) {
            warn!(%error, "the news of processes has ended");
            return;
        }
        match sender.try_send(events) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => lost = true,
            Err(TrySendError::Disconnected(_)) => return,
        }
    }
}

/// What the answering thread owns.
struct Worker {
    resolver: Resolver,
    questions: Receiver<Lookup>,
    events: Receiver<Vec<ProcessEvent>>,
    answers: Sender<Answer>,
    statistics: Sender<ResolverStatistics>,
    waiting: VecDeque<(Instant, Lookup)>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.take_events();
            self.resolver.poll();
            self.ask_again();
            // Full means that nobody has read the last ones yet.
            let _ = self.statistics.try_send(self.resolver.statistics());
            let due =
                self.waiting.front().map_or(self.resolver.next_poll(), |(at, _)| self.resolver.next_poll().min(*at));
            let mut select = crossbeam_channel::Select::new();
            let questions = select.recv(&self.questions);
            select.recv(&self.events);
            let ready = select.ready_deadline(due.min(Instant::now() + STOP_INTERVAL));
            if ready == Ok(questions) && !self.take_questions() {
                return;
            }
        }
    }

    fn take_events(&mut self) {
        while let Ok(events) = self.events.try_recv() {
            self.resolver.handle_events(&events);
        }
    }

    /// Whether anyone can still ask.
    fn take_questions(&mut self) -> bool {
        for _ in 0..QUESTIONS_AT_ONCE {
            match self.questions.try_recv() {
                Ok(lookup) => {
                    self.take_events();
                    self.answer(lookup);
                }
                Err(crossbeam_channel::TryRecvError::Empty) => return true,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn ask_again(&mut self) {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, lookup)) = self.waiting.pop_front() {
                self.answer(lookup);
            }
        }
    }

    fn answer(&mut self, lookup: Lookup) {
        let attribution = self.resolver.resolve(&lookup);
        if attribution.is_pending() && self.waiting.len() < MAX_WAITING {
            self.waiting.push_back((Instant::now() + ASK_AGAIN, lookup));
            return;
        }
        if self.answers.send(Answer { key: lookup.key, attribution }).is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Questions that may wait; further ones are refused.
const MAX_WAITING: usize = 16_384;

/// Batches of news that may wait; the loss of one makes the resolver read everything anew.
const EVENT_BATCHES: usize = 4_096;

/// Questions answered before young processes are looked at again.
const QUESTIONS_AT_ONCE: usize = 64;

/// How soon a question without an answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(40);

/// How late a stop is noticed.
const STOP_INTERVAL: Duration = Duration::from_millis(200);
