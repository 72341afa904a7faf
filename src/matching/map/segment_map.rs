//! The part of a map that describes one segment.

use std::ops::Range;

use super::seeds::{self, CELL, StoredSeed};
use crate::container::ReadAt;
use crate::matching::chunker::{CLUSTERS_LEN, Cluster, MAX_PIECES, PieceKind, SEGMENT, Segment};
use crate::matching::fingerprint::{FINGERPRINT_LEN, Fingerprint, Secret};
use crate::vma::{BLOCK, EXTENT_FRONT, EXTENT_HEADER, ExtentHeader};

/// The most bytes of a stored segment map: every piece takes at most 3 + 12 bytes, and 7 more if it begins a record.
pub(super) const MAX_STORED: u32 = (MAX_PIECES * (FINGERPRINT_LEN + 10) + 64) as u32;

/// Gaps of at least so many bytes are searched for headers of VMA extents.
const DENSE: usize = 8 * EXTENT_HEADER;

/// The kinds of records in the stored form.
const GAP: u8 = 0;
const CLUSTER: u8 = 1;
const PIECES: u8 = 2;
const SEEDS: u8 = 3;

/// A piece with its fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position of the piece in its segment.
    pub at: u32,
    /// Length of the piece in bytes.
    pub len: u32,
    /// The fingerprint of its content.
    pub fingerprint: Fingerprint,
}

impl Entry {
    /// Position behind the piece in its segment.
    pub fn end(&self) -> u32 {
        self.at + self.len
    }
}

/// The part of a map that describes one segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SegmentMap {
    /// Position of the segment in the stream.
    pub start: u64,
    /// Length of the segment in bytes.
    pub len: u32,
    /// Its pieces, in order. Between them may be gaps.
    pub entries: Vec<Entry>,
    /// Its clusters, each with the number of its first entry. An entry follows for each further stored block.
    pub clusters: Vec<(Cluster, u32)>,
    /// Its seeds, one for each cell of 4 KiB.
    pub seeds: Vec<StoredSeed>,
}

impl SegmentMap {
    /// Describes a segment.
    pub fn new(segment: &Segment, secret: &Secret) -> SegmentMap {
        let len = segment.data.len() as u32;
        let mut map = SegmentMap { start: segment.start, len, ..SegmentMap::default() };
        for p in segment.pieces().filter(|piece| piece.has_fingerprint()) {
            if let PieceKind::Block(cluster, n) = p.kind
                && cluster.mask.trailing_zeros() == u32::from(n)
            {
                map.clusters.push((cluster, map.entries.len() as u32));
            }
            let fingerprint = secret.fingerprint(&segment.data[p.at..p.at + p.len]);
            map.entries.push(Entry { at: p.at as u32, len: p.len as u32, fingerprint });
        }
        map.seeds = seeds::of(&segment.data);
        map
    }

    /// The seeds of the cells that this range of the segment touches, and the position of the first of these cells. Maps
    /// of older versions have none.
    pub fn seeds_of(&self, range: Range<usize>) -> (usize, &[StoredSeed]) {
        let cells = range.start / CELL..range.end.div_ceil(CELL).min(self.seeds.len());
        (cells.start * CELL, self.seeds.get(cells).unwrap_or_default())
    }

    /// Adds entries for the headers of VMA extents in gaps that are long enough to hold many of them. Thin disks have such
    /// gaps in maps of older versions, which left these headers out. A header that lies alone between data is not worth
    /// decompressing that data.
    pub(super) fn add_headers(&mut self, content: &dyn ReadAt, secret: &Secret) {
        let mut found = Vec::new();
        let mut bytes = Vec::new();
        let ends = self.entries.iter().map(|e| (e.at, e.end())).chain([(self.len, self.len)]);
        let mut gap = 0;
        for (at, next) in ends {
            let start = std::mem::replace(&mut gap, next);
            if ((at - start) as usize) < DENSE {
                continue;
            }
            bytes.resize((at - start) as usize, 0);
            // Where the base is damaged, the headers are left out.
            if content.read_at(self.start + u64::from(start), &mut bytes).is_err() {
                continue;
            }
            // They are taken from the back, because in the first gap they follow the header of the archive.
            let headers = bytes.rchunks_exact(EXTENT_HEADER);
            let headers = headers.map_while(|h| ExtentHeader::parse(h.first_chunk()?).ok().map(|_| h));
            let first = found.len();
            found.extend(headers.zip(1u32..).map(|(header, n)| Entry {
                at: at - n * EXTENT_HEADER as u32 + EXTENT_FRONT as u32,
                len: CLUSTERS_LEN as u32,
                fingerprint: secret.fingerprint(&header[EXTENT_FRONT..]),
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

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        size_of::<SegmentMap>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.clusters.capacity() * size_of::<(Cluster, u32)>()
            + self.seeds.capacity() * size_of::<StoredSeed>()
    }

    /// Makes the stored form, the payload of a side frame [`MAP`](super::MAP).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * (FINGERPRINT_LEN + 2) + 32);
        out.extend(self.start.to_le_bytes());
        out.extend(self.len.to_le_bytes());
        let mut clusters = self.clusters.iter().peekable();
        let (mut n, mut at) = (0, 0);
        while let Some(first) = self.entries.get(n) {
            if first.at > at {
                out.push(GAP);
                put_varint(&mut out, first.at - at);
            }
            let group = match clusters.next_if(|(_, entry)| *entry as usize == n) {
                Some((c, _)) => {
                    out.extend([CLUSTER, c.device]);
                    out.extend(c.number.to_le_bytes());
                    out.extend(c.mask.to_le_bytes());
                    let group = &self.entries[n..n + c.mask.count_ones() as usize];
                    group.iter().for_each(|e| out.extend(e.fingerprint.to_bytes()));
                    group
                }
                None => {
                    let end = clusters.peek().map_or(self.entries.len(), |(_, entry)| *entry as usize);
                    let mut next = first.at;
                    let count = self.entries[n..end]
                        .iter()
                        .take_while(|e| std::mem::replace(&mut next, e.end()) == e.at)
                        .count();
                    let group = &self.entries[n..n + count];
                    out.push(PIECES);
                    put_varint(&mut out, count as u32);
                    for e in group {
                        put_varint(&mut out, e.len);
                        out.extend(e.fingerprint.to_bytes());
                    }
                    group
                }
            };
            n += group.len();
            at = group.last().map_or(at, Entry::end);
        }
        if at < self.len {
            out.push(GAP);
            put_varint(&mut out, self.len - at);
        }
        if !self.seeds.is_empty() {
            out.push(SEEDS);
            out.extend(self.seeds.iter().flatten());
        }
        out
    }

    /// Reads the stored form; `None` where it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<SegmentMap> {
        let mut r = Fields(bytes);
        let mut map = SegmentMap { start: r.u64()?, len: r.u32()?, ..SegmentMap::default() };
        let mut at = 0u32;
        if map.len as usize > SEGMENT {
            return None;
        }
        let push = |entries: &mut Vec<Entry>, at: &mut u32, len: u32, fingerprint| {
            entries.push(Entry { at: *at, len, fingerprint });
            *at = at.checked_add(len)?;
            (entries.len() <= MAX_PIECES && *at <= map.len && len > 0).then_some(())
        };
        while !r.0.is_empty() {
            match r.u8()? {
                GAP => at = at.checked_add(r.varint()?)?,
                CLUSTER => {
                    let cluster = Cluster { device: r.u8()?, number: r.u32()?, mask: r.u16()? };
                    // A cluster without stored blocks has nothing that could be found, and is never written.
                    (cluster.mask != 0).then_some(())?;
                    map.clusters.push((cluster, map.entries.len() as u32));
                    for _ in 0..cluster.mask.count_ones() {
                        push(&mut map.entries, &mut at, BLOCK as u32, r.fingerprint()?)?;
                    }
                }
                PIECES => {
                    for _ in 0..r.varint()? {
                        let len = r.varint()?;
                        push(&mut map.entries, &mut at, len, r.fingerprint()?)?;
                    }
                }
                SEEDS => {
                    for _ in 0..(map.len as usize).div_ceil(CELL) {
                        map.seeds.push(r.take()?);
                    }
                }
                _ => return None,
            }
        }
        (at == map.len).then_some(map)
    }
}

fn put_varint(out: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes fields off the front of a slice. Each method returns `None` where the slice is too short.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
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
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn fingerprint(&mut self) -> Option<Fingerprint> {
        self.take().map(|b| Fingerprint::from_bytes(&b))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::chunker::{Layout, Span};
    use crate::vma;
    use proptest::prelude::*;

    fn map_of(layout: Layout, len: usize) -> SegmentMap {
        let data = (0..len).map(|n| ((n * n) >> 8) as u8).collect();
        let segment = Segment { start: 1 << 40, data, layout };
        SegmentMap::new(&segment, &Secret::new(&[9; 32]))
    }

    fn samples() -> Vec<SegmentMap> {
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
            map_of(Layout::Bytes, 0),
            map_of(Layout::Bytes, 300_000),
            map_of(Layout::Vma(spans), 13_312 + 19 * BLOCK),
        ]
    }

    #[test]
    fn segment_maps_round_trip() {
        for map in samples() {
            assert_eq!(SegmentMap::decode(&map.encode()), Some(map));
        }
        let random =
            (0u64..1 << 20).map(|n| (n.wrapping_mul(n | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
        let segment = Segment { start: 0, data: random.collect(), layout: Layout::Bytes };
        let seeded = SegmentMap::new(&segment, &Secret::new(&[9; 32]));
        assert_eq!(seeded.seeds.len(), 256);
        let bytes = seeded.encode();
        assert_eq!(SegmentMap::decode(&bytes).as_ref(), Some(&seeded));
        (bytes.len() - 20..bytes.len()).for_each(|cut| assert_eq!(SegmentMap::decode(&bytes[..cut]), None));
        // One more than there are cells.
        let mut wild = seeded;
        wild.seeds.push([1; 5]);
        assert_eq!(SegmentMap::decode(&wild.encode()), None);
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
            let content = data.clone();
            let [old, new] = [old, new].map(|spans| {
                let layout = Layout::Vma(spans);
                SegmentMap::new(&Segment { start: 0, data: data.clone(), layout }, &secret)
            });
            let mut found = SegmentMap::decode(&old.encode()).unwrap();
            assert_eq!(found, old);
            found.add_headers(&content, &secret);
            // All but those among data, each with no more than the end of a run before it, or nothing.
            let lone = |e: &Entry| {
                let next = new.entries.iter().find(|n| n.at == e.end());
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
            let again = SegmentMap::decode(&new.encode()).unwrap();
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
            if let Some(map) = SegmentMap::decode(&bytes) {
                prop_assert!(map.entries.len() <= MAX_PIECES);
                prop_assert!(map.entries.iter().all(|e| e.end() <= map.len));
            }
        }
    }
}
