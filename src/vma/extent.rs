//! Extent headers: which clusters follow, and which of their blocks are stored.

use md5::{Digest, Md5};

use super::{BLOCK, CLUSTERS_PER_EXTENT, Defect, EXTENT_FRONT, EXTENT_HEADER, EXTENT_UUID, Uuid};

const MAGIC: [u8; 4] = *b"VMAE";
const UUID_AT: usize = EXTENT_UUID.start;
const MD5_AT: usize = EXTENT_UUID.end;
const ENTRIES_AT: usize = EXTENT_FRONT;

/// One entry of an extent header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cluster {
    /// Device id, 1 to 254; 0 marks an unused entry.
    pub device: u8,
    /// Number of the 64-KiB cluster within the device.
    pub number: u32,
    /// Bit *i* tells that block *i* (4096 bytes at *i* × 4096) is stored; else it is zeros.
    pub mask: u16,
}

impl Cluster {
    /// Bytes of this cluster's data in the extent.
    pub fn data_len(&self) -> usize {
        self.mask.count_ones() as usize * BLOCK
    }

    /// The stored blocks: each one's byte offset within the cluster, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        let mask = self.mask;
        (0..super::BLOCKS_PER_CLUSTER).filter(move |bit| mask >> bit & 1 == 1).map(|bit| bit * BLOCK)
    }

    fn decode(entry: &[u8; 8]) -> Self {
        // byte 2 is reserved and ignored, as Proxmox's reader does
        Cluster {
            device: entry[3],
            number: u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]]),
            mask: u16::from_be_bytes([entry[0], entry[1]]),
        }
    }

    fn encode(&self) -> [u8; 8] {
        let [m0, m1] = self.mask.to_be_bytes();
        let [n0, n1, n2, n3] = self.number.to_be_bytes();
        [m0, m1, 0, self.device, n0, n1, n2, n3]
    }
}

/// A parsed extent header. `data_len` bytes follow it in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentHeader {
    /// UUID of the archive; must equal the header's.
    pub uuid: Uuid,
    /// Number of stored blocks of 4096 bytes. It equals the number of set bits in all masks.
    pub block_count: u16,
    /// All 59 entries, unused ones included, in the order of the data.
    pub entries: [Cluster; CLUSTERS_PER_EXTENT],
}

impl ExtentHeader {
    /// Reads an extent header and checks all that can be checked without the archive's header: magic,
    /// reserved field, MD5 sum, and that the block count matches the masks.
    pub fn parse(bytes: &[u8; EXTENT_HEADER]) -> Result<Self, Defect> {
        let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if magic != MAGIC {
            return Err(Defect::ExtentMagic);
        }
        if bytes[MD5_AT..ENTRIES_AT] != digest(bytes) {
            return Err(Defect::ExtentChecksum);
        }
        let reserved = u16::from_be_bytes([bytes[4], bytes[5]]);
        if reserved != 0 {
            return Err(Defect::ExtentReserved(reserved));
        }
        let mut uuid = Uuid::default();
        uuid.copy_from_slice(&bytes[UUID_AT..MD5_AT]);
        let mut entries = [Cluster::default(); CLUSTERS_PER_EXTENT];
        let (raw, _) = bytes[ENTRIES_AT..].as_chunks::<8>();
        for (entry, raw) in entries.iter_mut().zip(raw) {
            *entry = Cluster::decode(raw);
        }
        let block_count = u16::from_be_bytes([bytes[6], bytes[7]]);
        let head = ExtentHeader { uuid, block_count, entries };
        // There are at most 59 * 16 bits.
        let masked = head.clusters().map(|c| c.mask.count_ones() as u16).sum();
        if masked != block_count {
            return Err(Defect::BlockCount { declared: block_count, masked });
        }
        Ok(head)
    }

    /// Tells whether [`Self::encode`] would make the same bytes from the UUID and the clusters of this header, which
    /// [`Self::parse`] accepts: there is a cluster, no unused entry is before a used one, and bytes that readers ignore are
    /// zeros.
    pub fn is_plain(bytes: &[u8; EXTENT_HEADER]) -> bool {
        let (entries, _) = bytes[ENTRIES_AT..].as_chunks::<8>();
        let used = entries.iter().take_while(|e| e[3] != 0).count();
        used > 0 && entries[..used].iter().all(|e| e[2] == 0) && entries[used..].iter().all(|e| *e == [0; 8])
    }

    /// Bytes of data behind this header, at most 59 × 64 KiB.
    pub fn data_len(&self) -> usize {
        usize::from(self.block_count) * BLOCK
    }

    /// The used entries. The data of each (see [`Cluster::data_len`]) follow one another without gaps.
    pub fn clusters(&self) -> impl Iterator<Item = Cluster> + '_ {
        self.entries.iter().copied().filter(|c| c.device != 0)
    }

    /// Makes the header of an extent that holds `clusters`: at most 59, further ones are left out.
    pub fn new(uuid: Uuid, clusters: &[Cluster]) -> Self {
        let mut entries = [Cluster::default(); CLUSTERS_PER_EXTENT];
        let mut block_count = 0;
        for (entry, cluster) in entries.iter_mut().zip(clusters) {
            *entry = *cluster;
            block_count += cluster.mask.count_ones() as u16;
        }
        ExtentHeader { uuid, block_count, entries }
    }

    /// Makes the bytes that [`Self::parse`] reads, with the MD5 sum.
    pub fn encode(&self) -> [u8; EXTENT_HEADER] {
        let mut bytes = [0; EXTENT_HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[6..8].copy_from_slice(&self.block_count.to_be_bytes());
        bytes[UUID_AT..MD5_AT].copy_from_slice(&self.uuid);
        for (at, entry) in bytes[ENTRIES_AT..].chunks_exact_mut(8).zip(&self.entries) {
            at.copy_from_slice(&entry.encode());
        }
        let sum = digest(&bytes);
        bytes[MD5_AT..ENTRIES_AT].copy_from_slice(&sum);
        bytes
    }
}

/// Computes the MD5 sum of the header. The field of the sum itself counts as zeros.
fn digest(bytes: &[u8; EXTENT_HEADER]) -> [u8; 16] {
    let mut md5 = Md5::new();
    md5.update(&bytes[..MD5_AT]);
    md5.update([0; 16]);
    md5.update(&bytes[ENTRIES_AT..]);
    md5.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ExtentHeader {
        let clusters = [
            Cluster { device: 1, number: 0, mask: 0xffff },
            Cluster { device: 2, number: 0x0102_0304, mask: 0x8001 },
            Cluster { device: 1, number: 1, mask: 0 },
        ];
        ExtentHeader::new([7; 16], &clusters)
    }

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let bytes = sample().encode();
        assert_eq!(bytes[..8], *b"VMAE\0\0\0\x12");
        assert_eq!(bytes[8..24], [7; 16]);
        assert_eq!(bytes[40..48], [0xff, 0xff, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes[48..56], [0x80, 0x01, 0, 2, 1, 2, 3, 4]);
        assert_eq!(ExtentHeader::parse(&bytes).unwrap(), sample());
        assert_eq!(sample().data_len(), 18 * BLOCK);
        assert_eq!(sample().clusters().nth(1).unwrap().blocks().collect::<Vec<_>>(), [0, 15 * BLOCK]);
    }

    #[test]
    fn unused_entries_may_stand_between_used_ones() {
        let clusters = [
            Cluster { device: 1, number: 0, mask: 1 },
            Cluster::default(),
            Cluster { device: 1, number: 1, mask: 1 },
        ];
        let bytes = ExtentHeader::new([0; 16], &clusters).encode();
        assert!(!ExtentHeader::is_plain(&bytes) && ExtentHeader::is_plain(&sample().encode()));
        let head = ExtentHeader::parse(&bytes).unwrap();
        assert_eq!(head.clusters().count(), 2);
        assert_eq!(head.data_len(), 2 * BLOCK);
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = sample().encode();
        for at in 0..EXTENT_HEADER {
            let mut bad = good;
            bad[at] ^= 0x10;
            let defect = ExtentHeader::parse(&bad).unwrap_err();
            assert_eq!(matches!(defect, Defect::ExtentMagic), at < 4, "byte {at}: {defect}");
        }
    }

    #[test]
    fn a_count_that_is_not_the_masks_sum_is_refused() {
        let mut head = sample();
        head.block_count = 17;
        assert_eq!(ExtentHeader::parse(&head.encode()), Err(Defect::BlockCount { declared: 17, masked: 18 }));
        // a mask in an unused entry counts for nothing
        let unused = ExtentHeader::new([0; 16], &[Cluster { device: 0, number: 0, mask: 1 }]);
        assert_eq!(ExtentHeader::parse(&unused.encode()), Err(Defect::BlockCount { declared: 1, masked: 0 }));
    }
}
