//! When to look into the rings again: at once when a packet comes, or, on a
//! busy link, after a rest that costs no frame.

use std::time::{Duration, Instant};

use crate::units::Bytes;

/// Follows how fast the rings fill.
#[derive(Debug)]
pub(super) struct Pace {
    /// The longest rest.
    latency: Duration,
    /// What one ring holds.
    ring: u64,
    /// Since when the counts below are counted.
    since: Instant,
    frames: usize,
    bytes: u64,
}

impl Pace {
    /// Rests for `latency` at most, of rings of this size each.
    pub(super) fn new(latency: Duration, ring: Bytes) -> Self {
        Self { latency, ring: ring.0, since: Instant::now(), frames: 0, bytes: 0 }
    }

    /// Notes what was taken out of the rings.
    pub(super) fn took(&mut self, frames: usize, bytes: u64) {
        self.frames += frames;
        self.bytes += bytes + frames as u64 * RING_HEADER;
    }

    /// How long to rest, now that the rings are empty; none where so little came that the next packet is worth a
    /// wake-up of its own.
    pub(super) fn rest(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let rest = self.rest_after(now.duration_since(self.since));
        (self.since, self.frames, self.bytes) = (now, 0, 0);
        rest
    }

    /// The rest after a round that took so long, the rest before it included.
    fn rest_after(&self, passed: Duration) -> Option<Duration> {
        if self.frames < BUSY_FRAMES {
            return None;
        }
        // As if all of it had gone through one ring.
        let share = (self.ring / RING_SHARE) as f64 / self.bytes.max(1) as f64;
        Some(self.latency.min(passed.mul_f64(share.min(1e6))))
    }
}

/// What a frame takes up in the ring beside its bytes (packet(7), `TPACKET_V3`), about.
const RING_HEADER: u64 = 96;

/// Rings may fill to one of so many parts during a rest.
const RING_SHARE: u64 = 4;

/// Fewer frames in a round are no busy link.
const BUSY_FRAMES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_link_rests_and_a_quiet_one_waits_for_its_next_packet() {
        let latency = Duration::from_millis(20);
        let after = |frames: usize, bytes: u64, millis| {
            let mut pace = Pace::new(latency, Bytes(16 << 20));
            pace.took(frames, bytes);
            pace.rest_after(Duration::from_millis(millis))
        };
        assert_eq!(after(0, 0, 200), None);
        assert_eq!(after(31, 31 * 1_500, 20), None);
        // A gigabit a second fills a quarter of the ring in 33 ms, ten gigabits in three.
        assert_eq!(after(1_780, 2_500_000, 20), Some(latency));
        let short = after(17_800, 25_000_000, 20).unwrap();
        assert!((2..4).contains(&short.as_millis()), "{short:?}");
    }

    #[test]
    fn a_round_counts_once() {
        let mut pace = Pace::new(Duration::from_millis(20), Bytes(16 << 20));
        pace.took(100, 100_000);
        assert!(pace.rest().is_some());
        assert_eq!(pace.rest(), None);
    }
}
