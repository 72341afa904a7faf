//! Living with others: other tools' edits, our own older versions, the patches we succeed, diversions, links.

use std::fs;

use crate::support::{CREATE, Host, INDEX, PATCHSET, PAYLOAD, STORAGE, Snapshot, VZDUMP};

/// Where another tool may put a line of its own, by the line it goes below; the first two are anchors of ours.
const PLACES: [(&str, &str); 5] = [
    (STORAGE, "our $RE = qr/\\.(tgz)/;\n"),
    (STORAGE, "sub archive_info {\n    my ($archive) = @_;\n"),
    (STORAGE, "use warnings;\n"),
    (STORAGE, "sub other_info {\n    my ($archive) = @_;\n"),
    (VZDUMP, "    if ($task) {\n"),
];

/// Such a line.
const THEIRS: &str = "my $theirs = 1; # another tool\n";

fn files(host: &Host) -> Snapshot {
    let mut files = host.snapshot();
    files.retain(|path, _| path.starts_with("usr/"));
    files
}

/// What the package shipped, as dpkg's md5sums say.
#[track_caller]
fn is_pristine(host: &Host) {
    for package in ["pve-manager", "libpve-storage-perl", "pve-container"] {
        for line in host.text(&format!("var/lib/dpkg/info/{package}.md5sums")).lines() {
            let (md5, path) = line.split_once("  ").unwrap();
            assert_eq!(pve_diff_backup::host::dpkg::md5_hex(&host.read(path)), md5, "{path}");
        }
    }
    assert!(!host.path(PAYLOAD).exists() && !host.path("var/lib/pve-diff-backup").exists());
}

#[test]
fn another_tools_line_below_each_place_before_us() {
    for (path, place) in PLACES {
        let host = Host::new();
        host.edit(path, place, &format!("{place}{THEIRS}"));
        let edited = files(&host);
        host.run(&["apply"]).ok().says(&[path, "somebody else edited it"]);
        host.run(&["status"]).ok();
        host.run(&["revert"]).ok();
        assert!(files(&host) == edited, "{path} below {place:?}");
        // It goes while we are there.
        host.run(&["apply"]).ok();
        host.edit(path, THEIRS, "");
        // Ours may be indented as theirs was: apply would put that right.
        assert!([0, 4].contains(&host.run(&["status"]).code), "{place:?}");
        host.run(&["revert"]).ok();
        is_pristine(&host);
    }
}

#[test]
fn another_tools_line_below_each_place_after_us() {
    for (path, place) in PLACES {
        let edited = Host::new();
        edited.edit(path, place, &format!("{place}{THEIRS}"));
        let edited = files(&edited);
        let host = Host::new();
        host.run(&["apply"]).ok();
        // Directly below an anchor it parts that from our line: apply brings them together again.
        host.edit(path, place, &format!("{place}{THEIRS}"));
        assert!([0, 4].contains(&host.run(&["status"]).code), "{place:?}");
        host.run(&["apply"]).ok();
        host.run(&["status"]).ok();
        host.run(&["revert"]).ok();
        assert!(files(&host) == edited, "{path} below {place:?}");
        host.run(&["apply"]).ok();
        host.edit(path, THEIRS, "");
        host.run(&["apply"]).ok();
        host.run(&["revert"]).ok();
        is_pristine(&host);
    }
}

#[test]
fn another_tools_line_below_ours() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    for (path, ours) in
        [(STORAGE, " # pve-diff-backup:1 extension\n"), (VZDUMP, " # pve-diff-backup:1 choose\n")]
    {
        host.edit(path, ours, &format!("{ours}{THEIRS}"));
    }
    host.run(&["status"]).ok();
    host.run(&["apply"]).ok();
    host.run(&["revert"]).ok();
    let left = files(&host);
    assert!(host.text(STORAGE).contains(&format!("(tgz)/;\n{THEIRS}")) && host.text(VZDUMP).contains(THEIRS));
    host.run(&["apply"]).ok();
    host.run(&["revert"]).ok();
    assert!(files(&host) == left);
    [STORAGE, VZDUMP].iter().for_each(|path| host.edit(path, THEIRS, ""));
    is_pristine(&host);
}

#[test]
fn another_tool_that_rewrites_a_file_whole() {
    // It keeps a copy from before us, and puts that back over our lines.
    let host = Host::new();
    let copy = host.read(STORAGE);
    host.run(&["apply"]).ok();
    host.write(STORAGE, &copy);
    host.run(&["status"]).code(4);
    host.run(&["apply"]).ok();
    // And one from our time, put back after we are gone.
    let copy = host.read(STORAGE);
    host.run(&["revert"]).ok();
    host.write(STORAGE, &copy);
    host.run(&["status"]).code(4);
    host.run(&["revert"]).ok();
    is_pristine(&host);
}

/// Version 1 is on the host; the program comes with `newer`. What `apply` leaves must be what it makes of a pristine
/// host, and `revert` must give that back.
fn upgraded(newer: &str) -> Host {
    let host = Host::new();
    host.run(&["apply"]).ok();
    host.write_patches("demo/patchset.yaml", newer);
    host.run(&["status"]).code(4);
    host.run(&["test"]).ok();
    host.run(&["apply"]).ok();
    host.run(&["status"]).ok();
    let fresh = Host::new();
    fresh.write_patches("demo/patchset.yaml", newer);
    fresh.run(&["apply"]).ok();
    assert!(files(&host) == files(&fresh), "not what a fresh host gets");
    let nothing = host.run(&["apply"]).ok();
    assert!(nothing.out.contains("nothing to do"), "{nothing:?}");
    host
}

fn reverts(host: &Host) {
    host.run(&["revert"]).ok();
    is_pristine(host);
}

#[test]
fn a_hunk_whose_text_changed() {
    let newer = PATCHSET.replace("version: 1", "version: 2").replace("my $ours = 1;", "my $other = 2;");
    let host = upgraded(&newer);
    assert!(host.text(CREATE).contains("my $other = 2; # pve-diff-backup:2 restore\n"));
    assert!(!host.text(STORAGE).contains("pve-diff-backup:1"));
    reverts(&host);
    // Also where nobody raised the version.
    reverts(&upgraded(&PATCHSET.replace("my $ours = 1;", "my $other = 2;")));
}

#[test]
fn a_hunk_that_moved_or_went() {
    let newer = PATCHSET.replace(
        "anchor: 'my ($archive) = @_;'",
        "anchor: 'return { name => $archive };'\n    indent: anchor",
    );
    let newer = newer.replace("version: 1", "version: 2");
    reverts(&upgraded(&newer));
    let (before, rest) = newer.split_once("  - id: extension").unwrap();
    let after = rest.split_once("  - id: archive-info").unwrap().1;
    let host = upgraded(&format!("{before}  - id: archive-info{after}"));
    assert!(!host.text(STORAGE).contains("extension"));
    reverts(&host);
}

#[test]
fn a_file_that_is_no_longer_touched_and_a_payload_that_is_no_longer_needed() {
    let newer = PATCHSET.split("  - id: restore").next().unwrap().replace("version: 1", "version: 2");
    let newer = newer.replace("payload:\n  - {source: Differential.pm, target: ", "payload: [] # ");
    let host = Host::new();
    host.run(&["apply"]).ok();
    host.write_patches("demo/patchset.yaml", &newer);
    let status = host.run(&["status"]).code(4);
    assert_eq!(status.out.matches("apply takes ours out").count(), 3, "{status:?}");
    host.run(&["apply"]).ok();
    let pristine = Host::new();
    for path in [CREATE, INDEX] {
        assert_eq!(host.read(path), pristine.read(path), "{path}");
    }
    assert!(!host.path(PAYLOAD).exists());
    host.run(&["status"]).ok();
    reverts(&host);
}

#[test]
fn a_set_of_another_name() {
    let newer = PATCHSET.replace("name: demo", "name: other").replace("id: restore", "id: restored");
    let host = Host::new();
    host.run(&["apply"]).ok();
    fs::remove_dir_all(host.patches().join("demo")).unwrap();
    host.write_patches("other/patchset.yaml", newer);
    host.run(&["status"]).code(4);
    host.run(&["apply"]).ok();
    host.run(&["status"]).ok();
    assert!(host.text(CREATE).contains("pve-diff-backup:1 restored"));
    assert!(!host.text(CREATE).contains("pve-diff-backup:1 restore\n"));
    reverts(&host);
}

/// The originals left lines in one file that is ours to patch, and in one that is not.
#[test]
fn the_patches_we_succeed_are_named_and_can_go_first() {
    let server = "usr/share/perl5/PVE/QemuServer.pm";
    let theirs = "my $cmd = \"pve-xdelta3 -d -s '$fullbackup' '$archive'\";\n";
    let host = Host::new();
    let stock = "package PVE::QemuServer;\n1;\n";
    host.install("qemu-server", "6.2-1", &[(server, stock.as_bytes())]);
    host.edit(server, "1;\n", &format!("{theirs}1;\n"));
    host.edit(STORAGE, "use warnings;\n", "use warnings;\nmy $re = 'vma|vcdiff';\n");
    let before = host.snapshot();
    let ran = host.run(&["apply"]).code(17).says(&[
        "qemu-server 6.2-1: /usr/share/perl5/PVE/QemuServer.pm, from line 2 on",
        "libpve-storage-perl 9.1.0: /usr/share/perl5/PVE/Storage.pm, from line 4 on",
        "apt install --reinstall libpve-storage-perl=9.1.0 qemu-server=6.2-1\n",
    ]);
    assert!(!ran.err.contains("pve-manager="), "{ran:?}");
    host.run(&["status"]).code(17);
    assert_eq!(host.snapshot(), before);
    // Half the way back.
    host.write(server, stock);
    host.run(&["apply"]).code(17).says(&["apt install --reinstall libpve-storage-perl=9.1.0\n"]);
    host.edit(STORAGE, "my $re = 'vma|vcdiff';\n", "");
    host.run(&["apply"]).ok();
    host.run(&["status"]).ok();
    host.run(&["revert"]).ok();
    is_pristine(&host);
}

/// A release that speaks of such things itself is no patch of theirs.
#[test]
fn words_of_theirs_in_what_a_package_ships_do_not_count() {
    let host = Host::new();
    let storage = host.text(STORAGE).replace("use warnings;\n", "use warnings;\n# vcdiff, fullbackup\n");
    host.install("libpve-storage-perl", "9.1.1", &[(STORAGE, storage.as_bytes())]);
    host.run(&["apply"]).ok();
    host.run(&["revert"]).ok();
    is_pristine(&host);
}

#[test]
fn a_package_that_goes_and_comes_again() {
    let host = Host::new();
    let create = host.read(CREATE);
    host.run(&["apply"]).ok();
    host.remove("pve-container", &[CREATE]);
    host.run(&["status"]).ok();
    host.run(&["apply"]).ok().says(&["pve-container is not installed"]);
    host.install("pve-container", "6.0.1", &[(CREATE, &create)]);
    host.run(&["status"]).code(4);
    host.run(&["apply"]).ok();
    host.run(&["status"]).ok();
    reverts(&host);
}
