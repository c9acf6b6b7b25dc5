//! Rule files: whatever is in one, it is compiled or refused with diagnostics that can be printed in every format.
#![no_main]

use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::rule::render::{Colour, Format, render, summary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let compiled = compile(vec![Source::new("fuzz.yaml", content)], &Options::default());
    if compiled.report.diagnostics.is_empty() {
        assert!(!content.trim_ascii().is_empty() && std::str::from_utf8(content).is_ok(), "accepted without a word");
        return;
    }
    for format in [Format::Full, Format::Concise, Format::Json, Format::Ndjson, Format::Github, Format::Gitlab] {
        assert!(!render(&compiled.report, format, Colour::Plain, 20).is_empty());
    }
    for format in [Format::Sarif, Format::Junit] {
        assert!(!render(&compiled.report, format, Colour::Styled, 20).is_empty());
    }
    assert!(!summary(&compiled.report).is_empty());
});
