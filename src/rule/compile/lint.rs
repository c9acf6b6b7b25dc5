//! What is not wrong and still not good.

use std::collections::{BTreeMap, BTreeSet};

use crate::rule::catalogue as code;
use crate::rule::compile::Compiler;
use crate::rule::compile::metrics::is_unbounded;
use crate::rule::compile::scope::{contradiction, is_small};
use crate::rule::diagnose::{Diagnostic, Span};
use crate::rule::yaml::{Node, Yaml};
use crate::rule::{Clause, Condition, Exception, Field, Metric, Pattern, Rule, Sum, Trigger};

impl Compiler<'_> {
    pub(super) fn lint(&mut self) {
        self.lint_names();
        let tested: BTreeSet<String> = self
            .tests
            .iter()
            .filter_map(|test| test.child("rules"))
            .flat_map(|rules| match &rules.value {
                Yaml::Sequence(elements) => elements.iter().filter_map(Node::text).map(str::to_owned).collect(),
                _ => rules.text().map(str::to_owned).into_iter().collect::<Vec<_>>(),
            })
            .collect();
        let mut found = Vec::new();
        for lowered in &self.lowered {
            let Some(rule) = &lowered.rule else { continue };
            let mut say = |diagnostic: Diagnostic| {
                found.push(Diagnostic { rule: Some(lowered.id.clone()), ..diagnostic });
            };
            if !tested.contains(&*lowered.id) {
                say(Diagnostic::new(&code::NO_TEST, lowered.span, format!("no test names `{}`", lowered.id)));
            }
            if rule.metadata.owner.is_none() {
                say(Diagnostic::new(&code::NO_OWNER, lowered.span, format!("nobody looks after `{}`", lowered.id))
                    .help("add `owner`"));
            }
            if rule.metadata.note.is_none() && rule.metadata.references.is_empty() {
                let found = Diagnostic::new(
                    &code::NO_RUNBOOK,
                    lowered.span,
                    format!("`{}` does not say what to do when it fires", lowered.id),
                );
                say(found.help("add `note` or `references`"));
            }
            for diagnostic in lint_rule(rule, &lowered.node, lowered.span) {
                say(diagnostic);
            }
            let places = self.exception_places.get(&lowered.id).map(Vec::as_slice).unwrap_or_default();
            for diagnostic in lint_exceptions(rule, places) {
                say(diagnostic);
            }
            for diagnostic in lint_missing(rule, &self.options.missing, &lowered.node, lowered.span) {
                say(diagnostic);
            }
        }
        self.report.diagnostics.extend(found);
    }

    fn lint_names(&mut self) {
        let mut found = Vec::new();
        let unused = |noun: &str, name: &str, used: &std::collections::HashSet<String>| {
            !used.contains(&format!("{noun} {name}"))
        };
        for (noun, table, code) in [
            ("list", &self.lists, &code::UNUSED_LIST),
            ("macro", &self.macros, &code::UNUSED_MACRO),
            ("schedule", &self.schedules, &code::UNUSED_SCHEDULE),
        ] {
            for (name, definition) in table {
                if !definition.builtin && unused(noun, name, &self.used) {
                    found.push(Diagnostic::new(code, definition.span, format!("no rule uses the {noun} `{name}`")));
                }
            }
        }
        self.report.diagnostics.extend(found);
    }
}

fn lint_rule(rule: &Rule, node: &Node, span: Span) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let place = |key: &str| node.entry(key).map_or(span, |entry| entry.key.span);
    if let Trigger::When(when) = &rule.trigger {
        let exfiltration = rule.metadata.tags.iter().any(|tag| tag.contains("exfil"))
            || rule.metadata.attack.iter().any(|id| {
                crate::rule::technique::find(id).is_some_and(|technique| technique.tactics.contains("exfiltration"))
            });
        let mut metrics = Vec::new();
        collect_metrics(&when.all, &mut metrics);
        if exfiltration
            && metrics.iter().any(|metric| matches!(metric, Metric::Sum(Sum::BytesTotal | Sum::PayloadTotal)))
        {
            let diagnostic = Diagnostic::new(
                &code::TOTAL_IN_EXFILTRATION,
                place("when"),
                "a rule about exfiltration counts downloads as well",
            );
            found.push(diagnostic.help("count `bytes_out` or `payload_out`"));
        }
        if when.window.as_secs() <= 1 {
            found.push(Diagnostic::new(
                &code::SHORT_WINDOW,
                place("window"),
                "the window is not longer than one bucket",
            ));
        }
    }
    let unbounded: Vec<&str> =
        rule.group_by.iter().filter(|field| is_unbounded(**field)).map(|field| field.name()).collect();
    if !unbounded.is_empty() && !matches!(rule.trigger, Trigger::Each) {
        let message = format!("every new flow makes a group of its own: {}", unbounded.join(", "));
        found.push(Diagnostic::new(&code::UNBOUNDED_GROUP, place("group_by"), message));
    }
    let mut negative = BTreeSet::new();
    let mut asked = BTreeSet::new();
    negative_tests(&rule.condition, false, &mut negative, &mut asked);
    for field in negative.difference(&asked).filter(|field| may_be_missing(**field)) {
        let message = format!("the negative test of `{field}` also holds for flows without a `{field}`");
        found.push(
            Diagnostic::new(&code::NEGATIVE_ON_MISSING, place("match"), message)
                .help(format!("add `{field}: {{exists: true}}` if that is not meant")),
        );
    }
    found
}

/// Exceptions that never apply.
fn lint_exceptions(rule: &Rule, places: &[Span]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut before: Vec<(&Exception, Vec<BTreeSet<String>>)> = Vec::new();
    for (exception, place) in rule.exceptions.iter().zip(places) {
        let shadowed = |why: String| Diagnostic::new(&code::SHADOWED_EXCEPTION, *place, why);
        let both = Condition::All(vec![rule.condition.clone(), exception.condition.clone()]);
        if contradiction(&both).is_some() && contradiction(&rule.condition).is_none() {
            let why = format!("the exception `{}` never applies: the rule does not look at such flows", exception.name);
            found.push(shadowed(why));
            continue;
        }
        let Some(cases) = cases(&exception.condition) else { continue };
        let wider =
            before.iter().find(|(_, wider)| cases.iter().all(|case| wider.iter().any(|wider| wider.is_subset(case))));
        if let Some((wider, _)) = wider {
            let why =
                format!("the exception `{}` never applies: `{}` lets the same flows pass", exception.name, wider.name);
            found.push(shadowed(why).help("remove it, or make the other one narrower"));
        } else if exception.during.is_none() && exception.budget.is_none() && exception.expires.is_none() {
            before.push((exception, cases));
        }
    }
    found
}

/// A condition as alternatives, each a set of tests that must all hold; `None` where it is more than that.
fn cases(condition: &Condition) -> Option<Vec<BTreeSet<String>>> {
    match condition {
        Condition::Any(parts) if (1..=MAX_CASES).contains(&parts.len()) => parts.iter().map(tests_of).collect(),
        other => tests_of(other).map(|tests| vec![tests]),
    }
}

fn tests_of(condition: &Condition) -> Option<BTreeSet<String>> {
    match condition {
        Condition::Shared(part) => tests_of(part),
        Condition::All(parts) => {
            let tests: Option<Vec<BTreeSet<String>>> = parts.iter().map(tests_of).collect();
            Some(tests?.into_iter().flatten().collect())
        }
        Condition::Test(test) if is_small(test) => Some(BTreeSet::from([format!("{test:?}")])),
        _ => None,
    }
}

/// Fields that nothing on this host sets.
fn lint_missing(rule: &Rule, missing: &BTreeMap<Field, String>, node: &Node, span: Span) -> Vec<Diagnostic> {
    if missing.is_empty() {
        return Vec::new();
    }
    let place = |key: &str| node.entry(key).map_or(span, |entry| entry.key.span);
    let say = |field: Field, key: &str, what: &str| {
        let needs = missing.get(&field)?;
        let found =
            Diagnostic::new(&code::FIELD_NOT_SET, place(key), format!("nothing on this host sets `{field}`: {what}"));
        Some(found.help(format!("it needs {needs}")))
    };
    let of_groups = rule.group_by.iter().filter_map(|field| say(*field, "group_by", "every group has none"));
    let (mut negative, mut asked) = (BTreeSet::new(), BTreeSet::new());
    negative_tests(&rule.condition, false, &mut negative, &mut asked);
    let of_tests = asked.iter().filter_map(|field| say(*field, "match", "a positive test of it never holds"));
    of_groups.chain(of_tests.collect::<Vec<_>>()).collect()
}

fn collect_metrics<'a>(clauses: &'a [Clause], metrics: &mut Vec<&'a Metric>) {
    for clause in clauses {
        match clause {
            Clause::Threshold(threshold) => metrics.push(&threshold.metric),
            Clause::Spike(spike) => metrics.push(&spike.metric),
            Clause::Any(parts) | Clause::All(parts) => collect_metrics(parts, metrics),
        }
    }
}

/// Fields that are tested below a `not`, and fields that must have a value anyway.
fn negative_tests(condition: &Condition, negated: bool, negative: &mut BTreeSet<Field>, asked: &mut BTreeSet<Field>) {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => {
            parts.iter().for_each(|part| negative_tests(part, negated, negative, asked));
        }
        Condition::Not(part) => negative_tests(part, !negated, negative, asked),
        Condition::Shared(part) => negative_tests(part, negated, negative, asked),
        Condition::Test(test) => match test.pattern {
            Pattern::Exists => {
                asked.insert(test.field);
            }
            _ if negated => {
                negative.insert(test.field);
            }
            _ => {
                asked.insert(test.field);
            }
        },
    }
}

fn may_be_missing(field: Field) -> bool {
    !matches!(
        field,
        Field::DstIp
            | Field::DstPort
            | Field::SrcIp
            | Field::SrcPort
            | Field::DstScope
            | Field::DstDomainSource
            | Field::Direction
            | Field::Proto
            | Field::L7
            | Field::Attribution
            | Field::Evidence
            | Field::Host
            | Field::FlowState
    )
}

/// Alternatives of an exception that are compared with those of others.
const MAX_CASES: usize = 64;
