//! Finds out more about owners, on a thread of its own: the package of their
//! executable and, where somebody asks for it, its hash; the name, image and pod of their container.
//!
//! Reading package lists and asking runtimes takes milliseconds, sometimes a
//! second. The packet path, the look-up of owners and the kernel source do not
//! wait for it; an owner is told as far as it is known.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::warn;

use crate::attribution::{Container, Executable, ExecutableKind, Process};
use crate::memory;
use crate::resolve::containers::{Containers, Home};
use crate::resolve::hashes::Hashes;
use crate::resolve::packages::{ContainerPackages, Packages, Trusted};
use crate::resolve::root::Root;

/// The running service. Dropping it ends its thread.
#[derive(Debug)]
pub struct Describer {
    questions: Option<Sender<Arc<Process>>>,
    hashes: Arc<AtomicBool>,
    answers: Receiver<Described>,
    thread: Option<JoinHandle<()>>,
}

/// A process with all that is known of it.
#[derive(Debug, Clone)]
pub struct Described {
    /// As it was asked for.
    pub process: Arc<Process>,
    /// With what was found out; the same one where nothing was.
    pub described: Arc<Process>,
}

impl Describer {
    /// Starts to answer from the file system at `root`, usually `/`.
    ///
    /// # Errors
    /// Where the root cannot be opened and where the system gives no thread.
    pub fn start(root: &Path) -> std::io::Result<Self> {
        let (questions, asked) = bounded::<Arc<Process>>(MAX_WAITING);
        let (answer, answers) = bounded(MAX_WAITING);
        let hashes = Arc::new(AtomicBool::new(false));
        let mut finder = Finder::open(root, Arc::clone(&hashes))?;
        let thread = std::thread::Builder::new().name("egret-describe".into()).spawn(move || {
            finder.read_packages();
            for process in asked {
                let described = finder.describe(&process);
                if answer.send(Described { process, described }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions: Some(questions), hashes, answers, thread: Some(thread) })
    }

    /// Asks for more about a process. `false` when too many questions wait: it stays as it is.
    pub fn ask(&self, process: Arc<Process>) -> bool {
        self.questions.as_ref().is_some_and(|questions| questions.try_send(process).is_ok())
    }

    /// Whether executables are hashed, from the next question on. Returns whether they were.
    pub fn set_hashing(&self, hashing: Hashing) -> Hashing {
        if self.hashes.swap(hashing == Hashing::On, Ordering::Relaxed) { Hashing::On } else { Hashing::Off }
    }

    /// Where answers arrive.
    pub fn answers(&self) -> &Receiver<Described> {
        &self.answers
    }
}

impl Drop for Describer {
    fn drop(&mut self) {
        self.questions = None;
        // The thread may wait for room: nobody will read these any more.
        self.answers = crossbeam_channel::never();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread that describes owners panicked");
        }
    }
}

/// Whether executables are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// They are: a rule or the configuration asks for it.
    On,
    /// They are not.
    Off,
}

/// What the thread owns.
struct Finder {
    root: PathBuf,
    hashing: Arc<AtomicBool>,
    hashes: Hashes,
    /// Read at the start, so that the first alert does not wait for it.
    packages: Option<Packages>,
    of_containers: ContainerPackages,
    containers: Containers,
}

impl Finder {
    fn open(root: &Path, hashing: Arc<AtomicBool>) -> std::io::Result<Self> {
        let containers = Containers::new(Root::open(root)?);
        let hashes = Hashes::default();
        Ok(Self {
            root: root.to_owned(),
            hashing,
            hashes,
            packages: None,
            of_containers: ContainerPackages::default(),
            containers,
        })
    }

    fn describe(&mut self, process: &Arc<Process>) -> Arc<Process> {
        let package = process.executable.as_ref().and_then(|executable| self.package(process, executable));
        let container = process.container.as_ref().map(|container| self.container(process, container));
        let hash = match self.hashing.load(Ordering::Relaxed) {
            true => self.hashes.of_process(process),
            false => None,
        };
        if package.is_none() && hash.is_none() && container == process.container {
            return Arc::clone(process);
        }
        let mut described = (**process).clone();
        if let Some(executable) = &mut described.executable
            && executable.package.is_none()
        {
            executable.package = package;
        }
        if let Some(executable) = &mut described.executable
            && hash.is_some()
        {
            executable.sha256 = hash;
        }
        described.container = container;
        Arc::new(described)
    }

    /// Only a file that is still at its path is the package's.
    fn package(&mut self, process: &Process, executable: &Executable) -> Option<Arc<str>> {
        if executable.kind != ExecutableKind::File {
            return None;
        }
        let inside = self.root.join(format!("proc/{}/root", process.key.pid));
        if let Some(container) = &process.container {
            return self.of_containers.owner(&container.id, inside, &executable.path);
        }
        // A process with a root of its own does not run this host's file of that name.
        let place = |path: &Path| std::fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()));
        if place(&inside).is_some_and(|inside| place(&self.root) != Some(inside)) {
            return None;
        }
        self.read_packages();
        self.packages.as_ref()?.owner(&executable.path)
    }

    /// Reads this host's packages where they changed.
    fn read_packages(&mut self) {
        let Ok(root) = Root::open(&self.root) else { return };
        if self.packages.as_mut().is_none_or(|packages| packages.is_outdated(&root)) {
            self.packages = Some(Packages::read(&root, Trusted::Host));
            // The lists are ten times as long as what is kept of them.
            memory::give_back();
        }
    }

    fn container(&mut self, process: &Process, container: &Container) -> Container {
        let cgroup = process.cgroup.as_deref().unwrap_or_default();
        let home = Home::of_cgroup(cgroup, |uid| {
            use uzers::os::unix::UserExt;
            let user = uzers::get_user_by_uid(uid)?;
            user.home_dir().to_str().map(str::to_owned)
        });
        self.containers.describe(container, home.as_ref())
    }
}

/// Questions that may wait; further ones are refused.
const MAX_WAITING: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::ProcessKey;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    fn process(path: &str, kind: ExecutableKind, container: Option<&str>) -> Arc<Process> {
        Arc::new(Process {
            key: ProcessKey { pid: 42, start: 1 },
            executable: Some(Executable { path: path.into(), kind, ..Executable::default() }),
            container: container.map(|id| Container { id: id.into(), ..Container::default() }),
            ..Process::default()
        })
    }

    #[test]
    fn a_process_gets_its_package_and_its_container() {
        let host = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = host.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("var/lib/dpkg/info/curl.list", "/usr/bin/curl\n");
        write("image/var/lib/dpkg/info/busybox.list", "/usr/bin/curl\n");
        write("var/lib/docker/containers/c0ffee000000/config.v2.json", r#"{"Name":"/web","Config":{"Image":"web:1"}}"#);
        fs::create_dir_all(host.path().join("proc/42")).unwrap();
        let describer = Describer::start(host.path()).unwrap();
        let describe = |process: Arc<Process>| {
            assert!(describer.ask(Arc::clone(&process)));
            let found = describer.answers().recv_timeout(Duration::from_secs(30)).unwrap();
            assert!(Arc::ptr_eq(&found.process, &process));
            let package = found.described.executable.as_ref().unwrap().package.as_deref().map(str::to_owned);
            let container = found.described.container.as_ref().and_then(|container| container.name.as_deref());
            (package, container.map(str::to_owned))
        };
        let curl = |package: &str| (Some(package.to_owned()), None);
        assert_eq!(describe(process("/usr/bin/curl", ExecutableKind::File, None)), curl("curl"));
        assert_eq!(describe(process("/usr/bin/curl", ExecutableKind::Deleted, None)), (None, None));
        assert_eq!(describe(process("/tmp/curl", ExecutableKind::File, None)), (None, None));
        symlink(host.path().join("image"), host.path().join("proc/42/root")).unwrap();
        assert_eq!(describe(process("/usr/bin/curl", ExecutableKind::File, None)), (None, None), "another root");
        let inside = describe(process("/usr/bin/curl", ExecutableKind::File, Some("c0ffee000000")));
        assert_eq!(inside, (Some("busybox".to_owned()), Some("web".to_owned())));
    }
}
