//! Our own JSON: the body of a webhook, a line of a file.
//!
//! One notification is an object with `type`, `timestamp` and `data`; several
//! are one object of type `alerts`. A document that would grow beyond
//! [`TARGET_BYTES`] loses the ends of its lists first, then of its command line,
//! and says so in `truncated`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

use crate::alert::{Alert, Notification, Problem};
use crate::alert::{Message, Origin};
use crate::rule::{Host, Value};
use crate::time::Timestamp;

/// The JSON of a message.
pub fn encode(message: &Message, origin: &Origin) -> Vec<u8> {
    let suppressed = message.suppressed.as_deref();
    if let [only] = message.notifications.as_slice()
        && message.group.is_empty()
    {
        return encode_one(only, origin, suppressed);
    }
    let alerts: Vec<Document<'_>> = message
        .notifications
        .iter()
        .map(|notification| document(notification, origin, suppressed, Cut::Short))
        .collect();
    let group: std::collections::BTreeMap<&str, &str> =
        message.group.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
    bytes(&Several {
        kind: "alerts",
        timestamp: message.timestamp,
        data: SeveralData { reason: message.reason, group, alerts, truncated: message.omitted, host: &origin.host },
    })
}

/// The JSON of one notification.
pub fn encode_one(notification: &Notification, origin: &Origin, suppressed: Option<&str>) -> Vec<u8> {
    let whole = bytes(&document(notification, origin, suppressed, Cut::Nothing));
    if whole.len() <= TARGET_BYTES {
        return whole;
    }
    let shorter = bytes(&document(notification, origin, suppressed, Cut::Lists));
    if shorter.len() <= TARGET_BYTES {
        return shorter;
    }
    bytes(&document(notification, origin, suppressed, Cut::Short))
}

/// The same document in a small form, for a receiver that found it too large:
/// long texts and lists in it are cut, and nothing else is touched.
pub fn shrink(body: &[u8]) -> Vec<u8> {
    let shrink_line = |line: &[u8]| match serde_json::from_slice::<serde_json::Value>(line) {
        Ok(mut value) => {
            shrink_value(&mut value);
            bytes(&value)
        }
        Err(_) => line.to_vec(),
    };
    let lines: Vec<Vec<u8>> = body.split(|byte| *byte == b'\n').map(shrink_line).collect();
    lines.join(&b'\n')
}

/// The size that a document of one alert should not exceed.
pub const TARGET_BYTES: usize = 20_000;

#[derive(Clone, Copy, PartialEq)]
enum Cut {
    Nothing,
    Lists,
    Short,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: crate::alert::DocumentKind,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Alert {
        #[serde(flatten)]
        alert: Box<Cow<'a, Alert>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        suppressed_by: Option<&'a str>,
    },
    Problem {
        #[serde(flatten)]
        problem: &'a Problem,
        host: &'a Host,
    },
    Alive {
        host: &'a Host,
        pid: u32,
        version: &'static str,
    },
}

#[derive(Serialize)]
struct Several<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    data: SeveralData<'a>,
}

#[derive(Serialize)]
struct SeveralData<'a> {
    reason: crate::alert::Reason,
    group: std::collections::BTreeMap<&'a str, &'a str>,
    alerts: Vec<Document<'a>>,
    truncated: usize,
    host: &'a Host,
}

fn document<'a>(
    notification: &'a Notification,
    origin: &'a Origin,
    suppressed_by: Option<&'a str>,
    cut: Cut,
) -> Document<'a> {
    let data = match (&notification.alert, &notification.problem) {
        (Some(alert), _) => Data::Alert { alert: Box::new(shortened(alert, cut)), suppressed_by },
        (None, Some(problem)) => Data::Problem { problem, host: &origin.host },
        (None, None) => Data::Alive { host: &origin.host, pid: origin.pid, version: env!("CARGO_PKG_VERSION") },
    };
    Document { kind: notification.kind, timestamp: notification.timestamp, data }
}

fn shortened(alert: &Alert, cut: Cut) -> Cow<'_, Alert> {
    let escalated = alert.rule.severity() != alert.rule.metadata.severity;
    if cut == Cut::Nothing && !escalated {
        return Cow::Borrowed(alert);
    }
    let mut alert = alert.clone();
    if escalated {
        Arc::make_mut(&mut alert.rule.metadata).severity = alert.rule.severity();
    }
    if cut == Cut::Nothing {
        return Cow::Owned(alert);
    }
    let (few, text) = if cut == Cut::Lists { (5, usize::MAX) } else { (3, LONGEST_TEXT) };
    let mut truncated = std::mem::take(&mut alert.truncated);
    let mut note = |cut_off: bool, what| {
        if cut_off && !truncated.contains(&what) {
            truncated.push(what);
        }
    };
    for values in alert.top.values_mut() {
        note(values.len() > few, "top");
        values.truncate(few);
    }
    note(alert.processes.len() > few, "processes");
    alert.processes.truncate(few);
    note(alert.series.len() > 60, "series");
    let beyond = alert.series.len().saturating_sub(60);
    alert.series.drain(..beyond);
    if let Some(process) = &mut alert.process {
        if cut_text(&mut process.cmdline, text) {
            note(true, "cmdline");
            process.args = Value::Missing;
        }
        note(cut_text(&mut process.executable.exe, text), "exe");
    }
    for (process, _) in &mut alert.processes {
        note(cut_text(&mut process.cmdline, text), "processes");
    }
    if let Some(parent) = &mut alert.parent {
        note(cut_text(&mut parent.cmdline, text), "parent");
    }
    for (_, value) in &mut alert.group {
        note(cut_text(value, text), "group");
    }
    for value in alert.top.values_mut().flatten() {
        note(cut_text(&mut value.0, text), "top");
    }
    if alert.summary.len() > text {
        note(true, "summary");
        let end = alert.summary.floor_char_boundary(text);
        alert.summary.truncate(end);
    }
    alert.truncated = truncated;
    Cow::Owned(alert)
}

/// Cuts a text, and says whether it had to.
fn cut_text(value: &mut Value, longest: usize) -> bool {
    match value {
        Value::Text(text) if text.len() > longest => {
            let end =
                (0..=longest).rev().find(|end| text.get(*end).is_none_or(|byte| byte & 0xc0 != 0x80)).unwrap_or(0);
            text.truncate(end);
            true
        }
        Value::List(list) => {
            let mut left = longest;
            let before = list.len();
            list.retain(|item| {
                let fits = item.len() <= left;
                left = left.saturating_sub(item.len());
                fits
            });
            list.len() < before
        }
        _ => false,
    }
}

fn shrink_value(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) if text.len() > 256 => {
            text.truncate(text.floor_char_boundary(256));
            text.push('…');
        }
        serde_json::Value::Array(list) => {
            list.truncate(3);
            list.iter_mut().for_each(shrink_value);
        }
        serde_json::Value::Object(map) => map.values_mut().for_each(shrink_value),
        _ => {}
    }
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings are the only keys, and nothing here fails to serialise")
}

/// Longer texts are cut in a document that is too large.
const LONGEST_TEXT: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{DocumentKind, ProcessFacts};
    use crate::dispatch::encode::example;

    #[test]
    fn one_alert_is_the_documented_object() {
        let body: serde_json::Value =
            serde_json::from_slice(&encode(&Message::single("hook", example::firing()), &example::origin())).unwrap();
        assert_eq!(body["type"], "alert.firing");
        assert_eq!(body["timestamp"], "2026-05-04T02:11:09.482113000Z");
        assert_eq!(body["data"]["schema"], "egress-alert/1");
        assert_eq!(body["data"]["alert"]["state"], "firing");
        assert_eq!(body["data"]["rule"]["severity"], "high");
        assert_eq!(body["data"]["values"]["bytes_out"], 734_003_200);
        assert_eq!(body["data"]["process"]["cmdline"], "rclone copy /srv/pii remote:bkt");
        assert_eq!(body["data"]["top"]["dst.ip"][0][0], "203.0.113.7");
    }

    #[test]
    fn an_escalated_severity_is_the_one_that_is_said() {
        let mut notification = (*example::firing()).clone();
        Arc::make_mut(notification.alert.as_mut().unwrap()).rule.escalated = Some(crate::rule::Severity::Critical);
        let body: serde_json::Value =
            serde_json::from_slice(&encode_one(&notification, &example::origin(), None)).unwrap();
        assert_eq!(body["data"]["rule"]["severity"], "critical");
    }

    #[test]
    fn large_documents_are_cut_and_say_so() {
        let mut notification = (*example::firing()).clone();
        let alert = Arc::make_mut(notification.alert.as_mut().unwrap());
        let long = Value::Text("ü".repeat(70_000).into());
        alert.process = Some(ProcessFacts { cmdline: long, ..ProcessFacts::default() });
        let body = encode_one(&notification, &example::origin(), None);
        assert!(body.len() < TARGET_BYTES, "{} bytes", body.len());
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["data"]["truncated"][0], "cmdline");
        assert_eq!(body["data"]["process"]["cmdline"].as_str().unwrap(), "ü".repeat(1024), "cut between letters");
    }

    #[test]
    fn several_alerts_are_one_object() {
        let mut message = Message::single("hook", example::firing());
        message.notifications.push(example::resolved());
        message.group = vec![("rule".into(), "exfil-cloud-storage".into())];
        message.omitted = 7;
        let body: serde_json::Value = serde_json::from_slice(&encode(&message, &example::origin())).unwrap();
        assert_eq!(body["type"], "alerts");
        assert_eq!(body["data"]["truncated"], 7);
        assert_eq!(body["data"]["alerts"][1]["type"], "alert.resolved");
    }

    #[test]
    fn signs_of_life_and_problems_name_the_host() {
        let alive =
            Notification { kind: DocumentKind::Heartbeat, timestamp: Timestamp::EPOCH, alert: None, problem: None };
        let body: serde_json::Value = serde_json::from_slice(&encode_one(&alive, &example::origin(), None)).unwrap();
        assert_eq!(body["data"]["host"]["name"], "web-07");
        let problem = Notification::of_problem(Timestamp::EPOCH, Problem { id: "capture-drops", ..Problem::default() });
        let body: serde_json::Value = serde_json::from_slice(&encode_one(&problem, &example::origin(), None)).unwrap();
        assert_eq!(body["data"]["id"], "capture-drops");
        assert_eq!(body["data"]["host"]["name"], "web-07");
    }

    #[test]
    fn the_small_form_keeps_every_key() {
        let body = serde_json::json!({"a": "x".repeat(1000), "b": [1, 2, 3, 4, 5]}).to_string();
        let small: serde_json::Value = serde_json::from_slice(&shrink(body.as_bytes())).unwrap();
        assert_eq!(small["b"], serde_json::json!([1, 2, 3]));
        assert_eq!(small["a"].as_str().unwrap().chars().count(), 257);
    }
}
