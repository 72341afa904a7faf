//! What tells that a file is still the same one, and what of it a file in its place gets.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::bail;

/// What identifies a file, and what of it another file gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::backup) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    mode: u32,
    owner: (u32, u32),
}

impl Identity {
    /// Looks at a file; a symbolic link is not followed.
    pub fn of(path: &Path) -> anyhow::Result<Identity> {
        let it = path.symlink_metadata()?;
        if !it.is_file() {
            bail!("no regular file: put the file itself there");
        }
        Ok(Identity {
            device: it.dev(),
            inode: it.ino(),
            size: it.len(),
            changed: (it.mtime(), it.mtime_nsec()),
            mode: it.mode() & 0o7777,
            owner: (it.uid(), it.gid()),
        })
    }

    /// Gives a file the same owner, permissions and time. What some network file systems do not know is told.
    pub fn give(self, file: &File) -> Vec<String> {
        let mut warnings = Vec::new();
        let (user, group) = self.owner;
        let has = file.metadata().map(|it| (it.uid(), it.gid())).ok();
        if has != Some(self.owner)
            && let Err(error) = fchown(file, Some(user), Some(group))
        {
            warnings.push(format!("the owner {user}:{group} could not be kept: {error}"));
        }
        if let Err(error) = file.set_permissions(Permissions::from_mode(self.mode)) {
            warnings.push(format!("the permissions {:o} could not be kept: {error}", self.mode));
        }
        let (seconds, nanoseconds) = self.changed;
        let time = u64::try_from(seconds).ok().and_then(|seconds| {
            let since = Duration::new(seconds, u32::try_from(nanoseconds).ok()?);
            UNIX_EPOCH.checked_add(since)
        });
        // The time is that of the backup for whoever sorts files by it. Nothing depends on it.
        if let Some(time) = time {
            let _ = file.set_modified(time);
        }
        warnings
    }
}
