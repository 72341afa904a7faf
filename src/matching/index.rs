//! Finding the pieces of a new stream in the base.

use std::collections::HashMap;
use std::sync::Arc;

use super::Error;
use super::cut::{Cluster, Part, Piece};
use super::map::{Chunk, Entry, Map};
use super::print::Print;
use super::seed::Seeds;
use crate::budget::{Budget, Spent};
use crate::container::ReadAt;
use crate::vma::EXTENT_FRONT;

/// Where a cluster lies: 20 bits for the chunk, 12 for its number among the clusters there. That reaches 8 TiB; what
/// lies behind is found by content only where it follows something found.
type Id = u32;
const CLUSTER_BITS: u32 = 12;
/// Chunks that can be told apart.
const MAX_CHUNKS: usize = (1 << (32 - CLUSTER_BITS)) - 1;

fn id(chunk: usize, cluster: usize) -> Option<Id> {
    (chunk < MAX_CHUNKS && cluster < 1 << CLUSTER_BITS).then_some((chunk << CLUSTER_BITS | cluster) as Id)
}

/// Which chunk holds a fingerprint: a hash table of fixed size, 4 bytes a slot. A slot holds the chunk's number
/// (20 bits, one more, so that none is 0) and 12 bits of the fingerprint; whoever finds it looks into the chunk.
///
/// Memory is bounded: where a bucket is full, the new fingerprint takes the place of another. Pieces found in the
/// neighbourhood of another are found without the table, so that little is lost.
struct Table {
    buckets: Vec<[u32; BUCKET]>,
}

/// Slots of a bucket: a line of the processor's cache.
const BUCKET: usize = 16;
const TAG_BITS: u32 = 12;
const TAG_MASK: u32 = (1 << TAG_BITS) - 1;

fn tag(print: Print) -> u32 {
    print.high as u32 & TAG_MASK
}

impl Table {
    /// A table for a base of this size: 4 slots for 4 KiB of it, which is more than it has pieces; from 5 GiB on
    /// 18 MiB of memory and 3/8 MiB for every GiB.
    fn new(base: u64, budget: &mut Budget) -> Result<Table, Spent> {
        let bytes = (base >> 8).min((18 << 20) + (base >> 12) + (base >> 13)).max(1 << 14);
        Ok(Table { buckets: budget.table([0; BUCKET], bytes as usize / (4 * BUCKET))? })
    }

    fn bucket(&self, print: Print) -> usize {
        ((u128::from(print.high) * self.buckets.len() as u128) >> 64) as usize
    }

    /// The last one with its tag stays: of a base that is read alongside, the others may be forgotten already.
    fn insert(&mut self, print: Print, chunk: usize) {
        if chunk >= MAX_CHUNKS {
            return;
        }
        let (n, tag) = (self.bucket(print), tag(print));
        let bucket = &mut self.buckets[n];
        let slot = bucket.iter().position(|&slot| slot != 0 && slot & TAG_MASK == tag);
        let slot = slot.or_else(|| bucket.iter().position(|&slot| slot == 0));
        // Bits of the fingerprint that neither tag nor bucket depend on.
        let slot = slot.unwrap_or((print.high >> TAG_BITS) as usize % BUCKET);
        bucket[slot] = (chunk as u32 + 1) << TAG_BITS | tag;
    }

    fn get(&self, print: Print) -> Option<u32> {
        let tag = tag(print);
        let bucket = &self.buckets[self.bucket(print)];
        let slot = bucket.iter().find(|&&slot| slot != 0 && slot & TAG_MASK == tag)?;
        Some((slot >> TAG_BITS) - 1)
    }
}

/// Where the chunks are.
enum Store {
    /// In the base's own map.
    Mapped(Arc<Map>),
    /// In memory, the first of them having this number.
    Resident { first: usize, chunks: std::collections::VecDeque<Arc<Chunk>> },
}

/// All that is known of the base's content.
pub struct Index {
    table: Table,
    seeds: Seeds,
    clusters: Clusters,
    store: Store,
}

/// No base is larger than this for each byte of its map: pieces of 32 KiB would be 600.
const MAX_MAPPED: u64 = 512;
/// Bytes that the index may take for each byte of the map; it takes a tenth of them.
const MAP_SHARE: u64 = 8;
/// What the index may take where there is no map: the clusters of 2 TiB.
const UNMAPPED: u64 = 256 << 20;

/// Where the clusters of disks are, and the mask of each, in pages of neighbours. Clusters come nearly
/// in order, so that hardly a page is not full.
struct Clusters {
    pages: HashMap<(u8, u32), Box<Page>>,
    budget: Budget,
}

/// Clusters of a page, and the bytes that one takes.
const PAGE: usize = 32;
type Page = [(Id, u16); PAGE];
const PAGE_BYTES: u64 = size_of::<Page>() as u64 + 64;

impl Clusters {
    /// Takes a cluster in. Where the budget is spent, a further page is left out: its pieces are found by their content.
    fn insert(&mut self, device: u8, number: u32, place: (Id, u16)) {
        let key = (device, number / PAGE as u32);
        if !self.pages.contains_key(&key) && self.budget.take(PAGE_BYTES).is_err() {
            return;
        }
        self.pages.entry(key).or_insert_with(|| Box::new([(0, 0); PAGE]))[number as usize % PAGE] = place;
    }

    fn get(&self, cluster: Cluster) -> Option<(Id, u16)> {
        let page = self.pages.get(&(cluster.device, cluster.number / PAGE as u32))?;
        Some(page[cluster.number as usize % PAGE])
    }
}

/// A piece of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Place in the base's content.
    pub at: u64,
    /// Bytes.
    pub len: usize,
    /// Whether its content equals that of the piece that was looked for.
    pub equal: bool,
    /// Whether it follows a gap in which the front of an extent's header has room.
    pub headed: bool,
}

impl Index {
    /// The index of a base with a map.
    ///
    /// # Errors
    /// Where the map cannot be read or is damaged.
    pub fn of_map(map: Arc<Map>) -> Result<Index, Error> {
        let stored = map.stored();
        let bytes = map.size().min(stored.saturating_mul(MAX_MAPPED));
        let budget = Budget::of(stored.saturating_mul(MAP_SHARE));
        let mut index = Index::new(Store::Mapped(Arc::clone(&map)), bytes, budget)?;
        for n in 0..map.chunks() {
            index.learn(n, &map.read_chunk(n)?);
        }
        Ok(index)
    }

    /// An empty index, to be filled with [`Index::push`]. It will know about `bytes` of the base at a time.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn growing(bytes: u64) -> Result<Index, Error> {
        Index::new(Store::Resident { first: 0, chunks: Default::default() }, bytes, Budget::of(UNMAPPED))
    }

    fn new(store: Store, bytes: u64, mut budget: Budget) -> Result<Index, Error> {
        let failed =
            |spent: Spent| Error::Io { what: "cannot index the full backup".into(), source: spent.into() };
        let table = Table::new(bytes, &mut budget).map_err(failed)?;
        let seeds = Seeds::new(bytes, &mut budget).map_err(failed)?;
        Ok(Index { table, seeds, clusters: Clusters { pages: HashMap::new(), budget }, store })
    }

    /// Adds the next segment of the base (where the index has no map).
    pub fn push(&mut self, chunk: Chunk) {
        let Store::Resident { first, chunks } = &self.store else { return };
        let n = first + chunks.len();
        self.learn(n, &chunk);
        let Store::Resident { chunks, .. } = &mut self.store else { return };
        chunks.push_back(Arc::new(Chunk { seeds: Vec::new(), ..chunk }));
    }

    /// Forgets the segments that end before `pos` (where the index has no map).
    pub fn forget(&mut self, pos: u64) {
        if let Store::Resident { first, chunks } = &mut self.store {
            while chunks.front().is_some_and(|c| c.start + u64::from(c.len) <= pos) {
                chunks.pop_front();
                *first += 1;
            }
        }
    }

    fn learn(&mut self, n: usize, chunk: &Chunk) {
        for entry in &chunk.entries {
            self.table.insert(entry.print, n);
        }
        self.seeds.learn(n, &chunk.seeds);
        for (nth, (c, _)) in chunk.clusters.iter().enumerate() {
            if let Some(id) = id(n, nth) {
                self.clusters.insert(c.device, c.number, (id, c.mask));
            }
        }
    }

    fn chunk(&self, n: u32) -> Result<Option<Arc<Chunk>>, Error> {
        match &self.store {
            Store::Mapped(map) if n as usize >= map.chunks() => Ok(None),
            Store::Mapped(map) => map.chunk(n).map(Some),
            Store::Resident { first, chunks } => {
                Ok((n as usize).checked_sub(*first).and_then(|n| chunks.get(n)).cloned())
            }
        }
    }

    /// Seeds of the base in `new`: where they begin in there, and where in the base's content.
    ///
    /// # Errors
    /// As [`Cursor::find`].
    pub fn find_seeds(&self, new: &[u8]) -> Result<Vec<(usize, u64)>, Error> {
        self.seeds
            .find(new)
            .filter_map(|(at, chunk, place)| {
                let chunk = self.chunk(chunk).transpose()?;
                Some(chunk.map(|chunk| (at, chunk.start + place as u64)))
            })
            .collect()
    }

    /// Starts looking up pieces in order.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { index: self, chunk: None, next: None }
    }
}

/// Where a piece of the base is: chunk and entry.
type Place = (u32, usize);

/// Looks up one piece after another; knows where the last one was found.
pub struct Cursor<'a> {
    index: &'a Index,
    chunk: Option<(u32, Arc<Chunk>)>,
    next: Option<Place>,
}

impl Cursor<'_> {
    /// Finds a piece in the base: the same block of the same disk, or what follows the piece found
    /// last, or the same content anywhere. A block whose content changed is found too (`equal` is false then).
    ///
    /// # Errors
    /// Where the base's map cannot be read or is damaged.
    pub fn find(&mut self, piece: &Piece, print: Print) -> Result<Option<Found>, Error> {
        let same_block = match piece.part {
            Part::Block(cluster, n) => self.block(cluster, n)?,
            _ => None,
        };
        let same = self.check(same_block, piece, print)?;
        if let Some(found) = same.filter(|f| f.equal) {
            return Ok(Some(found));
        }
        if let Some(found) = self.find_next(piece, print)? {
            return Ok(Some(found));
        }
        let anywhere = self.anywhere(print)?;
        if let Some(found) = self.check(anywhere, piece, print)?.filter(|f| f.equal) {
            return Ok(Some(found));
        }
        self.next = None;
        Ok(same)
    }

    /// Length of what follows the piece that was found last.
    ///
    /// # Errors
    /// As [`Cursor::find`].
    pub fn follows(&mut self) -> Result<Option<usize>, Error> {
        let Some(next) = self.next else { return Ok(None) };
        Ok(self.entry(next)?.map(|(_, _, entry)| entry.len as usize))
    }

    /// Finds a piece where it follows the one found last.
    ///
    /// # Errors
    /// As [`Cursor::find`].
    pub fn find_next(&mut self, piece: &Piece, print: Print) -> Result<Option<Found>, Error> {
        Ok(self.check(self.next, piece, print)?.filter(|found| found.equal))
    }

    /// The entry of the same block of the same disk.
    fn block(&mut self, cluster: Cluster, n: u8) -> Result<Option<Place>, Error> {
        let Some((id, mask)) = self.index.clusters.get(cluster).filter(|(_, mask)| mask >> n & 1 == 1) else {
            return Ok(None);
        };
        let (chunk, nth) = (id >> CLUSTER_BITS, id & ((1 << CLUSTER_BITS) - 1));
        let first = self.load(chunk)?.and_then(|chunk| chunk.clusters.get(nth as usize)).map(|(_, e)| *e);
        let below = mask & ((1u16 << n) - 1);
        Ok(first.map(|first| (chunk, (first + below.count_ones()) as usize)))
    }

    /// An entry with this fingerprint.
    fn anywhere(&mut self, print: Print) -> Result<Option<Place>, Error> {
        let Some(n) = self.index.table.get(print) else { return Ok(None) };
        let chunk = self.load(n)?;
        Ok(chunk.and_then(|c| c.entries.iter().position(|e| e.print == print)).map(|entry| (n, entry)))
    }

    fn check(&mut self, place: Option<Place>, piece: &Piece, print: Print) -> Result<Option<Found>, Error> {
        let Some(place) = place else { return Ok(None) };
        let Some((place, start, entry)) = self.entry(place)? else { return Ok(None) };
        let equal = entry.print == print && entry.len as usize == piece.len;
        let headed = piece.part == Part::Clusters && self.is_headed(place)?;
        if equal {
            self.next = Some((place.0, place.1 + 1));
        }
        Ok(Some(Found { at: start + u64::from(entry.at), len: entry.len as usize, equal, headed }))
    }

    /// The entry at this place; behind the last entry of a chunk comes the first of the next.
    fn entry(&mut self, (n, e): Place) -> Result<Option<(Place, u64, Entry)>, Error> {
        let Some(chunk) = self.load(n)? else { return Ok(None) };
        if let Some(entry) = chunk.entries.get(e) {
            return Ok(Some(((n, e), chunk.start, *entry)));
        }
        let next = if e == chunk.entries.len() { self.load(n + 1)? } else { None };
        Ok(next.and_then(|chunk| chunk.entries.first().map(|entry| ((n + 1, 0), chunk.start, *entry))))
    }

    /// Whether the entry follows a gap in which the front of an extent's header has room.
    fn is_headed(&mut self, (n, e): Place) -> Result<bool, Error> {
        let Some(chunk) = self.load(n)? else { return Ok(false) };
        let before = e.checked_sub(1).map_or(0, |last| chunk.entries[last].at + chunk.entries[last].len);
        Ok(chunk.entries[e].at - before >= EXTENT_FRONT as u32)
    }

    fn load(&mut self, n: u32) -> Result<Option<&Chunk>, Error> {
        if self.chunk.as_ref().is_none_or(|(have, _)| *have != n) {
            let Some(chunk) = self.index.chunk(n)? else { return Ok(None) };
            self.chunk = Some((n, chunk));
        }
        Ok(self.chunk.as_ref().map(|(_, chunk)| chunk.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cut::{Layout, Segment};
    use super::super::print::Secret;
    use super::*;

    fn print(n: u64) -> Print {
        Secret::new(&[1; 32]).print(&n.to_le_bytes())
    }

    #[test]
    fn the_table_finds_what_it_holds_and_stays_in_its_bounds() {
        let gib = |n: u64| {
            (Table::new(n << 30, &mut Budget::of(u64::MAX)).unwrap().buckets.len() * 4 * BUCKET) >> 20
        };
        assert_eq!([1, 4, 16, 64, 1024].map(gib), [4, 16, 24, 42, 402]);

        let mut table = Table::new(8 << 20, &mut Budget::of(0)).unwrap();
        let room = table.buckets.len() * BUCKET;
        let found = |table: &Table, all: &[u64]| {
            all.iter().filter(|&&n| table.get(print(n)) == Some(n as u32 / 10)).count()
        };
        let all: Vec<u64> = (0..4 * room as u64).collect();
        for (n, part) in all.chunks(room / 4).enumerate() {
            part.iter().for_each(|&n| table.insert(print(n), n as usize / 10));
            let found = found(&table, &all[..(n + 1) * (room / 4)]);
            let least = [24, 48, 68, 82, 90, 90][n.min(5)];
            assert!(found * 100 >= room * least, "{found} of {} in {room}", (n + 1) * (room / 4));
        }
        assert_eq!(table.buckets.len() * BUCKET, room);
        let strange = (1 << 40..(1 << 40) + 10_000).filter(|&n| table.get(print(n)).is_some()).count();
        assert!(
            strange < 10_000 * BUCKET / (1 << TAG_BITS) * 2,
            "{strange} were found that never were there"
        );
    }

    /// A segment of 100 pieces of random content.
    fn segment(start: u64, seed: u64) -> Segment {
        let data = (0u64..100 * 4096 / 16)
            .flat_map(|n| Secret::new(&[seed as u8; 32]).print(&n.to_le_bytes()).to_bytes())
            .collect();
        Segment { start, data, layout: Layout::Bytes }
    }

    #[test]
    fn pieces_are_found_by_content_and_by_neighbourhood() {
        let secret = Secret::new(&[7; 32]);
        let mut index = Index::growing(1 << 20).unwrap();
        let segments = [segment(0, 1), segment(100 * 4096 / 16 * 12, 2)];
        for s in &segments {
            index.push(Chunk::new(s, &secret));
        }
        // What follows is known, over the end of a segment.
        let mut cursor = index.cursor();
        assert_eq!(cursor.follows().unwrap(), None);
        let print = |s: &Segment, p: &Piece| secret.print(&s.data[p.at..p.at + p.len]);
        let (last, first) = (segments[0].pieces().last().unwrap(), segments[1].pieces().next().unwrap());
        cursor.find(&last, print(&segments[0], &last)).unwrap();
        assert_eq!(cursor.find_next(&last, print(&segments[0], &last)).unwrap(), None);
        assert_eq!(cursor.follows().unwrap(), Some(first.len));
        let found = cursor.find_next(&first, print(&segments[1], &first)).unwrap();
        assert_eq!(found, Some(Found { at: segments[1].start, len: first.len, equal: true, headed: false }));

        for thin in [false, true] {
            if thin {
                // As if the table had lost nearly everything.
                index.table = Table::new(0, &mut Budget::of(0)).unwrap();
                let first = segments[0].pieces().next().unwrap();
                index.table.insert(secret.print(&segments[0].data[..first.len]), 0);
            }
            let mut cursor = index.cursor();
            for s in &segments {
                for p in s.pieces() {
                    let found = cursor.find(&p, secret.print(&s.data[p.at..p.at + p.len])).unwrap().unwrap();
                    assert_eq!(
                        found,
                        Found { at: s.start + p.at as u64, len: p.len, equal: true, headed: false }
                    );
                }
            }
        }
        index.forget(segments[1].start);
        let p = segments[0].pieces().next().unwrap();
        let print = secret.print(&segments[0].data[..p.len]);
        assert_eq!(index.cursor().find(&p, print).unwrap(), None);
    }
}
