//! The pcap source between namespaces: every byte on the wire is given to the
//! program that sent it, or to nobody, and never to another.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use egret::attribution::{Attribution, Evidence, Lookup, UnknownReason};
use egret::capture::live::{Capture, CaptureSettings};
use egret::flow::{Direction, FlowKey, LocalAddresses};
use egret::packet::{Fragments, FrameDirection, Protocol, decode};
use egret::resolve::{ResolverSettings, Service, Translated};

use crate::support::namespace::{self, Namespace, Network};
use crate::support::wait;

#[test]
fn curl_is_named_over_both_families() {
    let Some(stage) = Stage::new() else { return };
    let watch = Watch::start(&stage.network.client, "eth0");
    for host in [Network::SERVER.to_owned(), format!("[{}]", Network::SERVER_V6)] {
        stage.upload("curl", &host, 1_000_000);
    }
    let seen = watch.finish();
    assert_eq!(seen.wrong_owners(|_| "curl"), "");
    let curl = seen.owned_by("curl");
    assert!(curl >= 2_000_000, "{curl} bytes of 2 MB; {seen:?}");
    assert!(seen.flows.values().all(|flow| flow.evidence().is_none_or(|evidence| evidence == Evidence::Exact)));
}

#[test]
fn udp_is_named_connected_and_unconnected() {
    let Some(stage) = Stage::new() else { return };
    let watch = Watch::start(&stage.network.client, "eth0");
    let sends = [
        (
            9_001,
            format!(
                "PF_INET, SOCK_DGRAM, 17); connect(S, sockaddr_in(9001, inet_aton('{}'))); $to = undef",
                Network::SERVER
            ),
        ),
        (9_002, format!("PF_INET, SOCK_DGRAM, 17); $to = sockaddr_in(9002, inet_aton('{}'))", Network::SERVER)),
        // IPv4 from a socket of the other family: the address is mapped.
        (
            9_003,
            format!(
                "AF_INET6, SOCK_DGRAM, 17); $to = pack_sockaddr_in6(9003, inet_pton(AF_INET6, '::ffff:{}'))",
                Network::SERVER
            ),
        ),
        (
            9_004,
            format!(
                "AF_INET6, SOCK_DGRAM, 17); $to = pack_sockaddr_in6(9004, inet_pton(AF_INET6, '{}'))",
                Network::SERVER_V6
            ),
        ),
    ];
    for (port, open) in &sends {
        let script = format!(
            "use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 AF_INET6); socket(S, {open}; \
             for (1..20) {{ if ($to) {{ send(S, 'x' x 1000, 0, $to) }} else {{ send(S, 'x' x 1000, 0) }} select(undef,undef,undef,0.02) }}"
        );
        assert!(stage.network.client.run("perl", &["-e", &script]), "perl sends to port {port}");
    }
    let seen = watch.finish();
    assert_eq!(seen.wrong_owners(|_| "perl"), "");
    for ((port, _), evidence) in
        sends.iter().zip([Evidence::Exact, Evidence::Wildcard, Evidence::Wildcard, Evidence::Wildcard])
    {
        let (key, flow) = seen.of_remote_port(*port);
        assert_eq!((flow.program().as_deref(), flow.evidence()), (Some("perl"), Some(evidence)), "{key:?}: {flow:?}");
        assert!(flow.bytes_out >= 20_000, "{key:?}: {flow:?}");
    }
}

#[test]
fn protocols_without_ports_are_named() {
    let Some(stage) = Stage::new() else { return };
    // Neighbours that are known need no discovery, which is ICMPv6 of the kernel's own between the same hosts.
    for (here, there, address) in [
        (&stage.network.client, &stage.network.server, Network::SERVER_V6),
        (&stage.network.server, &stage.network.client, Network::CLIENT_V6),
    ] {
        let shown = there.command("ip").args(["-o", "link", "show", "eth0"]).output().unwrap();
        let link = String::from_utf8_lossy(&shown.stdout).into_owned();
        let link = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        assert!(
            here.run("ip", &["-6", "neigh", "replace", address, "lladdr", &link, "nud", "permanent", "dev", "eth0"])
        );
    }
    let watch = Watch::start(&stage.network.client, "eth0");
    assert!(stage.network.client.run("ping", &["-q", "-c5", "-i0.1", "-s1000", Network::SERVER]));
    assert!(stage.network.client.run("ping", &["-q", "-c5", "-i0.1", "-s1000", Network::SERVER_V6]));
    let raw = format!(
        "use Socket; socket(S, PF_INET, SOCK_RAW, 253) or die; \
         for (1..10) {{ send(S, 'x' x 1000, 0, sockaddr_in(0, inet_aton('{}'))) or die; select(undef,undef,undef,0.05) }}",
        Network::SERVER
    );
    assert!(stage.network.client.run("perl", &["-e", &raw]));
    let seen = watch.finish();
    for (protocol, program) in [(Protocol::ICMP, "ping"), (Protocol::ICMPV6, "ping"), (Protocol(253), "perl")] {
        let flow = seen.largest(protocol);
        assert_eq!((flow.program().as_deref(), flow.evidence()), (Some(program), Some(Evidence::Wildcard)), "{seen:?}");
        assert!(flow.bytes_out >= 5_000, "{flow:?}");
    }
}

#[test]
fn a_container_is_seen_from_its_host() {
    let Some(stage) = Stage::new() else { return };
    let container = Namespace::new("k");
    let (inner, host) = (&container.name, &stage.network.client.name);
    for command in [
        format!("link add eth0 netns {inner} type veth peer name veth0 netns {host}"),
        format!("-n {host} addr add 198.51.100.129/25 dev veth0"),
        format!("-n {host} link set veth0 up"),
        format!("-n {inner} addr add 198.51.100.130/25 dev eth0"),
        format!("-n {inner} link set eth0 up"),
        format!("-n {inner} route add default via 198.51.100.129"),
        format!("-n {} route add 198.51.100.128/25 via 198.51.100.2 dev eth0", stage.network.server.name),
    ] {
        let status = Command::new("ip").args(command.split(' ')).status();
        assert!(status.is_ok_and(|status| status.success()), "ip {command}");
    }
    let forward = stage.network.client.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]).status();
    assert!(forward.is_ok_and(|status| status.success()));

    let watch = Watch::start(&stage.network.client, "veth0");
    let url = format!("http://{}:{}/", Network::SERVER, stage.http);
    let file = stage.file(1_000_000);
    wait::until("the way out of the container", || {
        container.run("curl", &["-sS", "-m20", "-T", file.path().to_str()?, &url]).then_some(())
    });
    let seen = watch.finish();
    assert_eq!(seen.wrong_owners(|_| "curl"), "");
    assert!(seen.owned_by("curl") >= 1_000_000, "{seen:?}");

    // On the outer interface its packets have the host's address.
    let masquerade = "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; \
                      add rule ip nat post oifname eth0 masquerade";
    if !stage.network.client.run("nft", &[masquerade]) {
        eprintln!("skipped: needs nftables with address translation");
        return;
    }
    // A namespace is known by the processes in it.
    let mut resident = stage.network.client.command("sleep").arg("60").spawn().unwrap();
    let watch = Watch::start(&stage.network.client, "eth0");
    assert!(container.run("curl", &["-sS", "-m60", "--limit-rate", "4M", "-T", file.path().to_str().unwrap(), &url]));
    let seen = watch.finish();
    assert_eq!(seen.wrong_owners(|_| "curl"), "");
    assert!(seen.owned_by("curl") >= 1_000_000, "{seen:?}");
    assert!(seen.flows.keys().any(|key| key.local.address.to_string() == Network::CLIENT), "{seen:?}");
    resident.kill().unwrap();
    resident.wait().unwrap();
}

#[test]
fn a_child_that_sends_is_told_from_its_parent() {
    let Some(stage) = Stage::new() else { return };
    let watch = Watch::start(&stage.network.client, "eth0");
    // The child opens its own connection and lives on in its parent's program.
    let fork = format!(
        "use IO::Socket::INET; if (!fork) {{ $s = IO::Socket::INET->new(PeerAddr => '{}:{}') or die; \
         print $s 'x' x 500000; select(undef,undef,undef,0.3); close $s; exit }} $pid = wait; print $pid",
        Network::SERVER,
        stage.sink
    );
    let output = stage.network.client.command("perl").args(["-e", &fork]).output().unwrap();
    assert!(output.status.success());
    // A shell opens the connection and `dd` writes to it as its standard output.
    let handed = format!(
        "exec 3<>/dev/tcp/{}/{}; dd if=/dev/zero bs=1000 count=500 status=none >&3; sleep 0.4",
        Network::SERVER,
        stage.sink
    );
    assert!(stage.network.client.run("bash", &["-c", &handed]));
    let seen = watch.finish();
    let programs: Vec<String> = seen.flows.values().filter_map(Flow::program).collect();
    assert!(programs.contains(&"perl".to_owned()), "{seen:?}");
    for flow in seen.flows.values() {
        let Some(process) = flow.attribution.process() else { continue };
        match flow.program().as_deref() {
            Some("perl") => {
                assert_eq!(
                    process.key.pid.to_string(),
                    String::from_utf8_lossy(&output.stdout),
                    "the child, not its parent"
                );
                assert_eq!(
                    process.ancestors.first().map(|parent| parent.executable.clone()),
                    Some(process.executable.as_ref().map(|executable| executable.path.clone()))
                );
            }
            // Both hold it; which of them is told, the other is named beside it.
            Some("dd" | "bash") => {}
            other => panic!("{other:?} sent nothing: {flow:?}"),
        }
    }
}

#[test]
fn short_lived_processes_are_named_or_unknown_but_never_wrong() {
    let Some(stage) = Stage::new() else { return };
    // Not while another test keeps every core busy.
    let _alone = namespace::alone();
    let directory = tempfile::tempdir().unwrap();
    let watch = Watch::start(&stage.network.client, "eth0");
    let lives: Vec<u64> = (0..40).map(|number| 20 + number * 1_980 / 39).collect();
    let mut running = Vec::new();
    for (number, life) in lives.iter().enumerate() {
        // A program of its own for each, told by the port it sends to.
        let program = directory.path().join(format!("sender{}", 10_000 + number));
        std::fs::copy("/usr/bin/perl", &program).unwrap();
        let script = format!(
            "use Socket; socket(S, PF_INET, SOCK_STREAM, 6); connect(S, sockaddr_in({}, inet_aton('{}'))) or die; \
             syswrite(S, 'x' x 20000); select(undef,undef,undef,{}); close S",
            10_000 + number,
            Network::SERVER,
            *life as f64 / 1_000.0
        );
        let mut command = stage.network.client.command(program.to_str().unwrap());
        running.push(command.args(["-e", &script]).stderr(Stdio::null()).spawn().unwrap());
        if running.len() >= 4 {
            assert!(running.remove(0).wait().unwrap().success());
        }
    }
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    let seen = watch.finish();
    assert_eq!(seen.wrong_owners(|key| format!("sender{}", key.remote.port)), "");
    let (total, known) = seen.flows.values().fold((0, 0), |(total, known), flow| {
        (total + flow.bytes_out, known + if flow.program().is_some() { flow.bytes_out } else { 0 })
    });
    assert!(total >= 40 * 20_000, "{total}");
    assert!(known * 100 >= total * 95, "{known} of {total} bytes: {seen:?}");
}

#[test]
fn processes_of_milliseconds_are_never_wrong() {
    let Some(stage) = Stage::new() else { return };
    let watch = Watch::start(&stage.network.client, "eth0");
    let burst = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (exec 3>/dev/udp/{}/5; echo x >&3); dd if=/dev/zero of=/dev/null count=1 status=none; done",
        Network::SERVER
    );
    assert!(stage.network.client.run("bash", &["-c", &burst]));
    let seen = watch.finish();
    assert!(seen.flows.len() >= 20, "{seen:?}");
    assert_eq!(seen.wrong_owners(|_| "bash"), "");
}

#[test]
fn a_busy_machine_hides_nobody() {
    let Some(stage) = Stage::new() else { return };
    let _alone = namespace::alone();
    let _busy = Busy::new();
    let watch = Watch::start(&stage.network.client, "eth0");
    // Each connects, leaves the sending to a child, and is gone a few milliseconds later.
    let script = format!(
        "use Socket; socket(S, PF_INET, SOCK_STREAM, 6); connect(S, sockaddr_in({}, inet_aton('{}'))) or die; \
         if (!fork) {{ syswrite(S, 'x' x 20000); exit }} wait",
        stage.sink,
        Network::SERVER
    );
    for _ in 0..20 {
        assert!(stage.network.client.run("perl", &["-e", &script]));
    }
    let seen = watch.finish();
    assert_eq!(seen.wrong_owners(|_| "perl"), "");
    let named = seen.flows.values().filter(|flow| flow.program().is_some()).count();
    // How many depends on what else the machine does; that most of them are must not.
    assert!(seen.flows.len() == 20 && named > 10, "{named} named: {seen:?}");
}

/// More work than the machine has processors for.
struct Busy(Vec<std::process::Child>);

impl Busy {
    fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Self((0..processors + 1).map(|_| spin()).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// A network, and in its server namespace somebody who takes what is sent.
struct Stage {
    network: Network,
    http: u16,
    sink: u16,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _takers: Vec<UdpSocket>,
}

impl Stage {
    fn new() -> Option<Self> {
        if namespace::unavailable().is_some() {
            return None;
        }
        let network = Network::new();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut serve = |port: u16, answer: fn(TcpStream)| {
            let (stop, path) = (Arc::clone(&stop), network.server.path());
            threads.push(std::thread::spawn(move || {
                Namespace::enter_path(&path);
                let listener = TcpListener::bind(("::", port)).unwrap();
                listener.set_nonblocking(true).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            stream.set_nonblocking(false).unwrap();
                            std::thread::spawn(move || answer(stream));
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            }));
        };
        // Datagrams need a taker, or the answer that nobody is there stops the sender.
        let path = network.server.path();
        let takers = std::thread::spawn(move || {
            Namespace::enter_path(&path);
            (9_001..9_005).map(|port| UdpSocket::bind(("::", port)).unwrap()).collect::<Vec<_>>()
        });
        let takers = takers.join().unwrap();
        serve(8_080, answer_http);
        serve(8_081, swallow);
        for port in 10_000..10_040 {
            serve(port, swallow);
        }
        let stage = Self { network, http: 8_080, sink: 8_081, stop, threads, _takers: takers };
        for port in [stage.http, 10_039] {
            let check = format!("exec 3<>/dev/tcp/{}/{port}", Network::SERVER);
            wait::until("the server", || stage.network.client.run("bash", &["-c", &check]).then_some(()));
        }
        Some(stage)
    }

    fn file(&self, size: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![b'x'; size]).unwrap();
        file
    }

    fn upload(&self, program: &str, host: &str, size: usize) {
        let (file, url) = (self.file(size), format!("http://{host}:{}/", self.http));
        let path = file.path().to_str().unwrap();
        assert!(self.network.client.run(program, &["-sS", "-m60", "--limit-rate", "4M", "-T", path, &url]), "{url}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn swallow(mut stream: TcpStream) {
    let mut buffer = [0; 65_536];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}

/// Takes one upload and says that it was taken.
fn answer_http(mut stream: TcpStream) {
    let mut received = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer) else { return };
        received.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&received);
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        if head.contains("Expect: 100-continue") && received.len() == head.len() + 4 {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
        if received.len() >= head.len() + 4 + length.unwrap_or(0) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            return;
        }
    }
}

/// Capture and resolver at work in a namespace, as the runtime wires them.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
    probe: UdpSocket,
}

/// What was sent, by flow.
#[derive(Default)]
struct Seen {
    flows: HashMap<FlowKey, Flow>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, flow) in &self.flows {
            writeln!(f, "{} {} > {}: {flow:?}", key.protocol, key.local, key.remote)?;
        }
        Ok(())
    }
}

struct Flow {
    bytes_out: u64,
    attribution: Attribution,
}

/// Short, since a failed test shows every flow.
impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.attribution {
            Attribution::Known { process, evidence } => {
                let name = self.program().unwrap_or_default();
                write!(f, "{} bytes of {name} ({}) by {evidence:?}", self.bytes_out, process.key.pid)
            }
            Attribution::Unknown(reason) => write!(f, "{} bytes, unknown: {}", self.bytes_out, reason.name()),
            Attribution::Pending { .. } => write!(f, "{} bytes, pending", self.bytes_out),
            Attribution::Suspected(_) => write!(f, "{} bytes, of suspects", self.bytes_out),
        }
    }
}

impl Watch {
    fn start(namespace: &Namespace, interface: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, interface, stopped) = (namespace.path(), interface.to_owned(), Arc::clone(&stop));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).try_init();
            // The kernel tells of processes in its first network namespace only.
            let service = Service::start(ResolverSettings { translated: Translated::Join }).unwrap();
            Namespace::enter_path(&path);
            let settings = CaptureSettings { interfaces: vec![interface], ..Default::default() };
            let capture = Capture::open(&settings).unwrap();
            ready.send(UdpSocket::bind("[::]:0").unwrap()).unwrap();
            watch(&capture, &service, &stopped)
        });
        let probe = is_ready.recv().unwrap();
        Self { stop, thread, probe }
    }

    /// Ends when everything that was sent has been captured: a last datagram tells.
    fn finish(self) -> Seen {
        let _ = self.probe.send_to(b"last", (LAST_HOST, LAST_PORT));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

const LAST_HOST: &str = Network::SERVER;
const LAST_PORT: u16 = 60_999;

fn watch(capture: &Capture, service: &Service, stop: &AtomicBool) -> Seen {
    let local = local_addresses();
    let mut fragments = Fragments::default();
    let mut seen = Seen::default();
    let mut last_seen = None;
    while !stop.load(Ordering::Relaxed) {
        if let Ok(batch) = capture.batches().recv_timeout(Duration::from_millis(5)) {
            for frame in batch.frames() {
                let Ok(packet) = decode(&frame, &mut fragments) else { continue };
                let Some((key, way)) = local.orient(&packet.five_tuple, None) else { continue };
                if key.remote.port == LAST_PORT {
                    last_seen = Some(Instant::now());
                    continue;
                }
                let flow = seen.flows.entry(key).or_insert_with(|| {
                    let direction = if way == FrameDirection::Out { Direction::Outbound } else { Direction::Inbound };
                    let lookup = Lookup { key, direction, first: packet.timestamp, last: packet.timestamp };
                    assert!(service.ask(lookup), "the resolver has no room");
                    Flow { bytes_out: 0, attribution: Attribution::Pending { since: packet.timestamp } }
                });
                if way == FrameDirection::Out {
                    flow.bytes_out += packet.bytes.0;
                }
            }
        }
        while let Ok(answer) = service.answers().try_recv() {
            seen.flows.get_mut(&answer.key).expect("only what was asked is answered").attribution = answer.attribution;
        }
        let pending = seen.flows.values().any(|flow| flow.attribution.is_pending());
        if !pending && last_seen.is_some_and(|at| at.elapsed() > Duration::from_millis(300)) {
            break;
        }
    }
    assert_eq!(capture.losses(), Default::default());
    // Neighbour discovery and the like are the kernel's own.
    seen.flows.retain(|_, flow| {
        flow.bytes_out > 0 && !matches!(flow.attribution, Attribution::Unknown(UnknownReason::Kernel))
    });
    seen
}

fn local_addresses() -> LocalAddresses {
    let addresses =
        [Network::CLIENT, Network::CLIENT_V6, "198.51.100.130"].map(|text| text.parse::<IpAddr>().unwrap().into());
    LocalAddresses::new(addresses)
}

impl Flow {
    fn program(&self) -> Option<String> {
        let name = self.attribution.process()?.executable_name()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    fn evidence(&self) -> Option<Evidence> {
        self.attribution.evidence().cloned()
    }
}

impl Seen {
    fn owned_by(&self, program: &str) -> u64 {
        self.flows.values().filter(|flow| flow.program().as_deref() == Some(program)).map(|flow| flow.bytes_out).sum()
    }

    /// The flows whose owner is known and not the one that sent them.
    fn wrong_owners<S: Into<String>>(&self, expected: impl Fn(&FlowKey) -> S) -> String {
        let mut wrong = BTreeMap::new();
        for (key, flow) in &self.flows {
            if let Some(program) = flow.program()
                && program != expected(key).into()
            {
                wrong.insert(*key, format!("{key:?}: {flow:?}"));
            }
        }
        wrong.into_values().collect::<Vec<_>>().join("\n")
    }

    fn of_remote_port(&self, port: u16) -> (&FlowKey, &Flow) {
        self.flows.iter().find(|(key, _)| key.remote.port == port).unwrap_or_else(|| panic!("no flow to port {port}"))
    }

    fn largest(&self, protocol: Protocol) -> &Flow {
        let of_protocol = self.flows.iter().filter(|(key, _)| key.protocol == protocol);
        of_protocol.map(|(_, flow)| flow).max_by_key(|flow| flow.bytes_out).unwrap_or_else(|| panic!("no {protocol}"))
    }
}
