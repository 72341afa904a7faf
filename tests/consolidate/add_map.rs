//! `pve-diff-backup add-map` on real archives: refusals, and a kill at each step.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::{COMPRESSIONS, Dump};

impl Dump {
    /// A full backup as vzdump itself makes it, with two differentials against it, notes and protection.
    pub fn stock(is_vm: bool) -> Dump {
        let ours = Dump::new(is_vm, COMPRESSIONS[0]);
        let content = ours.content(&ours.full);
        fs::write(ours.path("content"), content).unwrap();
        let zstd = Command::new("zstd")
            .args(["-q", "-f", "--rm", "content", "-o", &ours.full])
            .current_dir(ours.dir.path())
            .status();
        assert!(zstd.unwrap().success());
        let base = format!("--stored-base={}", ours.path(&ours.full).display());
        for (name, content) in ours.days.iter().zip(&ours.contents) {
            ours.compressor(&["diff", &base, "--compress", "zstd"], content, name);
        }
        ours.write(&format!("{}.notes", ours.full), "monthly");
        ours.write(&format!("{}.protected", ours.full), "");
        ours
    }

    fn form(&self, name: &str) -> String {
        let ran =
            Command::new(env!("CARGO_BIN_EXE_pve-xdelta3")).arg("identify").arg(self.path(name)).output();
        let text = String::from_utf8(ran.unwrap().stdout).unwrap();
        text.split(" form=").nth(1).and_then(|it| it.split(' ').next()).unwrap_or_default().to_owned()
    }
}

#[test]
fn a_full_gets_a_map_in_its_place() {
    for is_vm in [true, false] {
        let dump = Dump::stock(is_vm);
        let (full, names, content) = (dump.full.as_str(), dump.names(), dump.content(&dump.full));
        assert_eq!(dump.form(full), "zstd");
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let file = File::options().write(true).open(dump.path(full)).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        file.set_modified(then).unwrap();
        let ran = dump.ours(&["add-map", "--json", full]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
        let lines = ran.json();
        assert_eq!((&lines[0]["result"], &lines[0]["file"]), (&"ok".into(), &full.into()));
        assert_eq!((&lines[1]["ok"], &lines[1]["failed"]), (&1.into(), &0.into()));

        // All names are as they were, and all content; what is against the old file is restored from the new one.
        assert_eq!(dump.names(), names);
        assert_eq!(dump.form(full), "map");
        assert!(dump.content(full) == content);
        let has = fs::metadata(dump.path(full)).unwrap();
        assert_eq!((has.mode() & 0o7777, has.modified().unwrap()), (0o640, then));
        let verified = dump.ours(&["verify", "--all", "."]);
        assert_eq!(verified.code, Some(0), "{}", verified.out);

        let before = fs::read(dump.path(full)).unwrap();
        let again = dump.ours(&["add-map", "."]);
        assert_eq!(
            (again.code, again.out.lines().last()),
            (Some(0), Some("0 full backups got a map, 1 had one"))
        );
        assert!(fs::read(dump.path(full)).unwrap() == before);
    }
}

#[test]
fn what_cannot_have_a_map_stays_as_it_was() {
    let dump = Dump::stock(true);
    let full = dump.full.as_str();
    let refused = |text: &str| {
        let (names, bytes) = (dump.names(), fs::read(dump.path(full)).unwrap());
        let ran = dump.ours(&["add-map", full]);
        assert!(ran.code == Some(1) && ran.out.contains(text), "{text}: {:?} {}", ran.code, ran.out);
        assert_eq!(dump.names(), names, "{text}");
        assert!(fs::read(dump.path(full)).unwrap() == bytes, "{text}");
    };
    let running = &format!("vzdump-qemu-{}-2026_11_23-01_00_02.vma.dat", dump.guest);
    let writer = File::create(dump.path(running)).unwrap();
    refused(&format!("a backup of this guest is being made ({running})"));
    drop(writer);
    fs::remove_file(dump.path(running)).unwrap();
    dump.write(&format!("{full}.damaged"), "a frame");
    refused("it was found damaged");
    fs::remove_file(dump.path(format!("{full}.damaged"))).unwrap();
    let whole = fs::read(dump.path(full)).unwrap();
    for cut in [whole.len() - 1, whole.len() / 2] {
        fs::write(dump.path(full), &whole[..cut]).unwrap();
        refused("FAIL");
    }
    // Whole as zstd, but half an archive.
    dump.compressor(&["full", "--compress", "none"], &dump.contents[0][..2_000_000], "half");
    let zstd =
        Command::new("zstd").args(["-q", "-f", "half", "-o", full]).current_dir(dump.dir.path()).status();
    assert!(zstd.unwrap().success());
    fs::remove_file(dump.path("half")).unwrap();
    refused("is no whole archive");
    let lzop = full.replace(".zst", ".lzo");
    dump.write(&lzop, "");
    let ran = dump.ours(&["add-map", &lzop]);
    assert!(
        ran.code == Some(1) && ran.out.contains("only a full backup whose name ends in .zst"),
        "{}",
        ran.out
    );
    let ran = dump.ours(&["add-map", &dump.days[0]]);
    assert!(ran.code == Some(2) && ran.err.contains("a differential needs no map"), "{}", ran.err);
}

/// Whatever call into the system the program is killed at, the full backup is there and whole.
#[test]
fn a_kill_while_a_map_is_added_loses_nothing() {
    let mut killed = 0;
    for call in ["fsync", "fchmod", "rename"] {
        for step in 1.. {
            let dump = Dump::stock(false);
            let content = dump.content(&dump.full);
            let status = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
                .args(["-e", &format!("inject={call}:signal=KILL:when={step}")])
                .args([env!("CARGO_BIN_EXE_pve-diff-backup"), "add-map", "--quiet", &dump.full])
                .current_dir(dump.dir.path())
                .output()
                .unwrap()
                .status;
            assert!(dump.content(&dump.full) == content, "{call} {step}");
            if status.success() {
                break;
            }
            killed += 1;
            let again = dump.ours(&["add-map", &dump.full]);
            assert_eq!(again.code, Some(0), "{call} {step}: {}", again.out);
            assert_eq!(dump.form(&dump.full), "map");
            assert!(!dump.names().iter().any(|it| it.ends_with(".dat")), "{:?}", dump.names());
        }
    }
    assert!(killed >= 3, "{killed}");
}
