//! Finds the clusters of a differential that differ from the base, so that the next differential can take over those
//! that have not changed since.
//!
//! A differential's instructions are read as a map: each stretch of its target is either new bytes or a place in the
//! base. Neither the base nor the target is produced for that. The target is a VMA archive whose clusters may come in
//! any order, and the headers of its extents tell which stretches belong to which cluster. A cluster with the same
//! content as in the base is not noted at all.
//!
//! New bytes are not held in memory; the differential is read twice instead. The first pass ([`Carried::read`]) numbers
//! the new bytes that will be taken over, and notes clusters by these numbers. The second pass ([`Again`]) reads a
//! little ahead of the program that asks for the bytes. It holds little where both differentials have their clusters in
//! the same order, as two of the same QEMU do.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};

use super::dirty::Dirty;
use super::shape::{Bits, Shape};
use crate::budget::Budget;
use crate::container::ReadAt;
use crate::matching::Error;
use crate::vcdiff::{Inst, Item, Reader, Window};
use crate::vma::{Cluster, EXTENT_HEADER, ExtentHeader, Header, Uuid};

/// The number of pieces that the instructions of one window may make. Those of honest files make some thousand.
const MAX_PIECES: usize = 1 << 20;
/// The number of new bytes that [`Again`] holds in memory at most.
const MAX_HELD: u64 = 128 << 20;

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
    /// The place that the bytes come from.
    pub fn from(&self) -> From {
        if self.from & NEW == 0 { From::Base(self.from) } else { From::New(self.from & !NEW) }
    }

    /// The part of the piece between these two offsets.
    pub fn part(&self, start: u32, end: u32) -> Piece {
        Piece { from: self.from + u64::from(start), len: end - start }
    }
}

/// The clusters of a differential that differ from those of the base.
pub(super) struct Carried {
    clusters: HashMap<(u8, u32), State>,
    pieces: Vec<Piece>,
    /// One bit for each cluster that is noted, which is faster to look up.
    pub changed: Bits,
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
        Carried { clusters: HashMap::new(), pieces: Vec::new(), changed: Bits::of(&shape.header.devices) }
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
        }
        Ok(carried)
    }

    /// Returns the mask of a noted cluster, and the pieces that its stored blocks consist of, in their order.
    pub fn cluster(&self, cluster: &Cluster) -> Option<(u16, &[Piece])> {
        let state = self.clusters.get(&(cluster.device, cluster.number))?;
        Some((state.mask, &self.pieces[state.first..][..state.count as usize]))
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
    pub fn new(delta: Reader<R>, shape: &'a Shape, base: &'a dyn ReadAt, dirty: &'a Dirty) -> Again<'a, R> {
        Again { walk: Walk::new(delta, shape, base, dirty), held: VecDeque::new(), bytes: 0 }
    }

    /// Passes new bytes to `take`, by their number. Every byte must be asked for once, even if it is not wanted after
    /// all.
    ///
    /// # Errors
    /// Fails where the differential cannot be read, has changed, or where too many bytes would have to be held.
    pub fn take(&mut self, start: u64, len: u32, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
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

    /// Reads the differential to its end, where its checksum proves what was read.
    ///
    /// # Errors
    /// Fails where it cannot be read, or is damaged.
    pub fn end(&mut self) -> Result<(), Error> {
        while self.walk.window()?.is_some() {}
        Ok(())
    }

    /// Reads the next window. Returns whether there was one.
    fn more(&mut self) -> Result<bool, Error> {
        let start = self.walk.target.kept;
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

/// What was found in a window.
#[derive(Default)]
struct Found {
    /// The clusters that end in this window and differ from those of the base.
    clusters: Vec<(Cluster, Vec<Piece>)>,
    /// The new bytes that are taken over.
    new: Vec<u8>,
}

/// Goes through a differential, window by window.
struct Walk<'a, R> {
    delta: Reader<R>,
    parts: Parts,
    target: Target<'a>,
    ended: bool,
}

impl<'a, R: Read> Walk<'a, R> {
    fn new(delta: Reader<R>, shape: &'a Shape, base: &'a dyn ReadAt, dirty: &'a Dirty) -> Walk<'a, R> {
        let target = Target {
            shape,
            base,
            dirty,
            phase: Phase::Header,
            gathered: Vec::new(),
            uuid: Uuid::default(),
            clusters: Vec::new().into_iter(),
            current: None,
            seen: Bits::of(&shape.header.devices),
            left: shape.slots.slots.len(),
            kept: 0,
        };
        Walk { delta, parts: Parts::default(), target, ended: false }
    }

    /// Reads the next window. The result is `None` at the end, if all clusters have been seen; if not, it is an error.
    fn window(&mut self) -> Result<Option<Found>, Error> {
        let window = match self.delta.next_item()? {
            Some(Item::Window(window)) => window,
            Some(Item::End(_)) => {
                self.ended = true;
                return self.window();
            }
            None if self.ended && self.target.is_complete() => return Ok(None),
            None => {
                return Err(Error::unfit("the last differential is not of a whole VM with the same disks"));
            }
        };
        self.parts.of(&window)?;
        let mut found = Found::default();
        let target = &mut self.target;
        self.parts.each(|part| target.feed(part, &mut found))?;
        Ok(Some(found))
    }
}

/// The target of a window as a list of parts.
#[derive(Default)]
struct Parts {
    /// The new bytes, each at its position in the target. The bytes of other parts are not valid.
    bytes: Vec<u8>,
    /// The position in the target at which each part begins, and the place of the base from which it is copied, if it
    /// is.
    list: Vec<(usize, Option<u64>)>,
    len: usize,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    New(&'a [u8]),
    Base(u64, usize),
}

impl Part<'_> {
    fn len(&self) -> usize {
        match self {
            Part::New(bytes) => bytes.len(),
            Part::Base(_, len) => *len,
        }
    }

    /// Takes the first `n` bytes off the part, and returns them.
    fn take(&mut self, n: usize) -> Self {
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
    fn of(&mut self, window: &Window) -> Result<(), Error> {
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
        if base.is_some_and(|at| at.checked_add(len as u64).is_none_or(|end| end >= NEW)) {
            return Err(Error::unfit("the last differential copies from beyond 2^63 bytes"));
        }
        let follows = match (self.list.last(), base) {
            (Some((_, None)), None) => true,
            (Some((start, Some(last))), Some(at)) => last + (self.len - start) as u64 == at,
            _ => false,
        };
        if !follows {
            if self.list.len() == MAX_PIECES {
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

    fn each(&self, mut take: impl FnMut(Part<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let ends = self.list.iter().skip(1).map(|(start, _)| *start).chain([self.len]);
        self.list.iter().zip(ends).try_for_each(|(&(start, base), end)| {
            take(match base {
                Some(at) => Part::Base(at, end - start),
                None => Part::New(&self.bytes[start..end]),
            })
        })
    }
}

enum Phase {
    Header,
    Extent,
    Data,
}

/// The state of reading the target, whose parts come one after the other.
struct Target<'a> {
    shape: &'a Shape,
    base: &'a dyn ReadAt,
    dirty: &'a Dirty,
    phase: Phase,
    /// The bytes of a header that have come so far.
    gathered: Vec<u8>,
    uuid: Uuid,
    /// The clusters of the extent whose data has not begun.
    clusters: std::vec::IntoIter<Cluster>,
    current: Option<Current>,
    seen: Bits,
    /// The number of clusters that were not seen yet.
    left: usize,
    /// The number of new bytes so far that are taken over.
    kept: u64,
}

struct Current {
    cluster: Cluster,
    /// The number of bytes that have not come yet.
    left: usize,
    /// All of the cluster is dirty, so nothing of it is taken over: it is read from the disk.
    dirty: bool,
    pieces: Vec<Piece>,
}

impl Target<'_> {
    fn is_complete(&self) -> bool {
        self.left == 0 && matches!(self.phase, Phase::Extent) && self.gathered.is_empty()
    }

    fn feed(&mut self, mut part: Part<'_>, found: &mut Found) -> Result<(), Error> {
        while part.len() > 0 {
            match self.phase {
                Phase::Header => self.header(&mut part)?,
                Phase::Extent => {
                    if !self.as_in_base(&mut part)? {
                        self.extent(&mut part, found)?;
                    }
                }
                Phase::Data => self.data(&mut part, found)?,
            }
        }
        Ok(())
    }

    /// Gathers the bytes of a header. Returns whether there are `wanted` of them.
    fn gather(&mut self, part: &mut Part<'_>, wanted: usize) -> Result<bool, Error> {
        let had = self.gathered.len();
        match part.take(part.len().min(wanted - had)) {
            Part::New(bytes) => self.gathered.extend(bytes),
            Part::Base(at, len) => {
                self.gathered.resize(had + len, 0);
                self.shape
                    .read(self.base, at, &mut self.gathered[had..])
                    .map_err(|source| Error::Io { what: "cannot read the full backup".into(), source })?;
            }
        }
        Ok(self.gathered.len() == wanted)
    }

    fn header(&mut self, part: &mut Part<'_>) -> Result<(), Error> {
        let odd = |_| Error::unfit("the last differential is not a VM's");
        let wanted = match self.gathered.len() < Header::PREFIX {
            true => Header::PREFIX,
            false => Header::measure(&self.gathered).map_err(odd)?.unwrap_or(Header::PREFIX),
        };
        if !self.gather(part, wanted)? || wanted == Header::PREFIX {
            return Ok(());
        }
        let header = Header::parse(&self.gathered).map_err(odd)?;
        if header.devices != self.shape.header.devices {
            return Err(Error::unfit("the disks have changed since the last differential"));
        }
        self.uuid = header.uuid;
        self.gathered.clear();
        self.phase = Phase::Extent;
        Ok(())
    }

    /// Passes over an extent if it is copied from the base as a whole. Returns whether it was.
    fn as_in_base(&mut self, part: &mut Part<'_>) -> Result<bool, Error> {
        let Part::Base(at, len) = part else { return Ok(false) };
        if !self.gathered.is_empty() || self.uuid != self.shape.header.uuid {
            return Ok(false);
        }
        let extent = self.shape.extent_at(*at).map(|n| (n, self.shape.extent_len(n)));
        let Some((n, whole)) = extent.filter(|(_, whole)| *whole <= *len as u64) else { return Ok(false) };
        for cluster in self.shape.slots.of(n) {
            self.see(cluster)?;
        }
        part.take(whole as usize);
        Ok(true)
    }

    fn see(&mut self, cluster: &Cluster) -> Result<(), Error> {
        match self.seen.set(cluster.device, cluster.number) {
            Some(true) => {
                self.left -= 1;
                Ok(())
            }
            _ => Err(Error::unfit(
                "the last differential has a cluster that the disks do not have, or has one twice",
            )),
        }
    }

    fn extent(&mut self, part: &mut Part<'_>, found: &mut Found) -> Result<(), Error> {
        if !self.gather(part, EXTENT_HEADER)? {
            return Ok(());
        }
        let odd = || Error::unfit("the last differential is not of a whole VM with the same disks");
        let bytes = self.gathered.first_chunk().ok_or_else(odd)?;
        let header = ExtentHeader::parse(bytes).map_err(|_| odd())?;
        if header.uuid != self.uuid {
            return Err(odd());
        }
        self.gathered.clear();
        self.clusters = header.clusters().collect::<Vec<_>>().into_iter();
        self.next_cluster(found)
    }

    /// Begins the next cluster that has data. Clusters of zeros, which have none, are noted on the way.
    fn next_cluster(&mut self, found: &mut Found) -> Result<(), Error> {
        self.phase = Phase::Data;
        loop {
            let Some(cluster) = self.clusters.next() else {
                self.phase = Phase::Extent;
                return Ok(());
            };
            self.see(&cluster)?;
            let dirty = self.dirty.of(&cluster) == u16::MAX;
            let current = Current { cluster, left: cluster.data_len(), dirty, pieces: Vec::new() };
            if current.left > 0 {
                self.current = Some(current);
                return Ok(());
            }
            self.note(current, found);
        }
    }

    fn data(&mut self, part: &mut Part<'_>, found: &mut Found) -> Result<(), Error> {
        let Some(current) = &mut self.current else { return Err(Error::Internal("no cluster")) };
        let part = part.take(part.len().min(current.left));
        current.left -= part.len();
        if !current.dirty {
            let from = match part {
                Part::New(bytes) => {
                    let from = self.kept | NEW;
                    found.new.extend(bytes);
                    self.kept += bytes.len() as u64;
                    from
                }
                Part::Base(at, _) => at,
            };
            let len = part.len() as u32;
            match current.pieces.last_mut() {
                Some(last) if last.from + u64::from(last.len) == from => last.len += len,
                _ => current.pieces.push(Piece { from, len }),
            }
        }
        if current.left == 0
            && let Some(current) = self.current.take()
        {
            self.note(current, found);
            self.next_cluster(found)?;
        }
        Ok(())
    }

    /// Notes a cluster, unless its content is the same as in the base.
    fn note(&mut self, current: Current, found: &mut Found) {
        let Current { cluster, pieces, dirty, .. } = current;
        let place = self.shape.place(cluster.device, cluster.number);
        let same = place.is_some_and(|(at, mask)| {
            mask == cluster.mask
                && match pieces[..] {
                    [] => mask == 0,
                    [Piece { from, len }] => from == at && len as usize == cluster.data_len(),
                    _ => false,
                }
        });
        if !dirty && !same {
            found.clusters.push((cluster, pieces));
        }
    }
}
