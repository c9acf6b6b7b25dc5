//! What rules are told of flows, tick by tick: to be recorded, and to be told again.
//!
//! A [`FlowDelta`] is what the engine books on the windows at one tick for one
//! flow, with everything that a rule can look at. Whoever hands the deltas of
//! a run to another engine gets the alerts that the first one would have
//! raised with the same rules, so that rules can be tried on the past.
//!
//! Invariant: the deltas of a flow add up to what its rules were told.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::watch::{Happened, Moment};
use super::{Engine, Notes, Occasion, Output, Remote};
use crate::attribution::{Attribution, UnknownReason};
use crate::flow::{Counters, Direction, Flow, FlowEndReason, FlowId, FlowKey, FlowState, Tag, ToldFlow};
use crate::names::{Application, DestinationName, DnsQuery, Place};
use crate::time::Timestamp;

/// What the rules were told of one flow at one tick.
#[derive(Debug, Clone)]
pub struct FlowDelta {
    /// The tick at which it was booked.
    pub at: Timestamp,
    /// Which flow of the recording, counted from 1 in the order of their first bytes. A tuple that is used
    /// again is another flow.
    pub flow: u64,
    /// Its ends.
    pub key: FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// Whether it is open.
    pub state: FlowState,
    /// When its first packet was seen.
    pub first: Timestamp,
    /// What passed since the last delta of this flow.
    pub counters: Counters,
    /// Whether it became known that the connection failed.
    pub failed: bool,
    /// Whose it is.
    pub attribution: Attribution,
    /// What its remote end is called.
    pub name: Option<Arc<DestinationName>>,
    /// Whose network its remote end is in.
    pub place: Option<Arc<Place>>,
    /// What is spoken.
    pub application: Application,
    /// Its interface.
    pub interface: Option<Arc<str>>,
    /// The DNS question that it is about, if it is about one.
    pub question: Option<Arc<DnsQuery>>,
    /// Why the flow ended, in its last delta.
    pub end: Option<FlowEndReason>,
}

impl Engine {
    /// Takes what another run was told, for the tick at which it was told. The settings of an engine that is fed
    /// so must not let flows end by themselves: see [`super::Settings::for_deltas`].
    pub fn handle_delta(&mut self, delta: FlowDelta) {
        self.hear_at(delta.at.before(Duration::from_nanos(1)));
        let packets = delta.counters.packets_out.0 + delta.counters.packets_in.0;
        self.health.saw(packets);
        self.told.push(delta);
    }

    /// Books what was told for this tick, in the order in which it was told.
    pub(super) fn book_told(&mut self, now: &Moment<'_>) {
        for delta in std::mem::take(&mut self.told) {
            let Some(id) = self.told_flow(&delta) else { continue };
            let (counters, failed) = (delta.counters, u64::from(delta.failed));
            let happened = Happened { counters, failed, ..Happened::default() };
            let bytes = delta.counters.bytes_out.0 + delta.counters.bytes_in.0;
            self.statistics.bytes += bytes;
            if delta.attribution.process().is_none() {
                self.statistics.unattributed_bytes += bytes;
            }
            match &delta.question {
                Some(query) => self.book_question(id, query, now),
                None if delta.end.is_some() && delta.counters.is_empty() && !delta.failed => {}
                None => self.book(id, now, happened, &Occasion::Traffic),
            }
            if let Some(reason) = delta.end {
                self.end_told(&delta, id, reason, now.at);
            }
        }
    }

    /// The entry of a flow, brought up to what a delta says of it.
    fn told_flow(&mut self, delta: &FlowDelta) -> Option<FlowId> {
        let told = ToldFlow {
            key: delta.key,
            direction: delta.direction,
            state: delta.state,
            first: delta.first,
            interface: delta.interface.as_ref().map_or(u32::MAX, |name| self.interface_number(name)),
            counters: delta.counters,
        };
        let slot = self.owners.slot(&delta.attribution);
        let id = match self.told_flows.entry(delta.flow) {
            Entry::Occupied(entry) => {
                let id = *entry.get();
                self.flows.tell_again(id, &told);
                id
            }
            Entry::Vacant(entry) => *entry.insert(self.flows.tell(&told)?),
        };
        for opened in self.flows.take_opened() {
            if let Some(flow) = self.flows.flow(opened) {
                self.owners.retain(flow.owner);
            }
        }
        let owner = self.flows.flow(id)?.owner;
        if owner != slot {
            self.flows.set_owner(id, slot);
            self.owners.retain(slot);
            self.owners.release(owner);
        }
        let notes = self.flows.extension_mut(id)?;
        let known = notes.remote.as_deref().cloned().unwrap_or_default();
        if owner != slot
            || known.name != delta.name
            || known.place != delta.place
            || notes.application != delta.application
        {
            notes.remote = Some(Arc::new(Remote { name: delta.name.clone(), place: delta.place.clone() }));
            notes.application = delta.application;
            notes.stale = true;
            self.flows.set_tag(id, Tag::default());
        }
        Some(id)
    }

    fn end_told(&mut self, delta: &FlowDelta, id: FlowId, reason: FlowEndReason, at: Timestamp) {
        self.told_flows.remove(&delta.flow);
        if let Some(flow) = self.flows.flow(id)
            && let Some(notes) = self.flows.remove(id)
        {
            self.tell_end(&flow, &notes, reason, at);
            self.let_go(&flow, notes);
        }
    }

    /// Tells what is booked on a flow.
    pub(super) fn tell(&mut self, id: FlowId, now: &Moment<'_>, happened: &Happened, question: Option<&DnsQuery>) {
        let Some(flow) = self.flows.flow(id) else { return };
        let interface = self.interfaces.get(flow.interface as usize).cloned().flatten();
        let attribution = self.owners.attribution(flow.owner).clone();
        let Some(notes) = self.flows.extension_mut(id) else { return };
        if notes.number == 0 {
            self.flows_told += 1;
            notes.number = self.flows_told;
        }
        let delta = FlowDelta {
            counters: happened.counters,
            failed: happened.failed > 0,
            question: question.cloned().map(Arc::new),
            ..FlowDelta::of(&flow, notes, attribution, interface, now.at)
        };
        self.outputs.push_back(Output::Delta(Box::new(delta)));
    }

    /// Tells that a flow ended of which something was told.
    pub(super) fn tell_end(&mut self, flow: &Flow, notes: &Notes, reason: FlowEndReason, at: Timestamp) {
        if notes.number == 0 {
            return;
        }
        let interface = self.interfaces.get(flow.interface as usize).cloned().flatten();
        let attribution = self.owners.attribution(flow.owner).clone();
        let delta = FlowDelta { end: Some(reason), ..FlowDelta::of(flow, notes, attribution, interface, at) };
        self.outputs.push_back(Output::Delta(Box::new(delta)));
    }

    fn interface_number(&mut self, name: &Arc<str>) -> u32 {
        let known = self.interfaces.iter().position(|known| known.as_ref() == Some(name));
        let number = known.unwrap_or_else(|| {
            self.interfaces.push(Some(Arc::clone(name)));
            self.interfaces.len() - 1
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }
}

impl FlowDelta {
    /// Nothing passed.
    fn of(flow: &Flow, notes: &Notes, attribution: Attribution, interface: Option<Arc<str>>, at: Timestamp) -> Self {
        let remote = notes.remote.as_deref().cloned().unwrap_or_default();
        Self {
            at,
            flow: notes.number,
            key: flow.key,
            direction: flow.direction,
            state: flow.state,
            first: flow.first,
            counters: Counters::default(),
            failed: false,
            // While its owner is being looked up nothing of a flow is told; a flow may end then.
            attribution: match attribution.is_pending() {
                true => Attribution::Unknown(UnknownReason::NoSocket),
                false => attribution,
            },
            name: remote.name,
            place: remote.place,
            application: notes.application,
            interface,
            question: None,
            end: None,
        }
    }
}
