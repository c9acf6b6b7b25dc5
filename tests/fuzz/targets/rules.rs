//! Rule files: whatever is in one, it is read or refused with diagnostics that can be printed.
#![no_main]

use egret::rule::diagnose::{Report, Source};
use egret::rule::yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let mut report = Report::new(vec![Source::new("fuzz.yaml", content)]);
    let root = yaml::read(0, &mut report);
    assert!(root.is_some() || !report.diagnostics.is_empty(), "refused without a word");
});
