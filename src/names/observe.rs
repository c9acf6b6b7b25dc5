//! Learns names from the payloads of flows, and says what a flow's remote end is called.
//!
//! A flow is read only at its start; DNS is read throughout. Most packets
//! belong to flows that are done, which [`FlowNames::wants`] tells in one comparison.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::attribution::{Attribution, ProcessKey};
use crate::flow::{Direction, FlowKey, Scope};
use crate::names::application::{Ports, recognise};
use crate::names::stream::Stream;
use crate::names::table::{Binding, NameCounts, NameTable, lifetime};
use crate::names::tls::ClientHello;
use crate::names::{Application, DestinationName, NameSource, Trust, dns, http, quic, registered_domain, tls};
use crate::packet::{FrameDirection, Protocol};
use crate::time::Timestamp;

/// The reader of names: one for all flows.
#[derive(Debug)]
pub struct Names {
    table: NameTable,
    /// Every open reader holds a clone, so that their number is known.
    readers: Arc<()>,
    /// Names that a process of this host asked a resolver of this host for.
    asked_here: HashMap<Arc<str>, AskedHere, RandomState>,
    carried: u64,
    losses: NameLosses,
}

/// What the engine keeps of a flow's names.
#[derive(Debug, Default)]
pub struct FlowNames {
    stage: Stage,
    application: Application,
    /// Payloads that were looked at.
    looked: u8,
    /// What most flows do without.
    learnt: Option<Box<Learnt>>,
}

/// What was learnt of a flow's names, and what is still being read.
#[derive(Debug, Default)]
struct Learnt {
    questions: Questions,
    name: Option<Arc<DestinationName>>,
    said: Option<Said>,
    reader: Option<Box<Reader>>,
}

/// A payload in its flow.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Which flow.
    pub key: &'a FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// The way the payload went.
    pub way: FrameDirection,
    /// Whether the flow was seen from its start.
    pub from_start: bool,
    /// The number of its first octet in a TCP stream.
    pub sequence: u32,
    /// As much of it as was captured.
    pub payload: &'a [u8],
    /// Whose flow it is, where that is known.
    pub owner: Option<ProcessKey>,
    /// When it passed.
    pub now: Timestamp,
}

/// A payload that a source reports apart from what it counts.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    /// The flow it passed on.
    pub key: &'a FlowKey,
    /// The way it went.
    pub way: FrameDirection,
    /// Whose flow it is.
    pub attribution: &'a Attribution,
    /// When it passed.
    pub timestamp: Timestamp,
    /// The number of its first octet in a TCP stream.
    pub sequence: u32,
    /// Its first octets.
    pub bytes: &'a [u8],
}

/// A question to a resolver of this host.
#[derive(Debug, Clone, Copy)]
struct AskedHere {
    at: Timestamp,
    /// The flow on which it was asked, by the process that wanted to know.
    by: FlowKey,
}

/// What a payload told.
#[derive(Debug, Default)]
pub struct Found {
    /// Whether the flow's name or application is another one than before.
    pub changed: bool,
    /// Questions that this host asked.
    pub questions: SmallVec<[DnsQuery; 1]>,
}

/// A DNS question that a process asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsQuery {
    /// The name asked for, lower case, without a trailing dot.
    pub name: Arc<str>,
    /// The octets of the name, dots included.
    pub name_bytes: u16,
    /// Its registered domain by the public suffix list.
    pub registered_domain: Option<Arc<str>>,
    /// Where a resolver of this host passes on what a process asked it: the flow on which that process did.
    pub carried_for: Option<FlowKey>,
}

/// What bounds cost, and what the table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct NameStatistics {
    /// The table of DNS answers.
    #[serde(flatten)]
    pub table: NameCounts,
    /// What was not read.
    #[serde(flatten)]
    pub losses: NameLosses,
    /// Questions that a resolver of this host passed on for a process, whose they are.
    pub questions_carried: u64,
}

/// What was not read, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct NameLosses {
    /// Starts of flows that were not put together because too many are under way.
    pub readers_refused: u64,
    /// DNS messages that could not be read, or not to their end.
    pub dns_unreadable: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// The start is being read.
    #[default]
    Start,
    /// A conversation in the clear that may change to TLS.
    Plain,
    /// DNS, read to the end.
    Dns,
    /// Nothing more to learn.
    Done,
}

/// What this host said the remote end is.
#[derive(Debug, Clone, Default)]
struct Said {
    sni: Option<Arc<str>>,
    http_host: Option<Arc<str>>,
    /// A proxy was told the destination, so that the address is another's.
    proxied: bool,
}

/// What is put together from several payloads.
#[derive(Debug)]
struct Reader {
    kind: ReaderKind,
    _token: Arc<()>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a reader is boxed, lives for a few packets, and is bounded in number")]
enum ReaderKind {
    Stream(Stream),
    Quic(quic::Opener),
    DnsOverTcp {
        out: Stream,
        back: Stream,
    },
    /// Answers whose asker is not known yet.
    Answers(Vec<Binding>),
}

/// The questions that a flow is waiting to have answered.
#[derive(Debug, Clone, Copy, Default)]
struct Questions {
    /// The last two: resolvers ask for both families at once.
    last: [Option<u16>; 2],
    /// There were more.
    many: bool,
}

impl FlowNames {
    /// Whether the flow's payloads still tell something.
    #[inline]
    pub fn wants(&self) -> bool {
        self.stage != Stage::Done
    }

    /// What is spoken.
    pub fn application(&self) -> Application {
        self.application
    }

    /// What the remote end is called.
    pub fn name(&self) -> Option<&Arc<DestinationName>> {
        self.learnt.as_ref()?.name.as_ref()
    }

    fn finish(&mut self) {
        self.stage = Stage::Done;
        if let Some(learnt) = &mut self.learnt {
            learnt.reader = None;
        }
        self.learnt.take_if(|learnt| learnt.name.is_none() && learnt.said.is_none());
    }

    fn learnt(&mut self) -> &mut Learnt {
        self.learnt.get_or_insert_default()
    }

    fn said(&mut self) -> &mut Said {
        self.learnt().said.get_or_insert_default()
    }

    fn reader(&mut self) -> Option<&mut Reader> {
        self.learnt.as_mut()?.reader.as_deref_mut()
    }

    fn has_reader(&self) -> bool {
        self.learnt.as_ref().is_some_and(|learnt| learnt.reader.is_some())
    }

    fn take_reader(&mut self) -> Option<Box<Reader>> {
        self.learnt.as_mut()?.reader.take()
    }
}

impl Payload<'_> {
    /// Whether it is of a flow of DNS.
    pub fn is_dns(&self) -> bool {
        self.key.is_dns()
    }
}

impl Names {
    /// Holds at most `limit` names of addresses.
    pub fn new(limit: usize) -> Self {
        Self {
            table: NameTable::new(limit),
            readers: Arc::new(()),
            asked_here: HashMap::default(),
            carried: 0,
            losses: NameLosses::default(),
        }
    }

    /// What is held, and what bounds cost.
    pub fn statistics(&self) -> NameStatistics {
        NameStatistics { table: self.table.counts(), losses: self.losses, questions_carried: self.carried }
    }

    /// The name of a flow that was just opened, from earlier answers. Says whether there is one.
    pub fn open(&mut self, flow: &mut FlowNames, key: &FlowKey, owner: Option<ProcessKey>, now: Timestamp) -> bool {
        if !matches!(key.protocol, Protocol::TCP | Protocol::UDP) {
            flow.finish();
        }
        self.describe(flow, key, owner, now)
    }

    /// Takes in whose flow it is. Says whether its name is another one for this owner.
    pub fn attribute(&mut self, flow: &mut FlowNames, key: &FlowKey, owner: ProcessKey, now: Timestamp) -> bool {
        let reader = flow.learnt.as_mut().map(|learnt| &mut learnt.reader);
        let answers = reader.and_then(|reader| reader.take_if(|reader| matches!(reader.kind, ReaderKind::Answers(_))));
        if let Some(reader) = answers
            && let ReaderKind::Answers(bindings) = reader.kind
        {
            for binding in bindings {
                self.table.learn(&Binding { owner: Some(owner), ..binding });
            }
        }
        self.describe(flow, key, Some(owner), now)
    }

    /// Takes in a payload that [`FlowNames::wants`] asked for.
    pub fn observe(&mut self, flow: &mut FlowNames, segment: &Segment<'_>) -> Found {
        let mut found = Found::default();
        if segment.payload.is_empty() || !flow.wants() {
            return found;
        }
        let before = flow.application;
        let said_something = match flow.stage {
            Stage::Dns => self.read_dns(flow, segment, &mut found),
            Stage::Start if segment.key.is_dns() => {
                flow.stage = Stage::Dns;
                self.read_dns(flow, segment, &mut found)
            }
            Stage::Start | Stage::Plain => self.read_start(flow, segment),
            Stage::Done => false,
        };
        found.changed = flow.application != before;
        if said_something {
            found.changed |= self.describe(flow, segment.key, segment.owner, segment.now);
        }
        found
    }

    /// Reads the start of a flow. Says whether this host named the remote end.
    fn read_start(&mut self, flow: &mut FlowNames, segment: &Segment<'_>) -> bool {
        flow.looked += 1;
        if flow.looked > MAX_LOOKS {
            flow.finish();
            return false;
        }
        let of_initiator = (segment.way == FrameDirection::Out) == (segment.direction != Direction::Inbound);
        let seen = recognise(segment.key.protocol, ports(segment), segment.payload);
        if flow.application == Application::Unknown {
            flow.application = seen;
        }
        // Who names the server of a flow that came in names this host.
        if segment.direction == Direction::Inbound || !of_initiator {
            let settled = !matches!(flow.application, Application::Unknown | Application::Smtp | Application::Ftp);
            if settled && segment.direction == Direction::Inbound {
                flow.finish();
            }
            return false;
        }
        match segment.key.protocol {
            Protocol::TCP => self.read_stream(flow, segment),
            _ if seen == Application::Quic => self.read_quic(flow, segment),
            _ => {
                let waits_for_quic = flow.application == Application::Quic && flow.has_reader();
                if flow.looked >= MAX_DATAGRAMS && !waits_for_quic || seen != Application::Unknown {
                    flow.finish();
                }
                false
            }
        }
    }

    /// Reads what the initiator of a TCP connection says first.
    fn read_stream(&mut self, flow: &mut FlowNames, segment: &Segment<'_>) -> bool {
        if flow.stage == Stage::Plain && !flow.has_reader() && !tls::begins_client_hello(segment.payload) {
            return false;
        }
        let mut reader = flow.take_reader();
        let start = match reader.as_mut().map(|reader| &mut reader.kind) {
            Some(ReaderKind::Stream(stream)) => {
                stream.add_segment(segment.sequence, segment.payload);
                stream.start()
            }
            _ => segment.payload,
        };
        let reading = Reading::of(start, &mut flow.application);
        let full =
            matches!(reader.as_deref(), Some(Reader { kind: ReaderKind::Stream(stream), .. }) if stream.is_full());
        match reading {
            Reading::Hello(hello) if hello.server_name.is_some() || hello.complete || full => {
                let named = hello.server_name.map(|name| flow.said().sni = Some(name.into())).is_some();
                flow.finish();
                named
            }
            Reading::Request(request) if request.host.is_some() || request.complete || full => {
                let named = request.host.is_some();
                let said = flow.said();
                said.http_host = request.host.map(Into::into);
                said.proxied = request.is_proxied;
                match request.is_tunnel {
                    // What follows the proxy's answer is between this host and the destination.
                    true => flow.stage = Stage::Plain,
                    false => flow.finish(),
                }
                named
            }
            Reading::Conversation => {
                flow.stage = Stage::Plain;
                false
            }
            Reading::Nothing => {
                flow.finish();
                false
            }
            _ if full || flow.looked >= MAX_SEGMENTS => {
                flow.finish();
                false
            }
            Reading::Unknown if flow.looked >= MAX_UNKNOWN => {
                flow.finish();
                false
            }
            // From the middle of a connection that is older than the capture: no piece of its start.
            Reading::Unknown if !segment.from_start && flow.application == Application::Unknown && reader.is_none() => {
                false
            }
            Reading::Hello(_) | Reading::Request(_) | Reading::Unknown => {
                flow.learnt().reader = reader.or_else(|| {
                    let mut stream = Stream::default();
                    stream.add_segment(segment.sequence, segment.payload);
                    self.reader(ReaderKind::Stream(stream))
                });
                if !flow.has_reader() {
                    flow.finish();
                }
                false
            }
        }
    }

    fn read_quic(&mut self, flow: &mut FlowNames, segment: &Segment<'_>) -> bool {
        if !flow.has_reader() {
            flow.learnt().reader = self.reader(ReaderKind::Quic(quic::Opener::default()));
        }
        let Some(Reader { kind: ReaderKind::Quic(opener), .. }) = flow.reader() else {
            flow.finish();
            return false;
        };
        let hello = opener.read(segment.payload);
        let exhausted = opener.is_exhausted();
        match hello {
            Some(ClientHello { server_name: Some(name), .. }) => {
                flow.said().sni = Some(name.into());
                flow.finish();
                return true;
            }
            Some(ClientHello { complete: true, .. }) => flow.finish(),
            _ if exhausted => flow.finish(),
            _ => {}
        }
        false
    }

    /// Reads DNS messages. Says whether this host named the remote end, which these never do.
    fn read_dns(&mut self, flow: &mut FlowNames, segment: &Segment<'_>, found: &mut Found) -> bool {
        if segment.key.protocol != Protocol::TCP {
            self.read_message(flow, segment, segment.payload, found);
            return false;
        }
        if !flow.has_reader() {
            flow.learnt().reader =
                self.reader(ReaderKind::DnsOverTcp { out: Stream::default(), back: Stream::default() });
        }
        let Some(mut reader) = flow.take_reader() else {
            flow.finish();
            return false;
        };
        if let ReaderKind::DnsOverTcp { out, back } = &mut reader.kind {
            let stream = if segment.way == FrameDirection::Out { out } else { back };
            stream.add_segment(segment.sequence, segment.payload);
            while let Some((message, length)) = message_over_tcp(stream.start()) {
                self.read_message(flow, segment, message, found);
                stream.consume(length);
            }
            if stream.is_full() {
                flow.finish();
                return false;
            }
        }
        if flow.wants() {
            flow.learnt().reader = Some(reader);
        }
        false
    }

    fn read_message(&mut self, flow: &mut FlowNames, segment: &Segment<'_>, bytes: &[u8], found: &mut Found) {
        let Some(message) = dns::Message::read(bytes) else {
            self.losses.dns_unreadable += 1;
            flow.looked = flow.looked.saturating_add(1);
            if flow.application == Application::Unknown && flow.looked > MAX_LOOKS {
                flow.finish();
            }
            return;
        };
        flow.application = Application::Dns;
        if message.cut {
            self.losses.dns_unreadable += 1;
        }
        let Some(question) = &message.question else { return };
        match (message.is_response, segment.way) {
            (false, FrameDirection::Out) if segment.direction != Direction::Inbound => {
                flow.learnt().questions.ask(message.id);
                let carried_for = self.carried_for(segment, &question.name);
                self.carried += u64::from(carried_for.is_some());
                found.questions.push(DnsQuery {
                    name: question.name.as_str().into(),
                    name_bytes: question.name_bytes,
                    registered_domain: registered_domain(&question.name).map(Into::into),
                    carried_for,
                });
            }
            (true, FrameDirection::In) if segment.direction != Direction::Inbound => {
                self.learn(flow, segment, &message, question);
            }
            _ => {}
        }
    }

    /// The flow on which a process asked a resolver of this host for what that resolver passes on
    /// at this moment. A question to such a resolver is remembered.
    fn carried_for(&mut self, segment: &Segment<'_>, name: &str) -> Option<FlowKey> {
        let stays_here =
            Scope::of(segment.key.remote.address) == Scope::Loopback || segment.direction == Direction::Local;
        if !stays_here {
            let asked = self.asked_here.get(name).filter(|asked| segment.now.since(asked.at) <= CARRYING_TIME);
            return asked.map(|asked| asked.by);
        }
        if self.asked_here.len() >= MAX_ASKED_HERE {
            self.asked_here.retain(|_, asked| segment.now.since(asked.at) <= CARRYING_TIME);
        }
        if self.asked_here.len() < MAX_ASKED_HERE {
            self.asked_here.insert(name.into(), AskedHere { at: segment.now, by: *segment.key });
        }
        None
    }

    fn learn(&mut self, flow: &mut FlowNames, segment: &Segment<'_>, message: &dns::Message, question: &dns::Question) {
        let name: Arc<str> = question.host().into();
        let asked = flow.learnt().questions.answer(message.id);
        let mut waiting = Vec::new();
        for (address, ttl) in message.bound_addresses() {
            if address.is_unspecified() {
                continue;
            }
            let expires = segment.now.after(lifetime(ttl));
            let binding = Binding { address, name: Arc::clone(&name), owner: segment.owner, expires, asked };
            self.table.learn(&binding);
            if segment.owner.is_none() {
                waiting.push(binding);
            }
        }
        if waiting.is_empty() {
            return;
        }
        match flow.reader() {
            Some(Reader { kind: ReaderKind::Answers(answers), .. }) if answers.len() < MAX_WAITING_ANSWERS => {
                answers.append(&mut waiting);
            }
            Some(_) => {}
            None if segment.key.protocol != Protocol::TCP => {
                flow.learnt().reader = self.reader(ReaderKind::Answers(waiting));
            }
            None => {}
        }
    }

    /// Weighs what the flow said against what DNS said. Says whether the result is another one.
    fn describe(&mut self, flow: &mut FlowNames, key: &FlowKey, owner: Option<ProcessKey>, now: Timestamp) -> bool {
        let bound = self.table.name(key.remote.address, owner, now);
        let said = flow.learnt.as_ref().and_then(|learnt| learnt.said.clone());
        if bound.is_none() && said.is_none() {
            return false;
        }
        let said = said.unwrap_or_default();
        let claimed = match said.proxied {
            true => said.http_host.as_ref().map(|name| (name, NameSource::Http)),
            false => {
                let source = if flow.application == Application::Quic { NameSource::Quic } else { NameSource::Sni };
                let sni = said.sni.as_ref().map(|name| (name, source));
                sni.or(said.http_host.as_ref().map(|name| (name, NameSource::Http)))
            }
        };
        let claimed = claimed.filter(|(name, _)| name.parse::<IpAddr>().is_err());
        let confirmed = claimed.is_some_and(|(name, _)| self.table.confirms(key.remote.address, owner, name, now));
        let (domain, source, trust) = match (claimed, &bound) {
            (Some((name, source)), _) if confirmed => (Some(name), Some(source), Trust::Agreed),
            // Who lies about the name must not gain by it: what DNS bound to the address counts more.
            (Some(_), Some(bound)) if !said.proxied => (Some(bound), Some(NameSource::Dns), Trust::Unconfirmed),
            (Some((name, source)), _) => (Some(name), Some(source), Trust::Unconfirmed),
            (None, Some(bound)) => (Some(bound), Some(NameSource::Dns), Trust::Single),
            (None, None) => (None, None, Trust::None),
        };
        let name = DestinationName {
            domain: domain.cloned(),
            source,
            trust,
            dns: if confirmed { domain.cloned() } else { bound.clone() },
            registered_domain: domain.and_then(|name| registered_domain(name)).map(Into::into),
            sni: said.sni,
            http_host: said.http_host,
        };
        if flow.name().is_some_and(|known| **known == name) {
            return false;
        }
        flow.learnt().name = Some(Arc::new(name));
        true
    }

    /// A reader, if there is room for one more.
    fn reader(&mut self, kind: ReaderKind) -> Option<Box<Reader>> {
        if Arc::strong_count(&self.readers) > MAX_READERS {
            self.losses.readers_refused += 1;
            return None;
        }
        Some(Box::new(Reader { kind, _token: Arc::clone(&self.readers) }))
    }
}

/// What the first octets of a connection are.
enum Reading {
    Hello(ClientHello),
    Request(http::Request),
    /// Commands in the clear, which may lead to TLS.
    Conversation,
    /// Something that gives no name.
    Nothing,
    Unknown,
}

impl Reading {
    fn of(start: &[u8], application: &mut Application) -> Self {
        if tls::begins_client_hello(start) {
            *application = Application::Tls;
            return tls::read_records(start).map_or(Self::Unknown, Self::Hello);
        }
        if let Some(request) = http::read_request(start) {
            *application = Application::Http;
            return Self::Request(request);
        }
        match application {
            Application::Smtp | Application::Ftp => Self::Conversation,
            // A record of a connection that began earlier, or a protocol without a name in it.
            Application::Tls | Application::Http | Application::Ssh | Application::Other => Self::Nothing,
            _ => Self::Unknown,
        }
    }
}

impl Questions {
    fn ask(&mut self, id: u16) {
        if !self.last.contains(&Some(id)) {
            self.many |= self.last[1].is_some();
            self.last = [Some(id), self.last[0]];
        }
    }

    fn answer(&self, id: u16) -> bool {
        self.many || self.last.contains(&Some(id))
    }
}

fn ports(segment: &Segment<'_>) -> Ports {
    let (local, remote) = (segment.key.local.port, segment.key.remote.port);
    match segment.direction {
        Direction::Inbound => Ports { initiator: remote, responder: local },
        Direction::Outbound | Direction::Local => Ports { initiator: local, responder: remote },
    }
}

/// The first message of a stream and the octets that it takes up (RFC 1035, section 4.2.2).
fn message_over_tcp(start: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = start.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    rest.get(..length).map(|message| (message, length + 2))
}

/// Payloads of a flow that are looked at, both ways.
const MAX_LOOKS: u8 = 16;

/// Payloads from the initiator within which a name must have begun.
const MAX_SEGMENTS: u8 = 12;

/// Payloads within which the start of a stream must have shown itself, should they come out of order.
const MAX_UNKNOWN: u8 = 3;

/// Datagrams within which a protocol must have shown itself.
const MAX_DATAGRAMS: u8 = 3;

/// Flows whose start is put together at once: at most 16 kB each, mostly 2.
const MAX_READERS: usize = 8192;

/// How long a resolver of this host may take to pass a question on, retries included.
const CARRYING_TIME: Duration = Duration::from_secs(10);

/// Questions to resolvers of this host that are remembered. Further ones count twice.
const MAX_ASKED_HERE: usize = 16_384;

/// Answers that wait for their asker to be known, a flow.
const MAX_WAITING_ANSWERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Address, Endpoint, FiveTuple};

    const ALICE: Option<ProcessKey> = Some(ProcessKey { pid: 10, start: 1 });
    const BOB: Option<ProcessKey> = Some(ProcessKey { pid: 20, start: 2 });
    const GOOD: Address = Address::from_v4([203, 0, 113, 7]);
    const EVIL: Address = Address::from_v4([203, 0, 113, 66]);

    /// A conversation of this host, one payload after the other.
    struct Talk {
        key: FlowKey,
        direction: Direction,
        flow: FlowNames,
        owner: Option<ProcessKey>,
        from_start: bool,
        sequence: [u32; 2],
    }

    impl Talk {
        fn open(names: &mut Names, protocol: Protocol, remote: Address, port: u16, owner: Option<ProcessKey>) -> Self {
            let source = Endpoint::new(Address::from_v4([10, 0, 0, 5]), 40_000);
            let tuple = FiveTuple { protocol, source, destination: Endpoint::new(remote, port) };
            let key = FlowKey::of(&tuple, FrameDirection::Out);
            let mut flow = FlowNames::default();
            names.open(&mut flow, &key, owner, now());
            Self { key, direction: Direction::Outbound, flow, owner, from_start: true, sequence: [u32::MAX - 5, 77] }
        }

        fn say(&mut self, names: &mut Names, way: FrameDirection, payload: &[u8]) -> Found {
            let sequence = &mut self.sequence[usize::from(way == FrameDirection::In)];
            let segment = Segment {
                key: &self.key,
                direction: self.direction,
                way,
                from_start: self.from_start,
                sequence: *sequence,
                payload,
                owner: self.owner,
                now: now(),
            };
            *sequence = sequence.wrapping_add(u32::try_from(payload.len()).unwrap());
            names.observe(&mut self.flow, &segment)
        }

        fn name(&self) -> DestinationName {
            self.flow.name().map(|name| (**name).clone()).unwrap_or_default()
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_secs(1_000_000)
    }

    fn query(id: u16, name: &str) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.as_bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    fn answer(id: u16, name: &str, address: [u8; 4]) -> Vec<u8> {
        let mut message = query(id, name);
        message[2] = 0x81;
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(address);
        message
    }

    fn resolve(names: &mut Names, owner: Option<ProcessKey>, name: &str, address: Address) {
        let mut talk = Talk::open(names, Protocol::UDP, Address::from_v4([9, 9, 9, 9]), 53, owner);
        let asked = talk.say(names, FrameDirection::Out, &query(7, name));
        assert_eq!(asked.questions[0].name.as_ref(), name);
        talk.say(names, FrameDirection::In, &answer(7, name, address.v4_bits().unwrap().to_be_bytes()));
        assert_eq!(talk.flow.application(), Application::Dns);
    }

    /// A ClientHello in one record; `padding` stands before the name.
    fn hello(name: &str, padding: usize) -> Vec<u8> {
        let short = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
        let mut list = [short(0xff01), short(padding)].concat();
        list.extend(vec![0; padding]);
        list.extend([short(0), short(name.len() + 5), short(name.len() + 3)].concat());
        list.push(0);
        list.extend(short(name.len()));
        list.extend(name.as_bytes());
        let mut body = [vec![3, 3], vec![7; 32], vec![0, 0, 2, 0x13, 1, 1, 0]].concat();
        body.extend(short(list.len()));
        body.extend(list);
        let message = [vec![1, 0], short(body.len()).to_vec(), body].concat();
        [vec![22, 3, 1], short(message.len()).to_vec(), message].concat()
    }

    #[test]
    fn a_name_that_dns_confirms_is_agreed_and_a_lie_is_marked() {
        let mut names = Names::new(100);
        resolve(&mut names, ALICE, "up.storage.example.net", GOOD);
        resolve(&mut names, ALICE, "drop.evil.example", EVIL);
        let mut honest = Talk::open(&mut names, Protocol::TCP, GOOD, 443, ALICE);
        assert_eq!((honest.name().trust, honest.name().source), (Trust::Single, Some(NameSource::Dns)));
        assert!(honest.say(&mut names, FrameDirection::Out, &hello("up.storage.example.net", 0)).changed);
        assert_eq!((honest.name().trust, honest.name().source), (Trust::Agreed, Some(NameSource::Sni)));
        assert_eq!(honest.name().registered_domain.as_deref(), Some("example.net"));
        assert!(!honest.flow.wants());

        let mut liar = Talk::open(&mut names, Protocol::TCP, EVIL, 443, ALICE);
        liar.say(&mut names, FrameDirection::Out, &hello("up.storage.example.net", 0));
        assert_eq!(liar.name().trust, Trust::Unconfirmed);
        assert_eq!(liar.name().sni.as_deref(), Some("up.storage.example.net"));
        assert_eq!(liar.name().domain.as_deref(), Some("drop.evil.example"));

        let nowhere = Address::from_v4([203, 0, 113, 99]);
        let mut unasked = Talk::open(&mut names, Protocol::TCP, nowhere, 443, ALICE);
        unasked.say(&mut names, FrameDirection::Out, &hello("up.storage.example.net", 0));
        assert_eq!((unasked.name().trust, unasked.name().dns), (Trust::Unconfirmed, None));
        assert_eq!(unasked.name().domain.as_deref(), Some("up.storage.example.net"));
    }

    #[test]
    fn a_process_is_not_given_what_another_learnt_differently() {
        let mut names = Names::new(100);
        resolve(&mut names, ALICE, "a.example", GOOD);
        resolve(&mut names, BOB, "b.example", GOOD);
        let dns = |names: &mut Names, owner| Talk::open(names, Protocol::TCP, GOOD, 443, owner).name().dns;
        assert_eq!(dns(&mut names, ALICE).as_deref(), Some("a.example"));
        assert_eq!(dns(&mut names, BOB).as_deref(), Some("b.example"));
    }

    #[test]
    fn an_answer_waits_for_its_asker_to_be_known() {
        let mut names = Names::new(100);
        let mut lookup = Talk::open(&mut names, Protocol::UDP, Address::from_v4([9, 9, 9, 9]), 53, None);
        lookup.say(&mut names, FrameDirection::Out, &query(7, "a.example"));
        lookup.say(&mut names, FrameDirection::In, &answer(7, "a.example", [203, 0, 113, 7]));
        resolve(&mut names, BOB, "b.example", GOOD);
        names.attribute(&mut lookup.flow, &lookup.key, ALICE.unwrap(), now());
        let mut flow = Talk::open(&mut names, Protocol::TCP, GOOD, 443, None);
        assert!(names.attribute(&mut flow.flow, &flow.key, ALICE.unwrap(), now()) || flow.name().dns.is_some());
        assert_eq!(flow.name().dns.as_deref(), Some("a.example"));
    }

    #[test]
    fn a_large_hello_is_put_together_in_any_order() {
        let mut names = Names::new(100);
        let record = hello("pq.example", 1800);
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut talk = Talk::open(&mut names, Protocol::TCP, GOOD, 443, ALICE);
            let start = talk.sequence[0];
            let pieces: Vec<&[u8]> = record.chunks(700).collect();
            for piece in order {
                talk.sequence[0] = start.wrapping_add(700 * u32::try_from(piece).unwrap());
                talk.say(&mut names, FrameDirection::Out, pieces[piece]);
            }
            assert_eq!(talk.name().sni.as_deref(), Some("pq.example"), "{order:?}");
            assert_eq!(talk.flow.application(), Application::Tls);
        }
    }

    #[test]
    fn what_comes_from_the_middle_of_a_connection_is_not_kept() {
        let mut names = Names::new(100);
        let record = hello("late.example", 0);
        for (from_start, kept) in [(false, None), (true, Some("late.example"))] {
            let mut talk = Talk { from_start, ..Talk::open(&mut names, Protocol::TCP, GOOD, 443, ALICE) };
            let (start, (first, second)) = (talk.sequence[0], record.split_at(20));
            talk.sequence[0] = start.wrapping_add(20);
            talk.say(&mut names, FrameDirection::Out, second);
            assert_eq!(talk.flow.has_reader(), from_start);
            talk.sequence[0] = start;
            talk.say(&mut names, FrameDirection::Out, first);
            assert_eq!(talk.flow.name().and_then(|name| name.sni.as_deref()), kept);
            talk.sequence[0] = start.wrapping_add(20);
            talk.say(&mut names, FrameDirection::Out, second);
            assert_eq!(
                talk.name().sni.as_deref(),
                Some("late.example"),
                "what begins is understood wherever it stands"
            );
        }
    }

    #[test]
    fn tls_behind_mail_and_proxies_is_read() {
        let mut names = Names::new(100);
        let mut mail = Talk::open(&mut names, Protocol::TCP, GOOD, 587, ALICE);
        mail.say(&mut names, FrameDirection::In, b"220 mx.example ESMTP\r\n");
        mail.say(&mut names, FrameDirection::Out, b"EHLO me\r\n");
        mail.say(&mut names, FrameDirection::In, b"250 STARTTLS\r\n");
        mail.say(&mut names, FrameDirection::Out, b"STARTTLS\r\n");
        mail.say(&mut names, FrameDirection::Out, &hello("mx.example", 0));
        assert_eq!((mail.flow.application(), mail.name().sni.as_deref()), (Application::Tls, Some("mx.example")));

        resolve(&mut names, ALICE, "proxy.corp.example", EVIL);
        let mut proxied = Talk::open(&mut names, Protocol::TCP, EVIL, 3128, ALICE);
        proxied.say(
            &mut names,
            FrameDirection::Out,
            b"CONNECT up.example:443 HTTP/1.1\r\nHost: up.example:443\r\n\r\n",
        );
        assert_eq!(proxied.name().domain.as_deref(), Some("up.example"));
        proxied.say(&mut names, FrameDirection::In, b"HTTP/1.1 200 OK\r\n\r\n");
        proxied.say(&mut names, FrameDirection::Out, &hello("inner.example", 0));
        let name = proxied.name();
        assert_eq!((name.domain.as_deref(), name.sni.as_deref()), (Some("up.example"), Some("inner.example")));
        assert_eq!((name.dns.as_deref(), name.trust), (Some("proxy.corp.example"), Trust::Unconfirmed));
    }

    #[test]
    fn dns_over_tcp_is_read_however_it_is_cut() {
        let mut names = Names::new(100);
        let mut talk = Talk::open(&mut names, Protocol::TCP, Address::from_v4([9, 9, 9, 9]), 53, ALICE);
        let framed =
            |message: Vec<u8>| [u16::try_from(message.len()).unwrap().to_be_bytes().to_vec(), message].concat();
        let two = [framed(query(1, "a.example")), framed(query(2, "b.example"))].concat();
        let (first, second) = two.split_at(20);
        assert!(talk.say(&mut names, FrameDirection::Out, first).questions.is_empty());
        assert_eq!(talk.say(&mut names, FrameDirection::Out, second).questions.len(), 2);
        for octet in framed(answer(2, "b.example", [203, 0, 113, 7])) {
            talk.say(&mut names, FrameDirection::In, &[octet]);
        }
        assert_eq!(Talk::open(&mut names, Protocol::TCP, GOOD, 80, ALICE).name().dns.as_deref(), Some("b.example"));
    }

    #[test]
    fn who_connects_to_this_host_does_not_name_its_own_end() {
        let mut names = Names::new(100);
        let mut talk = Talk::open(&mut names, Protocol::TCP, GOOD, 443, ALICE);
        talk.direction = Direction::Inbound;
        talk.say(&mut names, FrameDirection::In, &hello("my.service.example", 0));
        assert_eq!((talk.flow.application(), talk.flow.name()), (Application::Tls, None));
        assert!(!talk.flow.wants());
    }

    #[test]
    fn an_answer_that_does_not_fit_the_question_confirms_nothing() {
        let mut names = Names::new(100);
        let mut talk = Talk::open(&mut names, Protocol::UDP, Address::from_v4([9, 9, 9, 9]), 53, ALICE);
        talk.say(&mut names, FrameDirection::Out, &query(7, "a.example"));
        talk.say(&mut names, FrameDirection::In, &answer(8, "bank.example", [203, 0, 113, 7]));
        let mut liar = Talk::open(&mut names, Protocol::TCP, GOOD, 443, ALICE);
        liar.say(&mut names, FrameDirection::Out, &hello("bank.example", 0));
        assert_eq!(liar.name().trust, Trust::Unconfirmed);
    }

    #[test]
    fn a_question_through_a_resolver_of_this_host_belongs_to_who_asked() {
        let mut names = Names::new(100);
        let stub = Address::from_v4([127, 0, 0, 53]);
        let mut asker = Talk::open(&mut names, Protocol::UDP, stub, 53, ALICE);
        assert_eq!(asker.say(&mut names, FrameDirection::Out, &query(1, "a.example")).questions.len(), 1);
        let mut resolver = Talk::open(&mut names, Protocol::UDP, Address::from_v4([9, 9, 9, 9]), 53, BOB);
        let carried = resolver.say(&mut names, FrameDirection::Out, &query(9, "a.example")).questions;
        assert_eq!(carried[0].carried_for, Some(asker.key));
        let own = resolver.say(&mut names, FrameDirection::Out, &query(9, "own.example")).questions;
        assert_eq!(own[0].carried_for, None);
        assert_eq!(names.statistics().questions_carried, 1);
    }

    #[test]
    fn unfinished_starts_are_bounded_and_counted() {
        let mut names = Names::new(100);
        let half = &hello("a.example", 100)[..50];
        let mut talks = Vec::new();
        for _ in 0..MAX_READERS + 10 {
            let mut talk = Talk::open(&mut names, Protocol::TCP, GOOD, 443, ALICE);
            talk.say(&mut names, FrameDirection::Out, half);
            talks.push(talk);
        }
        assert_eq!(names.statistics().losses.readers_refused, 10);
        talks.clear();
        let mut talk = Talk::open(&mut names, Protocol::TCP, GOOD, 443, ALICE);
        talk.say(&mut names, FrameDirection::Out, half);
        assert_eq!(names.statistics().losses.readers_refused, 10);
    }
}
