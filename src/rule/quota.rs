//! How much of a calendar quota a group has used.

use jiff::civil::DateTime;
use jiff::{Timestamp as Moment, ToSpan};

use crate::rule::{Budget, Period};
use crate::time::Timestamp;

/// What one group has used in the current period.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Quota {
    used: u64,
    /// When the period began.
    began: Option<Timestamp>,
    /// When it ends.
    ends: Option<Timestamp>,
}

impl Quota {
    /// Books a value.
    pub fn add(&mut self, budget: &Budget, at: Timestamp, value: u64) {
        self.advance(budget, at);
        self.used = self.used.saturating_add(value);
    }

    /// Begins a new period where the old one is over.
    pub fn advance(&mut self, budget: &Budget, at: Timestamp) {
        if self.ends.is_none_or(|ends| at >= ends) {
            let (began, ends) = period(budget, at);
            *self = Self { used: 0, began: Some(began), ends: Some(ends) };
        }
    }

    /// What was used.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// When the period ends.
    pub fn ends(&self) -> Option<Timestamp> {
        self.ends
    }

    /// How many of the shares at which the budget speaks are reached.
    pub fn steps(&self, budget: &Budget) -> usize {
        let limit = budget.limit.as_f64();
        budget.notify_at.iter().filter(|share| self.used > 0 && self.used as f64 >= limit * **share).count()
    }
}

/// The period of the calendar that a moment lies in.
fn period(budget: &Budget, at: Timestamp) -> (Timestamp, Timestamp) {
    let whole_hour = || (at.floor_to(HOUR), at.floor_to(HOUR).after(HOUR));
    let Ok(moment) = Moment::from_nanosecond(at.as_nanos().into()) else { return whole_hour() };
    let local = budget.zone.to_datetime(moment);
    let midnight = local.date().to_datetime(jiff::civil::Time::midnight());
    let (start, length) = match budget.per {
        Period::Hour => return whole_hour(),
        Period::Day => (midnight, 1.day()),
        Period::Week => {
            let since_monday = i64::from(local.date().weekday().to_monday_zero_offset());
            (midnight.saturating_sub(since_monday.days()), 1.week())
        }
        Period::Month => (local.date().first_of_month().to_datetime(jiff::civil::Time::midnight()), 1.month()),
    };
    let moment_of = |local: DateTime| {
        let nanos = budget.zone.to_ambiguous_timestamp(local).compatible().map(|moment| moment.as_nanosecond());
        nanos.ok().and_then(|nanos| i64::try_from(nanos).ok()).map(Timestamp::from_nanos)
    };
    match (moment_of(start), moment_of(start.saturating_add(length))) {
        (Some(start), Some(end)) if end > at => (start, end),
        _ => whole_hour(),
    }
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Metric, Quantity, Sum};

    fn budget(per: Period) -> Budget {
        Budget {
            metric: Metric::Sum(Sum::BytesTotal),
            per,
            zone: jiff::tz::TimeZone::fixed(jiff::tz::offset(2)),
            limit: Quantity::Count(1_000),
            notify_at: vec![0.5, 1.0],
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn periods_follow_the_calendar_of_their_zone() {
        let moment = at("2026-05-06T23:30:00Z");
        let text = |per| {
            let (start, end) = period(&budget(per), moment);
            format!("{start} {end}").replace(":00.000000000", "")
        };
        assert_eq!(text(Period::Hour), "2026-05-06T23:00Z 2026-05-07T00:00Z");
        assert_eq!(text(Period::Day), "2026-05-06T22:00Z 2026-05-07T22:00Z");
        assert_eq!(text(Period::Week), "2026-05-03T22:00Z 2026-05-10T22:00Z");
        assert_eq!(text(Period::Month), "2026-04-30T22:00Z 2026-05-31T22:00Z");
    }

    #[test]
    fn a_new_period_begins_at_zero() {
        let budget = budget(Period::Day);
        let mut quota = Quota::default();
        quota.add(&budget, at("2026-05-06T10:00:00Z"), 500);
        assert_eq!(quota.steps(&budget), 1);
        quota.add(&budget, at("2026-05-06T21:59:59Z"), 500);
        assert_eq!(quota.steps(&budget), 2);
        quota.advance(&budget, at("2026-05-06T22:00:00Z"));
        assert_eq!((quota.used(), quota.steps(&budget)), (0, 0));
    }
}
