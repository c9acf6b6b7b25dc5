//! Interfaces by name.

use crate::capture::live::{ANY, LiveError};

/// The interface's number in the kernel; 0 for [`ANY`], whose frames bring their own.
pub(super) fn index(name: &str) -> Result<u32, LiveError> {
    if name == ANY {
        return Ok(0);
    }
    let found = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)
        .and_then(|socket| rustix::net::netdevice::name_to_index(&socket, name));
    found.map_err(|_| no_such_interface(name, present()))
}

/// The names without those that would capture a frame twice: `any` has every
/// interface in it already.
pub(super) fn without_doubles(names: &[String]) -> Vec<String> {
    if names.iter().any(|name| name == ANY) {
        return vec![ANY.to_owned()];
    }
    let mut once: Vec<String> = Vec::new();
    for name in names {
        if !once.contains(name) {
            once.push(name.clone());
        }
    }
    once
}

fn no_such_interface(name: &str, present: Vec<String>) -> LiveError {
    let nearest = present
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate.clone());
    LiveError::NoSuchInterface { name: name.to_owned(), nearest, present }
}

/// What can be captured on, without libpcap's pseudo-devices for other buses.
fn present() -> Vec<String> {
    let devices = pcap::Device::list().unwrap_or_default();
    let mut names: Vec<String> = devices
        .into_iter()
        .map(|device| device.name)
        .filter(|name| !OTHER_BUSES.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    names.sort_unstable_by_key(|name| (name == ANY, name.clone()));
    names
}

const OTHER_BUSES: &[&str] = &["bluetooth", "usbmon", "nflog", "nfqueue", "dbus"];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn nothing_is_captured_twice() {
        assert_eq!(without_doubles(&names(&["any", "lo", "eth0"])), names(&["any"]));
        assert_eq!(without_doubles(&names(&["eth0", "lo", "eth0"])), names(&["eth0", "lo"]));
    }

    #[test]
    fn the_nearest_name_is_offered_if_it_is_near() {
        let nearest = |name| match no_such_interface(name, names(&["eth0", "wlp3s0", "any"])) {
            LiveError::NoSuchInterface { nearest, .. } => nearest,
            other => panic!("{other}"),
        };
        assert_eq!(nearest("eth1").as_deref(), Some("eth0"));
        assert_eq!(nearest("wlp3s"), Some("wlp3s0".to_owned()));
        assert_eq!(nearest("docker0"), None);
    }
}
