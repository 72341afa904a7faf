//! Opens backups to be read at any position, for the commands that look into them without restoring them.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::ValueHint;

use super::archive::{full_beside, open_in_any_form};
use super::progress::{Progress, Watched};
use super::say::say;
use crate::container::source::Found;
use crate::container::{ReadAt, content_size};
use crate::files::{self, Tree};
use crate::matching::base::{Nature, Stream};
use crate::matching::view::{Opening, Store, View};
use crate::matching::{BaseProblem, Error};
use crate::text::shown;
use crate::vcdiff::{self, AppHeader};
use crate::vma::{Device, Disk, Header, Index};

/// An archive that is to be looked into.
#[derive(Debug, PartialEq, Eq, clap::Args)]
pub struct Archive {
    /// The archive: a file, compressed or not, full or differential
    #[arg(id = "ARCHIVE", value_hint = ValueHint::FilePath)]
    pub(super) path: PathBuf,
    /// The full backup of a differential (default: found beside it, by its name FULL--differential-DATE.vcdiff...)
    #[arg(long, value_name = "FULL", value_hint = ValueHint::FilePath)]
    pub(super) base: Option<PathBuf>,
}

impl Archive {
    /// Writes its name for messages.
    pub(super) fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// Opens a backup; its full backup, if it is a differential whose full backup is not named, is found by its name. Where a file
/// must be read as a whole first, a bar shows that unless `quiet`.
///
/// # Errors
/// Fails as [`View::open`] does.
pub(super) fn open(path: &Path, base: Option<&Path>, quiet: bool) -> anyhow::Result<View> {
    open_found(path, base, Found::ByPerson, quiet)
}

fn open_found(path: &Path, base: Option<&Path>, found: Found, quiet: bool) -> anyhow::Result<View> {
    let bars = RefCell::new(Vec::new());
    let whole = |path: &Path, inner: Stream| -> Stream {
        let progress = Progress::new(!quiet, content_size(path));
        progress.at(&format!("reading {} once", shown(path.file_name().unwrap_or_default())), None);
        bars.borrow_mut().push(progress.clone());
        Box::new(Watched { inner, progress })
    };
    let view = open_watched(path, base, found, &whole);
    bars.into_inner().iter().for_each(Progress::end);
    view
}

/// Opens a backup as [`open`] does, and lets the caller watch. `found` says how its path was found. `whole` is called before a
/// file has to be read from its front to its end; it gets the stream, and returns one to read in its place.
pub(super) fn open_watched(
    path: &Path,
    base: Option<&Path>,
    found: Found,
    whole: &dyn Fn(&Path, Stream) -> Stream,
) -> anyhow::Result<View> {
    if path == Path::new("-") {
        bail!("standard input can be read only once, from its front: name a file");
    }
    let beside = full_beside(path).ok();
    let found = if base.is_none() && beside.is_some() { Found::ByName } else { found };
    let full = base.map(Path::to_owned).or(beside);
    let open_base = |header: &AppHeader| match &full {
        Some(full) => open_in_any_form(full, found, header),
        None => Err(Error::Base { path: path.to_owned(), problem: BaseProblem::Differential }),
    };
    let opening = Opening {
        store: &Store::of_user(),
        found,
        base: &open_base,
        whole,
        warn: &|warning| say!("{}: warning: {warning}", shown(path)),
    };
    let view = View::open(path, &opening);
    view.map_err(|error| match error {
        Error::Base { problem: BaseProblem::Differential, path: of } if of == path => anyhow!(
            "{} is a differential: its full backup is found by the name FULL--differential-DATE.vcdiff…, or given with \
             --base FULL",
            shown(path)
        ),
        // What is opened is told to be a full backup, as that is what mostly is.
        Error::Base { path: of, problem: BaseProblem::Io(source) } if of == path => {
            anyhow::Error::new(source).context(format!("cannot read {}", shown(path)))
        }
        error @ Error::Delta { error: vcdiff::Error::NotVcdiff { .. } } => {
            anyhow::Error::new(error).context(format!("{} is no differential", shown(path)))
        }
        error => anyhow::Error::new(error).context(shown(path)),
    })
}

/// The most bytes of headers that are kept, compressed: those of a million files. Larger archives are walked over each time.
const MAX_KEPT: u64 = 64 << 20;
/// The name under which they are kept.
const HEADERS: &str = "headers, zstd";

/// Opens the files of a container's backup: its content, and its members. They are kept for the next time.
///
/// # Errors
/// Fails as [`View::open`] does, and where the archive is not that of a container, or is damaged where its members are told.
pub(super) fn files(archive: &Archive, quiet: bool) -> anyhow::Result<(Arc<dyn ReadAt>, Tree)> {
    files_found(archive, Found::ByPerson, quiet)
}

/// As [`files`]. `found` tells how the path of the archive was found.
pub(super) fn files_found(
    archive: &Archive,
    found: Found,
    quiet: bool,
) -> anyhow::Result<(Arc<dyn ReadAt>, Tree)> {
    let view = Arc::new(open_found(&archive.path, archive.base.as_deref(), found, quiet)?);
    is_containers(&view, archive)?;
    let content = Arc::clone(&view) as Arc<dyn ReadAt>;
    if let Some(tree) = kept(&view) {
        return Ok((content, tree));
    }
    let progress = Progress::new(!quiet, Some(view.size()));
    progress.at(&format!("reading the names in {}", archive.shown()), None);
    let tree = read_names(&view, &|pos| progress.reached(pos));
    progress.end();
    Ok((content, tree.with_context(|| archive.shown())?))
}

/// Refuses what is no container's backup.
///
/// # Errors
/// Fails where it is none.
pub(super) fn is_containers(view: &View, archive: &Archive) -> anyhow::Result<()> {
    match view.nature() {
        Nature::Tar => Ok(()),
        Nature::Vma => bail!("{} is a VM's backup, not a container's: see pve-xdelta3 vma", archive.shown()),
        _ => bail!("{} is no container's backup (no tar archive)", archive.shown()),
    }
}

/// Finds the members that an earlier look has kept.
pub(super) fn kept(view: &View) -> Option<Tree> {
    let kept = view.load(&Store::of_user(), HEADERS, MAX_KEPT)?;
    let headers = zstd::Decoder::new(io::Cursor::new(kept)).ok()?;
    files::read(headers, view.size(), view.stored()).ok()
}

/// Reads the members of an archive, and keeps them for the next time if they are not too many. `reached` is told the positions
/// that are read.
///
/// # Errors
/// Fails where the archive is damaged where its members are told.
pub(super) fn read_names(view: &View, reached: &(dyn Fn(u64) + Sync)) -> Result<Tree, files::Error> {
    let counted = Counted { content: view, reached };
    let Ok(mut kept) = zstd::Encoder::new(Kept(Some(Vec::new())), 1) else {
        return files::walk(&counted, view.stored(), io::sink());
    };
    let tree = files::walk(&counted, view.stored(), &mut kept)?;
    if let Some(kept) = kept.finish().ok().and_then(|kept| kept.0) {
        view.save(&Store::of_user(), HEADERS, &kept);
    }
    Ok(tree)
}

/// Compressed headers in memory; none once they were too many.
struct Kept(Option<Vec<u8>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let kept = self.0.as_mut().filter(|kept| (kept.len() + bytes.len()) as u64 <= MAX_KEPT);
        match kept {
            Some(kept) => kept.extend_from_slice(bytes),
            None => {
                self.0 = None;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells how far a content is read.
struct Counted<'a> {
    content: &'a dyn ReadAt,
    reached: &'a (dyn Fn(u64) + Sync),
}

impl ReadAt for Counted<'_> {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        (self.reached)(pos);
        self.content.read_at(pos, buf)
    }
}

/// The disks of a VM's backup.
pub(super) struct Disks {
    pub header: Header,
    pub disks: Vec<Disk>,
}

/// Opens the disks of a VM's backup.
///
/// # Errors
/// Fails as [`View::open`] does, and where the archive is not that of a VM, is damaged where its clusters are told, or lacks some.
pub(super) fn disks(archive: &Archive, quiet: bool) -> anyhow::Result<Disks> {
    let view = open(&archive.path, archive.base.as_deref(), quiet)?;
    if view.nature() == Nature::Tar {
        bail!("{} is a container's backup (a tar archive), not a VM's: see pve-xdelta3 tar", archive.shown());
    }
    let view = Arc::new(view);
    let peeking = view.headers().with_context(|| archive.shown())?;
    let (header, len) = Header::read_at(&peeking).with_context(|| archive.shown())?;
    let clusters = header.devices.iter().map(Device::clusters).fold(0, u64::saturating_add);
    let index = || Index::new(header.clone(), view.size(), view.stored()).with_context(|| archive.shown());
    let mut told = index()?;
    let mut wrong = None;
    let ends = view.clusters(clusters, |at, cluster| {
        if let Err(error) = told.insert(at, cluster) {
            wrong.get_or_insert(error);
        }
    });
    let ends = ends.with_context(|| archive.shown())?;
    if ends == Some((len, view.size())) {
        if let Some(error) = wrong {
            return Err(anyhow::Error::new(error).context(archive.shown()));
        }
    } else {
        // One of them at a time, as each takes memory for all clusters.
        drop(told);
        told = index()?;
        told.walk(&peeking, len).with_context(|| archive.shown())?;
    }
    drop(peeking);
    let content = Arc::clone(&view) as Arc<dyn ReadAt>;
    let disks = told.finish(content).with_context(|| archive.shown())?;
    Ok(Disks { header, disks })
}
