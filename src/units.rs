//! Numbers that know their unit: [`Bytes`], [`Packets`], [`Rate`].
//!
//! Inside the program a quantity stays exact; it becomes text only where a
//! person reads it, and then in decimal units, as network tools do.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A number of packets on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Packets(pub u64);

/// A data rate in bits a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Rate(pub u64);

impl Bytes {
    /// The rate at which these bytes pass in `duration`; zero for no duration.
    pub fn per(self, duration: Duration) -> Rate {
        let nanos = duration.as_nanos();
        if nanos == 0 {
            return Rate(0);
        }
        let bits_per_second = u128::from(self.0) * 8 * 1_000_000_000 / nanos;
        Rate(u64::try_from(bits_per_second).unwrap_or(u64::MAX))
    }

    /// What is left after `other` is taken away, not below zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Decimal units with at most three digits: `734 MB`, `1.05 GB`, `999 B`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Decimal units: `80 Mbit/s`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s", "Ebit/s"])
    }
}

macro_rules! saturating_sum {
    ($($unit:ident)*) => {$(
        impl Add for $unit {
            type Output = Self;
            #[inline]
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }
        impl AddAssign for $unit {
            #[inline]
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl Sum for $unit {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::default(), Add::add)
            }
        }
    )*};
}
saturating_sum!(Bytes Packets);

fn write_scaled(f: &mut fmt::Formatter<'_>, value: u64, units: &[&str]) -> fmt::Result {
    let mut scaled = value as f64;
    let mut index = 0;
    while scaled >= 999.5 && index + 1 < units.len() {
        scaled /= 1000.0;
        index += 1;
    }
    let unit = units.get(index).copied().unwrap_or_default();
    let decimals = match (index, scaled) {
        (0, _) => 0,
        (_, small) if small < 9.995 => 2,
        (_, middle) if middle < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{scaled:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    write!(f, "{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_three_digits() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!(text(999), "999 B");
        assert_eq!(text(1_000), "1 kB");
        assert_eq!(text(734_003_200), "734 MB");
        assert_eq!(text(1_050_000_000), "1.05 GB");
        assert_eq!(text(u64::MAX), "18.4 EB");
        assert_eq!(Rate(80_000_000).to_string(), "80 Mbit/s");
    }

    #[test]
    fn a_rate_is_bits_over_seconds() {
        assert_eq!(Bytes(10_000_000).per(Duration::from_secs(1)), Rate(80_000_000));
        assert_eq!(Bytes(1).per(Duration::ZERO), Rate(0));
    }
}
