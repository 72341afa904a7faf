//! The content of zstd files with a seek table: of fulls with a map ([`Mapped`]), and of copies ([`Streamed`]).
//!
//! Whoever reads on from frame to frame gets whole frames, which are decompressed ahead and proved by their checksums. Of a
//! full with a map, whoever reads here and there gets the fronts of frames, as far as is wanted: these have no checksum, but the
//! map has a fingerprint of each piece.

use std::io;
use std::sync::Arc;

use super::ahead::Ahead;
use crate::container::ReadAt;
use crate::container::seekable::{FrameReader, ReadOptions};
use crate::matching::map::{Entry, MapReader};

/// Bytes of the fronts of frames that are kept.
const FRONTS: usize = 16 << 20;
/// Reads of so many bytes and more are no reads here and there.
const LARGE: usize = 256 << 10;

/// Notes what is read of a file's frames; tells whether somebody reads on.
fn note(reader: &FrameReader, ahead: &Ahead, pos: u64, len: usize) -> bool {
    let file = reader.file();
    let last = file.frame_at((pos + len as u64).saturating_sub(1));
    file.content_of(last).is_some_and(|content| ahead.note(last, len as u64, content.into(), file.frames()))
}

/// A content of which frames are read ahead.
pub(super) struct Streamed {
    reader: Arc<FrameReader>,
    ahead: Ahead,
}

impl Streamed {
    /// Takes the reader of a file.
    pub fn new(reader: FrameReader) -> Streamed {
        let reader = Arc::new(reader);
        let loads = Arc::clone(&reader);
        // Who reads it will find what is wrong with it.
        Streamed { reader, ahead: Ahead::new(move |n| drop(loads.load(n))) }
    }
}

impl ReadAt for Streamed {
    fn size(&self) -> u64 {
        self.reader.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        note(&self.reader, &self.ahead, pos, buf.len());
        self.reader.read_at(pos, buf)
    }
}

/// The content of a full backup with a map.
pub(super) struct Mapped {
    map: Arc<MapReader>,
    fronts: FrameReader,
    ahead: Ahead,
}

impl Mapped {
    /// Takes a full backup that is open.
    pub fn new(map: Arc<MapReader>) -> Mapped {
        let options = ReadOptions { cache: FRONTS, checksums: true, fronts: true };
        let loads = Arc::clone(&map);
        Mapped {
            fronts: map.content().file().reader(options),
            map,
            ahead: Ahead::new(move |n| drop(loads.content().load(n))),
        }
    }

    /// Reads from the fronts of frames what the map's fingerprints prove; `None` where they do not prove all of it.
    fn read_fronts(&self, pos: u64, buf: &mut [u8]) -> Option<()> {
        let segment = self.map.get(self.map.segment_at(pos)).ok()?;
        let from = u32::try_from(pos.checked_sub(segment.start)?).ok()?;
        let end = from.checked_add(buf.len() as u32)?;
        let first = segment.entries.partition_point(|entry| entry.end() <= from);
        let last = segment.entries.partition_point(|entry| entry.at < end);
        let pieces = segment.entries.get(first..last)?;
        let (at, to) = (pieces.first()?.at, pieces.last()?.end());
        let joined = pieces.windows(2).all(|two| two[0].end() == two[1].at);
        if at > from || to < end || !joined {
            return None;
        }
        let mut bytes = vec![0; (to - at) as usize];
        let proved = self.fronts.read_fronts(segment.start + u64::from(at), &mut bytes).ok()?;
        let proves = |entry: &Entry| {
            let piece = &bytes[(entry.at - at) as usize..(entry.end() - at) as usize];
            self.map.secret().fingerprint(piece) == entry.fingerprint
        };
        if !proved && !pieces.iter().all(proves) {
            return None;
        }
        buf.copy_from_slice(&bytes[(from - at) as usize..(end - at) as usize]);
        Some(())
    }
}

impl ReadAt for Mapped {
    fn size(&self) -> u64 {
        self.map.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let whole = self.map.content();
        let reads_on = note(whole, &self.ahead, pos, buf.len());
        let is_small = !reads_on && (1..LARGE).contains(&buf.len());
        if is_small && (whole.read_kept(pos, buf) || self.read_fronts(pos, buf).is_some()) {
            return Ok(());
        }
        match whole.read_at(pos, buf) {
            // What lies before the damage in its frame can still be proved.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.read_fronts(pos, buf).ok_or(error)
            }
            read => read,
        }
    }
}
