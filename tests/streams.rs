//! Standard streams that are closed: what is read from them or written to them fails, and nothing gets lost.

use std::path::Path;
use std::process::{Command, Output};

const XDELTA3: &str = env!("CARGO_BIN_EXE_pve-xdelta3");
const PATCHER: &str = env!("CARGO_BIN_EXE_pve-diff-backup");

/// Runs a line of shell: `X` stands for pve-xdelta3, `P` for pve-diff-backup.
fn sh(dir: &Path, line: &str) -> Output {
    let words = line.split(' ').map(|word| match word {
        "X" => XDELTA3,
        "P" => PATCHER,
        word => word,
    });
    let line = words.collect::<Vec<_>>().join(" ");
    Command::new("bash").args(["-c", &line]).current_dir(dir).output().unwrap()
}

fn ok(dir: &Path, line: &str) -> Output {
    let output = sh(dir, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn guest() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ok(at, "seq 1 30000 >a; (cat a; echo x) >b; head -c 200000 a >image; mkdir root dump");
    ok(at, "X vma create day1 drive-scsi0=image; X vma create day2 drive-scsi0=image");
    ok(
        at,
        "X full <day1 >full; X diff --base full <day2 >diff; X -e -s a b delta; X -e -s b a back; zstd -q a",
    );
    dir
}

#[test]
fn data_is_neither_taken_from_a_closed_stream_nor_sent_there() {
    let dir = guest();
    for line in [
        "X full <a >&-",
        "X full --compress none <a >&-",
        "X diff --base full <day2 >&-",
        "X restore --base full diff >&-",
        "X restore --base full - <diff >&-",
        "X identify full >&-",
        "X vma create - drive-scsi0=image >&-",
        "X vma list day1 >&-",
        "X vma list --base full diff >&-",
        "X vma config day1 >&-",
        "X vma verify -v day1 >&-",
        "X vma --help >&-",
        "X --help >&-",
        "X --version >&-",
        "X full --help >&-",
        "X -e -c -s a b >&-",
        "X -e -s a b >&-",
        "X -d -c -s a delta >&-",
        "X -d -c -R -s a delta >&-",
        "X recode -c delta >&-",
        "X merge -c -m delta back >&-",
        "X printhdr delta >&-",
        "X printhdrs delta >&-",
        "X printdelta delta >&-",
        "X -f -e -s a b /dev/stdout >&-",
        "X -f -d -s a delta /proc/self/fd/1 >&-",
        "P --root root status >&-",
        "P --root root diff >&-",
        "P --root root patch >&-",
        "P --root root test >&-",
        "P --root root doctor >&-",
        "P verify dump >&-",
        "P --help >&-",
        "P --version >&-",
    ] {
        let output = sh(dir.path(), line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert!(error.contains("standard output is closed"), "{line}: {error}");
    }
    for line in [
        "X full <&- >out",
        "X diff --base full <&- >out",
        "X restore --base full - <&- >out",
        "X vma list - <&- >out",
        "X vma list --base full - <&- >out",
        "X vma extract - out <&-",
        "X vma create out drive-scsi0=/dev/stdin <&-",
        "X -e -c <&- >out",
        "X -e -c -s a <&- >out",
        "X -e -s /dev/stdin a out <&-",
        "X -e -f -s a /dev/stdin out <&-",
        "X -d -c -s a <&- >out",
        "X recode -c <&- >out",
        "X merge -c -m delta <&- >out",
        "X printhdr <&- >out",
    ] {
        let output = sh(dir.path(), line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert!(error.contains("standard input is closed"), "{line}: {error}");
        let left = std::fs::metadata(dir.path().join("out")).map_or(0, |m| m.len());
        assert_eq!(left, 0, "{line}");
    }
}

/// Nothing that a program opens gets the number of a closed stream, where messages are written.
#[test]
fn a_stream_that_is_not_needed_may_be_closed() {
    let dir = guest();
    let at = dir.path();
    let restored = |line: &str, of: &str| {
        ok(at, line);
        ok(at, &format!("cmp out {of} && rm out"));
    };
    for closed in ["2>&-", "<&- 2>&-", "<&-"] {
        restored(&format!("X restore --base full diff >out {closed}"), "day2");
        restored(&format!("X -d -v -c -s a delta >out {closed}"), "b");
        restored(&format!("X -d -vv -s a delta out >&- {closed}"), "b");
        ok(at, &format!("X -e -v -f -s a a.zst packed >&- {closed}"));
        restored("X -d -R -c -s a packed >out", "a");
        ok(at, &format!("X vma verify day1 >&- {closed}; X vma extract day1 disks >&- {closed}"));
        ok(at, "cmp disks/disk-drive-scsi0.raw image && rm -r disks");
        ok(
            at,
            &format!("mkdir man; P generate man man >&- {closed} && test -s man/pve-xdelta3.1 && rm -r man"),
        );
    }
    restored("X full <a 2>&- | zstd -dcq >out", "a");
    restored("X diff -v --base full <day2 2>&- >diff2 && X restore --base full diff2 >out", "day2");
    // Failures are failures where nobody can be told.
    for line in
        ["X full <&- >&- 2>&-", "X -d nowhere out 2>&-", "X vma verify a 2>&-", "P verify nowhere 2>&-"]
    {
        let output = sh(at, line);
        assert!(output.status.code().is_some_and(|code| code != 0), "{line}");
    }
    // /dev/null is what the user means by it.
    for line in [
        "X full <a >/dev/null",
        "X full </dev/null >out",
        "X -d -c -s a delta >/dev/null",
        "P --version >/dev/null",
    ] {
        ok(at, line);
    }
}
