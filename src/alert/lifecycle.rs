//! The life of an alert: inactive, pending, firing, recovering, resolved, cooldown.
//!
//! Pure: a step takes what holds at a tick and says what changed.

use std::sync::Arc;
use std::time::Duration;

use crate::alert::Reason;
use crate::rule::{Life, Quantity, Value};
use crate::time::Timestamp;

/// How an alert stands between two ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", tag = "stage")]
pub enum Stage {
    /// The conditions hold, not yet for long enough.
    Pending {
        /// Since when.
        since: Timestamp,
    },
    /// They hold.
    Firing,
    /// They no longer hold, not yet for long enough.
    Recovering {
        /// Since when.
        since: Timestamp,
    },
    /// They hold again too soon after the last alert: nothing is said.
    Cooling,
}

/// One alert of one rule and group.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Lifecycle {
    stage: Stage,
    /// When the conditions first held.
    pub started_at: Timestamp,
    /// When it fired.
    pub fired_at: Option<Timestamp>,
    /// This episode's own id; empty before it fires.
    pub uid: String,
    /// The number of this episode.
    pub episode: u64,
    /// The index of the escalation that holds.
    pub escalation: Option<usize>,
    /// Whether receivers were told that it fires.
    pub announced: bool,
    /// What was held back since.
    pub suppressed: u64,
    last_said: Timestamp,
    wait: Duration,
    said_value: f64,
}

/// What holds for an alert at a tick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Findings {
    /// The rule's trigger.
    pub holds: bool,
    /// Every condition that must hold for it to resolve.
    pub may_resolve: bool,
    /// The last escalation whose conditions hold.
    pub escalation: Option<usize>,
    /// The value that growth is measured by.
    pub value: Option<Quantity>,
    /// Whether a further step of a quota was reached.
    pub grown: bool,
    /// Until when the group stays quiet after its last alert.
    pub quiet_until: Option<Timestamp>,
}

/// What a step changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing that anybody is told.
    None,
    /// It began to fire.
    Fired,
    /// It is said again, or louder.
    Updated(Reason),
    /// It ended.
    Resolved,
    /// It ended before it fired, and can be forgotten.
    Forgotten,
}

impl Lifecycle {
    /// A new life, which begins because the conditions hold.
    pub fn begin(now: Timestamp, episode: u64) -> Self {
        Self {
            stage: Stage::Pending { since: now },
            started_at: now,
            fired_at: None,
            uid: String::new(),
            episode,
            escalation: None,
            announced: false,
            suppressed: 0,
            last_said: now,
            wait: Duration::ZERO,
            said_value: 0.0,
        }
    }

    /// How it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether it fires or recovers.
    pub fn is_firing(&self) -> bool {
        matches!(self.stage, Stage::Firing | Stage::Recovering { .. })
    }

    /// Moves on by one tick.
    pub fn step(&mut self, now: Timestamp, life: &Life, found: &Findings) -> Step {
        match self.stage {
            Stage::Pending { .. } | Stage::Cooling if !found.holds => Step::Forgotten,
            Stage::Pending { .. } | Stage::Cooling if found.quiet_until.is_some_and(|until| now < until) => {
                if self.stage != Stage::Cooling {
                    self.stage = Stage::Cooling;
                    self.suppressed += 1;
                }
                Step::None
            }
            Stage::Cooling => {
                self.stage = Stage::Pending { since: now };
                self.started_at = now;
                self.step(now, life, found)
            }
            Stage::Pending { since } if now.since(since) < life.pending_for => Step::None,
            Stage::Pending { .. } => {
                self.stage = Stage::Firing;
                self.fired_at = Some(now);
                self.escalation = found.escalation;
                self.said(now, found);
                self.wait = life.realert.and_then(|realert| realert.every).unwrap_or(Duration::ZERO);
                Step::Fired
            }
            Stage::Firing | Stage::Recovering { .. } if found.holds || !found.may_resolve => {
                self.stage = Stage::Firing;
                self.say_again(now, life, found)
            }
            Stage::Firing if life.keep_firing_for.is_zero() => Step::Resolved,
            Stage::Firing => {
                self.stage = Stage::Recovering { since: now };
                Step::None
            }
            Stage::Recovering { since } if now.since(since) >= life.keep_firing_for => Step::Resolved,
            Stage::Recovering { .. } => Step::None,
        }
    }

    fn say_again(&mut self, now: Timestamp, life: &Life, found: &Findings) -> Step {
        if found.escalation > self.escalation {
            self.escalation = found.escalation;
            self.said(now, found);
            return Step::Updated(Reason::Escalation);
        }
        if found.grown {
            self.said(now, found);
            return Step::Updated(Reason::Growth);
        }
        let Some(realert) = life.realert else { return Step::None };
        let value = found.value.map_or(0.0, Quantity::as_f64);
        if realert.on_growth.is_some_and(|factor| self.said_value > 0.0 && value >= self.said_value * factor) {
            self.said(now, found);
            return Step::Updated(Reason::Growth);
        }
        if realert.every.is_some() && now.since(self.last_said) >= self.wait {
            self.said(now, found);
            self.wait = match realert.max_every {
                Some(most) => (self.wait * 2).min(most),
                None => self.wait,
            };
            return Step::Updated(Reason::Repeat);
        }
        Step::None
    }

    fn said(&mut self, now: Timestamp, found: &Findings) {
        self.last_said = now;
        self.said_value = found.value.map_or(0.0, Quantity::as_f64);
    }
}

/// The key of a rule and group: the same for every episode, on every host and after every restart.
pub fn alert_key(rule: &str, group: &[(&'static str, Value)]) -> Arc<str> {
    let digest = group_digest(rule, group);
    format!("b3:{}", &blake3::Hash::from_bytes(digest).to_hex()[..32]).into()
}

/// The digest of a rule and group.
pub fn group_digest(rule: &str, group: &[(&'static str, Value)]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(bytes);
    };
    part(rule.as_bytes());
    for (field, value) in group {
        part(field.as_bytes());
        match value {
            Value::Missing => part(b"missing"),
            Value::Number(number) => part(&number.to_le_bytes()),
            Value::Ip(address) => part(&address.octets()),
            Value::Text(text) => part(text),
            Value::List(list) => {
                part(b"list");
                list.iter().for_each(|item| part(item));
            }
        }
    }
    *hasher.finalize().as_bytes()
}

/// The id of one episode: a ULID whose random part comes from the content, so
/// that a replay gives the same one.
pub fn episode_uid(key: &str, episode: u64, fired_at: Timestamp) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&episode.to_le_bytes());
    hasher.update(&fired_at.as_nanos().to_le_bytes());
    let digest = hasher.finalize();
    let random = digest.as_bytes().iter().take(10).fold(0u128, |random, byte| random << 8 | u128::from(*byte));
    let millis = u64::try_from(fired_at.as_millis()).unwrap_or(0);
    ulid::Ulid::from_parts(millis, random).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Realert;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_secs(second)
    }

    fn run(life: &Life, seconds: impl IntoIterator<Item = (i64, bool)>) -> Vec<(i64, Step)> {
        let mut alert: Option<Lifecycle> = None;
        let mut quiet_until = None;
        let mut steps = Vec::new();
        for (second, holds) in seconds {
            if alert.is_none() && !holds {
                continue;
            }
            let alive = alert.get_or_insert_with(|| Lifecycle::begin(at(second), 1));
            let found = Findings { holds, may_resolve: !holds, quiet_until, ..Findings::default() };
            let step = alive.step(at(second), life, &found);
            if step == Step::Resolved {
                quiet_until = Some(at(second).after(life.cooldown));
            }
            if matches!(step, Step::Resolved | Step::Forgotten) {
                alert = None;
            }
            if !matches!(step, Step::None | Step::Forgotten) {
                steps.push((second, step));
            }
        }
        steps
    }

    #[test]
    fn it_fires_at_once_and_resolves_at_once() {
        let steps = run(&Life::default(), [(1, true), (2, true), (3, false), (4, false)]);
        assert_eq!(steps, [(1, Step::Fired), (3, Step::Resolved)]);
    }

    #[test]
    fn a_short_excess_stays_pending() {
        let life = Life { pending_for: Duration::from_secs(3), ..Life::default() };
        assert_eq!(run(&life, [(1, true), (2, true), (3, false), (4, true), (6, true)]), []);
        assert_eq!(run(&life, [(1, true), (2, true), (3, true), (4, true)]), [(4, Step::Fired)]);
    }

    #[test]
    fn it_keeps_firing_through_a_pause() {
        let life = Life { keep_firing_for: Duration::from_secs(5), ..Life::default() };
        let seconds = (1..30).map(|second| (second, second % 4 == 1 && second < 20));
        assert_eq!(run(&life, seconds), [(1, Step::Fired), (23, Step::Resolved)]);
    }

    #[test]
    fn after_the_cooldown_it_fires_if_it_still_holds() {
        let life = Life { cooldown: Duration::from_secs(10), ..Life::default() };
        let steps = run(&life, (1..20).map(|second| (second, second != 2)));
        assert_eq!(steps, [(1, Step::Fired), (2, Step::Resolved), (12, Step::Fired)]);
    }

    #[test]
    fn repeats_come_further_and_further_apart() {
        let realert =
            Realert { every: Some(Duration::from_secs(10)), on_growth: None, max_every: Some(Duration::from_secs(30)) };
        let life = Life { realert: Some(realert), ..Life::default() };
        let seconds: Vec<i64> = run(&life, (0..100).map(|second| (second, true))).iter().map(|step| step.0).collect();
        assert_eq!(seconds, [0, 10, 30, 60, 90]);
    }

    #[test]
    fn ids_come_from_content() {
        let group = [("exe", Value::Text("/usr/bin/curl".into()))];
        let key = alert_key("upload", &group);
        assert_eq!(key, alert_key("upload", &group));
        assert_ne!(key, alert_key("upload", &[("exe", Value::Missing)]));
        assert!(key.starts_with("b3:") && key.len() == 35, "{key}");
        let uid = episode_uid(&key, 1, at(1_777_860_669));
        assert_eq!(uid.len(), 26);
        assert_ne!(uid, episode_uid(&key, 2, at(1_777_860_669)));
    }
}
