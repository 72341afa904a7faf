//! Where `consolidate` and `add-map` come to their ends: two nodes at once, what a killed program left, renames that fail.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::{COMPRESSIONS, Dump, Ran};

impl Dump {
    /// Runs the program with a fault at a call into the system.
    fn faulty(&self, fault: &str, args: &[&str]) -> Ran {
        let call = fault.split(':').next().unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={fault}"), env!("CARGO_BIN_EXE_pve-diff-backup")]);
        Ran::new(command.args(args).current_dir(self.dir.path()))
    }

    /// What is left where the program is killed after the full backup has its name, and before the differential is removed.
    fn half_done() -> (Dump, String) {
        let dump = Dump::new(true, COMPRESSIONS[0]);
        dump.faulty("unlink:signal=KILL:when=1", &["consolidate", "--quiet", &dump.days[1]]);
        let (names, new) = (dump.names(), dump.made(22));
        assert!(names.contains(&dump.days[1]) && names.contains(&new), "{names:?}");
        if !names.contains(&format!("{}.notes", dump.days[1])) {
            dump.write(&format!("{}.notes", dump.days[1]), "before the upgrade");
        }
        (dump, new)
    }
}

/// What other nodes did meanwhile stays.
#[test]
fn another_node_is_never_disturbed() {
    for is_done in [true, false] {
        let dump = Dump::new(true, COMPRESSIONS[0]);
        let (old, new) = (&dump.days[1], dump.made(22));
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new("strace")
            .args(["-f", "-o"])
            .arg(log.path())
            .args(["-e", "trace=fsync", "-e", "inject=fsync:signal=STOP:when=1"])
            .args([env!("CARGO_BIN_EXE_pve-diff-backup"), "consolidate", "--quiet", old])
            .current_dir(dump.dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stopped = until_stopped(&mut child, &log);
        // Here the other node does its work.
        let others = if is_done {
            dump.write(&new, "of the other node");
            dump.write(&format!("{new}.notes"), "its notes");
            dump.write(&format!("{new}.protected"), "");
            [new.clone(), format!("{new}.notes"), format!("{new}.protected")].to_vec()
        } else {
            let other = new.replace(".zst", ".pve9-0badcafe.dat");
            dump.write(&other, "");
            [other].to_vec()
        };
        assert!(Command::new("kill").args(["-CONT", &stopped]).status().unwrap().success());
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{out}");
        let told = if is_done {
            "was made meanwhile, perhaps by another node"
        } else {
            "unfinished, of node pve9-0badcafe"
        };
        assert!(out.contains(told), "{out}");
        let names = dump.names();
        assert!(others.iter().all(|it| names.contains(it)), "{names:?}");
        for beside in ["", ".notes", ".protected"] {
            assert!(names.contains(&format!("{old}{beside}")), "{names:?}");
        }
        // Nothing else of ours.
        assert_eq!(names.len(), 6 + others.len(), "{names:?}");
        if is_done {
            assert_eq!(fs::read_to_string(dump.path(format!("{new}.notes"))).unwrap(), "its notes");
        }
    }
}

/// Waits until the program has stopped, and tells which process that is.
fn until_stopped(child: &mut Child, log: &tempfile::NamedTempFile) -> String {
    loop {
        let text = fs::read_to_string(log.path()).unwrap();
        if let Some(line) = text.lines().find(|it| it.contains("stopped by SIGSTOP")) {
            return line.split_whitespace().next().unwrap().to_owned();
        }
        assert!(child.try_wait().unwrap().is_none(), "{text}");
        sleep(Duration::from_millis(20));
    }
}

/// Notes that were changed since the program was killed are nobody's to drop.
#[test]
fn notes_that_differ_are_kept() {
    for changed in [0, 1] {
        let (dump, new) = Dump::half_done();
        let notes = [format!("{}.notes", dump.days[1]), format!("{new}.notes")];
        dump.write(&notes[changed], "changed since");
        let (before, texts) = (dump.names(), notes.each_ref().map(|it| fs::read(dump.path(it)).unwrap()));
        let ran = dump.ours(&["consolidate", &dump.days[1]]);
        let told = format!("{} and {} differ", notes[0], notes[1]);
        assert!(ran.code == Some(1) && ran.out.contains(&told), "{}", ran.out);
        assert_eq!(dump.names(), before);
        assert_eq!(notes.each_ref().map(|it| fs::read(dump.path(it)).unwrap()), texts);
        // It ends as it says.
        fs::remove_file(dump.path(&notes[0])).unwrap();
        let ran = dump.ours(&["consolidate", &dump.days[1]]);
        assert_eq!(ran.code, Some(0), "{}", ran.out);
        assert_eq!(fs::read(dump.path(&notes[1])).unwrap(), texts[1]);
        assert!(!dump.names().contains(&dump.days[1]));
    }
}

/// The full that a killed program left may not be on the disk yet.
#[test]
fn the_full_is_on_the_disk_before_the_differential_goes() {
    let (dump, new) = Dump::half_done();
    let log = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-e", "trace=fsync,unlink", "-o"])
        .arg(log.path())
        .args([env!("CARGO_BIN_EXE_pve-diff-backup"), "consolidate", "--quiet", &dump.days[1]])
        .current_dir(dump.dir.path())
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let text = fs::read_to_string(log.path()).unwrap();
    let before: Vec<&str> = text.lines().take_while(|line| !line.contains("unlink(")).collect();
    assert!(before.len() < text.lines().count(), "{text}");
    let dir = fs::canonicalize(dump.dir.path()).unwrap();
    for path in [dir.join(&new), dir] {
        let end = format!("<{}>", path.display());
        assert!(before.iter().any(|line| line.contains("fsync(") && line.contains(&end)), "{end}: {text}");
    }
}

/// A rename that fails leaves everything as it was.
#[test]
fn nothing_is_left_of_a_rename_that_fails() {
    let dump = Dump::new(true, COMPRESSIONS[0]);
    let before = dump.names();
    let ran = dump.faulty("renameat2:error=EIO", &["consolidate", &dump.days[1]]);
    assert!(ran.code == Some(1) && ran.out.contains("cannot rename"), "{}{}", ran.out, ran.err);
    assert_eq!(dump.names(), before);

    let dump = Dump::stock(true);
    let (before, content) = (dump.names(), fs::read(dump.path(&dump.full)).unwrap());
    let ran = dump.faulty("rename:error=EIO", &["add-map", &dump.full]);
    assert!(ran.code == Some(1) && ran.out.contains("cannot rename"), "{}{}", ran.out, ran.err);
    assert_eq!(dump.names(), before);
    assert!(fs::read(dump.path(&dump.full)).unwrap() == content);
}

/// A differential that was made against a full backup of ours wants that very map, or none.
#[test]
fn a_map_is_no_other_than_the_one_that_differentials_know() {
    let dump = Dump::new(true, COMPRESSIONS[0]);
    fs::write(dump.path("content"), dump.content(&dump.full)).unwrap();
    let packed = Command::new("zstd")
        .args(["-q", "-f", "-19", "--rm", "content", "-o", &dump.full])
        .current_dir(dump.dir.path())
        .status();
    assert!(packed.unwrap().success());
    assert_eq!(dump.ours(&["verify", "--all", "."]).code, Some(0));
    let (before, bytes) = (dump.names(), fs::read(dump.path(&dump.full)).unwrap());
    let ran = dump.ours(&["add-map", &dump.full]);
    assert!(ran.code == Some(1) && ran.out.contains("could not be restored any more"), "{}", ran.out);
    assert!(ran.out.contains("its identity differs"), "{}", ran.out);
    assert!(dump.names() == before && fs::read(dump.path(&dump.full)).unwrap() == bytes);
    assert_eq!(dump.ours(&["verify", "--all", "."]).code, Some(0));
    // As it says: afterwards there is nothing in the way.
    assert_eq!(dump.ours(&["consolidate", "--all-of", &dump.guest, "."]).code, Some(0));
    let ran = dump.ours(&["add-map", &dump.full]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
}

/// Where the file system does not tell whether there is a note of damage or a full of that name, nothing is done.
#[test]
fn an_error_is_not_taken_for_an_absent_file() {
    let dump = Dump::stock(true);
    let (before, bytes) = (dump.names(), fs::read(dump.path(&dump.full)).unwrap());
    let damaged = format!("./{}.damaged", dump.full);
    let taken = format!("./{}", dump.made(22));
    for (path, args) in [(&damaged, ["add-map", &dump.full]), (&taken, ["consolidate", &dump.days[1]])] {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "inject=statx:error=EIO"]);
        command.arg(env!("CARGO_BIN_EXE_pve-diff-backup")).args(args);
        let ran = Ran::new(command.current_dir(dump.dir.path()));
        let told = format!("cannot look at {path}: Input/output error");
        assert!(ran.code == Some(1) && ran.out.contains(&told), "{}{}", ran.out, ran.err);
        assert_eq!(dump.names(), before);
        assert!(fs::read(dump.path(&dump.full)).unwrap() == bytes);
    }
}
