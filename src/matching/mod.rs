//! The delta engine: full backups with a map, differentials against them, and their restore.
//!
//! ```text
//! full:     stream -> cut -> fingerprints + zstd frames            -> archive with map   (full)
//! diff:     stream -> cut -> index of the base's map -> fine, seed -> VCDIFF windows      (encode, job)
//! restore:  VCDIFF windows + base, read where they copy from       -> stream              (restore)
//! ```
//! Everything streams: memory is bounded by the number of segments under way ([`pipeline`]), frames
//! that are cached, and the index of the base.

pub mod ahead;
pub mod base;
pub mod cut;
pub mod encode;
mod far;
pub mod fine;
pub mod full;
mod growing;
pub mod index;
mod job;
pub mod map;
mod members;
mod old;
pub mod pipeline;
pub mod print;
mod records;
pub mod restore;
mod seed;
pub mod sliding;
mod spare;

use std::io;
use std::path::{Path, PathBuf};

use crate::container::source::Refused;
use crate::text::shown;
use crate::vcdiff;

/// Threads that compare or apply windows at most: each takes memory, and these are faster than any pipe.
const MAX_THREADS: usize = 3;

/// What can go wrong with a full backup, a differential or a restore.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// What has the name of a backup is none.
    #[error("{} {refused}", shown(path))]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it is.
        refused: Refused,
    },
    /// The base cannot be used.
    #[error("the full backup {} {problem}", shown(path))]
    Base {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: BaseProblem,
    },
    /// The differential is damaged.
    #[error("{error}{}", chain(.error))]
    Delta {
        /// What.
        #[from]
        error: vcdiff::Error,
    },
    /// A mistake of this program.
    #[error("internal error: {0}; nothing that was written is complete, please report this")]
    Internal(&'static str),
}

/// What people are told of a base that cannot be read; most often it is away, and its place is named before.
fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is missing: put it back there first".to_string(),
        _ => format!("cannot be read: {error}"),
    }
}

/// Why a file is no base.
#[derive(Debug, thiserror::Error)]
pub enum BaseProblem {
    /// The system's error.
    #[error("{}", unreadable(.0))]
    Io(io::Error),
    /// A symbolic link on a storage, a directory, a pipe or the like.
    #[error(transparent)]
    Refused(Refused),
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// A differential.
    #[error("is a differential, not a full backup")]
    Differential,
    /// Damage that shows.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// It may be the one that the differential needs.
    #[error("cannot be told to be the one that this differential needs without reading all of it")]
    Unproved,
    /// All of a full backup with a map, and more.
    #[error(
        "is whole, but has {what} behind its end: it was changed since. Its first {end} bytes are the full backup \
         (head -c {end} FILE > COPY)"
    )]
    Behind {
        /// What there is.
        what: &'static str,
        /// Bytes of the full backup itself.
        end: u64,
    },
    /// It did not stay what it was while it was in use.
    #[error(
        "{0} while a differential backup was made against it; nothing could be restored from that: make the backup again"
    )]
    Changed(String),
    /// Another file than the one the differential needs.
    #[error(
        "is not the one that this differential was made against ({name}): {what}. It was replaced, cut short or \
         changed since; put the right file back"
    )]
    Other {
        /// Name of the base in the differential's header.
        name: String,
        /// What differs.
        what: String,
    },
    /// The differential's header holds nothing to know the base by.
    #[error(
        "cannot be proved to be the one that this differential was made against: the differential's header does not \
         tell ({name}). If you know that it is: pve-xdelta3 restore --any-base"
    )]
    Unknown {
        /// Name of the base in the differential's header, or that there is none.
        name: String,
    },
}

impl Error {
    fn base(path: &Path, problem: BaseProblem) -> Error {
        Error::Base { path: path.to_owned(), problem }
    }

    /// The reader of our output is gone: nothing to complain about.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The causes of an error, for the end of its message, as far as that does not tell them.
fn chain(error: &dyn std::error::Error) -> String {
    let message = error.to_string();
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !message.contains(&told) && !text.contains(&told) {
            text += &format!(": {told}");
        }
        next = cause.source();
    }
    text
}
