//! Writing a file.

use std::io::{self, Write};

use super::format::{BLOCK_LEN, member_header, pack};
use super::ordered::Ordered;
use crate::container::lzo::Encoder;

/// Blocks in flight per thread: one being worked on, one waiting or done.
const DEPTH: usize = 2;

/// Compresses into an lzop file of one member without a name, as `lzop` makes of its standard input.
///
/// Blocks of 256 KiB are packed by several threads and written in order by the caller's; memory is bounded by about
/// 1.5 MiB per thread. The sink gets one `write_all` per block.
///
/// Only [`Writer::finish`] makes the file complete. A writer dropped before that, or whose sink failed,
/// leaves no end mark, so every reader sees that the file is cut short.
pub struct Writer<W: Write> {
    sink: W,
    state: State,
    jobs: Ordered<Job>,
    spare: Vec<Job>,
    block: Vec<u8>,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Nothing was written yet.
    Fresh,
    /// The header was written.
    Open,
    /// The sink failed: what it holds is unknown.
    Broken,
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

    fn work(&mut self) {
        self.packed_len = pack(&mut self.encoder, &self.content, &mut self.packed);
    }
}

impl<W: Write> Writer<W> {
    /// Writes to `sink` with `threads` threads for compression (0 or 1: the caller's own).
    pub fn new(sink: W, threads: usize) -> Self {
        Self {
            sink,
            state: State::Fresh,
            jobs: Ordered::new(threads, Job::work),
            spare: Vec::new(),
            block: Vec::with_capacity(BLOCK_LEN),
        }
    }

    /// Writes what is left and the end mark, flushes and gives the sink back.
    ///
    /// # Errors
    /// What the sink says; the file is incomplete then.
    pub fn finish(mut self) -> io::Result<W> {
        self.submit()?;
        self.drain(0)?;
        self.put(|sink| sink.write_all(&[0; 4]).and_then(|()| sink.flush()))?;
        Ok(self.sink)
    }

    /// Hands the collected block to the workers.
    fn submit(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.drain(DEPTH * self.jobs.threads() - 1)?;
        let mut job = self.spare.pop().unwrap_or_else(Job::new);
        std::mem::swap(&mut job.content, &mut self.block);
        self.block.clear();
        self.jobs.submit(job);
        Ok(())
    }

    /// Writes finished blocks, waiting until no more than `left` are in flight.
    fn drain(&mut self, left: usize) -> io::Result<()> {
        loop {
            let next = if self.jobs.len() > left { self.jobs.next() } else { self.jobs.try_next() };
            let Some(job) = next else { return self.put(|_| Ok(())) };
            let job = job.map_err(|lost| {
                self.state = State::Broken;
                io::Error::other(lost)
            })?;
            self.put(|sink| sink.write_all(&job.packed[..job.packed_len]))?;
            self.spare.push(job);
        }
    }

    /// Lets `action` write to the sink, behind the header; after a failure nothing is ever written again.
    fn put(&mut self, action: impl FnOnce(&mut W) -> io::Result<()>) -> io::Result<()> {
        let before = std::mem::replace(&mut self.state, State::Broken);
        match before {
            State::Fresh => self.sink.write_all(&member_header())?,
            State::Open => {}
            State::Broken => return Err(io::Error::other("the lzop file could not be written earlier")),
        }
        action(&mut self.sink)?;
        self.state = State::Open;
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.state == State::Broken {
            self.put(|_| Ok(()))?;
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
        self.drain(0)?;
        self.put(Write::flush)
    }
}
