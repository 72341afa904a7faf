//! `pve-xdelta3 vma extract --salvage`: whatever is damaged, each byte is as it was, or listed.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pve_diff_backup::container::seekable::Seekable;
use pve_diff_backup::vma::{CLUSTER, Config, Device, Event, Header, Order, Reader, write_archive};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pve-xdelta3");
const SIZES: [u64; 2] = [5 * (1 << 20) + 512, 2 << 20];

fn header() -> Header {
    let device = |(id, size)| Device { id, name: format!("drive-scsi{id}"), size };
    Header {
        uuid: *b"it will be hurt.",
        ctime: 1_763_766_000,
        configs: vec![Config { name: "qemu-server.conf".into(), data: b"memory: 512\n".to_vec() }],
        devices: (1..).zip(SIZES).map(device).collect(),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
}

/// Disks of which no two blocks are alike, with some zeros. `changed` of 100 clusters differ from those of another `changed`.
fn images(changed: u64) -> Vec<Vec<u8>> {
    let mut random = Random(7);
    let mut images = Vec::new();
    for size in SIZES {
        let mut image = vec![0; size as usize];
        for (n, cluster) in image.chunks_mut(CLUSTER).enumerate() {
            let mut seed = Random(random.next() + if n as u64 * 37 % 100 < changed { 1 << 40 } else { 0 });
            let filled = (cluster.len() * (n % 5 + 1)).div_ceil(5);
            for part in cluster[..filled].chunks_mut(2) {
                part.copy_from_slice(&seed.next().to_le_bytes()[..part.len()]);
            }
        }
        images.push(image);
    }
    images
}

fn archive(images: &[Vec<u8>]) -> Vec<u8> {
    let mut images: Vec<_> = images.iter().map(Cursor::new).collect();
    write_archive(Vec::new(), header(), &mut images, Order::Workers(5)).unwrap()
}

struct Bed(tempfile::TempDir);

impl Bed {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn get(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Runs the program from a file to a file.
    fn pipe(&self, args: &[&str], from: &str, to: &str) {
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(self.0.path());
        command.stdin(File::open(self.path(from)).unwrap()).stdout(File::create(self.path(to)).unwrap());
        assert!(command.status().unwrap().success(), "{args:?}");
    }

    /// Salvages, and compares each byte with `images`. The result is how many are lost and unproved; none where nothing could be
    /// salvaged.
    fn salvage(&self, args: &[&str], images: &[Vec<u8>]) -> Option<Found> {
        let mut command = Command::new(PROGRAM);
        command.args(["vma", "extract", "--salvage", "--json", "list"]).args(args).arg("out");
        let done = command.current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap();
        let error = String::from_utf8(done.stderr).unwrap();
        let (out, code) = (self.path("out"), done.status.code());
        if code == Some(1) {
            assert!(!out.exists() && !self.path("list").exists(), "{error}");
            assert!(error.contains("header"), "{error}");
            return None;
        }
        let list: Value = serde_json::from_slice(&self.get("list")).unwrap();
        let whole = list["whole"].as_bool().unwrap();
        assert_eq!(code, Some(if whole { 0 } else { 4 }), "{error}");
        let mut found = Found { error, ..Found::default() };
        for ((disk, image), device) in
            list["disks"].as_array().unwrap().iter().zip(images).zip(header().devices)
        {
            assert_eq!(disk["name"], device.name);
            let got = fs::read(Path::new(self.0.path()).join(disk["file"].as_str().unwrap())).unwrap();
            assert_eq!(got.len(), image.len());
            let mut excused = vec![false; image.len()];
            for (what, sum) in [("lost", &mut found.lost), ("unproved", &mut found.unproved)] {
                for range in disk[what].as_array().unwrap() {
                    let (from, to) = (range["from"].as_u64().unwrap(), range["to"].as_u64().unwrap());
                    let range = from as usize..to as usize;
                    assert!(what != "lost" || got[range.clone()].iter().all(|b| *b == 0));
                    excused[range].fill(true);
                    sum.extend((from..to).step_by(CLUSTER).map(|at| (device.id, at / CLUSTER as u64)));
                }
            }
            let wrong = (0..got.len()).find(|&n| !excused[n] && got[n] != image[n]);
            assert_eq!(wrong, None, "{args:?} {}", found.error);
            let incomplete = disk["file"].as_str().unwrap().ends_with(".incomplete.raw");
            assert_eq!(incomplete, excused.contains(&true));
        }
        fs::remove_dir_all(out).unwrap();
        fs::remove_file(self.path("list")).unwrap();
        Some(found)
    }
}

#[derive(Debug, Default)]
struct Found {
    /// Clusters: device and number.
    lost: Vec<(u8, u64)>,
    unproved: Vec<(u8, u64)>,
    error: String,
}

/// Compresses as zstd does.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.include_checksum(true).unwrap();
    zstd.write_all(bytes).unwrap();
    zstd.finish().unwrap()
}

/// Every form of backup that is salvaged.
fn bed() -> (Bed, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let bed = Bed(tempfile::tempdir().unwrap());
    let (old, new) = (images(3), images(15));
    bed.put("old.vma", &archive(&old));
    bed.put("new.vma", &archive(&new));
    bed.pipe(&["full"], "old.vma", "f.vma.zst");
    bed.pipe(&["full", "--compress", "lzo"], "old.vma", "f.vma.lzo");
    bed.pipe(&["diff", "--base", "f.vma.zst"], "new.vma", "d.vcdiff");
    bed.put("stock.vma.zst", &frame(&bed.get("old.vma")));
    (bed, old, new)
}

/// The clusters that a stretch of the archive takes with it: those that have data there, and those of an extent whose header is
/// there.
fn within(archive: &[u8], damaged: &[std::ops::Range<u64>]) -> Vec<(u8, u64)> {
    let hit = |from: u64, len: u64| damaged.iter().any(|d| d.start < from + len && from < d.end);
    let mut reader = Reader::new(archive).unwrap();
    let mut at = reader.summary().bytes;
    let (mut lost, mut headless) = (Vec::new(), false);
    loop {
        match reader.next().unwrap() {
            None => break,
            Some(Event::Extent(_)) => {
                headless = hit(at, 512);
                at += 512;
            }
            Some(Event::Cluster { device, cluster, data }) => {
                if headless || !data.is_empty() && hit(at, data.len() as u64) {
                    lost.push((device.id, cluster.number.into()));
                }
                at += data.len() as u64;
            }
        }
    }
    lost.sort();
    lost
}

#[test]
fn what_is_lost_is_told_to_the_cluster() {
    let (bed, old, new) = bed();
    let found = bed.salvage(&["f.vma.zst"], &old).unwrap();
    assert!(found.lost.is_empty() && found.unproved.is_empty() && found.error.contains("0 lost"));

    // A full of ours: a flipped byte, and a frame of zeros, take the frame with them.
    let archive = bed.get("old.vma");
    let whole = bed.get("f.vma.zst");
    for (at, len) in [(whole.len() / 2, 1), (whole.len() / 3, 3000), (whole.len() * 2 / 3, 100_000)] {
        let mut bytes = whole.clone();
        bytes[at..at + len].iter_mut().for_each(|b| *b = if len == 1 { *b ^ 0x10 } else { 0 });
        bed.put("hurt.vma.zst", &bytes);
        let frames = Seekable::open(File::open(bed.path("hurt.vma.zst")).unwrap()).unwrap().unwrap();
        let (mut start, mut damaged) = (0, Vec::new());
        for n in 0.. {
            let Some(content) = frames.content_of(n) else { break };
            if frames.decode(n).is_err() {
                damaged.push(start..start + u64::from(content));
            }
            start += u64::from(content);
        }
        let found = bed.salvage(&["hurt.vma.zst"], &old).unwrap();
        assert!(!found.lost.is_empty(), "{}", found.error);
        assert_eq!(found.lost, within(&archive, &damaged), "{}", found.error);
        assert!(found.unproved.is_empty());
        // The ordinary command still refuses it.
        let plain = Command::new(PROGRAM)
            .args(["vma", "extract", "hurt.vma.zst", "out"])
            .current_dir(bed.0.path())
            .output()
            .unwrap();
        assert_eq!(plain.status.code(), Some(1));
        assert!(!bed.path("out").exists());

        // A differential against it loses something, too; without any full, what is new is left.
        let found = bed.salvage(&["--base", "hurt.vma.zst", "d.vcdiff"], &new).unwrap();
        assert!(!found.lost.is_empty() && found.unproved.is_empty(), "{}", found.error);
        assert!(found.lost.len() < 200);
    }
    // The header of the archive is in the full.
    assert!(bed.salvage(&["--base", "nowhere", "d.vcdiff"], &new).is_none());

    // An archive that is not compressed, cut in the middle of a cluster.
    let cut = archive.len() * 3 / 5 + 99;
    bed.put("cut.vma", &archive[..cut]);
    let found = bed.salvage(&["cut.vma"], &old).unwrap();
    let behind = cut as u64..u64::MAX;
    assert_eq!(found.lost, within(&archive, std::slice::from_ref(&behind)));

    // A single zstd frame: all of it up to the cut is there, and nothing vouches for it.
    let stock = bed.get("stock.vma.zst");
    bed.put("cut.vma.zst", &stock[..stock.len() / 2]);
    let found = bed.salvage(&["cut.vma.zst"], &old).unwrap();
    let clusters = SIZES.map(|size| size.div_ceil(CLUSTER as u64)).iter().sum::<u64>() as usize;
    assert!(found.unproved.len() > clusters / 3, "{} of {clusters}", found.unproved.len());
    assert!(!found.lost.is_empty());

    // Two frames, as when two files were put together: the second is found behind the damaged first.
    let second = archive.len() / 2;
    let mut two = frame(&archive[..second]);
    let hurt = two.len() / 2;
    two[hurt..hurt + 5000].fill(0);
    two.extend(frame(&archive[second..]));
    bed.put("two.vma.zst", &two);
    let found = bed.salvage(&["two.vma.zst"], &old).unwrap();
    assert!(!found.lost.is_empty() && found.lost.len() < clusters / 2, "{}", found.lost.len());

    // lzop: a block.
    let mut lzo = bed.get("f.vma.lzo");
    let middle = lzo.len() / 2;
    lzo[middle] ^= 1;
    bed.put("hurt.vma.lzo", &lzo);
    let found = bed.salvage(&["hurt.vma.lzo"], &old).unwrap();
    assert!((1..=59 + 5).contains(&found.lost.len()), "{}", found.error);
    assert!(found.unproved.is_empty());
}

#[test]
fn no_byte_is_wrong_without_being_listed() {
    let (bed, old, new) = bed();
    let mut random = Random(2026);
    let mut salvaged = 0;
    for name in ["f.vma.zst", "f.vma.lzo", "stock.vma.zst", "d.vcdiff"] {
        let whole = bed.get(name);
        for n in 0..3 {
            let mut bytes = whole.clone();
            let at = random.next() as usize % bytes.len();
            match n % 3 {
                0 => bytes.truncate(at.max(100)),
                1 => bytes[at] ^= 1 << (random.next() % 8),
                _ => {
                    let end = bytes.len().min(at + 1 + random.next() as usize % 9000);
                    bytes[at..end].fill(0);
                }
            }
            bed.put("hurt", &bytes);
            let found = match name {
                "d.vcdiff" => bed.salvage(&["--base", "f.vma.zst", "hurt"], &new),
                _ => bed.salvage(&["hurt"], &old),
            };
            salvaged += usize::from(found.is_some());
            if name == "f.vma.zst" {
                let found = bed.salvage(&["--base", "hurt", "d.vcdiff"], &new);
                salvaged += usize::from(found.is_some());
            }
        }
    }
    assert!(salvaged >= 10, "{salvaged}");
}
