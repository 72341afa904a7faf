//! Every command on files that ask for more than they are, with 1 GiB of address space and little processor time: each
//! ends with a result, or with an error that says why.

mod corpus;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use corpus::{Hostile, Scale};

/// KiB of address space. Threads take 2 MiB each for their stack; the C library's arenas, 64 MiB each, are limited to two.
const MEMORY: u32 = 1 << 20;
/// KiB that a file may grow to.
const FILE: u32 = 3 << 19;
/// Seconds of processor time: for starting, and for each MiB of the input.
const SECONDS: u64 = 10;
const MIB_PER_SECOND: u64 = 20;

const XDELTA3: &str = env!("CARGO_BIN_EXE_pve-xdelta3");
const DIFF_BACKUP: &str = env!("CARGO_BIN_EXE_pve-diff-backup");

/// A folder with a good pair, and one file of the corpus.
struct Bed {
    dir: tempfile::TempDir,
    name: &'static str,
    seconds: u64,
}

impl Bed {
    fn new(hostile: &Hostile) -> Bed {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name);
        hostile.file.write(&path("hostile")).expect("a written file");
        let seconds = SECONDS + fs::metadata(path("hostile")).expect("a file").len() / (MIB_PER_SECOND << 20);
        let bed = Bed { dir, name: hostile.name, seconds };
        let base = corpus::base();
        fs::write(bed.path("base"), &base).expect("a written file");
        fs::write(bed.path("target"), [&base[1000..50_000], b"something new", &base[..2000]].concat())
            .expect("a written file");
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command with limits; it must end by itself, and say why if it fails. Tells whether it succeeded.
    fn run(&self, program: &str, args: &[&str], stdin: Option<&str>, stdout: Option<&str>) -> bool {
        // A disk is written with holes, as long as it was: that it may not be is an error. Others may not try.
        let told = if args.contains(&"extract") { "trap '' XFSZ;" } else { "" };
        let limits = format!(
            "{told} ulimit -v {MEMORY} -f {FILE} -t {} -c 0 2>/dev/null || exit 99; exec \"$@\"",
            self.seconds
        );
        let stdin = stdin.map_or(Stdio::null(), |name| File::open(self.path(name)).expect("an input").into());
        let stdout =
            stdout.map_or(Stdio::null(), |name| File::create(self.path(name)).expect("an output").into());
        let mut command = Command::new("bash");
        command.args(["-c", &limits, "bash", program]).args(args).current_dir(self.dir.path());
        command.env("MALLOC_ARENA_MAX", "2").env("TMPDIR", self.dir.path()).env_remove("XDELTA");
        let Output { status, stderr, .. } = command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(|child| child.wait_with_output())
            .expect("bash runs");
        let told = String::from_utf8_lossy(&stderr);
        let what = format!("{}: {program} {}: {status}: {told}", self.name, args.join(" "));
        if std::env::var_os("BOUNDS_VERBOSE").is_some() {
            eprintln!("{what}");
        }
        assert!(matches!(status.code(), Some(0..=2)), "{what}");
        assert!(status.success() || !told.trim().is_empty() || program == DIFF_BACKUP, "silent: {what}");
        assert!(!told.contains("panicked") && !told.contains("internal error"), "{what}");
        status.success()
    }

    fn xdelta3(&self, args: &[&str]) -> bool {
        self.run(XDELTA3, args, None, None)
    }

    /// The commands that read a VM's archive, or verify backups.
    fn readers(&self, file: &str, base: &[&str]) {
        for command in ["list", "config", "verify"] {
            self.xdelta3(&[&["vma", command, file], base].concat());
        }
        self.xdelta3(&[&["vma", "extract", file, "extracted"], base].concat());
        self.run(DIFF_BACKUP, &["verify", "--all", "."], None, None);
        self.run(DIFF_BACKUP, &["verify", "--json", file], None, None);
    }

    /// The commands that read deltas, on this file.
    fn tools(&self, endless: bool) {
        for command in ["printhdr", "printhdrs", "printdelta"] {
            if command != "printdelta" || !endless {
                self.xdelta3(&[command, "hostile"]);
            }
        }
        self.xdelta3(&["recode", "-c", "-S", "djw", "hostile"]);
        self.xdelta3(&["merge", "-c", "-m", "hostile", "hostile"]);
        self.xdelta3(&["merge", "-c", "-m", "hostile", "-m", "hostile", "delta"]);
    }

    fn good_delta(&self) {
        assert!(self.run(XDELTA3, &["diff", "--base=base"], Some("target"), Some("delta")), "a good pair");
    }
}

/// Every command on a file in the place of a full backup.
fn as_full(hostile: &Hostile) {
    let bed = Bed::new(hostile);
    let full = "vzdump-qemu-101-2026_01_01-00_00_00.vma.zst";
    let differential =
        "vzdump-qemu-101-2026_01_01-00_00_00.vma.zst--differential-2026_01_02-00_00_00.vcdiff.zst";
    bed.good_delta();
    bed.xdelta3(&["identify", "hostile"]);
    if bed.run(XDELTA3, &["diff", "--base=hostile"], Some("target"), Some("differential"))
        && bed.run(XDELTA3, &["restore", "--base=hostile", "differential"], None, Some("restored"))
    {
        let [restored, target] = ["restored", "target"].map(|name| fs::read(bed.path(name)).expect("a file"));
        assert!(restored == target, "{}: another content", bed.name);
    }
    bed.xdelta3(&["restore", "--base=hostile", "--any-base", "delta"]);
    bed.run(XDELTA3, &["restore", "--base=hostile", "--any-base", "-"], Some("delta"), None);
    if !hostile.endless {
        bed.run(XDELTA3, &["full"], Some("hostile"), None);
        bed.run(XDELTA3, &["diff", "--base=base"], Some("hostile"), None);
        bed.xdelta3(&["-e", "-c", "-s", "base", "hostile"]);
        bed.xdelta3(&["-e", "-c", "-D", "hostile"]);
    }
    bed.xdelta3(&["-e", "-c", "-s", "hostile", "target"]);
    bed.xdelta3(&["-d", "-c", "-s", "hostile", "delta"]);
    bed.tools(hostile.endless);
    fs::rename(bed.path("hostile"), bed.path(full)).expect("a new name");
    fs::rename(bed.path("delta"), bed.path(differential)).expect("a new name");
    bed.readers(full, &[]);
    bed.readers(differential, &["--base", full]);
}

/// Every command on a file in the place of a differential.
fn as_differential(hostile: &Hostile, of: Option<&Hostile>) {
    let bed = Bed::new(hostile);
    let full = "vzdump-lxc-101-2026_01_01-00_00_00.tar.zst";
    let differential =
        "vzdump-lxc-101-2026_01_01-00_00_00.tar.zst--differential-2026_01_02-00_00_00.vcdiff.zst";
    bed.good_delta();
    if let Some(of) = of {
        of.file.write(&bed.path("base")).expect("a written file");
    }
    bed.xdelta3(&["restore", "--base=base", "--any-base", "hostile"]);
    bed.xdelta3(&["restore", "--base=base", "--any-base", "--threads=1", "hostile"]);
    bed.run(XDELTA3, &["restore", "--base=base", "-"], Some("hostile"), None);
    bed.xdelta3(&["-d", "-c", "-s", "base", "hostile"]);
    bed.xdelta3(&["-d", "-c", "hostile"]);
    bed.tools(hostile.endless);
    bed.xdelta3(&["identify", "hostile"]);
    bed.run(XDELTA3, &["diff", "--base=hostile"], Some("target"), None);
    bed.run(XDELTA3, &["full"], Some("hostile"), None);
    bed.xdelta3(&["-e", "-c", "-s", "base", "-D", "hostile"]);
    fs::rename(bed.path("hostile"), bed.path(differential)).expect("a new name");
    fs::rename(bed.path("base"), bed.path(full)).expect("a new name");
    bed.readers(differential, &[]);
}

/// Some of the corpus, so that several tests share the work: file `n` belongs to test `n % SHARES`. BOUNDS_ONLY names
/// the files to try.
const SHARES: usize = 4;

fn share(n: usize) {
    let only = std::env::var("BOUNDS_ONLY").unwrap_or_default();
    let fulls = corpus::fulls(Scale::Large);
    let wanted = |at: usize, hostile: &Hostile| at % SHARES == n && hostile.name.contains(&only);
    for (at, hostile) in fulls.iter().enumerate() {
        if wanted(at, hostile) {
            as_full(hostile);
        }
    }
    for (at, (of, hostile)) in corpus::differentials(Scale::Large).iter().enumerate() {
        if wanted(at, hostile) {
            let of = of.map(|of| fulls.iter().find(|full| full.name == of).expect("a full of that name"));
            as_differential(hostile, of);
        }
    }
}

#[test]
fn first_quarter() {
    share(0);
}

#[test]
fn second_quarter() {
    share(1);
}

#[test]
fn third_quarter() {
    share(2);
}

#[test]
fn last_quarter() {
    share(3);
}
