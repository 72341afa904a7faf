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
