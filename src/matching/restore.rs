//! Restoring from a differential.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam_channel::bounded;

use super::ahead::{Ahead, RANGES, copied};
use super::base::{Base, Content, Proof};
use super::pipeline::ordered;
use super::sliding::SlidingBase;
use super::{BaseProblem, Error, MAX_THREADS};
use crate::container::source::{self, Found, Pass, Refused};
use crate::container::{self, Near, Parts, ReadAt};
use crate::text::{shown, shown_bytes};
use crate::vcdiff::{self, AppHeader, Item, Limits, Order, Reader, TargetHasher, Window};

/// How to restore.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that apply windows, where the base can be read at any place.
    pub threads: usize,
    /// Bytes kept of a base that can only be read from the front; as many as the header asks for, if that is more,
    /// up to [`MAX_KEPT`].
    pub window: u64,
    /// Whether a base that its header does not describe is refused.
    pub check_base: bool,
}

/// What a header can ask to be kept of a base: 2 GiB, as much as xdelta3's `-B` can. What lies further back than is
/// kept comes from a temporary file.
pub const MAX_WINDOW: u64 = 2 << 30;

/// What of that is kept in memory on the header's word alone.
pub const MAX_KEPT: u64 = 256 << 20;

/// Windows that are applied at once by one thread, and their bytes: to pass a small one on takes longer than to apply it.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 256 << 10;
/// Bytes of windows that are under way at a time, unless there is only one batch: those of all threads where windows are
/// 8 MiB long and new, as ours can be.
const UNDER_WAY: usize = 128 << 20;

/// MiB of the base that are kept decompressed, less what each thread takes. Windows copy from all over the base.
const DECOMPRESSED: usize = 112;
const PER_THREAD: usize = 8;

/// A differential whose header was read.
pub struct Differential {
    pub(super) reader: Reader<Box<dyn Read + Send>>,
    checksums: bool,
    again: Option<Pass>,
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Windows of the differential, its end record not counted.
    pub windows: u64,
    /// Bytes restored.
    pub total: u64,
    /// The differential ended in an end record.
    pub ended: bool,
}

impl Differential {
    /// Reads the header; `input` may be compressed.
    ///
    /// # Errors
    /// Where it is no differential, or cannot be read.
    pub fn open(input: Box<dyn Read + Send>) -> Result<Differential, Error> {
        let (_, stream) = container::decoder(input)
            .map_err(|source| Error::Io { what: "cannot read the differential".into(), source })?;
        Differential::new(stream)
    }

    /// Reads the header of a differential that is not compressed.
    ///
    /// # Errors
    /// Where it is no differential, or cannot be read.
    pub fn new(stream: Box<dyn Read + Send>) -> Result<Differential, Error> {
        Ok(Differential { reader: Reader::new(stream, Limits::default())?, checksums: true, again: None })
    }

    /// Tells how to read it once more, should that be of use; see [`Pass::from_here`].
    pub fn with(self, again: Option<Pass>) -> Differential {
        Differential { again, ..self }
    }

    /// Does without the windows' checksums, as `xdelta3 -n` does. An end record is checked all the same.
    pub fn without_checksums(self) -> Differential {
        Differential { checksums: false, ..self }
    }

    /// What the header says.
    pub fn header(&self) -> AppHeader {
        AppHeader::parse(self.reader.header().app_header.as_deref().unwrap_or_default())
    }

    /// Whether its header names a base. One that does not may still need one (xdelta3 can leave the header out).
    pub fn needs_base(&self) -> bool {
        !self.header().base_name.is_empty() || self.reader.header().app_header.is_none()
    }

    /// Rebuilds the stream. `base` is none where the differential needs none. Whatever is passed to
    /// `sink` was checked; nothing is, before the base was.
    ///
    /// # Errors
    /// Damage of the differential or of the base where it is used, the wrong base, and the errors of `sink`.
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
        let once_more = |source| Error::Io { what: "cannot read the full backup".into(), source };
        let base_again = base.as_ref().map(Base::again).transpose().map_err(once_more)?.flatten();
        let (source, threads) = match base.map(|b| b.content) {
            None => (Source::None, options.threads),
            Some(Content::Mapped(map)) => (Source::Random(map), options.threads),
            Some(Content::Random(content)) => (Source::Random(content), options.threads),
            Some(Content::Stream(stream)) => {
                let asked = header.base_window.unwrap_or(0).min(MAX_WINDOW);
                let window = (options.window.max(asked.min(MAX_KEPT)), asked);
                let far = header.base_far;
                let base = SlidingBase::new(base_again, stream, window, self.again, far);
                (Source::Sliding(Box::new(base)), 1)
            }
        };
        let known = match &source {
            Source::Random(content) => Arc::clone(content),
            _ => Arc::new(container::Nothing),
        };
        let threads = threads.clamp(1, MAX_THREADS);
        known.keep((DECOMPRESSED - threads * PER_THREAD) << 20);
        // What we wrote has a checksum in every window, and one of the whole.
        if self.checksums && header.end_record {
            known.trust();
        }
        let mut windows = Ahead::new(self.reader, Arc::clone(&known));
        // Buffers go round, so that nothing is allocated and cleared for every window.
        let spare = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let take = Arc::clone(&spare);
        let under_way = UnderWay::default();
        let (begun, ended) = (under_way.clone(), Closing(&under_way));
        let mut hasher = TargetHasher::new();
        let mut outcome = Outcome::default();
        let checksums = self.checksums;
        let apply = move |item: Item| -> Result<Done, Error> {
            match item {
                Item::End(record) => Ok(Done::End(record)),
                Item::Window(mut window) => {
                    // It is verified below, together with the hash.
                    let adler = window.adler32.take().filter(|_| checksums);
                    let mut near = Near::default();
                    let mut out = take.lock().ok().and_then(|mut s| s.pop()).unwrap_or_default();
                    window.apply_in(
                        source.order(&window),
                        &mut |pos, buf| source.read_at(pos, buf, &mut near),
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
                        return Err(wrong(&window, expected, found, known.as_ref()).into());
                    }
                    known.passed(outcome.windows);
                    outcome.windows += 1;
                    outcome.total += bytes.len() as u64;
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    sink(&bytes).map_err(|source| Error::Io {
                        what: "cannot write the restored data".into(),
                        source,
                    })?;
                    if let Ok(mut spare) = spare.lock() {
                        spare.push(bytes);
                    }
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
            // What comes before an error is handed out before it.
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

enum Done {
    /// The window, its Adler-32 as it should be, and what it makes.
    Window(Window, Option<u32>, Vec<u8>),
    End(crate::vcdiff::EndRecord),
}

/// Windows that follow one another, and the error that ended them, if one did.
struct Batch {
    items: Vec<Item>,
    error: Option<Error>,
    bytes: usize,
}

impl Batch {
    fn read(windows: &mut Ahead<impl Read>) -> Result<Option<Batch>, Error> {
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

/// How many bytes of windows are under way; who reads more of them waits.
#[derive(Clone, Default)]
struct UnderWay(Arc<(Mutex<usize>, Condvar)>);

impl UnderWay {
    fn add(&self, bytes: usize) {
        let (held, freed) = &*self.0;
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |held: &mut usize| *held > 0 && *held + bytes > UNDER_WAY;
        *freed.wait_while(held, fits).unwrap_or_else(PoisonError::into_inner) += bytes;
    }

    fn remove(&self, bytes: usize) {
        let (held, freed) = &*self.0;
        *held.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        freed.notify_all();
    }
}

/// Lets the reading thread go when the restore is over, however it ended.
struct Closing<'a>(&'a UnderWay);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let (held, freed) = &*self.0.0;
        *held.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        freed.notify_all();
    }
}

enum Source {
    None,
    Random(Arc<dyn ReadAt>),
    Sliding(Box<SlidingBase>),
}

impl Source {
    fn read_at(&self, pos: u64, buf: &mut [u8], near: &mut Near) -> io::Result<()> {
        match self {
            Source::None => Err(io::Error::other("the differential needs a full backup, but none was given")),
            Source::Random(content) => content.read_near(pos, buf, near),
            Source::Sliding(base) => base.read_at(pos, buf),
        }
    }

    /// Windows that follow one another often copy from the same parts of the base. Every second one comes from the other
    /// side, so that their threads do not wait for each other at every part, and what was read last is at hand.
    fn order(&self, window: &Window) -> Order {
        match self {
            Source::Random(_) if window.index % 2 == 1 => Order::Falling,
            _ => Order::Rising,
        }
    }
}

/// What is said of a window with a wrong checksum: perhaps the base is damaged where it copied from.
fn wrong(window: &Window, expected: u32, found: u32, base: &dyn ReadAt) -> vcdiff::Error {
    let damage = copied(window, RANGES, 0).into_iter().find_map(|(pos, len)| {
        let source = base.verify(pos, len).err()?;
        Some(vcdiff::Error::Base { window: window.index, pos, len: len as usize, source })
    });
    damage.unwrap_or(vcdiff::Error::Checksum { window: window.index, expected, found })
}

/// Refuses a base that was found by its name alone, unless the differential's header tells that it is the right one.
/// Archives of pve-patches hold nothing but that name: they are taken, and what was not checked is given back, for people.
///
/// # Errors
/// [`BaseProblem::Unknown`], and those of [`Base::check`].
pub fn prove(base: &Base, header: &AppHeader) -> Result<Option<String>, Error> {
    match base.check(header)? {
        Proof::Content => Ok(None),
        Proof::Name => Ok(Some(format!(
            "the differential was made by pve-patches (2013 to 2021), whose archives say no more of their full backup \
             than its name: whether {} is the right one is not checked beforehand. What is restored is compared with \
             the checksums in the differential; if its end is missing, that may go unnoticed",
            shown(&base.path)
        ))),
        Proof::None => {
            let name = match &header.base_name[..] {
                b"" => "it names none".to_owned(),
                name => format!("it names {}", shown_bytes(name)),
            };
            Err(Error::base(&base.path, BaseProblem::Unknown { name }))
        }
    }
}

/// Opens an archive for reading from its start: a full backup is decompressed, a differential
/// (`base` given) is restored. Errors come as `io::Error` with the whole text. `warn`: see [`prove`].
///
/// # Errors
/// See [`source::open`], [`Differential::open`], [`Base::open_found`], [`prove`].
pub fn open(
    path: &Path,
    base: Option<&Path>,
    found: Found,
    options: Options,
    warn: impl FnOnce(String),
) -> Result<Box<dyn Read + Send>, Error> {
    let io = |source| Error::Io { what: format!("cannot open {}", shown(path)), source };
    let file = match found {
        // A pipe will do.
        Found::ByPerson => File::open(path).map_err(io)?,
        Found::ByName => source::open(path, found).map_err(|refused| match refused {
            Refused::Io(source) => io(source),
            refused => Error::Refused { path: path.to_owned(), refused },
        })?,
    };
    let Some(base) = base else {
        let stream = container::decoder(Box::new(file));
        return Ok(stream
            .map_err(|source| Error::Io { what: format!("cannot read {}", shown(path)), source })?
            .1);
    };
    let again = Pass::from_here(&file);
    let delta = Differential::open(Box::new(file))?.with(again);
    let base = Base::open_found(base, found)?;
    match found {
        Found::ByPerson => base.check(&delta.header()).map(drop)?,
        Found::ByName => prove(&base, &delta.header())?.map_or((), warn),
    }
    let (send, parts) = bounded(2);
    let spawned = std::thread::Builder::new().name("restore".into()).spawn(move || {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let result =
            delta.restore(Some(base), options, |bytes| send.send(Ok(bytes.to_vec())).map_err(|_| gone()));
        // An empty part is the end: without it, the stream was cut.
        let _ = send.send(result.map(|_| Vec::new()));
    });
    spawned.map_err(|source| Error::Io { what: "cannot start a thread".into(), source })?;
    let broken = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    // How it ended: whether well.
    let mut end = None;
    Ok(Box::new(Parts::new(move || match end {
        Some(true) => Ok(Vec::new()),
        Some(false) => broken("the differential could not be restored".into()),
        None => match parts.recv() {
            Ok(Ok(part)) => {
                end = part.is_empty().then_some(true);
                Ok(part)
            }
            other => {
                end = Some(false);
                broken(match other {
                    Ok(Err(e)) => e.to_string(),
                    _ => "internal error: the restoring thread ended unexpectedly".into(),
                })
            }
        },
    })))
}
