//! Takes everything of ours out of a host.

use super::host::Locked;
use super::listener::Listener;
use super::{options, pending};
use crate::host::Origin;
use crate::jobs::Mode;
use crate::patching::change::Change;
use crate::patching::record;
use crate::text::count;

/// Takes out our lines and files, whatever version put them there, and lets the services load the old code where `reload`
/// says so.
///
/// # Errors
/// Where something cannot be read or written; then nothing is changed.
pub fn revert(locked: &Locked, reload: bool, listener: &dyn Listener) -> anyhow::Result<()> {
    let (host, view) = (locked.host, &locked.view);
    let mut changes = host.revert_changes(view)?;
    let ours = |change: &&Change| ![record::PATH, record::PATCH_PATH].contains(&change.path.as_str());
    let changed = changes.iter().filter(ours).count();
    changes.extend(pending::forget(host)?);
    // First, so that no job meets a vzdump that refuses it, wherever this run may be killed.
    options::settle(host.root(), Mode::Leave, listener);
    if let Err(error) = locked.commit("revert", &changes) {
        options::settle(host.root(), Mode::Keep, listener);
        return Err(error);
    }
    listener.done(&match changed {
        0 => "There is nothing to do: nothing of ours is there.".to_owned(),
        _ => format!("reverted {}", count(changed, "file")),
    });
    for (path, file) in &view.survey.files {
        if file.origin == Some(Origin::Modified) && changes.iter().any(|change| change.path == *path) {
            listener.done(&format!("/{path}: is not as its package shipped it: somebody else's edits stay"));
        }
    }
    if reload && (changed > 0 || locked.recovered) {
        host.reload(listener);
    }
    Ok(())
}
