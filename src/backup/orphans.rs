//! Finds the files of backups that belong to no chain: what killed jobs left, differentials without their full, and names
//! that are no backup's.

use std::fmt;

use super::chain::Directory;
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
pub fn orphans(directory: &Directory) -> Vec<Orphan> {
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
    for folder in &directory.folders {
        let name = folder.name.clone();
        found.extend(folder.advice(dir).map(|advice| Orphan {
            name,
            kind: Kind::Leftover,
            size: None,
            advice,
        }));
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
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
        let found = orphans(&Directory::scan(dir.path()).unwrap());
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
