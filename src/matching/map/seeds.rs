//! Seeds: short strings of the base, by which changed data is found again wherever it has gone.
//!
//! A program that was built anew, a table that was rewritten, a file that grew in its middle: hardly a block of it is as
//! it was, but most of its bytes are still there, somewhere. So the map holds the hash of one string of each [`CELL`] of
//! the base. New data that was found nowhere is searched for these strings at every byte. Where some are found, the
//! base's bytes around them are candidates for a comparison.

use std::collections::HashMap;

use crate::budget::{Budget, Spent};
use crate::matching::chunker::GEAR;

/// Bytes of the base for which there is one seed.
pub const CELL: usize = 4 << 10;
/// Bytes of a seed. If one byte in 300 changes, nine of ten seeds still stay as they are.
const LEN: usize = 32;
/// Bytes of a seed as the map holds it.
const STORED_LEN: usize = 5;
/// A seed as the map holds it: where in its cell it begins (u8, see [`STARTS`]), and its hash (u32, little endian). All
/// bytes are zero where a cell has no seed.
pub type StoredSeed = [u8; STORED_LEN];
/// A seed begins at one of the first so many bytes of its cell, or of the second half of its cell. It is the first string
/// there whose hash begins with [`RARE`] zero bits, so that few strings of new data have to be looked up.
const STARTS: usize = 128;
const RARE: u32 = 6;
/// Seeds that have moved are looked for in so many bytes: two cells have two seeds.
const MOVED: usize = 2 * CELL;
/// A seed has at least so many different bytes: zeros and the like are everywhere.
const VARIETY: u32 = 8;

/// Takes a byte into a rolling hash. The hash forgets bytes that are more than [`LEN`] back, because each step shifts it
/// by two of its 64 bits.
#[inline]
fn roll(hash: u64, byte: u8) -> u64 {
    (hash << 2).wrapping_add(GEAR[usize::from(byte)])
}

/// Lists the strings in `bytes` that may be seeds: where they begin, and their hashes.
fn candidates(bytes: &[u8]) -> impl Iterator<Item = (usize, u32)> + '_ {
    let (first, rest) = bytes.split_at(bytes.len().min(LEN - 1));
    let mut hash = first.iter().fold(0, |hash, &byte| roll(hash, byte));
    rest.iter().enumerate().filter_map(move |(at, &byte)| {
        hash = roll(hash, byte);
        (hash >> (64 - RARE) == 0).then_some((at, (hash >> (32 - RARE)) as u32))
    })
}

/// Tells whether a string has enough different bytes.
fn varied(bytes: &[u8]) -> bool {
    let mut seen = [0u64; 4];
    bytes.iter().for_each(|&b| seen[usize::from(b >> 6)] |= 1 << (b & 63));
    seen.iter().map(|word| word.count_ones()).sum::<u32>() >= VARIETY
}

/// Selects the seeds of a segment, one for each cell.
pub fn of(data: &[u8]) -> Vec<StoredSeed> {
    let of_cell = |cell: &[u8]| {
        let seed = [0, CELL / 2].into_iter().enumerate().find_map(|(half, start)| {
            let bytes = &cell[start.min(cell.len())..(start + STARTS + LEN - 1).min(cell.len())];
            let (at, hash) = candidates(bytes).find(|(at, _)| varied(&bytes[*at..at + LEN]))?;
            Some(((half * STARTS + at) as u8, hash))
        });
        let (start, hash) = seed.unwrap_or_default();
        let mut stored = [start; STORED_LEN];
        stored[1..].copy_from_slice(&hash.to_le_bytes());
        stored
    };
    data.chunks(CELL).map(of_cell).collect()
}

/// Tells whether one of these seeds occurs in `new`: where it was, or anywhere in the first bytes. The cell of the first
/// seed begins at `first` in `new`. The result is `None` where there is no seed.
pub fn occurs(seeds: &[StoredSeed], first: isize, new: &[u8]) -> Option<bool> {
    let hash = |seed: &StoredSeed| u32::from_le_bytes([seed[1], seed[2], seed[3], seed[4]]);
    let mut wanted: Vec<u32> = seeds.iter().map(hash).filter(|hash| *hash != 0).collect();
    let there = |(n, seed): (usize, &StoredSeed)| {
        let at = first
            .checked_add_unsigned(n * CELL + offset(seed[0].into()))
            .and_then(|at| usize::try_from(at).ok());
        let string = at.and_then(|at| new.get(at..)?.get(..LEN));
        string.is_some_and(|s| candidates(s).any(|(_, found)| found != 0 && found == hash(seed)))
    };
    wanted.sort_unstable();
    let moved =
        || candidates(&new[..new.len().min(MOVED)]).any(|(_, hash)| wanted.binary_search(&hash).is_ok());
    (!wanted.is_empty()).then(|| seeds.iter().enumerate().any(there) || moved())
}

/// Where in its cell a seed begins, by the stored number.
fn offset(start: usize) -> usize {
    start / STARTS * (CELL / 2) + start % STARTS
}

/// Where the base has a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedPlace {
    /// Number of the segment.
    pub segment: u32,
    /// Position in the segment.
    pub at: usize,
}

/// Where each seed of the base is: a hash table of fixed size. Where a bucket is full, a seed takes the slot of another
/// one.
pub struct Seeds {
    buckets: Vec<[u64; BUCKET]>,
    /// Bit n is set where there may be a seed whose hash begins with the number n. It is small enough for the processor's
    /// cache.
    filter: Vec<u64>,
}

/// Slots of a bucket; together they fill a line of the processor's cache.
const BUCKET: usize = 8;
const FILTER_BITS: u32 = 22;
/// A slot holds the number of the segment (one more than it is, so that no used slot is 0), the number of the cell in the
/// segment, the start in the cell (8 bits), and in the rest of its bits a part of the hash, the key.
const SEGMENT_BITS: u32 = 20;
const CELL_BITS: u32 = 11;
const KEY_BITS: u32 = 64 - SEGMENT_BITS - CELL_BITS - 8;

fn key(slot: u64) -> u64 {
    slot & ((1 << KEY_BITS) - 1)
}

impl Seeds {
    /// Makes a table for a base of so many bytes: a quarter more slots than the base has cells. From 4 GiB on it takes
    /// 10 MiB of memory, and 1/4 MiB for every further GiB.
    ///
    /// # Errors
    /// Fails where the budget or the memory is spent.
    pub fn new(base: u64, budget: &mut Budget) -> Result<Seeds, Spent> {
        let bytes = ((base >> 9) + (base >> 11)).min((9 << 20) + (base >> 12)).max(1 << 14);
        let buckets = budget.table([0; BUCKET], bytes as usize / (8 * BUCKET))?;
        Ok(Seeds { buckets, filter: budget.table(0, 1 << (FILTER_BITS - 6))? })
    }

    /// Where the filter has the bit of a hash: the word, and the bit in it.
    fn bit(hash: u32) -> (usize, u64) {
        let bit = hash >> (32 - FILTER_BITS);
        (bit as usize / 64, 1 << (bit % 64))
    }

    fn bucket(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }

    /// Takes in the seeds of a segment.
    pub fn learn(&mut self, segment: usize, seeds: &[StoredSeed]) {
        if segment + 1 >= 1 << SEGMENT_BITS {
            return;
        }
        for (cell, &[start, ref hash @ ..]) in seeds.iter().enumerate().take(1 << CELL_BITS) {
            let hash = u32::from_le_bytes(*hash);
            if hash == 0 {
                continue;
            }
            let place = (cell as u64) << 8 | u64::from(start);
            let slot = ((segment as u64 + 1) << (CELL_BITS + 8) | place) << KEY_BITS | key(hash.into());
            let n = self.bucket(hash);
            let bucket = &mut self.buckets[n];
            let same = bucket.iter().position(|&s| s == 0 || key(s) == key(slot));
            bucket[same.unwrap_or(hash as usize % BUCKET)] = slot;
            let (word, bit) = Self::bit(hash);
            self.filter[word] |= bit;
        }
    }

    /// Where the base has the seed with this hash.
    fn get(&self, hash: u32) -> Option<SeedPlace> {
        let (word, bit) = Self::bit(hash);
        if self.filter[word] & bit == 0 {
            return None;
        }
        let bucket = &self.buckets[self.bucket(hash)];
        let slot = bucket.iter().find(|&&s| s != 0 && key(s) == key(hash.into()))? >> KEY_BITS;
        let (cell, start) = ((slot >> 8) as usize & ((1 << CELL_BITS) - 1), slot as usize & 0xff);
        let at = cell * CELL + offset(start);
        Some(SeedPlace { segment: (slot >> (CELL_BITS + 8)) as u32 - 1, at })
    }

    /// Finds the base's seeds in `new`: where each begins in `new`, and where the base has it.
    pub fn find<'a>(&'a self, new: &'a [u8]) -> impl Iterator<Item = (usize, SeedPlace)> + 'a {
        candidates(new).filter_map(|(at, hash)| self.get(hash).map(|place| (at, place)))
    }
}

/// A seed of the base that was found in new data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedMatch {
    /// Position in the new data.
    pub at: usize,
    /// Position in the base's content.
    pub base: u64,
}

/// A zone is a part of the base that is decompressed as a whole. For one segment, up to so many zones may be read, if each
/// has at least [`SEVERAL`] seeds; further zones only if they have at least [`MANY`]. Whoever restores has to read them
/// too.
const ZONES: usize = 24;
const SEVERAL: u32 = 3;
const MANY: u32 = 40;

/// Of the seeds that were found in a segment, keeps those in zones that are worth reading. `zone` tells the number of the
/// zone at a position of the base.
pub fn worthwhile(seeds: &mut Vec<SeedMatch>, zone: impl Fn(u64) -> u64) {
    let mut zones = HashMap::<u64, u32>::new();
    seeds.iter().for_each(|seed| *zones.entry(zone(seed.base)).or_default() += 1);
    let mut best: Vec<_> = zones.iter().map(|(&zone, &seeds)| (seeds, zone)).collect();
    best.sort_unstable_by(|a, b| b.cmp(a));
    for (rank, (count, zone)) in best.into_iter().enumerate() {
        if count < if rank < ZONES { SEVERAL } else { MANY } {
            zones.remove(&zone);
        }
    }
    seeds.retain(|seed| zones.contains_key(&zone(seed.base)));
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
            let right =
                found.iter().filter(|(at, place)| place.segment == 3 && *at == place.at + shift).count();
            assert!(right + 2 > found.len(), "{right} of {}", found.len());
        }
        assert!(all.find(&random(300_000, 1 << 40)).count() < 3);
        assert_eq!(all.find(&base[..LEN - 1]).count() + all.find(&[]).count(), 0);
    }

    #[test]
    fn what_is_everywhere_is_no_seed() {
        for dull in [vec![0; 100_000], b"ab".repeat(50_000), Vec::new(), vec![1; 3]] {
            assert!(of(&dull).iter().all(|seed| *seed == [0; STORED_LEN]));
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
        // Segments and cells that no slot can number.
        small.learn(1 << SEGMENT_BITS, &[[1; STORED_LEN]]);
        small.learn(0, &vec![[1; STORED_LEN]; 3000]);
    }

    #[test]
    fn few_zones_are_read_or_rich_ones() {
        const ZONE: u64 = 1 << 20;
        let of = |from| from / ZONE;
        let zone =
            |n: u64, seeds: usize| (0..seeds).map(move |at| SeedMatch { at, base: n * ZONE + at as u64 });
        let mut seeds: Vec<_> =
            zone(0, 1).chain(zone(1, 40)).chain((2..40).flat_map(|n| zone(n, 5))).collect();
        worthwhile(&mut seeds, of);
        let kept: std::collections::BTreeSet<_> = seeds.iter().map(|seed| seed.base / ZONE).collect();
        assert!(kept.contains(&1) && !kept.contains(&0));
        assert_eq!(kept.len(), ZONES);
        let mut rich: Vec<_> = (0..20).flat_map(|n| zone(n, MANY as usize)).collect();
        worthwhile(&mut rich, of);
        assert_eq!(rich.len(), 20 * MANY as usize);
    }
}
