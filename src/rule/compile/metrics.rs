//! Conditions on metrics: `when`, `resolve`, `escalate`, and what they have in common.

use std::time::Duration;

use crate::rule::catalogue as code;
use crate::rule::compile::Compiler;
use crate::rule::compile::matching::MAX_NESTING;
use crate::rule::diagnose::{Diagnostic, Span};
use crate::rule::kind::Kind;
use crate::rule::literal::{self, BadLiteral};
use crate::rule::yaml::{Entry, Node, Yaml};
use crate::rule::{Clause, Comparison, Field, Metric, Quantity, Spike, Sum, Threshold};

/// Ratios are undefined below this many bytes of payload.
const MIN_BYTES: u64 = 64 * 1024;
const MAX_WINDOW: Duration = Duration::from_secs(31 * 86_400);

/// What the unit of a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Rate,
    Count,
    Seconds,
    Ratio,
}

impl Metric {
    pub(super) fn unit(&self) -> Unit {
        match self {
            Self::Sum(Sum::PacketsOut | Sum::PacketsIn | Sum::PacketsTotal)
            | Self::Connections
            | Self::ConnectionsFailed
            | Self::Distinct(_)
            | Self::DnsQueries
            | Self::DnsDistinctNames => Unit::Count,
            Self::Sum(_) | Self::BytesPerConnection | Self::DnsNameBytes => Unit::Bytes,
            Self::Rate(_) | Self::Peak(_) => Unit::Rate,
            Self::ActiveSeconds | Self::FlowAgeMax => Unit::Seconds,
            Self::UploadRatio
            | Self::ProducerConsumerRatio
            | Self::MaxDestinationShare(_)
            | Self::IntervalVariation => Unit::Ratio,
        }
    }

    /// Whether its value over an earlier window can be told from the buckets.
    fn is_counted_by_buckets(&self) -> bool {
        matches!(
            self,
            Self::Sum(_)
                | Self::Rate(_)
                | Self::Peak(_)
                | Self::Connections
                | Self::ConnectionsFailed
                | Self::DnsQueries
                | Self::DnsNameBytes
        )
    }

    /// Every metric, as examples for documentation and for suggestions.
    pub fn all() -> Vec<Self> {
        let sums = Sum::ALL.iter().copied();
        let bytes = || sums.clone().filter(|sum| !sum.name().starts_with("packets"));
        let mut all: Vec<Self> = sums.clone().map(Self::Sum).collect();
        all.extend([Self::Connections, Self::ConnectionsFailed]);
        all.extend(DISTINCT.iter().copied().map(Self::Distinct));
        all.extend(bytes().map(Self::Rate));
        all.extend(bytes().map(Self::Peak));
        all.extend([Self::UploadRatio, Self::ProducerConsumerRatio, Self::BytesPerConnection]);
        all.extend(SHARED.iter().copied().map(Self::MaxDestinationShare));
        all.extend([
            Self::ActiveSeconds,
            Self::FlowAgeMax,
            Self::IntervalVariation,
            Self::DnsQueries,
            Self::DnsNameBytes,
            Self::DnsDistinctNames,
        ]);
        all
    }

    /// The metric of a name that its `Display` gives.
    pub fn from_name(name: &str) -> Option<Self> {
        let compact: String = name.chars().filter(|character| !character.is_whitespace()).collect();
        Self::all().into_iter().find(|metric| metric.to_string() == compact)
    }

    /// One line about it.
    pub fn description(&self) -> &'static str {
        match self {
            Self::Sum(Sum::BytesOut) => "IP bytes sent",
            Self::Sum(Sum::BytesIn) => "IP bytes received",
            Self::Sum(Sum::BytesTotal) => "IP bytes both ways",
            Self::Sum(Sum::PayloadOut) => "bytes sent after the transport header",
            Self::Sum(Sum::PayloadIn) => "bytes received after the transport header",
            Self::Sum(Sum::PayloadTotal) => "bytes both ways after the transport header",
            Self::Sum(Sum::PacketsOut) => "packets sent",
            Self::Sum(Sum::PacketsIn) => "packets received",
            Self::Sum(Sum::PacketsTotal) => "packets both ways",
            Self::Connections => "flows opened",
            Self::ConnectionsFailed => "flows refused, timed out or unreachable",
            Self::Distinct(_) => "how many different values; exact up to 4096",
            Self::Rate(_) => "the window's sum over its length",
            Self::Peak(_) => "the highest bucket in the window, as a rate",
            Self::UploadRatio => "payload_out / (payload_out + payload_in); undefined below `min_bytes`",
            Self::ProducerConsumerRatio => "(payload_out - payload_in) / (payload_out + payload_in)",
            Self::BytesPerConnection => "bytes both ways over flows opened",
            Self::MaxDestinationShare(_) => "share of bytes_out of the value that has the most",
            Self::ActiveSeconds => "seconds with traffic",
            Self::FlowAgeMax => "age of the oldest open flow",
            Self::IntervalVariation => "variation of the times between flow starts; needs 8 of them",
            Self::DnsQueries => "DNS questions sent",
            Self::DnsNameBytes => "bytes of the names in DNS questions",
            Self::DnsDistinctNames => "different names asked for",
        }
    }
}

/// A written quantity of some unit.
pub(super) type ReadQuantity = fn(&str) -> Result<Quantity, BadLiteral>;

impl Unit {
    pub(super) fn read(self) -> ReadQuantity {
        match self {
            Self::Bytes => |text| literal::size(text).map(Quantity::Count),
            Self::Rate => |text| literal::rate(text).map(Quantity::Count),
            Self::Count => |text| literal::integer(text).map(Quantity::Count),
            Self::Seconds => |text| match text.parse() {
                Ok(seconds) => Ok(Quantity::Count(seconds)),
                Err(_) => literal::duration(text).map(|duration| Quantity::Count(duration.as_secs())),
            },
            Self::Ratio => |text| literal::number(text).map(Quantity::Ratio),
        }
    }
}

impl Compiler<'_> {
    /// The conditions of a `when`; all must hold.
    pub(super) fn clauses(&mut self, node: &Node, window: Option<Duration>, depth: usize) -> Option<Vec<Clause>> {
        if depth > MAX_NESTING {
            self.push(Diagnostic::new(
                &code::NESTING,
                node.span,
                format!("conditions are nested more than {MAX_NESTING} deep"),
            ));
            return None;
        }
        let elements = match &node.value {
            Yaml::Sequence(elements) => elements.as_slice(),
            Yaml::Mapping(_) => std::slice::from_ref(node),
            Yaml::Scalar { .. } => {
                self.wrong_shape(node, "conditions (`{bytes_out: {gte: 500MB}}`)");
                return None;
            }
        };
        if elements.is_empty() {
            self.push(Diagnostic::new(&code::WRONG_SHAPE, node.span, "at least one condition is needed"));
            return None;
        }
        let mut clauses = Vec::new();
        let mut complete = true;
        for element in elements {
            match self.clauses_of_element(element, window, depth) {
                Some(more) => clauses.extend(more),
                None => complete = false,
            }
        }
        complete.then_some(clauses)
    }

    fn clauses_of_element(&mut self, node: &Node, window: Option<Duration>, depth: usize) -> Option<Vec<Clause>> {
        let entries = self.expect_mapping(node)?;
        let own = match node.child("window") {
            Some(own) => Some(self.window(own)?),
            None => window,
        };
        let min_bytes = match node.child("min_bytes") {
            Some(node) => self.literal(node, literal::size)?,
            None => MIN_BYTES,
        };
        let mut clauses = Vec::new();
        let mut complete = true;
        let mut metrics = 0;
        for entry in entries {
            match entry.key.text.as_str() {
                "window" | "min_bytes" | "floor" => {}
                "any" | "all" => {
                    metrics += 1;
                    match self.clauses(&entry.value, own, depth + 1) {
                        Some(parts) if entry.key.text == "any" => clauses.push(Clause::Any(parts)),
                        Some(parts) => clauses.push(Clause::All(parts)),
                        None => complete = false,
                    }
                }
                _ => {
                    metrics += 1;
                    match self.clauses_of_metric(entry, own, min_bytes, node.child("floor")) {
                        Some(more) => clauses.extend(more),
                        None => complete = false,
                    }
                }
            }
        }
        if metrics == 0 {
            self.push(
                Diagnostic::new(&code::MISSING_KEY, node.span, "a condition needs a metric")
                    .help("`{bytes_out: {gte: 500MB}}`"),
            );
            return None;
        }
        complete.then_some(clauses)
    }

    fn clauses_of_metric(
        &mut self,
        entry: &Entry,
        window: Option<Duration>,
        min_bytes: u64,
        floor: Option<&Node>,
    ) -> Option<Vec<Clause>> {
        let metric = self.metric(&entry.key.text, entry.key.span)?;
        let Some(window) = window else {
            let found =
                Diagnostic::new(&code::NO_WINDOW, entry.key.span, format!("over which time is `{metric}` measured?"))
                    .help("give the rule a `window`, such as `window: 10m`");
            self.push(found);
            return None;
        };
        let Yaml::Mapping(comparisons) = &entry.value.value else {
            let written = entry.value.text().unwrap_or("...").trim_start_matches(['>', '<', '=', ' ']).to_owned();
            let found = Diagnostic::new(&code::WRONG_SHAPE, entry.value.span, format!("`{metric}` needs an operator"))
                .help(format!("write `{metric}: {{gte: {written}}}`"));
            self.push(found);
            return None;
        };
        let mut clauses = Vec::new();
        let mut complete = true;
        for comparison in comparisons {
            if comparison.key.text == "floor" {
                continue;
            }
            let floor = floor.or_else(|| entry.value.child("floor"));
            match self.clause(&metric, comparison, window, min_bytes, floor) {
                Some(clause) => clauses.push(clause),
                None => complete = false,
            }
        }
        self.check_bounds(&metric, &clauses, entry.value.span);
        (complete && !clauses.is_empty()).then_some(clauses)
    }

    fn clause(
        &mut self,
        metric: &Metric,
        entry: &Entry,
        window: Duration,
        min_bytes: u64,
        floor: Option<&Node>,
    ) -> Option<Clause> {
        let operator = entry.key.text.as_str();
        if !COMPARISONS.contains(&operator) {
            let meant = match operator {
                ">=" | "ge" | "min" | "at_least" => Some("gte"),
                "<=" | "le" | "max" | "at_most" => Some("lte"),
                ">" | "over" | "above" => Some("gt"),
                "<" | "under" | "below" => Some("lt"),
                "==" | "=" => Some("eq"),
                _ => None,
            };
            let found = Diagnostic::new(
                &code::UNKNOWN_OPERATOR,
                entry.key.span,
                format!("`{metric}` cannot be compared by `{operator}`"),
            );
            let found = match meant {
                Some(meant) => found.help(format!("did you mean `{meant}`?")).fix(entry.key.span, meant),
                None => found.suggest(operator, COMPARISONS.iter().copied()),
            };
            self.push(found.help(format!("possible: {}", COMPARISONS.join(", "))));
            return None;
        }
        if let Yaml::Mapping(_) = entry.value.value {
            return self.spike(metric, entry, window, floor);
        }
        let read = metric.unit().read();
        let comparison = if operator == "between" {
            let [low, high] = self.expect_list(&entry.value)? else {
                let found =
                    Diagnostic::new(&code::WRONG_SHAPE, entry.value.span, "`between` takes two values: `[low, high]`");
                self.push(found);
                return None;
            };
            let (low, high) = (self.literal(low, read)?, self.literal(high, read)?);
            if low.as_f64() > high.as_f64() {
                let found =
                    Diagnostic::new(&code::UNSATISFIABLE, entry.value.span, "the lower end lies above the upper one");
                self.push(found);
                return None;
            }
            Comparison::Between(low, high)
        } else {
            compare(operator, self.literal(&entry.value, read)?)
        };
        self.check_reachable(metric, comparison, entry.value.span);
        Some(Clause::Threshold(Threshold { metric: metric.clone(), window, comparison, min_bytes }))
    }

    /// `{gt: {metric: bytes_out, window: 24h, offset: 24h, times: 5}}` with `floor`.
    fn spike(&mut self, metric: &Metric, entry: &Entry, window: Duration, floor: Option<&Node>) -> Option<Clause> {
        let node = &entry.value;
        for other in node.entries().unwrap_or_default() {
            if !SPIKE_KEYS.contains(&other.key.text.as_str()) {
                let found = Diagnostic::new(
                    &code::UNKNOWN_KEY,
                    other.key.span,
                    format!("a comparison with another time has no key `{}`", other.key.text),
                )
                .suggest(&other.key.text, SPIKE_KEYS.iter().copied());
                self.push(found);
                return None;
            }
        }
        if entry.key.text == "between" {
            self.wrong_shape(node, "a list of two values");
            return None;
        }
        let past = match node.child("metric") {
            Some(node) => {
                let name = self.text(node)?.to_owned();
                self.metric(&name, node.span)?
            }
            None => metric.clone(),
        };
        for (metric, span) in
            [(metric, entry.key.span), (&past, node.child("metric").map_or(node.span, |node| node.span))]
        {
            if !metric.is_counted_by_buckets() {
                let message = format!("`{metric}` of another time is not kept");
                let found = Diagnostic::new(&code::UNKNOWN_METRIC, span, message)
                    .help("sums, rates, peaks, connections and DNS questions can be compared with their past");
                self.push(found);
                return None;
            }
        }
        if metric.unit() != past.unit() {
            let span = node.child("metric").map_or(node.span, |node| node.span);
            let message = format!("`{metric}` and `{past}` are measured in different units");
            self.push(Diagnostic::new(&code::UNKNOWN_METRIC, span, message));
            return None;
        }
        let past_window = match node.child("window") {
            Some(node) => self.window(node)?,
            None => window,
        };
        let offset = match node.child("offset") {
            Some(node) => self.duration(node)?,
            None => window,
        };
        let times = match node.child("times") {
            Some(node) => self.literal(node, literal::factor)?,
            None => 1.0,
        };
        let Some(floor) = node.child("floor").or(floor) else {
            let found =
                Diagnostic::new(&code::NO_FLOOR, entry.key.span, "a comparison with another time needs `floor`")
                    .help(format!(
                        "`floor: {}` beside `times`",
                        if metric.unit() == Unit::Bytes { "50MB" } else { "100" }
                    ))
                    .note("many times nearly nothing is still nearly nothing");
            self.push(found);
            return None;
        };
        let floor = self.literal(floor, metric.unit().read())?;
        if offset + past_window > MAX_WINDOW {
            let found = Diagnostic::new(
                &code::WINDOW_LIMIT,
                node.span,
                "`offset` and `window` together reach back more than 31 days",
            );
            self.push(found);
            return None;
        }
        let comparison = compare(&entry.key.text, Quantity::Ratio(times));
        Some(Clause::Spike(Spike { metric: metric.clone(), window, comparison, past, past_window, offset, floor }))
    }

    /// The metric of a name, or a message.
    pub(super) fn metric(&mut self, name: &str, span: Span) -> Option<Metric> {
        if let Some(metric) = Metric::from_name(name) {
            return Some(metric);
        }
        let mut found = Diagnostic::new(&code::UNKNOWN_METRIC, span, format!("unknown metric `{name}`"));
        if let Some((function, argument)) = name.strip_suffix(')').and_then(|name| name.split_once('('))
            && let Some(field) = Field::from_name(argument.trim())
        {
            let possible: Vec<&str> = match function {
                "distinct" => DISTINCT.iter().map(|field| field.name()).collect(),
                "max_destination_share" => SHARED.iter().map(|field| field.name()).collect(),
                _ => Vec::new(),
            };
            if !possible.is_empty() {
                self.push(found.note(format!("`{function}` counts {}, not `{field}`", possible.join(", "))));
                return None;
            }
        }
        let names: Vec<String> = Metric::all().iter().map(ToString::to_string).collect();
        found = found.suggest(name, names.iter().map(String::as_str));
        if found.fix.is_none() {
            found = match Field::from_name(name) {
                Some(_) => found.help("that is a field of a flow: it belongs into `match`"),
                None => found.help("`egret fields metrics` lists what there is"),
            };
        }
        self.push(found);
        None
    }

    /// A window's length.
    pub(super) fn window(&mut self, node: &Node) -> Option<Duration> {
        let window = self.duration(node)?;
        let problem = if window < Duration::from_secs(1) {
            "a window is at least 1s long"
        } else if window > MAX_WINDOW {
            "a window is at most 31d long"
        } else if window.subsec_nanos() != 0 {
            "a window is a whole number of seconds long"
        } else {
            return Some(window);
        };
        self.push(Diagnostic::new(&code::WINDOW_LIMIT, node.span, problem));
        None
    }

    /// A ratio above one, a count below zero: never true, or always.
    fn check_reachable(&mut self, metric: &Metric, comparison: Comparison, span: Span) {
        let (low, high) = match metric {
            Metric::UploadRatio | Metric::MaxDestinationShare(_) => (0.0, 1.0),
            Metric::ProducerConsumerRatio => (-1.0, 1.0),
            _ => (0.0, f64::INFINITY),
        };
        let never = match comparison {
            Comparison::Less(limit) => limit.as_f64() <= low,
            Comparison::LessOrEqual(limit) => limit.as_f64() < low,
            Comparison::Greater(limit) => limit.as_f64() >= high,
            Comparison::GreaterOrEqual(limit) => limit.as_f64() > high,
            Comparison::Equal(limit) => limit.as_f64() < low || limit.as_f64() > high,
            Comparison::NotEqual(_) => false,
            Comparison::Between(from, to) => from.as_f64() > high || to.as_f64() < low,
        };
        if never {
            let range =
                if high.is_finite() { format!("lies between {low} and {high}") } else { "is never below 0".to_owned() };
            self.push(
                Diagnostic::new(&code::UNSATISFIABLE, span, "this can never hold").note(format!("`{metric}` {range}")),
            );
        }
    }

    /// `{gte: 500MB, lt: 100MB}` can never hold.
    fn check_bounds(&mut self, metric: &Metric, clauses: &[Clause], span: Span) {
        let mut low = f64::NEG_INFINITY;
        let mut high = f64::INFINITY;
        for clause in clauses {
            let Clause::Threshold(threshold) = clause else { continue };
            match threshold.comparison {
                Comparison::Greater(limit) | Comparison::GreaterOrEqual(limit) => low = low.max(limit.as_f64()),
                Comparison::Less(limit) | Comparison::LessOrEqual(limit) => high = high.min(limit.as_f64()),
                Comparison::Between(from, to) => {
                    low = low.max(from.as_f64());
                    high = high.min(to.as_f64());
                }
                Comparison::Equal(limit) => {
                    low = low.max(limit.as_f64());
                    high = high.min(limit.as_f64());
                }
                Comparison::NotEqual(_) => {}
            }
        }
        if low > high {
            self.push(Diagnostic::new(
                &code::UNSATISFIABLE,
                span,
                format!("`{metric}` cannot be above {low} and below {high} at once"),
            ));
        }
    }
}

pub(super) fn compare(operator: &str, limit: Quantity) -> Comparison {
    match operator {
        "lt" => Comparison::Less(limit),
        "lte" => Comparison::LessOrEqual(limit),
        "gt" => Comparison::Greater(limit),
        "gte" => Comparison::GreaterOrEqual(limit),
        "ne" => Comparison::NotEqual(limit),
        _ => Comparison::Equal(limit),
    }
}

/// The fields whose values are counted or shared are known once a flow is known.
pub(super) const DISTINCT: &[Field] = &[
    Field::DstIp,
    Field::DstPort,
    Field::DstDomain,
    Field::DstRegisteredDomain,
    Field::DstAsn,
    Field::DstCountry,
    Field::Exe,
    Field::User,
    Field::Cmdline,
];

const SHARED: &[Field] =
    &[Field::DstRegisteredDomain, Field::DstDomain, Field::DstIp, Field::DstPort, Field::DstAsn, Field::DstCountry];

const COMPARISONS: &[&str] = &["gte", "gt", "lte", "lt", "eq", "ne", "between"];
const SPIKE_KEYS: &[&str] = &["metric", "window", "offset", "times", "floor"];

/// Whether a field's values are of the kind that sums can be grouped by without end.
pub(super) fn is_unbounded(field: Field) -> bool {
    matches!(
        field,
        Field::SrcPort | Field::Pid | Field::StartTime | Field::FlowAge | Field::FlowBytesOut | Field::FlowBytesIn
    ) || matches!(field.kind(), Kind::Size)
}
