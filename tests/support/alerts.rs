//! Notifications as the engine makes them, for tests of delivery.

use std::collections::BTreeMap;
use std::sync::Arc;

use egret::alert::{
    Alert, AlertState, CompanionFlow, Destination, DocumentKind, ExecutableFacts, Network, Notification, ProcessFacts,
    RuleFacts, Source, UserFacts,
};
use egret::attribution::Container;
use egret::flow::{Counters, FlowKey, FlowState};
use egret::packet::{Address, Endpoint, Protocol};
use egret::rule::{Host, Metadata, Quantity, Severity, Value};
use egret::time::Timestamp;
use egret::units::{Bytes, Packets};

/// An alert of a rule about a process with a command line.
pub fn alert(kind: DocumentKind, key: &str, command_line: &[u8]) -> Notification {
    let metadata = Metadata {
        id: "exfil-cloud-storage".into(),
        title: "Large upload to cloud storage".into(),
        severity: Severity::High,
        attack: vec!["T1567.002".into()],
        tags: vec!["exfiltration".into()],
        references: vec!["https://example.org/runbook".into()],
        ..Metadata::default()
    };
    let at = now();
    let alert = Alert {
        schema: "egress-alert/1",
        state: AlertState {
            uid: format!("uid-{key}").into(),
            key: key.into(),
            episode: 1,
            state: if kind.ends() { "resolved" } else { "firing" },
            started_at: at,
            fired_at: Some(at),
            ended_at: kind.ends().then_some(at),
            coverage: 1.0,
            ..AlertState::default()
        },
        rule: RuleFacts { metadata: Arc::new(metadata), ..RuleFacts::default() },
        group: vec![("exe", text(b"/usr/bin/rclone")), ("user", text(b"alice"))],
        values: BTreeMap::from([("bytes_out".into(), Quantity::Count(734_003_200))]),
        process: Some(ProcessFacts {
            pid: 4121,
            executable: ExecutableFacts { exe: text(b"/usr/bin/rclone"), kind: "file", hash: None, package: None },
            cmdline: text(command_line),
            args: Value::List(vec!["rclone".into(), command_line.into()]),
            ..ProcessFacts::default()
        }),
        user: Some(UserFacts { uid: Some(1000), name: Some("alice".into()), login_name: None }),
        source: Some(Source { ip: Address::from_v4([10, 0, 3, 9]), port: 51544 }),
        destination: Some(Destination {
            ip: Address::from_v4([203, 0, 113, 7]),
            port: 443,
            domain: Some("up.storage.example.net".into()),
            domain_source: Some("sni"),
            scope: "public",
            ..Destination::default()
        }),
        network: Some(Network {
            transport: "tcp".into(),
            l7: "tls",
            direction: "outbound",
            iface: None,
            community_id: None,
        }),
        host: host(),
        summary: format!("/usr/bin/rclone (alice) sent 734 MB, alert {key}"),
        ..Alert::default()
    };
    Notification::of_alert(kind, at, alert)
}

/// The same alert with two of its flows, of which the first is told with a process.
pub fn with_flows(mut notification: Notification) -> Notification {
    let alert = Arc::make_mut(notification.alert.as_mut().expect("it is about an alert"));
    let flow = |number: u16| {
        let key = FlowKey {
            protocol: Protocol::TCP,
            local: Endpoint::new(Address::from_v4([10, 0, 3, 9]), 51_544 + number),
            remote: Endpoint::new(Address::from_v4([203, 0, 113, 7]), 443),
            ..FlowKey::default()
        };
        let counters = |bytes_out| Counters {
            bytes_out: Bytes(bytes_out),
            bytes_in: Bytes(1_000),
            packets_out: Packets(7),
            packets_in: Packets(5),
            ..Counters::default()
        };
        Arc::new(CompanionFlow {
            uid: format!("{}-flow-{number}", alert.state.uid).into(),
            key,
            state: FlowState::Established,
            first: alert.state.started_at,
            last: notification.timestamp,
            passed: counters(10_000),
            total: counters(90_000),
            left_out: Counters::default(),
            process: alert.process.clone().filter(|_| number == 0),
            parent: None,
            user: alert.user.clone().filter(|_| number == 0),
            container: (number == 0).then(|| Container { id: "c0ffee".into(), ..Container::default() }),
            destination: alert.destination.clone().unwrap_or_default(),
            network: Network {
                community_id: egret::flow::community_id(&key),
                ..alert.network.clone().unwrap_or_default()
            },
        })
    };
    alert.flows = vec![flow(0), flow(1)];
    notification
}

/// The host of the alerts.
pub fn host() -> Host {
    Host { name: "web-07".into(), id: Some("4c1d".into()), tags: Vec::new() }
}

/// The time by the clock of this machine.
pub fn now() -> Timestamp {
    let nanos = jiff::Timestamp::now().as_nanosecond();
    Timestamp::from_nanos(i64::try_from(nanos).expect("this century"))
}

fn text(bytes: &[u8]) -> Value {
    Value::Text(bytes.into())
}
