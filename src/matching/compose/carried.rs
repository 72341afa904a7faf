//! Finds the clusters of a differential that differ from the base, so that the next differential can take over those
//! that have not changed since.
//!
//! A differential's instructions are read as a map: each stretch of its target is either new bytes or a place in the
//! base. Neither the base nor the target is produced for that. The target is a VMA archive whose clusters may come in
//! any order, and the headers of its extents tell which stretches belong to which cluster. A cluster with the same
//! content as in the base is not noted at all.
//!
//! If there are many new bytes, they are not held in memory; the differential is read twice instead. The first pass
//! ([`Carried::read`]) numbers the new bytes that will be taken over, and notes clusters by these numbers. The second
//! pass ([`Again`]) reads a little ahead of the program that asks for the bytes. It holds little where both
//! differentials have their clusters in the same order, as two of the same QEMU do.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};

use super::dirty::Dirty;
use super::piece::Piece;
use super::shape::{Bits, Shape};
use super::walk::{Found, Walk};
use crate::budget::Budget;
use crate::container::ReadAt;
use crate::matching::Error;
use crate::vcdiff::Reader;
use crate::vma::Cluster;

/// So many new bytes at most are held in memory from the first pass on, so that there need not be a second one.
const FEW: usize = 32 << 20;
/// The number of new bytes that [`Again`] holds in memory at most.
const MAX_HELD: u64 = 128 << 20;

/// The clusters of a differential that differ from those of the base.
pub(super) struct Carried {
    clusters: HashMap<(u8, u32), State>,
    pieces: Vec<Piece>,
    /// One bit for each cluster that is noted, which is faster to look up.
    pub changed: Bits,
    /// The new bytes that are taken over, if they are few.
    new: Option<Vec<u8>>,
}

#[derive(Clone, Copy)]
struct State {
    mask: u16,
    first: usize,
    count: u32,
}

/// The memory in bytes that a noted cluster takes, beside its pieces.
const STATE: u64 = 64;

impl Carried {
    /// Makes the value without any noted cluster, for the disks of this shape.
    pub fn none(shape: &Shape) -> Carried {
        let changed = Bits::of(&shape.header.devices);
        Carried { clusters: HashMap::new(), pieces: Vec::new(), changed, new: Some(Vec::new()) }
    }

    /// Reads a differential to its end. A cluster is not noted if all of it is dirty.
    ///
    /// # Errors
    /// Fails where the differential cannot be read, is damaged, is not of a VM with the disks of the base, or has too
    /// many changes.
    pub fn read(
        delta: Reader<impl Read>,
        shape: &Shape,
        base: &dyn ReadAt,
        dirty: &Dirty,
    ) -> Result<Carried, Error> {
        let size: u64 = shape.header.devices.iter().map(|device| device.size).sum();
        let (mut carried, mut budget) = (Carried::none(shape), Budget::of((32 << 20) + size / 2048));
        let mut walk = Walk::new(delta, shape, base, dirty);
        while let Some(found) = walk.window()? {
            for (cluster, pieces) in found.clusters {
                let state =
                    State { mask: cluster.mask, first: carried.pieces.len(), count: pieces.len() as u32 };
                let room = budget.take(STATE).and_then(|()| {
                    pieces.into_iter().try_for_each(|piece| budget.push(&mut carried.pieces, piece))
                });
                room.map_err(|_| Error::unfit("the last differential has too many changes"))?;
                carried.changed.set(cluster.device, cluster.number);
                carried.clusters.insert((cluster.device, cluster.number), state);
            }
            carried.new = carried.new.filter(|held| held.len() + found.new.len() <= FEW);
            if let Some(held) = &mut carried.new {
                held.extend(found.new);
            }
        }
        Ok(carried)
    }

    /// Returns the new bytes that are taken over. If they are many, `again` opens the same differential from its start.
    ///
    /// # Errors
    /// Those of `again`.
    pub fn new_bytes<'a>(
        &'a self,
        again: impl FnOnce() -> Result<Reader<Box<dyn Read + Send>>, Error>,
        shape: &'a Shape,
        base: &'a dyn ReadAt,
        dirty: &'a Dirty,
    ) -> Result<NewBytes<'a>, Error> {
        Ok(match &self.new {
            Some(bytes) => NewBytes::Held(bytes),
            None => NewBytes::Again(Box::new(Again::new(again()?, shape, base, dirty))),
        })
    }

    /// Returns the mask of a noted cluster, and the pieces that its stored blocks consist of, in their order.
    pub fn cluster(&self, cluster: &Cluster) -> Option<(u16, &[Piece])> {
        let state = self.clusters.get(&(cluster.device, cluster.number))?;
        Some((state.mask, &self.pieces[state.first..][..state.count as usize]))
    }
}

/// The new bytes that are taken over.
pub(super) enum NewBytes<'a> {
    /// They are in memory.
    Held(&'a [u8]),
    /// They are read once more.
    Again(Box<Again<'a, Box<dyn Read + Send>>>),
}

impl NewBytes<'_> {
    /// Passes new bytes to `take`, by their number. Every byte must be asked for once, even if it is not wanted after
    /// all.
    ///
    /// # Errors
    /// Fails where the differential cannot be read, has changed, or where too many bytes would have to be held.
    pub fn take(&mut self, start: u64, len: u32, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        match self {
            NewBytes::Held(bytes) => {
                let from = usize::try_from(start).unwrap_or(usize::MAX);
                let part = bytes.get(from..).and_then(|rest| rest.get(..len as usize));
                take(part.ok_or(Error::Internal("a byte of the last differential has no place"))?);
                Ok(())
            }
            NewBytes::Again(again) => again.take(start, len, take),
        }
    }

    /// Reads the differential to its end, where its checksum proves what was read, if that did not happen yet.
    ///
    /// # Errors
    /// Fails where it cannot be read, or is damaged.
    pub fn end(&mut self) -> Result<(), Error> {
        match self {
            NewBytes::Held(_) => Ok(()),
            NewBytes::Again(again) => again.end(),
        }
    }
}

/// The second pass over the differential, which returns the new bytes that are taken over.
pub(super) struct Again<'a, R> {
    walk: Walk<'a, R>,
    held: VecDeque<Held>,
    bytes: u64,
}

struct Held {
    start: u64,
    bytes: Vec<u8>,
    /// The number of bytes that nobody has asked for yet.
    left: u64,
}

impl<'a, R: Read> Again<'a, R> {
    /// Begins to read the same differential from its start.
    fn new(delta: Reader<R>, shape: &'a Shape, base: &'a dyn ReadAt, dirty: &'a Dirty) -> Again<'a, R> {
        Again { walk: Walk::new(delta, shape, base, dirty), held: VecDeque::new(), bytes: 0 }
    }

    fn take(&mut self, start: u64, len: u32, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        let end = start + u64::from(len);
        while self.held.back().map_or(0, |held| held.start + held.bytes.len() as u64) < end && self.more()? {}
        let mut at = start;
        let changed = || {
            let source = io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read");
            Error::Io { what: "cannot use the last differential".into(), source }
        };
        while at < end {
            let n = self.held.partition_point(|held| held.start <= at).checked_sub(1).ok_or_else(changed)?;
            let last = n + 1 == self.held.len();
            let held = &mut self.held[n];
            let from = (at - held.start) as usize;
            let to = held.bytes.len().min((end - held.start) as usize);
            let part = held.bytes.get(from..to).filter(|part| !part.is_empty()).ok_or_else(changed)?;
            take(part);
            at += part.len() as u64;
            held.left = held.left.saturating_sub(part.len() as u64);
            if held.left == 0 && !last {
                self.bytes -= held.bytes.capacity() as u64;
                self.held.remove(n);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        while self.walk.window()?.is_some() {}
        Ok(())
    }

    /// Reads the next window. Returns whether there was one.
    fn more(&mut self) -> Result<bool, Error> {
        let start = self.walk.kept();
        let Some(Found { new, .. }) = self.walk.window()? else { return Ok(false) };
        if !new.is_empty() {
            self.bytes += new.capacity() as u64;
            self.held.push_back(Held { start, left: new.len() as u64, bytes: new });
        }
        if self.bytes > MAX_HELD {
            return Err(Error::unfit("the last differential has its clusters in quite another order"));
        }
        Ok(true)
    }
}
