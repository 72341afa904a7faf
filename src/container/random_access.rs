//! Files whose content can be read at any position.
//!
//! [`RandomAccess`] is such a file before it is read: it tells its size, and is opened for reading with
//! [`ReadOptions`]. A zstd file with a seek table then becomes a [`FrameReader`], which keeps decompressed frames; other
//! files need no options.

use std::io;
use std::sync::Arc;

use super::extent::Extent;
use super::read_at::ReadAt;
use super::seekable::{FrameReader, LastFrame, ReadOptions, Seekable};

/// A file whose content can be read at any position.
#[derive(Clone)]
pub enum RandomAccess {
    /// A zstd file with a seek table.
    Frames(Arc<Seekable>),
    /// Any other; it has no options.
    Plain(Arc<dyn ReadAt>),
}

impl RandomAccess {
    /// Length of the content in bytes, decompressed.
    pub fn size(&self) -> u64 {
        match self {
            RandomAccess::Frames(file) => file.size(),
            RandomAccess::Plain(file) => file.size(),
        }
    }

    /// Opens the content for reading.
    pub fn reader(&self, options: ReadOptions) -> RandomReader {
        match self {
            RandomAccess::Frames(file) => RandomReader::Frames(file.reader(options)),
            RandomAccess::Plain(file) => RandomReader::Plain(Arc::clone(file)),
        }
    }
}

/// A [`RandomAccess`] file that is open for reading.
pub enum RandomReader {
    /// A zstd file with a seek table.
    Frames(FrameReader),
    /// Any other.
    Plain(Arc<dyn ReadAt>),
}

impl RandomReader {
    /// Reads as [`ReadAt::read_at`] does. It is quicker for a thread that reads many places close to one another, and
    /// passes the same `last` each time.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn read_near(&self, pos: u64, buf: &mut [u8], last: &mut LastFrame) -> io::Result<()> {
        match self {
            RandomReader::Frames(reader) => reader.read_near(pos, buf, last),
            RandomReader::Plain(reader) => reader.read_at(pos, buf),
        }
    }

    /// Announces that turn `turn` will read these extents; see [`FrameReader::expect`].
    pub fn expect(&self, turn: u64, extents: &[Extent]) {
        if let RandomReader::Frames(reader) = self {
            reader.expect(turn, extents);
        }
    }

    /// Tells that turn `turn` and those before it are over.
    pub fn passed(&self, turn: u64) {
        if let RandomReader::Frames(reader) = self {
            reader.passed(turn);
        }
    }

    /// Verifies the file's own checksums of what holds this extent, where it has some.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn verify(&self, extent: Extent) -> io::Result<()> {
        match self {
            RandomReader::Frames(reader) => reader.verify(extent),
            RandomReader::Plain(_) => Ok(()),
        }
    }
}

impl ReadAt for RandomReader {
    fn size(&self) -> u64 {
        match self {
            RandomReader::Frames(reader) => reader.size(),
            RandomReader::Plain(reader) => reader.size(),
        }
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        match self {
            RandomReader::Frames(reader) => reader.read_at(pos, buf),
            RandomReader::Plain(reader) => reader.read_at(pos, buf),
        }
    }
}
