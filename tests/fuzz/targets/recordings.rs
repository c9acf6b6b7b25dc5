//! Recordings of flows: what is in one is taken by an engine or refused.
#![no_main]

use std::io::Write;
use std::sync::{Arc, LazyLock};

use egret::config::shipped;
use egret::engine::{Engine, Settings};
use egret::rule::RuleSet;
use egret::rule::compile::{Options, compile};
use egret::runtime::recording::{DeltaCounts, DeltaReader, RecordingError};
use indicatif::ProgressBar;
use libfuzzer_sys::fuzz_target;

static RULES: LazyLock<Arc<RuleSet>> =
    LazyLock::new(|| Arc::new(compile(shipped::sources(), &Options::default()).rules));

fuzz_target!(|content: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("room for a file");
    file.write_all(content).expect("room for a file");
    let Ok(mut reader) = DeltaReader::open(file.path(), &ProgressBar::hidden()) else { return };
    let mut engine = Engine::new(Settings::for_deltas(), Arc::clone(&RULES));
    let mut counts = DeltaCounts::default();
    // A line that is wrong ends the recording, and what came before counts.
    let _ = reader.feed(&mut engine, &mut counts, &mut |_| Ok::<(), RecordingError>(()));
    engine.finish();
    while engine.poll_output().is_some() {}
    assert!(engine.statistics().bytes <= counts.bytes, "what was read is booked once");
});
