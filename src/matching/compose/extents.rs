//! Writing the extents of the new archive.

use std::path::Path;
use std::sync::Arc;

use super::carried::{Carried, NewBytes};
use super::dirty::Dirty;
use super::feeds::Feeds;
use super::near::{Near, Part};
use super::output::Output;
use super::piece::{From, Piece};
use super::shape::Shape;
use crate::container::Extent;
use crate::matching::fingerprint::Fingerprint;
use crate::matching::map::{Entry, MapReader, SegmentMap};
use crate::matching::{BaseProblem, Error};
use crate::vma::{BLOCK, BLOCKS_PER_CLUSTER, CLUSTER, Cluster, EXTENT_HEADER, ExtentHeader};

/// Where some bytes of an extent come from.
#[derive(Clone, Copy)]
enum Now {
    /// The bytes are in the base: position and length.
    Base(u64, u64),
    /// The bytes were read from a disk.
    Disk(Read),
    /// The bytes are new bytes of the last differential: the number of the first one, and the length.
    Carried(u64, u32),
}

/// Bytes that were read from a disk.
#[derive(Clone, Copy)]
struct Read {
    /// Their start and end in `Extents::data`.
    start: usize,
    end: usize,
    /// The position of the base's bytes that were in their place, if it has any.
    base: Option<u64>,
}

/// Writes the extents of the new archive one after the other.
pub(super) struct Extents<'a> {
    path: &'a Path,
    map: &'a MapReader,
    shape: &'a Shape,
    dirty: &'a Dirty,
    carried: &'a Carried,
    new: NewBytes<'a>,
    feeds: Feeds,
    near: Near,
    /// The clusters of this extent that are dirty. Only their dirty blocks are filled in.
    data: Vec<u8>,
}

impl<'a> Extents<'a> {
    /// Begins to write extents. `path` is that of the base.
    pub fn new(
        path: &'a Path,
        map: &'a MapReader,
        shape: &'a Shape,
        dirty: &'a Dirty,
        (carried, new): (&'a Carried, NewBytes<'a>),
        feeds: Feeds,
    ) -> Extents<'a> {
        Extents { path, map, shape, dirty, carried, new, feeds, near: Near::default(), data: Vec::new() }
    }

    /// Writes extent `n` of the base as it is now.
    ///
    /// # Errors
    /// Fails where a disk, the last differential or the base cannot be read, and where the output cannot be written.
    pub fn write(&mut self, n: usize, out: &mut Output) -> Result<(), Error> {
        let (slots, at) = (self.shape.slots.of(n), self.shape.slots.extents[n].at);
        let touched = |slot: &Cluster| self.dirty.of(slot) != 0 || self.carried.changed.has(slot);
        if !slots.iter().any(touched) {
            return out.copy(at, self.shape.extent_len(n));
        }
        self.data.clear();
        let (mut clusters, mut all) = (Vec::with_capacity(slots.len()), Vec::new());
        let mut place = at + EXTENT_HEADER as u64;
        for slot in slots {
            let mask = self.cluster(slot, place, &mut all)?;
            clusters.push(Cluster { mask, ..*slot });
            place += slot.data_len() as u64;
        }
        self.header(slots, at, &clusters, out)?;
        let behind = at + self.shape.extent_len(n);
        let mut rest = &all[..];
        while let Some((first, others)) = rest.split_first() {
            rest = others;
            match *first {
                Now::Base(at, len) => out.copy(at, len)?,
                Now::Carried(start, len) => self.carry(start, len, Some(out))?,
                Now::Disk(mut read) => {
                    while let Some((Now::Disk(next), others)) = rest.split_first()
                        && next.start == read.end
                        && next.base == read.base.map(|base| base + (read.end - read.start) as u64)
                    {
                        (read.end, rest) = (next.end, others);
                    }
                    self.disk(read, Extent::between(at + EXTENT_HEADER as u64, behind), out)?;
                }
            }
        }
        Ok(())
    }

    /// Proves what was read of the last differential. Before that, nothing that was written may be called good.
    ///
    /// # Errors
    /// Fails where the last differential cannot be read, or is damaged.
    pub fn end(mut self) -> Result<(), Error> {
        self.new.end()
    }

    /// Writes the header of an extent with these clusters, in the place of one with `slots`. The base's header is known
    /// without being read, as only plain archives have a shape.
    fn header(
        &self,
        slots: &[Cluster],
        at: u64,
        clusters: &[Cluster],
        out: &mut Output,
    ) -> Result<(), Error> {
        if clusters == slots {
            return out.copy(at, EXTENT_HEADER as u64);
        }
        let header = |clusters| ExtentHeader::new(self.shape.header.uuid, clusters).encode();
        let (old, new) = (header(slots), header(clusters));
        let mut done = 0;
        while done < new.len() {
            let len = new[done..].iter().zip(&old[done..]).take_while(|(new, old)| new == old).count();
            if len >= MIN_COPY {
                out.copy(at + done as u64, len as u64)?;
                done += len;
                continue;
            }
            // Each slot has 8 bytes.
            let next = new[done + len..].chunks(8).zip(old[done + len..].chunks(8));
            let len = len + next.take_while(|(new, old)| new != old).map(|(new, _)| new.len()).sum::<usize>();
            out.add(&new[done..done + len])?;
            done += len;
        }
        Ok(())
    }

    /// Finds what a cluster of the base is now: returns its mask, and adds where the bytes of its blocks come from to
    /// `all`.
    fn cluster(&mut self, slot: &Cluster, place: u64, all: &mut Vec<Now>) -> Result<u16, Error> {
        let dirty = self.dirty.of(slot);
        let (clean_mask, pieces) = match self.carried.cluster(slot) {
            Some((mask, pieces)) => (mask, Some(pieces)),
            None => (slot.mask, None),
        };
        if dirty == 0 {
            match pieces {
                Some(pieces) => all.extend(pieces.iter().map(now)),
                None if slot.mask != 0 => all.push(Now::Base(place, slot.data_len() as u64)),
                None => {}
            }
            return Ok(clean_mask);
        }

        let read = self.data.len();
        self.data.resize(read + CLUSTER, 0);
        self.feeds.read(slot, dirty, &mut self.data[read..])?;
        let mut prints = None;
        let mut mask = 0;
        // The position of the next clean block in the pieces.
        let mut clean = 0;
        for block in 0..BLOCKS_PER_CLUSTER {
            let bit = 1 << block;
            let base = (slot.mask & bit != 0)
                .then(|| place + u64::from((slot.mask & (bit - 1)).count_ones()) * BLOCK as u64);
            let had = clean;
            if clean_mask & bit != 0 {
                clean += BLOCK as u32;
            }
            if dirty & bit == 0 {
                if clean_mask & bit == 0 {
                    continue;
                }
                mask |= bit;
                match (pieces, base) {
                    (Some(pieces), _) => all.extend(parts(pieces, had, had + BLOCK as u32).map(|p| now(&p))),
                    (None, Some(at)) => all.push(Now::Base(at, BLOCK as u64)),
                    (None, None) => return Err(Error::Internal("a block has no place")),
                }
                continue;
            }
            if let Some(pieces) = pieces
                && clean_mask & bit != 0
            {
                // The last differential's bytes of this block are not wanted any more.
                for piece in parts(pieces, had, had + BLOCK as u32) {
                    if let Now::Carried(start, len) = now(&piece) {
                        self.carry(start, len, None)?;
                    }
                }
            }
            let start = read + block * BLOCK;
            let data = &self.data[start..start + BLOCK];
            if data.iter().all(|byte| *byte == 0) {
                continue;
            }
            mask |= bit;
            if let Some(at) = base {
                let prints = match &mut prints {
                    Some(prints) => prints,
                    none => none.insert(self.prints(place, slot)?),
                };
                let n = (at - place) as usize / BLOCK;
                if prints.get(n).is_some_and(|print| *print == self.map.secret().fingerprint(data)) {
                    all.push(Now::Base(at, BLOCK as u64));
                    continue;
                }
            }
            all.push(Now::Disk(Read { start, end: start + BLOCK, base }));
        }
        Ok(mask)
    }

    /// Returns the part of the base's map that describes this position, and the position in that part.
    fn segment(&self, place: u64) -> Result<(Arc<SegmentMap>, u64), Error> {
        let segments = &self.shape.slots.segments;
        let n = segments.partition_point(|start| *start <= place).saturating_sub(1);
        let segment = self.map.get(n as u32)?;
        match segment.start == segments[n] {
            true => Ok((segment, place - segments[n])),
            false => Err(self.misfit()),
        }
    }

    fn misfit(&self) -> Error {
        Error::base(self.path, BaseProblem::Damaged("its map does not fit its list of clusters".into()))
    }

    /// Finds the fingerprints of a cluster's stored blocks in the base's map.
    fn prints(&self, place: u64, slot: &Cluster) -> Result<Vec<Fingerprint>, Error> {
        let (segment, at) = self.segment(place)?;
        let first = segment.entries.partition_point(|entry| u64::from(entry.at) < at);
        let entries = segment.entries[first..].iter().take(slot.mask.count_ones() as usize).enumerate();
        let fit = |(n, entry): (usize, &Entry)| {
            let there = u64::from(entry.at) == at + (n * BLOCK) as u64 && entry.len as usize == BLOCK;
            there.then_some(entry.fingerprint)
        };
        let prints: Option<Vec<_>> = entries.map(fit).collect();
        prints.filter(|p| p.len() == slot.mask.count_ones() as usize).ok_or_else(|| self.misfit())
    }

    /// Writes bytes that were read from a disk. They are compared with the base's bytes in their place, which lie within
    /// `extent`, unless they look new.
    fn disk(&mut self, read: Read, extent: Extent, out: &mut Output) -> Result<(), Error> {
        let new = &self.data[read.start..read.end];
        let Some(base) = read.base else { return out.add(new) };
        let (segment, at) = self.segment(base)?;
        if !Near::is_likely(&segment, at as usize, new) {
            return out.add(new);
        }
        let cannot = |source| Error::base(self.path, BaseProblem::Io(source));
        let old = self.near.fetch(self.map.content(), base, new.len(), extent).map_err(cannot)?;
        let mut written = Ok(());
        old.compare(new, |part| {
            if written.is_ok() {
                written = match part {
                    Part::New(bytes) => out.add(bytes),
                    Part::Base(at, len) => out.copy(at, len),
                };
            }
        });
        written
    }

    /// Writes new bytes of the last differential, or passes over them if there is no `out`.
    fn carry(&mut self, start: u64, len: u32, mut out: Option<&mut Output>) -> Result<(), Error> {
        let mut written = Ok(());
        let take = |bytes: &[u8]| {
            if let (Some(out), Ok(())) = (&mut out, &written) {
                written = out.add(bytes);
            }
        };
        self.new.take(start, len, take)?;
        written
    }
}

/// The shortest part of a header that is copied.
const MIN_COPY: usize = 16;

fn now(piece: &Piece) -> Now {
    match piece.from() {
        From::Base(at) => Now::Base(at, piece.len.into()),
        From::New(start) => Now::Carried(start, piece.len),
    }
}

/// Lists the parts of pieces that lie between these two offsets, which count from the first piece's start.
fn parts(pieces: &[Piece], start: u32, end: u32) -> impl Iterator<Item = Piece> + '_ {
    let mut at = 0;
    pieces.iter().filter_map(move |piece| {
        let from = at;
        at += piece.len;
        let (low, high) = (start.max(from), end.min(at));
        (low < high).then(|| piece.part(low - from, high - from))
    })
}
