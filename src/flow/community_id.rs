//! Community ID: the same name for a flow in Zeek, Suricata, Wireshark and here (version 1, seed 0).

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::flow::FlowKey;
use crate::packet::Protocol;

/// The id of a flow; `None` for ICMP, whose types and codes make the id and are not kept.
pub fn community_id(key: &FlowKey) -> Option<String> {
    if matches!(key.protocol, Protocol::ICMP | Protocol::ICMPV6) {
        return None;
    }
    let end = |address: IpAddr, port: u16| match address {
        IpAddr::V4(address) => (address.octets().to_vec(), port),
        IpAddr::V6(address) => (address.octets().to_vec(), port),
    };
    let one = end(key.local.address.ip(), key.local.port);
    let other = end(key.remote.address.ip(), key.remote.port);
    let (small, large) = if one <= other { (one, other) } else { (other, one) };
    let mut content = vec![0, 0];
    content.extend_from_slice(&small.0);
    content.extend_from_slice(&large.0);
    content.extend_from_slice(&[key.protocol.0, 0]);
    if matches!(key.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP) {
        content.extend_from_slice(&small.1.to_be_bytes());
        content.extend_from_slice(&large.1.to_be_bytes());
    }
    // The id asks for this hash; nothing is proved by it.
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &content);
    Some(format!("1:{}", STANDARD.encode(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Address, Endpoint};

    #[test]
    fn ids_are_those_of_the_specification() {
        let key = |protocol, local: [u8; 4], local_port, remote: [u8; 4], remote_port| FlowKey {
            protocol,
            local: Endpoint::new(Address::from_v4(local), local_port),
            remote: Endpoint::new(Address::from_v4(remote), remote_port),
            ..FlowKey::default()
        };
        let tcp = key(Protocol::TCP, [128, 232, 110, 120], 34_855, [66, 35, 250, 204], 80);
        assert_eq!(community_id(&tcp).unwrap(), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(community_id(&tcp.reversed()), community_id(&tcp), "both ends call it the same");
        let udp = key(Protocol::UDP, [192, 168, 1, 52], 54_585, [8, 8, 8, 8], 53);
        assert_eq!(community_id(&udp).unwrap(), "1:d/FP5EW3wiY1vCndhwleRRKHowQ=");
        assert_eq!(community_id(&key(Protocol::ICMP, [10, 0, 0, 1], 0, [10, 0, 0, 2], 0)), None);
    }
}
