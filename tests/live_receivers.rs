//! The receivers that live tests stand on, each tried with somebody else's
//! client: what fails here is not Egret's fault.

use std::process::Command;

use crate::support::certificates::Certificates;
use crate::support::namespace::{self, Network};
use crate::support::rsyslog::RsyslogServer;
use crate::support::smtp::{self, SmtpServer};
use crate::support::wait;
use crate::support::webhook::WebhookReceiver;

#[test]
fn rsyslog_takes_messages_of_logger_and_openssl() {
    if !RsyslogServer::is_available() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let server = RsyslogServer::start(None, directory.path(), &certificates);
    let logger = |transport: &str, port: u16| {
        let port = port.to_string();
        let arguments = ["--rfc5424", "-n", "127.0.0.1", "-P", &port, transport, "-t", "harness", "hello there"];
        assert!(Command::new("logger").args(arguments).status().expect("logger is essential").success());
    };
    logger("-d", server.udp_port);
    logger("-T", server.tcp_port);
    let line = "printf '<13>1 2026-05-04T02:00:00Z h harness - - - hello there\\n'";
    let client =
        format!("{line} | timeout 10 openssl s_client -quiet -no_ign_eof -connect 127.0.0.1:{}", server.tls_port);
    assert!(Command::new("bash").args(["-c", &client]).output().expect("openssl is installed").status.success());
    for transport in ["udp", "tcp", "tls"] {
        let message = wait::until(transport, || server.received(transport).first().cloned());
        assert_eq!((message.application.as_str(), message.text.trim()), ("harness", "hello there"), "{transport}");
    }
}

#[test]
fn the_mail_server_insists_on_tls_and_a_password() {
    if !SmtpServer::is_available() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let certificates = Certificates::new(directory.path(), &["localhost"]);
    let server = SmtpServer::start(None, directory.path(), &certificates);
    let send = |tls: &str, password: &str| {
        let script = format!(
            "import smtplib, ssl\nserver = smtplib.SMTP('localhost', {port}, timeout=20)\n{tls}\n\
             server.login('{user}', '{password}')\n\
             server.sendmail('a@example.org', ['b@example.org'], 'Subject: hello\\n\\nthere')\n",
            port = server.port,
            user = smtp::USERNAME,
        );
        Command::new("/usr/bin/python3").args(["-c", &script]).output().expect("python3 is installed").status.success()
    };
    let tls =
        format!("server.starttls(context=ssl.create_default_context(cafile='{}'))", certificates.authority.display());
    assert!(!send("", smtp::PASSWORD), "a password in the clear");
    assert!(!send(&tls, "wrong"), "a wrong password");
    assert!(send(&tls, smtp::PASSWORD));
    let mails = server.received();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].tls && mails[0].authenticated && mails[0].content.contains("Subject: hello"));
    assert_eq!((mails[0].from.as_str(), mails[0].to.as_slice()), ("a@example.org", &["b@example.org".to_owned()][..]));
}

#[test]
fn the_webhook_receiver_inside_a_namespace_checks_signatures() {
    if namespace::unavailable().is_some() {
        return;
    }
    let network = Network::new();
    let receiver = WebhookReceiver::start(Some(&network.client));
    // The example of the standard itself.
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let url = format!("http://127.0.0.1:{}/hook", receiver.port);
    let sent = network.client.run(
        "curl",
        &[
            "-sS",
            "-H",
            "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
            "-H",
            "webhook-timestamp: 1614265330",
            "-H",
            "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "-d",
            "{\"test\": 2432232314}",
            &url,
        ],
    );
    assert!(sent, "the receiver did not answer");
    let request = receiver.received().pop().expect("curl was answered");
    assert_eq!(request.path, "/hook");
    assert_eq!(request.json()["test"], 2_432_232_314_u64);
    assert!(request.is_signed_with(secret));
    assert!(!request.is_signed_with("whsec_AAAA"));
}
