//! The packets that an alert comes with: whose are wanted, and where they are.

use std::sync::Arc;
use std::time::Duration;

use crate::attribution::Process;
use crate::flow::FlowKey;
use crate::time::Timestamp;
use crate::window::Tick;

/// Whose packets belong to an alert.
#[derive(Debug, Clone, Default)]
pub struct PacketsWanted {
    /// The flows of its group, with their owners.
    pub flows: Vec<(FlowKey, Option<Arc<Process>>)>,
    /// How far back.
    pub span: Duration,
}

/// A file with the packets of an alert.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct PacketFile {
    /// Where it is.
    pub path: String,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// How large it is.
    pub bytes: u64,
    /// How many packets it holds, their headers only.
    pub packets: u64,
    /// Older ones that found no room in it.
    pub left_out: u64,
    /// When the first of them passed.
    pub first: Option<Timestamp>,
    /// When the last of them passed.
    pub last: Option<Timestamp>,
}

/// The flows of a group that were seen lately.
#[derive(Debug, Clone, Default)]
pub struct RecentFlows {
    flows: Vec<(Tick, FlowKey, Option<Arc<Process>>)>,
}

impl RecentFlows {
    /// Notes that something passed on a flow. Those of which nothing was seen since `oldest` are forgotten.
    pub fn note(&mut self, now: Tick, oldest: Tick, key: &FlowKey, owner: Option<&Arc<Process>>) {
        let known = self.flows.iter_mut().find(|(_, known, _)| known == key);
        if let Some((last, _, known_owner)) = known {
            *last = now;
            if let Some(owner) = owner {
                *known_owner = Some(Arc::clone(owner));
            }
            return;
        }
        if self.flows.len() >= MAX_FLOWS {
            self.flows.retain(|(last, ..)| *last >= oldest);
        }
        if self.flows.len() >= MAX_FLOWS
            && let Some(at) = self.flows.iter().enumerate().min_by_key(|(_, (last, ..))| *last).map(|(at, _)| at)
        {
            self.flows.swap_remove(at);
        }
        self.flows.push((now, *key, owner.cloned()));
    }

    /// The flows of which something was seen since `oldest`.
    pub fn since(&self, oldest: Tick) -> Vec<(FlowKey, Option<Arc<Process>>)> {
        let mut flows: Vec<_> = self
            .flows
            .iter()
            .filter(|(last, ..)| *last >= oldest)
            .map(|(_, key, owner)| (*key, owner.clone()))
            .collect();
        flows.sort_by_key(|(key, _)| *key);
        flows
    }
}

/// Flows of one group whose packets an alert can come with; those that were quiet longest give way.
const MAX_FLOWS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Address, Endpoint};

    #[test]
    fn the_latest_flows_are_kept() {
        let key = |port| FlowKey { local: Endpoint::new(Address::from_v4([10, 0, 0, 1]), port), ..FlowKey::default() };
        let mut recent = RecentFlows::default();
        for port in 0..1_000_u16 {
            recent.note(Tick::from(port), 0, &key(port), None);
        }
        recent.note(1_000, 0, &key(999), None);
        assert_eq!(recent.since(0).len(), MAX_FLOWS);
        let ports: Vec<u16> = recent.since(998).into_iter().map(|(key, _)| key.local.port).collect();
        assert_eq!(ports, [998, 999]);
    }
}
