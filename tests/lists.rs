//! Published lists of every form, against the counts and answers of other people's tools.

use std::net::IpAddr;

use egret::names::{List, NetworkSet, clouds};
use serde_json::Value;

use crate::support::data;

#[test]
fn published_lists_hold_what_other_tools_say() {
    let Some(expected) = data::path("expected/lists.json") else { return };
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    for (file, facts) in expected.as_object().unwrap() {
        let text = std::fs::read(data::path(file).unwrap()).unwrap();
        let list = List::parse(&text, 1_000_000).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(list.rejected, [], "{file}");
        if let Some(systems) = facts.get("entries") {
            assert_eq!(list.counts.systems as u64, systems.as_u64().unwrap(), "{file}");
            assert_eq!(list.systems.len() as u64, facts["distinct"].as_u64().unwrap(), "{file}");
            assert_eq!(list.counts.entries(), list.counts.systems, "{file}");
        } else {
            check_networks(file, facts, &list);
        }
        check_probes(file, facts, &list);
    }
}

#[test]
fn shipped_cloud_ranges_are_what_was_published() {
    let made = [
        ("aws", ["aws-ip-ranges.json"].as_slice()),
        ("google", &["google_ipv4.txt", "google_ipv6.txt"]),
        ("cloudflare", &["misp_cloudflare.json"]),
    ];
    for (cloud, sources) in made {
        let mut networks = Vec::new();
        for source in sources {
            let Some(path) = data::path(&format!("lists/{source}")) else { return };
            networks.extend(List::parse(&std::fs::read(path).unwrap(), 1_000_000).unwrap().networks.iter());
        }
        let networks: NetworkSet = networks.into_iter().collect();
        let shipped = clouds::ranges(&format!("clouds/{cloud}.txt")).unwrap();
        let head = shipped.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n"));
        let ranges = networks.merged().into_iter().map(|network| format!("{network}\n"));
        let expected: String = head.chain(ranges).collect();
        if std::env::var_os("EGRET_GENERATE").is_some() {
            let path = format!("{}/src/names/clouds/{cloud}.txt", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, &expected).unwrap();
        }
        assert!(shipped == expected, "{cloud}: the shipped ranges differ from the published ones");
    }
}

fn check_networks(file: &str, facts: &Value, list: &List) {
    let fact = |name: &str| usize::try_from(facts[name].as_u64().unwrap()).unwrap();
    assert_eq!(list.counts.ipv4, fact("entries_ipv4"), "{file}");
    assert_eq!(list.counts.ipv6, fact("entries_ipv6"), "{file}");
    let distinct = list.networks.iter().partition::<Vec<_>, _>(|network| network.addr().is_ipv4());
    assert_eq!((distinct.0.len(), distinct.1.len()), (fact("distinct_ipv4"), fact("distinct_ipv6")), "{file}");
    let merged = list.networks.merged().into_iter().partition::<Vec<_>, _>(|network| network.addr().is_ipv4());
    assert_eq!((merged.0.len(), merged.1.len()), (fact("merged_ipv4"), fact("merged_ipv6")), "{file}");
    assert_eq!(list.networks.v4_addresses(), facts["addresses_ipv4"].as_u64().unwrap(), "{file}");
}

fn check_probes(file: &str, facts: &Value, list: &List) {
    let probes = facts["probes"].as_object().unwrap();
    assert!(!probes.is_empty(), "{file}");
    for (probe, expected) in probes {
        let found = match probe.parse::<u32>() {
            Ok(system) => list.systems.contains(&system),
            Err(_) => {
                let address = probe.parse::<IpAddr>().unwrap();
                let entry = list.networks.find(address.into());
                assert!(entry.is_none_or(|entry| entry.contains(&address)), "{file}: {probe} is not in {entry:?}");
                entry.is_some()
            }
        };
        assert_eq!(found, expected.as_bool().unwrap(), "{file}: {probe}");
    }
}
