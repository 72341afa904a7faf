//! Finds and removes full backups that nothing needs any more.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context, bail};

use crate::backup::chain::Directory;
use crate::backup::names::{BackupName, Full};
use crate::backup::unfinished::State;

/// A full backup that no differential needs any more.
#[derive(Debug)]
pub struct Spare {
    /// Its name.
    pub full: Full,
    /// The size of its file in bytes.
    pub size: u64,
    /// Whether Proxmox VE refuses to remove it.
    pub is_protected: bool,
}

/// Finds those of the fulls `needed` before, in any compression, that no differential needs any more, and no backup that is
/// being made or may be.
///
/// # Errors
/// Where the directory cannot be read.
pub fn spare(dir: &Path, needed: &[Full]) -> io::Result<Vec<Spare>> {
    let directory = Directory::scan(dir)?;
    let is_used = |full: &Full| {
        let by_backup =
            directory.chains.iter().any(|it| it.full.is_content_of(full) && !it.differentials.is_empty());
        let unfinished = directory.leftovers.iter().filter(|it| it.state != State::Left);
        by_backup || unfinished.filter_map(|it| it.file.base.as_ref()).any(|base| base.is_content_of(full))
    };
    let fulls = directory.chains.iter().map(|chain| &chain.full);
    let spare = fulls.filter(|full| needed.iter().any(|it| it.is_content_of(full)) && !is_used(full));
    Ok(spare
        .map(|full| Spare {
            full: full.clone(),
            size: directory.size_of(full.as_str()),
            is_protected: directory.has_beside(&BackupName::Full(full.clone()).protected_name()),
        })
        .collect())
}

/// Removes a full backup that nothing needs any more, and the files beside it. Whether that is so is looked up once more.
///
/// # Errors
/// Where it is needed or protected meanwhile, or cannot be removed.
pub fn remove(dir: &Path, full: &Full) -> anyhow::Result<()> {
    let name = BackupName::Full(full.clone());
    match spare(dir, std::slice::from_ref(full))?.into_iter().find(|it| it.full == *full) {
        None => bail!("is needed again, or gone"),
        Some(Spare { is_protected: true, .. }) => bail!("is protected"),
        Some(_) => {}
    }
    fs::remove_file(dir.join(full.as_str()))?;
    let damaged = format!("{}.damaged", full.as_str());
    for beside in [name.log_name(), name.notes_name(), name.protected_name(), damaged] {
        match fs::remove_file(dir.join(&beside)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{beside} stays"));
            }
            _ => {}
        }
    }
    Ok(())
}
