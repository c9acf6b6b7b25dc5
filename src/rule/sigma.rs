//! Sigma rules as rules of ours.
//!
//! Rules about network connections, and about process creation as far as the
//! process then talks, become match blocks; correlations become windows. What
//! cannot be said is named, and then nothing is made: a condition is never
//! dropped in silence.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::packet::Protocol;
use crate::rule::compile::{Options, compile};
use crate::rule::diagnose::{Level, Source};
use crate::rule::literal;
use crate::rule::technique;
use crate::rule::yaml::{Entry, Node, Yaml, quoted};

/// What became of one Sigma rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// The rule in our language, as YAML, indented as an element of `rules:`.
    Rule {
        /// Its id.
        id: String,
        /// The text.
        yaml: String,
        /// What a reader should know.
        remarks: Vec<String>,
        /// The ids and names of rules that stand for nothing by themselves: this correlation is made of them.
        parts: Vec<String>,
    },
    /// Why it cannot be said: every reason.
    Refused {
        /// What Sigma calls it.
        title: String,
        /// The reasons.
        reasons: Vec<String>,
    },
}

/// Translates one Sigma document. `known` are the conditions of rules that were
/// translated before, by id and by name, for correlations.
pub fn import(root: &Node, known: &mut BTreeMap<String, Known>) -> Imported {
    let title = text(root, "title").unwrap_or("(without a title)").to_owned();
    let mut importer = Importer { reasons: Vec::new(), remarks: Vec::new() };
    let correlation = root.child("correlation");
    let rule = match correlation {
        Some(correlation) => importer.correlation(root, correlation, known),
        None if root.child("filter").is_some() => {
            importer.reasons.push("it is a filter of other rules: write it as an exception of them".to_owned());
            None
        }
        None => importer.detection(root),
    };
    match rule {
        Some(made) if importer.reasons.is_empty() => {
            let id = slug(text(root, "name").unwrap_or(&title));
            let yaml = importer.write(root, &id, &title, &made);
            // A value that no field can have, such as a domain name with blanks in it.
            let reasons = refused_by_compiler(&yaml);
            if !reasons.is_empty() {
                return Imported::Refused { title, reasons };
            }
            let entry = Known { condition: made.condition.clone(), is_correlation: correlation.is_some() };
            for name in ["id", "name"].into_iter().filter_map(|key| text(root, key)) {
                known.insert(name.to_owned(), entry.clone());
            }
            Imported::Rule { id, yaml, remarks: importer.remarks, parts: made.parts }
        }
        _ => {
            if importer.reasons.is_empty() {
                importer.reasons.push("it has neither `detection` nor `correlation`".to_owned());
            }
            importer.reasons.sort();
            importer.reasons.dedup();
            Imported::Refused { title, reasons: importer.reasons }
        }
    }
}

/// What is wrong with a rule of ours, in words.
fn refused_by_compiler(yaml: &str) -> Vec<String> {
    let report = compile(vec![Source::new("sigma", format!("rules:\n{yaml}"))], &Options::default()).report;
    let errors = report.diagnostics.iter().filter(|found| found.level == Level::Error);
    errors.map(|found| found.message.clone()).collect()
}

/// A rule that a correlation can name.
#[derive(Debug, Clone)]
pub struct Known {
    condition: String,
    is_correlation: bool,
}

/// The parts of a rule of ours, as YAML in one line each.
struct Made {
    condition: String,
    group_by: Vec<&'static str>,
    trigger: Vec<String>,
    parts: Vec<String>,
}

struct Importer {
    reasons: Vec<String>,
    remarks: Vec<String>,
}

impl Importer {
    fn detection(&mut self, root: &Node) -> Option<Made> {
        let source = root.child("logsource")?;
        let category = text(source, "category").unwrap_or_default();
        let product = text(source, "product").unwrap_or_default();
        let service = text(source, "service").unwrap_or_default();
        match (category, product) {
            ("network_connection", "windows") => {
                self.remarks.push("written for Windows: paths of executables will not match here".to_owned());
            }
            ("network_connection", _) => {}
            ("process_creation", "linux" | "") => {
                self.remarks.push("about a process that starts: here it fires once that process talks".to_owned());
            }
            ("dns" | "dns_query", _) => {
                self.remarks.push("about DNS questions: here it looks at the name of the remote end".to_owned());
            }
            ("firewall", _) => {}
            _ => {
                let mut name = [product, category, service]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("/");
                if name.is_empty() {
                    name = "nothing".to_owned();
                }
                self.reasons.push(format!("the log source {name} is not about flows"));
                return None;
            }
        }
        let detection = root.child("detection")?;
        let mut blocks = BTreeMap::new();
        for entry in detection.entries()? {
            if matches!(entry.key.text.as_str(), "condition" | "timeframe") {
                continue;
            }
            if let Some(block) = self.block(&entry.value) {
                blocks.insert(entry.key.text.clone(), block);
            } else {
                blocks.insert(entry.key.text.clone(), "{}".to_owned());
            }
        }
        if detection.child("timeframe").is_some() {
            self.reasons.push(
                "`timeframe` belongs to aggregations of old, which Sigma has replaced by correlations".to_owned(),
            );
        }
        let conditions: Vec<&str> = match detection.child("condition").map(|node| &node.value) {
            Some(Yaml::Scalar { text, .. }) => vec![text.as_str()],
            Some(Yaml::Sequence(elements)) => elements.iter().filter_map(Node::text).collect(),
            _ => Vec::new(),
        };
        if conditions.is_empty() {
            self.reasons.push("it has no condition".to_owned());
        }
        let mut parts = Vec::new();
        for condition in conditions {
            parts.extend(self.condition(condition, &blocks));
        }
        let condition = join("any", parts);
        let trigger = vec!["each: {}".to_owned()];
        Some(Made { condition, group_by: vec!["exe", "user", "dst.ip"], trigger, parts: Vec::new() })
    }

    /// A block: a mapping (all of it), or a list (one of its elements).
    fn block(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Yaml::Mapping(entries) => {
                let parts: Vec<String> = entries.iter().filter_map(|entry| self.item(entry)).collect();
                Some(join("all", parts))
            }
            Yaml::Sequence(elements) if elements.iter().all(|element| element.text().is_some()) => {
                self.reasons.push("it searches for words in whole log lines, and flows have none".to_owned());
                None
            }
            Yaml::Sequence(elements) => {
                let parts: Vec<String> = elements.iter().filter_map(|element| self.block(element)).collect();
                Some(join("any", parts))
            }
            Yaml::Scalar { .. } => {
                self.reasons.push("it searches for words in whole log lines, and flows have none".to_owned());
                None
            }
        }
    }

    fn item(&mut self, entry: &Entry) -> Option<String> {
        let mut steps = entry.key.text.split('|');
        let name = steps.next().unwrap_or_default();
        let modifiers: Vec<&str> = steps.collect();
        let values: Vec<Value> = match &entry.value.value {
            Yaml::Sequence(elements) => elements.iter().map(Value::of).collect(),
            _ => vec![Value::of(&entry.value)],
        };
        if values.is_empty() || values.iter().any(|value| value.nested) {
            self.reasons.push(format!("`{name}` has no value, or one that is no text"));
            return None;
        }
        if name == "Initiated" {
            let direction = match values.as_slice() {
                [value] if modifiers.is_empty() && value.text.eq_ignore_ascii_case("true") => "outbound",
                [value] if modifiers.is_empty() && value.text.eq_ignore_ascii_case("false") => "inbound",
                _ => {
                    self.reasons.push("`Initiated` is neither true nor false".to_owned());
                    return None;
                }
            };
            return Some(format!("{{direction: {direction}}}"));
        }
        let Some(field) = field(name) else {
            self.reasons.push(format!("flows have no `{name}`"));
            return None;
        };
        if values.iter().any(|value| value.null) {
            return match values.len() {
                1 => Some(format!("{{{field}: {{exists: false}}}}")),
                _ => {
                    self.reasons.push(format!("`{name}` mixes null with values"));
                    None
                }
            };
        }
        let every = modifiers.contains(&"all");
        let modifiers: Vec<&str> = modifiers.into_iter().filter(|modifier| *modifier != "all").collect();
        let parts: Vec<String> =
            values.iter().filter_map(|value| self.test(name, field, &modifiers, &value.text)).collect();
        if parts.len() != values.len() {
            return None;
        }
        Some(join(if every { "all" } else { "any" }, parts))
    }

    /// One value of one field. Sigma does not tell upper from lower case.
    fn test(&mut self, name: &str, field: &'static str, modifiers: &[&str], value: &str) -> Option<String> {
        // `windash` is about Windows' option characters; a dash is a dash here.
        let modifiers: Vec<&str> = modifiers.iter().copied().filter(|modifier| *modifier != "windash").collect();
        let is = |shape: String| Some(format!("{{{field}: {shape}}}"));
        let lower = value.to_ascii_lowercase();
        if let Some(reason) = unreadable(kind_of(field), modifiers.as_slice(), value) {
            self.reasons.push(format!("`{name}` as `{field}`: {reason}"));
            return None;
        }
        match (kind_of(field), modifiers.as_slice()) {
            (_, []) if value.is_empty() => Some(format!("{{{field}: {{exists: false}}}}")),
            (Kind::Address, ["cidr"] | []) | (Kind::Number, []) | (Kind::Word, []) => is(quoted(&lower)),
            (Kind::Number, [operator @ ("lt" | "lte" | "gt" | "gte")]) => is(format!("{{{operator}: {value}}}")),
            (Kind::Domain, []) if !value.contains(['*', '?']) => is(quoted(&lower)),
            (Kind::Domain, []) => is(format!("{{like: {}}}", quoted(&lower))),
            (Kind::Domain, ["contains"]) => is(format!("{{like: {}}}", quoted(&format!("*{lower}*")))),
            (Kind::Domain, ["startswith"]) => is(format!("{{like: {}}}", quoted(&format!("{lower}*")))),
            (Kind::Domain, ["endswith"]) => is(format!("{{like: {}}}", quoted(&format!("*{lower}")))),
            (Kind::Text, []) => is(format!("{{regex: {}}}", quoted(&expression(value, "^", "$")))),
            (Kind::Text, ["contains"]) if !value.contains(['*', '?', '\\']) => {
                is(format!("{{icontains: {}}}", quoted(value)))
            }
            (Kind::Text, ["contains"]) => is(format!("{{regex: {}}}", quoted(&expression(value, "", "")))),
            (Kind::Text, ["startswith"]) => is(format!("{{regex: {}}}", quoted(&expression(value, "^", "")))),
            (Kind::Text, ["endswith"]) => is(format!("{{regex: {}}}", quoted(&expression(value, "", "$")))),
            (Kind::Text, ["re"]) => is(format!("{{regex: {}}}", quoted(value))),
            (Kind::Text, ["re", "i"]) => is(format!("{{regex: {}}}", quoted(&format!("(?i){value}")))),
            (_, modifiers) => {
                let asked =
                    if modifiers.is_empty() { "a value".to_owned() } else { format!("`|{}`", modifiers.join("|")) };
                self.reasons.push(format!("`{name}` as `{field}` cannot be asked {asked}"));
                None
            }
        }
    }

    /// `selection and not 1 of filter_*`
    fn condition(&mut self, text: &str, blocks: &BTreeMap<String, String>) -> Option<String> {
        if text.contains('|') {
            self.reasons.push(format!("the aggregation in `{text}` is of old; Sigma has replaced it by correlations"));
            return None;
        }
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let tokens: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = ConditionParser { tokens: &tokens, at: 0, blocks };
        match parser.any() {
            Ok(condition) if parser.at == tokens.len() => Some(condition),
            Ok(_) => {
                self.reasons.push(format!("the condition `{text}` cannot be read"));
                None
            }
            Err(reason) => {
                self.reasons.push(format!("the condition `{text}` cannot be read: {reason}"));
                None
            }
        }
    }

    fn correlation(&mut self, root: &Node, node: &Node, known: &BTreeMap<String, Known>) -> Option<Made> {
        let kind = text(node, "type").unwrap_or_default();
        let mut parts = Vec::new();
        for name in texts(node, "rules") {
            match known.get(&name) {
                Some(rule) if rule.is_correlation => {
                    self.reasons.push(format!("it correlates `{name}`, which is a correlation itself"));
                }
                Some(rule) => parts.push(rule.condition.clone()),
                None => self.reasons.push(format!("it correlates `{name}`, which was not translated before it")),
            }
        }
        if parts.is_empty() && self.reasons.is_empty() {
            self.reasons.push("it correlates no rule".to_owned());
        }
        if root.child("logsource").is_some() || root.child("detection").is_some() {
            self.reasons.push("a correlation has neither a log source nor a detection".to_owned());
        }
        for entry in node.entries().unwrap_or_default() {
            let key = entry.key.text.as_str();
            if !["type", "rules", "group-by", "timespan", "condition", "generate"].contains(&key) {
                self.reasons.push(format!("`{key}` of a correlation has no counterpart"));
            }
        }
        let generates = node.child("generate").and_then(Node::boolean).unwrap_or(false);
        let mut group_by = Vec::new();
        for name in texts(node, "group-by") {
            match field(&name) {
                Some(field) => group_by.push(field),
                None => self.reasons.push(format!("flows have no `{name}` to group by")),
            }
        }
        let condition = node.child("condition");
        let asked = condition.and_then(|node| text(node, "field"));
        let metric = match kind {
            "event_count" => {
                if parts.iter().any(|part| part.contains("direction: inbound")) {
                    self.reasons.push("connections that others open are not counted here".to_owned());
                }
                self.remarks.push("events are connections that this host opens".to_owned());
                "connections".to_owned()
            }
            "value_count" => match asked.and_then(field) {
                Some(field @ ("dst.ip" | "dst.port" | "dst.domain" | "exe" | "user" | "cmdline")) => {
                    format!("distinct({field})")
                }
                _ => {
                    self.reasons
                        .push(format!("different values of `{}` are not counted here", asked.unwrap_or_default()));
                    return None;
                }
            },
            "value_sum" => match asked.map(str::to_ascii_lowercase).as_deref() {
                Some("bytes_out" | "sent_bytes" | "bytessent" | "orig_bytes" | "source.bytes" | "sentbytes") => {
                    "bytes_out".to_owned()
                }
                Some(
                    "bytes_in" | "received_bytes" | "bytesreceived" | "resp_bytes" | "destination.bytes" | "rcvdbytes",
                ) => "bytes_in".to_owned(),
                Some("bytes" | "bytes_total" | "network.bytes") => "bytes_total".to_owned(),
                _ => {
                    self.reasons.push(format!("the sum of `{}` is not known here", asked.unwrap_or_default()));
                    return None;
                }
            },
            other => {
                self.reasons.push(format!("correlations of type `{other}` have no counterpart"));
                return None;
            }
        };
        let mut limits = Vec::new();
        for entry in condition.and_then(Node::entries).unwrap_or_default() {
            match entry.key.text.as_str() {
                operator @ ("gt" | "gte" | "lt" | "lte" | "eq" | "neq") => {
                    let limit = entry.value.text().unwrap_or_default();
                    match literal::integer(limit) {
                        Ok(number) => limits.push(format!("{}: {number}", operator.replace("neq", "ne"))),
                        Err(_) => self.reasons.push(format!("the limit `{limit}` is not a whole number")),
                    }
                }
                "field" => {}
                other => self.reasons.push(format!("the comparison `{other}` has no counterpart")),
            }
        }
        if limits.is_empty() {
            self.reasons.push("the correlation has no limit".to_owned());
        }
        let Some(window) = text(node, "timespan") else {
            self.reasons.push("the correlation has no `timespan`".to_owned());
            return None;
        };
        if literal::duration(window).map_or(true, |window| window.is_zero()) {
            self.reasons.push(format!("the time span `{window}` cannot be read"));
        }
        let when: Vec<String> = limits.iter().map(|limit| format!("{{{metric}: {{{limit}}}}}")).collect();
        let when = match when.as_slice() {
            [only] => only.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let trigger = vec![format!("window: {window}"), format!("when: {when}")];
        let made_of = if generates { Vec::new() } else { texts(node, "rules") };
        Some(Made { condition: join("any", parts), group_by, trigger, parts: made_of })
    }

    fn write(&mut self, root: &Node, id: &str, title: &str, made: &Made) -> String {
        let mut yaml = format!("  - id: {id}\n    title: {}\n", quoted(title));
        let mut line = |key: &str, value: String| {
            // Writing into a string cannot fail.
            let _ = writeln!(yaml, "    {key}: {value}");
        };
        if let Some(description) = text(root, "description") {
            line("description", quoted(&description.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        let status = match text(root, "status") {
            Some("stable") => "stable",
            Some("deprecated" | "unsupported") => "deprecated",
            _ => "test",
        };
        line("status", status.to_owned());
        let severity = match text(root, "level") {
            Some("informational") => "info",
            Some(level @ ("low" | "medium" | "high" | "critical")) => level,
            _ => "medium",
        };
        line("severity", severity.to_owned());
        let tags = texts(root, "tags");
        let techniques: Vec<String> = tags
            .iter()
            .filter_map(|tag| tag.strip_prefix("attack."))
            .map(str::to_ascii_uppercase)
            .filter(|id| technique::find(id).is_some())
            .collect();
        if !techniques.is_empty() {
            line("attack", format!("[{}]", techniques.join(", ")));
        }
        let author = text(root, "author").map(|author| format!("Sigma, {author}"));
        line("owner", quoted(&author.unwrap_or_else(|| "Sigma".to_owned())));
        let references = texts(root, "references");
        if !references.is_empty() {
            line(
                "references",
                format!("[{}]", references.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")),
            );
        }
        let falsepositives = texts(root, "falsepositives");
        if !falsepositives.is_empty() {
            line(
                "falsepositives",
                format!("[{}]", falsepositives.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")),
            );
        }
        line("match", made.condition.clone());
        if !made.group_by.is_empty() {
            line("group_by", format!("[{}]", made.group_by.join(", ")));
        }
        for trigger in &made.trigger {
            let (key, value) = trigger.split_once(": ").unwrap_or((trigger, "{}"));
            line(key, value.to_owned());
        }
        yaml
    }
}

struct ConditionParser<'a> {
    tokens: &'a [&'a str],
    at: usize,
    blocks: &'a BTreeMap<String, String>,
}

impl<'a> ConditionParser<'a> {
    fn any(&mut self) -> Result<String, String> {
        let mut parts = vec![self.all()?];
        while self.take("or") {
            parts.push(self.all()?);
        }
        Ok(join("any", parts))
    }

    fn all(&mut self) -> Result<String, String> {
        let mut parts = vec![self.one()?];
        while self.take("and") {
            parts.push(self.one()?);
        }
        Ok(join("all", parts))
    }

    fn one(&mut self) -> Result<String, String> {
        if self.take("not") {
            return Ok(format!("{{not: {}}}", self.one()?));
        }
        if self.take("(") {
            let inner = self.any()?;
            return if self.take(")") { Ok(inner) } else { Err("a parenthesis is not closed".to_owned()) };
        }
        let word = self.next().ok_or("it ends too early")?;
        if matches!(word.to_ascii_lowercase().as_str(), "1" | "any" | "all") && self.take("of") {
            let pattern = self.next().ok_or("it ends too early")?;
            let prefix = pattern.trim_end_matches('*');
            let parts: Vec<String> = self
                .blocks
                .iter()
                .filter(|(name, _)| match pattern {
                    "them" => !name.starts_with('_'),
                    _ if pattern.ends_with('*') => name.starts_with(prefix),
                    _ => *name == pattern,
                })
                .map(|(_, block)| block.clone())
                .collect();
            if parts.is_empty() {
                return Err(format!("nothing is named `{pattern}`"));
            }
            return Ok(join(if word.eq_ignore_ascii_case("all") { "all" } else { "any" }, parts));
        }
        self.blocks.get(word).cloned().ok_or_else(|| format!("nothing is named `{word}`"))
    }

    fn take(&mut self, word: &str) -> bool {
        let is = self.tokens.get(self.at).is_some_and(|token| token.eq_ignore_ascii_case(word));
        self.at += usize::from(is);
        is
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }
}

struct Value {
    text: String,
    null: bool,
    /// It is a list or a mapping and no value at all.
    nested: bool,
}

impl Value {
    fn of(node: &Node) -> Self {
        let nested = node.text().is_none() && !node.is_null();
        Self { text: node.text().unwrap_or_default().to_owned(), null: node.is_null(), nested }
    }
}

/// Why a value cannot stand in a rule of ours, although its field and modifiers can.
fn unreadable(kind: Kind, modifiers: &[&str], value: &str) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    match (kind, modifiers) {
        (Kind::Address, _) => literal::network(value).err().map(|bad| bad.message),
        (Kind::Number, _) => literal::integer(value).err().map(|bad| bad.message),
        (Kind::Word, _) => {
            let known = Protocol::from_name(value).is_some() || value.parse::<u8>().is_ok();
            (!known).then(|| format!("`{value}` is no protocol"))
        }
        (Kind::Text, ["re", ..]) => match regex::bytes::Regex::new(value) {
            Ok(_) => None,
            Err(_) => Some(format!("the expression `{value}` takes more than linear time, or is wrong")),
        },
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Address,
    Number,
    Domain,
    Text,
    Word,
}

fn kind_of(field: &str) -> Kind {
    match field {
        "dst.ip" | "src.ip" => Kind::Address,
        "dst.port" | "src.port" | "pid" => Kind::Number,
        "dst.domain" => Kind::Domain,
        "proto" => Kind::Word,
        _ => Kind::Text,
    }
}

/// Our name of a field.
fn field(name: &str) -> Option<&'static str> {
    Some(match name {
        "Image" | "process.executable" => "exe",
        "CommandLine" => "cmdline",
        "ParentImage" => "parent.exe",
        "ParentCommandLine" => "parent.cmdline",
        "CurrentDirectory" => "cwd",
        "User" => "user",
        "ProcessId" => "pid",
        "DestinationHostname" | "QueryName" | "query" | "dst_host" => "dst.domain",
        "DestinationIp" | "dst_ip" | "id.resp_h" => "dst.ip",
        "DestinationPort" | "dst_port" | "id.resp_p" => "dst.port",
        "SourceIp" | "src_ip" | "id.orig_h" => "src.ip",
        "SourcePort" | "src_port" | "id.orig_p" => "src.port",
        "Protocol" | "proto" => "proto",
        _ => return None,
    })
}

fn join(word: &str, mut parts: Vec<String>) -> String {
    if parts.len() == 1 { parts.remove(0) } else { format!("{{{word}: [{}]}}", parts.join(", ")) }
}

/// A Sigma value as an expression: `*` and `?` are wild, a backslash before them makes them plain.
fn expression(value: &str, start: &str, end: &str) -> String {
    let mut expression = format!("(?is){start}");
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '\\' if matches!(characters.peek(), Some('*' | '?' | '\\')) => {
                if let Some(plain) = characters.next() {
                    expression.push_str(&regex::escape(&plain.to_string()));
                }
            }
            plain => expression.push_str(&regex::escape(&plain.to_string())),
        }
    }
    expression.push_str(end);
    expression
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.child(key).and_then(Node::text)
}

fn texts(node: &Node, key: &str) -> Vec<String> {
    match node.child(key).map(|node| &node.value) {
        Some(Yaml::Sequence(elements)) => elements.iter().filter_map(Node::text).map(str::to_owned).collect(),
        Some(Yaml::Scalar { text, .. }) => vec![text.clone()],
        _ => Vec::new(),
    }
}

fn slug(title: &str) -> String {
    let mut slug = String::from("sigma");
    for word in title.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        slug.push('-');
        slug.push_str(&word.to_ascii_lowercase());
    }
    slug.truncate(100);
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::diagnose::Report;
    use crate::rule::yaml;

    fn imported(documents: &[&str]) -> Vec<Imported> {
        let mut known = BTreeMap::new();
        documents
            .iter()
            .map(|text| {
                let mut report = Report::new(vec![Source::new("sigma.yml", *text)]);
                import(&yaml::read(0, &mut report).unwrap(), &mut known)
            })
            .collect()
    }

    const SENT: &str = "title: To the Pool\nname: to_the_pool\nlogsource: {category: network_connection, product: linux}\ndetection:\n  selection:\n    DestinationHostname|endswith: .pool.example\n    Image|endswith: /miner\n  filter_own:\n    User: root\n  condition: selection and not 1 of filter_*\n";

    #[test]
    fn a_connection_rule_becomes_a_match_block() {
        let made = imported(&[SENT]);
        let [Imported::Rule { yaml, .. }] = made.as_slice() else { panic!("{made:?}") };
        assert!(yaml.contains(r#"match: {all: [{all: [{dst.domain: {like: "*.pool.example"}}, {exe: {regex: "(?is)/miner$"}}]}, {not: {user: {regex: "(?is)^root$"}}}]}"#), "{yaml}");
        let compiled = compile(vec![Source::new("a.yaml", format!("rules:\n{yaml}"))], &Options::default());
        assert!(!compiled.report.has_errors(), "{}", compiled.report);
    }

    #[test]
    fn a_correlation_becomes_a_window() {
        let sum = "title: Much to the Pool\ncorrelation:\n  type: value_sum\n  rules: [to_the_pool]\n  group-by: [User]\n  timespan: 10m\n  condition: {field: bytes_out, gte: 1000000}\n";
        let imported = imported(&[SENT, sum]);
        let Imported::Rule { yaml, .. } = &imported[1] else { panic!("{imported:?}") };
        assert!(yaml.contains("window: 10m\n    when: {bytes_out: {gte: 1000000}}"), "{yaml}");
        assert!(yaml.contains("group_by: [user]"), "{yaml}");
    }

    #[test]
    fn nothing_is_dropped_in_silence() {
        let unknown = SENT.replace("User: root", "IntegrityLevel: High");
        let made = imported(&[&unknown]);
        let [Imported::Refused { reasons, .. }] = made.as_slice() else { panic!("{made:?}") };
        assert_eq!(*reasons, ["flows have no `IntegrityLevel`"]);
        let made = imported(&[&SENT.replace("|endswith: .pool.example", ": \"a; - b\"")]);
        let [Imported::Refused { reasons, .. }] = made.as_slice() else { panic!("{made:?}") };
        assert!(reasons[0].contains("a; - b"), "{reasons:?}");
        let words =
            "title: x\nlogsource: {product: cisco, service: bgp}\ndetection: {keywords: [a], condition: keywords}\n";
        let made = imported(&[words]);
        let [Imported::Refused { reasons, .. }] = made.as_slice() else { panic!("{made:?}") };
        assert_eq!(*reasons, ["the log source cisco/bgp is not about flows"]);
    }
}
