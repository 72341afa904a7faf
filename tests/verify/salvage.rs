//! `pve-xdelta3 restore --salvage`: whatever is damaged of a container's backup, each file is as it was, or listed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const FULL: &str = "vzdump-lxc-100-2026_11_20-01_00_02.tar";

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Runs a program that must succeed.
fn run(program: &str, args: &[&str], dir: &Path) -> Vec<u8> {
    let Output { status, stdout, stderr } =
        Command::new(program).args(args).current_dir(dir).output().unwrap();
    assert!(status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&stderr));
    stdout
}

/// A container's files of a day. One of them is itself an archive.
fn tree(dir: &Path, day: u64) {
    let mut random = Random(5);
    for n in 0..40 {
        let folder = dir.join(format!("srv/{}", n % 5));
        fs::create_dir_all(&folder).unwrap();
        let len = [0, 100, 3000, 70_000, 400_000][n % 5] + n;
        let mut bytes = random.bytes(len);
        if n % 7 == 0 && !bytes.is_empty() {
            bytes[len / 2] = day as u8;
        }
        fs::write(folder.join(format!("file-{n}")), bytes).unwrap();
    }
    fs::write(dir.join(format!("srv/{}", "n".repeat(150))), random.bytes(5000)).unwrap();
    fs::write(dir.join(format!("new-{day}")), random.bytes(30_000)).unwrap();
    fs::hard_link(dir.join("srv/3/file-8"), dir.join("srv/linked")).unwrap();
    std::os::unix::fs::symlink("srv/linked", dir.join("to")).unwrap();
    let sparse = fs::File::create(dir.join("srv/sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    sparse.write_all_at(&random.bytes(60_000), 1 << 20).unwrap();
    fs::create_dir(dir.join("inner")).unwrap();
    for n in 0..6 {
        fs::write(dir.join(format!("inner/file-{n}")), random.bytes(20_000)).unwrap();
    }
    run("tar", &["c", "--sort=name", "-f", "srv/inner.tar", "./inner"], dir);
    fs::remove_dir_all(dir.join("inner")).unwrap();
}

/// The regular files below a folder, by their paths.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir).into_iter().map(|it| it.unwrap()) {
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(dir).unwrap().to_owned();
            found.insert(path, fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// A backup in each form, and what it holds.
struct Bed {
    dir: TempDir,
    /// The files that the archive to salvage holds, and those of the archive within it.
    files: BTreeMap<PathBuf, Vec<u8>>,
    inner: BTreeMap<PathBuf, Vec<u8>>,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        for day in [1, 2] {
            let root = dir.path().join(format!("root-{day}"));
            fs::create_dir(&root).unwrap();
            tree(&root, day);
            // As vzdump calls it.
            let file = format!("../day-{day}.tar");
            run("tar", &["c", "--sort=name", "--sparse", "--numeric-owner", "-f", &file, "."], &root);
        }
        let files = files(&dir.path().join("root-2"));
        let unpacked = dir.path().join("inner");
        fs::create_dir(&unpacked).unwrap();
        run("tar", &["x", "-f", "../root-2/srv/inner.tar"], &unpacked);
        let inner = self::files(&unpacked);
        Bed { dir, files, inner }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shell(&self, command: &str) {
        let command = command.replace("pve-xdelta3", env!("CARGO_BIN_EXE_pve-xdelta3"));
        run("sh", &["-c", &command], self.dir.path());
    }

    /// Salvages a file, and compares everything that comes out. Returns the exit code and the list.
    fn salvage(&self, name: &str, what: &str) -> (i32, Value) {
        let [out, list] = ["out.tar", "list.json"].map(|it| self.path(it));
        let _ = [&out, &list].map(fs::remove_file);
        let salvaged = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
            .args(["restore", "--salvage", "--quiet", "--json", "list.json", "-o", "out.tar", name])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let (code, told) = (salvaged.status.code().unwrap(), String::from_utf8(salvaged.stderr).unwrap());
        if code == 1 {
            assert!(!out.exists() && !list.exists(), "{what}: {told}");
            return (1, Value::Null);
        }
        let list: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
        assert_eq!((code == 0, list["whole"].as_bool().unwrap()), (code == 0, code == 0), "{what}: {told}");
        assert!(code == 0 || code == 4, "{what}: {code} {told}");
        let unpacked = self.path("unpacked");
        let _ = fs::remove_dir_all(&unpacked);
        fs::create_dir(&unpacked).unwrap();
        run("tar", &["x", "-f", "../out.tar"], &unpacked);
        let mut left = self.files.clone();
        for (path, bytes) in files(&unpacked) {
            let text = path.to_str().unwrap().to_owned();
            let lost = |name: &str| {
                let entries = list["partial"].as_array().unwrap();
                let entry = entries.iter().find(|it| it["written"].as_str() == Some(name));
                entry.map(|it| it["lost"].as_array().unwrap().clone()).unwrap_or_default()
            };
            let place = text.split_once('/').filter(|(folder, _)| folder.starts_with("unproved-"));
            let plain = place.map_or(text.as_str(), |(_, rest)| rest);
            let (plain, holes) = match plain.strip_suffix(".incomplete") {
                Some(plain) => (plain, lost(&format!("./{text}"))),
                None => (plain, Vec::new()),
            };
            assert_eq!(text.ends_with(".incomplete"), !holes.is_empty(), "{what}: {text}");
            // What was found behind damage may be of the archive within.
            let outer = self.files.get(Path::new(plain));
            let inner = self.inner.get(Path::new(plain)).filter(|_| place.is_some());
            let right = outer.or(inner).unwrap_or_else(|| panic!("{what}: {text} was never there"));
            let mut expected = right.clone();
            for hole in &holes {
                let end = |key| hole[key].as_u64().unwrap() as usize;
                expected[end("from")..end("to")].fill(0);
            }
            // What breaks off ends before what is lost.
            if bytes.len() < expected.len() && holes.last().is_some_and(|it| it["to"] == right.len()) {
                expected.truncate(bytes.len());
            }
            let path = format!("./{text}");
            let doubtful = list["unproved_content"].as_array().unwrap().iter().any(|it| it == path.as_str());
            // What is not compressed has checksums of its headers alone.
            let unseen = what.starts_with("nothing");
            assert!(bytes == expected || doubtful || unseen, "{what}: {text} is another");
            left.remove(Path::new(plain));
        }
        // What is not there is listed, or its header is lost.
        for path in left.keys() {
            let name = format!("./{}", path.display());
            let listed = list["partial"].as_array().unwrap().iter().any(|it| it["name"] == name.as_str());
            let damage = list["damage"].as_array().unwrap();
            assert!(listed || (code == 4 && !damage.is_empty()), "{what}: {name} is gone: {told}");
        }
        (code, list)
    }
}

/// The commands that make the file of each form, and its name.
fn forms() -> [(&'static str, String, &'static str); 6] {
    let differential = format!("{FULL}.zst--differential-2026_11_21-01_00_02.vcdiff.zst");
    [
        ("a map", format!("{FULL}.zst"), "pve-xdelta3 full <day-2.tar >$F"),
        ("stock zstd", format!("{FULL}.zst"), "zstd -q -1 <day-2.tar >$F"),
        ("lzop", format!("{FULL}.lzo"), "pve-xdelta3 full --compress lzo <day-2.tar >$F"),
        ("gzip", format!("{FULL}.gz"), "gzip -1 <day-2.tar >$F"),
        ("nothing", FULL.into(), "cp day-2.tar $F"),
        (
            "a differential",
            differential,
            "pve-xdelta3 full <day-1.tar >$B && pve-xdelta3 diff --base=$B <day-2.tar >$F",
        ),
    ]
}

#[test]
fn whatever_is_damaged_each_file_is_as_it_was_or_listed() {
    let bed = Bed::new();
    let mut random = Random(11);
    for (form, name, made) in forms() {
        let base = format!("{FULL}.zst");
        bed.shell(&made.replace("$F", &name).replace("$B", &base));
        let (code, list) = bed.salvage(&name, form);
        assert_eq!((code, list["partial"].as_array().unwrap().len()), (0, 0), "{form}");
        let mut seen = [0; 5];
        // Of a differential, its full is damaged as well.
        let victims = if form == "a differential" { vec![&name, &base] } else { vec![&name] };
        for victim in victims {
            let whole = fs::read(bed.path(victim)).unwrap();
            for n in 0..4 {
                let mut bytes = whole.clone();
                let at = random.next() as usize % (bytes.len() - 300);
                let len = 1 + random.next() as usize % 300;
                if n == 3 {
                    bytes.truncate(at);
                } else {
                    bytes[at..at + len].iter_mut().for_each(|byte| *byte ^= 0x5a);
                }
                fs::write(bed.path(victim), &bytes).unwrap();
                let what = format!("{form}: {len} bytes of {victim} at {at} of {} ({n})", whole.len());
                seen[bed.salvage(&name, &what).0 as usize] += 1;
            }
            fs::write(bed.path(victim), &whole).unwrap();
        }
        assert!(seen[4] >= 1, "{form}: {seen:?}");
        for file in [&name, &base] {
            let _ = fs::remove_file(bed.path(file));
        }
    }
}

/// A block of the archive's structure in the middle is lost: what follows is found, apart from the rest.
#[test]
fn what_is_found_behind_a_lost_header_lies_apart() {
    let bed = Bed::new();
    let mut bytes = fs::read(bed.path("day-2.tar")).unwrap();
    let at = bytes.chunks(512).position(|it| it.starts_with(b"./srv/2/file-12\0")).unwrap() * 512;
    bytes[at..at + 512].fill(0xff);
    fs::write(bed.path(FULL), &bytes).unwrap();
    let (code, list) = bed.salvage(FULL, "a lost header");
    assert_eq!((code, list["unproved"].as_object().unwrap().len()), (4, 1), "{list}");
    let found = list["unproved"]["./unproved-1"].as_u64().unwrap();
    assert!(found > 15 && list["members"].as_u64().unwrap() > 10, "{list}");
    assert!(bed.path("unpacked/unproved-1/srv/sparse").exists());
}

#[test]
fn it_is_never_the_default_and_only_for_containers() {
    let bed = Bed::new();
    fs::copy(bed.path("day-2.tar"), bed.path(FULL)).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
            .args(args)
            .current_dir(bed.dir.path())
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["restore", "--json", "list", FULL]).0, 2);
    assert_eq!(run(&["restore", FULL]).0, 1);
    fs::write(bed.path("vm.vma"), super::dump::machine(1, 1)).unwrap();
    let (code, told) = run(&["restore", "--salvage", "vm.vma"]);
    assert!(code == 1 && told.contains("vma extract --salvage gets what is left"), "{told}");
    fs::write(bed.path("noise"), Random(3).bytes(100_000)).unwrap();
    let (code, told) = run(&["restore", "--salvage", "noise", "-o", "out"]);
    assert!(code == 1 && told.contains("nothing of the archive can be read"), "{told}");
    assert!(!bed.path("out").exists());
}
