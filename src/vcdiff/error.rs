//! What can be wrong with a delta, its base, or their combination.

use std::io;

use crate::budget::Spent;
use crate::text::what_it_is;

/// Result with this module's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a delta cannot be read or applied. Windows are counted from 0, offsets are bytes of the
/// (decompressed) delta.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The delta could not be read.
    #[error("reading the delta failed at offset {offset}")]
    Read {
        /// Offset in the delta.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// The base could not be read, for instance because it is too short.
    #[error(
        "reading the base failed at offset {pos} ({len} bytes, for window {window} of the delta){}", too_short(.source)
    )]
    Base {
        /// Window that wanted the bytes.
        window: u64,
        /// First byte wanted.
        pos: u64,
        /// Number of bytes wanted.
        len: usize,
        /// What the reader of the base said.
        source: io::Error,
    },
    /// The delta does not start with the VCDIFF magic.
    #[error("not a VCDIFF delta (a differential) but {}", what_it_is(found))]
    NotVcdiff {
        /// First bytes found, up to 4.
        found: Vec<u8>,
    },
    /// Valid VCDIFF that neither xdelta3 nor we can decode.
    #[error("the delta uses {what}, which is not supported")]
    Unsupported {
        /// Feature, as a noun.
        what: &'static str,
    },
    /// The delta ends inside a header or window.
    #[error("the delta is truncated: it ends at offset {offset}, inside {inside}")]
    Truncated {
        /// Length of the delta.
        offset: u64,
        /// Part that is incomplete.
        inside: &'static str,
    },
    /// The delta ends after a complete window, but its header announced an end record.
    #[error(
        "the delta is truncated: it ends at offset {offset} without the end record that its header announces"
    )]
    MissingEnd {
        /// Length of the delta.
        offset: u64,
    },
    /// A malformed header or window.
    #[error("the delta is damaged: {what} (offset {offset}, window {window})")]
    Damaged {
        /// Where reading had arrived.
        offset: u64,
        /// Window being read.
        window: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The instructions of a window do not fit the window.
    #[error("the delta is damaged: {what} (instructions of window {window})")]
    BadInstruction {
        /// Window the instruction is in.
        window: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A declared size beyond the [`Limits`](super::Limits).
    #[error("the delta declares {what} of {size} bytes, more than the limit of {limit} (window {window})")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Window being read.
        window: u64,
        /// Declared size.
        size: u64,
        /// Largest size accepted.
        limit: u64,
    },
    /// Deltas that are to be joined describe too much for their own length.
    #[error("the deltas cannot be joined in memory")]
    Memory(#[from] Spent),
    /// A window's result differs from what was encoded.
    #[error(
        "checksum of window {window} is {found:08x} instead of {expected:08x}: wrong base, or base or delta damaged"
    )]
    Checksum {
        /// Window that differs.
        window: u64,
        /// Adler-32 stored in the delta.
        expected: u32,
        /// Adler-32 of the result.
        found: u32,
    },
    /// The whole target differs from what the end record says.
    #[error("the restored data is not what was saved: {what}")]
    WrongTarget {
        /// What differs.
        what: &'static str,
    },
}

/// The question that is added where a base ends too early.
fn too_short(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ": is it the file the delta was made against?",
        _ => "",
    }
}
