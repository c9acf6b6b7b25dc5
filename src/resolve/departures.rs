//! Connections as they leave: the first packet of each, seen within a moment.
//!
//! A capture hands frames over in blocks, some hundredths of a second after
//! they passed. A program that connects, sends and ends within that time has
//! no socket left when its flow is looked up. So the packets that open a
//! connection, and questions to name servers, are heard apart and at once:
//! they are few, and while they pass the socket and its holder are there.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use pcap::Active;
use rustix::event::epoll;
use tracing::debug;

use crate::packet::{Endpoint, Fragments, Frame, LinkType, Protocol, decode};
use crate::time::Timestamp;

/// A connection that is being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Departure {
    /// In which network namespace.
    pub namespace: u32,
    /// Its protocol.
    pub protocol: Protocol,
    /// This host's end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
}

/// The taps of all namespaces.
#[derive(Debug)]
pub(super) struct Departures {
    taps: Vec<Tap>,
    opened: Receiver<Tap>,
    opening: Sender<Tap>,
    /// How many are open or being opened.
    wanted: usize,
}

/// One namespace's tap.
struct Tap {
    namespace: u32,
    capture: pcap::Capture<Active>,
    link_type: LinkType,
}

impl Default for Departures {
    fn default() -> Self {
        let (opening, opened) = channel();
        Self { taps: Vec::new(), opened, opening, wanted: 0 }
    }
}

impl Departures {
    /// Hears of connections that leave a namespace, as soon as a thread of its own has opened the tap:
    /// the kernel takes some hundredths of a second for that. Needs CAP_NET_RAW.
    pub(super) fn listen(&mut self, namespace: u32, entered: Option<OwnedFd>) {
        if self.wanted >= MAX_TAPS {
            return;
        }
        self.wanted += 1;
        let opening = self.opening.clone();
        let open = move || {
            if let Some(entered) = entered {
                rustix::thread::move_into_link_name_space(
                    entered.as_fd(),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .map_err(|error| error.to_string())?;
            }
            let tap = Tap::open(namespace).map_err(|error| error.to_string())?;
            // Where nobody wants it any more, it closes here.
            opening.send(tap).map_err(|error| error.to_string())
        };
        let thread = std::thread::Builder::new().name("open-tap".to_owned()).spawn(move || {
            if let Err(error) = open() {
                debug!(namespace, %error, "connections are not heard of as they are opened");
            }
        });
        if let Err(error) = thread {
            debug!(%error, "cannot start a thread");
        }
    }

    /// Closes the taps of namespaces that no process is in.
    pub(super) fn retain(&mut self, is_open: impl Fn(u32) -> bool) {
        let before = self.taps.len();
        self.taps.retain(|tap| is_open(tap.namespace));
        self.wanted = self.wanted.saturating_sub(before - self.taps.len());
    }

    /// What has left since the last call, up to a bound for each namespace.
    pub(super) fn drain(&mut self, bell: Option<&OwnedFd>, mut found: impl FnMut(Departure)) {
        for tap in self.opened.try_iter() {
            if let Some(bell) = bell
                && let Err(error) =
                    epoll::add(bell, tap.capture.as_fd(), epoll::EventData::new_u64(0), epoll::EventFlags::IN)
            {
                debug!(%error, "a tap cannot wake the resolver");
            }
            self.taps.push(tap);
        }
        for tap in &mut self.taps {
            tap.drain(&mut found);
        }
    }
}

impl Tap {
    fn open(namespace: u32) -> Result<Self, pcap::Error> {
        let mut capture = pcap::Capture::from_device("any")?
            .snaplen(SNAPLEN)
            .buffer_size(BUFFER)
            .immediate_mode(true)
            .promisc(false)
            .open()?
            .setnonblock()?;
        capture.filter(FILTER, true)?;
        let link_type = LinkType(u32::try_from(capture.get_datalink().0).unwrap_or_default());
        Ok(Self { namespace, capture, link_type })
    }

    fn drain(&mut self, found: &mut impl FnMut(Departure)) {
        let Self { namespace, capture, link_type } = self;
        // An error, such as of a tap whose interfaces are all gone, comes without a packet.
        let _ = capture.dispatch(Some(MAX_AT_ONCE), |packet| {
            let frame = Frame {
                timestamp: Timestamp::EPOCH,
                link_type: *link_type,
                wire_length: packet.header.len,
                interface: 0,
                direction: None,
                bytes: packet.data,
            };
            // What opens a connection is in no fragment.
            if let Ok(packet) = decode(&frame, &mut Fragments::default()) {
                let five_tuple = packet.five_tuple;
                let (local, remote) = (five_tuple.source, five_tuple.destination);
                found(Departure { namespace: *namespace, protocol: five_tuple.protocol, local, remote });
            }
        });
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tap").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// SYN without ACK of both families, and questions to name servers: `tcp[...]` knows IPv4 alone.
const FILTER: &str = "outbound and (tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn \
                      or (ip6[6] == 6 and ip6[53] & 0x12 == 2) or udp dst port 53)";

/// The headers.
const SNAPLEN: i32 = 128;

/// The ring of a tap: what comes while it is full is looked up later, as every flow is.
const BUFFER: i32 = 64 * 1024;

/// Packets taken of one tap before the resolver does its other work.
const MAX_AT_ONCE: usize = 64;

/// Namespaces with a tap.
const MAX_TAPS: usize = 256;
