//! Hosts that must not be patched: a clear error with a code of its own, and everything as it was.

use std::fs;
use std::process::Stdio;

use crate::support::{CREATE, Host, INDEX, PATCHSET, PAYLOAD, STORAGE, VZDUMP};

/// `test` and `apply` must end with `code` and say `words`; `status` must end with the same code; nothing may change.
#[track_caller]
fn refused(host: &Host, code: i32, words: &[&str]) {
    let before = host.snapshot();
    host.run(&["test"]).code(code).says(words);
    let json = host.run(&["test", "--json"]).code(code);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["exit"], code);
    host.run(&["apply"]).code(code).says(words);
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_missing_file() {
    let host = Host::new();
    fs::remove_file(host.path(STORAGE)).unwrap();
    refused(&host, 7, &["libpve-storage-perl 9.1.0", STORAGE, "missing", "reinstall"]);
    host.run(&["status"]).code(7);
}

#[test]
fn a_missing_anchor() {
    let host = Host::new();
    host.edit(VZDUMP, "$task->{vmtype} = 'x';", "$task->{kind} = 'x';");
    refused(
        &host,
        8,
        &["pve-manager 9.1.2", VZDUMP, "hunk choose", "sub exec_backup_task {", "$task->{vmtype} = ..."],
    );
    host.run(&["status"]).code(8);
}

#[test]
fn an_anchor_outside_its_block() {
    let host = Host::new();
    host.edit(STORAGE, "    my ($archive) = @_;\n    return {", "    return {");
    refused(&host, 8, &["hunk archive-info", "sub archive_info {"]);
}

#[test]
fn a_missing_or_unfinished_block() {
    let host = Host::new();
    host.edit(VZDUMP, "sub exec_backup_task", "sub backup_task");
    refused(&host, 8, &["hunk choose", "looked for the line `sub exec_backup_task {` and found none"]);
    let host = Host::new();
    host.edit(VZDUMP, "    return 1;\n}\n", "");
    refused(&host, 8, &["the block that begins in line 6 does not end"]);
}

#[test]
fn an_anchor_that_occurs_twice() {
    let host = Host::new();
    host.edit(CREATE, "1;\n}\n1;\n", "1;\n}\n\nsub restore {\n}\n1;\n");
    refused(&host, 9, &["pve-container 6.0.1", CREATE, "found 2: lines 4, 8"]);
    host.run(&["status"]).code(9);
}

#[test]
fn all_reasons_are_given_at_once() {
    let host = Host::new();
    fs::remove_file(host.path(INDEX)).unwrap();
    host.edit(CREATE, "sub restore {", "sub restored {");
    refused(&host, 8, &[INDEX, CREATE]);
}

#[test]
fn no_set_for_these_files() {
    let host = Host::new();
    host.edit(STORAGE, "our $RE", "our $OTHER");
    refused(&host, 5, &["demo", "does not hold the line `^our $RE = ...`"]);
    host.run(&["status"]).code(5);
}

#[test]
fn two_sets_for_the_same_files() {
    let host = Host::new();
    host.write_patches("other/patchset.yaml", PATCHSET.replace("name: demo", "name: other"));
    refused(&host, 5, &["demo, other"]);
}

#[test]
fn no_proxmox_or_no_debian() {
    let host = Host::new();
    host.remove("pve-manager", &[VZDUMP, INDEX]);
    refused(&host, 6, &["package pve-manager is not installed"]);
    fs::remove_dir_all(host.path("var/lib/dpkg")).unwrap();
    host.run(&["status"]).code(1).says(&["var/lib/dpkg/status", "--root"]);
    let mut nowhere = std::process::Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
    nowhere.arg("status").arg("--root").arg(host.path("nowhere"));
    crate::support::Ran::of(nowhere.output().unwrap()).code(1).says(&["nowhere", "existing folder"]);
}

#[test]
fn a_file_in_the_way_of_ours() {
    let host = Host::new();
    host.write(PAYLOAD, "package Something::Else;\n1;\n");
    refused(&host, 10, &[PAYLOAD, "not ours"]);
    let before = host.snapshot();
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_module_that_our_lines_break() {
    let host = Host::new();
    host.write_patches("demo/patchset.yaml", PATCHSET.replace("my $ours = 1;", "my $ours = ;"));
    refused(&host, 11, &[CREATE, "syntax error"]);
    // Also where it cannot be loaded for lack of another module.
    host.edit(CREATE, "use strict;", "use strict;\nuse PVE::NoSuchModule;");
    refused(&host, 11, &[CREATE, "syntax error"]);
    // And where it fails at run time only.
    host.write_patches("demo/patchset.yaml", PATCHSET.replace("$RE = qr/$RE|vcdiff/;", "die 'at once';"));
    refused(&host, 11, &[STORAGE, "at once"]);
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
