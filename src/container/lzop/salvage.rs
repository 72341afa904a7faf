//! Reading what is left of a damaged lzop file.

use std::io::{self, Read};

use super::Error;
use super::format::{BLOCK_LEN, Checks, Scanner};
use crate::container::read_full;

/// How much is unpacked of what looks like a block and is none, as a multiple of the file and at least, before the search is
/// given up.
const EFFORT: u64 = 1 << 30;
const EFFORT_RATIO: u64 = 4;

/// What comes next.
pub enum Next {
    /// A block whose checksums are right, unpacked.
    Block(Vec<u8>),
    /// A block that is damaged, but another one follows where it ends.
    Lost {
        /// How long its content was, where that is certain.
        len: Option<u64>,
        /// What is wrong.
        why: String,
    },
    /// Damage behind which nothing is known.
    Unknown {
        /// Where it begins in the file.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// The proper end.
    End,
}

/// Reads one block after the other.
pub struct Salvage<R> {
    scanner: Scanner<R>,
    packed: Vec<u8>,
    checks: Option<Checks>,
    effort: Option<u64>,
    /// The header of the last block that could not be unpacked.
    suspect: Option<u64>,
}

impl<R: Read> Salvage<R> {
    /// Begins at the start of a file.
    pub fn new(input: R) -> Self {
        Salvage {
            scanner: Scanner::new(input),
            packed: Vec::new(),
            checks: None,
            effort: None,
            suspect: None,
        }
    }

    /// Reads the next block.
    pub fn next_block(&mut self) -> Next {
        let unknown = |at, error: Error| Next::Unknown { at, why: error.to_string() };
        // A header that does not follow a good block may be none: the damage may be in the header before.
        let suspect = self.suspect.take();
        let here = self.scanner.offset();
        let block = match self.scanner.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => return Next::End,
            Err(error) => return unknown(suspect.unwrap_or(here), error),
        };
        self.checks = self.scanner.checks();
        if let Err(error) = self.scanner.read_packed(&block, &mut self.packed) {
            return unknown(suspect.unwrap_or(block.offset), error);
        }
        let mut content = Vec::new();
        match block.unpack(&mut self.packed, &mut content) {
            Ok(()) => Next::Block(content),
            Err(error) if suspect.is_some() => {
                self.suspect = Some(block.offset);
                Next::Lost { len: None, why: error.to_string() }
            }
            Err(error) => {
                self.suspect = Some(block.offset);
                // Headers have no checksum. All blocks that lzop writes have this length, but for the last one.
                let len = (block.len as usize == BLOCK_LEN).then_some(u64::from(block.len));
                Next::Lost { len, why: error.to_string() }
            }
        }
    }

    /// Searches the file for a block whose checksum is right, from `from` on, and goes on there. `open` opens the file at a
    /// position. The result is whether there is one.
    pub fn find(&mut self, from: u64, size: u64, open: impl Fn(u64) -> io::Result<R>) -> io::Result<bool> {
        let Some(checks) = self.checks.filter(Checks::of_content) else { return Ok(false) };
        let effort = self.effort.get_or_insert(size.saturating_mul(EFFORT_RATIO).saturating_add(EFFORT));
        let (mut input, mut held, mut part) = (open(from)?, Vec::new(), vec![0; 1 << 20]);
        let mut end = from;
        loop {
            let n = read_full(&mut input, &mut part)?;
            if n == 0 {
                return Ok(false);
            }
            end += n as u64;
            held.extend_from_slice(&part[..n]);
            let start = end - held.len() as u64;
            for found in memchr::memmem::find_iter(&held, &(BLOCK_LEN as u32).to_be_bytes()) {
                let at = start + found as u64;
                let mut scanner = Scanner::at_block(open(at)?, at, checks);
                let Ok(Some(block)) = scanner.next_block() else { continue };
                let mut content = Vec::new();
                let read = scanner.read_packed(&block, &mut self.packed);
                if read.is_ok() && block.unpack(&mut self.packed, &mut content).is_ok() {
                    self.scanner = Scanner::at_block(open(at)?, at, checks);
                    self.suspect = None;
                    return Ok(true);
                }
                *effort = effort.saturating_sub(BLOCK_LEN as u64);
                if *effort == 0 {
                    return Ok(false);
                }
            }
            held.drain(..held.len().saturating_sub(3));
        }
    }
}
