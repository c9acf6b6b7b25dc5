//! What a control group's path says: systemd unit and slice, container, pod.
//!
//! Pure. Container managers and systemd name control groups by rules of their
//! own; this file knows those rules. Segments below a system unit or inside a
//! container are chosen by whoever runs there, so they never name the unit:
//! a process cannot become `backup.service` by making a group of that name.

use std::sync::Arc;

use bstr::ByteSlice;

use crate::attribution::Container;

/// The control group of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The path below the mount, `/` for the root group.
    pub path: Arc<str>,
    /// The system manager's unit.
    pub unit: Option<Arc<str>>,
    /// The innermost slice that holds the unit.
    pub slice: Option<Arc<str>>,
    /// The container, by the name of its group.
    pub container: Option<Container>,
}

impl Cgroup {
    /// From the content of `/proc/PID/cgroup`, for every layout: unified,
    /// legacy (one line a controller) and hybrid. `None` where it has no line.
    pub fn from_proc(content: &[u8]) -> Option<Self> {
        let mut best: Option<(u8, Self)> = None;
        for line in content.lines() {
            let mut fields = line.splitn(3, |byte| *byte == b':');
            let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let cgroup = Self::from_path(&path.to_str_lossy());
            let rank = match (&cgroup.container, &*cgroup.path, hierarchy, controllers) {
                (Some(_), ..) => 4,
                (None, "/", ..) => 0,
                (None, _, b"0", _) => 3,
                (None, _, _, b"name=systemd") => 2,
                (None, ..) => 1,
            };
            if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                best = Some((rank, cgroup));
            }
        }
        best.map(|(_, cgroup)| cgroup)
    }

    /// From one path below the mount of a hierarchy.
    pub fn from_path(path: &str) -> Self {
        // A container that looks at a process outside its own root sees `/..`.
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty() && *segment != "..").collect();
        let container = container_of(&segments);
        let outside = container.as_ref().map_or(segments.len(), |(at, _)| at + 1);
        let (slice, unit) = unit_of(segments.get(..outside).unwrap_or_default());
        let mut container = container.map(|(_, container)| container);
        if let Some(container) = &mut container
            && let Some(pod) = pod_of(&segments)
        {
            container.pod = Some(pod.into());
        }
        Self {
            path: if path.is_empty() { "/".into() } else { path.into() },
            unit: unit.map(Into::into),
            slice: slice.map(Into::into),
            container,
        }
    }
}

/// The slices at the start of the path and the first unit after them.
fn unit_of<'a>(segments: &[&'a str]) -> (Option<&'a str>, Option<&'a str>) {
    let mut slice = None;
    for segment in segments {
        // systemd puts `_` before a name that would clash with a kernel file.
        let segment = segment.strip_prefix('_').unwrap_or(segment);
        if segment.ends_with(".slice") {
            slice = Some(segment);
        } else if UNIT_SUFFIXES.iter().any(|suffix| segment.len() > suffix.len() && segment.ends_with(suffix)) {
            return (slice, Some(segment));
        } else {
            break;
        }
    }
    (slice, None)
}

/// The innermost container that a manager outside it made, and where its segment stands.
fn container_of(segments: &[&str]) -> Option<(usize, Container)> {
    let mut found = None;
    for (at, segment) in segments.iter().enumerate() {
        let parents = segments.get(..at).unwrap_or_default();
        if let Some((runtime, id)) = container_segment(parents, segment) {
            let container = Container {
                id: id.into(),
                runtime: runtime.map(Into::into),
                name: name_of(runtime, id),
                ..Default::default()
            };
            found = Some((at, container));
        }
    }
    found
}

/// Runtime and id, if this segment is the group of a container.
fn container_segment<'a>(parents: &[&str], segment: &'a str) -> Option<(Option<&'static str>, &'a str)> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    // `kubepods-burstable-pod<uid>.slice:cri-containerd:<id>`: a path in systemd's notation given to cgroupfs.
    if let [_, prefix, id] = name.split(':').collect::<Vec<_>>()[..] {
        let (_, runtime) = PREFIXES.iter().find(|(known, _)| known.trim_end_matches('-') == prefix)?;
        return is_hexadecimal_id(id).then_some((Some(*runtime), id));
    }
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = name.strip_prefix(prefix)
            && is_hexadecimal_id(id)
        {
            return Some((Some(*runtime), id));
        }
    }
    if let Some(id) = segment.strip_prefix("lxc.payload.").filter(|id| !id.is_empty()) {
        return Some((Some("lxc"), id));
    }
    if let Some(machine) = segment.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return Some((Some("systemd-nspawn"), machine));
    }
    // Virtual machines (`machine-qemu\x2d…`) are not containers.
    if parents.last() == Some(&"machine.slice")
        && let Some(machine) = segment.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"))
        && !machine.starts_with("qemu\\x2d")
    {
        return Some((Some("systemd-nspawn"), machine));
    }
    match parents {
        [.., "docker"] if is_long_id(segment) => Some((Some("docker"), segment)),
        [.., "docker", "buildkit"] => Some((Some("buildkit"), segment)),
        [.., "ecs", _] if is_ecs_id(segment) || is_long_id(segment) => Some((Some("docker"), segment)),
        ["lxc"] | ["lxc.payload"] => Some((Some("lxc"), segment)),
        // containerd's namespace of that name, which `ctr` uses; only root makes groups up there.
        ["default"] => Some((Some("containerd"), segment)),
        // cgroupfs under a kubelet or containerd: the id alone, whose runtime the path does not tell.
        _ if is_long_id(segment) => Some((None, segment)),
        _ => None,
    }
}

/// LXC and nspawn have no id but the name.
fn name_of(runtime: Option<&str>, id: &str) -> Option<Arc<str>> {
    matches!(runtime, Some("lxc" | "systemd-nspawn")).then(|| id.into())
}

/// The uid of the innermost Kubernetes pod, with dashes.
fn pod_of(segments: &[&str]) -> Option<String> {
    segments.iter().rev().find_map(|segment| {
        let name = segment.split(':').next().unwrap_or(segment);
        let name = name.strip_suffix(".slice").unwrap_or(name);
        let (_, uid) = name.rsplit_once("pod")?;
        let uid = uid.replace('_', "-");
        is_pod_uid(&uid).then_some(uid)
    })
}

/// A UUID, or the 32 hexadecimal digits of a static pod.
fn is_pod_uid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = text.bytes().filter(|byte| *byte == b'-').count();
    digits == 32 && digits + dashes == text.len() && (dashes == 0 || dashes == 4)
}

fn is_long_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_hexadecimal_id(text: &str) -> bool {
    text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `<32 hexadecimal digits>-<10 digits>`, as the ECS agent on Fargate writes them.
fn is_ecs_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(id, number)| {
        id.len() == 32
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// What stands before the id, and the runtime that writes it. The monitors
/// (`crio-conmon-`, `libpod-conmon-`) run outside the container: their rest is no id.
const PREFIXES: &[(&str, &str)] = &[
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "crio"),
    ("libpod-", "podman"),
    ("libpod-payload-", "podman"),
];

const UNIT_SUFFIXES: &[&str] = &[".service", ".scope", ".socket", ".mount", ".swap"];

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";
    const POD: &str = "6f1cd2a4-7f4d-4d0e-9a53-0d2d62f5a6b1";

    /// Runtime, id, pod, unit, slice.
    fn read(path: &str) -> (Option<String>, Option<String>, Option<String>, Option<String>, Option<String>) {
        let cgroup = Cgroup::from_path(&path.replace("ID", ID));
        let text = |value: &Arc<str>| value.to_string();
        let container = cgroup.container.as_ref();
        (
            container.and_then(|container| container.runtime.as_ref()).map(text),
            container.map(|container| text(&container.id)),
            container.and_then(|container| container.pod.as_ref()).map(text),
            cgroup.unit.as_ref().map(text),
            cgroup.slice.as_ref().map(text),
        )
    }

    #[test]
    fn every_runtime_is_known_by_its_path() {
        let underscored = POD.replace('-', "_");
        let besteffort =
            format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{underscored}.slice");
        for (path, runtime, id, pod) in [
            ("/system.slice/docker-ID.scope", Some("docker"), ID, None),
            ("/docker/ID", Some("docker"), ID, None),
            ("/../docker/ID", Some("docker"), ID, None),
            ("/docker/ID/system.slice/nginx.service", Some("docker"), ID, None),
            ("/docker/buildkit/x7k2p0q9", Some("buildkit"), "x7k2p0q9", None),
            ("/machine.slice/libpod-ID.scope", Some("podman"), ID, None),
            ("/machine.slice/libpod-ID.scope/container", Some("podman"), ID, None),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", Some("podman"), ID, None),
            ("/libpod_parent/libpod-ID", Some("podman"), ID, None),
            ("/system.slice/web.service/libpod-payload-ID", Some("podman"), ID, None),
            ("/system.slice/nerdctl-ID.scope", Some("containerd"), ID, None),
            ("/default/ID", Some("containerd"), ID, None),
            ("/default/web-1", Some("containerd"), "web-1", None),
            ("/lxc.payload.web1/init.scope", Some("lxc"), "web1", None),
            ("/lxc/web1/ns", Some("lxc"), "web1", None),
            ("/machine.slice/systemd-nspawn@build.service/payload", Some("systemd-nspawn"), "build", None),
            ("/machine.slice/machine-build.scope", Some("systemd-nspawn"), "build", None),
            (
                "/ecs/5e2c/0123456789abcdef0123456789abcdef-1234567890",
                Some("docker"),
                "0123456789abcdef0123456789abcdef-1234567890",
                None,
            ),
            (&format!("{besteffort}/cri-containerd-ID.scope"), Some("containerd"), ID, Some(POD)),
            (&format!("{besteffort}/crio-ID.scope"), Some("crio"), ID, Some(POD)),
            (&format!("/kubepods/burstable/pod{POD}/ID"), None, ID, Some(POD)),
            (
                &format!(
                    "/system.slice/containerd.service/kubepods-burstable-pod{underscored}.slice:cri-containerd:ID"
                ),
                Some("containerd"),
                ID,
                Some(POD),
            ),
            (&format!("/docker/{}/kubelet/kubepods/pod{POD}/ID", "f".repeat(64)), None, ID, Some(POD)),
        ] {
            let (found_runtime, found_id, found_pod, ..) = read(path);
            assert_eq!(
                (found_runtime.as_deref(), found_id.as_deref(), found_pod.as_deref()),
                (runtime, Some(id), pod),
                "{path}"
            );
        }
    }

    #[test]
    fn monitors_and_machines_are_no_containers() {
        for path in [
            "/",
            "",
            "/system.slice/crio-conmon-ID.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/lxc.monitor.web1",
            "/machine.slice/machine-qemu\\x2d3\\x2dvm.scope",
            "/system.slice/docker.service",
            "/user.slice/user-1000.slice/session-3.scope",
        ] {
            assert_eq!(read(path).1, None, "{path}");
        }
    }

    #[test]
    fn the_unit_is_the_system_managers() {
        for (path, unit, slice) in [
            ("/system.slice/nginx.service", Some("nginx.service"), Some("system.slice")),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                Some("getty@tty1.service"),
                Some("system-getty.slice"),
            ),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"), Some("user-1000.slice")),
            ("/init.scope", Some("init.scope"), None),
            ("/", None, None),
            // What a user or a container names is not believed.
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service",
                Some("user@1000.service"),
                Some("user-1000.slice"),
            ),
            ("/docker/ID/system.slice/backup.service", None, None),
            (
                "/system.slice/docker-ID.scope/system.slice/backup.service",
                Some(&format!("docker-{ID}.scope")),
                Some("system.slice"),
            ),
        ] {
            let (.., found_unit, found_slice) = read(path);
            assert_eq!((found_unit.as_deref(), found_slice.as_deref()), (unit, slice), "{path}");
        }
    }

    #[test]
    fn the_line_that_says_most_wins() {
        let hybrid = format!("12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        let cgroup = Cgroup::from_proc(hybrid.as_bytes()).unwrap();
        assert_eq!(&*cgroup.container.unwrap().id, ID);
        let legacy = b"3:cpu,cpuacct:/\n2:memory:/some\n1:name=systemd:/system.slice/cron.service\n0::/\n";
        assert_eq!(Cgroup::from_proc(legacy).unwrap().unit.as_deref(), Some("cron.service"));
        let unified = b"0::/system.slice/a:b.service\n";
        assert_eq!(&*Cgroup::from_proc(unified).unwrap().path, "/system.slice/a:b.service");
        assert_eq!(&*Cgroup::from_proc(b"0::/\n").unwrap().path, "/");
        assert_eq!(Cgroup::from_proc(b""), None);
        assert_eq!(Cgroup::from_proc(b"\xff\n::"), Some(Cgroup { path: "/".into(), ..Default::default() }));
    }
}
