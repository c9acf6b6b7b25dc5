//! The one number of a rule that says how much is too much, to be turned.
//!
//! It is the first lower limit of the trigger: of `when`, of the `min` of a
//! first sight, the `above` of a baseline, the `limit` of a budget. Every
//! other condition stays as it is.

use std::time::Duration;

use crate::rule::{Clause, Comparison, Metric, Quantity, Rule, Sum, Threshold, Trigger};

/// The number of a rule that says how much is too much.
#[derive(Debug, Clone, PartialEq)]
pub struct Knob {
    /// What is measured, in the words of the rule language.
    pub metric: String,
    /// How it is compared, for a person: `>=` or `>`.
    pub sign: &'static str,
    /// Over which window; none where the calendar or a habit decides.
    pub window: Option<Duration>,
    /// How it stands.
    pub limit: Quantity,
    /// What its values are.
    pub scale: Scale,
}

/// What the values of a knob are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Bytes.
    Bytes,
    /// Bits a second.
    Rate,
    /// A whole number of anything else.
    Count,
    /// A share: between 0 and 1.
    Share,
    /// A share with a sign: between -1 and 1.
    Balance,
    /// How many deviations, or how many times.
    Factor,
}

impl Rule {
    /// The rule's knob; a rule that fires at every flow, or only below a limit, has none.
    pub fn knob(&self) -> Option<Knob> {
        let of_threshold = |threshold: &Threshold| Knob {
            metric: threshold.metric.to_string(),
            sign: if matches!(threshold.comparison, Comparison::Greater(_)) { ">" } else { ">=" },
            window: Some(threshold.window),
            limit: threshold.comparison.limit(),
            scale: Scale::of_metric(&threshold.metric),
        };
        match &self.trigger {
            Trigger::Each => None,
            Trigger::When(when) => first_limit(&when.all).map(of_threshold),
            Trigger::FirstSeen(first) => first.min.as_ref().filter(|min| is_lower(min)).map(of_threshold),
            Trigger::Baseline(baseline) => Some(Knob {
                metric: "above".to_owned(),
                sign: ">",
                window: Some(baseline.bucket),
                limit: Quantity::Ratio(baseline.above),
                scale: Scale::Factor,
            }),
            Trigger::Budget(budget) => Some(Knob {
                metric: budget.metric.to_string(),
                sign: ">=",
                window: None,
                limit: budget.limit,
                scale: Scale::of_metric(&budget.metric),
            }),
        }
    }

    /// The same rule with its knob turned; unchanged where it has none.
    #[must_use]
    pub fn turned(&self, limit: Quantity) -> Self {
        let mut rule = self.clone();
        match &mut rule.trigger {
            Trigger::Each => {}
            Trigger::When(when) => {
                if let Some(threshold) = first_limit_mut(&mut when.all) {
                    threshold.comparison = threshold.comparison.with_limit(limit);
                }
            }
            Trigger::FirstSeen(first) => {
                if let Some(min) = first.min.as_mut().filter(|min| is_lower(min)) {
                    min.comparison = min.comparison.with_limit(limit);
                }
            }
            Trigger::Baseline(baseline) => baseline.above = limit.as_f64(),
            Trigger::Budget(budget) => budget.limit = limit,
        }
        rule
    }
}

impl Scale {
    /// What the values of a metric are.
    pub fn of_metric(metric: &Metric) -> Self {
        match metric {
            Metric::Sum(Sum::PacketsOut | Sum::PacketsIn | Sum::PacketsTotal) => Self::Count,
            Metric::Sum(_) | Metric::BytesPerConnection | Metric::DnsNameBytes => Self::Bytes,
            Metric::Rate(_) | Metric::Peak(_) => Self::Rate,
            Metric::UploadRatio | Metric::MaxDestinationShare(_) => Self::Share,
            Metric::ProducerConsumerRatio => Self::Balance,
            Metric::IntervalVariation => Self::Factor,
            _ => Self::Count,
        }
    }

    /// A value as it stands in a rule: `210MB`, `80Mbit/s`, `0.8`.
    pub fn literal(self, value: Quantity) -> String {
        let number = match value {
            Quantity::Count(number) => number,
            Quantity::Ratio(ratio) => return trimmed(ratio),
        };
        let units: &[(&str, u64)] = match self {
            Self::Bytes => &[("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)],
            Self::Rate => &[("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000)],
            _ => return number.to_string(),
        };
        // At most three decimals: what would need more stands in the next smaller unit.
        let unit = units.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(factor / 1_000));
        match unit {
            Some((unit, factor)) => format!("{}{unit}", trimmed(number as f64 / *factor as f64)),
            None if self == Self::Rate => format!("{number}bit/s"),
            None => number.to_string(),
        }
    }
}

/// The first condition with a lower limit, from left to right.
fn first_limit(clauses: &[Clause]) -> Option<&Threshold> {
    clauses.iter().find_map(|clause| match clause {
        Clause::Threshold(threshold) => Some(threshold).filter(|threshold| is_lower(threshold)),
        Clause::Any(inner) | Clause::All(inner) => first_limit(inner),
        Clause::Spike(_) => None,
    })
}

fn first_limit_mut(clauses: &mut [Clause]) -> Option<&mut Threshold> {
    clauses.iter_mut().find_map(|clause| match clause {
        Clause::Threshold(threshold) => Some(threshold).filter(|threshold| is_lower(threshold)),
        Clause::Any(inner) | Clause::All(inner) => first_limit_mut(inner),
        Clause::Spike(_) => None,
    })
}

fn is_lower(threshold: &Threshold) -> bool {
    matches!(threshold.comparison, Comparison::Greater(_) | Comparison::GreaterOrEqual(_))
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::literal;

    #[test]
    fn a_value_is_written_as_rules_write_it() {
        let text = |scale: Scale, number| scale.literal(Quantity::Count(number));
        assert_eq!(text(Scale::Bytes, 210_000_000), "210MB");
        assert_eq!(text(Scale::Bytes, 1_234_567), "1234.567kB");
        assert_eq!(text(Scale::Bytes, 999), "999");
        assert_eq!(text(Scale::Rate, 80_500_000), "80.5Mbit/s");
        assert_eq!(text(Scale::Count, 12_000), "12000");
        assert_eq!(Scale::Share.literal(Quantity::Ratio(0.8)), "0.8");
        for number in [1, 999, 1_000, 1_500, 123_456_789, 5_000_000_000_001] {
            assert_eq!(literal::size(&text(Scale::Bytes, number)), Ok(number));
            assert_eq!(literal::rate(&text(Scale::Rate, number)), Ok(number));
        }
    }
}
