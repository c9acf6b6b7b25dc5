//! Which processes hold a socket: from an inode to descriptors under `/proc`.
//!
//! The kernel has no table for this, so `/proc/PID/fd` is read: the newest
//! processes first, those of the socket's user before others, everything last
//! and no more often than a fixed share of the time allows. What was read once
//! is remembered, and checked with one `readlink` before it is believed again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::attribution::ProcessKey;
use crate::resolve::processes::Processes;
use crate::resolve::procfs::{Proc, Unreadable, processor_time};
use crate::time::Timestamp;

/// A process with a descriptor of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holder {
    /// Which process.
    pub key: ProcessKey,
    /// The lowest descriptor's number.
    pub descriptor: u32,
}

/// What a search for the holders of a socket came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// These hold it.
    Found(SmallVec<[Holder; 2]>),
    /// These held it and have ended.
    Remembered(SmallVec<[Holder; 2]>),
    /// Every process was read and none holds it.
    Nobody,
    /// None of those that may be read holds it.
    Hidden,
    /// Not every process could be read now; ask again.
    Later,
}

/// The remembered holders of sockets.
#[derive(Debug, Default)]
pub(super) struct Holders {
    recent: HashMap<u64, SmallVec<[Holder; 2]>>,
    older: HashMap<u64, SmallVec<[Holder; 2]>>,
    nobody: HashMap<u64, (Instant, Search)>,
    full_scan_after: Option<Instant>,
    /// Sockets that were forgotten for want of room.
    pub evicted: u64,
    /// How often every process was read.
    pub full_scans: u64,
}

impl Holders {
    /// Reads one process's descriptors. Returns the sockets that were not known to be its own.
    pub(super) fn scan(
        &mut self,
        proc: &mut Proc,
        processes: &mut Processes,
        pid: u32,
    ) -> Result<Vec<u64>, Unreadable> {
        let directory = proc.process(pid)?;
        let mut sockets: SmallVec<[(u64, u32); 16]> = SmallVec::new();
        proc.sockets(&directory, |descriptor, inode| sockets.push((inode, descriptor)))?;
        if sockets.is_empty() {
            return Ok(Vec::new());
        }
        let key = processes.current(proc, pid)?.key;
        sockets.sort_unstable();
        sockets.dedup_by_key(|(inode, _)| *inode);
        let mut new = Vec::new();
        for (inode, descriptor) in sockets {
            if self.remember(inode, Holder { key, descriptor }) {
                new.push(inode);
            }
        }
        if !new.is_empty() {
            // It holds them as the program that it is now.
            processes.confirm(proc, pid);
        }
        Ok(new)
    }

    /// Who holds, or has held since then, a socket that user `uid` opened.
    pub(super) fn find(
        &mut self,
        proc: &mut Proc,
        processes: &mut Processes,
        inode: u64,
        uid: u32,
        since: Timestamp,
    ) -> Search {
        if let Some(known) = self.known(inode) {
            let (mut live, mut dead): (SmallVec<[_; 2]>, SmallVec<[_; 2]>) =
                known.into_iter().partition(|holder| holds(proc, *holder, inode));
            if !live.is_empty() {
                // A child that has ended may be the one that sent.
                dead.retain(|holder| processes.ended_at(holder.key).is_some_and(|at| at >= since));
                live.extend(dead);
                return Search::Found(live);
            }
            // Who ended before the first packet has not sent it.
            dead.retain(|holder| processes.ended_at(holder.key).is_none_or(|at| at >= since));
            // It was passed on, or its holders ended a moment ago.
            return match self.search(proc, processes, inode, uid) {
                Search::Found(holders) => {
                    let live: SmallVec<[_; 2]> =
                        holders.iter().copied().filter(|holder| holds(proc, *holder, inode)).collect();
                    if live.is_empty() { Search::Remembered(holders) } else { Search::Found(live) }
                }
                Search::Nobody | Search::Hidden | Search::Later if dead.is_empty() => Search::Nobody,
                _ => Search::Remembered(dead),
            };
        }
        if let Some((at, search)) = self.nobody.get(&inode)
            && at.elapsed() < NEGATIVE_TTL
        {
            return search.clone();
        }
        let search = self.search(proc, processes, inode, uid);
        if matches!(search, Search::Nobody | Search::Hidden) {
            if self.nobody.len() >= MAX_NEGATIVE {
                self.nobody.clear();
            }
            self.nobody.insert(inode, (Instant::now(), search.clone()));
        }
        search
    }

    /// Holders as they were last seen, without a look at `/proc`.
    pub(super) fn known(&self, inode: u64) -> Option<SmallVec<[Holder; 2]>> {
        self.recent.get(&inode).or_else(|| self.older.get(&inode)).cloned()
    }

    /// Notes who holds a socket, if it is one of the newest processes: those may be gone when it matters.
    pub(super) fn meet(&mut self, proc: &mut Proc, processes: &mut Processes, inode: u64, uid: u32) {
        if self.known(inode).is_none() {
            self.search_newest(proc, processes, inode, uid);
        }
    }

    fn search_newest(&mut self, proc: &mut Proc, processes: &mut Processes, inode: u64, uid: u32) -> Option<Search> {
        let newest: Vec<u32> =
            processes.newest().filter(|pid| processes.may_be_user(*pid, uid)).take(TARGETED).collect();
        let holder = newest.into_iter().find(|pid| self.scan_finds(proc, processes, *pid, inode) == Ok(true))?;
        Some(self.with_relatives(proc, processes, holder, inode))
    }

    fn search(&mut self, proc: &mut Proc, processes: &mut Processes, inode: u64, uid: u32) -> Search {
        if let Some(found) = self.search_newest(proc, processes, inode, uid) {
            return found;
        }
        if self.full_scan_after.is_some_and(|after| Instant::now() < after) {
            return Search::Later;
        }
        self.scan_all(proc, processes, inode, uid)
    }

    fn scan_all(&mut self, proc: &mut Proc, processes: &mut Processes, inode: u64, uid: u32) -> Search {
        let busy = processor_time();
        let Ok(mut pids) = proc.pids() else { return Search::Hidden };
        pids.sort_by_key(|pid| !processes.may_be_user(*pid, uid));
        self.full_scans += 1;
        let (mut found, mut hidden) = (None, false);
        for pid in pids {
            match self.scan_finds(proc, processes, pid, inode) {
                Ok(true) => {
                    found = Some(pid);
                    break;
                }
                Ok(false) | Err(Unreadable::Gone) => {}
                Err(Unreadable::Permission) => hidden = true,
            }
        }
        let took = processor_time().saturating_sub(busy);
        self.full_scan_after = Some(Instant::now() + took.saturating_mul(FULL_SCAN_REST));
        match found {
            Some(pid) => self.with_relatives(proc, processes, pid, inode),
            None if hidden => Search::Hidden,
            None => Search::Nobody,
        }
    }

    /// A socket is shared in the family: over fork, and by a server with its workers.
    fn with_relatives(&mut self, proc: &mut Proc, processes: &mut Processes, pid: u32, inode: u64) -> Search {
        for relative in processes.relatives(pid).into_iter().take(MAX_RELATIVES) {
            // A relative that ended or may not be read adds nothing.
            let _ = self.scan(proc, processes, relative);
        }
        self.known(inode).map_or(Search::Later, Search::Found)
    }

    fn scan_finds(
        &mut self,
        proc: &mut Proc,
        processes: &mut Processes,
        pid: u32,
        inode: u64,
    ) -> Result<bool, Unreadable> {
        self.scan(proc, processes, pid)?;
        Ok(self.known(inode).is_some_and(|holders| holders.iter().any(|holder| holder.key.pid == pid)))
    }

    /// Whether this is new.
    fn remember(&mut self, inode: u64, holder: Holder) -> bool {
        if let Some(older) = self.older.remove(&inode) {
            self.recent.insert(inode, older);
        } else if self.recent.len() >= MAX_SOCKETS {
            self.evicted += self.older.len() as u64;
            self.older = std::mem::take(&mut self.recent);
        }
        let holders = self.recent.entry(inode).or_default();
        match holders.iter_mut().find(|known| known.key == holder.key) {
            Some(known) => {
                known.descriptor = holder.descriptor;
                false
            }
            None => {
                if holders.len() < MAX_HOLDERS {
                    holders.push(holder);
                }
                true
            }
        }
    }
}

/// Whether the process still has the socket under that descriptor.
fn holds(proc: &Proc, holder: Holder, inode: u64) -> bool {
    proc.process(holder.key.pid).is_ok_and(|directory| directory.socket(holder.descriptor) == Some(inode))
}

/// The newest processes of the socket's user that are read for one question.
const TARGETED: usize = 48;

/// A full scan is followed by this many times its own duration without one.
const FULL_SCAN_REST: u32 = 20;

/// Relatives that are asked whether they share a socket.
const MAX_RELATIVES: usize = 64;

/// Holders told of one socket.
const MAX_HOLDERS: usize = 64;

/// Sockets remembered in each of two generations.
const MAX_SOCKETS: usize = 65_536;

/// Sockets remembered to be nobody's.
const MAX_NEGATIVE: usize = 4_096;

/// For how long.
const NEGATIVE_TTL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::resolve::procfs::Fixture;

    fn pids(search: Search) -> Vec<u32> {
        let (Search::Found(holders) | Search::Remembered(holders)) = search else { panic!("{search:?}") };
        let mut pids: Vec<u32> = holders.iter().map(|holder| holder.key.pid).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn a_socket_leads_to_every_holder_in_the_family() {
        let fixture = Fixture::new();
        for pid in [7, 20, 21, 30] {
            let path = fixture.process(pid, "/bin/x", b"x\0");
            if pid == 20 || pid == 21 {
                symlink("socket:[500]", path.join("fd/3")).unwrap();
            }
        }
        let mut proc = fixture.proc();
        let (mut processes, mut holders) = (Processes::default(), Holders::default());
        for pid in [7, 20, 21, 30] {
            processes.read(&mut proc, pid).unwrap();
        }
        assert_eq!(pids(holders.find(&mut proc, &mut processes, 500, 33, Timestamp::EPOCH)), [20, 21]);
        assert_eq!(holders.full_scans, 0);
        // Nobody holds this one, and the question is not asked again at once.
        assert_eq!(holders.find(&mut proc, &mut processes, 501, 33, Timestamp::EPOCH), Search::Nobody);
        assert_eq!(holders.find(&mut proc, &mut processes, 501, 33, Timestamp::EPOCH), Search::Nobody);
        assert_eq!(holders.full_scans, 1);
    }

    #[test]
    fn a_holder_that_ended_is_remembered() {
        let fixture = Fixture::new();
        symlink("socket:[500]", fixture.process(20, "/bin/x", b"x\0").join("fd/3")).unwrap();
        let mut proc = fixture.proc();
        let (mut processes, mut holders) = (Processes::default(), Holders::default());
        assert_eq!(holders.scan(&mut proc, &mut processes, 20), Ok(vec![500]));
        assert_eq!(holders.scan(&mut proc, &mut processes, 20), Ok(vec![]));
        fixture.remove(20);
        processes.exited(20);
        let search = holders.find(&mut proc, &mut processes, 500, 33, Timestamp::EPOCH);
        assert!(matches!(search, Search::Remembered(_)), "{search:?}");
        assert_eq!(pids(search), [20]);
    }

    #[test]
    fn a_child_that_sent_and_ended_is_named_beside_its_parent() {
        let fixture = Fixture::new();
        for pid in [20, 21] {
            symlink("socket:[500]", fixture.process(pid, "/bin/x", b"x\0").join("fd/3")).unwrap();
        }
        let mut proc = fixture.proc();
        let (mut processes, mut holders) = (Processes::default(), Holders::default());
        for pid in [20, 21] {
            processes.read(&mut proc, pid).unwrap();
            holders.scan(&mut proc, &mut processes, pid).unwrap();
        }
        let before = crate::resolve::procfs::now();
        fixture.remove(21);
        processes.exited(21);
        let after = crate::resolve::procfs::now().after(Duration::from_secs(1));
        let mut find = |since| pids(holders.find(&mut proc, &mut processes, 500, 33, since));
        assert_eq!(find(before), [20, 21]);
        assert_eq!(find(after), [20], "it ended before the first packet");
    }

    #[test]
    fn memory_is_bounded() {
        let mut holders = Holders::default();
        let holder = Holder { key: ProcessKey { pid: 1, start: 1 }, descriptor: 3 };
        for inode in 0..3 * MAX_SOCKETS as u64 {
            holders.remember(inode, holder);
        }
        assert!(holders.recent.len() + holders.older.len() <= 2 * MAX_SOCKETS);
        assert_eq!(holders.evicted, MAX_SOCKETS as u64);
    }
}
