//! `egret record`: a capture whose packets name their owners.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, never, select_biased, tick};

use crate::attribution::Process;
use crate::capture::live::{Capture, Payloads};
use crate::capture::writer::Writer;
use crate::cli::exit::Exit;
use crate::cli::input::{self, LiveArguments};
use crate::cli::terminal;
use crate::config::{Settings, SourceKind};
use crate::flow::Namespace;
use crate::packet::Frame;
use crate::resolve::{Describer, ResolverSettings, Service};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::control::{self, Control};
use crate::runtime::record::{RecordCounts, Recorder};
use crate::runtime::source::{KernelSettings, Source};
use crate::time::Timestamp;
use crate::units::Bytes;

/// What `egret record` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// File to write, pcapng; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// Stop after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Stop when the file has this many bytes
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
    /// How much of each frame to keep
    #[arg(long, value_name = "BYTES", default_value_t = 262_144)]
    snaplen: u32,
    #[command(flatten)]
    source: LiveArguments,
}

/// Records until it is told to stop.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut settings = Settings::load(None).map_err(input::say_config_error)?;
    arguments.source.apply(&mut settings);
    settings.capture.snaplen = Bytes(arguments.snaplen.into());
    settings.capture.payloads = Payloads::All;
    let clock = SystemClock::start();
    let (_sender, control) = control::from_signals().context("cannot handle signals")?;
    let owners = Owners::open(settings.source, clock)?;
    let writer = Writer::new(open(&arguments.write)?, arguments.snaplen).context("cannot write the capture")?;
    let local = input::live_engine(&settings)?.local;
    let recorder = Recorder::new(writer, local, owners.namespace()?, owners.hold());
    let capture = Capture::open(&settings.capture)?;
    terminal::note(&format!("recording {}, owners by {}", settings.capture.interfaces.join(", "), owners.name()));
    let deadline = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let counts = record(&capture, &owners, recorder, &control, deadline, arguments.max_bytes, clock)
        .with_context(|| format!("cannot write `{}`", arguments.write.display()))?;
    terminal::note(&format!("{} frames, {} with their owner, by {}", counts.frames, counts.owned, owners.name()));
    let losses = capture.losses();
    if losses.kernel_dropped > 0 {
        terminal::warning(&format!("{} frames were lost", losses.kernel_dropped));
    }
    Ok(Exit::Fine)
}

/// Who says whose a frame is.
enum Owners {
    Kernel(Source),
    LookedUp(Service),
}

impl Owners {
    fn open(kind: SourceKind, clock: SystemClock) -> anyhow::Result<Self> {
        if kind != SourceKind::Pcap {
            match Source::kernel(KernelSettings::default(), clock) {
                Ok(source) => return Ok(Self::Kernel(source)),
                Err(error) if kind == SourceKind::Ebpf => return Err(error.into()),
                Err(error) => terminal::warning(&format!("owners are looked up and may be missed: {error}")),
            }
        }
        Ok(Self::LookedUp(Service::start(ResolverSettings::default()).context("cannot look up owners")?))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Kernel(_) => "the kernel source",
            Self::LookedUp(_) => "look-ups",
        }
    }

    /// The namespace that is captured in. Look-ups take flows of a capture as those of their own.
    fn namespace(&self) -> anyhow::Result<Namespace> {
        match self {
            Self::Kernel(_) => {
                let file = std::fs::metadata("/proc/self/ns/net").context("cannot tell the network namespace")?;
                Ok(Namespace(u32::try_from(file.ino()).unwrap_or(0)))
            }
            Self::LookedUp(_) => Ok(Namespace::default()),
        }
    }

    /// How long a frame waits for its owner.
    fn hold(&self) -> Duration {
        match self {
            Self::Kernel(_) => Duration::from_secs(1),
            Self::LookedUp(_) => Duration::from_secs(2),
        }
    }
}

fn record<W: Write>(
    capture: &Capture,
    owners: &Owners,
    mut recorder: Recorder<W>,
    control: &Receiver<Control>,
    deadline: Option<Instant>,
    max_bytes: Option<u64>,
    clock: SystemClock,
) -> io::Result<RecordCounts> {
    let heartbeat = tick(Duration::from_millis(50));
    let describer = Describer::start(Path::new("/"))?;
    let (counts, answers) = match owners {
        Owners::Kernel(source) => (source.counts(), never()),
        Owners::LookedUp(service) => (never(), service.answers().clone()),
    };
    let describe = |process: Option<Arc<Process>>| {
        // A question that finds no room leaves its container without a name.
        let _ = process.is_some_and(|process| describer.ask(process));
    };
    let mut end = deadline;
    // Frames come out of the kernel some time after their moment, and wait for
    // their owners: the loop goes on for that long, and takes no later frame.
    let mut ended: Option<Timestamp> = None;
    loop {
        select_biased! {
            recv(control) -> message => if matches!(message, Ok(Control::Stop) | Err(_)) {
                end = end.map(|end| end.min(Instant::now())).or(Some(Instant::now()));
            },
            recv(counts) -> batch => if let Ok(batch) = batch {
                for update in &batch.updates {
                    describe(recorder.take_owner(update.key, &update.attribution, batch.timestamp));
                }
            },
            recv(answers) -> answer => if let Ok(answer) = answer {
                describe(recorder.take_owner(answer.key, &answer.attribution, clock.wall()));
            },
            recv(describer.answers()) -> found => if let Ok(found) = found {
                recorder.take_description(&found.process, &found.described);
            },
            recv(capture.batches()) -> batch => if let Ok(batch) = batch {
                let wanted = |frame: &Frame<'_>| ended.is_none_or(|ended| frame.timestamp <= ended);
                for frame in batch.frames().filter(wanted) {
                    if let (Some(lookup), Owners::LookedUp(service)) = (recorder.take_frame(&frame), owners) {
                        // A question that finds no room leaves its flow without an owner.
                        let _ = service.ask(lookup);
                    }
                }
            },
            recv(heartbeat) -> _ => recorder.write_until(clock.wall(), interface_name)?,
        }
        if max_bytes.is_some_and(|most| recorder.length() >= most) {
            break;
        }
        if ended.is_none() && end.is_some_and(|end| Instant::now() >= end) {
            ended = Some(clock.wall());
        }
        if end.is_some_and(|end| Instant::now() >= end + owners.hold()) {
            break;
        }
    }
    // On a busy machine the last frames may still be in the kernel's ring.
    capture.stop();
    let last = Instant::now() + LAST_FRAMES;
    while let (None, Ok(batch)) = (max_bytes, capture.batches().recv_deadline(last)) {
        let wanted = |frame: &Frame<'_>| ended.is_none_or(|ended| frame.timestamp <= ended);
        for frame in batch.frames().filter(wanted) {
            // Its owner is known by now, or will not become known any more.
            let _ = recorder.take_frame(&frame);
        }
    }
    Ok(recorder.finish(interface_name)?.1)
}

/// How long the last frames may take out of the kernel.
const LAST_FRAMES: Duration = Duration::from_secs(2);

fn interface_name(number: u32) -> Option<String> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    rustix::net::netdevice::index_to_name_inlined(&socket, number).ok().map(|name| name.as_str().to_owned())
}

/// A capture holds what people wrote: only its owner may read it.
fn open(path: &Path) -> anyhow::Result<BufWriter<Box<dyn Write>>> {
    let out: Box<dyn Write> = if path == Path::new("-") {
        if io::stdout().is_terminal() {
            bail!("a capture is not for a terminal: name a file, or a pipe after `-w -`");
        }
        Box::new(io::stdout().lock())
    } else {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        Box::new(file.with_context(|| format!("cannot write `{}`", path.display()))?)
    };
    Ok(BufWriter::new(out))
}
