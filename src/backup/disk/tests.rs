//! Disks of the real programs where they are there, the others made by the specifications.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::vma::BLOCKS_PER_CLUSTER;

/// Gives these clusters of a disk to a probe, in this order, as an archive would: blocks of zeros are left out.
fn feed(probe: &mut Probe, disk: &dyn Fn(u64) -> [u8; CLUSTER], order: impl IntoIterator<Item = u32>) {
    for number in order {
        let cluster = disk(u64::from(number) * CLUSTER as u64);
        let (mut mask, mut data) = (0, Vec::new());
        for (bit, block) in cluster.as_chunks::<BLOCK>().0.iter().enumerate() {
            if *block != [0; BLOCK] {
                mask |= 1 << bit;
                data.extend_from_slice(block);
            }
        }
        assert!(data.len() <= BLOCKS_PER_CLUSTER * BLOCK);
        probe.take(Cluster { device: 1, number, mask }, &data);
    }
}

fn probe(size: u64) -> Probe {
    Probe::new(&Device { id: 1, name: "drive-scsi0".into(), size }).unwrap()
}

/// The bytes of a file, zeros behind its end.
fn of_file(path: &Path) -> impl Fn(u64) -> [u8; CLUSTER] + use<> {
    let file = File::open(path).unwrap();
    move |at| {
        let (mut bytes, mut got) = ([0; CLUSTER], 0);
        while let n @ 1.. = file.read_at(&mut bytes[got..], at + got as u64).unwrap() {
            got += n;
        }
        bytes
    }
}

fn of_bytes(bytes: &[u8]) -> impl Fn(u64) -> [u8; CLUSTER] + '_ {
    |at| {
        let mut cluster = [0; CLUSTER];
        let rest = bytes.get(at as usize..).unwrap_or_default();
        let n = rest.len().min(CLUSTER);
        cluster[..n].copy_from_slice(&rest[..n]);
        cluster
    }
}

/// What a disk without partitions is found to hold.
fn found(disk: &dyn Fn(u64) -> [u8; CLUSTER], size: u64) -> String {
    let mut probe = probe(size);
    feed(&mut probe, disk, 0..3);
    assert!(!probe.has_missed());
    let disk = probe.finish();
    assert_eq!((disk.table, disk.holds.len()), (None, 1), "{disk}");
    disk.holds[0].clone()
}

fn empty_file(dir: &Path, name: &str, mib: u64) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path
}

/// Runs a program of an administrator; tells whether it is there.
fn run(program: &str, arguments: &[&str], input: &str) -> bool {
    let command = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = command else {
        eprintln!("skipped: no program {program}");
        return false;
    };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

#[test]
fn file_systems_of_their_own_programs_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], &str); 9] = [
        ("mkfs.ext4", &["-q", "-F"], "ext4"),
        ("mkfs.ext3", &["-q", "-F"], "ext3"),
        ("mkfs.ext2", &["-q", "-F"], "ext2"),
        ("mkfs.xfs", &["-q", "-f"], "XFS"),
        ("mkfs.btrfs", &["-q", "-f"], "btrfs"),
        ("mkfs.fat", &["-F32"], "FAT32"),
        ("mkfs.fat", &["-F16"], "FAT16"),
        ("mkfs.ntfs", &["-q", "-F", "-Q"], "NTFS"),
        ("mkswap", &["-q"], "swap"),
    ];
    let mut tried = 0;
    for (program, options, name) in cases {
        let file = empty_file(dir.path(), name, 512);
        if run(program, &[options, &[file.to_str().unwrap()]].concat(), "") {
            assert_eq!(found(&of_file(&file), 512 << 20), name);
            tried += 1;
        }
    }
    // util-linux and e2fsprogs are on every Debian.
    assert!(tried >= 4, "only {tried} were tried");
}

#[test]
fn file_systems_by_their_specifications_are_known() {
    let with = |marks: &[(usize, &[u8])]| {
        let mut bytes = vec![0; 3 * CLUSTER];
        marks.iter().for_each(|(at, mark)| bytes[*at..*at + mark.len()].copy_from_slice(mark));
        found(&of_bytes(&bytes), bytes.len() as u64)
    };
    assert_eq!(with(&[(512, b"LABELONE"), (536, b"LVM2 001")]), "LVM");
    assert_eq!(with(&[(0, b"LUKS\xba\xbe\0\x01")]), "LUKS");
    assert_eq!(with(&[(0, b"LUKS\xba\xbe\0\x02")]), "LUKS2");
    assert_eq!(with(&[(16 << 10, b"\x01\x01\0\0"), ((16 << 10) + 24, b"version")]), "ZFS");
    assert_eq!(with(&[(3, b"-FVE-FS-"), (510, b"\x55\xaa")]), "BitLocker");
    assert_eq!(with(&[(3, b"EXFAT   "), (510, b"\x55\xaa")]), "exFAT");
    assert_eq!(with(&[(40, b"something else")]), "unknown");
    assert_eq!(with(&[]), "empty");
    // A mark at another place, or without its sector's end, is none.
    assert_eq!(with(&[(8, b"XFSB")]), "unknown");
    assert_eq!(with(&[(3, b"NTFS    ")]), "unknown");
}

#[test]
fn partitions_are_looked_into_in_whatever_order_clusters_come() {
    let dir = tempfile::tempdir().unwrap();
    for (label, table) in [("gpt", "GPT"), ("dos", "MBR")] {
        let disk = empty_file(dir.path(), label, 48);
        let path = disk.to_str().unwrap();
        // The first partition begins at no multiple of a block.
        let parts = format!(
            "label: {label}\nfirst-lba: 34\nstart=67,size=16384\nstart=20480,size=20480\nstart=43008,size=20480\n"
        );
        if !run("sfdisk", &["-q", path], &parts) {
            return;
        }
        let offset = (20480 * 512).to_string();
        let ext4 = ["-q", "-F", "-E", &format!("offset={offset}"), path, "10M"];
        assert!(run("mkfs.ext4", &ext4, ""));
        File::options()
            .write(true)
            .open(&disk)
            .unwrap()
            .write_all_at(b"LUKS\xba\xbe\0\x02", 67 * 512)
            .unwrap();
        let expected = ["LUKS2", "ext4", "empty"].map(str::to_owned);
        let clusters = 48 * 16;
        let orders: [Vec<u32>; 3] =
            [(0..clusters).collect(), (0..clusters).rev().collect(), (1..clusters).chain([0]).collect()];
        for (order, misses) in orders.into_iter().zip([false, true, true]) {
            let mut probe = probe(48 << 20);
            feed(&mut probe, &of_file(&disk), order.clone());
            assert_eq!(probe.has_missed(), misses);
            if misses {
                probe.again();
                feed(&mut probe, &of_file(&disk), order);
            }
            assert!(!probe.has_missed());
            let found = probe.finish();
            assert_eq!((found.table, found.holds.as_slice()), (Some(table), &expected[..]), "{found}");
            assert_eq!(found.to_string(), format!("scsi0 48.00 MiB: {table}: LUKS2, ext4, empty"));
        }
        if label == "gpt" {
            let damaged = of_file(&disk);
            let damaged = move |at| {
                let mut bytes = damaged(at);
                if at == 0 {
                    bytes[1024 + 40] ^= 1;
                }
                bytes
            };
            let mut probe = probe(48 << 20);
            feed(&mut probe, &damaged, 0..clusters);
            let found = probe.finish().to_string();
            assert!(
                found.ends_with("GPT: not readable, as its entries do not match their checksum"),
                "{found}"
            );
        }
    }
}

#[test]
fn a_table_that_leads_nowhere_is_told() {
    let mut bytes = vec![0; CLUSTER];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (entry, kind, start, len) in
        [(0, 0x83, 1u32, 1u32 << 31), (1, 0x05, 8, 8), (2, 0x83, u32::MAX, u32::MAX)]
    {
        let at = 446 + 16 * entry;
        bytes[at + 4] = kind;
        bytes[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
    }
    let mut probe = probe(1 << 20);
    feed(&mut probe, &of_bytes(&bytes), 0..16);
    let found = probe.finish();
    assert_eq!(
        found.to_string(),
        "scsi0 1.00 MiB: MBR: behind the end of the disk, extended, behind the end of the disk"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever lies on a disk, little is kept of it, and nothing panics.
    #[test]
    fn any_front_is_taken(
        seed in prop::collection::vec(any::<u8>(), 0..2048),
        gpt in any::<bool>(),
        fields in prop::collection::vec(any::<u64>(), 6),
        size in any::<u64>(),
    ) {
        let mut bytes = vec![0; CLUSTER];
        bytes[..seed.len()].copy_from_slice(&seed);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        if gpt {
            bytes[512..520].copy_from_slice(b"EFI PART");
            bytes[524..528].copy_from_slice(&92u32.to_le_bytes());
            bytes[512 + 72..512 + 80].copy_from_slice(&(fields[0] % 200).to_le_bytes());
            bytes[512 + 80..512 + 84].copy_from_slice(&((fields[1] % 140) as u32).to_le_bytes());
            bytes[512 + 84..512 + 88].copy_from_slice(&(128u32 << (fields[2] % 4)).to_le_bytes());
            for (n, field) in fields.iter().enumerate() {
                bytes[1024 + 128 * n + 32..1024 + 128 * n + 40].copy_from_slice(&field.to_le_bytes());
            }
        }
        let mut probe = probe(size);
        feed(&mut probe, &of_bytes(&bytes), [0, 1, 2, u32::MAX]);
        prop_assert!(probe.wanted.len() <= 16 + 6 * 129);
        let _ = probe.finish().to_string();
    }
}
