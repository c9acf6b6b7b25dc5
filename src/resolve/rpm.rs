//! rpm's database since it is SQLite: which package owns a path.
//!
//! `Basenames` leads from a file's name to the packages that have one of that
//! name; the folder stands in the package's header only (rpm's `rpmtag.h` and
//! header format, version 3).

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};
use tracing::debug;

/// An open database.
#[derive(Debug)]
pub(super) struct RpmDatabase {
    connection: Connection,
}

impl RpmDatabase {
    /// Opens it where there is one. Nothing is written, and nobody is waited for.
    pub(super) fn open(path: &Path) -> Option<Self> {
        if !path.is_file() {
            return None;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let uri = |mode| format!("file:{}?{mode}", path.display().to_string().replace(['?', '#', '%'], "_"));
        // Who may not write beside it cannot share its log, and reads the file as it is.
        let opened = ["mode=ro", "immutable=1"].into_iter().find_map(|mode| {
            let connection = Connection::open_with_flags(uri(mode), flags).ok()?;
            connection.query_row("SELECT count(*) FROM Basenames WHERE key = ''", [], |_| Ok(())).ok()?;
            Some(connection)
        });
        if opened.is_none() {
            debug!(path = %path.display(), "rpm's database cannot be read");
        }
        opened.map(|connection| Self { connection })
    }

    /// The name of the package that owns a path.
    pub(super) fn owner(&self, path: &str) -> Option<Arc<str>> {
        let (folder, name) = path.rsplit_once('/')?;
        let mut statement = self.connection.prepare_cached(HEADERS_OF).ok()?;
        let headers = statement.query_map([name], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, u32>(1)?)));
        let headers: Vec<_> = headers.ok()?.flatten().collect();
        headers.iter().find_map(|(header, index)| owner_in(header, *index, folder))
    }
}

/// The package of a header, if its file of this number lies in the folder.
pub(super) fn owner_in(header: &[u8], index: u32, folder: &str) -> Option<Arc<str>> {
    let header = Header::read(header)?;
    let number = header.number(DIRECTORY_INDEXES, index)?;
    let of_package = header.text(DIRECTORY_NAMES, number)?;
    same_folder(of_package.trim_end_matches('/'), folder).then(|| header.text(NAME, 0).map(Arc::from))?
}

/// `/bin` and `/usr/bin` are one folder wherever rpm's database is SQLite.
fn same_folder(one: &str, other: &str) -> bool {
    let plain = |folder: &str| folder.strip_prefix("/usr").unwrap_or(folder).to_owned();
    one == other || (MERGED.contains(&plain(one).as_str()) && plain(one) == plain(other))
}

/// A package's header: an index of tags, then their values.
struct Header<'a> {
    index: &'a [u8],
    values: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (entries, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let index = usize::try_from(u32::from_be_bytes(*entries)).ok()?.checked_mul(ENTRY)?;
        let values = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        Some(Self { index: rest.get(..index)?, values: rest.get(index..index.checked_add(values)?)? })
    }

    /// The bytes from a tag's value on, and how many values there are.
    fn value(&self, tag: u32) -> Option<(&'a [u8], u32)> {
        let word = |entry: &[u8], at: usize| {
            entry.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes)
        };
        let entry = self.index.chunks_exact(ENTRY).find(|entry| word(entry, 0) == Some(tag))?;
        let offset = usize::try_from(word(entry, 8)?).ok()?;
        Some((self.values.get(offset..)?, word(entry, 12)?))
    }

    fn number(&self, tag: u32, index: u32) -> Option<u32> {
        let (bytes, count) = self.value(tag)?;
        let at = usize::try_from(index).ok().filter(|_| index < count)?.checked_mul(4)?;
        Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn text(&self, tag: u32, index: u32) -> Option<&'a str> {
        let (bytes, count) = self.value(tag)?;
        let index = usize::try_from(index).ok().filter(|_| index < count)?;
        std::str::from_utf8(bytes.split(|byte| *byte == 0).nth(index)?).ok()
    }
}

/// One file name can belong to many packages, such as `__init__.py`.
const HEADERS_OF: &str = "SELECT Packages.blob, Basenames.idx FROM Basenames \
    JOIN Packages ON Packages.hnum = Basenames.hnum WHERE Basenames.key = ?1 LIMIT 256";

/// `RPMTAG_NAME`.
const NAME: u32 = 1000;
/// `RPMTAG_DIRINDEXES`: for each file, the number of its folder.
const DIRECTORY_INDEXES: u32 = 1116;
/// `RPMTAG_DIRNAMES`.
const DIRECTORY_NAMES: u32 = 1118;

/// Octets of an index entry: tag, type, offset, count.
const ENTRY: usize = 16;

const MERGED: [&str; 4] = ["/bin", "/sbin", "/lib", "/lib64"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_damaged_header_gives_nothing_and_stops_nothing(bytes: Vec<u8>, tag in 1000u32..1120, index: u32) {
            if let Some(header) = Header::read(&bytes) {
                let _ = (header.number(tag, index), header.text(tag, index));
            }
        }
    }

    #[test]
    fn a_header_is_read_by_its_index() {
        let entry =
            |tag: u32, kind: u32, offset: u32, count: u32| [tag, kind, offset, count].map(u32::to_be_bytes).concat();
        let values = b"curl\0/usr/bin/\0/etc/\0\0\0\0\0\0\0\0\x01".as_slice();
        let index =
            [entry(NAME, 6, 0, 1), entry(DIRECTORY_NAMES, 8, 5, 2), entry(DIRECTORY_INDEXES, 4, 21, 2)].concat();
        let sizes = [3u32, u32::try_from(values.len()).unwrap()].map(u32::to_be_bytes).concat();
        let bytes = [sizes, index, values.to_vec()].concat();
        let header = Header::read(&bytes).unwrap();
        assert_eq!(header.text(NAME, 0), Some("curl"));
        assert_eq!(header.number(DIRECTORY_INDEXES, 1).and_then(|at| header.text(DIRECTORY_NAMES, at)), Some("/etc/"));
        assert_eq!(header.text(NAME, 1), None);
        assert_eq!(header.number(DIRECTORY_INDEXES, 2), None);
    }
}
