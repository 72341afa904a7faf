//! Restoring what is left where a differential or its base is damaged.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use super::apply::{MAX_KEPT, MAX_WINDOW, Source};
use super::one_way::OneWayBase;
use crate::container::salvage::{Piece, Pieces, Search};
use crate::container::seekable::{LastFrame, ReadOptions};
use crate::container::source::Pass;
use crate::container::{Extent, salvage};
use crate::matching::base::{Access, Base, Proof};
use crate::matching::{Error, WINDOW};
use crate::text::told;
use crate::vcdiff::{AppHeader, Inst, Item, Limits, Reader, TargetHasher, Window};

/// How much of the base is kept decompressed.
const CACHE: usize = 112 << 20;
/// Where the base cannot be read, it is tried in parts of so many bytes.
const PART: usize = 64 << 10;

/// A damaged differential, or one whose base is damaged or lost.
pub struct Wreck {
    reader: Reader<Readable>,
    file: Option<Pass>,
}

impl Wreck {
    /// Reads the header of a differential. The file is at its start.
    ///
    /// # Errors
    /// Fails where it is no differential, or its header is damaged.
    pub fn open(file: &std::fs::File) -> Result<Wreck, Error> {
        let pieces = salvage::open(file, Search::Certain)
            .map_err(|source| Error::Io { what: "cannot read the differential".into(), source })?;
        let readable = Readable { pieces, now: io::Cursor::default() };
        Ok(Wreck { reader: Reader::new(readable, Limits::default())?, file: Pass::from_start(file).ok() })
    }

    /// What the header says.
    pub fn header(&self) -> AppHeader {
        AppHeader::parse(self.reader.header().app_header.as_deref().unwrap_or_default())
    }

    /// Restores what can be restored; `base` is none where it is lost. What a
    /// window copies from where the base cannot be read is a gap, and so is a window whose checksum is wrong.
    pub fn pieces(self, base: Option<Base>) -> Pieces {
        let header = self.header();
        let trusted = base.as_ref().is_some_and(|base| {
            matches!(base.access, Access::Mapped(_))
                && base.check(&header).is_ok_and(|proof| proof == Proof::Content)
        });
        let random = base.as_ref().and_then(Base::random_access);
        let source = match (random, base.map(|base| base.access)) {
            (Some(content), _) => {
                let options = ReadOptions { cache: CACHE, checksums: true, fronts: false };
                Source::Random(Arc::new(content.reader(options)))
            }
            (None, Some(Access::OneWay(content))) => {
                let asked = header.base_window.unwrap_or(0).min(MAX_WINDOW);
                let window = WINDOW.max(asked.min(MAX_KEPT));
                // As far as the base can be read, it serves.
                Source::OneWay(Box::new(OneWayBase::new(content, window, asked, self.file, true)))
            }
            (None, _) => Source::None,
        };
        Box::new(Windows {
            reader: Some(self.reader),
            source,
            trusted,
            last: LastFrame::default(),
            hasher: TargetHasher::new(),
            whole: true,
            bare: false,
            ready: VecDeque::new(),
        })
    }
}

struct Windows {
    /// None behind the end.
    reader: Option<Reader<Readable>>,
    source: Source,
    /// Whether the base has checksums, and is certainly the right one: what is copied from it needs none.
    trusted: bool,
    last: LastFrame,
    hasher: TargetHasher,
    /// Whether all windows so far could be restored.
    whole: bool,
    /// Whether a window had no checksum of its own.
    bare: bool,
    /// What was restored and is still to be handed out.
    ready: VecDeque<Piece>,
}

impl Windows {
    /// Restores a window, but for what it copies from where the base cannot be read.
    fn window(&mut self, mut window: Window) {
        let adler = window.adler32.take();
        let (source, last) = (&self.source, &mut self.last);
        let (mut unread, mut why) = (Vec::new(), None);
        let mut read = |pos: u64, buf: &mut [u8]| {
            if source.read_at(pos, buf, last).is_ok() {
                return Ok(());
            }
            // A part of it may be readable.
            let mut at = 0;
            while at < buf.len() {
                let from = pos.saturating_add(at as u64);
                let len = (PART - (from % PART as u64) as usize).min(buf.len() - at);
                if let Err(error) = source.read_at(from, &mut buf[at..at + len], last) {
                    buf[at..at + len].fill(0);
                    unread.push(Extent::new(from, len as u64));
                    why.get_or_insert_with(|| format!("the full backup, from its byte {from} on: {error}"));
                }
                at += len;
            }
            Ok(())
        };
        let mut bytes = Vec::new();
        let applied = window.apply(&mut read, &mut bytes);
        let found = applied.is_ok()
            && unread.is_empty()
            && adler.is_some_and(|sum| simd_adler32::adler32(&bytes.as_slice()) != sum);
        let problem = match applied {
            Err(error) => Some(told(&error)),
            Ok(()) => found.then(|| format!("window {} does not have its checksum", window.index)),
        };
        if let Some(why) = problem {
            self.whole = false;
            // Its length may not be what it was either.
            self.ready.push_back(Piece::Gap { len: None, why });
            return;
        }
        let Some(why) = why else {
            self.hasher.update(&bytes);
            self.bare |= adler.is_none();
            if !bytes.is_empty() {
                self.ready.push_back(Piece::Bytes { bytes, proved: adler.is_some() || self.trusted });
            }
            return;
        };
        // The checksum of the window is of no use any more: what is left of it is proved by the differential's own end.
        self.whole = false;
        self.bare = true;
        let mut at = 0;
        for hole in holes(&window, &merged(unread)) {
            if hole.start > at {
                let bytes = bytes[at..hole.start].to_vec();
                self.ready.push_back(Piece::Bytes { bytes, proved: self.trusted });
            }
            self.ready.push_back(Piece::Gap { len: Some(hole.len() as u64), why: why.clone() });
            at = hole.end;
        }
        if at < bytes.len() {
            self.ready.push_back(Piece::Bytes { bytes: bytes.split_off(at), proved: self.trusted });
        }
    }

    fn step(&mut self) -> Option<Piece> {
        if let Some(piece) = self.ready.pop_front() {
            return Some(piece);
        }
        loop {
            match self.reader.as_mut()?.next_item() {
                Ok(None) => {
                    self.reader = None;
                    return None;
                }
                Ok(Some(Item::End(record))) => {
                    let checked = record.check(&self.hasher.finish());
                    if let (true, Err(error)) = (self.whole, checked) {
                        return Some(Piece::Doubt { why: error.to_string() });
                    }
                }
                Ok(Some(Item::Window(window))) => {
                    self.window(window);
                    if let Some(piece) = self.ready.pop_front() {
                        return Some(piece);
                    }
                }
                Err(error) => {
                    self.reader = None;
                    let why = format!("the differential: {}", told(&error));
                    let gap = Piece::Gap { len: None, why: why.clone() };
                    if !self.bare {
                        return Some(gap);
                    }
                    // The checksum of the whole differential would have vouched for windows without one.
                    self.ready.push_back(gap);
                    return Some(Piece::Doubt { why });
                }
            }
        }
    }
}

/// Puts extents in order, and joins those that overlap.
fn merged(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_unstable();
    extents.dedup_by(|next, last| {
        let joins = next.pos <= last.end();
        if joins {
            *last = Extent::between(last.pos, last.end().max(next.end()));
        }
        joins
    });
    extents
}

/// Which bytes of a window come from extents of the base that could not be read; these are in order.
fn holes(window: &Window, unread: &[Extent]) -> Vec<Range<usize>> {
    let source = window.source.map_or(Extent::default(), |s| Extent::new(s.pos, s.len));
    let mut lost = vec![false; window.target_len];
    let mut at = 0;
    for inst in window.instructions().map_while(|inst| inst.ok()) {
        match inst {
            Inst::Add { data } => at += data.len(),
            Inst::Run { len, .. } => at += len,
            Inst::Copy { len, addr } => {
                let outside = source.len.saturating_sub(addr).min(len as u64) as usize;
                let from = source.pos.saturating_add(addr);
                let first = unread.partition_point(|extent| extent.end() <= from);
                for extent in
                    unread[first..].iter().take_while(|e| e.pos < from.saturating_add(outside as u64))
                {
                    let start = extent.pos.saturating_sub(from) as usize;
                    let end = ((extent.end() - from) as usize).min(outside);
                    lost[at + start..at + end].fill(true);
                }
                let inside = (addr + outside as u64).saturating_sub(source.len) as usize;
                for n in 0..len - outside {
                    lost[at + outside + n] = lost[inside + n];
                }
                at += len;
            }
        }
    }
    let mut holes: Vec<Range<usize>> = Vec::new();
    for (n, _) in lost.iter().enumerate().filter(|(_, lost)| **lost) {
        match holes.last_mut() {
            Some(last) if last.end == n => last.end += 1,
            _ => holes.push(n..n + 1),
        }
    }
    holes
}

impl Iterator for Windows {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().map(Ok)
    }
}

/// Reads pieces up to the first gap.
struct Readable {
    pieces: Pieces,
    now: io::Cursor<Vec<u8>>,
}

impl Read for Readable {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.now.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            match self.pieces.next() {
                None => return Ok(0),
                // Windows have checksums of their own.
                Some(piece) => match piece? {
                    Piece::Bytes { bytes, .. } => self.now = io::Cursor::new(bytes),
                    Piece::Gap { why, .. } | Piece::Doubt { why } => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                    }
                },
            }
        }
    }
}
