//! The tools that are measured: Egret with either source, NetHogs and bandwhich.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::namespace::Namespace;
use crate::support::process::Running;
use crate::support::traffic::descriptors;
use crate::support::wait;

/// Bytes, seen from a generator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub out: u64,
    pub into: u64,
}

/// What a tool says of one executable.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// `None` where the tool does not count payload.
    pub payload: Option<Usage>,
    pub wire: Usage,
}

/// What a tool says of a whole trial.
#[derive(Debug, Default)]
pub struct Findings {
    pub by_executable: BTreeMap<PathBuf, Seen>,
    /// Bytes between the test's addresses that went to a program of somebody else's.
    pub wrong: Usage,
}

/// Something that watches a trial from its beginning to its end.
pub trait Tool {
    fn name(&self) -> &'static str;
    fn finish(self: Box<Self>) -> Findings;
}

/// `egret flows --live`, with one of its sources.
pub struct Egret {
    name: &'static str,
    process: Running,
    directory: PathBuf,
    /// The kernel source sees those of every other test as well.
    namespaces: Vec<u32>,
}

impl Egret {
    /// Starts it in the client's namespace, and waits until it watches.
    pub fn start(source: &str, network: [&Namespace; 3], directory: &Path) -> Result<Self, String> {
        let namespaces = network.map(Namespace::number).to_vec();
        let [client, ..] = network;
        let name = if source == "ebpf" { "egret ebpf" } else { "egret pcap" };
        let mut command = client.command(env!("CARGO_BIN_EXE_egret"));
        command.args(["flows", "--live", "3600", "--source", source, "--output", "json"]);
        let mut process = Running::start(&format!("egret-{source}"), command, directory);
        let pid = process.pid();
        // A kernel source attaches its programs, and both open a packet socket for what they look at.
        let is_at_work = || match source {
            "ebpf" => descriptors(pid, "anon_inode:bpf_link").len() >= 9,
            _ => has_packet_socket(pid),
        };
        let outcome = wait::until("egret to watch", || {
            let ended = process.status();
            let watches = process.errors().contains("watching ") && is_at_work();
            if watches { Some(None) } else { ended.map(Some) }
        });
        match outcome {
            None => Ok(Self { name, process, directory: directory.to_owned(), namespaces }),
            Some(status) => Err(format!("{status}: {}", process.errors().trim())),
        }
    }
}

impl Tool for Egret {
    fn name(&self) -> &'static str {
        self.name
    }

    fn finish(self: Box<Self>) -> Findings {
        let mut this = *self;
        this.process.signal(Signal::INT);
        assert!(this.process.wait_within(wait::PATIENCE).success(), "{}", this.process.errors());
        let mut findings = Findings::default();
        for line in this.process.output().lines() {
            let flow: serde_json::Value = serde_json::from_str(line).expect("egret prints JSON");
            let elsewhere = flow["netns"]
                .as_u64()
                .is_some_and(|number| !this.namespaces.iter().any(|known| u64::from(*known) == number));
            if flow.get("summary").is_some() || elsewhere || !is_ours(&flow) {
                continue;
            }
            let Some(executable) = flow["owner"]["exe"].as_str() else { continue };
            let number = |key: &str| flow[key].as_u64().unwrap_or_default();
            if Path::new(executable).starts_with(&this.directory) {
                let seen = findings.by_executable.entry(executable.into()).or_default();
                let payload = seen.payload.get_or_insert_default();
                payload.out += number("payload_out");
                payload.into += number("payload_in");
                seen.wire.out += number("bytes_out");
                seen.wire.into += number("bytes_in");
            } else {
                findings.wrong.out += number("bytes_out");
                findings.wrong.into += number("bytes_in");
            }
        }
        findings
    }
}

/// Whether a flow is between the test's own addresses.
fn is_ours(flow: &serde_json::Value) -> bool {
    let ours = |key: &str| {
        flow[key]
            .as_str()
            .is_some_and(|ip| ["198.51.100.", "203.0.113.", "2001:db8:"].iter().any(|network| ip.starts_with(network)))
    };
    let local = ["local_port", "remote_port"].iter().any(|key| flow[*key] == 7000);
    // Frames of a packet socket have no addresses, those of the loopback scenario are everybody's.
    ours("local_ip") || ours("remote_ip") || local || flow["proto"] == 255
}

/// `bandwhich` in raw mode: a line of totals for each program at each refresh.
pub struct Bandwhich {
    process: Running,
    directory: PathBuf,
}

impl Bandwhich {
    /// Starts it in the client's namespace, and waits until it watches.
    pub fn start(client: &Namespace, directory: &Path) -> Result<Self, String> {
        // `tests/setup accuracy` builds it beside the tests, since Debian has no package of it.
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../peers/bandwhich/bin/bandwhich");
        let program = if built.exists() { built.to_string_lossy().into_owned() } else { "bandwhich".to_owned() };
        if Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err("not installed".into());
        }
        let mut command = client.command(&program);
        command.args(["--raw", "--processes", "--no-resolve", "--total-utilization"]);
        let mut process = Running::start("bandwhich", command, directory);
        let pid = process.pid();
        let outcome = wait::until("bandwhich to watch", || {
            let ended = process.status();
            if has_packet_socket(pid) { Some(None) } else { ended.map(Some) }
        });
        match outcome {
            None => Ok(Self { process, directory: directory.to_owned() }),
            Some(status) => Err(format!("{status}: {}", process.errors().trim())),
        }
    }
}

impl Tool for Bandwhich {
    fn name(&self) -> &'static str {
        "bandwhich"
    }

    fn finish(self: Box<Self>) -> Findings {
        let mut this = *self;
        // Its totals are sums of means over the last five seconds: they are whole five quiet seconds later.
        wait_for_refreshes(&this.process, 8);
        // It ends by a key or by this; where the tests run in the background, an interrupt is ignored.
        this.process.signal(Signal::TERM);
        this.process.wait_within(wait::PATIENCE);
        let mut findings = Findings::default();
        for (name, usage) in totals_of_bandwhich(&this.process.output()) {
            let seen = findings.by_executable.entry(this.directory.join(name)).or_default();
            seen.wire = usage;
        }
        findings
    }
}

/// What `bandwhich --raw --processes --total-utilization` said of each program:
/// `process: <TIME> "NAME" up/down Bps: SENT/RECEIVED connections: N`, where the
/// numbers are totals whatever they are called, and only grow.
fn totals_of_bandwhich(output: &str) -> BTreeMap<String, Usage> {
    let mut totals: BTreeMap<String, Usage> = BTreeMap::new();
    let number = |text: &str| text.parse::<u64>().unwrap_or_default();
    for line in output.lines() {
        let of_line = || {
            let (_, rest) = line.strip_prefix("process: ")?.split_once('"')?;
            let (name, rest) = rest.split_once('"')?;
            let (_, numbers) = rest.split_once("Bps: ")?;
            Some((name, numbers.split_whitespace().next()?.split_once('/')?))
        };
        if let Some((name, (sent, received))) = of_line() {
            let usage = totals.entry(name.to_owned()).or_default();
            usage.out = usage.out.max(number(sent));
            usage.into = usage.into.max(number(received));
        }
    }
    totals
}

#[test]
fn what_bandwhich_prints_is_understood() {
    // Its own words, of 0.23.1, with two senders of 5,000,000 and 500,000 bytes, the second too short for it.
    let output = "Refreshing:\n<NO TRAFFIC>\n\nRefreshing:\n\
        process: <1795739401> \"accuracy-s02\" up/down Bps: 2097239/0 connections: 1\n\nRefreshing:\n\
        process: <1795739402> \"accuracy-s02\" up/down Bps: 2897565/120 connections: 0\n\
        process: <1795739402> \"<UNKNOWN>\" up/down Bps: 294267/0 connections: 2\n";
    let totals = totals_of_bandwhich(output);
    assert_eq!(totals["accuracy-s02"], Usage { out: 2_897_565, into: 120 });
    assert_eq!(totals.keys().collect::<Vec<_>>(), ["<UNKNOWN>", "accuracy-s02"]);
}

/// `nethogs` in trace mode: a line of totals for each program at each refresh.
pub struct NetHogs {
    process: Running,
    directory: PathBuf,
}

impl NetHogs {
    /// Starts it in the client's namespace, and waits until it watches.
    pub fn start(client: &Namespace, directory: &Path) -> Result<Self, String> {
        if Command::new("nethogs").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err("not installed".into());
        }
        let mut command = client.command("nethogs");
        // Totals in bytes, TCP and UDP, every device, each second.
        command.args(["-t", "-C", "-a", "-v", "2", "-d", "1"]);
        let mut process = Running::start("nethogs", command, directory);
        let pid = process.pid();
        let outcome = wait::until("nethogs to watch", || {
            let ended = process.status();
            if has_packet_socket(pid) { Some(None) } else { ended.map(Some) }
        });
        match outcome {
            None => Ok(Self { process, directory: directory.to_owned() }),
            Some(status) => Err(format!("{status}: {}", process.errors().trim())),
        }
    }
}

impl Tool for NetHogs {
    fn name(&self) -> &'static str {
        "nethogs"
    }

    fn finish(self: Box<Self>) -> Findings {
        let mut this = *self;
        // It shows what passed until its last refresh.
        wait_for_refreshes(&this.process, 2);
        this.process.signal(Signal::INT);
        this.process.wait_within(wait::PATIENCE);
        // PROGRAM/PID/UID, sent, received; totals of a process that only grow.
        let mut by_process: BTreeMap<String, Usage> = BTreeMap::new();
        for line in this.process.output().lines() {
            let mut fields = line.split('\t');
            let (Some(process), Some(sent), Some(received)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let number = |text: &str| text.trim().parse::<f64>().map_or(0, |value| value as u64);
            let usage = by_process.entry(process.to_owned()).or_default();
            usage.out = usage.out.max(number(sent));
            usage.into = usage.into.max(number(received));
        }
        let mut findings = Findings::default();
        for (process, usage) in by_process {
            // The arguments may hold slashes too: the program is what stands before the first blank.
            let program = process.split(' ').next().unwrap_or_default();
            let Some(name) = program.strip_prefix(&format!("{}/", this.directory.display())) else { continue };
            let name = name.split('/').next().unwrap_or_default();
            let seen = findings.by_executable.entry(this.directory.join(name)).or_default();
            seen.wire.out += usage.out;
            seen.wire.into += usage.into;
        }
        findings
    }
}

/// Both tools print once a second, and say so.
fn wait_for_refreshes(process: &Running, more: usize) {
    let refreshes = || process.output().matches("Refreshing").count();
    let now = refreshes();
    wait::until("the tool to refresh", || (refreshes() >= now + more).then_some(()));
}

/// Whether the process has a packet socket that is bound: until then it has no protocol.
fn has_packet_socket(pid: u32) -> bool {
    let table = fs::read_to_string(format!("/proc/{pid}/net/packet")).unwrap_or_default();
    let sockets: Vec<String> = descriptors(pid, "socket:[");
    table
        .lines()
        .filter(|line| line.contains(" 0003 "))
        .filter_map(|line| line.split_whitespace().last())
        .any(|inode| sockets.iter().any(|socket| socket == &format!("socket:[{inode}]")))
}
