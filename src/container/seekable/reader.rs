//! Reading the content of a zstd file with a seek table.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::frame::{FrameContent, decode_whole};
use super::invalid;
use super::table::Seekable;
use crate::container::cache::{Cache, Value};
use crate::container::extent::Extent;
use crate::container::read_at::ReadAt;

/// How the content of a zstd file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// How many bytes of decompressed content are kept.
    pub cache: usize,
    /// Whether the checksums of frames are verified. It is not needed where the reader checks what he makes of the content;
    /// if his check fails, [`FrameReader::verify`] tells whether the file is to blame.
    pub checksums: bool,
    /// Whether a frame is decompressed only as far as it is read. Its checksum, which comes last, is verified only where
    /// the reading goes to its end.
    pub fronts: bool,
}

impl Default for ReadOptions {
    /// 32 MiB are kept, checksums are verified, and frames are decompressed to their ends.
    fn default() -> ReadOptions {
        ReadOptions { cache: 32 << 20, checksums: true, fronts: false }
    }
}

/// Reads the content of a zstd file with a seek table, and keeps decompressed frames. Several threads may use it at once.
pub struct FrameReader {
    file: Arc<Seekable>,
    options: ReadOptions,
    cache: Cache<FrameContent>,
}

impl Seekable {
    /// Opens the content for reading.
    pub fn reader(self: &Arc<Self>, options: ReadOptions) -> FrameReader {
        FrameReader { file: Arc::clone(self), options, cache: Cache::new(options.cache) }
    }

    /// Decompresses data frame `n`, and verifies its checksum.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` where it is damaged.
    pub fn decode(&self, n: usize) -> io::Result<Vec<u8>> {
        let frame = self.frames.get(n).ok_or_else(|| invalid("no such frame"))?;
        let mut bytes = vec![0; frame.content as usize];
        decode_whole(&self.file, frame, &mut bytes[..], true)?;
        Ok(bytes)
    }
}

/// The frame that a thread read from last. To look there first is quicker than to search the cache.
#[derive(Default)]
pub struct LastFrame(Option<(u64, Arc<FrameContent>)>);

impl LastFrame {
    /// Fills `buf` with the content from `pos` on, if the frame has all of it.
    fn read(&self, pos: u64, buf: &mut [u8]) -> Option<()> {
        let (start, content) = self.0.as_ref()?;
        let at = usize::try_from(pos.checked_sub(*start)?).ok()?;
        buf.copy_from_slice(content.get(&(at..at.checked_add(buf.len())?))?);
        Some(())
    }
}

/// A part of a frame's content, which stays in memory as long as this does.
pub struct Held {
    content: Arc<FrameContent>,
    range: Range<usize>,
}

impl Held {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // They were there when this was made, and a frame that somebody holds is not changed.
        self.content.get(&self.range).unwrap_or_default()
    }

    /// Adds what follows directly behind this part in the same frame, if `next` does. Tells whether it did.
    pub fn join(&mut self, next: &Held) -> bool {
        let joined = self.range.start..next.range.end;
        let follows =
            self.is_of_frame(next) && self.range.end == next.range.start && self.content.holds(&joined);
        if follows {
            self.range = joined;
        }
        follows
    }

    /// Whether both keep the same frame in memory.
    pub fn is_of_frame(&self, other: &Held) -> bool {
        Arc::ptr_eq(&self.content, &other.content)
    }

    /// Tells which frame it keeps in memory, by a number that is that frame's as long as anybody holds it.
    pub fn frame(&self) -> usize {
        Arc::as_ptr(&self.content).addr()
    }

    /// Bytes of memory that it keeps from being used for other things.
    pub fn weight(&self) -> usize {
        self.content.weight()
    }
}

impl FrameReader {
    /// Finds the content of an extent, and passes its parts to `sink`, in order, without copying them.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn hold(&self, extent: Extent, last: &mut LastFrame, sink: &mut impl FnMut(Held)) -> io::Result<()> {
        if extent.pos.checked_add(extent.len).is_none_or(|end| end > self.file.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((start, content)) = &last.0
            && let Some(at) = extent.pos.checked_sub(*start).and_then(|at| usize::try_from(at).ok())
            && let Some(range) = at.checked_add(extent.len as usize).map(|end| at..end)
            && content.holds(&range)
        {
            sink(Held { content: Arc::clone(content), range });
            return Ok(());
        }
        for (n, range) in self.file.frames_with(extent) {
            // A frame can only be decompressed further while nobody else holds it.
            *last = LastFrame::default();
            let content = self.frame(n, range.clone())?;
            if !content.holds(&range) {
                return Err(invalid(format!("frame {n} of the zstd file is too short")));
            }
            *last = LastFrame(Some((self.file.frames[n].start, Arc::clone(&content))));
            sink(Held { content, range });
        }
        Ok(())
    }

    /// Reads as [`ReadAt::read_at`] does. It is quicker for a thread that reads many places close to one another, and
    /// passes the same `last` each time.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn read_near(&self, pos: u64, mut buf: &mut [u8], last: &mut LastFrame) -> io::Result<()> {
        if last.read(pos, buf).is_some() {
            return Ok(());
        }
        // A frame can only be decompressed further while nobody else holds it.
        *last = LastFrame::default();
        if pos.checked_add(buf.len() as u64).is_none_or(|end| end > self.file.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (n, range) in self.file.frames_with(Extent::new(pos, buf.len() as u64)) {
            let (now, later) = buf.split_at_mut(range.len());
            let frame = &self.file.frames[n];
            if now.len() == frame.content as usize && self.cache.passes_by(n as u64) {
                decode_whole(&self.file.file, frame, now, self.options.checksums)?;
            } else {
                let content = self.frame(n, range.clone())?;
                let bytes = content
                    .get(&range)
                    .ok_or_else(|| invalid(format!("frame {n} of the zstd file is too short")))?;
                now.copy_from_slice(bytes);
                *last = LastFrame(Some((frame.start, content)));
            }
            buf = later;
        }
        Ok(())
    }

    /// Reads what is kept decompressed. The result is `false` where not all of it is.
    pub fn read_kept(&self, pos: u64, mut buf: &mut [u8]) -> bool {
        for (n, range) in self.file.frames_with(Extent::new(pos, buf.len() as u64)) {
            let Some(content) = self.cache.peek(n as u64, &range) else { return false };
            let (now, later) = buf.split_at_mut(range.len());
            match content.get(&range) {
                Some(bytes) => now.copy_from_slice(bytes),
                None => return false,
            }
            buf = later;
        }
        buf.is_empty()
    }

    /// Reads with [`ReadOptions::fronts`]. The result tells whether all frames were decompressed to their ends, so that their
    /// checksums prove what was read.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn read_fronts(&self, pos: u64, mut buf: &mut [u8]) -> io::Result<bool> {
        let mut proved = true;
        for (n, range) in self.file.frames_with(Extent::new(pos, buf.len() as u64)) {
            let content = self.frame(n, range.clone())?;
            proved &= content.is_complete();
            let (now, later) = buf.split_at_mut(range.len());
            let bytes = content.get(&range);
            now.copy_from_slice(
                bytes.ok_or_else(|| invalid(format!("frame {n} of the zstd file is too short")))?,
            );
            buf = later;
        }
        if buf.is_empty() { Ok(proved) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Decompresses a frame for those who will read it next.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn load(&self, n: usize) -> io::Result<()> {
        match self.file.frames.get(n) {
            Some(frame) => self.frame(n, 0..frame.content as usize).map(drop),
            None => Ok(()),
        }
    }

    /// The file that is read.
    pub fn file(&self) -> &Arc<Seekable> {
        &self.file
    }

    /// Announces that turn `turn` will read these extents. Turns are announced in order; a turn is over when
    /// [`FrameReader::passed`] says so. What will be read soonest is then kept longest. Without announcements everything
    /// is read right too, only slower.
    pub fn expect(&self, turn: u64, extents: &[Extent]) {
        let wanted = extents.iter().flat_map(|extent| self.file.frames_with(*extent));
        self.cache.expect(turn, wanted.map(|(n, range)| (n as u64, range)));
    }

    /// Tells that turn `turn` and those before it are over.
    pub fn passed(&self, turn: u64) {
        self.cache.passed(turn);
    }

    /// Verifies the checksums of the frames that hold this extent.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn verify(&self, extent: Extent) -> io::Result<()> {
        let mut memory = Vec::new();
        for (n, _) in self.file.frames_with(extent) {
            let frame = &self.file.frames[n];
            memory.resize(frame.content as usize, 0);
            decode_whole(&self.file.file, frame, &mut memory[..], true)?;
        }
        Ok(())
    }

    /// The content of frame `n`, which holds `range` of it at least.
    pub(super) fn frame(&self, n: usize, range: Range<usize>) -> io::Result<Arc<FrameContent>> {
        let (file, frame) = (&self.file.file, &self.file.frames[n]);
        let whole = frame.content as usize;
        self.cache.get(n as u64, range, |had, end| {
            let mut content = match had {
                Some(content) if content.continues(n) => content,
                had => FrameContent::begin(n, whole, had, self.options.checksums)?,
            };
            content.decode_to(file, frame, if self.options.fronts { end } else { whole })?;
            Ok(content)
        })
    }
}

impl ReadAt for FrameReader {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_near(pos, buf, &mut LastFrame::default())
    }
}
