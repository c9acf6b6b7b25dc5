//! A running `egret run`, its configuration, its rules and what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::namespace::Namespace;
use crate::support::process::Running;
use crate::support::wait;

/// The two live sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Pcap,
    /// libpcap on every interface, the loopback among them.
    PcapEverywhere,
    Kernel,
    /// The kernel source as it is before Linux 6.3.
    KernelWithoutPacketSockets,
}

impl Source {
    pub const ALL: [Self; 2] = [Self::Pcap, Self::Kernel];

    /// The word for it in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcap | Self::PcapEverywhere => "pcap",
            Self::Kernel | Self::KernelWithoutPacketSockets => "ebpf",
        }
    }

    /// What `capture:` says of it. The kernel counts on every interface, and on those of every other test.
    fn settings(self) -> &'static str {
        match self {
            Self::Pcap => "{source: pcap, interfaces: [eth0]}",
            Self::PcapEverywhere => "{source: pcap}",
            Self::Kernel => "{source: ebpf}",
            Self::KernelWithoutPacketSockets => "{source: ebpf, packet_sockets: false}",
        }
    }

    /// The same as arguments.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Pcap => &["--source", "pcap", "--interface", "eth0"],
            Self::PcapEverywhere => &["--source", "pcap"],
            Self::Kernel | Self::KernelWithoutPacketSockets => &["--source", "ebpf"],
        }
    }
}

/// The daemon in a namespace.
pub struct Egret {
    running: Running,
    rules: PathBuf,
    alerts: PathBuf,
}

impl Egret {
    /// Starts it with a rule file and outputs of the test's own, and waits until it captures.
    ///
    /// `outputs` is the content of `outputs:`, two spaces deep; `alerts`, a file of JSON lines, is there already.
    pub fn start(namespace: &Namespace, directory: &Path, source: Source, rules: &str, outputs: &str) -> Self {
        let rule_folder = directory.join("rules");
        fs::create_dir_all(&rule_folder).expect("the test's directory is writable");
        let rule_file = rule_folder.join("rules.yaml");
        fs::write(&rule_file, rules).expect("the test's directory is writable");
        Self::start_with(namespace, directory, source, &rule_folder, rule_file.clone(), outputs)
    }

    /// Starts it with a folder of rules.
    pub fn with_rules(namespace: &Namespace, directory: &Path, source: Source, rules: &Path) -> Self {
        Self::start_with(namespace, directory, source, rules, PathBuf::new(), "")
    }

    fn start_with(
        namespace: &Namespace,
        directory: &Path,
        source: Source,
        rule_folder: &Path,
        rules: PathBuf,
        outputs: &str,
    ) -> Self {
        let alerts = directory.join("alerts.jsonl");
        let configuration = directory.join("egret.yaml");
        let names: Vec<&str> = outputs
            .lines()
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.trim().split(':').next())
            .collect();
        let text = format!(
            "capture: {capture}\n\
             rules: [{rules}]\n\
             state_dir: {state}\n\
             outputs:\n  alerts: {{type: file, path: {alerts}, format: json}}\n{outputs}\n\
             routing: {{defaults: {{outputs: [{names}], group_wait: 0s}}}}\n",
            capture = source.settings(),
            rules = rule_folder.display(),
            state = directory.join("state").display(),
            alerts = alerts.display(),
            names = [&["alerts"], names.as_slice()].concat().join(", "),
        );
        fs::write(&configuration, text).expect("the test's directory is writable");
        let mut command = namespace.command(env!("CARGO_BIN_EXE_egret"));
        command.arg("run").arg("--config").arg(&configuration);
        let running = Running::start("egret", command, directory);
        let mut egret = Self { running, rules, alerts };
        wait::until("egret to capture", || {
            egret.running.assert_alive();
            egret.running.errors().contains("watching").then_some(())
        });
        egret
    }

    /// Every notification so far.
    pub fn notifications(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.alerts).unwrap_or_default();
        // The last line may still be on its way to the file.
        text.split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The notifications that an alert began to fire.
    pub fn firing(&self) -> Vec<Value> {
        let mut all = self.notifications();
        all.retain(|notification| notification["type"] == "alert.firing");
        all
    }

    /// Waits for an alert to fire that `wanted` accepts.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, || {
            self.running.assert_alive();
            self.firing().into_iter().find(|notification| wanted(&notification["data"]))
        })["data"]
            .take()
    }

    /// An alert that `wanted` accepts, if one fires within some seconds.
    pub fn wait_briefly(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            self.running.assert_alive();
            let found = self.firing().into_iter().find(|notification| wanted(&notification["data"]));
            if found.is_some() || Instant::now() > deadline {
                return found.map(|mut notification| notification["data"].take());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Replaces the rules in the file, as an editor does: a new file under the old name.
    pub fn write_rules(&self, rules: &str) {
        let new = self.rules.with_extension("new");
        fs::write(&new, rules).expect("the test's directory is writable");
        fs::rename(&new, &self.rules).expect("the test's directory is writable");
    }

    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Whether one of its threads runs before all ordinary ones (proc_pid_stat(5), field 41).
    pub fn is_real_time(&self, thread: &str) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.running.pid())).expect("it runs");
        let of = |task: &Path, file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
        tasks.flatten().map(|task| task.path()).filter(|task| of(task, "comm").trim() == thread).any(|task| {
            let stat = of(&task, "stat");
            let policy = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(38));
            policy.is_some_and(|policy| policy != "0")
        })
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.running.errors()
    }

    /// SIGTERM: it must flush and end well within ten seconds.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.running.wait_within(Duration::from_secs(10));
        assert!(status.success(), "SIGTERM ended it with {status}:\n{}", self.log());
    }
}

/// `egret` with arguments, run inside a namespace.
pub fn command(namespace: &Namespace, arguments: &[&str]) -> Command {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_egret"));
    command.args(arguments);
    command
}
