//! From notifications to deliveries, and from outcomes to what is done next.
//!
//! Pure: the dispatcher feeds it notifications, outcomes and the time, and
//! performs what it polls. It owns the silences, the routing tree, and the
//! groups and the queue of every output. The time it is given is that of a
//! clock that nobody sets; what people and other runs say in times of the wall
//! clock (silences, schedules, what is kept) is judged by that one. What must outlive a crash it hands out
//! as changes, which are to be on disk before a delivery is attempted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::alert::{
    Alert, AlertRecord, Change, Delivery, DocumentKind, GivenUp, Inhibition, LedgerError, Message, Notification,
    Origin, Problem, Reason, Redactor, Silence, Silences, Standing, recall,
};
use crate::dispatch::dispatcher::StartError;
use crate::dispatch::notifier::NotifyError;
use crate::dispatch::outlet::{Outlet, Refill};
use crate::dispatch::queue::{Health, Verdict};
use crate::dispatch::route::Router;
use crate::dispatch::settings::{CONFIGURED, DispatchSettings, GroupSettings, SilenceSettings};
use crate::dispatch::status::{OutputStatus, Status};
use crate::rule::Severity;
use crate::time::Timestamp;

/// All that is decided about deliveries.
#[derive(Debug)]
pub struct Pipeline {
    origin: Origin,
    router: Router,
    redactor: Option<Redactor>,
    outlets: BTreeMap<Arc<str>, Outlet>,
    inhibitions: Vec<Inhibition>,
    silences: Silences,
    /// By how many nanoseconds the wall clock is ahead.
    ahead: i64,
    /// Alerts that fire, by key.
    firing: BTreeMap<Arc<str>, Firing>,
    /// Alerts of the last run that their own rule held back, until it is known whether they live.
    held_by_rule: Vec<Arc<Notification>>,
    /// When suppressed alerts must be looked at again.
    review_at: Option<Timestamp>,
    /// For how long a delivery is tried, where its output says nothing else.
    max_age: Duration,
    changes: Vec<Change>,
    durable: Durable,
    next_sequence: u64,
    pruned_at: Timestamp,
    said: Said,
    status: Status,
}

/// Whether changes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

#[derive(Debug)]
struct Firing {
    last: Arc<Notification>,
    /// What holds it back, while something does.
    suppressed: Option<Arc<str>>,
    /// Whether receivers have heard of it.
    told: bool,
}

/// Problems that have been said and are not over.
#[derive(Debug, Default)]
struct Said {
    store_failing: bool,
    store_filling: bool,
}

impl Pipeline {
    /// Ready for the first notification.
    pub fn new(settings: &DispatchSettings, origin: Origin, now: Timestamp) -> Result<Self, StartError> {
        let names: Vec<String> = settings.outputs.keys().cloned().collect();
        let router = Router::new(&settings.routing, &names)?;
        let mut outlets = BTreeMap::new();
        for (name, output) in &settings.outputs {
            let outlet = Outlet::new(name, output, settings.outbox.max_age, now)
                .map_err(|source| StartError::Output { name: name.clone(), source })?;
            if let Some(fallback) = outlet.fallback()
                && !names.iter().any(|name| name == fallback)
            {
                return Err(StartError::Fallback { name: name.clone(), fallback: fallback.to_owned() });
            }
            outlets.insert(Arc::from(name.as_str()), outlet);
        }
        Ok(Self {
            origin,
            router,
            redactor: settings.redactor()?,
            outlets,
            inhibitions: settings.inhibitions()?,
            silences: configured_silences(settings)?,
            ahead: 0,
            firing: BTreeMap::new(),
            held_by_rule: Vec::new(),
            review_at: None,
            max_age: settings.outbox.max_age,
            changes: Vec::new(),
            durable: Durable::No,
            next_sequence: 1,
            pruned_at: now,
            said: Said::default(),
            status: Status::default(),
        })
    }

    /// Takes what the wall clock says at this moment.
    pub fn handle_clock(&mut self, wall: Timestamp, now: Timestamp) {
        let ahead = wall.as_nanos().saturating_sub(now.as_nanos());
        if ahead.abs_diff(self.ahead) >= CLOCK_STEP {
            // Silences begin and end by that clock.
            self.review_at = Some(now);
        }
        self.ahead = ahead;
    }

    fn wall(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_nanos(now.as_nanos().saturating_add(self.ahead))
    }

    /// A moment of the wall clock by the clock that nobody sets.
    fn steady(&self, wall: Timestamp) -> Timestamp {
        Timestamp::from_nanos(wall.as_nanos().saturating_sub(self.ahead))
    }

    /// Goes on where the last run ended; from here on changes are handed out.
    pub fn restore(&mut self, standing: Standing, now: Timestamp) {
        self.durable = Durable::Yes;
        self.next_sequence = standing.next_sequence;
        for (name, count) in &standing.waiting {
            match self.outlets.get_mut(name.as_str()) {
                Some(outlet) => outlet.expect_refill(*count),
                None => {
                    self.status.stranded.insert(name.clone(), *count);
                }
            }
        }
        for silence in standing.silences {
            if let Err(error) = self.silences.add(silence) {
                tracing::warn!(%error, "a kept silence cannot be used");
            }
        }
        for record in &standing.firing {
            self.take_up(record, now);
        }
        self.review_at = Some(now);
        for (name, count) in self.status.stranded.clone() {
            self.say_stranded(&name, count, now);
        }
        if let Some(path) = standing.set_aside {
            self.say_set_aside(&path, now);
        }
    }

    /// Goes on with an alert that fired when the last run ended.
    fn take_up(&mut self, record: &AlertRecord, now: Timestamp) {
        let Some(notification) = recall(&record.document).map(Arc::new) else {
            return tracing::warn!(alert = %record.key, "a kept alert cannot be read");
        };
        let suppressed: Option<Arc<str>> = record.suppressed.as_deref().map(Into::into);
        if suppressed.as_deref().is_some_and(|reason| reason.starts_with(CAP)) {
            return self.held_by_rule.push(notification);
        }
        if record.told {
            let forgetful: Vec<Arc<str>> = self
                .outlets
                .iter()
                .filter(|(_, outlet)| outlet.needs_reminding())
                .map(|(name, _)| Arc::clone(name))
                .collect();
            self.remind(&forgetful, &notification, now);
        }
        let firing = Firing { last: notification, suppressed, told: record.told };
        self.firing.insert(record.key.as_str().into(), firing);
    }

    /// Says an alert that fires again to receivers that forget.
    fn remind(&mut self, forgetful: &[Arc<str>], notification: &Arc<Notification>, now: Timestamp) {
        let receivers = self.router.receivers(notification, self.wall(now));
        for name in forgetful.iter().filter(|name| receivers.contains_key(&***name)) {
            self.push(name, Message::single(name, Arc::clone(notification)), now);
        }
    }

    /// Goes on under another configuration, of which `next` was made. The outputs in `same` are as they were;
    /// of the others what waits is kept, for the output as it is now or, where it is gone, in the store.
    pub fn replace(&mut self, next: Self, same: &BTreeSet<Arc<str>>, now: Timestamp) {
        let gone: Vec<Arc<str>> =
            self.outlets.keys().filter(|name| !next.outlets.contains_key(*name)).cloned().collect();
        for name in
            gone.iter().chain(next.outlets.iter().filter(|(_, next)| !next.groups_alerts()).map(|(name, _)| name))
        {
            self.dissolve_groups(name, now);
        }
        let Self { router, redactor, inhibitions, silences, outlets, max_age, .. } = next;
        self.silences.replace_configured(silences, CONFIGURED);
        (self.router, self.redactor, self.inhibitions, self.max_age) = (router, redactor, inhibitions, max_age);
        let mut before = std::mem::take(&mut self.outlets);
        let mut forgetful = Vec::new();
        for (name, mut outlet) in outlets {
            let outlet = match before.remove(&name) {
                Some(mut old) if same.contains(&name) => {
                    old.take_limits(&outlet);
                    old
                }
                Some(old) => outlet.after(old),
                None => {
                    if let Some(count) = self.status.stranded.remove(&*name) {
                        outlet.expect_refill(count);
                    }
                    outlet
                }
            };
            if outlet.needs_reminding() && !same.contains(&name) {
                forgetful.push(Arc::clone(&name));
            }
            self.outlets.insert(name, outlet);
        }
        for (name, outlet) in before {
            self.strand(&name, &outlet, now);
        }
        let told: Vec<Arc<Notification>> =
            self.firing.values().filter(|firing| firing.told).map(|firing| Arc::clone(&firing.last)).collect();
        told.iter().for_each(|notification| self.remind(&forgetful, notification, now));
        self.review_at = Some(now);
    }

    /// Sends at once what the groups of an output had to say, and gives the groups up.
    fn dissolve_groups(&mut self, name: &Arc<str>, now: Timestamp) {
        let Some(outlet) = self.outlets.get_mut(name) else { return };
        let (news, alone) = outlet.dissolve_groups(now);
        for due in news {
            self.push(name, Message::of_group(name, due, now), now);
        }
        alone.into_iter().for_each(|id| self.record(Change::Forget(id)));
    }

    /// Leaves what waits for an output that is gone where it is: in the store, if there is one.
    fn strand(&mut self, name: &str, outlet: &Outlet, now: Timestamp) {
        let waiting = outlet.waiting();
        if waiting == 0 {
            return;
        }
        if self.durable == Durable::Yes {
            self.status.stranded.insert(name.to_owned(), waiting);
            return self.say_stranded(name, waiting, now);
        }
        self.status.lost += waiting;
        let details = BTreeMap::from([("output", name.to_owned()), ("lost", waiting.to_string())]);
        let summary = format!("{waiting} deliveries to `{name}` were given up: it is not configured any more");
        self.say(problem("deliveries-given-up", Severity::High, summary, details, false), None, now);
    }

    /// Takes which alerts still live. Of every other one nobody would ever say the end: it is withdrawn,
    /// since that it is over was not seen.
    pub fn confirm(&mut self, alive: &BTreeSet<Arc<str>>, now: Timestamp) {
        let lost: Vec<Arc<str>> = self.firing.keys().filter(|key| !alive.contains(*key)).map(Arc::clone).collect();
        for key in lost {
            let Some(mut alert) = self.firing.get(&key).and_then(|firing| firing.last.alert.as_deref().cloned()) else {
                continue;
            };
            alert.state.state = "withdrawn";
            alert.state.ended_at = Some(now);
            self.handle_notification(Arc::new(Notification::of_alert(DocumentKind::Withdrawn, now, alert)), now);
        }
        for held in std::mem::take(&mut self.held_by_rule).iter().filter(|held| !alive.contains(held.key())) {
            let Some(mut alert) = held.alert.as_deref().cloned() else { continue };
            alert.state.state = "withdrawn";
            alert.state.ended_at = Some(now);
            self.handle_held_back(Arc::new(Notification::of_alert(DocumentKind::Withdrawn, now, alert)), CAP, now);
        }
    }

    /// Takes a notification and puts it on its way to everybody who gets it.
    pub fn handle_notification(&mut self, notification: Arc<Notification>, now: Timestamp) {
        self.status.submitted += 1;
        let notification = match &self.redactor {
            Some(redactor) => redactor.redact(notification),
            None => notification,
        };
        let suppressed = self.suppression(&notification, now);
        self.record(Change::Journal(Arc::clone(&notification), suppressed.clone()));
        if notification.alert.is_none() || notification.kind == DocumentKind::Test {
            return self.route(&notification, &To::Everybody, now);
        }
        if let Some(reason) = &suppressed {
            self.count_suppressed(reason);
        }
        let key: Arc<str> = notification.key().into();
        if notification.kind.ends() {
            let before = self.firing.remove(&key);
            // Whoever heard that it fires hears that it is over, silence or not.
            let told = before.is_none_or(|firing| firing.told);
            let to = if told { To::Everybody } else { To::Audit(suppressed) };
            self.route(&notification, &to, now);
            let wall = self.wall(now);
            let others = self.firing.values().map(|firing| &*firing.last);
            let ended = self.silences.handle_resolution(&notification, others, wall);
            ended.into_iter().for_each(|silence| self.record(Change::Silence(silence)));
            self.review_at = Some(now);
            return;
        }
        let to = match &suppressed {
            Some(reason) => To::Audit(Some(Arc::clone(reason))),
            None => To::Everybody,
        };
        self.route(&notification, &to, now);
        let told = suppressed.is_none() || self.firing.get(&key).is_some_and(|firing| firing.told);
        if self.firing.len() < MOST_FIRING || self.firing.contains_key(&key) {
            self.firing.insert(key, Firing { last: notification, suppressed, told });
        }
    }

    /// Takes a notification that its own rule holds back: by `cooldown`, `cap` or `schedule`. It is recorded
    /// and counted, and goes to audit outputs alone.
    pub fn handle_held_back(&mut self, notification: Arc<Notification>, by: &str, now: Timestamp) {
        self.status.submitted += 1;
        let notification = match &self.redactor {
            Some(redactor) => redactor.redact(notification),
            None => notification,
        };
        let rule = notification.alert.as_ref().map_or("", |alert| &*alert.rule.metadata.id);
        let suppressed: Arc<str> = format!("{by} of rule {rule}").into();
        self.count_suppressed(&suppressed);
        self.record(Change::Journal(Arc::clone(&notification), Some(Arc::clone(&suppressed))));
        self.route(&notification, &To::Audit(Some(suppressed)), now);
    }

    fn count_suppressed(&mut self, reason: &str) {
        self.status.suppressed += 1;
        let word = reason.split(' ').next().unwrap_or_default();
        *self.status.suppressed_by.entry(word.to_owned()).or_default() += 1;
    }

    /// Takes the number of notifications that found no room on the way here.
    pub fn handle_losses(&mut self, lost: u64, now: Timestamp) {
        self.status.lost += lost;
        let problem = Problem {
            id: "notifications-lost",
            severity: Severity::High,
            summary: format!("{lost} notifications were lost before they could be queued"),
            details: BTreeMap::from([("lost", lost.to_string()), ("lost_in_all", self.status.lost.to_string())]),
            resolved: false,
        };
        self.say(problem, None, now);
    }

    /// Takes the outcome of an attempt; `chance`, within 0 and 1, spreads the retries.
    pub fn handle_outcome(
        &mut self,
        name: &str,
        id: &Arc<str>,
        outcome: &Result<(), NotifyError>,
        now: Timestamp,
        chance: f64,
    ) {
        self.keep_refused(name, id, outcome);
        let at = self.wall(now);
        let Some(outlet) = self.outlets.get_mut(name) else { return self.handle_late_outcome(name, id, outcome, at) };
        let mut smaller = None;
        let verdict = outlet.handle_outcome(id, outcome, now, chance, &mut smaller);
        let error = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let telling = outlet.handle_health(outcome, now);
        match verdict {
            Verdict::Delivered => self.record(Change::Delivered(Arc::clone(id), at)),
            Verdict::Later { remaining, attempts, .. } => {
                self.record(Change::Retry { id: Arc::clone(id), attempts, remaining, error });
            }
            Verdict::Smaller => {
                if let Some(payload) = smaller {
                    self.record(Change::Shrink(Arc::clone(id), payload));
                }
            }
            Verdict::Dead => self.record(Change::Bury(Arc::clone(id), error)),
            Verdict::Gone | Verdict::Unknown => {}
        }
        if let Some(recovered) = telling {
            self.say_failing(name, recovered, now);
        }
    }

    /// Takes the outcome of an attempt whose output is gone meanwhile.
    fn handle_late_outcome(&mut self, name: &str, id: &Arc<str>, outcome: &Result<(), NotifyError>, at: Timestamp) {
        match outcome {
            Ok(()) => self.record(Change::Delivered(Arc::clone(id), at)),
            Err(error @ NotifyError::Permanent { .. }) => self.record(Change::Bury(Arc::clone(id), error.to_string())),
            // It waits in the store like the others.
            Err(_) => return,
        }
        self.count_stranded(name);
    }

    fn count_stranded(&mut self, name: &str) {
        if let Some(count) = self.status.stranded.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.status.stranded.remove(name);
            }
        }
    }

    /// Keeps a delivery as given up for the recipients that refused it, while the others get it.
    fn keep_refused(&mut self, name: &str, id: &Arc<str>, outcome: &Result<(), NotifyError>) {
        let Err(NotifyError::Partial { reason, refused, .. }) = outcome else { return };
        let Some(outlet) = self.outlets.get_mut(name) else { return };
        let Some(delivery) = outlet.queue.delivery(id).cloned().filter(|_| !refused.is_empty()) else { return };
        outlet.status.refused += 1;
        let copy = Delivery {
            sequence: self.next_sequence,
            id: format!("{id}-refused-{}", self.next_sequence).into(),
            remaining: refused.clone(),
            ..delivery
        };
        self.next_sequence += 1;
        let copy_id = Arc::clone(&copy.id);
        self.record(Change::Queue(copy));
        self.record(Change::Bury(copy_id, reason.clone()));
    }

    /// Takes back a delivery that a worker did not attempt.
    pub fn handle_untried(&mut self, name: &str, id: &str) {
        if let Some(outlet) = self.outlets.get_mut(name) {
            outlet.queue.give_back(id);
        }
    }

    /// Does what time brings: groups that are due, silences that end, deliveries that are too old, signs of life.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.review_at.is_some_and(|at| at <= now) {
            self.review(now);
        }
        let names: Vec<Arc<str>> = self.outlets.keys().map(Arc::clone).collect();
        for name in &names {
            self.send_groups(name, now);
            self.give_up_old(name, now);
            self.send_heartbeat(name, now);
            self.hand_over(name, now);
        }
        if self.durable == Durable::Yes && now.since(self.pruned_at) >= PRUNE_EVERY {
            self.pruned_at = now;
            let before = self.wall(now).before(KEEP_HISTORY);
            self.silences.prune(before);
            self.record(Change::Prune(before));
            if !self.status.stranded.is_empty() {
                let outputs = self.outlets.keys().map(ToString::to_string).collect();
                self.record(Change::BuryStranded { outputs, before: self.wall(now).before(self.max_age) });
            }
        }
    }

    /// What is to be on disk before anything more is attempted.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Takes what the store had to give up for room.
    pub fn handle_given_up(&mut self, given_up: &[GivenUp]) {
        for GivenUp { output, id } in given_up {
            match self.outlets.get_mut(output) {
                Some(outlet) => {
                    outlet.queue.drop_delivery(id);
                    outlet.status.queue_full += 1;
                }
                None => self.count_stranded(output),
            }
        }
    }

    /// Takes how the store is doing; deliveries go on from memory while it fails.
    pub fn handle_store(&mut self, result: Result<f64, &LedgerError>, now: Timestamp) {
        let details = |text: String| BTreeMap::from([("store", text)]);
        match result {
            Ok(fill) => {
                if std::mem::take(&mut self.said.store_failing) {
                    let summary = "the store works again".to_owned();
                    self.say(problem("store-failing", Severity::High, summary, BTreeMap::new(), true), None, now);
                }
                let filling = fill >= if self.said.store_filling { FILLING / 2.0 } else { FILLING };
                if filling != self.said.store_filling {
                    self.said.store_filling = filling;
                    let summary = match filling {
                        true => format!("the outbox is {:.0} % full of undelivered notifications", fill * 100.0),
                        false => "the outbox has room again".to_owned(),
                    };
                    self.say(problem("outbox-filling", Severity::High, summary, BTreeMap::new(), !filling), None, now);
                }
            }
            Err(LedgerError::Damaged(reason)) => {
                // What is in memory goes into the fresh store.
                let held: Vec<Change> = self
                    .outlets
                    .values()
                    .flat_map(|outlet| outlet.queue.deliveries().cloned().map(Change::Queue))
                    .collect();
                held.into_iter().for_each(|change| self.record(change));
                let silences: Vec<Silence> = self.silences.iter().cloned().collect();
                silences.into_iter().for_each(|silence| self.record(Change::Silence(silence)));
                let firing = self.firing.values();
                let journal: Vec<Change> = firing
                    .map(|firing| {
                        let suppressed = firing.suppressed.as_ref().filter(|_| !firing.told);
                        Change::Journal(Arc::clone(&firing.last), suppressed.map(Arc::clone))
                    })
                    .collect();
                journal.into_iter().for_each(|change| self.record(change));
                self.say_set_aside(reason, now);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said.store_failing, true) {
                    let summary = format!("the store fails, a crash would lose notifications: {error}");
                    let problem = problem("store-failing", Severity::High, summary, details(error.to_string()), false);
                    self.say(problem, None, now);
                }
            }
        }
    }

    /// The next deliveries that an output may attempt now, one after another; what follows one that fails is
    /// to be given back.
    pub fn poll_deliveries(&mut self, name: &str, now: Timestamp, most: usize) -> Vec<Delivery> {
        self.outlets.get_mut(name).map(|outlet| outlet.queue.poll_batch(now, most)).unwrap_or_default()
    }

    /// An output with room for deliveries that only the store holds.
    pub fn poll_refill(&self) -> Option<(Arc<str>, Refill)> {
        self.outlets.iter().find_map(|(name, outlet)| Some((Arc::clone(name), outlet.wants_refill()?)))
    }

    /// Takes deliveries that the store held, as [`Pipeline::poll_refill`] asked for.
    pub fn handle_refill(&mut self, name: &str, asked: Refill, deliveries: Vec<Delivery>) {
        let born = |delivery: Delivery| {
            let born = self.steady(delivery.created);
            (delivery, born)
        };
        let deliveries = deliveries.into_iter().map(born).collect();
        if let Some(outlet) = self.outlets.get_mut(name) {
            outlet.refill(asked, deliveries);
        }
    }

    /// When there may be something to do, if nothing happens before.
    pub fn poll_timeout(&self, now: Timestamp, idle: impl Fn(&str) -> bool) -> Option<Timestamp> {
        let outlets = self.outlets.iter().filter_map(|(name, outlet)| outlet.poll_timeout(now, idle(name)));
        outlets.chain(self.review_at).min()
    }

    /// Sends groups at once that would have waited: the end is near.
    pub fn hurry(&mut self, now: Timestamp) {
        for outlet in self.outlets.values_mut() {
            outlet.groups.hurry();
        }
        self.handle_timeout(now);
    }

    /// Notifications that came in so far.
    pub fn submitted(&self) -> u64 {
        self.status.submitted
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.outlets.values().all(|outlet| outlet.queue.is_empty() && !outlet.groups.has_news())
    }

    /// How everything stands.
    pub fn status(&self) -> Status {
        let status = |outlet: &Outlet| {
            let status = outlet.current_status();
            OutputStatus { failing_since: status.failing_since.map(|since| self.wall(since)), ..status }
        };
        let outputs = self.outlets.iter().map(|(name, outlet)| (name.to_string(), status(outlet))).collect();
        Status { outputs, firing: self.firing.len(), ..self.status.clone() }
    }

    /// Adds a silence, and holds back what it matches from now on.
    pub fn add_silence(&mut self, silence: Silence, now: Timestamp) -> Result<(), crate::alert::SilenceError> {
        self.silences.add(silence.clone())?;
        self.record(Change::Silence(silence));
        self.review_at = Some(now);
        Ok(())
    }

    /// Ends a silence; `None` where there is none of that id.
    pub fn expire_silence(&mut self, id: &str, now: Timestamp) -> Option<Silence> {
        let silence = self.silences.expire(id, self.wall(now))?;
        self.record(Change::Silence(silence.clone()));
        self.review_at = Some(now);
        Some(silence)
    }

    /// All silences that are kept.
    pub fn silences(&self) -> Vec<Silence> {
        self.silences.iter().cloned().collect()
    }

    /// Remembers who takes care of an alert.
    pub fn acknowledge(&mut self, key: String, by: String, now: Timestamp) {
        let at = self.wall(now);
        self.record(Change::Acknowledge { key, by, at });
    }

    /// Sends a marked test alert to one output and returns the id of its delivery.
    pub fn test(&mut self, name: &str, now: Timestamp) -> Option<Arc<str>> {
        let notification = Arc::new(test_notification(&self.origin, now));
        let message = Message::single(name, notification);
        let id = Arc::clone(&message.id);
        self.outlets.contains_key(name).then(|| self.push(name, message, now))?;
        Some(id)
    }

    /// Lets everything that waits for an output be tried at once.
    pub fn retry_now(&mut self, name: Option<&str>) {
        for (_, outlet) in self.outlets.iter_mut().filter(|(other, _)| name.is_none_or(|name| *name == ***other)) {
            outlet.queue.retry_now();
        }
    }

    /// Puts a delivery that was given up back on its way, as if it were made now.
    pub fn revive(&mut self, mut delivery: Delivery, now: Timestamp) -> bool {
        let created = self.wall(now);
        let Some(outlet) = self.outlets.get_mut(&delivery.output) else { return false };
        delivery.sequence = self.next_sequence;
        delivery.attempts = 0;
        delivery.created = created;
        self.next_sequence += 1;
        let revived = Change::Revive { id: Arc::clone(&delivery.id), sequence: delivery.sequence, at: created };
        outlet.queue_up(delivery, self.durable == Durable::Yes, now);
        self.record(revived);
        true
    }

    /// Drops a delivery, unless it is being attempted right now.
    pub fn drop_delivery(&mut self, delivery: &Delivery) -> bool {
        if let Some(outlet) = self.outlets.get_mut(&delivery.output)
            && outlet.queue.is_in_flight(&delivery.id)
        {
            return false;
        }
        if let Some(outlet) = self.outlets.get_mut(&delivery.output) {
            outlet.queue.drop_delivery(&delivery.id);
        }
        self.record(Change::Forget(Arc::clone(&delivery.id)));
        if !self.outlets.contains_key(&delivery.output) {
            self.count_stranded(&delivery.output);
        }
        true
    }

    /// Who would get a notification.
    pub fn receivers(&self, notification: &Notification, now: Timestamp) -> Vec<String> {
        self.router.receivers(notification, now).into_keys().collect()
    }

    fn record(&mut self, change: Change) {
        if self.durable == Durable::Yes {
            self.changes.push(change);
        }
    }

    /// What holds a notification back now.
    fn suppression(&self, notification: &Notification, now: Timestamp) -> Option<Arc<str>> {
        if notification.alert.is_none() || notification.kind == DocumentKind::Test {
            return None;
        }
        if let Some(silence) = self.silences.silencing(notification, self.wall(now)) {
            return Some(format!("silence {} by {}: {}", silence.id, silence.author, silence.reason).into());
        }
        let firing = || self.firing.values().map(|firing| &*firing.last);
        let source = self.inhibitions.iter().find_map(|inhibition| inhibition.inhibiting(notification, firing()))?;
        Some(format!("inhibition by {}", source.key()).into())
    }

    /// Says what was held back and is no longer.
    fn review(&mut self, now: Timestamp) {
        let held: Vec<(Arc<str>, Arc<Notification>)> = self
            .firing
            .iter()
            .filter(|(_, firing)| firing.suppressed.is_some())
            .map(|(key, firing)| (Arc::clone(key), Arc::clone(&firing.last)))
            .collect();
        for (key, notification) in held {
            let suppressed = self.suppression(&notification, now);
            let free = suppressed.is_none();
            let Some(firing) = self.firing.get_mut(&key) else { continue };
            firing.suppressed = suppressed;
            let tell = free && !firing.told;
            firing.told |= free;
            if tell {
                self.record(Change::Journal(Arc::clone(&notification), None));
                self.route(&notification, &To::NotAudit, now);
            }
        }
        self.review_at = self.silences.poll_timeout(self.wall(now)).map(|at| self.steady(at));
    }

    fn route(&mut self, notification: &Arc<Notification>, to: &To, now: Timestamp) {
        for (name, group) in self.router.receivers(notification, self.wall(now)) {
            let Some(outlet) = self.outlets.get(name.as_str()) else { continue };
            let suppressed = match to {
                To::Everybody => None,
                To::Except(other) if **other == *name => continue,
                To::Except(_) => None,
                To::Audit(reason) if outlet.is_audit() => reason.clone(),
                To::Audit(_) => continue,
                To::NotAudit if outlet.is_audit() => continue,
                To::NotAudit => None,
            };
            if !outlet.wants(notification) {
                continue;
            }
            if outlet.groups_alerts() && notification.alert.is_some() && suppressed.is_none() {
                self.hold(&name, &group, notification, now);
            } else {
                let mut message = Message::single(&name, Arc::clone(notification));
                message.suppressed = suppressed.clone();
                self.push(&name, message, now);
            }
            self.push_flows(&name, notification, suppressed, now);
        }
    }

    /// Lets the flows of an alert follow it, where the output tells them.
    fn push_flows(&mut self, name: &str, notification: &Notification, suppressed: Option<Arc<str>>, now: Timestamp) {
        let Some(alert) = &notification.alert else { return };
        if !self.outlets.get(name).is_some_and(Outlet::tells_flows) {
            return;
        }
        for flow in &alert.flows {
            let mut message = Message::single(name, Arc::new(Notification::of_flow(alert, flow)));
            message.suppressed.clone_from(&suppressed);
            self.push(name, message, now);
        }
    }

    /// Adds a notification to a group, and keeps it alone on disk until the group is sent.
    fn hold(&mut self, name: &str, group: &GroupSettings, notification: &Arc<Notification>, now: Timestamp) {
        let (origin, sequence, created) = (&self.origin, self.next_sequence, self.wall(now));
        let durable = self.durable == Durable::Yes;
        let Some(outlet) = self.outlets.get_mut(name) else { return };
        let alone =
            durable.then(|| outlet.render(Message::single(name, Arc::clone(notification)), origin, sequence, created));
        outlet.add_to_group(group, notification, alone.as_ref().map(|alone| Arc::clone(&alone.id)), now);
        self.next_sequence += u64::from(durable);
        if let Some(alone) = alone {
            self.record(Change::Hold(alone));
        }
    }

    fn push(&mut self, name: &str, message: Message, now: Timestamp) {
        let created = self.wall(now);
        let Some(outlet) = self.outlets.get_mut(name) else { return };
        let merged = outlet.merged_by(&message);
        for id in &merged {
            outlet.queue.drop_delivery(id);
        }
        let delivery = outlet.render(message, &self.origin, self.next_sequence, created);
        self.next_sequence += 1;
        let durable = self.durable == Durable::Yes;
        outlet.queue_up(delivery.clone(), durable, now);
        self.record(Change::Queue(delivery));
        merged.into_iter().for_each(|id| self.record(Change::Forget(id)));
    }

    fn send_groups(&mut self, name: &Arc<str>, now: Timestamp) {
        loop {
            let Some(outlet) = self.outlets.get_mut(name) else { return };
            let Some((due, alone)) = outlet.poll_group(now) else { return };
            self.push(name, Message::of_group(name, due, now), now);
            alone.into_iter().for_each(|id| self.record(Change::Forget(id)));
        }
    }

    fn give_up_old(&mut self, name: &Arc<str>, now: Timestamp) {
        let Some(outlet) = self.outlets.get_mut(name) else { return };
        let old = outlet.queue.expire(now);
        outlet.status.expired += old.len() as u64;
        let news = outlet.news_of_given_up();
        let status = outlet.status.clone();
        for delivery in old {
            self.record(Change::Bury(delivery.id, "too old".to_owned()));
        }
        if news > 0 {
            let OutputStatus { expired, queue_full, refused, last_error, .. } = status;
            let details = BTreeMap::from([
                ("output", name.to_string()),
                ("expired", expired.to_string()),
                ("queue_full", queue_full.to_string()),
                ("refused", refused.to_string()),
                ("last_error", last_error.unwrap_or_default()),
            ]);
            let summary = format!("{news} deliveries to `{name}` were given up");
            self.say(problem("deliveries-given-up", Severity::High, summary, details, false), Some(name), now);
        }
    }

    fn send_heartbeat(&mut self, name: &Arc<str>, now: Timestamp) {
        let Some(outlet) = self.outlets.get_mut(name) else { return };
        if outlet.heartbeat_is_due(now) {
            let alive = Notification { kind: DocumentKind::Heartbeat, timestamp: now, alert: None, problem: None };
            self.push(name, Message::single(name, Arc::new(alive)), now);
        }
    }

    /// Gives what waits for an output that has failed for long to the output that stands in for it.
    fn hand_over(&mut self, name: &Arc<str>, now: Timestamp) {
        let Some(outlet) = self.outlets.get_mut(name) else { return };
        let Some((fallback, waiting)) = outlet.poll_hand_over(now) else { return };
        let tells_flows = self.outlets.get(fallback.as_str()).is_some_and(Outlet::tells_flows);
        for message in waiting {
            for notification in &message.notifications {
                if notification.kind == DocumentKind::Flow && !tells_flows {
                    continue;
                }
                self.push(&fallback, Message::single(&fallback, Arc::clone(notification)), now);
            }
        }
    }

    fn say_failing(&mut self, name: &str, recovered: bool, now: Timestamp) {
        let Some(outlet) = self.outlets.get(name) else { return };
        let reason = outlet.status.last_error.clone().unwrap_or_default();
        let summary = match (recovered, outlet.queue.health().0) {
            (true, _) => format!("output `{name}` works again"),
            (false, Health::Gone) => format!("output `{name}` is gone for good: {reason}"),
            (false, _) => format!("output `{name}` is failing: {reason}"),
        };
        let details = BTreeMap::from([
            ("output", name.to_owned()),
            ("waiting", outlet.queue.len().to_string()),
            ("last_error", reason),
        ]);
        self.say(problem("output-failing", Severity::High, summary, details, recovered), Some(name), now);
    }

    fn say_stranded(&mut self, name: &str, waiting: u64, now: Timestamp) {
        let summary = format!("{waiting} deliveries wait in the store for `{name}`, which is not configured");
        let details = BTreeMap::from([("output", name.to_owned()), ("waiting", waiting.to_string())]);
        self.say(problem("deliveries-stranded", Severity::Medium, summary, details, false), None, now);
    }

    fn say_set_aside(&mut self, reason: &str, now: Timestamp) {
        let summary = "the store was damaged; it is set aside and a fresh one begun".to_owned();
        let details = BTreeMap::from([("store", reason.to_owned())]);
        self.say(problem("store-set-aside", Severity::High, summary, details, false), None, now);
    }

    fn say(&mut self, problem: Problem, except: Option<&str>, now: Timestamp) {
        let notification = Arc::new(Notification::of_problem(now, problem));
        self.record(Change::Journal(Arc::clone(&notification), None));
        let to = except.map_or(To::Everybody, |name| To::Except(name.to_owned()));
        self.route(&notification, &to, now);
    }
}

fn configured_silences(settings: &DispatchSettings) -> Result<Silences, StartError> {
    let mut silences = Silences::default();
    for silence in settings.silences.iter().map(SilenceSettings::silence) {
        silence.check(settings.outbox.longest_silence)?;
        silences.add(silence)?;
    }
    Ok(silences)
}

/// Which of the receivers that the routing tree names.
enum To {
    Everybody,
    Except(String),
    /// Those that keep a full record, with what held it back.
    Audit(Option<Arc<str>>),
    /// All others: those have it already.
    NotAudit,
}

fn problem(
    id: &'static str,
    severity: Severity,
    summary: String,
    details: BTreeMap<&'static str, String>,
    resolved: bool,
) -> Problem {
    Problem { id, severity, summary, details, resolved }
}

fn test_notification(origin: &Origin, now: Timestamp) -> Notification {
    let metadata = crate::rule::Metadata {
        id: "egret-test".into(),
        title: "Test of this output".into(),
        severity: Severity::Info,
        ..Default::default()
    };
    let alert = Alert {
        schema: "egress-alert/1",
        reason: Reason::First,
        state: crate::alert::AlertState {
            uid: format!("test-{}", now.as_nanos()).into(),
            key: "egret-test".into(),
            state: "firing",
            started_at: now,
            fired_at: Some(now),
            coverage: 1.0,
            ..Default::default()
        },
        rule: crate::alert::RuleFacts { metadata: Arc::new(metadata), ..Default::default() },
        host: origin.host.clone(),
        summary: "This is a test. Nothing was sent anywhere it should not be.".to_owned(),
        ..Alert::default()
    };
    Notification::of_alert(DocumentKind::Test, now, alert)
}

/// What a rule's `limits: {max_alerts}` holds back.
const CAP: &str = "cap";
/// Alerts that are remembered as firing; further ones are delivered all the same.
const MOST_FIRING: usize = 100_000;
/// A store that is fuller is a problem.
const FILLING: f64 = 0.8;
/// A clock that was set by more than this, in nanoseconds, was set by somebody: a second.
const CLOCK_STEP: u64 = 1_000_000_000;
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// How long the journal, resolved alerts, ended silences and dead deliveries are kept.
const KEEP_HISTORY: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{AlertState, RuleFacts};
    use crate::rule::{Metadata, Value};

    const OUTPUTS: &str = "
outputs:
  soc: {type: syslog, audit: true}
  mail: {type: email, smtp: 'mx:587', from: e@example.org, to: [x@example.org], rate: {per_second: 1000, burst: 1000}}
  hook: {type: webhook, url: 'https://hooks.example.org/', fallback: soc}
";

    #[test]
    fn an_alert_goes_to_records_at_once_and_to_people_in_a_group() {
        let mut pipeline = pipeline("");
        pipeline.handle_notification(alert(Firing, "x", "alice"), at(0));
        pipeline.handle_notification(alert(Firing, "x", "bob"), at(1));
        assert_eq!(drain(&mut pipeline, 1), ["hook x alice", "hook x bob", "soc x alice", "soc x bob"]);
        assert_eq!(pipeline.poll_timeout(at(1), |_| true), Some(at(10)));
        assert_eq!(drain(&mut pipeline, 10), ["mail group rule=x"]);
    }

    #[test]
    fn flows_follow_their_alert_where_they_are_told_and_nowhere_else() {
        let mut pipeline = read(
            "outputs:
  soc: {type: syslog, format: ocsf, emit_flows: true, fallback: mail}
  hook: {type: webhook, url: 'https://hooks.example.org/', format: ecs, emit_flows: true, min_severity: critical}
  mail: {type: email, smtp: 'mx:587', from: e@example.org, to: [x@example.org], group: false}",
        );
        pipeline.handle_notification(with_flow(&alert(Firing, "x", "alice")), at(0));
        assert_eq!(drain(&mut pipeline, 1), ["mail x alice", "soc x alice", "soc x alice"]);
        pipeline.add_silence(silence(None), at(2)).unwrap();
        pipeline.handle_notification(with_flow(&alert(Updated, "x", "alice")), at(3));
        assert_eq!(drain(&mut pipeline, 3), Vec::<String>::new(), "they are as quiet as their alert");
        // What a stand-in cannot write it does not get.
        pipeline.handle_notification(with_flow(&alert(Firing, "y", "bob")), at(4));
        let delivery = pipeline.poll_delivery("soc", at(4)).unwrap();
        pipeline.handle_outcome("soc", &delivery.id, &Err(NotifyError::transient("reset")), at(4), 1.0);
        while let Some(delivery) = pipeline.poll_delivery("mail", at(4)) {
            pipeline.handle_outcome("mail", &delivery.id, &Ok(()), at(4), 1.0);
        }
        pipeline.handle_timeout(at(700));
        let handed: Vec<_> = std::iter::from_fn(|| pipeline.poll_delivery("mail", at(700))).collect();
        assert_eq!(handed.iter().map(|one| one.kind).collect::<Vec<_>>(), [Firing]);
        let wrong = serde_yaml::from_str("{outputs: {a: {type: syslog, emit_flows: true}}}").unwrap();
        let wrong = Pipeline::new(&settings_of(wrong), Origin::default(), at(0)).unwrap_err();
        assert!(matches!(wrong, StartError::Output { .. }), "{wrong}");
    }

    #[test]
    fn what_is_silenced_goes_to_audit_outputs_and_is_said_when_the_silence_ends() {
        let mut pipeline = pipeline("");
        pipeline.handle_notification(alert(Firing, "x", "before"), at(0));
        drain(&mut pipeline, 20);
        pipeline.add_silence(silence(Some(100)), at(20)).unwrap();
        pipeline.handle_notification(alert(Firing, "x", "during"), at(30));
        assert_eq!(drain(&mut pipeline, 30), ["soc x during"]);
        pipeline.handle_notification(alert(Resolved, "x", "before"), at(40));
        assert_eq!(
            drain(&mut pipeline, 200),
            ["hook x before", "hook x during", "mail group rule=x", "soc x before"],
            "whoever heard that it fires hears that it is over; what still fires is said when the silence ends"
        );
        assert_eq!(pipeline.status().suppressed, 2);
    }

    #[test]
    fn silences_may_stand_in_the_configuration() {
        let written = |until: i64| {
            let (from, until) = (at(0), at(until));
            format!(
                "{OUTPUTS}silences: [{{when: {{rule: x}}, from: '{from}', until: '{until}', author: a, reason: b}}]"
            )
        };
        let mut pipeline = read(&written(100));
        pipeline.restore(Standing::default(), at(0));
        pipeline.handle_notification(alert(Firing, "x", "alice"), at(1));
        assert_eq!(drain(&mut pipeline, 20), ["soc x alice"]);
        let id = pipeline.silences()[0].id.clone();
        pipeline.expire_silence(&id, at(30)).unwrap();
        assert_eq!(drain(&mut pipeline, 60), ["hook x alice"]);
        pipeline.replace(read(&written(100)), &BTreeSet::new(), at(61));
        assert!(!pipeline.silences()[0].is_active(at(61)), "what an operator ended stays ended");
        pipeline.replace(read(&written(200)), &BTreeSet::new(), at(62));
        assert!(pipeline.silences()[0].is_active(at(62)), "another one holds");
        pipeline.replace(read(OUTPUTS), &BTreeSet::new(), at(63));
        assert!(pipeline.silences().is_empty());
        let longer = settings_of(serde_yaml::from_str(&written(31 * 86_400)).unwrap());
        let refused = Pipeline::new(&longer, Origin::default(), at(0)).unwrap_err();
        assert!(matches!(refused, StartError::Silence(_)), "{refused}");
    }

    #[test]
    fn what_fires_and_resolves_in_a_silence_is_never_said() {
        let mut pipeline = pipeline("");
        pipeline.add_silence(silence(None), at(0)).unwrap();
        pipeline.handle_notification(alert(Firing, "x", "a"), at(1));
        pipeline.handle_notification(alert(Resolved, "x", "a"), at(2));
        assert_eq!(drain(&mut pipeline, 1000), ["soc x a", "soc x a"]);
        assert!(!pipeline.silences()[0].is_active(at(3)), "it held until the alert resolved");
    }

    #[test]
    fn an_alert_that_explains_others_keeps_them_quiet() {
        let inhibit = "inhibit: [{source: {rule: host-data-loss}, target: {rule: 'exfil-*'}, equal: [host]}]";
        let mut pipeline = pipeline(inhibit);
        pipeline.handle_notification(alert(Firing, "host-data-loss", "root"), at(0));
        drain(&mut pipeline, 20);
        pipeline.handle_notification(alert(Firing, "exfil-x", "alice"), at(20));
        assert_eq!(drain(&mut pipeline, 40), ["soc exfil-x alice"]);
        pipeline.handle_notification(alert(Resolved, "host-data-loss", "root"), at(50));
        let said = drain(&mut pipeline, 50);
        assert!(said.contains(&"hook exfil-x alice".to_owned()), "{said:?}");
    }

    #[test]
    fn another_output_stands_in_after_ten_minutes() {
        let mut pipeline = pipeline("routing: {defaults: {outputs: [hook]}}");
        pipeline.handle_notification(alert(Firing, "x", "alice"), at(0));
        let delivery = pipeline.poll_delivery("hook", at(0)).unwrap();
        pipeline.handle_outcome("hook", &delivery.id, &Err(NotifyError::transient("reset")), at(0), 1.0);
        pipeline.handle_timeout(at(599));
        assert!(pipeline.poll_delivery("soc", at(599)).is_none());
        pipeline.handle_timeout(at(600));
        assert_eq!(&*pipeline.poll_delivery("soc", at(600)).unwrap().key, "x alice");
        pipeline.handle_notification(alert(Firing, "x", "bob"), at(601));
        pipeline.handle_timeout(at(602));
        assert_eq!(&*pipeline.poll_delivery("soc", at(602)).unwrap().key, "x bob");
        let retried = pipeline.poll_delivery("hook", at(602)).unwrap();
        assert_eq!(retried.id, delivery.id);
        pipeline.handle_outcome("hook", &retried.id, &Ok(()), at(602), 1.0);
        pipeline.handle_timeout(at(700));
        assert_eq!(pipeline.poll_delivery("hook", at(700)).map(|next| next.key.to_string()).as_deref(), Some("x bob"));
    }

    #[test]
    fn another_configuration_keeps_what_waits() {
        let before = "outputs:
  hook: {type: webhook, url: 'https://a.example/'}
  mail: {type: email, smtp: 'mx:587', from: e@example.org, to: [x@example.org]}
  soc: {type: syslog}";
        let mut pipeline = read(before);
        pipeline.restore(Standing::default(), at(0));
        pipeline.handle_notification(alert(Firing, "x", "alice"), at(0));
        for name in ["hook", "soc"] {
            let delivery = pipeline.poll_delivery(name, at(0)).unwrap();
            pipeline.handle_outcome(name, &delivery.id, &Err(NotifyError::transient("500")), at(0), 1.0);
        }
        let flying = pipeline.poll_delivery("hook", at(400)).unwrap();
        pipeline.take_changes();
        let after = "outputs:
  hook: {type: webhook, url: 'https://b.example/'}
  siem: {type: syslog}
  soc: {type: syslog}
routing: {defaults: {outputs: [siem]}}";
        pipeline.replace(read(after), &BTreeSet::from(["soc".into()]), at(401));
        let status = pipeline.status();
        assert_eq!(status.stranded, BTreeMap::from([("mail".to_owned(), 1)]), "its group was sent to the queue");
        assert_eq!(status.outputs.keys().collect::<Vec<_>>(), ["hook", "siem", "soc"]);
        assert_eq!((status.outputs["soc"].health, status.outputs["hook"].health), (Health::Failing, Health::Working));
        let problem = pipeline.poll_delivery("siem", at(401)).unwrap();
        assert_eq!((&*problem.key, pipeline.poll_delivery("siem", at(401)).is_none()), ("deliveries-stranded", true));
        assert!(pipeline.poll_delivery("hook", at(401)).is_none(), "what is on its way is not sent twice");
        pipeline.handle_outcome("hook", &flying.id, &Err(NotifyError::transient("reset")), at(402), 0.0);
        assert_eq!(pipeline.poll_delivery("hook", at(402)).unwrap().id, flying.id);
        // The output that was removed comes back, and what waited for it with it.
        pipeline.replace(read(before), &BTreeSet::from(["soc".into()]), at(403));
        assert!(!pipeline.status().stranded.contains_key("mail"));
        let (name, refill) = pipeline.poll_refill().unwrap();
        assert_eq!((&*name, refill.from), ("mail", 0));
    }

    #[test]
    fn a_clock_that_is_set_delays_no_retry_and_moves_what_people_said() {
        const HOUR: i64 = 3_600;
        let mut pipeline = pipeline("routing: {defaults: {outputs: [hook]}}");
        pipeline.restore(Standing::default(), at(0));
        pipeline.handle_clock(at(10 * HOUR), at(0));
        pipeline.handle_notification(alert(Firing, "x", "alice"), at(0));
        let delivery = pipeline.poll_delivery("hook", at(0)).unwrap();
        assert_eq!(delivery.created, at(10 * HOUR), "kept by the wall clock");
        pipeline.handle_outcome("hook", &delivery.id, &Err(NotifyError::transient("reset")), at(0), 1.0);
        // Somebody sets the clock back by nine hours.
        pipeline.handle_clock(at(HOUR + 1), at(1));
        assert_eq!(pipeline.poll_timeout(at(1), |_| true), Some(at(1)), "silences are looked at again");
        pipeline.handle_timeout(at(1));
        assert_eq!(pipeline.poll_timeout(at(1), |_| true), Some(at(2)));
        let again = pipeline.poll_delivery("hook", at(2)).expect("it is tried after two seconds all the same");
        pipeline.handle_outcome("hook", &again.id, &Ok(()), at(2), 1.0);
        let ends = Silence { starts_at: at(HOUR), ..silence(Some(2 * HOUR)) };
        pipeline.add_silence(ends, at(3)).unwrap();
        pipeline.handle_timeout(at(3));
        assert_eq!(pipeline.poll_timeout(at(3), |_| true), Some(at(HOUR)), "it ends by the wall clock");
        pipeline.handle_notification(alert(Firing, "x", "bob"), at(4));
        assert_eq!(pipeline.status().suppressed, 1);
        // The clock is set forward by years: what was made before is no older for that.
        pipeline.handle_clock(at(1_000_000 * HOUR), at(5));
        pipeline.handle_timeout(at(5));
        assert_eq!(pipeline.status().outputs["hook"].waiting, 1, "the silence is over");
        assert_eq!(pipeline.status().outputs["hook"].expired, 0);
    }

    #[test]
    fn every_change_is_handed_out_before_its_delivery_can_be_polled() {
        let mut pipeline = pipeline("");
        pipeline.restore(Standing { next_sequence: 7, ..Standing::default() }, at(0));
        pipeline.handle_notification(alert(Firing, "x", "alice"), at(0));
        let names = |changes: &[Change]| -> Vec<String> {
            changes
                .iter()
                .map(|change| match change {
                    Change::Journal(..) => "journal".to_owned(),
                    Change::Queue(delivery) => format!("queue {} {}", delivery.output, delivery.sequence),
                    Change::Hold(delivery) => format!("hold {} {}", delivery.output, delivery.sequence),
                    Change::Forget(_) => "forget".to_owned(),
                    other => format!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(names(&pipeline.take_changes()), ["journal", "queue hook 7", "hold mail 8", "queue soc 9"]);
        pipeline.handle_timeout(at(10));
        assert_eq!(names(&pipeline.take_changes()), ["queue mail 10", "forget"], "the group replaces what was held");
        let delivery = pipeline.poll_delivery("soc", at(10)).unwrap();
        pipeline.handle_outcome("soc", &delivery.id, &Ok(()), at(10), 1.0);
        assert!(matches!(pipeline.take_changes().as_slice(), [Change::Delivered(id, _)] if *id == delivery.id));
    }

    #[test]
    fn what_the_rule_holds_back_is_counted_and_goes_to_audit_outputs() {
        let mut pipeline = pipeline("");
        pipeline.restore(Standing::default(), at(0));
        pipeline.handle_held_back(alert(Firing, "x", "alice"), "cap", at(0));
        pipeline.handle_held_back(alert(Firing, "y", "alice"), "cooldown", at(0));
        let journal = |change: &Change| match change {
            Change::Journal(_, suppressed) => suppressed.as_deref().map(str::to_owned),
            _ => None,
        };
        let held: Vec<String> = pipeline.take_changes().iter().filter_map(journal).collect();
        assert_eq!(held, ["cap of rule x", "cooldown of rule y"]);
        assert_eq!(drain(&mut pipeline, 100), ["soc x alice", "soc y alice"]);
        let status = pipeline.status();
        assert_eq!((status.suppressed, status.suppressed_by["cap"], status.firing), (2, 1, 0));
    }

    #[test]
    fn a_firing_that_waits_is_merged_into_its_resolution_where_people_read() {
        let mut pipeline = read(
            "outputs:
  mail: {type: email, smtp: 'mx:587', from: e@example.org, to: [x@example.org], group: false}
  soc: {type: syslog}",
        );
        pipeline.restore(Standing::default(), at(0));
        pipeline.handle_notification(alert(Firing, "x", "alice"), at(0));
        pipeline.handle_notification(alert(Firing, "x", "bob"), at(0));
        pipeline.handle_notification(alert(Resolved, "x", "alice"), at(1));
        let forgotten = pipeline.take_changes().iter().filter(|change| matches!(change, Change::Forget(_))).count();
        assert_eq!(forgotten, 1, "on disk as well");
        assert_eq!(
            drain(&mut pipeline, 20),
            ["mail x bob", "mail x alice", "soc x alice", "soc x bob", "soc x alice"],
            "people get one mail, machines both records"
        );
    }

    #[test]
    fn a_restart_knows_what_fires_and_withdraws_what_nobody_watches_any_more() {
        let record = |user: &str, told: bool| {
            let notification = alert(Firing, "x", user);
            AlertRecord {
                key: notification.key().to_owned(),
                uid: String::new(),
                rule: "x".into(),
                severity: "medium".into(),
                state: "firing".into(),
                changed_at: at(0),
                summary: String::new(),
                suppressed: (!told).then(|| if user == "dave" { "cap of rule x" } else { "silence 1" }.to_owned()),
                told,
                acknowledged_by: None,
                document: serde_json::to_value(&*notification).unwrap(),
            }
        };
        let mut pipeline = pipeline("");
        let firing = vec![record("alice", true), record("bob", true), record("carol", false), record("dave", false)];
        pipeline.restore(Standing { firing, silences: vec![silence(None)], ..Standing::default() }, at(5));
        assert_eq!(pipeline.status().firing, 3);
        assert_eq!(drain(&mut pipeline, 6), Vec::<String>::new(), "nothing is said anew");
        pipeline.confirm(&BTreeSet::from(["x alice".into(), "x carol".into()]), at(7));
        assert_eq!(
            drain(&mut pipeline, 20),
            ["hook x bob", "mail group rule=x", "soc x bob", "soc x dave"],
            "whoever heard of it hears that nobody watches it"
        );
        pipeline.handle_notification(alert(Resolved, "x", "carol"), at(30));
        assert_eq!(drain(&mut pipeline, 30), ["soc x carol"], "people never heard that it fired");
        pipeline.handle_notification(alert(Resolved, "x", "alice"), at(40));
        assert_eq!(drain(&mut pipeline, 400), ["hook x alice", "mail group rule=x", "soc x alice"]);
        assert!(!pipeline.silences()[0].is_active(at(41)), "the silence held until everything resolved");
    }

    #[test]
    fn a_recipient_that_refuses_is_a_dead_letter_of_its_own() {
        let mut pipeline = pipeline("routing: {defaults: {outputs: [hook]}}");
        pipeline.restore(Standing::default(), at(0));
        pipeline.handle_notification(alert(Firing, "x", "alice"), at(0));
        let delivery = pipeline.poll_delivery("hook", at(0)).unwrap();
        pipeline.take_changes();
        let partial = NotifyError::Partial {
            reason: "b@example.org: 550 no".into(),
            remaining: Vec::new(),
            refused: vec!["b@example.org".into()],
        };
        pipeline.handle_outcome("hook", &delivery.id, &Err(partial), at(1), 1.0);
        let changes = pipeline.take_changes();
        let [Change::Queue(copy), Change::Bury(buried, why), Change::Delivered(done, _)] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!((&copy.id, why.as_str(), done), (buried, "b@example.org: 550 no", &delivery.id));
        assert_eq!((copy.remaining.as_slice(), &copy.payload), (&["b@example.org".to_owned()][..], &delivery.payload));
        assert_eq!(pipeline.status().outputs["hook"].refused, 1);
    }

    #[test]
    fn a_filling_outbox_is_said_and_so_is_that_it_has_room_again() {
        let mut pipeline = read("outputs: {soc: {type: syslog}}");
        for (fill, said) in [(0.5, 0), (0.85, 1), (0.9, 0), (0.5, 0), (0.39, 1), (0.79, 0)] {
            pipeline.handle_store(Ok(fill), at(0));
            let told = drain(&mut pipeline, 0);
            assert_eq!(told, vec!["soc outbox-filling"; said], "{fill}");
        }
        pipeline.handle_given_up(&[GivenUp { output: "soc".into(), id: "x".into() }]);
        pipeline.handle_timeout(at(1));
        assert_eq!(pipeline.status().outputs["soc"].queue_full, 1);
    }

    #[test]
    fn heartbeats_come_regularly_and_not_behind_a_jam() {
        let mut pipeline = read("outputs: {soc: {type: syslog, heartbeat: 60s}}");
        assert_eq!(drain(&mut pipeline, 60), ["soc agent.heartbeat"]);
        pipeline.handle_timeout(at(120));
        pipeline.handle_timeout(at(180));
        assert_eq!(drain(&mut pipeline, 180), ["soc agent.heartbeat"], "one waits already");
    }

    use DocumentKind::{Firing, Resolved, Updated};

    fn pipeline(more: &str) -> Pipeline {
        read(&format!("{OUTPUTS}{more}"))
    }

    fn read(text: &str) -> Pipeline {
        Pipeline::new(&settings_of(serde_yaml::from_str(text).unwrap()), Origin::default(), at(0)).unwrap()
    }

    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Written {
        outputs: BTreeMap<String, crate::dispatch::settings::OutputSettings>,
        routing: crate::dispatch::settings::RoutingSettings,
        inhibit: Vec<crate::dispatch::settings::InhibitSettings>,
        silences: Vec<SilenceSettings>,
    }

    fn settings_of(written: Written) -> DispatchSettings {
        let Written { outputs, routing, inhibit, silences } = written;
        DispatchSettings { outputs, routing, inhibit, silences, ..DispatchSettings::default() }
    }

    fn with_flow(notification: &Notification) -> Arc<Notification> {
        let mut alert = notification.alert.as_deref().unwrap().clone();
        alert.flows = vec![Arc::new(crate::alert::CompanionFlow::default())];
        Arc::new(Notification::of_alert(notification.kind, notification.timestamp, alert))
    }

    impl Pipeline {
        fn poll_delivery(&mut self, name: &str, now: Timestamp) -> Option<Delivery> {
            self.poll_deliveries(name, now, 1).pop()
        }
    }

    /// What goes out until nothing more does, by output and key; every attempt works.
    fn drain(pipeline: &mut Pipeline, seconds: i64) -> Vec<String> {
        let mut said = Vec::new();
        pipeline.handle_timeout(at(seconds));
        loop {
            let before = said.len();
            for name in ["hook", "mail", "soc"] {
                while let Some(delivery) = pipeline.poll_delivery(name, at(seconds)) {
                    pipeline.handle_outcome(name, &delivery.id, &Ok(()), at(seconds), 1.0);
                    said.push(format!("{name} {}", delivery.key));
                }
            }
            pipeline.handle_timeout(at(seconds));
            if said.len() == before {
                return said;
            }
        }
    }

    fn silence(ends: Option<i64>) -> Silence {
        Silence {
            id: "1".into(),
            matchers: [("rule".to_owned(), vec!["x".to_owned()])].into(),
            starts_at: at(0),
            ends_at: ends.map(at),
            author: "alice".into(),
            reason: "test".into(),
        }
    }

    fn alert(kind: DocumentKind, rule: &str, user: &str) -> Arc<Notification> {
        let alert = Alert {
            state: AlertState { key: format!("{rule} {user}").into(), ..AlertState::default() },
            rule: RuleFacts {
                metadata: Arc::new(Metadata { id: rule.into(), ..Metadata::default() }),
                ..RuleFacts::default()
            },
            group: vec![("user", Value::Text(user.into()))],
            ..Alert::default()
        };
        Arc::new(Notification::of_alert(kind, at(0), alert))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }
}
