//! The attack commands of the shared data and the world they run in: a client
//! that has what they steal, and a server that stands in for every place they
//! send it to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::support::certificates::Certificates;
use crate::support::data;
use crate::support::namespace::Network;
use crate::support::sinks::{NameServer, Sink, SshServer};

/// `attack/scenarios.json`.
#[derive(Debug, Deserialize)]
pub struct Scenarios {
    pub artifact_bytes: usize,
    pub small_file_bytes: usize,
    pub scenarios: Vec<Scenario>,
}

/// One command, and what must be seen of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Scenario {
    pub test: String,
    pub command: String,
    pub process_name: Vec<String>,
    pub protocol: String,
    pub port: u16,
    pub min_payload_bytes_out: u64,
    pub measured: Measured,
}

/// What was counted when the data was made.
#[derive(Debug, Clone, Deserialize)]
pub struct Measured {
    pub ip_bytes_out: u64,
}

impl Scenarios {
    /// The commands, or `None` with a printed reason where the data is absent.
    pub fn load() -> Option<Self> {
        let path = data::path("attack/scenarios.json")?;
        let text = fs::read(path).expect("the file was there a moment ago");
        Some(serde_json::from_slice(&text).expect("the shared data is sound"))
    }
}

/// The two hosts, and everything that listens on the second.
pub struct World {
    pub network: Network,
    home: PathBuf,
    work: PathBuf,
    authority: PathBuf,
    etc: PathBuf,
    _sinks: Vec<Sink>,
    _name_server: NameServer,
    _ssh: SshServer,
}

/// Every name that a command mentions.
const NAMES: [&str; 5] = ["target.example.com", "victim-host", "file.io", "discord.com", "www.google.com"];

impl World {
    pub fn new(directory: &Path, scenarios: &Scenarios) -> Self {
        let network = Network::new();
        let certificates = Certificates::new(directory, &NAMES);
        let (home, work) = (directory.join("home"), directory.join("work"));
        fs::create_dir_all(&work).expect("the test's directory is writable");
        // Not compressible, and the same each time.
        let bytes = |length: usize| -> Vec<u8> {
            let mut state = 1_u64;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            };
            (0..length).map(|_| next()).collect()
        };
        fs::write(work.join("artifact"), bytes(scenarios.artifact_bytes)).expect("the test's directory is writable");
        fs::write(work.join("small"), bytes(scenarios.small_file_bytes)).expect("the test's directory is writable");

        let etc = Path::new("/etc/netns").join(&network.client.name);
        fs::create_dir_all(&etc).expect("root may write below /etc/netns");
        let hosts: String = NAMES.iter().map(|name| format!("{} {name}\n", Network::SERVER)).collect();
        fs::write(etc.join("hosts"), format!("127.0.0.1 localhost\n{hosts}")).expect("root may write there");
        let resolver = format!("nameserver {}\noptions timeout:1\n", Network::SERVER);
        fs::write(etc.join("resolv.conf"), resolver).expect("root may write there");

        let server = &network.server;
        let at = |port: u16| format!("{}:{port}", Network::SERVER);
        let sinks = vec![
            Sink::http(server, &at(80)),
            Sink::https(server, &at(443), &certificates),
            Sink::tcp(server, &at(8443)),
        ];
        let name_server = NameServer::start(server, Network::SERVER, Network::SERVER, directory);
        let ssh = SshServer::start(server, Network::SERVER, &home, directory);
        let authority = certificates.authority;
        Self { network, home, work, authority, etc, _sinks: sinks, _name_server: name_server, _ssh: ssh }
    }

    /// Runs a scenario's command on the client and waits for its end.
    pub fn run(&self, scenario: &Scenario) {
        let file = |name: &str| self.work.join(name).display().to_string();
        let command = scenario
            .command
            .replace("ARTIFACT", &file("artifact"))
            .replace("FILE", &file("small"))
            .replace("user@victim-host:/path", &format!("root@victim-host:{}", file("stolen")))
            .replace("SERVER", Network::SERVER);
        let script = format!("mount --bind {} /root && cd {} && {command}", self.home.display(), self.work.display());
        let output = Command::new("ip")
            .args(["netns", "exec", &self.network.client.name, "timeout", "60", "bash", "-c", &script])
            .env("CURL_CA_BUNDLE", &self.authority)
            .stdin(Stdio::null())
            .output()
            .expect("iproute2 is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}: {said}", scenario.test, output.status);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A leftover below /etc/netns has no effect without its namespace.
        let _ = fs::remove_dir_all(&self.etc);
    }
}
