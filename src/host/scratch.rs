//! Makes temporary folders. No other file does.
//!
//! Nobody but its owner gets into one, whatever the umask says, because perl may load what lies in it as root, and it may
//! hold a package's files or a guest's data. The program that made a folder holds a lock on it as long as it runs. The next
//! one that makes a folder there removes those on which nobody holds a lock any more. So the folder of a program that was
//! killed is recognised by its lock, not by its age.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat};
use tempfile::TempDir;

/// The beginning of the folders' names.
const PREFIX: &str = "pve-diff-backup-staging-";

/// Characters of a name that nobody can guess.
const RANDOM: usize = 16;

/// Where our own folder lies, relative to the root of a host.
pub const STATE_DIR: &str = "var/lib/pve-diff-backup";

/// A temporary folder, removed at the end of this.
#[derive(Debug)]
pub struct Scratch {
    // The folder goes before its lock.
    dir: TempDir,
    _lock: Option<OwnedFd>,
}

impl Scratch {
    /// Makes one below `parent`, where it first removes what killed runs left.
    ///
    /// # Errors
    /// What the system says.
    pub fn below(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        loop {
            let dir = match private(parent, PREFIX) {
                // The sweep of another run may have removed it before it got its mode.
                Err(error) if error.kind() == io::ErrorKind::NotFound && parent.is_dir() => continue,
                made => made?,
            };
            match hold(dir.path()) {
                // Between its making and its locking somebody's sweep may have taken it for a dead one.
                Held::Gone | Held::ByAnother => {}
                Held::Ours(lock, _) => return Ok(Self { dir, _lock: Some(lock) }),
                // Not every file system has locks. Without one nobody else will remove it either.
                Held::Unknown => return Ok(Self { dir, _lock: None }),
            }
        }
    }

    /// Makes one for work on the running host that leaves its files alone: in our own folder where that is there
    /// and may be written to, else in the folder that `TMPDIR` names.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        Self::in_either(&Path::new("/").join(STATE_DIR), &std::env::temp_dir())
    }

    fn in_either(own: &Path, other: &Path) -> io::Result<Self> {
        // Our own folder may be younger than what a killed run left in the other.
        sweep(other);
        let usable = own.is_dir() && rustix::fs::access(own, rustix::fs::Access::WRITE_OK).is_ok();
        Self::below(if usable { own } else { other })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Removes it now, and tells where that fails.
    ///
    /// # Errors
    /// What the system says.
    pub fn close(self) -> io::Result<()> {
        self.dir.close()
    }

    /// Makes a folder in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Makes a folder of mode 0700 with an unpredictable name, which is removed at the end; for those that may be asked to keep
/// it.
///
/// # Errors
/// What the system says.
pub fn private(parent: &Path, prefix: &str) -> io::Result<TempDir> {
    let mode = fs::Permissions::from_mode(0o700);
    let mut builder = tempfile::Builder::new();
    let dir = builder.prefix(prefix).rand_bytes(RANDOM).permissions(mode.clone()).tempdir_in(parent)?;
    // The umask may have taken more than wanted, and never gives.
    fs::set_permissions(dir.path(), mode)?;
    Ok(dir)
}

/// Removes the folders in `parent` that killed runs left. What cannot be removed is left to the next run.
pub fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // In a folder that all may write to, others may have made it.
        if let Held::Ours(_lock, owner) = hold(&entry.path())
            && owner == rustix::process::geteuid().as_raw()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Who holds a folder.
enum Held {
    /// We hold it from now on. The number is the user ID of the folder's owner.
    Ours(OwnedFd, u32),
    ByAnother,
    Gone,
    Unknown,
}

fn hold(path: &Path) -> Held {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(lock) => lock,
        Err(rustix::io::Errno::NOENT) => return Held::Gone,
        Err(_) => return Held::Unknown,
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Held::ByAnother,
        Err(_) => return Held::Unknown,
    }
    let (Ok(locked), Ok(there)) = (fstat(&lock), fs::symlink_metadata(path)) else { return Held::Gone };
    match (there.dev(), there.ino()) == (locked.st_dev, locked.st_ino) {
        true => Held::Ours(lock, there.uid()),
        false => Held::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stays_and_what_nobody_holds_goes() {
        let parent = tempfile::tempdir().unwrap();
        let held = Scratch::below(parent.path()).unwrap();
        fs::write(held.path().join("file"), "x").unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::create_dir_all(dead.join("folder")).unwrap();
        fs::write(dead.join("folder/file"), "x").unwrap();
        let kept = parent.path().join("kept");
        fs::create_dir(&kept).unwrap();
        std::os::unix::fs::symlink(&kept, parent.path().join(format!("{PREFIX}link"))).unwrap();
        let second = Scratch::below(parent.path()).unwrap();
        assert!(held.path().join("file").exists() && second.path().exists());
        assert!(!dead.exists() && kept.exists());
        let paths = [held.path().to_owned(), second.path().to_owned()];
        drop((held, second));
        assert!(paths.iter().all(|path| !path.exists()));
    }

    #[test]
    fn what_was_left_elsewhere_goes_though_our_own_folder_is_there_by_now() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dead = other.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        let scratch = Scratch::in_either(own.path(), other.path()).unwrap();
        assert!(scratch.path().starts_with(own.path()) && !dead.exists());
        let scratch = Scratch::in_either(&own.path().join("missing"), other.path()).unwrap();
        assert!(scratch.path().starts_with(other.path()));
    }

    #[test]
    fn it_is_for_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::below(parent.path()).unwrap();
        assert_eq!(fs::metadata(scratch.path()).unwrap().mode() & 0o7777, 0o700);
    }
}
