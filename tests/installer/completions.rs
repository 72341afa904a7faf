//! Completions, as a person gets them: a shell on a terminal, some letters, the Tab key.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const INSTALLER: &str = env!("CARGO_BIN_EXE_pve-diff-backup");
const XDELTA3: &str = env!("CARGO_BIN_EXE_pve-xdelta3");

/// A shell that has not answered by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// What help says below a heading such as `Commands:`, the first word of each line.
fn listed(words: &[&str], heading: &str) -> Vec<String> {
    let output = Command::new(words[0]).args(&words[1..]).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let below = help.lines().skip_while(|line| *line != heading).skip(1);
    let below = below.take_while(|line| line.is_empty() || line.starts_with(' '));
    // What is indented further goes on with a description.
    let begins = |line: &&str| line.len() - line.trim_start().len() <= 6;
    let firsts =
        below.filter(begins).filter_map(|line| line.split_whitespace().find(|word| !word.ends_with(',')));
    firsts.map(str::to_owned).collect()
}

/// Every command line that completes to exactly one: what is typed, and what it becomes.
fn cases() -> Vec<(String, String)> {
    let mut cases = Vec::new();
    let mut commands: Vec<Vec<String>> = vec![vec![INSTALLER.into()], vec![XDELTA3.into()]];
    while let Some(words) = commands.pop() {
        let plain: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = Path::new(plain[0]).file_name().unwrap().to_str().unwrap();
        let line = [&[name], &plain[1..]].concat().join(" ");
        let options: BTreeSet<String> =
            listed(&plain, "Options:").into_iter().filter(|word| word.starts_with("--")).collect();
        for option in &options {
            let begin = &option[..option.len() - 1];
            if options.iter().filter(|other| other.starts_with(begin)).count() == 1 {
                cases.push((format!("{line} {begin}"), format!("{line} {option}")));
            }
        }
        let below: Vec<String> =
            listed(&plain, "Commands:").into_iter().filter(|word| word != "help").collect();
        for command in &below {
            let begin = &command[..command.len() - 1];
            if below.iter().filter(|other| other.starts_with(begin)).count() == 1 {
                cases.push((format!("{line} {begin}"), format!("{line} {command}")));
            }
            commands.push([&words[..], std::slice::from_ref(command)].concat());
        }
    }
    cases.push(("pve-verify-backups --al".into(), "pve-verify-backups --all".into()));
    cases.push(("pve-xdelta3 full --compress gz".into(), "pve-xdelta3 full --compress gzip".into()));
    cases.push(("pve-xdelta3 vma list some-fi".into(), "pve-xdelta3 vma list some-file".into()));
    cases
}

/// Types each line, Tab and Enter into the shell; the programs only note how they were called.
fn completed(shell: &[&str], kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("bin")).unwrap();
    for name in ["pve-diff-backup", "pve-xdelta3", "pve-verify-backups"] {
        let program = at("bin").join(name);
        fs::write(&program, "#!/bin/sh\necho \"${0##*/} $*\" >>\"$HOME/called\"\n").unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(at("some-file"), "").unwrap();
    fs::create_dir(at("completions")).unwrap();
    let written = Command::new(INSTALLER).args(["generate", kind]).arg(at("completions")).status().unwrap();
    assert!(written.success());
    fs::write(at("bashrc"), "PS1='$ '\nfor file in ~/completions/*; do . \"$file\"; done\n").unwrap();
    fs::write(at(".zshrc"), "PS1='$ '\nfpath=(~/completions $fpath)\nautoload -U compinit\ncompinit -u\n")
        .unwrap();

    let cases = cases();
    assert!(cases.len() > 60, "{}", cases.len());
    let mut script = Command::new("script")
        .args(["--quiet", "--command", &shell.join(" "), "/dev/null"])
        .current_dir(dir.path())
        .env("HOME", dir.path())
        .env("ZDOTDIR", dir.path())
        .env_remove("XDG_CONFIG_HOME")
        .env("PATH", format!("{}:/usr/bin:/bin", at("bin").display()))
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        // No pipe: nobody reads it before the end, and a shell that paints its line fills one.
        .stdout(fs::File::create(at("output")).unwrap())
        .spawn()
        .unwrap();
    let mut keys = script.stdin.take().unwrap();
    let called = || fs::read_to_string(at("called")).unwrap_or_default();
    for ((typed, _), done) in cases.iter().zip(1..) {
        keys.write_all(format!("{typed}\t\n").as_bytes()).unwrap();
        // As a person would, it waits for the shell, unless that is gone.
        let begin = Instant::now();
        while called().lines().count() < done && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        if begin.elapsed() >= PATIENCE {
            break;
        }
    }
    keys.write_all(b"exit\n").unwrap();
    drop(keys);
    script.wait().unwrap();
    let output = fs::read(at("output")).unwrap();
    let called = called();
    let called: Vec<&str> = called.lines().map(str::trim_end).collect();
    let expected: Vec<&str> = cases.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(called, expected, "{kind}:\n{}", String::from_utf8_lossy(&output));
}

#[test]
fn bash_completes_every_option_of_every_command() {
    completed(&["bash", "--noprofile", "--rcfile", "~/bashrc", "-i"], "bash");
}

#[test]
fn zsh_completes_every_option_of_every_command() {
    completed(&["zsh", "-i"], "zsh");
}

#[test]
fn fish_completes_every_option_of_every_command() {
    completed(&["fish", "-i", "-C", "'set -g fish_complete_path ~/completions'"], "fish");
}
