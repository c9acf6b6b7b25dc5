//! The example alert of the format documentation, for the tests of the encoders.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::alert::Origin;
use crate::alert::{
    Alert, AlertState, Condition, Destination, DocumentKind, ExecutableFacts, Network, Notification, Parent,
    ProcessFacts, RuleFacts, Source, UserFacts, Window,
};
use crate::rule::{Confidence, Host, Metadata, Quantity, Severity, Value};
use crate::time::Timestamp;

/// The example, firing.
pub fn firing() -> Arc<Notification> {
    Arc::new(Notification::of_alert(DocumentKind::Firing, at("2026-05-04T02:11:09.482113Z"), alert()))
}

/// The example, resolved half an hour later.
pub fn resolved() -> Arc<Notification> {
    let mut alert = alert();
    alert.state.state = "resolved";
    alert.state.ended_at = Some(at("2026-05-04T02:40:00Z"));
    Arc::new(Notification::of_alert(DocumentKind::Resolved, at("2026-05-04T02:40:00Z"), alert))
}

/// The example with a command line of somebody's choice.
pub fn with_command_line(command_line: &[u8]) -> Arc<Notification> {
    let mut alert = alert();
    if let Some(process) = &mut alert.process {
        process.cmdline = Value::Text(command_line.into());
    }
    Arc::new(Notification::of_alert(DocumentKind::Firing, at("2026-05-04T02:11:09.482113Z"), alert))
}

/// The host of the example.
pub fn origin() -> Origin {
    Origin { host: host(), pid: 812 }
}

fn alert() -> Alert {
    let metadata = Metadata {
        id: "exfil-cloud-storage".into(),
        title: "Large upload to cloud storage by an unapproved program".into(),
        severity: Severity::High,
        confidence: Confidence::Medium,
        tags: vec!["exfiltration".into()],
        attack: vec!["T1567.002".into()],
        pack: Some("linux-exfil-base".into()),
        revision: Some(12),
        references: vec!["https://example.org/runbooks/exfil-cloud".into()],
        ..Metadata::default()
    };
    Alert {
        schema: "egress-alert/1",
        state: AlertState {
            uid: "01JX8Q4Z7M0000000000000000".into(),
            key: "b3:9f2c4e".into(),
            episode: 3,
            state: "firing",
            started_at: at("2026-05-04T02:06:04Z"),
            fired_at: Some(at("2026-05-04T02:11:09Z")),
            coverage: 1.0,
            ..AlertState::default()
        },
        rule: RuleFacts { metadata: Arc::new(metadata), ..RuleFacts::default() },
        group: vec![
            ("exe", text("/usr/bin/rclone")),
            ("user", text("alice")),
            ("dst.registered_domain", text("example.net")),
        ],
        window: Some(Window {
            length_s: 600,
            start: at("2026-05-04T02:01:09Z"),
            end: at("2026-05-04T02:11:09Z"),
            max_extra_s: 10,
        }),
        values: BTreeMap::from([
            ("bytes_out".into(), Quantity::Count(734_003_200)),
            ("bytes_in".into(), Quantity::Count(1_048_576)),
            ("upload_ratio".into(), Quantity::Ratio(0.9986)),
            ("connections".into(), Quantity::Count(3)),
        ]),
        conditions: vec![Condition {
            metric: "bytes_out".into(),
            op: "gte",
            limit: Quantity::Count(500_000_000),
            value: Some(Quantity::Count(734_003_200)),
            met: true,
            capped: false,
            estimated: false,
        }],
        process: Some(ProcessFacts {
            pid: 4121,
            executable: ExecutableFacts { exe: text("/usr/bin/rclone"), kind: "file", hash: None, package: None },
            cmdline: text("rclone copy /srv/pii remote:bkt"),
            started_at: Some(at("2026-05-04T02:05:58Z")),
            evidence: Some("exact"),
            ..ProcessFacts::default()
        }),
        parent: Some(Parent { pid: 4090, exe: text("/usr/bin/bash"), cmdline: Value::Missing }),
        user: Some(UserFacts { uid: Some(1000), name: Some("alice".into()), login_name: None }),
        source: Some(Source { ip: [10, 0, 3, 9].into_address(), port: 51544 }),
        destination: Some(Destination {
            ip: [203, 0, 113, 7].into_address(),
            port: 443,
            domain: Some("up.storage.example.net".into()),
            domain_source: Some("sni"),
            registered_domain: Some("example.net".into()),
            scope: "public",
            ..Destination::default()
        }),
        network: Some(Network {
            transport: "tcp".into(),
            l7: "tls",
            direction: "outbound",
            iface: Some("eth0".into()),
            community_id: None,
        }),
        top: BTreeMap::from([("dst.ip", vec![(Value::Ip([203, 0, 113, 7].into_address()), 734_003_200)])]),
        excluded: BTreeMap::from([("bytes_out".into(), 0)]),
        host: host(),
        summary: "/usr/bin/rclone (alice) sent 734 MB to example.net in 10m".into(),
        ..Alert::default()
    }
}

fn host() -> Host {
    Host { name: "web-07".into(), id: Some("4c1d".into()), tags: Vec::new() }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("the examples are RFC 3339")
}

trait IntoAddress {
    fn into_address(self) -> crate::packet::Address;
}

impl IntoAddress for [u8; 4] {
    fn into_address(self) -> crate::packet::Address {
        crate::packet::Address::from_v4(self)
    }
}
