//! A window on the input that moves forward, a large block at a time.

use std::io::{ErrorKind, Read};

/// The unread part of the input, as far as it was read.
pub(super) struct Buffer {
    input: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Where `start` is in the input.
    offset: u64,
}

/// What [`Buffer::fill`] found.
pub(super) enum Fill {
    /// More bytes, though perhaps not yet all that are wanted.
    More,
    /// The end of the input.
    End,
}

impl Buffer {
    pub(super) fn new(input: Box<dyn Read + Send>) -> Self {
        Self { input, bytes: vec![0; BLOCK], start: 0, end: 0, offset: 0 }
    }

    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Where the unread part begins in the input.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.end.saturating_sub(self.start));
        self.start = self.start.saturating_add(length);
        self.offset = self.offset.saturating_add(length as u64);
    }

    /// Reads once, with room for `wanted` unread bytes in all.
    pub(super) fn fill(&mut self, wanted: usize) -> std::io::Result<Fill> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end = self.end.saturating_sub(self.start);
        self.start = 0;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.next_multiple_of(BLOCK), 0);
        }
        loop {
            let room = self.bytes.get_mut(self.end..).unwrap_or_default();
            match self.input.read(room) {
                Ok(0) => return Ok(Fill::End),
                Ok(length) => {
                    self.end = self.end.saturating_add(length).min(self.bytes.len());
                    return Ok(Fill::More);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Half of what a second-level cache usually holds, so that a block is parsed while it is there.
const BLOCK: usize = 256 * 1024;
