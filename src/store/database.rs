//! Opening the database: its tables, its settings, and what happens when it is damaged.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use crate::alert::LedgerError;
use crate::store::dead::DeadLetters;
use crate::time::Timestamp;

/// The database of one state directory.
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) limits: StoreLimits,
    pub(super) set_aside: Option<PathBuf>,
    /// Bytes of the deliveries that are kept.
    pub(super) bytes: u64,
    pub(super) dead: DeadLetters,
}

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of deliveries; the oldest of the mildest make room.
    pub max_bytes: u64,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made.
    #[error("cannot make the state directory `{path}`")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be opened, and not for being damaged.
    #[error("cannot open the store `{path}`")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A damaged database cannot be moved out of the way.
    #[error("cannot set the damaged store `{path}` aside")]
    SetAside {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { max_bytes: 256 << 20 }
    }
}

impl Store {
    /// Opens the store of a state directory, and makes what is missing.
    pub fn open(directory: &Path, limits: StoreLimits, now: Timestamp) -> Result<Self, StoreError> {
        make_directory(directory)?;
        let path = directory.join(FILE);
        match connect(&path, SCHEMA) {
            Ok(connection) => Self::ready(connection, path, limits, None),
            Err(error) if is_damage(&error) => {
                let aside = set_aside(&path, now)?;
                let open = |source| StoreError::Open { path: path.clone(), source };
                let connection = connect(&path, SCHEMA).map_err(open)?;
                Self::ready(connection, path, limits, Some(aside))
            }
            Err(source) => Err(StoreError::Open { path, source }),
        }
    }

    /// The file of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a database that broke while it was used out of the way, and begins a fresh one.
    pub(super) fn replace(&mut self, now: Timestamp) -> Result<PathBuf, LedgerError> {
        let other = |error: &dyn std::fmt::Display| LedgerError::Other(error.to_string());
        // The old connection must let go of its files before they are renamed.
        self.connection = Connection::open_in_memory().map_err(ledger_error)?;
        let aside = set_aside(&self.path, now).map_err(|error| other(&error))?;
        self.connection = connect(&self.path, SCHEMA).map_err(ledger_error)?;
        self.bytes = 0;
        self.set_aside = Some(aside.clone());
        Ok(aside)
    }

    fn ready(
        connection: Connection,
        path: PathBuf,
        limits: StoreLimits,
        set_aside: Option<PathBuf>,
    ) -> Result<Self, StoreError> {
        const BYTES: &str = "SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM deliveries";
        let bytes: i64 = connection
            .query_row(BYTES, [], |row| row.get(0))
            .map_err(|source| StoreError::Open { path: path.clone(), source })?;
        make_private(&path)?;
        complete(&connection).map_err(|source| StoreError::Open { path: path.clone(), source })?;
        let folder = path.parent().unwrap_or(Path::new(".")).join("outbox/dead");
        let dead = DeadLetters::new(&folder, limits.max_bytes);
        Ok(Self { connection, path, limits, set_aside, bytes: u64::try_from(bytes).unwrap_or(0), dead })
    }
}

/// Adds what a database of an earlier version lacks.
fn complete(connection: &Connection) -> rusqlite::Result<()> {
    const KNOWN: &str = "SELECT COUNT(*) FROM pragma_table_info('alerts') WHERE name = 'told'";
    let known: i64 = connection.query_row(KNOWN, [], |row| row.get(0))?;
    if known == 0 {
        connection.execute_batch("ALTER TABLE alerts ADD COLUMN told INTEGER NOT NULL DEFAULT 1")?;
    }
    Ok(())
}

/// An error of SQLite in the words of the ledger.
pub(super) fn ledger_error(error: rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => LedgerError::Full(error.to_string()),
        _ if is_damage(&error) => LedgerError::Damaged(error.to_string()),
        _ => LedgerError::Other(error.to_string()),
    }
}

/// Makes a state directory, and those above it, where they are missing.
pub(super) fn make_directory(directory: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Directory { path: directory.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(failed)
}

/// Alerts and windows name people and what they run.
pub(super) fn make_private(path: &Path) -> Result<(), StoreError> {
    let private = fs::set_permissions(path, fs::Permissions::from_mode(0o640));
    private.map_err(|source| StoreError::Directory { path: path.to_owned(), source })
}

pub(super) fn connect(path: &Path, schema: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        let damaged = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(damaged, Some(found)));
    }
    connection.execute_batch(schema)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

pub(super) fn set_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let renamed = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{}", now.as_secs()));
        PathBuf::from(name)
    };
    let aside = renamed(path);
    fs::rename(path, &aside).map_err(|source| StoreError::SetAside { path: path.to_owned(), source })?;
    for ending in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(ending);
        let beside = PathBuf::from(beside);
        match fs::rename(&beside, renamed(&beside)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::SetAside { path: beside, source: error });
            }
            _ => {}
        }
    }
    Ok(aside)
}

pub(super) const FILE: &str = "egret.db";

const SCHEMA: &str = "
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS deliveries(
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    output TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    severity INTEGER NOT NULL,
    created INTEGER NOT NULL,
    payload BLOB NOT NULL,
    remaining TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    last_error TEXT,
    state TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS deliveries_by_output ON deliveries(output, state, sequence);
CREATE INDEX IF NOT EXISTS deliveries_by_worth ON deliveries(severity, sequence);
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries(state, sequence);
CREATE TABLE IF NOT EXISTS delivered(
    id TEXT PRIMARY KEY,
    output TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    severity INTEGER NOT NULL,
    created INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal(
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    severity INTEGER NOT NULL,
    summary TEXT NOT NULL,
    suppressed TEXT,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS journal_by_time ON journal(at);
CREATE TABLE IF NOT EXISTS alerts(
    key TEXT PRIMARY KEY,
    uid TEXT NOT NULL,
    rule TEXT NOT NULL,
    severity TEXT NOT NULL,
    state TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    summary TEXT NOT NULL,
    suppressed TEXT,
    told INTEGER NOT NULL,
    acknowledged_by TEXT,
    acknowledged_at INTEGER,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS alerts_by_time ON alerts(changed_at);
CREATE TABLE IF NOT EXISTS silences(
    id TEXT PRIMARY KEY,
    ends_at INTEGER,
    document TEXT NOT NULL
) STRICT;
COMMIT;
";
