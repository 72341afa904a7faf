//! `kill -9` and failing system calls at every step: strace stops the real program there.

use std::process::Command;

use crate::support::{Host, Ran, STORAGE, Snapshot, has};

/// The calls through which the program changes files. A run makes each of them many times; the tests stop it at
/// the first, the second and so on, until one runs through.
const CALLS: [&str; 11] = [
    "mkdir",
    "openat",
    "write",
    "link",
    "linkat",
    "fchmod",
    "fsync",
    "rename",
    "unlink",
    "rmdir",
    "utimensat",
];

/// Opening files happens for reading most of the time: only the last of some hundred calls matter.
const STRIDE: [(&str, usize); 2] = [("openat", 11), ("write", 1)];

/// Modules are checked before anything is written, and elsewhere: here that would only take time.
const NO_PERL: &str = "PATH=/nonexistent";

/// More calls of one kind than any run makes.
const MAX_CALLS: usize = 2000;

fn can_trace() -> bool {
    let works = has("strace")
        && Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success());
    if !works {
        println!("skipped: strace is missing or may not trace");
    }
    works
}

/// Runs the program with one system call failing.
fn with_fault(host: &Host, fault: &str, arguments: &[&str]) -> Ran {
    let program = host.command(arguments);
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={fault}"), "-E", NO_PERL]);
    strace.arg(program.get_program()).args(program.get_args()).env_remove("PERL5LIB");
    Ran::of(strace.output().unwrap())
}

/// Runs a command that must succeed.
fn without_perl(host: &Host, command: &str) {
    Ran::of(host.command(&[command]).env("PATH", "/nonexistent").output().unwrap()).ok();
}

/// A snapshot without our own folder.
fn files(host: &Host) -> Snapshot {
    let mut files = host.snapshot();
    files.retain(|path, _| !path.starts_with("var/lib/pve-diff-backup"));
    files
}

/// Stops `operation` at every step by `fault`; `check` looks at the host and what the run said.
fn at_every_step(operation: &str, fault: &str, check: impl Fn(&Host, &Ran, &Snapshot, &Snapshot, &str)) {
    let model = Host::new();
    let pristine = files(&model);
    model.run(&["apply"]).ok();
    let patched = files(&model);
    let mut stopped = 0;
    for call in CALLS {
        let stride = STRIDE.iter().find(|(name, _)| *name == call).map_or(1, |(_, stride)| *stride);
        for step in (1..MAX_CALLS).step_by(stride) {
            let host = Host::new();
            if operation == "revert" {
                without_perl(&host, "apply");
            }
            let ran = with_fault(&host, &format!("{call}:{fault}:when={step}"), &[operation]);
            let finished = ran.code == 0;
            check(&host, &ran, &pristine, &patched, &format!("{operation}, {call} {step}"));
            if finished {
                break;
            }
            stopped += 1;
        }
    }
    println!("{operation}, {fault}: stopped at {stopped} places");
    assert!(stopped > 30, "{operation}: stopped at {stopped} places only");
}

/// A killed run: the next command, which only looks, finds a host that is wholly one or the other, and leaves no trace
/// of the work.
fn killed(host: &Host, _: &Ran, pristine: &Snapshot, patched: &Snapshot, place: &str) {
    let status = host.run(&["status"]);
    let now = files(host);
    match status.code {
        0 => assert!(now == *patched, "{place}: called patched, but is not: {status:?}"),
        3 => assert!(now == *pristine, "{place}: called pristine, but is not: {status:?}"),
        _ => panic!("{place}: {status:?}"),
    }
    assert!(!host.path("var/lib/pve-diff-backup/journal.json").exists(), "{place}");
    without_perl(host, "apply");
    assert!(files(host) == *patched, "{place}");
    without_perl(host, "revert");
    assert!(files(host) == *pristine, "{place}");
    assert!(!host.path("var/lib/pve-diff-backup").exists(), "{place}");
}

#[test]
fn apply_killed_at_every_step() {
    if can_trace() {
        at_every_step("apply", "signal=KILL", killed);
    }
}

#[test]
fn revert_killed_at_every_step() {
    if can_trace() {
        at_every_step("revert", "signal=KILL", killed);
    }
}

#[test]
fn apply_on_a_full_disk_at_every_step() {
    if can_trace() {
        at_every_step("apply", "error=ENOSPC", failed);
    }
}

#[test]
fn revert_on_a_disk_turned_read_only_at_every_step() {
    if can_trace() {
        at_every_step("revert", "error=EROFS", failed);
    }
}

/// A run with one failing call: what it says about the host is true at once, and a second run succeeds.
fn failed(host: &Host, ran: &Ran, pristine: &Snapshot, patched: &Snapshot, place: &str) {
    let now = files(host);
    // Leftovers (an error that says so) are the next command's to remove.
    let whole = now == *pristine || now == *patched;
    assert!(
        whole || ran.err.contains("the next command tries again"),
        "{place}: neither one nor the other: {ran:?}"
    );
    if ran.code == 13 {
        let before = if place.starts_with("apply") { pristine } else { patched };
        assert!(now == *before, "{place}: not as it was: {ran:?}");
        assert!(ran.err.contains("Nothing was changed"), "{place}: {ran:?}");
        assert!(!host.path("var/lib/pve-diff-backup/journal.json").exists(), "{place}: {ran:?}");
    }
    killed(host, ran, pristine, patched, place);
}

#[test]
fn a_disk_that_fails_for_good_leaves_work_for_the_next_run() {
    if !can_trace() {
        return;
    }
    for step in 2..6 {
        let host = Host::new();
        let before = files(&host);
        let ran = with_fault(&host, &format!("rename:error=EIO:when={step}+"), &["apply"]);
        assert!([13, 14].contains(&ran.code), "{ran:?}");
        if ran.code == 14 {
            assert!(ran.err.contains("undoing it failed"), "{ran:?}");
        }
        host.run(&["revert"]).ok();
        assert!(files(&host) == before, "{step}");
    }
}

/// An upgrade between the interruption and the next command: the old plan must not overwrite new files.
#[test]
fn a_host_that_changed_after_an_interruption_is_made_pristine() {
    if !can_trace() {
        return;
    }
    let new =
        b"package PVE::Storage;\nour $RE = 'new';\nsub archive_info {\n    my ($archive) = @_;\n}\n1;\n";
    let mut overtaken = 0;
    for operation in ["apply", "revert"] {
        for step in 1..40 {
            let host = Host::new();
            if operation == "revert" {
                without_perl(&host, "apply");
            }
            let ran = with_fault(&host, &format!("rename:signal=KILL:when={step}"), &[operation]);
            if ran.code == 0 {
                break;
            }
            host.install("libpve-storage-perl", "9.1.1", &[(STORAGE, new)]);
            let status = host.run(&["status"]);
            if status.err.contains("somebody else changed these files since") {
                overtaken += 1;
                status.code(3);
                let now = files(&host);
                let ours = now.iter().filter(|(path, _)| !path.starts_with("var/lib/dpkg"));
                for (path, (.., content)) in ours {
                    let text = String::from_utf8_lossy(content);
                    assert!(
                        !text.contains("pve-diff-backup") && !path.contains("pve-diff-backup"),
                        "{step}: {path}"
                    );
                }
            }
            assert_eq!(host.read(STORAGE), new, "{operation} {step}");
            without_perl(&host, "apply");
            host.run(&["status"]).ok();
            without_perl(&host, "revert");
            assert_eq!(host.read(STORAGE), new, "{operation} {step}");
        }
    }
    assert!(overtaken > 4, "{overtaken} cases only");
}

/// What a power cut needs: nothing takes effect before what it relies on is on disk.
#[test]
fn everything_is_flushed_before_it_is_relied_upon() {
    if !can_trace() {
        return;
    }
    let host = Host::new();
    let log = host.root().with_file_name("trace");
    let program = host.command(&["apply"]);
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-y", "-s", "300", "-e", "trace=fsync,rename,unlink", "-E", NO_PERL, "-o"]).arg(&log);
    Ran::of(strace.arg(program.get_program()).args(program.get_args()).output().unwrap()).ok();
    let log = std::fs::read_to_string(log).unwrap();
    let calls: Vec<&str> = log.lines().filter(|line| line.ends_with("= 0")).collect();
    let position = |what: &dyn Fn(&str) -> bool| calls.iter().position(|call| what(call)).unwrap();
    let last = |what: &dyn Fn(&str) -> bool| calls.iter().rposition(|call| what(call)).unwrap();

    let journal = position(&|call| call.starts_with("rename(") && call.contains("journal.json\")"));
    assert!(calls[journal - 1].contains("journal.json.new>"), "flushed first: {}", calls[journal - 1]);
    assert!(
        calls[journal + 1].starts_with("fsync(") && calls[journal + 1].contains("pve-diff-backup>)"),
        "then its folder"
    );

    let is_staging = |call: &str| call.starts_with("rename(") && call.contains(".pve-diff-backup-tmp\", ");
    let is_swap = |call: &str| call.starts_with("rename(") && call.contains(".pve-diff-backup-new\", ");
    let first_swap = position(&is_swap);
    let last_staging = last(&is_staging);
    assert!(journal < position(&is_staging) && last_staging < first_swap);
    for (index, call) in calls.iter().enumerate().filter(|(_, call)| is_staging(call)) {
        assert!(
            calls[index - 1].starts_with("fsync(") && calls[index - 1].contains("-tmp>"),
            "before {call}"
        );
    }
    // Each folder with a staged file is flushed between the last staging and the first swap, and again before the
    // first old file goes.
    let first_removal =
        position(&|call| call.starts_with("unlink(") && call.contains(".pve-diff-backup-old"));
    let last_swap = last(&is_swap);
    for swap in calls.iter().filter(|call| is_swap(call)) {
        let path = swap.strip_prefix("rename(\"").unwrap().split_once("\", ").unwrap().0;
        let folder = format!("<{}>", path.rsplit_once('/').unwrap().0);
        for range in [last_staging..first_swap, last_swap..first_removal] {
            let flushed =
                calls[range].iter().any(|call| call.starts_with("fsync(") && call.contains(&folder));
            assert!(flushed, "{folder} is not flushed");
        }
    }
    let end = last(&|call| call.starts_with("unlink(") && call.contains("journal.json\")"));
    assert!(
        end > last(&|call| call.starts_with("unlink(") && call.contains(".pve-diff-backup-")),
        "journal goes last"
    );
}

#[test]
fn a_journal_that_cannot_be_trusted_is_not_followed() {
    let entry = |path: &str| {
        format!(
            r#"{{"format":1,"operation":"apply","entries":[{{"path":"{path}","before":"0","after":null}}]}}"#
        )
    };
    let journals = [
        (String::new(), "EOF"),
        ("{".to_owned(), "EOF"),
        (r#"{"format":2,"operation":"x","entries":[]}"#.to_owned(), "form 2 is unknown"),
        (entry("../outside"), "outside the root"),
        (entry("/etc/passwd"), "outside the root"),
        (entry(""), "outside the root"),
    ];
    for (journal, words) in journals {
        let host = Host::new();
        without_perl(&host, "apply");
        let patched = host.snapshot();
        host.write("var/lib/pve-diff-backup/journal.json", &journal);
        for command in ["status", "apply", "revert"] {
            host.run(&[command]).code(14).says(&["journal.json", words, "move it away"]);
        }
        std::fs::remove_file(host.path("var/lib/pve-diff-backup/journal.json")).unwrap();
        assert_eq!(host.snapshot(), patched, "{journal}");
        // What the message says helps.
        without_perl(&host, "revert");
        host.run(&["status"]).code(3);
    }
}
