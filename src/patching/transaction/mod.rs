//! All files or none: the only code that writes below a host's root.
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
mod journal;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use self::files::Item;
use self::journal::{Entry, Journal};
use super::plan::Change;
use super::sha256_hex;
use crate::host::{Root, RootError};

/// Our folder for the lock, the journal and the record, relative to the root.
pub const STATE_DIR: &str = "var/lib/pve-diff-backup";

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
    /// closed; what is left of our lines must now be taken out with a `revert` (of ours: it is needed no more
    /// than contents for that).
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
    #[error("cannot write {}: {source}{}. Nothing was changed", path.display(), hint(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file changed between planning and writing. All is as it was.
    #[error("{}: somebody else changed it just now (an upgrade?). Nothing was changed; try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A change failed and so did undoing it. The journal stays, the next command tries again.
    #[error(
        "cannot write {}: {source}; and undoing it failed, too: {}: {undo}. Some files may be changed: put this right, \
         then run any pve-diff-backup command, which finishes or undoes the rest",
        path.display(), undo_path.display()
    )]
    Stuck {
        /// The file that could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// The file that could not be given back.
        undo_path: PathBuf,
        /// What the system said.
        undo: io::Error,
    },
    /// The files are done, but not all traces of the work could be removed.
    #[error("{}: cannot be removed: {source}. All files are done; the next command tries again", path.display())]
    Leftover {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal is unusable.
    #[error(
        "{}: {what}. It tells what an interrupted run was doing; move it away and run `pve-diff-backup revert`, \
         which does not need it", path.display()
    )]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A path cannot be followed.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// What to do about the commonest failures of writing.
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

/// An error with the path it concerns.
type At<T> = Result<T, (PathBuf, io::Error)>;

/// Whether an interrupted run waits to be recovered below `root`.
///
/// # Errors
/// [`TransactionError::Root`]
pub fn is_interrupted(root: &Root) -> Result<bool, TransactionError> {
    Ok(Journal::path(&root.resolve(STATE_DIR)?).exists())
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
            .map_err(|error| TransactionError::Write { path: existing.to_owned(), source: error.into() })?;
    }
    Ok(())
}

impl<'a> Session<'a> {
    /// Takes the lock below `root`, without waiting for it.
    ///
    /// # Errors
    /// [`TransactionError::Locked`], [`TransactionError::Write`] where our folder cannot be made.
    pub fn open(root: &'a Root) -> Result<Self, TransactionError> {
        let dir = root.resolve(STATE_DIR)?;
        let fail = |source| TransactionError::Write { path: dir.clone(), source };
        loop {
            files::create_dirs(&dir).map_err(|(path, source)| TransactionError::Write { path, source })?;
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
        let failed = |(path, source)| TransactionError::Write { path, source };
        for item in &items {
            if !item.target_is_before().map_err(failed)? {
                return Err(TransactionError::Changed { path: item.target.clone() });
            }
        }
        journal.write(&self.dir).map_err(failed)?;
        let staged = items.iter().zip(changes).try_for_each(|(item, change)| item.stage(change));
        let done = staged.and_then(|()| files::sync_dirs(&items)).and_then(|()| self.replace(&items));
        match done {
            Ok(()) => {
                self.clean_up(&items).map_err(|(path, source)| TransactionError::Leftover { path, source })
            }
            Err((path, source)) => match self.undo(&items) {
                Ok(()) if source.kind() == io::ErrorKind::ResourceBusy => {
                    Err(TransactionError::Changed { path })
                }
                Ok(()) => Err(TransactionError::Write { path, source }),
                Err((undo_path, undo)) => Err(TransactionError::Stuck { path, source, undo_path, undo }),
            },
        }
    }

    /// Finishes or undoes what an interrupted run left behind.
    ///
    /// # Errors
    /// [`TransactionError`]; the journal then stays for the next attempt.
    pub fn recover(&self) -> Result<Recovery, TransactionError> {
        let Some(journal) = Journal::read(&self.dir)? else {
            return Ok(Recovery::Nothing);
        };
        let items = self.items(&journal)?;
        let failed = |(path, source)| TransactionError::Write { path, source };
        let all = |ready: fn(&Item) -> At<bool>| {
            items.iter().try_fold(true, |all, item| Ok(all && ready(item)?)).map_err(failed)
        };
        let operation = journal.operation.clone();
        if all(Item::can_go_forward)? {
            match files::sync_dirs(&items).and_then(|()| self.replace(&items)) {
                Ok(()) => self
                    .clean_up(&items)
                    .map_err(|(path, source)| TransactionError::Leftover { path, source })?,
                Err((path, source)) => {
                    return Err(match self.undo(&items) {
                        Ok(()) => TransactionError::Write { path, source },
                        Err((undo_path, undo)) => TransactionError::Stuck { path, source, undo_path, undo },
                    });
                }
            }
            return Ok(Recovery::Completed(operation));
        }
        if all(Item::can_go_back)? {
            self.undo(&items).map_err(failed)?;
            return Ok(Recovery::Undone(operation));
        }
        let mut overtaken = Vec::new();
        for item in &items {
            if !item.can_go_back().map_err(failed)? && !item.can_go_forward().map_err(failed)? {
                overtaken.push(item.path.clone());
            }
        }
        self.clean_up(&items).map_err(failed)?;
        Ok(Recovery::Overtaken(operation, overtaken))
    }

    fn items(&self, journal: &Journal) -> Result<Vec<Item>, TransactionError> {
        journal.entries.iter().map(|entry| Ok(Item::new(entry, self.root.resolve(&entry.path)?))).collect()
    }

    /// Puts every staged file in its place.
    fn replace(&self, items: &[Item]) -> At<()> {
        items.iter().try_for_each(Item::replace)?;
        files::sync_dirs(items)
    }

    /// Gives back every old file, then removes all traces.
    fn undo(&self, items: &[Item]) -> At<()> {
        items.iter().try_for_each(Item::give_back)?;
        files::sync_dirs(items)?;
        self.clean_up(items)
    }

    /// Removes staged files and second names, and the journal last: as long as one of them is there, so is it.
    fn clean_up(&self, items: &[Item]) -> At<()> {
        items.iter().try_for_each(Item::clean_up)?;
        files::sync_dirs(items)?;
        Journal::remove(&self.dir)?;
        items.iter().for_each(|item| item.remove_empty_folders(self.root.dir(), &self.dir));
        Ok(())
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

/// `path` with something put around its file name: hidden, and with an ending no loader of modules looks for.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(ending);
    path.with_file_name(name)
}
