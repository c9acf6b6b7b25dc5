//! The resolver: from a flow to the process that owns it, by the socket tables.
//!
//! Nothing is guessed. A socket that several unrelated processes could have
//! sent from gives [`UnknownReason::Ambiguous`], one whose holder is gone
//! [`UnknownReason::Gone`]; a conclusion is marked as one by its [`Evidence`].

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::fs::{Mode, OFlags};
use smallvec::SmallVec;
use tracing::{debug, info};

use crate::attribution::{Attribution, Evidence, Lookup, Process, ProcessKey, UnknownReason};
use crate::flow::{Direction, FlowKey};
use crate::packet::{Endpoint, Protocol};
use crate::resolve::ProcessResolver;
use crate::resolve::departures::{Departure, Departures};
use crate::resolve::holders::{Holder, Holders, Search};
use crate::resolve::memory::Memory;
use crate::resolve::namespace::Namespaces;
use crate::resolve::proc_connector::{ProcConnector, ProcessEvent};
use crate::resolve::proc_net::{self, PacketSocket};
use crate::resolve::processes::Processes;
use crate::resolve::procfs::{Proc, ProcDir, network_namespace, now, processor_time};
use crate::resolve::sock_diag::{self, States};
use crate::resolve::socket::Socket;
use crate::time::Timestamp;

/// Answers from `/proc` and the kernel's socket tables.
#[derive(Debug)]
pub struct Resolver {
    settings: ResolverSettings,
    proc: Proc,
    processes: Processes,
    namespaces: Namespaces,
    holders: Holders,
    memory: Memory,
    young: BinaryHeap<Reverse<(Instant, u32, u64)>>,
    growing: HashMap<u32, Young>,
    connector: Option<ProcConnector>,
    events: Vec<ProcessEvent>,
    departures: Departures,
    /// Readable when there is news of processes or connections.
    bell: Option<OwnedFd>,
    generation: u64,
    unplaced: HashMap<u64, Unplaced>,
    swept: Instant,
    rescan_after: Instant,
    last_exit: Option<Timestamp>,
    budget: Budget,
    statistics: ResolverStatistics,
}

/// How the resolver works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResolverSettings {
    /// What becomes of flows whose addresses this host translates.
    pub translated: Translated,
}

/// Whose a translated flow is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Translated {
    /// Nobody's: the container's own link is captured as well, and there it is counted.
    #[default]
    Leave,
    /// The container's, for a capture on the outer interface alone.
    Join,
}

/// Why the resolver cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no `/proc`.
    #[error("cannot open /proc, from which processes are known")]
    Proc(#[source] std::io::Error),
    /// The operating system gave no thread.
    #[error("cannot start the resolver's threads")]
    Thread(#[source] std::io::Error),
}

/// What the resolver did and what it had to leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ResolverStatistics {
    /// Questions asked.
    pub lookups: u64,
    /// Questions whose answer was an owner.
    pub owned: u64,
    /// Processes that run.
    pub processes: u64,
    /// Network namespaces whose sockets are known.
    pub namespaces: u64,
    /// How often every process's descriptors were read.
    pub full_scans: u64,
    /// How often a whole socket table was listed.
    pub lists: u64,
    /// Looks at young processes that were left out to stay within the share of time.
    pub looks_skipped: u64,
    /// Times the kernel lost news of processes.
    pub news_lost: u64,
    /// Processes and sockets that were forgotten for want of room.
    pub evicted: u64,
}

/// A process whose sockets are looked at often, because it may end soon.
#[derive(Debug, Clone, Copy)]
struct Young {
    generation: u64,
    step: usize,
}

/// A socket of a young process that no table had yet.
#[derive(Debug, Clone, Copy)]
struct Unplaced {
    namespace: u32,
    attempts: u8,
}

/// What a look-up came to before its age is considered.
enum Outcome {
    Owner(Arc<Process>, Evidence),
    /// May change within moments.
    NotYet(UnknownReason),
    Final(UnknownReason),
}

impl Resolver {
    /// Opens what is needed and reads the processes that run.
    pub fn open(settings: ResolverSettings) -> Result<Self, ResolveError> {
        // Listening starts before the first reading, so that no process falls between the two.
        let connector = ProcConnector::open()
            .inspect_err(|error| {
                info!(%error, "the kernel does not tell of processes (CAP_NET_ADMIN is missing, or this is a container): owners of short-lived processes may stay unknown");
            })
            .ok();
        let proc = Proc::open(Path::new("/proc")).map_err(|error| ResolveError::Proc(error.into()))?;
        let namespaces = Namespaces::new(&proc);
        let now = Instant::now();
        let mut resolver = Self {
            settings,
            proc,
            processes: Processes::default(),
            namespaces,
            holders: Holders::default(),
            memory: Memory::default(),
            young: BinaryHeap::new(),
            growing: HashMap::new(),
            connector,
            events: Vec::new(),
            departures: Departures::default(),
            bell: None,
            generation: 0,
            unplaced: HashMap::new(),
            swept: now,
            rescan_after: now,
            last_exit: None,
            budget: Budget::new(now),
            statistics: ResolverStatistics::default(),
        };
        resolver.bell = resolver.hang_bell();
        resolver.departures.listen(resolver.namespaces.own(), None);
        resolver.processes.refresh = resolver.connector.is_none().then_some(FACTS_TTL);
        resolver.rescan();
        for number in resolver.namespaces.numbers() {
            resolver.list_sockets(number);
        }
        Ok(resolver)
    }

    /// What it did so far.
    pub fn statistics(&self) -> ResolverStatistics {
        ResolverStatistics {
            processes: self.processes.len() as u64,
            namespaces: self.namespaces.len() as u64,
            full_scans: self.holders.full_scans,
            evicted: self.processes.evicted + self.holders.evicted + self.memory.evicted,
            ..self.statistics
        }
    }

    /// What becomes readable when there is news of processes or connections.
    pub(super) fn news(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(AsFd::as_fd)
    }

    /// One descriptor to wait on for all that can bring news.
    fn hang_bell(&self) -> Option<OwnedFd> {
        let bell = epoll::create(epoll::CreateFlags::CLOEXEC).ok()?;
        if let Some(connector) = &self.connector {
            epoll::add(&bell, connector, epoll::EventData::new_u64(0), epoll::EventFlags::IN).ok()?;
        }
        Some(bell)
    }

    /// Takes the news of processes that have come.
    ///
    /// It is taken before every answer: the kernel tells of an `exec` before
    /// the program opens a socket, so a program is never mistaken for the one
    /// that ran in its process before.
    pub(super) fn hear_of_processes(&mut self) {
        let Some(connector) = &mut self.connector else { return };
        let mut events = std::mem::take(&mut self.events);
        if let Err(error) = connector.drain(&mut events) {
            info!(%error, "the kernel no longer tells of processes");
            // It leaves the bell as it is closed.
            self.connector = None;
            self.processes.refresh = Some(FACTS_TTL);
        }
        self.handle_events(&events);
        events.clear();
        self.events = events;
    }

    fn handle_events(&mut self, events: &[ProcessEvent]) {
        for event in events {
            match *event {
                ProcessEvent::Fork { parent, child } => {
                    self.processes.forked(parent, child);
                    self.watch(child);
                }
                ProcessEvent::Exec { pid } => {
                    // Gone before its facts were read: what it ran is not known, so it owns nothing.
                    match self.processes.read(&mut self.proc, pid) {
                        Ok(process) => {
                            self.visit(&process);
                            self.watch(pid);
                        }
                        Err(_) => self.processes.forget(pid),
                    }
                }
                ProcessEvent::Identity { pid } => self.processes.changed(pid),
                ProcessEvent::Exit { pid } => {
                    self.processes.exited(pid);
                    self.growing.remove(&pid);
                    self.last_exit = Some(now());
                }
                ProcessEvent::Lost => {
                    self.statistics.news_lost += 1;
                    self.processes.all_changed();
                    self.rescan();
                }
            }
        }
    }

    /// When [`poll`](Self::poll) is due.
    pub(super) fn next_poll(&self) -> Instant {
        let sweep = self.swept + SWEEP_INTERVAL;
        self.young.peek().map_or(sweep, |Reverse((due, ..))| sweep.min(*due))
    }

    /// Looks at young processes that are due, and keeps the tables small.
    pub(super) fn poll(&mut self) {
        self.hear_of_processes();
        self.hear_of_departures();
        self.hear_of_destroyed();
        let (started, busy) = (Instant::now(), processor_time());
        if self.swept + SWEEP_INTERVAL <= started {
            self.swept = started;
            self.sweep();
        }
        while let Some(Reverse((due, pid, generation))) = self.young.peek().copied() {
            if due > started {
                break;
            }
            self.young.pop();
            let current = self.growing.get(&pid).is_some_and(|young| young.generation == generation);
            if !current {
                continue;
            }
            if self.budget.is_spent() {
                self.statistics.looks_skipped += 1;
            } else {
                self.look_at(pid);
            }
            self.watch_on(pid);
        }
        self.place_sockets();
        self.budget.spend(processor_time().saturating_sub(busy));
    }

    /// Notes the sockets and holders of connections that are being opened, while they are there.
    fn hear_of_departures(&mut self) {
        let mut left: SmallVec<[Departure; 16]> = SmallVec::new();
        self.departures.drain(self.bell.as_ref(), |departure| left.push(departure));
        if left.is_empty() {
            return;
        }
        // Who connects has started its program before.
        self.hear_of_processes();
        let busy = processor_time();
        for departure in left {
            if self.budget.is_spent() {
                self.statistics.looks_skipped += 1;
                continue;
            }
            self.meet(&departure);
        }
        self.budget.spend(processor_time().saturating_sub(busy));
    }

    fn meet(&mut self, departure: &Departure) {
        let Departure { namespace, protocol, local, remote } = *departure;
        if sock_diag::is_udp(protocol)
            && let Some(socket) = self.memory.carrier(protocol, local, remote)
            && self.holders.known(socket.inode).is_some()
        {
            return;
        }
        let diag = self.namespaces.namespace_mut(namespace).and_then(|namespace| namespace.diag.as_mut());
        let Some(Ok(Some(socket))) = diag.map(|diag| diag.find(protocol, local, remote)) else { return };
        if socket.inode != 0 {
            self.memory.remember(&socket);
            self.holders.meet(&mut self.proc, &mut self.processes, socket.inode, socket.uid);
        }
    }

    /// Makes sure that the sockets of a process's namespace are known.
    fn visit(&mut self, process: &Process) {
        if let Some(namespace) = process.network_namespace
            && let Ok(directory) = self.proc.process(process.key.pid)
        {
            self.enter(&directory, namespace);
        }
    }

    /// Opens a process's namespace where it is not open yet.
    fn enter(&mut self, directory: &ProcDir, namespace: u32) {
        if !self.namespaces.visit(directory, namespace) {
            return;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        if let Ok(entered) = rustix::fs::openat(directory.as_fd(), "ns/net", flags, Mode::empty()) {
            self.departures.listen(namespace, Some(entered));
        }
    }

    /// Follows a process closely from now on.
    fn watch(&mut self, pid: u32) {
        self.generation += 1;
        self.growing.insert(pid, Young { generation: self.generation, step: 0 });
        if let Some(first) = LOOKS.first() {
            self.young.push(Reverse((Instant::now() + *first, pid, self.generation)));
        }
    }

    fn watch_on(&mut self, pid: u32) {
        let Some(young) = self.growing.get_mut(&pid) else { return };
        young.step += 1;
        match (LOOKS.get(young.step), LOOKS.get(young.step - 1)) {
            (Some(next), Some(last)) => {
                let due = Instant::now() + next.saturating_sub(*last);
                self.young.push(Reverse((due, pid, young.generation)));
            }
            _ => {
                self.growing.remove(&pid);
            }
        }
    }

    /// Reads the descriptors of a young process.
    fn look_at(&mut self, pid: u32) {
        let Ok(directory) = self.proc.process(pid) else { return };
        let Ok(namespace) = network_namespace(&directory) else { return };
        let moved = self
            .processes
            .current(&mut self.proc, pid)
            .is_ok_and(|process| process.network_namespace != Some(namespace));
        if moved {
            // It entered another namespace without starting a program.
            let _ = self.processes.read(&mut self.proc, pid);
        }
        self.enter(&directory, namespace);
        let Ok(new) = self.holders.scan(&mut self.proc, &mut self.processes, pid) else { return };
        for inode in new {
            if self.unplaced.len() < MAX_UNPLACED && !self.memory.has_inode(inode) {
                self.unplaced.insert(inode, Unplaced { namespace, attempts: 0 });
            }
        }
    }

    /// Lists the tables of namespaces in which young processes have sockets.
    fn place_sockets(&mut self) {
        if self.unplaced.is_empty() {
            return;
        }
        let wanted: BTreeSet<u32> = self.unplaced.values().map(|unplaced| unplaced.namespace).collect();
        for number in wanted {
            let may = self.namespaces.namespace_mut(number).is_none_or(|namespace| {
                namespace.listed.is_none_or(|(at, took)| at.elapsed() >= took.saturating_mul(LIST_REST))
            });
            if !may {
                continue;
            }
            self.list_sockets(number);
            let memory = &self.memory;
            self.unplaced.retain(|inode, unplaced| {
                if unplaced.namespace != number {
                    return true;
                }
                unplaced.attempts += 1;
                // Sockets of other families never appear; those that connect later do.
                !memory.has_inode(*inode) && unplaced.attempts < MAX_PLACE_ATTEMPTS
            });
        }
    }

    /// Remembers every socket of a namespace.
    fn list_sockets(&mut self, number: u32) {
        let busy = processor_time();
        self.statistics.lists += 1;
        for protocol in [Protocol::TCP, Protocol::UDP] {
            for socket in self.list(number, protocol, 0) {
                if socket.inode != 0 {
                    self.memory.remember(&socket);
                }
            }
        }
        for socket in self.raw_sockets(number) {
            self.memory.remember_raw(&socket);
        }
        if let Some(namespace) = self.namespaces.namespace_mut(number) {
            namespace.listed = Some((Instant::now(), processor_time().saturating_sub(busy)));
        }
    }

    /// The sockets of a protocol in a namespace; those with a local port, where it is not 0.
    fn list(&mut self, number: u32, protocol: Protocol, port: u16) -> Vec<Socket> {
        let mut sockets = Vec::new();
        let Some(namespace) = self.namespaces.namespace_mut(number) else { return sockets };
        if let Some(diag) = &mut namespace.diag {
            let listed = diag.list(protocol, States::Held, port, |socket| {
                if sockets.len() < MAX_LISTED {
                    sockets.push(socket);
                }
            });
            match listed {
                Ok(()) => return sockets,
                Err(error) => debug!(%error, %protocol, "sock_diag cannot list sockets; reading the text table"),
            }
            sockets.clear();
        }
        let member = namespace.member;
        let tables = match protocol {
            Protocol::TCP => ["tcp", "tcp6"],
            Protocol::UDP => ["udp", "udp6"],
            Protocol::UDP_LITE => ["udplite", "udplite6"],
            _ => return sockets,
        };
        for table in tables {
            let content = self.table(member, table);
            let of_port = proc_net::parse_inet(&content, protocol, number)
                .filter(|socket| port == 0 || socket.local.port == port)
                .take(MAX_LISTED);
            sockets.extend(of_port);
        }
        sockets
    }

    fn table(&mut self, member: u32, name: &str) -> Vec<u8> {
        let content = self.proc.process(member).and_then(|directory| self.proc.read_table(&directory, name));
        content.unwrap_or_default()
    }

    /// Ping and raw sockets; for a raw one `protocol` is what it was opened for.
    fn raw_sockets(&mut self, number: u32) -> Vec<Socket> {
        let Some(member) = self.namespaces.namespace_mut(number).map(|namespace| namespace.member) else {
            return Vec::new();
        };
        let mut sockets = Vec::new();
        for (table, protocol) in [("icmp", Protocol::ICMP), ("icmp6", Protocol::ICMPV6)] {
            let content = self.table(member, table);
            sockets.extend(proc_net::parse_inet(&content, protocol, number).map(without_ports));
        }
        for table in ["raw", "raw6"] {
            let content = self.table(member, table);
            sockets.extend(proc_net::parse_inet(&content, Protocol::default(), number).map(|socket| {
                let protocol = Protocol(u8::try_from(socket.local.port).unwrap_or(ANY_PROTOCOL));
                without_ports(Socket { protocol, ..socket })
            }));
        }
        sockets
    }

    /// Reads which processes there are, for want of news or after some were lost.
    fn rescan(&mut self) {
        let busy = processor_time();
        let Ok(pids) = self.proc.pids() else { return };
        let exists: HashSet<u32> = pids.iter().copied().collect();
        self.processes.retain(|pid| exists.contains(&pid));
        // The oldest first, so that the table knows their order.
        for pid in pids.into_iter().rev() {
            if self.processes.knows(pid) {
                continue;
            }
            let Ok(process) = self.processes.read(&mut self.proc, pid) else { continue };
            self.visit(&process);
            // A process that may not be looked at has no sockets to tell.
            let _ = self.holders.scan(&mut self.proc, &mut self.processes, pid);
        }
        let took = processor_time().saturating_sub(busy);
        self.rescan_after = Instant::now() + took.saturating_mul(RESCAN_REST);
    }

    fn sweep(&mut self) {
        self.processes.sweep();
        self.memory.sweep();
        let inhabited = self.processes.namespaces();
        self.namespaces.retain(|number| inhabited.contains(&number));
        let open = self.namespaces.numbers();
        self.departures.retain(|number| open.contains(&number));
        if self.connector.is_none() {
            self.rescan();
        }
        for namespace in self.namespaces.all_mut() {
            namespace.forget_addresses();
        }
    }

    /// Takes the news of sockets that ended.
    fn hear_of_destroyed(&mut self) {
        let memory = &mut self.memory;
        for namespace in self.namespaces.all_mut() {
            let Some(destroyed) = &mut namespace.destroyed else { continue };
            let at = now();
            if let Err(error) = destroyed.drain(|protocol, local, remote| memory.destroyed(at, protocol, local, remote))
            {
                debug!(%error, "news of sockets that ended were lost");
            }
        }
    }

    fn answer(&mut self, lookup: &Lookup) -> Outcome {
        let homes = self.homes(lookup);
        let outcome = match lookup.key.protocol {
            protocol if sock_diag::knows(protocol) => self.by_ports(lookup, &homes),
            Protocol::SCTP => self.by_association(lookup, &homes),
            Protocol::ICMP | Protocol::ICMPV6 if lookup.direction == Direction::Inbound => {
                Outcome::Final(UnknownReason::Kernel)
            }
            _ => self.by_protocol(lookup, &homes),
        };
        match outcome {
            Outcome::NotYet(UnknownReason::NoSocket) if lookup.direction != Direction::Inbound => {
                self.by_packet_socket(lookup).unwrap_or(outcome)
            }
            outcome => outcome,
        }
    }

    /// The namespaces in which the flow's local address is at home.
    fn homes(&mut self, lookup: &Lookup) -> SmallVec<[u32; 2]> {
        let asked = lookup.key.namespace.0;
        if asked != 0 {
            return SmallVec::from_slice(&[asked]);
        }
        let own = self.namespaces.own();
        let address = lookup.key.local.address;
        let ip = address.ip();
        if ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() {
            return SmallVec::from_slice(&[own]);
        }
        let mut homes = SmallVec::new();
        for number in self.namespaces.numbers() {
            if self.namespaces.has_address(number, address, &mut self.proc) {
                homes.push(number);
                if number == own {
                    break;
                }
            }
        }
        homes
    }

    /// TCP, UDP and their like: by the socket that the kernel itself would choose.
    fn by_ports(&mut self, lookup: &Lookup, homes: &[u32]) -> Outcome {
        let (protocol, local, remote) = (lookup.key.protocol, lookup.key.local, lookup.key.remote);
        let mut found: SmallVec<[Socket; 2]> = SmallVec::new();
        for number in homes {
            found.extend(self.find(*number, protocol, local, remote));
        }
        if found.is_empty() && !homes.contains(&self.namespaces.own()) {
            // An address that was taken away, or transparent proxying: connected sockets still tell.
            let own = self.namespaces.own();
            found.extend(self.find(own, protocol, local, remote).filter(Socket::is_connected));
        }
        let connected = |socket: &&Socket| (socket.local, socket.remote) == (local, remote);
        let outcome = match found.iter().filter(connected).collect::<SmallVec<[&Socket; 2]>>()[..] {
            [socket] if socket.inode != 0 => Some(self.owner(&socket.clone(), Evidence::Exact, lookup.first)),
            [_] => None,
            [] => match found[..] {
                [socket] if sock_diag::is_udp(protocol) => Some(self.by_bound_port(&socket, lookup)),
                [socket] if socket.state == Socket::LISTEN && lookup.direction != Direction::Outbound => {
                    Some(self.owner(&socket, Evidence::Listener, lookup.first))
                }
                [] | [_] => None,
                _ => Some(Outcome::NotYet(UnknownReason::Ambiguous)),
            },
            _ => Some(Outcome::NotYet(UnknownReason::Ambiguous)),
        };
        match outcome {
            Some(Outcome::Owner(process, evidence)) => Outcome::Owner(process, evidence),
            Some(Outcome::NotYet(reason)) => self.by_memory(lookup).unwrap_or(Outcome::NotYet(reason)),
            Some(outcome) => outcome,
            None => self.without_socket(lookup, homes, &found),
        }
    }

    fn find(&mut self, number: u32, protocol: Protocol, local: Endpoint, remote: Endpoint) -> Option<Socket> {
        let diag = self.namespaces.namespace_mut(number).and_then(|namespace| namespace.diag.as_mut());
        if let Some(Ok(found)) = diag.map(|diag| diag.find(protocol, local, remote)) {
            return found;
        }
        let sockets = self.list(number, protocol, local.port);
        let fit = |socket: &&Socket| socket.carries(local, remote);
        sockets
            .iter()
            .filter(fit)
            .max_by_key(|socket| (socket.is_connected(), !socket.local.address.is_unspecified()))
            .copied()
    }

    /// An unconnected UDP socket: the owner, unless processes share the port.
    fn by_bound_port(&mut self, socket: &Socket, lookup: &Lookup) -> Outcome {
        let sharing: Vec<Socket> = self
            .list(socket.namespace, socket.protocol, socket.local.port)
            .into_iter()
            .filter(|other| !other.is_connected() && other.carries(lookup.key.local, lookup.key.remote))
            .collect();
        if sharing.len() > 1 {
            return self.only_owner(&sharing, lookup.first);
        }
        self.owner(socket, Evidence::Wildcard, lookup.first)
    }

    /// No socket has the flow at this moment.
    fn without_socket(&mut self, lookup: &Lookup, homes: &[u32], found: &[Socket]) -> Outcome {
        if let Some(outcome) = self.by_memory(lookup) {
            return outcome;
        }
        if lookup.direction == Direction::Inbound && found.iter().any(|socket| socket.inode == 0) {
            // Not accepted yet.
            for number in homes {
                let port = lookup.key.local.port;
                let listening = self.listening(*number, port);
                if let Some(listener) =
                    listening.iter().find(|socket| socket.carries(lookup.key.local, lookup.key.remote))
                {
                    return self.owner(&listener.clone(), Evidence::Listener, lookup.first);
                }
            }
        }
        if !found.is_empty() {
            return Outcome::NotYet(UnknownReason::Gone);
        }
        if let Some(outcome) = self.by_translation(lookup, homes) {
            return outcome;
        }
        if homes.is_empty() {
            return Outcome::NotYet(UnknownReason::Forwarded);
        }
        let key = &lookup.key;
        let ended = self.memory.was_destroyed(key.protocol, key.local, key.remote);
        let exited = self.last_exit.is_some_and(|at| at >= lookup.first.before(EXIT_SLACK));
        Outcome::NotYet(if ended || exited { UnknownReason::Gone } else { UnknownReason::NoSocket })
    }

    fn listening(&mut self, number: u32, port: u16) -> Vec<Socket> {
        let mut sockets = Vec::new();
        let diag = self.namespaces.namespace_mut(number).and_then(|namespace| namespace.diag.as_mut());
        if let Some(diag) = diag
            && let Err(error) = diag.list(Protocol::TCP, States::Listening, port, |socket| sockets.push(socket))
        {
            debug!(%error, "sock_diag cannot list listening sockets");
        }
        sockets
    }

    /// The socket had been seen before it went away.
    fn by_memory(&mut self, lookup: &Lookup) -> Option<Outcome> {
        let key = &lookup.key;
        let (socket, evidence) = match self.memory.connected(key.protocol, key.local, key.remote) {
            Some(socket) => (socket, Evidence::Exact),
            None if sock_diag::is_udp(key.protocol) => {
                (self.memory.bound(key.protocol, key.local, key.remote)?, Evidence::Wildcard)
            }
            None => return None,
        };
        if self.memory.ended_before(&socket, lookup) {
            // Another connection between the same ends, before this one.
            return None;
        }
        match self.owner(&socket, evidence, lookup.first) {
            Outcome::Owner(process, evidence) => Some(Outcome::Owner(process, evidence)),
            Outcome::NotYet(_) | Outcome::Final(_) => None,
        }
    }

    /// A flow that passes this host: of a container behind address translation, or of others.
    fn by_translation(&mut self, lookup: &Lookup, homes: &[u32]) -> Option<Outcome> {
        let key = &lookup.key;
        let places: SmallVec<[u32; 2]> = match homes {
            [] => SmallVec::from_slice(&[self.namespaces.own()]),
            homes => homes.into(),
        };
        let (local, remote) = places.into_iter().find_map(|number| {
            let conntrack = self.namespaces.namespace_mut(number)?.conntrack.as_mut()?;
            // A kernel without the table translates nothing.
            conntrack.inner(key.protocol, key.local, key.remote).ok().flatten()
        })?;
        if self.settings.translated == Translated::Leave {
            return Some(Outcome::Final(UnknownReason::Forwarded));
        }
        let inner = Lookup { key: FlowKey { local, remote, ..*key }, ..*lookup };
        let homes = self.homes(&inner);
        let is_elsewhere = homes.iter().any(|number| *number != self.namespaces.own());
        Some(if is_elsewhere { self.by_ports(&inner, &homes) } else { Outcome::NotYet(UnknownReason::Forwarded) })
    }

    fn by_association(&mut self, lookup: &Lookup, homes: &[u32]) -> Outcome {
        for number in homes {
            let Some(member) = self.namespaces.namespace_mut(*number).map(|namespace| namespace.member) else {
                continue;
            };
            let table = self.table(member, "sctp/assocs");
            let sockets = proc_net::parse_sctp(&table, *number);
            if let Some(socket) = sockets.iter().find(|socket| socket.carries(lookup.key.local, lookup.key.remote)) {
                return self.owner(socket, Evidence::Exact, lookup.first);
            }
        }
        Outcome::NotYet(UnknownReason::NoSocket)
    }

    /// ICMP and protocols without ports: whoever has a socket for the protocol.
    fn by_protocol(&mut self, lookup: &Lookup, homes: &[u32]) -> Outcome {
        let (local, remote) = (portless(lookup.key.local), portless(lookup.key.remote));
        let mut sockets: Vec<Socket> = Vec::new();
        for number in homes {
            sockets.extend(self.raw_sockets(*number));
        }
        for socket in &sockets {
            self.memory.remember_raw(socket);
        }
        // One that was closed a moment ago can have sent it as well.
        let (holders, processes) = (&self.holders, &self.processes);
        let ended_before = |socket: &Socket| {
            let held = holders.known(socket.inode).unwrap_or_default();
            !held.is_empty()
                && held.iter().all(|holder| processes.ended_at(holder.key).is_some_and(|at| at < lookup.first))
        };
        let remembered = self.memory.raw().filter(|socket| homes.contains(&socket.namespace));
        sockets.extend(remembered.filter(|socket| !ended_before(socket)).copied());
        sockets.sort_by_key(|socket| socket.inode);
        sockets.dedup_by_key(|socket| socket.inode);
        let protocol = lookup.key.protocol;
        sockets.retain(|socket| {
            (socket.protocol == protocol || socket.protocol.0 == ANY_PROTOCOL) && socket.carries(local, remote)
        });
        if homes.is_empty() {
            return Outcome::NotYet(UnknownReason::Forwarded);
        }
        if sockets.is_empty() && protocol == Protocol::ICMPV6 && is_of_the_link(remote) {
            return Outcome::Final(UnknownReason::Kernel);
        }
        self.only_owner(&sockets, lookup.first)
    }

    /// A frame that a program made itself: the owner is the only program that
    /// has a packet socket which does nothing but send.
    fn by_packet_socket(&mut self, lookup: &Lookup) -> Option<Outcome> {
        let own = self.namespaces.own();
        let member = self.namespaces.namespace_mut(own)?.member;
        let table = self.table(member, "packet");
        let senders: Vec<Socket> = proc_net::parse_packet(&table)
            .filter(|PacketSocket { ether_type, .. }| *ether_type == 0)
            .map(|PacketSocket { inode, .. }| Socket {
                protocol: lookup.key.protocol,
                local: Endpoint::default(),
                remote: Endpoint::default(),
                state: 0,
                uid: 0,
                inode,
                namespace: own,
            })
            .collect();
        match self.only_owner(&senders, lookup.first) {
            Outcome::NotYet(UnknownReason::NoSocket) => None,
            outcome => Some(outcome),
        }
    }

    /// The owner of all these sockets, if it is one.
    fn only_owner(&mut self, sockets: &[Socket], since: Timestamp) -> Outcome {
        let mut owner: Option<(Arc<Process>, Evidence)> = None;
        let mut missing = None;
        for socket in sockets {
            match self.owner(socket, Evidence::Wildcard, since) {
                Outcome::Owner(process, _) if process.key.pid == std::process::id() => {}
                Outcome::Owner(process, evidence) => match &owner {
                    Some((known, _)) if known.key == process.key => {}
                    Some(_) => return Outcome::Final(UnknownReason::Ambiguous),
                    None => owner = Some((process, evidence)),
                },
                Outcome::NotYet(reason) | Outcome::Final(reason) => missing = Some(reason),
            }
        }
        match (owner, missing) {
            (Some((process, evidence)), None) => Outcome::Owner(process, evidence),
            (Some(_), Some(_)) => Outcome::NotYet(UnknownReason::Ambiguous),
            (None, Some(reason)) => Outcome::NotYet(reason),
            (None, None) => Outcome::NotYet(UnknownReason::NoSocket),
        }
    }

    /// The process behind a socket that has been in use since then.
    fn owner(&mut self, socket: &Socket, evidence: Evidence, since: Timestamp) -> Outcome {
        let search = self.holders.find(&mut self.proc, &mut self.processes, socket.inode, socket.uid, since);
        let holders = match search {
            Search::Found(holders) => {
                self.memory.remember(socket);
                holders
            }
            Search::Remembered(holders) => holders,
            Search::Hidden => return Outcome::NotYet(UnknownReason::Permission),
            // A socket that lives and that no process holds is the kernel's own, such as a tunnel's.
            Search::Nobody if socket.uid == 0 => return Outcome::NotYet(UnknownReason::Kernel),
            Search::Nobody | Search::Later => return Outcome::NotYet(UnknownReason::Gone),
        };
        let known: SmallVec<[(Holder, Arc<Process>); 2]> = holders
            .into_iter()
            .filter_map(|holder| Some((holder, self.processes.by_key(&mut self.proc, holder.key)?)))
            .collect();
        let Some(first) = primary(&known) else { return Outcome::NotYet(UnknownReason::Gone) };
        let others: Vec<ProcessKey> =
            known.iter().map(|(holder, _)| holder.key).filter(|key| *key != first.key).collect();
        match others.is_empty() {
            true => Outcome::Owner(first, evidence),
            false => Outcome::Owner(first, Evidence::Inherited(others.into())),
        }
    }
}

impl ProcessResolver for Resolver {
    fn resolve(&mut self, lookup: &Lookup) -> Attribution {
        self.statistics.lookups += 1;
        self.hear_of_processes();
        self.hear_of_destroyed();
        let mut outcome = self.answer(lookup);
        let rescan = self.connector.is_none() && matches!(outcome, Outcome::NotYet(_));
        if rescan && self.rescan_after <= Instant::now() {
            self.rescan();
            outcome = self.answer(lookup);
        }
        match outcome {
            Outcome::Owner(process, evidence) => {
                self.statistics.owned += 1;
                Attribution::Known { process, evidence }
            }
            Outcome::NotYet(_) if now().since(lookup.first) < GRACE => Attribution::Pending { since: lookup.first },
            Outcome::NotYet(reason) | Outcome::Final(reason) => Attribution::Unknown(reason),
        }
    }
}

/// Who of several holders is named as the owner: with standard input or output
/// on the socket the newest of those, as `inetd` starts its services; among
/// processes of one program the newest, as servers fork; else the oldest, which
/// opened it, since a child of another program mostly inherits by accident.
fn primary(known: &[(Holder, Arc<Process>)]) -> Option<Arc<Process>> {
    let newest = |(_, process): &&(Holder, Arc<Process>)| (process.key.start, process.key.pid);
    let (_, first) = known.first()?;
    let path = |process: &Arc<Process>| process.executable.as_ref().map(|executable| executable.path.clone());
    let standard = known.iter().filter(|(holder, _)| holder.descriptor <= 2).max_by_key(newest);
    let chosen = match standard {
        Some(standard) => Some(standard),
        None if known.iter().all(|(_, process)| path(process) == path(first)) => known.iter().max_by_key(newest),
        None => known.iter().min_by_key(newest),
    };
    chosen.map(|(_, process)| Arc::clone(process))
}

fn without_ports(socket: Socket) -> Socket {
    Socket { local: portless(socket.local), remote: portless(socket.remote), ..socket }
}

fn portless(endpoint: Endpoint) -> Endpoint {
    Endpoint::new(endpoint.address, 0)
}

/// Neighbour discovery and multicast membership, which the kernel does itself.
fn is_of_the_link(remote: Endpoint) -> bool {
    match remote.address.ip() {
        std::net::IpAddr::V6(ip) => ip.is_multicast() || ip.is_unicast_link_local(),
        std::net::IpAddr::V4(_) => false,
    }
}

/// The share of time that looking at young processes may take.
#[derive(Debug)]
struct Budget {
    since: Instant,
    spent: Duration,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { since: now, spent: Duration::ZERO }
    }

    fn is_spent(&self) -> bool {
        self.since.elapsed() < BUDGET_PERIOD && self.spent >= BUDGET
    }

    fn spend(&mut self, time: Duration) {
        if self.since.elapsed() >= BUDGET_PERIOD {
            *self = Self::new(Instant::now());
        }
        self.spent += time;
    }
}

/// When, after its start, a process is looked at: dense at first, since it
/// cannot be known how long it lives.
const LOOKS: &[Duration] = &[
    // What it inherited is there at once, and a child may only send and end.
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(5),
    Duration::from_millis(8),
    Duration::from_millis(12),
    Duration::from_millis(16),
    Duration::from_millis(20),
    Duration::from_millis(26),
    Duration::from_millis(34),
    Duration::from_millis(45),
    Duration::from_millis(60),
    Duration::from_millis(80),
    Duration::from_millis(110),
    Duration::from_millis(150),
    Duration::from_millis(220),
    Duration::from_millis(320),
    Duration::from_millis(500),
    Duration::from_millis(800),
    Duration::from_millis(1_300),
    Duration::from_millis(2_000),
];

/// Of each period this much of the processor at most goes to young processes. Time that the
/// resolver waits for a busy machine does not count: that is when processes would be missed.
const BUDGET: Duration = Duration::from_millis(25);
const BUDGET_PERIOD: Duration = Duration::from_millis(100);

/// How long a flow may wait for its owner.
const GRACE: Duration = Duration::from_millis(1_500);

/// A list of sockets is followed by this many times its own duration without one.
const LIST_REST: u32 = 8;

/// Reading all processes is followed by this many times its own duration without it.
const RESCAN_REST: u32 = 10;

/// How often old knowledge is dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How old facts may be where no news of changes comes.
const FACTS_TTL: Duration = Duration::from_secs(1);

/// How long before a flow's first packet an exit still explains a missing socket.
const EXIT_SLACK: Duration = Duration::from_secs(1);

/// Sockets of young processes that wait to be found in a table.
const MAX_UNPLACED: usize = 4_096;

/// Lists that a socket is waited for.
const MAX_PLACE_ATTEMPTS: u8 = 12;

/// Sockets taken of one list.
const MAX_LISTED: usize = 262_144;

/// `IPPROTO_RAW`: a raw socket that sends any protocol.
const ANY_PROTOCOL: u8 = 255;
