//! A socket as the kernel's tables show it.

use crate::packet::{Endpoint, Protocol};

/// One entry of a socket table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    /// The IP protocol; for a raw socket the one that it was opened for.
    pub protocol: Protocol,
    /// This host's end; an IPv4 address even on an IPv6 socket.
    pub local: Endpoint,
    /// The other end; unspecified where the socket is not connected.
    pub remote: Endpoint,
    /// The state by TCP's numbers.
    pub state: u8,
    /// Who opened it.
    pub uid: u32,
    /// What `/proc/PID/fd` calls it; 0 when no process holds it.
    pub inode: u64,
    /// The network namespace it belongs to.
    pub namespace: u32,
}

impl Socket {
    /// A TCP socket that waits for connections.
    pub(super) const LISTEN: u8 = 10;

    /// Whether it has a peer.
    pub(super) fn is_connected(&self) -> bool {
        !self.remote.address.is_unspecified()
    }

    /// Whether packets between these ends can be this socket's.
    pub(super) fn carries(&self, local: Endpoint, remote: Endpoint) -> bool {
        let fits = |own: Endpoint, packet: Endpoint| {
            let same_address = own.address == packet.address || own.address.is_unspecified();
            same_address && (own.port == packet.port || own.port == 0)
        };
        // `0.0.0.0` is for IPv4 alone, `::` for both.
        let family = !self.local.address.is_unspecified() || !self.local.address.is_v4() || local.address.is_v4();
        family && fits(self.local, local) && fits(self.remote, remote)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn end(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn wildcards_fit_what_the_kernel_would_give_them() {
        let socket = |local: &str, remote: &str| Socket {
            protocol: Protocol::UDP,
            local: end(local),
            remote: end(remote),
            state: 7,
            uid: 0,
            inode: 1,
            namespace: 1,
        };
        let (local, remote) = (end("10.0.0.5:53"), end("198.51.100.1:4000"));
        assert!(socket("0.0.0.0:53", "0.0.0.0:0").carries(local, remote));
        assert!(socket("[::]:53", "[::]:0").carries(local, remote));
        assert!(socket("10.0.0.5:53", "198.51.100.1:4000").carries(local, remote));
        assert!(!socket("10.0.0.5:53", "198.51.100.1:4001").carries(local, remote));
        assert!(!socket("10.0.0.6:53", "0.0.0.0:0").carries(local, remote));
        assert!(!socket("0.0.0.0:53", "0.0.0.0:0").carries(end("[2001:db8::1]:53"), end("[2001:db8::2]:9")));
        assert!(socket("[::]:53", "[::]:0").carries(end("[2001:db8::1]:53"), end("[2001:db8::2]:9")));
    }
}
