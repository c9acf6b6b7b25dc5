//! Has the processor fetch the next frames of a ring while one is worked on.
//!
//! What the ring holds was written by another processor, so each frame's
//! headers are some three lines that are in no cache of this one. Waiting for
//! them would be the larger part of a capture's work.

use crate::memory::prefetch;

/// Follows the frames through a ring.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Where the last frame ended.
    end: usize,
}

impl Ahead {
    /// Fetches what follows a frame: the next one, and the one after it, which is taken to be as long.
    #[inline]
    pub(super) fn fetch_after(&mut self, frame: &[u8]) {
        let start = frame.as_ptr().addr();
        let gap = start.wrapping_sub(self.end);
        self.end = start.wrapping_add(frame.len());
        fetch(frame.as_ptr().wrapping_add(frame.len()));
        // Between two frames are the headers of the ring; a new block lies elsewhere.
        if gap <= LARGEST_GAP {
            fetch(frame.as_ptr().wrapping_add(2 * frame.len() + gap));
        }
    }
}

/// The lines of a ring's header and of what a frame begins with.
#[inline]
fn fetch(at: *const u8) {
    for line in 0..LINES {
        prefetch(at.wrapping_add(line * LINE));
    }
}

const LINE: usize = 64;
const LINES: usize = 3;

/// The headers of the ring and the room to align them (packet(7), `TPACKET_V3`) take less.
const LARGEST_GAP: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_frames_wherever_they_lie() {
        let ring = vec![7_u8; 4_096];
        let mut ahead = Ahead::default();
        for (start, end) in [(100, 1_500), (1_600, 3_000), (3_100, 4_096), (0, 60), (4_096, 4_096)] {
            ahead.fetch_after(&ring[start..end]);
            assert_eq!(ahead.end, ring.as_ptr().addr() + end);
        }
    }
}
