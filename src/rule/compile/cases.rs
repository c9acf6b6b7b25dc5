//! Tests of rules, from what was written to what happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::rule::case::{Case, Event, Expectation, Expected, ExpectedState};
use crate::rule::catalogue as code;
use crate::rule::compile::Compiler;
use crate::rule::compile::keys::Keys;
use crate::rule::compile::metrics::compare;
use crate::rule::diagnose::{Diagnostic, Span};
use crate::rule::literal;
use crate::rule::schema;
use crate::rule::sheet::{self, FlowSheet};
use crate::rule::yaml::{Entry, Node, Yaml};
use crate::rule::{Comparison, Field, Severity};
use crate::time::Timestamp;

/// Things that happen in one test, at most.
const MAX_EVENTS: usize = 200_000;
const CONTROLS: &[&str] = &["at", "every", "times", "new_flows"];

/// Keys of a flow, and where each was written.
type Written = BTreeMap<String, (Vec<String>, Span)>;

impl Compiler<'_> {
    /// The tests that can be run.
    pub(super) fn cases(&mut self) -> Vec<Case> {
        let tests = self.tests.clone();
        tests.iter().filter_map(|node| self.case(node)).collect()
    }

    fn case(&mut self, node: &Node) -> Option<Case> {
        let before = self.errors();
        let keys = Keys::open(self, node, &schema::TEST)?;
        let name_node = keys.get("name")?;
        let name = self.text(name_node)?.to_owned();
        let known: Vec<String> =
            self.rules.iter().filter_map(|item| item.node.child("id")?.text().map(str::to_owned)).collect();
        let mut rules = Vec::new();
        for (id, span) in self.texts(keys.get("rules")?) {
            if known.contains(&id) {
                rules.push(Arc::from(id));
            } else {
                let found = Diagnostic::new(&code::BAD_TEST, span, format!("there is no rule `{id}`"));
                self.push(found.suggest(&id, known.iter().map(String::as_str)));
            }
        }
        let start = match keys.get("start") {
            Some(node) => match self.text(node)?.parse::<Timestamp>() {
                Ok(start) => start,
                Err(_) => {
                    let found = Diagnostic::new(
                        &code::BAD_LITERAL,
                        node.span,
                        "`start` is not a moment such as `2026-05-04T02:00:00Z`",
                    );
                    self.push(found);
                    return None;
                }
            },
            None => Timestamp::from_secs(DEFAULT_START),
        };
        let gaps = keys.get("gaps").map(|node| self.gaps(node)).unwrap_or_default();
        let base = match keys.get("base") {
            Some(node) => self.flow_keys(node),
            None => Written::new(),
        };
        let mut events = Vec::new();
        for (line, flow) in self.expect_list(keys.get("flows")?)?.iter().enumerate() {
            self.flow_events(flow, &base, line, &mut events);
        }
        events.retain(|event: &Event| !gaps.iter().any(|(from, to)| (*from..*to).contains(&event.at)));
        events.sort_by_key(|event| event.at);
        let mut expect = Vec::new();
        for element in self.expect_list(keys.get("expect")?)? {
            expect.extend(self.expectation(element, &rules));
        }
        let strict = match keys.get("unexpected") {
            Some(node) => self.word(node, &["fail", "ignore"])? == "fail",
            None => true,
        };
        (self.errors() == before).then_some(Case {
            name,
            span: name_node.span,
            rules,
            start,
            events,
            gaps,
            expect,
            strict,
        })
    }

    fn gaps(&mut self, node: &Node) -> Vec<(Duration, Duration)> {
        let mut gaps = Vec::new();
        for gap in self.expect_list(node).unwrap_or_default() {
            let (Some(from), Some(to)) = (gap.child("from"), gap.child("to")) else {
                self.push(Diagnostic::new(&code::BAD_TEST, gap.span, "a gap has `from` and `to`"));
                continue;
            };
            if let (Some(from), Some(to)) = (self.duration(from), self.duration(to)) {
                gaps.push((from, to));
            }
        }
        gaps
    }

    /// Keys and values of a flow; unknown keys are told.
    fn flow_keys(&mut self, node: &Node) -> Written {
        let mut written = Written::new();
        for entry in self.expect_mapping(node).unwrap_or_default() {
            let key = entry.key.text.as_str();
            if CONTROLS.contains(&key) {
                continue;
            }
            if Field::from_name(key).is_none() && !sheet::KEYS.contains(&key) {
                let words = Field::ALL
                    .iter()
                    .map(|field| field.name())
                    .chain(sheet::KEYS.iter().copied())
                    .chain(CONTROLS.iter().copied());
                let found = Diagnostic::new(&code::UNKNOWN_FIELD, entry.key.span, format!("a flow has no key `{key}`"))
                    .suggest(key, words);
                self.push(found);
                continue;
            }
            let values = match &entry.value.value {
                Yaml::Sequence(elements) => elements.iter().filter_map(Node::text).map(str::to_owned).collect(),
                Yaml::Scalar { text, .. } => vec![text.clone()],
                Yaml::Mapping(_) => {
                    self.wrong_shape(&entry.value, "a value");
                    continue;
                }
            };
            written.insert(key.to_owned(), (values, entry.value.span));
        }
        written
    }

    fn flow_events(&mut self, node: &Node, base: &Written, line: usize, events: &mut Vec<Event>) {
        let own = self.flow_keys(node);
        let mut written = base.clone();
        written.extend(own);
        let at = node.child("at").map_or(Some(Duration::ZERO), |node| self.duration(node));
        let every = node.child("every").map_or(Some(Duration::ZERO), |node| self.duration(node));
        let times = node.child("times").map_or(Some(1), |node| self.literal(node, literal::integer));
        let new_flows = node.child("new_flows").is_some_and(|node| self.boolean(node).unwrap_or(false));
        let (Some(at), Some(every), Some(times)) = (at, every, times) else { return };
        if usize::try_from(times).map_or(true, |times| events.len().saturating_add(times) > MAX_EVENTS) {
            self.push(Diagnostic::new(
                &code::BAD_TEST,
                node.span,
                format!("more than {MAX_EVENTS} things happen in one test"),
            ));
            return;
        }
        let numbered = written.values().any(|(values, _)| values.iter().any(|value| value.contains(NUMBER)));
        let named_end = written.contains_key("src") || written.contains_key("src.port");
        let mut sheet: Option<Arc<FlowSheet>> = None;
        for number in 0..times {
            let fresh = match &sheet {
                Some(known) if !numbered && !new_flows => Arc::clone(known),
                _ => {
                    let entries = written
                        .iter()
                        .map(|(key, (values, _))| {
                            let values = values.iter().map(|value| numbered_text(value, number)).collect();
                            (key.clone(), values)
                        })
                        .collect();
                    let mut flow = match FlowSheet::read(&entries) {
                        Ok(flow) => flow,
                        Err(bad) => {
                            let span = written.get(&bad.key).map_or(node.span, |(_, span)| *span);
                            self.push(Diagnostic::new(
                                &code::BAD_TEST,
                                span,
                                format!("`{}`: {}", bad.key, bad.message),
                            ));
                            return;
                        }
                    };
                    if !named_end {
                        // Each line is a flow of its own, and so is each new one.
                        let step = if new_flows { number } else { 0 };
                        let port = (line as u64).wrapping_mul(977).wrapping_add(step) % 25_000;
                        flow.key.local.port = u16::try_from(40_000 + port).unwrap_or(40_000);
                    }
                    Arc::new(flow)
                }
            };
            sheet = Some(Arc::clone(&fresh));
            let offset = every.checked_mul(u32::try_from(number).unwrap_or(u32::MAX)).unwrap_or(Duration::MAX);
            events.push(Event { at: at.saturating_add(offset), flow: fresh });
        }
    }

    fn expectation(&mut self, node: &Node, rules: &[Arc<str>]) -> Option<Expectation> {
        for entry in self.expect_mapping(node)? {
            if !EXPECTED.contains(&entry.key.text.as_str()) {
                let found = Diagnostic::new(
                    &code::UNKNOWN_KEY,
                    entry.key.span,
                    format!("an expectation has no key `{}`", entry.key.text),
                );
                self.push(found.suggest(&entry.key.text, EXPECTED.iter().copied()));
                return None;
            }
        }
        let span = node.entries().and_then(<[Entry]>::first).map_or(node.span, |entry| entry.key.span);
        let rule = match node.child("rule") {
            Some(node) => {
                let id = self.text(node)?.to_owned();
                if !rules.iter().any(|rule| **rule == *id) {
                    let found = Diagnostic::new(
                        &code::BAD_TEST,
                        node.span,
                        format!("`{id}` is not among the rules of this test"),
                    );
                    self.push(found.suggest(&id, rules.iter().map(|rule| &**rule)));
                }
                Some(Arc::from(id))
            }
            None => None,
        };
        let what = if let Some(never) = node.child("never") {
            self.word(never, &["firing"])?;
            Expected::NeverFiring
        } else if let Some(node) = node.child("notifications") {
            self.expect_mapping(node)?;
            Expected::Notifications {
                to: node.child("to").and_then(|node| self.text(node)).map(str::to_owned),
                count: match node.child("count") {
                    Some(node) => Some(usize::try_from(self.literal(node, literal::integer)?).unwrap_or(usize::MAX)),
                    None => None,
                },
                kinds: node
                    .child("kinds")
                    .map(|node| self.texts(node))
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(kind, _)| kind)
                    .collect(),
            }
        } else {
            self.expected_state(node, span)?
        };
        Some(Expectation { span, rule, what })
    }

    fn expected_state(&mut self, node: &Node, span: Span) -> Option<Expected> {
        let Some(at) = node.child("at") else {
            self.push(Diagnostic::new(&code::BAD_TEST, span, "an expectation needs `at`, `never` or `notifications`"));
            return None;
        };
        let at = self.duration(at)?;
        let state = match node.child("state") {
            Some(node) => match self.word(node, &["inactive", "pending", "firing", "resolved"])? {
                "pending" => ExpectedState::Pending,
                "firing" => ExpectedState::Firing,
                "resolved" => ExpectedState::Resolved,
                _ => ExpectedState::Inactive,
            },
            None => ExpectedState::Firing,
        };
        let group = match node.child("group") {
            Some(node) => {
                let mut group = Vec::new();
                for entry in self.expect_mapping(node)? {
                    self.field(&entry.key.text, entry.key.span)?;
                    group.push((entry.key.text.clone(), self.text(&entry.value)?.to_owned()));
                }
                group
            }
            None => Vec::new(),
        };
        let severity = match node.child("severity") {
            Some(node) => {
                let word = self.word(node, schema::SEVERITIES)?;
                Severity::ALL.into_iter().find(|severity| severity.name() == word)
            }
            None => None,
        };
        let mut values = Vec::new();
        for entry in node.child("values").map(|node| self.expect_mapping(node)).unwrap_or(Some(&[]))? {
            values.extend(self.expected_value(entry)?);
        }
        let summary = match node.child("summary") {
            Some(node) => match node.child("contains") {
                Some(node) => self.texts(node).into_iter().map(|(text, _)| text).collect(),
                None => vec![self.text(node)?.to_owned()],
            },
            None => Vec::new(),
        };
        Some(Expected::State { at, state, group, severity, values, summary })
    }

    fn expected_value(&mut self, entry: &Entry) -> Option<Vec<(String, Comparison)>> {
        let metric = self.metric(&entry.key.text, entry.key.span)?;
        let read = metric.unit().read();
        let Yaml::Mapping(comparisons) = &entry.value.value else {
            let value = self.literal(&entry.value, read)?;
            return Some(vec![(metric.to_string(), Comparison::Equal(value))]);
        };
        let mut values = Vec::new();
        for comparison in comparisons {
            let limit = match comparison.key.text.as_str() {
                "between" => {
                    let [low, high] = self.expect_list(&comparison.value)? else {
                        self.wrong_shape(&comparison.value, "two values (`[low, high]`)");
                        return None;
                    };
                    Comparison::Between(self.literal(low, read)?, self.literal(high, read)?)
                }
                operator @ ("lt" | "lte" | "gt" | "gte" | "eq" | "ne") => {
                    compare(operator, self.literal(&comparison.value, read)?)
                }
                other => {
                    let found = Diagnostic::new(
                        &code::UNKNOWN_OPERATOR,
                        comparison.key.span,
                        format!("values cannot be compared by `{other}`"),
                    );
                    self.push(found.suggest(other, ["lt", "lte", "gt", "gte", "eq", "ne", "between"]));
                    return None;
                }
            };
            values.push((metric.to_string(), limit));
        }
        Some(values)
    }
}

/// `{n}` is the number of the repetition, from 0; `{n+1}` counts from 1.
fn numbered_text(text: &str, number: u64) -> String {
    if !text.contains(NUMBER) {
        return text.to_owned();
    }
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(NUMBER) {
        result.push_str(before);
        match after.split_once('}') {
            Some((offset, tail)) => {
                let offset: u64 = offset.trim_start_matches('+').parse().unwrap_or(0);
                result.push_str(&(number + offset).to_string());
                rest = tail;
            }
            None => {
                result.push_str(NUMBER);
                rest = after;
            }
        }
    }
    result.push_str(rest);
    result
}

const NUMBER: &str = "{n";
const EXPECTED: &[&str] = &["at", "state", "group", "severity", "values", "summary", "never", "notifications", "rule"];
/// A Monday, 10:00 UTC.
const DEFAULT_START: i64 = 1_777_888_800;
