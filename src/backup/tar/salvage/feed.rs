//! Hands out a damaged content by length, and knows where bytes are missing.

use std::collections::VecDeque;
use std::io;

use crate::container::salvage::Piece;
use crate::tar::BLOCK;

/// The most reasons that are kept.
const MAX_REASONS: usize = 32;

/// Bytes that are looked through at once.
const SEARCHED: usize = 64 << 10;

/// A part of the content.
pub(super) enum Chunk<'a> {
    Bytes(&'a [u8]),
    /// So many bytes are lost.
    Hole(u64),
}

/// Where the content is after something was taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Everything was there, or its length is known.
    All,
    /// From some byte on nobody knows how much is lost: so many bytes were handed out.
    Lost(u64),
    /// The content ended after so many bytes.
    Ended(u64),
}

enum Part {
    /// Bytes, how many of them were taken, and whether they are proved.
    Bytes(Vec<u8>, usize, bool),
    Hole(u64),
    /// Nobody knows how much is lost.
    Break,
}

pub(super) struct Feed<P> {
    pieces: P,
    parts: VecDeque<Part>,
    /// What is wrong, in order; only the first of many.
    pub reasons: Vec<String>,
    /// Whether bytes were taken for which no checksum vouches, since this was reset.
    pub doubted: bool,
    /// Whether everything that was taken before is in doubt.
    pub doubted_before: bool,
}

impl<P: Iterator<Item = io::Result<Piece>>> Feed<P> {
    pub fn new(pieces: P) -> Self {
        Feed { pieces, parts: VecDeque::new(), reasons: Vec::new(), doubted: false, doubted_before: false }
    }

    pub fn because(&mut self, why: impl Into<String>) {
        let why = why.into();
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&why) {
            self.reasons.push(why);
        }
    }

    /// Makes sure that there is a part. Tells whether there is one.
    fn more(&mut self) -> io::Result<bool> {
        while self.parts.is_empty() {
            match self.pieces.next().transpose()? {
                None => return Ok(false),
                Some(Piece::Bytes { bytes, proved }) => {
                    if !bytes.is_empty() {
                        self.parts.push_back(Part::Bytes(bytes, 0, proved));
                    }
                }
                Some(Piece::Gap { len, why }) => {
                    self.because(why);
                    self.parts.push_back(len.map_or(Part::Break, Part::Hole));
                }
                Some(Piece::Doubt { why }) => {
                    self.because(why);
                    (self.doubted, self.doubted_before) = (true, true);
                }
            }
        }
        Ok(true)
    }

    /// Takes `n` bytes, and passes them to `sink` as far as they are there.
    pub fn take(&mut self, n: u64, sink: &mut dyn FnMut(Chunk) -> io::Result<()>) -> io::Result<Taken> {
        let mut left = n;
        while left > 0 {
            if !self.more()? {
                return Ok(Taken::Ended(n - left));
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            match self.parts.front_mut() {
                None => continue,
                Some(Part::Bytes(bytes, at, proved)) => {
                    self.doubted |= !*proved;
                    let part = most.min(bytes.len() - *at);
                    sink(Chunk::Bytes(&bytes[*at..*at + part]))?;
                    *at += part;
                    left -= part as u64;
                    if *at == bytes.len() {
                        self.parts.pop_front();
                    }
                }
                Some(Part::Hole(len)) => {
                    let part = left.min(*len);
                    sink(Chunk::Hole(part))?;
                    *len -= part;
                    left -= part;
                    if *len == 0 {
                        self.parts.pop_front();
                    }
                }
                Some(Part::Break) => {
                    self.parts.pop_front();
                    return Ok(Taken::Lost(n - left));
                }
            }
        }
        Ok(Taken::All)
    }

    /// Takes `n` bytes, which are wanted whole. The result is `None` where some of them are lost.
    pub fn exact(&mut self, n: usize) -> io::Result<(Option<Vec<u8>>, Taken)> {
        let (mut bytes, mut whole) = (Vec::new(), true);
        let taken = self.take(n as u64, &mut |chunk| {
            match chunk {
                Chunk::Bytes(part) => bytes.extend_from_slice(part),
                Chunk::Hole(_) => whole = false,
            }
            Ok(())
        })?;
        Ok(((whole && taken == Taken::All).then_some(bytes), taken))
    }

    /// Puts bytes back to the front.
    pub fn unread(&mut self, bytes: Vec<u8>, proved: bool) {
        if !bytes.is_empty() {
            self.parts.push_front(Part::Bytes(bytes, 0, proved));
        }
    }

    /// Goes on to the next place where `is_header` finds one. If `aligned`, only every 512th byte is looked at, beginning here.
    /// Tells whether there is one.
    pub fn search(&mut self, mut aligned: bool, is_header: fn(&[u8; BLOCK]) -> bool) -> io::Result<bool> {
        // Bytes that follow one another, and how far the first of them is behind a place that counts.
        let (mut bytes, mut phase, mut are_proved) = (Vec::new(), 0, true);
        while self.more()? {
            let gone = match self.parts.pop_front() {
                Some(Part::Bytes(mut part, at, proved)) => {
                    are_proved &= proved;
                    let end = part.len().min(at + SEARCHED);
                    bytes.extend_from_slice(&part[at..end]);
                    if end < part.len() {
                        part.drain(..end);
                        self.parts.push_front(Part::Bytes(part, 0, proved));
                    }
                    let first = if aligned { (BLOCK - phase) % BLOCK } else { 0 };
                    if let Some(at) = find(&bytes, first, aligned, is_header) {
                        self.unread(bytes.split_off(at), are_proved);
                        return Ok(true);
                    }
                    // A header may begin at the end of what was looked through.
                    let gone = bytes.len().saturating_sub(BLOCK - 1);
                    bytes.drain(..gone);
                    gone as u64
                }
                Some(Part::Hole(len)) => {
                    let gone = bytes.len() as u64;
                    bytes.clear();
                    are_proved = true;
                    gone + len % BLOCK as u64
                }
                Some(Part::Break) => {
                    bytes.clear();
                    are_proved = true;
                    aligned = false;
                    0
                }
                None => 0,
            };
            phase = ((phase as u64 + gone) % BLOCK as u64) as usize;
        }
        Ok(false)
    }
}

fn find(bytes: &[u8], first: usize, aligned: bool, is_header: fn(&[u8; BLOCK]) -> bool) -> Option<usize> {
    let is_there =
        |at: usize| bytes.get(at..at + BLOCK).and_then(|it| it.first_chunk()).is_some_and(is_header);
    if aligned {
        return (first..bytes.len()).step_by(BLOCK).find(|at| is_there(*at));
    }
    let marks = memchr::memmem::find_iter(bytes, b"ustar");
    marks.filter_map(|mark| mark.checked_sub(257)).find(|at| is_there(*at))
}
