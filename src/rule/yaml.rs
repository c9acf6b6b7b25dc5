//! YAML into a tree that knows where each value was written.
//!
//! Two readers must accept a file: `saphyr-parser`, whose events carry
//! positions and from which the tree is built, and `serde_yaml`, which most
//! programs read. What one of them takes differently is refused. A file
//! cannot make this reader use much time or memory: its size, its depth, the
//! number of its values and the growth by aliases are capped.

use hashbrown::HashMap;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use crate::rule::catalogue as code;
use crate::rule::diagnose::{Diagnostic, Report, Source, Span, narrow};

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Yaml,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Yaml {
    /// A text, a number, a truth value or nothing: the reader decides by what it needs.
    Scalar {
        /// As meant: quotes and escapes are gone.
        text: String,
        /// Whether it was written without quotes.
        plain: bool,
    },
    /// `- a` or `[a]`.
    Sequence(Vec<Node>),
    /// `a: b` or `{a: b}`, in the order written; no key occurs twice.
    Mapping(Vec<Entry>),
}

/// One pair of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Node,
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// As meant.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// Files above this are refused.
pub const MAX_BYTES: usize = 8 << 20;
/// Values inside values inside values, at most.
pub const MAX_DEPTH: usize = 64;
/// Values in one file, aliases counted as what they stand for.
pub const MAX_VALUES: usize = 400_000;
/// Values that aliases may add.
pub const MAX_ALIASED: usize = 20_000;

/// Reads one source of the report. What is wrong goes into the report; what
/// could be read comes back, even if something was wrong.
pub fn read(source: u32, report: &mut Report) -> Option<Node> {
    let file = report.sources.get(source as usize)?.clone();
    let mut found = Vec::new();
    let root = read_source(source, &file, &mut found);
    report.diagnostics.extend(found);
    root
}

fn read_source(index: u32, file: &Source, found: &mut Vec<Diagnostic>) -> Option<Node> {
    if let Some(diagnostic) = unreadable(index, file) {
        found.push(diagnostic);
        return None;
    }
    let mut text = file.text.to_string();
    let mut repaired: Vec<u32> = Vec::new();
    let root = loop {
        let mut builder = Builder::new(index, &text);
        let result = builder.build();
        match result {
            Ok(root) => {
                found.append(&mut builder.found);
                break root;
            }
            Err(Stop::Limit(diagnostic)) => {
                found.append(&mut builder.found);
                found.push(*diagnostic);
                return None;
            }
            Err(Stop::Syntax(error)) => {
                let at = builder.offset(error.marker().index());
                let (diagnostic, repair) = explain(index, file, &text, at, &error);
                let position = diagnostic.span.start;
                found.push(diagnostic);
                match repair {
                    Some(at) if repaired.len() < MAX_REPAIRS => {
                        // The rest of the file deserves its own messages: the character
                        // is replaced by one of the same length and the file read again.
                        text.replace_range(at..=at, "x");
                        repaired.push(position);
                    }
                    _ => return None,
                }
            }
        }
    };
    if repaired.is_empty()
        && found.is_empty()
        && let Err(error) = serde_yaml::from_str::<serde::de::IgnoredAny>(&text)
    {
        let at = error.location().map_or(0, |location| location.index());
        if let Some((explained, _)) = explain_start_of_value(index, file, &text, at) {
            found.push(explained);
            return root;
        }
        found.push(
            Diagnostic::new(&code::SECOND_READER, file.span(index, at, at + 1), format!("{error}"))
                .note("every file must be read in the same way by two YAML readers, and one of them refuses this"),
        );
    }
    root
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The pairs of a mapping.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Yaml::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The elements of a sequence.
    pub fn elements(&self) -> Option<&[Node]> {
        match &self.value {
            Yaml::Sequence(elements) => Some(elements),
            _ => None,
        }
    }

    /// The value of a key of a mapping.
    pub fn child(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A pair of a mapping.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key.text == key)
    }

    /// The value at a path such as `outputs.soc.to.0`.
    pub fn at(&self, path: &str) -> Option<&Node> {
        path.split('.').filter(|step| !step.is_empty()).try_fold(self, |node, step| match &node.value {
            Yaml::Mapping(_) => node.child(step),
            Yaml::Sequence(elements) => elements.get(step.parse::<usize>().ok()?),
            Yaml::Scalar { .. } => None,
        })
    }

    /// Whether nothing was written: `key:`, `~`, `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Yaml::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The truth value of `true` and `false` as YAML 1.2 has them.
    pub fn boolean(&self) -> Option<bool> {
        match &self.value {
            Yaml::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// What it is, in a word or two.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            _ if self.boolean().is_some() => "a truth value",
            Yaml::Scalar { text, plain: true } if text.parse::<f64>().is_ok() => "a number",
            Yaml::Scalar { .. } => "a text",
            Yaml::Sequence(_) => "a list",
            Yaml::Mapping(_) => "a mapping",
        }
    }

    fn count(&self) -> usize {
        match &self.value {
            Yaml::Scalar { .. } => 1,
            Yaml::Sequence(elements) => 1 + elements.iter().map(Self::count).sum::<usize>(),
            Yaml::Mapping(entries) => 1 + entries.iter().map(|entry| 1 + entry.value.count()).sum::<usize>(),
        }
    }
}

enum Stop {
    Limit(Box<Diagnostic>),
    Syntax(ScanError),
}

impl Stop {
    fn limit(diagnostic: Diagnostic) -> Self {
        Self::Limit(Box::new(diagnostic))
    }
}

struct Builder<'a> {
    source: u32,
    text: &'a str,
    /// Byte offsets of characters, where they differ.
    offsets: Option<Vec<u32>>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
    aliased: usize,
    found: Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    fn new(source: u32, text: &'a str) -> Self {
        let offsets = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| narrow(at)).collect());
        Self {
            source,
            text,
            offsets,
            parser: Parser::new_from_str(text),
            anchors: HashMap::new(),
            values: 0,
            aliased: 0,
            found: Vec::new(),
        }
    }

    /// The one document's value; `None` for an empty file.
    fn build(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(_) if root.is_some() => {
                    let span = self.span(span);
                    return Err(Stop::limit(
                        Diagnostic::new(
                            &code::SEVERAL_DOCUMENTS,
                            span,
                            "a file holds one document, and this starts another",
                        )
                        .help("move what follows to a file of its own"),
                    ));
                }
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
        Ok(root)
    }

    fn node(&mut self, event: Event<'a>, span: saphyr_parser::Span, depth: usize) -> Result<Node, Stop> {
        let start = self.span(span);
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Stop::limit(
                Diagnostic::new(&code::TOO_LARGE, start, format!("more than {MAX_VALUES} values in one file"))
                    .help("put long lists into files of their own: `file: lists/partners.txt`"),
            ));
        }
        if depth > MAX_DEPTH {
            return Err(Stop::limit(Diagnostic::new(
                &code::TOO_DEEP,
                start,
                format!("values are nested more than {MAX_DEPTH} deep"),
            )));
        }
        match event {
            Event::Alias(anchor) => self.alias(anchor, start),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), start);
                let plain = style == ScalarStyle::Plain;
                let node = Node { span: start, value: Yaml::Scalar { text: text.into_owned(), plain } };
                Ok(self.keep(anchor, node))
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), start);
                let mut elements = Vec::new();
                loop {
                    match self.next()? {
                        Some((Event::SequenceEnd, end)) => {
                            let span = self.through(start, end);
                            return Ok(self.keep(anchor, Node { span, value: Yaml::Sequence(elements) }));
                        }
                        Some((event, span)) => elements.push(self.node(event, span, depth + 1)?),
                        None => return Ok(Node { span: start, value: Yaml::Sequence(elements) }),
                    }
                }
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), start);
                self.mapping(anchor, start, depth)
            }
            _ => Ok(Node { span: start, value: Yaml::Scalar { text: String::new(), plain: true } }),
        }
    }

    fn mapping(&mut self, anchor: usize, start: Span, depth: usize) -> Result<Node, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        loop {
            let (key, end) = match self.next()? {
                Some((Event::MappingEnd, end)) => (None, Some(end)),
                Some((event, span)) => (Some(self.node(event, span, depth + 1)?), None),
                None => (None, None),
            };
            let Some(key) = key else {
                let span = end.map_or(start, |end| self.through(start, end));
                return Ok(self.keep(anchor, Node { span, value: Yaml::Mapping(entries) }));
            };
            let value = match self.next()? {
                Some((event, span)) => self.node(event, span, depth + 1)?,
                None => return Ok(Node { span: start, value: Yaml::Mapping(entries) }),
            };
            let Yaml::Scalar { text, plain } = key.value else {
                self.found.push(self.complex_key(key.span));
                continue;
            };
            if plain && text == "<<" {
                self.found.push(
                    Diagnostic::new(&code::MERGE_KEY, key.span, "merge keys (`<<`) are not read")
                        .note("YAML 1.2 has none, and readers differ in what they mean")
                        .help("use a macro: `macros: {name: {...}}`, then `$name`"),
                );
                continue;
            }
            if let Some(first) = seen.get(&text) {
                self.found.push(
                    Diagnostic::new(
                        &code::DUPLICATE_KEY,
                        key.span,
                        format!("the key `{text}` occurs twice in this mapping"),
                    )
                    .label("again here")
                    .related(*first, "first here")
                    .note("most YAML readers would let the last one win in silence"),
                );
                continue;
            }
            seen.insert(text.clone(), key.span);
            entries.push(Entry { key: Key { text, span: key.span }, value });
        }
    }

    fn complex_key(&self, span: Span) -> Diagnostic {
        let rest = self.text.get((span.start as usize).saturating_sub(1)..).unwrap_or_default();
        if rest.starts_with("{{") || rest.get(1..).is_some_and(|rest| rest.starts_with("{{")) {
            let from = if rest.starts_with("{{") { span.start - 1 } else { span.start };
            let rest = self.text.get(from as usize..).unwrap_or_default();
            let length = rest.find("}}").map_or(rest.len(), |at| at + 2).min(rest.find('\n').unwrap_or(rest.len()));
            let end = from + narrow(length);
            let column = span.column - (span.start - from);
            let span = Span { start: from, column, end, ..span };
            let written = self.text.get(from as usize..end as usize).unwrap_or_default().trim_end();
            return Diagnostic::new(&code::UNQUOTED_BRACES, span, "a plain value cannot start with `{{`")
                .label("YAML reads this as a mapping")
                .help(format!("quote it: {}", quoted(written)));
        }
        Diagnostic::new(&code::KEY_NOT_TEXT, span, "a key must be a text").label("this is a list or a mapping")
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Stop> {
        let Some((node, count)) = self.anchors.get(&anchor) else {
            self.found.push(Diagnostic::new(&code::ALIAS, span, "this alias stands inside the value that it names"));
            return Ok(Node { span, value: Yaml::Scalar { text: String::new(), plain: true } });
        };
        self.aliased += count;
        self.values += count;
        if self.aliased > MAX_ALIASED {
            return Err(Stop::limit(
                Diagnostic::new(&code::ALIAS, span, format!("aliases stand for more than {MAX_ALIASED} values"))
                    .note("a few lines of aliases can stand for millions of values")
                    .help("use lists and macros: they are shared, not copied"),
            ));
        }
        Ok(node.clone())
    }

    fn keep(&mut self, anchor: usize, node: Node) -> Node {
        if anchor > 0 {
            let count = node.count();
            self.anchors.insert(anchor, (node.clone(), count));
        }
        node
    }

    fn refuse_tag(&mut self, tag: Option<&saphyr_parser::Tag>, span: Span) {
        if let Some(tag) = tag {
            let message = format!("the tag `{}` is not read", tag.to_string().replace("tag:yaml.org,2002:!", "!!"));
            self.found.push(
                Diagnostic::new(&code::TAG, span, message).help("remove it; quote the value where a text is meant"),
            );
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, saphyr_parser::Span)>, Stop> {
        self.parser.next_event().transpose().map_err(Stop::Syntax)
    }

    fn offset(&self, character: usize) -> usize {
        match &self.offsets {
            None => character.min(self.text.len()),
            Some(offsets) => offsets.get(character).map_or(self.text.len(), |at| *at as usize),
        }
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let start = self.offset(span.start.index());
        let end = self.offset(span.end.index()).max(start);
        let written = self.text.get(start..end).unwrap_or_default();
        let end = start + written.trim_end().len();
        Span {
            source: self.source,
            start: narrow(start),
            end: narrow(end),
            line: narrow(span.start.line()),
            column: narrow(span.start.col() + 1),
        }
    }

    /// From a collection's first character to its last one.
    fn through(&self, start: Span, end: saphyr_parser::Span) -> Span {
        let from = start.start as usize;
        let to = self.offset(end.end.index()).max(from);
        let written = self.text.get(from..to).unwrap_or_default();
        Span { end: narrow(from + written.trim_end().len()), ..start }
    }
}

fn unreadable(index: u32, file: &Source) -> Option<Diagnostic> {
    if file.text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_BYTES} are read", file.text.len());
        return Some(
            Diagnostic::new(&code::TOO_LARGE, file.span(index, 0, 0), message)
                .help("put long lists into files of their own: `file: lists/partners.txt`"),
        );
    }
    if let Some(at) = file.damage {
        return Some(
            Diagnostic::new(&code::NOT_TEXT, file.span(index, at, at + 3), "the file is not UTF-8 text")
                .label("the first byte that is not"),
        );
    }
    let control = |character: &char| {
        character.is_control() && !matches!(character, '\n' | '\r' | '\t' | '\u{85}') || *character == '\u{fffe}'
    };
    let (at, character) = file.text.char_indices().find(|(_, character)| control(character))?;
    Some(Diagnostic::new(
        &code::NOT_TEXT,
        file.span(index, at, at + 1),
        format!("the control character U+{:04X} is not allowed in YAML", u32::from(character)),
    ))
}

/// Why the reader stopped, in terms of what people mistype; and a character
/// that can be replaced to read on.
fn explain(index: u32, file: &Source, text: &str, at: usize, error: &ScanError) -> (Diagnostic, Option<usize>) {
    if let Some(explained) = explain_start_of_value(index, file, text, at) {
        return explained;
    }
    let span = file.span(index, at, (at + 1).min(text.len()));
    let line_start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
    let indent = line.len() - line.trim_start().len();
    if let Some(tab) = line.get(..indent).and_then(|indent| indent.find('\t')) {
        let span = file.span(index, line_start + tab, line_start + tab + 1);
        return (Diagnostic::new(&code::TAB, span, "a tab cannot indent YAML").label("a tab").help("use spaces"), None);
    }
    let message = error.info().trim_start_matches("while parsing ").trim_start_matches("while scanning ").to_owned();
    let mut diagnostic = Diagnostic::new(&code::SYNTAX, span, message);
    if let Some((key, value)) = line.trim_start().split_once(": ")
        && value.contains(": ")
        && !value.trim_start().starts_with(['{', '[', '"', '\''])
    {
        diagnostic = diagnostic.help(format!("quote a value that holds `: `: {key}: {}", quoted(value.trim_end())));
    }
    (diagnostic, None)
}

fn explain_start_of_value(index: u32, file: &Source, text: &str, at: usize) -> Option<(Diagnostic, Option<usize>)> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |at| at + 1);
    let line_end = text.get(at..)?.find('\n').map_or(text.len(), |end| at + end);
    let value_at = start_of_bad_value(text, line_start, line_end, at)?;
    let rest = text.get(value_at..line_end)?;
    let first = rest.chars().next()?;
    let span = file.span(index, value_at, value_at + first.len_utf8());
    let in_flow = text.get(line_start..value_at)?.contains(['[', '{']);
    let end =
        if in_flow { rest.find([',', ']', '}']).unwrap_or(rest.len()) } else { rest.find(" #").unwrap_or(rest.len()) };
    let written = rest.get(..end)?.trim_end();
    let whole = file.span(index, value_at, value_at + written.len());
    let replacement = quoted(written);
    let (code, label) = match first {
        '*' => (&code::LEADING_STAR, "YAML reads this as an alias"),
        '&' => (&code::RESERVED_START, "YAML reads this as an anchor"),
        '@' | '`' => (&code::RESERVED_START, "YAML reserves this character"),
        '%' => (&code::RESERVED_START, "YAML reads this as a directive"),
        '>' | '|' => (&code::BLOCK_INDICATOR, "YAML reads this as the start of a block of text"),
        _ => return None,
    };
    let message = format!("a plain value cannot start with `{first}`");
    let mut diagnostic = Diagnostic::new(code, span, message).label(label);
    if matches!(first, '>' | '|') {
        diagnostic = diagnostic
            .help(format!("quote it: {replacement}"))
            .help("a limit is written with a word: `{gt: 5MB}`, not `> 5MB`");
        return Some((diagnostic, None));
    }
    diagnostic = diagnostic.help(format!("quote it: {replacement}")).fix(whole, replacement);
    if first == '*' && written.starts_with("*/") {
        diagnostic = diagnostic.note("an exe pattern without a leading `/` also matches relative names");
    }
    Some((diagnostic, Some(value_at)))
}

/// Where the value starts that the reader stumbled over: at the error itself, or at the value of its line.
fn start_of_bad_value(text: &str, line_start: usize, line_end: usize, at: usize) -> Option<usize> {
    let is_bad = |at: usize| text.get(at..).is_some_and(|rest| rest.starts_with(['*', '&', '@', '`', '%', '>', '|']));
    if is_bad(at) {
        return Some(at);
    }
    let line = text.get(line_start..line_end)?;
    let after = |separator: &str| line.find(separator).map(|found| line_start + found + separator.len());
    [after(": "), after("- ")].into_iter().flatten().find(|at| *at < line_end && is_bad(*at))
}

/// A text in double quotes, as YAML writes it.
pub fn quoted(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 2);
    result.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                result.push('\\');
                result.push(character);
            }
            _ => result.push(character),
        }
    }
    result.push('"');
    result
}

/// After this many repairs the rest of a file stays unread.
const MAX_REPAIRS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Option<Node>, Report) {
        let mut report = Report::new(vec![Source::new("rules.yaml", text)]);
        let root = read(0, &mut report);
        report.sort();
        (root, report)
    }

    fn complaints(text: &str) -> Vec<String> {
        let (_, report) = read_text(text);
        report
            .diagnostics
            .iter()
            .map(|found| format!("{} {}:{}", found.code.id, found.span.line, found.span.column))
            .collect()
    }

    #[test]
    fn values_know_their_place() {
        let (root, report) = read_text("a: 1\nö:\n  - x: \"y z\"\n");
        let root = root.unwrap();
        let node = root.at("ö.0.x").unwrap();
        assert_eq!(node.text(), Some("y z"));
        assert_eq!((node.span.line, node.span.column), (3, 8));
        assert_eq!(report.sources[0].slice(node.span), "\"y z\"");
        assert!(report.diagnostics.is_empty(), "{report}");
    }

    #[test]
    fn traps_are_named() {
        assert_eq!(complaints("exe: */rclone\n"), ["R0012 1:6"]);
        assert_eq!(complaints("a: [*.example.com, b]\n"), ["R0012 1:5"]);
        assert_eq!(complaints("a: @x\nb: `c`\n"), ["R0013 1:4", "R0013 2:4"]);
        assert_eq!(complaints("a: %x\n"), ["R0013 1:4"]);
        assert_eq!(complaints("a: {{ exe }}\n"), ["R0011 1:4"]);
        assert_eq!(complaints("a:\n\t- b\n"), ["R0002 2:1"]);
        assert_eq!(complaints("a: 1\nb: 2\na: 3\n"), ["R0003 3:1"]);
        assert_eq!(complaints("a: > 5MB\n"), ["R0021 1:4"]);
        assert_eq!(complaints("b: &x {c: 1}\na:\n  <<: *x\n"), ["R0007 3:3"]);
        assert_eq!(complaints("a: 1\n---\nb: 2\n"), ["R0006 2:1"]);
        assert_eq!(complaints("a: !!python/object x\n"), ["R0009 1:4"]);
        assert_eq!(complaints("a: \0\n"), ["R0010 1:4"]);
        assert_eq!(complaints("a: &a [*a]\n"), ["R0008 1:8"]);
    }

    #[test]
    fn a_trap_does_not_hide_the_rest_of_the_file() {
        assert_eq!(complaints("a: *.example.com\nb: *.example.org\nb: c\n"), ["R0012 1:4", "R0012 2:4", "R0003 3:1"]);
    }

    #[test]
    fn aliases_cannot_grow_without_bound() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let before = level - 1;
            let nine = vec![format!("*a{before}"); 9].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{nine}]\n"));
        }
        assert_eq!(complaints(&bomb), ["R0008 5:14"]);
    }

    #[test]
    fn depth_and_size_are_capped() {
        for opening in ["[", "{", "- "] {
            assert_eq!(complaints(&opening.repeat(100_000)).len(), 1, "{opening}");
        }
        assert_eq!(complaints(&"#".repeat(MAX_BYTES + 1)), ["R0005 1:1"]);
    }
}
