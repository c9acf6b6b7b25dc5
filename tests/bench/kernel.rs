//! What the kernel source costs: by paired differences against sockets that no
//! program looks at, in one run with our own libpcap source; what reading many
//! sockets costs; and how much memory it holds.
//!
//! Needs root, iproute2 and iperf3. One thread sends small datagrams over
//! links between two namespaces, in short blocks through each kind of socket
//! in random order, and takes its own processor time: that is robust against
//! whatever else the machine does, which throughput is not. All that a packet
//! costs on its way is paid by the sender, the receiver's side included.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use egret::capture::ebpf::{Settings, Source};
use egret::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for network namespaces and kernel programs");
        return;
    }
    if let Err(error) = Source::open(&Settings::default(), now()) {
        println!("skipped: {}", error.reason());
        return;
    }
    // `cargo bench --bench kernel packets paced` runs these parts only.
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    let lab = Lab::new();
    let small = wanted("packets").then(|| packets(&lab, SMALL)).flatten();
    if let Some(costs) = &small {
        let hook = costs.hook + costs.reader;
        goal("a packet and hook", hook, 120.0, "ns", Better::Less);
        println!("of it beyond the call of a program that does nothing: {:.1} ns", hook - costs.called);
    }
    // As long as those of the paced stream.
    let large = small.and_then(|_| packets(&lab, LARGE));
    if wanted("paced") {
        let kernel = paced(&lab, "ebpf");
        let pcap = paced(&lab, "pcap");
        goal("the kernel source's own process", kernel / 1e3, 0.05, "us a packet", Better::Less);
        if let Some(costs) = large {
            let ratio = (costs.pcap + pcap) / (costs.kernel + kernel);
            goal("libpcap source to kernel source, datagrams, path and process", ratio, 4.0, "times", Better::More);
        }
    }
    if wanted("bulk") {
        bulk(&lab);
    }
    if wanted("sockets") {
        many_sockets(&lab, 20_000);
        many_sockets(&lab, 100_000);
    }
    if wanted("memory") {
        memory(&lab);
    }
}

/// What the sources cost in the packet's path: nanoseconds a packet.
struct Costs {
    /// A program that does nothing.
    called: f64,
    /// The kernel source, the mean of both hooks.
    hook: f64,
    /// Its reader, for each packet and hook.
    reader: f64,
    /// The kernel source, at the sender's end.
    kernel: f64,
    /// The libpcap source, at the sender's end.
    pcap: f64,
}

/// Both sources at work: the kernel source in a control group, the libpcap source on the first link.
struct Sources {
    group: ControlGroup,
    reader: Reading,
    capture: Child,
}

impl Sources {
    fn start(lab: &Lab, name: &str) -> Option<Self> {
        let group = control_group(name)?;
        let settings = Settings { cgroup: Some(group.path.clone()), ..Settings::default() };
        // The source looks for a socket of its own, which it sees in that group only.
        group.enter();
        let source = Source::open(&settings, now()).expect("it opened before");
        group.leave();
        let reader = Reading::start(source);
        let capture = lab.egret(&["--source", "pcap", "--interface", "a0"]);
        std::thread::sleep(Duration::from_secs(2));
        Some(Self { group, reader, capture })
    }
}

/// A control group for a part of the bench, which is skipped where there can be none.
fn control_group(name: &str) -> Option<ControlGroup> {
    let group = ControlGroup::new(name);
    if let Err(error) = &group {
        println!("skipped: no control group of our own: {error}");
    }
    group.ok()
}

/// Datagrams with a payload of `size` bytes, by paired differences.
fn packets(lab: &Lab, size: usize) -> Option<Costs> {
    let bare = control_group("called")?;
    // What the kernel takes to call any program, which is the larger part of what ours takes.
    let _nothing = attach_nothing(&bare).expect("the kernel takes programs");
    let Sources { group, reader, mut capture } = Sources::start(lab, "counted")?;

    // A socket belongs to the group in which it was made.
    let plain = Pair::new(lab, "b", None, None);
    let tapped = Pair::new(lab, "a", None, None);
    let egress = Pair::new(lab, "b", Some(&group), None);
    let ingress = Pair::new(lab, "b", None, Some(&group));
    let both = Pair::new(lab, "b", Some(&group), Some(&group));
    let called = Pair::new(lab, "b", Some(&bare), None);
    let kinds = [&plain, &tapped, &egress, &ingress, &both, &called];
    let mut times: [Vec<f64>; 6] = Default::default();
    let reader_before = reader.time();
    for round in 0..ROUNDS + WARM_UP {
        let mut order = [0, 1, 2, 3, 4, 5];
        shuffle(&mut order, round as u64);
        for kind in order {
            let time = kinds[kind].block(size);
            if round >= WARM_UP {
                times[kind].push(time);
            }
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let sent = (BLOCK * (ROUNDS + WARM_UP)) as f64;
    // Two sockets of `both` and one of each of the others were counted.
    let kernel_process = (reader.time() - reader_before) as f64 / (4.0 * sent);
    end(&mut capture);
    let counted = reader.stop();

    let base = median(times[0].clone());
    let [tapped, egress, ingress, both, called] = [1, 2, 3, 4, 5].map(|kind| differences(&times[kind], &times[0]));
    println!(
        "\nUDP, {size} bytes: {base:.0} ns of processor time a packet without anything (median of {ROUNDS} blocks)"
    );
    println!("a program that does nothing  {called}");
    println!("kernel source, egress hook   {egress}");
    println!("kernel source, ingress hook  {ingress}");
    println!("kernel source, both hooks    {both}");
    println!("its reader                   {kernel_process:>7.1} ns a packet and hook");
    println!("libpcap source, in the path  {tapped}");
    println!("{counted} packets were counted of {}", 4.0 * sent);
    Some(Costs {
        called: called.median,
        hook: (both.median / 2.0).max((egress.median + ingress.median) / 2.0),
        reader: kernel_process,
        kernel: egress.median,
        pcap: tapped.median,
    })
}

/// A paced stream, and what Egret's own process takes for it: nanoseconds a packet.
fn paced(lab: &Lab, source: &str) -> f64 {
    let rate = std::env::var("EGRET_BENCH_RATE").unwrap_or_else(|_| "1G".to_owned());
    let mut egret = lab.egret(&["--source", source]);
    std::thread::sleep(Duration::from_secs(2));
    let mut server =
        lab.command(&lab.server, "iperf3").args(["-s", "-1"]).stdout(Stdio::null()).spawn().expect("iperf3");
    std::thread::sleep(Duration::from_secs(1));
    let before = process_time(egret.id());
    let client = lab
        .command(&lab.client, "iperf3")
        .args(["-c", SERVER_B, "-u", "-l", &LARGE.to_string(), "-b", &rate, "-t", "8", "-J"])
        .stderr(Stdio::null())
        .output()
        .expect("iperf3");
    let used = process_time(egret.id()).saturating_sub(before);
    server.wait().expect("a child");
    end(&mut egret);
    let report: serde_json::Value = serde_json::from_slice(&client.stdout).unwrap_or_default();
    let packets = report["end"]["sum"]["packets"].as_f64().unwrap_or_default();
    let bits = report["end"]["sum"]["bits_per_second"].as_f64().unwrap_or_default();
    if packets < 1_000.0 {
        println!("not measured: iperf3 sent nothing");
        return f64::NAN;
    }
    let each = used as f64 / packets;
    println!(
        "\n{source}, paced: {packets:.0} packets at {:.0} Mbit/s, {each:.1} ns of its process for each",
        bits / 1e6
    );
    each
}

/// A connection that carries much: what both sources take for 64 kB, path and process, at the sender's end.
fn bulk(lab: &Lab) {
    let Some(Sources { group, reader, mut capture }) = Sources::start(lab, "bulk") else { return };
    let mut plain = Transfer::new(lab, "b", None);
    let mut tapped = Transfer::new(lab, "a", None);
    let mut counted = Transfer::new(lab, "b", Some(&group));
    let mut times: [Vec<f64>; 3] = Default::default();
    let before = (reader.time(), process_time(capture.id()));
    for round in 0..ROUNDS + WARM_UP {
        let mut order = [0, 1, 2];
        shuffle(&mut order, round as u64);
        for kind in order {
            let time = [&mut plain, &mut tapped, &mut counted][kind].block();
            if round >= WARM_UP {
                times[kind].push(time);
            }
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let sent = (TRANSFERS * (ROUNDS + WARM_UP)) as f64;
    let kernel_process = (reader.time() - before.0) as f64 / sent;
    let pcap_process = (process_time(capture.id()) - before.1) as f64 / sent;
    end(&mut capture);
    reader.stop();
    let [tapped, counted] = [1, 2].map(|kind| differences(&times[kind], &times[0]));
    println!("\nTCP, 64 kB: {:.0} ns of processor time without anything", median(times[0].clone()));
    println!("kernel source   {counted} and {kernel_process:.1} ns of its reader");
    println!("libpcap source  {tapped} and {pcap_process:.1} ns of its process");
    let ratio = (tapped.median + pcap_process) / (counted.median + kernel_process).max(1.0);
    goal("libpcap source to kernel source, bulk, path and process", ratio, 4.0, "times", Better::More);
}

/// Reading live sockets.
fn many_sockets(lab: &Lab, count: usize) {
    let holders = (count / 625).max(1);
    let settings = Settings::default();
    let mut source = Source::open(&settings, now()).expect("it opened before");
    let mut children: Vec<Child> = Vec::new();
    for _ in 0..holders {
        let mut command = lab.command(&lab.client, generator().to_str().expect("a path of ours"));
        command.args(["hold", "to=127.0.0.1", &format!("count={}", count / holders)]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the generator");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("the generator speaks");
        children.push(child);
        // What the map holds meanwhile is of no interest.
        source.poll(now()).expect("it can be read");
    }
    let mut timed = || {
        let before = thread_time();
        source.poll(now()).expect("it can be read");
        (thread_time() - before) as f64 / 1e6
    };
    timed();
    let idle = median((0..15).map(|_| timed()).collect());
    println!("\n{count} live sockets: {idle:.2} ms of processor time a reading");
    if count <= 20_000 {
        goal("a reading", idle, 10.0, "ms", Better::Less);
    }
    let reader = Reading::start(source);
    std::thread::sleep(Duration::from_secs(2));
    let (before, begun) = (reader.time(), clock_gettime(ClockId::Monotonic));
    std::thread::sleep(Duration::from_secs(20));
    let (used, ended) = (reader.time() - before, clock_gettime(ClockId::Monotonic));
    let passed = (ended.tv_sec - begun.tv_sec) as f64 + (ended.tv_nsec - begun.tv_nsec) as f64 / 1e9;
    reader.stop();
    goal("the reader's share of a core", used as f64 / passed / 1e7, 1.0, "%", Better::Less);
    for mut child in children {
        drop(child.stdin.take());
        child.wait().expect("a child");
    }
}

/// Resident memory at rest, of the whole program with the rules that ship: the most that five of them take.
fn memory(lab: &Lab) {
    let resident = |_| {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut command = lab.command(&lab.client, env!("CARGO_BIN_EXE_egret"));
        command.args(["run", "--source", "ebpf", "--state-dir"]).arg(folder.path());
        let mut egret = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("egret starts");
        std::thread::sleep(Duration::from_secs(9));
        let status = fs::read_to_string(format!("/proc/{}/status", egret.id())).unwrap_or_default();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        end(&mut egret);
        kilobytes.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN)
    };
    let most = (0..5).map(resident).fold(0.0, f64::max);
    println!();
    goal("resident, idle, with the source loaded", most * 1024.0 / 1e6, 64.0, "MB", Better::Less);
}

#[derive(Clone, Copy, PartialEq)]
enum Better {
    Less,
    More,
}

fn goal(what: &str, value: f64, limit: f64, unit: &str, better: Better) {
    let (met, word) = match better {
        Better::Less => (value <= limit, "at most"),
        Better::More => (value >= limit, "at least"),
    };
    let verdict = if met { "met" } else { "NOT MET" };
    println!("{what}: {value:.2} {unit} (goal: {word} {limit}: {verdict})");
}

/// The median of paired differences, and its 95 % interval.
struct Difference {
    median: f64,
    around: f64,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>+7.1} ns +- {:.1}", self.median, self.around)
    }
}

fn differences(with: &[f64], without: &[f64]) -> Difference {
    let all: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
    let middle = median(all.clone());
    let deviation = 1.4826 * median(all.iter().map(|one| (one - middle).abs()).collect());
    Difference { median: middle, around: 1.96 * 1.2533 * deviation / (all.len() as f64).sqrt() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shuffle(order: &mut [usize], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    random.shuffle(order);
}

/// A sender in the client's namespace and its receiver in the server's.
struct Pair {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Pair {
    fn new(lab: &Lab, link: &str, sender: Option<&ControlGroup>, receiver: Option<&ControlGroup>) -> Self {
        let (from, to) = if link == "a" { (CLIENT_A, SERVER_A) } else { (CLIENT_B, SERVER_B) };
        let receiver =
            made_in(lab, &lab.server, receiver, move || UdpSocket::bind((to, 0)).expect("an address of ours"));
        let address = receiver.local_addr().expect("it is bound");
        // Room for one packet: the others are dropped after the programs counted them, so that their memory is used
        // again at once and the caches are as warm as behind a receiver that keeps up.
        rustix::net::sockopt::set_socket_recv_buffer_size(&receiver, 1).expect("a socket");
        receiver.set_nonblocking(true).expect("a socket");
        let sender = made_in(lab, &lab.client, sender, move || {
            let socket = UdpSocket::bind((from, 0)).expect("an address of ours");
            socket.connect(address).expect("a route");
            socket
        });
        Self { sender, receiver }
    }

    /// Nanoseconds of processor time a packet.
    fn block(&self, size: usize) -> f64 {
        let payload = vec![0_u8; size];
        let before = thread_time();
        for _ in 0..BLOCK {
            // A full queue somewhere costs the same as any other packet.
            let _ = self.sender.send(&payload);
        }
        let time = thread_time() - before;
        let mut buffer = [0_u8; LARGE];
        while self.receiver.recv(&mut buffer).is_ok() {}
        time as f64 / BLOCK as f64
    }
}

/// A connection from the client's namespace to the server's.
struct Transfer {
    sender: TcpStream,
    receiver: TcpStream,
    buffer: Vec<u8>,
}

impl Transfer {
    fn new(lab: &Lab, link: &str, sender: Option<&ControlGroup>) -> Self {
        let (from, to) = if link == "a" { (CLIENT_A, SERVER_A) } else { (CLIENT_B, SERVER_B) };
        let listener = made_in(lab, &lab.server, None, || TcpListener::bind((to, 0)).expect("an address of ours"));
        let address = listener.local_addr().expect("it is bound");
        let sender = made_in(lab, &lab.client, sender, || TcpStream::connect(address).expect("a route"));
        assert_eq!(sender.local_addr().expect("it is open").ip().to_string(), from, "the link that is meant");
        let (receiver, _) = listener.accept().expect("it is on its way");
        for socket in [&sender, &receiver] {
            socket.set_nodelay(true).expect("a socket");
        }
        Self { sender, receiver, buffer: vec![0; TRANSFER] }
    }

    /// Nanoseconds of processor time for 64 kB, sent and received.
    fn block(&mut self) -> f64 {
        let before = thread_time();
        for _ in 0..TRANSFERS {
            self.sender.write_all(&self.buffer).expect("the other end reads");
            self.receiver.read_exact(&mut self.buffer).expect("it was sent");
        }
        (thread_time() - before) as f64 / TRANSFERS as f64
    }
}

/// Makes a socket in a namespace and a control group, and leaves both.
fn made_in<T>(lab: &Lab, namespace: &str, group: Option<&ControlGroup>, make: impl FnOnce() -> T) -> T {
    let enter = |path: &Path| {
        let file = fs::File::open(path).expect("the namespace was made");
        rustix::thread::move_into_link_name_space(file.as_fd(), None).expect("root may enter");
    };
    if let Some(group) = group {
        group.enter();
    }
    enter(&Path::new("/run/netns").join(namespace));
    let socket = make();
    enter(&lab.home);
    if let Some(group) = group {
        group.leave();
    }
    socket
}

/// A control group of our own, in a mount of our own.
struct ControlGroup {
    mount: PathBuf,
    path: PathBuf,
}

impl ControlGroup {
    fn new(name: &str) -> std::io::Result<Self> {
        let mount = std::env::temp_dir().join(format!("egret-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&mount)?;
        let status = Command::new("mount").args(["-t", "cgroup2", "none"]).arg(&mount).status()?;
        if !status.success() {
            return Err(std::io::Error::other("cgroup2 cannot be mounted"));
        }
        let path = mount.join(format!("egret-bench-{name}-{}", std::process::id()));
        let group = Self { mount, path };
        fs::create_dir(&group.path)?;
        Ok(group)
    }

    fn enter(&self) {
        fs::write(self.path.join("cgroup.procs"), "0").expect("root may move itself");
    }

    fn leave(&self) {
        fs::write(self.mount.join("cgroup.procs"), "0").expect("root may move itself");
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // What is left is an empty group, which the next boot removes.
        let _ = fs::remove_dir(&self.path);
        let _ = Command::new("umount").arg(&self.mount).status();
        let _ = fs::remove_dir(&self.mount);
    }
}

/// Attaches a program of two instructions, which lets every packet out, for as long as the descriptors are open.
fn attach_nothing(group: &ControlGroup) -> std::io::Result<[OwnedFd; 2]> {
    const PROG_LOAD: i32 = 5;
    const LINK_CREATE: i32 = 28;
    const CGROUP_SKB: u32 = 8;
    const CGROUP_INET_EGRESS: u32 = 1;
    let call = |command: i32, attribute: &[u64; 16]| {
        // SAFETY: the attribute is larger than what the command reads, and what it points to outlives the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(attribute)) };
        match i32::try_from(result) {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    let words = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    // r0 = 1; exit
    let instructions = [0x0000_0001_0000_00b7_u64, 0x0000_0000_0000_0095];
    let mut load = [0; 16];
    load[0] = words(CGROUP_SKB, 2);
    load[1] = instructions.as_ptr() as u64;
    load[2] = c"GPL".as_ptr() as u64;
    load[8] = words(0, CGROUP_INET_EGRESS);
    let program = call(PROG_LOAD, &load)?;
    let directory = fs::File::open(&group.path)?;
    let mut link = [0; 16];
    link[0] = words(program.as_raw_fd().cast_unsigned(), directory.as_raw_fd().cast_unsigned());
    link[1] = words(CGROUP_INET_EGRESS, 0);
    let link = call(LINK_CREATE, &link)?;
    Ok([program, link])
}

/// A thread that reads the source as Egret does.
struct Reading {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
    pid: rustix::process::Pid,
}

impl Reading {
    fn start(mut source: Source) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            sender.send(rustix::thread::gettid()).expect("somebody listens");
            let mut packets = 0;
            while !stopped.load(Ordering::Relaxed) {
                let interval = source.interval();
                source.wait(interval).expect("it can be waited for");
                let batch = source.poll(now()).expect("it can be read");
                packets += batch
                    .updates
                    .iter()
                    .map(|update| update.counters.packets_out.0 + update.counters.packets_in.0)
                    .sum::<u64>();
            }
            packets
        });
        Self { stop, thread, pid: receiver.recv().expect("it says so at once") }
    }

    fn time(&self) -> u64 {
        schedule_time(&format!("/proc/self/task/{}/schedstat", self.pid))
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only reads")
    }
}

/// Two namespaces with two links between them, removed with this value.
struct Lab {
    client: String,
    server: String,
    home: PathBuf,
}

impl Lab {
    fn new() -> Self {
        let [client, server] = ["c", "s"].map(|role| format!("egretbench{}{role}", std::process::id()));
        let lab = Self { client, server, home: format!("/proc/{}/ns/net", std::process::id()).into() };
        let Self { client, server, .. } = &lab;
        for command in [
            format!("netns add {client}"),
            format!("netns add {server}"),
            format!("-n {client} link set lo up"),
            format!("link add a0 netns {client} type veth peer name a1 netns {server}"),
            format!("link add b0 netns {client} type veth peer name b1 netns {server}"),
            format!("-n {client} addr add {CLIENT_A}/24 dev a0"),
            format!("-n {server} addr add {SERVER_A}/24 dev a1"),
            format!("-n {client} addr add {CLIENT_B}/24 dev b0"),
            format!("-n {server} addr add {SERVER_B}/24 dev b1"),
            format!("-n {client} link set a0 up"),
            format!("-n {server} link set a1 up"),
            format!("-n {client} link set b0 up"),
            format!("-n {server} link set b1 up"),
        ] {
            let status = Command::new("ip").args(command.split(' ')).status();
            assert!(status.is_ok_and(|status| status.success()), "ip {command}");
        }
        lab
    }

    fn command(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
        command
    }

    /// `egret flows --live` in the client's namespace.
    fn egret(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(&self.client, env!("CARGO_BIN_EXE_egret"));
        command.args(["flows", "--live", "600", "--output", "json"]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("egret")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.client, &self.server] {
            // What is left over is only a name.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn generator() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/generators/traffic.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-traffic");
        let status = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status();
        assert!(status.is_ok_and(|status| status.success()), "cc compiles the generator");
        program
    })
}

fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    let _ = child.wait();
}

/// Nanoseconds on a processor of all threads of a process.
fn process_time(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| schedule_time(&thread.path().join("schedstat").to_string_lossy())).sum()
}

fn schedule_time(path: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or_default()
}

fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
}

fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Realtime);
    Timestamp::from_nanos(time.tv_sec * 1_000_000_000 + time.tv_nsec)
}

const CLIENT_A: &str = "198.51.100.1";
const SERVER_A: &str = "198.51.100.2";
const CLIENT_B: &str = "203.0.113.1";
const SERVER_B: &str = "203.0.113.2";

/// Bytes of payload.
const SMALL: usize = 64;
const LARGE: usize = 1_400;

/// What a connection carries at a time, and how often in a block.
const TRANSFER: usize = 65_536;
const TRANSFERS: usize = 256;

/// Packets of a block, and blocks of each kind.
const BLOCK: usize = 4096;
const ROUNDS: usize = 200;
const WARM_UP: usize = 5;
