//! Checkpoints: what a later run takes over of the engine.
//!
//! They lie in a database of their own: a large one takes its time to write,
//! and no alert on its way to the disk may wait for that.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use crate::alert::LedgerError;
use crate::store::StoreError;
use crate::store::database::{
    connect, is_damage, ledger_error, make_directory, make_private, set_aside, start_inspection,
};
use crate::store::inspection::Inspection;
use crate::time::Timestamp;

/// The checkpoints of one state directory.
pub struct Checkpoints {
    connection: Connection,
    path: PathBuf,
    inspection: Option<Inspection>,
    set_aside: Option<PathBuf>,
}

impl Checkpoints {
    /// Opens the checkpoints of a state directory, and makes what is missing.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, StoreError> {
        make_directory(directory)?;
        let path = directory.join(FILE);
        let open = |source| StoreError::Open { path: path.clone(), source };
        let (connection, set_aside) = match connect(&path, SCHEMA) {
            Ok(connection) => (connection, None),
            Err(error) if is_damage(&error) => {
                let aside = set_aside(&path, now)?;
                (connect(&path, SCHEMA).map_err(open)?, Some(aside))
            }
            Err(source) => return Err(open(source)),
        };
        make_private(&path)?;
        let inspection = start_inspection(&path);
        Ok(Self { connection, path, inspection, set_aside })
    }

    /// Where a damaged database was put, where that happened.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// Keeps a part of the program's state under a name, in place of what was kept there. Says where the
    /// database was put where it turned out to be damaged: what is saved is in a fresh one then.
    pub fn save(&mut self, name: &str, content: &[u8], now: Timestamp) -> Result<Option<PathBuf>, LedgerError> {
        let damaged = self.inspection.as_ref().and_then(Inspection::finding).is_some();
        match (damaged, self.write(name, content, now)) {
            (false, Ok(())) => Ok(None),
            (true, _) | (false, Err(LedgerError::Damaged(_))) => {
                let aside = self.replace(now)?;
                self.write(name, content, now).map(|()| Some(aside))
            }
            (false, Err(error)) => Err(error),
        }
    }

    fn write(&mut self, name: &str, content: &[u8], now: Timestamp) -> Result<(), LedgerError> {
        const SAVE: &str = "INSERT OR REPLACE INTO checkpoints(name, at, content) VALUES (?1, ?2, ?3)";
        self.connection.execute(SAVE, params![name, now.as_nanos(), content]).map_err(ledger_error)?;
        Ok(())
    }

    fn replace(&mut self, now: Timestamp) -> Result<PathBuf, LedgerError> {
        let other = |error: StoreError| LedgerError::Other(error.to_string());
        self.inspection = None;
        self.connection = Connection::open_in_memory().map_err(ledger_error)?;
        make_directory(self.path.parent().unwrap_or(Path::new("."))).map_err(other)?;
        let aside = set_aside(&self.path, now).map_err(other)?;
        self.connection = connect(&self.path, SCHEMA).map_err(ledger_error)?;
        make_private(&self.path).map_err(other)?;
        self.inspection = start_inspection(&self.path);
        Ok(aside)
    }

    /// What was kept under a name, and when.
    pub fn load(&self, name: &str) -> Result<Option<(Timestamp, Vec<u8>)>, LedgerError> {
        const READ: &str = "SELECT at, content FROM checkpoints WHERE name = ?1";
        self.connection
            .query_row(READ, [name], |row| Ok((Timestamp::from_nanos(row.get(0)?), row.get(1)?)))
            .optional()
            .map_err(ledger_error)
    }
}

const FILE: &str = "checkpoints.db";

const SCHEMA: &str = "
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS checkpoints(
    name TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    content BLOB NOT NULL
) STRICT;
COMMIT;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_kept_and_a_damaged_database_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
        let mut checkpoints = Checkpoints::open(directory.path(), one).unwrap();
        assert_eq!(checkpoints.load("engine").unwrap(), None);
        checkpoints.save("engine", b"old", one).unwrap();
        checkpoints.save("engine", b"new", two).unwrap();
        drop(checkpoints);
        let checkpoints = Checkpoints::open(directory.path(), two).unwrap();
        assert_eq!(checkpoints.load("engine").unwrap(), Some((two, b"new".to_vec())));
        drop(checkpoints);
        std::fs::write(directory.path().join(FILE), vec![0x5a; 8192]).unwrap();
        let checkpoints = Checkpoints::open(directory.path(), two).unwrap();
        assert!(checkpoints.set_aside().is_some_and(Path::exists));
        assert_eq!(checkpoints.load("engine").unwrap(), None);
        // And while it is open.
        let mut checkpoints = checkpoints;
        std::fs::remove_file(directory.path().join(FILE)).unwrap();
        assert!(checkpoints.save("engine", b"third", two).unwrap().is_some());
        assert_eq!(checkpoints.save("engine", b"fourth", two).unwrap(), None);
        drop(checkpoints);
        let checkpoints = Checkpoints::open(directory.path(), two).unwrap();
        assert_eq!(checkpoints.load("engine").unwrap(), Some((two, b"fourth".to_vec())));
    }
}
