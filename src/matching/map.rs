//! The map of a full backup: where which content lies, so that a differential need not read the full.
//!
//! A full backup that we compress is a seekable zstd file ([`crate::container::seekable`]) with these
//! side frames (numbers are little endian, varints LEB128):
//!
//! ```text
//! "pvedbHDR"  version u8 (1), seed [32]                        behind the first data frame
//! "pvedbMAP"  start u64, length u32, records                   behind the data frames of each segment
//!     0x00 gap:     length varint
//!     0x01 cluster: device u8, number u32, mask u16, a print [12] per set bit (4096 bytes each)
//!     0x02 pieces:  count varint, per piece: length varint, print [12]
//!     0x03 seeds:   a seed [5] for each 4096 bytes of the segment, see `seed.rs`
//!     Of an extent's header in a VMA archive the list of clusters is a piece, the rest a gap. Maps of older versions of
//!     this program have all of the header in the gap.
//! "pvedbEND"  content length u64, chained checksum [16], segments u64
//! ```
//! A cut file lacks the end, and is refused as a base.

use std::path::Path;
use std::sync::Arc;

use super::cut::{CLUSTERS_LEN, Cluster, MAX_PIECES, Part, Piece, SEGMENT, Segment};
use super::print::{PRINT_LEN, Print, SEED_LEN, Secret, checksum};
use super::{BaseProblem, Error, seed};
use crate::container::cache::{Cache, Value};
use crate::container::seekable::{Seekable, Tag};
use crate::container::{Near, ReadAt};
use crate::vma::{BLOCK, EXTENT_FRONT, EXTENT_HEADER, ExtentHeader};

/// Tags of the side frames.
pub const HEADER: Tag = *b"pvedbHDR";
/// See [`HEADER`].
pub const MAP: Tag = *b"pvedbMAP";
/// See [`HEADER`].
pub const END: Tag = *b"pvedbEND";
const VERSION: u8 = 1;
/// No chunk of a map is larger: every piece costs at most 3 + 12 bytes, and 7 if it has a mark.
const MAX_CHUNK: u32 = (MAX_PIECES * (PRINT_LEN + 10) + 64) as u32;

/// Gaps of so many bytes are searched for extent headers.
const DENSE: usize = 8 * EXTENT_HEADER;

/// A fingerprinted piece of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Place within the segment.
    pub at: u32,
    /// Bytes.
    pub len: u32,
    /// Its content's fingerprint.
    pub print: Print,
}

/// The part of a map that describes one segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Place of the segment in the stream.
    pub start: u64,
    /// Bytes of the segment.
    pub len: u32,
    /// Its pieces, in order, without gaps.
    pub entries: Vec<Entry>,
    /// Its clusters, and the first entry of each.
    pub clusters: Vec<(Cluster, u32)>,
    /// Its seeds: one for each cell.
    pub seeds: Vec<[u8; seed::STORED]>,
}

impl Chunk {
    /// Describes a segment.
    pub fn new(segment: &Segment, secret: &Secret) -> Chunk {
        let mut chunk = Chunk { start: segment.start, len: segment.data.len() as u32, ..Chunk::default() };
        for p in segment.pieces().filter(Piece::is_known_again) {
            if let Part::Block(cluster, n) = p.part
                && cluster.mask.trailing_zeros() == u32::from(n)
            {
                chunk.clusters.push((cluster, chunk.entries.len() as u32));
            }
            let print = secret.print(&segment.data[p.at..p.at + p.len]);
            chunk.entries.push(Entry { at: p.at as u32, len: p.len as u32, print });
        }
        chunk.seeds = seed::of(&segment.data);
        chunk
    }

    /// Adds the extent headers in gaps that are long enough to hold many: those of thin disks, which were not in the
    /// maps of older versions. One that lies alone between data is not worth decompressing that data.
    fn add_headers(&mut self, content: &dyn ReadAt, secret: &Secret) {
        let mut found = Vec::new();
        let mut bytes = Vec::new();
        let ends = self.entries.iter().map(|e| (e.at, e.at + e.len)).chain([(self.len, self.len)]);
        let mut gap = 0;
        for (at, next) in ends {
            let start = std::mem::replace(&mut gap, next);
            if ((at - start) as usize) < DENSE {
                continue;
            }
            bytes.resize((at - start) as usize, 0);
            // Where the base is damaged, it is as if they were not there.
            if content.read_at(self.start + u64::from(start), &mut bytes).is_err() {
                continue;
            }
            // From the back: in the first gap they follow the header of the archive.
            let headers = bytes.rchunks_exact(EXTENT_HEADER);
            let headers = headers.map_while(|h| ExtentHeader::parse(h.first_chunk()?).ok().map(|_| h));
            let first = found.len();
            found.extend(headers.zip(1u32..).map(|(header, n)| Entry {
                at: at - n * EXTENT_HEADER as u32 + EXTENT_FRONT as u32,
                len: CLUSTERS_LEN as u32,
                print: secret.print(&header[EXTENT_FRONT..]),
            }));
            found[first..].reverse();
        }
        if found.is_empty() {
            return;
        }
        for (_, entry) in &mut self.clusters {
            let at = self.entries.get(*entry as usize).map_or(self.len, |e| e.at);
            *entry += found.partition_point(|e| e.at < at) as u32;
        }
        self.entries.append(&mut found);
        self.entries.sort_by_key(|e| e.at);
    }

    /// Bytes that it takes.
    fn memory(&self) -> usize {
        size_of::<Chunk>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.clusters.capacity() * size_of::<(Cluster, u32)>()
            + self.seeds.capacity() * seed::STORED
    }

    /// As stored in the side frame [`MAP`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * (PRINT_LEN + 2) + 32);
        out.extend(self.start.to_le_bytes());
        out.extend(self.len.to_le_bytes());
        let mut clusters = self.clusters.iter().peekable();
        let (mut n, mut at) = (0, 0);
        while let Some(first) = self.entries.get(n) {
            if first.at > at {
                out.push(0);
                put_varint(&mut out, first.at - at);
            }
            let group = match clusters.next_if(|(_, entry)| *entry as usize == n) {
                Some((c, _)) => {
                    out.extend([1, c.device]);
                    out.extend(c.number.to_le_bytes());
                    out.extend(c.mask.to_le_bytes());
                    let group = &self.entries[n..n + c.mask.count_ones() as usize];
                    group.iter().for_each(|e| out.extend(e.print.to_bytes()));
                    group
                }
                None => {
                    let end = clusters.peek().map_or(self.entries.len(), |(_, entry)| *entry as usize);
                    let mut next = first.at;
                    let count = self.entries[n..end]
                        .iter()
                        .take_while(|e| std::mem::replace(&mut next, e.at + e.len) == e.at)
                        .count();
                    let group = &self.entries[n..n + count];
                    out.push(2);
                    put_varint(&mut out, count as u32);
                    for e in group {
                        put_varint(&mut out, e.len);
                        out.extend(e.print.to_bytes());
                    }
                    group
                }
            };
            n += group.len();
            at = group.last().map_or(at, |e| e.at + e.len);
        }
        if at < self.len {
            out.push(0);
            put_varint(&mut out, self.len - at);
        }
        if !self.seeds.is_empty() {
            out.push(3);
            out.extend(self.seeds.iter().flatten());
        }
        out
    }

    /// Reads what [`Chunk::encode`] wrote; `None` where it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Chunk> {
        let mut r = Fields(bytes);
        let mut chunk = Chunk { start: r.u64()?, len: r.u32()?, ..Chunk::default() };
        let mut at = 0u32;
        if chunk.len as usize > SEGMENT {
            return None;
        }
        let push = |entries: &mut Vec<Entry>, at: &mut u32, len: u32, print| {
            entries.push(Entry { at: *at, len, print });
            *at = at.checked_add(len)?;
            (entries.len() <= MAX_PIECES && *at <= chunk.len && len > 0).then_some(())
        };
        while !r.0.is_empty() {
            match r.u8()? {
                0 => at = at.checked_add(r.varint()?)?,
                1 => {
                    let cluster = Cluster { device: r.u8()?, number: r.u32()?, mask: r.u16()? };
                    // A cluster of zeros has nothing to be found, and is never written.
                    (cluster.mask != 0).then_some(())?;
                    chunk.clusters.push((cluster, chunk.entries.len() as u32));
                    for _ in 0..cluster.mask.count_ones() {
                        push(&mut chunk.entries, &mut at, BLOCK as u32, r.print()?)?;
                    }
                }
                2 => {
                    for _ in 0..r.varint()? {
                        let len = r.varint()?;
                        push(&mut chunk.entries, &mut at, len, r.print()?)?;
                    }
                }
                3 => {
                    for _ in 0..(chunk.len as usize).div_ceil(seed::CELL) {
                        chunk.seeds.push(r.take()?);
                    }
                }
                _ => return None,
            }
        }
        (at == chunk.len).then_some(chunk)
    }
}

fn put_varint(out: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take().map(|[b]| b)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn print(&mut self) -> Option<Print> {
        self.take().map(|b| Print::from_bytes(&b))
    }
    fn varint(&mut self) -> Option<u32> {
        let mut n = 0;
        for shift in (0..28).step_by(7) {
            let b = self.u8()?;
            n |= u32::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }
}

/// The side frame [`HEADER`].
pub fn encode_header(seed: &[u8; SEED_LEN]) -> Vec<u8> {
    [&[VERSION][..], seed].concat()
}

/// The side frame [`END`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Length of the content.
    pub content: u64,
    /// Checksum of the content: that of each segment, chained.
    pub checksum: [u8; 16],
    /// Number of segments.
    pub segments: u64,
}

impl End {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        [&self.content.to_le_bytes()[..], &self.checksum, &self.segments.to_le_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<End> {
        let mut r = Fields(bytes);
        let end = End { content: r.u64()?, checksum: r.take()?, segments: r.u64()? };
        r.0.is_empty().then_some(end)
    }
}

/// The map of a full backup, as the file holds it.
pub struct Map {
    file: Seekable,
    secret: Secret,
    /// Index of the side frame of the first chunk.
    first: usize,
    chunks: usize,
    identity: [u8; 16],
    recent: Cache<Chunk>,
}

/// Bytes of decoded chunks that are kept; one takes about 50 KB, with many small pieces up to 400 KB.
const RECENT: usize = 8 << 20;

impl Map {
    /// Reads the map's outer parts; gives the file back where it has no map of ours.
    ///
    /// # Errors
    /// Where there is a map, but a damaged one.
    pub fn open(file: Seekable, path: &Path) -> Result<Result<Map, Seekable>, Error> {
        let damaged = |found: &str| Error::base(path, BaseProblem::Damaged(found.into()));
        let sides = file.sides();
        let Ok((HEADER, header)) = file.side(0, 64) else { return Ok(Err(file)) };
        let Ok((END, end)) = file.side(sides - 1, 64) else {
            return Err(damaged("its map has no end: the file is cut short, or was joined with another"));
        };
        let (Some(end_record), [VERSION, seed @ ..]) = (End::decode(&end), &header[..]) else {
            return Err(damaged("its map is of a version that this program does not know"));
        };
        let Ok(seed) = <&[u8; SEED_LEN]>::try_from(seed) else {
            return Err(damaged("the head of its map is damaged"));
        };
        let chunks = sides - 2;
        if end_record.segments != chunks as u64 || end_record.content != file.size() {
            return Err(damaged("its map does not fit its content: the file is cut short or damaged"));
        }
        let identity = checksum(&[header.as_slice(), &end].concat()).to_le_bytes();
        let secret = Secret::new(seed);
        Ok(Ok(Map { file, secret, first: 1, chunks, identity, recent: Cache::new(RECENT) }))
    }

    /// The key of its fingerprints.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Bytes that it takes in the file.
    pub fn stored(&self) -> u64 {
        self.file.side_bytes()
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Tells this full backup from every other: its seed and the checksum of its content.
    pub fn identity(&self) -> [u8; 16] {
        self.identity
    }

    /// Reads chunk `n` from the file.
    ///
    /// # Errors
    /// Where it cannot be read or is damaged.
    pub fn read_chunk(&self, n: usize) -> Result<Chunk, Error> {
        let what = || format!("part {n} of the map of the full backup");
        let (tag, bytes) = self
            .file
            .side(self.first + n, MAX_CHUNK)
            .map_err(|source| Error::Io { what: format!("cannot read {}", what()), source })?;
        (tag == MAP)
            .then(|| Chunk::decode(&bytes))
            .flatten()
            .filter(|c| c.start.checked_add(c.len.into()).is_some_and(|end| end <= self.file.size()))
            .map(|mut chunk| {
                chunk.add_headers(&self.file, &self.secret);
                chunk
            })
            .ok_or_else(|| Error::Io {
                what: format!("cannot use {}", what()),
                source: std::io::Error::new(std::io::ErrorKind::InvalidData, "it is damaged"),
            })
    }

    /// Chunk `n`, kept for a while.
    ///
    /// # Errors
    /// See [`Map::read_chunk`].
    pub fn chunk(&self, n: u32) -> Result<Arc<Chunk>, Error> {
        self.recent.get(n.into(), 0..1, |_, _| self.read_chunk(n as usize))
    }
}

impl Value for Chunk {
    fn weight(&self) -> usize {
        self.memory()
    }
}

impl ReadAt for Map {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.file.read_at(pos, buf)
    }

    fn read_near(&self, pos: u64, buf: &mut [u8], near: &mut Near) -> std::io::Result<()> {
        self.file.read_near(pos, buf, near)
    }

    fn part_at(&self, pos: u64) -> u64 {
        self.file.part_at(pos)
    }

    fn keep(&self, bytes: usize) {
        self.file.keep(bytes);
    }

    fn expect(&self, turn: u64, ranges: &[(u64, u64)]) {
        self.file.expect(turn, ranges);
    }

    fn passed(&self, turn: u64) {
        self.file.passed(turn);
    }

    fn trust(&self) {
        self.file.trust();
    }

    fn fronts(&self) {
        self.file.fronts();
    }

    fn verify(&self, pos: u64, len: u64) -> std::io::Result<()> {
        self.file.verify(pos, len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cut::{Layout, Span};
    use super::super::fine::Whole;
    use super::*;
    use crate::vma;
    use proptest::prelude::*;

    fn chunk(layout: Layout, len: usize) -> Chunk {
        let data = (0..len).map(|n| ((n * n) >> 8) as u8).collect();
        let segment = Segment { start: 1 << 40, data, layout };
        Chunk::new(&segment, &Secret::new(&[9; 32]))
    }

    fn samples() -> Vec<Chunk> {
        let c = |number, mask| Span::Cluster(Cluster { device: 2, number, mask });
        let spans = vec![
            Span::Gap(12288),
            Span::Gap(512),
            c(7, 0xffff),
            c(70_000, 0x8001),
            Span::Gap(512),
            c(8, 0x10),
        ];
        vec![
            chunk(Layout::Bytes, 0),
            chunk(Layout::Bytes, 300_000),
            chunk(Layout::Vma(spans), 13_312 + 19 * BLOCK),
        ]
    }

    #[test]
    fn chunks_round_trip() {
        for chunk in samples() {
            assert_eq!(Chunk::decode(&chunk.encode()), Some(chunk));
        }
        let random =
            (0u64..1 << 20).map(|n| (n.wrapping_mul(n | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
        let segment = Segment { start: 0, data: random.collect(), layout: Layout::Bytes };
        let seeded = Chunk::new(&segment, &Secret::new(&[9; 32]));
        assert_eq!(seeded.seeds.len(), 256);
        let bytes = seeded.encode();
        assert_eq!(Chunk::decode(&bytes).as_ref(), Some(&seeded));
        (bytes.len() - 20..bytes.len()).for_each(|cut| assert_eq!(Chunk::decode(&bytes[..cut]), None));
        // One more than there are cells.
        let mut wild = seeded;
        wild.seeds.push([1; 5]);
        assert_eq!(Chunk::decode(&wild.encode()), None);
    }

    /// Maps of older versions lack the extent headers; those of thin disks are read from the content.
    #[test]
    fn headers_that_lie_close_together_are_found_without_the_map() {
        let clusters = |first: u32, mask: u16| -> Vec<_> {
            (first..first + 58).map(|number| vma::Cluster { device: 1, number, mask }).collect()
        };
        let secret = Secret::new(&[9; 32]);
        for (front, thin, full, after) in [(12288, 9, 2, 40), (0, 20, 1, 0), (0, 0, 1, 8), (12288, 300, 0, 0)]
        {
            let (mut data, mut old, mut new) = (vec![7; front], Vec::new(), Vec::new());
            if front > 0 {
                old.push(Span::Gap(front as u32));
                new.push(Span::Gap(front as u32));
            }
            for n in 0..thin + full + after {
                let mask = if (thin..thin + full).contains(&n) { 1 } else { 0 };
                let clusters = clusters(n * 58, mask);
                data.extend(vma::ExtentHeader::new([3; 16], &clusters).encode());
                data.resize(data.len() + usize::from(mask) * 58 * BLOCK, n as u8);
                old.push(Span::Gap(EXTENT_HEADER as u32));
                new.push(Span::Header);
                for list in [&mut old, &mut new] {
                    list.extend(clusters.iter().map(|c| {
                        Span::Cluster(Cluster { device: c.device, number: c.number, mask: c.mask })
                    }));
                }
            }
            let content = Whole::new(data.clone());
            let [old, new] = [old, new].map(|spans| {
                let layout = Layout::Vma(spans);
                Chunk::new(&Segment { start: 0, data: data.clone(), layout }, &secret)
            });
            let mut found = Chunk::decode(&old.encode()).unwrap();
            assert_eq!(found, old);
            found.add_headers(&content, &secret);
            // All but those among data, each with no more than the end of a run before it, or nothing.
            let lone = |e: &Entry| {
                let next = new.entries.iter().find(|n| n.at == e.at + e.len);
                e.len as usize == CLUSTERS_LEN && next.is_some() && (thin == 0 || e.at > 4 * BLOCK as u32)
            };
            let missing: Vec<_> = new.entries.iter().filter(|e| !found.entries.contains(e)).collect();
            assert!(missing.iter().all(|e| lone(e)), "{missing:?}");
            assert!(missing.len() as u32 <= full, "{} of {full}", missing.len());
            assert!(found.entries.iter().all(|e| new.entries.contains(e)));
            assert!(found.entries.is_sorted_by_key(|e| e.at));
            for ((cluster, n), (same, first)) in found.clusters.iter().zip(&new.clusters) {
                assert_eq!(cluster, same);
                assert_eq!(found.entries[*n as usize], new.entries[*first as usize]);
            }
            let again = Chunk::decode(&new.encode()).unwrap();
            assert_eq!(again, new);
            let mut complete = again;
            complete.add_headers(&content, &secret);
            assert_eq!(complete, new);
        }
    }

    proptest! {
        #[test]
        fn damage_is_refused_or_sane(which in 0..3usize, at: prop::sample::Index, bit in 0..8u32, cut: bool) {
            let mut bytes = samples()[which].encode();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            if let Some(chunk) = Chunk::decode(&bytes) {
                prop_assert!(chunk.entries.len() <= MAX_PIECES);
                prop_assert!(chunk.entries.iter().all(|e| e.at + e.len <= chunk.len));
            }
        }
    }
}
