//! Network namespaces: each has socket tables of its own.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;
use tracing::debug;

use crate::packet::Address;
use crate::resolve::addresses::Addresses;
use crate::resolve::conntrack::Conntrack;
use crate::resolve::proc_net;
use crate::resolve::procfs::{Proc, ProcDir, network_namespace};
use crate::resolve::sock_diag::{DestroyedSockets, SockDiag};

/// The namespaces that processes were seen in, this program's own first.
#[derive(Debug)]
pub(super) struct Namespaces {
    own: u32,
    open: BTreeMap<u32, NetworkNamespace>,
    refused: BTreeMap<u32, Instant>,
}

/// The socket tables of one namespace.
///
/// An open one keeps the namespace alive, so it is closed soon after its last process.
#[derive(Debug)]
pub(super) struct NetworkNamespace {
    /// Questions to its tables, where the kernel has sock_diag.
    pub diag: Option<SockDiag>,
    /// News of its sockets that ended, where they may be heard.
    pub destroyed: Option<DestroyedSockets>,
    /// Its translated connections, where they may be asked for.
    pub conntrack: Option<Conntrack>,
    /// A process in it, through which its text tables are read.
    pub member: u32,
    addresses_of: Option<Addresses>,
    addresses: Vec<Address>,
    addresses_are_fresh: bool,
    /// When the last list of its sockets was read, and how long that took.
    pub listed: Option<(Instant, Duration)>,
}

impl Namespaces {
    /// This program's own.
    pub(super) fn new(proc: &Proc) -> Self {
        // A thread can be in another namespace than the process's first one.
        let member = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let own = proc.process(member).and_then(|directory| network_namespace(&directory)).unwrap_or_default();
        let namespace = NetworkNamespace::new(member, Some(Tables::open(own)));
        Self { own, open: BTreeMap::from([(own, namespace)]), refused: BTreeMap::new() }
    }

    /// The number of this program's own.
    pub(super) fn own(&self) -> u32 {
        self.own
    }

    /// Makes sure that the namespace of a process is open. Tells whether it was entered just now.
    pub(super) fn visit(&mut self, directory: &ProcDir, number: u32) -> bool {
        if let Some(known) = self.open.get_mut(&number) {
            if number != self.own {
                known.member = directory.pid();
            }
            return false;
        }
        let refused = self.refused.get(&number).is_some_and(|at| at.elapsed() < RETRY);
        if refused || self.open.len() >= MAX_NAMESPACES {
            return false;
        }
        let entered = rustix::fs::openat(directory.as_fd(), "ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|fd| within(fd, move || Tables::open(number)));
        match entered {
            Ok(tables) => {
                self.open.insert(number, NetworkNamespace::new(directory.pid(), Some(tables)));
                return true;
            }
            Err(error @ (Errno::PERM | Errno::ACCESS)) => {
                debug!(number, %error, "cannot enter a network namespace; its tables are read as text");
                self.refused.insert(number, Instant::now());
                self.open.insert(number, NetworkNamespace::new(directory.pid(), None));
            }
            // The process has ended; the next one leads there too.
            Err(_) => {}
        }
        false
    }

    /// Closes those that no process is in.
    pub(super) fn retain(&mut self, is_inhabited: impl Fn(u32) -> bool) {
        let own = self.own;
        self.open.retain(|number, _| *number == own || is_inhabited(*number));
        self.refused.retain(|_, at| at.elapsed() < RETRY);
    }

    /// The numbers, this program's own first.
    pub(super) fn numbers(&self) -> Vec<u32> {
        std::iter::once(self.own).chain(self.open.keys().copied().filter(|number| *number != self.own)).collect()
    }

    /// One of them.
    pub(super) fn namespace_mut(&mut self, number: u32) -> Option<&mut NetworkNamespace> {
        self.open.get_mut(&number)
    }

    /// All of them.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut NetworkNamespace> {
        self.open.values_mut()
    }

    /// Whether an address is at home in one of them.
    pub(super) fn has_address(&mut self, number: u32, address: Address, proc: &mut Proc) -> bool {
        self.open.get_mut(&number).is_some_and(|namespace| namespace.addresses(proc).contains(&address))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

impl NetworkNamespace {
    fn new(member: u32, tables: Option<Tables>) -> Self {
        let (diag, destroyed, conntrack, addresses_of) = match tables {
            Some(tables) => (tables.diag.ok(), tables.destroyed.ok(), tables.conntrack.ok(), tables.addresses.ok()),
            None => (None, None, None, None),
        };
        Self {
            diag,
            destroyed,
            conntrack,
            member,
            addresses_of,
            addresses: Vec::new(),
            addresses_are_fresh: false,
            listed: None,
        }
    }

    /// The addresses of its interfaces.
    pub(super) fn addresses(&mut self, proc: &mut Proc) -> &[Address] {
        if !std::mem::replace(&mut self.addresses_are_fresh, true) {
            let listed = self.addresses_of.as_mut().and_then(|addresses| addresses.list().ok());
            self.addresses = listed.unwrap_or_else(|| {
                let mut table = |name| {
                    let directory = proc.process(self.member);
                    directory.and_then(|directory| proc.read_table(&directory, name)).unwrap_or_default()
                };
                let read = proc_net::parse_addresses(&table("fib_trie"), &table("if_inet6"));
                // A namespace without any address is one that could not be read.
                if read.is_empty() { std::mem::take(&mut self.addresses) } else { read }
            });
        }
        &self.addresses
    }

    /// Lets the addresses be read again: they come and go.
    pub(super) fn forget_addresses(&mut self) {
        self.addresses_are_fresh = false;
    }
}

/// What is opened in a namespace.
struct Tables {
    diag: Result<SockDiag, Errno>,
    destroyed: Result<DestroyedSockets, Errno>,
    conntrack: Result<Conntrack, Errno>,
    addresses: Result<Addresses, Errno>,
}

impl Tables {
    fn open(number: u32) -> Self {
        Self {
            diag: SockDiag::open(number),
            destroyed: DestroyedSockets::open(),
            conntrack: Conntrack::open(),
            addresses: Addresses::open(),
        }
    }
}

/// Runs `work` in another network namespace, on a thread that ends there: a
/// netlink socket stays in the namespace in which it was opened.
pub(super) fn within<T: Send + 'static>(
    namespace: OwnedFd,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Errno> {
    let enter = move || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    };
    let thread = std::thread::Builder::new().name("enter-netns".to_owned()).spawn(enter).map_err(|_| Errno::AGAIN)?;
    thread.join().unwrap_or(Err(Errno::FAULT))
}

/// Namespaces open at once; the sockets of further ones stay unknown.
const MAX_NAMESPACES: usize = 4_096;

/// How long a namespace that refused is left alone.
const RETRY: Duration = Duration::from_secs(60);
