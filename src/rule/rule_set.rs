//! All rules that are loaded, and which of them look at a flow.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::attribution::Attribution;
use crate::rule::index::Index;
use crate::rule::{Condition, Field, Host, Observation, Rule};

/// All loaded rules, in the order of their files.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// The rules; drafts and disabled ones are not among them.
    pub rules: Vec<Arc<Rule>>,
    /// Files the rules by the values that they need.
    index: Arc<Index>,
    /// Whether a rule that is filed under a flow's values looks at the flow's progress.
    filed_follow_progress: bool,
}

/// The rules that can look at the flows of one owner, and what is left to test for each.
///
/// It is the same for every flow of a process until the process executes
/// another program or the rules change: keep it with the process.
#[derive(Debug, Clone, Default)]
pub struct OwnerRules {
    left: Vec<(RuleIndex, Condition)>,
    follow_progress: bool,
    rules: Arc<RuleSet>,
}

/// A rule's place in [`RuleSet::rules`].
pub type RuleIndex = u32;

impl RuleSet {
    /// A set of these rules.
    pub fn new(rules: impl IntoIterator<Item = Arc<Rule>>) -> Self {
        let rules: Vec<Arc<Rule>> = rules.into_iter().collect();
        let index = Index::new(rules.iter().map(|rule| &rule.condition));
        let filed_follow_progress = rules
            .iter()
            .zip(0..)
            .any(|(rule, place)| index.is_filed_by_flow(place) && rule.condition.follows_progress());
        Self { rules, index: Arc::new(index), filed_follow_progress }
    }

    /// Whether a rule looks at a field, in its condition, its groups, its trigger or what its alerts show.
    pub fn look_at(&self, field: Field) -> bool {
        self.rules.iter().any(|rule| rule.looks_at(field))
    }

    /// The rules that can look at this owner's flows.
    pub fn for_owner(self: &Arc<Self>, attribution: &Attribution, host: &Host) -> OwnerRules {
        let left: Vec<(RuleIndex, Condition)> = self
            .index
            .of_owner(attribution, host)
            .into_iter()
            .filter_map(|index| {
                let left = self.rules.get(index as usize)?.condition.given_owner(attribution, host);
                (!left.is_never()).then_some((index, left))
            })
            .collect();
        let follow_progress = self.filed_follow_progress || left.iter().any(|(_, left)| left.follows_progress());
        OwnerRules { left, follow_progress, rules: self.clone() }
    }

    /// The rules that look at a flow, exceptions aside.
    pub fn matching(self: &Arc<Self>, seen: &Observation<'_>) -> SmallVec<[RuleIndex; 8]> {
        self.for_owner(seen.attribution, seen.host).matching(seen)
    }
}

impl OwnerRules {
    /// Whether a rule looks at the progress of this owner's flows, so that its
    /// answer can change with every packet.
    pub fn follow_progress(&self) -> bool {
        self.follow_progress
    }

    /// The rules that look at a flow of this owner, in order, exceptions aside.
    pub fn matching(&self, seen: &Observation<'_>) -> SmallVec<[RuleIndex; 8]> {
        let mut found: SmallVec<[RuleIndex; 8]> =
            self.left.iter().filter(|(_, left)| left.matches(seen)).map(|(index, _)| *index).collect();
        let filed = self.rules.index.of_flow(seen);
        if !filed.is_empty() {
            found.extend(filed.into_iter().filter(|index| {
                self.rules.rules.get(*index as usize).is_some_and(|rule| rule.condition.matches(seen))
            }));
            found.sort_unstable();
            found.dedup();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::{Evidence, Executable, Process, UnknownReason, User};
    use crate::flow::{Counters, Direction, FlowKey, FlowState};
    use crate::names::{Application, DestinationName};
    use crate::packet::{Endpoint, Protocol};
    use crate::rule::compile::{Options, compile};
    use crate::rule::diagnose::Source;
    use crate::time::Timestamp;

    const MATCHES: &[&str] = &[
        "{}",
        "{exe: /bin/a}",
        "{exe: [/bin/a, /bin/b]}",
        "{exe: /bin/*}",
        "{not: {exe: /bin/a}}",
        "{exe: /bin/a, dst.port: 443}",
        "{any: [{exe: /bin/a}, {dst.port: 80}]}",
        "{any: [{dst.ip: 10.0.0.0/8}, {dst.port: 80}]}",
        "{dst.port: 443}",
        "{dst.port: \"1-1024\"}",
        "{dst.port: \"440-450\"}",
        "{dst.ip: [10.0.0.0/8, \"2001:db8::/32\"]}",
        "{dst.ip: 10.1.2.3, src.port: 5}",
        "{not: {dst.ip: 10.0.0.0/8}}",
        "{dst.domain: example.net}",
        "{dst.domain: \"*.example.net\"}",
        "{dst.domain: .example.net}",
        "{dst.domain: {suffix: net}}",
        "{dst.domain: {exists: false}}",
        "{user: alice}",
        "{uid: alice}",
        "{user: 1000}",
        "{uid: \"0-999\"}",
        "{args: [-v, -x]}",
        "{args: {all: {prefix: \"-\"}}}",
        "{attribution: unknown}",
        "{exe: /bin/a, not: {any: [{dst.port: 443}, {dst.domain: example.net}]}}",
        "{all: [{dst.scope: private}, {any: [{dst.port: [443, 80]}]}]}",
        "{direction: inbound}",
        "{all: []}",
    ];

    fn rules() -> Arc<RuleSet> {
        let mut text = String::from("rules:\n");
        for (index, condition) in MATCHES.iter().enumerate() {
            text.push_str(&format!("  - {{id: r{index}, match: {condition}, each: {{}}}}\n"));
        }
        let compiled = compile(vec![Source::new("rules.yaml", text)], &Options::default());
        assert!(compiled.report.diagnostics.is_empty(), "{}", compiled.report);
        Arc::new(compiled.rules)
    }

    fn owner(exe: &str, arguments: &[&str], user: User) -> Attribution {
        let executable = Executable { path: exe.into(), ..Executable::default() };
        let process = Process {
            executable: Some(executable),
            command_line: arguments.iter().map(|argument| (*argument).into()).collect(),
            user: Some(user),
            ..Process::default()
        };
        Attribution::Known { process: Arc::new(process), evidence: Evidence::Exact }
    }

    #[test]
    fn the_index_finds_what_asking_every_rule_finds() {
        let rules = rules();
        let alice = User { uid: Some(1000), name: Some("alice".into()) };
        let root = User { uid: Some(0), name: None };
        let owners = [
            owner("/bin/a", &["a", "-v"], alice.clone()),
            owner("/bin/b", &["-x", "-y"], root),
            owner("/opt/c", &[], alice),
            Attribution::Unknown(UnknownReason::NoSource),
        ];
        let host = Host::default();
        let (mut asked, mut matched) = (0, 0);
        for attribution in &owners {
            let of_owner = rules.for_owner(attribution, &host);
            for address in ["10.1.2.3", "203.0.113.7", "2001:db8::1"] {
                for port in [80, 443, 445, 9_000] {
                    for domain in [None, Some("example.net"), Some("a.example.net"), Some("b.example.org")] {
                        let remote = Endpoint::new(address.parse::<std::net::IpAddr>().unwrap().into(), port);
                        let local = Endpoint::new("192.0.2.1".parse::<std::net::IpAddr>().unwrap().into(), 5);
                        let key = FlowKey { protocol: Protocol::TCP, local, remote, ..FlowKey::default() };
                        let name = DestinationName { domain: domain.map(Into::into), ..DestinationName::default() };
                        let seen = Observation {
                            key: &key,
                            direction: Direction::Outbound,
                            attribution,
                            name: Some(&name),
                            place: None,
                            application: Application::Unknown,
                            interface: None,
                            totals: &Counters::default(),
                            state: FlowState::Established,
                            first: Timestamp::EPOCH,
                            now: Timestamp::EPOCH,
                            dns: None,
                            host: &host,
                        };
                        let expected: Vec<RuleIndex> = rules
                            .rules
                            .iter()
                            .zip(0..)
                            .filter(|(rule, _)| rule.condition.matches(&seen))
                            .map(|(_, index)| index)
                            .collect();
                        assert_eq!(of_owner.matching(&seen).to_vec(), expected, "{seen:?}");
                        asked += rules.rules.len();
                        matched += expected.len();
                    }
                }
            }
        }
        assert!(matched > asked / 10 && matched < asked / 2, "{matched} of {asked}");
    }
}
