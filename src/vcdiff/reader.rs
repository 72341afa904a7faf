//! Reading a delta window by window. Nothing in it is believed before it was checked.

use std::io::{self, BufRead, BufReader, Read};

use super::header::{HDR_APPHEADER, HDR_CODETABLE, HDR_SECONDARY};
use super::secondary::{self, Section};
use super::varint::Partial;
use super::window::{Segment, Stored, Window};
use super::{AppHeader, DeltaHasher, EndRecord, Error, Header, MAGIC, MAX_WINDOW, Result, Secondary};

/// Window indicator bits (RFC 3284 section 4.2).
pub(super) const WIN_SOURCE: u8 = 1;
const WIN_TARGET: u8 = 2;
/// An extension of xdelta3.
pub(super) const WIN_ADLER32: u8 = 4;

/// How many windows of length 0 may follow one another. xdelta3 writes one for an empty target, and nobody needs more.
/// Without a limit, a few KiB of compressed delta would keep a decoder busy for minutes.
const MAX_EMPTY: u32 = 16;

/// How many bytes longer than its window needs a section may be: there are [`EndRecord`]s and wasteful encoders.
const SLACK: u64 = 1024;

/// The largest sizes that a [`Reader`] accepts. They bound its memory. Below them, memory follows what the delta really
/// holds, never what it declares.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest target window, in bytes. Sections are limited accordingly: the data section to the length of the window,
    /// because no more can be used; instructions and addresses to twice that (xdelta3 needs at most 1.25 times); and 1 KiB
    /// more for each.
    pub window: usize,
    /// The most bytes of a window's three sections in all, as they are stored.
    pub sections: u64,
    /// The longest application header, in bytes.
    pub app_header: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { window: MAX_WINDOW, sections: u64::MAX, app_header: 1 << 20 }
    }
}

/// Part of a delta after the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The next piece of the target.
    Window(Window),
    /// The last item of a delta that has an end record. Its length was compared with the windows already. Its hash must be
    /// [checked](EndRecord::check) by whoever applies the windows, unless it is that of the delta itself.
    End(EndRecord),
}

/// Streaming reader of a delta.
pub struct Reader<R> {
    input: Input<R>,
    header: Header,
    limits: Limits,
    secondary: Option<secondary::Decoder>,
    /// Whether the application header announced an end record, and whether that has the hash of the delta itself.
    end_expected: bool,
    of_delta: bool,
    ended: bool,
    window: u64,
    target_pos: u64,
    empty: u32,
}

impl<R: Read> Reader<R> {
    /// Reads the file header. `input` needs no buffer, and must be decompressed.
    ///
    /// # Errors
    /// Fails where the input is no delta, needs a feature that is not supported, or has a header that is damaged or beyond the
    /// limits.
    pub fn new(input: R, limits: Limits) -> Result<Self> {
        let mut input = Input {
            inner: BufReader::with_capacity(1 << 16, input),
            hash: DeltaHasher::default(),
            offset: 0,
            window: 0,
        };
        let header = read_header(&mut input, &limits)?;
        let app = header.app_header.as_deref().map(AppHeader::parse).unwrap_or_default();
        if app.damaged {
            return Err(input.damaged("the fields that describe the base are not as they were written"));
        }
        Ok(Reader {
            secondary: header.secondary.map(secondary::Decoder::new),
            end_expected: app.end_record,
            of_delta: app.end_of_delta,
            input,
            header,
            limits,
            ended: false,
            window: 0,
            target_pos: 0,
            empty: 0,
        })
    }

    /// What the file header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The position in the delta behind the last item.
    pub fn offset(&self) -> u64 {
        self.input.offset
    }

    /// Reads the next window, or the end record, or `None` at the end of the input.
    ///
    /// # Errors
    /// Fails where something is malformed or beyond the limits, and with [`Error::MissingEnd`] where the application header
    /// announced an end record and the input ends without it. After an error the reader is of no further use.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        let before = self.input.hash.finish();
        let Some(indicator) = self.input.byte_or_end()? else {
            if self.end_expected && !self.ended {
                return Err(Error::MissingEnd { offset: self.input.offset });
            }
            return Ok(None);
        };
        if self.ended {
            return Err(self.input.damaged("bytes follow the end record"));
        }
        let window = self.read_window(indicator)?;
        if let Some(end) = EndRecord::from_window(&window) {
            if end.total_len != self.target_pos {
                return Err(Error::WrongTarget { what: "its length differs from the end record" });
            }
            if end.base.is_some() && end.hash != before {
                return Err(self
                    .input
                    .damaged("the delta is not as it was written: its hash differs from the end record"));
            }
            if self.of_delta && end.base.is_none() {
                return Err(self
                    .input
                    .damaged("its end record is not of the kind that the header announces"));
            }
            self.ended = true;
            return Ok(Some(Item::End(end)));
        }
        self.empty = if window.target_len == 0 { self.empty + 1 } else { 0 };
        if self.empty > MAX_EMPTY {
            return Err(self.input.damaged("too many empty windows"));
        }
        self.target_pos = (self.target_pos.checked_add(window.target_len as u64))
            .ok_or_else(|| self.input.damaged("the target is longer than 2^64 bytes"))?;
        self.window += 1;
        self.input.window = self.window;
        Ok(Some(Item::Window(window)))
    }

    fn read_window(&mut self, indicator: u8) -> Result<Window> {
        let input = &mut self.input;
        if indicator & WIN_TARGET != 0 {
            return Err(Error::Unsupported { what: "a segment of the target (VCD_TARGET)" });
        }
        if indicator & !(WIN_SOURCE | WIN_ADLER32) != 0 {
            return Err(input.damaged("unknown window indicator bits are set"));
        }
        let source = if indicator & WIN_SOURCE != 0 {
            let len = input.varint("a window header")?;
            let pos = input.varint("a window header")?;
            if pos.checked_add(len).is_none() {
                return Err(input.damaged("the segment ends beyond 2^64 bytes"));
            }
            Some(Segment { pos, len })
        } else {
            None
        };

        let encoded_len = input.varint("a window header")?;
        let start = input.offset;
        let target_len = input.varint("a window header")?;
        input.check("a window", target_len, self.limits.window as u64)?;
        if source.is_some_and(|s| s.len.checked_add(target_len).is_none()) {
            return Err(input.damaged("segment and window exceed 2^64 bytes"));
        }
        let compressed = input.byte("a window header")?;
        if compressed & !7 != 0 || (compressed != 0 && self.secondary.is_none()) {
            return Err(input.damaged("unknown or impossible delta indicator bits are set"));
        }

        let mut sizes = [0; 3];
        let mut sum = 0u64;
        for (section, size) in Section::ALL.into_iter().zip(&mut sizes) {
            *size = input.varint("a window header")?;
            let limit = section_limit(section, target_len);
            // Bytes that cannot be compressed take more room: most compressors add a little, FGK may take several bytes for one.
            let limit = if section.is_in(compressed) { limit * 4 + SLACK } else { limit };
            input.check(section.name(), *size, limit)?;
            sum += *size;
        }
        input.check("a window's sections", sum, self.limits.sections)?;
        let adler32 = if indicator & WIN_ADLER32 != 0 {
            let mut bytes = [0; 4];
            input.exact(&mut bytes, "a window header")?;
            Some(u32::from_be_bytes(bytes))
        } else {
            None
        };
        if encoded_len != input.offset - start + sum {
            return Err(input.damaged("the length of a window is not that of its parts"));
        }

        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        for (section, bytes) in Section::ALL.into_iter().zip(&mut sections) {
            *bytes = input.vec(sizes[section as usize], section.name())?;
            match &mut self.secondary {
                Some(decoder) if section.is_in(compressed) => {
                    let limit = section_limit(section, target_len) as usize;
                    *bytes = decoder.decode(section, bytes, limit).map_err(|what| input.damaged(what))?;
                }
                Some(decoder) => decoder.uncompressed(section, bytes),
                None => {}
            }
        }
        let [data, inst, addr] = sections;
        Ok(Window {
            index: self.window,
            target_pos: self.target_pos,
            target_len: target_len as usize,
            source,
            adler32,
            data,
            inst,
            addr,
            stored: Stored { compressed, len: encoded_len, sections: sizes },
        })
    }
}

/// The longest section of a window; see [`Limits::window`].
fn section_limit(section: Section, target_len: u64) -> u64 {
    let times = if section == Section::Data { 1 } else { 2 };
    target_len.saturating_mul(times).saturating_add(SLACK)
}

fn read_header<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<Header> {
    let mut magic = Vec::with_capacity(MAGIC.len());
    while magic.len() < MAGIC.len() {
        match input.byte_or_end()? {
            Some(byte) => magic.push(byte),
            None if magic.is_empty() || !MAGIC.starts_with(&magic) => break,
            None => return Err(input.truncated("the file header")),
        }
    }
    if magic != MAGIC {
        return Err(Error::NotVcdiff { found: magic });
    }
    let indicator = input.byte("the file header")?;
    if indicator & !(HDR_SECONDARY | HDR_CODETABLE | HDR_APPHEADER) != 0 {
        return Err(input.damaged("unknown header indicator bits are set"));
    }
    let secondary = if indicator & HDR_SECONDARY != 0 {
        let id = input.byte("the file header")?;
        let known = Secondary::from_id(id);
        Some(known.ok_or(Error::Unsupported { what: "an unknown secondary compressor" })?)
    } else {
        None
    };
    if indicator & HDR_CODETABLE != 0 {
        return Err(Error::Unsupported { what: "a code table of its own (VCD_CODETABLE)" });
    }
    let app_header = if indicator & HDR_APPHEADER != 0 {
        let len = input.varint("the file header")?;
        input.check("an application header", len, limits.app_header as u64)?;
        Some(input.vec(len, "the application header")?)
    } else {
        None
    };
    Ok(Header { secondary, app_header, len: input.offset })
}

/// The input with its position, for error messages.
struct Input<R> {
    inner: BufReader<R>,
    hash: DeltaHasher,
    offset: u64,
    window: u64,
}

impl<R: Read> Input<R> {
    fn read_error(&self, source: io::Error, inside: &'static str) -> Error {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(inside),
            _ => Error::Read { offset: self.offset, source },
        }
    }

    fn truncated(&self, inside: &'static str) -> Error {
        Error::Truncated { offset: self.offset, inside }
    }

    fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged { offset: self.offset, window: self.window, what }
    }

    fn check(&self, what: &'static str, size: u64, limit: u64) -> Result<()> {
        if size > limit { Err(Error::TooLarge { what, window: self.window, size, limit }) } else { Ok(()) }
    }

    fn exact(&mut self, buf: &mut [u8], inside: &'static str) -> Result<()> {
        self.inner.read_exact(buf).map_err(|e| self.read_error(e, inside))?;
        self.hash.update(buf);
        self.offset += buf.len() as u64;
        Ok(())
    }

    fn byte(&mut self, inside: &'static str) -> Result<u8> {
        let mut byte = [0];
        self.exact(&mut byte, inside)?;
        Ok(byte[0])
    }

    /// Reads the next byte; `None` at the end of the input. Where a decompressor's own input is cut short, it says
    /// `UnexpectedEof`, which is an error and no end.
    fn byte_or_end(&mut self) -> Result<Option<u8>> {
        loop {
            match self.inner.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(_) => return self.byte("").map(Some),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.read_error(e, "its compressed form")),
            }
        }
    }

    fn varint(&mut self, inside: &'static str) -> Result<u64> {
        let mut partial = Partial::default();
        loop {
            let byte = self.byte(inside)?;
            if let Some(value) = partial.push(byte).map_err(|_| self.damaged("an integer exceeds 64 bits"))? {
                return Ok(value);
            }
        }
    }

    /// Reads `len` bytes, a number that was compared with its limit before. Behind a first part, no more memory is reserved at
    /// once than has arrived already.
    fn vec(&mut self, len: u64, inside: &'static str) -> Result<Vec<u8>> {
        const FIRST: u64 = 1 << 20;
        let mut bytes = Vec::new();
        let mut left = len;
        while left > 0 {
            let part = left.min(FIRST.max(bytes.len() as u64));
            bytes.reserve_exact(part as usize);
            let had = bytes.len();
            let read = self.inner.by_ref().take(part).read_to_end(&mut bytes);
            let read = read.map_err(|e| self.read_error(e, inside))? as u64;
            self.hash.update(&bytes[had..]);
            self.offset += read;
            left -= read;
            if read < part {
                return Err(self.truncated(inside));
            }
        }
        Ok(bytes)
    }
}
