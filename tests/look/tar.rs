//! Files out of a container's backup, compared with what tar unpacks.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Output;
use std::sync::Arc;

use pve_diff_backup::container::ReadAt;
use pve_diff_backup::files::{FileContent, read, walk, xattrs};
use pve_diff_backup::vcdiff::{WindowBuilder, write_header};

use super::work::{PROGRAM, Random, Work};

/// The kinds of archives that vzdump's tar makes, and others that are in use.
const FORMS: [&[&str]; 4] = [
    &["--format=posix", "--sparse", "--xattrs", "--xattrs-include=user.*", "--acls"],
    &["--format=gnu", "--sparse"],
    &["--format=posix", "--sparse", "--sparse-version=0.1"],
    &["--format=ustar"],
];

/// Makes the files of a container. `name` makes some of them differ.
pub fn tree(work: &Work, name: &str) {
    let mut random = Random(name.len() as u64);
    let at = |path: &str| work.path(&format!("{name}/{path}"));
    for folder in ["etc/empty", "usr/share/doc", "var/log"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("etc/hostname"), format!("{name}\n")).unwrap();
    fs::write(at("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(at("etc/nothing"), "").unwrap();
    fs::write(at("usr/share/doc/large"), random.bytes(3 << 20)).unwrap();
    fs::write(at(&format!("usr/share/{}", "long-name-".repeat(20))), "long").unwrap();
    fs::write(at("var/log/n\u{e4}me with\nnewline"), "odd").unwrap();
    fs::hard_link(at("etc/hosts"), at("usr/hosts")).unwrap();
    fs::hard_link(at("etc/hosts"), at("var/hosts")).unwrap();
    symlink("../usr/share", at("etc/share")).unwrap();
    symlink("/etc/shadow", at("etc/absolute")).unwrap();
    work.run("mkfifo", &[&format!("{name}/var/fifo")]);
    // Holes at the front, in the middle and at the end.
    work.disk(&format!("{name}/var/log/lastlog"), 9 << 20, &mut random, [3, 4, 900, 2000].into_iter());
    work.disk(&format!("{name}/var/hole"), 5 << 20, &mut random, std::iter::empty());
    for n in 0..300 {
        fs::write(at(&format!("usr/share/doc/{n}")), random.bytes(n * 7)).unwrap();
    }
    fs::set_permissions(at("etc/hostname"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::set_permissions(at("usr/share/doc/large"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(at("etc/empty"), PermissionsExt::from_mode(0o1777)).unwrap();
    let attribute = ["-n", "user.note", "-v", "kept", &format!("{name}/etc/hosts")];
    let _ = work.output("setfattr", &attribute);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(at("var/log/lastlog"), Some(1234), Some(100_000)).unwrap();
    }
    work.run(
        "touch",
        &["-d", "2026-11-01 02:03:04.5", &format!("{name}/etc/hosts"), &format!("{name}/var/log")],
    );
}

/// Tells all that can be compared of the files below a folder, apart from their content.
pub fn listing(work: &Work, folder: &str) -> String {
    // Files that another folder's test has open change no times here.
    let format = "%P\\0%y %m %U %G %s %n %l %T@\\n";
    let text = work.run("find", &[folder, "-mindepth", "1", "-printf", format]);
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

pub fn same(work: &Work, one: &str, other: &str, what: &str) {
    work.run("diff", &["-r", "--no-dereference", "--exclude=fifo", one, other]);
    assert_eq!(listing(work, one), listing(work, other), "{what}");
}

fn archive(work: &Work, name: &str, form: &[&str]) -> String {
    let file = format!("{name}.tar");
    let args = [&["--numeric-owner", "-cf", &file][..], form, &["-C", name, "."]].concat();
    work.run("tar", &args);
    file
}

fn fails(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn everything_is_as_tar_unpacks_it() {
    for (n, form) in FORMS.into_iter().enumerate() {
        let work = Work::new();
        tree(&work, "first");
        tree(&work, "second");
        for name in ["first", "second"] {
            if form == ["--format=ustar"] {
                fs::remove_file(work.path(&format!("{name}/usr/share/{}", "long-name-".repeat(20)))).unwrap();
            }
            archive(&work, name, form);
        }
        work.pipe(&["full"], "first.tar", "map.tar.zst");
        work.run("zstd", &["-q", "first.tar", "-o", "stock.tar.zst"]);
        work.pipe(
            &["diff", "--base", "map.tar.zst"],
            "second.tar",
            "map.tar.zst--differential-2026_11_05-02_00_00.vcdiff.zst",
        );
        let backups = [
            ("first.tar", "first.tar"),
            ("map.tar.zst", "first.tar"),
            ("stock.tar.zst", "first.tar"),
            ("map.tar.zst--differential-2026_11_05-02_00_00.vcdiff.zst", "second.tar"),
        ];
        for (k, (backup, plain)) in backups.into_iter().enumerate().filter(|(k, _)| n == 0 || k % 2 == 1) {
            let (ours, theirs) = (format!("ours-{k}"), format!("theirs-{k}"));
            fs::create_dir(work.path(&theirs)).unwrap();
            let mut args = vec!["--numeric-owner", "-xpf", plain, "-C", &theirs];
            args.extend(["--xattrs", "--xattrs-include=*"].iter().filter(|_| n == 0));
            work.run("tar", &args);
            // Twice: once by the headers themselves, once by those that were kept.
            work.run(PROGRAM, &["tar", "extract", backup, "-C", &ours]);
            same(&work, &ours, &theirs, backup);
            let listed = work.run(PROGRAM, &["tar", "list", backup]);
            let theirs_listed = work.run("tar", &["-tf", plain, "--quoting-style=literal"]);
            assert_eq!(
                listed.lines().count(),
                theirs_listed.replace("with\nnew", "with new").lines().count()
            );
            if n == 0 {
                let attribute = |folder: &str| {
                    let file = format!("{folder}/etc/hosts");
                    work.output("getfattr", &["--only-values", "-n", "user.note", &file]).stdout
                };
                assert_eq!(attribute(&ours), attribute(&theirs));
            }
            // Holes stay holes.
            let held =
                |path: &str| fs::metadata(work.path(&format!("{ours}/{path}"))).unwrap().blocks() * 512;
            assert!(
                held("var/hole") < 1 << 20 && held("var/log/lastlog") < 2 << 20 || form == ["--format=ustar"]
            );
        }
    }
}

#[test]
fn single_files_and_folders() {
    let work = Work::new();
    tree(&work, "first");
    archive(&work, "first", FORMS[0]);
    work.pipe(&["full"], "first.tar", "map.tar.zst");
    work.run(
        PROGRAM,
        &["tar", "extract", "map.tar.zst", "etc/hostname", "/usr/hosts", "./var/log", "-C", "out", "-v"],
    );
    assert_eq!(fs::read(work.path("out/etc/hostname")).unwrap(), b"first\n");
    // The file that it is another name of was not asked for.
    assert_eq!(fs::read(work.path("out/usr/hosts")).unwrap(), b"127.0.0.1 localhost\n");
    assert!(!work.path("out/etc/hosts").exists() && !work.path("out/usr/share").exists());
    same(&work, "out/var/log", "first/var/log", "a folder");
    // Nothing is replaced.
    fs::write(work.path("out/etc/hostname"), "mine").unwrap();
    let err = fails(
        &work.output(PROGRAM, &["tar", "extract", "map.tar.zst", "etc/hostname", "etc/hosts", "-C", "out"]),
    );
    assert!(
        err.contains("etc/hostname: File exists") && err.contains("1 file could not be written"),
        "{err}"
    );
    assert_eq!(fs::read(work.path("out/etc/hostname")).unwrap(), b"mine");
    assert!(work.path("out/etc/hosts").exists());
    let err = fails(&work.output(PROGRAM, &["tar", "extract", "map.tar.zst", "etc/none", "-C", "new"]));
    assert!(err.contains("there is no file \"etc/none\"") && !work.path("new").exists(), "{err}");
    let json = work.run(PROGRAM, &["tar", "list", "map.tar.zst", "--json", "etc"]);
    let hosts = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let hosts = hosts.into_iter().find(|line| line["name"] == "etc/hosts").unwrap();
    assert_eq!((hosts["size"].as_u64(), hosts["kind"].as_str()), (Some(20), Some("file")));
    let long =
        work.run(PROGRAM, &["tar", "list", "map.tar.zst", "--long", "etc/absolute", "usr/share/doc/large"]);
    assert!(long.contains(" etc/absolute -> /etc/shadow\n") && long.starts_with("lrwxrwxrwx 0/0 "), "{long}");
    assert!(long.contains("\n-rwsr-xr-x 0/0    3145728 "), "{long}");
}

#[test]
fn folders_and_files_as_streams() {
    let work = Work::new();
    tree(&work, "first");
    archive(&work, "first", FORMS[0]);
    work.pipe(&["full"], "first.tar", "map.tar.zst");
    let to = |args: &[&str], file: &str| {
        let mut command = work.command(PROGRAM, &[&["tar", "pack"], args].concat());
        command.stdout(fs::File::create(work.path(file)).unwrap()).output().unwrap()
    };
    let good = |args: &[&str], file: &str| {
        let output = to(args, file);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    // A file, also by another name, and with its holes.
    for (path, of) in
        [("usr/share/doc/large", ""), ("/usr/hosts", ""), ("var/log/lastlog", ""), ("etc/nothing", "")]
    {
        good(&["map.tar.zst", path], "file");
        let (ours, theirs) = (work.path("file"), work.path(&format!("first/{of}{path}")));
        assert!(fs::read(ours).unwrap() == fs::read(theirs).unwrap(), "{path}");
    }
    let err = fails(&to(&["map.tar.zst", "etc"], "file"));
    assert!(err.contains("it is no file"), "{err}");
    // All of it as tar, unpacked by tar, is what was archived.
    for form in ["tar", "tar.zst"] {
        assert_eq!(good(&["map.tar.zst", "--as", form, "/"], "all"), "");
        let (out, flag) =
            (format!("out-{form}"), if form == "tar" { "--no-auto-compress" } else { "--zstd" });
        fs::create_dir(work.path(&out)).unwrap();
        work.run(
            "tar",
            &["--numeric-owner", "--xattrs", "--xattrs-include=*", flag, "-xpf", "all", "-C", &out],
        );
        same(&work, &out, "first", form);
        assert!(fs::metadata(work.path(&format!("{out}/var/hole"))).unwrap().blocks() < 100);
        let linked = |name: &str| fs::metadata(work.path(&format!("{out}/{name}"))).unwrap().ino();
        assert_eq!(linked("etc/hosts"), linked("var/hosts"));
        let note = ["--only-values", "-n", "user.note", &format!("{out}/etc/hosts")];
        let theirs = ["--only-values", "-n", "user.note", "first/etc/hosts"];
        assert_eq!(work.output("getfattr", &note).stdout, work.output("getfattr", &theirs).stdout);
    }
    // A folder has its own name at the front; a link to a file outside of it becomes that file.
    good(&["map.tar.zst", "--as", "tar", "usr"], "usr.tar");
    let listed = work.run("tar", &["-tvf", "usr.tar", "usr/hosts", "usr/share/doc/0"]);
    assert!(
        listed.starts_with("-rw") && !listed.contains("link to") && listed.lines().count() == 2,
        "{listed}"
    );
    // And as zip, where Python finds no fault.
    let left = good(&["map.tar.zst", "--as", "zip", "/"], "all.zip");
    assert!(left.contains("var/fifo: a zip file cannot hold a device or a FIFO"), "{left}");
    let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
        for i in z.infolist():\n    mode = i.external_attr >> 16\n    if mode >> 12 == 8:\n        \
        assert z.read(i) == open('first/' + i.filename, 'rb').read(), i.filename\n        \
        assert mode & 0o7777 == __import__('os').stat('first/' + i.filename).st_mode & 0o7777, i.filename\n\
        print(len(z.infolist()), z.read('etc/absolute').decode())";
    if work.output("python3", &["--version"]).status.success() {
        let there =
            work.run("find", &["first", "-mindepth", "1", "-not", "-type", "p", "-printf", "x"]).len();
        assert_eq!(work.run("python3", &["-c", script, "all.zip"]), format!("{there} /etc/shadow\n"));
    }
}

#[test]
fn a_stream_of_what_is_damaged_is_not_whole_and_says_so() {
    let work = Work::new();
    fs::create_dir(work.path("in")).unwrap();
    fs::write(work.path("in/good"), "good").unwrap();
    fs::write(work.path("in/large"), Random(3).bytes(4 << 20)).unwrap();
    work.run("tar", &["-cf", "in.tar", "-C", "in", "good", "large"]);
    work.pipe(&["full"], "in.tar", "map.tar.zst");
    let mut bytes = fs::read(work.path("map.tar.zst")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 100].fill(0);
    fs::write(work.path("map.tar.zst"), bytes).unwrap();
    let pack =
        |form: &str, path: &str| work.output(PROGRAM, &["tar", "pack", "map.tar.zst", "--as", form, path]);
    assert_eq!(pack("file", "good").stdout, b"good");
    for (form, path) in [("file", "large"), ("tar", "/"), ("tar.zst", "/"), ("zip", "/")] {
        let output = pack(form, path);
        let err = fails(&output);
        assert!(err.contains("is not written as a whole") && err.contains("map.tar.zst"), "{err}");
        assert!(
            !output.stdout.ends_with(&[0; 1024]) && !output.stdout.windows(4).any(|w| w == b"PK\x05\x06"),
            "{form}"
        );
    }
}

#[test]
fn a_stream_of_a_hostile_archive_leads_nowhere() {
    let work = Work::new();
    let evil = [
        file("../outside/up", "evil"),
        file("a/../../outside/up", "evil"),
        file("/outside/absolute", "evil"),
        file("b\\..\\..\\up", "evil"),
        header("hard", b'1', "../outside/kept", 0),
        header("null", b'3', "", 0),
        header("late", b'1', "good", 0),
        file("good", "good"),
        file("good/below", "evil"),
        file("n\\x2dm", "name"),
        END.to_vec(),
    ];
    fs::write(work.path("evil.tar"), evil.concat()).unwrap();
    for (form, names) in [
        ("tar", vec!["./", "b\\..\\..\\up", "good", "n\\x2dm", "null", "outside/", "outside/absolute"]),
        ("zip", vec!["b_.._.._up", "good", "n\\x2dm", "outside/", "outside/absolute"]),
    ] {
        let output = work.output(PROGRAM, &["tar", "pack", "evil.tar", "--as", form, "/"]);
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{err}");
        for told in [
            "hard: its name leads out",
            "../outside/up: its name leads out",
            "late: the file that it is another name of",
        ] {
            assert!(err.contains(told), "{err}");
        }
        assert!(err.contains("good: it is no folder"), "{err}");
        let out = format!("evil.{form}.out");
        fs::write(work.path(&out), output.stdout).unwrap();
        let listed = match form {
            "tar" => work.run("tar", &["-tf", &out, "--quoting-style=literal"]),
            _ if !work.output("python3", &["--version"]).status.success() => continue,
            _ => {
                let script =
                    "import sys, zipfile\nprint(*zipfile.ZipFile(sys.argv[1]).namelist(), sep='\\n')";
                work.run("python3", &["-c", script, &out])
            }
        };
        assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    }
}

#[test]
fn what_the_web_interface_asks() {
    let work = Work::new();
    tree(&work, "first");
    archive(&work, "first", FORMS[0]);
    work.run("zstd", &["-q", "first.tar", "-o", "stock.tar.zst"]);
    let ask = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&work.run(PROGRAM, &[&["tar", "browse"], args].concat())).unwrap()
    };
    // Nothing is read but what is kept.
    assert_eq!(ask(&["stock.tar.zst", "/"])["state"], "unread");
    let said = work.run(PROGRAM, &["tar", "browse", "--build", "stock.tar.zst", "/"]);
    assert!(said.lines().all(|line| line.ends_with(" %") || line.ends_with(" MiB")), "{said}");
    let top = ask(&["stock.tar.zst", "/"]);
    let text: Vec<_> = top["entries"].as_array().unwrap().iter().map(|entry| &entry["text"]).collect();
    assert_eq!(text, ["etc", "usr", "var"]);
    let entry = ask(&["stock.tar.zst", "/usr/share/doc/large"]);
    assert_eq!((&entry["state"], &entry["entry"]["size"]), (&"file".into(), &(3 << 20).into()));
    let many = ask(&["stock.tar.zst", "--most", "300", "usr/share/doc"]);
    assert_eq!((&many["state"], &many["count"]), (&"many".into(), &301.into()));
    let odd = ask(&["stock.tar.zst", "var/log"]);
    assert_eq!(odd["entries"][1]["text"], "n\u{e4}me with\\nnewline");
    assert_eq!(odd["entries"][1]["name"], "6ec3a46d6520776974680a6e65776c696e65");
    symlink("stock.tar.zst", work.path("link.tar.zst")).unwrap();
    let err = fails(&work.output(PROGRAM, &["tar", "browse", "link.tar.zst", "/"]));
    assert!(err.contains("symbolic link"), "{err}");
    let err = fails(&work.output(PROGRAM, &["tar", "pack", "--stored", "link.tar.zst", "etc/hosts"]));
    assert!(err.contains("symbolic link"), "{err}");
}

/// A header of a member with a kind, for archives that no tar would make.
fn header(name: &str, kind: u8, link: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000755");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[329..336].copy_from_slice(b"0000001");
    block[337..344].copy_from_slice(b"0000003");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn file(name: &str, content: &str) -> Vec<u8> {
    let mut out = header(name, b'0', "", content.len() as u64);
    out.extend(content.as_bytes());
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn pax(records: &str) -> Vec<u8> {
    let mut out = header("pax", b'x', "", records.len() as u64);
    out.extend(records.as_bytes());
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

const END: [u8; 1024] = [0; 1024];

#[test]
fn hostile_archives_stay_inside() {
    let work = Work::new();
    fs::create_dir(work.path("outside")).unwrap();
    fs::write(work.path("outside/kept"), "mine").unwrap();
    let outside = work.path("outside").to_str().unwrap().to_owned();
    let evil = [
        file("../outside/up", "evil"),
        file("a/../../outside/up", "evil"),
        file(&format!("{outside}/absolute"), "evil"),
        header("planted", b'2', &outside, 0),
        file("planted/through", "evil"),
        header("up", b'2', "../outside", 0),
        header("up/folder", b'5', "", 0),
        header("hard", b'1', "../outside/kept", 0),
        header("hard2", b'1', "planted/kept", 0),
        header("null", b'3', "", 0),
        header("disk", b'4', "", 0),
        file("good", "good"),
        END.to_vec(),
    ]
    .concat();
    fs::write(work.path("evil.tar"), &evil).unwrap();
    let err = fails(&work.output(PROGRAM, &["tar", "extract", "evil.tar", "-C", "out"]));
    assert_eq!(fs::read(work.path("out/good")).unwrap(), b"good");
    let there: Vec<_> = fs::read_dir(work.path("outside")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(there, ["kept"]);
    assert_eq!(fs::read(work.path("outside/kept")).unwrap(), b"mine");
    assert_eq!(fs::metadata(work.path("outside/kept")).unwrap().nlink(), 1);
    assert!(err.contains("its name leads out of the folder"), "{err}");
    assert!(err.contains("null: it is a device file, which is made with --devices only"), "{err}");
    assert!(!work.path("out/null").exists() && !work.path("out/disk").exists());
    // A link that lies there already is not followed either.
    fs::create_dir(work.path("target")).unwrap();
    symlink(&outside, work.path("target/dir")).unwrap();
    fs::write(work.path("dir.tar"), [file("dir/new", "x"), END.to_vec()].concat()).unwrap();
    let err = fails(&work.output(PROGRAM, &["tar", "extract", "dir.tar", "-C", "target"]));
    assert!(err.contains("symbolic link or a file, which is not followed"), "{err}");
    assert!(!work.path("outside/new").exists());
}

#[test]
fn a_hard_link_leads_to_the_file_that_bore_the_name_then() {
    let work = Work::new();
    fs::create_dir(work.path("in")).unwrap();
    fs::write(work.path("in/a"), "one").unwrap();
    fs::hard_link(work.path("in/a"), work.path("in/b")).unwrap();
    work.run("tar", &["-cf", "twice.tar", "-C", "in", "a", "b"]);
    fs::write(work.path("in/new"), "two").unwrap();
    fs::rename(work.path("in/new"), work.path("in/a")).unwrap();
    work.run("tar", &["-rf", "twice.tar", "-C", "in", "a"]);
    fs::create_dir(work.path("theirs")).unwrap();
    work.run("tar", &["-xf", "twice.tar", "-C", "theirs"]);
    work.run(PROGRAM, &["tar", "extract", "twice.tar", "-C", "ours"]);
    for name in ["a", "b"] {
        let content = |folder: &str| fs::read_to_string(work.path(&format!("{folder}/{name}"))).unwrap();
        assert_eq!(content("ours"), content("theirs"), "{name}");
    }
    // One that comes before its file leads nowhere.
    fs::write(work.path("early.tar"), [header("b", b'1', "a", 0), file("a", "late"), END.to_vec()].concat())
        .unwrap();
    let err = fails(&work.output(PROGRAM, &["tar", "extract", "early.tar", "-C", "early"]));
    assert!(err.contains("b: the file that it is another name of is not in the archive"), "{err}");
    assert!(work.path("early/a").exists() && !work.path("early/b").exists());
}

#[test]
fn a_file_stays_where_something_beside_its_content_cannot_be_set() {
    let work = Work::new();
    let acl = "SCHILY.acl.access=no ACL\n";
    let archive = [pax(&format!("{} {acl}", acl.len() + 3)), file("kept", "whole"), END.to_vec()].concat();
    fs::write(work.path("acl.tar"), archive).unwrap();
    let output = work.output(PROGRAM, &["tar", "extract", "acl.tar", "-C", "out"]);
    assert_eq!(fs::read(work.path("out/kept")).unwrap(), b"whole");
    // Who is not root sets no ACLs.
    if rustix::process::geteuid().is_root() {
        let err = fails(&output);
        assert!(err.contains("kept: its ACL cannot be understood"), "{err}");
    }
}

#[test]
fn folders_that_are_there_stay_as_they_are() {
    let work = Work::new();
    let archive = [header("", b'5', "", 0), header("etc", b'5', "", 0), file("etc/new", "x"), END.to_vec()];
    fs::write(work.path("open.tar"), archive.concat()).unwrap();
    fs::create_dir_all(work.path("out/etc")).unwrap();
    let mode = |name: &str| fs::metadata(work.path(name)).unwrap().permissions().mode() & 0o7777;
    for name in ["out", "out/etc"] {
        fs::set_permissions(work.path(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    work.run(PROGRAM, &["tar", "extract", "open.tar", "-C", "out"]);
    assert_eq!((mode("out"), mode("out/etc"), mode("out/etc/new")), (0o700, 0o700, 0o755));
    work.run(PROGRAM, &["tar", "extract", "open.tar", "-C", "made"]);
    assert_eq!((mode("made"), mode("made/etc")), (0o755, 0o755));
}

#[test]
fn many_hard_links_are_no_attack() {
    let work = Work::new();
    let mut archive = file("first", "x");
    for n in 0..60_000 {
        archive.extend(header(&format!("new/1700000000.M{n}P123.host.example.org:2,S"), b'1', "first", 0));
    }
    archive.extend(END);
    fs::write(work.path("links.tar"), archive).unwrap();
    assert_eq!(work.run(PROGRAM, &["tar", "list", "links.tar"]).lines().count(), 60_001);
}

#[test]
fn a_window_that_copies_from_its_own_end_does_not_hang() {
    let work = Work::new();
    let (adds, copies) = (100_000, 20_000);
    let size = 5 * adds + 5 * copies;
    let mut window = WindowBuilder::new();
    window.add(&header("file", b'0', "", size as u64));
    let mut content = Vec::new();
    for n in 0..adds + copies {
        window.add(&[n as u8]);
        window.copy_target(if n < adds { 0 } else { 512 + 5 * adds - 4 }, 4);
        content.extend([n as u8]);
        content.extend(if n < adds { *b"file" } else { content[5 * adds - 4..5 * adds].try_into().unwrap() });
    }
    window.run(0, size.next_multiple_of(512) - size + 1024);
    let mut delta = write_header(Some(b"x//"), None);
    window.finish(None, &mut delta);
    fs::write(work.path("far.vcdiff"), &delta).unwrap();
    // Seconds of processor time, of which it needs less than one.
    let command = format!("ulimit -t 60 && exec {PROGRAM} tar extract far.vcdiff -C out");
    let output = work.output("bash", &["-c", &command]);
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read(work.path("out/file")).unwrap() == content);
}

#[test]
fn malformed_archives_are_refused() {
    let work = Work::new();
    let huge = u64::MAX / 2;
    let mut wrong_sum = file("a", "x");
    wrong_sum[0] = b'b';
    let deep = format!("{}x", "d/".repeat(5000));
    let deep = format!("{} path={deep}\n", deep.len() + 12);
    for (what, bytes, expected) in [
        ("cut content", header("a", b'0', "", 4096), "cut short"),
        ("no end", file("a", "x"), "cut short"),
        ("wrong sum", [wrong_sum, END.to_vec()].concat(), "does not match its checksum"),
        ("a record too long", [pax("99 path=x\n"), file("a", "x"), END.to_vec()].concat(), "pax record"),
        ("huge headers", header("a", b'x', "", 0o77777777777), "too long"),
        (
            "a huge size",
            [pax(&format!("28 size={huge}\n")), file("a", "x"), END.to_vec()].concat(),
            "cut short",
        ),
        ("announced, not there", [pax("9 uid=12\n"), END.to_vec()].concat(), "announced member"),
        (
            "endless map",
            [pax("26 GNU.sparse.realsize=99\n22 GNU.sparse.major=1\n"), file("a", "9999\n1\n"), END.to_vec()]
                .concat(),
            "sparse map",
        ),
    ] {
        fs::write(work.path("bad.tar"), [bytes, Vec::new()].concat()).unwrap();
        let output = work.output(PROGRAM, &["tar", "extract", "bad.tar", "-C", "out"]);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && err.contains(expected), "{what}: {err}");
    }
    // Too many folders for one name: it is led astray, not followed.
    fs::write(work.path("deep.tar"), [pax(&deep), file("a", "x"), file("b", "x"), END.to_vec()].concat())
        .unwrap();
    let output = work.output(PROGRAM, &["tar", "extract", "deep.tar", "-C", "out2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(work.path("out2/b").exists());
}

#[test]
fn damage_costs_the_files_that_have_it() {
    let work = Work::new();
    tree(&work, "first");
    archive(&work, "first", FORMS[0]);
    work.pipe(&["full"], "first.tar", "map.tar.zst");
    // The names are known from before, so that the walk does not meet the damage.
    work.run(PROGRAM, &["tar", "list", "map.tar.zst"]);
    let headers: Vec<_> = fs::read_dir(work.path("cache/pve-xdelta3")).unwrap().collect();
    assert_eq!(headers.len(), 1);
    let size = fs::metadata(work.path("map.tar.zst")).unwrap().len();
    work.damage("map.tar.zst", size / 2);
    let output = work.output(PROGRAM, &["tar", "extract", "map.tar.zst", "-C", "out"]);
    // Where a header is damaged, too, nothing can be told; else all but some files are there, and none is wrong.
    let err = fails(&output);
    assert!(err.contains("damaged"), "{err}");
    for entry in
        walkdir::WalkDir::new(work.path("out")).into_iter().flatten().filter(|e| e.file_type().is_file())
    {
        let inside = entry.path().strip_prefix(work.path("out")).unwrap().to_owned();
        assert!(
            fs::read(entry.path()).unwrap() == fs::read(work.path("first").join(&inside)).unwrap(),
            "{inside:?}"
        );
    }
}

#[test]
fn a_vm_is_no_container_and_the_other_way_round() {
    let (work, _) = Work::with_backups();
    let err = fails(&work.output(PROGRAM, &["tar", "list", "map.vma.zst"]));
    assert!(err.contains("is a VM's backup, not a container's: see pve-xdelta3 vma"), "{err}");
    fs::write(work.path("text"), "text".repeat(999)).unwrap();
    let err = fails(&work.output(PROGRAM, &["tar", "list", "text"]));
    assert!(err.contains("is no container's backup"), "{err}");
}

#[test]
fn no_archive_makes_it_panic() {
    let work = Work::new();
    fs::create_dir(work.path("t")).unwrap();
    fs::write(work.path("t/file"), "content").unwrap();
    fs::hard_link(work.path("t/file"), work.path("t/link")).unwrap();
    let mut random = Random(5);
    work.disk("t/sparse", 1 << 20, &mut random, [1, 7, 200].into_iter());
    for form in FORMS {
        let name = archive(&work, "t", form);
        let good = fs::read(work.path(&name)).unwrap();
        let end = good.iter().rposition(|b| *b != 0).unwrap() as u64;
        for _ in 0..200 {
            let mut bad = good.clone();
            for _ in 0..=random.below(3) {
                // Mostly in headers, with their sums made right again.
                let block = random.below(end / 512) as usize * 512;
                let at = block + [0, 100, 124, 148, 156, 257, 386, 482, 0][random.below(9) as usize];
                bad[at + random.below(12) as usize] = random.below(256) as u8;
                bad[block + 148..block + 156].fill(b' ');
                let sum: u32 = bad[block..block + 512].iter().map(|b| u32::from(*b)).sum();
                bad[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let content: Arc<dyn ReadAt> = Arc::new(bad);
            let mut kept = Vec::new();
            let Ok(tree) = walk(&*content, content.size(), &mut kept) else { continue };
            let again = read(&kept[..], content.size(), content.size()).unwrap();
            assert_eq!(tree.members(), again.members());
            for member in tree.members() {
                let Ok(file) = FileContent::open(&content, member) else { continue };
                let mut buf = vec![0; file.size().min(3 << 20) as usize];
                let _ = (file.read_at(0, &mut buf), xattrs(&*content, member));
            }
        }
    }
}
