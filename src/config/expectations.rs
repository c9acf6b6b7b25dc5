//! What a backtest must give: how often each rule may fire on a recording.
//!
//! ```yaml
//! version: 1
//! expect:
//!   - {rule: exfil-cloud-storage, at_least: 1, at_most: 3}
//!   - {rule: fan-out, exactly: 0}
//! unexpected: fail     # a rule that is not named here must not fire
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::rule::RuleSet;
use crate::rule::catalogue::{
    BAD_LITERAL, BAD_TEST, MISSING_KEY, TEST_FAILED, UNKNOWN_KEY, UNKNOWN_VALUE, WRONG_SHAPE,
};
use crate::rule::diagnose::{Diagnostic, Report, Source, Span};
use crate::rule::literal;
use crate::rule::yaml::{self, Node};

/// What a backtest must give.
#[derive(Debug, Clone)]
pub struct Expectations {
    expect: Vec<Expectation>,
    /// Whether a rule that is not named may fire.
    strict: bool,
    /// The file, for reports.
    report: Report,
}

/// How often one rule must fire.
#[derive(Debug, Clone)]
struct Expectation {
    rule: Arc<str>,
    span: Span,
    least: u64,
    most: u64,
}

/// Reads a file of expectations about these rules.
///
/// # Errors
/// The report of all that is wrong with it.
pub fn parse(source: Source, rules: &RuleSet) -> Result<Expectations, Box<Report>> {
    let mut report = Report::new(vec![source]);
    let root = yaml::read(0, &mut report);
    let mut found = Expectations { expect: Vec::new(), strict: false, report: Report::default() };
    if let Some(root) = root.filter(|_| !report.has_errors()) {
        lower(&root, rules, &mut found, &mut report);
    }
    report.sort();
    if report.has_errors() {
        return Err(Box::new(report));
    }
    found.report = report;
    Ok(found)
}

impl Expectations {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.expect.len()
    }

    /// Whether nothing is expected.
    pub fn is_empty(&self) -> bool {
        self.expect.is_empty()
    }

    /// What was otherwise than expected, as a report.
    pub fn check(&self, fired: &BTreeMap<Arc<str>, u64>) -> Report {
        let mut report = self.report.clone();
        for Expectation { rule, span, least, most } in &self.expect {
            let count = fired.get(rule).copied().unwrap_or(0);
            if (*least..=*most).contains(&count) {
                continue;
            }
            let wanted = match (*least, *most) {
                (least, most) if least == most => format!("exactly {least}"),
                (0, most) => format!("at most {most}"),
                (least, u64::MAX) => format!("at least {least}"),
                (least, most) => format!("at least {least} and at most {most}"),
            };
            let message = format!("`{rule}` fired {count} times and not {wanted}");
            report.push(Diagnostic::new(&TEST_FAILED, *span, message));
        }
        let named = |rule: &Arc<str>| self.expect.iter().any(|expectation| expectation.rule == *rule);
        for (rule, count) in fired.iter().filter(|(rule, _)| self.strict && !named(rule)) {
            let message = format!("nobody expected `{rule}` to fire, and it did {count} times");
            report.push(Diagnostic::new(&TEST_FAILED, Span::default(), message));
        }
        report.sort();
        report
    }
}

fn lower(root: &Node, rules: &RuleSet, found: &mut Expectations, report: &mut Report) {
    let Some(entries) = root.entries() else {
        report.push(Diagnostic::new(&WRONG_SHAPE, root.span, "a file of expectations is a mapping with `expect`"));
        return;
    };
    for entry in entries {
        match entry.key.text.as_str() {
            "version" if entry.value.text() != Some("1") => {
                report.push(Diagnostic::new(&UNKNOWN_VALUE, entry.value.span, "expectations have version 1"));
            }
            "version" => {}
            "unexpected" => match entry.value.text() {
                Some("fail") => found.strict = true,
                Some("ignore") => {}
                other => {
                    let diagnostic = Diagnostic::new(&UNKNOWN_VALUE, entry.value.span, "it is `fail` or `ignore`");
                    report.push(diagnostic.suggest(other.unwrap_or_default(), ["fail", "ignore"]));
                }
            },
            "expect" => match entry.value.elements() {
                Some(elements) => {
                    found.expect.extend(elements.iter().filter_map(|element| expectation(element, rules, report)));
                }
                None => report.push(Diagnostic::new(&WRONG_SHAPE, entry.value.span, "`expect` is a list")),
            },
            other => {
                let diagnostic = Diagnostic::new(&UNKNOWN_KEY, entry.key.span, format!("unknown key `{other}`"));
                report.push(diagnostic.suggest(other, ["version", "expect", "unexpected"]));
            }
        }
    }
    if root.child("expect").is_none() {
        report.push(Diagnostic::new(&MISSING_KEY, root.span, "it expects nothing: `expect` is missing"));
    }
}

fn expectation(node: &Node, rules: &RuleSet, report: &mut Report) -> Option<Expectation> {
    let Some(entries) = node.entries() else {
        let message = "an expectation looks like `{rule: fan-out, exactly: 0}`";
        report.push(Diagnostic::new(&WRONG_SHAPE, node.span, message));
        return None;
    };
    let mut expectation = Expectation { rule: Arc::from(""), span: node.span, least: 0, most: u64::MAX };
    let mut bounded = false;
    for entry in entries {
        let text = entry.value.text().unwrap_or_default();
        match entry.key.text.as_str() {
            "rule" => {
                expectation.span = entry.value.span;
                match rules.rules.iter().find(|rule| *rule.metadata.id == *text) {
                    Some(rule) => expectation.rule = Arc::clone(&rule.metadata.id),
                    None => {
                        let ids = rules.rules.iter().map(|rule| &*rule.metadata.id);
                        let message = format!("there is no rule `{text}`");
                        report.push(Diagnostic::new(&BAD_TEST, entry.value.span, message).suggest(text, ids));
                    }
                }
            }
            key @ ("at_least" | "at_most" | "exactly") => match literal::integer(text) {
                Ok(count) => {
                    bounded = true;
                    if key != "at_most" {
                        expectation.least = count;
                    }
                    if key != "at_least" {
                        expectation.most = count;
                    }
                }
                Err(bad) => report.push(Diagnostic::new(&BAD_LITERAL, entry.value.span, bad.message)),
            },
            other => {
                let diagnostic = Diagnostic::new(&UNKNOWN_KEY, entry.key.span, format!("unknown key `{other}`"));
                report.push(diagnostic.suggest(other, ["rule", "at_least", "at_most", "exactly"]));
            }
        }
    }
    if node.child("rule").is_none() || !bounded {
        let message = "an expectation names a rule and how often it fires: `at_least`, `at_most` or `exactly`";
        report.push(Diagnostic::new(&MISSING_KEY, node.span, message));
    }
    if expectation.least > expectation.most {
        report.push(Diagnostic::new(&BAD_TEST, node.span, "`at_least` lies above `at_most`"));
    }
    Some(expectation)
}
