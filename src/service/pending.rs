//! Keeps the notes that hooks leave in our own folder: why our lines are owed to this host, and of which failure people were
//! told.

use super::host::{Host, NOTE};
use crate::patching::change::Change;

/// Which failure people were told of last: a digest, so that each is told once.
const TOLD: &str = "var/lib/pve-diff-backup/told";

/// Largest note read.
const MAX_NOTE: u64 = 1 << 20;

/// Why the last hook left the host without our lines, if it did.
pub(super) fn read(host: &Host) -> anyhow::Result<Option<String>> {
    let note = host.root().read(NOTE, MAX_NOTE)?;
    Ok(note.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

/// The change by which the note says `text`; `None` where it says so already.
pub(super) fn note(host: &Host, text: &str) -> anyhow::Result<Option<Change>> {
    host.own_file(NOTE, Some(format!("{text}\n").into_bytes()))
}

/// The change by which people count as told of the failure with this digest; `None` where they do already.
pub(super) fn told(host: &Host, digest: &str) -> anyhow::Result<Option<Change>> {
    host.own_file(TOLD, Some(format!("{digest}\n").into_bytes()))
}

/// The changes by which a host forgets a failure that is past.
pub(super) fn forget(host: &Host) -> anyhow::Result<Vec<Change>> {
    Ok(host.own_file(NOTE, None)?.into_iter().chain(host.own_file(TOLD, None)?).collect())
}
