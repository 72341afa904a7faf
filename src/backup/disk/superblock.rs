//! What a partition or disk holds, by the marks at fixed places of its beginning. Nothing behind these is followed.
//!
//! Sources: the headers of Linux (`fs/ext4/ext4.h`, `fs/xfs/libxfs/xfs_format.h`, `fs/btrfs/ctree.h`,
//! `include/linux/swap.h`), of LVM2 (`lib/label/label.h`), cryptsetup's on-disk format of LUKS, OpenZFS' on-disk
//! specification (vdev labels), Microsoft's "FAT: General Overview of On-Disk Format" and the boot sector of NTFS.

/// Bytes of each window that is looked at.
pub(super) const WINDOW: usize = 4096;

/// Where the windows begin. Nearly all marks are in the first; ZFS has its label in the second, btrfs its superblock in
/// the third.
pub(super) const WINDOWS: [u64; 3] = [0, 16 << 10, 64 << 10];

/// Names what begins here. `windows` are the bytes at [`WINDOWS`]. The result is `None` where that is not known.
pub(super) fn name(windows: &[[u8; WINDOW]; 3]) -> Option<&'static str> {
    let [front, label, super_block] = windows;
    let has = |at: usize, mark: &[u8]| front[at..].starts_with(mark);
    let is_boot_sector = has(510, &[0x55, 0xaa]);
    let lvm = (0..4).map(|sector| sector * 512).any(|at| has(at, b"LABELONE") && has(at + 24, b"LVM2 001"));
    match () {
        () if has(0, b"LUKS\xba\xbe\x00\x01") => Some("LUKS"),
        () if has(0, b"LUKS\xba\xbe\x00\x02") => Some("LUKS2"),
        () if lvm => Some("LVM"),
        () if has(0, b"XFSB") => Some("XFS"),
        () if super_block[64..].starts_with(b"_BHRfS_M") => Some("btrfs"),
        () if has(1024 + 56, &[0x53, 0xef]) => Some(extended(front)),
        () if is_boot_sector && has(3, b"NTFS    ") => Some("NTFS"),
        () if is_boot_sector && has(3, b"EXFAT   ") => Some("exFAT"),
        () if is_boot_sector && has(3, b"-FVE-FS-") => Some("BitLocker"),
        () if is_boot_sector && has(82, b"FAT32   ") => Some("FAT32"),
        () if is_boot_sector && (has(54, b"FAT16   ") || has(54, b"FAT12   ")) => Some("FAT16"),
        () if has(WINDOW - 10, b"SWAPSPACE2") => Some("swap"),
        () if is_zfs(label) => Some("ZFS"),
        () => None,
    }
}

/// Tells the generations of ext apart by the features that need them.
fn extended(front: &[u8; WINDOW]) -> &'static str {
    let features = |at: usize| u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]]);
    let (compatible, incompatible) = (features(1024 + 92), features(1024 + 96));
    // Extents, 64 bits, flexible block groups; a journal.
    match (incompatible & (0x40 | 0x80 | 0x200), compatible & 0x4) {
        (1.., _) => "ext4",
        (0, 1..) => "ext3",
        (0, 0) => "ext2",
    }
}

/// A label begins with a list of names and values in XDR, in which the version is first.
fn is_zfs(label: &[u8; WINDOW]) -> bool {
    label[0] == 1 && memchr::memmem::find(&label[..64], b"version").is_some()
}
