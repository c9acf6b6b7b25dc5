//! Opening the database: its tables, its settings, and what happens when it is damaged.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use crate::alert::LedgerError;
use crate::store::dead::DeadLetters;
use crate::store::inspection::Inspection;
use crate::store::salvage::salvage;
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
    /// Looks whether it is still whole; without it damage is found when it is met.
    inspection: Option<Inspection>,
    /// What was met while reading.
    pub(super) suspicion: Option<String>,
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
                let mut connection = connect(&path, SCHEMA).map_err(open)?;
                save_what_is_left(&aside, &mut connection);
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
        self.inspection = None;
        self.suspicion = None;
        self.connection = Connection::open_in_memory().map_err(ledger_error)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        make_directory(directory).map_err(|error| other(&error))?;
        let aside = set_aside(&self.path, now).map_err(|error| other(&error))?;
        self.connection = connect(&self.path, SCHEMA).map_err(ledger_error)?;
        make_private(&self.path).map_err(|error| other(&error))?;
        save_what_is_left(&aside, &mut self.connection);
        self.bytes = bytes_of(&self.connection).map_err(ledger_error)?;
        self.set_aside = Some(aside.clone());
        self.inspection = start_inspection(&self.path);
        Ok(aside)
    }

    /// What is wrong with the database, where something is known to be.
    pub(super) fn finding(&mut self) -> Option<String> {
        self.suspicion.take().or_else(|| self.inspection.as_ref()?.finding())
    }

    fn ready(
        connection: Connection,
        path: PathBuf,
        limits: StoreLimits,
        set_aside: Option<PathBuf>,
    ) -> Result<Self, StoreError> {
        let bytes = bytes_of(&connection).map_err(|source| StoreError::Open { path: path.clone(), source })?;
        make_private(&path)?;
        complete(&connection).map_err(|source| StoreError::Open { path: path.clone(), source })?;
        let folder = path.parent().unwrap_or(Path::new(".")).join("outbox/dead");
        let dead = DeadLetters::new(&folder, limits.max_bytes);
        let inspection = start_inspection(&path);
        Ok(Self { connection, path, limits, set_aside, bytes, dead, inspection, suspicion: None })
    }
}

fn bytes_of(connection: &Connection) -> rusqlite::Result<u64> {
    const BYTES: &str = "SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM deliveries";
    connection.query_row(BYTES, [], |row| row.get::<_, i64>(0)).map(|bytes| u64::try_from(bytes).unwrap_or(0))
}

pub(super) fn start_inspection(path: &Path) -> Option<Inspection> {
    match Inspection::start(path) {
        Ok(inspection) => Some(inspection),
        Err(error) => {
            tracing::warn!(%error, "damage to the store will be found only when it is met");
            None
        }
    }
}

/// Takes over what can still be read of a damaged database.
fn save_what_is_left(aside: &Path, connection: &mut Connection) {
    match salvage(aside, connection) {
        Ok(rows) => tracing::warn!(rows, store = %aside.display(), "a damaged store was read as far as that goes"),
        Err(error) => tracing::warn!(%error, store = %aside.display(), "nothing of a damaged store can be read"),
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
    let with = |path: &Path, ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let named = |number: u32| match number {
        0 => with(path, &format!(".damaged-{}", now.as_secs())),
        more => with(path, &format!(".damaged-{}-{more}", now.as_secs())),
    };
    let aside = (0..).map(named).find(|name| !name.exists()).expect("some number is free");
    // Their names must go on to fit together. What is not there any more cannot be kept.
    for ending in ["", "-wal", "-shm"] {
        let part = with(path, ending);
        match fs::rename(&part, with(&aside, ending)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::SetAside { path: part, source: error });
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
