//! The edge beside the engine: answers "who owns this flow?" from the running system.

mod addresses;
mod conntrack;
mod containers;
mod cri;
mod departures;
mod describer;
pub mod foreign;
mod hashes;
mod holders;
mod local_http;
mod memory;
mod namespace;
mod packages;
mod packet_sockets;
mod priority;
mod proc_connector;
mod proc_net;
mod processes;
mod procfs;
mod resolver;
mod root;
mod rpm;
mod service;
mod sock_diag;
mod socket;
mod users;

pub use describer::{Described, Describer, Hashing};
pub use packet_sockets::PacketSockets;
pub use resolver::{ResolveError, Resolver, ResolverSettings, ResolverStatistics, Translated};
pub use service::{Answer, Service};

use crate::attribution::{Attribution, Lookup};

/// Something that can name the owner of a flow.
///
/// Runs on a thread of its own: a slow `/proc` never stops a packet.
pub trait ProcessResolver: Send {
    /// The owner as far as it can be told at this moment.
    ///
    /// [`Attribution::Pending`] means "ask again": nothing is known yet, and
    /// the flow is too young to give up on.
    fn resolve(&mut self, lookup: &Lookup) -> Attribution;

    /// Called every few milliseconds, busy or not: reads events that wait.
    fn idle(&mut self) {}
}
