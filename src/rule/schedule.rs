//! When a rule or an exception is in force: weekly times in a time zone.

use std::sync::Arc;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

use crate::time::Timestamp;

/// Named times of the week.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The name it has in the rule files.
    pub name: Arc<str>,
    /// In which time zone.
    pub zone: TimeZone,
    /// On which days; empty means every day.
    pub weekdays: Vec<Weekday>,
    /// At which times, in minutes of the day; empty means all day.
    ///
    /// A range whose end is not after its start runs into the next day, and
    /// belongs to the day on which it starts.
    pub times: Vec<(u16, u16)>,
    /// On these days it never holds.
    pub holidays: Vec<Date>,
}

/// When a rule is in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Active {
    /// Only during one of these; empty means always.
    pub during: Vec<Arc<Schedule>>,
    /// Never during one of these.
    pub except: Vec<Arc<Schedule>>,
}

impl Active {
    /// Whether it is in force at this moment.
    pub fn contains(&self, at: Timestamp) -> bool {
        let one_of = |schedules: &[Arc<Schedule>]| schedules.iter().any(|schedule| schedule.contains(at));
        (self.during.is_empty() || one_of(&self.during)) && !one_of(&self.except)
    }

    /// Whether it is in force at every moment.
    pub fn is_always(&self) -> bool {
        self.during.is_empty() && self.except.is_empty()
    }
}

impl Schedule {
    /// Whether this moment belongs to it.
    pub fn contains(&self, at: Timestamp) -> bool {
        let Ok(moment) = jiff::Timestamp::from_nanosecond(at.as_nanos().into()) else { return false };
        let local = self.zone.to_datetime(moment);
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
        let today = self.includes_day(local.date());
        if self.times.is_empty() {
            return today;
        }
        let yesterday = || local.date().yesterday().is_ok_and(|day| self.includes_day(day));
        self.times.iter().any(|&(start, end)| {
            if start < end {
                today && (start..end).contains(&minute)
            } else {
                (today && minute >= start) || (minute < end && yesterday())
            }
        })
    }

    fn includes_day(&self, day: Date) -> bool {
        (self.weekdays.is_empty() || self.weekdays.contains(&day.weekday())) && !self.holidays.contains(&day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_starts() {
        let friday_night = Schedule {
            name: "night".into(),
            zone: TimeZone::UTC,
            weekdays: vec![Weekday::Friday],
            times: vec![(22 * 60, 6 * 60)],
            holidays: Vec::new(),
        };
        assert!(friday_night.contains(at("2026-05-08T22:00:00Z")));
        assert!(friday_night.contains(at("2026-05-09T05:59:59Z")), "Saturday morning");
        assert!(!friday_night.contains(at("2026-05-09T06:00:00Z")));
        assert!(!friday_night.contains(at("2026-05-08T05:00:00Z")), "the night before started on Thursday");
    }

    #[test]
    fn a_time_zone_moves_the_hours() {
        let office = Schedule {
            name: "office".into(),
            zone: TimeZone::fixed(jiff::tz::offset(2)),
            weekdays: Vec::new(),
            times: vec![(7 * 60, 19 * 60)],
            holidays: vec![jiff::civil::date(2026, 5, 1)],
        };
        assert!(office.contains(at("2026-05-04T05:00:00Z")));
        assert!(!office.contains(at("2026-05-04T17:00:00Z")));
        assert!(!office.contains(at("2026-05-01T10:00:00Z")), "a holiday");
    }
}
