//! From notifications to deliveries, and from outcomes to what is done next.
//!
//! Pure: the dispatcher feeds it notifications, outcomes and the time, and
//! performs what it polls. It owns the routing tree and the queue of every
//! output.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::alert::{Notification, Problem};
use crate::dispatch::backoff::TokenBucket;
use crate::dispatch::dispatcher::StartError;
use crate::dispatch::encode::{self, Encoder};
use crate::dispatch::message::{Message, Origin};
use crate::dispatch::notifier::{Delivery, NotifyError};
use crate::dispatch::output;
use crate::dispatch::queue::{Health, Queue, QueueLimits, Verdict};
use crate::dispatch::route::Router;
use crate::dispatch::settings::{Common, DispatchSettings, OutputSettings};
use crate::dispatch::status::{OutputStatus, Status};
use crate::rule::Severity;
use crate::time::Timestamp;

/// All that is decided about deliveries.
#[derive(Debug)]
pub struct Pipeline {
    origin: Origin,
    router: Router,
    outputs: BTreeMap<Arc<str>, Output>,
    submitted: u64,
    unsubmitted: u64,
}

#[derive(Debug)]
struct Output {
    encoder: Encoder,
    common: Common,
    queue: Queue,
    status: OutputStatus,
    /// Whether the failure that goes on has been said.
    said_failing: bool,
    /// Losses that have been said.
    said_given_up: u64,
}

impl Pipeline {
    /// Ready for the first notification.
    pub fn new(settings: &DispatchSettings, origin: Origin, now: Timestamp) -> Result<Self, StartError> {
        let names: Vec<String> = settings.outputs.keys().cloned().collect();
        let router = Router::new(&settings.routing, &names)?;
        let output = |(name, output): (&String, &OutputSettings)| {
            let common = output.common.clone();
            let limits = QueueLimits { capacity: common.queue.max(1), max_age: common.max_age };
            let bucket = common.rate.map(|rate| TokenBucket::new(rate.per_second, rate.burst, now));
            let state = Output {
                encoder: output::encoder(output).map_err(|source| StartError::Output { name: name.clone(), source })?,
                queue: Queue::new(limits, bucket),
                common,
                status: OutputStatus::default(),
                said_failing: false,
                said_given_up: 0,
            };
            Ok((Arc::from(name.as_str()), state))
        };
        let outputs = settings.outputs.iter().map(output).collect::<Result<_, StartError>>()?;
        Ok(Self { origin, router, outputs, submitted: 0, unsubmitted: 0 })
    }

    /// Takes a notification and puts it into the queue of everybody who gets it.
    pub fn handle_notification(&mut self, notification: Arc<Notification>, now: Timestamp) {
        self.submitted += 1;
        self.route(&notification, None, now);
    }

    /// Takes the number of notifications that found no room on the way here.
    pub fn handle_losses(&mut self, lost: u64, now: Timestamp) {
        self.unsubmitted += lost;
        let problem = Problem {
            id: "notifications-lost",
            severity: Severity::High,
            summary: format!("{lost} notifications were lost before they could be queued"),
            details: BTreeMap::from([("lost", lost.to_string()), ("lost_in_all", self.unsubmitted.to_string())]),
            resolved: false,
        };
        self.route(&Arc::new(Notification::of_problem(now, problem)), None, now);
    }

    /// Takes the outcome of an attempt; `chance`, within 0 and 1, spreads the retries.
    pub fn handle_outcome(
        &mut self,
        name: &str,
        id: &str,
        outcome: &Result<(), NotifyError>,
        now: Timestamp,
        chance: f64,
    ) {
        let Some(output) = self.outputs.get_mut(name) else { return };
        let small = match outcome {
            Err(NotifyError::TooLarge { .. }) => {
                output.queue.deliveries().find(|delivery| *delivery.id == *id).map(|delivery| delivery.payload.clone())
            }
            _ => None,
        };
        match output.queue.handle_outcome(id, outcome, now, chance) {
            Verdict::Delivered => output.status.delivered += 1,
            Verdict::Later { .. } => output.status.retried += 1,
            Verdict::Smaller => {
                if let Some(payload) = small {
                    output.queue.replace_payload(id, encode::json::shrink(&payload).into());
                }
            }
            Verdict::Dead => output.status.refused += 1,
            Verdict::Gone | Verdict::Unknown => {}
        }
        output.status.last_error = outcome.as_ref().err().map(ToString::to_string);
        let telling = match outcome {
            Err(NotifyError::Misconfigured { .. } | NotifyError::Gone { .. }) => true,
            _ => failing_for(&output.queue, now) >= FAILING_IS_A_PROBLEM_AFTER,
        };
        let recovered = outcome.is_ok() && output.said_failing;
        if recovered || (telling && !output.said_failing) {
            output.said_failing = !recovered;
            self.say_failing(name, recovered, now);
        }
    }

    /// Takes back a delivery that a worker did not attempt.
    pub fn handle_untried(&mut self, name: &str, id: &str) {
        if let Some(output) = self.outputs.get_mut(name) {
            output.queue.give_back(id);
        }
    }

    /// Gives up what is too old, and says what was given up.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let mut said = Vec::new();
        for (name, output) in &mut self.outputs {
            output.status.expired += output.queue.expire(now).len() as u64;
            let given_up = output.status.given_up();
            if given_up > output.said_given_up {
                said.push((Arc::clone(name), given_up - output.said_given_up, output.status.clone()));
                output.said_given_up = given_up;
            }
        }
        for (name, count, status) in said {
            let problem = Problem {
                id: "deliveries-given-up",
                severity: Severity::High,
                summary: format!("{count} deliveries to `{name}` were given up"),
                details: BTreeMap::from([
                    ("output", name.to_string()),
                    ("expired", status.expired.to_string()),
                    ("queue_full", status.queue_full.to_string()),
                    ("refused", status.refused.to_string()),
                    ("last_error", status.last_error.unwrap_or_default()),
                ]),
                resolved: false,
            };
            self.route(&Arc::new(Notification::of_problem(now, problem)), Some(&name), now);
        }
    }

    /// The next delivery that an output may attempt now.
    pub fn poll_delivery(&mut self, name: &str, now: Timestamp) -> Option<Delivery> {
        self.outputs.get_mut(name)?.queue.poll(now)
    }

    /// When there may be something to do, if nothing happens before.
    pub fn poll_timeout(&self, now: Timestamp, idle: impl Fn(&str) -> bool) -> Option<Timestamp> {
        let queues = self.outputs.iter().filter(|(name, _)| idle(name));
        queues.filter_map(|(_, output)| output.queue.poll_timeout(now)).min()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.outputs.values().all(|output| output.queue.is_empty())
    }

    /// How everything stands.
    pub fn status(&self) -> Status {
        let output = |(name, output): (&Arc<str>, &Output)| {
            let (health, since) = output.queue.health();
            let status =
                OutputStatus { waiting: output.queue.len(), health, failing_since: since, ..output.status.clone() };
            (name.to_string(), status)
        };
        Status { submitted: self.submitted, lost: self.unsubmitted, outputs: self.outputs.iter().map(output).collect() }
    }

    fn route(&mut self, notification: &Arc<Notification>, except: Option<&str>, now: Timestamp) {
        for (name, _group) in self.router.receivers(notification) {
            if except == Some(name.as_str()) {
                continue;
            }
            let Some(output) = self.outputs.get_mut(name.as_str()) else { continue };
            let unwanted = notification.severity() < output.common.min_severity && notification.alert.is_some();
            if unwanted || (notification.kind.ends() && !output.common.send_resolved) {
                continue;
            }
            output.push(&name, Message::single(&name, Arc::clone(notification)), &self.origin, now);
        }
    }

    fn say_failing(&mut self, name: &str, recovered: bool, now: Timestamp) {
        let Some(output) = self.outputs.get(name) else { return };
        let reason = output.status.last_error.clone().unwrap_or_default();
        let summary = match (recovered, output.queue.health().0) {
            (true, _) => format!("output `{name}` works again"),
            (false, Health::Gone) => format!("output `{name}` is gone for good: {reason}"),
            (false, _) => format!("output `{name}` is failing: {reason}"),
        };
        let problem = Problem {
            id: "output-failing",
            severity: Severity::High,
            summary,
            details: BTreeMap::from([
                ("output", name.to_owned()),
                ("waiting", output.queue.len().to_string()),
                ("last_error", reason),
            ]),
            resolved: recovered,
        };
        self.route(&Arc::new(Notification::of_problem(now, problem)), Some(name), now);
    }
}

impl Output {
    fn push(&mut self, name: &str, message: Message, origin: &Origin, now: Timestamp) {
        let payload = self.encoder.encode(&message, origin);
        let last = message.last();
        let delivery = Delivery {
            id: Arc::clone(&message.id),
            output: name.into(),
            key: last.key().into(),
            kind: message.kind(),
            severity: message.severity(),
            created: now,
            payload: payload.into(),
            remaining: Vec::new(),
            attempts: 0,
            message: Some(Arc::new(message)),
        };
        self.status.queued += 1;
        if self.queue.push(delivery).is_some() {
            self.status.queue_full += 1;
        }
    }
}

fn failing_for(queue: &Queue, now: Timestamp) -> Duration {
    queue.health().1.map_or(Duration::ZERO, |since| now.since(since))
}

/// A receiver that fails for longer is a problem that other receivers hear of.
const FAILING_IS_A_PROBLEM_AFTER: Duration = Duration::from_secs(60);
