//! Replaces all files or none. Only this code writes below a host's root.
//!
//! How a [`Session::commit`] stays safe against `kill -9`, power cuts and full disks:
//! 1. the journal names every file with its sha256 before and after, and is on disk first;
//! 2. each new content is staged beside its target (same file system), with owner, mode and extended
//!    attributes of the old file; the old file gets a second name (hard link);
//! 3. all of that is flushed, then each target is replaced by one rename;
//! 4. the second names go, then the journal.
//!
//! Whatever stops it, [`Session::recover`] can tell from the hashes alone what happened: where every file is either
//! done or ready it goes forward, otherwise back to the old files themselves.
//!
//! Time stamps: a patched file carries the time of patching, so that caches and backup tools see a change; `revert`
//! gives back the recorded old time with the old content.

mod files;
mod folders;
mod journal;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use self::files::Item;
use self::journal::{Entry, Journal};
use super::change::Change;
use super::sha256_hex;
use crate::host::scratch::STATE_DIR;
use crate::host::{DpkgError, Root, RootError, dpkg, hint};

/// The right to change a host: its lock is held as long as this lives.
#[derive(Debug)]
pub struct Session<'a> {
    root: &'a Root,
    dir: PathBuf,
    // Held for its lock only.
    _lock: OwnedFd,
}

/// What became of an interrupted run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// There was none.
    Nothing,
    /// The operation was completed.
    Completed(String),
    /// The operation was undone: every file is what it was before.
    Undone(String),
    /// These files were changed by somebody else in between, so that neither was possible. The journal is
    /// closed. What is left of our lines must now be taken out with a revert, which needs nothing but the contents.
    Overtaken(String, Vec<String>),
}

/// A host cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Another run holds the lock.
    #[error("another pve-diff-backup is at work on this host (it holds the lock on {}); try again when it is done", dir.display())]
    Locked {
        /// Our folder.
        dir: PathBuf,
    },
    /// Something cannot be written. All is as it was.
    #[error("cannot write {}: {cause}{}. Nothing was changed", path.display(), hint(cause))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file changed between planning and writing. All is as it was.
    #[error("{}: somebody else changed it just now (an upgrade?). Nothing was changed; try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A change failed and so did undoing it. The journal stays, the next command tries again.
    #[error(
        "cannot write {failed}; and undoing what was done failed, too: {undo}. Some files may be changed: put this \
         right, then run any pve-diff-backup command, which finishes or undoes the rest"
    )]
    Stuck {
        /// The file that could not be written, and why.
        failed: String,
        /// The file that could not be given back, and why.
        undo: String,
    },
    /// The files are done, but not all traces of the work could be removed.
    #[error("{what}: cannot be removed. All files are done; the next command tries again")]
    Leftover {
        /// The file, and why.
        what: String,
    },
    /// The journal cannot be read.
    #[error(
        "{}: {what}. It tells what an interrupted run was doing; move it away and run `{}`, which does not \
         need it", path.display(), hint::ours("revert")
    )]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The root folder is none of a host.
    #[error(transparent)]
    NoHost(#[from] DpkgError),
    /// A path cannot be followed.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Tells what to do about the commonest failures of writing.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (run it as root; if you did, `lsattr` tells whether the file is immutable)"
        }
        io::ErrorKind::ReadOnlyFilesystem => " (mount it writable first)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (make room first)",
        _ => "",
    }
}

/// Why one step of a transaction failed.
#[derive(Debug)]
enum Fault {
    Io { path: PathBuf, cause: io::Error },
    Changed { path: PathBuf },
}

type At<T> = Result<T, Fault>;

impl Fault {
    fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause }
    }
}

impl From<Fault> for TransactionError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io { path, cause } => Self::Write { path, cause },
            Fault::Changed { path } => Self::Changed { path },
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Changed { path } => write!(f, "{}: changed by somebody else just now", path.display()),
        }
    }
}

/// Whether an interrupted run waits to be recovered below `root`.
///
/// # Errors
/// [`TransactionError::Root`]
pub fn is_interrupted(root: &Root) -> Result<bool, TransactionError> {
    Ok(Journal::is_there(root)?)
}

/// Whether all of `changes` could be written, as far as that can be told without writing: the folders of their
/// targets must be writable for us, on a file system that is.
///
/// # Errors
/// [`TransactionError::Write`] for the first that is not.
pub fn check_writable(root: &Root, changes: &[Change]) -> Result<(), TransactionError> {
    let state = root.resolve(STATE_DIR)?;
    let targets = changes.iter().map(|change| root.resolve(&change.path)).collect::<Result<Vec<_>, _>>()?;
    let dirs = targets.iter().filter_map(|target| target.parent()).chain([state.as_path()]);
    for dir in dirs {
        let Some(existing) = dir.ancestors().find(|dir| dir.exists()) else { continue };
        rustix::fs::access(existing, rustix::fs::Access::WRITE_OK)
            .map_err(|error| TransactionError::Write { path: existing.to_owned(), cause: error.into() })?;
    }
    Ok(())
}

impl<'a> Session<'a> {
    /// Takes the lock below `root`, without waiting for it.
    ///
    /// # Errors
    /// [`TransactionError::Locked`], [`TransactionError::Write`] where our folder cannot be made, and
    /// [`TransactionError::NoHost`].
    pub fn open(root: &'a Root) -> Result<Self, TransactionError> {
        dpkg::require(root)?;
        let dir = root.resolve(STATE_DIR)?;
        let fail = |cause| TransactionError::Write { path: dir.clone(), cause };
        loop {
            folders::create_dirs(&dir)?;
            let lock = match rustix::fs::open(&dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(lock) => lock,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(fail(error.into())),
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(TransactionError::Locked { dir }),
                Err(error) => return Err(fail(error.into())),
            }
            // Another run that ended just now may have removed the folder (see `drop`): then this is the lock
            // on nothing.
            let locked = rustix::fs::fstat(&lock).map_err(|error| fail(error.into()))?;
            match std::fs::metadata(&dir) {
                Ok(there) if (there.dev(), there.ino()) == (locked.st_dev, locked.st_ino) => {
                    return Ok(Self { root, dir, _lock: lock });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(error)),
            }
        }
    }

    /// Carries out all `changes` or none.
    ///
    /// # Errors
    /// [`TransactionError`]; with `Write` and `Changed` every file is what it was.
    pub fn commit(&self, operation: &str, changes: &[Change]) -> Result<(), TransactionError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut entries = Vec::new();
        for change in changes {
            let real = self.root.resolve(&change.path)?;
            let sha256 = |content: &Option<Vec<u8>>| content.as_deref().map(sha256_hex);
            entries.push(Entry {
                path: self.root.inside(&real).to_string_lossy().into_owned(),
                before: sha256(&change.before),
                after: sha256(&change.after),
            });
        }
        let journal = Journal::new(operation, entries);
        let items = self.items(&journal)?;
        for item in &items {
            if !item.target_is_before()? {
                return Err(TransactionError::Changed { path: item.target.clone() });
            }
        }
        journal.write(&self.dir)?;
        let staged = items.iter().zip(changes).try_for_each(|(item, change)| item.stage(change));
        match staged {
            Ok(()) => self.finish(&items),
            Err(fault) => Err(self.undo_after(&items, fault)),
        }
    }

    /// Finishes or undoes what an interrupted run left behind.
    ///
    /// # Errors
    /// [`TransactionError`]; the journal then stays for the next attempt.
    pub fn recover(&self) -> Result<Recovery, TransactionError> {
        let Some(journal) = Journal::read(self.root, &self.dir)? else {
            return Ok(Recovery::Nothing);
        };
        let items = self.items(&journal)?;
        let all = |ready: fn(&Item) -> At<bool>| {
            items.iter().try_fold(true, |all, item| Ok::<_, Fault>(all && ready(item)?))
        };
        let operation = journal.operation.clone();
        if all(Item::can_go_forward)? {
            self.finish(&items)?;
            return Ok(Recovery::Completed(operation));
        }
        if all(Item::can_go_back)? {
            self.undo(&items)?;
            return Ok(Recovery::Undone(operation));
        }
        let mut overtaken = Vec::new();
        for item in &items {
            if !item.can_go_back()? && !item.can_go_forward()? {
                overtaken.push(item.path.clone());
            }
        }
        self.clean_up(&items)?;
        Ok(Recovery::Overtaken(operation, overtaken))
    }

    /// Removes what an interrupted run left beside these files where its journal was lost: staged files, second names, and
    /// empty folders of `ours`. To be called after [`Session::recover`], which deals with everything a journal knows.
    ///
    /// # Errors
    /// [`TransactionError`]
    pub fn sweep<'p>(
        &self,
        paths: impl Iterator<Item = &'p str>,
        ours: impl Iterator<Item = &'p str>,
    ) -> Result<(), TransactionError> {
        for path in paths {
            files::sweep(&self.root.resolve(path)?)?;
        }
        for path in ours {
            let target = self.root.resolve(path)?;
            if !target.exists() {
                folders::remove_empty_folders(&target, self.root.dir())?;
            }
        }
        Ok(())
    }

    fn items(&self, journal: &Journal) -> Result<Vec<Item>, TransactionError> {
        journal.entries.iter().map(|entry| Ok(Item::new(entry, self.root.resolve(&entry.path)?))).collect()
    }

    /// Replaces the files once everything is staged. Where that fails, it undoes everything.
    fn finish(&self, items: &[Item]) -> Result<(), TransactionError> {
        let replaced = files::sync_dirs(items)
            .and_then(|()| items.iter().try_for_each(Item::replace))
            .and_then(|()| files::sync_dirs(items));
        match replaced {
            Ok(()) => {
                self.clean_up(items).map_err(|fault| TransactionError::Leftover { what: fault.to_string() })
            }
            Err(fault) => Err(self.undo_after(items, fault)),
        }
    }

    /// Undoes everything after a failure; gives the error to report.
    fn undo_after(&self, items: &[Item], fault: Fault) -> TransactionError {
        match self.undo(items) {
            Ok(()) => fault.into(),
            Err(undo) => TransactionError::Stuck { failed: fault.to_string(), undo: undo.to_string() },
        }
    }

    /// Gives back every old file, the last one first, then removes all traces.
    fn undo(&self, items: &[Item]) -> At<()> {
        items.iter().rev().try_for_each(Item::give_back)?;
        files::sync_dirs(items)?;
        self.clean_up(items)
    }

    /// Removes staged files and second names, and the journal last: as long as one of them is there, so is it.
    fn clean_up(&self, items: &[Item]) -> At<()> {
        items.iter().try_for_each(|item| item.clean_up(self.root.dir()))?;
        files::sync_dirs(items)?;
        Journal::remove(&self.dir)
    }

    /// The root of the host.
    pub fn root(&self) -> &Root {
        self.root
    }
}

impl Drop for Session<'_> {
    /// Removes our folder where nothing is left in it, so that a reverted host holds no trace of us.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// The path beside `path` whose name begins with a dot and ends in `ending`: it is hidden, and no loader of modules looks
/// for it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(ending);
    path.with_file_name(name)
}
