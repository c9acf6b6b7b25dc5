//! Runs the tests of rules: the engine of production under a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::alert::{Alert, DocumentKind, Notification};
use crate::attribution::FlowUpdate;
use crate::engine::{Decisions, Engine, Output, RemoteFacts, Settings, Silence};
use crate::flow::{Direction, FlowKey, LocalAddresses};
use crate::packet::{FiveTuple, Fragment, FrameDirection, Packet};
use crate::rule::case::{Case, Event, Expectation, Expected, ExpectedState};
use crate::rule::diagnose::Span;
use crate::rule::{Comparison, Host, Quantity, RuleSet, Severity, Value};
use crate::time::Timestamp;
use crate::units::{Bytes, Packets};

/// What came of one test.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The test.
    pub name: String,
    /// Where it was written.
    pub span: Span,
    /// What was otherwise than expected; empty if the test passed.
    pub failures: Vec<Failure>,
    /// Alerts that fired.
    pub fired: usize,
    /// What the test showed of its rules.
    pub shown: Shown,
}

/// Something was otherwise than expected.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Where the expectation was written.
    pub span: Span,
    /// What was otherwise.
    pub message: String,
}

/// What tests show of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Rules that fired.
    pub fired: BTreeSet<Arc<str>>,
    /// Rules that kept silent though flows came.
    pub silent: BTreeSet<Arc<str>>,
    /// Exceptions that let something pass: rule and exception.
    pub exceptions: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Conditions that decided alone, in the way that counts: rule and the condition's place.
    pub decisive: BTreeSet<(Arc<str>, usize)>,
}

/// How an alert stands.
#[derive(Debug, Clone)]
struct Standing {
    rule: Arc<str>,
    state: ExpectedState,
    severity: Severity,
    last: Arc<Alert>,
}

/// Runs one test on the rules that it names.
pub fn run(case: &Case, all: &RuleSet) -> Outcome {
    let named = all.rules.iter().filter(|rule| case.rules.contains(&rule.metadata.id));
    let rules = Arc::new(RuleSet::new(named.cloned()));
    let host = Arc::new(Host { name: "test".into(), ..Host::default() });
    let mut rehearsal = Rehearsal::new(case, Arc::clone(&rules), Arc::clone(&host));
    let mut checks: Vec<(Duration, &Expectation)> = case
        .expect
        .iter()
        .filter_map(|expectation| match &expectation.what {
            Expected::State { at, .. } => Some((*at, expectation)),
            _ => None,
        })
        .collect();
    checks.sort_by_key(|(at, _)| *at);
    let mut failures = Vec::new();
    let mut events = case.events.iter().peekable();
    for (at, expectation) in checks {
        while let Some(event) = events.next_if(|event| event.at <= at) {
            rehearsal.happen(event);
        }
        rehearsal.advance(at);
        failures.extend(rehearsal.check_state(expectation));
    }
    let last = case.events.last().map_or(Duration::ZERO, |event| event.at);
    for event in events {
        rehearsal.happen(event);
    }
    rehearsal.advance(last.saturating_add(Duration::from_secs(2)).max(rehearsal.reached));
    for expectation in &case.expect {
        failures.extend(rehearsal.check_whole(expectation));
    }
    for id in case.rules.iter().filter(|id| !rules.rules.iter().any(|rule| rule.metadata.id == **id)) {
        failures.push(Failure { span: case.span, message: format!("the rule `{id}` cannot run") });
    }
    if case.strict {
        failures.extend(rehearsal.unexpected());
    }
    failures.sort_by_key(|failure| failure.span);
    let exceptions = exceptions_used(case, &rules, &host);
    let mut shown = Shown { exceptions, decisive: rehearsal.decisive(), ..Shown::default() };
    for rule in &rules.rules {
        let id = Arc::clone(&rule.metadata.id);
        if rehearsal.fired().any(|fired| fired.rule == id) {
            shown.fired.insert(id);
        } else if !case.events.is_empty() {
            shown.silent.insert(id);
        }
    }
    Outcome { name: case.name.clone(), span: case.span, failures, fired: rehearsal.fired().count(), shown }
}

struct Rehearsal<'a> {
    case: &'a Case,
    engine: Engine,
    interfaces: BTreeMap<Arc<str>, u32>,
    met: BTreeSet<FlowKey>,
    reached: Duration,
    standings: BTreeMap<Arc<str>, Standing>,
    said: Vec<Notification>,
    /// When the source falls silent and is back, still to come.
    silences: VecDeque<(Duration, Silence)>,
}

impl<'a> Rehearsal<'a> {
    fn new(case: &'a Case, rules: Arc<RuleSet>, host: Arc<Host>) -> Self {
        let addresses: BTreeSet<IpNet> =
            case.events.iter().map(|event| event.flow.key.local.address.ip().into()).collect();
        let local = LocalAddresses::new(addresses);
        let settings = Settings { local, host, decisions: Decisions::On, ..Settings::default() };
        let mut engine = Engine::new(settings, rules);
        engine.handle_timeout(case.start);
        Self {
            case,
            engine,
            interfaces: BTreeMap::new(),
            met: BTreeSet::new(),
            reached: Duration::ZERO,
            standings: BTreeMap::new(),
            said: Vec::new(),
            silences: silences(case),
        }
    }

    fn happen(&mut self, event: &Event) {
        self.fall_silent(event.at);
        let flow = &event.flow;
        let timestamp = self.case.start.after(event.at);
        let mut counters = flow.counters;
        if let Some(interface) = &flow.interface {
            counters.packets_out = Packets(counters.packets_out.0.saturating_sub(1));
            self.show_interface(flow.key, flow.direction, interface, event, timestamp);
        }
        self.engine.handle_update(&FlowUpdate {
            key: flow.key,
            direction: Some(flow.direction),
            counters,
            attribution: flow.attribution.clone(),
            timestamp,
            state: flow.state,
            end_reason: None,
        });
        let application = (flow.application != Default::default()).then_some(flow.application);
        let facts = RemoteFacts { name: flow.name.clone(), place: flow.place.clone(), application };
        self.engine.handle_remote(&flow.key, &facts);
        if let Some(question) = &flow.dns {
            self.engine.handle_question(&flow.key, question);
        }
        self.reached = self.reached.max(event.at);
        self.drain();
    }

    /// An interface is known from packets: an empty one brings it.
    fn show_interface(
        &mut self,
        key: FlowKey,
        direction: Direction,
        name: &Arc<str>,
        event: &Event,
        timestamp: Timestamp,
    ) {
        if !self.met.insert(key) {
            return;
        }
        let next = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let number = *self.interfaces.entry(Arc::clone(name)).or_insert(next);
        self.engine.handle_interface(number, Arc::clone(name));
        let (source, destination, way) = match direction {
            Direction::Inbound => (key.remote, key.local, FrameDirection::In),
            Direction::Outbound | Direction::Local => (key.local, key.remote, FrameDirection::Out),
        };
        let packet = Packet {
            timestamp,
            five_tuple: FiveTuple { protocol: key.protocol, source, destination },
            bytes: Bytes(0),
            payload_bytes: Bytes(0),
            tcp_flags: None,
            tcp_sequence: 0,
            fragment: Fragment::None,
            direction: Some(way),
            interface: number,
            payload: &[],
        };
        self.engine.handle_owned_packet(&packet, &event.flow.attribution);
    }

    /// Lets the source fall silent and come back, as far as it does by then.
    fn fall_silent(&mut self, until: Duration) {
        while self.silences.front().is_some_and(|(at, _)| *at <= until) {
            let Some((at, silence)) = self.silences.pop_front() else { return };
            self.engine.handle_timeout(self.case.start.after(at));
            self.engine.handle_silence(silence);
            self.drain();
        }
    }

    /// Conditions that decided alone: of alternatives by making the rule fire, of others by keeping it silent.
    fn decisive(&self) -> BTreeSet<(Arc<str>, usize)> {
        let mut decisive = BTreeSet::new();
        for (rule, decisions) in self.engine.decisions() {
            for (place, (leaf, decided)) in decisions.into_iter().enumerate() {
                let decides = if leaf.is_alternative { decided.fired } else { decided.kept_silent };
                if decides {
                    decisive.insert((Arc::clone(rule), place));
                }
            }
        }
        decisive
    }

    fn is_pending(&self, expectation: &Expectation, group: &[(String, String)]) -> bool {
        let windows = self.engine.live_windows(expectation.rule.as_deref(), usize::MAX);
        windows.iter().any(|window| window.state == "pending" && is_group(&window.group, group))
    }

    fn advance(&mut self, to: Duration) {
        self.fall_silent(to);
        self.reached = self.reached.max(to);
        self.engine.handle_timeout(self.case.start.after(to));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            let Output::Notification(notification) = output else { continue };
            if let Some(alert) = &notification.alert {
                let state = match notification.kind {
                    DocumentKind::Firing | DocumentKind::Updated => ExpectedState::Firing,
                    _ => ExpectedState::Resolved,
                };
                let standing = Standing {
                    rule: Arc::clone(&alert.rule.metadata.id),
                    state,
                    severity: alert.rule.severity(),
                    last: Arc::clone(alert),
                };
                self.standings.insert(Arc::clone(&alert.state.key), standing);
                self.said.push(notification);
            }
        }
    }

    fn fired(&self) -> impl Iterator<Item = &Standing> {
        self.standings.values()
    }

    fn check_state(&self, expectation: &Expectation) -> Option<Failure> {
        let Expected::State { at, state, group, severity, values, summary } = &expectation.what else { return None };
        let fail = |message: String| {
            Some(Failure { span: expectation.span, message: format!("at {}: {message}", crate::rule::duration(*at)) })
        };
        let about: Vec<&Standing> = self
            .fired()
            .filter(|standing| self.is_about(standing, expectation) && is_group(&standing.last.group, group))
            .collect();
        let wanted = match state {
            ExpectedState::Inactive => {
                return match about.iter().find(|standing| standing.state == ExpectedState::Firing) {
                    Some(standing) => fail(format!("`{}` fires for {}", standing.rule, group_text(&standing.last))),
                    None => None,
                };
            }
            ExpectedState::Pending => {
                return match self.is_pending(expectation, group) {
                    true => None,
                    false => fail("no alert of this group is pending".to_owned()),
                };
            }
            other => *other,
        };
        let Some(standing) = about.iter().find(|standing| standing.state == wanted) else {
            let found: Vec<String> = self
                .fired()
                .map(|standing| {
                    format!("`{}` {} for {}", standing.rule, word(standing.state), group_text(&standing.last))
                })
                .collect();
            let found = if found.is_empty() { "no alert fired so far".to_owned() } else { found.join("; ") };
            return fail(format!("no alert of this group {}: {found}", word(wanted)));
        };
        if let Some(severity) = severity
            && standing.severity != *severity
        {
            return fail(format!("the severity is {} and not {}", standing.severity.name(), severity.name()));
        }
        for (metric, comparison) in values {
            match standing.last.values.get(metric) {
                Some(value) if comparison.holds(*value) => {}
                Some(value) => return fail(format!("{metric} is {} and not {}", quantity(*value), limit(*comparison))),
                None => {
                    let known: Vec<&str> = standing.last.values.keys().map(String::as_str).collect();
                    return fail(format!("the alert has no value `{metric}`; it has {}", known.join(", ")));
                }
            }
        }
        let missing = summary.iter().find(|text| !standing.last.summary.contains(text.as_str()))?;
        fail(format!("the summary is \"{}\", without \"{missing}\"", standing.last.summary))
    }

    fn check_whole(&self, expectation: &Expectation) -> Option<Failure> {
        let fail = |message: String| Some(Failure { span: expectation.span, message });
        match &expectation.what {
            Expected::State { .. } => None,
            Expected::NeverFiring => {
                let standing = self.fired().find(|standing| self.is_about(standing, expectation))?;
                let since =
                    standing.last.state.fired_at.unwrap_or(standing.last.state.started_at).since(self.case.start);
                fail(format!(
                    "`{}` fired after {} for {}",
                    standing.rule,
                    crate::rule::duration(since),
                    group_text(&standing.last)
                ))
            }
            Expected::Notifications { to, count, kinds } => {
                let said: Vec<&str> = self
                    .said
                    .iter()
                    .filter(|notification| {
                        let Some(alert) = &notification.alert else { return false };
                        let about = expectation.rule.as_ref().is_none_or(|rule| *rule == alert.rule.metadata.id);
                        about && to.as_ref().is_none_or(|to| alert.rule.outputs.iter().any(|output| **output == **to))
                    })
                    .map(|notification| kind(notification.kind))
                    .collect();
                if count.is_some_and(|count| count != said.len()) {
                    return fail(format!(
                        "{} notifications and not {}: {}",
                        said.len(),
                        count.unwrap_or(0),
                        said.join(", ")
                    ));
                }
                if !kinds.is_empty() && *kinds != said {
                    return fail(format!("the notifications are {} and not {}", said.join(", "), kinds.join(", ")));
                }
                None
            }
        }
    }

    /// Alerts that no expectation asked for.
    fn unexpected(&self) -> Vec<Failure> {
        let expected = |standing: &Standing| {
            self.case.expect.iter().any(|expectation| match &expectation.what {
                Expected::State { state, group, .. } => {
                    *state != ExpectedState::Inactive
                        && self.is_about(standing, expectation)
                        && is_group(&standing.last.group, group)
                }
                // Who counts notifications knows of them.
                Expected::Notifications { .. } => self.is_about(standing, expectation),
                Expected::NeverFiring => true,
            })
        };
        self.fired()
            .filter(|standing| !expected(standing))
            .map(|standing| Failure {
                span: self.case.span,
                message: format!("nobody expected `{}` to fire for {}", standing.rule, group_text(&standing.last)),
            })
            .collect()
    }

    fn is_about(&self, standing: &Standing, expectation: &Expectation) -> bool {
        expectation.rule.as_ref().is_none_or(|rule| *rule == standing.rule)
    }
}

/// The exceptions that applied to a flow of the test.
fn exceptions_used(case: &Case, rules: &RuleSet, host: &Host) -> BTreeSet<(Arc<str>, Arc<str>)> {
    let mut used = BTreeSet::new();
    for event in &case.events {
        let now = case.start.after(event.at);
        let seen = event.flow.observation(host, now);
        for rule in rules.rules.iter().filter(|rule| rule.condition.matches(&seen)) {
            for exception in &rule.exceptions {
                let in_force = exception.during.as_ref().is_none_or(|schedule| schedule.contains(now));
                if in_force && exception.condition.matches(&seen) {
                    used.insert((Arc::clone(&rule.metadata.id), Arc::clone(&exception.name)));
                }
            }
        }
    }
    used
}

fn is_group(group: &[(&'static str, Value)], wanted: &[(String, String)]) -> bool {
    wanted
        .iter()
        .all(|(field, text)| group.iter().any(|(name, value)| *name == field.as_str() && plain(value) == *text))
}

/// When the source falls silent and is back, in order.
fn silences(case: &Case) -> VecDeque<(Duration, Silence)> {
    let mut silences: Vec<(Duration, Silence)> =
        case.gaps.iter().flat_map(|(from, to)| [(*from, Silence::Began), (*to, Silence::Ended)]).collect();
    silences.sort_by_key(|(at, _)| *at);
    silences.into()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        other => other.to_string(),
    }
}

fn group_text(alert: &Alert) -> String {
    if alert.group.is_empty() {
        return "the whole host".to_owned();
    }
    alert.group.iter().map(|(field, value)| format!("{field}={value}")).collect::<Vec<_>>().join(" ")
}

fn quantity(quantity: Quantity) -> String {
    match quantity {
        Quantity::Count(count) => count.to_string(),
        Quantity::Ratio(ratio) => format!("{ratio:.3}"),
    }
}

fn limit(comparison: Comparison) -> String {
    match comparison {
        Comparison::Between(low, high) => format!("between {} and {}", quantity(low), quantity(high)),
        other => format!("{} {}", other.name(), quantity(other.limit())),
    }
}

fn word(state: ExpectedState) -> &'static str {
    match state {
        ExpectedState::Inactive => "is inactive",
        ExpectedState::Pending => "is pending",
        ExpectedState::Firing => "fires",
        ExpectedState::Resolved => "has resolved",
    }
}

fn kind(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Firing => "firing",
        DocumentKind::Updated => "updated",
        DocumentKind::Resolved => "resolved",
        _ => "withdrawn",
    }
}
