//! Receivers of the services' interfaces that hold every request against the
//! published schema, and answer awkwardly before they say yes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use egret::alert::DocumentKind::{Firing, Resolved};
use egret::alert::{Notification, Problem};
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin};
use serde_json::Value as Json;

use crate::support::alerts::{self, alert};
use crate::support::scripted::{Answer, Exchange, ScriptedReceiver};
use crate::support::{schemas, wait};

#[test]
fn every_request_is_of_the_published_schema_whatever_was_answered_before() {
    let directory = tempfile::tempdir().unwrap();
    let token = secret(directory.path(), "0123456789abcdef0123456789abcdef");
    let services: [(&str, &str, bool); 13] = [
        ("slack", "", false),
        ("mattermost", "", false),
        ("teams", "", false),
        ("discord", "", false),
        ("googlechat", "", false),
        ("telegram", ", chat_id: '-100'", true),
        ("ntfy", ", topic: egress", false),
        ("gotify", "", true),
        ("pagerduty", "", true),
        ("opsgenie", "", true),
        ("splunk_hec", ", index: sec", true),
        ("elasticsearch", "", false),
        ("loki", "", false),
    ];
    let receivers: Vec<ScriptedReceiver> = services.iter().map(|_| ScriptedReceiver::start(awkward)).collect();
    let mut outputs = String::new();
    for ((service, own, needs_token), receiver) in services.iter().zip(&receivers) {
        let token = if *needs_token { format!(", token_file: '{token}'") } else { String::new() };
        outputs.push_str(&format!(
            "{service}: {{type: {service}, url: 'http://127.0.0.1:{}/x', allow_insecure: true, group: false, \
             coalesce: both, rate: {{per_second: 1000, burst: 1000}}, http: {{timeout: 1s}}{own}{token}}}\n",
            receiver.port
        ));
    }
    let settings = DispatchSettings { outputs: serde_yaml::from_str(&outputs).unwrap(), ..Default::default() };
    let origin = Origin { host: alerts::host(), pid: 812 };
    let dispatcher =
        Dispatcher::start(&settings, Context { origin, clock: Clock::single(alerts::now), ledger: None }).unwrap();
    let hostile = b"sh -c '<!channel> & @everyone' \"|\" = ] \\ \n\r\0 \xff {{ x }}";
    dispatcher.submit(alert(Firing, "k1", hostile));
    dispatcher.submit(alert(Resolved, "k1", hostile));
    dispatcher.submit(alert(Firing, "k2", &vec![b'"'; 131_072]));
    let mut bare = alert(Firing, "k3", b"");
    let of_bare = Arc::make_mut(bare.alert.as_mut().unwrap());
    (of_bare.process, of_bare.user, of_bare.destination, of_bare.network) = (None, None, None, None);
    Arc::make_mut(&mut of_bare.rule.metadata).references.clear();
    dispatcher.submit(bare);
    let problem = Problem { id: "data-loss", summary: "packets are lost".into(), ..Problem::default() };
    dispatcher.submit(Notification::of_problem(alerts::now(), problem));
    let status = dispatcher.shutdown(Duration::from_secs(120));
    let mut documents: Vec<(&str, Json)> = Vec::new();
    for ((service, ..), receiver) in services.iter().zip(&receivers) {
        let output = &status.outputs[*service];
        assert_eq!((output.waiting, output.given_up()), (0, 0), "{service}: {output:?}");
        assert!(output.retried >= 4, "{service}: {output:?}");
        let exchanges = receiver.exchanges();
        let taken: Vec<&Exchange> = exchanges.iter().filter(|exchange| exchange.taken).collect();
        assert!(taken.len() >= 5, "{service}: {} of {}", taken.len(), exchanges.len());
        for exchange in &exchanges {
            for value in exchange.request.headers.values() {
                assert!(value.is_ascii() && !value.contains("everyone"), "{service}: {value}");
            }
            documents.extend(of_body(service, &exchange.request.path, &exchange.request.body));
        }
    }
    let Some(findings) = schemas::findings(&documents) else { return };
    assert_eq!(findings, Vec::<String>::new());
    assert!(documents.len() > 13 * 9, "{} documents were held against schemas", documents.len());
}

#[test]
fn every_member_of_a_cluster_hears_of_every_alert() {
    let members =
        [ScriptedReceiver::start(|_| Answer::Status(200, "")), ScriptedReceiver::start(|_| Answer::Status(200, ""))];
    let urls = members.iter().map(|member| format!("'http://127.0.0.1:{}'", member.port)).collect::<Vec<_>>();
    // Nobody listens at the third.
    let outputs = format!(
        "am: {{type: alertmanager, urls: [{}, 'http://127.0.0.1:9'], allow_insecure: true, http: {{timeout: 1s}}}}",
        urls.join(", ")
    );
    let settings = DispatchSettings { outputs: serde_yaml::from_str(&outputs).unwrap(), ..Default::default() };
    let origin = Origin { host: alerts::host(), pid: 812 };
    let dispatcher =
        Dispatcher::start(&settings, Context { origin, clock: Clock::single(alerts::now), ledger: None }).unwrap();
    dispatcher.submit(alert(Firing, "k1", b"x"));
    dispatcher.submit(alert(Resolved, "k1", b"x"));
    let status = dispatcher.shutdown(wait::PATIENCE);
    assert_eq!((status.outputs["am"].delivered, status.outputs["am"].waiting), (2, 0), "{status:?}");
    let mut documents = Vec::new();
    for member in &members {
        let exchanges = member.exchanges();
        assert!(exchanges.len() >= 2, "{}", exchanges.len());
        documents.extend(exchanges.iter().map(|exchange| ("alertmanager", exchange.request.json())));
    }
    if let Some(findings) = schemas::findings(&documents) {
        assert_eq!(findings, Vec::<String>::new());
    }
}

/// The awkward codes, then yes.
fn awkward(number: usize) -> Answer {
    match number {
        0 => Answer::Status(429, "Retry-After: 1"),
        1 => Answer::Status(500, ""),
        2 => Answer::Reset,
        3 => Answer::StatusWith(503, "Retry-After: Mon, 04 May 2026 02:12:09 GMT".to_owned()),
        4 => Answer::Hang(Duration::from_secs(2)),
        _ => Answer::Body(200, r#"{"ok":true,"errors":false,"items":[]}"#),
    }
}

/// The documents in the body of a request, each with its schema.
fn of_body<'a>(service: &'a str, path: &str, body: &[u8]) -> Vec<(&'a str, Json)> {
    let read = |text: &[u8]| -> Json { serde_json::from_slice(text).unwrap_or_else(|_| panic!("{service}: no JSON")) };
    let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    match service {
        "opsgenie" if path.contains("/close") => vec![("opsgenie-close", read(body))],
        "splunk_hec" => lines().map(|line| ("splunk_hec", read(line))).collect(),
        "elasticsearch" => lines().step_by(2).map(|line| ("elasticsearch-action", read(line))).collect(),
        _ => vec![(service, read(body))],
    }
}

fn secret(directory: &Path, text: &str) -> String {
    let path = directory.join("token");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}
