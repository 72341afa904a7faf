//! Several differentials of one full that are restored at about the same time, and read that full once.
//!
//! [`SharedBase`] is the full: what is decompressed of it, with the frames' checksums verified, serves all of them. A
//! [`SharedStream`] is what one of them restores. Of a window it makes a list of pieces: parts of the full's frames and of the
//! window's own data, which are not copied. The window's Adler-32 and the hash of the whole are computed over these pieces,
//! before any of them leaves, so that everything is proved that [`Differential::restore`](super::Differential::restore)
//! proves. Whoever reads the stream passes over what he needs not see.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::differential::Differential;
use crate::container::seekable::{FrameReader, Held, LastFrame, ReadOptions};
use crate::container::source::{self, Found, Refused};
use crate::container::{Extent, Skip};
use crate::matching::Error;
use crate::matching::base::{Access, Base};
use crate::text::{shown, told};
use crate::vcdiff::{self, Inst, Item, Limits, Reader, TargetHasher, Window};

/// Bytes of the full that are kept decompressed.
const DECOMPRESSED: usize = 96 << 20;

/// The longest window that is restored together with others, and the longest sections of one in all. Ours are no longer, and
/// their sections are not compressed. What is otherwise is an error here, and must be restored alone.
const MAX_WINDOW: usize = 8 << 20;
const MAX_SECTIONS: u64 = 10 << 20;

/// The most pieces of a window, and the most bytes of frames that they may keep in memory. What a window copies beyond that
/// is copied to a buffer.
const MAX_PIECES: usize = 1 << 15;
const MAX_HELD: usize = 24 << 20;

/// A full backup that several differentials copy from at about the same time.
pub struct SharedBase {
    base: Mutex<Base>,
    content: FrameReader,
}

impl SharedBase {
    /// Takes a full backup. The result is `None` where it has no map of ours: then each differential is restored alone.
    pub fn new(base: Base) -> Option<Arc<SharedBase>> {
        let Access::Mapped(map) = &base.access else { return None };
        let options = ReadOptions { cache: DECOMPRESSED, checksums: true, fronts: false };
        let content = map.file().reader(options);
        Some(Arc::new(SharedBase { base: Mutex::new(base), content }))
    }

    /// Opens a differential of this full. `before` is called before each window, and may wait.
    ///
    /// # Errors
    /// Fails where it cannot be opened, is none of this full, or is made in another way than ours.
    pub fn open(
        self: &Arc<Self>,
        path: &Path,
        before: impl FnMut(u64) + Send + 'static,
    ) -> Result<SharedStream, Error> {
        let io = |source| Error::Io { what: format!("cannot open {}", shown(path)), source };
        let file: File = source::open(path, Found::ByName).map_err(|refused| match refused {
            Refused::Io(source) => io(source),
            refused => Error::Refused { path: path.to_owned(), refused },
        })?;
        let limits = Limits { window: MAX_WINDOW, sections: MAX_SECTIONS, ..Limits::default() };
        let differential = Differential::open_within(Box::new(file), limits)?;
        let header = differential.header();
        // A warning is only for what has no checksum of the whole, which is restored alone.
        let is_ours = header.end_record && differential.reader.header().secondary.is_none();
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if base.accept_by_name(&header)?.is_some() || !is_ours {
            return Err(Error::Internal("a differential of another program is restored alone"));
        }
        Ok(SharedStream {
            shared: Arc::clone(self),
            reader: differential.reader,
            before: Box::new(before),
            last: LastFrame::default(),
            window: Window::default(),
            made: Vec::new(),
            pieces: VecDeque::new(),
            at: 0,
            hasher: TargetHasher::new(),
            total: 0,
            state: State::Begun,
        })
    }
}

/// What a differential restores, as a stream. Each window was proved before its first byte leaves; the end comes only once the
/// whole was proved.
pub struct SharedStream {
    shared: Arc<SharedBase>,
    reader: Reader<Box<dyn Read + Send>>,
    before: Box<dyn FnMut(u64) + Send>,
    last: LastFrame,
    window: Window,
    /// What had to be copied of the window: all of it, or what it copies from itself.
    made: Vec<u8>,
    /// What is left of the window.
    pieces: VecDeque<Piece>,
    /// How many bytes of the first piece were read.
    at: usize,
    hasher: TargetHasher,
    total: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Begun,
    Ended,
    Failed,
}

/// Bytes of a window, and where they are.
enum Piece {
    /// In a frame of the full.
    Held(Held),
    /// In the data of the window: where they begin, and how many they are.
    New(usize, usize),
    /// In the buffer of what had to be copied: where they begin, and how many they are.
    Made(usize, usize),
    /// Nowhere: one byte so often.
    Run(u8, usize),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Held(held) => held.bytes().len(),
            Piece::New(_, len) | Piece::Made(_, len) | Piece::Run(_, len) => *len,
        }
    }
}

/// Why the pieces of a window are not listed.
enum Unlisted {
    /// It must be copied: it copies from too many places, or across the end of what it may copy from.
    ToCopy,
    Failed(vcdiff::Error),
}

/// Lists the pieces of a window. What it copies from itself is copied to `made`.
fn list(
    window: &Window,
    content: &FrameReader,
    last: &mut LastFrame,
    made: &mut Vec<u8>,
) -> Result<VecDeque<Piece>, Unlisted> {
    made.clear();
    // Where each piece begins in the window.
    let (mut starts, mut here) = (Vec::new(), 0);
    let source = window.source.map_or(Extent::default(), |it| Extent::new(it.pos, it.len));
    let (mut pieces, mut data, mut held) = (VecDeque::<Piece>::new(), 0, 0);
    // A VM's clusters come in another order every day: a window goes to and fro between some frames.
    let mut frames = HashSet::new();
    for inst in window.instructions() {
        match inst.map_err(Unlisted::Failed)? {
            inst if inst.is_empty() => data += usize::from(matches!(inst, Inst::Run { .. })),
            Inst::Add { data: new } => {
                pieces.push_back(Piece::New(data, new.len()));
                starts.push(here);
                data += new.len();
                here += new.len();
            }
            Inst::Run { byte, len } => {
                pieces.push_back(Piece::Run(byte, len));
                starts.push(here);
                data += 1;
                here += len;
            }
            Inst::Copy { len, addr } if addr >= source.len => {
                let from = usize::try_from(addr - source.len).map_err(|_| Unlisted::ToCopy)?;
                let of = Listed { window, pieces: &pieces, starts: &starts, here };
                let at = made.len();
                of.copy(from, len, made).ok_or(Unlisted::ToCopy)?;
                pieces.push_back(Piece::Made(at, len));
                starts.push(here);
                here += len;
            }
            Inst::Copy { len, addr } => {
                let pos = source.pos.saturating_add(addr);
                if source.len.checked_sub(addr).is_none_or(|rest| rest < len as u64) {
                    return Err(Unlisted::ToCopy);
                }
                let taken = content.hold(Extent::new(pos, len as u64), last, &mut |part| {
                    let start = here;
                    here += part.bytes().len();
                    let is_same = if let Some(Piece::Held(before)) = pieces.back_mut() {
                        if before.join(&part) {
                            return;
                        }
                        before.is_of_frame(&part)
                    } else {
                        false
                    };
                    if !is_same && frames.insert(part.frame()) {
                        held += part.weight();
                    }
                    pieces.push_back(Piece::Held(part));
                    starts.push(start);
                });
                taken.map_err(|source| {
                    Unlisted::Failed(vcdiff::Error::Base { window: window.index, pos, len, source })
                })?;
            }
        }
        if pieces.len() > MAX_PIECES || held > MAX_HELD {
            return Err(Unlisted::ToCopy);
        }
    }
    Ok(pieces)
}

/// The part of a window whose pieces are known.
struct Listed<'a> {
    window: &'a Window,
    pieces: &'a VecDeque<Piece>,
    /// Where each piece begins.
    starts: &'a [usize],
    /// Where the last one ends.
    here: usize,
}

impl Listed<'_> {
    /// Appends what lies from some place of the window on to `made`. That may be more than is known: then it repeats itself.
    fn copy(&self, mut from: usize, len: usize, made: &mut Vec<u8>) -> Option<()> {
        let (begin, end) = (made.len(), made.len() + len);
        let first = self.starts.partition_point(|start| *start <= from).checked_sub(1)?;
        for (piece, start) in self.pieces.iter().zip(self.starts).skip(first) {
            if made.len() == end || from >= self.here {
                break;
            }
            let skipped = from.checked_sub(*start)?;
            let part = skipped..piece.len().min(skipped + end - made.len());
            from += part.len();
            match piece {
                Piece::Held(held) => made.extend_from_slice(held.bytes().get(part)?),
                Piece::New(at, _) => made.extend_from_slice(self.window.data.get(*at..)?.get(part)?),
                Piece::Made(at, _) => made.extend_from_within(at + part.start..at + part.end),
                Piece::Run(byte, _) => made.resize(made.len() + part.len(), *byte),
            }
        }
        let mut from = begin + from.saturating_sub(self.here);
        while made.len() < end {
            let part = from..made.len().min(from + end - made.len());
            if part.is_empty() {
                return None;
            }
            from = part.end;
            made.extend_from_within(part);
        }
        Some(())
    }
}

impl SharedStream {
    /// Goes on to the next window, and proves it. The state tells whether there was one.
    fn next(&mut self) -> Result<(), Error> {
        self.pieces.clear();
        self.last = LastFrame::default();
        (self.before)(self.total);
        self.window = match self.reader.next_item()? {
            Some(Item::Window(window)) => window,
            Some(Item::End(record)) => {
                record.check(&self.hasher.finish())?;
                self.state = State::Ended;
                // Nothing may follow.
                return match self.reader.next_item()? {
                    None => Ok(()),
                    Some(_) => Err(Error::Internal("something follows the end record")),
                };
            }
            None => {
                self.state = State::Ended;
                return Ok(());
            }
        };
        self.pieces = match list(&self.window, &self.shared.content, &mut self.last, &mut self.made) {
            Ok(pieces) => pieces,
            Err(Unlisted::Failed(error)) => return Err(error.into()),
            Err(Unlisted::ToCopy) => {
                let (shared, last) = (&self.shared, &mut self.last);
                let adler = self.window.adler32.take();
                let mut read = |pos: u64, buf: &mut [u8]| shared.content.read_near(pos, buf, last);
                self.window.apply(&mut read, &mut self.made)?;
                self.window.adler32 = adler;
                VecDeque::from([Piece::Made(0, self.made.len())])
            }
        };
        self.prove()
    }

    /// Computes the checksums of the window over its pieces.
    fn prove(&mut self) -> Result<(), Error> {
        let mut adler = simd_adler32::Adler32::new();
        let mut run = Vec::new();
        let mut len = 0;
        for piece in &self.pieces {
            let bytes = match piece {
                Piece::Held(held) => held.bytes(),
                Piece::New(at, len) => &self.window.data[*at..][..*len],
                Piece::Made(at, len) => &self.made[*at..][..*len],
                Piece::Run(byte, len) => {
                    run.clear();
                    run.resize(*len, *byte);
                    &run
                }
            };
            len += bytes.len();
            self.hasher.update_with(bytes, &mut adler);
        }
        let (expected, found) = (self.window.adler32, adler.finish());
        if len != self.window.target_len {
            return Err(Error::Internal("the pieces of a window are not its length"));
        }
        self.total += len as u64;
        match expected {
            Some(expected) if expected != found => {
                Err(vcdiff::Error::Checksum { window: self.window.index, expected, found }.into())
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that there is a piece, if there is more. Tells whether there is.
    fn fill(&mut self) -> io::Result<bool> {
        while self.pieces.is_empty() {
            match self.state {
                State::Ended => return Ok(false),
                State::Failed => {
                    return Err(io::Error::other("the differential could not be restored"));
                }
                State::Begun => {}
            }
            if let Err(error) = self.next() {
                self.state = State::Failed;
                self.pieces.clear();
                return Err(io::Error::new(io::ErrorKind::InvalidData, told(&error)));
            }
        }
        Ok(true)
    }

    /// Passes over bytes of the first piece.
    fn advance(&mut self, n: usize) {
        self.at += n;
        if self.pieces.front().is_some_and(|piece| piece.len() <= self.at) {
            self.pieces.pop_front();
            self.at = 0;
        }
    }
}

impl Read for SharedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || !self.fill()? {
            return Ok(0);
        }
        let Some(piece) = self.pieces.front() else { return Ok(0) };
        let n = buf.len().min(piece.len() - self.at);
        let part = self.at..self.at + n;
        match piece {
            Piece::Held(held) => buf[..n].copy_from_slice(&held.bytes()[part]),
            Piece::New(start, _) => buf[..n].copy_from_slice(&self.window.data[*start..][part]),
            Piece::Made(start, _) => buf[..n].copy_from_slice(&self.made[*start..][part]),
            Piece::Run(byte, _) => buf[..n].fill(*byte),
        }
        self.advance(n);
        Ok(n)
    }
}

impl Skip for SharedStream {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        let mut left = n;
        while left > 0 && self.fill()? {
            let Some(piece) = self.pieces.front() else { break };
            let step = (piece.len() - self.at).min(usize::try_from(left).unwrap_or(usize::MAX));
            self.advance(step);
            left -= step as u64;
        }
        Ok(n - left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::seekable::{Seekable, Writer};
    use crate::vcdiff::{WindowBuilder, write_header};
    use std::io::Write;

    const FRAME: usize = 1 << 20;

    /// A full of 40 frames, which need not be of ours for this.
    fn content() -> FrameReader {
        let mut full = Writer::new(Vec::new());
        let frame =
            zstd::bulk::compress(&(0..FRAME).map(|n| (n % 251) as u8).collect::<Vec<_>>(), 1).unwrap();
        for _ in 0..40 {
            full.frame(&frame, FRAME).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&full.finish().unwrap()).unwrap();
        let options = ReadOptions { cache: DECOMPRESSED, checksums: false, fronts: false };
        Arc::new(Seekable::open(file).unwrap().unwrap()).reader(options)
    }

    /// How many pieces a window of 2000 blocks has, each copied from the next of these frames; `None` where it is copied.
    fn pieces(frames: u64) -> Option<usize> {
        let mut delta = write_header(None, None);
        let mut window = WindowBuilder::new();
        for n in 0..2000 {
            window.copy_source(n % frames * FRAME as u64 + n * 400, 4096);
        }
        window.finish(None, &mut delta);
        let item = Reader::new(&delta[..], Limits::default()).unwrap().next_item().unwrap();
        let Some(Item::Window(window)) = item else { panic!("no window") };
        match list(&window, &content(), &mut LastFrame::default(), &mut Vec::new()) {
            Ok(pieces) => Some(pieces.len()),
            Err(Unlisted::ToCopy) => None,
            Err(Unlisted::Failed(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_window_that_goes_to_and_fro_between_some_frames_is_not_copied() {
        assert_eq!([2, 12, 30].map(pieces), [Some(2000), Some(2000), None]);
    }

    /// Whatever a window copies from itself, over pieces of each kind and over its own end, is what a restore makes of it.
    #[test]
    fn what_a_window_copies_from_itself_is_known() {
        let mut delta = write_header(None, None);
        let mut window = WindowBuilder::new();
        window.add(b"0123456789");
        window.copy_source(FRAME as u64 - 20, 40);
        window.copy_source(FRAME as u64 + 20, 10);
        window.run(b'r', 30);
        for n in 0..200 {
            let here = window.target_len();
            let from = (n * 37) % here;
            window.copy_target(from, 5 + (n * 13) % 90);
            window.add(&[n as u8]);
        }
        window.copy_target(window.target_len() - 3, 1000);
        window.finish(None, &mut delta);
        let item = Reader::new(&delta[..], Limits::default()).unwrap().next_item().unwrap();
        let Some(Item::Window(window)) = item else { panic!("no window") };
        let content = content();
        let (mut last, mut made, mut restored) = (LastFrame::default(), Vec::new(), Vec::new());
        let Ok(pieces) = list(&window, &content, &mut last, &mut made) else { panic!("not listed") };
        let mut read = |pos: u64, buf: &mut [u8]| content.read_near(pos, buf, &mut LastFrame::default());
        window.apply(&mut read, &mut restored).unwrap();
        let listed: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| match piece {
                Piece::Held(held) => held.bytes().to_vec(),
                Piece::New(at, len) => window.data[*at..][..*len].to_vec(),
                Piece::Made(at, len) => made[*at..][..*len].to_vec(),
                Piece::Run(byte, len) => vec![*byte; *len],
            })
            .collect();
        assert!(listed == restored);
    }
}
