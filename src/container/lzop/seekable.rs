//! Reading an lzop file at any position.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::Error;
use super::format::{BLOCK_LEN, Block, Checks, Scanner};
use crate::budget::Budget;
use crate::container::cache::{Cache, Value};
use crate::container::read_at::ReadAt;
use crate::container::skim::{Skim, read_full_at};

/// Bytes of unpacked content that are kept, and what the cache needs for a group beside its content.
const CACHE_LEN: usize = 16 << 20;
const SLOT: usize = 256;
/// The most blocks of a group.
const GROUP: u32 = 128;
/// The index may take one in so many bytes of the file's length in memory. With blocks as lzop writes them it takes a
/// fiftieth of that.
const INDEX_SHARE: u64 = 16;

/// An lzop file that can be read at any position, by several threads at once.
///
/// Opening it reads the headers of all blocks, but not their content. This proves that the file is complete, as far as
/// lengths can prove it. Blocks are unpacked in groups: a block of 256 KiB as lzop writes it is a group, or several shorter
/// ones are. The index takes 24 bytes for each group; the groups that were used last take at most 16 MiB.
pub struct Seekable {
    file: File,
    len: u64,
    index: Vec<Entry>,
    cache: Cache<Group>,
}

/// Where a group of blocks begins.
struct Entry {
    /// Position of its first byte in the content.
    start: u64,
    /// Position of its first header in the file.
    offset: u64,
    /// Which checksums the blocks of its member have.
    checks: Checks,
}

impl Seekable {
    /// Indexes all of `file`, whatever its own position.
    ///
    /// # Errors
    /// Fails where it is no lzop file, is cut short, or has a damaged header. Damage within blocks is found by
    /// [`Seekable::read_at`].
    pub fn open(file: File) -> Result<Self, Error> {
        let file_len = file.metadata()?.len();
        let mut index: Vec<Entry> = Vec::new();
        let mut budget = Budget::of(file_len / INDEX_SHARE);
        let (mut len, mut blocks) = (0, 0);
        let mut scanner = Scanner::new(Cursor::new(&file, 0));
        while let Some(block) = scanner.next_block()? {
            let full = |last: &Entry| len - last.start >= BLOCK_LEN as u64 || blocks == GROUP;
            if index.last().is_none_or(full)
                && let Some(checks) = scanner.checks()
            {
                let entry = Entry { start: len, offset: block.offset, checks };
                budget.push(&mut index, entry).map_err(io::Error::from)?;
                blocks = 0;
            }
            blocks += 1;
            pass(&mut scanner, &block);
            if block.data_offset + u64::from(block.packed_len) > file_len {
                return Err(Error::Truncated { offset: file_len, within: "a block" });
            }
            len += u64::from(block.len);
        }
        Ok(Self { file, len, index, cache: Cache::new(CACHE_LEN) })
    }

    /// Length of the content in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` with the content from `position` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where that goes beyond the end; `InvalidData` where a block is damaged, or the file changed since it was
    /// opened; those of reading the file. `buffer` then holds nothing of use.
    pub fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.len.checked_sub(position).is_none_or(|rest| rest < buffer.len() as u64) {
            let text = format!(
                "{} bytes from {position} asked of an lzop file with {} bytes of content",
                buffer.len(),
                self.len
            );
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let at = position + filled as u64;
            let (start, content) = self.group_at(at)?;
            let from = &content.0[(at - start) as usize..];
            let count = from.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&from[..count]);
            filled += count;
        }
        Ok(())
    }

    /// The group that holds the content at `position`, with the position of its first byte.
    fn group_at(&self, position: u64) -> Result<(u64, Arc<Group>), Error> {
        let next = self.index.partition_point(|entry| entry.start <= position);
        let n = next.checked_sub(1).ok_or_else(changed)?;
        let group = self.cache.get(n as u64, 0..1, |had, _| {
            self.unpack(n, had.map(|group| group.0).unwrap_or_default()).map(Group)
        });
        Ok((self.index[n].start, group?))
    }

    /// Reads and unpacks group `n`. The memory of `all` is used for it.
    fn unpack(&self, n: usize, mut all: Vec<u8>) -> Result<Vec<u8>, Error> {
        let entry = &self.index[n];
        let len = (self.index.get(n + 1).map_or(self.len, |next| next.start) - entry.start) as usize;
        let mut scanner =
            Scanner::at_block(Cursor::new(&self.file, entry.offset), entry.offset, entry.checks);
        let (mut packed, mut content) = (Vec::new(), Vec::new());
        all.clear();
        while all.len() < len {
            let block = scanner.next_block()?.ok_or_else(changed)?;
            scanner.read_packed(&block, &mut packed)?;
            block.unpack(&mut packed, &mut content)?;
            match all.is_empty() {
                true => std::mem::swap(&mut all, &mut content),
                false => all.extend_from_slice(&content),
            }
        }
        if all.len() > len {
            return Err(changed());
        }
        Ok(all)
    }
}

/// Whether the blocks of an lzop file have checksums of their content, by its first member.
///
/// # Errors
/// Fails where the file cannot be read or is no lzop file.
pub(in crate::container) fn has_checksums(file: &File) -> io::Result<bool> {
    let mut scanner = Scanner::new(Cursor::new(file, 0));
    scanner.next_block()?;
    Ok(scanner.checks().is_some_and(|checks| checks.of_content()))
}

/// The error of a file that is no longer what it was when it was opened.
fn changed() -> Error {
    Error::Corrupt { offset: 0, what: "it changed while it was being read".into() }
}

impl ReadAt for Seekable {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        Seekable::read_at(self, pos, buf)
    }
}

/// Moves a scanner over the packed bytes of `block`.
fn pass(scanner: &mut Scanner<Cursor<'_>>, block: &Block) {
    let count = u64::from(block.packed_len);
    scanner.input().seek(block.data_offset + count);
    scanner.skipped(count);
}

/// The content of a group of blocks.
struct Group(Vec<u8>);

impl Value for Group {
    fn weight(&self) -> usize {
        // The last group is kept even if it is larger than all that is allowed: it was a single block, and is probably read
        // again.
        (SLOT + self.0.capacity()).min(CACHE_LEN)
    }
}

/// A file and a position to read from. Headers are read through a buffer, larger parts without it.
struct Cursor<'a> {
    file: &'a File,
    headers: Skim<'a>,
    offset: u64,
}

/// So many bytes, and more, are read without the buffer.
const LARGE: usize = 4 << 10;

impl<'a> Cursor<'a> {
    fn new(file: &'a File, offset: u64) -> Self {
        Self { file, headers: Skim::new(file), offset }
    }

    fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = match out.len() {
            ..LARGE => self.headers.read_at(self.offset, out)?,
            _ => read_full_at(self.file, out, self.offset)?,
        };
        self.offset += count as u64;
        Ok(count)
    }
}
