//! Names of live traffic between namespaces: a resolver of our own, directly and behind a stub,
//! TLS by curl, QUIC by another library; through libpcap and through the kernel's counters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::certificates::Certificates;
use crate::support::namespace::{self, Namespace, Network};
use crate::support::process::Running;
use crate::support::wait;

const NAME: &str = "up.storage.example.net";

#[test]
fn a_name_is_followed_from_its_look_up_to_the_handshake() {
    for source in ["pcap", "ebpf"] {
        let Some(site) = Site::new(&["dnsmasq", "dig", "curl", "openssl"]) else { return };
        let Some(watch) = Watch::start(&site, source) else { continue };
        site.name_server(Network::SERVER);
        // A lie: the name in the handshake was never an answer for this address.
        let lie = format!("bank.example.com:443:{}", Network::SERVER);
        let honest = ["curl", "-sk", "--max-time", "30", "https://up.storage.example.net/"];
        let lying = ["curl", "-sk", "--max-time", "30", "--resolve", &lie, "https://bank.example.com/"];
        // The first ones may pass before the source is at work, the last ones after it stopped.
        for _ in 0..3 {
            assert!(site.client(&honest).status.success());
            assert!(site.client(&lying).status.success());
            assert!(site.client(&["dig", "+short", "+tries=5", "AAAA", NAME]).status.success());
        }
        let flows = watch.stop();

        let honest = find(&flows, source, |flow| flow["sni"] == NAME && flow["domain_trust"] == "agreed");
        for (key, value) in [("l7", "tls"), ("domain", NAME), ("domain_source", "sni"), ("dns", NAME)] {
            assert_eq!(honest[key], value, "{source}: {key} in {honest}");
        }
        assert_eq!(honest["registered_domain"], "example.net");
        if source == "ebpf" {
            assert!(honest["owner"]["exe"].as_str().is_some_and(|exe| exe.ends_with("/curl")), "{honest}");
        }
        let liar = find(&flows, source, |flow| flow["sni"] == "bank.example.com");
        assert_eq!((&liar["domain_trust"], &liar["domain"]), (&"unconfirmed".into(), &NAME.into()), "{source}: {liar}");
        find(&flows, source, |flow| flow["remote_port"] == 53 && flow["l7"] == "dns");
    }
}

#[test]
fn a_name_is_followed_through_a_stub_resolver() {
    let Some(site) = Site::new(&["dnsmasq", "curl", "openssl"]) else { return };
    let mut stub = site.network.client.command("dnsmasq");
    stub.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
    stub.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--server", Network::SERVER]);
    let _stub = Running::start("stub", stub, site.folder.path());
    site.name_server("127.0.0.1");
    let Some(watch) = Watch::start(&site, "pcap") else { return };
    let mut fetched = 0;
    wait::until("answers through the stub", || {
        let page = site.client(&["curl", "-sk", "--max-time", "10", "https://up.storage.example.net/"]);
        fetched += u32::from(page.status.success());
        (fetched == 3).then_some(())
    });
    let flows = watch.stop();
    find(&flows, "stub", |flow| flow["sni"] == NAME && flow["domain_trust"] == "agreed");
}

#[test]
fn the_name_of_a_quic_connection_is_read() {
    let python = std::env::var("EGRET_AIOQUIC_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_library = Command::new(&python).args(["-c", "import aioquic"]).output();
    if !has_library.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs a Python with aioquic (EGRET_AIOQUIC_PYTHON)");
        return;
    }
    let Some(site) = Site::new(&["dnsmasq"]) else { return };
    let server = site.write("server.py", QUIC_SERVER);
    let client = site.write("client.py", QUIC_CLIENT);
    let mut command = site.network.server.command(&python);
    command.arg(&server).arg(&site.certificates.certificate).arg(&site.certificates.key);
    let _server = Running::start("quic", command, site.folder.path());
    let Some(watch) = Watch::start(&site, "pcap") else { return };
    let mut answered = 0;
    wait::until("answers over HTTP/3", || {
        let mut command = site.network.client.command(&python);
        let output = command.arg(&client).arg(Network::SERVER).arg(NAME).output().unwrap();
        answered += u32::from(String::from_utf8_lossy(&output.stdout).contains("status 200"));
        (answered == 3).then_some(())
    });
    let flows = watch.stop();
    let quic = find(&flows, "quic", |flow| flow["sni"] == NAME);
    assert_eq!((&quic["l7"], &quic["domain_source"]), (&"quic".into(), &"quic".into()), "{quic}");
    assert_eq!(quic["proto"], "udp");
}

fn find<'a>(flows: &'a [Value], what: &str, fits: impl Fn(&Value) -> bool) -> &'a Value {
    flows.iter().find(|flow| fits(flow)).unwrap_or_else(|| panic!("{what}: no such flow in {flows:#?}"))
}

/// Two namespaces; the server's answers every name with its own address and serves a page over TLS.
struct Site {
    network: Network,
    folder: TempDir,
    certificates: Certificates,
    _servers: Vec<Running>,
}

impl Site {
    fn new(programs: &[&str]) -> Option<Self> {
        if namespace::unavailable().is_some() {
            return None;
        }
        for program in programs {
            // Every program answers a question for its version, each with a status of its own.
            if Command::new(program).arg("-v").output().is_err() {
                eprintln!("skipped: needs {program}");
                return None;
            }
        }
        let network = Network::new();
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::new(folder.path(), &[NAME]);
        let mut resolver = network.server.command("dnsmasq");
        resolver.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
        resolver.arg(format!("--address=/example.net/{}", Network::SERVER));
        let mut servers = vec![Running::start("resolver", resolver, folder.path())];
        if programs.contains(&"openssl") {
            let mut page = network.server.command("openssl");
            page.args(["s_server", "-quiet", "-www", "-accept", "443", "-cert"]);
            page.arg(&certificates.certificate).arg("-key").arg(&certificates.key);
            servers.push(Running::start("page", page, folder.path()));
            let mut awaited = servers;
            wait::until("the resolver and the page", || {
                awaited.iter_mut().for_each(Running::assert_alive);
                let sockets = network.server.command("ss").args(["-Hlntu"]).output().unwrap();
                let listening = String::from_utf8_lossy(&sockets.stdout).into_owned();
                (listening.contains(":443 ") && listening.contains(":53 ")).then_some(())
            });
            servers = awaited;
        }
        Some(Self { network, folder, certificates, _servers: servers })
    }

    /// Lets the programs of the client's namespace ask this server.
    fn name_server(&self, address: &str) {
        let folder = self.etc();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("resolv.conf"), format!("nameserver {address}\n")).unwrap();
    }

    /// Runs a program on the client, with the name server of the client.
    fn client(&self, command: &[&str]) -> Output {
        Command::new("ip").args(["netns", "exec", &self.network.client.name]).args(command).output().unwrap()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.network.client.name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_dir_all(self.etc());
    }
}

/// A running `egret flows --live` in the client's namespace.
struct Watch {
    running: Running,
}

impl Watch {
    /// `None`, with a printed reason, where the source cannot be opened here.
    fn start(site: &Site, source: &str) -> Option<Self> {
        let mut command = site.network.client.command(env!("CARGO_BIN_EXE_egret"));
        command.args(["flows", "--live", "600", "--source", source, "--output", "json"]);
        let mut running = Running::start("egret", command, site.folder.path());
        let ready = wait::until("the capture to begin", || {
            if running.status().is_some() {
                return Some(false);
            }
            is_watching(&site.network.client, source, running.pid()).then_some(true)
        });
        if !ready {
            eprintln!("skipped: the source {source} cannot be opened: {}", running.errors());
            return None;
        }
        Some(Self { running })
    }

    fn stop(mut self) -> Vec<Value> {
        self.running.signal(Signal::INT);
        let status = self.running.wait_within(wait::PATIENCE);
        assert!(status.success(), "{}", self.running.errors());
        self.running.output().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Whether the source is at work.
fn is_watching(namespace: &Namespace, source: &str, pid: u32) -> bool {
    match source {
        "pcap" => {
            let sockets = namespace.command("cat").arg("/proc/net/packet").output().unwrap();
            String::from_utf8_lossy(&sockets.stdout).lines().count() > 1
        }
        // The thread that reads the counters starts when the programs are in place.
        _ => {
            let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
            let mut names = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
            names.any(|name| name.trim() == "egret-kernel")
        }
    }
}

const QUIC_SERVER: &str = r#"
import asyncio, sys
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

class Server(QuicConnectionProtocol):
    http = None
    def quic_event_received(self, event):
        self.http = self.http or H3Connection(self._quic)
        for found in self.http.handle_event(event):
            if isinstance(found, HeadersReceived):
                self.http.send_headers(found.stream_id, [(b":status", b"200")], end_stream=True)
                self.transmit()

async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    configuration.load_cert_chain(sys.argv[1], sys.argv[2])
    await serve("0.0.0.0", 443, configuration=configuration, create_protocol=Server)
    await asyncio.Event().wait()

asyncio.run(main())
"#;

const QUIC_CLIENT: &str = r#"
import asyncio, ssl, sys
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

class Client(QuicConnectionProtocol):
    http = None
    answered = None
    def quic_event_received(self, event):
        for found in self.http.handle_event(event) if self.http else []:
            if isinstance(found, HeadersReceived) and not self.answered.done():
                self.answered.set_result(dict(found.headers)[b":status"].decode())

async def main():
    name = sys.argv[2]
    configuration = QuicConfiguration(alpn_protocols=["h3"], server_name=name, verify_mode=ssl.CERT_NONE)
    async with connect(sys.argv[1], 443, configuration=configuration, create_protocol=Client) as client:
        client.answered = asyncio.get_running_loop().create_future()
        client.http = H3Connection(client._quic)
        stream = client._quic.get_next_available_stream_id()
        headers = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", name.encode()), (b":path", b"/")]
        client.http.send_headers(stream, headers, end_stream=True)
        client.transmit()
        print("status", await asyncio.wait_for(client.answered, 10))

asyncio.run(main())
"#;
