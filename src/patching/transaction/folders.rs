//! Makes and flushes the folders of a transaction's files, and removes them where they are empty again.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{At, Fault};

/// Mode of folders we create.
const DIR_MODE: u32 = 0o755;

/// Flushes one folder. Some network file systems cannot; they do not order anything anyway.
pub(super) fn sync_dir(dir: &Path) -> At<()> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(Fault::io(dir, error)),
        _ => Ok(()),
    }
}

/// Creates `dir` and what is missing above it, mode 0755 whatever the umask.
pub(super) fn create_dirs(dir: &Path) -> At<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        create_dirs(above)?;
    }
    let made = match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(DIR_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    made.map_err(|cause| Fault::io(dir, cause))?;
    match dir.parent() {
        Some(above) => sync_dir(above),
        None => Ok(()),
    }
}

/// Removes the folders above `target` that are empty, as far up as that, but not `root`.
pub(super) fn remove_empty_folders(target: &Path, root: &Path) -> At<()> {
    for dir in target.ancestors().skip(1).take_while(|dir| *dir != root) {
        match fs::remove_dir(dir) {
            Ok(()) => {}
            // Not made yet, or removed before an interruption.
            Err(error) if is_missing(dir, &error) => {}
            Err(_) if holds_something(dir) => break,
            Err(cause) => return Err(Fault::io(dir, cause)),
        }
    }
    Ok(())
}

/// Whether `error`, met in removing `path`, means that it is not there. A read-only file system refuses without looking.
pub(super) fn is_missing(path: &Path, error: &io::Error) -> bool {
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    missing(error) || fs::symlink_metadata(path).is_err_and(|error| missing(&error))
}

/// Whether a folder is not empty, also where a read-only file system does not let us try.
fn holds_something(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}
