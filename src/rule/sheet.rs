//! A flow as somebody writes it down: in tests of rules, in questions to `explain-match`.
//!
//! A key is a field's name, `src`, `dst` (address and port at once) or a
//! count. What is not written has its usual value, or none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bstr::BString;

use crate::attribution::{
    Ancestor, Attribution, Certainty, Container, Evidence, Executable, ExecutableKind, Process, ProcessKey, Suspects,
    UnknownReason, User,
};
use crate::flow::{Counters, Direction, FlowKey, FlowState, Namespace};
use crate::names::{Application, DestinationName, NameSource, Place, Trust, registered_domain};
use crate::packet::{Address, Endpoint, Protocol};
use crate::rule::literal;
use crate::rule::{DnsQuery, Host, Observation};
use crate::time::Timestamp;
use crate::units::{Bytes, Packets};

/// What is known of one flow.
#[derive(Debug, Clone)]
pub struct FlowSheet {
    /// Its ends.
    pub key: FlowKey,
    /// Who opened it.
    pub direction: Direction,
    /// Whose it is.
    pub attribution: Attribution,
    /// What its remote end is called.
    pub name: Option<Arc<DestinationName>>,
    /// Whose network its remote end is in.
    pub place: Option<Arc<Place>>,
    /// What is spoken.
    pub application: Application,
    /// Its interface.
    pub interface: Option<Arc<str>>,
    /// Whether it is open.
    pub state: FlowState,
    /// The DNS question that it asks.
    pub dns: Option<Arc<DnsQuery>>,
    /// What passes.
    pub counters: Counters,
}

/// A key that cannot be read, or whose value cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEntry {
    /// Which key.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

/// Keys beside the names of fields.
pub const KEYS: &[&str] =
    &["src", "dst", "bytes_out", "bytes_in", "payload_out", "payload_in", "packets_out", "packets_in", "dns.query"];

impl FlowSheet {
    /// A flow from its entries: a key, and its value or values.
    pub fn read(entries: &BTreeMap<String, Vec<String>>) -> Result<Self, BadEntry> {
        let reader = Reader { entries };
        let direction = reader.word("direction", Direction::Outbound, |word| {
            [Direction::Outbound, Direction::Inbound, Direction::Local].into_iter().find(|known| known.name() == word)
        })?;
        let protocol = reader.word("proto", Protocol::TCP, |word| {
            word.parse().ok().map(Protocol).or_else(|| Protocol::from_name(word))
        })?;
        let state = reader.word("flow.state", FlowState::Established, |word| {
            [FlowState::New, FlowState::Established, FlowState::Closed, FlowState::Failed]
                .into_iter()
                .find(|known| known.name() == word)
        })?;
        let key = FlowKey {
            protocol,
            local: reader.end("src", "192.168.0.10:40000")?,
            remote: reader.end("dst", "203.0.113.1:443")?,
            namespace: Namespace(reader.number("netns")?.unwrap_or(0)),
        };
        let name = reader.name()?;
        let spoken =
            if name.as_ref().is_some_and(|name| name.sni.is_some()) { Application::Tls } else { Application::Unknown };
        let application =
            reader.word("l7", spoken, |word| Application::ALL.iter().copied().find(|known| known.name() == word))?;
        Ok(Self {
            key,
            direction,
            attribution: reader.attribution()?,
            name: name.map(Arc::new),
            place: reader.place()?.map(Arc::new),
            application,
            interface: reader.text("iface").map(Into::into),
            state,
            dns: reader.text("dns.query").map(|name| {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let registered_domain = reader
                    .text("dns.registered_domain")
                    .map(Arc::from)
                    .or_else(|| registered_domain(&name).map(Arc::from));
                Arc::new(DnsQuery {
                    name_bytes: u16::try_from(name.len() + 2).unwrap_or(u16::MAX),
                    name: name.as_str().into(),
                    registered_domain,
                    carried_for: None,
                })
            }),
            counters: reader.counters()?,
        })
    }

    /// The flow as rules see it.
    pub fn observation<'a>(&'a self, host: &'a Host, now: Timestamp) -> Observation<'a> {
        Observation {
            key: &self.key,
            direction: self.direction,
            attribution: &self.attribution,
            name: self.name.as_deref(),
            place: self.place.as_deref(),
            application: self.application,
            interface: self.interface.as_deref(),
            totals: &self.counters,
            state: self.state,
            first: now,
            now,
            dns: self.dns.as_deref(),
            host,
        }
    }
}

struct Reader<'a> {
    entries: &'a BTreeMap<String, Vec<String>>,
}

impl Reader<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.entries.get(key)?.first().map(String::as_str)
    }

    fn bad<T>(key: &str, message: impl Into<String>) -> Result<T, BadEntry> {
        Err(BadEntry { key: key.to_owned(), message: message.into() })
    }

    fn word<T>(&self, key: &str, otherwise: T, read: impl Fn(&str) -> Option<T>) -> Result<T, BadEntry> {
        match self.text(key) {
            None => Ok(otherwise),
            Some(word) => match read(&word.to_ascii_lowercase()) {
                Some(value) => Ok(value),
                None => Self::bad(key, format!("`{word}` is not possible here")),
            },
        }
    }

    fn number(&self, key: &str) -> Result<Option<u32>, BadEntry> {
        match self.text(key) {
            None => Ok(None),
            Some(text) => match text.trim_start_matches("AS").parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Self::bad(key, format!("`{text}` is not a number")),
            },
        }
    }

    /// `dst: "203.0.113.7:443"`, or `dst.ip` and `dst.port`.
    fn end(&self, key: &str, otherwise: &str) -> Result<Endpoint, BadEntry> {
        let text = self.text(key).unwrap_or(otherwise);
        let mut end: Endpoint = match (text.parse::<SocketAddr>(), text.parse::<std::net::IpAddr>()) {
            (Ok(end), _) => end.into(),
            (_, Ok(address)) => Endpoint::new(address.into(), 0),
            _ => return Self::bad(key, format!("`{text}` is not an address with a port, such as `203.0.113.7:443`")),
        };
        let address = format!("{key}.ip");
        if let Some(text) = self.text(&address) {
            match text.parse::<std::net::IpAddr>() {
                Ok(ip) => end.address = Address::from(ip),
                Err(_) => return Self::bad(&address, format!("`{text}` is not an address")),
            }
        }
        let port = format!("{key}.port");
        if let Some(text) = self.text(&port) {
            match text.parse() {
                Ok(number) => end.port = number,
                Err(_) => return Self::bad(&port, format!("`{text}` is not a port")),
            }
        }
        Ok(end)
    }

    fn name(&self) -> Result<Option<DestinationName>, BadEntry> {
        let domain =
            |key: &str| self.text(key).map(|name| Arc::<str>::from(name.trim_end_matches('.').to_ascii_lowercase()));
        let (sni, dns) = (domain("dst.sni"), domain("dst.dns"));
        let best = domain("dst.domain").or_else(|| sni.clone()).or_else(|| dns.clone());
        if best.is_none() && self.text("dst.registered_domain").is_none() {
            return Ok(None);
        }
        let usual = if sni.is_some() { NameSource::Sni } else { NameSource::Dns };
        let source = self.word("dst.domain.source", usual, |word| {
            [NameSource::Sni, NameSource::Quic, NameSource::Dns, NameSource::Http]
                .into_iter()
                .find(|known| known.name() == word)
        })?;
        let usual = match (&sni, &dns) {
            (Some(sni), Some(dns)) if sni == dns => Trust::Agreed,
            (Some(_), _) => Trust::Unconfirmed,
            _ => Trust::Single,
        };
        let trust = self.word("dst.domain.trust", usual, |word| {
            [Trust::Agreed, Trust::Single, Trust::Unconfirmed, Trust::None]
                .into_iter()
                .find(|known| known.name() == word)
        })?;
        let registered =
            domain("dst.registered_domain").or_else(|| best.as_deref().and_then(registered_domain).map(Arc::from));
        Ok(Some(DestinationName {
            domain: best,
            source: Some(source),
            trust,
            sni,
            dns,
            registered_domain: registered,
            ..DestinationName::default()
        }))
    }

    fn place(&self) -> Result<Option<Place>, BadEntry> {
        let place = Place {
            asn: self.number("dst.asn")?,
            organization: self.text("dst.as_org").map(Into::into),
            country: self.text("dst.country").map(Into::into),
        };
        Ok(Some(place.clone()).filter(|place| *place != Place::default()))
    }

    fn attribution(&self) -> Result<Attribution, BadEntry> {
        let owned = self.entries.keys().any(|key| OWNER_KEYS.contains(&key.as_str()));
        let usual = if owned { Certainty::Exact } else { Certainty::Unknown };
        let certainty = self.word("attribution", usual, |word| {
            [Certainty::Exact, Certainty::Inferred, Certainty::Unknown].into_iter().find(|known| known.name() == word)
        })?;
        let usual = match certainty {
            Certainty::Exact => Some(Evidence::Exact),
            Certainty::Inferred => Some(Evidence::Wildcard),
            Certainty::Unknown => None,
        };
        let evidence = self.word("evidence", usual, |word| match word {
            "none" => Some(None),
            word => EVIDENCE.iter().find(|known| known.name() == word).cloned().map(Some),
        })?;
        match evidence {
            None => self.unknown(),
            Some(evidence) => Ok(Attribution::Known { process: Arc::new(self.process()?), evidence }),
        }
    }

    fn unknown(&self) -> Result<Attribution, BadEntry> {
        let reason = self.word("unknown_reason", UnknownReason::NoSource, |word| {
            UnknownReason::ALL.into_iter().find(|known| known.name() == word)
        })?;
        let suspects = self.entries.get("suspects").map(Vec::as_slice).unwrap_or_default();
        let suspects = suspects.iter().zip(1u32..).map(|(path, pid)| {
            let executable = Executable { path: path.as_str().into(), ..Executable::default() };
            let key = ProcessKey { pid, start: 0 };
            Arc::new(Process { key, executable: Some(executable), ..Process::default() })
        });
        let suspects: Vec<Arc<Process>> = suspects.collect();
        Ok(match suspects.is_empty() {
            true => Attribution::Unknown(reason),
            false => Attribution::Suspected(Arc::new(Suspects::new(reason, suspects))),
        })
    }

    fn process(&self) -> Result<Process, BadEntry> {
        let shared = |key: &str| self.text(key).map(Arc::<str>::from);
        let kind = self.word("exe.kind", ExecutableKind::File, |word| {
            [
                ExecutableKind::File,
                ExecutableKind::Deleted,
                ExecutableKind::Memfd,
                ExecutableKind::Kernel,
                ExecutableKind::Unknown,
            ]
            .into_iter()
            .find(|known| known.name() == word)
        })?;
        let named = self
            .text("exe")
            .map(str::to_owned)
            .or_else(|| self.text("exe.name").map(|name| format!("/usr/bin/{name}")));
        let executable = named.map(|path| Executable {
            path: path.into(),
            kind,
            sha256: shared("exe.sha256"),
            package: shared("exe.package"),
            ..Executable::default()
        });
        let words = |key: &str| -> Vec<BString> {
            match self.entries.get(key).map(Vec::as_slice) {
                None => Vec::new(),
                Some([line]) if key.ends_with("cmdline") => line.split_ascii_whitespace().map(BString::from).collect(),
                Some(words) => words.iter().map(|word| BString::from(word.as_str())).collect(),
            }
        };
        let command_line = if self.entries.contains_key("args") { words("args") } else { words("cmdline") };
        let parents = self.entries.get("ancestor.exe").cloned().unwrap_or_default();
        let nearest = self.text("parent.exe").map(str::to_owned);
        let mut ancestors: Vec<Ancestor> = nearest
            .into_iter()
            .chain(parents)
            .map(|path| Ancestor { executable: Some(path.into()), ..Ancestor::default() })
            .collect();
        let parent_words = words("parent.cmdline");
        if ancestors.is_empty() && (!parent_words.is_empty() || self.text("ppid").is_some()) {
            ancestors.push(Ancestor::default());
        }
        if let Some(first) = ancestors.first_mut() {
            first.command_line = parent_words;
            first.pid = self.number("ppid")?.unwrap_or(1);
        }
        let container = shared("container.id")
            .or_else(|| shared("container.name"))
            .or_else(|| shared("container.image"))
            .or_else(|| shared("pod"));
        let container = container.map(|id| Container {
            id,
            runtime: shared("container.runtime"),
            name: shared("container.name"),
            image: shared("container.image"),
            pod: shared("pod"),
            namespace: shared("namespace"),
            labels: self
                .entries
                .get("container.labels")
                .into_iter()
                .flatten()
                .map(|label| label.as_str().into())
                .collect(),
        });
        let pid = match self.number("pid")? {
            Some(pid) => pid,
            None => self.usual_pid(),
        };
        Ok(Process {
            key: ProcessKey { pid, start: 0 },
            executable,
            command_line,
            working_directory: self.text("cwd").map(Into::into),
            user: self.user("user", "uid")?,
            gid: self.group()?.0,
            group: self.group()?.1,
            login_user: self.user("login_user", "auid")?,
            ancestors,
            cgroup: shared("cgroup"),
            unit: shared("unit"),
            slice: shared("slice"),
            container,
            ..Process::default()
        })
    }

    /// Different programs and users are different processes.
    fn usual_pid(&self) -> u32 {
        let mut hasher = blake3::Hasher::new();
        for (key, values) in self.entries.iter().filter(|(key, _)| OWNER_KEYS.contains(&key.as_str())) {
            hasher.update(key.as_bytes());
            for value in values {
                hasher.update(value.as_bytes());
                hasher.update(b"\0");
            }
        }
        let [a, b, ..] = *hasher.finalize().as_bytes();
        1_000 + u32::from(u16::from_be_bytes([a, b]))
    }

    fn user(&self, name: &str, id: &str) -> Result<Option<User>, BadEntry> {
        let written = self.text(name);
        let number = written.and_then(|text| text.parse().ok());
        let uid = self.number(id)?.or(number).or_else(|| (written == Some("root")).then_some(0));
        let user = User { uid, name: written.filter(|_| number.is_none()).map(Into::into) };
        Ok(Some(user).filter(|user| *user != User::default()))
    }

    /// A group's number and name.
    fn group(&self) -> Result<(Option<u32>, Option<Arc<str>>), BadEntry> {
        let written = self.text("group");
        let number = written.and_then(|text| text.parse().ok());
        let name = written.filter(|_| number.is_none()).map(Arc::from);
        // A group that is named has some number.
        let usual = name.as_ref().map(|_| 1_000);
        Ok((self.number("gid")?.or(number).or(usual), name))
    }

    fn counters(&self) -> Result<Counters, BadEntry> {
        let size = |key: &str| match self.text(key) {
            None => Ok(None),
            Some(text) => match literal::size(text) {
                Ok(size) => Ok(Some(size)),
                Err(bad) => Self::bad(key, bad.message),
            },
        };
        let way = |bytes: &str, payload: &str, packets: &str| -> Result<(u64, u64, u64), BadEntry> {
            let (bytes, payload) = (size(bytes)?, size(payload)?);
            // Who writes one of the two means both.
            let total = bytes.or(payload).unwrap_or(0);
            let packets = size(packets)?.unwrap_or_else(|| total.div_ceil(1_400));
            Ok((total, payload.unwrap_or(total), packets))
        };
        let (bytes_out, payload_out, packets_out) = way("bytes_out", "payload_out", "packets_out")?;
        let (bytes_in, payload_in, packets_in) = way("bytes_in", "payload_in", "packets_in")?;
        Ok(Counters {
            bytes_out: Bytes(bytes_out),
            bytes_in: Bytes(bytes_in),
            payload_out: Bytes(payload_out),
            payload_in: Bytes(payload_in),
            packets_out: Packets(packets_out),
            packets_in: Packets(packets_in),
        })
    }
}

const EVIDENCE: &[Evidence] = &[
    Evidence::Kernel,
    Evidence::Exact,
    Evidence::Wildcard,
    Evidence::Listener,
    Evidence::Carrier,
    Evidence::Capture,
    Evidence::Declared,
];

/// Keys that make a flow an owned one.
const OWNER_KEYS: &[&str] = &[
    "exe",
    "exe.name",
    "exe.kind",
    "exe.sha256",
    "exe.package",
    "cmdline",
    "args",
    "cwd",
    "pid",
    "ppid",
    "parent.exe",
    "parent.cmdline",
    "ancestor.exe",
    "user",
    "uid",
    "login_user",
    "auid",
    "group",
    "gid",
    "container.id",
    "container.name",
    "container.image",
    "container.runtime",
    "container.labels",
    "pod",
    "namespace",
    "cgroup",
    "unit",
    "slice",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Field, Value};

    #[test]
    fn what_is_written_is_what_rules_see() {
        let entries = [
            ("exe", "/usr/bin/rclone"),
            ("user", "alice"),
            ("dst", "203.0.113.7:443"),
            ("dst.sni", "up.storage.example.net"),
            ("bytes_out", "10MB"),
        ];
        let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).collect();
        let sheet = FlowSheet::read(&entries).unwrap();
        let host = Host::default();
        let seen = sheet.observation(&host, Timestamp::EPOCH);
        assert_eq!(Field::Exe.value(&seen), Value::Text("/usr/bin/rclone".into()));
        assert_eq!(Field::DstRegisteredDomain.value(&seen), Value::Text("example.net".into()));
        assert_eq!(Field::Attribution.value(&seen), Value::Text("exact".into()));
        assert_eq!(sheet.counters.payload_out, Bytes(10_000_000));
    }

    #[test]
    fn a_flow_without_an_owner_has_a_reason_and_suspects() {
        let entries = [("unknown_reason", "no_socket"), ("suspects", "/tmp/injector")];
        let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).collect();
        let sheet = FlowSheet::read(&entries).unwrap();
        let host = Host::default();
        let seen = sheet.observation(&host, Timestamp::EPOCH);
        assert_eq!(Field::UnknownReason.value(&seen), Value::Text("no_socket".into()));
        assert_eq!(Field::Suspects.value(&seen), Value::List(vec!["/tmp/injector".into()]));
        assert_eq!(Field::Exe.value(&seen), Value::Missing, "a suspect is no owner");
    }

    #[test]
    fn a_flow_without_an_owner_is_unknown() {
        let sheet = FlowSheet::read(&BTreeMap::new()).unwrap();
        assert!(sheet.attribution.process().is_none());
        let bad = FlowSheet::read(&[("dst".to_owned(), vec!["nowhere".to_owned()])].into()).unwrap_err();
        assert_eq!(bad.key, "dst");
    }
}
