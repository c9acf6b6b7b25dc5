//! What a rule can look at: the fields of a flow, and their values.

use std::fmt;

use bstr::{BString, ByteSlice};

use crate::attribution::Process;
use crate::flow::Scope;
use crate::packet::Address;
use crate::rule::Observation;

macro_rules! fields {
    ($($variant:ident $name:literal $doc:literal)*) => {
        /// A fact about a flow that a rule can match or group by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Field {
            $(#[doc = $doc] $variant,)*
        }

        impl Field {
            /// Every field, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for it in rules.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line about it.
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

fields! {
    Exe "exe" "absolute path of the executable"
    ExeName "exe.name" "last segment of the executable's path"
    ExeKind "exe.kind" "file, deleted, memfd, kernel or unknown"
    ExeSha256 "exe.sha256" "SHA-256 of the executable, where hashing is on"
    ExePackage "exe.package" "package that owns the executable"
    Cmdline "cmdline" "command line, arguments joined by spaces"
    Args "args" "arguments as a list"
    Cwd "cwd" "working directory"
    Pid "pid" "process id"
    Ppid "ppid" "parent's process id"
    StartTime "start_time" "start of the process, seconds since the epoch"
    ParentExe "parent.exe" "executable of the parent"
    ParentCmdline "parent.cmdline" "command line of the parent"
    AncestorExe "ancestor.exe" "executable of any ancestor"
    User "user" "user name, or number where there is no name"
    Uid "uid" "user id"
    LoginUser "login_user" "name of the user who logged in"
    Auid "auid" "id of the user who logged in"
    Gid "gid" "group id"
    ContainerId "container.id" "container id"
    ContainerName "container.name" "container name"
    ContainerImage "container.image" "container image"
    ContainerRuntime "container.runtime" "container runtime"
    Pod "pod" "Kubernetes pod"
    KubernetesNamespace "namespace" "Kubernetes namespace"
    Cgroup "cgroup" "control group path"
    Unit "unit" "systemd unit"
    Slice "slice" "systemd slice"
    Netns "netns" "network namespace's inode number"
    Iface "iface" "network interface"
    Direction "direction" "who opened the flow: outbound, inbound or local"
    Proto "proto" "transport protocol, by name or number"
    L7 "l7" "what is spoken: tls, quic, http, dns, ssh, ftp, smtp, ntp, other, unknown"
    SrcIp "src.ip" "this host's address"
    SrcPort "src.port" "this host's port"
    DstIp "dst.ip" "the remote address, where bytes_out go"
    DstPort "dst.port" "the remote port"
    DstScope "dst.scope" "loopback, link_local, private, multicast, special or public"
    DstDomain "dst.domain" "best known name of the remote end"
    DstDomainSource "dst.domain.source" "how the name is known: sni, quic, dns, http"
    DstDomainTrust "dst.domain.trust" "whether the names agree: agreed, single, unconfirmed, none"
    DstSni "dst.sni" "name in the TLS or QUIC handshake"
    DstDns "dst.dns" "name whose DNS answer held the address"
    DstRegisteredDomain "dst.registered_domain" "registered domain by the public suffix list"
    DstAsn "dst.asn" "autonomous system number"
    DstAsOrg "dst.as_org" "autonomous system's organisation"
    DstCountry "dst.country" "country code"
    Attribution "attribution" "exact, inferred or unknown"
    Evidence "evidence" "how the owner is known, or none"
    FlowBytesOut "flow.bytes_out" "bytes this flow sent so far"
    FlowBytesIn "flow.bytes_in" "bytes this flow received so far"
    FlowAge "flow.age" "seconds since the flow's first packet"
    FlowState "flow.state" "new, established, closed or failed"
    DnsRegisteredDomain "dns.registered_domain" "registered domain of the DNS question"
    Host "host" "this host's name"
    HostTags "host.tags" "this host's tags"
}

/// The value of a field; group keys are made of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    /// The field has no value here.
    #[default]
    Missing,
    /// A whole number.
    Number(u64),
    /// An address.
    Ip(Address),
    /// Bytes that somebody else wrote.
    Text(#[serde(serialize_with = "serialize_text")] BString),
    /// Several of them.
    List(Vec<BString>),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Escaped, on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("unknown"),
            Self::Number(number) => number.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
            Self::Text(text) => text.escape_ascii().fmt(f),
            Self::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { " " }, item.escape_ascii())?;
                }
                Ok(())
            }
        }
    }
}

impl Field {
    /// The field of a name that [`Field::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.name() == name)
    }

    /// The field's value in one observation.
    pub fn value(self, seen: &Observation<'_>) -> Value {
        let process = seen.attribution.process().map(AsRef::as_ref);
        match self {
            Self::SrcIp => Value::Ip(seen.key.local.address),
            Self::SrcPort => Value::Number(seen.key.local.port.into()),
            Self::DstIp => Value::Ip(seen.key.remote.address),
            Self::DstPort => Value::Number(seen.key.remote.port.into()),
            Self::DstScope => text(Scope::of(seen.key.remote.address).name()),
            Self::Direction => text(seen.direction.name()),
            Self::Proto => text(seen.key.protocol.to_string()),
            Self::L7 => text(seen.application.name()),
            Self::Iface => optional(seen.interface),
            Self::Netns => match seen.key.namespace.0 {
                0 => Value::Missing,
                inode => Value::Number(inode.into()),
            },
            Self::DstDomain => optional(seen.name.and_then(|name| name.domain.as_deref())),
            Self::DstDomainSource => optional(seen.name.and_then(|name| name.source).map(|source| source.name())),
            Self::DstDomainTrust => optional(seen.name.map(|name| name.trust.name())),
            Self::DstSni => optional(seen.name.and_then(|name| name.sni.as_deref())),
            Self::DstDns => optional(seen.name.and_then(|name| name.dns.as_deref())),
            Self::DstRegisteredDomain => optional(seen.name.and_then(|name| name.registered_domain.as_deref())),
            Self::DstAsn => number(seen.place.and_then(|place| place.asn)),
            Self::DstAsOrg => optional(seen.place.and_then(|place| place.organization.as_deref())),
            Self::DstCountry => optional(seen.place.and_then(|place| place.country.as_deref())),
            Self::Attribution => text(seen.attribution.certainty().name()),
            Self::Evidence => text(seen.attribution.evidence().map_or("none", |evidence| evidence.name())),
            Self::FlowBytesOut => Value::Number(seen.totals.bytes_out.0),
            Self::FlowBytesIn => Value::Number(seen.totals.bytes_in.0),
            Self::FlowAge => Value::Number(seen.now.since(seen.first).as_secs()),
            Self::FlowState => text(seen.state.name()),
            Self::DnsRegisteredDomain => optional(seen.dns.and_then(|query| query.registered_domain.as_deref())),
            Self::Host => text(&*seen.host.name),
            Self::HostTags => Value::List(seen.host.tags.iter().map(|tag| tag.as_bytes().into()).collect()),
            _ => process.map_or(Value::Missing, |process| self.of_process(process)),
        }
    }

    /// The value of a field that only the owner decides; `Missing` for every other field.
    pub fn of_process(self, process: &Process) -> Value {
        let executable = process.executable.as_ref();
        let container = process.container.as_ref();
        let parent = process.ancestors.first();
        match self {
            Self::Exe => optional(process.executable_path()),
            Self::ExeName => optional(process.executable_name()),
            Self::ExeKind => text(executable.map_or("unknown", |executable| executable.kind.name())),
            Self::ExeSha256 => optional(executable.and_then(|executable| executable.sha256.as_deref())),
            Self::ExePackage => optional(executable.and_then(|executable| executable.package.as_deref())),
            Self::Cmdline if process.command_line.is_empty() => Value::Missing,
            Self::Cmdline => Value::Text(process.command_line_text()),
            Self::Args if process.command_line.is_empty() => Value::Missing,
            Self::Args => Value::List(process.command_line.clone()),
            Self::Cwd => optional(process.working_directory.as_deref()),
            Self::Pid => Value::Number(process.key.pid.into()),
            Self::Ppid => number(parent.map(|parent| parent.pid)),
            Self::StartTime => {
                process.started_at.and_then(|at| u64::try_from(at.as_secs()).ok()).map_or(Value::Missing, Value::Number)
            }
            Self::ParentExe => optional(parent.and_then(|parent| parent.executable.as_deref())),
            Self::ParentCmdline => match parent {
                Some(parent) if !parent.command_line.is_empty() => {
                    Value::Text(bstr::join(" ", &parent.command_line).into())
                }
                _ => Value::Missing,
            },
            Self::AncestorExe => {
                let paths: Vec<BString> =
                    process.ancestors.iter().filter_map(|ancestor| ancestor.executable.clone()).collect();
                if paths.is_empty() { Value::Missing } else { Value::List(paths) }
            }
            Self::User => user_value(process.user.as_ref()),
            Self::Uid => number(process.user.as_ref().and_then(|user| user.uid)),
            Self::LoginUser => user_value(process.login_user.as_ref()),
            Self::Auid => number(process.login_user.as_ref().and_then(|user| user.uid)),
            Self::Gid => number(process.gid),
            Self::ContainerId => optional(container.map(|container| &*container.id)),
            Self::ContainerName => optional(container.and_then(|container| container.name.as_deref())),
            Self::ContainerImage => optional(container.and_then(|container| container.image.as_deref())),
            Self::ContainerRuntime => optional(container.and_then(|container| container.runtime.as_deref())),
            Self::Pod => optional(container.and_then(|container| container.pod.as_deref())),
            Self::KubernetesNamespace => optional(container.and_then(|container| container.namespace.as_deref())),
            Self::Cgroup => optional(process.cgroup.as_deref()),
            Self::Unit => optional(process.unit.as_deref()),
            Self::Slice => optional(process.slice.as_deref()),
            _ => Value::Missing,
        }
    }
}

fn user_value(user: Option<&crate::attribution::User>) -> Value {
    match user {
        Some(user) => match (&user.name, user.uid) {
            (Some(name), _) => text(&**name),
            (None, Some(uid)) => text(uid.to_string()),
            (None, None) => Value::Missing,
        },
        None => Value::Missing,
    }
}

fn text(text: impl AsRef<[u8]>) -> Value {
    Value::Text(text.as_ref().into())
}

fn optional<T: AsRef<[u8]> + ?Sized>(value: Option<&T>) -> Value {
    value.map_or(Value::Missing, text)
}

fn number(value: Option<u32>) -> Value {
    value.map_or(Value::Missing, |value| Value::Number(value.into()))
}

fn serialize_text<S: serde::Serializer>(value: &BString, serializer: S) -> Result<S::Ok, S::Error> {
    match value.to_str() {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.collect_str(&value.escape_bytes()),
    }
}
