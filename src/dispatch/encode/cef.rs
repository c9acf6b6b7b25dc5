//! A notification in ArcSight's Common Event Format.

use crate::alert::{Alert, Notification};
use crate::dispatch::encode::ecs_json::known;
use crate::escape::one_line;
use crate::rule::{Confidence, Severity};

/// The record of one notification.
pub fn encode(notification: &Notification) -> Vec<u8> {
    let (id, name) = crate::dispatch::encode::leef::identity(notification);
    let header = ["Egret", "egret", env!("CARGO_PKG_VERSION"), &id, &name].map(escape_header).join("|");
    let mut extension = vec![("rt", notification.timestamp.as_millis().to_string())];
    extension.push(("act", notification.kind.name().to_owned()));
    extension.push(("msg", notification.summary().to_owned()));
    if let Some(alert) = &notification.alert {
        extension.extend(fields(alert));
    }
    if let Some(problem) = &notification.problem {
        extension.push(("reason", problem.id.to_owned()));
        let details: Vec<String> = problem.details.iter().map(|(name, value)| format!("{name}={value}")).collect();
        extension.extend([("cs1Label", "details".to_owned()), ("cs1", details.join(" "))]);
    }
    let extension: Vec<String> =
        extension.into_iter().map(|(key, value)| format!("{key}={}", escape_value(&value))).collect();
    format!("CEF:0|{header}|{}|{}", severity(notification.severity()), extension.join(" ")).into_bytes()
}

/// Info 2, low 4, medium 6, high 8, critical 10.
pub fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 2,
        Severity::Low => 4,
        Severity::Medium => 6,
        Severity::High => 8,
        Severity::Critical => 10,
    }
}

fn fields(alert: &Alert) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let mut add = |key, value: Option<String>| all.extend(value.map(|value| (key, value)));
    let state = &alert.state;
    let rule = &alert.rule.metadata;
    add("externalId", Some(state.uid.to_string()));
    add("start", Some(state.started_at.as_millis().to_string()));
    add("end", state.ended_at.map(|at| at.as_millis().to_string()));
    add("dvchost", Some(alert.host.name.to_string()));
    add("cat", rule.tags.first().cloned());
    add("request", rule.references.first().cloned());
    if let Some(process) = &alert.process {
        add("sproc", known(&process.executable.exe));
        add("spid", Some(process.pid.to_string()));
        add("fileHash", process.executable.hash.as_deref().map(str::to_owned));
    }
    let user = alert.user.as_ref();
    add("suser", user.and_then(|user| user.name.as_deref()).map(str::to_owned));
    add("suid", user.and_then(|user| user.uid).map(|uid| uid.to_string()));
    if let Some(source) = &alert.source {
        // `src` and `dst` are IPv4 addresses; IPv6 has its own custom fields.
        add_address(&mut add, source.ip.ip(), "src", "c6a2", "c6a2Label", "Source IPv6 Address");
        add("spt", (source.port != 0).then(|| source.port.to_string()));
    }
    if let Some(end) = &alert.destination {
        add_address(&mut add, end.ip.ip(), "dst", "c6a3", "c6a3Label", "Destination IPv6 Address");
        add("dpt", (end.port != 0).then(|| end.port.to_string()));
        add("dhost", end.domain.as_deref().map(str::to_owned));
        add("destinationDnsDomain", end.registered_domain.as_deref().map(str::to_owned));
    }
    if let Some(network) = &alert.network {
        add("proto", Some(network.transport.to_uppercase()));
        add("app", Some(network.l7.to_owned()).filter(|l7| !l7.is_empty()));
        add("deviceDirection", Some(if network.direction == "inbound" { "0" } else { "1" }.to_owned()));
        add("deviceOutboundInterface", network.iface.clone());
    }
    for (key, metric) in [("out", "bytes_out"), ("in", "bytes_in"), ("cnt", "connections")] {
        add(key, alert.values.get(metric).map(|value| value.as_f64().to_string()));
    }
    let mut custom = |label_key, key, label: &str, value: Option<String>| {
        if let Some(value) = value {
            add(label_key, Some(label.to_owned()));
            add(key, Some(value));
        }
    };
    custom("cs1Label", "cs1", "cmdline", alert.process.as_ref().and_then(|process| known(&process.cmdline)));
    custom("cs2Label", "cs2", "parent", alert.parent.as_ref().and_then(|parent| known(&parent.exe)));
    let unit = alert.process.as_ref().and_then(|process| process.unit.as_deref()).map(str::to_owned);
    match &alert.container {
        Some(container) => custom("cs3Label", "cs3", "container", Some(container.id.to_string())),
        None => custom("cs3Label", "cs3", "unit", unit),
    }
    custom("cs4Label", "cs4", "attack", (!rule.attack.is_empty()).then(|| rule.attack.join(",")));
    custom("cs5Label", "cs5", "pack", rule.pack.clone());
    custom("cs6Label", "cs6", "alertKey", Some(state.key.to_string()));
    let bytes_total = alert.values.get("bytes_total").map(|value| value.as_f64().to_string());
    custom("cn1Label", "cn1", "bytesTotal", bytes_total);
    let number = |metric: &str| alert.values.get(metric).map(|value| value.as_f64().to_string());
    custom("cn2Label", "cn2", "packetsOut", number("packets_out"));
    custom("cn3Label", "cn3", "packetsIn", number("packets_in"));
    let confidence = match rule.confidence {
        Confidence::Low => 1,
        Confidence::Medium => 2,
        Confidence::High => 3,
    };
    custom("cfp1Label", "cfp1", "confidence", Some(confidence.to_string()));
    custom("cfp2Label", "cfp2", "baselineExpected", number("baseline.expected"));
    custom("cfp3Label", "cfp3", "baselineDeviation", number("baseline.deviation"));
    let group: Vec<String> = alert.group.iter().map(|(field, value)| format!("{field}={value}")).collect();
    custom("flexString1Label", "flexString1", "group", Some(group.join(" ")));
    let values: Vec<String> =
        alert.values.iter().map(|(metric, value)| format!("{metric}={}", value.as_f64())).collect();
    custom("flexString2Label", "flexString2", "values", Some(values.join(" ")));
    all
}

fn add_address(
    add: &mut impl FnMut(&'static str, Option<String>),
    ip: std::net::IpAddr,
    v4: &'static str,
    v6: &'static str,
    label_key: &'static str,
    label: &str,
) {
    if ip.is_ipv4() {
        add(v4, Some(ip.to_string()));
    } else {
        add(label_key, Some(label.to_owned()));
        add(v6, Some(ip.to_string()));
    }
}

fn escape_header(field: &str) -> String {
    one_line(field).replace('\\', "\\\\").replace('|', "\\|")
}

/// In values `\`, `=` and line ends are escaped, and a pipe is not.
fn escape_value(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '=' => text.push_str("\\="),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            _ if crate::escape::is_unseen(letter) => text.push_str(&escape_value(&one_line(letter.to_string()))),
            _ => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;
    use std::collections::BTreeMap;

    #[test]
    fn hostile_values_come_back_through_a_reader_of_the_format() {
        let hostile = "rclone copy --header \"X-A=1\" /srv/pii remote:bkt\nx|y\\z dst=6.6.6.6 \x1b[0m";
        let record = String::from_utf8(encode(&example::with_command_line(hostile.as_bytes()))).unwrap();
        assert!(!record.contains(['\n', '\x1b']));
        let (header, fields) = read(&record);
        assert_eq!(header[..2], ["CEF:0", "Egret"]);
        assert_eq!((header[4].as_str(), header[6].as_str()), ("exfil-cloud-storage", "8"));
        assert_eq!(fields["cs1"], hostile.replace('\x1b', "\\x1b"));
        assert_eq!((fields["dst"].as_str(), fields["out"].as_str()), ("203.0.113.7", "734003200"));
        assert_eq!(fields["cs6"], "b3:9f2c4e");
    }

    #[test]
    fn pipes_stay_in_their_header_field() {
        let mut notification = (*example::firing()).clone();
        let alert = std::sync::Arc::make_mut(notification.alert.as_mut().unwrap());
        std::sync::Arc::make_mut(&mut alert.rule.metadata).title = "Egress|Alerts \\ new\nline".into();
        let record = String::from_utf8(encode(&notification)).unwrap();
        assert_eq!(read(&record).0[5], "Egress|Alerts \\ new\\nline");
    }

    /// A reader after the format's description, which knows nothing of the writer.
    fn read(record: &str) -> (Vec<String>, BTreeMap<String, String>) {
        let mut header = vec![String::new()];
        let mut letters = record.chars();
        while header.len() < 8 {
            match letters.next().unwrap() {
                '\\' => header.last_mut().unwrap().push(letters.next().unwrap()),
                '|' => header.push(String::new()),
                letter => header.last_mut().unwrap().push(letter),
            }
        }
        header.pop();
        let extension = letters.as_str();
        // A key is a word before an equals sign that is not escaped.
        let mut fields = BTreeMap::new();
        let mut key = String::new();
        let mut value = String::new();
        let mut letters = extension.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => match letters.next().unwrap() {
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    other => value.push(other),
                },
                '=' => {
                    let (before, next) = value.rsplit_once(' ').unwrap_or(("", &value));
                    let next = next.to_owned();
                    if !key.is_empty() {
                        fields.insert(std::mem::take(&mut key), before.to_owned());
                    }
                    key = next;
                    value.clear();
                }
                other => value.push(other),
            }
        }
        fields.insert(key, value);
        (header, fields)
    }
}
