//! Applying the windows of a differential to its base.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::copied::copied;
use super::differential::Differential;
use super::one_way::OneWayBase;
use super::read_ahead::{EXTENTS, ReadAhead};
use crate::container::seekable::{LastFrame, ReadOptions};
use crate::container::{Extent, RandomReader};
use crate::matching::base::{Access, Base};
use crate::matching::free_list::FreeList;
use crate::matching::pipeline::ordered;
use crate::matching::{Error, MAX_THREADS};
use crate::vcdiff::{self, EndRecord, Item, Order, TargetHasher, Window};

/// How to restore.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that apply windows, where the base can be read at any position.
    pub threads: usize,
    /// Bytes that are kept of a base that can be read from its front only. If the differential's header asks for more, it is
    /// that many, up to [`MAX_KEPT`].
    pub window: u64,
    /// Whether the base is refused if the differential's header says that it is another one.
    pub check_base: bool,
}

/// The most bytes of a base that a header can ask to be kept: 2 GiB, as many as xdelta3's `-B` can. What does not fit into
/// the window is kept in a temporary file.
pub const MAX_WINDOW: u64 = 2 << 30;

/// How many of these bytes are kept in memory, if nothing but the header asks for them.
pub const MAX_KEPT: u64 = 256 << 20;

/// A thread gets up to so many windows, or bytes of windows, at once: to pass on a small window takes longer than to apply
/// it.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 256 << 10;
/// The most bytes of windows that are being worked on, unless there is only one batch. The threads reach this where windows
/// are 8 MiB long and new, as ours can be.
const MAX_BYTES: usize = 128 << 20;

/// MiB of the base that are kept decompressed, and how many less for each thread. Windows copy from all over the base.
const DECOMPRESSED: usize = 112;
const PER_THREAD: usize = 8;

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Number of windows, without the end record.
    pub windows: u64,
    /// Bytes that were restored.
    pub total: u64,
    /// Whether the differential ended in an end record.
    pub ended: bool,
}

impl Differential {
    /// Rebuilds the stream, and passes it to `sink`. `base` is none where the differential needs none. Nothing is passed on
    /// before the base was checked, and no window before its checksum was verified.
    ///
    /// # Errors
    /// Fails where the differential is damaged, the base is damaged where it is copied from or is the wrong one, and where
    /// `sink` fails.
    pub fn restore(
        self,
        base: Option<Base>,
        options: Options,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Outcome, Error> {
        let header = self.header();
        if let Some(base) = &base
            && options.check_base
        {
            base.check(&header)?;
        }
        let mut threads = options.threads.clamp(1, MAX_THREADS);
        let random = base.as_ref().and_then(Base::random_access);
        let source = match (random, base.map(|base| base.access)) {
            (Some(content), _) => {
                // What we wrote has a checksum in every window, and one of the whole, so those of the base are not needed;
                // they are where the end record does not know the target.
                let trusted = self.checksums && header.end_record && !header.end_of_delta;
                let cache = (DECOMPRESSED - threads * PER_THREAD) << 20;
                let options = ReadOptions { cache, checksums: !trusted, fronts: trusted };
                Source::Random(Arc::new(content.reader(options)))
            }
            (None, Some(Access::OneWay(content))) => {
                threads = 1;
                let asked = header.base_window.unwrap_or(0).min(MAX_WINDOW);
                let window = options.window.max(asked.min(MAX_KEPT));
                let base = OneWayBase::new(content, window, asked, self.file, header.base_far);
                Source::OneWay(Box::new(base))
            }
            (None, _) => Source::None,
        };
        let random = match &source {
            Source::Random(content) => Some(Arc::clone(content)),
            Source::None | Source::OneWay(_) => None,
        };
        let mut windows = ReadAhead::new(self.reader, random.clone());
        // Buffers are used again, so that none is allocated and cleared for every window.
        let buffers = FreeList::<Vec<u8>>::default();
        let taken = buffers.clone();
        let limiter = Limiter::default();
        let (begun, ended) = (limiter.clone(), Release(&limiter));
        let mut hasher = TargetHasher::new();
        let mut outcome = Outcome::default();
        let checksums = self.checksums;
        let apply = move |item: Item| -> Result<Done, Error> {
            match item {
                Item::End(record) => Ok(Done::End(record)),
                Item::Window(mut window) => {
                    // The checksum is verified below, together with the hash of the whole.
                    let adler = window.adler32.take().filter(|_| checksums);
                    let mut last = LastFrame::default();
                    let mut out = taken.take();
                    window.apply_in(
                        source.order(&window),
                        &mut |pos, buf| source.read_at(pos, buf, &mut last),
                        &mut out,
                    )?;
                    Ok(Done::Window(window, adler, out))
                }
            }
        };
        let mut finish = |done: Done| -> Result<(), Error> {
            match done {
                Done::Window(window, adler, bytes) => {
                    let found = hasher.update_and_sum(&bytes);
                    if let Some(expected) = adler.filter(|expected| *expected != found) {
                        return Err(wrong_sum(&window, expected, found, random.as_deref()).into());
                    }
                    if let Some(base) = &random {
                        base.passed(outcome.windows);
                    }
                    outcome.windows += 1;
                    outcome.total += bytes.len() as u64;
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    sink(&bytes).map_err(|source| Error::Io {
                        what: "cannot write the restored data".into(),
                        source,
                    })?;
                    buffers.give(bytes);
                    Ok(())
                }
                Done::End(record) => {
                    outcome.ended = true;
                    Ok(record.check(&hasher.finish())?)
                }
            }
        };
        ordered(
            threads,
            move || {
                let batch = Batch::read(&mut windows)?;
                begun.add(batch.as_ref().map_or(0, |batch| batch.bytes));
                Ok(batch)
            },
            // What comes before an error is handed out before the error.
            move |Batch { items, error, bytes }| {
                let mut done = Vec::with_capacity(items.len());
                let applied = items.into_iter().try_for_each(|item| {
                    done.push(apply(item)?);
                    Ok(())
                });
                Ok((done, applied.and(error.map_or(Ok(()), Err)), bytes))
            },
            |(done, applied, bytes): (Vec<Done>, Result<(), Error>, usize)| {
                done.into_iter().try_for_each(&mut finish)?;
                ended.0.remove(bytes);
                applied
            },
        )?;
        Ok(outcome)
    }
}

/// An item that was applied.
enum Done {
    /// A window, the Adler-32 that it should have, and the bytes that it makes.
    Window(Window, Option<u32>, Vec<u8>),
    /// The end record.
    End(EndRecord),
}

/// Items that follow one another, and the error behind them, if there is one.
struct Batch {
    items: Vec<Item>,
    error: Option<Error>,
    bytes: usize,
}

impl Batch {
    fn read(windows: &mut ReadAhead<impl Read>) -> Result<Option<Batch>, Error> {
        let mut batch = Batch { items: Vec::new(), error: None, bytes: 0 };
        while batch.items.len() < BATCH && batch.bytes < BATCH_BYTES {
            match windows.next_item() {
                Ok(Some(item)) => {
                    if let Item::Window(w) = &item {
                        batch.bytes += w.target_len + w.data.len() + w.inst.len() + w.addr.len();
                    }
                    batch.items.push(item);
                }
                Ok(None) => break,
                Err(error) if batch.items.is_empty() => return Err(error),
                Err(error) => {
                    batch.error = Some(error);
                    break;
                }
            }
        }
        Ok((!batch.items.is_empty()).then_some(batch))
    }
}

/// Limits how many bytes of windows are being worked on. Whoever reads more of them waits.
#[derive(Clone, Default)]
struct Limiter(Arc<(Mutex<usize>, Condvar)>);

impl Limiter {
    fn add(&self, bytes: usize) {
        let (held, freed) = &*self.0;
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let too_many = |held: &mut usize| *held > 0 && *held + bytes > MAX_BYTES;
        *freed.wait_while(held, too_many).unwrap_or_else(PoisonError::into_inner) += bytes;
    }

    fn remove(&self, bytes: usize) {
        let (held, freed) = &*self.0;
        *held.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        freed.notify_all();
    }
}

/// Releases the reading thread from the limiter when the restore is over, however it ended.
struct Release<'a>(&'a Limiter);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        let (held, freed) = &*self.0.0;
        *held.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        freed.notify_all();
    }
}

/// Where windows copy from.
pub(super) enum Source {
    /// There is no base.
    None,
    /// The base can be read at any position.
    Random(Arc<RandomReader>),
    /// The base can be read from its front only.
    OneWay(Box<OneWayBase>),
}

impl Source {
    pub fn read_at(&self, pos: u64, buf: &mut [u8], last: &mut LastFrame) -> io::Result<()> {
        match self {
            Source::None => Err(io::Error::other("the differential needs a full backup, but none was given")),
            Source::Random(content) => content.read_near(pos, buf, last),
            Source::OneWay(base) => base.read_at(pos, buf),
        }
    }

    /// In which order a window's copies are made. Windows that follow one another often copy from the same frames of the
    /// base. Every second one begins at the other end, so that their threads do not wait for each other at every frame, and
    /// what was read last is still there.
    fn order(&self, window: &Window) -> Order {
        match self {
            Source::Random(_) if window.index % 2 == 1 => Order::Falling,
            _ => Order::Rising,
        }
    }
}

/// The error for a window with a wrong checksum. Perhaps the base is damaged where the window copied from.
fn wrong_sum(window: &Window, expected: u32, found: u32, base: Option<&RandomReader>) -> vcdiff::Error {
    let damage = |extent: Extent| {
        let source = base?.verify(extent).err()?;
        Some(vcdiff::Error::Base { window: window.index, pos: extent.pos, len: extent.len as usize, source })
    };
    let damaged = copied(window, EXTENTS, 0).into_iter().find_map(damage);
    damaged.unwrap_or(vcdiff::Error::Checksum { window: window.index, expected, found })
}
