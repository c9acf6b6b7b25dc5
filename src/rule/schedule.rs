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
    /// On which days of the month, both ends included; negative ones count from its end. Empty means all.
    pub month_days: Vec<(i8, i8)>,
    /// In which months, from 1; empty means all.
    pub months: Vec<(i8, i8)>,
    /// In which years; empty means all.
    pub years: Vec<(i16, i16)>,
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
        (self.weekdays.is_empty() || self.weekdays.contains(&day.weekday()))
            && among(&self.months, day.month())
            && among(&self.years, day.year())
            && (self.month_days.is_empty() || self.month_days.iter().any(|days| is_day_of_month(*days, day)))
            && !self.holidays.contains(&day)
    }
}

fn among<T: PartialOrd + Copy>(ranges: &[(T, T)], value: T) -> bool {
    ranges.is_empty() || ranges.iter().any(|(low, high)| *low <= value && value <= *high)
}

/// Whether a day lies between two days of its month; a day that the month does not have is its last one.
fn is_day_of_month((first, last): (i8, i8), day: Date) -> bool {
    let length = day.days_in_month();
    let of_month = |number: i8| if number < 0 { (length + 1 + number).max(1) } else { number };
    (of_month(first)..=of_month(last)).contains(&day.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule() -> Schedule {
        Schedule {
            name: "always".into(),
            zone: TimeZone::UTC,
            weekdays: Vec::new(),
            times: Vec::new(),
            month_days: Vec::new(),
            months: Vec::new(),
            years: Vec::new(),
            holidays: Vec::new(),
        }
    }

    #[test]
    fn days_of_the_month_count_from_both_ends() {
        let ends = Schedule { month_days: vec![(1, 2), (-2, -1)], months: vec![(1, 3)], ..schedule() };
        let holds: Vec<&str> = ["2026-02-01", "2026-02-03", "2026-02-26", "2026-02-27", "2026-02-28", "2026-04-01"]
            .into_iter()
            .filter(|day| ends.contains(at(&format!("{day}T12:00:00Z"))))
            .collect();
        assert_eq!(holds, ["2026-02-01", "2026-02-27", "2026-02-28"]);
        let year = Schedule { years: vec![(2027, 2028)], ..schedule() };
        assert!(!year.contains(at("2026-12-31T23:59:59Z")) && year.contains(at("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_starts() {
        let friday_night = Schedule {
            name: "night".into(),
            weekdays: vec![Weekday::Friday],
            times: vec![(22 * 60, 6 * 60)],
            ..schedule()
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
            times: vec![(7 * 60, 19 * 60)],
            holidays: vec![jiff::civil::date(2026, 5, 1)],
            ..schedule()
        };
        assert!(office.contains(at("2026-05-04T05:00:00Z")));
        assert!(!office.contains(at("2026-05-04T17:00:00Z")));
        assert!(!office.contains(at("2026-05-01T10:00:00Z")), "a holiday");
    }
}
