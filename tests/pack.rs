//! The rules that ship: they load, and each says what its reader needs.

use std::fmt::Write as _;

use egret::config::shipped;
use egret::rule::compile::{Compiled, Options, compile};
use egret::rule::yaml::Node;

#[test]
fn the_pack_loads_without_a_finding() {
    let Compiled { report, rules, .. } = pack();
    let mut found = String::new();
    for diagnostic in &report.diagnostics {
        let source = &report.sources[diagnostic.span.source as usize];
        let _ = writeln!(found, "{}:{}: {}", source.path, diagnostic.span.line, diagnostic.message);
    }
    assert!(found.is_empty(), "{found}");
    assert!(rules.rules.len() >= 25, "only {} rules", rules.rules.len());
}

#[test]
fn every_rule_says_what_its_reader_needs() {
    for (id, rule) in pack().written {
        let text = |key: &str| rule.node.child(key).and_then(Node::text).map(str::len).unwrap_or_default();
        assert!(text("title") > 10, "{id} has no title");
        assert!(text("description") > 40, "{id} has no description");
        assert!(text("note") > 20, "{id} does not say what to do");
        assert!(text("severity") > 0 && text("confidence") > 0, "{id} does not say how bad or how sure it is");
        for key in ["falsepositives", "tags", "exceptions"] {
            let elements = rule.node.child(key).and_then(Node::elements).unwrap_or_default();
            assert!(!elements.is_empty(), "{id} has no {key}");
        }
        let is_policy = rule
            .node
            .child("tags")
            .and_then(Node::elements)
            .unwrap_or_default()
            .iter()
            .any(|tag| tag.text() == Some("bandwidth"));
        let techniques = rule.node.child("attack").and_then(Node::elements).unwrap_or_default();
        assert!(is_policy || !techniques.is_empty(), "{id} names no technique");
    }
}

fn pack() -> Compiled {
    compile(shipped::sources(), &Options::default())
}
