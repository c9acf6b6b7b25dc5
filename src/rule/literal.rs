//! The small things people write in rules: sizes, rates, durations, ranges, dates.
//!
//! What is ambiguous is refused, with the spelling that was perhaps meant.

use std::time::Duration;

use ipnet::IpNet;
use jiff::civil::{Date, Weekday};

/// Why a literal cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadLiteral {
    /// What is wrong with it.
    pub message: String,
    /// The spelling that was perhaps meant.
    pub suggestion: Option<String>,
}

type Result<T> = std::result::Result<T, BadLiteral>;

impl BadLiteral {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: None }
    }

    fn or(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

/// `500MB` (10^6), `500MiB` (2^20), `1.5GB`, or a plain number of bytes.
pub fn size(text: &str) -> Result<u64> {
    let (number, unit) = split_number(text);
    let Some(value) = decimal(number) else {
        return Err(BadLiteral::new(format!("`{text}` is not a size")).or_example("500MB"));
    };
    let factor = match SIZES.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None => return Err(bad_unit(text, number, unit, SIZES.iter().map(|(name, _)| *name))),
    };
    scaled(value, factor).ok_or_else(|| BadLiteral::new(format!("`{text}` is larger than any size can be")))
}

/// `80Mbit/s` or `10MB/s`, in bits a second.
pub fn rate(text: &str) -> Result<u64> {
    let (number, unit) = split_number(text);
    let Some(value) = decimal(number) else {
        return Err(BadLiteral::new(format!("`{text}` is not a rate")).or_example("80Mbit/s"));
    };
    let factor = match RATES.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None => {
            let meant = match unit.to_ascii_lowercase().as_str() {
                "kbps" | "kbit" => Some("kbit/s"),
                "mbps" | "mbit" => Some("Mbit/s"),
                "gbps" | "gbit" => Some("Gbit/s"),
                "bps" | "bit" => Some("bit/s"),
                _ => None,
            };
            let bad = bad_unit(text, number, unit, RATES.iter().map(|(name, _)| *name));
            return Err(match meant {
                Some(meant) => bad.or(format!("{number}{meant}")),
                None => bad,
            });
        }
    };
    scaled(value, factor).ok_or_else(|| BadLiteral::new(format!("`{text}` is larger than any rate can be")))
}

/// `90s`, `10m`, `2h`, `14d`, `1w`, `500ms`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(BadLiteral::new("a duration is missing").or_example("10m"));
    }
    if rest.contains(':') {
        return Err(BadLiteral::new(format!("`{text}` is not a duration")).or_example("1h30m"));
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|character: char| character.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let Ok(value) = number.parse::<u64>() else {
            return Err(BadLiteral::new(format!("`{text}` is not a duration")).or_example("10m"));
        };
        let millis = match unit.trim() {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            "d" => Some(86_400_000),
            "w" => Some(604_800_000),
            "" if value == 0 => Some(1),
            _ => None,
        };
        let Some(millis) = millis else {
            let meant = match unit.trim().to_ascii_lowercase().as_str() {
                "sec" | "secs" | "second" | "seconds" => Some("s"),
                "min" | "mins" | "minute" | "minutes" => Some("m"),
                "hr" | "hrs" | "hour" | "hours" | "h" => Some("h"),
                "day" | "days" | "d" => Some("d"),
                "week" | "weeks" | "w" => Some("w"),
                _ => None,
            };
            let bad = match unit.trim() {
                "" => BadLiteral::new(format!("`{text}` has no unit")).or(format!("{value}s")),
                unit => BadLiteral::new(format!("`{unit}` is not a unit of time (ms, s, m, h, d, w)")),
            };
            return Err(match meant {
                Some(meant) => bad.or(format!("{value}{meant}")),
                None => bad,
            });
        };
        let part = value.checked_mul(millis).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| BadLiteral::new(format!("`{text}` is longer than any duration can be")))?;
        rest = after;
    }
    Ok(total)
}

/// A whole number.
pub fn integer(text: &str) -> Result<u64> {
    let digits = text.trim();
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadLiteral::new(format!("`{text}` has a leading zero")).or(digits.trim_start_matches('0')));
    }
    digits.parse().map_err(|_| BadLiteral::new(format!("`{text}` is not a whole number")))
}

/// `443` or `1024-65535`.
pub fn range(text: &str) -> Result<(u64, u64)> {
    match text.split_once('-') {
        None => integer(text).map(|number| (number, number)),
        Some((low, high)) => {
            let (low, high) = (integer(low)?, integer(high)?);
            if low > high {
                return Err(BadLiteral::new(format!("the range `{text}` is empty")).or(format!("{high}-{low}")));
            }
            Ok((low, high))
        }
    }
}

/// A finite number.
pub fn number(text: &str) -> Result<f64> {
    let value: f64 = text.trim().parse().map_err(|_| BadLiteral::new(format!("`{text}` is not a number")))?;
    if value.is_finite() { Ok(value) } else { Err(BadLiteral::new(format!("`{text}` is not a finite number"))) }
}

/// `2x`, or a plain number.
pub fn factor(text: &str) -> Result<f64> {
    number(text.strip_suffix('x').unwrap_or(text))
        .map_err(|_| BadLiteral::new(format!("`{text}` is not a factor")).or_example("2x"))
}

/// `80%` or `0.8`.
pub fn share(text: &str) -> Result<f64> {
    match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => number(text),
    }
    .map_err(|_| BadLiteral::new(format!("`{text}` is not a share")).or_example("80%"))
}

/// An address, or a network whose host bits are zero.
pub fn network(text: &str) -> Result<IpNet> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    match text.parse::<IpNet>() {
        Ok(network) if network.addr() == network.network() => Ok(network),
        Ok(network) => {
            Err(BadLiteral::new(format!("`{text}` has bits set behind its prefix")).or(network.trunc().to_string()))
        }
        Err(_) => {
            let wildcard = text.strip_suffix(".*").map(|start| (start, start.split('.').count()));
            let bad = BadLiteral::new(format!("`{text}` is neither an address nor a network"));
            Err(match wildcard {
                Some((start, count @ 1..=3)) => {
                    let zeros = ".0".repeat(4 - count);
                    bad.or(format!("{start}{zeros}/{}", count * 8))
                }
                _ => match text.split_once('/') {
                    Some((address, prefix)) if address.parse::<std::net::IpAddr>().is_ok() => {
                        BadLiteral::new(format!("`{prefix}` is not a prefix length of `{address}`"))
                    }
                    _ => bad,
                },
            })
        }
    }
}

/// `2026-12-31`.
pub fn date(text: &str) -> Result<Date> {
    text.parse().map_err(|_| BadLiteral::new(format!("`{text}` is not a date")).or_example("2026-12-31"))
}

/// `07:00-19:00` in minutes of the day; `24:00` ends a day.
pub fn times(text: &str) -> Result<(u16, u16)> {
    let bad = || BadLiteral::new(format!("`{text}` is not a range of times")).or_example("07:00-19:00");
    let minutes = |part: &str| -> Option<u16> {
        let (hour, minute) = part.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        ((hour < 24 && minute < 60) || (hour == 24 && minute == 0)).then_some(hour * 60 + minute)
    };
    let (from, to) = text.split_once('-').ok_or_else(bad)?;
    let (from, to) = (minutes(from).ok_or_else(bad)?, minutes(to).ok_or_else(bad)?);
    if from == to || from == 1440 {
        return Err(BadLiteral::new(format!("the range `{text}` is empty")));
    }
    Ok((from, to))
}

/// `mon`, `mon-fri`, `sat-mon`.
pub fn weekdays(text: &str) -> Result<Vec<Weekday>> {
    let day = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        WEEKDAYS.iter().position(|(short, long)| name == *short || name == *long).ok_or_else(|| {
            let bad = BadLiteral::new(format!("`{name}` is not a day of the week"));
            let names = WEEKDAYS.iter().flat_map(|(short, long)| [*short, *long]);
            match crate::rule::diagnose::nearest(&name, names) {
                Some(meant) => bad.or(text.replace(&name, meant)),
                None => bad,
            }
        })
    };
    let (from, to) = match text.split_once('-') {
        None => {
            let day = day(text)?;
            (day, day)
        }
        Some((from, to)) => (day(from)?, day(to)?),
    };
    let count = (to + 7 - from) % 7;
    Ok((0..=count).map(|step| Weekday::Monday.wrapping_add(i8::try_from((from + step) % 7).unwrap_or(0))).collect())
}

/// `1`, `1-7`, `-3--1`: days of a month, the negative ones from its end.
pub fn month_days(text: &str) -> Result<(i8, i8)> {
    let bad = || BadLiteral::new(format!("`{text}` names no days of a month")).or_example("1-7` or `-1");
    let day = |text: &str| text.trim().parse().ok().filter(|day: &i8| *day != 0 && day.unsigned_abs() <= 31);
    // A minus sign at the start belongs to the number.
    let dash = text.get(1..).and_then(|rest| rest.find('-')).map(|at| at + 1);
    let (from, to) = match dash {
        Some(at) => (text.get(..at).and_then(day), text.get(at + 1..).and_then(day)),
        None => (day(text), day(text)),
    };
    match (from.ok_or_else(bad)?, to.ok_or_else(bad)?) {
        (from, to) if from > to && (from < 0) == (to < 0) => {
            Err(BadLiteral::new(format!("the range `{text}` is empty")).or(format!("{to}-{from}")))
        }
        days => Ok(days),
    }
}

/// `december`, `6-8`, `june-august`.
pub fn months(text: &str) -> Result<(i8, i8)> {
    let month = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        let by_name = MONTHS.iter().position(|month| name.len() >= 3 && month.starts_with(&name)).map(|at| at + 1);
        let by_number = || name.parse().ok().filter(|number| (1..=12).contains(number));
        by_name.or_else(by_number).and_then(|number| i8::try_from(number).ok()).ok_or_else(|| {
            let bad = BadLiteral::new(format!("`{name}` is not a month"));
            match crate::rule::diagnose::nearest(&name, MONTHS.iter().copied()) {
                Some(meant) => bad.or(text.replace(&name, meant)),
                None => bad,
            }
        })
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (month(from)?, month(to)?) {
        (from, to) if from > to => Err(BadLiteral::new(format!("the range `{text}` is empty: write two of them"))),
        months => Ok(months),
    }
}

/// `2026`, `2026-2028`.
pub fn years(text: &str) -> Result<(i16, i16)> {
    let bad = || BadLiteral::new(format!("`{text}` names no year")).or_example("2026");
    let year = |text: &str| text.trim().parse().ok().filter(|year| (1970..=9999).contains(year)).ok_or_else(bad);
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (year(from)?, year(to)?) {
        (from, to) if from > to => Err(BadLiteral::new(format!("the range `{text}` is empty"))),
        years => Ok(years),
    }
}

impl BadLiteral {
    fn or_example(mut self, example: &str) -> Self {
        self.message.push_str(&format!(" such as `{example}`"));
        self
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|character: char| !(character.is_ascii_digit() || character == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// An exact decimal number: its digits, and how many of them follow the point.
fn decimal(number: &str) -> Option<(u128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    Some((digits, u32::try_from(fraction.len()).ok()?))
}

fn scaled((digits, decimals): (u128, u32), factor: u64) -> Option<u64> {
    let value = digits.checked_mul(u128::from(factor))? / 10u128.pow(decimals);
    u64::try_from(value).ok()
}

fn bad_unit<'a>(text: &str, number: &str, unit: &str, units: impl Iterator<Item = &'a str> + Clone) -> BadLiteral {
    if let "k" | "K" | "M" | "G" | "T" = unit {
        return BadLiteral::new(format!("`{text}` is ambiguous: `{unit}B` is decimal, `{unit}iB` is binary"))
            .or(format!("{number}{}B", if unit == "K" { "k" } else { unit }));
    }
    let meant = units.clone().find(|name| name.eq_ignore_ascii_case(unit));
    let bad = BadLiteral::new(format!("`{unit}` is not a unit here"));
    match meant.or_else(|| crate::rule::diagnose::nearest(unit, units.filter(|name| !name.is_empty()))) {
        Some(name) => bad.or(format!("{number}{name}")),
        None => bad,
    }
}

const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

const RATES: &[(&str, u64)] = &[
    ("bit/s", 1),
    ("kbit/s", 1_000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
    ("Tbit/s", 1_000_000_000_000),
    ("B/s", 8),
    ("kB/s", 8_000),
    ("MB/s", 8_000_000),
    ("GB/s", 8_000_000_000),
    ("TB/s", 8_000_000_000_000),
    ("KiB/s", 8 << 10),
    ("MiB/s", 8 << 20),
    ("GiB/s", 8 << 30),
];

const WEEKDAYS: &[(&str, &str)] = &[
    ("mon", "monday"),
    ("tue", "tuesday"),
    ("wed", "wednesday"),
    ("thu", "thursday"),
    ("fri", "friday"),
    ("sat", "saturday"),
    ("sun", "sunday"),
];

const MONTHS: &[&str] = &[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn meant<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().suggestion.unwrap_or_default()
    }

    #[test]
    fn sizes_are_decimal_or_binary_and_never_ambiguous() {
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("500 MiB"), Ok(500 << 20));
        assert_eq!(size("1.5GB"), Ok(1_500_000_000));
        assert_eq!(size("65536"), Ok(65_536));
        assert_eq!(meant(size("500M")), "500MB");
        assert_eq!(meant(size("500mb")), "500MB");
        assert_eq!(meant(size("500MX")), "500MB");
        assert!(size("99999999999PB").is_err());
        assert!(size("MB").is_err());
        assert!(size("-5MB").is_err());
    }

    #[test]
    fn rates_are_bits_or_bytes() {
        assert_eq!(rate("80Mbit/s"), Ok(80_000_000));
        assert_eq!(rate("10MB/s"), Ok(80_000_000));
        assert_eq!(meant(rate("80Mbps")), "80Mbit/s");
        assert_eq!(meant(rate("80mbit/s")), "80Mbit/s");
        assert!(rate("80").is_err());
    }

    #[test]
    fn durations_need_units() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("14d"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(meant(duration("10")), "10s");
        assert_eq!(meant(duration("10min")), "10m");
        assert!(duration("1:30").is_err());
        assert!(duration("m10").is_err());
    }

    #[test]
    fn networks_have_no_host_bits() {
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("::ffff:192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(meant(network("10.1.2.3/8")), "10.0.0.0/8");
        assert_eq!(meant(network("10.1.*")), "10.1.0.0/16");
        assert!(network("10.0.0.0/33").unwrap_err().message.contains("prefix length"));
    }

    #[test]
    fn days_and_times_wrap() {
        assert_eq!(weekdays("sat-mon").unwrap(), [Weekday::Saturday, Weekday::Sunday, Weekday::Monday]);
        assert_eq!(times("22:00-06:00"), Ok((1_320, 360)));
        assert_eq!(meant(weekdays("mno-fri")), "mon-fri");
        assert!(times("25:00-26:00").is_err());
    }

    #[test]
    fn months_have_names_and_days_two_ends() {
        assert_eq!(months("june-august"), Ok((6, 8)));
        assert_eq!(months("dec"), Ok((12, 12)));
        assert_eq!(months("6-8"), Ok((6, 8)));
        assert_eq!(meant(months("decmber")), "december");
        assert!(months("11-2").is_err() && months("13").is_err());
        assert_eq!(month_days("-3--1"), Ok((-3, -1)));
        assert_eq!(month_days("1-7"), Ok((1, 7)));
        assert_eq!(month_days("25--1"), Ok((25, -1)));
        assert!(month_days("0").is_err() && month_days("32").is_err() && month_days("7-1").is_err());
        assert_eq!(years("2026-2028"), Ok((2026, 2028)));
        assert!(years("26").is_err());
    }
}
