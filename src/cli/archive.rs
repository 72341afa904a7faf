//! Opening archives, full or differential, for the commands that read them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::container;
use crate::matching::restore::{self, Options};
use crate::matching::sliding::WINDOW;

/// What stands between the name of a full backup and the time of the differential.
const MARK: &[u8] = b"--differential-";

/// All processors.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The content of a backup; `base` is the full backup of a differential.
///
/// # Errors
/// See [`restore::open`].
pub fn open(path: &Path, base: Option<&Path>) -> anyhow::Result<Box<dyn Read + Send>> {
    let options = Options { threads: processors(), window: WINDOW, check_base: true };
    Ok(restore::open(path, base, options)?)
}

/// The content of a backup, whose full backup is found by its name; `-` is standard input.
///
/// # Errors
/// See [`restore::open`].
pub fn open_named(name: &OsStr) -> anyhow::Result<Box<dyn Read>> {
    if name == "-" {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        return Ok(container::decoder(Box::new(stdin))?.1);
    }
    Ok(open(Path::new(name), full_beside(Path::new(name)).ok().as_deref())?)
}

/// The full backup that a differential's name tells.
///
/// # Errors
/// Where the name is not that of a differential.
pub fn full_beside(differential: &Path) -> anyhow::Result<PathBuf> {
    let name = differential.file_name().unwrap_or_default().as_bytes();
    let Some(at) = name.windows(MARK.len()).position(|w| w == MARK) else {
        bail!(
            "which full backup does {} need? Its name does not tell (FULL--differential-DATE.vcdiff…): give it with --base",
            differential.display()
        );
    };
    Ok(differential.with_file_name(OsStr::from_bytes(&name[..at])))
}
