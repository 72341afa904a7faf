//! What can go wrong with a full backup, a differential or a restore, in words for administrators.

use std::io;
use std::path::{Path, PathBuf};

use crate::container::source::Refused;
use crate::nbd;
use crate::text::shown;
use crate::vcdiff;

/// What can go wrong with a full backup, a differential or a restore.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a pipe or a thread failed.
    #[error("{what}")]
    Io {
        /// What this program tried to do, as the first half of the message.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// A path with the name of a backup leads to something that must not be opened there.
    #[error("{} {refused}", shown(path))]
    Refused {
        /// The file.
        path: PathBuf,
        /// What was found instead of a regular file.
        refused: Refused,
    },
    /// The full backup cannot serve as a base.
    #[error("the full backup {} {problem}", shown(path))]
    Base {
        /// The file.
        path: PathBuf,
        /// Why it cannot.
        problem: BaseProblem,
    },
    /// The differential is damaged, or is no differential.
    #[error(transparent)]
    Delta {
        /// What the reader of VCDIFF found.
        #[from]
        error: vcdiff::Error,
    },
    /// A differential of what is dirty alone cannot be made, or would not be certain to be right.
    #[error("{0}: everything must be read")]
    Unfit(String),
    /// A disk that is to be backed up cannot be read.
    #[error("cannot read the disk {name}")]
    Disk {
        /// The name of the disk.
        name: String,
        /// What its server, or the connection to it, did.
        source: nbd::Error,
    },
    /// This program has a bug.
    #[error("internal error: {0}; nothing that was written is complete, please report this")]
    Internal(&'static str),
}

/// Words for a base that cannot be read. Most often the file is gone; the message names its path before these words.
fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is missing: put it back there first".to_string(),
        _ => format!("cannot be read: {error}"),
    }
}

/// Why a file cannot serve as a base. Each text continues the sentence "the full backup FILE …".
#[derive(Debug, thiserror::Error)]
pub enum BaseProblem {
    /// The system refused to read it.
    #[error("{}", unreadable(.0))]
    Io(io::Error),
    /// It is a symbolic link on a storage, a directory, a pipe or the like.
    #[error(transparent)]
    Refused(Refused),
    /// It holds nothing.
    #[error("is empty")]
    Empty,
    /// It is a differential itself.
    #[error("is a differential, not a full backup")]
    Differential,
    /// It is damaged, as far as that shows without reading all of it.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// It may be the one that the differential needs, but nothing proves it.
    #[error("cannot be told to be the one that this differential needs without reading all of it")]
    Unproved,
    /// Something was appended to a full backup with a map.
    #[error(
        "is whole, but has {what} behind its end: it was changed since. Its first {end} bytes are the full backup \
         (head -c {end} FILE > COPY)"
    )]
    Behind {
        /// What was appended.
        what: &'static str,
        /// Length of the full backup itself, in bytes of the file.
        end: u64,
    },
    /// It was changed, replaced or removed while a differential was made against it.
    #[error(
        "{0} while a differential backup was made against it; nothing could be restored from that: make the backup again"
    )]
    Changed(String),
    /// It is another full backup than the one that the differential needs.
    #[error(
        "is not the one that this differential was made against ({name}): {what}. It was replaced, cut short or \
         changed since; put the right file back"
    )]
    Other {
        /// The base's name in the differential's header.
        name: String,
        /// What differs between the two.
        what: String,
    },
    /// The differential's header holds nothing by which the base could be recognised.
    #[error(
        "cannot be proved to be the one that this differential was made against: the differential's header does not \
         tell ({name}). If you know that it is: pve-xdelta3 restore --any-base"
    )]
    Unknown {
        /// Which name the differential's header gives the base, in words.
        name: String,
    },
}

impl Error {
    pub(super) fn base(path: &Path, problem: BaseProblem) -> Error {
        Error::Base { path: path.to_owned(), problem }
    }

    pub(super) fn unfit(why: impl Into<String>) -> Error {
        Error::Unfit(why.into())
    }

    /// Whether writing failed only because the reader of our output went away.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}
