//! The one line of an alert, as its rule words it.
//!
//! A template is somebody's text: it runs with limited fuel, reaches no file
//! and no other template, and its result is cut.

use std::fmt;
use std::time::Duration;

use minijinja::{Environment, UndefinedBehavior};

use crate::units::{Bytes, Rate};

/// A template that was read without an error.
pub struct Summary {
    text: String,
    environment: Environment<'static>,
}

/// Why a template cannot be read or rendered.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// In words.
    pub message: String,
    /// The line within the template, from 1.
    pub line: Option<usize>,
}

/// Lines longer than this are cut.
pub const MAX_BYTES: usize = 1_000;

impl Summary {
    /// Reads a template: `{{ exe }} sent {{ bytes_out | bytes }}`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(20_000));
        environment.add_filter("bytes", |value: f64| Bytes(whole(value)).to_string());
        environment.add_filter("rate", |value: f64| Rate(whole(value)).to_string());
        // Seconds, or what is a duration in words already.
        environment.add_filter("duration", |value: minijinja::Value| match f64::try_from(value.clone()) {
            Ok(seconds) => duration(Duration::from_secs_f64(seconds.clamp(0.0, 1e12))),
            Err(_) => value.to_string(),
        });
        environment.add_filter("percent", |value: f64| format!("{:.0} %", value * 100.0));
        environment.add_filter(
            "default",
            |value: minijinja::Value, other: minijinja::Value| {
                if value.is_undefined() || value.is_none() { other } else { value }
            },
        );
        environment.add_filter("upper", |value: minijinja::Value| in_letters(value, str::to_uppercase));
        environment.add_filter("lower", |value: minijinja::Value| in_letters(value, str::to_lowercase));
        // What is not known has no letters; `default` can put others in its place.
        environment.set_formatter(|out, state, value| match value.is_none() {
            true => Ok(out.write_str("unknown")?),
            false => minijinja::escape_formatter(out, state, value),
        });
        environment.add_template_owned(NAME, text.to_owned())?;
        let summary = Self { text: text.to_owned(), environment };
        // Filters are looked up when a template runs; a run without values finds a wrong one.
        match summary.template()?.render(()) {
            Err(error) if error.kind() == minijinja::ErrorKind::UnknownFilter => Err(error.into()),
            Err(error) if error.kind() == minijinja::ErrorKind::UnknownFunction => Err(error.into()),
            _ => Ok(summary),
        }
    }

    /// The text of the template.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names that the template reads, dotted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .template()
            .map(|template| template.undeclared_variables(true).into_iter().collect())
            .unwrap_or_default();
        names.sort_unstable();
        names
    }

    /// One line from values; a dotted name is a value inside a mapping.
    pub fn render(&self, values: impl serde::Serialize) -> Result<String, TemplateError> {
        let line = self.template()?.render(minijinja::value::Serde(values))?;
        let mut line: String =
            line.trim().chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
        if line.len() > MAX_BYTES {
            let mut end = MAX_BYTES;
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end);
            line.push('…');
        }
        Ok(line)
    }

    fn template(&self) -> Result<minijinja::Template<'_, '_>, TemplateError> {
        Ok(self.environment.get_template(NAME)?)
    }
}

impl From<minijinja::Error> for TemplateError {
    fn from(error: minijinja::Error) -> Self {
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Self { message: detail, line: error.line() }
    }
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Summary").field(&self.text).finish()
    }
}

fn in_letters(value: minijinja::Value, change: fn(&str) -> String) -> minijinja::Value {
    value.as_str().map(change).map_or(value.clone(), Into::into)
}

/// `1h30m`, as rules write it.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return if duration.is_zero() { "0s".to_owned() } else { format!("{}ms", duration.as_millis()) };
    }
    let mut text = String::new();
    let mut rest = seconds;
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    text
}

fn whole(value: f64) -> u64 {
    // Saturates, and takes what is no number for zero.
    value as u64
}

const NAME: &str = "summary";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fill_the_line() {
        let summary =
            Summary::parse("{{ exe }} sent {{ bytes_out | bytes }} to {{ dst.ip }} in {{ window | duration }}")
                .unwrap();
        let values = serde_json::json!({ "exe": "/bin/x\n", "bytes_out": 734_000_000u64, "dst": { "ip": "203.0.113.7" }, "window": 600 });
        assert_eq!(summary.render(values).unwrap(), "/bin/x  sent 734 MB to 203.0.113.7 in 10m");
        assert_eq!(summary.names(), ["bytes_out", "dst.ip", "exe", "window"]);
    }

    #[test]
    fn a_bad_template_is_refused_when_it_is_read() {
        assert!(Summary::parse("{{ exe").is_err());
        assert!(Summary::parse("{{ exe | bites }}").is_err());
    }

    #[test]
    fn a_template_cannot_run_for_long_or_say_much() {
        let long =
            Summary::parse("{% for a in x %}{% for b in x %}{% for c in x %}y{% endfor %}{% endfor %}{% endfor %}")
                .unwrap();
        let values = serde_json::json!({ "x": (0..1_000).collect::<Vec<_>>() });
        assert!(long.render(&values).is_err(), "out of fuel");
        let wide = Summary::parse("{{ x }}").unwrap();
        assert!(wide.render(&values).unwrap().len() <= MAX_BYTES + 3);
    }

    #[test]
    fn durations_read_as_they_are_written() {
        assert_eq!(duration(Duration::from_secs(5_400)), "1h30m");
        assert_eq!(duration(Duration::from_secs(14 * 86_400)), "14d");
        assert_eq!(duration(Duration::ZERO), "0s");
    }
}
