//! The flows of an alert, one by one: what passed on each since receivers heard of it last.
//!
//! Kept from the moment a group comes near its limit, and only where somebody
//! wants to have them (`--emit-flows`). What is told of a flow is a document of
//! its own, the alert's companion, which names the alert.
//!
//! Invariant: what is told of a flow, and what is told to be left out, adds up
//! to what the alert's group was booked with since.

use std::sync::Arc;

use crate::alert::evidence::{Seen, Sighting};
use crate::alert::{
    Alert, Destination, DocumentKind, Network, Notification, Parent, ProcessFacts, Source, UserFacts, compose,
};
use crate::attribution::{Attribution, Container};
use crate::flow::{Counters, FlowKey, FlowState};
use crate::time::Timestamp;

/// The flows of one group.
#[derive(Debug, Clone, Default)]
pub struct Companions {
    flows: Vec<Flow>,
    left_out: Counters,
}

#[derive(Debug, Clone)]
struct Flow {
    seen: Seen,
    attribution: Attribution,
    state: FlowState,
    first: Timestamp,
    last: Timestamp,
    /// Since it was told last.
    passed: Counters,
    /// Since it began.
    total: Counters,
}

/// One flow of an alert, as receivers see it.
#[derive(Debug, Clone, Default)]
pub struct CompanionFlow {
    /// Names what is told: the same flow told again later is another event.
    pub uid: Arc<str>,
    /// Which flow.
    pub key: FlowKey,
    /// Whether it is open.
    pub state: FlowState,
    /// Its first packet.
    pub first: Timestamp,
    /// When something passed last.
    pub last: Timestamp,
    /// What passed since it was told last, or since the group came near its limit.
    pub passed: Counters,
    /// What passed since it began.
    pub total: Counters,
    /// What passed meanwhile on flows of the group for which there was no room; the same for all that are told
    /// together.
    pub left_out: Counters,
    /// The process.
    pub process: Option<ProcessFacts>,
    /// Its parent.
    pub parent: Option<Parent>,
    /// Its user.
    pub user: Option<UserFacts>,
    /// Its container.
    pub container: Option<Container>,
    /// The other end.
    pub destination: Destination,
    /// What was spoken.
    pub network: Network,
}

impl Companions {
    /// Notes what passed on a flow.
    pub fn note(&mut self, sighting: &Sighting<'_>, passed: &Counters) {
        let seen = sighting.seen;
        if let Some(flow) = self.flows.iter_mut().find(|flow| flow.seen.key == *seen.key && flow.first == seen.first) {
            flow.seen = Seen::of(sighting);
            flow.attribution.clone_from(seen.attribution);
            (flow.state, flow.last, flow.total) = (seen.state, seen.now, *seen.totals);
            flow.passed.add(passed);
            return;
        }
        if self.flows.len() >= MAX_FLOWS {
            // One of which everything was told makes room.
            let told = |flow: &&Flow| flow.passed.is_empty();
            let quietest = self.flows.iter().filter(told).map(|flow| flow.last).min();
            match self.flows.iter().position(|flow| flow.passed.is_empty() && Some(flow.last) == quietest) {
                Some(at) => drop(self.flows.swap_remove(at)),
                None => return self.left_out.add(passed),
            }
        }
        self.flows.push(Flow {
            seen: Seen::of(sighting),
            attribution: seen.attribution.clone(),
            state: seen.state,
            first: seen.first,
            last: seen.now,
            passed: *passed,
            total: *seen.totals,
        });
    }

    /// The flows on which something passed since they were told, to go with the alert of this uid.
    pub fn of(&self, alert_uid: &str) -> Vec<Arc<CompanionFlow>> {
        let mut flows: Vec<&Flow> = self.flows.iter().filter(|flow| !flow.passed.is_empty()).collect();
        flows.sort_by_key(|flow| (flow.first, flow.seen.key));
        flows.into_iter().map(|flow| Arc::new(flow.facts(alert_uid, self.left_out))).collect()
    }

    /// Takes note that everything was told.
    pub fn told(&mut self) {
        self.left_out = Counters::NONE;
        self.flows.iter_mut().for_each(|flow| flow.passed = Counters::NONE);
    }
}

impl Flow {
    fn facts(&self, alert_uid: &str, left_out: Counters) -> CompanionFlow {
        let process = self.attribution.process();
        CompanionFlow {
            uid: uid(alert_uid, self),
            key: self.seen.key,
            state: self.state,
            first: self.first,
            last: self.last,
            passed: self.passed,
            total: self.total,
            left_out,
            process: compose::process_facts(&self.attribution),
            parent: process.and_then(|process| compose::parent(process)),
            user: process.and_then(|process| compose::user(process)),
            container: process.and_then(|process| process.container.clone()),
            destination: compose::destination(&self.seen),
            network: compose::network(&self.seen),
        }
    }
}

impl Notification {
    /// One flow of an alert: the alert as it is seen at this flow.
    pub fn of_flow(alert: &Alert, flow: &Arc<CompanionFlow>) -> Self {
        let (local, remote) = (flow.key.local, flow.key.remote);
        let sent = flow.passed.bytes_out + flow.passed.bytes_in;
        let seen = Alert {
            process: flow.process.clone(),
            parent: flow.parent.clone(),
            user: flow.user.clone(),
            container: flow.container.clone(),
            source: Some(Source { ip: local.address, port: local.port }),
            destination: Some(flow.destination.clone()),
            network: Some(flow.network.clone()),
            summary: format!("{sent} passed between {local} and {remote}"),
            flows: vec![Arc::clone(flow)],
            ..alert.clone()
        };
        Self::of_alert(DocumentKind::Flow, flow.last, seen)
    }
}

/// Made from the content: the same data gives the same ids.
fn uid(alert_uid: &str, flow: &Flow) -> Arc<str> {
    let mut hash = blake3::Hasher::new();
    hash.update(alert_uid.as_bytes());
    hash.update(format!("{:?} {:?} {:?}", flow.seen.key, flow.first, flow.total).as_bytes());
    format!("{alert_uid}-{}", &hash.finalize().to_hex()[..16]).into()
}

/// Flows of one group that are told one by one; what passes on further ones is told as a sum.
const MAX_FLOWS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::UnknownReason;
    use crate::flow::Direction;
    use crate::names::Application;
    use crate::packet::{Address, Endpoint};
    use crate::rule::{Host, Observation};
    use crate::units::Bytes;

    #[test]
    fn what_is_told_adds_up_to_what_was_noted() {
        let mut companions = Companions::default();
        for round in 1..=3 {
            for port in 0..300 {
                note(&mut companions, port, round, 10);
            }
            let told = companions.of("uid");
            let sum: u64 = told.iter().map(|flow| flow.passed.bytes_out.0).sum();
            assert_eq!((told.len(), sum + told[0].left_out.bytes_out.0), (MAX_FLOWS, 3_000));
            companions.told();
            assert!(companions.of("uid").is_empty());
        }
    }

    #[test]
    fn a_flow_told_again_has_the_new_bytes_and_all_of_them() {
        let mut companions = Companions::default();
        note(&mut companions, 1, 1, 10);
        let first = companions.of("uid").remove(0);
        companions.told();
        note(&mut companions, 1, 2, 10);
        let second = companions.of("uid").remove(0);
        assert_eq!((first.passed.bytes_out, second.passed.bytes_out), (Bytes(10), Bytes(10)));
        assert_eq!((first.total.bytes_out, second.total.bytes_out), (Bytes(10), Bytes(20)));
        assert_ne!(first.uid, second.uid);
        assert!(first.uid.starts_with("uid-"));
    }

    fn note(companions: &mut Companions, port: u16, round: u64, bytes: u64) {
        let end = |port| Endpoint::new(Address::from_v4([10, 0, 0, 1]), port);
        let key = FlowKey { local: end(port), remote: end(443), ..FlowKey::default() };
        let counters = |bytes| Counters { bytes_out: Bytes(bytes), ..Counters::NONE };
        let (attribution, host) = (Attribution::Unknown(UnknownReason::NoSocket), Host::default());
        let seen = Observation {
            key: &key,
            direction: Direction::Outbound,
            attribution: &attribution,
            name: None,
            place: None,
            application: Application::default(),
            interface: None,
            totals: &counters(round * bytes),
            state: FlowState::default(),
            first: Timestamp::from_secs(1),
            now: Timestamp::from_secs(i64::try_from(round).unwrap()),
            dns: None,
            host: &host,
        };
        let sighting = Sighting { seen: &seen, name: None, place: None, interface: None };
        companions.note(&sighting, &counters(bytes));
    }
}
