//! Alerts to a program of the operator's: the document on its standard input.
//!
//! No shell is involved, nothing of an alert becomes an argument or a variable,
//! and the program must stand in the configuration's `commands`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::alert::Delivery;
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::dispatch::settings::CommandSettings;
use crate::time::Timestamp;

/// Runs the program once a delivery.
#[derive(Debug)]
pub struct CommandOutput {
    settings: CommandSettings,
}

/// Why a program may not be run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not allowed.
    #[error("`{}` is not among the `commands` that the configuration allows", .0.display())]
    NotAllowed(PathBuf),
}

impl CommandOutput {
    /// An output for a program that is allowed.
    pub fn new(settings: &CommandSettings, allowed: &[PathBuf]) -> Result<Self, CommandError> {
        if settings.program.is_absolute() && allowed.contains(&settings.program) {
            Ok(Self { settings: settings.clone() })
        } else {
            Err(CommandError::NotAllowed(settings.program.clone()))
        }
    }

    fn run(&self, input: &[u8]) -> std::io::Result<Option<i32>> {
        let mut child = Command::new(&self.settings.program)
            .args(&self.settings.args)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let input = input.to_vec();
        let pipe = child.stdin.take();
        // The program may not read: whoever writes must not keep the clock from being watched.
        let writer = std::thread::spawn(move || pipe.map_or(Ok(()), |mut pipe| pipe.write_all(&input)));
        let deadline = Instant::now() + self.settings.timeout;
        loop {
            if let Some(status) = child.try_wait()? {
                // A program that ends well without reading everything has what it wanted.
                let _unread = writer.join();
                return Ok(status.code());
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Notifier for CommandOutput {
    fn send(&mut self, delivery: &Delivery, _now: Timestamp) -> Result<(), NotifyError> {
        let program = self.settings.program.display();
        match self.run(&delivery.payload) {
            Ok(Some(0)) => Ok(()),
            // sysexits.h: the input is wrong, and will be the next time.
            Ok(Some(65)) => Err(NotifyError::permanent(format!("`{program}` refused it (exit 65)"))),
            Ok(Some(code)) => Err(NotifyError::transient(format!("`{program}` ended with {code}"))),
            Ok(None) => Err(NotifyError::transient(format!("`{program}` took too long or was killed"))),
            Err(error) => Err(NotifyError::misconfigured(format!("cannot run `{program}`: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(script: &str, timeout: u64) -> CommandOutput {
        let settings = CommandSettings {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            timeout: Duration::from_millis(timeout),
        };
        CommandOutput::new(&settings, &["/bin/sh".into()]).unwrap()
    }

    #[test]
    fn a_program_gets_the_document_and_its_status_counts() {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        assert_eq!(output(&format!("cat > {}", copy.display()), 10_000).run(b"{}").unwrap(), Some(0));
        assert_eq!(std::fs::read(copy).unwrap(), b"{}");
        assert_eq!(output("exit 65", 10_000).run(&vec![b'x'; 1 << 20]).unwrap(), Some(65));
        assert_eq!(output("exec sleep 60", 50).run(&vec![b'x'; 1 << 20]).unwrap(), None);
    }

    #[test]
    fn only_what_is_allowed_runs() {
        let settings = CommandSettings { program: "/bin/sh".into(), args: Vec::new(), timeout: Duration::ZERO };
        assert!(CommandOutput::new(&settings, &["/bin/true".into()]).is_err());
    }
}
