//! `reinstall`, with the real apt-get, dpkg and packages built here.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{CREATE, Host, INDEX, PATCHSET, Ran, STORAGE, VZDUMP, has};

#[test]
fn without_apt_it_reverts_and_names_the_command() {
    let host = Host::new();
    // Which other releases ship, this one does not lack.
    let fact = "facts:\n  - {package: libpve-storage-perl, file: usr/share/perl5/PVE/Older.pm, lacks: 'x'}\n";
    host.write_patches("demo/patchset.yaml", PATCHSET.replace("facts:\n", fact));
    let before = host.snapshot();
    host.run(&["apply"]).ok();
    let patched = host.snapshot();
    let declined = host.run(&["reinstall"]).code(15).says(&["no terminal", "nothing was changed", "--yes"]);
    assert_eq!(host.snapshot(), patched, "{declined:?}");
    let ran = host.run(&["reinstall", "--yes"]).code(16).says(&[
        "apt-get",
        "pve-container=6.0.1",
        "pve-manager=9.1.2",
    ]);
    assert!(ran.out.contains("Storage.pm (patched)") && !ran.out.contains("Older.pm"), "{ran:?}");
    assert_eq!(host.snapshot(), before, "our lines are not out");
}

/// Builds the package `name` from files of `host` into `dir`.
fn build(host: &Host, dir: &Path, name: &str, version: &str, files: &[&str]) {
    let tree = dir.join(name);
    for file in files {
        fs::create_dir_all(tree.join(file).parent().unwrap()).unwrap();
        fs::copy(host.path(file), tree.join(file)).unwrap();
    }
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: for a test\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let built =
        Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(&tree).arg(dir).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    fs::remove_dir_all(tree).unwrap();
}

/// This machine's own files under a layer that takes all writes: a whole Debian host, thrown away afterwards. The
/// script runs in a mount namespace of its own, with the host at `$ROOT`.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs none "$WORK"
mkdir "$WORK/up" "$WORK/work" "$WORK/root"
mount -t overlay none -o "lowerdir=/,upperdir=$WORK/up,workdir=$WORK/work" "$WORK/root" || exit 77
ROOT=$WORK/root
rm -rf "$ROOT"/etc/apt/sources.list* "$ROOT"/var/lib/apt/lists
mkdir -p "$ROOT/debs"
cp "$DEBS"/* "$ROOT/debs/"
echo "deb [trusted=yes] file:/debs ./" > "$ROOT/etc/apt/sources.list"
chroot "$ROOT" sh -c 'cd /debs && apt-get update && dpkg -i *.deb'
"$PROGRAM" --root "$ROOT" --patches "$PATCHES" status || [ $? = 3 ]
"$PROGRAM" --root "$ROOT" --patches "$PATCHES" apply
echo 'broken beyond repair {' > "$ROOT/usr/share/perl5/PVE/Storage.pm"
rm "$ROOT/usr/share/perl5/PVE/LXC/Create.pm"
"$PROGRAM" --root "$ROOT" --patches "$PATCHES" status && exit 1
"$PROGRAM" --root "$ROOT" --patches "$PATCHES" reinstall --yes
"$PROGRAM" --root "$ROOT" --patches "$PATCHES" status --json || [ $? = 3 ]
chroot "$ROOT" dpkg --verify pve-manager libpve-storage-perl pve-container
find "$ROOT" -xdev -path "$ROOT/debs" -prune -o -name '*Differential*' -print | grep "$ROOT/usr/share/perl5/PVE" && exit 1
test ! -e "$ROOT/var/lib/pve-diff-backup"

# The same as seen from inside, as on a running host: services, questions, a package apt cannot get.
cp "$PROGRAM" "$ROOT/program"
cp -r "$PATCHES" "$ROOT/sets"
mkdir -p "$ROOT/run/systemd/system"
touch "$ROOT/etc/systemd/system/pveproxy.service"
mkdir -p "$ROOT/usr/bin"
printf '#!/bin/sh\necho pve-xdelta3 %s\n' "$VERSION" > "$ROOT/usr/bin/pve-xdelta3"
chmod 755 "$ROOT/usr/bin/pve-xdelta3"
inside() { chroot "$ROOT" /program --patches /sets "$@"; }
inside apply --no-restart 2> "$WORK/quiet"
inside revert 2> "$WORK/loud"
! grep systemctl "$WORK/quiet"
grep "systemctl reload-or-try-restart pveproxy" "$WORK/loud"
inside apply --no-restart
code=0; inside reinstall < /dev/null 2> "$WORK/declined" || code=$?
[ $code = 15 ]
grep -e "--yes" "$WORK/declined"
inside status
printf '#!/bin/sh\necho pve-xdelta3 0.0.9\n' > "$ROOT/usr/bin/pve-xdelta3"
code=0; inside status > "$WORK/status" || code=$?
[ $code = 21 ]
grep '^ATTENTION: one thing is not as it should be; .pve-diff-backup --patches /sets doctor. tells' "$WORK/status"
code=0; inside doctor > "$WORK/doctor" || code=$?
[ $code = 1 ]
grep "/usr/bin/pve-xdelta3 is not of version $VERSION" "$WORK/doctor"
inside reinstall --yes
code=0; inside status || code=$?
[ $code = 3 ]
rm "$ROOT/debs/"pve-manager*
code=0; inside reinstall --yes 2> "$WORK/failed" || code=$?
[ $code = 16 ]
grep "run by hand: apt-get" "$WORK/failed"
# apt-get ends well where it knows of no source for a package.
: > "$ROOT/debs/Packages"
chroot "$ROOT" apt-get update
inside reinstall --yes
echo broken >> "$ROOT/usr/share/perl5/PVE/Storage.pm"
code=0; inside reinstall --yes 2> "$WORK/failed" || code=$?
[ $code = 16 ]
grep "did not give back /usr/share/perl5/PVE/Storage.pm" "$WORK/failed"
echo all is well
"#;

#[test]
fn apt_gives_back_files_past_repair() {
    if !rustix::process::geteuid().is_root()
        || !["unshare", "dpkg-deb", "dpkg-scanpackages"].into_iter().all(has)
    {
        println!("skipped: needs root, unshare, dpkg-deb and dpkg-scanpackages");
        return;
    }
    let host = Host::new();
    let dir = tempfile::tempdir().unwrap();
    let debs = dir.path().join("debs");
    let work = dir.path().join("work");
    fs::create_dir(&debs).unwrap();
    fs::create_dir(&work).unwrap();
    build(&host, &debs, "pve-manager", "9.1.2", &[VZDUMP, INDEX]);
    build(&host, &debs, "libpve-storage-perl", "9.1.0", &[STORAGE]);
    build(&host, &debs, "pve-container", "6.0.1", &[CREATE]);
    let index = Command::new("dpkg-scanpackages").arg(".").current_dir(&debs).output().unwrap();
    assert!(index.status.success(), "{}", String::from_utf8_lossy(&index.stderr));
    fs::write(debs.join("Packages"), index.stdout).unwrap();
    let ran = Command::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT])
        .env("WORK", &work)
        .env("DEBS", &debs)
        .env("VERSION", env!("CARGO_PKG_VERSION"))
        .env("PATCHES", host.patches())
        .env("PROGRAM", env!("CARGO_BIN_EXE_pve-diff-backup"))
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env_remove("PERL5LIB")
        .output()
        .unwrap();
    let ran = Ran::of(ran);
    if ran.code == 77 || ran.err.contains("unshare failed") || ran.err.contains("mount: ") {
        println!("skipped: no overlay can be mounted here: {}", ran.err);
        return;
    }
    let ran = ran.ok();
    assert!(ran.out.ends_with("all is well\n"), "{ran:?}");
    assert!(ran.out.contains("\"overall\": \"unpatched\""), "{ran:?}");
    assert!(ran.out.contains("Create.pm (missing)"), "{ran:?}");
}
