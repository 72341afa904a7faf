//! Writing an lzop file.

use std::io::{self, Write};

use super::format::{BLOCK_LEN, member_header, pack};
use crate::container::blocks::{Block, Blocks};
use crate::container::lzo::Encoder;

/// Compresses into an lzop file of one member without a name, as `lzop` makes of its standard input.
///
/// Several threads pack blocks of 256 KiB, and the caller's thread writes them in order, each with one `write_all`. Memory is
/// bounded by about 1.5 MiB for each thread.
///
/// Only [`Writer::finish`] makes the file complete. If the writer is dropped before, or its sink failed, there is no end mark,
/// so every reader sees that the file is cut short.
pub struct Writer<W: Write> {
    blocks: Blocks<W, Job>,
    block: Vec<u8>,
}

/// A block to pack.
struct Job {
    content: Vec<u8>,
    encoder: Encoder,
    packed: Vec<u8>,
    packed_len: usize,
}

impl Job {
    fn new() -> Self {
        Self {
            content: Vec::with_capacity(BLOCK_LEN),
            encoder: Encoder::new(),
            packed: Vec::new(),
            packed_len: 0,
        }
    }
}

impl Block for Job {
    fn pack(&mut self) {
        self.packed_len = pack(&mut self.encoder, &self.content, &mut self.packed);
    }

    fn packed(&self) -> &[u8] {
        &self.packed[..self.packed_len]
    }
}

impl<W: Write> Writer<W> {
    /// Writes to `sink`, and compresses with `threads` threads. With 0 or 1 it is the caller's own.
    pub fn new(sink: W, threads: usize) -> Self {
        Self { blocks: Blocks::new(sink, member_header(), threads), block: Vec::with_capacity(BLOCK_LEN) }
    }

    /// Writes what is left and the end mark, flushes the sink and returns it.
    ///
    /// # Errors
    /// Fails where the sink fails. The file is incomplete then.
    pub fn finish(mut self) -> io::Result<W> {
        self.submit()?;
        self.blocks.drain(0, |_| {})?;
        self.blocks.put(|sink| sink.write_all(&[0; 4]).and_then(|()| sink.flush()))?;
        Ok(self.blocks.into_sink())
    }

    /// Passes the collected block to the workers.
    fn submit(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut job = self.blocks.free_block().unwrap_or_else(Job::new);
        std::mem::swap(&mut job.content, &mut self.block);
        self.block.clear();
        self.blocks.submit(job, |_| {})
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.blocks.is_broken() {
            self.blocks.put(|_| Ok(()))?;
        }
        if self.block.len() == BLOCK_LEN {
            self.submit()?;
        }
        let count = data.len().min(BLOCK_LEN - self.block.len());
        self.block.extend_from_slice(&data[..count]);
        Ok(count)
    }

    /// Writes all data given so far, if need be as a short block, and flushes the sink.
    fn flush(&mut self) -> io::Result<()> {
        self.submit()?;
        self.blocks.drain(0, |_| {})?;
        self.blocks.put(Write::flush)
    }
}
