//! A differential's windows at any position of its target.
//!
//! The differential is read once: its windows are copied, without secondary compression, and it is noted where each lies and
//! which bytes of the target it rebuilds. To read a part of the target, the windows there are looked up. Whoever reads on gets
//! whole windows, which are rebuilt ahead, and whose Adler-32 is compared. For a few bytes only those instructions are followed
//! that make them, if that proves them too: the base has checksums there, and either the Adler-32 of the window was compared before, or
//! the differential has checksums, and the base is the very file that it was made against.

use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::ahead::Ahead;
use super::copy::CopyReader;
use super::headers::{Headers, read_through};
use super::{COPY, Opening, Readable, readable};
use crate::budget::Budget;
use crate::container::ReadAt;
use crate::container::cache::{Cache, Value};
use crate::container::seekable::LastFrame;
use crate::container::source::Found;
use crate::matching::base::{Base, Stream};
use crate::matching::{BaseProblem, Error};
use crate::text::{shown, told};
use crate::vcdiff::{self, AppHeader, Inst, Item, Limits, Reader, Window, write_header};

/// Bytes of rebuilt windows, and of windows as they are stored, that are kept.
const REBUILT: usize = 48 << 20;
const STORED: usize = 16 << 20;
/// What a cache needs for a value beside its content.
const SLOT: usize = 256;
/// Reads of so many bytes and more are no reads here and there.
const LARGE: usize = 256 << 10;
/// How often copies from a window itself are followed to where they come from.
const MAX_ROW: usize = 8;
/// How many instructions are decoded to follow some of them, for each byte of a window's instructions. A hostile window could
/// make each of its copies begin anew at its front.
const STEPS: usize = 4;
/// Bytes of an entry of the stored index.
const ENTRY: usize = 16;

/// A differential whose target can be read at any position.
pub(super) struct Windows {
    /// The encoded windows, one behind the other.
    stored: CopyReader,
    /// The copy's owner, for messages.
    path: PathBuf,
    index: Vec<Place>,
    base: Option<Readable>,
    /// The lengths of the files in bytes: of the base alone, and together.
    base_stored: u64,
    files_stored: u64,
    /// Whether the base is the very file that the differential was made against, and both files have checksums: then what is
    /// copied from it needs no other.
    trusted: bool,
    /// What is known of each window.
    known: Vec<AtomicU8>,
    rebuilt: Cache<Rebuilt>,
    parsed: Cache<Parsed>,
}

/// Where a window lies. One more follows behind the last window, which stands where they end.
#[derive(Clone, Copy)]
struct Place {
    /// Position of its first byte in the target.
    target: u64,
    /// Position of its encoded form in the copy.
    stored: u64,
}

/// Nothing is known of a window.
const NEW: u8 = 0;
/// The Adler-32 of the window was compared.
const COMPARED: u8 = 1;
/// The base is damaged where the window copies from, so that its Adler-32 cannot be compared.
const DAMAGED: u8 = 2;

struct Rebuilt(Vec<u8>);
struct Parsed(Window);

impl Value for Rebuilt {
    fn weight(&self) -> usize {
        SLOT + self.0.capacity()
    }
}

impl Value for Parsed {
    fn weight(&self) -> usize {
        SLOT + self.0.data.capacity() + self.0.inst.capacity() + self.0.addr.capacity()
    }
}

impl Windows {
    /// Opens a differential and its base.
    ///
    /// # Errors
    /// As [`super::View::open`].
    pub fn open(file: Base, opening: &Opening) -> Result<Windows, Error> {
        let front = Reader::new(stream(&file)?, Limits::default())?;
        let app = front.header().app_header.clone();
        let header = AppHeader::parse(app.as_deref().unwrap_or_default());
        drop(front);
        let mut certain = false;
        let base = match !header.base_name.is_empty() || app.is_none() {
            false => None,
            true => {
                let base = (opening.base)(&header)?;
                match opening.found {
                    Found::ByPerson => base.check(&header).map(drop)?,
                    Found::ByName => base.accept_by_name(&header)?.map_or((), opening.warn),
                }
                certain = base.is_same_file(&header);
                Some(readable(base.full()?, opening)?)
            }
        };
        // What the differential's own checksums do not prove may be damaged without a sign.
        let proved = file.file().map_or(Ok(false), crate::container::has_checksums);
        let proved = proved.map_err(|source| Error::base(&file.path, BaseProblem::Io(source)))?;
        let trusted = certain && proved && base.as_ref().is_some_and(|base| base.map.is_some());
        let own_stored = file.stored();
        let base_stored = base.as_ref().map_or(0, |base| base.stored);
        let copied = opening.store.get(&file, "windows", |out| {
            let stream = (opening.whole)(&file.path, stream(&file)?);
            copy(stream, own_stored, out)
        })?;
        let stored = copied.reader(COPY);
        let index: Vec<Place> = copied
            .added
            .chunks_exact(ENTRY)
            .map(|entry| {
                let (target, stored) = entry.split_at(ENTRY / 2);
                let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
                Place { target: number(target), stored: number(stored) }
            })
            .collect();
        let rises =
            index.windows(2).all(|two| two[0].target < two[1].target && two[0].stored < two[1].stored);
        if !rises || index.last().is_none_or(|end| end.stored != stored.size()) {
            return Err(Error::Internal("the copy of a differential does not fit its index"));
        }
        Ok(Windows {
            stored,
            path: file.path,
            trusted,
            known: (1..index.len()).map(|_| AtomicU8::new(NEW)).collect(),
            index,
            base_stored,
            files_stored: base_stored.saturating_add(own_stored),
            base,
            rebuilt: Cache::new(REBUILT),
            parsed: Cache::new(STORED),
        })
    }

    /// Length of the files in bytes: the differential and its base.
    pub fn stored(&self) -> u64 {
        self.files_stored
    }

    /// The headers of all extents of the base, where its map tells them.
    ///
    /// # Errors
    /// As [`Headers::of`].
    pub fn headers(&self) -> Result<Option<Headers>, Error> {
        let map = self.base.as_ref().and_then(|base| base.map.as_deref());
        map.map(|map| Headers::of(map, self.base_stored)).transpose().map(Option::flatten)
    }

    /// Length of the target in bytes.
    pub fn size(&self) -> u64 {
        self.index.last().map_or(0, |end| end.target)
    }

    /// Reads a part of the target. Every byte is proved: by the checksum of its window, or by those of the base and of the
    /// differential's own file. Whoever reads on gets whole windows, others the few bytes that they want.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    fn read_at(&self, ahead: &Ahead, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.each(pos, buf, |n, range, part| {
            let len = self.index[n + 1].target - self.index[n].target;
            let reads_on = ahead.note(n, part.len() as u64, len, self.known.len());
            if let Some(rebuilt) = self.rebuilt.peek(n as u64, &(0..1)) {
                part.copy_from_slice(&rebuilt.0[range]);
                return Ok(());
            }
            let follows = self.follows(self.known[n].load(Ordering::Acquire), reads_on, part.len());
            if follows && self.follow(n, &range, None, part)? {
                return Ok(());
            }
            let rebuilt = self.rebuild(n, range.clone(), part);
            let damaged = self.known[n].load(Ordering::Acquire) == DAMAGED;
            match rebuilt {
                Err(error) if damaged && self.trusted => match self.follow(n, &range, None, part)? {
                    true => Ok(()),
                    false => Err(error),
                },
                rebuilt => rebuilt,
            }
        })
    }

    /// Whether single instructions of a window may be followed, and should be.
    fn follows(&self, known: u8, reads_on: bool, len: usize) -> bool {
        let proved = self.base.as_ref().is_none_or(|base| base.proved);
        match known {
            DAMAGED => self.trusted,
            COMPARED => proved && !reads_on && len < LARGE,
            _ => self.trusted && !reads_on && len < LARGE,
        }
    }

    /// Reads a part of the target without regard to the checksums of windows.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn peek(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.peeked(None, pos, buf)
    }

    /// As [`Windows::peek`]; `headers` have the headers of the base's extents.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn peek_with(&self, headers: &Headers, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.peeked(Some(headers), pos, buf)
    }

    fn peeked(&self, headers: Option<&Headers>, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.each(pos, buf, |n, range, part| match self.follow(n, &range, headers, part)? {
            true => Ok(()),
            false => self.rebuild(n, range, part),
        })
    }

    /// Calls a function for each window that has a part of this: its number, the range of its target, and where that goes.
    fn each(
        &self,
        pos: u64,
        mut buf: &mut [u8],
        mut read: impl FnMut(usize, Range<usize>, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if pos.checked_add(buf.len() as u64).is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = pos;
        while !buf.is_empty() {
            let n = self.index.partition_point(|place| place.target <= at) - 1;
            let start = (at - self.index[n].target) as usize;
            let len = ((self.index[n + 1].target - at).min(buf.len() as u64)) as usize;
            let (now, later) = buf.split_at_mut(len);
            read(n, start..start + len, now)?;
            at += len as u64;
            buf = later;
        }
        Ok(())
    }

    /// Reads window `n` as it is stored.
    fn parse(&self, n: usize) -> io::Result<Arc<Parsed>> {
        let (place, next) = (self.index[n], self.index[n + 1]);
        self.parsed.get(n as u64, 0..1, |_, _| {
            let mut bytes = write_header(None, None);
            let front = bytes.len();
            bytes.resize(front + (next.stored - place.stored) as usize, 0);
            self.stored
                .read_at(place.stored, &mut bytes[front..])
                .map_err(|error| self.damaged(n, &error))?;
            let item = Reader::new(&bytes[..], Limits::default()).and_then(|mut reader| reader.next_item());
            match item.map_err(|error| self.damaged(n, &error))? {
                Some(Item::Window(window)) if window.target_len as u64 == next.target - place.target => {
                    Ok(Parsed(Window { index: n as u64, target_pos: place.target, ..window }))
                }
                _ => Err(self.damaged(n, &io::Error::other("its copy is not what was copied"))),
            }
        })
    }

    /// Rebuilds window `n` as a whole, and compares its Adler-32.
    fn rebuild(&self, n: usize, range: Range<usize>, part: &mut [u8]) -> io::Result<()> {
        let rebuilt = self.rebuilt.get(n as u64, 0..1, |had, _| {
            let window = self.parse(n)?;
            let mut bytes = had.map(|had: Rebuilt| had.0).unwrap_or_default();
            let mut last = LastFrame::default();
            let map = self.base.as_ref().and_then(|base| base.map.as_deref());
            let mut read = |pos: u64, buf: &mut [u8]| match map {
                Some(map) => map.content().read_near(pos, buf, &mut last).map_err(|e| self.of_full(&e)),
                None => self.of_base(None, pos, buf),
            };
            let applied = window.0.apply(&mut read, &mut bytes);
            // A storage that is away for a moment is no damage.
            if matches!(&applied, Err(vcdiff::Error::Base { source, .. }) if source.kind() == io::ErrorKind::InvalidData) {
                self.known[n].store(DAMAGED, Ordering::Release);
            }
            applied.map_err(|error| self.damaged(n, &error))?;
            self.known[n].store(COMPARED, Ordering::Release);
            Ok::<_, io::Error>(Rebuilt(bytes))
        })?;
        part.copy_from_slice(&rebuilt.0[range]);
        Ok(())
    }

    /// Follows the instructions of window `n` that make a range of it. The result is `false` where they copy from the window
    /// itself in a long row or often, so that all of it must be rebuilt.
    fn follow(
        &self,
        n: usize,
        range: &Range<usize>,
        headers: Option<&Headers>,
        part: &mut [u8],
    ) -> io::Result<bool> {
        let parsed = self.parse(n)?;
        let mut steps = STEPS * parsed.0.inst.len();
        self.followed(&parsed.0, range.clone(), headers, part, (MAX_ROW, &mut steps))
    }

    fn followed(
        &self,
        window: &Window,
        range: Range<usize>,
        headers: Option<&Headers>,
        part: &mut [u8],
        (row, steps): (usize, &mut usize),
    ) -> io::Result<bool> {
        let n = window.index as usize;
        let segment = window.source.map_or((0, 0), |source| (source.pos, source.len));
        let mut at = 0;
        for inst in window.instructions() {
            if at >= range.end {
                break;
            }
            if *steps == 0 {
                return Ok(false);
            }
            *steps -= 1;
            let inst = inst.map_err(|error| self.damaged(n, &error))?;
            let end = at + inst.len();
            if end > range.start {
                // The part of the instruction that is wanted, and where it goes.
                let (from, to) = (range.start.max(at) - at, range.end.min(end) - at);
                let out = &mut part[at + from - range.start..at + to - range.start];
                match inst {
                    Inst::Add { data } => out.copy_from_slice(&data[from..to]),
                    Inst::Run { byte, .. } => out.fill(byte),
                    Inst::Copy { addr, .. } if addr.saturating_add(to as u64) <= segment.1 => {
                        let pos = segment.0.saturating_add(addr).saturating_add(from as u64);
                        self.of_base(headers, pos, out).map_err(|error| self.damaged(n, &error))?;
                    }
                    Inst::Copy { addr, .. } => {
                        // From the window itself, unless it begins in the segment or repeats what it makes.
                        let inside = addr.checked_sub(segment.1).map(|start| start as usize);
                        let Some(start) = inside.filter(|start| start + inst.len() <= at && row > 0) else {
                            return Ok(false);
                        };
                        let again = start + from..start + to;
                        if !self.followed(window, again, headers, out, (row - 1, &mut *steps))? {
                            return Ok(false);
                        }
                    }
                }
            }
            at = end;
        }
        Ok(true)
    }

    fn of_base(&self, headers: Option<&Headers>, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.base {
            Some(base) => {
                read_through(headers, &*base.content, pos, buf).map_err(|error| self.of_full(&error))
            }
            None => Err(io::Error::other("the differential needs a full backup, but names none")),
        }
    }

    fn of_full(&self, error: &io::Error) -> io::Error {
        let path = self.base.as_ref().map(|base| shown(&base.path)).unwrap_or_default();
        io::Error::new(error.kind(), format!("the full backup {path}: {error}"))
    }

    fn damaged(&self, n: usize, error: &(dyn std::error::Error + 'static)) -> io::Error {
        let text = format!("{}, window {n}: {}", shown(&self.path), told(error));
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// A differential whose windows are rebuilt ahead of whoever reads on.
pub(super) struct Streaming {
    windows: Arc<Windows>,
    ahead: Ahead,
}

impl Streaming {
    /// Takes a differential that is open.
    pub fn new(windows: Windows) -> Streaming {
        let windows = Arc::new(windows);
        let rebuilds = Arc::clone(&windows);
        // Who reads it will find what is wrong with it.
        Streaming { windows, ahead: Ahead::new(move |n| drop(rebuilds.rebuild(n, 0..0, &mut []))) }
    }

    /// The differential.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// As [`Windows::read_at`].
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.windows.read_at(&self.ahead, pos, buf)
    }
}

/// Opens the differential as a stream.
fn stream(file: &Base) -> Result<Stream, Error> {
    let io = |source| Error::base(&file.path, BaseProblem::Io(source));
    let stream = file.content().map_err(io)?;
    stream.ok_or_else(|| io(io::Error::other("it can be read only once")))
}

/// Copies the windows of a differential, and returns their index. `len` is the length of the differential's file.
fn copy(
    stream: impl Read,
    len: u64,
    out: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::new(stream, Limits::default())?;
    // Windows of ours have 8 MiB; those of a hostile file can have a byte.
    let mut budget = Budget::of(len);
    let (mut index, mut encoded, mut stored, mut target) = (Vec::new(), Vec::new(), 0u64, 0u64);
    let mut entry = |target: u64, stored: u64| {
        let entry = [target.to_le_bytes(), stored.to_le_bytes()].concat();
        budget
            .extend(&mut index, &entry)
            .map_err(|spent| Error::Io { what: "cannot index the differential".into(), source: spent.into() })
    };
    while let Some(item) = reader.next_item()? {
        let Item::Window(window) = item else { continue };
        if window.target_len == 0 {
            continue;
        }
        entry(target, stored)?;
        encoded.clear();
        window.encode(None, &mut encoded);
        out(&encoded)?;
        target += window.target_len as u64;
        stored += encoded.len() as u64;
    }
    entry(target, stored)?;
    Ok(index)
}
