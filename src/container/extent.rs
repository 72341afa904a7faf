//! Where bytes lie in a content.

/// A run of bytes of some content: where it begins, and how many bytes it has. (An extent of a VMA archive is something
/// else, see [`crate::vma`].)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// Position of the first byte.
    pub pos: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Extent {
    /// The `len` bytes from `pos` on.
    pub fn new(pos: u64, len: u64) -> Extent {
        Extent { pos, len }
    }

    /// The bytes from `start` up to `end`, which is not before `start`.
    pub fn between(start: u64, end: u64) -> Extent {
        Extent { pos: start, len: end - start }
    }

    /// Position behind the last byte; the largest number where that is no number of 64 bits.
    pub fn end(&self) -> u64 {
        self.pos.saturating_add(self.len)
    }

    /// Whether all of `other` lies within this one.
    pub fn contains(&self, other: Extent) -> bool {
        self.pos <= other.pos && other.end() <= self.end()
    }
}
