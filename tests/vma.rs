//! VMA archives: written, checked, unpacked, damaged, and read by programs that are not ours.

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pve_diff_backup::vma::{
    BLOCK, CLUSTER, Cluster, Config, Defect, Device, EXTENT_HEADER, Error, Event, ExtentHeader, Header, Made,
    Order, Reader, Writer, extract, verify, write_archive,
};

const ORDERS: [Order; 3] = [Order::Sequential, Order::Workers(11), Order::Parallel(11)];

/// Disks of awkward sizes: no multiple of a cluster, nor of a block, and one smaller than a block.
fn header() -> Header {
    let sizes = [540_672, 9 * CLUSTER as u64 + 3 * BLOCK as u64 + 512, 1536, 70 * CLUSTER as u64];
    let names = ["drive-efidisk0", "drive-scsi0", "drive-scsi1", "drive-virtio0"];
    Header {
        uuid: *b"an archive's own",
        ctime: 1_763_766_000,
        configs: vec![
            Config { name: "qemu-server.conf".into(), data: b"memory: 512\nname: vm101\n".to_vec() },
            Config { name: "qemu-server.fw".into(), data: b"[OPTIONS]\n".to_vec() },
        ],
        devices: (1..)
            .zip(names.into_iter().zip(sizes))
            .map(|(id, (name, size))| Device { id, name: name.into(), size })
            .collect(),
    }
}

/// Data, zeros, blocks that are zero but for their last byte; ends with data.
fn images() -> Vec<Vec<u8>> {
    let disk = |d: &Device| {
        let mut random = u64::from(d.id);
        let mut image = vec![0u8; d.size as usize];
        for (i, block) in image.chunks_mut(BLOCK).enumerate() {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            match random >> 62 {
                0 => block.iter_mut().zip(i..).for_each(|(b, n)| *b = (n * 7 + 1) as u8),
                1 => *block.last_mut().unwrap() = 1,
                _ => {}
            }
        }
        *image.last_mut().unwrap() = 0xee;
        image
    };
    header().devices.iter().map(disk).collect()
}

fn archive(order: Order) -> Vec<u8> {
    let mut images: Vec<_> = images().into_iter().map(Cursor::new).collect();
    write_archive(Vec::new(), header(), &mut images, order).unwrap()
}

/// Hands out a few bytes at a time, as a pipe may.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(1000);
        self.0.read(&mut buf[..n])
    }
}

fn defect(bytes: &[u8]) -> Defect {
    match verify(bytes) {
        Err(Error::Format { defect, .. }) => defect,
        other => panic!("expected a defect, got {other:?}"),
    }
}

#[test]
fn every_order_comes_back_bit_for_bit() {
    for order in ORDERS {
        let bytes = archive(order);
        let summary = verify(Trickle(&bytes)).unwrap();
        assert_eq!(summary.bytes, bytes.len() as u64);
        assert_eq!(summary.clusters, 9 + 10 + 1 + 70);
        // 90 clusters, 58 in an extent
        assert_eq!(summary.extents, 2);

        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut reader = Reader::new(&bytes[..]).unwrap();
        let written = extract(&mut reader, &out, None, &Made::default()).unwrap();
        assert_eq!((written.files.len(), reader.summary()), (6, summary));
        for (device, image) in header().devices.iter().zip(images()) {
            let got = fs::read(out.join(format!("disk-{}.raw", device.name))).unwrap();
            assert!(got == image, "{order:?}: {} differs", device.name);
        }
        assert_eq!(fs::read(out.join("qemu-server.fw")).unwrap(), b"[OPTIONS]\n");
    }
}

#[test]
fn only_the_wanted_disks_are_unpacked_and_holes_stay_holes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let big = Device { id: 1, name: "drive-scsi0".into(), size: 64 << 20 };
    let header =
        Header { devices: vec![big, Device { id: 2, name: "drive-scsi1".into(), size: 4096 }], ..header() };
    let mut images = [Cursor::new(vec![7; 4096]), Cursor::new(vec![8; 4096])];
    let bytes = write_archive(Vec::new(), header, &mut images, Order::Sequential).unwrap();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    extract(&mut reader, &out, Some(&["drive-scsi0".into()]), &Made::default()).unwrap();
    let meta = fs::metadata(out.join("disk-drive-scsi0.raw")).unwrap();
    assert_eq!(meta.len(), 64 << 20);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    assert!(!out.join("disk-drive-scsi1.raw").exists());

    let mut reader = Reader::new(&bytes[..]).unwrap();
    let error =
        extract(&mut reader, &dir.path().join("none"), Some(&["drive-ide0".into()]), &Made::default())
            .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the archive has no device \"drive-ide0\" (it has: drive-scsi0, drive-scsi1)"
    );
    assert!(!dir.path().join("none").exists());
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let bytes = archive(Order::Workers(3));
    let header_len = Header::measure(&bytes).unwrap().unwrap();
    let cuts = (0..header_len + 2 * EXTENT_HEADER)
        .chain((header_len..bytes.len()).step_by(911))
        .chain([bytes.len() - 1]);
    for cut in cuts {
        let error = verify(&bytes[..cut]).unwrap_err();
        let offset = match &error {
            Error::Truncated { offset, .. } => *offset,
            // between two extents only the missing clusters tell
            Error::Format { offset, defect: Defect::Incomplete { .. } } => *offset,
            other => panic!("cut at {cut}: {other}"),
        };
        assert_eq!(offset, cut as u64, "{error}");
    }
}

#[test]
fn a_flipped_bit_outside_of_data_is_noticed_and_nothing_panics() {
    let bytes = archive(Order::Parallel(3));
    let header_len = Header::measure(&bytes).unwrap().unwrap();
    for at in (0..header_len + EXTENT_HEADER).step_by(3) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x40;
        assert!(verify(&bad[..]).is_err(), "byte {at}");
    }
    // stored blocks carry no checksum in this format: only the structure can be checked
    let mut bad = bytes.clone();
    bad[header_len + EXTENT_HEADER] ^= 1;
    assert!(verify(&bad[..]).is_ok());
}

#[test]
fn missing_and_doubled_clusters_are_named() {
    let device = Device { id: 1, name: "drive-scsi0".into(), size: 3 * CLUSTER as u64 };
    let header = Header { devices: vec![device], ..header() };
    let written = |numbers: &[u32]| {
        let mut writer = Writer::new(Vec::new(), header.clone()).unwrap();
        for number in numbers {
            writer.cluster(1, *number, &[1]).unwrap();
        }
        writer.finish().unwrap()
    };
    assert!(verify(&written(&[2, 0, 1])[..]).is_ok());
    let device = || "drive-scsi0".to_owned();
    assert_eq!(
        defect(&written(&[0, 2])),
        Defect::Incomplete { device: device(), missing: 1, total: 3, first: 1 }
    );
    assert_eq!(
        defect(&written(&[])),
        Defect::Incomplete { device: device(), missing: 3, total: 3, first: 0 }
    );
    assert_eq!(defect(&written(&[0, 1, 2, 1])), Defect::Duplicate { device: device(), cluster: 1 });
    assert_eq!(
        defect(&written(&[0, 1, 3])),
        Defect::BehindEnd { device: device(), cluster: 3, size: 196_608 }
    );
}

#[test]
fn extents_that_do_not_belong_are_refused() {
    let whole = archive(Order::Sequential);
    let at = Header::measure(&whole).unwrap().unwrap();
    let with = |uuid, cluster: Cluster| {
        let data = vec![1; cluster.data_len()];
        [&whole[..at], &ExtentHeader::new(uuid, &[cluster]).encode(), &data].concat()
    };
    let cluster = Cluster { device: 1, number: 0, mask: 1 };
    assert_eq!(defect(&with([0; 16], cluster)), Defect::ForeignExtent);
    let uuid = header().uuid;
    assert_eq!(defect(&with(uuid, Cluster { device: 9, ..cluster })), Defect::UnknownDevice(9));
    // drive-efidisk0 ends with block 3 of cluster 8
    let end = Defect::BehindEnd { device: "drive-efidisk0".into(), cluster: 8, size: 540_672 };
    assert_eq!(defect(&with(uuid, Cluster { number: 8, mask: 1 << 4, ..cluster })), end);
    // bytes behind the last extent
    assert_eq!(defect(&[&whole[..], &[0; 512]].concat()), Defect::ExtentMagic);
    assert!(matches!(verify(&[&whole[..], b"VMAE"].concat()[..]), Err(Error::Truncated { .. })));
    // an unused entry's mask has no data, so the count does not fit
    assert_eq!(
        defect(&with(uuid, Cluster { device: 0, ..cluster })),
        Defect::BlockCount { declared: 1, masked: 0 }
    );
}

#[test]
fn memory_of_the_guest_has_no_length_but_an_order() {
    let vmstate = Device { id: 1, name: "vmstate".into(), size: 5 };
    let header = Header { devices: vec![vmstate], ..header() };
    let written = |numbers: &[u32]| {
        let mut writer = Writer::new(Vec::new(), header.clone()).unwrap();
        for number in numbers {
            writer.cluster(1, *number, &[3; BLOCK]).unwrap();
        }
        writer.finish().unwrap()
    };
    assert_eq!(defect(&written(&[0, 2])), Defect::VmstateOrder { found: 2, expected: 1 });
    let bytes = written(&[0, 1]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    extract(&mut Reader::new(&bytes[..]).unwrap(), &out, None, &Made::default()).unwrap();
    let mut cluster = vec![3; BLOCK];
    cluster.resize(CLUSTER, 0);
    assert!(fs::read(out.join("vmstate.bin")).unwrap() == cluster.repeat(2));
}

#[test]
fn a_damaged_archive_leaves_nothing() {
    /// Makes a file, once it can, while it is read.
    struct Putting<'a>(&'a [u8], PathBuf);
    impl Read for Putting<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let _ = fs::write(&self.1, "");
            self.0.read(buf)
        }
    }

    let bytes = archive(Order::Sequential);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut reader = Reader::new(&bytes[..bytes.len() - 1]).unwrap();
    assert!(extract(&mut reader, &out, None, &Made::default()).is_err());
    assert!(!out.exists());
    // what others put there is left, and told
    let made = Made::default();
    let mut reader = Reader::new(Putting(&bytes[..bytes.len() - 1], out.join("theirs"))).unwrap();
    assert!(extract(&mut reader, &out, None, &made).is_err());
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(made.left(), [out.as_path()]);
    // a second try does not write into what is there, nor takes it away
    let again = extract(&mut Reader::new(&bytes[..]).unwrap(), &out, None, &Made::default()).unwrap_err();
    assert!(matches!(&again, Error::Exists { .. }), "{again}");
    assert!(out.join("theirs").exists());
}

#[test]
fn an_archive_without_disks_is_complete() {
    let header = Header { devices: vec![], ..header() };
    let bytes = Writer::new(Vec::new(), header).unwrap().finish().unwrap();
    let summary = verify(&bytes[..]).unwrap();
    assert_eq!((summary.extents, summary.clusters), (1, 0));
}

#[test]
fn events_carry_the_blocks_of_their_masks() {
    let bytes = archive(Order::Parallel(7));
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let (images, mut extents, mut clusters) = (images(), 0, 0);
    while let Some(event) = reader.next().unwrap() {
        match event {
            Event::Extent(head) => extents += usize::from(head.block_count),
            Event::Cluster { device, cluster, data } => {
                let image = &images[usize::from(device.id) - 1];
                for (block, at) in data.chunks(BLOCK).zip(cluster.blocks()) {
                    let start = cluster.number as usize * CLUSTER + at;
                    let end = (start + BLOCK).min(image.len());
                    assert!(block[..end - start] == image[start..end]);
                }
                clusters += data.len() / BLOCK;
            }
        }
    }
    assert_eq!(extents, clusters);
}

/// Python's dissect.archive reads our archives and finds the same disks and configurations.
#[test]
fn an_independent_reader_agrees() {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let found =
        Command::new(&python).args(["-c", "import dissect.archive.vma"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|s| s.success()) {
        eprintln!(
            "skipped: no python3 with dissect.archive (pip install dissect.archive; PYTHON names the interpreter)"
        );
        return;
    }
    let script = "\
import sys
from dissect.archive.vma import VMA
vma = VMA(open(sys.argv[1], 'rb'))
for name, data in vma.configs().items():
    open(f'{sys.argv[2]}/{name}', 'wb').write(data)
for device in vma.devices():
    open(f'{sys.argv[2]}/{device.name}', 'wb').write(device.open().read(device.size))
";
    for order in ORDERS {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.vma");
        fs::write(&file, archive(order)).unwrap();
        let status = Command::new(&python).args(["-c", script]).arg(&file).arg(dir.path()).status().unwrap();
        assert!(status.success());
        for (device, image) in header().devices.iter().zip(images()) {
            assert!(fs::read(dir.path().join(&device.name)).unwrap() == image, "{order:?}: {}", device.name);
        }
        for config in header().configs {
            assert_eq!(fs::read(dir.path().join(config.name)).unwrap(), config.data);
        }
    }
}

/// So does a program `vma` (Proxmox's), where there is one.
#[test]
fn proxmox_vma_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.vma");
    let vma = |args: &[&Path]| Command::new("vma").args(args).output();
    if vma(&[Path::new("list"), Path::new("/dev/null")]).is_err() {
        eprintln!("skipped: no program vma (part of Proxmox VE's pve-qemu-kvm)");
        return;
    }
    let header = header();
    for (order, out) in ORDERS.into_iter().zip(["sequential", "workers", "parallel"]) {
        fs::write(&file, archive(order)).unwrap();
        let out = dir.path().join(out);
        for args in [&[Path::new("verify"), &file] as &[&Path], &[Path::new("extract"), &file, &out]] {
            let result = vma(args).unwrap();
            assert!(result.status.success(), "{args:?}: {}", String::from_utf8_lossy(&result.stderr));
        }
        for (device, image) in header.devices.iter().zip(images()) {
            let got = fs::read(out.join(format!("disk-{}.raw", device.name))).unwrap();
            assert!(got == image, "{order:?}: {}", device.name);
        }
    }
    // and the other way round: what it writes, we read
    let (conf, disk) = (dir.path().join("qemu-server.conf"), dir.path().join("disk.raw"));
    fs::write(&conf, "memory: 1024\n").unwrap();
    fs::write(&disk, &images()[3]).unwrap();
    let (theirs, named) = (dir.path().join("theirs.vma"), format!("drive-scsi0={}", disk.display()));
    let result = vma(&[Path::new("create"), Path::new("-c"), &conf, &theirs, Path::new(&named)]).unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let mut reader = Reader::new(fs::File::open(&theirs).unwrap()).unwrap();
    assert_eq!(
        reader.header().configs,
        [Config { name: "qemu-server.conf".into(), data: b"memory: 1024\n".to_vec() }]
    );
    extract(&mut reader, &dir.path().join("ours"), None, &Made::default()).unwrap();
    assert!(fs::read(dir.path().join("ours/disk-drive-scsi0.raw")).unwrap() == images()[3]);
}

#[test]
fn created_archives_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let disk: Vec<u8> = (0..3_000_001u32).map(|n| (n / 7000) as u8).collect();
    std::fs::write(path("a=b c.raw"), &disk).unwrap();
    std::fs::write(path("qemu-server.conf"), "memory: 5\n").unwrap();
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
            .arg("vma")
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (archive, mixed) in [("plain.vma", None), ("mixed.vma", Some("--mixed"))] {
        let (archive, out) = (path(archive), path(&format!("{archive}.out")));
        let image = format!("drive-scsi0={}", path("a=b c.raw"));
        let conf = path("qemu-server.conf");
        let mut args = vec!["create", &archive, &image, "-c", &conf];
        args.extend(mixed);
        run(&args);
        run(&["verify", &archive]);
        assert_eq!(run(&["config", &archive]), "memory: 5\n");
        run(&["extract", &archive, &out]);
        assert_eq!(std::fs::read(format!("{out}/disk-drive-scsi0.raw")).unwrap(), disk);
    }
}

#[path = "vma/compose.rs"]
mod compose;

#[path = "vma/program.rs"]
mod program;

#[path = "vma/salvage.rs"]
mod salvage;

mod hostile {
    //! Archives whose checksums are right and whose contents are not.

    use md5::{Digest, Md5};
    use proptest::prelude::*;

    use super::*;

    /// Extent entries near what is valid: few devices, few clusters, any mask.
    fn entries() -> impl Strategy<Value = Vec<Cluster>> {
        let number = prop_oneof![0..12u32, any::<u32>()];
        let entry = (0..6u8, number, prop_oneof![Just(0), Just(0xffff), any::<u16>()]);
        let entry = entry.prop_map(|(device, number, mask)| Cluster { device, number, mask });
        proptest::collection::vec(entry, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any extents: verified only if each cluster of each device is there once, never a panic.
        #[test]
        fn extents(extents in proptest::collection::vec(entries(), 0..4)) {
            let mut bytes = header().encode().unwrap();
            for clusters in &extents {
                let head = ExtentHeader::new(header().uuid, clusters);
                bytes.extend_from_slice(&head.encode());
                bytes.resize(bytes.len() + head.data_len(), 1);
            }
            prop_assert!(verify(&bytes[..]).is_err(), "the largest disk cannot be complete");
        }

        /// Any bytes in the header's tables.
        #[test]
        fn headers(changes in proptest::collection::vec((48..14_000usize, any::<u8>()), 1..40)) {
            let mut bytes = header().encode().unwrap();
            let len = bytes.len();
            for (at, value) in changes {
                bytes[at % len] = value;
            }
            bytes[32..48].fill(0);
            let sum = Md5::digest(&bytes);
            bytes[32..48].copy_from_slice(&sum);
            if let Ok(parsed) = Header::parse(&bytes) {
                prop_assert!(parsed.devices.iter().all(|d| d.id > 0 && d.size > 0 && !d.name.contains('/')));
                prop_assert!(parsed.configs.iter().all(|c| !c.name.contains('/') && !c.name.is_empty()));
            }
        }
    }
}
