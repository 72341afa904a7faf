//! Help, man pages and completions: all from the same definitions.

use std::fs;
use std::process::Command;

use crate::support::{Host, Ran};

fn program(arguments: &[&str]) -> Ran {
    Ran::of(Command::new(env!("CARGO_BIN_EXE_pve-diff-backup")).args(arguments).output().unwrap())
}

#[test]
fn help_teaches() {
    let help = program(&["--help"]).ok().out;
    for words in ["Examples:", "Exit codes:", "--root <DIR>", "byte for byte", "12  another pve-diff-backup"]
    {
        assert!(help.contains(words), "{words:?} is not in\n{help}");
    }
    let help = program(&["status", "--help"]).ok().out;
    assert!(help.contains("outdated") && help.contains("--json"), "{help}");
    program(&["stauts"]).code(2).says(&["status"]);
    program(&[]).code(2);
}

#[test]
fn the_other_name_speaks_of_itself() {
    use std::os::unix::process::CommandExt;
    let verify = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        Ran::of(command.arg0("/usr/bin/pve-verify-backups").args(arguments).output().unwrap())
    };
    let version = verify(&["--version"]).ok().out;
    assert_eq!(version, format!("pve-verify-backups {}\n", env!("CARGO_PKG_VERSION")));
    let help = verify(&["--help"]).ok().out;
    assert!(help.contains("Usage: pve-verify-backups [OPTIONS] [PATH]..."), "{help}");
    // Folders, units and types of notifications have the package's name.
    let named = ["/var/lib/pve-diff-backup", "pve-diff-backup-verify", "type pve-diff-backup"];
    let rest = named.into_iter().fold(help, |help, name| help.replace(name, ""));
    assert!(!rest.contains("pve-diff-backup"), "{rest}");
    verify(&["--root", "/"]).code(2).says(&["pve-verify-backups"]);
}

#[test]
fn man_pages_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    for what in ["man", "bash", "zsh", "fish"] {
        program(&["generate", what, dir.path().to_str().unwrap()]).ok();
    }
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let man = read("pve-diff-backup.1");
    for words in [".SH EXAMPLES", ".SH \"EXIT STATUS\"", "applied.patch", "pve\\-diff\\-backup\\-status(1)"] {
        let plain = words.replace('"', "");
        assert!(man.contains(words) || man.contains(&plain), "{words:?} is not in\n{man}");
    }
    let man = read("pve-verify-backups.1");
    for words in ["Decode every differential", ".SH \"EXIT STATUS\"", "pve\\-xdelta3"] {
        assert!(man.contains(words) || man.contains(&words.replace('"', "")), "{words:?} is not in\n{man}");
    }
    assert!(read("pve-diff-backup-apply.1").contains("no\\-restart"));
    assert!(!dir.path().join("pve-diff-backup-generate.1").exists());
    for name in ["pve-diff-backup.bash", "_pve-diff-backup", "pve-diff-backup.fish"] {
        assert!(read(name).contains("reinstall"), "{name}");
    }
    for entry in fs::read_dir(dir.path()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".1") else { continue };
        let page = read(&file).replace("\\-", "-").replace("\\fI", "").replace("\\fR", "");
        for itself in [format!(" {name}(1)"), format!(".BR {name} (1)")] {
            assert!(!page.contains(&itself), "{file} says to look into itself");
        }
        // What a command takes is told as its help tells it.
        let Some(command) = name.strip_prefix("pve-diff-backup-") else { continue };
        let help = program(&[command, "--help"]).ok().out;
        let below = help.lines().skip_while(|line| *line != "Arguments:").skip(1);
        for argument in below.take_while(|line| line.is_empty() || line.starts_with(' ')) {
            let Some(argument) = argument.strip_prefix("  ").filter(|text| text.starts_with(['[', '<']))
            else {
                continue;
            };
            let argument = argument.split_whitespace().next().unwrap().trim_end_matches('.');
            assert!(page.contains(argument), "{argument} is not in {file}:\n{page}");
        }
    }
    for (page, words) in [
        ("pve-xdelta3-vma-extract.1", ["ARCHIVE", "DIRECTORY", "disks", "quiet"]),
        ("pve-xdelta3-restore.1", ["FILE", "output", "force", "quiet"]),
    ] {
        let text = read(page);
        words.iter().for_each(|word| assert!(text.contains(word), "{word} is not in {page}"));
    }
    program(&["generate", "man", "/nonexistent"]).code(1).says(&["/nonexistent"]);
}

#[test]
fn what_is_recorded_is_a_patch_for_people() {
    let host = Host::new();
    let patch = host.run(&["patch"]).ok().out;
    host.run(&["apply"]).ok();
    let recorded = host.text("var/lib/pve-diff-backup/applied.patch");
    assert_eq!(recorded, patch);
    let record: serde_json::Value =
        serde_json::from_str(&host.text("var/lib/pve-diff-backup/applied.json")).unwrap();
    assert_eq!(record["packages"]["pve-manager"], "9.1.2");
    for file in record["files"].as_array().unwrap() {
        let path = file["path"].as_str().unwrap();
        assert_eq!(file["after"], pve_diff_backup::patching::sha256_hex(&host.read(path)), "{path}");
    }
}

#[test]
fn options_that_a_command_would_ignore_are_refused() {
    let heeds = |name: &str| match name {
        "status" | "patch" | "test" | "apply" | "revert" | "reinstall" | "doctor" | "new-version" => {
            (&[][..], &["--root", "--patches"][..])
        }
        "diff" => (&[][..], &["--root", "--patches", "--color"][..]),
        "hook" => (&["jobs"][..], &["--root", "--patches", "--color"][..]),
        "demo" => (&[][..], &["--patches"][..]),
        "verify" | "chains" | "consolidate" | "add-map" | "import" => (&["/"][..], &[][..]),
        "generate" => (&["man", "/nonexistent/dir"][..], &[][..]),
        "selftest" => (&["--qemu", "999999998", "--target", "999999999"][..], &[][..]),
        other => panic!("say which options {other} heeds"),
    };
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    for command in pve_diff_backup::cli::definition().get_subcommands() {
        let name = command.get_name();
        let (arguments, heeded) = heeds(name);
        for (option, value) in [("--root", empty), ("--patches", "/nonexistent/sets"), ("--color", "always")]
        {
            let mut words = vec![option, value];
            // Never the host that runs these tests.
            if option != "--root" && heeded.contains(&"--root") {
                words.extend(["--root", empty]);
            }
            words.push(name);
            words.extend(arguments);
            let ran = program(&words);
            let refused = ran.code == 2 && ran.err.contains(option);
            assert_eq!(refused, !heeded.contains(&option), "{words:?}: {ran:?}");
        }
    }
    for arguments in [
        &["--root", empty, "new-version", "--clones", "/nonexistent/clones"][..],
        &["--root", empty, "verify"],
        &["--root", empty, "chains", "/"],
        &["--root", "/nonexistent", "verify", empty],
    ] {
        program(arguments).code(2).says(&["--root"]);
    }
    program(&["apply", "--cluster", "--load-modules"]).code(2).says(&["--load-modules"]);
}
