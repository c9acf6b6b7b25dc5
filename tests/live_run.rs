//! `egret run` from end to end: real traffic between two namespaces, real
//! receivers, both sources.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::certificates::Certificates;
use crate::support::egret::{Egret, Source};
use crate::support::namespace::{self, Namespace, Network};
use crate::support::rsyslog::RsyslogServer;
use crate::support::sinks::Sink;
use crate::support::smtp::{self, SmtpServer};
use crate::support::wait;
use crate::support::webhook::WebhookReceiver;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One megabyte by any program, told apart by what it was told to do.
const UPLOADS: &str = "
version: 1
rules:
  - id: upload
    title: An upload
    severity: high
    match: {direction: outbound}
    group_by: [exe, cmdline]
    window: 5s
    when: {bytes_out: {gte: 1MB}}
";

#[test]
fn an_upload_reaches_every_receiver_and_so_does_its_end() {
    if namespace::unavailable().is_some() || !RsyslogServer::is_available() || !SmtpServer::is_available() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let client = Some(&network.client);
    let certificates = Certificates::new(directory.path(), &["localhost", "127.0.0.1"]);
    let syslog = RsyslogServer::start(client, directory.path(), &certificates);
    let mails = SmtpServer::start(client, directory.path(), &certificates);
    let hooks = WebhookReceiver::start(client);
    let outputs = receivers(directory.path(), &certificates, &syslog, &mails, &hooks);
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, UPLOADS, &outputs);

    upload(&network.client, directory.path(), &format!("http://{}/", Network::SERVER), 2_000_000);

    let alert = egret.wait_for("the alert of the upload", |alert| alert["rule"]["id"] == "upload");
    assert_eq!(alert["group"]["exe"], "/usr/bin/curl");
    assert_eq!(alert["destination"]["ip"], Network::SERVER);
    for transport in ["udp", "tcp", "tls"] {
        let firing = wait::until(transport, || {
            syslog.received(transport).into_iter().find(|message| message.message_id == "ALERT")
        });
        assert_eq!(firing.application, "egret", "{transport}");
        assert!(firing.structured_data.contains("rule=\"upload\""), "{transport}: {firing:?}");
        assert!(firing.structured_data.contains("exe=\"/usr/bin/curl\""), "{transport}: {firing:?}");
        wait::until("its resolution", || {
            syslog.received(transport).into_iter().find(|message| message.message_id == "RESOLVED")
        });
    }
    let mail = wait::until("the mail", || mails.received().into_iter().next());
    assert!(mail.tls && mail.authenticated, "{mail:?}");
    assert_eq!(mail.to, ["soc@example.org"]);
    assert!(mail.content.contains("curl"), "{mail:?}");
    let hook = wait::until("the webhook", || hooks.received().into_iter().next());
    assert!(hook.is_signed_with(SECRET), "{hook:?}");
    assert_eq!(hook.json()["type"], "alert.firing");
    let resolved = wait::until("the webhook's resolution", || {
        hooks.received().into_iter().find(|request| request.json()["type"] == "alert.resolved")
    });
    assert!(resolved.is_signed_with(SECRET), "{resolved:?}");
    assert_eq!(resolved.json()["data"]["alert"]["uid"], alert["alert"]["uid"]);
    egret.stop();
}

#[test]
fn every_kind_of_sender_is_named() {
    if namespace::unavailable().is_some() {
        return;
    }
    let _alone = namespace::alone();
    for source in Source::ALL {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let network = Network::new();
        let container = container(&network.client);
        let [v4, v6] = [Network::SERVER.to_owned(), format!("[{}]", Network::SERVER_V6)];
        let _sinks = [
            Sink::http(&network.server, &format!("{v4}:80")),
            Sink::http(&network.server, &format!("{v6}:80")),
            Sink::tcp(&network.server, &format!("{v4}:7000")),
            Sink::udp(&network.server, &format!("{v4}:9")),
        ];
        let mut egret = Egret::start(&network.client, directory.path(), source, UPLOADS, "");
        // Though it has given up every privilege that it needs no longer.
        assert!(
            source == Source::Kernel || egret.is_real_time("news"),
            "short-lived senders would wait for their turn"
        );

        upload(&network.client, directory.path(), &format!("http://{v4}/v4"), 2_000_000);
        upload(&network.client, directory.path(), &format!("http://{v6}/v6"), 2_000_000);
        upload(&container, directory.path(), &format!("http://{v4}/container"), 2_000_000);
        python(&network.client, directory.path(), "udp", UDP);
        python(&network.client, directory.path(), "fork", FORK);
        // A megabyte at once, then one packet now and then: how long the answers take does not matter.
        let ping = ["-q", "-l", "900", "-i", "0.2", "-s", "1200", "-w", "2", Network::SERVER];
        assert!(network.client.run("ping", &ping), "{source:?}: ping");

        for (exe, argument) in [
            ("/usr/bin/curl", "/v4"),
            ("/usr/bin/curl", "/v6"),
            ("/usr/bin/curl", "/container"),
            ("/usr/bin/python3", "udp.py"),
            ("/usr/bin/python3", "fork.py"),
            ("/usr/bin/ping", "1200"),
        ] {
            let alert = egret.wait_for(&format!("{argument} with {source:?}"), |alert| {
                let cmdline = alert["group"]["cmdline"].as_str().unwrap_or_default();
                cmdline.contains(argument)
            });
            let seen = alert["group"]["exe"].as_str().unwrap_or_default();
            assert!(seen.starts_with(exe), "{source:?}: {argument} was sent by {seen}");
        }
        egret.stop();
    }
}

#[test]
fn sigterm_delivers_what_is_on_its_way() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let hooks = WebhookReceiver::start(Some(&network.client));
    let outputs = webhook_output(directory.path(), &hooks);
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, UPLOADS, &outputs);
    upload(&network.client, directory.path(), &format!("http://{}/", Network::SERVER), 2_000_000);
    egret.wait_for("the alert", |alert| alert["rule"]["id"] == "upload");
    egret.stop();
    assert!(!hooks.received().is_empty(), "the webhook got nothing before the end:\n{}", egret.log());
}

#[test]
fn new_rules_take_effect_and_bad_ones_do_not() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let at = |path: &str| format!("http://{}/{path}", Network::SERVER);
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, UPLOADS, "");
    let told = |egret: &Egret, what: &str| egret.log().matches(what).count();

    // A changed file is noticed by itself.
    egret.write_rules(&UPLOADS.replace("id: upload", "id: smaller").replace("1MB", "100kB"));
    wait::until("the new rules", || (told(&egret, "rules read again") > 0).then_some(()));
    upload(&network.client, directory.path(), &at("second"), 300_000);
    egret.wait_for("the new rule's alert", |alert| alert["rule"]["id"] == "smaller");

    // A bad one is refused, and the rules stay as they were.
    egret.write_rules("version: 1\nrules:\n  - id: broken\n    matsch: {}\n");
    egret.signal(Signal::HUP);
    wait::until("the refusal", || egret.log().contains("matsch").then_some(()));
    let problem = |egret: &Egret, resolved: bool| {
        let told = |one: &serde_json::Value| one["type"] == "agent.problem" && one["data"]["resolved"] == resolved;
        egret.notifications().iter().any(told).then_some(())
    };
    wait::until("the problem at the receivers", || problem(&egret, false));
    upload(&network.client, directory.path(), &at("third"), 300_000);
    egret.wait_for("an alert by the old rules", |alert| {
        alert["rule"]["id"] == "smaller"
            && alert["group"]["cmdline"].as_str().is_some_and(|line| line.contains("third"))
    });

    // SIGHUP alone loads as well.
    let before = told(&egret, "rules read again");
    egret.write_rules(UPLOADS);
    egret.signal(Signal::HUP);
    wait::until("the first rules again", || (told(&egret, "rules read again") > before).then_some(()));
    wait::until("the end of the problem", || problem(&egret, true));
    egret.stop();
}

/// What is new, and what adds up to much in ten minutes.
const MEMORIES: &str = "
version: 1
rules:
  - id: new-address
    match: {direction: outbound, proto: tcp}
    first_seen: {of: [exe, dst.ip], lookback: 14d}
  - id: upload
    match: {direction: outbound}
    group_by: [exe]
    window: 10m
    when: {bytes_out: {gte: 3MB}}
";

#[test]
fn a_restart_goes_on_where_the_last_run_ended() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let at = |path: &str| format!("http://{}/{path}", Network::SERVER);
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    let fired = |egret: &Egret, id: &str| egret.firing().iter().filter(|one| one["data"]["rule"]["id"] == id).count();

    let mut first = Egret::start(&network.client, directory.path(), Source::Pcap, MEMORIES, "");
    upload(&network.client, directory.path(), &at("first"), 2_000_000);
    first.wait_for("the new address", |alert| alert["rule"]["id"] == "new-address");
    assert_eq!(fired(&first, "upload"), 0, "2 MB are less than 3 MB");
    first.stop();

    let mut second = Egret::start(&network.client, directory.path(), Source::Pcap, MEMORIES, "");
    upload(&network.client, directory.path(), &at("second"), 2_000_000);
    let alert = second.wait_for("both uploads together", |alert| alert["rule"]["id"] == "upload");
    let bytes = alert["values"]["bytes_out"].as_u64().unwrap_or(0);
    assert!((3_000_000..4_800_000).contains(&bytes), "{bytes} of both runs");
    assert_eq!(fired(&second, "new-address"), 1, "known from before the restart");
    second.stop();
}

/// The same upload, and what becomes of its alert when nothing can be seen any more.
const BLINDED: &str = "
version: 1
rules:
  - {id: keeps, match: {direction: outbound}, window: 5s, when: {bytes_out: {gte: 1MB}}}
  - {id: resolves, match: {direction: outbound}, window: 5s, when: {bytes_out: {gte: 1MB}}, no_data: resolve}
  - {id: tells, match: {direction: outbound}, window: 5s, when: {bytes_out: {gte: 1MB}}, no_data: alert}
";

#[test]
fn what_cannot_be_seen_has_not_ended() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, BLINDED, "");
    upload(&network.client, directory.path(), &format!("http://{}/", Network::SERVER), 2_000_000);
    for id in ["keeps", "resolves", "tells"] {
        egret.wait_for(id, |alert| alert["rule"]["id"] == id);
    }
    let (client, server) = (&network.client.name, &network.server.name);
    namespace::ip(&format!("-n {client} link del eth0"));
    let no_data = |egret: &Egret, resolved: bool| {
        let told = |one: &serde_json::Value| {
            one["type"] == "agent.problem" && one["data"]["id"] == "no-data" && one["data"]["resolved"] == resolved
        };
        egret.notifications().iter().any(told).then_some(())
    };
    let ended = |egret: &Egret, id: &str| {
        let told = |one: &serde_json::Value| one["type"] == "alert.resolved" && one["data"]["rule"]["id"] == id;
        egret.notifications().iter().any(told)
    };
    wait::until("blindness to be told", || no_data(&egret, false));
    let state = directory.path().join("state").display().to_string();
    let status = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_egret"));
        let output = command.args(["status", "--state-dir", &state]).output().expect("the binary was built");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait::until("the status to say so", || status().contains("the source sees nothing").then_some(()));
    wait::until("the end of the alert that ends blindly", || ended(&egret, "resolves").then_some(()));
    // Twice the window later the others are still as they were when something was last seen.
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert!(!ended(&egret, "keeps") && !ended(&egret, "tells"), "{:#?}", egret.notifications());
    namespace::ip(&format!("link add eth0 netns {client} type veth peer name eth0 netns {server}"));
    namespace::ip(&format!("-n {client} link set eth0 up"));
    wait::until("sight again", || no_data(&egret, true));
    wait::until("the end of the others", || (ended(&egret, "keeps") && ended(&egret, "tells")).then_some(()));
    assert!(!status().contains("the source sees nothing"));
    egret.stop();
}

#[test]
fn a_changed_list_is_read_and_windows_stay() {
    if namespace::unavailable().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let network = Network::new();
    let _sink = Sink::http(&network.server, &format!("{}:80", Network::SERVER));
    // Not beside the rules, whose folder is watched anyway.
    let lists = tempfile::tempdir().expect("a temporary directory");
    let list = lists.path().join("partners.txt");
    let write = |networks: &str| {
        let new = list.with_extension("new");
        fs::write(&new, networks).expect("the test's directory is writable");
        fs::rename(&new, &list).expect("the test's directory is writable");
    };
    write("192.0.2.0/24\n");
    let rules = format!(
        "version: 1\nlists: {{partners: {{type: cidr, file: {}, reload: true}}}}\nrules:\n  \
         - {{id: to-partners, match: {{dst.ip: $partners}}, group_by: [exe], window: 10m, when: {{bytes_out: {{gte: 1MB}}}}}}\n",
        list.display()
    );
    let mut egret = Egret::start(&network.client, directory.path(), Source::Pcap, &rules, "");
    let reloads = |egret: &Egret| egret.log().matches("rules read again").count();
    let change = |egret: &Egret, networks: &str| {
        let before = reloads(egret);
        write(networks);
        wait::until("the list to be read", || (reloads(egret) > before).then_some(()));
    };
    let url = format!("http://{}/", Network::SERVER);
    upload(&network.client, directory.path(), &url, 2_000_000);
    change(&egret, &format!("192.0.2.0/24\n{}\n", Network::SERVER));
    upload(&network.client, directory.path(), &url, 700_000);
    change(&egret, &format!("{}\n198.18.0.0/15\n", Network::SERVER));
    assert!(egret.firing().is_empty(), "what went there before it was a partner does not count");
    upload(&network.client, directory.path(), &url, 700_000);
    let alert = egret.wait_for("both uploads together", |alert| alert["rule"]["id"] == "to-partners");
    let bytes = alert["values"]["bytes_out"].as_u64().unwrap_or(0);
    assert!((1_000_000..1_700_000).contains(&bytes), "{bytes} of both uploads");
    egret.stop();
}

/// The outputs of the test, for [`Egret::start`].
fn receivers(
    directory: &Path,
    certificates: &Certificates,
    syslog: &RsyslogServer,
    mails: &SmtpServer,
    hooks: &WebhookReceiver,
) -> String {
    let password = directory.join("password");
    write_secret(&password, smtp::PASSWORD);
    let authority = certificates.authority.display();
    format!(
        "  udp: {{type: syslog, transport: udp, address: \"127.0.0.1:{}\"}}\n\
         \x20 tcp: {{type: syslog, transport: tcp, address: \"127.0.0.1:{}\"}}\n\
         \x20 tls: {{type: syslog, transport: tls, address: \"127.0.0.1:{}\", tls: {{ca_file: {authority}}}}}\n\
         \x20 mail: {{type: email, smtp: \"127.0.0.1:{}\", from: egret@example.org, to: [soc@example.org], \
         username: {}, password_file: {}, tls: {{ca_file: {authority}}}}}\n{}",
        syslog.udp_port,
        syslog.tcp_port,
        syslog.tls_port,
        mails.port,
        smtp::USERNAME,
        password.display(),
        webhook_output(directory, hooks),
    )
}

fn webhook_output(directory: &Path, hooks: &WebhookReceiver) -> String {
    let secret = directory.join("secret");
    write_secret(&secret, SECRET);
    format!(
        "  hook: {{type: webhook, url: \"http://127.0.0.1:{}/hook\", allow_insecure: true, secret_file: {}}}\n",
        hooks.port,
        secret.display(),
    )
}

fn write_secret(path: &Path, secret: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, secret).expect("the test's directory is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
}

/// Sends a file of `length` bytes with curl.
fn upload(namespace: &Namespace, directory: &Path, url: &str, length: usize) {
    let file = directory.join("upload");
    fs::write(&file, vec![b'x'; length]).expect("the test's directory is writable");
    let mut command = namespace.command("curl");
    command.args(["-sS", "--max-time", "30", "--limit-rate", "1M", "-T"]).arg(&file).arg(url);
    let output = command.output().expect("curl is installed");
    assert!(output.status.success(), "curl {url}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A process that sends datagrams through one socket.
const UDP: &str = "
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for burst in range(15):
    for n in range(100):
        s.sendto(b'x' * 1000, ('203.0.113.7', 9))
    time.sleep(0.1)
";

/// A process that connects, and a child that sends through the connection.
const FORK: &str = "
import os, socket
s = socket.create_connection(('203.0.113.7', 7000))
if os.fork() == 0:
    for n in range(200):
        s.sendall(b'x' * 10000)
    os._exit(0)
os.wait()
";

fn python(namespace: &Namespace, directory: &Path, name: &str, script: &str) {
    let file = directory.join(format!("{name}.py"));
    fs::write(&file, script).expect("the test's directory is writable");
    let mut command = namespace.command("/usr/bin/python3");
    let status = command.arg(&file).stdin(Stdio::null()).status().expect("python3 is installed");
    assert!(status.success(), "{name}");
}

/// A namespace behind `host`, which routes for it, as a container engine sets it up without address translation.
fn container(host: &Namespace) -> Namespace {
    let container = Namespace::new("n");
    let run = |arguments: &str| namespace::ip(arguments);
    let (inside, outside) = (&container.name, &host.name);
    run(&format!("link add eth0 netns {inside} type veth peer name veth0 netns {outside}"));
    run(&format!("-n {outside} addr add 10.88.0.1/24 dev veth0"));
    run(&format!("-n {outside} link set veth0 up"));
    run(&format!("-n {inside} addr add {}/32 dev eth0", Network::CONTAINER));
    run(&format!("-n {inside} link set eth0 up"));
    run(&format!("-n {inside} route add 10.88.0.1/32 dev eth0"));
    run(&format!("-n {inside} route add default via 10.88.0.1"));
    run(&format!("-n {outside} route add {}/32 dev veth0", Network::CONTAINER));
    assert!(host.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]));
    container
}
