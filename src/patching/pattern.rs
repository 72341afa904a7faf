//! Patterns that find one line of an upstream file: plain text, tolerant of white space.
//!
//! Deliberately no regular expressions: an anchor should read like the line it stands for, in the patch set and
//! in the error message, and Perl code is full of characters that would need escaping.

use std::fmt;

use serde::Deserialize;

/// A pattern that is matched against one whole line.
///
/// - Blanks at the ends of the line are ignored; a leading `^` demands that the line is not indented.
/// - A blank in the pattern matches any run of blanks and tabs; between two word characters at least one.
/// - `...` matches anything, also nothing.
/// - Everything else matches itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    text: String,
    column_zero: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Blank { required: bool },
    Anything,
}

/// A pattern that would match every line.
#[derive(Debug, thiserror::Error)]
#[error("the pattern '{0}' holds nothing to look for")]
pub struct EmptyPattern(String);

impl Pattern {
    /// Parses a pattern as written in a patch set.
    ///
    /// # Errors
    /// [`EmptyPattern`] where it holds only blanks and `...`.
    pub fn parse(text: &str) -> Result<Self, EmptyPattern> {
        let (column_zero, rest) = match text.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let bytes = rest.trim().as_bytes();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if bytes[at..].starts_with(b"...") {
                tokens.push(Token::Anything);
                at += 3;
            } else if is_blank(byte) {
                let start = at;
                while bytes.get(at).copied().is_some_and(is_blank) {
                    at += 1;
                }
                tokens.push(Token::Blank { required: is_word(bytes[start - 1]) && is_word(bytes[at]) });
            } else {
                tokens.push(Token::Byte(byte));
                at += 1;
            }
        }
        if !tokens.iter().any(|token| matches!(token, Token::Byte(_))) {
            return Err(EmptyPattern(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), column_zero, tokens })
    }

    /// Whether `line` (without its line end) matches.
    pub fn matches(&self, line: &[u8]) -> bool {
        if self.column_zero && line.first().copied().is_some_and(is_blank) {
            return false;
        }
        let line = line.trim_ascii();
        let (mut token, mut at) = (0, 0);
        // The last `...` met, and where the text after it was last tried. Going back to the last one only is
        // enough and keeps the time within line length times pattern length.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.tokens.get(token) {
                None if at == line.len() => return true,
                Some(Token::Anything) => {
                    token += 1;
                    retry = Some((token, at));
                    continue;
                }
                Some(Token::Blank { required }) => {
                    let run = line[at..].iter().take_while(|b| is_blank(**b)).count();
                    if run > 0 || !required {
                        (token, at) = (token + 1, at + run);
                        continue;
                    }
                }
                Some(Token::Byte(byte)) if line.get(at) == Some(byte) => {
                    (token, at) = (token + 1, at + 1);
                    continue;
                }
                _ => {}
            }
            match &mut retry {
                Some((after, from)) if *from < line.len() => {
                    *from += 1;
                    (token, at) = (*after, *from);
                }
                _ => return false,
            }
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = EmptyPattern;

    fn try_from(text: String) -> Result<Self, EmptyPattern> {
        Self::parse(&text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, line: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(line.as_bytes())
    }

    #[test]
    fn white_space_is_tolerated_where_the_pattern_has_some() {
        for line in ["sub archive_info {", "  sub\tarchive_info  {  ", "sub archive_info{"] {
            assert!(matches("sub archive_info {", line), "{line:?}");
        }
        assert!(!matches("sub archive_info {", "subarchive_info {"));
        assert!(!matches("sub archive_info {", "sub archive_info_x {"));
        assert!(!matches("f($x)", "f( $x )"));
        assert!(matches("f( $x )", "f($x)"));
    }

    #[test]
    fn dots_match_anything() {
        assert!(matches("our $RE = ...", "our $RE = qr/\\.(?:tgz|...)/;"));
        assert!(matches(
            "...pvemanagerlib.js...",
            "<script src=\"/pve2/js/pvemanagerlib.js?ver=1\"></script>"
        ));
        assert!(matches("...ab...ab", "abxabab"));
        assert!(!matches("...ab...abc", "abxabab"));
        assert!(matches("a ... b", "a b") && matches("a ... b", "a x y b"));
    }

    #[test]
    fn caret_means_column_zero() {
        assert!(matches("^sub f {", "sub f {") && !matches("^sub f {", " sub f {"));
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert!(Pattern::parse("a ... b").unwrap().matches(b"a \xff\xfe\0 b"));
    }

    #[test]
    fn a_pattern_for_everything_is_refused() {
        for text in ["", " ", "...", "^", "^ ... "] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hard_cases_end_soon() {
        let line = "a".repeat(1 << 20);
        assert!(!matches("...aaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaa...b", &line));
    }
}
