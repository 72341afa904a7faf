//! Comparing a changed block with what the base has in its place.
//!
//! A block of a database, of a file system's own data, or of a file in which a few bytes were changed is mostly as it was.
//! It is compared with the base's bytes around its place, byte by byte. For that, the base has to be decompressed from
//! the front of a frame on, which costs many times what it costs to store a block. So whole ranges of new data are told
//! before: none of the strings that the base's map keeps as seeds is still there. One or two blocks say too little for
//! that, and are always compared.

use std::io;

use crate::container::{Extent, ReadAt};
use crate::matching::differential::matcher::{self, Instruction, Workspace};
use crate::matching::map::{SegmentMap, occurs};
use crate::vma::BLOCK;

/// Data that is shorter is always compared.
const MIN_TOLD: usize = 3 * BLOCK;
/// The number of bytes of the base that are compared before and behind the place itself. Data moves a little where
/// something is inserted.
const SLACK: u64 = BLOCK as u64;

/// A part of what was compared.
pub(super) enum Part<'a> {
    /// Bytes that the base does not have there.
    New(&'a [u8]),
    /// Bytes that the base has: position and length.
    Base(u64, u64),
}

/// Compares data with the base; memory that is used again.
#[derive(Default)]
pub(super) struct Near {
    bytes: Vec<u8>,
    /// The position of the first of these bytes in the base.
    start: u64,
    /// The number of these bytes that lie before the place itself.
    before: usize,
    space: Workspace,
}

impl Near {
    /// Tells whether `new` probably has something in common with the base's bytes at `at`, a position in this part of the
    /// map.
    pub fn is_likely(segment: &SegmentMap, at: usize, new: &[u8]) -> bool {
        let (first, seeds) =
            segment.seeds_of(at.saturating_sub(SLACK as usize)..at + new.len() + SLACK as usize);
        new.len() < MIN_TOLD || occurs(seeds, first as isize - at as isize, new).unwrap_or(true)
    }

    /// Reads the base's bytes around `len` bytes from `place` on, as far as they lie within `extent`.
    ///
    /// # Errors
    /// Fails where the base cannot be read, or is damaged.
    pub fn fetch(
        &mut self,
        content: &dyn ReadAt,
        place: u64,
        len: usize,
        extent: Extent,
    ) -> io::Result<&mut Near> {
        let end = (place + len as u64 + SLACK).min(extent.end());
        self.start = place.saturating_sub(SLACK).max(extent.pos);
        self.before = (place - self.start) as usize;
        self.bytes.resize((end - self.start) as usize, 0);
        content.read_at(self.start, &mut self.bytes)?;
        Ok(self)
    }

    /// Compares the bytes that were read last with `new`, which is in their place now. The parts make all of `new`.
    pub fn compare<'n>(&mut self, new: &'n [u8], mut part: impl FnMut(Part<'n>)) {
        let start = self.start;
        matcher::compare(&self.bytes, new, self.before as isize, &mut self.space, |found| {
            part(match found {
                Instruction::Literal { at, len } => Part::New(&new[at..at + len]),
                Instruction::Copy { from, len, .. } => Part::Base(start + from as u64, len as u64),
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::chunker::{Layout, Segment};
    use crate::matching::fingerprint::Secret;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let word = |n: u64| (n ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        (0..len as u64 / 8).flat_map(|n| (word(n).wrapping_mul(word(n) | 1)).to_le_bytes()).collect()
    }

    fn segment(data: &[u8]) -> SegmentMap {
        let segment = Segment { start: 0, data: data.to_vec(), layout: Layout::Bytes };
        SegmentMap::new(&segment, &Secret::new(&[9; 32]))
    }

    #[test]
    fn new_data_is_told_from_changed_data() {
        let old = noise(64 << 10, 1);
        let map = segment(&old);
        let at = 16 << 10;
        let changed = |every: usize| {
            let mut new = old[at..at + 5 * BLOCK].to_vec();
            new.iter_mut().step_by(every).for_each(|byte| *byte ^= 1);
            new
        };
        assert!(Near::is_likely(&map, at, &changed(700)));
        // It has moved by less than a block.
        assert!(Near::is_likely(&map, at - 1000, &changed(700)));
        assert!(!Near::is_likely(&map, at, &noise(5 * BLOCK, 2)));
        assert!(Near::is_likely(&map, at, &noise(2 * BLOCK, 2)), "too little to tell");
        // Where the base has no seeds, nothing can be told.
        assert!(Near::is_likely(&segment(&vec![0; 64 << 10]), at, &noise(5 * BLOCK, 2)));
        assert!(Near::is_likely(&SegmentMap::default(), at, &noise(5 * BLOCK, 2)));
    }

    #[test]
    fn parts_make_the_new_data_within_the_extent() {
        let base = noise(32 << 10, 3);
        let extent = Extent::new(4096, 20 << 10);
        let mut near = Near::default();
        for (place, moved) in [(4096usize, 0), (8192, 100), (20 << 10, 0)] {
            let mut new = base[place + moved..place + moved + BLOCK].to_vec();
            new[2000..2010].fill(7);
            let (mut built, mut literal) = (Vec::<u8>::new(), 0);
            near.fetch(&base, place as u64, BLOCK, extent).unwrap().compare(&new, |part| match part {
                Part::New(bytes) => {
                    literal += bytes.len();
                    built.extend(bytes);
                }
                Part::Base(at, len) => {
                    assert!(at >= extent.pos && at + len <= extent.end());
                    built.extend(&base[at as usize..(at + len) as usize]);
                }
            });
            assert!(built == new);
            assert_eq!(literal, 10, "{place}");
        }
    }
}
