//! Seeds: short strings of the base, by which changed data is found again wherever it has gone.
//!
//! A program that was built anew, a table that was rewritten, a file that grew in its middle: hardly a block of it is
//! as it was, but most of its bytes are, somewhere. Of every [`CELL`] of the base one string is remembered by its
//! hash. New data that nothing is known of is searched for these at every byte; where some are found, the base's
//! bytes around them are compared.

use std::collections::HashMap;

use super::cut::GEAR;
use crate::budget::{Budget, Spent};

/// Bytes of the base for which there is one seed.
pub const CELL: usize = 4 << 10;
/// Bytes of a seed. A change every 300 bytes still leaves nine of ten whole.
const LEN: usize = 32;
/// A seed as the map holds it: where in the cell it begins, and its hash (u32). All zero where there is none.
pub const STORED: usize = 5;
/// Seeds begin near the front or near the middle of their cell, at one of so many places: the first whose hash
/// begins with [`RARE`] zero bits. So few strings have to be looked up.
const PLACES: usize = 128;
const RARE: u32 = 6;
/// A seed has so many different bytes at least: zeros, and the like, are everywhere.
const VARIETY: u32 = 8;

/// Takes a byte into a hash, which forgets those more than [`LEN`] back: each moves on by two bits of 64.
#[inline]
fn roll(hash: u64, byte: u8) -> u64 {
    (hash << 2).wrapping_add(GEAR[usize::from(byte)])
}

/// The strings in `bytes` that may be seeds: where they begin, and their hashes.
fn candidates(bytes: &[u8]) -> impl Iterator<Item = (usize, u32)> + '_ {
    let (first, rest) = bytes.split_at(bytes.len().min(LEN - 1));
    let mut hash = first.iter().fold(0, |hash, &byte| roll(hash, byte));
    rest.iter().enumerate().filter_map(move |(at, &byte)| {
        hash = roll(hash, byte);
        (hash >> (64 - RARE) == 0).then_some((at, (hash >> (32 - RARE)) as u32))
    })
}

fn varied(bytes: &[u8]) -> bool {
    let mut seen = [0u64; 4];
    bytes.iter().for_each(|&b| seen[usize::from(b >> 6)] |= 1 << (b & 63));
    seen.iter().map(|word| word.count_ones()).sum::<u32>() >= VARIETY
}

/// The seeds of a segment, one for each cell, as the map holds them.
pub fn of(data: &[u8]) -> Vec<[u8; STORED]> {
    let of_cell = |cell: &[u8]| {
        let seed = [0, CELL / 2].into_iter().enumerate().find_map(|(half, start)| {
            let bytes = &cell[start.min(cell.len())..(start + PLACES + LEN - 1).min(cell.len())];
            let (at, hash) = candidates(bytes).find(|(at, _)| varied(&bytes[*at..at + LEN]))?;
            Some(((half * PLACES + at) as u8, hash))
        });
        let (place, hash) = seed.unwrap_or_default();
        let mut stored = [place; STORED];
        stored[1..].copy_from_slice(&hash.to_le_bytes());
        stored
    };
    data.chunks(CELL).map(of_cell).collect()
}

/// Where which seeds of the base are: a hash table of fixed size. Where a bucket is full, a seed takes the place of
/// another.
pub struct Seeds {
    buckets: Vec<[u64; BUCKET]>,
    /// Bit n: there may be a seed whose hash begins so. Small enough for the processor's cache.
    filter: Vec<u64>,
}

/// Slots of a bucket: a line of the processor's cache.
const BUCKET: usize = 8;
const FILTER_BITS: u32 = 22;
/// A slot: the number of the chunk, one more so that none is zero; cell and place in there; the rest are bits of the
/// hash.
const CHUNK_BITS: u32 = 20;
const CELL_BITS: u32 = 11;
const KEY_BITS: u32 = 64 - CHUNK_BITS - CELL_BITS - 8;

fn key(slot: u64) -> u64 {
    slot & ((1 << KEY_BITS) - 1)
}

impl Seeds {
    /// A table for a base of this size: a quarter more slots than it has cells; from 4 GiB on 10 MiB and 1/4 MiB for
    /// every further GiB.
    ///
    /// # Errors
    /// Where the budget is spent, or memory.
    pub fn new(base: u64, budget: &mut Budget) -> Result<Seeds, Spent> {
        let bytes = ((base >> 9) + (base >> 11)).min((9 << 20) + (base >> 12)).max(1 << 14);
        let buckets = budget.table([0; BUCKET], bytes as usize / (8 * BUCKET))?;
        Ok(Seeds { buckets, filter: budget.table(0, 1 << (FILTER_BITS - 6))? })
    }

    /// Where in the filter a hash has its bit.
    fn bit(hash: u32) -> (usize, u64) {
        let bit = hash >> (32 - FILTER_BITS);
        (bit as usize / 64, 1 << (bit % 64))
    }

    fn bucket(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }

    /// Takes in the seeds of a chunk.
    pub fn learn(&mut self, chunk: usize, seeds: &[[u8; STORED]]) {
        if chunk + 1 >= 1 << CHUNK_BITS {
            return;
        }
        for (cell, &[place, ref hash @ ..]) in seeds.iter().enumerate().take(1 << CELL_BITS) {
            let hash = u32::from_le_bytes(*hash);
            if hash == 0 {
                continue;
            }
            let place = (cell as u64) << 8 | u64::from(place);
            let slot = ((chunk as u64 + 1) << (CELL_BITS + 8) | place) << KEY_BITS | key(hash.into());
            let n = self.bucket(hash);
            let bucket = &mut self.buckets[n];
            let same = bucket.iter().position(|&s| s == 0 || key(s) == key(slot));
            bucket[same.unwrap_or(hash as usize % BUCKET)] = slot;
            let (word, bit) = Self::bit(hash);
            self.filter[word] |= bit;
        }
    }

    /// The chunk that has the seed with this hash, and where in it.
    fn get(&self, hash: u32) -> Option<(u32, usize)> {
        let (word, bit) = Self::bit(hash);
        if self.filter[word] & bit == 0 {
            return None;
        }
        let bucket = &self.buckets[self.bucket(hash)];
        let slot = bucket.iter().find(|&&s| s != 0 && key(s) == key(hash.into()))? >> KEY_BITS;
        let (cell, place) = ((slot >> 8) as usize & ((1 << CELL_BITS) - 1), slot as usize & 0xff);
        let place = cell * CELL + place / PLACES * (CELL / 2) + place % PLACES;
        Some(((slot >> (CELL_BITS + 8)) as u32 - 1, place))
    }

    /// Seeds of the base in `new`: where they begin, chunks, and places in these.
    pub fn find<'a>(&'a self, new: &'a [u8]) -> impl Iterator<Item = (usize, u32, usize)> + 'a {
        candidates(new).filter_map(|(at, hash)| self.get(hash).map(|(chunk, place)| (at, chunk, place)))
    }
}

/// So many zones (parts of the base that are decompressed as a whole) may be read for a segment, for several seeds each;
/// more only where seeds are many. Who restores has to read them, too.
const ZONES: usize = 24;
const SEVERAL: u32 = 3;
const MANY: u32 = 40;

/// Keeps, of the seeds found in a segment (where in it, and where in the base), those in zones that are worth reading;
/// `zone` tells which zone has a place of the base.
pub fn worthwhile(seeds: &mut Vec<(usize, u64)>, zone: impl Fn(u64) -> u64) {
    let mut zones = HashMap::<u64, u32>::new();
    seeds.iter().for_each(|(_, from)| *zones.entry(zone(*from)).or_default() += 1);
    let mut best: Vec<_> = zones.iter().map(|(&zone, &seeds)| (seeds, zone)).collect();
    best.sort_unstable_by(|a, b| b.cmp(a));
    for (rank, (count, zone)) in best.into_iter().enumerate() {
        if count < if rank < ZONES { SEVERAL } else { MANY } {
            zones.remove(&zone);
        }
    }
    seeds.retain(|(_, from)| zones.contains_key(&zone(*from)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(len: usize, seed: u64) -> Vec<u8> {
        let word = |n: u64| {
            let z = (n ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ z >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (z ^ z >> 32).to_le_bytes()
        };
        (0..len as u64 / 8 + 1).flat_map(word).take(len).collect()
    }

    #[test]
    fn seeds_are_found_at_any_place() {
        let base = random(300_000, 7);
        let mut all = Seeds::new(base.len() as u64, &mut Budget::of(0)).unwrap();
        all.learn(3, &of(&base));
        for shift in [0, 1, 777] {
            let new = [&random(shift, 99)[..], &base].concat();
            let found: Vec<_> = all.find(&new).collect();
            assert!(found.len() > 60, "{} of 74", found.len());
            let right = found.iter().filter(|(at, chunk, place)| *chunk == 3 && *at == place + shift).count();
            assert!(right + 2 > found.len(), "{right} of {}", found.len());
        }
        assert!(all.find(&random(300_000, 1 << 40)).count() < 3);
        assert_eq!(all.find(&base[..LEN - 1]).count() + all.find(&[]).count(), 0);
    }

    #[test]
    fn what_is_everywhere_is_no_seed() {
        for dull in [vec![0; 100_000], b"ab".repeat(50_000), Vec::new(), vec![1; 3]] {
            assert!(of(&dull).iter().all(|seed| *seed == [0; STORED]));
            assert_eq!(of(&dull).len(), dull.len().div_ceil(CELL));
        }
    }

    #[test]
    fn the_table_stays_in_its_bounds() {
        let mib = |gib: u64| {
            (Seeds::new(gib << 30, &mut Budget::of(u64::MAX)).unwrap().buckets.len() * 8 * BUCKET) >> 20
        };
        assert_eq!([1, 4, 16, 64, 1024].map(mib), [2, 10, 13, 25, 265]);
        let mut small = Seeds::new(0, &mut Budget::of(0)).unwrap();
        let slots = small.buckets.len();
        (0..200).for_each(|n| small.learn(n, &of(&random(1 << 20, n as u64 * 12_345))));
        assert_eq!(small.buckets.len(), slots);
        // Chunks and cells that no slot can name.
        small.learn(1 << CHUNK_BITS, &[[1; STORED]]);
        small.learn(0, &vec![[1; STORED]; 3000]);
    }

    #[test]
    fn few_zones_are_read_or_rich_ones() {
        const ZONE: u64 = 1 << 20;
        let of = |from| from / ZONE;
        let zone = |n: u64, seeds: usize| (0..seeds).map(move |at| (at, n * ZONE + at as u64));
        let mut seeds: Vec<_> =
            zone(0, 1).chain(zone(1, 40)).chain((2..40).flat_map(|n| zone(n, 5))).collect();
        worthwhile(&mut seeds, of);
        let kept: std::collections::BTreeSet<_> = seeds.iter().map(|(_, from)| from / ZONE).collect();
        assert!(kept.contains(&1) && !kept.contains(&0));
        assert_eq!(kept.len(), ZONES);
        let mut rich: Vec<_> = (0..20).flat_map(|n| zone(n, MANY as usize)).collect();
        worthwhile(&mut rich, of);
        assert_eq!(rich.len(), 20 * MANY as usize);
    }
}
