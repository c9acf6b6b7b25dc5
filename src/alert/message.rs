//! What one delivery says: one notification, or several that were put together.
//!
//! Pure.

use std::sync::Arc;

use crate::alert::{DocumentKind, Due, Notification, Reason};
use crate::rule::{Host, Severity};
use crate::time::Timestamp;

/// One or several notifications for one output.
#[derive(Debug, Clone)]
pub struct Message {
    /// A ULID made from the content, so that the same message has the same id whenever it is made.
    pub id: Arc<str>,
    /// When it happened; of several, the last.
    pub timestamp: Timestamp,
    /// Why it is sent.
    pub reason: Reason,
    /// The labels that the notifications of a group have in common; empty outside groups.
    pub group: Vec<(String, String)>,
    /// What is said, the worst first; never empty.
    pub notifications: Vec<Arc<Notification>>,
    /// How many more notifications the group has than are listed.
    pub omitted: usize,
    /// Why receivers other than audit ones do not get it, where that is so.
    pub suppressed: Option<Arc<str>>,
}

/// Who says it: the same for all messages of a run.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// This host.
    pub host: Host,
    /// The process id of this program.
    pub pid: u32,
}

impl Message {
    /// One notification for one output.
    pub fn single(output: &str, notification: Arc<Notification>) -> Self {
        let reason = notification.alert.as_ref().map_or(Reason::First, |alert| alert.reason);
        Self {
            id: message_id(output, std::slice::from_ref(&notification)),
            timestamp: notification.timestamp,
            reason,
            group: Vec::new(),
            notifications: vec![notification],
            omitted: 0,
            suppressed: None,
        }
    }

    /// A group for one output, sent at `now`.
    pub fn of_group(output: &str, due: Due, now: Timestamp) -> Self {
        let Due { labels, reason, notifications, omitted, .. } = due;
        // A repetition has the content of what it repeats, and is another message all the same.
        let id = message_id(&format!("{output} {}", now.as_nanos()), &notifications);
        let timestamp = notifications.iter().map(|notification| notification.timestamp).max().unwrap_or(now);
        Self { id, timestamp, reason, group: labels, notifications, omitted, suppressed: None }
    }

    /// The notification that stands for the others: the only one, or the worst.
    pub fn headline(&self) -> &Notification {
        self.notifications.first().expect("a message is never made without a notification")
    }

    /// What the order of delivery is kept for: the alert, or the whole group.
    pub fn key(&self) -> String {
        if self.group.is_empty() {
            return self.headline().key().to_owned();
        }
        let labels: Vec<String> = self.group.iter().map(|(label, value)| format!("{label}={value}")).collect();
        format!("group {}", labels.join(","))
    }

    /// The worst severity of all.
    pub fn severity(&self) -> Severity {
        self.notifications.iter().map(|notification| notification.severity()).max().unwrap_or_default()
    }

    /// What kind of thing it says: resolved only where every alert is.
    pub fn kind(&self) -> DocumentKind {
        let firing = self.notifications.iter().find(|notification| !notification.kind.ends());
        firing.map_or_else(|| self.headline().kind, |notification| notification.kind)
    }
}

/// A ULID whose time is the last notification's, and whose other bits come from all of the content that
/// tells messages apart.
pub fn message_id(output: &str, notifications: &[Arc<Notification>]) -> Arc<str> {
    let mut hash = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(output.as_bytes());
    let mut last = Timestamp::EPOCH;
    for notification in notifications {
        last = last.max(notification.timestamp);
        field(notification.kind.name().as_bytes());
        field(&notification.timestamp.as_nanos().to_le_bytes());
        field(notification.key().as_bytes());
        field(notification.summary().as_bytes());
        if let Some(alert) = &notification.alert {
            field(alert.state.uid.as_bytes());
            if notification.kind == DocumentKind::Flow {
                alert.flows.iter().for_each(|flow| field(flow.uid.as_bytes()));
            }
        }
    }
    let random = hash.finalize().as_bytes().iter().take(10).fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let millis = u64::try_from(last.as_millis()).unwrap_or(0);
    ulid::Ulid::from_parts(millis, random).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Problem;

    #[test]
    fn the_same_content_has_the_same_id_and_ids_sort_by_time() {
        let problem = |seconds| {
            let problem = Problem { id: "capture-drops", ..Problem::default() };
            Arc::new(Notification::of_problem(Timestamp::from_secs(seconds), problem))
        };
        let id = |output, seconds| Message::single(output, problem(seconds)).id;
        assert_eq!(id("soc", 1), id("soc", 1));
        assert_ne!(id("soc", 1), id("mail", 1));
        assert!(id("soc", 1) < id("soc", 2));
        assert_eq!(id("soc", 1).len(), 26);
    }
}
