//! Parts of a segment, and where they come from.

use crate::container::Extent;

/// A part of a segment, and what is known of its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Position of its first byte in the segment.
    pub at: usize,
    /// Length in bytes.
    pub len: usize,
    /// Where it comes from.
    pub origin: Origin,
}

impl Stretch {
    /// Position behind its last byte in the segment.
    pub fn end(&self) -> usize {
        self.at + self.len
    }
}

/// Where a stretch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It equals the base's bytes from this position on.
    Equal(u64),
    /// It is changed. Where it is blocks of a disk, and the base has these blocks, they lie here.
    Changed(Option<Extent>),
    /// It is the front of a VMA extent's header, with a new UUID and a new checksum. If the base has the header of an extent
    /// with the same clusters, that one's front begins here.
    Front(Option<u64>),
    /// It is a list of clusters that the base does not have. It is stored: to compare it with another list, nearly every
    /// frame of the base would have to be decompressed.
    Fresh,
}

/// How far back a base can be read and copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Bytes before this position cannot be read any more.
    pub readable_from: u64,
    /// So many of these bytes may still be copied, without being read.
    pub copyable: u64,
}

impl Reach {
    /// Everything can be read.
    pub const ALL: Reach = Reach { readable_from: 0, copyable: 0 };
}
