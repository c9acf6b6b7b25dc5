//! A field's value, borrowed: what conditions test without copying.

use std::borrow::Cow;
use std::sync::Arc;

use bstr::BString;

use crate::attribution::{Ancestor, Attribution, Process, User};
use crate::flow::Scope;
use crate::packet::Address;
use crate::rule::{Field, Host, Observation, Value};

/// A field's value in one observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<'a> {
    /// The field has no value here.
    Missing,
    /// A whole number.
    Number(u64),
    /// An address.
    Ip(Address),
    /// Bytes that somebody else wrote, or a word of ours.
    Text(Cow<'a, [u8]>),
    /// A user, who goes by name and by number.
    User(&'a User),
    /// A group, which goes by name and by number.
    Group {
        /// Its name.
        name: Option<&'a str>,
        /// Its number.
        id: u32,
    },
    /// Arguments.
    Arguments(&'a [BString]),
    /// Parents; their executables count.
    Ancestors(&'a [Ancestor]),
    /// Words.
    Words(&'a [Arc<str>]),
}

/// Which part of an observation decides a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decider {
    /// The owner and this host: the same for every flow of one process.
    Owner,
    /// The flow itself: known once a flow has its owner, its name and its place.
    Flow,
    /// The flow's progress: changes with every packet.
    Progress,
}

impl Field {
    /// Which part of an observation decides this field.
    pub fn decider(self) -> Decider {
        match self {
            Self::SrcIp
            | Self::SrcPort
            | Self::DstIp
            | Self::DstPort
            | Self::DstScope
            | Self::Direction
            | Self::Proto
            | Self::L7
            | Self::Iface
            | Self::Netns
            | Self::DstDomain
            | Self::DstDomainSource
            | Self::DstDomainTrust
            | Self::DstSni
            | Self::DstDns
            | Self::DstRegisteredDomain
            | Self::DstAsn
            | Self::DstAsOrg
            | Self::DstCountry
            | Self::DnsRegisteredDomain => Decider::Flow,
            Self::FlowBytesOut | Self::FlowBytesIn | Self::FlowAge | Self::FlowState => Decider::Progress,
            _ => Decider::Owner,
        }
    }

    /// The field's value in one observation.
    pub fn fact<'a>(self, seen: &Observation<'a>) -> Fact<'a> {
        match self {
            Self::SrcIp => Fact::Ip(seen.key.local.address),
            Self::SrcPort => Fact::Number(seen.key.local.port.into()),
            Self::DstIp => Fact::Ip(seen.key.remote.address),
            Self::DstPort => Fact::Number(seen.key.remote.port.into()),
            Self::DstScope => text(Scope::of(seen.key.remote.address).name()),
            Self::Direction => text(seen.direction.name()),
            Self::Proto => match seen.key.protocol.name() {
                Some(name) => text(name),
                None => Fact::Text(Cow::Owned(seen.key.protocol.0.to_string().into_bytes())),
            },
            Self::L7 => text(seen.application.name()),
            Self::Iface => optional(seen.interface),
            Self::Netns => match seen.key.namespace.0 {
                0 => Fact::Missing,
                inode => Fact::Number(inode.into()),
            },
            Self::DstDomain => optional(seen.name.and_then(|name| name.domain.as_deref())),
            Self::DstDomainSource => {
                text(seen.name.and_then(|name| name.source).map_or("none", |source| source.name()))
            }
            Self::DstDomainTrust => optional(seen.name.map(|name| name.trust.name())),
            Self::DstSni => optional(seen.name.and_then(|name| name.sni.as_deref())),
            Self::DstDns => optional(seen.name.and_then(|name| name.dns.as_deref())),
            Self::DstRegisteredDomain => optional(seen.name.and_then(|name| name.registered_domain.as_deref())),
            Self::DstAsn => number(seen.place.and_then(|place| place.asn)),
            Self::DstAsOrg => optional(seen.place.and_then(|place| place.organization.as_deref())),
            Self::DstCountry => optional(seen.place.and_then(|place| place.country.as_deref())),
            Self::DnsRegisteredDomain => optional(seen.dns.and_then(|query| query.registered_domain.as_deref())),
            Self::FlowBytesOut => Fact::Number(seen.totals.bytes_out.0),
            Self::FlowBytesIn => Fact::Number(seen.totals.bytes_in.0),
            Self::FlowAge => Fact::Number(seen.now.since(seen.first).as_secs()),
            Self::FlowState => text(seen.state.name()),
            _ => self.fact_of_owner(seen.attribution, seen.host),
        }
    }

    /// The value of a field that the owner decides ([`Decider::Owner`]); `Missing` for every other field.
    pub fn fact_of_owner<'a>(self, attribution: &'a Attribution, host: &'a Host) -> Fact<'a> {
        match self {
            Self::Attribution => text(attribution.certainty().name()),
            Self::Evidence => text(attribution.evidence().map_or("none", |evidence| evidence.name())),
            Self::UnknownReason => attribution.unknown_reason().map_or(Fact::Missing, |reason| text(reason.name())),
            Self::Suspects => match attribution.suspects().map(|suspects| suspects.executables()) {
                None | Some([]) => Fact::Missing,
                Some(executables) => Fact::Arguments(executables),
            },
            Self::Host => text(&host.name),
            Self::HostTags if host.tags.is_empty() => Fact::Missing,
            Self::HostTags => Fact::Words(&host.tags),
            _ => attribution.process().map_or(Fact::Missing, |process| self.fact_of_process(process)),
        }
    }

    fn fact_of_process(self, process: &Process) -> Fact<'_> {
        let executable = process.executable.as_ref();
        let container = process.container.as_ref();
        let parent = process.ancestors.first();
        match self {
            Self::Exe => process.executable_path().map_or(Fact::Missing, bytes),
            Self::ExeName => process.executable_name().map_or(Fact::Missing, bytes),
            Self::ExeKind => text(executable.map_or("unknown", |executable| executable.kind.name())),
            Self::ExeSha256 => optional(executable.and_then(|executable| executable.sha256.as_deref())),
            Self::ExePackage => optional(executable.and_then(|executable| executable.package.as_deref())),
            Self::Cmdline => joined(&process.command_line),
            Self::Args if process.command_line.is_empty() => Fact::Missing,
            Self::Args => Fact::Arguments(&process.command_line),
            Self::Script => process.script().map_or(Fact::Missing, |path| Fact::Text(Cow::Owned(path.into()))),
            Self::Cwd => process.working_directory.as_ref().map_or(Fact::Missing, |path| bytes(path)),
            Self::Pid => Fact::Number(process.key.pid.into()),
            Self::Ppid => number(parent.map(|parent| parent.pid)),
            Self::StartTime => {
                process.started_at.and_then(|at| u64::try_from(at.as_secs()).ok()).map_or(Fact::Missing, Fact::Number)
            }
            Self::ParentExe => {
                parent.and_then(|parent| parent.executable.as_ref()).map_or(Fact::Missing, |path| bytes(path))
            }
            Self::ParentCmdline => parent.map_or(Fact::Missing, |parent| joined(&parent.command_line)),
            Self::AncestorExe if process.ancestors.iter().all(|ancestor| ancestor.executable.is_none()) => {
                Fact::Missing
            }
            Self::AncestorExe => Fact::Ancestors(&process.ancestors),
            Self::User => user(process.user.as_ref()),
            Self::Uid => number(process.user.as_ref().and_then(|user| user.uid)),
            Self::LoginUser => user(process.login_user.as_ref()),
            Self::Auid => number(process.login_user.as_ref().and_then(|user| user.uid)),
            Self::Group => process.gid.map_or(Fact::Missing, |id| Fact::Group { name: process.group.as_deref(), id }),
            Self::Gid => number(process.gid),
            Self::ContainerId => optional(container.map(|container| &*container.id)),
            Self::ContainerName => optional(container.and_then(|container| container.name.as_deref())),
            Self::ContainerImage => optional(container.and_then(|container| container.image.as_deref())),
            Self::ContainerRuntime => optional(container.and_then(|container| container.runtime.as_deref())),
            Self::ContainerLabels => match container.map(|container| container.labels.as_slice()) {
                None | Some([]) => Fact::Missing,
                Some(labels) => Fact::Words(labels),
            },
            Self::Pod => optional(container.and_then(|container| container.pod.as_deref())),
            Self::KubernetesNamespace => optional(container.and_then(|container| container.namespace.as_deref())),
            Self::Cgroup => optional(process.cgroup.as_deref()),
            Self::Unit => optional(process.unit.as_deref()),
            Self::Slice => optional(process.slice.as_deref()),
            _ => Fact::Missing,
        }
    }
}

impl Fact<'_> {
    /// The value that group keys and alerts keep.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Missing => Value::Missing,
            Self::Number(number) => Value::Number(*number),
            Self::Ip(address) => Value::Ip(*address),
            Self::Text(text) => Value::Text(text.as_ref().into()),
            Self::User(user) => match (&user.name, user.uid) {
                (Some(name), _) => Value::Text(name.as_bytes().into()),
                (None, Some(uid)) => Value::Text(uid.to_string().into()),
                (None, None) => Value::Missing,
            },
            Self::Group { name: Some(name), .. } => Value::Text((*name).into()),
            Self::Group { name: None, id } => Value::Text(id.to_string().into()),
            Self::Arguments(arguments) => Value::List(arguments.to_vec()),
            Self::Ancestors(ancestors) => {
                Value::List(ancestors.iter().filter_map(|ancestor| ancestor.executable.clone()).collect())
            }
            Self::Words(words) => Value::List(words.iter().map(|word| word.as_bytes().into()).collect()),
        }
    }
}

fn text(text: &str) -> Fact<'_> {
    bytes(text.as_bytes())
}

fn bytes(bytes: &[u8]) -> Fact<'_> {
    Fact::Text(Cow::Borrowed(bytes))
}

fn optional(value: Option<&str>) -> Fact<'_> {
    value.map_or(Fact::Missing, text)
}

fn number<'a>(value: Option<u32>) -> Fact<'a> {
    value.map_or(Fact::Missing, |value| Fact::Number(value.into()))
}

fn user(user: Option<&User>) -> Fact<'_> {
    match user {
        Some(user) if user.name.is_some() || user.uid.is_some() => Fact::User(user),
        _ => Fact::Missing,
    }
}

fn joined(arguments: &[BString]) -> Fact<'_> {
    match arguments {
        [] => Fact::Missing,
        [only] => bytes(only),
        several => Fact::Text(Cow::Owned(bstr::join(" ", several))),
    }
}
