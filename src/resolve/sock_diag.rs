//! The kernel's socket tables over netlink (sock_diag(7)).
//!
//! One question for one five-tuple costs about a microsecond, whatever the
//! number of sockets; reading `/proc/net/tcp` costs milliseconds. A netlink
//! socket speaks for the network namespace in which it was opened.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::packet::{Address, Endpoint, Protocol};
use crate::resolve::socket::Socket;

/// Questions to the socket tables of one network namespace.
#[derive(Debug)]
pub(super) struct SockDiag {
    netlink: OwnedFd,
    namespace: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Hears of every TCP and UDP socket of one network namespace that ends.
#[derive(Debug)]
pub(super) struct DestroyedSockets {
    netlink: OwnedFd,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// For the namespace of the calling thread, which is number `namespace`.
    pub(super) fn open(namespace: u32) -> Result<Self, Errno> {
        let netlink = open_netlink(SocketFlags::CLOEXEC)?;
        // The kernel answers within the call; this only keeps a surprise from blocking for ever.
        sockopt::set_socket_timeout(&netlink, Timeout::Recv, Some(Duration::from_secs(1)))?;
        Ok(Self { netlink, namespace, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// The socket that the kernel would give a packet between these two ends:
    /// the connected one, else one bound to the port or listening on it.
    pub(super) fn find(
        &mut self,
        protocol: Protocol,
        local: Endpoint,
        remote: Endpoint,
    ) -> Result<Option<Socket>, Errno> {
        let family = if local.address.is_v4() && remote.address.is_v4() { AF_INET } else { AF_INET6 };
        // For UDP the kernel takes the question as a packet that arrives: its source is the remote end.
        let (source, destination) = if is_udp(protocol) { (remote, local) } else { (local, remote) };
        let mut found = None;
        let answer = self.ask(
            &Question { family, protocol, flags: NLM_F_REQUEST, states: ALL_STATES, source, destination },
            |socket| {
                found = Some(socket);
            },
        );
        match answer {
            Ok(()) => Ok(found),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every socket of a protocol in one of the states, of both families.
    pub(super) fn list(
        &mut self,
        protocol: Protocol,
        states: States,
        port: u16,
        mut found: impl FnMut(Socket),
    ) -> Result<(), Errno> {
        let source = Endpoint::new(Address::default(), port);
        for family in [AF_INET, AF_INET6] {
            let states = match states {
                States::Held => ALL_STATES & !(1 << TIME_WAIT),
                States::Listening => 1 << Socket::LISTEN,
            };
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            let question = Question { family, protocol, flags, states, source, destination: Endpoint::default() };
            self.ask(&question, &mut found)?;
        }
        Ok(())
    }

    fn ask(&mut self, question: &Question, mut found: impl FnMut(Socket)) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        rustix::net::send(&self.netlink, &question.encode(self.sequence), SendFlags::empty())?;
        loop {
            receive(&self.netlink, &mut self.buffer)?;
            for message in Messages(&self.buffer) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return message.error(),
                    SOCK_DIAG_BY_FAMILY => {
                        if let Some(socket) = parse_socket(message.body, question.protocol, self.namespace) {
                            found(socket);
                        }
                        if question.flags & NLM_F_DUMP == 0 {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

impl DestroyedSockets {
    /// For the namespace of the calling thread. Needs CAP_NET_ADMIN.
    pub(super) fn open() -> Result<Self, Errno> {
        let netlink = open_netlink(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        rustix::net::bind(&netlink, &SocketAddrNetlink::new(0, DESTROY_GROUPS))?;
        // A burst of short connections must not push the news of its end out of the queue.
        sockopt::set_socket_recv_buffer_size_force(&netlink, DESTROY_BUFFER)?;
        Ok(Self { netlink, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// Takes what has ended since the last call: protocol, local and remote end.
    pub(super) fn drain(&mut self, mut found: impl FnMut(Protocol, Endpoint, Endpoint)) -> Result<(), Errno> {
        loop {
            match receive(&self.netlink, &mut self.buffer) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
            for message in Messages(&self.buffer) {
                let protocol = attributes(message.body.get(DIAG_MESSAGE..).unwrap_or_default())
                    .find_map(|(kind, value)| (kind == INET_DIAG_PROTOCOL).then(|| value.first().copied())?);
                if let (Some(protocol), Some(socket)) = (protocol, parse_socket(message.body, Protocol::default(), 0)) {
                    found(Protocol(protocol), socket.local, socket.remote);
                }
            }
        }
    }
}

/// Which sockets a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum States {
    /// All but those that only wait for stray packets.
    Held,
    /// Those that wait for connections.
    Listening,
}

/// Whether sock_diag knows sockets of this protocol by their ports.
pub(super) fn knows(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::DCCP) || is_udp(protocol)
}

/// Whether a socket of this protocol can be bound and not connected.
pub(super) fn is_udp(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::UDP | Protocol::UDP_LITE)
}

fn open_netlink(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))
}

/// Replaces the buffer's content by one datagram, which may hold several messages.
pub(super) fn receive(netlink: impl AsFd, buffer: &mut Vec<u8>) -> Result<(), Errno> {
    buffer.clear();
    buffer.reserve(RECEIVE_BUFFER);
    loop {
        match rustix::net::recv(&netlink, rustix::buffer::spare_capacity(buffer), RecvFlags::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A request of `struct inet_diag_req_v2` behind its netlink header.
struct Question {
    family: u8,
    protocol: Protocol,
    flags: u16,
    states: u32,
    source: Endpoint,
    destination: Endpoint,
}

impl Question {
    fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut message = Vec::with_capacity(72);
        message.extend_from_slice(&72_u32.to_ne_bytes());
        message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend_from_slice(&self.flags.to_ne_bytes());
        message.extend_from_slice(&sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&[self.family, self.protocol.0, 0, 0]);
        message.extend_from_slice(&self.states.to_ne_bytes());
        message.extend_from_slice(&self.source.port.to_be_bytes());
        message.extend_from_slice(&self.destination.port.to_be_bytes());
        message.extend_from_slice(&self.address(self.source.address));
        message.extend_from_slice(&self.address(self.destination.address));
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&[0xff; 8]);
        message
    }

    fn address(&self, address: Address) -> [u8; 16] {
        match address.octets() {
            [.., a, b, c, d] if self.family == AF_INET && address.is_v4() => {
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            octets => octets,
        }
    }
}

/// The messages of one datagram.
pub(super) struct Messages<'a>(pub &'a [u8]);

/// A netlink message.
pub(super) struct Message<'a> {
    pub kind: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let message = self.0.get(..length).filter(|message| message.len() >= NETLINK_HEADER)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind: u16_at(message, 4)?, sequence: u32_at(message, 8)?, body: message.get(NETLINK_HEADER..)? })
    }
}

impl Message<'_> {
    /// What an error message says; number 0 is an acknowledgement.
    pub(super) fn error(&self) -> Result<(), Errno> {
        match u32_at(self.body, 0).map(u32::cast_signed) {
            Some(0) => Ok(()),
            Some(number) => Err(Errno::from_raw_os_error(number.saturating_neg())),
            None => Err(Errno::BADMSG),
        }
    }
}

/// `struct inet_diag_msg`.
fn parse_socket(body: &[u8], protocol: Protocol, namespace: u32) -> Option<Socket> {
    let body = body.first_chunk::<DIAG_MESSAGE>()?;
    let family = *body.first()?;
    let endpoint = |port: usize, address: usize| {
        let octets: [u8; 16] = body.get(address..address + 16)?.try_into().ok()?;
        let [a, b, c, d, ..] = octets;
        let address = if family == AF_INET { Address::from_v4([a, b, c, d]) } else { Address::from_v6(octets) };
        let port = u16::from_be_bytes(body.get(port..port + 2)?.try_into().ok()?);
        Some(Endpoint::new(address, port))
    };
    Some(Socket {
        protocol,
        local: endpoint(4, 8)?,
        remote: endpoint(6, 24)?,
        state: *body.get(1)?,
        uid: u32_at(body, 64)?,
        inode: u32_at(body, 68)?.into(),
        namespace,
    })
}

/// Type and value of each netlink attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl AsFd for DestroyedSockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

pub(super) const NETLINK_HEADER: usize = 16;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const DIAG_MESSAGE: usize = 72;
const INET_DIAG_PROTOCOL: u16 = 12;
const ALL_STATES: u32 = 0xffff;
const TIME_WAIT: u8 = 6;

/// Groups 1 to 4 of `enum sknetlink_groups`: TCP and UDP of both families.
const DESTROY_GROUPS: u32 = 0b1111;

/// The most that the kernel puts in one datagram of a dump is 32 kB.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// What waits to be read of sockets that ended.
const DESTROY_BUFFER: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::*;

    fn diag() -> SockDiag {
        SockDiag::open(1).unwrap()
    }

    fn inode(socket: &impl AsRawFd) -> u64 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        link.to_string_lossy().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
    }

    #[test]
    fn a_tcp_connection_is_found_by_its_ends() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            // A socket for both families: IPv4 comes in on it in mapped form.
            let to = if address.starts_with("[::1]") { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") };
            let client = TcpStream::connect(to).unwrap();
            let (server, _) = listener.accept().unwrap();
            for stream in [&client, &server] {
                let (local, remote) = (stream.local_addr().unwrap().into(), stream.peer_addr().unwrap().into());
                let found = diag().find(Protocol::TCP, local, remote).unwrap().unwrap();
                assert_eq!((found.inode, found.local, found.remote), (inode(stream), local, remote), "{address}");
            }
            let (local, stranger) =
                (client.peer_addr().unwrap().into(), "127.0.0.1:1".parse::<std::net::SocketAddr>().unwrap());
            if address != "[::1]:0" {
                let found = diag().find(Protocol::TCP, local, stranger.into()).unwrap().unwrap();
                assert_eq!((found.inode, found.state), (inode(&listener), Socket::LISTEN), "{address}");
            }
        }
    }

    #[test]
    fn udp_is_found_connected_and_by_its_port() {
        let remote = "127.0.0.9:9".parse::<std::net::SocketAddr>().unwrap();
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let socket = UdpSocket::bind(bound).unwrap();
            let port = socket.local_addr().unwrap().port();
            let local = format!("127.0.0.1:{port}").parse::<std::net::SocketAddr>().unwrap();
            let found = diag().find(Protocol::UDP, local.into(), remote.into()).unwrap().unwrap();
            assert_eq!((found.inode, found.is_connected()), (inode(&socket), false), "{bound}");
            assert!(found.carries(local.into(), remote.into()), "{bound}: {found:?}");
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(remote).unwrap();
        let found = diag().find(Protocol::UDP, socket.local_addr().unwrap().into(), remote.into()).unwrap().unwrap();
        assert_eq!((found.inode, found.is_connected()), (inode(&socket), true));
    }

    #[test]
    fn a_list_has_every_socket_and_a_port_narrows_it() {
        let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        let mut inodes = Vec::new();
        diag().list(Protocol::UDP, States::Held, 0, |socket| inodes.push(socket.inode)).unwrap();
        assert!(inodes.contains(&inode(&one)) && inodes.contains(&inode(&other)));
        inodes.clear();
        let port = one.local_addr().unwrap().port();
        diag().list(Protocol::UDP, States::Held, port, |socket| inodes.push(socket.inode)).unwrap();
        assert_eq!(inodes.first(), Some(&inode(&one)));
        assert!(!inodes.contains(&inode(&other)) || other.local_addr().unwrap().port() == port);
    }

    #[test]
    fn nobodys_ends_find_nothing() {
        let end = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().into();
        let found = diag().find(Protocol::TCP, end("192.0.2.1:1"), end("192.0.2.2:2")).unwrap();
        assert_eq!(found, None);
    }

    #[test]
    fn damaged_messages_end_the_list() {
        assert!(Messages(&[1, 2, 3]).next().is_none());
        assert!(Messages(&[8, 0, 0, 0, 0, 0, 0, 0]).next().is_none());
        assert!(Messages(&[255, 0, 0, 0, 0, 0, 0, 0]).next().is_none());
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(parse_socket(&[0; 71], Protocol::TCP, 0), None);
    }
}
