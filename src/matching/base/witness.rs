//! Whether a base is still what it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{Access, Base};
use crate::container::source::Found;
use crate::matching::{BaseProblem, Error};

/// Remembers what a base was when it was opened.
pub struct Witness {
    path: PathBuf,
    found: Found,
    form: &'static str,
    identity: [u8; 16],
    file: Option<FileId>,
}

/// What identifies a file whatever its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    len: u64,
}

impl FileId {
    fn of(file: &File) -> Option<FileId> {
        let metadata = file.metadata().ok()?;
        Some(FileId { device: metadata.dev(), inode: metadata.ino(), len: metadata.len() })
    }
}

impl Base {
    /// Remembers what the base is now. `found` is how its path was found.
    pub fn witness(&self, found: Found) -> Witness {
        let (path, file) = (self.path.clone(), self.file.as_ref().and_then(FileId::of));
        Witness { path, found, form: self.form, identity: self.identity, file }
    }
}

impl Witness {
    /// Refuses a base that is no longer there, or no longer what it was: what was made against it could not be restored. A
    /// copy in its place is accepted if its map proves that it holds the same.
    ///
    /// # Errors
    /// [`BaseProblem::Changed`].
    pub fn still_there(&self) -> Result<(), Error> {
        let changed = |what: String| Err(Error::base(&self.path, BaseProblem::Changed(what)));
        match Base::open_found(&self.path, self.found) {
            Err(Error::Base { problem: BaseProblem::Io(e), .. }) if e.kind() == io::ErrorKind::NotFound => {
                changed("was removed or renamed".into())
            }
            Err(Error::Base { problem, .. }) => changed(format!("was cut short or replaced (it {problem})")),
            Err(e) => changed(format!("became unreadable ({e})")),
            Ok(now) if now.form != self.form || now.identity != self.identity => {
                changed("was replaced or overwritten".into())
            }
            Ok(now)
                if now.file.as_ref().and_then(FileId::of) != self.file
                    && !matches!(now.access, Access::Mapped(_)) =>
            {
                changed("was replaced by another file".into())
            }
            Ok(_) => Ok(()),
        }
    }
}
