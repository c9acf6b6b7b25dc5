//! The library in one page: a capture goes in, its alerts come out.
//!
//! ```text
//! cargo run --example alerts_of_a_capture -- examples/upload.pcapng examples/first-rule.yaml
//! ```
//!
//! The engine takes packets and gives outputs; it reads no file and no clock.
//! What `egret run` does with live traffic is the same, with packets from an
//! interface and owners from the kernel.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use egret::attribution::Attribution;
use egret::attribution::Evidence;
use egret::capture::offline::Reader;
use egret::engine::{Engine, Output, Settings};
use egret::packet::{Fragments, decode};
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let capture = arguments.next().unwrap_or_else(|| "examples/upload.pcapng".into());
    let rules = arguments.next().unwrap_or_else(|| "examples/first-rule.yaml".into());

    let source = Source::new(rules.as_str(), std::fs::read(&rules)?);
    let rules = compile(vec![source], &Options::default()).into_result().map_err(|_| "the rules are wrong")?;
    let mut engine = Engine::new(Settings::default(), Arc::new(rules));

    let mut reader = Reader::open(Path::new(&capture))?;
    let mut fragments = Fragments::default();
    while let Some(batch) = reader.next_batch() {
        for record in batch {
            // Frames without IP are no error here; `egret flows` counts them.
            let Ok(packet) = decode(&record.frame, &mut fragments) else { continue };
            match record.owner {
                Some(process) => {
                    let owner = Attribution::Known { process, evidence: Evidence::Capture };
                    engine.handle_owned_packet(&packet, &owner);
                }
                None => engine.handle_packet(&packet),
            }
            print_alerts(&mut engine)?;
        }
    }
    engine.finish();
    print_alerts(&mut engine)
}

/// Handle, then drain: after every input the outputs are taken.
fn print_alerts(engine: &mut Engine) -> Result<(), Box<dyn std::error::Error>> {
    while let Some(output) = engine.poll_output() {
        let Output::Notification(notification) = output else { continue };
        if let Some(alert) = &notification.alert {
            writeln!(std::io::stdout(), "{} {:?} {}", notification.timestamp, notification.kind, alert.summary)?;
        }
    }
    Ok(())
}
