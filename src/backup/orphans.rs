//! Finds the files of backups that belong to no chain: what killed jobs left, differentials without their full, and names
//! that are no backup's.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use super::chain::Directory;
use super::names::Full;
use crate::text::shown;

/// Why a file belongs to no chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A killed job left it, or a job of another node writes it.
    Leftover,
    /// It is a differential whose full is not there.
    Stranded,
    /// Its name or its kind cannot be that of a backup, though it looks like one.
    Unreadable,
}

/// The word is stable: programs look for it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Leftover => "leftover",
            Kind::Stranded => "stranded",
            Kind::Unreadable => "unreadable",
        })
    }
}

/// A file, or a folder, that belongs to no chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its name, made printable.
    pub name: String,
    /// Why it belongs to no chain.
    pub kind: Kind,
    /// Its size in bytes, if it is a regular file.
    pub size: Option<u64>,
    /// Says what it is and what to do about it.
    pub advice: String,
}

/// Lists what belongs to no chain, ordered by kind and name. What a process of this node writes at the moment is left out.
///
/// # Errors
/// Fails where the directory cannot be read any more.
pub fn orphans(directory: &Directory) -> io::Result<Vec<Orphan>> {
    let dir = &directory.path;
    let mut found = Vec::new();
    for left in &directory.leftovers {
        let name = left.file.name.as_str();
        found.extend(left.advice(dir).map(|advice| Orphan {
            name: name.to_owned(),
            kind: Kind::Leftover,
            size: Some(directory.size_of(name)),
            advice,
        }));
    }
    for name in temporary_folders(dir)? {
        let advice = format!(
            "a folder in which vzdump keeps what it needs for one backup; if no backup of this guest goes on, on any node, a \
             killed one left it: rm -r '{}'",
            shown(dir.join(&name))
        );
        found.push(Orphan { name, kind: Kind::Leftover, size: None, advice });
    }
    for orphan in &directory.orphans {
        let name = orphan.as_str();
        let advice = format!(
            "cannot be restored, as its full backup {} is not there; it is kept: put that back, or: rm '{}'",
            orphan.base().as_str(),
            shown(dir.join(name))
        );
        let size = Some(directory.size_of(name));
        found.push(Orphan { name: name.to_owned(), kind: Kind::Stranded, size, advice });
    }
    for unusable in &directory.unusable {
        let metadata = dir.join(&unusable.name).symlink_metadata().ok();
        found.push(Orphan {
            name: shown(&unusable.name),
            kind: Kind::Unreadable,
            size: metadata.filter(|it| it.is_file()).map(|it| it.len()),
            advice: format!("{}; it is kept: give it its right name, or remove it", unusable.reason),
        });
    }
    Ok(found)
}

/// Lists the folders that vzdump makes beside its backups while it works, `vzdump-lxc-100-2026_11_20-01_00_02.tmp`.
fn temporary_folders(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok();
        // A tar archive may belong to any kind of guest.
        let is_ours = |name: &String| {
            name.strip_suffix(".tmp").is_some_and(|stem| Full::parse(&format!("{stem}.tar")).is_some())
        };
        if let Some(name) = name.filter(is_ours)
            && entry.file_type().is_ok_and(|it| it.is_dir())
        {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_no_chain_is_listed_by_kind() {
        let dir = tempfile::tempdir().unwrap();
        let full = "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst";
        let differential = |of: &str| format!("{of}--differential-2026_11_21-01_00_02.vcdiff.zst");
        let gone = differential("vzdump-qemu-102-2026_11_20-01_00_02.vma.zst");
        let left = "vzdump-qemu-101-2026_11_22-01_00_02.vma.pve9-0badcafe.dat";
        let beside = [format!("{full}.notes"), format!("{full}.protected"), "vzdump-qemu-101-x.log".into()];
        for name in [full, &differential(full), &gone, left, "odd.vcdiff"]
            .into_iter()
            .chain(beside.iter().map(|it| &**it))
        {
            fs::write(dir.path().join(name), "12").unwrap();
        }
        let tmp = "vzdump-lxc-100-2026_11_20-01_00_02.tmp";
        for folder in [tmp, "vzdump-lxc-x.tmp", "other.tmp"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let found = orphans(&Directory::scan(dir.path()).unwrap()).unwrap();
        let told: Vec<_> = found.iter().map(|it| (it.kind, it.name.as_str(), it.size)).collect();
        let expected = [
            (Kind::Leftover, left, Some(2)),
            (Kind::Leftover, tmp, None),
            (Kind::Stranded, &gone, Some(2)),
            (Kind::Unreadable, "odd.vcdiff", Some(2)),
        ];
        assert_eq!(told, expected);
    }
}
