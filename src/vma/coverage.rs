//! Keeping track of the clusters of a device that were read, in bounded memory, so that none is missing and none comes twice.

use std::collections::BTreeMap;

use super::{CLUSTER, Defect};

/// How many clusters of a page are kept as a list. If there are more, the page gets a bit map, which takes 16 times the
/// memory of the list.
const FEW: usize = 128;
/// How many clusters a page of the bit map covers: those of 2 GiB of disk.
const PAGE: u64 = 32768;
/// How many pages, of 4 KiB each, may be filled in part at the same time. A backup fills its disks from front to back (with
/// copy-before-write here and there). So even a page for every 2 GiB of a host with 128 TiB is allowed.
const MAX_PARTIAL: usize = 65536;

/// The clusters of one device that were seen.
pub(super) struct Coverage {
    total: u64,
    seen: u64,
    pages: BTreeMap<u32, Page>,
}

enum Page {
    Full,
    /// Few clusters, as a list in order. So an archive of scattered clusters takes memory in proportion to its size.
    Few(Vec<u16>),
    Partial {
        bits: Box<[u64; PAGE as usize / 64]>,
        count: u64,
    },
}

/// Counts the pages of all devices of an archive that are filled in part.
#[derive(Default)]
pub(super) struct Partial(usize);

impl Coverage {
    /// Begins a device of `total` clusters, none of which was seen.
    pub(super) fn new(total: u64) -> Self {
        Coverage { total, seen: 0, pages: BTreeMap::new() }
    }

    /// Notes that cluster `number` was seen; it is below the total. The result is `Ok(false)` if it was seen before.
    pub(super) fn insert(&mut self, number: u32, partial: &mut Partial) -> Result<bool, Defect> {
        let (index, bit) = (u64::from(number) / PAGE, u64::from(number) % PAGE);
        let page = self.pages.entry(index as u32).or_insert_with(|| {
            partial.0 += 1;
            Page::Few(Vec::new())
        });
        if partial.0 > MAX_PARTIAL {
            return Err(Defect::Scattered((MAX_PARTIAL as u64 * PAGE * CLUSTER as u64) >> 30));
        }
        let count = match page {
            Page::Full => return Ok(false),
            Page::Few(list) => {
                let Err(at) = list.binary_search(&(bit as u16)) else { return Ok(false) };
                list.insert(at, bit as u16);
                let count = list.len() as u64;
                if list.len() > FEW {
                    let mut bits = Box::new([0; PAGE as usize / 64]);
                    list.iter().for_each(|&bit| bits[usize::from(bit) / 64] |= 1 << (bit % 64));
                    *page = Page::Partial { bits, count };
                }
                count
            }
            Page::Partial { bits, count } => {
                let (word, flag) = (&mut bits[bit as usize / 64], 1u64 << (bit % 64));
                if *word & flag != 0 {
                    return Ok(false);
                }
                *word |= flag;
                *count += 1;
                *count
            }
        };
        self.seen += 1;
        if count == PAGE.min(self.total - index * PAGE) {
            *page = Page::Full;
            partial.0 -= 1;
        }
        Ok(true)
    }

    /// Tells how many clusters are missing, and which one is the first; `None` if none is missing.
    pub(super) fn missing(&self) -> Option<(u64, u64)> {
        if self.seen == self.total {
            return None;
        }
        let mut first = 0;
        for (index, page) in &self.pages {
            if u64::from(*index) * PAGE != first {
                break;
            }
            match page {
                Page::Full => first += PAGE,
                Page::Few(list) => {
                    first += list.iter().zip(0..).take_while(|(bit, n)| **bit == *n).count() as u64;
                    break;
                }
                Page::Partial { bits, .. } => {
                    let word = bits.iter().position(|w| *w != u64::MAX).unwrap_or(bits.len());
                    first += word as u64 * 64 + bits.get(word).map_or(0, |w| u64::from(w.trailing_ones()));
                    break;
                }
            }
        }
        Some((self.total - self.seen, first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_gaps_are_found_in_any_order() {
        let total = 3 * PAGE + 100;
        let (mut all, mut partial) = (Coverage::new(total), Partial::default());
        assert_eq!(all.missing(), Some((total, 0)));
        // 7 is prime to the total, so this visits every number once, in a scattered order
        for i in 0..total {
            assert_eq!(all.missing().map(|(n, _)| n), Some(total - i));
            assert!(all.insert((i * 7 % total) as u32, &mut partial).unwrap());
        }
        assert_eq!(all.missing(), None);
        assert_eq!(partial.0, 0, "all pages are full");
        assert!(!all.insert(5, &mut partial).unwrap());
    }

    #[test]
    fn the_first_gap_is_named() {
        let total = 2 * PAGE + 10;
        for gap in [0, 63, 64, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, total - 1] {
            let (mut all, mut partial) = (Coverage::new(total), Partial::default());
            for i in (0..total).filter(|i| *i != gap) {
                all.insert(i as u32, &mut partial).unwrap();
            }
            assert_eq!(all.missing(), Some((1, gap)));
        }
    }

    #[test]
    fn scattered_clusters_do_not_take_unbounded_memory() {
        let (mut all, mut partial) = (Coverage::new(1 << 32), Partial::default());
        let failed = (0..1u64 << 17).find(|i| all.insert((i * PAGE) as u32, &mut partial).is_err());
        assert_eq!(failed, Some(MAX_PARTIAL as u64));
    }
}
