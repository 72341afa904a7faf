//! Which segment of the base holds a fingerprint.

use crate::budget::{Budget, Spent};
use crate::matching::fingerprint::Fingerprint;

/// The most segments that a slot of the table, or the place of a cluster, can number.
pub(super) const MAX_SEGMENTS: usize = (1 << 20) - 1;

/// A hash table of fixed size, from fingerprints to segments. A slot of 4 bytes holds the number of a segment (20 bits,
/// one more than it is, so that no used slot is 0) and 12 bits of the fingerprint. Other fingerprints may have the same 12
/// bits, so whoever finds a segment looks into its map.
///
/// Memory is bounded: where a bucket is full, a new fingerprint takes the slot of another one. Little is lost by that,
/// because a piece that follows one that was found is found without the table.
pub(super) struct FingerprintTable {
    buckets: Vec<[u32; BUCKET]>,
}

/// Slots of a bucket; together they fill a line of the processor's cache.
const BUCKET: usize = 16;
const TAG_BITS: u32 = 12;
const TAG_MASK: u32 = (1 << TAG_BITS) - 1;

/// The 12 bits of a fingerprint that a slot holds.
fn tag(fingerprint: Fingerprint) -> u32 {
    fingerprint.high as u32 & TAG_MASK
}

impl FingerprintTable {
    /// Makes a table for a base of so many bytes: 4 slots for each 4 KiB, which is more than it has pieces. From 5 GiB
    /// on it takes 18 MiB of memory, and 3/8 MiB for each GiB.
    ///
    /// # Errors
    /// Fails where the budget or the memory is spent.
    pub fn new(base: u64, budget: &mut Budget) -> Result<FingerprintTable, Spent> {
        let bytes = (base >> 8).min((18 << 20) + (base >> 12) + (base >> 13)).max(1 << 14);
        Ok(FingerprintTable { buckets: budget.table([0; BUCKET], bytes as usize / (4 * BUCKET))? })
    }

    fn bucket(&self, fingerprint: Fingerprint) -> usize {
        ((u128::from(fingerprint.high) * self.buckets.len() as u128) >> 64) as usize
    }

    /// Takes in that `segment` holds a fingerprint. It replaces another one with the same tag: where the base is read
    /// alongside the new stream, an earlier segment may be forgotten already.
    pub fn insert(&mut self, fingerprint: Fingerprint, segment: usize) {
        if segment >= MAX_SEGMENTS {
            return;
        }
        let (n, tag) = (self.bucket(fingerprint), tag(fingerprint));
        let bucket = &mut self.buckets[n];
        let slot = bucket.iter().position(|&slot| slot != 0 && slot & TAG_MASK == tag);
        let slot = slot.or_else(|| bucket.iter().position(|&slot| slot == 0));
        // Neither the tag nor the bucket depends on these bits.
        let slot = slot.unwrap_or((fingerprint.high >> TAG_BITS) as usize % BUCKET);
        bucket[slot] = (segment as u32 + 1) << TAG_BITS | tag;
    }

    /// The number of the segment that probably holds a fingerprint.
    pub fn get(&self, fingerprint: Fingerprint) -> Option<u32> {
        let tag = tag(fingerprint);
        let bucket = &self.buckets[self.bucket(fingerprint)];
        let slot = bucket.iter().find(|&&slot| slot != 0 && slot & TAG_MASK == tag)?;
        Some((slot >> TAG_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::fingerprint::Secret;

    fn fingerprint(n: u64) -> Fingerprint {
        Secret::new(&[1; 32]).fingerprint(&n.to_le_bytes())
    }

    #[test]
    fn the_table_finds_what_it_holds_and_stays_in_its_bounds() {
        let new = |base| FingerprintTable::new(base, &mut Budget::of(u64::MAX)).unwrap();
        let gib = |n: u64| (new(n << 30).buckets.len() * 4 * BUCKET) >> 20;
        assert_eq!([1, 4, 16, 64, 1024].map(gib), [4, 16, 24, 42, 402]);

        let mut table = FingerprintTable::new(8 << 20, &mut Budget::of(0)).unwrap();
        let room = table.buckets.len() * BUCKET;
        let found = |table: &FingerprintTable, all: &[u64]| {
            all.iter().filter(|&&n| table.get(fingerprint(n)) == Some(n as u32 / 10)).count()
        };
        let all: Vec<u64> = (0..4 * room as u64).collect();
        for (n, part) in all.chunks(room / 4).enumerate() {
            part.iter().for_each(|&n| table.insert(fingerprint(n), n as usize / 10));
            let found = found(&table, &all[..(n + 1) * (room / 4)]);
            let least = [24, 48, 68, 82, 90, 90][n.min(5)];
            assert!(found * 100 >= room * least, "{found} of {} in {room}", (n + 1) * (room / 4));
        }
        assert_eq!(table.buckets.len() * BUCKET, room);
        let strange = (1 << 40..(1 << 40) + 10_000).filter(|&n| table.get(fingerprint(n)).is_some()).count();
        assert!(
            strange < 10_000 * BUCKET / (1 << TAG_BITS) * 2,
            "{strange} were found that never were there"
        );
    }
}
