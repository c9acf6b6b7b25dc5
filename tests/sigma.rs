//! Real Sigma rules: each becomes a rule that compiles, or is refused with a reason.

use std::collections::BTreeMap;

use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::{Report, Source};
use egret::rule::sigma::{Imported, import};
use egret::rule::yaml;

use crate::support::data;

#[test]
fn every_rule_compiles_or_says_why_not() {
    let Some(folder) = data::path("sigma") else { return };
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut known = BTreeMap::new();
    let (mut made, mut refused) = (0, 0);
    for path in &paths {
        let mut report = Report::new(vec![Source::new(path.display().to_string(), std::fs::read(path).unwrap())]);
        let root = yaml::read(0, &mut report).unwrap();
        assert!(!report.has_errors(), "{report}");
        match import(&root, &mut known) {
            Imported::Rule { yaml, .. } => {
                let compiled = compile(vec![Source::new("sigma.yaml", format!("rules:\n{yaml}"))], &Options::default());
                assert!(!compiled.report.has_errors(), "{}: {}\n{yaml}", path.display(), compiled.report);
                assert_eq!(compiled.rules.rules.len(), 1, "{}", path.display());
                made += 1;
            }
            Imported::Refused { reasons, .. } => {
                assert!(reasons.iter().all(|reason| reason.len() > 10) && !reasons.is_empty(), "{}", path.display());
                refused += 1;
            }
        }
    }
    assert_eq!(made + refused, 97);
    assert!(made >= 60, "{made} made, {refused} refused");
}
