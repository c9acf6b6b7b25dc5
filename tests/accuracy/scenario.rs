//! The 24 scenarios: what runs, how much, how fast.

/// One scenario of the grid.
#[derive(Debug)]
pub struct Scenario {
    pub id: &'static str,
    pub title: &'static str,
    /// What runs at the same time: the arguments of `generators/traffic.c`, sizes in full.
    pub processes: &'static [&'static str],
    /// How often, one after the other.
    pub repetitions: usize,
    pub place: Place,
    pub v6: bool,
    pub needs_sctp: bool,
    /// What it is about; the other way only acknowledges.
    pub way: Way,
}

/// Where the generators run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Client,
    Loopback,
    Container,
}

/// Which way the bytes go, seen from the generators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
    Both,
}

/// How much of each scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A sixteenth of the bytes, as fast as they go.
    Short,
    Full,
}

impl Size {
    /// The arguments of one process.
    pub fn arguments(self, process: &str) -> Vec<String> {
        let scaled = |argument: &str| match (self, argument.split_once('=')) {
            (Self::Short, Some(("bytes", bytes))) => {
                format!("bytes={}", bytes.parse::<u64>().expect("sizes are numbers") / 16)
            }
            (Self::Short, Some(("rate", rate))) => {
                format!("rate={}", rate.parse::<u64>().expect("rates are numbers") * 8)
            }
            _ => argument.to_owned(),
        };
        process.split(' ').map(scaled).collect()
    }
}

const PLAIN: Scenario = Scenario {
    id: "",
    title: "",
    processes: &[],
    repetitions: 1,
    place: Place::Client,
    v6: false,
    needs_sctp: false,
    way: Way::Out,
};

/// All of them. 5 MiB/s where nothing else is said; sizes in bytes.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "s01",
        title: "TCP download",
        processes: &["tcp-in port=7001 bytes=33554432 rate=5242880"],
        way: Way::In,
        ..PLAIN
    },
    Scenario { id: "s02", title: "TCP upload", processes: &["tcp bytes=33554432 rate=5242880"], ..PLAIN },
    Scenario {
        id: "s03",
        title: "TCP both ways at once",
        processes: &["tcp bytes=25165824 rate=5242880", "tcp-in port=7001 bytes=25165824 rate=5242880"],
        way: Way::Both,
        ..PLAIN
    },
    Scenario {
        id: "s04",
        title: "UDP both ways at once",
        processes: &["udp bytes=25165824 rate=5242880", "udp-in port=7001 bytes=25165824 rate=5242880"],
        way: Way::Both,
        ..PLAIN
    },
    Scenario { id: "s05", title: "ICMP echo", processes: &["ping bytes=6291456 rate=5242880"], ..PLAIN },
    Scenario { id: "s06", title: "UDP port 443", processes: &["udp port=443 bytes=25165824 rate=5242880"], ..PLAIN },
    Scenario {
        id: "s07",
        title: "IPv6 TCP download",
        processes: &["tcp-in port=7001 bytes=25165824 rate=5242880"],
        v6: true,
        way: Way::In,
        ..PLAIN
    },
    Scenario {
        id: "s08",
        title: "SCTP download",
        processes: &["sctp-in port=7001 bytes=25165824 rate=5242880"],
        needs_sctp: true,
        way: Way::In,
        ..PLAIN
    },
    Scenario {
        id: "s09",
        title: "UDP port 53, 64 bytes each",
        processes: &["udp port=53 size=64 bytes=4194304 rate=2097152"],
        ..PLAIN
    },
    Scenario { id: "s10", title: "raw IP, protocol 253", processes: &["raw bytes=4194304 rate=5242880"], ..PLAIN },
    Scenario { id: "s11", title: "20 short processes", processes: &["tcp bytes=524288"], repetitions: 20, ..PLAIN },
    Scenario { id: "s12", title: "AF_PACKET injection", processes: &["inject bytes=4194304 rate=5242880"], ..PLAIN },
    Scenario { id: "s13", title: "io_uring upload", processes: &["uring bytes=25165824 rate=5242880"], ..PLAIN },
    Scenario { id: "s14", title: "sendfile upload", processes: &["sendfile bytes=33554432 rate=5242880"], ..PLAIN },
    Scenario { id: "s15", title: "sendmmsg", processes: &["sendmmsg bytes=25165824 rate=5242880"], ..PLAIN },
    Scenario {
        id: "s16",
        title: "loopback only",
        processes: &["tcp bytes=25165824 rate=5242880"],
        place: Place::Loopback,
        ..PLAIN
    },
    Scenario {
        id: "s17",
        title: "container",
        processes: &["tcp bytes=25165824 rate=5242880"],
        place: Place::Container,
        ..PLAIN
    },
    Scenario { id: "s18", title: "slow drip", processes: &["tcp size=8192 bytes=2097152 rate=131072"], ..PLAIN },
    Scenario { id: "s19", title: "60 small connections", processes: &["one-by-one count=60 bytes=65536"], ..PLAIN },
    Scenario { id: "s20", title: "30 connections at once", processes: &["at-once count=30 bytes=262144"], ..PLAIN },
    Scenario {
        id: "s21",
        title: "io_uring download",
        processes: &["uring-in port=7001 bytes=25165824 rate=5242880"],
        way: Way::In,
        ..PLAIN
    },
    Scenario {
        id: "s22",
        title: "splice download",
        processes: &["splice-in port=7001 bytes=33554432 rate=5242880"],
        way: Way::In,
        ..PLAIN
    },
    Scenario {
        id: "s23",
        title: "recvmmsg download",
        processes: &["recvmmsg port=7001 bytes=25165824 rate=5242880"],
        way: Way::In,
        ..PLAIN
    },
    Scenario {
        id: "s24",
        title: "IPv6 UDP download",
        processes: &["udp-in port=7001 bytes=25165824 rate=5242880"],
        v6: true,
        way: Way::In,
        ..PLAIN
    },
];
