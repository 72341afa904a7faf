//! The backups of a directory: each full with the differentials that need it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names::{BackupName, Differential, Full, looks_like_differential};
use super::unfinished::{self, Leftover, Unfinished};

/// A full backup and all differentials that need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The full backup; it may be compressed otherwise than when the differentials were made.
    pub full: Full,
    /// What cannot be restored without it, oldest first.
    pub differentials: Vec<Differential>,
}

/// A file that looks like a backup but cannot be taken for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Its name, as the directory has it.
    pub name: OsString,
    /// Why not.
    pub reason: &'static str,
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The directory.
    pub path: PathBuf,
    /// Ordered by kind of guest, its number, and time.
    pub chains: Vec<Chain>,
    /// Differentials whose full is not there, in the same order.
    pub orphans: Vec<Differential>,
    /// Misspelt differentials, links that lead elsewhere and the like, by name.
    pub unusable: Vec<Unusable>,
    /// Unfinished backups, by name.
    pub leftovers: Vec<Leftover>,
    /// Fulls that were found damaged while a differential was made against them.
    pub damaged: Vec<Full>,
}

/// Ends the name of the note that is left beside a damaged full.
const DAMAGED: &str = ".damaged";

impl Directory {
    /// Reads a directory, not those below it. Other files than backups do not matter; a backup is a regular file itself,
    /// no symbolic link.
    pub fn scan(path: &Path) -> io::Result<Self> {
        let (mut fulls, mut differentials, mut unusable) =
            (Vec::new(), Vec::<Differential>::new(), Vec::new());
        let (mut packed, mut leftovers, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(left) = name.to_str().and_then(Unfinished::parse) {
                leftovers.push(left);
                continue;
            }
            damaged.extend(name.to_str().and_then(|it| Full::parse(it.strip_suffix(DAMAGED)?)));
            let parsed = BackupName::parse(name.as_bytes());
            if parsed.is_none() && !looks_like_differential(name.as_bytes()) {
                if let (Some(full), None) = (name.to_str().and_then(Full::parse_packed), obstacle(&entry)) {
                    packed.push(full);
                }
                continue;
            }
            match (parsed, obstacle(&entry)) {
                (_, Some(reason)) => unusable.push(Unusable { name, reason }),
                (Some(BackupName::Full(full)), None) => fulls.push(full),
                (Some(BackupName::Differential(differential)), None) => differentials.push(differential),
                (None, None) => {
                    unusable.push(Unusable { name, reason: "the name is not that of a differential backup" })
                }
            }
        }
        // What Proxmox VE does not know is a backup only as the full of a differential.
        packed.retain(|full: &Full| {
            differentials.iter().any(|d| d.base().is_content_of(full))
                && !fulls.iter().any(|other: &Full| other.is_content_of(full))
        });
        fulls.append(&mut packed);
        fulls.sort_by_cached_key(order);
        differentials.sort_by_cached_key(|d| (order(d.base()), d.stamp(), d.as_str().to_owned()));
        unusable.sort_by(|a, b| a.name.cmp(&b.name));
        let mut chains: Vec<_> =
            fulls.into_iter().map(|full| Chain { full, differentials: Vec::new() }).collect();
        let mut orphans = Vec::new();
        for differential in differentials {
            let exact = chains.iter().position(|c| c.full == *differential.base());
            let any = || chains.iter().position(|c| c.full.is_content_of(differential.base()));
            match exact.or_else(any) {
                Some(at) => chains[at].differentials.push(differential),
                None => orphans.push(differential),
            }
        }
        leftovers.sort_by(|a, b| a.name.cmp(&b.name));
        damaged.retain(|full| chains.iter().any(|chain| chain.full == *full));
        damaged.sort_by_cached_key(order);
        let leftovers = unfinished::look_at(leftovers);
        Ok(Directory { path: path.to_owned(), chains, orphans, unusable, leftovers, damaged })
    }

    /// The differentials that cannot be restored without the full of this name, oldest first.
    pub fn dependants(&self, full: &OsStr) -> &[Differential] {
        let chain = self.chains.iter().find(|c| c.full.as_str() == full);
        chain.map_or(&[], |c| &c.differentials)
    }
}

fn order(full: &Full) -> impl Ord + use<> {
    (full.kind(), full.vmid(), full.stamp(), full.as_str().to_owned())
}

/// Why an entry cannot be used as a backup: a directory, a pipe, a device, or a symbolic link (which may lead anywhere,
/// on a storage that others can write to).
fn obstacle(entry: &DirEntry) -> Option<&'static str> {
    match entry.file_type() {
        Ok(kind) if kind.is_file() => None,
        Ok(kind) if kind.is_symlink() => {
            Some("a symbolic link, which is not followed on a storage: put the file itself there")
        }
        Ok(_) => Some("no regular file"),
        Err(_) => Some("its type cannot be told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const FULL: &str = "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst";

    fn diff(of: &str, day: u32) -> String {
        format!("{of}--differential-2026_11_{day:02}-01_00_02.vcdiff.zst")
    }

    fn scan(names: &[&OsStr]) -> Directory {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        Directory::scan(dir.path()).unwrap()
    }

    #[test]
    fn differentials_belong_to_their_full() {
        let other = "vzdump-qemu-99999-2026_11_20-01_00_02.vma.zst";
        let names = [
            diff(FULL, 22),
            FULL.into(),
            diff(FULL, 21),
            other.into(),
            diff(other, 25),
            diff("vzdump-lxc-100-2026_11_01-00_00_00.tar", 2),
            "vzdump-qemu-101-2026_11_20-01_00_02.log".into(),
            format!("{FULL}.notes"),
            diff(FULL, 23).replace(".vcdiff.zst", ".vcdiff.dat"),
        ];
        let found = scan(&names.each_ref().map(OsStr::new));
        assert_eq!(found.chains.len(), 2);
        let texts = |list: &[Differential]| list.iter().map(|d| d.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(texts(found.dependants(OsStr::new(FULL))), [diff(FULL, 21), diff(FULL, 22)]);
        assert_eq!(texts(found.dependants(OsStr::new(other))), [diff(other, 25)]);
        assert_eq!(found.dependants(OsStr::new("nothing")), []);
        assert_eq!(texts(&found.orphans), [names[5].clone()]);
        assert_eq!(found.unusable, []);
        let left: Vec<_> = found.leftovers.iter().map(|it| it.file.name.as_str()).collect();
        assert_eq!(left, [names[8].as_str()]);
    }

    #[test]
    fn a_note_tells_of_a_damaged_full() {
        let notes = [FULL, "vzdump-qemu-101-2026_11_01-01_00_02.vma.zst"].map(|it| format!("{it}.damaged"));
        let found = scan(&[FULL, &notes[0], &notes[1]].map(OsStr::new));
        assert_eq!(found.damaged.iter().map(Full::as_str).collect::<Vec<_>>(), [FULL]);
    }

    #[test]
    fn a_full_that_was_compressed_anew_keeps_its_differentials() {
        let plain = FULL.strip_suffix(".zst").unwrap();
        for form in [plain.to_owned(), format!("{plain}.lzo"), format!("{plain}.xz")] {
            let found = scan(&[&diff(FULL, 21), &form, &diff(plain, 22)].map(OsStr::new));
            assert_eq!((found.chains.len(), found.orphans.len()), (1, 0), "{form}");
            assert_eq!(found.dependants(OsStr::new(&form)).len(), 2, "{form}");
        }
        // Where it is there twice, each belongs to the one of its name.
        let found = scan(&[&diff(FULL, 21), FULL, plain, &format!("{plain}.xz")].map(OsStr::new));
        assert_eq!(found.chains.len(), 2);
        assert_eq!(
            (found.dependants(OsStr::new(FULL)).len(), found.dependants(OsStr::new(plain)).len()),
            (1, 0)
        );
    }

    #[test]
    fn odd_names_are_reported_or_ignored_but_never_taken() {
        let names: [&[u8]; 4] =
            [b"vzdump-\xff.vcdiff", b"$(reboot).vcdiff.zst", b"a 'b' \"c\".txt", b"\xfe\xff"];
        let found = scan(&names.map(OsStr::from_bytes));
        assert_eq!((found.chains.len(), found.orphans.len()), (0, 0));
        let unusable: Vec<_> = found.unusable.iter().map(|u| u.name.as_bytes()).collect();
        assert_eq!(unusable, [names[1], names[0]]);
    }

    #[test]
    fn links_are_no_backups() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("content"), "").unwrap();
        symlink("content", at(FULL)).unwrap();
        symlink("/etc/hostname", at(&diff(FULL, 21))).unwrap();
        symlink("nowhere", at(&diff(FULL, 22))).unwrap();
        symlink(".", at(&diff(FULL, 23))).unwrap();
        fs::create_dir(at(&diff(FULL, 24))).unwrap();
        let found = Directory::scan(dir.path()).unwrap();
        assert_eq!((found.chains.len(), found.orphans.len()), (0, 0));
        let reasons: Vec<_> = found.unusable.iter().map(|u| u.reason).collect();
        let link = "a symbolic link, which is not followed on a storage: put the file itself there";
        assert_eq!(reasons, [link, link, link, link, "no regular file"]);
    }
}
