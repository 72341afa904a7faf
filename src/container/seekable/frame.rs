//! Decompressing a frame, as far as is needed, and the bytes of it that are kept.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, WriteBuf, get_error_name};

use super::invalid;
use super::table::Frame;
use crate::container::cache::Value;

/// Bytes at the front of a frame that tell how many bytes the decompressor wants next.
const FRAME_START: usize = 5;
/// Bytes that the cache needs for a frame beside its content.
const SLOT: usize = 256;

/// A frame that is being decompressed block by block.
struct Decoder {
    zstd: DCtx<'static>,
    /// Compressed bytes that were read so far.
    read: usize,
    /// Bytes of content that they gave.
    done: usize,
    /// How many compressed bytes the decompressor wants next; none where it is between two frames.
    next: usize,
}

impl Decoder {
    /// Begins a frame. Its checksum is verified at its end, if `check`.
    fn new(check: bool) -> io::Result<Decoder> {
        let failed = |e| io::Error::other(get_error_name(e));
        let mut zstd = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        zstd.set_parameter(DParameter::ForceIgnoreChecksum(!check)).map_err(failed)?;
        // The content is decompressed to where it stays.
        zstd.set_parameter(DParameter::StableOutBuffer(true)).map_err(failed)?;
        Ok(Decoder { zstd, read: 0, done: 0, next: 0 })
    }

    /// Decompresses what follows in the frame, up to `end` at least. `out` has room for all of the frame, and must be the
    /// same each time. The result tells whether the frame is complete.
    fn decode<C: WriteBuf + ?Sized>(
        &mut self,
        file: &File,
        frame: &Frame,
        out: &mut C,
        end: usize,
    ) -> io::Result<bool> {
        let damaged =
            |found: String| invalid(format!("the zstd frame at byte {} of the file {found}", frame.offset));
        let (content, compressed) = (frame.content as usize, frame.compressed as usize);
        let mut out = OutBuffer::around_pos(out, self.done);
        let mut raw = Vec::new();
        // Where all of the content is wanted, this goes on to the end of the frame, where its checksum is.
        while self.read < compressed && (out.pos() < end || end == content) {
            // In a file of another program, one entry of the seek table may stand for several frames.
            let wanted = if self.next == 0 { FRAME_START } else { self.next };
            raw.resize(wanted.min(compressed - self.read), 0);
            file.read_exact_at(&mut raw, frame.offset + self.read as u64).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        let text = format!(
                            "the file was cut short: its zstd frame at byte {} is not there",
                            frame.offset
                        );
                        io::Error::new(error.kind(), text)
                    }
                    _ => error,
                }
            })?;
            let mut input = InBuffer::around(&raw);
            let next = self.zstd.decompress_stream(&mut out, &mut input);
            self.next = next.map_err(|e| damaged(format!("is damaged ({})", get_error_name(e))))?;
            self.read += input.pos();
        }
        self.done = out.pos();
        match self.read == compressed {
            true if self.next > 0 => Err(damaged("is damaged (it has no end)".into())),
            true if self.done != content => {
                Err(damaged(format!("holds {} bytes instead of {content}", self.done)))
            }
            complete => Ok(complete),
        }
    }
}

/// Decompresses a whole frame to `out`, which has room for it. Its checksum is verified if `check`.
///
/// # Errors
/// Those of reading, and `InvalidData` where the frame is damaged or is not what the seek table says.
pub(super) fn decode_whole<C: WriteBuf + ?Sized>(
    file: &File,
    frame: &Frame,
    out: &mut C,
    check: bool,
) -> io::Result<()> {
    Decoder::new(check)?.decode(file, frame, out, frame.content as usize).map(drop)
}

/// What is kept of the content of a frame: its front as far as it was decompressed, or some parts of it.
pub(super) struct FrameContent {
    /// Number of the frame.
    frame: usize,
    pub(super) bytes: Vec<u8>,
    parts: Vec<Part>,
    /// Decompresses the rest, where `bytes` are the front of the frame.
    rest: Option<Decoder>,
}

/// A part of a frame that is kept; it ends where the next one begins in `FrameContent::bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Position of its first byte in the frame's content.
    at: usize,
    /// Position of its first byte in the bytes that are kept.
    kept_at: usize,
}

impl FrameContent {
    /// Begins frame number `n`, which has `len` bytes of content. The memory of `used` is taken for them.
    pub(super) fn begin(
        n: usize,
        len: usize,
        used: Option<FrameContent>,
        check: bool,
    ) -> io::Result<FrameContent> {
        let mut bytes = used.map(|content| content.bytes).unwrap_or_default();
        bytes.clear();
        bytes.reserve_exact(len);
        Ok(FrameContent {
            frame: n,
            bytes,
            parts: vec![Part { at: 0, kept_at: 0 }],
            rest: Some(Decoder::new(check)?),
        })
    }

    /// Whether this is the front of frame number `n`, and can be decompressed further.
    pub(super) fn continues(&self, n: usize) -> bool {
        self.frame == n && self.rest.is_some()
    }

    /// Whether the frame was decompressed to its end, where its checksum is.
    pub(super) fn is_complete(&self) -> bool {
        self.rest.is_none()
    }

    /// Decompresses the frame up to `end` at least.
    ///
    /// # Errors
    /// As [`decode_whole`].
    pub(super) fn decode_to(&mut self, file: &File, frame: &Frame, end: usize) -> io::Result<()> {
        if let Some(rest) = &mut self.rest
            && rest.decode(file, frame, &mut self.bytes, end)?
        {
            self.rest = None;
        }
        Ok(())
    }

    /// The bytes of this range of the frame's content, where all of them are kept.
    pub(super) fn get(&self, range: &Range<usize>) -> Option<&[u8]> {
        let n = self.parts.partition_point(|part| part.at <= range.start).checked_sub(1)?;
        let Part { at, kept_at } = self.parts[n];
        let end = self.parts.get(n + 1).map_or(self.bytes.len(), |next| next.kept_at);
        self.bytes[kept_at..end].get(range.start - at..range.end - at)
    }
}

impl Value for FrameContent {
    fn weight(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.zstd.sizeof());
        SLOT + self.bytes.capacity() + self.parts.capacity() * size_of::<Part>() + rest
    }

    fn holds(&self, range: &Range<usize>) -> bool {
        self.get(range).is_some()
    }

    fn grows(&self) -> bool {
        self.rest.is_some()
    }

    fn only(&self, ranges: &[Range<usize>]) -> Option<FrameContent> {
        let mut joined: Vec<Range<usize>> = Vec::new();
        // What was dropped before is not there to be kept.
        for range in ranges.iter().filter(|range| self.holds(range)) {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range.clone()),
            }
        }
        let rest: usize = joined.iter().map(Range::len).sum();
        if rest > self.bytes.len() / 4 * 3 {
            return None;
        }
        let (bytes, parts) = (Vec::with_capacity(rest), Vec::with_capacity(joined.len()));
        let mut less = FrameContent { frame: self.frame, bytes, parts, rest: None };
        for range in joined {
            less.parts.push(Part { at: range.start, kept_at: less.bytes.len() });
            less.bytes.extend_from_slice(self.get(&range)?);
        }
        Some(less)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_reduced_to_parts() {
        let parts = vec![Part { at: 0, kept_at: 0 }];
        let whole = FrameContent { frame: 0, bytes: (0..100).collect(), parts, rest: None };
        assert_eq!(whole.get(&(90..100)).unwrap(), Vec::from_iter(90..100));
        assert!(whole.get(&(90..101)).is_none());
        assert!(whole.only(&[0..50, 20..90]).is_none());

        let less = whole.only(&[10..20, 15..30, 30..35, 60..70]).unwrap();
        assert_eq!(less.parts, [Part { at: 10, kept_at: 0 }, Part { at: 60, kept_at: 25 }]);
        assert_eq!(less.get(&(12..33)).unwrap(), Vec::from_iter(12..33));
        assert_eq!(less.get(&(69..70)).unwrap(), [69]);
        for missing in [0..5, 9..11, 30..36, 30..65, 69..71, 70..70 + 1] {
            assert!(!less.holds(&missing), "{missing:?}");
        }
        let least = less.only(&[5..15, 12..14, 61..62]).unwrap();
        let parts = vec![Part { at: 12, kept_at: 0 }, Part { at: 61, kept_at: 2 }];
        assert_eq!((least.bytes, least.parts), (vec![12, 13, 61], parts));
    }
}
