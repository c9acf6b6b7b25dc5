//! The addresses of a network namespace (rtnetlink(7)).

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::packet::Address;
use crate::resolve::sock_diag::{Messages, NLMSG_DONE, NLMSG_ERROR, attributes, receive};

/// Questions for the addresses of one network namespace.
#[derive(Debug)]
pub(super) struct Addresses {
    netlink: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Addresses {
    /// For the namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Errno> {
        // Protocol 0 is NETLINK_ROUTE.
        let netlink = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&netlink, Timeout::Recv, Some(Duration::from_secs(1)))?;
        Ok(Self { netlink, sequence: 0, buffer: Vec::new() })
    }

    /// All of them, on every interface.
    pub(super) fn list(&mut self) -> Result<Vec<Address>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        rustix::net::send(&self.netlink, &request(self.sequence), SendFlags::empty())?;
        let mut addresses = Vec::new();
        loop {
            receive(&self.netlink, &mut self.buffer)?;
            for message in Messages(&self.buffer).filter(|message| message.sequence == self.sequence) {
                match message.kind {
                    NLMSG_DONE => return Ok(addresses),
                    NLMSG_ERROR => return message.error().map(|()| addresses),
                    RTM_NEWADDR => addresses.extend(parse(message.body)),
                    _ => {}
                }
            }
        }
    }
}

fn request(sequence: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(24);
    message.extend_from_slice(&24_u32.to_ne_bytes());
    message.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&[0; 12]);
    message
}

/// `struct ifaddrmsg` and its attributes; on a point-to-point link
/// `IFA_ADDRESS` is the other end and `IFA_LOCAL` this one.
fn parse(body: &[u8]) -> Option<Address> {
    let all = || attributes(body.get(8..).unwrap_or_default());
    let of_kind = |wanted| all().find_map(|(kind, value)| (kind == wanted).then_some(value));
    let value = of_kind(IFA_LOCAL).or_else(|| of_kind(IFA_ADDRESS))?;
    match value.len() {
        4 => Some(Address::from_v4(value.try_into().ok()?)),
        16 => Some(Address::from_v6(value.try_into().ok()?)),
        _ => None,
    }
}

const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_addresses() {
        let addresses = Addresses::open().unwrap().list().unwrap();
        assert!(addresses.contains(&Address::from_v4([127, 0, 0, 1])), "{addresses:?}");
    }

    #[test]
    fn the_own_end_of_a_link_is_taken() {
        let body = [2, 32, 0, 0, 5, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 2, 8, 0, 2, 0, 10, 0, 0, 1];
        assert_eq!(parse(&body), Some(Address::from_v4([10, 0, 0, 1])));
        assert_eq!(parse(&body[..16]), Some(Address::from_v4([10, 0, 0, 2])));
        assert_eq!(parse(&body[..5]), None);
    }
}
