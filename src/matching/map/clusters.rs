//! Where the clusters of virtual disks lie in the base.

use std::collections::HashMap;

use super::table::MAX_SEGMENTS;
use crate::budget::Budget;
use crate::matching::chunker::Cluster;

/// A cluster in the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClusterPlace {
    /// Number of the segment that holds it.
    pub segment: u32,
    /// Its number among the clusters of that segment.
    pub nth: usize,
    /// Bit n is set where its block n is stored.
    pub mask: u16,
}

/// Segment and number of a cluster in 32 bits: 20 for the segment, 12 for the number. That suffices for 8 TiB. Clusters
/// behind are found only by their content.
type Packed = u32;
const NTH_BITS: u32 = 12;

fn pack(segment: usize, nth: usize) -> Option<Packed> {
    (segment < MAX_SEGMENTS && nth < 1 << NTH_BITS).then_some((segment << NTH_BITS | nth) as Packed)
}

/// Clusters of a page, and the bytes of memory that a page takes.
const PAGE: usize = 32;
type Page = [(Packed, u16); PAGE];
const PAGE_BYTES: u64 = size_of::<Page>() as u64 + 64;

/// Where each cluster lies, in pages of neighbours. Clusters come nearly in order, so nearly all pages are full.
pub(super) struct ClusterTable {
    pages: HashMap<(u8, u32), Box<Page>>,
    budget: Budget,
}

impl ClusterTable {
    /// Makes an empty table that takes memory from this budget.
    pub fn new(budget: Budget) -> ClusterTable {
        ClusterTable { pages: HashMap::new(), budget }
    }

    /// Takes a cluster in: the `nth` one of `segment`. Where the budget is spent, further pages are left out. The blocks in
    /// them are found by their content.
    pub fn insert(&mut self, cluster: Cluster, segment: usize, nth: usize) {
        let Some(place) = pack(segment, nth) else { return };
        let key = (cluster.device, cluster.number / PAGE as u32);
        if !self.pages.contains_key(&key) && self.budget.take(PAGE_BYTES).is_err() {
            return;
        }
        let page = self.pages.entry(key).or_insert_with(|| Box::new([(0, 0); PAGE]));
        page[cluster.number as usize % PAGE] = (place, cluster.mask);
    }

    /// Where the cluster with this device and number lies. A mask of 0 tells that it is not there.
    pub fn get(&self, cluster: Cluster) -> Option<ClusterPlace> {
        let page = self.pages.get(&(cluster.device, cluster.number / PAGE as u32))?;
        let (place, mask) = page[cluster.number as usize % PAGE];
        let nth = (place & ((1 << NTH_BITS) - 1)) as usize;
        Some(ClusterPlace { segment: place >> NTH_BITS, nth, mask })
    }
}
