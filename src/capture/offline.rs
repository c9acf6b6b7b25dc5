//! Capture files: pcap and pcapng, from a path or from standard input.
//!
//! A file is read in large blocks, never mapped: a file that another program
//! cuts short while it is mapped would kill this one. Records are parsed in
//! place and handed out in batches that borrow the block.
//!
//! A damaged file is not an error: the records before the damage count, and
//! [`Reader::damage`] says what is wrong and where.

mod buffer;
mod owners;
mod pcap;
mod pcapng;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::attribution::Process;
use crate::packet::{Frame, LinkType};

use buffer::{Buffer, Fill};
use pcap::Pcap;
use pcapng::Pcapng;

/// A capture that is being read.
pub struct Reader {
    buffer: Buffer,
    /// How much of the buffer the last batch used.
    consumed: usize,
    state: State,
}

/// Records that were read together.
pub struct Batch<'a> {
    unread: &'a [u8],
    consumed: &'a mut usize,
    state: &'a mut State,
}

/// One record of a capture.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The frame.
    pub frame: Frame<'a>,
    /// Whose it is, where the capture says so.
    pub owner: Option<Arc<Process>>,
}

/// An interface that a capture describes; [`Frame::interface`] counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, where the capture has it.
    pub name: Option<String>,
    /// How its frames begin.
    pub link_type: LinkType,
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The file cannot be opened or its first bytes cannot be read.
    #[error("cannot open capture `{}`", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("`{}` is not a pcap or pcapng file{hint}", path.display())]
    Unrecognized {
        /// Which file.
        path: PathBuf,
        /// What it seems to be and what to do, or nothing.
        hint: &'static str,
    },
    /// The first header is not what it should be.
    #[error("cannot read the header of capture `{}`: {problem}", path.display())]
    Header {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// Where a capture stops making sense, and why.
#[derive(Debug, thiserror::Error)]
#[error("capture is damaged at byte {offset}: {problem}; the {frames} frames before it count")]
pub struct Damage {
    /// How many bytes of the file are sound.
    pub offset: u64,
    /// How many frames were read.
    pub frames: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file ends too soon.
    #[error("it ends in the middle of a record, {missing} bytes short")]
    CutShort {
        /// How many bytes are missing, at least.
        missing: usize,
    },
    /// No capture program writes such a record.
    #[error("a record claims {length} bytes, more than {limit}")]
    Oversized {
        /// The length in the record's header.
        length: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// The file's version is not one that is known.
    #[error("its version {major}.{minor} is not supported")]
    Version {
        /// The major version.
        major: u16,
        /// The minor version.
        minor: u16,
    },
    /// A pcapng block contradicts itself.
    #[error("a {block} block is malformed")]
    Block {
        /// Which kind of block.
        block: &'static str,
    },
    /// A packet names an interface that was not described.
    #[error("a packet is from interface {interface}, which is not described")]
    Interface {
        /// The interface's number in its section.
        interface: u32,
    },
    /// There is a limit to the interfaces that are kept.
    #[error("more than {limit} interfaces are described")]
    TooManyInterfaces {
        /// The most that is accepted.
        limit: usize,
    },
    /// The file cannot be read on.
    #[error("it cannot be read")]
    Io(#[source] std::io::Error),
}

struct State {
    format: Format,
    frames: u64,
    problem: Option<Problem>,
    damage: Option<Damage>,
}

enum Format {
    Pcap(Pcap),
    Pcapng(Box<Pcapng>),
}

/// What stands at the start of the unread bytes.
enum Step<'a> {
    /// A record, and how long it is in the file.
    Record(Record<'a>, usize),
    /// Something without a packet, and how long it is.
    Skip(usize),
    /// Too little to tell: at least so many bytes are needed.
    Incomplete(usize),
    /// Nothing that makes sense.
    Broken(Problem),
}

impl Reader {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self, OfflineError> {
        if path == Path::new("-") {
            return Self::new(std::io::stdin(), path);
        }
        let file = File::open(path).map_err(|source| OfflineError::Open { path: path.to_owned(), source })?;
        Self::new(file, path)
    }

    /// Reads a capture from anything; `name` is for messages.
    pub fn new(input: impl Read + Send + 'static, name: &Path) -> Result<Self, OfflineError> {
        let mut buffer = Buffer::new(Box::new(input));
        let (format, consumed) = loop {
            let wanted = match Format::recognize(buffer.unread()) {
                Recognized::Format(format, length) => break (format, length),
                Recognized::Incomplete(wanted) => wanted,
                Recognized::Foreign(hint) => {
                    return Err(OfflineError::Unrecognized { path: name.to_owned(), hint });
                }
                Recognized::Broken(problem) => {
                    return Err(OfflineError::Header { path: name.to_owned(), problem });
                }
            };
            match buffer.fill(wanted) {
                Ok(Fill::More) => {}
                Ok(Fill::End) => {
                    let present = buffer.unread().len();
                    let problem = Problem::CutShort { missing: wanted.saturating_sub(present) };
                    return Err(match present {
                        0 => OfflineError::Unrecognized { path: name.to_owned(), hint: ": it is empty" },
                        1..4 => OfflineError::Unrecognized { path: name.to_owned(), hint: ": it is too short" },
                        _ => OfflineError::Header { path: name.to_owned(), problem },
                    });
                }
                Err(source) => return Err(OfflineError::Open { path: name.to_owned(), source }),
            }
        };
        Ok(Self { buffer, consumed, state: State { format, frames: 0, problem: None, damage: None } })
    }

    /// The next records, or `None` at the end of the capture or of its sound
    /// part. What a batch leaves is in the next one.
    ///
    /// A batch holds what one read of the input gave: on a live pipe nothing
    /// waits for a block to fill. It may be empty.
    pub fn next_batch(&mut self) -> Option<Batch<'_>> {
        self.buffer.consume(std::mem::take(&mut self.consumed));
        loop {
            if let Some(problem) = self.state.problem.take() {
                self.fail(problem);
            }
            if self.state.damage.is_some() {
                return None;
            }
            let wanted = self.state.format.record_length(self.buffer.unread());
            if wanted <= self.buffer.unread().len() {
                return Some(Batch {
                    unread: self.buffer.unread(),
                    consumed: &mut self.consumed,
                    state: &mut self.state,
                });
            }
            match self.buffer.fill(wanted) {
                Ok(Fill::More) => {}
                Ok(Fill::End) if self.buffer.unread().is_empty() => return None,
                Ok(Fill::End) => {
                    let missing = wanted.saturating_sub(self.buffer.unread().len());
                    self.state.problem = Some(Problem::CutShort { missing });
                }
                Err(error) => self.state.problem = Some(Problem::Io(error)),
            }
        }
    }

    /// What is wrong with the capture, once [`Reader::next_batch`] has come to it.
    pub fn damage(&self) -> Option<&Damage> {
        self.state.damage.as_ref()
    }

    /// What is wrong with the capture, for keeping.
    pub fn into_damage(self) -> Option<Damage> {
        self.state.damage
    }

    /// How many bytes of the file were read so far.
    pub fn position(&self) -> u64 {
        self.buffer.offset()
    }

    /// How many frames were read so far.
    pub fn frames(&self) -> u64 {
        self.state.frames
    }

    /// The interfaces that were described so far.
    pub fn interfaces(&self) -> &[Interface] {
        self.state.format.interfaces()
    }

    fn fail(&mut self, problem: Problem) {
        let offset = self.buffer.offset();
        self.state.damage = Some(Damage { offset, frames: self.state.frames, problem });
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("offset", &self.buffer.offset()).field("frames", &self.state.frames).finish()
    }
}

impl<'a> Iterator for Batch<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        // Nearly every record, without a move from place to place in memory.
        if let Format::Pcap(pcap) = &self.state.format
            && let Some((frame, length)) = pcap.record(self.unread)
        {
            self.advance(length);
            self.state.frames = self.state.frames.wrapping_add(1);
            return Some(Record { frame, owner: None });
        }
        self.next_of_any()
    }
}

impl<'a> Batch<'a> {
    #[inline(never)]
    fn next_of_any(&mut self) -> Option<Record<'a>> {
        loop {
            let step = match &mut self.state.format {
                Format::Pcap(pcap) => pcap.step(self.unread),
                Format::Pcapng(pcapng) => pcapng.step(self.unread),
            };
            match step {
                Step::Record(record, length) => {
                    self.advance(length);
                    self.state.frames = self.state.frames.wrapping_add(1);
                    return Some(record);
                }
                Step::Skip(length) => self.advance(length),
                Step::Incomplete(_) => return None,
                Step::Broken(problem) => {
                    self.state.problem = Some(problem);
                    // Nothing after this can be read.
                    self.unread = &[];
                    return None;
                }
            }
        }
    }

    /// The interfaces that were described up to the record that was handed out last.
    #[inline]
    pub fn interfaces(&self) -> &[Interface] {
        self.state.format.interfaces()
    }

    #[inline]
    fn advance(&mut self, length: usize) {
        self.unread = self.unread.get(length..).unwrap_or_default();
        *self.consumed = self.consumed.saturating_add(length);
    }
}

enum Recognized {
    /// A capture, and how much of it the header takes.
    Format(Format, usize),
    /// Too little to tell: at least so many bytes are needed.
    Incomplete(usize),
    /// No capture, and what it may be.
    Foreign(&'static str),
    /// A capture that cannot be read.
    Broken(Problem),
}

impl Format {
    fn interfaces(&self) -> &[Interface] {
        match self {
            Self::Pcap(pcap) => pcap.interfaces(),
            Self::Pcapng(pcapng) => pcapng.interfaces(),
        }
    }

    fn recognize(bytes: &[u8]) -> Recognized {
        match bytes {
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => match Pcapng::recognize(bytes) {
                None => Recognized::Incomplete(12),
                Some(true) => Recognized::Format(Self::Pcapng(Box::default()), 0),
                Some(false) => Recognized::Foreign(""),
            },
            [0x1f, 0x8b, ..] => Recognized::Foreign(": it is compressed, try `zcat FILE | egret replay -`"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Recognized::Foreign(": it is compressed, try `zstdcat FILE | egret replay -`")
            }
            [0xfd, b'7', b'z', b'X', ..] => {
                Recognized::Foreign(": it is compressed, try `xzcat FILE | egret replay -`")
            }
            [_, _, _, _, ..] => Pcap::recognize(bytes),
            _ => Recognized::Incomplete(4),
        }
    }

    /// How many bytes the first record takes, as far as it can be told; 0 where it makes no sense.
    fn record_length(&mut self, unread: &[u8]) -> usize {
        let step = match self {
            Self::Pcap(pcap) => pcap.step(unread),
            Self::Pcapng(pcapng) => return pcapng.block_length(unread),
        };
        match step {
            Step::Incomplete(wanted) => wanted,
            Step::Record(..) | Step::Skip(_) | Step::Broken(_) => 0,
        }
    }
}

/// The longest packet that is accepted, as other readers have it.
const MAX_PACKET: u32 = 262_144;
