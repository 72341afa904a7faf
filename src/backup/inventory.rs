//! Tells what is known of each guest's backups in a directory without reading them: their sizes, what the differentials
//! save, their notes, their protection, and what is odd.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::chain::{Directory, Unusable};
use super::names::{BackupName, Full, Guest};
use super::unfinished::{Leftover, State};
use super::verified::{OfDirectory, Outcome, Results};
use crate::container::source::{Found, open};

/// The number of bytes of a backup's notes that are read.
const NOTES_MAX: u64 = 4096;

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its name.
    pub name: BackupName,
    /// The size of its file in bytes.
    pub size: u64,
    /// True where Proxmox VE refuses to remove this backup.
    pub is_protected: bool,
    /// The first line of its notes, as they stand there; not empty.
    pub notes: Option<Vec<u8>>,
    /// The result of its last verification, if the backup and its full have not changed since.
    pub verified: Option<Outcome>,
}

/// A full backup with the differentials that need it, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The full backup.
    pub full: Backup,
    /// The backups that cannot be restored without it.
    pub differentials: Vec<Backup>,
}

impl Chain {
    /// Divides the differential's size by the full's: 1 means that both are of the same size. It is `None` where the
    /// full is empty.
    pub fn share(&self, differential: &Backup) -> Option<f64> {
        (self.full.size > 0).then(|| differential.size as f64 / self.full.size as f64)
    }

    /// Tells how many bytes a differential saves, as another full backup would have taken about as many bytes as this
    /// one.
    pub fn saved(&self, differential: &Backup) -> u64 {
        self.full.size.saturating_sub(differential.size)
    }
}

/// An unfinished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Holds its name, and whether a process of this node still writes it.
    pub left: Leftover,
    /// The size of its file in bytes.
    pub size: u64,
}

/// Something that people should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oddity {
    /// The full backup that some differentials need is not there.
    Stranded {
        /// The name of the full backup.
        full: String,
        /// How many differentials need it.
        count: usize,
    },
    /// A full backup was found damaged while a differential was made against it.
    Damaged(String),
    /// The file of a backup is empty.
    Empty(String),
    /// A differential takes more room than its full backup.
    Larger(String),
    /// The same full backup is there in another compression, and all differentials are counted to that one.
    Twice {
        /// The name of the full that no differential needs.
        spare: String,
        /// The name of the full that they need.
        other: String,
    },
    /// A differential is there beside a full backup of the same time, which was made of it but did not replace it yet.
    Consolidated(String),
    /// A guest with differentials has a full backup that none of them needs, and it is not the newest.
    Unneeded(String),
    /// A backup was not finished, and nobody will finish it, or this node cannot tell whether somebody will.
    Unfinished {
        /// The name of the file.
        file: String,
        /// Says in a sentence why it is there and what to do about it.
        advice: String,
    },
}

impl Oddity {
    /// Names the kind of oddity in one word, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Oddity::Stranded { .. } => "stranded",
            Oddity::Damaged(_) => "damaged",
            Oddity::Empty(_) => "empty",
            Oddity::Larger(_) => "larger-than-full",
            Oddity::Twice { .. } => "twice",
            Oddity::Consolidated(_) => "consolidated",
            Oddity::Unneeded(_) => "unneeded",
            Oddity::Unfinished { .. } => "unfinished",
        }
    }

    /// The name of the file concerned. That file need not be there.
    pub fn file(&self) -> &str {
        match self {
            Oddity::Stranded { full: file, .. }
            | Oddity::Damaged(file)
            | Oddity::Empty(file)
            | Oddity::Larger(file)
            | Oddity::Twice { spare: file, .. }
            | Oddity::Consolidated(file)
            | Oddity::Unneeded(file)
            | Oddity::Unfinished { file, .. } => file,
        }
    }
}

/// Says what is odd and what to do about it, without the name of the file.
impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::Stranded { count, .. } => write!(
                f,
                "not here, and {count} differential backup(s) cannot be restored without it; they are kept: put it back, \
                 or delete them"
            ),
            Oddity::Damaged(_) => f.write_str(
                "found damaged (see the file .damaged beside it): its differentials may be lost; verify them",
            ),
            Oddity::Empty(_) => f.write_str("empty: nothing can be restored from it"),
            Oddity::Larger(_) => f.write_str("takes more than its full backup; a new full would be smaller"),
            Oddity::Twice { other, .. } => {
                write!(f, "no differential needs it, as {other} is there, too; verify, then delete one of them")
            }
            Oddity::Consolidated(_) => f.write_str(
                "there is a full backup of the same time, as an interrupted `consolidate` leaves it: run it again with this \
                 file, and it compares both and removes this one",
            ),
            Oddity::Unneeded(_) => f.write_str(
                "no differential needs it any more, and there is a newer full backup: it stays as a backup of its own \
                 day, as long as your retention says",
            ),
            Oddity::Unfinished { advice, .. } => f.write_str(advice),
        }
    }
}

/// The backups of one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestBackups {
    /// The guest.
    pub guest: Guest,
    /// The full backups with their differentials, oldest first.
    pub chains: Vec<Chain>,
    /// The differentials whose full is not there, ordered by the time of that full.
    pub stranded: Vec<Backup>,
    /// The backups that were never finished, or are being made.
    pub unfinished: Vec<Unfinished>,
    /// Lists everything about these backups that somebody should look at.
    pub odd: Vec<Oddity>,
}

/// The room that a guest's backups take and save. `pve-diff-backup.js` computes the same sums for the web interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Number of full backups.
    pub fulls: usize,
    /// Number of differentials, including those whose full is not there.
    pub differentials: usize,
    /// Size of all fulls in bytes.
    pub full_size: u64,
    /// Size of all differentials in bytes.
    pub differential_size: u64,
    /// The number of bytes that full backups would have taken in place of the differentials, beyond what these take.
    pub saved: u64,
}

impl GuestBackups {
    /// Adds up what the guest's backups take and save.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums { fulls: self.chains.len(), ..Sums::default() };
        let of_chains = self.chains.iter().flat_map(|chain| &chain.differentials);
        for differential in of_chains.chain(&self.stranded) {
            sums.differentials += 1;
            sums.differential_size = sums.differential_size.saturating_add(differential.size);
        }
        for chain in &self.chains {
            sums.full_size = sums.full_size.saturating_add(chain.full.size);
            for differential in &chain.differentials {
                sums.saved = sums.saved.saturating_add(chain.saved(differential));
            }
        }
        sums
    }

    /// Finds what is odd about the guest's backups. `damaged` are the fulls that were found damaged.
    fn oddities(&self, dir: &Path, damaged: &HashSet<&Full>) -> Vec<Oddity> {
        let mut odd = Vec::new();
        let mut missing = BTreeMap::new();
        for stranded in &self.stranded {
            *missing.entry(stranded.name.full().as_str()).or_default() += 1;
        }
        odd.extend(
            missing.into_iter().map(|(full, count)| Oddity::Stranded { full: full.to_owned(), count }),
        );
        let has_differentials = self.chains.iter().any(|chain| !chain.differentials.is_empty());
        let newest = self.chains.iter().map(|chain| chain.full.name.stamp()).max();
        let fulls: HashSet<_> = self.chains.iter().map(|chain| chain.full.name.stamp()).collect();
        for chain in &self.chains {
            let name = &chain.full.name;
            let file = || name.as_str().to_owned();
            if damaged.contains(name.full()) {
                odd.push(Oddity::Damaged(file()));
            }
            for backup in chain.differentials.iter().chain([&chain.full]).filter(|it| it.size == 0) {
                odd.push(Oddity::Empty(backup.name.as_str().to_owned()));
            }
            for differential in chain.differentials.iter().filter(|it| it.size > chain.full.size) {
                odd.push(Oddity::Larger(differential.name.as_str().to_owned()));
            }
            for differential in chain.differentials.iter().filter(|it| fulls.contains(&it.name.stamp())) {
                odd.push(Oddity::Consolidated(differential.name.as_str().to_owned()));
            }
            if !chain.differentials.is_empty() {
                continue;
            }
            let mut others = self.chains.iter().filter(|other| !other.differentials.is_empty());
            let other = others.find(|other| other.full.name.full().is_content_of(name.full()));
            if let Some(other) = other {
                let other = other.full.name.as_str().to_owned();
                odd.push(Oddity::Twice { spare: file(), other });
            } else if has_differentials && !chain.full.is_protected && newest > Some(name.stamp()) {
                odd.push(Oddity::Unneeded(file()));
            }
        }
        for it in &self.unfinished {
            odd.extend(
                it.left
                    .advice(dir)
                    .map(|advice| Oddity::Unfinished { file: it.left.file.name.clone(), advice }),
            );
        }
        odd
    }
}

/// The backups in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The directory.
    pub path: PathBuf,
    /// The guests, ordered by kind and number.
    pub guests: Vec<GuestBackups>,
    /// The files that look like backups but cannot be used as such.
    pub unusable: Vec<Unusable>,
}

impl Inventory {
    /// Adds the notes to what [`Directory::scan`] has found. `results` are those of verifications.
    pub fn of(directory: Directory, results: &Results) -> Self {
        let results = results.in_directory(&directory.path);
        let mut guests = BTreeMap::new();
        let look = |name: BackupName| backup(&directory, name, &results);
        for chain in &directory.chains {
            let differentials = chain.differentials.iter().cloned().map(BackupName::Differential);
            let differentials = differentials.map(look).collect();
            let full = look(BackupName::Full(chain.full.clone()));
            of(&mut guests, chain.full.guest()).chains.push(Chain { full, differentials });
        }
        for orphan in &directory.orphans {
            let stranded = look(BackupName::Differential(orphan.clone()));
            of(&mut guests, orphan.base().guest()).stranded.push(stranded);
        }
        for left in &directory.leftovers {
            let size = directory.size_of(&left.file.name);
            of(&mut guests, left.file.guest).unfinished.push(Unfinished { left: left.clone(), size });
        }
        for folder in directory.folders.iter().filter(|it| it.state != State::Written) {
            of(&mut guests, folder.guest);
        }
        let damaged: HashSet<&Full> = directory.damaged.iter().collect();
        let mut guests: Vec<_> = guests.into_values().collect();
        for guest in &mut guests {
            guest.odd = guest.oddities(&directory.path, &damaged);
            for folder in directory.folders.iter().filter(|it| it.guest == guest.guest) {
                let file = folder.name.clone();
                let advice = folder.advice(&directory.path);
                guest.odd.extend(advice.map(|advice| Oddity::Unfinished { file, advice }));
            }
        }
        let Directory { path, unusable, .. } = directory;
        Inventory { path, guests, unusable }
    }
}

fn of(guests: &mut BTreeMap<Guest, GuestBackups>, guest: Guest) -> &mut GuestBackups {
    guests.entry(guest).or_insert_with(|| GuestBackups {
        guest,
        chains: Vec::new(),
        stranded: Vec::new(),
        unfinished: Vec::new(),
        odd: Vec::new(),
    })
}

fn backup(directory: &Directory, name: BackupName, results: &OfDirectory) -> Backup {
    let size = directory.size_of(name.as_str());
    let is_protected = directory.is_protected(&name);
    let notes = name.notes_name();
    let notes = directory.has_beside(&notes).then(|| first_line(&directory.path.join(notes))).flatten();
    let full = match &name {
        BackupName::Full(_) => None,
        BackupName::Differential(differential) => Some(differential.base().as_str()),
    };
    let verified = results.of(&directory.path, name.as_str(), full);
    Backup { name, size, is_protected, notes, verified }
}

/// Reads the first line of a file. A symbolic link is not followed, and a pipe is not waited for.
fn first_line(path: &Path) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    open(path, Found::ByName).ok()?.take(NOTES_MAX).read_to_end(&mut text).ok()?;
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    use serde_json::{Value, json};

    const FULL: &str = "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst";

    fn diff(of: &str, day: u32) -> String {
        format!("{of}--differential-2026_11_{day:02}-01_00_02.vcdiff.zst")
    }

    fn take(files: &[(String, u64)]) -> Inventory {
        let dir = tempfile::tempdir().unwrap();
        for (name, size) in files {
            fs::File::create(dir.path().join(name)).unwrap().set_len(*size).unwrap();
        }
        Inventory::of(Directory::scan(dir.path()).unwrap(), &Results::default())
    }

    #[test]
    fn sums_are_those_of_the_web_interface() {
        let file: Value = serde_json::from_str(include_str!("../../tests/data/chains.json")).unwrap();
        let cases = file["sums"].as_array().unwrap();
        assert!(cases.len() >= 4);
        for case in cases {
            let size = |it: &Value| it["size"].as_u64().unwrap();
            let files = case["files"].as_array().unwrap();
            let files: Vec<_> =
                files.iter().map(|it| (it["name"].as_str().unwrap().to_owned(), size(it))).collect();
            let found: Vec<_> = take(&files)
                .guests
                .iter()
                .map(|it| {
                    let sums = it.sums();
                    json!({
                        "guest": it.guest.to_string(),
                        "fulls": sums.fulls,
                        "differentials": sums.differentials,
                        "stranded": it.stranded.len(),
                        "fullSize": sums.full_size,
                        "differentialSize": sums.differential_size,
                        "saved": sums.saved,
                    })
                })
                .collect();
            assert_eq!(Value::Array(found), case["expect"], "{}", case["why"]);
        }
    }

    #[test]
    fn what_is_odd_is_told() {
        let other = "vzdump-qemu-101-2026_11_10-01_00_02.vma.zst";
        let gone = "vzdump-qemu-101-2026_11_01-01_00_02.vma.zst";
        let files = [
            (FULL.to_owned(), 1000),
            (diff(FULL, 21), 0),
            (diff(FULL, 22), 1001),
            (format!("{FULL}.damaged"), 1),
            (format!("{}.lzo", FULL.strip_suffix(".zst").unwrap()), 1000),
            (other.to_owned(), 1000),
            (diff(gone, 2), 10),
            (diff(gone, 3), 10),
            (format!("{}.dat", diff(FULL, 23).strip_suffix(".zst").unwrap()), 70),
        ];
        let found = take(&files);
        let told: Vec<_> = found.guests[0].odd.iter().map(|it| (it.kind(), it.file().to_owned())).collect();
        let expected = [
            ("stranded", gone.to_owned()),
            ("unneeded", other.to_owned()),
            ("twice", files[4].0.clone()),
            ("damaged", FULL.to_owned()),
            ("empty", diff(FULL, 21)),
            ("larger-than-full", diff(FULL, 22)),
            ("unfinished", files[8].0.clone()),
        ];
        assert_eq!(told, expected);
        assert_eq!(found.guests[0].unfinished[0].size, 70);
    }

    #[test]
    fn full_backups_alone_and_protected_ones_are_not_odd() {
        let of = |day: u32| format!("vzdump-qemu-101-2026_11_{day:02}-01_00_02.vma.zst");
        let alone = [(of(1), 1000), (of(2), 1000)];
        assert_eq!(take(&alone).guests[0].odd, []);
        let kept = [(of(1), 9), (format!("{}.protected", of(1)), 0), (of(2), 9), (diff(&of(2), 3), 1)];
        assert_eq!(take(&kept).guests[0].odd, []);
    }

    #[test]
    fn notes_are_no_links_and_whatever_is_named_so_protects() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in [FULL, &diff(FULL, 21)] {
            fs::write(at(name), "x").unwrap();
        }
        fs::write(at(&format!("{FULL}.notes")), "\x1b[2J before the upgrade \r\nmore\n").unwrap();
        fs::write(at(&format!("{FULL}.protected")), "").unwrap();
        symlink("/etc/hostname", at(&format!("{}.notes", diff(FULL, 21)))).unwrap();
        symlink("/etc/hostname", at(&format!("{}.protected", diff(FULL, 21)))).unwrap();
        let found = Inventory::of(Directory::scan(dir.path()).unwrap(), &Results::default());
        let Chain { full, differentials } = &found.guests[0].chains[0];
        assert_eq!(full.notes.as_deref(), Some(&b"\x1b[2J before the upgrade"[..]));
        // Proxmox VE asks only whether there is something of that name.
        assert!(full.is_protected && differentials[0].is_protected);
        assert_eq!(differentials[0].notes, None);
    }
}
