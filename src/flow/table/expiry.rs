//! When to look at a flow again: a queue by second.
//!
//! A flow stands here at least once. A packet does not move it: when its
//! second comes, the table looks at the flow and puts it back if it has lived
//! on. What stands here of flows that are gone is skipped.

use std::collections::BTreeMap;

use super::FlowId;
use crate::time::Timestamp;

/// Flows by the second at which to look at them.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    due: BTreeMap<i64, Vec<FlowId>>,
}

impl Expiry {
    /// Asks to look at a flow at the end of the second of `at`.
    pub(super) fn schedule(&mut self, id: FlowId, at: Timestamp) {
        self.due.entry(at.as_secs().saturating_add(1)).or_default().push(id);
    }

    /// A flow whose second has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<FlowId> {
        let (&second, _) = self.due.first_key_value()?;
        if second > now.as_secs() { None } else { self.pop_first() }
    }

    /// The flow whose second comes first, whenever that is.
    pub(super) fn pop_first(&mut self) -> Option<FlowId> {
        let mut first = self.due.first_entry()?;
        let id = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        id
    }

    /// When the first second comes.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.keys().next().map(|&second| Timestamp::from_secs(second))
    }
}
