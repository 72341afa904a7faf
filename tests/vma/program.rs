//! `pve-xdelta3 vma` as a program: what it leaves behind, what it says, how it ends.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pve_diff_backup::vma::{Order, verify};
use rustix::process::{Pid, Signal, kill_process};

use super::archive;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pve-xdelta3");

/// A directory to work in, with an archive and half of it.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        let dir = Dir(tempfile::tempdir().unwrap());
        let whole = archive(Order::Workers(5));
        dir.file("a.vma", &whole);
        dir.file("half.vma", &whole[..whole.len() / 2]);
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        Ended::new(self.command(args).output().unwrap())
    }

    /// Runs a program's words with a file as standard input and one as standard output.
    fn pipe(&self, args: &[&str], from: &str, to: &str) {
        let mut command = self.command(args);
        command.stdin(File::open(self.path(from)).unwrap()).stdout(File::create(self.path(to)).unwrap());
        assert!(command.status().unwrap().success(), "{args:?}");
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

struct Ended {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Ended {
    fn new(output: Output) -> Ended {
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Failed with one line that says all this.
    fn failed_with(&self, parts: &[&str]) {
        assert_eq!((self.code, self.error.lines().count()), (Some(1), 1), "{}", self.error);
        assert!(parts.iter().all(|part| self.error.contains(part)), "{parts:?}: {}", self.error);
    }
}

/// A pipe that nobody reads.
fn nobody() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn work_goes_on_without_a_reader_of_its_chatter() {
    let dir = Dir::new();
    let code = |args: &[&str]| Ended::new(dir.command(args).stdout(nobody()).output().unwrap()).code;
    assert_eq!(code(&["vma", "verify", "-v", "a.vma"]), Some(0));
    assert_eq!(code(&["vma", "verify", "-v", "half.vma"]), Some(1));
    assert_eq!(code(&["vma", "extract", "-v", "a.vma", "out"]), Some(0));
    assert_eq!(fs::read_dir(dir.path("out")).unwrap().count(), 6);
    assert_eq!(code(&["vma", "extract", "-v", "half.vma", "half"]), Some(1));
    // these have no other work
    for args in [&["vma", "list", "a.vma"][..], &["vma", "config", "a.vma"], &["vma", "--help"]] {
        assert_eq!(code(args), Some(141), "{args:?}");
    }
    assert_eq!(code(&["vma", "create", "-", "drive-scsi0=a.vma"]), Some(141));
}

#[test]
fn what_cannot_be_told_ends_no_program_in_a_panic() {
    let dir = Dir::new();
    for args in
        [&["vma", "list", "a.vma"][..], &["vma", "config", "a.vma"], &["vma", "verify", "-v", "a.vma"]]
    {
        let ended = Ended::new(dir.command(args).stdout(full_disk()).output().unwrap());
        ended.failed_with(&["cannot write to standard output", "No space left on device"]);
    }
    let ended = Ended::new(dir.command(&["identify", "a.vma"]).stdout(full_disk()).output().unwrap());
    ended.failed_with(&["cannot write to standard output", "No space left on device"]);
    let ended = Ended::new(dir.command(&["identify", "a.vma"]).stdout(nobody()).output().unwrap());
    assert_eq!((ended.code, &*ended.error), (Some(141), ""));
    for (args, code) in [
        (&["identify", "nope"][..], 1),
        (&["restore", "nope"], 1),
        (&["vma", "list", "nope"], 1),
        (&["vma", "lists", "a.vma"], 2),
    ] {
        for stderr in [full_disk(), nobody()] {
            assert_eq!(dir.command(args).stderr(stderr).status().unwrap().code(), Some(code), "{args:?}");
        }
    }
    let mut other = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
    other.args(["verify", "/nowhere"]).stderr(full_disk());
    assert_eq!(other.status().unwrap().code(), Some(2));
}

#[test]
fn an_archive_that_cannot_be_made_is_not_left() {
    let dir = Dir::new();
    dir.file("empty", b"");
    dir.file("image", &[7; 3 << 20]);
    fs::create_dir(dir.path("directory")).unwrap();
    assert!(Command::new("mkfifo").arg(dir.path("fifo")).status().unwrap().success());
    let before = dir.names();
    for (images, parts) in [
        (&["drive-scsi0=empty"][..], &["empty is empty"][..]),
        (&["drive-scsi0=directory"], &["directory is no regular file or block device"]),
        (&["drive-scsi0=fifo"], &["fifo is no regular file or block device"]),
        (&["drive-scsi0=nope"], &["nope: No such file"]),
        (&["drive-scsi0=image", "drive-scsi0=image"], &["new.vma", "\"drive-scsi0\" is there twice"]),
        (&["drive/scsi0=image"], &["new.vma", "\"drive/scsi0\" is not a usable name"]),
    ] {
        dir.run(&[&["vma", "create", "new.vma"], images].concat()).failed_with(parts);
        assert_eq!(dir.names(), before, "{images:?}");
    }
    // a full disk, as far as a limit can stand for one
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" vma create new.vma drive-scsi0=image";
    let output = Command::new("sh").args(["-c", script, PROGRAM]).current_dir(dir.0.path()).output().unwrap();
    Ended::new(output).failed_with(&["new.vma", "File too large"]);
    assert_eq!(dir.names(), before);
    // and the next try succeeds; one more leaves alone what is there
    assert_eq!(dir.run(&["vma", "create", "new.vma", "drive-scsi0=image"]).code, Some(0));
    let whole = fs::read(dir.path("new.vma")).unwrap();
    dir.run(&["vma", "create", "new.vma", "drive-scsi0=image"]).failed_with(&["new.vma exists already"]);
    assert!(fs::read(dir.path("new.vma")).unwrap() == whole);
    assert!(verify(&whole[..]).is_ok());
}

#[test]
fn a_failed_extraction_leaves_nothing_and_can_be_repeated() {
    let dir = Dir::new();
    let before = dir.names();
    dir.run(&["vma", "extract", "half.vma", "out"]).failed_with(&["half.vma", "truncated"]);
    assert_eq!(dir.names(), before);
    assert_eq!(dir.run(&["vma", "extract", "a.vma", "out"]).code, Some(0));
    let again = dir.run(&["vma", "extract", "a.vma", "out"]);
    again.failed_with(&["out exists already: name a directory that does not exist"]);
    assert_eq!(fs::read_dir(dir.path("out")).unwrap().count(), 6);
}

/// Waits for something that a program does.
fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_signal_leaves_nothing_either() {
    let dir = Dir::new();
    let before = dir.names();
    for number in [Signal::TERM, Signal::INT, Signal::HUP] {
        // Whoever runs the tests may have them ignored.
        let mut command = Command::new("env");
        command.args(["--default-signal=TERM,INT,HUP", PROGRAM, "vma", "extract", "-", "out"]);
        let mut child = command.current_dir(dir.0.path()).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&fs::read(dir.path("half.vma")).unwrap()).unwrap();
        until(|| dir.path("out/tmp-disk-drive-virtio0.raw").exists());
        signal(&child, number);
        assert_eq!(child.wait().unwrap().signal(), Some(number.as_raw()));
        assert_eq!(dir.names(), before, "{number:?}");
    }
    // an image that takes a while
    let sparse = tempfile::NamedTempFile::new().unwrap();
    sparse.as_file().set_len(1 << 40).unwrap();
    let image = format!("drive-scsi0={}", sparse.path().display());
    for number in [Signal::TERM, Signal::KILL] {
        let mut child = dir.command(&["vma", "create", "new.vma", &image]).spawn().unwrap();
        let half = dir.path(&format!(".pve-xdelta3.{}.new", child.id()));
        until(|| half.exists());
        signal(&child, number);
        assert_eq!(child.wait().unwrap().signal(), Some(number.as_raw()));
        // What cannot be caught leaves a file, but no half of one has the name of the whole.
        let left = number == Signal::KILL && fs::remove_file(half).is_ok();
        assert_eq!((dir.names(), left), (before.clone(), number == Signal::KILL));
    }
}

#[test]
fn a_signal_that_is_ignored_stays_so() {
    let dir = Dir::new();
    let script = "trap '' HUP; exec \"$0\" vma extract - out";
    let mut command = Command::new("sh");
    command.args(["-c", script, PROGRAM]).current_dir(dir.0.path()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let whole = fs::read(dir.path("a.vma")).unwrap();
    let (first, second) = whole.split_at(whole.len() / 2);
    stdin.write_all(first).unwrap();
    until(|| dir.path("out/tmp-disk-drive-virtio0.raw").exists());
    signal(&child, Signal::HUP);
    stdin.write_all(second).unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_dir(dir.path("out")).unwrap().count(), 6);
}

#[test]
fn a_differential_is_told_and_its_base_can_be_given() {
    let dir = Dir::new();
    dir.pipe(&["full"], "a.vma", "full.zst");
    dir.pipe(&["diff", "--base", "full.zst"], "a.vma", "odd.zst");
    let list = dir.run(&["vma", "list", "a.vma"]).out;
    assert!(list.contains("drive-virtio0"), "{list}");
    for command in ["list", "config", "verify"] {
        dir.run(&["vma", command, "odd.zst"]).failed_with(&["odd.zst is a differential", "--base FULL"]);
        let plain = dir.run(&["vma", command, "a.vma"]);
        let restored = dir.run(&["vma", command, "odd.zst", "--base", "full.zst"]);
        assert_eq!((restored.code, restored.out), (Some(0), plain.out), "{}", restored.error);
        let mut command = dir.command(&["vma", command, "-"]);
        let output = command.stdin(File::open(dir.path("odd.zst")).unwrap()).output().unwrap();
        Ended::new(output).failed_with(&["standard input is a differential"]);
    }
    assert_eq!(dir.run(&["vma", "extract", "odd.zst", "out", "--base=full.zst"]).code, Some(0));
    assert_eq!(fs::read_dir(dir.path("out")).unwrap().count(), 6);

    let mut piped = dir
        .command(&["vma", "list", "-", "--base", "full.zst"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(&fs::read(dir.path("odd.zst")).unwrap()).unwrap();
    assert_eq!(Ended::new(piped.wait_with_output().unwrap()).out, list);

    dir.run(&["vma", "list", "a.vma", "--base", "full.zst"])
        .failed_with(&["a.vma is no differential, though --base is given"]);
    dir.run(&["vma", "list", "odd.zst", "--base", "half.vma"]).failed_with(&["half.vma is not the one"]);
    dir.run(&["vma", "create", "new.vma", "a=a.vma", "--base", "full.zst"]).code.filter(|c| *c == 2).unwrap();
}

#[test]
fn a_cause_is_told_once() {
    let dir = Dir::new();
    let error = dir.run(&["vma", "list", "nope"]).error;
    assert_eq!(error, "pve-xdelta3 vma: cannot open nope: No such file or directory (os error 2)\n");
}

/// A guest's data is its owner's alone, in whatever file a command puts it.
#[test]
fn files_of_guests_data_are_private_whatever_the_umask_says() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    dir.file("disk.raw", &[7; 65_536]);
    dir.file("new", &[8; 65_536]);
    let script = r#"
        umask 0
        set -e
        "$0" vma extract a.vma out
        "$0" vma create made.vma drive-scsi0=disk.raw
        "$0" -e -s disk.raw new delta
        "$0" -d -s disk.raw delta again
        "$0" -e -s disk.raw new delta2
        "$0" merge -m delta delta2 merged
        "$0" recode delta recoded
    "#;
    let ran = Command::new("sh").args(["-c", script, PROGRAM]).current_dir(dir.path("")).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let given = ["a.vma", "half.vma", "disk.raw", "new"];
    let mut looked_at = 0;
    for entry in walkdir::WalkDir::new(dir.path("")).min_depth(1) {
        let entry = entry.unwrap();
        if !given.iter().any(|name| entry.file_name() == *name) {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            let want = if entry.file_type().is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, want, "{} {mode:o}", entry.path().display());
            looked_at += 1;
        }
    }
    assert!(looked_at >= 9, "{looked_at}");
    // Who has a file already says who may read it, but it is not for all.
    for (before, after) in [(0o640, 0o640), (0o666, 0o660)] {
        fs::set_permissions(dir.path("again"), fs::Permissions::from_mode(before)).unwrap();
        let run = dir.run(&["-d", "-f", "-s", "disk.raw", "delta", "again"]);
        assert_eq!(run.code, Some(0), "{}", run.error);
        assert_eq!(fs::metadata(dir.path("again")).unwrap().permissions().mode() & 0o777, after);
    }
}

#[test]
fn a_configuration_file_is_read_as_far_as_an_archive_holds_it() {
    let dir = Dir::new();
    dir.file("disk.raw", &[7; 65_536]);
    for (size, code) in [(65_535, 0), (65_536, 1), (1 << 40, 1)] {
        File::create(dir.path("100.conf")).unwrap().set_len(size).unwrap();
        let ran = dir.run(&["vma", "create", "new.vma", "drive-scsi0=disk.raw", "-c", "100.conf"]);
        assert_eq!(
            (ran.code, dir.path("new.vma").exists()),
            (Some(code), code == 0),
            "{size}: {}",
            ran.error
        );
        let _ = fs::remove_file(dir.path("new.vma"));
    }
    let endless = dir.run(&["vma", "create", "new.vma", "drive-scsi0=disk.raw", "-c", "/dev/zero"]);
    endless.failed_with(&["cannot take /dev/zero for a configuration file", "65535 bytes at most"]);
}
