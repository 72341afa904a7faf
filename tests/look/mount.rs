//! Backups as file systems: really mounted, read by cp and by the kernel's own file systems.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use pve_diff_backup::mount::{Attributes, How, Mount};

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
    let running = mount_in_front(&work, "vma", "map.vma.zst", "mnt");
    let _mounted = Mounted(&work, "mnt");
    // A file that is still open there keeps nobody from ending it.
    let open = fs::File::open(work.path("mnt/disk-drive-scsi0.raw")).unwrap();
    running.end_with_open(&open);
    assert!(!is_mounted(&work, "mnt"));
}

/// Mounts in the foreground, and waits until it has.
fn mount_in_front(work: &Work, kind: &str, backup: &str, folder: &str) -> Running {
    let _ = fs::create_dir(work.path(folder));
    let err = fs::File::create(work.path("err")).unwrap();
    let child = work.command(PROGRAM, &[kind, "mount", backup, folder, "--foreground"]).stderr(err).spawn();
    let running = Running(child.unwrap());
    let begin = std::time::Instant::now();
    while !is_mounted(work, folder) {
        assert!(begin.elapsed().as_secs() < 120, "it does not mount: {}", work.err());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    running
}

#[test]
fn what_is_mounted_over_it_stays() {
    if skips() {
        return;
    }
    let (work, _) = Work::with_backups();
    let mut running = mount_in_front(&work, "vma", "map.vma.zst", "mnt");
    let _mounted = Mounted(&work, "mnt");
    work.run("mount", &["-t", "tmpfs", "another", "mnt"]);
    let _over = Mounted(&work, "mnt");
    fs::write(work.path("mnt/mine"), "mine").unwrap();
    let id = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(1));
    assert!(work.err().contains("something else is mounted over it, and stays"), "{}", work.err());
    assert_eq!(fs::read(work.path("mnt/mine")).unwrap(), b"mine");
}

#[test]
fn what_is_mounted_after_it_stays() {
    if skips() {
        return;
    }
    let (work, _) = Work::with_backups();
    let mut running = mount_in_front(&work, "vma", "map.vma.zst", "mnt");
    let id = rustix::process::Pid::from_child(&running.0);
    // Its end is noticed only when something else is there.
    rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
    rustix::mount::unmount(work.path("mnt"), rustix::mount::UnmountFlags::DETACH).unwrap();
    work.run("mount", &["-t", "tmpfs", "another", "mnt"]);
    let _next = Mounted(&work, "mnt");
    fs::write(work.path("mnt/mine"), "mine").unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
    assert!(running.0.wait().unwrap().success());
    assert_eq!(fs::read(work.path("mnt/mine")).unwrap(), b"mine");
}

/// Files that count how often a folder is listed.
struct Many(std::sync::Arc<std::sync::atomic::AtomicUsize>);

const MANY: usize = 20_000;

impl pve_diff_backup::mount::Source for Many {
    fn attributes(&self, node: usize) -> Option<Attributes> {
        let (kind, mode) = if node == 0 {
            (fuser::FileType::Directory, 0o555)
        } else {
            (fuser::FileType::RegularFile, 0o444)
        };
        let mtime = std::time::SystemTime::UNIX_EPOCH;
        (node <= MANY).then_some(Attributes {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            held: 0,
            mtime,
            links: 1,
            device: (0, 0),
        })
    }

    fn child(&self, _: usize, name: &[u8]) -> Option<usize> {
        std::str::from_utf8(name).ok()?.strip_prefix("file-")?.parse().ok()
    }

    fn parent(&self, _: usize) -> usize {
        0
    }

    fn list(&self, _: usize) -> Vec<(Vec<u8>, usize)> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (1..=MANY).map(|n| (format!("file-{n}").into_bytes(), n)).collect()
    }

    fn link(&self, _: usize) -> Option<Vec<u8>> {
        None
    }

    fn open(&self, _: usize) -> std::io::Result<std::sync::Arc<dyn pve_diff_backup::container::Sparse>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn xattrs(&self, _: usize) -> std::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(Vec::new())
    }
}

#[test]
fn a_folder_is_listed_once_however_long_it_is() {
    if skips() {
        return;
    }
    let work = Work::new();
    fs::create_dir(work.path("mnt")).unwrap();
    let lists = std::sync::Arc::default();
    let how = How { at: &work.path("mnt"), name: "many", others: false, threads: 2 };
    let (mount, unmount) = Mount::new(Many(std::sync::Arc::clone(&lists)), &how, |_| {}).unwrap();
    let serves = std::thread::spawn(move || mount.run());
    let names: std::collections::HashSet<_> =
        fs::read_dir(work.path("mnt")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    unmount.unmount(|_| unreachable!("root needs no helper")).unwrap();
    serves.join().unwrap().unwrap();
    assert_eq!(names.len(), MANY);
    assert_eq!(lists.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// Runs a program as somebody who owns nothing; what it writes, and whether it went well.
fn as_nobody(work: &Work, args: &[&str]) -> (bool, String) {
    let who = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let output = work.output("setpriv", &[&who[..], args].concat());
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn others_look_inside_only_where_they_may() {
    if skips() {
        return;
    }
    let (work, _) = Work::with_backups();
    fs::set_permissions(work.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (option, may) in [(&[][..], false), (&["--allow-other"][..], true)] {
        let _ = fs::create_dir(work.path("mnt"));
        work.run(PROGRAM, &[&["vma", "mount", "map.vma.zst", "mnt"], option].concat());
        let _mounted = Mounted(&work, "mnt");
        let (read, said) = as_nobody(&work, &["cat", "mnt/qemu-server.conf"]);
        assert_eq!((read, said.contains("name: vm101")), (may, may), "{said}");
        assert!(!as_nobody(&work, &["touch", "mnt/qemu-server.conf"]).0);
        work.run("umount", &["mnt"]);
    }
}

#[test]
fn an_ordinary_user_mounts_too() {
    if skips() {
        return;
    }
    let (work, _) = Work::with_backups();
    let open = |path: &Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).unwrap();
    };
    open(work.0.path());
    fs::set_permissions(work.path("map.vma.zst"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    // The program may lie where nobody else can go.
    fs::copy(PROGRAM, work.path("program")).unwrap();
    for folder in ["home", "home/mnt"] {
        fs::create_dir(work.path(folder)).unwrap();
        std::os::unix::fs::chown(work.path(folder), Some(65534), Some(65534)).unwrap();
    }
    // In a name space of its own /dev/fuse is everybody's, as udev makes it.
    let script = format!(
        "mknod node c 10 229 && chmod 666 node && mount --bind node /dev/fuse || exit 77
         nobody() {{ setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_CACHE_HOME={home} \"$@\"; }}
         test -e /etc/mtab || exit 77; nobody fusermount3 -V || exit 6
         nobody ./program vma mount map.vma.zst home/mnt && grep -q {home}/mnt /proc/mounts || exit 2
         nobody sha256sum home/mnt/disk-drive-scsi0.raw || exit 3
         ! cat home/mnt/qemu-server.conf || exit 4
         nobody fusermount3 -u home/mnt && ! grep -q {home}/mnt /proc/mounts || exit 5",
        home = work.path("home").display()
    );
    let output = work.output("unshare", &["--mount", "sh", "-c", &script]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.code() == Some(77) {
        println!(
            "skipped: no /etc/mtab, or no name space with /dev/fuse for everybody on this machine: {said}"
        );
        return;
    }
    let own = work.run("sha256sum", &["scsi0.raw"]);
    assert!(output.status.success() && said.contains(&own[..64]), "{}: {said}", output.status);
}

#[test]
fn lost_storage_is_an_error_and_the_mount_ends_well() {
    if skips() {
        return;
    }
    let (work, _) = Work::with_backups();
    // The backup lies on a storage that goes away: a mount whose server is killed.
    work.run("tar", &["-cf", "storage.tar", "map.vma.zst"]);
    let storage = mount_in_front(&work, "tar", "storage.tar", "storage");
    let _storage = Mounted(&work, "storage");
    let running = mount_in_front(&work, "vma", "storage/map.vma.zst", "mnt");
    let _mounted = Mounted(&work, "mnt");
    let file = fs::File::open(work.path("mnt/disk-drive-scsi0.raw")).unwrap();
    let (mut buf, image) = (vec![0; 4096], fs::read(work.path("scsi0.raw")).unwrap());
    file.read_exact_at(&mut buf, 1 << 20).unwrap();
    assert!(buf == image[1 << 20..][..4096]);
    drop(storage);
    let errors = (0..image.len()).step_by(1 << 20).filter(|at| {
        file.read_exact_at(&mut buf, *at as u64).is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
    });
    assert!(errors.count() > 5);
    assert!(work.err().contains("the disk drive-scsi0 cannot be read from byte "), "{}", work.err());
    drop(file);
    running.end();
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

/// A disk with a partition table, whose only partition holds this file system.
fn disk_with_partition(work: &Work, kind: &str, folder: &str, mib: u64) {
    let image = format!("{kind}.img");
    let size = format!("{mib}M");
    match kind {
        "ext4" => drop(work.run("mke2fs", &["-q", "-t", "ext4", "-d", folder, &image, &size])),
        _ => {
            fs::File::create(work.path(&image)).unwrap().set_len(mib << 20).unwrap();
            // It takes no folder, but a list of what to make.
            fs::write(
                work.path("list"),
                "/\n0 0\nd--755 0 0\nlarge ---644 0 0 first/usr/share/doc/large\n$\n",
            )
            .unwrap();
            work.run("mkfs.xfs", &["-q", "-p", "list", &image]);
        }
    }
    let disk = fs::File::create(work.path("disk.raw")).unwrap();
    disk.set_len((mib + 16) << 20).unwrap();
    disk.write_all_at(&fs::read(work.path(&image)).unwrap(), 1 << 20).unwrap();
    let mut table = [0u8; 66];
    table[4] = 0x83;
    table[8..12].copy_from_slice(&2048u32.to_le_bytes());
    table[12..16].copy_from_slice(&((mib as u32) << 11).to_le_bytes());
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_all_at(&table, 446).unwrap();
}

/// A loop device, given back at the end.
struct Loop<'a>(&'a Work, String);

impl Drop for Loop<'_> {
    fn drop(&mut self) {
        let _ = self.0.output("losetup", &["-d", &self.1]);
    }
}

/// Mounts the partition of a disk: by its device, which the kernel finds in the table, or else by its place. The result is
/// `false` where the kernel cannot.
fn mount_guest(work: &Work, device: &str, kind: &str) -> bool {
    let _ = fs::create_dir(work.path("guest"));
    let options = if kind == "xfs" { "ro,norecovery" } else { "ro,noload" };
    let partition = format!("{device}p1");
    let begin = std::time::Instant::now();
    while !Path::new(&partition).exists() && begin.elapsed().as_secs() < 5 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mounted = match Path::new(&partition).exists() {
        true => work.output("mount", &["-t", kind, "-o", options, &partition, "guest"]),
        false => {
            println!(
                "skipped: {partition} does not appear here, as nobody makes it (no udev); mounted by its place"
            );
            let options = format!("{options},loop,offset=1048576");
            work.output("mount", &["-t", kind, "-o", &options, device, "guest"])
        }
    };
    if !mounted.status.success() {
        println!("skipped: {kind} cannot be mounted here: {}", String::from_utf8_lossy(&mounted.stderr));
    }
    mounted.status.success()
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
    for (kind, mib) in [("ext4", 48), ("xfs", 304)] {
        let work = Work::new();
        tree(&work, "first");
        let _ = fs::remove_file(work.path("first/var/fifo"));
        disk_with_partition(&work, kind, "first", mib);
        work.run(PROGRAM, &["vma", "create", "first.vma", "drive-scsi0=disk.raw"]);
        work.pipe(&["full"], "first.vma", "map.vma.zst");
        // The next day a block of a file differs.
        let large = fs::read(work.path("first/usr/share/doc/large")).unwrap();
        let raw = fs::read(work.path("disk.raw")).unwrap();
        let at = memchr::memmem::find(&raw, &large[8192..12288]).unwrap();
        let disk = fs::File::options().write(true).open(work.path("disk.raw")).unwrap();
        disk.write_all_at(b"changed on the second day", at as u64).unwrap();
        work.run(PROGRAM, &["vma", "create", "second.vma", "drive-scsi0=disk.raw"]);
        let differential = format!("map.vma.zst{DIFFERENTIAL}");
        work.pipe(&["diff", "--base", "map.vma.zst"], "second.vma", &differential);
        let large_in_guest = if kind == "ext4" { "guest/usr/share/doc/large" } else { "guest/large" };
        for (backup, changed) in [("map.vma.zst", false), (&differential, true)] {
            let _mounted = mount(&work, "vma", backup, "mnt");
            let args = ["--find", "--show", "--read-only", "--partscan", "mnt/disk-drive-scsi0.raw"];
            let device = Loop(&work, work.run("losetup", &args).trim().to_owned());
            if !mount_guest(&work, &device.1, kind) {
                break;
            }
            let _guest = Mounted(&work, "guest");
            let read = fs::read(work.path(large_in_guest)).unwrap();
            assert_eq!(read == large, !changed);
            assert_eq!(read[8192..8192 + 25] == *b"changed on the second day", changed);
            if kind == "ext4" {
                assert_eq!(fs::read(work.path("guest/etc/hostname")).unwrap(), b"first\n");
            }
            work.run("umount", &["guest"]);
            drop(device);
            work.run("umount", &["mnt"]);
        }
    }
}

#[test]
fn a_partition_is_mounted_through_the_kernels_client() {
    if skips() {
        return;
    }
    if !Path::new("/dev/nbd0").exists() {
        println!("skipped: no /dev/nbd0 on this machine (modprobe nbd)");
        return;
    }
    let work = Work::new();
    tree(&work, "first");
    let _ = fs::remove_file(work.path("first/var/fifo"));
    disk_with_partition(&work, "ext4", "first", 48);
    work.run(PROGRAM, &["vma", "create", "first.vma", "drive-scsi0=disk.raw"]);
    work.pipe(&["full"], "first.vma", "map.vma.zst");
    let running = work.start(&["vma", "nbd", "map.vma.zst", "--socket", "socket"]);
    let uri = "nbd+unix:///drive-scsi0?socket=socket";
    work.run("qemu-nbd", &["--read-only", "-f", "raw", "-c", "/dev/nbd0", uri]);
    if mount_guest(&work, "/dev/nbd0", "ext4") {
        let _guest = Mounted(&work, "guest");
        assert_eq!(fs::read(work.path("guest/etc/hostname")).unwrap(), b"first\n");
        work.run("umount", &["guest"]);
    }
    work.run("qemu-nbd", &["-d", "/dev/nbd0"]);
    running.end();
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
