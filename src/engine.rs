//! The engine: from packets to alerts, without a clock, a thread or a file.
//!
//! Inputs and time go in, outputs and a deadline come out. A packet touches
//! one entry of the flow table; everything else happens on the ticks of event
//! time, so the same data gives the same alerts however it is cut into pieces
//! and however often the engine is woken.

mod bindings;
mod checkpoint;
mod delta;
mod health;
mod inspect;
mod memory;
mod settings;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use self::bindings::{Binding, Bindings, Groups};
pub use self::checkpoint::{Checkpoint, Restored};
pub use self::delta::FlowDelta;
use self::health::Health;
pub use self::inspect::{LiveWindow, WindowCondition};
pub use self::settings::{
    Companions, Decisions, Deltas, Descriptions, Output, Owners, Records, Settings, Silence, Statistics,
};
pub use self::watch::ExceptionUsage;
use self::watch::{Bound, Happened, Moment, Told, Watch};
use crate::alert::{Notification, Problem, Sighting};
use crate::attribution::{
    Attribution, Evidence, FlowUpdate, Lookup, OwnerTable, PENDING, Process, ProcessKey, UnknownReason,
};
use crate::flow::{
    BATCH, CaptureLosses, Counters, Direction, Flow, FlowEndReason, FlowEnds, FlowId, FlowKey, FlowLimits, FlowState,
    FlowTable, OwnerSlot, SourceCount, Tag,
};
use crate::names::{Application, DestinationName, FlowNames, FlowRecord, Names, Payload, Place, Places, Segment};
use crate::packet::{DNS_PORT, FrameDirection, Packet};
use crate::rule::{
    Decided, DnsQuery, Leaf, NoData, Observation, OwnerRules, RuleIndex, RuleSet, Severity, Trigger, moment, ticks,
};
use crate::time::Timestamp;
use crate::window::{Room, Seen, Tick};

/// The whole pipeline from packets to alerts.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    rules: Arc<RuleSet>,
    /// One for each rule, in the order of the set.
    watches: Vec<Watch>,
    /// Those that ever had a group, by place: of ten thousand rules most never do, and nothing changes for them.
    awake: BTreeSet<u32>,
    /// Grows when the rules change; flows are bound anew.
    epoch: u32,
    flows: FlowTable<Notes>,
    bindings: Bindings,
    names: Names,
    places: Arc<Places>,
    owners: OwnerTable<OwnerNotes>,
    /// Flows whose owner is being looked up.
    pending: Vec<Waiting>,
    questions: Vec<(FlowId, Arc<DnsQuery>)>,
    /// What the `first_seen` rules saw.
    seen: Seen,
    /// What another run was told, for the tick that is being filled.
    told: Vec<FlowDelta>,
    /// The flows of which that run told, by its numbers.
    told_flows: HashMap<u64, FlowId>,
    /// Flows of which this run told.
    flows_told: u64,
    interfaces: Vec<Option<Arc<str>>>,
    outputs: VecDeque<Output>,
    health: Health,
    /// Whether the source is silent.
    silent: bool,
    /// The latest event time.
    now: Timestamp,
    /// The next tick to be made; none before the first input.
    next_tick: Option<Tick>,
    /// The end of the tick that is being filled; before any time where there is none.
    tick_end: Timestamp,
    /// The tick of the latest input.
    last_input: Tick,
    /// The minute for which the schedules were looked up.
    schedule_minute: i64,
    statistics: Statistics,
}

/// What the engine keeps with a flow.
#[derive(Debug, Default)]
struct Notes {
    /// The groups that it belongs to.
    binding: Binding,
    /// The epoch of the rules it was bound in; 0 where it was never bound.
    epoch: u32,
    /// Whether something was learnt since.
    stale: bool,
    /// Whether its beginning has been counted.
    counted: bool,
    failed: bool,
    /// How often the owner had been described when the flow was last booked.
    described: u8,
    application: Application,
    remote: Option<Arc<Remote>>,
    names: FlowNames,
    /// The flow's number among those that were told of; 0 where it was not.
    number: u64,
}

/// What is known of a flow's remote end.
#[derive(Debug, Clone, Default)]
struct Remote {
    name: Option<Arc<DestinationName>>,
    place: Option<Arc<Place>>,
}

/// What the rules concluded about an owner.
#[derive(Debug)]
struct OwnerNotes {
    rules: OwnerRules,
    /// Whether a rule looks at the progress of this owner's flows.
    follows_progress: bool,
    /// Whether it is this very program.
    is_self: bool,
}

/// A flow whose owner is being looked up.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: FlowId,
    /// Whether the answer is still out.
    asked: bool,
}

/// What is learnt of a flow's remote end.
#[derive(Debug, Clone, Default)]
pub struct RemoteFacts {
    /// What it is called.
    pub name: Option<Arc<DestinationName>>,
    /// Whose network it is in.
    pub place: Option<Arc<Place>>,
    /// What is spoken.
    pub application: Option<Application>,
}

/// Ticks without an input until the ticks grow longer: more than two hours.
const SHORT_SILENCE: Tick = 8192;

/// Questions kept for one tick. Further ones are counted in no window.
const MAX_QUESTIONS: usize = 100_000;

impl Engine {
    /// An engine with these rules.
    pub fn new(settings: Settings, rules: Arc<RuleSet>) -> Self {
        let limits = FlowLimits {
            max_flows: settings.max_flows,
            idle_timeout: settings.idle_timeout,
            active_timeout: settings.active_timeout,
        };
        let watches = rules.rules.iter().map(|rule| Watch::new(Arc::clone(rule), settings.tick)).collect();
        let names = Names::new(settings.max_names);
        let max_seen = settings.max_seen;
        Self {
            settings,
            rules,
            watches,
            awake: BTreeSet::new(),
            epoch: 1,
            flows: FlowTable::new(limits),
            bindings: Bindings::default(),
            names,
            places: Arc::default(),
            owners: OwnerTable::new(),
            pending: Vec::new(),
            questions: Vec::new(),
            seen: Seen::new(max_seen),
            told: Vec::new(),
            told_flows: HashMap::new(),
            flows_told: 0,
            interfaces: Vec::new(),
            outputs: VecDeque::new(),
            health: Health::default(),
            silent: false,
            now: Timestamp::EPOCH,
            next_tick: None,
            tick_end: Timestamp::EPOCH,
            last_input: 0,
            schedule_minute: i64::MIN,
            statistics: Statistics::default(),
        }
    }

    /// Counts a packet.
    pub fn handle_packet(&mut self, packet: &Packet<'_>) {
        self.handle_packets(std::slice::from_ref(packet));
    }

    /// Counts packets, which is faster than one by one and means the same.
    pub fn handle_packets(&mut self, packets: &[Packet<'_>]) {
        let slot = match self.settings.owners {
            Owners::Lookup => PENDING,
            Owners::Given => OwnerTable::<OwnerNotes>::slot_of_unknown(UnknownReason::NoSource),
        };
        self.observe(packets, slot);
    }

    /// Counts a packet whose owner came with it.
    pub fn handle_owned_packet(&mut self, packet: &Packet<'_>, owner: &Attribution) {
        // A tick would sweep away an owner that no flow has taken yet.
        self.hear_at(packet.timestamp);
        let slot = self.owners.slot(owner);
        self.observe(std::slice::from_ref(packet), slot);
    }

    /// Counts what a source counted by itself.
    pub fn handle_update(&mut self, update: &FlowUpdate) {
        self.hear_at(update.timestamp);
        let slot = self.owners.slot(&update.attribution);
        let count = SourceCount {
            counters: &update.counters,
            direction: update.direction,
            state: update.state,
            ended: update.end_reason.is_some(),
            timestamp: update.timestamp,
        };
        self.health.saw(update.counters.packets_out.0 + update.counters.packets_in.0);
        self.observe_counters(&update.key, slot, &count);
        self.welcome_flows();
    }

    /// Counts what a source counted by itself since it last said so, and reads the payloads that it reports.
    pub fn handle_updates(&mut self, updates: &[FlowUpdate], payloads: &[Payload<'_>]) {
        // What was looked up names the flows that follow, and a name belongs to a flow that is known.
        let (lookups, others): (Vec<&Payload<'_>>, Vec<_>) = payloads.iter().partition(|payload| payload.is_dns());
        lookups.into_iter().for_each(|payload| self.handle_payload(payload));
        for together in updates.chunks(BATCH) {
            self.flows.look_at(together.iter().map(|update| &update.key));
            together.iter().for_each(|update| self.handle_update(update));
        }
        others.into_iter().for_each(|payload| self.handle_payload(payload));
    }

    /// Reads a payload of a flow that a source counts by itself.
    pub fn handle_payload(&mut self, payload: &Payload<'_>) {
        let slot = self.owners.slot(payload.attribution);
        let Payload { key, way, timestamp, sequence, bytes, .. } = *payload;
        let id = self.flows.find_key(key, slot).or_else(|| self.flows.find_all(key).first().copied());
        let id = match id {
            None if payload.is_dns() => {
                let inbound = key.remote.port != DNS_PORT;
                let count = SourceCount {
                    counters: &Counters::default(),
                    direction: Some(if inbound { Direction::Inbound } else { Direction::Outbound }),
                    state: FlowState::New,
                    ended: false,
                    timestamp,
                };
                let id = self.observe_counters(key, slot, &count);
                self.welcome_flows();
                id
            }
            id => id,
        };
        if let Some(id) = id {
            // A source reports payloads from the start of a flow on.
            self.read_payload(id, way, true, sequence, bytes, timestamp);
        }
    }

    /// Asks these databases from here on.
    pub fn replace_places(&mut self, places: Arc<Places>) {
        self.places = places;
    }

    /// Takes the answer to a [`Lookup`].
    pub fn handle_attribution(&mut self, key: &FlowKey, attribution: &Attribution) {
        let Some(id) = self.flows.find_key(key, PENDING) else { return };
        let Some(flow) = self.flows.flow(id) else { return };
        if attribution.is_pending() {
            for waiting in self.pending.iter_mut().filter(|waiting| waiting.id == id) {
                waiting.asked = false;
            }
            return;
        }
        let slot = self.owners.slot(attribution);
        if slot == flow.owner {
            return;
        }
        self.give(id, flow.owner, slot);
    }

    /// Takes the answer to [`Output::Describe`]: the process with all that is known of it.
    pub fn handle_description(&mut self, process: &Arc<Process>, described: &Arc<Process>) {
        self.owners.describe(process, described);
    }

    /// Takes what was learnt of a flow's remote end.
    pub fn handle_remote(&mut self, key: &FlowKey, facts: &RemoteFacts) {
        for id in self.flows.find_all(key) {
            self.set_remote(id, facts);
        }
    }

    /// Takes a DNS question that a flow carried.
    pub fn handle_question(&mut self, key: &FlowKey, query: &Arc<DnsQuery>) {
        let Some(id) = self.flows.find_all(key).into_iter().next() else { return };
        if self.questions.len() < MAX_QUESTIONS {
            self.questions.push((id, Arc::clone(query)));
        }
    }

    /// Takes the name of an interface, by its number in the packets.
    pub fn handle_interface(&mut self, number: u32, name: Arc<str>) {
        let number = usize::try_from(number).unwrap_or(usize::MAX).min(MAX_INTERFACES);
        if self.interfaces.len() <= number {
            self.interfaces.resize(number + 1, None);
        }
        self.interfaces[number] = Some(name);
    }

    /// Asks again for all that is known of the owners: more is wanted than when they were described.
    pub fn describe_again(&mut self) {
        if self.settings.descriptions == Descriptions::Ask {
            self.outputs.extend(self.owners.describe_again().into_iter().map(Output::Describe));
            // No flow is settled while more may be learnt of its owner.
            self.flows.clear_tags();
        }
    }

    /// Takes the running totals of what a source lost.
    pub fn handle_losses(&mut self, losses: &CaptureLosses) {
        self.health.handle_losses(losses);
        if self.settings.deltas == Deltas::On && self.statistics.losses != *losses {
            self.outputs.push_back(Output::Losses(self.now, *losses));
        }
        self.statistics.losses = *losses;
    }

    /// Takes that the source fell silent, or is back. While it is silent
    /// alerts do not end because nothing is seen, unless their rule says so.
    pub fn handle_silence(&mut self, silence: Silence) {
        let began = silence == Silence::Began;
        if began == self.silent {
            return;
        }
        self.silent = began;
        if self.watches.iter().any(|watch| watch.rule.life.no_data == NoData::Alert) {
            let problem = Problem {
                id: "no-data",
                severity: Severity::High,
                summary: match silence {
                    Silence::Began => "the source is silent: rules cannot see what they watch".to_owned(),
                    Silence::Ended => "ended: the source was silent".to_owned(),
                },
                details: BTreeMap::new(),
                resolved: !began,
            };
            self.outputs.push_back(Output::Notification(Notification::of_problem(self.now, problem)));
        }
    }

    /// Takes a problem that lies outside: it is told like those that the engine finds.
    pub fn handle_problem(&mut self, problem: Problem) {
        self.outputs.push_back(Output::Notification(Notification::of_problem(self.now, problem)));
    }

    /// What each condition of each rule decided alone so far, where the settings ask for it.
    pub fn decisions(&self) -> impl Iterator<Item = (&Arc<str>, Vec<(Leaf, Decided)>)> {
        self.watches.iter().map(|watch| (&watch.rule.metadata.id, watch.decisions()))
    }

    /// What each exception of each rule hid so far: rule, exception, usage.
    pub fn exception_usage(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &ExceptionUsage)> {
        self.watches.iter().flat_map(|watch| {
            watch.exception_usage().map(|(exception, usage)| (&watch.rule.metadata.id, exception, usage))
        })
    }

    /// Rules that only learn so far: nothing makes them fire.
    pub fn learning(&self) -> Vec<Arc<str>> {
        let now = self.moment(self.next_tick.map_or(0, |next| next.saturating_sub(1)));
        let learning = self.watches.iter().filter(|watch| watch.is_learning(&now));
        learning.map(|watch| Arc::clone(&watch.rule.metadata.id)).collect()
    }

    /// Moves event time forward though no packet came. An extra call changes nothing.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance_to(now);
    }

    /// Lets alerts come with their flows from here on, or without.
    pub fn set_companions(&mut self, companions: Companions) {
        self.settings.companions = companions;
    }

    /// Changes the rules. A rule whose fingerprint is the same keeps its
    /// windows and alerts; the alerts of a rule that is gone are withdrawn.
    pub fn replace_rules(&mut self, rules: Arc<RuleSet>) {
        self.book_settled(self.next_tick.unwrap_or_default());
        let mut old: Vec<Option<Watch>> = take(&mut self.watches).into_iter().map(Some).collect();
        for rule in &rules.rules {
            let known = old
                .iter_mut()
                .find(|watch| watch.as_ref().is_some_and(|watch| watch.rule.metadata.id == rule.metadata.id));
            let kept = known.and_then(|slot| {
                let mut watch = slot.take()?;
                if watch.adopt(rule, self.settings.tick) {
                    return Some(watch);
                }
                *slot = Some(watch);
                None
            });
            let fresh = || {
                let mut fresh = Watch::new(Arc::clone(rule), self.settings.tick);
                let older = old.iter().flatten().find(|watch| watch.rule.metadata.id == rule.metadata.id);
                if let Some(older) = older {
                    fresh.inherit_usage(older);
                }
                fresh
            };
            self.watches.push(kept.unwrap_or_else(fresh));
        }
        let tick = self.next_tick.map_or(0, |next| next.saturating_sub(1));
        let host = Arc::clone(&self.settings.host);
        let now = Moment {
            tick,
            at: self.now,
            length: self.settings.tick,
            host: &host,
            coverage: self.health.coverage(),
            silent: self.silent,
            decisions: self.settings.decisions,
            companions: self.settings.companions,
        };
        for mut watch in old.into_iter().flatten() {
            let withdrawn = watch.withdraw(&now);
            self.outputs.extend(withdrawn.into_iter().map(Output::Notification));
        }
        self.find_awake();
        self.rules = rules;
        self.epoch = self.epoch.wrapping_add(1).max(1);
        self.owners.clear_extensions();
        self.flows.clear_tags();
        self.bindings.clear();
        self.schedule_minute = i64::MIN;
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Engine::handle_timeout`] has something to do, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let next = self.next_tick?;
        self.next_due(next).map(|tick| moment(tick, self.settings.tick))
    }

    /// Ends the data: what is still open is taken into account and reported.
    pub fn finish(&mut self) {
        let Some(next) = self.next_tick else { return };
        // Nothing can be learnt any more about flows that wait for their owner.
        for waiting in take(&mut self.pending) {
            self.give_up(waiting.id);
        }
        self.owners.stop_awaiting();
        self.tick(next);
        self.set_next_tick(next + 1);
        if self.settings.records == Records::On {
            let open: Vec<FlowId> = self.flows.ids().collect();
            for id in open {
                self.report(id, FlowEndReason::ForcedEnd);
            }
        }
    }

    /// What the engine did so far.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.statistics;
        statistics.flows = self.flows.statistics();
        statistics.names = self.names.statistics();
        statistics.owners = self.owners.len();
        // What the last tick found is kept there for the room of new groups.
        statistics.group_bytes = 0;
        for watch in self.awake.iter().filter_map(|&place| self.watches.get(place as usize)) {
            let series = watch.statistics();
            let counts = watch.counts();
            statistics.groups += series.groups;
            statistics.groups_evicted += series.evicted;
            statistics.groups_refused += series.refused;
            statistics.group_bytes += watch.heap_bytes();
            statistics.alerts += counts.fired;
            statistics.suppressed += counts.suppressed;
            statistics.firing += watch.firing();
        }
        statistics.seen = self.seen.len();
        statistics.seen_pushed_out = self.seen.pushed_out();
        statistics
    }

    /// What the engine was told once.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The keys of the alerts that fire, whether they were said or not.
    pub fn firing_keys(&self) -> BTreeSet<Arc<str>> {
        self.watches.iter().flat_map(Watch::firing_keys).collect()
    }

    /// What a restart must not lose.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            version: checkpoint::VERSION,
            at: self.now,
            tick_nanos: u64::try_from(self.settings.tick.as_nanos()).unwrap_or(u64::MAX),
            rules: self.watches.iter().map(Watch::saved).collect(),
            seen: self.seen.entries().collect(),
        }
    }

    /// Takes over what an earlier run left, before any input: the windows,
    /// alerts and memories of every rule that is still the same.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Restored {
        let mut restored = Restored { dropped: checkpoint.rules.len(), ..Restored::default() };
        let tick_nanos = u64::try_from(self.settings.tick.as_nanos()).unwrap_or(u64::MAX);
        if checkpoint.version != checkpoint::VERSION || checkpoint.tick_nanos != tick_nanos {
            return restored;
        }
        let now = tick_of(checkpoint.at, self.settings.tick);
        // The oldest first, so that they make room for the others.
        let mut seen = checkpoint.seen;
        seen.sort_unstable_by_key(|(_, tick)| *tick);
        seen.into_iter().for_each(|(fingerprint, tick)| self.seen.insert(fingerprint, tick));
        for saved in checkpoint.rules {
            let same = |watch: &&mut Watch| *watch.rule.metadata.id == *saved.id;
            let Some(watch) = self.watches.iter_mut().find(same) else { continue };
            if let Some((groups, alerts)) = watch.restore(saved, now) {
                restored.rules += 1;
                restored.dropped -= 1;
                restored.groups += groups;
                restored.alerts += alerts;
            }
        }
        self.find_awake();
        restored
    }

    /// The rules at work.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// The latest event time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    fn observe(&mut self, mut packets: &[Packet<'_>], slot: OwnerSlot) {
        while let Some(first) = packets.first() {
            self.hear_at(first.timestamp);
            let end = self.tick_end;
            let (now, later) = packets.split_at(together(packets, end));
            let Self { flows, bindings, watches, settings, next_tick, .. } = self;
            let tick = next_tick.unwrap_or_default();
            let mut allow = |tag, weight| allowance(watches, bindings.groups(binding_of(tag)), tick, weight);
            flows.observe(now, slot, &settings.local, &mut allow);
            let latest = now.iter().map(|packet| packet.timestamp).max();
            self.now = latest.map_or(self.now, |latest| self.now.max(latest));
            self.health.saw(now.len() as u64);
            self.welcome_flows();
            self.read_payloads(now);
            packets = later;
        }
    }

    fn observe_counters(&mut self, key: &FlowKey, slot: OwnerSlot, count: &SourceCount<'_>) -> Option<FlowId> {
        let Self { flows, bindings, watches, settings, next_tick, .. } = self;
        let tick = next_tick.unwrap_or_default();
        let mut allow = |tag, weight| allowance(watches, bindings.groups(binding_of(tag)), tick, weight);
        flows.observe_counters(key, slot, count, &settings.local, &mut allow)
    }

    /// Takes in flows that were just opened: counts their owner, asks for it where it is not known.
    fn welcome_flows(&mut self) {
        if !self.flows.has_opened() {
            return;
        }
        for id in self.flows.take_opened() {
            let Some(flow) = self.flows.flow(id) else { continue };
            self.owners.retain(flow.owner);
            self.ask_for_description(flow.owner);
            self.name_flow(id, &flow);
            if self.settings.owners == Owners::Lookup && flow.owner == PENDING {
                self.pending.push(Waiting { id, asked: true });
                self.ask(&flow);
            }
        }
        let evicted = self.flows.take_evicted();
        if !evicted.is_empty() {
            // What passed on them belongs to groups whose number may be given away.
            self.settle();
        }
        for (flow, notes) in evicted {
            let facts = notes.facts();
            let at = self.tick_end;
            self.tell_end(&flow, &notes, FlowEndReason::LackOfResources, at);
            self.let_go(&flow, notes);
            self.report_flow(&flow, facts, FlowEndReason::LackOfResources);
        }
    }

    /// Looks up what is known already of a new flow's remote end.
    fn name_flow(&mut self, id: FlowId, flow: &Flow) {
        let owner = self.process_key(flow.owner);
        let Some(notes) = self.flows.extension_mut(id) else { return };
        let named = self.names.open(&mut notes.names, &flow.key, owner, flow.first);
        // A database is checked in full when it is loaded, so no look-up fails for what is in it.
        let place = match self.places.is_empty() {
            true => None,
            false => self.places.find(flow.key.remote.address).ok().flatten().map(Arc::new),
        };
        if named || place.is_some() {
            let name = notes.names.name().cloned();
            self.set_remote(id, &RemoteFacts { name, place, application: None });
        }
    }

    /// Reads the payloads of flows whose start is still to be understood.
    fn read_payloads(&mut self, packets: &[Packet<'_>]) {
        for seen in self.flows.take_payloads() {
            if let Some(packet) = packets.get(seen.packet) {
                let Packet { tcp_sequence, payload, timestamp, .. } = *packet;
                self.read_payload(seen.id, seen.way, seen.from_start, tcp_sequence, payload, timestamp);
            }
        }
    }

    fn read_payload(
        &mut self,
        id: FlowId,
        way: FrameDirection,
        from_start: bool,
        sequence: u32,
        payload: &[u8],
        now: Timestamp,
    ) {
        let Some(FlowEnds { key, direction, owner }) = self.flows.ends(id) else { return };
        let owner = self.process_key(owner);
        let Some(notes) = self.flows.extension_mut(id) else { return };
        let segment = Segment { key: &key, direction, way, from_start, sequence, payload, owner, now };
        let found = self.names.observe(&mut notes.names, &segment);
        let (name, application) = (notes.names.name().cloned(), notes.names.application());
        if !notes.names.wants() {
            self.flows.stop_reading(id);
        }
        if found.changed {
            self.set_remote(id, &RemoteFacts { name, place: None, application: Some(application) });
        }
        for query in found.questions {
            if self.questions.len() < MAX_QUESTIONS {
                self.questions.push((id, Arc::new(query)));
            }
        }
    }

    fn process_key(&self, owner: OwnerSlot) -> Option<ProcessKey> {
        self.owners.attribution(owner).process().map(|process| process.key)
    }

    fn ask(&mut self, flow: &Flow) {
        let Flow { key, direction, first, last, .. } = *flow;
        self.outputs.push_back(Output::Lookup(Lookup { key, direction, first, last }));
    }

    fn ask_for_description(&mut self, owner: OwnerSlot) {
        if self.settings.descriptions == Descriptions::Ask
            && let Some(process) = self.owners.begin_description(owner)
        {
            self.outputs.push_back(Output::Describe(process));
        }
    }

    /// Whether a flow is so young that what is still to be learnt of its owner is worth waiting for.
    fn waits_for_owner(&self, flow: &Flow, at: Timestamp) -> bool {
        let unknown = flow.owner == PENDING || self.owners.awaits_description(flow.owner);
        unknown && at.since(flow.first) < self.settings.grace
    }

    fn moment(&self, tick: Tick) -> Moment<'_> {
        Moment {
            tick,
            at: self.now,
            length: self.settings.tick,
            host: &self.settings.host,
            coverage: self.health.coverage(),
            silent: self.silent,
            decisions: self.settings.decisions,
            companions: self.settings.companions,
        }
    }

    /// Makes every tick up to an input.
    fn hear_at(&mut self, at: Timestamp) {
        // Most inputs are of the tick that is being filled.
        if at < self.tick_end && at >= self.tick_end.before(self.settings.tick) {
            self.last_input = self.last_input.max(self.next_tick.unwrap_or(1) - 1);
            return;
        }
        self.advance_to(at);
        self.last_input = self.last_input.max(tick_of(at, self.settings.tick));
    }

    /// Makes every tick up to a moment. Ticks at which nothing can change are passed over.
    fn advance_to(&mut self, at: Timestamp) {
        let length = self.settings.tick;
        let Some(mut next) = self.next_tick else {
            self.now = at;
            self.set_next_tick(tick_of(at, length) + 1);
            return;
        };
        let waiting_for = tick_of(at, length).saturating_add(1);
        while next < waiting_for {
            self.now = self.now.max(moment(next, length));
            self.tick(next);
            let due = self.next_due(next + 1).map_or(waiting_for, |due| self.after_silence(due));
            next = due.min(waiting_for);
            self.set_next_tick(next);
        }
    }

    fn set_next_tick(&mut self, next: Tick) {
        self.next_tick = Some(next);
        self.tick_end = moment(next, self.settings.tick);
    }

    /// In a long silence the ticks grow longer, so that a capture whose clock
    /// jumps by years ends: they stay under a thousandth of the silence.
    fn after_silence(&self, due: Tick) -> Tick {
        let silence = due.saturating_sub(self.last_input);
        let step = (silence / SHORT_SILENCE).max(1).next_power_of_two();
        self.last_input.saturating_add(silence.next_multiple_of(step))
    }

    /// The first tick from `next` on at which something can change by itself.
    fn next_due(&self, next: Tick) -> Option<Tick> {
        if self.flows.has_dirty() || !self.pending.is_empty() || !self.questions.is_empty() || !self.told.is_empty() {
            return Some(next);
        }
        let length = self.settings.tick;
        let expiry = self.flows.next_expiry().map(|at| ticks(at.since(Timestamp::EPOCH), length).max(next));
        let health = self.health.next_change().map(|at| ticks(at.since(Timestamp::EPOCH), length).max(next));
        let awake = self.awake.iter().filter_map(|&place| self.watches.get(place as usize));
        let watches = awake.filter_map(|watch| watch.next_change(next));
        watches.chain(expiry).chain(health).min()
    }

    fn tick(&mut self, tick: Tick) {
        let at = moment(tick, self.settings.tick);
        let host = Arc::clone(&self.settings.host);
        let now = Moment {
            tick,
            at,
            length: self.settings.tick,
            host: &host,
            coverage: self.health.coverage(),
            silent: self.silent,
            decisions: self.settings.decisions,
            companions: self.settings.companions,
        };
        self.follow_schedules(at);
        self.retry_lookups(at);
        self.drain(&now);
        self.book_questions(&now);
        self.book_told(&now);
        self.expire(&now);
        for &place in &self.awake {
            let Some(watch) = self.watches.get_mut(place as usize) else { continue };
            let told = watch.evaluate(&now);
            watch.expire(&now);
            self.outputs.extend(told.into_iter().map(Told::into_output));
        }
        let statistics = self.statistics();
        self.statistics.group_bytes = statistics.group_bytes;
        let problems = self.health.tick(at, &statistics);
        let told = problems.into_iter().map(|problem| Output::Notification(Notification::of_problem(at, problem)));
        self.outputs.extend(told);
        self.owners.sweep();
    }

    fn follow_schedules(&mut self, at: Timestamp) {
        let minute = at.as_secs().div_euclid(60);
        if minute == self.schedule_minute {
            return;
        }
        let all = self.schedule_minute == i64::MIN;
        self.schedule_minute = minute;
        self.forget_seen(at);
        for watch in self.watches.iter_mut().filter(|watch| all || watch.follows_schedule()) {
            watch.set_time(at);
        }
    }

    /// Forgets, once an hour, what no rule looks back to.
    fn forget_seen(&mut self, at: Timestamp) {
        if at.as_secs().div_euclid(60) % 60 != 0 || self.seen.is_empty() {
            return;
        }
        let lookbacks = self.rules.rules.iter().filter_map(|rule| match &rule.trigger {
            Trigger::FirstSeen(first) => Some(first.lookback),
            _ => None,
        });
        let longest = lookbacks.max().unwrap_or_default();
        self.seen.forget_before(tick_of(at.before(longest), self.settings.tick));
    }

    /// Asks again for owners that could not be told yet, and gives up on flows that are no longer young.
    fn retry_lookups(&mut self, at: Timestamp) {
        for mut waiting in take(&mut self.pending) {
            let Some(flow) = self.flows.flow(waiting.id).filter(|flow| flow.owner == PENDING) else { continue };
            if at.since(flow.first) >= self.settings.grace {
                self.give_up(waiting.id);
                continue;
            }
            if !waiting.asked {
                waiting.asked = true;
                self.ask(&flow);
            }
            self.pending.push(waiting);
        }
    }

    fn give_up(&mut self, id: FlowId) {
        if self.flows.flow(id).is_some_and(|flow| flow.owner == PENDING) {
            self.give(id, PENDING, OwnerTable::<OwnerNotes>::slot_of_unknown(UnknownReason::NoSocket));
        }
    }

    fn give(&mut self, id: FlowId, from: OwnerSlot, to: OwnerSlot) {
        self.flows.set_owner(id, to);
        self.owners.retain(to);
        self.owners.release(from);
        self.ask_for_description(to);
        let owner = self.process_key(to);
        self.flows.set_tag(id, Tag::default());
        let (Some(flow), Some(notes)) = (self.flows.flow(id), self.flows.extension_mut(id)) else { return };
        notes.stale = true;
        if let Some(owner) = owner
            && self.names.attribute(&mut notes.names, &flow.key, owner, self.now)
        {
            let name = notes.names.name().cloned();
            self.set_remote(id, &RemoteFacts { name, ..RemoteFacts::default() });
        }
    }

    fn set_remote(&mut self, id: FlowId, facts: &RemoteFacts) {
        let Some(notes) = self.flows.extension_mut(id) else { return };
        let known = notes.remote.as_deref().cloned().unwrap_or_default();
        let remote = Remote { name: facts.name.clone().or(known.name), place: facts.place.clone().or(known.place) };
        notes.remote = Some(Arc::new(remote));
        notes.application = facts.application.unwrap_or(notes.application);
        notes.stale = true;
        self.flows.set_tag(id, Tag::default());
    }

    fn find_awake(&mut self) {
        let awake = |(place, watch): (u32, &Watch)| (!watch.is_idle()).then_some(place);
        self.awake = (0..).zip(&self.watches).filter_map(awake).collect();
    }

    /// Collects what passed on settled flows, about which nothing new can be concluded, for their groups.
    fn settle(&mut self) {
        let Self { flows, bindings, watches, statistics, .. } = self;
        flows.settle(|tag, counters| {
            for bound in bindings.groups(binding_of(tag)) {
                if let Some(watch) = watches.get_mut(bound.watch as usize) {
                    watch.collect(bound.group, counters);
                }
            }
            let bytes = counters.bytes_out.0 + counters.bytes_in.0;
            statistics.bytes += bytes;
            if !is_attributed(tag) {
                statistics.unattributed_bytes += bytes;
            }
        });
    }

    /// Books on each group in one what was collected for it.
    fn book_settled(&mut self, tick: Tick) {
        self.settle();
        for &place in &self.awake {
            if let Some(watch) = self.watches.get_mut(place as usize) {
                watch.book_collected(tick, self.settings.tick, self.settings.decisions);
            }
        }
    }

    /// Books what passed since the last tick on the groups of every rule that looks at it: on settled flows as one sum
    /// for each group, on the others one by one.
    fn drain(&mut self, now: &Moment<'_>) {
        self.book_settled(now.tick);
        let left = self.flows.drain();
        let mut held = Vec::new();
        for id in left {
            let Some(flow) = self.flows.flow(id) else { continue };
            if self.waits_for_owner(&flow, now.at) {
                held.push(id);
                continue;
            }
            let counters = self.flows.take_counters(id);
            let bytes = counters.bytes_out.0 + counters.bytes_in.0;
            self.statistics.bytes += bytes;
            if self.owners.attribution(flow.owner).process().is_none() {
                self.statistics.unattributed_bytes += bytes;
            }
            let failed = flow.state == FlowState::Failed;
            self.book(
                id,
                now,
                Happened { counters, failed: u64::from(failed), ..Happened::default() },
                &Occasion::Traffic,
            );
        }
        self.flows.keep_dirty(&held);
    }

    fn book_questions(&mut self, now: &Moment<'_>) {
        for (id, query) in take(&mut self.questions) {
            let asker = query.carried_for.and_then(|key| self.flows.find_all(&key).into_iter().next());
            let waits = |id| self.flows.flow(id).is_some_and(|flow| self.waits_for_owner(&flow, now.at));
            if waits(id) || asker.is_some_and(waits) {
                self.questions.push((id, query));
                continue;
            }
            self.book_question(id, &query, now);
        }
    }

    /// Books a question on its flow; one that a resolver passed on belongs to the process that asked it.
    fn book_question(&mut self, id: FlowId, query: &DnsQuery, now: &Moment<'_>) {
        let asker = query.carried_for.and_then(|key| self.flows.find_all(&key).into_iter().next());
        let question_bytes = u64::from(query.name_bytes);
        let happened = Happened { questions: 1, question_bytes, ..Happened::default() };
        let occasion = match asker.and_then(|asker| self.flows.flow(asker)) {
            None => Occasion::Question(query),
            Some(asker) => Occasion::Carried {
                query,
                owner: self.owners.slot(&carried(self.owners.attribution(asker.owner))),
                counted: self.rules_of_question(&asker, now, query),
            },
        };
        self.book(id, now, happened, &occasion);
    }

    /// The rules that a question to a resolver of this host was booked on.
    fn rules_of_question(&self, flow: &Flow, now: &Moment<'_>, query: &DnsQuery) -> SmallVec<[RuleIndex; 8]> {
        let remote = self.flows.find_key(&flow.key, flow.owner).and_then(|id| self.flows.extension(id));
        let (application, remote) =
            remote.map(|notes| (notes.application, notes.remote.as_deref())).unwrap_or_default();
        let interface = self.interfaces.get(flow.interface as usize).and_then(Option::as_ref);
        self.rules.matching(&Observation {
            key: &flow.key,
            direction: flow.direction,
            attribution: self.owners.attribution(flow.owner),
            name: remote.and_then(|remote| remote.name.as_deref()),
            place: remote.and_then(|remote| remote.place.as_deref()),
            application,
            interface: interface.map(AsRef::as_ref),
            totals: &flow.totals,
            state: flow.state,
            first: flow.first,
            now: now.at,
            dns: Some(query),
            host: &self.settings.host,
        })
    }

    /// Books something that happened on a flow on the groups of every rule that looks at it.
    fn book(&mut self, id: FlowId, now: &Moment<'_>, mut happened: Happened, occasion: &Occasion<'_>) {
        let dns = occasion.query();
        let Some(flow) = self.flows.flow(id) else { return };
        let owner = occasion.owner().unwrap_or(flow.owner);
        let Some(notes) = self.flows.extension_mut(id) else { return };
        let (application, remote) = (notes.application, notes.remote.clone());
        let described = self.owners.descriptions(flow.owner);
        let is_told_more = std::mem::replace(&mut notes.described, described) != described;
        let was = (notes.epoch, take(&mut notes.stale) || is_told_more, notes.counted);
        let (was_bound_in, was_stale, counted) = was;
        let reloaded = was_bound_in != self.epoch;
        if reloaded {
            // What was bound under other rules says nothing about these.
            notes.binding = Binding::default();
        }
        let mut bound = Groups::from(self.bindings.groups(notes.binding));
        if notes.failed {
            happened.failed = 0;
        }
        notes.failed |= happened.failed > 0;
        notes.counted = true;
        notes.epoch = self.epoch;
        if self.owners.extension(owner).is_none() {
            let concluded = self.conclude(owner);
            self.owners.set_extension(owner, concluded);
        }
        if self.owners.extension(owner).is_none_or(|owner| owner.is_self) {
            self.statistics.own_bytes += happened.counters.bytes_out.0 + happened.counters.bytes_in.0;
            return;
        }
        if self.settings.deltas == Deltas::On {
            self.tell(id, now, &happened, dns);
        }
        let attribution = self.owners.attribution(owner);
        let Some(owner) = self.owners.extension(owner) else { return };
        let interface = self.interfaces.get(flow.interface as usize).and_then(Option::as_ref);
        let remote = remote.as_deref();
        let seen = Observation {
            key: &flow.key,
            direction: flow.direction,
            attribution,
            name: remote.and_then(|remote| remote.name.as_deref()),
            place: remote.and_then(|remote| remote.place.as_deref()),
            application,
            interface: interface.map(AsRef::as_ref),
            totals: &flow.totals,
            state: flow.state,
            first: flow.first,
            now: now.at,
            dns,
            host: &self.settings.host,
        };
        let sighting = Sighting {
            seen: &seen,
            name: remote.and_then(|remote| remote.name.as_ref()),
            place: remote.and_then(|remote| remote.place.as_ref()),
            interface,
        };
        let room = if self.statistics.group_bytes < self.settings.max_group_bytes { Room::Some } else { Room::None };
        let rebind = reloaded || was_stale || owner.follows_progress || dns.is_some();
        let before = if rebind { take(&mut bound) } else { Groups::new() };
        if rebind {
            for index in owner.rules.matching(&seen) {
                if occasion.was_counted(index) {
                    continue;
                }
                let Some(watch) = self.watches.get_mut(index as usize) else { continue };
                bound.extend(watch.bind(index, &seen, now.tick, room));
                self.awake.insert(index);
            }
        }
        happened.by_group = flow.direction != Direction::Inbound;
        for bound in &mut bound {
            let Some(watch) = self.watches.get_mut(bound.watch as usize) else { continue };
            // After a change of rules a flow that was counted is not counted again.
            let is_new = !counted || (rebind && !reloaded && !before.iter().any(|old| old.is_same_group(bound)));
            happened.opened = (is_new && dns.is_none()).then_some(flow.first);
            happened.is_first_match = is_new && !before.iter().any(|old| old.watch == bound.watch);
            if watch.book(bound, now, &happened, &sighting, &mut self.seen) {
                continue;
            }
            // The group was empty for so long that it left.
            if let Some(again) = watch.bind(bound.watch, &seen, now.tick, room) {
                *bound = again;
                watch.book(bound, now, &happened, &sighting, &mut self.seen);
            }
        }
        if rebind && !reloaded && dns.is_none() {
            for old in before.iter().filter(|old| !bound.iter().any(|new| new.is_same_group(old))) {
                if let Some(watch) = self.watches.get_mut(old.watch as usize) {
                    watch.close(old, flow.first);
                }
            }
        }
        let is_final = self.settings.descriptions == Descriptions::Given || self.owners.knows_all(flow.owner);
        let summable =
            |bound: &Bound| self.watches.get(bound.watch as usize).is_some_and(|watch| watch.is_summable(bound));
        let settled =
            is_final && !owner.follows_progress && self.settings.deltas == Deltas::Off && bound.iter().all(summable);
        let Some(notes) = self.flows.extension_mut(id) else { return };
        if dns.is_some() {
            // A question is bound by itself; the flow keeps what it had.
            (notes.epoch, notes.stale, notes.counted) = was;
            return;
        }
        if bound[..] != *self.bindings.groups(notes.binding) {
            let old = std::mem::replace(&mut notes.binding, self.bindings.acquire(bound));
            self.bindings.release(old);
        }
        let attributed = self.owners.attribution(flow.owner).process().is_some();
        let tag = if settled { tag_of(notes.binding, attributed) } else { Tag::default() };
        self.flows.set_tag(id, tag);
    }

    fn conclude(&self, owner: OwnerSlot) -> OwnerNotes {
        let attribution = self.owners.attribution(owner);
        let rules = self.rules.for_owner(attribution, &self.settings.host);
        let follows_progress = rules.follow_progress();
        let is_self = match (self.settings.own_pid, attribution.process()) {
            (Some(pid), Some(process)) => is_or_descends_from(process, pid),
            _ => false,
        };
        OwnerNotes { rules, follows_progress, is_self }
    }

    fn expire(&mut self, now: &Moment<'_>) {
        for ended in self.flows.expire(now.at) {
            let id = ended.id;
            if ended.reason == FlowEndReason::ActiveTimeout {
                self.report(id, ended.reason);
                continue;
            }
            let counters = self.flows.take_counters(id);
            let told = self.flows.extension(id).is_some_and(|notes| notes.failed);
            let failed = !told && self.flows.was_unanswered(id);
            if !counters.is_empty() || failed {
                self.book(
                    id,
                    now,
                    Happened { counters, failed: u64::from(failed), ..Happened::default() },
                    &Occasion::Traffic,
                );
            }
            self.report(id, ended.reason);
            if let Some(flow) = self.flows.flow(id)
                && let Some(notes) = self.flows.remove(id)
            {
                self.tell_end(&flow, &notes, ended.reason, now.at);
                self.let_go(&flow, notes);
            }
        }
    }

    /// Forgets what was kept for a flow that left the table.
    fn let_go(&mut self, flow: &Flow, notes: Notes) {
        self.owners.release(flow.owner);
        if notes.epoch != self.epoch {
            return;
        }
        for bound in self.bindings.groups(notes.binding) {
            if let Some(watch) = self.watches.get_mut(bound.watch as usize) {
                watch.close(bound, flow.first);
            }
        }
        self.bindings.release(notes.binding);
    }

    fn report(&mut self, id: FlowId, reason: FlowEndReason) {
        if let (Some(flow), Some(notes)) = (self.flows.flow(id), self.flows.extension(id)) {
            let facts = notes.facts();
            self.report_flow(&flow, facts, reason);
        }
    }

    fn report_flow(&mut self, flow: &Flow, facts: RemoteFacts, reason: FlowEndReason) {
        if self.settings.records == Records::Off {
            return;
        }
        self.outputs.push_back(Output::Record(FlowRecord {
            key: flow.key,
            direction: flow.direction,
            counters: flow.totals,
            first: flow.first,
            last: flow.last,
            end_reason: Some(reason),
            attribution: self.owners.attribution(flow.owner).clone(),
            name: facts.name,
            place: facts.place,
            application: facts.application.unwrap_or_default(),
        }));
    }
}

/// What makes something be booked.
enum Occasion<'a> {
    /// Packets passed, or the flow failed.
    Traffic,
    /// A question was asked.
    Question(&'a DnsQuery),
    /// A resolver of this host passed a question on, which is the process's that asked it.
    Carried {
        query: &'a DnsQuery,
        owner: OwnerSlot,
        /// The rules that counted the question when that process asked it.
        counted: SmallVec<[RuleIndex; 8]>,
    },
}

impl Occasion<'_> {
    fn query(&self) -> Option<&DnsQuery> {
        match self {
            Self::Traffic => None,
            Self::Question(query) | Self::Carried { query, .. } => Some(query),
        }
    }

    fn owner(&self) -> Option<OwnerSlot> {
        match self {
            Self::Carried { owner, .. } => Some(*owner),
            Self::Traffic | Self::Question(_) => None,
        }
    }

    fn was_counted(&self, rule: RuleIndex) -> bool {
        matches!(self, Self::Carried { counted, .. } if counted.contains(&rule))
    }
}

/// What a settled flow is known by: its groups, and whether its owner is known. A flow that belongs to no group may be
/// settled, too.
fn tag_of(binding: Binding, attributed: bool) -> Tag {
    Tag((binding.0 + 1) << 1 | u32::from(attributed))
}

fn binding_of(tag: Tag) -> Binding {
    Binding((tag.0 >> 1).saturating_sub(1))
}

fn is_attributed(tag: Tag) -> bool {
    tag.0 & 1 != 0
}

/// How much may be collected for all of these groups; it is set aside for whoever asks.
fn allowance(watches: &mut [Watch], groups: &[Bound], tick: Tick, weight: u64) -> u64 {
    let mut least = u64::MAX;
    for bound in groups {
        let watch = watches.get_mut(bound.watch as usize);
        least = least.min(watch.map_or(0, |watch| watch.allowance(bound.group, tick, weight)));
    }
    for bound in groups.iter().filter(|_| least > 0) {
        if let Some(watch) = watches.get_mut(bound.watch as usize) {
            watch.set_aside(bound.group, least);
        }
    }
    least
}

/// The client behind a resolver, where it is known.
fn carried(attribution: &Attribution) -> Attribution {
    match attribution {
        Attribution::Known { process, .. } => {
            Attribution::Known { process: Arc::clone(process), evidence: Evidence::Carrier }
        }
        other => other.clone(),
    }
}

impl Notes {
    fn facts(&self) -> RemoteFacts {
        let remote = self.remote.as_deref().cloned().unwrap_or_default();
        RemoteFacts { name: remote.name, place: remote.place, application: Some(self.application) }
    }
}

/// How many packets may be taken together: those of one tick, up to an answer of
/// DNS, which names the flows that packets after it open.
fn together(packets: &[Packet<'_>], end_of_tick: Timestamp) -> usize {
    let mut count = 0;
    for packet in packets {
        if count > 0 && packet.timestamp >= end_of_tick {
            break;
        }
        count += 1;
        if packet.five_tuple.source.port == DNS_PORT {
            break;
        }
    }
    count
}

/// Interfaces whose names are kept.
const MAX_INTERFACES: usize = 65_535;

/// The last tick at or before a moment.
fn tick_of(at: Timestamp, tick: Duration) -> Tick {
    let nanos = u64::try_from(at.as_nanos()).unwrap_or(0);
    nanos / u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).max(1)
}

fn is_or_descends_from(process: &Process, pid: u32) -> bool {
    process.key.pid == pid || process.ancestors.iter().any(|ancestor| ancestor.pid == pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::{Executable, ProcessKey};
    use crate::packet::{Address, Endpoint, FiveTuple, Protocol};
    use crate::rule::{
        Active, Clause, Comparison, Condition, Edge, Field, Life, Limits, Metadata, Metric, Pattern, Presentation,
        Quantity, Rule, Sum, Texts, Threshold, Trigger, When,
    };
    use crate::units::Bytes;

    fn rule() -> Rule {
        let threshold = Threshold {
            metric: Metric::Sum(Sum::BytesOut),
            window: Duration::from_secs(5),
            comparison: Comparison::GreaterOrEqual(Quantity::Count(1_000_000)),
            min_bytes: 0,
        };
        Rule {
            metadata: Arc::new(Metadata { id: "upload-burst".into(), ..Metadata::default() }),
            condition: Condition::ALWAYS,
            exceptions: Vec::new(),
            active: Active::default(),
            fingerprint: 1,
            group_by: vec![Field::Exe],
            trigger: Trigger::When(When {
                window: Duration::from_secs(5),
                all: vec![Clause::Threshold(threshold)],
                edge: Edge::Cover,
            }),
            life: Life::default(),
            limits: Limits::default(),
            presentation: Presentation::default(),
            keep_packets: None,
            group_wait: None,
            outputs: Vec::new(),
            outputs_only: false,
        }
    }

    fn packet(millis: i64, bytes: u64) -> Packet<'static> {
        let source = Endpoint::new(Address::from_v4([10, 0, 0, 5]), 51_544);
        let destination = Endpoint::new(Address::from_v4([203, 0, 113, 9]), 443);
        Packet {
            timestamp: Timestamp::from_nanos(millis * 1_000_000),
            five_tuple: FiveTuple { protocol: Protocol::TCP, source, destination },
            bytes: Bytes(bytes),
            payload_bytes: Bytes(bytes),
            tcp_flags: None,
            tcp_sequence: 0,
            fragment: crate::packet::Fragment::None,
            direction: None,
            interface: 0,
            payload: &[],
        }
    }

    fn curl() -> Attribution {
        let executable = Executable { path: "/usr/bin/curl".into(), ..Executable::default() };
        let key = ProcessKey { pid: 7, start: 1 };
        let process = Process { key, executable: Some(executable), ..Process::default() };
        Attribution::Known { process: Arc::new(process), evidence: Evidence::Exact }
    }

    fn told(engine: &mut Engine) -> Vec<(i64, &'static str, String)> {
        std::iter::from_fn(|| engine.poll_output())
            .filter_map(|output| match output {
                Output::Notification(told) => Some(told),
                _ => None,
            })
            .map(|told| (told.timestamp.as_secs(), told.kind.name(), told.summary().to_owned()))
            .collect()
    }

    #[test]
    fn bytes_wait_for_their_owner_and_then_count() {
        let rules = Arc::new(RuleSet::new([Arc::new(rule())]));
        let settings = Settings { owners: Owners::Lookup, ..Settings::default() };
        let mut engine = Engine::new(settings, rules);
        engine.handle_packet(&packet(100, 600_000));
        let Some(Output::Lookup(lookup)) = engine.poll_output() else { panic!("the owner is not known") };
        engine.handle_packet(&packet(1_100, 600_000));
        engine.handle_attribution(&lookup.key, &curl());
        engine.handle_timeout(Timestamp::from_secs(3));
        let summary = "/usr/bin/curl sent 1.2 MB to 203.0.113.9 in 5s";
        assert_eq!(told(&mut engine), [(2, "alert.firing", summary.to_owned())]);
        engine.handle_timeout(Timestamp::from_secs(60));
        let summary = "/usr/bin/curl: `upload-burst` ended after 5s";
        assert_eq!(told(&mut engine), [(7, "alert.resolved", summary.to_owned())]);
    }

    /// What the engine tells when the owner is described at this second, of what was sent at 0 s and 1 s.
    fn told_when_described_at(second: i64) -> Vec<(i64, &'static str, String)> {
        let container = |name: &str| Pattern::Text(Arc::new(Texts::new([Box::from(name.as_bytes())], [])));
        let condition = Condition::test(Field::ContainerName, container("web"));
        let rules = Arc::new(RuleSet::new([Arc::new(Rule { condition, ..rule() })]));
        let settings = Settings { descriptions: Descriptions::Ask, ..Settings::default() };
        let mut engine = Engine::new(settings, rules);
        engine.handle_owned_packet(&packet(100, 600_000), &curl());
        let Some(Output::Describe(process)) = engine.poll_output() else { panic!("the owner is described") };
        let name = crate::attribution::Container { name: Some("web".into()), ..Default::default() };
        let described = Arc::new(Process { container: Some(name), ..(*process).clone() });
        for now in 1..10 {
            engine.handle_timeout(Timestamp::from_secs(now));
            if now == second {
                engine.handle_description(&process, &described);
            }
            if now < 6 {
                engine.handle_owned_packet(&packet(now * 1000 + 100, 600_000), &curl());
            }
        }
        assert!(!engine.outputs.iter().any(|output| matches!(output, Output::Describe(_))), "asked once");
        told(&mut engine)
    }

    #[test]
    fn bytes_wait_for_the_description_of_their_owner() {
        assert_eq!(told_when_described_at(1)[0].0, 2, "nothing was lost");
        let late = told_when_described_at(4);
        assert_eq!(late[0].0, 6, "what came before the description was given to another group: {late:?}");
        assert!(told_when_described_at(100).is_empty(), "never described, so never `web`");
    }

    #[test]
    fn a_flow_that_nobody_owns_counts_after_the_grace() {
        let rules = Arc::new(RuleSet::new([Arc::new(rule())]));
        let settings = Settings { owners: Owners::Lookup, ..Settings::default() };
        let mut engine = Engine::new(settings, rules);
        engine.handle_packet(&packet(100, 1_200_000));
        engine.handle_timeout(Timestamp::from_secs(10));
        let told = told(&mut engine);
        assert_eq!(told[0], (3, "alert.firing", "an unknown program sent 1.2 MB to 203.0.113.9 in 5s".to_owned()));
        assert_eq!(engine.statistics().unattributed_bytes, 1_200_000);
    }

    #[test]
    fn a_clock_that_jumps_by_a_century_stops_nothing() {
        let life = Life { keep_firing_for: Duration::from_secs(7200), ..Life::default() };
        let rule = Rule { life, ..rule() };
        let mut engine = Engine::new(Settings::default(), Arc::new(RuleSet::new([Arc::new(rule)])));
        engine.handle_owned_packet(&packet(100, 1_200_000), &curl());
        let century = Timestamp::from_secs(100 * 365 * 86_400);
        engine.handle_owned_packet(&Packet { timestamp: century, ..packet(0, 100) }, &curl());
        let told: Vec<i64> = told(&mut engine).into_iter().map(|(second, ..)| second).collect();
        let [1, resolved] = told[..] else { panic!("fired and resolved: {told:?}") };
        assert!((7205..7220).contains(&resolved), "{resolved}");
        for _ in 0..10_000 {
            engine.handle_timeout(century.after(Duration::from_secs(86_400)));
        }
        assert_eq!(engine.after_silence(engine.last_input + 100), engine.last_input + 100);
        assert_eq!(engine.after_silence(engine.last_input + 20_001), engine.last_input + 20_002);
    }

    #[test]
    fn memory_of_groups_is_what_they_hold_now_however_long_it_runs() {
        let mut engine = Engine::new(Settings::default(), Arc::new(RuleSet::new([Arc::new(rule())])));
        let mut bytes = Vec::new();
        for second in 0..100 {
            engine.handle_owned_packet(&packet(second * 1_000 + 100, 100), &curl());
            bytes.push(engine.statistics().group_bytes);
        }
        assert!(bytes[50] > 0);
        assert_eq!(bytes[50], bytes[99], "one group, whose window is full");
    }

    #[test]
    fn a_reload_keeps_windows_and_withdraws_what_is_gone() {
        let mut engine = Engine::new(Settings::default(), Arc::new(RuleSet::new([Arc::new(rule())])));
        engine.handle_owned_packet(&packet(100, 600_000), &curl());
        let other = Rule {
            metadata: Arc::new(Metadata { id: "other".into(), ..Metadata::default() }),
            fingerprint: 2,
            ..rule()
        };
        engine.handle_timeout(Timestamp::from_secs(1));
        engine.replace_rules(Arc::new(RuleSet::new([Arc::new(other.clone()), Arc::new(rule())])));
        engine.handle_owned_packet(&packet(1_100, 600_000), &curl());
        engine.handle_timeout(Timestamp::from_secs(2));
        let fired = told(&mut engine);
        assert_eq!(fired.len(), 1, "only the old rule has seen both: {fired:?}");
        engine.replace_rules(Arc::new(RuleSet::new([Arc::new(other)])));
        assert_eq!(told(&mut engine)[0].1, "alert.withdrawn");
    }

    #[test]
    fn what_passed_on_settled_flows_survives_a_reload_and_an_eviction() {
        let rules = Arc::new(RuleSet::new([Arc::new(rule())]));
        for reload in [true, false] {
            let settings = Settings { max_flows: 1, ..Settings::default() };
            let mut engine = Engine::new(settings, Arc::clone(&rules));
            engine.handle_owned_packet(&packet(100, 1_000), &curl());
            for number in 0..5 {
                engine.handle_owned_packet(&packet(1_100 + number, 1_000), &curl());
            }
            assert!(engine.flows.has_dirty() && engine.flows.drain().is_empty(), "all of it is in a sum");
            let mut last = packet(1_200, 994_000);
            if reload {
                engine.replace_rules(Arc::clone(&rules));
            } else {
                last.five_tuple.source.port += 1;
            }
            engine.handle_owned_packet(&last, &curl());
            assert_eq!(engine.statistics().flows.evicted, u64::from(!reload));
            engine.handle_timeout(Timestamp::from_secs(2));
            let fired = told(&mut engine).iter().filter(|told| told.1 == "alert.firing").count();
            assert_eq!(fired, 1, "a byte less would not do; reload: {reload}");
        }
    }

    #[test]
    fn a_restart_loses_no_window_and_no_alert() {
        let rules = Arc::new(RuleSet::new([Arc::new(rule())]));
        let mut first = Engine::new(Settings::default(), Arc::clone(&rules));
        first.handle_owned_packet(&packet(100, 600_000), &curl());
        first.handle_timeout(Timestamp::from_secs(1));
        let saved = serde_json::to_string(&first.checkpoint()).unwrap();
        let mut second = Engine::new(Settings::default(), Arc::clone(&rules));
        let restored = second.restore(serde_json::from_str(&saved).unwrap());
        assert_eq!(restored, Restored { rules: 1, groups: 1, alerts: 0, dropped: 0 });
        second.handle_owned_packet(&packet(1_100, 600_000), &curl());
        second.handle_timeout(Timestamp::from_secs(2));
        assert_eq!(told(&mut second).len(), 1, "both halves count");
        let saved = serde_json::to_string(&second.checkpoint()).unwrap();
        let mut third = Engine::new(Settings::default(), rules);
        assert_eq!(third.restore(serde_json::from_str(&saved).unwrap()).alerts, 1);
        third.handle_timeout(Timestamp::from_secs(100));
        third.handle_timeout(Timestamp::from_secs(101));
        assert_eq!(told(&mut third)[0].1, "alert.resolved", "it ended while nobody looked");
    }

    #[test]
    fn time_may_jump_to_its_end() {
        let mut engine = Engine::new(Settings::default(), Arc::new(RuleSet::new([Arc::new(rule())])));
        engine.handle_packet(&packet(100, 1_200_000));
        let mut last = packet(100, 1);
        last.timestamp = Timestamp::from_nanos(i64::MAX);
        engine.handle_packet(&last);
        engine.finish();
        assert_eq!(told(&mut engine).len(), 2);
    }
}
