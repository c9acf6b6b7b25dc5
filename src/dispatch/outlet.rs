//! One output as the pipeline sees it: its groups, its queue, and how it is doing.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::alert::{Delivery, Due, Groups, Labels, Message, Notification, Origin, Waits, Words, label_values};
use crate::dispatch::backoff::TokenBucket;
use crate::dispatch::encode::Encoder;
use crate::dispatch::notifier::NotifyError;
use crate::dispatch::output::{self, OutputError};
use crate::dispatch::queue::{Health, Queue, QueueLimits, Verdict};
use crate::dispatch::settings::{Coalesce, Common, GroupSettings, OutputSettings, Service};
use crate::dispatch::status::OutputStatus;
use crate::time::Timestamp;

/// One output.
#[derive(Debug)]
pub struct Outlet {
    name: Arc<str>,
    encoder: Encoder,
    common: Common,
    grouped: Option<Waits>,
    coalesce: Coalesce,
    pub(super) queue: Queue,
    pub(super) groups: Groups,
    pub(super) status: OutputStatus,
    /// What is kept alone on disk until its group is sent: by group and alert.
    alone: BTreeMap<(Labels, Arc<str>), Vec<Arc<str>>>,
    /// From where on only the store holds deliveries.
    spilled: Option<Spill>,
    /// Whether the failure that goes on has been said.
    said_failing: bool,
    /// Losses that have been said.
    said_given_up: u64,
    heartbeat_at: Option<Timestamp>,
    /// What the output that stands in has got already.
    handed_over: BTreeSet<Arc<str>>,
}

#[derive(Debug, Clone, Copy)]
struct Spill {
    from: u64,
    count: u64,
}

/// Deliveries that an outlet wants from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    /// From this place in the order on.
    pub from: u64,
    /// So many at most.
    pub most: usize,
}

impl Outlet {
    /// An empty one.
    pub fn new(name: &str, settings: &OutputSettings, max_age: Duration, now: Timestamp) -> Result<Self, OutputError> {
        let common = settings.common.clone();
        let limits = QueueLimits { capacity: common.queue.max(1), max_age: common.max_age.unwrap_or(max_age) };
        let rate = common.rate.or(settings.transport.default_rate());
        let bucket = rate.map(|rate| TokenBucket::new(rate.per_second, rate.burst, now));
        Ok(Self {
            name: name.into(),
            encoder: output::encoder(settings)?,
            grouped: settings.transport.default_waits(common.group),
            coalesce: common.coalesce.unwrap_or(settings.transport.default_coalesce()),
            queue: Queue::new(limits, bucket),
            groups: Groups::default(),
            status: OutputStatus::default(),
            alone: BTreeMap::new(),
            spilled: None,
            said_failing: false,
            said_given_up: 0,
            heartbeat_at: common.heartbeat.map(|every| now.after(every)),
            handed_over: BTreeSet::new(),
            common,
        })
    }

    /// The output that stands in for this one.
    pub fn fallback(&self) -> Option<&str> {
        self.common.fallback.as_deref()
    }

    /// Whether it gets what is held back from others.
    pub fn is_audit(&self) -> bool {
        self.common.audit
    }

    /// Whether its receiver forgets alerts that it is not reminded of.
    pub fn needs_reminding(&self) -> bool {
        matches!(self.encoder, Encoder::Endpoint(Service::Alertmanager, _))
    }

    /// What a resolution makes needless: it says both, where the output wants it so.
    pub fn merged_by(&self, message: &Message) -> Vec<Arc<str>> {
        match (self.coalesce, message.kind().ends()) {
            (Coalesce::Merge, true) => self.queue.unattempted(&message.key()),
            _ => Vec::new(),
        }
    }

    /// Whether several alerts may become one delivery.
    pub fn groups_alerts(&self) -> bool {
        self.grouped.is_some()
    }

    /// Whether it wants a notification of this kind and severity.
    pub fn wants(&self, notification: &Notification) -> bool {
        let mild = notification.alert.is_some() && notification.severity() < self.common.min_severity;
        !mild && (self.common.send_resolved || !notification.kind.ends())
    }

    /// Goes on under settings that were changed, with what waits and what was counted.
    pub fn after(self, mut before: Self) -> Self {
        before.queue.begin_anew(self.queue.limits(), self.queue.bucket().cloned());
        let same_heartbeat = self.common.heartbeat == before.common.heartbeat;
        Self {
            queue: before.queue,
            groups: before.groups,
            alone: before.alone,
            spilled: before.spilled,
            status: before.status,
            said_failing: before.said_failing,
            said_given_up: before.said_given_up,
            heartbeat_at: if same_heartbeat { before.heartbeat_at } else { self.heartbeat_at },
            handed_over: before.handed_over,
            ..self
        }
    }

    /// Takes the limits of another one that is otherwise the same.
    pub fn take_limits(&mut self, other: &Self) {
        self.queue.set_limits(other.queue.limits());
    }

    /// Whatever its groups had to say, and what the store need no longer keep alone.
    pub fn dissolve_groups(&mut self, now: Timestamp) -> (Vec<Due>, Vec<Arc<str>>) {
        let alone = std::mem::take(&mut self.alone).into_values().flatten().collect();
        (self.groups.dissolve(now), alone)
    }

    /// Deliveries that wait, here and in the store.
    pub fn waiting(&self) -> u64 {
        self.queue.len() as u64 + self.spilled.map_or(0, |spill| spill.count)
    }

    /// Whether an alert is followed by its flows.
    pub fn tells_flows(&self) -> bool {
        self.common.emit_flows
    }

    /// Renders a message; its bytes never change after that. `created` is the wall clock's time.
    pub fn render(&self, message: Message, origin: &Origin, sequence: u64, created: Timestamp) -> Delivery {
        Delivery {
            sequence,
            id: Arc::clone(&message.id),
            output: Arc::clone(&self.name),
            key: message.key().into(),
            kind: message.kind(),
            severity: message.severity(),
            created,
            payload: self.encoder.encode(&message, origin).into(),
            remaining: Vec::new(),
            attempts: 0,
            last_error: None,
            // Kept where another output may have to render it again.
            message: self.common.fallback.is_some().then(|| Arc::new(message)),
        }
    }

    /// Puts a delivery into the queue, or leaves it to the store where the queue is full.
    pub fn queue_up(&mut self, delivery: Delivery, stored: bool, now: Timestamp) {
        self.status.queued += 1;
        match &mut self.spilled {
            Some(spill) => spill.count += 1,
            None if stored && !self.queue.has_room() => {
                self.spilled = Some(Spill { from: delivery.sequence, count: 1 });
            }
            None => {
                if self.queue.push(delivery, now).is_some() {
                    self.status.queue_full += 1;
                }
            }
        }
    }

    /// The store holds deliveries of an earlier run.
    pub fn expect_refill(&mut self, count: u64) {
        self.spilled = Some(Spill { from: 0, count });
    }

    /// What to fetch from the store, where there is room for it.
    pub fn wants_refill(&self) -> Option<Refill> {
        let spill = self.spilled?;
        let room = self.common.queue.max(1).saturating_sub(self.queue.len());
        let enough = room > 0 && room >= self.common.queue / 2;
        enough.then(|| Refill { from: spill.from, most: room.min(MOST_REFILLED) })
    }

    /// Takes what the store held, with when it was made by the clock that nobody sets.
    pub fn refill(&mut self, asked: Refill, deliveries: Vec<(Delivery, Timestamp)>) {
        let complete = deliveries.len() < asked.most;
        let count = deliveries.len() as u64;
        let last = deliveries.last().map(|(delivery, _)| delivery.sequence);
        for (delivery, born) in deliveries {
            if self.queue.push(delivery, born).is_some() {
                self.status.queue_full += 1;
            }
        }
        self.spilled = match (self.spilled, last) {
            (Some(spill), Some(last)) if !complete => {
                Some(Spill { from: last + 1, count: spill.count.saturating_sub(count) })
            }
            _ => None,
        };
    }

    /// Adds an alert's word to its group; `alone` is what the store keeps of it until then.
    pub fn add_to_group(
        &mut self,
        settings: &GroupSettings,
        notification: &Arc<Notification>,
        alone: Option<Arc<str>>,
        now: Timestamp,
    ) {
        let Some(default) = self.grouped else { return };
        let waits = Waits {
            wait: settings.wait.unwrap_or(default.wait),
            interval: settings.interval.unwrap_or(default.interval),
            repeat: settings.repeat.or(default.repeat).filter(|repeat| !repeat.is_zero()),
        };
        let rule = [String::from("rule")];
        let by = settings.by.as_deref().unwrap_or(&rule);
        let value = |label: &String| (label.clone(), label_values(notification, label).join(","));
        let labels: Labels = by.iter().map(value).collect();
        if let Some(id) = alone {
            self.alone.entry((labels.clone(), notification.key().into())).or_default().push(id);
        }
        let words = if self.coalesce == Coalesce::Both { Words::Each } else { Words::Last };
        self.groups.handle(labels, waits, Arc::clone(notification), words, now);
    }

    /// A group that is due, and what the store need no longer keep alone. While
    /// deliveries wait, groups wait too, and grow instead of queueing up.
    pub fn poll_group(&mut self, now: Timestamp) -> Option<(Due, Vec<Arc<str>>)> {
        if !self.takes_groups() {
            return None;
        }
        let due = self.groups.poll(now)?;
        let mut alone = Vec::new();
        for key in &due.keys {
            alone.extend(self.alone.remove(&(due.labels.clone(), Arc::clone(key))).unwrap_or_default());
        }
        Some((due, alone))
    }

    /// When there may be something to do; `idle` says whether its worker could take a delivery.
    pub fn poll_timeout(&self, now: Timestamp, idle: bool) -> Option<Timestamp> {
        let queue = if idle { self.queue.poll_timeout(now) } else { None };
        let groups = if self.takes_groups() { self.groups.poll_timeout() } else { None };
        let fallback = match (&self.common.fallback, self.queue.health()) {
            (Some(_), (Health::Failing, Some(since))) => Some(since.after(HAND_OVER_AFTER)).filter(|at| *at > now),
            _ => None,
        };
        [queue, groups, self.heartbeat_at, fallback].into_iter().flatten().min()
    }

    /// Takes the outcome of an attempt. A delivery that was too large is replaced by its small form, which
    /// `smaller` then holds.
    pub fn handle_outcome(
        &mut self,
        id: &str,
        outcome: &Result<(), NotifyError>,
        now: Timestamp,
        chance: f64,
        smaller: &mut Option<Arc<[u8]>>,
    ) -> Verdict {
        let large = match outcome {
            Err(NotifyError::TooLarge { .. }) => self.queue.delivery(id).map(|delivery| Arc::clone(&delivery.payload)),
            _ => None,
        };
        let verdict = self.queue.handle_outcome(id, outcome, now, chance);
        match &verdict {
            Verdict::Delivered => self.status.delivered += 1,
            Verdict::Later { .. } => self.status.retried += 1,
            Verdict::Dead => self.status.refused += 1,
            Verdict::Smaller => {
                let small: Option<Arc<[u8]>> = large.map(|payload| self.encoder.shrink(&payload).into());
                if let Some(payload) = &small {
                    self.queue.replace_payload(id, Arc::clone(payload));
                }
                *smaller = small;
            }
            Verdict::Gone | Verdict::Unknown => {}
        }
        self.status.last_error = outcome.as_ref().err().map(ToString::to_string);
        verdict
    }

    /// Whether others should hear how it is doing: `Some(true)` when it works again, `Some(false)` when it fails.
    pub fn handle_health(&mut self, outcome: &Result<(), NotifyError>, now: Timestamp) -> Option<bool> {
        if outcome.is_ok() {
            self.handed_over.clear();
            return std::mem::take(&mut self.said_failing).then_some(true);
        }
        if matches!(outcome, Err(NotifyError::Partial { .. })) {
            return None;
        }
        let at_once = matches!(
            outcome,
            Err(NotifyError::Misconfigured { .. } | NotifyError::Moved { .. } | NotifyError::Gone { .. })
        );
        let telling = at_once || self.failing_for(now) >= FAILING_IS_A_PROBLEM_AFTER;
        let news = telling && !self.said_failing;
        self.said_failing |= telling;
        news.then_some(false)
    }

    /// How many deliveries were given up since this was asked last.
    pub fn news_of_given_up(&mut self) -> u64 {
        let given_up = self.status.given_up();
        given_up - std::mem::replace(&mut self.said_given_up, given_up)
    }

    /// Whether it is time for a sign of life. None is queued behind deliveries that wait.
    pub fn heartbeat_is_due(&mut self, now: Timestamp) -> bool {
        let (Some(every), Some(at)) = (self.common.heartbeat, self.heartbeat_at) else { return false };
        if now < at {
            return false;
        }
        self.heartbeat_at = Some(now.after(every.max(Duration::from_secs(1))));
        self.queue.is_empty()
    }

    /// The output that stands in, and what it has not got yet, once this one has failed for long.
    pub fn poll_hand_over(&mut self, now: Timestamp) -> Option<(String, Vec<Arc<Message>>)> {
        let fallback = self.common.fallback.clone()?;
        let gone = self.queue.health().0 == Health::Gone;
        if !gone && self.failing_for(now) < HAND_OVER_AFTER {
            return None;
        }
        let new: Vec<(Arc<str>, Arc<Message>)> = self
            .queue
            .deliveries()
            .filter(|delivery| !self.handed_over.contains(&delivery.id))
            .filter_map(|delivery| Some((Arc::clone(&delivery.id), Arc::clone(delivery.message.as_ref()?))))
            .collect();
        let (ids, messages): (Vec<_>, Vec<_>) = new.into_iter().unzip();
        self.handed_over.extend(ids);
        Some((fallback, messages))
    }

    /// How it stands.
    pub fn current_status(&self) -> OutputStatus {
        let (health, failing_since) = self.queue.health();
        let waiting = usize::try_from(self.waiting()).unwrap_or(usize::MAX);
        let oldest = self.queue.deliveries().next().map(|delivery| delivery.created);
        OutputStatus {
            waiting,
            waiting_bytes: self.queue.bytes(),
            oldest,
            health,
            failing_since,
            ..self.status.clone()
        }
    }

    fn takes_groups(&self) -> bool {
        self.queue.len() < 2 && self.spilled.is_none()
    }

    fn failing_for(&self, now: Timestamp) -> Duration {
        self.queue.health().1.map_or(Duration::ZERO, |since| now.since(since))
    }
}

/// A receiver that fails for longer is a problem that other receivers hear of.
const FAILING_IS_A_PROBLEM_AFTER: Duration = Duration::from_secs(60);
/// After this time the fallback stands in.
const HAND_OVER_AFTER: Duration = Duration::from_secs(600);
/// Deliveries that are fetched from the store at once.
const MOST_REFILLED: usize = 2_000;
