//! Named times of the week.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::rule::catalogue as code;
use crate::rule::compile::Compiler;
use crate::rule::compile::keys::Keys;
use crate::rule::diagnose::Diagnostic;
use crate::rule::literal::{self, BadLiteral};
use crate::rule::schema;
use crate::rule::yaml::{Node, Yaml};
use crate::rule::{Active, Schedule};

impl Compiler<'_> {
    /// The schedule of a name; `None` if there is none or something in it is wrong.
    pub(super) fn schedule(&mut self, name: &str) -> Option<Arc<Schedule>> {
        if let Some(known) = self.known_schedules.get(name) {
            return known.clone();
        }
        let definition = self.schedules.get(name).cloned()?;
        let before = self.errors();
        let lowered = self.lower_schedule(name, &definition.node);
        let result = lowered.filter(|_| self.errors() == before).map(Arc::new);
        self.known_schedules.insert(name.to_owned(), result.clone());
        result
    }

    /// A schedule that something names.
    pub(super) fn use_schedule(&mut self, name: &str, span: crate::rule::diagnose::Span) -> Option<Arc<Schedule>> {
        self.used.insert(format!("schedule {name}"));
        if !self.schedules.contains_key(name) {
            let names: Vec<String> = self.schedules.keys().cloned().collect();
            let found = Diagnostic::new(&code::UNKNOWN_SCHEDULE, span, format!("there is no schedule `{name}`"))
                .suggest(name, names.iter().map(String::as_str));
            self.push(found);
            return None;
        }
        self.schedule(name)
    }

    pub(super) fn active(&mut self, node: &Node) -> Active {
        let mut active = Active::default();
        let Some(keys) = Keys::open(self, node, &schema::ACTIVE) else { return active };
        for (key, schedules) in [("during", &mut active.during), ("except", &mut active.except)] {
            if let Some(node) = keys.get(key) {
                for (name, span) in self.texts(node) {
                    schedules.extend(self.use_schedule(&name, span));
                }
            }
        }
        active
    }

    fn lower_schedule(&mut self, name: &str, node: &Node) -> Option<Schedule> {
        let keys = Keys::open(self, node, &schema::SCHEDULE)?;
        let zone = match keys.get("tz") {
            Some(node) => self.zone(node)?,
            None => self.options.local_zone.clone(),
        };
        let mut schedule = Schedule {
            name: name.into(),
            zone,
            weekdays: Vec::new(),
            times: Vec::new(),
            month_days: self.ranges(keys.get("days_of_month"), literal::month_days),
            months: self.ranges(keys.get("months"), literal::months),
            years: self.ranges(keys.get("years"), literal::years),
            holidays: Vec::new(),
        };
        if let Some(node) = keys.get("weekdays") {
            for (text, span) in self.texts(node) {
                schedule.weekdays.extend(self.read_literal(&text, true, span, literal::weekdays).unwrap_or_default());
            }
        }
        if let Some(node) = keys.get("times") {
            let elements = match &node.value {
                Yaml::Sequence(elements) => elements.as_slice(),
                _ => std::slice::from_ref(node),
            };
            for element in elements {
                schedule.times.extend(self.literal(element, literal::times));
            }
        }
        if let Some(node) = keys.get("holidays") {
            for (text, span) in self.texts(node) {
                schedule.holidays.extend(self.read_literal(&text, true, span, literal::date));
            }
        }
        Some(schedule)
    }

    fn ranges<T>(&mut self, node: Option<&Node>, read: fn(&str) -> Result<T, BadLiteral>) -> Vec<T> {
        let texts = node.map(|node| self.texts(node)).unwrap_or_default();
        texts.into_iter().filter_map(|(text, span)| self.read_literal(&text, true, span, read)).collect()
    }

    pub(super) fn zone(&mut self, node: &Node) -> Option<TimeZone> {
        let name = self.text(node)?;
        match name {
            "Local" | "local" => return Some(self.options.local_zone.clone()),
            "UTC" | "utc" => return Some(TimeZone::UTC),
            _ => {}
        }
        match TimeZone::get(name) {
            Ok(zone) => Some(zone),
            Err(_) => {
                let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
                let found = Diagnostic::new(&code::BAD_LITERAL, node.span, format!("`{name}` is not a time zone"))
                    .suggest(name, names.iter().map(String::as_str).chain(["Local", "UTC"]));
                self.push(found);
                None
            }
        }
    }
}
