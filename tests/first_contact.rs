//! First contact: a program and a domain, a program and a network, a user and a country, an executable's
//! content. Learnt quietly for a while, said once, remembered over a restart.

use std::sync::Arc;
use std::time::Duration;

use egret::attribution::{Attribution, Evidence, Executable, Process, ProcessKey, User};
use egret::engine::{Engine, Output, RemoteFacts, Settings};
use egret::flow::FlowKey;
use egret::names::{DestinationName, NameSource, Place, Trust};
use egret::packet::{Address, Endpoint, FiveTuple, Fragment, FrameDirection, Packet, Protocol};
use egret::rule::compile::compile;
use egret::rule::diagnose::Source;
use egret::time::Timestamp;
use egret::units::Bytes;

const RULES: &str = "
version: 1
rules:
  - {id: domain, match: {}, first_seen: {of: [exe, dst.registered_domain], lookback: 14d, learn: 1h}}
  - {id: network, match: {}, first_seen: {of: [exe, dst.asn], lookback: 14d, learn: 1h}}
  - {id: country, match: {}, first_seen: {of: [user, dst.country], lookback: 14d, learn: 1h}}
  - {id: content, match: {}, first_seen: {of: [exe.sha256], lookback: 14d, learn: 1h}}
";

/// One flow: when, who, with what content, where to.
#[derive(Clone, Copy)]
struct Contact {
    minute: i64,
    exe: &'static str,
    sha256: &'static str,
    user: &'static str,
    domain: &'static str,
    asn: u32,
    country: &'static str,
}

const USUAL: Contact = Contact {
    minute: 0,
    exe: "/usr/bin/curl",
    sha256: "aa",
    user: "alice",
    domain: "up.example.net",
    asn: 64500,
    country: "DE",
};

#[test]
fn what_is_new_is_said_once_after_the_learning_time() {
    let mut engine = engine();
    assert_eq!(told(&mut engine, &[USUAL, Contact { minute: 5, domain: "www.example.org", ..USUAL }]), [""; 0]);
    let later = Contact { minute: 70, ..USUAL };
    assert_eq!(told(&mut engine, &[later, Contact { minute: 71, domain: "www.example.org", ..USUAL }]), [""; 0]);

    let news = [
        (Contact { domain: "drop.evil.example", ..later }, vec!["domain"]),
        (Contact { domain: "other.evil.example", ..later }, vec![]),
        (Contact { asn: 64666, ..later }, vec!["network"]),
        (Contact { country: "KP", ..later }, vec!["country"]),
        (Contact { sha256: "bb", ..later }, vec!["content"]),
        (Contact { exe: "/tmp/x", sha256: "cc", ..later }, vec!["content", "domain", "network"]),
        (Contact { user: "bob", ..later }, vec!["country"]),
    ];
    for (number, (contact, expected)) in (0i64..).zip(news) {
        let first = Contact { minute: 80 + 3 * number, ..contact };
        let again = Contact { minute: 81 + 3 * number, ..contact };
        assert_eq!(told(&mut engine, &[first]), expected, "news {number}");
        assert_eq!(told(&mut engine, &[again]), [""; 0], "news {number} again");
    }
}

#[test]
fn what_is_not_known_is_not_new() {
    let mut engine = engine();
    told(&mut engine, &[USUAL]);
    let blind = Contact { minute: 70, exe: "/usr/bin/wget", sha256: "", domain: "", asn: 0, country: "", ..USUAL };
    assert_eq!(told(&mut engine, &[blind]), [""; 0]);
}

#[test]
fn a_restart_forgets_no_contact_and_does_not_learn_anew() {
    let mut first = engine();
    told(&mut first, &[USUAL, Contact { minute: 70, ..USUAL }]);
    let saved = serde_json::to_string(&first.checkpoint()).unwrap();
    drop(first);
    let mut second = engine();
    let restored = second.restore(serde_json::from_str(&saved).unwrap());
    assert_eq!((restored.rules, restored.dropped), (4, 0));
    assert_eq!(told(&mut second, &[Contact { minute: 75, ..USUAL }]), [""; 0], "known from before");
    let stranger = Contact { minute: 76, domain: "drop.evil.example", ..USUAL };
    assert_eq!(told(&mut second, &[stranger]), ["domain"], "it learns no second time");
}

fn engine() -> Engine {
    let options = egret::config::rule_files::options(Timestamp::EPOCH, None);
    let compiled = compile(vec![Source::new("rules.yaml", RULES)], &options);
    assert!(!compiled.report.has_errors(), "{:#?}", compiled.report);
    Engine::new(Settings::default(), Arc::new(compiled.rules))
}

/// The rules that fire for these flows, sorted.
fn told(engine: &mut Engine, contacts: &[Contact]) -> Vec<String> {
    let mut fired = Vec::new();
    for contact in contacts {
        let at = Timestamp::from_secs(1_000_000 + 60 * contact.minute);
        engine.handle_owned_packet(&packet(contact, at), &owner(contact));
        engine.handle_remote(&key(contact), &remote(contact));
        engine.handle_timeout(at.after(Duration::from_secs(30)));
        fired.extend(std::iter::from_fn(|| engine.poll_output()).filter_map(|output| match output {
            Output::Notification(told) if told.kind.name() == "alert.firing" => {
                told.alert.as_ref().map(|alert| alert.rule.metadata.id.to_string())
            }
            _ => None,
        }));
    }
    fired.sort();
    fired
}

fn ends(contact: &Contact) -> FiveTuple {
    let port = u16::try_from(40_000 + contact.minute).unwrap();
    FiveTuple {
        protocol: Protocol::TCP,
        source: Endpoint::new(Address::from_v4([10, 0, 0, 5]), port),
        destination: Endpoint::new(Address::from_v4([203, 0, 113, 7]), 443),
    }
}

fn key(contact: &Contact) -> FlowKey {
    FlowKey::of(&ends(contact), FrameDirection::Out)
}

fn packet(contact: &Contact, timestamp: Timestamp) -> Packet<'static> {
    Packet {
        timestamp,
        five_tuple: ends(contact),
        bytes: Bytes(1000),
        payload_bytes: Bytes(960),
        tcp_flags: None,
        tcp_sequence: 0,
        fragment: Fragment::None,
        direction: None,
        interface: 0,
        payload: &[],
    }
}

fn owner(contact: &Contact) -> Attribution {
    let sha256 = (!contact.sha256.is_empty()).then(|| contact.sha256.into());
    let executable = Executable { path: contact.exe.into(), sha256, ..Executable::default() };
    let process = Process {
        key: ProcessKey { pid: u32::try_from(100 + contact.minute).unwrap(), start: 1 },
        executable: Some(executable),
        user: Some(User { uid: None, name: Some(contact.user.into()) }),
        ..Process::default()
    };
    Attribution::Known { process: Arc::new(process), evidence: Evidence::Kernel }
}

fn remote(contact: &Contact) -> RemoteFacts {
    let name = DestinationName {
        domain: Some(contact.domain.into()),
        source: Some(NameSource::Sni),
        trust: Trust::Agreed,
        registered_domain: egret::names::registered_domain(contact.domain).map(Into::into),
        ..DestinationName::default()
    };
    let place = Place {
        asn: Some(contact.asn).filter(|asn| *asn != 0),
        country: Some(contact.country).filter(|country| !country.is_empty()).map(Into::into),
        ..Place::default()
    };
    RemoteFacts {
        name: (!contact.domain.is_empty()).then(|| Arc::new(name)),
        place: Some(Arc::new(place)),
        application: None,
    }
}
