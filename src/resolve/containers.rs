//! What the runtime of a container says of it: its name, image, pod and labels.
//!
//! From the files that runtimes keep where these can be read, else over their
//! sockets. What is not there stays unknown; nothing waits for a runtime longer
//! than a second, and one that does not answer is left alone for a while.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::debug;

use crate::attribution::Container;
use crate::resolve::root::Root;
use crate::resolve::{cri, local_http};

/// The containers that were asked for.
#[derive(Debug)]
pub(super) struct Containers {
    root: Root,
    known: HashMap<Arc<str>, (Instant, Facts)>,
    /// Sockets that did not answer, and when.
    deaf: HashMap<PathBuf, Instant>,
}

/// What one source or all together say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    runtime: Option<&'static str>,
    name: Option<String>,
    image: Option<String>,
    pod: Option<String>,
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Containers {
    /// Asks the runtimes of this file system.
    pub(super) fn new(root: Root) -> Self {
        Self { root, known: HashMap::new(), deaf: HashMap::new() }
    }

    /// The container with all that its runtime says. `user` is whose container it is, where not root's.
    pub(super) fn describe(&mut self, container: &Container, user: Option<&Home>) -> Container {
        let ttl = |facts: &Facts| if facts.name.is_some() { TTL } else { TTL_OF_NOTHING };
        let fresh = self.known.get(&container.id).filter(|(at, facts)| at.elapsed() < ttl(facts));
        let facts = match fresh {
            Some((_, facts)) => facts.clone(),
            None => {
                let facts = self.ask(container, user);
                if self.known.len() >= MAX_CONTAINERS {
                    self.known.clear();
                }
                self.known.insert(Arc::clone(&container.id), (Instant::now(), facts.clone()));
                facts
            }
        };
        let shared = |text: Option<String>| text.map(Arc::<str>::from);
        Container {
            id: Arc::clone(&container.id),
            runtime: container.runtime.clone().or_else(|| facts.runtime.map(Arc::from)),
            name: shared(facts.name).or_else(|| container.name.clone()),
            image: shared(facts.image).or_else(|| container.image.clone()),
            pod: shared(facts.pod).or_else(|| container.pod.clone()),
            namespace: shared(facts.namespace).or_else(|| container.namespace.clone()),
            labels: labels(&facts.labels),
        }
    }

    fn ask(&mut self, container: &Container, user: Option<&Home>) -> Facts {
        let id = &*container.id;
        // The id becomes part of paths and URLs; what is no plain word names no file of a runtime.
        if id.is_empty()
            || !id.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'))
            || id.starts_with('.')
        {
            return Facts::default();
        }
        let runtime = container.runtime.as_deref();
        let may_be = |name: &str| runtime.is_none_or(|runtime| runtime == name);
        let mut facts = Facts::default();
        if may_be("docker") {
            facts.learn(self.docker_file(id));
        }
        if may_be("containerd") {
            facts.learn(self.containerd(id));
        }
        if may_be("podman") || may_be("crio") {
            facts.learn(self.storage(id, user));
        }
        let is_of_pod = container.pod.is_some() || facts.pod.is_some();
        if is_of_pod || (facts.name.is_none() && (may_be("containerd") || may_be("crio"))) {
            facts.learn(self.cri(id));
        }
        if facts.name.is_none() && (may_be("docker") || may_be("podman")) {
            facts.learn(self.docker_socket(id, user));
        }
        facts
    }

    /// Docker's own record of a container.
    fn docker_file(&self, id: &str) -> Option<Facts> {
        let configured = self.root.read("/etc/docker/daemon.json", MAX_FILE).and_then(|text| json(&text));
        let data = configured.as_ref().and_then(|daemon| text(daemon, &["data-root"])).unwrap_or("/var/lib/docker");
        let record = json(&self.root.read(&format!("{data}/containers/{id}/config.v2.json"), MAX_FILE)?)?;
        Some(of_docker(&record))
    }

    /// Docker's API, which Podman speaks as well.
    fn docker_socket(&mut self, id: &str, user: Option<&Home>) -> Option<Facts> {
        let own = user.map(|user| format!("/run/user/{}/podman/podman.sock", user.uid));
        let sockets = ["/run/docker.sock", "/run/podman/podman.sock"].map(str::to_owned).into_iter().chain(own);
        for socket in sockets {
            let path = format!("/containers/{id}/json");
            let answer = self.talk(&socket, |socket| local_http::get(socket, &path));
            if let Some(record) = answer.as_deref().and_then(json) {
                let runtime = if socket.contains("podman") { "podman" } else { "docker" };
                return Some(Facts { runtime: Some(runtime), ..of_docker(&record) });
            }
        }
        None
    }

    /// The specification that containerd started the container with, and what containerd itself says of it.
    fn containerd(&mut self, id: &str) -> Option<Facts> {
        let found = TASKS.iter().find_map(|(tasks, socket)| {
            let namespaces = self.root.names(tasks);
            namespaces.into_iter().find_map(|namespace| {
                let path = format!("{tasks}/{namespace}/{id}/config.json");
                Some((self.root.read(&path, MAX_FILE)?, namespace, *socket))
            })
        });
        let (specification, namespace, socket) = found?;
        let specification = json(&specification);
        let annotations = specification.as_ref().and_then(|specification| specification.get("annotations"));
        let mut facts = annotations.map(of_annotations).unwrap_or_default();
        if facts.image.is_none() && namespace != KUBERNETES {
            let asked = self.talk(socket, |socket| cri::of_containerd(socket, &namespace, id));
            if let Some(cri::CriContainer { image, labels, .. }) = asked.flatten() {
                facts.image = image;
                facts.labels = labels;
            }
            // Without a name of its own a container is called by its id.
            facts.name =
                facts.name.or_else(|| facts.labels.get("nerdctl/name").cloned()).or_else(|| Some(id.to_owned()));
        }
        facts.runtime = facts.name.is_some().then_some("containerd");
        Some(facts)
    }

    /// The storage that Podman and CRI-O share.
    fn storage(&self, id: &str, user: Option<&Home>) -> Option<Facts> {
        let own = user.map(|user| format!("{}/.local/share/containers/storage", user.folder));
        let run = user
            .map_or_else(|| "/run/containers/storage".to_owned(), |user| format!("/run/user/{}/containers", user.uid));
        let graph = own.unwrap_or_else(|| "/var/lib/containers/storage".to_owned());
        let mut facts = Facts::default();
        for driver in DRIVERS {
            let lists = ["containers.json", "volatile-containers.json"];
            let listed = lists.iter().find_map(|list| {
                let list = json(&self.root.read(&format!("{graph}/{driver}-containers/{list}"), MAX_FILE)?)?;
                list.as_array()?.iter().find(|entry| text(entry, &["id"]) == Some(id)).cloned()
            });
            facts.learn(listed.as_ref().map(of_storage));
            let specification = [&run, &graph].into_iter().find_map(|folder| {
                self.root.read(&format!("{folder}/{driver}-containers/{id}/userdata/config.json"), MAX_FILE)
            });
            let specification = specification.and_then(|specification| json(&specification));
            facts.learn(specification.as_ref().and_then(|json| json.get("annotations")).map(of_annotations));
            if facts.name.is_some() {
                facts.runtime = Some(if facts.pod.is_some() { "crio" } else { "podman" });
                return Some(facts);
            }
        }
        None
    }

    fn cri(&mut self, id: &str) -> Option<Facts> {
        CRI_SOCKETS.iter().find_map(|(socket, runtime)| {
            let found = self.talk(socket, |socket| cri::container(socket, id))??;
            let cri::CriContainer { name, image, pod, namespace, labels } = found;
            let mut facts = Facts { runtime: Some(runtime), name, image, pod, namespace, labels };
            facts.take_kubernetes_labels();
            Some(facts)
        })
    }

    /// Talks over a socket, unless it was deaf a moment ago.
    fn talk<T>(&mut self, socket: &str, ask: impl FnOnce(&Path) -> std::io::Result<T>) -> Option<T> {
        let path = self.root.outside(socket);
        if self.deaf.get(&path).is_some_and(|at| at.elapsed() < DEAF_FOR) {
            return None;
        }
        match ask(&path) {
            Ok(answer) => Some(answer),
            Err(error) => {
                let answered = error.kind() == std::io::ErrorKind::NotFound && path.exists();
                debug!(socket = %path.display(), %error, "the container runtime does not say");
                if !answered {
                    self.deaf.insert(path, Instant::now());
                }
                None
            }
        }
    }
}

/// A user's home, where containers without root are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    pub uid: u32,
    pub folder: String,
}

impl Home {
    /// Whose container it is, by its control group: containers without root stand below their user's slice.
    pub(super) fn of_cgroup(cgroup: &str, home_of: impl FnOnce(u32) -> Option<String>) -> Option<Self> {
        let slice = cgroup.split('/').find_map(|segment| segment.strip_prefix("user-")?.strip_suffix(".slice"))?;
        let uid = slice.parse().ok()?;
        Some(Self { uid, folder: home_of(uid)? })
    }
}

impl Facts {
    /// Takes what another source says where this one says nothing.
    fn learn(&mut self, other: Option<Self>) {
        let Some(other) = other else { return };
        self.runtime = self.runtime.or(other.runtime);
        self.name = self.name.take().or(other.name);
        self.image = self.image.take().or(other.image);
        self.pod = self.pod.take().or(other.pod);
        self.namespace = self.namespace.take().or(other.namespace);
        for (key, value) in other.labels {
            self.labels.entry(key).or_insert(value);
        }
    }

    /// The kubelet labels each container with what it is part of.
    fn take_kubernetes_labels(&mut self) {
        let label = |key: &str| self.labels.get(key).cloned();
        let (name, pod) = (label("io.kubernetes.container.name"), label("io.kubernetes.pod.name"));
        let namespace = label("io.kubernetes.pod.namespace");
        self.name = name.or(self.name.take());
        self.pod = self.pod.take().or(pod);
        self.namespace = self.namespace.take().or(namespace);
    }
}

/// From Docker's record, by file or by its API.
pub(super) fn of_docker(record: &Value) -> Facts {
    let mut facts = Facts {
        runtime: Some("docker"),
        name: text(record, &["Name"])
            .map(|name| name.trim_start_matches('/').to_owned())
            .filter(|name| !name.is_empty()),
        image: text(record, &["Config", "Image"]).map(str::to_owned),
        labels: record.pointer("/Config/Labels").map(text_map).unwrap_or_default(),
        ..Facts::default()
    };
    facts.take_kubernetes_labels();
    facts
}

/// From an entry of containers/storage; `metadata` is JSON in a text.
pub(super) fn of_storage(entry: &Value) -> Facts {
    let metadata = text(entry, &["metadata"]).and_then(|metadata| json(metadata.as_bytes())).unwrap_or_default();
    let listed = entry.pointer("/names/0").and_then(Value::as_str);
    let name = text(&metadata, &["metadata-name"]).or(text(&metadata, &["name"])).or(listed);
    Facts {
        name: name.filter(|name| !name.is_empty()).map(str::to_owned),
        image: text(&metadata, &["image-name"]).filter(|image| !image.is_empty()).map(str::to_owned),
        pod: text(&metadata, &["pod-name"]).filter(|pod| !pod.is_empty()).map(str::to_owned),
        ..Facts::default()
    }
}

/// From the annotations of a runtime specification, as containerd's CRI, CRI-O and nerdctl write them.
pub(super) fn of_annotations(annotations: &Value) -> Facts {
    let one = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| annotations.get(*key)?.as_str().filter(|text| !text.is_empty()));
        found.map(str::to_owned)
    };
    let nested = one(&["io.kubernetes.cri-o.Labels"]).and_then(|labels| json(labels.as_bytes()));
    let mut facts = Facts {
        runtime: None,
        name: one(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"]),
        image: one(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"]),
        pod: one(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name", "io.kubernetes.cri-o.KubeName"]),
        namespace: one(&[
            "io.kubernetes.cri.sandbox-namespace",
            "io.kubernetes.pod.namespace",
            "io.kubernetes.cri-o.Namespace",
        ]),
        labels: nested.as_ref().map(text_map).unwrap_or_default(),
    };
    facts.take_kubernetes_labels();
    facts
}

/// As rules see them: without those that have a field of their own, and few enough to be shown.
fn labels(labels: &BTreeMap<String, String>) -> Vec<Arc<str>> {
    let plain = labels.iter().filter(|(key, _)| !key.starts_with("io.kubernetes."));
    let short = plain.filter(|(key, value)| key.len() + value.len() < MAX_LABEL);
    short.take(MAX_LABELS).map(|(key, value)| format!("{key}={value}").into()).collect()
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, key| value.get(key))?.as_str()
}

fn text_map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn json(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok()
}

/// Where containerd keeps what runs and where it answers, K3s's and MicroK8s's as well.
const TASKS: [(&str, &str); 3] = [
    ("/run/containerd/io.containerd.runtime.v2.task", "/run/containerd/containerd.sock"),
    ("/run/k3s/containerd/io.containerd.runtime.v2.task", "/run/k3s/containerd/containerd.sock"),
    (
        "/var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
        "/var/snap/microk8s/common/run/containerd.sock",
    ),
];

/// containerd's namespace of the kubelet, whose containers are asked for by its own interface.
const KUBERNETES: &str = "k8s.io";

/// Where runtimes answer the kubelet.
const CRI_SOCKETS: [(&str, &str); 5] = [
    ("/run/containerd/containerd.sock", "containerd"),
    ("/run/crio/crio.sock", "crio"),
    ("/run/k3s/containerd/containerd.sock", "containerd"),
    ("/run/cri-dockerd.sock", "docker"),
    ("/var/snap/microk8s/common/run/containerd.sock", "containerd"),
];

/// Storage drivers of Podman and CRI-O.
const DRIVERS: [&str; 3] = ["overlay", "vfs", "btrfs"];

/// A container's name and image never change; its labels may.
const TTL: Duration = Duration::from_secs(600);

/// A runtime may know of a container a moment after its first packet.
const TTL_OF_NOTHING: Duration = Duration::from_secs(5);

/// How long a socket that did not answer is left alone.
const DEAF_FOR: Duration = Duration::from_secs(10);

/// Containers held at once; further ones start anew.
const MAX_CONTAINERS: usize = 4_096;

/// The record of one container has 10 kB, the list of a storage 1 kB a container.
const MAX_FILE: u64 = 16 << 20;

/// Labels that are kept.
const MAX_LABELS: usize = 64;

/// Octets of a label that is kept: a label's value has 63 in Kubernetes.
const MAX_LABEL: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";

    struct Host(tempfile::TempDir);

    impl Host {
        fn new(files: &[(&str, &str)]) -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            for (path, content) in files {
                let path = host.0.path().join(path.replace("ID", ID).trim_start_matches('/'));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content.replace("ID", ID)).unwrap();
            }
            host
        }

        fn containers(&self) -> Containers {
            Containers::new(Root::open(self.0.path()).unwrap())
        }

        fn describe(&self, runtime: Option<&str>, user: Option<&Home>) -> Container {
            self.containers().describe(&container(runtime), user)
        }
    }

    fn container(runtime: Option<&str>) -> Container {
        Container { id: ID.into(), runtime: runtime.map(Arc::from), ..Container::default() }
    }

    /// Runtime, name, image, pod, namespace, labels.
    fn told(container: &Container) -> [String; 6] {
        let text = |value: &Option<Arc<str>>| value.as_deref().unwrap_or("-").to_owned();
        let labels: Vec<&str> = container.labels.iter().map(|label| &**label).collect();
        [
            text(&container.runtime),
            text(&container.name),
            text(&container.image),
            text(&container.pod),
            text(&container.namespace),
            labels.join(" "),
        ]
    }

    #[test]
    fn docker_keeps_a_record() {
        let record = r#"{"ID":"ID","Created":"2026-05-04T02:00:00Z","State":{"Running":true,"Pid":4121},
            "Image":"sha256:abc","Name":"/web-1","Driver":"overlay2",
            "Config":{"Hostname":"ID","Image":"registry.example.org/shop/web:1.4","Labels":{
                "com.docker.compose.project":"shop","com.docker.compose.service":"web"}}}"#;
        let host = Host::new(&[("/var/lib/docker/containers/ID/config.v2.json", record)]);
        let labels = "com.docker.compose.project=shop com.docker.compose.service=web";
        let expected = ["docker", "web-1", "registry.example.org/shop/web:1.4", "-", "-", labels];
        assert_eq!(told(&host.describe(Some("docker"), None)), expected);
        let moved = Host::new(&[
            ("/etc/docker/daemon.json", r#"{"data-root": "/srv/docker"}"#),
            ("/srv/docker/containers/ID/config.v2.json", record),
        ]);
        assert_eq!(told(&moved.describe(None, None)), expected);
    }

    #[test]
    fn containerd_keeps_the_specification() {
        let specification = r#"{"ociVersion":"1.1.0","process":{"args":["nginx"]},"annotations":{
            "io.kubernetes.cri.container-name":"web","io.kubernetes.cri.container-type":"container",
            "io.kubernetes.cri.image-name":"docker.io/library/nginx:1.25","io.kubernetes.cri.sandbox-id":"5a5a",
            "io.kubernetes.cri.sandbox-name":"web-7d4b9-x2x","io.kubernetes.cri.sandbox-namespace":"shop",
            "io.kubernetes.cri.sandbox-uid":"6f1cd2a4-7f4d-4d0e-9a53-0d2d62f5a6b1"}}"#;
        for (tasks, _) in TASKS {
            let host = Host::new(&[(&format!("{tasks}/k8s.io/ID/config.json"), specification)]);
            let expected = ["containerd", "web", "docker.io/library/nginx:1.25", "web-7d4b9-x2x", "shop", ""];
            assert_eq!(told(&host.describe(None, None)), expected, "{tasks}");
        }
    }

    #[test]
    fn podman_and_crio_share_a_storage() {
        let list = r#"[{"id":"ffff","names":["other"],"metadata":"{}"},
            {"id":"ID","names":["backup"],"image":"5d0da3dc9764","layer":"abc",
             "metadata":"{\"image-name\":\"quay.io/example/backup:2\",\"image-id\":\"5d0da3dc9764\",\"name\":\"backup\",\"created-at\":1710000000}",
             "created":"2026-05-04T02:00:00Z"}]"#;
        let podman = Host::new(&[("/var/lib/containers/storage/overlay-containers/containers.json", list)]);
        let expected = ["podman", "backup", "quay.io/example/backup:2", "-", "-", ""];
        assert_eq!(told(&podman.describe(Some("podman"), None)), expected);

        let own = Host::new(&[(
            "/home/alice/.local/share/containers/storage/overlay-containers/volatile-containers.json",
            list,
        )]);
        let cgroup = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope");
        let home = Home::of_cgroup(&cgroup, |uid| (uid == 1000).then(|| "/home/alice".to_owned()));
        assert_eq!(told(&own.describe(Some("podman"), home.as_ref())), expected);
        assert_eq!(Home::of_cgroup("/machine.slice/libpod-x.scope", |_| Some(String::new())), None);

        let crio = Host::new(&[
            (
                "/var/lib/containers/storage/overlay-containers/containers.json",
                r#"[{"id":"ID","names":["k8s_web_web-0_shop_6f1c_0"],
                    "metadata":"{\"pod-name\":\"web-0\",\"pod-id\":\"5a5a\",\"image-name\":\"quay.io/shop/web:3\",\"name\":\"k8s_web_web-0_shop_6f1c_0\",\"metadata-name\":\"web\"}"}]"#,
            ),
            (
                "/run/containers/storage/overlay-containers/ID/userdata/config.json",
                r#"{"annotations":{"io.kubernetes.container.name":"web","io.kubernetes.pod.name":"web-0",
                    "io.kubernetes.pod.namespace":"shop","io.kubernetes.cri-o.ImageName":"quay.io/shop/web:3",
                    "io.kubernetes.cri-o.Labels":"{\"io.kubernetes.pod.uid\":\"6f1c\",\"tier\":\"front\"}"}}"#,
            ),
        ]);
        assert_eq!(
            told(&crio.describe(Some("crio"), None)),
            ["crio", "web", "quay.io/shop/web:3", "web-0", "shop", "tier=front"]
        );
    }

    #[test]
    fn a_runtime_without_readable_files_is_asked_over_its_socket() {
        let host = Host::new(&[("/run/empty", "")]);
        let listener = UnixListener::bind(host.0.path().join("run/docker.sock")).unwrap();
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for body in [r#"{"Id":"x","Name":"/api","Config":{"Image":"api:9","Labels":{"team":"a"}}}"#, ""] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let length = stream.read(&mut request).unwrap();
                asked.push(String::from_utf8_lossy(&request[..length]).lines().next().unwrap().to_owned());
                let head = if body.is_empty() { "HTTP/1.0 404 Not Found" } else { "HTTP/1.0 200 OK" };
                write!(stream, "{head}\r\nContent-Type: application/json\r\n\r\n{body}").unwrap();
            }
            asked
        });
        let mut containers = host.containers();
        let found = containers.describe(&container(Some("docker")), None);
        assert_eq!(told(&found), ["docker", "api", "api:9", "-", "-", "team=a"]);
        assert_eq!(told(&containers.describe(&container(Some("docker")), None)), told(&found), "from memory");
        let other = Container { id: "ffff00001111".into(), ..container(Some("docker")) };
        assert_eq!(told(&containers.describe(&other, None))[1], "-");
        let asked = server.join().unwrap();
        assert_eq!(asked[0], format!("GET /containers/{ID}/json HTTP/1.0"));
        assert_eq!(asked[1], "GET /containers/ffff00001111/json HTTP/1.0");
    }

    #[test]
    fn nothing_is_known_without_a_runtime_and_nothing_breaks() {
        let host = Host::new(&[
            ("/var/lib/docker/containers/ID/config.v2.json", "{\"Name\":"),
            ("/var/lib/containers/storage/overlay-containers/containers.json", "{}"),
        ]);
        for runtime in [None, Some("docker"), Some("podman"), Some("containerd"), Some("crio")] {
            assert_eq!(told(&host.describe(runtime, None))[1..], ["-", "-", "-", "-", ""]);
        }
        let astray = Container { id: "../../../etc/passwd".into(), ..Container::default() };
        assert_eq!(host.containers().describe(&astray, None).id, astray.id);
        // A socket that takes the question and says nothing is left alone afterwards.
        let _deaf = UnixListener::bind(host.0.path().join("run-deaf")).unwrap();
        fs::create_dir_all(host.0.path().join("run")).unwrap();
        let _silent = UnixListener::bind(host.0.path().join("run/docker.sock")).unwrap();
        let mut containers = host.containers();
        let began = Instant::now();
        for id in ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"] {
            containers.describe(&Container { id: id.into(), ..container(Some("docker")) }, None);
        }
        assert!(began.elapsed() < 3 * local_http::PATIENCE, "{:?}", began.elapsed());
    }
}
