//! Lists of networks, autonomous systems and domains, as people publish them.
//!
//! One reader takes all the usual forms: FireHOL ipsets, plain addresses,
//! CIDRs, ranges, columns (tabs, commas, quoted), hosts files, URLs, JSON (AWS,
//! Google, Azure, MISP, arrays of text) and JSON lines (Spamhaus ASN-DROP).
//! It is lenient with single lines, which it reports by number, and strict
//! with what would make a list silently empty. Pure: an edge reads the file.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use serde_json::Value;

use crate::names::domains::{DomainSet, normalize};
use crate::names::networks::NetworkSet;

/// One list, ready for look-ups.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Addresses and networks.
    pub networks: NetworkSet,
    /// Numbers of autonomous systems.
    pub systems: BTreeSet<u32>,
    /// Domain names and patterns, and the hosts of URLs.
    pub domains: DomainSet,
    /// What was read.
    pub counts: ListCounts,
    /// The first lines that could not be read; [`ListCounts::rejected`] counts all.
    pub rejected: Vec<Rejected>,
}

/// How many entries of each kind a list holds, repeated ones included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListCounts {
    /// IPv4 addresses and networks.
    pub ipv4: usize,
    /// IPv6 addresses and networks.
    pub ipv6: usize,
    /// Autonomous systems.
    pub systems: usize,
    /// Domains and URLs.
    pub domains: usize,
    /// Lines that could not be read.
    pub rejected: usize,
}

/// A line that holds no entry and is no comment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{text}` is no address, network, domain, URL or AS number")]
pub struct Rejected {
    /// Counted from 1.
    pub line: usize,
    /// Its first characters, escaped.
    pub text: String,
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The list is larger than its bound.
    #[error("line {line}: more than {limit} entries")]
    TooMany {
        /// Where the bound was passed.
        line: usize,
        /// The bound.
        limit: usize,
    },
    /// JSON that is not JSON.
    #[error("line {line}, column {column}: not valid JSON")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What the JSON reader says.
        #[source]
        source: serde_json::Error,
    },
    /// There is text, and none of it is an entry.
    #[error("no entry in {lines} lines; the first: {first}")]
    Nothing {
        /// How many lines could not be read.
        lines: usize,
        /// The first of them.
        first: Rejected,
    },
}

impl List {
    /// Reads a list of at most `limit` entries in whatever form it has.
    pub fn parse(text: &[u8], limit: usize) -> Result<Self, ListError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut reader = Reader { limit, ..Reader::default() };
        match text.trim_ascii_start().first() {
            Some(b'{' | b'[') => reader.read_json(text)?,
            _ => reader.read_lines(text)?,
        }
        reader.finish()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.systems.is_empty() && self.domains.is_empty()
    }
}

impl ListCounts {
    /// All entries.
    pub fn entries(&self) -> usize {
        self.ipv4 + self.ipv6 + self.systems + self.domains
    }
}

#[derive(Default)]
struct Reader {
    limit: usize,
    line: usize,
    networks: Vec<IpNet>,
    systems: BTreeSet<u32>,
    domains: DomainSet,
    counts: ListCounts,
    rejected: Vec<Rejected>,
}

impl Reader {
    fn read_lines(&mut self, text: &[u8]) -> Result<(), ListError> {
        let mut heading_allowed = true;
        for line in text.split(|byte| *byte == b'\n') {
            self.line += 1;
            let Ok(content) = std::str::from_utf8(line) else {
                self.reject(line);
                continue;
            };
            let content = without_comment(content);
            if content.is_empty() {
                continue;
            }
            let is_entry = self.read_line(content)?;
            let may_be_heading = heading_allowed && is_heading(content);
            if !is_entry && !may_be_heading {
                self.reject(line);
            }
            heading_allowed = false;
        }
        Ok(())
    }

    /// Takes the leftmost column that is an entry.
    fn read_line(&mut self, line: &str) -> Result<bool, ListError> {
        if let Some(blocked) = hosts_file_name(line) {
            return self.add(blocked, Shape::Any);
        }
        if let Some((first, last)) = range(line) {
            return self.add_range(first, last);
        }
        if line.starts_with("||") {
            return self.add(line, Shape::Any);
        }
        let mut columns = Columns { rest: line };
        let only = columns.next().filter(|column| column.len() == line.len());
        if let Some(number) = only.and_then(|number| number.parse().ok()) {
            return self.add_system(number);
        }
        for (index, column) in (Columns { rest: line }).enumerate() {
            let shape = if index == 0 { Shape::Any } else { Shape::AddressOrUrl };
            if self.add(column, shape)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Several documents may follow one another, which is what JSON lines are.
    fn read_json(&mut self, text: &[u8]) -> Result<(), ListError> {
        for value in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
            self.line += 1;
            self.read_value(&value.map_err(|source| ListError::Json {
                line: source.line(),
                column: source.column(),
                source,
            })?)?;
        }
        Ok(())
    }

    fn read_value(&mut self, value: &Value) -> Result<(), ListError> {
        match value {
            Value::String(text) => {
                let is_entry = self.add(text.trim(), Shape::Any)?;
                if !is_entry {
                    self.reject(text.as_bytes());
                }
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.read_value(item))?,
            Value::Object(object) => {
                // An object about an autonomous system tells its domain, too, which is no entry.
                if let Some(number) = object.get("asn").and_then(as_system) {
                    self.add_system(number)?;
                    return Ok(());
                }
                for (key, value) in object {
                    match value {
                        Value::String(_) if ENTRY_KEYS.contains(&key.as_str()) => self.read_value(value)?,
                        Value::Array(_) if LIST_KEYS.contains(&key.as_str()) => self.read_value(value)?,
                        Value::Object(_) if key == "properties" => self.read_value(value)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, text: &str, shape: Shape) -> Result<bool, ListError> {
        if let Some(network) = parse_network(text) {
            return self.add_network(network);
        }
        if let Some(host) = url_host(text) {
            return self.add(host, Shape::Any);
        }
        if shape == Shape::AddressOrUrl {
            return Ok(false);
        }
        if let Some(number) = text.strip_prefix("AS").or(text.strip_prefix("as")).and_then(|rest| rest.parse().ok()) {
            return self.add_system(number);
        }
        if self.domains.insert(text).is_err() {
            return Ok(false);
        }
        self.counts.domains += 1;
        self.check_limit()
    }

    fn add_network(&mut self, network: IpNet) -> Result<bool, ListError> {
        match network {
            IpNet::V4(_) => self.counts.ipv4 += 1,
            IpNet::V6(_) => self.counts.ipv6 += 1,
        }
        self.networks.push(network);
        self.check_limit()
    }

    fn add_range(&mut self, first: IpAddr, last: IpAddr) -> Result<bool, ListError> {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                self.counts.ipv4 += 1;
                self.networks.extend(Ipv4Subnets::new(first, last, 0).map(IpNet::V4));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                self.counts.ipv6 += 1;
                self.networks.extend(Ipv6Subnets::new(first, last, 0).map(IpNet::V6));
            }
            _ => return Ok(false),
        }
        self.check_limit()
    }

    fn add_system(&mut self, number: u32) -> Result<bool, ListError> {
        self.systems.insert(number);
        self.counts.systems += 1;
        self.check_limit()
    }

    fn check_limit(&self) -> Result<bool, ListError> {
        let entries = self.counts.entries().max(self.networks.len());
        if entries > self.limit {
            return Err(ListError::TooMany { line: self.line, limit: self.limit });
        }
        Ok(true)
    }

    fn reject(&mut self, text: &[u8]) {
        self.counts.rejected += 1;
        if self.rejected.len() < MAX_REJECTED_KEPT {
            let start = text.get(..text.len().min(MAX_REJECTED_TEXT)).unwrap_or_default();
            self.rejected.push(Rejected { line: self.line, text: start.trim_ascii().escape_ascii().to_string() });
        }
    }

    fn finish(self) -> Result<List, ListError> {
        if self.counts.entries() == 0
            && let Some(first) = self.rejected.first()
        {
            return Err(ListError::Nothing { lines: self.counts.rejected, first: first.clone() });
        }
        Ok(List {
            networks: self.networks.into_iter().collect(),
            systems: self.systems,
            domains: self.domains,
            counts: self.counts,
            rejected: self.rejected,
        })
    }
}

/// What a column may hold: only the first one is asked for names, since in
/// later ones words of remarks look like them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Any,
    AddressOrUrl,
}

/// The line before `#`, `;`, `!` or `//` where these begin a comment.
fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with(['#', ';', '!']) || line.starts_with("//") {
        return "";
    }
    let mut before = ' ';
    for (index, character) in line.char_indices() {
        if matches!(character, '#' | ';') && before.is_whitespace() {
            return line.get(..index).unwrap_or(line).trim_end();
        }
        before = character;
    }
    line
}

/// Whether the first line names columns: words only, at least two of them or one that is known.
fn is_heading(line: &str) -> bool {
    let mut columns = Columns { rest: line }.peekable();
    let words = Columns { rest: line }.all(|column| {
        let mut bytes = column.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    });
    let first = columns.next().unwrap_or_default();
    let known = ENTRY_KEYS.iter().any(|key| key.eq_ignore_ascii_case(first));
    words && (known || columns.peek().is_some() && line.contains([',', '\t', ';', '|']))
}

/// The name that a hosts file points nowhere.
fn hosts_file_name(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    let (address, name) = (words.next()?, words.next()?);
    (matches!(address, "0.0.0.0" | "127.0.0.1" | "::" | "::1") && words.next().is_none() && normalize(name).is_some())
        .then_some(name)
}

/// Both ends of `192.0.2.1-192.0.2.9`, with or without blanks.
fn range(line: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = line.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

/// A CIDR, or an address as the network of itself alone.
fn parse_network(text: &str) -> Option<IpNet> {
    if !text.starts_with(|first: char| first.is_ascii_hexdigit() || first == ':') {
        return None;
    }
    if text.contains('/') {
        return text.parse().ok();
    }
    match text.parse().ok()? {
        IpAddr::V4(ip) => Ipv4Net::new(ip, Ipv4Addr::BITS as u8).ok().map(IpNet::V4),
        IpAddr::V6(ip) => Ipv6Net::new(ip, Ipv6Addr::BITS as u8).ok().map(IpNet::V6),
    }
}

/// The host of a URL, without user, port and brackets; also of `||host^`, as filters for browsers write it.
fn url_host(text: &str) -> Option<&str> {
    if let Some(filter) = text.strip_prefix("||") {
        return filter.split(['^', '/', '$']).next();
    }
    let (scheme, rest) = text.split_once("://")?;
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-')) {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => host.split(':').next(),
    }
}

fn as_system(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        Value::String(text) => text.trim_start_matches(['A', 'S', 'a', 's']).parse().ok(),
        _ => None,
    }
}

/// The columns of a line: between blanks, commas, semicolons and bars, or between quotes.
#[derive(Clone, Copy)]
struct Columns<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Columns<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        const SEPARATORS: [char; 6] = [' ', '\t', ',', ';', '|', '\r'];
        let rest = self.rest.trim_start_matches(SEPARATORS);
        if rest.is_empty() {
            return None;
        }
        let (column, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find(SEPARATORS).unwrap_or(rest.len())),
        };
        self.rest = rest;
        Some(column.trim())
    }
}

/// Keys of JSON objects whose text is an entry.
const ENTRY_KEYS: &[&str] = &[
    "ip_prefix",
    "ipv6_prefix",
    "ipv4Prefix",
    "ipv6Prefix",
    "cidr",
    "prefix",
    "network",
    "subnet",
    "ip",
    "ip_address",
    "ipAddress",
    "address",
    "dst_ip",
    "domain",
    "hostname",
    "host",
    "url",
];

/// Keys of JSON objects whose array holds entries.
const LIST_KEYS: &[&str] = &[
    "prefixes",
    "ipv6_prefixes",
    "list",
    "values",
    "addressPrefixes",
    "addresses",
    "ipv6_addresses",
    "ipv4_cidrs",
    "ipv6_cidrs",
    "items",
    "entries",
    "data",
    "ips",
    "domains",
    "hooks",
    "web",
    "api",
    "git",
    "packages",
    "pages",
    "actions",
];

/// Rejected lines that are kept to be shown.
const MAX_REJECTED_KEPT: usize = 20;

/// How much of a rejected line is shown.
const MAX_REJECTED_TEXT: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> List {
        List::parse(text.as_bytes(), 1000).unwrap()
    }

    fn holds(list: &List, address: &str) -> bool {
        list.networks.contains(address.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn every_form_of_a_line_is_read() {
        let list = parse(concat!(
            "\u{feff}# a comment\r\n",
            "192.0.2.1\r\n",
            "1.10.16.0/20 ; SBL256894\r\n",
            "198.51.100.7\t12\n",
            "203.0.113.5,malware,2024-01-02\n",
            "\"2024-04-04 07:03:03\",\"203.0.113.9\",\"443\",\"Pikabot\"\n",
            "192.0.2.10-192.0.2.13\n",
            "2001:db8::/32 # documentation\n",
            "10.1.2.3/8\n",
            "AS64500 ; EXAMPLE\n",
            "0.0.0.0 blocked.example\n",
            "https://user@bad.example:8443/path?x=1\n",
            "||ads.example^\n",
            "*.wild.example\n",
            "http://[2001:db9::1]/x\n",
            "not an entry\n",
        ));
        for address in ["192.0.2.1", "1.10.31.255", "198.51.100.7", "203.0.113.5", "203.0.113.9", "192.0.2.13"] {
            assert!(holds(&list, address), "{address}");
        }
        for address in ["2001:db8::7", "10.255.255.255", "2001:db9::1"] {
            assert!(holds(&list, address), "{address}");
        }
        assert!(!holds(&list, "192.0.2.14"));
        assert!(list.systems.contains(&64500));
        assert_eq!(list.domains.entries(), ["*.wild.example", "ads.example", "bad.example", "blocked.example"]);
        assert_eq!(list.counts, ListCounts { ipv4: 7, ipv6: 2, systems: 1, domains: 4, rejected: 1 });
        assert_eq!(list.rejected, [Rejected { line: 16, text: "not an entry".into() }]);
    }

    #[test]
    fn every_form_of_json_is_read() {
        let google =
            parse(r#"{"creationTime": "x", "prefixes": [{"ipv4Prefix": "34.1.0.0/16"}, {"ipv6Prefix": "2600::/32"}]}"#);
        assert!(holds(&google, "34.1.2.3") && holds(&google, "2600::1"));
        let azure = parse(r#"{"values": [{"name": "S", "properties": {"addressPrefixes": ["13.66.60.119/32"]}}]}"#);
        assert!(holds(&azure, "13.66.60.119"));
        assert!(holds(&parse(r#"["192.0.2.0/24"]"#), "192.0.2.255"));
        let domains = parse(r#"{"list": [".example.net", "a.example"], "name": "x"}"#);
        assert!(domains.domains.contains("b.example.net"));
        let systems = parse("{\"asn\":932,\"domain\":\"xn.net\"}\n{\"asn\":\"AS6060\"}\n{\"type\":\"metadata\"}\n");
        assert_eq!(systems.systems, BTreeSet::from([932, 6060]));
        assert!(systems.domains.is_empty());
    }

    #[test]
    fn what_cannot_be_a_list_is_an_error_with_its_place() {
        let error = List::parse(b"{\"list\": [\n  \"1.2.3.4\",\n  oops]}", 10).unwrap_err();
        assert_eq!(error.to_string(), "line 3, column 3: not valid JSON");
        let error = List::parse(b"1.1.1.1\n2.2.2.2\n3.3.3.3\n", 2).unwrap_err();
        assert_eq!(error.to_string(), "line 3: more than 2 entries");
        let error = List::parse(b"<html>\n<p>404</p>\n", 10).unwrap_err();
        let expected =
            "no entry in 2 lines; the first: line 1: `<html>` is no address, network, domain, URL or AS number";
        assert_eq!(error.to_string(), expected);
        assert!(List::parse(b"# nothing yet\n", 10).unwrap().is_empty());
        let deep = "[".repeat(1_000_000);
        assert!(matches!(List::parse(deep.as_bytes(), 10), Err(ListError::Json { .. })));
        let wide = List::parse(b"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe\n", 100);
        assert!(matches!(wide, Err(ListError::TooMany { .. })));
    }

    #[test]
    fn a_heading_is_no_rejected_line() {
        assert_eq!(parse("\"first_seen_utc\",\"dst_ip\"\n\"2024-01-01 00:00:00\",\"192.0.2.1\"\n").counts.rejected, 0);
        assert_eq!(parse("ip\n192.0.2.1\n").counts.rejected, 0);
    }
}
