//! Commands that messages tell people to run: all of them are worded here.
//!
//! A command is there to be pasted. So it names the root folder that this run works on, where that is not the running
//! host's: without it, it would work on the wrong host.

use std::path::Path;
use std::sync::OnceLock;

use super::Root;

/// The root folder that this run works on; unset it is the running host's. One process works on one host.
static ROOT: OnceLock<Root> = OnceLock::new();

/// From now on commands are worded for the host at `root`.
pub fn aim_at(root: &Root) {
    ROOT.get_or_init(|| root.clone());
}

/// The folder of a host that is not the running one.
fn foreign() -> Option<&'static Path> {
    ROOT.get().filter(|root| !root.is_running_host()).map(Root::dir)
}

/// A command of ours: `words` are what follows the program's name.
pub fn ours(words: &str) -> String {
    for_root(foreign(), "pve-diff-backup --root", "pve-diff-backup", words)
}

/// A command of the host itself, which runs in its root folder.
pub fn inside(words: &str) -> String {
    match foreign() {
        None => words.to_owned(),
        Some(_) => for_root(foreign(), "chroot", "", words),
    }
}

/// The file `path` (relative to the root) as other programs of the running host find it.
pub fn file(path: &str) -> String {
    quoted(&foreign().unwrap_or(Path::new("/")).join(path).to_string_lossy())
}

fn for_root(root: Option<&Path>, with: &str, without: &str, words: &str) -> String {
    match root {
        None => format!("{without} {words}"),
        Some(root) => format!("{with} {} {words}", quoted(&root.to_string_lossy())),
    }
}

/// `word` so that a shell takes it as one word.
fn quoted(word: &str) -> String {
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
        let words = |root| for_root(root, "pve-diff-backup --root", "pve-diff-backup", "apply");
        assert_eq!(words(None), "pve-diff-backup apply");
        assert_eq!(words(Some(Path::new("/mnt/pve-1"))), "pve-diff-backup --root /mnt/pve-1 apply");
        let odd = Path::new("/mnt/a b'; rm $x");
        assert_eq!(words(Some(odd)), "pve-diff-backup --root '/mnt/a b'\\''; rm $x' apply");
    }
}
