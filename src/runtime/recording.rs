//! Recordings of flow deltas: files of JSON lines, compressed where the name ends in `.zst`.
//!
//! The first line says whose recording it is, the last that it is whole; both
//! may be missing, and several recordings in one file are one after another.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::attribution::ProcessKey;
use crate::engine::{Engine, FlowDelta, Output};
use crate::flow::{CaptureLosses, FlowKey};
use crate::rule::Host;
use crate::time::Timestamp;
use crate::view::DeltaLine;

/// Writes a recording.
#[derive(Debug)]
pub struct DeltaWriter {
    out: Out,
    path: PathBuf,
    deltas: u64,
    /// The event time at which everything before was last on its way to the disk.
    flushed: Timestamp,
}

/// Reads a recording.
#[derive(Debug)]
pub struct DeltaReader {
    lines: Lines,
    path: PathBuf,
    /// The first line, if it is not about the recording.
    first: Option<String>,
    line: u64,
    host: Option<Host>,
    /// Numbers of flows begin anew in each recording of a file.
    section: u64,
    /// The flows of lines without a number.
    unnumbered: HashMap<(FlowKey, ProcessKey, Vec<u8>), u64>,
    whole: bool,
    headed: bool,
    /// What this recording lost, and those before it in the file.
    losses: CaptureLosses,
    losses_before: CaptureLosses,
}

/// Why a recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be made.
    #[error("cannot write flows to `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be opened or read.
    #[error("cannot read flows from `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is no delta.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A later version of the format.
    #[error("`{}` is a recording of version {version}, and this program reads version {VERSION}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The recording ends before its end.
    #[error("`{}` is cut off after line {line}; what comes before it counts", path.display())]
    CutOff {
        /// Which file.
        path: PathBuf,
        /// The last line that could be read.
        line: u64,
    },
}

/// What a recording tells.
#[derive(Debug)]
pub enum Recorded {
    /// What was told of a flow.
    Delta(FlowDelta),
    /// What the source had lost by then, in all recordings of the file.
    Losses(CaptureLosses),
}

/// What was read of a recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeltaCounts {
    /// Deltas.
    pub deltas: u64,
    /// Bytes out and in.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    recording: Recording,
}

#[derive(Serialize, Deserialize)]
struct Recording {
    version: u32,
    #[serde(default)]
    host: HostLine,
}

#[derive(Default, Serialize, Deserialize)]
struct HostLine {
    #[serde(default)]
    name: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LossLine {
    at: Timestamp,
    losses: CaptureLosses,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    summary: Summary,
}

#[derive(Serialize, Deserialize)]
struct Summary {
    deltas: u64,
}

enum Out {
    Plain(BufWriter<File>),
    Compressed(Box<zstd::Encoder<'static, BufWriter<File>>>),
}

struct Lines(Box<dyn BufRead + Send>);

/// The format that this program writes and reads.
const VERSION: u32 = 1;

/// A line of a recording is no longer than this, in bytes.
const LONGEST_LINE: u64 = 4 << 20;

/// zstd's usual level: deltas of one owner compress well at any.
const LEVEL: i32 = 3;

impl DeltaWriter {
    /// Begins a recording of a host's flows.
    pub fn create(path: &Path, host: &Host) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::Write { path: path.to_owned(), source };
        // Command lines have secrets in them, and nothing is covered here: rules look at the whole.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
        let file = BufWriter::new(file);
        let out = match is_compressed_name(path) {
            true => Out::Compressed(Box::new(zstd::Encoder::new(file, LEVEL).map_err(failed)?)),
            false => Out::Plain(file),
        };
        let mut writer = Self { out, path: path.to_owned(), deltas: 0, flushed: Timestamp::EPOCH };
        let Host { name, id, tags } = host.clone();
        writer.line(&Header { recording: Recording { version: VERSION, host: HostLine { name, id, tags } } })?;
        Ok(writer)
    }

    /// Adds a delta.
    pub fn write(&mut self, delta: &FlowDelta) -> Result<(), RecordingError> {
        self.deltas += 1;
        self.line(&DeltaLine::of(delta))?;
        if delta.at.since(self.flushed) >= FLUSH_EVERY {
            self.flushed = delta.at;
            let done = match &mut self.out {
                Out::Plain(file) => file.flush(),
                Out::Compressed(encoder) => encoder.flush(),
            };
            done.map_err(|source| RecordingError::Write { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// Adds what the source lost so far.
    pub fn write_losses(&mut self, at: Timestamp, losses: CaptureLosses) -> Result<(), RecordingError> {
        self.line(&LossLine { at, losses })
    }

    /// Says that the recording is whole, and gives the number of its deltas.
    pub fn finish(mut self) -> Result<u64, RecordingError> {
        self.line(&Trailer { summary: Summary { deltas: self.deltas } })?;
        let done = match self.out {
            Out::Plain(mut file) => file.flush(),
            Out::Compressed(encoder) => encoder.finish().and_then(|mut file| file.flush()),
        };
        done.map_err(|source| RecordingError::Write { path: self.path, source })?;
        Ok(self.deltas)
    }

    fn line(&mut self, content: &impl Serialize) -> Result<(), RecordingError> {
        let out: &mut dyn Write = match &mut self.out {
            Out::Plain(file) => file,
            Out::Compressed(encoder) => encoder,
        };
        let written = serde_json::to_writer(&mut *out, content).map_err(io::Error::from);
        written
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|source| RecordingError::Write { path: self.path.clone(), source })
    }
}

impl DeltaReader {
    /// Opens a recording; `-` is standard input. Whether it is compressed is told by its content.
    pub fn open(path: &Path, progress: &ProgressBar) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::Read { path: path.to_owned(), source };
        let raw: Box<dyn Read + Send> = match path.as_os_str() == "-" {
            true => Box::new(io::stdin()),
            false => Box::new(progress.wrap_read(File::open(path).map_err(failed)?)),
        };
        let mut raw = BufReader::new(raw);
        let is_compressed = raw.fill_buf().map_err(failed)?.starts_with(&ZSTD_MAGIC);
        let lines: Box<dyn BufRead + Send> = match is_compressed {
            true => Box::new(BufReader::new(zstd::Decoder::with_buffer(raw).map_err(failed)?)),
            false => Box::new(raw),
        };
        let mut reader = Self {
            lines: Lines(lines),
            path: path.to_owned(),
            first: None,
            line: 0,
            host: None,
            section: 0,
            unnumbered: HashMap::new(),
            whole: false,
            headed: false,
            losses: CaptureLosses::default(),
            losses_before: CaptureLosses::default(),
        };
        if let Some(text) = reader.read_line()? {
            match serde_json::from_str::<Header>(&text) {
                Ok(header) => reader.begin(header)?,
                Err(_) => reader.first = Some(text),
            }
        }
        Ok(reader)
    }

    /// Whose flows they are, where the recording says so.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The next delta; `None` at the end.
    ///
    /// # Errors
    /// Where a line is no delta, and [`RecordingError::CutOff`] where the recording ends before its end.
    pub fn next_delta(&mut self) -> Result<Option<FlowDelta>, RecordingError> {
        loop {
            match self.next_record()? {
                Some(Recorded::Delta(delta)) => return Ok(Some(delta)),
                Some(Recorded::Losses(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next delta or loss; `None` at the end.
    ///
    /// # Errors
    /// As [`DeltaReader::next_delta`].
    pub fn next_record(&mut self) -> Result<Option<Recorded>, RecordingError> {
        loop {
            let text = match self.first.take() {
                Some(text) => Some(text),
                None => self.read_line()?,
            };
            let Some(text) = text else {
                let cut_off = self.headed && !self.whole;
                self.whole = true;
                return if cut_off { Err(self.cut_off()) } else { Ok(None) };
            };
            if text.trim().is_empty() {
                continue;
            }
            match serde_json::from_str::<DeltaLine>(&text) {
                Ok(line) => {
                    self.whole = false;
                    let delta = line.into_delta().map_err(|error| self.problem(error.to_string()))?;
                    return Ok(Some(Recorded::Delta(self.numbered(delta))));
                }
                Err(error) => {
                    if let Ok(line) = serde_json::from_str::<LossLine>(&text) {
                        self.whole = false;
                        self.losses = line.losses;
                        return Ok(Some(Recorded::Losses(self.losses_before + self.losses)));
                    } else if serde_json::from_str::<Trailer>(&text).is_ok() {
                        self.whole = true;
                    } else if let Ok(header) = serde_json::from_str::<Header>(&text) {
                        self.begin(header)?;
                    } else if error.is_eof() && !text.ends_with('\n') {
                        self.whole = true;
                        self.line -= 1;
                        return Err(self.cut_off());
                    } else {
                        let text = error.to_string();
                        let problem = text.split_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
                        // All the keys that there are say less than the one that is wrong.
                        let problem = problem.split_once(", expected one of").map_or(problem, |(problem, _)| problem);
                        return Err(self.problem(format!("column {}: {problem}", error.column())));
                    }
                }
            }
        }
    }

    /// Hands everything that is left to an engine, and what comes of it to `perform`.
    ///
    /// # Errors
    /// As [`DeltaReader::next_delta`], and where `perform` fails.
    pub fn feed<E: From<RecordingError>>(
        &mut self,
        engine: &mut Engine,
        counts: &mut DeltaCounts,
        perform: &mut impl FnMut(Output) -> Result<(), E>,
    ) -> Result<(), E> {
        let lost_before = engine.statistics().losses;
        while let Some(record) = self.next_record()? {
            match record {
                Recorded::Delta(delta) => {
                    counts.deltas += 1;
                    counts.bytes += delta.counters.bytes_out.0 + delta.counters.bytes_in.0;
                    engine.handle_delta(delta);
                }
                Recorded::Losses(losses) => engine.handle_losses(&(lost_before + losses)),
            }
            while let Some(output) = engine.poll_output() {
                perform(output)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, header: Header) -> Result<(), RecordingError> {
        let Recording { version, host: HostLine { name, id, tags } } = header.recording;
        if version > VERSION {
            return Err(RecordingError::Version { path: self.path.clone(), version });
        }
        self.host = Some(Host { name, id, tags });
        self.section += 1;
        self.losses_before = self.losses_before + std::mem::take(&mut self.losses);
        (self.headed, self.whole) = (true, false);
        Ok(())
    }

    /// Gives a flow without a number one of its own: its ends and its owner tell it from others.
    fn numbered(&mut self, mut delta: FlowDelta) -> FlowDelta {
        if delta.flow != 0 {
            delta.flow = (delta.flow & ((1 << SECTION_BITS) - 1)) | self.section << SECTION_BITS;
            return delta;
        }
        let process = delta.attribution.process();
        let owner = process.map(|process| process.key).unwrap_or_default();
        let executable = process.and_then(|process| process.executable_path()).unwrap_or_default().to_vec();
        let next = self.unnumbered.len() as u64 | UNNUMBERED;
        delta.flow = *self.unnumbered.entry((delta.key, owner, executable)).or_insert(next);
        delta
    }

    fn read_line(&mut self) -> Result<Option<String>, RecordingError> {
        let mut text = String::new();
        match self.lines.0.by_ref().take(LONGEST_LINE).read_line(&mut text) {
            Ok(0) => Ok(None),
            Ok(_) if text.len() as u64 == LONGEST_LINE => {
                self.line += 1;
                Err(self.problem("the line is too long".to_owned()))
            }
            Ok(_) => {
                self.line += 1;
                Ok(Some(text))
            }
            // A compressed file that was cut off has no last frame.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.whole = true;
                Err(self.cut_off())
            }
            Err(source) => Err(RecordingError::Read { path: self.path.clone(), source }),
        }
    }

    fn problem(&self, problem: String) -> RecordingError {
        RecordingError::Line { path: self.path.clone(), line: self.line, problem }
    }

    fn cut_off(&self) -> RecordingError {
        RecordingError::CutOff { path: self.path.clone(), line: self.line }
    }
}

fn is_compressed_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Compressed(_) => "Compressed",
        })
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

/// A recorder that is killed loses no more than this.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Flows of one recording, and recordings of one file, that are told apart.
const SECTION_BITS: u32 = 40;
const UNNUMBERED: u64 = 1 << 63;
