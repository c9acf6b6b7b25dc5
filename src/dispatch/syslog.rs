//! Alerts to a syslog server: this host's own socket, UDP, TCP or TLS.
//!
//! The `syslog` crate's `Logger` writes; what it has not got stands below it:
//! framing (RFC 6587, RFC 5425), time-outs, reconnection, and a look for the
//! peer's close before each write, because the first write after one succeeds
//! and is lost.
//!
//! Syslog has no acknowledgement. On a stream a message counts as confirmed
//! when the connection has stayed whole for a while after it; when a connection
//! is reset, messages that are not confirmed are sent again with their old ids.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use syslog::{LogFormat, Logger};

use crate::alert::Delivery;
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::dispatch::settings::{Framing, SyslogSettings, SyslogTransport};
use crate::dispatch::tls::{self, TlsError};
use crate::time::Timestamp;

/// Sends each delivery as one syslog message.
pub struct SyslogOutput {
    peer: Peer,
    logger: Option<Logger<Wire, Framed>>,
    framed: Framed,
    unconfirmed: VecDeque<(Timestamp, Arc<[u8]>)>,
}

/// Why a syslog output cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SyslogError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No address.
    #[error("syslog over {0} needs an `address` such as `siem.example.org:6514`")]
    NoAddress(&'static str),
    /// A name that no certificate could have.
    #[error("`{0}` is no name that a server could prove")]
    ServerName(String),
}

#[derive(Debug, Clone)]
enum Peer {
    Unix(String),
    Udp(String),
    Tcp(String),
    Tls(String, ServerName<'static>, Arc<ClientConfig>),
}

enum Wire {
    UnixDatagram(UnixDatagram),
    UnixStream(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Puts the frame around a message that is formatted already.
#[derive(Debug, Clone, Copy)]
enum Framed {
    Whole,
    Octet,
    Lf,
}

impl SyslogOutput {
    /// An output that connects with its first delivery.
    pub fn new(settings: &SyslogSettings) -> Result<Self, SyslogError> {
        let transport = transport(settings);
        let address = |name| settings.address.clone().ok_or(SyslogError::NoAddress(name));
        let peer = match transport {
            SyslogTransport::Unix => Peer::Unix(settings.address.clone().unwrap_or_else(|| "/dev/log".to_owned())),
            SyslogTransport::Udp => Peer::Udp(address("UDP")?),
            SyslogTransport::Tcp => Peer::Tcp(address("TCP")?),
            SyslogTransport::Tls => {
                let address = address("TLS")?;
                let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
                let host = settings.tls.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']);
                let name =
                    ServerName::try_from(host.to_owned()).map_err(|_| SyslogError::ServerName(host.to_owned()))?;
                Peer::Tls(address, name, tls::client_config(tls::read(&settings.tls)?)?)
            }
        };
        let framed = match (transport, settings.framing) {
            (SyslogTransport::Unix | SyslogTransport::Udp, _) => Framed::Whole,
            (_, Some(Framing::Octet)) | (SyslogTransport::Tls, None) => Framed::Octet,
            _ => Framed::Lf,
        };
        Ok(Self { peer, logger: None, framed, unconfirmed: VecDeque::new() })
    }

    fn send_bytes(&mut self, payload: &Arc<[u8]>, now: Timestamp) -> io::Result<()> {
        self.look_for_close();
        if self.logger.is_none() {
            let wire = self.peer.connect()?;
            self.logger = Some(Logger::new(wire, self.framed));
            for (_, earlier) in std::mem::take(&mut self.unconfirmed) {
                self.write(&earlier)?;
                self.unconfirmed.push_back((now, earlier));
            }
        }
        self.write(payload)?;
        if self.peer.is_stream() {
            self.unconfirmed.push_back((now, Arc::clone(payload)));
            while self.unconfirmed.len() > MOST_UNCONFIRMED {
                self.unconfirmed.pop_front();
            }
        }
        Ok(())
    }

    fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let Some(logger) = &mut self.logger else { return Err(io::ErrorKind::NotConnected.into()) };
        // The priority is in the message already; the level that the logger is called with is not used.
        let written = logger.info(payload).map_err(|error| match error {
            syslog::Error::Io(error) | syslog::Error::Write(error) => error,
            syslog::Error::Initialization(error) => io::Error::other(error.to_string()),
        });
        if written.is_err() {
            self.logger = None;
        }
        written
    }

    /// Notices that the peer has closed or reset the connection. After an orderly
    /// close it has read everything; after a reset it may not have.
    fn look_for_close(&mut self) {
        let Some(logger) = &mut self.logger else { return };
        match logger.backend.peer_state() {
            Ok(PeerState::Open) => {}
            Ok(PeerState::Closed) => {
                self.unconfirmed.clear();
                self.logger = None;
            }
            Err(_) => self.logger = None,
        }
    }
}

impl Notifier for SyslogOutput {
    fn send(&mut self, delivery: &Delivery, now: Timestamp) -> Result<(), NotifyError> {
        self.send_bytes(&delivery.payload, now).map_err(|error| self.peer.failure(&error))
    }

    fn idle(&mut self, now: Timestamp) -> Result<(), NotifyError> {
        while self.unconfirmed.front().is_some_and(|(sent, _)| now.since(*sent) >= CONFIRMED_AFTER) {
            self.unconfirmed.pop_front();
        }
        self.look_for_close();
        if self.logger.is_none()
            && let Some((_, last)) = self.unconfirmed.pop_back()
        {
            let again = self.send_bytes(&last, now);
            if again.is_err() {
                self.unconfirmed.push_back((now, last));
            }
            return again.map_err(|error| self.peer.failure(&error));
        }
        Ok(())
    }
}

/// The transport that settings mean.
pub fn transport(settings: &SyslogSettings) -> SyslogTransport {
    match (settings.transport, &settings.address) {
        (Some(transport), _) => transport,
        (None, Some(_)) => SyslogTransport::Tcp,
        (None, None) => SyslogTransport::Unix,
    }
}

impl Peer {
    fn connect(&self) -> io::Result<Wire> {
        match self {
            Self::Unix(path) => {
                let datagram = UnixDatagram::unbound()?;
                datagram.set_write_timeout(Some(TIMEOUT))?;
                match datagram.connect(path) {
                    Ok(()) => Ok(Wire::UnixDatagram(datagram)),
                    // EPROTOTYPE: somebody listens for a stream there.
                    Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                        let stream = UnixStream::connect(path)?;
                        stream.set_write_timeout(Some(TIMEOUT))?;
                        Ok(Wire::UnixStream(stream))
                    }
                    Err(error) => Err(error),
                }
            }
            Self::Udp(address) => {
                let address = first_address(address)?;
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                Ok(Wire::Udp(socket))
            }
            Self::Tcp(address) => Ok(Wire::Tcp(stream(address)?)),
            Self::Tls(address, name, config) => {
                let mut connection =
                    ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
                let mut stream = stream(address)?;
                while connection.is_handshaking() {
                    connection.complete_io(&mut stream)?;
                }
                let mut tls = StreamOwned::new(connection, stream);
                refused_client(&mut tls)?;
                Ok(Wire::Tls(Box::new(tls)))
            }
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Tls(..))
    }

    fn failure(&self, error: &io::Error) -> NotifyError {
        let address = match self {
            Self::Unix(address) | Self::Udp(address) | Self::Tcp(address) | Self::Tls(address, ..) => address,
        };
        let reason = format!("syslog at `{address}`: {error}");
        let certificate =
            error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some_and(|error| {
                matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
            });
        match error.kind() {
            _ if error.raw_os_error() == Some(libc::EMSGSIZE) => NotifyError::permanent(reason),
            io::ErrorKind::PermissionDenied => NotifyError::misconfigured(reason),
            _ if certificate || reason.contains(crate::dispatch::email::NO_SUCH_HOST) => {
                NotifyError::misconfigured(reason)
            }
            _ => NotifyError::transient(reason),
        }
    }
}

/// In TLS 1.3 a server refuses a client's certificate only after the client takes the handshake as done.
fn refused_client(tls: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<()> {
    tls.sock.set_read_timeout(Some(REFUSAL_WITHIN))?;
    let read = tls.read(&mut [0; 64]);
    tls.sock.set_read_timeout(Some(TIMEOUT))?;
    match state_of(read)? {
        PeerState::Open => Ok(()),
        PeerState::Closed => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed after the handshake")),
    }
}

fn stream(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn first_address(address: &str) -> io::Result<SocketAddr> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(missing)
}

enum PeerState {
    Open,
    Closed,
}

impl Wire {
    fn peer_state(&mut self) -> io::Result<PeerState> {
        match self {
            Self::UnixDatagram(_) | Self::Udp(_) => Ok(PeerState::Open),
            Self::UnixStream(stream) => {
                stream.set_nonblocking(true)?;
                let read = stream.read(&mut [0; 64]);
                stream.set_nonblocking(false)?;
                state_of(read)
            }
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                // What a syslog server might say has no meaning; reading it makes room.
                let read = stream.read(&mut [0; 64]);
                stream.set_nonblocking(false)?;
                state_of(read)
            }
            Self::Tls(stream) => {
                stream.sock.set_nonblocking(true)?;
                let read = stream.read(&mut [0; 64]);
                stream.sock.set_nonblocking(false)?;
                state_of(read)
            }
        }
    }
}

fn state_of(read: io::Result<usize>) -> io::Result<PeerState> {
    match read {
        Ok(0) => Ok(PeerState::Closed),
        Ok(_) => Ok(PeerState::Open),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(PeerState::Open),
        // TLS without a close_notify: the stream ended in order all the same.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(PeerState::Closed),
        Err(error) => Err(error),
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::UnixDatagram(socket) => socket.send(bytes),
            Self::UnixStream(stream) => stream.write(bytes),
            Self::Udp(socket) => socket.send(bytes),
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::UnixDatagram(_) | Self::Udp(_) => Ok(()),
            Self::UnixStream(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl LogFormat<&[u8]> for Framed {
    /// One write a message: a datagram must be whole, and a stream sends fewer packets.
    fn format<W: Write>(&self, writer: &mut W, _severity: syslog::Severity, message: &[u8]) -> syslog::Result<()> {
        let framed = match self {
            Self::Whole => message.to_vec(),
            Self::Octet => [message.len().to_string().as_bytes(), b" ", message].concat(),
            Self::Lf => [message, b"\n"].concat(),
        };
        writer.write_all(&framed)?;
        writer.flush()?;
        Ok(())
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
const REFUSAL_WITHIN: Duration = Duration::from_millis(200);
/// Messages on a stream that are sent again after a reset; older ones are taken as confirmed.
const MOST_UNCONFIRMED: usize = 256;
/// A connection that has stayed whole for so long after a message has carried it.
const CONFIRMED_AFTER: Duration = Duration::from_secs(30);
