//! Makes a full backup of a differential, which it replaces.
//!
//! ```text
//! vzdump-qemu-101-D0.vma.zst--differential-D1.vcdiff.zst   (and .notes, .protected, .log)
//! vzdump-qemu-101-D1.vma.NODE.dat                          while it is written and read back
//! vzdump-qemu-101-D1.vma.zst                               (and .notes, .protected, .log)
//! ```
//!
//! The file of the name in the middle counts as an unfinished backup ([`super::unfinished`]): jobs, `chains` and `doctor`
//! know it. It becomes the full backup only when all of it was read back from the disk and is what the differential
//! restores to. The differential goes last. Whatever ends the program, one of both is there under its own name; where both are,
//! the same command compares them and ends the work.

mod spare;

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

pub use self::spare::{Spare, remove, spare};
use super::chain::Directory;
use super::names::{BackupName, Differential, Full, Guest, full_forms};
use super::unfinished::name_here;
use super::verify::walk;
use super::writing::{self, Done, Identity, Refused, Sum, Tools};
use crate::container::read_full;
use crate::container::source::{Found, open};
use crate::text::shown;
use crate::vma::{Made, rename_to_free};

/// A differential that is to become a full backup.
#[derive(Debug)]
pub struct Work {
    dir: PathBuf,
    differential: Differential,
    /// The new full backup.
    full: Full,
}

impl Work {
    /// Prepares the work for a differential in `dir`.
    pub fn new(dir: &Path, differential: &Differential) -> anyhow::Result<Work> {
        let base = differential.base();
        let Guest { kind, vmid } = base.guest();
        let name = format!("vzdump-{kind}-{vmid}-{}.{}.zst", differential.stamp(), base.format());
        let full = Full::parse(&name).ok_or_else(|| anyhow!("{name} is no name of a full backup"))?;
        Ok(Work { dir: dir.to_owned(), differential: differential.clone(), full })
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Finds what forbids the work. The directory is read anew, as another backup may have been finished or begun since.
    ///
    /// # Errors
    /// [`Refused`], and where the directory cannot be read.
    fn allowed(&self) -> anyhow::Result<()> {
        let directory =
            Directory::scan(&self.dir).with_context(|| format!("cannot read {}", shown(&self.dir)))?;
        let base = self.differential.base();
        if !directory.chains.iter().any(|chain| chain.full.is_content_of(base)) {
            bail!(Refused::NoFull(base.as_str().to_owned()));
        }
        writing::is_quiet(&directory, base.guest(), None)
    }

    /// The sizes of the full backup and of the differential together. Most differentials copy each byte of their full once at
    /// most, so that this is more than the new full takes; where that is not so, writing fails, and all stays as it was.
    fn both_sizes(&self) -> u64 {
        let forms = full_forms(self.differential.base().as_str());
        let size = |name: &str| self.path(name).symlink_metadata().map_or(0, |it| it.len());
        forms
            .iter()
            .map(|form| size(form))
            .max()
            .unwrap_or(0)
            .saturating_add(size(self.differential.as_str()))
    }

    /// Makes the full backup, and removes the differential.
    ///
    /// # Errors
    /// [`Refused`], and where something cannot be read or written, or is damaged. Then the differential is as it was, and
    /// nothing else is left.
    pub fn run(&self, tools: &Tools) -> anyhow::Result<Done> {
        let differential = self.path(self.differential.as_str());
        let was = Identity::of(&differential)
            .with_context(|| format!("cannot look at {}", shown(&differential)))?;
        self.allowed()?;
        for (old, _) in self.beside().iter().filter(|(old, _)| !old.ends_with(".log")) {
            self.is_file(old)?;
        }
        if let Some(there) = self.taken()? {
            if there == self.full.as_str() && self.is_empty(&there) {
                // A killed program left it: where a file system cannot rename to a name that is still free, an empty file takes
                // the name first.
                fs::remove_file(self.path(&there))
                    .with_context(|| format!("cannot remove the empty {there}"))?;
            } else {
                return tools.made.all_or_nothing(|| self.finish(&there, was, tools));
            }
        }
        writing::has_room(&self.dir, self.both_sizes())?;
        tools.made.all_or_nothing(|| self.make(was, tools))
    }

    /// Looks for what has the new full backup's name, in any compression.
    fn taken(&self) -> anyhow::Result<Option<String>> {
        for form in full_forms(self.full.as_str()) {
            if self.is_there(&form)? {
                return Ok(Some(form));
            }
        }
        Ok(None)
    }

    /// Tells whether there is something of this name, whatever it is.
    fn is_there(&self, name: &str) -> anyhow::Result<bool> {
        Ok(self.look(name)?.is_some())
    }

    /// Tells whether there is a regular file of this name.
    ///
    /// # Errors
    /// Fails where there is something else.
    fn is_file(&self, name: &str) -> anyhow::Result<bool> {
        match self.look(name)? {
            Some(it) if !it.is_file() => {
                bail!(
                    "{name} is no regular file, so that it cannot be kept: put the file itself there, or remove it"
                )
            }
            it => Ok(it.is_some()),
        }
    }

    /// Looks at what has this name. Only where the file system says so, there is nothing: any other answer is none.
    fn look(&self, name: &str) -> anyhow::Result<Option<Metadata>> {
        match self.path(name).symlink_metadata() {
            Ok(it) => Ok(Some(it)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", shown(self.path(name)))),
        }
    }

    fn is_empty(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok_and(|it| it.is_file() && it.len() == 0)
    }

    /// Ends the work of a program that was killed, if the full backup of that name is what the differential restores to.
    fn finish(&self, there: &str, was: Identity, tools: &Tools) -> anyhow::Result<Done> {
        let taken = || Refused::Taken(there.to_owned());
        if there != self.full.as_str() {
            bail!(taken());
        }
        let path = self.path(there);
        // What the killed program wrote may be in memory only, and the differential is to go.
        let file = open(&path, Found::ByName).with_context(taken)?;
        writing::to_disk(&file).with_context(|| format!("cannot write {}", shown(&path)))?;
        writing::sync(&self.dir)?;
        let (new, old) = (Sum::default(), Sum::default());
        let stream = (tools.open)(&path, None).map_err(|error| error.context(taken()))?;
        let (bytes, content) = walk(new.of(stream, &tools.passed), self.full.format())
            .map_err(|error| error.context(taken()))?;
        let mut stream = old.of(self.restored(tools)?, &tools.passed);
        io::copy(&mut stream, &mut io::sink()).context("the differential cannot be restored")?;
        if new.get() != old.get() {
            bail!(taken());
        }
        let Copied { mut warnings, stay } = self.copy_beside(tools.made)?;
        writing::sync(&self.dir)?;
        tools.made.keep();
        warnings.extend(self.remove_differential(was, &stay)?);
        let stored = path.metadata().map_or(0, |it| it.len());
        Ok(Done { full: self.full.clone(), bytes, content, stored, warnings })
    }

    /// The content that the differential restores to. Reading it ends in an error unless it is proved to be whole.
    fn restored(&self, tools: &Tools) -> anyhow::Result<Box<dyn Read + Send>> {
        let base = self.path(self.differential.base().as_str());
        (tools.open)(&self.path(self.differential.as_str()), Some(&base))
            .map(|opened| opened as Box<dyn Read + Send>)
    }

    fn make(&self, was: Identity, tools: &Tools) -> anyhow::Result<Done> {
        let stem = self.full.as_str().strip_suffix(".zst").unwrap_or(self.full.as_str());
        let own = name_here(stem);
        let unfinished = self.path(&own);
        let undisturbed = || self.undisturbed(&own, was);
        let stream = self.restored(tools)?;
        let mut written = writing::write(&unfinished, self.full.format(), was, &undisturbed, stream, tools)?;
        undisturbed()?;
        let Copied { warnings, stay } = self.copy_beside(tools.made)?;
        written.warnings.extend(warnings);
        let target = self.path(self.full.as_str());
        // From here on a signal leaves both.
        if let Err(error) = tools.made.keep_after(|| rename_to_free(&unfinished, &target)) {
            match self.is_there(self.full.as_str()) {
                Ok(false) => {}
                // The copies belong to what has the name now. The differential is still there, so that the file is not needed.
                Ok(true) => {
                    tools.made.keep();
                    let _unimportant = fs::remove_file(&unfinished);
                }
                Err(_) => tools.made.keep(),
            }
            return Err(error).with_context(|| {
                format!("cannot rename {} to {}: the differential stays", shown(&unfinished), shown(&target))
            });
        }
        writing::sync(&self.dir)?;
        written.warnings.extend(self.remove_differential(was, &stay)?);
        // The file counts as being written until here.
        Ok(written.done(self.full.clone()))
    }

    /// Finds what happened since the file `own` was made: another node may have begun the same, or have done it. As both look
    /// after they have made their files, one at least sees the other's.
    fn undisturbed(&self, own: &str, was: Identity) -> anyhow::Result<()> {
        let directory =
            Directory::scan(&self.dir).with_context(|| format!("cannot read {}", shown(&self.dir)))?;
        writing::is_quiet(&directory, self.full.guest(), Some(own))?;
        if let Some(there) = self.taken()? {
            bail!(
                "{there} was made meanwhile, perhaps by another node: nothing was changed; the same command compares both"
            );
        }
        if Identity::of(&self.path(self.differential.as_str())).ok() != Some(was) {
            bail!("the differential was removed or replaced meanwhile: nothing was made of it");
        }
        Ok(())
    }

    /// The names of the files beside the differential, and what they are called beside the full backup.
    fn beside(&self) -> [(String, String); 3] {
        let old = BackupName::Differential(self.differential.clone());
        let new = BackupName::Full(self.full.clone());
        [
            (old.protected_name(), new.protected_name()),
            (old.notes_name(), new.notes_name()),
            (old.log_name(), new.log_name()),
        ]
    }

    /// Copies the mark of protection, the notes and the log, before the full backup has its name: it is never there without
    /// them. Only the log may be missing in the end.
    fn copy_beside(&self, made: &Made) -> anyhow::Result<Copied> {
        let mut all = Copied::default();
        for (old, new) in self.beside() {
            let copied = self.copy(&old, &new, made);
            match copied {
                Err(error) if old.ends_with(".log") => {
                    all.warnings.push(format!("the log {old} stays, as it could not be copied: {error:#}"));
                    all.stay.push(old);
                }
                copied => copied?,
            }
        }
        Ok(all)
    }

    fn copy(&self, old: &str, new: &str, made: &Made) -> anyhow::Result<()> {
        let (from, to) = (self.path(old), self.path(new));
        if !self.is_file(old)? {
            return Ok(());
        }
        let cannot = || format!("cannot copy {} to {}", shown(&from), shown(&to));
        let mut source = open(&from, Found::ByName).with_context(cannot)?;
        if self.is_there(new)? {
            if self.is_there(self.full.as_str())? {
                // It belongs to the full backup. A mark protects whatever is in it.
                if old.ends_with(".protected")
                    || (self.is_file(new)? && is_same(&from, &to).with_context(cannot)?)
                {
                    return Ok(());
                }
                bail!("{old} and {new} differ: put what is wanted of both into {new}, and remove {old}");
            }
            // The full backup itself is not there yet, so this is what a killed program left.
            fs::remove_file(&to).with_context(cannot)?;
        }
        let mut copy = made.file(&to).with_context(cannot)?;
        io::copy(&mut source, &mut copy).with_context(cannot)?;
        let _unimportant = Identity::of(&from).with_context(cannot)?.give(&copy);
        copy.sync_all().with_context(cannot)
    }

    /// Removes the differential, after the files beside it: if this is interrupted, the differential is still there, and the
    /// same command ends the work.
    fn remove_differential(&self, was: Identity, stay: &[String]) -> anyhow::Result<Vec<String>> {
        let path = self.path(self.differential.as_str());
        let left = || format!("{} is complete, but {} stays", self.full.as_str(), self.differential.as_str());
        if Identity::of(&path).ok() != Some(was) {
            bail!("{}: it was removed or replaced meanwhile", left());
        }
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        };
        for (old, _) in self.beside().iter().filter(|(old, _)| !stay.contains(old)) {
            gone(fs::remove_file(self.path(old))).with_context(left)?;
        }
        gone(fs::remove_file(&path)).with_context(left)?;
        Ok(writing::sync(&self.dir).err().map(|error| format!("{error:#}")).into_iter().collect())
    }
}

/// Tells how the files beside a differential (notes, protection, log) were copied to its full backup.
#[derive(Default)]
struct Copied {
    warnings: Vec<String>,
    /// The files that must not be removed with the differential, as there is no copy of them.
    stay: Vec<String>,
}

/// Compares two files.
fn is_same(one: &Path, other: &Path) -> anyhow::Result<bool> {
    let (mut one, mut other) = (open(one, Found::ByName)?, open(other, Found::ByName)?);
    let mut bytes = [[0; 1 << 13]; 2];
    loop {
        let read = [read_full(&mut one, &mut bytes[0])?, read_full(&mut other, &mut bytes[1])?];
        if bytes[0][..read[0]] != bytes[1][..read[1]] {
            return Ok(false);
        }
        if read[0] == 0 {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let name = "vzdump-lxc-100-2026_11_20-01_00_02.tar.lzo--differential-2026_11_21-01_00_02.vcdiff.lzo";
        let work = Work::new(dir.path(), &Differential::parse(name).unwrap()).unwrap();
        assert_eq!(work.full.as_str(), "vzdump-lxc-100-2026_11_21-01_00_02.tar.zst");
        assert!(writing::has_room(dir.path(), 1).is_ok());
        let refused = writing::has_room(dir.path(), u64::MAX / 2).unwrap_err();
        assert!(matches!(refused.downcast_ref(), Some(Refused::NoRoom { .. })), "{refused}");
    }
}
