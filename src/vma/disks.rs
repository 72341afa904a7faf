//! The disks of an archive whose content can be read at any position.

use std::io;
use std::sync::Arc;

use super::{BLOCK, CLUSTER, Cluster, Defect, Device, EXTENT_HEADER, Error, ExtentHeader, Header};
use crate::budget::{Budget, Spent};
use crate::container::{ReadAt, Sparse};
use crate::text::shown;

/// Bits of a place that hold the mask; the rest is the position of the cluster's blocks in the archive.
const MASK_BITS: u32 = 16;
/// The positions from here on leave no room for a mask.
const MAX_AT: u64 = 1 << (64 - MASK_BITS);
/// How many bytes are read at once where extents are short.
const AHEAD: u64 = 64 << 10;
/// The fewest bytes that a cluster takes of an archive: those of its entry in the header of an extent.
const ENTRY: u64 = 8;
/// Clusters that are kept together.
const PART: usize = u64::BITS as usize;
/// An index may take so many bytes of memory, and so many times the length of the files that are read. One of honest files takes
/// a twentieth of that at most: each header of an extent has a checksum, which nothing compresses.
const MOST: u64 = 16 << 20;
const TIMES: u64 = 32;

impl Header {
    /// Reads the header of an archive, and returns it with its length in bytes.
    ///
    /// # Errors
    /// Fails where there is none, or it is damaged.
    pub fn read_at(content: &dyn ReadAt) -> Result<(Header, u64), Error> {
        let read = |len: usize| {
            let mut bytes = vec![0; len];
            if content.size() < len as u64 {
                return Err(Error::Truncated { offset: content.size(), what: "the header" });
            }
            content.read_at(0, &mut bytes).map_err(|source| Error::Read { offset: 0, source })?;
            Ok(bytes)
        };
        let format = |defect| Error::Format { offset: 0, defect };
        let short = || Error::Truncated { offset: content.size(), what: "the header" };
        let len = Header::measure(&read(Header::PREFIX)?).map_err(format)?.ok_or_else(short)?;
        Ok((Header::parse(&read(len)?).map_err(format)?, len as u64))
    }
}

/// Where the clusters of an archive's disks lie. It takes 8 bytes of memory for each cluster with data and its neighbours, and
/// next to nothing for those of zeros.
pub struct Index {
    header: Header,
    /// For each device of the header, its clusters.
    places: Vec<Places>,
    left: u64,
    budget: Budget,
}

/// Where the clusters of a disk lie.
struct Places {
    clusters: usize,
    parts: Vec<Part>,
}

/// Some clusters that follow one another.
#[derive(Clone, Default)]
struct Part {
    /// A bit for each cluster that was seen.
    seen: u64,
    /// The position of each cluster's blocks and the mask, where any of them has blocks.
    places: Option<Box<[u64; PART]>>,
}

impl Places {
    /// Takes the memory for a disk without blocks.
    fn new(clusters: usize, budget: &mut Budget) -> Result<Places, Spent> {
        Ok(Places { clusters, parts: budget.table(Part::default(), clusters.div_ceil(PART))? })
    }

    /// The position of a cluster's blocks, and the mask; 0 for a cluster of zeros.
    fn get(&self, n: usize) -> u64 {
        self.parts[n / PART].places.as_ref().map_or(0, |places| places[n % PART])
    }

    /// Notes a cluster. The result is `false` where it was noted before.
    fn insert(&mut self, n: usize, place: u64, budget: &mut Budget) -> Result<bool, Spent> {
        let part = &mut self.parts[n / PART];
        let bit = 1 << (n % PART);
        if part.seen & bit != 0 {
            return Ok(false);
        }
        part.seen |= bit;
        if place as u16 != 0 {
            let places = match &mut part.places {
                Some(places) => places,
                none => {
                    budget.take(size_of::<[u64; PART]>() as u64)?;
                    none.insert(Box::new([0; PART]))
                }
            };
            places[n % PART] = place;
        }
        Ok(true)
    }

    /// How many clusters were not seen, and the first of them.
    fn missing(&self) -> (usize, Option<usize>) {
        let seen: u32 = self.parts.iter().map(|part| part.seen.count_ones()).sum();
        let first = self.parts.iter().enumerate().find_map(|(n, part)| {
            let at = n * PART + part.seen.trailing_ones() as usize;
            (part.seen != u64::MAX && at < self.clusters).then_some(at)
        });
        (self.clusters - seen as usize, first)
    }
}

impl Index {
    /// Begins an index. The archive has `size` bytes, and is read from files of `stored` bytes.
    ///
    /// # Errors
    /// Fails where the archive cannot hold the disks that its header names, or they ask for too much memory.
    pub fn new(header: Header, size: u64, stored: u64) -> Result<Index, Error> {
        let mut budget = Budget::of(MOST.saturating_add(stored.saturating_mul(TIMES)));
        let (mut places, mut left) = (Vec::new(), 0u64);
        for device in &header.devices {
            let clusters = if device.is_vmstate() { 0 } else { device.clusters() };
            left = left.saturating_add(clusters);
            if left.saturating_mul(ENTRY) > size {
                let defect = Defect::Incomplete {
                    device: device.name.clone(),
                    missing: clusters,
                    total: clusters,
                    first: 0,
                };
                return Err(Error::Format { offset: size, defect });
            }
            places.push(Places::new(clusters as usize, &mut budget).map_err(|spent| too_much(size, spent))?);
        }
        Ok(Index { header, places, left, budget })
    }

    /// The header of the archive.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Notes a cluster whose blocks lie at this position.
    ///
    /// # Errors
    /// Fails where it does not belong to a disk, or was noted before.
    pub fn insert(&mut self, at: u64, cluster: Cluster) -> Result<(), Error> {
        let format = |defect| Error::Format { offset: at, defect };
        let index = self.header.devices.binary_search_by_key(&cluster.device, |device| device.id);
        let index = index.map_err(|_| format(Defect::UnknownDevice(cluster.device)))?;
        let device = &self.header.devices[index];
        if device.is_vmstate() {
            return Ok(());
        }
        let behind = || {
            format(Defect::BehindEnd {
                device: device.name.clone(),
                cluster: cluster.number,
                size: device.size,
            })
        };
        let places = &mut self.places[index];
        if cluster.number as usize >= places.clusters {
            return Err(behind());
        }
        // The last cluster may reach behind the end of the device, but none of its blocks may begin there.
        let blocks = (device.size - u64::from(cluster.number) * CLUSTER as u64).div_ceil(BLOCK as u64);
        if (blocks < 16 && cluster.mask >> blocks != 0) || at >= MAX_AT {
            return Err(behind());
        }
        let place = at << MASK_BITS | u64::from(cluster.mask);
        let is_new = places.insert(cluster.number as usize, place, &mut self.budget);
        if !is_new.map_err(|spent| too_much(at, spent))? {
            let (device, cluster) = (device.name.clone(), cluster.number);
            return Err(format(Defect::Duplicate { device, cluster }));
        }
        self.left -= 1;
        Ok(())
    }

    /// Notes the clusters of all extents, by their headers: the first begins at `at`.
    ///
    /// # Errors
    /// Fails where a header cannot be read or is damaged, or the last extent is cut short.
    pub fn walk(&mut self, content: &dyn ReadAt, mut at: u64) -> Result<(), Error> {
        let size = content.size();
        let (mut ahead, mut ahead_at, mut is_small) = (Vec::new(), at, false);
        while at < size {
            let format = |defect| Error::Format { offset: at, defect };
            if size - at < EXTENT_HEADER as u64 {
                return Err(Error::Truncated { offset: size, what: "an extent header" });
            }
            let within = |ahead: &[u8], ahead_at: u64| {
                ahead.get((at - ahead_at) as usize..).and_then(|rest| rest.first_chunk().copied())
            };
            let bytes: [u8; EXTENT_HEADER] = match within(&ahead, ahead_at) {
                Some(bytes) => bytes,
                None => {
                    // Extents of zeros are headers alone, thousands of them in a row.
                    ahead.resize(if is_small { AHEAD.min(size - at) as usize } else { EXTENT_HEADER }, 0);
                    if content.read_at(at, &mut ahead).is_err() {
                        // What lies behind the header may be damaged.
                        ahead.resize(EXTENT_HEADER, 0);
                        content
                            .read_at(at, &mut ahead)
                            .map_err(|source| Error::Read { offset: at, source })?;
                    }
                    ahead_at = at;
                    within(&ahead, at).unwrap_or([0; EXTENT_HEADER])
                }
            };
            let head = ExtentHeader::parse(&bytes).map_err(format)?;
            is_small = (head.data_len() as u64) < AHEAD / 4;
            if head.uuid != self.header.uuid {
                return Err(format(Defect::ForeignExtent));
            }
            let mut data = at + EXTENT_HEADER as u64;
            for cluster in head.clusters() {
                self.insert(data, cluster)?;
                data += cluster.data_len() as u64;
            }
            if data > size {
                return Err(Error::Truncated { offset: size, what: "an extent" });
            }
            at = data;
        }
        Ok(())
    }

    /// Ends the index.
    ///
    /// # Errors
    /// Fails where a cluster of a disk is missing.
    pub fn finish(self, content: Arc<dyn ReadAt>) -> Result<Vec<Disk>, Error> {
        let Index { header, places, left, .. } = self;
        if left > 0 {
            for (device, places) in header.devices.iter().zip(&places) {
                if let (missing, Some(first)) = places.missing() {
                    let (missing, total, first) = (missing as u64, places.clusters as u64, first as u64);
                    let defect = Defect::Incomplete { device: device.name.clone(), missing, total, first };
                    return Err(Error::Format { offset: content.size(), defect });
                }
            }
        }
        let devices = header.devices.into_iter().zip(places).filter(|(device, _)| !device.is_vmstate());
        Ok(devices.map(|(device, places)| Disk { device, places, content: Arc::clone(&content) }).collect())
    }
}

fn too_much(offset: u64, spent: Spent) -> Error {
    Error::Read { offset, source: spent.into() }
}

/// A disk of an archive, which can be read at any position.
pub struct Disk {
    device: Device,
    places: Places,
    content: Arc<dyn ReadAt>,
}

impl Disk {
    /// The disk's name in the archive.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// The mask of a cluster.
    fn mask(&self, n: usize) -> u16 {
        self.places.get(n) as u16
    }

    /// Calls a function for each stretch of blocks that lie side by side in the archive, or are zeros: the position in the
    /// archive, if it has any, and the range of the buffer.
    fn stretches(
        &self,
        pos: u64,
        len: usize,
        mut each: impl FnMut(Option<u64>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut at, end) = (pos, pos + len as u64);
        let mut last: Option<(Option<u64>, std::ops::Range<usize>)> = None;
        while at < end {
            let place = self.places.get((at / CLUSTER as u64) as usize);
            let (mask, block) = (place as u16, (at % CLUSTER as u64) as usize / BLOCK);
            let within = at % BLOCK as u64;
            let count = (BLOCK as u64 - within).min(end - at);
            let from = (mask >> block & 1 == 1).then(|| {
                let before = (mask & ((1u32 << block) - 1) as u16).count_ones();
                (place >> MASK_BITS) + u64::from(before) * BLOCK as u64 + within
            });
            let range = (at - pos) as usize..(at - pos + count) as usize;
            last = match last {
                Some((None, before)) if from.is_none() => Some((None, before.start..range.end)),
                Some((Some(start), before)) if from == Some(start + before.len() as u64) => {
                    Some((Some(start), before.start..range.end))
                }
                Some((start, before)) => {
                    each(start, before)?;
                    Some((from, range))
                }
                None => Some((from, range)),
            };
            at += count;
        }
        last.map_or(Ok(()), |(start, range)| each(start, range))
    }
}

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.device.size
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        if pos.checked_add(buf.len() as u64).is_none_or(|end| end > self.device.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.stretches(pos, buf.len(), |from, range| match from {
            None => {
                buf[range].fill(0);
                Ok(())
            }
            Some(from) => self.content.read_at(from, &mut buf[range.clone()]).map_err(|error| {
                let at = pos + range.start as u64;
                let text = format!(
                    "the disk {} cannot be read from byte {at} to {}: {error}",
                    shown(&self.device.name),
                    at + range.len() as u64
                );
                io::Error::new(error.kind(), text)
            }),
        })
    }
}

impl Sparse for Disk {
    fn run(&self, pos: u64, most: u64) -> (bool, u64) {
        let end = pos.saturating_add(most).min(self.device.size);
        let is_data = |at: u64| {
            self.mask((at / CLUSTER as u64) as usize) >> (at % CLUSTER as u64 / BLOCK as u64) & 1 == 1
        };
        let (data, mut at) = (is_data(pos), pos);
        while at < end && is_data(at) == data {
            let whole = if data { u16::MAX } else { 0 };
            let (n, within) = ((at / CLUSTER as u64) as usize, at % CLUSTER as u64);
            // Whole clusters are passed over at once.
            let step = if self.mask(n) == whole {
                CLUSTER as u64 - within
            } else {
                BLOCK as u64 - at % BLOCK as u64
            };
            at += step;
        }
        (data, at.min(end) - pos)
    }
}
