//! The control socket: how operators ask and tell a running program.
//!
//! A Unix socket that the owner and the group may use. One JSON object a line
//! is asked, one is answered: `{"ok": ...}` or `{"error": "..."}`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::alert::{DeliveryState, Silence};
use crate::dispatch::{ControlError, DispatchControl, Retry};
use crate::engine::{Engine, ExceptionUsage};
use crate::runtime::control::Control;
use crate::runtime::watching;

/// One question or order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How everything stands.
    Status,
    /// Alerts, the latest change first.
    Alerts {
        /// So many at most.
        most: usize,
    },
    /// Somebody takes care of an alert.
    Acknowledge {
        /// The alert's key.
        key: String,
        /// Who.
        by: String,
    },
    /// All silences that are kept.
    Silences,
    /// A new silence.
    AddSilence {
        /// It.
        silence: Silence,
    },
    /// The end of a silence.
    ExpireSilence {
        /// Which.
        id: String,
    },
    /// Deliveries.
    Outbox {
        /// In which state.
        state: DeliveryState,
        /// So many at most.
        most: usize,
    },
    /// One delivery with its bytes.
    Delivery {
        /// Which.
        id: String,
    },
    /// Another attempt: of one delivery, of one output, or of everything.
    Retry {
        /// Which delivery.
        id: Option<String>,
        /// Which output.
        output: Option<String>,
    },
    /// A delivery is not wanted any more.
    Drop {
        /// Which.
        id: String,
    },
    /// A marked test alert.
    TestOutput {
        /// To which output.
        name: String,
    },
    /// The groups nearest to their limits, the nearest first.
    Windows {
        /// Of which rule; of all where it is absent.
        rule: Option<String>,
        /// So many at most.
        most: usize,
    },
    /// What each exception of each rule hid.
    Exceptions,
}

/// Who answers what is asked: the thread that delivers, and the one that runs the engine.
#[derive(Debug, Clone)]
pub struct Desk {
    /// Asks and tells the dispatcher.
    pub dispatch: DispatchControl,
    /// Reaches the engine; without it there is none to ask.
    pub engine: Option<Sender<Control>>,
    /// How the watching goes.
    pub watching: watching::Shared,
}

/// The socket of a program that runs; gone when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
}

impl ControlSocket {
    /// Listens below the state directory and answers on threads of its own.
    ///
    /// # Errors
    /// Where the socket cannot be made, or another program listens there.
    pub fn start(directory: &Path, desk: Desk) -> std::io::Result<Self> {
        let path = path(directory);
        if UnixStream::connect(&path).is_ok() {
            let reason = format!("another egret listens at `{}`", path.display());
            return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, reason));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
        let serving = Arc::new(AtomicUsize::new(0));
        std::thread::Builder::new().name("egret-control".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                serve_apart(stream, &desk, &serving);
            }
        })?;
        Ok(Self { path })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A socket that is left behind is replaced by the next start.
        let _left_behind = fs::remove_file(&self.path);
    }
}

/// Asks a running program.
///
/// # Errors
/// Where none runs, or it does not answer.
pub fn ask(directory: &Path, request: &Request) -> std::io::Result<Result<Json, String>> {
    let mut stream = UnixStream::connect(path(directory))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let answer: Json = serde_json::from_str(&answer)?;
    match (answer.get("ok"), answer.get("error")) {
        (Some(value), _) => Ok(Ok(value.clone())),
        (None, Some(error)) => Ok(Err(error.as_str().unwrap_or_default().to_owned())),
        (None, None) => Err(std::io::Error::other("the answer makes no sense")),
    }
}

/// Where the socket of a state directory is.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

fn serve_apart(stream: UnixStream, desk: &Desk, serving: &Arc<AtomicUsize>) {
    if serving.fetch_add(1, Ordering::Relaxed) >= MOST_SERVED {
        serving.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let (desk, done) = (desk.clone(), Arc::clone(serving));
    let thread = std::thread::Builder::new().name("egret-control".into()).spawn(move || {
        if let Err(error) = serve(&stream, &desk) {
            tracing::debug!(%error, "a control connection ended early");
        }
        done.fetch_sub(1, Ordering::Relaxed);
    });
    if thread.is_err() {
        serving.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(stream: &UnixStream, desk: &Desk) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE_FOR))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LONGEST_REQUEST).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => match perform(request, desk) {
                Ok(value) => json!({"ok": value}),
                Err(error) => json!({"error": error.to_string()}),
            },
            Err(error) => json!({"error": format!("the request makes no sense: {error}")}),
        };
        let mut writer = stream;
        writer.write_all(format!("{answer}\n").as_bytes())?;
    }
}

fn perform(request: Request, desk: &Desk) -> Result<Json, ControlError> {
    let control = &desk.dispatch;
    Ok(match request {
        Request::Status => {
            let mut status = json!(control.status()?);
            status["watching"] = json!(&**desk.watching.load());
            status
        }
        Request::Alerts { most } => json!(control.alerts(most)?),
        Request::Acknowledge { key, by } => json!(control.acknowledge(&key, &by)?),
        Request::Silences => json!(control.silences()?),
        Request::AddSilence { silence } => json!(control.add_silence(silence)?),
        Request::ExpireSilence { id } => json!(control.expire_silence(&id)?),
        Request::Outbox { state, most } => {
            let deliveries = control.deliveries(state, most)?;
            Json::Array(deliveries.iter().map(|delivery| shown(state, delivery.facts())).collect())
        }
        Request::Delivery { id } => {
            let (state, delivery) = control.delivery(&id)?;
            shown(state, delivery.whole())
        }
        Request::Retry { id: Some(id), .. } => json!(control.retry(Retry::Delivery(id))?),
        Request::Retry { output: Some(output), .. } => json!(control.retry(Retry::Output(output))?),
        Request::Retry { .. } => json!(control.retry(Retry::All)?),
        Request::Drop { id } => json!(control.drop_delivery(&id)?),
        Request::TestOutput { name } => json!(control.test(&name)?),
        Request::Windows { rule, most } => ask_engine(desk, move |engine| {
            let windows = engine.live_windows(rule.as_deref(), most.min(MOST_WINDOWS));
            json!({ "at": engine.windows_at(), "windows": windows })
        })?,
        Request::Exceptions => ask_engine(desk, |engine| {
            let usage = engine.exception_usage();
            Json::Array(usage.map(|(rule, name, usage)| exception(rule, name, usage)).collect())
        })?,
    })
}

/// Lets the engine's own thread look, and waits for what it saw.
fn ask_engine(desk: &Desk, look: impl FnOnce(&Engine) -> Json + Send + 'static) -> Result<Json, ControlError> {
    let engine = desk.engine.as_ref().ok_or(ControlError::NoAnswer)?;
    let (answer, answered) = bounded(1);
    let ask = move |engine: &mut Engine| {
        // Whoever asked may have given up.
        let _ = answer.send(look(engine));
    };
    engine.send(Control::Ask(Box::new(ask))).map_err(|_| ControlError::NoAnswer)?;
    answered.recv_timeout(ENGINE_WITHIN).map_err(|_| ControlError::NoAnswer)
}

fn exception(rule: &str, name: &str, usage: &ExceptionUsage) -> Json {
    json!({
        "rule": rule,
        "exception": name,
        "hits": usage.hits,
        "bytes": usage.bytes,
        "last": usage.last,
        "since": usage.since,
    })
}

fn shown(state: DeliveryState, mut facts: Json) -> Json {
    facts["state"] = json!(state);
    facts
}

/// Connections that are served at once; further ones are closed.
const MOST_SERVED: usize = 16;
const LONGEST_REQUEST: u64 = 1 << 20;
const IDLE_FOR: Duration = Duration::from_secs(60);
/// Windows that are told at once.
const MOST_WINDOWS: usize = 10_000;
/// The engine answers between two ticks.
const ENGINE_WITHIN: Duration = Duration::from_secs(10);
/// A test waits for its receiver.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
