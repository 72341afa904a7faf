//! Hosts and packages that are somebody else's: nothing of theirs runs unless it is asked for, and what is laid out to be
//! looked at is nobody else's business, and does not stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{CREATE, Host, Ran, STORAGE, chmod};
use crate::upcoming::deb;

/// A module of the tree that leaves a trace where it runs. It stands for itself and for whatever it uses.
fn booby_trapped(text: &str, code: &str) -> String {
    text.replacen("use strict;", &format!("use strict;\nBEGIN {{ {code} }}"), 1)
}

/// Perl that notes that it ran.
fn note(file: &Path) -> String {
    format!("open(my $fh, '>>', '{}') or die $!; print $fh \"ran\\n\";", file.display())
}

/// All commands that look at modules, on a tree and with a package.
fn commands(package: &Path) -> Vec<Vec<String>> {
    let package = package.to_str().unwrap();
    [
        &["test"][..],
        &["test", "--json"],
        &["test", "--deb", package],
        &["new-version"],
        &["new-version", package],
    ]
    .iter()
    .chain(&[&["apply"][..]])
    .map(|words| words.iter().map(ToString::to_string).collect())
    .collect()
}

#[test]
fn nothing_of_a_foreign_tree_or_package_runs_unless_asked_for() {
    for allowed in [false, true] {
        let host = Host::new();
        let trace = host.root().with_file_name("trace");
        let trapped = booby_trapped(&host.text(CREATE), &note(&trace));
        host.install("pve-container", "6.0.1", &[(CREATE, trapped.as_bytes())]);
        let package = deb(&host, "pve-container", "6.0.9", &[(CREATE, &trapped)]);
        for words in commands(&package) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mut command = host.wary(&words);
            command.args(allowed.then_some("--load-modules"));
            let ran = Ran::of(command.output().unwrap()).ok();
            assert_eq!(trace.exists(), allowed, "{words:?}");
            let said = format!("{}{}", ran.out, ran.err);
            if words[1..] == ["--json"] {
                let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
                assert_eq!(json["modules"][0]["check"], if allowed { "loads" } else { "not-loaded" });
            } else if !allowed {
                assert!(said.contains("Perl modules were not loaded"), "{words:?}: {ran:?}");
            }
            let _ = fs::remove_file(&trace);
        }
    }
}

#[test]
fn what_perl_is_told_by_the_environment_is_dropped() {
    let host = Host::new();
    let trace = host.root().with_file_name("trace");
    let lib = host.root().with_file_name("lib");
    fs::create_dir(&lib).unwrap();
    fs::write(lib.join("Evil.pm"), format!("package Evil;\n{}\n1;\n", note(&trace))).unwrap();
    // `strict` is what every module asks for first.
    fs::write(lib.join("strict.pm"), format!("package strict;\n{}\n1;\n", note(&trace))).unwrap();
    for (name, value) in [("PERL5LIB", ""), ("PERLLIB", ""), ("PERL5OPT", "-MEvil")] {
        let mut command = host.command(&["test"]);
        command.env(name, if value.is_empty() { lib.as_os_str() } else { value.as_ref() });
        if !value.is_empty() {
            command.env("PERL5LIB", &lib);
        }
        Ran::of(command.output().unwrap()).ok();
        assert!(!trace.exists(), "{name}");
    }
    let given = Ran::of(host.command(&["test", "--perl-lib"]).arg(&lib).output().unwrap());
    assert!(trace.exists(), "named by an option it counts: {given:?}");
    Ran::of(host.wary(&["test", "--perl-lib"]).arg(&lib).output().unwrap()).code(2);
}

#[test]
fn lines_in_documentation_or_text_are_refused_without_loading() {
    for (above, below, what) in [
        ("=pod\n\n", "\n=cut\n\n", "a piece of documentation"),
        ("my $help = <<'EOT';\n", "EOT\n", "a text"),
        ("1;\n__END__\n", "", "what follows the end of the code"),
    ] {
        let host = Host::new();
        let block = "sub restore {\n    return 1;\n}\n";
        let text = host.text(CREATE).replace(block, &format!("{above}{block}{below}"));
        host.install("pve-container", "6.0.1", &[(CREATE, text.as_bytes())]);
        for command in ["test", "apply"] {
            let ran = Ran::of(host.wary(&[command]).output().unwrap()).code(11);
            assert!(ran.err.contains(CREATE) && ran.err.contains(what), "{what}: {ran:?}");
        }
    }
}

/// The temporary folders of a run, as one of the modules sees them.
#[test]
fn temporary_folders_are_private_whatever_the_umask_says() {
    let host = Host::new();
    let seen = host.root().with_file_name("seen");
    let look = format!(
        "open(my $fh, '>>', '{}') or die $!; for my $lib (@INC) {{ next if $lib !~ m{{(.*/pve-diff-backup-[^/]+)}}; \
         my ($top, $program) = ($1, \"$lib/../../bin/program\"); \
         printf $fh \"%04o\\n\", (stat($top))[2] & 07777; print $fh \"setuid\\n\" if -u $program; }}",
        seen.display()
    );
    let trapped = booby_trapped(&host.text(CREATE), &look);
    let package = deb(&host, "pve-container", "6.0.9", &[(CREATE, &trapped), ("usr/bin/program", "")]);
    // As a package has it that wants to be root's.
    let tree = host.root().with_file_name("tree");
    let shell = |script: &str| {
        let mut sh = Command::new("sh");
        let ran = sh.args(["-c", script]).env("TREE", &tree).env("DEB", &package).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    shell(
        "dpkg-deb -R \"$DEB\" \"$TREE\" && chmod 4755 \"$TREE/usr/bin/program\" && dpkg-deb -b \"$TREE\" \"$DEB\"",
    );
    let temp = host.root().with_file_name("temp");
    fs::create_dir(&temp).unwrap();
    chmod(&temp, 0o1777);
    for umask in ["0", "022", "077"] {
        let program = host.command(&["test", "--deb"]);
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).env("TMPDIR", &temp);
        Ran::of(sh.arg(program.get_program()).args(program.get_args()).arg(&package).output().unwrap()).ok();
        let seen = fs::read_to_string(&seen).unwrap();
        assert!(
            seen.lines().count() >= 2 && seen.lines().all(|mode| mode == "0700"),
            "umask {umask}: {seen}"
        );
    }
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0);
}

#[test]
fn our_own_files_are_looked_for_inside_the_root() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    let outside = host.root().with_file_name("outside");
    fs::write(&outside, "of another host").unwrap();
    let journal = host.path("var/lib/pve-diff-backup/journal.json");
    for target in [outside.as_path(), Path::new("../../../../../outside")] {
        std::os::unix::fs::symlink(target, &journal).unwrap();
        host.run(&["test"]).ok();
        host.run(&["apply"]).ok();
        let _ = fs::remove_file(&journal);
    }
    // One that is really there is no less damaged for being a link.
    host.write("real", "of this host");
    std::os::unix::fs::symlink("/real", &journal).unwrap();
    host.run(&["apply"]).code(14).says(&["interrupted run"]);
    assert_eq!(
        (fs::read_to_string(outside).unwrap().as_str(), host.text("real").as_str()),
        ("of another host", "of this host")
    );
}

#[test]
fn nothing_is_made_in_a_folder_that_is_no_host() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["apply", "revert", "reinstall"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        let ran = Ran::of(program.arg("--root").arg(dir.path()).arg(command).output().unwrap()).code(1);
        let status = dir.path().join("var/lib/dpkg/status");
        assert!(
            ran.err.contains(status.to_str().unwrap()) && ran.err.contains("--root"),
            "{command}: {ran:?}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{command}");
    }
}

/// dpkg-deb unpacks for itself, too, with the modes that a package asks for: where TMPDIR says.
#[test]
fn dpkg_deb_gets_a_private_folder_for_itself() {
    let host = Host::new();
    let package = deb(&host, "pve-container", "6.0.9", &[(CREATE, &host.text(CREATE))]);
    let (bin, seen) = (host.root().with_file_name("bin"), host.root().with_file_name("seen"));
    fs::create_dir(&bin).unwrap();
    let path = std::env::var("PATH").unwrap();
    let script = format!(
        "#!/bin/sh\nstat -c '%a %n' \"$TMPDIR\" >>'{}'\nPATH='{path}' exec dpkg-deb \"$@\"\n",
        seen.display()
    );
    fs::write(bin.join("dpkg-deb"), script).unwrap();
    chmod(&bin.join("dpkg-deb"), 0o755);
    let mut command = host.wary(&["test", "--deb"]);
    command.arg(&package).env("PATH", format!("{}:{path}", bin.display())).env_remove("TMPDIR");
    Ran::of(command.output().unwrap()).ok();
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.lines().count() >= 2, "{seen}");
    assert!(seen.lines().all(|line| line.starts_with("700 ") && line.contains("pve-diff-backup-")), "{seen}");
}

/// What lies in `dir` of ours.
fn left(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains("staging")).collect()
}

/// `kill -9` while modules are loaded: what was laid out is removed by the next run, by whose lock it is known.
#[test]
fn what_a_killed_run_laid_out_goes_with_the_next() {
    let host = Host::new();
    let flag = host.root().with_file_name("flag");
    let kill = format!("kill(9, getppid()) if -e '{}';", flag.display());
    let text = booby_trapped(&host.text(STORAGE), &kill);
    host.install("libpve-storage-perl", "9.1.0", &[(STORAGE, text.as_bytes())]);
    let temp = host.root().with_file_name("temp");
    fs::create_dir(&temp).unwrap();
    let state = host.path("var/lib/pve-diff-backup");
    let run = |command: &str| Ran::of(host.command(&[command]).env("TMPDIR", &temp).output().unwrap());
    let before = host.snapshot();
    for next in ["status", "apply", "revert", "test"] {
        fs::write(&flag, "").unwrap();
        assert_eq!(run("apply").code, -1, "not killed");
        assert_eq!((left(&state).len(), left(&temp).len()), (1, 0), "it lies in our own folder");
        fs::remove_file(&flag).unwrap();
        let ran = run(next);
        assert_eq!(left(&state), Vec::<PathBuf>::new(), "{next}: {ran:?}");
        run("revert").ok();
        assert_eq!(host.snapshot(), before, "{next}");
    }
    // What writes nothing to the host lays out elsewhere, and what another run holds stays.
    let held = pve_diff_backup::host::Scratch::below(&temp).unwrap();
    fs::write(&flag, "").unwrap();
    assert_eq!(run("test").code, -1);
    assert_eq!(left(&temp).len(), 2);
    fs::remove_file(&flag).unwrap();
    run("test").ok();
    assert_eq!(left(&temp), [held.path()]);
    assert_eq!(host.snapshot(), before);
}
