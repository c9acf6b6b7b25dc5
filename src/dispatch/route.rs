//! Who gets a notification: the routing tree, the rule's own outputs, the fallback.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::alert::{Matcher, Notification, PatternError};
use crate::dispatch::settings::{GroupSettings, OneOrMany, RouteSettings, RoutingSettings, ScheduleSettings};
use crate::rule::{Active, Schedule, literal};
use crate::time::Timestamp;

/// The routing tree as it is meant.
#[derive(Debug, Clone)]
pub struct Router {
    routes: Vec<Route>,
    defaults: Vec<String>,
    defaults_group: GroupSettings,
    fallback: Vec<String>,
    every_output: Vec<String>,
}

#[derive(Debug, Clone)]
struct Route {
    when: Matcher,
    active: Active,
    outputs: Vec<String>,
    goes_on: bool,
    group: GroupSettings,
    below: Vec<Route>,
}

/// The outputs that get one notification, each with how it is grouped there.
pub type Receivers = BTreeMap<String, GroupSettings>;

/// What is wrong with the routing tree.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A name that no output has.
    #[error("{place} names the output `{name}`, which is not configured")]
    UnknownOutput {
        /// Where the name stands.
        place: String,
        /// The name.
        name: String,
    },
    /// A schedule that cannot be read.
    #[error("routing.schedules.{name}: {reason}")]
    Schedule {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that no schedule has.
    #[error("{place} names the schedule `{name}`, which is not under routing.schedules")]
    UnknownSchedule {
        /// Where the name stands.
        place: String,
        /// The name.
        name: String,
    },
    /// A pattern that cannot be read.
    #[error("{place}: {source}")]
    Pattern {
        /// Where the pattern stands.
        place: String,
        /// What is wrong with it.
        source: PatternError,
    },
}

impl Router {
    /// The tree for outputs of these names.
    pub fn new(settings: &RoutingSettings, outputs: &[String]) -> Result<Self, RouteError> {
        let known = |place: &str, names: &[String]| match names.iter().find(|name| !outputs.contains(name)) {
            Some(name) => Err(RouteError::UnknownOutput { place: place.to_owned(), name: name.clone() }),
            None => Ok(()),
        };
        known("routing.defaults.outputs", &settings.defaults.outputs)?;
        known("routing.fallback", &settings.fallback)?;
        let defaults_group = settings.defaults.group();
        let mut schedules = Schedules::new();
        for (name, written) in &settings.schedules {
            let schedule =
                lower(name, written).map_err(|reason| RouteError::Schedule { name: name.clone(), reason })?;
            schedules.insert(name.clone(), Arc::new(schedule));
        }
        Ok(Self {
            routes: compile(&settings.routes, "routing.routes", &defaults_group, &known, &schedules)?,
            defaults: settings.defaults.outputs.clone(),
            defaults_group,
            fallback: settings.fallback.clone(),
            every_output: outputs.to_vec(),
        })
    }

    /// Who gets `notification` at this moment. Somebody always does, while there is an output at all:
    /// what no route, no default and no rule claims goes to the fallback, and
    /// without one to every output.
    pub fn receivers(&self, notification: &Notification, now: Timestamp) -> Receivers {
        let mut receivers = Receivers::new();
        let rule = notification.alert.as_ref().map(|alert| &alert.rule);
        if !rule.is_some_and(|rule| rule.outputs_only)
            && walk(&self.routes, notification, now, &mut receivers) == Walk::GoesOn
        {
            add(&mut receivers, &self.defaults, &self.defaults_group);
        }
        for output in rule.into_iter().flat_map(|rule| &rule.outputs) {
            // A rule may name an output that this host does not have; the check says so.
            if self.every_output.iter().any(|known| **known == **output) {
                add(&mut receivers, &[output.to_string()], &self.defaults_group);
            }
        }
        if receivers.is_empty() {
            let last = if self.fallback.is_empty() { &self.every_output } else { &self.fallback };
            add(&mut receivers, last, &self.defaults_group);
        }
        receivers
    }
}

#[derive(PartialEq)]
enum Walk {
    Ends,
    GoesOn,
}

fn walk(routes: &[Route], notification: &Notification, now: Timestamp, receivers: &mut Receivers) -> Walk {
    let applies = |route: &&Route| route.active.contains(now) && route.when.matches(notification);
    for route in routes.iter().filter(applies) {
        add(receivers, &route.outputs, &route.group);
        walk(&route.below, notification, now, receivers);
        if !route.goes_on {
            return Walk::Ends;
        }
    }
    Walk::GoesOn
}

/// The first route that names an output decides how it groups.
fn add(receivers: &mut Receivers, outputs: &[String], group: &GroupSettings) {
    for output in outputs {
        receivers.entry(output.clone()).or_insert_with(|| group.clone());
    }
}

fn compile(
    routes: &[RouteSettings],
    place: &str,
    outer: &GroupSettings,
    known: &impl Fn(&str, &[String]) -> Result<(), RouteError>,
    schedules: &Schedules,
) -> Result<Vec<Route>, RouteError> {
    let named = |place: &str, names: &Option<OneOrMany>| -> Result<Vec<Arc<Schedule>>, RouteError> {
        let one = |name: &str| {
            let missing = || RouteError::UnknownSchedule { place: place.to_owned(), name: name.to_owned() };
            schedules.get(name).map(Arc::clone).ok_or_else(missing)
        };
        names.iter().flat_map(OneOrMany::as_list).map(one).collect()
    };
    let compile_one = |(index, route): (usize, &RouteSettings)| {
        let place = format!("{place}[{index}]");
        known(&format!("{place}.outputs"), &route.outputs)?;
        let group = route.group().or(outer);
        let when = Matcher::new(route.when.iter().map(|(label, patterns)| (label.as_str(), patterns.as_list())))
            .map_err(|source| RouteError::Pattern { place: format!("{place}.when"), source })?;
        Ok(Route {
            when,
            active: Active {
                during: named(&format!("{place}.active.during"), &route.active.during)?,
                except: named(&format!("{place}.active.except"), &route.active.except)?,
            },
            outputs: route.outputs.clone(),
            goes_on: route.goes_on,
            below: compile(&route.routes, &format!("{place}.routes"), &group, known, schedules)?,
            group,
        })
    };
    routes.iter().enumerate().map(compile_one).collect()
}

type Schedules = BTreeMap<String, Arc<Schedule>>;

fn lower(name: &str, written: &ScheduleSettings) -> Result<Schedule, String> {
    let each = |list: &Option<OneOrMany>| -> Vec<String> {
        list.iter().flat_map(OneOrMany::as_list).map(str::to_owned).collect()
    };
    let zone = match written.tz.as_deref() {
        None | Some("Local" | "local") => TimeZone::system(),
        Some(tz) => TimeZone::get(tz).map_err(|_| format!("`{tz}` is not a time zone such as `Europe/Berlin`"))?,
    };
    let message = |bad: literal::BadLiteral| bad.message;
    let mut weekdays = Vec::new();
    for text in each(&written.weekdays) {
        weekdays.extend(literal::weekdays(&text).map_err(message)?);
    }
    Ok(Schedule {
        name: name.into(),
        zone,
        weekdays,
        times: each(&written.times)
            .iter()
            .map(|text| literal::times(text).map_err(message))
            .collect::<Result<_, _>>()?,
        holidays: each(&written.holidays)
            .iter()
            .map(|text| literal::date(text).map_err(message))
            .collect::<Result<_, _>>()?,
        month_days: each(&written.days_of_month)
            .iter()
            .map(|text| literal::month_days(text).map_err(message))
            .collect::<Result<_, _>>()?,
        months: each(&written.months)
            .iter()
            .map(|text| literal::months(text).map_err(message))
            .collect::<Result<_, _>>()?,
        years: each(&written.years)
            .iter()
            .map(|text| literal::years(text).map_err(message))
            .collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, DocumentKind, RuleFacts};
    use crate::rule::{Metadata, Severity};
    use std::time::Duration;

    #[test]
    fn routes_are_tried_in_order_and_defaults_take_what_goes_on() {
        let routing = "
defaults: {outputs: [soc], group_wait: 10s}
routes:
  - {when: {severity: [critical]}, outputs: [pager, mail], group_wait: 0s, continue: true}
  - {when: {tags: [bandwidth]}, outputs: [netops]}
fallback: [local]
";
        assert_eq!(who(routing, &alert(Severity::Critical, &["x"])), ["mail", "pager", "soc"]);
        assert_eq!(who(routing, &alert(Severity::Critical, &["bandwidth"])), ["mail", "netops", "pager"]);
        assert_eq!(who(routing, &alert(Severity::Low, &["bandwidth"])), ["netops"]);
        assert_eq!(who(routing, &alert(Severity::Low, &[])), ["soc"]);
        let receivers = router(routing).receivers(&alert(Severity::Critical, &[]), Timestamp::EPOCH);
        assert_eq!(receivers["pager"].wait, Some(Duration::ZERO));
        assert_eq!(receivers["soc"].wait, Some(Duration::from_secs(10)));
    }

    #[test]
    fn somebody_always_gets_it() {
        assert_eq!(who("routes: [{when: {severity: high}, outputs: [soc]}]", &alert(Severity::Low, &[])).len(), 5);
        assert_eq!(
            who("{routes: [{when: {severity: high}, outputs: [soc]}], fallback: [local]}", &alert(Severity::Low, &[])),
            ["local"]
        );
        assert_eq!(who("{}", &alert(Severity::Low, &[])).len(), 5);
    }

    #[test]
    fn a_rule_adds_its_outputs_or_stands_alone() {
        let mut notification = alert(Severity::Low, &[]);
        let change = |notification: &mut Notification, only| {
            let alert = Arc::make_mut(notification.alert.as_mut().unwrap());
            alert.rule.outputs = vec!["mail".into(), "not-here".into()];
            alert.rule.outputs_only = only;
        };
        change(&mut notification, false);
        assert_eq!(who("defaults: {outputs: [soc]}", &notification), ["mail", "soc"]);
        change(&mut notification, true);
        assert_eq!(who("defaults: {outputs: [soc]}", &notification), ["mail"]);
    }

    #[test]
    fn routes_below_inherit() {
        let routing = "
routes:
  - when: {tags: [bandwidth]}
    group_wait: 1m
    outputs: [netops]
    routes:
      - {when: {severity: [critical]}, outputs: [pager]}
";
        let receivers = router(routing).receivers(&alert(Severity::Critical, &["bandwidth"]), Timestamp::EPOCH);
        assert_eq!(receivers["pager"].wait, Some(Duration::from_secs(60)));
        assert!(receivers.contains_key("netops"));
    }

    #[test]
    fn a_route_rests_outside_its_hours() {
        let routing = "
defaults: {outputs: [soc]}
schedules: {office: {weekdays: mon-fri, times: '08:00-18:00', tz: Europe/Berlin, holidays: ['2026-05-05']}}
routes:
  - {when: {tags: [bandwidth]}, outputs: [netops], active: {during: [office]}}
";
        let who = |at: &str| -> Vec<String> {
            let at = at.parse().unwrap();
            router(routing).receivers(&alert(Severity::Low, &["bandwidth"]), at).into_keys().collect()
        };
        assert_eq!(who("2026-05-04T06:00:00Z"), ["netops"], "Monday, eight in Berlin");
        assert_eq!(who("2026-05-04T05:59:59Z"), ["soc"], "the search goes on");
        assert_eq!(who("2026-05-09T10:00:00Z"), ["soc"], "Saturday");
        assert_eq!(who("2026-05-05T10:00:00Z"), ["soc"], "a holiday");
        let wrong = |routing: &str| Router::new(&serde_yaml::from_str(routing).unwrap(), &[]).unwrap_err().to_string();
        assert_eq!(
            wrong("routes: [{active: {during: offcie}}]"),
            "routing.routes[0].active.during names the schedule `offcie`, which is not under routing.schedules"
        );
        assert!(wrong("schedules: {x: {times: noon}}").contains("`noon` is not a range of times"));
        assert!(wrong("schedules: {x: {tz: Mars/Olympus}}").contains("`Mars/Olympus` is not a time zone"));
    }

    #[test]
    fn unknown_outputs_are_refused() {
        let settings: RoutingSettings = serde_yaml::from_str("routes: [{outputs: [socc]}]").unwrap();
        let error = Router::new(&settings, &["soc".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "routing.routes[0].outputs names the output `socc`, which is not configured");
    }

    fn router(routing: &str) -> Router {
        let outputs = ["local", "mail", "netops", "pager", "soc"].map(str::to_owned);
        Router::new(&serde_yaml::from_str(routing).unwrap(), &outputs).unwrap()
    }

    fn who(routing: &str, notification: &Notification) -> Vec<String> {
        router(routing).receivers(notification, Timestamp::EPOCH).into_keys().collect()
    }

    fn alert(severity: Severity, tags: &[&str]) -> Notification {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let metadata = Arc::new(Metadata { id: "x".into(), severity, tags, ..Metadata::default() });
        let rule = RuleFacts { metadata, ..RuleFacts::default() };
        Notification::of_alert(DocumentKind::Firing, Timestamp::EPOCH, Alert { rule, ..Alert::default() })
    }
}
