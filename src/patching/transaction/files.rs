//! One file of a transaction: it is staged, then replaced, or given back.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::folders::{create_dirs, is_missing, remove_empty_folders, sync_dir};
use super::journal::Entry;
use super::{At, Fault, beside};
use crate::host::root::read_bounded;
use crate::patching::change::Change;
use crate::patching::sha256_hex;

/// The largest file that is read back: what a survey reads at most, and the lines that are inserted.
const MAX: u64 = 128 << 20;

/// Endings of the files beside a target: its successor, its second name, and what is being written.
const NEW: &str = ".pve-diff-backup-new";
const OLD: &str = ".pve-diff-backup-old";
const DRAFT: &str = ".pve-diff-backup-tmp";

/// Mode of files we create.
const FILE_MODE: u32 = 0o644;

/// A file, its staged successor, and the second name of the old file.
#[derive(Debug)]
pub(super) struct Item {
    /// As in the journal.
    pub path: String,
    pub target: PathBuf,
    staged: PathBuf,
    old: PathBuf,
    draft: PathBuf,
    before: Option<String>,
    after: Option<String>,
}

impl Item {
    pub fn new(entry: &Entry, target: PathBuf) -> Self {
        Self {
            path: entry.path.clone(),
            staged: beside(&target, NEW),
            old: beside(&target, OLD),
            draft: beside(&target, DRAFT),
            target,
            before: entry.before.clone(),
            after: entry.after.clone(),
        }
    }

    /// Whether the target holds what it held when the plan was made.
    pub fn target_is_before(&self) -> At<bool> {
        Ok(sha256_of(&self.target)? == self.before)
    }

    /// Whether this file is done, or ready to be put in its place.
    pub fn can_go_forward(&self) -> At<bool> {
        let target = sha256_of(&self.target)?;
        Ok(target == self.after
            || target == self.before && (self.after.is_none() || sha256_of(&self.staged)? == self.after))
    }

    /// Whether this file is untouched, or the old one is still there.
    pub fn can_go_back(&self) -> At<bool> {
        let target = sha256_of(&self.target)?;
        Ok(target == self.before
            || target == self.after && (self.before.is_none() || sha256_of(&self.old)? == self.before))
    }

    /// Writes the new content beside the target and gives the old file its second name, both flushed.
    pub fn stage(&self, change: &Change) -> At<()> {
        let old = match fs::metadata(&self.target) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(Fault::io(&self.target, cause)),
        };
        remove(&self.draft)?;
        if old.is_some() {
            remove(&self.old)?;
            // File systems without hard links get a copy, with everything that belongs to it.
            if fs::hard_link(&self.target, &self.old).is_err() {
                let content = fs::read(&self.target).map_err(|cause| Fault::io(&self.target, cause))?;
                let mtime = old.as_ref().map(|metadata| (metadata.mtime(), metadata.mtime_nsec()));
                self.write(&self.old, &content, old.as_ref(), mtime)
                    .map_err(|cause| Fault::io(&self.old, cause))?;
            }
        }
        if let Some(content) = &change.after {
            if let Some(dir) = self.target.parent() {
                create_dirs(dir)?;
            }
            remove(&self.staged)?;
            self.write(&self.staged, content, old.as_ref(), change.mtime)
                .map_err(|cause| Fault::io(&self.staged, cause))?;
        }
        Ok(())
    }

    /// Writes a new file like the target: owner, group, mode, extended attributes (access lists among them). It gets
    /// its name when it is complete, so that whatever has the name may be relied upon.
    fn write(
        &self,
        path: &Path,
        content: &[u8],
        like: Option<&fs::Metadata>,
        mtime: Option<(i64, i64)>,
    ) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.draft)?;
        file.write_all(content)?;
        let mode = match like {
            None => FILE_MODE,
            Some(like) => {
                let made = file.metadata()?;
                if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
                    std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()))?;
                }
                copy_attributes(&self.target, &file)?;
                like.mode() & 0o7777
            }
        };
        // After the owner: changing that clears set-id bits.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(time) = mtime.and_then(system_time) {
            file.set_times(FileTimes::new().set_modified(time))?;
        }
        file.sync_all()?;
        fs::rename(&self.draft, path)
    }

    /// Puts the staged file in the target's place, or deletes the target. Done already is fine.
    pub fn replace(&self) -> At<()> {
        let target = sha256_of(&self.target)?;
        if target == self.after {
            return Ok(());
        }
        if target != self.before {
            return Err(Fault::Changed { path: self.target.clone() });
        }
        let done = match self.after {
            Some(_) => fs::rename(&self.staged, &self.target),
            None => fs::remove_file(&self.target),
        };
        done.map_err(|cause| Fault::io(&self.target, cause))
    }

    /// Gives back the old file, which is the very same file as before (its second name becomes its first again).
    /// What somebody else changed meanwhile is left alone.
    pub fn give_back(&self) -> At<()> {
        let target = sha256_of(&self.target)?;
        if target == self.before || target != self.after {
            return Ok(());
        }
        let done = match self.before {
            Some(_) => fs::rename(&self.old, &self.target),
            None => fs::remove_file(&self.target),
        };
        done.map_err(|cause| Fault::io(&self.target, cause))
    }

    /// Removes the staged file and the second name, where they still are, and folders that are no longer needed.
    pub fn clean_up(&self, root: &Path) -> At<()> {
        remove(&self.draft)?;
        remove(&self.staged)?;
        remove(&self.old)?;
        self.remove_empty_folders(root)
    }

    /// Removes the folders that were made for a file of ours that is no longer there, as far up as they are
    /// empty. Folders of packages are not: they hold the packages' files.
    fn remove_empty_folders(&self, root: &Path) -> At<()> {
        let ours = self.before.is_none() || self.after.is_none();
        if !ours || self.target.exists() {
            return Ok(());
        }
        remove_empty_folders(&self.target, root)
    }

    /// The nearest folder of the target that exists.
    fn existing_dir(&self) -> Option<&Path> {
        self.target.ancestors().skip(1).find(|dir| dir.is_dir())
    }
}

/// Flushes the folders of all targets: new names in them, and names that went.
pub(super) fn sync_dirs(items: &[Item]) -> At<()> {
    let dirs: BTreeSet<&Path> = items.iter().filter_map(Item::existing_dir).collect();
    dirs.into_iter().try_for_each(sync_dir)
}

/// Removes what an interrupted run left beside `target`, where there is anything.
pub(super) fn sweep(target: &Path) -> At<()> {
    for ending in [NEW, OLD, DRAFT] {
        let path = beside(target, ending);
        if path.symlink_metadata().is_ok() {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> At<()> {
    match fs::remove_file(path) {
        Err(error) if !is_missing(path, &error) => Err(Fault::io(path, error)),
        _ => Ok(()),
    }
}

/// The sha256 of a file; `None` where it does not exist.
fn sha256_of(path: &Path) -> At<Option<String>> {
    match read_bounded(path, MAX) {
        Ok(content) => Ok(Some(sha256_hex(&content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::io(path, error)),
    }
}

/// Copies extended attributes. What the file system or our rights do not allow is left out: a security label
/// may only be set by the system's own policy.
fn copy_attributes(from: &Path, to: &File) -> io::Result<()> {
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::listxattr(from, &mut names[..]) else { return Ok(()) };
    let mut value = vec![0; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(length) = rustix::fs::getxattr(from, name, &mut value[..]) else { continue };
        match rustix::fs::fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty()) {
            Ok(())
            | Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A time stamp as recorded; `None` for one that cannot be expressed.
fn system_time((seconds, nanoseconds): (i64, i64)) -> Option<SystemTime> {
    let nanoseconds = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    base?.checked_add(nanoseconds)
}
