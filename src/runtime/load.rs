//! Reads lists and databases from files into the pure readers, within bounds.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::names::{List, ListError, PlaceDatabase, PlaceError, Places};

/// Why a file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is larger than anything sensible.
    #[error("`{}` is larger than {limit} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// The file is no list.
    #[error("cannot use the list `{}`", path.display())]
    List {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ListError,
    },
    /// The file is no database.
    #[error("cannot use the database `{}`", path.display())]
    Place {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PlaceError,
    },
}

/// Reads a list of at most `limit` entries.
pub fn list(path: &Path, limit: usize) -> Result<List, LoadError> {
    let text = read(path, MAX_LIST_BYTES)?;
    List::parse(&text, limit).map_err(|source| LoadError::List { path: path.to_owned(), source })
}

/// Reads databases that are asked together, in this order.
pub fn places(paths: &[PathBuf]) -> Result<Places, LoadError> {
    let databases = paths.iter().map(|path| {
        let bytes = read(path, MAX_DATABASE_BYTES)?;
        PlaceDatabase::from_bytes(bytes).map_err(|source| LoadError::Place { path: path.clone(), source })
    });
    databases.collect::<Result<_, _>>().map(Places::new)
}

/// The bytes of a list's file.
pub fn list_bytes(path: &Path) -> Result<Vec<u8>, LoadError> {
    read(path, MAX_LIST_BYTES)
}

/// Reads a whole file, a pipe included, of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > limit {
        return Err(LoadError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// A million CIDRs are 20 MB; the largest published lists have 60.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// The largest commercial databases have about 600 MB.
const MAX_DATABASE_BYTES: u64 = 2 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_file_and_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.txt");
        std::fs::write(&path, "192.0.2.1\n192.0.2.2\n").unwrap();
        assert!(matches!(read(&path, 19), Err(LoadError::TooLarge { limit: 19, .. })));
        assert_eq!(read(&path, 20).unwrap().len(), 20);
        assert_eq!(list(&path, 2).unwrap().networks.len(), 2);
        let absent = list(&folder.path().join("absent"), 2).unwrap_err();
        assert!(absent.to_string().ends_with("absent`"), "{absent}");
        assert!(matches!(places(&[path]), Err(LoadError::Place { .. })));
    }
}
