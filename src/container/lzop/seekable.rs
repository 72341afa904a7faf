//! Reading a file at any place.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::format::{BLOCK_LEN, Block, Checks, Scanner};
use crate::budget::Budget;
use crate::container::read_at::ReadAt;
use crate::container::skim::{Skim, read_full_at};

/// Content kept unpacked, and groups of blocks.
const CACHE_LEN: usize = 16 << 20;
const CACHE_GROUPS: usize = 256;
/// Most blocks of a group.
const GROUP: u32 = 128;
/// Part of the file's length that the index may take; it takes a fiftieth at most.
const INDEX_SHARE: u64 = 16;

/// An lzop file that can be read at any place, by several threads at once.
///
/// Opening walks over all block headers (not their content) and so proves that the file is complete, as far as
/// lengths can. Blocks are found and unpacked in groups: one of lzop's own, of 256 KiB, or some that are shorter. The
/// index takes 24 bytes for each, the groups used last at most 16 MiB.
pub struct Seekable {
    file: File,
    len: u64,
    index: Vec<Entry>,
    cache: Mutex<Cache>,
}

/// Where a group of blocks is.
struct Entry {
    /// Offset of its first byte in the content.
    start: u64,
    /// Offset of its first header in the file.
    offset: u64,
    /// Of the member it begins in.
    checks: Checks,
}

impl Seekable {
    /// Indexes `file`, all of it whatever its position.
    ///
    /// # Errors
    /// If it is not an lzop file, is truncated or has a damaged header. Damage within blocks is found by
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
        Ok(Self { file, len, index, cache: Mutex::new(Cache::default()) })
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
    /// `UnexpectedEof` if that goes beyond the end; `InvalidData` if a block is damaged or the file changed
    /// since it was opened; what the file says. `buffer` then holds nothing of use.
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
            let from = &content[(at - start) as usize..];
            let count = from.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&from[..count]);
            filled += count;
        }
        Ok(())
    }

    /// The group that holds the content at `position`, with the offset of its first byte.
    fn group_at(&self, position: u64) -> Result<(u64, Arc<Vec<u8>>), Error> {
        if let Some(found) = self.cache().get(position) {
            return Ok(found);
        }
        // The lock is free while a group is read and unpacked; two threads that want the same one may both do it.
        let changed = || Error::Corrupt { offset: 0, what: "it changed while it was being read".into() };
        let next = self.index.partition_point(|entry| entry.start <= position);
        let entry = next.checked_sub(1).map(|n| &self.index[n]).ok_or_else(changed)?;
        let len = (self.index.get(next).map_or(self.len, |next| next.start) - entry.start) as usize;
        let mut scanner =
            Scanner::at_block(Cursor::new(&self.file, entry.offset), entry.offset, entry.checks);
        let (mut all, mut packed, mut content) = (Vec::new(), Vec::new(), Vec::new());
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
        let all = Arc::new(all);
        self.cache().put(entry.start, Arc::clone(&all));
        Ok((entry.start, all))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // A panic elsewhere cannot leave the cache half changed in a way that matters.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadAt for Seekable {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        Seekable::read_at(self, pos, buf)
    }
}

/// Moves a scanner over the content of `block`.
fn pass(scanner: &mut Scanner<Cursor<'_>>, block: &Block) {
    let count = u64::from(block.packed_len);
    scanner.input().seek(block.data_offset + count);
    scanner.skipped(count);
}

/// Groups used last, the latest at the end.
#[derive(Default)]
struct Cache {
    groups: Vec<(u64, Arc<Vec<u8>>)>,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, position: u64) -> Option<(u64, Arc<Vec<u8>>)> {
        let holds = |(start, content): &(u64, Arc<Vec<u8>>)| {
            position.checked_sub(*start).is_some_and(|into| into < content.len() as u64)
        };
        let found = self.groups.iter().rposition(holds)?;
        self.groups[found..].rotate_left(1);
        self.groups.last().cloned()
    }

    fn put(&mut self, start: u64, content: Arc<Vec<u8>>) {
        if self.groups.iter().any(|(other, _)| *other == start) {
            return;
        }
        self.bytes += content.len();
        self.groups.push((start, content));
        while self.groups.len() > CACHE_GROUPS || (self.bytes > CACHE_LEN && self.groups.len() > 1) {
            self.bytes -= self.groups.remove(0).1.len();
        }
    }
}

/// A place in a file to read from. Larger reads go past the buffer that headers come from.
struct Cursor<'a> {
    file: &'a File,
    headers: Skim<'a>,
    offset: u64,
}

/// Bytes that are read without the buffer.
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
