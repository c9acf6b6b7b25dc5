//! What a notification can be told apart by: the labels that routes, silences
//! and inhibitions match.

use std::borrow::Cow;
use std::collections::BTreeMap;

use globset::{Glob, GlobMatcher};

use crate::alert::{Alert, DocumentKind, Notification};

/// Patterns by label: every label must match one of its patterns.
///
/// A pattern is a glob over the whole value; `*` also stands for `/`.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    wanted: BTreeMap<String, Vec<GlobMatcher>>,
}

/// A pattern that is no glob.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a pattern for `{label}`")]
pub struct PatternError {
    label: String,
    pattern: String,
    #[source]
    source: globset::Error,
}

impl Matcher {
    /// From the patterns as written.
    pub fn new<'a>(written: impl IntoIterator<Item = (&'a str, Vec<&'a str>)>) -> Result<Self, PatternError> {
        let mut wanted = BTreeMap::new();
        for (label, patterns) in written {
            let globs = patterns.into_iter().map(|pattern| {
                Glob::new(pattern).map(|glob| glob.compile_matcher()).map_err(|source| PatternError {
                    label: label.to_owned(),
                    pattern: pattern.to_owned(),
                    source,
                })
            });
            wanted.insert(label.to_owned(), globs.collect::<Result<_, _>>()?);
        }
        Ok(Self { wanted })
    }

    /// Whether every wanted label has a value that is wanted. No wish is met by anything.
    pub fn matches(&self, notification: &Notification) -> bool {
        self.wanted.iter().all(|(label, globs)| {
            label_values(notification, label).iter().any(|value| globs.iter().any(|glob| glob.is_match(&**value)))
        })
    }

    /// Whether it wants nothing, and so matches everything.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}

/// The values of one label; none where the notification has no such label.
pub fn label_values<'a>(notification: &'a Notification, label: &str) -> Vec<Cow<'a, str>> {
    match label {
        "type" => return vec![notification.kind.name().into()],
        "severity" => return vec![notification.severity().name().into()],
        _ => {}
    }
    if let Some(alert) = &notification.alert {
        return alert_values(alert, label);
    }
    match (&notification.problem, label) {
        (Some(problem), "rule" | "problem") => vec![problem.id.into()],
        _ => Vec::new(),
    }
}

fn alert_values<'a>(alert: &'a Alert, label: &str) -> Vec<Cow<'a, str>> {
    let rule = &alert.rule.metadata;
    let one = |text: &'a str| vec![Cow::Borrowed(text)];
    let maybe = |text: Option<&'a str>| text.map(Cow::Borrowed).into_iter().collect();
    if let Some((_, value)) = alert.group.iter().find(|(field, _)| *field == label) {
        return vec![value.to_string().into()];
    }
    match label {
        "rule" => one(&rule.id),
        "tags" => rule.tags.iter().map(|tag| Cow::Borrowed(tag.as_str())).collect(),
        "attack" => rule.attack.iter().map(|technique| Cow::Borrowed(technique.as_str())).collect(),
        "pack" => maybe(rule.pack.as_deref()),
        "owner" => maybe(rule.owner.as_deref()),
        "state" => one(alert.state.state),
        "key" => one(&alert.state.key),
        "uid" => one(&alert.state.uid),
        "host" => one(&alert.host.name),
        "host.tags" => alert.host.tags.iter().map(|tag| Cow::Borrowed(&**tag)).collect(),
        "exe" => alert.process.iter().map(|process| process.executable.exe.to_string().into()).collect(),
        "cmdline" => alert.process.iter().map(|process| process.cmdline.to_string().into()).collect(),
        "unit" => maybe(alert.process.as_ref().and_then(|process| process.unit.as_deref())),
        "user" => maybe(alert.user.as_ref().and_then(|user| user.name.as_deref())),
        "container.id" => maybe(alert.container.as_ref().map(|container| &*container.id)),
        "container.name" => maybe(alert.container.as_ref().and_then(|container| container.name.as_deref())),
        "container.image" => maybe(alert.container.as_ref().and_then(|container| container.image.as_deref())),
        "dst.ip" => alert.destination.iter().map(|end| end.ip.to_string().into()).collect(),
        "dst.domain" => maybe(alert.destination.as_ref().and_then(|end| end.domain.as_deref())),
        "dst.registered_domain" => maybe(alert.destination.as_ref().and_then(|end| end.registered_domain.as_deref())),
        "dst.scope" => maybe(alert.destination.as_ref().map(|end| end.scope)),
        "dst.country" => maybe(alert.destination.as_ref().and_then(|end| end.country.as_deref())),
        _ => Vec::new(),
    }
}

/// The labels that [`label_values`] knows beside the fields of the rule's `group_by`.
pub const LABELS: &[&str] = &[
    "type",
    "severity",
    "problem",
    "rule",
    "tags",
    "attack",
    "pack",
    "owner",
    "state",
    "key",
    "uid",
    "host",
    "host.tags",
    "exe",
    "cmdline",
    "unit",
    "user",
    "container.id",
    "container.name",
    "container.image",
    "dst.ip",
    "dst.domain",
    "dst.registered_domain",
    "dst.scope",
    "dst.country",
];

impl DocumentKind {
    /// The word for it in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "alert.firing",
            Self::Updated => "alert.updated",
            Self::Resolved => "alert.resolved",
            Self::Withdrawn => "alert.withdrawn",
            Self::Flow => "alert.flow",
            Self::Heartbeat => "agent.heartbeat",
            Self::Problem => "agent.problem",
            Self::Test => "test",
        }
    }

    /// The kind of a word that [`DocumentKind::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Firing,
            Self::Updated,
            Self::Resolved,
            Self::Withdrawn,
            Self::Flow,
            Self::Heartbeat,
            Self::Problem,
            Self::Test,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it ends an alert.
    pub fn ends(self) -> bool {
        matches!(self, Self::Resolved | Self::Withdrawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Problem, RuleFacts};
    use crate::rule::{Metadata, Severity};
    use std::sync::Arc;

    #[test]
    fn every_label_must_match_one_of_its_patterns() {
        let rule = Metadata {
            id: "exfil-cloud".into(),
            severity: Severity::High,
            tags: vec!["cloud".into(), "exfiltration".into()],
            ..Metadata::default()
        };
        let alert = Alert {
            rule: RuleFacts { metadata: Arc::new(rule), ..RuleFacts::default() },
            group: vec![("user", crate::rule::Value::Text("alice".into()))],
            ..Alert::default()
        };
        let seen = Notification::of_alert(DocumentKind::Firing, crate::time::Timestamp::EPOCH, alert);
        let matches = |written: &[(&'static str, &[&'static str])]| {
            Matcher::new(written.iter().map(|(label, patterns)| (*label, patterns.to_vec()))).unwrap().matches(&seen)
        };
        assert!(matches(&[]));
        assert!(matches(&[("rule", &["exfil-*"]), ("severity", &["critical", "high"])]));
        assert!(matches(&[("tags", &["exfiltration"]), ("user", &["al?ce"])]));
        assert!(!matches(&[("rule", &["exfil-*"]), ("severity", &["critical"])]));
        assert!(!matches(&[("container.name", &["*"])]), "a label without a value matches nothing");
        assert!(matches(&[("type", &["alert.*"])]));
    }

    #[test]
    fn a_problem_has_labels_too() {
        let problem = Problem { id: "capture-drops", severity: Severity::High, ..Problem::default() };
        let seen = Notification::of_problem(crate::time::Timestamp::EPOCH, problem);
        let matcher = Matcher::new([("problem", vec!["capture-*"]), ("type", vec!["agent.problem"])]).unwrap();
        assert!(matcher.matches(&seen));
        assert!(Matcher::new([("rule", vec!["a{b"])]).is_err());
    }
}
