//! The change of one file. Plans give changes, diffs show them, transactions carry them out.

/// One file to be replaced, created or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path relative to the root.
    pub path: String,
    /// What it holds now; `None`: it does not exist.
    pub before: Option<Vec<u8>>,
    /// What it is to hold; `None`: it is deleted.
    pub after: Option<Vec<u8>>,
    /// Modification time to give it, in seconds and nanoseconds since 1970; `None`: the time of the change.
    pub mtime: Option<(i64, i64)>,
}

/// Puts changes into the order in which they are made: new files first and deletions last, so that at no moment does a
/// line of ours refer to a file that is not there.
pub fn in_order(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by_key(|change| match (&change.before, &change.after) {
        (None, _) => 0,
        (Some(_), Some(_)) => 1,
        (Some(_), None) => 2,
    });
    changes
}
