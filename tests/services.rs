//! Services with an interface of their own: what each is asked, how it is told
//! who we are, and what its refusals mean. Where a real one can be installed,
//! the real one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use egret::alert::DocumentKind::{Firing, Resolved};
use egret::dispatch::{Clock, Context, DispatchSettings, Dispatcher, Origin};
use serde_json::Value as Json;

use crate::support::alerts::{self, alert};
use crate::support::certificates::Certificates;
use crate::support::rsyslog::{free_port, is_listening};
use crate::support::scripted::{Answer, ScriptedReceiver};
use crate::support::wait;

#[test]
fn each_service_is_asked_in_its_own_way() {
    let directory = tempfile::tempdir().unwrap();
    let token = secret(directory.path(), "token", "t0ken");
    let receiver = ScriptedReceiver::start(|_| Answer::Body(200, r#"{"ok":true,"errors":false,"items":[]}"#));
    let base = format!("http://127.0.0.1:{}", receiver.port);
    let hook = secret(directory.path(), "hook", &format!("{base}/services/T0/B0/s3cret"));
    let (token, hook) = (token.display(), hook.display());
    let common = "allow_insecure: true, group: false, coalesce: both";
    let outputs = format!(
        "
slack: {{type: slack, url_file: '{hook}', {common}}}
pagerduty: {{type: pagerduty, url: '{base}/v2/enqueue', token_file: '{token}', {common}}}
opsgenie: {{type: opsgenie, url: '{base}/opsgenie', token_file: '{token}', {common}}}
alertmanager: {{type: alertmanager, url: '{base}/am', {common}}}
splunk: {{type: splunk_hec, url: '{base}/splunk', token_file: '{token}', index: sec, {common}}}
elastic: {{type: elasticsearch, url: '{base}/es', token_file: '{token}', {common}}}
loki: {{type: loki, url: '{base}/loki', tenant: blue, {common}}}
telegram: {{type: telegram, url: '{base}/tg', token_file: '{token}', chat_id: '-100', {common}}}
ntfy: {{type: ntfy, url: '{base}/ntfy', topic: egress, token_file: '{token}', {common}}}
generic: {{type: generic, url: '{base}/generic', template: '{{\"x\": {{{{ summary | tojson }}}}}}', {common}}}
"
    );
    let dispatcher = start(&outputs);
    dispatcher.submit(alert(Firing, "k 1", b"x"));
    dispatcher.submit(alert(Resolved, "k 1", b"x"));
    let status = dispatcher.shutdown(wait::PATIENCE);
    for (name, output) in &status.outputs {
        assert_eq!((output.delivered, output.waiting), (2, 0), "{name}: {status:?}");
    }
    let asked = |path: &str| {
        let exchanges = receiver.exchanges();
        let found = exchanges.iter().find(|exchange| exchange.request.path.starts_with(path));
        found.unwrap_or_else(|| panic!("nobody asked for {path}")).request.clone()
    };
    let authorization = |path: &str| asked(path).headers.get("authorization").cloned().unwrap_or_default();
    assert_eq!(asked("/services/T0/B0/s3cret").json()["attachments"][0]["color"], "#c0392b");
    assert_eq!(asked("/v2/enqueue").json()["routing_key"], "t0ken");
    assert_eq!(authorization("/opsgenie/v2/alerts"), "GenieKey t0ken");
    assert_eq!(asked("/opsgenie/v2/alerts/k%201/close?identifierType=alias").json()["source"], "web-07");
    let alertmanager = asked("/am/api/v2/alerts").json();
    assert!(alertmanager[0]["endsAt"].as_str().unwrap() > alertmanager[0]["startsAt"].as_str().unwrap());
    assert_eq!(authorization("/splunk/services/collector/event"), "Splunk t0ken");
    assert_eq!(authorization("/es/_bulk"), "ApiKey t0ken");
    assert_eq!(asked("/es/_bulk").headers["content-type"], "application/x-ndjson");
    assert_eq!(asked("/loki/loki/api/v1/push").headers["x-scope-orgid"], "blue");
    assert_eq!(asked("/tg/bott0ken/sendMessage").json()["parse_mode"], "HTML");
    assert_eq!(
        (authorization("/ntfy"), asked("/ntfy").json()["topic"].clone()),
        ("Bearer t0ken".into(), "egress".into())
    );
    assert!(asked("/generic").json()["x"].as_str().unwrap().contains("sent 734 MB"));
}

#[test]
fn a_bulk_request_that_fails_in_part_is_read_item_by_item() {
    let receiver = ScriptedReceiver::start(|number| match number {
        0 => Answer::Body(200, r#"{"errors":true,"items":[{"create":{"status":429,"error":{"reason":"busy"}}}]}"#),
        1 => Answer::Body(200, r#"{"errors":true,"items":[{"create":{"status":409,"error":{"reason":"exists"}}}]}"#),
        _ => Answer::Body(200, r#"{"errors":true,"items":[{"create":{"status":400,"error":{"reason":"mapping"}}}]}"#),
    });
    let url = receiver.url();
    let dispatcher = start(&format!("es: {{type: elasticsearch, url: '{url}', allow_insecure: true}}"));
    dispatcher.submit(alert(Firing, "a", b"x"));
    wait::until("the first document", || (dispatcher.status()?.outputs["es"].delivered == 1).then_some(()));
    dispatcher.submit(alert(Firing, "b", b"x"));
    let status = wait::until("the refusal", || {
        let status = dispatcher.status()?;
        (status.outputs["es"].refused == 1).then_some(status)
    });
    assert_eq!((status.outputs["es"].retried, receiver.exchanges().len()), (1, 3));
    assert!(status.outputs["es"].last_error.as_deref().unwrap().contains("mapping"));
    assert_eq!(receiver.exchanges()[0].request.body, receiver.exchanges()[1].request.body);
}

#[test]
fn wrong_settings_are_refused_before_anything_is_sent() {
    for (output, expected) in [
        ("{type: slack, url: 'http://hooks.example.org/x'}", "must begin with `https://`"),
        ("{type: slack, url: 'https://hooks.example.org/x', topic: y}", "`topic` means nothing to slack"),
        ("{type: ntfy}", "ntfy needs `topic`"),
        ("{type: pagerduty}", "pagerduty needs `token_file`"),
        ("{type: generic, url: 'https://x.example.org/', template: '{% if %}'}", "the template is wrong"),
        ("{type: command, program: /bin/sh}", "is not among the `commands`"),
        ("{type: webhook}", "give `url` or `url_file`"),
        ("{type: webhook, url: 'https://x.example.org', headers: {Authorization: Bearer x}}", "`authorization_file`"),
        ("{type: loki, url: 'https://x.example.org', headers: {X-Api-Key: x}}", "must not hold a secret"),
        ("{type: webhook, url: 'https://user:pw@x.example.org/'}", "holds a user or a password"),
        ("{type: slack, url: 'https://x.example.org', urls: ['https://y.example.org']}", "`urls` means nothing"),
    ] {
        let settings = settings(&format!("x: {output}"));
        let origin = Origin { host: alerts::host(), pid: 1 };
        let context = Context { origin, clock: Clock::single(alerts::now), ledger: None };
        let error = Dispatcher::start(&settings, context).err().unwrap_or_else(|| panic!("{output} was taken"));
        let said = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(said.contains(expected), "{output}: {said}");
    }
}

#[test]
fn alertmanager_shows_an_alert_until_it_is_resolved() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("alertmanager.yml");
    std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
    let port = free_port();
    let mut command = Command::new("prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", directory.path().display()))
        .args([&format!("--web.listen-address=127.0.0.1:{port}"), "--cluster.listen-address="]);
    let Some(_server) = Server::start(command, port) else { return };
    let url = format!("http://127.0.0.1:{port}");
    let dispatcher = start(&format!("am: {{type: alertmanager, url: '{url}', allow_insecure: true}}"));
    let shown = || -> Option<Vec<Json>> {
        let output = Command::new("curl").args(["-sS", &format!("{url}/api/v2/alerts")]).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    };
    dispatcher.submit(alert(Firing, "k1", b"x"));
    let alerts = wait::until("the alert", || shown().filter(|alerts| !alerts.is_empty()));
    assert_eq!(alerts[0]["labels"]["alertname"], "exfil-cloud-storage");
    assert_eq!((&alerts[0]["labels"]["user"], &alerts[0]["status"]["state"]), (&"alice".into(), &"active".into()));
    assert_eq!(alerts[0]["annotations"]["bytes_out"], "734003200");
    dispatcher.submit(alert(Resolved, "k1", b"x"));
    wait::until("the end of the alert", || shown().filter(Vec::is_empty));
}

#[test]
fn syslog_ng_reads_the_same_fields_over_every_transport() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let (tcp, udp, tls, folder) = (free_port(), free_port(), free_port(), directory.path().display().to_string());
    let config = directory.path().join("syslog-ng.conf");
    let keys = "--key PRI --key MSGID --key HOST --key PROGRAM --key MESSAGE --key .SDATA.*";
    let text = format!(
        "@version: 3.38
options {{ keep-hostname(yes); }};
source s {{
    syslog(transport(\"tcp\") ip(127.0.0.1) port({tcp}));
    syslog(transport(\"udp\") ip(127.0.0.1) port({udp}));
    syslog(transport(\"tls\") ip(127.0.0.1) port({tls}) tls(key-file(\"{key}\") cert-file(\"{certificate}\")
        ca-file(\"{authority}\") peer-verify(required-trusted)));
}};
destination d {{ file(\"{folder}/received\" template(\"$(format-json {keys})\\n\")); }};
log {{ source(s); destination(d); }};
",
        key = certificates.key.display(),
        certificate = certificates.certificate.display(),
        authority = certificates.authority.display(),
    );
    std::fs::write(&config, text).unwrap();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/syslog-ng");
    let libraries = unpacked.join("usr/lib/syslog-ng");
    let mut command = Command::new(unpacked.join("usr/sbin/syslog-ng"));
    command.env("LD_LIBRARY_PATH", &libraries).arg("--module-path").arg(libraries.join("3.38"));
    command.args(["-F", "--no-caps", "-f"]).arg(&config);
    for (option, name) in [("-R", "persist"), ("-p", "pid"), ("-c", "control")] {
        command.arg(option).arg(directory.path().join(name));
    }
    let Some(_server) = Server::start(command, tls) else { return };
    let ca = certificates.authority.display();
    let own = format!(
        "certificate_file: '{}', key_file: '{}'",
        certificates.certificate.display(),
        certificates.key.display()
    );
    let dispatcher = start(&format!(
        "
tcp: {{type: syslog, transport: tcp, framing: octet, address: '127.0.0.1:{tcp}', app_name: tcp}}
udp: {{type: syslog, transport: udp, address: '127.0.0.1:{udp}', max_size: 4096, app_name: udp}}
tls: {{type: syslog, transport: tls, address: 'localhost:{tls}', app_name: tls, tls: {{ca_file: '{ca}', {own}}}}}
nobody: {{type: syslog, transport: tls, address: 'localhost:{tls}', app_name: nobody, tls: {{ca_file: '{ca}'}}}}
"
    ));
    dispatcher.submit(alert(Firing, "k1", b"sh -c \"echo ']' \\ = | x\"\nsecond\xff"));
    let lines = wait::until("three messages", || {
        let text = std::fs::read_to_string(directory.path().join("received")).ok()?;
        let lines: Vec<Json> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.iter().filter(|line| line["MSGID"] == "ALERT").count() >= 3).then_some(lines)
    });
    for program in ["tcp", "udp", "tls"] {
        let line = lines.iter().find(|line| line["PROGRAM"] == program && line["MSGID"] == "ALERT");
        let line = line.unwrap_or_else(|| panic!("{program}: {lines:?}"));
        let data = line.pointer("/_SDATA/egress@32473").or_else(|| line.pointer("/SDATA/egress@32473"));
        let data = data.unwrap_or_else(|| panic!("{line}"));
        assert_eq!((&data["key"], &data["dst"]), (&"k1".into(), &"203.0.113.7".into()), "{line}");
        assert_eq!(data["cmdline"], r#"sh -c "echo ']' \ = | x"\nsecond\xff"#, "{line}");
        assert_eq!((&line["HOST"], &line["PRI"]), (&"web-07".into(), &"83".into()), "{line}");
    }
    assert!(!lines.iter().any(|line| line["PROGRAM"] == "nobody"), "without a certificate: {lines:?}");
    let status = wait::until("the refusal", || {
        dispatcher.status().filter(|status| status.outputs["nobody"].last_error.is_some())
    });
    assert!(status.outputs["nobody"].waiting > 0, "{status:?}");
}

/// A server that ends with the test.
struct Server(Child);

impl Server {
    /// `None` where it is not installed, which is said.
    fn start(mut command: Command, port: u16) -> Option<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => {
                let mut server = Self(child);
                wait::until(&format!("{name} to listen"), || {
                    assert!(server.0.try_wait().is_ok_and(|ended| ended.is_none()), "{name} has ended");
                    is_listening(server.0.id(), port).then_some(())
                });
                Some(server)
            }
            Err(_) => {
                eprintln!("skipped: {name} is not installed");
                None
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _status = self.0.wait();
    }
}

fn settings(outputs: &str) -> DispatchSettings {
    let outputs = serde_yaml::from_str(outputs).unwrap_or_else(|error| panic!("{error}\n{outputs}"));
    DispatchSettings { outputs, ..DispatchSettings::default() }
}

fn start(outputs: &str) -> Dispatcher {
    let origin = Origin { host: alerts::host(), pid: 812 };
    let context = Context { origin, clock: Clock::single(alerts::now), ledger: None };
    Dispatcher::start(&settings(outputs), context).unwrap()
}

fn secret(directory: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}
