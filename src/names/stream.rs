//! The first octets of a byte stream whose pieces arrive in any order.

use smallvec::SmallVec;

/// Octets from the start of a stream, with holes.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The sequence number of the first octet held.
    base: Option<u32>,
    bytes: Vec<u8>,
    /// Which stretches of `bytes` have arrived, in order, not touching.
    arrived: SmallVec<[(usize, usize); 2]>,
}

impl Stream {
    /// Adds a TCP segment. What lies too far from the rest is not kept.
    pub(super) fn add_segment(&mut self, sequence: u32, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let base = *self.base.get_or_insert(sequence);
        let distance = sequence.wrapping_sub(base).cast_signed();
        match usize::try_from(distance) {
            Ok(offset) => self.add(offset, data),
            Err(_) => self.add_before(distance.unsigned_abs() as usize, sequence, data),
        }
    }

    /// Adds what stands at `offset`; of two that overlap the first counts.
    pub(super) fn add(&mut self, offset: usize, data: &[u8]) {
        let end = offset.saturating_add(data.len()).min(MAX_BYTES);
        if offset >= end || self.arrived.len() >= MAX_STRETCHES {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        for at in offset..end {
            let known = self.arrived.iter().any(|(from, to)| (*from..*to).contains(&at));
            if !known && let (Some(place), Some(octet)) = (self.bytes.get_mut(at), data.get(at - offset)) {
                *place = *octet;
            }
        }
        self.arrived.push((offset, end));
        self.arrived.sort_unstable();
        let mut joined: SmallVec<[(usize, usize); 2]> = SmallVec::new();
        for &(from, to) in &self.arrived {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        self.arrived = joined;
    }

    /// The octets from the start to the first hole.
    pub(super) fn start(&self) -> &[u8] {
        match self.arrived.first() {
            Some(&(0, to)) => self.bytes.get(..to).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Whether nothing more can be kept.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_BYTES || self.arrived.len() >= MAX_STRETCHES
    }

    /// Forgets the first octets, which have been read.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        self.bytes.drain(..count);
        self.base = self.base.map(|base| base.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX)));
        self.arrived = self
            .arrived
            .iter()
            .filter(|(_, to)| *to > count)
            .map(|(from, to)| (from.saturating_sub(count), to - count))
            .collect();
    }

    fn add_before(&mut self, distance: usize, sequence: u32, data: &[u8]) {
        if distance > MAX_BYTES || self.arrived.is_empty() {
            return;
        }
        self.bytes.splice(..0, std::iter::repeat_n(0, distance));
        self.bytes.truncate(MAX_BYTES);
        self.arrived = self
            .arrived
            .iter()
            .map(|(from, to)| (from + distance, (to + distance).min(MAX_BYTES)))
            .filter(|(from, to)| from < to)
            .collect();
        self.base = Some(sequence);
        self.add(0, data);
    }
}

/// The largest ClientHello is one TLS record; those of post-quantum size have 1.8 kB.
const MAX_BYTES: usize = 16_384 + 5;

/// Holes in a stream that is still read.
const MAX_STRETCHES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_of_two_versions_counts() {
        let mut stream = Stream::default();
        stream.add(2, b"CD");
        assert_eq!(stream.start(), b"");
        stream.add(0, b"abcdef");
        assert_eq!(stream.start(), b"abCDef");
        stream.add(usize::MAX, b"x");
        assert_eq!(stream.start(), b"abCDef");
        stream.consume(3);
        assert_eq!(stream.start(), b"Def");
    }

    proptest! {
        #[test]
        fn segments_in_any_order_give_the_stream(
            start in any::<u32>(),
            cuts in proptest::collection::vec(0usize..200, 0..8),
            order in any::<u64>(),
        ) {
            let whole: Vec<u8> = (0..200u8).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().chain([0, whole.len()]).collect();
            cuts.sort_unstable();
            let mut pieces: Vec<(usize, usize)> = cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
            let turn = order as usize % pieces.len();
            pieces.rotate_left(turn);
            if order & 1 == 1 {
                pieces.reverse();
            }
            let mut stream = Stream::default();
            for (from, to) in pieces {
                stream.add_segment(start.wrapping_add(from as u32), &whole[from..to]);
                stream.add_segment(start.wrapping_add(from as u32), &whole[from..to]);
            }
            prop_assert_eq!(stream.start(), &whole[..]);
        }
    }
}
