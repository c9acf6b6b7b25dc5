//! Mappings opened against the table of their keys, and values of simple shapes.

use std::time::Duration;

use crate::rule::catalogue as code;
use crate::rule::compile::Compiler;
use crate::rule::diagnose::{Diagnostic, Span, nearest};
use crate::rule::literal::{self, BadLiteral};
use crate::rule::schema::Table;
use crate::rule::yaml::{Entry, Node, Yaml, quoted};

/// A mapping whose keys are all known.
pub(super) struct Keys<'n> {
    node: &'n Node,
}

impl<'n> Keys<'n> {
    /// Opens a mapping; unknown and missing keys are told.
    pub(super) fn open(compiler: &mut Compiler<'_>, node: &'n Node, table: &'static Table) -> Option<Self> {
        let entries = compiler.expect_mapping(node)?;
        for entry in entries {
            if table.key(&entry.key.text).is_none() {
                compiler.unknown_key(entry, table);
            }
        }
        for key in table.keys.iter().filter(|key| key.required) {
            // A mistyped key has its own message.
            let mistyped = entries.iter().any(|entry| {
                table.key(&entry.key.text).is_none() && nearest(&entry.key.text, table.names()) == Some(key.name)
            });
            if node.entry(key.name).is_none() && !mistyped {
                let span = entries.first().map_or(node.span, |entry| entry.key.span);
                compiler.push(
                    Diagnostic::new(&code::MISSING_KEY, span, format!("{} needs `{}`", table.name, key.name))
                        .help(format!("`{}`: {}", key.name, key.doc)),
                );
            }
        }
        Some(Self { node })
    }

    /// The value of a key, if it was written.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.node.child(key)
    }
}

impl Compiler<'_> {
    fn unknown_key(&mut self, entry: &Entry, table: &'static Table) {
        let mut found = Diagnostic::new(
            &code::UNKNOWN_KEY,
            entry.key.span,
            format!("{} has no key `{}`", table.name, entry.key.text),
        )
        .label("unknown key")
        .suggest(&entry.key.text, table.names());
        if found.fix.is_none() {
            if let Some(meant) = elsewhere(&entry.key.text) {
                found = found.help(meant);
            } else {
                found = found.help(format!("known keys: {}", table.names().collect::<Vec<_>>().join(", ")));
            }
        }
        self.push(found);
    }

    /// The pairs of a mapping.
    pub(super) fn expect_mapping<'n>(&mut self, node: &'n Node) -> Option<&'n [Entry]> {
        if let Yaml::Mapping(entries) = &node.value {
            return Some(entries);
        }
        self.wrong_shape(node, "a mapping (`key: value`)");
        None
    }

    /// The elements of a list.
    pub(super) fn expect_list<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        if let Yaml::Sequence(elements) = &node.value {
            return Some(elements);
        }
        self.wrong_shape(node, "a list (`- ...`)");
        None
    }

    pub(super) fn wrong_shape(&mut self, node: &Node, wanted: &str) {
        let span = one_line(node.span, node);
        let found =
            Diagnostic::new(&code::WRONG_SHAPE, span, format!("{wanted} is needed here, and this is {}", node.kind()));
        self.push(found);
    }

    /// A text; what YAML takes for something else is named.
    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let Yaml::Scalar { text, plain } = &node.value else {
            let found = self.braces(node).or_else(|| self.colon(node));
            match found {
                Some(found) => self.push(found),
                None => self.wrong_shape(node, "a text"),
            }
            return None;
        };
        if *plain {
            if node.is_null() {
                self.wrong_shape(node, "a text");
                return None;
            }
            if node.boolean().is_some() {
                let found = Diagnostic::new(
                    &code::WRONG_SHAPE,
                    node.span,
                    format!("a text is needed here, and `{text}` is a truth value"),
                )
                .help(format!("quote it if a text is meant: {}", quoted(text)));
                self.push(found);
                return None;
            }
            if matches!(
                text.as_str(),
                "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "on" | "On" | "ON" | "off" | "Off" | "OFF"
            ) {
                let replacement = quoted(text);
                let found = Diagnostic::new(
                    &code::WORD_READ_AS_BOOLEAN,
                    node.span,
                    format!("many YAML readers take `{text}` for a truth value"),
                )
                .help(format!("quote it: {replacement}"))
                .fix(node.span, replacement);
                self.push(found);
            }
        }
        Some(text)
    }

    /// A template without quotes is a mapping to YAML.
    fn braces(&self, node: &Node) -> Option<Diagnostic> {
        let written = self.report.source(node.span).map(|source| source.slice(node.span))?;
        written.starts_with("{{").then(|| {
            Diagnostic::new(&code::UNQUOTED_BRACES, node.span, "a plain value cannot start with `{{`")
                .label("YAML reads this as a mapping")
                .help(format!("quote it: {}", quoted(written)))
        })
    }

    /// `[2001:db8::, x]` holds a mapping.
    pub(super) fn colon(&self, node: &Node) -> Option<Diagnostic> {
        let [entry] = node.entries()? else { return None };
        let address = format!("{}:", entry.key.text);
        let is_address = entry.value.is_null() && address.parse::<std::net::Ipv6Addr>().is_ok();
        is_address.then(|| {
            let replacement = quoted(&address);
            let span = Span { end: entry.key.span.end + 1, ..entry.key.span };
            Diagnostic::new(
                &code::ADDRESS_READ_AS_MAPPING,
                span,
                format!("YAML reads `{address}` as a key without a value"),
            )
            .help(format!("quote it: {replacement}"))
            .fix(span, replacement)
        })
    }

    /// One text or several.
    pub(super) fn texts(&mut self, node: &Node) -> Vec<(String, Span)> {
        match &node.value {
            Yaml::Sequence(elements) => elements
                .iter()
                .filter_map(|element| self.text(element).map(|text| (text.to_owned(), element.span)))
                .collect(),
            _ => self.text(node).map(|text| (text.to_owned(), node.span)).into_iter().collect(),
        }
    }

    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        let value = node.boolean();
        if value.is_none() {
            let meant = match node.text().map(str::to_ascii_lowercase).as_deref() {
                Some("yes" | "on") => Some("true"),
                Some("no" | "off") => Some("false"),
                _ => None,
            };
            let found = Diagnostic::new(
                &code::WRONG_SHAPE,
                node.span,
                format!("`true` or `false` is needed here, and this is {}", node.kind()),
            );
            let found = match meant {
                Some(meant) => found.help(format!("YAML 1.2 has `{meant}`")).fix(node.span, meant),
                None => found,
            };
            self.push(found);
        }
        value
    }

    /// One of some words, whatever the case.
    pub(super) fn word(&mut self, node: &Node, words: &'static [&'static str]) -> Option<&'static str> {
        let text = self.text(node)?;
        let found = words.iter().copied().find(|word| word.eq_ignore_ascii_case(text));
        if found.is_none() {
            self.unknown_word(text, node.span, words);
        }
        found
    }

    pub(super) fn unknown_word(&mut self, written: &str, span: Span, words: &[&'static str]) {
        let found = Diagnostic::new(&code::UNKNOWN_VALUE, span, format!("`{written}` is not possible here"))
            .suggest(written, words.iter().copied())
            .help(format!("possible: {}", words.join(", ")));
        self.push(found);
    }

    /// A literal that one of the readers of [`literal`] takes.
    pub(super) fn literal<T>(&mut self, node: &Node, read: fn(&str) -> Result<T, BadLiteral>) -> Option<T> {
        let Yaml::Scalar { text, plain } = &node.value else {
            let found = self.colon(node);
            match found {
                Some(found) => self.push(found),
                None => self.wrong_shape(node, "a single value"),
            }
            return None;
        };
        let (text, plain) = (text.clone(), *plain);
        self.read_literal(&text, plain, node.span, read)
    }

    pub(super) fn read_literal<T>(
        &mut self,
        text: &str,
        plain: bool,
        span: Span,
        read: fn(&str) -> Result<T, BadLiteral>,
    ) -> Option<T> {
        match read(text) {
            Ok(value) => Some(value),
            Err(bad) => {
                self.bad_literal(text, plain, span, bad);
                None
            }
        }
    }

    pub(super) fn bad_literal(&mut self, text: &str, plain: bool, span: Span, bad: BadLiteral) {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let sexagesimal = plain && text.contains(':') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
        let kind = if sexagesimal {
            &code::SEXAGESIMAL
        } else if plain && digits && text.len() > 1 && text.starts_with('0') {
            &code::OCTAL
        } else {
            &code::BAD_LITERAL
        };
        let mut found = Diagnostic::new(kind, span, bad.message);
        if let Some(meant) = bad.suggestion {
            found = found.help(format!("did you mean `{meant}`?")).fix(span, meant);
            // `500M` could mean two things: a person decides.
            if let Some(fix) = found.fix.as_mut() {
                fix.safe = !found.message.contains("ambiguous") && !found.message.contains("no unit");
            }
        }
        self.push(found);
    }

    pub(super) fn duration(&mut self, node: &Node) -> Option<Duration> {
        self.literal(node, literal::duration)
    }

    pub(super) fn check_name(&mut self, name: &str, span: Span, noun: &str) -> bool {
        let dots = noun != "rule";
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-') || (dots && matches!(byte, b'_' | b'.'));
        if !name.is_empty() && name.len() <= 128 && name.bytes().all(fits) {
            return true;
        }
        let slug: String =
            name.to_ascii_lowercase()
                .chars()
                .map(|character| {
                    if character.is_ascii() && fits(u8::try_from(character).unwrap_or(b' ')) { character } else { '-' }
                })
                .collect();
        let slug = slug.trim_matches('-').to_owned();
        let letters = if dots { "`a-z`, `0-9`, `-`, `_`, `.`" } else { "`a-z`, `0-9`, `-`" };
        let mut found = Diagnostic::new(&code::BAD_NAME, span, format!("`{name}` cannot name a {noun}"))
            .note(format!("names are made of {letters}"));
        if !slug.is_empty() {
            found = found.help(format!("did you mean `{slug}`?"));
        }
        self.push(found);
        false
    }
}

/// Keys of other tools' rule languages, and what they are called here.
fn elsewhere(key: &str) -> Option<&'static str> {
    Some(match key {
        "condition" | "detection" | "filter" | "selection" => "which flows count is said in `match`",
        "threshold" | "conditions" => "limits are said in `when`: `{bytes_out: {gte: 500MB}}`",
        "name" => "a rule has `id` and `title`",
        "priority" | "level" => "how bad a match is, is said in `severity`",
        "timeframe" | "timespan" | "interval" | "within" => "the time over which sums run is `window`",
        "mitre" | "technique" | "techniques" => "ATT&CK techniques are named in `attack`",
        "labels" | "annotations" => "free words are `tags`; texts are `title`, `description` and `note`",
        "actions" | "notify" | "receivers" | "alert" => "who is told is said in `outputs`",
        "desc" => "did you mean `description`?",
        "by" | "groupby" => "did you mean `group_by`?",
        _ => return None,
    })
}

/// A mapping's span may run over many lines; messages show the first.
fn one_line(span: Span, node: &Node) -> Span {
    match &node.value {
        Yaml::Scalar { .. } => span,
        Yaml::Mapping(entries) => entries.first().map_or(span, |entry| entry.key.span),
        Yaml::Sequence(elements) => elements.first().map_or(span, |element| Span {
            source: span.source,
            start: span.start,
            line: span.line,
            column: span.column,
            end: element.span.end.min(span.end),
        }),
    }
}
