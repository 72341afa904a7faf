//! Packing blocks with several threads and writing them in order: the common part of two compressors, lzop and gzip.

use std::io::{self, Write};

use super::ordered::Ordered;

/// The most blocks on their way for each thread: one that it works on, and one that waits or is done.
const DEPTH: usize = 2;

/// A block and its packed form. Its memory is used again for later blocks.
pub(super) trait Block: Send + Sized + 'static {
    /// Packs the block.
    fn pack(&mut self);
    /// Returns the packed form.
    fn packed(&self) -> &[u8];
}

/// Writes a header, then packed blocks in the order in which they were given, each with one `write_all`.
///
/// At most [`DEPTH`] blocks for each thread are on their way, so a slow sink makes the giver wait. After a failure nothing is
/// written any more. So a file whose end is written by [`Blocks::put`] has no end then.
pub(super) struct Blocks<W, B> {
    sink: W,
    header: Vec<u8>,
    state: State,
    jobs: Ordered<B>,
    free: Vec<B>,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Nothing was written yet.
    Fresh,
    /// The header was written.
    Open,
    /// The sink failed. What it holds is not known.
    Broken,
}

impl<W: Write, B: Block> Blocks<W, B> {
    /// Writes to `sink`, and packs with `threads` threads. With 0 or 1 it is the caller's own.
    pub fn new(sink: W, header: Vec<u8>, threads: usize) -> Self {
        Self { sink, header, state: State::Fresh, jobs: Ordered::new(threads, B::pack), free: Vec::new() }
    }

    /// Tells whether an earlier write failed.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Returns a block to be used again, if there is one.
    pub fn free_block(&mut self) -> Option<B> {
        self.free.pop()
    }

    /// Passes a block to the threads. `written` is called for each block that is written meanwhile.
    pub fn submit(&mut self, block: B, written: impl FnMut(&B)) -> io::Result<()> {
        self.drain(DEPTH * self.jobs.threads() - 1, written)?;
        self.jobs.submit(block);
        Ok(())
    }

    /// Writes finished blocks, and waits until no more than `left` blocks are on their way.
    pub fn drain(&mut self, left: usize, mut written: impl FnMut(&B)) -> io::Result<()> {
        loop {
            let next = if self.jobs.len() > left { self.jobs.next() } else { self.jobs.try_next() };
            let Some(block) = next else { return self.put(|_| Ok(())) };
            let block = block.map_err(|lost| {
                self.state = State::Broken;
                io::Error::other(lost)
            })?;
            self.put(|sink| sink.write_all(block.packed()))?;
            written(&block);
            self.free.push(block);
        }
    }

    /// Lets `action` write to the sink. The header is written before.
    pub fn put(&mut self, action: impl FnOnce(&mut W) -> io::Result<()>) -> io::Result<()> {
        let before = std::mem::replace(&mut self.state, State::Broken);
        match before {
            State::Fresh => self.sink.write_all(&self.header)?,
            State::Open => {}
            State::Broken => return Err(io::Error::other("the output could not be written earlier")),
        }
        action(&mut self.sink)?;
        self.state = State::Open;
        Ok(())
    }

    /// Returns the sink, whatever it holds.
    pub fn into_sink(self) -> W {
        self.sink
    }
}
