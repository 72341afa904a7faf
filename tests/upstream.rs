//! The embedded patch sets on real Proxmox VE: apply, load every touched module, revert, compare everything.
//!
//! Runs where `PVE_MIRRORS` names a directory of clones of Proxmox' repositories and `PVE_HOST_LAYOUT` the program that
//! lays out a host tree from them (`layout RELEASE DIR`; modules it stands in for lie in `stubs` beside it). Elsewhere
//! it says that it was skipped.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The newest of each of these is laid out.
const RELEASES: [&str; 15] =
    ["5.0", "5.2", "5.4", "6.0", "6.1", "6.2", "6.3", "6.4", "7.0", "7.1", "7.2", "7.4", "8.4", "9.0", "9.2"];

/// What a tree holds: mode, owner, group, time stamp of files, and content, by path.
type Snapshot = BTreeMap<PathBuf, (u32, u32, u32, Option<(i64, i64)>, Vec<u8>)>;

fn snapshot(root: &Path) -> Snapshot {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let content = match () {
                () if metadata.is_file() => std::fs::read(entry.path()).unwrap(),
                () if metadata.is_symlink() => {
                    std::fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
                }
                () => Vec::new(),
            };
            let time = metadata.is_file().then(|| (metadata.mtime(), metadata.mtime_nsec()));
            let about = (metadata.mode(), metadata.uid(), metadata.gid(), time, content);
            (entry.path().strip_prefix(root).unwrap().to_owned(), about)
        })
        .collect()
}

/// Where real hosts can be laid out: the program.
fn layout() -> Option<PathBuf> {
    match (std::env::var_os("PVE_MIRRORS"), std::env::var_os("PVE_HOST_LAYOUT")) {
        (Some(_), Some(layout)) => Some(layout.into()),
        _ => {
            println!("skipped: PVE_MIRRORS or PVE_HOST_LAYOUT is not set");
            None
        }
    }
}

/// Runs the program on a tree.
fn run(root: &Path, stubs: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
    command.args(arguments).arg("--root").arg(root);
    if ["test", "apply"].contains(&arguments[0]) {
        command.arg("--load-modules").arg("--perl-lib").arg(stubs);
    }
    command.output().unwrap()
}

#[track_caller]
fn succeeds(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "", "warnings");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn apply_load_and_revert_on_every_release() {
    let Some(layout) = layout() else { return };
    let stubs = layout.with_file_name("stubs");
    let dir = tempfile::tempdir().unwrap();
    for release in RELEASES {
        let root = dir.path().join(release);
        let laid_out = Command::new(&layout).arg(release).arg(&root).output().unwrap();
        assert!(laid_out.status.success(), "{release}: {}", String::from_utf8_lossy(&laid_out.stderr));
        // What our lines call; without it `status` has something to say.
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::fs::copy("/bin/true", root.join("usr/bin/pve-xdelta3")).unwrap();
        let before = snapshot(&root);

        let tested = succeeds(run(&root, &stubs, &["test", "--json"]));
        assert_eq!(snapshot(&root), before, "{release}: test wrote something");
        let tested: serde_json::Value = serde_json::from_str(&tested).unwrap();
        assert_eq!(tested["verified"], true, "{release}: {tested}");
        let modules = tested["modules"].as_array().unwrap();
        for module in modules {
            assert_eq!(module["check"], "loads", "{release}: {module}");
        }

        succeeds(run(&root, &stubs, &["apply"]));
        let status = succeeds(run(&root, &stubs, &["status", "--json"]));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["overall"], "patched", "{release}");
        for file in status["files"].as_array().unwrap() {
            if !file["package"].is_null() {
                assert_eq!(file["origin"], "pristine", "{release}: {file}");
            }
        }
        // Everything that was not to change did not.
        let touched: Vec<PathBuf> =
            tested["changes"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().into()).collect();
        let after = snapshot(&root);
        for (path, about) in &before {
            let same = after.get(path) == Some(about);
            assert_eq!(same, !touched.contains(path), "{release}: {}", path.display());
        }
        loads_installed(&root, &stubs, modules);

        succeeds(run(&root, &stubs, &["revert"]));
        assert!(snapshot(&root) == before, "{release}: revert did not give back everything");
        println!("{release}: {} modules load, {} files changed and given back", modules.len(), touched.len());
    }
}

/// Loads each module from the patched tree itself, without our help.
fn loads_installed(root: &Path, stubs: &Path, modules: &[serde_json::Value]) {
    let lib = root.join("usr/share/perl5");
    for module in modules {
        let name = module["path"].as_str().unwrap().strip_prefix("usr/share/perl5/").unwrap();
        let output = Command::new("perl")
            .arg("-I")
            .arg(stubs)
            .arg("-I")
            .arg(&lib)
            .args(["-e", "require $ARGV[0]", name])
            .current_dir("/")
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Every release in the clones, and what the program knows of them: the data in the repository are what comes out.
#[test]
fn every_release_in_the_public_history() {
    let (Some(layout), Some(clones)) = (layout(), std::env::var_os("PVE_MIRRORS")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let patches = dir.path().join("patches");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("patches");
    assert!(Command::new("cp").arg("-r").arg(&source).arg(&patches).status().unwrap().success());
    let known = std::fs::read_to_string(source.join("verified.yaml")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"))
        .args(["new-version", "--write", "--load-modules", "--clones"])
        .arg(&clones)
        .arg("--perl-lib")
        .arg(layout.with_file_name("stubs"))
        .arg("--patches")
        .arg(&patches)
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let now = std::fs::read_to_string(patches.join("verified.yaml")).unwrap();
    assert!(now == known, "patches/verified.yaml is not what `new-version --write` writes");
}

/// The scripts of the patches we succeed, run for real: a host that holds them is refused, named file by file, and taken
/// once it is stock again.
#[test]
fn the_patches_we_succeed_are_recognised() {
    let (Some(layout), Some(clones)) = (layout(), std::env::var_os("PVE_MIRRORS")) else { return };
    let stubs = layout.with_file_name("stubs");
    let forms = ["pve-patches/.git", "pve-patches.git", "pve-patches", "ayufan+pve-patches/repo"];
    let clone =
        forms.iter().map(|form| Path::new(&clones).join(form)).find(|path| path.join("objects").is_dir());
    let Some(clone) = clone else {
        println!("skipped: no clone of ayufan/pve-patches in PVE_MIRRORS");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for (release, script) in
        [("5.4-5", "pve-5.4-5-diff-backup-addon"), ("6.2-4", "pve-6.2-4-diff-backup-addon")]
    {
        let root = dir.path().join(release);
        assert!(Command::new(&layout).arg(release).arg(&root).output().unwrap().status.success());
        let before = snapshot(&root);
        let text = Command::new("git")
            .arg("--git-dir")
            .arg(&clone)
            .args(["show", &format!("HEAD:{script}")])
            .output();
        let text = text.unwrap().stdout;
        let at = text.windows(11).position(|window| window == b"\n__PATCH__\n").unwrap();
        let patch = dir.path().join("patch");
        std::fs::write(&patch, &text[at..]).unwrap();
        let run_patch = |reverse: bool| {
            let mut command = Command::new("patch");
            command.args([
                "-p1",
                "--batch",
                "--ignore-whitespace",
                "--no-backup-if-mismatch",
                "-r",
                "-",
                "-d",
            ]);
            command.arg(&root).arg("-i").arg(&patch).arg(if reverse { "--reverse" } else { "--forward" });
            // The web page's script is a placeholder here: its part fails.
            command.output().unwrap()
        };
        run_patch(false);
        let after = snapshot(&root);
        let theirs: Vec<String> = before
            .iter()
            .filter(|(path, about)| after.get(*path).is_some_and(|now| now.4 != about.4))
            .map(|(path, _)| path.to_str().unwrap().to_owned())
            .collect();
        assert!(theirs.len() > 4, "{release}: only {theirs:?}");

        let refused = run(&root, &stubs, &["apply"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(17), "{release}: {said}");
        for path in &theirs {
            assert!(said.contains(&format!("/{path}, from line ")), "{release}: {path}: {said}");
        }
        assert!(
            said.contains("apt install --reinstall ") && said.contains(" libpve-storage-perl="),
            "{said}"
        );
        assert!(snapshot(&root) == after, "{release}: something was changed");

        for path in &theirs {
            std::fs::write(root.join(path), &before[Path::new(path)].4).unwrap();
        }
        let stock = run(&root, &stubs, &["status"]);
        assert_eq!(stock.status.code(), Some(3), "{release}: {}", String::from_utf8_lossy(&stock.stdout));
        println!("{release}: {} files of theirs named", theirs.len());
    }
}
