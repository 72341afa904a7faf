//! The map in the file of a full backup.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::segment_map::{Fields, MAX_STORED, SegmentMap};
use super::slots::{self, SLOTS, Slots};
use crate::container::cache::{Cache, Value};
use crate::container::seekable::{FrameReader, ReadOptions, Seekable, Tag};
use crate::matching::fingerprint::{SEED_LEN, Secret, checksum};
use crate::matching::{BaseProblem, Error};

/// The tag of the side frame with the version and the seed of the secret.
pub const HEADER: Tag = *b"pvedbHDR";
/// The tag of a side frame with a [`SegmentMap`].
pub const MAP: Tag = *b"pvedbMAP";
/// The tag of the side frame with the [`End`].
pub const END: Tag = *b"pvedbEND";
/// The versions of maps without and with the number of [`SLOTS`].
const PLAIN: u8 = 1;
const WITH_SLOTS: u8 = 2;

/// Bytes of segment maps that are kept in memory. One takes about 50 KB, and up to 400 KB where pieces are small.
const CACHE_BYTES: usize = 8 << 20;

/// Makes the payload of the side frame [`HEADER`]. `slots` tells whether the end will have the number of [`SLOTS`].
pub fn encode_header(seed: &[u8; SEED_LEN], slots: bool) -> Vec<u8> {
    [&[if slots { WITH_SLOTS } else { PLAIN }][..], seed].concat()
}

/// The end of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Length of the content in bytes.
    pub content: u64,
    /// Checksum of the content, chained from the checksums of its segments.
    pub checksum: [u8; 16],
    /// Number of segments.
    pub segments: u64,
    /// Number of side frames [`SLOTS`], in a map that may have them.
    pub slots: Option<u32>,
}

impl End {
    /// Makes the payload of the side frame [`END`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            [&self.content.to_le_bytes()[..], &self.checksum, &self.segments.to_le_bytes()].concat();
        out.extend(self.slots.iter().flat_map(|n| n.to_le_bytes()));
        out
    }

    fn decode(bytes: &[u8]) -> Option<End> {
        let mut r = Fields(bytes);
        let mut end = End { content: r.u64()?, checksum: r.take()?, segments: r.u64()?, slots: None };
        if !r.0.is_empty() {
            end.slots = Some(u32::from_le_bytes(r.take()?));
        }
        r.0.is_empty().then_some(end)
    }
}

/// A full backup with a map, of which header and end were read.
pub struct Map {
    file: Arc<Seekable>,
    secret: Secret,
    /// Number of the side frame with the first segment map.
    first: usize,
    segments: usize,
    /// Number of side frames with slots, which follow the segment maps.
    slots: usize,
    identity: [u8; 16],
}

impl Map {
    /// Reads header and end of the map. A file that has no map of ours is given back.
    ///
    /// # Errors
    /// Fails where there is a map that is damaged or incomplete.
    pub fn open(file: Seekable, path: &Path) -> Result<Result<Map, Seekable>, Error> {
        let damaged = |found: &str| Error::base(path, BaseProblem::Damaged(found.into()));
        let sides = file.sides();
        let Ok((HEADER, header)) = file.side(0, 64) else { return Ok(Err(file)) };
        let Ok((END, end)) = file.side(sides - 1, 64) else {
            return Err(damaged("its map has no end: the file is cut short, or was joined with another"));
        };
        let (Some(end_record), [version @ (PLAIN | WITH_SLOTS), seed @ ..]) =
            (End::decode(&end), &header[..])
        else {
            return Err(damaged("its map is of a version that this program does not know"));
        };
        let Ok(seed) = <&[u8; SEED_LEN]>::try_from(seed) else {
            return Err(damaged("the head of its map is damaged"));
        };
        let slots = end_record.slots.unwrap_or(0) as usize;
        let fits =
            end_record.slots.is_some() == (*version == WITH_SLOTS) && end_record.content == file.size();
        let segments = (sides - 2).checked_sub(slots).filter(|n| fits && *n as u64 == end_record.segments);
        let Some(segments) = segments else {
            return Err(damaged("its map does not fit its content: the file is cut short or damaged"));
        };
        let identity = checksum(&[header.as_slice(), &end].concat()).to_le_bytes();
        Ok(Ok(Map { file: Arc::new(file), secret: Secret::new(seed), first: 1, segments, slots, identity }))
    }

    /// The file, whose content can be read at any position.
    pub fn file(&self) -> &Arc<Seekable> {
        &self.file
    }

    /// The identity of the full backup, which no other full backup has. It is a checksum of header and end, and so of the
    /// seed and of the checksum of the content.
    pub fn identity(&self) -> [u8; 16] {
        self.identity
    }

    /// Opens the map and the content for reading.
    pub fn reader(self, options: ReadOptions) -> MapReader {
        MapReader { content: self.file.reader(options), map: self, recent: Cache::new(CACHE_BYTES) }
    }
}

/// Reads the segment maps of a full backup, and its content.
pub struct MapReader {
    map: Map,
    content: FrameReader,
    recent: Cache<SegmentMap>,
}

impl MapReader {
    /// The content of the full backup.
    pub fn content(&self) -> &FrameReader {
        &self.content
    }

    /// Number of the zstd frame that holds this position of the content.
    pub fn frame_at(&self, pos: u64) -> u64 {
        self.map.file.frame_at(pos) as u64
    }

    /// Length of the content in bytes.
    pub fn size(&self) -> u64 {
        self.map.file.size()
    }

    /// The key of the fingerprints.
    pub fn secret(&self) -> &Secret {
        &self.map.secret
    }

    /// Bytes that the map takes in the file.
    pub fn stored(&self) -> u64 {
        self.map.file.side_bytes()
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.map.segments
    }

    /// Reads the map of segment `n` from the file.
    ///
    /// # Errors
    /// Fails where it cannot be read or is damaged.
    pub fn read(&self, n: usize) -> Result<SegmentMap, Error> {
        let what = || format!("part {n} of the map of the full backup");
        let file = &self.map.file;
        let (tag, bytes) = file
            .side(self.map.first + n, MAX_STORED)
            .map_err(|source| Error::Io { what: format!("cannot read {}", what()), source })?;
        (tag == MAP)
            .then(|| SegmentMap::decode(&bytes))
            .flatten()
            .filter(|m| m.start.checked_add(m.len.into()).is_some_and(|end| end <= file.size()))
            .map(|mut segment| {
                segment.add_headers(&self.content, self.secret());
                segment
            })
            .ok_or_else(|| Error::Io {
                what: format!("cannot use {}", what()),
                source: io::Error::new(io::ErrorKind::InvalidData, "it is damaged"),
            })
    }

    /// Reads where each cluster lies, of `most` clusters at most; `None` where the full backup does not tell, because it is
    /// no VM's, is odd, or was made by an older version.
    ///
    /// # Errors
    /// Fails where that cannot be read or is damaged.
    pub(in crate::matching) fn slots(&self, most: u64) -> Result<Option<Slots>, Error> {
        let mut slots = Slots::default();
        for n in 0..self.map.slots {
            self.push_slots(n, &mut slots, most)?;
        }
        Ok(self.is_whole(&slots).then_some(slots))
    }

    /// As [`MapReader::slots`], but part by part, each of which is passed to a function. The result is the position of the first
    /// extent, where the parts told all of the full backup.
    ///
    /// # Errors
    /// As [`MapReader::slots`].
    pub(in crate::matching) fn each_slots(
        &self,
        mut most: u64,
        mut each: impl FnMut(&Slots),
    ) -> Result<Option<u64>, Error> {
        let (mut slots, mut first) = (Slots::default(), None);
        for n in 0..self.map.slots {
            self.push_slots(n, &mut slots, most)?;
            first = first.or(slots.extents.first().map(|extent| extent.at));
            most -= slots.slots.len() as u64;
            each(&slots);
            slots.forget();
        }
        Ok(first.filter(|_| self.is_whole(&slots)))
    }

    fn push_slots(&self, n: usize, slots: &mut Slots, most: u64) -> Result<(), Error> {
        let what = || format!("part {n} of the list of clusters of the full backup");
        let (tag, frame) = (self.map.file)
            .side(self.map.first + self.map.segments + n, slots::MAX_FRAME)
            .map_err(|source| Error::Io { what: format!("cannot read {}", what()), source })?;
        (tag == SLOTS).then(|| slots.push(&frame, most)).flatten().ok_or_else(|| Error::Io {
            what: format!("cannot use {}", what()),
            source: io::Error::new(io::ErrorKind::InvalidData, "it is damaged"),
        })
    }

    fn is_whole(&self, slots: &Slots) -> bool {
        slots.end() == self.size() && slots.segments.len() == self.segments()
    }

    /// Number of the segment that holds this position of the content: its map follows its frames in the file.
    pub fn segment_at(&self, pos: u64) -> u32 {
        let before = self.map.file.sides_before(self.map.file.frame_at(pos));
        before.saturating_sub(self.map.first) as u32
    }

    /// Returns the map of segment `n`, and keeps it for a while.
    ///
    /// # Errors
    /// As [`MapReader::read`].
    pub fn get(&self, n: u32) -> Result<Arc<SegmentMap>, Error> {
        self.recent.get(n.into(), 0..1, |_, _| self.read(n as usize))
    }
}

impl Value for SegmentMap {
    fn weight(&self) -> usize {
        self.memory()
    }
}
