//! The configuration as it is meant: every question answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::capture::live::CaptureSettings;
use crate::config::file::{ConfigError, ConfigFile, ListFile, SourceKind};
use crate::config::host::this_host;
use crate::dispatch::settings::DispatchSettings;
use crate::rule::Host;
use crate::units::Bytes;

/// Everything that `egret run` needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which source to capture with.
    pub source: SourceKind,
    /// What to capture.
    pub capture: CaptureSettings,
    /// Whether frames are looked at beside the kernel source.
    pub tap: bool,
    /// Whether the kernel source counts senders on packet sockets by process.
    pub packet_sockets: bool,
    /// The share of the bytes on the interfaces below which that is a problem.
    pub least_coverage: f64,
    /// Networks that are this host's own, beside its addresses.
    pub local: Vec<IpNet>,
    /// Where the rules come from.
    pub rules: RuleSource,
    /// Where state is kept between runs.
    pub state_dir: PathBuf,
    /// What this host is called.
    pub host: Host,
    /// Whether every executable is hashed, not only where a rule looks at the hash.
    pub hash: bool,
    /// Flows held at once.
    pub max_flows: usize,
    /// MaxMind databases, asked in this order.
    pub databases: Vec<PathBuf>,
    /// Names of addresses held at once.
    pub max_names: usize,
    /// Published lists by name.
    pub lists: BTreeMap<String, ListSettings>,
    /// The most bytes of one file with packets of an alert.
    pub max_evidence_bytes: u64,
    /// The most such files.
    pub max_evidence_files: usize,
    /// Where alerts go.
    pub dispatch: DispatchSettings,
}

/// A published list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSettings {
    /// Where it is published.
    pub url: String,
    /// The certificates to trust in place of the usual ones.
    pub ca_file: Option<PathBuf>,
    /// A larger list is refused.
    pub max_bytes: u64,
    /// A list of more entries is refused.
    pub max_items: usize,
    /// How long fetching it may take.
    pub timeout: Duration,
}

/// Where the rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSource {
    /// The rules that ship inside the program.
    Shipped,
    /// Files and folders.
    Paths(Vec<PathBuf>),
}

/// Read where no other is named; nothing is wrong where it is absent.
pub const DEFAULT_CONFIG_PATH: &str = "/etc/egret/egret.yaml";

/// State is kept here where no other folder is named.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/egret";

impl Settings {
    /// The settings of a configuration file: the named one, else the default
    /// one where it exists, else the defaults alone.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_CONFIG_PATH);
        let file = match path {
            Some(path) => ConfigFile::read(path)?,
            None if default.exists() => ConfigFile::read(default)?,
            None => ConfigFile::default(),
        };
        Ok(Self::of(file))
    }

    /// The settings that a file means.
    pub fn of(file: ConfigFile) -> Self {
        let ConfigFile {
            capture,
            rules,
            state_dir,
            host,
            resolve,
            engine,
            names,
            lists,
            evidence,
            outputs,
            routing,
            inhibit,
            silences,
            outbox,
            redact,
            commands,
        } = file;
        let defaults = CaptureSettings::default();
        Self {
            source: capture.source.unwrap_or_default(),
            capture: CaptureSettings {
                interfaces: capture.interfaces.unwrap_or(defaults.interfaces),
                filter: capture.filter,
                snaplen: capture.snaplen.map_or(defaults.snaplen, Bytes),
                buffer: capture.buffer.map_or(defaults.buffer, Bytes),
                ..defaults
            },
            tap: capture.tap.unwrap_or(true),
            packet_sockets: capture.packet_sockets.unwrap_or(true),
            least_coverage: capture.min_coverage.unwrap_or(LEAST_COVERAGE),
            local: capture.local,
            rules: rules.map_or(RuleSource::Shipped, RuleSource::Paths),
            state_dir: state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            host: this_host(&host),
            hash: resolve.hash,
            max_flows: engine.max_flows.unwrap_or(MAX_FLOWS),
            databases: names.databases,
            max_names: names.max_names.unwrap_or(MAX_NAMES),
            lists: lists.into_iter().map(|(name, list)| (name, ListSettings::of(list))).collect(),
            max_evidence_bytes: evidence.max_bytes.unwrap_or(MAX_EVIDENCE_BYTES),
            max_evidence_files: evidence.max_files.unwrap_or(MAX_EVIDENCE_FILES),
            dispatch: DispatchSettings {
                outputs: outputs.unwrap_or_else(DispatchSettings::standard_output),
                routing,
                inhibit,
                silences,
                outbox,
                redact,
                commands,
            },
        }
    }
}

impl ListSettings {
    fn of(file: ListFile) -> Self {
        Self {
            url: file.url,
            ca_file: file.ca_file,
            max_bytes: file.max_bytes.unwrap_or(MAX_LIST_BYTES),
            max_items: file.max_items.unwrap_or(MAX_LIST_ITEMS),
            timeout: file.timeout.unwrap_or(LIST_TIMEOUT),
        }
    }
}

/// Names of addresses held at once where the configuration says nothing.
const MAX_NAMES: usize = 262_144;

const MAX_EVIDENCE_BYTES: u64 = 4 << 20;
const MAX_EVIDENCE_FILES: usize = 100;

/// A host that forwards has less, and says so here.
const LEAST_COVERAGE: f64 = 0.8;

const MAX_LIST_BYTES: u64 = 64 << 20;
const MAX_LIST_ITEMS: usize = 1_000_000;
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// Flows held at once where the configuration says nothing.
const MAX_FLOWS: usize = 262_144;
