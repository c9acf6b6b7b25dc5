//! The table of processes: what runs, and for a while what has run.
//!
//! Facts are read when a program starts and kept after it ends, so that the
//! owner of a flow has a name even if it is gone when the flow is looked up.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attribution::{Ancestor, Process, ProcessKey};
use crate::resolve::procfs::{Facts, Proc, Unreadable, now};
use crate::resolve::users::Users;
use crate::time::Timestamp;

/// Processes by pid, and those that ended by their key.
#[derive(Debug, Default)]
pub(super) struct Processes {
    live: HashMap<u32, Entry>,
    by_age: BTreeMap<u64, u32>,
    born: u64,
    ended: HashMap<ProcessKey, (Timestamp, Arc<Process>)>,
    ended_order: VecDeque<(Instant, ProcessKey)>,
    users: Users,
    /// Processes that were forgotten for want of room.
    pub evicted: u64,
    /// When facts expire, where no news of changes comes.
    pub refresh: Option<Duration>,
}

#[derive(Debug)]
struct Entry {
    born: u64,
    process: Arc<Process>,
    parent: u32,
    read: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Facts were read since the last change.
    Fresh,
    /// It forked and runs its parent's program; its own start time is not read yet.
    Forked,
    /// It changed its user.
    Stale,
    /// News were lost, and it may run another program.
    Doubtful,
}

impl Processes {
    /// A process was made: until it starts a program, it runs its parent's.
    pub(super) fn forked(&mut self, parent: u32, child: u32) {
        if self.live.contains_key(&child) {
            // It was met before this news was read, and has not ended since; or the news of another's end was lost.
            self.changed(child);
            return;
        }
        let Some(of) = self.live.get(&parent).filter(|of| of.state != State::Doubtful) else { return };
        let mut process = (*of.process).clone();
        process.ancestors.insert(0, ancestor(&process));
        process.ancestors.truncate(MAX_ANCESTORS);
        process.key = ProcessKey { pid: child, start: 0 };
        self.insert(child, parent, process, State::Forked);
    }

    /// Reads all facts of a process anew.
    pub(super) fn read(&mut self, proc: &mut Proc, pid: u32) -> Result<Arc<Process>, Unreadable> {
        let directory = proc.process(pid)?;
        let Facts { mut process, parent } = proc.facts(&directory, &mut self.users)?;
        // The parent at the fork outlives, as knowledge, the parent that died.
        let known =
            self.live.get(&pid).filter(|entry| entry.state == State::Forked || entry.process.key == process.key);
        let parent = known.map_or(parent, |entry| entry.parent);
        process.ancestors = match known {
            Some(entry) => entry.process.ancestors.clone(),
            None => self.ancestors(proc, parent),
        };
        self.insert(pid, parent, process, State::Fresh);
        self.live.get(&pid).map(|entry| Arc::clone(&entry.process)).ok_or(Unreadable::Gone)
    }

    /// A process changed its user or group.
    pub(super) fn changed(&mut self, pid: u32) {
        if let Some(entry) = self.live.get_mut(&pid)
            && entry.state == State::Fresh
        {
            entry.state = State::Stale;
        }
    }

    /// A process ended.
    pub(super) fn exited(&mut self, pid: u32) {
        let Some(entry) = self.live.remove(&pid) else { return };
        self.by_age.remove(&entry.born);
        if entry.state == State::Doubtful {
            return;
        }
        let key = entry.process.key;
        if self.ended.insert(key, (now(), entry.process)).is_none() {
            self.ended_order.push_back((Instant::now(), key));
        }
    }

    /// A process ended that is not known well enough to be remembered.
    pub(super) fn forget(&mut self, pid: u32) {
        if let Some(entry) = self.live.remove(&pid) {
            self.by_age.remove(&entry.born);
        }
    }

    /// News were lost: no fact is believed before it is read again.
    pub(super) fn all_changed(&mut self) {
        for entry in self.live.values_mut() {
            entry.state = State::Doubtful;
        }
    }

    /// Reads the facts anew where the process runs another program than they say: the news of that is still to
    /// come, or was lost.
    pub(super) fn confirm(&mut self, proc: &mut Proc, pid: u32) {
        let known = self.live.get(&pid).map(|entry| Arc::clone(&entry.process));
        if known.is_some_and(|process| !runs_the_same(proc, &process)) {
            // Where it has just ended, what it ran is not known.
            if self.read(proc, pid).is_err() {
                self.forget(pid);
            }
        }
    }

    /// The process of this pid as it is at this moment.
    pub(super) fn current(&mut self, proc: &mut Proc, pid: u32) -> Result<Arc<Process>, Unreadable> {
        if let Some(entry) = self.live.get(&pid) {
            let believed = match self.refresh {
                None => true,
                Some(after) => entry.read.elapsed() < after && runs_the_same(proc, &entry.process),
            };
            match entry.state {
                State::Fresh if believed => return Ok(Arc::clone(&entry.process)),
                State::Forked => return self.complete_fork(proc, pid),
                State::Fresh | State::Stale | State::Doubtful => {}
            }
        }
        self.read(proc, pid)
    }

    /// The process of this key, running or ended.
    pub(super) fn by_key(&mut self, proc: &mut Proc, key: ProcessKey) -> Option<Arc<Process>> {
        if let Some((_, process)) = self.ended.get(&key) {
            return Some(Arc::clone(process));
        }
        match self.current(proc, key.pid) {
            Ok(process) if process.key == key => Some(process),
            Ok(_) => self.ended.get(&key).map(|(_, process)| Arc::clone(process)),
            // It ended, and the news has not come yet.
            Err(_) => {
                let entry = self.live.get(&key.pid).filter(|entry| entry.state != State::Doubtful)?;
                (entry.process.key == key).then(|| Arc::clone(&entry.process))
            }
        }
    }

    /// When a process ended, as far as it is remembered.
    pub(super) fn ended_at(&self, key: ProcessKey) -> Option<Timestamp> {
        self.ended.get(&key).map(|(at, _)| *at)
    }

    /// The pids, the newest process first.
    pub(super) fn newest(&self) -> impl Iterator<Item = u32> {
        self.by_age.values().rev().copied()
    }

    /// Parent, children and siblings: those with whom sockets are shared.
    pub(super) fn relatives(&self, pid: u32) -> Vec<u32> {
        let parent = self.live.get(&pid).map(|entry| entry.parent);
        let is_relative = |other: u32, entry: &Entry| {
            other != pid
                && (Some(other) == parent || entry.parent == pid || (parent > Some(1) && Some(entry.parent) == parent))
        };
        self.live.iter().filter(|(other, entry)| is_relative(**other, entry)).map(|(other, _)| *other).collect()
    }

    /// Whether the process's effective user is this one, as far as is known.
    pub(super) fn may_be_user(&self, pid: u32, uid: u32) -> bool {
        let user = self.live.get(&pid).and_then(|entry| entry.process.user.as_ref()).and_then(|user| user.uid);
        user.is_none_or(|user| user == uid)
    }

    /// Whether the table has it.
    pub(super) fn knows(&self, pid: u32) -> bool {
        self.live.contains_key(&pid)
    }

    /// The network namespaces that processes are in.
    pub(super) fn namespaces(&self) -> HashSet<u32> {
        self.live.values().filter_map(|entry| entry.process.network_namespace).collect()
    }

    /// How many run.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Forgets what ended long ago.
    pub(super) fn sweep(&mut self) {
        while let Some((at, key)) = self.ended_order.front().copied() {
            let too_many = self.ended_order.len() > MAX_ENDED;
            if at.elapsed() < KEEP_ENDED && !too_many {
                break;
            }
            self.evicted += u64::from(at.elapsed() < KEEP_ENDED);
            self.ended_order.pop_front();
            self.ended.remove(&key);
        }
    }

    /// Drops those that are not among the pids that exist.
    pub(super) fn retain(&mut self, exists: impl Fn(u32) -> bool) {
        let gone: Vec<u32> = self.live.keys().copied().filter(|pid| !exists(*pid)).collect();
        for pid in gone {
            self.exited(pid);
        }
    }

    fn complete_fork(&mut self, proc: &mut Proc, pid: u32) -> Result<Arc<Process>, Unreadable> {
        let stat = proc.process(pid).and_then(|directory| proc.stat(&directory))?;
        let entry = self.live.get_mut(&pid).ok_or(Unreadable::Gone)?;
        let started_at = entry.process.started_at;
        let process = Arc::make_mut(&mut entry.process);
        process.key.start = stat.start;
        process.started_at = started_at.map(|_| super::procfs::boot_time().after(Duration::from_nanos(stat.start)));
        entry.state = State::Fresh;
        entry.read = Instant::now();
        Ok(Arc::clone(&entry.process))
    }

    fn insert(&mut self, pid: u32, parent: u32, process: Process, state: State) {
        let same = self.live.get(&pid).filter(|entry| entry.state == State::Forked || entry.process.key == process.key);
        let born = match same {
            Some(entry) => entry.born,
            None => {
                // The pid was used before and the news of that end was lost.
                self.exited(pid);
                self.born += 1;
                self.by_age.insert(self.born, pid);
                self.born
            }
        };
        // Whoever runs has not ended.
        self.ended.remove(&process.key);
        self.live.insert(pid, Entry { born, process: Arc::new(process), parent, read: Instant::now(), state });
        if self.live.len() > MAX_PROCESSES
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.live.remove(&oldest);
            self.evicted += 1;
        }
    }

    fn ancestors(&mut self, proc: &mut Proc, parent: u32) -> Vec<Ancestor> {
        let mut ancestors = Vec::new();
        let mut next = parent;
        while ancestors.len() < MAX_ANCESTORS && next != 0 {
            if let Some(entry) = self.live.get(&next) {
                ancestors.push(ancestor(&entry.process));
                ancestors.extend(entry.process.ancestors.iter().cloned());
                break;
            }
            let facts = proc.process(next).and_then(|directory| proc.facts(&directory, &mut self.users));
            let Ok(facts) = facts else { break };
            ancestors.push(ancestor(&facts.process));
            next = facts.parent;
        }
        ancestors.truncate(MAX_ANCESTORS);
        ancestors
    }
}

/// Whether the process still is the one whose facts these are, and runs the same program.
fn runs_the_same(proc: &mut Proc, process: &Process) -> bool {
    let Ok(directory) = proc.process(process.key.pid) else { return true };
    let Ok(stat) = proc.stat(&directory) else { return true };
    stat.start == process.key.start && proc.executable(&directory, stat.kernel) == process.executable
}

fn ancestor(process: &Process) -> Ancestor {
    Ancestor {
        pid: process.key.pid,
        executable: process.executable.as_ref().map(|executable| executable.path.clone()),
        command_line: process.command_line.clone(),
    }
}

/// Running processes held at once; the oldest is forgotten and read again when it is needed.
const MAX_PROCESSES: usize = 131_072;

/// Processes held after their end.
const MAX_ENDED: usize = 16_384;

/// For how long: a flow is looked up within seconds.
const KEEP_ENDED: Duration = Duration::from_secs(60);

/// Parents that are told.
const MAX_ANCESTORS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::procfs::Fixture;

    fn name(process: &Process) -> String {
        process.executable.as_ref().map(|executable| executable.path.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_child_runs_its_parents_program_until_it_starts_its_own() {
        let fixture = Fixture::new();
        fixture.process(7, "/bin/sh", b"sh\0");
        let mut proc = fixture.proc();
        let mut processes = Processes::default();
        processes.read(&mut proc, 7).unwrap();

        processes.forked(7, 42);
        fixture.process(42, "/bin/sh", b"sh\0");
        let forked = processes.current(&mut proc, 42).unwrap();
        assert_eq!((name(&forked).as_str(), forked.key.pid, forked.key.start), ("/bin/sh", 42, 47_110_000_000));
        assert_eq!(forked.ancestors[0].pid, 7);

        fixture.process(42, "/usr/bin/curl", b"curl\0http://x\0");
        let running = processes.read(&mut proc, 42).unwrap();
        assert_eq!((name(&running).as_str(), running.key), ("/usr/bin/curl", forked.key));
        assert_eq!(running.ancestors, forked.ancestors);

        processes.exited(42);
        fixture.remove(42);
        assert_eq!(name(&processes.by_key(&mut proc, forked.key).unwrap()), "/usr/bin/curl");
        assert_eq!(processes.current(&mut proc, 42), Err(Unreadable::Gone));
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let fixture = Fixture::new();
        fixture.process(42, "/bin/one", b"one\0");
        let mut proc = fixture.proc();
        let mut processes = Processes::default();
        let one = processes.read(&mut proc, 42).unwrap();
        fixture.process_started(42, "/bin/two", b"two\0", 9_000);
        let two = processes.read(&mut proc, 42).unwrap();
        assert_ne!(one.key, two.key);
        assert_eq!(name(&processes.by_key(&mut proc, one.key).unwrap()), "/bin/one");
        assert_eq!(name(&processes.by_key(&mut proc, two.key).unwrap()), "/bin/two");
        assert_eq!(processes.newest().collect::<Vec<_>>(), [42]);
    }

    #[test]
    fn a_program_that_changed_without_news_is_noticed_or_unknown_but_never_the_old_one() {
        let fixture = Fixture::new();
        fixture.process(42, "/usr/bin/nsenter", b"nsenter\0perl\0");
        let mut proc = fixture.proc();
        let mut processes = Processes::default();
        let key = processes.read(&mut proc, 42).unwrap().key;
        fixture.process(42, "/usr/bin/perl", b"perl\0");
        processes.confirm(&mut proc, 42);
        assert_eq!(name(&processes.by_key(&mut proc, key).unwrap()), "/usr/bin/perl");

        processes.all_changed();
        fixture.remove(42);
        processes.forked(42, 43);
        assert!(!processes.knows(43), "whose program it runs is not known");
        assert_eq!(processes.by_key(&mut proc, key), None);
        processes.exited(42);
        assert_eq!(processes.by_key(&mut proc, key), None);
    }

    #[test]
    fn news_of_a_fork_that_come_late_end_nobody() {
        let fixture = Fixture::new();
        fixture.process(7, "/bin/sh", b"sh\0");
        fixture.process(42, "/usr/bin/nsenter", b"nsenter\0perl\0");
        let mut proc = fixture.proc();
        let mut processes = Processes::default();
        processes.read(&mut proc, 7).unwrap();
        let key = processes.read(&mut proc, 42).unwrap().key;
        processes.forked(7, 42);
        assert_eq!(processes.ended_at(key), None);
        fixture.process(42, "/usr/bin/perl", b"perl\0");
        processes.read(&mut proc, 42).unwrap();
        assert_eq!(name(&processes.by_key(&mut proc, key).unwrap()), "/usr/bin/perl");
        fixture.remove(42);
        processes.exited(42);
        assert_eq!(name(&processes.by_key(&mut proc, key).unwrap()), "/usr/bin/perl");
    }
}
