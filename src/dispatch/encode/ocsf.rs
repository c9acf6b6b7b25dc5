//! A notification as a Detection Finding of the Open Cybersecurity Schema Framework.
//!
//! Class 2004 of release 1.5.0. What the class has no attribute for stands in
//! `unmapped`, so that nothing is dropped.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::alert::Origin;
use crate::alert::{Alert, Analysis, CompanionFlow, Destination, DocumentKind, Network, Notification};
use crate::attribution::Container;
use crate::dispatch::encode::ecs_json::{entity_id, known};
use crate::dispatch::encode::network_activity;
use crate::rule::{Confidence, Quantity, Severity, technique};

/// The release that the attributes are taken from.
pub const OCSF_VERSION: &str = "1.5.0";

/// The event of one notification; `suppressed` says what held it back, `uid` names the event.
pub fn encode(notification: &Notification, origin: &Origin, suppressed: Option<&str>, uid: Option<&str>) -> Vec<u8> {
    let event = event(notification, origin, suppressed, uid);
    serde_json::to_vec(&event).expect("strings are the only keys, and nothing here fails to serialise")
}

/// The same as a JSON value.
pub fn event(notification: &Notification, origin: &Origin, suppressed: Option<&str>, uid: Option<&str>) -> Json {
    if let (DocumentKind::Flow, Some(alert)) = (notification.kind, &notification.alert) {
        return network_activity::event(notification, alert, origin);
    }
    let ended = notification.kind.ends();
    let activity = match notification.kind {
        DocumentKind::Firing | DocumentKind::Problem | DocumentKind::Test => 1,
        DocumentKind::Resolved | DocumentKind::Withdrawn => 3,
        DocumentKind::Updated | DocumentKind::Heartbeat | DocumentKind::Flow => 2,
    };
    let status = match (suppressed, ended) {
        (Some(_), _) => (3, "Suppressed"),
        (None, true) => (4, "Resolved"),
        (None, false) => (1, "New"),
    };
    let (id, title) = crate::dispatch::encode::leef::identity(notification);
    let mut event = json!({
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "category_uid": 2,
        "category_name": "Findings",
        "activity_id": activity,
        "type_uid": 200_400 + activity,
        "time": notification.timestamp.as_millis(),
        "severity_id": severity_id(notification.severity()),
        "severity": severity_name(notification.severity()),
        "status_id": status.0,
        "status": status.1,
        "message": notification.summary(),
        "is_alert": notification.alert.is_some(),
        "metadata": metadata(notification),
        "device": device(origin),
        "finding_info": {"uid": notification.key(), "title": title, "analytic": {"uid": id, "name": title, "type_id": 1, "type": "Rule"}},
    });
    let Json::Object(event) = &mut event else { return Json::Null };
    set(event, "status_detail", suppressed.map(Json::from));
    if let Some(Json::Object(metadata)) = event.get_mut("metadata") {
        set(metadata, "uid", uid.map(Json::from));
    }
    if let Some(alert) = &notification.alert {
        set_alert(event, alert);
    }
    if let Some(problem) = &notification.problem {
        event.insert("unmapped".to_owned(), json!({"problem": problem}));
    }
    Json::Object(std::mem::take(event))
}

/// Who wrote the event, and as what.
pub(super) fn metadata(notification: &Notification) -> Json {
    json!({
        "version": OCSF_VERSION,
        "product": {"name": "egret", "vendor_name": "Egret", "version": env!("CARGO_PKG_VERSION")},
        "log_name": notification.kind.name(),
        "profiles": ["container", "host"],
    })
}

/// This host.
pub(super) fn device(origin: &Origin) -> Json {
    let mut device = Map::new();
    device.insert("hostname".to_owned(), json!(&*origin.host.name));
    device.insert("type_id".to_owned(), json!(0));
    device.insert("os".to_owned(), json!({"name": "Linux", "type_id": 200, "type": "Linux"}));
    set(&mut device, "uid", origin.host.id.as_deref().map(Json::from));
    Json::Object(device)
}

fn set_alert(event: &mut Map<String, Json>, alert: &Alert) {
    let rule = &alert.rule.metadata;
    let state = &alert.state;
    event.insert("start_time".to_owned(), json!(state.started_at.as_millis()));
    set(event, "end_time", state.ended_at.map(|at| json!(at.as_millis())));
    set(event, "count", alert.values.get("connections").map(|count| json!(count)));
    let confidence = match rule.confidence {
        Confidence::Low => (1, "Low"),
        Confidence::Medium => (2, "Medium"),
        Confidence::High => (3, "High"),
    };
    event.insert("confidence_id".to_owned(), json!(confidence.0));
    event.insert("confidence".to_owned(), json!(confidence.1));
    if let Some(Json::Object(metadata)) = event.get_mut("metadata") {
        // What is said of one alert belongs together.
        metadata.insert("correlation_uid".to_owned(), json!(&*state.uid));
        set(metadata, "labels", (!rule.tags.is_empty()).then(|| json!(rule.tags)));
    }
    if let Some(Json::Object(finding)) = event.get_mut("finding_info") {
        set(finding, "desc", (!rule.description.is_empty()).then(|| json!(rule.description)));
        set(finding, "tags", (!rule.tags.is_empty()).then(|| json!([{"name": "tags", "values": rule.tags}])));
        set(finding, "src_url", rule.references.first().map(|link| json!(link)));
        set(finding, "attacks", (!rule.attack.is_empty()).then(|| attacks(&rule.attack)));
        let related = |flow: &Arc<CompanionFlow>| json!({"uid": &*flow.uid, "type_uid": network_activity::TYPE_UID});
        let related: Vec<Json> = alert.flows.iter().map(related).collect();
        set(finding, "related_events", (!related.is_empty()).then_some(Json::Array(related)));
        finding.insert("created_time".to_owned(), json!(state.started_at.as_millis()));
        if let Some(Json::Object(analytic)) = finding.get_mut("analytic") {
            set(analytic, "version", rule.revision.map(|revision| json!(revision.to_string())));
            let (id, kind) = match alert.rule.analysis {
                Analysis::Limit => (1, "Rule"),
                Analysis::FirstSight => (2, "Behavioral"),
                Analysis::Habit => (3, "Statistical"),
            };
            analytic.insert("type_id".to_owned(), json!(id));
            analytic.insert("type".to_owned(), json!(kind));
        }
    }
    set(event, "anomaly_analyses", anomaly(alert));
    event.insert("evidences".to_owned(), json!([evidence(alert)]));
    event.insert("observables".to_owned(), observables(alert));
    event.insert(
        "unmapped".to_owned(),
        json!({
            "alert": state,
            "reason": alert.reason,
            "group": Json::Object(alert.group.iter().map(|(field, value)| ((*field).to_owned(), json!(value))).collect()),
            "window": alert.window,
            "values": alert.values,
            "conditions": alert.conditions,
            "top": alert.top,
            "excluded": alert.excluded,
            "matches": alert.matches,
            "processes": alert.processes,
            "series": alert.series,
            "unit": alert.process.as_ref().and_then(|process| process.unit.as_deref()),
        }),
    );
}

/// What a group did against what it does, for rules that know that.
fn anomaly(alert: &Alert) -> Option<Json> {
    let expected = alert.values.get("baseline.expected")?;
    let measured = alert.conditions.first()?;
    let observation = |value: Option<Quantity>| {
        let value = value.map_or_else(|| "unknown".to_owned(), |value| value.as_f64().to_string());
        json!([{"observation_parameter": measured.metric, "observations": [{"value": value}]}])
    };
    Some(json!([{
        "analysis_targets": [{"name": measured.metric}],
        "anomalies": observation(measured.value),
        "baselines": observation(Some(*expected)),
    }]))
}

fn evidence(alert: &Alert) -> Json {
    let mut evidence = Map::new();
    let data = json!({
        "bytes_out": alert.values.get("bytes_out"),
        "bytes_in": alert.values.get("bytes_in"),
    });
    evidence.insert("data".to_owned(), data);
    if let Some(process) = &alert.process {
        evidence.insert("process".to_owned(), self::process(alert, process));
    }
    let user = alert.user.as_ref().and_then(user_of);
    set(&mut evidence, "actor", user.map(|user| json!({"user": user})));
    set(&mut evidence, "container", alert.container.as_ref().map(container));
    set(&mut evidence, "src_endpoint", source(alert));
    set(&mut evidence, "dst_endpoint", alert.destination.as_ref().map(destination));
    if let Some(destination) = &alert.destination {
        let asked = destination.domain.as_deref().filter(|_| destination.domain_source == Some("dns"));
        set(&mut evidence, "query", asked.map(|name| json!({"hostname": name})));
        let handshake =
            destination.domain.as_deref().filter(|_| matches!(destination.domain_source, Some("sni" | "quic")));
        set(&mut evidence, "tls", handshake.map(|name| json!({"sni": name, "version": "unknown"})));
    }
    set(&mut evidence, "connection_info", alert.network.as_ref().map(connection));
    Json::Object(evidence)
}

pub(super) fn container(container: &Container) -> Json {
    let mut object = Map::new();
    object.insert("uid".to_owned(), json!(&*container.id));
    set(&mut object, "name", container.name.as_deref().map(Json::from));
    set(&mut object, "runtime", container.runtime.as_deref().map(Json::from));
    set(&mut object, "image", container.image.as_deref().map(|image| json!({"name": image, "uid": image})));
    set(&mut object, "pod_uuid", container.pod.as_deref().map(Json::from));
    Json::Object(object)
}

/// This host's end.
pub(super) fn source(alert: &Alert) -> Option<Json> {
    let source = alert.source.as_ref()?;
    let interface = alert.network.as_ref().and_then(|network| network.iface.as_deref());
    let mut end = Map::new();
    end.insert("ip".to_owned(), json!(source.ip));
    set(&mut end, "port", (source.port != 0).then(|| json!(source.port)));
    set(&mut end, "interface_name", interface.map(Json::from));
    Some(Json::Object(end))
}

/// The other end.
pub(super) fn destination(destination: &Destination) -> Json {
    let mut end = Map::new();
    end.insert("ip".to_owned(), json!(destination.ip));
    set(&mut end, "port", (destination.port != 0).then(|| json!(destination.port)));
    set(&mut end, "hostname", destination.domain.as_deref().map(Json::from));
    set(&mut end, "domain", destination.registered_domain.as_deref().map(Json::from));
    let mut system = Map::new();
    set(&mut system, "number", destination.asn.map(Json::from));
    set(&mut system, "name", destination.as_org.as_deref().map(Json::from));
    set(&mut end, "autonomous_system", (!system.is_empty()).then_some(Json::Object(system)));
    set(&mut end, "location", destination.country.as_deref().map(|country| json!({"country": country})));
    Json::Object(end)
}

/// Which way, and in which protocol.
pub(super) fn connection(network: &Network) -> Json {
    let direction = match network.direction {
        "inbound" => (1, "Inbound"),
        "outbound" => (2, "Outbound"),
        _ => (3, "Lateral"),
    };
    let mut connection = Map::new();
    connection.insert("protocol_name".to_owned(), json!(network.transport));
    connection.insert("direction_id".to_owned(), json!(direction.0));
    connection.insert("direction".to_owned(), json!(direction.1));
    connection.insert("boundary_id".to_owned(), json!(3));
    connection.insert("boundary".to_owned(), json!("External"));
    set(&mut connection, "community_uid", network.community_id.as_deref().map(Json::from));
    Json::Object(connection)
}

pub(super) fn process(alert: &Alert, process: &crate::alert::ProcessFacts) -> Json {
    let mut object = Map::new();
    object.insert("pid".to_owned(), json!(process.pid));
    set(&mut object, "cmd_line", known(&process.cmdline).map(Json::from));
    set(&mut object, "uid", entity_id(process).map(Json::from));
    set(&mut object, "created_time", process.started_at.map(|at| json!(at.as_millis())));
    set(&mut object, "working_directory", process.cwd.as_ref().and_then(known).map(Json::from));
    if let Some(path) = known(&process.executable.exe) {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        object.insert("name".to_owned(), json!(name));
        object.insert("path".to_owned(), json!(path));
        let mut file = Map::new();
        file.insert("path".to_owned(), json!(path));
        file.insert("name".to_owned(), json!(name));
        file.insert("type_id".to_owned(), json!(1));
        let hash = |hash: &str| json!([{"algorithm_id": 3, "algorithm": "SHA-256", "value": hash}]);
        set(&mut file, "hashes", process.executable.hash.as_deref().map(hash));
        object.insert("file".to_owned(), Json::Object(file));
    }
    set(&mut object, "user", alert.user.as_ref().and_then(user_of));
    if let Some(parent) = &alert.parent {
        let mut above = Map::new();
        above.insert("pid".to_owned(), json!(parent.pid));
        set(&mut above, "path", known(&parent.exe).map(Json::from));
        set(&mut above, "cmd_line", known(&parent.cmdline).map(Json::from));
        object.insert("parent_process".to_owned(), Json::Object(above));
    }
    Json::Object(object)
}

/// `None` where nothing is known of the user: the schema wants a name or a number.
pub(super) fn user_of(user: &crate::alert::UserFacts) -> Option<Json> {
    let mut object = Map::new();
    set(&mut object, "name", user.name.as_deref().map(Json::from));
    set(&mut object, "uid", user.uid.map(|uid| json!(uid.to_string())));
    (!object.is_empty()).then_some(Json::Object(object))
}

fn observables(alert: &Alert) -> Json {
    let mut all = Vec::new();
    let mut add = |name: &str, type_id: u8, kind: &str, value: String| {
        all.push(json!({"name": name, "type_id": type_id, "type": kind, "value": value}));
    };
    if let Some(source) = &alert.source {
        add("evidences.src_endpoint.ip", 2, "IP Address", source.ip.to_string());
    }
    if let Some(end) = &alert.destination {
        add("evidences.dst_endpoint.ip", 2, "IP Address", end.ip.to_string());
        if let Some(domain) = &end.domain {
            add("evidences.dst_endpoint.hostname", 1, "Hostname", domain.to_string());
        }
    }
    if let Some(name) = alert.user.as_ref().and_then(|user| user.name.as_deref()) {
        add("evidences.actor.user.name", 4, "User Name", name.to_owned());
    }
    Json::Array(all)
}

fn attacks(techniques: &[String]) -> Json {
    let named = |id: &str| match technique::find(id) {
        Some(known) => json!({"uid": id, "name": known.name}),
        None => json!({"uid": id}),
    };
    let attack = |id: &String| {
        let mut attack = match id.split_once('.') {
            Some((above, _)) => json!({"technique": named(above), "sub_technique": named(id)}),
            None => json!({"technique": named(id)}),
        };
        let tactics = technique::find(id).map_or("", |known| known.tactics).split(',').filter_map(technique::tactic);
        let tactics: Vec<Json> = tactics.map(|(uid, name)| json!({"uid": uid, "name": name})).collect();
        if !tactics.is_empty() {
            attack["tactics"] = Json::Array(tactics);
        }
        attack
    };
    Json::Array(techniques.iter().map(attack).collect())
}

fn severity_id(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "Informational",
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

pub(super) fn set(object: &mut Map<String, Json>, name: &str, value: Option<Json>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn an_alert_is_a_detection_finding() {
        let event = event(&example::firing(), &example::origin(), None, Some("01N"));
        for (pointer, expected) in [
            ("/class_uid", json!(2004)),
            ("/type_uid", json!(200_401)),
            ("/severity_id", json!(4)),
            ("/status_id", json!(1)),
            ("/finding_info/uid", json!("b3:9f2c4e")),
            ("/finding_info/attacks/0/sub_technique/uid", json!("T1567.002")),
            ("/metadata/uid", json!("01N")),
            ("/metadata/correlation_uid", json!("01JX8Q4Z7M0000000000000000")),
            ("/finding_info/attacks/0/technique/name", json!("Exfiltration Over Web Service")),
            ("/finding_info/attacks/0/tactics/0/uid", json!("TA0010")),
            ("/finding_info/analytic/type_id", json!(1)),
            ("/evidences/0/process/cmd_line", json!("rclone copy /srv/pii remote:bkt")),
            ("/evidences/0/dst_endpoint/port", json!(443)),
            ("/evidences/0/tls/sni", json!("up.storage.example.net")),
            ("/unmapped/values/bytes_out", json!(734_003_200)),
        ] {
            assert_eq!(event.pointer(pointer), Some(&expected), "{pointer}");
        }
    }

    #[test]
    fn every_required_attribute_is_there_for_every_kind() {
        // Required of class 2004 and of the objects in it, by the schema.
        let required = [
            "/activity_id",
            "/category_uid",
            "/class_uid",
            "/finding_info/title",
            "/finding_info/uid",
            "/metadata/product",
            "/metadata/version",
            "/severity_id",
            "/time",
            "/type_uid",
            "/device/type_id",
        ];
        let problem = Notification::of_problem(crate::time::Timestamp::EPOCH, crate::alert::Problem::default());
        for notification in [&*example::firing(), &*example::resolved(), &problem] {
            let event = event(notification, &example::origin(), Some("silence 1"), None);
            for pointer in required {
                assert!(event.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer}");
            }
            assert_eq!(event["status_id"], 3);
        }
    }
}
