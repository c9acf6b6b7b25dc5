//! What can still be read of a damaged database goes into the fresh one.
//!
//! A page that is damaged takes the rows on it along, and those behind it in
//! the order of reading; so each table is read from both ends.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

/// Copies the rows that can be read; how many those were.
pub(super) fn salvage(damaged: &Path, into: &mut Connection) -> rusqlite::Result<u64> {
    // Its log may hold what the file does not yet: reading that needs a connection that may write.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(damaged, flags)?;
    from.busy_timeout(Duration::from_secs(1))?;
    let transaction = into.transaction()?;
    let mut saved = 0;
    for table in TABLES {
        for order in ["ASC", "DESC"] {
            match copy(&from, &transaction, table, order) {
                Ok(rows) => saved += rows,
                Err(error) => tracing::debug!(%error, table, order, "a damaged table cannot be read"),
            }
        }
    }
    transaction.commit()?;
    Ok(saved)
}

/// Copies rows until one cannot be read.
fn copy(from: &Connection, into: &Connection, table: &str, order: &str) -> rusqlite::Result<u64> {
    let mut select = from.prepare(&format!("SELECT * FROM {table} ORDER BY rowid {order}"))?;
    let columns: Vec<String> = select.column_names().map(str::to_owned).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    let mut insert =
        into.prepare(&format!("INSERT OR IGNORE INTO {table}({}) VALUES ({marks})", columns.join(", ")))?;
    let mut rows = select.query([])?;
    let mut saved = 0;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(saved),
            Err(error) => {
                tracing::debug!(%error, table, order, "the rest of a damaged table cannot be read");
                return Ok(saved);
            }
        };
        let values: Vec<Value> = (0..columns.len()).map(|column| row.get(column)).collect::<Result<_, _>>()?;
        // A row that does not fit the table is damage as well.
        saved += insert.execute(params_from_iter(values)).map(|added| added as u64).unwrap_or(0);
    }
}

/// What must not be lost. The journal and the log of deliveries are history, and stay where they are.
const TABLES: [&str; 3] = ["deliveries", "alerts", "silences"];
