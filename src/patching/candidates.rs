//! Candidates for a line that is looked for and not there: the lines of the file that are most like it.

use std::fmt;

use super::pattern::Pattern;
use super::text::Line;
use crate::text::escaped;

/// The most candidates that are shown.
const CANDIDATES: usize = 3;

/// The least similarity of a candidate, from 0 (nothing in common) to 1 (equal).
const ALIKE: f32 = 0.6;

/// The longest line that is compared, in characters.
const LONGEST: usize = 400;

/// The most characters of a line that are shown.
const SHOWN: usize = 200;

/// A line of a file with its place, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLine {
    /// Its number, from 1.
    pub line: usize,
    /// Its text, without blanks around it.
    pub text: String,
    /// The line that opens the sub or class around it.
    pub around: Option<String>,
}

/// Lists candidates as the end of a sentence.
pub fn list(candidates: &[FoundLine]) -> String {
    match candidates {
        [] => "nothing is like it".to_owned(),
        some => {
            format!("most like it: {}", some.iter().map(FoundLine::to_string).collect::<Vec<_>>().join("; "))
        }
    }
}

/// Finds the lines that are most like one of `patterns`, best first.
pub(super) fn most_similar(all: &[Line], patterns: &[Pattern]) -> Vec<usize> {
    let mut ranked: Vec<(f32, usize)> = Vec::new();
    for pattern in patterns {
        let wanted = plain(pattern.to_string().trim_start_matches('^').replace("...", " ").as_bytes());
        for (index, line) in all.iter().enumerate() {
            let text = plain(line.body);
            // The longer one has so much that the other lacks: no need to look closer.
            let (short, long) = (wanted.len().min(text.len()), wanted.len().max(text.len()));
            if text.len() > LONGEST || (2 * short) as f32 / ((short + long).max(1) as f32) < ALIKE {
                continue;
            }
            let ratio = similar::TextDiff::from_chars(&wanted, &text).ratio();
            if ratio >= ALIKE {
                ranked.push((ratio, index));
            }
        }
    }
    ranked.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    ranked.truncate(CANDIDATES);
    ranked.into_iter().map(|(_, index)| index).collect()
}

/// The text of a line, with single blanks.
fn plain(body: &[u8]) -> String {
    String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text of a line for people: it has a bounded length and no characters that could command a terminal.
fn shown(body: &[u8]) -> String {
    let text = plain(body);
    let mut shown = escaped(text.chars().take(SHOWN).collect::<String>().as_bytes());
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The line at `index` of `all`, with its place.
pub(super) fn found_line(all: &[Line], index: usize) -> FoundLine {
    FoundLine {
        line: index + 1,
        text: shown(all[index].body),
        around: block_start(all, index).map(|i| shown(all[i].body)),
    }
}

/// Finds the line that opens the sub or class around a line. Proxmox' code begins and ends these without indentation.
pub(super) fn block_start(all: &[Line], index: usize) -> Option<usize> {
    let last_end = all[..index].iter().rposition(|line| line.body.starts_with(b"}")).map_or(0, |end| end + 1);
    (last_end..=index).rev().find(|above| {
        let body = all[*above].body;
        let opens = [&b"sub "[..], b"Ext.define("].iter().any(|word| body.starts_with(word));
        opens || body.starts_with(b"my $") && body.windows(6).any(|window| window == b"= sub ")
    })
}

impl FoundLine {
    /// Its place, in words.
    pub fn place(&self) -> String {
        match &self.around {
            Some(around) if *around != self.text => format!("line {}, in `{around}`", self.line),
            _ => format!("line {}", self.line),
        }
    }
}

impl fmt::Display for FoundLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.place(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_as_code_that_commands_no_terminal() {
        assert_eq!(shown(b"  my $x =\t\"\x1b[2J\xe2\x80\xae<&>\";"), r#"my $x = "\x1b[2J\xe2\x80\xae<&>";"#);
        assert_eq!(shown("x".repeat(SHOWN + 1).as_bytes()), "x".repeat(SHOWN) + "...");
    }
}
