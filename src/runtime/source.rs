//! The live source in use: which one was asked for, which one it became, and why.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, never};
#[cfg(feature = "ebpf")]
use tracing::info;
use tracing::warn;

use crate::alert::Problem;
use crate::capture::CountBatch;
use crate::capture::live::{ANY, Batch, Capture, CaptureSettings, LiveError};
use crate::config::SourceKind;
use crate::flow::CaptureLosses;
use crate::rule::Severity;
use crate::runtime::clock::SystemClock;

/// An open live source.
#[derive(Debug)]
pub struct Source {
    handle: Handle,
    /// Why the kernel source is not used, where it was wanted.
    fallback: Option<String>,
    /// What works less well on this kernel.
    limitation: Option<String>,
    /// Whether several interfaces are captured.
    several: bool,
}

#[derive(Debug)]
enum Handle {
    /// Frames, whose owners are looked up.
    Pcap(Capture),
    /// Counts with owners.
    #[cfg(feature = "ebpf")]
    Kernel(crate::capture::ebpf::Reader),
}

/// What the kernel source is told.
#[derive(Debug, Clone, Copy)]
pub struct KernelSettings {
    /// Whether senders on packet sockets, whose frames pass beside all others, are counted by process.
    pub packet_sockets: bool,
}

impl Default for KernelSettings {
    fn default() -> Self {
        Self { packet_sockets: true }
    }
}

/// Why no source could be opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// libpcap cannot capture.
    #[error(transparent)]
    Pcap(#[from] LiveError),
    /// The kernel programs cannot be used.
    #[error("the kernel source cannot be used: {reason}")]
    Kernel {
        /// Which need failed.
        reason: String,
    },
}

impl Source {
    /// Opens the source that was asked for.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(
        kind: SourceKind,
        settings: &CaptureSettings,
        kernel_settings: KernelSettings,
        clock: SystemClock,
    ) -> Result<Self, SourceError> {
        let wants_frames = settings.filter.is_some() || settings.interfaces.iter().any(|name| name != ANY);
        match kind {
            SourceKind::Pcap => Self::pcap(settings),
            SourceKind::Ebpf if wants_frames => Err(SourceError::Kernel { reason: ALL_INTERFACES.to_owned() }),
            SourceKind::Ebpf => Self::kernel(kernel_settings, clock),
            // Not a fallback: an interface or a filter can only mean libpcap.
            SourceKind::Auto if wants_frames => Self::pcap(settings),
            SourceKind::Auto => match kernel(kernel_settings, clock) {
                Ok((handle, limitation)) => Ok(Self { handle, fallback: None, limitation, several: false }),
                Err(reason) => {
                    warn!(%reason, "the kernel source cannot be used: capturing with libpcap, which may miss owners");
                    Ok(Self { fallback: Some(reason), ..Self::pcap(settings)? })
                }
            },
        }
    }

    /// Opens the kernel source.
    ///
    /// # Errors
    /// Which of its needs failed.
    pub fn kernel(settings: KernelSettings, clock: SystemClock) -> Result<Self, SourceError> {
        match kernel(settings, clock) {
            Ok((handle, limitation)) => Ok(Self { handle, fallback: None, limitation, several: false }),
            Err(reason) => Err(SourceError::Kernel { reason }),
        }
    }

    /// Opens libpcap.
    ///
    /// # Errors
    /// Where the source cannot be opened.
    pub fn pcap(settings: &CaptureSettings) -> Result<Self, SourceError> {
        let several = settings.interfaces.len() > 1 || settings.interfaces.iter().any(|name| name == ANY);
        Ok(Self { handle: Handle::Pcap(Capture::open(settings)?), fallback: None, limitation: None, several })
    }

    /// Where frames arrive; never, with a source that counts.
    pub fn batches(&self) -> Receiver<Batch> {
        match &self.handle {
            Handle::Pcap(capture) => capture.batches().clone(),
            #[cfg(feature = "ebpf")]
            Handle::Kernel(_) => never(),
        }
    }

    /// Where counts arrive; never, with a source that captures frames.
    pub fn counts(&self) -> Receiver<CountBatch> {
        match &self.handle {
            Handle::Pcap(_) => never(),
            #[cfg(feature = "ebpf")]
            Handle::Kernel(reader) => reader.batches().clone(),
        }
    }

    /// What was lost since the source was opened; `None` where the counts bring that.
    pub fn losses(&self) -> Option<CaptureLosses> {
        match &self.handle {
            Handle::Pcap(capture) => Some(capture.losses()),
            #[cfg(feature = "ebpf")]
            Handle::Kernel(_) => None,
        }
    }

    /// Whether nothing can be seen: every interface that is captured on is gone.
    pub fn is_blind(&self) -> bool {
        match &self.handle {
            Handle::Pcap(capture) => capture.is_blind(),
            // It is attached to the host, not to an interface.
            #[cfg(feature = "ebpf")]
            Handle::Kernel(_) => false,
        }
    }

    /// Whether frames come without owners, so that somebody has to look them up.
    pub fn needs_lookups(&self) -> bool {
        matches!(self.handle, Handle::Pcap(_))
    }

    /// Asks for what is there and no more; then the channel closes.
    pub fn finish(&self) {
        match &self.handle {
            Handle::Pcap(capture) => capture.stop(),
            #[cfg(feature = "ebpf")]
            Handle::Kernel(reader) => reader.finish(),
        }
    }

    /// Whether a packet that passes several interfaces arrives several times.
    pub fn sees_interfaces_together(&self) -> bool {
        self.several
    }

    /// The word for the source in the status.
    pub fn name(&self) -> &'static str {
        match &self.handle {
            Handle::Pcap(_) => "pcap",
            #[cfg(feature = "ebpf")]
            Handle::Kernel(_) => "ebpf",
        }
    }

    /// Why the kernel source is not used, where it was wanted.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// What works less well on this kernel.
    pub fn limitation(&self) -> Option<&str> {
        self.limitation.as_deref()
    }

    /// The fallback as something that can be alerted on.
    pub fn problem(&self) -> Option<Problem> {
        let reason = self.fallback.as_ref()?;
        Some(Problem {
            id: "source-fallback",
            severity: Severity::Medium,
            summary: format!("the kernel source cannot be used, owners may be missed: {reason}"),
            details: BTreeMap::from([("source", self.name().to_owned()), ("reason", reason.clone())]),
            resolved: false,
        })
    }
}

#[cfg(feature = "ebpf")]
fn kernel(settings: KernelSettings, clock: SystemClock) -> Result<(Handle, Option<String>), String> {
    use crate::capture::ebpf::{Reader, Settings, Source};
    use crate::runtime::clock::Clock;

    let settings = Settings { packet_sockets: settings.packet_sockets, ..Settings::default() };
    let source = Source::open(&settings, clock.now()).map_err(|error| error.reason())?;
    let limitation = source.limitation();
    if let Some(limitation) = &limitation {
        info!(%limitation, "the kernel source works with a limitation");
    }
    info!(sockets = source.seeded(), "the kernel source counts");
    let reader = Reader::start(source, move || clock.now()).map_err(|error| error.to_string())?;
    Ok((Handle::Kernel(reader), limitation))
}

#[cfg(not(feature = "ebpf"))]
fn kernel(_settings: KernelSettings, _clock: SystemClock) -> Result<(Handle, Option<String>), String> {
    Err("this program was built without it".to_owned())
}

const ALL_INTERFACES: &str = "it counts on every interface and knows no filter; name neither, or use the source pcap";
