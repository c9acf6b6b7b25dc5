//! A report as text: for people, for editors, for the machines that build software.

use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level as Snippets, Renderer, Snippet};
use serde_json::{Value as Json, json};

use crate::rule::compile::BUILTIN_PATH;
use crate::rule::diagnose::{Diagnostic, Level, Report, Span};

/// How a report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// With the lines of the file, carets and advice.
    #[default]
    Full,
    /// One line a finding.
    Concise,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// GitHub workflow commands.
    Github,
    /// GitLab code quality.
    Gitlab,
    /// SARIF 2.1.0.
    Sarif,
    /// JUnit XML.
    Junit,
}

/// Whether text has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Escape sequences.
    Styled,
    /// None.
    Plain,
}

/// The whole report in one format. [`Format::Full`] shows at most `limit` findings.
pub fn render(report: &Report, format: Format, colour: Colour, limit: usize) -> String {
    match format {
        Format::Full => full(report, colour, limit),
        Format::Concise => concise(report),
        Format::Json => pretty(&json!({
            "diagnostics": report.diagnostics.iter().map(|found| as_json(report, found)).collect::<Vec<_>>(),
            "summary": summary_json(report),
        })),
        Format::Ndjson => {
            let mut text = String::new();
            for found in &report.diagnostics {
                line(&mut text, &as_json(report, found).to_string());
            }
            line(&mut text, &json!({ "summary": summary_json(report) }).to_string());
            text
        }
        Format::Github => github(report),
        Format::Gitlab => gitlab(report),
        Format::Sarif => sarif(report),
        Format::Junit => junit(report),
    }
}

/// One finding with the lines of its file.
pub fn full_one(report: &Report, found: &Diagnostic, colour: Colour) -> String {
    let level = match found.level {
        Level::Error => Snippets::ERROR,
        Level::Warning => Snippets::WARNING,
        Level::Info => Snippets::INFO,
    };
    let mut group = Group::with_title(level.primary_title(printable(&found.message)).id(found.code.id));
    let mut places = vec![(found.span, found.label.clone(), AnnotationKind::Primary)];
    places.extend(found.related.iter().map(|label| (label.span, label.text.clone(), AnnotationKind::Context)));
    while let Some((first, ..)) = places.first() {
        let source = first.source;
        let (here, elsewhere): (Vec<_>, Vec<_>) = places.into_iter().partition(|(span, ..)| span.source == source);
        places = elsewhere;
        if let Some(snippet) = snippet(report, source, &here) {
            group = group.element(snippet);
        }
    }
    for help in &found.help {
        group = group.element(Snippets::HELP.message(printable(help)));
    }
    for note in &found.notes {
        group = group.element(Snippets::NOTE.message(printable(note)));
    }
    let renderer = match colour {
        Colour::Styled => Renderer::styled(),
        Colour::Plain => Renderer::plain(),
    };
    renderer.render(&[group])
}

/// The last line of a report for people: how much was found, what is usable.
pub fn summary(report: &Report) -> String {
    let (errors, warnings) = (report.count(Level::Error), report.count(Level::Warning));
    let totals = &report.totals;
    let mut text = String::new();
    if errors == 0 && warnings == 0 {
        text.push_str("No errors, no warnings");
    } else {
        let parts: Vec<String> = [(errors, "error"), (warnings, "warning")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| plural(count, word))
            .collect();
        text.push_str(&parts.join(", "));
    }
    // Writing into a string cannot fail.
    let _ = write!(text, " in {} ({}", plural(report.totals.files, "file"), plural(totals.rules, "rule"));
    if totals.usable != totals.rules {
        let _ = write!(text, "; {} usable", totals.usable);
    }
    text.push_str(").");
    if !totals.not_loaded.is_empty() {
        let _ = write!(text, " Not loaded: {}.", totals.not_loaded.join(", "));
    }
    text
}

fn full(report: &Report, colour: Colour, limit: usize) -> String {
    let mut text = String::new();
    for found in report.diagnostics.iter().take(limit) {
        line(&mut text, &full_one(report, found, colour));
        text.push('\n');
    }
    if let Some(more) = report.diagnostics.len().checked_sub(limit).filter(|more| *more > 0) {
        line(&mut text, &format!("... and {more} more; `--limit 0` shows all\n"));
    }
    line(&mut text, &summary(report));
    text
}

fn snippet<'a>(
    report: &'a Report,
    source: u32,
    places: &[(Span, String, AnnotationKind)],
) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    let file = report.sources.get(source as usize)?;
    let first = places.iter().map(|(span, ..)| span.start as usize).min()?;
    let last = places.iter().map(|(span, ..)| first_line_end(&file.text, *span)).max()?;
    let from = line_start(&file.text, first);
    // One line above gives the eye a hold.
    let from = if from == 0 { 0 } else { line_start(&file.text, from - 1) };
    let to = file.text.get(last..).and_then(|rest| rest.find('\n')).map_or(file.text.len(), |at| last + at);
    let shown = file.text.get(from..to)?;
    let number = file.text.get(..from)?.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let annotations = places.iter().map(|(span, text, kind)| {
        let start = (span.start as usize).saturating_sub(from).min(shown.len());
        let end = first_line_end(&file.text, *span).saturating_sub(from).clamp(start, shown.len());
        let annotation = kind.span(start..end.max(start));
        if text.is_empty() { annotation } else { annotation.label(printable(text)) }
    });
    Some(Snippet::source(shown).line_start(number).path(&*file.path).annotations(annotations.collect::<Vec<_>>()))
}

/// A span of many lines is shown by its first.
fn first_line_end(text: &str, span: Span) -> usize {
    let (start, end) = (span.start as usize, span.end as usize);
    text.get(start..end).and_then(|written| written.find('\n')).map_or(end, |at| start + at)
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1)
}

fn concise(report: &Report) -> String {
    let mut text = String::new();
    for found in &report.diagnostics {
        let help = found.help.first().map_or(String::new(), |help| format!(" ({help})"));
        let span = found.span;
        line(
            &mut text,
            &printable(&format!(
                "{}:{}:{}: {}[{}] {}{help}",
                report.path(span),
                span.line,
                span.column,
                found.level.name(),
                found.code.id,
                found.message
            )),
        );
    }
    line(&mut text, &summary(report));
    text
}

fn as_json(report: &Report, found: &Diagnostic) -> Json {
    let (end_line, end_column) = end(report, found.span);
    json!({
        "code": found.code.id,
        "name": found.code.name,
        "level": found.level,
        "message": found.message,
        "file": report.path(found.span),
        "line": found.span.line,
        "column": found.span.column,
        "end_line": end_line,
        "end_column": end_column,
        "offset": found.span.start,
        "label": found.label,
        "help": found.help,
        "notes": found.notes,
        "rule": found.rule,
        "related": found.related.iter().map(|label| json!({
            "file": report.path(label.span),
            "line": label.span.line,
            "column": label.span.column,
            "text": label.text,
        })).collect::<Vec<_>>(),
        "fix": found.fix.as_ref().map(|fix| json!({
            "start": fix.span.start,
            "end": fix.span.end,
            "replacement": fix.replacement,
            "safe": fix.safe,
        })),
        "rendered": full_one(report, found, Colour::Plain),
    })
}

fn summary_json(report: &Report) -> Json {
    json!({
        "errors": report.count(Level::Error),
        "warnings": report.count(Level::Warning),
        "infos": report.count(Level::Info),
        "files": report.totals.files,
        "rules": report.totals.rules,
        "usable": report.totals.usable,
        "not_loaded": report.totals.not_loaded,
    })
}

fn github(report: &Report) -> String {
    let mut text = String::new();
    for found in &report.diagnostics {
        let command = match found.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "notice",
        };
        let (end_line, end_column) = end(report, found.span);
        let message = std::iter::once(&found.message).chain(&found.help).cloned().collect::<Vec<_>>().join("\n");
        line(
            &mut text,
            &format!(
                "::{command} file={},line={},col={},endLine={end_line},endColumn={end_column},title={}::{}",
                github_property(in_repository(report.path(found.span))),
                found.span.line,
                found.span.column,
                github_property(&format!("{} {}", found.code.id, found.code.name)),
                github_data(&message),
            ),
        );
    }
    text
}

fn github_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn github_property(text: &str) -> String {
    github_data(text).replace(':', "%3A").replace(',', "%2C")
}

fn gitlab(report: &Report) -> String {
    let findings: Vec<Json> = report
        .diagnostics
        .iter()
        .map(|found| {
            let path = in_repository(report.path(found.span));
            // GitLab shows findings of one fingerprint once.
            let place = (found.span.line, found.span.column);
            let identity = format!("{}\0{path}\0{place:?}\0{}", found.code.id, found.message);
            json!({
                "description": found.message,
                "check_name": found.code.id,
                "fingerprint": blake3::hash(identity.as_bytes()).to_hex().as_str(),
                "severity": match found.level {
                    Level::Error => "major",
                    Level::Warning => "minor",
                    Level::Info => "info",
                },
                "location": { "path": path, "lines": { "begin": found.span.line } },
            })
        })
        .collect();
    pretty(&Json::Array(findings))
}

fn sarif(report: &Report) -> String {
    let mut codes: Vec<_> = report.diagnostics.iter().map(|found| found.code).collect();
    codes.sort_by_key(|code| code.id);
    codes.dedup();
    let results: Vec<Json> = report
        .diagnostics
        .iter()
        .map(|found| {
            json!({
                "ruleId": found.code.id,
                "level": match found.level {
                    Level::Error => "error",
                    Level::Warning => "warning",
                    Level::Info => "note",
                },
                "message": { "text": found.message },
                "locations": [sarif_location(report, found.span)],
                "relatedLocations": found.related.iter().map(|label| {
                    let mut location = sarif_location(report, label.span);
                    location["message"] = json!({ "text": label.text });
                    location
                }).collect::<Vec<_>>(),
            })
        })
        .collect();
    pretty(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "egret",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": codes.iter().map(|code| json!({
                    "id": code.id,
                    "name": code.name,
                    "fullDescription": { "text": code.explanation },
                })).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    }))
}

fn sarif_location(report: &Report, span: Span) -> Json {
    let (end_line, end_column) = end(report, span);
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(report.path(span)) },
            "region": {
                "startLine": span.line,
                "startColumn": span.column,
                "endLine": end_line,
                "endColumn": end_column,
            },
        },
    })
}

/// The path from the top of a repository, as far as it can be told.
fn in_repository(path: &str) -> &str {
    path.trim_start_matches("./")
}

/// A path as a URI reference (RFC 3986, section 4.1).
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in in_repository(path).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            other => {
                // Writing into a string cannot fail.
                let _ = write!(uri, "%{other:02X}");
            }
        }
    }
    uri
}

/// One suite a file, one case a finding; a file without findings is one case that passed.
fn junit(report: &Report) -> String {
    let mut suites: Vec<(&str, Vec<&Diagnostic>)> = Vec::new();
    for (index, source) in report.sources.iter().enumerate() {
        let found: Vec<_> = report.diagnostics.iter().filter(|found| found.span.source as usize == index).collect();
        // The built-in lists are nobody's file.
        if !found.is_empty() || &*source.path != BUILTIN_PATH {
            suites.push((&source.path, found));
        }
    }
    let cases: usize = suites.iter().map(|(_, found)| found.len().max(1)).sum();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let failures = report.count(Level::Error);
    line(&mut text, &format!("<testsuites name=\"egret check\" tests=\"{cases}\" failures=\"{failures}\">"));
    for (path, found) in suites {
        let failures = found.iter().filter(|found| found.level == Level::Error).count();
        let path = xml(path);
        line(
            &mut text,
            &format!("  <testsuite name=\"{path}\" tests=\"{}\" failures=\"{failures}\">", found.len().max(1)),
        );
        if found.is_empty() {
            line(&mut text, &format!("    <testcase name=\"{path}\" classname=\"egret\"/>"));
        }
        for found in found {
            let name = xml(&format!("{} {}:{}", found.code.id, found.span.line, found.span.column));
            let body = xml(&full_one(report, found, Colour::Plain));
            let message = xml(&found.message);
            line(&mut text, &format!("    <testcase name=\"{name}\" classname=\"{path}\">"));
            line(
                &mut text,
                &match found.level {
                    Level::Error => format!("      <failure message=\"{message}\">{body}</failure>"),
                    Level::Warning | Level::Info => format!("      <system-out>{body}</system-out>"),
                },
            );
            line(&mut text, "    </testcase>");
        }
        line(&mut text, "  </testsuite>");
    }
    line(&mut text, "</testsuites>");
    text
}

/// The text inside of XML; what XML cannot hold is shown as an escape.
pub fn xml(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '"' => result.push_str("&quot;"),
            '\n' | '\t' => result.push(character),
            control if control.is_control() => result.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => result.push('\u{fffd}'),
            other => result.push(other),
        }
    }
    result
}

fn end(report: &Report, span: Span) -> (u32, u32) {
    let written = report.source(span).map_or("", |source| source.slice(span));
    match written.rsplit_once('\n') {
        None => (span.line, span.column + u32::try_from(written.chars().count()).unwrap_or(0)),
        Some((before, last)) => {
            let lines = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            (span.line + u32::try_from(lines).unwrap_or(0), u32::try_from(last.chars().count()).unwrap_or(0) + 1)
        }
    }
}

/// Files are written by others: a message about one must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn pretty(json: &Json) -> String {
    let mut text = format!("{json:#}");
    text.push('\n');
    text
}

fn line(text: &mut String, added: &str) {
    text.push_str(added);
    text.push('\n');
}
