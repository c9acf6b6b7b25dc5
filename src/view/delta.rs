//! A recorded flow delta as one line of JSON, both ways.
//!
//! What is written and read again is what the rules look at, whole: texts
//! that are not UTF-8 are `{"b64": "..."}`. What a line leaves out has its
//! usual value: no bytes, no owner, no name. An unknown key is an error.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bstr::{BString, ByteSlice};
use serde::{Deserialize, Serialize};

use crate::attribution::{
    Ancestor, Attribution, Container, Evidence, Executable, ExecutableKind, Process, ProcessKey, Suspects,
    UnknownReason, User,
};
use crate::engine::FlowDelta;
use crate::flow::{Counters, Direction, FlowEndReason, FlowKey, FlowState, Namespace};
use crate::names::{Application, DestinationName, DnsQuery, NameSource, Place, Trust};
use crate::packet::{Endpoint, Protocol};
use crate::time::Timestamp;
use crate::units::{Bytes, Packets};

/// One line of a recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaLine {
    /// The tick at which it was booked.
    #[serde(default)]
    at: Timestamp,
    /// Which flow of the recording, from 1; 0 where the line does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    flow: u64,
    proto: ProtocolText,
    local_ip: IpAddr,
    #[serde(default)]
    local_port: u16,
    remote_ip: IpAddr,
    #[serde(default)]
    remote_port: u16,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    netns: u32,
    #[serde(default = "outbound")]
    direction: String,
    #[serde(default = "established")]
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_zero")]
    bytes_out: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    bytes_in: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    payload_out: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    payload_in: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    packets_out: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    packets_in: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
    #[serde(default)]
    owner: Option<OwnerLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shared_with: Vec<(u32, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    suspects: Vec<OwnerLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    l7: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain_source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain_trust: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sni: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dns: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_host: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registered_domain: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asn: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    as_org: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    country: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iface: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    question: Option<QuestionLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

/// The program that owns a flow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnerLine {
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    start: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exe: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exe_kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    package: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cmdline: Vec<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cwd: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login_user: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parents: Vec<ParentLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cgroup: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slice: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<ContainerLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParentLine {
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    exe: Option<Text>,
    #[serde(default)]
    cmdline: Vec<Text>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContainerLine {
    id: Arc<str>,
    #[serde(default)]
    runtime: Option<Arc<str>>,
    #[serde(default)]
    name: Option<Arc<str>>,
    #[serde(default)]
    image: Option<Arc<str>>,
    #[serde(default)]
    pod: Option<Arc<str>>,
    #[serde(default)]
    namespace: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<Arc<str>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionLine {
    name: Arc<str>,
    name_bytes: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registered_domain: Option<Arc<str>>,
    /// The flow on which a process asked what a resolver of this host passes on here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    carried_for: Option<EndsLine>,
}

/// The ends of a flow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndsLine {
    proto: ProtocolText,
    local: SocketAddr,
    remote: SocketAddr,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    netns: u32,
}

/// A name, or a number where there is no name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum ProtocolText {
    Number(u8),
    Name(String),
}

/// Bytes as text where they are UTF-8, else in base 64.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Encoded { b64: String },
}

/// Why a line is no delta, although it is JSON of the right shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// A word that means nothing.
    #[error("`{key}` is `{word}`, which is not possible here")]
    Word {
        /// The key.
        key: &'static str,
        /// What stands there.
        word: String,
    },
    /// Not base 64.
    #[error("`b64` is not base 64")]
    Base64,
}

impl DeltaLine {
    /// The line of a delta.
    pub fn of(delta: &FlowDelta) -> Self {
        let FlowDelta { key, counters, .. } = delta;
        let name = delta.name.as_deref().cloned().unwrap_or_default();
        let place = delta.place.as_deref().cloned().unwrap_or_default();
        let shared_with = match delta.attribution.evidence() {
            Some(Evidence::Inherited(others)) => others.iter().map(|other| (other.pid, other.start)).collect(),
            _ => Vec::new(),
        };
        Self {
            at: delta.at,
            flow: delta.flow,
            proto: ProtocolText::of(key.protocol),
            local_ip: key.local.address.ip(),
            local_port: key.local.port,
            remote_ip: key.remote.address.ip(),
            remote_port: key.remote.port,
            netns: key.namespace.0,
            direction: delta.direction.name().to_owned(),
            state: delta.state.name().to_owned(),
            first: Some(delta.first),
            bytes_out: counters.bytes_out.0,
            bytes_in: counters.bytes_in.0,
            payload_out: counters.payload_out.0,
            payload_in: counters.payload_in.0,
            packets_out: counters.packets_out.0,
            packets_in: counters.packets_in.0,
            failed: delta.failed,
            owner: delta.attribution.process().map(|process| OwnerLine::of(process)),
            evidence: delta.attribution.evidence().map(|evidence| evidence.name().to_owned()),
            shared_with,
            unknown_reason: delta.attribution.unknown_reason().map(|reason| reason.name().to_owned()),
            suspects: delta
                .attribution
                .suspects()
                .map(|suspects| suspects.processes.iter().map(|process| OwnerLine::of(process)).collect())
                .unwrap_or_default(),
            l7: (delta.application != Application::Unknown).then(|| delta.application.name().to_owned()),
            domain: name.domain,
            domain_source: name.source.map(|source| source.name().to_owned()),
            domain_trust: delta.name.as_ref().map(|name| name.trust.name().to_owned()),
            sni: name.sni,
            dns: name.dns,
            http_host: name.http_host,
            registered_domain: name.registered_domain,
            asn: place.asn,
            as_org: place.organization,
            country: place.country,
            iface: delta.interface.clone(),
            question: delta.question.as_deref().map(QuestionLine::of),
            end: delta.end.map(|reason| reason.name().to_owned()),
        }
    }

    /// What the line means.
    ///
    /// # Errors
    /// Where a word in it means nothing.
    pub fn into_delta(self) -> Result<FlowDelta, DeltaError> {
        let protocol = self.proto.clone().into_protocol()?;
        let end = |ip: IpAddr, port: u16| Endpoint::new(ip.into(), port);
        let directions = [Direction::Outbound, Direction::Inbound, Direction::Local];
        let states = [FlowState::New, FlowState::Established, FlowState::Closed, FlowState::Failed];
        let name = self.name()?;
        let place = Place { asn: self.asn, organization: self.as_org.clone(), country: self.country.clone() };
        Ok(FlowDelta {
            at: self.at,
            flow: self.flow,
            key: FlowKey {
                protocol,
                local: end(self.local_ip, self.local_port),
                remote: end(self.remote_ip, self.remote_port),
                namespace: Namespace(self.netns),
            },
            direction: pick("direction", &self.direction, &directions, |known| known.name())?,
            state: pick("state", &self.state, &states, |known| known.name())?,
            first: self.first.unwrap_or(self.at),
            counters: Counters {
                bytes_out: Bytes(self.bytes_out),
                bytes_in: Bytes(self.bytes_in),
                payload_out: Bytes(self.payload_out),
                payload_in: Bytes(self.payload_in),
                packets_out: Packets(self.packets_out),
                packets_in: Packets(self.packets_in),
            },
            failed: self.failed,
            name: name.map(Arc::new),
            place: (place != Place::default()).then(|| Arc::new(place)),
            application: match &self.l7 {
                Some(text) => pick("l7", text, Application::ALL, |known| known.name())?,
                None => Application::Unknown,
            },
            interface: self.iface.clone(),
            end: match &self.end {
                Some(text) => Some(pick("end", text, &END_REASONS, |known| known.name())?),
                None => None,
            },
            question: self.question.clone().map(QuestionLine::into_query).transpose()?.map(Arc::new),
            attribution: self.attribution()?,
        })
    }

    fn name(&self) -> Result<Option<DestinationName>, DeltaError> {
        let sources = [NameSource::Sni, NameSource::Quic, NameSource::Dns, NameSource::Http];
        let trusts = [Trust::Agreed, Trust::Single, Trust::Unconfirmed, Trust::None];
        let name = DestinationName {
            domain: self.domain.clone(),
            source: match &self.domain_source {
                Some(text) => Some(pick("domain_source", text, &sources, |known| known.name())?),
                None => None,
            },
            trust: match &self.domain_trust {
                Some(text) => pick("domain_trust", text, &trusts, |known| known.name())?,
                None => Trust::None,
            },
            sni: self.sni.clone(),
            dns: self.dns.clone(),
            http_host: self.http_host.clone(),
            registered_domain: self.registered_domain.clone(),
        };
        Ok((self.domain_trust.is_some() || name != DestinationName::default()).then_some(name))
    }

    fn attribution(self) -> Result<Attribution, DeltaError> {
        let Some(owner) = self.owner else {
            let reason = match &self.unknown_reason {
                Some(text) => pick("unknown_reason", text, &UnknownReason::ALL, |known| known.name())?,
                None => UnknownReason::NoSource,
            };
            if self.suspects.is_empty() {
                return Ok(Attribution::Unknown(reason));
            }
            let processes = self.suspects.into_iter().map(|owner| owner.into_process().map(Arc::new));
            let suspects = Suspects::new(reason, processes.collect::<Result<_, _>>()?);
            return Ok(Attribution::Suspected(Arc::new(suspects)));
        };
        let others: Arc<[ProcessKey]> =
            self.shared_with.iter().map(|&(pid, start)| ProcessKey { pid, start }).collect();
        let evidence = [
            Evidence::Kernel,
            Evidence::Exact,
            Evidence::Wildcard,
            Evidence::Inherited(others),
            Evidence::Listener,
            Evidence::Carrier,
            Evidence::Capture,
            Evidence::Declared,
        ];
        let evidence = match &self.evidence {
            Some(text) => pick("evidence", text, &evidence, |known| known.name())?,
            None => Evidence::Declared,
        };
        Ok(Attribution::Known { process: Arc::new(owner.into_process()?), evidence })
    }
}

impl OwnerLine {
    fn of(process: &Process) -> Self {
        let executable = process.executable.as_ref();
        let user = process.user.clone().unwrap_or_default();
        let login_user = process.login_user.clone().unwrap_or_default();
        Self {
            pid: process.key.pid,
            start: process.key.start,
            exe: executable.map(|executable| Text::of(&executable.path)),
            exe_kind: executable.map(|executable| executable.kind.name().to_owned()),
            inode: executable.and_then(|executable| executable.inode),
            sha256: executable.and_then(|executable| executable.sha256.clone()),
            package: executable.and_then(|executable| executable.package.clone()),
            cmdline: process.command_line.iter().map(Text::of).collect(),
            cwd: process.working_directory.as_ref().map(Text::of),
            uid: user.uid,
            user: user.name,
            gid: process.gid,
            group: process.group.clone(),
            auid: login_user.uid,
            login_user: login_user.name,
            parents: process.ancestors.iter().map(ParentLine::of).collect(),
            cgroup: process.cgroup.clone(),
            unit: process.unit.clone(),
            slice: process.slice.clone(),
            container: process.container.as_ref().map(ContainerLine::of),
            netns: process.network_namespace,
            started_at: process.started_at,
        }
    }

    fn into_process(self) -> Result<Process, DeltaError> {
        let kinds = [
            ExecutableKind::File,
            ExecutableKind::Deleted,
            ExecutableKind::Memfd,
            ExecutableKind::Kernel,
            ExecutableKind::Unknown,
        ];
        let kind = match &self.exe_kind {
            Some(text) => pick("exe_kind", text, &kinds, |known| known.name())?,
            None => ExecutableKind::File,
        };
        let executable = match self.exe {
            Some(path) => {
                let (inode, sha256, package) = (self.inode, self.sha256, self.package);
                Some(Executable { path: path.into_bytes()?, kind, inode, sha256, package })
            }
            None => None,
        };
        let user =
            |uid: Option<u32>, name: Option<Arc<str>>| (uid.is_some() || name.is_some()).then_some(User { uid, name });
        Ok(Process {
            key: ProcessKey { pid: self.pid, start: self.start },
            executable,
            command_line: texts(self.cmdline)?,
            working_directory: self.cwd.map(Text::into_bytes).transpose()?,
            user: user(self.uid, self.user),
            gid: self.gid,
            group: self.group,
            login_user: user(self.auid, self.login_user),
            ancestors: self.parents.into_iter().map(ParentLine::into_ancestor).collect::<Result<_, _>>()?,
            cgroup: self.cgroup,
            unit: self.unit,
            slice: self.slice,
            container: self.container.map(ContainerLine::into_container),
            network_namespace: self.netns,
            started_at: self.started_at,
        })
    }
}

impl ParentLine {
    fn of(ancestor: &Ancestor) -> Self {
        Self {
            pid: ancestor.pid,
            exe: ancestor.executable.as_ref().map(Text::of),
            cmdline: ancestor.command_line.iter().map(Text::of).collect(),
        }
    }

    fn into_ancestor(self) -> Result<Ancestor, DeltaError> {
        Ok(Ancestor {
            pid: self.pid,
            executable: self.exe.map(Text::into_bytes).transpose()?,
            command_line: texts(self.cmdline)?,
        })
    }
}

impl ContainerLine {
    fn of(container: &Container) -> Self {
        let Container { id, runtime, name, image, pod, namespace, labels } = container.clone();
        Self { id, runtime, name, image, pod, namespace, labels }
    }

    fn into_container(self) -> Container {
        let Self { id, runtime, name, image, pod, namespace, labels } = self;
        Container { id, runtime, name, image, pod, namespace, labels }
    }
}

impl QuestionLine {
    fn of(query: &DnsQuery) -> Self {
        let DnsQuery { name, name_bytes, registered_domain, carried_for } = query.clone();
        Self { name, name_bytes, registered_domain, carried_for: carried_for.as_ref().map(EndsLine::of) }
    }

    fn into_query(self) -> Result<DnsQuery, DeltaError> {
        let Self { name, name_bytes, registered_domain, carried_for } = self;
        let carried_for = carried_for.map(EndsLine::into_key).transpose()?;
        Ok(DnsQuery { name, name_bytes, registered_domain, carried_for })
    }
}

impl EndsLine {
    fn of(key: &FlowKey) -> Self {
        let end = |end: Endpoint| SocketAddr::new(end.address.ip(), end.port);
        Self {
            proto: ProtocolText::of(key.protocol),
            local: end(key.local),
            remote: end(key.remote),
            netns: key.namespace.0,
        }
    }

    fn into_key(self) -> Result<FlowKey, DeltaError> {
        let (local, remote) = (self.local.into(), self.remote.into());
        Ok(FlowKey { protocol: self.proto.into_protocol()?, local, remote, namespace: Namespace(self.netns) })
    }
}

impl ProtocolText {
    fn of(protocol: Protocol) -> Self {
        match protocol.name() {
            Some(name) => Self::Name(name.to_owned()),
            None => Self::Number(protocol.0),
        }
    }

    fn into_protocol(self) -> Result<Protocol, DeltaError> {
        match self {
            Self::Number(number) => Ok(Protocol(number)),
            Self::Name(name) => Protocol::from_name(&name).ok_or_else(|| word("proto", &name)),
        }
    }
}

impl Text {
    fn of(bytes: &BString) -> Self {
        match bytes.to_str() {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Encoded { b64: STANDARD.encode(bytes) },
        }
    }

    fn into_bytes(self) -> Result<BString, DeltaError> {
        match self {
            Self::Plain(text) => Ok(text.into()),
            Self::Encoded { b64 } => STANDARD.decode(b64).map(BString::from).map_err(|_| DeltaError::Base64),
        }
    }
}

fn texts(list: Vec<Text>) -> Result<Vec<BString>, DeltaError> {
    list.into_iter().map(Text::into_bytes).collect()
}

fn pick<T: Clone>(
    key: &'static str,
    text: &str,
    known: &[T],
    name: impl Fn(&T) -> &'static str,
) -> Result<T, DeltaError> {
    known.iter().find(|value| name(value) == text).cloned().ok_or_else(|| word(key, text))
}

fn word(key: &'static str, text: &str) -> DeltaError {
    DeltaError::Word { key, word: text.to_owned() }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

fn outbound() -> String {
    Direction::Outbound.name().to_owned()
}

fn established() -> String {
    FlowState::Established.name().to_owned()
}

const END_REASONS: [FlowEndReason; 5] = [
    FlowEndReason::IdleTimeout,
    FlowEndReason::ActiveTimeout,
    FlowEndReason::EndOfFlow,
    FlowEndReason::ForcedEnd,
    FlowEndReason::LackOfResources,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_rule_can_look_at_survives() {
        let line = r#"{"at":"2026-05-04T02:00:01.000000000Z","flow":7,"proto":"udp","local_ip":"10.0.0.5","local_port":40000,"remote_ip":"203.0.113.53","remote_port":53,"netns":4026531840,"direction":"outbound","state":"new","first":"2026-05-04T02:00:00.500000000Z","bytes_out":120,"payload_out":92,"packets_out":2,"failed":true,"owner":{"pid":4121,"start":99,"exe":{"b64":"L3RtcC//"},"exe_kind":"deleted","inode":7,"sha256":"ab","package":"x","cmdline":["dig","a b"],"cwd":"/","uid":1000,"user":"alice","gid":100,"group":"users","auid":1001,"login_user":"bob","parents":[{"pid":1,"exe":"/sbin/init","cmdline":["init"]}],"cgroup":"/a","unit":"a.service","slice":"s.slice","container":{"id":"c1","runtime":"podman","name":"n","image":"i","pod":"p","namespace":"ns","labels":["app=web"]},"netns":5,"started_at":"2026-05-04T01:00:00.000000000Z"},"evidence":"inherited","shared_with":[[9,8]],"l7":"dns","domain":"a.example","domain_source":"dns","domain_trust":"single","dns":"a.example","registered_domain":"a.example","asn":64500,"as_org":"Org","country":"DE","iface":"wwan0","question":{"name":"b.example","name_bytes":11,"registered_domain":"b.example","carried_for":{"proto":"udp","local":"127.0.0.1:40001","remote":"127.0.0.53:53"}},"end":"idle_timeout"}"#;
        let read: DeltaLine = serde_json::from_str(line).unwrap();
        let delta = read.into_delta().unwrap();
        assert_eq!(serde_json::to_string(&DeltaLine::of(&delta)).unwrap(), line);
    }

    #[test]
    fn what_is_left_out_has_its_usual_value() {
        let line = r#"{"proto":"tcp","local_ip":"10.0.0.5","remote_ip":"203.0.113.7","remote_port":443,"bytes_out":5}"#;
        let delta = serde_json::from_str::<DeltaLine>(line).unwrap().into_delta().unwrap();
        assert_eq!((delta.counters.bytes_out, delta.direction), (Bytes(5), Direction::Outbound));
        assert!(delta.attribution.process().is_none() && delta.name.is_none());
        let bad = line.replace("\"tcp\"", "\"tpc\"");
        let error = serde_json::from_str::<DeltaLine>(&bad).unwrap().into_delta().unwrap_err();
        assert_eq!(error.to_string(), "`proto` is `tpc`, which is not possible here");
        assert!(serde_json::from_str::<DeltaLine>(&line.replace("bytes_out", "byte_out")).is_err());
    }
}
