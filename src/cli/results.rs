//! Where commands find what verifications have found.

use std::path::{Path, PathBuf};

use crate::host::Root;

/// The folder of this product on a host, relative to the root.
const FOLDER: &str = "var/lib/pve-diff-backup";

/// The option of the commands that use results.
#[derive(Debug, clap::Args)]
pub(super) struct ResultsFile {
    /// Where results of verifications are kept
    ///
    /// Without it in /var/lib/pve-diff-backup/verified, where that folder is there, as it is on hosts with this product.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    results: Option<PathBuf>,
}

impl ResultsFile {
    /// The file, which need not be there; `None` where there is no place for it.
    pub fn path(&self, root: &Path) -> Option<PathBuf> {
        self.results.clone().or_else(|| {
            let folder = Root::open(root).ok()?.resolve(FOLDER).ok()?;
            folder.is_dir().then(|| folder.join("verified"))
        })
    }
}
