//! The option in the settings of backup jobs, through the commands; `src/jobs/tests.rs` has the rules' tables.

use std::fs;
use std::process::Command;

use crate::support::{Host, STORAGE, VZDUMP};

const JOBS: &str = "etc/pve/jobs.cfg";
const CRON: &str = "etc/pve/vzdump.cron";
const MEMORY: &str = "etc/pve/pve-diff-backup.json";

const JOBS_CFG: &str = "vzdump: nightly\n\tschedule 02:00\n\tfullbackup 7\n\tstorage nas\n\n";
const LINE: &str = "0 2 * * *           root vzdump 100 --quiet 1 --fullbackup 7 --storage nas\n";

/// A host with a cluster file system, and a patch set whose VZDump.pm defines the option.
fn host() -> Host {
    let host = Host::new();
    let set = host.patches().join("demo/patchset.yaml");
    let text = fs::read_to_string(&set).unwrap();
    let option = "  - id: option\n    package: pve-manager\n    file: usr/share/perl5/PVE/VZDump.pm\n    \
                  anchor: '^use PVE::Storage;'\n    insert: |\n      our %confdesc = (\n          fullbackup => {},\n      );\n";
    fs::write(set, text + option).unwrap();
    host.write("etc/pve/.members", "{\"nodename\": \"pve1\", \"version\": 0}");
    fs::create_dir_all(host.path("etc/pve/priv/lock")).unwrap();
    host.write(JOBS, JOBS_CFG);
    host.write(CRON, LINE);
    host
}

/// Makes another node of the cluster known, patched or not.
fn other_node(host: &Host, patched: bool) {
    host.write("etc/pve/.members", "{\"nodename\": \"pve1\", \"nodelist\": {\"pve1\": {}, \"pve2\": {}}}");
    let mut memory: serde_json::Value = match fs::read(host.path(MEMORY)) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => serde_json::json!({"format": 1, "nodes": {}}),
    };
    memory["nodes"]["pve2"] = serde_json::json!({"patched": patched, "since": 1, "program": "0.1.0"});
    host.write(MEMORY, memory.to_string());
}

/// The host's files as a new release brings them.
fn unpatched(host: &Host) {
    let text = host.text(VZDUMP);
    let lines = text.split_inclusive('\n').filter(|line| !line.contains("pve-diff-backup:"));
    host.write(VZDUMP, lines.collect::<String>());
}

#[test]
fn revert_takes_it_out_and_apply_brings_it_back() {
    let host = host();
    host.run(&["apply"]).ok();
    assert_eq!((host.text(JOBS), host.text(CRON)), (JOBS_CFG.to_owned(), LINE.to_owned()));
    let ran = host.run(&["revert"]).ok();
    assert!(ran.out.contains("job nightly: Full Backup Every 7 taken out"), "{ran:?}");
    assert!(
        ran.out.contains("--fullbackup 7 taken out of `0 2 * * *           root vzdump 100 --quiet 1"),
        "{ran:?}"
    );
    assert_eq!(host.text(JOBS), JOBS_CFG.replace("\tfullbackup 7\n", ""));
    assert_eq!(host.text(CRON), LINE.replace(" --fullbackup 7", ""));
    let ran = host.run(&["apply"]).ok();
    assert!(ran.out.contains("job nightly: its Full Backup Every 7 is back"), "{ran:?}");
    assert!(host.text(JOBS).contains("\tstorage nas\n\tfullbackup 7\n"));
    assert_eq!(
        host.text(CRON),
        LINE.replace(" --fullbackup 7", "").replace("vzdump", "vzdump --fullbackup 7")
    );
    // Nothing is left of locks and temporary files.
    let left: Vec<String> = fs::read_dir(host.path("etc/pve"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left.len(), 5, "{left:?}");
    assert_eq!(fs::read_dir(host.path("etc/pve/priv/lock")).unwrap().count(), 0);
}

#[test]
fn a_cluster_keeps_what_its_other_nodes_use() {
    let host = host();
    other_node(&host, true);
    host.run(&["apply"]).ok();
    assert_eq!(host.text(CRON), LINE);
    host.run(&["revert"]).ok();
    assert_eq!(host.text(JOBS), JOBS_CFG, "pve2 still knows it");
    assert_eq!(host.text(CRON), LINE.replace(" --fullbackup 7", ""), "pve1 would refuse it");
    other_node(&host, false);
    let ran = host.run(&["apply"]).ok();
    assert!(!host.text(CRON).contains("fullbackup"), "pve2 would refuse it: {ran:?}");
    let doctor = host.run(&["doctor"]).code(1);
    for words in
        ["nightly                               7          7", "pve2 without our lines", "until all nodes"]
    {
        assert!(doctor.out.contains(words), "{words}: {doctor:?}");
    }
}

#[test]
fn a_trigger_that_fails_leaves_no_job_that_would() {
    let host = host();
    host.run(&["apply"]).ok();
    unpatched(&host);
    host.edit(VZDUMP, "sub exec_backup_task {", "sub other {");
    let ran = host.run(&["hook", "triggered"]).ok();
    assert!(ran.out.contains("--fullbackup 7 taken out"), "{ran:?}");
    assert_eq!(host.text(JOBS), JOBS_CFG, "only a warning there");
    let doctor = host.run(&["doctor"]).code(1);
    assert!(doctor.out.contains("The last installation or upgrade could not patch this host"), "{doctor:?}");
    host.edit(VZDUMP, "sub other {", "sub exec_backup_task {");
    host.run(&["hook", "triggered"]).ok();
    assert!(host.text(CRON).contains("vzdump --fullbackup 7 100"));
    let doctor = host.run(&["doctor"]).ok();
    assert!(doctor.out.contains("Nothing is to be done."), "{doctor:?}");
}

#[test]
fn a_removal_that_was_cut_short_is_made_good() {
    let host = host();
    host.run(&["apply"]).ok();
    // As an older version, or somebody's hands, would leave it: no line of ours, no record, the option still there.
    host.run(&["revert"]).ok();
    host.write(JOBS, JOBS_CFG);
    host.write(CRON, LINE);
    host.run(&["hook", "remove"]).ok();
    assert!(!host.text(JOBS).contains("fullbackup"));
    assert!(!host.text(CRON).contains("fullbackup"));
}

#[test]
fn a_revert_that_fails_gives_it_back() {
    let host = host();
    host.run(&["apply"]).ok();
    let chattr = |flag: &str| {
        let done = Command::new("chattr").arg(flag).arg(host.path(STORAGE)).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !chattr("+i") {
        println!("skipped: no immutable files here");
        return;
    }
    let ran = host.run(&["revert"]);
    assert!(chattr("-i"));
    ran.code(13).says(&["Storage.pm"]);
    assert!(host.text(JOBS).contains("\tfullbackup 7\n"));
    assert!(host.text(CRON).contains("vzdump --fullbackup 7 100"));
}

#[test]
fn without_a_cluster_file_system_nothing_is_written() {
    let host = host();
    fs::remove_file(host.path("etc/pve/.members")).unwrap();
    for command in ["apply", "status", "revert"] {
        host.run(&[command]).ok();
    }
    assert_eq!(host.text(JOBS), JOBS_CFG);
    assert_eq!(host.text(CRON), LINE);
    assert!(!host.path(MEMORY).exists());
    fs::remove_dir_all(host.path("etc/pve")).unwrap();
    host.run(&["apply"]).ok();
    host.run(&["doctor"]).ok();
    assert!(!host.path("etc/pve").exists(), "a folder that is not empty would keep pmxcfs from its start");
}

#[test]
fn what_cannot_be_done_is_said_and_does_not_fail() {
    let host = host();
    host.run(&["apply"]).ok();
    // As without quorum, and for root too: nothing can be made there.
    fs::remove_dir_all(host.path("etc/pve/priv")).unwrap();
    host.write("etc/pve/priv", "");
    host.write(JOBS, "vzdump: nightly\n");
    host.run(&["apply"]).ok().says(&["the settings of backup jobs could not be looked after", "priv/lock"]);
    assert_eq!(host.text(JOBS), "vzdump: nightly\n");
    let status = host.run(&["status"]).code(21);
    assert!(
        status.out.contains("nightly                      full backup every 7 days, dropped"),
        "{status:?}"
    );
    host.write(MEMORY, "{\"format\": 2}");
    host.run(&["apply"]).ok().says(&["form 2 is unknown to this version"]);
}

#[test]
fn the_hosts_own_files_are_named_and_left() {
    let host = host();
    host.write("etc/vzdump.conf", "# fullbackup: 1\nfullbackup: 7\n");
    host.write(
        "etc/cron.d/backup",
        "# mine\n5 5 * * 0 root /usr/bin/vzdump 101 --fullbackup 30 >/dev/null\n",
    );
    std::os::unix::fs::symlink("/etc/pve/vzdump.cron", host.path("etc/cron.d/vzdump")).unwrap();
    host.run(&["apply"]).ok();
    let ran = host.run(&["revert"]).ok();
    for words in ["/etc/vzdump.conf: the default `fullbackup` stays", "/etc/cron.d/backup:2: calls vzdump"] {
        assert!(ran.out.contains(words), "{words}: {ran:?}");
    }
    assert!(!ran.out.contains("/etc/cron.d/vzdump"), "{ran:?}");
    assert!(host.text("etc/vzdump.conf").contains("\nfullbackup: 7"));
    assert!(host.text("etc/cron.d/backup").contains("--fullbackup 30"));
    assert!(fs::symlink_metadata(host.path("etc/cron.d/vzdump")).unwrap().is_symlink());
    assert!(!host.text(CRON).contains("fullbackup"));
}
