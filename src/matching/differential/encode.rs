//! Reading the new stream and writing its differential.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Context;
use super::lookup::look_up;
use super::matcher::{Instruction, WholeBase};
use super::segment::{self, BaseView, Scratch};
use super::stretch::{Origin, Reach, Stretch};
use super::unmapped::UnmappedBase;
use crate::container::Encoder;
use crate::container::seekable::ReadOptions;
use crate::matching::base::{Access, Base, Nature};
use crate::matching::chunker::{Segment, Segmenter};
use crate::matching::fingerprint::Secret;
use crate::matching::free_list::FreeList;
use crate::matching::map::{Index, MapReader};
use crate::matching::pipeline::ordered;
use crate::matching::sliding_window::{FAR_COPIES, WINDOW};
use crate::matching::{Error, MAX_THREADS};
use crate::vcdiff::{AppHeader, TargetHasher, write_header};

/// How to make a differential.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that compare, where the base has a map.
    pub threads: usize,
    /// Bytes that are kept of a base that can be read from its front only, at least 16 MiB. Whoever restores needs as many.
    pub window: u64,
    /// Bytes that may be copied from such a base from further back. Whoever restores keeps them in a temporary file.
    /// (xdelta3 finds such bytes only in a base that is not compressed.)
    pub far: u64,
    /// Whether records of one length are copied from within the new stream.
    pub records: bool,
}

/// A base of at most so many bytes, unless it is a VM's, is compared as a whole: so small parts that moved are found, too.
const SMALL: u64 = 16 << 20;

/// MiB of the base that are kept decompressed, and how many less for each thread. Segments that follow one another have
/// their seeds in the same frames.
const DECOMPRESSED: usize = 120;
const PER_THREAD: usize = 24;

impl Default for Options {
    fn default() -> Options {
        Options { threads: 1, window: WINDOW, far: FAR_COPIES, records: true }
    }
}

/// What a differential was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the new stream.
    pub total: u64,
    /// Bytes of it that the differential holds. All others are copied from the base.
    pub new: u64,
}

/// A base that is ready to be encoded against. Until now nothing was written, and nothing of the new stream was read. So
/// where the base cannot serve, a full backup can still be made.
pub struct Prepared {
    path: PathBuf,
    header: Vec<u8>,
    workers: Workers,
    threads: usize,
}

/// Reads what is needed of the base before encoding.
///
/// # Errors
/// Fails where that cannot be read or is damaged.
pub fn prepare(base: Base, options: Options) -> Result<Prepared, Error> {
    let mut header = AppHeader { end_record: true, ..AppHeader::default() };
    base.describe(&mut header);
    if base.is_one_way() {
        header.base_window = Some(options.window);
        header.base_far = options.far > 0;
    }
    let path = base.path.clone();
    let (workers, threads) = Workers::new(base, options)?;
    workers.context.check(&path)?;
    Ok(Prepared { path, header: write_header(Some(&header.encode()), None), workers, threads })
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
    /// Encodes `input` into `out`, which compresses it. `proof` is called before the end is written.
    ///
    /// # Errors
    /// Fails where `input` cannot be read or `out` cannot be written, where `proof` fails, and where the base turned out
    /// to be damaged, because other bytes that were copied from it may be damaged too. The output lacks its end then, which
    /// every reader notices.
    pub fn encode(
        self,
        input: impl Read + Send + 'static,
        mut out: Box<dyn Encoder>,
        proof: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let output = |source| Error::Io { what: "cannot write the differential".into(), source };
        out.write_all(&self.header).map_err(output)?;

        let workers = Arc::new(self.workers);
        let hasher = Arc::new(Mutex::new(TargetHasher::new()));
        let hash = Arc::clone(&hasher);
        let mut segments = Segmenter::new(input)
            .watched(move |bytes| hash.lock().unwrap_or_else(PoisonError::into_inner).update(bytes));
        let buffers = segments.buffers();
        let worker = Arc::clone(&workers);
        ordered(
            self.threads,
            move || segments.next_segment(),
            move |segment| {
                let windows = worker.encode(&segment);
                buffers.give(segment.data);
                Ok(windows)
            },
            |windows| out.write_all(&windows).map_err(output),
        )?;

        workers.context.check(&self.path)?;
        proof()?;
        let end = hasher.lock().unwrap_or_else(PoisonError::into_inner).finish();
        out.write_all(&end.encode()).map_err(output)?;
        out.finish().map_err(output)?;
        Ok(Summary { total: end.total_len, new: workers.context.new_bytes() })
    }
}

/// What encodes segments, in any thread.
struct Workers {
    context: Context,
    source: Source,
    scratch: FreeList<Scratch>,
}

/// The base, as segments are encoded against it.
enum Source {
    /// All of it is known from the start, by its map.
    Mapped { index: Index, map: Arc<MapReader> },
    /// It is read alongside the new stream.
    Unmapped(Box<Mutex<UnmappedBase>>),
    /// All of it is in memory.
    Small(WholeBase),
}

impl Workers {
    /// Prepares the base. Also tells how many threads can work at once.
    fn new(mut base: Base, options: Options) -> Result<(Workers, usize), Error> {
        let threads = options.threads.min(MAX_THREADS);
        let small = match base.nature {
            Nature::Vma => None,
            _ => base.read_small(SMALL.min(options.window) as usize),
        };
        if let Some((all, error)) = small {
            let source = Source::Small(WholeBase::new(all));
            let workers = Workers::with(Secret::new(&Default::default()), source, options.records);
            error.iter().for_each(|error| workers.context.note_damage(error));
            return Ok((workers, threads));
        }
        let (secret, source, threads) = match base.access {
            Access::Mapped(map) => {
                let cache = (DECOMPRESSED - threads.max(1) * PER_THREAD) << 20;
                let map = Arc::new(map.reader(ReadOptions { cache, checksums: true, fronts: true }));
                let index = Index::of_map(Arc::clone(&map))?;
                (map.secret().clone(), Source::Mapped { index, map }, threads)
            }
            Access::Random(content) => {
                let content = Arc::new(content.reader(ReadOptions::default()));
                let (secret, base) = UnmappedBase::random(content)?;
                (secret, Source::Unmapped(Box::new(Mutex::new(base))), 1)
            }
            Access::OneWay(content) => {
                let (secret, base) = UnmappedBase::one_way(content.stream, options.window, options.far)?;
                (secret, Source::Unmapped(Box::new(Mutex::new(base))), 1)
            }
        };
        Ok((Workers::with(secret, source, options.records), threads))
    }

    fn with(secret: Secret, source: Source, records: bool) -> Workers {
        Workers { context: Context::new(secret, records), source, scratch: FreeList::default() }
    }

    /// Encodes a segment. The result is its VCDIFF windows.
    fn encode(&self, segment: &Segment) -> Vec<u8> {
        let mut scratch = self.scratch.take();
        let windows = self.encode_with(segment, &mut scratch);
        self.scratch.give(scratch);
        windows
    }

    fn encode_with(&self, segment: &Segment, scratch: &mut Scratch) -> Vec<u8> {
        let context = &self.context;
        // Where the base is not compressed frame by frame, a MiB of it counts as a zone.
        let mebibyte = |pos: u64| pos >> 20;
        match &self.source {
            Source::Mapped { index, map } => {
                let found = look_up(context, segment, index, Reach::ALL);
                let zone = |pos| map.frame_at(pos);
                let base =
                    BaseView { content: map.content(), zone: &zone, index: Some(index), readable_from: 0 };
                segment::encode(context, segment, &base, &found.stretches, Some(found.adler32), scratch)
                    .windows
            }
            Source::Unmapped(unmapped) => {
                let mut unmapped = unmapped.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = unmapped.advance(segment) {
                    context.note_damage(&error);
                }
                let found = look_up(context, segment, &unmapped.index, unmapped.reach());
                let base = BaseView {
                    content: &*unmapped,
                    zone: &mebibyte,
                    index: Some(&unmapped.index),
                    readable_from: found.reach.readable_from,
                };
                let encoded =
                    segment::encode(context, segment, &base, &found.stretches, Some(found.adler32), scratch);
                unmapped.encoded(segment, encoded.drift, found.reach.copyable);
                encoded.windows
            }
            Source::Small(whole) => {
                let stretches = compare(whole, segment);
                let base = BaseView { content: whole, zone: &mebibyte, index: None, readable_from: 0 };
                segment::encode(context, segment, &base, &stretches, None, scratch).windows
            }
        }
    }
}

/// Finds the stretches of a segment by comparing it with all of a base.
fn compare(base: &WholeBase, segment: &Segment) -> Vec<Stretch> {
    let mut all = Vec::new();
    base.compare(&segment.data, segment.start as isize, |instruction| {
        all.push(match instruction {
            Instruction::Literal { at, len } => Stretch { at, len, origin: Origin::Changed(None) },
            Instruction::Copy { at, from, len } => Stretch { at, len, origin: Origin::Equal(from as u64) },
        })
    });
    all
}
