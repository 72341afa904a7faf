//! What `status` and `doctor` say of a host: the same, with commands that are for this host.

use std::fs;
use std::process::Command;

use crate::support::{CREATE, HELPER, Host, PAYLOAD, Ran, STORAGE, VZDUMP, chmod};

/// Demands that both find something, and that `doctor` says the words.
#[track_caller]
fn amiss(host: &Host, words: &[&str]) {
    let status = host.run(&["status"]).code(21);
    assert!(
        status.out.contains("\nATTENTION: one thing is not as it should be; `pve-diff-backup --root "),
        "{status:?}"
    );
    let doctor = host.run(&["doctor"]).code(1);
    for word in words {
        assert!(doctor.out.contains(word), "no {word:?} in {doctor:?}");
    }
    let json: serde_json::Value = serde_json::from_str(&host.run(&["status", "--json"]).out).unwrap();
    assert_eq!((&json["exit"], json["attention"].as_array().map(Vec::len)), (&21.into(), Some(1)));
}

#[track_caller]
fn well(host: &Host) {
    let status = host.run(&["status"]).ok();
    assert!(!status.out.contains("ATTENTION"), "{status:?}");
    let doctor = host.run(&["doctor"]).ok();
    assert!(doctor.out.contains("Nothing is to be done."), "{doctor:?}");
}

#[test]
fn programs_that_are_missing_or_of_another_version() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    well(&host);
    chmod(&host.path(HELPER), 0o644);
    amiss(&host, &["/usr/bin/pve-xdelta3 is not executable", "no differential backup can be made"]);
    fs::remove_file(host.path(HELPER)).unwrap();
    amiss(&host, &["/usr/bin/pve-xdelta3 is missing", "apt install --reinstall pve-xdelta3"]);
    host.write(HELPER, "");
    chmod(&host.path(HELPER), 0o755);
    well(&host);
    host.install("pve-diff-backup", "0.2", &[]);
    amiss(&host, &["/usr/bin/pve-verify-backups is missing"]);
    std::os::unix::fs::symlink("pve-xdelta3", host.path("usr/bin/pve-verify-backups")).unwrap();
    well(&host);
    host.install("pve-xdelta3", "1:0.2", &[]);
    well(&host);
    host.install("pve-xdelta3", "1:0.1", &[]);
    amiss(&host, &["pve-xdelta3 0.1 and pve-diff-backup 0.2 belong to different versions"]);
    // A host without our lines needs none of it.
    host.run(&["revert"]).ok();
    let status = host.run(&["status"]).code(3);
    assert!(!status.out.contains("ATTENTION"), "{status:?}");
}

#[test]
fn jobs_that_fail() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let tasks = host.path("var/log/pve/tasks");
    let task = |age: u64, job: &str, status: &str| {
        let start = format!("{:08X}", now - age);
        let upid = format!("UPID:pve:00000001:00000002:{start}:vzdump:101:root@pam:");
        let folder = tasks.join(&start[7..]);
        fs::create_dir_all(&folder).unwrap();
        let log =
            format!("INFO: starting new backup job: {job}\nERROR: Backup of VM 101 failed - exit code 28\n");
        fs::write(folder.join(&upid), log).unwrap();
        let index = fs::read_to_string(tasks.join("index")).unwrap_or_default();
        fs::write(tasks.join("index"), format!("{index}{upid} {start} {status}\n")).unwrap();
    };
    task(40 * 86_400, "vzdump 9 --fullbackup 7", "job errors");
    task(3000, "vzdump 101 --storage nas --fullbackup 7", "OK");
    task(2900, "vzdump 102 --storage nas", "job errors");
    well(&host);
    task(2000, "vzdump 101 --storage nas --fullbackup 7", "job errors");
    amiss(
        &host,
        &[
            "The last run of `vzdump 101 --storage nas --fullbackup 7` failed on ",
            "(job errors)",
            "ERROR: Backup of VM 101 failed - exit code 28",
            "/var/log/pve/tasks/",
        ],
    );
    task(1000, "vzdump 101 --storage nas --fullbackup 7", "WARNINGS: 1");
    well(&host);
    // Where the option is the default of all jobs, all jobs count.
    host.write("etc/vzdump.conf", "fullbackup: 7\n");
    let doctor = host.run(&["doctor"]).code(1);
    assert!(doctor.out.contains("`vzdump 102 --storage nas` failed"), "{doctor:?}");
}

/// No message tells people to run us on another host than the one it is about.
#[test]
fn every_command_that_is_advised_names_the_root() {
    type Spoil = fn(&Host);
    let spoil: [Spoil; 9] = [
        |_| {},
        |host| drop(host.run(&["apply"]).ok()),
        |host| host.edit(CREATE, "sub restore {", "sub restored {"),
        |host| host.edit(CREATE, "sub restore {", "sub restore {\n}\nsub restore {"),
        |host| fs::remove_file(host.path(VZDUMP)).unwrap(),
        |host| host.write(PAYLOAD, "# mine\n"),
        |host| host.write("var/lib/pve-diff-backup/pending", "no room\n"),
        |host| host.write("var/lib/pve-diff-backup/journal.json", "{"),
        |host| {
            host.run(&["apply"]).ok();
            host.edit(STORAGE, "our $RE", "our $OTHER");
        },
    ];
    for (case, spoil) in spoil.iter().enumerate() {
        let host = Host::named("a root's $HOME");
        spoil(&host);
        let root = fs::canonicalize(host.root()).unwrap();
        let quoted = format!("'{}'", root.to_str().unwrap().replace('\'', "'\\''"));
        for command in ["status", "doctor", "test", "apply", "diff", "reinstall", "hook triggered"] {
            let words: Vec<&str> = command.split(' ').collect();
            let ran = host.run(&words);
            let said = format!("{}{}", ran.out, ran.err);
            for (at, _) in said.match_indices("pve-diff-backup ") {
                let rest = &said[at + "pve-diff-backup ".len()..];
                let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap();
                let ours = ["apply", "revert", "reinstall", "status", "doctor", "diff", "test"];
                assert!(!ours.contains(&word), "case {case}, {command}: no root in {said}");
                if let Some(rest) = rest.strip_prefix("--root ") {
                    assert!(rest.starts_with(&quoted), "case {case}, {command}: {said}");
                }
            }
            for other in ["`mv /", "apt-get --", "apt install"] {
                let bare = said
                    .match_indices(other)
                    .any(|(at, _)| !said[..at].ends_with(&format!("chroot {quoted} ")));
                assert!(!bare, "case {case}, {command}: {said}");
            }
        }
    }
}

#[test]
fn status_and_doctor_agree() {
    // Outside Proxmox VE: nothing is promised of a newer version, nor of backups.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
    fs::write(dir.path().join("var/lib/dpkg/status"), "").unwrap();
    let run = |command: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        Ran::of(program.arg("--root").arg(dir.path()).arg(command).output().unwrap())
    };
    for ran in [run("status").code(6), run("doctor").code(1)] {
        assert!(
            ran.out.contains("nothing is there to be patched") && ran.out.contains("no Proxmox VE host"),
            "{ran:?}"
        );
        assert!(!ran.out.contains("newer") && !ran.out.contains("full ones"), "{ran:?}");
    }
    // With a file that somebody edited: both say so, and neither that another version would help.
    let host = Host::new();
    host.run(&["apply"]).ok();
    host.edit(CREATE, "return 1;", "return 2;");
    well(&host);
    host.edit(CREATE, "sub restore {", "sub restored {");
    for ran in [host.run(&["status"]).code(18), host.run(&["doctor"]).code(1)] {
        for words in
            ["cannot be patched anew", "Somebody edited this file", "only work together", "^sub restore {"]
        {
            assert!(ran.out.contains(words), "no {words:?} in {ran:?}");
        }
        assert!(!ran.out.contains("newer") && !ran.out.contains("full ones"), "{ran:?}");
    }
    // With what an older version left.
    let host = Host::new();
    host.run(&["apply"]).ok();
    host.write_patches(
        "demo/patchset.yaml",
        crate::support::PATCHSET.replace("Ours/Differential", "Differential"),
    );
    for ran in [host.run(&["status"]).code(4), host.run(&["doctor"]).code(1)] {
        assert!(ran.out.contains("partly patched, or by an older version"), "{ran:?}");
    }
}

#[test]
fn a_bad_line_of_the_settings_is_named() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    host.write("etc/pve-diff-backup.conf", "base-without-map: use\nlargest-differential: 30\n");
    amiss(&host, &["/etc/pve-diff-backup.conf, line 2: not understood"]);
    host.write("etc/pve-diff-backup.conf", "largest-differential: 30%\n");
    well(&host);
}

#[test]
fn doctor_tells_how_the_last_backups_went() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let task = |age: u64, log: &str| {
        let start = format!("{:08X}", now - age);
        let upid = format!("UPID:pve:00000001:00000002:{start}:vzdump::root@pam:");
        let folder = format!("var/log/pve/tasks/{}", &start[7..]);
        let head = "INFO: starting new backup job: vzdump 100 101 --storage nas --fullbackup 7 --mailto joe@example.com\n";
        host.write(&format!("{folder}/{upid}"), format!("{head}{log}"));
        let index = "var/log/pve/tasks/index";
        let before = fs::read_to_string(host.path(index)).unwrap_or_default();
        host.write(index, format!("{before}{upid} {start} job errors\n"));
    };
    let of = |guest: &str, lines: &str| {
        format!(
            "INFO: Starting Backup of VM {guest}\nINFO: Backup started at 2026-11-20 01:00:02\nINFO: VM Name: secret-name\n{lines}"
        )
    };
    let full = "INFO: full backup: 'x' has no map (it was made by something else)\nINFO: full backup: 3.0 GiB read, at 90.0 MiB/s\nINFO: full backup: 1.5 GiB stored, ratio 2.0\nINFO: Finished Backup of VM 100 (00:00:41)\n";
    let differential = "INFO: differential backup: 'x' is 24.0 hours old\nINFO: differential backup: 4.2 GiB read, 4.1 GiB unchanged, 133.0 MiB changed (3.1%), at 110.0 MiB/s\nINFO: differential backup: 52.1 MiB stored, 2.4% of its full backup, ratio 82.5\nINFO: Finished Backup of VM 100 (00:00:40)\n";
    task(80_000, &of("100 (lxc)", differential));
    task(
        7000,
        &(of("100 (lxc)", full)
            + &of("101 (qemu)", "ERROR: Backup of VM 101 failed - no \x1b[31mspace left\n")),
    );
    let doctor = host.run(&["doctor"]).code(1);
    let line = |guest: &str| doctor.out.lines().find(|it| it.starts_with(guest)).unwrap().to_owned();
    let words: Vec<_> = line("lxc/100").split_whitespace().map(str::to_owned).collect();
    assert_eq!(words[..10].join(" "), "lxc/100 2026-11-20 01:00:02 full 1.5 GiB - - 90.0 MiB/s");
    assert!(line("lxc/100").ends_with(" 'x' has no map (it was made by something else)"), "{doctor:?}");
    assert!(line("qemu/101").contains("FAILED") && line("qemu/101").ends_with(r"no \x1b[31mspace left"));
    assert!(
        doctor.out.contains("* Guest lxc/100: the last backup is a full one: 'x' has no map"),
        "{doctor:?}"
    );
    assert!(doctor.out.contains("base-without-map: use"), "{doctor:?}");
    assert!(doctor.out.contains("* Guest qemu/101: the last backup failed: no "), "{doctor:?}");
    assert!(!doctor.out.contains("secret-name") && !doctor.out.contains("joe@"), "{doctor:?}");
    let json: serde_json::Value = serde_json::from_str(&host.run(&["doctor", "--json"]).code(1).out).unwrap();
    let runs = &json["guests"][0]["runs"];
    assert_eq!((&runs[0]["made"], &runs[1]["made"]), (&"full".into(), &"differential".into()));
    assert_eq!((&runs[1]["share"], &runs[1]["changed"]), (&"2.4%".into(), &"3.1%".into()));
    assert_eq!(
        (&json["guests"][1]["guest"], json["storages"].as_array().map(Vec::len)),
        (&"qemu/101".into(), Some(0))
    );
    assert!(
        json["to_do"][0]
            .as_str()
            .unwrap()
            .contains("The last run of `vzdump 100 101 --storage nas --fullbackup 7` failed")
    );
    // A killed backup has no end in its log, and is no good one; its long log is told of.
    task(6000, &of("102 (qemu)", "INFO: full backup: 'x' is 7 days old\n"));
    let doctor = host.run(&["doctor"]).code(1);
    let killed = "* Guest qemu/102: the last backup failed: the log ends before the backup did (job errors)";
    assert!(doctor.out.contains(killed), "{doctor:?}");
    assert!(!doctor.out.contains("too long to be read whole"), "{doctor:?}");
    task(5000, &of("103 (qemu)", &"INFO: progress\n".repeat(300_000)));
    let doctor = host.run(&["doctor"]).code(1);
    assert!(doctor.out.contains("is too long to be read whole: what became of backups behind"), "{doctor:?}");
    assert!(!doctor.out.contains("Guest qemu/103"), "{doctor:?}");
    // Logs of any size and content are read to a bound, and harm nothing.
    host.write(
        "var/log/pve/tasks/index",
        "UPID:::::vzdump:: x\n\n\0\nUPID:pve:1:2:FFFFFFFF:vzdump::root@pam: FFFFFFFF OK\n",
    );
    host.run(&["doctor"]).ok();
}
