//! An alert in one sentence: who did how much, where to, in which time.

use std::time::Duration;

use crate::alert::Evidence;
use crate::alert::compose::{Facts, value};
use crate::attribution::{Attribution, Process};
use crate::rule::{Exactness, Field, Measured, Quantity, Value, duration};
use crate::units::{Bytes, Rate};

/// `/usr/bin/rclone (alice) sent 734 MB to example.net in 10m`.
pub(super) fn summary(facts: &Facts<'_>) -> String {
    if let Some(worded) = worded(facts) {
        return worded;
    }
    let subject = subject(facts);
    if let (Some(ended), Some(fired)) = (facts.ended_at, facts.life.fired_at) {
        let lasted = duration(ended.since(fired));
        return format!("{subject}: `{}` ended after {lasted}", facts.rule.metadata.id);
    }
    let place = place(facts);
    let within = facts.window.map(|window| format!(" in {}", window_text(window.length_s)));
    let within = within.unwrap_or_default();
    match facts.measured.first() {
        Some(first) => format!("{subject} {}{within}", predicate(first, &place)),
        None if place.is_empty() => format!("{subject} matched `{}`", facts.rule.metadata.id),
        None => format!("{subject} opened a flow with {place}"),
    }
}

/// What the rule's own template makes of it; `None` where it has none, fails
/// or says nothing, and at the end of an alert.
fn worded(facts: &Facts<'_>) -> Option<String> {
    let template = facts.rule.presentation.summary.as_ref().filter(|_| facts.ended_at.is_none())?;
    let processes = facts.evidence.map(Evidence::processes).unwrap_or_default();
    let owner = processes.first().map(|(attribution, _)| attribution);
    let heaviest = facts.evidence.and_then(Evidence::heaviest);
    let mut values = serde_json::Map::new();
    for name in template.names() {
        let of_group = facts.group.iter().find(|(field, _)| **field == name);
        let measured = facts.measured.iter().find(|one| one.name == name).and_then(|one| one.value);
        let known = measured.or_else(|| facts.values.get(&name).copied());
        let field = || Field::from_name(&name).map(|field| value(field, heaviest.as_ref(), owner, facts.host));
        let value = match (name.as_str(), of_group, known) {
            ("window", ..) => facts.window.map(|window| window_text(window.length_s).into()),
            ("rule" | "id", ..) => Some(facts.rule.metadata.id.to_string().into()),
            ("title", ..) => Some(facts.rule.metadata.title.clone().into()),
            (_, Some((_, Value::Missing)), _) => Some(serde_json::Value::Null),
            (_, Some((_, value)), _) => Some(value.to_string().into()),
            (_, None, Some(quantity)) => serde_json::to_value(quantity).ok(),
            _ => field().map(|value| match value {
                Value::Missing => serde_json::Value::Null,
                known => known.to_string().into(),
            }),
        };
        if let Some(value) = value {
            insert(&mut values, &name, value);
        }
    }
    template.render(values).ok().filter(|line| !line.is_empty())
}

/// Puts a value where a template finds its dotted name.
fn insert(values: &mut serde_json::Map<String, serde_json::Value>, name: &str, value: serde_json::Value) {
    match name.split_once('.') {
        None => {
            values.entry(name).or_insert(value);
        }
        Some((outer, inner)) => {
            let outer = values.entry(outer).or_insert_with(|| serde_json::Map::new().into());
            if let Some(outer) = outer.as_object_mut() {
                insert(outer, inner, value);
            }
        }
    }
}

fn window_text(seconds: u64) -> String {
    duration(Duration::from_secs(seconds))
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
        "connections" => format!("opened {} connections{}", many(count, measured.exactness), with("to")),
        "connections_failed" => format!("failed to connect {count} times{}", with("to")),
        "dns.queries" => format!("asked {count} DNS questions{}", with("of")),
        name if name.ends_with("_out.rate") || name == "peak(bytes_out)" => {
            format!("sent {}{}", Rate(count), with("to"))
        }
        name if name.ends_with(".rate") || name.starts_with("peak(") => {
            format!("reached {}{} ({name})", Rate(count), with("with"))
        }
        name => match name.strip_prefix("distinct(").and_then(|rest| rest.strip_suffix(')')) {
            Some(field) => format!("reached {} different {field}", many(count, measured.exactness)),
            None => match value {
                Quantity::Count(count) => format!("has {name} of {count}{}", with("with")),
                Quantity::Ratio(ratio) => format!("has {name} of {ratio:.2}{}", with("with")),
            },
        },
    }
}

/// `101+` where counting ended there, `about 5200` where it is an estimate.
fn many(count: u64, exactness: Exactness) -> String {
    match exactness {
        Exactness::Exact => count.to_string(),
        Exactness::Capped => format!("{count}+"),
        Exactness::Estimated => format!("about {count}"),
    }
}
