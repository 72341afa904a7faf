//! A folder to work in, and the backups of a VM in it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pve-xdelta3");

/// The end of a differential's name.
pub const DIFFERENTIAL: &str = "--differential-2026_11_05-02_00_00.vcdiff.zst";

/// The disks: name in the archive, image, and the image of the second day.
pub const DISKS: [(&str, &str, &str); 4] = [
    ("drive-efidisk0", "efi.raw", "efi.raw"),
    ("drive-scsi0", "scsi0.raw", "second.raw"),
    ("drive-scsi1", "scsi1.raw", "scsi1.raw"),
    ("drive-tpmstate0-backup", "tpm.raw", "tpm.raw"),
];

pub struct Work(pub tempfile::TempDir);

/// Numbers that look random and are the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 4);
        while bytes.len() < len {
            bytes.extend((self.below(1 << 31) as u32).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

impl Work {
    pub fn new() -> Work {
        Work(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("XDG_CACHE_HOME", self.path("cache")).env("LC_ALL", "C.UTF-8");
        command
    }

    pub fn output(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Runs a program that must succeed.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {} {err}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs our program from one file to another.
    pub fn pipe(&self, args: &[&str], from: &str, to: &str) {
        let mut command = self.command(PROGRAM, args);
        command.stdin(File::open(self.path(from)).unwrap()).stdout(File::create(self.path(to)).unwrap());
        assert!(command.status().unwrap().success(), "{args:?}");
    }

    /// Makes a disk of which only these blocks are no holes.
    pub fn disk(&self, name: &str, size: u64, random: &mut Random, blocks: impl Iterator<Item = u64>) {
        let file = File::create(self.path(name)).unwrap();
        file.set_len(size).unwrap();
        for at in blocks.map(|n| n * 4096).filter(|at| *at < size) {
            let len = 4096.min(size - at) as usize;
            file.write_all_at(&random.bytes(len), at).unwrap();
        }
    }

    /// A folder with the backups of a VM, which are made once; the names of the backups, and whether each is of the second
    /// day.
    pub fn with_backups() -> (Work, Vec<(String, bool)>) {
        static MADE: OnceLock<(Work, Vec<(String, bool)>)> = OnceLock::new();
        let (made, names) = MADE.get_or_init(|| {
            let work = Work::new();
            let names = work.backups();
            (work, names)
        });
        let work = Work::new();
        for entry in fs::read_dir(made.0.path()).unwrap().map(Result::unwrap) {
            fs::hard_link(entry.path(), work.0.path().join(entry.file_name())).unwrap();
        }
        (work, names.clone())
    }

    /// Makes the disks of two days, their archives, and full and differential backups of every form.
    fn backups(&self) -> Vec<(String, bool)> {
        let mut random = Random(7);
        let blocks: Vec<u64> = (0..8192).filter(|n| n % 1000 < 300 || random.below(9) == 0).collect();
        self.disk("scsi0.raw", 32 << 20, &mut random, blocks.into_iter());
        self.disk("scsi1.raw", (2 << 20) + 3 * 4096 + 512, &mut random, (0..520).filter(|n| n % 7 == 0));
        self.disk("efi.raw", 540_672, &mut random, [0, 1, 5, 131].into_iter());
        self.disk("tpm.raw", 4 << 20, &mut random, [0, 3].into_iter());
        fs::copy(self.path("scsi0.raw"), self.path("second.raw")).unwrap();
        let second = File::options().read(true).write(true).open(self.path("second.raw")).unwrap();
        for _ in 0..60 {
            let bytes = random.bytes(64).repeat(64);
            second.write_all_at(&bytes, random.below(8192) * 4096).unwrap();
        }
        // A part becomes zeros, and another one moves.
        second.write_all_at(&vec![0; 1 << 20], 9 << 20).unwrap();
        let mut moved = vec![0; 1 << 20];
        second.read_exact_at(&mut moved, 16 << 20).unwrap();
        second.write_all_at(&moved, (25 << 20) + 4096).unwrap();
        fs::write(self.path("qemu-server.conf"), "memory: 512\nname: vm101\n").unwrap();
        for (archive, second) in [("first.vma", false), ("second.vma", true)] {
            let images =
                DISKS.map(|(name, first, last)| format!("{name}={}", if second { last } else { first }));
            let mut args = vec!["vma", "create", archive, "-c", "qemu-server.conf", "--mixed"];
            args.extend(images.iter().map(String::as_str));
            self.run(PROGRAM, &args);
        }
        self.pipe(&["full"], "first.vma", "map.vma.zst");
        self.run("zstd", &["-q", "first.vma", "-o", "stock.vma.zst"]);
        self.run("lzop", &["-q", "first.vma", "-o", "stock.vma.lzo"]);
        self.pipe(&["full", "--compress", "gzip"], "first.vma", "stock.vma.gz");
        let fulls = ["map.vma.zst", "stock.vma.zst", "stock.vma.lzo", "stock.vma.gz", "first.vma"];
        let mut all: Vec<_> = fulls.map(|full| (full.to_owned(), false)).into();
        for full in fulls {
            let name = full.to_owned() + DIFFERENTIAL;
            self.pipe(&["diff", "--base", full], "second.vma", &name);
            all.push((name, true));
        }
        // As xdelta3 itself makes it, with its own compression within.
        let theirs = "first.vma--differential-2026_11_06-02_00_00.vcdiff";
        self.run("xdelta3", &["-e", "-S", "djw", "-s", "first.vma", "second.vma", theirs]);
        all.push((theirs.into(), true));
        all
    }

    /// Starts our program, and waits for its first line.
    pub fn start(&self, args: &[&str]) -> Running {
        let err = File::create(self.path("err")).unwrap();
        let mut child = self.command(PROGRAM, args).stdout(Stdio::piped()).stderr(err).spawn().unwrap();
        let mut first = [0];
        let n = child.stdout.as_mut().unwrap().read(&mut first).unwrap();
        assert_eq!(n, 1, "{args:?}: {}", fs::read_to_string(self.path("err")).unwrap());
        Running(child)
    }

    pub fn err(&self) -> String {
        fs::read_to_string(self.path("err")).unwrap()
    }

    /// Flips bits in a file, in places so far apart that not all of them are in a part of its map.
    pub fn damage(&self, name: &str, at: u64) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        let len = bytes.len();
        for at in [0, 150_000, 300_000].map(|more| at as usize + more).into_iter().filter(|at| at + 16 < len)
        {
            bytes[at..][..16].iter_mut().for_each(|b| *b = !*b);
        }
        // Other tests read the same file under another name.
        fs::remove_file(self.path(name)).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }
}

/// A program that runs until it gets a signal.
pub struct Running(pub Child);

impl Running {
    /// Ends it while this file is open.
    pub fn end_with_open(self, file: &File) {
        self.end();
        assert!(file.read_at(&mut [0; 16], 1 << 20).is_err());
    }

    /// Ends it as a service manager does; it must end well.
    pub fn end(mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let begin = Instant::now();
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return assert!(status.success(), "{status}"),
                None if begin.elapsed() > Duration::from_secs(60) => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
