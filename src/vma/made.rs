//! Files and directories that are being made: all of them stay, or none.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// The files and directories that were made so far. They are removed unless the work comes to its end. Clones share one list,
/// so that another thread can remove them when a signal ends the program.
#[derive(Clone, Debug, Default)]
pub struct Made(Arc<Mutex<Vec<PathBuf>>>);

/// Options to open a file for a guest's data. If the file is new, only its owner may read it, whatever the umask says.
pub fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Renames a file where the new name is still free. No other file has that name at any time, whatever ends this program.
///
/// # Errors
/// Fails where the name is taken, or where renaming fails.
pub fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        done => return Ok(done?),
    }
    // NFS does not know that, but a second name.
    match fs::hard_link(from, to) {
        Ok(()) => return fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) => {}
    }
    fs::File::create_new(to)?;
    fs::rename(from, to).inspect_err(|_| drop(fs::remove_file(to)))
}

impl Made {
    /// Calls a function that makes files and directories. If it fails, none of them is left.
    ///
    /// # Errors
    /// Those of the function. [`Made::left`] then tells what could not be removed.
    pub fn all_or_nothing<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let result = work();
        match &result {
            Ok(_) => self.keep(),
            Err(_) => drop(self.remove()),
        }
        result
    }

    /// Makes a directory; it must not exist. Only its owner may enter it, because a guest's data is nobody else's business.
    pub(crate) fn directory(&self, path: &Path) -> io::Result<()> {
        self.make(path, |path| fs::DirBuilder::new().mode(0o700).create(path))
    }

    /// Makes a file; it must not exist. Only its owner may read it.
    pub(crate) fn file(&self, path: &Path) -> io::Result<fs::File> {
        self.make(path, |path| private().create_new(true).open(path))
    }

    /// Makes a file or directory with `make`; it must not exist.
    fn make<T>(&self, path: &Path, make: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let mut made = self.lock();
        let new = make(path)?;
        made.push(path.to_owned());
        Ok(new)
    }

    /// Adds a file that was made already. Nothing is done where it has no path.
    pub fn adopt(&self, path: &Path) {
        // If the path was that of a symbolic link, the file itself is meant, not the link.
        self.lock().extend(fs::canonicalize(path));
    }

    /// Ends the work: everything stays.
    pub fn keep(&self) {
        self.lock().clear();
    }

    /// Does the last step, after which everything stays. A signal that comes meanwhile waits for its end. If it fails, all that
    /// was made is still to be removed.
    pub(crate) fn keep_after<T, E>(&self, step: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut made = self.lock();
        step().inspect(|_| made.clear())
    }

    /// Renames a file or directory that was made.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut made = self.lock();
        fs::rename(from, to)?;
        made.iter_mut().filter(|path| *path == from).for_each(|path| *path = to.to_owned());
        Ok(())
    }

    /// Removes all that was made, the last one first. Nothing further can be made while the result is held.
    pub fn remove(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        let mut made = self.lock();
        for path in std::mem::take(&mut *made).into_iter().rev() {
            // A directory is removed only if it is empty: what others put there is theirs.
            let removed = if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            if removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                made.push(path);
            }
        }
        made
    }

    /// Lists what could not be removed.
    pub fn left(&self) -> Vec<PathBuf> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
