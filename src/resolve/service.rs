//! The resolver on threads of its own: questions come in, answers go out.
//!
//! One thread waits for news of processes and connections, the other reads it and answers. A question whose answer
//! is not known yet is asked again until it is, or until the flow is too old.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded, never};
use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::warn;

use crate::attribution::{Attribution, Lookup};
use crate::flow::FlowKey;
use crate::resolve::ProcessResolver;
use crate::resolve::priority::Priority;
use crate::resolve::resolver::{ResolveError, Resolver, ResolverSettings, ResolverStatistics};

/// The running resolver. Dropping it ends its threads.
#[derive(Debug)]
pub struct Service {
    lookups: Option<Sender<Lookup>>,
    answers: Receiver<Answer>,
    statistics: Arc<ArcSwap<ResolverStatistics>>,
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
    pub fn start(settings: ResolverSettings) -> Result<Self, ResolveError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(ResolveError::Thread)?;
            threads.push(thread);
            Ok::<(), ResolveError>(())
        };
        let resolver = Resolver::open(settings)?;
        let news = match resolver.news().map(|news| news.try_clone_to_owned()) {
            None => never(),
            Some(news) => {
                let news = news.map_err(ResolveError::Thread)?;
                let (sender, bell) = bounded(1);
                let stop = Arc::clone(&stop);
                spawn("news", Box::new(move || ring(&news, &sender, &stop)))?;
                bell
            }
        };
        let (lookups, questions) = bounded(MAX_WAITING);
        let (answer_sender, answers) = bounded(MAX_WAITING);
        let statistics = Arc::new(ArcSwap::from_pointee(resolver.statistics()));
        let worker = Worker {
            resolver,
            questions,
            news,
            answers: answer_sender,
            statistics: Arc::clone(&statistics),
            published: Instant::now(),
            waiting: BinaryHeap::new(),
            order: 0,
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

    /// What the resolver did, as it was within the last second.
    pub fn statistics(&self) -> ResolverStatistics {
        **self.statistics.load()
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

/// Wakes the answering thread when there is news; reading it is that thread's part.
fn ring(news: &OwnedFd, bell: &Sender<()>, stop: &AtomicBool) {
    // It works little however much news there is.
    let _ = Priority::claim();
    while !stop.load(Ordering::Relaxed) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: STOP_INTERVAL.subsec_nanos().into() };
        let polled = rustix::event::poll(&mut [PollFd::new(news, PollFlags::IN)], Some(&timeout));
        if polled.is_ok_and(|ready| ready > 0) {
            if bell.send(()).is_err() {
                return;
            }
            // In a flood of news many are read at a time.
            std::thread::sleep(PAUSE);
        }
    }
}

/// What the answering thread owns.
struct Worker {
    resolver: Resolver,
    questions: Receiver<Lookup>,
    news: Receiver<()>,
    answers: Sender<Answer>,
    statistics: Arc<ArcSwap<ResolverStatistics>>,
    published: Instant,
    waiting: BinaryHeap<Reverse<Waiting>>,
    order: u64,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        let mut priority = Priority::claim();
        while !self.stop.load(Ordering::Relaxed) {
            priority.review();
            // Whatever rang is read in `poll`.
            let _ = self.news.try_recv();
            self.resolver.poll();
            self.ask_again();
            if self.published.elapsed() >= PUBLISH_INTERVAL {
                self.published = Instant::now();
                self.statistics.store(Arc::new(self.resolver.statistics()));
            }
            let next = self.resolver.next_poll();
            let due = self.waiting.peek().map_or(next, |Reverse(waiting)| next.min(waiting.due));
            let mut select = crossbeam_channel::Select::new();
            let questions = select.recv(&self.questions);
            select.recv(&self.news);
            let ready = select.ready_deadline(due.min(Instant::now() + STOP_INTERVAL));
            if ready == Ok(questions) && !self.take_questions() {
                return;
            }
        }
    }

    /// Whether anyone can still ask.
    fn take_questions(&mut self) -> bool {
        for _ in 0..QUESTIONS_AT_ONCE {
            match self.questions.try_recv() {
                Ok(lookup) => self.answer(lookup, ASK_AGAIN),
                Err(crossbeam_channel::TryRecvError::Empty) => return true,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn ask_again(&mut self) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|Reverse(waiting)| waiting.due <= now) {
            if let Some(Reverse(waiting)) = self.waiting.pop() {
                self.answer(waiting.lookup, waiting.pause.saturating_mul(2).min(ASK_AGAIN_AT_MOST));
            }
        }
    }

    fn answer(&mut self, lookup: Lookup, pause: Duration) {
        let attribution = self.resolver.resolve(&lookup);
        if attribution.is_pending() && self.waiting.len() < MAX_WAITING {
            self.order += 1;
            let waiting = Waiting { due: Instant::now() + pause, order: self.order, pause, lookup };
            self.waiting.push(Reverse(waiting));
            return;
        }
        if self.answers.send(Answer { key: lookup.key, attribution }).is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// A question that is asked again.
struct Waiting {
    due: Instant,
    order: u64,
    pause: Duration,
    lookup: Lookup,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

/// Questions that may wait; further ones are refused.
const MAX_WAITING: usize = 16_384;

/// Questions answered before young processes are looked at again.
const QUESTIONS_AT_ONCE: usize = 64;

/// How soon a question without an answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The pause between two attempts doubles up to this.
const ASK_AGAIN_AT_MOST: Duration = Duration::from_millis(500);

/// The least time between two wake-ups by news.
const PAUSE: Duration = Duration::from_micros(300);

/// How often the statistics are renewed.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(500);

/// How late a stop is noticed.
const STOP_INTERVAL: Duration = Duration::from_millis(200);
