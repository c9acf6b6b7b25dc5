//! Loads the kernel programs and attaches them, or says which need failed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, Iter, Program, ProgramError,
};
use aya::{Btf, Ebpf, EbpfLoader};
use tracing::debug;

use super::record::{self, Seed};
use super::{Settings, sys};

/// Why the kernel source cannot be used on this host.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The kernel does not describe its types.
    #[error("the kernel has no type information ({TYPES}: needs CONFIG_DEBUG_INFO_BTF)")]
    TypeInformation {
        /// What reading it gave.
        #[source]
        source: aya::BtfError,
    },
    /// The process may not load programs.
    #[error("the process lacks {}", names.join(", "))]
    Capability {
        /// The missing ones.
        names: Vec<&'static str>,
    },
    /// There is no control group to attach to.
    #[error("no control group hierarchy of version 2")]
    ControlGroup {
        /// What opening it gave.
        #[source]
        source: io::Error,
    },
    /// The object or one of its maps was refused.
    #[error("the kernel ({release}) refused the maps{}", advice(release))]
    Object {
        /// The kernel's release.
        release: String,
        /// What it said.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// A program was refused.
    #[error("the kernel ({release}) refused the program `{program}`{}", advice(release))]
    Program {
        /// The program's name.
        program: &'static str,
        /// The kernel's release.
        release: String,
        /// What it said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A call on what was loaded failed.
    #[error("cannot {what} the kernel programs")]
    Call {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The programs, attached, and the handles that reading needs. Dropping it
/// takes the programs out of the kernel.
pub struct Programs {
    /// Holds the links.
    _loaded: Ebpf,
    pub ring: RingBuf<MapData>,
    pub iterator: OwnedFd,
    pub sockets: OwnedFd,
    pub flows: [OwnedFd; 2],
    pub overflow: OwnedFd,
    pub statistics: OwnedFd,
    /// Processes that had sockets before the start.
    pub seeds: Vec<Seed>,
    /// Whether senders on packet sockets are seen.
    pub packet_sockets: Result<(), String>,
}

impl Programs {
    /// Loads and attaches everything: owners first, counters last, so that no
    /// packet is counted before its socket can have an owner.
    pub fn load(settings: &Settings) -> Result<Self, EbpfError> {
        let missing = missing_capabilities();
        if !missing.is_empty() {
            return Err(EbpfError::Capability { names: missing });
        }
        let types = Btf::from_sys_fs().map_err(|source| EbpfError::TypeInformation { source })?;
        let cgroup = match &settings.cgroup {
            Some(path) => File::open(path),
            None => root_cgroup(),
        }
        .map_err(|source| EbpfError::ControlGroup { source })?;

        let names = u32::from(settings.names);
        let mut loaded = EbpfLoader::new()
            .btf(Some(&types))
            .override_global("report_names", &names, true)
            .load(OBJECT)
            .map_err(|source| EbpfError::Object { release: release(), source: Box::new(source) })?;

        let mut attach = Attach { loaded: &mut loaded, types: &types, cgroup: &cgroup };
        attach.tracepoint("on_exec", "sched_process_exec")?;
        attach.socket("on_create")?;
        attach.socket("on_release")?;
        attach.tracepoint("on_tcp_destroy", "tcp_destroy_sock")?;
        attach.tracepoint("on_exit", "sched_process_exit")?;
        let packet_sockets = if settings.packet_sockets {
            // Linux 6.3 has the tracepoint; on an older kernel all else works.
            attach.tracepoint("on_send", "sock_send_length").map_err(|error| crate_text(&error))
        } else {
            Err("switched off".to_owned())
        };
        let iterator = attach.drain()?;
        // What takes long comes before the seed: a process that ends meanwhile could not be named.
        attach.verify("on_ingress")?;
        attach.verify("on_egress")?;
        let seeds = attach.seed()?;
        attach.packets("on_ingress", CgroupSkbAttachType::Ingress)?;
        attach.packets("on_egress", CgroupSkbAttachType::Egress)?;

        let ring = loaded
            .take_map("events")
            .ok_or_else(|| EbpfError::Call { what: "find the ring of", source: io::ErrorKind::NotFound.into() })
            .and_then(|map| {
                RingBuf::try_from(map)
                    .map_err(|error| EbpfError::Call { what: "map the ring of", source: io::Error::other(error) })
            })?;
        let handle = |name| map_handle(&loaded, name);
        Ok(Self {
            ring,
            iterator,
            sockets: handle("sockets")?,
            flows: [handle("flows_a")?, handle("flows_b")?],
            overflow: handle("overflow")?,
            statistics: handle("statistics")?,
            seeds,
            packet_sockets,
            _loaded: loaded,
        })
    }

    /// What the programs counted beside flows.
    pub fn statistic(&self, which: u32) -> u64 {
        let mut value = 0_u64;
        match sys::lookup(self.statistics.as_fd(), &which, &mut value) {
            Ok(()) => value,
            Err(_) => 0, // Every index of an array exists; nothing else can fail here.
        }
    }
}

struct Attach<'a> {
    loaded: &'a mut Ebpf,
    types: &'a Btf,
    cgroup: &'a File,
}

impl Attach<'_> {
    fn program<'p, T>(&'p mut self, name: &'static str) -> Result<&'p mut T, EbpfError>
    where
        &'p mut T: TryFrom<&'p mut Program, Error = ProgramError>,
    {
        let unknown = || {
            ProgramError::SyscallError(aya::sys::SyscallError {
                call: "look up the program in the object",
                io_error: io::ErrorKind::NotFound.into(),
            })
        };
        self.loaded.program_mut(name).ok_or_else(unknown).and_then(TryInto::try_into).map_err(refused(name))
    }

    fn tracepoint(&mut self, name: &'static str, point: &str) -> Result<(), EbpfError> {
        let types = self.types;
        let program: &mut BtfTracePoint = self.program(name)?;
        program.load(point, types).and_then(|()| program.attach()).map(drop).map_err(refused(name))
    }

    fn socket(&mut self, name: &'static str) -> Result<(), EbpfError> {
        let cgroup = self.cgroup;
        let program: &mut CgroupSock = self.program(name)?;
        program.load().and_then(|()| program.attach(cgroup, LINK)).map(drop).map_err(refused(name))
    }

    fn verify(&mut self, name: &'static str) -> Result<(), EbpfError> {
        let program: &mut CgroupSkb = self.program(name)?;
        program.load().map_err(refused(name))
    }

    fn packets(&mut self, name: &'static str, way: CgroupSkbAttachType) -> Result<(), EbpfError> {
        let cgroup = self.cgroup;
        let program: &mut CgroupSkb = self.program(name)?;
        program.attach(cgroup, way, LINK).map(drop).map_err(refused(name))
    }

    /// Gives every open socket of every process in every network namespace its owner.
    fn seed(&mut self) -> Result<Vec<Seed>, EbpfError> {
        let types = self.types;
        let program: &mut Iter = self.program("seed")?;
        program.load("task_file", types).map_err(refused("seed"))?;
        let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused("seed"))?;
        let failed = |source| EbpfError::Call { what: "seed", source };
        let mut file = link.into_file().map_err(|error| failed(io::Error::other(error)))?;
        let mut records = Vec::new();
        file.read_to_end(&mut records).map_err(failed)?;
        Ok(records.chunks(size_of::<Seed>()).filter_map(record::read).collect())
    }

    /// The link of the iterator over socket entries, which aya cannot make since it needs a map.
    fn drain(&mut self) -> Result<OwnedFd, EbpfError> {
        let types = self.types;
        let failed = |source| EbpfError::Call { what: "attach the iterator of", source };
        let program: &mut Iter = self.program("drain")?;
        program.load("bpf_sk_storage_map", types).map_err(refused("drain"))?;
        let program = program.fd().map_err(refused("drain"))?.as_fd().try_clone_to_owned().map_err(failed)?;
        let map = map_handle(self.loaded, "sockets")?;
        sys::link_iterator(program.as_fd(), map.as_fd()).map_err(failed)
    }
}

fn map_handle(loaded: &Ebpf, name: &'static str) -> Result<OwnedFd, EbpfError> {
    let failed = |source| EbpfError::Call { what: "find a map of", source };
    let map = loaded.map(name).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let data = match map {
        Map::HashMap(data) | Map::Array(data) | Map::SkStorage(data) | Map::LruHashMap(data) => data,
        _ => return Err(failed(io::ErrorKind::InvalidData.into())),
    };
    let fd: BorrowedFd<'_> = data.fd().as_fd();
    fd.try_clone_to_owned().map_err(failed)
}

/// The root of the control groups, also where version 2 is mounted beside version 1, or nowhere.
fn root_cgroup() -> io::Result<File> {
    for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        // Only version 2 has this file.
        if Path::new(mount).join("cgroup.controllers").exists() {
            return File::open(mount);
        }
    }
    debug!("control groups of version 2 are mounted nowhere: using a mount of our own");
    sys::detached_cgroup2()
}

fn missing_capabilities() -> Vec<&'static str> {
    let needed = [
        (caps::Capability::CAP_BPF, "CAP_BPF"),
        (caps::Capability::CAP_PERFMON, "CAP_PERFMON"),
        (caps::Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    ];
    let has = |capability| caps::has_cap(None, caps::CapSet::Effective, capability).unwrap_or(false);
    // Before Linux 5.8 one capability stood for all of them, and it still does.
    if has(caps::Capability::CAP_SYS_ADMIN) && has(caps::Capability::CAP_NET_ADMIN) {
        return Vec::new();
    }
    needed.into_iter().filter(|(capability, _)| !has(*capability)).map(|(_, name)| name).collect()
}

fn refused(program: &'static str) -> impl Fn(ProgramError) -> EbpfError {
    move |source| EbpfError::Program { program, release: release(), source: Box::new(source) }
}

fn release() -> String {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(text) => format!("Linux {}", text.trim()),
        Err(_) => "Linux of unknown release".to_owned(), // A sandbox without /proc.
    }
}

/// What to say of a kernel that is older than those this was tried on.
fn advice(release: &str) -> &'static str {
    let mut numbers = release.trim_start_matches("Linux ").split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 1) => "; Linux 6.1 or later is needed",
        _ => "",
    }
}

/// The whole chain of causes in one line.
fn crate_text(error: &EbpfError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl EbpfError {
    /// The whole chain of causes in one line, for a status or an alert.
    pub fn reason(&self) -> String {
        crate_text(self)
    }
}

/// aya hands the mode to BPF_LINK_CREATE, whose flags must be 0: a link
/// always stands beside others.
const LINK: CgroupAttachMode = CgroupAttachMode::Single;

const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// One file serves every little-endian kernel: offsets are fitted at load.
static OBJECT: &[u8] = aya::include_bytes_aligned!("egress.bpf.o");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_told_what_is_needed() {
        assert!(advice("Linux 5.10.0-28-amd64").contains("6.1"));
        assert_eq!(advice("Linux 6.1.0"), "");
        assert_eq!(advice("Linux 6.18.44"), "");
        assert_eq!(advice("something else"), "");
    }

    #[test]
    fn the_message_names_what_is_missing() {
        let error = EbpfError::Capability { names: vec!["CAP_BPF", "CAP_PERFMON"] };
        assert_eq!(error.reason(), "the process lacks CAP_BPF, CAP_PERFMON");
    }
}
