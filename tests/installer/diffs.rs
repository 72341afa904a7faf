//! `diff` and `patch`: what they print is what `apply` does, as GNU patch sees it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{CREATE, Host, PATCHSET, STORAGE, Snapshot, has};

/// Feeds `patch` to patch(1) in the host's root.
fn gnu_patch(host: &Host, patch: &str, reverse: bool) {
    let mut command = Command::new("patch");
    command.args(["-p1", "--quiet", "--batch", "--fuzz=0", "--binary"]).arg("-d").arg(host.root());
    if reverse {
        command.arg("-R");
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(patch.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Contents and kinds only: patch(1) makes new files by its own umask, and folders it may leave.
fn contents(host: &Host) -> std::collections::BTreeMap<String, Vec<u8>> {
    let keep = |path: &str, snapshot: &Snapshot| snapshot[path].0 & 0o170_000 == 0o100_000;
    let snapshot = host.snapshot();
    snapshot
        .iter()
        .filter(|(path, _)| keep(path, &snapshot) && !path.starts_with("var/lib/pve-diff-backup"))
        .map(|(path, entry)| (path.clone(), entry.3.clone()))
        .collect()
}

#[test]
fn patch_does_what_apply_does_and_undoes_it() {
    if !has("patch") {
        println!("skipped: there is no patch(1) here");
        return;
    }
    let unended =
        b"package PVE::Storage;\nsub archive_info {\n my ($archive) = @_;\n}\n1;\nour $RE = 1;".as_slice();
    let crlf = b"package PVE::Storage;\r\nsub archive_info {\r\n my ($archive) = @_;\r\n}\r\nour $RE = 1;\r\n1;\r\n\rx";
    for content in [None, Some(unended), Some(crlf)] {
        let host = Host::new();
        if let Some(content) = content {
            host.install("libpve-storage-perl", "9.1.0", &[(STORAGE, content)]);
        }
        let before = contents(&host);
        let patch = host.run(&["patch"]).ok().out;
        gnu_patch(&host, &patch, false);
        let by_patch = contents(&host);
        host.run(&["status"]).ok();
        assert_eq!(host.run(&["patch"]).ok().out, "", "nothing is left to be changed");
        gnu_patch(&host, &patch, true);
        assert_eq!(contents(&host), before);

        host.run(&["apply"]).ok();
        assert_eq!(contents(&host), by_patch);
        gnu_patch(&host, &patch, true);
        assert_eq!(contents(&host), before, "patch -R undoes apply");
    }
}

#[test]
fn an_upgrade_of_our_lines_is_a_patch_too() {
    if !has("patch") {
        println!("skipped: there is no patch(1) here");
        return;
    }
    let host = Host::new();
    host.run(&["apply"]).ok();
    let old = contents(&host);
    host.write_patches(
        "demo/patchset.yaml",
        PATCHSET.replace("version: 1", "version: 2").replace("my $ours", "my $own"),
    );
    let patch = host.run(&["patch"]).ok().out;
    host.run(&["apply"]).ok();
    gnu_patch(&host, &patch, true);
    assert_eq!(contents(&host), old);
}

#[test]
fn colour_only_when_wanted_and_changed_words_stand_out() {
    let host = Host::new();
    assert!(!host.run(&["diff"]).ok().out.contains('\x1b'), "not a terminal");
    host.run(&["--color", "always", "patch"]).code(2).says(&["colours nothing"]);
    let coloured = host.run(&["--color", "always", "diff"]).ok().out;
    assert!(coloured.contains("\x1b[32m+"), "{coloured}");
    let plain = host.run(&["--color", "never", "diff"]).ok().out;
    assert_eq!(strip_colour(&coloured), plain);

    host.run(&["apply"]).ok();
    host.write_patches("demo/patchset.yaml", PATCHSET.replace("my $ours = 1;", "my $ours = 2;"));
    let coloured = host.run(&["--color", "always", "diff"]).ok().out;
    assert!(coloured.contains(CREATE) && coloured.contains("\x1b[7m"), "{coloured}");
    assert_eq!(strip_colour(&coloured), host.run(&["diff"]).ok().out);
}

fn strip_colour(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain += before;
        rest = after.split_once('m').unwrap().1;
    }
    plain + rest
}

#[test]
fn what_is_inserted_comes_before_what_is_added() {
    let host = Host::new();
    let shown = host.run(&["diff"]).ok().out;
    let files: Vec<&str> = shown.lines().filter(|line| line.starts_with("--- ")).collect();
    assert!(files[0].starts_with("--- a/") && files.ends_with(&["--- /dev/null"]), "{files:?}");
    assert!(files.is_sorted_by_key(|line| *line == "--- /dev/null"), "{files:?}");
    // The patch's order is that in which apply works.
    let patch = host.run(&["patch"]).ok().out;
    assert!(patch.starts_with("--- /dev/null"), "{patch}");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&patch), sorted(&shown));

    let inserted =
        |text: &str| text.lines().filter(|line| line.starts_with('+') && !line.starts_with("+++")).count();
    let (there, new) = shown.split_once("--- /dev/null").unwrap();
    let stat = host.run(&["diff", "--stat"]).ok().out;
    let sums = format!(
        "4 files changed: {} lines inserted\n1 file added: {} lines inserted\n",
        inserted(there),
        inserted(new)
    );
    assert!(stat.ends_with(&sums), "{stat}{sums}");
    assert!(stat.contains(&format!(" {CREATE} +1\n")), "{stat}");
    host.run(&["apply"]).ok();
    assert_eq!(host.run(&["diff", "--stat"]).ok().out, "");
}

#[test]
fn the_first_installation_says_what_comes_next() {
    let host = Host::new();
    let said = host.run(&["hook", "configure", ""]).ok().out;
    assert!(said.contains("Next: say how often a full backup is to be made"), "{said}");
    let said = host.run(&["hook", "configure", "0.1.0"]).ok().out;
    assert!(!said.contains("Next"), "{said}");
}

/// What somebody wrote into a file of Proxmox stands beside our lines.
#[test]
fn lines_of_files_command_no_terminal() {
    let host = Host::new();
    let text =
        host.text(STORAGE).replacen("use warnings;", "use warnings; # \x1b]0;title\x07\u{202e}\t\u{e4}", 1);
    host.install("libpve-storage-perl", "9.1.0", &[(STORAGE, text.as_bytes())]);
    let raw = "# \x1b]0;title\x07\u{202e}\t\u{e4}";
    for command in ["diff", "patch"] {
        let piped = host.run(&[command]).ok();
        assert!(piped.out.contains(raw), "{command}: {piped:?}");
        let program = host.command(&[command]);
        let words = std::iter::once(program.get_program()).chain(program.get_args());
        let line = words.map(|word| format!("'{}' ", word.to_str().unwrap())).collect::<String>();
        let shown =
            Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout);
        assert!(shown.contains("# \\x1b]0;title\\x07\\xe2\\x80\\xae\t\u{e4}"), "{command}: {shown}");
    }
}
