//! Opens archives, full or differential, for the commands that read them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueHint};

use super::say::say;
use super::standard;
use crate::backup::names::{DIFFERENTIAL, full_forms};
use crate::backup::verify::Opened;
use crate::container::source::{self, Found, Refused};
use crate::container::{self, ByReading, read_full};
use crate::matching::base::{Base, Nature};
use crate::matching::restore::{self, Options, SharedBase};
use crate::matching::{Error, WINDOW};
use crate::text;
use crate::vcdiff::{self, AppHeader};

/// An archive that is to be read.
#[derive(Debug, PartialEq, Eq, Args)]
pub struct Archive {
    /// The archive, compressed or not, full or differential; - for standard input
    #[arg(id = "ARCHIVE", value_hint = ValueHint::FilePath)]
    pub(super) name: OsString,
    /// The full backup of a differential (default: found beside it, by its name FULL--differential-DATE.vcdiff...)
    #[arg(long, value_name = "FULL")]
    pub(super) base: Option<PathBuf>,
}

impl Archive {
    /// Writes its name for messages.
    pub(super) fn shown(&self) -> String {
        shown(&self.name)
    }
}

/// Returns the number of processors.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Opens the content of a backup that was found in a directory. `base` is the full backup of a differential.
///
/// # Errors
/// Fails as [`restore::open`] does.
pub fn open(path: &Path, base: Option<&Path>) -> anyhow::Result<Opened> {
    open_with(path, base, processors())
}

/// As [`open`], to be decoded by this many threads.
///
/// # Errors
/// Fails as [`restore::open`] does.
pub fn open_with(path: &Path, base: Option<&Path>, threads: usize) -> anyhow::Result<Opened> {
    Ok(Box::new(ByReading::new(open_found(path, base, Found::ByName, threads)?)))
}

/// Opens the full backup that several differentials need, to be read once for all of them. The result is `None` where each
/// must be decoded alone: the full has no map, or cannot be opened under this name.
pub fn open_shared(full: &Path) -> Option<Arc<SharedBase>> {
    Base::open_found(full, Found::ByName).ok().and_then(SharedBase::new)
}

fn open_found(
    path: &Path,
    base: Option<&Path>,
    found: Found,
    threads: usize,
) -> anyhow::Result<Box<dyn Read + Send>> {
    let options = Options { threads, window: WINDOW, check_base: true };
    let base = base.map(|base| move |header: &AppHeader| open_in_any_form(base, found, header));
    Ok(restore::open(path, base, found, options, |warning| {
        say!("{}: warning: {warning}", text::shown(path))
    })?)
}

/// Opens the content of a VM's backup; `-` is standard input. If the full backup of a differential is not given, it is
/// found by the differential's name.
///
/// # Errors
/// Fails as [`restore::open`] does, and where the full backup of a differential is not known.
pub fn open_named(name: &OsStr, base: Option<&Path>) -> anyhow::Result<Box<dyn Read>> {
    let shown = shown(name);
    if name == "-" {
        standard::is_fed()?;
    }
    let path = Path::new(if name == "-" { OsStr::new("/dev/stdin") } else { name });
    let (why, found, base) = match base {
        Some(base) => ("--base is given", Found::ByPerson, Some(base.to_owned())),
        None => ("it is named like one", Found::ByName, full_beside(Path::new(name)).ok()),
    };
    if let Some(base) = base {
        let opened =
            open_found(path, Some(&base), found, processors()).map_err(|error| match error.downcast_ref() {
                Some(Error::Delta { error: vcdiff::Error::NotVcdiff { .. } }) => {
                    anyhow!("{shown} is no differential, though {why}")
                }
                Some(Error::Delta { .. }) => error.context(shown.clone()),
                _ => error,
            });
        return no_tar(&shown, opened?);
    }
    let file = input(name, Found::ByPerson)?;
    let opened = container::decoder(Box::new(file)).and_then(|(_, stream)| beginning(stream));
    let (found, stream) = opened.with_context(|| format!("cannot read {shown}"))?;
    if found == Nature::Differential {
        bail!(
            "{shown} is a differential: its full backup is found by the name FULL--differential-DATE.vcdiff…, or \
             given with --base FULL"
        );
    }
    no_tar(&shown, stream)
}

/// Refuses a container's backup where a VM's is needed.
fn no_tar(shown: &str, stream: Box<dyn Read + Send>) -> anyhow::Result<Box<dyn Read>> {
    let (found, stream) = beginning(stream).with_context(|| format!("cannot read {shown}"))?;
    if found == Nature::Tar {
        bail!(
            "{shown} is a container's backup (a tar archive), not a VM's: tar -t lists it, tar -x unpacks it"
        );
    }
    Ok(stream)
}

/// Estimates the length in bytes of an archive's content by that of its full backup, where that can be told.
pub(super) fn expected(name: &OsStr, base: Option<&Path>) -> Option<u64> {
    let beside = full_beside(Path::new(name)).ok();
    container::content_size(base.or(beside.as_deref()).unwrap_or(Path::new(name)))
}

/// Writes the name of an archive for messages.
pub(super) fn shown(name: &OsStr) -> String {
    if name == "-" { "standard input".into() } else { text::shown(name) }
}

/// Tells by its first bytes what the content is, and returns it with all its bytes.
///
/// # Errors
/// Fails where the first bytes cannot be read.
pub(super) fn beginning(mut content: Box<dyn Read + Send>) -> io::Result<(Nature, Box<dyn Read + Send>)> {
    let mut bytes = vec![0; 512];
    let n = read_full(&mut content, &mut bytes)?;
    bytes.truncate(n);
    let found = Nature::of(&bytes);
    Ok((found, Box::new(io::Cursor::new(bytes).chain(content))))
}

/// Opens a full backup under its name, or under the same name with another extension, because it was compressed anew. Where
/// several are there, the first one is taken against which the differential with this header was made.
///
/// # Errors
/// Fails as [`Base::open_found`] does.
pub fn open_in_any_form(full: &Path, found: Found, header: &AppHeader) -> Result<Base, Error> {
    let name = full.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let forms = full_forms(name).into_iter().map(|form| full.with_file_name(form));
    let there: Vec<_> = forms.filter(|path| path.symlink_metadata().is_ok()).collect();
    if there.len() > 1 {
        let mut opened = there.iter().filter_map(|path| Base::open_found(path, found).ok());
        if let Some(base) = opened.find(|base| base.check(header).is_ok()) {
            return Ok(base);
        }
    }
    Base::open_found(there.first().map_or(full, PathBuf::as_path), found)
}

/// Opens a backup's file by its name; `-` is standard input.
///
/// # Errors
/// Fails as [`source::open`] does.
pub(super) fn input(name: &OsStr, found: Found) -> anyhow::Result<File> {
    let cannot = || format!("cannot open {}", shown(name));
    match (name.as_bytes(), found) {
        (b"-", _) => standard::input(),
        // A pipe is accepted as well.
        (_, Found::ByPerson) => File::open(name).with_context(cannot),
        (_, Found::ByName) => source::open(Path::new(name), found).map_err(|refused| match refused {
            Refused::Io(error) => anyhow::Error::new(error).context(cannot()),
            refused => anyhow!("{} {refused}", shown(name)),
        }),
    }
}

/// Finds the path of the full backup by a differential's name.
///
/// # Errors
/// Fails where the name is not that of a differential.
pub fn full_beside(differential: &Path) -> anyhow::Result<PathBuf> {
    let name = differential.file_name().unwrap_or_default().as_bytes();
    let Some(at) = memchr::memmem::find(name, DIFFERENTIAL.as_bytes()) else {
        bail!(
            "which full backup does {} need? Its name does not tell (FULL--differential-DATE.vcdiff…): give it with --base",
            text::shown(differential)
        );
    };
    Ok(differential.with_file_name(OsStr::from_bytes(&name[..at])))
}
