//! The record of what was done to a host: `var/lib/pve-diff-backup/applied.json`, and `applied.patch` for people.
//!
//! It helps people and `revert` (with time stamps and with files of older sets), but nothing depends on it: our lines are
//! known by their markers, so everything works where the record is lost. It is replaced in the same transaction as the files
//! that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::root::is_inside;
use crate::host::{Root, RootError};

/// Where the record lies, relative to the root.
pub const PATH: &str = "var/lib/pve-diff-backup/applied.json";

/// Where the same lies as a patch, which `patch -R` can undo without us.
pub const PATCH_PATH: &str = "var/lib/pve-diff-backup/applied.patch";

/// The form of the record written here.
pub(super) const FORMAT: u32 = 1;

/// Largest record read.
const MAX: u64 = 4 << 20;

/// What was applied, when, and to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Form of this file.
    pub format: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// The time of that, in seconds since 1970.
    pub time: u64,
    /// Name of the patch set.
    pub set: String,
    /// Version of the patch set.
    pub set_version: u32,
    /// Whether all packages were of releases the set was verified with.
    pub verified: bool,
    /// Versions of the packages concerned.
    pub packages: BTreeMap<String, String>,
    /// The files.
    pub files: Vec<RecordedFile>,
}

/// One file as it was and as it became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedFile {
    /// Path relative to the root.
    pub path: String,
    /// sha256 without our lines; `None`: the file is ours and was created.
    pub before: Option<String>,
    /// sha256 with our lines.
    pub after: String,
    /// Modification time before, in seconds and nanoseconds since 1970: given back by `revert`.
    pub before_mtime: Option<(i64, i64)>,
}

/// The record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is damaged, or of a form that this version does not know.
    #[error("{}: {what}; `revert` and `apply` do not need this file: delete it and try again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It cannot be read.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl Record {
    /// Reads the record below `root`; `None` where there is none.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn read(root: &Root) -> Result<Option<Self>, RecordError> {
        let Some(bytes) = root.read(PATH, MAX)? else { return Ok(None) };
        let path = root.resolve(PATH)?;
        let damaged = |what: String| RecordError::Damaged { path: path.clone(), what };
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if record.format != FORMAT {
            return Err(damaged(format!("form {} is unknown to this version", record.format)));
        }
        if record.files.iter().any(|file| !is_inside(&file.path)) {
            return Err(damaged("it names a path outside the root".to_owned()));
        }
        Ok(Some(record))
    }

    /// Whether both say the same, times and program versions aside.
    pub fn same_as(&self, other: &Self) -> bool {
        let stripped = |record: &Self| Self { time: 0, program: String::new(), ..record.clone() };
        stripped(self) == stripped(other)
    }

    /// The content of its file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}
