//! A flow as one line of JSON or CSV: the shape that `egret flows` prints.

use std::net::IpAddr;

use bstr::ByteSlice;
use serde::Serialize;

use crate::attribution::{Attribution, UnknownReason};
use crate::flow::Direction;
use crate::names::{DestinationName, FlowRecord, Place};
use crate::packet::Protocol;
use crate::time::Timestamp;
use crate::view::OwnerView;
use crate::view::owner::printable;

/// One flow, ready to be printed.
#[derive(Debug, Serialize)]
pub struct FlowView<'a> {
    /// Protocol: a name, or a number where there is no name.
    pub proto: ProtocolView,
    /// This host's address.
    pub local_ip: IpAddr,
    /// This host's port.
    pub local_port: u16,
    /// The remote address.
    pub remote_ip: IpAddr,
    /// The remote port.
    pub remote_port: u16,
    /// IP bytes out.
    pub bytes_out: u64,
    /// IP bytes in.
    pub bytes_in: u64,
    /// Payload bytes out.
    pub payload_out: u64,
    /// Payload bytes in.
    pub payload_in: u64,
    /// Packets out.
    pub packets_out: u64,
    /// Packets in.
    pub packets_in: u64,
    /// First packet.
    pub first: Timestamp,
    /// Last packet.
    pub last: Timestamp,
    /// Which end opened the flow: `local` or `remote`.
    pub initiator: &'static str,
    /// Who opened it: `outbound`, `inbound` or `local`.
    pub direction: &'static str,
    /// Why the record was made; null while the flow is open.
    pub end_reason: Option<&'static str>,
    /// The program that owns it; null where it is not known.
    pub owner: Option<OwnerView<'a>>,
    /// How the owner is known; `none` where it is not.
    pub evidence: &'static str,
    /// Why the owner is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_reason: Option<&'static str>,
    /// Who could have sent it, where no socket did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<OwnerView<'a>>,
    /// What is spoken.
    pub l7: &'static str,
    /// What the remote end is called.
    #[serde(flatten)]
    pub name: Option<NameView<'a>>,
    /// Whose network the remote end is in.
    #[serde(flatten)]
    pub place: Option<PlaceView<'a>>,
    /// The network namespace, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
}

/// What a remote end is called; the words are those of the rule fields.
#[derive(Debug, Serialize)]
pub struct NameView<'a> {
    /// Best known name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<&'a str>,
    /// How it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_source: Option<&'static str>,
    /// Whether the names agree.
    pub domain_trust: &'static str,
    /// Name in the TLS or QUIC handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<&'a str>,
    /// Name whose DNS answer held the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<&'a str>,
    /// Name in the HTTP Host header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_host: Option<&'a str>,
    /// Registered domain of the best known name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_domain: Option<&'a str>,
}

/// Whose network a remote end is in.
#[derive(Debug, Serialize)]
pub struct PlaceView<'a> {
    /// Autonomous system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Its organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_org: Option<&'a str>,
    /// Country code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<&'a str>,
}

/// A protocol in JSON: its name, or its number where there is no name.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum ProtocolView {
    /// The name.
    Name(&'static str),
    /// The number, where there is no name.
    Number(u8),
}

/// The columns of the CSV form.
pub const FLOW_COLUMNS: [&str; 27] = [
    "proto",
    "local_ip",
    "local_port",
    "remote_ip",
    "remote_port",
    "bytes_out",
    "bytes_in",
    "payload_out",
    "payload_in",
    "packets_out",
    "packets_in",
    "first",
    "last",
    "initiator",
    "end_reason",
    "pid",
    "exe",
    "cmdline",
    "uid",
    "user",
    "evidence",
    "l7",
    "domain",
    "domain_source",
    "domain_trust",
    "asn",
    "country",
];

impl<'a> FlowView<'a> {
    /// The view of a record.
    pub fn of(record: &'a FlowRecord) -> Self {
        let counters = &record.counters;
        Self {
            proto: record.key.protocol.into(),
            local_ip: record.key.local.address.ip(),
            local_port: record.key.local.port,
            remote_ip: record.key.remote.address.ip(),
            remote_port: record.key.remote.port,
            bytes_out: counters.bytes_out.0,
            bytes_in: counters.bytes_in.0,
            payload_out: counters.payload_out.0,
            payload_in: counters.payload_in.0,
            packets_out: counters.packets_out.0,
            packets_in: counters.packets_in.0,
            first: record.first,
            last: record.last,
            initiator: match record.direction {
                Direction::Outbound | Direction::Local => "local",
                Direction::Inbound => "remote",
            },
            direction: record.direction.name(),
            end_reason: record.end_reason.map(|reason| reason.name()),
            owner: record.attribution.process().map(|process| OwnerView::of(process)),
            evidence: record.attribution.evidence().map_or("none", |evidence| evidence.name()),
            unknown_reason: record.attribution.unknown_reason().map(UnknownReason::name),
            suspects: record
                .attribution
                .suspects()
                .map(|suspects| suspects.processes.iter().map(|process| OwnerView::of(process)).collect())
                .unwrap_or_default(),
            l7: record.application.name(),
            name: record.name.as_deref().map(NameView::of),
            place: record.place.as_deref().map(PlaceView::of),
            netns: Some(record.key.namespace.0).filter(|inode| *inode != 0),
        }
    }

    /// The cells of the CSV form, in the order of [`FLOW_COLUMNS`].
    pub fn cells(&self) -> [String; FLOW_COLUMNS.len()] {
        let (owner, name, place) = (self.owner.as_ref(), self.name.as_ref(), self.place.as_ref());
        let text = |value: Option<String>| value.unwrap_or_default();
        [
            self.proto.to_string(),
            self.local_ip.to_string(),
            self.local_port.to_string(),
            self.remote_ip.to_string(),
            self.remote_port.to_string(),
            self.bytes_out.to_string(),
            self.bytes_in.to_string(),
            self.payload_out.to_string(),
            self.payload_in.to_string(),
            self.packets_out.to_string(),
            self.packets_in.to_string(),
            self.first.to_string(),
            self.last.to_string(),
            self.initiator.to_owned(),
            text(self.end_reason.map(str::to_owned)),
            text(owner.and_then(|owner| owner.pid).map(|pid| pid.to_string())),
            text(owner.and_then(|owner| owner.exe.as_deref()).map(str::to_owned)),
            text(owner.map(|owner| owner.cmdline.join(" "))),
            text(owner.and_then(|owner| owner.uid).map(|uid| uid.to_string())),
            text(owner.and_then(|owner| owner.user).map(str::to_owned)),
            self.evidence.to_owned(),
            self.l7.to_owned(),
            text(name.and_then(|name| name.domain).map(str::to_owned)),
            text(name.and_then(|name| name.domain_source).map(str::to_owned)),
            text(name.map(|name| name.domain_trust.to_owned())),
            text(place.and_then(|place| place.asn).map(|asn| asn.to_string())),
            text(place.and_then(|place| place.country).map(str::to_owned)),
        ]
    }

    /// What a table names the owner by: the executable, or the command, or the reason that it is not known.
    pub fn owner_text(record: &FlowRecord) -> String {
        match &record.attribution {
            Attribution::Known { process, .. } => match process.executable_path() {
                Some(path) => printable(path.as_bstr()).into_owned(),
                None => match process.command_line.first() {
                    Some(argument) => printable(argument.as_bstr()).into_owned(),
                    None => format!("pid {}", process.key.pid),
                },
            },
            Attribution::Pending { .. } => "?".to_owned(),
            Attribution::Unknown(reason) => format!("? ({})", reason.name()),
            Attribution::Suspected(suspects) => match suspects.executables() {
                [] => format!("? ({})", suspects.reason.name()),
                some => format!("? ({}: {})", suspects.reason.name(), printable(bstr::join(" ", some).as_bstr())),
            },
        }
    }
}

impl<'a> NameView<'a> {
    fn of(name: &'a DestinationName) -> Self {
        Self {
            domain: name.domain.as_deref(),
            domain_source: name.source.map(|source| source.name()),
            domain_trust: name.trust.name(),
            sni: name.sni.as_deref(),
            dns: name.dns.as_deref(),
            http_host: name.http_host.as_deref(),
            registered_domain: name.registered_domain.as_deref(),
        }
    }
}

impl<'a> PlaceView<'a> {
    fn of(place: &'a Place) -> Self {
        Self { asn: place.asn, as_org: place.organization.as_deref(), country: place.country.as_deref() }
    }
}

impl From<Protocol> for ProtocolView {
    fn from(protocol: Protocol) -> Self {
        protocol.name().map_or(Self::Number(protocol.0), Self::Name)
    }
}

impl std::fmt::Display for ProtocolView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}
