//! How much of what passed this host's interfaces has an owner.
//!
//! The interfaces' own counters are a witness that no source can fool: what
//! they counted and nobody owns went past the sockets, or past Egret. Only
//! interfaces towards other hosts count (those of the default routes, else all
//! that are not loopback), since what a container sends passes several.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fs;
use std::time::Duration;

use crate::alert::Problem;
use crate::attribution::FlowUpdate;
use crate::flow::{LocalAddresses, Namespace, Scope};
use crate::packet::Address;
use crate::rule::Severity;
use crate::time::Timestamp;

/// The ratio of owned bytes to the interfaces' counters, over the last minute.
#[derive(Debug)]
pub struct Coverage {
    least: f64,
    counters: BTreeMap<String, u64>,
    owned_total: u64,
    owned: f64,
    passed: f64,
    /// What passed by when, and whose owners may be still to come.
    waiting: VecDeque<(Timestamp, u64)>,
    /// Seconds in a row below the least share.
    below: u32,
    told: bool,
    /// The shares of the last seconds.
    low: [Option<f64>; 4],
}

impl Coverage {
    /// Less than the share `least`, from 0 to 1, is a problem.
    pub fn new(least: f64) -> Self {
        Self {
            least,
            counters: BTreeMap::new(),
            owned_total: 0,
            owned: 0.0,
            passed: 0.0,
            waiting: VecDeque::new(),
            below: 0,
            told: false,
            low: [None; 4],
        }
    }

    /// Once a second: the running total of bytes whose owner is known, and by
    /// when the source had counted those. What passed after that is compared
    /// when the source has come so far: it reads seldom where reading is dear.
    pub fn take(&mut self, now: Timestamp, owned_total: u64, counted: Timestamp) -> Option<Problem> {
        let counters = interface_bytes();
        self.compare(now, owned_total, counted, counters)
    }

    /// The share of the bytes of the last minute that has an owner; `None` while too little passed to say.
    pub fn share(&self) -> Option<f64> {
        (self.passed >= LEAST_BYTES).then(|| (self.owned / self.passed).min(1.0))
    }

    /// Whether the share has been below `limit` for some seconds.
    pub fn is_below(&self, limit: f64) -> bool {
        self.low.iter().all(|share| share.is_some_and(|share| share < limit))
    }

    /// Bytes of the last minute that nobody owns, about.
    pub fn missing(&self) -> u64 {
        (self.passed - self.owned).max(0.0) as u64
    }

    fn compare(
        &mut self,
        now: Timestamp,
        owned_total: u64,
        counted: Timestamp,
        counters: BTreeMap<String, u64>,
    ) -> Option<Problem> {
        // An interface that was not there before has its past, which was not watched.
        let known = counters.iter().filter_map(|(name, bytes)| Some(bytes.saturating_sub(*self.counters.get(name)?)));
        let passed: u64 = known.sum();
        self.counters = counters;
        self.waiting.push_back((now, passed));
        self.owned += owned_total.saturating_sub(self.owned_total) as f64;
        // What stays within the host is known before the total that it is taken from: the difference may fall.
        self.owned_total = self.owned_total.max(owned_total);
        let mut compared = false;
        while let Some(&(at, passed)) = self.waiting.front()
            && (at.after(HOLD) <= counted || self.waiting.len() > MAX_WAITING)
        {
            self.waiting.pop_front();
            self.passed = self.passed * FADING + passed as f64;
            self.owned *= FADING;
            compared = true;
        }
        if !compared {
            return None;
        }
        self.low.rotate_right(1);
        self.low[0] = self.share();
        let share = self.share()?;
        self.below = if share < self.least { self.below + 1 } else { 0 };
        let begins = !self.told && self.below >= PATIENCE;
        let ends = self.told && self.below == 0;
        if !begins && !ends {
            return None;
        }
        self.told = begins;
        Some(Problem {
            id: "coverage",
            severity: Severity::Medium,
            summary: match ends {
                false => format!(
                    "only {:.0} % of the bytes on the interfaces have an owner: something sends past the sockets, or \
                     this host forwards",
                    share * 100.0
                ),
                true => "ended: too many bytes on the interfaces had no owner".to_owned(),
            },
            details: BTreeMap::from([
                ("share", format!("{share:.3}")),
                ("limit", format!("{:.3}", self.least)),
                ("missing", self.missing().to_string()),
                ("interfaces", self.counters.keys().cloned().collect::<Vec<_>>().join(" ")),
            ]),
            resolved: ends,
        })
    }
}

/// Knows what stays within this host, and passes no interface towards others.
#[derive(Debug)]
pub struct Within {
    own: Namespace,
    /// Addresses at which sockets of other network namespaces were seen, such as those of containers.
    neighbours: HashSet<Address>,
}

impl Within {
    /// `own` is the namespace whose interfaces are counted.
    pub fn new(own: Namespace) -> Self {
        Self { own, neighbours: HashSet::new() }
    }

    /// Bytes of these counts that went from one socket of this host to another. `local` are its own addresses.
    pub fn bytes(&mut self, updates: &[FlowUpdate], local: &LocalAddresses) -> u64 {
        for update in updates {
            let address = update.key.local.address;
            if update.key.namespace != self.own && self.neighbours.len() < MAX_NEIGHBOURS {
                self.neighbours.insert(address);
            }
        }
        let is_within = |update: &&FlowUpdate| {
            let remote = update.key.remote.address;
            Scope::of(remote) == Scope::Loopback
                || local.contains(remote)
                || (update.key.namespace != self.own && self.neighbours.contains(&remote))
        };
        updates.iter().filter(is_within).map(|update| update.counters.bytes_out.0 + update.counters.bytes_in.0).sum()
    }
}

/// The network namespace that Egret runs in; none, without `/proc`.
pub fn own_namespace() -> Namespace {
    use std::os::unix::fs::MetadataExt;
    let inode = fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino());
    Namespace(u32::try_from(inode).unwrap_or(0))
}

/// IP bytes in and out of the interfaces towards other hosts, since they exist.
fn interface_bytes() -> BTreeMap<String, u64> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    let towards = default_interfaces(&read("route"), &read("ipv6_route"));
    let is_ethernet = |name: &str| {
        let kind = fs::read_to_string(format!("/sys/class/net/{name}/type"));
        kind.map_or(true, |kind| kind.trim() == ARPHRD_ETHER)
    };
    parse_counters(&read("dev"))
        .into_iter()
        .filter(|(name, _)| name != "lo" && (towards.is_empty() || towards.contains(name)))
        .map(|(name, Traffic { bytes, packets })| {
            let header = if is_ethernet(&name) { ETHERNET_HEADER } else { 0 };
            (name, bytes.saturating_sub(packets * header))
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Traffic {
    bytes: u64,
    packets: u64,
}

/// `/proc/net/dev`: received bytes, packets and six more; sent bytes, packets and six more.
fn parse_counters(table: &str) -> Vec<(String, Traffic)> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [received, packets_in, _, _, _, _, _, _, sent, packets_out, ..] = numbers[..] else { return None };
        Some((name.trim().to_owned(), Traffic { bytes: received + sent, packets: packets_in + packets_out }))
    };
    table.lines().filter_map(line).collect()
}

/// The interfaces of the default routes.
fn default_interfaces(route: &str, ipv6_route: &str) -> BTreeSet<String> {
    let v4 = route.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, destination, _, _, _, _, _, mask, ..] = fields[..] else { return None };
        (destination == "00000000" && mask == "00000000").then(|| name.to_owned())
    });
    let v6 = ipv6_route.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, .., name] = fields[..] else { return None };
        // The kernel has a route that rejects, on the loopback interface.
        (destination.bytes().all(|byte| byte == b'0') && length == "00" && name != "lo").then(|| name.to_owned())
    });
    v4.chain(v6).collect()
}

/// How much of the past counts: it fades by half in about 40 seconds.
const FADING: f64 = 0.983;

/// Fewer bytes than this lately say nothing.
const LEAST_BYTES: f64 = 1_000_000.0;

/// How long bytes wait for their owners after they were counted. Counts are read and added up once a second each, so
/// that a stream's first seconds would look as if nobody owned them.
const HOLD: Duration = Duration::from_secs(3);

/// Readings of the interfaces that wait for a source which reads nothing; after that nobody owns what they counted.
const MAX_WAITING: usize = 300;

/// Seconds that the share must be too small.
const PATIENCE: u32 = 10;

/// Addresses of other namespaces that are remembered. What goes between further ones counts as if it had left the host.
const MAX_NEIGHBOURS: usize = 16_384;

const ARPHRD_ETHER: &str = "1";
const ETHERNET_HEADER: u64 = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::{Attribution, UnknownReason};
    use crate::flow::{Counters, FlowKey, FlowState};
    use crate::packet::{Endpoint, Protocol};
    use crate::units::Bytes;

    #[test]
    fn the_share_is_told_when_it_stays_too_small_and_when_that_ends() {
        let mut coverage = Coverage::new(0.8);
        let (mut passed, mut owned, mut told) = (5_000_000_000_u64, 0, Vec::new());
        for second in 0..400 {
            passed += 1_000_000;
            owned += if (50..100).contains(&second) { 100_000 } else { 990_000 };
            let counters = eth0(passed);
            let now = at(second);
            if let Some(problem) = coverage.compare(now, owned, now, counters) {
                told.push((second, problem.resolved));
            }
            if second == 40 {
                assert!((coverage.share().unwrap() - 0.99).abs() < 0.03, "{:?}", coverage.share());
            }
        }
        let [(began, false), (ended, true)] = told[..] else { panic!("{told:?}") };
        assert!((59..90).contains(&began) && (100..250).contains(&ended), "{told:?}");
    }

    #[test]
    fn owners_that_come_late_leave_no_gap() {
        for late in 0..=2 {
            let mut coverage = Coverage::new(0.8);
            let mut passed = 0;
            let total = |second: u64| 10_000_000 * second.saturating_sub(20);
            for second in 0..60 {
                passed += total(second + 1) - total(second);
                let owned = total((second + 1_u64).saturating_sub(late));
                assert!(coverage.compare(at(second), owned, at(second), eth0(passed)).is_none());
                assert!(!coverage.is_below(0.9), "second {second}, {late} late: {:?}", coverage.share());
            }
            assert!(coverage.share().unwrap() > 0.99);
        }
    }

    #[test]
    fn a_source_that_reads_seldom_leaves_no_gap() {
        let mut coverage = Coverage::new(0.8);
        let (mut passed, mut owned, mut read) = (0, 0, 0);
        for second in 0..120 {
            passed += 1_000_000;
            if second % 9 == 8 {
                (owned, read) = (passed, second);
            }
            assert!(coverage.compare(at(second), owned, at(read), eth0(passed)).is_none());
            assert!(!coverage.is_below(0.9), "second {second}: {:?}", coverage.share());
        }
        // It stopped: what passed meanwhile has an owner only when it reads again.
        for second in 120..800 {
            passed += 1_000_000;
            coverage.compare(at(second), owned, at(read), eth0(passed));
        }
        assert!(coverage.is_below(0.9) && coverage.waiting.len() <= MAX_WAITING, "{coverage:?}");
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(second))
    }

    fn eth0(bytes: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("eth0".to_owned(), bytes)])
    }

    #[test]
    fn a_total_that_falls_and_rises_again_owns_nothing_new() {
        let mut coverage = Coverage::new(0.8);
        let mut passed = 0;
        for second in 0..40 {
            passed += 1_000_000;
            let owned = if second % 2 == 0 { 900_000_000 } else { 0 };
            coverage.compare(at(second), owned, at(second), eth0(passed));
        }
        // The first reading is the past, which faded by half.
        assert!(coverage.owned < 900_000_000.0 * 0.6, "{coverage:?}");
    }

    #[test]
    fn what_goes_between_two_containers_left_no_host() {
        let end = |last| Endpoint::new(Address::from_v4([10, 0, 0, last]), 1);
        let update = |from, to, namespace| FlowUpdate {
            key: FlowKey {
                protocol: Protocol::UDP,
                local: end(from),
                remote: end(to),
                namespace: Namespace(namespace),
            },
            direction: None,
            counters: Counters { bytes_out: Bytes(100), ..Counters::default() },
            attribution: Attribution::Unknown(UnknownReason::Kernel),
            timestamp: Timestamp::EPOCH,
            state: FlowState::Established,
            end_reason: None,
        };
        let local = LocalAddresses::new(["10.0.0.1/32".parse().unwrap()]);
        let mut within = Within::new(Namespace(1));
        assert_eq!(within.bytes(&[update(1, 9, 1), update(2, 9, 2)], &local), 0, "both leave");
        assert_eq!(within.bytes(&[update(2, 1, 2)], &local), 100, "a container to this host");
        assert_eq!(within.bytes(&[update(2, 3, 2), update(3, 2, 3)], &local), 200, "one container to another");
        assert_eq!(within.bytes(&[update(1, 3, 1)], &local), 0, "passes an interface of this host");
    }

    #[test]
    fn a_quiet_link_says_nothing() {
        let mut coverage = Coverage::new(0.8);
        for second in 0..100 {
            assert!(coverage.compare(at(second), 0, at(second), eth0(second * 1_000)).is_none());
        }
        assert_eq!(coverage.share(), None);
    }

    #[test]
    fn tables_of_the_kernel_are_understood() {
        let dev = "Inter-|   Receive                                                |  Transmit\n \
                   face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
                   lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
                   eth0: 3000 20 0 0 0 0 0 0 7000 50 0 0 0 0 0 0\n";
        let counters = parse_counters(dev);
        assert_eq!(counters[1], ("eth0".to_owned(), Traffic { bytes: 10_000, packets: 70 }));
        let route = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  fe800000000000000000000000000001 00000400 00000003 00000000 00450003     wlan0\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        let expected: BTreeSet<String> = ["eth0".to_owned(), "wlan0".to_owned()].into();
        assert_eq!(default_interfaces(route, v6), expected);
    }
}
