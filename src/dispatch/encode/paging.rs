//! A message for services that call people: PagerDuty, Opsgenie.
//!
//! Both know an alert by its key, so that a resolution closes what a firing opened.

use serde_json::{Value as Json, json};

use crate::alert::{Message, Notification, Origin};
use crate::dispatch::encode::{leef, text};
use crate::escape::one_line;
use crate::rule::Severity;

/// An event of PagerDuty's Events API v2, without its routing key, which is a
/// secret and joins it on the way out.
pub fn pagerduty(message: &Message, origin: &Origin) -> Vec<u8> {
    let notification = message.headline();
    let severity = match notification.severity() {
        Severity::Critical => "critical",
        Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Info => "info",
    };
    let links: Vec<Json> =
        links(notification).into_iter().map(|link| json!({"href": link, "text": "Runbook"})).collect();
    let event = |details: Json| {
        json!({
            "event_action": if message.kind().ends() { "resolve" } else { "trigger" },
            "dedup_key": cut(notification.key(), 255),
            "payload": {
                "summary": cut(&one_line(notification.summary()), 1024),
                "source": one_line(&*origin.host.name),
                "severity": severity,
                "timestamp": notification.timestamp,
                "component": component(notification),
                "group": "host",
                "class": leef::identity(notification).0,
                "custom_details": details,
            },
            "client": "egret",
            "links": links,
        })
    };
    let whole = event(details(notification)).to_string();
    if whole.len() <= LARGEST_EVENT {
        return whole.into_bytes();
    }
    event(json!({"truncated": "the details were too large"})).to_string().into_bytes()
}

/// An alert of Opsgenie's API; a resolution is the body of its close request.
pub fn opsgenie(message: &Message, origin: &Origin) -> Vec<u8> {
    let notification = message.headline();
    if message.kind().ends() {
        return json!({"source": one_line(&*origin.host.name), "note": cut(&one_line(notification.summary()), 25_000)})
            .to_string()
            .into_bytes();
    }
    let priority = match notification.severity() {
        Severity::Critical => "P1",
        Severity::High => "P2",
        Severity::Medium => "P3",
        Severity::Low => "P4",
        Severity::Info => "P5",
    };
    let tags: Vec<String> = match &notification.alert {
        Some(alert) => alert.rule.metadata.tags.iter().take(20).map(|tag| cut(tag, 50)).collect(),
        None => Vec::new(),
    };
    json!({
        "message": cut(&leef::identity(notification).1, 130),
        "alias": cut(notification.key(), 512),
        "description": cut(&text::encode(message, text::Palette::Plain), 15_000),
        "entity": cut(&component(notification), 512),
        "source": cut(&one_line(&*origin.host.name), 100),
        "priority": priority,
        "tags": tags,
        "details": flat(&details(notification)),
    })
    .to_string()
    .into_bytes()
}

fn details(notification: &Notification) -> Json {
    match (&notification.alert, &notification.problem) {
        (Some(alert), _) => {
            let facts = text::facts(alert, notification.kind).into_iter();
            Json::Object(facts.map(|(name, value)| (name.to_owned(), Json::String(value))).collect())
        }
        (None, problem) => json!(problem),
    }
}

fn flat(details: &Json) -> Json {
    let Json::Object(details) = details else { return json!({}) };
    let text =
        |value: &Json| Json::String(cut(&value.as_str().map_or_else(|| value.to_string(), str::to_owned), 1_000));
    Json::Object(details.iter().take(8).map(|(name, value)| (name.clone(), text(value))).collect())
}

fn component(notification: &Notification) -> String {
    let process = notification.alert.as_ref().and_then(|alert| alert.process.as_ref());
    process.map_or_else(|| "egret".to_owned(), |process| process.executable.exe.to_string())
}

fn links(notification: &Notification) -> Vec<String> {
    let references = notification.alert.iter().flat_map(|alert| &alert.rule.metadata.references);
    references.filter(|link| link.starts_with("https://")).map(one_line).collect()
}

/// At most so many bytes, between letters.
fn cut(text: &str, longest: usize) -> String {
    text.get(..text.floor_char_boundary(longest)).unwrap_or_default().to_owned()
}

/// PagerDuty refuses larger events.
const LARGEST_EVENT: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn a_resolution_closes_what_a_firing_opened() {
        let read = |notification| -> Json {
            serde_json::from_slice(&pagerduty(&Message::single("pager", notification), &example::origin())).unwrap()
        };
        let (firing, resolved) = (read(example::firing()), read(example::resolved()));
        assert_eq!((&firing["event_action"], &resolved["event_action"]), (&json!("trigger"), &json!("resolve")));
        assert_eq!(firing["dedup_key"], resolved["dedup_key"]);
        assert_eq!(firing["payload"]["severity"], "error");
        assert_eq!(firing["payload"]["component"], "/usr/bin/rclone");
        assert_eq!(firing["links"][0]["text"], "Runbook");
        assert_eq!(firing.get("routing_key"), None, "the key is a secret and joins on the way out");
    }

    #[test]
    fn opsgenie_keeps_its_limits() {
        let message = Message::single("page", example::with_command_line(&"ü".repeat(100_000).into_bytes()));
        let body: Json = serde_json::from_slice(&opsgenie(&message, &example::origin())).unwrap();
        assert!(body["message"].as_str().unwrap().len() <= 130);
        assert!(body["description"].as_str().unwrap().len() <= 15_000);
        assert_eq!((body["priority"].as_str(), body["alias"].as_str()), (Some("P2"), Some("b3:9f2c4e")));
    }
}
