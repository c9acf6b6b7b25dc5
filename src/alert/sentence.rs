//! An alert in one sentence: who did how much, where to, in which time.

use std::time::Duration;

use crate::alert::Evidence;
use crate::alert::compose::Facts;
use crate::attribution::{Attribution, Process};
use crate::rule::{Measured, Quantity, Value};
use crate::units::{Bytes, Rate};

/// `/usr/bin/rclone (alice) sent 734 MB to example.net in 10m`.
pub(super) fn summary(facts: &Facts<'_>) -> String {
    let subject = subject(facts);
    if let (Some(ended), Some(fired)) = (facts.ended_at, facts.life.fired_at) {
        let lasted = short(ended.since(fired));
        return format!("{subject}: `{}` ended after {lasted}", facts.rule.metadata.id);
    }
    let place = place(facts);
    let within = facts.window.map(|window| format!(" in {}", short(Duration::from_secs(window.length_s))));
    let within = within.unwrap_or_default();
    match facts.measured.first() {
        Some(first) => format!("{subject} {}{within}", predicate(first, &place)),
        None if place.is_empty() => format!("{subject} matched `{}`", facts.rule.metadata.id),
        None => format!("{subject} opened a flow with {place}"),
    }
}

fn subject(facts: &Facts<'_>) -> String {
    let of_group = |names: &[&str]| {
        let found = facts.group.iter().find(|(field, value)| names.contains(field) && *value != Value::Missing);
        found.map(|(_, value)| value.to_string())
    };
    let processes = facts.evidence.map(Evidence::processes).unwrap_or_default();
    let process = processes.first().and_then(|(attribution, _)| Attribution::process(attribution));
    let groups_by_program = facts.group.iter().any(|(field, _)| *field == "exe" || *field == "exe.name");
    let program = of_group(&["exe", "exe.name", "unit", "container.name"])
        .or_else(|| process.filter(|_| !groups_by_program).and_then(|process| path(process)))
        .unwrap_or_else(|| "an unknown program".to_owned());
    let user = of_group(&["user", "uid"]).or_else(|| process.and_then(|process| user(process)));
    match user {
        Some(user) => format!("{program} ({user})"),
        None => program,
    }
}

fn path(process: &Process) -> Option<String> {
    Some(Value::Text(process.executable_path()?.into()).to_string())
}

fn user(process: &Process) -> Option<String> {
    let user = process.user.as_ref()?;
    match (&user.name, user.uid) {
        (Some(name), _) => Some(name.to_string()),
        (None, uid) => uid.map(|uid| uid.to_string()),
    }
}

fn place(facts: &Facts<'_>) -> String {
    let names = ["dst.registered_domain", "dst.domain", "dst.sni", "dst.dns", "dst.ip", "dst.as_org", "dst.country"];
    let of_group = facts.group.iter().find(|(field, value)| names.contains(field) && *value != Value::Missing);
    if let Some((_, value)) = of_group {
        return value.to_string();
    }
    let Some(seen) = facts.evidence.and_then(Evidence::heaviest) else { return String::new() };
    let domain = seen.name.as_ref().and_then(|name| name.domain.clone());
    domain
        .map_or_else(|| seen.key.remote.address.to_string(), |domain| Value::Text(domain.as_bytes().into()).to_string())
}

fn predicate(measured: &Measured, place: &str) -> String {
    let value = measured.value.unwrap_or(Quantity::Count(0));
    let count = match value {
        Quantity::Count(count) => count,
        Quantity::Ratio(ratio) => ratio as u64,
    };
    let with = |preposition: &str| if place.is_empty() { String::new() } else { format!(" {preposition} {place}") };
    match measured.name.as_str() {
        "bytes_out" | "payload_out" => format!("sent {}{}", Bytes(count), with("to")),
        "bytes_in" | "payload_in" => format!("received {}{}", Bytes(count), with("from")),
        "bytes_total" | "payload_total" => format!("exchanged {}{}", Bytes(count), with("with")),
        "packets_out" => format!("sent {count} packets{}", with("to")),
        "packets_in" => format!("received {count} packets{}", with("from")),
        "packets_total" => format!("exchanged {count} packets{}", with("with")),
        "connections" => format!("opened {count} connections{}", with("to")),
        "connections_failed" => format!("failed to connect {count} times{}", with("to")),
        "dns.queries" => format!("asked {count} DNS questions{}", with("of")),
        name if name.ends_with("_out.rate") || name == "peak(bytes_out)" => {
            format!("sent {}{}", Rate(count), with("to"))
        }
        name if name.ends_with(".rate") || name.starts_with("peak(") => {
            format!("reached {}{} ({name})", Rate(count), with("with"))
        }
        name => match name.strip_prefix("distinct(").and_then(|rest| rest.strip_suffix(')')) {
            Some(field) => format!("reached {count} different {field}"),
            None => match value {
                Quantity::Count(count) => format!("has {name} of {count}{}", with("with")),
                Quantity::Ratio(ratio) => format!("has {name} of {ratio:.2}{}", with("with")),
            },
        },
    }
}

/// `90s`, `10m`, `1h30m`, `14d`.
fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut text = String::new();
    for (length, unit) in units {
        let count = left / length;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            left %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let text = |seconds| short(Duration::from_secs(seconds));
        assert_eq!(text(600), "10m");
        assert_eq!(text(90), "1m30s");
        assert_eq!(text(14 * 86_400), "14d");
        assert_eq!(text(5_400), "1h30m");
        assert_eq!(text(0), "0s");
    }
}
