//! A backup's content at any position, full or differential, without restoring it.
//!
//! [`View::open`] takes the file of a backup. What can be read at any position is read where it lies: fulls with a map,
//! lzop, raw. What can be read from its front only (zstd as vzdump itself makes it, gzip, xz) has no place to begin at, so
//! it is read once, and a copy that can be read at any position is kept in a cache of the user's (`copy`). Of a
//! differential the windows are kept there, and indexed by the positions of the target that they rebuild (`windows`).
//! Frames are decompressed as far as is needed (`frames`), and ahead of whoever reads on (`ahead`).
//!
//! What is read is proved by the checksums that the backup has: those of frames of the base and of copies, and of windows. An
//! uncompressed full has none, nor has a window that was made without. Only [`View::peek`] leaves the windows' out of account,
//! for readers of what proves itself.

mod ahead;
mod copy;
mod frames;
mod headers;
mod windows;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use copy::Store;

use self::copy::Identity;
use self::frames::Mapped;
use self::headers::Headers;
use self::windows::{Streaming, Windows};
use super::base::{Access, Base, Nature, Stream};
use super::map::MapReader;
use super::{BaseProblem, Error};
use crate::container::ReadAt;
use crate::container::seekable::ReadOptions;
use crate::container::source::Found;
use crate::vcdiff::AppHeader;
use crate::vma::Cluster;

/// Bytes of decompressed content that are kept: of a full backup, and of copies.
const FULL: usize = 48 << 20;
const COPY: usize = 16 << 20;

/// How a backup is opened.
pub struct Opening<'a> {
    /// Where copies are kept.
    pub store: &'a Store,
    /// How the path of the backup, and that of its base, was found.
    pub found: Found,
    /// Opens the base that a differential with this header needs.
    pub base: &'a dyn Fn(&AppHeader) -> Result<Base, Error>,
    /// Is told before a file is read as a whole, and gets the stream that will be read, for instance to count its bytes.
    pub whole: &'a dyn Fn(&Path, Stream) -> Stream,
    /// Is told what was not checked.
    pub warn: &'a dyn Fn(String),
}

/// The content of a backup, which can be read at any position by several threads at once.
pub struct View {
    content: Content,
    nature: Nature,
    /// What identifies the file.
    identity: Identity,
    /// Length in bytes of the file, and of the base's.
    stored: u64,
}

enum Content {
    /// A full backup, and its map where it has one.
    Full(Arc<dyn ReadAt>, Option<Arc<MapReader>>),
    Windows(Streaming),
}

/// A content that can be read at any position, and what is known of it.
struct Readable {
    path: PathBuf,
    content: Arc<dyn ReadAt>,
    map: Option<Arc<MapReader>>,
    /// Length of the file in bytes.
    stored: u64,
    /// Whether its own checksums prove everything that is read of it.
    proved: bool,
}

impl View {
    /// Opens a backup.
    ///
    /// # Errors
    /// Fails where the file, or the base of a differential, cannot be opened, is damaged as far as that shows, or is not the
    /// one that the differential needs; and where no copy can be made of what can be read from its front only.
    pub fn open(path: &Path, opening: &Opening) -> Result<View, Error> {
        let file = Base::open_found(path, opening.found)?;
        let identity = Identity::of(&file).map_err(|source| Error::base(path, BaseProblem::Io(source)))?;
        if file.nature != Nature::Differential {
            let nature = file.nature;
            let Readable { content, map, stored, .. } = readable(file, opening)?;
            return Ok(View { content: Content::Full(content, map), nature, identity, stored });
        }
        let windows = Windows::open(file, opening)?;
        let stored = windows.stored();
        let content = Content::Windows(Streaming::new(windows));
        let mut view = View { content, nature: Nature::Other, identity, stored };
        let mut front = vec![0; view.size().min(512) as usize];
        // What it is shows even where the first window is damaged; whoever reads it finds that out.
        view.peek(0, &mut front).map_err(|source| {
            let what = "cannot read the beginning of what the differential restores".into();
            Error::Io { what, source }
        })?;
        view.nature = Nature::of(&front);
        Ok(view)
    }

    /// Tells what the content is.
    pub fn nature(&self) -> Nature {
        self.nature
    }

    /// Tells how long the file is in bytes, together with the base's: no honest content takes much more memory.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Reads what [`View::save`] kept under this name, if it has at most `most` bytes.
    pub fn load(&self, store: &Store, name: &str, most: u64) -> Option<Vec<u8>> {
        store.load(&self.identity, name, most)
    }

    /// Keeps something that was learned of this file, to be used the next time. Where that fails, nothing is kept.
    pub fn save(&self, store: &Store, name: &str, bytes: &[u8]) {
        store.save(&self.identity, name, bytes);
    }

    /// Reads as [`ReadAt::read_at`] does, but without the checksums of windows: a reader who needs a few bytes here and there
    /// need not wait until whole windows are rebuilt. It is for bytes that have a checksum of their own.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn peek(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.content {
            Content::Windows(windows) => windows.windows().peek(pos, buf),
            _ => self.read_at(pos, buf),
        }
    }

    /// Calls a function with every cluster of a VM's full backup, and the position of its blocks, where its map tells. The
    /// result is the position at which the first extent begins, and that at which the last one ends; `None` where the map
    /// does not tell, or tells only a part.
    ///
    /// # Errors
    /// Fails where the map is damaged.
    pub fn clusters(
        &self,
        most: u64,
        mut each: impl FnMut(u64, Cluster),
    ) -> Result<Option<(u64, u64)>, Error> {
        let Content::Full(_, Some(map)) = &self.content else { return Ok(None) };
        let first = map.each_slots(most, |slots| {
            for n in 0..slots.count() {
                let mut at = slots.extents[n].at + crate::vma::EXTENT_HEADER as u64;
                for slot in slots.of(n) {
                    each(at, *slot);
                    at += slot.data_len() as u64;
                }
            }
        })?;
        Ok(first.map(|first| (first, map.size())))
    }

    /// Prepares for peeks at the headers of all extents of a VM's differential: those of its base are then known without
    /// reading them. It takes memory until the result is dropped.
    ///
    /// # Errors
    /// Fails where the map of the base is damaged.
    pub fn headers(&self) -> Result<Peeking<'_>, Error> {
        let headers = match &self.content {
            Content::Windows(windows) => windows.windows().headers()?,
            _ => None,
        };
        Ok(Peeking { view: self, headers })
    }
}

/// Peeks at a view; see [`View::headers`].
pub struct Peeking<'a> {
    view: &'a View,
    headers: Option<Headers>,
}

impl ReadAt for Peeking<'_> {
    fn size(&self) -> u64 {
        self.view.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        match (&self.view.content, &self.headers) {
            (Content::Windows(windows), Some(headers)) => windows.windows().peek_with(headers, pos, buf),
            _ => self.view.peek(pos, buf),
        }
    }
}

impl ReadAt for View {
    fn size(&self) -> u64 {
        match &self.content {
            Content::Full(content, _) => content.size(),
            Content::Windows(windows) => windows.windows().size(),
        }
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.content {
            Content::Full(content, _) => content.read_at(pos, buf),
            Content::Windows(windows) => windows.read_at(pos, buf),
        }
    }
}

/// Makes the content of a full backup readable at any position.
fn readable(base: Base, opening: &Opening) -> Result<Readable, Error> {
    let options = ReadOptions { cache: FULL, checksums: true, fronts: false };
    let (path, stored) = (base.path.clone(), base.stored());
    if base.is_one_way() {
        let content = Arc::new(opening.store.copy_of(&base, opening)?.streamed(FULL));
        return Ok(Readable { path, content, map: None, stored, proved: true });
    }
    Ok(match base.access {
        Access::Mapped(map) => {
            let map = Arc::new(map.reader(options));
            let content = Arc::new(Mapped::new(Arc::clone(&map)));
            Readable { path, content, map: Some(map), stored, proved: true }
        }
        Access::Random(content) => {
            Readable { path, content: Arc::new(content.reader(options)), map: None, stored, proved: false }
        }
        Access::OneWay(_) => unreachable!("it was copied"),
    })
}
