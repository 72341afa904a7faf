//! How the anchors of a set fare in files it does not know yet: for people who look at a new release.

use std::fmt;

use super::insert::find_anchor;
use super::patchset::Hunk;
use super::pattern::Pattern;
use super::plan::Plan;
use super::refusal::Place;
use super::text::{Line, lines};

/// How many candidates are shown for an anchor that is gone.
const CANDIDATES: usize = 3;

/// How alike a line must be to be shown, from 0 to 1.
const ALIKE: f32 = 0.6;

/// Longest line that is compared.
const LONGEST: usize = 400;

/// One hunk and its place.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The package.
    pub package: String,
    /// The file.
    pub file: String,
    /// The hunk.
    pub hunk: String,
    /// What it hangs on.
    pub wanted: String,
    /// How that fares.
    pub fate: Fate,
}

/// How an anchor fares.
#[derive(Debug, Clone)]
pub enum Fate {
    /// It is where it is looked for, once.
    Holds(Spot),
    /// It is there, but not in the block it is looked for in, or that block is gone.
    Moved(Vec<Spot>),
    /// It is there more than once.
    Ambiguous(Vec<Spot>),
    /// It is gone; these lines are most like it.
    Vanished(Vec<Spot>),
    /// The file does not exist.
    FileMissing,
}

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

impl Finding {
    /// Whether nothing needs to be done.
    pub fn holds(&self) -> bool {
        matches!(self.fate, Fate::Holds(_))
    }
}

/// How all anchors of a plan fare, file by file.
pub fn examine(plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in plan.files.iter().filter(|file| file.package.is_some()) {
        let all: Option<Vec<Line>> = file.pristine.as_deref().map(|content| lines(content).collect());
        let hunks = plan.set.hunks.iter().filter(|hunk| hunk.file == file.path);
        for hunk in hunks.filter(|hunk| file.hunks.contains(&hunk.id)) {
            let wanted = hunk.anchors.iter().map(Pattern::to_string).collect::<Vec<_>>().join("` or `");
            let wanted = match &hunk.within {
                Some(block) => format!("`{wanted}` in `{block}`"),
                None => format!("`{wanted}`"),
            };
            findings.push(Finding {
                package: hunk.package.clone(),
                file: file.path.clone(),
                hunk: hunk.id.clone(),
                wanted,
                fate: all.as_ref().map_or(Fate::FileMissing, |all| fate(all, hunk)),
            });
        }
    }
    findings
}

fn fate(all: &[Line], hunk: &Hunk) -> Fate {
    let nowhere = |hunk: &Hunk, block: Option<&Pattern>| {
        Box::new(Place {
            package: hunk.package.clone(),
            version: String::new(),
            file: hunk.file.clone(),
            hunk: hunk.id.clone(),
            block: block.map(Pattern::to_string),
            origin: None,
        })
    };
    if let Ok(index) = find_anchor(all, hunk, &nowhere) {
        return Fate::Holds(spot(all, index));
    }
    let matching = |pattern: &Pattern| {
        (0..all.len()).filter(|index| pattern.matches(all[*index].body)).collect::<Vec<_>>()
    };
    let spots = |indices: Vec<usize>| indices.into_iter().map(|index| spot(all, index)).collect::<Vec<_>>();
    let anchors: Vec<usize> = hunk.anchors.iter().flat_map(matching).collect();
    let blocks = hunk.within.as_ref().map(matching);
    match (anchors.len(), blocks.as_ref().map(Vec::len)) {
        (0, None | Some(1..)) => Fate::Vanished(spots(nearest(all, &hunk.anchors))),
        (0, Some(0)) => Fate::Vanished(spots(nearest(all, &Vec::from_iter(hunk.within.clone())))),
        (2.., None) | (_, Some(2..)) => Fate::Ambiguous(spots(anchors)),
        // In its block it is ambiguous, or it is elsewhere only.
        (2.., Some(1)) if anchors.iter().filter(|index| in_block(all, hunk, **index)).count() > 1 => {
            Fate::Ambiguous(spots(anchors))
        }
        _ => Fate::Moved(spots(anchors)),
    }
}

/// Whether the line belongs to a block that opens as the hunk's does.
fn in_block(all: &[Line], hunk: &Hunk, index: usize) -> bool {
    let opening = opening(all, index).map(|opening| all[opening].body);
    hunk.within.as_ref().zip(opening).is_some_and(|(within, opening)| within.matches(opening))
}

/// The lines most like one of `patterns`, best first.
fn nearest(all: &[Line], patterns: &[Pattern]) -> Vec<usize> {
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

fn spot(all: &[Line], index: usize) -> Spot {
    Spot {
        line: index + 1,
        text: plain(all[index].body),
        around: opening(all, index).map(|i| plain(all[i].body)),
    }
}

/// The line that opens the sub or class around a line: Proxmox' code has these, and where they end, at the beginning of
/// a line.
fn opening(all: &[Line], index: usize) -> Option<usize> {
    let last_end = all[..index].iter().rposition(|line| line.body.starts_with(b"}")).map_or(0, |end| end + 1);
    (last_end..=index).rev().find(|above| {
        let body = all[*above].body;
        let opens = [&b"sub "[..], b"Ext.define("].iter().any(|word| body.starts_with(word));
        opens || body.starts_with(b"my $") && body.windows(6).any(|window| window == b"= sub ")
    })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: hunk {}: ", self.file, self.hunk)?;
        match &self.fate {
            Fate::Holds(spot) => write!(f, "holds, {}", spot.place()),
            Fate::FileMissing => write!(f, "the file is missing"),
            Fate::Moved(spots) => {
                write!(f, "moved: {} is not there, but elsewhere:", self.wanted)?;
                spots.iter().try_for_each(|spot| write!(f, "\n    {spot}"))
            }
            Fate::Ambiguous(spots) => {
                write!(f, "ambiguous: {} is there {} times:", self.wanted, spots.len())?;
                spots.iter().try_for_each(|spot| write!(f, "\n    {spot}"))
            }
            Fate::Vanished(spots) => {
                write!(f, "vanished: {} is gone; ", self.wanted)?;
                f.write_str(if spots.is_empty() { "nothing is like it" } else { "most like it:" })?;
                spots.iter().try_for_each(|spot| write!(f, "\n    {spot}"))
            }
        }
    }
}

impl Spot {
    fn place(&self) -> String {
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
