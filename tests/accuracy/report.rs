//! The judgement of each cell, and the tables beside the published ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use super::Reference;
use super::scenario::{SCENARIOS, Scenario, Way};
use super::tool::{Seen, Usage};

/// One scenario under one tool in one trial.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// The bytes were given to the right executable: more than half of them, each way.
    pub detected: bool,
    /// And within a tenth of the reference, on each layer that the tool counts.
    pub bandwidth: bool,
    pub expected: Usage,
    pub seen: Seen,
}

/// What one trial said of each tool.
#[derive(Debug, Default)]
pub struct Trial {
    pub cells: BTreeMap<&'static str, BTreeMap<&'static str, Cell>>,
    pub wrong: BTreeMap<&'static str, Usage>,
}

/// All trials.
#[derive(Debug, Default)]
pub struct Report {
    pub tools: BTreeMap<&'static str, BTreeMap<&'static str, Vec<Cell>>>,
    pub wrong: BTreeMap<&'static str, Vec<Usage>>,
}

impl Cell {
    /// Holds what a tool saw against the references.
    pub fn judge(scenario: &Scenario, reference: &Reference, seen: Seen) -> Self {
        let ways = |usage: Usage| match scenario.way {
            Way::Out => vec![usage.out],
            Way::In => vec![usage.into],
            Way::Both => vec![usage.out, usage.into],
        };
        let share = |found: Usage, expected: Usage| -> Vec<f64> {
            ways(found).iter().zip(ways(expected)).map(|(found, expected)| *found as f64 / expected as f64).collect()
        };
        let detected = share(seen.payload.unwrap_or(seen.wire), reference.payload).iter().all(|share| *share > 0.5);
        let near = |shares: Vec<f64>| shares.iter().all(|share| (0.9..=1.1).contains(share));
        // Segmentation offload hides headers from the reference, never from the wire.
        let wire = near(share(seen.wire, reference.wire));
        let bandwidth = match seen.payload {
            Some(payload) => near(share(payload, reference.payload)) && wire,
            None => wire || near(share(seen.wire, reference.payload)),
        };
        Self { detected, bandwidth: detected && bandwidth, expected: reference.payload, seen }
    }
}

impl Report {
    /// Adds a trial.
    pub fn add(&mut self, trial: Trial) {
        for (tool, cells) in trial.cells {
            for (scenario, cell) in cells {
                self.tools.entry(tool).or_default().entry(scenario).or_default().push(cell);
            }
        }
        for (tool, usage) in trial.wrong {
            self.wrong.entry(tool).or_default().push(usage);
        }
    }

    /// How many scenarios a tool passed in every trial: detection, bandwidth, and of how many.
    pub fn score(&self, tool: &str) -> (usize, usize, usize) {
        let Some(scenarios) = self.tools.get(tool) else { return (0, 0, 0) };
        let passed = |judge: fn(&Cell) -> bool| scenarios.values().filter(|cells| cells.iter().all(judge)).count();
        (passed(|cell| cell.detected), passed(|cell| cell.bandwidth), scenarios.len())
    }

    /// The tables for people.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| # | scenario |");
        for tool in self.tools.keys() {
            let _ = write!(text, " {tool} |");
        }
        text.push_str("\n| --- | --- |");
        text.push_str(&" --- |".repeat(self.tools.len()));
        for scenario in SCENARIOS {
            let _ = write!(text, "\n| {} | {} |", scenario.id, scenario.title);
            for scenarios in self.tools.values() {
                match scenarios.get(scenario.id) {
                    None => text.push_str(" not run |"),
                    Some(cells) => {
                        let _ = write!(text, " {} |", describe(scenario, cells));
                    }
                }
            }
        }
        text.push_str("\n\n| tool | detection | bandwidth | of | from |\n| --- | --- | --- | --- | --- |\n");
        for tool in self.tools.keys() {
            let (detection, bandwidth, of) = self.score(tool);
            let _ = writeln!(text, "| {tool} | {detection} | {bandwidth} | {of} | this run |");
        }
        for (tool, detection, bandwidth) in PUBLISHED {
            let bandwidth = bandwidth.map_or_else(|| "none".to_owned(), |number| number.to_string());
            let _ = writeln!(text, "| {tool} | {detection} | {bandwidth} | 24 | published |");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> String {
        let usage = |usage: Usage| json!({ "out": usage.out, "in": usage.into });
        let cell = |cell: &Cell| {
            json!({
                "detected": cell.detected,
                "bandwidth": cell.bandwidth,
                "expected_payload": usage(cell.expected),
                "payload": cell.seen.payload.map(usage),
                "bytes": usage(cell.seen.wire),
            })
        };
        let tools: BTreeMap<_, _> = self
            .tools
            .iter()
            .map(|(tool, scenarios)| {
                let (detection, bandwidth, of) = self.score(tool);
                let cells: BTreeMap<_, Vec<_>> =
                    scenarios.iter().map(|(id, cells)| (id, cells.iter().map(cell).collect())).collect();
                let wrong: Vec<_> = self.wrong.get(tool).into_iter().flatten().copied().map(usage).collect();
                let summary = json!({ "detection": detection, "bandwidth": bandwidth, "of": of, "wrong": wrong,
                    "scenarios": cells });
                (tool, summary)
            })
            .collect();
        let published: BTreeMap<_, _> = PUBLISHED
            .iter()
            .map(|(tool, detection, bandwidth)| (tool, json!({ "detection": detection, "bandwidth": bandwidth })))
            .collect();
        format!("{:#}\n", json!({ "measured": tools, "published": published }))
    }
}

/// `yes`, or how many of the trials, and the median share of the bytes.
fn describe(scenario: &Scenario, cells: &[Cell]) -> String {
    let mut shares: Vec<f64> = cells
        .iter()
        .map(|cell| {
            let seen = cell.seen.payload.unwrap_or(cell.seen.wire);
            let (seen, expected) = match scenario.way {
                Way::Out => (seen.out, cell.expected.out),
                Way::In => (seen.into, cell.expected.into),
                Way::Both => (seen.out + seen.into, cell.expected.out + cell.expected.into),
            };
            100.0 * seen as f64 / expected as f64
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    let median = shares.get(shares.len() / 2).copied().unwrap_or_default();
    let all = cells.len();
    let verdict = |passed: usize| match passed {
        0 => "no".to_owned(),
        passed if passed == all => "yes".to_owned(),
        passed => format!("{passed}/{all}"),
    };
    let detected = verdict(cells.iter().filter(|cell| cell.detected).count());
    let bandwidth = verdict(cells.iter().filter(|cell| cell.bandwidth).count());
    format!("{detected} / {bandwidth}, {median:.1} %")
}

/// Best published results: detection and bandwidth of 24.
const PUBLISHED: &[(&str, u32, Option<u32>)] = &[
    ("Sysdig", 24, Some(19)),
    ("picosnitch", 23, Some(23)),
    ("Little Snitch", 19, Some(16)),
    ("OpenSnitch", 19, None),
    ("bandwhich", 15, Some(16)),
    ("Sniffnet", 13, Some(18)),
    ("NetHogs", 11, Some(17)),
];
