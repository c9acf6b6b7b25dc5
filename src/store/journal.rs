//! Reads the journal of a state directory beside the program that writes it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use crate::store::database::{FILE, StoreError};

/// Documents of one alert that are read at most.
const MOST: i64 = 2_000;

/// The documents of the alerts whose key or uid begins so, as JSON, oldest first.
///
/// # Errors
/// Where there is no store, or it cannot be read.
pub fn documents(directory: &Path, beginning: &str) -> Result<Vec<String>, StoreError> {
    // By uid the episode is found, by key all of them; both stand in the document, which is ASCII where they are.
    const SELECT: &str = "SELECT document FROM (SELECT number, document FROM journal \
        WHERE substr(key, 1, length(?1)) = ?1 OR instr(document, ?2) > 0 \
        ORDER BY number DESC LIMIT ?3) ORDER BY number";
    let path = directory.join(FILE);
    let read = || -> rusqlite::Result<Vec<String>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let mut statement = connection.prepare(SELECT)?;
        let uid = format!("\"uid\":\"{beginning}");
        statement.query_map(params![beginning, uid, MOST], |row| row.get(0))?.collect()
    };
    read().map_err(|source| StoreError::Open { path: path.clone(), source })
}
