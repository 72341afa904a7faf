//! What people see and type: progress on a terminal, `--output`, and hints where a command is mistyped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pve-xdelta3");
const VERIFY: &str = concat!(env!("CARGO_BIN_EXE_pve-diff-backup"), " verify");
const FULL: &str = "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst";
const DIFFERENTIAL: &str =
    "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst--differential-2026_11_21-01_00_02.vcdiff.zst";

/// A shell command on a terminal (script(1)); gives its status and what the terminal showed.
fn on_terminal(dir: &Path, line: &str) -> (i32, String) {
    let line = line.replace("pve-xdelta3", PROGRAM);
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let output = script.current_dir(dir).stdin(Stdio::null()).env("TERM", "xterm").output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(dir: &Path, line: &str) -> Output {
    let line = line.replace("pve-xdelta3", PROGRAM);
    Command::new("sh").args(["-c", &line]).current_dir(dir).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with a VM's full backup and a differential; `day.vma` is what it restores to.
fn backups() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut random = 1u64;
    let mut image = vec![0u8; 6 << 20];
    for byte in &mut image {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *byte = (random >> 60) as u8;
    }
    fs::write(dir.path().join("full.raw"), &image).unwrap();
    image[5 << 19..][..5000].fill(b'x');
    fs::write(dir.path().join("day.raw"), &image).unwrap();
    for line in [
        "pve-xdelta3 vma create full.vma drive-scsi0=full.raw".to_owned(),
        "pve-xdelta3 vma create day.vma drive-scsi0=day.raw".to_owned(),
        format!("pve-xdelta3 full -o {FULL} <full.vma"),
        format!("pve-xdelta3 diff --base {FULL} -o {DIFFERENTIAL} <day.vma"),
    ] {
        let output = run(dir.path(), &line);
        assert!(output.status.success(), "{line}: {}", errors(&output));
        assert_eq!(errors(&output), "", "{line}");
    }
    dir
}

#[test]
fn progress_is_shown_on_a_terminal_unless_it_is_unwanted() {
    let dir = backups();
    let lines = [
        format!("pve-xdelta3 restore -o a {DIFFERENTIAL}"),
        format!("pve-xdelta3 restore {DIFFERENTIAL} >b"),
        "pve-xdelta3 full <day.vma >c".to_owned(),
        "pve-xdelta3 full -o d <day.vma".to_owned(),
        format!("pve-xdelta3 diff --base {FULL} -o e <day.vma"),
        format!("pve-xdelta3 vma extract {DIFFERENTIAL} f"),
        format!("pve-xdelta3 vma verify {DIFFERENTIAL}"),
        format!("{VERIFY} . >g"),
    ];
    for line in lines {
        let (status, shown) = on_terminal(dir.path(), &line);
        assert_eq!(status, 0, "{line}: {shown}");
        assert!(shown.contains(" % "), "{line}: {shown:?}");
        for made in ["a", "d", "e", "f"] {
            let path = dir.path().join(made);
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        let (first, rest) = line.split_once(" >").unwrap_or((&line, "h"));
        let (status, shown) = on_terminal(dir.path(), &format!("{first} --quiet >{rest}"));
        assert_eq!((status, shown.as_str()), (0, ""), "{line}");
    }
    // What is told meanwhile stands on lines of its own: the bar makes room for it, and comes back.
    for line in [
        format!("pve-xdelta3 vma verify -v {DIFFERENTIAL}"),
        format!("pve-xdelta3 vma extract -v {DIFFERENTIAL} f"),
    ] {
        let (status, shown) = on_terminal(dir.path(), &line);
        assert_eq!(status, 0, "{line}: {shown}");
        assert!(shown.contains(" % ") && !shown.contains("0s left"), "{line}: {shown:?}");
        for word in ["DEV: ", "OK: "] {
            let at = shown.find(word).unwrap();
            let before = shown[..at].rsplit(['\n', '\r']).next().unwrap();
            assert!(before.is_empty() || before.ends_with("\x1b[2K"), "{line}: {shown:?}");
        }
    }
    // The guest and its date stay, however narrow the terminal is.
    let (_, shown) = on_terminal(dir.path(), &format!("stty cols 70; {VERIFY} . >g"));
    assert!(shown.contains("1/1 ") && shown.contains("qemu-101…2026_11_21-01_00_02"), "{shown:?}");
    // In a pipe others speak on the terminal.
    let (status, shown) = on_terminal(
        dir.path(),
        &format!("cat day.vma | pve-xdelta3 full | pve-xdelta3 restore {DIFFERENTIAL} | cat >i"),
    );
    assert_eq!((status, shown.as_str()), (0, ""));
}

/// The files in a folder.
fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[test]
fn an_output_is_there_when_it_is_complete_and_only_then() {
    let dir = backups();
    let at = |name: &str| dir.path().join(name);
    let day = fs::read(at("day.vma")).unwrap();
    let restore = format!("pve-xdelta3 restore {DIFFERENTIAL}");

    let output = run(dir.path(), &format!("umask 0; {restore} -o new"));
    assert!(output.status.success(), "{}", errors(&output));
    assert!(fs::read(at("new")).unwrap() == day);
    assert_eq!(at("new").metadata().unwrap().permissions().mode() & 0o7777, 0o600);

    // What is there is not touched, unless that is asked for.
    fs::write(at("new"), "mine").unwrap();
    std::os::unix::fs::symlink("new", at("link")).unwrap();
    let before = names(dir.path());
    for (line, reason) in [
        (format!("{restore} -o new"), "new exists already"),
        (format!("{restore} -o {FULL} --force"), "is the file that is read as"),
        (format!("{restore} -o {DIFFERENTIAL} --force"), "is the file that is read as"),
        (format!("{restore} -o . --force"), ". is a folder: name a file in it"),
        (
            format!("{restore} -o /dev/null"),
            "/dev/null is a device or the like: to write there, leave out --output, and > it",
        ),
        (format!("{restore} -o link -f"), "link is a symbolic link"),
        (format!("{restore} -o new/x"), "cannot make new/x: Not a directory"),
        (format!("{restore} -o nowhere/new"), "cannot make nowhere/new"),
        (format!("{restore} --force"), "--output <FILE>"),
        (format!("pve-xdelta3 diff --base {FULL} -o {FULL} -f <day.vma"), "is the file that is read as"),
        (format!("pve-xdelta3 diff --base {FULL} -o new <day.vma"), "new exists already"),
        ("pve-xdelta3 full -o new <day.vma".to_owned(), "new exists already"),
    ] {
        let output = run(dir.path(), &line);
        assert!(!output.status.success(), "{line}");
        assert!(errors(&output).contains(reason), "{line}: {}", errors(&output));
    }
    assert_eq!(names(dir.path()), before);
    assert_eq!(fs::read(at("new")).unwrap(), b"mine");
    // A guest's data is for its owner, whoever could read what was there.
    fs::set_permissions(at("new"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(run(dir.path(), &format!("{restore} -o new --force")).status.success());
    assert!(fs::read(at("new")).unwrap() == day);
    assert_eq!(at("new").metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(names(dir.path()), before);

    // Damage near the end: nothing is left, and what was there is still there.
    let mut bytes = fs::read(at(DIFFERENTIAL)).unwrap();
    bytes.truncate(bytes.len() - 9);
    fs::write(at(DIFFERENTIAL), bytes).unwrap();
    for (line, reason) in [
        (format!("{restore} -o other"), "incomplete frame"),
        (format!("{restore} -o new --force"), "incomplete frame"),
        ("ulimit -f 1; trap '' XFSZ; pve-xdelta3 full -o other <day.vma".to_owned(), "cannot make other"),
    ] {
        let output = run(dir.path(), &line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(errors(&output).contains(reason), "{line}: {}", errors(&output));
        // Whose fault it is: the output is named where that cannot be written, the input where that is damaged.
        let blames_output = errors(&output).contains("cannot make");
        assert_eq!(blames_output, reason.contains("cannot make"), "{line}: {}", errors(&output));
    }
    assert_eq!(names(dir.path()), before);
    assert!(fs::read(at("new")).unwrap() == day);
}

#[test]
fn a_name_that_was_taken_meanwhile_costs_no_data() {
    let dir = backups();
    let line = "mkfifo pipe; pve-xdelta3 full -o new <pipe & exec 9>pipe; cat day.vma >&9; \
                until [ -e .*.new ]; do sleep 0.02; done; printf mine >new; exec 9>&-; wait $!";
    let output = run(dir.path(), line);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(dir.path().join("new")).unwrap(), b"mine");
    let said = errors(&output);
    assert!(said.contains("cannot make new") && said.contains("is complete, in .pve-xdelta3."), "{said}");
    let output = run(dir.path(), "zstd -dc <$(echo .*.new) | cmp - day.vma");
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn wrong_usage_has_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "pve-xdelta3 diff </dev/null",
        "pve-xdelta3 full --level 99 </dev/null",
        "pve-xdelta3 full --compress lzo --level 1 </dev/null",
        "pve-xdelta3 diff --nonsense </dev/null",
    ] {
        assert_eq!(run(dir.path(), &format!("{line} >out")).status.code(), Some(2), "{line}");
    }
    // -V, config and test are xdelta3's, for which this is no error: tests/vcdiff/options.rs.
    for words in ["--version", "--help", "vma --help"] {
        let output = run(dir.path(), &format!("pve-xdelta3 {words} >/dev/full 2>&1"));
        assert_eq!(output.status.code(), Some(1), "{words}");
    }
}

#[test]
fn a_signal_takes_the_output_away() {
    let dir = backups();
    let before = names(dir.path());
    // The others may be ignored where the tests run, and stay so.
    for signal in ["TERM", "KILL"] {
        // It waits for the rest of its input when the signal comes.
        let line = format!(
            "mkfifo pipe; pve-xdelta3 full -o new <pipe & exec 9>pipe; cat day.vma >&9; \
             until [ -e .*.new ]; do sleep 0.02; done; kill -{signal} $!; wait $!; rm pipe"
        );
        let output = Command::new("bash")
            .args(["-mc", &line.replace("pve-xdelta3", PROGRAM)])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        // What cannot be caught leaves a file, but no half of one has the name of the whole.
        let mut there = names(dir.path());
        there.retain(|name| {
            let is_left = signal == "KILL" && name.extension().is_some_and(|extension| extension == "new");
            is_left.then(|| fs::remove_file(dir.path().join(name)).unwrap());
            !is_left
        });
        assert_eq!(there, before, "{signal}: {}", errors(&output));
    }
}

#[test]
fn a_mistyped_command_gets_a_hint_and_xdelta3s_command_line_stays() {
    let dir = backups();
    let output = run(dir.path(), &format!("pve-xdelta3 restor {DIFFERENTIAL}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("was pve-xdelta3 restore meant?"), "{}", errors(&output));
    // Nobody is kept waiting for input.
    let (status, shown) = on_terminal(dir.path(), "pve-xdelta3");
    assert_eq!(status, 2);
    assert!(shown.contains("Usage: pve-xdelta3 <COMMAND>") && shown.contains("restore"), "{shown}");

    // As with xdelta3: a file of that name, and standard input.
    fs::copy(dir.path().join("day.raw"), dir.path().join("restor")).unwrap();
    let output = run(dir.path(), "pve-xdelta3 restor delta && pve-xdelta3 -d delta back && cmp restor back");
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(errors(&output), "");
    let output = run(dir.path(), "pve-xdelta3 <day.raw | pve-xdelta3 -d | cmp - day.raw");
    assert!(output.status.success(), "{}", errors(&output));
}
