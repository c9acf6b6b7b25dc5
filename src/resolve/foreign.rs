//! The readers of what package managers and container runtimes wrote, each by itself.
//!
//! Whoever runs a container writes what is read here, so that each reader is fuzzed alone.

use std::path::Path;

use serde_json::Value;

use crate::resolve::containers::{of_annotations, of_docker, of_storage};
use crate::resolve::cri::{self, CriContainer};
use crate::resolve::packages::{Packages, Trusted};
use crate::resolve::root::Root;
use crate::resolve::rpm;

/// Reads the answers of a runtime to a kubelet's questions; whether the container is in them.
pub fn read_runtime_answers(listed: &[u8], pod: &[u8], id: &str) -> bool {
    cri::learn_pod(&mut CriContainer::default(), pod);
    cri::listed(listed, id).is_some()
}

/// Reads a runtime's record of a container, in each of the forms that records have.
pub fn read_container_record(record: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Value>(record) else { return };
    for read in [of_docker, of_storage, of_annotations] {
        let _facts = read(&record);
    }
}

/// Reads a header of rpm's database; whether it names the owner of a file of this folder.
pub fn read_rpm_header(header: &[u8], index: u32, folder: &str) -> bool {
    rpm::owner_in(header, index, folder).is_some()
}

/// Reads dpkg's lists as those of a container; whether a path has an owner.
///
/// # Errors
/// Where the folder cannot be opened.
pub fn read_package_lists(root: &Path, path: &[u8]) -> std::io::Result<bool> {
    Ok(Packages::read(&Root::open(root)?, Trusted::Container).owner(path).is_some())
}
