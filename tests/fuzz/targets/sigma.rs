//! Sigma rules: what comes of one compiles, or is refused with a reason.
#![no_main]

use std::collections::BTreeMap;

use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::{Report, Source};
use egret::rule::{sigma, yaml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let mut report = Report::new(vec![Source::new("sigma.yml", content)]);
    let Some(root) = yaml::read(0, &mut report).filter(|_| !report.has_errors()) else { return };
    match sigma::import(&root, &mut BTreeMap::new()) {
        sigma::Imported::Rule { yaml, .. } => {
            let compiled = compile(vec![Source::new("a.yaml", format!("rules:\n{yaml}"))], &Options::default());
            assert!(!compiled.report.has_errors(), "{yaml}{}", compiled.report);
        }
        sigma::Imported::Refused { reasons, .. } => assert!(!reasons.is_empty()),
    }
});
