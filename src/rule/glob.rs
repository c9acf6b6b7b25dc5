//! Globs: `*` and `?`, and in paths `**`.
//!
//! A glob is matched by following all its places at once, so that a text costs
//! time linear in its length however many stars there are.

use smallvec::SmallVec;

/// A glob that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<[Token]>);

/// How `*` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobKind {
    /// `*` stays within a segment, `**` crosses segments, a trailing `/` is a prefix.
    Path,
    /// `*` stands for any text.
    Text,
}

/// One part of a glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// This byte.
    Byte(u8),
    /// Any byte.
    One,
    /// Any byte but `/`.
    OneInSegment,
    /// Any bytes.
    Many,
    /// Any bytes but `/`.
    ManyInSegment,
    /// Whole segments with the `/` after each, also none.
    Segments,
}

impl Glob {
    /// Reads a glob; every text is one.
    pub fn new(text: &str, kind: GlobKind) -> Self {
        let (one, many) = match kind {
            GlobKind::Path => (Token::OneInSegment, Token::ManyInSegment),
            GlobKind::Text => (Token::One, Token::Many),
        };
        let mut tokens: Vec<Token> = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, after @ ..] = rest {
            rest = after;
            let at_segment = matches!(tokens.last(), None | Some(Token::Byte(b'/') | Token::Segments));
            match (first, after) {
                (b'*', [b'*', b'/', after @ ..]) if kind == GlobKind::Path && at_segment => {
                    tokens.push(Token::Segments);
                    rest = after;
                }
                (b'*', [b'*', ..]) if kind == GlobKind::Path => {
                    tokens.push(Token::Many);
                    while let [b'*', after @ ..] = rest {
                        rest = after;
                    }
                }
                (b'*', _) => tokens.push(many),
                (b'?', _) => tokens.push(one),
                (b'\\', [escaped, after @ ..]) => {
                    tokens.push(Token::Byte(*escaped));
                    rest = after;
                }
                (other, _) => tokens.push(Token::Byte(*other)),
            }
        }
        if kind == GlobKind::Path && text.ends_with('/') {
            tokens.push(Token::Many);
        }
        Self(tokens.into())
    }

    /// Whether the whole text is what the glob says.
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut here = Places::new(self.0.len());
        let mut next = here.clone();
        self.enter(&mut here, 0);
        for byte in text {
            next.clear();
            for place in here.iter() {
                match self.0.get(place) {
                    Some(Token::Byte(wanted)) if wanted == byte => self.enter(&mut next, place + 1),
                    Some(Token::One) => self.enter(&mut next, place + 1),
                    Some(Token::OneInSegment) if *byte != b'/' => self.enter(&mut next, place + 1),
                    Some(Token::Many) => self.enter(&mut next, place),
                    Some(Token::ManyInSegment) if *byte != b'/' => self.enter(&mut next, place),
                    Some(Token::Segments) => {
                        next.insert(place);
                        if *byte == b'/' {
                            self.enter(&mut next, place + 1);
                        }
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut here, &mut next);
            if here.is_empty() {
                return false;
            }
        }
        here.contains(self.0.len())
    }

    /// Comes to a place, and to those after it that may be left out.
    fn enter(&self, places: &mut Places, from: usize) {
        let mut place = from;
        while !places.contains(place) {
            places.insert(place);
            match self.0.get(place) {
                Some(Token::Many | Token::ManyInSegment | Token::Segments) => place += 1,
                _ => return,
            }
        }
    }
}

/// A set of places in a glob, the one behind its end among them.
#[derive(Debug, Clone)]
struct Places(SmallVec<[u64; 2]>);

impl Places {
    fn new(tokens: usize) -> Self {
        Self(SmallVec::from_elem(0, tokens / 64 + 1))
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn contains(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word & 1 << (place % 64) != 0)
    }

    fn insert(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left = left.checked_sub(1).map(|less| left & less)?;
                Some(index * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    use super::*;

    /// The same as a regular expression.
    fn expression(text: &str, kind: GlobKind) -> String {
        let one = if kind == GlobKind::Path { "[^/]" } else { "." };
        let mut expression = String::from("(?s)^");
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let at_segment = ["/", "^", "(?:.*/)?"].iter().any(|end| expression.ends_with(end));
            if kind == GlobKind::Path && rest.starts_with("**/") && at_segment {
                expression.push_str("(?:.*/)?");
                rest = &rest[3..];
            } else if kind == GlobKind::Path && rest.starts_with("**") {
                expression.push_str(".*");
                rest = rest.trim_start_matches('*');
            } else if first == '*' || first == '?' {
                write!(expression, "{one}{}", if first == '*' { "*" } else { "" }).unwrap();
                rest = &rest[1..];
            } else {
                let escaped = first == '\\' && rest.len() > 1;
                rest = &rest[usize::from(escaped)..];
                let literal = rest.chars().next().unwrap();
                literal.to_string().bytes().for_each(|byte| write!(expression, "\\x{byte:02x}").unwrap());
                if literal == '/' && !escaped {
                    expression.truncate(expression.len() - 4);
                    expression.push('/');
                }
                rest = &rest[literal.len_utf8()..];
            }
        }
        let end = if kind == GlobKind::Path && text.ends_with('/') { ".*$" } else { "$" };
        expression + end
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn a_glob_is_what_its_expression_is(
            text in "[ab/*?\\\\.ö]{0,12}", candidates in prop::collection::vec("[ab/.*?ö]{0,12}", 1..8), is_path: bool,
        ) {
            // An escaped slash is no end of a segment for the one and is for the other: nobody writes it.
            prop_assume!(!text.contains("\\/"));
            let kind = if is_path { GlobKind::Path } else { GlobKind::Text };
            let glob = Glob::new(&text, kind);
            let regex = RegexBuilder::new(&expression(&text, kind)).unicode(false).build().unwrap();
            for candidate in candidates.iter().chain([&text.replace('*', "a/b").replace('?', "b").replace('\\', "")]) {
                prop_assert_eq!(glob.matches(candidate.as_bytes()), regex.is_match(candidate.as_bytes()),
                    "`{}` on `{}` ({})", text, candidate, regex);
            }
        }
    }

    #[test]
    fn many_stars_take_linear_time() {
        let glob = Glob::new(&"**a*".repeat(40), GlobKind::Path);
        let text = "a/".repeat(50_000) + "ab";
        assert!(glob.matches(text.as_bytes()));
        assert!(!Glob::new(&("**a".repeat(60) + "c"), GlobKind::Path).matches(text.as_bytes()));
    }
}
