//! Finds the rules that can match a flow without asking every rule.
//!
//! A rule whose condition needs one of a few values (this executable, that
//! port, those networks, these domains) is filed under them. Only rules that
//! can be filed nowhere are asked every time, so ten thousand rules about ten
//! thousand things cost a flow about as much as ten.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;
use smallvec::SmallVec;

use crate::attribution::Attribution;
use crate::rule::{Condition, Decider, Fact, Field, Host, Observation, Pattern, Quantifier, RuleIndex, Test};

/// Rules by the values that they need.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Rules to ask for every owner.
    unfiled: Vec<RuleIndex>,
    /// By a text that only the owner decides.
    owners: HashMap<(Field, Box<[u8]>), Vec<RuleIndex>, RandomState>,
    /// The fields that occur there.
    owner_fields: Vec<Field>,
    ports: HashMap<(Field, u16), Vec<RuleIndex>, RandomState>,
    networks: [JointPrefixMap<IpNet, Vec<RuleIndex>>; 2],
    /// By a domain name, also of a parent.
    domains: Vec<(Field, HashMap<Box<str>, Vec<RuleIndex>, RandomState>)>,
    /// Rules that are filed under values of flows.
    of_flows: HashSet<RuleIndex, RandomState>,
}

/// A value that a condition needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Owner(Field, Box<[u8]>),
    Port(Field, u16),
    Network(Field, IpNet),
    Domain(Field, Box<str>),
}

/// Values that a rule is filed under, at most.
const MAX_KEYS: usize = 64;

impl Index {
    /// Files rules by their conditions.
    pub(super) fn new<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Self {
        let mut index = Self::default();
        for (condition, rule) in conditions.zip(0..) {
            match keys(condition) {
                Some(keys) => index.file(rule, keys),
                None => index.unfiled.push(rule),
            }
        }
        index
    }

    /// Rules that must be asked for this owner, in order: those filed nowhere and those that need a value it has.
    pub(super) fn of_owner(&self, attribution: &Attribution, host: &Host) -> Vec<RuleIndex> {
        let mut found = self.unfiled.clone();
        for field in &self.owner_fields {
            let mut look_up = |text: &[u8]| {
                // One allocation an owner and field, not one a flow.
                if let Some(rules) = self.owners.get(&(*field, Box::from(text))) {
                    found.extend_from_slice(rules);
                }
            };
            match field.fact_of_owner(attribution, host) {
                Fact::Text(text) => look_up(&text),
                Fact::User(user) => user.name.iter().for_each(|name| look_up(name.as_bytes())),
                Fact::Group { name, .. } => name.iter().for_each(|name| look_up(name.as_bytes())),
                Fact::Arguments(arguments) => arguments.iter().for_each(|argument| look_up(argument)),
                Fact::Words(words) => words.iter().for_each(|word| look_up(word.as_bytes())),
                Fact::Ancestors(ancestors) => {
                    ancestors.iter().filter_map(|ancestor| ancestor.executable.as_ref()).for_each(|path| look_up(path));
                }
                Fact::Missing | Fact::Number(_) | Fact::Ip(_) => {}
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Rules that need a value that this flow has, beside those of its owner. In no order, perhaps twice.
    pub(super) fn of_flow(&self, seen: &Observation<'_>) -> SmallVec<[RuleIndex; 8]> {
        let mut found = SmallVec::new();
        if self.of_flows.is_empty() {
            return found;
        }
        if !self.ports.is_empty() {
            for (field, port) in [(Field::DstPort, seen.key.remote.port), (Field::SrcPort, seen.key.local.port)] {
                if let Some(rules) = self.ports.get(&(field, port)) {
                    found.extend_from_slice(rules);
                }
            }
        }
        for (networks, end) in self.networks.iter().zip([seen.key.remote, seen.key.local]) {
            if !networks.is_empty() {
                let address = IpNet::from(end.address.ip());
                networks.cover(&address).for_each(|(_, rules)| found.extend_from_slice(rules));
            }
        }
        for (field, domains) in &self.domains {
            let Fact::Text(name) = field.fact(seen) else { continue };
            let Ok(name) = std::str::from_utf8(&name) else { continue };
            let mut rest = Some(name);
            while let Some(name) = rest {
                if let Some(rules) = domains.get(name) {
                    found.extend_from_slice(rules);
                }
                rest = name.split_once('.').map(|(_, parent)| parent);
            }
        }
        found
    }

    /// Whether a rule is filed under values of flows, so that its owner alone says nothing.
    pub(super) fn is_filed_by_flow(&self, rule: RuleIndex) -> bool {
        self.of_flows.contains(&rule)
    }

    fn file(&mut self, rule: RuleIndex, keys: HashSet<Key>) {
        for key in keys {
            match key {
                Key::Owner(field, text) => {
                    add_once(&mut self.owner_fields, field);
                    self.owners.entry((field, text)).or_default().push(rule);
                }
                Key::Port(field, port) => {
                    self.of_flows.insert(rule);
                    self.ports.entry((field, port)).or_default().push(rule);
                }
                Key::Network(field, network) => {
                    self.of_flows.insert(rule);
                    let networks = &mut self.networks[usize::from(field == Field::SrcIp)];
                    match networks.get_mut(&network) {
                        Some(rules) => rules.push(rule),
                        None => {
                            networks.insert(network, vec![rule]);
                        }
                    }
                }
                Key::Domain(field, name) => {
                    self.of_flows.insert(rule);
                    let known = self.domains.iter().position(|(known, _)| *known == field);
                    let place = known.unwrap_or_else(|| {
                        self.domains.push((field, HashMap::default()));
                        self.domains.len() - 1
                    });
                    if let Some((_, domains)) = self.domains.get_mut(place) {
                        domains.entry(name).or_default().push(rule);
                    }
                }
            }
        }
    }
}

fn add_once(fields: &mut Vec<Field>, field: Field) {
    if !fields.contains(&field) {
        fields.push(field);
    }
}

/// A few values of which a flow must have one for the condition to hold, if there are such.
fn keys(condition: &Condition) -> Option<HashSet<Key>> {
    match condition {
        Condition::Shared(part) => keys(part),
        // One part that needs a value is enough; the owner's are cheapest to ask, then the fewest.
        Condition::All(parts) => parts.iter().filter_map(keys).min_by_key(|keys| {
            let of_flow = keys.iter().any(|key| !matches!(key, Key::Owner(..)));
            (of_flow, keys.len())
        }),
        Condition::Any(parts) => {
            let mut all = HashSet::new();
            for part in parts {
                all.extend(keys(part)?);
            }
            // Owners and flows are asked at different times.
            let owners = all.iter().filter(|key| matches!(key, Key::Owner(..))).count();
            ((owners == 0 || owners == all.len()) && (1..=MAX_KEYS).contains(&all.len())).then_some(all)
        }
        Condition::Not(_) => None,
        Condition::Test(test) => keys_of_test(test),
    }
}

fn keys_of_test(test: &Test) -> Option<HashSet<Key>> {
    let field = test.field;
    if test.quantifier == Quantifier::All {
        return None;
    }
    let keys: HashSet<Key> = match &test.pattern {
        Pattern::Text(texts) if texts.patterns().is_empty() && field.decider() == Decider::Owner => {
            texts.exact().take(MAX_KEYS + 1).map(|text| Key::Owner(field, text.into())).collect()
        }
        Pattern::User { names, ids } if names.patterns().is_empty() && ids.ranges().is_empty() => {
            names.exact().take(MAX_KEYS + 1).map(|text| Key::Owner(field, text.into())).collect()
        }
        Pattern::Number(numbers) if matches!(field, Field::DstPort | Field::SrcPort) => numbers
            .ranges()
            .iter()
            .flat_map(|(low, high)| *low..=*high)
            .take(MAX_KEYS + 1)
            .filter_map(|port| Some(Key::Port(field, u16::try_from(port).ok()?)))
            .collect(),
        Pattern::Address(networks) if networks.len() <= MAX_KEYS => {
            networks.iter().map(|network| Key::Network(field, network)).collect()
        }
        Pattern::Domain(domains) if domains.len() <= MAX_KEYS && field.decider() == Decider::Flow => domains
            .entries()
            .into_iter()
            .map(|entry| Key::Domain(field, entry.trim_start_matches("*.").trim_start_matches('.').into()))
            .collect(),
        _ => return None,
    };
    (1..=MAX_KEYS).contains(&keys.len()).then_some(keys)
}
