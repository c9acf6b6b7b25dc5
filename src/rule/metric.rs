//! What is measured over a window, and against which limit.

use std::time::Duration;

use crate::rule::Field;

/// A quantity of one group over one window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Metric {
    /// A plain sum, exact.
    Sum(Sum),
    /// Flows opened by the group.
    Connections,
    /// Flows that were refused, timed out or unreachable.
    ConnectionsFailed,
    /// How many different values of a field.
    Distinct(Field),
    /// A sum over the window's length, in bits a second.
    Rate(Sum),
    /// The highest bucket in the window, in bits a second.
    Peak(Sum),
    /// `payload_out / (payload_out + payload_in)`; undefined below `min_bytes` of payload.
    UploadRatio,
    /// `(payload_out - payload_in) / (payload_out + payload_in)`; undefined below `min_bytes` of payload.
    ProducerConsumerRatio,
    /// Bytes in both directions over connections.
    BytesPerConnection,
    /// The share of `bytes_out` of the value that has the most.
    MaxDestinationShare(Field),
    /// Seconds with traffic.
    ActiveSeconds,
    /// The age of the oldest open flow in seconds.
    FlowAgeMax,
    /// The coefficient of variation of the times between connection starts.
    IntervalVariation,
    /// DNS questions sent.
    DnsQueries,
    /// Bytes of the names in DNS questions.
    DnsNameBytes,
    /// Different names asked for.
    DnsDistinctNames,
}

/// What can be summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the rule language's own")]
pub enum Sum {
    BytesOut,
    BytesIn,
    BytesTotal,
    PayloadOut,
    PayloadIn,
    PayloadTotal,
    PacketsOut,
    PacketsIn,
    PacketsTotal,
}

/// A metric against a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// What is measured.
    pub metric: Metric,
    /// Over which window.
    pub window: Duration,
    /// How it is compared.
    pub comparison: Comparison,
    /// Ratios are undefined, and the condition false, below this many bytes of payload.
    pub min_bytes: u64,
}

/// A comparison with its limit or limits.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Comparison {
    Less(Quantity),
    LessOrEqual(Quantity),
    Greater(Quantity),
    GreaterOrEqual(Quantity),
    Equal(Quantity),
    NotEqual(Quantity),
    /// Both ends belong to the range.
    Between(Quantity, Quantity),
}

/// A limit or a measured value: a whole number (bytes, packets, bits a second, counts) or a ratio.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Quantity {
    /// Exact.
    Count(u64),
    /// A ratio or a mean.
    Ratio(f64),
}

impl Quantity {
    /// As a floating-point number, for ratios and for display.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Ratio(ratio) => ratio,
        }
    }

    fn order(self, other: Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => Some(a.cmp(&b)),
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
        }
    }
}

impl Comparison {
    /// Whether `value` satisfies it.
    pub fn holds(self, value: Quantity) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self {
            Self::Less(limit) => value.order(limit) == Some(Less),
            Self::LessOrEqual(limit) => matches!(value.order(limit), Some(Less | Equal)),
            Self::Greater(limit) => value.order(limit) == Some(Greater),
            Self::GreaterOrEqual(limit) => matches!(value.order(limit), Some(Greater | Equal)),
            Self::Equal(limit) => value.order(limit) == Some(Equal),
            Self::NotEqual(limit) => value.order(limit) != Some(Equal),
            Self::Between(low, high) => {
                matches!(value.order(low), Some(Greater | Equal)) && matches!(value.order(high), Some(Less | Equal))
            }
        }
    }

    /// The operator's word in rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Less(_) => "lt",
            Self::LessOrEqual(_) => "lte",
            Self::Greater(_) => "gt",
            Self::GreaterOrEqual(_) => "gte",
            Self::Equal(_) => "eq",
            Self::NotEqual(_) => "ne",
            Self::Between(..) => "between",
        }
    }

    /// The operator as people write it: `>=`.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Less(_) => "<",
            Self::LessOrEqual(_) => "<=",
            Self::Greater(_) => ">",
            Self::GreaterOrEqual(_) => ">=",
            Self::Equal(_) => "=",
            Self::NotEqual(_) => "!=",
            Self::Between(..) => "between",
        }
    }

    /// The same comparison with another limit; a range becomes "at least".
    #[must_use]
    pub fn with_limit(self, limit: Quantity) -> Self {
        match self {
            Self::Less(_) => Self::Less(limit),
            Self::LessOrEqual(_) => Self::LessOrEqual(limit),
            Self::Greater(_) => Self::Greater(limit),
            Self::GreaterOrEqual(_) | Self::Between(..) => Self::GreaterOrEqual(limit),
            Self::Equal(_) => Self::Equal(limit),
            Self::NotEqual(_) => Self::NotEqual(limit),
        }
    }

    /// The limit; the lower one of a range.
    pub fn limit(self) -> Quantity {
        match self {
            Self::Less(limit)
            | Self::LessOrEqual(limit)
            | Self::Greater(limit)
            | Self::GreaterOrEqual(limit)
            | Self::Equal(limit)
            | Self::NotEqual(limit)
            | Self::Between(limit, _) => limit,
        }
    }
}

impl Sum {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::BytesOut,
        Self::BytesIn,
        Self::BytesTotal,
        Self::PayloadOut,
        Self::PayloadIn,
        Self::PayloadTotal,
        Self::PacketsOut,
        Self::PacketsIn,
        Self::PacketsTotal,
    ];

    /// The word for it in rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::BytesOut => "bytes_out",
            Self::BytesIn => "bytes_in",
            Self::BytesTotal => "bytes_total",
            Self::PayloadOut => "payload_out",
            Self::PayloadIn => "payload_in",
            Self::PayloadTotal => "payload_total",
            Self::PacketsOut => "packets_out",
            Self::PacketsIn => "packets_in",
            Self::PacketsTotal => "packets_total",
        }
    }
}

impl std::fmt::Display for Metric {
    /// The word for it in rules: `bytes_out`, `distinct(dst.ip)`, `bytes_out.rate`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sum(sum) => f.write_str(sum.name()),
            Self::Connections => f.write_str("connections"),
            Self::ConnectionsFailed => f.write_str("connections_failed"),
            Self::Distinct(field) => write!(f, "distinct({field})"),
            Self::Rate(sum) => write!(f, "{}.rate", sum.name()),
            Self::Peak(sum) => write!(f, "peak({})", sum.name()),
            Self::UploadRatio => f.write_str("upload_ratio"),
            Self::ProducerConsumerRatio => f.write_str("pcr"),
            Self::BytesPerConnection => f.write_str("bytes_per_connection"),
            Self::MaxDestinationShare(field) => write!(f, "max_destination_share({field})"),
            Self::ActiveSeconds => f.write_str("active_seconds"),
            Self::FlowAgeMax => f.write_str("flow_age_max"),
            Self::IntervalVariation => f.write_str("interval_cv"),
            Self::DnsQueries => f.write_str("dns.queries"),
            Self::DnsNameBytes => f.write_str("dns.qname_bytes"),
            Self::DnsDistinctNames => f.write_str("dns.distinct_names"),
        }
    }
}
