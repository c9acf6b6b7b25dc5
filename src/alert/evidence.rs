//! What an alert can show: the destinations and programs that sent most.
//!
//! Kept from the moment a group comes near its limit, in a few entries:
//! Space-Saving over bytes out, in two turns of one window each, so that what
//! is shown is never older than two windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attribution::{Attribution, Suspects};
use crate::flow::{Counters, Direction, FlowKey};
use crate::names::{Application, DestinationName, Place};
use crate::packet::Address;
use crate::rule::{Field, Observation, Value};
use crate::window::Tick;

/// The heaviest destinations and programs of one group.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    current: Turn,
    previous: Turn,
    turn: Tick,
}

#[derive(Debug, Clone, Default)]
struct Turn {
    destinations: Vec<Seen>,
    processes: Vec<(Attribution, u64)>,
}

/// A flow that stands for its destination.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The flow that was last seen of it.
    pub key: FlowKey,
    /// What it is called.
    pub name: Option<Arc<DestinationName>>,
    /// Whose network it is in.
    pub place: Option<Arc<Place>>,
    /// Who opened that flow.
    pub direction: Direction,
    /// What is spoken.
    pub application: Application,
    /// The interface's name.
    pub interface: Option<Arc<str>>,
    /// Who could have sent it, where no socket did.
    pub suspects: Option<Arc<Suspects>>,
    /// Bytes that went there.
    pub bytes_out: u64,
    /// Bytes in both directions, by which the heaviest is found.
    weight: u64,
}

/// A flow's facts that evidence keeps, shared where they can be.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// What the rules see.
    pub seen: &'a Observation<'a>,
    /// The same name, to be kept.
    pub name: Option<&'a Arc<DestinationName>>,
    /// The same place, to be kept.
    pub place: Option<&'a Arc<Place>>,
    /// The same interface, to be kept.
    pub interface: Option<&'a Arc<str>>,
}

/// Entries kept of each kind.
const KEPT: usize = 16;

impl Evidence {
    /// Notes what passed on a flow. A turn ends after `length` ticks.
    pub fn note(&mut self, now: Tick, length: Tick, sighting: &Sighting<'_>, counters: &Counters) {
        let turn = now / length.max(1);
        if turn != self.turn {
            let ended = std::mem::take(&mut self.current);
            self.previous = if turn == self.turn + 1 { ended } else { Turn::default() };
            self.turn = turn;
        }
        self.current.note(sighting, counters);
    }

    /// The flow that stands for the heaviest destination.
    pub fn heaviest(&self) -> Option<Seen> {
        self.destinations().into_iter().next()
    }

    /// The owners, the heaviest first, with their bytes out.
    pub fn processes(&self) -> Vec<(Attribution, u64)> {
        let mut all = self.current.processes.clone();
        for (attribution, bytes) in &self.previous.processes {
            match all.iter_mut().find(|(known, _)| same_owner(known, attribution)) {
                Some((_, sum)) => *sum += bytes,
                None => all.push((attribution.clone(), *bytes)),
            }
        }
        all.sort_by_key(|(attribution, bytes)| {
            (std::cmp::Reverse(*bytes), attribution.process().map(|process| process.key))
        });
        all
    }

    /// The largest values of a field of the destination, with their bytes out; the largest first.
    pub fn top(&self, field: Field, count: usize) -> Vec<(Value, u64)> {
        let mut sums = BTreeMap::<Value, u64>::new();
        for seen in self.destinations() {
            let value = match field {
                Field::DstIp => Value::Ip(seen.key.remote.address),
                Field::DstPort => Value::Number(seen.key.remote.port.into()),
                Field::DstDomain => text(seen.name.as_ref().and_then(|name| name.domain.as_deref())),
                Field::DstRegisteredDomain => {
                    text(seen.name.as_ref().and_then(|name| name.registered_domain.as_deref()))
                }
                Field::DstCountry => text(seen.place.as_ref().and_then(|place| place.country.as_deref())),
                Field::DstAsOrg => text(seen.place.as_ref().and_then(|place| place.organization.as_deref())),
                Field::DstAsn => {
                    let asn = seen.place.as_ref().and_then(|place| place.asn);
                    asn.map_or(Value::Missing, |asn| Value::Number(asn.into()))
                }
                _ => Value::Missing,
            };
            if value != Value::Missing {
                *sums.entry(value).or_default() += seen.bytes_out;
            }
        }
        let mut top: Vec<_> = sums.into_iter().collect();
        top.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        top.truncate(count);
        top
    }

    /// The flows that stand for the destinations, the heaviest first.
    pub fn destinations(&self) -> Vec<Seen> {
        let mut all = self.current.destinations.clone();
        for old in &self.previous.destinations {
            match all.iter_mut().find(|seen| end_of(&seen.key) == end_of(&old.key)) {
                Some(seen) => {
                    seen.bytes_out += old.bytes_out;
                    seen.weight += old.weight;
                }
                None => all.push(old.clone()),
            }
        }
        all.sort_by_key(|seen| (std::cmp::Reverse(seen.weight), seen.key));
        all
    }
}

impl Seen {
    /// A flow by itself, before its bytes are counted.
    pub(super) fn of(sighting: &Sighting<'_>) -> Self {
        let seen = sighting.seen;
        Self {
            key: *seen.key,
            name: sighting.name.cloned(),
            place: sighting.place.cloned(),
            direction: seen.direction,
            application: seen.application,
            interface: sighting.interface.cloned(),
            suspects: seen.attribution.suspects().cloned(),
            bytes_out: 0,
            weight: 0,
        }
    }
}

impl Turn {
    fn note(&mut self, sighting: &Sighting<'_>, counters: &Counters) {
        let seen = sighting.seen;
        let bytes_out = counters.bytes_out.0;
        let weight = bytes_out.saturating_add(counters.bytes_in.0);
        match self.destinations.iter_mut().find(|known| end_of(&known.key) == end_of(seen.key)) {
            Some(known) => {
                known.bytes_out += bytes_out;
                known.weight += weight;
                // What is learnt later, such as a name that the handshake confirms, is worth more.
                known.name = sighting.name.cloned().or_else(|| known.name.take());
                known.application = seen.application;
            }
            None => {
                let inherited = make_room(&mut self.destinations, |seen| seen.weight);
                self.destinations.push(Seen { bytes_out, weight: weight + inherited, ..Seen::of(sighting) });
            }
        }
        if seen.attribution.process().is_none() {
            return;
        }
        match self.processes.iter_mut().find(|(known, _)| same_owner(known, seen.attribution)) {
            Some((known, sum)) => {
                *sum += bytes_out;
                known.clone_from(seen.attribution);
            }
            None => {
                let inherited = make_room(&mut self.processes, |(_, sum)| *sum);
                self.processes.push((seen.attribution.clone(), bytes_out + inherited));
            }
        }
    }
}

/// Removes the lightest entry of a full list and gives what its successor inherits.
fn make_room<T>(entries: &mut Vec<T>, weight: impl Fn(&T) -> u64) -> u64 {
    if entries.len() < KEPT {
        return 0;
    }
    let lightest = entries.iter().enumerate().min_by_key(|(_, entry)| weight(entry)).map(|(at, _)| at);
    lightest.map_or(0, |at| weight(&entries.swap_remove(at)))
}

fn end_of(key: &FlowKey) -> (Address, u16) {
    (key.remote.address, key.remote.port)
}

fn same_owner(one: &Attribution, other: &Attribution) -> bool {
    match (one.process(), other.process()) {
        (Some(one), Some(other)) => {
            // More may be known of the same execution than a moment ago.
            let same = one.key == other.key && one.executable_path() == other.executable_path();
            Arc::ptr_eq(one, other) || (same && one.command_line == other.command_line)
        }
        (None, None) => true,
        _ => false,
    }
}

fn text(value: Option<&str>) -> Value {
    value.map_or(Value::Missing, |text| Value::Text(text.into()))
}
