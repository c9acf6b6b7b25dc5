//! Domain names in one spelling, and sets of them.
//!
//! In a set `x` is that name alone, `*.x` its subdomains, `.x` both.

use std::borrow::Cow;

use foldhash::quality::RandomState;
use hashbrown::HashMap;

/// Domain names and patterns, looked up in time that does not depend on their number.
#[derive(Debug, Clone, Default)]
pub struct DomainSet {
    names: HashMap<Box<str>, Covers, RandomState>,
}

/// What an entry of a name stands for.
#[derive(Debug, Clone, Copy, Default)]
struct Covers {
    exact: bool,
    subdomains: bool,
    /// Written `.x`, so that the entry is found as it was written.
    both: bool,
}

/// An entry that is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a domain name")]
pub struct NotADomain(pub String);

impl DomainSet {
    /// Adds `x`, `*.x` or `.x`; says whether it was new.
    pub fn insert(&mut self, entry: &str) -> Result<bool, NotADomain> {
        let (name, added) = match entry.trim() {
            entry if entry.starts_with("*.") => (&entry[2..], Covers { subdomains: true, ..Covers::default() }),
            entry if entry.starts_with('.') => (&entry[1..], Covers { both: true, ..Covers::default() }),
            entry => (entry, Covers { exact: true, ..Covers::default() }),
        };
        let name = normalize(name).ok_or_else(|| NotADomain(entry.to_owned()))?;
        let covers = self.names.entry(name.into()).or_default();
        let new = added.exact && !covers.exact || added.subdomains && !covers.subdomains || added.both && !covers.both;
        covers.exact |= added.exact;
        covers.subdomains |= added.subdomains;
        covers.both |= added.both;
        Ok(new)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.names.values().map(|covers| covers.entries()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether an entry covers `name`, which is in the one spelling.
    pub fn contains(&self, name: &str) -> bool {
        self.lookup(name).is_some()
    }

    /// The closest entry that covers `name`, as it is written in a list.
    pub fn find(&self, name: &str) -> Option<String> {
        self.lookup(name).map(|(prefix, name)| format!("{prefix}{name}"))
    }

    fn lookup<'a>(&self, name: &'a str) -> Option<(&'static str, &'a str)> {
        if self.names.is_empty() {
            return None;
        }
        match self.names.get(name) {
            Some(covers) if covers.exact => return Some(("", name)),
            Some(covers) if covers.both => return Some((".", name)),
            _ => {}
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            match self.names.get(parent) {
                Some(covers) if covers.subdomains => return Some(("*.", parent)),
                Some(covers) if covers.both => return Some((".", parent)),
                _ => rest = parent,
            }
        }
        None
    }

    /// The entries as they are written in a list, in order.
    pub fn entries(&self) -> Vec<String> {
        let mut entries: Vec<String> = self
            .names
            .iter()
            .flat_map(|(name, covers)| {
                let forms = [(covers.exact, ""), (covers.subdomains, "*."), (covers.both, ".")];
                forms.into_iter().filter(|(there, _)| *there).map(move |(_, prefix)| format!("{prefix}{name}"))
            })
            .collect();
        entries.sort_unstable();
        entries
    }
}

impl Covers {
    fn entries(self) -> usize {
        usize::from(self.exact) + usize::from(self.subdomains) + usize::from(self.both)
    }
}

/// The one spelling of a domain name: lower case, no trailing dot, other
/// scripts as IDNA writes them. `None` for what is not a name of at least two labels.
pub fn normalize(name: &str) -> Option<Cow<'_, str>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
    let name: Cow<'_, str> = if plain {
        Cow::Borrowed(name)
    } else if name.is_ascii() {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        idna::domain_to_ascii_cow(name.as_bytes(), idna::AsciiDenyList::EMPTY).ok()?.into_owned().into()
    };
    let last = name.rsplit('.').next()?;
    let well_formed = name.len() <= MAX_NAME
        && name.contains('.')
        && !last.bytes().all(|byte| byte.is_ascii_digit())
        && name.split('.').all(is_label);
    well_formed.then_some(name)
}

/// The registered domain of a name in the one spelling, by the public suffix list.
pub fn registered_domain(name: &str) -> Option<&str> {
    psl::domain_str(name).filter(|domain| domain.contains('.'))
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// RFC 1035, section 2.3.4, without the trailing dot.
const MAX_NAME: usize = 253;

/// RFC 1035, section 2.3.4.
const MAX_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        assert_eq!(normalize("Example.COM.").as_deref(), Some("example.com"));
        assert_eq!(normalize("bücher.example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(normalize("_dmarc.example.com").as_deref(), Some("_dmarc.example.com"));
        for wrong in ["", ".", "localhost", "1.2.3.4", "a..b", "exa mple.com", "a.b/c", &"a.".repeat(200)] {
            assert_eq!(normalize(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_entry_covers_what_its_form_says() {
        let mut set = DomainSet::default();
        for entry in ["exact.example", "*.below.example", ".both.example", "EXACT.example."] {
            set.insert(entry).unwrap();
        }
        assert_eq!(set.len(), 3);
        assert_eq!(set.find("exact.example").as_deref(), Some("exact.example"));
        assert_eq!(set.find("a.exact.example"), None);
        assert_eq!(set.find("below.example"), None);
        assert_eq!(set.find("a.b.below.example").as_deref(), Some("*.below.example"));
        assert_eq!(set.find("both.example").as_deref(), Some(".both.example"));
        assert_eq!(set.find("a.both.example").as_deref(), Some(".both.example"));
        assert_eq!(set.find("notboth.example"), None);
        assert_eq!(set.insert("no domain"), Err(NotADomain("no domain".into())));
        assert_eq!(set.entries(), ["*.below.example", ".both.example", "exact.example"]);
    }

    #[test]
    fn the_registered_domain_follows_the_public_suffix_list() {
        assert_eq!(registered_domain("a.b.example.co.uk"), Some("example.co.uk"));
        assert_eq!(registered_domain("up.storage.example.net"), Some("example.net"));
        assert_eq!(registered_domain("co.uk"), None);
    }
}
