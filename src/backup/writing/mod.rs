//! Writes a full backup that takes the place of another backup: what [`consolidate`](super::consolidate) and
//! [`add_map`](super::add_map) share.
//!
//! Nothing that is there is touched here. The new file has the name of an unfinished backup until it was read back from the
//! disk, and is what it was made of.

mod identity;
mod sum;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{Advice, fadvise, statvfs};

pub(super) use self::identity::Identity;
pub use self::sum::Passed;
pub(super) use self::sum::Sum;
use super::chain::Directory;
use super::names::{Format, Full, Guest};
use super::unfinished::{self, State, Unfinished};
use super::verify::{Content, Open, walk};
use crate::text::shown;
use crate::vma::Made;

/// The room that is left free beside the expected size of the new full backup, in bytes.
const SPARE: u64 = 16 << 20;

/// Compresses a stream into a file as a full backup with a map.
pub type Compress<'a> = &'a dyn Fn(Box<dyn Read + Send>, File) -> anyhow::Result<()>;

/// What the work needs of the delta engine and of the terminal.
pub struct Tools<'a> {
    /// Opens backups. It reads an unfinished file as a full backup, too.
    pub open: Open<'a>,
    /// Compresses.
    pub compress: Compress<'a>,
    /// Tells whether a full backup has a map.
    pub has_map: &'a dyn Fn(&Path) -> anyhow::Result<bool>,
    /// Refuses a full backup, the first path, that a differential, the second one, was not made against.
    pub fits: &'a dyn Fn(&Path, &Path) -> anyhow::Result<()>,
    /// Is called with the number of bytes whenever some were read. Each backup is read twice, or both once.
    pub passed: Passed,
    /// The files that are removed unless the work comes to its end, also where a signal ends the program.
    pub made: &'a Made,
}

/// Why a differential is not consolidated, as far as that is known before anything is read.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its full backup is not there.
    #[error(
        "its full backup {0} is not there, so that nothing can be restored from it: put it back, beside the differential"
    )]
    NoFull(String),
    /// A backup of the guest is being made.
    #[error("a backup of this guest is being made ({0}): try again when it is done")]
    Busy(String),
    /// There is an unfinished backup of which this node cannot tell whether somebody writes it.
    #[error("{file} is {advice}")]
    Unknown {
        /// The name of the unfinished backup.
        file: String,
        /// What to do about it.
        advice: String,
    },
    /// Another backup has the name.
    #[error("there is {0} already, of the same time, which is no copy of it: nothing was changed")]
    Taken(String),
    /// There is not enough room.
    #[error(
        "the full backup may take {needed} bytes, as its full and the differential do together, and {free} are free: make room, \
         or move the chain elsewhere"
    )]
    NoRoom {
        /// The number of bytes that it may take.
        needed: u64,
        /// The number of bytes that are free.
        free: u64,
    },
}

/// A full backup that was made of a differential.
#[derive(Debug)]
pub struct Done {
    /// Its name.
    pub full: Full,
    /// The length of its content in bytes.
    pub bytes: u64,
    /// What it consists of.
    pub content: Content,
    /// The size of its file in bytes.
    pub stored: u64,
    /// What could not be done although the backup is whole.
    pub warnings: Vec<String>,
}

/// Refuses work on a guest's backups while one of them is being made, or may be. `own` is a file of our own among the
/// unfinished ones.
///
/// # Errors
/// [`Refused::Busy`] and [`Refused::Unknown`].
pub(super) fn is_quiet(directory: &Directory, guest: Guest, own: Option<&str>) -> anyhow::Result<()> {
    let of_guest = directory.leftovers.iter().filter(|left| left.file.guest == guest);
    for left in of_guest.filter(|left| own != Some(left.file.name.as_str())) {
        let file = left.file.name.clone();
        match left.state {
            State::Left => {}
            State::Written => bail!(Refused::Busy(file)),
            State::Unknown => {
                let advice = left.advice(&directory.path).unwrap_or_default();
                bail!(Refused::Unknown { file, advice })
            }
        }
    }
    Ok(())
}

/// Compares the room that a full backup may take with what is free.
///
/// # Errors
/// [`Refused::NoRoom`].
pub(super) fn has_room(dir: &Path, needed: u64) -> anyhow::Result<()> {
    let found = statvfs(dir).with_context(|| format!("cannot tell what is free in {}", shown(dir)))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    // Some network file systems tell nothing.
    if found.f_blocks > 0 && free < needed.saturating_add(SPARE) {
        bail!(Refused::NoRoom { needed, free });
    }
    Ok(())
}

/// A full backup that was written and read back, under the name of an unfinished one.
pub(super) struct Written {
    /// As long as it is open, it counts as being written.
    _file: File,
    bytes: u64,
    content: Content,
    stored: u64,
    pub warnings: Vec<String>,
}

impl Written {
    /// Ends the work: the file has the name of this full backup now.
    pub fn done(self, full: Full) -> Done {
        let Written { bytes, content, stored, warnings, .. } = self;
        Done { full, bytes, content, stored, warnings }
    }
}

/// Writes `stream` to `unfinished` as a full backup with a map, gives it the owner, permissions and time of `was`, and reads
/// it back. `undisturbed` is called as soon as the file is there, which others see then.
///
/// # Errors
/// Fails where something cannot be read or written, where the stream is no whole archive, and where what is read back is not
/// what was written; and as `undisturbed` does.
pub(super) fn write(
    unfinished: &Path,
    format: Format,
    was: Identity,
    undisturbed: &dyn Fn() -> anyhow::Result<()>,
    stream: Box<dyn Read + Send>,
    tools: &Tools,
) -> anyhow::Result<Written> {
    let file = claim(unfinished, tools.made)?;
    undisturbed()?;
    let cannot = || format!("cannot write {}", shown(unfinished));
    let given = Sum::default();
    (tools.compress)(Box::new(given.of(stream, &tools.passed)), file.try_clone().with_context(cannot)?)?;
    let warnings = was.give(&file);
    to_disk(&file).with_context(cannot)?;
    let (bytes, content) = read_back(unfinished, format, given.get(), tools)?;
    let stored = file.metadata().map_or(0, |it| it.len());
    Ok(Written { _file: file, bytes, content, stored, warnings })
}

/// Makes sure that a file is on the disk, and that what is read of it next comes from there, not from memory.
pub(super) fn to_disk(file: &File) -> io::Result<()> {
    file.sync_all()?;
    let _ = fadvise(file, 0, None, Advice::DontNeed);
    Ok(())
}

/// Makes the file under the name of an unfinished backup. What a killed program of this node left there is replaced.
fn claim(path: &Path, made: &Made) -> anyhow::Result<File> {
    let cannot = || format!("cannot make {}", shown(path));
    match made.file(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        result => return result.with_context(cannot),
    }
    let name = path.file_name().and_then(|it| it.to_str()).and_then(Unfinished::parse);
    let is_left = unfinished::look_at(name.into_iter().collect()).iter().any(|it| it.state == State::Left);
    if !is_left {
        bail!(Refused::Busy(shown(path.file_name().unwrap_or_default())));
    }
    fs::remove_file(path).with_context(cannot)?;
    made.file(path).with_context(cannot)
}

/// Reads what was written, and compares it with what it was made of.
fn read_back(
    path: &Path,
    format: Format,
    given: (u64, u128),
    tools: &Tools,
) -> anyhow::Result<(u64, Content)> {
    let unreadable = "what was written cannot be read back";
    if !(tools.has_map)(path).context(unreadable)? {
        bail!("what was written has no map, so that no differential could be made against it");
    }
    let sum = Sum::default();
    let stream = (tools.open)(path, None).context(unreadable)?;
    let (bytes, content) = walk(sum.of(stream, &tools.passed), format)
        .context("what it holds is no whole archive, so that no full backup is made of it")?;
    if sum.get() != given || bytes != given.0 {
        bail!(
            "what was read back from {} is not what was written: its disk or memory is not to be trusted",
            shown(path)
        );
    }
    Ok((bytes, content))
}

/// Makes sure that the names in a folder are on the disk.
///
/// # Errors
/// Fails where the folder cannot be written.
pub(super) fn sync(dir: &Path) -> anyhow::Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    match synced {
        // Not all file systems know that.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        synced => synced.with_context(|| format!("cannot write the folder {}", shown(dir))),
    }
}
