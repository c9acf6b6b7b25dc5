//! All rules that are loaded, and which of them look at a flow.

use std::sync::Arc;

use crate::attribution::Attribution;
use crate::rule::{Condition, Host, Observation, Rule};

/// All loaded rules, in the order of their files.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// The rules; drafts and disabled ones are not among them.
    pub rules: Vec<Arc<Rule>>,
}

/// The rules that can look at the flows of one owner, and what is left to test for each.
///
/// It is the same for every flow of a process until the process executes
/// another program or the rules change: keep it with the process.
#[derive(Debug, Clone, Default)]
pub struct OwnerRules {
    left: Vec<(RuleIndex, Condition)>,
}

/// A rule's place in [`RuleSet::rules`].
pub type RuleIndex = u32;

impl RuleSet {
    /// A set of these rules.
    pub fn new(rules: impl IntoIterator<Item = Arc<Rule>>) -> Self {
        Self { rules: rules.into_iter().collect() }
    }

    /// The rules that can look at this owner's flows.
    pub fn for_owner(&self, attribution: &Attribution, host: &Host) -> OwnerRules {
        let left = self.rules.iter().zip(0..).filter_map(|(rule, index)| {
            let left = rule.condition.given_owner(attribution, host);
            (!left.is_never()).then_some((index, left))
        });
        OwnerRules { left: left.collect() }
    }

    /// The rules that look at a flow, exceptions aside.
    pub fn matching(&self, seen: &Observation<'_>) -> Vec<RuleIndex> {
        self.for_owner(seen.attribution, seen.host).matching(seen).collect()
    }
}

impl OwnerRules {
    /// Whether a rule looks at the progress of this owner's flows, so that its
    /// answer can change with every packet.
    pub fn follow_progress(&self) -> bool {
        self.left.iter().any(|(_, left)| left.follows_progress())
    }

    /// The rules that look at a flow of this owner, exceptions aside.
    pub fn matching(&self, seen: &Observation<'_>) -> impl Iterator<Item = RuleIndex> {
        self.left.iter().filter(|(_, left)| left.matches(seen)).map(|(index, _)| *index)
    }
}
