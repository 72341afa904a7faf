//! The releases in a clone: the commits at which a package of that version was built.

use std::collections::BTreeMap;

use super::git::{Clone, Commit, GitError};
use super::repositories::Repository;
use crate::host::version::Version;

/// Where repositories have kept their change logs.
const CHANGELOGS: [&str; 3] = ["debian/changelog", "debian/changelog.Debian", "changelog.Debian"];

/// One release of a package.
#[derive(Debug, std::clone::Clone)]
pub struct Release {
    /// The package's version, as in the change log.
    pub version: Version,
    /// The major release of Proxmox VE it belongs to.
    pub series: u32,
    /// The commit.
    pub commit: String,
    /// Its time, in seconds since 1970.
    pub time: i64,
}

/// Finds all releases of `repository`, ordered by version. A release is a commit that changes the change log. Where several
/// commits name the same version, the one whose message names it counts, and among those the first: the others are copies on
/// other branches.
///
/// # Errors
/// [`GitError`]
pub fn of(clone: &mut Clone, repository: &Repository) -> Result<Vec<Release>, GitError> {
    let mut by_version: BTreeMap<Version, (bool, Commit)> = BTreeMap::new();
    // Oldest first.
    for commit in clone.commits(&CHANGELOGS)?.into_iter().rev() {
        let Some(version) = version_at(clone, &commit.id)? else { continue };
        let announced = is_announcement(&commit.subject);
        match by_version.get(&version) {
            // Where no commit announces the version, the last edit of its entry counts.
            Some((true, _)) => {}
            Some((false, _)) | None => {
                by_version.insert(version, (announced, commit));
            }
        }
    }
    let releases = by_version.into_iter().filter_map(|(version, (_, commit))| {
        let series = repository.series(&version)?;
        Some(Release { version, series, commit: commit.id, time: commit.time })
    });
    Ok(releases.collect())
}

/// The version at the top of a commit's change log; `None` where there is none, or it is not yet released.
fn version_at(clone: &mut Clone, commit: &str) -> Result<Option<Version>, GitError> {
    for path in CHANGELOGS {
        if let Some(text) = clone.read(&format!("{commit}:{path}"))? {
            return Ok(first_version(&String::from_utf8_lossy(&text)));
        }
    }
    Ok(None)
}

/// The version in the first line of a change log, `package (version) distribution; ...`.
fn first_version(changelog: &str) -> Option<Version> {
    let line = changelog.lines().find(|line| !line.trim().is_empty())?;
    let (version, rest) = line.split_once('(')?.1.split_once(')')?;
    if rest.trim_start().starts_with("UNRELEASED") {
        return None;
    }
    Version::parse(version).ok()
}

/// Whether a commit's message says that it is a release.
fn is_announcement(subject: &str) -> bool {
    let subject = subject.to_ascii_lowercase();
    subject.starts_with("bump ver") || subject.starts_with("release")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_change_log() {
        let version = |text: &str| first_version(text).map(|version| version.to_string());
        assert_eq!(version("\npve-manager (6.2-4) pve; urgency=medium\n").as_deref(), Some("6.2-4"));
        assert_eq!(version("pve-manager (9.3.0) UNRELEASED; urgency=medium\n"), None);
        assert_eq!(version("no change log"), None);
    }
}
