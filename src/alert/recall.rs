//! An alert read back from its kept document, as far as labels and receivers need it.
//!
//! After a restart routes, silences and inhibitions must see an alert that
//! still fires just as they saw it before, and its end must be said of the same
//! alert. What only evidence holds (series, tops, conditions) stays behind.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::alert::{
    Alert, AlertState, Destination, DocumentKind, ExecutableFacts, Network, Notification, Parent, ProcessFacts,
    RuleFacts, Source, UserFacts,
};
use crate::attribution::Container;
use crate::flow::Scope;
use crate::packet::Address;
use crate::rule::{Field, Host, Metadata, Quantity, Value};
use crate::time::Timestamp;

/// The notification that a kept document tells; `None` where it tells no alert.
pub fn recall(document: &Json) -> Option<Notification> {
    let kind = DocumentKind::from_name(document["type"].as_str()?)?;
    let data = document.get("data")?;
    let state = &data["alert"];
    let alert = Alert {
        schema: "egress-alert/1",
        state: AlertState {
            uid: text(&state["uid"])?,
            key: text(&state["key"])?,
            episode: state["episode"].as_u64().unwrap_or_default(),
            state: word(&state["state"], &["pending", "firing", "resolved", "withdrawn", "suppressed"]),
            started_at: moment(&state["started_at"])?,
            fired_at: moment(&state["fired_at"]),
            ended_at: moment(&state["ended_at"]),
            suppressed: state["suppressed"].as_u64().unwrap_or_default(),
            coverage: state["coverage"].as_f64().unwrap_or_default(),
            approximate: state["approximate"] == true,
        },
        rule: RuleFacts { metadata: Arc::new(metadata(&data["rule"])?), ..RuleFacts::default() },
        group: group(&data["group"]),
        values: data["values"].as_object().into_iter().flatten().filter_map(quantity).collect(),
        process: data["process"].as_object().map(|_| process(&data["process"])),
        parent: data["parent"].as_object().map(|_| Parent {
            pid: number(&data["parent"]["pid"]),
            exe: lossless(&data["parent"], "exe"),
            cmdline: lossless(&data["parent"], "cmdline"),
        }),
        user: data["user"].as_object().map(|_| UserFacts {
            uid: data["user"]["uid"].as_u64().and_then(|uid| u32::try_from(uid).ok()),
            name: text(&data["user"]["name"]),
            login_name: text(&data["user"]["login_name"]),
        }),
        container: container(&data["container"]),
        source: address(&data["source"]).map(|ip| Source { ip, port: number(&data["source"]["port"]) }),
        destination: destination(&data["destination"]),
        network: data["network"].as_object().map(|_| Network {
            transport: data["network"]["transport"].as_str().unwrap_or_default().to_owned(),
            direction: word(&data["network"]["direction"], &["outbound", "inbound", "local"]),
            ..Network::default()
        }),
        host: Host {
            name: text(&data["host"]["name"]).unwrap_or_default(),
            id: text(&data["host"]["id"]),
            tags: data["host"]["tags"].as_array().into_iter().flatten().filter_map(text).collect(),
        },
        summary: data["summary"].as_str().unwrap_or_default().to_owned(),
        ..Alert::default()
    };
    Some(Notification::of_alert(kind, moment(&document["timestamp"])?, alert))
}

fn metadata(rule: &Json) -> Option<Metadata> {
    let list = |name: &str| -> Vec<String> {
        rule[name].as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let own = |name: &str| rule[name].as_str().map(str::to_owned);
    Some(Metadata {
        id: text(&rule["id"])?,
        title: own("title").unwrap_or_default(),
        description: own("description").unwrap_or_default(),
        status: serde_json::from_value(rule["status"].clone()).unwrap_or_default(),
        severity: serde_json::from_value(rule["severity"].clone()).unwrap_or_default(),
        confidence: serde_json::from_value(rule["confidence"].clone()).unwrap_or_default(),
        tags: list("tags"),
        attack: list("attack"),
        references: list("references"),
        owner: own("owner"),
        note: own("note"),
        pack: own("pack"),
        revision: rule["revision"].as_u64(),
    })
}

fn group(pairs: &Json) -> Vec<(&'static str, Value)> {
    let pairs = pairs.as_object().into_iter().flatten();
    pairs.filter_map(|(name, kept)| Some((Field::from_name(name)?.name(), value(kept)))).collect()
}

fn process(facts: &Json) -> ProcessFacts {
    ProcessFacts {
        pid: number(&facts["pid"]),
        executable: ExecutableFacts {
            exe: lossless(facts, "exe"),
            kind: word(&facts["exe_kind"], &["file", "deleted", "memfd", "unknown"]),
            hash: text(&facts["sha256"]),
            package: text(&facts["package"]),
        },
        cmdline: lossless(facts, "cmdline"),
        started_at: moment(&facts["started_at"]),
        unit: text(&facts["unit"]),
        ..ProcessFacts::default()
    }
}

fn container(facts: &Json) -> Option<Container> {
    Some(Container {
        id: text(&facts["id"])?,
        runtime: text(&facts["runtime"]),
        name: text(&facts["name"]),
        image: text(&facts["image"]),
        pod: text(&facts["pod"]),
        namespace: text(&facts["namespace"]),
        ..Container::default()
    })
}

fn destination(facts: &Json) -> Option<Destination> {
    Some(Destination {
        ip: address(facts)?,
        port: number(&facts["port"]),
        domain: text(&facts["domain"]),
        domain_source: Some(word(&facts["domain_source"], &["sni", "dns", "quic", "http"])).filter(|w| !w.is_empty()),
        registered_domain: text(&facts["registered_domain"]),
        scope: word(&facts["scope"], &Scope::ALL.map(Scope::name)),
        country: text(&facts["country"]),
        ..Destination::default()
    })
}

fn address(end: &Json) -> Option<Address> {
    end["ip"].as_str()?.parse::<std::net::IpAddr>().ok().map(Address::from)
}

/// A value that also kept its bytes where they are no text.
fn lossless(facts: &Json, name: &str) -> Value {
    let bytes = facts[format!("{name}_bytes_b64")].as_str().and_then(|encoded| STANDARD.decode(encoded).ok());
    bytes.map_or_else(|| value(&facts[name]), |bytes| Value::Text(bytes.into()))
}

fn value(kept: &Json) -> Value {
    match kept {
        Json::String(text) => Value::Text(text.as_str().into()),
        Json::Number(number) => number.as_u64().map_or(Value::Missing, Value::Number),
        Json::Array(list) => Value::List(list.iter().filter_map(|one| one.as_str().map(Into::into)).collect()),
        _ => Value::Missing,
    }
}

fn quantity((metric, value): (&String, &Json)) -> Option<(String, Quantity)> {
    let quantity = value.as_u64().map(Quantity::Count).or_else(|| value.as_f64().map(Quantity::Ratio))?;
    Some((metric.clone(), quantity))
}

fn text(value: &Json) -> Option<Arc<str>> {
    value.as_str().map(Into::into)
}

fn moment(value: &Json) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// One of the words that a document uses; empty for any other.
fn word(value: &Json, known: &[&'static str]) -> &'static str {
    known.iter().find(|word| value == **word).copied().unwrap_or_default()
}

fn number<N: TryFrom<u64> + Default>(value: &Json) -> N {
    value.as_u64().and_then(|number| N::try_from(number).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{LABELS, label_values};
    use crate::rule::Severity;

    #[test]
    fn labels_are_the_same_after_a_restart() {
        let metadata = Metadata {
            id: "exfil".into(),
            severity: Severity::Critical,
            tags: vec!["exfiltration".into()],
            attack: vec!["T1567".into()],
            ..Metadata::default()
        };
        let alert = Alert {
            state: AlertState { uid: "u".into(), key: "k".into(), state: "firing", ..AlertState::default() },
            rule: RuleFacts { metadata: Arc::new(metadata), ..RuleFacts::default() },
            group: vec![("exe", Value::Text("/usr/bin/rclone".into())), ("dst.port", Value::Number(443))],
            process: Some(ProcessFacts {
                pid: 7,
                executable: ExecutableFacts {
                    exe: Value::Text("/usr/bin/rclone".into()),
                    kind: "file",
                    ..ExecutableFacts::default()
                },
                cmdline: Value::Text("rclone copy caf\u{e9}".into()),
                unit: Some("backup.service".into()),
                ..ProcessFacts::default()
            }),
            user: Some(UserFacts { uid: Some(1000), name: Some("alice".into()), login_name: None }),
            container: Some(Container { id: "c0ffee".into(), image: Some("app:1".into()), ..Container::default() }),
            destination: Some(Destination {
                ip: Address::from_v4([203, 0, 113, 7]),
                port: 443,
                domain: Some("up.example.net".into()),
                registered_domain: Some("example.net".into()),
                scope: "public",
                country: Some("NL".into()),
                ..Destination::default()
            }),
            host: Host { name: "web-07".into(), id: None, tags: vec!["dmz".into()] },
            ..Alert::default()
        };
        let before = Notification::of_alert(DocumentKind::Updated, Timestamp::from_secs(7), alert);
        let after = recall(&serde_json::to_value(&before).unwrap()).unwrap();
        for label in LABELS.iter().chain(&["dst.port"]) {
            assert_eq!(label_values(&after, label), label_values(&before, label), "{label}");
        }
        assert_eq!(after.timestamp, before.timestamp);
        let mut hostile = before;
        let alert = Arc::make_mut(hostile.alert.as_mut().unwrap());
        alert.process.as_mut().unwrap().cmdline = Value::Text(b"\xff\\xff\0".as_slice().into());
        let after = recall(&serde_json::to_value(&hostile).unwrap()).unwrap();
        assert_eq!(
            after.alert.unwrap().process.as_ref().unwrap().cmdline,
            Value::Text(b"\xff\\xff\0".as_slice().into())
        );
        assert!(recall(&serde_json::json!({"type": "agent.heartbeat"})).is_none());
    }
}
