//! What whoever can write to the share could do: links, pipes and devices in the place of backups, differentials whose
//! headers prove nothing, and names that are no text. Everything goes through the real programs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const FULL: &str = "vzdump-qemu-100-2026_11_20-01_00_02.vma";
const DIFFERENTIAL: &str = "vzdump-qemu-100-2026_11_20-01_00_02.vma--differential-2026_11_21-01_00_02.vcdiff";
const SECRET: &[u8] = b"root:$6$a secret of the host, which nobody may read::20000:0:99999:7:::\n";

fn xdelta3() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
}

fn verify(dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
    run(command.arg("verify").arg("--all").arg(dir))
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// A folder as a share's: a full backup of one disk and a differential of it.
struct Share {
    dir: TempDir,
}

impl Share {
    fn new() -> Share {
        let share = Share { dir: tempfile::tempdir().unwrap() };
        for (image, archive, byte) in [("a", FULL, 1), ("b", "second", 2)] {
            let mut content = vec![7; 200_000];
            content[100_000] = byte;
            fs::write(share.path(image), content).unwrap();
            let mut create = xdelta3();
            create.args(["vma", "create"]).arg(share.path(archive));
            create.arg([OsStr::new("drive-scsi0="), share.path(image).as_os_str()].join(OsStr::new("")));
            good(&run(&mut create));
        }
        share.diff(&[], "--stored-base");
        share
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes the differential anew.
    fn diff(&self, options: &[&str], base: &str) {
        let made = xdelta3()
            .args(["diff", "--compress", "none", base])
            .arg(self.path(FULL))
            .args(options)
            .stdin(fs::File::open(self.path("second")).unwrap())
            .output()
            .unwrap();
        good(&made);
        fs::write(self.path(DIFFERENTIAL), made.stdout).unwrap();
    }

    /// The same by xdelta3's command line, as the originals did: a header with names alone.
    fn diff_of_the_originals(&self, options: &[&str]) {
        let made = xdelta3()
            .args(["-e", "-c", "-q", "-S", "none"])
            .args(options)
            .arg("-s")
            .arg(self.path(FULL))
            .stdin(fs::File::open(self.path("second")).unwrap())
            .output()
            .unwrap();
        good(&made);
        fs::write(self.path(DIFFERENTIAL), made.stdout).unwrap();
    }

    fn replace(&self, name: &str, with: impl FnOnce(&Path)) {
        let path = self.path(name);
        fs::rename(&path, self.path("away")).unwrap();
        with(&path);
    }

    fn put_back(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() {
            fs::remove_dir(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        fs::rename(self.path("away"), &path).unwrap();
    }

    /// Every way to read the differential that vzdump and its restores use, and those of people who name no base.
    fn ways(&self) -> Vec<Command> {
        let stored = ["--stored-base=".as_ref(), self.path(FULL).as_os_str()].join(OsStr::new(""));
        let mut ways = Vec::new();
        for words in [&["restore"][..], &["vma", "list"], &["vma", "config"], &["vma", "verify"]] {
            let mut command = xdelta3();
            command.args(words).arg(self.path(DIFFERENTIAL));
            ways.push(command);
        }
        let mut command = xdelta3();
        command.arg("restore").arg(&stored).arg(self.path(DIFFERENTIAL));
        ways.push(command);
        ways
    }
}

fn good(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Fails with this text, at once, and without any output.
fn refused(output: &Output, text: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{error}");
    assert!(error.contains(text), "{text}: {error}");
    assert!(error.starts_with("pve-xdelta3"), "{error}");
}

#[test]
fn a_backup_is_a_regular_file_of_its_directory() {
    let share = Share::new();
    for mut way in share.ways().into_iter().filter(|way| way.get_args().all(|word| word != "config")) {
        good(&run(&mut way));
    }
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("shadow");
    fs::write(&secret, SECRET).unwrap();
    let link = |to: PathBuf| move |path: &Path| symlink(&to, path).unwrap();
    let pipe = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    for name in [FULL, DIFFERENTIAL] {
        type Put = Box<dyn FnOnce(&Path)>;
        let tries: [(&str, Put); 6] = [
            ("a symbolic link", Box::new(link(secret.clone()))),
            ("a symbolic link", Box::new(link("away".into()))),
            ("a symbolic link", Box::new(link("/dev/zero".into()))),
            ("a symbolic link", Box::new(link("/nowhere".into()))),
            ("no regular file", Box::new(pipe)),
            ("no regular file", Box::new(|path: &Path| fs::create_dir(path).unwrap())),
        ];
        for (text, put) in tries {
            share.replace(name, put);
            for mut way in share.ways() {
                refused(&run(&mut way), text);
            }
            if name == FULL {
                let diff = run(xdelta3().args(["diff", "--stored-base"]).arg(share.path(FULL)));
                refused(&diff, text);
            }
            let told = verify(share.dir.path());
            let lines = String::from_utf8_lossy(&told.stdout).into_owned();
            assert_eq!(told.status.code(), Some(1), "{lines}");
            assert!(lines.contains(&format!("FAIL  {name}: ")) && lines.contains(text), "{lines}");
            share.put_back(name);
        }
    }
    // A person who names a file may name a link, as in a tree of links, or a disk.
    share.replace(FULL, link("away".into()));
    good(&run(xdelta3().args(["restore", "--base"]).arg(share.path(FULL)).arg(share.path(DIFFERENTIAL))));
}

/// RFC 1950, section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (a + b) % 65521)
    });
    b << 16 | a
}

#[test]
fn a_header_must_prove_the_base_unless_told_otherwise() {
    let share = Share::new();
    let restore =
        |options: &[&str]| run(xdelta3().arg("restore").args(options).arg(share.path(DIFFERENTIAL)));
    let second = fs::read(share.path("second")).unwrap();

    // The originals' archives: a word about it, on standard error.
    share.diff_of_the_originals(&["-A=-//vzdump-qemu-100-2026_11_20-01_00_02.vma.lzo/L"]);
    let output = restore(&[]);
    good(&output);
    assert!(output.stdout == second);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.starts_with("pve-xdelta3: ") && told.contains("warning") && told.contains("not checked"),
        "{told}"
    );

    // No header, and that of another full.
    for header in ["-A=", "-A=-//vzdump-qemu-100-2026_11_19-01_00_02.vma/"] {
        share.diff_of_the_originals(&[header]);
        for mut way in share.ways() {
            refused(&run(&mut way), "does not tell");
        }
        let output = restore(&["--any-base"]);
        good(&output);
        assert!(output.stdout == second && output.stderr.is_empty());
    }

    // One of ours whose proof somebody changed or took away, who knows how to write a header.
    share.diff(&[], "--stored-base");
    let whole = fs::read(share.path(DIFFERENTIAL)).unwrap();
    let at = |word: &[u8]| whole.windows(word.len()).position(|w| w == word).unwrap();
    for changes in [
        // As if it was made against another form of the full, of which the header says nothing.
        &[(&b"form=raw"[..], &b"form=map"[..]), (b"head=", b"xxxx=")][..],
        &[(b" id=", b" xx="), (b"head=", b"xxxx=")],
        &[(b" id=", b" xx="), (b"head=", b"xxxx="), (b"len=", b"xxx="), (b"form=", b"xxxx=")],
    ] {
        let mut delta = whole.clone();
        for (word, with) in changes {
            delta[at(word)..][..word.len()].copy_from_slice(with);
        }
        let (header, sum) = (at(b"-//vzdump"), at(b" sum="));
        let checksum = format!(" sum={:08x}", adler32(&delta[header..sum]));
        delta[sum..sum + checksum.len()].copy_from_slice(checksum.as_bytes());
        fs::write(share.path(DIFFERENTIAL), delta).unwrap();
        for mut way in share.ways() {
            refused(&run(&mut way), "does not tell");
        }
    }
}

/// Names as somebody who means harm would choose them.
fn hostile_names() -> Vec<Vec<u8>> {
    let suffix = b".vcdiff";
    let names: [&[u8]; 8] = [
        b"<img src=x onerror=alert(1)>",
        b"\x1b]0;owned\x07\x1b[31mred",
        "a\u{202e}cexe\u{2066}x\u{200b}y\u{feff}".as_bytes(),
        b"not utf-8 \xff\xfe",
        b"lines\nOK    everything is fine\r",
        b"\xc2\x9b31m",
        b"\"><script>alert(1)&amp;",
        &[b'x'; 240],
    ];
    names.iter().map(|name| [name, &suffix[..]].concat()).collect()
}

/// What may never be in a message.
fn is_harmless(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let bad = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(u32::from(c), 0x61c | 0x200b..=0x200f | 0x202a..=0x202e | 0x2066..=0x2069 | 0xfeff)
    };
    !text.contains(bad)
        && !text.contains("<img")
        && !text.contains("<script")
        && text.lines().all(|l| l.len() < 1500)
}

#[test]
fn names_do_no_harm_in_messages() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
    fs::write(at(b"base"), vec![1; 5000]).unwrap();
    for name in hostile_names() {
        fs::write(at(&name), "no differential").unwrap();
        let path = at(&name);
        for words in [
            &["restore", "--base", "base"][..],
            &["restore"],
            &["vma", "list"],
            &["vma", "verify", "--base", "base"],
            &["-d", "-c", "-s"],
            &["-d", "-s", "base", "-c"],
            &["printdelta"],
            &["merge", "-m"],
            &["recode"],
            &["-d", "base", "out"],
            &["vma", "list", "base"],
            &["vma"],
        ] {
            let output = run(xdelta3().current_dir(dir.path()).args(words).arg(&path));
            assert!(!output.status.success(), "{words:?}");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(is_harmless(&output.stderr) && is_harmless(&output.stdout), "{words:?} {path:?}: {told}");
        }
        // The header of a differential names its base.
        let source = at(&name);
        fs::write(&source, vec![1; 5000]).unwrap();
        let made = run(xdelta3().args(["diff", "--compress", "none", "--base"]).arg(&source));
        good(&made);
        fs::write(at(b"delta"), made.stdout).unwrap();
        fs::write(at(b"other"), vec![2; 6000]).unwrap();
        let output = run(xdelta3().current_dir(dir.path()).args(["restore", "--base", "other", "delta"]));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && is_harmless(&output.stderr), "{told}");
        assert!(told.starts_with("pve-xdelta3: "), "{told}");
        fs::write(&source, "no differential").unwrap();
    }
    let told = verify(dir.path());
    assert_eq!(told.status.code(), Some(1));
    assert!(
        is_harmless(&told.stdout) && is_harmless(&told.stderr),
        "{}",
        String::from_utf8_lossy(&told.stdout)
    );
    assert_eq!(told.stdout.iter().filter(|&&b| b == b'\n').count(), hostile_names().len() + 1);
}

#[test]
fn errors_say_what_a_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(
        Command::new("tar")
            .args(["cf"])
            .arg(at("ct.tar"))
            .args(["-C", "/etc", "./hostname"])
            .status()
            .unwrap()
            .success()
    );
    fs::write(at("text"), "some text\n").unwrap();
    fs::write(at("disk.qcow2"), b"QFI\xfb\0\0\0\x03").unwrap();
    fs::write(at("noise"), b"\x9a\x01\x77\xfe").unwrap();
    for (words, file, what) in [
        (&["vma", "list"][..], "ct.tar", "a container's backup (a tar archive), not a VM's"),
        (&["restore"], "ct.tar", "a full backup (tar)"),
        (&["vma", "list"], "text", "but text"),
        (&["restore"], "disk.qcow2", "but a disk image (qcow2)"),
        (&["restore"], "noise", "but something unknown, or damaged"),
    ] {
        let output = run(xdelta3().args(words).arg(at(file)));
        refused(&output, what);
        assert!(String::from_utf8_lossy(&output.stderr).contains(file));
    }
}
