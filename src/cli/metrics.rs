//! A status as metrics in Prometheus' text form, for the textfile collector of a node exporter.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value as Json;

/// The metrics of a status, as `egret status` asks for it.
pub fn encode(status: &Json) -> String {
    let mut metrics = Metrics::default();
    for (field, name, help) in [
        ("submitted", "egret_notifications_total", "Notifications that came in."),
        ("lost", "egret_notifications_lost_total", "Notifications that found no room on their way in."),
        ("committed", "egret_notifications_committed_total", "Notifications that are on disk."),
    ] {
        metrics.add(name, "counter", help, &[], &status[field]);
    }
    metrics.add("egret_alerts_firing", "gauge", "Alerts that fire.", &[], &status["firing"]);
    let held_back = "Notifications held back, by what did it.";
    for (by, count) in status["suppressed_by"].as_object().into_iter().flatten() {
        metrics.add("egret_notifications_suppressed_total", "counter", held_back, &[("by", by)], count);
    }
    let stranded = "Deliveries that wait for an output that is not configured.";
    for (name, count) in status["stranded"].as_object().into_iter().flatten() {
        metrics.add("egret_outbox_stranded", "gauge", stranded, &[("output", name)], count);
    }
    for (name, output) in status["outputs"].as_object().into_iter().flatten() {
        of_output(&mut metrics, name, output);
    }
    let watching = &status["watching"];
    let coverage = "Share of the bytes on the interfaces that has an owner.";
    metrics.add("egret_coverage_ratio", "gauge", coverage, &[], &watching["coverage"]);
    of_engine(&mut metrics, "egret_engine", &watching["engine"]);
    metrics.text()
}

fn of_output(metrics: &mut Metrics, name: &str, output: &Json) {
    let label = [("output", name)];
    for state in ["working", "failing", "gone"] {
        let holds = Json::from(u8::from(output["health"] == state));
        let labels = [("output", name), ("state", state)];
        metrics.add("egret_output_health", "gauge", "How an output is doing.", &labels, &holds);
    }
    let waiting = "Deliveries that wait for an output.";
    metrics.add("egret_outbox_waiting", "gauge", waiting, &label, &output["waiting"]);
    let bytes = "Bytes of the deliveries that wait in memory.";
    metrics.add("egret_outbox_waiting_bytes", "gauge", bytes, &label, &output["waiting_bytes"]);
    let oldest = output["oldest"].as_str().and_then(|at| at.parse::<crate::time::Timestamp>().ok());
    let oldest = oldest.map_or(Json::Null, |at| Json::from(at.as_secs()));
    let help = "When the oldest delivery that waits was made.";
    metrics.add("egret_outbox_oldest_timestamp_seconds", "gauge", help, &label, &oldest);
    metrics.add(
        "egret_deliveries_queued_total",
        "counter",
        "Deliveries made for an output.",
        &label,
        &output["queued"],
    );
    for result in ["delivered", "retried", "refused", "expired", "queue_full"] {
        let labels = [("output", name), ("result", result)];
        let help = "What became of deliveries and attempts.";
        metrics.add("egret_deliveries_total", "counter", help, &labels, &output[result]);
    }
}

/// Every number below, named by its path.
fn of_engine(metrics: &mut Metrics, path: &str, value: &Json) {
    match value {
        Json::Number(_) => metrics.add(path, "untyped", "A running number of the engine.", &[], value),
        Json::Object(object) => {
            for (name, value) in object {
                of_engine(metrics, &format!("{path}_{name}"), value);
            }
        }
        _ => {}
    }
}

/// Samples by metric: the form wants those of one metric together.
#[derive(Default)]
struct Metrics {
    of: BTreeMap<String, (&'static str, String, Vec<String>)>,
}

impl Metrics {
    fn add(&mut self, name: &str, kind: &'static str, help: &str, labels: &[(&str, &str)], value: &Json) {
        let Json::Number(number) = value else { return };
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let metric = self.of.entry(name.to_owned()).or_insert_with(|| (kind, help.to_owned(), Vec::new()));
        metric.2.push(format!("{name}{labels} {number}"));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, (kind, help, samples)) in &self.of {
            let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{}\n", samples.join("\n"));
        }
        text
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_status_is_a_sample() {
        let status = serde_json::json!({
            "submitted": 7, "lost": 0, "committed": 7, "firing": 2, "suppressed_by": {"silence": 3},
            "outputs": {"so\"c": {"health": "failing", "waiting": 4, "waiting_bytes": 99,
                "oldest": "2026-05-04T02:11:09Z", "queued": 9, "delivered": 5}},
            "watching": {"coverage": 0.97, "engine": {"flows": {"held": 11}, "bytes": 12}},
        });
        let text = encode(&status);
        for line in [
            "# TYPE egret_notifications_total counter",
            "egret_notifications_total 7",
            "egret_notifications_suppressed_total{by=\"silence\"} 3",
            "egret_output_health{output=\"so\\\"c\",state=\"failing\"} 1",
            "egret_output_health{output=\"so\\\"c\",state=\"working\"} 0",
            "egret_outbox_waiting{output=\"so\\\"c\"} 4",
            "egret_outbox_oldest_timestamp_seconds{output=\"so\\\"c\"} 1777860669",
            "egret_deliveries_total{output=\"so\\\"c\",result=\"delivered\"} 5",
            "egret_engine_flows_held 11",
            "egret_coverage_ratio 0.97",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("refused"), "what is not known is not a number");
    }
}
