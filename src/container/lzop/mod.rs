//! The file format of the `lzop` program: LZO1X blocks of 256 KiB with checksums.
//!
//! [`Reader`] decompresses a stream, [`Seekable`] reads a file at any position, [`Writer`] writes what `lzop -d` reads. The
//! first and the last one work on several blocks at once. Every checksum that a file carries is verified before a byte of the
//! block is passed on.
//!
//! The format has no document of its own. What follows was learnt from files that lzop 1.04 writes
//! under its various options. All numbers are big-endian.
//!
//! - A file is one or more *members*, each a header, blocks, and an end mark (four zero bytes).
//! - Header: [magic](MAGIC); u16 version, library version, version needed; u8 method (1 LZO1X-1,
//!   2 LZO1X-1(15), 3 LZO1X-999; one decoder for all), level; u32 flags, filter (only if flagged),
//!   mode, mtime, upper half of mtime; u8 length of the name, the name; u32 Adler-32 or (flagged) CRC-32
//!   of all that except the magic. An extra field (flagged) follows: u32 length, bytes, u32 checksum.
//!   Versions below 0.940 lack the version needed, the level and the upper half of mtime.
//! - Block: u32 length, u32 packed length; u32 Adler-32 and/or CRC-32 of the content; the same of the packed
//!   bytes, if flagged and the block is packed; the packed bytes. A block that does not shrink is
//!   stored: both lengths are equal.

mod format;
mod reader;
pub(super) mod salvage;
mod seekable;
#[cfg(test)]
mod tests;
mod writer;

use std::io;

pub use format::{MAGIC, is_lzop};
pub use reader::Reader;
pub use seekable::Seekable;
pub(super) use seekable::has_checksums;
pub use writer::Writer;

use crate::container::lzo;

/// Why a file cannot be read. Offsets are in bytes from the start of the compressed file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No lzop header where the file, or a further member of it, should start.
    #[error("no lzop header at offset {offset}: not an lzop file, or damaged, or other data appended to one")]
    NotLzop {
        /// Where the magic was expected.
        offset: u64,
    },
    /// The file ends in the middle of something.
    #[error("lzop file is truncated: it ends at offset {offset}, within {within}")]
    Truncated {
        /// Length of the file.
        offset: u64,
        /// What was being read.
        within: &'static str,
    },
    /// A feature this program does not have.
    #[error(
        "lzop header at offset {offset}: {what} is not supported; decompress the file with the lzop program"
    )]
    Unsupported {
        /// Where the member starts.
        offset: u64,
        /// The feature, with its value.
        what: String,
    },
    /// A field with an impossible value.
    #[error("lzop file is damaged at offset {offset}: {what}")]
    Corrupt {
        /// Where the field's header or block starts.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// A checksum does not match.
    #[error(
        "lzop file is damaged at offset {offset}: {what} has {kind} {found:08x}, recorded is {recorded:08x}"
    )]
    Checksum {
        /// Where the header or block starts.
        offset: u64,
        /// What the checksum covers.
        what: &'static str,
        /// Name of the checksum.
        kind: &'static str,
        /// As stored in the file.
        recorded: u32,
        /// As calculated.
        found: u32,
    },
    /// The content of a block is not LZO1X data.
    #[error("lzop file is damaged in the block at offset {offset}: {cause}")]
    Data {
        /// Where the block's header starts.
        offset: u64,
        /// What is wrong in it.
        cause: lzo::Error,
    },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}
