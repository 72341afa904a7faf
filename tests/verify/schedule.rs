//! Verification that systemd starts: switched on and off by the real systemctl, on a host that is not the running one.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::dump::Verified;

const UNITS: [&str; 2] = ["pve-diff-backup-verify.service", "pve-diff-backup-verify.timer"];

#[test]
fn systemd_is_told_and_what_it_runs_is_written_down() {
    if !Command::new("systemctl").arg("--version").output().is_ok_and(|it| it.status.success()) {
        eprintln!("skipped: no program systemctl");
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let at = |path: &str| host.path().join(path);
    let run = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        Verified::new(program.arg("--root").arg(host.path()).arg("verify").args(arguments))
    };
    for folder in ["etc/pve", "etc/default", "usr/lib/systemd/system", "etc/systemd/system"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("etc/pve/storage.cfg"), "nfs: nas\n\tserver s\n\texport /e\n\npbs: server\n\tdatastore d\n")
        .unwrap();
    let options = at("etc/default/pve-diff-backup-verify");
    let link = at("etc/systemd/system/timers.target.wants/pve-diff-backup-verify.timer");
    let missing = run(&["--enable"]);
    assert_eq!(missing.code, 1, "{}", missing.errors);
    assert!(missing.errors.contains("is not installed") && !options.exists(), "{}", missing.errors);

    for unit in UNITS {
        let ours =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("debian").join(format!("pve-diff-backup.{unit}"));
        fs::copy(ours, at("usr/lib/systemd/system").join(unit)).unwrap();
    }
    for (storage, reason) in [("server", "holds no files of backups"), ("san", "no storage of that name")] {
        let refused = run(&["--enable", "--storage", storage]);
        assert_eq!(refused.code, 2, "{}", refused.errors);
        assert!(refused.errors.contains(reason) && !options.exists(), "{}", refused.errors);
    }
    let enabled =
        run(&["--enable", "--storage=nas", "--max-age=9", "--bwlimit=100", "--jobs=2", "--ionice=8"]);
    assert_eq!((enabled.code, enabled.lines.len()), (0, 1), "{}", enabled.errors);
    let text = fs::read_to_string(&options).unwrap();
    let expected = "OPTIONS=\"--all --resume --max-age=9 --bwlimit=100 --jobs=2 --ionice=8 nas\"";
    assert_eq!(text.lines().last(), Some(expected));
    assert!(link.symlink_metadata().unwrap().is_symlink());
    // Again with other options: these hold.
    assert_eq!(run(&["--enable"]).code, 0);
    let text = fs::read_to_string(&options).unwrap();
    assert_eq!(text.lines().last(), Some("OPTIONS=\"--all --resume --max-age=30\""));
    for _ in 0..2 {
        assert_eq!(run(&["--disable"]).code, 0);
        assert!(!options.exists() && link.symlink_metadata().is_err());
    }
    for wrong in
        [&["--enable", "--disable"][..], &["--disable", "--all"], &["--storage=nas"], &["--enable", "x"]]
    {
        assert_eq!(run(wrong).code, 2, "{wrong:?}");
    }
}
