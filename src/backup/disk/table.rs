//! Partition tables, as far as they lie in the first 64 KiB of a disk. Only fields at fixed places are read.
//!
//! Sources: UEFI specification, 5.3 "GUID Partition Table (GPT) Disk Layout"; for the older table the layout that all
//! systems share since DOS (four entries at byte 446, each of 16 bytes).

use flate2::Crc;

/// The most partitions that are looked at.
const MOST: usize = 128;

/// The sizes of sectors that disks have.
const SECTORS: [usize; 2] = [512, 4096];

/// What the beginning of a disk says about its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Table {
    /// There is none.
    None,
    /// An older table (MBR). Logical partitions within an extended one are not looked for.
    Mbr(Vec<Partition>),
    /// A GUID partition table, whose checksums are right.
    Gpt(Vec<Partition>),
    /// A GUID partition table whose checksums are wrong, or which lies further back.
    BadGpt(&'static str),
}

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Whether it is an extended partition, which holds others.
    pub is_extended: bool,
}

/// Reads the tables at the front of a disk. `front` are its first bytes, as many as it has up to 64 KiB.
pub(super) fn read(front: &[u8]) -> Table {
    for sector in SECTORS {
        if let Some(header) = front.get(sector..sector + 92).filter(|it| it.starts_with(b"EFI PART")) {
            return gpt(front, header, sector).map_or_else(Table::BadGpt, Table::Gpt);
        }
    }
    mbr(front).map_or(Table::None, Table::Mbr)
}

fn gpt(front: &[u8], header: &[u8], sector: usize) -> Result<Vec<Partition>, &'static str> {
    let size = u32_at(header, 12) as usize;
    if !(92..=sector).contains(&size) {
        return Err("its header has no possible size");
    }
    let mut whole = front.get(sector..sector + size).ok_or("its header is cut")?.to_vec();
    whole[16..20].fill(0);
    if crc(&whole) != u32_at(header, 16) {
        return Err("its header does not match its checksum");
    }
    let (count, step) = (u32_at(header, 80) as usize, u32_at(header, 84) as usize);
    if count > MOST || !(128..=sector.max(512)).contains(&step) || !step.is_power_of_two() {
        return Err("it has more or larger entries than are looked at");
    }
    let start = usize::try_from(u64_at(header, 72)).ok().and_then(|lba| lba.checked_mul(sector));
    let entries = start.and_then(|start| front.get(start..start.checked_add(count * step)?));
    let entries = entries.ok_or("its entries lie further back")?;
    if crc(entries) != u32_at(header, 88) {
        return Err("its entries do not match their checksum");
    }
    let used = entries.chunks_exact(step).filter(|entry| entry[..16] != [0; 16]);
    let partition = |entry: &[u8]| {
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        Some(Partition {
            start: first.checked_mul(sector as u64)?,
            len: sectors.checked_mul(sector as u64)?,
            is_extended: false,
        })
    };
    used.map(partition).collect::<Option<_>>().ok_or("an entry has no possible place")
}

/// The four entries of the older table. The first sector of a file system may have the same mark at its end, but hardly
/// entries that look like some.
fn mbr(front: &[u8]) -> Option<Vec<Partition>> {
    let front = front.get(..512).filter(|it| it.ends_with(&[0x55, 0xaa]))?;
    let entries = front[446..510].chunks_exact(16);
    if !entries.clone().all(|it| matches!(it[0], 0 | 0x80)) {
        return None;
    }
    let used = entries.filter(|it| it[4] != 0 && u32_at(it, 12) != 0);
    let partitions: Vec<_> = used
        .map(|it| Partition {
            start: u64::from(u32_at(it, 8)) * 512,
            len: u64::from(u32_at(it, 12)) * 512,
            is_extended: matches!(it[4], 0x05 | 0x0f | 0x85),
        })
        .collect();
    (!partitions.is_empty() && partitions.iter().all(|it| it.start > 0)).then_some(partitions)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The callers have made sure that there are as many bytes.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|it| it.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_le_bytes)
}
