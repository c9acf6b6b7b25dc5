//! Owners by number: joins the answers of look-ups to flows.
//!
//! A flow keeps a number, not an owner; what the rules concluded about an
//! owner is kept here once for all its flows. An owner leaves with its last flow.
//!
//! What takes longer to find out about a process (its package, its container's
//! name) comes later, as its description, and stands in for what was known first.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::attribution::{Attribution, Evidence, Process, Suspects, UnknownReason};
use crate::flow::OwnerSlot;
use crate::time::Timestamp;

/// All owners of the flows in the flow table. `X` is what the engine keeps with an owner.
#[derive(Debug)]
pub struct OwnerTable<X> {
    slots: Vec<Slot<X>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    /// The slots of suspects, of which there are few.
    suspected: Vec<u32>,
    hasher: foldhash::fast::RandomState,
    /// Owners that no flow has taken yet.
    fresh: Vec<OwnerSlot>,
}

#[derive(Debug)]
struct Slot<X> {
    /// As the source gave it: by this it is found.
    attribution: Attribution,
    description: Description,
    /// How often a description came: flows see by it that more is known of their owner.
    descriptions: u8,
    flows: u32,
    extension: Option<X>,
}

/// Whether more is known of an owner than its source told.
#[derive(Debug, Clone)]
enum Description {
    /// Nobody asked.
    Unasked,
    /// The answer is still out.
    Awaited,
    /// This is all that is known.
    Known(Attribution),
    /// This was all, and there is more to be asked for.
    Outdated(Attribution),
}

/// The slot of flows whose owner is being looked up.
pub const PENDING: OwnerSlot = OwnerSlot(0);

impl<X> Default for OwnerTable<X> {
    fn default() -> Self {
        Self::new()
    }
}

impl<X> OwnerTable<X> {
    /// A table of the owners that always exist: pending, and each reason not to know.
    pub fn new() -> Self {
        let pending = Attribution::Pending { since: Timestamp::EPOCH };
        let always = std::iter::once(pending).chain(UnknownReason::ALL.map(Attribution::Unknown));
        Self {
            slots: always.map(Slot::new).collect(),
            free: Vec::new(),
            index: HashTable::new(),
            suspected: Vec::new(),
            hasher: foldhash::fast::RandomState::default(),
            fresh: Vec::new(),
        }
    }

    /// The number of an owner.
    pub fn slot(&mut self, attribution: &Attribution) -> OwnerSlot {
        let (process, evidence) = match attribution {
            Attribution::Pending { .. } => return PENDING,
            Attribution::Unknown(reason) => return Self::slot_of_unknown(*reason),
            Attribution::Suspected(suspects) => return self.slot_of_suspects(suspects),
            Attribution::Known { process, evidence } => (process, evidence),
        };
        let hash = hash_of(&self.hasher, process);
        let slots = &self.slots;
        let same = |&slot: &u32| is(&slots[slot as usize].attribution, process, evidence);
        if let Some(&slot) = self.index.find(hash, same) {
            return OwnerSlot(slot);
        }
        let slot = self.enter(attribution.clone());
        let Self { index, slots, hasher, .. } = self;
        index.insert_unique(hash, slot, |&other| match &slots[other as usize].attribution {
            Attribution::Known { process, .. } => hash_of(hasher, process),
            _ => 0, // Only processes are in the index.
        });
        self.fresh.push(OwnerSlot(slot));
        OwnerSlot(slot)
    }

    fn slot_of_suspects(&mut self, suspects: &Arc<Suspects>) -> OwnerSlot {
        let known = self.suspected.iter().copied().find(|slot| {
            let slot = self.slots.get(*slot as usize);
            slot.and_then(|slot| slot.attribution.suspects()).is_some_and(|known| known == suspects)
        });
        let slot = known.unwrap_or_else(|| {
            let slot = self.enter(Attribution::Suspected(Arc::clone(suspects)));
            self.suspected.push(slot);
            self.fresh.push(OwnerSlot(slot));
            slot
        });
        OwnerSlot(slot)
    }

    fn enter(&mut self, attribution: Attribution) -> u32 {
        let entry = Slot::new(attribution);
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    /// The number of flows whose owner is not known for this reason.
    pub fn slot_of_unknown(reason: UnknownReason) -> OwnerSlot {
        let place = UnknownReason::ALL.iter().position(|known| *known == reason).unwrap_or(0);
        OwnerSlot(u32::try_from(place + 1).unwrap_or(0))
    }

    /// Whose number it is, with all that is known.
    pub fn attribution(&self, slot: OwnerSlot) -> &Attribution {
        let slot = self.slots.get(slot.0 as usize).or_else(|| self.slots.first());
        let slot = slot.expect("the table is made with the owners that always exist");
        match &slot.description {
            Description::Known(described) | Description::Outdated(described) => described,
            Description::Unasked | Description::Awaited => &slot.attribution,
        }
    }

    /// The process to be described, if nobody asked for that yet. The answer is awaited from here on.
    pub fn begin_description(&mut self, slot: OwnerSlot) -> Option<Arc<Process>> {
        let entry = self.slots.get_mut(slot.0 as usize)?;
        let process = entry.attribution.process()?;
        if !matches!(entry.description, Description::Unasked) {
            return None;
        }
        entry.description = Description::Awaited;
        Some(Arc::clone(process))
    }

    /// Whether the description is still to come.
    pub fn awaits_description(&self, slot: OwnerSlot) -> bool {
        self.slots.get(slot.0 as usize).is_some_and(|slot| matches!(slot.description, Description::Awaited))
    }

    /// Waits for no description any longer.
    pub fn stop_awaiting(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| matches!(slot.description, Description::Awaited)) {
            slot.description = Description::Unasked;
        }
    }

    /// How often a description came, as a number that wraps.
    pub fn descriptions(&self, slot: OwnerSlot) -> u8 {
        self.slots.get(slot.0 as usize).map_or(0, |slot| slot.descriptions)
    }

    /// Whether no description is to come, as far as anybody knows.
    pub fn knows_all(&self, slot: OwnerSlot) -> bool {
        self.slots.get(slot.0 as usize).is_none_or(|slot| {
            slot.attribution.process().is_none() || matches!(slot.description, Description::Known(_))
        })
    }

    /// The processes to be described again because more is asked for than before. What is known of them stays.
    pub fn describe_again(&mut self) -> Vec<Arc<Process>> {
        let mut asked = Vec::new();
        for slot in &mut self.slots {
            if let Description::Known(described) = &slot.description
                && let Some(process) = slot.attribution.process()
            {
                asked.push(Arc::clone(process));
                slot.description = Description::Outdated(described.clone());
            }
        }
        asked
    }

    /// Takes all that is known of a process. What the engine concluded from less is forgotten.
    pub fn describe(&mut self, process: &Arc<Process>, described: &Arc<Process>) {
        let hash = hash_of(&self.hasher, process);
        let slots = &mut self.slots;
        for &number in self.index.iter_hash(hash) {
            let Some(slot) = slots.get_mut(number as usize) else { continue };
            let Attribution::Known { process: known, evidence } = &slot.attribution else { continue };
            if !Arc::ptr_eq(known, process) && known != process {
                continue;
            }
            if !Arc::ptr_eq(process, described) {
                slot.extension = None;
            }
            let (process, evidence) = (Arc::clone(described), evidence.clone());
            slot.description = Description::Known(Attribution::Known { process, evidence });
            slot.descriptions = slot.descriptions.wrapping_add(1);
        }
    }

    /// What the engine keeps with an owner.
    pub fn extension(&self, slot: OwnerSlot) -> Option<&X> {
        self.slots.get(slot.0 as usize)?.extension.as_ref()
    }

    /// Keeps something with an owner.
    pub fn set_extension(&mut self, slot: OwnerSlot, extension: X) {
        if let Some(slot) = self.slots.get_mut(slot.0 as usize) {
            slot.extension = Some(extension);
        }
    }

    /// Forgets what the engine kept with owners: the rules have changed.
    pub fn clear_extensions(&mut self) {
        for slot in &mut self.slots {
            slot.extension = None;
        }
    }

    /// One more flow has this owner.
    pub fn retain(&mut self, slot: OwnerSlot) {
        if let Some(slot) = self.slots.get_mut(slot.0 as usize) {
            slot.flows += 1;
        }
    }

    /// One flow less has this owner; it leaves with the last one.
    pub fn release(&mut self, slot: OwnerSlot) {
        let Some(entry) = self.slots.get_mut(slot.0 as usize) else { return };
        entry.flows = entry.flows.saturating_sub(1);
        if entry.flows == 0 {
            self.remove(slot);
        }
    }

    /// Lets owners go that no flow has taken.
    pub fn sweep(&mut self) {
        for slot in std::mem::take(&mut self.fresh) {
            if self.slots.get(slot.0 as usize).is_some_and(|entry| entry.flows == 0) {
                self.remove(slot);
            }
        }
    }

    /// Owners held, those that always exist among them.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing but the owners that always exist is held.
    pub fn is_empty(&self) -> bool {
        self.len() == ALWAYS
    }

    fn remove(&mut self, slot: OwnerSlot) {
        let Some(entry) = self.slots.get_mut(slot.0 as usize) else { return };
        if matches!(entry.attribution, Attribution::Suspected(_)) {
            self.suspected.retain(|other| *other != slot.0);
            *entry = Slot::new(Attribution::Unknown(UnknownReason::Gone));
            self.free.push(slot.0);
            return;
        }
        let Attribution::Known { process, .. } = &entry.attribution else { return };
        let hash = hash_of(&self.hasher, process);
        if let Ok(found) = self.index.find_entry(hash, |&other| other == slot.0) {
            found.remove();
            *entry = Slot::new(Attribution::Unknown(UnknownReason::Gone));
            self.free.push(slot.0);
        }
    }
}

impl<X> Slot<X> {
    fn new(attribution: Attribution) -> Self {
        Self { attribution, description: Description::Unasked, descriptions: 0, flows: 0, extension: None }
    }
}

const ALWAYS: usize = 1 + UnknownReason::ALL.len();

fn hash_of(hasher: &foldhash::fast::RandomState, process: &Process) -> u64 {
    hasher.hash_one((process.key, process.executable_path()))
}

fn is(attribution: &Attribution, process: &Arc<Process>, evidence: &Evidence) -> bool {
    match attribution {
        Attribution::Known { process: known, evidence: how } => {
            how == evidence && (Arc::ptr_eq(known, process) || known == process)
        }
        Attribution::Pending { .. } | Attribution::Unknown(_) | Attribution::Suspected(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::ProcessKey;

    fn known(pid: u32) -> Attribution {
        let process = Process { key: ProcessKey { pid, start: 7 }, ..Process::default() };
        Attribution::Known { process: Arc::new(process), evidence: Evidence::Exact }
    }

    #[test]
    fn an_owner_has_one_number_while_it_has_flows() {
        let mut owners: OwnerTable<()> = OwnerTable::new();
        let slot = owners.slot(&known(10));
        assert_eq!(owners.slot(&known(10)), slot, "equal, though not the same allocation");
        assert_ne!(owners.slot(&known(11)), slot);
        owners.retain(slot);
        owners.sweep();
        assert_eq!(owners.len(), ALWAYS + 1, "nobody took pid 11");
        assert_eq!(owners.attribution(slot).process().unwrap().key.pid, 10);
        owners.release(slot);
        assert!(owners.is_empty());
    }

    #[test]
    fn what_is_learnt_later_stands_in_for_what_was_known_first() {
        let mut owners: OwnerTable<&str> = OwnerTable::new();
        let first = known(10);
        let slot = owners.slot(&first);
        owners.retain(slot);
        owners.set_extension(slot, "concluded from less");
        let asked = owners.begin_description(slot).unwrap();
        assert!(owners.begin_description(slot).is_none() && owners.awaits_description(slot));
        let described = Arc::new(Process { unit: Some("web.service".into()), ..(*asked).clone() });
        owners.describe(&asked, &described);
        assert!(owners.descriptions(slot) == 1 && !owners.awaits_description(slot));
        assert_eq!(owners.attribution(slot).process().unwrap().unit.as_deref(), Some("web.service"));
        assert_eq!(owners.extension(slot), None);
        assert_eq!(owners.slot(&first), slot, "the source knows no more than before");
        owners.release(slot);
        owners.describe(&asked, &described);
        assert!(owners.is_empty() && owners.descriptions(slot) == 0);
    }

    #[test]
    fn suspects_have_a_number_of_their_own() {
        let mut owners: OwnerTable<()> = OwnerTable::new();
        let Attribution::Known { process, .. } = known(10) else { unreachable!() };
        let suspected = |processes: Vec<Arc<Process>>| {
            Attribution::Suspected(Arc::new(Suspects::new(UnknownReason::NoSocket, processes)))
        };
        let slot = owners.slot(&suspected(vec![Arc::clone(&process)]));
        owners.retain(slot);
        assert_eq!(owners.slot(&suspected(vec![process])), slot);
        assert_ne!(owners.slot(&suspected(Vec::new())), slot);
        owners.sweep();
        assert_eq!(owners.len(), ALWAYS + 1);
        owners.release(slot);
        assert!(owners.is_empty());
    }

    #[test]
    fn reasons_keep_their_numbers() {
        let mut owners: OwnerTable<()> = OwnerTable::new();
        for reason in UnknownReason::ALL {
            let slot = owners.slot(&Attribution::Unknown(reason));
            assert!(matches!(owners.attribution(slot), Attribution::Unknown(known) if *known == reason));
            owners.release(slot);
        }
        assert!(owners.attribution(PENDING).is_pending());
    }
}
