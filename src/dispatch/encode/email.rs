//! A message as a mail: plain text and HTML, with headers that let updates of
//! one alert stand in one thread.
//!
//! The bytes are made once; every attempt sends the same mail with the same
//! `Message-ID`.

use std::time::{Duration, SystemTime};

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use minijinja::{AutoEscape, Environment, context};

use crate::alert::{Alert, Notification};
use crate::alert::{Message, Origin};
use crate::dispatch::encode::text;
use crate::escape::one_line;
use crate::rule::Severity;

/// Who writes to whom.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The sender.
    pub from: Mailbox,
    /// The recipients.
    pub to: Vec<Mailbox>,
}

/// The mail of a message, as it goes over the wire.
pub fn encode(message: &Message, origin: &Origin, envelope: &Envelope) -> Vec<u8> {
    let host = domain(origin);
    let mut mail = lettre::Message::builder()
        .from(envelope.from.clone())
        .subject(subject(message, origin))
        .date(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(message.timestamp.as_secs()).unwrap_or(0)))
        .message_id(Some(format!("<{}@{host}>", message.id)));
    for recipient in &envelope.to {
        mail = mail.to(recipient.clone());
    }
    if let Some(alert) = thread_of(message) {
        let thread = format!("<{}@{host}>", token(&alert.state.uid));
        mail = mail.in_reply_to(thread.clone()).references(thread);
    }
    for (name, value) in headers(message) {
        mail = mail.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), one_line(value)));
    }
    let body = MultiPart::alternative()
        .boundary(format!("egret-{}", message.id))
        .singlepart(SinglePart::plain(plain(message, origin)))
        .singlepart(SinglePart::html(html(message, origin)));
    mail.multipart(body).map(|mail| mail.formatted()).expect("a mail with a sender and recipients can always be built")
}

/// The same mail with the plain text alone, and no more of it than a screen or two.
pub fn shrink(mail: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(mail);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return mail.to_vec() };
    let Some(boundary) = body.lines().find(|line| line.starts_with("--egret-")) else { return mail.to_vec() };
    let Some(part) = body.split(boundary).nth(1) else { return mail.to_vec() };
    let mut kept = String::new();
    // Between whole lines nothing of the part's encoding is torn.
    for line in part.split_inclusive("\r\n") {
        if kept.len() + line.len() > SMALL_MAIL {
            break;
        }
        kept.push_str(line);
    }
    format!("{head}\r\n\r\n{boundary}{}\r\n{boundary}--\r\n", kept.trim_end_matches("=\r\n")).into_bytes()
}

fn headers(message: &Message) -> Vec<(&'static str, &str)> {
    let headline = message.headline();
    let state = headline.alert.as_ref().map_or(headline.kind.name(), |alert| alert.state.state);
    let mut headers = vec![
        ("Auto-Submitted", "auto-generated"),
        ("X-Egress-State", state),
        ("X-Egress-Severity", message.severity().name()),
    ];
    headers.extend(headline.alert.as_ref().map(|alert| ("X-Egress-Rule", &*alert.rule.metadata.id)));
    if message.severity() == Severity::Critical && !message.kind().ends() {
        headers.extend([("X-Priority", "1 (Highest)"), ("Importance", "high")]);
    }
    headers
}

/// `[HIGH] web-07: Large upload to cloud storage (rclone, alice)`, held at a length that lists show.
pub fn subject(message: &Message, origin: &Origin) -> String {
    let headline = message.headline();
    let word = match headline.kind {
        _ if message.kind().ends() => "RESOLVED".to_owned(),
        crate::alert::DocumentKind::Test => "TEST".to_owned(),
        crate::alert::DocumentKind::Heartbeat => "ALIVE".to_owned(),
        _ => message.severity().name().to_uppercase(),
    };
    let number = message.notifications.len() + message.omitted;
    let what = match &headline.alert {
        Some(alert) => {
            let who: Vec<String> = [
                alert.process.as_ref().and_then(|process| name(&process.executable.exe.to_string())),
                alert.user.as_ref().and_then(|user| user.name.as_deref()).map(one_line),
            ]
            .into_iter()
            .flatten()
            .collect();
            let title = &alert.rule.metadata.title;
            let title = one_line(if title.is_empty() { &*alert.rule.metadata.id } else { title });
            if who.is_empty() { title } else { format!("{title} ({})", who.join(", ")) }
        }
        None => one_line(headline.summary()),
    };
    let several = if number > 1 { format!("{number} alerts: ") } else { String::new() };
    let subject = format!("[{word}] {}: {several}{what}", one_line(&*origin.host.name));
    match subject.char_indices().nth(LONGEST_SUBJECT) {
        Some((end, _)) => format!("{}…", subject.get(..end).unwrap_or(&subject)),
        None => subject,
    }
}

fn plain(message: &Message, origin: &Origin) -> String {
    let text = text::encode(message, text::Palette::Plain);
    format!("{text}\n\n-- \nEgret on {}\n", one_line(&*origin.host.name))
}

fn html(message: &Message, origin: &Origin) -> String {
    let alerts: Vec<_> = message.notifications.iter().map(|notification| of_notification(notification)).collect();
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let context = context! {
        alerts,
        omitted => message.omitted,
        suppressed => message.suppressed.as_deref(),
        host => one_line(&*origin.host.name),
    };
    environment.render_str(TEMPLATE, context).expect("the template is ours and its values are all there")
}

fn of_notification(notification: &Notification) -> minijinja::Value {
    let facts = match (&notification.alert, &notification.problem) {
        (Some(alert), _) => text::facts(alert, notification.kind),
        (None, Some(problem)) => problem.details.iter().map(|(name, value)| (*name, one_line(value))).collect(),
        (None, None) => Vec::new(),
    };
    context! {
        state => text::state_word(notification.kind),
        severity => notification.severity().name(),
        colour => if notification.kind.ends() { "#1e8449" } else { colour(notification.severity()) },
        summary => one_line(notification.summary()),
        time => notification.timestamp.to_string(),
        facts,
    }
}

/// The colour of a severity, as mail and chat show it.
pub fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "#922b21",
        Severity::High => "#c0392b",
        Severity::Medium => "#d68910",
        Severity::Low => "#2471a3",
        Severity::Info => "#5d6d7e",
    }
}

/// Updates of one alert form a thread; mails about several alerts, or none, stand alone.
fn thread_of(message: &Message) -> Option<&Alert> {
    let first = message.notifications.first()?.alert.as_deref()?;
    let same = |notification: &std::sync::Arc<Notification>| {
        notification.alert.as_ref().is_some_and(|alert| alert.state.uid == first.state.uid)
    };
    message.notifications.iter().all(same).then_some(first)
}

/// What may stand behind the `@` of a message id, for any host name.
fn domain(origin: &Origin) -> String {
    let kept = token(&origin.host.name);
    if kept.is_empty() { "localhost".to_owned() } else { kept }
}

fn token(text: &str) -> String {
    text.chars().filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_')).collect()
}

fn name(path: &str) -> Option<String> {
    path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Bytes of the text in a mail's small form.
const SMALL_MAIL: usize = 8_192;
/// Letters of a subject.
const LONGEST_SUBJECT: usize = 180;

const TEMPLATE: &str = r#"<!DOCTYPE html>
<html lang="en"><body style="font-family:sans-serif;color:#222">
{% for alert in alerts -%}
<div style="border-left:6px solid {{ alert.colour }};padding:2px 12px;margin:12px 0">
<p style="margin:4px 0"><b style="color:{{ alert.colour }}">{{ alert.severity | upper }} {{ alert.state }}</b> <span style="color:#777">{{ alert.time }}</span></p>
<p style="font-size:1.1em;margin:4px 0">{{ alert.summary }}</p>
<table style="border-collapse:collapse;font-size:.9em">
{% for name, text in alert.facts -%}
<tr><td style="color:#777;padding:2px 12px 2px 0;vertical-align:top">{{ name }}</td><td style="padding:2px 0;font-family:monospace;word-break:break-all">{{ text }}</td></tr>
{% endfor -%}
</table>
</div>
{% endfor -%}
{% if omitted %}<p>and {{ omitted }} more of this group</p>{% endif %}
{% if suppressed %}<p>suppressed by {{ suppressed }}</p>{% endif %}
<p style="color:#999;font-size:.8em">Egret on {{ host }}</p>
</body></html>
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;
    use std::sync::Arc;

    #[test]
    fn updates_of_one_alert_thread_and_retries_are_the_same_mail() {
        let firing = mail(&Message::single("mail", example::firing()));
        assert_eq!(firing, mail(&Message::single("mail", example::firing())));
        let resolved = mail(&Message::single("mail", example::resolved()));
        for mail in [&firing, &resolved] {
            assert!(mail.contains("In-Reply-To: <01JX8Q4Z7M0000000000000000@web-07>\r\n"), "{mail}");
            assert!(mail.contains("References: <01JX8Q4Z7M0000000000000000@web-07>\r\n"), "{mail}");
        }
        assert!(firing.contains("Auto-Submitted: auto-generated\r\n"));
        assert!(firing.contains("X-Egress-Rule: exfil-cloud-storage\r\n"));
        assert!(firing.contains("Date: Mon, 04 May 2026 02:11:09 +0000\r\n"), "{firing}");
        assert!(firing.contains("Content-Type: multipart/alternative;"));
    }

    #[test]
    fn subjects_say_how_bad_where_what_and_who() {
        let subject = |message: &Message| subject(message, &example::origin());
        assert_eq!(
            subject(&Message::single("mail", example::firing())),
            "[HIGH] web-07: Large upload to cloud storage by an unapproved program (rclone, alice)"
        );
        let mut several = Message::single("mail", example::firing());
        several.notifications.push(example::resolved());
        several.omitted = 10;
        assert!(subject(&several).starts_with("[HIGH] web-07: 12 alerts: Large upload"));
        assert!(subject(&Message::single("mail", example::resolved())).starts_with("[RESOLVED] web-07: "));
    }

    #[test]
    fn no_header_and_no_markup_can_be_smuggled_in() {
        let mut notification = (*example::with_command_line(b"</td><script>alert(1)</script>")).clone();
        let alert = Arc::make_mut(notification.alert.as_mut().unwrap());
        let rule = Arc::make_mut(&mut alert.rule.metadata);
        rule.id = "x\r\nBcc: everybody@example.org".into();
        rule.title = "t\r\nBcc: everybody@example.org\u{fc}".into();
        let mail = mail(&Message::single("mail", Arc::new(notification)));
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        let (_, html) = body.split_once("text/html").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(!html.contains("<script>"));
    }

    fn mail(message: &Message) -> String {
        let mailbox = |address: &str| address.parse::<Mailbox>().unwrap();
        let envelope = Envelope { from: mailbox("Egret <egret@example.org>"), to: vec![mailbox("soc@example.org")] };
        String::from_utf8(encode(message, &example::origin(), &envelope)).unwrap()
    }
}
