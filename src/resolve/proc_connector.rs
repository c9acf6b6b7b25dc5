//! News of processes: fork, exec, change of user, exit (netlink proc connector).
//!
//! The kernel sends these as they happen, so a process that lives for some
//! milliseconds is known while it lives. Needs CAP_NET_ADMIN and the initial
//! pid and user namespace; the resolver works without, by reading `/proc`
//! more often.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

use crate::resolve::namespace;
use crate::resolve::sock_diag::{Messages, NLMSG_DONE, receive, u32_at};

/// What happened to a process. Threads are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessEvent {
    /// A process made another.
    Fork {
        /// Who.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// A process became another program.
    Exec {
        /// Which process.
        pid: u32,
    },
    /// A process changed its user or group.
    Identity {
        /// Which process.
        pid: u32,
    },
    /// A process ended.
    Exit {
        /// Which process.
        pid: u32,
    },
    /// The kernel had more news than the queue could hold: some are lost.
    Lost,
}

/// A subscription.
#[derive(Debug)]
pub(super) struct ProcConnector {
    netlink: OwnedFd,
    buffer: Vec<u8>,
}

impl ProcConnector {
    /// Subscribes. The kernel tells only in its first network namespace.
    pub(super) fn open() -> Result<Self, Errno> {
        Self::open_here().or_else(|error| {
            let subscribe = |namespace| namespace::within(namespace, Self::open_here).and_then(|opened| opened).ok();
            outer_namespaces().find_map(subscribe).ok_or(error)
        })
    }

    fn open_here() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let netlink =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::CONNECTOR))?;
        rustix::net::bind(&netlink, &SocketAddrNetlink::new(0, CN_IDX_PROC))?;
        // More than others may have needs CAP_NET_ADMIN, as listening does.
        sockopt::set_socket_recv_buffer_size_force(&netlink, QUEUE)?;
        rustix::net::send(&netlink, &listen_request(), SendFlags::empty())?;
        Ok(Self { netlink, buffer: Vec::new() })
    }

    /// What has happened since the last call.
    pub(super) fn drain(&mut self, events: &mut Vec<ProcessEvent>) -> Result<(), Errno> {
        loop {
            match receive(&self.netlink, &mut self.buffer) {
                Ok(()) => events.extend(Messages(&self.buffer).filter_map(|message| parse(message.body))),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::NOBUFS) => events.push(ProcessEvent::Lost),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The network namespaces of the first process and of those that started this
/// one: where the first may not be looked at, one of the others may live beside it.
fn outer_namespaces() -> impl Iterator<Item = OwnedFd> {
    let parent = |pid: &i32| procfs::process::Process::new(*pid).ok()?.stat().ok().map(|stat| stat.ppid);
    let ancestors = std::iter::successors(parent(&std::process::id().cast_signed()), parent).take(MAX_ANCESTORS);
    std::iter::once(1).chain(ancestors).filter_map(|pid| {
        let path = format!("/proc/{pid}/ns/net");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    })
}

/// A loop in the tree of processes would be the kernel's fault, and is not waited for.
const MAX_ANCESTORS: usize = 64;

impl AsFd for ProcConnector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

/// `struct nlmsghdr`, `struct cn_msg`, `PROC_CN_MCAST_LISTEN`.
fn listen_request() -> Vec<u8> {
    let mut message = Vec::with_capacity(40);
    message.extend_from_slice(&40_u32.to_ne_bytes());
    message.extend_from_slice(&NLMSG_DONE.to_ne_bytes());
    message.extend_from_slice(&[0; 10]);
    message.extend_from_slice(&CN_IDX_PROC.to_ne_bytes());
    message.extend_from_slice(&CN_VAL_PROC.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&4_u16.to_ne_bytes());
    message.extend_from_slice(&[0; 2]);
    message.extend_from_slice(&PROC_CN_MCAST_LISTEN.to_ne_bytes());
    message
}

/// `struct proc_event` behind `struct cn_msg`.
fn parse(body: &[u8]) -> Option<ProcessEvent> {
    if u32_at(body, 0)? != CN_IDX_PROC {
        return None;
    }
    let event = body.get(CN_MSG..)?;
    let field = |index: usize| u32_at(event, 16 + 4 * index);
    let (pid, process) = (field(0)?, field(1)?);
    Some(match u32_at(event, 0)? {
        PROC_EVENT_FORK if field(2)? == field(3)? => ProcessEvent::Fork { parent: process, child: field(3)? },
        PROC_EVENT_EXEC => ProcessEvent::Exec { pid: process },
        PROC_EVENT_UID | PROC_EVENT_GID => ProcessEvent::Identity { pid: process },
        PROC_EVENT_EXIT if pid == process => ProcessEvent::Exit { pid },
        _ => return None,
    })
}

const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const CN_MSG: usize = 20;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const PROC_EVENT_FORK: u32 = 0x1;
const PROC_EVENT_EXEC: u32 = 0x2;
const PROC_EVENT_UID: u32 = 0x4;
const PROC_EVENT_GID: u32 = 0x40;
const PROC_EVENT_EXIT: u32 = 0x8000_0000;

/// What waits to be read: some ten thousand events.
const QUEUE: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: u32, fields: &[u32]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&CN_IDX_PROC.to_ne_bytes());
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(&what.to_ne_bytes());
        body.extend_from_slice(&[0; 12]);
        fields.iter().for_each(|field| body.extend_from_slice(&field.to_ne_bytes()));
        body
    }

    #[test]
    fn processes_are_told_from_threads() {
        assert_eq!(parse(&event(PROC_EVENT_FORK, &[5, 5, 9, 9])), Some(ProcessEvent::Fork { parent: 5, child: 9 }));
        assert_eq!(parse(&event(PROC_EVENT_FORK, &[5, 5, 9, 5])), None);
        assert_eq!(parse(&event(PROC_EVENT_EXEC, &[6, 5])), Some(ProcessEvent::Exec { pid: 5 }));
        assert_eq!(parse(&event(PROC_EVENT_UID, &[5, 5, 0, 0])), Some(ProcessEvent::Identity { pid: 5 }));
        assert_eq!(parse(&event(PROC_EVENT_EXIT, &[5, 5, 0, 17])), Some(ProcessEvent::Exit { pid: 5 }));
        assert_eq!(parse(&event(PROC_EVENT_EXIT, &[6, 5, 0, 17])), None);
        assert_eq!(parse(&event(PROC_EVENT_EXEC, &[6])), None);
        assert_eq!(parse(&[]), None);
    }
}
