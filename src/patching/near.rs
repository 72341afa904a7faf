//! Lines that are most like one that is not there, and where they are.

use std::fmt;

use super::pattern::Pattern;
use super::text::Line;

/// How many candidates are shown for an anchor that is gone.
const CANDIDATES: usize = 3;

/// How alike a line must be to be shown, from 0 to 1.
const ALIKE: f32 = 0.6;

/// Longest line that is compared.
const LONGEST: usize = 400;

/// Characters of a line that are shown.
const SHOWN: usize = 200;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Its number, from 1.
    pub line: usize,
    /// What it says, without blanks around it.
    pub text: String,
    /// The line that opens the sub or class around it.
    pub around: Option<String>,
}

/// The lines as the end of a sentence.
pub fn told(near: &[Spot]) -> String {
    match near {
        [] => "nothing is like it".to_owned(),
        near => format!("most like it: {}", near.iter().map(Spot::to_string).collect::<Vec<_>>().join("; ")),
    }
}

/// The lines most like one of `patterns`, best first.
pub(super) fn nearest(all: &[Line], patterns: &[Pattern]) -> Vec<usize> {
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

/// A line as text, with single blanks.
fn plain(body: &[u8]) -> String {
    String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line for people: of bounded length, without what could steer a terminal.
fn shown(body: &[u8]) -> String {
    let text = plain(body);
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

pub(super) fn spot(all: &[Line], index: usize) -> Spot {
    Spot {
        line: index + 1,
        text: shown(all[index].body),
        around: opening(all, index).map(|i| shown(all[i].body)),
    }
}

/// The line that opens the sub or class around a line: Proxmox' code has these, and where they end, at the beginning of
/// a line.
pub(super) fn opening(all: &[Line], index: usize) -> Option<usize> {
    let last_end = all[..index].iter().rposition(|line| line.body.starts_with(b"}")).map_or(0, |end| end + 1);
    (last_end..=index).rev().find(|above| {
        let body = all[*above].body;
        let opens = [&b"sub "[..], b"Ext.define("].iter().any(|word| body.starts_with(word));
        opens || body.starts_with(b"my $") && body.windows(6).any(|window| window == b"= sub ")
    })
}

impl Spot {
    /// Where it is.
    pub fn place(&self) -> String {
        match &self.around {
            Some(around) if *around != self.text => format!("line {}, in `{around}`", self.line),
            _ => format!("line {}", self.line),
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.place(), self.text)
    }
}
