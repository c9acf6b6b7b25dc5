//! Overrides: later files change the rules and lists of others, and the
//! changed values know who set them.

use crate::rule::catalogue as code;
use crate::rule::compile::Compiler;
use crate::rule::compile::keys::Keys;
use crate::rule::diagnose::{Diagnostic, Span, nearest};
use crate::rule::schema;
use crate::rule::yaml::{Entry, Key, Node, Yaml};

/// What an override does at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Set,
    Append,
}

impl Compiler<'_> {
    /// Applies the overrides in the order of files.
    pub(super) fn override_trees(&mut self) {
        for node in std::mem::take(&mut self.overrides) {
            self.apply_override(&node);
        }
    }

    fn apply_override(&mut self, node: &Node) {
        let Some(keys) = Keys::open(self, node, &schema::OVERRIDE) else { return };
        let targets: Vec<(&str, &Node)> =
            ["rule", "list", "tag"].into_iter().filter_map(|kind| Some((kind, keys.get(kind)?))).collect();
        let [(kind, target)] = targets.as_slice() else {
            let span = node.entries().and_then(<[Entry]>::first).map_or(node.span, |entry| entry.key.span);
            let found =
                Diagnostic::new(&code::OVERRIDE_TARGET, span, "an override has one target: `rule`, `list` or `tag`");
            self.push(found);
            return;
        };
        let Some(name) = self.text(target).map(str::to_owned) else { return };
        if keys.get("set").is_none() && keys.get("append").is_none() {
            self.push(
                Diagnostic::new(&code::MISSING_KEY, target.span, "the override changes nothing")
                    .help("add `set` or `append`"),
            );
        }
        for (key, change) in [("set", Change::Set), ("append", Change::Append)] {
            let Some(changes) = keys.get(key) else { continue };
            for entry in self.expect_mapping(changes).unwrap_or_default() {
                self.apply(kind, &name, target.span, entry, change);
            }
        }
    }

    fn apply(&mut self, kind: &str, name: &str, span: Span, entry: &Entry, change: Change) {
        match kind {
            "list" => {
                if self.lists.get(name).is_some_and(|list| list.builtin) || !self.lists.contains_key(name) {
                    let names: Vec<String> =
                        self.lists.iter().filter(|(_, list)| !list.builtin).map(|(name, _)| name.clone()).collect();
                    let builtin = self.lists.contains_key(name);
                    let message = if builtin {
                        format!("`{name}` is built in and cannot be changed")
                    } else {
                        format!("there is no list `{name}`")
                    };
                    let found = Diagnostic::new(&code::OVERRIDE_TARGET, span, message)
                        .suggest(name, names.iter().map(String::as_str));
                    let found = if builtin {
                        found.help(format!("make a list of your own with `items: [${name}, ...]`"))
                    } else {
                        found
                    };
                    self.push(found);
                    return;
                }
                let mut problems = Vec::new();
                if let Some(list) = self.lists.get_mut(name) {
                    problems.extend(change_at(&mut list.node, entry, change, &schema::LIST));
                }
                problems.into_iter().for_each(|problem| self.push(problem));
            }
            _ => {
                let matches = |node: &Node| match kind {
                    "rule" => node.child("id").and_then(Node::text) == Some(name),
                    _ => match node.child("tags") {
                        Some(Node { value: Yaml::Sequence(tags), .. }) => {
                            tags.iter().any(|tag| tag.text() == Some(name))
                        }
                        Some(tag) => tag.text() == Some(name),
                        None => false,
                    },
                };
                let mut problems = Vec::new();
                let mut found = false;
                for item in self.rules.iter_mut().filter(|item| matches(&item.node)) {
                    found = true;
                    problems.extend(change_at(&mut item.node, entry, change, &schema::RULE));
                }
                problems.dedup_by(|a, b| a.message == b.message);
                problems.into_iter().for_each(|problem| self.push(problem));
                if !found {
                    let key = if kind == "rule" { "id" } else { "tags" };
                    let mut names: Vec<String> = Vec::new();
                    for item in &self.rules {
                        match item.node.child(key).map(|node| &node.value) {
                            Some(Yaml::Sequence(tags)) => {
                                names.extend(tags.iter().filter_map(Node::text).map(str::to_owned))
                            }
                            Some(Yaml::Scalar { text, .. }) => names.push(text.clone()),
                            _ => {}
                        }
                    }
                    let message = if kind == "rule" {
                        format!("there is no rule `{name}`")
                    } else {
                        format!("no rule has the tag `{name}`")
                    };
                    let found = Diagnostic::new(&code::OVERRIDE_TARGET, span, message)
                        .suggest(name, names.iter().map(String::as_str));
                    self.push(found);
                }
            }
        }
    }
}

/// Changes the value at the path that the entry's key names.
fn change_at(root: &mut Node, entry: &Entry, change: Change, table: &'static schema::Table) -> Option<Diagnostic> {
    let path = &entry.key.text;
    let complain = |message: String| Some(Diagnostic::new(&code::OVERRIDE_PATH, entry.key.span, message));
    let steps = split_path(root, path);
    let first = steps.first().map_or("", String::as_str);
    if table.key(first).is_none() {
        let mut found =
            Diagnostic::new(&code::OVERRIDE_PATH, entry.key.span, format!("{} has no key `{first}`", table.name));
        if let Some(meant) = nearest(first, table.names()) {
            found = found.help(format!("did you mean `{}`?", path.replacen(first, meant, 1)));
        }
        return Some(found);
    }
    let mut node = root;
    let mut walked = String::new();
    let count = steps.len();
    for (index, step) in steps.iter().enumerate() {
        let last = index + 1 == count;
        match &mut node.value {
            Yaml::Mapping(entries) => {
                let position = entries.iter().position(|entry| entry.key.text == *step);
                let position = match position {
                    Some(position) => position,
                    None if last || change == Change::Set || change == Change::Append => {
                        let value = if last && change == Change::Append {
                            Yaml::Sequence(Vec::new())
                        } else {
                            Yaml::Mapping(Vec::new())
                        };
                        entries.push(Entry {
                            key: Key { text: step.clone(), span: entry.key.span },
                            value: Node { span: entry.value.span, value },
                        });
                        entries.len() - 1
                    }
                    None => return complain(format!("`{walked}` has no `{step}`")),
                };
                let Some(next) = entries.get_mut(position) else {
                    return complain(format!("`{walked}` has no `{step}`"));
                };
                node = &mut next.value;
            }
            Yaml::Sequence(elements) => {
                // `when` may be written as one mapping: its only element is number 0.
                let named =
                    elements.iter().position(|element| element.child("name").and_then(Node::text) == Some(step));
                let position = named.or_else(|| step.parse::<usize>().ok());
                let length = elements.len();
                match position.and_then(|position| elements.get_mut(position)) {
                    Some(next) => node = next,
                    None => return complain(format!("`{walked}` has {length} elements, and none is `{step}`")),
                }
            }
            Yaml::Scalar { .. } => return complain(format!("`{walked}` is a single value and has no `{step}`")),
        }
        if !walked.is_empty() {
            walked.push('.');
        }
        walked.push_str(step);
        if !last
            && step == "when"
            && matches!(node.value, Yaml::Mapping(_))
            && steps.get(index + 1).is_some_and(|next| next == "0")
        {
            let element = node.clone();
            node.value = Yaml::Sequence(vec![element]);
        }
    }
    match change {
        Change::Set => {
            *node = entry.value.clone();
            None
        }
        Change::Append => {
            let added = match &entry.value.value {
                Yaml::Sequence(elements) => elements.clone(),
                _ => vec![entry.value.clone()],
            };
            match &mut node.value {
                Yaml::Sequence(elements) => {
                    elements.extend(added);
                    None
                }
                Yaml::Scalar { .. } => {
                    let first = node.clone();
                    node.value = Yaml::Sequence(std::iter::once(first).chain(added).collect());
                    None
                }
                Yaml::Mapping(entries) if entries.is_empty() => {
                    node.value = Yaml::Sequence(added);
                    None
                }
                Yaml::Mapping(_) => complain(format!("`{walked}` is a mapping; only lists can be appended to")),
            }
        }
    }
}

/// The steps of a path. Keys may have dots (`dst.ip`): where a mapping has such a key, it is one step.
fn split_path(root: &Node, path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path;
    let mut node = Some(root);
    while !rest.is_empty() {
        let entries = node.and_then(Node::entries).unwrap_or_default();
        let known = entries
            .iter()
            .map(|entry| entry.key.text.as_str())
            .filter(|key| rest == *key || rest.strip_prefix(key).is_some_and(|after| after.starts_with('.')))
            .max_by_key(|key| key.len());
        let dotted = || {
            let names = crate::rule::Field::ALL.iter().map(|field| field.name()).filter(|name| name.contains('.'));
            names
                .filter(|name| rest == *name || rest.strip_prefix(name).is_some_and(|after| after.starts_with('.')))
                .max_by_key(|name| name.len())
        };
        let step = known.or_else(dotted).unwrap_or_else(|| rest.split('.').next().unwrap_or(rest));
        node = node.and_then(|node| match &node.value {
            Yaml::Mapping(_) => node.child(step),
            Yaml::Sequence(elements) => elements
                .iter()
                .find(|element| element.child("name").and_then(Node::text) == Some(step))
                .or_else(|| elements.get(step.parse::<usize>().ok()?)),
            Yaml::Scalar { .. } => None,
        });
        steps.push(step.to_owned());
        rest = rest.strip_prefix(step).unwrap_or_default().trim_start_matches('.');
    }
    steps
}
