//! The chunker: cuts a stream into segments, and segments into pieces that can be found again in another stream.
//!
//! A stream is read by the `segmenter`, which hands out segments of at most 8 MiB. A segment is the unit of work for
//! threads. [`Segment::pieces`] cuts it into pieces, which get fingerprints. How it does so depends on the stream:
//!
//! * A VMA archive is cut into the 4096-byte blocks of its disks. A block is known by its device, its cluster and its
//!   number in the cluster. Its position in the stream says little: the archive's extents are only aligned to 512 bytes,
//!   each of them has a new UUID every time, and clusters come in no certain order. In the header of an extent, the list
//!   of clusters is a piece of its own, since it stays the same where nothing changed. The front of that header
//!   (magic, UUID, checksum) is new every time, so it gets no fingerprint.
//! * Everything else is cut by content, with a gear hash, so that the same bytes are cut at the same places whatever was
//!   inserted before them. A tar archive is also cut where its members begin (`tar`).

mod gear;
mod pieces;
mod segmenter;
mod tar;

pub(super) use gear::GEAR;
pub use pieces::Pieces;
pub use segmenter::Segmenter;

use crate::vma::{EXTENT_FRONT, EXTENT_HEADER};

/// The most bytes of a segment. A segment becomes one VCDIFF window or a few; 8 MiB is the window that xdelta3 writes by
/// default (it reads windows of up to 16 MiB).
pub const SEGMENT: usize = 8 << 20;

/// The most pieces with a fingerprint in one segment: apart from the first and the last one, no piece is shorter than
/// 512 bytes.
pub const MAX_PIECES: usize = SEGMENT / 512 + 2;

/// Bytes of the list of clusters in the header of a VMA extent.
pub const CLUSTERS_LEN: usize = EXTENT_HEADER - EXTENT_FRONT;

/// A cluster of a virtual disk, as an extent of a VMA archive holds it: 16 blocks of 4 KiB, of which those that are all
/// zeros are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The device's id in the archive.
    pub device: u8,
    /// Number of the 64-KiB cluster on the device, from 0.
    pub number: u32,
    /// Bit n is set where block n is stored.
    pub mask: u16,
}

/// A part of a VMA archive, as the headers of its extents describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The archive's own header, of this many bytes. It gets no fingerprint.
    Gap(u32),
    /// The header of an extent.
    Header,
    /// The stored blocks of a cluster.
    Cluster(Cluster),
}

/// What is known of the bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Nothing; the segment is cut by content.
    Bytes,
    /// The segment holds whole extents of a VMA archive; the first one also holds the archive's header.
    Vma(Vec<Span>),
}

/// A part of a stream, with at most [`SEGMENT`] bytes.
#[derive(Debug)]
pub struct Segment {
    /// Position of its first byte in the stream.
    pub start: u64,
    /// Its bytes.
    pub data: Vec<u8>,
    /// How it is to be cut.
    pub layout: Layout,
}

/// A part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Position of its first byte in the segment.
    pub at: usize,
    /// Its length in bytes.
    pub len: usize,
    /// What it is a part of.
    pub kind: PieceKind,
}

/// What a piece is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// A stream that is cut by content.
    Bytes,
    /// A block of a disk: its cluster, and its number in the cluster (0 to 15).
    Block(Cluster, u8),
    /// The list of clusters in the header of a VMA extent.
    Clusters,
    /// What precedes that list in the header; most of it is new in every archive.
    Front,
    /// The header of a VMA archive.
    Gap,
}

impl Piece {
    fn new(at: usize, len: usize) -> Piece {
        Piece { at, len, kind: PieceKind::Bytes }
    }

    /// Whether the piece gets a fingerprint, because the same bytes may be in another stream.
    pub fn has_fingerprint(&self) -> bool {
        !matches!(self.kind, PieceKind::Front | PieceKind::Gap)
    }
}

impl Segment {
    /// Lists the clusters of virtual disks in this segment, also those that hold only zeros.
    pub fn clusters(&self) -> impl Iterator<Item = Cluster> + '_ {
        let spans = match &self.layout {
            Layout::Vma(spans) => &spans[..],
            Layout::Bytes => &[],
        };
        spans.iter().filter_map(|span| match span {
            Span::Cluster(cluster) => Some(*cluster),
            Span::Gap(_) | Span::Header => None,
        })
    }

    /// Cuts the segment into pieces. They come in order and cover the whole segment.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces::new(self)
    }
}
