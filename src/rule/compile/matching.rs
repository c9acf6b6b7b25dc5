//! Match blocks: which flows count at all.

use std::fmt::Write as _;
use std::sync::Arc;

use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};

use crate::names::DomainSet;
use crate::packet::Protocol;
use crate::rule::catalogue as code;
use crate::rule::compile::{Compiler, Parts};
use crate::rule::diagnose::{Diagnostic, Span};
use crate::rule::glob::{Glob, GlobKind};
use crate::rule::kind::{Kind, operator};
use crate::rule::literal::{self, BadLiteral};
use crate::rule::yaml::{Entry, Node, Yaml};
use crate::rule::{Condition, Field, Numbers, Pattern, Quantifier, Test, TextPattern, Texts};

/// Conditions inside conditions, at most.
pub(super) const MAX_NESTING: usize = 16;

/// What is asked of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// What a bare value of the type means.
    Bare,
    Equal,
    Like,
    Prefix,
    Suffix,
    Contains,
    Regex {
        full: bool,
    },
    EqualIgnoringCase,
    ContainsIgnoringCase,
}

/// Values of one type, before they become patterns.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) exact: Vec<Box<[u8]>>,
    pub(super) patterns: Vec<TextPattern>,
    pub(super) numbers: Vec<(u64, u64)>,
    pub(super) networks: Vec<IpNet>,
    pub(super) domains: DomainSet,
    pub(super) domain_sets: Vec<DomainSet>,
}

impl Values {
    /// A value is among these if it satisfies one of the patterns.
    pub(super) fn into_patterns(self, kind: Kind) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        let texts = !self.exact.is_empty() || !self.patterns.is_empty();
        match kind {
            Kind::User if texts || !self.numbers.is_empty() => {
                let names = Arc::new(Texts::new(self.exact, self.patterns));
                patterns.push(Pattern::User { names, ids: Numbers::new(self.numbers) });
                return patterns;
            }
            _ if texts => patterns.push(Pattern::Text(Arc::new(Texts::new(self.exact, self.patterns)))),
            _ => {}
        }
        if !self.numbers.is_empty() {
            patterns.push(Pattern::Number(Numbers::new(self.numbers)));
        }
        if !self.networks.is_empty() {
            patterns.push(Pattern::Address(Arc::new(self.networks.into_iter().collect())));
        }
        let inline = Some(self.domains).filter(|domains| !domains.is_empty());
        patterns.extend(inline.into_iter().chain(self.domain_sets).map(|domains| Pattern::Domain(Arc::new(domains))));
        patterns
    }
}

impl Compiler<'_> {
    /// The condition of a match block.
    pub(super) fn condition(&mut self, node: &Node, depth: usize) -> Option<Condition> {
        if depth > MAX_NESTING {
            let found = Diagnostic::new(
                &code::NESTING,
                node.span,
                format!("conditions are nested more than {MAX_NESTING} deep"),
            );
            self.push(found);
            return None;
        }
        match &node.value {
            Yaml::Scalar { text, .. } => match text.strip_prefix('$') {
                Some(name) => self.use_macro(name, node.span),
                None => {
                    self.wrong_shape(node, "a match block (`field: value`) or a macro (`$name`)");
                    None
                }
            },
            Yaml::Sequence(_) => {
                let found = Diagnostic::new(
                    &code::WRONG_SHAPE,
                    Span { end: node.span.start + 1, ..node.span },
                    "a match block is a mapping, and this is a list",
                )
                .help("write `all: [...]` if every one must hold, `any: [...]` if one is enough");
                self.push(found);
                None
            }
            Yaml::Mapping(entries) => {
                let before = self.errors();
                let parts: Vec<Condition> =
                    entries.iter().filter_map(|entry| self.condition_of_key(entry, depth)).collect();
                (self.errors() == before && parts.len() == entries.len()).then(|| all_of(parts))
            }
        }
    }

    fn condition_of_key(&mut self, entry: &Entry, depth: usize) -> Option<Condition> {
        match entry.key.text.as_str() {
            key @ ("all" | "any") => {
                let elements = self.expect_list(&entry.value)?;
                let parts: Vec<Condition> =
                    elements.iter().filter_map(|element| self.condition(element, depth + 1)).collect();
                if parts.len() != elements.len() {
                    return None;
                }
                Some(if key == "all" { all_of(parts) } else { any_of(parts) })
            }
            "not" => {
                if let Yaml::Sequence(_) = entry.value.value {
                    let found = Diagnostic::new(
                        &code::WRONG_SHAPE,
                        entry.key.span,
                        "`not` takes one match block, and this is a list",
                    )
                    .help("write `not: {any: [...]}` or `not: {all: [...]}`");
                    self.push(found);
                    return None;
                }
                self.condition(&entry.value, depth + 1).map(negation)
            }
            name => match Field::from_name(name) {
                Some(field) => {
                    let condition = self.condition_of_field(field, &entry.value, entry.key.span);
                    if let (Parts::Kept, Some(condition)) = (self.options.parts, &condition) {
                        self.parts.insert((entry.key.span.source, entry.key.span.start), condition.clone());
                    }
                    condition
                }
                None => {
                    self.unknown_field(name, entry.key.span, &["all", "any", "not"]);
                    None
                }
            },
        }
    }

    /// The field of a name, or a message.
    pub(super) fn field(&mut self, name: &str, span: Span) -> Option<Field> {
        let field = Field::from_name(name);
        if field.is_none() {
            self.unknown_field(name, span, &[]);
        }
        field
    }

    fn unknown_field(&mut self, name: &str, span: Span, more: &[&'static str]) {
        let words = Field::ALL.iter().map(|field| field.name()).chain(more.iter().copied());
        let mut found = Diagnostic::new(&code::UNKNOWN_FIELD, span, format!("unknown field `{name}`"))
            .label("not a flow field")
            .suggest(name, words);
        if let Some(fix) = &found.fix
            && let Some(field) = Field::from_name(&fix.replacement)
        {
            found = found.note(format!("`{field}`: {}", field.description()));
        } else if name.starts_with('$') {
            found = found.help(format!("a macro is an element of `all` or `any`: `all: [{name}, ...]`"));
        } else if let Some(meant) = field_elsewhere(name) {
            found = found.help(format!("did you mean `{meant}`?"));
        } else {
            let prefix = name.split('.').next().unwrap_or_default();
            found = found.help(format!("`egret fields {prefix}` lists what there is"));
        }
        self.push(found);
    }

    fn use_macro(&mut self, name: &str, span: Span) -> Option<Condition> {
        self.used.insert(format!("macro {name}"));
        if let Some(rule) = &self.rule {
            self.uses.insert((rule.to_string(), format!("${name}")));
        }
        if !self.macros.contains_key(name) {
            if let Some(list) = self.lists.get(name) {
                let found = Diagnostic::new(
                    &code::LIST_TYPE,
                    span,
                    format!("`${name}` is a list; a match block needs a field with it"),
                )
                .related(list.span, "a list")
                .help(format!("write `dst.ip: ${name}`, with the field that it is for"));
                self.push(found);
            } else {
                self.unknown_name(name, span);
            }
            return None;
        }
        let tag = format!("${name}");
        if self.open.contains(&tag) {
            let path = self.open.join(" -> ");
            self.push(Diagnostic::new(&code::CYCLE, span, format!("the macro contains itself: {path} -> {tag}")));
            return None;
        }
        self.macro_condition(name).map(Condition::Shared)
    }

    /// The condition of a macro, worked out once.
    pub(super) fn macro_condition(&mut self, name: &str) -> Option<Arc<Condition>> {
        if let Some(known) = self.known_macros.get(name) {
            return known.clone();
        }
        let definition = self.macros.get(name).cloned()?;
        self.open.push(format!("${name}"));
        let rule = self.rule.take();
        let condition = self.condition(&definition.node, 0).map(Arc::new);
        self.rule = rule;
        self.open.pop();
        self.known_macros.insert(name.to_owned(), condition.clone());
        condition
    }

    /// The condition that one field's value or operators state.
    pub(super) fn condition_of_field(&mut self, field: Field, node: &Node, key: Span) -> Option<Condition> {
        match &node.value {
            Yaml::Mapping(entries) => {
                if let Some(found) = self.colon(node) {
                    self.push(found);
                    return None;
                }
                if entries.is_empty() {
                    self.wrong_shape(node, "a value or an operator");
                    return None;
                }
                let before = self.errors();
                let parts: Vec<Condition> = entries
                    .iter()
                    .filter(|entry| entry.key.text != "full")
                    .filter_map(|entry| self.operator(field, entry, node))
                    .collect();
                (self.errors() == before).then(|| all_of(parts))
            }
            _ if node.is_null() => {
                let found = Diagnostic::new(&code::WRONG_SHAPE, key, format!("`{field}` has no value"))
                    .help("`{exists: false}` asks for flows in which a field is missing");
                self.push(found);
                None
            }
            _ if matches!(field.kind(), Kind::Size | Kind::Duration) => {
                let found = Diagnostic::new(&code::WRONG_SHAPE, node.span, format!("`{field}` needs an operator"))
                    .help(format!("write `{field}: {{gte: {}}}`", node.text().unwrap_or("...")));
                self.push(found);
                None
            }
            _ => self.values(field, Asked::Bare, Quantifier::Any, node),
        }
    }

    fn operator(&mut self, field: Field, entry: &Entry, all: &Node) -> Option<Condition> {
        let kind = field.kind();
        let name = entry.key.text.as_str();
        let known = operator(name).filter(|operator| kind.operators().contains(operator));
        if known.is_none() {
            self.unknown_operator(field, name, entry.key.span);
            return None;
        }
        let value = &entry.value;
        let (negated, asked) = match name {
            "exists" => {
                let exists = Condition::test(field, Pattern::Exists);
                return Some(if self.boolean(value)? { exists } else { negation(exists) });
            }
            "lt" | "lte" | "gt" | "gte" | "between" => return self.comparison(field, name, value),
            "any" | "all" | "none" => return self.quantified(field, name, value),
            "in" => (false, Asked::Bare),
            "not_in" => (true, Asked::Bare),
            "eq" => (false, Asked::Equal),
            "ne" => (true, Asked::Equal),
            "like" => (false, Asked::Like),
            "not_like" => (true, Asked::Like),
            "prefix" => (false, Asked::Prefix),
            "suffix" => (false, Asked::Suffix),
            "contains" => (false, Asked::Contains),
            "regex" => {
                let full = match all.child("full") {
                    Some(node) => self.boolean(node)?,
                    None => false,
                };
                (false, Asked::Regex { full })
            }
            "ieq" => (false, Asked::EqualIgnoringCase),
            _ => (false, Asked::ContainsIgnoringCase),
        };
        let condition = self.values(field, asked, Quantifier::Any, value)?;
        Some(if negated { negation(condition) } else { condition })
    }

    fn unknown_operator(&mut self, field: Field, name: &str, span: Span) {
        let kind = field.kind();
        let names: Vec<&'static str> = kind.operators().iter().map(|operator| operator.name).collect();
        let mut found = Diagnostic::new(
            &code::UNKNOWN_OPERATOR,
            span,
            format!("`{field}` ({}) has no operator `{name}`", kind.name()),
        );
        let meant = match name {
            "startswith" | "starts_with" | "startsWith" => Some("prefix"),
            "endswith" | "ends_with" | "endsWith" => Some("suffix"),
            "==" | "=" | "equals" => Some("eq"),
            "!=" | "neq" => Some("ne"),
            ">=" | "ge" | "min" => Some("gte"),
            "<=" | "le" | "max" => Some("lte"),
            ">" => Some("gt"),
            "<" => Some("lt"),
            "glob" | "wildcard" | "matches" => Some("like"),
            "re" | "pattern" => Some("regex"),
            "cidr" | "one_of" => Some("in"),
            "not" | "nin" | "notin" => Some("not_in"),
            _ => None,
        }
        .filter(|meant| names.contains(meant));
        found = match meant {
            Some(meant) => found.help(format!("did you mean `{meant}`?")).fix(span, meant),
            None => found.suggest(name, names.iter().copied()),
        };
        self.push(found.help(format!("operators of {}: {}", kind.with_article(), names.join(", "))));
    }

    fn quantified(&mut self, field: Field, name: &str, node: &Node) -> Option<Condition> {
        let quantifier = if name == "all" { Quantifier::All } else { Quantifier::Any };
        let condition = match &node.value {
            Yaml::Mapping(entries) => {
                let mut parts = Vec::new();
                for entry in entries.iter().filter(|entry| entry.key.text != "full") {
                    let asked = match entry.key.text.as_str() {
                        "eq" | "in" => Asked::Bare,
                        "like" => Asked::Like,
                        "prefix" => Asked::Prefix,
                        "suffix" => Asked::Suffix,
                        "contains" => Asked::Contains,
                        "regex" => Asked::Regex { full: node.child("full").and_then(Node::boolean).unwrap_or(false) },
                        "ieq" => Asked::EqualIgnoringCase,
                        "icontains" => Asked::ContainsIgnoringCase,
                        other => {
                            self.unknown_operator(field, other, entry.key.span);
                            return None;
                        }
                    };
                    parts.push(self.values(field, asked, quantifier, &entry.value)?);
                }
                all_of(parts)
            }
            _ => self.values(field, Asked::Bare, quantifier, node)?,
        };
        Some(if name == "none" { negation(condition) } else { condition })
    }

    /// `lt`, `lte`, `gt`, `gte`, `between` as a range of numbers.
    fn comparison(&mut self, field: Field, name: &str, node: &Node) -> Option<Condition> {
        let read: fn(&str) -> Result<u64, BadLiteral> = match field.kind() {
            Kind::Size => literal::size,
            Kind::Duration => |text| literal::duration(text).map(|duration| duration.as_secs()),
            _ => literal::integer,
        };
        let range = if name == "between" {
            let [low, high] = self.expect_list(node)? else {
                let found = Diagnostic::new(&code::WRONG_SHAPE, node.span, "`between` takes two values: `[low, high]`");
                self.push(found);
                return None;
            };
            let (low_value, high_value) = (self.literal(low, read)?, self.literal(high, read)?);
            if low_value > high_value {
                let found = Diagnostic::new(&code::UNSATISFIABLE, node.span, "the lower end lies above the upper one");
                self.push(found);
                return None;
            }
            Some((low_value, high_value))
        } else {
            let limit = self.literal(node, read)?;
            match name {
                "lt" => limit.checked_sub(1).map(|limit| (0, limit)),
                "lte" => Some((0, limit)),
                "gt" => limit.checked_add(1).map(|limit| (limit, u64::MAX)),
                _ => Some((limit, u64::MAX)),
            }
        };
        let numbers = Numbers::new(range);
        let pattern = match field.kind() {
            Kind::User => Pattern::User { names: Arc::default(), ids: numbers },
            _ => Pattern::Number(numbers),
        };
        Some(Condition::test(with_name(field), pattern))
    }

    /// A value, several, lists: one of them must fit.
    fn values(&mut self, field: Field, asked: Asked, quantifier: Quantifier, node: &Node) -> Option<Condition> {
        let kind = field.kind();
        let field = with_name(field);
        let elements = match &node.value {
            Yaml::Sequence(elements) => elements.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let before = self.errors();
        let mut patterns = Vec::new();
        let mut values = Values::default();
        let mut negative = Vec::new();
        let mut recipe = format!("{kind:?} {asked:?}");
        let mut simple = true;
        for element in elements {
            match &element.value {
                Yaml::Scalar { text, .. } if text.starts_with('$') && !matches!(asked, Asked::Regex { .. }) => {
                    simple = false;
                    let name = text.trim_start_matches('$').to_owned();
                    let of_list = self.use_list(&name, element.span, kind, field.name()).unwrap_or_default();
                    let list: Arc<str> = name.into();
                    patterns.extend(of_list.into_iter().map(|pattern| (pattern, Some(Arc::clone(&list)))));
                }
                Yaml::Scalar { text, .. } if kind == Kind::Protocol && text.eq_ignore_ascii_case("other") => {
                    simple = false;
                    negative.push(());
                }
                Yaml::Scalar { text, plain } => {
                    let _ = write!(recipe, "\0{plain}{text}");
                }
                _ => {}
            }
        }
        if let Some(known) = self.patterns.get(&recipe).filter(|_| simple) {
            return Some(Condition::Test(Arc::new(Test { field, quantifier, pattern: known.clone(), list: None })));
        }
        for element in elements {
            let skip = element.text().is_some_and(|text| {
                (text.starts_with('$') && !matches!(asked, Asked::Regex { .. }))
                    || (kind == Kind::Protocol && text.eq_ignore_ascii_case("other"))
            });
            if !skip {
                self.add_value(&mut values, kind, asked, element, field.name());
            }
        }
        let inline = values.into_patterns(kind);
        if simple
            && self.errors() == before
            && let [only] = inline.as_slice()
        {
            self.patterns.insert(recipe, only.clone());
        }
        patterns.extend(inline.into_iter().map(|pattern| (pattern, None)));
        if self.errors() > before {
            return None;
        }
        let mut parts: Vec<Condition> = patterns
            .into_iter()
            .map(|(pattern, list)| Condition::Test(Arc::new(Test { field, quantifier, pattern, list })))
            .collect();
        if !negative.is_empty() {
            let named = ["tcp", "udp", "icmp", "icmpv6", "sctp"].map(|name| Box::from(name.as_bytes()));
            let named = Condition::test(field, Pattern::Text(Arc::new(Texts::new(named, []))));
            parts.push(negation(named));
        }
        Some(any_of(parts))
    }

    /// Adds one written value; what is wrong with it is told.
    pub(super) fn add_value(&mut self, values: &mut Values, kind: Kind, asked: Asked, node: &Node, field: &str) {
        let span = node.span;
        let Yaml::Scalar { text, plain } = &node.value else {
            let found = self.colon(node);
            match found {
                Some(found) => self.push(found),
                None => self.wrong_shape(node, "a single value"),
            }
            return;
        };
        let plain = *plain;
        match kind {
            Kind::Ip => values.networks.extend(self.read_literal(text, plain, span, literal::network)),
            Kind::Port | Kind::Number => {
                let digits = text.strip_prefix("AS").filter(|_| kind == Kind::Number).unwrap_or(text);
                let range = self.read_literal(digits, plain, span, literal::range);
                if let Some((_, high)) = range
                    && kind == Kind::Port
                    && high > u64::from(u16::MAX)
                {
                    self.push(Diagnostic::new(
                        &code::BAD_LITERAL,
                        span,
                        format!("`{text}` is not a port: ports end at 65535"),
                    ));
                    return;
                }
                values.numbers.extend(range);
            }
            Kind::User if text.starts_with(|first: char| first.is_ascii_digit()) => {
                values.numbers.extend(self.read_literal(text, plain, span, literal::range));
            }
            Kind::Domain if matches!(asked, Asked::Bare | Asked::Equal | Asked::Suffix) => {
                self.add_domain(values, asked, text, span);
            }
            Kind::Word(words) => {
                let word = self.word(node, words);
                values.exact.extend(word.map(|word| Box::from(word.as_bytes())));
            }
            Kind::Protocol => self.add_protocol(values, text, span),
            _ => {
                let Some(text) = self.text(node) else { return };
                let text = text.to_owned();
                self.add_text(values, kind, asked, &text, span, field);
            }
        }
    }

    fn add_domain(&mut self, values: &mut Values, asked: Asked, text: &str, span: Span) {
        let bare = text.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.');
        let written = if asked == Asked::Suffix { format!(".{bare}") } else { text.to_owned() };
        if values.domains.insert(&written).is_ok() {
            return;
        }
        // A top-level domain such as `.onion` is no name of its own, but has names below it.
        let label = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if label && (written.starts_with('.') || written.starts_with("*.")) {
            let suffix = format!(".{}", bare.to_ascii_lowercase());
            values.patterns.push(TextPattern::Suffix(suffix.into_bytes().into()));
            return;
        }
        if label {
            values.exact.push(bare.to_ascii_lowercase().into_bytes().into());
            return;
        }
        let mut found = Diagnostic::new(&code::BAD_LITERAL, span, format!("`{text}` is not a domain name"));
        if let Some(host) = text.split_once("://").map(|(_, rest)| rest.split(['/', ':']).next().unwrap_or(rest)) {
            found = found.help(format!("did you mean `{host}`?")).fix(span, host);
        } else if text.contains('*') {
            found = found.help("`*.` stands for subdomains at the start of a name; use `like` for other globs");
        }
        self.push(found);
    }

    fn add_protocol(&mut self, values: &mut Values, text: &str, span: Span) {
        let lower = text.to_ascii_lowercase();
        // ICMP for IPv6 has a number of its own and the same meaning.
        let names: Vec<String> = match (lower.as_str(), lower.parse::<u8>(), Protocol::from_name(&lower)) {
            ("icmp", ..) => vec!["icmp".to_owned(), "icmpv6".to_owned()],
            (_, Ok(number), _) => vec![Protocol(number).to_string()],
            (_, _, Some(protocol)) => vec![protocol.to_string()],
            _ => {
                self.unknown_word(text, span, PROTOCOLS);
                return;
            }
        };
        values.exact.extend(names.into_iter().map(|name| Box::from(name.as_bytes())));
    }

    fn add_text(&mut self, values: &mut Values, kind: Kind, asked: Asked, text: &str, span: Span, field: &str) {
        let bytes = || Box::<[u8]>::from(text.as_bytes());
        let is_path = matches!(kind, Kind::Path | Kind::Paths);
        match asked {
            Asked::Bare if is_path => self.add_glob(values, text, span, GlobKind::Path),
            Asked::Like if is_path => self.add_glob(values, text, span, GlobKind::Path),
            Asked::Like => self.add_glob(values, text, span, GlobKind::Text),
            Asked::Bare | Asked::Equal => {
                if asked == Asked::Bare && (text.starts_with('*') || text.ends_with('*')) && text.len() > 1 {
                    let found = Diagnostic::new(
                        &code::STAR_IN_EQUALITY,
                        span,
                        format!("`{field}` is compared with this text exactly, star and all"),
                    )
                    .help("write `{like: ...}` if `*` stands for anything");
                    self.push(found);
                }
                values.exact.push(bytes());
            }
            Asked::Prefix => values.patterns.push(TextPattern::Prefix(bytes())),
            Asked::Suffix => values.patterns.push(TextPattern::Suffix(bytes())),
            Asked::Contains => values.patterns.push(TextPattern::Contains(bytes())),
            Asked::EqualIgnoringCase => values.patterns.push(TextPattern::EqualsIgnoringCase(bytes())),
            Asked::ContainsIgnoringCase => {
                values.patterns.push(TextPattern::ContainsIgnoringCase(text.to_ascii_lowercase().into_bytes().into()));
            }
            Asked::Regex { full } => {
                let expression = if full { format!("^(?:{text})$") } else { text.to_owned() };
                match bounded(&expression) {
                    Ok(regex) => {
                        if literal_free(text) {
                            let found = Diagnostic::new(
                                &code::REGEX_WITHOUT_LITERAL,
                                span,
                                "the expression has no fixed text to look for first",
                            );
                            self.push(found);
                        }
                        values.patterns.push(TextPattern::Regex(regex));
                    }
                    Err(error) => self.bad_regex(&error, span),
                }
            }
        }
    }

    fn add_glob(&mut self, values: &mut Values, text: &str, span: Span, kind: GlobKind) {
        match read_glob(text, kind) {
            Read::Exact(exact) => values.exact.push(exact.into_bytes().into()),
            Read::Pattern(pattern) => values.patterns.push(pattern),
        }
        if kind == GlobKind::Path && !text.starts_with(['/', '*']) {
            let found = Diagnostic::new(
                &code::RELATIVE_PATH,
                span,
                format!("`{text}` does not start with `/`, and paths of executables do"),
            )
            .help(format!("write `**/{text}` for any directory, or match `exe.name`"));
            self.push(found);
        }
    }

    fn bad_regex(&mut self, error: &regex::Error, span: Span) {
        let message = match error {
            regex::Error::CompiledTooBig(limit) => format!("the pattern needs more than {limit} bytes"),
            other => {
                // The message shows the expression again; its last line says what is wrong.
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                format!("not a regular expression: {last}")
            }
        };
        let mut found = Diagnostic::new(&code::BAD_LITERAL, span, message);
        if matches!(error, regex::Error::Syntax(text) if text.contains("look-around") || text.contains("backreference"))
        {
            found = found.note("expressions run in linear time, which look-around and backreferences do not allow");
        }
        self.push(found);
    }
}

enum Read {
    Exact(String),
    Pattern(TextPattern),
}

/// The cheapest pattern that says the same.
fn read_glob(text: &str, kind: GlobKind) -> Read {
    let special = |text: &str| text.contains(['*', '?', '\\']);
    let bytes = |text: &str| Box::<[u8]>::from(text.as_bytes());
    if kind == GlobKind::Path && text.ends_with('/') && !special(text) {
        return Read::Pattern(TextPattern::Prefix(bytes(text)));
    }
    if !special(text) {
        return Read::Exact(text.to_owned());
    }
    let any = if kind == GlobKind::Path { "**" } else { "*" };
    if let Some(start) = text.strip_suffix(any)
        && !special(start)
        && (kind == GlobKind::Text || start.ends_with('/'))
    {
        return Read::Pattern(TextPattern::Prefix(bytes(start)));
    }
    if let Some(end) = text.strip_prefix(any)
        && !special(end)
        && (kind == GlobKind::Text || end.starts_with('/'))
    {
        return Read::Pattern(TextPattern::Suffix(bytes(end)));
    }
    if kind == GlobKind::Text
        && let Some(middle) = text.strip_prefix('*').and_then(|rest| rest.strip_suffix('*'))
        && !special(middle)
        && !middle.is_empty()
    {
        return Read::Pattern(TextPattern::Contains(bytes(middle)));
    }
    Read::Pattern(TextPattern::Glob(Glob::new(text, kind)))
}

fn bounded(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(expression).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build()
}

/// Whether an expression has no two letters in a row that every match must have.
fn literal_free(expression: &str) -> bool {
    let mut run = 0;
    let mut longest = 0;
    let mut class = false;
    let mut characters = expression.chars().peekable();
    while let Some(character) = characters.next() {
        let optional = matches!(characters.peek(), Some('*' | '?' | '{'));
        match character {
            '[' => class = true,
            ']' => class = false,
            '|' => return true,
            '\\' => {
                let escaped = characters.next();
                run = if escaped.is_some_and(|escaped| !escaped.is_ascii_alphanumeric()) { run + 1 } else { 0 };
            }
            letter if !class && !optional && !"^$.*+?(){}".contains(letter) => run += 1,
            _ => run = 0,
        }
        longest = longest.max(run);
    }
    longest < 2
}

/// A user or group goes by number and by name, whichever of the two fields a rule asks.
fn with_name(field: Field) -> Field {
    match field {
        Field::Uid => Field::User,
        Field::Auid => Field::LoginUser,
        Field::Gid => Field::Group,
        other => other,
    }
}

pub(super) fn all_of(mut parts: Vec<Condition>) -> Condition {
    if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) }
}

pub(super) fn any_of(mut parts: Vec<Condition>) -> Condition {
    if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) }
}

pub(super) fn negation(condition: Condition) -> Condition {
    match condition {
        Condition::Not(inner) => *inner,
        other => Condition::Not(Box::new(other)),
    }
}

/// Other tools' names of fields.
fn field_elsewhere(name: &str) -> Option<&'static str> {
    Some(match name {
        "process.executable" | "process.exe" | "binary" | "image" | "proc.exepath" => "exe",
        "process.name" | "proc.name" | "comm" | "process" => "exe.name",
        "process.command_line" | "proc.cmdline" | "commandline" => "cmdline",
        "destination.ip" | "fd.sip" | "remote.ip" | "dest_ip" | "dst_ip" | "daddr" => "dst.ip",
        "destination.port" | "fd.sport" | "remote.port" | "dest_port" | "dport" => "dst.port",
        "source.ip" | "src_ip" | "local.ip" | "saddr" => "src.ip",
        "source.port" | "local.port" | "sport" => "src.port",
        "destination.domain" | "domain" | "hostname" | "host.name" => "dst.domain",
        "sni" | "tls.sni" => "dst.sni",
        "protocol" | "transport" => "proto",
        "interface" => "iface",
        "user.name" | "username" => "user",
        "user.id" => "uid",
        "country" => "dst.country",
        "asn" => "dst.asn",
        _ => return None,
    })
}

const PROTOCOLS: &[&str] =
    &["tcp", "udp", "icmp", "icmpv6", "sctp", "dccp", "udplite", "igmp", "gre", "esp", "ah", "other"];

const REGEX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(kind: GlobKind, pattern: &str, text: &str) -> bool {
        match read_glob(pattern, kind) {
            Read::Exact(exact) => exact == text,
            Read::Pattern(pattern) => pattern.matches(text.as_bytes()),
        }
    }

    #[test]
    fn a_star_stays_in_its_segment() {
        let path = |pattern, text| matches(GlobKind::Path, pattern, text);
        assert!(path("/usr/bin/*", "/usr/bin/curl"));
        assert!(!path("/usr/bin/*", "/usr/bin/a/b"));
        assert!(path("/tmp/**", "/tmp/a/b"));
        assert!(!path("/tmp/**", "/tmpx/a"));
        assert!(path("/opt/", "/opt/a/b"));
        assert!(!path("/opt/", "/optional"));
        assert!(path("**/rclone", "/usr/local/bin/rclone"));
        assert!(path("**/bin/python*", "/home/a/venv/bin/python3.12"));
        assert!(path("/usr/**/x", "/usr/x"));
        assert!(path("/usr/**/x", "/usr/a/b/x"));
        assert!(!path("/usr/**/x", "/usrx"));
        assert!(path("/bin/?sh", "/bin/ksh"));
        assert!(!path("/bin/?sh", "/bin//sh"));
        assert!(!path("/bin/?sh", "/bin/sh"));
        assert!(path("/home/*/bin/", "/home/a/bin/x/y"));
        assert!(path(r"/a\*b", "/a*b"));
        assert!(!path(r"/a\*b", "/axb"));
        assert!(path("/ö/*", "/ö/x"));
        assert!(path("/a.b/*", "/a.b/x"));
        assert!(!path("/a.b/*", "/axb/x"));
    }

    #[test]
    fn a_star_in_a_text_is_any_text() {
        let text = |pattern, text| matches(GlobKind::Text, pattern, text);
        assert!(text("wwan*", "wwan0"));
        assert!(text("*--upload*", "curl --upload-file a/b"));
        assert!(text("a*b?d", "a/x/bcd"));
        assert!(!text("a*b?d", "a/x/bd"));
    }

    #[test]
    fn an_expression_without_literal_is_noticed() {
        assert!(literal_free(".*"));
        assert!(literal_free("[a-z]+"));
        assert!(literal_free("a|b"));
        assert!(!literal_free("^curl .*"));
    }
}
