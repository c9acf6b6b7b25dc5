//! A real rsyslog that takes messages over UDP, TCP and TLS.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::certificates::Certificates;
use crate::support::namespace::Namespace;
use crate::support::process::Running;
use crate::support::wait;

/// What rsyslog understood of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub priority: String,
    pub hostname: String,
    pub application: String,
    pub message_id: String,
    pub structured_data: String,
    pub text: String,
}

/// The server and its ports on the loopback address.
pub struct RsyslogServer {
    pub udp_port: u16,
    pub tcp_port: u16,
    pub tls_port: u16,
    /// Takes nobody without a certificate of the authority.
    pub mutual_port: u16,
    directory: PathBuf,
    running: Running,
}

impl RsyslogServer {
    /// Whether rsyslog is installed; says so where it is not.
    pub fn is_available() -> bool {
        let found = Command::new("rsyslogd").arg("-v").output().is_ok_and(|output| output.status.success());
        if !found {
            eprintln!("skipped: rsyslogd is not installed");
        }
        found
    }

    /// Starts it on the loopback address, of `namespace` where one is given.
    pub fn start(namespace: Option<&Namespace>, directory: &Path, certificates: &Certificates) -> Self {
        Self::start_on(namespace, directory, certificates, free_port())
    }

    /// The same, with a TCP port of the caller's choice.
    pub fn start_on(
        namespace: Option<&Namespace>,
        directory: &Path,
        certificates: &Certificates,
        tcp_port: u16,
    ) -> Self {
        let (udp_port, tls_port, mutual_port) = (free_port(), free_port(), free_port());
        let directory = directory.join("rsyslog");
        fs::create_dir_all(&directory).expect("the test's directory is writable");
        let configuration = directory.join("rsyslog.conf");
        let template = "%pri%\\t%hostname%\\t%app-name%\\t%msgid%\\t%structured-data%\\t%msg%\\n";
        let folder = directory.display();
        let ruleset = |name: &str| {
            format!(
                "ruleset(name=\"{name}\") {{ action(type=\"omfile\" file=\"{folder}/{name}.log\" template=\"line\" \
                 flushInterval=\"1\" asyncWriting=\"off\") }}\n"
            )
        };
        let text = format!(
            "global(workDirectory=\"{folder}\" net.enableDNS=\"off\"\n\
             \x20 defaultNetstreamDriverCAFile=\"{authority}\"\n\
             \x20 defaultNetstreamDriverCertFile=\"{certificate}\"\n\
             \x20 defaultNetstreamDriverKeyFile=\"{key}\")\n\
             template(name=\"line\" type=\"string\" string=\"{template}\")\n\
             {udp}{tcp}{tls}{mutual}\
             module(load=\"imudp\")\nmodule(load=\"imtcp\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{udp_port}\" ruleset=\"udp\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tcp_port}\" ruleset=\"tcp\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tls_port}\" ruleset=\"tls\"\n\
             \x20 streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"anon\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{mutual_port}\" ruleset=\"mutual\"\n\
             \x20 streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/certvalid\")\n",
            authority = certificates.authority.display(),
            certificate = certificates.certificate.display(),
            key = certificates.key.display(),
            udp = ruleset("udp"),
            tcp = ruleset("tcp"),
            tls = ruleset("tls"),
            mutual = ruleset("mutual"),
        );
        fs::write(&configuration, text).expect("the test's directory is writable");
        let mut command = match namespace {
            Some(namespace) => namespace.command("rsyslogd"),
            None => Command::new("rsyslogd"),
        };
        command.arg("-n").arg("-f").arg(&configuration).arg("-i").arg(directory.join("rsyslog.pid"));
        let running = Running::start("rsyslogd", command, &directory);
        let mut server = Self { udp_port, tcp_port, tls_port, mutual_port, directory, running };
        wait::until("rsyslog to listen", || {
            server.running.assert_alive();
            is_listening(server.running.pid(), server.tls_port).then_some(())
        });
        server
    }

    /// What came over `udp`, `tcp` or `tls` so far.
    pub fn received(&self, transport: &str) -> Vec<Message> {
        let text = fs::read(self.directory.join(format!("{transport}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter_map(message).collect()
    }
}

fn message(line: &str) -> Option<Message> {
    let mut parts = line.splitn(6, '\t').map(str::to_owned);
    Some(Message {
        priority: parts.next()?,
        hostname: parts.next()?,
        application: parts.next()?,
        message_id: parts.next()?,
        structured_data: parts.next()?,
        text: parts.next()?,
    })
}

/// A port that was free for TCP and UDP a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    match UdpSocket::bind(("127.0.0.1", port)) {
        Ok(_) => port,
        Err(_) => free_port(),
    }
}

/// Whether something listens on a TCP port in the network namespace of a process.
pub fn is_listening(pid: u32, port: u16) -> bool {
    let wanted = format!(":{port:04X} ");
    let table = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let listens = |text: String| {
        text.lines().any(|line| {
            let mut columns = line.split_whitespace().skip(1);
            let local = columns.next().unwrap_or_default();
            let state = columns.nth(1).unwrap_or_default();
            format!("{local} ").ends_with(&wanted) && state == "0A"
        })
    };
    listens(table("tcp")) || listens(table("tcp6"))
}
