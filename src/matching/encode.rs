//! Making a differential.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::base::{Base, Content, Nature};
use super::cut::{Segment, Segmenter};
use super::fine::{Part, Whole};
use super::growing::Growing;
use super::index::Index;
use super::job::{Job, Scratch, Stretch};
use super::old::Placed;
use super::pipeline::ordered;
use super::print::Secret;
use super::sliding::WINDOW;
use super::spare::Spare;
use super::{BaseProblem, Error, MAX_THREADS, chain};
use crate::container::{Encoder, ReadAt};
use crate::vcdiff::{AppHeader, TargetHasher, write_header};

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
    /// Whether records of one length are copied from within the new stream.
    pub records: bool,
}

/// A base of this size that is no VM's is compared with as a whole: small things that moved are found, too.
const SMALL: u64 = 16 << 20;

/// MiB of the base that are kept decompressed, less what each thread takes: segments that follow one another look for
/// their seeds in the same frames.
const DECOMPRESSED: usize = 120;
const PER_THREAD: usize = 24;

/// What may be copied from further back than the window.
pub const FAR: u64 = super::far::ROOM;

impl Default for Options {
    fn default() -> Options {
        Options { threads: 1, window: WINDOW, far: FAR, records: true }
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

/// A base that is ready to be encoded against. Up to here nothing was written and nothing of the new stream read, so
/// that a full backup can still be made where the base cannot serve.
pub struct Prepared {
    path: PathBuf,
    header: Vec<u8>,
    engine: Engine,
    threads: usize,
}

/// Reads what encoding needs of the base from the start.
///
/// # Errors
/// Where that cannot be read or is damaged.
pub fn prepare(base: Base, options: Options) -> Result<Prepared, Error> {
    let mut header = AppHeader { end_record: true, ..AppHeader::default() };
    base.describe(&mut header);
    if matches!(base.content, Content::Stream(_)) {
        header.base_window = Some(options.window);
        header.base_far = options.far > 0;
    }
    let path = base.path.clone();
    let (engine, threads) = Engine::new(base, options)?;
    engine.sound(&path)?;
    Ok(Prepared { path, header: write_header(Some(&header.encode()), None), engine, threads })
}

/// Encodes `input` against `base` into `out`, which compresses it.
///
/// # Errors
/// As [`prepare`] and [`Prepared::encode`].
pub fn diff(
    input: impl Read + Send + 'static,
    base: Base,
    out: Box<dyn Encoder>,
    options: Options,
) -> Result<Summary, Error> {
    prepare(base, options)?.encode(input, out, || Ok(()))
}

impl Prepared {
    /// Encodes `input` into `out`, which compresses it. `proof` is asked before the end is written.
    ///
    /// # Errors
    /// Those of reading `input`, of writing, and of `proof`; where the base is damaged, as far as that showed: whatever
    /// else was copied from it may be damaged, too. The output is recognisably incomplete then.
    pub fn encode(
        self,
        input: impl Read + Send + 'static,
        mut out: Box<dyn Encoder>,
        proof: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let output = |source| Error::Io { what: "cannot write the differential".into(), source };
        out.write_all(&self.header).map_err(output)?;

        let engine = Arc::new(self.engine);
        let hasher = Arc::new(Mutex::new(TargetHasher::new()));
        let hash = Arc::clone(&hasher);
        let mut segments = Segmenter::new(input)
            .watched(move |bytes| hash.lock().unwrap_or_else(PoisonError::into_inner).update(bytes));
        let spare = segments.spare();
        let worker = Arc::clone(&engine);
        ordered(
            self.threads,
            move || segments.next_segment(),
            move |segment| {
                let windows = worker.encode(&segment);
                spare.give(segment.data);
                windows
            },
            |windows| out.write_all(&windows).map_err(output),
        )?;

        engine.sound(&self.path)?;
        proof()?;
        let end = hasher.lock().unwrap_or_else(PoisonError::into_inner).finish();
        out.write_all(&end.encode()).map_err(output)?;
        out.finish().map_err(output)?;
        Ok(Summary { total: end.total_len, new: engine.new.load(Ordering::Relaxed) })
    }
}

/// What all workers share.
pub(super) struct Engine {
    pub secret: Secret,
    /// See [`Options::records`].
    pub records: bool,
    view: View,
    /// Bytes that the differential holds.
    pub new: AtomicU64,
    /// Damage of the base; the first few cases.
    findings: Mutex<Vec<String>>,
    pub scratch: Spare<Scratch>,
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
            let engine =
                Engine::with(Secret::new(&Default::default()), View::Small(Whole::new(all)), options.records);
            if let Some(error) = error {
                engine.finding(&error);
            }
            return Ok((engine, threads));
        }
        let (secret, view, threads) = match base.content {
            Content::Mapped(map) => {
                map.keep((DECOMPRESSED - threads.max(1) * PER_THREAD) << 20);
                map.fronts();
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
        Ok((Engine::with(secret, view, options.records), threads))
    }

    fn with(secret: Secret, view: View, records: bool) -> Engine {
        Engine {
            secret,
            records,
            view,
            new: AtomicU64::new(0),
            findings: Mutex::default(),
            scratch: Spare::default(),
        }
    }

    fn encode(&self, segment: &Segment) -> Result<Vec<u8>, Error> {
        match &self.view {
            View::Whole { index, content } => {
                let mut job = Job::new(self, segment, content.as_ref(), Some(index), (0, 0));
                let stretches = job.stretches(index);
                Ok(job.run(&stretches).out)
            }
            View::Growing(growing) => {
                let mut growing = growing.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(e) = growing.advance(segment) {
                    self.finding(&e);
                }
                let mut job = Job::new(self, segment, &*growing, Some(&growing.index), growing.far());
                let stretches = job.stretches(&growing.index);
                let done = job.run(&stretches);
                growing.encoded(segment, done.drift, done.far);
                Ok(done.out)
            }
            View::Small(whole) => {
                let stretches = compared(whole, segment);
                Ok(Job::new(self, segment, whole, None, (0, 0)).run(&stretches).out)
            }
        }
    }

    /// Refuses a base of which damage was found.
    fn sound(&self, path: &Path) -> Result<(), Error> {
        let findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        match findings.is_empty() {
            true => Ok(()),
            false => Err(Error::base(path, BaseProblem::Damaged(findings.join("; ")))),
        }
    }

    /// Keeps a finding for later.
    pub fn finding(&self, error: &dyn std::error::Error) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{error}{}", chain(error));
        if findings.len() < 3 && !findings.contains(&text) {
            findings.push(text);
        }
    }
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
