//! The lenient readers of names: DNS, TLS, QUIC and HTTP.
#![no_main]

use egret::names::{dns, http, quic, tls};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(message) = dns::Message::read(bytes) {
        let _ = message.bound_addresses();
    }
    let _ = tls::read_records(bytes);
    let _ = tls::read_handshake(bytes);
    let _ = http::read_request(bytes);
    let mut initial = quic::Opener::default();
    for datagram in bytes.chunks(bytes.len() / 2 + 1) {
        let _ = initial.read(datagram);
    }
});
