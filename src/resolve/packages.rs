//! Which package put a file where it is: dpkg's lists, rpm's database.
//!
//! dpkg's lists are read once and kept as numbers, 8 bytes a file, until they
//! change. The answer is about a path: whether the file there is still the one
//! that the package brought is a question for its hash.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bstr::{BStr, ByteSlice};
use foldhash::quality::RandomState;
use tracing::warn;

use crate::resolve::root::{Root, Stamp};
use crate::resolve::rpm::RpmDatabase;

/// The packages of one file system.
#[derive(Debug)]
pub(super) struct Packages {
    dpkg: Dpkg,
    rpm: Option<RpmDatabase>,
    stamps: [Option<Stamp>; 2],
    checked: Instant,
}

/// dpkg's lists: the hash of each path and the number of its package.
#[derive(Debug, Default)]
struct Dpkg {
    /// 48 bits of hash, 16 bits of number, sorted.
    files: Vec<u64>,
    names: Vec<Arc<str>>,
    hasher: RandomState,
    /// Whether `/bin` is `/usr/bin`, so that both name one file.
    merged: bool,
}

/// Whose databases are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trusted {
    /// This host's: all of them.
    Host,
    /// A container's, written by whoever runs there: dpkg's text alone.
    Container,
}

impl Packages {
    /// Reads what there is.
    pub(super) fn read(root: &Root, trusted: Trusted) -> Self {
        let rpm = match trusted {
            Trusted::Host => RPM_DATABASES.iter().find_map(|path| RpmDatabase::open(&root.outside(path))),
            Trusted::Container => None,
        };
        if let (Trusted::Host, None, Some(path)) = (trusted, &rpm, old_rpm_database(root)) {
            warn!(path, "rpm's database has an older form, which is not read: executables have no package");
        }
        let stamps = stamps(root);
        Self { dpkg: Dpkg::read(root), rpm, stamps, checked: Instant::now() }
    }

    /// Whether packages came or went since; looked at every few seconds at most.
    pub(super) fn is_outdated(&mut self, root: &Root) -> bool {
        if self.checked.elapsed() < CHECK_INTERVAL {
            return false;
        }
        self.checked = Instant::now();
        self.stamps != stamps(root)
    }

    /// The name of the package that owns a path.
    pub(super) fn owner(&self, path: &[u8]) -> Option<Arc<str>> {
        self.dpkg.owner(path).or_else(|| self.rpm.as_ref()?.owner(path.to_str().ok()?))
    }
}

impl Dpkg {
    fn read(root: &Root) -> Self {
        let mut dpkg = Self { merged: root.is_link("/bin"), ..Self::default() };
        let diversions = diversions(root);
        let mut left = MAX_BYTES;
        for name in root.names(LISTS) {
            let Some(package) = name.strip_suffix(".list") else { continue };
            let Some(content) = root.read(&format!("{LISTS}/{name}"), left) else { continue };
            left -= content.len() as u64;
            // `libc6:amd64` is the package `libc6` of one architecture.
            let package = package.split(':').next().unwrap_or(package);
            let Ok(number) = u16::try_from(dpkg.names.len()) else { break };
            dpkg.names.push(package.into());
            for line in content.lines().filter(|line| !is_no_program(line)) {
                let line = match diversions.get(line) {
                    Some((by, to)) if *by != package => to.as_slice(),
                    _ => line,
                };
                let file = dpkg.hash(line) | u64::from(number);
                dpkg.files.push(file);
            }
        }
        dpkg.files.sort_unstable();
        dpkg.files.shrink_to_fit();
        dpkg
    }

    fn owner(&self, path: &[u8]) -> Option<Arc<str>> {
        let hash = self.hash(path);
        let at = self.files.partition_point(|file| *file < hash);
        let number = self.files.get(at).filter(|file| *file & HASH == hash)? & !HASH;
        self.names.get(usize::try_from(number).ok()?).cloned()
    }

    fn hash(&self, path: &[u8]) -> u64 {
        let path = match path.strip_prefix(b"/usr") {
            Some(rest) if self.merged && MERGED.iter().any(|folder| rest.starts_with(folder.as_bytes())) => rest,
            _ => path,
        };
        self.hasher.hash_one(BStr::new(path)) & HASH
    }
}

/// The database of an rpm that keeps it as Berkeley DB or ndb.
fn old_rpm_database(root: &Root) -> Option<&'static str> {
    OLD_RPM_DATABASES.into_iter().find(|path| root.stamp(path).is_some())
}

/// Files that one package moved out of another's way: by path, who did it and where to.
fn diversions(root: &Root) -> HashMap<Vec<u8>, (String, Vec<u8>)> {
    let content = root.read(DIVERSIONS, MAX_DIVERSIONS).unwrap_or_default();
    let mut lines = content.lines();
    let mut found = HashMap::new();
    while let (Some(from), Some(to), Some(by)) = (lines.next(), lines.next(), lines.next()) {
        found.insert(from.to_vec(), (by.to_str_lossy().into_owned(), to.to_vec()));
    }
    found
}

fn stamps(root: &Root) -> [Option<Stamp>; 2] {
    let rpm = RPM_DATABASES.iter().find_map(|path| root.stamp(path));
    [root.stamp(LISTS), rpm]
}

/// Most files of a package are documentation and translations.
fn is_no_program(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/usr/share/") else { return path.starts_with(b"/usr/include/") };
    ["doc/", "man/", "locale/", "icons/", "fonts/", "info/", "zoneinfo/"]
        .iter()
        .any(|no| rest.starts_with(no.as_bytes()))
}

const LISTS: &str = "/var/lib/dpkg/info";
const DIVERSIONS: &str = "/var/lib/dpkg/diversions";

/// Where rpm keeps its database since it is SQLite (Fedora 33, RHEL 9).
const RPM_DATABASES: [&str; 2] = ["/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite"];

/// Where it was before: Berkeley DB (RHEL 8), ndb (openSUSE).
const OLD_RPM_DATABASES: [&str; 3] =
    ["/var/lib/rpm/Packages", "/var/lib/rpm/Packages.db", "/usr/lib/sysimage/rpm/Packages.db"];

/// Folders of the root that are links into `/usr` on a merged system.
const MERGED: [&str; 4] = ["/bin/", "/sbin/", "/lib/", "/lib64/"];

/// The part of an entry that is the hash of its path.
const HASH: u64 = !0xffff;

/// How often it is asked whether packages came or went.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// All lists of a large desktop have 60 MB.
const MAX_BYTES: u64 = 256 << 20;
const MAX_DIVERSIONS: u64 = 1 << 20;

/// Packages of containers that are held, by the container's id.
#[derive(Debug, Default)]
pub(super) struct ContainerPackages {
    held: HashMap<Arc<str>, Packages>,
}

impl ContainerPackages {
    /// The package of a path in the file system of a container, seen through one of its processes.
    pub(super) fn owner(&mut self, container: &Arc<str>, root: PathBuf, path: &[u8]) -> Option<Arc<str>> {
        let root = Root::open(&root).ok()?;
        let outdated = self.held.get_mut(container).is_none_or(|packages| packages.is_outdated(&root));
        if outdated {
            if self.held.len() >= MAX_CONTAINERS {
                self.held.clear();
            }
            self.held.insert(Arc::clone(container), Packages::read(&root, Trusted::Container));
        }
        self.held.get(container)?.owner(path)
    }
}

/// Containers whose lists are held at once, 300 kB each; further ones start anew.
const MAX_CONTAINERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn lists(folder: &Path, lists: &[(&str, &str)]) {
        fs::create_dir_all(folder.join("var/lib/dpkg/info")).unwrap();
        for (package, list) in lists {
            fs::write(folder.join(format!("var/lib/dpkg/info/{package}.list")), list).unwrap();
        }
    }

    fn owner(packages: &Packages, path: &str) -> Option<String> {
        packages.owner(path.as_bytes()).map(|package| package.to_string())
    }

    #[test]
    fn dpkg_names_the_package_of_a_path() {
        let folder = tempfile::tempdir().unwrap();
        lists(
            folder.path(),
            &[
                ("bash", "/.\n/bin\n/bin/bash\n/usr/share/doc/bash/README\n"),
                ("libc6:amd64", "/.\n/lib/x86_64-linux-gnu/libc.so.6\n"),
                ("dash", "/bin/sh\n"),
                ("own-shell", "/bin/sh\n/opt/own shell/run\n"),
            ],
        );
        fs::write(folder.path().join("var/lib/dpkg/diversions"), "/bin/sh\n/bin/sh.distrib\nown-shell\n").unwrap();
        symlink("usr/bin", folder.path().join("bin")).unwrap();
        let packages = Packages::read(&Root::open(folder.path()).unwrap(), Trusted::Container);
        for (path, package) in [
            ("/usr/bin/bash", Some("bash")),
            ("/bin/bash", Some("bash")),
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", Some("libc6")),
            ("/usr/bin/sh", Some("own-shell")),
            ("/usr/bin/sh.distrib", Some("dash")),
            ("/opt/own shell/run", Some("own-shell")),
            ("/usr/opt/own shell/run", None),
            ("/usr/share/doc/bash/README", None),
            ("/tmp/bash", None),
        ] {
            assert_eq!(owner(&packages, path).as_deref(), package, "{path}");
        }
    }

    #[test]
    fn a_new_package_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        lists(folder.path(), &[("one", "/usr/bin/one\n")]);
        let root = Root::open(folder.path()).unwrap();
        let mut packages = Packages::read(&root, Trusted::Host);
        lists(folder.path(), &[("two", "/usr/bin/two\n")]);
        assert!(!packages.is_outdated(&root), "not asked so soon");
        packages.checked -= CHECK_INTERVAL;
        assert!(packages.is_outdated(&root));
    }

    #[test]
    fn a_container_has_packages_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        lists(folder.path(), &[("tool", "/usr/bin/tool\n")]);
        let mut packages = ContainerPackages::default();
        let mut owner = |root: &Path, path: &str| packages.owner(&"c1".into(), root.to_owned(), path.as_bytes());
        assert_eq!(owner(folder.path(), "/usr/bin/tool").as_deref(), Some("tool"));
        assert_eq!(owner(folder.path(), "/usr/bin/other"), None);
        assert_eq!(owner(&folder.path().join("gone"), "/usr/bin/tool"), None);
    }

    /// Against dpkg itself, on a machine that has it.
    #[test]
    fn this_machines_dpkg_says_the_same() {
        let packages = Packages::read(&Root::open(Path::new("/")).unwrap(), Trusted::Host);
        let mut compared = 0;
        for path in ["/usr/bin/env", "/usr/bin/dpkg", "/usr/bin/bash", "/usr/bin/tar", "/usr/sbin/ip", "/usr/bin/curl"]
        {
            // dpkg knows a file by the name under which it was installed.
            let asked = [path, path.strip_prefix("/usr").unwrap_or(path)].map(|path| {
                let output = std::process::Command::new("dpkg").args(["-S", path]).output();
                let text =
                    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
                text.split(':').next().filter(|package| !package.is_empty()).map(str::to_owned)
            });
            let Some(expected) = asked.into_iter().flatten().next() else { continue };
            assert_eq!(owner(&packages, path), Some(expected), "{path}");
            compared += 1;
        }
        let has_dpkg = std::process::Command::new("dpkg").arg("--version").output().is_ok();
        assert_eq!(compared > 0, has_dpkg);
        assert_eq!(owner(&packages, "/tmp/nothing-installed-this"), None);
    }
}
