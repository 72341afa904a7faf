//! Every line that ours hang on, or that tells releases apart, edited away one by one: what is said names it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Ran;

/// The host tree of this repository, for the sets inside the program.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tree");
        let copied = Command::new("cp").arg("-a").arg(&tree).arg(dir.path().join("host")).status().unwrap();
        assert!(copied.success());
        Self(dir)
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("host")
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        Ran::of(program.arg("--root").arg(self.root()).args(arguments).output().unwrap())
    }
}

/// What `new-version` says of each hunk: file, hunk, number of the line it hangs on.
fn anchors(said: &str) -> Vec<(String, String, usize)> {
    let line = |line: &str| {
        let (file, rest) = line.strip_prefix('/')?.split_once(": hunk ")?;
        let (hunk, rest) = rest.split_once(": holds, line ")?;
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((file.to_owned(), hunk.to_owned(), number.parse().ok()?))
    };
    said.lines().filter_map(line).collect()
}

#[test]
fn an_anchor_that_is_gone_is_named_whichever_it_is() {
    let whole = Tree::new();
    let anchors = anchors(&whole.run(&["new-version"]).ok().out);
    assert!(anchors.len() > 15, "{anchors:?}");
    for (file, hunk, number) in &anchors {
        let tree = Tree::new();
        let path = tree.root().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let anchor = std::mem::replace(&mut lines[number - 1], "# gone".to_owned());
        // What opens a block is not taken away alone.
        if anchor.trim_end().ends_with('{') {
            lines[number - 1] =
                format!("{anchor} #").replacen("sub ", "sub other_", 1).replacen("= {", "= { #", 1);
        }
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        let place = format!("/{file}: hunk {hunk}");
        let tested = tree.run(&["test"]);
        assert!([8, 18].contains(&tested.code), "{place}: {tested:?}");
        let looked = tree.run(&["new-version"]);
        assert!([8, 18].contains(&looked.code), "{place}: {looked:?}");
        for said in [&tested.err, &looked.err, &looked.out] {
            assert!(said.contains(&place), "{place}, `{anchor}`: {said}");
            assert!(!said.contains("contradict"), "{place}: {said}");
            assert!(said.contains("most like it") || said.contains("nothing is like it"), "{place}: {said}");
        }
        assert!(looked.out.contains(&format!("{place}: vanished: ")), "{looked:?}");
    }
}

/// A line that tells generations apart and takes no line of ours.
#[test]
fn a_line_that_only_tells_releases_apart_is_named_too() {
    let spoil = |file: &str, from: &str, to: &str| {
        let tree = Tree::new();
        let path = tree.root().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} holds no {from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        tree
    };
    let file = "usr/share/perl5/PVE/QemuServer.pm";
    let tree = spoil(
        file,
        "PVE::Storage::decompressor_info('vma', $comp)",
        "PVE::Storage::decompressor('vma', $comp)",
    );
    for ran in [tree.run(&["test"]).code(5), tree.run(&["new-version"]).code(5)] {
        for words in
            [file, "decompressor_info('vma', $comp)", "most like it: line ", "decompressor('vma', $comp)"]
        {
            assert!(ran.err.contains(words), "no {words:?} in {ran:?}");
        }
        assert!(!ran.err.contains("contradict"), "{ran:?}");
    }
    // A release is told by its number where its files would do for another one as well.
    let file = "usr/share/perl5/PVE/Storage.pm";
    let tree = spoil(file, "\nsub abs_filesystem_path {", "\nsub abs_path_of_storage {");
    let ran = tree.run(&["new-version"]).ok();
    assert!(ran.out.contains("hunk extension: holds"), "{ran:?}");
}
