//! Backups as file systems: really mounted, read by cp and by the kernel's own file systems.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::tar::{same, tree};
use super::work::{DIFFERENTIAL, DISKS, PROGRAM, Running, Work};

/// Tells why nothing can be mounted here, if so.
fn cannot_mount() -> Option<&'static str> {
    if !Path::new("/dev/fuse").exists() {
        return Some("no /dev/fuse on this machine");
    }
    match rustix::process::geteuid().is_root() {
        true => None,
        false => Some("not root, who may mount without fusermount3"),
    }
}

fn skips() -> bool {
    if let Some(why) = cannot_mount() {
        println!("skipped: {why}");
        return true;
    }
    false
}

fn is_mounted(work: &Work, folder: &str) -> bool {
    let at =
        work.path(folder).canonicalize().map_or(String::new(), |path| path.to_string_lossy().into_owned());
    fs::read_to_string("/proc/self/mounts").unwrap().lines().any(|line| line.split(' ').nth(1) == Some(&at))
}

/// Unmounts at the end, whatever happens.
struct Mounted<'a>(&'a Work, &'a str);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = self.0.output("umount", &["-l", self.1]);
    }
}

/// Mounts in the background.
fn mount<'a>(work: &'a Work, kind: &str, backup: &str, folder: &'a str) -> Mounted<'a> {
    let _ = fs::create_dir(work.path(folder));
    work.run(PROGRAM, &[kind, "mount", backup, folder]);
    assert!(is_mounted(work, folder));
    Mounted(work, folder)
}

#[test]
fn disks_are_files_with_holes() {
    if skips() {
        return;
    }
    let (work, _) = Work::with_backups();
    for (backup, second) in
        [("map.vma.zst".to_owned(), false), (format!("stock.vma.zst{DIFFERENTIAL}"), true)]
    {
        let _mounted = mount(&work, "vma", &backup, "mnt");
        for (disk, first, last) in DISKS {
            let image = fs::read(work.path(if second { last } else { first })).unwrap();
            let path = format!("mnt/disk-{disk}.raw");
            assert!(fs::read(work.path(&path)).unwrap() == image, "{backup}: {disk}");
            work.run("cp", &["--sparse=auto", &path, "copy"]);
            assert!(fs::read(work.path("copy")).unwrap() == image, "{backup}: {disk} by cp");
            let (there, copy) =
                (fs::metadata(work.path(&path)).unwrap(), fs::metadata(work.path("copy")).unwrap());
            assert!(there.mode() & 0o7777 == 0o400 && there.blocks() * 512 <= image.len() as u64 + 4096);
            assert!(copy.blocks() * 512 <= there.blocks() * 512 + (1 << 20), "holes are copied as holes");
            fs::remove_file(work.path("copy")).unwrap();
        }
        assert_eq!(
            fs::read_to_string(work.path("mnt/qemu-server.conf")).unwrap(),
            "memory: 512\nname: vm101\n"
        );
        assert_eq!(fs::read_dir(work.path("mnt")).unwrap().count(), 5);
        assert!(
            fs::write(work.path("mnt/new"), "x").is_err()
                && fs::remove_file(work.path("mnt/qemu-server.conf")).is_err()
        );
        work.run("umount", &["mnt"]);
        assert!(!is_mounted(&work, "mnt"));
    }
}

#[test]
fn containers_are_trees() {
    if skips() {
        return;
    }
    let work = Work::new();
    tree(&work, "first");
    tree(&work, "second");
    for name in ["first", "second"] {
        let form = ["--numeric-owner", "--format=posix", "--sparse", "--xattrs", "--xattrs-include=user.*"];
        let file = format!("{name}.tar");
        work.run("tar", &[&form[..], &["-cf", &file, "-C", name, "."]].concat());
    }
    work.pipe(&["full"], "first.tar", "map.tar.zst");
    let differential = format!("map.tar.zst{DIFFERENTIAL}");
    work.pipe(&["diff", "--base", "map.tar.zst"], "second.tar", &differential);
    for (backup, name) in [("map.tar.zst", "first"), (&differential, "second")] {
        let _mounted = mount(&work, "tar", backup, "mnt");
        let copy = format!("copy-{name}");
        work.run("cp", &["-a", "mnt", &copy]);
        same(&work, &copy, name, backup);
        let (a, b) = (
            fs::metadata(work.path("mnt/etc/hosts")).unwrap(),
            fs::metadata(work.path("mnt/usr/hosts")).unwrap(),
        );
        assert!(a.ino() == b.ino() && a.nlink() == 3);
        let note = |file: &str| work.output("getfattr", &["--only-values", "-n", "user.note", file]).stdout;
        assert_eq!(note("mnt/etc/hosts"), note(&format!("{name}/etc/hosts")));
        work.run("umount", &["mnt"]);
    }
}

#[test]
fn a_signal_unmounts() {
    if skips() {
        return;
    }
    let (work, _) = Work::with_backups();
    fs::create_dir(work.path("mnt")).unwrap();
    let args = ["vma", "mount", "map.vma.zst", "mnt", "--foreground"];
    let child = work.command(PROGRAM, &args).spawn().unwrap();
    let running = Running(child);
    let _mounted = Mounted(&work, "mnt");
    let begin = std::time::Instant::now();
    while !is_mounted(&work, "mnt") {
        assert!(begin.elapsed().as_secs() < 120, "it does not mount");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // A file that is still open there keeps nobody from ending it.
    let open = fs::File::open(work.path("mnt/disk-drive-scsi0.raw")).unwrap();
    running.end_with_open(&open);
    assert!(!is_mounted(&work, "mnt"));
}

#[test]
fn damage_is_an_error_where_it_is() {
    if skips() {
        return;
    }
    let (work, _) = Work::with_backups();
    let size = fs::metadata(work.path("map.vma.zst")).unwrap().len();
    work.damage("map.vma.zst", size / 2);
    let _mounted = mount(&work, "vma", "map.vma.zst", "mnt");
    let image = fs::read(work.path("scsi0.raw")).unwrap();
    let file = fs::File::open(work.path("mnt/disk-drive-scsi0.raw")).unwrap();
    let (mut good, mut bad, mut buf) = (0, 0, vec![0; 64 << 10]);
    for at in (0..image.len()).step_by(buf.len()) {
        match file.read_exact_at(&mut buf, at as u64) {
            Ok(()) => {
                good += 1;
                assert!(buf == image[at..at + buf.len()], "{at}");
            }
            Err(error) => {
                bad += 1;
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
            }
        }
    }
    assert!(bad > 0 && good > bad, "{bad} of {}", good + bad);
}

#[test]
fn file_systems_of_guests_are_really_mounted() {
    if skips() {
        return;
    }
    if !Path::new("/dev/loop-control").exists() {
        println!("skipped: no loop devices on this machine, as root or not");
        return;
    }
    let work = Work::new();
    tree(&work, "first");
    let _ = fs::remove_file(work.path("first/var/fifo"));
    // A disk with a partition that holds ext4.
    work.run("mke2fs", &["-q", "-t", "ext4", "-d", "first", "ext4.img", "48M"]);
    let disk = fs::File::create(work.path("disk.raw")).unwrap();
    disk.set_len(64 << 20).unwrap();
    disk.write_all_at(&fs::read(work.path("ext4.img")).unwrap(), 1 << 20).unwrap();
    let mut table = [0u8; 66];
    table[4] = 0x83;
    table[8..12].copy_from_slice(&2048u32.to_le_bytes());
    table[12..16].copy_from_slice(&(48u32 << 11).to_le_bytes());
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_all_at(&table, 446).unwrap();
    work.run(PROGRAM, &["vma", "create", "first.vma", "drive-scsi0=disk.raw"]);
    work.pipe(&["full"], "first.vma", "map.vma.zst");
    // The next day a block of a file differs.
    let large = fs::read(work.path("first/usr/share/doc/large")).unwrap();
    let raw = fs::read(work.path("disk.raw")).unwrap();
    let at = memchr::memmem::find(&raw, &large[8192..12288]).unwrap();
    disk.write_all_at(b"changed on the second day", at as u64).unwrap();
    work.run(PROGRAM, &["vma", "create", "second.vma", "drive-scsi0=disk.raw"]);
    let differential = format!("map.vma.zst{DIFFERENTIAL}");
    work.pipe(&["diff", "--base", "map.vma.zst"], "second.vma", &differential);
    for (backup, changed) in [("map.vma.zst", false), (&differential, true)] {
        let _mounted = mount(&work, "vma", backup, "mnt");
        fs::create_dir_all(work.path("guest")).unwrap();
        let image = "mnt/disk-drive-scsi0.raw";
        let options = "loop,ro,noload,offset=1048576";
        let mounted = work.output("mount", &["-t", "ext4", "-o", options, image, "guest"]);
        if !mounted.status.success() {
            println!(
                "skipped: ext4 cannot be mounted by loop here, as root: {}",
                String::from_utf8_lossy(&mounted.stderr)
            );
            return;
        }
        let _guest = Mounted(&work, "guest");
        let read = fs::read(work.path("guest/usr/share/doc/large")).unwrap();
        assert_eq!(read == large, !changed);
        assert_eq!(read[8192..8192 + 25] == *b"changed on the second day", changed);
        assert_eq!(fs::read(work.path("guest/etc/hostname")).unwrap(), b"first\n");
        work.run("umount", &["guest"]);
        work.run("umount", &["mnt"]);
    }
}

#[test]
fn mistakes_are_named() {
    let (work, _) = Work::with_backups();
    for (args, expected) in [
        (&["vma", "mount", "map.vma.zst", "nowhere"][..], "nowhere is no folder: make it first"),
        (&["vma", "mount", "missing", "."], "missing"),
        (&["tar", "mount", "map.vma.zst", "."], "is a VM's backup, not a container's"),
    ] {
        let output = work.output(PROGRAM, args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && err.contains(expected), "{args:?}: {err}");
    }
}
