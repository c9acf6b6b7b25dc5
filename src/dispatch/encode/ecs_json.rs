//! A notification as an Elastic Common Schema document, one JSON object.
//!
//! What ECS has no field for stands below `egress.`, so that nothing is dropped.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::alert::Origin;
use crate::alert::{Alert, DocumentKind, Notification, ProcessFacts};
use crate::rule::{Confidence, Quantity, Severity, Sum, Value, technique};

/// The version of ECS that the field names are taken from.
pub const ECS_VERSION: &str = "9.4.0";

/// The document of one notification.
pub fn encode(notification: &Notification, origin: &Origin) -> Vec<u8> {
    let document = document(notification, origin);
    serde_json::to_vec(&document).expect("strings are the only keys, and nothing here fails to serialise")
}

/// The same as a JSON value.
pub fn document(notification: &Notification, origin: &Origin) -> Json {
    let mut fields = Fields::default();
    fields.set("@timestamp", notification.timestamp);
    fields.set("ecs.version", ECS_VERSION);
    fields.set("message", notification.summary());
    fields.set("event.module", "egret");
    fields.set("event.dataset", "egress.alert");
    fields.set("event.action", notification.kind.name().replace('.', "-"));
    fields.set("event.severity", severity_number(notification.severity()));
    fields.set("log.level", notification.severity().name());
    fields.set("host.name", &*origin.host.name);
    fields.set("host.id", origin.host.id.as_deref());
    fields.set("host.os.type", "linux");
    fields.set("observer.vendor", "Egret");
    fields.set("observer.product", "egret");
    fields.set("observer.version", env!("CARGO_PKG_VERSION"));
    fields.set("observer.type", "sensor");
    match (&notification.alert, &notification.problem) {
        (Some(alert), _) if notification.kind == DocumentKind::Flow => set_flow(&mut fields, alert),
        (Some(alert), _) => set_alert(&mut fields, notification.kind, alert),
        (None, problem) => {
            fields.set("event.kind", if notification.kind == DocumentKind::Heartbeat { "metric" } else { "event" });
            fields.set("event.category", json!(["host"]));
            fields.set("event.type", json!(["info"]));
            if let Some(problem) = problem {
                fields.set("event.code", problem.id);
                fields.set("event.reason", &*problem.summary);
                fields.set("egress.problem", json!(problem));
            }
        }
    }
    Json::Object(fields.0)
}

/// The number that `event.severity` carries, larger for worse.
pub fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 10,
        Severity::Low => 30,
        Severity::Medium => 50,
        Severity::High => 70,
        Severity::Critical => 90,
    }
}

fn set_alert(fields: &mut Fields, kind: DocumentKind, alert: &Alert) {
    let state = &alert.state;
    let rule = &alert.rule.metadata;
    fields.set("event.kind", "alert");
    fields.set("event.category", json!(["network", "intrusion_detection"]));
    fields.set("event.type", if kind.ends() { json!(["connection", "end"]) } else { json!(["connection", "info"]) });
    fields.set("event.id", &*state.uid);
    fields.set("event.reason", &*alert.summary);
    fields.set("event.created", state.fired_at);
    fields.set("event.start", state.started_at);
    fields.set("event.end", state.ended_at);
    if let Some(ended) = state.ended_at {
        fields.set("event.duration", u64::try_from(ended.since(state.started_at).as_nanos()).unwrap_or(u64::MAX));
    }
    fields.set("event.risk_score", risk_score(alert.rule.severity(), rule.confidence));
    fields.set("event.provider", "egret");
    fields.set("rule.id", &*rule.id);
    fields.set("rule.name", &*rule.title);
    fields.set("rule.description", some(&rule.description));
    fields.set("rule.ruleset", rule.pack.as_deref());
    fields.set("rule.version", rule.revision.map(|revision| revision.to_string()));
    fields.set("rule.reference", rule.references.first().map(String::as_str));
    fields.set("rule.author", rule.owner.as_ref().map(|owner| json!([owner])));
    fields.set("tags", some_list(&rule.tags));
    set_attack(fields, &rule.attack);
    set_process(fields, alert);
    set_network(fields, alert);
    set_counts(fields, alert);
    fields.set("egress.alert", json!(state));
    fields.set("egress.reason", json!(alert.reason));
    fields.set("egress.rule.confidence", json!(rule.confidence));
    fields.set("egress.group", Json::Object(alert.group.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect()));
    fields.set("egress.window", alert.window.map(|window| json!(window)));
    fields.set("egress.values", json!(alert.values));
    fields.set("egress.conditions", json!(alert.conditions));
    fields.set("egress.matches", (!alert.matches.is_empty()).then(|| json!(alert.matches)));
    fields.set("egress.top", json!(alert.top));
    fields.set("egress.excluded", json!(alert.excluded));
    fields.set("egress.processes", (!alert.processes.is_empty()).then(|| json!(alert.processes)));
    fields.set("egress.series", (!alert.series.is_empty()).then(|| json!(alert.series)));
    fields.set("egress.truncated", (!alert.truncated.is_empty()).then(|| json!(alert.truncated)));
}

/// A flow of an alert: what passed since it was told last, and all that passed in `egress.flow.total`.
fn set_flow(fields: &mut Fields, alert: &Alert) {
    let Some(flow) = alert.flows.first() else { return };
    fields.set("event.kind", "event");
    fields.set("event.category", json!(["network"]));
    fields.set("event.type", json!(["connection", "info"]));
    fields.set("event.dataset", "egress.flow");
    fields.set("event.provider", "egret");
    fields.set("event.id", &*flow.uid);
    fields.set("event.start", flow.first);
    fields.set("event.end", flow.last);
    fields.set("event.duration", u64::try_from(flow.last.since(flow.first).as_nanos()).unwrap_or(u64::MAX));
    fields.set("event.severity", severity_number(Severity::Info));
    fields.set("log.level", Severity::Info.name());
    fields.set("rule.id", &*alert.rule.metadata.id);
    fields.set("rule.name", &*alert.rule.metadata.title);
    set_process(fields, alert);
    set_network(fields, alert);
    let passed = &flow.passed;
    fields.set("source.bytes", passed.bytes_out.0);
    fields.set("destination.bytes", passed.bytes_in.0);
    fields.set("network.bytes", (passed.bytes_out + passed.bytes_in).0);
    fields.set("source.packets", passed.packets_out.0);
    fields.set("destination.packets", passed.packets_in.0);
    fields.set("network.packets", (passed.packets_out + passed.packets_in).0);
    fields.set("network.iana_number", flow.key.protocol.0.to_string());
    fields.set("egress.flow.state", flow.state.name());
    fields.set("egress.flow.total", json!(flow.total));
    fields.set("egress.flow.left_out", json!(flow.left_out));
    fields.set("egress.alert.uid", &*alert.state.uid);
    fields.set("egress.alert.key", &*alert.state.key);
}

fn set_attack(fields: &mut Fields, techniques: &[String]) {
    if techniques.is_empty() {
        return;
    }
    fields.set("threat.framework", "MITRE ATT&CK");
    let above = |id: &String| id.split_once('.').map_or(id.as_str(), |(above, _)| above).to_owned();
    let parents: BTreeSet<String> = techniques.iter().map(above).collect();
    let below: BTreeSet<String> = techniques.iter().filter(|technique| technique.contains('.')).cloned().collect();
    for (field, ids) in [("threat.technique", parents), ("threat.technique.subtechnique", below)] {
        let names: Vec<&str> = ids.iter().filter_map(|id| technique::find(id)).map(|known| known.name).collect();
        fields.set(&format!("{field}.id"), (!ids.is_empty()).then(|| json!(ids)));
        fields.set(&format!("{field}.name"), (!names.is_empty()).then(|| json!(names)));
    }
    let known = techniques.iter().filter_map(|id| technique::find(id));
    let tactics: BTreeSet<_> = known.flat_map(|known| known.tactics.split(',')).filter_map(technique::tactic).collect();
    if !tactics.is_empty() {
        fields.set("threat.tactic.id", json!(tactics.iter().map(|(id, _)| id).collect::<Vec<_>>()));
        fields.set("threat.tactic.name", json!(tactics.iter().map(|(_, name)| name).collect::<Vec<_>>()));
    }
}

fn set_process(fields: &mut Fields, alert: &Alert) {
    if let Some(process) = &alert.process {
        fields.set("process.pid", process.pid);
        fields.set("process.executable", known(&process.executable.exe));
        fields.set("process.name", known(&process.executable.exe).and_then(|path| name_of(&path)));
        fields.set("process.command_line", known(&process.cmdline));
        if let Value::List(args) = &process.args {
            let args = args.iter().filter_map(|argument| known(&Value::Text(argument.clone())));
            fields.set("process.args", json!(args.collect::<Vec<_>>()));
        }
        fields.set("process.start", process.started_at);
        fields.set("process.entity_id", entity_id(process));
        fields.set("process.working_directory", process.cwd.as_ref().and_then(known));
        fields.set("process.hash.sha256", process.executable.hash.as_deref());
        fields.set("package.name", process.executable.package.as_deref());
        fields.set("service.name", process.unit.as_deref());
        fields.set("related.hash", process.executable.hash.as_deref().map(|hash| json!([hash])));
        fields.set("egress.process.exe_kind", process.executable.kind);
        fields.set("egress.process.evidence", process.evidence);
    }
    if let Some(file) = &alert.packets {
        fields.set("egress.packets.path", &*file.path);
        fields.set("egress.packets.sha256", &*file.sha256);
        fields.set("egress.packets.count", file.packets);
    }
    if !alert.suspects.is_empty() {
        let paths: Vec<String> = alert.suspects.iter().filter_map(|suspect| known(&suspect.executable.exe)).collect();
        fields.set("egress.suspects", json!(paths));
    }
    if let Some(parent) = &alert.parent {
        fields.set("process.parent.pid", parent.pid);
        fields.set("process.parent.executable", known(&parent.exe));
        fields.set("process.parent.name", known(&parent.exe).and_then(|path| name_of(&path)));
        fields.set("process.parent.command_line", known(&parent.cmdline));
    }
    if let Some(user) = &alert.user {
        let id = user.uid.map(|uid| uid.to_string());
        for prefix in ["user", "process.user"] {
            fields.set(&format!("{prefix}.name"), user.name.as_deref());
            fields.set(&format!("{prefix}.id"), id.clone());
        }
        fields.set("egress.login_user", user.login_name.as_deref());
        fields.set("related.user", user.name.as_deref().map(|name| json!([name])));
    }
    if let Some(container) = &alert.container {
        fields.set("container.id", &*container.id);
        fields.set("container.name", container.name.as_deref());
        fields.set("container.image.name", container.image.as_deref());
        fields.set("container.runtime", container.runtime.as_deref());
        fields.set("egress.k8s.pod", container.pod.as_deref());
        fields.set("egress.k8s.namespace", container.namespace.as_deref());
        fields.set("egress.container.labels", (!container.labels.is_empty()).then(|| json!(container.labels)));
    }
}

fn set_network(fields: &mut Fields, alert: &Alert) {
    let mut addresses = Vec::new();
    if let Some(source) = &alert.source {
        fields.set("source.ip", source.ip.to_string());
        fields.set("source.address", source.ip.to_string());
        fields.set("source.port", port(source.port));
        addresses.push(source.ip.to_string());
    }
    if let Some(end) = &alert.destination {
        fields.set("destination.ip", end.ip.to_string());
        fields.set("destination.address", end.domain.as_deref().map_or(end.ip.to_string(), str::to_owned));
        fields.set("destination.port", port(end.port));
        fields.set("destination.domain", end.domain.as_deref());
        fields.set("destination.registered_domain", end.registered_domain.as_deref());
        fields.set("destination.as.number", end.asn);
        fields.set("destination.as.organization.name", end.as_org.as_deref());
        fields.set("destination.geo.country_iso_code", end.country.as_deref());
        match end.domain_source {
            Some("sni" | "quic") => fields.set("tls.client.server_name", end.domain.as_deref()),
            Some("dns") => fields.set("dns.question.name", end.domain.as_deref()),
            Some("http") => fields.set("url.domain", end.domain.as_deref()),
            _ => {}
        }
        fields.set("egress.destination.scope", end.scope);
        fields.set("egress.destination.domain_source", end.domain_source);
        fields.set("egress.destination.domain_trust", end.domain_trust);
        fields.set("related.hosts", end.domain.as_deref().map(|name| json!([name])));
        fields.set("network.type", if end.ip.ip().is_ipv4() { "ipv4" } else { "ipv6" });
        addresses.push(end.ip.to_string());
    }
    fields.set("related.ip", (!addresses.is_empty()).then(|| json!(addresses)));
    if let Some(network) = &alert.network {
        fields.set("network.transport", network.transport.to_ascii_lowercase());
        fields.set("network.protocol", some(network.l7).filter(|l7| !matches!(l7.as_str(), "other" | "unknown")));
        fields.set(
            "network.direction",
            match network.direction {
                // Seen from the host, as ECS wants it of a host's own sensor.
                "outbound" => "egress",
                "inbound" => "ingress",
                _ => "internal",
            },
        );
        fields.set("network.community_id", network.community_id.as_deref());
        fields.set("observer.egress.interface.name", network.iface.as_deref());
    }
}

fn set_counts(fields: &mut Fields, alert: &Alert) {
    let sum = |sum: Sum| alert.values.get(sum.name()).copied();
    fields.set("source.bytes", sum(Sum::BytesOut));
    fields.set("destination.bytes", sum(Sum::BytesIn));
    fields.set("network.bytes", sum(Sum::BytesTotal));
    fields.set("source.packets", sum(Sum::PacketsOut));
    fields.set("destination.packets", sum(Sum::PacketsIn));
    fields.set("network.packets", sum(Sum::PacketsTotal));
    for what in ["expected", "deviation", "buckets"] {
        fields.set(&format!("egress.baseline.{what}"), alert.values.get(&format!("baseline.{what}")).copied());
    }
    fields.set("egress.connections", alert.values.get("connections").copied());
}

/// A process for ever: its pid and its start; `None` where that is not known.
pub fn entity_id(process: &ProcessFacts) -> Option<String> {
    process.started_at.map(|at| format!("{}-{}", process.pid, at.as_nanos()))
}

/// From 0 to 100: how bad, weighed with how sure.
fn risk_score(severity: Severity, confidence: Confidence) -> f64 {
    let weight = match confidence {
        Confidence::Low => 0.6,
        Confidence::Medium => 0.8,
        Confidence::High => 1.0,
    };
    (f64::from(severity_number(severity)) * weight).round()
}

/// A document with nested objects, filled by dotted names. What is absent is not set.
#[derive(Default)]
struct Fields(Map<String, Json>);

impl Fields {
    fn set(&mut self, name: &str, value: impl IntoField) {
        let Some(value) = value.into_field() else { return };
        let mut object = &mut self.0;
        let mut rest = name;
        while let Some((first, after)) = rest.split_once('.') {
            let below = object.entry(first).or_insert_with(|| Json::Object(Map::new()));
            let Json::Object(below) = below else { return };
            object = below;
            rest = after;
        }
        object.insert(rest.to_owned(), value);
    }
}

trait IntoField {
    fn into_field(self) -> Option<Json>;
}

impl<T: IntoField> IntoField for Option<T> {
    fn into_field(self) -> Option<Json> {
        self.and_then(IntoField::into_field)
    }
}

macro_rules! into_field {
    ($($kind:ty)*) => {$(
        impl IntoField for $kind {
            fn into_field(self) -> Option<Json> {
                Some(json!(self))
            }
        }
    )*};
}
into_field!(&str String u8 u32 u64 f64 Json Quantity crate::time::Timestamp);

/// A value as text; a byte that is no UTF-8 as an escape.
pub fn known(value: &Value) -> Option<String> {
    match value {
        Value::Missing => None,
        Value::Text(text) => Some(match std::str::from_utf8(text) {
            Ok(text) => text.to_owned(),
            Err(_) => crate::escape::one_line(text),
        }),
        other => Some(other.to_string()),
    }
}

fn name_of(path: &str) -> Option<String> {
    path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn some_list(list: &[String]) -> Option<Json> {
    (!list.is_empty()).then(|| json!(list))
}

fn port(port: u16) -> Option<u32> {
    (port != 0).then_some(port.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn an_alert_has_the_fields_of_the_schema() {
        let document = document(&example::firing(), &example::origin());
        let field = |name: &str| document.pointer(&format!("/{}", name.replace('.', "/"))).cloned().unwrap_or_default();
        assert_eq!(document["@timestamp"], "2026-05-04T02:11:09.482113000Z");
        assert_eq!(field("event.kind"), "alert");
        assert_eq!(field("event.action"), "alert-firing");
        assert_eq!(field("process.name"), "rclone");
        assert_eq!(field("process.parent.pid"), 4090);
        assert_eq!(field("user.id"), "1000");
        assert_eq!(field("destination.port"), 443);
        assert_eq!(field("tls.client.server_name"), "up.storage.example.net");
        assert_eq!(field("source.bytes"), 734_003_200);
        assert_eq!(field("network.direction"), "egress");
        assert_eq!(field("threat.technique.id"), json!(["T1567"]));
        assert_eq!(field("threat.technique.subtechnique.id"), json!(["T1567.002"]));
        assert_eq!(field("threat.technique.subtechnique.name"), json!(["Exfiltration to Cloud Storage"]));
        assert_eq!(field("threat.tactic.id"), json!(["TA0010"]));
        assert_eq!(field("related.ip"), json!(["10.0.3.9", "203.0.113.7"]));
        assert_eq!(field("egress.alert.key"), "b3:9f2c4e");
        assert_eq!(field("event.duration"), Json::Null);
    }

    #[test]
    fn a_resolved_alert_has_an_end_and_a_duration() {
        let document = document(&example::resolved(), &example::origin());
        assert_eq!(document["event"]["end"], "2026-05-04T02:40:00.000000000Z");
        assert_eq!(document["event"]["duration"], 2_036_000_000_000_u64);
        assert_eq!(document["event"]["action"], "alert-resolved");
    }
}
