//! Finds the backups in a directory: each full backup with the differentials that need it.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names::{BackupName, Differential, Full, looks_like_differential};
use super::unfinished::{self, Folder, Leftover, Unfinished};

/// A full backup and all differentials that need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The full backup. It may be compressed otherwise than when the differentials were made.
    pub full: Full,
    /// The backups that cannot be restored without it, oldest first.
    pub differentials: Vec<Differential>,
}

/// A file that looks like a backup but cannot be used as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Its name, as the directory has it.
    pub name: OsString,
    /// Why it cannot be used.
    pub reason: &'static str,
}

/// The backups in a directory, and the files that look like some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The directory.
    pub path: PathBuf,
    /// The full backups with their differentials, ordered by kind of guest, its number, and time.
    pub chains: Vec<Chain>,
    /// The differentials whose full is not there, in the same order.
    pub orphans: Vec<Differential>,
    /// The files that look like backups but cannot be used, such as misspelt differentials and symbolic links, ordered
    /// by name.
    pub unusable: Vec<Unusable>,
    /// The unfinished backups, ordered by name.
    pub leftovers: Vec<Leftover>,
    /// The folders that vzdump makes for the time of a backup, ordered by name.
    pub folders: Vec<Folder>,
    /// The fulls that were found damaged while a differential was made against them.
    pub damaged: Vec<Full>,
    /// The size in bytes of the file of each backup, finished or not, by its name.
    sizes: HashMap<String, u64>,
    /// The names of the regular files whose endings say that they belong to a backup.
    beside: HashSet<String>,
    /// The names that end in `.protected`, of files of any kind.
    protected: HashSet<String>,
}

/// The ending of the note that is left beside a damaged full.
pub(super) const DAMAGED: &str = ".damaged";

/// The endings of the files that lie beside backups.
const BESIDE: [&str; 4] = [".log", ".notes", PROTECTED, DAMAGED];

/// The ending of the mark of protection.
const PROTECTED: &str = ".protected";

impl Directory {
    /// Reads a directory, but not the folders in it. Files that are no backups are ignored. A backup must be a regular
    /// file itself, not a symbolic link to one.
    pub fn scan(path: &Path) -> io::Result<Self> {
        let (mut fulls, mut differentials, mut unusable) =
            (Vec::new(), Vec::<Differential>::new(), Vec::new());
        let (mut packed, mut leftovers, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        let mut folders = Vec::new();
        let (mut sizes, mut beside, mut protected) = (HashMap::new(), HashSet::new(), HashSet::new());
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(left) = name.to_str().and_then(Unfinished::parse) {
                if let Entry::File(size) = look(&entry) {
                    sizes.insert(left.name.clone(), size);
                }
                leftovers.push(left);
                continue;
            }
            if let Some((name, guest)) =
                name.to_str().and_then(|it| Some((it.to_owned(), unfinished::guest_of_folder(it)?)))
            {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push((name, guest));
                }
                continue;
            }
            damaged.extend(name.to_str().and_then(|it| Full::parse(it.strip_suffix(DAMAGED)?)));
            let parsed = BackupName::parse(name.as_bytes());
            if parsed.is_none() && !looks_like_differential(name.as_bytes()) {
                let Some(text) = name.to_str() else { continue };
                if text.ends_with(PROTECTED) {
                    protected.insert(text.to_owned());
                }
                if let Some(full) = Full::parse_packed(text) {
                    if let Entry::File(size) = look(&entry) {
                        sizes.insert(text.to_owned(), size);
                        packed.push(full);
                    }
                } else if BESIDE.iter().any(|end| text.ends_with(end))
                    && entry.file_type().is_ok_and(|kind| kind.is_file())
                {
                    beside.insert(text.to_owned());
                }
                continue;
            }
            let size = match look(&entry) {
                Entry::File(size) => size,
                Entry::Gone => continue,
                Entry::Other(reason) => {
                    unusable.push(Unusable { name, reason });
                    continue;
                }
            };
            let Some(parsed) = parsed else {
                unusable.push(Unusable { name, reason: "the name is not that of a differential backup" });
                continue;
            };
            sizes.insert(parsed.as_str().to_owned(), size);
            match parsed {
                BackupName::Full(full) => fulls.push(full),
                BackupName::Differential(differential) => differentials.push(differential),
            }
        }
        // Proxmox VE does not know fulls compressed with xz: one is a backup only if a differential needs it.
        let needed: HashSet<_> = differentials.iter().map(|d| d.base().content()).collect();
        let known: HashSet<_> = fulls.iter().map(Full::content).collect();
        packed.retain(|full| needed.contains(&full.content()) && !known.contains(&full.content()));
        fulls.append(&mut packed);
        fulls.sort_by_cached_key(order);
        differentials.sort_by_cached_key(|d| (order(d.base()), d.stamp(), d.as_str().to_owned()));
        unusable.sort_by(|a, b| a.name.cmp(&b.name));
        let mut chains: Vec<_> =
            fulls.into_iter().map(|full| Chain { full, differentials: Vec::new() }).collect();
        let exact: HashMap<_, _> = chains.iter().enumerate().map(|(at, it)| (it.full.clone(), at)).collect();
        // Where one full is there in several compressions, the differentials are counted to the first.
        let any: HashMap<_, _> =
            chains.iter().enumerate().rev().map(|(at, it)| (it.full.content(), at)).collect();
        let mut orphans = Vec::new();
        for differential in differentials {
            let base = differential.base();
            match exact.get(base).or_else(|| any.get(&base.content())) {
                Some(&at) => chains[at].differentials.push(differential),
                None => orphans.push(differential),
            }
        }
        leftovers.sort_by(|a, b| a.name.cmp(&b.name));
        damaged.retain(|full| exact.contains_key(full));
        damaged.sort_by_cached_key(order);
        let leftovers = unfinished::look_at(leftovers);
        folders.sort_by(|a, b| a.0.cmp(&b.0));
        let folders = unfinished::look_at_folders(path, folders);
        let path = path.to_owned();
        Ok(Directory {
            path,
            chains,
            orphans,
            unusable,
            leftovers,
            folders,
            damaged,
            sizes,
            beside,
            protected,
        })
    }

    /// Makes the value for a directory without backups.
    pub fn empty(path: &Path) -> Self {
        Directory {
            path: path.to_owned(),
            chains: Vec::new(),
            orphans: Vec::new(),
            unusable: Vec::new(),
            leftovers: Vec::new(),
            folders: Vec::new(),
            damaged: Vec::new(),
            sizes: HashMap::new(),
            beside: HashSet::new(),
            protected: HashSet::new(),
        }
    }

    /// The size in bytes of the file of a backup, finished or not.
    pub fn size_of(&self, backup: &str) -> u64 {
        self.sizes.get(backup).copied().unwrap_or(0)
    }

    /// Tells whether a regular file of this name lies beside the backups: a log, notes, or a mark of protection.
    pub fn has_beside(&self, name: &str) -> bool {
        self.beside.contains(name)
    }

    /// Tells whether Proxmox VE refuses to remove a backup. It asks only whether there is something of the mark's name, so a
    /// symbolic link or a folder protects, too.
    pub fn is_protected(&self, backup: &BackupName) -> bool {
        self.protected.contains(&backup.protected_name())
    }

    /// Lists the differentials that cannot be restored without the full of this name, oldest first.
    pub fn dependants(&self, full: &OsStr) -> &[Differential] {
        let chain = self.chains.iter().find(|c| c.full.as_str() == full);
        chain.map_or(&[], |c| &c.differentials)
    }
}

fn order(full: &Full) -> impl Ord + use<> {
    (full.kind(), full.vmid(), full.stamp(), full.as_str().to_owned())
}

/// Tells what a folder has under the name of a backup.
enum Entry {
    /// It is a regular file of this many bytes.
    File(u64),
    /// It has vanished since the directory was listed.
    Gone,
    /// It cannot be used as a backup, for this reason: it is a directory, a pipe, a device, or a symbolic link (which
    /// may lead anywhere, where others can write to the storage).
    Other(&'static str),
}

fn look(entry: &DirEntry) -> Entry {
    match entry.metadata() {
        Ok(it) if it.is_file() => Entry::File(it.len()),
        Ok(it) if it.is_symlink() => {
            Entry::Other("a symbolic link, which is not followed on a storage: put the file itself there")
        }
        Ok(_) => Entry::Other("no regular file"),
        Err(error) if error.kind() == ErrorKind::NotFound => Entry::Gone,
        Err(_) => Entry::Other("its type cannot be told"),
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
        // Where the full is there in two compressions, each differential belongs to the one that its name tells.
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
