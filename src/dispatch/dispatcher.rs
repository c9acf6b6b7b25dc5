//! The threads of delivery: one that decides, and one for each output.
//!
//! ```text
//! submit -> [bounded] -> dispatch -> [one batch an output] -> worker -> receiver
//!                            ^------------- outcomes -----------'
//! ```
//!
//! Nothing that a receiver does reaches another receiver or whoever submits:
//! a worker blocks alone, and a full channel counts a loss at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, never, select};

use crate::alert::Notification;
use crate::dispatch::message::Origin;
use crate::dispatch::notifier::{Delivery, Notifier, NotifyError};
use crate::dispatch::output::{self, OutputError};
use crate::dispatch::pipeline::Pipeline;
use crate::dispatch::route::RouteError;
use crate::dispatch::settings::DispatchSettings;
use crate::dispatch::status::Status;
use crate::time::Timestamp;

/// What tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a dispatcher needs to know of the program around it.
#[derive(Clone)]
pub struct Context {
    /// Who says it.
    pub origin: Origin,
    /// What tells the time.
    pub clock: Clock,
}

/// Delivers notifications until it is shut down.
#[derive(Debug)]
pub struct Dispatcher {
    submissions: Sender<Notification>,
    controls: Sender<Control>,
    lost: Arc<AtomicU64>,
    thread: JoinHandle<Status>,
}

/// Why delivery cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The routing tree is wrong.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// An output is set up wrongly.
    #[error("output `{name}`")]
    Output {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: OutputError,
    },
    /// A thread could not be made.
    #[error("cannot start a thread for delivery")]
    Thread(#[source] std::io::Error),
}

impl Dispatcher {
    /// Starts the threads.
    pub fn start(settings: &DispatchSettings, context: Context) -> Result<Self, StartError> {
        let pipeline = Pipeline::new(settings, context.origin.clone(), (context.clock)())?;
        let (outcomes_in, outcomes) = bounded(settings.outputs.len().max(1) * (BATCH + 1));
        let mut workers = BTreeMap::new();
        for (name, output) in &settings.outputs {
            let notifier =
                output::notifier(output).map_err(|source| StartError::Output { name: name.clone(), source })?;
            let worker = Worker::start(name, notifier, Arc::clone(&context.clock), outcomes_in.clone())?;
            workers.insert(Arc::from(name.as_str()), worker);
        }
        let (submissions, submitted) = bounded(SUBMISSIONS);
        let (controls, controlled) = bounded(16);
        let lost = Arc::new(AtomicU64::new(0));
        let desk = Desk {
            pipeline,
            workers,
            clock: context.clock,
            submitted,
            controlled,
            outcomes,
            lost: Arc::clone(&lost),
            lost_before: 0,
            closing: None,
        };
        let thread = spawn("dispatch", move || desk.run())?;
        Ok(Self { submissions, controls, lost, thread })
    }

    /// Hands a notification over. Never blocks: where there is no room the loss is counted and said.
    pub fn submit(&self, notification: Notification) {
        match self.submissions.try_send(notification) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How deliveries stand; `None` where the thread does not answer within a second.
    pub fn status(&self) -> Option<Status> {
        let (answer, answered) = bounded(1);
        self.controls.send_timeout(Control::Status(answer), ANSWER_WITHIN).ok()?;
        answered.recv_timeout(ANSWER_WITHIN).ok()
    }

    /// Delivers what waits, for as long as `patience` allows, and ends. The status tells what is left.
    pub fn shutdown(self, patience: Duration) -> Status {
        let Self { submissions, controls, thread, .. } = self;
        drop(submissions);
        // A thread that has ended already takes no more messages, and its status is there to join.
        let _ended_before = controls.send(Control::Shutdown(patience));
        thread.join().unwrap_or_default()
    }
}

enum Control {
    Status(Sender<Status>),
    Shutdown(Duration),
}

/// The thread that decides.
struct Desk {
    pipeline: Pipeline,
    workers: BTreeMap<Arc<str>, Worker>,
    clock: Clock,
    submitted: Receiver<Notification>,
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
            let now = (self.clock)();
            self.take_what_is_there(now);
            self.say_losses(now);
            self.pipeline.handle_timeout(now);
            self.hand_out(now);
            if self.is_done(now) {
                return self.pipeline.status();
            }
            self.wait(now);
        }
    }

    /// Whatever has come in since the last turn, without waiting.
    fn take_what_is_there(&mut self, now: Timestamp) {
        for notification in self.submitted.try_iter().take(SUBMISSIONS) {
            self.pipeline.handle_notification(Arc::new(notification), now);
        }
        while let Ok(report) = self.outcomes.try_recv() {
            self.take_report(report, now);
        }
        while let Ok(control) = self.controlled.try_recv() {
            self.take_control(control, now);
        }
    }

    fn take_report(&mut self, report: Report, now: Timestamp) {
        match report.what {
            What::Attempted(id, outcome) => {
                if let Err(error) = &outcome {
                    tracing::warn!(output = %report.output, delivery = %id, %error, "delivery failed");
                }
                self.pipeline.handle_outcome(&report.output, &id, &outcome, now, fastrand::f64());
            }
            What::Untried(id) => self.pipeline.handle_untried(&report.output, &id),
            What::Idle => {
                if let Some(worker) = self.workers.get_mut(&report.output) {
                    worker.busy = false;
                }
            }
        }
    }

    fn take_control(&mut self, control: Control, now: Timestamp) {
        match control {
            Control::Status(answer) => {
                // Whoever asked may have lost patience.
                let _asker_left = answer.try_send(self.pipeline.status());
            }
            Control::Shutdown(patience) => self.closing = Some(now.after(patience)),
        }
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
            let batch: Vec<Delivery> =
                std::iter::from_fn(|| self.pipeline.poll_delivery(name, now)).take(BATCH).collect();
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
                Ok(notification) => self.pipeline.handle_notification(Arc::new(notification), now),
                Err(_) => { self.closing.get_or_insert(now.after(LONGEST_WAIT)); }
            },
            recv(self.outcomes) -> report => {
                if let Ok(report) = report {
                    let now = (self.clock)();
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

/// What a worker has to say.
struct Report {
    output: Arc<str>,
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
}

impl Worker {
    fn start(
        name: &str,
        mut notifier: Box<dyn Notifier>,
        clock: Clock,
        reports: Sender<Report>,
    ) -> Result<Self, StartError> {
        let (batches, received) = bounded::<Vec<Delivery>>(1);
        let output: Arc<str> = name.into();
        let run = move || {
            let report = |what| reports.send(Report { output: Arc::clone(&output), what }).is_ok();
            loop {
                let batch = match received.recv_timeout(IDLE_AFTER) {
                    Ok(batch) => batch,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        if let Err(error) = notifier.idle(clock()) {
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
                        let outcome = notifier.send(&delivery, clock());
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
        Ok(Self { batches, busy: false })
    }
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Notifications between whoever submits and the deciding thread; further ones are lost and counted.
const SUBMISSIONS: usize = 16_384;
/// Deliveries that a worker is given at once.
const BATCH: usize = 64;
/// A worker without work looks after its connection this often.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// The deciding thread looks around at least this often.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

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
        Context { origin: example::origin(), clock: Arc::new(clock) }
    }

    fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let begin = std::time::Instant::now();
        while !holds() {
            assert!(begin.elapsed() < Duration::from_secs(30), "{what}: not within 30 seconds");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
