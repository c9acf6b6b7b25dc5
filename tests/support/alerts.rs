//! Notifications as the engine makes them, for tests of delivery.

use std::collections::BTreeMap;
use std::sync::Arc;

use egret::alert::{
    Alert, AlertState, Destination, DocumentKind, ExecutableFacts, Network, Notification, ProcessFacts, RuleFacts,
    Source, UserFacts,
};
use egret::packet::Address;
use egret::rule::{Host, Metadata, Quantity, Severity, Value};
use egret::time::Timestamp;

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
        network: Some(Network { transport: "tcp".into(), l7: "tls", direction: "outbound", iface: None }),
        host: host(),
        summary: format!("/usr/bin/rclone (alice) sent 734 MB, alert {key}"),
        ..Alert::default()
    };
    Notification::of_alert(kind, at, alert)
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
