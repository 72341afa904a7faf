//! The spill: what a differential copies from further back in a one-way base than the window reaches.
//!
//! Files that were moved or written anew may lie anywhere in the new stream. A base that can be read from its front only
//! has passed by then, so such parts are kept when they pass: in a temporary file without a name, in `TMPDIR` or `/var/tmp`,
//! at their own positions. The file is sparse, so it takes little more room than they do. To learn which parts these are, a
//! thread reads the differential once beforehand, while the restore begins.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::copied::copied;
use super::differential::Differential;
use crate::budget::{Budget, Spent};
use crate::container::Extent;
use crate::container::source::Pass;
use crate::matching::sliding_window::FAR_COPIES;
use crate::vcdiff::Item;

/// Extents that are no further apart become one.
const NEAR: u64 = 512;
/// The most extents that are told apart, in all and of one window. If there are more, extents further apart become one too.
/// Our encoder copies 1 GiB at most from so far back, in pieces of 2 KiB and more, apart from a few.
const MAX_EXTENTS: usize = 1 << 20;
const MAX_OF_WINDOW: usize = 1 << 16;
/// The most bytes that are kept, beside some for each byte of the base's file: what our encoder copies, and what lies between
/// pieces that are close to one another. Other encoders may copy as much as they like, but no more than the base holds. No
/// guest's data is compressed to less than a 64th, unless it was made to fill the disk.
const KEPT: u64 = FAR_COPIES + FAR_COPIES / (2048 / NEAR);
const KEPT_SHARE: u64 = 64;

/// Which extents are to be kept.
enum Wanted {
    Nothing,
    /// A thread is finding out.
    Coming(JoinHandle<Vec<Extent>>),
    /// These, which are in order and do not touch.
    Known(Vec<Extent>),
    All,
}

/// Keeps parts of a stream that passes by.
pub(super) struct Spill {
    wanted: Wanted,
    /// The stream has passed up to this position.
    passed: u64,
    file: Option<File>,
    /// Length of the base's file in bytes.
    base: u64,
    room: Budget,
    /// The error, if more is wanted than there is room for.
    spent: Option<Spent>,
}

impl Spill {
    /// Makes a spill that keeps nothing. The file of the base has `base` bytes.
    pub fn none(base: u64) -> Spill {
        Spill::new(Wanted::Nothing, base)
    }

    /// Makes a spill that keeps what the differential will copy from more than `window` bytes back. If the differential
    /// cannot be read twice, everything is kept.
    pub fn of(delta: Option<&Pass>, window: u64, base: u64) -> Spill {
        let Some(delta) = delta.and_then(|delta| delta.again().ok()) else {
            return Spill::new(Wanted::All, base);
        };
        let scan = std::thread::Builder::new().name("spill".into()).spawn(move || scan(delta, window));
        Spill::new(scan.map_or(Wanted::All, Wanted::Coming), base)
    }

    /// Makes a spill for another pass, because this one kept too little; `None` where it kept everything.
    pub fn more(&self, delta: Option<&Pass>, window: u64) -> Option<Spill> {
        match self.wanted {
            Wanted::Nothing => Some(Spill::of(delta, window, self.base)),
            Wanted::Coming(_) | Wanted::Known(_) => Some(Spill::new(Wanted::All, self.base)),
            Wanted::All => None,
        }
    }

    fn new(wanted: Wanted, base: u64) -> Spill {
        let room = Budget::of(KEPT.saturating_add(base.saturating_mul(KEPT_SHARE)));
        Spill { wanted, passed: 0, file: None, base, room, spent: None }
    }

    /// Takes the next part of the stream, and keeps what is wanted of it.
    ///
    /// # Errors
    /// Fails where there is no room for it.
    pub fn pass(&mut self, part: &[u8]) -> io::Result<()> {
        let (start, end) = (self.passed, self.passed + part.len() as u64);
        let extents: &[Extent] = match self.known() {
            Wanted::Known(extents) => &extents[extents.partition_point(|extent| extent.end() <= start)..],
            Wanted::All => &[Extent { pos: 0, len: u64::MAX }],
            Wanted::Nothing | Wanted::Coming(_) => &[],
        };
        let wanted: Vec<Extent> = (extents.iter())
            .take_while(|extent| extent.pos < end)
            .map(|extent| Extent::between(start.max(extent.pos), end.min(extent.end())))
            .collect();
        if let Some(spent) = self.spent {
            return Err(not_kept(spent.into()));
        }
        for extent in wanted {
            if matches!(self.wanted, Wanted::All) {
                self.room.take(extent.len).map_err(|spent| not_kept(spent.into()))?;
            }
            let at = (extent.pos - start) as usize;
            self.write(&part[at..at + extent.len as usize], extent.pos)?;
        }
        self.passed = end;
        Ok(())
    }

    /// Fills `buf` with the bytes from `pos` on, if they were kept. The result tells whether they were.
    ///
    /// # Errors
    /// Fails where the temporary file cannot be read.
    pub fn get(&mut self, pos: u64, buf: &mut [u8]) -> io::Result<bool> {
        let wanted = Extent::new(pos, buf.len() as u64);
        let kept = match self.known() {
            Wanted::Known(extents) => {
                let n = extents.partition_point(|extent| extent.end() <= pos);
                extents.get(n).is_some_and(|extent| extent.contains(wanted))
            }
            Wanted::All => true,
            Wanted::Nothing | Wanted::Coming(_) => false,
        };
        match &self.file {
            Some(file) if kept && wanted.end() <= self.passed => file.read_exact_at(buf, pos).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Returns what is wanted. If a thread is finding out, this waits for it.
    fn known(&mut self) -> &Wanted {
        if let Wanted::Coming(_) = self.wanted
            && let Wanted::Coming(scan) = std::mem::replace(&mut self.wanted, Wanted::All)
            && let Ok(extents) = scan.join()
        {
            let all = extents.iter().fold(0u64, |sum, extent| sum.saturating_add(extent.len));
            self.spent = self.room.take(all).err();
            self.wanted = Wanted::Known(extents);
        }
        &self.wanted
    }

    fn write(&mut self, bytes: &[u8], pos: u64) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(directory()).map_err(not_kept)?),
        };
        file.write_all_at(bytes, pos).map_err(not_kept)
    }
}

/// Says that something could not be kept, and what to do about it.
fn not_kept(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "what will be needed of it again could not be kept in {} ({error}): set TMPDIR to a directory with more \
             room, or decompress the full backup first",
            directory().display()
        ),
    )
}

/// The folder for the temporary file. It is not `/tmp` by default, because that may be memory.
fn directory() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// Finds what a differential copies from more than `window` bytes before the end of what was needed until then. A damaged
/// differential is read as far as it can be: the restore will find the damage itself.
fn scan(delta: Pass, window: u64) -> Vec<Extent> {
    let mut far = Vec::new();
    let Ok(Differential { mut reader, .. }) = Differential::open(Box::new(delta)) else { return far };
    let mut end = 0;
    let mut apart = NEAR;
    while let Ok(Some(Item::Window(window_read))) = reader.next_item() {
        let mut extents = copied(&window_read, MAX_OF_WINDOW, NEAR);
        if extents.len() == MAX_OF_WINDOW {
            extents = window_read.source.map(|s| Extent::new(s.pos, s.len)).into_iter().collect();
        }
        for extent in extents {
            if extent.pos.saturating_add(window) < end {
                far.push(extent);
            }
            end = end.max(extent.end());
        }
        if far.len() > MAX_EXTENTS {
            // They are reduced to half of that, so that this is not repeated at every window.
            while far.len() > MAX_EXTENTS / 2 {
                join(&mut far, apart);
                apart *= 2;
            }
        }
    }
    join(&mut far, apart);
    far
}

/// Sorts extents. Those that are no further apart than `apart` become one.
fn join(extents: &mut Vec<Extent>, apart: u64) {
    extents.sort_unstable();
    extents.dedup_by(|next, last| {
        let joined = next.pos <= last.end().saturating_add(apart);
        if joined {
            *last = Extent::between(last.pos, last.end().max(next.end()));
        }
        joined
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|&(pos, len)| Extent::new(pos, len)).collect()
    }

    fn known(pairs: &[(u64, u64)]) -> Spill {
        Spill::new(Wanted::Known(extents(pairs)), 0)
    }

    #[test]
    fn keeps_what_is_wanted_and_nothing_else() {
        let stream: Vec<u8> = (0..1000u32).map(|n| ((n * 7) >> 2) as u8).collect();
        let mut spill = known(&[(10, 5), (90, 120), (500, 500)]);
        stream.chunks(100).for_each(|part| spill.pass(part).unwrap());
        let mut get = |pos: u64, len: usize| {
            let mut buf = vec![0; len];
            spill.get(pos, &mut buf).unwrap().then(|| buf == stream[pos as usize..][..len])
        };
        for (pos, len) in [(10, 5), (11, 1), (90, 120), (150, 3), (999, 1)] {
            assert_eq!(get(pos, len), Some(true), "{pos} {len}");
        }
        for (pos, len) in [(9, 2), (14, 2), (0, 1), (89, 120), (210, 1), (999, 2), (5000, 1)] {
            assert_eq!(get(pos, len), None, "{pos} {len}");
        }
    }

    #[test]
    fn what_has_not_passed_is_not_kept() {
        let mut all = Spill::of(None, 1, 0);
        all.pass(&[7; 100]).unwrap();
        assert!(all.get(50, &mut [0; 50]).unwrap());
        assert!(!all.get(50, &mut [0; 51]).unwrap());
        assert!(!Spill::none(0).get(0, &mut [0; 1]).unwrap());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut all = Spill::of(None, 1, 100);
        all.room = Budget::of(0);
        let part = vec![7; 1 << 20];
        let kept = (0..64).take_while(|_| all.pass(&part).is_ok()).count();
        assert_eq!(kept, 32);
        let error = all.pass(&part).unwrap_err().to_string();
        assert!(error.contains("asks for more than 32 MiB") && error.contains("decompress"), "{error}");

        let mut dir = tempfile::NamedTempFile::new().unwrap();
        let mut delta = crate::vcdiff::write_header(None, None);
        for from in [9, 5, 0] {
            let mut window = crate::vcdiff::WindowBuilder::new();
            window.copy_source(from << 28, 1 << 24);
            window.finish(None, &mut delta);
        }
        std::io::Write::write_all(&mut dir, &delta).unwrap();
        for (room, good) in [(0, true), (1 << 20, false)] {
            let mut known = Spill::of(Pass::from_start(dir.as_file()).ok().as_ref(), 1 << 20, 0);
            known.room = Budget::of(0);
            known.room.take(room).unwrap();
            assert_eq!(known.pass(&[7; 100]).is_ok(), good);
        }
    }

    #[test]
    fn extents_are_joined() {
        let mut all = extents(&[(50, 10), (0, 10), (5, 2), (12, 3), (60, 1)]);
        join(&mut all, 2);
        assert_eq!(all, extents(&[(0, 15), (50, 11)]));
    }
}
