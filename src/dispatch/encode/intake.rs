//! A message for systems that collect events: Alertmanager and its webhook,
//! Elasticsearch, Splunk, Loki.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::alert::{Message, Notification, Origin};
use crate::dispatch::encode::{ecs_json, leef};
use crate::escape::one_line;
use crate::time::Timestamp;

/// The body that Alertmanager's own webhook sends (version 4), so that its receivers understand it.
pub fn alertmanager_webhook(message: &Message, origin: &Origin) -> Vec<u8> {
    let alert = |notification: &Notification| {
        let alert = api_alert(notification, origin);
        json!({
            "status": if notification.kind.ends() { "resolved" } else { "firing" },
            "labels": alert.labels,
            "annotations": alert.annotations,
            "startsAt": alert.starts_at,
            "endsAt": alert.ends_at.map_or_else(|| json!("0001-01-01T00:00:00Z"), |at| json!(at)),
            "generatorURL": alert.link.clone().unwrap_or_default(),
            "fingerprint": fingerprint(&alert.labels),
        })
    };
    let alerts: Vec<Json> = message.notifications.iter().map(|one| alert(one)).collect();
    let group: BTreeMap<String, String> = match message.group.is_empty() {
        true => [("alertname".to_owned(), leef::identity(message.headline()).0)].into(),
        false => message.group.iter().map(|(label, value)| (label_name(label), value.clone())).collect(),
    };
    let common = |of: fn(&ApiAlert) -> &BTreeMap<String, String>| {
        let mut all = message.notifications.iter().map(|notification| of(&api_alert(notification, origin)).clone());
        let mut common = all.next().unwrap_or_default();
        for other in all {
            common.retain(|name, value| other.get(name) == Some(value));
        }
        common
    };
    let key: Vec<String> = group.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    to_bytes(&json!({
        "version": "4",
        "groupKey": format!("{{}}:{{{}}}", key.join(", ")),
        "truncatedAlerts": message.omitted,
        "status": if message.kind().ends() { "resolved" } else { "firing" },
        "receiver": "egret",
        "groupLabels": group,
        "commonLabels": common(|alert| &alert.labels),
        "commonAnnotations": common(|alert| &alert.annotations),
        "externalURL": "",
        "alerts": alerts,
    }))
}

/// The alerts of Alertmanager's API, one object each; what still fires has no end yet.
pub fn alertmanager(message: &Message, origin: &Origin) -> Vec<u8> {
    let alert = |notification: &Notification| {
        let alert = api_alert(notification, origin);
        let mut object = json!({"labels": alert.labels, "annotations": alert.annotations, "startsAt": alert.starts_at});
        if let Json::Object(object) = &mut object {
            if let Some(link) = alert.link {
                object.insert("generatorURL".to_owned(), json!(link));
            }
            if let Some(end) = alert.ends_at {
                object.insert("endsAt".to_owned(), json!(end));
            }
        }
        object
    };
    to_bytes(&Json::Array(message.notifications.iter().map(|one| alert(one)).collect()))
}

/// Elasticsearch's bulk body: each document under an id of its own, so that a repetition changes nothing.
pub fn elasticsearch(message: &Message, origin: &Origin, index: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (number, notification) in message.notifications.iter().enumerate() {
        let action = json!({"create": {"_index": index, "_id": format!("{}-{number}", message.id)}});
        body.extend_from_slice(&to_bytes(&action));
        body.push(b'\n');
        body.extend_from_slice(&ecs_json::encode(notification, origin));
        body.push(b'\n');
    }
    body
}

/// Events for Splunk's HTTP Event Collector, one after another.
pub fn splunk(message: &Message, origin: &Origin, index: Option<&str>, source_type: &str) -> Vec<u8> {
    let event = |notification: &Notification| {
        let nanos = notification.timestamp.as_nanos();
        let mut event = json!({
            "time": format!("{}.{:03}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000) / 1_000_000),
            "host": &*origin.host.name,
            "source": "egret",
            "sourcetype": source_type,
            "event": ecs_json::document(notification, origin),
        });
        if let (Some(index), Json::Object(event)) = (index, &mut event) {
            event.insert("index".to_owned(), json!(index));
        }
        to_bytes(&event)
    };
    let events: Vec<Vec<u8>> = message.notifications.iter().map(|one| event(one)).collect();
    events.join(&b'\n')
}

/// A push to Loki. Its labels have few values each: what is particular stands in the line.
pub fn loki(message: &Message, origin: &Origin) -> Vec<u8> {
    let stream = |notification: &Notification| {
        let line = String::from_utf8(ecs_json::encode(notification, origin)).unwrap_or_default();
        json!({
            "stream": {
                "job": "egret",
                "host": &*origin.host.name,
                "severity": notification.severity().name(),
                "rule": leef::identity(notification).0,
            },
            "values": [[notification.timestamp.as_nanos().to_string(), line]],
        })
    };
    let streams: Vec<Json> = message.notifications.iter().map(|one| stream(one)).collect();
    to_bytes(&json!({"streams": streams}))
}

struct ApiAlert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    link: Option<String>,
}

/// Labels are what makes the alert the same one: never a number that changes.
fn api_alert(notification: &Notification, origin: &Origin) -> ApiAlert {
    let mut labels = BTreeMap::from([
        ("alertname".to_owned(), leef::identity(notification).0),
        ("severity".to_owned(), notification.severity().name().to_owned()),
        ("host".to_owned(), one_line(&*origin.host.name)),
    ]);
    let mut annotations = BTreeMap::from([("summary".to_owned(), one_line(notification.summary()))]);
    let mut starts_at = notification.timestamp;
    let mut ends_at = None;
    let mut link = None;
    if let Some(alert) = &notification.alert {
        for (field, value) in &alert.group {
            labels.insert(label_name(field), value.to_string());
        }
        // An escalation must not make another alert of it.
        labels.insert("severity".to_owned(), alert.rule.metadata.severity.name().to_owned());
        labels.insert("key".to_owned(), one_line(&*alert.state.key));
        let rule = &alert.rule.metadata;
        if !rule.description.is_empty() {
            annotations.insert("description".to_owned(), rule.description.clone());
        }
        link = rule.references.first().filter(|link| link.starts_with("http")).cloned();
        annotations.extend(link.clone().map(|link| ("runbook_url".to_owned(), link)));
        let values = alert.values.iter().map(|(metric, value)| (label_name(metric), value.as_f64().to_string()));
        annotations.extend(values);
        let process = alert.process.as_ref();
        annotations.extend(process.map(|process| ("cmdline".to_owned(), process.cmdline.to_string())));
        let end = alert.destination.as_ref();
        annotations.extend(end.map(|end| ("destination".to_owned(), end.ip.to_string())));
        starts_at = alert.state.fired_at.unwrap_or(alert.state.started_at);
        ends_at = notification.kind.ends().then(|| alert.state.ended_at.unwrap_or(notification.timestamp));
    }
    if let Some(problem) = &notification.problem {
        let details = problem.details.iter().map(|(name, value)| (label_name(name), one_line(value)));
        annotations.extend(details);
        ends_at = problem.resolved.then_some(notification.timestamp);
    }
    labels.retain(|_, value| !value.is_empty());
    ApiAlert { labels, annotations, starts_at, ends_at, link }
}

/// `dst.registered_domain` as `dst_registered_domain`: `[a-zA-Z_][a-zA-Z0-9_]*`.
fn label_name(name: &str) -> String {
    let name: String = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let mut hash = blake3::Hasher::new();
    for (name, value) in labels {
        hash.update(name.as_bytes()).update(&[0xff]).update(value.as_bytes()).update(&[0xff]);
    }
    hash.finalize().to_hex().chars().take(16).collect()
}

fn to_bytes(value: &Json) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn labels_are_the_identity_and_numbers_are_annotations() {
        let read = |notification| -> Json {
            serde_json::from_slice(&alertmanager(&Message::single("am", notification), &example::origin())).unwrap()
        };
        let (firing, resolved) = (read(example::firing()), read(example::resolved()));
        assert_eq!(firing[0]["labels"], resolved[0]["labels"]);
        assert_eq!(firing[0]["labels"]["dst_registered_domain"], "example.net");
        assert_eq!(firing[0]["annotations"]["bytes_out"], "734003200");
        assert_eq!(firing[0].get("endsAt"), None);
        assert_eq!(resolved[0]["endsAt"], "2026-05-04T02:40:00.000000000Z");
        assert_eq!((label_name("9 lives"), label_name("bytes_out.rate")), ("_9_lives".into(), "bytes_out_rate".into()));
    }

    #[test]
    fn the_webhook_body_is_that_of_version_4() {
        let mut message = Message::single("am", example::firing());
        message.notifications.push(example::resolved());
        message.group = vec![("rule".into(), "exfil-cloud-storage".into())];
        message.omitted = 3;
        let body: Json = serde_json::from_slice(&alertmanager_webhook(&message, &example::origin())).unwrap();
        assert_eq!((body["version"].as_str(), body["status"].as_str()), (Some("4"), Some("firing")));
        assert_eq!(body["truncatedAlerts"], 3);
        assert_eq!(body["alerts"][1]["status"], "resolved");
        assert_eq!(body["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
        assert_eq!(body["alerts"][0]["fingerprint"], body["alerts"][1]["fingerprint"]);
        assert_eq!(body["commonLabels"]["alertname"], "exfil-cloud-storage");
    }

    #[test]
    fn collectors_get_one_document_a_notification() {
        let message = Message::single("es", example::firing());
        let bulk = String::from_utf8(elasticsearch(&message, &example::origin(), "egret-alerts")).unwrap();
        let lines: Vec<Json> = bulk.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(bulk.ends_with('\n'));
        assert_eq!(lines[0]["create"]["_id"], format!("{}-0", message.id));
        assert_eq!(lines[1]["event"]["kind"], "alert");
        let event: Json =
            serde_json::from_slice(&splunk(&message, &example::origin(), Some("sec"), "egret:alert")).unwrap();
        assert_eq!((event["time"].as_str(), event["index"].as_str()), (Some("1777860669.482"), Some("sec")));
        let push: Json = serde_json::from_slice(&loki(&message, &example::origin())).unwrap();
        assert_eq!(push["streams"][0]["values"][0][0], "1777860669482113000");
        assert_eq!(push["streams"][0]["stream"]["severity"], "high");
    }
}
