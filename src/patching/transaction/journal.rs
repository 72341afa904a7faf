//! The write-ahead journal: which files a run replaces, and how to tell old from new.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folders::sync_dir;
use super::{At, Fault, TransactionError};
use crate::host::root::is_inside;
use crate::host::scratch::STATE_DIR;
use crate::host::{Root, RootError};

/// The form of the journal written here.
const FORMAT: u32 = 1;

/// Its name in our folder.
const NAME: &str = "journal.json";

/// Largest journal read.
const MAX: u64 = 4 << 20;

/// What a run is about to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    format: u32,
    /// For people: `apply`, `revert`.
    pub operation: String,
    pub entries: Vec<Entry>,
}

/// One file, with the sha256 of its content before and after; `None`: it does not exist then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub path: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl Journal {
    pub fn new(operation: &str, entries: Vec<Entry>) -> Self {
        Self { format: FORMAT, operation: operation.to_owned(), entries }
    }

    pub fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    /// Where it is written before it is put in place at once.
    fn draft(dir: &Path) -> PathBuf {
        dir.join("journal.json.new")
    }

    /// Puts the journal in place, complete and on disk.
    pub fn write(&self, dir: &Path) -> At<()> {
        let (path, draft) = (Self::path(dir), Self::draft(dir));
        let written = || -> io::Result<()> {
            // Not through a link that somebody put there: `read` removed what was left.
            let mut file = std::fs::File::create_new(&draft)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)
        };
        written().map_err(|cause| {
            let _ = std::fs::remove_file(&draft);
            Fault::io(&path, cause)
        })?;
        sync_dir(dir).inspect_err(|_| {
            // No target has been touched: without the journal all is as it was.
            let _ = std::fs::remove_file(&path);
        })
    }

    /// Whether there is the journal of an interrupted run.
    pub fn is_there(root: &Root) -> Result<bool, RootError> {
        Ok(root.resolve(Path::new(STATE_DIR).join(NAME))?.exists())
    }

    /// The journal of an interrupted run, where there is one, with our folder `dir` below `root`.
    pub fn read(root: &Root, dir: &Path) -> Result<Option<Self>, TransactionError> {
        let path = Self::path(dir);
        let _ = std::fs::remove_file(Self::draft(dir));
        let bytes = match root.read(Path::new(STATE_DIR).join(NAME), MAX) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(RootError::Io { cause, .. }) => {
                return Err(TransactionError::Journal { path, what: cause.to_string() });
            }
            Err(error) => return Err(error.into()),
        };
        let journal: Self = match serde_json::from_slice(&bytes) {
            Ok(journal) => journal,
            Err(error) => return Err(TransactionError::Journal { path, what: error.to_string() }),
        };
        let what = match () {
            () if journal.format != FORMAT => format!("form {} is unknown to this version", journal.format),
            () if !journal.entries.iter().all(|entry| is_inside(&entry.path)) => {
                "it names a path outside the root".to_owned()
            }
            () => return Ok(Some(journal)),
        };
        Err(TransactionError::Journal { path, what })
    }

    /// Removes the journal: the run is over.
    pub fn remove(dir: &Path) -> At<()> {
        let path = Self::path(dir);
        match std::fs::remove_file(&path) {
            Ok(()) => sync_dir(dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(Fault::io(&path, cause)),
        }
    }
}
