//! Who holds packet sockets: the programs that can send past every other socket.
//!
//! A thread looks once a second; the processes are read only when the sockets
//! have changed. A holder is remembered for a while after it is gone, since
//! what it sent is looked at later.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{debug, warn};

use crate::attribution::{Process, ProcessKey};
use crate::resolve::proc_net;
use crate::resolve::procfs::Proc;
use crate::resolve::users::Users;

/// The holders of packet sockets in this network namespace, Egret aside.
#[derive(Debug)]
pub struct PacketSockets {
    holders: Arc<ArcSwap<Vec<Arc<Process>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PacketSockets {
    /// Looks for the first time, and starts the thread.
    ///
    /// # Errors
    /// Where there is no `/proc`, or the system gives no thread.
    pub fn start() -> io::Result<Self> {
        let mut search = Search::open()?;
        let holders = Arc::new(ArcSwap::from_pointee(search.look(Instant::now())));
        let stop = Arc::new(AtomicBool::new(false));
        let (published, stopped) = (Arc::clone(&holders), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("egret-suspects".into()).spawn(move || {
            loop {
                // Whoever stops it wakes it; waking for nothing costs one look.
                std::thread::park_timeout(INTERVAL);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                published.store(Arc::new(search.look(Instant::now())));
            }
        })?;
        Ok(Self { holders, stop, thread: Some(thread) })
    }

    /// Who holds one, or did a moment ago.
    pub fn holders(&self) -> Arc<Vec<Arc<Process>>> {
        self.holders.load_full()
    }
}

impl Drop for PacketSockets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        if thread.join().is_err() {
            warn!("the thread that looks for packet sockets panicked");
        }
    }
}

struct Search {
    proc: Proc,
    users: Users,
    inodes: BTreeSet<u64>,
    held: BTreeMap<ProcessKey, (Arc<Process>, Instant)>,
}

impl Search {
    fn open() -> io::Result<Self> {
        let proc = Proc::open(Path::new("/proc"))?;
        Ok(Self { proc, users: Users::default(), inodes: BTreeSet::new(), held: BTreeMap::new() })
    }

    fn look(&mut self, now: Instant) -> Vec<Arc<Process>> {
        let table = std::fs::read("/proc/self/net/packet").unwrap_or_default(); // A kernel without packet sockets.
        let inodes: BTreeSet<u64> = proc_net::parse_packet(&table).map(|socket| socket.inode).collect();
        if inodes != self.inodes {
            // What is held by none but Egret stays a difference to nothing.
            self.read_processes(&inodes, now);
            self.inodes = inodes;
        } else if !self.inodes.is_empty() {
            let last = self.held.values().map(|(_, at)| *at).max();
            for (_, at) in self.held.values_mut().filter(|(_, at)| Some(*at) == last) {
                *at = now;
            }
        }
        self.held.retain(|_, (_, at)| now.saturating_duration_since(*at) < REMEMBER);
        self.held.values().map(|(process, _)| Arc::clone(process)).collect()
    }

    fn read_processes(&mut self, inodes: &BTreeSet<u64>, now: Instant) {
        let own = std::process::id();
        for pid in self.proc.pids().unwrap_or_default() {
            // A process may go at any moment, and one that may not be looked at is no suspect.
            let Ok(directory) = self.proc.process(pid) else { continue };
            let mut holds = false;
            let read = self.proc.sockets(&directory, |_, inode| holds |= inodes.contains(&inode));
            if read.is_err() || !holds || pid == own {
                continue;
            }
            match self.proc.facts(&directory, &mut self.users) {
                Ok(facts) => {
                    self.held.insert(facts.process.key, (Arc::new(facts.process), now));
                }
                Err(error) => debug!(pid, ?error, "the holder of a packet socket is gone"),
            }
        }
    }
}

/// How often the sockets are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// For how long a holder that is gone is remembered.
const REMEMBER: Duration = Duration::from_secs(15);
