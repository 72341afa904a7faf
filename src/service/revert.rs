//! Takes everything of ours out of a host.

use std::time::Duration;

use super::host::Locked;
use super::listener::Listener;
use super::{options, pending};
use crate::host::{Origin, Program, Root};
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
    end_accesses(host.root(), listener);
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

/// The module that knows what a killed backup has left in a VM's QEMU.
const ACCESS: &str = "usr/share/perl5/PVE/VZDump/Differential/Access.pm";

/// How long QEMU may take for all VMs together.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ends the snapshots that killed backups have left in QEMU, which makes no other backup until then. Without our modules
/// nobody would.
fn end_accesses(root: &Root, listener: &dyn Listener) {
    let is_there = |path: &str| root.resolve(path).is_ok_and(|path| path.exists());
    let records = root.resolve("run/qemu-server").ok().and_then(|folder| std::fs::read_dir(folder).ok());
    let is_record = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".pve-diff-backup"))
    };
    let any = records.is_some_and(|mut entries| entries.any(is_record));
    if !any || !root.is_running_host() || !is_there(ACCESS) {
        return;
    }
    let code = "PVE::VZDump::Differential::Access::release_all()";
    let perl = ["-MPVE::QemuServer", "-MPVE::VZDump::Differential::Access", "-e", code];
    let failed = match Program::new("perl", perl).limit(PATIENCE).run() {
        Ok(ran) if ran.succeeded() => return,
        Ok(ran) => ran.err(),
        Err(error) => error.to_string(),
    };
    listener.warn(&format!(
        "What a killed backup has left in QEMU may still be there, and QEMU makes no backup of that VM until it is started \
         anew: {}",
        failed.trim()
    ));
}
