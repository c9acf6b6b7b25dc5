//! The techniques that rules look for, as a layer of the ATT&CK Navigator.
//!
//! The format is layer 4.5 as the Navigator's own documentation states it:
//! one entry for each technique and tactic, scored by the most severe rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::rule::{Rule, Severity, technique};

/// The version of the layer format.
const LAYER_VERSION: &str = "4.5";

/// The layer of these rules.
pub fn layer(name: &str, rules: &[Arc<Rule>]) -> Json {
    let mut by_technique: BTreeMap<&'static str, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        // The compiler lets no unknown technique pass.
        for technique in rule.metadata.attack.iter().filter_map(|id| technique::find(id)) {
            by_technique.entry(technique.id).or_default().push(rule);
        }
    }
    let techniques: Vec<Json> = by_technique.iter().flat_map(|(id, rules)| entries(id, rules)).collect();
    json!({
        "name": name,
        "versions": { "navigator": "5.1.0", "layer": LAYER_VERSION },
        "domain": "enterprise-attack",
        "description": format!("What {} rules of Egret look for. A technique's score is that of the most severe rule: info 20, low 40, medium 60, high 80, critical 100.", rules.len()),
        "filters": { "platforms": ["Linux"] },
        "sorting": 3,
        "layout": { "layout": "side", "showID": true, "showName": true },
        "hideDisabled": false,
        "techniques": techniques,
        "gradient": { "colors": ["#ffffffff", "#ffd966ff", "#e06666ff"], "minValue": 0, "maxValue": 100 },
        "legendItems": [],
        "metadata": [{ "name": "generator", "value": format!("egret {}", env!("CARGO_PKG_VERSION")) }],
        "showTacticRowBackground": false,
        "selectTechniquesAcrossTactics": true,
        "selectSubtechniquesWithParent": false,
    })
}

fn entries(id: &str, rules: &[&Rule]) -> Vec<Json> {
    let Some(technique) = technique::find(id) else { return Vec::new() };
    let severest = rules.iter().map(|rule| rule.metadata.severity).max().unwrap_or_default();
    let comment: Vec<String> =
        rules.iter().map(|rule| format!("{} ({})", rule.metadata.id, rule.metadata.severity.name())).collect();
    let metadata: Vec<Json> =
        rules.iter().map(|rule| json!({ "name": rule.metadata.id, "value": rule.metadata.title })).collect();
    let entry = |tactic: &str| {
        json!({
            "techniqueID": technique.id,
            "tactic": tactic,
            "score": score(severest),
            "comment": comment.join("\n"),
            "enabled": true,
            "metadata": metadata,
            "links": [],
            "showSubtechniques": technique.id.contains('.'),
        })
    };
    technique.tactics.split(',').filter(|tactic| !tactic.is_empty()).map(entry).collect()
}

fn score(severity: Severity) -> u64 {
    match severity {
        Severity::Info => 20,
        Severity::Low => 40,
        Severity::Medium => 60,
        Severity::High => 80,
        Severity::Critical => 100,
    }
}
