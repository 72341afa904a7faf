//! The demo as a newcomer runs it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pve-diff-backup");
/// Built with the program, which looks for it beside itself.
const HELPER: &str = env!("CARGO_BIN_EXE_pve-xdelta3");

fn demo(program: &Path, temp: &Path, arguments: &[&str]) -> Output {
    Command::new(program).arg("demo").args(arguments).env("TMPDIR", temp).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_empty(dir: &Path) -> bool {
    dir.read_dir().unwrap().next().is_none()
}

/// The sizes in the table's line of `guest`: data, full, differentials.
fn sizes(output: &str, guest: &str) -> Vec<f64> {
    let line =
        output.lines().find(|line| line.starts_with(&format!("{guest} "))).expect("a line of the table");
    let line = line.strip_suffix(" s").expect("a time at the end");
    let mut numbers: Vec<f64> =
        line[guest.len()..].split_whitespace().map(|number| number.parse().unwrap()).collect();
    numbers.pop();
    numbers
}

#[test]
fn it_runs_tells_sizes_and_removes_everything() {
    let temp = tempfile::tempdir().unwrap();
    let output = demo(Path::new(PROGRAM), temp.path(), &[]);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert_eq!(errors, "");
    assert!(!said.contains("warning"), "the example is a good one:\n{said}");
    for guest in ["VM 101", "container 102"] {
        let sizes = sizes(&said, guest);
        let [data, full, differentials @ ..] = &sizes[..] else { panic!("{sizes:?}") };
        assert!((30.0..70.0).contains(data), "{sizes:?}");
        assert!((10.0..*data).contains(full), "{sizes:?}");
        assert_eq!(differentials.len(), 3);
        // each holds all that changed since the full one
        assert!(differentials.is_sorted(), "{sizes:?}");
        assert!(differentials.iter().all(|size| *size > 0.0 && *size < full / 5.0), "{sizes:?}");
    }
    assert_eq!(said.matches("OK    vzdump-").count(), 6, "{said}");
    assert_eq!(said.matches("are equal byte for byte").count(), 2, "{said}");
    assert!(is_empty(temp.path()), "the demo's folder is still there");
}

#[test]
fn keep_leaves_everything_in_a_new_folder() {
    let temp = tempfile::tempdir().unwrap();
    let kept = temp.path().join("kept");
    let folder = kept.to_str().unwrap();
    let output = demo(Path::new(PROGRAM), temp.path(), &["--keep", folder]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));

    // what is there can be used: the backups are good, the host is not patched
    let run = |arguments: &[&str]| Command::new(PROGRAM).current_dir(&kept).args(arguments).output().unwrap();
    let verified = run(&["verify", "--all", "host/var/lib/vz/dump"]);
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    assert!(text(&verified.stdout).contains("8 checked, all of them restorable"));
    assert_eq!(run(&["--root", "host", "status"]).status.code(), Some(3));

    let again = demo(Path::new(PROGRAM), temp.path(), &["--keep", folder]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is not empty"), "{}", text(&again.stderr));
}

/// A folder with the program in it, but not its helper. A link, as a program that has just been written may
/// still be open in a process that another test is starting (ETXTBSY).
fn program_alone() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::hard_link(PROGRAM, dir.path().join("pve-diff-backup")).unwrap();
    dir
}

#[test]
fn it_says_what_is_missing() {
    let (alone, work) = (program_alone(), tempfile::tempdir().unwrap());
    let output = demo(&alone.path().join("pve-diff-backup"), work.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("pve-xdelta3 is not beside"), "{}", text(&output.stderr));
    assert!(is_empty(work.path()));

    let odd = work.path().join("my demo");
    let output = demo(Path::new(PROGRAM), work.path(), &["--keep", odd.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("choose a folder"), "{}", text(&output.stderr));
    assert!(is_empty(&odd));

    let output = Command::new(PROGRAM).args(["demo", "--root", "/tmp"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("--root: demo builds a host of its own; leave it out"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_backup_that_cannot_be_restored_fails_the_demo() {
    let (bin, work) = (program_alone(), tempfile::tempdir().unwrap());
    // the real helper, but every restore loses the last byte
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = restore ]; then '{HELPER}' \"$@\" | head -c -1; else exec '{HELPER}' \"$@\"; fi\n"
    );
    let helper = bin.path().join("pve-xdelta3");
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, Permissions::from_mode(0o755)).unwrap();
    let output = demo(&bin.path().join("pve-diff-backup"), work.path(), &[]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("101.vma ends after"), "{errors}");
    assert!(is_empty(work.path()), "the demo's folder is still there");
}
