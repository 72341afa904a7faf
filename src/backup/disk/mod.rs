//! Tells what lies on the disks of a VM's backup while it is read: partition tables, and what their partitions begin with.
//!
//! Only blocks at places that are known are kept, some of each partition, and only fields at fixed places are read: a disk
//! may hold anything.

mod superblock;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use indicatif::BinaryBytes;

use self::superblock::{WINDOW, WINDOWS};
use self::table::{Partition, Table};
use crate::vma::{BLOCK, CLUSTER, Cluster, Device};

/// The most clusters that are remembered because they came before the partition table.
const EARLY: usize = 4096;

/// Describes what was recognised on a disk: its partition table, and the file systems in the partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The name of the disk, such as `scsi0`.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// The kind of its partition table, if it has one.
    pub table: Option<&'static str>,
    /// What its partitions hold, or the disk itself where it has none.
    pub holds: Vec<String>,
}

/// Writes it like `scsi0 32.00 GiB: GPT: FAT32, ext4, swap`.
impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, BinaryBytes(self.size))?;
        if let Some(table) = self.table {
            write!(f, ": {table}")?;
        }
        match self.holds.as_slice() {
            [] => Ok(()),
            holds => write!(f, ": {}", holds.join(", ")),
        }
    }
}

/// Keeps those blocks of a disk that tell what lies on it.
pub struct Probe {
    name: String,
    size: u64,
    /// The blocks that are wanted, by their numbers.
    wanted: BTreeSet<u64>,
    /// Those of them that came and are not zeros.
    kept: BTreeMap<u64, [u8; BLOCK]>,
    /// The clusters that came before the first one of the disk.
    early: BTreeSet<u32>,
    /// The table, once the first cluster has come.
    table: Option<Table>,
    /// Whether blocks are wanted that have passed before that was known.
    missed: bool,
}

impl Probe {
    /// Makes a probe for a disk of which nothing has come yet. The guest's memory is no disk.
    pub fn new(device: &Device) -> Option<Probe> {
        if device.is_vmstate() {
            return None;
        }
        let mut probe = Probe {
            name: device.name.strip_prefix("drive-").unwrap_or(&device.name).to_owned(),
            size: device.size,
            wanted: (0..CLUSTER as u64 / BLOCK as u64).collect(),
            kept: BTreeMap::new(),
            early: BTreeSet::new(),
            table: None,
            missed: false,
        };
        probe.want(0);
        Some(probe)
    }

    /// Wants what tells what begins at this byte.
    fn want(&mut self, start: u64) {
        for window in WINDOWS {
            let Some(first) = start.checked_add(window) else { continue };
            let last = first.saturating_add(WINDOW as u64 - 1);
            self.wanted.extend([first / BLOCK as u64, last / BLOCK as u64]);
        }
    }

    /// Takes a cluster of this disk with its stored blocks.
    pub fn take(&mut self, cluster: Cluster, data: &[u8]) {
        let first = u64::from(cluster.number) * (CLUSTER / BLOCK) as u64;
        for (offset, block) in cluster.blocks().zip(data.as_chunks::<BLOCK>().0) {
            let number = first + (offset / BLOCK) as u64;
            if self.wanted.contains(&number) {
                self.kept.insert(number, *block);
            }
        }
        match (&self.table, cluster.number) {
            (None, 0) => self.learn(),
            (None, number) if self.early.len() < EARLY => _ = self.early.insert(number),
            (None, _) => self.missed = true,
            (Some(_), _) => {}
        }
    }

    /// Reads the partition table, and wants the beginnings of the partitions.
    fn learn(&mut self) {
        let mut front = vec![0; CLUSTER.min(usize::try_from(self.size).unwrap_or(CLUSTER))];
        self.copy(0, &mut front);
        let table = table::read(&front);
        let partitions = match &table {
            Table::Mbr(partitions) | Table::Gpt(partitions) => partitions.as_slice(),
            Table::None | Table::BadGpt(_) => &[],
        };
        let before = self.wanted.clone();
        let size = self.size;
        for partition in partitions.iter().filter(|it| it.start < size) {
            self.want(partition.start);
        }
        // What was wanted from the beginning was kept, however early it came.
        let has_passed = |block: &u64| {
            let cluster = u32::try_from(block * BLOCK as u64 / CLUSTER as u64);
            cluster.is_ok_and(|it| self.early.contains(&it))
        };
        let mut new = self.wanted.difference(&before).peekable();
        self.missed = new.peek().is_some() && (self.missed || new.any(has_passed));
        self.table = Some(table);
    }

    /// Tells whether something is wanted that passed before it was known: then all clusters must be taken once more.
    pub fn has_missed(&self) -> bool {
        self.missed
    }

    /// Begins anew with what is known.
    pub fn again(&mut self) {
        self.missed = false;
    }

    /// Copies what is kept from this byte on. What is not kept is zeros.
    fn copy(&self, start: u64, bytes: &mut [u8]) {
        let end = start.saturating_add(bytes.len() as u64);
        let blocks = start / BLOCK as u64..=end / BLOCK as u64;
        for (number, block) in self.kept.range(blocks) {
            let at = number * BLOCK as u64;
            let (from, to) = (at.max(start), (at + BLOCK as u64).min(end));
            if from < to {
                bytes[(from - start) as usize..(to - start) as usize]
                    .copy_from_slice(&block[(from - at) as usize..(to - at) as usize]);
            }
        }
    }

    /// Names what begins at this byte.
    fn what(&self, start: u64) -> &'static str {
        let windows = WINDOWS.map(|window| {
            let mut bytes = [0; WINDOW];
            self.copy(start.saturating_add(window), &mut bytes);
            bytes
        });
        let is_empty = || windows.iter().all(|it| it.iter().all(|byte| *byte == 0));
        superblock::name(&windows).unwrap_or_else(|| if is_empty() { "empty" } else { "unknown" })
    }

    /// Tells what lies on the disk.
    pub fn finish(self) -> Disk {
        let whole = |text: &str| vec![text.to_owned()];
        let (table, holds) = match self.table.as_ref().unwrap_or(&Table::None) {
            Table::BadGpt(why) => (Some("GPT"), whole(&format!("not readable, as {why}"))),
            Table::Gpt(partitions) => (Some("GPT"), self.each(partitions)),
            // A file system without partitions may end its first sector like a table.
            Table::Mbr(_) if !matches!(self.what(0), "unknown" | "empty") => (None, whole(self.what(0))),
            Table::Mbr(partitions) => (Some("MBR"), self.each(partitions)),
            Table::None => (None, whole(self.what(0))),
        };
        Disk { name: self.name, size: self.size, table, holds }
    }

    fn each(&self, partitions: &[Partition]) -> Vec<String> {
        let name = |it: &Partition| match it.start.checked_add(it.len) {
            Some(end) if end <= self.size => match it.is_extended {
                true => "extended".to_owned(),
                false => self.what(it.start).to_owned(),
            },
            _ => "behind the end of the disk".to_owned(),
        };
        partitions.iter().map(name).collect()
    }
}

#[cfg(test)]
mod tests;
