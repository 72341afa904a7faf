//! A zstd file and its seek table.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::walk::Whole;
use super::{FOOTER_LEN, FOOTER_MAGIC, MAX_FRAME, SIDE_MAGIC, TABLE_MAGIC, Tag, invalid, le32};
use crate::budget::{Budget, Spent};
use crate::container::extent::Extent;

/// A file whose frames hold less than this on average is not worth reading at random either, apart from files of few
/// frames: to find and to begin a frame would take longer than to decompress it.
const MIN_FRAME: u64 = 4 << 10;
const FEW_FRAMES: u64 = 4 << 10;
/// A frame holds at most 2 to the power of this for each of its bytes: 4 bytes are a block of 128 KiB (RFC 8878
/// sections 3.1.1.2.2 and 3.1.1.2.4).
const MAX_RATIO_LOG: u32 = 15;
/// The fewest bytes of a skippable frame.
const MIN_SIDE: u32 = 8;
/// The seek table may take one in so many bytes of the file's length in memory. Our own takes a sixth of that.
const TABLE_SHARE: u64 = 16;
/// How many entries of the seek table are read at once.
const ENTRIES: usize = 4 << 10;

/// A data frame, as the seek table describes it.
pub(super) struct Frame {
    /// Position of its first byte in the content.
    pub start: u64,
    /// Bytes of content.
    pub content: u32,
    /// Position of its first byte in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub compressed: u32,
}

/// A zstd file with a seek table.
pub struct Seekable {
    pub(super) file: File,
    pub(super) frames: Vec<Frame>,
    /// The side frames: where they lie in the file.
    sides: Vec<Extent>,
    size: u64,
}

impl Seekable {
    /// Reads the seek table. The result is `None` where the file has none, or one of frames that are too large or too
    /// small to be of use.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` where the table contradicts itself or the file.
    pub fn open(file: File) -> io::Result<Option<Seekable>> {
        let end = file.metadata()?.len();
        Seekable::open_until(file, end)
    }

    /// As [`Seekable::open`], for a file whose seek table ends at `end`. What lies behind that is ignored.
    ///
    /// # Errors
    /// As [`Seekable::open`].
    pub fn open_until(file: File, end: u64) -> io::Result<Option<Seekable>> {
        if end < FOOTER_LEN + 8 {
            return Ok(None);
        }
        let mut footer = [0; FOOTER_LEN as usize];
        file.read_exact_at(&mut footer, end - FOOTER_LEN)?;
        if le32(&footer[5..]) != FOOTER_MAGIC {
            return Ok(None);
        }
        let entry = if footer[4] & 0x80 != 0 { 12 } else { 8 };
        let table_len = u64::from(le32(&footer)) * entry;
        let Some(table_at) = end.checked_sub(FOOTER_LEN + table_len + 8) else {
            return Err(invalid("the seek table claims more frames than the file can hold"));
        };
        let mut head = [0; 8];
        file.read_exact_at(&mut head, table_at)?;
        if le32(&head) != TABLE_MAGIC || u64::from(le32(&head[4..])) != table_len + FOOTER_LEN {
            return Err(invalid("the seek table is damaged"));
        }

        let mut budget = Budget::of(end / TABLE_SHARE);
        let too_many = |spent: Spent| {
            io::Error::new(io::ErrorKind::OutOfMemory, format!("its seek table is too long: {spent}"))
        };
        let (mut offset, mut start) = (0u64, 0u64);
        let (mut frames, mut sides) = (Vec::new(), Vec::new());
        let mut part = vec![0; entry as usize * ENTRIES];
        let (mut at, last) = (table_at + 8, end - FOOTER_LEN);
        while at < last {
            let part = &mut part[..entry as usize * ENTRIES.min(((last - at) / entry) as usize)];
            file.read_exact_at(part, at)?;
            at += part.len() as u64;
            for e in part.chunks_exact(entry as usize) {
                let (compressed, content) = (le32(e), le32(&e[4..]));
                if content > MAX_FRAME {
                    return Ok(None);
                }
                if content == 0 && compressed < MIN_SIDE
                    || u64::from(content) > u64::from(compressed) << MAX_RATIO_LOG
                {
                    return Err(invalid(format!(
                        "the seek table claims {content} bytes for a frame of {compressed} bytes"
                    )));
                }
                if content == 0 {
                    budget.push(&mut sides, Extent::new(offset, compressed.into())).map_err(too_many)?;
                } else {
                    budget
                        .push(&mut frames, Frame { start, content, offset, compressed })
                        .map_err(too_many)?;
                }
                offset += u64::from(compressed);
                start += u64::from(content);
            }
            if offset > table_at {
                break;
            }
        }
        if offset != table_at {
            return Err(invalid(format!(
                "the seek table describes {offset} bytes, but {table_at} bytes lie before it"
            )));
        }
        if frames.len() as u64 > FEW_FRAMES + start / MIN_FRAME {
            return Ok(None);
        }
        Ok(Some(Seekable { file, frames, sides, size: start }))
    }

    /// Length of the content in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Indexes the frames of a file that lost its seek table, as far as they follow one another from the start and tell the
    /// length of their content.
    ///
    /// # Errors
    /// Those of reading.
    pub fn indexed(file: File) -> io::Result<Seekable> {
        let end = file.metadata()?.len();
        let mut budget = Budget::of(end / TABLE_SHARE);
        let (mut offset, mut start, mut frames) = (0, 0, Vec::new());
        let mut walk = Whole::new(&file);
        while let Some(next) = walk.frame_end(offset)? {
            let mut frame = Frame { start, content: 0, offset, compressed: (next - offset) as u32 };
            let small = next - offset <= u64::from(u32::MAX);
            match declared(&file, &frame)?.filter(|len| small && *len <= MAX_FRAME.into()) {
                Some(0) => {}
                Some(len) => {
                    frame.content = len as u32;
                    start += len;
                    if budget.push(&mut frames, frame).is_err() {
                        break;
                    }
                }
                None => break,
            }
            offset = next;
        }
        Ok(Seekable { file, frames, sides: Vec::new(), size: start })
    }

    /// Length of the content of data frame `n`, by the table; `None` behind the last one.
    pub fn content_of(&self, n: usize) -> Option<u32> {
        self.frames.get(n).map(|frame| frame.content)
    }

    /// Length of the content of data frame `n`, as the frame itself tells it.
    pub fn declared(&self, n: usize) -> Option<u64> {
        declared(&self.file, self.frames.get(n)?).ok()?
    }

    /// Number of data frames.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Number of side frames.
    pub fn sides(&self) -> usize {
        self.sides.len()
    }

    /// Bytes that all side frames take in the file.
    pub fn side_bytes(&self) -> u64 {
        self.sides.iter().map(|side| side.len).sum()
    }

    /// Reads side frame `n`: its tag, and its payload of at most `limit` bytes.
    ///
    /// # Errors
    /// `InvalidData` where it is no side frame of ours, or is larger; those of reading.
    pub fn side(&self, n: usize, limit: u32) -> io::Result<(Tag, Vec<u8>)> {
        let Extent { pos: offset, len } = *self.sides.get(n).ok_or_else(|| invalid("no such side frame"))?;
        if !(16..=u64::from(limit.saturating_add(16))).contains(&len) {
            return Err(invalid(format!("the side frame at {offset} has an impossible size of {len} bytes")));
        }
        let mut raw = vec![0; len as usize];
        self.file.read_exact_at(&mut raw, offset)?;
        if le32(&raw) != SIDE_MAGIC || u64::from(le32(&raw[4..])) != len - 8 {
            return Err(invalid(format!("the side frame at {offset} is damaged")));
        }
        let payload = raw.split_off(16);
        Ok((raw[8..16].try_into().expect("8 bytes"), payload))
    }

    /// Number of the frame that holds this position of the content, from 0. Positions behind the content have the number
    /// of frames.
    pub fn frame_at(&self, pos: u64) -> usize {
        self.frames.partition_point(|f| f.start + u64::from(f.content) <= pos)
    }

    /// Number of side frames that lie before data frame `n`.
    pub fn sides_before(&self, n: usize) -> usize {
        let offset = self.frames.get(n).map_or(u64::MAX, |frame| frame.offset);
        self.sides.partition_point(|side| side.pos < offset)
    }

    /// The frames that hold an extent of the content: their numbers, and the bytes of each that belong to the extent.
    pub(super) fn frames_with(&self, extent: Extent) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (pos, end) = (extent.pos, extent.end().min(self.size));
        let frames = if pos < end { &self.frames[self.frame_at(pos)..] } else { &[] };
        let first = self.frames.len() - frames.len();
        frames.iter().take_while(move |f| f.start < end).enumerate().map(move |(n, f)| {
            let within = |at: u64| at.saturating_sub(f.start).min(f.content.into()) as usize;
            (first + n, within(pos)..within(end))
        })
    }
}

/// Reads from a frame's header how long its content is; 0 where it is a skippable frame.
fn declared(file: &File, frame: &Frame) -> io::Result<Option<u64>> {
    let mut head = vec![0; 18.min(frame.compressed as usize)];
    file.read_exact_at(&mut head, frame.offset)?;
    Ok(zstd::zstd_safe::get_frame_content_size(&head).ok().flatten())
}
