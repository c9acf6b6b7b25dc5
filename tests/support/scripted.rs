//! An HTTP receiver that answers as a test's script says, faults included.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::webhook::{Request, read_request};

/// What the receiver does with one request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A status and headers such as `Retry-After: 1`.
    Status(u16, &'static str),
    /// The same, with a body.
    Body(u16, &'static str),
    /// The same, with headers made at run time.
    StatusWith(u16, String),
    /// Closes with a reset.
    Reset,
    /// Says nothing for so long, then closes.
    Hang(Duration),
    /// Sends the answer one byte at a time.
    Drip(Duration),
    /// Takes this long over the request, and then says yes.
    SlowRead(Duration),
}

/// One request, and when it came.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub at: Instant,
    pub request: Request,
    /// Whether the answer said yes.
    pub taken: bool,
}

/// The receiver.
pub struct ScriptedReceiver {
    pub port: u16,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
    connections: Arc<AtomicUsize>,
}

impl ScriptedReceiver {
    /// Answers request number `n`, from 0, with `script(n)`.
    pub fn start(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let exchanges = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (Arc::new(script), Arc::clone(&exchanges));
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || serve(&stream, &*script, &seen));
            }
        });
        Self { port, exchanges, connections }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/services/s3cret", self.port)
    }

    /// How often somebody connected.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What happened so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().expect("no thread panics while it holds the list").clone()
    }
}

fn serve(stream: &TcpStream, script: &(dyn Fn(usize) -> Answer + Send + Sync), exchanges: &Mutex<Vec<Exchange>>) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(request) = read_request(&mut reader) {
        let answer = {
            let mut exchanges = exchanges.lock().expect("no thread panics while it holds the list");
            let answer = script(exchanges.len());
            let taken = matches!(
                answer,
                Answer::Status(200..=299, _) | Answer::Body(200..=299, _) | Answer::Drip(_) | Answer::SlowRead(_)
            );
            exchanges.push(Exchange { at: Instant::now(), request, taken });
            answer
        };
        let goes_on = match answer {
            Answer::Status(status, headers) => reply(writer, status, headers).is_ok(),
            Answer::Body(status, body) => reply_with(writer, status, body).is_ok(),
            Answer::StatusWith(status, headers) => reply(writer, status, &headers).is_ok(),
            Answer::Reset => {
                // A socket that is closed with an answer half sent and input unread resets.
                let _partial = writer.write_all(b"HTT");
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("a TCP socket lingers");
                false
            }
            Answer::Hang(patience) => {
                thread::sleep(patience);
                false
            }
            Answer::SlowRead(pause) => {
                thread::sleep(pause);
                reply(writer, 204, "").is_ok()
            }
            Answer::Drip(pause) => {
                let bytes = b"HTTP/1.1 204 No Content\r\nX-Padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";
                bytes.iter().all(|byte| {
                    thread::sleep(pause);
                    writer.write_all(&[*byte]).is_ok()
                })
            }
        };
        if !goes_on {
            let _already_gone = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn reply_with(mut writer: &TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    write!(writer, "HTTP/1.1 {status} As Scripted\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn reply(mut writer: &TcpStream, status: u16, headers: &str) -> std::io::Result<()> {
    let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
    write!(writer, "HTTP/1.1 {status} As Scripted\r\n{headers}Content-Length: 0\r\n\r\n")
}
