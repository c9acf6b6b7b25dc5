//! How long to wait before the next attempt.
//!
//! Pure: chance comes in as an argument.

use std::time::Duration;

use crate::time::Timestamp;

/// Exponential steps with full jitter: any moment between now and the step's
/// end is as good as another, so that many hosts do not return together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The length of the first step.
    pub base: Duration,
    /// The length that no step exceeds.
    pub cap: Duration,
}

impl Backoff {
    /// For receivers that fail for a while.
    pub const TRANSIENT: Self = Self { base: Duration::from_secs(2), cap: Duration::from_secs(15 * 60) };
    /// For receivers that need a person: a wrong password, a redirection.
    pub const MISCONFIGURED: Self = Self { base: Duration::from_secs(5 * 60), cap: Duration::from_secs(3600) };

    /// For receivers that point elsewhere: nothing but a changed configuration helps.
    pub const MOVED: Self = Self { base: Duration::from_secs(3600), cap: Duration::from_secs(3600) };

    /// The wait after failure number `failures` (from 1), where `chance` is within 0 and 1.
    pub fn wait(self, failures: u32, chance: f64) -> Duration {
        self.step(failures).mul_f64(chance.clamp(0.0, 1.0))
    }

    /// The longest wait after failure number `failures`.
    pub fn step(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }
}

/// Reads the value of `Retry-After` (RFC 9110, section 10.2.3): seconds, or a
/// date; held at [`LONGEST_RETRY_AFTER`].
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
            Timestamp::from_secs(date.as_second()).since(now)
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// A receiver that asks for more is asked again after this time all the same.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A token bucket: so many at once, so many a second in the long run.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenBucket {
    configured: f64,
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Timestamp,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: f64, burst: u32, now: Timestamp) -> Self {
        let burst = f64::from(burst.max(1));
        let per_second = per_second.max(0.001);
        Self { configured: per_second, per_second, burst, tokens: burst, filled_at: now }
    }

    /// Takes one token, or says when there will be one.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let elapsed = now.since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        self.filled_at = self.filled_at.max(now);
        if self.tokens >= 1.0 - EPSILON {
            self.tokens = (self.tokens - 1.0).max(0.0);
            return Ok(());
        }
        let missing = Duration::from_secs_f64((1.0 - self.tokens) / self.per_second);
        Err(self.filled_at.after(missing))
    }

    /// A bucket for a receiver that had none and asked for patience: as fast as machines are fed, for a start.
    pub fn of_the_throttled(now: Timestamp) -> Self {
        Self::new(UNHURRIED, 10, now)
    }

    /// Whether it allows what was configured.
    pub fn is_recovered(&self) -> bool {
        self.per_second >= self.configured
    }

    /// The receiver said that it is too much: half the rate, not below a hundredth of the configured one.
    pub fn halve(&mut self) {
        self.per_second = (self.per_second / 2.0).max(self.configured / 100.0);
    }

    /// The receiver took one: back towards the configured rate.
    pub fn recover(&mut self) {
        self.per_second = (self.per_second * 1.1).min(self.configured);
    }
}

/// Deliveries a second to a receiver without a configured rate, once it has asked for patience.
const UNHURRIED: f64 = 100.0;
/// Tokens are summed from fractions; a rounding error must not cost one.
const EPSILON: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_up_to_the_cap_and_jitter_is_full() {
        let seconds = |failures| Backoff::TRANSIENT.step(failures).as_secs();
        assert_eq!([1, 2, 3, 9, 10, 11, 4_000_000_000].map(seconds), [2, 4, 8, 512, 900, 900, 900]);
        assert_eq!(Backoff::TRANSIENT.wait(3, 0.0), Duration::ZERO);
        assert_eq!(Backoff::TRANSIENT.wait(3, 0.5), Duration::from_secs(4));
    }

    #[test]
    fn both_forms_of_retry_after() {
        let now: Timestamp = "2026-05-04T02:11:09Z".parse().unwrap();
        let parse = |value| parse_retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(parse("120"), Some(120));
        assert_eq!(parse("Mon, 04 May 2026 02:12:09 GMT"), Some(60));
        assert_eq!(parse("Mon, 04 May 2026 02:10:09 GMT"), Some(0), "a date that has passed");
        assert_eq!(parse("86400"), Some(3600), "held at an hour");
        assert_eq!(parse("soon"), None);
        assert_eq!(parse("-5"), None);
    }

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let at = |millis: i64| Timestamp::from_nanos(millis * 1_000_000);
        let mut bucket = TokenBucket::new(2.0, 3, at(0));
        assert_eq!([bucket.take(at(0)), bucket.take(at(0)), bucket.take(at(0))], [Ok(()); 3]);
        assert_eq!(bucket.take(at(0)), Err(at(500)));
        assert_eq!(bucket.take(at(500)), Ok(()));
        bucket.halve();
        assert_eq!(bucket.take(at(500)), Err(at(1500)));
        for _ in 0..50 {
            bucket.recover();
        }
        assert_eq!(bucket.take(at(500)), Err(at(1000)));
        assert_eq!(bucket.take(at(0)), Err(at(1000)), "a clock that steps back costs nothing");
    }
}
