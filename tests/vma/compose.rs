//! `pve-xdelta3 compose` against Debian's real QEMU: disks with dirty bitmaps, exported by qemu-nbd.

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use pve_diff_backup::vma::{Config, Device, Header, Order, write_archive};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pve-xdelta3");
const CONFIG: &str = "qemu-server.conf";

/// Pseudo-random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.below(u64::MAX).to_le_bytes()).take(len).collect()
    }
}

/// A process that ends with its owner.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guest: disks with a bitmap each, and the folder of its backups.
struct Guest {
    dir: tempfile::TempDir,
    disks: Vec<(&'static str, u64)>,
    granularity: u64,
    random: Random,
    /// Backups that read everything.
    all_read: Vec<String>,
}

fn missing() -> bool {
    let missing = !Path::new("/usr/bin/qemu-nbd").exists();
    if missing {
        eprintln!("skipped: no program qemu-nbd (package qemu-utils)");
    }
    missing
}

impl Guest {
    /// A guest with data, gaps and odd sizes, and its full backup `full.vma.zst`.
    fn new(seed: u64, granularity: u64) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let disks = vec![
            ("drive-efidisk0", 540_672),
            ("drive-scsi0", (24 << 20) + 3 * 4096 + 512),
            ("drive-virtio1", 5 << 20),
        ];
        let mut guest = Guest { dir, disks, granularity, random: Random(seed), all_read: Vec::new() };
        for (name, size) in guest.disks.clone() {
            let mut raw = vec![0; size as usize];
            let mut at = 0;
            while at < raw.len() {
                let len = (1 + guest.random.below(40) as usize) * 4096;
                let end = raw.len().min(at + len);
                match guest.random.below(4) {
                    0 => raw[at..end].copy_from_slice(&guest.random.bytes(end - at)),
                    1 => raw[at..end].iter_mut().zip(at..).for_each(|(b, n)| *b = ((n * n) >> 9) as u8),
                    _ => {}
                }
                at = end + 4096 * guest.random.below(40) as usize;
            }
            fs::write(guest.path(&format!("{name}.raw")), raw).unwrap();
            guest.qemu("qemu-img", &["convert", "-O", "qcow2", &format!("{name}.raw"), name]);
            let granularity = guest.granularity.to_string();
            guest.qemu("qemu-img", &["bitmap", "--add", "-g", &granularity, name, "b"]);
        }
        fs::write(guest.path(CONFIG), b"name: a\n").unwrap();
        guest.read_all(&["full"], "full.vma.zst");
        guest
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn qemu(&self, program: &str, args: &[&str]) {
        let done = Command::new(program).args(args).current_dir(self.dir.path()).output().unwrap();
        assert!(done.status.success(), "{program} {args:?}: {done:?}");
    }

    fn clear_bitmaps(&self) {
        self.disks.iter().for_each(|(name, _)| self.qemu("qemu-img", &["bitmap", "--clear", name, "b"]));
    }

    /// The guest writes, discards, writes zeros, writes the same again; also across blocks and clusters.
    fn work(&mut self, times: u64) {
        for (name, size) in self.disks.clone() {
            let mut commands = Vec::new();
            for _ in 0..self.random.below(times + 1) {
                let unit = [512, 4096, 65536][self.random.below(3) as usize];
                let at = self.random.below(size / unit) * unit;
                let len = ((1 + self.random.below(5)) * unit).min(size - at);
                let pattern = 1 + self.random.below(254);
                commands.push(match self.random.below(6) {
                    0 => format!("write -z {at} {len}"),
                    1 => format!("discard {at} {len}"),
                    _ => format!("write -P {pattern} {at} {len}"),
                });
            }
            let mut args: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
            args.push(name);
            if !commands.is_empty() {
                self.qemu("qemu-io", &args);
            }
        }
        fs::write(self.path(CONFIG), format!("name: {}\n", self.random.below(u64::MAX)).repeat(50)).unwrap();
    }

    /// The disks as they are now.
    fn images(&self) -> Vec<Vec<u8>> {
        let image = |(name, _): &(&str, u64)| {
            self.qemu("qemu-img", &["convert", "-O", "raw", name, "now.raw"]);
            fs::read(self.path("now.raw")).unwrap()
        };
        self.disks.iter().map(image).collect()
    }

    /// A backup that reads everything; the clusters are in an order of their own each time.
    fn read_all(&mut self, command: &[&str], to: &str) {
        let devices = (1..).zip(&self.disks);
        let header = Header {
            uuid: self.random.bytes(16).try_into().unwrap(),
            ctime: 1_800_000_000,
            configs: vec![Config { name: CONFIG.into(), data: fs::read(self.path(CONFIG)).unwrap() }],
            devices: devices.map(|(id, &(name, size))| Device { id, name: name.into(), size }).collect(),
        };
        let mut images: Vec<_> = self.images().into_iter().map(Cursor::new).collect();
        let seed = self.random.below(1 << 40);
        let order = if seed & 1 == 0 { Order::Workers(seed) } else { Order::Parallel(seed) };
        let archive = write_archive(Vec::new(), header, &mut images, order).unwrap();
        let mut child = Command::new(PROGRAM)
            .args(command)
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(File::create(self.path(to)).unwrap())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(child.wait().unwrap().success(), "{command:?}");
        self.all_read.push(to.into());
    }

    /// Exports the disks.
    fn serve(&self) -> Vec<Server> {
        let serve = |(name, _): &(&str, u64)| {
            let socket = self.path(&format!("{name}.nbd"));
            let _ = fs::remove_file(&socket);
            let args = ["-r", "-t", "-e", "9", "-f", "qcow2", "-x", name, "-B", "b", "-k"];
            let child = Command::new("qemu-nbd")
                .args(args)
                .arg(&socket)
                .arg(self.path(name))
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            (socket, Server(child))
        };
        let servers: Vec<_> = self.disks.iter().map(serve).collect();
        let ready = |(socket, server): (PathBuf, Server)| {
            for _ in 0..3000 {
                if UnixStream::connect(&socket).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            server
        };
        servers.into_iter().map(ready).collect()
    }

    fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.path(&format!("{name}.nbd")).display())
    }

    /// The arguments that make a differential of what is dirty.
    fn arguments(&self, previous: Option<&str>, to: &str) -> Vec<String> {
        let mut args = vec![
            "compose",
            "--base",
            "full.vma.zst",
            "--config",
            CONFIG,
            "--timeout",
            "30",
            "-v",
            "-f",
            "-o",
            to,
        ];
        args.extend(previous.iter().flat_map(|previous| ["--previous", previous]));
        let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        for (name, _) in &self.disks {
            args.extend(["--disk".into(), (*name).into(), self.uri(name), "b".into()]);
        }
        args
    }

    fn run(&self, args: &[String]) -> Output {
        Command::new(PROGRAM).args(args).current_dir(self.dir.path()).output().unwrap()
    }

    /// Makes a differential of what is dirty; gives what it said.
    fn compose(&self, previous: Option<&str>, to: &str) -> String {
        let _servers = self.serve();
        let done = self.run(&self.arguments(previous, to));
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{said}");
        said
    }

    /// Restores a differential, and compares it with the disks as they are.
    fn check(&self, name: &str, also_xdelta3: bool) {
        let restore = |program: &str, args: &[&str]| {
            let done = Command::new(program).args(args).current_dir(self.dir.path()).output().unwrap();
            assert!(done.status.success(), "{program} {args:?}: {done:?}");
        };
        restore(PROGRAM, &["restore", "--base", "full.vma.zst", "-f", "-o", "restored.vma", name]);
        let _ = fs::remove_dir_all(self.path("extracted"));
        restore(PROGRAM, &["vma", "verify", "--base", "full.vma.zst", name]);
        restore(PROGRAM, &["vma", "extract", "restored.vma", "extracted"]);
        for ((name, _), image) in self.disks.iter().zip(self.images()) {
            let restored = fs::read(self.path(&format!("extracted/disk-{name}.raw"))).unwrap();
            assert!(restored == image, "{name} differs");
        }
        assert!(
            fs::read(self.path(&format!("extracted/{CONFIG}"))).unwrap()
                == fs::read(self.path(CONFIG)).unwrap()
        );
        if also_xdelta3 {
            let unpack = |from: &str, to: &str| restore("zstd", &["-dqf", from, "-o", to]);
            unpack("full.vma.zst", "full.vma");
            unpack(name, "plain.vcdiff");
            restore("xdelta3", &["-d", "-f", "-s", "full.vma", "plain.vcdiff", "theirs.vma"]);
            let same =
                fs::read(self.path("theirs.vma")).unwrap() == fs::read(self.path("restored.vma")).unwrap();
            assert!(same, "xdelta3 restores something else");
            // Whatever form the full backup has by then; but where that has no checksums, nothing has.
            let args = ["restore", "--stored-base", "full.vma", "-f", "-o", "theirs.vma", name];
            let done = Command::new(PROGRAM).args(args).current_dir(self.dir.path()).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{said}");
            let composed = said.contains("damage of the full backup would go unnoticed");
            assert_eq!(composed, !self.all_read.contains(&name.to_owned()), "{said}");
            let same =
                fs::read(self.path("theirs.vma")).unwrap() == fs::read(self.path("restored.vma")).unwrap();
            assert!(same, "without compression it is something else");
        }
    }
}

/// As many seeds as `COMPOSE_SEEDS` says, for a longer run by hand.
fn seeds() -> std::ops::Range<u64> {
    let from_here = std::env::var("COMPOSE_SEEDS").ok().and_then(|text| text.parse().ok());
    0..from_here.unwrap_or(2)
}

#[test]
fn differentials_of_dirty_blocks_are_the_disks() {
    if missing() {
        return;
    }
    for seed in seeds() {
        let mut guest = Guest::new(seed, [65536, 4096, 1 << 20][seed as usize % 3]);
        let mut previous: Option<String> = None;
        for round in 0..5 {
            // Some nights nothing happens.
            let times = [8, 0, 60, 8, 3][round];
            guest.work(times);
            let name = format!("{round}.vcdiff.zst");
            if guest.random.below(4) == 0 {
                guest.read_all(&["diff", "--base", "full.vma.zst"], &name);
            } else {
                guest.compose(previous.as_deref(), &name);
            }
            guest.check(&name, (round as u64 + seed).is_multiple_of(3));
            guest.clear_bitmaps();
            previous = Some(name);
        }
    }
}

/// Few bytes of many blocks, as a database writes them; and whole clusters that are new.
#[test]
fn a_differential_of_what_is_dirty_is_as_small_as_one_that_reads_all() {
    if missing() {
        return;
    }
    let mut guest = Guest::new(11, 65536);
    let size = guest.disks[1].1;
    let mut commands = Vec::new();
    for _ in 0..60 {
        let (at, pattern) = (guest.random.below(size / 512) * 512, 1 + guest.random.below(254));
        commands.push(format!("write -P {pattern} {at} 512"));
    }
    fs::write(guest.path("new"), guest.random.bytes(200_000)).unwrap();
    commands.extend([3, 9, 20].map(|mib| format!("write -s new {mib}M 131072")));
    let args: Vec<&str> =
        commands.iter().flat_map(|command| ["-c", command]).chain(["drive-scsi0"]).collect();
    guest.qemu("qemu-io", &args);
    guest.read_all(&["diff", "--base", "full.vma.zst"], "all.vcdiff.zst");
    guest.compose(None, "dirty.vcdiff.zst");
    guest.check("dirty.vcdiff.zst", true);
    let [all, dirty] =
        ["all.vcdiff.zst", "dirty.vcdiff.zst"].map(|name| fs::metadata(guest.path(name)).unwrap().len());
    // Of noise, 512 bytes in place of 4096 each.
    assert!(dirty < 60 * 600 + 3 * 131_072 + 20_000, "{dirty}");
    assert!(dirty <= all + all / 50, "{dirty} bytes, but {all} where everything is read");
    guest.clear_bitmaps();
    guest.compose(Some("dirty.vcdiff.zst"), "again.vcdiff.zst");
    guest.check("again.vcdiff.zst", false);
    let again = fs::metadata(guest.path("again.vcdiff.zst")).unwrap().len();
    assert!(again <= dirty + dirty / 100, "{again} bytes after {dirty}");
}

#[test]
fn what_does_not_fit_is_read_as_a_whole() {
    if missing() {
        return;
    }
    let mut guest = Guest::new(77, 65536);
    guest.work(5);
    let first = guest.compose(None, "first.vcdiff");
    assert!(first.contains("drive-scsi0: read "), "{first}");
    guest.read_all(&["full"], "other.vma.zst");
    guest.read_all(&["diff", "--base", "other.vma.zst"], "other.vcdiff.zst");
    guest.read_all(&["diff", "--base", "full.vma.zst", "--compress", "none"], "unchecked.vcdiff");
    File::create(guest.path("no.tar")).unwrap().write_all(&[7; 5000]).unwrap();
    fs::copy(PROGRAM, guest.path("tar")).unwrap();
    let tar = Command::new(PROGRAM)
        .arg("full")
        .stdin(File::open(guest.path("tar")).unwrap())
        .stdout(File::create(guest.path("tar.zst")).unwrap())
        .status();
    assert!(tar.unwrap().success());

    let servers = guest.serve();
    let good = guest.arguments(None, "out");
    let uri = guest.uri("drive-scsi0");
    let with = |old: &str, new: &[&str]| -> Vec<String> {
        let new = |arg: &String| match arg == old {
            true => new.iter().map(|s| (*s).to_owned()).collect(),
            false => vec![arg.clone()],
        };
        good.iter().flat_map(new).collect()
    };
    let without = |disk: &str| -> Vec<String> {
        let at = good.iter().position(|arg| arg == disk).unwrap();
        [&good[..at - 1], &good[at + 3..]].concat()
    };
    let refused = |args: &[String], code: i32, expected: &str| {
        let done = guest.run(args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{expected}: {said}");
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
        assert!(!guest.path("out").exists(), "{expected}");
    };
    let all = "everything must be read";
    refused(&without("drive-scsi0"), 3, "drive-scsi0 of the full backup is not there any more: everything");
    refused(&with("drive-virtio1", &["drive-virtio2"]), 3, all);
    let extra = [&good[..], &["--disk", "drive-scsi9", &uri, "b"].map(str::to_owned)].concat();
    refused(&extra, 3, "drive-scsi9 is not in the full backup");
    let twice = [&good[..], &["--disk", "drive-scsi0", &uri, "b"].map(str::to_owned)].concat();
    refused(&twice, 3, "drive-scsi0 is not in the full backup");
    refused(&with("b", &["other"]), 3, "has no dirty bitmap");
    refused(&with("full.vma.zst", &["tar.zst"]), 3, "is not a VM's");
    refused(&with("full.vma.zst", &["no.tar"]), 3, "has no map");
    refused(&with("full.vma.zst", &["first.vcdiff"]), 1, "is a differential");
    refused(&with("-v", &["--previous", "other.vcdiff.zst"]), 3, "not made against this full backup");
    refused(&with("-v", &["--previous", "unchecked.vcdiff"]), 3, "no checksum of its own");
    refused(&with("-v", &["--previous", "full.vma.zst"]), 1, "VCDIFF");
    refused(&with("-v", &["--id", "00"]), 1, "was replaced");
    refused(&with(CONFIG, &["tar"]), 1, "does not fit into an archive");
    refused(&with(&uri, &["nbd+unix:///x?socket=/nowhere/nbd"]), 1, "cannot connect");
    // All of a disk may be read.
    let done = guest.run(&with("b", &["-"]));
    assert!(done.status.success(), "{done:?}");
    guest.check("out", false);
    fs::remove_file(guest.path("out")).unwrap();
    drop(servers);

    // QEMU does not call what it grows by dirty.
    guest.qemu("qemu-img", &["resize", "-q", "drive-virtio1", "+1M"]);
    let servers = guest.serve();
    let done = guest.run(&good);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(3), "{said}");
    assert!(said.contains("has 6291456 bytes now, the full backup's has 5242880"), "{said}");
    drop(servers);
}

/// Passes a server's answers on, up to so many bytes.
fn cut_after(bytes: usize, from: &Path, to: &Path) {
    let _ = fs::remove_file(to);
    let (listener, from) = (UnixListener::bind(to).unwrap(), from.to_owned());
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), UnixStream::connect(&from).unwrap());
            let (mut asks, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut asks, &mut asked));
            let _ = std::io::copy(&mut (&mut server).take(bytes as u64), &mut client);
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    });
}

#[test]
fn damage_and_cut_connections_leave_nothing() {
    if missing() {
        return;
    }
    let mut guest = Guest::new(5, 65536);
    guest.work(30);
    guest.read_all(&["diff", "--base", "full.vma.zst"], "all.vcdiff.zst");
    guest.compose(None, "made.vcdiff.zst");
    let plain: Vec<String> =
        guest.arguments(None, "made.vcdiff").into_iter().chain(["--compress=none".into()]).collect();
    let servers = guest.serve();
    assert!(guest.run(&plain).status.success());
    drop(servers);
    guest.clear_bitmaps();
    guest.work(5);
    let _servers = guest.serve();

    let mut noticed = 0;
    for (file, previous) in
        [("all.vcdiff.zst", true), ("made.vcdiff.zst", true), ("made.vcdiff", true), ("full.vma.zst", false)]
    {
        let good = fs::read(guest.path(file)).unwrap();
        let args = guest.arguments(Some(if previous { file } else { "made.vcdiff.zst" }), "out");
        for n in 0..5 {
            // In the full backup, its side frames are meant: these lie behind the data of its last segment.
            let from = if previous { 0 } else { good.len() - 2000 };
            let at = from + guest.random.below((good.len() - from) as u64) as usize;
            let mut bad = good.clone();
            if n < 2 {
                bad.truncate(at)
            } else {
                bad[at] ^= 1 << n
            }
            fs::write(guest.path(file), bad).unwrap();
            let done = guest.run(&args);
            fs::write(guest.path(file), &good).unwrap();
            if done.status.success() {
                // Not everything is of use, but then nothing may be wrong.
                assert!(n >= 2, "{file} cut at {at}");
                guest.check("out", false);
                fs::remove_file(guest.path("out")).unwrap();
            } else {
                assert!(matches!(done.status.code(), Some(1 | 3)), "{done:?}");
                assert!(!guest.path("out").exists() && !done.stderr.is_empty(), "{file} at {at}");
                noticed += 1;
            }
        }
    }
    assert!(noticed >= 16, "{noticed} of 20");

    let socket = guest.path("cut.nbd");
    for bytes in [0, 10, 100, 220, 400, 60_000, 100_000] {
        cut_after(bytes, &guest.path("drive-scsi0.nbd"), &socket);
        let args = guest.arguments(Some("made.vcdiff.zst"), "out");
        let cut = |arg: String| {
            if arg == guest.uri("drive-scsi0") { arg.replace("drive-scsi0.nbd", "cut.nbd") } else { arg }
        };
        let args: Vec<_> = args.into_iter().map(cut).collect();
        let done = guest.run(&args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{bytes}: {said}");
        assert!(said.contains("cannot read the disk drive-scsi0"), "{bytes}: {said}");
        assert!(!guest.path("out").exists(), "{bytes}");
    }
}
