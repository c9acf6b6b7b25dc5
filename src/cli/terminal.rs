//! What a person sees: messages on standard error, colour only on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Says an error on standard error.
pub fn error(message: &str) {
    say("error", AnsiColor::Red.on_default().bold(), message);
}

/// Says a warning on standard error.
pub fn warning(message: &str) {
    say("warning", AnsiColor::Yellow.on_default().bold(), message);
}

/// Says something worth knowing on standard error.
pub fn note(message: &str) {
    say("note", AnsiColor::Cyan.on_default().bold(), message);
}

fn say(label: &str, style: Style, message: &str) {
    // Standard error is the last place to say anything: if it is gone, nobody listens.
    let _ = writeln!(anstream::stderr(), "{style}{label}{style:#}: {}", escape(message));
}

/// The text with control characters other than the line end made visible, so
/// that a name chosen by an attacker cannot steer the terminal.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => escaped.push('\n'),
            steering if steering.is_control() || is_bidirectional_control(steering) => {
                escaped.extend(steering.escape_unicode());
            }
            plain => escaped.push(plain),
        }
    }
    escaped
}

/// A bar for work of known length; hidden where standard error is no terminal.
pub fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar that fills by itself while a command watches for `duration`; hidden where standard error is no terminal.
pub fn countdown(duration: Duration, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    let template = format!("{{spinner}} {what} for {} s ({{elapsed}})", duration.as_secs());
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// The characters that reorder text around them (Unicode UAX 9), the stuff of
/// "Trojan Source".
fn is_bidirectional_control(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(escape("a\u{1b}[2Jb\rc"), "a\\u{1b}[2Jb\\u{d}c");
        assert_eq!(escape("ok\u{202e}exe"), "ok\\u{202e}exe");
        assert_eq!(escape("two\nlines"), "two\nlines");
    }
}
