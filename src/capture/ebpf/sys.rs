//! The bpf(2) calls that aya does not offer, and the few others around them.
//!
//! Each attribute is a zeroed buffer with its fields written at the offsets
//! that `union bpf_attr` gives them; every pointer in it outlives the call.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::record::Plain;

/// A link of an iterator program to one map.
pub fn link_iterator(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let info = [map.as_raw_fd(), 0, 0, 0];
    let attribute = Attribute::new()
        .put(0, program.as_raw_fd())
        .put(8, BPF_TRACE_ITER)
        .put(16, info.as_ptr() as u64)
        .put(24, size_of_val(&info) as u32);
    descriptor(BPF_LINK_CREATE, attribute)
}

/// One reading of an iterator; each read of the file runs the program.
pub fn open_iterator(link: BorrowedFd<'_>) -> io::Result<File> {
    descriptor(BPF_ITER_CREATE, Attribute::new().put(0, link.as_raw_fd())).map(File::from)
}

/// The value of a key.
pub fn lookup<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K, value: &mut V) -> io::Result<()> {
    let key: *const K = key;
    let value: *mut V = value;
    let attribute = Attribute::new().put(0, map.as_raw_fd()).put(8, key as u64).put(16, value as u64);
    // SAFETY: the caller pairs a map with its own key and value types, see `Plain`; both outlive the call.
    unsafe { call(BPF_MAP_LOOKUP_ELEM, attribute) }.map(drop)
}

/// Sets the value of a key.
pub fn update<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let key: *const K = key;
    let value: *const V = value;
    let attribute = Attribute::new().put(0, map.as_raw_fd()).put(8, key as u64).put(16, value as u64);
    // SAFETY: as in `lookup`.
    unsafe { call(BPF_MAP_UPDATE_ELEM, attribute) }.map(drop)
}

/// The key after `previous`, or the first one; `None` at the end.
pub fn next_key<K: Plain + Default>(map: BorrowedFd<'_>, previous: Option<&K>) -> Option<K> {
    let mut key = K::default();
    let previous = previous.map_or(0, |key| std::ptr::from_ref(key) as u64);
    let attribute =
        Attribute::new().put(0, map.as_raw_fd()).put(8, previous).put(16, std::ptr::from_mut(&mut key) as u64);
    // SAFETY: as in `lookup`; a null previous key asks for the first one.
    unsafe { call(BPF_MAP_GET_NEXT_KEY, attribute) }.ok()?;
    Some(key)
}

/// Takes up to `keys.len()` entries out of a hash map. Returns how many, and
/// the place to go on from, `None` at the end.
pub fn take_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    from: Option<[u8; 64]>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<[u8; 64]>)> {
    let mut next = [0_u8; 64];
    let capacity = keys.len().min(values.len()) as u32;
    let mut attribute = Attribute::new()
        .put(0, from.as_ref().map_or(0, |place| place.as_ptr() as u64))
        .put(8, next.as_mut_ptr() as u64)
        .put(16, keys.as_mut_ptr() as u64)
        .put(24, values.as_mut_ptr() as u64)
        .put(32, capacity)
        .put(36, map.as_raw_fd());
    // SAFETY: the arrays hold `capacity` entries of the map's types and outlive the call; `next` holds more than
    // the four bytes that a hash map writes.
    let result = unsafe { call_in_place(BPF_MAP_LOOKUP_AND_DELETE_BATCH, &mut attribute) };
    let taken = (attribute.word(32).min(capacity)) as usize;
    match result {
        Ok(_) if taken > 0 => Ok((taken, Some(next))),
        Ok(_) => Ok((0, None)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((taken, None)),
        Err(error) => Err(error),
    }
}

/// Waits until no program that began before this call still runs.
pub fn wait_for_programs() {
    // SAFETY: takes no pointer. MEMBARRIER_CMD_GLOBAL is an RCU grace period, which kernels since 4.3 have; without
    // it a program may add to a flow that has just been read, and those bytes come one tick later.
    unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) };
}

/// A control group hierarchy of the second version that is mounted nowhere.
pub fn detached_cgroup2() -> io::Result<File> {
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: the name is a C string; each descriptor is checked and owned at once.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), FSOPEN_CLOEXEC))?;
        let null = std::ptr::null::<u8>();
        if libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mount = owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0))?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        owned(libc::openat(mount.as_raw_fd(), c".".as_ptr(), flags).into()).map(File::from)
    }
}

fn descriptor(command: i32, attribute: Attribute) -> io::Result<OwnedFd> {
    // SAFETY: the callers above fill the attribute of exactly this command, with pointers that outlive it.
    let fd = unsafe { call(command, attribute) }?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    unsafe { owned(fd) }
}

/// # Safety
///
/// `fd` is negative or a descriptor that nobody else owns.
unsafe fn owned(fd: i64) -> io::Result<OwnedFd> {
    match i32::try_from(fd) {
        // SAFETY: promised by the caller.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
///
/// The attribute is one of `command`; its pointers are valid for it.
unsafe fn call(command: i32, mut attribute: Attribute) -> io::Result<i64> {
    // SAFETY: promised by the caller.
    unsafe { call_in_place(command, &mut attribute) }
}

/// # Safety
///
/// As [`call`].
unsafe fn call_in_place(command: i32, attribute: &mut Attribute) -> io::Result<i64> {
    let Attribute(bytes) = attribute;
    // SAFETY: promised by the caller; the kernel reads and writes at most `len` bytes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, bytes.as_mut_ptr(), bytes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `union bpf_attr`, as large as any command here needs; the rest is zero.
#[repr(C, align(8))]
struct Attribute([u8; 64]);

impl Attribute {
    fn new() -> Self {
        Self([0; 64])
    }

    fn put<T: Field>(mut self, offset: usize, value: T) -> Self {
        let bytes = value.bytes();
        let width = size_of::<T>();
        if let Some(place) = self.0.get_mut(offset..offset + width) {
            place.copy_from_slice(bytes.get(..width).unwrap_or_default());
        }
        self
    }

    fn word(&self, offset: usize) -> u32 {
        self.0.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
    }
}

trait Field {
    fn bytes(self) -> [u8; 8];
}

impl Field for u64 {
    fn bytes(self) -> [u8; 8] {
        self.to_ne_bytes()
    }
}

impl Field for u32 {
    fn bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.to_ne_bytes();
        [a, b, c, d, 0, 0, 0, 0]
    }
}

impl Field for i32 {
    fn bytes(self) -> [u8; 8] {
        self.cast_unsigned().bytes()
    }
}

// SAFETY: a plain integer.
unsafe impl Plain for u32 {}
// SAFETY: a plain integer.
unsafe impl Plain for u64 {}
// SAFETY: a plain integer.
unsafe impl Plain for i32 {}

const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_GET_NEXT_KEY: i32 = 4;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: i32 = 25;
const BPF_LINK_CREATE: i32 = 28;
const BPF_ITER_CREATE: i32 = 33;
const BPF_TRACE_ITER: u32 = 28;
