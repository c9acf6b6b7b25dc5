//! What type a field has, and what can be asked of it.

use crate::rule::Field;

/// The type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path: `*` stays within a segment, `**` crosses them.
    Path,
    /// Several paths.
    Paths,
    /// Several texts.
    Texts,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A domain name.
    Domain,
    /// An address.
    Ip,
    /// A port.
    Port,
    /// A whole number.
    Number,
    /// A user or group by name or number.
    User,
    /// A number of bytes.
    Size,
    /// A length of time, in seconds.
    Duration,
    /// A transport protocol by name or number.
    Protocol,
}

/// Something that can be asked of a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Operator {
    /// The word for it.
    pub name: &'static str,
    /// One line about it.
    pub description: &'static str,
}

impl Field {
    /// The type of its values.
    pub fn kind(self) -> Kind {
        match self {
            Self::Exe | Self::Script | Self::Cwd | Self::ParentExe | Self::Cgroup => Kind::Path,
            Self::AncestorExe | Self::Suspects => Kind::Paths,
            Self::Args | Self::HostTags | Self::ContainerLabels => Kind::Texts,
            Self::ExeKind => Kind::Word(&["file", "deleted", "memfd", "kernel", "unknown"]),
            Self::Direction => Kind::Word(&["outbound", "inbound", "local"]),
            Self::L7 => Kind::Word(&["tls", "quic", "http", "dns", "ssh", "ftp", "smtp", "ntp", "other", "unknown"]),
            Self::DstScope => Kind::Word(&["loopback", "link_local", "private", "multicast", "special", "public"]),
            Self::DstDomainSource => Kind::Word(&["sni", "quic", "dns", "http", "none"]),
            Self::DstDomainTrust => Kind::Word(&["agreed", "single", "unconfirmed", "none"]),
            Self::Attribution => Kind::Word(&["exact", "inferred", "unknown"]),
            Self::Evidence => Kind::Word(&[
                "kernel",
                "exact",
                "wildcard",
                "inherited",
                "listener",
                "carrier",
                "capture",
                "declared",
                "none",
            ]),
            Self::UnknownReason => {
                Kind::Word(&["gone", "permission", "forwarded", "kernel", "no_socket", "ambiguous", "no_source"])
            }
            Self::FlowState => Kind::Word(&["new", "established", "closed", "failed"]),
            Self::DstDomain | Self::DstSni | Self::DstDns | Self::DstRegisteredDomain | Self::DnsRegisteredDomain => {
                Kind::Domain
            }
            Self::SrcIp | Self::DstIp => Kind::Ip,
            Self::SrcPort | Self::DstPort => Kind::Port,
            Self::Pid | Self::Ppid | Self::StartTime | Self::Netns | Self::DstAsn => Kind::Number,
            Self::User | Self::Uid | Self::LoginUser | Self::Auid | Self::Group | Self::Gid => Kind::User,
            Self::Proto => Kind::Protocol,
            Self::FlowBytesOut | Self::FlowBytesIn => Kind::Size,
            Self::FlowAge => Kind::Duration,
            _ => Kind::Text,
        }
    }

    /// What must be there for the field to have a value.
    pub fn needs(self) -> Option<&'static str> {
        match self {
            Self::ExeSha256 => Some("hashing of executables (`resolve.hash`, or a rule that asks)"),
            Self::ExePackage => Some("a package database (dpkg or rpm)"),
            Self::DstAsn | Self::DstAsOrg => Some("an AS database (`names.databases`)"),
            Self::DstCountry => Some("a country database (`names.databases`)"),
            Self::ContainerName | Self::ContainerImage | Self::ContainerLabels => {
                Some("the container runtime's state on this host")
            }
            Self::Pod | Self::KubernetesNamespace => Some("a kubelet on this host"),
            Self::DstDomain | Self::DstDns | Self::DstRegisteredDomain | Self::DnsRegisteredDomain => {
                Some("packets to look into (DNS, TLS, QUIC, HTTP)")
            }
            Self::DstSni | Self::DstDomainSource | Self::DstDomainTrust => {
                Some("packets to look into (DNS, TLS, QUIC, HTTP)")
            }
            Self::Iface => Some("a source that names interfaces"),
            Self::HostTags => Some("`host.tags` in the configuration"),
            _ => None,
        }
    }
}

impl Kind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Path => "path",
            Self::Paths => "list of paths",
            Self::Texts => "list of texts",
            Self::Word(_) => "word",
            Self::Domain => "domain",
            Self::Ip => "ip",
            Self::Port => "port",
            Self::Number => "number",
            Self::User => "user",
            Self::Size => "size",
            Self::Duration => "duration",
            Self::Protocol => "protocol",
        }
    }

    /// The word for it with its article: `an ip`.
    pub fn with_article(self) -> String {
        let name = self.name();
        if name == "ip" { format!("an {name}") } else { format!("a {name}") }
    }

    /// What can be asked of it, the meaning of a bare value first.
    pub fn operators(self) -> Vec<&'static Operator> {
        let names: &[&str] = match self {
            Self::Text => TEXT,
            Self::Path => PATH,
            Self::Paths | Self::Texts => LIST,
            Self::Word(_) | Self::Protocol => &["in", "not_in", "eq", "ne", "exists"],
            Self::Domain => &["in", "not_in", "like", "not_like", "suffix", "exists"],
            Self::Ip => &["in", "not_in", "exists"],
            Self::Port | Self::Number => NUMBER,
            Self::User => USER,
            Self::Size | Self::Duration => &["lt", "lte", "gt", "gte", "between", "exists"],
        };
        names.iter().filter_map(|name| operator(name)).collect()
    }
}

/// The operator of a name.
pub fn operator(name: &str) -> Option<&'static Operator> {
    OPERATORS.iter().find(|operator| operator.name == name)
}

const TEXT: &[&str] = &[
    "eq",
    "ne",
    "in",
    "not_in",
    "like",
    "not_like",
    "prefix",
    "suffix",
    "contains",
    "regex",
    "exists",
    "ieq",
    "icontains",
];
const PATH: &[&str] = &[
    "like",
    "not_like",
    "in",
    "not_in",
    "eq",
    "ne",
    "prefix",
    "suffix",
    "contains",
    "regex",
    "exists",
    "ieq",
    "icontains",
];
const LIST: &[&str] = &[
    "any",
    "all",
    "none",
    "eq",
    "ne",
    "in",
    "not_in",
    "like",
    "not_like",
    "prefix",
    "suffix",
    "contains",
    "regex",
    "exists",
    "ieq",
    "icontains",
];
const NUMBER: &[&str] = &["in", "not_in", "eq", "ne", "lt", "lte", "gt", "gte", "between", "exists"];
const USER: &[&str] = &[
    "in",
    "not_in",
    "eq",
    "ne",
    "lt",
    "lte",
    "gt",
    "gte",
    "between",
    "like",
    "not_like",
    "prefix",
    "suffix",
    "contains",
    "regex",
    "exists",
    "ieq",
    "icontains",
];

/// Every operator.
pub const OPERATORS: &[Operator] = &[
    Operator { name: "eq", description: "equal to this value, or to one of these" },
    Operator { name: "ne", description: "not `eq`; true for a missing value" },
    Operator { name: "in", description: "one of these values, or in one of these lists" },
    Operator { name: "not_in", description: "not `in`; true for a missing value" },
    Operator {
        name: "like",
        description: "matches a glob: `*`, `?`; in paths `*` stays within a segment and `**` crosses them",
    },
    Operator { name: "not_like", description: "not `like`; true for a missing value" },
    Operator { name: "prefix", description: "starts with this" },
    Operator { name: "suffix", description: "ends with this; in domains this name and its subdomains" },
    Operator { name: "contains", description: "has this in it" },
    Operator {
        name: "regex",
        description: "matches this expression somewhere (Rust `regex` syntax, on bytes); `full: true` for the whole value",
    },
    Operator { name: "exists", description: "`true`: the field has a value; `false`: it has none" },
    Operator { name: "ieq", description: "equal, whatever the case of ASCII letters" },
    Operator { name: "icontains", description: "has this in it, whatever the case of ASCII letters" },
    Operator { name: "lt", description: "less than" },
    Operator { name: "lte", description: "at most" },
    Operator { name: "gt", description: "more than" },
    Operator { name: "gte", description: "at least" },
    Operator { name: "between", description: "`[low, high]`, both included" },
    Operator { name: "any", description: "at least one element satisfies this" },
    Operator { name: "all", description: "every element satisfies this, and there is one" },
    Operator { name: "none", description: "no element satisfies this; true for a missing value" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_that_a_type_names_exists() {
        for names in [TEXT, PATH, LIST, NUMBER, USER] {
            for name in names {
                assert!(operator(name).is_some(), "{name}");
            }
        }
        for field in Field::ALL {
            assert!(!field.kind().operators().is_empty(), "{field}");
        }
    }
}
