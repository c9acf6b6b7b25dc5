//! Entries in chunks: growing moves nothing and leaves no half-empty block behind.

use std::ops::{Index, IndexMut};

/// Entries by number.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// Of a length that is known, so that a number needs one comparison.
    chunks: Vec<Box<[T; CHUNK]>>,
    len: u32,
}

const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T: Default> Slab<T> {
    /// Adds an entry and gives its number.
    pub(super) fn push(&mut self, entry: T) -> u32 {
        let index = self.len;
        if (index as usize).is_multiple_of(CHUNK) {
            let empty: Box<[T]> = std::iter::repeat_with(T::default).take(CHUNK).collect();
            self.chunks.extend(empty.try_into().ok());
        }
        self[index] = entry;
        self.len += 1;
        index
    }
}

impl<T> Slab<T> {
    /// How many entries there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The entry of a number, where there is one; one that is still to be added may be found as its default.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        Some(&self.chunks.get((index >> CHUNK_BITS) as usize)?[index as usize % CHUNK])
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        &self.chunks[(index >> CHUNK_BITS) as usize][index as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[(index >> CHUNK_BITS) as usize][index as usize % CHUNK]
    }
}
