//! Unpacking what is left of a damaged archive.
//!
//! [`salvage`] takes the archive in pieces. `Feed` hands them out by length, and knows where bytes are missing. Where it is no
//! longer known where an extent begins, it searches for the next one: its magic number, the archive's UUID, and an MD5 sum that is
//! right. So a disk within the archive that holds archives itself is not taken for it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::extract::{Image, create, failed, select};
use super::ranges::Ranges;
use super::{
    BLOCK, CLUSTER, Cluster, Defect, Device, EXTENT_HEADER, EXTENT_UUID, Error, ExtentHeader, Header, Made,
    Uuid,
};
use crate::container::salvage::Piece;
use crate::text::shown;

/// The most places that clusters may lie in, for each archive. They take less than 100 MB of memory.
const MAX_RANGES: usize = 1 << 20;
/// How many clusters of the guest's memory may be missing at one place: 1 TiB.
const MAX_SKIPPED: u64 = 1 << 24;
/// The most reasons that are kept.
const MAX_REASONS: usize = 32;

/// What was salvaged.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// The configuration files that were written. They are whole.
    pub configs: Vec<PathBuf>,
    /// The disks.
    pub disks: Vec<SalvagedDisk>,
    /// What is wrong with the archive, in the order of its bytes; only the first of many.
    pub reasons: Vec<String>,
    /// Clusters that cannot belong to any disk, although an extent has them.
    pub strange: u64,
}

/// What was salvaged of a disk.
#[derive(Debug)]
pub struct SalvagedDisk {
    /// Its name in the archive.
    pub name: String,
    /// The image.
    pub file: PathBuf,
    /// Length of the image in bytes.
    pub size: u64,
    /// The bytes that are lost; they are zeros in the image. The end of the last range is unknown where it is the largest number.
    pub lost: Vec<Range<u64>>,
    /// The bytes that are in the image, but for which no checksum vouches any more.
    pub doubtful: Vec<Range<u64>>,
}

impl SalvagedDisk {
    /// Whether all of it is there and proved.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.doubtful.is_empty()
    }
}

impl Salvaged {
    /// Whether nothing is lost or in doubt.
    pub fn is_whole(&self) -> bool {
        self.strange == 0 && self.reasons.is_empty() && self.disks.iter().all(SalvagedDisk::is_whole)
    }
}

/// Unpacks what can be read of an archive into the new directory `dir`, as [`super::extract`] does. Where a disk is not whole,
/// its image is `disk-NAME.incomplete.raw`. If `only` names disks, others are left out.
///
/// # Errors
/// Fails where the archive's header is lost, a file cannot be written, and where clusters are scattered too far. Nothing is left
/// then.
pub fn salvage(
    pieces: impl Iterator<Item = io::Result<Piece>>,
    dir: &Path,
    only: Option<&[String]>,
    made: &Made,
) -> Result<Salvaged, Error> {
    made.all_or_nothing(|| {
        let mut feed =
            Feed { pieces, parts: VecDeque::new(), offset: 0, reasons: Vec::new(), doubted: false };
        let header = feed.header()?;
        let wanted = select(&header, only)?;
        made.directory(dir).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { path: shown(dir) },
            _ => failed(dir, e),
        })?;
        let mut salvaged = Salvaged::default();
        for config in &header.configs {
            let path = dir.join(&config.name);
            io::Write::write_all(&mut create(made, &path)?, &config.data).map_err(|e| failed(&path, e))?;
            salvaged.configs.push(path);
        }
        let mut disks = BTreeMap::new();
        for (id, device) in wanted {
            disks.insert(id, Disk::create(made, dir, device)?);
        }
        let synchronised = walk(&mut feed, &header, &mut disks, &mut salvaged.strange)?;
        if !synchronised && feed.reasons.is_empty() {
            feed.because("the archive is damaged, or ends in the middle of an extent");
        }
        let cut = !feed.reasons.is_empty();
        for disk in disks.into_values() {
            salvaged.disks.push(disk.finish(made, cut, feed.doubted)?);
        }
        salvaged.reasons = feed.reasons;
        Ok(salvaged)
    })
}

/// Reads all extents. The result is whether each began where the one before ended.
fn walk(
    feed: &mut Feed<impl Iterator<Item = io::Result<Piece>>>,
    header: &Header,
    disks: &mut BTreeMap<u8, Disk>,
    strange: &mut u64,
) -> Result<bool, Error> {
    let (mut synchronised, mut lost) = (true, false);
    let mut bytes = Vec::new();
    'extents: loop {
        if lost {
            synchronised = false;
            if !feed.find(&header.uuid)? {
                return Ok(false);
            }
        }
        lost = true;
        let offset = feed.offset;
        let head = match feed.take(EXTENT_HEADER, &mut bytes)? {
            Taken::Whole { .. } => ExtentHeader::parse(bytes.as_slice().try_into().expect("its length"))
                .and_then(
                    |head| if head.uuid == header.uuid { Ok(head) } else { Err(Defect::ForeignExtent) },
                ),
            Taken::Holed | Taken::Broken => continue,
            Taken::End { got: 0 } => return Ok(synchronised),
            Taken::End { .. } => return Ok(false),
        };
        let head = match head {
            Ok(head) => head,
            Err(defect) => {
                feed.because(&Error::Format { offset, defect }.to_string());
                feed.put_back(std::mem::take(&mut bytes));
                continue;
            }
        };
        for cluster in head.clusters() {
            match feed.take(cluster.data_len(), &mut bytes)? {
                Taken::Whole { proved } => {
                    let device = header.devices.iter().find(|d| d.id == cluster.device);
                    if !device.is_some_and(|device| fits(device, cluster)) {
                        *strange += 1;
                    } else if let Some(disk) = disks.get_mut(&cluster.device)
                        && !disk.store(cluster, &bytes, proved)?
                    {
                        *strange += 1;
                    }
                }
                Taken::Holed => {}
                Taken::Broken => continue 'extents,
                Taken::End { .. } => return Ok(false),
            }
            if disks.values().map(|disk| disk.there.len() + disk.doubtful.len()).sum::<usize>() > MAX_RANGES {
                let defect = Defect::Fragmented(MAX_RANGES);
                return Err(Error::Format { offset, defect });
            }
        }
        lost = false;
    }
}

/// Whether a device has this cluster, and all blocks of it that are stored.
fn fits(device: &Device, cluster: Cluster) -> bool {
    let start = u64::from(cluster.number) * CLUSTER as u64;
    let blocks = device.size.saturating_sub(start).div_ceil(BLOCK as u64);
    device.is_vmstate() || start < device.size && (blocks >= 16 || cluster.mask >> blocks == 0)
}

/// A disk that is being salvaged.
struct Disk {
    name: String,
    image: Image,
    there: Ranges,
    /// Those of them for which no checksum vouches, or which came twice.
    doubtful: Ranges,
}

impl Disk {
    fn create(made: &Made, dir: &Path, device: &Device) -> Result<Self, Error> {
        let image = Image::create(made, dir, device)?;
        Ok(Disk { name: device.name.clone(), image, there: Ranges::default(), doubtful: Ranges::default() })
    }

    /// Takes a cluster. The result is `false` where it cannot be one of this disk.
    fn store(&mut self, cluster: Cluster, data: &[u8], proved: bool) -> Result<bool, Error> {
        let n = u64::from(cluster.number);
        if self.image.grows && !(self.there.end()..=self.there.end() + MAX_SKIPPED).contains(&n) {
            return Ok(false);
        }
        if !self.there.insert(n) {
            self.doubtful.insert(n);
            return Ok(true);
        }
        if !proved {
            self.doubtful.insert(n);
        }
        self.image.store(cluster, data).map(|()| true)
    }

    /// `cut`: something is missing in the archive. `doubted`: all of it is in doubt.
    fn finish(mut self, made: &Made, cut: bool, doubted: bool) -> Result<SalvagedDisk, Error> {
        let size = self.image.size;
        let bytes = |range: Range<u64>| {
            let at = |cluster: u64| cluster.saturating_mul(CLUSTER as u64).min(size);
            at(range.start)..at(range.end)
        };
        let mut lost: Vec<_> =
            self.there.missing(size.div_ceil(CLUSTER as u64)).into_iter().map(bytes).collect();
        if self.image.grows && cut {
            // Nobody knows how long the guest's memory was.
            lost.push(size..u64::MAX);
        }
        let doubtful: Vec<_> = if doubted {
            self.there.iter().map(bytes).collect()
        } else {
            self.doubtful.iter().map(bytes).collect()
        };
        if !(lost.is_empty() && doubtful.is_empty()) {
            self.image.path.set_extension(if self.image.grows { "incomplete.bin" } else { "incomplete.raw" });
        }
        let file = self.image.finish(made)?;
        Ok(SalvagedDisk { name: self.name, file, size, lost, doubtful })
    }
}

/// A part of the archive that was not used yet.
enum Part {
    Bytes { bytes: Vec<u8>, at: usize, proved: bool },
    Missing(u64),
    Break,
}

/// What [`Feed::take`] found.
enum Taken {
    /// All bytes.
    Whole { proved: bool },
    /// Some are missing, but it is known where the next ones belong.
    Holed,
    /// Nobody knows how many are missing.
    Broken,
    /// The archive ends after so many bytes.
    End { got: usize },
}

/// Hands out an archive by lengths.
struct Feed<P> {
    pieces: P,
    parts: VecDeque<Part>,
    /// Bytes that were handed out, or are missing for certain.
    offset: u64,
    reasons: Vec<String>,
    doubted: bool,
}

impl<P: Iterator<Item = io::Result<Piece>>> Feed<P> {
    fn because(&mut self, why: &str) {
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(why.to_owned());
        }
    }

    /// Makes sure that there is a part. The result is `false` at the end.
    fn more(&mut self) -> Result<bool, Error> {
        while self.parts.is_empty() {
            match self.pieces.next() {
                None => return Ok(false),
                Some(Err(source)) => return Err(Error::Read { offset: self.offset, source }),
                Some(Ok(Piece::Bytes { bytes, proved })) => {
                    self.parts.push_back(Part::Bytes { bytes, at: 0, proved });
                }
                Some(Ok(Piece::Gap { len, why })) => {
                    self.because(&why);
                    self.parts.push_back(len.map_or(Part::Break, Part::Missing));
                }
                Some(Ok(Piece::Doubt { why })) => {
                    self.because(&why);
                    self.doubted = true;
                }
            }
        }
        Ok(true)
    }

    /// Takes `len` bytes. `out` holds them where they are whole.
    fn take(&mut self, len: usize, out: &mut Vec<u8>) -> Result<Taken, Error> {
        out.clear();
        let (mut got, mut all, mut holed) = (0, true, false);
        while got < len {
            if !self.more()? {
                return Ok(Taken::End { got });
            }
            let used = match self.parts.front_mut() {
                Some(Part::Bytes { bytes, at, proved }) => {
                    let n = (bytes.len() - *at).min(len - got);
                    out.extend_from_slice(&bytes[*at..*at + n]);
                    all &= *proved;
                    *at += n;
                    if *at == bytes.len() {
                        self.parts.pop_front();
                    }
                    n
                }
                Some(Part::Missing(missing)) => {
                    let n = (*missing).min((len - got) as u64) as usize;
                    holed |= n > 0;
                    *missing -= n as u64;
                    if *missing == 0 {
                        self.parts.pop_front();
                    }
                    n
                }
                Some(Part::Break) | None => {
                    self.parts.pop_front();
                    return Ok(Taken::Broken);
                }
            };
            got += used;
            self.offset += used as u64;
        }
        Ok(if holed { Taken::Holed } else { Taken::Whole { proved: all } })
    }

    /// Puts the bytes of what is no extent header back to the front. Of these, only the header of another extent can be of use, and
    /// that has a checksum of its own.
    fn put_back(&mut self, bytes: Vec<u8>) {
        self.offset -= bytes.len() as u64;
        self.parts.push_front(Part::Bytes { bytes, at: 0, proved: true });
    }

    /// Reads the archive's header.
    fn header(&mut self) -> Result<Header, Error> {
        let format = |defect| Error::Format { offset: 0, defect };
        let mut bytes = Vec::new();
        let mut rest = Vec::new();
        if !matches!(self.take(Header::PREFIX, &mut bytes)?, Taken::Whole { .. }) {
            return Err(self.no_header());
        }
        let length = Header::measure(&bytes).map_err(format)?.unwrap_or_default();
        if !matches!(self.take(length.saturating_sub(bytes.len()), &mut rest)?, Taken::Whole { .. }) {
            return Err(self.no_header());
        }
        bytes.append(&mut rest);
        Header::parse(&bytes).map_err(format)
    }

    fn no_header(&self) -> Error {
        Error::HeaderLost {
            why: self.reasons.first().cloned().unwrap_or_else(|| "the file is cut short".into()),
        }
    }

    /// Goes on to the next extent of the archive with this UUID. The result is whether there is one.
    fn find(&mut self, uuid: &Uuid) -> Result<bool, Error> {
        let (mut window, mut proved) = (Vec::<u8>::new(), true);
        while self.more()? {
            match self.parts.pop_front() {
                Some(Part::Bytes { bytes, at, proved: all }) => {
                    self.offset += (bytes.len() - at) as u64;
                    if window.is_empty() {
                        proved = all;
                    }
                    proved &= all;
                    window.extend_from_slice(&bytes[at..]);
                }
                Some(Part::Missing(missing)) => {
                    self.offset += missing;
                    window.clear();
                }
                Some(Part::Break) | None => window.clear(),
            }
            let mut keep = window.len().saturating_sub(3);
            for at in memchr::memmem::find_iter(&window, b"VMAE") {
                let Some(head) = window[at..].first_chunk::<EXTENT_HEADER>() else {
                    keep = at;
                    break;
                };
                if head[EXTENT_UUID] == *uuid && ExtentHeader::parse(head).is_ok() {
                    self.offset -= (window.len() - at) as u64;
                    self.parts.push_front(Part::Bytes { bytes: window, at, proved });
                    return Ok(true);
                }
            }
            window.drain(..keep.min(window.len()));
        }
        Ok(false)
    }
}
