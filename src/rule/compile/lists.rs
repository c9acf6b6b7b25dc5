//! Lists: values by name, written in the file or in a file of their own.

use std::collections::HashMap;

use crate::names::{List, clouds};
use crate::rule::Pattern;
use crate::rule::catalogue as code;
use crate::rule::compile::keys::Keys;
use crate::rule::compile::matching::{Asked, Values};
use crate::rule::compile::{Compiler, Definition};
use crate::rule::diagnose::{Diagnostic, Span};
use crate::rule::kind::Kind;
use crate::rule::literal;
use crate::rule::schema;
use crate::rule::yaml::{Node, Yaml};

/// What the items of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ListType {
    Network,
    Domain,
    Path,
    Text,
    Number,
    System,
    User,
}

/// When the file of a list is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reload {
    /// With the rule files.
    WithRules,
    /// Whenever it changes.
    OnChange,
}

/// A list that was read.
#[derive(Debug, Clone)]
pub(super) struct KnownList {
    pub(super) kind: ListType,
    /// A value is in the list if it satisfies one of these.
    pub(super) patterns: Vec<Pattern>,
}

impl ListType {
    fn from_word(word: &str) -> Self {
        match word {
            "cidr" | "ip" => Self::Network,
            "domain" => Self::Domain,
            "exe" | "path" => Self::Path,
            "number" | "port" => Self::Number,
            "asn" => Self::System,
            "user" => Self::User,
            _ => Self::Text,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Network => "cidr",
            Self::Domain => "domain",
            Self::Path => "exe",
            Self::Text => "text",
            Self::Number => "number",
            Self::System => "asn",
            Self::User => "user",
        }
    }

    /// The type of field that its items are written for.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Network => Kind::Ip,
            Self::Domain => Kind::Domain,
            Self::Path => Kind::Path,
            Self::Text => Kind::Text,
            Self::Number | Self::System => Kind::Number,
            Self::User => Kind::User,
        }
    }

    /// Whether its items can match a field of this type.
    fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Network => kind == Kind::Ip,
            Self::Domain => kind == Kind::Domain,
            Self::Path => matches!(kind, Kind::Path | Kind::Paths | Kind::Texts),
            Self::Text => matches!(
                kind,
                Kind::Text | Kind::Texts | Kind::Path | Kind::Paths | Kind::User | Kind::Word(_) | Kind::Protocol
            ),
            Self::Number | Self::System => matches!(kind, Kind::Number | Kind::Port | Kind::User),
            Self::User => kind == Kind::User,
        }
    }
}

impl Compiler<'_> {
    /// The patterns of a list that something names.
    pub(super) fn use_list(&mut self, name: &str, span: Span, kind: Kind, field: &str) -> Option<Vec<Pattern>> {
        self.used.insert(format!("list {name}"));
        if let Some(rule) = &self.rule {
            self.uses.insert((rule.to_string(), format!("${name}")));
        }
        let Some(definition) = self.lists.get(name).cloned() else {
            self.unknown_name(name, span);
            return None;
        };
        let list = self.known_list(name)?;
        if !list.kind.fits(kind) {
            let wanted = kind.with_article();
            let found = Diagnostic::new(
                &code::LIST_TYPE,
                span,
                format!("`${name}` is a list of type {}, and `{field}` is {wanted}", list.kind.name()),
            )
            .label(format!("{wanted} is needed"))
            .related(definition.span, format!("a list of type {}", list.kind.name()));
            self.push(found);
            return None;
        }
        Some(list.patterns)
    }

    pub(super) fn unknown_name(&mut self, name: &str, span: Span) {
        let names: Vec<String> = self.lists.keys().chain(self.macros.keys()).map(|name| format!("${name}")).collect();
        let found = Diagnostic::new(&code::UNKNOWN_NAME, span, format!("there is no list or macro `${name}`"))
            .suggest(&format!("${name}"), names.iter().map(String::as_str));
        self.push(found);
    }

    /// Reads a list that perhaps nothing uses.
    pub(super) fn check_list(&mut self, name: &str) {
        if self.lists.get(name).is_some_and(|definition| !definition.builtin) {
            self.known_list(name);
        }
    }

    fn known_list(&mut self, name: &str) -> Option<KnownList> {
        if let Some(known) = self.known_lists.get(name) {
            return known.clone();
        }
        let definition = self.lists.get(name).cloned()?;
        let before = self.errors();
        let list = self.read_list(name, &definition).filter(|_| self.errors() == before);
        self.known_lists.insert(name.to_owned(), list.clone());
        list
    }

    fn read_list(&mut self, name: &str, definition: &Definition) -> Option<KnownList> {
        let keys = Keys::open(self, &definition.node, &schema::LIST)?;
        let word = self.word(keys.get("type")?, schema::LIST_TYPES)?;
        let kind = ListType::from_word(word);
        if keys.get("items").is_none() && keys.get("file").is_none() {
            let found = Diagnostic::new(
                &code::MISSING_KEY,
                definition.span,
                format!("the list `{name}` has neither `items` nor `file`"),
            );
            self.push(found);
            return None;
        }
        let mut values = Values::default();
        let mut patterns = Vec::new();
        self.open.push(format!("${name}"));
        if let Some(items) = keys.get("items").filter(|items| !items.is_null()) {
            let items = self.expect_list(items).unwrap_or_default();
            for item in items {
                self.list_item(item, kind, &mut values, &mut patterns);
            }
            self.check_doubles(items);
            self.check_order(items, kind);
        }
        self.open.pop();
        let max_items = keys.get("max_items").and_then(|node| self.literal(node, literal::integer));
        let max_items = max_items.and_then(|max| usize::try_from(max).ok()).unwrap_or(MAX_ITEMS);
        if let Some(file) = keys.get("file") {
            let reload = match keys.get("reload").and_then(|node| self.boolean(node)) {
                Some(true) => Reload::OnChange,
                _ => Reload::WithRules,
            };
            self.list_file(file, kind, max_items, reload, &mut values)?;
        }
        patterns.extend(values.into_patterns(kind.kind()));
        Some(KnownList { kind, patterns })
    }

    /// Tells of items that a list has already; the repair takes them out.
    fn check_doubles(&mut self, items: &[Node]) {
        let mut first: HashMap<&str, Span> = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            let Some(text) = item.text() else { continue };
            let Some(known) = first.get(text).copied() else {
                first.insert(text, item.span);
                continue;
            };
            let mut found =
                Diagnostic::new(&code::DUPLICATE_ITEM, item.span, format!("`{text}` is in the list already"))
                    .label("again here")
                    .related(known, "first here")
                    .help("take it out");
            let before = index.checked_sub(1).and_then(|index| items.get(index)).map(|before| before.span);
            // What an override brought stands elsewhere.
            if let Some(before) =
                before.filter(|before| before.source == item.span.source && before.end <= item.span.start)
            {
                let span = Span { start: before.end, ..item.span };
                let between =
                    self.report.source(span).map_or("#", |source| source.slice(Span { end: item.span.start, ..span }));
                if !between.contains('#') {
                    found = found.fix(span, "");
                }
            }
            self.push(found);
        }
    }

    /// Tells of items that are out of order; the repair moves them. Comments between items say that
    /// the order has a meaning of its own.
    fn check_order(&mut self, items: &[Node], kind: ListType) {
        let keys: Option<Vec<SortKey<'_>>> =
            items.iter().map(|item| item.text().map(|text| sort_key(text, kind))).collect();
        let (Some(keys), [first, .., last]) = (keys, items) else { return };
        let Some(at) = keys.windows(2).position(|pair| matches!(pair, [before, after] if before > after)) else {
            return;
        };
        let Some(source) = self.report.source(first.span) else { return };
        let in_order = |pair: &[Node]| matches!(pair, [before, after] if before.span.source == after.span.source && before.span.end <= after.span.start);
        let separators: Vec<&str> = items
            .windows(2)
            .filter(|pair| in_order(pair))
            .filter_map(|pair| match pair {
                [before, after] => source.text.get(before.span.end as usize..after.span.start as usize),
                _ => None,
            })
            .collect();
        // What an override brought stands elsewhere.
        if separators.len() + 1 != items.len() || separators.iter().any(|separator| separator.contains('#')) {
            return;
        }
        let mut sorted: Vec<(&SortKey<'_>, &Node)> = keys.iter().zip(items).collect();
        sorted.sort_by(|a, b| a.0.cmp(b.0));
        let mut text = String::new();
        for (index, (_, item)) in sorted.iter().enumerate() {
            text.push_str(source.slice(item.span));
            text.push_str(separators.get(index).copied().unwrap_or_default());
        }
        let (before, after) = (&items[at], &items[at + 1]);
        let message =
            format!("`{}` stands after `{}`", after.text().unwrap_or_default(), before.text().unwrap_or_default());
        let found = Diagnostic::new(&code::UNSORTED_LIST, after.span, message)
            .label("out of order")
            .help("`egret check --fix` sorts the list")
            .fix(Span { end: last.span.end, ..first.span }, text);
        self.push(found);
    }

    fn list_item(&mut self, item: &Node, kind: ListType, values: &mut Values, patterns: &mut Vec<Pattern>) {
        if let Yaml::Scalar { text, .. } = &item.value
            && let Some(other) = text.strip_prefix('$')
        {
            if self.open.contains(text) {
                let path = self.open.join(" -> ");
                let found =
                    Diagnostic::new(&code::CYCLE, item.span, format!("the list contains itself: {path} -> {text}"));
                self.push(found);
                return;
            }
            if let Some(more) = self.use_list(other, item.span, kind.kind(), "this list") {
                patterns.extend(more);
            }
            return;
        }
        self.add_value(values, kind.kind(), Asked::Bare, item, "a list item");
    }

    fn list_file(
        &mut self,
        node: &Node,
        kind: ListType,
        max_items: usize,
        reload: Reload,
        values: &mut Values,
    ) -> Option<()> {
        let name = self.text(node)?.to_owned();
        let is_builtin = node.span.source as usize >= self.files;
        if let Some(ranges) = clouds::ranges(&name).filter(|_| is_builtin) {
            return self.published_list(node.span, &name, kind, ranges.as_bytes(), max_items, values);
        }
        let directory = self.directory_of(node.span.source);
        let path = if name.starts_with('/') || directory.is_empty() { name } else { format!("{directory}/{name}") };
        if reload == Reload::OnChange {
            self.list_files.insert(path.clone());
        }
        let content = match (self.options.read_file)(&path) {
            Ok(content) => content,
            Err(error) => {
                let found = Diagnostic::new(&code::BAD_LIST_FILE, node.span, format!("cannot read `{path}`: {error}"));
                self.push(found);
                return None;
            }
        };
        if reload == Reload::WithRules {
            // A list that is meant to change leaves the windows of its rules as they are.
            self.list_digests.insert(path.clone(), *blake3::hash(&content).as_bytes());
        }
        match kind {
            ListType::Network | ListType::Domain | ListType::System => {
                self.published_list(node.span, &path, kind, &content, max_items, values)
            }
            ListType::Path | ListType::Text | ListType::Number | ListType::User => {
                self.plain_list(node.span, &path, kind, &content, max_items, values)
            }
        }
    }

    fn published_list(
        &mut self,
        span: Span,
        path: &str,
        kind: ListType,
        content: &[u8],
        max_items: usize,
        values: &mut Values,
    ) -> Option<()> {
        let list = match List::parse(content, max_items) {
            Ok(list) => list,
            Err(error) => {
                self.push(Diagnostic::new(&code::BAD_LIST_FILE, span, format!("cannot use `{path}`: {error}")));
                return None;
            }
        };
        for rejected in list.rejected.iter().take(MAX_REJECTED) {
            self.push(Diagnostic::new(&code::BAD_LIST_ITEM, span, format!("{path}: {rejected}; it is skipped")));
        }
        let usable = match kind {
            ListType::Network => list.counts.ipv4 + list.counts.ipv6,
            ListType::Domain => list.counts.domains,
            _ => list.counts.systems,
        };
        if usable == 0 && list.counts.entries() > 0 {
            let message = format!("`{path}` has no item of type {}", kind.name());
            self.push(Diagnostic::new(&code::BAD_LIST_FILE, span, message));
            return None;
        }
        match kind {
            ListType::Network => values.networks.extend(list.networks.iter()),
            ListType::Domain => values.domain_sets.push(list.domains),
            _ => values.numbers.extend(list.systems.iter().map(|system| (u64::from(*system), u64::from(*system)))),
        }
        Some(())
    }

    /// One item a line; `#` starts a comment.
    fn plain_list(
        &mut self,
        span: Span,
        path: &str,
        kind: ListType,
        content: &[u8],
        max_items: usize,
        values: &mut Values,
    ) -> Option<()> {
        let text = String::from_utf8_lossy(content);
        let items = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut count = 0;
        for item in items {
            count += 1;
            if count > max_items {
                let message = format!("`{path}` has more than {max_items} items");
                self.push(Diagnostic::new(&code::BAD_LIST_FILE, span, message).help("raise `max_items`"));
                return None;
            }
            let node = Node { span, value: Yaml::Scalar { text: item.to_owned(), plain: false } };
            self.add_value(values, kind.kind(), Asked::Bare, &node, "a list item");
        }
        Some(())
    }
}

/// What the items of a list are ordered by: networks and numbers by their value, all else as people look for it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SortKey<'a> {
    Network(ipnet::IpNet),
    Number(u64),
    Text(String, &'a str),
}

fn sort_key(text: &str, kind: ListType) -> SortKey<'_> {
    match kind {
        ListType::Network => {
            let network = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
            if let Ok(network) = network {
                return SortKey::Network(network);
            }
        }
        ListType::Number | ListType::System => {
            let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
            if let Ok(number) = digits.parse() {
                return SortKey::Number(number);
            }
        }
        ListType::Domain | ListType::Path | ListType::Text | ListType::User => {}
    }
    SortKey::Text(text.to_lowercase(), text)
}

/// Items in the file of a list that says no other number.
const MAX_ITEMS: usize = 2_000_000;
/// Skipped lines that are told one by one.
const MAX_REJECTED: usize = 5;
