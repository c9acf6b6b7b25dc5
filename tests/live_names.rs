//! Names of live traffic between namespaces: a resolver of our own, directly and behind a stub,
//! TLS by curl, QUIC by another library; through libpcap and through the kernel's counters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::certificates::Certificates;
use crate::support::egret::{Egret, Source};
use crate::support::mmdb;
use crate::support::namespace::{self, Network};
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
            if Command::new("dpkg").args(["-S", "/usr/bin/curl"]).output().is_ok_and(|found| found.status.success()) {
                assert_eq!(honest["owner"]["package"], "curl", "{honest}");
            }
        }
        for liar in flows.iter().filter(|flow| flow["sni"] == "bank.example.com") {
            assert_eq!(liar["domain_trust"], "unconfirmed", "{source}: {liar}");
        }
        // What DNS said of the address counts more; other tests ask for other names of it at the same time.
        find(&flows, source, |flow| {
            let domain = flow["domain"].as_str().unwrap_or_default();
            flow["sni"] == "bank.example.com" && domain.ends_with(".example.net") && flow["domain_source"] == "dns"
        });
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
fn a_question_through_dnsmasq_belongs_to_who_asked() {
    for source in [Source::PcapEverywhere, Source::Kernel] {
        let Some(site) = Site::new(&["dnsmasq", "dig"]) else { return };
        let mut stub = site.network.client.command("dnsmasq");
        stub.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
        stub.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--cache-size=0", "--server", Network::SERVER]);
        let _stub = Running::start("stub", stub, site.folder.path());
        the_asker_is_named(&site, source, "127.0.0.1", "/dnsmasq");
    }
}

#[test]
fn a_question_through_systemd_resolved_belongs_to_who_asked() {
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/systemd-resolved/lib/systemd/systemd-resolved");
    if !program.exists() {
        eprintln!("skipped: needs systemd-resolved, which `tests/setup test` unpacks");
        return;
    }
    for source in [Source::PcapEverywhere, Source::Kernel] {
        let Some(site) = Site::new(&["dnsmasq", "dig"]) else { return };
        // It changes to a user of its own, and keeps its state in a /run of its own.
        site.name_server("127.0.0.53");
        fs::write(site.etc().join("passwd"), "root:x:0:0::/root:/bin/sh\nsystemd-resolve:x:990:990::/:/bin/false\n")
            .unwrap();
        fs::write(site.etc().join("group"), "root:x:0:\nsystemd-resolve:x:990:\n").unwrap();
        let script = site.write("resolved.sh", RESOLVED);
        let mut resolved = Command::new("ip");
        resolved.args(["netns", "exec", &site.network.client.name, "sh"]);
        resolved.arg(script).arg(&program).arg(Network::SERVER);
        let _resolved = Running::start("resolved", resolved, site.folder.path());
        the_asker_is_named(&site, source, "127.0.0.53", "/systemd-resolved");
    }
}

/// What dig asks a resolver of its own host is dig's question on the wire as well, and counted once.
fn the_asker_is_named(site: &Site, source: Source, resolver: &str, carrier: &str) {
    let rules = CARRIED.replace("SERVER", Network::SERVER);
    let mut egret = Egret::start(&site.network.client, site.folder.path(), source, &rules, "");
    let server = format!("@{resolver}");
    let mut number = 0;
    let alert = wait::until("questions carried for dig", || {
        let names: Vec<String> = (number..number + 40).map(|number| format!("n{number}.example.net")).collect();
        number += 40;
        let asked =
            ["dig", &server, "+short", "+tries=2", "+time=2"].into_iter().chain(names.iter().map(String::as_str));
        site.client(&asked.collect::<Vec<_>>());
        egret.firing().into_iter().find(|alert| alert["data"]["group"]["evidence"] == "carrier")
    });
    let exe = &alert["data"]["group"]["exe"];
    assert!(exe.as_str().is_some_and(|exe| exe.ends_with("/dig")), "{alert:#}");
    egret.stop();
    let of_the_resolver = |alert: &&Value| {
        let exe = alert["data"]["group"]["exe"].as_str().unwrap_or_default();
        alert["data"]["rule"]["id"] == "on-the-wire" && exe.ends_with(carrier)
    };
    assert_eq!(egret.firing().iter().find(of_the_resolver), None);
}

#[test]
fn the_container_of_a_flow_is_named() {
    for source in ["pcap", "ebpf"] {
        let Some(site) = Site::new(&["dnsmasq", "nc", "openssl"]) else { return };
        let Some(container) = Container::new() else { return };
        let Some(watch) = Watch::start(&site, source) else { continue };
        let file = site.folder.path().join("recorded.pcapng");
        let mut command = site.network.client.command(env!("CARGO_BIN_EXE_egret"));
        command.args(["record", "--source", source, "--interface", "eth0", "-w"]).arg(&file);
        let mut recorder = Running::start("record", command, site.folder.path());
        wait::until("egret to record", || {
            recorder.assert_alive();
            recorder.errors().contains("recording ").then_some(())
        });
        // Inside the namespace the control groups are out of sight. A connection that lasts has an owner
        // in the socket tables, however busy the machine is.
        let inside = format!("timeout 3 nc {} 443 </dev/null; true", Network::SERVER);
        let enter = format!("echo $$ > {}/cgroup.procs && exec ip netns exec \"$@\"", container.group.display());
        let mut connect = Command::new("sh");
        connect.args(["-c", &enter, "sh", &site.network.client.name, "sh", "-c", &inside]);
        assert!(connect.output().unwrap().status.success());
        let flows = watch.stop();
        let flow = find(&flows, source, |flow| flow["owner"]["container"]["id"] == *container.id);
        let known = &flow["owner"]["container"];
        for (key, value) in [("runtime", "docker"), ("name", "web-1"), ("image", "registry.example.org/web:1.4")] {
            assert_eq!(known[key], value, "{source}: {flow:#}");
        }
        assert_eq!(known["labels"], serde_json::json!(["team=shop"]));
        recorder.signal(Signal::INT);
        assert!(recorder.wait_within(wait::PATIENCE).success(), "{}", recorder.errors());
        let recorded = fs::read(&file).unwrap();
        let named = format!("ContainerName: web-1\nContainerId: {}", container.id);
        assert!(bstr::ByteSlice::contains_str(&recorded[..], &named), "{source}: {}", recorder.errors());
    }
}

#[test]
fn the_name_of_a_quic_connection_is_read() {
    let Some(python) = python() else { return };
    for source in ["pcap", "ebpf"] {
        for version in ["1", "2"] {
            let Some(site) = Site::new(&["dnsmasq"]) else { return };
            let server = site.write("server.py", QUIC_SERVER);
            let client = site.write("client.py", QUIC_CLIENT);
            let mut command = site.network.server.command(&python);
            command.arg(&server).arg(&site.certificates.certificate).arg(&site.certificates.key);
            let _server = Running::start("quic", command, site.folder.path());
            let Some(watch) = Watch::start(&site, source) else { continue };
            let mut answered = 0;
            wait::until("answers over HTTP/3", || {
                let mut command = site.network.client.command(&python);
                let output = command.arg(&client).arg(Network::SERVER).arg(NAME).arg(version).output().unwrap();
                answered += u32::from(String::from_utf8_lossy(&output.stdout).contains("status 200"));
                (answered == 3).then_some(())
            });
            let flows = watch.stop();
            let quic = find(&flows, &format!("QUIC {version} by {source}"), |flow| flow["sni"] == NAME);
            assert_eq!((&quic["l7"], &quic["domain_source"]), (&"quic".into(), &"quic".into()), "{quic}");
            assert_eq!(quic["proto"], "udp");
        }
    }
}

#[test]
fn a_hello_in_pieces_is_put_together() {
    for source in ["pcap", "ebpf"] {
        let Some(site) = Site::new(&["dnsmasq", "openssl", "python3"]) else { return };
        let client = site.write("pieces.py", HELLO_IN_PIECES);
        let Some(watch) = Watch::start(&site, source) else { continue };
        for _ in 0..3 {
            let mut command = site.network.client.command("python3");
            let output = command.arg(&client).arg(Network::SERVER).arg("pieces.example.net").output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(told.contains("TLSv1"), "{told}{}", String::from_utf8_lossy(&output.stderr));
        }
        let flows = watch.stop();
        let flow = find(&flows, source, |flow| flow["sni"] == "pieces.example.net");
        assert_eq!(flow["l7"], "tls", "{source}: {flow}");
    }
}

#[test]
fn an_answer_over_tcp_in_pieces_is_put_together() {
    if namespace::unavailable().is_some() {
        return;
    }
    for source in ["pcap", "ebpf"] {
        let network = Network::new();
        let folder = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut server = network.server.command("python3");
        server.arg(script("server.py", SLOW_NAME_SERVER)).arg(Network::SERVER);
        let mut server = Running::start("server", server, folder.path());
        wait::until("the name server", || {
            server.assert_alive();
            server.output().contains("ready").then_some(())
        });
        let Some(watch) = Watch::beside(&network, folder.path(), source) else { continue };
        let client = script("client.py", ASKS_OVER_TCP);
        for _ in 0..3 {
            let output = network.client.command("python3").arg(&client).arg(Network::SERVER).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let flows = watch.stop();
        let flow = find(&flows, source, |flow| flow["remote_port"] == 7000 && !flow["dns"].is_null());
        assert_eq!(
            (&flow["dns"], &flow["domain_source"]),
            (&"slow.example.net".into(), &"dns".into()),
            "{source}: {flow}"
        );
        find(&flows, source, |flow| flow["remote_port"] == 53 && flow["proto"] == "tcp" && flow["l7"] == "dns");
    }
}

#[test]
fn a_database_is_read_again_when_it_changes() {
    let Some(site) = Site::new(&["dnsmasq"]) else { return };
    let database = site.folder.path().join("networks.mmdb");
    let replace = |content: &[u8]| {
        let new = database.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &database).unwrap();
    };
    replace(&mmdb::database(64500, "First"));
    let more = format!("names: {{databases: [\"{}\"]}}", database.display());
    let mut egret = Egret::start(&site.network.client, site.folder.path(), Source::Pcap, BY_NETWORK, &more);
    let wait_for_system = |egret: &Egret, system: u32| {
        wait::until("an alert of that network", || {
            site.send_datagram();
            let of_system = |alert: &Value| alert["data"]["destination"]["asn"] == system;
            egret.firing().into_iter().find(of_system)
        })
    };
    assert_eq!(wait_for_system(&egret, 64500)["data"]["destination"]["as_org"], "First");
    replace(&mmdb::database(64501, "Second"));
    assert_eq!(wait_for_system(&egret, 64501)["data"]["destination"]["as_org"], "Second");
    let whole = mmdb::database(64502, "Third");
    replace(&whole[..whole.len() / 2]);
    wait::until("the refusal of half a database", || {
        egret.log().contains("the old databases stay in use").then_some(())
    });
    let before = egret.firing().len();
    wait::until("more alerts", || {
        site.send_datagram();
        (egret.firing().len() > before).then_some(())
    });
    assert_eq!(egret.firing().last().unwrap()["data"]["destination"]["asn"], 64501, "the last good one");
    egret.stop();
}

/// A Python with aioquic, which `tests/setup test` makes; `None`, with a printed reason, where there is none.
fn python() -> Option<String> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/python/bin/python");
    let python = std::env::var("EGRET_AIOQUIC_PYTHON").unwrap_or_else(|_| made.display().to_string());
    let has_library = Command::new(&python).args(["-c", "import aioquic"]).output();
    if has_library.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!("skipped: needs a Python with aioquic, which `tests/setup test` makes");
    None
}

/// A control group and a record as Docker makes them for a container.
struct Container {
    id: String,
    group: PathBuf,
    record: PathBuf,
}

impl Container {
    /// `None`, with a printed reason, where control groups cannot be made.
    fn new() -> Option<Self> {
        let id: String = (0..64).map(|_| char::from(b"0123456789abcdef"[fastrand::usize(..16)])).collect();
        let unified = Path::new("/sys/fs/cgroup/unified");
        let root = if unified.exists() { unified } else { Path::new("/sys/fs/cgroup") };
        let group = root.join(format!("docker-{id}.scope"));
        let record = PathBuf::from(format!("/var/lib/docker/containers/{id}"));
        if !root.join("cgroup.procs").exists() || fs::create_dir(&group).is_err() {
            eprintln!("skipped: control groups cannot be made");
            return None;
        }
        let container = Self { id, group, record };
        fs::create_dir_all(&container.record).unwrap();
        let config = serde_json::json!({"ID": container.id, "Name": "/web-1", "Config": {
            "Image": "registry.example.org/web:1.4", "Labels": {"team": "shop"}}});
        fs::write(container.record.join("config.v2.json"), config.to_string()).unwrap();
        Some(container)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Nothing else is removed: the folders above may have been there before.
        let _ = fs::remove_dir(&self.group);
        let _ = fs::remove_dir_all(&self.record);
        let _ = fs::remove_dir("/var/lib/docker/containers").and_then(|()| fs::remove_dir("/var/lib/docker"));
    }
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

    /// A flow to the server, each from another port.
    fn send_datagram(&self) {
        let send = || {
            self.network.client.enter();
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            // Nobody listens there, which is nobody's concern.
            let _ = socket.send_to(b"hello", (Network::SERVER, 4000));
        };
        std::thread::scope(|scope| scope.spawn(send).join().unwrap());
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
        Self::beside(&site.network, site.folder.path(), source)
    }

    fn beside(network: &Network, folder: &Path, source: &str) -> Option<Self> {
        let mut command = network.client.command(env!("CARGO_BIN_EXE_egret"));
        command.args(["flows", "--live", "600", "--source", source, "--output", "json"]);
        let mut running = Running::start("egret", command, folder);
        let ready = wait::until("the capture to begin", || {
            if running.status().is_some() {
                return Some(false);
            }
            running.errors().contains("watching ").then_some(true)
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

/// One rule for what the resolver passes on, one for what goes by it.
const CARRIED: &str = r#"
version: 1
rules:
  - id: on-the-wire
    match: {dst.port: 53, dst.ip: SERVER}
    group_by: [exe, evidence]
    window: 1m
    when: {dns.queries: {gte: 3}}
"#;

const BY_NETWORK: &str = r#"
version: 1
rules:
  - {id: by-network, match: {dst.asn: "64500-64510"}, group_by: [src.port], each: {}}
"#;

/// Sends the first flight in five pieces, a segment each, and finishes the handshake.
const HELLO_IN_PIECES: &str = r#"
import socket, ssl, sys, time
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname=sys.argv[2])
connection = socket.create_connection((sys.argv[1], 443))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
pieces = 5
while True:
    try:
        tls.do_handshake()
        done = True
    except ssl.SSLWantReadError:
        done = False
    data = outgoing.read()
    size = -(-len(data) // pieces) or 1
    for start in range(0, len(data), size):
        connection.sendall(data[start:start + size])
        time.sleep(0.02)
    pieces = 1
    if done:
        break
    incoming.write(connection.recv(16384))
print(tls.version())
"#;

/// Answers a question over TCP in segments of which none is a message, the first but half of the length.
const SLOW_NAME_SERVER: &str = r#"
import socket, struct, sys, threading, time

def serve(port, answer):
    listener = socket.create_server((sys.argv[1], port))
    def run():
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer(connection)
            connection.close()
    threading.Thread(target=run).start()

def name(connection):
    question = b""
    while len(question) < 2 or len(question) < 2 + struct.unpack(">H", question[:2])[0]:
        question += connection.recv(4096)
    asked = question[14:]
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 16, 1, 60, 101) + b"\x64" + b"t" * 100 for _ in range(5))
    records += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(sys.argv[1])
    message = question[2:4] + struct.pack(">HHHHH", 0x8180, 1, 6, 0, 0) + asked + records
    data = struct.pack(">H", len(message)) + message
    for piece in [data[:1], data[1:40], data[40:300], data[300:-3], data[-3:]]:
        connection.sendall(piece)
        time.sleep(0.05)

serve(53, name)
serve(7000, lambda connection: connection.recv(4096))
print("ready", flush=True)
"#;

/// Asks over TCP, in two segments, then goes to the address that it was told.
const ASKS_OVER_TCP: &str = r#"
import socket, struct, sys, time
message = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\4slow\7example\3net\0" + struct.pack(">HH", 1, 1)
data = struct.pack(">H", len(message)) + message
resolver = socket.create_connection((sys.argv[1], 53))
resolver.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
resolver.sendall(data[:20])
time.sleep(0.05)
resolver.sendall(data[20:])
answer = b""
while piece := resolver.recv(4096):
    answer += piece
address = socket.inet_ntoa(answer[-4:])
connection = socket.create_connection((address, 7000))
connection.sendall(b"hello")
connection.recv(10)
time.sleep(0.3)
"#;

const RESOLVED: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d
chown 990:990 /run/systemd/resolve
printf '[Resolve]\nDNS=%s\nFallbackDNS=\nDomains=~.\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\n' "$2" >/run/systemd/resolved.conf.d/test.conf
exec "$1"
"#;

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
from aioquic.quic.packet import QuicProtocolVersion

class Client(QuicConnectionProtocol):
    http = None
    answered = None
    def quic_event_received(self, event):
        for found in self.http.handle_event(event) if self.http else []:
            if isinstance(found, HeadersReceived) and not self.answered.done():
                self.answered.set_result(dict(found.headers)[b":status"].decode())

async def main():
    name = sys.argv[2]
    version = QuicProtocolVersion.VERSION_2 if sys.argv[3] == "2" else QuicProtocolVersion.VERSION_1
    configuration = QuicConfiguration(
        alpn_protocols=["h3"], server_name=name, verify_mode=ssl.CERT_NONE,
        supported_versions=[version], original_version=version)
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
