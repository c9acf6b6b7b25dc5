//! Alerts in a file: one record a line, appended; renamed when it grows too large.
//!
//! The file is opened anew when somebody else renamed or removed it, so that
//! `logrotate` needs no signal.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::alert::Delivery;
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::dispatch::settings::FileSettings;
use crate::time::Timestamp;

/// Appends each delivery and a line end.
#[derive(Debug)]
pub struct FileOutput {
    settings: FileSettings,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    device: u64,
    inode: u64,
    length: u64,
}

impl FileOutput {
    /// An output that opens its file with the first delivery.
    pub fn new(settings: FileSettings) -> Self {
        Self { settings, open: None }
    }

    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        let line_length = line.len() as u64 + 1;
        let mut open = self.opened()?;
        if let Some(limit) = self.settings.rotate_bytes
            && open.length > 0
            && open.length.saturating_add(line_length) > limit
        {
            drop(open);
            self.rotate()?;
            open = self.opened()?;
        }
        let mut record = Vec::with_capacity(line.len() + 1);
        record.extend_from_slice(line);
        record.push(b'\n');
        if let Err(error) = open.file.write_all(&record) {
            // Half a record would spoil the next one: take it back.
            open.file.set_len(open.length)?;
            return Err(error);
        }
        open.length += line_length;
        self.open = Some(open);
        Ok(())
    }

    /// The file at the path, which may be another one than last time.
    fn opened(&mut self) -> std::io::Result<Open> {
        if let Some(open) = self.open.take()
            && let Ok(there) = std::fs::metadata(&self.settings.path)
            && (there.dev(), there.ino()) == (open.device, open.inode)
        {
            return Ok(Open { length: there.len(), ..open });
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.settings.path)?;
        let metadata = file.metadata()?;
        Ok(Open { device: metadata.dev(), inode: metadata.ino(), length: metadata.len(), file })
    }

    /// `path` becomes `path.1`, `path.1` becomes `path.2`, and the last one is overwritten.
    fn rotate(&self) -> std::io::Result<()> {
        let name = |number: u32| {
            let mut path = self.settings.path.clone().into_os_string();
            if number > 0 {
                path.push(format!(".{number}"));
            }
            PathBuf::from(path)
        };
        if self.settings.rotate_keep == 0 {
            return std::fs::remove_file(name(0));
        }
        for number in (0..self.settings.rotate_keep).rev() {
            match std::fs::rename(name(number), name(number + 1)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Notifier for FileOutput {
    fn send(&mut self, delivery: &Delivery, _now: Timestamp) -> Result<(), NotifyError> {
        self.append(&delivery.payload).map_err(|error| {
            let reason = format!("cannot append to `{}`: {error}", self.settings.path.display());
            match error.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::IsADirectory => {
                    NotifyError::misconfigured(reason)
                }
                _ => NotifyError::transient(reason),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_rotate_by_size_and_follow_a_rename() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alerts.ndjson");
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        let mut output = FileOutput::new(FileSettings { path: path.clone(), rotate_bytes: Some(10), rotate_keep: 2 });
        for line in ["one", "two", "three", "four", "five five five", "six"] {
            output.append(line.as_bytes()).unwrap();
        }
        assert_eq!(read("alerts.ndjson"), "six\n");
        assert_eq!(read("alerts.ndjson.1"), "five five five\n", "a record is never split");
        assert_eq!(read("alerts.ndjson.2"), "four\n");
        std::fs::rename(&path, directory.path().join("moved")).unwrap();
        output.append(b"seven").unwrap();
        assert_eq!((read("moved"), read("alerts.ndjson")), ("six\n".into(), "seven\n".into()));
    }
}
