//! Grouping: several alerts in one message, so that a storm does not bury anybody.
//!
//! The first alert of a group waits a moment for others; later changes wait
//! for an interval; an unchanged group that still fires is repeated. For each
//! alert only its last word is kept, so an alert that fired and resolved while
//! its group waited is said once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::alert::{DocumentKind, Notification, Reason};
use crate::time::Timestamp;

/// All groups of one output.
#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<Labels, Group>,
}

/// The labels that the alerts of a group have in common.
pub type Labels = Vec<(String, String)>;

/// How long groups wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// The first alert, for others.
    pub wait: Duration,
    /// A change, after the group was sent.
    pub interval: Duration,
    /// An unchanged group that still fires; `None` means that it is said once.
    pub repeat: Option<Duration>,
}

/// How much of an alert is said that changed several times while its group waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// The last word alone.
    Last,
    /// Each of them, in their order.
    Each,
}

/// A group that is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// What its alerts have in common.
    pub labels: Labels,
    /// Why it is due.
    pub reason: Reason,
    /// Its alerts: those that fire, and those that ended since it was last sent; the worst first.
    pub notifications: Vec<Arc<Notification>>,
    /// Further ones that are not listed.
    pub omitted: usize,
    /// The keys of all alerts whose news this is, the omitted ones among them.
    pub keys: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Group {
    waits: Waits,
    members: BTreeMap<Arc<str>, Member>,
    first: Timestamp,
    sent: Option<Timestamp>,
}

#[derive(Debug)]
struct Member {
    last: Arc<Notification>,
    /// What came before it and was not sent either.
    earlier: Vec<Arc<Notification>>,
    /// Whether this has not been sent yet.
    news: bool,
    /// Whether any word of this alert has been sent.
    known: bool,
}

impl Groups {
    /// Adds an alert's last word to its group.
    pub fn handle(
        &mut self,
        labels: Labels,
        waits: Waits,
        notification: Arc<Notification>,
        words: Words,
        now: Timestamp,
    ) {
        let group = self.groups.entry(labels).or_insert_with(|| Group {
            waits,
            members: BTreeMap::new(),
            first: now,
            sent: None,
        });
        group.waits = waits;
        if group.members.is_empty() {
            group.first = now;
        }
        let key: Arc<str> = notification.key().into();
        let before = group.members.remove(&key);
        let known = before.as_ref().is_some_and(|member| member.known);
        let unsaid = before.filter(|member| member.news && words == Words::Each);
        let mut earlier = unsaid.map_or_else(Vec::new, |mut member| {
            member.earlier.push(member.last);
            member.earlier
        });
        let beyond = earlier.len().saturating_sub(MOST_EARLIER);
        earlier.drain(..beyond);
        group.members.insert(key, Member { last: notification, earlier, news: true, known });
    }

    /// A group that is due now.
    pub fn poll(&mut self, now: Timestamp) -> Option<Due> {
        let labels = self.groups.iter().find(|(_, group)| group.due_at().is_some_and(|due| due <= now))?.0.clone();
        let group = self.groups.get_mut(&labels)?;
        let due = group.send(labels.clone(), now);
        if group.members.is_empty() {
            self.groups.remove(&labels);
        }
        Some(due)
    }

    /// When the next group is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.groups.values().filter_map(Group::due_at).min()
    }

    /// Makes every group with news due, as before the end.
    pub fn hurry(&mut self) {
        for group in self.groups.values_mut() {
            group.waits.wait = Duration::ZERO;
            group.waits.interval = Duration::ZERO;
            group.waits.repeat = None;
        }
    }

    /// Whatever was not sent yet, before all groups are given up.
    pub fn dissolve(&mut self, now: Timestamp) -> Vec<Due> {
        self.hurry();
        let news: Vec<Due> = std::iter::from_fn(|| self.poll(now)).collect();
        self.groups.clear();
        news
    }

    /// Whether any group has something to say.
    pub fn has_news(&self) -> bool {
        self.groups.values().any(|group| group.members.values().any(|member| member.news))
    }
}

impl Group {
    fn due_at(&self) -> Option<Timestamp> {
        let news = self.members.values().any(|member| member.news);
        match (self.sent, news) {
            (None, true) => Some(self.first.after(self.waits.wait)),
            (Some(sent), true) => Some(sent.after(self.waits.interval)),
            (Some(sent), false) => self.waits.repeat.map(|repeat| sent.after(repeat)),
            (None, false) => None,
        }
    }

    fn send(&mut self, labels: Labels, now: Timestamp) -> Due {
        let reason = self.reason();
        let keys = self.members.iter().filter(|(_, member)| member.news).map(|(key, _)| Arc::clone(key)).collect();
        let mut members: Vec<&Member> = self.members.values().collect();
        // The worst first, of equals those that fire, of equals the latest; what is last of all tells the rest.
        members.sort_by_key(|member| {
            (
                std::cmp::Reverse(member.last.severity()),
                member.last.kind.ends(),
                std::cmp::Reverse(member.last.timestamp),
            )
        });
        let words = |member: &&Member| member.earlier.iter().chain([&member.last]).map(Arc::clone).collect::<Vec<_>>();
        let mut notifications: Vec<Arc<Notification>> = members.iter().flat_map(words).collect();
        let omitted = notifications.len().saturating_sub(MOST_LISTED);
        notifications.truncate(MOST_LISTED);
        self.members.retain(|_, member| !member.last.kind.ends());
        for member in self.members.values_mut() {
            member.earlier.clear();
            member.news = false;
            member.known = true;
        }
        self.sent = Some(now);
        Due { labels, reason, notifications, omitted, keys }
    }

    fn reason(&self) -> Reason {
        let news: Vec<&Member> = self.members.values().filter(|member| member.news).collect();
        let alert_reason =
            |member: &&Member| member.last.alert.as_ref().map(|alert| alert.reason).filter(|_| member.known);
        if self.members.values().all(|member| member.last.kind.ends()) {
            return Reason::AllResolved;
        }
        if self.sent.is_none() {
            return Reason::First;
        }
        if news.is_empty() {
            return Reason::Repeat;
        }
        if news.iter().any(|member| !member.known && member.last.kind == DocumentKind::Firing) {
            return Reason::NewInGroup;
        }
        if let Some(reason) =
            news.iter().filter_map(alert_reason).find(|reason| matches!(reason, Reason::Escalation | Reason::Growth))
        {
            return reason;
        }
        if news.iter().any(|member| member.last.kind.ends()) { Reason::ResolvedSome } else { Reason::Repeat }
    }
}

/// Unsaid words of one alert that are kept beside its last.
const MOST_EARLIER: usize = 20;
/// Alerts that one message lists; further ones are counted.
const MOST_LISTED: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, AlertState};

    #[test]
    fn the_first_waits_and_later_changes_wait_for_the_interval() {
        let mut groups = Groups::default();
        say(&mut groups, "a", DocumentKind::Firing, 0);
        say(&mut groups, "b", DocumentKind::Firing, 5);
        assert_eq!(groups.poll_timeout(), Some(at(10)));
        assert!(groups.poll(at(9)).is_none());
        assert_eq!(sent(&mut groups, 10), ("a+ b+".to_owned(), Reason::First));
        say(&mut groups, "c", DocumentKind::Firing, 11);
        assert_eq!(groups.poll_timeout(), Some(at(130)));
        assert_eq!(sent(&mut groups, 130), ("a+ b+ c+".to_owned(), Reason::NewInGroup));
        say(&mut groups, "b", DocumentKind::Resolved, 140);
        assert_eq!(sent(&mut groups, 250), ("a+ b- c+".to_owned(), Reason::ResolvedSome));
        assert_eq!(groups.poll_timeout(), Some(at(250 + 14_400)));
        assert_eq!(sent(&mut groups, 250 + 14_400), ("a+ c+".to_owned(), Reason::Repeat));
        say(&mut groups, "a", DocumentKind::Resolved, 20_000);
        say(&mut groups, "c", DocumentKind::Withdrawn, 20_000);
        assert_eq!(sent(&mut groups, 20_000), ("a- c-".to_owned(), Reason::AllResolved));
        assert_eq!(groups.poll_timeout(), None);
    }

    #[test]
    fn what_fires_and_resolves_while_it_waits_is_said_once() {
        let mut groups = Groups::default();
        say(&mut groups, "a", DocumentKind::Firing, 0);
        say(&mut groups, "a", DocumentKind::Resolved, 3);
        assert_eq!(sent(&mut groups, 10), ("a-".to_owned(), Reason::AllResolved));
        assert!(!groups.has_news());
    }

    #[test]
    fn where_both_are_wanted_both_are_said_in_their_order() {
        let mut groups = Groups::default();
        say_as(&mut groups, Words::Each, "a", DocumentKind::Firing, 0);
        say_as(&mut groups, Words::Each, "a", DocumentKind::Resolved, 3);
        let kinds = |due: Due| due.notifications.iter().map(|one| one.kind).collect::<Vec<_>>();
        assert_eq!(kinds(groups.poll(at(10)).unwrap()), [DocumentKind::Firing, DocumentKind::Resolved]);
        say_as(&mut groups, Words::Each, "a", DocumentKind::Firing, 20);
        assert_eq!(kinds(groups.poll(at(200)).unwrap()), [DocumentKind::Firing], "what was said is not said again");
    }

    #[test]
    fn a_storm_is_listed_in_part_and_counted_in_full() {
        let mut groups = Groups::default();
        for index in 0..10_000 {
            say(&mut groups, &format!("{index:05}"), DocumentKind::Firing, 0);
        }
        let due = groups.poll(at(10)).unwrap();
        assert_eq!((due.notifications.len(), due.omitted, due.keys.len()), (50, 9_950, 10_000));
    }

    fn say(groups: &mut Groups, key: &str, kind: DocumentKind, seconds: i64) {
        say_as(groups, Words::Last, key, kind, seconds);
    }

    fn say_as(groups: &mut Groups, words: Words, key: &str, kind: DocumentKind, seconds: i64) {
        let alert = Alert { state: AlertState { key: key.into(), ..AlertState::default() }, ..Alert::default() };
        let notification = Arc::new(Notification::of_alert(kind, at(0), alert));
        let waits = Waits {
            wait: Duration::from_secs(10),
            interval: Duration::from_secs(120),
            repeat: Some(Duration::from_secs(14_400)),
        };
        groups.handle(vec![("rule".into(), "x".into())], waits, notification, words, at(seconds));
    }

    fn sent(groups: &mut Groups, seconds: i64) -> (String, Reason) {
        let due = groups.poll(at(seconds)).unwrap();
        let mut said: Vec<String> = due
            .notifications
            .iter()
            .map(|notification| format!("{}{}", notification.key(), if notification.kind.ends() { '-' } else { '+' }))
            .collect();
        said.sort();
        (said.join(" "), due.reason)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }
}
