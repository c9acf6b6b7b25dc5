//! A receiver of webhooks that checks their signature as the standard says
//! (Standard Webhooks: `v1,` and the HMAC of id, timestamp and body).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::support::namespace::Namespace;

/// One HTTP request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("webhooks have a JSON body")
    }

    /// Whether one of the signatures fits `secret` (`whsec_` and base64, or the plain bytes).
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = match secret.strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).expect("the test's secret is base64"),
            None => secret.as_bytes().to_vec(),
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let header = |name: &str| self.headers.get(name).cloned().unwrap_or_default();
        let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).into_bytes();
        signed.extend(&self.body);
        header("webhook-signature").split(' ').filter_map(|signature| signature.strip_prefix("v1,")).any(|signature| {
            STANDARD.decode(signature).is_ok_and(|signature| hmac::verify(&key, &signed, &signature).is_ok())
        })
    }
}

/// An HTTP server that keeps what it is sent and answers 204.
pub struct WebhookReceiver {
    pub port: u16,
    received: Arc<Mutex<Vec<Request>>>,
}

impl WebhookReceiver {
    /// Listens on the loopback address, of `namespace` where one is given.
    pub fn start(namespace: Option<&Namespace>) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let listener = bind(namespace, "127.0.0.1:0");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let seen = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || serve(stream, &seen));
            }
        });
        Self { port, received }
    }

    /// What came so far.
    pub fn received(&self) -> Vec<Request> {
        self.received.lock().expect("no thread panics while it holds the list").clone()
    }
}

/// A listener inside a namespace; the calling thread stays where it is.
pub fn bind(namespace: Option<&Namespace>, address: &str) -> TcpListener {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                if let Some(namespace) = namespace {
                    namespace.enter();
                }
                TcpListener::bind(address).unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"))
            })
            .join()
            .expect("the listener was bound")
    })
}

/// Answers the requests of one connection until it ends.
fn serve(stream: TcpStream, received: &Mutex<Vec<Request>>) {
    let Ok(mut answer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        received.lock().expect("no thread panics while it holds the list").push(request);
        if answer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            return;
        }
    }
}

/// Reads one request; `None` at the end of the connection.
pub fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body })
}
