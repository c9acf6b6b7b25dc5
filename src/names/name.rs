//! The name of a flow's remote end, how it was learnt, and how far to trust it.

use std::sync::Arc;

/// What a flow's remote end is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DestinationName {
    /// The best known name, lower case, without a trailing dot.
    pub domain: Option<Arc<str>>,
    /// Where the best name came from.
    pub source: Option<NameSource>,
    /// Whether the names agree.
    pub trust: Trust,
    /// The name in the TLS or QUIC handshake.
    pub sni: Option<Arc<str>>,
    /// The name whose DNS answer held the address.
    pub dns: Option<Arc<str>>,
    /// The name in the HTTP Host header.
    pub http_host: Option<Arc<str>>,
    /// The best name's registered domain by the public suffix list.
    pub registered_domain: Option<Arc<str>>,
}

/// How a name was learnt: the rule field `dst.domain.source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NameSource {
    /// TLS server name indication (RFC 6066).
    Sni,
    /// The same in a QUIC Initial packet (RFC 9001).
    Quic,
    /// A DNS answer that held the address.
    Dns,
    /// The HTTP Host header.
    Http,
}

/// Whether a flow's names agree: the rule field `dst.domain.trust`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// A DNS answer bound the name that the handshake gives to this address.
    Agreed,
    /// Only one kind of evidence exists: DNS alone.
    Single,
    /// The handshake gives a name that no DNS answer bound to this address.
    Unconfirmed,
    /// There is no name.
    #[default]
    None,
}

/// What is spoken over the transport: the rule field `l7`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Application {
    Tls,
    Quic,
    Http,
    Dns,
    Ssh,
    Ftp,
    Smtp,
    Ntp,
    /// Something else that was recognised.
    Other,
    /// Not recognised.
    #[default]
    Unknown,
}

/// The network and country of an address, from databases that the user brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The autonomous system's number.
    pub asn: Option<u32>,
    /// The autonomous system's organisation.
    pub organization: Option<Arc<str>>,
    /// The ISO 3166 country code.
    pub country: Option<Arc<str>>,
}

impl NameSource {
    /// The word for it in rules, alerts and flows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sni => "sni",
            Self::Quic => "quic",
            Self::Dns => "dns",
            Self::Http => "http",
        }
    }
}

impl Trust {
    /// The word for it in rules, alerts and flows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Single => "single",
            Self::Unconfirmed => "unconfirmed",
            Self::None => "none",
        }
    }
}

impl Application {
    /// Every one of them, for whoever reads a word.
    pub const ALL: &[Self] = &[
        Self::Tls,
        Self::Quic,
        Self::Http,
        Self::Dns,
        Self::Ssh,
        Self::Ftp,
        Self::Smtp,
        Self::Ntp,
        Self::Other,
        Self::Unknown,
    ];

    /// The word for it in rules, alerts and flows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Http => "http",
            Self::Dns => "dns",
            Self::Ssh => "ssh",
            Self::Ftp => "ftp",
            Self::Smtp => "smtp",
            Self::Ntp => "ntp",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}
