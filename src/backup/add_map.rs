//! Gives a full backup a map: it is written anew, under its own name.
//!
//! ```text
//! vzdump-qemu-101-D0.vma.zst         as vzdump itself made it, or whoever compressed it anew
//! vzdump-qemu-101-D0.vma.NODE.dat    while it is written anew and read back
//! vzdump-qemu-101-D0.vma.zst         with a map: the same content, owner, permissions and time
//! ```
//!
//! A map in a file of its own beside the full backup would be left over where Proxmox VE moves or removes the full, and
//! could be another one's later. In the file itself it goes wherever that goes. The new file takes the old one's place in one
//! step, when all of it was read back from the disk and is what the old one holds; whatever ends the program, one of both is there.
//! Notes, protection and log belong to the name, so they stay as they are. Differentials that were made against the old file are
//! restored from the new one as from any full that was compressed anew. Only those that were made against it when it had another
//! map want that very file, or one without a map: there, nothing is changed.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};

use super::chain::Directory;
use super::names::{Compression, Full};
use super::unfinished::name_here;
use super::writing::{self, Done, Identity, Tools};
use crate::text::shown;

/// Gives a full backup in `dir` a map. The result is `None` where it has one already.
///
/// # Errors
/// [`Refused`](writing::Refused); where the file is not zstd by its name, or was found damaged; and where something cannot be
/// read or written, or is damaged. Then the full backup is as it was, and nothing else is left.
pub fn add_map(dir: &Path, full: &Full, tools: &Tools) -> anyhow::Result<Option<Done>> {
    if full.compression() != Compression::Zstd {
        bail!(
            "only a full backup whose name ends in .zst can have a map: of this one, compress the content anew with \
             pve-xdelta3 full, to a file whose name ends so, and remove this one when verify finds both good"
        );
    }
    let path = dir.join(full.as_str());
    let was = Identity::of(&path).with_context(|| format!("cannot look at {}", shown(&path)))?;
    if (tools.has_map)(&path)? {
        return Ok(None);
    }
    let damaged = format!("{}.damaged", full.as_str());
    let note = dir.join(&damaged);
    match note.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", shown(&note))),
        Ok(_) => bail!("it was found damaged, see {damaged}: a map would make it look as if it were good"),
    }
    let stem = full.as_str().strip_suffix(".zst").unwrap_or(full.as_str());
    let own = name_here(stem);
    let is_quiet = || {
        let directory = Directory::scan(dir).with_context(|| format!("cannot read {}", shown(dir)))?;
        writing::is_quiet(&directory, full.guest(), Some(&own))
    };
    is_quiet()?;
    let size = path.symlink_metadata().map_or(0, |it| it.len());
    // A map takes about a hundredth, and other programs' zstd may compress a little better.
    writing::has_room(dir, size + size / 8)?;
    let unfinished = dir.join(&own);
    tools.made.all_or_nothing(|| {
        let stream = (tools.open)(&path, None)?;
        let mut written = writing::write(&unfinished, full.format(), was, &is_quiet, stream, tools)?;
        // A job that began meanwhile relies on the old file until its end.
        is_quiet()?;
        serves_its_differentials(dir, full, &unfinished, tools)?;
        if Identity::of(&path).ok() != Some(was) {
            bail!("it was removed or replaced meanwhile: nothing was changed");
        }
        // From here on a signal leaves the old file or the new one, and perhaps the new one under its first name.
        if let Err(error) = tools.made.keep_after(|| fs::rename(&unfinished, &path)) {
            // Unless the old one is there for certain, the new one is not removed.
            if path.symlink_metadata().is_err() {
                tools.made.keep();
            }
            return Err(error)
                .with_context(|| format!("cannot rename {} to {}", shown(&unfinished), shown(&path)));
        }
        written.warnings.extend(writing::sync(dir).err().map(|error| format!("{error:#}")));
        Ok(Some(written.done(full.clone())))
    })
}

/// Refuses the new file where a differential could not be restored from it.
fn serves_its_differentials(dir: &Path, full: &Full, new: &Path, tools: &Tools) -> anyhow::Result<()> {
    let directory = Directory::scan(dir).with_context(|| format!("cannot read {}", shown(dir)))?;
    let chains = directory.chains.iter().filter(|chain| chain.full.is_content_of(full));
    for differential in chains.flat_map(|chain| &chain.differentials) {
        let name = differential.as_str();
        (tools.fits)(new, &dir.join(name)).with_context(|| {
            format!(
                "{name} could not be restored any more, as it wants the full backup with the map that it had then, or \
                 without one: make it a full backup first (pve-diff-backup consolidate), or leave this one as it is; \
                 nothing was changed"
            )
        })?;
    }
    Ok(())
}
