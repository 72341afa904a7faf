//! The instructions of a window as a map: which bytes of the target are new, and which are the base's.

use crate::matching::Error;
use crate::vcdiff::{Inst, Window};

/// The number of parts that the instructions of one window may make. Those of honest files make some thousand.
const MAX_PARTS: usize = 1 << 20;
/// The most bytes of a base.
const MAX_BASE: u64 = 1 << 63;

/// The target of a window as a list of parts.
#[derive(Default)]
pub(super) struct Parts {
    /// The new bytes, each at its position in the target. The bytes of other parts are not valid.
    bytes: Vec<u8>,
    /// The position in the target at which each part begins, and the place of the base from which it is copied, if it
    /// is.
    list: Vec<(usize, Option<u64>)>,
    len: usize,
}

/// A part of a window's target.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// New bytes.
    New(&'a [u8]),
    /// Bytes of the base: position and length.
    Base(u64, usize),
}

impl Part<'_> {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Part::New(bytes) => bytes.len(),
            Part::Base(_, len) => *len,
        }
    }

    /// Takes the first `n` bytes off the part, and returns them.
    pub fn take(&mut self, n: usize) -> Self {
        match self {
            Part::New(bytes) => {
                let (first, rest) = bytes.split_at(n);
                *bytes = rest;
                Part::New(first)
            }
            Part::Base(at, len) => {
                let first = Part::Base(*at, n);
                *at += n as u64;
                *len -= n;
                first
            }
        }
    }
}

impl Parts {
    /// Takes the instructions of a window in the place of those before.
    ///
    /// # Errors
    /// Fails where they are damaged, or too many.
    pub fn of(&mut self, window: &Window) -> Result<(), Error> {
        let segment = window.source.map_or((0, 0), |s| (s.pos, s.len));
        self.bytes.resize(window.target_len, 0);
        self.list.clear();
        self.len = 0;
        for inst in window.instructions() {
            match inst? {
                Inst::Add { data } => {
                    self.bytes[self.len..][..data.len()].copy_from_slice(data);
                    self.push(None, data.len())?;
                }
                Inst::Run { byte, len } => {
                    self.bytes[self.len..][..len].fill(byte);
                    self.push(None, len)?;
                }
                Inst::Copy { len, addr } => {
                    let outside = segment.1.saturating_sub(addr).min(len as u64) as usize;
                    self.push(Some(segment.0.saturating_add(addr)), outside)?;
                    if outside < len {
                        self.repeat((addr + outside as u64 - segment.1) as usize, len - outside)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, base: Option<u64>, len: usize) -> Result<(), Error> {
        if len == 0 {
            return Ok(());
        }
        if base.is_some_and(|at| at.checked_add(len as u64).is_none_or(|end| end >= MAX_BASE)) {
            return Err(Error::unfit("the last differential copies from beyond 2^63 bytes"));
        }
        let follows = match (self.list.last(), base) {
            (Some((_, None)), None) => true,
            (Some((start, Some(last))), Some(at)) => last + (self.len - start) as u64 == at,
            _ => false,
        };
        if !follows {
            if self.list.len() == MAX_PARTS {
                return Err(Error::unfit("the last differential has too many instructions"));
            }
            self.list.push((self.len, base));
        }
        self.len += len;
        Ok(())
    }

    /// Applies a copy from within the window, which may overlap the bytes that it makes.
    fn repeat(&mut self, mut from: usize, mut len: usize) -> Result<(), Error> {
        while len > 0 {
            let n = self.list.partition_point(|(start, _)| *start <= from) - 1;
            let (start, base) = self.list[n];
            let end = self.list.get(n + 1).map_or(self.len, |next| next.0);
            let count = (end - from).min(len);
            if base.is_none() {
                self.bytes.copy_within(from..from + count, self.len);
            }
            // Where the copy overlaps itself, the bytes up to here repeat. So `from` can stay, and each step copies
            // more.
            let stays = base.is_none() && end == self.len;
            self.push(base.map(|at| at + (from - start) as u64), count)?;
            len -= count;
            if !stays {
                from += count;
            }
        }
        Ok(())
    }

    /// Passes the parts to `take` in order.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn each(&self, mut take: impl FnMut(Part<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let ends = self.list.iter().skip(1).map(|(start, _)| *start).chain([self.len]);
        self.list.iter().zip(ends).try_for_each(|(&(start, base), end)| {
            take(match base {
                Some(at) => Part::Base(at, end - start),
                None => Part::New(&self.bytes[start..end]),
            })
        })
    }
}
