//! How the anchors of a set fare in files it does not know yet: for people who look at a new release.

use std::fmt;

use super::insert::find_anchor;
use super::near::{Spot, nearest, opening, spot};
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
