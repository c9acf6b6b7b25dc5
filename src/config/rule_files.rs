//! Finds and reads rule files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rule::compile::{Lint, Options, Parts};
use crate::rule::diagnose::Source;
use crate::rule::yaml;
use crate::time::Timestamp;

/// Why rule files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RuleFileError {
    /// A file or folder cannot be read.
    #[error("cannot read rules from `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no end to the folders.
    #[error("`{}` lies more than {MAX_DEPTH} folders deep: perhaps a link leads back to its own folder", path.display())]
    TooDeep {
        /// Where the search ended.
        path: PathBuf,
    },
}

/// List files above this are refused.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// Folders in folders, at most.
const MAX_DEPTH: usize = 16;

/// Every rule file below `paths`, in byte order of the path within each.
///
/// A path that names a file is read whatever its name. In folders `*.yaml`
/// and `*.yml` count; hidden files and editors' backups do not. Links are followed.
///
/// # Errors
/// Where something cannot be read.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Source>, RuleFileError> {
    let mut files = Vec::new();
    for path in paths {
        let mut found = Vec::new();
        if path.is_dir() {
            collect(path, 0, &mut found)?;
        } else {
            found.push(path.clone());
        }
        found.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        files.extend(found);
    }
    files.iter().map(|path| read_one(path)).collect()
}

/// What compiling needs of this host: list files, the date, the time zone.
pub fn options(now: Timestamp, outputs: Option<BTreeSet<String>>) -> Options {
    Options {
        read_file: Arc::new(|path| read_list(Path::new(path)).map_err(|error| error.to_string())),
        outputs,
        now,
        local_zone: jiff::tz::TimeZone::system(),
        missing: BTreeMap::new(),
        lint: Lint::Off,
        parts: Parts::Dropped,
    }
}

fn read_list(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(MAX_LIST_BYTES + 1).read_to_end(&mut content)?;
    if read as u64 > MAX_LIST_BYTES {
        return Err(io::Error::other(format!("the file is larger than {MAX_LIST_BYTES} bytes")));
    }
    Ok(content)
}

fn read_one(path: &Path) -> Result<Source, RuleFileError> {
    let mut content = Vec::new();
    // One byte more than the reader takes, so that it says the file is too large.
    std::fs::File::open(path)
        .and_then(|file| file.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut content))
        .map_err(|source| RuleFileError::Read { path: path.into(), source })?;
    Ok(Source::new(path.display().to_string(), content))
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), RuleFileError> {
    if depth > MAX_DEPTH {
        return Err(RuleFileError::TooDeep { path: folder.into() });
    }
    let failed = |source| RuleFileError::Read { path: folder.into(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name() else { continue };
        if is_hidden_or_backup(name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, depth + 1, found)?;
        } else if matches!(path.extension().and_then(OsStr::to_str), Some("yaml" | "yml")) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_hidden_or_backup(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".") || name.starts_with(b"#") || name.ends_with(b"~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_and_hidden_files_are_no_rules() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "b.yaml~", "#b.yaml#", "notes.txt"] {
            std::fs::write(folder.path().join(name), "rules: []\n").unwrap();
        }
        std::fs::create_dir(folder.path().join("aa")).unwrap();
        std::fs::write(folder.path().join("aa/z.yaml"), "rules: []\n").unwrap();
        let sources = read(&[folder.path().to_path_buf()]).unwrap();
        let names: Vec<String> = sources
            .iter()
            .map(|source| source.path.trim_start_matches(&*folder.path().to_string_lossy()).to_owned())
            .collect();
        assert_eq!(names, ["/a.yml", "/aa/z.yaml", "/b.yaml"]);
    }

    #[test]
    fn a_link_to_its_own_folder_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("self")).unwrap();
        assert!(matches!(read(&[folder.path().to_path_buf()]), Err(RuleFileError::TooDeep { .. })));
    }
}
