//! The configuration file exactly as it is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use crate::config::read;
use crate::dispatch::settings::{
    InhibitSettings, OutboxSettings, OutputSettings, RedactSettings, RoutingSettings, SilenceSettings, duration_option,
};
use crate::rule::diagnose::{Report, Source};

/// `/etc/egret/egret.yaml`. Every key may be absent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// Where traffic comes from.
    pub capture: CaptureFile,
    /// Files and folders of rules; absent means the rules that ship.
    pub rules: Option<Vec<PathBuf>>,
    /// Where state is kept between runs.
    pub state_dir: Option<PathBuf>,
    /// What this host is called.
    pub host: HostFile,
    /// What is found out about processes.
    pub resolve: ResolveFile,
    /// The limits of the engine.
    pub engine: EngineFile,
    /// What names remote ends, beside their traffic.
    pub names: NamesFile,
    /// Published lists by name, which `egret lists update` fetches.
    pub lists: BTreeMap<String, ListFile>,
    /// The files with packets of alerts.
    pub evidence: EvidenceFile,
    /// Receivers by name; absent means standard output.
    pub outputs: Option<BTreeMap<String, OutputSettings>>,
    /// Who gets what.
    pub routing: RoutingSettings,
    /// Alerts that keep others quiet.
    pub inhibit: Vec<InhibitSettings>,
    /// What nobody needs to hear of for a while.
    pub silences: Vec<SilenceSettings>,
    /// How much waits on disk.
    pub outbox: OutboxSettings,
    /// What is covered in command lines.
    pub redact: RedactSettings,
    /// The programs that outputs of type `command` may run.
    pub commands: Vec<PathBuf>,
}

/// `capture:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureFile {
    /// Kernel programs, libpcap, or whichever works.
    pub source: Option<SourceKind>,
    /// Interfaces by name.
    pub interfaces: Option<Vec<String>>,
    /// A filter in libpcap's language.
    pub filter: Option<String>,
    /// Bytes kept of each frame.
    pub snaplen: Option<u64>,
    /// Bytes of the kernel's ring for each interface.
    pub buffer: Option<u64>,
    /// Whether frames are looked at beside the kernel source where sockets do not explain what passed; `true`.
    pub tap: Option<bool>,
    /// Whether the kernel source counts senders on packet sockets by process; `true`.
    pub packet_sockets: Option<bool>,
    /// The share of the bytes on the interfaces, from 0 to 1, that must have an owner.
    pub min_coverage: Option<f64>,
    /// Networks that are this host's own, beside its addresses.
    pub local: Vec<IpNet>,
}

/// `capture.source`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// The kernel's own counters where they load, else libpcap.
    #[default]
    Auto,
    /// The kernel's own counters or nothing.
    Ebpf,
    /// libpcap.
    Pcap,
}

/// `host:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostFile {
    /// The name in alerts; absent means the host name.
    pub name: Option<String>,
    /// Words that rules can match.
    pub tags: Vec<String>,
}

/// `resolve:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolveFile {
    /// Whether every executable is hashed; without it, where a rule looks at the hash.
    pub hash: bool,
}

/// `evidence:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceFile {
    /// The most bytes that one file has.
    pub max_bytes: Option<u64>,
    /// The most files that are kept; the oldest give way.
    pub max_files: Option<usize>,
}

/// `engine:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineFile {
    /// Flows held at once.
    pub max_flows: Option<usize>,
}

/// `names:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamesFile {
    /// MaxMind databases of countries and autonomous systems, asked in this order.
    pub databases: Vec<PathBuf>,
    /// Names of addresses held at once.
    pub max_names: Option<usize>,
}

/// An entry of `lists:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFile {
    /// Where the list is published.
    pub url: String,
    /// The certificates to trust in place of the usual ones.
    pub ca_file: Option<PathBuf>,
    /// A larger list is refused.
    pub max_bytes: Option<u64>,
    /// A list of more entries is refused.
    pub max_items: Option<usize>,
    /// How long fetching it may take in all.
    #[serde(default, deserialize_with = "duration_option::deserialize")]
    pub timeout: Option<Duration>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what a configuration is.
    #[error("configuration `{}` is not valid", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// All that is wrong.
        report: Box<Report>,
    },
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read, and where it is not valid: then with everything that is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let content = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let source = Source::new(path.display().to_string(), content);
        read::parse(source).map_err(|report| ConfigError::Invalid { path: path.into(), report })
    }
}
