//! How everything of ours is taken out again, by our markers alone.

use super::change::Change;
use super::patchset::is_ours;
use super::record::Record;
use super::sha256_hex;
use super::survey::Survey;

/// The changes that take out all our lines and delete all our files, of whatever version, wherever the sets or our record
/// say they may be. A file that becomes what it was before gets its old time stamp back.
pub fn changes(survey: &Survey, record: Option<&Record>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, view) in &survey.files {
        let (Some(content), Some(stripped)) = (&view.content, &view.stripped) else { continue };
        let after = match () {
            () if view.payload && is_ours(content) => None,
            () if view.payload => continue,
            () if !stripped.markers.is_empty() => Some(stripped.rest.clone()),
            () => continue,
        };
        let sha256 = after.as_deref().map(sha256_hex);
        let mtime = record
            .and_then(|record| record.files.iter().find(|file| file.path == *path && file.before == sha256))
            .and_then(|file| file.before_mtime);
        changes.push(Change { path: path.clone(), before: Some(content.clone()), after, mtime });
    }
    changes
}
