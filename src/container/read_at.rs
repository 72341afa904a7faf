//! Reading content at any position.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Content that can be read at any position, by several threads at once.
pub trait ReadAt: Send + Sync {
    /// Length of the content in bytes, decompressed.
    fn size(&self) -> u64;

    /// Fills `buf` with the content from position `pos` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the content ends before `buf` is full; `InvalidData` where the content is damaged.
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Content with holes: long runs of zeros that are known without reading them.
pub trait Sparse: ReadAt {
    /// Tells whether the content has data from `pos` on, which is before its end, or a hole; and for how many bytes that goes
    /// on, at most `most` of them.
    fn run(&self, pos: u64, most: u64) -> (bool, u64);
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(pos, buf)
    }
}

/// Bytes in memory.
impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let range = usize::try_from(pos).ok().and_then(|pos| Some(pos..pos.checked_add(buf.len())?));
        let bytes = range.and_then(|range| self.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// An uncompressed file.
pub struct RawFile {
    file: File,
    size: u64,
}

impl RawFile {
    /// Takes a regular file or a block device.
    ///
    /// # Errors
    /// Fails where the file's size cannot be told.
    pub fn new(file: File) -> io::Result<RawFile> {
        // Metadata would say 0 for a block device.
        let size = (&file).seek(SeekFrom::End(0))?;
        Ok(RawFile { file, size })
    }
}

impl ReadAt for RawFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, pos)
    }
}

/// Reads content from its start to its end.
pub struct Sequential<C> {
    content: C,
    at: u64,
}

impl<C: ReadAt> Sequential<C> {
    /// Begins at the start of `content`.
    pub fn new(content: C) -> Sequential<C> {
        Sequential { content, at: 0 }
    }
}

impl<C: ReadAt> Read for Sequential<C> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (self.content.size() - self.at).min(buf.len() as u64) as usize;
        self.content.read_at(self.at, &mut buf[..n])?;
        self.at += n as u64;
        Ok(n)
    }
}
