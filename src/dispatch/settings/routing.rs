//! Who gets what, and how alerts are put together, as it is written.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::dispatch::settings::values::duration_option;

/// Who gets what.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingSettings {
    /// What holds where a route says nothing else.
    pub defaults: RouteDefaults,
    /// Tried from first to last; the first that matches and does not `continue` ends the search.
    pub routes: Vec<RouteSettings>,
    /// Gets what nothing else took.
    pub fallback: Vec<String>,
    /// Times of the week by name, for `active` of routes.
    pub schedules: BTreeMap<String, ScheduleSettings>,
}

/// A time of the week.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSettings {
    /// The time zone; this host's where it is not given.
    pub tz: Option<String>,
    /// Days such as `mon-fri`; every day where none is given.
    pub weekdays: Option<OneOrMany>,
    /// Times such as `07:00-19:00`; all day where none is given.
    pub times: Option<OneOrMany>,
    /// Days of the month such as `1-7`, or `-1` for the last; all where none is given.
    pub days_of_month: Option<OneOrMany>,
    /// Months such as `jan-mar`; all where none is given.
    pub months: Option<OneOrMany>,
    /// Years such as `2026`; all where none is given.
    pub years: Option<OneOrMany>,
    /// Days such as `2026-12-31` that do not count.
    pub holidays: Option<OneOrMany>,
}

/// When a route is tried; outside that time the search goes on as if the route were not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActiveSettings {
    /// Only during one of these schedules.
    pub during: Option<OneOrMany>,
    /// Never during one of these.
    pub except: Option<OneOrMany>,
}

/// What holds where a route says nothing else.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteDefaults {
    /// Get whatever reaches the end of the routes.
    pub outputs: Vec<String>,
    /// Labels that must be the same in one group.
    pub group_by: Option<Vec<String>>,
    /// How long the first alert of a group waits for others.
    #[serde(with = "duration_option")]
    pub group_wait: Option<Duration>,
    /// How long a group that was sent waits before it is sent with changes.
    #[serde(with = "duration_option")]
    pub group_interval: Option<Duration>,
    /// After which time an unchanged group is sent again.
    #[serde(with = "duration_option")]
    pub repeat: Option<Duration>,
}

/// One route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteSettings {
    /// Patterns by label; all labels must match one of their patterns.
    pub when: BTreeMap<String, OneOrMany>,
    /// When it is tried.
    pub active: ActiveSettings,
    /// Who gets it.
    pub outputs: Vec<String>,
    /// Whether later routes are tried as well.
    #[serde(rename = "continue")]
    pub goes_on: bool,
    /// Labels that must be the same in one group.
    pub group_by: Option<Vec<String>>,
    /// How long the first alert of a group waits for others.
    #[serde(with = "duration_option")]
    pub group_wait: Option<Duration>,
    /// How long a group that was sent waits before it is sent with changes.
    #[serde(with = "duration_option")]
    pub group_interval: Option<Duration>,
    /// After which time an unchanged group is sent again.
    #[serde(with = "duration_option")]
    pub repeat: Option<Duration>,
    /// Routes below this one, which inherit its wishes.
    pub routes: Vec<RouteSettings>,
}

/// How alerts are put together for outputs that group; `None` where nothing was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupSettings {
    /// Labels that must be the same in one group.
    pub by: Option<Vec<String>>,
    /// How long the first alert of a group waits for others.
    pub wait: Option<Duration>,
    /// How long a group that was sent waits before it is sent with changes.
    pub interval: Option<Duration>,
    /// After which time an unchanged group is sent again.
    pub repeat: Option<Duration>,
}

impl RouteDefaults {
    /// How alerts are put together.
    pub fn group(&self) -> GroupSettings {
        let Self { group_by: by, group_wait: wait, group_interval: interval, repeat, .. } = self.clone();
        GroupSettings { by, wait, interval, repeat }
    }
}

impl RouteSettings {
    /// How alerts are put together.
    pub fn group(&self) -> GroupSettings {
        let Self { group_by: by, group_wait: wait, group_interval: interval, repeat, .. } = self.clone();
        GroupSettings { by, wait, interval, repeat }
    }
}

impl GroupSettings {
    /// These wishes, and `outer` where there are none.
    pub fn or(&self, outer: &Self) -> Self {
        Self {
            by: self.by.clone().or_else(|| outer.by.clone()),
            wait: self.wait.or(outer.wait),
            interval: self.interval.or(outer.interval),
            repeat: self.repeat.or(outer.repeat),
        }
    }
}

/// A pattern or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several, of which one must match.
    Many(Vec<String>),
}

impl OneOrMany {
    /// As a list.
    pub fn as_list(&self) -> Vec<&str> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many.iter().map(String::as_str).collect(),
        }
    }
}
