//! The files of a container's backup, without unpacking the rest.
//!
//! A tar archive whose content can be read at any position is walked over once by its headers, and the content of its
//! members is skipped ([`walk`]). What a header says is a [`Member`]; all of them make a [`Tree`]. The content of a file,
//! with its holes, is a [`FileContent`]. [`extract`] writes members below a folder, whatever their names are, and `pack`
//! writes them to a stream.
//!
//! Every archive may be hostile: names are cut into components and none leads upwards, no link is ever followed, and
//! all memory is limited by what is really there.
//!
//! The rules are those of POSIX (pax and ustar) and of GNU tar's manual, "Basic Tar Format" and "Storing Sparse Files". The
//! archives come from vzdump's `tar`, which is GNU tar in its pax or GNU format.

mod acl;
mod content;
mod extract;
mod member;
mod pack;
mod tree;
mod walk;

use std::io;

pub use content::FileContent;
pub use extract::{Extraction, Problem, extract};
pub use member::{Kind, Member, Xattrs};
pub use pack::{Packing, pack_file, pack_tar, pack_zip};
pub use tree::{Node, Tree};
pub use walk::{read, walk, xattrs};

use crate::text::shown_bytes;

/// What can go wrong with a container's backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed, for instance because the file is damaged.
    #[error("reading the tar archive failed at byte {offset}")]
    Read {
        /// The position in the archive.
        offset: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive ends too early.
    #[error("the tar archive is cut short: it ends at byte {offset}, {place}")]
    Truncated {
        /// The length of the archive in bytes.
        offset: u64,
        /// The place in its structure.
        place: &'static str,
    },
    /// A part of the archive is malformed.
    #[error("{what} (tar archive, byte {offset})")]
    Malformed {
        /// The position of the header concerned.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A member was asked for that the archive does not have.
    #[error("the archive has no file \"{}\"", shown_bytes(name))]
    NoSuch {
        /// Its name.
        name: Vec<u8>,
    },
}
