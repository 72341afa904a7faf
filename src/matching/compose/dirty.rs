//! Holds which blocks of a VM's disks may have changed, as QEMU's dirty bitmaps say.

use std::ops::Range;

use crate::vma::{BLOCK, BLOCKS_PER_CLUSTER, CLUSTER, Cluster, Device};

/// For each device, a mask of 16 blocks for each cluster. That is 32 KiB for a GiB of disk.
pub(super) struct Dirty(Vec<Vec<u16>>);

impl Dirty {
    /// Makes the value without any disks.
    pub fn new() -> Dirty {
        Dirty(vec![Vec::new(); 256])
    }

    /// Adds the dirty ranges of a disk, in bytes. The result is `None` where a range does not lie within the disk, or
    /// begins or ends within a block of 4096 bytes: such a block could not be read completely, as QEMU refuses to read
    /// what is not dirty.
    pub fn add(&mut self, device: &Device, ranges: &[Range<u64>]) -> Option<()> {
        let mut masks = vec![0u16; usize::try_from(device.clusters()).ok()?];
        for range in ranges {
            let whole = |at: u64| at.is_multiple_of(BLOCK as u64) || at == device.size;
            if range.start >= range.end || range.end > device.size || !whole(range.start) || !whole(range.end)
            {
                return None;
            }
            let blocks = range.start / BLOCK as u64..range.end.div_ceil(BLOCK as u64);
            let mut block = blocks.start;
            while block < blocks.end {
                let (cluster, first) = (block / BLOCKS_PER_CLUSTER as u64, block % BLOCKS_PER_CLUSTER as u64);
                let count = (blocks.end - block).min(BLOCKS_PER_CLUSTER as u64 - first);
                masks[cluster as usize] |= (((1u32 << count) - 1) << first) as u16;
                block += count;
            }
        }
        // Where all blocks up to the end of the disk are dirty, the last cluster has all bits set: nothing of the disk
        // lies behind its end.
        let blocks = device.size.div_ceil(BLOCK as u64) % BLOCKS_PER_CLUSTER as u64;
        if let Some(last) = masks.last_mut()
            && blocks > 0
            && *last == (1 << blocks) - 1
        {
            *last = u16::MAX;
        }
        self.0[usize::from(device.id)] = masks;
        Some(())
    }

    /// The mask of the blocks of a cluster that may have changed. All bits are set if all of it may have changed.
    pub fn of(&self, cluster: &Cluster) -> u16 {
        self.0[usize::from(cluster.device)].get(cluster.number as usize).copied().unwrap_or(0)
    }
}

/// Lists the ranges of bytes of the blocks `mask` of a cluster, in order. `size` is that of the disk.
pub(super) fn ranges(number: u32, mask: u16, size: u64) -> impl Iterator<Item = Range<u64>> {
    let start = u64::from(number) * CLUSTER as u64;
    let mut bit = 0;
    std::iter::from_fn(move || {
        bit += (mask.checked_shr(bit)?).trailing_zeros();
        let left = mask.checked_shr(bit).filter(|left| *left != 0)?;
        let from = start + u64::from(bit) * BLOCK as u64;
        bit += left.trailing_ones();
        Some(from..(start + u64::from(bit) * BLOCK as u64).min(size))
    })
    .take_while(|range| range.start < range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(number: u32) -> Cluster {
        Cluster { device: 1, number, mask: 0 }
    }

    #[test]
    fn ranges_become_masks_and_back() {
        let size = 3 * 65536 + 2 * 4096 + 512;
        let device = Device { id: 1, name: "disk".into(), size };
        let mut dirty = Dirty::new();
        dirty.add(&device, &[4096..8192, 61440..69632, 3 * 65536..size]).unwrap();
        let masks: Vec<_> = (0..5).map(|n| dirty.of(&cluster(n))).collect();
        assert_eq!(masks, [0x8002, 1, 0, u16::MAX, 0]);
        let back = |n: u32| ranges(n, masks[n as usize], size).collect::<Vec<_>>();
        assert_eq!(back(0), [4096..8192, 61440..65536]);
        assert_eq!(back(2), []);
        assert_eq!(back(3), vec![3 * 65536..size; 1]);
        dirty.add(&device, std::slice::from_ref(&(3 * 65536 + 8192..size))).unwrap();
        assert_eq!(dirty.of(&cluster(3)), 4);

        for wrong in [100..4096, 0..100, 0..size + 1, 4096..4096] {
            assert_eq!(dirty.add(&device, &[wrong]), None);
        }
    }
}
