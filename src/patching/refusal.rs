//! The reasons why a host is not patched. Each tells what was looked for and what to do next.

use std::fmt;

use super::candidates::{self, FoundLine};
use super::originals::{self, Found};
use crate::host::{Origin, hint};

/// One reason against a plan. All of a plan's reasons are collected before anything is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A package is missing without which there is nothing to patch.
    #[error(
        "package {package} is not installed: this is no Proxmox VE host (give its root folder with --root)"
    )]
    NotInstalled {
        /// The package.
        package: String,
    },
    /// No set is meant for these files.
    #[error(
        "no patch set is meant for these files:\n{}\nInstall a pve-diff-backup that knows this release; until \
         then backups run as full ones, as Proxmox ships them",
        failed.iter().map(|(set, fact)| format!("  {set}: {fact}")).collect::<Vec<_>>().join("\n")
    )]
    NoSet {
        /// Each set's name and the first fact that does not hold.
        failed: Vec<(String, String)>,
    },
    /// More than one set is meant for these files, which is a mistake in the sets.
    #[error("the patch sets {} all claim these files: the sets contradict each other", sets.join(", "))]
    SeveralSets {
        /// Their names.
        sets: Vec<String>,
    },
    /// No generation of hunks is meant for a package's files.
    #[error(
        "{package} {version}: no hunks are meant for its files:\n{}\nInstall a pve-diff-backup that knows this \
         release; until then backups run as full ones, as Proxmox ships them",
        failed.iter().map(|(from, fact)| format!("  those of {from} on: {fact}")).collect::<Vec<_>>().join("\n")
    )]
    NoGeneration {
        /// The package.
        package: String,
        /// Its installed version.
        version: String,
        /// Each generation's name and the first fact that does not hold.
        failed: Vec<(String, String)>,
    },
    /// More than one generation claims a package's files, which is a mistake in the set.
    #[error(
        "{package} {version}: the hunks of {} all claim its files: the patch set contradicts itself; please report this",
        generations.join(", ")
    )]
    SeveralGenerations {
        /// The package.
        package: String,
        /// Its installed version.
        version: String,
        /// Their names.
        generations: Vec<String>,
    },
    /// A file to be patched does not exist.
    #[error("{place}: the file is missing; {next}")]
    FileMissing {
        /// Where.
        place: Box<Place>,
        /// What to do.
        next: String,
    },
    /// No line matches where exactly one must.
    #[error("{place}: looked for the line `{wanted}` and found none; {}. {}", candidates::list(candidates), place.next())]
    AnchorMissing {
        /// Where.
        place: Box<Place>,
        /// The pattern, or patterns.
        wanted: String,
        /// The lines most like it.
        candidates: Vec<FoundLine>,
    },
    /// Several lines match where exactly one must.
    #[error(
        "{place}: looked for the one line `{wanted}` and found {}: lines {}. {}",
        lines.len(), lines.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
        place.next()
    )]
    AnchorAmbiguous {
        /// Where.
        place: Box<Place>,
        /// The pattern, or patterns.
        wanted: String,
        /// The lines that match, from 1.
        lines: Vec<usize>,
    },
    /// A block has no end.
    #[error("{place}: the block that begins in line {line} does not end: the file is incomplete. {}", place.next())]
    BlockOpen {
        /// Where.
        place: Box<Place>,
        /// Where it begins, from 1.
        line: usize,
    },
    /// Our lines could not be taken out again without a trace.
    #[error(
        "{place}: `revert` could not give back this file byte for byte (its last line ends in a carriage \
         return). `{}` gives back Proxmox' own",
        hint::ours("reinstall")
    )]
    NotRevertible {
        /// Where.
        place: Box<Place>,
    },
    /// Somebody else's file lies where one of ours should go.
    #[error(
        "/{target}: there is a file that is not ours, where one of ours should go; move it away (`mv {} {}`), then try \
         again", hint::file(target), hint::file(&format!("{target}.old"))
    )]
    PayloadInTheWay {
        /// Its path.
        target: String,
    },
    /// The patches that this program succeeds are still there.
    #[error(
        "the patches of ayufan/pve-patches are still in these files:\n{}\nTheir lines and ours exclude each other. Give \
         the host Proxmox' own files back first, then try again:\n  {}\n(or run the script that patched it once more, \
         with `revert`). Their archives stay usable",
        found.iter().map(|found| format!("  {} {}: /{}, from line {} on", found.package, found.version, found.file,
            found.line)).collect::<Vec<_>>().join("\n"),
        originals::remedy(found)
    )]
    OriginalPatches {
        /// Where.
        found: Vec<Found>,
    },
    /// A module does not load any more.
    #[error(
        "{owner}/{file}: loads as it is, but not with our lines. {said}\nThis is a mistake of ours: please report it \
         together with the output of `{}`",
        hint::ours("diff")
    )]
    ModuleBroken {
        /// Its package and version, and a colon; nothing for a file of ours.
        owner: String,
        /// The module's file.
        file: String,
        /// What perl said.
        said: String,
    },
    /// What `revert` would leave is not what was there.
    #[error(
        "/{file}: `revert` would not give this file back byte for byte. This is a mistake of ours: please report it \
         together with the output of `{}`",
        hint::ours("diff")
    )]
    RevertBroken {
        /// The file.
        file: String,
    },
    /// A line of ours would stand in a comment or text of a page or module, where it has no effect.
    #[error(
        "{owner}/{file}: {said}, where it has no effect or spoils the file.\nThis is a mistake of ours: please report it \
         together with the output of `{}`",
        hint::ours("diff")
    )]
    Misplaced {
        /// Its package and version, and a colon.
        owner: String,
        /// The file.
        file: String,
        /// What is wrong.
        said: String,
    },
}

/// The place in question: a hunk in a file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The package.
    pub package: String,
    /// Its installed version.
    pub version: String,
    /// The file, relative to the root.
    pub file: String,
    /// The hunk.
    pub hunk: String,
    /// The line that opens the block, where the hunk is limited to one.
    pub block: Option<String>,
    /// Whether the file is as its package shipped it.
    pub origin: Option<Origin>,
}

impl Refusal {
    /// The place that it is about, where it is one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::FileMissing { place, .. }
            | Self::AnchorMissing { place, .. }
            | Self::AnchorAmbiguous { place, .. }
            | Self::BlockOpen { place, .. }
            | Self::NotRevertible { place } => Some(place),
            _ => None,
        }
    }
}

impl Place {
    /// What to do where the file is not as a hunk needs it.
    fn next(&self) -> String {
        let newer = "This release changed the code there: install a newer pve-diff-backup; until then backups run as \
                     full ones";
        let edited = format!(
            "Somebody edited this file, for it is not what its package shipped: undo that, or let `{}` give back Proxmox' \
             own",
            hint::ours("reinstall")
        );
        match self.origin {
            Some(Origin::Pristine) => newer.to_owned(),
            Some(Origin::Modified) => edited,
            Some(Origin::Unknown) | None => format!("Either: {newer}. Or: {edited}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: /{}: hunk {}", self.package, self.version, self.file, self.hunk)?;
        match &self.block {
            Some(block) => write!(f, ", in the block `{block}`"),
            None => Ok(()),
        }
    }
}
