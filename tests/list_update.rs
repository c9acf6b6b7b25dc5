//! `egret lists update`: fetched over TLS when they changed, checked before they replace the last good copy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::certificates::Certificates;

#[test]
fn a_list_is_fetched_once_and_a_bad_answer_never_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(folder.path(), &["localhost"]);
    let publisher = Publisher::start(&certificates);
    write_config(folder.path(), &publisher.url(), &certificates.authority, "");
    let copy = folder.path().join("state/lists/feodo.list");

    publisher.answer("HTTP/1.1 200 OK\r\nETag: \"one\"\r\n", "# C2\n192.0.2.1\n192.0.2.0/28\n");
    let out = format!("feodo: 2 entries in {}\n", copy.display());
    update(folder.path()).success().stdout(out);
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "# C2\n192.0.2.1\n192.0.2.0/28\n");

    publisher.answer("HTTP/1.1 304 Not Modified\r\n", "");
    update(folder.path()).success().stdout("feodo: unchanged\n");
    assert!(publisher.last_request().contains("if-none-match: \"one\"\r\n"), "{}", publisher.last_request());

    let bad = [
        ("HTTP/1.1 200 OK\r\n", "<html>\n<p>Please log in</p>\n", "is no list: no entry in 2 lines"),
        ("HTTP/1.1 200 OK\r\n", "# nothing today\n", "is empty"),
        ("HTTP/1.1 200 OK\r\n", &"192.0.2.1\n".repeat(30_000), "has more than 100000 bytes"),
        ("HTTP/1.1 503 Service Unavailable\r\n", "203.0.113.1\n", "answered 503"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n", "203.0.113.1\n", "cannot fetch"),
    ];
    for (head, body, message) in bad {
        publisher.answer(head, body);
        let failed = update(folder.path()).code(1);
        let said = String::from_utf8(failed.get_output().stderr.clone()).unwrap();
        assert!(said.starts_with("error: feodo: ") && said.contains(message), "{message}: {said}");
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "# C2\n192.0.2.1\n192.0.2.0/28\n");
    }

    let mut command = egret();
    let matched = command.args(["lists", "match"]).arg(&copy).write_stdin("192.0.2.15\n203.0.113.1\n").assert();
    matched.success().stdout("192.0.2.15 true\n203.0.113.1 false\n");
}

#[test]
fn a_publisher_that_nobody_vouches_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(folder.path(), &["other.example"]);
    let publisher = Publisher::start(&certificates);
    publisher.answer("HTTP/1.1 200 OK\r\n", "192.0.2.1\n");
    write_config(folder.path(), &publisher.url(), &certificates.authority, "");
    let said = String::from_utf8(update(folder.path()).code(1).get_output().stderr.clone()).unwrap();
    assert!(said.contains("certificate"), "{said}");
    assert!(!folder.path().join("state/lists/feodo.list").exists());

    write_config(folder.path(), "http://localhost/list.txt", &certificates.authority, "");
    update(folder.path()).code(1).stderr("error: feodo: `http://localhost/list.txt` is no `https://` URL\n");
}

#[test]
fn a_publisher_that_says_nothing_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(folder.path(), &["localhost"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/list.txt", silent.local_addr().unwrap().port());
    write_config(folder.path(), &url, &certificates.authority, "");
    let configuration = folder.path().join("egret.yaml");
    let text = std::fs::read_to_string(&configuration).unwrap().replace("max_bytes", "timeout: 1s, max_bytes");
    std::fs::write(&configuration, text).unwrap();
    let began = std::time::Instant::now();
    let said = String::from_utf8(update(folder.path()).code(1).get_output().stderr.clone()).unwrap();
    assert!(said.starts_with("error: feodo: cannot fetch") && said.contains("timeout"), "{said}");
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

fn update(folder: &Path) -> assert_cmd::assert::Assert {
    egret().args(["lists", "update", "--config"]).arg(folder.join("egret.yaml")).assert()
}

fn egret() -> Command {
    Command::new(env!("CARGO_BIN_EXE_egret"))
}

fn write_config(folder: &Path, url: &str, authority: &Path, more: &str) {
    let state = folder.join("state");
    let text = format!(
        "state_dir: {}\nlists:\n  feodo: {{url: \"{url}\", ca_file: {}, max_bytes: 100000}}\n{more}",
        state.display(),
        authority.display()
    );
    std::fs::write(folder.join("egret.yaml"), text).unwrap();
}

/// An HTTPS server that gives every request the same answer.
struct Publisher {
    port: u16,
    answer: Arc<Mutex<Vec<u8>>>,
    request: Arc<Mutex<String>>,
}

impl Publisher {
    fn start(certificates: &Certificates) -> Self {
        let chain = vec![CertificateDer::from_pem_file(&certificates.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&certificates.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, request) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let (answers, requests) = (Arc::clone(&answer), Arc::clone(&request));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, socket));
                let mut head = String::new();
                while stream.read_line(&mut head).is_ok_and(|read| read > 2) {}
                *requests.lock().unwrap() = head.to_ascii_lowercase();
                // A client that refuses the certificate is gone.
                let _ = stream.get_mut().write_all(&answers.lock().unwrap());
                stream.get_mut().conn.send_close_notify();
                let _ = stream.get_mut().flush();
                let _ = stream.get_mut().sock.shutdown(std::net::Shutdown::Write);
                let _ = stream.get_mut().sock.read(&mut [0; 64]);
            }
        });
        Self { port, answer, request }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/list.txt", self.port)
    }

    fn answer(&self, head: &str, body: &str) {
        let length = match head.contains("Content-Length") || head.contains("304") {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        *self.answer.lock().unwrap() = format!("{head}{length}Connection: close\r\n\r\n{body}").into_bytes();
    }

    fn last_request(&self) -> String {
        self.request.lock().unwrap().clone()
    }
}
