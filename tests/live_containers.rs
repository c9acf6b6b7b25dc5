//! Containers that real runtimes run: Podman, containerd by its own client, and a pod as a kubelet starts it.
//!
//! The runtimes keep what they know in the places where they keep it on any host: that is what is read.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::namespace::{self, Network};
use crate::support::process::Running;
use crate::support::sinks::Sink;
use crate::support::wait;

const IMAGE: &str = "localhost/egret-test:1";

/// Some bytes, over some seconds, so that look-ups find the sender too.
const SEND: &str = "i=0; while [ $i -lt 20 ]; do echo 0123456789; sleep 0.1; i=$((i + 1)); done | nc 203.0.113.7 7000";

#[test]
fn a_container_of_podman_is_named() {
    let Some(site) = Site::new(&["podman", "runc"]) else { return };
    // One of the runtimes refuses hosts with both versions of control groups; limits need rights that a
    // container around this one may not have.
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc"]).args(arguments);
        command.output().expect("podman is installed")
    };
    let name = format!("egret-test-{}", std::process::id());
    let loaded = podman(&["load", "-q", "-i", site.image.to_str().unwrap()]);
    if !loaded.status.success() {
        eprintln!("skipped: podman cannot load an image here: {}", String::from_utf8_lossy(&loaded.stderr));
        return;
    }
    let network = format!("ns:{}", site.network.client.path().display());
    let run = ["run", "--rm", "--name", &name, "--network", &network, "--ulimit", "nofile=1024:1024"];
    let run = [run.as_slice(), &["--ulimit", "nproc=1024:1024", IMAGE, "/bin/sh", "-c"]].concat();
    let tried = podman(&[run.as_slice(), &["true"]].concat());
    let cleaned = || podman(&["rmi", "-f", IMAGE]);
    if !tried.status.success() {
        cleaned();
        eprintln!("skipped: podman cannot run a container here: {}", String::from_utf8_lossy(&tried.stderr));
        return;
    }
    for source in ["pcap", "ebpf"] {
        let Some(watch) = Watch::start(&site, source) else { continue };
        let sent = podman(&[run.as_slice(), &[SEND]].concat());
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        let container = watch.container("podman");
        assert_eq!((&container["name"], &container["image"]), (&json!(name), &json!(IMAGE)), "{source}: {container}");
    }
    cleaned();
}

#[test]
fn containers_of_containerd_are_named() {
    let Some(site) = Site::new(&["containerd", "ctr", "runc"]) else { return };
    let Some(_containerd) = Containerd::start(&site) else { return };
    let name = format!("web-{}", std::process::id());
    let client = |arguments: &[&str]| {
        let output = Command::new("ctr").args(arguments).output().expect("ctr is installed");
        assert!(output.status.success(), "ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    client(&["images", "import", site.image.to_str().unwrap()]);
    for source in ["pcap", "ebpf"] {
        let Some(watch) = Watch::start(&site, source) else { continue };
        client(&["run", "--rm", "--net-host", "--label", "team=shop", IMAGE, &name, "/bin/sh", "-c", SEND]);
        let container = watch.container("containerd");
        let expected = [("id", &name[..]), ("name", &name), ("image", IMAGE)];
        for (key, value) in expected {
            assert_eq!(container[key], value, "{source}: {container}");
        }
        assert!(
            container["labels"].as_array().is_some_and(|labels| labels.contains(&json!("team=shop"))),
            "{container}"
        );
    }
}

#[test]
fn a_pod_of_containerd_is_named() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/python/bin/python");
    if !Command::new(&python).args(["-c", "import grpc"]).output().is_ok_and(|found| found.status.success()) {
        eprintln!("skipped: needs a Python with grpcio, which `tests/setup test` makes");
        return;
    }
    let Some(site) = Site::new(&["containerd", "ctr", "runc"]) else { return };
    let Some(containerd) = Containerd::start(&site) else { return };
    let imported = Command::new("ctr").args(["-n", "k8s.io", "images", "import"]).arg(&site.image).output().unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let script = site.folder.path().join("kubelet.py");
    fs::write(&script, KUBELET).unwrap();
    for source in ["pcap", "ebpf"] {
        let Some(watch) = Watch::start(&site, source) else { continue };
        let mut kubelet = Command::new(&python)
            .arg(&script)
            .args([SOCKET, IMAGE, "/bin/sh", "-c", SEND])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let container = watch.container("containerd");
        let end = kubelet.stdin.take().unwrap().write_all(b"\n");
        let output = kubelet.wait_with_output().unwrap();
        assert!(output.status.success() && end.is_ok(), "{}", containerd.errors());
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        for (key, value) in
            [("id", &id[..]), ("name", "shop"), ("image", IMAGE), ("pod", "shop-7d4b9"), ("namespace", "web")]
        {
            assert_eq!(container[key], value, "{source}: {container}");
        }
        assert_eq!(container["labels"], json!(["app=shop"]), "{source}: {container}");
    }
}

/// Two hosts, somebody who listens, and an image that holds a shell.
struct Site {
    network: Network,
    folder: TempDir,
    image: PathBuf,
    _sink: Sink,
    /// The runtimes have one place for what they run.
    _alone: [MutexGuard<'static, ()>; 2],
}

impl Site {
    /// `None`, with a printed reason, where something is missing.
    fn new(programs: &[&str]) -> Option<Self> {
        if namespace::unavailable().is_some() {
            return None;
        }
        let is_here = |program: &&&str| Command::new(program).arg("--version").output().is_ok();
        if let Some(missing) = programs.iter().find(|program| !is_here(program)) {
            eprintln!("skipped: needs {missing}");
            return None;
        }
        let Some(shell) = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists())
        else {
            eprintln!("skipped: needs busybox-static");
            return None;
        };
        static RUNTIMES: Mutex<()> = Mutex::new(());
        let alone = [namespace::alone(), RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner)];
        let folder = tempfile::tempdir().unwrap();
        let image = image(folder.path(), shell);
        let network = Network::new();
        let sink = Sink::tcp(&network.server, &format!("{}:7000", Network::SERVER));
        Some(Self { network, folder, image, _sink: sink, _alone: alone })
    }
}

/// An image of one layer, as `docker save` writes it.
fn image(folder: &Path, shell: &Path) -> PathBuf {
    let root = folder.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    ["etc", "proc", "sys", "dev", "tmp"].iter().for_each(|name| fs::create_dir_all(root.join(name)).unwrap());
    fs::copy(shell, root.join("bin/busybox")).unwrap();
    for name in ["sh", "nc", "sleep", "echo", "true"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let tar = |archive: &Path, of: &Path| {
        assert!(Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(of).arg(".").status().unwrap().success());
    };
    let parts = folder.join("parts");
    fs::create_dir_all(&parts).unwrap();
    tar(&parts.join("layer.tar"), &root);
    let digest = ring::digest::digest(&ring::digest::SHA256, &fs::read(parts.join("layer.tar")).unwrap());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Cmd": ["/bin/busybox", "sleep", "1000"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        "history": [{ "created_by": "a test" }],
    });
    fs::write(parts.join("config.json"), config.to_string()).unwrap();
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    fs::write(parts.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = folder.join("image.tar");
    tar(&archive, &parts);
    archive
}

/// A running `egret flows --live` beside the container.
struct Watch(Running);

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
            running.errors().contains("watching ").then_some(true)
        });
        if !ready {
            eprintln!("skipped: the source {source} cannot be opened: {}", running.errors());
            return None;
        }
        Some(Self(running))
    }

    /// What is said of the container whose flow went to the server; waits until it has ended.
    fn container(mut self, runtime: &str) -> Value {
        // The container's traffic takes two seconds, and its owner a moment more.
        std::thread::sleep(std::time::Duration::from_secs(5));
        self.0.signal(Signal::INT);
        assert!(self.0.wait_within(wait::PATIENCE).success(), "{}", self.0.errors());
        let printed = self.0.output();
        let flows = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut containers =
            flows.filter(|flow| flow["remote_port"] == 7000).map(|flow| flow["owner"]["container"].clone());
        let found = containers.find(|container| container["runtime"] == runtime);
        found.unwrap_or_else(|| panic!("no flow of a container of {runtime} in\n{printed}"))
    }
}

/// containerd with a store of its own, in the client's network.
struct Containerd(Running);

impl Containerd {
    /// `None`, with a printed reason, where it does not start or another one runs.
    fn start(site: &Site) -> Option<Self> {
        if UnixStream::connect(SOCKET).is_ok() {
            eprintln!("skipped: containerd runs here already");
            return None;
        }
        let configuration = site.folder.path().join("containerd.toml");
        let root = site.folder.path().join("containerd");
        let text = format!(
            "version = 2\nroot = \"{}\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{IMAGE}\"\n  \
             restrict_oom_score_adj = true\n",
            root.display()
        );
        fs::write(&configuration, text).unwrap();
        let mut command = site.network.client.command("containerd");
        command.arg("--config").arg(&configuration);
        let mut running = Running::start("containerd", command, site.folder.path());
        let ready = wait::until("containerd to answer", || {
            if running.status().is_some() {
                return Some(false);
            }
            Command::new("ctr").arg("version").output().is_ok_and(|output| output.status.success()).then_some(true)
        });
        if !ready {
            eprintln!("skipped: containerd does not start here: {}", running.errors());
            return None;
        }
        Some(Self(running))
    }

    fn errors(&self) -> String {
        self.0.errors()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.0.signal(Signal::TERM);
        self.0.wait_within(wait::PATIENCE);
    }
}

const SOCKET: &str = "/run/containerd/containerd.sock";

/// Starts a pod of one container in the host's network as a kubelet does (runtime.v1, by hand), prints the
/// container's id, and removes the pod when it is told to.
const KUBELET: &str = r#"
import sys, grpc

def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7f | 0x80])
        number >>= 7
    return out + bytes([number])

def octets(field, content):
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content

def number(field, value):
    return varint(field << 3) + varint(value)

def first(message):
    # Every answer that is looked at here begins with its only text.
    return message[2:2 + message[1]].decode()

channel = grpc.insecure_channel("unix:" + sys.argv[1])

def call(method, request):
    return channel.unary_unary("/runtime.v1.RuntimeService/" + method)(request, timeout=60)

image, command = sys.argv[2], sys.argv[3:]
uid = "6f1cd2a4-7f4d-4d0e-9a53-0d2d62f5a6b1"
NODE = 2
of_host = octets(1, number(1, NODE) + number(2, NODE) + number(3, NODE))
pod = octets(1, octets(1, "shop-7d4b9") + octets(2, uid) + octets(3, "web"))
pod += octets(3, "/tmp") + octets(6, octets(1, "app") + octets(2, "shop"))
pod += octets(8, octets(1, "/kubepods/pod" + uid) + octets(2, of_host))
sandbox = first(call("RunPodSandbox", octets(1, pod)))
container = octets(1, octets(1, "shop")) + octets(2, octets(1, image)) + b"".join(octets(3, word) for word in command)
container += octets(15, octets(2, octets(3, number(1, NODE) + number(2, NODE) + number(3, NODE))))
created = first(call("CreateContainer", octets(1, sandbox) + octets(2, container) + octets(3, pod)))
call("StartContainer", octets(1, created))
print(created, flush=True)
sys.stdin.readline()
call("StopPodSandbox", octets(1, sandbox))
call("RemovePodSandbox", octets(1, sandbox))
"#;
