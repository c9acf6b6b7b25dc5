//! A child process that does not outlive its test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::wait;

/// A running program; killed when the test ends, however it ends.
pub struct Running {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Running {
    /// Starts `command` with its output in files of `directory`, named after `name`.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Self {
        let output = directory.join(format!("{name}.out"));
        let errors = directory.join(format!("{name}.err"));
        command.stdin(Stdio::null());
        command.stdout(fs::File::create(&output).expect("the test's directory is writable"));
        command.stderr(fs::File::create(&errors).expect("the test's directory is writable"));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, output, errors }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard output so far.
    pub fn output(&self) -> String {
        lossy(&self.output)
    }

    /// What it wrote to its standard error so far.
    pub fn errors(&self) -> String {
        lossy(&self.errors)
    }

    /// Panics with what it said if it ended already.
    pub fn assert_alive(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("ended early with {status}:\n{}\n{}", self.output(), self.errors());
        }
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is ours and not yet waited for");
    }

    /// How it ended; panics if it has not within `patience`.
    pub fn wait_within(&mut self, patience: Duration) -> ExitStatus {
        wait::within(patience, "the process to end", || self.child.try_wait().ok().flatten())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is fine too.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.errors.display(), self.errors());
        }
    }
}

fn lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
