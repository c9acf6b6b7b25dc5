//! The configuration: as written ([`ConfigFile`]) and as meant ([`Settings`]).
//!
//! Strict and layered: defaults, then the file, then the environment, then
//! the arguments; merged once. An unknown key is an error.

mod availability;
pub mod expectations;
mod file;
mod host;
mod local;
pub mod read;
pub mod rule_files;
mod settings;
pub mod shipped;

pub use availability::missing_fields;
pub use file::{ConfigError, ConfigFile, HostFile, SourceKind};
pub use host::this_host;
pub use local::host_addresses;
pub use settings::{DEFAULT_CONFIG_PATH, DEFAULT_STATE_DIR, ListSettings, RuleSource, Settings};
