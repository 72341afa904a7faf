//! Encoding one segment: its stretches become copies from the base and new bytes.
//!
//! Equal stretches are copied, wherever in the base they are. Changed ones are compared with the base's bytes at the same
//! place, and beside what surrounds them. What is not found there is compared with the bytes around its seeds.

use std::io;

use super::candidates::{around_seeds, candidates};
use super::context::Context;
use super::matcher::{self, Instruction, Workspace};
use super::reference::{Prefetch, Reference};
use super::stretch::{Origin, Stretch};
use super::window::WindowWriter;
use crate::container::{Extent, ReadAt};
use crate::matching::chunker::{Layout, Segment};
use crate::matching::map::{Index, SeedMatch, worthwhile};
use crate::vcdiff::WindowBuilder;

/// New bytes are searched for by their seeds if there are at least so many in a row; of longer ones, so many at a time.
const MIN_SEARCH: usize = 512;
const MAX_SEARCH: usize = 64 << 10;
/// The most seeds that are followed for so many bytes. The base has a seed in each 4 KiB, and each is a place to read.
const MAX_SEEDS: usize = 128;
/// A seed tells something about bytes that are no further from it.
const NEAR: usize = 8 << 10;
/// On a disk, a changed stretch that is longer is mostly a new file in the place of an old one. Seeds then tell what is
/// left of the old bytes.
const LONG: usize = 32 << 10;

/// Memory that is used again for each segment.
#[derive(Default)]
pub(super) struct Scratch {
    builder: WindowBuilder,
    reference: Reference,
    space: Workspace,
    operations: Vec<Operation>,
    prefetch: Prefetch,
}

/// The base, as a segment is encoded against it.
pub(super) struct BaseView<'a> {
    /// Its content.
    pub content: &'a dyn ReadAt,
    /// Tells the number of the zone at a position of the content. A zone is decompressed from its front.
    pub zone: &'a dyn Fn(u64) -> u64,
    /// Its index; none where stretches were found without one.
    pub index: Option<&'a Index>,
    /// Its content before this position cannot be read any more.
    pub readable_from: u64,
}

/// An encoded segment.
pub(super) struct Encoded {
    /// Its VCDIFF windows.
    pub windows: Vec<u8>,
    /// The distance from the segment's bytes to the base's, by the last stretch that was found; none if nothing was found.
    pub drift: Option<i64>,
}

/// What makes a part of the segment.
#[derive(Clone, Copy)]
enum Operation {
    /// A copy from the base.
    Copy { from: u64, len: usize },
    /// New bytes.
    New { at: usize, len: usize },
    /// The front of a VMA extent's header, see [`Origin::Front`].
    Front { at: usize, base: Option<u64> },
    /// Bytes that were not found where they were to be expected. They are searched for by their seeds.
    Search { at: usize, len: usize },
}

/// New bytes that are compared with the base's bytes around their seeds.
struct Search {
    /// How many bytes.
    len: usize,
    /// The extents of the base; none where the bytes have no seeds.
    candidates: Vec<Extent>,
}

/// Encodes a segment of which `stretches` were found. `adler32` is its checksum, if it is known already.
pub(super) fn encode(
    context: &Context,
    segment: &Segment,
    base: &BaseView<'_>,
    stretches: &[Stretch],
    adler32: Option<u32>,
    scratch: &mut Scratch,
) -> Encoded {
    let Scratch { builder, reference, space, operations, prefetch } = scratch;
    let mut encoder = SegmentEncoder { context, segment, base, reference, space };
    let drift = encoder.plan(stretches, operations);
    let searches = encoder.searches(operations);
    let mut writer = WindowWriter::new(context, &segment.data, adler32, builder);
    encoder.write(operations, &searches, prefetch, &mut writer);
    operations.clear();
    Encoded { windows: writer.finish(), drift }
}

struct SegmentEncoder<'a> {
    context: &'a Context,
    segment: &'a Segment,
    base: &'a BaseView<'a>,
    reference: &'a mut Reference,
    space: &'a mut Workspace,
}

impl SegmentEncoder<'_> {
    /// Turns stretches into operations. The result is [`Encoded::drift`].
    fn plan(&mut self, stretches: &[Stretch], operations: &mut Vec<Operation>) -> Option<i64> {
        let start = self.segment.start;
        let mut drift = None;
        for (n, &Stretch { at, len, origin }) in stretches.iter().enumerate() {
            let here = (start + at as u64) as i64;
            match origin {
                Origin::Equal(from) => {
                    operations.push(Operation::Copy { from, len });
                    drift = Some(from as i64 - here);
                }
                Origin::Front(base) => operations.push(Operation::Front { at, base }),
                Origin::Fresh => operations.push(Operation::New { at, len }),
                Origin::Changed(old) => {
                    if let Some(old) = old {
                        let middle = (old.pos + old.len / 2) as i64 - (len / 2) as i64;
                        drift = Some(middle - here);
                    }
                    if len > LONG && matches!(self.segment.layout, Layout::Vma(_)) {
                        operations.push(Operation::Search { at, len });
                    } else {
                        self.changed(at, len, &candidates(stretches, n, start == 0), operations);
                    }
                }
            }
        }
        drift
    }

    /// Compares a changed stretch with the candidates.
    fn changed(&mut self, at: usize, len: usize, candidates: &[Extent], operations: &mut Vec<Operation>) {
        let new = &self.segment.data[at..at + len];
        let reference = &mut *self.reference;
        let error = reference.fetch(self.base.content, candidates);
        matcher::compare(&reference.bytes, new, 0, self.space, |instruction| match instruction {
            Instruction::Literal { at: place, len } if len >= MIN_SEARCH => {
                operations.push(Operation::Search { at: at + place, len })
            }
            Instruction::Literal { at: place, len } => {
                operations.push(Operation::New { at: at + place, len })
            }
            Instruction::Copy { from, len, .. } => operations
                .extend(reference.origins(from, len).map(|(from, len)| Operation::Copy { from, len })),
        });
        error.iter().for_each(|error| self.unreadable(error));
    }

    /// Divides the bytes of all [`Operation::Search`] into searches, by the seeds that are found in them. The searches come
    /// in order and cover these bytes.
    fn searches(&self, operations: &[Operation]) -> Vec<Search> {
        let Some(index) = self.base.index else { return Vec::new() };
        let unmatched = || {
            operations.iter().filter_map(|operation| match *operation {
                Operation::Search { at, len } => Some((at, at + len)),
                _ => None,
            })
        };
        let mut seeds = Vec::new();
        for (at, end) in unmatched() {
            let found = self.context.found(index.find_seeds(&self.segment.data[at..end]).map(Some));
            let found = found.unwrap_or_default().into_iter();
            seeds.extend(found.map(|seed| SeedMatch { at: at + seed.at, ..seed }));
        }
        seeds.retain(|seed| seed.base >= self.base.readable_from);
        worthwhile(&mut seeds, self.base.zone);
        let mut seeds = &seeds[..];
        let mut searches = Vec::new();
        for (mut at, end) in unmatched() {
            while at < end {
                let near = seeds.first().map_or(end, |seed| seed.at.saturating_sub(NEAR).clamp(at, end));
                if at < near {
                    searches.push(Search { len: near - at, candidates: Vec::new() });
                    at = near;
                    continue;
                }
                let limit = end.min(at + MAX_SEARCH);
                let mut last = at;
                let here = seeds.iter().take(MAX_SEEDS).take_while(|seed| {
                    let joins = seed.at < limit && seed.at <= last + 2 * NEAR;
                    last = if joins { seed.at } else { last };
                    joins
                });
                let (here, later) = seeds.split_at(here.count());
                let next = later.first().map_or(limit, |seed| seed.at);
                let len = (last + NEAR).min(limit).min(next) - at;
                searches.push(Search { len, candidates: around_seeds(at, len, here) });
                at += len;
                seeds = later;
            }
        }
        searches
    }

    /// Writes all operations, and makes the searches on the way.
    fn write(
        &mut self,
        operations: &[Operation],
        mut searches: &[Search],
        prefetch: &mut Prefetch,
        writer: &mut WindowWriter<'_>,
    ) {
        let data = &self.segment.data;
        // For how many of the next searches the base's bytes were read.
        let mut read = 0;
        for operation in operations {
            match *operation {
                Operation::Copy { from, len } => writer.copy(from, len),
                Operation::New { at, len } => writer.literal(&data[at..at + len]),
                Operation::Front { at, base } => writer.front(at, base),
                Operation::Search { mut at, len } => {
                    let end = at + len;
                    while at < end {
                        let Some((search, later)) = searches.split_first() else {
                            writer.literal(&data[at..end]);
                            break;
                        };
                        if read == 0 {
                            let extents = searches.iter().map(|search| &search.candidates[..]);
                            read = prefetch.read(self.base.content, self.base.zone, extents);
                            prefetch.errors.iter().for_each(|error| self.unreadable(error));
                        }
                        self.search(&data[at..at + search.len], &search.candidates, prefetch, writer);
                        at += search.len;
                        read -= 1;
                        searches = later;
                    }
                }
            }
        }
    }

    /// Compares new bytes with the base's at these extents, which were read before.
    fn search(
        &mut self,
        new: &[u8],
        candidates: &[Extent],
        prefetch: &Prefetch,
        writer: &mut WindowWriter<'_>,
    ) {
        if candidates.is_empty() {
            return writer.literal(new);
        }
        let reference = &mut *self.reference;
        reference.fetch(prefetch, candidates);
        matcher::compare(&reference.bytes, new, 0, self.space, |instruction| match instruction {
            Instruction::Literal { at, len } => writer.literal(&new[at..at + len]),
            Instruction::Copy { from, len, .. } => {
                reference.origins(from, len).for_each(|(from, len)| writer.copy(from, len))
            }
        });
    }

    /// Remembers that the base is damaged. Where something has left the sliding window, nothing is wrong.
    fn unreadable(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.context.note_damage(error);
        }
    }
}
