//! Asks a service of this host over its Unix socket, by HTTP/1.0 as Docker and Podman take it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

/// A connection on which nothing waits for long, connecting included.
pub(super) fn connect(socket: &Path) -> io::Result<UnixStream> {
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    for which in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
        sockopt::set_socket_timeout(&fd, which, Some(PATIENCE))?;
    }
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)?;
    Ok(fd.into())
}

/// The body of the answer to `GET path`; an error where the status is another than 200.
pub(super) fn get(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = connect(socket)?;
    // An answer by HTTP/1.0 ends with the connection, and is in one piece.
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|octets| octets == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = answer.get(..end).and_then(|head| head.split(|octet| *octet == b' ').nth(1));
    match status {
        Some(b"200") => Ok(answer.split_off(end + 4)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// How long one step of a conversation may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What is said of one container has a few kilobytes.
pub(super) const MAX_ANSWER: u64 = 4 << 20;
