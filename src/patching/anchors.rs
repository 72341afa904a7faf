//! Looks for the anchors of a set in files that it was not made for, and tells maintainers what became of each.

use std::fmt;

use super::candidates::{FoundLine, block_start, found_line, most_similar};
use super::insert::find_anchor;
use super::patchset::Hunk;
use super::pattern::Pattern;
use super::plan::Plan;
use super::refusal::Place;
use super::text::{Line, lines};

/// One hunk and its place.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The package.
    pub package: String,
    /// The file.
    pub file: String,
    /// The hunk.
    pub hunk: String,
    /// Its anchor, in words.
    pub wanted: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an anchor in a new file.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is in the place where it is looked for, exactly once.
    Holds(FoundLine),
    /// It is there, but not in the block it is looked for in, or that block is gone.
    Moved(Vec<FoundLine>),
    /// It is there more than once.
    Ambiguous(Vec<FoundLine>),
    /// It is gone. These lines are most like it.
    Vanished(Vec<FoundLine>),
    /// The file does not exist.
    FileMissing,
}

impl Finding {
    /// Whether the hunk can go in as it is.
    pub fn holds(&self) -> bool {
        matches!(self.outcome, Outcome::Holds(_))
    }
}

/// Looks for all anchors of a plan, file by file.
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
                outcome: all.as_ref().map_or(Outcome::FileMissing, |all| outcome(all, hunk)),
            });
        }
    }
    findings
}

fn outcome(all: &[Line], hunk: &Hunk) -> Outcome {
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
        return Outcome::Holds(found_line(all, index));
    }
    let matching = |pattern: &Pattern| {
        (0..all.len()).filter(|index| pattern.matches(all[*index].body)).collect::<Vec<_>>()
    };
    let spots =
        |indices: Vec<usize>| indices.into_iter().map(|index| found_line(all, index)).collect::<Vec<_>>();
    let anchors: Vec<usize> = hunk.anchors.iter().flat_map(matching).collect();
    let blocks = hunk.within.as_ref().map(matching);
    match (anchors.len(), blocks.as_ref().map(Vec::len)) {
        (0, None | Some(1..)) => Outcome::Vanished(spots(most_similar(all, &hunk.anchors))),
        (0, Some(0)) => Outcome::Vanished(spots(most_similar(all, &Vec::from_iter(hunk.within.clone())))),
        (2.., None) | (_, Some(2..)) => Outcome::Ambiguous(spots(anchors)),
        // In its block it is ambiguous, or it is elsewhere only.
        (2.., Some(1)) if anchors.iter().filter(|index| in_block(all, hunk, **index)).count() > 1 => {
            Outcome::Ambiguous(spots(anchors))
        }
        _ => Outcome::Moved(spots(anchors)),
    }
}

/// Whether the line belongs to a block that opens as the hunk's does.
fn in_block(all: &[Line], hunk: &Hunk, index: usize) -> bool {
    let opening = block_start(all, index).map(|start| all[start].body);
    hunk.within.as_ref().zip(opening).is_some_and(|(within, opening)| within.matches(opening))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: hunk {}: ", self.file, self.hunk)?;
        match &self.outcome {
            Outcome::Holds(spot) => write!(f, "holds, {}", spot.place()),
            Outcome::FileMissing => write!(f, "the file is missing"),
            Outcome::Moved(spots) => {
                write!(f, "moved: {} is not there, but elsewhere:", self.wanted)?;
                spots.iter().try_for_each(|spot| write!(f, "\n    {spot}"))
            }
            Outcome::Ambiguous(spots) => {
                write!(f, "ambiguous: {} is there {} times:", self.wanted, spots.len())?;
                spots.iter().try_for_each(|spot| write!(f, "\n    {spot}"))
            }
            Outcome::Vanished(spots) => {
                write!(f, "vanished: {} is gone; ", self.wanted)?;
                f.write_str(if spots.is_empty() { "nothing is like it" } else { "most like it:" })?;
                spots.iter().try_for_each(|spot| write!(f, "\n    {spot}"))
            }
        }
    }
}
