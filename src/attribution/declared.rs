//! Owners that a file declares: one JSON object a line and flow (`--owners`).
//!
//! A line says who owned a five-tuple from one moment to another. It names
//! the local end, so a packet that matches also learns which way it went.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bstr::{BString, ByteSlice};
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::attribution::{Executable, ExecutableKind, Process, ProcessKey, User};
use crate::packet::{Address, Endpoint, FiveTuple, FrameDirection, Protocol};
use crate::time::Timestamp;

/// The owners that a file declares.
#[derive(Debug, Default)]
pub struct DeclaredOwners {
    /// Five-tuples with the local end as their source.
    flows: HashMap<FiveTuple, SmallVec<[Declaration; 1]>>,
}

/// Whom a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeclaredOwner<'a> {
    /// The owner.
    pub process: &'a Arc<Process>,
    /// The way the packet went, as the declaration tells the local end.
    pub direction: FrameDirection,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {problem}", column.map(|column| format!(", column {column}")).unwrap_or_default())]
pub struct DeclarationError {
    /// Which line, from 1.
    pub line: usize,
    /// Where in the line, from 1.
    pub column: Option<usize>,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Debug)]
struct Declaration {
    from: Timestamp,
    /// The first moment that is no longer meant.
    to: Timestamp,
    process: Arc<Process>,
}

/// A line as written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    proto: ProtocolName,
    local: String,
    remote: String,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    pid: Option<u32>,
    exe: Option<String>,
    cmdline: Option<Vec<String>>,
    uid: Option<u32>,
    user: Option<Arc<str>>,
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected the name or the number of a protocol")]
enum ProtocolName {
    Number(u8),
    Name(String),
}

impl DeclaredOwners {
    /// Reads a file's content; every line that is wrong is told, not only the first.
    pub fn parse(content: &[u8]) -> Result<Self, Vec<DeclarationError>> {
        let mut owners = Self::default();
        let mut errors = Vec::new();
        for (number, line) in (1..).zip(content.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Line>(line).map_err(Wrong::from).and_then(Line::compile) {
                Ok((tuple, declaration)) => owners.flows.entry(tuple).or_default().push(declaration),
                Err(Wrong { column, problem }) => errors.push(DeclarationError { line: number, column, problem }),
            }
        }
        if errors.is_empty() { Ok(owners) } else { Err(errors) }
    }

    /// Who owned a packet's flow at that moment. `way` is what the capture
    /// says, if it says anything: between two processes of one host both ends
    /// are local, and it tells which of the two is meant.
    pub fn owner(&self, tuple: &FiveTuple, way: Option<FrameDirection>, at: Timestamp) -> Option<DeclaredOwner<'_>> {
        let reversed = FiveTuple { protocol: tuple.protocol, source: tuple.destination, destination: tuple.source };
        let sent = || Some(DeclaredOwner { process: self.local(tuple, at)?, direction: FrameDirection::Out });
        let received = || Some(DeclaredOwner { process: self.local(&reversed, at)?, direction: FrameDirection::In });
        match way {
            None | Some(FrameDirection::Out) => sent().or_else(received),
            Some(FrameDirection::In) => received().or_else(sent),
        }
    }

    /// How many flows have an owner.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Of several declarations the one that began last.
    fn local(&self, tuple: &FiveTuple, at: Timestamp) -> Option<&Arc<Process>> {
        let declarations = self.flows.get(tuple)?.iter();
        let valid = declarations.filter(|declaration| declaration.from <= at && at < declaration.to);
        valid.max_by_key(|declaration| declaration.from).map(|declaration| &declaration.process)
    }
}

/// What is wrong with a line, before its number is known.
struct Wrong {
    column: Option<usize>,
    problem: String,
}

impl Line {
    fn compile(self) -> Result<(FiveTuple, Declaration), Wrong> {
        let protocol = self.proto.compile()?;
        let source = endpoint("local", &self.local, protocol)?;
        let destination = endpoint("remote", &self.remote, protocol)?;
        let from = self.from.unwrap_or(Timestamp::from_nanos(i64::MIN));
        let to = self.to.unwrap_or(Timestamp::from_nanos(i64::MAX));
        if to <= from {
            return Err(Wrong::new("`to` is not later than `from`"));
        }
        if self.pid == Some(0) {
            return Err(Wrong::new("`pid` 0 is no process; leave it out if it is not known"));
        }
        let user = (self.uid.is_some() || self.user.is_some()).then_some(User { uid: self.uid, name: self.user });
        let process = Process {
            key: ProcessKey { pid: self.pid.unwrap_or_default(), start: 0 },
            executable: self.exe.map(|path| Executable {
                path: path.into(),
                kind: ExecutableKind::Unknown,
                ..Executable::default()
            }),
            command_line: self.cmdline.into_iter().flatten().map(BString::from).collect(),
            user,
            ..Process::default()
        };
        let tuple = FiveTuple { protocol, source, destination };
        Ok((tuple, Declaration { from, to, process: Arc::new(process) }))
    }
}

impl ProtocolName {
    fn compile(self) -> Result<Protocol, Wrong> {
        let name = match self {
            Self::Number(number) => return Ok(Protocol(number)),
            Self::Name(name) => name,
        };
        Protocol::from_name(&name)
            .or_else(|| name.parse().ok().map(Protocol))
            .ok_or_else(|| Wrong::new(format!("`proto` is not a protocol: `{name}`")))
    }
}

impl Wrong {
    fn new(problem: impl Into<String>) -> Self {
        Self { column: None, problem: problem.into() }
    }
}

impl From<serde_json::Error> for Wrong {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        // Each line is parsed by itself, so the parser's own line number is always 1.
        let problem = text.split_once(" at line ").map_or(text.as_str(), |(problem, _)| problem).to_owned();
        Self { column: (error.column() > 0).then_some(error.column()), problem }
    }
}

/// `203.0.113.7:443`, `[2001:db8::1]:443`; the address alone where the protocol has no ports.
fn endpoint(key: &str, text: &str, protocol: Protocol) -> Result<Endpoint, Wrong> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok(Endpoint::from(socket));
    }
    let expected = if protocol.has_ports() { "an address with a port" } else { "an address" };
    match text.parse::<IpAddr>() {
        Ok(ip) if !protocol.has_ports() => Ok(Endpoint::new(Address::from(ip), 0)),
        _ => Err(Wrong::new(format!("`{key}` is not {expected}: `{text}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_either_direction_finds_its_owner() {
        let owners = parse(RCLONE).unwrap();
        let (tuple, reversed) =
            (tuple("10.0.0.5:51544", "203.0.113.7:443"), tuple("203.0.113.7:443", "10.0.0.5:51544"));
        let sent = owners.owner(&tuple, None, at("2026-05-04T02:00:00Z")).unwrap();
        assert_eq!((sent.process.key.pid, sent.direction), (4121, FrameDirection::Out));
        assert_eq!(sent.process.command_line, ["rclone", "copy", "/srv", "remote:"]);
        assert_eq!(sent.process.user.as_ref().unwrap().name.as_deref(), Some("alice"));
        let received = owners.owner(&reversed, None, at("2026-05-04T02:00:00Z")).unwrap();
        assert_eq!((received.process.key.pid, received.direction), (4121, FrameDirection::In));
    }

    #[test]
    fn a_reused_port_has_an_owner_for_each_time() {
        let owners = parse(
            r#"{"proto":"tcp","local":"10.0.0.5:1","remote":"10.0.0.6:2","to":"2026-05-04T02:00:00Z","pid":1}
               {"proto":6,"local":"10.0.0.5:1","remote":"10.0.0.6:2","from":"2026-05-04T02:00:00Z","to":"2026-05-04T03:00:00Z","pid":2}"#,
        )
        .unwrap();
        let tuple = tuple("10.0.0.5:1", "10.0.0.6:2");
        let pid = |moment| owners.owner(&tuple, None, at(moment)).map(|owner| owner.process.key.pid);
        assert_eq!(pid("2026-05-04T01:59:59Z"), Some(1));
        assert_eq!(pid("2026-05-04T02:00:00Z"), Some(2));
        assert_eq!(pid("2026-05-04T03:00:00Z"), None);
    }

    #[test]
    fn between_two_local_processes_the_capture_tells_which() {
        let owners = parse(
            r#"{"proto":"tcp","local":"127.0.0.1:5000","remote":"127.0.0.1:80","pid":1,"exe":"/usr/bin/curl"}
               {"proto":"tcp","local":"127.0.0.1:80","remote":"127.0.0.1:5000","pid":2,"exe":"/usr/sbin/nginx"}"#,
        )
        .unwrap();
        let request = tuple("127.0.0.1:5000", "127.0.0.1:80");
        let pid = |way| owners.owner(&request, way, Timestamp::EPOCH).unwrap().process.key.pid;
        assert_eq!(pid(Some(FrameDirection::Out)), 1);
        assert_eq!(pid(Some(FrameDirection::In)), 2);
    }

    #[test]
    fn all_wrong_lines_are_told_at_once() {
        let errors = parse(
            r#"{"proto":"tcp","local":"10.0.0.5","remote":"10.0.0.6:2"}

{"proto":"tcp","local":"10.0.0.5:1","remote":"10.0.0.6:2","process":"curl"}
{"proto":"quic","local":"10.0.0.5:1","remote":"10.0.0.6:2"}
{"proto":"tcp","local":"10.0.0.5:1"
{"proto":"icmp","local":"10.0.0.5","remote":"10.0.0.6","pid":7}
{"proto":"tcp","local":"10.0.0.5:1","remote":"10.0.0.6:2","from":"2026-05-04T02:00:00Z","to":"2026-05-04T01:00:00Z"}
{"proto":"tcp","local":"10.0.0.5:1","remote":"10.0.0.6:2","from":"yesterday"}"#,
        )
        .unwrap_err();
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 7, 8]);
        let text = |index: usize| errors[index].to_string();
        assert_eq!(text(0), "line 1: `local` is not an address with a port: `10.0.0.5`");
        assert!(text(1).starts_with("line 3, column 67: unknown field `process`"), "{}", text(1));
        assert_eq!(text(2), "line 4: `proto` is not a protocol: `quic`");
    }

    const RCLONE: &str = r#"{"proto":"tcp","local":"10.0.0.5:51544","remote":"203.0.113.7:443","from":"2026-05-04T02:00:00Z","to":null,"pid":4121,"exe":"/usr/bin/rclone","cmdline":["rclone","copy","/srv","remote:"],"uid":1000,"user":"alice"}"#;

    fn parse(text: &str) -> Result<DeclaredOwners, Vec<DeclarationError>> {
        DeclaredOwners::parse(text.as_bytes())
    }

    fn tuple(source: &str, destination: &str) -> FiveTuple {
        let endpoint = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
        FiveTuple { protocol: Protocol::TCP, source: endpoint(source), destination: endpoint(destination) }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }
}
