//! Servers that swallow what is sent to them: the places where data goes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::certificates::Certificates;
use crate::support::namespace::Namespace;
use crate::support::process::Running;
use crate::support::rsyslog::is_listening;
use crate::support::wait;
use crate::support::webhook::bind;

/// Listens for as long as the test runs.
pub struct Sink;

impl Sink {
    /// An HTTP server that answers every request once it has all of it.
    pub fn http(namespace: &Namespace, address: &str) -> Self {
        Self::listen(namespace, address, serve)
    }

    /// The same over TLS.
    pub fn https(namespace: &Namespace, address: &str, certificates: &Certificates) -> Self {
        let chain = CertificateDer::from_pem_file(&certificates.certificate).expect("the test made it");
        let key = PrivateKeyDer::from_pem_file(&certificates.key).expect("the test made it");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("key and certificate belong together");
        let config = Arc::new(config);
        Self::listen(namespace, address, move |stream| {
            if let Ok(connection) = ServerConnection::new(Arc::clone(&config)) {
                serve(StreamOwned::new(connection, stream));
            }
        })
    }

    /// Takes whatever comes until the other end has finished.
    pub fn tcp(namespace: &Namespace, address: &str) -> Self {
        Self::listen(namespace, address, |mut stream| {
            let mut buffer = vec![0; 65_536];
            while let Ok(1..) = stream.read(&mut buffer) {}
        })
    }

    /// Takes every datagram.
    pub fn udp(namespace: &Namespace, address: &str) -> Self {
        let socket = thread::scope(|scope| {
            let bound = scope.spawn(|| {
                namespace.enter();
                UdpSocket::bind(address).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"))
            });
            bound.join().expect("the socket was bound")
        });
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while socket.recv_from(&mut buffer).is_ok() {}
        });
        Self
    }

    fn listen(namespace: &Namespace, address: &str, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Self {
        let listener = bind(Some(namespace), address);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
        Self
    }
}

/// Swallows the requests of one connection.
fn serve(stream: impl Read + Write) {
    let mut stream = BufReader::with_capacity(65_536, stream);
    while let Some(length) = read_head(&mut stream) {
        let mut body = stream.by_ref().take(length);
        let mut buffer = vec![0; 65_536];
        while let Ok(1..) = body.read(&mut buffer) {}
        if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n").is_err() {
            return;
        }
    }
}

/// The length of a request's body, which the client is told to send; `None` at the end of the connection.
fn read_head(stream: &mut BufReader<impl Read + Write>) -> Option<u64> {
    let mut length = 0;
    let mut asks_first = false;
    let mut is_first = true;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() && !is_first {
            break;
        }
        is_first = false;
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
        asks_first |= line.starts_with("expect: 100-continue");
    }
    if asks_first {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    Some(length)
}

/// A DNS server that answers every name with one address.
pub struct NameServer {
    _running: Running,
}

impl NameServer {
    pub fn start(namespace: &Namespace, address: &str, answer: &str, directory: &Path) -> Self {
        let mut command = namespace.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ]);
        command.args([format!("--listen-address={address}"), format!("--address=/#/{answer}")]);
        command.args(["--user=root", "--group=root", "--pid-file="]);
        let mut running = Running::start("dnsmasq", command, directory);
        wait::until("the name server to listen", || {
            running.assert_alive();
            is_listening(running.pid(), 53).then_some(())
        });
        Self { _running: running }
    }
}

/// An SSH server that lets `root` in with the key of `home`.
pub struct SshServer {
    _running: Running,
}

impl SshServer {
    /// Makes keys and a client configuration in `home`, which stands in for root's home folder on both ends.
    pub fn start(namespace: &Namespace, address: &str, home: &Path, directory: &Path) -> Self {
        let keys = home.join(".ssh");
        let script = format!(
            "set -e; mkdir -p -m 700 {keys}; ssh-keygen -q -t ed25519 -N '' -f {keys}/id_ed25519; \
             cp {keys}/id_ed25519.pub {keys}/authorized_keys; chmod 600 {keys}/authorized_keys; \
             printf 'Host *\\n  StrictHostKeyChecking no\\n  LogLevel ERROR\\n  User root\\n' > {keys}/config; \
             chown -R root:root {home}; chmod 700 {home}; dropbearkey -t ed25519 -f {directory}/host_key",
            keys = keys.display(),
            home = home.display(),
            directory = directory.display(),
        );
        let made = Command::new("bash").args(["-c", &script]).output().expect("bash is essential");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut command = namespace.command("unshare");
        let server = format!(
            "mount --bind {} /root && exec dropbear -F -E -m -s -r {}/host_key -P {}/dropbear.pid -p {address}:22",
            home.display(),
            directory.display(),
            directory.display(),
        );
        command.args(["--mount", "bash", "-c", &server]);
        let mut running = Running::start("dropbear", command, directory);
        wait::until("the SSH server to listen", || {
            running.assert_alive();
            is_listening(running.pid(), 22).then_some(())
        });
        Self { _running: running }
    }
}
