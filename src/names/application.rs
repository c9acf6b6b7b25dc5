//! What a payload at the start of a flow says is spoken.

use crate::names::{Application, http, quic, tls};
use crate::packet::Protocol;

/// The ports that help where bytes alone do not tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// Of the end that opened the flow.
    pub(super) initiator: u16,
    /// Of the end that answers.
    pub(super) responder: u16,
}

/// What the payload is the start of; [`Application::Unknown`] where it could be anything.
pub(super) fn recognise(protocol: Protocol, ports: Ports, payload: &[u8]) -> Application {
    match protocol {
        Protocol::TCP => over_tcp(ports.responder, payload),
        Protocol::UDP => over_udp(ports, payload),
        _ => Application::Unknown,
    }
}

fn over_tcp(port: u16, payload: &[u8]) -> Application {
    if tls::is_record(payload) {
        return Application::Tls;
    }
    if http::begins(payload) {
        return Application::Http;
    }
    if payload.starts_with(b"SSH-") {
        return Application::Ssh;
    }
    if payload.starts_with(b"EHLO ") || payload.starts_with(b"HELO ") {
        return Application::Smtp;
    }
    // Mail and file servers greet in the same way (RFC 5321, section 4.2; RFC 959, section 4.2).
    let greets = payload.starts_with(b"220 ") || payload.starts_with(b"220-");
    match port {
        25 | 465 | 587 | 2525 if greets => Application::Smtp,
        21 if greets => Application::Ftp,
        _ if greets && contains(payload, b"SMTP") => Application::Smtp,
        _ if greets && contains(payload, b"FTP") => Application::Ftp,
        _ if payload.starts_with(b"\x13BitTorrent protocol") => Application::Other,
        _ => Application::Unknown,
    }
}

fn over_udp(ports: Ports, payload: &[u8]) -> Application {
    if quic::begins(payload) {
        return Application::Quic;
    }
    // Versions 1 to 4 of a message of full length (RFC 5905, section 7.3).
    let is_time = payload.len() >= 48 && payload.first().is_some_and(|first| matches!(first >> 3 & 7, 1..=4));
    match (ports.responder, ports.initiator) {
        (123, _) | (_, 123) if is_time => Application::Ntp,
        // Names on the local link, which are nobody's to confirm.
        (5353 | 5355, _) => Application::Dns,
        // DTLS (RFC 9147, section 4).
        _ if matches!(payload, [20..=23, 0xfe, 0xfd | 0xff, ..]) => Application::Other,
        _ => Application::Unknown,
    }
}

fn contains(payload: &[u8], word: &[u8]) -> bool {
    let start = payload.get(..payload.len().min(MAX_GREETING)).unwrap_or_default();
    start.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// How much of a greeting is searched.
const MAX_GREETING: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(protocol: Protocol, port: u16, payload: &[u8]) -> &'static str {
        recognise(protocol, Ports { initiator: 40000, responder: port }, payload).name()
    }

    #[test]
    fn the_first_octets_tell() {
        assert_eq!(spoken(Protocol::TCP, 8443, b"\x16\x03\x01\x02\x00\x01\x00"), "tls");
        assert_eq!(spoken(Protocol::TCP, 8080, b"PROPFIND /dav HTTP/1.1\r\n"), "http");
        assert_eq!(spoken(Protocol::TCP, 8080, b"PRI * HTTP/2.0\r\n\r\nSM"), "http");
        assert_eq!(spoken(Protocol::TCP, 2222, b"SSH-2.0-OpenSSH_9.2"), "ssh");
        assert_eq!(spoken(Protocol::TCP, 21, b"220 ready\r\n"), "ftp");
        assert_eq!(spoken(Protocol::TCP, 2121, b"220 (vsFTPd 3.0.3)\r\n"), "ftp");
        assert_eq!(spoken(Protocol::TCP, 25, b"220-mail.example\r\n"), "smtp");
        assert_eq!(spoken(Protocol::TCP, 2526, b"220 mx.example ESMTP\r\n"), "smtp");
        assert_eq!(spoken(Protocol::UDP, 123, &[0x23; 48]), "ntp");
        assert_eq!(spoken(Protocol::UDP, 443, b"\xc0\0\0\0\x01\x08aaaaaaaaaaaa"), "quic");
        assert_eq!(spoken(Protocol::UDP, 443, b"\xc0\0\0\0\x07\x08aaaaaaaaaaaa"), "unknown");
        assert_eq!(spoken(Protocol::TCP, 443, b"anything"), "unknown");
        assert_eq!(spoken(Protocol::UDP, 123, b"short"), "unknown");
    }
}
