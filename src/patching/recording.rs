//! Makes the [`Record`] of a plan that is carried out.

use std::time::{SystemTime, UNIX_EPOCH};

use super::plan::Plan;
use super::record::{FORMAT, Record, RecordedFile};
use super::sha256_hex;
use super::survey::Survey;

/// Makes the record of `plan`. `mtime` gives the present modification time of a file. Where a file already held our lines,
/// its time before that is taken from the `old` record.
pub fn record(
    plan: &Plan,
    survey: &Survey,
    old: Option<&Record>,
    mtime: &dyn Fn(&str) -> Option<(i64, i64)>,
) -> Record {
    let packages = plan.set.packages.keys().filter_map(|name| {
        survey.packages.get(name).map(|package| (name.clone(), package.version.to_string()))
    });
    let files = plan.files.iter().map(|file| {
        let before = file.pristine.as_deref().map(sha256_hex);
        let recorded = old
            .and_then(|old| old.files.iter().find(|other| other.path == file.path && other.before == before));
        let before_mtime = match (&before, recorded) {
            (None, _) => None,
            (Some(_), _) if file.current == file.pristine => mtime(&file.path),
            (Some(_), Some(recorded)) => recorded.before_mtime,
            (Some(_), None) => None,
        };
        let after = file.patched.as_deref().map(sha256_hex).unwrap_or_default();
        RecordedFile { path: file.path.clone(), before, after, before_mtime }
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Record {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        time: now,
        set: plan.set.name.clone(),
        set_version: plan.set.version,
        verified: plan.unverified.is_empty(),
        packages: packages.collect(),
        files: files.collect(),
    }
}
