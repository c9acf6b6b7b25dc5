//! Executions and the processes they are: complete also when they are gone.
//!
//! The kernel programs report a process at its first socket, in its own
//! context, with its ancestors. What they cannot read (the arguments of an
//! ancestor that is older than Egret, a path of more than 24 names, control
//! groups of version 1) is read from `/proc` while the process still is there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bstr::{BString, ByteSlice};
use tracing::trace;

use super::proc;
use super::record::{AncestorHead, Exe, Execution, ProcessHead, text_of};
use crate::attribution::{
    Ancestor, Attribution, Cgroup, Evidence, Executable, ExecutableKind, Process, ProcessKey, UnknownReason, User,
};
use crate::time::Timestamp;

/// Everything known of executions that use the network.
pub struct Owners {
    processes: HashMap<Execution, Arc<Process>>,
    ancestors: HashMap<Execution, Arc<Known>>,
    /// Executions that ended, in order, with the time after which nothing of theirs can come.
    ended: VecDeque<(Timestamp, Execution)>,
    names: UserNames,
    boot: Timestamp,
    evicted: u64,
}

/// What is kept of an execution for its descendants.
struct Known {
    executable: Option<BString>,
    arguments: Vec<BString>,
}

impl Owners {
    /// Nobody yet. `boot` is the wall-clock time of the boot.
    pub fn new(boot: Timestamp) -> Self {
        Self {
            processes: HashMap::new(),
            ancestors: HashMap::new(),
            ended: VecDeque::new(),
            names: UserNames::default(),
            boot,
            evicted: 0,
        }
    }

    /// How many executions are known.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// The owner of what `execution` sent.
    pub fn attribution(&mut self, execution: Execution) -> Attribution {
        if execution.pid == 0 {
            return Attribution::Unknown(UnknownReason::Kernel);
        }
        Attribution::Known { process: self.process(execution), evidence: Evidence::Kernel }
    }

    /// The process of an execution. One that was never reported, because it
    /// is older than Egret or the ring was full, is read from `/proc`.
    pub fn process(&mut self, execution: Execution) -> Arc<Process> {
        if let Some(process) = self.processes.get(&execution) {
            return Arc::clone(process);
        }
        let process = Arc::new(self.look_up(execution));
        self.insert(execution, &process);
        process
    }

    /// Takes a report of the kernel programs.
    pub fn report(&mut self, head: &ProcessHead) {
        let (mut command_line, all) = head.arguments();
        if !all && let Some(longer) = proc::command_line(head.id) {
            command_line = longer;
        }
        let cgroup = match head.cgroup_path() {
            // The root group: either that, or the host uses version 1.
            root if root == "/" => proc::cgroup(head.id).or_else(|| Some(Cgroup::from_path("/"))),
            path => Some(Cgroup::from_path(&path.to_str_lossy())),
        };
        let Cgroup { path, unit, slice, container } = cgroup.unwrap_or_default();
        let process = Process {
            key: key_of(head.id),
            executable: executable_of(&head.exe, head.id),
            command_line,
            working_directory: head.working_directory(),
            user: Some(self.names.user(head.uid)),
            gid: Some(head.gid),
            group: self.names.group(head.gid),
            login_user: (head.login_uid != NO_LOGIN).then(|| self.names.user(head.login_uid)),
            ancestors: self.chain(&head.ancestors),
            cgroup: Some(path),
            unit,
            slice,
            container,
            network_namespace: Some(head.netns),
            started_at: Some(self.boot.after(Duration::from_nanos(head.id.start))),
        };
        trace!(pid = head.id.pid, comm = %text_of(&head.comm), "process reported");
        self.insert(head.id, &Arc::new(process));
    }

    /// Takes a report of an ancestor, which comes before its descendant's.
    pub fn report_ancestor(&mut self, head: &AncestorHead) {
        let executable = executable_of(&head.exe, head.id).map(|executable| executable.path);
        let arguments = match head.arguments() {
            Some((arguments, true)) => arguments,
            // Cut, or the process is older than Egret.
            Some((cut, false)) => proc::command_line(head.id).unwrap_or(cut),
            None => proc::command_line(head.id).unwrap_or_default(),
        };
        self.remember(head.id, Known { executable, arguments });
    }

    /// Takes note that an execution ended. Its last bytes may still come, so
    /// it is forgotten later.
    pub fn exited(&mut self, execution: Execution, now: Timestamp) -> ProcessKey {
        self.ended.push_back((now.after(KEEP), execution));
        key_of(execution)
    }

    /// Forgets what ended long ago.
    pub fn tick(&mut self, now: Timestamp) {
        while let Some((until, execution)) = self.ended.front().copied() {
            if until > now && self.processes.len() <= MAX_PROCESSES {
                break;
            }
            self.ended.pop_front();
            self.processes.remove(&execution);
            self.ancestors.remove(&execution);
        }
    }

    /// How many executions were forgotten for want of room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn insert(&mut self, execution: Execution, process: &Arc<Process>) {
        if self.processes.len() >= 2 * MAX_PROCESSES
            && let Some(oldest) = self.processes.keys().next().copied()
        {
            self.processes.remove(&oldest);
            self.evicted += 1;
        }
        self.processes.insert(execution, Arc::clone(process));
        let executable = process.executable.as_ref().map(|executable| executable.path.clone());
        self.remember(execution, Known { executable, arguments: process.command_line.clone() });
    }

    fn remember(&mut self, execution: Execution, known: Known) {
        if self.ancestors.len() >= 2 * MAX_PROCESSES
            && let Some(oldest) = self.ancestors.keys().next().copied()
        {
            self.ancestors.remove(&oldest);
            self.evicted += 1;
        }
        self.ancestors.insert(execution, Arc::new(known));
    }

    /// Ancestors with what is known of each.
    fn chain(&self, executions: &[Execution]) -> Vec<Ancestor> {
        let alive: Vec<&Execution> = executions.iter().take_while(|execution| execution.pid != 0).collect();
        let mut chain = Vec::with_capacity(alive.len());
        // A process that forked and did not exec runs what its parent runs, with the same arguments.
        let mut above: Option<Arc<Known>> = None;
        for execution in alive.iter().rev() {
            let known = self.ancestors.get(*execution).map(Arc::clone);
            let mut ancestor = Ancestor { pid: execution.pid, executable: None, command_line: Vec::new() };
            if let Some(known) = &known {
                ancestor.executable.clone_from(&known.executable);
                ancestor.command_line.clone_from(&known.arguments);
            }
            if let Some(above) = &above
                && ancestor.command_line.is_empty()
                && ancestor.executable.is_some()
                && ancestor.executable == above.executable
            {
                ancestor.command_line.clone_from(&above.arguments);
            }
            above = Some(Arc::new(Known {
                executable: ancestor.executable.clone(),
                arguments: ancestor.command_line.clone(),
            }));
            chain.push(ancestor);
        }
        chain.reverse();
        chain
    }

    fn look_up(&mut self, execution: Execution) -> Process {
        let key = key_of(execution);
        let Some(facts) = proc::facts(execution) else {
            return Process { key, ..Process::default() };
        };
        let Cgroup { path, unit, slice, container } = facts.cgroup.unwrap_or_default();
        Process {
            key,
            executable: facts.executable,
            command_line: facts.command_line,
            working_directory: facts.working_directory,
            user: facts.uid.map(|uid| self.names.user(uid)),
            gid: facts.gid,
            group: facts.gid.and_then(|gid| self.names.group(gid)),
            login_user: facts.login_uid.map(|uid| self.names.user(uid)),
            ancestors: facts.ancestors,
            cgroup: (!path.is_empty()).then_some(path),
            unit,
            slice,
            container,
            network_namespace: facts.network_namespace,
            started_at: Some(self.boot.after(Duration::from_nanos(execution.start))),
        }
    }
}

/// Names of users and groups, asked once each. A name service may take its time: this
/// runs on the source's own thread, where it delays a tick but loses nothing.
#[derive(Default)]
struct UserNames {
    known: HashMap<u32, Option<Arc<str>>>,
    groups: HashMap<u32, Option<Arc<str>>>,
}

impl UserNames {
    fn user(&mut self, uid: u32) -> User {
        if self.known.len() > MAX_USERS {
            self.known.clear();
        }
        let name = self
            .known
            .entry(uid)
            .or_insert_with(|| uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into()));
        User { uid: Some(uid), name: name.clone() }
    }

    fn group(&mut self, gid: u32) -> Option<Arc<str>> {
        if self.groups.len() > MAX_USERS {
            self.groups.clear();
        }
        let ask = || uzers::get_group_by_gid(gid).map(|group| group.name().to_string_lossy().into());
        self.groups.entry(gid).or_insert_with(ask).clone()
    }
}

fn key_of(execution: Execution) -> ProcessKey {
    ProcessKey { pid: execution.pid, start: execution.start }
}

fn executable_of(exe: &Exe, execution: Execution) -> Option<Executable> {
    let (path, whole) = exe.path();
    if path == "/" {
        // A kernel thread, or a process whose memory was gone already.
        return proc::executable(execution);
    }
    let kind = match exe.links {
        0 if path.starts_with(b"/memfd:") => ExecutableKind::Memfd,
        0 => ExecutableKind::Deleted,
        _ => ExecutableKind::File,
    };
    let path = if whole {
        path
    } else {
        match proc::executable(execution) {
            Some(executable) => executable.path,
            None => [b"/...", path.as_slice()].concat().into(),
        }
    };
    Some(Executable { path, kind, inode: Some(exe.inode), ..Executable::default() })
}

/// How long an execution is kept after its end: TCP may send what it left
/// behind for minutes, and names it when its socket is destroyed.
const KEEP: Duration = Duration::from_secs(300);

/// Executions held at once; beyond it those that ended go early. Twice that
/// many is the most; further ones push out others, see [`Owners::evicted`].
const MAX_PROCESSES: usize = 32_768;

/// Users whose names are held.
const MAX_USERS: usize = 65_536;

/// The audit system's word for "nobody logged in".
const NO_LOGIN: u32 = u32::MAX;
