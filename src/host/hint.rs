//! Words the commands that messages tell people to run.
//!
//! People paste these commands. So each names the root folder that this run works on, where that is not the running
//! host's, and the patch sets, where they are not our own: without these, it would work on the wrong host, or do another
//! thing to it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Root;

/// The host and the patch sets that this run works on. Unset, they are the running host and our own sets. One process works
/// on one host.
static AIM: OnceLock<Aim> = OnceLock::new();

#[derive(Debug)]
struct Aim {
    root: Root,
    patches: Option<PathBuf>,
}

/// From now on commands are worded for the host at `root`, and the patch sets in the folder `patches` or else our own.
pub fn aim_at(root: &Root, patches: Option<&Path>) {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    AIM.get_or_init(|| Aim { root: root.clone(), patches: patches.map(absolute) });
}

/// The folder of a host that is not the running one.
fn foreign() -> Option<&'static Path> {
    AIM.get().map(|aim| &aim.root).filter(|root| !root.is_running_host()).map(Root::dir)
}

/// A command of ours: `words` are what follows the program's name.
pub fn ours(words: &str) -> String {
    let patches = AIM.get().and_then(|aim| aim.patches.as_deref());
    command("pve-diff-backup", &[("--root", foreign()), ("--patches", patches)], words)
}

/// A command of the host itself, which runs in its root folder.
pub fn inside(words: &str) -> String {
    match foreign() {
        None => words.to_owned(),
        Some(root) => format!("chroot {} {words}", quoted(&root.to_string_lossy())),
    }
}

/// The file `path` (relative to the root) as other programs of the running host find it.
pub fn file(path: &str) -> String {
    quoted(&foreign().unwrap_or(Path::new("/")).join(path).to_string_lossy())
}

/// `program` with those options that have a value, and then `words`.
fn command(program: &str, options: &[(&str, Option<&Path>)], words: &str) -> String {
    let mut text = program.to_owned();
    for (option, value) in options {
        if let Some(value) = value {
            text += &format!(" {option} {}", quoted(&value.to_string_lossy()));
        }
    }
    format!("{text} {words}")
}

/// `word` so that a shell takes it as one word.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:=".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_root_is_named_and_quoted() {
        let both = |root, sets| command("pve-diff-backup", &[("--root", root), ("--patches", sets)], "apply");
        let words = |root| both(root, None);
        assert_eq!(words(None), "pve-diff-backup apply");
        assert_eq!(words(Some(Path::new("/mnt/pve-1"))), "pve-diff-backup --root /mnt/pve-1 apply");
        assert_eq!(both(None, Some(Path::new("/my sets"))), "pve-diff-backup --patches '/my sets' apply");
        let odd = Path::new("/mnt/a b'; rm $x");
        assert_eq!(words(Some(odd)), "pve-diff-backup --root '/mnt/a b'\\''; rm $x' apply");
    }
}
