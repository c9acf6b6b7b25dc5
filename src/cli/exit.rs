//! The exit codes, all of them, and how an error is said.

use std::process::ExitCode;

use crate::cli::terminal;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what was asked.
    Fine,
    /// 1: it did, and found something: a failed check or test, a damaged capture.
    Findings,
    /// 2: it could not: wrong usage, or reading and writing failed.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Ends a command: says its error, if it had one, and gives the exit code.
///
/// A reader that went away (`egret flows | head`) is no error.
pub fn conclude(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Fine.into(),
        Err(error) => {
            terminal::error(&format!("{error:#}"));
            Exit::Failed.into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
