//! Going through a differential, cluster by cluster.

use std::io::Read;

use super::dirty::Dirty;
use super::parts::{Part, Parts};
use super::piece::{From, Piece};
use super::shape::{Bits, Shape};
use crate::container::ReadAt;
use crate::matching::Error;
use crate::vcdiff::{Item, Reader};
use crate::vma::{Cluster, EXTENT_HEADER, ExtentHeader, Header, Uuid};

/// What was found in a window.
#[derive(Default)]
pub(super) struct Found {
    /// The clusters that end in this window and differ from those of the base.
    pub clusters: Vec<(Cluster, Vec<Piece>)>,
    /// The new bytes that are taken over.
    pub new: Vec<u8>,
}

/// Goes through a differential, window by window.
pub(super) struct Walk<'a, R> {
    delta: Reader<R>,
    parts: Parts,
    target: Target<'a>,
    ended: bool,
}

impl<'a, R: Read> Walk<'a, R> {
    /// Begins at the start of a differential.
    pub fn new(delta: Reader<R>, shape: &'a Shape, base: &'a dyn ReadAt, dirty: &'a Dirty) -> Walk<'a, R> {
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

    /// The number of new bytes so far that are taken over.
    pub fn kept(&self) -> u64 {
        self.target.kept
    }

    /// Reads the next window. The result is `None` at the end, if all clusters have been seen.
    ///
    /// # Errors
    /// Fails where the differential cannot be read, is damaged, or is not of a VM with the disks of the base.
    pub fn window(&mut self) -> Result<Option<Found>, Error> {
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
                    found.new.extend(bytes);
                    From::New(self.kept)
                }
                Part::Base(at, _) => From::Base(at),
            };
            let len = part.len() as u32;
            if let From::New(_) = from {
                self.kept += u64::from(len);
            }
            let piece = Piece::new(from, len);
            if !current.pieces.last_mut().is_some_and(|last| last.join(piece)) {
                current.pieces.push(piece);
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
                    [piece] => piece == Piece::new(From::Base(at), cluster.data_len() as u32),
                    _ => false,
                }
        });
        if !dirty && !same {
            found.clusters.push((cluster, pieces));
        }
    }
}
