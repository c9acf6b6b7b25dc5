//! What `/proc` still says of an execution, if it is still the same one.
//!
//! Only for what the kernel programs could not report: processes that had
//! their sockets before Egret started, and what was cut.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use bstr::{BString, ByteSlice};

use super::record::{ANCESTORS, Execution, split_arguments};
use crate::attribution::{Ancestor, Cgroup, Executable, ExecutableKind};

/// What is known of a process that was not reported.
pub struct Facts {
    pub executable: Option<Executable>,
    pub command_line: Vec<BString>,
    pub working_directory: Option<BString>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub login_uid: Option<u32>,
    pub ancestors: Vec<Ancestor>,
    pub cgroup: Option<Cgroup>,
    pub network_namespace: Option<u32>,
}

/// Everything, or nothing when the process is gone.
pub fn facts(execution: Execution) -> Option<Facts> {
    let pid = execution.pid;
    if !same(execution) {
        return None;
    }
    let status = fs::read(file(pid, "status")).unwrap_or_default(); // It may go at any moment: then less is known.
    let effective = |key: &[u8]| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.fields().nth(1)?.to_str().ok()?.parse().ok()
    };
    let login: Option<u32> = fs::read_to_string(file(pid, "loginuid")).ok().and_then(|text| text.trim().parse().ok());
    Some(Facts {
        executable: executable(execution),
        command_line: arguments(pid).unwrap_or_default(),
        working_directory: link(pid, "cwd"),
        uid: effective(b"Uid:"),
        gid: effective(b"Gid:"),
        login_uid: login.filter(|uid| *uid != u32::MAX),
        ancestors: ancestors(pid),
        cgroup: cgroup(execution),
        network_namespace: link(pid, "ns/net")
            .and_then(|text| text.strip_prefix(b"net:[")?.strip_suffix(b"]")?.to_str().ok()?.parse().ok()),
    })
}

/// The executable, by the link that the kernel keeps to it.
pub fn executable(execution: Execution) -> Option<Executable> {
    let path = same(execution).then(|| link(execution.pid, "exe")).flatten()?;
    Some(executable_of_link(&path))
}

/// All arguments.
pub fn command_line(execution: Execution) -> Option<Vec<BString>> {
    same(execution).then(|| arguments(execution.pid)).flatten()
}

/// The control group, in whatever version the host uses.
pub fn cgroup(execution: Execution) -> Option<Cgroup> {
    if !same(execution) {
        return None;
    }
    Cgroup::from_proc(&fs::read(file(execution.pid, "cgroup")).ok()?)
}

/// Whether the pid still belongs to the process of that start time. `/proc`
/// has it in clock ticks, 10 ms.
fn same(execution: Execution) -> bool {
    stat(execution.pid).is_some_and(|stat| stat.start == execution.start / NANOS_PER_TICK)
}

fn ancestors(pid: u32) -> Vec<Ancestor> {
    let mut chain = Vec::new();
    let mut next = stat(pid).map(|stat| stat.parent);
    while let Some(parent) = next.filter(|parent| *parent != 0 && chain.len() < ANCESTORS) {
        chain.push(Ancestor {
            pid: parent,
            executable: link(parent, "exe").map(|path| executable_of_link(&path).path),
            command_line: arguments(parent).unwrap_or_default(),
        });
        next = stat(parent).map(|stat| stat.parent);
    }
    chain
}

struct Stat {
    parent: u32,
    start: u64,
}

/// Fields 4 and 22 of `/proc/PID/stat`; the name before them may hold anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(file(pid, "stat")).ok()?;
    let (_, rest) = text.rsplit_once_str(b") ")?;
    let number = |index| rest.fields().nth(index)?.to_str().ok()?.parse::<u64>().ok();
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, start: number(19)? })
}

fn arguments(pid: u32) -> Option<Vec<BString>> {
    fs::read(file(pid, "cmdline")).ok().map(|text| split_arguments(&text))
}

fn executable_of_link(path: &[u8]) -> Executable {
    let (path, deleted) = match path.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let kind = match deleted {
        true if path.starts_with(b"/memfd:") => ExecutableKind::Memfd,
        true => ExecutableKind::Deleted,
        false => ExecutableKind::File,
    };
    Executable { path: path.into(), kind, ..Executable::default() }
}

fn link(pid: u32, name: &str) -> Option<BString> {
    fs::read_link(file(pid, name)).ok().map(|path| path.into_os_string().into_vec().into())
}

fn file(pid: u32, name: &str) -> PathBuf {
    ["/proc", &pid.to_string(), name].iter().collect()
}

/// `USER_HZ` is 100 on every architecture that this runs on.
const NANOS_PER_TICK: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_another_start_is_not() {
        let pid = std::process::id();
        let start = stat(pid).unwrap().start * NANOS_PER_TICK + 1234;
        let facts = facts(Execution { start, pid, exec: 0 }).unwrap();
        assert_eq!(facts.executable.unwrap().kind, ExecutableKind::File);
        assert!(!facts.command_line.is_empty());
        assert!(facts.network_namespace.is_some());
        assert!(!facts.ancestors.is_empty());
        assert!(command_line(Execution { start: start + 5 * NANOS_PER_TICK, pid, exec: 0 }).is_none());
    }

    #[test]
    fn links_tell_the_kind_of_executable() {
        let kind = |path: &[u8]| executable_of_link(path).kind;
        assert_eq!(kind(b"/usr/bin/curl"), ExecutableKind::File);
        assert_eq!(kind(b"/usr/bin/curl (deleted)"), ExecutableKind::Deleted);
        assert_eq!(kind(b"/memfd:x (deleted)"), ExecutableKind::Memfd);
        assert_eq!(executable_of_link(b"/memfd:x (deleted)").path, "/memfd:x");
    }
}
