//! Finds what is not as it should be among the backups on this host's storages, and how the storages stand.

mod pitfalls;
mod room;

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use indicatif::DecimalBytes;
use rustix::fs::statvfs;
use serde::Serialize;

pub use self::room::Round;
use crate::backup::Compression;
use crate::backup::chain::Directory;
use crate::backup::verified::Results;
use crate::host::Root;
use crate::host::mounts::Mounts;
use crate::host::pmxcfs::{Pmxcfs, within};
use crate::host::storage::{self, Storage};

/// How long a storage may take to list its backups: a share that is not there hangs whoever asks.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most names that are told.
const SHOWN: usize = 3;

/// The file with the results of verifications, relative to the root.
const RESULTS: &str = "var/lib/pve-diff-backup/verified";

/// How long a good result of a verification is enough.
const TRUSTED: Duration = Duration::from_secs(30 * 86_400);

/// How a storage that keeps backups stands.
#[derive(Debug, Clone, Serialize)]
pub struct StorageHealth {
    /// Its name.
    pub storage: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where its backups lie.
    pub directory: String,
    /// The kind of file system there.
    pub filesystem: Option<String>,
    /// The number of bytes that are free.
    pub free: Option<u64>,
    /// The number of bytes that fit.
    pub size: Option<u64>,
    /// Number of full backups.
    pub fulls: usize,
    /// Number of differentials.
    pub differentials: usize,
    /// Number of differentials that were not found good within 30 days.
    pub unverified: usize,
    /// What the next backups will take.
    #[serde(flatten)]
    pub round: Round,
    /// What is to be done about it.
    #[serde(skip)]
    pub complaints: Vec<String>,
    /// What is worth knowing of it.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// The storages on which this node keeps backups, or why they were not looked at. Where this is not the running host, there are
/// none.
pub(super) fn look_at_all(root: &Root) -> Result<Vec<StorageHealth>, String> {
    if !root.is_running_host() {
        return Ok(Vec::new());
    }
    let asked = root.clone();
    let storages = within(PATIENCE, move || match Pmxcfs::find(&asked)? {
        Some(cluster) => storage::for_backups(&cluster),
        None => Ok(Vec::new()),
    });
    let storages = storages
        .and_then(|found| found)
        .map_err(|error| format!("The backups on the storages were not looked at: {error}"))?;
    // Together they take no longer than the slowest.
    let results = root.resolve(RESULTS).ok().and_then(|path| Results::read(&path).ok()).unwrap_or_default();
    let (results, mounts) = (std::sync::Arc::new(results), Mounts::read());
    let looks: Vec<_> = storages
        .into_iter()
        .map(|storage| {
            let (results, mounts) = (std::sync::Arc::clone(&results), mounts.clone());
            thread::spawn(move || look(storage, mounts, results))
        })
        .collect();
    Ok(looks.into_iter().filter_map(|look| look.join().ok()).collect())
}

/// What is to be done on all storages.
pub(super) fn advice(storages: &Result<Vec<StorageHealth>, String>) -> Vec<String> {
    match storages {
        Ok(storages) => storages.iter().flat_map(|it| it.complaints.clone()).collect(),
        Err(error) => vec![error.clone()],
    }
}

fn look(storage: Storage, mounts: Mounts, results: std::sync::Arc<Results>) -> StorageHealth {
    let mut health = StorageHealth {
        storage: storage.id.clone(),
        kind: storage.kind.clone(),
        directory: storage.dir.display().to_string(),
        filesystem: None,
        free: None,
        size: None,
        fulls: 0,
        differentials: 0,
        unverified: 0,
        round: Round::default(),
        complaints: Vec::new(),
        notes: Vec::new(),
    };
    let (dir, asked) = (storage.dir.clone(), storage.clone());
    let found = within(PATIENCE, move || {
        // A folder that is not there yet holds no backups.
        let real = asked.dir.canonicalize().unwrap_or_else(|_| asked.dir.clone());
        let directory = match asked.dir.is_dir() {
            true => Directory::scan(&asked.dir),
            false => Ok(Directory::empty(&asked.dir)),
        };
        let unverified = directory.as_ref().map_or(0, |it| unverified(it, &results));
        let space = statvfs(&real).ok().filter(|space| space.f_blocks > 0);
        (real.clone(), directory, unverified, space, pitfalls::of(&asked, &real, &mounts))
    });
    match found {
        Ok((_, directory, unverified, space, pitfalls)) => {
            health.filesystem = pitfalls.filesystem;
            health.notes.extend(pitfalls.notes);
            health.complaints.extend(pitfalls.complaints);
            health.free = space.as_ref().map(|it| it.f_bavail.saturating_mul(it.f_frsize));
            health.size = space.as_ref().map(|it| it.f_blocks.saturating_mul(it.f_frsize));
            match directory {
                Ok(directory) => health.learn(&directory, unverified),
                Err(error) => health.complaints.push(format!("cannot read {}: {error}", dir.display())),
            }
        }
        Err(_) => health
            .complaints
            .push(format!("{} does not answer; its backups were not looked at", dir.display())),
    }
    for text in health.complaints.iter_mut().chain(&mut health.notes) {
        *text = format!("Storage {}: {text}", storage.id);
    }
    health
}

impl StorageHealth {
    fn learn(&mut self, directory: &Directory, unverified: usize) {
        let differentials = directory.chains.iter().map(|it| it.differentials.len()).sum::<usize>();
        self.fulls = directory.chains.len();
        self.differentials = differentials + directory.orphans.len();
        self.unverified = unverified;
        self.round = Round::expected(directory, SystemTime::now());
        self.complaints.extend(told(directory));
        let Round { guests, next, all_full } = self.round;
        let (shown, full) = (DecimalBytes(next), DecimalBytes(all_full));
        match self.free {
            Some(free) if free < next => self.complaints.push(format!(
                "{} are free, and the next backups of {guests} guest(s) take about {shown}, as the last ones and how they grew \
                 tell. Make room, or keep fewer: pve-diff-backup chains {} shows what takes how much",
                DecimalBytes(free),
                self.storage
            )),
            Some(free) if free < all_full => self.notes.push(format!(
                "{} are free: enough for the next backups of {guests} guest(s) ({shown}), not for a full backup of each \
                 ({full}). Make room before they are due on the same day",
                DecimalBytes(free)
            )),
            _ => {}
        }
        if unverified > 0 {
            self.notes.push(format!(
                "{unverified} of {differentials} differential backup(s) were not found good within 30 days. Check them: \
                 pve-verify-backups --resume {}",
                self.storage
            ));
        }
        let slow = room::newest(directory)
            .filter(|chain| !chain.differentials.is_empty() && chain.full.compression() != Compression::Zstd);
        let slow = slow.count();
        if slow > 0 {
            self.notes.push(format!(
                "the newest full backups of {slow} guest(s) have no map, as they are not compressed with zstd: differentials \
                 against them take longer, and are larger where data moved. Choose ZSTD in the job"
            ));
        }
    }
}

/// Counts the differentials that were not found good lately.
fn unverified(directory: &Directory, results: &Results) -> usize {
    let results = results.in_directory(&directory.path);
    let now = SystemTime::now();
    let differentials = directory.chains.iter().flat_map(|chain| &chain.differentials);
    let is_good = |it: &&crate::backup::Differential| {
        let found = results.of(&directory.path, it.as_str(), Some(it.base().as_str()));
        found.is_some_and(|it| it.good && it.age(now).is_some_and(|age| age < TRUSTED))
    };
    differentials.filter(|it| !is_good(it)).count()
}

/// What is wrong among the backups, apart from the room that they take.
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
    for folder in &directory.folders {
        told.extend(folder.advice(dir).map(|advice| format!("{}: {advice}", folder.name)));
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
