//! The configuration as it is meant: every question answered.

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::capture::live::CaptureSettings;
use crate::config::file::{ConfigError, ConfigFile, SourceKind};
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
    /// Networks that are this host's own, beside its addresses.
    pub local: Vec<IpNet>,
    /// Where the rules come from.
    pub rules: RuleSource,
    /// Where state is kept between runs.
    pub state_dir: PathBuf,
    /// What this host is called.
    pub host: Host,
    /// Flows held at once.
    pub max_flows: usize,
    /// Where alerts go.
    pub dispatch: DispatchSettings,
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
        let ConfigFile { capture, rules, state_dir, host, engine, outputs, routing } = file;
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
            local: capture.local,
            rules: rules.map_or(RuleSource::Shipped, RuleSource::Paths),
            state_dir: state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            host: this_host(&host),
            max_flows: engine.max_flows.unwrap_or(MAX_FLOWS),
            dispatch: DispatchSettings { outputs: outputs.unwrap_or_else(DispatchSettings::standard_output), routing },
        }
    }
}

/// Flows held at once where the configuration says nothing.
const MAX_FLOWS: usize = 262_144;
