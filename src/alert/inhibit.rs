//! Inhibition: an alert that explains others keeps them quiet while it fires.

use crate::alert::label::label_values;
use crate::alert::{Matcher, Notification};

/// While `source` fires, `target` is held back where `equal` labels are the same.
#[derive(Debug, Clone, Default)]
pub struct Inhibition {
    /// The alert that explains.
    pub source: Matcher,
    /// The alerts that it explains.
    pub target: Matcher,
    /// The labels that both must share.
    pub equal: Vec<String>,
}

impl Inhibition {
    /// The alert among `firing` that holds `notification` back.
    pub fn inhibiting<'a>(
        &self,
        notification: &Notification,
        mut firing: impl Iterator<Item = &'a Notification>,
    ) -> Option<&'a Notification> {
        if !self.target.matches(notification) {
            return None;
        }
        let same =
            |other: &Notification, label: &String| label_values(other, label) == label_values(notification, label);
        firing.find(|other| {
            // Nothing explains itself.
            other.key() != notification.key()
                && self.source.matches(other)
                && self.equal.iter().all(|label| same(other, label))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, AlertState, DocumentKind, RuleFacts};
    use crate::rule::{Metadata, Value};
    use crate::time::Timestamp;
    use std::sync::Arc;

    #[test]
    fn a_source_that_fires_holds_equal_targets_back() {
        let inhibition = Inhibition {
            source: Matcher::new([("rule", vec!["host-data-loss"])]).unwrap(),
            target: Matcher::new([("rule", vec!["*"])]).unwrap(),
            equal: vec!["user".into()],
        };
        let source = alert("host-data-loss", "alice");
        let held = |target: &Notification| inhibition.inhibiting(target, [&source].into_iter()).is_some();
        assert!(held(&alert("exfil", "alice")));
        assert!(!held(&alert("exfil", "bob")));
        assert!(!held(&source), "nothing explains itself");
        assert!(inhibition.inhibiting(&alert("exfil", "alice"), [].into_iter()).is_none());
    }

    fn alert(rule: &str, user: &str) -> Notification {
        let metadata = Arc::new(Metadata { id: rule.into(), ..Metadata::default() });
        let alert = Alert {
            state: AlertState { key: format!("{rule} {user}").into(), ..AlertState::default() },
            rule: RuleFacts { metadata, ..RuleFacts::default() },
            group: vec![("user", Value::Text(user.into()))],
            ..Alert::default()
        };
        Notification::of_alert(DocumentKind::Firing, Timestamp::EPOCH, alert)
    }
}
