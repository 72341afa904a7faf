//! `pve-diff-backup selftest` where it must not start. What it does on a Proxmox VE host needs one.

use std::process::{Command, Output};

fn selftest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pve-diff-backup")).arg("selftest").args(args).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn usage_mistakes_end_before_anything_runs() {
    for (args, message) in [
        (&["--qemu", "100"][..], "--target"),
        (&["--target", "110"], "--qemu"),
        (&["--qemu", "100", "--lxc", "101", "--target", "110"], "cannot be used with"),
        (&["--qemu", "99", "--target", "110"], "99 is not in 100..=999999999"),
        (&["--qemu", "100", "--target", "110", "--compress", "xz"], "zstd, lzo, gzip, none"),
    ] {
        let output = selftest(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(errors(&output).contains(message), "{args:?}: {}", errors(&output));
    }
}

#[test]
fn a_guest_that_is_not_here_is_refused() {
    // no Proxmox VE host has a guest of this number, and most machines are none
    let output = selftest(&["--qemu", "999999999", "--target", "999999998", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    let text = errors(&output);
    assert!(text.contains("there is no VM 999999999 on this node") || text.contains("run as root"), "{text}");
}

#[test]
fn a_dry_run_shows_every_command_and_runs_none() {
    let output = selftest(&[
        "--lxc",
        "100",
        "--target",
        "110",
        "--compress",
        "zstd,none",
        "--dry-run",
        "--dir",
        "/srv",
    ]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    // backup, restore, destroy; full and differential; two compressions
    assert_eq!(lines.len(), 12, "{text}");
    let dir = "/srv/pve-diff-backup-selftest/zstd";
    assert!(
        lines[0].starts_with(&format!(
            "vzdump 100 --mode snapshot --dumpdir {dir} --compress zstd --fullbackup 7"
        ))
    );
    assert_eq!(lines[4], format!("pct restore 110 {dir}/vzdump-lxc-100-*--differential-* --unique 1"));
    assert!(lines[6].contains("--compress 0 "));
}

#[test]
fn a_trial_of_changed_blocks_needs_its_storage_and_shows_its_commands() {
    let output = selftest(&["--qemu", "100", "--target", "110", "--changed-blocks"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("--backups"), "{}", errors(&output));
    let output = selftest(&["--lxc", "100", "--target", "110", "--changed-blocks", "--backups", "nas"]);
    assert_eq!(output.status.code(), Some(2), "containers have no QEMU");
    let words = "--qemu 100 --target 110 --changed-blocks --backups nas --fleecing local --dry-run";
    let output = selftest(&words.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", errors(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "qm suspend 100");
    assert!(
        lines[1].starts_with("vzdump 100 --mode snapshot --storage nas --compress zstd --fullbackup 30"),
        "{text}"
    );
    assert_eq!(lines[2], "qmrestore nas:backup/vzdump-qemu-100-* 110 --unique 1");
    assert_eq!(lines[4], "qm resume 100");
}
