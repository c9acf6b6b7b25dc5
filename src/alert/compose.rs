//! Fills the document of an alert from the rule, the group and the evidence.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::alert::{
    Alert, AlertState, Analysis, Condition, Destination, Evidence, ExecutableFacts, Lifecycle, Network, Parent,
    ProcessFacts, Reason, RuleFacts, Seen, Source, UserFacts, Window, sentence,
};
use crate::attribution::{Attribution, Process, UnknownReason};
use crate::flow::{Counters, FlowState, Scope, community_id};
use crate::rule::{Detail, Exactness, Field, Host, ListMatch, Measured, Observation, Quantity, Rule, Trigger, Value};
use crate::time::Timestamp;

/// What is known of an alert when it is said.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// This host.
    pub host: &'a Host,
    /// The alert's key.
    pub key: &'a Arc<str>,
    /// Its group.
    pub group: Vec<(&'static str, Value)>,
    /// How it stands.
    pub life: &'a Lifecycle,
    /// The word for that: `firing`, `resolved`, `withdrawn`.
    pub state: &'static str,
    /// Why it is said.
    pub reason: Reason,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The window that was looked at.
    pub window: Option<Window>,
    /// The conditions with their values.
    pub measured: Vec<Measured>,
    /// Further values, by metric.
    pub values: BTreeMap<String, Quantity>,
    /// Who sent most, and where to.
    pub evidence: Option<&'a Evidence>,
    /// The window's buckets.
    pub series: Vec<u64>,
    /// What exceptions hid, by metric.
    pub excluded: BTreeMap<String, u64>,
    /// The share of traffic that was seen.
    pub coverage: f64,
    /// Whether inherited sums decided.
    pub approximate: bool,
}

/// The document.
pub fn compose(facts: Facts<'_>) -> Alert {
    let summary = sentence::summary(&facts);
    let Facts { rule, host, key, group, life, state, reason, ended_at, window, measured, .. } = facts;
    let processes = facts.evidence.map(Evidence::processes).unwrap_or_default();
    let heaviest = facts.evidence.and_then(Evidence::heaviest);
    let owner = processes.first().map(|(attribution, _)| attribution);
    let process = owner.and_then(Attribution::process);
    let escalation = life.escalation.and_then(|at| rule.life.escalate.get(at));
    let mut values = facts.values;
    values.extend(measured.iter().filter_map(|one| Some((one.name.clone(), one.value?))));
    let mut outputs = rule.outputs.clone();
    outputs.extend(escalation.iter().flat_map(|escalation| escalation.outputs.iter().cloned()));
    Alert {
        schema: "egress-alert/1",
        reason,
        state: AlertState {
            uid: life.uid.as_str().into(),
            key: Arc::clone(key),
            episode: life.episode,
            state,
            started_at: life.started_at,
            fired_at: life.fired_at,
            ended_at,
            suppressed: life.suppressed,
            coverage: facts.coverage,
            approximate: facts.approximate,
        },
        rule: RuleFacts {
            metadata: Arc::clone(&rule.metadata),
            escalated: escalation.map(|escalation| escalation.severity),
            outputs,
            outputs_only: rule.outputs_only,
            analysis: match rule.trigger {
                Trigger::FirstSeen(_) => Analysis::FirstSight,
                Trigger::Baseline(_) => Analysis::Habit,
                Trigger::When(_) | Trigger::Each | Trigger::Budget(_) => Analysis::Limit,
            },
        },
        group,
        window,
        values,
        conditions: measured.into_iter().map(condition).collect(),
        process: owner.and_then(process_facts),
        parent: process.and_then(|process| parent(process)),
        user: process.and_then(|process| user(process)),
        container: process.and_then(|process| process.container.clone()),
        source: heaviest.as_ref().map(|seen| Source { ip: seen.key.local.address, port: seen.key.local.port }),
        destination: heaviest.as_ref().map(destination),
        network: heaviest.as_ref().map(network),
        matches: facts.evidence.map(|evidence| list_matches(evidence, rule, owner, host)).unwrap_or_default(),
        top: facts.evidence.map(|evidence| top(evidence, rule)).unwrap_or_default(),
        details: details(rule, heaviest.as_ref(), owner, host),
        processes: processes
            .iter()
            .skip(1)
            .take(MAX_PROCESSES)
            .filter_map(|(attribution, bytes)| Some((process_facts(attribution)?, *bytes)))
            .collect(),
        series: facts.series,
        packets: None,
        packets_wanted: None,
        flows: Vec::new(),
        suspects: heaviest.as_ref().map(suspects).unwrap_or_default(),
        excluded: facts.excluded,
        host: host.clone(),
        summary,
        truncated: Vec::new(),
    }
}

/// Processes shown beside the first.
const MAX_PROCESSES: usize = 7;

/// Values shown of each kind.
const MAX_TOP: usize = 5;

fn condition(measured: Measured) -> Condition {
    Condition {
        metric: measured.name,
        op: measured.comparison.name(),
        limit: measured.comparison.limit(),
        value: measured.value,
        met: measured.met,
        capped: measured.exactness == Exactness::Capped,
        estimated: measured.exactness == Exactness::Estimated,
    }
}

fn suspects(seen: &Seen) -> Vec<ProcessFacts> {
    let suspects = seen.suspects.iter().flat_map(|suspects| &suspects.processes);
    suspects.take(MAX_PROCESSES).map(|process| facts_of(process, None)).collect()
}

pub(super) fn process_facts(attribution: &Attribution) -> Option<ProcessFacts> {
    Some(facts_of(attribution.process()?, attribution.evidence().map(|evidence| evidence.name())))
}

fn facts_of(process: &Process, evidence: Option<&'static str>) -> ProcessFacts {
    let executable = process.executable.as_ref();
    ProcessFacts {
        pid: process.key.pid,
        executable: ExecutableFacts {
            exe: executable.map_or(Value::Missing, |executable| Value::Text(executable.path.clone())),
            kind: executable.map_or("unknown", |executable| executable.kind.name()),
            hash: executable.and_then(|executable| executable.sha256.clone()),
            package: executable.and_then(|executable| executable.package.clone()),
        },
        cmdline: match process.command_line.is_empty() {
            true => Value::Missing,
            false => Value::Text(process.command_line_text()),
        },
        args: match process.command_line.is_empty() {
            true => Value::Missing,
            false => Value::List(process.command_line.clone()),
        },
        started_at: process.started_at,
        evidence,
        script: process.script().map(Value::Text),
        cwd: process.working_directory.clone().map(Value::Text),
        unit: process.unit.clone(),
    }
}

pub(super) fn parent(process: &Process) -> Option<Parent> {
    let parent = process.ancestors.first()?;
    Some(Parent {
        pid: parent.pid,
        exe: parent.executable.clone().map_or(Value::Missing, Value::Text),
        cmdline: match parent.command_line.is_empty() {
            true => Value::Missing,
            false => Value::Text(bstr::join(" ", &parent.command_line).into()),
        },
    })
}

pub(super) fn user(process: &Process) -> Option<UserFacts> {
    let (user, login) = (process.user.as_ref(), process.login_user.as_ref());
    if user.is_none() && login.is_none() {
        return None;
    }
    let login_name = login.and_then(|login| match (&login.name, login.uid) {
        (Some(name), _) => Some(Arc::clone(name)),
        (None, uid) => uid.map(|uid| uid.to_string().into()),
    });
    Some(UserFacts { uid: user.and_then(|user| user.uid), name: user.and_then(|user| user.name.clone()), login_name })
}

/// The entries of lists that the heaviest destinations are in.
fn list_matches(evidence: &Evidence, rule: &Rule, owner: Option<&Attribution>, host: &Host) -> Vec<ListMatch> {
    let unknown = Attribution::Unknown(UnknownReason::NoSource);
    let mut found = Vec::new();
    for seen in evidence.destinations() {
        for entry in rule.condition.list_matches(&observation(&seen, owner.unwrap_or(&unknown), host)) {
            if !found.contains(&entry) && found.len() < MAX_TOP {
                found.push(entry);
            }
        }
    }
    found
}

pub(super) fn destination(seen: &Seen) -> Destination {
    let name = seen.name.as_deref();
    let place = seen.place.as_deref();
    Destination {
        ip: seen.key.remote.address,
        port: seen.key.remote.port,
        domain: name.and_then(|name| name.domain.clone()),
        domain_source: name.and_then(|name| name.source).map(|source| source.name()),
        domain_trust: name.map(|name| name.trust.name()),
        sni: name.and_then(|name| name.sni.clone()),
        dns: name.and_then(|name| name.dns.clone()),
        registered_domain: name.and_then(|name| name.registered_domain.clone()),
        scope: Scope::of(seen.key.remote.address).name(),
        asn: place.and_then(|place| place.asn),
        as_org: place.and_then(|place| place.organization.clone()),
        country: place.and_then(|place| place.country.clone()),
    }
}

pub(super) fn network(seen: &Seen) -> Network {
    Network {
        transport: seen.key.protocol.to_string(),
        l7: seen.application.name(),
        direction: seen.direction.name(),
        iface: seen.interface.as_deref().map(str::to_owned),
        community_id: community_id(&seen.key),
    }
}

fn top(evidence: &Evidence, rule: &Rule) -> BTreeMap<&'static str, Vec<(Value, u64)>> {
    let usual = [Field::DstIp, Field::DstDomain, Field::DstPort].map(|field| (field, MAX_TOP));
    let asked = rule.presentation.details.iter().filter_map(|detail| match detail {
        Detail::Top { field, count } => Some((*field, *count)),
        Detail::Field(_) => None,
    });
    let all = usual.into_iter().chain(asked).map(|(field, count)| (field.name(), evidence.top(field, count)));
    all.filter(|(_, top)| !top.is_empty()).collect()
}

fn details(
    rule: &Rule,
    heaviest: Option<&Seen>,
    owner: Option<&Attribution>,
    host: &Host,
) -> BTreeMap<&'static str, Value> {
    let asked = rule.presentation.details.iter().filter_map(|detail| match detail {
        Detail::Field(field) => Some(*field),
        Detail::Top { .. } => None,
    });
    let values = asked.map(|field| (field.name(), value(field, heaviest, owner, host)));
    values.filter(|(_, value)| *value != Value::Missing).collect()
}

/// A field of the flow that stands for the heaviest destination and of the heaviest owner.
pub(super) fn value(field: Field, heaviest: Option<&Seen>, owner: Option<&Attribution>, host: &Host) -> Value {
    let unknown = Attribution::Unknown(UnknownReason::NoSource);
    let attribution = owner.unwrap_or(&unknown);
    let Some(seen) = heaviest else { return field.fact_of_owner(attribution, host).to_value() };
    match field {
        // The flow stands for others: its own progress says nothing.
        Field::FlowBytesOut | Field::FlowBytesIn | Field::FlowAge | Field::FlowState => Value::Missing,
        field => field.fact(&observation(seen, attribution, host)).to_value(),
    }
}

/// What rules see of a flow that stands for its destination.
fn observation<'a>(seen: &'a Seen, attribution: &'a Attribution, host: &'a Host) -> Observation<'a> {
    Observation {
        key: &seen.key,
        direction: seen.direction,
        attribution,
        name: seen.name.as_deref(),
        place: seen.place.as_deref(),
        application: seen.application,
        interface: seen.interface.as_deref(),
        totals: &Counters::NONE,
        state: FlowState::default(),
        first: Timestamp::EPOCH,
        now: Timestamp::EPOCH,
        dns: None,
        host,
    }
}
