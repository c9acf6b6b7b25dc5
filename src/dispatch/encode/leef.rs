//! A notification in IBM's Log Event Extended Format 2.0, with tabs between attributes.

use crate::alert::Notification;
use crate::dispatch::encode::{cef, ecs_json::known};
use crate::escape::one_line;
use crate::time::Timestamp;

/// The record of one notification.
pub fn encode(notification: &Notification) -> Vec<u8> {
    let (id, _) = identity(notification);
    let id = one_line(id).replace('|', "/");
    let mut attributes = vec![
        ("devTime", milliseconds(notification.timestamp)),
        ("devTimeFormat", "yyyy-MM-dd'T'HH:mm:ss.SSSX".to_owned()),
        ("sev", cef::severity(notification.severity()).to_string()),
        ("action", notification.kind.name().to_owned()),
        ("msg", notification.summary().to_owned()),
    ];
    let mut add = |key, value: Option<String>| attributes.extend(value.map(|value| (key, value)));
    if let Some(problem) = &notification.problem {
        add("problem", Some(problem.id.to_owned()));
    }
    if let Some(alert) = &notification.alert {
        let rule = &alert.rule.metadata;
        add("externalId", Some(alert.state.uid.to_string()));
        add("alertKey", Some(alert.state.key.to_string()));
        add("state", Some(alert.state.state.to_owned()));
        add("cat", rule.tags.first().cloned());
        add("confidence", Some(format!("{:?}", rule.confidence).to_lowercase()));
        add("attack", (!rule.attack.is_empty()).then(|| rule.attack.join(",")));
        add("ruleVersion", rule.revision.map(|revision| revision.to_string()));
        add("url", rule.references.first().cloned());
        add("identHostName", Some(alert.host.name.to_string()));
        if let Some(source) = &alert.source {
            add("src", Some(source.ip.to_string()));
            add("srcPort", (source.port != 0).then(|| source.port.to_string()));
        }
        if let Some(end) = &alert.destination {
            add("dst", Some(end.ip.to_string()));
            add("dstPort", (end.port != 0).then(|| end.port.to_string()));
            add("dstHost", end.domain.as_deref().map(str::to_owned));
        }
        if let Some(network) = &alert.network {
            add("proto", Some(network.transport.to_uppercase()));
            add("app", Some(network.l7.to_owned()));
            add("dir", Some(network.direction.to_owned()));
            add("iface", network.iface.clone());
        }
        add("usrName", alert.user.as_ref().and_then(|user| user.name.as_deref()).map(str::to_owned));
        for (key, metric) in [
            ("srcBytes", "bytes_out"),
            ("dstBytes", "bytes_in"),
            ("totalBytes", "bytes_total"),
            ("srcPackets", "packets_out"),
            ("dstPackets", "packets_in"),
            ("eventCnt", "connections"),
        ] {
            add(key, alert.values.get(metric).map(|value| value.as_f64().to_string()));
        }
        if let Some(process) = &alert.process {
            add("resource", known(&process.executable.exe));
            add("pid", Some(process.pid.to_string()));
            add("unit", process.unit.as_deref().map(str::to_owned));
            add("fileHash", process.executable.hash.as_deref().map(str::to_owned));
            add("cmdline", known(&process.cmdline));
        }
        add("parent", alert.parent.as_ref().and_then(|parent| known(&parent.exe)));
        add("container", alert.container.as_ref().map(|container| container.id.to_string()));
    }
    let attributes: Vec<String> =
        attributes.into_iter().map(|(key, value)| format!("{key}={}", one_line(value.replace('\t', " ")))).collect();
    format!("LEEF:2.0|Egret|egret|{}|{id}|x09|{}", env!("CARGO_PKG_VERSION"), attributes.join("\t")).into_bytes()
}

fn milliseconds(timestamp: Timestamp) -> String {
    let text = timestamp.to_string();
    text.get(..23).map_or_else(|| text.clone(), |kept| format!("{kept}Z"))
}

/// What the event is, and what people call it.
pub fn identity(notification: &Notification) -> (String, String) {
    match (&notification.alert, &notification.problem) {
        (Some(alert), _) => {
            let rule = &alert.rule.metadata;
            let title = if rule.title.is_empty() { rule.id.to_string() } else { rule.title.clone() };
            (rule.id.to_string(), title)
        }
        (None, Some(problem)) => (problem.id.to_owned(), problem.id.to_owned()),
        (None, None) => (notification.kind.name().to_owned(), notification.kind.name().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;
    use std::collections::BTreeMap;

    #[test]
    fn tabs_and_lines_stay_within_their_attribute() {
        let record = encode(&example::with_command_line(b"a\tdst=6.6.6.6\nb|c = d"));
        let record = String::from_utf8(record).unwrap();
        let parts: Vec<&str> = record.splitn(7, '|').collect();
        assert_eq!(parts[..3], ["LEEF:2.0", "Egret", "egret"]);
        assert_eq!(parts[4..6], ["exfil-cloud-storage", "x09"]);
        let fields: BTreeMap<&str, &str> = parts[6].split('\t').map(|field| field.split_once('=').unwrap()).collect();
        assert_eq!(fields["cmdline"], "a dst=6.6.6.6\\nb|c = d");
        assert_eq!((fields["dst"], fields["srcBytes"], fields["usrName"]), ("203.0.113.7", "734003200", "alice"));
    }
}
