//! What this host is called.

use std::sync::Arc;

use crate::config::file::HostFile;
use crate::rule::Host;

/// The host as alerts name it: the configured name, else the system's.
pub fn this_host(file: &HostFile) -> Host {
    let name = file.name.clone().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let id = std::fs::read_to_string("/etc/machine-id")
        .ok() // A host without a machine id is called by its name alone.
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty());
    Host {
        name: Arc::from(name),
        id: id.map(Arc::from),
        tags: file.tags.iter().map(|tag| Arc::from(tag.as_str())).collect(),
    }
}
