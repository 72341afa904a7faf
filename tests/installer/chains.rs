//! `chains` on folders of names and sizes: nothing of a backup is read.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Host, Ran, has};

const FULL: &str = "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst";

fn differential(full: &str, day: u32) -> String {
    format!("{full}--differential-2026_11_{day:02}-01_00_02.vcdiff.zst")
}

struct Dump(TempDir);

impl Dump {
    fn new(files: &[(&str, u64)]) -> Self {
        let dump = Dump(tempfile::tempdir().unwrap());
        for (name, size) in files {
            dump.sized(name, *size);
        }
        dump
    }

    /// A full of 2500 MiB with three differentials, and another guest's full.
    fn example() -> Self {
        let dump = Dump::new(&[(FULL, 2500 << 20), ("vzdump-lxc-100-2026_11_21-01_00_00.tar.gz", 10 << 20)]);
        for (day, size) in [(21, 200), (22, 10), (23, 1250)] {
            dump.sized(&differential(FULL, day), size << 20);
        }
        dump
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn sized(&self, name: &str, size: u64) {
        File::create(self.at(name)).unwrap().set_len(size).unwrap();
    }

    fn chains(&self, options: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        Ran::of(command.arg("chains").args(options).arg(self.0.path()).output().unwrap())
    }
}

/// What is printed, without the first line, which names the folder.
fn below_first(ran: &Ran) -> &str {
    ran.out.split_once('\n').unwrap().1
}

#[test]
fn people_see_what_depends_on_what() {
    let dump = Dump::example();
    fs::write(dump.at(&format!("{FULL}.notes")), "before \x1b[2J<b>\nmore").unwrap();
    fs::write(dump.at(&format!("{FULL}.protected")), "").unwrap();
    let expected = "                  date                       size  of full     saves  verified

lxc/100: 1 full, 0 differentials, 10.00 MiB stored
  full            2026-11-21 01:00:00   10.00 MiB

qemu/101: 1 full, 3 differentials, 3.87 GiB stored, about 5.90 GiB saved
  full            2026-11-20 01:00:02    2.44 GiB                               protected  \"before \\x1b[2J\\x3cb\\x3e\"
    differential  2026-11-21 01:00:02  200.00 MiB    8.0 %  2.25 GiB
    differential  2026-11-22 01:00:02   10.00 MiB    0.4 %  2.43 GiB
    differential  2026-11-23 01:00:02    1.22 GiB     50 %  1.22 GiB
";
    assert_eq!(below_first(&dump.chains(&[]).ok()), expected);
    let json: Value = serde_json::from_str(&dump.chains(&["--json"]).ok().out).unwrap();
    let guest = &json[0]["guests"][1];
    assert_eq!((&guest["guest"], &guest["saved"]), (&json!("qemu/101"), &json!(6_333_399_040_u64)));
    let last = json!({
        "file": differential(FULL, 23), "date": "2026-11-23T01:00:02", "size": 1250 << 20, "share": 0.5,
        "saved": 1250 << 20, "protected": false,
    });
    assert_eq!(guest["chains"][0]["differentials"][2], last);
}

#[test]
fn a_hostile_folder_is_read_and_nothing_in_it_is_opened() {
    let dump = Dump::example();
    let pipe = differential(FULL, 25);
    for name in [&pipe, &format!("{FULL}.notes"), &format!("{FULL}.protected")] {
        assert!(Command::new("mkfifo").arg(dump.at(name)).status().unwrap().success());
    }
    symlink("/etc/passwd", dump.at(&differential(FULL, 26))).unwrap();
    symlink("/etc/passwd", dump.at(&format!("{}.notes", differential(FULL, 21)))).unwrap();
    fs::write(dump.at("evil\x1b[2J\u{202e}.vcdiff.zst"), "").unwrap();
    let shown = dump.chains(&[]).ok().out;
    for line in [
        &format!("  ! {pipe}: no regular file"),
        r"  ! evil\x1b[2J\xe2\x80\xae.vcdiff.zst: the name is not that of a differential backup",
        "qemu/101: 1 full, 3 differentials,",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    assert!(!shown.contains(['\x1b', '\u{202e}']) && !shown.contains("root:"), "{shown}");
    let json: Value = serde_json::from_str(&dump.chains(&["--json"]).ok().out).unwrap();
    assert_eq!(json[0]["unusable"].as_array().unwrap().len(), 3);
    assert_eq!(json[0]["guests"][1]["chains"][0]["full"].get("notes"), None);
}

#[test]
fn a_thousand_backups_are_read_by_their_names() {
    let dump = Dump::new(&[]);
    for guest in 100..120 {
        let full = FULL.replace("101", &guest.to_string());
        dump.sized(&full, 1000);
        for at in 0..49 {
            dump.sized(
                &format!("{full}--differential-2026_12_{:02}-{:02}_00_02.vcdiff.zst", 1 + at / 24, at % 24),
                10,
            );
        }
    }
    let json: Value = serde_json::from_str(&dump.chains(&["--json"]).ok().out).unwrap();
    let guests = json[0]["guests"].as_array().unwrap();
    assert_eq!(guests.len(), 20);
    assert!(guests.iter().all(|guest| guest["differentials"] == 49 && guest["saved"] == 49 * 990));
}

#[test]
fn a_host_s_storages_are_meant_where_none_is_named() {
    let host = Host::new();
    let config = "dir: local\n\tpath /srv/local\n\tcontent backup\n\nnfs: nas\n\texport /e\n\tserver s\n\tcontent backup\n\n\
                  dir: images\n\tpath /srv/images\n\tcontent images\n";
    host.write("etc/pve/storage.cfg", config);
    host.write("etc/pve/.members", r#"{"nodename": "pve1"}"#);
    host.write(&format!("srv/local/dump/{FULL}"), "1234");
    let json: Value = serde_json::from_str(&host.run(&["chains", "--json"]).ok().out).unwrap();
    assert_eq!((&json[0]["storage"], &json[1]["storage"]), (&json!("local"), &json!("nas")));
    assert_eq!(json[0]["guests"][0]["full_size"], 4);
    assert_eq!(json[1]["guests"], json!([]));
    let named = host.run(&["chains", "local"]).ok().out;
    assert!(named.starts_with("storage local, ") && named.contains("qemu/101: 1 full,"), "{named}");
    host.run(&["chains", "nowhere"])
        .code(2)
        .says(&["no such file or directory, and no storage of that name"]);
    host.run(&["chains", "nas"]).code(1).says(&[]);
    let empty = Dump::new(&[]);
    assert_eq!(below_first(&empty.chains(&[]).code(2)), "  no backups here\n");
}

#[test]
fn files_that_belong_together_are_listed() {
    let dump = Dump::example();
    dump.sized(&format!("{FULL}.notes"), 3);
    dump.sized("vzdump-qemu-101-2026_11_20-01_00_02.log", 3);
    let expected = [
        FULL,
        "vzdump-qemu-101-2026_11_20-01_00_02.log",
        &format!("{FULL}.notes"),
        &differential(FULL, 22),
        &differential(FULL, 23),
    ];
    let listed = dump.chains(&["--files", "101", "--since", "2026-11-22", "-0"]).ok().out;
    assert_eq!(listed.split_terminator('\0').collect::<Vec<_>>(), expected);
    assert_eq!(
        dump.chains(&["--files", "qemu/101", "--since", "2026-11-22"]).ok().out,
        expected.join("\n") + "\n"
    );
    for wrong in [["--files", "99"], ["--files", "vm/101"], ["--since", "2026-11-20"], ["--files", "101 "]] {
        assert_eq!(dump.chains(&wrong).code(2).out, "");
    }
    // What cannot be restored is not copied as if it could be.
    let lost = differential("vzdump-qemu-101-2026_11_01-01_00_02.vma.zst", 24);
    dump.sized(&lost, 1);
    let ran = dump.chains(&["--files", "101", "--since", "2026-11-22"]).code(1).says(&[&lost]);
    assert_eq!(ran.out, expected.join("\n") + "\n");
}

/// The examples of the README, on this folder.
#[test]
fn whole_chains_are_copied_by_the_programs_that_copy() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for program in ["rsync", "rclone"] {
        if !has(program) {
            println!("skipped: there is no {program} here");
            continue;
        }
        let mut lines = readme.lines().skip_while(|line| !line.starts_with(&format!("# {program}")));
        lines.next().unwrap_or_else(|| panic!("the README has no example with {program}"));
        let example: Vec<_> =
            lines.take_while(|line| !line.is_empty() && !line.starts_with(['#', '`'])).collect();
        let dump = Dump::new(&[(FULL, 5000)]);
        for (name, size) in
            [(differential(FULL, 21), 50), (differential(FULL, 22), 60), (format!("{FULL}.notes"), 7)]
        {
            dump.sized(&name, size);
        }
        let copy = tempfile::tempdir().unwrap();
        let script = example
            .join("\n")
            .replace("/mnt/pve/nas/dump", dump.0.path().to_str().unwrap())
            .replace("offsite:backups", copy.path().to_str().unwrap())
            .replace("2026-11-20", "2026-11-22");
        let programs = Path::new(env!("CARGO_BIN_EXE_pve-diff-backup")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let ran = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .env("PATH", path)
            .output()
            .unwrap();
        Ran::of(ran).ok();
        let mut copied: Vec<_> = fs::read_dir(copy.path())
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        copied.sort();
        assert_eq!(copied, [FULL.to_owned(), differential(FULL, 22), format!("{FULL}.notes")], "{program}");
    }
}
