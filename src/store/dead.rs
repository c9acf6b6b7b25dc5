//! Deliveries that were given up, in files that people and scripts read: one JSON object a line, one file a day.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::alert::Delivery;
use crate::time::Timestamp;

/// The folder of these files.
pub(super) struct DeadLetters {
    folder: PathBuf,
    /// A file does not grow beyond this.
    max_bytes: u64,
}

impl DeadLetters {
    pub(super) fn new(folder: &Path, max_bytes: u64) -> Self {
        Self { folder: folder.to_owned(), max_bytes }
    }

    /// Writes one down, with why it was given up. The day is that of its making.
    pub(super) fn append(&self, delivery: &Delivery) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.folder)?;
        let created = delivery.created.to_string();
        let path = self.folder.join(format!("{}.ndjson", created.get(..10).unwrap_or("undated")));
        let mut letter = delivery.whole();
        letter["error"] = letter["last_error"].take();
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        let line = format!("{letter}\n");
        if file.metadata()?.len() + line.len() as u64 > self.max_bytes {
            return Err(std::io::Error::new(std::io::ErrorKind::StorageFull, "the day's file is full"));
        }
        file.write_all(line.as_bytes())
    }

    /// Removes the files of days before a moment.
    pub(super) fn prune(&self, before: Timestamp) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let day = before.to_string();
        let day = day.get(..10).unwrap_or_default();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.strip_suffix(".ndjson").is_some_and(|of| of < day)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(%error, file = %name, "cannot remove old dead letters");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_days_leave() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["2026-01-01.ndjson", "2026-05-04.ndjson", "notes.txt"] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        DeadLetters::new(directory.path(), 1).prune("2026-05-04T02:00:00Z".parse().unwrap());
        let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().map(|one| one.file_name()).collect();
        left.sort();
        assert_eq!(left, ["2026-05-04.ndjson", "notes.txt"]);
    }
}
