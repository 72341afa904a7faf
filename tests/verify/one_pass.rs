//! Differentials of one full that are checked in one pass over it: they are found as good or as bad as one by one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::process::{Command, Stdio};

use pve_diff_backup::vma::{Device, Header, Order, write_archive};

use super::dump::{COMPRESSIONS, Dump, Verified, verify};

const DAYS: u32 = 8;

/// Bytes that do not compress, other ones for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len / 8).flat_map(|_| next().to_le_bytes()).collect()
}

/// A VM whose disk changes here and there every day: new blocks, moved blocks, small changes, blocks that become zeros.
fn machine(day: u32) -> Vec<u8> {
    let mut disk = noise(1, 10 << 20);
    for n in 0..day as usize {
        let at = n << 20;
        disk[at..at + 200_000].copy_from_slice(&noise(100 + n as u64, 200_000));
        disk.copy_within(at + 300_000..at + 400_000, at + 600_001);
        disk[at + 900_000 + 10 * n..][..20].fill(n as u8);
        disk[(9 << 20) + n * 66_000..][..65_536].fill(0);
    }
    let header = Header {
        uuid: [day as u8 + 1; 16],
        ctime: 1_763_766_000,
        configs: vec![],
        devices: vec![Device { id: 1, name: "drive-scsi0".into(), size: disk.len() as u64 }],
    };
    write_archive(Vec::new(), header, &mut [Cursor::new(disk)], Order::Workers(day.into())).unwrap()
}

/// A directory with a full of that VM and a differential for each day, the container's chain beside it.
fn dump() -> Dump {
    let dump = Dump::new(COMPRESSIONS[0]);
    let full = dump.vm();
    dump.compressor(&["full"], &machine(0), &full);
    let base = format!("--base={}", dump.path(&full).display());
    for day in 1..=DAYS {
        dump.compressor(&["diff", &base], &machine(day), &name(&dump, day));
    }
    dump
}

fn name(dump: &Dump, day: u32) -> String {
    dump.differential(&dump.vm(), 20 + day)
}

/// What is found, by file: without the time that it took.
fn found(verified: &Verified) -> BTreeMap<String, String> {
    let lines = verified.json();
    let texts = lines.iter().filter(|line| line["file"].is_string()).map(|line| {
        let text = ["result", "error", "bytes", "content"].map(|key| line[key].to_string()).join(" ");
        (line["file"].as_str().unwrap().to_owned(), text)
    });
    texts.collect()
}

/// Verifies all of them together, and alone each that may be concerned and is called good: that must find the same. What is
/// not good together was checked alone by the program itself. Returns the days that are not good.
fn compare(dump: &Dump, what: &str, concerned: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let together = found(&dump.verify(&["--json"]));
    assert_eq!(together.len() as u32, DAYS + 1, "{what}");
    let is_good = |day: &u32| together[&name(dump, *day)].starts_with("\"ok\"");
    for day in concerned.into_iter().filter(is_good) {
        let alone = found(&Verified::new(verify().arg("--json").arg(dump.path(name(dump, day)))));
        assert_eq!(alone[&name(dump, day)], together[&name(dump, day)], "{what}");
    }
    (1..=DAYS).filter(|day| !is_good(day)).collect()
}

#[test]
fn all_are_good_in_order_and_each_is_counted() {
    let dump = dump();
    assert_eq!(compare(&dump, "good", 1..=DAYS), [0u32; 0]);
    let verified = dump.verify(&["--all"]);
    let names: Vec<_> = (1..=DAYS).map(|day| name(&dump, day)).collect();
    let lines: Vec<_> = verified.lines.iter().filter(|line| line.contains("qemu")).collect();
    assert_eq!(lines.len(), names.len() + 1);
    for (line, name) in lines[1..].iter().zip(&names) {
        assert!(line.starts_with(&format!("OK    {name} (VMA, 1 disk, ")), "{line}");
    }
    // What a restore gives is the same too.
    let restored = dump.verify(&["--restore"]);
    assert_eq!(restored.code, 0, "{:#?}", restored.lines);
    assert!(
        restored.line(&names[3]).ends_with(": restores scsi0 10.00 MiB: unknown"),
        "{:#?}",
        restored.lines
    );
}

/// Damages something of one differential: everywhere in its file, in its windows' instructions and data, at its end.
#[test]
fn a_damaged_differential_fails_alone() {
    let dump = dump();
    let victim = 5;
    let path = dump.path(name(&dump, victim));
    let whole = fs::read(&path).unwrap();
    // The file is damaged: compressed bytes flip, or are cut off.
    for part in 0..3 {
        let mut bytes = whole.clone();
        let at = bytes.len() * part / 3 + 7;
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(compare(&dump, &format!("byte {at} of {}", whole.len()), [victim]), [victim]);
    }
    for cut in [60, whole.len() / 2] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert_eq!(compare(&dump, &format!("cut by {cut}"), [victim]), [victim]);
    }
    // The file is sound, but the delta in it is not: what its compression protects was wrong before.
    let delta = zstd::decode_all(&whole[..]).unwrap();
    let mut changed = 0;
    for part in 0..6 {
        let mut bytes = delta.clone();
        let at = bytes.len() * part / 6 + 11;
        bytes[at] ^= 1;
        fs::write(&path, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
        assert_eq!(compare(&dump, &format!("byte {at} of the delta of {}", delta.len()), [victim]), [victim]);
        changed += 1;
    }
    assert_eq!(changed, 6);
    for cut in [1, 200] {
        fs::write(&path, zstd::encode_all(&delta[..delta.len() - cut], 1).unwrap()).unwrap();
        assert_eq!(compare(&dump, &format!("delta cut by {cut}"), [victim]), [victim]);
    }
    // Another differential's content under this name, and one of another full.
    fs::copy(dump.path(name(&dump, 2)), &path).unwrap();
    assert_eq!(compare(&dump, "another day's", [victim]), [0u32; 0]);
    fs::copy(dump.path(dump.differential(&dump.ct(), 21)), &path).unwrap();
    assert_eq!(compare(&dump, "another guest's", [victim]), [victim]);
}

/// Damages the end record, so that only the hash of the whole differs.
#[test]
fn a_wrong_hash_of_the_whole_is_found() {
    let dump = dump();
    let path = dump.path(name(&dump, 3));
    let delta = zstd::decode_all(&fs::read(&path).unwrap()[..]).unwrap();
    let at = memchr::memmem::rfind(&delta, b"E1").unwrap();
    for byte in [at + 4, at + 12, at + 21] {
        let mut bytes = delta.clone();
        bytes[byte] ^= 0x80;
        fs::write(&path, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
        assert_eq!(compare(&dump, &format!("end record, byte {}", byte - at), [3]), [3]);
    }
}

/// Damages the full: its data where some or all copy from, its map, its table, its end.
#[test]
fn a_damaged_full_is_found_by_each_that_needs_it() {
    let dump = dump();
    let path = dump.path(dump.vm());
    let whole = fs::read(&path).unwrap();
    let mut seen = [0; DAYS as usize + 1];
    for part in 0..8 {
        let mut bytes = whole.clone();
        let at = bytes.len() * part / 8 + 3;
        bytes[at] ^= 0x04;
        fs::write(&path, &bytes).unwrap();
        seen[compare(&dump, &format!("byte {at} of the full of {}", whole.len()), 1..=DAYS).len()] += 1;
    }
    // Most bytes are data that all of them need.
    assert!(seen[DAYS as usize] >= 5, "{seen:?}");
    for cut in [1, whole.len() / 2] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert_eq!(compare(&dump, &format!("full cut by {cut}"), 1..=DAYS).len() as u32, DAYS);
    }
    // A full with the same names that was made anew has another identity.
    dump.compressor(&["full"], &machine(0), &dump.vm());
    assert_eq!(compare(&dump, "another full", 1..=DAYS).len() as u32, DAYS);
}

/// What is not good together is checked alone, and each alone takes memory for itself: they come one after another. The limit
/// is on addresses, of which each thread's stack takes 2 MiB and each of the C library's arenas 64 MiB.
#[test]
fn bad_ones_take_no_more_memory_than_good_ones() {
    let dump = Dump::new(COMPRESSIONS[0]);
    let (full, length) = (dump.ct(), 96 << 20);
    let mut tar = vec![0; 512];
    tar[..3].copy_from_slice(b"big");
    tar[100..108].copy_from_slice(b"0000644\0");
    tar[124..136].copy_from_slice(format!("{length:011o}\0").as_bytes());
    tar[148..156].fill(b' ');
    tar[156] = b'0';
    tar[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = tar.iter().map(|&byte| u32::from(byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(noise(1, length));
    tar.extend([0; 1024]);
    dump.compressor(&["full"], &tar, &full);
    // The archive ends too early, but the differential is what it says.
    let base = format!("--base={}", dump.path(&full).display());
    let first = dump.differential(&full, 21);
    dump.compressor(&["diff", &base], &tar[..tar.len() - 100_000], &first);
    for day in 22..21 + DAYS {
        fs::copy(dump.path(&first), dump.path(dump.differential(&full, day))).unwrap();
    }
    for vm in [dump.vm(), dump.differential(&dump.vm(), 21)] {
        fs::remove_file(dump.path(vm)).unwrap();
    }
    let program = verify();
    let limited = "ulimit -v 655360 && exec -a pve-verify-backups \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", limited, "bash"]).arg(program.get_program()).arg(dump.dir.path());
    let verified = Verified::new(command.env("MALLOC_ARENA_MAX", "2").stderr(Stdio::piped()));
    assert_eq!(verified.code, 1, "{:#?} {}", verified.lines, verified.errors);
    assert_eq!(verified.lines.last().unwrap(), "8 checked, 8 NOT restorable", "{:#?}", verified.lines);
    assert!(verified.lines[..8].iter().all(|line| line.contains("the tar stream is truncated")));
}

/// A full without a map is read once for each, as before.
#[test]
fn other_fulls_are_checked_one_by_one() {
    for (compression, extension) in [("gzip", ".gz"), ("lzo", ".lzo"), ("none", "")] {
        let dump = Dump::new((compression, extension));
        let full = dump.vm();
        dump.compressor(&["full", "--compress", compression], &machine(0), &full);
        let base = format!("--base={}", dump.path(&full).display());
        for day in 1..=3 {
            let name = dump.differential(&full, 20 + day);
            dump.compressor(&["diff", &base, "--compress", compression], &machine(day), &name);
        }
        let verified = dump.verify(&[]);
        assert_eq!((verified.code, verified.lines.len()), (0, 5), "{:#?}", verified.lines);
    }
}
