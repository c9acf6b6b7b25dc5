//! One rule at work: its groups, their windows and their alerts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::alert::{
    self, Alert, DocumentKind, Evidence, Facts, Findings, Lifecycle, Notification, PacketsWanted, Reason, RecentFlows,
    Sighting, Stage, Step, Window, alert_key, compose, episode_uid,
};
use crate::engine::Output;
use crate::engine::checkpoint::{SavedException, SavedGroup, SavedRule};
use crate::engine::memory::{Memory, Recollection, Shown, amount};
use crate::engine::settings::{Companions, Decisions};
use crate::flow::Counters;
use crate::rule::{
    Comparison, Decided, Exception, ExceptionBudget, Fact, Field, Host, Leaf, Measured, NoData, Observation, Plan,
    Quantity, Reading, Rule, Trigger, Value, ValueSource, restore_group, save_group, ticks,
};
use crate::time::Timestamp;
use crate::window::{
    Addition, Column, Gauges, Group, GroupId, Openness, Room, Seen, Series, SeriesStatistics, Span, Tick, Track,
    WindowRef,
};

/// A rule at work.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) rule: Arc<Rule>,
    plan: Plan,
    /// What makes a group.
    fields: Vec<Field>,
    series: Series<Box<[Value]>, GroupState>,
    /// What the trigger remembers beside the windows.
    memory: Memory,
    /// Groups that something was booked on since the last tick.
    touched: Vec<GroupId>,
    /// Groups for which something was collected at this tick.
    collected: Vec<GroupId>,
    /// Groups whose alert lives.
    active: BTreeSet<GroupId>,
    /// Whether the rule's schedule lets it speak.
    in_force: bool,
    /// The exceptions whose time it is, a bit each.
    exceptions: u64,
    /// What each exception hid.
    hidden: Vec<Hidden>,
    /// Earlier alerts by their key.
    past: BTreeMap<Arc<str>, Past>,
    /// When alerts were said, for the cap.
    said: VecDeque<Timestamp>,
    /// What values are hashed with; kept over a restart.
    seed: u64,
    hasher: foldhash::fast::FixedState,
    counts: WatchCounts,
    /// What each condition of the trigger decided alone.
    decided: Vec<Decided>,
}

/// What the engine keeps with a flow for each rule that looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Bound {
    /// The rule's place.
    pub(super) watch: u32,
    /// The group that the flow belongs to.
    pub(super) group: GroupId,
    /// The exceptions whose condition holds, a bit each.
    exceptions: u64,
}

/// What happened on a flow since the last tick.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Happened {
    /// What passed.
    pub(super) counters: Counters,
    /// When the flow began, if its beginning is to be counted.
    pub(super) opened: Option<Timestamp>,
    /// Whether the group opened it.
    pub(super) by_group: bool,
    /// Whether the rule did not look at the flow before.
    pub(super) is_first_match: bool,
    /// Connections that failed.
    pub(super) failed: u64,
    /// DNS questions.
    pub(super) questions: u64,
    /// Bytes of the names in them.
    pub(super) question_bytes: u64,
}

/// A word of the rule, and what holds it back where something does.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) notification: Notification,
    pub(super) held_back: Option<&'static str>,
}

impl Told {
    fn freely(notification: Notification) -> Self {
        Self { notification, held_back: None }
    }

    pub(super) fn into_output(self) -> Output {
        match self.held_back {
            None => Output::Notification(self.notification),
            Some(reason) => Output::HeldBack(self.notification, reason),
        }
    }
}

/// What the rule did, as running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WatchCounts {
    /// Alerts that began to fire.
    pub(super) fired: u64,
    /// Notifications held back.
    pub(super) suppressed: u64,
}

/// The moment of an evaluation, and what it needs from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) tick: Tick,
    pub(super) at: Timestamp,
    pub(super) length: Duration,
    pub(super) host: &'a Host,
    pub(super) coverage: f64,
    /// Whether the source is silent, so that nothing can be seen.
    pub(super) silent: bool,
    pub(super) decisions: Decisions,
    pub(super) companions: Companions,
}

#[derive(Debug, Default)]
struct GroupState {
    touched: Tick,
    /// The tick at which the headroom was measured.
    measured: Tick,
    /// What can still be collected at that tick before the group may come near to its limits.
    headroom: u64,
    /// What passed on settled flows at this tick and is not booked yet.
    collected: Counters,
    /// New flows of an `each` rule since the last tick.
    opened: u32,
    /// When the group's tuple was first seen, until that was told.
    novel_since: Option<Tick>,
    /// Steps of a quota that were told.
    steps: usize,
    /// Whether it was told that the conditions hold outside the rule's schedule.
    out_of_hours: bool,
    life: Option<Box<Lifecycle>>,
    evidence: Option<Box<Evidence>>,
    /// The flows whose packets an alert comes with.
    recent: Option<Box<RecentFlows>>,
    /// The flows that are told one by one.
    companions: Option<Box<alert::Companions>>,
}

/// What one exception hid.
#[derive(Debug, Clone, Default)]
struct Hidden {
    /// What it hid within the time of its budget.
    budget: Track,
    usage: ExceptionUsage,
}

/// What one exception hid, as running totals.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExceptionUsage {
    /// Times that it hid something: flows and ticks.
    pub hits: u64,
    /// Bytes that it hid.
    pub bytes: u64,
    /// When it last hid something.
    pub last: Option<Timestamp>,
    /// Since when this is counted; `None` before the first tick.
    pub since: Option<Timestamp>,
}

/// What is remembered of an alert after it ended.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Past {
    episode: u64,
    quiet_until: Option<Timestamp>,
}

/// Groups whose cache misses overlap.
const TOGETHER: usize = 32;

/// What may be collected at once, at least: a group whose limit is far has many who collect for it.
const ALLOWANCE: u64 = 65_536;

/// A group's headroom lasts for more collectors than this.
const SHARES: u64 = 1_024;

/// Ended alerts remembered for each rule.
const MAX_PAST: usize = 65_536;

impl Hidden {
    fn saved(&self, exception: &Exception) -> SavedException {
        SavedException {
            exception: exception.name.to_string(),
            budget: self.budget.clone(),
            usage: self.usage.clone(),
            words: budget_words(exception),
        }
    }
}

impl SavedException {
    /// Whether what it used counts for the budget that the exception has.
    fn budget_fits(&self, exception: &Exception, budget: &Track) -> bool {
        self.words == budget_words(exception) && self.budget.same_shape(budget)
    }
}

/// What a budget counts, so that another one does not take over its sums.
fn budget_words(exception: &Exception) -> String {
    exception.budget.as_ref().map(|budget| format!("{} {:?}", budget.metric, budget.per)).unwrap_or_default()
}

impl Bound {
    #[cfg(test)]
    pub(super) fn of_watch(watch: u32) -> Self {
        Self { watch, group: GroupId::default(), exceptions: 0 }
    }

    /// Whether it is the same group of the same rule.
    pub(super) fn is_same_group(&self, other: &Self) -> bool {
        (self.watch, self.group) == (other.watch, other.group)
    }
}

impl Watch {
    pub(super) fn new(rule: Arc<Rule>, tick: Duration) -> Self {
        let seed = foldhash::fast::RandomState::default().hash_one(());
        let plan = Plan::of(&rule, tick);
        let series = Series::new(plan.layout.clone(), rule.limits.max_groups);
        let mut watch = Self {
            plan,
            fields: fields_of(&rule),
            series,
            memory: Memory::of(&rule),
            hidden: Vec::new(),
            rule,
            touched: Vec::new(),
            collected: Vec::new(),
            active: BTreeSet::new(),
            in_force: true,
            exceptions: u64::MAX,
            past: BTreeMap::new(),
            said: VecDeque::new(),
            seed,
            hasher: foldhash::fast::FixedState::with_seed(seed),
            counts: WatchCounts::default(),
            decided: Vec::new(),
        };
        watch.hidden = watch.rule.exceptions.iter().map(|exception| hidden(exception, tick)).collect();
        watch
    }

    /// Takes a newer text of the same rule and keeps the windows; `false`
    /// where they no longer fit.
    pub(super) fn adopt(&mut self, rule: &Arc<Rule>, tick: Duration) -> bool {
        if self.rule.metadata.id != rule.metadata.id || self.rule.fingerprint != rule.fingerprint {
            return false;
        }
        let plan = Plan::of(rule, tick);
        if plan.sources != self.plan.sources || !self.series.adopt_layout(&plan.layout) {
            return false;
        }
        let before = std::mem::take(&mut self.hidden);
        let before: Vec<(&Arc<Exception>, Hidden)> = self.rule.exceptions.iter().zip(before).collect();
        self.hidden = rule
            .exceptions
            .iter()
            .map(|exception| match before.iter().find(|(old, _)| old.name == exception.name) {
                Some((old, hidden)) if old.budget == exception.budget => hidden.clone(),
                Some((_, old)) => Hidden { usage: old.usage.clone(), ..hidden(exception, tick) },
                None => hidden(exception, tick),
            })
            .collect();
        self.plan = plan;
        self.fields = fields_of(rule);
        self.rule = Arc::clone(rule);
        true
    }

    /// Finds the group of a flow that the rule's condition holds for.
    pub(super) fn bind(&mut self, watch: u32, seen: &Observation<'_>, now: Tick, room: Room) -> Option<Bound> {
        let key: Box<[Value]> = self.fields.iter().map(|field| field.fact(seen).to_value()).collect();
        let group = self.series.enter(key, now, room)?;
        let exceptions = self.rule.exceptions.iter().zip(0..64u32);
        let exceptions = exceptions
            .filter(|(exception, _)| exception.condition.matches(seen))
            .fold(0, |bits, (_, at)| bits | 1u64 << at);
        Some(Bound { watch, group, exceptions })
    }

    /// Books what happened on a flow; `false` where its group is gone.
    #[inline]
    pub(super) fn book(
        &mut self,
        bound: &Bound,
        now: &Moment<'_>,
        happened: &Happened,
        sighting: &Sighting<'_>,
        seen: &mut Seen,
    ) -> bool {
        let excluded = self.exclude(bound, now, happened);
        let mut addition = Addition::default();
        let counters = &happened.counters;
        if excluded {
            addition.set(Column::ExcludedOut, counters.bytes_out.0);
            addition.set(Column::ExcludedIn, counters.bytes_in.0);
        } else {
            set_counters(&mut addition, counters);
            addition.set(Column::ConnectionsFailed, happened.failed);
            addition.set(Column::DnsQueries, happened.questions);
            addition.set(Column::DnsNameBytes, happened.question_bytes);
            if happened.opened.is_some() && happened.by_group {
                addition.set(Column::Connections, 1);
                addition.start = happened.opened;
            }
            // That nothing came back is no new sight of the other end.
            if !counters.is_empty() || happened.questions > 0 {
                addition.values = self.values(sighting.seen);
            }
        }
        let Some(group) = self.series.add(bound.group, now.tick, &addition) else { return false };
        if let Some(first) = happened.opened {
            group.gauges.set_open(first, Openness::Open);
        }
        if excluded {
            return true;
        }
        let Self { memory, rule, .. } = self;
        if let Trigger::FirstSeen(first) = &rule.trigger {
            let tuple = &group.key[..(first.per.len() + first.of.len()).min(group.key.len())];
            if memory.is_new(first, rule.fingerprint, now, tuple, seen) {
                group.extension.novel_since = Some(now.tick);
            }
        } else if !matches!(memory, Memory::None) {
            memory.note(rule, now.length, now.tick, &group.key, happened);
        }
        let state = &mut group.extension;
        if state.touched != now.tick {
            state.touched = now.tick;
            self.touched.push(bound.group);
        }
        state.opened += u32::from(happened.is_first_match);
        if let Some(span) = rule.keep_packets {
            let oldest = now.tick.saturating_sub(ticks(span, now.length));
            let owner = sighting.seen.attribution.process();
            state.recent.get_or_insert_default().note(now.tick, oldest, sighting.seen.key, owner);
        }
        let length = self.plan.span().length;
        if let Some(evidence) = &mut state.evidence {
            evidence.note(now.tick, length, sighting, counters);
            if now.companions == Companions::On {
                state.companions.get_or_insert_default().note(sighting, counters);
            }
            return true;
        }
        let edge = self.plan.edge;
        let reading = Reading { layout: &self.plan.layout, gauges: &group.gauges, edge, error: None, now: now.tick };
        if self.plan.is_near(&reading) {
            state.evidence.insert(Box::default()).note(now.tick, length, sighting, counters);
            if now.companions == Companions::On {
                state.companions.get_or_insert_default().note(sighting, counters);
            }
        }
        true
    }

    /// Whether what passes on a flow of this group may be booked as a part of a sum: nothing but its bytes and
    /// packets matters, and nobody wants to know which flow they were on.
    pub(super) fn is_summable(&self, bound: &Bound) -> bool {
        let only_sums = !matches!(self.rule.trigger, Trigger::Each | Trigger::FirstSeen(_));
        only_sums && bound.exceptions == 0 && self.plan.sources.is_empty() && self.rule.keep_packets.is_none()
    }

    /// How much may be collected for a group at a tick, at once and for one of those who collect for it, before it can
    /// come near to a limit, where its evidence begins; 0 where that is less than `weight`.
    pub(super) fn allowance(&mut self, group: GroupId, tick: Tick, weight: u64) -> u64 {
        let Some(found) = self.series.group_mut(group) else { return 0 };
        let state = &mut found.extension;
        if state.measured != tick {
            state.measured = tick;
            let edge = self.plan.edge;
            let reading = Reading { layout: &self.plan.layout, gauges: &found.gauges, edge, error: None, now: tick };
            state.headroom = if state.evidence.is_some() { 0 } else { self.plan.headroom(&reading) };
        }
        let most = state.headroom.saturating_sub(1);
        if most < weight { 0 } else { most.min(weight.max(ALLOWANCE).max(most / SHARES)) }
    }

    /// Sets so much of an allowance aside, to be collected.
    pub(super) fn set_aside(&mut self, group: GroupId, weight: u64) {
        if let Some(found) = self.series.group_mut(group) {
            found.extension.headroom = found.extension.headroom.saturating_sub(weight);
        }
    }

    /// Reads a little of what is touched when a group is booked on.
    #[inline]
    fn glance(&self, group: GroupId) -> u64 {
        let seen = |group: &Group<Box<[Value]>, GroupState>| {
            let state = &group.extension;
            state.collected.packets_in.0 ^ group.gauges.glance()
        };
        self.series.group(group).map_or(0, seen)
    }

    /// Collects what passed on flows, to be booked in one with what passed on others of their group.
    pub(super) fn collect(&mut self, group: GroupId, counters: &Counters) {
        let Some(found) = self.series.group_mut(group) else { return };
        let state = &mut found.extension;
        if state.collected.is_empty() {
            self.collected.push(group);
        }
        state.collected.add(counters);
    }

    /// Books what was collected.
    pub(super) fn book_collected(&mut self, tick: Tick, length: Duration, decisions: Decisions) {
        let mut collected = std::mem::take(&mut self.collected);
        for (place, &id) in collected.iter().enumerate() {
            if place % TOGETHER == 0 {
                let next = &collected[place..collected.len().min(place + TOGETHER)];
                std::hint::black_box(next.iter().fold(0, |seen, id| seen ^ self.glance(*id)));
            }
            let Some(group) = self.series.group_mut(id) else { continue };
            let counters = std::mem::take(&mut group.extension.collected);
            let mut addition = Addition::default();
            set_counters(&mut addition, &counters);
            let Some(group) = self.series.add(id, tick, &addition) else { continue };
            let Self { memory, rule, .. } = self;
            if !matches!(memory, Memory::None) {
                let happened = Happened { counters, ..Happened::default() };
                memory.note(rule, length, tick, &group.key, &happened);
            }
            // A group that is not near to its limits does not hold, unless by what it may have inherited.
            let is_to_be_looked_at = group.is_newcomer() || decisions == Decisions::On;
            let state = &mut group.extension;
            if is_to_be_looked_at && state.touched != tick {
                state.touched = tick;
                self.touched.push(id);
            }
        }
        collected.clear();
        self.collected = collected;
    }

    /// Notes that a flow ended.
    pub(super) fn close(&mut self, bound: &Bound, first: Timestamp) {
        if self.plan.layout.ages
            && let Some(group) = self.series.group_mut(bound.group)
        {
            group.gauges.set_open(first, Openness::Closed);
        }
    }

    /// Looks at every group whose verdict may have changed, and tells what did.
    pub(super) fn evaluate(&mut self, now: &Moment<'_>) -> Vec<Told> {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() && self.active.is_empty() && !(self.is_volatile() && self.holds_groups()) {
            return Vec::new();
        }
        let mut due: Vec<GroupId> = touched;
        due.extend(&self.active);
        if self.is_volatile() {
            due.extend(self.series.ids());
        }
        due.sort_unstable();
        due.dedup();
        let mut told: Vec<(Box<[Value]>, Told)> = Vec::new();
        for id in due {
            for word in self.evaluate_group(id, now) {
                let key = self.series.group(id).map(|group| group.key.clone()).unwrap_or_default();
                told.push((key, word));
            }
        }
        told.sort_by(|one, other| one.0.cmp(&other.0));
        told.into_iter().map(|(_, word)| word).collect()
    }

    /// Lets empty groups leave.
    pub(super) fn expire(&mut self, now: &Moment<'_>) {
        self.series.expire(now.tick, now.length);
    }

    /// Notes which schedules hold.
    pub(super) fn set_time(&mut self, at: Timestamp) {
        self.count_exceptions_from(at);
        self.in_force = self.rule.active.contains(at);
        let in_force = |exception: &Exception| {
            exception.expires.is_none_or(|expires| at < expires)
                && exception.during.as_ref().is_none_or(|schedule| schedule.contains(at))
        };
        let exceptions = self.rule.exceptions.iter().zip(0..64u32);
        self.exceptions = exceptions.filter(|(one, _)| in_force(one)).fold(0, |bits, (_, at)| bits | 1u64 << at);
    }

    /// Whether the rule's answer depends on the time of day.
    pub(super) fn follows_schedule(&self) -> bool {
        !self.rule.active.is_always()
            || self.rule.exceptions.iter().any(|one| one.during.is_some() || one.expires.is_some())
    }

    /// The next tick at which something changes by itself; `next` at the earliest.
    pub(super) fn next_change(&self, next: Tick) -> Option<Tick> {
        if !self.active.is_empty() || !self.touched.is_empty() || (self.is_volatile() && self.holds_groups()) {
            return Some(next);
        }
        self.series.next_expiry().map(|due| due.max(next))
    }

    /// Ends every alert because the rule is gone.
    pub(super) fn withdraw(&mut self, now: &Moment<'_>) -> Vec<Notification> {
        let active = std::mem::take(&mut self.active);
        let ended = active.into_iter().filter_map(|id| {
            let life = self.series.group_mut(id)?.extension.life.take()?;
            if !life.is_firing() || !life.announced {
                return None;
            }
            let alert = self.document(id, now, &life, "withdrawn", Reason::First);
            Some(alert_notification(DocumentKind::Withdrawn, now, alert))
        });
        ended.collect()
    }

    pub(super) fn statistics(&self) -> SeriesStatistics {
        let statistics = self.series.statistics();
        SeriesStatistics { evicted: statistics.evicted + self.memory.forgotten(), ..statistics }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.series.heap_bytes() + self.memory.heap_bytes()
    }

    /// Whether the rule only learns so far, and cannot fire.
    pub(super) fn is_learning(&self, now: &Moment<'_>) -> bool {
        self.memory.is_learning(&self.rule, now)
    }

    pub(super) fn counts(&self) -> WatchCounts {
        self.counts
    }

    /// What each condition of the trigger decided alone.
    pub(super) fn decisions(&self) -> Vec<(Leaf, Decided)> {
        let decided = self.decided.iter().copied().chain(std::iter::repeat(Decided::default()));
        self.plan.leaves().into_iter().zip(decided).collect()
    }

    /// The groups that are held.
    pub(super) fn group_ids(&self) -> impl Iterator<Item = GroupId> {
        self.series.ids()
    }

    /// Every condition of the trigger with the value that a group has at a tick, which nothing was booked after.
    pub(super) fn measure(&self, id: GroupId, now: Tick, tick: Duration) -> Option<Vec<Measured>> {
        let group = self.series.group(id)?;
        let mut gauges = group.gauges.clone();
        gauges.advance(&self.plan.layout, now, tick);
        let edge = self.plan.edge;
        let reading = Reading { layout: &self.plan.layout, gauges: &gauges, edge, error: None, now };
        let mut measured = self.plan.measure(&self.plan.trigger, &reading);
        let remembered = self.memory.measure(&self.rule, tick, &group.key);
        measured.extend(remembered.map(|shown| shown.measured));
        Some(measured)
    }

    /// How a group's alert stands; `None` where there is none.
    pub(super) fn stage(&self, id: GroupId) -> Option<Stage> {
        Some(self.series.group(id)?.extension.life.as_ref()?.stage())
    }

    /// The length of the window that alerts show.
    pub(super) fn window_seconds(&self, tick: Duration) -> u64 {
        tick.saturating_mul(u32::try_from(self.plan.span().length).unwrap_or(u32::MAX)).as_secs()
    }

    pub(super) fn firing(&self) -> usize {
        let fires = |id: &&GroupId| {
            let life = self.series.group(**id).and_then(|group| group.extension.life.as_ref());
            life.is_some_and(|life| life.is_firing())
        };
        self.active.iter().filter(fires).count()
    }

    /// The keys of the alerts that fire, whether they were said or not.
    pub(super) fn firing_keys(&self) -> impl Iterator<Item = Arc<str>> {
        let fires = |id: &&GroupId| {
            let life = self.series.group(**id).and_then(|group| group.extension.life.as_ref());
            life.is_some_and(|life| life.is_firing())
        };
        self.active.iter().filter(fires).map(|id| self.key(*id))
    }

    /// What a later run is to take over.
    pub(super) fn saved(&self) -> SavedRule {
        let group = |id: GroupId| {
            let group = self.series.group(id)?;
            Some(SavedGroup {
                key: save_group(&group.key),
                gauges: group.gauges.clone(),
                life: group.extension.life.as_deref().cloned(),
                steps: group.extension.steps,
            })
        };
        SavedRule {
            id: self.rule.metadata.id.to_string(),
            fingerprint: self.rule.fingerprint,
            seed: self.seed,
            layout: self.plan.layout.clone(),
            memory: self.memory.saved(),
            past: self.past.iter().map(|(key, past)| (Arc::clone(key), *past)).collect(),
            hidden: self.rule.exceptions.iter().zip(&self.hidden).map(|(one, hidden)| hidden.saved(one)).collect(),
            groups: self.series.ids().filter_map(group).collect(),
        }
    }

    /// Takes over what an earlier run left, if the rule is still the same:
    /// how many groups and living alerts that were.
    pub(super) fn restore(&mut self, saved: SavedRule, now: Tick) -> Option<(usize, usize)> {
        // What an exception hid is counted by its name, whatever else the rule says.
        let counted = saved.hidden.iter().map(|left| (left.exception.as_str().into(), left.usage.clone()));
        self.restore_usage(counted.collect());
        if saved.fingerprint != self.rule.fingerprint || !self.plan.layout.same_shape(&saved.layout) {
            return None;
        }
        self.seed = saved.seed;
        self.hasher = foldhash::fast::FixedState::with_seed(saved.seed);
        self.memory.restore(saved.memory);
        let exceptions = self.rule.exceptions.iter().zip(&mut self.hidden);
        for (exception, hidden) in exceptions {
            let left = saved.hidden.iter().find(|left| *left.exception == *exception.name);
            if let Some(left) = left.filter(|left| left.budget_fits(exception, &hidden.budget)) {
                (hidden.budget, hidden.usage) = (left.budget.clone(), left.usage.clone());
            }
        }
        self.past = saved.past.into_iter().collect();
        let (mut groups, mut alerts) = (0, 0);
        for group in saved.groups.into_iter().filter(|group| group.gauges.fit(&self.plan.layout)) {
            let Some(id) = self.series.enter(restore_group(group.key), now, Room::Some) else { continue };
            groups += 1;
            if group.life.is_some() {
                self.series.pin(id);
                self.active.insert(id);
                alerts += 1;
            }
            if let Some(entered) = self.series.group_mut(id) {
                entered.gauges = group.gauges;
                entered.extension.life = group.life.map(Box::new);
                entered.extension.steps = group.steps;
            }
        }
        Some((groups, alerts))
    }

    /// Takes over what an earlier text of the rule counted of its exceptions.
    pub(super) fn inherit_usage(&mut self, older: &Self) {
        let counted: Vec<_> = older.exception_usage().map(|(name, usage)| (Arc::clone(name), usage.clone())).collect();
        self.restore_usage(counted);
    }

    /// Notes since when exceptions are counted.
    pub(super) fn count_exceptions_from(&mut self, at: Timestamp) {
        for hidden in &mut self.hidden {
            hidden.usage.since.get_or_insert(at);
        }
    }

    fn restore_usage(&mut self, counted: Vec<(Arc<str>, ExceptionUsage)>) {
        for (name, usage) in counted {
            let place = self.rule.exceptions.iter().position(|exception| exception.name == name);
            if let Some(hidden) = place.and_then(|place| self.hidden.get_mut(place)) {
                hidden.usage = usage;
            }
        }
    }

    /// What each exception hid so far.
    pub(super) fn exception_usage(&self) -> impl Iterator<Item = (&Arc<str>, &ExceptionUsage)> {
        self.rule.exceptions.iter().zip(&self.hidden).map(|(exception, hidden)| (&exception.name, &hidden.usage))
    }

    /// Whether an exception hides what happened on a flow; it is counted there.
    fn exclude(&mut self, bound: &Bound, now: &Moment<'_>, happened: &Happened) -> bool {
        let mut candidates = bound.exceptions & self.exceptions;
        while candidates != 0 {
            let at = candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            let (Some(exception), Some(hidden)) = (self.rule.exceptions.get(at), self.hidden.get_mut(at)) else {
                continue;
            };
            if let Some(budget) = &exception.budget {
                let spans = [budget_span(budget, now.length)];
                hidden.budget.advance(&spans, now.tick, 1);
                let used = Quantity::Count(hidden.budget.sum(0, 0, 1));
                if !Comparison::Less(budget.limit).holds(used) {
                    continue;
                }
                hidden.budget.add(&spans, now.tick, &[amount(&budget.metric, happened)]);
            }
            hidden.usage.hits += 1;
            hidden.usage.bytes += happened.counters.bytes_out.0 + happened.counters.bytes_in.0;
            hidden.usage.last = Some(now.at);
            return true;
        }
        false
    }

    fn is_volatile(&self) -> bool {
        self.plan.volatile || !self.rule.active.is_always()
    }

    /// Whether it neither holds anything nor ever did anything.
    pub(super) fn is_idle(&self) -> bool {
        let SeriesStatistics { groups, evicted, refused } = self.statistics();
        groups == 0 && evicted == 0 && refused == 0 && self.counts == WatchCounts::default() && self.heap_bytes() == 0
    }

    fn holds_groups(&self) -> bool {
        self.series.statistics().groups > 0
    }

    fn values(&self, seen: &Observation<'_>) -> SmallVec<[Option<u64>; 4]> {
        let hash = |source: &ValueSource| match source {
            ValueSource::Field(field) => self.hash(&field.fact(seen)),
            ValueSource::DnsName => seen.dns.map(|query| self.hasher.hash_one(query.name.as_bytes())),
        };
        self.plan.sources.iter().map(hash).collect()
    }

    fn hash(&self, fact: &Fact<'_>) -> Option<u64> {
        match fact {
            Fact::Missing => None,
            Fact::Number(number) => Some(self.hasher.hash_one(number)),
            Fact::Ip(address) => Some(self.hasher.hash_one(address.octets())),
            Fact::Text(text) => Some(self.hasher.hash_one(text.as_ref())),
            other => Some(self.hasher.hash_one(other.to_value())),
        }
    }

    fn evaluate_group(&mut self, id: GroupId, now: &Moment<'_>) -> Vec<Told> {
        let Some(group) = self.series.advance(id, now.tick, now.length) else {
            self.active.remove(&id);
            return Vec::new();
        };
        let opened = std::mem::take(&mut group.extension.opened);
        let life = group.extension.life.take();
        let found = self.findings(id, now, opened);
        // What cannot be seen has not ended.
        let frozen = now.silent && self.rule.life.no_data != NoData::Resolve;
        let found = match &life {
            Some(life) if frozen && life.is_firing() => Findings { holds: true, ..found },
            _ => found,
        };
        if life.is_none() && !found.holds {
            return self.out_of_hours(id, now).into_iter().collect();
        }
        let key = self.key(id);
        let past = self.past.get(&key).copied().unwrap_or_default();
        let found = Findings { quiet_until: past.quiet_until, ..found };
        let mut life = life.unwrap_or_else(|| {
            self.series.pin(id);
            self.active.insert(id);
            Box::new(Lifecycle::begin(now.at, past.episode + 1))
        });
        let before = life.suppressed;
        let step = life.step(now.at, &self.rule.life, &found);
        self.counts.suppressed += life.suppressed - before;
        let mut told = Vec::new();
        match step {
            Step::None if life.suppressed > before => {
                life.uid = episode_uid(&key, life.episode, now.at);
                let alert = self.document(id, now, &life, "suppressed", Reason::First);
                let notification = alert_notification(DocumentKind::Firing, now, alert);
                told.push(Told { notification, held_back: Some("cooldown") });
            }
            Step::None => {}
            Step::Fired => {
                self.counts.fired += 1;
                if let Some(group) = self.series.group_mut(id) {
                    group.extension.novel_since = None;
                }
                life.uid = episode_uid(&key, life.episode, now.at);
                self.past.insert(Arc::clone(&key), Past { episode: life.episode, quiet_until: None });
                life.announced = self.may_say(now.at);
                if life.announced {
                    let alert = self.document(id, now, &life, "firing", Reason::First);
                    told.push(Told::freely(alert_notification(DocumentKind::Firing, now, alert)));
                } else {
                    life.suppressed += 1;
                    self.counts.suppressed += 1;
                    let alert = self.document(id, now, &life, "firing", Reason::First);
                    let notification = alert_notification(DocumentKind::Firing, now, alert);
                    told.push(Told { notification, held_back: Some("cap") });
                }
            }
            Step::Updated(reason) if life.announced => {
                let alert = self.document(id, now, &life, "firing", reason);
                told.push(Told::freely(alert_notification(DocumentKind::Updated, now, alert)));
            }
            Step::Updated(_) => life.suppressed += 1,
            Step::Resolved => {
                let quiet_until = Some(now.at.after(self.rule.life.cooldown));
                self.remember(key, Past { episode: life.episode, quiet_until }, now.at);
                let alert = self.document(id, now, &life, "resolved", Reason::First);
                let notification = alert_notification(DocumentKind::Resolved, now, alert);
                told.push(Told { notification, held_back: (!life.announced).then_some("cap") });
            }
            Step::Forgotten => {}
        }
        if !told.is_empty()
            && let Some(companions) = self.series.group_mut(id).and_then(|group| group.extension.companions.as_mut())
        {
            companions.told();
        }
        if matches!(step, Step::Resolved | Step::Forgotten) {
            self.series.unpin(id, now.tick);
            self.active.remove(&id);
        } else if let Some(group) = self.series.group_mut(id) {
            group.extension.life = Some(life);
        }
        told
    }

    fn findings(&mut self, id: GroupId, now: &Moment<'_>, opened: u32) -> Findings {
        let Some(group) = self.series.group_mut(id) else { return Findings::default() };
        let recalled = match self.memory {
            Memory::None => Recollection::default(),
            _ => self.memory.recall(&self.rule, now.length, now.tick, &group.key),
        };
        let steps = std::mem::replace(&mut group.extension.steps, recalled.steps);
        let novel_since = group.extension.novel_since;
        let Some(group) = self.series.group(id) else { return Findings::default() };
        let error = |window: WindowRef, column: usize| self.series.error(id, now.tick, window, column);
        let error: Option<&dyn Fn(WindowRef, usize) -> u64> = if group.is_newcomer() { Some(&error) } else { None };
        let edge = self.plan.edge;
        let reading = Reading { layout: self.series.layout(), gauges: &group.gauges, edge, error, now: now.tick };
        let is_asked = !matches!(self.rule.trigger, Trigger::FirstSeen(_)) || novel_since.is_some();
        if now.decisions == Decisions::On && is_asked {
            self.plan.note_decisive(&reading, &mut self.decided);
        }
        let verdict = |checks| self.plan.verdict(checks, &reading).holds;
        let holds = match &self.rule.trigger {
            Trigger::Each => opened > 0,
            Trigger::When(_) => verdict(&self.plan.trigger),
            Trigger::FirstSeen(first) => {
                let within = first.min.as_ref().map_or(1, |min| ticks(min.window, now.length).max(1));
                novel_since.is_some_and(|since| now.tick - since <= within) && verdict(&self.plan.trigger)
            }
            Trigger::Baseline(_) | Trigger::Budget(_) => recalled.holds,
        };
        let holds = holds && self.in_force;
        let may_resolve = !holds && verdict(&self.plan.resolve);
        let escalation = self.plan.escalations.iter().rposition(|checks| verdict(checks));
        let value = self.plan.first_value(&reading);
        Findings { holds, may_resolve, escalation, value, grown: recalled.steps > steps, quiet_until: None }
    }

    /// What is told, once, of a group whose conditions hold outside the rule's schedule.
    fn out_of_hours(&mut self, id: GroupId, now: &Moment<'_>) -> Option<Told> {
        if self.rule.active.is_always() {
            return None;
        }
        let group = self.series.group(id)?;
        let edge = self.plan.edge;
        let reading = Reading { layout: self.series.layout(), gauges: &group.gauges, edge, error: None, now: now.tick };
        let sums = matches!(self.rule.trigger, Trigger::When(_));
        let would = sums && !self.in_force && self.plan.verdict(&self.plan.trigger, &reading).holds;
        let told_before = group.extension.out_of_hours;
        self.series.group_mut(id)?.extension.out_of_hours = would;
        if !would || told_before {
            return None;
        }
        self.counts.suppressed += 1;
        let key = self.key(id);
        let episode = self.past.get(&key).map_or(0, |past| past.episode) + 1;
        let mut life = Lifecycle::begin(now.at, episode);
        life.uid = episode_uid(&key, episode, now.at);
        life.suppressed = 1;
        let alert = self.document(id, now, &life, "suppressed", Reason::First);
        Some(Told { notification: alert_notification(DocumentKind::Firing, now, alert), held_back: Some("schedule") })
    }

    /// Whether the cap lets one more alert be said.
    fn may_say(&mut self, at: Timestamp) -> bool {
        let Some(cap) = self.rule.limits.max_alerts else { return true };
        while self.said.front().is_some_and(|said| at.since(*said) >= cap.per) {
            self.said.pop_front();
        }
        let may = self.said.len() < cap.count as usize;
        if may {
            self.said.push_back(at);
        }
        may
    }

    fn remember(&mut self, key: Arc<str>, past: Past, at: Timestamp) {
        if self.past.len() >= MAX_PAST {
            self.past.retain(|_, past| past.quiet_until.is_none_or(|until| until > at));
        }
        self.past.insert(key, past);
    }

    fn key(&self, id: GroupId) -> Arc<str> {
        alert_key(&self.rule.metadata.id, &self.group_values(id))
    }

    pub(super) fn group_values(&self, id: GroupId) -> Vec<(&'static str, Value)> {
        let values = self.series.group(id).map(|group| group.key.clone()).unwrap_or_default();
        self.fields.iter().map(|field| field.name()).zip(values).collect()
    }

    fn document(&self, id: GroupId, now: &Moment<'_>, life: &Lifecycle, state: &'static str, reason: Reason) -> Alert {
        let key = self.key(id);
        let layout = self.series.layout();
        let span = self.plan.span();
        let length = now.length.saturating_mul(u32::try_from(span.length).unwrap_or(u32::MAX));
        let width = now.length.saturating_mul(u32::try_from(span.width).unwrap_or(u32::MAX));
        let window = Window {
            length_s: length.as_secs(),
            start: now.at.before(length),
            end: now.at,
            max_extra_s: width.as_secs(),
        };
        let group = self.series.group(id);
        let error = |window: WindowRef, column: usize| self.series.error(id, now.tick, window, column);
        let reading = group.map(|group| Reading {
            layout,
            gauges: &group.gauges,
            edge: self.plan.edge,
            error: if group.is_newcomer() { Some(&error) } else { None },
            now: now.tick,
        });
        let mut measured: Vec<Measured> =
            reading.as_ref().map(|reading| self.plan.measure(&self.plan.trigger, reading)).unwrap_or_default();
        let shown = group.and_then(|group| self.memory.measure(&self.rule, now.length, &group.key));
        let mut values = reading.as_ref().map(|reading| self.shown_values(reading)).unwrap_or_default();
        if let Some(Shown { measured: of_memory, values: more }) = shown {
            measured.insert(0, of_memory);
            values.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        let ended = matches!(state, "resolved" | "withdrawn");
        let facts = Facts {
            rule: &self.rule,
            host: now.host,
            key: &key,
            group: self.group_values(id),
            life,
            state,
            reason,
            ended_at: ended.then_some(now.at),
            window: Some(window),
            measured,
            values,
            evidence: group.and_then(|group| group.extension.evidence.as_deref()),
            series: group.map(|group| self.shown_series(&group.gauges, now.tick)).unwrap_or_default(),
            excluded: reading.as_ref().map(|reading| self.excluded(reading)).unwrap_or_default(),
            coverage: now.coverage,
            approximate: reading.is_some_and(|reading| self.plan.verdict(&self.plan.trigger, &reading).approximate),
        };
        let mut alert = compose(facts);
        let companions = group.and_then(|group| group.extension.companions.as_deref());
        alert.flows = companions.map(|companions| companions.of(&life.uid)).unwrap_or_default();
        // Packets of the past are held for no longer than this: an update would find others.
        if let (Some(span), "firing", Reason::First) = (self.rule.keep_packets, state, reason) {
            let oldest = now.tick.saturating_sub(ticks(span, now.length));
            let recent = group.and_then(|group| group.extension.recent.as_deref());
            let flows = recent.map(|recent| recent.since(oldest)).unwrap_or_default();
            alert.packets_wanted = Some(Arc::new(PacketsWanted { flows, span }));
        }
        alert
    }

    fn shown_values(&self, reading: &Reading<'_>) -> BTreeMap<String, Quantity> {
        let shown = [
            (Column::BytesOut, "bytes_out"),
            (Column::BytesIn, "bytes_in"),
            (Column::PayloadOut, "payload_out"),
            (Column::PayloadIn, "payload_in"),
            (Column::Connections, "connections"),
        ];
        let value = |(column, name): &(Column, &str)| {
            let at = reading.layout.columns.iter().position(|known| known == column)?;
            Some(((*name).to_owned(), Quantity::Count(reading.gauges.sum(reading.layout, self.plan.window, at))))
        };
        shown.iter().filter_map(value).collect()
    }

    /// The window's buckets of the first column, oldest first, those without traffic among them.
    fn shown_series(&self, gauges: &Gauges, now: Tick) -> Vec<u64> {
        let span = self.plan.span();
        let last = Span::bucket(span.width, now);
        let count = span.length.div_ceil(span.width).min(MAX_SERIES);
        let mut series = vec![0; usize::try_from(count).unwrap_or(0)];
        for (bucket, value) in gauges.buckets(self.series.layout(), self.plan.window, 0) {
            let age = last.saturating_sub(bucket);
            if let Some(at) = count.checked_sub(age + 1).and_then(|at| usize::try_from(at).ok()) {
                series[at] += value;
            }
        }
        series
    }

    fn excluded(&self, reading: &Reading<'_>) -> BTreeMap<String, u64> {
        let shown = [(Column::ExcludedOut, "bytes_out"), (Column::ExcludedIn, "bytes_in")];
        let value = |(column, name): &(Column, &str)| {
            let at = reading.layout.columns.iter().position(|known| known == column)?;
            Some(((*name).to_owned(), reading.gauges.sum(reading.layout, self.plan.window, at)))
        };
        let none = [("bytes_out".to_owned(), 0)];
        none.into_iter().chain(shown.iter().filter_map(value)).collect()
    }
}

fn set_counters(addition: &mut Addition, counters: &Counters) {
    addition.set(Column::BytesOut, counters.bytes_out.0);
    addition.set(Column::BytesIn, counters.bytes_in.0);
    addition.set(Column::PayloadOut, counters.payload_out.0);
    addition.set(Column::PayloadIn, counters.payload_in.0);
    addition.set(Column::PacketsOut, counters.packets_out.0);
    addition.set(Column::PacketsIn, counters.packets_in.0);
}

/// What makes a group: for a first sight the tuple and its scope come first.
fn fields_of(rule: &Rule) -> Vec<Field> {
    let mut fields: Vec<Field> = match &rule.trigger {
        Trigger::FirstSeen(first) => first.per.iter().chain(&first.of).copied().collect(),
        _ => Vec::new(),
    };
    for field in &rule.group_by {
        if !fields.contains(field) {
            fields.push(*field);
        }
    }
    fields
}

fn hidden(exception: &Exception, tick: Duration) -> Hidden {
    let budget = exception.budget.as_ref().map(|budget| Track::new(&[budget_span(budget, tick)], 1));
    Hidden { budget: budget.unwrap_or_default(), usage: ExceptionUsage::default() }
}

fn budget_span(budget: &ExceptionBudget, tick: Duration) -> Span {
    Span::of(ticks(budget.per, tick))
}

/// Buckets shown in an alert.
const MAX_SERIES: u64 = 720;

fn alert_notification(kind: DocumentKind, now: &Moment<'_>, alert: Alert) -> Notification {
    Notification::of_alert(kind, now.at, alert)
}
