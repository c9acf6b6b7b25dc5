//! What traffic a rule looks at: a tree of tests on the fields of a flow.
//!
//! A test on a field that has no value is false, and `not` is its exact
//! negation: an unknown domain is not an approved domain.

use std::sync::Arc;

use crate::attribution::Attribution;
use crate::rule::{Decider, Fact, Field, Host, Observation, Pattern};

/// A tree of tests.
#[derive(Debug, Clone)]
pub enum Condition {
    /// Every one of these; with none, every flow.
    All(Vec<Condition>),
    /// At least one of these; with none, no flow.
    Any(Vec<Condition>),
    /// The exact negation.
    Not(Box<Condition>),
    /// One field.
    Test(Arc<Test>),
    /// A shared part: a macro that several rules name.
    Shared(Arc<Condition>),
}

/// A test of one field.
#[derive(Debug, Clone)]
pub struct Test {
    /// Which field.
    pub field: Field,
    /// How many elements of a list must satisfy it.
    pub quantifier: Quantifier,
    /// What its value must be.
    pub pattern: Pattern,
    /// The list that the pattern is, where a rule names one.
    pub list: Option<Arc<str>>,
}

/// An entry of a list that a flow's end is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct ListMatch {
    /// The field that was looked up.
    pub field: &'static str,
    /// The list, as the rules name it.
    pub list: Arc<str>,
    /// The entry, such as the network that holds the address.
    pub entry: String,
}

/// How many elements of a list must satisfy a test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Quantifier {
    /// At least one.
    #[default]
    Any,
    /// Every one, and there is at least one.
    All,
}

impl Condition {
    /// Every flow: `match: {}`.
    pub const ALWAYS: Self = Self::All(Vec::new());
    /// No flow.
    pub const NEVER: Self = Self::Any(Vec::new());

    /// A test of one field.
    pub fn test(field: Field, pattern: Pattern) -> Self {
        Self::Test(Arc::new(Test { field, quantifier: Quantifier::Any, pattern, list: None }))
    }

    /// Whether it holds for what is seen.
    pub fn matches(&self, seen: &Observation<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(seen)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(seen)),
            Self::Not(part) => !part.matches(seen),
            Self::Test(test) => test.holds(&test.field.fact(seen)),
            Self::Shared(part) => part.matches(seen),
        }
    }

    /// The entries of lists by which this holds: addresses, names and networks of the flow's ends.
    /// What a rule excludes is no such entry.
    pub fn list_matches(&self, seen: &Observation<'_>) -> Vec<ListMatch> {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(|part| part.list_matches(seen)).collect(),
            Self::Not(_) => Vec::new(),
            Self::Shared(part) => part.list_matches(seen),
            Self::Test(test) => test.list_match(seen).into_iter().collect(),
        }
    }

    /// What is left to test once the owner is known: [`Condition::is_always`],
    /// [`Condition::is_never`], or the tests that the flow itself decides.
    ///
    /// It is the same for every flow of one process, and worth keeping there.
    #[must_use]
    pub fn given_owner(&self, attribution: &Attribution, host: &Host) -> Self {
        match self {
            Self::All(parts) => {
                let mut left = Vec::new();
                for part in parts {
                    let part = part.given_owner(attribution, host);
                    if part.is_never() {
                        return Self::NEVER;
                    }
                    if !part.is_always() {
                        left.push(part);
                    }
                }
                one_or(left, Self::All)
            }
            Self::Any(parts) => {
                let mut left = Vec::new();
                for part in parts {
                    let part = part.given_owner(attribution, host);
                    if part.is_always() {
                        return Self::ALWAYS;
                    }
                    if !part.is_never() {
                        left.push(part);
                    }
                }
                one_or(left, Self::Any)
            }
            Self::Not(part) => {
                let part = part.given_owner(attribution, host);
                if part.is_always() {
                    Self::NEVER
                } else if part.is_never() {
                    Self::ALWAYS
                } else {
                    Self::Not(Box::new(part))
                }
            }
            Self::Test(test) if test.field.decider() == Decider::Owner => {
                if test.holds(&test.field.fact_of_owner(attribution, host)) { Self::ALWAYS } else { Self::NEVER }
            }
            Self::Test(_) => self.clone(),
            Self::Shared(part) if part.decided_by() == Decider::Flow => self.clone(),
            Self::Shared(part) => part.given_owner(attribution, host),
        }
    }

    /// Whether it holds for every flow.
    pub fn is_always(&self) -> bool {
        match self {
            Self::All(parts) => parts.is_empty(),
            Self::Shared(part) => part.is_always(),
            _ => false,
        }
    }

    /// Whether it holds for no flow.
    pub fn is_never(&self) -> bool {
        match self {
            Self::Any(parts) => parts.is_empty(),
            Self::Shared(part) => part.is_never(),
            _ => false,
        }
    }

    /// Calls `visit` for every test in the tree, from left to right.
    pub fn for_each_test<'a>(&'a self, visit: &mut dyn FnMut(&'a Test)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.for_each_test(visit)),
            Self::Not(part) => part.for_each_test(visit),
            Self::Shared(part) => part.for_each_test(visit),
            Self::Test(test) => visit(test),
        }
    }

    /// Whether a test looks at the flow's progress, so that its answer can change with every packet.
    pub fn follows_progress(&self) -> bool {
        let mut found = false;
        self.for_each_test(&mut |test| found |= test.field.decider() == Decider::Progress);
        found
    }

    /// The one part of an observation that decides it; [`Decider::Progress`] where several do.
    fn decided_by(&self) -> Decider {
        let mut deciders = [false; 3];
        self.for_each_test(&mut |test| match test.field.decider() {
            Decider::Owner => deciders[0] = true,
            Decider::Flow => deciders[1] = true,
            Decider::Progress => deciders[2] = true,
        });
        match deciders {
            [true, false, false] => Decider::Owner,
            [false, true, false] => Decider::Flow,
            _ => Decider::Progress,
        }
    }
}

impl Test {
    /// Whether a value satisfies it.
    pub fn holds(&self, fact: &Fact<'_>) -> bool {
        match fact {
            Fact::Missing => false,
            _ if matches!(self.pattern, Pattern::Exists) => true,
            Fact::Arguments(arguments) => self.quantify(arguments.iter().map(|argument| argument.as_slice())),
            Fact::Words(words) => self.quantify(words.iter().map(|word| word.as_bytes())),
            Fact::Ancestors(ancestors) => self
                .quantify(ancestors.iter().filter_map(|ancestor| ancestor.executable.as_ref()).map(|path| &path[..])),
            Fact::Text(text) => self.pattern.matches_bytes(text),
            Fact::Number(number) => self.pattern.matches_number(*number),
            Fact::Ip(address) => self.pattern.matches_address(*address),
            Fact::User(user) => self.pattern.matches_named(user.name.as_deref(), user.uid),
            Fact::Group { name, id } => self.pattern.matches_named(*name, Some(*id)),
        }
    }

    fn list_match(&self, seen: &Observation<'_>) -> Option<ListMatch> {
        let list = self.list.as_ref()?;
        let entry = match (&self.pattern, self.field.fact(seen)) {
            (Pattern::Address(networks), Fact::Ip(address)) => networks.find(address)?.to_string(),
            (Pattern::Domain(domains), Fact::Text(name)) => domains.find(std::str::from_utf8(&name).ok()?)?,
            (Pattern::Number(systems), Fact::Number(number)) if self.field == Field::DstAsn => {
                systems.contains(number).then(|| format!("AS{number}"))?
            }
            _ => return None,
        };
        Some(ListMatch { field: self.field.name(), list: Arc::clone(list), entry })
    }

    fn quantify<'a>(&self, mut elements: impl Iterator<Item = &'a [u8]>) -> bool {
        match self.quantifier {
            Quantifier::Any => elements.any(|element| self.pattern.matches_bytes(element)),
            Quantifier::All => {
                let mut seen = false;
                elements.all(|element| {
                    seen = true;
                    self.pattern.matches_bytes(element)
                }) && seen
            }
        }
    }
}

fn one_or(mut parts: Vec<Condition>, several: fn(Vec<Condition>) -> Condition) -> Condition {
    if parts.len() == 1 { parts.remove(0) } else { several(parts) }
}
