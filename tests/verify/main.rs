//! `pve-verify-backups` on directories with real archives, good and damaged.

mod dump;
#[path = "../guests/mod.rs"]
mod guests;
mod jobs;
mod one_pass;
mod restore;
mod salvage;
mod schedule;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use self::dump::{COMPRESSIONS, Dump, Verified, container, machine, verify};

#[test]
fn a_storage_is_found_by_its_name_and_by_its_path() {
    let host = tempfile::tempdir().unwrap();
    let dump = Dump::new(COMPRESSIONS[0]);
    let config = "dir: local\n\tpath /var/lib/vz\n\tcontent backup\n\nnfs: nas\n\texport /e\n\tserver s\n\n\
                  cifs: deep\n\tpath /mnt/deep\n\tcontent-dirs backup=own/folder\n\npbs: server\n\tdatastore d\n";
    let at = |path: &str| host.path().join(path);
    fs::create_dir_all(at("etc/pve")).unwrap();
    fs::write(at("etc/pve/storage.cfg"), config).unwrap();
    let run = |paths: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        // What is no path is a storage of the host; of a path alone, --root says nothing, and is refused.
        if !paths.iter().any(|path| path.contains('/')) {
            program.arg("--root").arg(host.path());
        }
        Verified::new(program.arg("verify").args(paths).current_dir(host.path()))
    };
    for (folder, words) in [
        ("var/lib/vz/dump", ["local", "var/lib/vz"]),
        ("mnt/pve/nas/dump", ["nas", "mnt/pve/nas"]),
        ("mnt/deep/own/folder", ["deep", "mnt/deep/own/folder"]),
    ] {
        fs::create_dir_all(at(folder).parent().unwrap()).unwrap();
        fs::rename(dump.dir.path(), at(folder)).unwrap();
        for word in words {
            let verified = run(&[word]);
            let last = verified.lines.last().map(String::as_str);
            assert_eq!((verified.code, last), (0, Some("2 checked, all of them restorable")), "{word}");
        }
        fs::rename(at(folder), dump.dir.path()).unwrap();
    }
    for (word, reason) in [
        ("server", "server: a storage of type pbs, which holds no files of backups"),
        ("nobody", "nobody: no such file or directory, and no storage of that name"),
        ("nas", "the storage nas keeps its backups in"),
    ] {
        let verified = run(&[word]);
        assert_eq!((verified.code, verified.lines.len()), (2, 1), "{word}");
        assert!(verified.errors.contains(reason), "{word}: {}", verified.errors);
    }
    assert!(run(&["nas"]).errors.contains("which is not there: is its share or disk mounted?"));
    // What is typed as Proxmox VE's commands take it is a storage; a folder of that name here is told of.
    fs::create_dir_all(at("var/lib/vz/dump")).unwrap();
    fs::create_dir(at("local")).unwrap();
    let full = "vzdump-qemu-100-2026_11_20-01_00_02.vma";
    fs::write(at("var/lib/vz/dump").join(full), machine(1, 1)).unwrap();
    let storage = run(&["--all", "local"]);
    assert_eq!((storage.code, storage.lines.len()), (0, 2), "{}", storage.errors);
    assert!(storage.errors.contains("./local"), "{}", storage.errors);
    let folder = run(&["--all", "./local"]);
    assert_eq!((folder.code, folder.lines.as_slice()), (2, &["no backups here".to_owned()][..]));
    assert_eq!(folder.errors, "");
    // One place under two names is no question.
    fs::remove_dir(at("local")).unwrap();
    std::os::unix::fs::symlink("var/lib/vz", at("local")).unwrap();
    assert_eq!(run(&["local"]).errors, "");
}

#[test]
fn what_cannot_be_checked_keeps_nothing_else_from_it() {
    let dump = Dump::new(COMPRESSIONS[0]);
    let differential = dump.differential(&dump.vm(), 21);
    std::os::unix::fs::symlink("/nowhere/at/all", dump.path("link")).unwrap();
    let fifo = Command::new("mkfifo").arg(dump.path("pipe")).status().unwrap();
    assert!(fifo.success());
    let run = |names: &[&str]| Verified::new(verify().current_dir(dump.dir.path()).args(names));
    for (name, reason) in [
        ("nowhere", "no such file or directory, and no storage of that name"),
        ("link", "a symbolic link to /nowhere/at/all, which is not there"),
        ("pipe", "a pipe, no backup"),
        ("/dev/null", "a device, no backup"),
        ("nowhere/at/all", "no such file or directory"),
    ] {
        let verified = run(&["--all", name, &differential]);
        let (word, mark) = (&verified.errors, format!("{name}: {reason}"));
        assert!(word.contains(&mark), "{name}: {word}");
        let lines: Vec<_> = verified.lines.iter().map(String::as_str).collect();
        assert!(lines[0].starts_with(&format!("OK    {differential}")), "{lines:#?}");
        let last = "1 checked, all of them restorable; 1 argument could NOT be checked";
        assert_eq!((verified.code, lines[1]), (2, last), "{name}");
    }
    let json = run(&["--json", "pipe", &differential]);
    let report = json.json().pop().unwrap();
    assert_eq!((json.code, &report["ok"], &report["refused"][0]["argument"]), (2, &1.into(), &"pipe".into()));
    dump.damage(&differential, |bytes| bytes.truncate(100));
    assert_eq!(run(&["nowhere", &differential]).code, 1);
}

#[test]
fn a_full_that_people_packed_anew_can_be_named() {
    let dump = Dump::new(("none", ""));
    for name in [dump.vm(), dump.ct()] {
        let packed = Command::new("xz").arg("-0").arg(dump.path(&name)).status();
        if !packed.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no program xz");
            return;
        }
    }
    let named = Verified::new(
        verify().current_dir(dump.dir.path()).args([dump.vm(), dump.ct()].map(|it| it + ".xz")),
    );
    let last = named.lines.last().map(String::as_str);
    assert_eq!((named.code, last), (0, Some("2 checked, all of them restorable")), "{}", named.errors);
}

#[test]
fn logs_and_notes_are_passed_over() {
    let dump = Dump::new(COMPRESSIONS[0]);
    let full = dump.vm();
    let beside = ["log", "notes", "protected"].map(|kind| format!("{full}.{kind}"));
    beside.iter().for_each(|name| fs::write(dump.path(name), "").unwrap());
    let differential = dump.differential(&full, 21);
    let names = [&differential, &beside[0], &beside[1], &beside[2]];
    let paths = names.map(|name| dump.path(name));
    let verified = Verified::new(verify().args(&paths));
    let last = verified.lines.last().map(String::as_str);
    assert_eq!((verified.code, last), (0, Some("1 checked, all of them restorable")), "{}", verified.errors);
    assert_eq!(verified.errors.matches(": passed over").count(), 3, "{}", verified.errors);
}

#[test]
fn good_backups_of_every_compression() {
    for compression in COMPRESSIONS {
        let dump = Dump::new(compression);
        let found = dump.verify(&[]);
        assert_eq!((found.code, found.lines.len()), (0, 3), "{:#?}", found.lines);
        assert_eq!(found.lines[2], "2 checked, all of them restorable");
        let vm = found.line(&dump.differential(&dump.vm(), 21));
        assert!(vm.starts_with("OK    vzdump-qemu") && vm.contains("(VMA, 1 disk, 3."), "{vm}");
        let ct = found.line(&dump.differential(&dump.ct(), 21));
        assert!(ct.starts_with("OK    vzdump-lxc") && ct.contains("(tar, 4 members, 1."), "{ct}");
        let all = dump.verify(&["--all"]);
        assert_eq!((all.code, all.lines.len()), (0, 5), "{:#?}", all.lines);
        assert!(all.line(&dump.vm()).starts_with("OK  "));
    }
}

#[test]
fn differentials_of_xdelta3_as_the_original_made_them() {
    let dump = Dump::new(("none", ""));
    let old = dump.differential(&dump.vm(), 22);
    fs::write(dump.path("new"), machine(3, 3)).unwrap();
    let made = Command::new("xdelta3")
        .args(["-q", "-e", "-f", "-s"])
        .args([dump.path(dump.vm()), dump.path("new"), dump.path(&old)])
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no program xdelta3");
        return;
    }
    fs::remove_file(dump.path("new")).unwrap();
    let found = dump.verify(&[]);
    assert!(found.line(&old).starts_with("OK  "), "{:#?}", found.lines);
    assert_eq!((found.code, found.lines.len()), (0, 4));
}

#[test]
fn damage_anywhere_fails_and_leaves_the_others_alone() {
    for compression in COMPRESSIONS {
        let dump = Dump::new(compression);
        let (vm, ct) = (dump.differential(&dump.vm(), 21), dump.differential(&dump.ct(), 21));
        let whole = fs::read(dump.path(&vm)).unwrap();
        for cut in [0, 1, 20, whole.len() / 2, whole.len() - 1] {
            dump.damage(&vm, |bytes| bytes.truncate(cut));
            let found = dump.verify(&[]);
            assert_eq!(found.code, 1, "cut at {cut} of {}", whole.len());
            assert!(found.line(&vm).starts_with("FAIL"), "cut at {cut}: {:#?}", found.lines);
            assert!(found.line(&ct).starts_with("OK  "), "cut at {cut}: {:#?}", found.lines);
            assert_eq!(found.lines.len(), 3, "{:#?}", found.lines);
            fs::write(dump.path(&vm), &whole).unwrap();
        }
        dump.damage(&vm, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x11;
        });
        let found = dump.verify(&[]);
        assert_eq!(found.code, 1, "{:#?}", found.lines);
        assert!(found.line(&vm).starts_with("FAIL"));
        assert_eq!(found.lines[2], "2 checked, 1 NOT restorable");
    }
}

#[test]
fn a_full_that_is_missing_cut_or_replaced_fails_its_differentials() {
    for compression in COMPRESSIONS {
        let dump = Dump::new(compression);
        let (full, vm) = (dump.vm(), dump.differential(&dump.vm(), 21));
        let whole = fs::read(dump.path(&full)).unwrap();
        dump.damage(&full, |bytes| bytes.truncate(bytes.len() / 2));
        let found = dump.verify(&["--all"]);
        assert_eq!(found.code, 1);
        for name in [&full, &vm] {
            assert!(found.line(name).starts_with("FAIL"), "{:#?}", found.lines);
        }
        // another guest's archive under the same name
        fs::copy(dump.path(dump.ct()), dump.path(&full)).unwrap();
        assert!(dump.verify(&[]).line(&vm).starts_with("FAIL"));
        fs::write(dump.path(&full), &whole).unwrap();
        assert_eq!(dump.verify(&[]).code, 0);
        fs::remove_file(dump.path(&full)).unwrap();
        let found = dump.verify(&[]);
        assert_eq!(found.line(&vm), format!("FAIL  {vm}: its full backup {full} is not there"));
        assert_eq!(found.code, 1);
    }
}

#[test]
fn a_sound_delta_of_an_unsound_archive_fails() {
    let dump = Dump::new(("zstd", ".zst"));
    let cut = |stream: Vec<u8>| stream[..stream.len() - 70_000].to_vec();
    let base = |full: &str| format!("--base={}", dump.path(full).display());
    let (vm, ct) = (dump.differential(&dump.vm(), 21), dump.differential(&dump.ct(), 21));
    dump.compressor(&["diff", &base(&dump.vm())], &cut(machine(2, 9)), &vm);
    dump.compressor(&["diff", &base(&dump.ct())], &cut(container(2)), &ct);
    let found = dump.verify(&[]);
    assert!(found.line(&vm).contains("the VMA stream is truncated"), "{:#?}", found.lines);
    assert!(found.line(&ct).contains("the tar stream is truncated"), "{:#?}", found.lines);
}

#[test]
fn json_holds_what_the_lines_do() {
    let dump = Dump::new(("zstd", ".zst"));
    let vm = dump.differential(&dump.vm(), 21);
    dump.damage(&vm, |bytes| bytes.truncate(100));
    let found = dump.verify(&["--json", "--all"]);
    let mut backups = found.json();
    let report = backups.pop().unwrap();
    assert_eq!((found.code, &report["ok"], &report["failed"]), (1, &Value::from(3), &Value::from(1)));
    assert_eq!(backups.len(), 4);
    let bad = backups.iter().find(|b| b["file"] == vm.as_str()).unwrap();
    assert_eq!((&bad["result"], &bad["base"]), (&Value::from("failed"), &Value::from(dump.vm())));
    assert!(bad["error"].as_str().is_some_and(|e| !e.is_empty() && !e.contains('\n')));
    let good = backups.iter().find(|b| b["file"] == dump.ct().as_str()).unwrap();
    assert_eq!(good["bytes"], container(1).len());
    assert_eq!(good["content"], "tar, 4 members");
}

#[test]
fn what_was_found_good_and_is_unchanged_is_passed_over() {
    let dump = Dump::new(COMPRESSIONS[0]);
    let (vm, ct) = (dump.differential(&dump.vm(), 21), dump.differential(&dump.ct(), 21));
    let results = dump.path("results");
    let file = ["--results", results.to_str().unwrap()];
    let run = |more: &[&str]| dump.verify(&[&file[..], more].concat());
    dump.damage(&vm, |bytes| bytes.truncate(100));
    assert_eq!(run(&["--resume"]).code, 1);
    // What is good is not read again; what is not good is.
    let again = run(&["--resume"]);
    assert_eq!(again.code, 1);
    assert!(
        again.line(&ct).starts_with("SKIP ") && again.line(&vm).starts_with("FAIL "),
        "{:#?}",
        again.lines
    );
    let last = again.lines.last().unwrap();
    assert_eq!(last, "1 checked, 1 NOT restorable; 1 found good before, and unchanged");
    let json = run(&["--resume", "--json"]).json();
    assert_eq!((&json[0]["result"], &json[2]["skipped"]), (&"skipped".into(), &1.into()));
    // As ever without the option, and with results that are too old.
    assert!(run(&[]).line(&ct).starts_with("OK "));
    let old = fs::read_to_string(&results).unwrap().replace("\"at\":", "\"at\":1,\"then\":");
    fs::write(&results, old).unwrap();
    assert!(run(&["--resume", "--max-age", "3000"]).line(&ct).starts_with("OK "));
    // A full that was changed in its place makes what was known of its differentials nothing.
    assert!(run(&["--resume"]).line(&ct).starts_with("SKIP "));
    dump.damage(&dump.ct(), |bytes| bytes.truncate(bytes.len() / 2));
    assert!(run(&["--resume"]).line(&ct).starts_with("FAIL "));
    // chains tells of it.
    let mut chains = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
    let told = Verified::new(chains.arg("chains").args(file).arg(dump.dir.path()));
    assert_eq!(
        told.lines.iter().filter(|line| line.contains("FAILED today")).count(),
        2,
        "{:#?}",
        told.lines
    );
    assert_eq!(dump.verify(&["--max-age", "7"]).code, 2);
}

#[test]
fn odd_names_do_no_harm() {
    let dump = Dump::new(("zstd", ".zst"));
    let odd: [&[u8]; 3] =
        [b"$(touch owned).vcdiff.zst", b"it's \"quoted\" and\ntwo lines.vcdiff", b"\xff\xfe.vcdiff.lzo"];
    for name in odd {
        fs::write(dump.path(OsStr::from_bytes(name)), "").unwrap();
    }
    let found = dump.verify(&[]);
    assert_eq!((found.code, found.lines.len()), (1, 6), "{:#?}", found.lines);
    assert!(
        found.line("$(touch owned).vcdiff.zst").ends_with("the name is not that of a differential backup")
    );
    assert_eq!(found.lines[5], "5 checked, 3 NOT restorable");
    assert!(!Path::new("owned").exists() && !dump.path("owned").exists());
}

#[test]
fn single_backups_can_be_named() {
    let dump = Dump::new(("zstd", ".zst"));
    let one = Verified::new(verify().arg(dump.path(dump.differential(&dump.vm(), 21))));
    assert_eq!((one.code, one.lines.len()), (0, 2), "{:#?}", one.lines);
    // relative, in the working directory
    let here = Verified::new(verify().current_dir(dump.dir.path()).arg(dump.vm()));
    assert_eq!((here.code, here.lines[1].as_str()), (0, "1 checked, all of them restorable"));
    let none = Verified::new(verify().current_dir(dump.dir.path()).args(["--all"]));
    assert_eq!(none.lines.len(), 5);
}

#[test]
fn nothing_to_check_is_told_apart_from_the_wrong_place() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Verified::new(verify().arg(dir.path()));
    assert_eq!((empty.code, empty.lines.join("")), (2, "no backups here".into()));
    fs::write(dir.path().join("vzdump-qemu-101-2026_11_20-01_00_02.vma"), machine(1, 1)).unwrap();
    let full = Verified::new(verify().arg(dir.path()));
    assert_eq!((full.code, full.lines.len()), (0, 1));
    assert!(full.lines[0].starts_with("no differential backups here (1 full"));
    let missing = Verified::new(verify().arg(dir.path().join("nowhere")));
    assert_eq!(missing.code, 2);
    assert!(missing.errors.contains("no such file or directory"), "{}", missing.errors);
    let foreign = dir.path().join("notes.txt");
    fs::write(&foreign, "").unwrap();
    assert_eq!(Verified::new(verify().arg(foreign)).code, 2);
    assert_eq!(Verified::new(verify().arg("--nonsense")).code, 2);
}

/// `pve-xdelta3 vma` reads full and differential archives alike.
#[test]
fn vma_commands_work_on_every_kind_of_archive() {
    for compression in COMPRESSIONS {
        let dump = Dump::new(compression);
        let vma = |args: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
                .arg("vma")
                .args(args)
                .current_dir(dump.dir.path())
                .output()
                .unwrap()
        };
        let text = |output: Output| {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let (full, diff) = (dump.vm(), dump.differential(&dump.vm(), 21));
        assert_eq!(text(vma(&["config", &full])), "memory: 1\n");
        assert_eq!(text(vma(&["config", &diff])), "memory: 2\n");
        let list = text(vma(&["list", &diff]));
        assert!(list.contains("DEV: dev_id=1 size: 8388608 devname: drive-scsi0\n"), "{list}");
        assert!(list.contains("CTIME: 2025_11_21-23_00_02 UTC"), "{list}");
        assert!(text(vma(&["verify", "-v", &diff])).contains("128 clusters"));
        text(vma(&["extract", &diff, "out"]));
        let disk = fs::read(dump.path("out/disk-drive-scsi0.raw")).unwrap();
        assert_eq!((disk.len(), &disk[1_000_000..1_000_100]), (8 << 20, &[2; 100][..]));
        let missing = vma(&["config", "-c", "qemu-server.fw", &diff]);
        assert_eq!(missing.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&missing.stderr).contains("there is: qemu-server.conf"));
        let wrong = vma(&["verify", &dump.ct()]);
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("a container's backup (a tar archive)"));
        assert_eq!(vma(&["frobnicate", &full]).status.code(), Some(2));
    }
}

/// The exit status is the result, whether or not anybody reads the lines.
#[test]
fn a_reader_that_goes_away_makes_nothing_good() {
    let dump = Dump::new(COMPRESSIONS[0]);
    let run = |options: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        verify().args(options).arg(dump.dir.path()).stdout(writer).status().unwrap().code()
    };
    assert_eq!([run(&[]), run(&["--json"])], [Some(0); 2]);
    let differential = dump.differential(&dump.vm(), 21);
    dump.damage(&differential, |bytes| bytes.truncate(bytes.len() - 10));
    assert_eq!([run(&[]), run(&["--json"])], [Some(1); 2]);
}
