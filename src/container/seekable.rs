//! zstd files that can be read at any place: independent frames and a seek table.
//!
//! The table is the one of zstd's *seekable format* (contrib/seekable_format in zstd's sources), so
//! `zstd -d` and every other zstd reader sees an ordinary file. Between the data frames lie *side
//! frames*: skippable frames (RFC 8878 section 3.1.2) that start with an 8-byte tag and hold what
//! their writer wants; to the seek table they are frames without content.
//!
//! ```text
//! data frame … side frame … data frame … side frame | seek table (a skippable frame)
//! seek table: magic 5E 2A 4D 18, length u32,
//!             per frame: compressed size u32, content size u32 [, checksum u32]
//!             number of frames u32, descriptor u8 (bit 7: checksums), magic B1 EA 92 8F
//! ```
//! All numbers are little endian.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, WriteBuf, get_error_name};

mod walk;
mod write;

pub use walk::{End, end, first_side_tag, is_whole};
pub use write::Writer;

use super::ReadAt;
use super::cache::{Cache, Value};
use crate::budget::{Budget, Spent};

/// Magic number of our side frames (one of the sixteen that RFC 8878 leaves to users).
const SIDE_MAGIC: u32 = 0x184D_2A5A;
/// Magic number of the frame that holds the seek table.
const TABLE_MAGIC: u32 = 0x184D_2A5E;
/// Ends the seek table, and the file.
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
const FOOTER_LEN: u64 = 9;
/// Frames with more content are not worth reading at random: such a file is read as a stream.
const MAX_FRAME: u32 = 16 << 20;
/// Nor is a file of smaller frames than that, on average, but for the first ones: to find and to begin a frame would take
/// longer than to decompress it.
const MIN_FRAME: u64 = 4 << 10;
const FEW_FRAMES: u64 = 4 << 10;
/// No frame holds more than 2 to the power of this for each of its bytes: 4 bytes are a block of 128 KiB (RFC 8878
/// sections 3.1.1.2.2 and 3.1.1.2.4).
const MAX_RATIO_LOG: u32 = 15;
/// The least that a skippable frame takes.
const MIN_SIDE: u32 = 8;
/// Part of a file's length that what is known of its seek table may take: our own takes a hundredth of that.
const TABLE_SHARE: u64 = 16;
/// Entries of the seek table that are read at once.
const ENTRIES: usize = 4 << 10;
/// What the cache needs for a frame beside its content.
const SLOT: usize = 256;
/// Decompressed frames that are kept where nothing else is said.
const CACHE_BYTES: usize = 32 << 20;

/// Tag of a side frame. Those of ours begin with [`OURS`].
pub type Tag = [u8; 8];
const OURS: [u8; 5] = *b"pvedb";

/// So many bytes of a frame tell [`is_derived`].
pub const DERIVED_LEN: usize = 16;

/// Whether a frame that begins so is a skippable one with nothing in it that is not made from the content of others: a
/// side frame of ours, or a seek table.
pub fn is_derived(frame: &[u8]) -> bool {
    match frame.first_chunk().map(|magic| u32::from_le_bytes(*magic)) {
        Some(SIDE_MAGIC) => frame.get(8..).is_some_and(|tag| tag.starts_with(&OURS)),
        Some(TABLE_MAGIC) => true,
        _ => false,
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn le32(b: &[u8]) -> u32 {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

struct Frame {
    /// Place of the content.
    start: u64,
    content: u32,
    /// Place in the file.
    offset: u64,
    compressed: u32,
}

/// A file with a seek table, read at any place.
pub struct Seekable {
    file: File,
    frames: Vec<Frame>,
    sides: Vec<(u64, u32)>,
    size: u64,
    cache: Cache<Content>,
    /// Frames are decompressed without a look at their checksums.
    trusted: AtomicBool,
    /// No more of a frame is decompressed than is wanted.
    fronts: AtomicBool,
}

impl Seekable {
    /// Reads the seek table; `None` where the file has none (or one of frames too large or too small to be of use).
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` where the table contradicts itself or the file.
    pub fn open(file: File) -> io::Result<Option<Seekable>> {
        let end = file.metadata()?.len();
        Seekable::open_until(file, end)
    }

    /// As [`Seekable::open`]; the seek table ends at `end`, and what lies behind that is not looked at.
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
                    budget.push(&mut sides, (offset, compressed)).map_err(too_many)?;
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
        let (cache, trusted, fronts) = (Cache::new(CACHE_BYTES), false.into(), false.into());
        Ok(Some(Seekable { file, frames, sides, size: start, cache, trusted, fronts }))
    }

    /// Number of side frames.
    pub fn sides(&self) -> usize {
        self.sides.len()
    }

    /// Bytes of all side frames.
    pub fn side_bytes(&self) -> u64 {
        self.sides.iter().map(|(_, len)| u64::from(*len)).sum()
    }

    /// Tag and payload of side frame `n`, at most `limit` bytes of payload.
    ///
    /// # Errors
    /// `InvalidData` where it is no side frame of ours or larger; those of reading.
    pub fn side(&self, n: usize, limit: u32) -> io::Result<(Tag, Vec<u8>)> {
        let (offset, len) = *self.sides.get(n).ok_or_else(|| invalid("no such side frame"))?;
        if !(16..=limit.saturating_add(16)).contains(&len) {
            return Err(invalid(format!("the side frame at {offset} has an impossible size of {len} bytes")));
        }
        let mut raw = vec![0; len as usize];
        self.file.read_exact_at(&mut raw, offset)?;
        if le32(&raw) != SIDE_MAGIC || le32(&raw[4..]) != len - 8 {
            return Err(invalid(format!("the side frame at {offset} is damaged")));
        }
        let payload = raw.split_off(16);
        Ok((raw[8..16].try_into().expect("8 bytes"), payload))
    }

    /// Number of the frame with this place of the content.
    fn frame_at(&self, pos: u64) -> usize {
        self.frames.partition_point(|f| f.start + u64::from(f.content) <= pos)
    }

    /// The frames with these places, and where in each of them.
    fn frames_with(&self, pos: u64, len: u64) -> impl Iterator<Item = (usize, Range<usize>)> {
        let end = pos.saturating_add(len).min(self.size);
        let frames = if pos < end { &self.frames[self.frame_at(pos)..] } else { &[] };
        let first = self.frames.len() - frames.len();
        frames.iter().take_while(move |f| f.start < end).enumerate().map(move |(n, f)| {
            let within = |at: u64| at.saturating_sub(f.start).min(f.content.into()) as usize;
            (first + n, within(pos)..within(end))
        })
    }

    fn frame(&self, n: usize, range: Range<usize>) -> io::Result<Arc<Content>> {
        let whole = self.frames[n].content as usize;
        self.cache.get(n as u64, range, |had, end| {
            let mut content = match had {
                Some(content) if content.frame == n && content.rest.is_some() => content,
                had => {
                    let mut bytes = had.map(|content| content.bytes).unwrap_or_default();
                    bytes.clear();
                    bytes.reserve_exact(whole);
                    Content { frame: n, bytes, parts: vec![(0, 0)], rest: Some(Rest::new(self.check())?) }
                }
            };
            if let Some(rest) = &mut content.rest {
                let end = if self.fronts.load(Ordering::Relaxed) { end } else { whole };
                if self.decompress(rest, n, &mut content.bytes, end)? {
                    content.rest = None;
                }
            }
            Ok(content)
        })
    }

    /// Decompresses what follows in frame `n`, up to `end` at least, to `out`, which has room for all of the frame and
    /// is the same each time. Tells whether the frame is complete.
    fn decompress<C: WriteBuf + ?Sized>(
        &self,
        rest: &mut Rest,
        n: usize,
        out: &mut C,
        end: usize,
    ) -> io::Result<bool> {
        let f = &self.frames[n];
        let damaged =
            |found: String| invalid(format!("the zstd frame at byte {} of the file {found}", f.offset));
        let (content, compressed) = (f.content as usize, f.compressed as usize);
        let mut out = OutBuffer::around_pos(out, rest.done);
        let mut raw = Vec::new();
        // To the end, where its checksum is, if all of the content is wanted.
        while rest.read < compressed && (out.pos() < end || end == content) {
            // A frame of others may be several.
            let wanted = if rest.next == 0 { FRAME_START } else { rest.next };
            raw.resize(wanted.min(compressed - rest.read), 0);
            self.file.read_exact_at(&mut raw, f.offset + rest.read as u64)?;
            let mut input = InBuffer::around(&raw);
            let next = rest.zstd.decompress_stream(&mut out, &mut input);
            rest.next = next.map_err(|e| damaged(format!("is damaged ({})", get_error_name(e))))?;
            rest.read += input.pos();
        }
        rest.done = out.pos();
        match rest.read == compressed {
            true if rest.next > 0 => Err(damaged("is damaged (it has no end)".into())),
            true if rest.done != content => {
                Err(damaged(format!("holds {} bytes instead of {content}", rest.done)))
            }
            complete => Ok(complete),
        }
    }

    /// Decompresses frame `n` to `out`, which has room for it.
    fn load<C: WriteBuf + ?Sized>(&self, n: usize, out: &mut C, check: bool) -> io::Result<()> {
        self.decompress(&mut Rest::new(check)?, n, out, self.frames[n].content as usize).map(drop)
    }

    fn check(&self) -> bool {
        !self.trusted.load(Ordering::Relaxed)
    }
}

/// What is kept of a frame's content.
struct Content {
    frame: usize,
    bytes: Vec<u8>,
    /// Its parts: where in the frame's content they begin, and where in `bytes`.
    parts: Vec<(usize, usize)>,
    /// Where `bytes` are the front of it, what gets the rest.
    rest: Option<Rest>,
}

/// A frame that is decompressed block by block, as far as is needed.
struct Rest {
    zstd: DCtx<'static>,
    /// Compressed bytes that were read, bytes they made, and how many it wants to go on: none between frames.
    read: usize,
    done: usize,
    next: usize,
}

/// Bytes of a frame that tell how many are wanted.
const FRAME_START: usize = 5;

impl Rest {
    fn new(check: bool) -> io::Result<Rest> {
        let failed = |e| io::Error::other(get_error_name(e));
        let mut zstd = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        zstd.set_parameter(DParameter::ForceIgnoreChecksum(!check)).map_err(failed)?;
        // The content is decompressed to where it stays.
        zstd.set_parameter(DParameter::StableOutBuffer(true)).map_err(failed)?;
        Ok(Rest { zstd, read: 0, done: 0, next: 0 })
    }
}

impl Content {
    fn get(&self, range: &Range<usize>) -> Option<&[u8]> {
        let n = self.parts.partition_point(|part| part.0 <= range.start).checked_sub(1)?;
        let (at, start) = self.parts[n];
        let end = self.parts.get(n + 1).map_or(self.bytes.len(), |next| next.1);
        self.bytes[start..end].get(range.start - at..range.end - at)
    }
}

/// The frame that was read from last: to look there first is quicker than to search.
#[derive(Default)]
pub struct Near(Option<(u64, Arc<Content>)>);

impl Near {
    /// Reads what is there.
    fn read(&self, pos: u64, buf: &mut [u8]) -> Option<()> {
        let (start, content) = self.0.as_ref()?;
        let at = usize::try_from(pos.checked_sub(*start)?).ok()?;
        buf.copy_from_slice(content.get(&(at..at.checked_add(buf.len())?))?);
        Some(())
    }
}

impl Value for Content {
    fn weight(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.zstd.sizeof());
        SLOT + self.bytes.capacity() + self.parts.capacity() * size_of::<(usize, usize)>() + rest
    }

    fn holds(&self, range: &Range<usize>) -> bool {
        self.get(range).is_some()
    }

    fn grows(&self) -> bool {
        self.rest.is_some()
    }

    fn only(&self, ranges: &[Range<usize>]) -> Option<Content> {
        let mut joined: Vec<Range<usize>> = Vec::new();
        // What was left out before is not there to be kept.
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
        let mut less = Content { frame: self.frame, bytes, parts, rest: None };
        for range in joined {
            less.parts.push((range.start, less.bytes.len()));
            less.bytes.extend_from_slice(self.get(&range)?);
        }
        Some(less)
    }
}

impl ReadAt for Seekable {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_near(pos, buf, &mut Near::default())
    }

    fn read_near(&self, pos: u64, mut buf: &mut [u8], near: &mut Near) -> io::Result<()> {
        if near.read(pos, buf).is_some() {
            return Ok(());
        }
        // Nobody else may hold what is to be decompressed further.
        *near = Near::default();
        if pos.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (n, range) in self.frames_with(pos, buf.len() as u64) {
            let (now, later) = buf.split_at_mut(range.len());
            if now.len() == self.frames[n].content as usize && self.cache.passes_by(n as u64) {
                self.load(n, now, self.check())?;
            } else {
                let content = self.frame(n, range.clone())?;
                let bytes = content
                    .get(&range)
                    .ok_or_else(|| invalid(format!("frame {n} of the zstd file is too short")))?;
                now.copy_from_slice(bytes);
                *near = Near(Some((self.frames[n].start, content)));
            }
            buf = later;
        }
        Ok(())
    }

    fn part_at(&self, pos: u64) -> u64 {
        self.frame_at(pos) as u64
    }

    fn keep(&self, bytes: usize) {
        self.cache.allow(bytes);
    }

    fn expect(&self, turn: u64, ranges: &[(u64, u64)]) {
        let wanted = ranges.iter().flat_map(|&(pos, len)| self.frames_with(pos, len));
        self.cache.expect(turn, wanted.map(|(n, range)| (n as u64, range)));
    }

    fn passed(&self, turn: u64) {
        self.cache.passed(turn);
    }

    fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
        self.fronts();
    }

    fn fronts(&self) {
        self.fronts.store(true, Ordering::Relaxed);
    }

    fn verify(&self, pos: u64, len: u64) -> io::Result<()> {
        let mut memory = Vec::new();
        for (n, _) in self.frames_with(pos, len) {
            memory.resize(self.frames[n].content as usize, 0);
            self.load(n, &mut memory[..], true)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    pub(super) fn sample() -> (Vec<u8>, Vec<u8>) {
        let content: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let mut w = Writer::new(Vec::new());
        let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
        zstd.include_checksum(true).unwrap();
        for part in content.chunks(100_000) {
            w.frame(&zstd.compress(part).unwrap(), part.len()).unwrap();
            w.side(*b"testtest", &part[..10]).unwrap();
        }
        (content, w.finish().unwrap())
    }

    fn open(bytes: &[u8]) -> io::Result<Option<Seekable>> {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(bytes).unwrap();
        Seekable::open(f)
    }

    #[test]
    fn reads_at_any_place_and_as_a_plain_stream() {
        let (content, file) = sample();
        assert_eq!(zstd::decode_all(&file[..]).unwrap(), content);
        let s = open(&file).unwrap().unwrap();
        assert_eq!(s.size(), content.len() as u64);
        for (pos, len) in [(0, 1), (99_999, 2), (250_000, 500_000), (1_199_999, 1), (0, 1_200_000), (7, 0)] {
            let mut buf = vec![0; len];
            s.read_at(pos as u64, &mut buf).unwrap();
            assert_eq!(buf, content[pos..pos + len]);
        }
        let past = s.read_at(1_199_999, &mut [0; 2]).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!([0, 99_999, 100_000, 1_199_999].map(|pos| s.part_at(pos)), [0, 0, 1, 11]);
        assert_eq!(s.sides(), 12);
        assert_eq!(s.side(3, 10).unwrap(), (*b"testtest", content[300_000..300_010].to_vec()));
        assert!(s.side(3, 9).is_err());
    }

    #[test]
    fn content_is_reduced_to_parts() {
        let whole = Content { frame: 0, bytes: (0..100).collect(), parts: vec![(0, 0)], rest: None };
        assert_eq!(whole.get(&(90..100)).unwrap(), Vec::from_iter(90..100));
        assert!(whole.get(&(90..101)).is_none());
        assert!(whole.only(&[0..50, 20..90]).is_none());

        let less = whole.only(&[10..20, 15..30, 30..35, 60..70]).unwrap();
        assert_eq!(less.parts, [(10, 0), (60, 25)]);
        assert_eq!(less.get(&(12..33)).unwrap(), Vec::from_iter(12..33));
        assert_eq!(less.get(&(69..70)).unwrap(), [69]);
        for missing in [0..5, 9..11, 30..36, 30..65, 69..71, 70..70 + 1] {
            assert!(!less.holds(&missing), "{missing:?}");
        }
        let least = less.only(&[5..15, 12..14, 61..62]).unwrap();
        assert_eq!((least.bytes, least.parts), (vec![12, 13, 61], vec![(12, 0), (61, 2)]));
    }

    #[test]
    fn no_more_than_the_front_that_is_read_is_decompressed() {
        // Blocks of at most 128 KiB: 25 in the first frame.
        let content: Vec<u8> = (0..800_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let mut w = Writer::new(Vec::new());
        let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
        zstd.include_checksum(true).unwrap();
        let frame = zstd.compress(&content).unwrap();
        w.frame(&frame, content.len()).unwrap();
        let file = w.finish().unwrap();
        let have = |s: &Seekable, range| s.frame(0, range).map(|content| content.bytes.len());

        let s = open(&file).unwrap().unwrap();
        assert_eq!(have(&s, 0..10).unwrap(), content.len());
        let s = open(&file).unwrap().unwrap();
        s.fronts();
        for (range, about) in
            [(0..10, 10), (500_000..500_001, 500_001), (3..4, 500_001), (1_000_000..1_500_000, 1_500_000)]
        {
            let len = have(&s, range.clone()).unwrap();
            assert!((about..about + (128 << 10)).contains(&len), "{range:?}: {len}");
            let mut buf = vec![0; range.len()];
            s.read_at(range.start as u64, &mut buf).unwrap();
            assert_eq!(buf, content[range]);
        }
        s.expect(0, &[(0, 10), (2_000_000, 10), (2_400_000, 100)]);
        assert!((2_400_100..2_600_000).contains(&have(&s, 1_500_000..1_700_000).unwrap()));
        assert_eq!(have(&s, 7..3_200_000).unwrap(), content.len());

        // Damaged at its end, where the checksum is: that shows where it is read.
        let mut bad = file.clone();
        bad[frame.len() - 1] ^= 1;
        let s = open(&bad).unwrap().unwrap();
        assert!(s.read_at(0, &mut [0; 10]).is_err());
        s.fronts();
        s.read_at(0, &mut [0; 10]).unwrap();
        assert!(s.read_at(3_199_999, &mut [0]).is_err());
        s.read_at(0, &mut [0; 10]).unwrap();
        assert!(s.verify(0, 1).is_err());
    }

    #[test]
    fn frames_that_are_not_what_the_table_says_are_errors() {
        let frame = zstd::bulk::compress(&[7; 1000], 1).unwrap();
        let read = |frame: &[u8], content: usize, fronts: bool| {
            let mut w = Writer::new(Vec::new());
            w.frame(frame, content).unwrap();
            let s = open(&w.finish().unwrap()).unwrap().unwrap();
            if fronts {
                s.fronts();
            }
            s.read_at(0, &mut vec![0; content])?;
            s.read_at(0, &mut [0])
        };
        for fronts in [false, true] {
            read(&frame, 1000, fronts).unwrap();
            // Several in the place of one.
            read(&[&frame[..], &frame].concat(), 2000, fronts).unwrap();
            assert!(read(&frame, 999, fronts).is_err());
            assert!(read(&frame, 1001, fronts).is_err());
            assert!(read(&[&frame[..], b"x"].concat(), 1000, fronts).is_err());
            (1..frame.len()).for_each(|cut| assert!(read(&frame[..cut], 1000, fronts).is_err(), "{cut}"));
        }
    }

    #[test]
    fn every_truncation_and_flip_of_the_table_is_noticed_or_harmless() {
        let (content, file) = sample();
        for cut in 1..200 {
            // No footer at the end any more: not seekable, or damaged.
            assert!(!matches!(open(&file[..file.len() - cut]), Ok(Some(_))), "cut {cut}");
        }
        for at in file.len() - 250..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 0x20;
            if let Ok(Some(s)) = open(&bad) {
                let mut buf = vec![0; s.size().min(2 << 20) as usize];
                if s.read_at(0, &mut buf).is_ok() {
                    assert!(content.starts_with(&buf), "flip at {at}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_frame_is_an_error_where_it_is_read() {
        let (content, mut file) = sample();
        file[30] ^= 1;
        let s = open(&file).unwrap().unwrap();
        assert!(s.read_at(0, &mut [0; 10]).is_err());
        let mut buf = [0; 10];
        s.read_at(500_000, &mut buf).unwrap();
        assert_eq!(buf, content[500_000..500_010]);
    }
}
