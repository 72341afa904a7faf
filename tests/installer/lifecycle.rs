//! Status, apply, revert on hosts of all kinds: every byte comes back.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::support::{CREATE, Host, INDEX, PATCHSET, PAYLOAD, STORAGE, VZDUMP, chmod};

#[test]
fn apply_and_revert_give_back_every_byte() {
    let host = Host::new();
    chmod(&host.path(STORAGE), 0o640);
    let before = host.snapshot();
    let mtime = |path: &str| {
        let metadata = fs::metadata(host.path(path)).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    let storage_time = mtime(STORAGE);

    host.run(&["status"]).code(3);
    assert_eq!(host.snapshot(), before, "status wrote something");
    host.run(&["test"]).ok();
    assert_eq!(host.snapshot(), before, "test wrote something");

    host.run(&["apply"]).ok();
    host.run(&["status"]).code(0);
    let patched = host.snapshot();
    assert_eq!(patched[STORAGE].0 & 0o7777, 0o640);
    assert_eq!(patched[PAYLOAD].0 & 0o7777, 0o644);
    assert!(
        host.text(VZDUMP)
            .contains("\n\trequire PVE::VZDump::Ours::Differential; # pve-diff-backup:1 choose\n")
    );
    assert!(
        host.text(STORAGE).contains("        return { name => 'ours' }; # pve-diff-backup:1 archive-info\n")
    );
    assert!(host.text(INDEX).contains("<!-- pve-diff-backup:1 script -->"));
    assert_ne!(mtime(STORAGE), storage_time);

    host.run(&["apply"]).ok();
    assert_eq!(host.snapshot(), patched, "a second apply changed something");

    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
    assert_eq!(mtime(STORAGE), storage_time);
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before, "a second revert changed something");
}

#[test]
fn revert_works_without_our_record() {
    let host = Host::new();
    let before = host.snapshot();
    host.run(&["apply"]).ok();
    fs::remove_dir_all(host.path("var/lib/pve-diff-backup")).unwrap();
    host.run(&["status"]).code(0);
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_damaged_record_is_no_obstacle() {
    let host = Host::new();
    let before = host.snapshot();
    for damaged in ["", "{", "{\"format\": 9}", "[1, 2]"] {
        host.run(&["apply"]).ok();
        host.write("var/lib/pve-diff-backup/applied.json", damaged);
        host.run(&["revert"]).ok().says(&["applied.json"]);
        assert_eq!(host.snapshot(), before);
    }
}

#[test]
fn foreign_edits_survive_apply_and_revert() {
    let host = Host::new();
    host.edit(STORAGE, "return $archive;", "return \"$archive\"; # mine");
    let before = host.snapshot();
    host.run(&["apply"]).ok().says(&[STORAGE, "somebody else edited it"]);
    // Another tool edits the patched file, above, between and below our lines.
    let edits = [("use warnings;\n", "use warnings;\nuse utf8;\n"), ("1;\n", "1;\n# the end\n")];
    edits.iter().for_each(|(from, to)| host.edit(STORAGE, from, to));
    host.run(&["status"]).code(0);
    let revert = host.run(&["revert"]).ok();
    assert!(revert.out.contains("somebody else's edits stay"), "{revert:?}");
    let after = host.text(STORAGE);
    let expected =
        edits.iter().fold(String::from_utf8(before[STORAGE].3.clone()).unwrap(), |text, (from, to)| {
            text.replacen(from, to, 1)
        });
    assert_eq!(after, expected);
}

#[test]
fn a_newer_set_replaces_older_lines_in_place() {
    let host = Host::new();
    let before = host.snapshot();
    host.run(&["apply"]).ok();
    let old = "      my $ours = 1;\n";
    host.write_patches(
        "demo/patchset.yaml",
        PATCHSET.replace("version: 1", "version: 2").replace(old, "      my ($a, $b);\n      $a = 2;\n"),
    );
    host.run(&["status"]).code(4);
    host.run(&["apply"]).ok();
    host.run(&["status"]).code(0);
    let create = host.text(CREATE);
    assert!(
        create.contains("    $a = 2; # pve-diff-backup:2 restore\n") && !create.contains("$ours"),
        "{create}"
    );
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn files_of_a_set_that_is_gone_are_reverted_by_the_record() {
    let host = Host::new();
    let before = host.snapshot();
    host.run(&["apply"]).ok();
    // The new set knows neither Create.pm, nor the page, nor the payload.
    let set = PATCHSET.split("  - id: restore").next().unwrap();
    let set = set.replace("payload:\n  - {source: Differential.pm, target: ", "payload: [] # ");
    host.write_patches("demo/patchset.yaml", set);
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn lost_lines_are_put_back() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    let patched = host.snapshot();
    host.edit(STORAGE, "$RE = qr/$RE|vcdiff/; # pve-diff-backup:1 extension\n", "");
    host.run(&["status"]).code(4);
    host.run(&["apply"]).ok();
    assert_eq!(host.snapshot(), patched);
}

#[test]
fn an_upgrade_of_one_package_is_patched_again() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    let new =
        b"package PVE::LXC::Create;\nuse strict;\nuse warnings;\n\nsub restore {\n    return 2;\n}\n1;\n";
    host.install("pve-container", "6.0.9", &[(CREATE, new)]);
    host.run(&["status"]).code(4);
    host.run(&["apply"]).ok();
    host.run(&["status"]).code(0);
    host.run(&["revert"]).ok();
    assert_eq!(host.read(CREATE), new);
}

#[test]
fn an_upgrade_that_cannot_be_patched_is_loud_and_reverts() {
    let host = Host::new();
    host.run(&["apply"]).ok();
    let new = b"package PVE::LXC::Create;\nsub renamed {\n}\n1;\n";
    host.install("pve-container", "7.0.0", &[(CREATE, new)]);
    let status = host.run(&["status"]).code(8);
    assert!(status.out.contains("still hold lines of ours"), "{status:?}");
    host.run(&["apply"]).code(8).says(&["still hold lines of ours", "revert"]);
    host.run(&["revert"]).ok();
    let status = host.run(&["status"]).code(8);
    assert!(!status.out.contains("still hold lines of ours"), "{status:?}");
    assert_eq!(host.read(CREATE), new);
}

#[test]
fn packages_that_are_not_installed_are_left_out() {
    let host = Host::new();
    host.remove("pve-container", &[CREATE]);
    let before = host.snapshot();
    host.run(&["apply"]).ok().says(&["pve-container is not installed", "restore"]);
    host.run(&["status"]).code(0);
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn unknown_releases_are_patched_but_not_silently() {
    let host = Host::new();
    let content = host.read(STORAGE);
    host.install("libpve-storage-perl", "9.2.0", &[(STORAGE, &content)]);
    host.run(&["apply"]).ok().says(&["unverified", "libpve-storage-perl 9.2.0", "8.0 to 9.1.7"]);
    let status = host.run(&["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["set"]["verified"], false);
    assert_eq!(status["overall"], "patched");
}

#[test]
fn bytes_that_are_no_text_line_ends_of_all_kinds_and_none_at_the_end() {
    let crlf = "package PVE::Storage;\r\nour $RE = qr/x/;\r\nsub archive_info {\r\n  my ($archive) = @_;\r\n}\r\n1;\r\n";
    let unended = "package PVE::Storage;\nsub archive_info {\n my ($archive) = @_;\n}\n1;\nour $RE = 1;";
    let unended_crlf = crlf.strip_suffix("1;\r\n").unwrap().to_owned() + "1;\r\n# our end";
    let mut binary = b"package PVE::Storage; # \xff\xfe\x80\n".to_vec();
    binary.extend_from_slice(
        b"our $RE = \"\xe9\";\nsub archive_info {\n  my ($archive) = @_;\n}\n1;\n__END__\n\0\0\r\r\n\r",
    );
    let one_line = "our $RE = 1; sub archive_info { my ($archive) = @_; }";
    for content in [crlf.as_bytes(), unended.as_bytes(), unended_crlf.as_bytes(), &binary] {
        let host = Host::new();
        host.install("libpve-storage-perl", "9.1.0", &[(STORAGE, content)]);
        let before = host.snapshot();
        host.run(&["apply"]).ok();
        let patched = host.read(STORAGE);
        assert_ne!(patched, content);
        if content.starts_with(crlf.as_bytes()) {
            assert!(!patched.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'), "a bare line feed");
        }
        host.run(&["revert"]).ok();
        assert_eq!(host.snapshot(), before);
    }
    let host = Host::new();
    host.install("libpve-storage-perl", "9.1.0", &[(STORAGE, one_line.as_bytes())]);
    host.run(&["apply"]).code(8);
}

#[test]
fn roots_with_blanks_quotes_and_shell_characters() {
    for name in ["a b", "it's \"q\"", "$(touch x);`y`", "-e", "ä\n"] {
        let host = Host::named(name);
        let before = host.snapshot();
        host.run(&["test"]).ok();
        host.run(&["apply"]).ok();
        host.run(&["status"]).ok();
        host.run(&["revert"]).ok();
        assert_eq!(host.snapshot(), before, "{name}");
    }
}

#[test]
fn links_are_followed_inside_the_root_only() {
    let host = Host::new();
    // As with merged /usr: a folder that is an absolute link, as seen from inside.
    fs::create_dir_all(host.path("real")).unwrap();
    fs::rename(host.path("usr/share"), host.path("real/share")).unwrap();
    symlink("/real/share", host.path("usr/share")).unwrap();
    // And a file that is one itself.
    fs::rename(host.path("real/share/pve-manager/index.html.tpl"), host.path("real/page")).unwrap();
    symlink("../../../../../../real/page", host.path("real/share/pve-manager/index.html.tpl")).unwrap();
    let outside = crate::support::snapshot(host.root().parent().unwrap());
    let before = host.snapshot();
    host.run(&["apply"]).ok();
    host.run(&["status"]).ok();
    assert!(host.text("real/page").contains("pve-diff-backup:1"));
    assert!(fs::symlink_metadata(host.path("usr/share")).unwrap().is_symlink());
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
    assert_eq!(crate::support::snapshot(host.root().parent().unwrap()), outside);
}

#[test]
fn a_diverted_file_is_patched_where_it_is_used() {
    let host = Host::new();
    let mine = host.text(CREATE).replace("return 1", "return 7");
    fs::rename(host.path(CREATE), host.path(&format!("{CREATE}.distrib"))).unwrap();
    host.write("var/lib/dpkg/diversions", format!("/{CREATE}\n/{CREATE}.distrib\n:\n"));
    let missing = host.run(&["apply"]).code(7);
    assert!(missing.err.contains("Create.pm.distrib"), "{missing:?}");
    host.write(CREATE, &mine);
    let before = host.snapshot();
    host.run(&["apply"]).ok().says(&["dpkg-divert"]);
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn the_embedded_sets_on_the_host_tree_of_this_repository() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("host");
    let tree = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tree");
    let copied = std::process::Command::new("cp").arg("-a").arg(&tree).arg(&root).status().unwrap();
    assert!(copied.success());
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    std::fs::copy("/bin/true", root.join(crate::support::HELPER)).unwrap();
    let before = crate::support::snapshot(&root);
    let run = |command: &str| {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        crate::support::Ran::of(program.arg(command).arg("--root").arg(&root).output().unwrap())
    };
    run("status").code(3);
    run("test").ok();
    run("apply").ok();
    run("status").ok();
    run("revert").ok();
    assert_eq!(crate::support::snapshot(&root), before);
}

/// How often a run of the program opens dpkg's database.
fn opens_of_the_database(host: &Host, arguments: &[&str]) -> usize {
    use rustix::fs::inotify;
    // Two events that are the same, one after the other, count as one: so each end is asked for, too.
    let flags = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE_NOWRITE;
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, host.path("var/lib/dpkg/status"), flags).unwrap();
    host.run(arguments).ok();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let events = std::iter::from_fn(|| events.next().ok().map(|event| event.events()));
    events.filter(|events| events.contains(inotify::ReadFlags::OPEN)).count()
}

#[test]
fn a_run_reads_the_host_once() {
    let host = Host::new();
    let opens = |arguments: &[&str]| opens_of_the_database(&host, arguments);
    assert_eq!(opens(&["test"]), 1);
    assert_eq!(opens(&["hook", "triggered"]), 1, "not meant to be patched");
    assert_eq!(opens(&["apply"]), 1);
    for arguments in [&["hook", "triggered"][..], &["hook", "configure", "1.0"], &["diff"], &["hook", "jobs"]]
    {
        assert!(opens(arguments) <= 1, "{arguments:?}");
    }
    assert_eq!(opens_with_failure(&host), 1);
    assert_eq!(opens(&["hook", "remove"]), 1);
}

/// The same of a trigger that cannot patch the host: an anchor is gone.
fn opens_with_failure(host: &Host) -> usize {
    host.edit(STORAGE, "sub archive_info {", "sub archive_infos {");
    opens_of_the_database(host, &["hook", "triggered"])
}
