//! Makes a differential from what QEMU's dirty bitmaps mark. Nothing else of the disks is read, and none of the base's
//! data.
//!
//! The new archive has the base's layout and UUID. The dirty blocks of a cluster come from the disk. The other blocks
//! come from the last differential if they differ there from the base, and else from the base. A dirty block that is
//! equal to the base's, by the fingerprint in the base's map, is copied from the base. An extent in which nothing
//! differs is a single copy, with its header; every other extent gets a new header. The archive's header holds the
//! guest's configuration: if that grows, all extents move.
//!
//! The data that is copied is never seen here. So windows have no checksums, and the end record holds a hash of the
//! differential itself (version 2, see `vcdiff/end.rs`). When it is restored, the checksums of the base's frames prove
//! what was copied.
//!
//! If anything is not certain, the result is [`Error::Unfit`]: then everything must be read.

mod carried;
mod dirty;
mod shape;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, bounded};

use self::carried::{Again, Carried, From, Piece};
use self::dirty::{Dirty, ranges};
use self::shape::Shape;
use super::base::{Access, Base};
use super::chunker::SEGMENT;
use super::differential::matcher::Instruction;
use super::differential::records;
use super::fingerprint::Fingerprint;
use super::map::{Entry, MapReader};
use super::{BaseProblem, Error};
use crate::container::seekable::ReadOptions;
use crate::container::source::Pass;
use crate::container::{self, Encoder, Kind};
use crate::nbd::{self, Client};
use crate::vcdiff::{
    AppHeader, DeltaHasher, EndRecord, Limits, MAX_SEGMENT, Reader, WindowBuilder, write_header,
};
use crate::vma::{BLOCK, BLOCKS_PER_CLUSTER, CLUSTER, Cluster, Config, EXTENT_HEADER, ExtentHeader, Header};

/// The number of ranges of a disk that are read ahead.
const AHEAD: usize = 16;

/// A disk of the guest, as QEMU exports it.
pub struct Disk {
    name: String,
    client: Client,
    dirty: Vec<Range<u64>>,
}

impl Disk {
    /// Connects to a disk's export, and asks which ranges are dirty.
    ///
    /// # Errors
    /// Fails with [`Error::Disk`].
    pub fn new(name: &str, connect: impl FnOnce() -> Result<Client, nbd::Error>) -> Result<Disk, Error> {
        let failed = |source| Error::Disk { name: name.to_owned(), source };
        let mut client = connect().map_err(failed)?;
        let dirty = client.dirty().map_err(failed)?;
        Ok(Disk { name: name.to_owned(), client, dirty })
    }
}

/// How much had to be read of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOf {
    /// The name of the disk.
    pub name: String,
    /// The number of bytes that were read.
    pub read: u64,
    /// The size of the disk in bytes.
    pub size: u64,
}

/// The figures of a differential that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The length of the archive in bytes.
    pub total: u64,
    /// The number of bytes of the archive that the differential itself holds.
    pub new: u64,
    /// How much was read of each disk.
    pub disks: Vec<ReadOf>,
}

/// The last differential against the same base.
pub struct Previous {
    path: PathBuf,
    file: File,
}

impl Previous {
    /// Takes the open file of the last differential. The path is for messages.
    pub fn new(path: &Path, file: File) -> Previous {
        Previous { path: path.to_owned(), file }
    }

    /// Opens the differential from its start. It must have been made against this base, and must have checksums that
    /// show any damage.
    fn open(&self, base: &AppHeader) -> Result<Reader<Box<dyn Read + Send>>, Error> {
        let cannot =
            |source| Error::Io { what: format!("cannot read {}", crate::text::shown(&self.path)), source };
        let mut prefix = [0; 32];
        let mut pass = Pass::from_start(&self.file).map_err(cannot)?;
        let n = container::read_full(&mut pass, &mut prefix).map_err(cannot)?;
        let from_start = Pass::from_start(&self.file).map_err(cannot)?;
        let (kind, stream) = container::decoder(Box::new(from_start)).map_err(cannot)?;
        let reader = Reader::new(stream, Limits::default())?;
        let header = AppHeader::parse(reader.header().app_header.as_deref().unwrap_or_default());
        if header.base_identity != base.base_identity || header.base_form != base.base_form {
            return Err(Error::unfit("the last differential was not made against this full backup"));
        }
        if !header.end_record {
            return Err(Error::unfit("the last differential has no end record"));
        }
        // The hash of the whole target cannot be checked here, as the target is not produced.
        let checked = has_checksums(kind, &prefix[..n]);
        if !header.end_of_delta && !checked {
            return Err(Error::unfit("the last differential has no checksum of its own"));
        }
        Ok(reader)
    }
}

/// Tells whether a compressed file that begins with `front` holds checksums of its content, for formats that leave a
/// choice.
fn has_checksums(kind: Kind, front: &[u8]) -> bool {
    match kind {
        Kind::Raw | Kind::Lzw => false,
        Kind::Gzip | Kind::Bzip2 => true,
        // RFC 8878, section 3.1.1.1.1: this is bit 2 of the frame header's descriptor.
        Kind::Zstd => front.get(4).is_some_and(|descriptor| descriptor & 4 != 0),
        // The stream's flags tell the kind of check, where 0 is none.
        Kind::Xz => front.get(7).is_some_and(|flags| flags & 15 != 0),
        // The header's flags tell whether each block has an Adler-32 or CRC-32. They are there since lzop 0.94.
        Kind::Lzop => {
            front.get(9).is_some_and(|version| *version >= 9)
                && front.get(17..21).is_some_and(|flags| flags[3] & 3 != 0 || flags[2] & 3 != 0)
        }
    }
}

/// All that is known before the first byte of the differential is written.
pub struct Prepared {
    path: PathBuf,
    /// The application header of the differential, which describes the base.
    app: AppHeader,
    identity: [u8; 16],
    map: MapReader,
    shape: Shape,
    dirty: Dirty,
    carried: Carried,
    previous: Option<Previous>,
    disks: Vec<Disk>,
}

/// Reads what must be known of the base, the disks and the last differential.
///
/// # Errors
/// Fails with [`Error::Unfit`] where they do not belong together, and where one of them cannot be read.
pub fn prepare(base: Base, disks: Vec<Disk>, previous: Option<Previous>) -> Result<Prepared, Error> {
    let mut app = AppHeader { end_record: true, end_of_delta: true, ..AppHeader::default() };
    base.describe(&mut app);
    let Base { path, identity, access, .. } = base;
    let Access::Mapped(map) = access else {
        return Err(Error::unfit("the full backup has no map"));
    };
    let map = map.reader(ReadOptions::default());
    let named: Vec<_> = disks.iter().map(|disk| (disk.name.as_str(), disk.client.size())).collect();
    let shape = Shape::of(&map, &path, &named)?.map_err(Error::Unfit)?;
    let mut dirty = Dirty::new();
    for device in &shape.header.devices {
        let disk =
            disks.iter().find(|disk| disk.name == device.name).ok_or(Error::Internal("a disk is missing"))?;
        dirty.add(device, &disk.dirty).ok_or_else(|| {
            Error::unfit(format!(
                "the bitmap of the disk {} does not go by blocks of {BLOCK} bytes",
                disk.name
            ))
        })?;
    }
    let carried = match &previous {
        Some(previous) => Carried::read(previous.open(&app)?, &shape, map.content(), &dirty)?,
        None => Carried::none(&shape),
    };
    Ok(Prepared { path, app, identity, map, shape, dirty, carried, previous, disks })
}

impl Prepared {
    /// Writes the differential to `out`, which compresses it. `proof` is called before the end is written, and can
    /// refuse it.
    ///
    /// # Errors
    /// Fails where the disks, the last differential or the base's map cannot be read, where the output cannot be
    /// written, and where `proof` fails. The output then has no end record, which shows that it is incomplete.
    pub fn write(
        self,
        configs: Vec<Config>,
        ctime: i64,
        out: Box<dyn Encoder>,
        proof: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let header = Header { configs, ctime, ..self.shape.header.clone() };
        let header = header.encode().map_err(|defect| Error::Io {
            what: "the guest's configuration does not fit into an archive".into(),
            source: std::io::Error::other(defect.to_string()),
        })?;

        let mut out = Output::new(out);
        out.bytes = write_header(Some(&self.app.encode()), None);
        out.add(&header)?;
        let (feeds, disks) = feeds(self.disks, &self.shape, &self.dirty)?;
        let again = match &self.previous {
            Some(previous) => {
                Some(Again::new(previous.open(&self.app)?, &self.shape, self.map.content(), &self.dirty))
            }
            None => None,
        };
        let mut work = Work {
            path: &self.path,
            map: &self.map,
            shape: &self.shape,
            dirty: &self.dirty,
            carried: &self.carried,
            again,
            feeds,
            data: Vec::new(),
        };
        for n in 0..self.shape.slots.count() {
            work.extent(n, &mut out)?;
        }
        // Only the end of the last differential proves that what was read of it is right.
        if let Some(again) = &mut work.again {
            again.end()?;
        }
        proof()?;
        let (total, new) = (out.total, out.new);
        out.finish(self.identity)?;
        Ok(Summary { total, new, disks })
    }
}

/// The channels with the dirty ranges of each disk, by device. They are read in the order of the base's extents.
type Feeds = Vec<Option<Receiver<Result<Vec<u8>, Error>>>>;

fn feeds(disks: Vec<Disk>, shape: &Shape, dirty: &Dirty) -> Result<(Feeds, Vec<ReadOf>), Error> {
    let mut wanted: Vec<Vec<(u32, u16)>> = vec![Vec::new(); 256];
    for slot in &shape.slots.slots {
        let mask = dirty.of(slot);
        if mask != 0 {
            wanted[usize::from(slot.device)].push((slot.number, mask));
        }
    }
    let (mut feeds, mut read): (Feeds, _) = ((0..256).map(|_| None).collect(), Vec::new());
    for Disk { name, client, .. } in disks {
        let device = shape.header.devices.iter().find(|device| device.name == name);
        let id = usize::from(device.ok_or(Error::Internal("a disk is missing"))?.id);
        let (wanted, size) = (std::mem::take(&mut wanted[id]), client.size());
        let all = wanted.iter().flat_map(|&(number, mask)| ranges(number, mask, size));
        read.push(ReadOf { name: name.clone(), read: all.map(|range| range.end - range.start).sum(), size });
        let (send, receive) = bounded(AHEAD);
        std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || {
                let wanted = wanted.into_iter().flat_map(|(number, mask)| ranges(number, mask, size));
                for data in client.reads(wanted) {
                    let data = data.map_err(|source| Error::Disk { name: name.clone(), source });
                    // The receiver is gone only if something else has failed.
                    if send.send(data).is_err() {
                        break;
                    }
                }
            })
            .map_err(|source| Error::Io { what: "cannot start a thread".into(), source })?;
        feeds[id] = Some(receive);
    }
    Ok((feeds, read))
}

/// Where some bytes of an extent come from.
#[derive(Clone, Copy)]
enum Now {
    /// The bytes are in the base: position and length.
    Base(u64, u64),
    /// The bytes were read from a disk: their start and end in `Work::data`.
    Disk(usize, usize),
    /// The bytes are new bytes of the last differential: the number of the first one, and the length.
    Carried(u64, u32),
}

struct Work<'a> {
    path: &'a Path,
    map: &'a MapReader,
    shape: &'a Shape,
    dirty: &'a Dirty,
    carried: &'a Carried,
    again: Option<Again<'a, Box<dyn Read + Send>>>,
    feeds: Feeds,
    /// The clusters of this extent that are dirty. Only their dirty blocks are filled in.
    data: Vec<u8>,
}

impl Work<'_> {
    fn extent(&mut self, n: usize, out: &mut Output) -> Result<(), Error> {
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
        match clusters[..] == *slots {
            true => out.copy(at, EXTENT_HEADER as u64)?,
            false => out.add(&ExtentHeader::new(self.shape.header.uuid, &clusters).encode())?,
        }
        for now in all {
            match now {
                Now::Base(at, len) => out.copy(at, len)?,
                Now::Disk(from, to) => out.add(&self.data[from..to])?,
                Now::Carried(start, len) => self.carry(start, len, Some(out))?,
            }
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

        let start = self.read(slot, dirty)?;
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
            let from = start + block * BLOCK;
            let data = &self.data[from..from + BLOCK];
            if data.iter().all(|byte| *byte == 0) {
                continue;
            }
            mask |= bit;
            let same = match base {
                None => false,
                Some(at) => {
                    let prints = match &mut prints {
                        Some(prints) => prints,
                        none => none.insert(self.prints(place, slot)?),
                    };
                    let n = (at - place) as usize / BLOCK;
                    prints.get(n).is_some_and(|print| *print == self.map.secret().fingerprint(data))
                }
            };
            all.push(match (base, same) {
                (Some(at), true) => Now::Base(at, BLOCK as u64),
                _ => Now::Disk(from, from + BLOCK),
            });
        }
        Ok(mask)
    }

    /// Reads the dirty blocks of a cluster. Returns the position in `data` at which the cluster begins.
    fn read(&mut self, slot: &Cluster, dirty: u16) -> Result<usize, Error> {
        let start = self.data.len();
        self.data.resize(start + CLUSTER, 0);
        let size = self.shape.header.device(slot.device).map_or(0, |device| device.size);
        let feed =
            self.feeds[usize::from(slot.device)].as_ref().ok_or(Error::Internal("a disk is missing"))?;
        for range in ranges(slot.number, dirty, size) {
            let data = feed.recv().map_err(|_| Error::Internal("a disk's thread ended unexpectedly"))??;
            let from = start + (range.start % CLUSTER as u64) as usize;
            self.data[from..from + data.len()].copy_from_slice(&data);
        }
        Ok(start)
    }

    /// Finds the fingerprints of a cluster's stored blocks in the base's map.
    fn prints(&self, place: u64, slot: &Cluster) -> Result<Vec<Fingerprint>, Error> {
        let segments = &self.shape.slots.segments;
        let n = segments.partition_point(|start| *start <= place).saturating_sub(1);
        let chunk = self.map.get(n as u32)?;
        let at = place - segments[n];
        let first = chunk.entries.partition_point(|entry| u64::from(entry.at) < at);
        let entries = chunk.entries[first..].iter().take(slot.mask.count_ones() as usize).enumerate();
        let fit = |(n, entry): (usize, &Entry)| {
            let there = u64::from(entry.at) == at + (n * BLOCK) as u64 && entry.len as usize == BLOCK;
            there.then_some(entry.fingerprint)
        };
        let prints: Option<Vec<_>> = entries.map(fit).collect();
        prints
            .filter(|p| chunk.start == segments[n] && p.len() == slot.mask.count_ones() as usize)
            .ok_or_else(|| {
                let found = "its map does not fit its list of clusters";
                Error::base(self.path, BaseProblem::Damaged(found.into()))
            })
    }

    /// Writes new bytes of the last differential, or passes over them if there is no `out`.
    fn carry(&mut self, start: u64, len: u32, mut out: Option<&mut Output>) -> Result<(), Error> {
        let again = self.again.as_mut().ok_or(Error::Internal("there is no last differential"))?;
        let mut written = Ok(());
        let take = |bytes: &[u8]| {
            if let (Some(out), Ok(())) = (&mut out, &written) {
                written = out.add(bytes);
            }
        };
        again.take(start, len, take)?;
        written
    }
}

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

/// Writes the windows of the differential.
struct Output {
    encoder: Box<dyn Encoder>,
    window: WindowBuilder,
    /// New bytes that are not in the window yet: repeated records are looked for in all those that follow one another.
    pending: Vec<u8>,
    bytes: Vec<u8>,
    hash: DeltaHasher,
    total: u64,
    new: u64,
}

impl Output {
    fn new(encoder: Box<dyn Encoder>) -> Output {
        Output {
            encoder,
            window: WindowBuilder::new(),
            pending: Vec::new(),
            bytes: Vec::new(),
            hash: DeltaHasher::default(),
            total: 0,
            new: 0,
        }
    }

    fn room(&self) -> usize {
        SEGMENT - self.window.target_len() - self.pending.len()
    }

    fn add(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.room() == 0 {
                self.end_window()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            self.pending.extend(now);
            (self.total, self.new) = (self.total + now.len() as u64, self.new + now.len() as u64);
            bytes = later;
        }
        Ok(())
    }

    fn copy(&mut self, mut at: u64, mut len: u64) -> Result<(), Error> {
        self.flush();
        while len > 0 {
            let now = len.min(self.room() as u64);
            if now == 0 || self.window.span_with(at, now) > MAX_SEGMENT {
                self.end_window()?;
                continue;
            }
            self.window.copy_source(at, now as usize);
            self.total += now;
            at += now;
            len -= now;
        }
        Ok(())
    }

    /// Puts the pending new bytes into the window.
    fn flush(&mut self) {
        let begun = self.window.target_len();
        let (pending, window) = (&self.pending, &mut self.window);
        records::split(pending, |part| match part {
            Instruction::Literal { at, len } => window.add(&pending[at..at + len]),
            Instruction::Copy { from, len, .. } => window.copy_target(begun + from, len),
        });
        self.pending.clear();
    }

    fn end_window(&mut self) -> Result<(), Error> {
        self.flush();
        if !self.window.is_empty() {
            self.window.finish(None, &mut self.bytes);
        }
        self.put()
    }

    fn put(&mut self) -> Result<(), Error> {
        self.hash.update(&self.bytes);
        self.encoder.write_all(&self.bytes).map_err(cannot)?;
        self.bytes.clear();
        Ok(())
    }

    fn finish(mut self, base: [u8; 16]) -> Result<(), Error> {
        self.end_window()?;
        let end = EndRecord { total_len: self.total, hash: self.hash.finish(), base: Some(base) };
        self.encoder.write_all(&end.encode()).map_err(cannot)?;
        self.encoder.finish().map_err(cannot)
    }
}

fn cannot(source: std::io::Error) -> Error {
    Error::Io { what: "cannot write the differential".into(), source }
}
