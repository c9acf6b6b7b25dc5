//! What is found out about owners: by the container runtimes' own interfaces, from package databases.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use egret::attribution::{Cgroup, Container, Executable, ExecutableKind, Process, ProcessKey};
use egret::resolve::Describer;

use crate::support::process::Running;
use crate::support::wait;

const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";

#[test]
fn a_kubernetes_pod_is_named_by_the_runtime_that_the_kubelet_asks() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/python/bin/python");
    if !Command::new(&python).args(["-c", "import grpc"]).output().is_ok_and(|found| found.status.success()) {
        eprintln!("skipped: needs a Python with grpcio, which `tests/setup test` makes");
        return;
    }
    for (folder, socket, prefix, runtime) in [
        ("run/containerd", "run/containerd/containerd.sock", "cri-containerd", "containerd"),
        ("run/crio", "run/crio/crio.sock", "crio", "crio"),
    ] {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join(folder)).unwrap();
        let socket = host.path().join(socket);
        let script = host.path().join("runtime.py");
        fs::write(&script, RUNTIME).unwrap();
        let mut command = Command::new(&python);
        command.arg(&script).arg(&socket).arg(ID);
        let mut server = Running::start("runtime", command, host.path());
        wait::until("the runtime's socket", || {
            server.assert_alive();
            server.output().contains("ready").then_some(())
        });
        let cgroup = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6f1cd2a4_7f4d_4d0e_9a53_0d2d62f5a6b1.slice/{prefix}-{ID}.scope"
        );
        let container = describe(host.path(), &process("/usr/bin/nginx", &cgroup)).container.clone().unwrap();
        let labels: Vec<&str> = container.labels.iter().map(|label| &**label).collect();
        assert_eq!(container.runtime.as_deref(), Some(runtime));
        assert_eq!((container.name.as_deref(), container.image.as_deref()), (Some("web"), Some("nginx:1.25")));
        assert_eq!((container.pod.as_deref(), container.namespace.as_deref()), (Some("web-7d4b9-x2x"), Some("shop")));
        assert_eq!(labels, ["app=web", "pod-template-hash=7d4b9"]);

        let other = cgroup.replace(ID, &ID.replace('0', "e"));
        let unknown = describe(host.path(), &process("/usr/bin/nginx", &other)).container.clone().unwrap();
        let uid = "6f1cd2a4-7f4d-4d0e-9a53-0d2d62f5a6b1";
        assert_eq!((unknown.name.as_deref(), unknown.pod.as_deref()), (None, Some(uid)), "what the path tells");
    }
}

#[test]
fn rpm_names_the_package_of_a_path() {
    let build = tempfile::tempdir().unwrap();
    let Some(package) = build_rpm(build.path()) else { return };
    for database in ["usr/lib/sysimage/rpm", "var/lib/rpm"] {
        let host = tempfile::tempdir().unwrap();
        let folder = host.path().join(database);
        fs::create_dir_all(&folder).unwrap();
        let rpm = |arguments: &[&str]| {
            let mut command = Command::new("rpm");
            command.arg("--dbpath").arg(&folder).args(["--define", "_db_backend sqlite"]).args(arguments);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        rpm(&["--initdb"]);
        rpm(&["-i", "--justdb", "--nodeps", "--ignorearch", "--noscripts", package.to_str().unwrap()]);
        for path in ["/usr/bin/courier", "/usr/libexec/courier/send"] {
            assert_eq!(rpm(&["-qf", "--qf", "%{NAME}", path]), "courier", "what rpm itself says");
            let owner = describe(host.path(), &process(path, "/user.slice")).executable.clone().unwrap();
            assert_eq!(owner.package.as_deref(), Some("courier"), "{path} in {database}");
        }
        for path in ["/usr/bin/send", "/tmp/courier", "/usr/libexec/courier"] {
            let owner = describe(host.path(), &process(path, "/user.slice")).executable.clone().unwrap();
            assert_eq!(owner.package, None, "{path} in {database}");
        }
    }
}

/// A package with two files; `None`, with a printed reason, where rpm is missing.
fn build_rpm(folder: &Path) -> Option<PathBuf> {
    if Command::new("rpmbuild").arg("--version").output().is_err() {
        eprintln!("skipped: needs rpm, which `tests/setup test` installs");
        return None;
    }
    let specification = folder.join("courier.spec");
    fs::write(&specification, SPECIFICATION).unwrap();
    let top = format!("_topdir {}", folder.display());
    let mut command = Command::new("rpmbuild");
    let output = command.args(["--define", &top, "-bb"]).arg(&specification).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(folder.join("RPMS/noarch/courier-2.1-3.noarch.rpm"))
}

fn process(path: &str, cgroup: &str) -> Arc<Process> {
    let Cgroup { path: cgroup, container, .. } = Cgroup::from_path(cgroup);
    Arc::new(Process {
        // No process of this number: only what outlives it can be asked.
        key: ProcessKey { pid: u32::MAX, start: 1 },
        executable: Some(Executable { path: path.into(), kind: ExecutableKind::File, ..Executable::default() }),
        cgroup: Some(cgroup),
        container: container.map(|container| Container { ..container }),
        ..Process::default()
    })
}

fn describe(host: &Path, process: &Arc<Process>) -> Arc<Process> {
    let describer = Describer::start(host).unwrap();
    assert!(describer.ask(Arc::clone(process)));
    describer.answers().recv_timeout(Duration::from_secs(60)).unwrap().described
}

/// A runtime of our own behind a gRPC server of others; protocol buffers by hand, as `api.proto` numbers them.
const RUNTIME: &str = r#"
import sys, time
from concurrent import futures
import grpc

socket, identity = sys.argv[1], sys.argv[2]

def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7f | 0x80])
        number >>= 7
    return out + bytes([number])

def field(number, content):
    content = content if isinstance(content, bytes) else content.encode()
    return varint(number << 3 | 2) + varint(len(content)) + content

def number(field, value):
    return varint(field << 3) + varint(value)

def labels(field_number, entries):
    return b"".join(field(field_number, field(1, key) + field(2, value)) for key, value in entries.items())

def list_containers(request, context):
    if request != field(1, field(1, identity)):
        return b""
    container = (field(1, identity) + field(2, "5a" * 32) + field(3, field(1, "web") + number(2, 1))
        + field(4, field(1, "nginx:1.25")) + field(5, "sha256:abc") + number(6, 1) + number(7, 1777860669482000000)
        + labels(8, {"io.kubernetes.container.name": "web", "io.kubernetes.pod.name": "web-7d4b9-x2x",
                     "io.kubernetes.pod.namespace": "shop"})
        + labels(9, {"io.kubernetes.container.hash": "x" * 300}))
    return field(1, container)

def sandbox_status(request, context):
    if request != field(1, "5a" * 32):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
    metadata = field(1, "web-7d4b9-x2x") + field(2, "6f1cd2a4") + field(3, "shop") + number(4, 0)
    status = (field(1, "5a" * 32) + field(2, metadata) + number(3, 0) + number(4, 1777860669482000000)
        + field(5, field(1, "10.0.0.9")) + labels(7, {"app": "web", "pod-template-hash": "7d4b9",
                                                      "io.kubernetes.pod.uid": "6f1cd2a4"}))
    return field(1, status)

server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", {
    "ListContainers": grpc.unary_unary_rpc_method_handler(list_containers),
    "PodSandboxStatus": grpc.unary_unary_rpc_method_handler(sandbox_status),
}),))
server.add_insecure_port("unix:" + socket)
server.start()
print("ready", flush=True)
time.sleep(600)
"#;

const SPECIFICATION: &str = "
Name: courier
Version: 2.1
Release: 3
Summary: Sends things
License: MIT
BuildArch: noarch
%description
Sends things.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/libexec/courier %{buildroot}/etc
echo send > %{buildroot}/usr/bin/courier
echo send > %{buildroot}/usr/libexec/courier/send
echo send > %{buildroot}/etc/courier
%files
/usr/bin/courier
/usr/libexec/courier/send
/etc/courier
";
