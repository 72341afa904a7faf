//! Finding the pieces of a new stream in the base.

use std::collections::VecDeque;
use std::sync::Arc;

use super::clusters::ClusterTable;
use super::file::MapReader;
use super::seeds::{SeedMatch, Seeds};
use super::segment_map::{Entry, SegmentMap};
use super::table::FingerprintTable;
use crate::budget::{Budget, Spent};
use crate::matching::Error;
use crate::matching::chunker::{Cluster, Piece, PieceKind};
use crate::matching::fingerprint::Fingerprint;
use crate::vma::EXTENT_FRONT;

/// No base is taken to be larger than this for each byte of its map. With pieces of 32 KiB it could be 600 times as large.
const MAX_MAPPED: u64 = 512;
/// Bytes of memory that the index may take for each byte of the map. It takes a tenth of them.
const MAP_SHARE: u64 = 8;
/// Bytes of memory that the index may take where the base has no map: enough for the clusters of 2 TiB.
const UNMAPPED: u64 = 256 << 20;

/// Where the segment maps are.
enum Store {
    /// They are in the base's file.
    Mapped(Arc<MapReader>),
    /// They are in memory; the first one has the number `first`.
    Resident { first: usize, segments: VecDeque<Arc<SegmentMap>> },
}

/// Finds pieces, and seeds of pieces, in the base.
pub(in crate::matching) struct Index {
    table: FingerprintTable,
    seeds: Seeds,
    clusters: ClusterTable,
    store: Store,
}

/// A piece of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::matching) struct Match {
    /// Position of the piece in the base's content.
    pub at: u64,
    /// Length of the piece in bytes.
    pub len: usize,
    /// Whether its content equals that of the piece that was looked for. If not, it is the same block of the same disk.
    pub equal: bool,
    /// Whether the piece is the list of clusters of a VMA extent, and the front of the extent's header is before it in the
    /// base: there is a gap that has room for it.
    pub headed: bool,
}

impl Index {
    /// Makes the index of a base with a map.
    ///
    /// # Errors
    /// Fails where the map cannot be read or is damaged, or where there is no memory for the index.
    pub fn of_map(map: Arc<MapReader>) -> Result<Index, Error> {
        let stored = map.stored();
        let bytes = map.size().min(stored.saturating_mul(MAX_MAPPED));
        let budget = Budget::of(stored.saturating_mul(MAP_SHARE));
        let mut index = Index::new(Store::Mapped(Arc::clone(&map)), bytes, budget)?;
        for n in 0..map.segments() {
            index.learn(n, &map.read(n)?);
        }
        Ok(index)
    }

    /// Makes an empty index, to be filled with [`Index::push`] while a base without a map is read. At any time it is to
    /// know about `bytes` bytes of the base.
    ///
    /// # Errors
    /// Fails where there is no memory for the index.
    pub fn unmapped(bytes: u64) -> Result<Index, Error> {
        let store = Store::Resident { first: 0, segments: VecDeque::new() };
        Index::new(store, bytes, Budget::of(UNMAPPED))
    }

    fn new(store: Store, bytes: u64, mut budget: Budget) -> Result<Index, Error> {
        let failed =
            |spent: Spent| Error::Io { what: "cannot index the full backup".into(), source: spent.into() };
        let table = FingerprintTable::new(bytes, &mut budget).map_err(failed)?;
        let seeds = Seeds::new(bytes, &mut budget).map_err(failed)?;
        Ok(Index { table, seeds, clusters: ClusterTable::new(budget), store })
    }

    /// Adds the next segment of a base without a map.
    pub fn push(&mut self, segment: SegmentMap) {
        let Store::Resident { first, segments } = &self.store else { return };
        let n = first + segments.len();
        self.learn(n, &segment);
        let Store::Resident { segments, .. } = &mut self.store else { return };
        segments.push_back(Arc::new(SegmentMap { seeds: Vec::new(), ..segment }));
    }

    /// Forgets the segments of a base without a map that end before `pos`.
    pub fn forget(&mut self, pos: u64) {
        if let Store::Resident { first, segments } = &mut self.store {
            while segments.front().is_some_and(|s| s.start + u64::from(s.len) <= pos) {
                segments.pop_front();
                *first += 1;
            }
        }
    }

    fn learn(&mut self, n: usize, segment: &SegmentMap) {
        for entry in &segment.entries {
            self.table.insert(entry.fingerprint, n);
        }
        self.seeds.learn(n, &segment.seeds);
        for (nth, (cluster, _)) in segment.clusters.iter().enumerate() {
            self.clusters.insert(*cluster, n, nth);
        }
    }

    fn segment(&self, n: u32) -> Result<Option<Arc<SegmentMap>>, Error> {
        match &self.store {
            Store::Mapped(map) if n as usize >= map.segments() => Ok(None),
            Store::Mapped(map) => map.get(n).map(Some),
            Store::Resident { first, segments } => {
                Ok((n as usize).checked_sub(*first).and_then(|n| segments.get(n)).cloned())
            }
        }
    }

    /// Finds the base's seeds in `new`, in the order of `new`.
    ///
    /// # Errors
    /// As [`Cursor::find`].
    pub fn find_seeds(&self, new: &[u8]) -> Result<Vec<SeedMatch>, Error> {
        self.seeds
            .find(new)
            .filter_map(|(at, place)| {
                let segment = self.segment(place.segment).transpose()?;
                Some(segment.map(|segment| SeedMatch { at, base: segment.start + place.at as u64 }))
            })
            .collect()
    }

    /// Begins looking up pieces in their order.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { index: self, segment: None, next: None }
    }
}

/// An entry of the map: its segment, and its number among the segment's entries.
#[derive(Clone, Copy)]
struct EntryRef {
    segment: u32,
    entry: usize,
}

/// An entry that was looked up.
struct Located {
    place: EntryRef,
    /// Position of its segment in the base's content.
    start: u64,
    entry: Entry,
}

/// Looks up one piece after another, and remembers where the last one was found.
pub(in crate::matching) struct Cursor<'a> {
    index: &'a Index,
    /// The segment map that was used last, with its number.
    segment: Option<(u32, Arc<SegmentMap>)>,
    /// What follows the piece that was found last.
    next: Option<EntryRef>,
}

impl Cursor<'_> {
    /// Finds a piece in the base. These are tried in turn: the same block of the same disk; what follows the piece that was
    /// found last; a piece with the same fingerprint anywhere. If none of them is equal, the result is the same block of
    /// the same disk with its old content, where there is one.
    ///
    /// # Errors
    /// Fails where the base's map cannot be read or is damaged.
    pub fn find(&mut self, piece: &Piece, fingerprint: Fingerprint) -> Result<Option<Match>, Error> {
        let same_block = match piece.kind {
            PieceKind::Block(cluster, n) => self.block(cluster, n)?,
            _ => None,
        };
        let same = self.check(same_block, piece, fingerprint)?;
        if let Some(found) = same.filter(|f| f.equal) {
            return Ok(Some(found));
        }
        if let Some(found) = self.find_next(piece, fingerprint)? {
            return Ok(Some(found));
        }
        let anywhere = self.anywhere(fingerprint)?;
        if let Some(found) = self.check(anywhere, piece, fingerprint)?.filter(|f| f.equal) {
            return Ok(Some(found));
        }
        self.next = None;
        Ok(same)
    }

    /// The length in bytes of the piece that follows the one that was found last.
    ///
    /// # Errors
    /// As [`Cursor::find`].
    pub fn following_len(&mut self) -> Result<Option<usize>, Error> {
        let Some(next) = self.next else { return Ok(None) };
        Ok(self.locate(next)?.map(|found| found.entry.len as usize))
    }

    /// Finds a piece if it follows the one that was found last.
    ///
    /// # Errors
    /// As [`Cursor::find`].
    pub fn find_next(&mut self, piece: &Piece, fingerprint: Fingerprint) -> Result<Option<Match>, Error> {
        Ok(self.check(self.next, piece, fingerprint)?.filter(|found| found.equal))
    }

    /// The entry of block `n` of this cluster.
    fn block(&mut self, cluster: Cluster, n: u8) -> Result<Option<EntryRef>, Error> {
        let Some(place) = self.index.clusters.get(cluster).filter(|place| place.mask >> n & 1 == 1) else {
            return Ok(None);
        };
        let segment = place.segment;
        let first = self.load(segment)?.and_then(|map| map.clusters.get(place.nth)).map(|(_, entry)| *entry);
        let below = place.mask & ((1u16 << n) - 1);
        Ok(first.map(|first| EntryRef { segment, entry: (first + below.count_ones()) as usize }))
    }

    /// An entry with this fingerprint.
    fn anywhere(&mut self, fingerprint: Fingerprint) -> Result<Option<EntryRef>, Error> {
        let Some(segment) = self.index.table.get(fingerprint) else { return Ok(None) };
        let map = self.load(segment)?;
        let entry = map.and_then(|map| map.entries.iter().position(|e| e.fingerprint == fingerprint));
        Ok(entry.map(|entry| EntryRef { segment, entry }))
    }

    /// Compares the entry at `place` with a piece.
    fn check(
        &mut self,
        place: Option<EntryRef>,
        piece: &Piece,
        fingerprint: Fingerprint,
    ) -> Result<Option<Match>, Error> {
        let Some(place) = place else { return Ok(None) };
        let Some(Located { place, start, entry }) = self.locate(place)? else { return Ok(None) };
        let equal = entry.fingerprint == fingerprint && entry.len as usize == piece.len;
        let headed = piece.kind == PieceKind::Clusters && self.is_headed(place)?;
        if equal {
            self.next = Some(EntryRef { entry: place.entry + 1, ..place });
        }
        Ok(Some(Match { at: start + u64::from(entry.at), len: entry.len as usize, equal, headed }))
    }

    /// Looks an entry up. Behind the last entry of a segment comes the first one of the next segment.
    fn locate(&mut self, EntryRef { segment, entry: n }: EntryRef) -> Result<Option<Located>, Error> {
        let Some(map) = self.load(segment)? else { return Ok(None) };
        if let Some(entry) = map.entries.get(n) {
            let place = EntryRef { segment, entry: n };
            return Ok(Some(Located { place, start: map.start, entry: *entry }));
        }
        let next = if n == map.entries.len() { self.load(segment + 1)? } else { None };
        let place = EntryRef { segment: segment + 1, entry: 0 };
        Ok(next.and_then(|map| {
            map.entries.first().map(|entry| Located { place, start: map.start, entry: *entry })
        }))
    }

    /// Whether the entry follows a gap in which the front of a VMA extent's header has room.
    fn is_headed(&mut self, EntryRef { segment, entry: n }: EntryRef) -> Result<bool, Error> {
        let Some(map) = self.load(segment)? else { return Ok(false) };
        let before = n.checked_sub(1).map_or(0, |last| map.entries[last].end());
        Ok(map.entries[n].at - before >= EXTENT_FRONT as u32)
    }

    fn load(&mut self, n: u32) -> Result<Option<&SegmentMap>, Error> {
        if self.segment.as_ref().is_none_or(|(have, _)| *have != n) {
            let Some(map) = self.index.segment(n)? else { return Ok(None) };
            self.segment = Some((n, map));
        }
        Ok(self.segment.as_ref().map(|(_, map)| map.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::chunker::{Layout, Segment};
    use crate::matching::fingerprint::Secret;

    /// A segment of 100 pieces of random content.
    fn segment(start: u64, seed: u64) -> Segment {
        let data = (0u64..100 * 4096 / 16)
            .flat_map(|n| Secret::new(&[seed as u8; 32]).fingerprint(&n.to_le_bytes()).to_bytes())
            .collect();
        Segment { start, data, layout: Layout::Bytes }
    }

    #[test]
    fn pieces_are_found_by_content_and_by_neighbourhood() {
        let secret = Secret::new(&[7; 32]);
        let mut index = Index::unmapped(1 << 20).unwrap();
        let segments = [segment(0, 1), segment(100 * 4096 / 16 * 12, 2)];
        for s in &segments {
            index.push(SegmentMap::new(s, &secret));
        }
        // What follows is known, over the end of a segment.
        let mut cursor = index.cursor();
        assert_eq!(cursor.following_len().unwrap(), None);
        let print = |s: &Segment, p: &Piece| secret.fingerprint(&s.data[p.at..p.at + p.len]);
        let (last, first) = (segments[0].pieces().last().unwrap(), segments[1].pieces().next().unwrap());
        cursor.find(&last, print(&segments[0], &last)).unwrap();
        assert_eq!(cursor.find_next(&last, print(&segments[0], &last)).unwrap(), None);
        assert_eq!(cursor.following_len().unwrap(), Some(first.len));
        let found = cursor.find_next(&first, print(&segments[1], &first)).unwrap();
        assert_eq!(found, Some(Match { at: segments[1].start, len: first.len, equal: true, headed: false }));

        for thin in [false, true] {
            if thin {
                // As if the table had lost nearly everything.
                index.table = FingerprintTable::new(0, &mut Budget::of(0)).unwrap();
                let first = segments[0].pieces().next().unwrap();
                index.table.insert(secret.fingerprint(&segments[0].data[..first.len]), 0);
            }
            let mut cursor = index.cursor();
            for s in &segments {
                for p in s.pieces() {
                    let found =
                        cursor.find(&p, secret.fingerprint(&s.data[p.at..p.at + p.len])).unwrap().unwrap();
                    assert_eq!(
                        found,
                        Match { at: s.start + p.at as u64, len: p.len, equal: true, headed: false }
                    );
                }
            }
        }
        index.forget(segments[1].start);
        let p = segments[0].pieces().next().unwrap();
        let print = secret.fingerprint(&segments[0].data[..p.len]);
        assert_eq!(index.cursor().find(&p, print).unwrap(), None);
    }
}
