//! The log of the program itself, on standard error. Alerts are no log and never travel here.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts the log at `level`; `EGRET_LOG` changes it, as in `EGRET_LOG=egret=debug`.
pub fn start(level: LevelFilter) {
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var("EGRET_LOG").from_env_lossy();
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured)
        .with_target(false)
        .compact()
        .init();
}
