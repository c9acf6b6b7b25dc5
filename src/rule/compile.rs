//! From what was written to what is meant: every error with its place.
//!
//! All files are read first, then names are gathered, then overrides change
//! the trees, and only then rules are lowered. A value therefore always knows
//! the file and line that it came from, whoever set it.

mod cases;
mod keys;
mod lint;
mod lists;
mod matching;
mod metrics;
mod overrides;
mod rules;
mod schedules;
mod scope;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::rule::case::Case;
use crate::rule::catalogue as code;
use crate::rule::diagnose::{Diagnostic, Level, Report, Source, Span, narrow};
use crate::rule::schema;
use crate::rule::yaml::{self, Node, Yaml};
use crate::rule::{Condition, Field, Pattern, Rule, RuleSet, Schedule, Summary};
use crate::time::Timestamp;

use keys::Keys;

/// What compiling depends on beside the files.
#[derive(Clone)]
pub struct Options {
    /// Reads the file of a list; the path is relative to nothing, or as the rule file's directory makes it.
    pub read_file: Arc<ReadFile>,
    /// The outputs that the configuration has; `None` lets any name pass.
    pub outputs: Option<BTreeSet<String>>,
    /// Exceptions that expired before this are ignored.
    pub now: Timestamp,
    /// What `tz: Local` means.
    pub local_zone: TimeZone,
    /// Fields that nothing on this host sets, and what each would need.
    pub missing: BTreeMap<Field, String>,
    /// Whether lint is wanted beside errors.
    pub lint: Lint,
    /// Whether what each line of a match block became is kept.
    pub parts: Parts,
}

/// Reads a file, or says in words why it cannot.
pub type ReadFile = dyn Fn(&str) -> Result<Vec<u8>, String> + Send + Sync;

/// Whether findings of style are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lint {
    /// Errors and warnings about meaning only: for running.
    #[default]
    Off,
    /// Everything: for checking.
    On,
}

/// Whether what each line of a match block became is kept, to explain what a rule looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Parts {
    /// Only whole conditions are: for running.
    #[default]
    Dropped,
    /// Line by line: for explaining.
    Kept,
}

/// What came of some files.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The rules without an error.
    pub rules: RuleSet,
    /// Everything that was found.
    pub report: Report,
    /// The rules as written, overrides and defaults applied, by id.
    pub written: BTreeMap<String, Written>,
    /// The tests that can be run.
    pub cases: Vec<Case>,
    /// The files of lists with `reload: true`.
    pub list_files: BTreeSet<String>,
    /// What lists and macros the rules use: (user, used).
    pub uses: BTreeSet<(String, String)>,
    /// What each test of a field became, by file and place of the field's name; empty unless asked for.
    pub parts: HashMap<(u32, u32), Condition>,
    /// The macros as written; empty unless parts were asked for.
    pub macros: BTreeMap<String, Node>,
}

/// A rule as written, overrides and defaults applied.
#[derive(Debug, Clone)]
pub struct Written {
    /// The tree; each value's span says where it was set.
    pub node: Node,
    /// Whether it runs: neither a draft nor disabled nor wrong.
    pub runs: bool,
}

/// Compiles files to rules.
pub fn compile(sources: Vec<Source>, options: &Options) -> Compiled {
    let mut compiler = Compiler::new(sources, options);
    compiler.gather();
    compiler.override_trees();
    compiler.lower();
    compiler.finish()
}

/// A list that every rule file can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltinList {
    /// Its name, without `$`.
    pub name: String,
    /// What its items are.
    pub kind: String,
    /// What it holds.
    pub description: String,
    /// Its items, where they are written out; a file's are counted.
    pub items: Vec<String>,
}

/// The built-in lists.
pub fn builtin_lists() -> Vec<BuiltinList> {
    let mut report = Report::new(vec![Source::new(BUILTIN_PATH, BUILTIN)]);
    let root = yaml::read(0, &mut report);
    let lists = root.as_ref().and_then(|root| root.child("lists")).and_then(Node::entries).unwrap_or_default();
    let text = |node: &Node, key: &str| node.child(key).and_then(Node::text).unwrap_or_default().to_owned();
    let items = |node: &Node| -> Vec<String> {
        let written = node.child("items").and_then(Node::elements).unwrap_or_default();
        let of_file =
            node.child("file").and_then(Node::text).and_then(crate::names::clouds::ranges).unwrap_or_default();
        let of_file = of_file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        written.iter().filter_map(Node::text).chain(of_file).map(str::to_owned).collect()
    };
    lists
        .iter()
        .map(|entry| BuiltinList {
            name: entry.key.text.clone(),
            kind: text(&entry.value, "type"),
            description: text(&entry.value, "description"),
            items: items(&entry.value),
        })
        .collect()
}

impl Compiled {
    /// The rules, if nothing was wrong.
    pub fn into_result(self) -> Result<RuleSet, Box<Report>> {
        if self.report.has_errors() { Err(Box::new(self.report)) } else { Ok(self.rules) }
    }
}

impl Default for Options {
    /// Reads no file, knows no output, and has the epoch for now.
    fn default() -> Self {
        Self {
            read_file: Arc::new(|_| Err("no file can be read here".to_owned())),
            outputs: None,
            now: Timestamp::EPOCH,
            local_zone: TimeZone::UTC,
            missing: BTreeMap::new(),
            lint: Lint::Off,
            parts: Parts::Dropped,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("outputs", &self.outputs).field("now", &self.now).finish_non_exhaustive()
    }
}

/// Something with a name: where the name stands, and what it names.
#[derive(Debug, Clone)]
struct Definition {
    span: Span,
    node: Node,
    builtin: bool,
}

/// A rule or another item of a list that belongs to a file.
#[derive(Debug, Clone)]
struct Item {
    node: Node,
    /// Which file's defaults and pack it has.
    source: u32,
}

struct Compiler<'a> {
    options: &'a Options,
    report: Report,
    files: usize,
    roots: Vec<(u32, Node)>,
    lists: BTreeMap<String, Definition>,
    macros: BTreeMap<String, Definition>,
    schedules: BTreeMap<String, Definition>,
    rules: Vec<Item>,
    exceptions: Vec<Item>,
    overrides: Vec<Node>,
    tests: Vec<Node>,
    known_lists: HashMap<String, Option<lists::KnownList>>,
    known_macros: HashMap<String, Option<Arc<Condition>>>,
    known_schedules: HashMap<String, Option<Arc<Schedule>>>,
    /// What is being looked into, to find cycles.
    open: Vec<String>,
    used: HashSet<String>,
    uses: BTreeSet<(String, String)>,
    list_files: BTreeSet<String>,
    list_digests: HashMap<String, [u8; 32]>,
    parts: HashMap<(u32, u32), Condition>,
    /// Patterns that were written before: rules made from one mould share them.
    patterns: HashMap<String, Pattern>,
    /// Summaries that were read before.
    summaries: HashMap<String, Arc<Summary>>,
    /// Where each exception of a rule stands, for what is told of them later.
    exception_places: HashMap<Arc<str>, Vec<Span>>,
    /// The rule being lowered.
    rule: Option<Arc<str>>,
    lowered: Vec<Lowered>,
}

/// A rule that was lowered, and what it was lowered from.
struct Lowered {
    id: Arc<str>,
    span: Span,
    node: Node,
    /// `None` if something in it is wrong.
    rule: Option<Arc<Rule>>,
    runs: bool,
}

impl<'a> Compiler<'a> {
    fn new(mut sources: Vec<Source>, options: &'a Options) -> Self {
        let files = sources.len();
        sources.push(Source::new(BUILTIN_PATH, BUILTIN));
        Self {
            options,
            report: Report::new(sources),
            files,
            roots: Vec::new(),
            lists: BTreeMap::new(),
            macros: BTreeMap::new(),
            schedules: BTreeMap::new(),
            rules: Vec::new(),
            exceptions: Vec::new(),
            overrides: Vec::new(),
            tests: Vec::new(),
            known_lists: HashMap::new(),
            known_macros: HashMap::new(),
            known_schedules: HashMap::new(),
            open: Vec::new(),
            used: HashSet::new(),
            uses: BTreeSet::new(),
            list_files: BTreeSet::new(),
            list_digests: HashMap::new(),
            parts: HashMap::new(),
            patterns: HashMap::new(),
            summaries: HashMap::new(),
            exception_places: HashMap::new(),
            rule: None,
            lowered: Vec::new(),
        }
    }

    /// Reads every file and collects what has a name.
    fn gather(&mut self) {
        for index in 0..narrow(self.report.sources.len()) {
            let before = self.report.diagnostics.len();
            let root = yaml::read(index, &mut self.report);
            match root {
                Some(root) if !root.is_null() => self.gather_file(index, root),
                // Whatever is wrong with the text was said.
                _ if self.report.diagnostics.len() > before => {}
                _ => self.push(Diagnostic::new(
                    &code::NOT_A_RULE_FILE,
                    Span { source: index, line: 1, column: 1, ..Span::default() },
                    "the file is empty",
                )),
            }
        }
    }

    fn gather_file(&mut self, source: u32, root: Node) {
        if !self.is_rule_file(&root) {
            return;
        }
        let builtin = source as usize >= self.files;
        let keys = Keys::open(self, &root, &schema::FILE);
        let Some(keys) = keys else { return };
        if let Some(version) = keys.get("version")
            && version.text() != Some("1")
        {
            self.push(
                Diagnostic::new(&code::VERSION, version.span, "this program reads version 1 of the rule language")
                    .help("write `version: 1`"),
            );
        }
        for (key, table) in [("pack", &schema::PACK), ("defaults", &schema::DEFAULTS)] {
            if let Some(node) = keys.get(key).filter(|node| !node.is_null()) {
                Keys::open(self, node, table);
            }
        }
        for (kind, noun) in [("lists", "list"), ("macros", "macro"), ("schedules", "schedule")] {
            let Some(node) = keys.get(kind).filter(|node| !node.is_null()) else { continue };
            let Some(entries) = self.expect_mapping(node) else { continue };
            for entry in entries {
                self.check_name(&entry.key.text, entry.key.span, noun);
                let definition = Definition { span: entry.key.span, node: entry.value.clone(), builtin };
                let table = match kind {
                    "lists" => &mut self.lists,
                    "macros" => &mut self.macros,
                    _ => &mut self.schedules,
                };
                let first = table.get(&entry.key.text).map(|first| first.span);
                match first {
                    Some(first) => self.complain_double(noun, &entry.key.text, entry.key.span, first),
                    None => {
                        table.insert(entry.key.text.clone(), definition);
                    }
                }
            }
        }
        let items = |compiler: &mut Self, key: &str| -> Vec<Item> {
            let Some(node) = keys.get(key).filter(|node| !node.is_null()) else { return Vec::new() };
            let elements = compiler.expect_list(node).unwrap_or_default();
            elements.iter().map(|node| Item { node: node.clone(), source }).collect()
        };
        let rules = items(self, "rules");
        self.rules.extend(rules);
        let exceptions = items(self, "exceptions");
        self.exceptions.extend(exceptions);
        let overrides = items(self, "overrides");
        self.overrides.extend(overrides.into_iter().map(|item| item.node));
        let tests = items(self, "tests");
        self.tests.extend(tests.into_iter().map(|item| item.node));
        self.roots.push((source, root));
    }

    /// Whether it looks like a rule file at all; a configuration is told apart.
    fn is_rule_file(&mut self, root: &Node) -> bool {
        let Yaml::Mapping(entries) = &root.value else {
            let found = Diagnostic::new(
                &code::NOT_A_RULE_FILE,
                first_line(root.span),
                format!("a rule file is a mapping, and this is {}", root.kind()),
            )
            .help("start with `rules:` and a list of rules below it");
            self.push(found);
            return false;
        };
        let known = entries.iter().filter(|entry| schema::FILE.key(&entry.key.text).is_some()).count();
        let first = entries.first().map_or(root.span, |entry| entry.key.span);
        let config = entries.iter().find(|entry| CONFIG_KEYS.contains(&entry.key.text.as_str()));
        if let Some(entry) = config
            && (known == 0
                || entries.iter().any(|entry| matches!(entry.key.text.as_str(), "outputs" | "routing" | "capture")))
        {
            let found =
                Diagnostic::new(&code::CONFIG_FILE, entry.key.span, "this is a configuration file, not a rule file")
                    .label("a key of the configuration")
                    .help("check it with `egret check --config FILE`");
            self.push(found);
            return false;
        }
        if known == 0 {
            let written = entries.first().map_or("", |entry| entry.key.text.as_str());
            let found = Diagnostic::new(&code::NOT_A_RULE_FILE, first, "no key here is one that a rule file has")
                .suggest(written, schema::FILE.names())
                .help("a rule file has `rules`, `lists`, `macros`, `schedules`, `exceptions`, `overrides` or `tests`");
            self.push(found);
            return false;
        }
        true
    }

    fn lower(&mut self) {
        for name in self.schedules.keys().cloned().collect::<Vec<_>>() {
            self.schedule(&name);
        }
        self.check_rule_names();
        let rules = std::mem::take(&mut self.rules);
        let exceptions = std::mem::take(&mut self.exceptions);
        self.check_shared_exceptions(&exceptions, &rules);
        for item in &rules {
            self.lower_rule(item, &exceptions);
        }
        self.rules = rules;
        self.exceptions = exceptions;
        self.rule = None;
        // What no rule uses must be right all the same.
        for name in self.macros.keys().cloned().collect::<Vec<_>>() {
            self.macro_condition(&name);
        }
        for name in self.lists.keys().cloned().collect::<Vec<_>>() {
            self.check_list(&name);
        }
    }

    fn finish(mut self) -> Compiled {
        let cases = self.cases();
        match self.options.lint {
            Lint::On => self.lint(),
            Lint::Off => self.report.diagnostics.retain(|found| found.level > Level::Info),
        }
        let mut rules = Vec::new();
        let mut written = BTreeMap::new();
        let totals = &mut self.report.totals;
        for lowered in self.lowered {
            totals.rules += 1;
            match &lowered.rule {
                Some(rule) => {
                    totals.usable += 1;
                    if lowered.runs {
                        rules.push(rule.clone());
                    }
                }
                None => totals.not_loaded.push(lowered.id.clone()),
            }
            let runs = lowered.runs && lowered.rule.is_some();
            written.insert(lowered.id.to_string(), Written { node: lowered.node, runs });
        }
        let macros = match self.options.parts {
            Parts::Kept => self.macros.into_iter().map(|(name, definition)| (name, definition.node)).collect(),
            Parts::Dropped => BTreeMap::new(),
        };
        totals.files = self.files;
        self.report.forget_repaired();
        self.report.sort();
        self.report.suppress();
        Compiled {
            rules: RuleSet::new(rules),
            report: self.report,
            written,
            cases,
            list_files: self.list_files,
            uses: self.uses,
            parts: self.parts,
            macros,
        }
    }

    fn push(&mut self, mut diagnostic: Diagnostic) {
        if diagnostic.rule.is_none() {
            diagnostic.rule.clone_from(&self.rule);
        }
        self.report.push(diagnostic);
    }

    fn errors(&self) -> usize {
        self.report.count(Level::Error)
    }

    fn complain_double(&mut self, noun: &str, name: &str, span: Span, first: Span) {
        let found = Diagnostic::new(&code::DUPLICATE_ID, span, format!("there is another {noun} `{name}`"))
            .label("again here")
            .related(first, "first here")
            .note("the order of files has no meaning; to change what another file has, use `overrides`");
        self.push(found);
    }

    fn directory_of(&self, source: u32) -> &str {
        let path = self.report.sources.get(source as usize).map_or("", |source| &source.path);
        path.rsplit_once('/').map_or("", |(directory, _)| directory)
    }
}

fn first_line(span: Span) -> Span {
    Span { end: span.start, ..span }
}

/// Keys that only the configuration has.
const CONFIG_KEYS: &[&str] =
    &["capture", "state_dir", "outputs", "routing", "resolve", "names", "store", "host", "engine"];

/// What the file of the built-in lists is called.
pub const BUILTIN_PATH: &str = "(built-in)";
const BUILTIN: &str = include_str!("builtin.yaml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Trigger;

    fn compiled(text: &str) -> Compiled {
        compile(vec![Source::new("rules.yaml", text)], &Options::default())
    }

    /// Findings in short: code, line, column.
    fn complaints(text: &str) -> Vec<String> {
        let report = compiled(text).report;
        report
            .diagnostics
            .iter()
            .map(|found| format!("{} {}:{}", found.code.id, found.span.line, found.span.column))
            .collect()
    }

    #[test]
    fn the_complete_rule_of_the_documentation_compiles() {
        let compiled = compile(vec![Source::new("rules.yaml", COMPLETE)], &Options::default());
        assert!(compiled.report.diagnostics.is_empty(), "{}", compiled.report);
        let [rule] = compiled.rules.rules.as_slice() else { panic!("one rule") };
        assert_eq!(&*rule.metadata.id, "exfil-cloud-storage");
        assert_eq!(rule.exceptions.len(), 2);
        assert_eq!(rule.life.escalate.len(), 1);
        let Trigger::When(when) = &rule.trigger else { panic!("a window") };
        assert_eq!(when.all.len(), 3);
        assert_eq!(when.window.as_secs(), 600);
    }

    #[test]
    fn one_bad_rule_does_not_hide_the_others() {
        let compiled = compiled(
            "rules:\n  - {id: a, match: {exee: /bin/a}, each: {}}\n  - {id: b, match: {}, each: {}}\n  - {id: c, match: {dst.port: 99999}, each: {}}\n",
        );
        assert_eq!(compiled.rules.rules.len(), 1);
        assert_eq!(compiled.report.totals.not_loaded, ["a".into(), "c".into()]);
        assert_eq!(compiled.report.diagnostics.len(), 2);
    }

    #[test]
    fn a_configuration_is_told_apart() {
        assert_eq!(complaints("capture: {source: auto}\nrules: [/etc/egret/rules]\n"), ["R0104 1:1"]);
        assert_eq!(complaints("- a\n"), ["R0100 1:1"]);
        assert_eq!(complaints("\n"), ["R0100 1:1"]);
        assert_eq!(complaints("rule: []\n"), ["R0100 1:1"]);
    }

    #[test]
    fn cycles_are_found() {
        assert_eq!(
            complaints("macros:\n  a: {all: [$b]}\n  b: {any: [$a]}\nrules:\n  - {id: r, match: $a, each: {}}\n"),
            ["R0225 3:13"]
        );
        assert_eq!(
            complaints("lists:\n  a: {type: cidr, items: [$b]}\n  b: {type: cidr, items: [$a]}\n"),
            ["R0225 3:27"]
        );
    }

    #[test]
    fn overrides_say_where_a_value_comes_from() {
        let rules =
            Source::new("a.yaml", "rules:\n  - {id: r, match: {}, window: 1m, when: {bytes_out: {gte: 1MB}}}\n");
        let local = Source::new(
            "b.yaml",
            "overrides:\n  - rule: r\n    set: {severity: critical, when.0.bytes_out.gte: 2MB}\n",
        );
        let compiled = compile(vec![rules, local], &Options::default());
        assert!(compiled.report.diagnostics.is_empty(), "{}", compiled.report);
        let written = &compiled.written["r"].node;
        assert_eq!(written.at("severity").unwrap().span.source, 1);
        assert_eq!(written.at("match").unwrap().span.source, 0);
        assert_eq!(compiled.rules.rules[0].metadata.severity, crate::rule::Severity::Critical);
    }

    #[test]
    fn a_fingerprint_follows_meaning_and_not_words() {
        let print = |text: &str| compiled(text).rules.rules[0].fingerprint;
        let base = "lists: {l: {type: exe, items: [/a]}}\nrules:\n  - {id: r, match: {exe: $l}, window: 1m, when: {bytes_out: {gte: 1MB}}}\n";
        assert_eq!(print(base), print(&base.replace("1MB", "2MB")), "a limit keeps the windows");
        assert_eq!(print(base), print(&base.replace("id: r,", "id: r, severity: low,")));
        assert_ne!(print(base), print(&base.replace("window: 1m", "window: 2m")));
        assert_ne!(print(base), print(&base.replace("[/a]", "[/b]")), "a list's item changes the match");
    }

    const COMPLETE: &str = include_str!("compile/complete.yaml");
}
