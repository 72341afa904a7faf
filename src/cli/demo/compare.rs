//! Compares what was restored or reverted with what was there before. Nothing here trusts what a program said about its own
//! work.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::container::read_full;

/// The most differences that are shown.
const SHOWN: usize = 10;

/// Which times of change belong to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Those of files; a folder's changes whenever a file in it is replaced by an equal one.
    Files,
    /// Those of folders too.
    All,
}

/// Everything below a folder (without the folder itself): names, kinds, contents and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: u32,
    group: u32,
    /// Seconds and nanoseconds.
    changed: Option<(i64, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Folder,
    /// `same_as`: the first of several names (hard links) of the file.
    File {
        size: u64,
        sha256: [u8; 32],
        same_as: Option<PathBuf>,
    },
    Link(PathBuf),
    Pipe,
    Other,
}

impl Snapshot {
    /// Reads all below `dir` but the folders in `without` and what they hold.
    ///
    /// # Errors
    /// Where something cannot be read.
    pub fn take(dir: &Path, without: &[&str], times: Times) -> anyhow::Result<Self> {
        let mut entries = BTreeMap::new();
        let mut first_names = HashMap::new();
        let inside = |path: &Path| path.strip_prefix(dir).unwrap_or(path).to_owned();
        let wanted = |path: &Path| !without.iter().any(|name| inside(path) == Path::new(name));
        let walk = WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| wanted(entry.path())) {
            let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
            let (path, name) = (entry.path(), inside(entry.path()));
            let metadata = entry.metadata()?;
            let mut kind =
                kind(path, &metadata).with_context(|| format!("cannot read {}", path.display()))?;
            if let Kind::File { same_as, .. } = &mut kind
                && metadata.nlink() > 1
            {
                let first =
                    first_names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.clone());
                *same_as = Some(first.clone()).filter(|first| *first != name);
            }
            let timed = match kind {
                Kind::File { .. } => true,
                Kind::Folder => times == Times::All,
                Kind::Link(_) | Kind::Pipe | Kind::Other => false,
            };
            let changed = timed.then_some((metadata.mtime(), metadata.mtime_nsec()));
            let (mode, owner, group) = (metadata.mode(), metadata.uid(), metadata.gid());
            entries.insert(name, Entry { kind, mode, owner, group, changed });
        }
        Ok(Self(entries))
    }

    /// The number of files.
    pub fn files(&self) -> usize {
        self.0.values().filter(|entry| matches!(entry.kind, Kind::File { .. })).count()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let size = |entry: &Entry| match &entry.kind {
            Kind::File { size, same_as: None, .. } => *size,
            _ => 0,
        };
        self.0.values().map(size).sum()
    }

    /// Lists what differs in `now`, one line each, by name.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, old) in &self.0 {
            let name_shown = name.display();
            match now.0.get(name) {
                None => lines.push(format!("{name_shown} is missing")),
                Some(new) => {
                    lines.extend(old.changes(new).into_iter().map(|(what, old, new)| {
                        format!("{name_shown} has another {what}: {new}, it was {old}")
                    }))
                }
            }
        }
        let added = now.0.keys().filter(|name| !self.0.contains_key(*name));
        lines.extend(added.map(|name| format!("{} was not there", name.display())));
        lines
    }
}

impl Entry {
    /// What differs, from what, to what.
    fn changes(&self, new: &Self) -> Vec<(&'static str, String, String)> {
        let mut changes = Vec::new();
        if self.kind != new.kind {
            changes.push(("content", self.kind.describe(), new.kind.describe()));
        }
        if self.mode != new.mode {
            changes.push(("mode", format!("{:o}", self.mode), format!("{:o}", new.mode)));
        }
        if (self.owner, self.group) != (new.owner, new.group) {
            let owner = |entry: &Self| format!("{}:{}", entry.owner, entry.group);
            changes.push(("owner", owner(self), owner(new)));
        }
        if self.changed != new.changed {
            changes.push(("time", format!("{:?}", self.changed), format!("{:?}", new.changed)));
        }
        changes
    }
}

impl Kind {
    fn describe(&self) -> String {
        match self {
            Self::Folder => "a folder".into(),
            Self::File { same_as: Some(first), .. } => format!("another name of {}", first.display()),
            Self::File { size, sha256, same_as: None } => {
                let sum = crate::text::hex(&sha256[..8]);
                format!("{size} bytes, sha256 {sum}…")
            }
            Self::Link(target) => format!("a link to {}", target.display()),
            Self::Pipe => "a pipe".into(),
            Self::Other => "a device or socket".into(),
        }
    }
}

fn kind(path: &Path, metadata: &Metadata) -> io::Result<Kind> {
    let file_type = metadata.file_type();
    Ok(match () {
        () if file_type.is_dir() => Kind::Folder,
        () if file_type.is_symlink() => Kind::Link(std::fs::read_link(path)?),
        () if file_type.is_file() => {
            let mut sum = Sha256::new();
            let mut file = File::open(path)?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    count => sum.update(&buffer[..count]),
                }
            }
            Kind::File { size: metadata.len(), sha256: sum.finalize().into(), same_as: None }
        }
        () if file_type.is_fifo() => Kind::Pipe,
        () => Kind::Other,
    })
}

/// Fails with `title` and the first of `differences` if there are any.
///
/// # Errors
/// See above.
pub fn require_none(title: &str, differences: &[String]) -> anyhow::Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let more = match differences.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    bail!("{title}:\n  {}{more}", differences[..differences.len().min(SHOWN)].join("\n  "))
}

/// Compares two files byte for byte; gives their size.
///
/// # Errors
/// Where they differ, telling the first place, or cannot be read.
pub fn require_equal(original: &Path, restored: &Path) -> anyhow::Result<u64> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (mut a, mut b) = (open(original)?, open(restored)?);
    let (mut left, mut right) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut at = 0;
    loop {
        let read = |file: &mut File, buffer: &mut [u8], path: &Path| {
            read_full(file, buffer).with_context(|| format!("cannot read {}", path.display()))
        };
        let (m, n) = (read(&mut a, &mut left, original)?, read(&mut b, &mut right, restored)?);
        if let Some(place) = left[..m].iter().zip(&right[..n]).position(|(x, y)| x != y) {
            bail!("{} differs from {} at byte {}", restored.display(), original.display(), at + place as u64);
        }
        at += m.min(n) as u64;
        match m.cmp(&n) {
            std::cmp::Ordering::Greater => {
                bail!("{} ends after {at} bytes, {} goes on", restored.display(), original.display())
            }
            std::cmp::Ordering::Less => {
                bail!("{} goes on after the {at} bytes of {}", restored.display(), original.display())
            }
            std::cmp::Ordering::Equal if m == 0 => return Ok(at),
            std::cmp::Ordering::Equal => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("guests/1")).unwrap();
        fs::write(at("a/file"), "content").unwrap();
        fs::write(at("a/b/one"), "content").unwrap();
        fs::hard_link(at("a/b/one"), at("a/b/two")).unwrap();
        symlink("file", at("a/link")).unwrap();
        dir
    }

    /// What is found after `change`.
    fn found(times: Times, change: impl FnOnce(&Path)) -> Vec<String> {
        let dir = sample();
        let before = Snapshot::take(dir.path(), &["guests"], times).unwrap();
        assert_eq!((before.files(), before.bytes()), (3, 14));
        change(dir.path());
        before.differences(&Snapshot::take(dir.path(), &["guests"], times).unwrap())
    }

    #[test]
    fn nothing_changed_nothing_found() {
        assert!(found(Times::Files, |_| ()).is_empty());
        assert!(found(Times::All, |_| ()).is_empty());
        assert!(found(Times::All, |dir| fs::write(dir.join("guests/1/x"), "x").unwrap()).is_empty());
        assert!(require_none("all is well", &[]).is_ok());
    }

    #[test]
    fn every_kind_of_change_is_found() {
        type Change = fn(&Path);
        let cases: [(&str, Change); 8] = [
            ("a/file has another content", |dir| fs::write(dir.join("a/file"), "contenT").unwrap()),
            ("a/file has another mode", |dir| {
                fs::set_permissions(dir.join("a/file"), Permissions::from_mode(0o4711)).unwrap();
            }),
            ("a/file is missing", |dir| fs::remove_file(dir.join("a/file")).unwrap()),
            ("a/new was not there", |dir| fs::write(dir.join("a/new"), "").unwrap()),
            ("a/empty was not there", |dir| fs::create_dir(dir.join("a/empty")).unwrap()),
            ("a/link has another content: a link to b, it was a link to file", |dir| {
                fs::remove_file(dir.join("a/link")).unwrap();
                symlink("b", dir.join("a/link")).unwrap();
            }),
            ("a/b/two has another content: 7 bytes", |dir| {
                let time = fs::metadata(dir.join("a/b/one")).unwrap().modified().unwrap();
                fs::remove_file(dir.join("a/b/two")).unwrap();
                fs::write(dir.join("a/b/two"), "content").unwrap();
                File::options().append(true).open(dir.join("a/b/two")).unwrap().set_modified(time).unwrap();
            }),
            ("a/b/one has another time", |dir| {
                let file = File::options().append(true).open(dir.join("a/b/one")).unwrap();
                file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
            }),
        ];
        for (expected, change) in cases {
            let found = found(Times::Files, change);
            assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}: {found:?}");
            let error = require_none("damaged", &found).unwrap_err().to_string();
            assert!(error.starts_with("damaged:\n") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_folder_has_a_time_only_where_it_matters() {
        let touch = |dir: &Path| {
            File::open(dir.join("a/b")).unwrap().set_modified(UNIX_EPOCH).unwrap();
        };
        assert!(found(Times::Files, touch).is_empty());
        assert!(found(Times::All, touch)[0].starts_with("a/b has another time"));
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<String> = (0..25).map(|n| format!("difference {n}")).collect();
        let error = require_none("damaged", &many).unwrap_err().to_string();
        assert!(error.ends_with("difference 9\n  and 15 more"), "{error}");
    }

    #[test]
    fn files_are_compared_to_the_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let data: Vec<u8> = (0..(1 << 18) + 77).map(|n: u32| (n % 251) as u8).collect();
        fs::write(&a, &data).unwrap();
        fs::write(&b, &data).unwrap();
        assert_eq!(require_equal(&a, &b).unwrap(), data.len() as u64);

        let says = |content: &[u8], expected: &str| {
            fs::write(&b, content).unwrap();
            let error = require_equal(&a, &b).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let mut damaged = data.clone();
        damaged[(1 << 18) + 5] ^= 1;
        says(&damaged, "at byte 262149");
        says(&data[..data.len() - 1], "ends after 262220 bytes");
        says(&[], "ends after 0 bytes");
        says(&[&data[..], b"x"].concat(), "goes on after the 262221 bytes");
        fs::remove_file(&b).unwrap();
        assert!(require_equal(&a, &b).unwrap_err().to_string().starts_with("cannot open"));
    }
}
