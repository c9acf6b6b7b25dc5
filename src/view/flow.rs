//! A flow as one line of JSON or CSV: the shape that `egret flows` prints.

use std::net::IpAddr;

use bstr::ByteSlice;
use serde::Serialize;

use crate::attribution::{Attribution, FlowRecord};
use crate::flow::Direction;
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
    /// The network namespace, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
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
pub const FLOW_COLUMNS: [&str; 21] = [
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
            unknown_reason: match &record.attribution {
                Attribution::Unknown(reason) => Some(reason.name()),
                Attribution::Known { .. } | Attribution::Pending { .. } => None,
            },
            netns: Some(record.key.namespace.0).filter(|inode| *inode != 0),
        }
    }

    /// The cells of the CSV form, in the order of [`FLOW_COLUMNS`].
    pub fn cells(&self) -> [String; FLOW_COLUMNS.len()] {
        let owner = self.owner.as_ref();
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
        }
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
