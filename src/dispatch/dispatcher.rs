//! The threads of delivery: one that decides, and one for each output.
//!
//! ```text
//! submit -> [bounded] -> dispatch -> [one batch an output] -> worker -> receiver
//!                            ^------------- outcomes -----------'
//! ```
//!
//! Nothing that a receiver does reaches another receiver or whoever submits:
//! a worker blocks alone, and a full channel counts a loss at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, never, select};

use crate::alert::{
    AlertRecord, Change, Delivery, DeliveryState, Ledger, LedgerError, Notification, Origin, PatternError, Silence,
    SilenceError,
};
use crate::dispatch::fingerprint::Fingerprint;
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::dispatch::output::{self, OutputError};
use crate::dispatch::pipeline::Pipeline;
use crate::dispatch::route::RouteError;
use crate::dispatch::settings::{DispatchSettings, OutboxSettings, OutputSettings};
use crate::dispatch::status::Status;
use crate::time::Timestamp;

/// What tells the time.
#[derive(Clone)]
pub struct Clock {
    /// A clock that nobody sets: retries, groups and rates go by it.
    pub steady: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// The wall clock, which may step: silences, schedules and what is kept go by it.
    pub wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Clock {
    /// One clock for both, which nobody sets.
    pub fn single(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> = Arc::new(now);
        Self { steady: Arc::clone(&clock), wall: clock }
    }
}

/// What a dispatcher needs of the program around it.
pub struct Context {
    /// Who says it.
    pub origin: Origin,
    /// What tells the time.
    pub clock: Clock,
    /// What keeps deliveries over a crash; without it they live in memory.
    pub ledger: Option<Box<dyn Ledger>>,
}

/// Delivers notifications until it is shut down.
pub struct Dispatcher {
    submissions: Sender<Submission>,
    control: DispatchControl,
    origin: Origin,
    clock: Clock,
    lost: Arc<AtomicU64>,
    thread: JoinHandle<Status>,
}

/// Asks and tells a dispatcher that runs; may be cloned and used from any thread.
#[derive(Debug, Clone)]
pub struct DispatchControl {
    controls: Sender<Control>,
}

/// Why delivery cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The routing tree is wrong.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A pattern of an inhibition.
    #[error("inhibit")]
    Inhibit(#[from] PatternError),
    /// A silence that stands in the configuration.
    #[error("silences")]
    Silence(#[from] SilenceError),
    /// A pattern for secrets.
    #[error("redact.patterns")]
    Redact(#[from] regex::Error),
    /// A fallback that is not there.
    #[error("output `{name}` names the fallback `{fallback}`, which is not configured")]
    Fallback {
        /// The output.
        name: String,
        /// What it names.
        fallback: String,
    },
    /// The store cannot be read.
    #[error("cannot read what the last run left behind")]
    Ledger(#[from] LedgerError),
    /// An output is set up wrongly.
    #[error("output `{name}`")]
    Output {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: OutputError,
    },
    /// The deciding thread takes no more orders.
    #[error("delivery does not answer")]
    Busy,
    /// A thread could not be made.
    #[error("cannot start a thread for delivery")]
    Thread(#[source] std::io::Error),
}

/// Why an order to a dispatcher was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The thread did not answer in time, or has ended.
    #[error("delivery does not answer")]
    NoAnswer,
    /// No output of that name.
    #[error("there is no output `{0}`")]
    NoOutput(String),
    /// No delivery of that id.
    #[error("there is no delivery `{0}`")]
    NoDelivery(String),
    /// It is on the wire at this moment.
    #[error("delivery `{0}` is being attempted right now")]
    InFlight(String),
    /// No silence of that id.
    #[error("there is no silence `{0}`")]
    NoSilence(String),
    /// The silence is refused.
    #[error(transparent)]
    Silence(#[from] SilenceError),
    /// There is nothing to ask.
    #[error("nothing is kept on disk: the program runs without a state directory")]
    NoLedger,
    /// The store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The receiver did not take it.
    #[error(transparent)]
    Notify(#[from] NotifyError),
}

impl Dispatcher {
    /// Starts the threads, and goes on with what the last run left behind.
    pub fn start(settings: &DispatchSettings, mut context: Context) -> Result<Self, StartError> {
        let now = (context.clock.steady)();
        let mut pipeline = Pipeline::new(settings, context.origin.clone(), now)?;
        pipeline.handle_clock((context.clock.wall)(), now);
        if let Some(ledger) = &mut context.ledger {
            pipeline.restore(ledger.load()?, now);
        }
        let (outcomes_in, outcomes) = bounded(settings.outputs.len().max(16) * (BATCH + 1));
        let mut crew = Crew { reports: outcomes_in, clock: context.clock.clone(), started: 0 };
        let mut workers = BTreeMap::new();
        for (name, ready) in ready(settings)? {
            let worker = crew.start(&name, ready)?;
            workers.insert(name, worker);
        }
        let (submissions, submitted) = bounded(SUBMISSIONS);
        let (controls, controlled) = bounded(16);
        let lost = Arc::new(AtomicU64::new(0));
        let desk = Desk {
            pipeline,
            workers,
            crew,
            clock: context.clock.clone(),
            ledger: context.ledger,
            check_at: now,
            uncommitted: Vec::new(),
            committed: 0,
            longest_silence: settings.outbox.longest_silence,
            tests: BTreeMap::new(),
            submitted,
            controlled,
            outcomes,
            lost: Arc::clone(&lost),
            lost_before: 0,
            closing: None,
        };
        let thread = spawn("dispatch", move || desk.run())?;
        let control = DispatchControl { controls };
        Ok(Self { submissions, control, origin: context.origin, clock: context.clock, lost, thread })
    }

    /// Goes on under other settings: all of them or, where something is wrong with them, none. Outputs that
    /// are the same keep their connection, their queue and how they are doing; what waits for others is kept.
    pub fn reload(&self, settings: &DispatchSettings) -> Result<(), StartError> {
        let pipeline = Pipeline::new(settings, self.origin.clone(), (self.clock.steady)())?;
        let next = Next { pipeline, outputs: ready(settings)?, outbox: settings.outbox.clone() };
        // Whoever asks may be the thread that watches: it waits for nobody.
        self.control.controls.try_send(Control::Reload(Box::new(next))).map_err(|_| StartError::Busy)
    }

    /// Hands a notification over. Never blocks: where there is no room the loss is counted and said.
    pub fn submit(&self, notification: Notification) {
        self.hand_over(Submission { notification, held_back: None });
    }

    /// The same for a notification that its own rule holds back, by `cooldown`, `cap` or `schedule`: it is
    /// put on record and sent to audit outputs alone.
    pub fn submit_held_back(&self, notification: Notification, by: &'static str) {
        self.hand_over(Submission { notification, held_back: Some(by) });
    }

    fn hand_over(&self, submission: Submission) {
        match self.submissions.try_send(submission) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How deliveries stand; `None` where the thread does not answer in time.
    pub fn status(&self) -> Option<Status> {
        self.control.status().ok()
    }

    /// What asks and tells this dispatcher.
    pub fn control(&self) -> DispatchControl {
        self.control.clone()
    }

    /// Delivers what waits, for as long as `patience` allows, and ends. The status tells what is left; with a
    /// store it is delivered by the next run.
    pub fn shutdown(self, patience: Duration) -> Status {
        let Self { submissions, control, thread, .. } = self;
        drop(submissions);
        // A thread that has ended already takes no more messages, and its status is there to join.
        let _ended_before = control.controls.send(Control::Shutdown(patience));
        thread.join().unwrap_or_default()
    }
}

impl DispatchControl {
    /// How deliveries stand.
    pub fn status(&self) -> Result<Status, ControlError> {
        self.ask(Control::Status, ANSWER_WITHIN)
    }

    /// Alerts as they stand, the latest change first.
    pub fn alerts(&self, most: usize) -> Result<Vec<AlertRecord>, ControlError> {
        self.ask(|answer| Control::Alerts(most, answer), ANSWER_WITHIN)?
    }

    /// Remembers who takes care of an alert.
    pub fn acknowledge(&self, key: &str, by: &str) -> Result<(), ControlError> {
        self.ask(|answer| Control::Acknowledge(key.to_owned(), by.to_owned(), answer), ANSWER_WITHIN)
    }

    /// Tells which alerts of an earlier run still live; the others are withdrawn.
    pub fn confirm(&self, alive: BTreeSet<Arc<str>>) -> Result<(), ControlError> {
        self.ask(|answer| Control::Confirm(alive, answer), ANSWER_WITHIN)
    }

    /// All silences that are kept.
    pub fn silences(&self) -> Result<Vec<Silence>, ControlError> {
        self.ask(Control::Silences, ANSWER_WITHIN)
    }

    /// Makes a silence.
    pub fn add_silence(&self, silence: Silence) -> Result<(), ControlError> {
        self.ask(|answer| Control::AddSilence(Box::new(silence), answer), ANSWER_WITHIN)?
    }

    /// Ends a silence.
    pub fn expire_silence(&self, id: &str) -> Result<Silence, ControlError> {
        self.ask(|answer| Control::ExpireSilence(id.to_owned(), answer), ANSWER_WITHIN)?
    }

    /// Deliveries that wait, are held, or were given up.
    pub fn deliveries(&self, state: DeliveryState, most: usize) -> Result<Vec<Delivery>, ControlError> {
        self.ask(|answer| Control::Deliveries(state, most, answer), ANSWER_WITHIN)?
    }

    /// One delivery.
    pub fn delivery(&self, id: &str) -> Result<(DeliveryState, Delivery), ControlError> {
        self.ask(|answer| Control::Delivery(id.to_owned(), answer), ANSWER_WITHIN)?
    }

    /// Tries one delivery again, or everything that waits for an output, or everything.
    pub fn retry(&self, what: Retry) -> Result<(), ControlError> {
        self.ask(|answer| Control::Retry(what, answer), ANSWER_WITHIN)?
    }

    /// Drops a delivery.
    pub fn drop_delivery(&self, id: &str) -> Result<(), ControlError> {
        self.ask(|answer| Control::Drop(id.to_owned(), answer), ANSWER_WITHIN)?
    }

    /// Sends a marked test alert to one output and waits for what comes of it.
    pub fn test(&self, output: &str) -> Result<(), ControlError> {
        self.ask(|answer| Control::Test(output.to_owned(), answer), TEST_WITHIN)?
    }

    fn ask<T>(&self, control: impl FnOnce(Sender<T>) -> Control, within: Duration) -> Result<T, ControlError> {
        let (answer, answered) = bounded(1);
        self.controls.send_timeout(control(answer), ANSWER_WITHIN).map_err(|_| ControlError::NoAnswer)?;
        answered.recv_timeout(within).map_err(|_| ControlError::NoAnswer)
    }
}

/// What comes in.
struct Submission {
    notification: Notification,
    held_back: Option<&'static str>,
}

/// What to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// One delivery, also one that was given up.
    Delivery(String),
    /// Everything that waits for one output.
    Output(String),
    /// Everything that waits.
    All,
}

type Answer<T> = Sender<Result<T, ControlError>>;

/// Another configuration, checked and ready.
struct Next {
    pipeline: Pipeline,
    outputs: BTreeMap<Arc<str>, Ready>,
    outbox: OutboxSettings,
}

/// An output that can be sent to.
struct Ready {
    notifier: Box<dyn Notifier>,
    fingerprint: Fingerprint,
}

/// The outputs of a configuration; where one of them is wrong, none.
fn ready(settings: &DispatchSettings) -> Result<BTreeMap<Arc<str>, Ready>, StartError> {
    let ready = |(name, output): (&String, &OutputSettings)| {
        let fingerprint = Fingerprint::of(output, &settings.commands);
        match output::notifier(output, &settings.commands) {
            Ok(notifier) => Ok((Arc::from(name.as_str()), Ready { notifier, fingerprint })),
            Err(source) => Err(StartError::Output { name: name.clone(), source }),
        }
    };
    settings.outputs.iter().map(ready).collect()
}

enum Control {
    Reload(Box<Next>),
    Status(Sender<Status>),
    Shutdown(Duration),
    Alerts(usize, Answer<Vec<AlertRecord>>),
    Acknowledge(String, String, Sender<()>),
    Confirm(BTreeSet<Arc<str>>, Sender<()>),
    Silences(Sender<Vec<Silence>>),
    AddSilence(Box<Silence>, Answer<()>),
    ExpireSilence(String, Answer<Silence>),
    Deliveries(DeliveryState, usize, Answer<Vec<Delivery>>),
    Delivery(String, Answer<(DeliveryState, Delivery)>),
    Retry(Retry, Answer<()>),
    Drop(String, Answer<()>),
    Test(String, Answer<()>),
}

/// The thread that decides.
struct Desk {
    pipeline: Pipeline,
    workers: BTreeMap<Arc<str>, Worker>,
    crew: Crew,
    clock: Clock,
    ledger: Option<Box<dyn Ledger>>,
    /// When to look at the store next.
    check_at: Timestamp,
    /// Changes that the store would not take; they are tried again with the next ones.
    uncommitted: Vec<Change>,
    /// Notifications that are on disk.
    committed: u64,
    longest_silence: Duration,
    /// Who waits for the outcome of a test, by delivery.
    tests: BTreeMap<Arc<str>, Answer<()>>,
    submitted: Receiver<Submission>,
    controlled: Receiver<Control>,
    outcomes: Receiver<Report>,
    lost: Arc<AtomicU64>,
    lost_before: u64,
    /// When to end at the latest, once that was asked for.
    closing: Option<Timestamp>,
}

impl Desk {
    fn run(mut self) -> Status {
        loop {
            let now = self.read_clock();
            self.take_what_is_there(now);
            self.say_losses(now);
            match self.closing {
                Some(_) => self.pipeline.hurry(now),
                None => self.pipeline.handle_timeout(now),
            }
            self.check_store(now);
            self.commit(now);
            self.refill();
            self.hand_out(now);
            if self.is_done(now) {
                self.commit(now);
                return self.status();
            }
            self.wait(now);
        }
    }

    fn read_clock(&mut self) -> Timestamp {
        let now = (self.clock.steady)();
        self.pipeline.handle_clock((self.clock.wall)(), now);
        now
    }

    /// Looks now and then whether the store is still whole; what is in memory goes into a fresh one.
    fn check_store(&mut self, now: Timestamp) {
        let Some(ledger) = self.ledger.as_mut().filter(|_| now >= self.check_at) else { return };
        self.check_at = now.after(CHECK_EVERY);
        if let Err(error) = ledger.check((self.clock.wall)()) {
            tracing::error!(%error, "the store is not whole");
            self.pipeline.handle_store(Err(&error), now);
        }
    }

    /// Puts on disk what this turn brought: everything in one go, before anything of it is attempted.
    fn commit(&mut self, now: Timestamp) {
        // What a commit gives to say is on disk as well before it is attempted; it never says more than that.
        for _ in 0..2 {
            self.commit_once(now);
        }
    }

    fn commit_once(&mut self, now: Timestamp) {
        let Some(ledger) = &mut self.ledger else { return };
        self.uncommitted.extend(self.pipeline.take_changes());
        if self.uncommitted.is_empty() {
            return;
        }
        match ledger.commit(&self.uncommitted) {
            Ok(given_up) => {
                // Whatever was submitted before this turn is in these changes or in earlier ones.
                self.committed = self.pipeline.submitted();
                self.uncommitted.clear();
                self.pipeline.handle_given_up(&given_up);
                self.pipeline.handle_store(Ok(ledger.fill()), now);
            }
            Err(error) => {
                tracing::error!(%error, "the store fails");
                let damaged = matches!(error, LedgerError::Damaged(_));
                self.pipeline.handle_store(Err(&error), now);
                if damaged {
                    // They are in the fresh store.
                    self.uncommitted.clear();
                } else if self.uncommitted.len() > MOST_UNCOMMITTED {
                    let beyond = self.uncommitted.len() - MOST_UNCOMMITTED;
                    self.uncommitted.drain(..beyond);
                }
            }
        }
    }

    fn refill(&mut self) {
        let Some(ledger) = &mut self.ledger else { return };
        // What is not on disk yet must not be looked for there.
        if !self.uncommitted.is_empty() {
            return;
        }
        while let Some((name, refill)) = self.pipeline.poll_refill() {
            match ledger.waiting(&name, refill.from, refill.most) {
                Ok(deliveries) => self.pipeline.handle_refill(&name, refill, deliveries),
                Err(error) => {
                    tracing::error!(%error, output = %name, "cannot read deliveries from the store");
                    return;
                }
            }
        }
    }

    fn status(&self) -> Status {
        Status { committed: self.committed, ..self.pipeline.status() }
    }

    /// Whatever has come in since the last turn, without waiting.
    fn take_what_is_there(&mut self, now: Timestamp) {
        for _ in 0..MOST_IN_A_TURN {
            let Ok(submission) = self.submitted.try_recv() else { break };
            self.take(submission, now);
        }
        while let Ok(report) = self.outcomes.try_recv() {
            self.take_report(report, now);
        }
        while let Ok(control) = self.controlled.try_recv() {
            self.take_control(control, now);
        }
    }

    fn take(&mut self, submission: Submission, now: Timestamp) {
        let Submission { notification, held_back } = submission;
        match held_back {
            None => self.pipeline.handle_notification(Arc::new(notification), now),
            Some(by) => self.pipeline.handle_held_back(Arc::new(notification), by, now),
        }
    }

    fn take_report(&mut self, report: Report, now: Timestamp) {
        match report.what {
            What::Attempted(id, outcome) => {
                if let Err(error) = &outcome {
                    tracing::warn!(output = %report.output, delivery = %id, %error, "delivery failed");
                }
                self.pipeline.handle_outcome(&report.output, &id, &outcome, now, fastrand::f64());
                if let Some(answer) = self.tests.remove(&id) {
                    reply(&answer, outcome.map_err(ControlError::from));
                }
            }
            What::Untried(id) => self.pipeline.handle_untried(&report.output, &id),
            What::Idle => {
                // An output that was changed has another worker than the one that is done now.
                if let Some(worker) = self.workers.get_mut(&report.output).filter(|it| it.number == report.worker) {
                    worker.busy = false;
                }
            }
        }
    }

    fn take_control(&mut self, control: Control, now: Timestamp) {
        match control {
            Control::Reload(next) => self.reload(*next, now),
            Control::Status(answer) => reply(&answer, self.status()),
            Control::Shutdown(patience) => self.closing = Some(now.after(patience)),
            Control::Alerts(most, answer) => reply(&answer, self.read(|ledger| ledger.alerts(most))),
            Control::Acknowledge(key, by, answer) => {
                self.pipeline.acknowledge(key, by, now);
                reply(&answer, ());
            }
            Control::Confirm(alive, answer) => {
                self.pipeline.confirm(&alive, now);
                reply(&answer, ());
            }
            Control::Silences(answer) => reply(&answer, self.pipeline.silences()),
            Control::AddSilence(silence, answer) => reply(&answer, self.add_silence(*silence, now)),
            Control::ExpireSilence(id, answer) => {
                reply(&answer, self.pipeline.expire_silence(&id, now).ok_or(ControlError::NoSilence(id)));
            }
            Control::Deliveries(state, most, answer) => {
                reply(&answer, self.read(|ledger| ledger.deliveries(state, most)));
            }
            Control::Delivery(id, answer) => reply(&answer, self.delivery(&id)),
            Control::Retry(what, answer) => reply(&answer, self.retry(what, now)),
            Control::Drop(id, answer) => reply(&answer, self.drop_delivery(&id)),
            Control::Test(name, answer) => match self.pipeline.test(&name, now) {
                Some(id) => {
                    self.tests.insert(id, answer);
                }
                None => reply(&answer, Err(ControlError::NoOutput(name))),
            },
        }
    }

    fn reload(&mut self, next: Next, now: Timestamp) {
        let Next { pipeline, outputs, outbox } = next;
        let same = |name: &Arc<str>, ready: &Ready| {
            self.workers.get(name).is_some_and(|worker| worker.fingerprint == ready.fingerprint)
        };
        let kept: BTreeSet<Arc<str>> =
            outputs.iter().filter(|(name, ready)| same(name, ready)).map(|(name, _)| Arc::clone(name)).collect();
        self.workers.retain(|name, _| outputs.contains_key(name));
        for (name, ready) in outputs {
            if kept.contains(&name) {
                continue;
            }
            match self.crew.start(&name, ready) {
                Ok(worker) => {
                    self.workers.insert(name, worker);
                }
                Err(error) => tracing::error!(%error, output = %name, "an output goes on as it was"),
            }
        }
        self.pipeline.replace(pipeline, &kept, now);
        self.longest_silence = outbox.longest_silence;
        if let Some(ledger) = &mut self.ledger {
            ledger.limit(outbox.max_bytes);
        }
    }

    fn read<T>(&mut self, read: impl FnOnce(&mut dyn Ledger) -> Result<T, LedgerError>) -> Result<T, ControlError> {
        let ledger = self.ledger.as_deref_mut().ok_or(ControlError::NoLedger)?;
        Ok(read(ledger)?)
    }

    fn delivery(&mut self, id: &str) -> Result<(DeliveryState, Delivery), ControlError> {
        self.read(|ledger| ledger.delivery(id))?.ok_or_else(|| ControlError::NoDelivery(id.to_owned()))
    }

    fn add_silence(&mut self, silence: Silence, now: Timestamp) -> Result<(), ControlError> {
        silence.check(self.longest_silence)?;
        Ok(self.pipeline.add_silence(silence, now)?)
    }

    fn retry(&mut self, what: Retry, now: Timestamp) -> Result<(), ControlError> {
        match what {
            Retry::All => self.pipeline.retry_now(None),
            Retry::Output(name) if self.workers.contains_key(&*name) => self.pipeline.retry_now(Some(&name)),
            Retry::Output(name) => return Err(ControlError::NoOutput(name)),
            Retry::Delivery(id) => match self.delivery(&id)? {
                (DeliveryState::Dead, delivery) => {
                    let output = delivery.output.to_string();
                    if !self.pipeline.revive(delivery, now) {
                        return Err(ControlError::NoOutput(output));
                    }
                }
                (_, delivery) if !self.workers.contains_key(&delivery.output) => {
                    return Err(ControlError::NoOutput(delivery.output.to_string()));
                }
                (_, delivery) => self.pipeline.retry_now(Some(&delivery.output)),
            },
        }
        Ok(())
    }

    fn drop_delivery(&mut self, id: &str) -> Result<(), ControlError> {
        let (_, delivery) = self.delivery(id)?;
        if self.pipeline.drop_delivery(&delivery) { Ok(()) } else { Err(ControlError::InFlight(id.to_owned())) }
    }

    fn say_losses(&mut self, now: Timestamp) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.lost_before {
            let new = lost - self.lost_before;
            self.lost_before = lost;
            tracing::warn!(lost = new, "notifications were lost before they could be queued");
            self.pipeline.handle_losses(new, now);
        }
    }

    fn hand_out(&mut self, now: Timestamp) {
        for (name, worker) in self.workers.iter_mut().filter(|(_, worker)| !worker.busy) {
            let batch = self.pipeline.poll_deliveries(name, now, BATCH);
            if !batch.is_empty() {
                worker.busy = true;
                // The worker is idle, so that its channel has room; it ends only after this thread.
                let _room = worker.batches.try_send(batch);
            }
        }
    }

    fn is_done(&self, now: Timestamp) -> bool {
        let Some(latest) = self.closing else { return false };
        let idle = self.workers.values().all(|worker| !worker.busy);
        now >= latest || (self.submitted.is_empty() && idle && self.pipeline.is_empty())
    }

    fn wait(&mut self, now: Timestamp) {
        let idle = |name: &str| self.workers.get(name).is_some_and(|worker| !worker.busy);
        let deadline = [self.pipeline.poll_timeout(now, idle), self.closing].into_iter().flatten().min();
        let patience = deadline.map_or(LONGEST_WAIT, |deadline| deadline.since(now)).min(LONGEST_WAIT);
        let never_submitted = never();
        // The other end is dropped at shutdown, and a closed channel would be ready for ever.
        let submitted = if self.closing.is_some() { &never_submitted } else { &self.submitted };
        select! {
            recv(submitted) -> notification => match notification {
                Ok(submission) => self.take(submission, now),
                Err(_) => { self.closing.get_or_insert(now.after(LONGEST_WAIT)); }
            },
            recv(self.outcomes) -> report => {
                if let Ok(report) = report {
                    let now = self.read_clock();
                    self.take_report(report, now);
                }
            }
            recv(self.controlled) -> control => match control {
                Ok(control) => self.take_control(control, now),
                Err(_) => { self.closing.get_or_insert(now.after(LONGEST_WAIT)); }
            },
            default(patience) => {}
        }
    }
}

fn reply<T>(answer: &Sender<T>, value: T) {
    // Whoever asked may have lost patience meanwhile.
    let _asker_left = answer.try_send(value);
}

/// What a worker has to say.
struct Report {
    output: Arc<str>,
    /// Which of the workers that this output has had.
    worker: u64,
    what: What,
}

enum What {
    Attempted(Arc<str>, Result<(), NotifyError>),
    Untried(Arc<str>),
    Idle,
}

/// The thread of one output, as the deciding thread sees it.
struct Worker {
    batches: Sender<Vec<Delivery>>,
    busy: bool,
    number: u64,
    fingerprint: Fingerprint,
}

/// Starts workers.
struct Crew {
    reports: Sender<Report>,
    clock: Clock,
    started: u64,
}

impl Crew {
    fn start(&mut self, name: &str, ready: Ready) -> Result<Worker, StartError> {
        let Ready { mut notifier, fingerprint } = ready;
        let (batches, received) = bounded::<Vec<Delivery>>(1);
        let (reports, clock) = (self.reports.clone(), self.clock.clone());
        self.started += 1;
        let number = self.started;
        let output: Arc<str> = name.into();
        let run = move || {
            let report = |what| reports.send(Report { output: Arc::clone(&output), worker: number, what }).is_ok();
            loop {
                let batch = match received.recv_timeout(IDLE_AFTER) {
                    Ok(batch) => batch,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        if let Err(error) = notifier.idle((clock.wall)()) {
                            tracing::warn!(%output, %error, "connection lost");
                        }
                        continue;
                    }
                };
                let mut failed = false;
                for delivery in batch {
                    let what = if failed {
                        What::Untried(delivery.id)
                    } else {
                        let outcome = notifier.send(&delivery, (clock.wall)());
                        failed = !matches!(outcome, Ok(()) | Err(NotifyError::Permanent { .. }));
                        What::Attempted(delivery.id, outcome)
                    };
                    if !report(what) {
                        return;
                    }
                }
                if !report(What::Idle) {
                    return;
                }
            }
        };
        // The thread ends with its channel; a receiver that hangs must not keep the program from ending.
        let _detached = spawn(&format!("out {name}"), run)?;
        Ok(Worker { batches, busy: false, number, fingerprint })
    }
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Notifications between whoever submits and the deciding thread; further ones are lost and counted.
const SUBMISSIONS: usize = 16_384;
/// Notifications that one commit covers at most.
const MOST_IN_A_TURN: usize = 2_000;
/// Deliveries that a worker is given at once.
const BATCH: usize = 64;
/// Changes that are kept while the store fails; older ones are in memory only.
const MOST_UNCOMMITTED: usize = 100_000;
/// A worker without work looks after its connection this often.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// How often it is asked whether the store is whole.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The deciding thread looks around at least this often.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const TEST_WITHIN: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn what_is_submitted_before_the_end_is_delivered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alerts.ndjson");
        let settings = serde_yaml::from_str(&format!("{{type: file, path: {}}}", path.display())).unwrap();
        let settings =
            DispatchSettings { outputs: BTreeMap::from([("log".to_owned(), settings)]), ..Default::default() };
        let dispatcher = Dispatcher::start(&settings, context()).unwrap();
        for _ in 0..1000 {
            dispatcher.submit((*example::firing()).clone());
        }
        dispatcher.submit((*example::resolved()).clone());
        let status = dispatcher.shutdown(Duration::from_secs(60));
        assert_eq!((status.submitted, status.lost, status.outputs["log"].delivered), (1001, 0, 1001));
        let lines = std::fs::read_to_string(path).unwrap();
        let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!((lines.lines().count(), &last["type"]), (1001, &"alert.resolved".into()));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_a_problem_that_others_hear_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("problems.ndjson");
        let outputs = format!(
            "{{bad: {{type: file, path: {0}}}, good: {{type: file, path: {0}/problems.ndjson}}}}",
            directory.path().display()
        );
        let settings = DispatchSettings { outputs: serde_yaml::from_str(&outputs).unwrap(), ..Default::default() };
        let dispatcher = Dispatcher::start(&settings, context()).unwrap();
        dispatcher.submit((*example::firing()).clone());
        let written = || std::fs::read_to_string(&path).unwrap_or_default();
        wait_until("the problem is said", || written().contains("output `bad` is failing: cannot append to"));
        assert!(written().contains("alert.firing"), "the other output got its alert");
        let status = dispatcher.shutdown(Duration::ZERO);
        assert_eq!(status.outputs["bad"].waiting, 1, "nothing is lost meanwhile");
    }

    fn context() -> Context {
        let clock = || Timestamp::from_nanos(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap());
        Context { origin: example::origin(), clock: Clock::single(clock), ledger: None }
    }

    fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let begin = std::time::Instant::now();
        while !holds() {
            assert!(begin.elapsed() < Duration::from_secs(30), "{what}: not within 30 seconds");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
