//! Cutting a segment into pieces.

use std::iter::Peekable;

use super::{CLUSTERS_LEN, GEAR, Layout, Piece, PieceKind, Segment, Span, tar};
use crate::vma::{BLOCK, BLOCKS_PER_CLUSTER, EXTENT_FRONT, EXTENT_HEADER};

/// The shortest and the longest piece of a stream that is cut by content, in bytes.
const MIN_PIECE: usize = 2 << 10;
const MAX_PIECE: usize = 32 << 10;
/// A piece ends where these 12 bits of the gear hash are zero: behind the shortest length, every 4 KiB on average.
const CUT_MASK: u64 = ((1 << 12) - 1) << 48;

/// Cuts a segment, one piece after the other.
pub struct Pieces<'a> {
    data: &'a [u8],
    at: usize,
    cuts: Cuts,
}

enum Cuts {
    /// The pieces are known from the headers of the VMA extents.
    Blocks(std::vec::IntoIter<Piece>),
    /// The content decides. The numbers are positions where a piece ends in any case; the last one is the end of the
    /// segment.
    ByContent(Peekable<std::vec::IntoIter<usize>>),
}

impl<'a> Pieces<'a> {
    pub(super) fn new(segment: &'a Segment) -> Pieces<'a> {
        let cuts = match &segment.layout {
            Layout::Bytes => {
                let headers = tar::headers(segment.start, &segment.data).into_iter();
                let ends: Vec<_> =
                    headers.flat_map(|h| [h.start, h.end]).chain([segment.data.len()]).collect();
                Cuts::ByContent(ends.into_iter().peekable())
            }
            Layout::Vma(spans) => Cuts::Blocks(blocks(spans).into_iter()),
        };
        Pieces { data: &segment.data, at: 0, cuts }
    }

    /// Makes the next piece as long as `guess` says, without taking it. The result is `None` where the length does not
    /// fit into the segment, or where cuts do not depend on the content.
    ///
    /// Bytes that follow the same bytes as in the base are probably cut as they are cut there. To look whether they are
    /// is quicker than to compute the cut.
    pub fn guess(&self, guess: impl FnOnce() -> Option<usize>) -> Option<Piece> {
        let Cuts::ByContent(_) = self.cuts else { return None };
        let len = guess().filter(|len| *len <= self.data.len() - self.at)?;
        Some(Piece::new(self.at, len))
    }

    /// Takes a guessed piece that turned out right.
    pub fn accept(&mut self, guess: Piece) {
        debug_assert_eq!(guess.at, self.at);
        self.at += guess.len;
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let piece = match &mut self.cuts {
            Cuts::Blocks(blocks) => blocks.next()?,
            Cuts::ByContent(ends) => {
                while ends.next_if(|end| *end <= self.at).is_some() {}
                Piece::new(self.at, cut(&self.data[self.at..*ends.peek()?]))
            }
        };
        debug_assert_eq!(piece.at, self.at);
        self.at += piece.len;
        Some(piece)
    }
}

/// Cuts the spans of a VMA archive into their blocks.
fn blocks(spans: &[Span]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for span in spans {
        match *span {
            Span::Gap(len) => {
                pieces.push(Piece { kind: PieceKind::Gap, ..Piece::new(at, len as usize) });
                at += len as usize;
            }
            Span::Header => {
                let clusters = at + EXTENT_FRONT;
                pieces.push(Piece { kind: PieceKind::Front, ..Piece::new(at, EXTENT_FRONT) });
                pieces.push(Piece { kind: PieceKind::Clusters, ..Piece::new(clusters, CLUSTERS_LEN) });
                at += EXTENT_HEADER;
            }
            Span::Cluster(c) => {
                for n in (0..BLOCKS_PER_CLUSTER as u8).filter(|n| c.mask >> n & 1 == 1) {
                    pieces.push(Piece { kind: PieceKind::Block(c, n), ..Piece::new(at, BLOCK) });
                    at += BLOCK;
                }
            }
        }
    }
    pieces
}

/// Computes the length of the first piece of `data`. The hash depends on the last 64 bytes only, so soon after a
/// difference equal bytes are cut alike again.
fn cut(data: &[u8]) -> usize {
    if data.len() <= MIN_PIECE {
        return data.len();
    }
    let end = data.len().min(MAX_PIECE);
    let mut hash = 0u64;
    for &b in &data[MIN_PIECE - 64..MIN_PIECE] {
        hash = (hash << 1).wrapping_add(GEAR[b as usize]);
    }
    for (n, &b) in data[MIN_PIECE..end].iter().enumerate() {
        hash = (hash << 1).wrapping_add(GEAR[b as usize]);
        if hash & CUT_MASK == 0 {
            return MIN_PIECE + n + 1;
        }
    }
    end
}
