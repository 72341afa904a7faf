//! Encoding one segment: what of it the base has, and where.
//!
//! Pieces that are equal are copied, wherever in the base they are. Changed stretches are compared with the base's
//! bytes at the same place and beside what surrounds them; what is not found there, with those around its seeds.

use std::io;
use std::sync::atomic::Ordering;

use super::cut::{self, Layout, Piece, Pieces, Segment};
use super::encode::Engine;
use super::fine::{self, Part, Workspace};
use super::index::{Cursor, Found, Index};
use super::old::{Known, MAX_OLD, Old, Placed, around, places};
use super::seed::worthwhile;
use super::{Error, records};
use crate::container::ReadAt;
use crate::vcdiff::{MAX_SEGMENT, WindowBuilder};
use crate::vma::{EXTENT_FRONT, EXTENT_UUID};

/// Changed stretches of at least so many bytes are looked for elsewhere, so many at a time.
const MIN_SOUGHT: usize = 512;
const SOUGHT: usize = 64 << 10;
/// Seeds that are followed for so many; the base has one in 4 KiB, and each is a place to read.
const SEEDS: usize = 128;
/// So far from a seed its place still tells something.
const NEAR: usize = 8 << 10;
/// On a disk, longer ones are mostly new files in the place of old ones: seeds tell what is left of what was there.
const LONG: usize = 32 << 10;

/// Shortest run of one byte worth an instruction of its own.
const MIN_RUN: usize = 64;

/// What a worker needs for every segment.
#[derive(Default)]
pub(super) struct Scratch {
    window: WindowBuilder,
    old: Old,
    space: Workspace,
    parts: Vec<Described>,
    known: Known,
}

/// A stretch of a segment, and where it lies in the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// Equal to the base's bytes from here on.
    Equal(u64),
    /// Changed; the old bytes of the same block, where there are any.
    Changed(Option<(u64, u64)>),
    /// The front of an extent's header, its UUID and checksum being new; where that of the same clusters lies in the base,
    /// if it is there.
    Front(Option<u64>),
    /// A list of clusters that the base does not have: stored. To compare it with another one, nearly every frame of the
    /// base would have to be decompressed.
    Fresh,
}

/// A stretch of what was not found: its length, and where in the base it may come from, with lengths.
type Sought = (usize, Vec<(u64, u64)>);

/// A part of a segment, before the last look at it.
#[derive(Clone, Copy)]
enum Described {
    /// Of the base.
    Copy { from: u64, len: usize },
    /// New.
    New { at: usize, len: usize },
    /// The front of an extent's header.
    Front { at: usize, base: Option<u64> },
    /// Not found where it was to be expected.
    Unknown { at: usize, len: usize },
}

/// Encodes one segment.
pub(super) struct Job<'a> {
    engine: &'a Engine,
    segment: &'a Segment,
    content: &'a dyn ReadAt,
    index: Option<&'a Index>,
    /// Where the window in work began in the segment.
    begun: usize,
    /// Where in that window the archive's UUID is, if it is there.
    uuid: Option<usize>,
    /// That of the whole segment, if its pieces were looked up: it was made beside, while they were at hand.
    adler: Option<u32>,
    out: Vec<u8>,
    drift: Option<i64>,
    /// What lies before this place of the base cannot be read, only be copied, and no more than this.
    far: (u64, u64),
    scratch: Scratch,
}

/// An encoded segment.
pub(super) struct Done {
    /// Its windows.
    pub out: Vec<u8>,
    /// Where the base's bytes lie relative to it, if anything was found.
    pub drift: Option<i64>,
    /// What may still be copied of what cannot be read.
    pub far: u64,
}

impl<'a> Job<'a> {
    pub fn new(
        engine: &'a Engine,
        segment: &'a Segment,
        content: &'a dyn ReadAt,
        index: Option<&'a Index>,
        far: (u64, u64),
    ) -> Job<'a> {
        Job {
            engine,
            segment,
            content,
            index,
            begun: 0,
            uuid: None,
            adler: None,
            out: Vec::new(),
            drift: None,
            far,
            scratch: engine.scratch.take(),
        }
    }

    /// Describes the segment's stretches in windows.
    pub fn run(mut self, stretches: &[Placed]) -> Done {
        let mut parts = std::mem::take(&mut self.scratch.parts);
        for (n, &(at, len, stretch)) in stretches.iter().enumerate() {
            match stretch {
                Stretch::Equal(from) => {
                    parts.push(Described::Copy { from, len });
                    self.drift = Some(from as i64 - (self.segment.start + at as u64) as i64);
                }
                Stretch::Front(base) => parts.push(Described::Front { at, base }),
                Stretch::Fresh => parts.push(Described::New { at, len }),
                Stretch::Changed(old) => {
                    if let Some((from, had)) = old {
                        let middle = (from + had / 2) as i64 - (len / 2) as i64;
                        self.drift = Some(middle - (self.segment.start + at as u64) as i64);
                    }
                    if len > LONG && matches!(self.segment.layout, Layout::Vma(_)) {
                        parts.push(Described::Unknown { at, len });
                    } else {
                        self.changed(at, len, &places(stretches, n, self.segment.start == 0), &mut parts);
                    }
                }
            }
        }
        let sought = self.sought(&parts);
        let mut sought = &sought[..];
        let mut known = std::mem::take(&mut self.scratch.known);
        let mut read = 0;
        for part in parts.drain(..) {
            match part {
                Described::Copy { from, len } => self.copy(from, len),
                Described::New { at, len } => self.literal(&self.segment.data[at..at + len]),
                Described::Front { at, base } => self.front(at, base),
                Described::Unknown { mut at, len } => {
                    let end = at + len;
                    while at < end {
                        let Some(((len, places), later)) = sought.split_first() else {
                            self.literal(&self.segment.data[at..end]);
                            break;
                        };
                        if read == 0 {
                            read = known.read(self.content, sought.iter().map(|(_, places)| &places[..]));
                            known.errors.iter().for_each(|e| self.damage(e));
                        }
                        self.unknown(at, *len, places, &known);
                        at += len;
                        read -= 1;
                        sought = later;
                    }
                }
            }
        }
        (self.scratch.parts, self.scratch.known) = (parts, known);
        self.finish_window(self.segment.data.len());
        self.engine.scratch.give(self.scratch);
        Done { out: self.out, drift: self.drift, far: self.far.1 }
    }

    /// Where what was not found may come from, by its seeds: stretches of it with places. They cover all of it.
    fn sought(&self, parts: &[Described]) -> Vec<Sought> {
        let Some(index) = self.index else { return Vec::new() };
        let unknown = || {
            parts.iter().filter_map(|part| match *part {
                Described::Unknown { at, len } => Some((at, at + len)),
                _ => None,
            })
        };
        let mut seeds = Vec::new();
        for (at, end) in unknown() {
            let found = index.find_seeds(&self.segment.data[at..end]).map(Some);
            seeds.extend(self.known(found).unwrap_or_default().iter().map(|&(n, from)| (at + n, from)));
        }
        seeds.retain(|(_, from)| *from >= self.far.0);
        worthwhile(&mut seeds, |from| self.content.part_at(from));
        let mut seeds = &seeds[..];
        let mut sought = Vec::new();
        for (mut at, end) in unknown() {
            while at < end {
                let near = seeds.first().map_or(end, |seed| seed.0.saturating_sub(NEAR).clamp(at, end));
                if at < near {
                    sought.push((near - at, Vec::new()));
                    at = near;
                    continue;
                }
                let limit = end.min(at + SOUGHT);
                let mut last = at;
                let here = seeds.iter().take(SEEDS).take_while(|seed| {
                    let joins = seed.0 < limit && seed.0 <= last + 2 * NEAR;
                    last = if joins { seed.0 } else { last };
                    joins
                });
                let (here, later) = seeds.split_at(here.count());
                let next = later.first().map_or(limit, |seed| seed.0);
                let len = (last + NEAR).min(limit).min(next) - at;
                sought.push((len, around(at, len, here)));
                at += len;
                seeds = later;
            }
        }
        sought
    }

    /// Looks every piece up, and joins neighbours that stay neighbours in the base.
    pub fn stretches(&mut self, index: &Index) -> Vec<Placed> {
        let mut cursor = index.cursor();
        let mut all: Vec<Placed> = Vec::new();
        let mut pieces = self.segment.pieces();
        let mut adler = simd_adler32::Adler32::new();
        while let Some((piece, found)) = self.find_next(&mut cursor, &mut pieces) {
            let found = found.filter(|found| self.within_reach(found));
            adler.write(&self.segment.data[piece.at..piece.at + piece.len]);
            if let Some(Found { at, equal: true, headed: true, .. }) = found
                && let Some((_, _, Stretch::Front(base))) = all.last_mut()
            {
                *base = at.checked_sub(EXTENT_FRONT as u64).filter(|front| *front >= self.far.0);
            }
            let stretch = match found {
                None if piece.part == cut::Part::Front => Stretch::Front(None),
                None if piece.part == cut::Part::Clusters => Stretch::Fresh,
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
        self.adler = Some(adler.finish());
        all
    }

    /// Cuts the next piece off, and looks it up.
    fn find_next(&self, cursor: &mut Cursor<'_>, pieces: &mut Pieces<'_>) -> Option<(Piece, Option<Found>)> {
        let print =
            |piece: &Piece| self.engine.secret.print(&self.segment.data[piece.at..piece.at + piece.len]);
        if let Some(guess) = pieces.guess(|| self.known(cursor.follows()))
            && let Some(found) = self.known(cursor.find_next(&guess, print(&guess)))
        {
            pieces.accept(guess);
            return Some((guess, Some(found)));
        }
        let piece = pieces.next()?;
        let known = piece.is_known_again();
        let found = if known { self.known(cursor.find(&piece, print(&piece))) } else { None };
        Some((piece, found))
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

    fn changed(&mut self, at: usize, len: usize, places: &[(u64, u64)], parts: &mut Vec<Described>) {
        let new = &self.segment.data[at..at + len];
        let Scratch { old, space, .. } = &mut self.scratch;
        let error = old.fetch(self.content, places);
        fine::compare(&old.bytes, new, 0, space, |part| match part {
            Part::Literal { at: place, len } if len >= MIN_SOUGHT => {
                parts.push(Described::Unknown { at: at + place, len })
            }
            Part::Literal { at: place, len } => parts.push(Described::New { at: at + place, len }),
            Part::Copy { from, len, .. } => {
                parts.extend(old.origins(from, len).map(|(from, len)| Described::Copy { from, len }))
            }
        });
        error.iter().for_each(|e| self.damage(e));
    }

    /// Tells of damage of the base. What is no longer in the sliding window was to be expected.
    fn damage(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.engine.finding(error);
        }
    }

    /// Compares new bytes with the base's at `places`, which were read before.
    fn unknown(&mut self, at: usize, len: usize, places: &[(u64, u64)], known: &Known) {
        let new = &self.segment.data[at..at + len];
        if places.is_empty() {
            return self.literal(new);
        }
        let (mut old, mut space) =
            (std::mem::take(&mut self.scratch.old), std::mem::take(&mut self.scratch.space));
        old.fetch(known, places);
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

    /// The front of an extent's header. Before the UUID it has what follows from the list of clusters, so that it is the
    /// same in the base where that is; the UUID is that of every extent.
    fn front(&mut self, at: usize, base: Option<u64>) {
        let front = &self.segment.data[at..at + EXTENT_FRONT];
        match base {
            Some(from) => self.copy(from, EXTENT_UUID.start),
            None => self.literal(&front[..EXTENT_UUID.start]),
        }
        let uuid = &front[EXTENT_UUID];
        match self.uuid {
            Some(place) if self.segment.data[self.begun + place..].starts_with(uuid) => {
                self.scratch.window.copy_target(place, uuid.len());
            }
            _ => {
                self.uuid = Some(self.scratch.window.target_len());
                self.literal(uuid);
            }
        }
        self.literal(&front[EXTENT_UUID.end..]);
    }

    fn literal(&mut self, bytes: &[u8]) {
        self.engine.new.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let begun = self.scratch.window.target_len();
        if !self.engine.records {
            return self.add(bytes);
        }
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
        let window = &self.segment.data[self.begun..end];
        let whole = self.adler.filter(|_| window.len() == self.segment.data.len());
        let adler = whole.unwrap_or_else(|| simd_adler32::adler32(&window));
        self.scratch.window.finish(Some(adler), &mut self.out);
        self.begun = end;
        self.uuid = None;
    }
}
