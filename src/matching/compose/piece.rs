//! Stretches of a cluster.

/// A stretch of a cluster's bytes, and where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    from: u64,
    /// The length in bytes.
    pub len: u32,
}

/// The bit of `from` that marks a piece of new bytes.
const NEW: u64 = 1 << 63;

/// The place that bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// They are in the base, at this position of its content.
    Base(u64),
    /// They are new bytes: this is the number of bytes that are taken over before them.
    New(u64),
}

impl Piece {
    /// Makes a piece of `len` bytes.
    pub fn new(from: From, len: u32) -> Piece {
        let from = match from {
            From::Base(at) => at,
            From::New(number) => number | NEW,
        };
        Piece { from, len }
    }

    /// Adds a piece to the end of this one if it follows at the same place. Returns whether it did.
    pub fn join(&mut self, next: Piece) -> bool {
        let follows = self.from + u64::from(self.len) == next.from;
        if follows {
            self.len += next.len;
        }
        follows
    }

    /// The place that the bytes come from.
    pub fn from(&self) -> From {
        if self.from & NEW == 0 { From::Base(self.from) } else { From::New(self.from & !NEW) }
    }

    /// The part of the piece between these two offsets.
    pub fn part(&self, start: u32, end: u32) -> Piece {
        Piece { from: self.from + u64::from(start), len: end - start }
    }
}
