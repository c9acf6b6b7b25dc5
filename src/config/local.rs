//! The addresses of this host, for telling out from in.

use std::net::IpAddr;

use ipnet::IpNet;

/// The addresses of every interface in this network namespace, loopback included.
///
/// # Errors
/// Where the system does not list its interfaces.
pub fn host_addresses() -> std::io::Result<Vec<IpNet>> {
    let devices = pcap::Device::list().map_err(std::io::Error::other)?;
    let addresses = devices.into_iter().flat_map(|device| device.addresses).map(|address| address.addr);
    let mut own: Vec<IpNet> = addresses.map(IpNet::from).collect();
    own.push(IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8));
    own.sort_unstable();
    own.dedup();
    Ok(own)
}
