//! Silences: what an operator does not want to hear of for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alert::{Matcher, Notification, PatternError};
use crate::time::Timestamp;

/// One silence.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Silence {
    /// Names it.
    pub id: String,
    /// Patterns by label; all labels must match.
    pub matchers: BTreeMap<String, Vec<String>>,
    /// From when on it holds.
    pub starts_at: Timestamp,
    /// When it ends; `None` until the alerts that it silences are resolved.
    pub ends_at: Option<Timestamp>,
    /// Who wanted it.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// Why a silence is refused.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
    /// It would silence everything.
    #[error("a silence needs at least one matcher such as `rule=exfil-*`")]
    NoMatcher,
    /// Nobody could ask.
    #[error("a silence needs an author and a reason")]
    Anonymous,
    /// It ends before it begins.
    #[error("a silence must end after it begins")]
    Empty,
    /// Too long.
    #[error("a silence may last {longest:?} at most")]
    TooLong {
        /// The limit.
        longest: Duration,
    },
    /// A pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Not one of the labels.
    #[error("`{0}` is no label; known are rule, severity, tags, exe, user and the fields of rules")]
    Label(String),
}

/// All silences, the ended ones for as long as they are kept.
#[derive(Debug, Default)]
pub struct Silences {
    silences: BTreeMap<String, (Silence, Matcher)>,
}

impl Silences {
    /// Adds or replaces a silence.
    pub fn add(&mut self, silence: Silence) -> Result<(), SilenceError> {
        let matcher = compile(&silence)?;
        self.silences.insert(silence.id.clone(), (silence, matcher));
        Ok(())
    }

    /// The silence that holds a notification back now.
    pub fn silencing(&self, notification: &Notification, now: Timestamp) -> Option<&Silence> {
        let holds = |(silence, matcher): &&(Silence, Matcher)| silence.is_active(now) && matcher.matches(notification);
        self.silences.values().find(holds).map(|(silence, _)| silence)
    }

    /// Ends a silence now; `None` where there is none of that id.
    pub fn expire(&mut self, id: &str, now: Timestamp) -> Option<Silence> {
        let (silence, _) = self.silences.get_mut(id)?;
        silence.ends_at = Some(silence.ends_at.map_or(now, |ends| ends.min(now)));
        Some(silence.clone())
    }

    /// Ends silences that waited for a resolution: `resolved` has come, and `firing` goes on.
    pub fn handle_resolution<'a>(
        &mut self,
        resolved: &Notification,
        firing: impl Iterator<Item = &'a Notification> + Clone,
        now: Timestamp,
    ) -> Vec<Silence> {
        let mut ended = Vec::new();
        for (silence, matcher) in self.silences.values_mut() {
            let done = silence.ends_at.is_none()
                && matcher.matches(resolved)
                && !firing.clone().any(|other| matcher.matches(other));
            if done {
                silence.ends_at = Some(now);
                ended.push(silence.clone());
            }
        }
        ended
    }

    /// Forgets silences that ended before `before`.
    pub fn prune(&mut self, before: Timestamp) {
        self.silences.retain(|_, (silence, _)| silence.ends_at.is_none_or(|ends| ends >= before));
    }

    /// Takes those of the configuration, whose ids begin so, in place of the earlier ones. What an operator ended
    /// stays ended.
    pub fn replace_configured(&mut self, configured: Self, beginning: &str) {
        self.silences.retain(|id, _| !id.starts_with(beginning) || configured.silences.contains_key(id));
        for (id, silence) in configured.silences {
            self.silences.entry(id).or_insert(silence);
        }
    }

    /// When the next one begins or ends.
    pub fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let moments = self.silences.values().flat_map(|(silence, _)| [Some(silence.starts_at), silence.ends_at]);
        moments.flatten().filter(|moment| *moment > now).min()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.silences.values().map(|(silence, _)| silence)
    }
}

impl Silence {
    /// Whether it holds now.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.starts_at <= now && self.ends_at.is_none_or(|ends| now < ends)
    }

    /// Whether an operator may make it.
    pub fn check(&self, longest: Duration) -> Result<(), SilenceError> {
        if self.author.trim().is_empty() || self.reason.trim().is_empty() {
            return Err(SilenceError::Anonymous);
        }
        if let Some(ends) = self.ends_at {
            if ends <= self.starts_at {
                return Err(SilenceError::Empty);
            }
            if ends.since(self.starts_at) > longest {
                return Err(SilenceError::TooLong { longest });
            }
        }
        for label in self.matchers.keys() {
            let known = crate::alert::LABELS.contains(&label.as_str());
            if !known && crate::rule::Field::from_name(label).is_none() {
                return Err(SilenceError::Label(label.clone()));
            }
        }
        compile(self).map(|_| ())
    }
}

fn compile(silence: &Silence) -> Result<Matcher, SilenceError> {
    if silence.matchers.is_empty() {
        return Err(SilenceError::NoMatcher);
    }
    let written = silence
        .matchers
        .iter()
        .map(|(label, patterns)| (label.as_str(), patterns.iter().map(String::as_str).collect::<Vec<_>>()));
    Ok(Matcher::new(written)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, DocumentKind, RuleFacts};
    use crate::rule::Metadata;
    use std::sync::Arc;

    #[test]
    fn a_silence_holds_between_its_ends() {
        let mut silences = Silences::default();
        silences.add(silence("1", Some(20))).unwrap();
        let holds = |silences: &Silences, second| silences.silencing(&alert("exfil-x"), at(second)).is_some();
        assert_eq!([9, 10, 19, 20].map(|second| holds(&silences, second)), [false, true, true, false]);
        assert!(silences.silencing(&alert("beacon"), at(15)).is_none());
        assert_eq!(silences.poll_timeout(at(0)), Some(at(10)));
        assert_eq!(silences.poll_timeout(at(10)), Some(at(20)));
        silences.expire("1", at(12)).unwrap();
        assert!(!holds(&silences, 15));
        silences.prune(at(13));
        assert_eq!(silences.iter().count(), 0);
    }

    #[test]
    fn until_resolved_ends_with_the_last_alert() {
        let mut silences = Silences::default();
        silences.add(silence("1", None)).unwrap();
        let other = alert("exfil-y");
        assert!(silences.handle_resolution(&alert("exfil-x"), [&other].into_iter(), at(30)).is_empty());
        assert_eq!(silences.handle_resolution(&other, [].into_iter(), at(40)).len(), 1);
        assert!(silences.silencing(&other, at(40)).is_none());
    }

    #[test]
    fn careless_silences_are_refused() {
        let day = Duration::from_secs(86_400);
        let error = |change: fn(&mut Silence)| {
            let mut silence = silence("1", Some(20));
            change(&mut silence);
            silence.check(day).unwrap_err().to_string()
        };
        assert!(silence("1", Some(20)).check(day).is_ok());
        assert!(error(|silence| silence.matchers.clear()).contains("at least one matcher"));
        assert!(error(|silence| silence.reason = " ".into()).contains("author and a reason"));
        assert!(error(|silence| silence.ends_at = Some(at(10))).contains("end after"));
        assert!(error(|silence| silence.ends_at = Some(at(100_000))).contains("may last"));
        assert!(error(|silence| silence.matchers = [("rul".into(), vec!["x".into()])].into()).contains("`rul`"));
        assert!(error(|silence| silence.matchers = [("rule".into(), vec!["a{".into()])].into()).contains("a{"));
    }

    fn silence(id: &str, ends: Option<i64>) -> Silence {
        Silence {
            id: id.into(),
            matchers: [("rule".to_owned(), vec!["exfil-*".to_owned()])].into(),
            starts_at: at(10),
            ends_at: ends.map(at),
            author: "alice".into(),
            reason: "laptop migration".into(),
        }
    }

    fn alert(rule: &str) -> Notification {
        let metadata = Arc::new(Metadata { id: rule.into(), ..Metadata::default() });
        let rule = RuleFacts { metadata, ..RuleFacts::default() };
        Notification::of_alert(DocumentKind::Firing, at(0), Alert { rule, ..Alert::default() })
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }
}
