//! A process as the owner of flows, and all that is known of it.
//!
//! Paths, arguments and names come from whoever wrote the program: they are
//! bytes, and every output escapes them.

use std::sync::Arc;

use bstr::{BString, ByteSlice};

use crate::time::Timestamp;

/// What names a process for ever: pid and start time. A pid alone is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct ProcessKey {
    /// The process id in the initial pid namespace.
    pub pid: u32,
    /// Nanoseconds from boot to the start of the process; procfs rounds to
    /// 10 ms. 0 where the source does not tell (captures, `--owners`).
    pub start: u64,
}

/// A process: one execution of one program. An `exec` makes a new value with the same key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Which process.
    pub key: ProcessKey,
    /// The file that runs.
    pub executable: Option<Executable>,
    /// The arguments, `argv[0]` first; chosen by whoever started it.
    pub command_line: Vec<BString>,
    /// The working directory.
    pub working_directory: Option<BString>,
    /// The effective user.
    pub user: Option<User>,
    /// The effective group id.
    pub gid: Option<u32>,
    /// The name of that group, where it has one.
    pub group: Option<Arc<str>>,
    /// The user who logged in, whoever the process runs as (audit `loginuid`).
    pub login_user: Option<User>,
    /// Parents, the nearest first.
    pub ancestors: Vec<Ancestor>,
    /// The control group's path below its mount.
    pub cgroup: Option<Arc<str>>,
    /// The systemd unit, from the control group.
    pub unit: Option<Arc<str>>,
    /// The systemd slice, from the control group.
    pub slice: Option<Arc<str>>,
    /// The container, from the control group.
    pub container: Option<Container>,
    /// The network namespace's inode number.
    pub network_namespace: Option<u32>,
    /// When the process started, in wall-clock time.
    pub started_at: Option<Timestamp>,
}

/// The file that a process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executable {
    /// The absolute path, without the kernel's ` (deleted)`.
    pub path: BString,
    /// What kind of file.
    pub kind: ExecutableKind,
    /// The number of its inode, where the source tells.
    pub inode: Option<u64>,
    /// The SHA-256 of its content in hexadecimal, where it was asked for.
    pub sha256: Option<Arc<str>>,
    /// The package that installed it, where one did.
    pub package: Option<Arc<str>>,
}

/// What kind of file a process runs: the rule field `exe.kind`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutableKind {
    /// A file that is still at its path.
    File,
    /// A file that was removed or replaced while it ran.
    Deleted,
    /// Memory only (`memfd_create`): there never was a file.
    Memfd,
    /// The kernel.
    Kernel,
    /// Not known.
    #[default]
    Unknown,
}

/// A user by number and, where it is known, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct User {
    /// The numeric id in the initial user namespace.
    pub uid: Option<u32>,
    /// The name.
    pub name: Option<Arc<str>>,
}

/// A parent, grandparent and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ancestor {
    /// The process id.
    pub pid: u32,
    /// The path of its executable.
    pub executable: Option<BString>,
    /// Its arguments.
    pub command_line: Vec<BString>,
}

/// The container that a process runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Container {
    /// The runtime's id.
    pub id: Arc<str>,
    /// `docker`, `containerd`, `podman`, `crio`, `lxc`, `systemd-nspawn`.
    pub runtime: Option<Arc<str>>,
    /// The name that people gave it.
    pub name: Option<Arc<str>>,
    /// The image it was made from.
    pub image: Option<Arc<str>>,
    /// The Kubernetes pod: its name, or its uid where only that is known.
    pub pod: Option<Arc<str>>,
    /// The Kubernetes namespace.
    pub namespace: Option<Arc<str>>,
    /// Labels of the container and its pod, `key=value`, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Arc<str>>,
}

impl Process {
    /// The path of the executable, where it is known.
    pub fn executable_path(&self) -> Option<&[u8]> {
        self.executable.as_ref().map(|executable| executable.path.as_bytes())
    }

    /// The last segment of the executable's path.
    pub fn executable_name(&self) -> Option<&[u8]> {
        let path = self.executable_path()?;
        path.rsplit_str("/").next().filter(|name| !name.is_empty())
    }

    /// The script that an interpreter runs, made absolute where the working directory is known.
    ///
    /// As the command line tells it: like all of that line it is the word of
    /// whoever started the process, while the executable is the kernel's.
    pub fn script(&self) -> Option<BString> {
        let interpreter = self.executable_name()?;
        let script = script_of(interpreter, self.command_line.get(1..)?)?;
        match &self.working_directory {
            Some(directory) if !script.starts_with(b"/") => {
                let script = script.strip_prefix(b"./").unwrap_or(script);
                let directory = directory.strip_suffix(b"/").unwrap_or(directory);
                Some([directory, b"/", script].concat().into())
            }
            _ => Some(script.into()),
        }
    }

    /// The arguments in one line, a space between them.
    pub fn command_line_text(&self) -> BString {
        bstr::join(" ", &self.command_line).into()
    }
}

/// The first argument that is no option of the interpreter; none where the program is in an option.
fn script_of<'a>(interpreter: &[u8], arguments: &'a [BString]) -> Option<&'a [u8]> {
    let name = interpreter.trim_end_with(|c| c.is_ascii_digit() || c == '.' || c == '-');
    let (_, inline, with_value) = INTERPRETERS.iter().find(|(known, ..)| known.as_bytes() == name)?;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            return arguments.next().map(|script| script.as_bytes());
        }
        let Some(option) = argument.strip_prefix(b"-").filter(|option| !option.is_empty()) else {
            return (argument != "-").then_some(argument.as_bytes());
        };
        let is_word = option.starts_with(b"-");
        // Short options may stand together; what follows one with a value is the value.
        if !is_word && option.iter().any(|letter| inline.as_bytes().contains(letter)) {
            return None;
        }
        if !is_word && option.last().is_some_and(|letter| with_value.as_bytes().contains(letter)) {
            arguments.next();
        }
    }
    None
}

/// Interpreters, without the version in their names; the options that hold the
/// program or read it from elsewhere; and those that are followed by a value.
const INTERPRETERS: &[(&str, &str, &str)] = &[
    ("python", "cm", "WX"),
    ("pypy", "cm", "WX"),
    ("perl", "eE", "I"),
    ("ruby", "e", "Ir"),
    ("node", "ep", "r"),
    ("nodejs", "ep", "r"),
    ("sh", "cs", "o"),
    ("bash", "cs", "oO"),
    ("dash", "cs", "o"),
    ("ash", "cs", "o"),
    ("zsh", "cs", "o"),
    ("ksh", "cs", "o"),
    ("busybox", "c", ""),
    ("php", "rRBE", "dcz"),
    ("lua", "e", "l"),
    ("tclsh", "", ""),
    ("Rscript", "e", ""),
];

impl ExecutableKind {
    /// The word for it in rules and alerts.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Deleted => "deleted",
            Self::Memfd => "memfd",
            Self::Kernel => "kernel",
            Self::Unknown => "unknown",
        }
    }
}

impl Default for ProcessKey {
    /// No process: pid 0 is the kernel's idle task and owns no flow.
    fn default() -> Self {
        Self { pid: 0, start: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_has_a_script_unless_its_program_is_elsewhere() {
        let script = |exe: &str, line: &str| {
            let executable = Executable { path: exe.into(), ..Executable::default() };
            let process = Process {
                executable: Some(executable),
                command_line: line.split(' ').map(BString::from).collect(),
                working_directory: Some("/srv".into()),
                ..Process::default()
            };
            process.script().map(|script| script.to_string())
        };
        let is = |path: &str| Some(path.to_owned());
        assert_eq!(script("/usr/bin/python3.11", "python3 /opt/sync.py --all"), is("/opt/sync.py"));
        assert_eq!(script("/usr/bin/python3.11", "/usr/bin/python3 -u -W ignore ./sync.py"), is("/srv/sync.py"));
        assert_eq!(script("/usr/bin/python3.11", "python3 -m http.server"), None);
        assert_eq!(script("/usr/bin/bash", "bash -ec curl"), None);
        assert_eq!(script("/usr/bin/dash", "/bin/sh -e /etc/cron.daily/backup"), is("/etc/cron.daily/backup"));
        assert_eq!(script("/usr/bin/perl", "perl -w -- -odd"), is("/srv/-odd"));
        assert_eq!(script("/usr/bin/curl", "curl https://example.org"), None);
        assert_eq!(script("/usr/bin/python3", "python3 -"), None);
        assert_eq!(script("/usr/bin/python3", "python3"), None);
    }
}
