//! A message through a template that the operator wrote.
//!
//! A template sees the documents of the JSON format. It can neither read files
//! nor run for ever: its fuel is bounded, and what it writes is cut.

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use crate::alert::{Message, Origin};
use crate::dispatch::encode::json;

/// Checks a template without rendering it.
pub fn check(template: &str) -> Result<(), minijinja::Error> {
    environment().template_from_str(template).map(|_| ())
}

/// The text that a template makes of a message. A template that fails gives our
/// JSON instead: an alert is worth more than its form.
pub fn encode(message: &Message, origin: &Origin, template: &str) -> Vec<u8> {
    match render(message, origin, template) {
        Ok(text) => text.into_bytes(),
        Err(error) => {
            tracing::warn!(%error, "the template of an output failed; it gets JSON");
            json::encode(message, origin)
        }
    }
}

/// The text that a template makes of a message, or why it makes none.
pub fn render(message: &Message, origin: &Origin, template: &str) -> Result<String, minijinja::Error> {
    let document = |bytes: Vec<u8>| -> serde_json::Value { serde_json::from_slice(&bytes).unwrap_or_default() };
    let alerts: Vec<serde_json::Value> = message
        .notifications
        .iter()
        .map(|notification| document(json::encode_one(notification, origin, message.suppressed.as_deref())))
        .collect();
    let context = context! {
        id => &*message.id,
        kind => message.kind().name(),
        severity => message.severity().name(),
        summary => message.headline().summary(),
        host => &*origin.host.name,
        first => Value::from(Serde(alerts.first())),
        alerts => Value::from(Serde(&alerts)),
        omitted => message.omitted,
    };
    let mut text = environment().render_str(template, context)?;
    text.truncate(text.floor_char_boundary(LARGEST));
    Ok(text)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment
}

/// Steps that a template may take.
const FUEL: u64 = 200_000;
const LARGEST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;

    #[test]
    fn templates_see_the_documents_and_cannot_run_for_ever() {
        let message = Message::single("x", example::firing());
        let render = |template: &str| render(&message, &example::origin(), template);
        let template = r#"{"text": {{ summary | tojson }}, "user": "{{ first.data.user.name }}"}"#;
        let text = render(template).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((read["user"].as_str(), read["text"].as_str().unwrap().len()), (Some("alice"), 57));
        assert!(render("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}").is_err());
        assert!(render("{{ no_such_thing }}").is_err());
        assert!(check("{% if %}").is_err());
        let fallback = encode(&message, &example::origin(), "{{ no_such_thing }}");
        assert!(fallback.starts_with(b"{\"type\":\"alert.firing\""));
    }
}
