//! The kernel's table of translated connections (ctnetlink).
//!
//! A container's packets leave the host with the host's address; the table
//! knows which of its own addresses the container sent from.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::packet::{Address, Endpoint, Protocol};
use crate::resolve::sock_diag::{Messages, NLMSG_ERROR, attributes, receive};

/// Questions to the table of one network namespace.
#[derive(Debug)]
pub(super) struct Conntrack {
    netlink: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Both ends of one direction.
type Ends = (Endpoint, Endpoint);

impl Conntrack {
    /// For the namespace of the calling thread. Needs CAP_NET_ADMIN.
    pub(super) fn open() -> Result<Self, Errno> {
        let netlink = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        sockopt::set_socket_timeout(&netlink, Timeout::Recv, Some(Duration::from_secs(1)))?;
        Ok(Self { netlink, sequence: 0, buffer: Vec::new() })
    }

    /// The ends before translation of what is seen between these ends: the
    /// inner one and its peer. `None` where nothing is translated.
    pub(super) fn inner(
        &mut self,
        protocol: Protocol,
        local: Endpoint,
        remote: Endpoint,
    ) -> Result<Option<Ends>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        // An entry is found by either of its directions: this is the one from outside.
        rustix::net::send(&self.netlink, &request(self.sequence, protocol, remote, local), SendFlags::empty())?;
        loop {
            receive(&self.netlink, &mut self.buffer)?;
            if let Some(message) = Messages(&self.buffer).find(|message| message.sequence == self.sequence) {
                if message.kind == NLMSG_ERROR {
                    return match message.error() {
                        Err(Errno::NOENT) | Ok(()) => Ok(None),
                        Err(error) => Err(error),
                    };
                }
                return Ok(parse(message.body).and_then(|(original, reply)| inner_ends(original, reply, local, remote)));
            }
        }
    }
}

/// Of the two directions, each as its sender sees it, the inner end and its peer.
fn inner_ends(original: Ends, reply: Ends, local: Endpoint, remote: Endpoint) -> Option<Ends> {
    // Opened from outside: whoever replies is inside. Else whoever opened it.
    let inner = if original == (remote, local) { reply } else { original };
    (inner.0 != local).then_some(inner)
}

fn request(sequence: u32, protocol: Protocol, source: Endpoint, destination: Endpoint) -> Vec<u8> {
    let (family, addresses) = match (source.address.ip(), destination.address.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (AF_INET, [attribute(1, &from.octets()), attribute(2, &to.octets())]),
        _ => {
            let [from, to] = [source.address.octets(), destination.address.octets()];
            (AF_INET6, [attribute(3, &from), attribute(4, &to)])
        }
    };
    let ports = [
        attribute(1, &[protocol.0]),
        attribute(2, &source.port.to_be_bytes()),
        attribute(3, &destination.port.to_be_bytes()),
    ];
    let tuple =
        [attribute(CTA_TUPLE_IP | NESTED, &addresses.concat()), attribute(CTA_TUPLE_PROTO | NESTED, &ports.concat())];
    let tuple = attribute(CTA_TUPLE_ORIG | NESTED, &tuple.concat());
    let length = u32::try_from(20 + tuple.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(20 + tuple.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&CT_GET.to_ne_bytes());
    message.extend_from_slice(&1_u16.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&[family, 0, 0, 0]);
    message.extend_from_slice(&tuple);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    attribute.extend_from_slice(&u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    attribute.extend_from_slice(&kind.to_ne_bytes());
    attribute.extend_from_slice(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Both directions of an entry.
fn parse(body: &[u8]) -> Option<(Ends, Ends)> {
    let (mut original, mut reply) = (None, None);
    for (kind, value) in attributes(body.get(4..)?) {
        match kind & !NESTED {
            CTA_TUPLE_ORIG => original = parse_tuple(value),
            CTA_TUPLE_REPLY => reply = parse_tuple(value),
            _ => {}
        }
    }
    Some((original?, reply?))
}

fn parse_tuple(tuple: &[u8]) -> Option<Ends> {
    let (mut source, mut destination) = (Endpoint::default(), Endpoint::default());
    for (kind, value) in attributes(tuple) {
        for (inner, value) in attributes(value) {
            match (kind & !NESTED, inner & !NESTED) {
                (CTA_TUPLE_IP, 1 | 3) => source.address = parse_address(value)?,
                (CTA_TUPLE_IP, 2 | 4) => destination.address = parse_address(value)?,
                (CTA_TUPLE_PROTO, 2) => source.port = u16::from_be_bytes(value.try_into().ok()?),
                (CTA_TUPLE_PROTO, 3) => destination.port = u16::from_be_bytes(value.try_into().ok()?),
                _ => {}
            }
        }
    }
    Some((source, destination))
}

fn parse_address(value: &[u8]) -> Option<Address> {
    match value.len() {
        4 => Some(Address::from_v4(value.try_into().ok()?)),
        _ => Some(Address::from_v6(value.try_into().ok()?)),
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`.
const CT_GET: u16 = 0x0101;
const NESTED: u16 = 0x8000;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn end(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn the_inner_end_is_found_from_either_side() {
        let (container, host, server) = (end("172.17.0.2:4000"), end("192.0.2.1:4000"), end("198.51.100.1:443"));
        // The container opened it, and its address was masked.
        let found = inner_ends((container, server), (server, host), host, server);
        assert_eq!(found, Some((container, server)));
        // It was opened from outside to a published port.
        let (published, client, inside) = (end("192.0.2.1:8080"), end("198.51.100.9:5000"), end("172.17.0.2:80"));
        let found = inner_ends((client, published), (inside, client), published, client);
        assert_eq!(found, Some((inside, client)));
        // Nothing is translated.
        assert_eq!(inner_ends((host, server), (server, host), host, server), None);
    }

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        for (one, other) in [("192.0.2.1:4000", "198.51.100.1:443"), ("[2001:db8::1]:1", "[2001:db8::2]:2")] {
            let message = request(7, Protocol::TCP, end(one), end(other));
            assert_eq!(message.len() % 4, 0);
            let (_, tuple) = attributes(&message[20..]).next().unwrap();
            assert_eq!(parse_tuple(tuple), Some((end(one), end(other))));
        }
        assert_eq!(parse(&[0; 3]), None);
        assert_eq!(parse(&[0; 40]), None);
    }
}
