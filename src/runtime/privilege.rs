//! Gives up every privilege that the work does not need, before the first thread starts.
//!
//! Capabilities belong to threads: what is given up later stays with the
//! threads that were there before.

use caps::{CapSet, Capability, CapsHashSet};

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The kernel refused.
    #[error("cannot give up capabilities")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The kernel refused.
    #[error("cannot forbid new privileges")]
    NoNewPrivileges(#[from] rustix::io::Errno),
}

/// What capturing and looking up owners needs.
const NEEDED: [Capability; 9] = [
    Capability::CAP_NET_RAW,         // libpcap
    Capability::CAP_NET_ADMIN,       // process events, sock_diag details, kernel programs
    Capability::CAP_SYS_PTRACE,      // /proc/PID/exe and fd of other users
    Capability::CAP_DAC_READ_SEARCH, // the same, and executables to be hashed
    Capability::CAP_SYS_ADMIN,       // entering network namespaces
    Capability::CAP_SYS_NICE,        // following short-lived processes on a busy machine
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_BIND_SERVICE,
];

/// Keeps of the present capabilities only what the work needs, and forbids gaining any by executing a program.
///
/// # Errors
/// Where the kernel refuses; nothing has been given up then, and the caller decides.
pub fn restrict() -> Result<(), PrivilegeError> {
    let needed: CapsHashSet = NEEDED.into_iter().collect();
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(&needed).copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
