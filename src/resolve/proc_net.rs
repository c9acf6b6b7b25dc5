//! The socket tables as text, `/proc/PID/net/*`, for what sock_diag does not tell.
//!
//! Raw, ping, packet and SCTP sockets; on a kernel or with rights that refuse
//! sock_diag, TCP and UDP too. A table that cannot be understood is empty.

use bstr::ByteSlice;

use crate::packet::{Address, Endpoint, Protocol};
use crate::resolve::socket::Socket;

/// A packet socket (packet(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PacketSocket {
    /// The Ethernet type that it receives; 0 for one that only sends.
    pub ether_type: u16,
    /// What `/proc/PID/fd` calls it.
    pub inode: u64,
}

/// `tcp`, `tcp6`, `udp`, `udp6`, `udplite`, `udplite6`, `raw`, `raw6`, `icmp`, `icmp6`.
///
/// In `raw` and `raw6` the local port is the protocol, in `icmp` and `icmp6`
/// the identifier of the echo.
pub(super) fn parse_inet(table: &[u8], protocol: Protocol, namespace: u32) -> impl Iterator<Item = Socket> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.fields();
        let local = parse_endpoint(fields.nth(1)?)?;
        let remote = parse_endpoint(fields.next()?)?;
        let state = u8::try_from(parse_hexadecimal(fields.next()?)?).ok()?;
        let uid = parse_decimal(fields.nth(3)?)?;
        let inode = parse_decimal(fields.nth(1)?)?;
        Some(Socket { protocol, local, remote, state, uid: u32::try_from(uid).ok()?, inode, namespace })
    })
}

/// `packet`.
pub(super) fn parse_packet(table: &[u8]) -> impl Iterator<Item = PacketSocket> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.fields();
        let ether_type = u16::try_from(parse_hexadecimal(fields.nth(3)?)?).ok()?;
        let inode = parse_decimal(fields.nth(4)?)?;
        Some(PacketSocket { ether_type, inode })
    })
}

/// `sctp/assocs`: one entry for each pair of addresses.
pub(super) fn parse_sctp(table: &[u8], namespace: u32) -> Vec<Socket> {
    table.lines().skip(1).filter_map(|line| parse_association(line, namespace)).flatten().collect()
}

/// The addresses of `fib_trie` and `if_inet6`.
pub(super) fn parse_addresses(fib_trie: &[u8], if_inet6: &[u8]) -> Vec<Address> {
    let mut addresses = Vec::new();
    let mut leaf = None;
    for line in fib_trie.lines().map(|line| line.trim()) {
        if let Some(address) = line.strip_prefix(b"|-- ") {
            leaf = address.to_str().ok().and_then(|text| text.parse::<std::net::IpAddr>().ok());
        } else if line == b"/32 host LOCAL" {
            addresses.extend(leaf.take().map(Address::from));
        }
    }
    for line in if_inet6.lines() {
        let Some(digits) = line.fields().next().filter(|digits| digits.len() == 32) else { continue };
        let octets = digits.to_str().ok().and_then(|digits| u128::from_str_radix(digits, 16).ok());
        addresses.extend(octets.map(|octets| Address::from_v6(octets.to_be_bytes())));
    }
    addresses.dedup();
    addresses
}

fn parse_association(line: &[u8], namespace: u32) -> Option<Vec<Socket>> {
    let mut fields = line.fields().skip(9);
    let uid = u32::try_from(parse_decimal(fields.next()?)?).ok()?;
    let inode = parse_decimal(fields.next()?)?;
    let local_port = u16::try_from(parse_decimal(fields.next()?)?).ok()?;
    let remote_port = u16::try_from(parse_decimal(fields.next()?)?).ok()?;
    // The primary address has a star before it.
    let address = |field: &[u8]| field.trim_start_with(|c| c == '*').to_str().ok()?.parse::<std::net::IpAddr>().ok();
    let locals: Vec<Address> =
        fields.by_ref().take_while(|field| *field != b"<->").filter_map(address).map(Address::from).collect();
    let remotes: Vec<Address> = fields.map_while(address).map(Address::from).collect();
    let pairs = locals.iter().flat_map(|local| remotes.iter().map(move |remote| (*local, *remote)));
    let socket = |(local, remote)| Socket {
        protocol: Protocol::SCTP,
        local: Endpoint::new(local, local_port),
        remote: Endpoint::new(remote, remote_port),
        state: 1,
        uid,
        inode,
        namespace,
    };
    Some(pairs.map(socket).collect())
}

/// `0100007F:0016`: words in the machine's byte order, the port as a number.
fn parse_endpoint(field: &[u8]) -> Option<Endpoint> {
    let (address, port) = field.split_once_str(":")?;
    let port = u16::try_from(parse_hexadecimal(port)?).ok()?;
    let mut words = [[0_u8; 4]; 4];
    let digits = address.chunks_exact(8);
    if !digits.remainder().is_empty() || !matches!(digits.len(), 1 | 4) {
        return None;
    }
    for (word, digits) in words.iter_mut().zip(address.chunks_exact(8)) {
        *word = u32::try_from(parse_hexadecimal(digits)?).ok()?.to_ne_bytes();
    }
    let address = match address.len() {
        8 => Address::from_v4(words[0]),
        _ => Address::from_v6(words.concat().try_into().ok()?),
    };
    Some(Endpoint::new(address, port))
}

fn parse_hexadecimal(field: &[u8]) -> Option<u64> {
    u64::from_str_radix(field.to_str().ok()?, 16).ok()
}

fn parse_decimal(field: &[u8]) -> Option<u64> {
    field.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(socket: &Socket) -> (String, String) {
        (socket.local.to_string(), socket.remote.to_string())
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn inet_tables_of_both_families_are_read() {
        let table = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1: 0500000A:0001 076433C6:0000 07 00000000:00000000 00:00000000 00000000  1000        0 3311 2 0000000000000000 0\n\
            rubbish\n\
            0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3312 1 0000000000000000 100 0 0 10 0\n";
        let sockets: Vec<Socket> = parse_inet(table, Protocol::ICMP, 4).collect();
        assert_eq!(sockets.len(), 2);
        assert_eq!(ends(&sockets[0]), ("10.0.0.5:1".into(), "198.51.100.7:0".into()));
        assert_eq!((sockets[0].uid, sockets[0].inode, sockets[0].namespace, sockets[0].state), (1000, 3311, 4, 7));
        assert_eq!((sockets[1].inode, sockets[1].state), (3312, Socket::LISTEN));

        let table = b"head\n 0: B80D0120000000000000000001000000:0035 0000000000000000FFFF00000100007F:1F90 01 0:0 0:0 0 33 0 9 1 0\n";
        let sockets: Vec<Socket> = parse_inet(table, Protocol::UDP, 0).collect();
        assert_eq!(ends(&sockets[0]), ("[2001:db8::1]:53".into(), "127.0.0.1:8080".into()));
    }

    #[test]
    fn addresses_are_read() {
        let fib_trie = b"Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n";
        let if_inet6 = b"20010db8000000000000000000000005 02 40 00 80     eth0\nshort 1\n";
        let addresses: Vec<String> = parse_addresses(fib_trie, if_inet6).iter().map(Address::to_string).collect();
        assert_eq!(addresses, ["10.0.0.5", "2001:db8::5"]);
    }

    #[test]
    fn packet_sockets_are_read() {
        let table = b"sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
            0000000000000000 3      3    0003   2     1 0      0      26331\n\
            0000000000000000 3      2    0000   0     1 0      1000   26332\n";
        let sockets: Vec<_> = parse_packet(table).map(|socket| (socket.ether_type, socket.inode)).collect();
        assert_eq!(sockets, [(3, 26331), (0, 26332)]);
    }

    #[test]
    fn associations_have_every_pair_of_addresses() {
        let table = b" ASSOC     SOCK   STY SST ST HBKT ASSOC-ID TX_QUEUE RX_QUEUE UID INODE LPORT RPORT LADDRS <-> RADDRS HBINT INS OUTS MAXRT T1X T2X RTXC wmema wmemq sndbuf rcvbuf\n\
            ffff8800 ffff8801 2   1   3  0       5        0        0    1000 88123 5001   36412  *10.0.0.5 2001:db8::5 <-> *198.51.100.1 198.51.100.2 \t    7500    10    10   10    0    0        0        1        0   212992   212992\n";
        let sockets = parse_sctp(table, 0);
        assert_eq!(sockets.len(), 4);
        assert_eq!(ends(&sockets[0]), ("10.0.0.5:5001".into(), "198.51.100.1:36412".into()));
        assert_eq!(ends(&sockets[3]), ("[2001:db8::5]:5001".into(), "198.51.100.2:36412".into()));
        assert!(sockets.iter().all(|socket| (socket.uid, socket.inode) == (1000, 88123)));
    }
}
