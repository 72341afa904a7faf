//! What is wrong around a host: no Debian, faulty patch sets, missing modules, other runs at work.

use std::fs;
use std::process::Stdio;

use crate::support::{CREATE, Host, INDEX, PATCHSET, PAYLOAD, STORAGE, VZDUMP};

#[test]
fn no_proxmox_or_no_debian() {
    let host = Host::new();
    host.remove("pve-manager", &[VZDUMP, INDEX]);
    fs::remove_dir_all(host.path("var/lib/dpkg")).unwrap();
    host.run(&["status"]).code(1).says(&["var/lib/dpkg/status", "--root"]);
    let mut nowhere = std::process::Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
    nowhere.arg("status").arg("--root").arg(host.path("nowhere"));
    crate::support::Ran::of(nowhere.output().unwrap()).code(1).says(&["nowhere", "existing folder"]);
}

#[test]
fn a_file_in_the_way_of_ours_is_left_alone() {
    let host = Host::new();
    host.write(PAYLOAD, "package Something::Else;\n1;\n");
    let before = host.snapshot();
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_module_that_our_lines_break_at_run_time() {
    let host = Host::new();
    host.write_patches("demo/patchset.yaml", PATCHSET.replace("$RE = qr/$RE|vcdiff/;", "die 'at once';"));
    host.run(&["apply"]).code(11).says(&["libpve-storage-perl 9.1.0", STORAGE, "at once"]);
}

#[test]
fn modules_that_do_not_load_without_us_either_are_reported() {
    let host = Host::new();
    host.edit(CREATE, "use strict;", "use strict;\nuse PVE::NoSuchModule;");
    let test = host.run(&["test", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&test.out).unwrap();
    let check = |path: &str| {
        let modules = json["modules"].as_array().unwrap();
        modules.iter().find(|module| module["path"] == path).unwrap()["check"].clone()
    };
    assert_eq!(check(CREATE), "compiles");
    assert_eq!(check(STORAGE), "loads");
    host.run(&["apply"]).ok().says(&[CREATE, "could not be loaded", "NoSuchModule"]);

    let host = Host::new();
    host.edit(CREATE, "return 1;", "return 1 +;");
    host.run(&["apply"]).ok().says(&[CREATE, "could not be checked", "syntax error"]);
}

#[test]
fn faulty_patch_sets() {
    let host = Host::new();
    host.write_patches("demo/patchset.yaml", PATCHSET.replace("indent: anchor", "indnt: anchor"));
    host.run(&["status"]).code(1).says(&["patch set demo", "indnt"]);
    fs::remove_dir_all(host.patches().join("demo")).unwrap();
    host.run(&["status"]).code(1).says(&["no patch set there"]);
}

#[test]
fn reading_from_a_fifo_does_not_block() {
    let host = Host::new();
    fs::remove_file(host.path(STORAGE)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(host.path(STORAGE)).status().unwrap();
    assert!(made.success());
    host.run(&["status"]).code(1).says(&[STORAGE, "not a regular file"]);
}

#[test]
fn a_second_run_at_once() {
    let host = Host::new();
    let before = host.snapshot();
    // The lock is a flock on our folder: hold it as a run would.
    fs::create_dir_all(host.path("var/lib/pve-diff-backup")).unwrap();
    let mut holder = std::process::Command::new("flock")
        .arg(host.path("var/lib/pve-diff-backup"))
        .args(["sh", "-c", "echo locked; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0; 7]).unwrap();
    host.run(&["apply"]).code(12).says(&["another pve-diff-backup is at work"]);
    host.run(&["revert"]).code(12);
    // Looking is allowed.
    host.run(&["status"]).code(3);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    host.run(&["apply"]).ok();
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn many_runs_at_once() {
    let host = Host::new();
    let before = host.snapshot();
    for round in 0..4 {
        let children: Vec<_> = ["apply", "revert", "apply", "status", "revert", "apply"]
            .iter()
            .map(|command| {
                host.command(&[command]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let ran = crate::support::Ran::of(child.wait_with_output().unwrap());
            // Done, locked out, or (status) pristine; and what was planned for may have changed before the lock.
            assert!([0, 3, 4, 12].contains(&ran.code), "{ran:?}");
        }
        let status = host.run(&["status"]);
        assert!([0, 3].contains(&status.code), "round {round}: {status:?}");
    }
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let host = Host::new();
    let mut child = host.command(&["patch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = crate::support::Ran::of(child.wait_with_output().unwrap()).ok();
    assert_eq!(ran.err, "");
}
