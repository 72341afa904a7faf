//! Finding the pieces of a new stream in the base.

use std::collections::HashMap;
use std::sync::Arc;

use super::Error;
use super::cut::{Cluster, Piece};
use super::map::{Chunk, Entry, Map};
use super::print::Print;

/// Where a piece lies: 20 bits for the chunk, 12 for the entry (where a chunk has more entries, as archives of
/// very small files do, those are not indexed). That reaches 8 TiB; what lies behind is not indexed either.
type Id = u32;
const ENTRY_BITS: u32 = 12;

fn id(chunk: usize, entry: usize) -> Option<Id> {
    // One less, so that an id plus one still fits a slot.
    (chunk < (1 << (32 - ENTRY_BITS)) - 1 && entry < 1 << ENTRY_BITS)
        .then_some((chunk << ENTRY_BITS | entry) as Id)
}

/// A set of fingerprints: open addressing, 8 bytes a slot. The slot holds 32 bits of the fingerprint
/// and the piece's place; whoever finds it checks the whole fingerprint there.
///
/// Memory is bounded: when the table may not grow any more, a random half of the fingerprints is dropped
/// (those with a certain bit set), and again. Pieces found in the neighbourhood of another are
/// found without the table, so that little is lost.
struct Table {
    slots: Vec<u64>,
    used: usize,
    limit: usize,
    /// Fingerprints whose tag has one of these bits set are left out.
    skip: u32,
}

const FIRST_SLOTS: usize = 1 << 12;

fn tag(print: Print) -> u32 {
    (print.high >> 32) as u32
}

impl Table {
    fn new() -> Table {
        Table { slots: vec![0; FIRST_SLOTS], used: 0, limit: FIRST_SLOTS, skip: 0 }
    }

    /// Slots that a base of this size may have: 64 MiB of memory and 0.5 MiB for every GiB.
    fn allow(&mut self, base: u64) {
        let bytes = (64 << 20) + (base >> 11) as usize;
        // The largest power of two that is not larger.
        self.limit = 1 << (bytes / 8).ilog2();
    }

    fn start(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.slots.len() as u64) >> 32) as usize
    }

    fn insert(&mut self, print: Print, id: Id) {
        let tag = tag(print);
        if tag & self.skip != 0 {
            return;
        }
        if self.used * 4 >= self.slots.len() * 3 {
            self.make_room();
        }
        self.put(tag, id);
    }

    /// The first one with its tag stays, so that a base full of equal pieces makes no long chains.
    fn put(&mut self, tag: u32, id: Id) {
        let mut at = self.start(tag);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                self.slots[at] = (u64::from(tag) << 32) | (u64::from(id) + 1);
                self.used += 1;
                return;
            }
            if (slot >> 32) as u32 == tag {
                return;
            }
            at = (at + 1) % self.slots.len();
        }
    }

    fn make_room(&mut self) {
        let mut size = self.slots.len() * 2;
        if size > self.limit {
            size = self.slots.len();
            self.skip = self.skip << 1 | 1;
        }
        let old = std::mem::replace(&mut self.slots, vec![0; size]);
        self.used = 0;
        for slot in old {
            let (tag, id) = ((slot >> 32) as u32, (slot & 0xffff_ffff) as u32);
            if id != 0 && tag & self.skip == 0 {
                self.put(tag, id - 1);
            }
        }
    }

    fn get(&self, print: Print) -> Option<Id> {
        let tag = tag(print);
        let mut at = self.start(tag);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == tag {
                return Some((slot & 0xffff_ffff) as u32 - 1);
            }
            at = (at + 1) % self.slots.len();
        }
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
    /// By device and cluster: the first entry and the mask.
    clusters: HashMap<u8, Vec<(Id, u16)>>,
    store: Store,
    size: u64,
}

/// Clusters of one device that are indexed: those of 16 TiB.
const MAX_CLUSTERS: usize = 1 << 28;

/// A piece of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Place in the base's content.
    pub at: u64,
    /// Bytes.
    pub len: usize,
    /// Whether its content equals that of the piece that was looked for.
    pub equal: bool,
}

impl Index {
    /// The index of a base with a map.
    ///
    /// # Errors
    /// Where the map cannot be read or is damaged.
    pub fn of_map(map: Arc<Map>) -> Result<Index, Error> {
        let mut index = Index::new(Store::Mapped(Arc::clone(&map)));
        for n in 0..map.chunks() {
            index.learn(n, &map.read_chunk(n)?);
        }
        Ok(index)
    }

    /// An empty index, to be filled with [`Index::push`].
    pub fn growing() -> Index {
        Index::new(Store::Resident { first: 0, chunks: Default::default() })
    }

    fn new(store: Store) -> Index {
        Index { table: Table::new(), clusters: HashMap::new(), store, size: 0 }
    }

    /// Adds the next segment of the base (where the index has no map).
    pub fn push(&mut self, chunk: Chunk) {
        let Store::Resident { first, chunks } = &mut self.store else { return };
        let n = *first + chunks.len();
        let chunk = Arc::new(chunk);
        chunks.push_back(Arc::clone(&chunk));
        self.learn(n, &chunk);
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
        self.size += u64::from(chunk.len);
        self.table.allow(self.size);
        for (e, entry) in chunk.entries.iter().enumerate() {
            if let Some(id) = id(n, e) {
                self.table.insert(entry.print, id);
            }
        }
        for (c, e) in &chunk.clusters {
            let (Some(id), number) = (id(n, *e as usize), c.number as usize) else { continue };
            let device = self.clusters.entry(c.device).or_default();
            // Clusters come nearly in order; a wild number in a damaged base must not cost memory.
            if number < MAX_CLUSTERS && number < device.len() + (1 << 20) {
                if number >= device.len() {
                    device.resize(number + 1, (0, 0));
                }
                device[number] = (id, c.mask);
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

    /// Starts looking up pieces in order.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { index: self, chunk: None, next: None }
    }
}

/// Looks up one piece after another; knows where the last one was found.
pub struct Cursor<'a> {
    index: &'a Index,
    chunk: Option<(u32, Arc<Chunk>)>,
    next: Option<Id>,
}

impl Cursor<'_> {
    /// Finds a piece in the base: the same block of the same disk, or what follows the piece found
    /// last, or the same content anywhere. A block whose content changed is found too (`equal` is false then).
    ///
    /// # Errors
    /// Where the base's map cannot be read or is damaged.
    pub fn find(&mut self, piece: &Piece, print: Print) -> Result<Option<Found>, Error> {
        let same_block = piece.block.and_then(|(c, n)| self.block(c, n));
        let same = self.check(same_block, piece, print)?;
        if let Some(found) = same.filter(|f| f.equal) {
            return Ok(Some(found));
        }
        for candidate in [self.next, self.index.table.get(print)] {
            if let Some(found) = self.check(candidate, piece, print)?.filter(|f| f.equal) {
                return Ok(Some(found));
            }
        }
        self.next = None;
        Ok(same)
    }

    /// The entry of the same block of the same disk.
    fn block(&self, cluster: Cluster, n: u8) -> Option<Id> {
        let &(first, mask) = self.index.clusters.get(&cluster.device)?.get(cluster.number as usize)?;
        let below = mask & ((1u16 << n) - 1);
        (mask >> n & 1 == 1).then(|| first + below.count_ones())
    }

    fn check(&mut self, id: Option<Id>, piece: &Piece, print: Print) -> Result<Option<Found>, Error> {
        let Some(id) = id else { return Ok(None) };
        let Some((id, start, entry)) = self.entry(id)? else { return Ok(None) };
        let equal = entry.print == print && entry.len as usize == piece.len;
        if equal {
            self.next = Some(id + 1);
        }
        Ok(Some(Found { at: start + u64::from(entry.at), len: entry.len as usize, equal }))
    }

    /// The entry with this id; behind the last entry of a chunk comes the first of the next.
    fn entry(&mut self, id: Id) -> Result<Option<(Id, u64, Entry)>, Error> {
        let (n, e) = (id >> ENTRY_BITS, (id & ((1 << ENTRY_BITS) - 1)) as usize);
        let Some(chunk) = self.load(n)? else { return Ok(None) };
        if let Some(entry) = chunk.entries.get(e) {
            return Ok(Some((id, chunk.start, *entry)));
        }
        let following = (n + 1) << ENTRY_BITS;
        let next = if e == chunk.entries.len() { self.load(n + 1)? } else { None };
        Ok(next.and_then(|chunk| chunk.entries.first().map(|entry| (following, chunk.start, *entry))))
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
        let mut table = Table::new();
        table.limit = 1 << 14;
        for n in 0..100_000 {
            table.insert(print(n), n as u32);
            assert!(table.slots.len() <= 1 << 14);
        }
        let found = (0..100_000).filter(|&n| table.get(print(n)) == Some(n as u32)).count();
        let kept = 100_000 >> table.skip.count_ones();
        assert!(found > kept * 9 / 10 && found < kept * 11 / 10, "{found} of {kept}");
        assert!((100_000..200_000).filter(|&n| table.get(print(n)).is_some()).count() < 20);
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
        let mut index = Index::growing();
        let segments = [segment(0, 1), segment(100 * 4096 / 16 * 12, 2)];
        for s in &segments {
            index.push(Chunk::new(s, &s.pieces(), &secret));
        }
        // As if the table had lost nearly everything.
        index.table.skip = 0xff;
        for thin in [false, true] {
            if thin {
                index.table.slots.fill(0);
                let first = &segments[0].pieces()[0];
                let print = secret.print(&segments[0].data[..first.len]);
                index.table.skip = 0;
                index.table.insert(print, 0);
            }
            let mut cursor = index.cursor();
            for s in &segments {
                for p in s.pieces() {
                    let found = cursor.find(&p, secret.print(&s.data[p.at..p.at + p.len])).unwrap().unwrap();
                    assert_eq!(found, Found { at: s.start + p.at as u64, len: p.len, equal: true });
                }
            }
        }
        index.forget(segments[1].start);
        let p = segments[0].pieces()[0];
        let print = secret.print(&segments[0].data[..p.len]);
        assert_eq!(index.cursor().find(&p, print).unwrap(), None);
    }
}
