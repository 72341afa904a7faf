//! Holds what `consolidate` and `add-map` share: both write full backups with a map.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::progress::Progress;
use super::say::say;
use crate::backup::Full;
use crate::backup::verified::{self, Outcome, Subject};
use crate::backup::writing::Passed;
use crate::container::Compression;
use crate::container::source::{self, Found};
use crate::matching::base::Base;
use crate::matching::{full, restore};
use crate::nbd::Throttle;
use crate::text::shown;

/// The level of zstd, as for the full backups of jobs.
const LEVEL: i32 = 3;

/// Counts the bytes that are decoded, and waits where more than `bwlimit` KiB a second come.
pub(super) fn passed(progress: &Progress, bwlimit: Option<u64>) -> Passed {
    let throttle = bwlimit.map(|kib| Throttle::new(kib.saturating_mul(1024)));
    let bar = progress.clone();
    Arc::new(move |bytes| {
        bar.add(bytes);
        if let Some(throttle) = &throttle {
            throttle.take(bytes);
        }
    })
}

/// Compresses a stream into a file as a full backup with a map.
pub(super) fn with_map(threads: usize) -> impl Fn(Box<dyn Read + Send>, File) -> anyhow::Result<()> {
    move |stream, file| Ok(full::compress(stream, file, Compression::Zstd(LEVEL), threads)?)
}

/// Tells whether a full backup has a map.
pub(super) fn has_map(path: &Path) -> anyhow::Result<bool> {
    Ok(Base::open_found(path, Found::ByName)?.full()?.form == "map")
}

/// Refuses a full backup that a differential was not made against, as far as both tell.
pub(super) fn fits(full: &Path, differential: &Path) -> anyhow::Result<()> {
    let base = Base::open_found(full, Found::ByName)?;
    let delta = restore::Differential::open(Box::new(source::open(differential, Found::ByName)?))?;
    base.check(&delta.header())?;
    Ok(())
}

/// Notes that the full backup was read to its end and is good.
pub(super) fn note(results: &Path, dir: &Path, full: &Full) {
    let Some(subject) = Subject::of(dir, full.as_str(), None) else { return };
    if let Err(error) = verified::note(results, &subject, &Outcome::now(true)) {
        say!("warning: the result is not kept: {}: {error}", shown(results));
    }
}
