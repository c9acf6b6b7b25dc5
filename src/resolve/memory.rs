//! Sockets as they were last seen, for flows that are looked up after their end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::attribution::Lookup;
use crate::packet::{Address, Endpoint, Protocol};
use crate::resolve::socket::Socket;
use crate::time::Timestamp;

type Ends = (Protocol, Endpoint, Endpoint);

/// Sockets by their ends, in two generations: when the recent one is full or
/// old, the older one is dropped.
#[derive(Debug, Default)]
pub(super) struct Memory {
    recent: Generation,
    older: Generation,
    rotated: Option<Instant>,
    raw: VecDeque<(Instant, Socket)>,
    destroyed: (HashMap<Ends, Timestamp>, HashMap<Ends, Timestamp>),
    /// Sockets that were dropped before their time.
    pub evicted: u64,
}

#[derive(Debug, Default)]
struct Generation {
    sockets: HashMap<Ends, Socket>,
    inodes: HashSet<u64>,
}

impl Memory {
    /// A socket was seen.
    pub(super) fn remember(&mut self, socket: &Socket) {
        if self.recent.sockets.len() >= MAX_SOCKETS {
            self.evicted += self.older.sockets.len() as u64;
            self.rotate();
        }
        let ends = ends_of(socket);
        // Whatever ended there was another one.
        self.destroyed.0.remove(&ends);
        self.destroyed.1.remove(&ends);
        self.recent.sockets.insert(ends, *socket);
        self.recent.inodes.insert(socket.inode);
    }

    /// A raw or ping socket was seen.
    pub(super) fn remember_raw(&mut self, socket: &Socket) {
        match self.raw.iter_mut().find(|(_, known)| known.inode == socket.inode) {
            Some((seen, _)) => *seen = Instant::now(),
            None => {
                if self.raw.len() >= MAX_RAW {
                    self.raw.pop_front();
                    self.evicted += 1;
                }
                self.raw.push_back((Instant::now(), *socket));
            }
        }
        self.recent.inodes.insert(socket.inode);
    }

    /// The kernel told of the end of a socket.
    pub(super) fn destroyed(&mut self, at: Timestamp, protocol: Protocol, local: Endpoint, remote: Endpoint) {
        if self.destroyed.0.len() >= MAX_DESTROYED {
            self.destroyed.1 = std::mem::take(&mut self.destroyed.0);
        }
        self.destroyed.0.insert((protocol, local, remote), at);
    }

    /// Whether the kernel told of the end of this socket.
    pub(super) fn was_destroyed(&self, protocol: Protocol, local: Endpoint, remote: Endpoint) -> bool {
        let is_in = |ended: &HashMap<Ends, Timestamp>| {
            let unconnected = [Address::from_v4([0; 4]), Address::default()].map(|any| Endpoint::new(any, 0));
            ended.contains_key(&(protocol, local, remote))
                || unconnected.iter().any(|none| ended.contains_key(&(protocol, local, *none)))
        };
        is_in(&self.destroyed.0) || is_in(&self.destroyed.1)
    }

    /// Whether a socket that was seen had ended before a flow's first packet.
    pub(super) fn ended_before(&self, socket: &Socket, lookup: &Lookup) -> bool {
        let (own, flow) = (ends_of(socket), (lookup.key.protocol, lookup.key.local, lookup.key.remote));
        let ended = [own, flow].into_iter().filter_map(|ends| {
            let Self { destroyed: (recent, older), .. } = self;
            recent.get(&ends).or_else(|| older.get(&ends))
        });
        ended.max().is_some_and(|at| *at < lookup.first)
    }

    /// The socket that carries packets between these ends.
    pub(super) fn carrier(&self, protocol: Protocol, local: Endpoint, remote: Endpoint) -> Option<Socket> {
        self.connected(protocol, local, remote).or_else(|| self.bound(protocol, local, remote))
    }

    /// The socket between these ends.
    pub(super) fn connected(&self, protocol: Protocol, local: Endpoint, remote: Endpoint) -> Option<Socket> {
        self.socket(&(protocol, local, remote))
    }

    /// The socket bound to this local end, to its port on every address, and open to this remote end.
    pub(super) fn bound(&self, protocol: Protocol, local: Endpoint, remote: Endpoint) -> Option<Socket> {
        let any = [Address::from_v4([0; 4]), Address::default()];
        let locals = [local.address, any[0], any[1]];
        let found = locals.iter().flat_map(|address| any.iter().map(move |none| (*address, *none)));
        let found = found.map(|(address, none)| (Endpoint::new(address, local.port), Endpoint::new(none, 0)));
        let mut sockets = found.filter_map(|(local, remote)| self.socket(&(protocol, local, remote)));
        sockets.find(|socket| socket.carries(local, remote))
    }

    /// Raw and ping sockets that exist or did a moment ago.
    pub(super) fn raw(&self) -> impl Iterator<Item = &Socket> {
        self.raw.iter().filter(|(seen, _)| seen.elapsed() < KEEP_RAW).map(|(_, socket)| socket)
    }

    /// Whether a socket of this inode was seen.
    pub(super) fn has_inode(&self, inode: u64) -> bool {
        self.recent.inodes.contains(&inode) || self.older.inodes.contains(&inode)
    }

    /// Drops what is old.
    pub(super) fn sweep(&mut self) {
        self.raw.retain(|(seen, _)| seen.elapsed() < KEEP_RAW);
        if self.rotated.is_none_or(|at| at.elapsed() >= GENERATION) {
            self.rotate();
            self.destroyed.1 = std::mem::take(&mut self.destroyed.0);
        }
    }

    fn rotate(&mut self) {
        self.older = std::mem::take(&mut self.recent);
        self.rotated = Some(Instant::now());
    }

    fn socket(&self, ends: &Ends) -> Option<Socket> {
        self.recent.sockets.get(ends).or_else(|| self.older.sockets.get(ends)).copied()
    }
}

fn ends_of(socket: &Socket) -> Ends {
    (socket.protocol, socket.local, socket.remote)
}

/// Sockets held in each generation.
const MAX_SOCKETS: usize = 65_536;

/// Raw and ping sockets held.
const MAX_RAW: usize = 1_024;

/// Ends of sockets held in each generation.
const MAX_DESTROYED: usize = 16_384;

/// How long a generation lasts: a flow is looked up within seconds.
const GENERATION: Duration = Duration::from_secs(30);

/// How long a raw socket that went away can still explain a packet.
const KEEP_RAW: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::flow::{Direction, FlowKey};

    fn end(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    fn socket(local: &str, remote: &str, inode: u64) -> Socket {
        let (local, remote) = (end(local), end(remote));
        Socket { protocol: Protocol::UDP, local, remote, state: 7, uid: 0, inode, namespace: 1 }
    }

    #[test]
    fn a_socket_is_found_as_it_was_bound() {
        let mut memory = Memory::default();
        memory.remember(&socket("10.0.0.5:40000", "198.51.100.1:443", 1));
        memory.remember(&socket("0.0.0.0:5353", "0.0.0.0:0", 2));
        memory.remember(&socket("[::]:6000", "[::]:0", 3));
        let udp = Protocol::UDP;
        let inode = |socket: Option<Socket>| socket.map(|socket| socket.inode);
        assert_eq!(inode(memory.connected(udp, end("10.0.0.5:40000"), end("198.51.100.1:443"))), Some(1));
        assert_eq!(inode(memory.connected(udp, end("10.0.0.5:40000"), end("198.51.100.1:444"))), None);
        assert_eq!(inode(memory.bound(udp, end("10.0.0.5:5353"), end("198.51.100.1:9"))), Some(2));
        assert_eq!(inode(memory.bound(udp, end("10.0.0.5:6000"), end("198.51.100.1:9"))), Some(3));
        assert_eq!(inode(memory.bound(udp, end("[2001:db8::1]:5353"), end("[2001:db8::2]:9"))), None);
        assert!(memory.has_inode(2) && !memory.has_inode(9));
    }

    #[test]
    fn a_connection_is_not_taken_for_the_one_before_it() {
        let mut memory = Memory::default();
        let (local, remote) = ("10.0.0.5:40000", "198.51.100.1:443");
        let one = socket(local, remote, 1);
        memory.remember(&one);
        memory.destroyed(Timestamp::from_secs(10), Protocol::UDP, end(local), end(remote));
        let flow_from = |second| {
            let key = FlowKey { protocol: Protocol::UDP, local: end(local), remote: end(remote), ..FlowKey::default() };
            let first = Timestamp::from_secs(second);
            Lookup { key, direction: Direction::Outbound, first, last: first }
        };
        assert!(!memory.ended_before(&one, &flow_from(9)), "it carried this flow, and ended");
        assert!(memory.ended_before(&one, &flow_from(11)), "the ends are another socket's");
        let two = socket(local, remote, 2);
        memory.remember(&two);
        assert!(!memory.ended_before(&two, &flow_from(11)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for number in 0..200_000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let address = format!("10.{}.{high}.{low}:1", number >> 16);
            memory.remember(&socket(&address, "198.51.100.1:443", number.into()));
            memory.destroyed(Timestamp::EPOCH, Protocol::TCP, end(&address), end("198.51.100.2:443"));
        }
        for inode in 0..2 * MAX_RAW as u64 {
            memory.remember_raw(&socket("10.0.0.5:0", "0.0.0.0:0", 1_000_000 + inode));
        }
        assert_eq!(memory.raw.len(), MAX_RAW);
        assert!(memory.recent.sockets.len() + memory.older.sockets.len() <= 2 * MAX_SOCKETS);
        assert!(memory.destroyed.0.len() + memory.destroyed.1.len() <= 2 * MAX_DESTROYED);
        assert!(memory.evicted > 0);
    }
}
