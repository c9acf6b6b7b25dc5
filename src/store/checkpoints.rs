//! Checkpoints: what a later run takes over of the engine.
//!
//! They lie in a database of their own: a large one takes its time to write,
//! and no alert on its way to the disk may wait for that.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use crate::alert::LedgerError;
use crate::store::StoreError;
use crate::store::database::{connect, is_damage, ledger_error, make_directory, make_private, set_aside};
use crate::time::Timestamp;

/// The checkpoints of one state directory.
pub struct Checkpoints {
    connection: Connection,
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
        Ok(Self { connection, set_aside })
    }

    /// Where a damaged database was put, where that happened.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// Keeps a part of the program's state under a name, in place of what was kept there.
    pub fn save(&mut self, name: &str, content: &[u8], now: Timestamp) -> Result<(), LedgerError> {
        const SAVE: &str = "INSERT OR REPLACE INTO checkpoints(name, at, content) VALUES (?1, ?2, ?3)";
        self.connection.execute(SAVE, params![name, now.as_nanos(), content]).map_err(ledger_error)?;
        Ok(())
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
    }
}
