//! Why a rule looks at a flow or does not: its match block with a verdict at every line.
//!
//! The verdict of each test is that of the compiled condition; only `all`,
//! `any` and `not` are put together here, as the rule language puts them.

use crate::rule::compile::Compiled;
use crate::rule::yaml::{Entry, Node, Yaml};
use crate::rule::{Field, Observation, Rule, Value};
use crate::time::Timestamp;

/// A line of a match block and what came of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Line {
    /// The line as it was written, on one line.
    pub text: String,
    /// Whether it holds.
    pub holds: bool,
    /// The flow's value, for a test of a field; none where the flow has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Whether it is a test of a field, so that a value that is absent means a field that is.
    #[serde(skip)]
    pub is_test: bool,
    /// The parts that it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Line>,
}

/// What a rule makes of a flow.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Explanation {
    /// The match block.
    pub condition: Line,
    /// Each exception.
    pub exceptions: Vec<ExceptionLine>,
    /// Whether the rule is in force at that moment.
    pub in_force: bool,
    /// Whether the flow counts for the rule: it matches, and no exception hides it.
    pub counts: bool,
    /// The group that it counts for.
    pub group: Vec<(&'static str, Value)>,
}

/// An exception and what came of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ExceptionLine {
    /// Its name.
    pub name: String,
    /// Whether its condition holds.
    pub holds: bool,
    /// Why it does not apply although its condition holds: its time, or its date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<&'static str>,
    /// Whether it stops hiding above a budget.
    pub has_budget: bool,
}

/// Explains what a rule makes of a flow; `None` where there is no such rule, or it does not run.
/// The parts of conditions must have been kept when the rules were compiled.
pub fn explain(compiled: &Compiled, id: &str, seen: &Observation<'_>) -> Option<Explanation> {
    let rule = compiled.rules.rules.iter().find(|rule| *rule.metadata.id == *id)?;
    let written = compiled.written.get(id)?.node.child("match")?;
    let condition = block(compiled, written, seen, 0);
    let exceptions: Vec<ExceptionLine> = exceptions(rule, seen, seen.now);
    let hidden = exceptions.iter().any(|exception| exception.holds && exception.idle.is_none());
    let group = rule.group_by.iter().map(|field| (field.name(), field.value(seen))).collect();
    let counts = condition.holds && !hidden;
    Some(Explanation { condition, exceptions, in_force: rule.active.contains(seen.now), counts, group })
}

fn exceptions(rule: &Rule, seen: &Observation<'_>, now: Timestamp) -> Vec<ExceptionLine> {
    let line = |exception: &crate::rule::Exception| ExceptionLine {
        name: exception.name.to_string(),
        holds: exception.condition.matches(seen),
        idle: match () {
            () if exception.expires.is_some_and(|expires| now >= expires) => Some("it has expired"),
            () if exception.during.as_ref().is_some_and(|schedule| !schedule.contains(now)) => {
                Some("it is not the time of its schedule")
            }
            () => None,
        },
        has_budget: exception.budget.is_some(),
    };
    rule.exceptions.iter().map(|exception| line(exception)).collect()
}

/// A match block: a mapping, or the name of a macro.
fn block(compiled: &Compiled, node: &Node, seen: &Observation<'_>, depth: usize) -> Line {
    if let Some(name) = node.text().and_then(|text| text.strip_prefix('$')) {
        // The compiler has refused macros that contain themselves.
        let inner = compiled.macros.get(name).filter(|_| depth < MAX_DEPTH);
        let inner = inner.map(|inner| block(compiled, inner, seen, depth + 1));
        let holds = inner.as_ref().is_some_and(|inner| inner.holds);
        return Line { parts: inner.map_or_else(Vec::new, Line::unwrapped), ..Line::new(format!("${name}"), holds) };
    }
    let mut parts: Vec<Line> =
        node.entries().unwrap_or_default().iter().map(|entry| line(compiled, entry, seen, depth)).collect();
    match parts.len() {
        1 => parts.remove(0),
        _ => {
            let holds = parts.iter().all(|part| part.holds);
            Line { parts, ..Line::new("all".to_owned(), holds) }
        }
    }
}

fn line(compiled: &Compiled, entry: &Entry, seen: &Observation<'_>, depth: usize) -> Line {
    let key = entry.key.text.as_str();
    match key {
        "all" | "any" => {
            let elements = entry.value.elements().unwrap_or_default();
            let parts: Vec<Line> = elements.iter().map(|element| block(compiled, element, seen, depth + 1)).collect();
            let holds = match key {
                "all" => parts.iter().all(|part| part.holds),
                _ => parts.iter().any(|part| part.holds),
            };
            Line { parts, ..Line::new(key.to_owned(), holds) }
        }
        "not" => {
            let inner = block(compiled, &entry.value, seen, depth + 1);
            let holds = !inner.holds;
            Line { parts: vec![inner], ..Line::new("not".to_owned(), holds) }
        }
        _ => {
            let condition = compiled.parts.get(&(entry.key.span.source, entry.key.span.start));
            let holds = condition.is_some_and(|condition| condition.matches(seen));
            let value = Field::from_name(key).map(|field| field.value(seen)).filter(|value| *value != Value::Missing);
            let text = format!("{key}: {}", flow_style(&entry.value));
            Line { value, is_test: true, ..Line::new(text, holds) }
        }
    }
}

impl Line {
    fn new(text: String, holds: bool) -> Self {
        Self { text, holds, value: None, is_test: false, parts: Vec::new() }
    }

    /// The parts of an `all` that the reader need not see.
    fn unwrapped(self) -> Vec<Self> {
        if self.text == "all" { self.parts } else { vec![self] }
    }
}

/// A value on one line; a long list is cut.
fn flow_style(node: &Node) -> String {
    match &node.value {
        Yaml::Scalar { text, plain: true } => text.clone(),
        Yaml::Scalar { text, .. } => crate::rule::yaml::quoted(text),
        Yaml::Sequence(elements) => {
            let mut shown: Vec<String> = elements.iter().take(MAX_SHOWN).map(flow_style).collect();
            if elements.len() > MAX_SHOWN {
                shown.push(format!("... {} more", elements.len() - MAX_SHOWN));
            }
            format!("[{}]", shown.join(", "))
        }
        Yaml::Mapping(entries) => {
            let shown: Vec<String> =
                entries.iter().map(|entry| format!("{}: {}", entry.key.text, flow_style(&entry.value))).collect();
            format!("{{{}}}", shown.join(", "))
        }
    }
}

/// Macros within macros, at most.
const MAX_DEPTH: usize = 64;
/// Elements of a list that are shown.
const MAX_SHOWN: usize = 8;
