//! One line for people, and indented evidence below it.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use crate::alert::Message;
use crate::alert::{Alert, Condition, DocumentKind, Notification, ProcessFacts};
use crate::escape::one_line;
use crate::rule::{Quantity, Severity, Value};
use crate::time::Timestamp;
use crate::units::Bytes;

/// Whether the text carries colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Palette {
    /// No colours.
    Plain,
    /// Colours of a terminal.
    Coloured,
}

/// The text of a message, without a line end at its end.
pub fn encode(message: &Message, palette: Palette) -> String {
    let mut blocks: Vec<String> =
        message.notifications.iter().map(|notification| encode_one(notification, palette)).collect();
    if let Some(reason) = &message.suppressed {
        blocks.push(format!("{INDENT}suppressed by {}", one_line(reason.as_bytes())));
    }
    if message.omitted > 0 {
        blocks.push(format!("{INDENT}and {} more of this group", message.omitted));
    }
    blocks.join("\n")
}

/// The text of one notification.
pub fn encode_one(notification: &Notification, palette: Palette) -> String {
    let mut lines = vec![headline(notification, palette)];
    let dim = Paint { style: Style::new().dimmed(), palette };
    let mut fact = |name: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("{INDENT}{}  {text}", dim.apply(&format!("{name:<8}"))));
        }
    };
    if let Some(alert) = &notification.alert {
        for (name, text) in facts(alert, notification.kind) {
            fact(name, text);
        }
    }
    if let Some(problem) = &notification.problem {
        for (name, value) in &problem.details {
            fact(name, one_line(value));
        }
    }
    lines.join("\n")
}

/// The evidence of an alert, a word and a line each; lines without anything to say are empty.
pub fn facts(alert: &Alert, kind: DocumentKind) -> Vec<(&'static str, String)> {
    let rule = &alert.rule.metadata;
    let mut facts = Vec::new();
    let tags: Vec<String> = rule.attack.iter().chain(&rule.tags).map(one_line).collect();
    let about = if tags.is_empty() { String::new() } else { format!(" ({})", tags.join(", ")) };
    facts.push(("rule", format!("{}{about}", one_line(if rule.title.is_empty() { &rule.id } else { &*rule.title }))));
    if kind.ends() {
        facts.push(("lasted", lasted(alert)));
    }
    facts.push(("group", group(alert)));
    if let Some(process) = &alert.process {
        facts.push(("process", self::process(alert, process)));
    }
    if let Some(parent) = &alert.parent {
        let line = if parent.cmdline == Value::Missing { &parent.exe } else { &parent.cmdline };
        facts.push(("parent", format!("{} (pid {})", clip(&line.to_string()), parent.pid)));
    }
    if let Some(container) = &alert.container {
        let name = container.name.as_deref().unwrap_or(&container.id);
        let image = container.image.as_deref().map(|image| format!(" ({})", one_line(image))).unwrap_or_default();
        let pod = container.pod.as_deref().map(|pod| match container.namespace.as_deref() {
            Some(namespace) => format!(", pod {}/{}", one_line(namespace), one_line(pod)),
            None => format!(", pod {}", one_line(pod)),
        });
        facts.push(("inside", format!("{}{image}{}", one_line(name), pod.unwrap_or_default())));
    }
    facts.push(("to", destination(alert)));
    for found in &alert.matches {
        facts.push((
            "listed",
            format!("{} has {} ({})", one_line(found.list.as_bytes()), one_line(&found.entry), found.field),
        ));
    }
    facts.push(("because", because(&alert.conditions)));
    facts.push(("values", values(alert)));
    for (field, values) in &alert.top {
        // One value is the destination again.
        if values.len() > 1 {
            let shown: Vec<String> = values
                .iter()
                .take(5)
                .map(|(value, bytes)| format!("{} {}", clip(&value.to_string()), Bytes(*bytes)))
                .collect();
            facts.push(("top", format!("{field}: {}", shown.join(", "))));
        }
    }
    for (process, bytes) in alert.processes.iter().take(3) {
        facts.push(("also", format!("{} {}", self::process(alert, process), Bytes(*bytes))));
    }
    for suspect in alert.suspects.iter().take(3) {
        facts.push(("suspect", process(alert, suspect)));
    }
    if let Some(file) = &alert.packets {
        facts.push(("packets", format!("{} in {} (sha256 {})", file.packets, one_line(&file.path), file.sha256)));
    }
    facts.push(("series", sparkline(&alert.series)));
    if alert.state.approximate {
        facts.push(("note", "the values are upper bounds: too many groups for the rule's limit".to_owned()));
    }
    if alert.state.coverage < 0.999 && alert.state.coverage > 0.0 {
        facts.push(("note", format!("only {:.1} % of the traffic was seen", alert.state.coverage * 100.0)));
    }
    if alert.state.suppressed > 0 {
        facts.push(("note", format!("{} earlier notifications were held back", alert.state.suppressed)));
    }
    if let Some(note) = &rule.note {
        facts.push(("todo", one_line(note)));
    }
    if let Some(link) = rule.references.first() {
        facts.push(("see", one_line(link)));
    }
    facts.retain(|(_, text)| !text.is_empty());
    facts
}

/// A quantity of a metric with its unit.
pub fn quantity(metric: &str, value: Quantity) -> String {
    match value {
        Quantity::Count(count) if metric.ends_with(".rate") || metric.starts_with("peak(") => {
            crate::units::Rate(count).to_string()
        }
        Quantity::Count(count) if metric.starts_with("bytes_") || metric.starts_with("payload_") => {
            Bytes(count).to_string()
        }
        Quantity::Count(count) => count.to_string(),
        Quantity::Ratio(ratio) => format!("{}", (ratio * 10_000.0).round() / 10_000.0),
    }
}

/// `10m`, `2h 5m`, `45s`.
pub fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (length, unit) in units {
        if left >= length {
            parts.push(format!("{}{unit}", left / length));
            left %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts[..parts.len().min(2)].join(" ") }
}

/// The state in one word: what people look for first.
pub fn state_word(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Firing => "FIRING",
        DocumentKind::Updated => "UPDATED",
        DocumentKind::Resolved => "RESOLVED",
        DocumentKind::Withdrawn => "WITHDRAWN",
        DocumentKind::Flow => "FLOW",
        DocumentKind::Heartbeat => "ALIVE",
        DocumentKind::Problem => "PROBLEM",
        DocumentKind::Test => "TEST",
    }
}

fn headline(notification: &Notification, palette: Palette) -> String {
    let severity = notification.severity();
    let colour = if notification.kind.ends() { AnsiColor::Green.on_default() } else { style(severity) };
    let id = match (&notification.alert, &notification.problem) {
        (Some(alert), _) => one_line(alert.rule.metadata.id.as_bytes()),
        (None, Some(problem)) => problem.id.to_owned(),
        (None, None) => "egret".to_owned(),
    };
    let mark = format!("{:<8} {:<8}", severity.name().to_uppercase(), state_word(notification.kind));
    format!(
        "{}  {}  {}  {}",
        Paint { style: Style::new().dimmed(), palette }.apply(&moment(notification.timestamp)),
        Paint { style: colour.bold(), palette }.apply(&mark),
        Paint { style: Style::new().bold(), palette }.apply(&id),
        one_line(notification.summary()),
    )
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Critical => AnsiColor::BrightRed.on_default(),
        Severity::High => AnsiColor::Red.on_default(),
        Severity::Medium => AnsiColor::Yellow.on_default(),
        Severity::Low => AnsiColor::Cyan.on_default(),
        Severity::Info => AnsiColor::Blue.on_default(),
    }
}

struct Paint {
    style: Style,
    palette: Palette,
}

impl Paint {
    fn apply(&self, text: &str) -> String {
        match self.palette {
            Palette::Plain => text.to_owned(),
            Palette::Coloured => format!("{}{text}{}", self.style.render(), self.style.render_reset()),
        }
    }
}

/// To the second: people compare it with a clock on the wall.
fn moment(timestamp: Timestamp) -> String {
    let text = timestamp.to_string();
    match text.get(..19) {
        Some(seconds) => format!("{}Z", seconds.replace('T', " ")),
        None => text,
    }
}

fn lasted(alert: &Alert) -> String {
    let (Some(ended), started) = (alert.state.ended_at, alert.state.fired_at.unwrap_or(alert.state.started_at)) else {
        return String::new();
    };
    format!("{}, since {}", duration(ended.since(started).as_secs()), moment(started))
}

fn group(alert: &Alert) -> String {
    let pairs: Vec<String> =
        alert.group.iter().map(|(field, value)| format!("{field}={}", clip(&value.to_string()))).collect();
    pairs.join("  ")
}

fn process(alert: &Alert, process: &ProcessFacts) -> String {
    let mut text = match &process.cmdline {
        Value::Missing => process.executable.exe.to_string(),
        command_line => command_line.to_string(),
    };
    text = clip(&text);
    let mut about = vec![format!("pid {}", process.pid)];
    if !matches!(process.executable.kind, "" | "file" | "unknown") {
        about.push(format!("{} executable", process.executable.kind));
    }
    if let Some(user) = &alert.user {
        match (&user.name, user.uid) {
            (Some(name), _) => about.push(format!("user {}", one_line(name.as_bytes()))),
            (None, Some(uid)) => about.push(format!("uid {uid}")),
            (None, None) => {}
        }
    }
    if let Some(unit) = &process.unit {
        about.push(format!("unit {}", one_line(unit.as_bytes())));
    }
    if let Some(evidence) = process.evidence {
        about.push(format!("known by {evidence}"));
    }
    let _infallible = write!(text, " ({})", about.join(", "));
    text
}

fn destination(alert: &Alert) -> String {
    let Some(end) = &alert.destination else { return String::new() };
    let mut text = std::net::SocketAddr::new(end.ip.ip(), end.port).to_string();
    if end.port == 0 {
        text = end.ip.to_string();
    }
    if let Some(domain) = &end.domain {
        let _infallible = write!(text, " {}", one_line(domain.as_bytes()));
        if let Some(source) = end.domain_source {
            let _infallible = write!(text, " by {source}");
            match (end.domain_trust, &end.sni) {
                (Some("agreed"), _) => text.push_str(" and dns"),
                (Some("unconfirmed"), Some(sni)) if sni != domain => {
                    let _infallible = write!(text, ", though it was called {}", one_line(sni.as_bytes()));
                }
                (Some("unconfirmed"), _) => text.push_str(", unconfirmed"),
                _ => {}
            }
        }
    }
    let mut about: Vec<String> = Vec::new();
    if let Some(network) = &alert.network {
        about.push(one_line(&network.transport));
        if !matches!(network.l7, "" | "unknown" | "other") {
            about.push(network.l7.to_owned());
        }
    }
    about.extend((!end.scope.is_empty()).then(|| end.scope.to_owned()));
    about.extend(end.asn.map(|asn| format!("AS{asn}")));
    about.extend(end.as_org.as_deref().map(one_line));
    about.extend(end.country.as_deref().map(one_line));
    if !about.is_empty() {
        let _infallible = write!(text, " ({})", about.join(", "));
    }
    text
}

fn because(conditions: &[Condition]) -> String {
    let shown: Vec<String> = conditions
        .iter()
        .map(|condition| {
            let value = condition.value.map_or("undefined".to_owned(), |value| quantity(&condition.metric, value));
            let value = match condition {
                Condition { capped: true, .. } => format!("{value}+"),
                Condition { estimated: true, .. } => format!("about {value}"),
                _ => value,
            };
            let limit = quantity(&condition.metric, condition.limit);
            let not = if condition.met { "" } else { " (not met)" };
            format!("{} {value} {} {limit}{not}", condition.metric, sign(condition.op))
        })
        .collect();
    shown.join(", ")
}

fn sign(operator: &'static str) -> &'static str {
    match operator {
        "lt" => "<",
        "lte" => "<=",
        "gt" => ">",
        "gte" => ">=",
        "eq" => "=",
        "ne" => "!=",
        "between" => "from",
        other => other,
    }
}

fn values(alert: &Alert) -> String {
    let mut shown: Vec<String> = alert
        .values
        .iter()
        .filter(|(metric, _)| !alert.conditions.iter().any(|condition| condition.metric == **metric))
        .map(|(metric, value)| format!("{metric} {}", quantity(metric, *value)))
        .collect();
    if let Some(window) = &alert.window {
        shown.push(format!("in {}", duration(window.length_s)));
    }
    shown.join(", ")
}

fn sparkline(series: &[u64]) -> String {
    let Some(highest) = series.iter().copied().max().filter(|highest| *highest > 0) else { return String::new() };
    let width = 60;
    let step = series.len().div_ceil(width).max(1);
    series
        .chunks(step)
        .map(|chunk| {
            let bytes = chunk.iter().copied().max().unwrap_or(0);
            let level = (u128::from(bytes) * 8).div_ceil(u128::from(highest)) as usize;
            BARS.get(level).copied().unwrap_or('█')
        })
        .collect()
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

const INDENT: &str = "    ";
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Letters of a command line that are shown.
const LONGEST_TEXT: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn people_see_what_happened_and_why() {
        assert_eq!(
            encode_one(&example::firing(), Palette::Plain),
            "\
2026-05-04 02:11:09Z  HIGH     FIRING    exfil-cloud-storage  /usr/bin/rclone (alice) sent 734 MB to example.net in 10m
    rule      Large upload to cloud storage by an unapproved program (T1567.002, exfiltration)
    group     exe=/usr/bin/rclone  user=alice  dst.registered_domain=example.net
    process   rclone copy /srv/pii remote:bkt (pid 4121, user alice, known by exact)
    parent    /usr/bin/bash (pid 4090)
    to        203.0.113.7:443 up.storage.example.net by sni (tcp, tls, public)
    because   bytes_out 734 MB >= 500 MB
    values    bytes_in 1.05 MB, connections 3, upload_ratio 0.9986, in 10m
    see       https://example.org/runbooks/exfil-cloud"
        );
    }

    #[test]
    fn a_resolved_alert_says_how_long_it_lasted() {
        let text = encode_one(&example::resolved(), Palette::Plain);
        assert!(text.contains("HIGH     RESOLVED"), "{text}");
        assert!(text.contains("lasted    28m 51s, since 2026-05-04 02:11:09Z"), "{text}");
    }

    #[test]
    fn nothing_from_a_process_acts_on_the_terminal() {
        let text = encode_one(&example::with_command_line(b"rm\n\x1b[2J\xe2\x80\xaegnp.exe \xff"), Palette::Plain);
        assert!(text.contains("rm\\n\\x1b[2J\\u{202e}gnp.exe \\xff (pid"), "{text}");
        assert!(text.chars().all(|letter| letter == '\n' || !crate::escape::is_unseen(letter)));
    }

    #[test]
    fn colours_are_all_that_a_palette_adds() {
        let coloured = encode_one(&example::firing(), Palette::Coloured);
        assert!(coloured.contains("\x1b[1m\x1b[31mHIGH"), "{coloured:?}");
        let stripped = anstream::adapter::strip_str(&coloured).to_string();
        assert_eq!(stripped, encode_one(&example::firing(), Palette::Plain));
    }

    #[test]
    fn small_helpers() {
        assert_eq!(duration(0), "0s");
        assert_eq!(duration(7_500), "2h 5m");
        assert_eq!(duration(90_061), "1d 1h");
        assert_eq!(sparkline(&[0, 1, 8, 4]), " ▁█▄");
        assert_eq!(sparkline(&[0, 0]), "");
    }
}
