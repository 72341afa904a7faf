//! Reading a file at any place.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::format::{BLOCK_LEN, Block, Checks, Scanner};

/// Content kept unpacked.
const CACHE_LEN: usize = 16 << 20;

/// An lzop file that can be read at any place, by several threads at once.
///
/// Opening walks over all block headers (not their content) and so proves that the file is complete, as far as
/// lengths can. The index takes 24 bytes for 256 KiB of content, the blocks used last at most 16 MiB.
pub struct Seekable {
    file: File,
    len: u64,
    index: Vec<Entry>,
    cache: Mutex<Cache>,
}

/// Where a block is.
struct Entry {
    /// Offset of its first byte in the content.
    start: u64,
    /// Offset of its header in the file.
    offset: u64,
    /// Of its member.
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
        let mut len = 0;
        let mut scanner = Scanner::new(Cursor::new(&file, 0));
        while let Some(block) = scanner.next_block()? {
            // lzop's own blocks all get an entry; shorter ones share it, so that a file of tiny blocks
            // cannot make the index large.
            if index.last().is_none_or(|last| len - last.start >= BLOCK_LEN as u64)
                && let Some(checks) = scanner.checks()
            {
                index.push(Entry { start: len, offset: block.offset, checks });
            }
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
            let (start, content) = self.block_at(at)?;
            let from = &content[(at - start) as usize..];
            let count = from.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&from[..count]);
            filled += count;
        }
        Ok(())
    }

    /// The block that holds the content at `position`, with the offset of its first byte.
    fn block_at(&self, position: u64) -> Result<(u64, Arc<Vec<u8>>), Error> {
        if let Some(found) = self.cache().get(position) {
            return Ok(found);
        }
        // The lock is free while a block is read and unpacked; two threads that want the same one may both do it.
        let changed = || Error::Corrupt { offset: 0, what: "it changed while it was being read".into() };
        let nearest = self.index.partition_point(|entry| entry.start <= position);
        let entry = nearest.checked_sub(1).map(|i| &self.index[i]).ok_or_else(changed)?;
        let cursor = Cursor::new(&self.file, entry.offset);
        let mut scanner = Scanner::at_block(cursor, entry.offset, entry.checks);
        let mut start = entry.start;
        loop {
            let block = scanner.next_block()?.ok_or_else(changed)?;
            if position - start < u64::from(block.len) {
                let mut packed = Vec::new();
                let mut content = Vec::new();
                scanner.read_packed(&block, &mut packed)?;
                block.unpack(&mut packed, &mut content)?;
                let content = Arc::new(content);
                self.cache().put(start, Arc::clone(&content));
                return Ok((start, content));
            }
            start += u64::from(block.len);
            pass(&mut scanner, &block);
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // A panic elsewhere cannot leave the cache half changed in a way that matters.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves a scanner over the content of `block`.
fn pass(scanner: &mut Scanner<Cursor<'_>>, block: &Block) {
    let count = u64::from(block.packed_len);
    scanner.input().seek(block.data_offset + count);
    scanner.skipped(count);
}

/// Blocks used last, the latest at the end.
#[derive(Default)]
struct Cache {
    blocks: Vec<(u64, Arc<Vec<u8>>)>,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, position: u64) -> Option<(u64, Arc<Vec<u8>>)> {
        let holds = |(start, content): &(u64, Arc<Vec<u8>>)| {
            position.checked_sub(*start).is_some_and(|into| into < content.len() as u64)
        };
        let found = self.blocks.iter().rposition(holds)?;
        self.blocks[found..].rotate_left(1);
        self.blocks.last().cloned()
    }

    fn put(&mut self, start: u64, content: Arc<Vec<u8>>) {
        if self.blocks.iter().any(|(other, _)| *other == start) {
            return;
        }
        self.bytes += content.len();
        self.blocks.push((start, content));
        while self.bytes > CACHE_LEN && self.blocks.len() > 1 {
            self.bytes -= self.blocks.remove(0).1.len();
        }
    }
}

/// A place in a file to read from. Headers are a few bytes each, so a small buffer makes one system call of each;
/// larger reads go past it.
struct Cursor<'a> {
    file: &'a File,
    /// File offset behind the buffer's content.
    offset: u64,
    buffer: [u8; 64],
    from: usize,
    to: usize,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a File, offset: u64) -> Self {
        Self { file, offset, buffer: [0; 64], from: 0, to: 0 }
    }

    fn seek(&mut self, offset: u64) {
        self.offset = offset;
        (self.from, self.to) = (0, 0);
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.from == self.to {
            if out.len() >= self.buffer.len() {
                let count = self.file.read_at(out, self.offset)?;
                self.offset += count as u64;
                return Ok(count);
            }
            self.to = self.file.read_at(&mut self.buffer, self.offset)?;
            self.from = 0;
            self.offset += self.to as u64;
        }
        let count = out.len().min(self.to - self.from);
        out[..count].copy_from_slice(&self.buffer[self.from..self.from + count]);
        self.from += count;
        Ok(count)
    }
}
