//! Reading an lzop file from its start to its end.

use std::io::{self, BufRead, Read};

use super::Error;
use super::format::{Block, Scanner};
use crate::container::Behind;
use crate::container::ordered::Ordered;

/// The most blocks on their way for each thread: one that it works on, and one that waits.
const DEPTH: usize = 2;
/// The most bytes on their way for each thread. Blocks that lzop writes never reach this: they take `DEPTH` × 2 × 256 KiB.
const BYTES: usize = 2 << 20;
/// Buffers of more bytes, which lzop's own blocks do not need, are given back to the system.
const KEEP: usize = 1 << 20;

/// Decompresses an lzop stream: the content of all members, one after the other.
///
/// A block is verified before any of its bytes is returned. Damage is an error where it is met: all content before it was
/// returned by then, and every later call fails too. Memory is bounded by about 2 MiB for each thread, unless a single block
/// is larger (at most 64 MiB).
pub struct Reader<R> {
    scanner: Scanner<R>,
    /// A block whose header was read, but not its bytes, because too many bytes are on their way.
    waiting: Option<Block>,
    /// Whether no more input is to be read, because of the end or an error.
    ended: bool,
    /// The error to return once all blocks on their way were returned, and from then on.
    failure: Option<Failure>,
    jobs: Ordered<Job>,
    bytes_in_flight: usize,
    free: Vec<Job>,
    current: Vec<u8>,
    position: usize,
}

/// A block to unpack.
struct Job {
    block: Option<Block>,
    packed: Vec<u8>,
    content: Vec<u8>,
    result: Result<(), Error>,
}

enum Failure {
    First(io::Error),
    Again(io::ErrorKind, String),
}

impl Job {
    fn new() -> Self {
        Self { block: None, packed: Vec::new(), content: Vec::new(), result: Ok(()) }
    }

    fn work(&mut self) {
        if let Some(block) = self.block {
            self.result = block.unpack(&mut self.packed, &mut self.content);
        }
    }

    /// How many bytes the job takes, packed and unpacked.
    fn size(block: &Block) -> usize {
        block.len as usize + block.packed_len as usize
    }
}

impl<R: Read> Reader<R> {
    /// Reads from `input`, which is at the start of the lzop data, and decompresses with `threads` threads. With 0 or 1 it is
    /// the caller's own. A header or a whole block is read at a time, so `input` needs a buffer only if small reads are very
    /// slow.
    pub fn new(input: R, threads: usize) -> Self {
        Self {
            scanner: Scanner::new(input),
            waiting: None,
            ended: false,
            failure: None,
            jobs: Ordered::new(threads, Job::work),
            bytes_in_flight: 0,
            free: Vec::new(),
            current: Vec::new(),
            position: 0,
        }
    }

    /// Sets what is done about bytes behind the last member.
    pub fn behind(mut self, behind: Behind) -> Self {
        self.scanner.behind = behind;
        self
    }

    /// Puts the next block into `current`, which stays empty at the end of the file.
    fn advance(&mut self) -> io::Result<()> {
        loop {
            let fed = match self.feed() {
                Ok(fed) => fed,
                Err(error) => {
                    self.ended = true;
                    self.failure = Some(Failure::First(error.into()));
                    false
                }
            };
            // More blocks are fed as long as the oldest one is not done. If no more may be fed, it is waited for.
            let next = if fed { self.jobs.try_next() } else { self.jobs.next() };
            match next {
                None if fed => {}
                None => return self.failure.take().map_or(Ok(()), |failure| Err(self.fail(failure))),
                Some(job) => {
                    let done = job.map_err(io::Error::other).and_then(|job| self.deliver(job));
                    return done.map_err(|error| self.fail(Failure::First(error)));
                }
            }
        }
    }

    /// Passes one more block to the workers. The result is false if the input ended, or enough is on its way.
    fn feed(&mut self) -> Result<bool, Error> {
        let threads = self.jobs.threads();
        if self.ended || self.jobs.len() >= DEPTH * threads {
            return Ok(false);
        }
        let block = match self.waiting.take() {
            Some(block) => block,
            None => match self.scanner.next_block()? {
                Some(block) => block,
                None => {
                    self.ended = true;
                    return Ok(false);
                }
            },
        };
        let size = Job::size(&block);
        if self.jobs.len() > 0 && self.bytes_in_flight + size > BYTES * threads {
            self.waiting = Some(block);
            return Ok(false);
        }
        let mut job = self.free.pop().unwrap_or_else(Job::new);
        self.scanner.read_packed(&block, &mut job.packed)?;
        job.block = Some(block);
        self.bytes_in_flight += size;
        self.jobs.submit(job);
        Ok(true)
    }

    /// Makes a finished block the current one.
    fn deliver(&mut self, mut job: Job) -> io::Result<()> {
        if let Some(block) = job.block.take() {
            self.bytes_in_flight -= Job::size(&block);
        }
        std::mem::replace(&mut job.result, Ok(()))?;
        std::mem::swap(&mut self.current, &mut job.content);
        self.position = 0;
        for buffer in [&mut job.packed, &mut job.content] {
            if buffer.capacity() > KEEP {
                *buffer = Vec::new();
            }
        }
        self.free.push(job);
        Ok(())
    }

    /// Ends reading for good. The result is the error to return.
    fn fail(&mut self, failure: Failure) -> io::Error {
        self.ended = true;
        self.waiting = None;
        while self.jobs.next().is_some() {}
        self.current.clear();
        self.position = 0;
        let (kind, text, error) = match failure {
            Failure::First(error) => (error.kind(), error.to_string(), error),
            Failure::Again(kind, text) => (kind, text.clone(), io::Error::new(kind, text)),
        };
        self.failure = Some(Failure::Again(kind, text));
        error
    }
}

impl<R: Read> BufRead for Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() {
            self.current.clear();
            self.position = 0;
            self.advance()?;
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.current.len());
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
