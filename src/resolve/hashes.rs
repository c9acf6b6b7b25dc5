//! The hash of a process's executable, which takes time to find out.
//!
//! Each file is read once: what was hashed is remembered by inode, size and
//! times. The file of a process that is gone is hashed only where its path
//! still leads to the very inode that ran, unchanged since: no hash is better
//! than another file's.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bstr::ByteSlice;
use ring::digest::{Context, SHA256};
use rustix::fs::{Mode, OFlags};
use tracing::debug;

use crate::attribution::{Executable, ExecutableKind, Process};
use crate::resolve::procfs::Proc;
use crate::time::Timestamp;

/// Hashes of files, by what tells that a file has not changed.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    known: HashMap<Identity, Arc<str>>,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Unlike the other, nobody can set this one back.
    changed: (i64, i64),
}

impl Hashes {
    /// The SHA-256 of a process's executable in hexadecimal; `None` where the file cannot be had any more.
    pub(super) fn of_process(&mut self, process: &Process) -> Option<Arc<str>> {
        let file = executable_file(process, process.executable.as_ref()?)?;
        match self.of_file(&file) {
            Ok(hash) => hash,
            Err(error) => {
                debug!(pid = process.key.pid, %error, "the executable cannot be hashed");
                None
            }
        }
    }

    /// The SHA-256 of a file in hexadecimal; `None` for one that is too large.
    fn of_file(&mut self, file: &File) -> io::Result<Option<Arc<str>>> {
        let identity = Identity::of(file)?;
        if let Some(hash) = self.known.get(&identity) {
            return Ok(Some(Arc::clone(hash)));
        }
        if identity.length > MAX_LENGTH {
            return Ok(None);
        }
        let mut context = Context::new(&SHA256);
        self.buffer.resize(READ_AT_ONCE, 0);
        let mut file = file;
        loop {
            match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => context.update(self.buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // One that was written meanwhile is neither the old file nor the new one.
        if Identity::of(file)? != identity {
            return Ok(None);
        }
        let digest = context.finish();
        let hash: Arc<str> = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(identity, Arc::clone(&hash));
        Ok(Some(hash))
    }
}

/// The file that a process runs, or ran.
fn executable_file(process: &Process, executable: &Executable) -> Option<File> {
    file_of_process(process).or_else(|| file_of_path(process, executable))
}

/// By the link that the kernel keeps, which also leads to a file that was
/// removed and to one of another mount namespace.
fn file_of_process(process: &Process) -> Option<File> {
    let mut proc = Proc::open(Path::new("/proc")).ok()?;
    let directory = proc.process(process.key.pid).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory.as_fd(), "exe", flags, Mode::empty()).ok()?);
    let stat = proc.stat(&directory).ok()?;
    // procfs rounds the start to clock ticks.
    let same = stat.start.abs_diff(process.key.start) < CLOCK_TICK;
    // It may have executed another program meanwhile.
    let reported = process.executable.as_ref()?;
    let same_file = match reported.inode {
        Some(inode) => file.metadata().is_ok_and(|metadata| metadata.ino() == inode),
        None => proc.executable(&directory, false).is_some_and(|runs| runs.path == reported.path),
    };
    (same && same_file).then_some(file)
}

fn file_of_path(process: &Process, executable: &Executable) -> Option<File> {
    let started = process.started_at?;
    if executable.kind != ExecutableKind::File {
        return None;
    }
    let file = File::open(executable.path.to_path().ok()?).ok()?;
    let metadata = file.metadata().ok()?;
    let changed =
        Timestamp::from_secs(metadata.ctime()).after(Duration::from_nanos(metadata.ctime_nsec().unsigned_abs()));
    let unchanged = changed <= started.after(CLOCKS_DIFFER);
    (executable.inode == Some(metadata.ino()) && unchanged && metadata.is_file()).then_some(file)
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Hashes that are remembered; beyond it the memory starts anew.
const MAX_KNOWN: usize = 16_384;

/// Larger files are not hashed.
const MAX_LENGTH: u64 = 1 << 30;

const READ_AT_ONCE: usize = 256 << 10;

/// `/proc` tells starts in ticks of 10 ms.
const CLOCK_TICK: u64 = 10_000_000;

/// By how much the start of a process, computed from the boot, may be off.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::attribution::ProcessKey;

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let mut hashes = Hashes::default();
        let hash = |hashes: &mut Hashes, file: &mut File| {
            io::Seek::rewind(file).unwrap();
            hashes.of_file(file).unwrap().unwrap()
        };
        let first = hash(&mut hashes, &mut file);
        // FIPS 180-2, appendix B.1.
        assert_eq!(&*first, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        // At its end, where a second reading would give the hash of nothing.
        assert!(Arc::ptr_eq(&hashes.of_file(&file).unwrap().unwrap(), &first));
        file.write_all(b"d").unwrap();
        assert_ne!(hash(&mut hashes, &mut file), first);
    }

    #[test]
    fn this_process_is_hashed_and_another_with_its_pid_is_not() {
        let mut proc = Proc::open(Path::new("/proc")).unwrap();
        let pid = std::process::id();
        let stat = proc.stat(&proc.process(pid).unwrap()).unwrap();
        let path = std::env::current_exe().unwrap();
        let executable = Executable {
            path: path.to_str().unwrap().into(),
            kind: ExecutableKind::File,
            inode: Some(std::fs::metadata(&path).unwrap().ino()),
            ..Executable::default()
        };
        let process = Process {
            key: ProcessKey { pid, start: stat.start + 1_234 },
            executable: Some(executable),
            started_at: Some(crate::resolve::procfs::boot_time().after(Duration::from_nanos(stat.start))),
            ..Process::default()
        };
        assert!(file_of_process(&process).is_some());
        let gone = Process { key: ProcessKey { pid, start: stat.start + 5 * CLOCK_TICK }, ..process.clone() };
        assert!(file_of_process(&gone).is_none());
        // Its path still leads to the file that ran.
        assert!(executable_file(&gone, gone.executable.as_ref().unwrap()).is_some());
        let other = |change: fn(&mut Process)| {
            let mut other = gone.clone();
            change(&mut other);
            file_of_path(&other, other.executable.as_ref().unwrap()).is_some()
        };
        assert!(!other(|process| process.executable.as_mut().unwrap().inode = Some(1)), "another file took the path");
        assert!(!other(|process| process.started_at = Some(Timestamp::from_secs(0))), "it has changed since");
    }
}
