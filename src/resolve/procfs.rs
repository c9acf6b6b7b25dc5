//! What `/proc` says of a process.
//!
//! Everything is read below one open directory of the process, so that a pid
//! which is reused in between gives an error and never a mixture of two
//! processes. A file that may not be read leaves its fact unknown.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use bstr::{BString, ByteSlice};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::attribution::{Cgroup, Executable, ExecutableKind, Process, ProcessKey};
use crate::resolve::users::Users;
use crate::time::Timestamp;

/// A mounted `/proc`.
#[derive(Debug)]
pub(super) struct Proc {
    root: OwnedFd,
    nanos_per_tick: u64,
    buffer: Vec<u8>,
}

/// The open directory of one process.
#[derive(Debug)]
pub(super) struct ProcDir {
    fd: OwnedFd,
    pid: u32,
}

/// A process and what only the resolver needs of it.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// What is told; without ancestors, which are other processes.
    pub process: Process,
    /// The parent's pid.
    pub parent: u32,
}

/// What `/proc/PID/stat` says that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// The parent's pid.
    pub parent: u32,
    /// Nanoseconds from boot to the start of the process.
    pub start: u64,
    /// Whether this is a thread of the kernel.
    pub kernel: bool,
}

/// Why something of a process cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// There is no such process any more.
    Gone,
    /// It may not be looked at.
    Permission,
}

impl Proc {
    /// The `/proc` at a path.
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // USER_HZ is a constant of the kernel's interface, the same wherever Linux runs today.
        let nanos_per_tick = 1_000_000_000 / procfs::ticks_per_second().max(1);
        Ok(Self { root, nanos_per_tick, buffer: Vec::with_capacity(4_096) })
    }

    /// The directory of a process.
    pub(super) fn process(&self, pid: u32) -> Result<ProcDir, Unreadable> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.root, pid.to_string(), flags, Mode::empty())?;
        Ok(ProcDir { fd, pid })
    }

    /// Every pid, the highest first: pids grow, so these are the newest.
    pub(super) fn pids(&self) -> Result<Vec<u32>, Errno> {
        let directory = rustix::fs::openat(&self.root, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut pids: Vec<u32> = Vec::new();
        for_each_entry(directory.as_fd(), |name| {
            if let Some(pid) = parse_number(name) {
                pids.push(pid);
            }
        })?;
        pids.sort_unstable_by(|one, other| other.cmp(one));
        Ok(pids)
    }

    /// All that is told of a process.
    pub(super) fn facts(&mut self, directory: &ProcDir, users: &mut Users) -> Result<Facts, Unreadable> {
        let stat = self.stat(directory)?;
        let owner = self.read(directory, "status").map(|content| effective_ids(&content)).unwrap_or_default();
        let login = self.read(directory, "loginuid").ok().and_then(|content| parse_number::<u32>(content.trim()));
        let cgroup =
            self.read(directory, "cgroup").ok().and_then(|content| Cgroup::from_proc(&content)).unwrap_or_default();
        let command_line = self.read(directory, "cmdline").map(|content| arguments(&content)).unwrap_or_default();
        let process = Process {
            key: ProcessKey { pid: directory.pid, start: stat.start },
            executable: self.executable(directory, stat.kernel),
            command_line,
            working_directory: link(&directory.fd, "cwd").ok(),
            user: owner.map(|(uid, _)| users.user(uid)),
            gid: owner.map(|(_, gid)| gid),
            group: owner.and_then(|(_, gid)| users.group(gid)),
            login_user: login.filter(|uid| *uid != NO_LOGIN).map(|uid| users.user(uid)),
            ancestors: Vec::new(),
            cgroup: (!cgroup.path.is_empty()).then_some(cgroup.path),
            unit: cgroup.unit,
            slice: cgroup.slice,
            container: cgroup.container,
            network_namespace: network_namespace(directory).ok(),
            started_at: Some(boot_time().after(Duration::from_nanos(stat.start))),
        };
        Ok(Facts { process, parent: stat.parent })
    }

    /// Parent, start time and whether it is the kernel.
    pub(super) fn stat(&mut self, directory: &ProcDir) -> Result<Stat, Unreadable> {
        let content = self.read(directory, "stat")?;
        parse_stat(&content, self.nanos_per_tick).ok_or(Unreadable::Gone)
    }

    /// Calls `found` with the inode of every socket that the process holds, and its descriptor.
    pub(super) fn sockets(&self, directory: &ProcDir, mut found: impl FnMut(u32, u64)) -> Result<(), Unreadable> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fds = rustix::fs::openat(&directory.fd, "fd", flags, Mode::empty())?;
        for_each_entry(fds.as_fd(), |name| {
            let Some(descriptor) = parse_number(name) else { return };
            let mut target = [MaybeUninit::uninit(); 64];
            // A descriptor that was closed in the meantime is no holder.
            let Ok((target, _)) = rustix::fs::readlinkat_raw(&fds, name, &mut target[..]) else { return };
            if let Some(inode) = socket_inode(target) {
                found(descriptor, inode);
            }
        })?;
        Ok(())
    }

    /// A file of a process, up to [`MAX_FILE`].
    fn read(&mut self, directory: &ProcDir, name: &str) -> Result<Vec<u8>, Unreadable> {
        self.read_up_to(directory, name, MAX_FILE)
    }

    /// A table of the process's network namespace, up to [`MAX_TABLE`].
    pub(super) fn read_table(&mut self, directory: &ProcDir, name: &str) -> Result<Vec<u8>, Unreadable> {
        self.read_up_to(directory, &format!("net/{name}"), MAX_TABLE)
    }

    fn read_up_to(&mut self, directory: &ProcDir, name: &str, most: usize) -> Result<Vec<u8>, Unreadable> {
        let file = rustix::fs::openat(&directory.fd, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        self.buffer.clear();
        loop {
            self.buffer.reserve(4_096);
            match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut self.buffer)) {
                Ok(0) => break,
                Ok(_) if self.buffer.len() >= most => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.buffer.clone())
    }

    /// The file that a process runs.
    pub(super) fn executable(&self, directory: &ProcDir, kernel: bool) -> Option<Executable> {
        if kernel {
            return Some(Executable { kind: ExecutableKind::Kernel, ..Default::default() });
        }
        let target = link(&directory.fd, "exe").ok()?;
        let Some(path) = target.strip_suffix(DELETED) else {
            return Some(Executable { path: target, kind: ExecutableKind::File, ..Default::default() });
        };
        if path.starts_with(b"/memfd:") {
            return Some(Executable { path: path.into(), kind: ExecutableKind::Memfd, ..Default::default() });
        }
        // A file may really be called `… (deleted)`; then its path leads to the file that runs.
        let literal = [b"root".as_slice(), target.as_slice()].concat();
        let runs = rustix::fs::statat(&directory.fd, "exe", rustix::fs::AtFlags::empty());
        let there = rustix::fs::statat(&directory.fd, literal.as_slice(), rustix::fs::AtFlags::empty());
        Some(match (runs, there) {
            (Ok(runs), Ok(there)) if (runs.st_dev, runs.st_ino) == (there.st_dev, there.st_ino) => {
                Executable { path: target, kind: ExecutableKind::File, ..Default::default() }
            }
            _ => Executable { path: path.into(), kind: ExecutableKind::Deleted, ..Default::default() },
        })
    }
}

impl ProcDir {
    /// The process's directory, to open files below it.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The socket under a descriptor, where it is one.
    pub(super) fn socket(&self, descriptor: u32) -> Option<u64> {
        socket_inode(&link(&self.fd, &format!("fd/{descriptor}")).ok()?)
    }

    /// Which process.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}

impl From<Errno> for Unreadable {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ACCESS | Errno::PERM => Self::Permission,
            _ => Self::Gone,
        }
    }
}

/// The network namespace of a process by its inode number.
pub(super) fn network_namespace(directory: &ProcDir) -> Result<u32, Unreadable> {
    let target = link(&directory.fd, "ns/net")?;
    bracketed(&target, b"net:[").and_then(|inode| u32::try_from(inode).ok()).ok_or(Unreadable::Gone)
}

/// The wall-clock time at which the machine started.
pub(super) fn boot_time() -> Timestamp {
    let since_boot = Duration::from_nanos(clock(ClockId::Boottime).as_nanos().unsigned_abs());
    clock(ClockId::Realtime).before(since_boot)
}

/// The wall-clock time.
pub(super) fn now() -> Timestamp {
    clock(ClockId::Realtime)
}

/// What the calling thread has used of the processor: on a busy machine less than the time that passed.
pub(super) fn processor_time() -> Duration {
    Duration::from_nanos(clock(ClockId::ThreadCPUTime).as_nanos().unsigned_abs())
}

fn clock(clock: ClockId) -> Timestamp {
    let time = rustix::time::clock_gettime(clock);
    Timestamp::from_nanos(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec))
}

fn link(directory: &OwnedFd, name: &str) -> Result<BString, Unreadable> {
    let mut target = [MaybeUninit::uninit(); 4_097];
    let (target, _) = rustix::fs::readlinkat_raw(directory, name, &mut target[..])?;
    Ok((&*target).into())
}

fn for_each_entry(directory: BorrowedFd<'_>, mut entry: impl FnMut(&[u8])) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 8_192];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(found) = entries.next() {
        entry(found?.file_name().to_bytes());
    }
    Ok(())
}

/// `pid (name) state ppid …`: the name may hold anything, `)` and spaces included.
fn parse_stat(content: &[u8], nanos_per_tick: u64) -> Option<Stat> {
    let (_, rest) = content.rsplit_once_str(b")")?;
    let mut fields = rest.fields();
    let parent = parse_number(fields.nth(1)?)?;
    let flags: u64 = parse_number(fields.nth(4)?)?;
    let ticks: u64 = parse_number(fields.nth(12)?)?;
    Some(Stat { parent, start: ticks.saturating_mul(nanos_per_tick), kernel: flags & PF_KTHREAD != 0 })
}

/// The effective user and group.
fn effective_ids(status: &[u8]) -> Option<(u32, u32)> {
    let second = |label: &[u8]| {
        let line = status.lines().find_map(|line| line.strip_prefix(label))?;
        parse_number(line.fields().nth(1)?)
    };
    Some((second(b"Uid:")?, second(b"Gid:")?))
}

fn arguments(cmdline: &[u8]) -> Vec<BString> {
    let cmdline = cmdline.get(..cmdline.len().min(MAX_COMMAND_LINE)).unwrap_or_default();
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Vec::new();
    }
    cmdline.split(|byte| *byte == 0).map(Into::into).collect()
}

fn socket_inode(target: &[u8]) -> Option<u64> {
    bracketed(target, b"socket:[")
}

fn bracketed(target: &[u8], prefix: &[u8]) -> Option<u64> {
    parse_number(target.strip_prefix(prefix)?.strip_suffix(b"]")?)
}

fn parse_number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    text.to_str().ok()?.parse().ok()
}

/// The kernel's suffix for a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// Nobody logged in: audit(8)'s unset `loginuid`.
const NO_LOGIN: u32 = u32::MAX;

/// `PF_KTHREAD` of the kernel's `sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// The most that is read of one file of a process; only `cmdline` can be longer.
const MAX_FILE: usize = 64 * 1024;

/// The most that is read of a socket table: some hundred thousand sockets.
const MAX_TABLE: usize = 32 * 1024 * 1024;

/// The most that is kept of a command line.
const MAX_COMMAND_LINE: usize = 8 * 1024;

/// A `/proc` as a test wants it.
#[cfg(test)]
pub(super) struct Fixture {
    directory: tempfile::TempDir,
}

#[cfg(test)]
impl Fixture {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Adds a process, a child of 7, or replaces the one of this pid.
    pub(super) fn process(&self, pid: u32, exe: &str, cmdline: &[u8]) -> std::path::PathBuf {
        self.process_started(pid, exe, cmdline, 4_711)
    }

    pub(super) fn process_started(&self, pid: u32, exe: &str, cmdline: &[u8], ticks: u64) -> std::path::PathBuf {
        use std::fs;
        use std::os::unix::fs::symlink;

        self.remove(pid);
        let path = self.directory.path().join(pid.to_string());
        fs::create_dir_all(path.join("fd")).unwrap();
        fs::create_dir_all(path.join("ns")).unwrap();
        fs::write(path.join("cmdline"), cmdline).unwrap();
        let stat = format!("{pid} (a) b) S 7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0 184467\n");
        fs::write(path.join("stat"), stat).unwrap();
        fs::write(path.join("status"), "Name:\ta\nUid:\t1000\t33\t0\t0\nGid:\t1000\t34\t0\t0\n").unwrap();
        fs::write(path.join("loginuid"), "4294967295").unwrap();
        fs::write(path.join("cgroup"), "0::/system.slice/web.service\n").unwrap();
        symlink(exe, path.join("exe")).unwrap();
        symlink("/srv", path.join("cwd")).unwrap();
        symlink("net:[4026531840]", path.join("ns/net")).unwrap();
        path
    }

    /// Ends a process.
    pub(super) fn remove(&self, pid: u32) {
        // There may be none.
        let _ = std::fs::remove_dir_all(self.directory.path().join(pid.to_string()));
    }

    pub(super) fn proc(&self) -> Proc {
        Proc::open(self.directory.path()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_fact_is_read() {
        let fixture = Fixture::new();
        fixture.process(42, "/usr/bin/web", b"web\0--port\080\0");
        let mut proc = fixture.proc();
        let directory = proc.process(42).unwrap();
        let Facts { process, parent } = proc.facts(&directory, &mut Users::default()).unwrap();
        assert_eq!(parent, 7);
        assert_eq!(process.key, ProcessKey { pid: 42, start: 47_110_000_000 });
        assert_eq!(process.executable_path(), Some(b"/usr/bin/web".as_slice()));
        assert_eq!(process.executable.as_ref().unwrap().kind, ExecutableKind::File);
        assert_eq!(process.command_line, ["web", "--port", "80"]);
        assert_eq!(process.working_directory.as_ref().unwrap(), "/srv");
        assert_eq!((process.user.as_ref().unwrap().uid, process.gid), (Some(33), Some(34)));
        assert_eq!(process.login_user, None);
        assert_eq!(process.unit.as_deref(), Some("web.service"));
        assert_eq!(process.network_namespace, Some(4_026_531_840));
    }

    #[test]
    fn the_kind_of_an_executable_is_told_apart() {
        let fixture = Fixture::new();
        for (pid, exe, path, kind) in [
            (1, "/opt/x (deleted)", "/opt/x", ExecutableKind::Deleted),
            (2, "/memfd:payload (deleted)", "/memfd:payload", ExecutableKind::Memfd),
            (3, "/memfd:payload", "/memfd:payload", ExecutableKind::File),
        ] {
            fixture.process(pid, exe, b"");
            let mut proc = fixture.proc();
            let directory = proc.process(pid).unwrap();
            let executable = proc.facts(&directory, &mut Users::default()).unwrap().process.executable.unwrap();
            assert_eq!((executable.path.to_string().as_str(), executable.kind), (path, kind));
        }
    }

    #[test]
    fn sockets_and_pids_are_listed() {
        let fixture = Fixture::new();
        let path = fixture.process(9, "/bin/a", b"a\0");
        fixture.process(10, "/bin/b", b"b\0");
        symlink("socket:[77]", path.join("fd/0")).unwrap();
        symlink("pipe:[78]", path.join("fd/1")).unwrap();
        symlink("socket:[79]", path.join("fd/12")).unwrap();
        let proc = fixture.proc();
        let mut found = Vec::new();
        proc.sockets(&proc.process(9).unwrap(), |descriptor, inode| found.push((descriptor, inode))).unwrap();
        found.sort_unstable();
        assert_eq!(found, [(0, 77), (12, 79)]);
        assert_eq!(proc.pids().unwrap(), [10, 9]);
        assert_eq!(proc.process(11).unwrap_err(), Unreadable::Gone);
    }

    #[test]
    fn damaged_files_leave_facts_unknown() {
        assert_eq!(parse_stat(b"1 (x", 1), None);
        assert_eq!(parse_stat(b"1 (x) S 1", 1), None);
        assert_eq!(effective_ids(b"Uid:\t1\n"), None);
        assert_eq!(arguments(b""), Vec::<BString>::new());
        assert_eq!(arguments(b"\0"), Vec::<BString>::new());
        assert_eq!(arguments(b"a\0\0"), ["a", ""]);
        assert_eq!(socket_inode(b"socket:[x]"), None);
    }

    #[test]
    fn this_process_is_readable() {
        let mut proc = Proc::open(Path::new("/proc")).unwrap();
        let directory = proc.process(std::process::id()).unwrap();
        let Facts { process, .. } = proc.facts(&directory, &mut Users::default()).unwrap();
        assert_eq!(
            process.executable_path().unwrap().to_str_lossy(),
            std::env::current_exe().unwrap().to_string_lossy()
        );
        let age =
            Timestamp::from_nanos(jiff::Timestamp::now().as_nanosecond() as i64).since(process.started_at.unwrap());
        assert!(age < Duration::from_secs(3_600), "{age:?}");
    }
}
