//! The records of the kernel programs, as `records.h` lays them out.

use bstr::{BString, ByteSlice};

use crate::packet::{Address, Endpoint, Protocol};

/// One execution of one process: an `exec` makes a new one with the same pid.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Execution {
    /// Nanoseconds from boot to the start of the process.
    pub start: u64,
    /// The process id in the initial pid namespace; 0 is the kernel itself.
    pub pid: u32,
    /// The kernel's count of execs.
    pub exec: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Key {
    pub cookie: u64,
    pub owner: Execution,
    remote: [u8; 16],
    remote_port: u16,
    local_port: u16,
    protocol: u8,
    family: u8,
    zero: [u8; 2],
}

/// Traffic whose destination was given up.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Nowhere {
    pub owner: Execution,
    pub netns: u32,
    protocol: u8,
    family: u8,
    zero: [u8; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub packets_in: u64,
    pub payload_out: u64,
    pub payload_in: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Value {
    pub count: Count,
    local: [u8; 16],
    pub netns: u32,
    pub opened: u8,
    pub state: u8,
    zero: [u8; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    kind: u32,
    size: u32,
    pub time: u64,
    pub key: Key,
    pub value: Value,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Close {
    pub flow: Flow,
    pub tcp_sent: u64,
    pub tcp_acked: u64,
    pub tcp_received: u64,
    pub tcp_retransmitted: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PayloadHead {
    pub kind: u32,
    size: u32,
    pub time: u64,
    pub key: Key,
    local: [u8; 16],
    pub netns: u32,
    pub length: u32,
    pub outgoing: u32,
    pub sequence: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Exe {
    pub inode: u64,
    pub links: u32,
    length: u32,
    cut: u32,
    zero: u32,
    path: [u8; PATH],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ProcessHead {
    kind: u32,
    size: u32,
    pub time: u64,
    pub id: Execution,
    pub uid: u32,
    pub gid: u32,
    pub login_uid: u32,
    pub netns: u32,
    pub cgroup: u64,
    args_length: u32,
    args_total: u32,
    cwd_length: u32,
    cgroup_length: u32,
    pub comm: [u8; 16],
    pub ancestors: [Execution; ANCESTORS],
    pub exe: Exe,
    cwd: [u8; CWD],
    cgroup_path: [u8; CGROUP],
    args: [u8; ARGS],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AncestorHead {
    kind: u32,
    size: u32,
    time: u64,
    pub id: Execution,
    args_length: u32,
    args_known: u32,
    pub comm: [u8; 16],
    pub exe: Exe,
    args: [u8; ANCESTOR_ARGS],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    kind: u32,
    size: u32,
    pub time: u64,
    pub id: Execution,
    pub code: u32,
    zero: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    pub id: Execution,
    pub cookie: u64,
}

/// The beginning of what a socket keeps in the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketInfo {
    pub owner: Execution,
    rest: [u64; 11],
}

/// What is in the ring.
pub enum Event<'a> {
    Process(Box<ProcessHead>),
    Ancestor(Box<AncestorHead>),
    Exit(Exit),
    Close(Close),
    Payload(PayloadHead, &'a [u8]),
}

/// Values without padding for which every bit pattern is one.
///
/// # Safety
///
/// Only `#[repr(C)]` structures of integers and arrays of them.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($name:ident)*) => {$(
        // SAFETY: the structure above is `#[repr(C)]` and holds integers and arrays of integers only.
        unsafe impl Plain for $name {}
    )*};
}
plain!(Execution Nowhere Key Count Value Flow Close PayloadHead ProcessHead AncestorHead Exit Seed SocketInfo);

/// The value at the start of `bytes`, if there are enough of them.
pub fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, `T` takes any bits, and the read needs no alignment.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Reads one record of the ring; `None` for one that this program does not know.
pub fn event(bytes: &[u8]) -> Option<Event<'_>> {
    let kind = bytes.first_chunk::<4>().map(|word| u32::from_ne_bytes(*word))?;
    Some(match kind {
        PROCESS => Event::Process(Box::new(read(bytes)?)),
        ANCESTOR => Event::Ancestor(Box::new(read(bytes)?)),
        EXIT => Event::Exit(read(bytes)?),
        CLOSE => Event::Close(read(bytes)?),
        DNS | FIRST => {
            let head: PayloadHead = read(bytes)?;
            let data = bytes.get(size_of::<PayloadHead>()..)?;
            Event::Payload(head, data.get(..head.length as usize).unwrap_or(data))
        }
        _ => return None,
    })
}

impl Key {
    pub fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    pub fn remote(&self) -> Endpoint {
        Endpoint::new(address(self.family, &self.remote), self.remote_port)
    }

    pub fn local(&self, value: &Value) -> Endpoint {
        Endpoint::new(address(self.family, &value.local), self.local_port)
    }

    /// A key without destination.
    pub fn nowhere(nowhere: Nowhere) -> Self {
        let Nowhere { owner, protocol, family, .. } = nowhere;
        Self { owner, protocol, family, ..Self::default() }
    }
}

impl Value {
    /// Counts without an address.
    pub fn nowhere(nowhere: Nowhere, count: Count) -> Self {
        Self { count, netns: nowhere.netns, ..Self::default() }
    }
}

impl PayloadHead {
    pub fn local(&self) -> Endpoint {
        Endpoint::new(address(self.key.family, &self.local), self.key.local_port)
    }
}

impl ProcessHead {
    /// The arguments, and whether these are all of them.
    pub fn arguments(&self) -> (Vec<BString>, bool) {
        let length = self.args_length as usize;
        (split_arguments(self.args.get(..length).unwrap_or_default()), self.args_length == self.args_total)
    }

    pub fn working_directory(&self) -> Option<BString> {
        match self.cwd_length {
            // The root directory has no name of its own.
            0 => None,
            length => Some(joined(self.cwd.get(..length as usize)?)),
        }
    }

    /// The path in the second version's hierarchy.
    pub fn cgroup_path(&self) -> BString {
        joined(self.cgroup_path.get(..self.cgroup_length as usize).unwrap_or_default())
    }
}

impl AncestorHead {
    /// The arguments, where the process was seen starting, and whether these are all.
    pub fn arguments(&self) -> Option<(Vec<BString>, bool)> {
        let text = self.args.get(..self.args_length as usize)?;
        (self.args_known > 0).then(|| (split_arguments(text), self.args_known == 1))
    }
}

impl Exe {
    /// The names from the root down, and whether the path is whole.
    pub fn path(&self) -> (BString, bool) {
        (joined(self.path.get(..self.length as usize).unwrap_or(&self.path)), self.cut == 0)
    }
}

/// `execve` keeps arguments one after the other, each with its NUL.
pub fn split_arguments(text: &[u8]) -> Vec<BString> {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == 0).map(BString::from).collect()
}

/// The programs walk from the leaf up: names come in reverse order, each with its NUL.
fn joined(names: &[u8]) -> BString {
    let mut path = BString::default();
    let names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

/// The text before the first NUL.
pub fn text_of(bytes: &[u8]) -> BString {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes).as_bstr().to_owned()
}

fn address(family: u8, bytes: &[u8; 16]) -> Address {
    match (family, bytes) {
        (4, [a, b, c, d, ..]) => Address::from_v4([*a, *b, *c, *d]),
        (6, all) => Address::from_v6(*all),
        // Frames of packet sockets have none.
        _ => Address::from_v4([0; 4]),
    }
}

pub const PROCESS: u32 = 1;
pub const ANCESTOR: u32 = 2;
pub const EXIT: u32 = 3;
pub const CLOSE: u32 = 5;
pub const DNS: u32 = 6;
pub const FIRST: u32 = 7;

pub const OPENED_HERE: u8 = 1;
pub const OPENED_THERE: u8 = 2;

/// What the programs count beside flows, by index.
pub const LOST_PACKETS: u32 = 1;
pub const RING_FULL: u32 = 2;
pub const FLOWS_FULL: u32 = 3;
pub const NAMES_SKIPPED: u32 = 4;
pub const EPOCH: u32 = 6;
pub const FLOWS_ADDED: u32 = 7;

pub const ANCESTORS: usize = 6;
const PATH: usize = 1024 + 256;
const CWD: usize = 512 + 256;
const CGROUP: usize = 512 + 128;
const ARGS: usize = 1024;
const ANCESTOR_ARGS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_the_programs() {
        assert_eq!(size_of::<Execution>(), 16);
        assert_eq!(size_of::<Key>(), 48);
        assert_eq!(size_of::<Nowhere>(), 24);
        assert_eq!(size_of::<SocketInfo>(), 104);
        assert_eq!(size_of::<Value>(), 72);
        assert_eq!(size_of::<Flow>(), 16 + 48 + 72);
        assert_eq!(size_of::<Close>(), size_of::<Flow>() + 32);
        assert_eq!(size_of::<PayloadHead>(), 96);
        assert_eq!(size_of::<Exe>(), 24 + PATH);
        assert_eq!(size_of::<ProcessHead>(), 88 + 16 * ANCESTORS + size_of::<Exe>() + CWD + CGROUP + ARGS);
        assert_eq!(size_of::<AncestorHead>(), 56 + size_of::<Exe>() + ANCESTOR_ARGS);
    }

    #[test]
    fn names_from_the_leaf_up_make_a_path() {
        assert_eq!(joined(b"curl\0bin\0usr\0"), "/usr/bin/curl");
        assert_eq!(joined(b"memfd:x\0"), "/memfd:x");
        assert_eq!(joined(b""), "/");
    }

    #[test]
    fn arguments_may_be_empty_but_keep_their_place() {
        assert_eq!(split_arguments(b"sh\0-c\0\0x y\0"), ["sh", "-c", "", "x y"]);
        assert!(split_arguments(b"").is_empty());
    }

    #[test]
    fn a_cut_record_is_no_record() {
        assert!(event(&[]).is_none());
        assert!(event(&[PROCESS as u8, 0, 0, 0, 1, 2, 3]).is_none());
        assert!(event(&[99, 0, 0, 0]).is_none());
    }
}
