//! Finds what is not as it should be among the backups on this host's storages.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::backup::chain::Directory;
use crate::host::Root;
use crate::host::pmxcfs::{Pmxcfs, within};
use crate::host::storage::{self, Storage};

/// How long a storage may take to list its backups: a share that is not there hangs whoever asks.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most names that are told.
const SHOWN: usize = 3;

/// What people should look after; nothing where this is not the running host.
pub(super) fn advice(root: &Root) -> Vec<String> {
    if !root.is_running_host() {
        return Vec::new();
    }
    let root = root.clone();
    let storages = within(PATIENCE, move || match Pmxcfs::find(&root)? {
        Some(cluster) => storage::for_backups(&cluster),
        None => Ok(Vec::new()),
    });
    match storages.and_then(|found| found) {
        Ok(storages) => look_at_once(storages),
        Err(error) => vec![format!("The backups on the storages were not looked at: {error}")],
    }
}

/// Looks at all storages at the same time, so that together they take no longer than the slowest.
fn look_at_once(storages: Vec<Storage>) -> Vec<String> {
    let looks: Vec<_> = storages.into_iter().map(|storage| thread::spawn(|| look(storage))).collect();
    looks.into_iter().flat_map(|look| look.join().unwrap_or_default()).collect()
}

fn look(storage: Storage) -> Vec<String> {
    let dir = storage.dir.clone();
    // A folder that is not there yet holds no backups.
    match within(PATIENCE, move || dir.is_dir().then(|| Directory::scan(&dir))) {
        Ok(None) => Vec::new(),
        Ok(Some(Ok(directory))) => {
            told(&directory).into_iter().map(|text| format!("Storage {}: {text}", storage.id)).collect()
        }
        Ok(Some(Err(error))) => {
            vec![format!("Storage {}: cannot read {}: {error}", storage.id, storage.dir.display())]
        }
        Err(_) => vec![format!(
            "Storage {}: {} does not answer; its backups were not looked at",
            storage.id,
            storage.dir.display()
        )],
    }
}

fn told(directory: &Directory) -> Vec<String> {
    let mut told = Vec::new();
    let dir: &Path = &directory.path;
    if !directory.orphans.is_empty() {
        let fulls: BTreeSet<&str> = directory.orphans.iter().map(|it| it.base().as_str()).collect();
        let mut names = fulls.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
        if fulls.len() > SHOWN {
            names += &format!(" and {} more", fulls.len() - SHOWN);
        }
        told.push(format!(
            "{} differential backup(s) cannot be restored, as their full backup is not in {}: {names}. They are kept: \
             put it back, or delete them",
            directory.orphans.len(),
            dir.display()
        ));
    }
    for left in &directory.leftovers {
        told.extend(left.advice(dir).map(|advice| format!("{}: {advice}", left.file.name)));
    }
    for full in &directory.damaged {
        told.push(format!(
            "the full backup {0} is damaged (see {0}.damaged): those that need it may be lost. Check them: \
             pve-verify-backups {1}",
            full.as_str(),
            dir.display()
        ));
    }
    told
}
