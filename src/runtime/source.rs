//! The live source in use: which one was asked for, which one it became, and why.

use crossbeam_channel::Receiver;

use crate::capture::live::{Batch, Capture, CaptureSettings, LiveError};
use crate::config::SourceKind;
use crate::flow::CaptureLosses;

/// An open live source.
#[derive(Debug)]
pub struct Source {
    capture: Capture,
}

/// Why no source could be opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// libpcap cannot capture.
    #[error(transparent)]
    Pcap(#[from] LiveError),
}

impl Source {
    /// Opens the source that was asked for.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(_kind: SourceKind, settings: &CaptureSettings) -> Result<Self, SourceError> {
        Self::pcap(settings)
    }

    /// Opens libpcap.
    ///
    /// # Errors
    /// Where the source cannot be opened.
    pub fn pcap(settings: &CaptureSettings) -> Result<Self, SourceError> {
        Ok(Self { capture: Capture::open(settings)? })
    }

    /// Where frames arrive.
    pub fn batches(&self) -> Receiver<Batch> {
        self.capture.batches().clone()
    }

    /// What was lost since the source was opened.
    pub fn losses(&self) -> CaptureLosses {
        self.capture.losses()
    }

    /// The word for the source in the status.
    pub fn name(&self) -> &'static str {
        "pcap"
    }
}
