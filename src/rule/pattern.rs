//! What a field's value must be: sets of numbers, addresses, names and texts.
//!
//! A set matches when one of its members does. Look-ups in large sets are by
//! hash or by binary search, so a list of a million networks costs a flow as
//! much as a list of ten, give or take the cache.

use std::sync::Arc;

use bstr::ByteSlice;
use hashbrown::HashSet;
use regex::bytes::Regex;

use crate::names::{DomainSet, NetworkSet};
use crate::packet::Address;
use crate::rule::glob::Glob;

/// What a value must be.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Anything; the field has a value.
    Exists,
    /// A number in the set.
    Number(Numbers),
    /// An address in the set.
    Address(Arc<NetworkSet>),
    /// A text in the set.
    Text(Arc<Texts>),
    /// A domain name in the set.
    Domain(Arc<DomainSet>),
    /// A user or group by name or number.
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
    /// Is what this glob says.
    Glob(Glob),
    /// Matches this, which takes time linear in the text.
    Regex(Regex),
}

impl Pattern {
    /// Whether a text satisfies it.
    pub fn matches_bytes(&self, text: &[u8]) -> bool {
        match self {
            Self::Exists => true,
            Self::Text(texts) => texts.contains(text),
            Self::Domain(domains) => text.to_str().is_ok_and(|name| domains.contains(name)),
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

    /// Whether a user or a group satisfies it.
    pub fn matches_named(&self, name: Option<&str>, id: Option<u32>) -> bool {
        let by_name = |texts: &Texts| name.is_some_and(|name| texts.contains(name.as_bytes()));
        let by_id = |numbers: &Numbers| id.is_some_and(|id| numbers.contains(id.into()));
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
            Self::Glob(glob) => glob.matches(text),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
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

    #[test]
    fn ranges_touch_and_merge() {
        assert_eq!(Numbers::new([(5, 9), (1, 4), (20, 10), (9, 9)]).ranges(), [(1, 9)]);
        assert!(Numbers::new([(0, u64::MAX), (3, 4)]).contains(u64::MAX));
        assert!(!Numbers::default().contains(0));
    }
}
