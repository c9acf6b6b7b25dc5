//! What is wrong with a file, where, and what to do about it.
//!
//! A [`Report`] gathers every finding of every file; nothing stops at the
//! first. Codes are stable and listed in [`crate::rule::catalogue`].

use std::fmt;
use std::sync::Arc;

use crate::rule::catalogue::{self, Code};

/// A file's name and text, read by whoever may read files.
#[derive(Debug, Clone)]
pub struct Source {
    /// The path as people write it.
    pub path: Arc<str>,
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: Arc<str>,
    /// Where the first byte lies that is not UTF-8.
    pub damage: Option<usize>,
}

/// A range of text in one source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Which source, as an index into [`Report::sources`].
    pub source: u32,
    /// Byte offset of the first byte.
    pub start: u32,
    /// Byte offset after the last byte.
    pub end: u32,
    /// Line of the first character, from 1.
    pub line: u32,
    /// Column of the first character in characters, from 1.
    pub column: u32,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Probably not what was meant.
    Warning,
    /// What it belongs to cannot be used.
    Error,
}

/// One finding.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Which kind of finding.
    pub code: &'static Code,
    /// How bad it is.
    pub level: Level,
    /// One sentence: what is wrong.
    pub message: String,
    /// Where.
    pub span: Span,
    /// A few words under the caret.
    pub label: String,
    /// Other places that have to do with it.
    pub related: Vec<Label>,
    /// What to do.
    pub help: Vec<String>,
    /// Why it matters.
    pub notes: Vec<String>,
    /// An edit that would repair it.
    pub fix: Option<Fix>,
    /// The rule that it belongs to.
    pub rule: Option<Arc<str>>,
}

/// A second place, with a few words.
#[derive(Debug, Clone)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// The words.
    pub text: String,
}

/// An edit of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// What is replaced.
    pub span: Span,
    /// By what.
    pub replacement: String,
    /// Whether it may be applied without a person looking.
    pub safe: bool,
}

/// Everything that was found in some sources.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The sources; [`Span::source`] is an index.
    pub sources: Vec<Source>,
    /// The findings; [`Report::sort`] puts them in order.
    pub diagnostics: Vec<Diagnostic>,
    /// What was read, for the last line.
    pub totals: Totals,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Files that were read.
    pub files: usize,
    /// Rules that were written.
    pub rules: usize,
    /// Rules without an error.
    pub usable: usize,
    /// The ids of rules with an error.
    pub not_loaded: Vec<Arc<str>>,
}

impl Source {
    /// A source from what a file holds.
    pub fn new(path: impl Into<Arc<str>>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        match std::str::from_utf8(content) {
            Ok(text) => Self { path: path.into(), text: text.into(), damage: None },
            Err(error) => Self {
                path: path.into(),
                text: String::from_utf8_lossy(content).into(),
                damage: Some(error.valid_up_to()),
            },
        }
    }

    /// The text of a span.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// A span from byte offsets, with its line and column worked out.
    pub fn span(&self, source: u32, start: usize, end: usize) -> Span {
        let start = floor_boundary(&self.text, start);
        let end = floor_boundary(&self.text, end.max(start));
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        Span { source, start: narrow(start), end: narrow(end), line: narrow(line), column: narrow(column) }
    }
}

impl Diagnostic {
    /// A finding with the level of its code.
    pub fn new(code: &'static Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            level: code.level,
            message: message.into(),
            span,
            label: String::new(),
            related: Vec::new(),
            help: Vec::new(),
            notes: Vec::new(),
            fix: None,
            rule: None,
        }
    }

    /// The words under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// What to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Why it matters.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// A second place.
    #[must_use]
    pub fn related(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push(Label { span, text: text.into() });
        self
    }

    /// A repair that may be applied without a person looking.
    #[must_use]
    pub fn fix(mut self, span: Span, replacement: impl Into<String>) -> Self {
        self.fix = Some(Fix { span, replacement: replacement.into(), safe: true });
        self
    }

    /// Names the nearest of some words, if one is near, and offers it as a repair of the span.
    #[must_use]
    pub fn suggest<'a>(self, written: &str, words: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(written, words) {
            Some(word) => {
                let (span, replacement) = (self.span, word.to_owned());
                self.help(format!("did you mean `{word}`?")).fix(span, replacement)
            }
            None => self,
        }
    }
}

impl Report {
    /// A report on these sources, with nothing found yet.
    pub fn new(sources: Vec<Source>) -> Self {
        Self { sources, ..Self::default() }
    }

    /// Adds a finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Adds all that another report found.
    pub fn merge(&mut self, other: Self) {
        let shift = narrow(self.sources.len());
        let moved = |span: Span| Span { source: span.source + shift, ..span };
        self.sources.extend(other.sources);
        self.diagnostics.extend(other.diagnostics.into_iter().map(|mut diagnostic| {
            diagnostic.span = moved(diagnostic.span);
            for label in &mut diagnostic.related {
                label.span = moved(label.span);
            }
            if let Some(fix) = &mut diagnostic.fix {
                fix.span = moved(fix.span);
            }
            diagnostic
        }));
        self.totals.files += other.totals.files;
        self.totals.rules += other.totals.rules;
        self.totals.usable += other.totals.usable;
        self.totals.not_loaded.extend(other.totals.not_loaded);
    }

    /// Orders the findings by file and position.
    pub fn sort(&mut self) {
        self.diagnostics.sort_by(|a, b| {
            let key = |diagnostic: &Diagnostic| (diagnostic.span.source, diagnostic.span.start, diagnostic.code.id);
            key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
        });
        self.diagnostics.dedup_by(|a, b| a.span == b.span && a.code.id == b.code.id && a.message == b.message);
    }

    /// Takes out what was found in values that were repaired to read on: the repair is not what was meant.
    pub fn forget_repaired(&mut self) {
        let repaired: Vec<(u32, u32)> = self
            .diagnostics
            .iter()
            .filter(|found| is_repaired(found))
            .map(|found| (found.span.source, found.span.start))
            .collect();
        if !repaired.is_empty() {
            self.diagnostics
                .retain(|found| is_repaired(found) || !repaired.contains(&(found.span.source, found.span.start)));
        }
    }

    /// Takes out what a comment allows: `# egret:allow R0430 reason`, on the line or on the one above.
    pub fn suppress(&mut self) {
        let sources = std::mem::take(&mut self.sources);
        let has_comments: Vec<bool> = sources.iter().map(|source| source.text.contains(ALLOW)).collect();
        self.diagnostics.retain(|found| {
            let place = found.span.source as usize;
            let Some(source) = sources.get(place).filter(|_| has_comments.get(place) == Some(&true)) else {
                return true;
            };
            found.level == Level::Error || !allowed(source, found)
        });
        self.sources = sources;
    }

    /// How many findings have this level.
    pub fn count(&self, level: Level) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.level == level).count()
    }

    /// Whether something cannot be used.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.level == Level::Error)
    }

    /// The source that a span lies in.
    pub fn source(&self, span: Span) -> Option<&Source> {
        self.sources.get(span.source as usize)
    }

    /// The path of the source that a span lies in.
    pub fn path(&self, span: Span) -> &str {
        self.source(span).map_or("?", |source| &source.path)
    }
}

impl Level {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// All findings, the short way: one a line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.diagnostics.iter().enumerate() {
            let (path, span) = (self.path(found.span), found.span);
            if index > 0 {
                writeln!(f)?;
            }
            write!(
                f,
                "{path}:{}:{}: {}[{}] {}",
                span.line,
                span.column,
                found.level.name(),
                found.code.id,
                found.message
            )?;
        }
        Ok(())
    }
}

/// A report with errors is an error.
impl std::error::Error for Report {}

/// The word that is nearest to what was written: at most a third of its letters differ,
/// counting a swap of neighbours as one.
pub fn nearest<'a>(written: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (written.chars().count() / 3).max(1);
    let folded = written.to_ascii_lowercase();
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&folded, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= limit && *word != written)
        .min_by(|a, b| a.cmp(b))
        .map(|(_, word)| word)
}

fn is_repaired(found: &Diagnostic) -> bool {
    *found.code == catalogue::LEADING_STAR || *found.code == catalogue::RESERVED_START
}

fn allowed(source: &Source, found: &Diagnostic) -> bool {
    let line = found.span.line as usize;
    source.text.lines().skip(line.saturating_sub(2)).take(if line > 1 { 2 } else { 1 }).any(|line| {
        line.split_once(ALLOW).is_some_and(|(_, rest)| {
            rest.split_whitespace().next().is_some_and(|word| word == found.code.id || word == found.code.name)
        })
    })
}

const ALLOW: &str = "# egret:allow ";

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Sources are capped far below 4 GiB.
pub(crate) fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let words = ["dst.domain", "dst.dns", "exe", "user"];
        assert_eq!(nearest("dst.domian", words), Some("dst.domain"));
        assert_eq!(nearest("eex", words), Some("exe"));
        assert_eq!(nearest("usr", words), Some("user"));
        assert_eq!(nearest("zzzzzzz", words), None);
    }

    #[test]
    fn columns_count_characters_and_offsets_count_bytes() {
        let source = Source::new("a.yaml", "ä: ö\nb: ü x");
        let span = source.span(0, 13, 14);
        assert_eq!((span.line, span.column, source.slice(span)), (2, 6, "x"));
        assert_eq!(Source::new("a", b"ok\xff").damage, Some(2));
    }
}
