//! What a field's value must be: sets of numbers, addresses, names and texts.
//!
//! A set matches when one of its members does. Look-ups in large sets are by
//! hash or by binary search, so a list of a million networks costs a flow as
//! much as a list of ten, give or take the cache.

use std::sync::Arc;

use bstr::ByteSlice;
use hashbrown::HashSet;
use regex::bytes::Regex;

use crate::attribution::User;
use crate::packet::Address;

/// What a value must be.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Anything; the field has a value.
    Exists,
    /// A number in the set.
    Number(Numbers),
    /// An address in the set.
    Address(Arc<Addresses>),
    /// A text in the set.
    Text(Arc<Texts>),
    /// A domain name in the set.
    Domain(Arc<Domains>),
    /// A user by name or number.
    User {
        /// By name.
        names: Arc<Texts>,
        /// By number.
        ids: Numbers,
    },
}

/// A set of numbers as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(Vec<(u64, u64)>);

/// A set of addresses and networks as ranges of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(Vec<(u128, u128)>);

/// A set of texts and text patterns.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    exact: HashSet<Box<[u8]>>,
    patterns: Vec<TextPattern>,
}

/// A pattern of a text.
#[derive(Debug, Clone)]
pub enum TextPattern {
    /// Starts with this.
    Prefix(Box<[u8]>),
    /// Ends with this.
    Suffix(Box<[u8]>),
    /// Has this in it.
    Contains(Box<[u8]>),
    /// Is this, whatever the case of ASCII letters.
    EqualsIgnoringCase(Box<[u8]>),
    /// Has this, given in lower case, in it, whatever the case of ASCII letters.
    ContainsIgnoringCase(Box<[u8]>),
    /// Matches this, which takes time linear in the text.
    Regex(Regex),
}

/// A set of domain names and of whole subtrees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains {
    exact: HashSet<Box<str>>,
    below: HashSet<Box<str>>,
}

impl Pattern {
    /// Whether a text satisfies it.
    pub fn matches_bytes(&self, text: &[u8]) -> bool {
        match self {
            Self::Exists => true,
            Self::Text(texts) => texts.contains(text),
            Self::Domain(domains) => domains.contains(text),
            Self::User { names, .. } => names.contains(text),
            Self::Number(numbers) => decimal(text).is_some_and(|number| numbers.contains(number)),
            Self::Address(_) => false,
        }
    }

    /// Whether a number satisfies it.
    pub fn matches_number(&self, number: u64) -> bool {
        match self {
            Self::Exists => true,
            Self::Number(numbers) | Self::User { ids: numbers, .. } => numbers.contains(number),
            Self::Text(_) | Self::Domain(_) | Self::Address(_) => false,
        }
    }

    /// Whether an address satisfies it.
    pub fn matches_address(&self, address: Address) -> bool {
        match self {
            Self::Exists => true,
            Self::Address(addresses) => addresses.contains(address),
            Self::Text(_) | Self::Domain(_) | Self::Number(_) | Self::User { .. } => false,
        }
    }

    /// Whether a user satisfies it.
    pub fn matches_user(&self, user: &User) -> bool {
        let by_name = |texts: &Texts| user.name.as_deref().is_some_and(|name| texts.contains(name.as_bytes()));
        let by_id = |numbers: &Numbers| user.uid.is_some_and(|uid| numbers.contains(uid.into()));
        match self {
            Self::Exists => true,
            Self::User { names, ids } => by_name(names) || by_id(ids),
            Self::Text(texts) => by_name(texts),
            Self::Number(numbers) => by_id(numbers),
            Self::Domain(_) | Self::Address(_) => false,
        }
    }
}

impl Numbers {
    /// The numbers of these ranges; both ends belong to a range.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Self(merged(ranges.into_iter().collect(), |end| end.checked_add(1)))
    }

    /// Whether the number is in the set.
    pub fn contains(&self, number: u64) -> bool {
        covers(&self.0, number)
    }

    /// The ranges, in order, none touching another.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }
}

impl Addresses {
    /// The addresses of these networks.
    pub fn new(networks: impl IntoIterator<Item = ipnet::IpNet>) -> Self {
        let ranges = networks
            .into_iter()
            .map(|network| (as_number(network.network().into()), as_number(network.broadcast().into())))
            .collect();
        Self(merged(ranges, |end| end.checked_add(1)))
    }

    /// Whether the address is in the set.
    pub fn contains(&self, address: Address) -> bool {
        covers(&self.0, as_number(address))
    }

    /// The ranges of addresses, in order, none touching another; IPv4 in its mapped form.
    pub fn ranges(&self) -> &[(u128, u128)] {
        &self.0
    }
}

impl Texts {
    /// These texts and patterns.
    pub fn new(exact: impl IntoIterator<Item = Box<[u8]>>, patterns: impl IntoIterator<Item = TextPattern>) -> Self {
        Self { exact: exact.into_iter().collect(), patterns: patterns.into_iter().collect() }
    }

    /// Whether the text is in the set.
    pub fn contains(&self, text: &[u8]) -> bool {
        self.exact.contains(text) || self.patterns.iter().any(|pattern| pattern.matches(text))
    }

    /// The texts that must be equal.
    pub fn exact(&self) -> impl Iterator<Item = &[u8]> {
        self.exact.iter().map(|text| &**text)
    }

    /// The patterns.
    pub fn patterns(&self) -> &[TextPattern] {
        &self.patterns
    }
}

impl TextPattern {
    /// Whether the text satisfies it.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::Contains(part) => text.contains_str(part),
            Self::EqualsIgnoringCase(other) => text.eq_ignore_ascii_case(other),
            Self::ContainsIgnoringCase(part) => text.to_ascii_lowercase().contains_str(part),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

impl Domains {
    /// Names that must be equal, and names of which every subdomain counts (not the name itself).
    /// All in lower case, without a trailing dot.
    pub fn new(exact: impl IntoIterator<Item = Box<str>>, below: impl IntoIterator<Item = Box<str>>) -> Self {
        Self { exact: exact.into_iter().collect(), below: below.into_iter().collect() }
    }

    /// Whether the name, lower case and without a trailing dot, is in the set.
    pub fn contains(&self, name: &[u8]) -> bool {
        let Ok(name) = name.to_str() else { return false };
        if self.exact.contains(name) {
            return true;
        }
        if self.below.is_empty() {
            return false;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.below.contains(parent) {
                return true;
            }
            rest = parent;
        }
        false
    }

    /// The names that must be equal.
    pub fn exact(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(|name| &**name)
    }

    /// The names of which every subdomain counts.
    pub fn below(&self) -> impl Iterator<Item = &str> {
        self.below.iter().map(|name| &**name)
    }
}

fn as_number(address: Address) -> u128 {
    u128::from_be_bytes(address.octets())
}

/// Sorted, overlaps and neighbours joined.
fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.retain(|(low, high)| low <= high);
    ranges.sort_unstable();
    let mut result: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match result.last_mut() {
            Some((_, end)) if next(*end).is_none_or(|next| low <= next) => *end = (*end).max(high),
            _ => result.push((low, high)),
        }
    }
    result.shrink_to_fit();
    result
}

fn covers<T: Ord>(ranges: &[(T, T)], value: T) -> bool {
    let index = ranges.partition_point(|(low, _)| *low <= value);
    index.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, high)| value <= *high)
}

fn decimal(text: &[u8]) -> Option<u64> {
    text.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(networks: &[&str]) -> Addresses {
        Addresses::new(networks.iter().map(|network| network.parse().unwrap()))
    }

    fn address(text: &str) -> Address {
        text.parse::<std::net::IpAddr>().unwrap().into()
    }

    #[test]
    fn ranges_touch_and_merge() {
        assert_eq!(Numbers::new([(5, 9), (1, 4), (20, 10), (9, 9)]).ranges(), [(1, 9)]);
        assert!(Numbers::new([(0, u64::MAX), (3, 4)]).contains(u64::MAX));
        assert!(!Numbers::default().contains(0));
    }

    #[test]
    fn an_address_is_in_its_network_and_in_no_other() {
        let set = addresses(&["10.0.0.0/8", "192.0.2.7/32", "fc00::/7"]);
        assert!(set.contains(address("10.255.255.255")));
        assert!(!set.contains(address("11.0.0.0")));
        assert!(set.contains(address("192.0.2.7")));
        assert!(!set.contains(address("192.0.2.8")));
        assert!(set.contains(address("::ffff:10.1.2.3")));
        assert!(set.contains(address("fdff::1")));
        assert!(!set.contains(address("fe00::1")));
    }

    #[test]
    fn a_subtree_is_not_its_root() {
        let set = Domains::new(["exact.example".into()], ["example.net".into()]);
        assert!(set.contains(b"exact.example"));
        assert!(!set.contains(b"www.exact.example"));
        assert!(set.contains(b"a.b.example.net"));
        assert!(!set.contains(b"example.net"));
        assert!(!set.contains(b"badexample.net"));
    }
}
