//! `pve-diff-backup consolidate` on real archives: every compression, refusals, and a kill at each step; and `add-map`.

#[path = "consolidate/add_map.rs"]
mod add_map;
#[path = "consolidate/doubts.rs"]
mod doubts;
#[path = "consolidate/ends.rs"]
mod ends;
mod guests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use guests::{container, machine};
use serde_json::Value;
use tempfile::TempDir;

const COMPRESSIONS: [(&str, &str); 4] = [("zstd", ".zst"), ("lzo", ".lzo"), ("gzip", ".gz"), ("none", "")];

/// A folder with a full backup of a VM or a container and two differentials, of which the second is protected, has notes and a
/// log.
struct Dump {
    dir: TempDir,
    /// The guest's number. Every folder has another one, as a file of the same name that is open anywhere on this machine counts
    /// as a running backup.
    guest: String,
    full: String,
    days: [String; 2],
    /// What the differentials restore to.
    contents: [Vec<u8>; 2],
}

impl Dump {
    fn new(is_vm: bool, (compression, extension): (&str, &str)) -> Dump {
        static GUESTS: AtomicU32 = AtomicU32::new(1001);
        let guest = GUESTS.fetch_add(1, Ordering::Relaxed).to_string();
        let stem = format!("vzdump-{}-{guest}", if is_vm { "qemu" } else { "lxc" });
        let form = if is_vm { "vma" } else { "tar" };
        let full = format!("{stem}-2026_11_20-01_00_02.{form}{extension}");
        let content = |day| if is_vm { machine(day, day.into()) } else { container(day) };
        let days =
            [21, 22].map(|day| format!("{full}--differential-2026_11_{day}-01_00_02.vcdiff{extension}"));
        let contents = [content(2), content(3)];
        let dump = Dump { dir: tempfile::tempdir().unwrap(), guest, full, days, contents };
        dump.compressor(&["full", "--compress", compression], &content(1), &dump.full);
        let base = format!("--stored-base={}", dump.path(&dump.full).display());
        for (name, content) in dump.days.iter().zip(&dump.contents) {
            dump.compressor(&["diff", &base, "--compress", compression], content, name);
        }
        let second = &dump.days[1];
        dump.write(&format!("{second}.notes"), "before the upgrade");
        dump.write(&format!("{second}.protected"), "");
        let log = second.split(".vcdiff").next().unwrap();
        dump.write(&format!("{log}.log"), "INFO: differential backup\n");
        dump
    }

    fn path(&self, name: impl AsRef<std::path::Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// The name of the full backup that is made of the differential of this day.
    fn made(&self, day: u32) -> String {
        let form = if self.full.contains(".vma") { "vma" } else { "tar" };
        format!("{}2026_11_{day}-01_00_02.{form}.zst", self.full.split("2026").next().unwrap())
    }

    /// Runs what vzdump would.
    fn compressor(&self, args: &[&str], input: &[u8], output: &str) {
        let mut stdin = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut stdin, input).unwrap();
        std::io::Seek::rewind(&mut stdin).unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
            .args(args)
            .stdin(stdin)
            .stdout(File::create(self.path(output)).unwrap())
            .status()
            .unwrap();
        assert!(status.success(), "{args:?}");
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn ours(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        Ran::new(command.args(args).current_dir(self.dir.path()))
    }

    /// Decompresses a full backup as anybody would.
    fn content(&self, full: &str) -> Vec<u8> {
        let out = Command::new("zstd").args(["-dcq"]).arg(self.path(full)).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn new(command: &mut Command) -> Ran {
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_differential_becomes_a_full_of_its_own() {
    for (is_vm, compression) in COMPRESSIONS.iter().flat_map(|it| [(true, *it), (false, *it)]) {
        let dump = Dump::new(is_vm, compression);
        let (old, new) = (&dump.days[1], dump.made(22));
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let file = File::options().write(true).open(dump.path(old)).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        file.set_modified(then).unwrap();
        let owner = file.metadata().unwrap().uid();
        let ran = dump.ours(&["consolidate", "--results", "found", old]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{compression:?} {}", ran.out);
        let lines: Vec<&str> = ran.out.lines().collect();
        assert!(lines[0].starts_with(&format!("OK    {new} (")), "{lines:?}");
        assert!(lines[0].ends_with(&format!(" in place of {old}")), "{lines:?}");
        assert_eq!(lines[1..], ["1 differential made full backups"]);

        let log = format!("{}log", new.split("vma").next().unwrap().split("tar").next().unwrap());
        let expected =
            [&dump.full, &dump.days[0], &new, &format!("{new}.notes"), &format!("{new}.protected"), &log];
        assert_eq!(dump.names(), expected.map(String::clone).into_iter().chain(["found".into()]).collect());
        assert_eq!(fs::read_to_string(dump.path(format!("{new}.notes"))).unwrap(), "before the upgrade");
        assert_eq!(fs::read_to_string(dump.path(log)).unwrap(), "INFO: differential backup\n");
        let has = fs::metadata(dump.path(&new)).unwrap();
        assert_eq!((has.mode() & 0o7777, has.uid(), has.modified().unwrap()), (0o640, owner, then));
        assert!(dump.content(&new) == dump.contents[1], "{compression:?}");
        let map = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
            .arg("identify")
            .arg(dump.path(&new))
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&map.stdout).contains(" form=map "), "{map:?}");

        // It serves as the base of new differentials, and is known as verified.
        let next = format!("{new}--differential-2026_11_23-01_00_02.vcdiff");
        let base = format!("--stored-base={}", dump.path(&new).display());
        dump.compressor(&["diff", &base, "--compress", "none"], &dump.contents[0], &next);
        assert!(fs::metadata(dump.path(&next)).unwrap().len() < has.len() / 4);
        let chains = dump.ours(&["chains", "--json", "--results", "found", "."]);
        let chains: Value = serde_json::from_str(&chains.out).unwrap();
        let guest = &chains[0]["guests"][0];
        assert_eq!(
            (guest["fulls"].clone(), guest["odd"].clone()),
            (2.into(), Value::Array(vec![])),
            "{guest:#}"
        );
        let full = &guest["chains"][1]["full"];
        assert_eq!(full["file"], new.as_str());
        assert_eq!((&full["notes"], &full["protected"]), (&"before the upgrade".into(), &true.into()));
        assert_eq!(full["verified"]["good"], true, "{full:#}");
        assert_eq!(dump.ours(&["verify", "--all", "."]).code, Some(0));
    }
}

#[test]
fn all_of_a_guest_and_then_the_old_full_can_go() {
    for remove in [false, true] {
        let dump = Dump::new(true, COMPRESSIONS[0]);
        // Another guest's, which is not touched.
        let other = dump.full.replace(&format!("-{}-", dump.guest), &format!("-{}0-", dump.guest));
        fs::copy(dump.path(&dump.full), dump.path(&other)).unwrap();
        dump.write(&format!("{}.notes", dump.full), "the old one");
        let guest = format!("qemu/{}", dump.guest);
        let mut args = vec!["consolidate", "--json", "--all-of", &guest, "."];
        args.extend(remove.then_some("--remove-full"));
        let ran = dump.ours(&args);
        let [first, second, report] = &ran.json()[..] else { panic!("{}", ran.out) };
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        assert_eq!((&first["file"], &first["full"]), (&dump.days[0].clone().into(), &dump.made(21).into()));
        assert_eq!((&second["result"], &second["full"]), (&"ok".into(), &dump.made(22).into()));
        assert_eq!((&report["ok"], &report["failed"]), (&2.into(), &0.into()));
        let spare = &report["unneeded"][0];
        assert_eq!((&spare["file"], &spare["removed"]), (&dump.full.clone().into(), &remove.into()));
        let names = dump.names();
        assert_eq!(names.contains(&dump.full), !remove);
        assert_eq!(names.contains(&format!("{}.notes", dump.full)), !remove);
        assert!(
            names.contains(&other) && !names.iter().any(|it| it.contains("--differential-")),
            "{names:?}"
        );
        for (day, content) in [21, 22].into_iter().zip(&dump.contents) {
            assert!(dump.content(&dump.made(day)) == *content);
        }
    }
}

#[test]
fn a_protected_full_stays() {
    let dump = Dump::new(false, COMPRESSIONS[0]);
    dump.write(&format!("{}.protected", dump.full), "");
    let ran = dump.ours(&["consolidate", "--remove-full", "--all-of", &dump.guest, "."]);
    assert_eq!(ran.code, Some(0));
    let text = format!("SPARE {} (", dump.full);
    assert!(ran.out.contains(&text) && ran.out.contains("but it is protected"), "{}", ran.out);
    assert!(dump.names().contains(&dump.full));
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let dump = Dump::new(true, COMPRESSIONS[0]);
    let (old, new) = (&dump.days[0], dump.made(21));
    let refused = |text: &str, code: i32| {
        let before = dump.names();
        let ran = dump.ours(&["consolidate", old]);
        let said = ran.out.clone() + &ran.err;
        assert!(ran.code == Some(code) && said.contains(text), "{code} {text}: {said}");
        assert_eq!(dump.names(), before, "{text}");
        assert!(dump.names().contains(old));
    };
    let with = |name: &str, content: &[u8], text: &str| {
        fs::write(dump.path(name), content).unwrap();
        refused(text, 1);
        fs::remove_file(dump.path(name)).unwrap();
    };
    // The name is taken.
    let taken = "already, of the same time, which is no copy of it: nothing was changed";
    with(&new, b"something else", taken);
    with(&new, &fs::read(dump.path(&dump.full)).unwrap(), taken);
    with(&new.replace(".zst", ".lzo"), b"", taken);
    // A backup of the guest is being made, or may be.
    let running = &format!("vzdump-qemu-{}-2026_11_23-01_00_02.vma.dat", dump.guest);
    let writer = File::create(dump.path(running)).unwrap();
    refused(&format!("a backup of this guest is being made ({running})"), 1);
    drop(writer);
    refused(&format!("{running} is unfinished, of an unknown program"), 1);
    fs::rename(dump.path(running), dump.path(running.replace(&dump.guest, "102"))).unwrap();
    // The full is missing, cut, or another one; the differential is damaged.
    let full = fs::read(dump.path(&dump.full)).unwrap();
    fs::remove_file(dump.path(&dump.full)).unwrap();
    refused(&format!("its full backup {} is not there", dump.full), 1);
    fs::write(dump.path(&dump.full), &full[..full.len() / 2]).unwrap();
    refused(&dump.full, 1);
    let mut damaged = full.clone();
    let len = damaged.len();
    damaged[len / 4..len / 2].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(dump.path(&dump.full), damaged).unwrap();
    refused("damaged", 1);
    fs::write(dump.path(&dump.full), full).unwrap();
    let whole = fs::read(dump.path(old)).unwrap();
    fs::write(dump.path(old), &whole[..whole.len() - 1]).unwrap();
    refused("FAIL", 1);
    fs::write(dump.path(old), whole).unwrap();
    // Wrong usage.
    for (args, text) in [
        (&["consolidate", dump.full.as_str()][..], "a full backup already"),
        (&["consolidate", "."], "a directory: which guest's differentials are meant?"),
        (&["consolidate", "--all-of", "999", "."], "there is no differential of that guest"),
        (&["consolidate", "nothing"], "no such file or directory"),
    ] {
        let ran = dump.ours(args);
        assert!(ran.code == Some(2) && ran.err.contains(text), "{text}: {}", ran.err);
    }
    let done = dump.ours(&["consolidate", old]);
    assert_eq!(done.code, Some(0), "{}", done.out);
}

#[test]
fn an_archive_that_is_not_whole_is_made_no_full() {
    let dump = Dump::new(true, COMPRESSIONS[0]);
    let broken = dump.full.clone() + "--differential-2026_11_24-01_00_02.vcdiff.zst";
    let base = format!("--stored-base={}", dump.path(&dump.full).display());
    let content = &dump.contents[0];
    dump.compressor(&["diff", &base, "--compress", "zstd"], &content[..content.len() / 2], &broken);
    let before = dump.names();
    let ran = dump.ours(&["consolidate", &broken]);
    assert!(ran.code == Some(1) && ran.out.contains("is no whole archive"), "{}", ran.out);
    assert_eq!(dump.names(), before);
}

#[test]
fn archives_of_the_originals_become_fulls_with_a_map() {
    let dump = Dump::new(true, ("lzo", ".lzo"));
    let old = dump.full.clone() + "--differential-2026_11_25-01_00_02.vcdiff.lzo";
    fs::write(dump.path("new"), &dump.contents[1]).unwrap();
    let command =
        "lzop -dc \"$1\" >full && xdelta3 -q -e -c -S none -s full <new | lzop -c >\"$2\" && rm full new";
    // The originals' xdelta3 read the full under its own name.
    let command = command.replace("-s full", "-A=\"//$1/\" -s full");
    let made = Command::new("bash")
        .args(["-o", "pipefail", "-ec", &command, "bash", &dump.full, &old])
        .current_dir(dump.dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let ran = dump.ours(&["consolidate", &old]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(dump.content(&dump.made(25)) == dump.contents[1]);
    assert!(!dump.names().contains(&old));
}

/// Whatever call into the system the program is killed at, the differential or the full backup is there and whole, what else is
/// left is recognised, and the same command ends the work.
#[test]
fn a_kill_at_any_step_loses_nothing() {
    let mut killed = 0;
    for call in
        ["fstatfs", "statfs", "fsync", "fchmod", "utimensat", "copy_file_range", "renameat2", "unlink"]
    {
        killed += (1..).take_while(|step| kill_at(call, *step)).count();
    }
    assert!(killed > 12, "{killed}");
}

/// Kills the program at a call, and checks what is left. The result is false where there is no such call any more.
fn kill_at(call: &str, step: usize) -> bool {
    let dump = Dump::new(false, COMPRESSIONS[0]);
    let (old, new) = (&dump.days[1], dump.made(22));
    let log = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(log.path())
        .args(["-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={step}")])
        .arg(env!("CARGO_BIN_EXE_pve-diff-backup"))
        .args(["consolidate", "--quiet", old])
        .current_dir(dump.dir.path())
        .output()
        .unwrap()
        .status;
    let names = dump.names();
    if status.success() {
        assert!(!names.contains(old), "{call} {step}");
        return false;
    }
    assert_eq!(status.signal(), Some(9), "{call} {step}");
    assert!(names.contains(old) || names.contains(&new), "{call} {step}: {names:?}");
    if names.contains(old) {
        let verified = dump.ours(&["verify", old]);
        assert_eq!(verified.code, Some(0), "{call} {step}: {}", verified.out);
    }
    if names.contains(&new) {
        assert!(dump.content(&new) == dump.contents[1], "{call} {step}");
        assert!(names.contains(&format!("{new}.protected")) && names.contains(&format!("{new}.notes")));
    }
    if names.contains(old) && names.contains(&new) {
        let chains = dump.ours(&["chains", "."]);
        let told = format!("{old}: there is a full backup of the same time");
        assert!(chains.out.contains(&told), "{call} {step}: {}", chains.out);
    }
    if let Some(left) = names.iter().find(|it| it.ends_with(".dat")) {
        let chains = dump.ours(&["chains", "."]);
        let told = format!("{left}: a killed backup left it unfinished");
        assert!(chains.out.contains(&told), "{call} {step}: {}", chains.out);
    }
    if names.contains(old) {
        let again = dump.ours(&["consolidate", old]);
        assert_eq!(again.code, Some(0), "{call} {step}: {}{}", again.out, again.err);
    }
    let stem = new.strip_suffix(".tar.zst").unwrap();
    let beside = [format!("{new}.notes"), format!("{new}.protected"), format!("{stem}.log")];
    let expected = [dump.full.clone(), dump.days[0].clone(), new.clone()].into_iter().chain(beside);
    assert_eq!(dump.names(), expected.collect(), "{call} {step}");
    assert!(dump.content(&new) == dump.contents[1], "{call} {step}");
    true
}
