//! Two hosts on one machine: network namespaces joined by a veth pair, with
//! addresses of the documentation. Nothing in them reaches any other network.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::wait;

/// Why namespaces cannot be made here, printed; `None` where they can.
pub fn unavailable() -> Option<&'static str> {
    let reason = if !rustix::process::geteuid().is_root() {
        "skipped: needs root for network namespaces"
    } else if !Command::new("ip").arg("-V").output().is_ok_and(|found| found.status.success()) {
        "skipped: needs iproute2"
    } else {
        return None;
    };
    eprintln!("{reason}");
    Some(reason)
}

/// Held by tests with the kernel source, which would see each other's traffic.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed while it held this has left nothing behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client and a server, each in a namespace of its own; `eth0` of each leads to the other.
pub struct Network {
    pub client: Namespace,
    pub server: Namespace,
}

impl Network {
    pub const CLIENT: &'static str = "198.51.100.2";
    pub const SERVER: &'static str = "203.0.113.7";
    /// The address of a namespace behind the client, which the server can answer.
    pub const CONTAINER: &'static str = "198.51.100.88";
    pub const CLIENT_V6: &'static str = "2001:db8:1::2";
    pub const SERVER_V6: &'static str = "2001:db8:2::7";

    /// The two namespaces, connected and with every address in use.
    pub fn new() -> Self {
        let network = Self { client: Namespace::new("c"), server: Namespace::new("s") };
        let (client, server) = (network.client.name.as_str(), network.server.name.as_str());
        ip(&format!("link add eth0 netns {client} type veth peer name eth0 netns {server}"));
        for (name, addresses, peers) in [
            (client, [Self::CLIENT, Self::CLIENT_V6], [Self::SERVER, Self::SERVER_V6]),
            (server, [Self::SERVER, Self::SERVER_V6], [Self::CLIENT, Self::CLIENT_V6]),
        ] {
            ip(&format!("-n {name} link set eth0 up"));
            for (address, peer) in addresses.iter().zip(peers) {
                let (length, check) = if address.contains(':') { (128, " nodad") } else { (32, "") };
                ip(&format!("-n {name} addr add {address}/{length} dev eth0{check}"));
                ip(&format!("-n {name} route add {peer}/{length} dev eth0"));
            }
        }
        ip(&format!("-n {server} route add {}/32 dev eth0", Self::CONTAINER));
        // The server asks for that address, and the client answers on its behalf.
        assert!(network.client.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/proxy_arp"]));
        wait::until("the link between the namespaces", || {
            let ping = network.client.run("ping", &["-q", "-c1", "-W1", Self::SERVER]);
            let ping_v6 = network.client.run("ping", &["-q", "-c1", "-W1", Self::SERVER_V6]);
            (ping && ping_v6).then_some(())
        });
        network
    }
}

/// A network namespace that is removed with its owner.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("egproject{}{role}{number}", std::process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        ip(&format!("-n {} link set lo up", namespace.name));
        // A new namespace inherits these from the host, which may be a router.
        let stop = "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding";
        assert!(namespace.run("sh", &["-c", stop]), "{} forwards", namespace.name);
        namespace
    }

    /// Its inode number, by which the kernel names it.
    pub fn number(&self) -> u32 {
        let metadata = std::fs::metadata(self.path()).expect("the namespace lives as long as its owner");
        u32::try_from(std::os::unix::fs::MetadataExt::ino(&metadata)).expect("namespace numbers have 32 bits")
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside; its process keeps the pid that the spawned child has.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a program inside and tells whether it went well.
    pub fn run(&self, program: &str, arguments: &[&str]) -> bool {
        self.command(program).args(arguments).output().is_ok_and(|output| output.status.success())
    }

    /// Moves the calling thread inside; sockets that it opens stay there.
    pub fn enter(&self) {
        Self::enter_path(&self.path());
    }

    /// Moves the calling thread into the namespace that a file stands for.
    pub fn enter_path(path: &Path) {
        let file = File::open(path).expect("the namespace lives as long as its owner");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter a namespace");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left over after a failure here is only a name.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Runs `ip` and panics with what it said if it fails.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
}
