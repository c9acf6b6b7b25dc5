//! A notification as a syslog message: RFC 5424 with structured data, or the
//! older form that RFC 3164 describes.
//!
//! A message is one line, whatever the command line holds. Structured data
//! that would not fit the size loses its last elements, never half of one; the
//! text is cut between letters.

use std::fmt::Write;

use jiff::tz::TimeZone;

use crate::alert::Origin;
use crate::alert::{DocumentKind, Notification};
use crate::escape::one_line;
use crate::rule::{Severity, Value};
use crate::time::Timestamp;

/// What stands before and around every message of one output.
#[derive(Debug, Clone)]
pub struct Header {
    /// Which of the two forms.
    pub form: Form,
    /// The facility's number.
    pub facility: u8,
    /// The program's name.
    pub app_name: String,
    /// The id of the structured data element.
    pub sd_id: String,
    /// The largest message, framing not counted.
    pub max_size: usize,
    /// The time zone of RFC 3164, which has none of its own.
    pub zone: TimeZone,
}

/// The two forms of a syslog message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// With a version, an exact time and structured data.
    Rfc5424,
    /// With local time and a tag.
    Rfc3164,
    /// The older form as programs write it to `/dev/log`, without a host name.
    Local,
}

/// What follows the header.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Structured data and a line for people.
    Structured,
    /// The record of another format, on one line.
    Record(&'a [u8]),
}

/// The syslog message of one notification.
pub fn encode(notification: &Notification, origin: &Origin, header: &Header, body: Body<'_>) -> Vec<u8> {
    let priority = u32::from(header.facility) * 8 + u32::from(severity(notification));
    let mut text = match header.form {
        Form::Rfc5424 => format!(
            "<{priority}>1 {} {} {} {} {} ",
            microseconds(notification.timestamp),
            token(&origin.host.name, 255),
            token(&header.app_name, 48),
            origin.pid,
            message_id(notification.kind),
        ),
        Form::Rfc3164 => format!(
            "<{priority}>{} {} {}[{}]: ",
            local_time(notification.timestamp, &header.zone),
            token(&origin.host.name, 255),
            token(&header.app_name, 32),
            origin.pid
        ),
        Form::Local => format!(
            "<{priority}>{} {}[{}]: ",
            local_time(notification.timestamp, &header.zone),
            token(&header.app_name, 32),
            origin.pid
        ),
    };
    let line = format!("{}: {}", rule_id(notification), one_line(notification.summary()));
    match (body, header.form) {
        (Body::Record(record), Form::Rfc5424) => {
            let _infallible = write!(text, "- \u{feff}{}", flat(record));
        }
        (Body::Record(record), _) => text.push_str(&flat(record)),
        (Body::Structured, Form::Rfc5424) => {
            let room = header.max_size.saturating_sub(text.len() + LEAST_TEXT);
            text.push_str(&structured_data(notification, &header.sd_id, room));
            let _infallible = write!(text, " \u{feff}{line}");
        }
        (Body::Structured, _) => {
            let room = header.max_size.saturating_sub(text.len() + line.len() + 1);
            let _infallible = write!(text, "{line} {}", structured_data(notification, &header.sd_id, room));
        }
    }
    text.truncate(text.floor_char_boundary(header.max_size));
    text.into_bytes()
}

/// The severity number of syslog: 2 is critical, 6 is informational.
pub fn severity(notification: &Notification) -> u8 {
    if notification.kind.ends() {
        return 5;
    }
    match notification.severity() {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Info => 6,
    }
}

/// The facts of a notification by the names that structured data gives them, the
/// most important first.
pub fn parameters(notification: &Notification) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let mut add = |name, value: Option<String>| all.extend(value.map(|value| (name, value)));
    if let Some(problem) = &notification.problem {
        add("problem", Some(problem.id.to_owned()));
        add("sev", Some(problem.severity.name().to_owned()));
        add("state", Some(if problem.resolved { "resolved" } else { "firing" }.to_owned()));
        for (name, value) in &problem.details {
            add(name, Some(one_line(value)));
        }
    }
    let Some(alert) = &notification.alert else { return all };
    add("uid", Some(one_line(&*alert.state.uid)));
    add("state", Some(alert.state.state.to_owned()));
    add("rule", Some(one_line(&*alert.rule.metadata.id)));
    add("sev", Some(alert.rule.severity().name().to_owned()));
    add("key", Some(one_line(&*alert.state.key)));
    if let Some(process) = &alert.process {
        add("exe", known(&process.executable.exe));
    }
    let user = alert.user.as_ref();
    add("user", user.and_then(|user| user.name.as_deref()).map(one_line));
    if let Some(end) = &alert.destination {
        add("dst", Some(end.ip.to_string()));
        add("dport", (end.port != 0).then(|| end.port.to_string()));
        add("domain", end.domain.as_deref().map(one_line));
    }
    if let Some(source) = &alert.source {
        add("src", Some(source.ip.to_string()));
        add("sport", (source.port != 0).then(|| source.port.to_string()));
    }
    add("proto", alert.network.as_ref().map(|network| one_line(&network.transport)));
    for (name, metric) in [("out", "bytes_out"), ("in", "bytes_in"), ("conns", "connections")] {
        add(name, alert.values.get(metric).map(|value| value.as_f64().to_string()));
    }
    add("win", alert.window.map(|window| window.length_s.to_string()));
    add("uidn", user.and_then(|user| user.uid).map(|uid| uid.to_string()));
    if let Some(process) = &alert.process {
        add("pid", Some(process.pid.to_string()));
        add("unit", process.unit.as_deref().map(one_line));
    }
    add("container", alert.container.as_ref().map(|container| one_line(&*container.id)));
    for (field, value) in &alert.group {
        // The group's own names, where the facts above do not hold them.
        let name = group_name(field);
        if !name.is_empty() {
            add(name, known(value));
        }
    }
    if let Some(process) = &alert.process {
        add("cmdline", known(&process.cmdline));
    }
    all
}

fn structured_data(notification: &Notification, sd_id: &str, room: usize) -> String {
    let mut element = format!("[{}", sd_name(sd_id));
    for (name, value) in parameters(notification) {
        let parameter = format!(" {}=\"{}\"", sd_name(name), escaped(&value));
        if element.len() + parameter.len() < room {
            element.push_str(&parameter);
        }
    }
    element.push(']');
    element
}

/// A record of another format, which has its own escapes and only must not end the line.
fn flat(record: &[u8]) -> String {
    String::from_utf8_lossy(record).replace(['\n', '\r', '\0'], " ")
}

/// The three characters that end a value (RFC 5424, section 6.3.3).
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len().min(LONGEST_VALUE));
    for letter in value.chars() {
        if text.len() >= LONGEST_VALUE {
            text.push('…');
            break;
        }
        if matches!(letter, '"' | '\\' | ']') {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

/// The printable ASCII that a header field may hold (RFC 5424, section 6).
fn token(text: &str, longest: usize) -> String {
    let kept: String = text.chars().filter(char::is_ascii_graphic).take(longest).collect();
    if kept.is_empty() { "-".to_owned() } else { kept }
}

fn sd_name(text: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|letter| letter.is_ascii_graphic() && !matches!(letter, '=' | ']' | '"'))
        .take(32)
        .collect();
    if kept.is_empty() { "x".to_owned() } else { kept }
}

fn rule_id(notification: &Notification) -> String {
    match (&notification.alert, &notification.problem) {
        (Some(alert), _) => one_line(&*alert.rule.metadata.id),
        (None, Some(problem)) => problem.id.to_owned(),
        (None, None) => "egret".to_owned(),
    }
}

fn message_id(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Firing | DocumentKind::Updated => "ALERT",
        DocumentKind::Resolved | DocumentKind::Withdrawn => "RESOLVED",
        DocumentKind::Flow => "FLOW",
        DocumentKind::Heartbeat => "HEARTBEAT",
        DocumentKind::Problem => "PROBLEM",
        DocumentKind::Test => "TEST",
    }
}

/// RFC 5424 allows six decimals.
fn microseconds(timestamp: Timestamp) -> String {
    let text = timestamp.to_string();
    match text.get(..26) {
        Some(kept) if text.ends_with('Z') => format!("{kept}Z"),
        _ => "-".to_owned(),
    }
}

fn local_time(timestamp: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_nanosecond(timestamp.as_nanos().into()) {
        Ok(moment) => moment.to_zoned(zone.clone()).strftime("%b %e %H:%M:%S").to_string(),
        Err(_) => "Jan  1 00:00:00".to_owned(),
    }
}

fn known(value: &Value) -> Option<String> {
    (*value != Value::Missing).then(|| value.to_string())
}

fn group_name(field: &'static str) -> &'static str {
    match field {
        "exe" | "user" | "dst.ip" | "dst.port" | "dst.domain" | "src.ip" | "src.port" | "proto" | "pid" | "cmdline"
        | "container.id" | "unit" => "",
        other => other,
    }
}

/// A longer value is cut.
const LONGEST_VALUE: usize = 2048;
/// Room that structured data leaves for the text.
const LEAST_TEXT: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn the_documented_message() {
        let message = text(&example::firing(), Form::Rfc5424, 8192);
        assert_eq!(
            message,
            "<83>1 2026-05-04T02:11:09.482113Z web-07 egret 812 ALERT [egress@32473 \
             uid=\"01JX8Q4Z7M0000000000000000\" state=\"firing\" rule=\"exfil-cloud-storage\" sev=\"high\" \
             key=\"b3:9f2c4e\" exe=\"/usr/bin/rclone\" user=\"alice\" dst=\"203.0.113.7\" dport=\"443\" \
             domain=\"up.storage.example.net\" src=\"10.0.3.9\" sport=\"51544\" proto=\"tcp\" out=\"734003200\" \
             in=\"1048576\" conns=\"3\" win=\"600\" uidn=\"1000\" pid=\"4121\" dst.registered_domain=\"example.net\" \
             cmdline=\"rclone copy /srv/pii remote:bkt\"] \
             \u{feff}exfil-cloud-storage: /usr/bin/rclone (alice) sent 734 MB to example.net in 10m"
        );
    }

    #[test]
    fn the_older_forms() {
        let message = text(&example::resolved(), Form::Rfc3164, 8192);
        assert!(message.starts_with("<85>May  4 04:40:00 web-07 egret[812]: exfil-cloud-storage: "), "{message}");
        assert!(text(&example::firing(), Form::Local, 8192).starts_with("<83>May  4 04:11:09 egret[812]: exfil"));
    }

    #[test]
    fn no_value_leaves_its_quotes_and_no_message_its_line() {
        let hostile = b"a\" ] \\ \n\r\x00 \xff [x y=\"z\"]";
        let message = text(&example::with_command_line(hostile), Form::Rfc5424, 8192);
        let (_, after) = message.split_once(" cmdline=\"").unwrap();
        assert!(after.starts_with("a\\\" \\] \\\\ \\\\n\\\\r\\\\x00 \\\\xff [x y=\\\"z\\\"\\]\"]"), "{after}");
        assert!(!message.contains(['\n', '\r', '\0']));
    }

    #[test]
    fn a_small_size_cuts_whole_elements_and_whole_letters() {
        let long = "ü".repeat(5_000);
        for size in [200, 480, 1024, 1025] {
            let message = text(&example::with_command_line(long.as_bytes()), Form::Rfc5424, size);
            assert!(message.len() <= size, "{} > {size}", message.len());
            assert!(!message.contains("cmdline"));
            assert!(
                message.contains("\"] \u{feff}exfil-cloud") || message.contains("[egress@32473] \u{feff}"),
                "{message}"
            );
        }
    }

    fn text(notification: &Notification, form: Form, max_size: usize) -> String {
        let header = Header {
            form,
            facility: 10,
            app_name: "egret".into(),
            sd_id: "egress@32473".into(),
            max_size,
            zone: TimeZone::fixed(jiff::tz::offset(2)),
        };
        String::from_utf8(encode(notification, &example::origin(), &header, Body::Structured)).unwrap()
    }
}
