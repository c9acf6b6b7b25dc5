//! A file system as one process sees it: this host's, or a container's.
//!
//! What a container holds was written by whoever runs there. Links in it lead
//! nowhere outside it, and no file is read without a bound.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A root folder that is open.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

/// What tells that a file or folder was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, u64),
}

impl Root {
    /// Opens the folder that is the root.
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let fd = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Where a path of this root is, seen from outside.
    pub(super) fn outside(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// The content of a regular file of at most `limit` bytes.
    pub(super) fn read(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        // A pipe in a container must not make this wait.
        let file = File::from(self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK).ok()?);
        let facts = file.metadata().ok()?;
        if !facts.is_file() || facts.len() > limit {
            return None;
        }
        let mut content = Vec::with_capacity(usize::try_from(facts.len()).ok()?);
        file.take(limit).read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// The names in a folder.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let Ok(folder) = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY).and_then(Dir::new) else {
            return Vec::new();
        };
        let names = folder.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        names.filter(|name| name != "." && name != "..").take(MAX_NAMES).collect()
    }

    /// What changes when a file or folder does.
    pub(super) fn stamp(&self, path: &str) -> Option<Stamp> {
        let file = self.open_at(path, OFlags::PATH).ok()?;
        let facts = rustix::fs::fstat(&file).ok()?;
        Some(Stamp { device: facts.st_dev, inode: facts.st_ino, changed: (facts.st_mtime, facts.st_mtime_nsec) })
    }

    /// Whether a path is a symbolic link.
    pub(super) fn is_link(&self, path: &str) -> bool {
        let file = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW);
        let facts = file.and_then(rustix::fs::fstat);
        facts.is_ok_and(|facts| rustix::fs::FileType::from_raw_mode(facts.st_mode) == rustix::fs::FileType::Symlink)
    }

    fn open_at(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }
}

/// Names of one folder that are read: a large installation has 5,000 packages.
const MAX_NAMES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_and_files_have_a_bound() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("lib/list"), "content").unwrap();
        symlink("/lib/list", folder.path().join("inside")).unwrap();
        symlink(outside.path().join("secret"), folder.path().join("astray")).unwrap();
        symlink("../../../../../../etc/passwd", folder.path().join("upwards")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        assert_eq!(root.read("/lib/list", 7).as_deref(), Some(b"content".as_slice()));
        assert_eq!(root.read("/lib/list", 6), None);
        assert_eq!(root.read("/inside", 100).as_deref(), Some(b"content".as_slice()));
        assert_eq!(root.read("/astray", 100), None);
        assert_eq!(root.read("/upwards", 1 << 20), None);
        assert_eq!(root.read("/lib", 100), None);
        assert!(root.is_link("/inside") && !root.is_link("/lib") && !root.is_link("/absent"));
        assert_eq!(root.names("/lib"), ["list"]);
        let before = root.stamp("/lib").unwrap();
        fs::write(folder.path().join("lib/more"), "").unwrap();
        assert_ne!(root.stamp("/lib"), Some(before));
    }
}
