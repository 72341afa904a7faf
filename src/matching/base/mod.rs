//! The base: a full backup, as differentials are made against it and restored from it.
//!
//! [`Base`] opens one file, once (`open`). How its content can be read is decided there and nowhere else, and the result
//! is an [`Access`]: by a map of ours, at any position, or one way. Everything that is asked of a base uses that open
//! file: what identifies it, whether a differential was made against it (`proof`), and its content. Only a [`Witness`]
//! opens the path again, to tell whether the same full backup still lies there (`witness`).

mod nature;
mod open;
mod proof;
mod witness;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

pub use nature::Nature;
pub use proof::Proof;
pub use witness::Witness;

use super::map::Map;
use super::{BaseProblem, Error};
use crate::container::seekable::ReadOptions;
use crate::container::source::Pass;
use crate::container::{self, RandomAccess, ReadAt, Sequential};
use crate::vcdiff::AppHeader;

/// A stream of decompressed content.
pub type Stream = Box<dyn Read + Send>;

/// How the content of a base can be read.
pub enum Access {
    /// By its map: the file is a full backup of ours.
    Mapped(Map),
    /// At any position: the file is not compressed, or is lzop, or is zstd with a seek table.
    Random(RandomAccess),
    /// From its front only: zstd without a seek table, gzip, xz, bzip2, compress, and pipes.
    OneWay(OneWay),
}

/// Content that can be read from its front only.
pub struct OneWay {
    /// The content, from its start.
    pub stream: Stream,
    /// The compressed file from its start, if it can be read more than once.
    pub file: Option<Pass>,
}

impl OneWay {
    /// Opens the content from its start once more; `None` where it can be read only once.
    ///
    /// # Errors
    /// Fails where the file cannot be read.
    pub fn again(&self) -> io::Result<Option<Stream>> {
        self.file.as_ref().map(OneWay::decompress).transpose()
    }

    /// Decompresses a file from the position where `file` is.
    ///
    /// # Errors
    /// Fails where the file cannot be read.
    pub fn decompress(file: &Pass) -> io::Result<Stream> {
        Ok(container::decoder(Box::new(file.again()?))?.1)
    }
}

/// A full backup that was opened.
pub struct Base {
    /// Its path, for messages.
    pub path: PathBuf,
    /// The form of the file: `map`, or the name of its compression. The identity is that of a file of this form.
    pub form: &'static str,
    /// What distinguishes it from every other file, without reading all of it: the identity of its map, or a checksum of
    /// its size and of samples of it.
    pub identity: [u8; 16],
    /// Checksum of the first bytes of the content, which does not depend on the form.
    pub head: [u8; 16],
    /// How its content can be read.
    pub access: Access,
    /// What its content is.
    pub nature: Nature,
    /// The open file; none where it can be read only once.
    file: Option<File>,
}

impl Base {
    /// Length of the content in bytes, where it is known without reading all of it.
    pub fn size(&self) -> Option<u64> {
        self.random_access().map(|content| content.size())
    }

    /// The content, where it can be read at any position.
    pub fn random_access(&self) -> Option<RandomAccess> {
        match &self.access {
            Access::Mapped(map) => Some(RandomAccess::Frames(map.file().clone())),
            Access::Random(content) => Some(content.clone()),
            Access::OneWay(_) => None,
        }
    }

    /// The open file; `None` where it can be read only once.
    pub(in crate::matching) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Length of the file in bytes, as it is stored; 0 where that is not known.
    pub fn stored(&self) -> u64 {
        self.file.as_ref().and_then(|mut file| file.seek(SeekFrom::End(0)).ok()).unwrap_or(0)
    }

    /// Whether the content can be read from its front only.
    pub fn is_one_way(&self) -> bool {
        matches!(self.access, Access::OneWay(_))
    }

    /// Opens the content from its start, independently of whoever else reads it; `None` where it can be read only once.
    ///
    /// # Errors
    /// Fails where the file cannot be read.
    pub fn content(&self) -> io::Result<Option<Stream>> {
        match (&self.access, self.random_access()) {
            (Access::OneWay(content), _) => content.again(),
            (_, content) => Ok(content.map(|content| {
                let reader = content.reader(ReadOptions::default());
                Box::new(Sequential::new(reader)) as Stream
            })),
        }
    }

    /// Reads all of the content, if it has at most `limit` bytes and no map. Where a stream is longer, it goes on from its
    /// start; where it cannot be read to its end, the result is what could be read, and the error.
    pub(super) fn read_small(&mut self, limit: usize) -> Option<(Vec<u8>, Option<io::Error>)> {
        let mut bytes = Vec::new();
        match &mut self.access {
            Access::Mapped(_) => None,
            Access::Random(content) => {
                let len = usize::try_from(content.size()).ok().filter(|len| *len <= limit)?;
                bytes.resize(len, 0);
                let read = content.reader(ReadOptions::default()).read_at(0, &mut bytes);
                read.ok().map(|()| (bytes, None))
            }
            Access::OneWay(OneWay { stream, .. }) => {
                match stream.by_ref().take(limit as u64 + 1).read_to_end(&mut bytes) {
                    Ok(_) if bytes.len() > limit => {
                        put_back(stream, bytes);
                        None
                    }
                    read => Some((bytes, read.err())),
                }
            }
        }
    }

    /// Refuses a differential as a full backup. (xdelta3's command line takes any file as its source, so it does not ask
    /// for this.)
    ///
    /// # Errors
    /// [`BaseProblem::Differential`] where it is one.
    pub fn full(self) -> Result<Base, Error> {
        match self.nature == Nature::Differential {
            true => Err(Error::base(&self.path, BaseProblem::Differential)),
            false => Ok(self),
        }
    }

    /// Fills in what the header of a differential says of its base.
    pub fn describe(&self, header: &mut AppHeader) {
        header.base_name = self.path.file_name().map(|n| n.as_bytes().to_vec()).unwrap_or_default();
        header.base_len = self.size();
        header.base_identity = Some(self.identity);
        header.base_head = Some(self.head);
        header.base_form = Some(self.form.into());
    }
}

/// Puts bytes that were read from the front of a stream back there.
fn put_back(stream: &mut Stream, bytes: Vec<u8>) {
    let rest = std::mem::replace(stream, Box::new(io::empty()));
    *stream = Box::new(io::Cursor::new(bytes).chain(rest));
}
