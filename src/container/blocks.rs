//! Blocks packed by several threads and written in order: the common part of writers.

use std::io::{self, Write};

use super::ordered::Ordered;

/// Blocks in flight per thread: one being worked on, one waiting or done.
const DEPTH: usize = 2;

/// A block and its packed form. It is used again for later blocks, with the memory it has.
pub(super) trait Block: Send + Sized + 'static {
    /// Packs the block.
    fn pack(&mut self);
    /// The packed form.
    fn packed(&self) -> &[u8];
}

/// Writes a header, then packed blocks in the order they were given, each with one `write_all`.
///
/// At most [`DEPTH`] blocks per thread are in flight: a slow sink makes the giver wait. After a failure nothing is
/// ever written again, so a file whose end is written by [`Blocks::put`] has none then.
pub(super) struct Blocks<W, B> {
    sink: W,
    header: Vec<u8>,
    state: State,
    jobs: Ordered<B>,
    spare: Vec<B>,
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

impl<W: Write, B: Block> Blocks<W, B> {
    /// Writes to `sink` with `threads` threads for packing (0 or 1: the caller's own).
    pub fn new(sink: W, header: Vec<u8>, threads: usize) -> Self {
        Self { sink, header, state: State::Fresh, jobs: Ordered::new(threads, B::pack), spare: Vec::new() }
    }

    /// Whether an earlier write failed.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// A block to be used again, if there is one.
    pub fn spare(&mut self) -> Option<B> {
        self.spare.pop()
    }

    /// Hands a block to the threads. `written` is called for each block that is written meanwhile.
    pub fn submit(&mut self, block: B, written: impl FnMut(&B)) -> io::Result<()> {
        self.drain(DEPTH * self.jobs.threads() - 1, written)?;
        self.jobs.submit(block);
        Ok(())
    }

    /// Writes finished blocks, waiting until no more than `left` are in flight.
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
            self.spare.push(block);
        }
    }

    /// Lets `action` write to the sink, behind the header.
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

    /// The sink, whatever it holds.
    pub fn into_sink(self) -> W {
        self.sink
    }
}
