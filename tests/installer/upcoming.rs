//! Upgrades that have not happened yet: `test --deb`, `new-version` and apt's hook, on package files made here.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{CREATE, Host, INDEX, PATCHSET, Ran, STORAGE, VZDUMP, sha256_hex};

/// Makes a package file as dpkg-buildpackage does, with md5sums.
pub fn deb(host: &Host, package: &str, version: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write(
        "DEBIAN/control",
        &format!(
            "Package: {package}\nVersion: {version}\nArchitecture: all\nMaintainer: us\nDescription: a test\n"
        ),
    );
    let mut sums = String::new();
    for (path, content) in files {
        write(path, content);
        sums += &format!("{}  {path}\n", pve_diff_backup::host::dpkg::md5_hex(content.as_bytes()));
    }
    write("DEBIAN/md5sums", &sums);
    let file = host.root().with_file_name(format!("{package}_{version}_all.deb"));
    let mut build = Command::new("dpkg-deb");
    let output = build.args(["--build", "--root-owner-group"]).arg(dir.path()).arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    file
}

/// `test --deb` must end with `code`, write nothing, and say the same as JSON.
#[track_caller]
fn tried(host: &Host, debs: &[&Path], code: i32) -> (Ran, serde_json::Value) {
    let before = host.snapshot();
    let run = |arguments: &[&str]| {
        Ran::of(host.command(arguments).arg("--deb").args(debs).output().unwrap()).code(code)
    };
    let (said, json) = (run(&["test"]), run(&["test", "--json"]));
    assert_eq!(host.snapshot(), before, "it wrote something");
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["exit"], code);
    (said, json)
}

#[test]
fn an_upgrade_that_fits_on_a_host_patched_or_not() {
    for patched in [false, true] {
        let host = Host::new();
        if patched {
            host.run(&["apply"]).ok();
        }
        let new = host
            .text(CREATE)
            .replace("return 1", "return 2")
            .replace("my $ours = 1; # pve-diff-backup:1 restore", "");
        let new: String =
            new.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect();
        let file = deb(&host, "pve-container", "6.0.9", &[(CREATE, &new)]);
        let (said, json) = tried(&host, &[&file], 0);
        assert!(said.out.contains("pve-container 6.0.1 -> 6.0.9"), "{said:?}");
        assert!(said.out.contains(&format!("/{CREATE}: loads")), "{said:?}");
        assert_eq!(json["packages"][0]["to"], "6.0.9");
        assert_eq!(json["verified"], true, "the version is in the set's range");
    }
}

#[test]
fn an_upgrade_that_does_not_fit_ends_as_apply_would() {
    let host = Host::new();
    let create = host.text(CREATE);
    let vzdump = host.text(VZDUMP);
    let page = host.text(INDEX);
    let one = |package: &str, files: &[(&str, &str)], code: i32, words: &[&str]| {
        let file = deb(&host, package, "9.9", files);
        let (said, json) = tried(&host, &[&file], code);
        let reasons = json["reasons"].to_string();
        for word in words {
            assert!(said.err.contains(word) && reasons.contains(word), "no {word:?}: {said:?}");
        }
        std::fs::remove_file(file).unwrap();
    };
    let renamed = create.replace("sub restore {", "sub restored {");
    one(
        "pve-container",
        &[(CREATE, &renamed)],
        8,
        &["pve-container 9.9", CREATE, "^sub restore {", "release"],
    );
    let twice = create.replace("\n1;\n", "\nsub restore {\n}\n1;\n");
    one("pve-container", &[(CREATE, &twice)], 9, &["pve-container 9.9", "lines 4, 7"]);
    one("pve-container", &[("usr/share/doc/x", "")], 7, &[CREATE, "does not ship it"]);
    let spoilt = page.replace("<html>", "<html><script>");
    one(
        "pve-manager",
        &[(VZDUMP, &vzdump), (INDEX, &spoilt.replace("</script>", ""))],
        11,
        &["pve-manager 9.9", INDEX, "inside of a `<script`"],
    );
    let other = host.text(STORAGE).replace("our $RE", "our $OTHER");
    one("libpve-storage-perl", &[(STORAGE, &other)], 5, &["our $RE = ..."]);
}

#[test]
fn a_package_file_that_contradicts_its_own_checksums_is_no_edit_of_this_host() {
    let host = Host::new();
    let file = deb(&host, "pve-container", "9.9", &[(CREATE, &host.text(CREATE))]);
    let tree = host.root().with_file_name("tree");
    let script =
        "dpkg-deb -R \"$DEB\" \"$TREE\" && echo '# more' >>\"$TREE/$FILE\" && dpkg-deb -b \"$TREE\" \"$DEB\"";
    let mut sh = Command::new("sh");
    let made =
        sh.args(["-c", script]).env("TREE", tree).env("DEB", &file).env("FILE", CREATE).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let (said, _) = tried(&host, &[&file], 1);
    for word in [file.to_str().unwrap(), CREATE, "its own checksums", "get it anew"] {
        assert!(said.err.contains(word), "no {word}: {said:?}");
    }
    assert!(!said.err.contains("somebody else edited"), "{said:?}");
}

#[test]
fn modules_load_with_what_comes_along() {
    let host = Host::new();
    let new = host.text(CREATE).replace("use strict;", "use strict;\nuse PVE::ComesAlong;");
    let file = deb(&host, "pve-container", "6.0.9", &[(CREATE, &new)]);
    let check = |debs: &[&Path]| {
        let (_, json) = tried(&host, debs, 0);
        let modules = json["modules"].as_array().unwrap().clone();
        modules.into_iter().find(|module| module["path"] == CREATE).unwrap()["check"].clone()
    };
    assert_eq!(check(&[&file]), "compiles");
    let along = ("usr/share/perl5/PVE/ComesAlong.pm", "package PVE::ComesAlong;\n1;\n");
    let common = deb(&host, "libpve-common-perl", "9.9", &[along]);
    assert_eq!(check(&[&file, &common]), "loads");
}

#[test]
fn what_is_no_package_file_is_an_error() {
    let host = Host::new();
    let file = host.root().with_file_name("x.deb");
    for content in [&b""[..], b"!<arch>\n", b"PK\x03\x04"] {
        std::fs::write(&file, content).unwrap();
        let (said, _) = tried(&host, &[&file], 1);
        assert!(said.err.contains("x.deb"), "{said:?}");
    }
    let whole = deb(&host, "pve-container", "6.0.9", &[(CREATE, &host.text(CREATE))]);
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 40]).unwrap();
    let (said, _) = tried(&host, &[&file], 1);
    assert!(said.err.contains("x.deb"), "{said:?}");
    tried(&host, &[Path::new("/nowhere.deb")], 1);
}

/// What apt tells on standard input, through the hook.
fn hooked(host: &Host, files: &[&Path]) -> String {
    let mut child = host
        .command(&["hook", "preflight"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    files.iter().for_each(|file| writeln!(stdin, "{}", file.display()).unwrap());
    drop(stdin);
    Ran::of(child.wait_with_output().unwrap()).ok().err
}

#[test]
fn apt_is_warned_before_it_installs() {
    let host = Host::new();
    let good = deb(&host, "pve-container", "6.0.9", &[(CREATE, &host.text(CREATE))]);
    let bad = deb(
        &host,
        "pve-manager",
        "9.2.1",
        &[(VZDUMP, "package PVE::VZDump;\n1;\n"), (INDEX, &host.text(INDEX))],
    );
    let other = deb(&host, "something-else", "1", &[]);
    assert_eq!(hooked(&host, &[&bad]), "", "a host that is not to be patched");
    host.run(&["apply"]).ok();
    let before = host.snapshot();
    assert_eq!(hooked(&host, &[&good, &other]), "");
    let said = hooked(&host, &[&bad, &other]);
    assert!(
        said.contains("pve-manager 9.2.1 is coming") && said.contains("sub exec_backup_task {"),
        "{said}"
    );
    let newer = deb(
        &host,
        "pve-container",
        "7.0.1",
        &[(CREATE, &host.text(CREATE).replace("    my $ours = 1; # pve-diff-backup:1 restore\n", ""))],
    );
    let said = hooked(&host, &[&newer]);
    assert!(said.contains("pve-container 7.0.1 is coming") && said.contains("never tried"), "{said}");
    let nowhere = Path::new("/nowhere/pve-manager_1_all.deb");
    assert!(hooked(&host, &[nowhere]).contains("cannot look at"));
    assert_eq!(host.snapshot(), before);
}

/// A maintainer's ten minutes: a release that is not known yet is looked at, tried and noted.
#[test]
fn a_new_release_is_taken_in() {
    let host = Host::new();
    host.run(&["new-version"]).ok();
    host.run(&["new-version", "--write"]).ok();
    let verified = std::fs::read_to_string(host.patches().join("verified.yaml")).unwrap();
    let line = format!("\"{}\": \"6.0.1\"", sha256_hex(host.text(CREATE).as_bytes()));
    assert!(verified.contains(&line), "{verified}");
    let status = host.run(&["status"]).code(3);
    assert_eq!(status.out.matches("verified for exactly these files").count(), 3, "{status:?}");

    // A new release, whose file is another.
    let new = host.text(CREATE).replace("use strict;", "use strict;\n\n# new");
    let file = deb(&host, "pve-container", "6.1", &[(CREATE, &new)]);
    let (said, json) = tried(&host, &[&file], 0);
    assert!(said.err.contains("pve-container 6.1") && said.err.contains("never tried"), "{said:?}");
    assert_eq!((&json["verified"], &json["never_tried"][0]), (&false.into(), &CREATE.into()));
    let file = file.to_str().unwrap();
    let taken = host.run(&["new-version", file]).ok();
    assert!(taken.out.contains(&format!("/{CREATE}: hunk restore: holds, line 6")), "{taken:?}");
    assert!(taken.out.contains("1 new contents"), "{taken:?}");
    host.run(&["new-version", "--write", file]).ok();
    let verified = std::fs::read_to_string(host.patches().join("verified.yaml")).unwrap();
    assert!(verified.contains(&line) && verified.contains("\": \"6.1\""), "{verified}");

    // Once it is installed, it is known.
    host.install("pve-container", "6.1", &[(CREATE, new.as_bytes())]);
    host.run(&["apply"]).ok().says_nothing();
    let status = host.run(&["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["set"]["verified"], true);
    // An edit makes it another file, and a change of the set makes all of it unknown.
    host.edit(CREATE, "# new", "# mine");
    let status = host.run(&["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["set"]["verified"], false);
    let create = status["files"].as_array().unwrap().iter().find(|file| file["path"] == CREATE).unwrap();
    assert_eq!((&create["state"], &create["verified"]), (&"patched".into(), &false.into()));
    host.write_patches("demo/patchset.yaml", PATCHSET.replace("return { name => 'ours' };", "return {};"));
    let status = host.run(&["status", "--json"]).code(4);
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert!(status["files"][0]["verified"].is_null(), "{status}");
    let ran = host.run(&["new-version", "--write"]).code(1).says(&["have changed", "--clones DIR"]);
    assert!(ran.out.contains("hunk restore: holds"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(host.patches().join("verified.yaml")).unwrap(), verified);
}

#[test]
fn what_became_of_an_anchor_is_told_with_what_is_like_it() {
    let host = Host::new();
    let create = host.text(CREATE).replace("sub restore {", "sub restore_archive {");
    let moved = host.text(VZDUMP).replace("sub exec_backup_task {", "sub exec_backup {");
    let storage = host
        .text(STORAGE)
        .replace("sub other_info {\n    my ($archive) = @_;\n", "sub other_info {\n")
        .replace("    my ($archive) = @_;\n    return { name", "    return { name");
    let twice = host.text(INDEX).replace("</html>", "<script src=\"/lib.js\"></script>\n</html>");
    let debs = [
        deb(&host, "pve-container", "9", &[(CREATE, &create)]),
        deb(&host, "pve-manager", "9.3", &[(VZDUMP, &moved), (INDEX, &twice)]),
        deb(&host, "libpve-storage-perl", "9.3", &[(STORAGE, &storage)]),
    ];
    let files: Vec<&str> = debs.iter().map(|file| file.to_str().unwrap()).collect();
    let ran = host.run(&[&["new-version"], &files[..]].concat()).code(8);
    for said in [
        "hunk restore: vanished: `^sub restore {` is gone; most like it:\n    line 4: `sub restore_archive {`",
        "hunk choose: moved: `$task->{vmtype} = ...` in `sub exec_backup_task {` is not there, but elsewhere:\n    line 9, in `sub exec_backup {`: `$task->{vmtype} = 'x';`",
        "hunk script: ambiguous: `<script src=\"/lib.js...` is there 2 times",
        "hunk archive-info: vanished: `my ($archive) = @_;` in `sub archive_info {` is gone; nothing is like it",
        "hunk extension: holds, line 4",
    ] {
        assert!(ran.out.contains(said), "no {said:?} in {}", ran.out);
    }
    host.run(&["new-version", "--write", files[0]]).code(8);
    assert!(!host.patches().join("verified.yaml").exists());
}
