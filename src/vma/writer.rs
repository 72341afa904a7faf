//! Making archives, laid out as Proxmox's own writer does.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{BLOCK, CLUSTER, CLUSTERS_PER_EXTENT, Cluster, Error, ExtentHeader, Header};

/// How many clusters an extent gets. Proxmox's writer leaves the last entry unused, too.
const FLUSH_AT: usize = CLUSTERS_PER_EXTENT - 1;

/// Writes an archive cluster by cluster.
pub struct Writer<W> {
    output: W,
    header: Header,
    entries: Vec<Cluster>,
    data: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn new(mut output: W, header: Header) -> Result<Self, Error> {
        let bytes = header.encode().map_err(|defect| Error::Unstorable(defect.to_string()))?;
        output.write_all(&bytes).map_err(failed)?;
        Ok(Writer { output, header, entries: Vec::new(), data: Vec::new() })
    }

    /// Adds cluster `number` of the device `id`. `content` has up to 65536 bytes. Bytes that are missing, because they lie behind
    /// the end of the device, count as zeros. Each cluster must be added once, also one of zeros.
    pub fn cluster(&mut self, id: u8, number: u32, content: &[u8]) -> Result<(), Error> {
        if self.header.device(id).is_none() || content.len() > CLUSTER {
            return Err(Error::Unstorable(format!("{} bytes for device {id}", content.len())));
        }
        if self.entries.len() >= FLUSH_AT {
            self.flush()?;
        }
        let mut mask = 0;
        for (bit, block) in content.chunks(BLOCK).enumerate() {
            if block.iter().any(|b| *b != 0) {
                mask |= 1 << bit;
                let end = self.data.len() + BLOCK;
                self.data.extend_from_slice(block);
                self.data.resize(end, 0);
            }
        }
        self.entries.push(Cluster { device: id, number, mask });
        Ok(())
    }

    /// Writes the last extent (also when it is empty, as Proxmox does for a guest without disks).
    pub fn finish(mut self) -> Result<W, Error> {
        self.flush()?;
        self.output.flush().map_err(failed)?;
        Ok(self.output)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let head = ExtentHeader::new(self.header.uuid, &self.entries).encode();
        self.output.write_all(&head).and_then(|()| self.output.write_all(&self.data)).map_err(failed)?;
        self.entries.clear();
        self.data.clear();
        Ok(())
    }
}

fn failed(source: io::Error) -> Error {
    Error::Write { path: "the VMA stream".into(), source }
}

/// The order in which the clusters of the disks come.
///
/// The numbers seed what is left to chance in QEMU, so that two backups of the same disks differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Disk after disk, from front to back: `vma create`.
    Sequential,
    /// Disk after disk, 16 pieces of 1 MiB at a time, their clusters mixed: QEMU since Proxmox VE 8.
    Workers(u64),
    /// All disks at once, in bursts: QEMU before.
    Parallel(u64),
}

/// Writes a whole archive. Each of `header.devices` has its image in `images`, which is read from its start. If it is shorter
/// than the device, zeros follow.
pub fn write_archive<W: Write, I: Read + Seek>(
    output: W,
    header: Header,
    images: &mut [I],
    order: Order,
) -> Result<W, Error> {
    if images.len() != header.devices.len() {
        return Err(Error::Unstorable(format!(
            "{} images for {} devices",
            images.len(),
            header.devices.len()
        )));
    }
    let devices = header.devices.clone();
    let lengths: Vec<u64> = devices.iter().map(|d| d.clusters()).collect();
    let mut writer = Writer::new(output, header)?;
    let mut content = Vec::with_capacity(CLUSTER);
    for (index, number) in Sequence::new(order, lengths) {
        let start = number * CLUSTER as u64;
        let wanted = (devices[index].size - start).min(CLUSTER as u64);
        content.clear();
        let image = &mut images[index];
        image
            .seek(SeekFrom::Start(start))
            .and_then(|_| image.take(wanted).read_to_end(&mut content))
            .map_err(|source| Error::Image { device: devices[index].name.clone(), offset: start, source })?;
        writer.cluster(devices[index].id, number as u32, &content)?;
    }
    writer.finish()
}

/// A piece of a disk of which clusters are still to be written.
struct Lane {
    disk: usize,
    next: u64,
    end: u64,
}

/// Yields each cluster once: the index of its disk, and its number.
struct Sequence {
    lengths: Vec<u64>,
    /// How many clusters a lane has, how many lanes are open at a time, and how many clusters are taken from a lane at a time.
    piece: u64,
    width: usize,
    burst: u64,
    /// Whether lanes of several disks may be open at the same time.
    mixed: bool,
    /// Where the next lane will begin.
    disk: usize,
    at: u64,
    open: Vec<Lane>,
    current: usize,
    left: u64,
    random: u64,
}

impl Sequence {
    fn new(order: Order, lengths: Vec<u64>) -> Self {
        let (piece, width, burst, mixed, random) = match order {
            Order::Sequential => (u64::MAX, 1, 1, false, 0),
            Order::Workers(seed) => (16, 16, 1, false, seed),
            Order::Parallel(seed) => (u64::MAX, usize::MAX, 16, true, seed),
        };
        Sequence {
            lengths,
            piece,
            width,
            burst,
            mixed,
            disk: 0,
            at: 0,
            open: Vec::new(),
            current: 0,
            left: 0,
            random,
        }
    }

    /// Opens lanes as long as there is room for them.
    fn refill(&mut self) {
        while self.open.len() < self.width && self.disk < self.lengths.len() {
            if self.at >= self.lengths[self.disk] {
                (self.disk, self.at) = (self.disk + 1, 0);
                continue;
            }
            if !self.mixed && self.open.iter().any(|lane| lane.disk != self.disk) {
                return;
            }
            let end = self.at.saturating_add(self.piece).min(self.lengths[self.disk]);
            self.open.push(Lane { disk: self.disk, next: self.at, end });
            self.at = end;
        }
    }

    /// Draws a number below `limit` (splitmix64).
    fn pick(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}

impl Iterator for Sequence {
    type Item = (usize, u64);

    fn next(&mut self) -> Option<Self::Item> {
        self.refill();
        if self.open.is_empty() {
            return None;
        }
        if self.left == 0 || self.current >= self.open.len() {
            self.current = self.pick(self.open.len() as u64) as usize;
            self.left = 1 + self.pick(self.burst);
        }
        self.left -= 1;
        let lane = &mut self.open[self.current];
        let item = (lane.disk, lane.next);
        lane.next += 1;
        if lane.next == lane.end {
            self.open.remove(self.current);
            self.left = 0;
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(order: Order) -> Vec<(usize, u64)> {
        Sequence::new(order, vec![100, 0, 1, 37]).collect()
    }

    #[test]
    fn every_order_has_every_cluster_once() {
        let sequential = sequence(Order::Sequential);
        assert_eq!(sequential.len(), 138);
        assert!(sequential.is_sorted());
        for order in [Order::Workers(1), Order::Workers(2), Order::Parallel(1), Order::Parallel(2)] {
            let mut mixed = sequence(order);
            assert_ne!(mixed, sequential);
            mixed.sort();
            assert_eq!(mixed, sequential, "{order:?}");
        }
        assert_ne!(sequence(Order::Workers(1)), sequence(Order::Workers(2)));
    }

    #[test]
    fn workers_stay_on_one_disk_and_parallel_mixes_them() {
        assert!(sequence(Order::Workers(5)).is_sorted_by_key(|(disk, _)| *disk));
        assert!(!sequence(Order::Parallel(5)).is_sorted_by_key(|(disk, _)| *disk));
    }
}
