//! What a rule can look at: the fields of a flow, and their values.

use std::borrow::Cow;
use std::fmt;

use bstr::{BString, ByteSlice};

use crate::escape::OneLine;
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
    Script "script" "script that an interpreter runs, as its command line tells"
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
    Group "group" "group name, or number where there is no name"
    Gid "gid" "group id"
    ContainerId "container.id" "container id"
    ContainerName "container.name" "container name"
    ContainerImage "container.image" "container image"
    ContainerRuntime "container.runtime" "container runtime"
    ContainerLabels "container.labels" "labels of the container and its pod, as key=value"
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
    DstDomainSource "dst.domain.source" "how the name is known: sni, quic, dns, http or none"
    DstDomainTrust "dst.domain.trust" "whether the names agree: agreed, single, unconfirmed, none"
    DstSni "dst.sni" "name in the TLS or QUIC handshake"
    DstDns "dst.dns" "name whose DNS answer held the address"
    DstRegisteredDomain "dst.registered_domain" "registered domain by the public suffix list"
    DstAsn "dst.asn" "autonomous system number"
    DstAsOrg "dst.as_org" "autonomous system's organisation"
    DstCountry "dst.country" "country code"
    Attribution "attribution" "exact, inferred or unknown"
    Evidence "evidence" "how the owner is known, or none"
    UnknownReason "unknown_reason" "why the owner is not known: gone, permission, forwarded, kernel, no_socket, ambiguous, no_source"
    Suspects "suspects" "executables that hold packet sockets and could have sent what no socket did"
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
    List(#[serde(serialize_with = "serialize_texts")] Vec<BString>),
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
            Self::Text(text) => OneLine(text).fmt(f),
            Self::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { " " }, OneLine(item))?;
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

    /// The field's value in one observation, to keep.
    pub fn value(self, seen: &Observation<'_>) -> Value {
        self.fact(seen).to_value()
    }
}

/// Letters as they are; a byte that is no UTF-8 as `\xff`.
fn serialize_text<S: serde::Serializer>(value: &BString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&readable(value))
}

fn serialize_texts<S: serde::Serializer>(list: &[BString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(readable))
}

fn readable(value: &BString) -> Cow<'_, str> {
    match value.to_str() {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(value.len() + 8);
            for chunk in value.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
            }
            Cow::Owned(text)
        }
    }
}
