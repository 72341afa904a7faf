//! `pve-diff-backup import` on archives as the originals (ayufan/pve-patches) made them: by xdelta3, lzop, gzip and zstd with
//! their command lines. xdelta3 of Debian knows gzip alone; what theirs wrote into the header for the others is given by hand.

mod guests;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use guests::{container, machine};
use serde_json::Value;
use tempfile::TempDir;

/// The option of vzdump, the ending, the compressor and the decompressor, and xdelta3's word for it.
const FORMS: [(&str, &str, &str, &str); 4] = [
    (".lzo", "lzop", "lzop -d", "L"),
    (".gz", "gzip", "gzip -d", "G"),
    (".zst", "zstd -q --threads=1", "zstd -dq", "S"),
    ("", "cat", "cat", ""),
];

/// A folder with a full backup and a differential of a VM, a container and an OpenVZ container.
struct Archives {
    dir: TempDir,
    extension: &'static str,
}

impl Archives {
    fn new((extension, compress, decompress, word): (&'static str, &str, &str, &str)) -> Archives {
        let archives = Archives { dir: tempfile::tempdir().unwrap(), extension };
        for (name, first, second) in [
            (archives.vm(), machine(1, 1), machine(2, 2)),
            (archives.ct(), container(1), container(2)),
            (archives.openvz(), container(3), container(4)),
        ] {
            let differential = archives.differential(&name);
            archives.shell(&format!("{compress} >{name}"), &first);
            // PVE::VZDump::exec_backup_task: pve-xdelta3 -q -e -c -s BASE, and the compressor behind it.
            archives.shell(
                &format!(
                    "cat >new; {decompress} <{name} >base; xdelta3 -q -e -c -A=-//{name}/{word} -s base <new | {compress} >{differential}; rm new base"
                ),
                &second,
            );
        }
        archives
    }

    fn vm(&self) -> String {
        format!("vzdump-qemu-101-2014_12_01-00_00_01.vma{}", self.extension)
    }

    fn ct(&self) -> String {
        format!("vzdump-lxc-102-2016_12_01-00_00_01.tar{}", self.extension)
    }

    fn openvz(&self) -> String {
        format!("vzdump-openvz-103-2013_12_01-00_00_01.tar{}", self.extension)
    }

    fn differential(&self, full: &str) -> String {
        let year = &full.split('-').nth(3).unwrap()[..4];
        format!("{full}--differential-{year}_12_02-00_00_01.vcdiff{}", self.extension)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shell(&self, script: &str, input: &[u8]) {
        let mut child = Command::new("bash")
            .args(["-o", "pipefail", "-ec", script])
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        assert!(child.wait().unwrap().success(), "{script}");
    }

    fn import(&self, options: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"))
            .args(["import", "--results"])
            .arg(self.path("results"))
            .args(options)
            .arg(self.dir.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    /// Names and contents of all files but the results.
    fn all(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(|it| it.unwrap());
        let mut all: Vec<_> = entries
            .filter(|it| it.file_name() != "results")
            .map(|it| (it.file_name().into_string().unwrap(), fs::read(it.path()).unwrap()))
            .collect();
        all.sort();
        all
    }
}

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn about<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    lines.iter().find(|it| it["file"] == name).unwrap_or_else(|| panic!("nothing about {name}: {lines:#?}"))
}

#[test]
fn their_archives_are_restorable_as_they_are_in_every_form() {
    for form in FORMS {
        let archives = Archives::new(form);
        let before = archives.all();
        let (code, out, err) = archives.import(&["--json"]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let lines = json(&out);
        assert_eq!(lines.len(), 7, "{out}");
        for (full, content) in [
            (archives.vm(), "VMA, 1 disk"),
            (archives.ct(), "tar, 4 members"),
            (archives.openvz(), "tar, 4 members"),
        ] {
            let found = about(&lines, &full);
            assert_eq!(
                (&found["result"], &found["kind"], &found["content"]),
                (&"ok".into(), &"full".into(), &content.into())
            );
            let read = match form.0 {
                "" | ".lzo" => "anywhere",
                _ => "front",
            };
            assert_eq!(found["full_read"], read, "{found:#}");
            let found = about(&lines, &archives.differential(&full));
            assert_eq!(
                (&found["result"], &found["made_by"], &found["content"]),
                (&"ok".into(), &"xdelta3".into(), &content.into())
            );
            assert_eq!(
                (&found["windows_without_checksum"], &found["end_record"]),
                (&0.into(), &false.into())
            );
            assert_eq!(found["full_known_by"], "name");
        }
        let report = &lines[6];
        assert_eq!(
            (&report["ok"], &report["failed"], &report["originals"]),
            (&6.into(), &0.into(), &3.into())
        );
        assert_eq!(archives.all(), before);
        // What was found is known to other commands.
        let chains = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"))
            .args(["chains", "--json", "--results"])
            .args([archives.path("results"), archives.dir.path().into()])
            .output()
            .unwrap();
        let chains = String::from_utf8(chains.stdout).unwrap();
        assert_eq!(chains.matches("\"good\": true").count(), 6, "{chains}");
        // The table says the same, and what it is sure by.
        let (code, out, _) = archives.import(&[]);
        assert_eq!(code, Some(0));
        assert!(
            out.contains("pve-patches    VMA, 1 disk, 3.") && out.contains("of windows, structure*"),
            "{out}"
        );
        assert!(out.contains("6 backups can be restored as they are. Nothing was changed."), "{out}");
    }
}

#[test]
fn what_is_damaged_cut_or_alone_is_not_called_good() {
    let archives = Archives::new(FORMS[0]);
    let (vm, ct, openvz) = (archives.vm(), archives.ct(), archives.openvz());
    let change = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(archives.path(name)).unwrap();
        change(&mut bytes);
        fs::write(archives.path(name), bytes).unwrap();
    };
    // The full that windows copy from, with the compression's checksums right: another full under the name.
    archives.shell(&format!("lzop -c >{vm}"), &machine(9, 9).iter().map(|byte| byte ^ 1).collect::<Vec<_>>());
    change(&archives.differential(&ct), &|bytes| bytes.truncate(bytes.len() / 2));
    fs::remove_file(archives.path(&openvz)).unwrap();
    fs::write(archives.path("vzdump-lxc-102-2016_12_01.vcdiff.lzo"), "misspelt").unwrap();
    let (code, out, _) = archives.import(&["--json"]);
    assert_eq!(code, Some(1), "{out}");
    let lines = json(&out);
    for name in [&archives.differential(&vm), &archives.differential(&ct), &archives.differential(&openvz)] {
        assert_eq!(about(&lines, name)["result"], "failed", "{out}");
    }
    assert_eq!(about(&lines, &ct)["result"], "ok", "{out}");
    let report = lines.last().unwrap();
    assert_eq!(
        (&report["ok"], &report["failed"], &report["unusable"]),
        (&1.into(), &4.into(), &1.into()),
        "{out}"
    );
    let (_, out, _) = archives.import(&[]);
    assert!(out.contains("1 backup can be restored as they are, 5 NOT."), "{out}");
    assert!(
        out.contains("FAIL   vzdump-lxc-102-2016_12_01.vcdiff.lzo: the name is not that of a differential"),
        "{out}"
    );
}

#[test]
fn a_delta_without_checksums_or_cut_between_windows_is_told_from_a_proved_one() {
    let archives = Archives::new(FORMS[3]);
    let (vm, tar) = (archives.vm(), archives.ct());
    fs::write(archives.path("new"), machine(2, 2)).unwrap();
    let unchecked = archives.differential(&vm);
    archives.shell(&format!("xdelta3 -q -e -f -n -W 65536 -s {vm} new {unchecked}; rm new"), b"");
    // Of a tar, the first windows alone: a delta that ends between two windows is a delta of less.
    let half: Vec<u8> = container(2)[..400_000].to_vec();
    let cut = archives.differential(&tar);
    fs::write(archives.path("new"), half).unwrap();
    archives.shell(&format!("xdelta3 -q -e -f -s {tar} new {cut}; rm new"), b"");
    let (code, out, _) = archives.import(&["--json"]);
    assert_eq!(code, Some(1));
    let lines = json(&out);
    let found = about(&lines, &unchecked);
    assert_eq!((&found["result"], &found["windows"]), (&"ok".into(), &found["windows_without_checksum"]));
    let found = about(&lines, &cut);
    assert_eq!(found["result"], "failed");
    assert!(found["error"].as_str().unwrap().contains("truncated"), "{found:#}");
    let (_, out, _) = archives.import(&[]);
    assert!(
        out.lines().any(|line| line.contains("0 of ") && line.contains(" checksums, structure*")),
        "{out}"
    );
}

#[test]
fn differentials_of_this_product_are_proved_by_more() {
    let archives = Archives::new(FORMS[3]);
    let ours = |args: &[&str], input: &[u8]| {
        fs::write(archives.path("input"), input).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
            .args(args)
            .current_dir(archives.dir.path())
            .stdin(fs::File::open(archives.path("input")).unwrap())
            .output()
            .unwrap();
        assert!(out.status.success());
        fs::remove_file(archives.path("input")).unwrap();
        out.stdout
    };
    let full = "vzdump-qemu-110-2026_12_01-00_00_01.vma.zst";
    fs::write(archives.path(full), ours(&["full"], &machine(1, 1))).unwrap();
    let name = format!("{full}--differential-2026_12_02-00_00_01.vcdiff.zst");
    let made = ours(&["diff", &format!("--stored-base={full}")], &machine(2, 2));
    fs::write(archives.path(&name), made).unwrap();
    let (code, out, _) = archives.import(&["--json"]);
    assert_eq!(code, Some(0), "{out}");
    let lines = json(&out);
    let found = about(&lines, &name);
    assert_eq!((&found["made_by"], &found["end_record"]), (&"pve-diff-backup".into(), &true.into()));
    assert_eq!((&found["full_known_by"], &found["full_read"]), (&"content".into(), &"map".into()));
    assert_eq!(lines.last().unwrap()["originals"], 3);
}

#[test]
fn a_place_without_backups_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path(), Path::new("/nowhere/at/all")] {
        let ran =
            Command::new(env!("CARGO_BIN_EXE_pve-diff-backup")).arg("import").arg(path).output().unwrap();
        assert_eq!((ran.status.code(), ran.stdout.len()), (Some(2), 0));
    }
}
