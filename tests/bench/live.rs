//! What watching a link costs: the capture and the whole program, with the
//! rules that ship, against tcpdump on the same packets in the same run; and an
//! owner's look-up against reading `/proc/net/tcp`.
//!
//! Needs root, iproute2, iperf3 and tcpdump. A paced stream of datagrams of
//! 1,400 bytes (`EGRET_BENCH_RATE`, 1G) crosses a veth link between two
//! namespaces for some seconds; the processor time is the scheduler's own
//! count, in nanoseconds.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use egret::attribution::{Attribution, Lookup};
use egret::capture::live::{Capture, CaptureSettings};
use egret::flow::{Direction, FlowKey, Namespace};
use egret::packet::{Fragments, Protocol, decode};
use egret::resolve::{ProcessResolver, Resolver, ResolverSettings};
use egret::time::Timestamp;

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for network namespaces");
        return;
    }
    capture_against_tcpdump();
    look_up_against_proc_net();
}

/// Both watch the same link at the same time.
fn capture_against_tcpdump() {
    let link = Link::new();
    let capture = link.capture();
    let tcpdump = Contender::start(Command::new("ip").args([
        "netns",
        "exec",
        &link.client,
        "tcpdump",
        "-i",
        "eth0",
        "-s",
        "256",
        "-B",
        "16384",
        "-w",
        "/dev/null",
    ]));
    let folder = tempfile::tempdir().expect("a temporary directory");
    let log = folder.path().join("log");
    let whole = Contender::start_logging(
        link.command(&link.client, env!("CARGO_BIN_EXE_egret"))
            .args(["run", "--source", "pcap", "--interface", "eth0", "--state-dir"])
            .arg(folder.path().join("state")),
        &log,
    );
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    while !said().contains("watching") {
        assert!(whole.is_running(), "egret ended: {}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(1));
    let mut server =
        link.command(&link.server, "iperf3").args(["-s", "-1"]).stdout(Stdio::null()).spawn().expect("iperf3");
    std::thread::sleep(Duration::from_secs(1));
    let rate = std::env::var("EGRET_BENCH_RATE").unwrap_or_else(|_| "1G".to_owned());
    let mut client = link
        .command(&link.client, "iperf3")
        .args(["-c", SERVER, "-u", "-l", "1400", "-b", &rate, "-t", SECONDS])
        .stdout(Stdio::null())
        .spawn()
        .expect("iperf3");

    let (cpu_before, started) = (thread_times(OWN), Instant::now());
    let (tcpdump_before, whole_before) = (tcpdump.time(), whole.time());
    let (mut packets, mut bytes, mut fragments) = (0_u64, 0_u64, Fragments::default());
    let mut decoding = Duration::ZERO;
    while client.try_wait().expect("a child").is_none() {
        let Ok(batch) = capture.batches().recv_timeout(Duration::from_millis(100)) else { continue };
        let before = Instant::now();
        for frame in batch.frames() {
            packets += 1;
            bytes += decode(&frame, &mut fragments).map_or(0, |packet| packet.bytes.0);
        }
        decoding += before.elapsed();
    }
    let seconds = started.elapsed().as_secs_f64();
    // The end of the stream leaves the rings within their latency.
    std::thread::sleep(Duration::from_millis(300));
    while let Ok(batch) = capture.batches().try_recv() {
        packets += batch.len() as u64;
    }
    let used = |name: &str| {
        let nanos = thread_times(OWN).get(name).copied().unwrap_or_default()
            - cpu_before.get(name).copied().unwrap_or_default();
        nanos as f64 / packets as f64
    };
    let own = used("capture");
    let theirs = (tcpdump.time() - tcpdump_before) as f64 / packets as f64;
    let everything = (whole.time() - whole_before) as f64 / packets as f64;
    let losses = capture.losses();
    server.wait().expect("a child");
    println!(
        "{packets} packets, {:.0} Mbit/s, {:.0} packets a second; the kernel dropped {}",
        bytes as f64 * 8.0 / seconds / 1e6,
        packets as f64 / seconds,
        losses.kernel_dropped
    );
    println!("tcpdump  {theirs:>7.1} ns a packet");
    println!("capture  {own:>7.1} ns a packet   {:>5.2} of tcpdump", own / theirs);
    println!("egret    {everything:>7.1} ns a packet   {:>5.2} of tcpdump   at most 300 ns", everything / theirs);
    println!("decode   {:>7.1} ns a packet (wall clock)", decoding.as_nanos() as f64 / packets as f64);
    assert_eq!(losses.kernel_dropped, 0, "packets were dropped");
    assert!(!said().contains("dropping"), "egret dropped packets: {}", said());
}

/// One connection among two thousand.
fn look_up_against_proc_net() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let mut streams = Vec::new();
    while streams.len() < 2 * CONNECTIONS {
        streams.push(TcpStream::connect(address).expect("a connection"));
        streams.push(listener.accept().expect("the same").0);
    }
    let mut resolver = Resolver::open(ResolverSettings::default()).expect("a resolver");
    let stream = &streams[CONNECTIONS];
    let now = jiff::Timestamp::now().as_nanosecond();
    let now = Timestamp::from_nanos(i64::try_from(now).expect("this century"));
    let (local, remote) =
        (stream.local_addr().expect("it is open").into(), stream.peer_addr().expect("it is open").into());
    let key = FlowKey { protocol: Protocol::TCP, local, remote, namespace: Namespace::default() };
    let lookup = Lookup { key, direction: Direction::Local, first: now, last: now };
    let answer = resolver.resolve(&lookup);
    let Attribution::Known { process, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(process.key.pid, std::process::id());

    let look_up = best_of(200, || drop(resolver.resolve(&lookup)));
    let text = best_of(20, || drop(std::fs::read("/proc/self/net/tcp").expect("it is there")));
    println!("{} TCP sockets", streams.len());
    println!("reading /proc/net/tcp     {:>9.1} us", text.as_nanos() as f64 / 1e3);
    println!(
        "look-up, owner and check  {:>9.1} us   1/{:.0}",
        look_up.as_nanos() as f64 / 1e3,
        text.as_nanos() as f64 / look_up.as_nanos() as f64
    );
}

/// The shortest of many: what it costs when nothing else runs.
fn best_of(rounds: u32, mut work: impl FnMut()) -> Duration {
    let mut time = || {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    (0..rounds).map(|_| time()).min().unwrap_or_default()
}

/// A veth link between two namespaces, removed with this value.
struct Link {
    client: String,
    server: String,
}

impl Link {
    fn new() -> Self {
        let link = Self {
            client: format!("egresolve{}c", std::process::id()),
            server: format!("egresolve{}s", std::process::id()),
        };
        let Self { client, server } = &link;
        for command in [
            format!("netns add {client}"),
            format!("netns add {server}"),
            format!("link add eth0 netns {client} type veth peer name eth0 netns {server}"),
            format!("-n {client} addr add 198.51.100.1/24 dev eth0"),
            format!("-n {server} addr add {SERVER}/24 dev eth0"),
            format!("-n {client} link set eth0 up"),
            format!("-n {server} link set eth0 up"),
        ] {
            assert!(
                Command::new("ip").args(command.split(' ')).status().is_ok_and(|status| status.success()),
                "ip {command}"
            );
        }
        link
    }

    fn command(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, program]);
        command
    }

    /// A capture keeps to the namespace in which it was opened.
    fn capture(&self) -> Capture {
        let path = format!("/run/netns/{}", self.client);
        let open = move || {
            let namespace = std::fs::File::open(path).expect("the namespace was made");
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).expect("root may enter");
            let settings = CaptureSettings { interfaces: vec!["eth0".to_owned()], ..Default::default() };
            Capture::open(&settings).expect("root may capture")
        };
        std::thread::spawn(open).join().expect("it opened")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in [&self.client, &self.server] {
            // What is left over is only a name.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A process that is ended with this value.
struct Contender(Child);

impl Contender {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the contender is installed"))
    }

    /// The same, with what it says on standard error in a file.
    fn start_logging(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("room for the log");
        Self(command.stdout(Stdio::null()).stderr(log).spawn().expect("the contender is installed"))
    }

    fn is_running(&self) -> bool {
        Path::new(&format!("/proc/{}/task", self.0.id())).exists()
    }

    /// Nanoseconds on a processor, of all its threads.
    fn time(&self) -> u64 {
        thread_times(&format!("/proc/{}/task", self.0.id())).values().sum()
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nanoseconds on a processor, of each thread of a process by its name.
fn thread_times(tasks: &str) -> BTreeMap<String, u64> {
    let mut times = BTreeMap::new();
    for thread in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        let path = thread.path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        *times.entry(name.trim().to_owned()).or_default() += schedule_time(&path.join("schedstat").to_string_lossy());
    }
    times
}

fn schedule_time(path: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or_default()
}

const OWN: &str = "/proc/self/task";
const SERVER: &str = "198.51.100.2";
const SECONDS: &str = "8";
const CONNECTIONS: usize = 1_000;
