//! The queue of one output: what goes next, when to try again, when to give up.
//!
//! Pure. Deliveries with the same key keep their order; other keys pass a
//! delivery that waits for its next attempt. After several failures in a row
//! the queue sends one probe at a time, so that a dead receiver costs
//! deliveries no attempts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::alert::{Delivery, DocumentKind};
use crate::dispatch::backoff::{Backoff, TokenBucket};
use crate::dispatch::notifier::NotifyError;
use crate::time::Timestamp;

/// The deliveries that wait for one output.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    bucket: Option<TokenBucket>,
    /// Slows an output without a rate of its own, from when its receiver asked for patience until it has recovered.
    brake: Option<TokenBucket>,
    entries: BTreeMap<u64, Entry>,
    /// Bytes of the payloads that are held.
    bytes: u64,
    lanes: HashMap<Arc<str>, VecDeque<u64>>,
    /// Heads of lanes that may go.
    ready: BTreeSet<u64>,
    /// Heads of lanes that wait for their next attempt.
    waiting: BTreeSet<(Timestamp, u64)>,
    in_flight: BTreeMap<Arc<str>, u64>,
    next: u64,
    breaker: Breaker,
    gone: bool,
}

/// What a queue may hold and for how long.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Deliveries held at once.
    pub capacity: usize,
    /// For how long one is tried.
    pub max_age: Duration,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The receiver has it.
    Delivered,
    /// It will be tried again.
    Later {
        /// At this moment, the breaker and the rate permitting.
        until: Timestamp,
        /// How often it failed.
        attempts: u32,
        /// The recipients that still need it.
        remaining: Vec<String>,
    },
    /// It will be tried again at once in a smaller form.
    Smaller,
    /// It is given up.
    Dead,
    /// The receiver is gone for good; deliveries stay where they are.
    Gone,
    /// The queue does not know it.
    Unknown,
}

/// How an output is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The last attempt worked, or there was none.
    #[default]
    Working,
    /// The last attempts failed.
    Failing,
    /// The receiver is gone for good.
    Gone,
}

#[derive(Debug)]
struct Entry {
    delivery: Delivery,
    /// When it was made, by the clock that nobody sets.
    born: Timestamp,
    /// Failures of this very delivery.
    failures: u32,
    smaller: bool,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    failing_since: Option<Timestamp>,
    /// Nothing goes before this moment.
    closed_until: Timestamp,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: QueueLimits, bucket: Option<TokenBucket>) -> Self {
        Self {
            limits,
            bucket,
            brake: None,
            entries: BTreeMap::new(),
            bytes: 0,
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            next: 0,
            breaker: Breaker::default(),
            gone: false,
        }
    }

    /// Whether one more delivery finds room.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.limits.capacity
    }

    /// Appends a delivery that was made at `born`. A full queue gives up the oldest of the mildest ones,
    /// which may be the new one, and returns it.
    pub fn push(&mut self, delivery: Delivery, born: Timestamp) -> Option<Delivery> {
        let number = self.next;
        self.next += 1;
        let lane = self.lanes.entry(Arc::clone(&delivery.key)).or_default();
        lane.push_back(number);
        if lane.len() == 1 {
            self.ready.insert(number);
        }
        let failures = delivery.attempts;
        self.bytes += delivery.payload.len() as u64;
        self.entries.insert(number, Entry { delivery, born, failures, smaller: false });
        if self.entries.len() <= self.limits.capacity {
            return None;
        }
        let victim = self
            .entries
            .iter()
            .filter(|(_, entry)| !self.in_flight.contains_key(&entry.delivery.id))
            .min_by_key(|(number, entry)| (entry.delivery.severity, **number))
            .map(|(number, _)| *number)?;
        self.remove(victim)
    }

    /// The next delivery that may go now; the caller attempts it and brings the outcome.
    pub fn poll(&mut self, now: Timestamp) -> Option<Delivery> {
        if self.gone || now < self.breaker.closed_until {
            return None;
        }
        if self.breaker.failures >= FAILURES_TO_PROBE && !self.in_flight.is_empty() {
            return None;
        }
        while let Some(&(until, number)) = self.waiting.first() {
            if until > now {
                break;
            }
            self.waiting.pop_first();
            self.ready.insert(number);
        }
        let number = *self.ready.first()?;
        if let Some(bucket) = self.bucket.as_mut().or(self.brake.as_mut()) {
            bucket.take(now).ok()?;
        }
        self.ready.remove(&number);
        let entry = self.entries.get(&number)?;
        self.in_flight.insert(Arc::clone(&entry.delivery.id), number);
        Some(Delivery { attempts: entry.failures, ..entry.delivery.clone() })
    }

    /// The next deliveries that may go now, in their order, for somebody who attempts one after another and
    /// gives back what follows a failure: then those of one key may go together.
    pub fn poll_batch(&mut self, now: Timestamp, most: usize) -> Vec<Delivery> {
        let mut batch = Vec::new();
        let mut taken: HashMap<Arc<str>, usize> = HashMap::new();
        while batch.len() < most
            && let Some(delivery) = self.poll(now)
        {
            let place = taken.entry(Arc::clone(&delivery.key)).or_default();
            *place += 1;
            if let Some(next) = self.lanes.get(&delivery.key).and_then(|lane| lane.get(*place))
                && self.may_follow(*next)
            {
                self.ready.insert(*next);
            }
            batch.push(delivery);
        }
        // What did not go with those before it waits for their outcome.
        for (key, place) in taken {
            if let Some(next) = self.lanes.get(&key).and_then(|lane| lane.get(place)) {
                self.ready.remove(next);
            }
        }
        batch
    }

    /// Whether one may go though the one before it is still on its way. The same thing said twice has one id,
    /// which names one attempt at a time.
    fn may_follow(&self, number: u64) -> bool {
        let entry = self.entries.get(&number);
        self.breaker.failures == 0
            && entry.is_some_and(|entry| entry.failures == 0 && !self.in_flight.contains_key(&entry.delivery.id))
    }

    /// When [`Queue::poll`] or [`Queue::expire`] may have something to do, if nothing happens before.
    pub fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let resting = |entry: &&Entry| !self.in_flight.contains_key(&entry.delivery.id);
        let oldest = self.entries.values().find(resting).map(|entry| entry.born);
        let expiry = oldest.map(|born| born.after(self.limits.max_age));
        if self.gone || (self.breaker.failures >= FAILURES_TO_PROBE && !self.in_flight.is_empty()) {
            return expiry;
        }
        let next = match (self.ready.first(), self.waiting.first()) {
            (Some(_), _) => now,
            (None, Some((until, _))) => *until,
            (None, None) => return expiry,
        };
        let bucket = self.bucket.as_ref().or(self.brake.as_ref());
        let tokens = bucket.and_then(|bucket| bucket.clone().take(now).err()).unwrap_or(now);
        let attempt = next.max(self.breaker.closed_until).max(tokens);
        Some(expiry.map_or(attempt, |expiry| expiry.min(attempt)))
    }

    /// Takes the outcome of an attempt. `chance`, within 0 and 1, spreads the retries.
    pub fn handle_outcome(
        &mut self,
        id: &str,
        outcome: &Result<(), NotifyError>,
        now: Timestamp,
        chance: f64,
    ) -> Verdict {
        let Some(number) = self.in_flight.remove(id) else { return Verdict::Unknown };
        let Some(entry) = self.entries.get_mut(&number) else { return Verdict::Unknown };
        let mut remaining = entry.delivery.remaining.clone();
        let (until, breaks) = match outcome {
            Ok(()) => {
                self.breaker = Breaker::default();
                self.bucket.iter_mut().chain(&mut self.brake).for_each(TokenBucket::recover);
                self.brake.take_if(|brake| brake.is_recovered());
                self.remove(number);
                return Verdict::Delivered;
            }
            Err(NotifyError::Permanent { .. }) => {
                // The receiver answered: it lives, only this delivery is not to its taste.
                self.breaker = Breaker::default();
                self.remove(number);
                return Verdict::Dead;
            }
            Err(NotifyError::TooLarge { .. }) if entry.smaller => {
                self.remove(number);
                return Verdict::Dead;
            }
            Err(NotifyError::TooLarge { .. }) => {
                entry.smaller = true;
                self.ready.insert(number);
                return Verdict::Smaller;
            }
            Err(NotifyError::Gone { .. }) => {
                self.gone = true;
                self.breaker.failing_since.get_or_insert(now);
                self.ready.insert(number);
                return Verdict::Gone;
            }
            // Whoever could get it has it.
            Err(NotifyError::Partial { remaining: left, .. }) if left.is_empty() => {
                self.breaker = Breaker::default();
                self.remove(number);
                return Verdict::Delivered;
            }
            Err(NotifyError::Partial { remaining: left, .. }) => {
                entry.failures += 1;
                remaining.clone_from(left);
                entry.delivery.remaining.clone_from(left);
                (now.after(Backoff::TRANSIENT.wait(entry.failures, chance)), None)
            }
            Err(NotifyError::Transient { .. }) => {
                entry.failures += 1;
                let wait = Backoff::TRANSIENT.wait(entry.failures, chance);
                let failures = self.breaker.failures + 1;
                let pause = Backoff::TRANSIENT.wait(failures, chance);
                (now.after(wait), (failures >= FAILURES_TO_PROBE).then(|| now.after(pause)))
            }
            Err(NotifyError::Throttled { retry_after, .. }) => {
                entry.failures += 1;
                let bucket = self.bucket.as_mut();
                bucket.unwrap_or_else(|| self.brake.get_or_insert_with(|| TokenBucket::of_the_throttled(now))).halve();
                let wait = retry_after.unwrap_or_else(|| Backoff::TRANSIENT.wait(entry.failures, chance));
                (now.after(wait), Some(now.after(wait)))
            }
            Err(NotifyError::Misconfigured { .. }) => {
                entry.failures += 1;
                let failures = self.breaker.failures + 1;
                let step = Backoff::MISCONFIGURED.step(failures);
                let wait = step / 2 + Backoff::MISCONFIGURED.wait(failures, chance) / 2;
                (now.after(wait), Some(now.after(wait)))
            }
            Err(NotifyError::Moved { .. }) => {
                entry.failures += 1;
                let wait = Backoff::MOVED.step(1);
                (now.after(wait), Some(now.after(wait)))
            }
        };
        let attempts = entry.failures;
        if !matches!(outcome, Err(NotifyError::Partial { .. })) {
            self.breaker.failures = self.breaker.failures.saturating_add(1);
            self.breaker.failing_since.get_or_insert(now);
        }
        if let Some(pause) = breaks {
            self.breaker.closed_until = self.breaker.closed_until.max(pause);
        }
        self.waiting.insert((until, number));
        Verdict::Later { until, attempts, remaining }
    }

    /// Takes back a delivery that was polled and not attempted.
    pub fn give_back(&mut self, id: &str) {
        let Some(number) = self.in_flight.remove(id) else { return };
        // Behind one that failed it waits for its turn.
        let lane = self.entries.get(&number).and_then(|entry| self.lanes.get(&entry.delivery.key));
        if lane.is_some_and(|lane| lane.front() == Some(&number)) {
            self.ready.insert(number);
        }
    }

    /// Replaces the bytes of a delivery, after [`Verdict::Smaller`].
    pub fn replace_payload(&mut self, id: &str, payload: Arc<[u8]>) {
        if let Some(entry) = self.entries.values_mut().find(|entry| *entry.delivery.id == *id) {
            self.bytes = self.bytes - entry.delivery.payload.len() as u64 + payload.len() as u64;
            entry.delivery.payload = payload;
        }
    }

    /// Gives up what was tried for long enough.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Delivery> {
        let old = |entry: &Entry| entry.born.after(self.limits.max_age) <= now;
        let numbers: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| old(entry) && !self.in_flight.contains_key(&entry.delivery.id))
            .map(|(number, _)| *number)
            .collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Takes a delivery out, unless it is being attempted.
    pub fn drop_delivery(&mut self, id: &str) -> Option<Delivery> {
        if self.in_flight.contains_key(id) {
            return None;
        }
        let number = self.entries.iter().find(|(_, entry)| *entry.delivery.id == *id).map(|(number, _)| *number)?;
        self.remove(number)
    }

    /// Whether a delivery is being attempted.
    pub fn is_in_flight(&self, id: &str) -> bool {
        self.in_flight.contains_key(id)
    }

    /// One delivery.
    pub fn delivery(&self, id: &str) -> Option<&Delivery> {
        let number = self.in_flight.get(id).copied();
        let entry = match number {
            Some(number) => self.entries.get(&number),
            None => self.entries.values().find(|entry| *entry.delivery.id == *id),
        };
        entry.map(|entry| &entry.delivery)
    }

    /// The firings and updates of an alert that wait and were never attempted.
    pub fn unattempted(&self, key: &str) -> Vec<Arc<str>> {
        let lane = self.lanes.get(key).into_iter().flatten();
        let entries = lane.filter_map(|number| self.entries.get(number));
        entries
            .filter(|entry| entry.failures == 0 && !self.in_flight.contains_key(&entry.delivery.id))
            .filter(|entry| matches!(entry.delivery.kind, DocumentKind::Firing | DocumentKind::Updated))
            .map(|entry| Arc::clone(&entry.delivery.id))
            .collect()
    }

    /// Lets everything be tried at once, whatever the breaker and earlier failures say.
    pub fn retry_now(&mut self) {
        self.gone = false;
        self.breaker.closed_until = Timestamp::EPOCH;
        self.ready.extend(std::mem::take(&mut self.waiting).into_iter().map(|(_, number)| number));
    }

    /// Takes other limits, which hold from now on.
    pub fn set_limits(&mut self, limits: QueueLimits) {
        self.limits = limits;
    }

    /// The limits that hold.
    pub fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// The rate that is kept.
    pub fn bucket(&self) -> Option<&TokenBucket> {
        self.bucket.as_ref()
    }

    /// Goes on for another receiver, at another rate: what the last one did says nothing of this one.
    pub fn begin_anew(&mut self, limits: QueueLimits, bucket: Option<TokenBucket>) {
        (self.limits, self.bucket, self.brake) = (limits, bucket, None);
        self.breaker = Breaker::default();
        self.retry_now();
    }

    /// The deliveries that are held, oldest first.
    pub fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        self.entries.values().map(|entry| &entry.delivery)
    }

    /// How many deliveries are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the payloads that are held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How the output is doing, and since when it fails.
    pub fn health(&self) -> (Health, Option<Timestamp>) {
        match (self.gone, self.breaker.failing_since) {
            (true, since) => (Health::Gone, since),
            (false, None) => (Health::Working, None),
            (false, since) => (Health::Failing, since),
        }
    }

    fn remove(&mut self, number: u64) -> Option<Delivery> {
        let delivery = self.entries.remove(&number)?.delivery;
        self.bytes -= delivery.payload.len() as u64;
        self.ready.remove(&number);
        self.waiting.retain(|(_, waiting)| *waiting != number);
        if let Some(lane) = self.lanes.get_mut(&delivery.key) {
            lane.retain(|other| *other != number);
            match lane.front().copied() {
                None => {
                    self.lanes.remove(&delivery.key);
                }
                Some(head) => {
                    let moves = !self.waiting.iter().any(|(_, waiting)| *waiting == head)
                        && !self.in_flight.values().any(|flying| *flying == head);
                    if moves {
                        self.ready.insert(head);
                    }
                }
            }
        }
        Some(delivery)
    }
}

/// After so many failures in a row only one probe goes at a time.
const FAILURES_TO_PROBE: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Severity;

    #[test]
    fn one_key_keeps_its_order_and_others_pass() {
        let mut queue = queue(10);
        push(&mut queue, &[("1", "a"), ("2", "a"), ("3", "b")]);
        assert_eq!(next(&mut queue, 0), "1");
        assert_eq!(next(&mut queue, 0), "3");
        assert_eq!(next(&mut queue, 0), "");
        assert!(matches!(outcome(&mut queue, "1", Err(NotifyError::transient("reset")), 0), Verdict::Later { .. }));
        assert_eq!(next(&mut queue, 0), "", "2 waits behind 1");
        outcome(&mut queue, "3", Ok(()), 0);
        assert_eq!(queue.poll_timeout(at(0)), Some(at(2)));
        assert_eq!(next(&mut queue, 2), "1");
        assert_eq!(outcome(&mut queue, "1", Ok(()), 2), Verdict::Delivered);
        assert_eq!(next(&mut queue, 2), "2");
        outcome(&mut queue, "2", Ok(()), 2);
        assert!(queue.is_empty());
        assert_eq!(queue.poll_timeout(at(2)), None);
    }

    #[test]
    fn after_five_failures_only_probes_go() {
        let mut queue = queue(100);
        for index in 0..20 {
            queue.push(delivery(&index.to_string(), &format!("key {index}"), Severity::High), Timestamp::EPOCH);
        }
        for index in 0..5 {
            assert_eq!(next(&mut queue, 0), index.to_string());
            outcome(&mut queue, &index.to_string(), Err(NotifyError::transient("refused")), 0);
        }
        assert_eq!(queue.health().0, Health::Failing);
        assert_eq!(next(&mut queue, 0), "", "the breaker is open");
        assert_eq!(queue.poll_timeout(at(0)), Some(at(32)));
        let probe = next(&mut queue, 32);
        assert_ne!(probe, "");
        assert_eq!(next(&mut queue, 32), "", "one probe at a time");
        outcome(&mut queue, &probe, Err(NotifyError::transient("refused")), 32);
        assert_eq!(queue.poll_timeout(at(32)), Some(at(96)), "the next step is twice as long");
        let probe = next(&mut queue, 96);
        outcome(&mut queue, &probe, Ok(()), 96);
        assert_eq!(queue.health(), (Health::Working, None));
        let mut left = 0;
        while !next(&mut queue, 96).is_empty() {
            left += 1;
        }
        assert_eq!(left, 19, "everything else goes at once");
        let untouched = queue.deliveries().filter(|delivery| delivery.id.parse::<u32>().unwrap() > 5).count();
        assert_eq!(untouched, 14);
    }

    #[test]
    fn patience_is_kept_for_the_whole_output() {
        let mut queue = Queue::new(limits(10), Some(TokenBucket::new(1.0, 5, at(0))));
        push(&mut queue, &[("1", "a"), ("2", "b")]);
        let id = next(&mut queue, 0);
        let throttled = NotifyError::Throttled { reason: "429".into(), retry_after: Some(Duration::from_secs(30)) };
        outcome(&mut queue, &id, Err(throttled), 0);
        assert_eq!(next(&mut queue, 29), "");
        assert_eq!(next(&mut queue, 30), "1");
        assert_eq!(next(&mut queue, 30), "2");
    }

    #[test]
    fn a_receiver_without_a_rate_is_slowed_until_it_has_recovered() {
        let mut queue = queue(10_000);
        let throttled = || NotifyError::Throttled { reason: "429".into(), retry_after: Some(Duration::ZERO) };
        for index in 0..2_000 {
            queue.push(delivery(&index.to_string(), &format!("key {index}"), Severity::High), Timestamp::EPOCH);
        }
        let go = |queue: &mut Queue, seconds| std::iter::from_fn(|| queue.poll(at(seconds))).count();
        let first = next(&mut queue, 0);
        outcome(&mut queue, &first, Err(throttled()), 0);
        assert_eq!(go(&mut queue, 0), 10, "the burst");
        assert_eq!(go(&mut queue, 1), 10, "the burst again, and no more");
        let ids: Vec<Arc<str>> = queue.in_flight.keys().map(Arc::clone).collect();
        for id in ids {
            outcome(&mut queue, &id, Ok(()), 1);
        }
        assert!(go(&mut queue, 1) > 1_000, "it has recovered");
    }

    #[test]
    fn a_receiver_that_has_moved_is_tried_each_hour() {
        let mut queue = queue(10);
        push(&mut queue, &[("1", "a")]);
        next(&mut queue, 0);
        outcome(&mut queue, "1", Err(NotifyError::Moved { reason: "301".into() }), 0);
        assert_eq!(queue.poll_timeout(at(0)), Some(at(3600)));
    }

    #[test]
    fn wrong_set_ups_are_tried_slowly() {
        let mut queue = queue(10);
        push(&mut queue, &[("1", "a")]);
        next(&mut queue, 0);
        outcome(&mut queue, "1", Err(NotifyError::misconfigured("401")), 0);
        assert_eq!(queue.poll_timeout(at(0)), Some(at(300)));
        next(&mut queue, 300);
        outcome(&mut queue, "1", Err(NotifyError::misconfigured("401")), 300);
        assert_eq!(queue.poll_timeout(at(300)), Some(at(900)));
        queue.retry_now();
        assert_eq!(next(&mut queue, 301), "1");
    }

    #[test]
    fn what_a_receiver_refuses_is_dead_and_what_is_too_large_shrinks_once() {
        let mut queue = queue(10);
        push(&mut queue, &[("1", "a"), ("2", "a")]);
        next(&mut queue, 0);
        let too_large = || NotifyError::TooLarge { reason: "413".into() };
        assert_eq!(outcome(&mut queue, "1", Err(too_large()), 0), Verdict::Smaller);
        queue.replace_payload("1", b"small".as_slice().into());
        assert_eq!(&*queue.poll(at(0)).unwrap().payload, b"small");
        assert_eq!(outcome(&mut queue, "1", Err(too_large()), 0), Verdict::Dead);
        next(&mut queue, 0);
        assert_eq!(outcome(&mut queue, "2", Err(NotifyError::permanent("400")), 0), Verdict::Dead);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[test]
    fn a_receiver_that_is_gone_keeps_its_deliveries_until_they_are_too_old() {
        let mut queue = queue(10);
        push(&mut queue, &[("1", "a")]);
        next(&mut queue, 0);
        assert_eq!(outcome(&mut queue, "1", Err(NotifyError::Gone { reason: "410".into() }), 0), Verdict::Gone);
        assert_eq!(next(&mut queue, 100_000), "");
        assert_eq!(queue.health().0, Health::Gone);
        assert!(queue.expire(at(259_199)).is_empty());
        assert_eq!(queue.expire(at(259_200)).len(), 1);
    }

    #[test]
    fn a_full_queue_gives_up_the_oldest_of_the_mildest() {
        let mut queue = queue(2);
        assert!(queue.push(delivery("1", "a", Severity::Critical), Timestamp::EPOCH).is_none());
        assert!(queue.push(delivery("2", "b", Severity::Low), Timestamp::EPOCH).is_none());
        assert_eq!(&*queue.push(delivery("3", "c", Severity::Low), Timestamp::EPOCH).unwrap().id, "2");
        assert_eq!(&*queue.push(delivery("4", "d", Severity::High), Timestamp::EPOCH).unwrap().id, "3");
        assert_eq!(&*queue.push(delivery("5", "e", Severity::Info), Timestamp::EPOCH).unwrap().id, "5");
        assert_eq!(next(&mut queue, 0), "1");
        assert_eq!(next(&mut queue, 0), "4");
    }

    #[test]
    fn only_the_recipients_that_are_left_are_tried_again() {
        let mut queue = queue(10);
        push(&mut queue, &[("1", "a")]);
        next(&mut queue, 0);
        let partial = |remaining: &[&str]| NotifyError::Partial {
            reason: "451".into(),
            remaining: remaining.iter().map(|one| (*one).to_owned()).collect(),
            refused: vec!["c@example.org".into()],
        };
        outcome(&mut queue, "1", Err(partial(&["b@example.org"])), 0);
        assert_eq!(queue.poll(at(2)).unwrap().remaining, ["b@example.org"]);
        assert_eq!(outcome(&mut queue, "1", Err(partial(&[])), 2), Verdict::Delivered);
    }

    #[test]
    fn those_of_one_key_go_together_while_all_is_well_and_in_order_after_a_failure() {
        let mut queue = queue(100);
        push(&mut queue, &[("1", "a"), ("2", "b"), ("3", "a"), ("4", "a"), ("5", "b")]);
        assert_eq!(batch(&mut queue, 4), ["1", "2", "3", "4"]);
        assert_eq!(batch(&mut queue, 4), [""; 0], "5 waits for the outcome of 2");
        outcome(&mut queue, "1", Ok(()), 0);
        outcome(&mut queue, "2", Ok(()), 0);
        outcome(&mut queue, "3", Err(NotifyError::transient("reset")), 0);
        queue.give_back("4");
        assert_eq!(batch(&mut queue, 4), ["5"], "4 stays behind 3");
        outcome(&mut queue, "5", Ok(()), 0);
        assert_eq!(batch(&mut queue, 4), [""; 0]);
        assert_eq!(batch_at(&mut queue, 4, 2), ["3", "4"]);
        outcome(&mut queue, "3", Err(NotifyError::permanent("400")), 2);
        outcome(&mut queue, "4", Ok(()), 2);
        assert!(queue.is_empty());
    }

    fn batch(queue: &mut Queue, most: usize) -> Vec<String> {
        batch_at(queue, most, 0)
    }

    fn batch_at(queue: &mut Queue, most: usize, seconds: i64) -> Vec<String> {
        queue.poll_batch(at(seconds), most).into_iter().map(|delivery| delivery.id.to_string()).collect()
    }

    fn queue(capacity: usize) -> Queue {
        Queue::new(limits(capacity), None)
    }

    fn limits(capacity: usize) -> QueueLimits {
        QueueLimits { capacity, max_age: Duration::from_secs(3 * 86_400) }
    }

    fn push(queue: &mut Queue, deliveries: &[(&str, &str)]) {
        for (id, key) in deliveries {
            assert!(queue.push(delivery(id, key, Severity::High), Timestamp::EPOCH).is_none());
        }
    }

    fn next(queue: &mut Queue, seconds: i64) -> String {
        queue.poll(at(seconds)).map(|delivery| delivery.id.to_string()).unwrap_or_default()
    }

    fn outcome(queue: &mut Queue, id: &str, outcome: Result<(), NotifyError>, seconds: i64) -> Verdict {
        queue.handle_outcome(id, &outcome, at(seconds), 1.0)
    }

    fn delivery(id: &str, key: &str, severity: Severity) -> Delivery {
        Delivery {
            sequence: 0,
            id: id.into(),
            output: "soc".into(),
            key: key.into(),
            kind: DocumentKind::Firing,
            severity,
            created: Timestamp::EPOCH,
            payload: b"payload".as_slice().into(),
            remaining: Vec::new(),
            attempts: 0,
            last_error: None,
            message: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }
}
