//! Text that somebody else wrote, made safe for one line of output.
//!
//! Paths, arguments and names may hold line ends, terminal commands, marks that
//! reverse the reading direction, and bytes that are no UTF-8. Shown, each of
//! those becomes a visible escape; everything else stays as it is.

use std::fmt::{self, Write};

/// Shows bytes on one line: `\n`, `\x1b`, `\u{202e}`; a byte that is no UTF-8 as `\xff`.
#[derive(Debug, Clone, Copy)]
pub struct OneLine<'a>(pub &'a [u8]);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for letter in chunk.valid().chars() {
                write_letter(f, letter)?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// [`OneLine`] as a string.
pub fn one_line(bytes: impl AsRef<[u8]>) -> String {
    OneLine(bytes.as_ref()).to_string()
}

/// Whether a character would act instead of being seen.
pub fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn write_letter(f: &mut fmt::Formatter<'_>, letter: char) -> fmt::Result {
    match letter {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        _ if letter.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(letter)),
        _ if is_unseen(letter) => write!(f, "\\u{{{:x}}}", u32::from(letter)),
        _ => f.write_char(letter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_becomes_visible_and_the_rest_stays() {
        assert_eq!(one_line("tar -c 'Übung' \\d"), "tar -c 'Übung' \\d");
        assert_eq!(one_line("a\nb\r\t\x1b[2J\x00"), "a\\nb\\r\\t\\x1b[2J\\x00");
        assert_eq!(one_line("in\u{202e}voice\u{85}"), "in\\u{202e}voice\\u{85}");
        assert_eq!(one_line(b"caf\xe9 \xff"), "caf\\xe9 \\xff");
    }
}
