//! The proof that backups restore: what lies on disks, what is in containers, and what real tar makes of these.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use pve_diff_backup::vma::{Device, Header, Order, write_archive};

use super::dump::{COMPRESSIONS, Dump, Verified, container};

/// A VM of two disks: one with a partition table, an ext4 and an empty partition, and one with a file system of its own.
fn machine(day: u8) -> Vec<u8> {
    let mut first = vec![0; 8 << 20];
    first[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (entry, start) in [(0, 2048u32), (1, 8192)] {
        let at = 446 + 16 * entry;
        first[at + 4] = 0x83;
        first[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        first[at + 12..at + 16].copy_from_slice(&2048u32.to_le_bytes());
    }
    // The magic number, and the feature of extents.
    first[(1 << 20) + 1080..(1 << 20) + 1082].copy_from_slice(&[0x53, 0xef]);
    first[(1 << 20) + 1120] = 0x40;
    first[3 << 20..(3 << 20) + 100_000].fill(day);
    let mut second = vec![0; 1 << 20];
    second[..4].copy_from_slice(b"XFSB");
    let device = |id, name: &str, size: usize| Device { id, name: name.into(), size: size as u64 };
    let header = Header {
        uuid: [day; 16],
        ctime: 1_763_766_000,
        configs: vec![],
        devices: vec![device(1, "drive-scsi0", first.len()), device(2, "drive-virtio1", second.len())],
    };
    let mut disks = [first, second].map(Cursor::new);
    write_archive(Vec::new(), header, &mut disks, Order::Workers(u64::from(day))).unwrap()
}

/// A full and a differential of that VM, and those of a container.
fn dump(compression: (&str, &'static str)) -> Dump {
    let dump = Dump::new(compression);
    let full = dump.vm();
    dump.compressor(&["full", "--compress", compression.0], &machine(1), &full);
    let base = format!("--base={}", dump.path(&full).display());
    let differential = dump.differential(&full, 21);
    dump.compressor(&["diff", &base, "--compress", compression.0], &machine(2), &differential);
    dump
}

const DISKS: &str = "scsi0 8.00 MiB: MBR: ext4, empty; virtio1 1.00 MiB: XFS";

#[test]
fn what_a_restore_gives_is_told_once_for_each_guest() {
    for compression in COMPRESSIONS {
        let dump = dump(compression);
        let found = dump.verify(&["--restore", "--all"]);
        assert_eq!((found.code, found.lines.len()), (0, 7), "{:#?}", found.lines);
        for name in [dump.vm(), dump.differential(&dump.vm(), 21)] {
            assert!(found.line(&name).ends_with(&format!(": restores {DISKS}")), "{:#?}", found.lines);
        }
        assert!(found.line(&dump.ct()).ends_with("s): restores 2 files, 2 directories, 0 links"));
        let proved = |guest, gives| {
            format!(
                "PROVED  {guest}: 2 of 2 backups restore, the newest of 2026-11-21 01:00:02 (proved now): {gives}"
            )
        };
        let expected = [
            proved("lxc/100", "2 files, 2 directories, 0 links"),
            proved("qemu/101", DISKS),
            "4 checked, all of them restorable".to_owned(),
        ];
        assert_eq!(found.lines[4..], expected);
        // Without the option nothing of it is told.
        assert!(!dump.verify(&[]).lines.concat().contains("restores "));
    }
}

#[test]
fn a_proof_is_kept_and_shown() {
    let dump = dump(COMPRESSIONS[0]);
    let results = dump.path("results");
    let file = ["--results", results.to_str().unwrap()];
    let run = |more: &[&str]| dump.verify(&[&file[..], more].concat());
    let chains = || {
        let mut chains = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        Verified::new(chains.arg("chains").args(file).arg(dump.dir.path())).lines.concat()
    };
    // A mere check is no such proof, and what was proved is not proved again.
    assert_eq!(run(&[]).code, 0);
    assert!(chains().contains("good today"));
    assert!(run(&["--resume", "--restore"]).line(&dump.differential(&dump.vm(), 21)).starts_with("OK "));
    assert_eq!(chains().matches("restored today").count(), 2);
    let again = run(&["--resume", "--restore"]);
    assert!(again.lines[0].starts_with("SKIP ") && again.lines[1].starts_with("SKIP "), "{:#?}", again.lines);
    let line = "PROVED  qemu/101: 1 of 1 backups restore, the newest of 2026-11-21 01:00:02 (proved ";
    assert!(again.lines[3].starts_with(line) && again.lines[3].ends_with(DISKS), "{:#?}", again.lines);
    // A later check without the option leaves the proof where it is.
    assert_eq!(run(&[]).code, 0);
    assert!(run(&["--resume", "--restore"]).lines[0].starts_with("SKIP "));
    // A backup that fails has none, and its guest is not called proved.
    dump.damage(&dump.differential(&dump.vm(), 21), |bytes| bytes.truncate(200));
    let failed = run(&["--resume", "--restore", "--all"]);
    assert_eq!(failed.code, 1);
    let line = failed.lines.iter().find(|line| line.contains("qemu/101: ")).unwrap();
    assert!(
        line.starts_with("NOT ALL PROVED  qemu/101: 1 of 2 backups restore, the newest of 2026-11-20"),
        "{line}"
    );
    assert!(chains().contains("FAILED today"));
    let report = run(&["--restore", "--json", "--all"]).json().pop().unwrap();
    let guest = &report["guests"][1];
    assert_eq!(
        (&guest["guest"], &guest["backups"], &guest["restore"]),
        (&"qemu/101".into(), &2.into(), &1.into())
    );
    assert_eq!(guest["newest"]["restores"], DISKS);
}

#[test]
fn containers_are_unpacked_by_tar_and_nothing_stays() {
    let dump = dump(COMPRESSIONS[0]);
    let scratch = tempfile::tempdir().unwrap();
    let run = |place: &Path| dump.verify(&["--restore", "--extract", "--scratch", place.to_str().unwrap()]);
    let found = run(scratch.path());
    let ct = dump.differential(&dump.ct(), 21);
    assert_eq!(found.code, 0, "{:#?} {}", found.lines, found.errors);
    let told = "; unpacked by tar: 3 entries, 2 of them files of 1.53 MiB";
    assert!(found.line(&ct).ends_with(told), "{:#?}", found.lines);
    assert!(found.line(&dump.differential(&dump.vm(), 21)).ends_with(DISKS));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    // A place that is not there proves nothing, and says nothing against the backup.
    let nowhere = run(Path::new("/nowhere/at/all"));
    assert_eq!(nowhere.code, 2, "{:#?}", nowhere.lines);
    assert!(nowhere.line(&ct).starts_with("OK ") && !nowhere.lines.concat().contains("lxc/100: 1"));
    assert!(nowhere.errors.contains("not unpacked: cannot make a temporary folder"), "{}", nowhere.errors);
    // What only tar finds: a hard link to what is not there.
    let mut broken = container(3);
    let at = broken.chunks(512).position(|it| it.starts_with(b"./etc/day\0")).unwrap() * 512;
    broken[at + 156] = b'1';
    broken[at + 157..at + 167].copy_from_slice(b"./missing\0");
    broken[at + 124..at + 135].copy_from_slice(b"00000000000");
    broken[at + 148..at + 156].fill(b' ');
    let sum: u32 = broken[at..at + 512].iter().map(|it| u32::from(*it)).sum();
    broken[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    broken.drain(at + 512..at + 1024);
    fs::remove_file(dump.path(&ct)).unwrap();
    dump.compressor(&["full"], &broken, &dump.ct());
    let read = dump.verify(&["--all"]);
    assert!(read.line(&dump.ct()).starts_with("OK "), "{:#?}", read.lines);
    let place = scratch.path().to_str().unwrap();
    let found = dump.verify(&["--all", "--restore", "--extract", "--scratch", place]);
    assert_eq!(found.code, 1);
    let line = found.line(&dump.ct());
    assert!(line.contains("it cannot be unpacked: tar: ./etc/day: Cannot hard link to"), "{line}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn options_that_would_be_ignored_are_refused() {
    let dump = Dump::new(COMPRESSIONS[3]);
    for options in [&["--extract"][..], &["--restore", "--scratch", "/tmp"], &["--orphans", "--restore"]] {
        assert_eq!(dump.verify(options).code, 2, "{options:?}");
    }
}
