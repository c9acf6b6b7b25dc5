//! A message for people in a chat: Slack, Mattermost, Teams, Discord, Telegram,
//! Google Chat, ntfy, Gotify.
//!
//! Each has its own markup, its own characters to escape, and its own limits.
//! Nothing from a process can call people by name or leave its field.

use serde_json::{Value as Json, json};

use crate::alert::{DocumentKind, Message, Notification, Origin};
use crate::dispatch::encode::email::{colour, subject};
use crate::dispatch::encode::text;
use crate::escape::one_line;
use crate::rule::Severity;

/// Slack's incoming webhook, and Mattermost's, which is the same.
pub fn slack(message: &Message, origin: &Origin) -> Vec<u8> {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let attachment = |notification: &Notification| {
        let fields: Vec<Json> = facts(notification)
            .into_iter()
            .map(|(name, value)| {
                json!({"title": name, "value": escape(&clip(&value, 600)), "short": value.chars().count() <= 40})
            })
            .collect();
        let mut attachment = json!({
            "color": shade(notification),
            "fallback": escape(&clip(&one_line(notification.summary()), 1000)),
            "title": escape(&clip(&title(notification), 200)),
            "text": escape(&clip(&one_line(notification.summary()), 3000)),
            "fields": fields,
            "footer": escape(&one_line(&*origin.host.name)),
            "ts": notification.timestamp.as_secs(),
        });
        if let (Some(url), Json::Object(attachment)) = (link(notification), &mut attachment) {
            attachment.insert("title_link".to_owned(), json!(url));
        }
        attachment
    };
    let attachments: Vec<Json> = message.notifications.iter().take(20).map(|one| attachment(one)).collect();
    let more = rest(message, 20);
    to_bytes(&json!({"text": escape(&format!("{}{more}", subject(message, origin))), "attachments": attachments}))
}

/// An Adaptive Card for a Teams workflow, held below 28 kB.
pub fn teams(message: &Message, origin: &Origin) -> Vec<u8> {
    let plain = |text: &str| text.replace(['*', '_', '[', ']', '`', '#', '~'], "\u{200a}");
    for listed in [10, 5, 2, 1] {
        let mut body = Vec::new();
        for notification in message.notifications.iter().take(listed) {
            let colour = match notification.severity() {
                _ if notification.kind.ends() => "Good",
                Severity::High | Severity::Critical => "Attention",
                Severity::Medium => "Warning",
                Severity::Low | Severity::Info => "Default",
            };
            body.push(json!({"type": "TextBlock", "text": plain(&clip(&title(notification), 200)), "weight": "Bolder",
                "size": "Medium", "color": colour, "wrap": true}));
            body.push(json!({"type": "TextBlock", "text": plain(&clip(&one_line(notification.summary()), 1000)), "wrap": true}));
            let facts: Vec<Json> = facts(notification)
                .into_iter()
                .map(|(name, value)| json!({"title": name, "value": plain(&clip(&value, 500))}))
                .collect();
            if !facts.is_empty() {
                body.push(json!({"type": "FactSet", "facts": facts}));
            }
        }
        let more = rest(message, listed);
        body.push(json!({"type": "TextBlock", "text": plain(&format!("{}{more}", one_line(&*origin.host.name))),
            "isSubtle": true, "wrap": true}));
        let actions: Vec<Json> = link(message.headline())
            .into_iter()
            .map(|url| json!({"type": "Action.OpenUrl", "title": "Runbook", "url": url}))
            .collect();
        let card = to_bytes(&json!({"type": "message", "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard",
                "version": "1.2", "body": body, "actions": actions},
        }]}));
        if card.len() <= 28_000 || listed == 1 {
            return card;
        }
    }
    Vec::new()
}

/// Discord's webhook. Nobody can be called by what an alert says.
pub fn discord(message: &Message, origin: &Origin) -> Vec<u8> {
    // A backslash before what is markup to Discord.
    let escape = |text: &str| {
        text.chars().fold(String::new(), |mut escaped, letter| {
            if matches!(letter, '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '#' | '[' | ']' | '@') {
                escaped.push('\\');
            }
            escaped.push(letter);
            escaped
        })
    };
    let embed = |notification: &Notification| {
        let fields: Vec<Json> = facts(notification)
            .into_iter()
            .take(12)
            .map(|(name, value)| json!({"name": name, "value": clip(&escape(&clip(&value, 300)), 1000), "inline": value.chars().count() <= 40}))
            .collect();
        let number = u32::from_str_radix(shade(notification).trim_start_matches('#'), 16).unwrap_or(0);
        let mut embed = json!({
            "title": clip(&title(notification), 256),
            "description": clip(&escape(&clip(&one_line(notification.summary()), 2000)), 4096),
            "color": number,
            "fields": fields,
            "footer": {"text": clip(&one_line(&*origin.host.name), 200)},
            "timestamp": notification.timestamp,
        });
        if let (Some(url), Json::Object(embed)) = (link(notification), &mut embed) {
            embed.insert("url".to_owned(), json!(url));
        }
        embed
    };
    // All embeds together may have 6,000 letters.
    let listed = if message.notifications.len() > 2 { 1 } else { 2 };
    let embeds: Vec<Json> = message.notifications.iter().take(listed).map(|one| embed(one)).collect();
    let content = format!("{}{}", subject(message, origin), rest(message, listed));
    to_bytes(&json!({"content": clip(&escape(&content), 2000), "embeds": embeds, "allowed_mentions": {"parse": []}}))
}

/// Telegram's `sendMessage`, as HTML.
pub fn telegram(message: &Message, origin: &Origin, chat: &str) -> Vec<u8> {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut body = format!("<b>{}</b>", escape(&clip(&subject(message, origin), 200)));
    for notification in message.notifications.iter().take(5) {
        body.push_str(&format!("\n\n{}", escape(&clip(&one_line(notification.summary()), 400))));
        for (name, value) in facts(notification).into_iter().take(6) {
            // The limit is 4,096 letters, and markup must not be cut.
            if body.chars().count() < 3_300 {
                body.push_str(&format!("\n<i>{name}</i> {}", escape(&clip(&value, 200))));
            }
        }
    }
    body.push_str(&escape(&rest(message, 5)));
    to_bytes(&json!({"chat_id": chat, "text": body, "parse_mode": "HTML", "disable_web_page_preview": true}))
}

/// ntfy's JSON form.
pub fn ntfy(message: &Message, origin: &Origin, topic: &str) -> Vec<u8> {
    let priority = match message.severity() {
        _ if message.kind().ends() => 3,
        Severity::Critical => 5,
        Severity::High => 4,
        Severity::Medium => 3,
        Severity::Low => 2,
        Severity::Info => 1,
    };
    let lines: Vec<String> =
        message.notifications.iter().take(10).map(|one| clip(&one_line(one.summary()), 300)).collect();
    let tags = if message.kind().ends() { "white_check_mark" } else { "rotating_light" };
    let mut body = json!({
        "topic": topic,
        "title": clip(&subject(message, origin), 200),
        "message": format!("{}{}", lines.join("\n"), rest(message, 10)),
        "priority": priority,
        "tags": [tags],
    });
    if let (Some(url), Json::Object(body)) = (link(message.headline()), &mut body) {
        body.insert("click".to_owned(), json!(url));
    }
    to_bytes(&body)
}

/// A card in a Google Chat space, with a line for notices.
pub fn googlechat(message: &Message, origin: &Origin) -> Vec<u8> {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let section = |notification: &Notification| {
        let mut widgets = vec![json!({"textParagraph": {"text": format!(
            "<font color=\"{}\"><b>{}</b></font><br>{}",
            shade(notification),
            escape(&clip(&title(notification), 200)),
            escape(&clip(&one_line(notification.summary()), 1000)),
        )}})];
        widgets.extend(facts(notification).into_iter().take(30).map(|(name, value)| {
            json!({"decoratedText": {"topLabel": name, "text": escape(&clip(&value, 300)), "wrapText": true}})
        }));
        json!({"widgets": widgets})
    };
    // A message may have 32,000 bytes.
    for listed in [10, 5, 2, 1] {
        let sections: Vec<Json> = message.notifications.iter().take(listed).map(|one| section(one)).collect();
        let subtitle = format!("{}{}", one_line(&*origin.host.name), rest(message, listed));
        let body = to_bytes(&json!({
            "text": clip(&subject(message, origin), 400).replace(['<', '>', '*', '_', '`', '~'], " "),
            "cardsV2": [{"cardId": &*message.id, "card": {
                "header": {"title": "Egret", "subtitle": subtitle},
                "sections": sections,
            }}],
        }));
        if body.len() <= 30_000 || listed == 1 {
            return body;
        }
    }
    Vec::new()
}

/// A message of Gotify, in plain text.
pub fn gotify(message: &Message, origin: &Origin) -> Vec<u8> {
    let priority = match message.severity() {
        _ if message.kind().ends() => 2,
        Severity::Critical => 10,
        Severity::High => 8,
        Severity::Medium => 5,
        Severity::Low | Severity::Info => 3,
    };
    let lines: Vec<String> =
        message.notifications.iter().take(10).map(|one| clip(&one_line(one.summary()), 500)).collect();
    to_bytes(&json!({
        "title": clip(&subject(message, origin), 200),
        "message": format!("{}{}", lines.join("\n"), rest(message, 10)),
        "priority": priority,
        "extras": {"client::display": {"contentType": "text/plain"}},
    }))
}

fn facts(notification: &Notification) -> Vec<(&'static str, String)> {
    match (&notification.alert, &notification.problem) {
        (Some(alert), _) => text::facts(alert, notification.kind),
        (None, Some(problem)) => problem.details.iter().map(|(name, value)| (*name, one_line(value))).collect(),
        (None, None) => Vec::new(),
    }
}

fn title(notification: &Notification) -> String {
    let what = match (&notification.alert, &notification.problem) {
        (Some(alert), _) if !alert.rule.metadata.title.is_empty() => one_line(&alert.rule.metadata.title),
        (Some(alert), _) => one_line(&*alert.rule.metadata.id),
        (None, Some(problem)) => problem.id.to_owned(),
        (None, None) => "egret".to_owned(),
    };
    let word = if notification.kind == DocumentKind::Firing {
        notification.severity().name().to_uppercase()
    } else {
        text::state_word(notification.kind).to_owned()
    };
    format!("{word} {what}")
}

fn shade(notification: &Notification) -> &'static str {
    if notification.kind.ends() { "#1e8449" } else { colour(notification.severity()) }
}

/// A link that a rule's author wrote, where it is one that a chat follows.
fn link(notification: &Notification) -> Option<String> {
    let link = notification.alert.as_ref()?.rule.metadata.references.first()?;
    link.starts_with("https://").then(|| one_line(link))
}

fn rest(message: &Message, listed: usize) -> String {
    let left = message.notifications.len().saturating_sub(listed) + message.omitted;
    if left == 0 { String::new() } else { format!("\nand {left} more") }
}

fn clip(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters.saturating_sub(1)) {
        Some((end, _)) if text.chars().count() > letters => format!("{}…", text.get(..end).unwrap_or(text)),
        _ => text.to_owned(),
    }
}

fn to_bytes(value: &Json) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn slack_escapes_what_would_call_people() {
        let body = read(slack(&hostile(), &example::origin()));
        let fields = body["attachments"][0]["fields"].to_string();
        assert!(fields.contains("&lt;!channel&gt; &amp;") && !body.to_string().contains("<!channel>"), "{fields}");
        assert_eq!(body["attachments"][0]["color"], "#c0392b");
        assert_eq!(body["attachments"][0]["title_link"], "https://example.org/runbooks/exfil-cloud");
        assert_eq!(read(slack(&resolved(), &example::origin()))["attachments"][0]["color"], "#1e8449");
    }

    #[test]
    fn teams_gets_a_card_within_its_size() {
        let mut message = hostile();
        message.notifications = vec![example::with_command_line(&[b'x'; 100_000]); 50];
        let body = teams(&message, &example::origin());
        assert!(body.len() <= 28_000, "{}", body.len());
        let card = &read(body)["attachments"][0]["content"];
        assert_eq!((card["version"].as_str(), card["body"][0]["color"].as_str()), (Some("1.2"), Some("Attention")));
        assert!(card.to_string().contains("more"));
        let card = read(teams(&resolved(), &example::origin()));
        assert_eq!(card["attachments"][0]["content"]["body"][0]["color"], "Good");
    }

    #[test]
    fn discord_keeps_its_limits_and_mentions_nobody() {
        let mut message = hostile();
        message.notifications = vec![example::with_command_line(&b"@everyone *_`".repeat(5_000)); 30];
        let body = read(discord(&message, &example::origin()));
        assert_eq!(body["allowed_mentions"]["parse"], json!([]));
        assert!(!body.to_string().contains(" @everyone"));
        let embeds = body["embeds"].as_array().unwrap();
        assert!(embeds.iter().map(|embed| embed.to_string().chars().count()).sum::<usize>() <= 8_000);
        assert!(body["content"].as_str().unwrap().chars().count() <= 2_000);
        for field in embeds[0]["fields"].as_array().unwrap() {
            assert!(field["value"].as_str().unwrap().chars().count() <= 1_024);
        }
    }

    #[test]
    fn telegram_and_ntfy_say_the_same_in_their_ways() {
        let body = read(telegram(&hostile(), &example::origin(), "-100"));
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("&lt;!channel&gt;") && text.chars().count() <= 4_096);
        assert_eq!(body["chat_id"], "-100");
        let body = read(ntfy(&hostile(), &example::origin(), "alerts"));
        assert_eq!((body["topic"].as_str(), body["priority"].as_u64()), (Some("alerts"), Some(4)));
    }

    #[test]
    fn google_chat_and_gotify_keep_their_limits_and_escape() {
        let body = read(googlechat(&hostile(), &example::origin()));
        assert!(body.to_string().contains("&lt;!channel&gt; &amp;") && !body.to_string().contains("<!channel>"));
        let mut message = hostile();
        message.notifications = vec![example::with_command_line(&[b'<'; 100_000]); 50];
        assert!(googlechat(&message, &example::origin()).len() <= 32_000);
        let body = read(gotify(&hostile(), &example::origin()));
        assert_eq!((body["priority"].as_u64(), body["title"].as_str().unwrap().contains("[HIGH]")), (Some(8), true));
        assert_eq!(read(gotify(&resolved(), &example::origin()))["priority"], 2);
    }

    fn hostile() -> Message {
        Message::single("chat", example::with_command_line(b"echo <!channel> & @everyone"))
    }

    fn resolved() -> Message {
        Message::single("chat", example::resolved())
    }

    fn read(body: Vec<u8>) -> Json {
        serde_json::from_slice(&body).unwrap()
    }
}
