//! Making a differential.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::base::{Base, Content, Nature};
use super::cut::{Piece, Segment, Segmenter};
use super::fine::{self, Part, Whole, Workspace};
use super::growing::Growing;
use super::index::{Found, Index};
use super::old::{Hint, MAX_OLD, Old, Placed, hinted, places};
use super::pipeline::ordered;
use super::print::Secret;
use super::records;
use super::sliding::WINDOW;
use super::spare::Spare;
use super::{Error, MAX_THREADS, chain};
use crate::container::{Encoder, ReadAt};
use crate::vcdiff::{AppHeader, MAX_SEGMENT, TargetHasher, WindowBuilder, write_header};

/// Shortest run of one byte worth an instruction of its own.
const MIN_RUN: usize = 64;

/// How to make a differential.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that compare, where the base has a map.
    pub threads: usize,
    /// Bytes kept of a base that can only be read from the front, 16 MiB at least; whoever restores needs as many.
    pub window: u64,
    /// Bytes that may be copied from such a base from further back; whoever restores keeps them in a temporary file.
    /// xdelta3 finds these only in a base that is not compressed.
    pub far: u64,
}

/// A base of this size that is no VM's is compared with as a whole: small things that moved are found, too.
const SMALL: u64 = 16 << 20;

/// What may be copied from further back than the window.
pub const FAR: u64 = 1 << 30;

impl Default for Options {
    fn default() -> Options {
        Options { threads: 1, window: WINDOW, far: FAR }
    }
}

/// What a differential was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the new stream.
    pub total: u64,
    /// Bytes of it that the differential holds; all others are copied from the base.
    pub new: u64,
}

/// Encodes `input` against `base` into `out`, which compresses it.
///
/// Damage of the base that shows costs size, never the differential: what cannot be compared is
/// stored. Each such finding is passed to `warn`.
///
/// # Errors
/// Those of reading `input` and of writing. The output is recognisably incomplete then.
pub fn diff(
    input: impl Read + Send + 'static,
    base: Base,
    mut out: Box<dyn Encoder>,
    options: Options,
    mut warn: impl FnMut(String),
) -> Result<Summary, Error> {
    let output = |source| Error::Io { what: "cannot write the differential".into(), source };
    let mut header = AppHeader { end_record: true, ..AppHeader::default() };
    base.describe(&mut header);
    if matches!(base.content, Content::Stream(_)) {
        header.base_window = Some(options.window);
        header.base_far = options.far > 0;
    }
    out.write_all(&write_header(Some(&header.encode()), None)).map_err(output)?;

    let path = base.path.clone();
    let name = path.display();
    let (engine, threads) = Engine::new(base, options)?;
    let engine = Arc::new(engine);
    let hasher = Arc::new(Mutex::new(TargetHasher::new()));

    let mut segments = Segmenter::new(input);
    let spare = segments.spare();
    let hash = Arc::clone(&hasher);
    let worker = Arc::clone(&engine);
    ordered(
        threads,
        move || {
            let segment = segments.next_segment()?;
            if let Some(segment) = &segment {
                hash.lock().unwrap_or_else(PoisonError::into_inner).update(&segment.data);
            }
            Ok(segment)
        },
        move |segment| {
            let windows = worker.encode(&segment);
            spare.give(segment.data);
            windows
        },
        |windows| out.write_all(&windows).map_err(output),
    )?;

    let end = hasher.lock().unwrap_or_else(PoisonError::into_inner).finish();
    out.write_all(&end.encode()).map_err(output)?;
    out.finish().map_err(output)?;
    for finding in engine.findings.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        warn(format!(
            "the full backup {name} seems damaged ({finding}): make a new full backup, and verify this one"
        ));
    }
    Ok(Summary { total: end.total_len, new: engine.new.load(Ordering::Relaxed) })
}

/// What all workers share.
struct Engine {
    secret: Secret,
    view: View,
    new: AtomicU64,
    /// Damage of the base; the first few cases.
    findings: Mutex<Vec<String>>,
    scratch: Spare<Scratch>,
}

/// What a worker needs for every segment.
#[derive(Default)]
struct Scratch {
    window: WindowBuilder,
    old: Old,
    space: Workspace,
}

/// The base, as the workers see it.
enum View {
    /// All of it is known from the start.
    Whole { index: Index, content: Arc<dyn ReadAt> },
    /// It is read alongside the new stream.
    Growing(Box<Mutex<Growing>>),
    /// It is in memory.
    Small(Whole),
}

impl Engine {
    /// Also tells how many workers may be used.
    fn new(mut base: Base, options: Options) -> Result<(Engine, usize), Error> {
        let threads = options.threads.min(MAX_THREADS);
        let small = match base.nature {
            Nature::Vma => None,
            _ => base.content.all(SMALL.min(options.window) as usize),
        };
        if let Some((all, error)) = small {
            let engine = Engine::with(Secret::new(&Default::default()), View::Small(Whole::new(all)));
            if let Some(error) = error {
                engine.finding(&error);
            }
            return Ok((engine, threads));
        }
        let (secret, view, threads) = match base.content {
            Content::Mapped(map) => {
                let index = Index::of_map(Arc::clone(&map))?;
                (map.secret().clone(), View::Whole { index, content: map }, threads)
            }
            Content::Random(content) => {
                let (secret, growing) = Growing::anywhere(content)?;
                (secret, View::Growing(Box::new(Mutex::new(growing))), 1)
            }
            Content::Stream(stream) => {
                let (secret, growing) = Growing::one_way(stream, options.window, options.far)?;
                (secret, View::Growing(Box::new(Mutex::new(growing))), 1)
            }
        };
        Ok((Engine::with(secret, view), threads))
    }

    fn with(secret: Secret, view: View) -> Engine {
        Engine { secret, view, new: AtomicU64::new(0), findings: Mutex::default(), scratch: Spare::default() }
    }

    fn encode(&self, segment: &Segment) -> Result<Vec<u8>, Error> {
        match &self.view {
            View::Whole { index, content } => {
                let mut job = Job::new(self, segment, content.as_ref(), (0, 0));
                let stretches = job.stretches(index);
                Ok(job.run(&stretches).out)
            }
            View::Growing(growing) => {
                let mut growing = growing.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(e) = growing.advance(segment) {
                    self.finding(&e);
                }
                let mut job = Job::new(self, segment, &*growing, growing.far());
                let stretches = job.stretches(&growing.index);
                let done = job.run(&stretches);
                growing.encoded(segment, done.drift, done.far);
                Ok(done.out)
            }
            View::Small(whole) => {
                let stretches = compared(whole, segment);
                Ok(Job::new(self, segment, whole, (0, 0)).run(&stretches).out)
            }
        }
    }

    fn finding(&self, error: &dyn std::error::Error) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{error}{}", chain(error));
        if findings.len() < 3 && !findings.contains(&text) {
            findings.push(text);
        }
    }
}

/// A stretch of a segment, and where it lies in the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// Equal to the base's bytes from here on.
    Equal(u64),
    /// Changed; the old bytes of the same block, where there are any.
    Changed(Option<(u64, u64)>),
    /// A header of a VMA archive, most of which is new each time: stored. To compare it, nearly every frame of
    /// the base would have to be decompressed.
    Fresh,
}

/// The stretches of a segment that all of a base can be searched for.
fn compared(base: &Whole, segment: &Segment) -> Vec<Placed> {
    let mut all = Vec::new();
    base.compare(&segment.data, segment.start as isize, |part| {
        all.push(match part {
            Part::Literal { at, len } => (at, len, Stretch::Changed(None)),
            Part::Copy { at, from, len } => (at, len, Stretch::Equal(from as u64)),
        })
    });
    all
}

/// Encodes one segment.
struct Job<'a> {
    engine: &'a Engine,
    segment: &'a Segment,
    content: &'a dyn ReadAt,
    /// Where the window in work began in the segment.
    begun: usize,
    out: Vec<u8>,
    drift: Option<i64>,
    /// What lies before this place of the base cannot be read, only be copied, and no more than this.
    far: (u64, u64),
    scratch: Scratch,
}

/// An encoded segment.
struct Done {
    /// Its windows.
    out: Vec<u8>,
    /// Where the base's bytes lie relative to it, if anything was found.
    drift: Option<i64>,
    /// What may still be copied of what cannot be read.
    far: u64,
}

impl<'a> Job<'a> {
    fn new(engine: &'a Engine, segment: &'a Segment, content: &'a dyn ReadAt, far: (u64, u64)) -> Job<'a> {
        Job {
            engine,
            segment,
            content,
            begun: 0,
            out: Vec::new(),
            drift: None,
            far,
            scratch: engine.scratch.take(),
        }
    }

    fn run(mut self, stretches: &[Placed]) -> Done {
        for (n, &(at, len, stretch)) in stretches.iter().enumerate() {
            match stretch {
                Stretch::Equal(from) => {
                    self.copy(from, len);
                    self.drift = Some(from as i64 - (self.segment.start + at as u64) as i64);
                }
                Stretch::Fresh => self.literal(&self.segment.data[at..at + len]),
                Stretch::Changed(old) => {
                    if let Some((from, had)) = old {
                        let middle = (from + had / 2) as i64 - (len / 2) as i64;
                        self.drift = Some(middle - (self.segment.start + at as u64) as i64);
                    }
                    self.changed(at, len, &places(stretches, n, self.segment.start == 0));
                }
            }
        }
        self.finish_window(self.segment.data.len());
        self.engine.scratch.give(self.scratch);
        Done { out: self.out, drift: self.drift, far: self.far.1 }
    }

    /// Looks every piece up, and joins neighbours that stay neighbours in the base.
    fn stretches(&mut self, index: &Index) -> Vec<Placed> {
        let mut cursor = index.cursor();
        let mut all: Vec<Placed> = Vec::new();
        let mut hints = Vec::new();
        for piece in self.segment.pieces() {
            let found = self.find(&mut cursor, &piece).filter(|found| self.within_reach(found));
            if let (None, Some(hash)) = (found, piece.mark)
                && let Some(from) = self.known(cursor.find_mark(hash))
            {
                hints.push(Hint { at: piece.at + piece.len, from });
            }
            let stretch = match found {
                None if piece.gap && self.segment.start + piece.at as u64 > 0 => Stretch::Fresh,
                Some(Found { at, equal: true, .. }) => Stretch::Equal(at),
                Some(Found { at, len, .. }) => Stretch::Changed(Some((at, len as u64))),
                None => Stretch::Changed(None),
            };
            if let Some((at, len, last)) = all.last_mut() {
                let joined = match (&mut *last, stretch) {
                    (Stretch::Equal(from), Stretch::Equal(next)) => *from + *len as u64 == next,
                    (Stretch::Changed(Some((from, old))), Stretch::Changed(Some((next, more))))
                        if *from + *old == next && *old < MAX_OLD =>
                    {
                        *old += more;
                        true
                    }
                    (Stretch::Changed(None), Stretch::Changed(None)) => true,
                    _ => false,
                };
                if joined {
                    *len += piece.len;
                    debug_assert_eq!(*at + *len, piece.at + piece.len);
                    continue;
                }
            }
            all.push((piece.at, piece.len, stretch));
        }
        hinted(all, &hints)
    }

    fn find(&self, cursor: &mut super::index::Cursor<'_>, piece: &Piece) -> Option<Found> {
        if piece.gap {
            return None;
        }
        let print = self.engine.secret.print(&self.segment.data[piece.at..piece.at + piece.len]);
        self.known(cursor.find(piece, print))
    }

    /// Whether what was found can be copied.
    fn within_reach(&mut self, found: &Found) -> bool {
        let (near, left) = self.far;
        if found.at < near && found.equal {
            let Some(left) = left.checked_sub(found.len as u64) else { return false };
            self.far.1 = left;
        }
        true
    }

    /// What was found, if anything: where the base is damaged, nothing is.
    fn known<T>(&self, found: Result<Option<T>, Error>) -> Option<T> {
        found.unwrap_or_else(|e| {
            self.engine.finding(&e);
            None
        })
    }

    fn changed(&mut self, at: usize, len: usize, places: &[(u64, u64)]) {
        let new = &self.segment.data[at..at + len];
        let (mut old, mut space) =
            (std::mem::take(&mut self.scratch.old), std::mem::take(&mut self.scratch.space));
        if let Some(e) = old.fetch(self.content, places) {
            // No longer in the sliding window: to be expected. Anything else is damage.
            if e.kind() != io::ErrorKind::NotFound {
                self.engine.finding(&e);
            }
        }
        fine::compare(&old.bytes, new, 0, &mut space, |part| match part {
            Part::Literal { at, len } => self.literal(&new[at..at + len]),
            Part::Copy { from, len, .. } => {
                old.origins(from, len).for_each(|(from, len)| self.copy(from, len))
            }
        });
        (self.scratch.old, self.scratch.space) = (old, space);
    }

    fn copy(&mut self, from: u64, len: usize) {
        if self.scratch.window.span_with(from, len as u64) > MAX_SEGMENT {
            self.finish_window(self.begun + self.scratch.window.target_len());
        }
        self.scratch.window.copy_source(from, len);
    }

    fn literal(&mut self, bytes: &[u8]) {
        self.engine.new.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let begun = self.scratch.window.target_len();
        records::split(bytes, |part| match part {
            Part::Literal { at, len } => self.add(&bytes[at..at + len]),
            Part::Copy { from, len, .. } => self.scratch.window.copy_target(begun + from, len),
        });
    }

    fn add(&mut self, bytes: &[u8]) {
        let mut done = 0;
        let mut at = 0;
        // Every run of MIN_RUN bytes covers one of these places and the one before it.
        const STEP: usize = MIN_RUN / 2;
        while at + STEP <= bytes.len() {
            let b = bytes[at];
            if bytes[at..at + STEP].iter().all(|&c| c == b) {
                let start = at - bytes[done..at].iter().rev().take_while(|&&c| c == b).count();
                let end = at + bytes[at..].iter().take_while(|&&c| c == b).count();
                if end - start >= MIN_RUN {
                    self.scratch.window.add(&bytes[done..start]);
                    self.scratch.window.run(b, end - start);
                    done = end;
                }
                at = end;
            } else {
                at += STEP;
            }
        }
        self.scratch.window.add(&bytes[done..]);
    }

    /// Ends the window in work, which reaches to `end` in the segment.
    fn finish_window(&mut self, end: usize) {
        let adler = simd_adler32::adler32(&&self.segment.data[self.begun..end]);
        self.scratch.window.finish(Some(adler), &mut self.out);
        self.begun = end;
    }
}
