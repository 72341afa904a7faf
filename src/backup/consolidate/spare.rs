//! Finds and removes full backups that nothing needs any more.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::backup::chain::Directory;
use crate::backup::names::{BackupName, DIFFERENTIAL, Full, full_forms};
use crate::backup::unfinished::{Leftover, State};
use crate::text::shown;

/// A full backup that no differential needs any more.
#[derive(Debug)]
pub struct Spare {
    /// Its name.
    pub full: Full,
    /// The size of its file in bytes.
    pub size: u64,
    /// It is protected, so that Proxmox VE refuses to remove it.
    pub is_protected: bool,
    /// A file that may need it all the same; it is not removed then.
    pub doubt: Option<Doubt>,
}

/// A file or folder that is named as a differential of a full backup, but cannot be used as one: a symbolic link, one that was
/// compressed anew with xz, one that is being copied. What it is to somebody cannot be known here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is named as a differential of it, though it cannot be used as it is: restore or rename it, or remove it"
)]
pub struct Doubt(String);

impl Doubt {
    /// Looks for one. The names are read anew.
    fn find(dir: &Path, full: &Full, leftovers: &[Leftover]) -> io::Result<Option<Doubt>> {
        let starts = full_forms(full.as_str()).into_iter().map(|form| form + DIFFERENTIAL);
        let starts: Vec<String> = starts.collect();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let bytes = name.as_bytes();
            // What lies beside a differential needs nothing; nor does what nobody will finish.
            let is_beside =
                [".notes", ".protected", ".log"].iter().any(|end| bytes.ends_with(end.as_bytes()));
            let is_left = leftovers.iter().any(|it| it.state == State::Left && name == it.file.name.as_str());
            if starts.iter().any(|it| bytes.starts_with(it.as_bytes())) && !is_beside && !is_left {
                return Ok(Some(Doubt(shown(&name))));
            }
        }
        Ok(None)
    }
}

/// Finds those of the fulls `needed` before, in any compression, that no differential needs any more, and no backup that is
/// being made or may be.
///
/// # Errors
/// Fails where the directory cannot be read.
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
    spare
        .map(|full| {
            Ok(Spare {
                full: full.clone(),
                size: directory.size_of(full.as_str()),
                is_protected: directory.is_protected(&BackupName::Full(full.clone())),
                doubt: Doubt::find(dir, full, &directory.leftovers)?,
            })
        })
        .collect()
}

/// Removes a full backup that nothing needs any more, and the files beside it. Whether that is so is looked up once more.
///
/// # Errors
/// Fails where the full backup is needed or protected meanwhile, or cannot be removed.
pub fn remove(dir: &Path, full: &Full) -> anyhow::Result<()> {
    let name = BackupName::Full(full.clone());
    match spare(dir, std::slice::from_ref(full))?.into_iter().find(|it| it.full == *full) {
        None => bail!("is needed again, or gone"),
        Some(Spare { is_protected: true, .. }) => bail!("is protected"),
        Some(Spare { doubt: Some(doubt), .. }) => bail!(doubt),
        Some(_) => {}
    }
    fs::remove_file(dir.join(full.as_str()))?;
    let damaged = format!("{}.damaged", full.as_str());
    // It was not protected: a mark that somebody makes now is left, to tell that it came too late.
    for beside in [name.log_name(), name.notes_name(), damaged] {
        match fs::remove_file(dir.join(&beside)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{beside} stays"));
            }
            _ => {}
        }
    }
    Ok(())
}
