//! Delivery to real receivers, and to receivers that misbehave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret::alert::DocumentKind::{Firing, Resolved};
use egret::alert::{DeliveryState, Ledger};
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin, Status};
use egret::store::{Store, StoreLimits};

use crate::support::alerts::{self, alert};
use crate::support::certificates::Certificates;
use crate::support::rsyslog::{Message, RsyslogServer, free_port, is_listening};
use crate::support::scripted::{Answer, ScriptedReceiver};
use crate::support::smtp::{self, SmtpServer};
use crate::support::wait;
use crate::support::webhook::WebhookReceiver;

#[test]
fn a_clock_that_is_set_back_delays_no_retry() {
    let receiver = ScriptedReceiver::start(|number| Answer::Status(if number == 0 { 500 } else { 204 }, ""));
    let outputs = format!("hook: {{type: webhook, url: '{}', allow_insecure: true}}", receiver.url());
    let settings = DispatchSettings { outputs: serde_yaml::from_str(&outputs).unwrap(), ..Default::default() };
    let back = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let read = Arc::clone(&back);
    let wall = move || {
        let hours = read.load(std::sync::atomic::Ordering::SeqCst);
        alerts::now().before(Duration::from_secs(3_600 * u64::try_from(hours).unwrap()))
    };
    let clock = Clock { steady: Arc::new(alerts::now), wall: Arc::new(wall) };
    let context = Context { origin: Origin { host: alerts::host(), pid: 812 }, clock, ledger: None };
    let dispatcher = Dispatcher::start(&settings, context).unwrap();
    dispatcher.submit(alert(Firing, "k", b"x"));
    wait::until("the failure", || (receiver.exchanges().len() == 1).then_some(()));
    back.store(9, std::sync::atomic::Ordering::SeqCst);
    let begin = Instant::now();
    wait::until("the second attempt", || receiver.exchanges().get(1).filter(|second| second.taken).map(|_| ()));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let stamp: i64 = receiver.exchanges()[1].request.headers["webhook-timestamp"].parse().unwrap();
    assert!(alerts::now().as_secs() - stamp >= 9 * 3_600 - 60, "the receiver is told the wall clock's time");
    dispatcher.shutdown(wait::PATIENCE);
}

#[test]
fn rsyslog_reads_the_same_fields_over_every_transport() {
    if !RsyslogServer::is_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let server = RsyslogServer::start(None, directory.path(), &certificates);
    let (udp, tcp, tls, mutual) = (server.udp_port, server.tcp_port, server.tls_port, server.mutual_port);
    let outputs = format!(
        "
udp: {{type: syslog, transport: udp, address: '127.0.0.1:{udp}', max_size: 4096}}
lines: {{type: syslog, transport: tcp, address: '127.0.0.1:{tcp}'}}
counted: {{type: syslog, transport: tcp, framing: octet, address: '127.0.0.1:{tcp}', app_name: counted}}
tls: {{type: syslog, transport: tls, address: 'localhost:{tls}', tls: {{ca_file: {authority}}}}}
mutual: {{type: syslog, transport: tls, address: 'localhost:{mutual}', tls: {{ca_file: {authority}, certificate_file: {certificate}, key_file: {key}}}}}
old: {{type: syslog, transport: udp, format: rfc3164, address: '127.0.0.1:{udp}', app_name: old}}
record: {{type: syslog, transport: tcp, format: ecs, address: '127.0.0.1:{tcp}', app_name: record}}
",
        authority = certificates.authority.display(),
        certificate = certificates.certificate.display(),
        key = certificates.key.display(),
    );
    let dispatcher = start(&outputs, "{}");
    let hostile = b"sh -c \"echo ']' \\ = | x\"\nsecond line\t\x00\xff";
    dispatcher.submit(alert(Firing, "k1", hostile));
    dispatcher.submit(alert(Resolved, "k1", hostile));
    let from = |transport: &str, application: &str, count: usize| {
        wait::until(transport, || {
            let mut messages = server.received(transport);
            messages.retain(|message| message.application == application);
            (messages.len() >= count).then_some(messages)
        })
    };
    for (transport, application) in
        [("udp", "egret"), ("tcp", "egret"), ("tcp", "counted"), ("tls", "egret"), ("mutual", "egret")]
    {
        let messages = from(transport, application, 2);
        let [firing, resolved] = messages.as_slice() else { panic!("{transport}: {messages:?}") };
        assert_eq!((firing.priority.as_str(), firing.message_id.as_str()), ("83", "ALERT"), "{transport}");
        assert_eq!((resolved.priority.as_str(), resolved.message_id.as_str()), ("85", "RESOLVED"), "{transport}");
        assert_eq!(firing.hostname, "web-07");
        assert!(firing.text.ends_with("exfil-cloud-storage: /usr/bin/rclone (alice) sent 734 MB, alert k1"));
        let fields = structured_data(&firing.structured_data);
        for (name, value) in [
            ("uid", "uid-k1"),
            ("state", "firing"),
            ("key", "k1"),
            ("exe", "/usr/bin/rclone"),
            ("dst", "203.0.113.7"),
            ("out", "734003200"),
            ("cmdline", r#"sh -c "echo ']' \ = | x"\nsecond line\t\x00\xff"#),
        ] {
            assert_eq!(fields.get(name).map(String::as_str), Some(value), "{transport}: {name}");
        }
    }
    assert!(from("udp", "old", 2)[0].text.contains("exfil-cloud-storage: /usr/bin/rclone"));
    let record: serde_json::Value =
        serde_json::from_str(from("tcp", "record", 2)[0].text.trim().trim_start_matches('\u{feff}')).unwrap();
    assert_eq!(record["event"]["id"], "uid-k1");
    assert_all_delivered(&dispatcher.shutdown(PATIENCE));
}

#[test]
fn a_syslog_server_that_restarts_loses_nothing() {
    if !RsyslogServer::is_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let dispatcher = start(&format!("tcp: {{type: syslog, transport: tcp, address: '127.0.0.1:{port}'}}"), "{}");
    dispatcher.submit(alert(Firing, "before", b"x"));
    // The first server takes the connection, reads nothing, and dies with a reset.
    let (stream, _) = listener.accept().unwrap();
    wait::until("the first message to be sent", || (dispatcher.status()?.outputs["tcp"].delivered == 1).then_some(()));
    drop(listener);
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    let server = RsyslogServer::start_on(None, directory.path(), &certificates, port);
    dispatcher.submit(alert(Firing, "after", b"x"));
    let keys = || -> Vec<String> {
        let of = |message: &Message| structured_data(&message.structured_data).get("key").cloned();
        server.received("tcp").iter().filter_map(of).collect()
    };
    wait::until("both messages", || {
        let keys = keys();
        (keys.contains(&"before".to_owned()) && keys.contains(&"after".to_owned())).then_some(())
    });
}

#[test]
fn tls_proves_both_ends() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let others = tempfile::tempdir().unwrap();
    let other = Certificates::new(others.path(), &["localhost"]);
    // Somebody else's TLS, which insists on a certificate of the client and serves one at a time.
    let Some(servers) = OpensslServers::start(&certificates, directory.path(), 3) else { return };
    let tls = |number: usize, ca: &Path, own: &str| {
        let (port, ca) = (servers.ports[number], ca.display());
        format!("{{type: syslog, transport: tls, address: 'localhost:{port}', tls: {{ca_file: {ca}{own}}}}}")
    };
    let (certificate, key) = (certificates.certificate.display(), certificates.key.display());
    let own = format!(", certificate_file: {certificate}, key_file: {key}");
    let outputs = format!(
        "\ngood: {}\nstranger: {}\nnameless: {}\n",
        tls(0, &certificates.authority, &own),
        tls(1, &other.authority, &own),
        tls(2, &certificates.authority, "")
    );
    let dispatcher = start(&outputs, "{}");
    dispatcher.submit(alert(Firing, "k1", b"x"));
    let status = wait::until("one delivery and two refusals", || {
        let status = dispatcher.status()?;
        let refused = ["stranger", "nameless"].iter().all(|name| status.outputs[*name].last_error.is_some());
        (refused && servers.received(0).contains("key=\"k1\"")).then_some(status)
    });
    let error = |name: &str| status.outputs[name].last_error.clone().unwrap();
    assert!(error("stranger").contains("certificate"), "{status:?}");
    assert!(error("nameless").contains("CertificateRequired"), "{status:?}");
    for name in ["stranger", "nameless"] {
        assert!(status.outputs[name].delivered == 0 && status.outputs[name].waiting > 0, "{name}: {status:?}");
    }
}

#[test]
fn mails_arrive_encrypted_and_updates_stand_in_one_thread() {
    if !SmtpServer::is_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let server = SmtpServer::start(None, directory.path(), &certificates);
    let password = directory.path().join("password");
    write_secret(&password, smtp::PASSWORD);
    let outputs = format!(
        "mail: {{type: email, smtp: 'localhost:{port}', from: 'Egret <egret@example.org>',
          to: [soc@example.org, 'Bob <bob@example.org>'], username: {user}, password_file: {password},
          tls: {{ca_file: {authority}}}, group: false, coalesce: both}}",
        port = server.port,
        user = smtp::USERNAME,
        password = password.display(),
        authority = certificates.authority.display(),
    );
    let dispatcher = start(&outputs, "{}");
    let hostile = b"x <b>\r\nBcc: everybody@example.org\r\n\r\n.\r\n \xff";
    dispatcher.submit(alert(Firing, "k1", hostile));
    dispatcher.submit(alert(Resolved, "k1", hostile));
    let mails = wait::until("two mails", || Some(server.received()).filter(|mails| mails.len() == 2));
    assert_all_delivered(&dispatcher.shutdown(PATIENCE));
    let mut threads = Vec::new();
    for mail in &mails {
        assert!(mail.tls && mail.authenticated);
        assert_eq!((mail.from.as_str(), mail.to.len()), ("egret@example.org", 2));
        let read = strictly_parsed(&mail.content);
        assert_eq!(read["defects"], serde_json::json!([]), "{}", mail.content);
        assert_eq!(read["bcc"], serde_json::Value::Null);
        assert_eq!(read["types"], serde_json::json!(["text/plain", "text/html"]));
        assert!(read["text"].as_str().unwrap().contains(r"x <b>\r\nBcc: everybody@example.org\r\n\r\n.\r\n \xff"));
        assert!(read["html"].as_str().unwrap().contains("x &lt;b&gt;"));
        threads.push((read["references"].clone(), read["message-id"].clone()));
    }
    assert_eq!(threads[0].0, "<uid-k1@web-07>");
    assert_eq!(threads[0].0, threads[1].0);
    assert_ne!(threads[0].1, threads[1].1);
    let subject = strictly_parsed(&mails[0].content)["subject"].clone();
    assert_eq!(subject, "[HIGH] web-07: Large upload to cloud storage (rclone, alice)");
}

#[test]
fn each_recipient_has_an_outcome_of_its_own() {
    if !SmtpServer::is_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let server = SmtpServer::start(None, directory.path(), &certificates);
    let outputs = mail(&server, directory.path(), &certificates, "auth: xoauth2, group: false")
        .replace("[soc@example.org]", "[soc@example.org, later@example.org, never@example.org]");
    let store = Store::open(&directory.path().join("state"), StoreLimits::default(), alerts::now()).unwrap();
    let dispatcher = start_with(&outputs, "{}", Some(Box::new(store)));
    dispatcher.submit(alert(Firing, "k1", b"x"));
    let mails = wait::until("two mails", || Some(server.received()).filter(|mails| mails.len() == 2));
    let recipients: Vec<&[String]> = mails.iter().map(|mail| mail.to.as_slice()).collect();
    assert_eq!(recipients, [&["soc@example.org".to_owned()][..], &["later@example.org".to_owned()]]);
    assert!(mails.iter().all(|mail| mail.tls && mail.authenticated), "by XOAUTH2");
    let ids: Vec<_> = mails.iter().map(|mail| strictly_parsed(&mail.content)["message-id"].clone()).collect();
    assert_eq!(ids[0], ids[1], "the same mail");
    let control = dispatcher.control();
    let dead = wait::until("the refusal on record", || control.deliveries(DeliveryState::Dead, 10).ok()?.pop());
    assert_eq!(dead.remaining, ["never@example.org"]);
    assert!(dead.last_error.as_deref().unwrap_or_default().contains("550"), "{dead:?}");
    let status = dispatcher.shutdown(PATIENCE);
    assert_eq!((status.outputs["mail"].delivered, status.outputs["mail"].refused), (1, 1), "{status:?}");
}

#[test]
fn a_digest_is_one_mail_about_all() {
    if !SmtpServer::is_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let server = SmtpServer::start(None, directory.path(), &certificates);
    let dispatcher = start(&mail(&server, directory.path(), &certificates, "digest: 2s"), "{}");
    for key in ["a", "b", "c"] {
        dispatcher.submit(alert(Firing, key, b"x"));
    }
    dispatcher.submit(alert(Resolved, "b", b"x"));
    let mails = wait::until("the digest", || Some(server.received()).filter(|mails| !mails.is_empty()));
    let read = strictly_parsed(&mails[0].content);
    assert!(read["subject"].as_str().unwrap().contains("3 alerts"), "{read}");
    let text = read["text"].as_str().unwrap();
    for word in ["alert a", "alert b", "alert c", "RESOLVED", "lasted"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    let status = dispatcher.shutdown(PATIENCE);
    assert_eq!((status.outputs["mail"].delivered, server.received().len()), (1, 1), "{status:?}");
}

#[test]
fn webhooks_carry_the_signature_of_the_standard() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    write_secret(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let receiver = WebhookReceiver::start(None);
    let outputs = format!(
        "hook: {{type: webhook, url: 'http://127.0.0.1:{}/egret', allow_insecure: true, secret_file: {}}}",
        receiver.port,
        secret.display()
    );
    let dispatcher = start(&outputs, "{}");
    dispatcher.submit(alert(Firing, "k1", b"caf\xe9 \"quoted\"\n"));
    dispatcher.submit(alert(Resolved, "k1", b"x"));
    assert_all_delivered(&dispatcher.shutdown(PATIENCE));
    let requests = receiver.received();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert!(request.is_signed_with("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        assert!(request.headers["webhook-id"].starts_with("msg_"));
        assert!(request.headers["user-agent"].starts_with("egret/"));
    }
    assert_eq!(requests[0].json()["type"], "alert.firing");
    assert_eq!(requests[0].json()["data"]["process"]["cmdline"], "caf\\xe9 \"quoted\"\n");
    assert_eq!(requests[1].json()["type"], "alert.resolved");
}

#[test]
fn patience_asked_for_in_seconds_or_as_a_date_is_kept() {
    for by_date in [false, true] {
        let receiver = ScriptedReceiver::start(move |number| match (number, by_date) {
            (0, false) => Answer::Status(429, "Retry-After: 2"),
            (0, true) => {
                let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
                let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap();
                Answer::StatusWith(503, format!("Retry-After: {date}"))
            }
            _ => Answer::Status(200, ""),
        });
        let dispatcher = start(&hook(&receiver), "{}");
        dispatcher.submit(alert(Firing, "k1", b"x"));
        assert_all_delivered(&dispatcher.shutdown(PATIENCE));
        let exchanges = receiver.exchanges();
        assert_eq!(exchanges.len(), 2);
        let waited = exchanges[1].at - exchanges[0].at;
        assert!(waited >= Duration::from_millis(1900), "by date {by_date}: waited {waited:?}");
        assert_eq!(exchanges[0].request.headers["webhook-id"], exchanges[1].request.headers["webhook-id"]);
        assert_eq!(exchanges[0].request.body, exchanges[1].request.body);
    }
}

#[test]
fn faults_that_pass_lose_and_reorder_nothing() {
    let faults = [
        Answer::Status(500, ""),
        Answer::Reset,
        Answer::Hang(Duration::from_secs(3)),
        Answer::Status(408, ""),
        Answer::Drip(Duration::from_millis(50)),
        Answer::SlowRead(Duration::from_secs(2)),
    ];
    for fault in faults {
        let first = fault.clone();
        let receiver =
            ScriptedReceiver::start(move |number| if number < 2 { first.clone() } else { Answer::Status(204, "") });
        let outputs =
            format!("hook: {{type: webhook, url: '{}', allow_insecure: true, http: {{timeout: 1s}}}}", receiver.url());
        let dispatcher = start(&outputs, "{}");
        for key in ["a", "b", "a", "b", "a"] {
            dispatcher.submit(alert(Firing, key, b"x"));
        }
        let status = dispatcher.shutdown(PATIENCE);
        assert_all_delivered(&status);
        assert!(status.outputs["hook"].retried >= 2, "{fault:?}: {status:?}");
        let mut taken: Vec<(String, String)> = Vec::new();
        for exchange in receiver.exchanges().into_iter().skip(2) {
            let body = exchange.request.json();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            taken.push((text(&body["data"]["alert"]["key"]), text(&body["timestamp"])));
        }
        for key in ["a", "b"] {
            let times: Vec<&String> = taken.iter().filter(|(of, _)| of == key).map(|(_, time)| time).collect();
            assert!(times.is_sorted(), "{fault:?}: {key} out of order");
        }
        assert_eq!(taken.len(), 5, "{fault:?}");
    }
}

#[test]
fn answers_that_need_a_person_keep_everything_and_are_said() {
    for (status, word) in [(301, "Location: http://127.0.0.1:1/"), (401, ""), (403, "")] {
        let receiver = ScriptedReceiver::start(move |_| Answer::Status(status, word));
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("problems");
        let outputs = format!("\n{}\nlog: {{type: file, path: {}}}\n", hook(&receiver), log.display());
        let dispatcher = start(&outputs, "routes: [{when: {type: agent.problem}, outputs: [log]}, {outputs: [hook]}]");
        dispatcher.submit(alert(Firing, "k1", b"x"));
        let problem = wait::until("the problem", || {
            let text = std::fs::read_to_string(&log).ok()?;
            serde_json::from_str::<serde_json::Value>(text.lines().next()?).ok()
        });
        assert_eq!(problem["data"]["id"], "output-failing");
        let summary = problem["data"]["summary"].as_str().unwrap();
        assert!(summary.contains(&format!("answered {status}")) && !summary.contains("s3cret"), "{summary}");
        let status = dispatcher.shutdown(Duration::ZERO);
        assert_eq!((status.outputs["hook"].waiting, receiver.exchanges().len()), (1, 1), "not followed, not lost");
    }
}

#[test]
fn a_receiver_may_refuse_one_delivery_ask_for_less_or_leave() {
    let receiver = ScriptedReceiver::start(|number| match number {
        0 => Answer::Status(400, ""),
        1 => Answer::Status(413, ""),
        2 => Answer::Status(200, ""),
        _ => Answer::Status(410, ""),
    });
    let dispatcher = start(&hook(&receiver), "{}");
    let long = vec![b'x'; 3000];
    for key in ["refused", "shrunk", "left", "after"] {
        dispatcher.submit(alert(Firing, key, &long));
    }
    let status = wait::until("the receiver to leave", || {
        let status = dispatcher.status()?;
        (receiver.exchanges().len() == 4).then_some(status)
    });
    let status = if status.outputs["hook"].waiting == 2 { status } else { dispatcher.shutdown(Duration::from_secs(1)) };
    assert_eq!((status.outputs["hook"].refused, status.outputs["hook"].delivered), (1, 1));
    assert_eq!(status.outputs["hook"].waiting, 2);
    let exchanges = receiver.exchanges();
    assert!(exchanges[2].request.body.len() < exchanges[1].request.body.len());
    let shrunk = exchanges[2].request.json();
    assert_eq!(shrunk["data"]["alert"]["key"], "shrunk");
}

#[test]
fn a_receiver_that_hangs_delays_no_other() {
    let deaf = ScriptedReceiver::start(|_| Answer::Hang(Duration::from_secs(60)));
    let [quick, alone] = [(), ()].map(|()| ScriptedReceiver::start(|_| Answer::Status(204, "")));
    let outputs = format!(
        "{{deaf: {{type: webhook, url: '{}', allow_insecure: true, http: {{timeout: 30s}}}},
          quick: {{type: webhook, url: '{}', allow_insecure: true}}}}",
        deaf.url(),
        quick.url()
    );
    let beside = start(&outputs, "{}");
    let by_itself = start(&format!("{{alone: {{type: webhook, url: '{}', allow_insecure: true}}}}", alone.url()), "{}");
    let measure = |dispatcher: &Dispatcher, receiver: &ScriptedReceiver, index: usize| {
        let begin = Instant::now();
        dispatcher.submit(alert(Firing, &index.to_string(), b"x"));
        let exchange = wait::until("the quick receiver", || receiver.exchanges().get(index).cloned());
        exchange.at - begin
    };
    let mut delays: Vec<(Duration, Duration)> =
        (0..50).map(|index| (measure(&beside, &quick, index), measure(&by_itself, &alone, index))).collect();
    // By turns, and the median: a busy machine delays both alike, a deaf neighbour would delay the one alone.
    delays.sort();
    let with_neighbour = delays[25].0;
    delays.sort_by_key(|(_, alone)| *alone);
    let without = delays[25].1;
    assert!(with_neighbour < without + Duration::from_millis(50), "{with_neighbour:?}, without {without:?}");
    assert_eq!(deaf.exchanges().len(), 1);
}

/// Servers of `openssl s_server`, which print what they receive.
struct OpensslServers {
    ports: Vec<u16>,
    folder: PathBuf,
    running: Vec<Child>,
}

impl OpensslServers {
    fn start(certificates: &Certificates, folder: &Path, count: usize) -> Option<Self> {
        let mut servers = Self { ports: Vec::new(), folder: folder.to_owned(), running: Vec::new() };
        for number in 0..count {
            let port = free_port();
            let child = Command::new("openssl")
                .args(["s_server", "-quiet", "-Verify", "1", "-verify_return_error", "-accept", &port.to_string()])
                .arg("-CAfile")
                .arg(&certificates.authority)
                .arg("-cert")
                .arg(&certificates.certificate)
                .arg("-key")
                .arg(&certificates.key)
                .stdin(Stdio::piped())
                .stdout(std::fs::File::create(folder.join(format!("tls-{number}"))).unwrap())
                .stderr(Stdio::null())
                .spawn();
            let Ok(child) = child else {
                eprintln!("skipped: openssl is not installed");
                return None;
            };
            wait::until("openssl to listen", || is_listening(child.id(), port).then_some(()));
            servers.ports.push(port);
            servers.running.push(child);
        }
        Some(servers)
    }

    fn received(&self, number: usize) -> String {
        std::fs::read_to_string(self.folder.join(format!("tls-{number}"))).unwrap_or_default()
    }
}

impl Drop for OpensslServers {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ended_before = child.kill();
            let _status = child.wait();
        }
    }
}

/// A mail output for the server, with keys of the test's own.
fn mail(server: &SmtpServer, directory: &Path, certificates: &Certificates, own: &str) -> String {
    let password = directory.join("password");
    write_secret(&password, smtp::PASSWORD);
    format!(
        "mail: {{type: email, smtp: 'localhost:{port}', from: egret@example.org, to: [soc@example.org],
          username: {user}, password_file: '{password}', tls: {{ca_file: '{authority}'}}, {own}}}",
        port = server.port,
        user = smtp::USERNAME,
        password = password.display(),
        authority = certificates.authority.display(),
    )
}

fn start(outputs: &str, routing: &str) -> Dispatcher {
    start_with(outputs, routing, None)
}

fn start_with(outputs: &str, routing: &str, ledger: Option<Box<dyn Ledger>>) -> Dispatcher {
    let outputs = serde_yaml::from_str(outputs).unwrap_or_else(|error| panic!("{error}\n{outputs}"));
    let settings = DispatchSettings { outputs, routing: serde_yaml::from_str(routing).unwrap(), ..Default::default() };
    let origin = Origin { host: alerts::host(), pid: 812 };
    Dispatcher::start(&settings, Context { origin, clock: Clock::single(alerts::now), ledger }).unwrap()
}

fn hook(receiver: &ScriptedReceiver) -> String {
    format!("hook: {{type: webhook, url: '{}', allow_insecure: true}}", receiver.url())
}

fn assert_all_delivered(status: &Status) {
    for (name, output) in &status.outputs {
        assert_eq!((output.waiting, output.given_up()), (0, 0), "{name}: {status:?}");
        assert!(output.delivered > 0, "{name}: {status:?}");
    }
}

fn write_secret(path: &Path, secret: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, secret).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// An independent reader of structured data (RFC 5424, section 6.3).
fn structured_data(text: &str) -> BTreeMap<String, String> {
    let inner = text.strip_prefix("[egress@32473").unwrap_or_else(|| panic!("no element in `{text}`"));
    let mut letters = inner.chars();
    let mut fields = BTreeMap::new();
    loop {
        match letters.next() {
            Some(' ') => {}
            Some(']') => {
                assert_eq!(letters.as_str(), "", "something follows the element");
                return fields;
            }
            other => panic!("{other:?} in `{text}`"),
        }
        let name: String = letters.by_ref().take_while(|letter| *letter != '=').collect();
        assert_eq!(letters.next(), Some('"'));
        let mut value = String::new();
        loop {
            match letters.next() {
                Some('"') => break,
                Some('\\') => value.extend(letters.next()),
                Some(letter) => {
                    assert_ne!(letter, ']', "an unescaped bracket");
                    value.push(letter);
                }
                None => panic!("`{text}` ends in a value"),
            }
        }
        fields.insert(name, value);
    }
}

/// What Python's reader of mails makes of one, with every defect that it finds.
fn strictly_parsed(mail: &str) -> serde_json::Value {
    const SCRIPT: &str = r#"
import email, email.policy, json, sys
mail = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
parts = list(mail.walk())
body = {part.get_content_type(): part.get_content() for part in parts if not part.is_multipart()}
defects = [str(defect) for part in parts for defect in part.defects]
defects += [str(defect) for part in parts for value in part.values() for defect in getattr(value, "defects", ())]
print(json.dumps({"defects": defects, "bcc": mail["Bcc"], "subject": mail["Subject"], "references": mail["References"],
    "message-id": mail["Message-ID"], "types": [part.get_content_type() for part in parts if not part.is_multipart()],
    "text": body["text/plain"], "html": body["text/html"]}))
"#;
    use std::io::Write;
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(mail.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(60);
