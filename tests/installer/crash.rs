//! `kill -9` and failing system calls at every step: strace stops the real program there.

use std::process::Command;

use crate::support::{Host, INDEX, Ran, STORAGE, Snapshot, has};

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

/// Every so-manieth call of a kind is stopped at; all of them where this variable is set, which takes some minutes.
const WHOLE: &str = "PVE_DIFF_BACKUP_ALL_STEPS";

/// Opening files happens for reading most of the time.
const STRIDE: [(&str, usize); 3] = [("openat", 29), ("write", 2), ("fsync", 4)];

/// That of the other calls.
const OTHER_STRIDE: usize = 3;

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

/// Runs the program with one system call failing; tells whether it came to that.
fn with_fault(host: &Host, fault: &str, arguments: &[&str]) -> (Ran, bool) {
    let program = host.command(arguments);
    let log = host.root().with_file_name("injected");
    let (call, effect) = fault.split_once(':').unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-e", &format!("trace={call}"), "-e", &format!("inject={fault}")]);
    if effect.starts_with("error") {
        // All other calls then run at full speed. strace cannot send signals that way.
        strace.args(["--follow-forks", "--seccomp-bpf"]);
    }
    strace.args(["-E", NO_PERL, "-o"]).arg(&log);
    strace.arg(program.get_program()).args(program.get_args()).env_remove("PERL5LIB");
    let ran = Ran::of(strace.output().unwrap());
    let injected = std::fs::read_to_string(log).unwrap().contains("(INJECTED)");
    (ran, injected)
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

/// Stops `operation` at every step by `fault`; `check` looks at the host and what the run said. Where steps are left out,
/// each `sample` leaves out others.
fn at_every_step(
    operation: &str,
    fault: &str,
    sample: usize,
    check: impl Fn(&Host, &Ran, &Snapshot, &Snapshot, &str),
) {
    let whole = std::env::var_os(WHOLE).is_some();
    let model = Host::new();
    let pristine = files(&model);
    model.run(&["apply"]).ok();
    let patched = files(&model);
    let mut stopped = 0;
    for call in CALLS {
        let stride =
            STRIDE.iter().find(|(name, _)| *name == call).map_or(OTHER_STRIDE, |(_, stride)| *stride);
        let (first, stride) = if whole { (1, 1) } else { (1 + sample % stride, stride) };
        for step in (first..MAX_CALLS).step_by(stride) {
            let host = Host::new();
            if operation == "revert" {
                without_perl(&host, "apply");
            }
            let (ran, injected) = with_fault(&host, &format!("{call}:{fault}:when={step}"), &[operation]);
            if ran.code == 0 && !injected {
                break;
            }
            check(&host, &ran, &pristine, &patched, &format!("{operation}, {call} {step}"));
            stopped += 1;
        }
    }
    println!("{operation}, {fault}: stopped at {stopped} places");
    assert!(stopped > 20, "{operation}: stopped at {stopped} places only");
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
        at_every_step("apply", "signal=KILL", 0, killed);
    }
}

#[test]
fn revert_killed_at_every_step() {
    if can_trace() {
        at_every_step("revert", "signal=KILL", 1, killed);
    }
}

#[test]
fn apply_on_a_full_disk_at_every_step() {
    if can_trace() {
        at_every_step("apply", "error=ENOSPC", 2, failed);
    }
}

#[test]
fn revert_on_a_disk_turned_read_only_at_every_step() {
    if can_trace() {
        at_every_step("revert", "error=EROFS", 0, failed);
    }
}

#[test]
fn apply_on_a_failing_disk_at_every_step() {
    if can_trace() {
        at_every_step("apply", "error=EIO", 1, failed);
    }
}

#[test]
fn revert_with_interrupted_calls_at_every_step() {
    if can_trace() {
        at_every_step("revert", "error=EINTR", 2, failed);
    }
}

/// The state directory goes between the interruption and the next command: what is left of the journal's work is found
/// all the same, and nothing stays beside the files.
#[test]
fn a_state_directory_that_is_lost_after_an_interruption() {
    let lose = |host: &Host| std::fs::remove_dir_all(host.path("var/lib/pve-diff-backup")).unwrap();
    interrupted_and_spoilt(lose, |host| {
        // Mixed where it was stopped between two files.
        assert!([0, 3, 4].contains(&host.run(&["status"]).code));
    });
}

/// The same with a journal of which only a part is on disk: nothing is done by it, and the advice helps.
#[test]
fn a_journal_that_is_damaged_after_an_interruption() {
    let journal = "var/lib/pve-diff-backup/journal.json";
    let cut = |host: &Host| {
        let whole = host.read(journal);
        host.write(journal, &whole[..whole.len() / 2]);
    };
    interrupted_and_spoilt(cut, |host| {
        if host.path(journal).exists() {
            let before = files(host);
            for command in ["status", "apply", "revert"] {
                host.run(&[command]).code(14).says(&[
                    "journal.json",
                    "move it away",
                    "pve-diff-backup --root",
                ]);
            }
            assert!(files(host) == before, "something was done by a damaged journal");
            std::fs::remove_file(host.path(journal)).unwrap();
        }
    });
}

/// Kills `apply` and `revert` at each rename, lets `spoil` do its work on our folder, `check` look; then `revert` must
/// give back a pristine host, and `apply` a patched one.
fn interrupted_and_spoilt(spoil: impl Fn(&Host), check: impl Fn(&Host)) {
    if !can_trace() {
        return;
    }
    let model = Host::new();
    let pristine = files(&model);
    without_perl(&model, "apply");
    let patched = files(&model);
    for operation in ["apply", "revert"] {
        let mut stopped = 0;
        for step in 1..MAX_CALLS {
            for next in ["apply", "revert"] {
                let host = Host::new();
                if operation == "revert" {
                    without_perl(&host, "apply");
                }
                let (ran, _) = with_fault(&host, &format!("rename:signal=KILL:when={step}"), &[operation]);
                if ran.code == 0 {
                    continue;
                }
                stopped += 1;
                if host.path("var/lib/pve-diff-backup/journal.json").exists() {
                    spoil(&host);
                }
                check(&host);
                without_perl(&host, next);
                let wanted = if next == "apply" { &patched } else { &pristine };
                assert!(files(&host) == *wanted, "{operation} stopped at rename {step}, then {next}");
                without_perl(&host, "revert");
                assert!(
                    files(&host) == pristine,
                    "{operation} stopped at rename {step}, then {next}, then revert"
                );
                assert!(!host.path("var/lib/pve-diff-backup").exists());
            }
            if stopped < 2 * step {
                break;
            }
        }
        assert!(stopped > 8, "{operation}: stopped at {stopped} places only");
    }
}

/// dpkg brings a new file while we are at work: it is not overwritten, and all else is given back.
#[test]
fn dpkg_replaces_a_file_in_the_middle() {
    if !can_trace() {
        return;
    }
    let model = Host::new();
    let log = model.root().with_file_name("trace");
    let program = model.command(&["apply"]);
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-s", "300", "-e", "trace=rename", "-E", NO_PERL, "-o"]).arg(&log);
    Ran::of(strace.arg(program.get_program()).args(program.get_args()).output().unwrap()).ok();
    let log = std::fs::read_to_string(log).unwrap();
    // Signals are lines too.
    let mut calls = log.lines().filter(|line| line.starts_with("rename("));
    let swap = 1 + calls.position(|call| call.contains(".pve-diff-backup-new\", ")).unwrap();

    let host = Host::new();
    let before = files(&host);
    let new = host.text(INDEX).replace("<html>", "<html><!-- new -->");
    let program = host.command(&["apply"]);
    let mut strace = Command::new("strace");
    // All is staged when the first file is to be swapped, and that waits.
    let delay = format!("inject=rename:delay_enter=3000000:when={swap}");
    strace.args(["-qq", "-o", "/dev/null", "-e", &delay, "-E", NO_PERL]);
    strace.arg(program.get_program()).args(program.get_args());
    let mut child =
        strace.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // The record is the last file to be staged.
    let staged = host.path("var/lib/pve-diff-backup/.applied.json.pve-diff-backup-new");
    while !staged.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before everything was staged");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let draft = host.path("usr/share/pve-manager/index.html.tpl.dpkg-new");
    std::fs::write(&draft, &new).unwrap();
    std::fs::rename(&draft, host.path(INDEX)).unwrap();
    Ran::of(child.wait_with_output().unwrap()).code(13).says(&[INDEX, "somebody else changed it just now"]);
    let mut expected = before;
    expected.get_mut(INDEX).unwrap().3 = new.clone().into_bytes();
    assert!(files(&host) == expected, "not as it was, but for the new file");
    host.run(&["apply"]).ok();
    host.run(&["revert"]).ok();
    assert!(files(&host) == expected);
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
        let (ran, _) = with_fault(&host, &format!("rename:error=EIO:when={step}+"), &["apply"]);
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
            let (ran, _) = with_fault(&host, &format!("rename:signal=KILL:when={step}"), &[operation]);
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
