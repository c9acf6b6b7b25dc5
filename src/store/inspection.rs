//! Looks, while the program runs, whether its database is still whole.
//!
//! SQLite notices damage only in the pages that it happens to read. A thread
//! with a connection of its own reads all of them now and then, so that neither
//! a commit nor whoever waits for one ever does; a look-up of the file's name
//! finds that the file was removed or replaced.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use rusqlite::{Connection, OpenFlags};

use crate::store::database::is_damage;

/// The looks at one database; they end when this is dropped.
pub(super) struct Inspection {
    path: PathBuf,
    /// The file's device and number.
    file: (u64, u64),
    found: Receiver<String>,
    _running: Sender<()>,
}

impl Inspection {
    /// Begins to look at a database that is open and whole.
    pub(super) fn start(path: &Path) -> io::Result<Self> {
        let file = identity(path)?;
        let (tell, found) = bounded(1);
        let (running, ended) = bounded(0);
        let of = path.to_owned();
        std::thread::Builder::new().name("egret-store".into()).spawn(move || inspect(&of, &tell, &ended))?;
        Ok(Self { path: path.to_owned(), file, found, _running: running })
    }

    /// What is wrong with the database, where something is known to be.
    pub(super) fn finding(&self) -> Option<String> {
        match self.found.try_recv() {
            Ok(found) => return Some(found),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        match identity(&self.path) {
            Ok(file) if file == self.file => None,
            Ok(_) => Some("the file was replaced by another one".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("the file was removed".to_owned()),
            // What cannot be looked at now may be tomorrow.
            Err(_) => None,
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn inspect(path: &Path, tell: &Sender<String>, ended: &Receiver<()>) {
    let mut rest = PAUSE;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(rest) {
        let begin = Instant::now();
        if let Some(damage) = look(path) {
            // Whoever is told begins anew, with an inspection of its own.
            let _told = tell.send(damage);
            return;
        }
        rest = begin.elapsed().saturating_mul(SHARE).max(PAUSE);
    }
}

/// Reads every page. What only keeps it from reading is no damage.
fn look(path: &Path) -> Option<String> {
    let read = || -> rusqlite::Result<String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    match read() {
        Ok(found) => (found != "ok").then_some(found),
        Err(error) if is_damage(&error) => Some(error.to_string()),
        Err(error) => {
            tracing::debug!(%error, "the store cannot be looked at");
            None
        }
    }
}

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(10);
/// Looking may take this part of the time: a hundredth.
const SHARE: u32 = 100;
